//! What a fault looked like, on one picture: successes and errors, the gap with its parts, latency, and what each member did.
//!
//! Bins are for drawing only; every length that is written on a chart comes from [`crate::failover`].

use plotters::style::RGBColor;

use crate::closeup::Close;
use crate::failover::{Failover, Outage, PARTS, Part, Round};
use crate::faults::roles::Role;
use crate::figures;
use crate::op::Outcome;
use crate::recorder::Class;
use crate::results::RunData;
use crate::summary::Summary;

use super::plot::{Axis, Layer, Legend, Mark, Panel, Plot, Scale, Stroke};
use super::{Chart, mark, palette, ticks};

/// Shortest bin.
const BIN_NS: u64 = 10_000_000;
/// Bins along the picture, at most.
const BINS_MAX: u64 = 240;
/// Shown before the fault and after the recovery, at least.
const MARGIN_NS: u64 = 400_000_000;
/// Shown after the fault, at most.
const SHOWN_NS_MAX: u64 = 60_000_000_000;
/// Rounds side by side, at most; the first ones.
const ROUNDS_MAX: usize = 60;

/// The worst round, on one picture.
pub(super) fn timeline(run: &RunData, summary: &Summary) -> Option<Chart> {
    let failover = summary.failover.as_ref()?;
    let round = failover.worst()?;
    let view = View::of(run, round);
    let mut plot = Plot {
        title: title(round),
        subtitle: subtitle(failover, round, view.bin_ns),
        legend: Vec::new(),
        x: view.axis(),
        upright_grid: true,
        panels: Vec::new(),
        bands: Vec::new(),
        marks: view.marks(run),
    };
    for (class, outage, colour) in
        [(Class::Writes, round.writes, palette::VERMILLION), (Class::Reads, round.reads, palette::BLUE)]
    {
        if let Some(outage) = outage {
            let parts = if class == Class::Writes { &round.parts[..] } else { &[] };
            plot.panels.push(view.rate(run, class, outage, parts, colour));
            plot.legend.push(Legend::fill(class.name(), colour));
        }
    }
    if !round.errors.is_empty() {
        plot.legend.push(Legend::fill("errors", palette::ERRORS));
    }
    if round.parts.is_empty() {
        plot.legend.push(Legend::fill("no success", tint(palette::MUTED)));
    }
    for part in round.parts.iter().filter(|part| part.to_ns > part.from_ns) {
        plot.legend.push(Legend::fill(part.name.as_str(), tint(part_colour(&part.name))));
    }
    plot.panels.extend(view.latency(run));
    plot.panels.push(view.members(run));
    for role in [Role::Leader, Role::Follower, Role::Electing, Role::Silent] {
        plot.legend.push(Legend::fill(role.name(), role_colour(role)));
    }
    let caption = "Successes and failures by when the answer was there. Shaded: the time without any success, for writes with its \
                   parts. Each member has a lane: above, what it said about itself; below, the successes of the sessions \
                   attached to it, darker for more."
        .to_string();
    Some(Chart { name: "failover".to_string(), caption, plot })
}

