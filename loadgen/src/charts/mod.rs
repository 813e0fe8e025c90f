//! Charts of a run, from what its directory holds: SVG for screens, PNG for everything else.
//!
//! Titles state what was found, without praise. Axes have units, colours are told apart by everybody
//! ([`palette`]), and all text is drawn without a font of the system ([`plot`]).

mod failover;
mod kind;
mod over_time;
mod palette;
mod phases;
mod plot;
mod sides;
mod spectrum;
mod ticks;

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::driver::FanOut;
use crate::results::{EventRow, RunData};
use crate::summary::Summary;

use plot::{DENSITY, Mark, Plot, WIDTH};

pub(crate) use sides::{SideRuns, charts as of_sides};

/// The bitmap backend places centred text this share of its size too high.
const PNG_TEXT_SINK: f64 = 0.16;

/// A chart, ready to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// File name without extension.
    pub name: String,
    /// How to read it, a sentence or two.
    pub caption: String,
    plot: Plot,
}

/// Every chart that the run has data for, in the order of a report. `fan_outs` is what `watches.csv` holds.
pub fn of_run(run: &RunData, summary: &Summary, fan_outs: &[FanOut]) -> Vec<Chart> {
    let heat_maps = kind::Kind::MEASURED.map(|kind| over_time::heat_map(run, kind));
    [
        failover::timeline(run, summary),
        failover::rounds(summary),
        phases::chart(run, summary),
        spectrum::chart(run, summary),
        over_time::throughput(run, summary),
        over_time::percentiles(run, summary),
    ]
    .into_iter()
    .chain(heat_maps)
    .chain([over_time::fan_outs(run, fan_outs), over_time::servers(run, summary)])
    .flatten()
    .collect()
}

/// Writes `charts/<name>.svg` and `.png` under a results directory.
///
/// # Errors
/// The file that could not be written, and why.
pub fn write(dir: &Path, charts: &[Chart]) -> Result<()> {
    let dir = dir.join("charts");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for chart in charts {
        let svg = dir.join(format!("{}.svg", chart.name));
        std::fs::write(&svg, chart.svg()?).with_context(|| format!("cannot write {}", svg.display()))?;
        chart.write_png(&dir.join(format!("{}.png", chart.name)))?;
    }
    Ok(())
}

/// What an event tells at `x`; faults are causes, all else comes of them.
fn mark(event: &EventRow, x: f64, text: String) -> Mark {
    Mark { x, text, is_cause: event.kind == "fault" }
}

impl Chart {
    /// What the chart says.
    pub fn title(&self) -> &str {
        &self.plot.title
    }

    /// The chart as an SVG document.
    ///
    /// # Errors
    /// When plotters cannot draw it.
    pub fn svg(&self) -> Result<String> {
        register_fonts()?;
        let (width, height) = self.size();
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            plot::draw(&area, &self.plot, 0.0).map_err(|e| anyhow!("chart {}: {e}", self.name))?;
            area.present().map_err(|e| anyhow!("chart {}: {e}", self.name))?;
        }
        // Drawn at a multiple of its size; shown at its size, or smaller where there is no room.
        let drawn = format!("width=\"{width}\" height=\"{height}\"");
        let shown = format!(
            "width=\"{WIDTH:.0}\" height=\"{:.0}\" role=\"img\" aria-label=\"{}\"",
            self.plot.height(),
            escape(&self.plot.title)
        );
        Ok(svg.replacen(&drawn, &shown, 1))
    }

    /// Writes the chart as a PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        register_fonts()?;
        let area = BitMapBackend::new(path, self.size()).into_drawing_area();
        plot::draw(&area, &self.plot, PNG_TEXT_SINK).map_err(|e| anyhow!("chart {}: {e}", self.name))?;
        area.present().map_err(|e| anyhow!("cannot write {}: {e}", path.display()))
    }

    fn size(&self) -> (u32, u32) {
        ((WIDTH * DENSITY) as u32, (self.plot.height() * DENSITY) as u32)
    }
}

/// Text for XML and HTML, in content and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Noto Sans under the name that SVG readers map to their own font.
fn register_fonts() -> Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let fonts = [(FontStyle::Normal, notosans::REGULAR_TTF), (FontStyle::Bold, notosans::BOLD_TTF)];
        fonts
            .into_iter()
            .all(|(style, bytes)| plotters::style::register_font("sans-serif", style, bytes).is_ok())
    });
    done.then_some(()).ok_or_else(|| anyhow!("the embedded font cannot be read; the program was built wrong"))
}
