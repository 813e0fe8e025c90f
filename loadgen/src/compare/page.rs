//! `compare.html`: the comparison on one page, made like the report.

use std::fmt::Write;

use anyhow::Result;

use crate::charts::{Chart, escape};
use crate::figures;
use crate::report::{Page, figure};

use super::sides::{Loaded, short};
use super::{Comparison, Finding, Row, Weight, text};

/// The whole page.
pub(super) fn render(comparison: &Comparison, sides: &[Loaded], charts: &[Chart]) -> Result<String> {
    let manifest = &sides[0].runs[0].run.manifest;
    let title = format!("{}: {}", manifest.workload, comparison.labels.join(" against "));
    let mut page = Page::new(&title);
    let sides_text: Vec<String> = sides
        .iter()
        .map(|side| {
            let runs = side.runs.len();
            format!("<b>{}</b> ({runs} {})", escape(&side.label), if runs == 1 { "run" } else { "runs" })
        })
        .collect();
    page.header(
        &title,
        &format!("{} · {} UTC", sides_text.join(" · "), figures::utc(manifest.started_unix_ms)),
    );
    page.push(&differences(comparison));
    page.section("figures", "Side by side");
    page.push(&table(comparison));
    for paragraph in text::basis(comparison) {
        page.push(&format!("<p class=note>{}</p>", escape(&paragraph)));
    }
    page.section("kept", "Promises, failures, sessions");
    page.push(&kept(comparison));
    page.section("charts", "Charts");
    for chart in charts {
        page.push(&figure(chart)?);
    }
    page.section("runs", "The runs");
    page.push(&runs(sides));
    Ok(page.finish(&manifest.version))
}

fn differences(comparison: &Comparison) -> String {
    if comparison.differences.is_empty() {
        return "<div class=\"verdict valid\"><div class=grade>SAME</div><p>All runs were asked the same, on the \
                same machine.</p></div>"
            .to_string();
    }
    let worst = comparison.differences.iter().map(|difference| difference.weight).min();
    let (class, word, meaning) = match worst {
        Some(Weight::Invalid) => {
            ("invalid", "NOT COMPARABLE", "Not all of these runs can be believed; the comparison was forced.")
        }
        Some(Weight::Refuses) => {
            ("invalid", "NOT COMPARABLE", "These runs were not asked the same; the comparison was forced.")
        }
        _ => ("suspect", "NOTE", "All runs were asked the same. Good to know before comparing them:"),
    };
    let mut html = format!(
        "<div class=\"verdict {class}\"><div class=grade>{word}</div><div><p>{meaning}</p><div class=scroll>\
         <table class=plain><thead><tr><th class=text></th>"
    );
    for label in &comparison.labels {
        let _ = write!(html, "<th class=text>{}</th>", escape(label));
    }
    html.push_str("</tr></thead><tbody>");
    for difference in &comparison.differences {
        let class = if difference.weight.refuses() { "failed" } else { "text" };
        let _ = write!(html, "<tr><td class={class}>{}</td>", escape(&difference.what));
        for value in &difference.values {
            let _ = write!(html, "<td class=text>{}</td>", escape(value));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></div></div>");
    html
}

fn table(comparison: &Comparison) -> String {
    let mut html = "<div class=scroll><table class=sortable><thead><tr><th class=text>phase</th>\
                    <th class=text>operation</th><th class=text>figure</th>"
        .to_string();
    for (at, label) in comparison.labels.iter().enumerate() {
        let _ = write!(html, "<th>{}</th>", escape(label));
        if at > 0 {
            html.push_str("<th>ratio</th><th>interval</th><th class=text>finding</th>");
        }
    }
    html.push_str("</tr></thead><tbody>");
    for row in &comparison.rows {
        html.push_str(&line(row));
    }
    html.push_str("</tbody></table></div>");
    html
}

fn line(row: &Row) -> String {
    let mut html = format!(
        "<tr><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td>",
        escape(&row.phase),
        escape(&row.op),
        escape(row.figure.name())
    );
    for (at, value) in row.values.iter().enumerate() {
        let shown = value.map_or("-".to_string(), |value| text::shown(row.figure, value));
        let sorted = value.map_or(-1.0, |value| value.min(f64::MAX));
        let runs: Vec<String> = row.runs[at].iter().map(|value| text::shown(row.figure, *value)).collect();
        let _ = write!(
            html,
            "<td data-v={sorted} title=\"runs: {}\">{}</td>",
            escape(&runs.join(", ")),
            shown.replace(' ', "&nbsp;")
        );
        if at == 0 {
            continue;
        }
        match &row.against[at - 1] {
            None => html.push_str("<td data-v=-1>-</td><td></td><td></td>"),
            Some(against) => {
                let better = match against.finding {
                    Finding::Higher | Finding::HigherInEachRun => Some(row.figure.more_is_better()),
                    Finding::Lower | Finding::LowerInEachRun => Some(!row.figure.more_is_better()),
                    Finding::Same | Finding::Unclear => None,
                };
                let class =
                    better.map_or("text", |better| if better { "\"text better\"" } else { "\"text worse\"" });
                let told = against.interval.is_some() || against.finding.is_in_each_run();
                let words = if told { against.finding.words() } else { "" };
                let _ = write!(
                    html,
                    "<td data-v={}>{}</td><td>{}</td><td class={class}>{}</td>",
                    against.ratio,
                    text::ratio(against.ratio),
                    text::interval(against).replace(' ', "&nbsp;"),
                    escape(words).replace(' ', "&nbsp;")
                );
            }
        }
    }
    html.push_str("</tr>");
    html
}

fn kept(comparison: &Comparison) -> String {
    let mut html = "<div class=scroll><table class=plain><thead><tr><th class=text></th>".to_string();
    for label in &comparison.labels {
        let _ = write!(html, "<th class=text>{}</th>", escape(label));
    }
    html.push_str("</tr></thead><tbody>");
    for kept in &comparison.kept {
        let _ = write!(html, "<tr><td class=text>{}</td>", escape(kept.what));
        for side in &kept.sides {
            let broken = kept.is_promise && side.is_some_and(|tally| tally.count > 0);
            let class = if broken { "failed" } else { "text" };
            let shown = side.map_or("-".to_string(), text::tally);
            let _ = write!(html, "<td class={class}>{}</td>", escape(&shown).replace(' ', "&nbsp;"));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

fn runs(sides: &[Loaded]) -> String {
    let mut html =
        "<div class=scroll><table class=plain><thead><tr><th class=text>side</th><th class=text>started \
                    (UTC)</th><th class=text>verdict</th><th class=text>version of the servers</th>\
                    <th class=text>directory</th><th class=text>command</th></tr></thead><tbody>"
            .to_string();
    for side in sides {
        for one in &side.runs {
            let manifest = &one.run.manifest;
            let version = manifest.members.first().map_or("", |member| member.version.as_str());
            let _ = write!(
                html,
                "<tr><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td>\
                 <td class=text>{}</td><td class=text><code>{}</code></td></tr>",
                escape(&side.label),
                figures::utc(manifest.started_unix_ms),
                manifest.verdict.grade,
                escape(version),
                escape(&short(&one.directory)),
                escape(&manifest.command)
            );
        }
    }
    html.push_str("</tbody></table></div>");
    html
}