/// Every round's gap of writes with its parts, side by side.
pub(super) fn rounds(summary: &Summary) -> Option<Chart> {
    let failover = summary.failover.as_ref()?;
    let shown: Vec<&Round> =
        failover.rounds.iter().filter(|round| round.writes.is_some()).take(ROUNDS_MAX).collect();
    let spread = failover.write_gap.filter(|_| shown.len() > 1)?;
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut boxes = Vec::new();
    let mut legend: Vec<Legend> = Vec::new();
    let mut dots = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    let mut top: f64 = 0.0;
    for (at, round) in shown.iter().enumerate() {
        let x = at as f64;
        let gap = round.writes.map_or(0, |outage| outage.gap.length_ns());
        let whole = [Part { name: "gap".into(), from_ns: round.at_ns, to_ns: round.at_ns + gap }];
        let parts = if round.parts.is_empty() { &whole[..] } else { &round.parts[..] };
        for part in parts.iter().filter(|part| part.name != "recovery" && part.to_ns > part.from_ns) {
            let (low, high) = (ms(part.from_ns - round.at_ns), ms(part.to_ns - round.at_ns));
            let colour = part_colour(&part.name);
            boxes.push((x + 0.15, x + 0.85, low, high, colour));
            names.insert(part.name.clone());
            top = top.max(high);
        }
        if let Some(reads) = round.reads {
            dots.push((x + 0.5, ms(reads.gap.length_ns())));
            top = top.max(ms(reads.gap.length_ns()));
        }
    }
    let drawn = |name: &&str| names.contains(*name);
    for name in PARTS.into_iter().chain(["gap"]).filter(drawn) {
        legend.push(Legend::fill(name, part_colour(name)));
    }
    legend.push(Legend::line("gap of reads", palette::INK, Stroke::Points));
    let every = shown.len().div_ceil(20);
    let labels = shown.iter().enumerate().step_by(every);
    let x = Axis {
        name: "round".into(),
        scale: Scale::Linear,
        range: (0.0, shown.len() as f64),
        ticks: labels.map(|(at, round)| (at as f64 + 0.5, round.number.to_string())).collect(),
    };
    let dots = Layer::Line { points: dots, colour: palette::INK, stroke: Stroke::Points, width: 1.4 };
    let y = ticks::from_zero("ms since the fault", top, ticks::plain);
    let plot = Plot {
        title: format!(
            "{} rounds: {} without a write in the median, {} in the worst",
            failover.rounds.len(),
            figures::time_us(spread.median_ns as f64 / 1e3),
            figures::time_us(spread.max_ns as f64 / 1e3)
        ),
        subtitle: "From each fault to the end of its write gap".into(),
        legend,
        x,
        upright_grid: false,
        panels: vec![Panel {
            name: String::new(),
            height: 220.0,
            y,
            layers: vec![Layer::Boxes { boxes }, dots],
        }],
        bands: Vec::new(),
        marks: Vec::new(),
    };
    let caption =
        "One column per fault. Parts are stacked in the order in which they follow each other.".to_string();
    Some(Chart { name: "failover-rounds".to_string(), caption, plot })
}

fn title(round: &Round) -> String {
    let told = |name: &str, outage: Option<Outage>| {
        outage.map(|outage| {
            let length = figures::time_us(outage.gap.length_ns() as f64 / 1e3);
            format!("{}{length} without a {name}", if outage.gap.open { "more than " } else { "" })
        })
    };
    let parts: Vec<String> =
        [told("write", round.writes), told("read", round.reads)].into_iter().flatten().collect();
    let what =
        if round.hit.len() > 3 { format!("{} members hit", round.hit.len()) } else { round.what.clone() };
    format!("{what}: {}", parts.join(", "))
}

fn subtitle(failover: &Failover, round: &Round, bin_ns: u64) -> String {
    if failover.rounds.len() > 1 {
        return format!(
            "The worst of {} rounds, number {}; per second, in bins of {} ms",
            failover.rounds.len(),
            round.number,
            bin_ns / 1_000_000
        );
    }
    let parts: Vec<String> = round
        .parts
        .iter()
        .filter(|part| part.to_ns > part.from_ns)
        .map(|part| format!("{} {}", part.name, figures::time_us((part.to_ns - part.from_ns) as f64 / 1e3)))
        .collect();
    match parts.is_empty() {
        true => format!("Per second, in bins of {} ms", bin_ns / 1_000_000),
        false => parts.join(", "),
    }
}

/// A colour for a background.
fn tint(colour: RGBColor) -> RGBColor {
    let light = |c: u8| (f64::from(c) * 0.35 + 255.0 * 0.65) as u8;
    RGBColor(light(colour.0), light(colour.1), light(colour.2))
}

fn part_colour(name: &str) -> RGBColor {
    match name {
        "detection" => palette::INDIGO,
        "election" => palette::ORANGE,
        "synchronisation" | "election and synchronisation" => palette::SKY,
        "re-attach" => palette::GREEN,
        "first write" => palette::OLIVE,
        _ => palette::MUTED,
    }
}

fn role_colour(role: Role) -> RGBColor {
    match role {
        Role::Leader | Role::Standalone => palette::GREEN,
        Role::Follower | Role::Observer => palette::SKY,
        Role::Electing => palette::ORANGE,
        Role::Silent => palette::INK,
    }
}

/// The stretch of time that is shown.
struct View {
    from_ns: u64,
    to_ns: u64,
    at_ns: u64,
    bin_ns: u64,
}

