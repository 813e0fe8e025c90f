//! A chart as data, and the one function that draws it with plotters, for SVG and PNG alike.
//!
//! Coordinates of a [`Plot`] are pixels of a page 960 wide; both backends draw at [`DENSITY`] times that,
//! so that lines are smooth and a PNG is sharp in print. Text is drawn in `sans-serif`: in SVG the reader's
//! own, in PNG the embedded Noto Sans (SIL Open Font License), so no system font is needed.

use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette;

/// Width of every chart.
pub(crate) const WIDTH: f64 = 960.0;
/// Device pixels per pixel of a plot.
pub(crate) const DENSITY: f64 = 2.0;

const LEFT: f64 = 78.0;
const RIGHT: f64 = 22.0;
const TITLE_Y: f64 = 14.0;
const SUBTITLE_Y: f64 = 40.0;
const LEGEND_Y: f64 = 66.0;
const LEGEND_ROW: f64 = 19.0;
/// Room above a panel for its name.
const PANEL_HEAD: f64 = 24.0;
/// Room for the names of phases, above the first panel.
const STRIP: f64 = 18.0;
/// Room below a panel that is not the last.
const PANEL_GAP: f64 = 8.0;
/// Room below the last panel for the ticks' labels, and below these for the axis' name.
const TICKS: f64 = 24.0;
const AXIS_NAME: f64 = 22.0;

/// How numbers become positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// Evenly.
    Linear,
    /// By ratio; the range must be positive.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) scale: Scale,
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// 0 to 1 within the range; may be outside.
    fn position(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value.max(f64::MIN_POSITIVE) / low).ln() / (high / low).ln(),
        }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    Dotted,
    /// A mark at each point, no line between.
    Points,
}

/// Something in a panel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Layer {
    Line {
        points: Vec<(f64, f64)>,
        colour: RGBColor,
        stroke: Stroke,
        width: f64,
    },
    /// (x, low, high), joined.
    Area {
        points: Vec<(f64, f64, f64)>,
        colour: RGBColor,
    },
    /// (x0, x1, y0, y1).
    Boxes {
        boxes: Vec<(f64, f64, f64, f64, RGBColor)>,
    },
    /// A vertical line between two values, with ends.
    Whisker {
        x: f64,
        low: f64,
        high: f64,
        colour: RGBColor,
    },
    /// Text above a place.
    Note {
        x: f64,
        y: f64,
        text: String,
    },
}

/// A moment with a name: faults, elections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) text: String,
    /// Its name has a place before those of others.
    pub(crate) is_cause: bool,
}

impl Mark {
    /// In the order of `x`; those of one moment are one.
    pub(crate) fn merged(mut marks: Vec<Mark>) -> Vec<Mark> {
        marks.sort_by(|a, b| a.x.total_cmp(&b.x));
        marks.dedup_by(|next, before| {
            let is_same = next.x == before.x && next.is_cause == before.is_cause;
            if is_same {
                before.text = format!("{}, {}", before.text, next.text);
            }
            is_same
        });
        marks
    }
}

/// A stretch of the x axis with a name: phases.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Band {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) name: String,
    pub(crate) number: usize,
    pub(crate) warmup: bool,
}

/// One pair of axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) name: String,
    pub(crate) height: f64,
    pub(crate) y: Axis,
    pub(crate) layers: Vec<Layer>,
}

/// A key to a colour.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Legend {
    pub(crate) text: String,
    pub(crate) colour: RGBColor,
    /// `None` for a filled square.
    pub(crate) stroke: Option<Stroke>,
}

impl Legend {
    pub(crate) fn fill(text: impl Into<String>, colour: RGBColor) -> Legend {
        Legend { text: text.into(), colour, stroke: None }
    }

    pub(crate) fn line(text: impl Into<String>, colour: RGBColor, stroke: Stroke) -> Legend {
        Legend { text: text.into(), colour, stroke: Some(stroke) }
    }
}

/// A chart: panels over one x axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) legend: Vec<Legend>,
    pub(crate) x: Axis,
    /// Whether the ticks of the x axis have lines through the panels.
    pub(crate) upright_grid: bool,
    pub(crate) panels: Vec<Panel>,
    pub(crate) bands: Vec<Band>,
    pub(crate) marks: Vec<Mark>,
}

