//! `report.html`: a run on one page. One file: no network, no frameworks; charts are inlined as SVG.
//!
//! Made from the results directory alone, so it can be made again at any time (`zoometry report DIR`).

mod failover;
mod page;
mod slowest;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::charts;
use crate::figures;
use crate::results::{self, Manifest, RunData};
use crate::summary::{Summary, Tail};

use charts::escape;
pub(crate) use page::{Page, figure};

/// Draws the charts and writes the report into a results directory; returns the report's path.
///
/// # Errors
/// What is missing or damaged in the directory, or could not be written.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let run = results::read(dir)?;
    let summary = Summary::of(&run);
    let charts = charts::of_run(&run, &summary, &results::fan_outs(dir)?);
    charts::write(dir, &charts)?;
    let slowest = slowest::read(dir, &run)?;
    let path = dir.join("report.html");
    let html = html(&run, &summary, &charts, &slowest)?;
    std::fs::write(&path, html).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn html(
    run: &RunData,
    summary: &Summary,
    charts: &[charts::Chart],
    slowest: &slowest::Slowest,
) -> Result<String> {
    let manifest = &run.manifest;
    let mut page = Page::new(&format!("{} on {}", manifest.workload, manifest.cluster));
    page.header(
        &manifest.workload,
        &format!(
            "on <b>{}</b> · {} UTC · {} measured · seed {}",
            escape(&manifest.cluster),
            figures::utc(manifest.started_unix_ms),
            figures::seconds(summary.whole.seconds),
            manifest.seed
        ),
    );
    if !manifest.question.trim().is_empty() {
        page.push(&format!("<p class=question>{}</p>", paragraphs(&manifest.question)));
    }
    page.push(&tables::verdict(&manifest.verdict));
    page.push(&cards(summary, &run.manifest));
    page.push(&tables::expectations(manifest));
    page.push(&tables::promises(manifest));
    let (of_faults, charts): (Vec<&charts::Chart>, Vec<&charts::Chart>) =
        charts.iter().partition(|chart| chart.name.starts_with("failover"));
    if let Some(failover) = &summary.failover {
        page.section("faults", "What the faults cost");
        for chart in of_faults {
            page.push(&figure(chart)?);
        }
        page.push(&failover::tables(failover, &run.manifest));
    }
    page.section("summary", "Summary");
    page.push(&tables::summary(summary));
    page.section("charts", "Charts");
    for chart in charts {
        page.push(&figure(chart)?);
    }
    page.push(&tables::events(run));
    page.push(&slowest.html());
    page.section("environment", "Where and what");
    page.push(&tables::environment(run));
    page.push(&tables::workload(manifest));
    Ok(page.finish(&manifest.version))
}

/// Line breaks of the workload's header comment become spaces, empty lines become paragraphs.
fn paragraphs(text: &str) -> String {
    let mut html = String::new();
    for line in text.lines() {
        html.push_str(if line.trim().is_empty() { "<br><br>" } else { " " });
        html.push_str(&escape(line.trim()));
    }
    html.trim().to_string()
}

/// The few figures that most readers came for.
fn cards(summary: &Summary, manifest: &Manifest) -> String {
    let whole = &summary.whole;
    let mut cards: Vec<(String, String, String)> = Vec::new();
    if let Some(all) = whole.all() {
        let note = if all.errors + all.missed > 0 {
            format!("{} failed or missed", figures::percent(all.failed_share()))
        } else {
            "none failed".to_string()
        };
        cards.push(("operations per second".into(), figures::rate(all.rate), note));
    }
    for name in ["reads", "writes"] {
        if let Some(op) = whole.class(name) {
            let p99 = match op.errors + op.missed {
                0 => "p99",
                _ => "p99, failures counted as never answered",
            };
            let (value, what) = match (op.tail(0.99), op.response.p50_us) {
                (Tail::Us(us), _) => (figures::time_us(us), p99),
                (Tail::Never, _) => ("never".to_string(), p99),
                (Tail::Unknown, Some(us)) => (figures::time_us(us), "median (too few samples for p99)"),
                (Tail::Unknown, None) => continue,
            };
            let median =
                op.response.p50_us.map_or(String::new(), |us| format!("median {}", figures::time_us(us)));
            cards.push((format!("{name}, {what}"), value, median));
        }
    }
    if let Some(told) = whole.op("notify").filter(|told| told.count > 0) {
        let median =
            told.response.p50_us.map_or(String::new(), |us| format!("median {}", figures::time_us(us)));
        cards.push((
            "write due to watcher told, p99".into(),
            figures::time_us_or_dash(told.response.p99_us),
            median,
        ));
    }
    if let Some(us) = whole.servers.cpu_us_per_op {
        let cores: f64 = whole.servers.cores.values().sum();
        let note = format!("{} cores in use", figures::digits(cores));
        cards.push(("servers' CPU per operation".into(), figures::time_us(us), note));
    }
    if let Some(gap) = whole.gaps.iter().find(|gap| gap.class == "writes") {
        let note = format!("at {:.1} s", manifest.seconds(gap.from_ns));
        let length = figures::time_us((gap.to_ns - gap.from_ns) as f64 / 1e3);
        cards.push(("longest time without a write".into(), length, note));
    }
    let cards = cards.iter().map(|(name, value, note)| {
        format!(
            "<div class=card><div class=name>{}</div><div class=value>{}</div><div class=note>{}</div></div>",
            escape(name),
            escape(value),
            escape(note)
        )
    });
    format!("<div class=cards>{}</div>", cards.collect::<String>())
}