impl View {
    fn of(run: &RunData, round: &Round) -> View {
        let ends = [round.writes, round.reads].into_iter().flatten().map(|outage| {
            let back_ns = outage.back_ns.unwrap_or(outage.gap.to_ns);
            if outage.gap.open { round.at_ns + MARGIN_NS } else { back_ns.max(outage.gap.to_ns) }
        });
        let last_ns = ends.max().unwrap_or(round.at_ns).clamp(round.at_ns, round.at_ns + SHOWN_NS_MAX);
        let margin_ns = ((last_ns - round.at_ns) / 3).max(MARGIN_NS);
        let first = run.completions.first().map_or(round.at_ns, |close| close.at_ns);
        let end_ns = run.manifest.phases.iter().map(|phase| phase.end_ns).max().unwrap_or(u64::MAX);
        let from_ns = round.at_ns.saturating_sub(margin_ns).max(first.min(round.at_ns));
        let to_ns = (last_ns + margin_ns).min(end_ns).max(from_ns + BIN_NS);
        let bin_ns = ((to_ns - from_ns).div_ceil(BINS_MAX)).div_ceil(BIN_NS).max(1) * BIN_NS;
        View { from_ns, to_ns, at_ns: round.at_ns, bin_ns }
    }

    /// Seconds since the fault.
    fn x(&self, at_ns: u64) -> f64 {
        (at_ns as f64 - self.at_ns as f64) / 1e9
    }

    fn axis(&self) -> Axis {
        Axis {
            name: "seconds since the fault".into(),
            ..ticks::time(self.x(self.from_ns), self.x(self.to_ns))
        }
    }

    fn bins(&self) -> usize {
        (self.to_ns - self.from_ns).div_ceil(self.bin_ns) as usize
    }

    fn bin(&self, at_ns: u64) -> Option<usize> {
        let bin = (at_ns.checked_sub(self.from_ns)? / self.bin_ns) as usize;
        (bin < self.bins()).then_some(bin)
    }

    /// Begin and end of a bin.
    fn span(&self, bin: usize) -> (f64, f64) {
        let from_ns = self.from_ns + bin as u64 * self.bin_ns;
        (self.x(from_ns), self.x((from_ns + self.bin_ns).min(self.to_ns)))
    }

