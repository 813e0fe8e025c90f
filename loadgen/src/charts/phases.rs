//! The measured phases side by side: what a sweep over rates, ratios or sizes comes to.

use plotters::style::RGBColor;

use crate::figures;
use crate::results::RunData;
use crate::summary::{PhaseSummary, Summary};

use super::kind::Kind;
use super::plot::{Axis, Layer, Legend, Panel, Plot, Scale, Stroke};
use super::{Chart, palette, ticks};

/// More phases than these would not fit side by side.
pub(super) const PHASES_MAX: usize = 24;

/// Rate, median and p99 of reads and writes, and CPU per operation: one column per phase. Only where there
/// are at least two phases to compare.
pub(super) fn chart(run: &RunData, summary: &Summary) -> Option<Chart> {
    let phases: Vec<&PhaseSummary> = summary.measured().filter(|phase| phase.all().is_some()).collect();
    if phases.len() < 2 || phases.len() > PHASES_MAX {
        return None;
    }
    let rates: Vec<f64> = phases.iter().map(|phase| phase.all().map_or(0.0, |all| all.rate)).collect();
    let mut plot = Plot {
        title: title(&rates),
        subtitle: format!("{}: the measured phases side by side", run.manifest.workload),
        legend: Vec::new(),
        x: columns(&phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>()),
        upright_grid: false,
        panels: vec![bars("throughput", "per second", &rates, palette::BLUE, 120.0, figures::rate)],
        bands: Vec::new(),
        marks: Vec::new(),
    };
    plot.panels.extend(latencies(&phases, &mut plot.legend));
    let cpu: Vec<f64> = phases.iter().map(|phase| phase.servers.cpu_us_per_op.unwrap_or(0.0)).collect();
    if cpu.iter().any(|us| *us > 0.0) {
        plot.panels.push(bars(
            "servers' CPU per operation",
            "µs",
            &cpu,
            palette::GREEN,
            100.0,
            figures::digits,
        ));
    }
    let caption =
        "Latency: the dot is the median, the upper end p99 of response time; no upper end where samples \
                   do not suffice."
            .to_string();
    Some(Chart { name: "phases".to_string(), caption, plot })
}

fn title(rates: &[f64]) -> String {
    let (low, high) =
        rates.iter().fold((f64::MAX, 0.0f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    if high > low * 1.02 {
        format!("Phases from {} to {} operations per second", figures::rate(low), figures::rate(high))
    } else {
        format!("Phases at {} operations per second", figures::rate(high))
    }
}

/// One column per name, with that below; only numbers when names would not fit.
pub(super) fn columns(names: &[&str]) -> Axis {
    let room = 60 / names.len().max(1);
    let named = names.iter().all(|name| name.chars().count() <= room * 2);
    let ticks = names.iter().enumerate().map(|(at, name)| {
        let label = if named { (*name).to_string() } else { (at + 1).to_string() };
        (at as f64 + 0.5, label)
    });
    Axis {
        name: if named { String::new() } else { "by number, in the order of the table".to_string() },
        scale: Scale::Linear,
        range: (0.0, names.len() as f64),
        ticks: ticks.collect(),
    }
}

/// A bar per column with its value above it.
fn bars(
    name: &str,
    unit: &str,
    values: &[f64],
    colour: RGBColor,
    height: f64,
    label: fn(f64) -> String,
) -> Panel {
    let max = values.iter().copied().fold(0.0, f64::max);
    // Few columns are wide; their bars need not be.
    let reach = (0.08 * values.len() as f64).min(0.3);
    let boxes = values
        .iter()
        .enumerate()
        .filter(|(_, value)| **value > 0.0)
        .map(|(at, value)| (at as f64 + 0.5 - reach, at as f64 + 0.5 + reach, 0.0, *value, colour));
    let mut layers = vec![Layer::Boxes { boxes: boxes.collect() }];
    // With many columns the values would run into each other; the axis has to do then.
    if values.len() <= 12 {
        layers.extend(
            values.iter().enumerate().filter(|(_, value)| **value > 0.0).map(|(at, value)| Layer::Note {
                x: at as f64 + 0.5,
                y: *value,
                text: label(*value),
            }),
        );
    }
    Panel { name: name.to_string(), height, y: ticks::from_zero(unit, max * 1.15, ticks::plain), layers }
}

/// The kinds of operation beside each other in each column, from median to p99.
fn latencies(phases: &[&PhaseSummary], legend: &mut Vec<Legend>) -> Option<Panel> {
    let mut layers = Vec::new();
    let (mut low, mut high) = (f64::MAX, 0.0f64);
    for (number, kind) in Kind::MEASURED.into_iter().enumerate() {
        let colour = kind.colour();
        let mut seen = false;
        for (at, phase) in phases.iter().enumerate() {
            let Some(op) = kind.summary(phase) else { continue };
            let Some(median) = op.response.p50_us else { continue };
            let x = at as f64 + 0.38 + 0.12 * number as f64;
            let top = op.response.p99_us.unwrap_or(median);
            (low, high, seen) = (low.min(median), high.max(top), true);
            layers.push(Layer::Whisker { x, low: median, high: top, colour });
            layers.push(Layer::Line {
                points: vec![(x, median)],
                colour,
                stroke: Stroke::Points,
                width: 2.4,
            });
        }
        if seen {
            legend.push(Legend::line(kind.name(), colour, Stroke::Points));
        }
    }
    (high > 0.0).then(|| Panel {
        name: "response time, median to p99".to_string(),
        height: 150.0,
        y: ticks::latency(low * 0.9, high * 1.1),
        layers,
    })
}