impl Plot {
    /// Height of the whole chart.
    pub(crate) fn height(&self) -> f64 {
        let last = self.tops().last().copied().unwrap_or(0.0);
        let panel = self.panels.last().map_or(0.0, |panel| panel.height);
        let name = if self.x.name.is_empty() { 6.0 } else { AXIS_NAME };
        (last + panel + TICKS + name).ceil()
    }

    /// Where the panels' frames begin.
    fn tops(&self) -> Vec<f64> {
        let rows = self.legend_rows().last().map_or(0, |(row, _)| row + 1);
        let strip = if self.bands.is_empty() { 0.0 } else { STRIP };
        let mut y = LEGEND_Y + LEGEND_ROW * rows as f64 + strip - if rows == 0 { 4.0 } else { 0.0 };
        let mut tops = Vec::new();
        for panel in &self.panels {
            y += PANEL_HEAD;
            tops.push(y);
            y += panel.height + PANEL_GAP;
        }
        tops
    }

    /// Row and x of each entry of the legend.
    fn legend_rows(&self) -> Vec<(usize, f64)> {
        let (mut row, mut x) = (0, LEFT);
        let mut places = Vec::new();
        for entry in &self.legend {
            let width = 30.0 + text_width(&entry.text, SMALL) + 16.0;
            if x + width > WIDTH - RIGHT && x > LEFT {
                (row, x) = (row + 1, LEFT);
            }
            places.push((row, x));
            x += width;
        }
        places
    }
}

const TITLE: f64 = 17.0;
const NORMAL: f64 = 13.0;
const SMALL: f64 = 12.0;

/// Width of text in pixels, somewhat generous: readers' fonts differ.
fn text_width(text: &str, size: f64) -> f64 {
    let font = ("sans-serif", size * FONT_UNITS).into_font();
    font.box_size(text).map_or(text.len() as f64 * size * 0.6, |(width, _)| f64::from(width) * 1.12)
}

/// plotters' font sizes are 1.24 times what SVG and typographers call the size.
const FONT_UNITS: f64 = 1.24;

/// Text that fits a width, cut with an ellipsis; nothing when not even a few letters fit.
fn fit(text: &str, width: f64, size: f64) -> Option<String> {
    if text_width(text, size) <= width {
        return Some(text.to_string());
    }
    let letters: Vec<char> = text.chars().collect();
    (3..letters.len())
        .rev()
        .map(|n| letters[..n].iter().collect::<String>() + "…")
        .find(|cut| text_width(cut, size) <= width)
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Draws in pixels of the page.
struct Pen<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    /// How far below the place for centred text the backend must be told to draw it, as a share of its size.
    sink: f64,
}

fn device(at: (f64, f64)) -> (i32, i32) {
    ((at.0 * DENSITY).round() as i32, (at.1 * DENSITY).round() as i32)
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: f64) -> Drawn<DB> {
        let points: Vec<(i32, i32)> = points.iter().copied().map(device).collect();
        let style = colour.stroke_width((width * DENSITY).round().max(1.0) as u32);
        self.area.draw(&PathElement::new(points, style))
    }

    fn fill(&self, from: (f64, f64), to: (f64, f64), colour: RGBColor) -> Drawn<DB> {
        self.area.draw(&Rectangle::new([device(from), device(to)], colour.filled()))
    }

    fn text(
        &self,
        text: &str,
        at: (f64, f64),
        size: f64,
        colour: RGBColor,
        anchor: (HPos, VPos),
    ) -> Drawn<DB> {
        self.styled(text, at, size, colour, anchor, FontStyle::Normal)
    }

    fn styled(
        &self,
        text: &str,
        at: (f64, f64),
        size: f64,
        colour: RGBColor,
        (h, v): (HPos, VPos),
        style: FontStyle,
    ) -> Drawn<DB> {
        let font = ("sans-serif", size * FONT_UNITS * DENSITY, style).into_font();
        let at = if matches!(v, VPos::Center) { (at.0, at.1 + size * self.sink) } else { at };
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(h, v));
        self.area.draw(&Text::new(text.to_string(), device(at), style))
    }

    /// A path in dashes: `on` drawn, `off` not.
    fn dashes(&self, points: &[(f64, f64)], colour: RGBColor, width: f64, on: f64, off: f64) -> Drawn<DB> {
        let mut drawn = vec![];
        let (mut left, mut pen_down) = (on, true);
        for pair in points.windows(2) {
            let (mut from, to) = (pair[0], pair[1]);
            loop {
                let length = (to.0 - from.0).hypot(to.1 - from.1);
                if pen_down && drawn.is_empty() {
                    drawn.push(from);
                }
                if length <= left {
                    left -= length;
                    if pen_down {
                        drawn.push(to);
                    }
                    break;
                }
                let share = left / length;
                from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
                if pen_down {
                    drawn.push(from);
                    self.line(&drawn, colour, width)?;
                    drawn.clear();
                }
                pen_down = !pen_down;
                left = if pen_down { on } else { off };
            }
        }
        if drawn.len() > 1 { self.line(&drawn, colour, width) } else { Ok(()) }
    }

    fn stroke(&self, points: &[(f64, f64)], colour: RGBColor, width: f64, stroke: Stroke) -> Drawn<DB> {
        match stroke {
            Stroke::Solid => self.line(points, colour, width),
            Stroke::Dashed => self.dashes(points, colour, width, 6.0, 4.0),
            Stroke::Dotted => self.dashes(points, colour, width, 1.6, 3.2),
            Stroke::Points => points.iter().try_for_each(|at| {
                let size = (width * 1.6 * DENSITY).round() as i32;
                self.area.draw(&Circle::new(device(*at), size, colour.filled()))
            }),
        }
    }
}