    /// Rows of a class within view, with their bins.
    fn rows<'a>(&'a self, run: &'a RunData, class: Class) -> impl Iterator<Item = (usize, &'a Close)> {
        let rows = run.completions.iter().filter(move |close| Class::of(close.op) == Some(class));
        rows.filter_map(|close| Some((self.bin(close.at_ns)?, close)))
    }

    fn marks(&self, run: &RunData) -> Vec<Mark> {
        let told = run.events.iter().filter(|event| event.kind == "fault" || event.kind == "heal");
        let inside = told.filter(|event| event.at_ns >= self.from_ns && event.at_ns <= self.to_ns);
        Mark::merged(inside.map(|event| mark(event, self.x(event.at_ns), event.detail.clone())).collect())
    }

    /// Successes and errors per second of a class, behind them its gap.
    fn rate(&self, run: &RunData, class: Class, outage: Outage, parts: &[Part], colour: RGBColor) -> Panel {
        let mut good = vec![0.0f64; self.bins()];
        let mut bad = good.clone();
        let per_s = 1e9 / self.bin_ns as f64;
        for (bin, close) in self.rows(run, class) {
            let counts = if close.outcome == Outcome::Ok { &mut good } else { &mut bad };
            counts[bin] += per_s;
        }
        let top = good.iter().chain(&bad).copied().fold(outage.rate_before, f64::max);
        let y = ticks::from_zero("per second", top, ticks::plain);
        let mut shade = Vec::new();
        let mut put = |from_ns: u64, to_ns: u64, colour: RGBColor| {
            let (from_ns, to_ns) = (from_ns.max(self.from_ns), to_ns.min(self.to_ns));
            if to_ns > from_ns {
                shade.push((self.x(from_ns), self.x(to_ns), 0.0, y.range.1, tint(colour)));
            }
        };
        if parts.is_empty() {
            put(outage.gap.from_ns, outage.gap.to_ns, palette::MUTED);
        }
        parts.iter().for_each(|part| put(part.from_ns, part.to_ns, part_colour(&part.name)));
        let bars = |counts: &[f64], colour: RGBColor| {
            let bars = counts.iter().enumerate().filter(|(_, n)| **n > 0.0);
            let bars = bars.map(|(bin, n)| {
                let (from, to) = self.span(bin);
                (from, to, 0.0, *n, colour)
            });
            Layer::Boxes { boxes: bars.collect() }
        };
        let layers = vec![Layer::Boxes { boxes: shade }, bars(&good, colour), bars(&bad, palette::ERRORS)];
        let length = figures::time_us(outage.gap.length_ns() as f64 / 1e3);
        let open = if outage.gap.open { "more than " } else { "" };
        Panel { name: format!("{} (gap {open}{length})", class.name()), height: 105.0, y, layers }
    }

    /// The slowest answer of each bin.
    fn latency(&self, run: &RunData) -> Option<Panel> {
        let mut layers = Vec::new();
        let (mut low, mut high) = (f64::MAX, 0.0f64);
        for (class, colour) in [(Class::Writes, palette::VERMILLION), (Class::Reads, palette::BLUE)] {
            let mut slowest = vec![0.0f64; self.bins()];
            for (bin, close) in self.rows(run, class).filter(|(_, close)| close.outcome == Outcome::Ok) {
                slowest[bin] = slowest[bin].max(close.response_ns as f64 / 1e3);
            }
            let points: Vec<(f64, f64)> = slowest
                .iter()
                .enumerate()
                .filter(|(_, us)| **us > 0.0)
                .map(|(bin, us)| ((self.span(bin).0 + self.span(bin).1) / 2.0, *us))
                .collect();
            low = points.iter().map(|point| point.1).fold(low, f64::min);
            high = points.iter().map(|point| point.1).fold(high, f64::max);
            layers.push(Layer::Line { points, colour, stroke: Stroke::Points, width: 1.0 });
        }
        let y = ticks::latency(low, high);
        let name = "slowest answer of each bin, due to done".into();
        (high > 0.0).then_some(Panel { name, height: 110.0, y, layers })
    }

    /// A lane for each member.
    fn members(&self, run: &RunData) -> Panel {
        let members = &run.manifest.members;
        let mut counts = vec![vec![0u32; self.bins()]; members.len()];
        for close in run.completions.iter().filter(|close| close.outcome == Outcome::Ok) {
            if let (Some(bin), Some(member)) =
                (self.bin(close.at_ns), counts.get_mut(usize::from(close.member)))
            {
                member[bin] += 1;
            }
        }
        let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1);
        let mut boxes = Vec::new();
        for (at, (member, counts)) in members.iter().zip(&counts).enumerate() {
            // The first member on top.
            let base = (members.len() - 1 - at) as f64;
            for (from_ns, to_ns, role) in self.roles(run, member.key(), &member.role) {
                boxes.push((self.x(from_ns), self.x(to_ns), base + 0.55, base + 0.85, role_colour(role)));
            }
            for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let (from, to) = self.span(bin);
                let share = f64::from(*count) / f64::from(most);
                boxes.push((from, to, base + 0.12, base + 0.5, palette::heat((share * 6.0).ceil() / 10.0)));
            }
        }
        let lanes = members.len() as f64;
        let name = |at: usize| (lanes - at as f64 - 0.5, format!("server.{}", at + 1));
        let y = Axis {
            name: String::new(),
            scale: Scale::Linear,
            range: (0.0, lanes.max(1.0)),
            ticks: (0..members.len()).map(name).collect(),
        };
        let layers = vec![Layer::Boxes { boxes }];
        Panel {
            name: "members: role, and successes of their sessions".into(),
            height: 40.0 * lanes,
            y,
            layers,
        }
    }

    /// What a member said about itself, over the time in view.
    fn roles(&self, run: &RunData, member: &str, at_start: &str) -> Vec<(u64, u64, Role)> {
        let mut spans = Vec::new();
        let mut now = (self.from_ns, Role::of_name(at_start));
        for event in run.events.iter().filter(|event| event.kind == "role" && event.target == member) {
            let Some(role) = Role::of_name(&event.detail) else { continue };
            let at_ns = event.at_ns.clamp(self.from_ns, self.to_ns);
            if let (from_ns, Some(before)) = now
                && at_ns > from_ns
            {
                spans.push((from_ns, at_ns, before));
            }
            now = (at_ns, Some(role));
        }
        if let (from_ns, Some(role)) = now
            && self.to_ns > from_ns
        {
            spans.push((from_ns, self.to_ns, role));
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_knows_every_shade_in_the_dark() {
        let style = include_str!("../report/style.css");
        for part in ["detection", "election", "synchronisation", "re-attach", "first write", "the rest"] {
            let RGBColor(red, green, blue) = tint(part_colour(part));
            let fill = format!("[fill=\"#{red:02X}{green:02X}{blue:02X}\"]");
            assert!(style.contains(&fill), "{part}: {fill}");
        }
    }
}
