//! Several clusters in one chart: overlaid spectra, and bars per phase for rate, latency and CPU.

use crate::figures;
use crate::results::RunData;
use crate::summary::{PhaseSummary, Summary};

use super::kind::Kind;
use super::phases::columns;
use super::plot::{Layer, Legend, Panel, Plot};
use super::{Chart, palette, spectrum, ticks};

/// The runs of one side of a comparison.
pub(crate) struct SideRuns<'a> {
    pub(crate) label: String,
    pub(crate) runs: Vec<(&'a RunData, &'a Summary)>,
}

/// All charts of a comparison.
pub(crate) fn charts(sides: &[SideRuns<'_>]) -> Vec<Chart> {
    [bars(sides), spectrum::overlay(sides)].into_iter().flatten().collect()
}

/// What one panel shows.
type Figure = (&'static str, &'static str, fn(&PhaseSummary) -> Option<f64>);

const FIGURES: [Figure; 5] = [
    ("throughput", "per second", |phase| phase.all().map(|all| all.rate)),
    ("reads, p99 of response time", "ms", |phase| phase.class("reads")?.response.p99_us.map(|us| us / 1e3)),
    ("writes, p99 of response time", "ms", |phase| phase.class("writes")?.response.p99_us.map(|us| us / 1e3)),
    ("notifications, p99", "ms", |phase| {
        Kind::Notifications.summary(phase)?.response.p99_us.map(|us| us / 1e3)
    }),
    ("servers' CPU per operation", "µs", |phase| phase.servers.cpu_us_per_op),
];

/// Per phase one bar per side; means of repeated runs with a whisker from the lowest to the highest.
fn bars(sides: &[SideRuns<'_>]) -> Option<Chart> {
    let first = sides.first()?.runs.first()?.1;
    let phases: Vec<&PhaseSummary> = first
        .measured()
        .filter(|phase| {
            let has = |summary: &Summary| summary.measured().any(|other| other.name == phase.name);
            sides.iter().flat_map(|side| &side.runs).all(|(_, summary)| has(summary))
        })
        .collect();
    let panels: Vec<Panel> = FIGURES.iter().filter_map(|figure| panel(sides, &phases, figure)).collect();
    let labels: Vec<&str> = sides.iter().map(|side| side.label.as_str()).collect();
    (!panels.is_empty() && phases.len() <= super::phases::PHASES_MAX).then(|| Chart {
        name: "compare-phases".to_string(),
        caption: "Each bar is the mean of a side’s runs; a whisker reaches from its lowest to its highest run. A bar \
                  is missing where samples do not suffice or nothing was measured."
            .to_string(),
        plot: Plot {
            title: labels.join(" against "),
            subtitle: "The measured phases side by side".to_string(),
            legend: labels
                .iter()
                .zip(palette::SERIES)
                .map(|(label, colour)| Legend::fill(*label, colour))
                .collect(),
            x: columns(&phases),
            upright_grid: false,
            panels,
            bands: Vec::new(),
            marks: Vec::new(),
        },
    })
}

fn panel(sides: &[SideRuns<'_>], phases: &[&PhaseSummary], (name, unit, of): &Figure) -> Option<Panel> {
    let width = (0.72 / sides.len() as f64).min(0.1 * phases.len() as f64);
    let labelled = sides.len() * phases.len() <= 14;
    let (mut boxes, mut layers, mut top) = (Vec::new(), Vec::new(), 0.0f64);
    for (at, phase) in phases.iter().enumerate() {
        for (number, (side, colour)) in sides.iter().zip(palette::SERIES).enumerate() {
            let values: Option<Vec<f64>> =
                side.runs.iter().map(|(_, summary)| summary.phase(&phase.name).and_then(of)).collect();
            let Some(values) = values.filter(|values| !values.is_empty()) else { continue };
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let (low, high) =
                values.iter().fold((f64::MAX, 0.0f64), |(low, high), v| (low.min(*v), high.max(*v)));
            let from = at as f64 + 0.5 + width * (number as f64 - sides.len() as f64 / 2.0);
            boxes.push((from, from + width * 0.92, 0.0, mean, colour));
            if values.len() > 1 {
                let x = from + width * 0.46;
                layers.push(Layer::Whisker { x, low, high, colour: palette::INK });
            }
            if labelled {
                layers.push(Layer::Note { x: from + width * 0.46, y: high, text: figures::digits(mean) });
            }
            top = top.max(high);
        }
    }
    layers.insert(0, Layer::Boxes { boxes });
    (top > 0.0).then(|| Panel {
        name: (*name).to_string(),
        height: 120.0,
        y: ticks::from_zero(unit, top * 1.15, ticks::plain),
        layers,
    })
}
