//! Latency by percentile, on an axis where each further nine takes the same room.

use hdrhistogram::Histogram;

use crate::figures;
use crate::op::Outcome;
use crate::recorder::Total;
use crate::results::RunData;
use crate::summary::{Latency, Summary};

use super::kind::Kind;
use super::plot::{Layer, Legend, Panel, Plot, Stroke};
use super::sides::SideRuns;
use super::{Chart, palette, ticks};

/// More lines than colours cannot be told apart: of more phases, so many evenly chosen ones are shown.
const LINES_MAX: usize = palette::SERIES.len();
/// Points per line.
const POINTS: usize = 160;

/// Response (solid) and service (dashed) of each measured phase, reads and writes in a panel each.
pub(super) fn chart(run: &RunData, summary: &Summary) -> Option<Chart> {
    let measured = measured(run);
    let shown = spread(&measured, LINES_MAX);
    let lines: Vec<Source<'_>> = shown
        .iter()
        .zip(palette::SERIES)
        .map(|(at, colour)| Source {
            name: run.manifest.phases[*at].name.clone(),
            runs: vec![(run, vec![*at])],
            colour,
        })
        .collect();
    let mut plot = plot(&lines, true)?;
    plot.title = title(summary);
    plot.subtitle = if shown.len() < measured.len() {
        format!("Latency by percentile, {} of {} phases", shown.len(), measured.len())
    } else {
        "Latency by percentile, successes only".to_string()
    };
    let caption =
        "Solid: response time, from the moment an operation was due to its answer. Dashed: service \
                   time, from sent to answer; the space between is time spent waiting to be sent. Lines are \
                   dotted where fewer than ten samples lie above."
            .to_string();
    Some(Chart { name: "spectrum".to_string(), caption, plot })
}