/// Draws a chart on an area of [`WIDTH`] by [`Plot::height`], times [`DENSITY`]. `sink` corrects a backend
/// that draws centred text too high, as a share of its size.
pub(crate) fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, plot: &Plot, sink: f64) -> Drawn<DB> {
    let pen = Pen { area, sink };
    area.fill(&palette::PAPER)?;
    let left_top = (HPos::Left, VPos::Top);
    pen.styled(&plot.title, (LEFT - 62.0, TITLE_Y), TITLE, palette::INK, left_top, FontStyle::Bold)?;
    pen.text(&plot.subtitle, (LEFT - 62.0, SUBTITLE_Y), NORMAL, palette::MUTED, left_top)?;
    for (entry, (row, x)) in plot.legend.iter().zip(plot.legend_rows()) {
        legend(&pen, entry, x, LEGEND_Y + LEGEND_ROW * row as f64)?;
    }
    let tops = plot.tops();
    let (Some(top), Some(bottom)) =
        (tops.first(), tops.last().zip(plot.panels.last()).map(|(top, panel)| top + panel.height))
    else {
        return Ok(());
    };
    bands(&pen, plot, *top, bottom)?;
    for (panel, top) in plot.panels.iter().zip(&tops) {
        draw_panel(&pen, plot, panel, *top)?;
    }
    for (panel, top) in plot.panels.iter().zip(&tops) {
        for mark in &plot.marks {
            let x = x_of(plot, mark.x);
            pen.dashes(&[(x, *top), (x, top + panel.height)], palette::INK, 1.0, 3.0, 3.0)?;
        }
    }
    names_of_marks(&pen, plot, *top)?;
    for (value, label) in &plot.x.ticks {
        let at = (x_of(plot, *value), bottom + 8.0);
        pen.text(label, at, SMALL, palette::MUTED, (HPos::Center, VPos::Top))?;
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    pen.text(&plot.x.name, (middle, bottom + TICKS + 3.0), SMALL, palette::MUTED, (HPos::Center, VPos::Top))
}

fn x_of(plot: &Plot, value: f64) -> f64 {
    LEFT + plot.x.position(value).clamp(0.0, 1.0) * (WIDTH - RIGHT - LEFT)
}

fn legend<DB: DrawingBackend>(pen: &Pen<'_, DB>, entry: &Legend, x: f64, y: f64) -> Drawn<DB> {
    let middle = y + 7.0;
    match entry.stroke {
        None => pen.fill((x, middle - 5.0), (x + 16.0, middle + 5.0), entry.colour)?,
        Some(Stroke::Points) => {
            pen.stroke(&[(x + 12.0, middle)], entry.colour, 2.0, Stroke::Points)?;
        }
        Some(stroke) => pen.stroke(&[(x, middle), (x + 24.0, middle)], entry.colour, 2.0, stroke)?,
    }
    let text_x = x + if entry.stroke.is_some() { 30.0 } else { 22.0 };
    pen.text(&entry.text, (text_x, middle), SMALL, palette::INK, (HPos::Left, VPos::Center))
}

fn bands<DB: DrawingBackend>(pen: &Pen<'_, DB>, plot: &Plot, top: f64, bottom: f64) -> Drawn<DB> {
    // The strip of names ends above the first panel's own name.
    let strip = top - PANEL_HEAD - STRIP + 2.0;
    for band in &plot.bands {
        let (from, to) = (x_of(plot, band.from), x_of(plot, band.to));
        if band.number.is_multiple_of(2) {
            pen.fill((from, strip), (to, bottom), palette::BAND)?;
        }
        let name = if band.warmup { format!("({})", band.name) } else { band.name.clone() };
        let room = to - from - 6.0;
        let label = fit(&name, room, SMALL).or_else(|| fit(&band.number.to_string(), room, SMALL));
        if let Some(label) = label {
            let at = ((from + to) / 2.0, strip + STRIP / 2.0 + 2.0);
            pen.text(&label, at, SMALL, palette::MUTED, (HPos::Center, VPos::Center))?;
        }
        pen.line(&[(from, strip), (from, bottom)], palette::GRID, 1.0)?;
    }
    Ok(())
}

/// On the lines, all of which are drawn by then: a name covers what it runs across.
fn names_of_marks<DB: DrawingBackend>(pen: &Pen<'_, DB>, plot: &Plot, top: f64) -> Drawn<DB> {
    for (left, width, text) in places_of_names(plot) {
        pen.fill((left - 2.0, top + 2.0), (left + width, top + 19.0), palette::PAPER)?;
        pen.text(&text, (left, top + 4.0), SMALL, palette::INK, (HPos::Left, VPos::Top))?;
    }
    Ok(())
}

/// Left edge, width and text of the marks' names, causes first. Names that would run into each other or out of the
/// chart are left out; the line stays. A cause's is cut short before that: what mended the one before it must not be
/// all that is told there.
fn places_of_names(plot: &Plot) -> Vec<(f64, f64, String)> {
    const APART: f64 = 8.0;
    let mut places: Vec<(f64, f64, String)> = Vec::new();
    let of = |is_cause: bool| plot.marks.iter().filter(move |mark| mark.is_cause == is_cause);
    for mark in of(true).chain(of(false)) {
        let x = x_of(plot, mark.x);
        let width = text_width(&mark.text, SMALL);
        let left = if x + 4.0 + width < WIDTH - RIGHT { x + 4.0 } else { x - 4.0 - width };
        let is_free = |left: f64, width: f64| {
            let is_beside =
                |(from, taken, _): &(_, _, _)| left >= from + taken + APART || left + width + APART <= *from;
            left >= LEFT && places.iter().all(is_beside)
        };
        if is_free(left, width) {
            places.push((left, width, mark.text.clone()));
        } else if mark.is_cause
            && let left = x + 4.0
            && let next = places.iter().map(|place| place.0 - APART).filter(|next| *next > left)
            && let Some(cut) = fit(&mark.text, next.fold(WIDTH - RIGHT, f64::min) - left, SMALL)
            && is_free(left, text_width(&cut, SMALL))
        {
            places.push((left, text_width(&cut, SMALL), cut));
        }
    }
    places
}

fn draw_panel<DB: DrawingBackend>(pen: &Pen<'_, DB>, plot: &Plot, panel: &Panel, top: f64) -> Drawn<DB> {
    let (right, bottom) = (WIDTH - RIGHT, top + panel.height);
    let y_of = |value: f64| bottom - panel.y.position(value).clamp(0.0, 1.0) * panel.height;
    let name = [panel.name.as_str(), panel.y.name.as_str()].into_iter().filter(|t| !t.is_empty());
    let name = name.collect::<Vec<_>>().join(", ");
    pen.styled(&name, (LEFT, top - 6.0), SMALL, palette::INK, (HPos::Left, VPos::Bottom), FontStyle::Bold)?;
    for (value, label) in &panel.y.ticks {
        let y = y_of(*value);
        pen.line(&[(LEFT, y), (right, y)], palette::GRID, 1.0)?;
        pen.text(label, (LEFT - 8.0, y), SMALL, palette::MUTED, (HPos::Right, VPos::Center))?;
    }
    for (value, _) in &plot.x.ticks {
        let x = x_of(plot, *value);
        pen.line(&[(x, bottom), (x, bottom + 4.0)], palette::MUTED, 1.0)?;
        if plot.upright_grid {
            pen.line(&[(x, top), (x, bottom)], palette::GRID, 1.0)?;
        }
    }
    for layer in &panel.layers {
        draw_layer(pen, plot, layer, &y_of)?;
    }
    pen.line(&[(LEFT, top), (LEFT, bottom), (right, bottom)], palette::MUTED, 1.0)
}

fn draw_layer<DB: DrawingBackend>(
    pen: &Pen<'_, DB>,
    plot: &Plot,
    layer: &Layer,
    y_of: &dyn Fn(f64) -> f64,
) -> Drawn<DB> {
    match layer {
        Layer::Line { points, colour, stroke, width } => {
            let points: Vec<_> = points.iter().map(|(x, y)| (x_of(plot, *x), y_of(*y))).collect();
            pen.stroke(&points, *colour, *width, *stroke)
        }
        Layer::Area { points, colour } => {
            let up = points.iter().map(|(x, _, high)| device((x_of(plot, *x), y_of(*high))));
            let back = points.iter().rev().map(|(x, low, _)| device((x_of(plot, *x), y_of(*low))));
            let outline: Vec<_> = up.chain(back).collect();
            pen.area.draw(&Polygon::new(outline, colour.filled()))
        }
        Layer::Boxes { boxes } => boxes.iter().try_for_each(|(x0, x1, y0, y1, colour)| {
            pen.fill((x_of(plot, *x0), y_of(*y1)), (x_of(plot, *x1), y_of(*y0)), *colour)
        }),
        Layer::Whisker { x, low, high, colour } => {
            let (x, low, high) = (x_of(plot, *x), y_of(*low), y_of(*high));
            pen.line(&[(x, low), (x, high)], *colour, 1.5)?;
            pen.line(&[(x - 4.0, low), (x + 4.0, low)], *colour, 1.5)?;
            pen.line(&[(x - 4.0, high), (x + 4.0, high)], *colour, 1.5)
        }
        Layer::Note { x, y, text } => {
            let at = (x_of(plot, *x), y_of(*y) - 4.0);
            pen.text(text, at, SMALL, palette::INK, (HPos::Center, VPos::Bottom))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(marks: &[(f64, &str, bool)]) -> Plot {
        let mark = |(x, text, is_cause): &(f64, &str, bool)| Mark {
            x: *x,
            text: (*text).to_string(),
            is_cause: *is_cause,
        };
        Plot {
            title: String::new(),
            subtitle: String::new(),
            legend: Vec::new(),
            x: super::super::ticks::time(0.0, 100.0),
            upright_grid: false,
            panels: Vec::new(),
            bands: Vec::new(),
            marks: Mark::merged(marks.iter().map(mark).collect()),
        }
    }

    #[test]
    fn causes_are_named_first_and_those_of_a_moment_together() {
        let told = |marks: &[(f64, &str, bool)]| {
            let plot = plot(marks);
            places_of_names(&plot).into_iter().map(|(_, _, text)| text.to_string()).collect::<Vec<_>>()
        };
        let apart = [(10.0, "mended", false), (50.0, "broken", true)];
        assert_eq!(told(&apart), ["broken", "mended"]);
        let close = [(49.0, "mended", false), (50.0, "broken", true), (51.0, "a leader", false)];
        assert_eq!(told(&close), ["broken"]);
        let both = [(50.0, "server 2", true), (50.0, "server 1", true), (50.0, "mended", false)];
        assert_eq!(told(&both), ["server 2, server 1"]);
        let long = "broken at the leader, broken at a follower, and broken at another follower as well";
        let late = told(&[(52.0, "one", true), (58.0, "mended", false), (60.0, long, true)]);
        assert!(late[1].starts_with("broken at the leader") && late[1].ends_with('…'), "{late:?}");
        assert_eq!(late.len(), 2, "{late:?}");
        assert_eq!(told(&[(99.0, "at the end", true)]), ["at the end"], "to the left of its line");
    }
}
