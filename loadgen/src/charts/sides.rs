//! Several clusters in one chart: overlaid spectra, and bars for rate, latency, CPU and what faults cost. Bars show the rows of
//! the comparison's table and nothing else, so that chart and table cannot disagree.

use crate::compare::{Comparison, FAULTS, Figure, Row, WATCHES};
use crate::figures;
use crate::results::RunData;

use super::plot::{Layer, Legend, Panel, Plot};
use super::{Chart, palette, spectrum, ticks};

/// The runs of one side of a comparison.
pub(crate) struct SideRuns<'a> {
    pub(crate) label: String,
    pub(crate) runs: Vec<&'a RunData>,
}

/// All charts of a comparison.
pub(crate) fn charts(comparison: &Comparison, sides: Vec<SideRuns<'_>>) -> Vec<Chart> {
    [of_phases(comparison), of_faults(comparison), spectrum::overlay(&sides)].into_iter().flatten().collect()
}

/// What one panel shows: name, unit, how many of the figure's units make one of it, operation, figure.
type Shown = (&'static str, &'static str, f64, &'static str, Figure);

const SHOWN: [Shown; 5] = [
    ("throughput", "per second", 1.0, "all", Figure::Rate),
    ("reads, p99 of response time", "ms", 1e3, "reads", Figure::P99),
    ("writes, p99 of response time", "ms", 1e3, "writes", Figure::P99),
    ("notifications, p99", "ms", 1e3, "notify", Figure::P99),
    ("servers' CPU per operation", "µs", 1.0, "all", Figure::ServerCpu),
];

const CAPTION: &str = "Each bar is the geometric mean of a side’s runs, as in the table; a whisker reaches from its \
                       lowest to its highest run. A bar is missing where samples do not suffice or nothing was measured.";

/// Per phase one bar per side.
fn of_phases(comparison: &Comparison) -> Option<Chart> {
    let mut phases: Vec<&str> = Vec::new();
    for row in comparison.rows.iter().filter(|row| row.phase != FAULTS && row.phase != WATCHES) {
        if phases.last() != Some(&row.phase.as_str()) {
            phases.push(&row.phase);
        }
    }
    let panel = |(name, unit, scale, op, figure): &Shown| {
        let rows: Vec<Option<&Row>> = phases.iter().map(|phase| comparison.row(phase, op, *figure)).collect();
        panel(comparison, name, unit, *scale, &rows)
    };
    let panels = SHOWN.iter().filter_map(panel).collect();
    chart(comparison, "compare-phases", "The measured phases side by side", &phases, panels)
}

/// What faults made clients wait for: per part one bar per side.
fn of_faults(comparison: &Comparison) -> Option<Chart> {
    let of = |figure: Figure| {
        comparison
            .rows
            .iter()
            .filter(move |row| row.phase == FAULTS && row.figure == figure)
            .collect::<Vec<_>>()
    };
    let (median, longest) = (of(Figure::Median), of(Figure::Longest));
    let parts: Vec<&str> = longest.iter().map(|row| row.op.as_str()).collect();
    let panels = [("median of a run's faults", median), ("longest of a run's faults", longest)];
    let panels = panels.into_iter().filter_map(|(name, rows)| {
        panel(comparison, name, "ms", 1e3, &rows.into_iter().map(Some).collect::<Vec<_>>())
    });
    chart(comparison, "compare-faults", "What the faults cost", &parts, panels.collect())
}

fn chart(
    comparison: &Comparison,
    name: &str,
    subtitle: &str,
    columns: &[&str],
    panels: Vec<Panel>,
) -> Option<Chart> {
    let labels = &comparison.labels;
    (!panels.is_empty() && columns.len() <= super::phases::PHASES_MAX).then(|| Chart {
        name: name.to_string(),
        caption: CAPTION.to_string(),
        plot: Plot {
            title: labels.join(" against "),
            subtitle: subtitle.to_string(),
            legend: labels
                .iter()
                .zip(palette::SERIES)
                .map(|(label, colour)| Legend::fill(label.as_str(), colour))
                .collect(),
            x: super::phases::columns(columns),
            upright_grid: false,
            panels,
            bands: Vec::new(),
            marks: Vec::new(),
        },
    })
}

/// One column per row; what never ended has no bar.
fn panel(
    comparison: &Comparison,
    name: &str,
    unit: &str,
    scale: f64,
    rows: &[Option<&Row>],
) -> Option<Panel> {
    let sides = comparison.labels.len();
    let width = (0.72 / sides as f64).min(0.1 * rows.len() as f64);
    let labelled = sides * rows.len() <= 14;
    let (mut boxes, mut layers, mut top) = (Vec::new(), Vec::new(), 0.0f64);
    for (at, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        for (number, (value, colour)) in row.values.iter().zip(palette::SERIES).enumerate() {
            let Some(mean) = value.filter(|value| value.is_finite()).map(|value| value / scale) else {
                continue;
            };
            let (low, high) = row.runs[number]
                .iter()
                .fold((f64::MAX, 0.0f64), |(low, high), v| (low.min(*v / scale), high.max(*v / scale)));
            let from = at as f64 + 0.5 + width * (number as f64 - sides as f64 / 2.0);
            boxes.push((from, from + width * 0.92, 0.0, mean, colour));
            if row.runs[number].len() > 1 {
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
        name: name.to_string(),
        height: 120.0,
        y: ticks::from_zero(unit, top * 1.15, ticks::plain),
        layers,
    })
}