/// Response times of several sides, all measured phases and runs together, one line each.
pub(super) fn overlay(sides: &[SideRuns<'_>]) -> Option<Chart> {
    let lines: Vec<Source<'_>> = sides
        .iter()
        .zip(palette::SERIES)
        .map(|(side, colour)| Source {
            name: side.label.clone(),
            runs: side.runs.iter().map(|run| (*run, measured(run))).collect(),
            colour,
        })
        .collect();
    let mut plot = plot(&lines, false)?;
    let labels: Vec<&str> = sides.iter().map(|side| side.label.as_str()).collect();
    plot.title = format!("Response time by percentile: {}", labels.join(", "));
    plot.subtitle = "All measured phases and runs together, successes only".to_string();
    let caption =
        "Response time: from the moment an operation was due to its answer. Each line is one distribution of all of \
         a side's runs; the table's percentiles are means of each run's own. Lines are dotted where fewer than ten \
         samples lie above."
            .to_string();
    Some(Chart { name: "compare-spectrum".to_string(), caption, plot })
}

fn measured(run: &RunData) -> Vec<usize> {
    (0..run.manifest.phases.len()).filter(|at| !run.manifest.phases[*at].warmup).collect()
}

struct Source<'a> {
    name: String,
    /// Runs, with the phases that count.
    runs: Vec<(&'a RunData, Vec<usize>)>,
    colour: plotters::style::RGBColor,
}

fn plot(lines: &[Source<'_>], with_service: bool) -> Option<Plot> {
    let mut panels = Vec::new();
    let mut samples = 0;
    for kind in [Kind::Reads, Kind::Writes, Kind::Notifications, Kind::Connects] {
        let totals: Vec<(&Source<'_>, Total)> = lines
            .iter()
            .map(|line| (line, merged(&line.runs, kind)))
            .filter(|(_, total)| !total.response.is_empty())
            .collect();
        // Opening sessions gets a panel only where there is nothing else to see.
        if totals.is_empty() || (kind == Kind::Connects && !panels.is_empty()) {
            continue;
        }
        samples = totals.iter().map(|(_, total)| total.response.len()).fold(samples, u64::max);
        panels.push(panel(kind.name(), &totals, with_service));
    }
    let mut legend: Vec<Legend> =
        lines.iter().map(|line| Legend::line(&line.name, line.colour, Stroke::Solid)).collect();
    if with_service {
        legend.push(Legend::line("response", palette::MUTED, Stroke::Solid));
        legend.push(Legend::line("service", palette::MUTED, Stroke::Dashed));
    }
    (!panels.is_empty()).then(|| Plot {
        title: String::new(),
        subtitle: String::new(),
        legend,
        x: ticks::nines(samples),
        upright_grid: true,
        panels,
        bands: Vec::new(),
        marks: Vec::new(),
    })
}

fn panel(name: &str, totals: &[(&Source<'_>, Total)], with_service: bool) -> Panel {
    let low = totals.iter().map(|(_, t)| t.service.min().min(t.response.min())).min().unwrap_or(1_000);
    let high = totals.iter().map(|(_, t)| t.response.max()).max().unwrap_or(1_000);
    let mut layers = Vec::new();
    for (line, total) in totals {
        if with_service {
            layers.extend(curve(&total.service, line.colour, Stroke::Dashed, 1.4));
        }
        layers.extend(curve(&total.response, line.colour, Stroke::Solid, 2.0));
    }
    Panel {
        name: name.to_string(),
        height: 210.0,
        y: ticks::latency(low as f64 / 1e3, high as f64 / 1e3),
        layers,
    }
}

/// Solid as far as ten samples lie above, dotted to the largest.
fn curve(
    histogram: &Histogram<u64>,
    colour: plotters::style::RGBColor,
    stroke: Stroke,
    width: f64,
) -> Vec<Layer> {
    let n = histogram.len() as f64;
    let sure = (n / 10.0).log10().max(0.0);
    let part = |from: f64, to: f64, count: usize| -> Vec<(f64, f64)> {
        let nines = (0..=count).map(|at| from + (to - from) * at as f64 / count as f64);
        let quantiles = nines.clone().map(|nines| 1.0 - 10f64.powf(-nines));
        nines.zip(histogram.value_at_quantiles(quantiles).map(|ns| ns as f64 / 1e3)).collect()
    };
    let mut layers = vec![Layer::Line {
        points: part(sure, n.log10(), 24),
        colour,
        stroke: Stroke::Dotted,
        width: width * 0.7,
    }];
    if sure > 0.0 {
        layers.push(Layer::Line { points: part(0.0, sure, POINTS), colour, stroke, width });
    }
    layers
}

/// Successes of some phases and a kind.
fn merged(runs: &[(&RunData, Vec<usize>)], kind: Kind) -> Total {
    let mut merged = Total::new();
    for (run, phases) in runs {
        for (key, total) in &run.recording.totals {
            let mine = phases.contains(&usize::from(key.phase)) && Kind::of(key.op) == kind;
            if mine && key.outcome == Outcome::Ok {
                merged.merge(total);
            }
        }
    }
    merged
}

/// At most `n` of the items, first and last among them.
fn spread(items: &[usize], n: usize) -> Vec<usize> {
    if items.len() <= n {
        return items.to_vec();
    }
    (0..n).map(|at| items[at * (items.len() - 1) / (n - 1)]).collect()
}

fn title(summary: &Summary) -> String {
    let parts: Vec<String> = Kind::MEASURED
        .into_iter()
        .filter_map(|kind| {
            let (p, us) = highest(&kind.summary(&summary.whole)?.response)?;
            Some(format!("{} {p} {}", kind.name(), figures::time_us(us)))
        })
        .collect();
    if parts.is_empty() {
        "Response time".to_string()
    } else {
        format!("Response time: {}", parts.join(", "))
    }
}

/// The highest of p99, p90, p50 that there are samples for.
fn highest(latency: &Latency) -> Option<(&'static str, f64)> {
    [("p99", latency.p99_us), ("p90", latency.p90_us), ("p50", latency.p50_us)]
        .into_iter()
        .find_map(|(name, us)| us.map(|us| (name, us)))
}
