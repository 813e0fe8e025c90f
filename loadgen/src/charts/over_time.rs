//! What happened when: throughput, percentiles, the heat map of latencies, the members' CPU and memory.

use std::collections::BTreeMap;

use plotters::style::RGBColor;

use crate::driver::FanOut;
use crate::faults::roles::Role;
use crate::figures;
use crate::op::{Op, Outcome};
use crate::recorder::Bins;
use crate::results::{ArrivalKind, EventRow, RunData};
use crate::summary::{Summary, enough};

use super::kind::Kind;
use super::plot::{Axis, Band, Layer, Legend, Mark, Panel, Plot, Stroke};
use super::{Chart, mark, palette, ticks};

/// Windows along the time axis, at most: about four pixels each.
const WINDOWS_MAX: u64 = 220;
/// Columns of a heat map, at most.
const COLUMNS_MAX: u64 = 200;
/// Rows of a heat map per factor of ten.
const ROWS_PER_DECADE: f64 = 12.0;

/// CPU is drawn of at least so many seconds at a time.
const CPU_SECONDS_MIN: f64 = 0.5;

/// Writes in the chart of fan-outs, at most.
const FAN_OUTS_MAX: usize = 600;

/// The run's time, cut into windows that are multiples of its intervals.
struct Windows {
    first: u64,
    per_window: u64,
    count: usize,
    interval_ns: u64,
}

impl Windows {
    fn of(run: &RunData, at_most: u64) -> Option<Windows> {
        let interval_ns = run.recording.interval_ns;
        let phases = &run.manifest.phases;
        let from = phases.iter().map(|phase| phase.start_ns).min()? / interval_ns;
        let to = phases.iter().map(|phase| phase.end_ns).max()?.div_ceil(interval_ns);
        let per_window = (to.checked_sub(from)?).div_ceil(at_most).max(1);
        let count = (to - from).div_ceil(per_window) as usize;
        (count > 0).then_some(Windows { first: from, per_window, count, interval_ns })
    }

    fn of_index(&self, index: u64) -> Option<usize> {
        let at = (index.checked_sub(self.first)? / self.per_window) as usize;
        (at < self.count).then_some(at)
    }

    fn seconds(&self) -> f64 {
        (self.per_window * self.interval_ns) as f64 / 1e9
    }

    fn start_s(&self, window: usize) -> f64 {
        (self.first + window as u64 * self.per_window) as f64 * self.interval_ns as f64 / 1e9
    }

    fn middle_s(&self, window: usize) -> f64 {
        self.start_s(window) + self.seconds() / 2.0
    }
}

fn skeleton(run: &RunData, title: String, subtitle: String) -> Option<Plot> {
    let phases = &run.manifest.phases;
    let from_s = phases.iter().map(|phase| phase.start_ns).min()? as f64 / 1e9;
    let to_s = phases.iter().map(|phase| phase.end_ns).max()? as f64 / 1e9;
    let bands = phases.iter().enumerate().map(|(at, phase)| Band {
        from: phase.start_ns as f64 / 1e9,
        to: phase.end_ns as f64 / 1e9,
        name: phase.name.clone(),
        number: at + 1,
        warmup: phase.warmup,
    });
    let told = ["fault", "heal", "role"];
    // Of roles, who leads: the others change several times around each fault.
    let text = |event: &EventRow| match (event.kind.as_str(), Role::of_name(&event.detail)) {
        ("role", Some(Role::Leader)) => {
            let at = run.manifest.members.iter().position(|member| member.key() == event.target)?;
            Some(format!("server.{} leads", at + 1))
        }
        ("role", Some(_)) => None,
        _ => Some(event.detail.clone()),
    };
    let marks = run
        .events
        .iter()
        .filter(|event| told.contains(&event.kind.as_str()))
        .filter_map(|event| Some(mark(event, event.at_ns as f64 / 1e9, text(event)?)));
    Some(Plot {
        title,
        subtitle,
        legend: Vec::new(),
        x: ticks::time(from_s, to_s),
        upright_grid: false,
        panels: Vec::new(),
        bands: bands.collect(),
        marks: Mark::merged(marks.collect()),
    })
}

// ----------------------------------------------------------------------------------------- throughput

/// Successes per second, stacked by operation, with what was offered; failures below.
pub(super) fn throughput(run: &RunData, summary: &Summary) -> Option<Chart> {
    let windows = Windows::of(run, WINDOWS_MAX)?;
    let mut by_op: BTreeMap<Op, Vec<f64>> = BTreeMap::new();
    let mut errors = vec![0.0; windows.count];
    let mut missed = vec![0.0; windows.count];
    let mut offered = vec![0.0; windows.count];
    // Watch events are answers to nobody's question: they have a chart of their own.
    let asked = |op: Op| Kind::of(op) != Kind::Notifications;
    for (key, intervals) in run.recording.intervals.iter().filter(|(key, _)| asked(key.op)) {
        for interval in intervals {
            let Some(at) = windows.of_index(interval.index) else { continue };
            let n = interval.response.count() as f64 / windows.seconds();
            match key.outcome {
                Outcome::Ok => by_op.entry(key.op).or_insert_with(|| vec![0.0; windows.count])[at] += n,
                Outcome::Error(_) => errors[at] += n,
            }
        }
    }
    for (_, arrivals) in run.recording.arrivals.iter().filter(|((_, op), _)| asked(*op)) {
        for (index, of_interval, of_missed) in arrivals.iter() {
            let Some(at) = windows.of_index(index) else { continue };
            offered[at] += f64::from(of_interval) / windows.seconds();
            missed[at] += f64::from(of_missed) / windows.seconds();
        }
    }
    if by_op.is_empty() && errors.iter().all(|n| *n == 0.0) {
        return None;
    }
    let open = run.manifest.phases.iter().any(|phase| phase.arrival == ArrivalKind::Open);
    let mut plot = skeleton(run, throughput_title(summary), String::new())?;
    plot.subtitle = format!("Successes per second, windows of {}", figures::seconds(windows.seconds()));
    let stacked = stack(&windows, &by_op, &mut plot.legend);
    let mut layers = stacked.0;
    let mut top = stacked.1;
    if open {
        top = offered.iter().copied().fold(top, f64::max);
        plot.legend.push(Legend::line("offered", palette::INK, Stroke::Solid));
        let points = offered.iter().enumerate().map(|(at, n)| (windows.middle_s(at), *n)).collect();
        layers.push(Layer::Line { points, colour: palette::INK, stroke: Stroke::Solid, width: 1.0 });
    }
    let y = ticks::from_zero("per second", top, ticks::plain);
    plot.panels.push(Panel { name: "throughput".into(), height: 230.0, y, layers });
    if errors.iter().chain(&missed).any(|n| *n > 0.0) {
        plot.panels.push(failures(&windows, &errors, &missed, &mut plot.legend));
    }
    let caption =
        "Stacked by operation; the black line is what was due (open-loop phases only differ from the \
                   stack where the cluster or the generator fell behind)."
            .to_string();
    Some(Chart { name: "throughput".to_string(), caption, plot })
}

fn throughput_title(summary: &Summary) -> String {
    match summary.whole.all() {
        Some(all) => {
            format!("{} operations per second on average over the measured phases", figures::rate(all.rate))
        }
        None => "Throughput".to_string(),
    }
}

fn stack(windows: &Windows, by_op: &BTreeMap<Op, Vec<f64>>, legend: &mut Vec<Legend>) -> (Vec<Layer>, f64) {
    let mut base = vec![0.0; windows.count];
    let mut layers = Vec::new();
    for (op, rates) in by_op {
        let colour = palette::of_op(*op);
        let points = rates
            .iter()
            .zip(&base)
            .enumerate()
            .map(|(at, (n, base))| (windows.middle_s(at), *base, base + n));
        layers.push(Layer::Area { points: points.collect(), colour });
        base.iter_mut().zip(rates).for_each(|(base, n)| *base += n);
        legend.push(Legend::fill(op.name(), colour));
    }
    let top = base.iter().copied().fold(0.0, f64::max);
    (layers, top)
}

fn failures(windows: &Windows, errors: &[f64], missed: &[f64], legend: &mut Vec<Legend>) -> Panel {
    let mut boxes = Vec::new();
    let top = errors.iter().zip(missed).map(|(e, m)| e + m).fold(0.0, f64::max);
    for at in 0..windows.count {
        let (from, to) = (windows.start_s(at), windows.start_s(at + 1));
        boxes.push((from, to, 0.0, errors[at], palette::ERRORS));
        boxes.push((from, to, errors[at], errors[at] + missed[at], palette::INK));
    }
    boxes.retain(|(_, _, low, high, _)| high > low);
    if errors.iter().any(|n| *n > 0.0) {
        legend.push(Legend::fill("errors", palette::ERRORS));
    }
    if missed.iter().any(|n| *n > 0.0) {
        legend.push(Legend::fill("missed", palette::INK));
    }
    let y = ticks::from_zero("per second", top, ticks::plain);
    Panel { name: "failed".into(), height: 60.0, y, layers: vec![Layer::Boxes { boxes }] }
}

// ---------------------------------------------------------------------------------------- percentiles

/// Median, p99 (or p90) and maximum of response time over time, reads and writes apart.
pub(super) fn percentiles(run: &RunData, summary: &Summary) -> Option<Chart> {
    let mut plot = skeleton(run, String::new(), String::new())?;
    let mut worst: Vec<String> = Vec::new();
    for kind in Kind::MEASURED {
        let (windows, high_q) = windows_for_percentiles(run, kind)?;
        let merged = merged(run, &windows, kind);
        if let Some(all) = kind.summary(&summary.whole).filter(|all| all.response.count > 0) {
            worst.push(format!("{} {}", kind.name(), figures::time_us(all.response.max_us)));
        }
        let (Some(max), Some(min)) = (
            merged.iter().filter_map(Bins::max).max(),
            merged.iter().filter_map(|bins| bins.quantile(0.5)).min(),
        ) else {
            continue;
        };
        let (max, min) = (max as f64 / 1e3, min as f64 / 1e3);
        let name = format!(
            "{}, response time: median, p{:.0} and maximum per {}",
            kind.name(),
            high_q * 100.0,
            figures::seconds(windows.seconds())
        );
        let layers = percentile_layers(&windows, &merged, high_q);
        plot.panels.push(Panel { name, height: 150.0, y: ticks::latency(min * 0.9, max), layers });
    }
    if plot.panels.is_empty() {
        return None;
    }
    plot.title = match worst.is_empty() {
        true => "There were answers in warm-ups only".to_string(),
        false => format!("Slowest answers of the measured phases: {}", worst.join(", ")),
    };
    plot.subtitle = "Response time over time; percentiles only where samples suffice".to_string();
    plot.legend = vec![Legend::line("maximum", palette::ORANGE, Stroke::Points)];
    // What has too few samples is not drawn, and not promised.
    let is_drawn = |of: RGBColor| {
        let mut layers = plot.panels.iter().flat_map(|panel| &panel.layers);
        layers.any(|layer| matches!(layer, Layer::Line { colour, .. } if *colour == of))
    };
    let lines = [("p99 or p90", palette::VERMILLION), ("median", palette::BLUE)];
    let drawn = lines.into_iter().filter(|(_, colour)| is_drawn(*colour));
    let legend: Vec<_> = drawn.map(|(name, colour)| Legend::line(name, colour, Stroke::Solid)).collect();
    plot.legend.extend(legend);
    let caption =
        "Each window is a merged histogram, placed at the time of the answers: a stall shows where it \
                   ends, as high as it was long."
            .to_string();
    Some(Chart { name: "latency".to_string(), caption, plot })
}

fn percentile_layers(windows: &Windows, merged: &[Bins], high_q: f64) -> Vec<Layer> {
    let maxima = merged
        .iter()
        .enumerate()
        .filter_map(|(at, bins)| bins.max().map(|ns| (windows.middle_s(at), ns as f64 / 1e3)));
    let mut layers = vec![Layer::Line {
        points: maxima.collect(),
        colour: palette::ORANGE,
        stroke: Stroke::Points,
        width: 1.0,
    }];
    for (q, colour) in [(high_q, palette::VERMILLION), (0.5, palette::BLUE)] {
        for points in runs_of_points(windows, merged, q) {
            layers.push(Layer::Line { points, colour, stroke: Stroke::Solid, width: 1.6 });
        }
    }
    layers
}

/// The highest of p99 and p90 for which a typical window has samples, and windows long enough for it: as many
/// as fit, but not so few that nothing could be seen to happen.
fn windows_for_percentiles(run: &RunData, kind: Kind) -> Option<(Windows, f64)> {
    for q in [0.99, 0.9] {
        for at_most in [WINDOWS_MAX, WINDOWS_MAX / 2, WINDOWS_MAX / 4] {
            let windows = Windows::of(run, at_most)?;
            let mut counts: Vec<u64> =
                merged(run, &windows, kind).iter().map(Bins::count).filter(|n| *n > 0).collect();
            counts.sort_unstable();
            if counts.get(counts.len() / 2).is_some_and(|typical| enough(*typical, q)) {
                return Some((windows, q));
            }
        }
    }
    Some((Windows::of(run, WINDOWS_MAX / 4)?, 0.9))
}

fn merged(run: &RunData, windows: &Windows, kind: Kind) -> Vec<Bins> {
    let mut merged = vec![Bins::default(); windows.count];
    for (key, intervals) in &run.recording.intervals {
        if key.outcome == Outcome::Ok && Kind::of(key.op) == kind {
            for interval in intervals {
                if let Some(at) = windows.of_index(interval.index) {
                    merged[at].merge(&interval.response);
                }
            }
        }
    }
    merged
}

/// All answers of the phases that count.
fn measured(run: &RunData, kind: Kind) -> Bins {
    let counts = |phase: u16| run.manifest.phases.get(usize::from(phase)).is_some_and(|phase| !phase.warmup);
    let intervals = run
        .recording
        .intervals
        .iter()
        .filter(|(key, _)| key.outcome == Outcome::Ok && Kind::of(key.op) == kind && counts(key.phase));
    let answers: Vec<&Bins> =
        intervals.flat_map(|(_, list)| list).map(|interval| &interval.response).collect();
    Bins::merged(&answers)
}

/// A line is broken where a window has too few samples.
fn runs_of_points(windows: &Windows, merged: &[Bins], q: f64) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, bins) in merged.iter().enumerate() {
        match bins.quantile(q).filter(|_| enough(bins.count(), q)) {
            Some(ns) => runs.last_mut().expect("never empty").push((windows.middle_s(at), ns as f64 / 1e3)),
            None => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| run.len() > 1);
    runs
}

// ------------------------------------------------------------------------------------------- heat map

/// How many answers took how long, over time.
pub(super) fn heat_map(run: &RunData, kind: Kind) -> Option<Chart> {
    let windows = Windows::of(run, COLUMNS_MAX)?;
    let merged = merged(run, &windows, kind);
    let low = merged.iter().flat_map(Bins::iter).map(|(ns, _)| ns).min()? as f64 / 1e3;
    let high = merged.iter().filter_map(Bins::max).max()? as f64 / 1e3;
    let y = ticks::latency(low, high);
    let step = 10f64.powf(1.0 / ROWS_PER_DECADE);
    let row_of = |us: f64| (us / y.range.0).log10() * ROWS_PER_DECADE;
    let mut cells: BTreeMap<(i64, usize), u64> = BTreeMap::new();
    for (at, bins) in merged.iter().enumerate() {
        for (ns, n) in bins.iter() {
            *cells.entry((row_of(ns as f64 / 1e3).floor() as i64, at)).or_default() += n;
        }
    }
    let most = cells.values().copied().max()?;
    let mut plot = skeleton(run, heat_title(&measured(run, kind), kind), String::new())?;
    plot.subtitle = format!(
        "Answers by response time, per {} and step of {:.0} %",
        figures::seconds(windows.seconds()),
        (step - 1.0) * 100.0
    );
    // Counts that differ by orders of magnitude: shade by their logarithm, in few steps so that equal
    // neighbours become one box.
    let levels = 8.0;
    let shade = |n: u64| {
        let share = if most > 1 { (n as f64).ln() / (most as f64).ln() } else { 1.0 };
        (share * levels).round() / levels
    };
    let mut boxes: Vec<(f64, f64, f64, f64, RGBColor)> = Vec::new();
    for ((row, at), n) in &cells {
        let (low, high) = (y.range.0 * step.powi(*row as i32), y.range.0 * step.powi(*row as i32 + 1));
        let (from, to) = (windows.start_s(*at), windows.start_s(*at + 1));
        let colour = palette::heat(shade(*n));
        match boxes.last_mut() {
            Some(last) if last.1 == from && last.2 == low && last.4 == colour => last.1 = to,
            _ => boxes.push((from, to, low, high, colour)),
        }
    }
    plot.legend = heat_legend(most, levels);
    let name = format!("{}, response time", kind.name());
    plot.panels.push(Panel { name, height: 240.0, y, layers: vec![Layer::Boxes { boxes }] });
    let caption =
        "Each cell counts the answers of one stretch of time and one step of latency; a darker one \
                   has more. Bands are modes (cache, sync, queue), columns are moments at which \
                   everything was slow."
            .to_string();
    Some(Chart { name: format!("heatmap-{}", kind.name()), caption, plot })
}

fn heat_title(all: &Bins, kind: Kind) -> String {
    if all.count() == 0 {
        return format!("There were {} in warm-ups only", kind.name());
    }
    let us = |q: f64| all.quantile(q).map_or(0.0, |ns| ns as f64 / 1e3);
    format!(
        "Half of all {} took {} to {}",
        kind.name(),
        figures::time_us(us(0.25)),
        figures::time_us(us(0.75))
    )
}

fn heat_legend(most: u64, levels: f64) -> Vec<Legend> {
    let mut legend: Vec<Legend> = Vec::new();
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let n = (most as f64).powf(share).round() as u64;
        let text = figures::count(n);
        if legend.last().is_none_or(|last| last.text != text) {
            legend.push(Legend::fill(text, palette::heat((share * levels).round() / levels)));
        }
    }
    if let Some(last) = legend.last_mut() {
        last.text.push_str(" answers");
    }
    legend
}

// ------------------------------------------------------------------------------------------- watchers

/// A line of the chart: its name, the time it draws (ns), its colour.
type FanOutLine = (&'static str, fn(&FanOut) -> u64, RGBColor);

/// When the first, the median and the last watcher heard of each write.
pub(super) fn fan_outs(run: &RunData, fan_outs: &[FanOut]) -> Option<Chart> {
    let of: [FanOutLine; 3] = [
        ("last watcher", |f| f.last_ns, palette::VERMILLION),
        ("median watcher", |f| f.median_ns, palette::BLUE),
        ("first watcher", |f| f.first_ns, palette::GREEN),
    ];
    // More points than pixels say no more: of many writes, evenly chosen ones are drawn.
    let every = fan_outs.len().div_ceil(FAN_OUTS_MAX).max(1);
    let drawn: Vec<&FanOut> = fan_outs.iter().step_by(every).collect();
    let low = drawn.iter().map(|f| f.first_ns).min()? as f64 / 1e3;
    let high = drawn.iter().map(|f| f.last_ns).max()? as f64 / 1e3;
    let most = fan_outs.iter().map(|f| f.watchers).max()?;
    let mut last: Vec<u64> = fan_outs.iter().map(|f| f.last_ns).collect();
    last.sort_unstable();
    let median_of_last = figures::time_us(last[last.len() / 2] as f64 / 1e3);
    let title =
        format!("Up to {most} watchers; the last of them heard after {median_of_last} (median write)");
    let subtitle = "Time from when a write was due to when its event reached watchers, one column per write";
    let mut plot = skeleton(run, title, subtitle.to_string())?;
    let layers = of.iter().map(|(_, time, colour)| Layer::Line {
        points: drawn.iter().map(|f| (f.due_ns as f64 / 1e9, time(f) as f64 / 1e3)).collect(),
        colour: *colour,
        stroke: Stroke::Points,
        width: 1.0,
    });
    plot.legend = of.iter().map(|(name, _, colour)| Legend::line(*name, *colour, Stroke::Points)).collect();
    let y = ticks::latency(low, high);
    plot.panels.push(Panel { name: "heard after".into(), height: 200.0, y, layers: layers.collect() });
    let counts = drawn.iter().map(|f| (f.due_ns as f64 / 1e9, f64::from(f.watchers)));
    plot.panels.push(Panel {
        name: "watchers that heard".into(),
        height: 70.0,
        y: ticks::from_zero("per write", f64::from(most), ticks::plain),
        layers: vec![Layer::Line {
            points: counts.collect(),
            colour: palette::INK,
            stroke: Stroke::Points,
            width: 1.0,
        }],
    });
    let caption =
        "The distance between first and last is what the fan-out costs. Fewer watchers than there are \
                   means that one-shot watches were not armed again in time."
            .to_string();
    Some(Chart { name: "fan-out".to_string(), caption, plot })
}

// -------------------------------------------------------------------------------------------- servers

/// A member at one time: seconds since the start, CPU time used so far (ns), resident bytes.
type MemberAt = (f64, Option<u64>, Option<u64>);

/// CPU of each member and of the generator, and the members' memory.
pub(super) fn servers(run: &RunData, summary: &Summary) -> Option<Chart> {
    let mut plot = skeleton(run, String::new(), "CPU and memory, once a second".to_string())?;
    let mut members: BTreeMap<&str, Vec<MemberAt>> = BTreeMap::new();
    for sample in &run.servers {
        let of_member = members.entry(&sample.member).or_default();
        of_member.push((sample.at_ns as f64 / 1e9, sample.cpu_ns, sample.rss_bytes));
    }
    let (mut cpu, mut rss) = (Vec::new(), Vec::new());
    let (mut cpu_max, mut rss_max) = (0.0f64, 0.0f64);
    for ((member, samples), colour) in members.iter().zip(palette::SERIES.into_iter().cycle()) {
        let cores = cores_used(samples);
        let memory: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(at, _, rss)| Some((*at, (*rss)? as f64 / f64::from(1 << 20))))
            .collect();
        cpu_max = cores.iter().map(|point| point.1).fold(cpu_max, f64::max);
        rss_max = memory.iter().map(|point| point.1).fold(rss_max, f64::max);
        plot.legend.push(Legend::line(*member, colour, Stroke::Solid));
        let line = |points| Layer::Line { points, colour, stroke: Stroke::Solid, width: 1.8 };
        cpu.push(line(cores));
        rss.push(line(memory));
    }
    let generator = generator_cores(run);
    if cpu_max == 0.0 && generator.is_empty() {
        return None;
    }
    cpu_max = generator.iter().map(|point| point.1).fold(cpu_max, f64::max);
    if !generator.is_empty() {
        plot.legend.push(Legend::line("load generator", palette::INK, Stroke::Dashed));
        cpu.push(Layer::Line { points: generator, colour: palette::INK, stroke: Stroke::Dashed, width: 1.4 });
    }
    plot.title = servers_title(summary);
    let panel = |name: &str, height, y: Axis, layers| Panel { name: name.to_string(), height, y, layers };
    plot.panels.push(panel("CPU", 150.0, ticks::from_zero("cores", cpu_max, ticks::plain), cpu));
    if rss_max > 0.0 {
        plot.panels.push(panel(
            "resident memory",
            110.0,
            ticks::from_zero("MiB", rss_max, ticks::plain),
            rss,
        ));
    }
    let caption =
        "CPU time used between two samples, in cores. Members without a line are not on this machine."
            .to_string();
    Some(Chart { name: "servers".to_string(), caption, plot })
}

/// Cores between samples. Those that are read at a phase's boundary may follow another at once, and a share of so short a
/// time says nothing.
fn cores_used(samples: &[MemberAt]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut from: Option<(f64, u64)> = None;
    for (at, cpu_ns, _) in samples {
        let (before, Some(used_ns)) = (from, *cpu_ns) else {
            from = None;
            continue;
        };
        if let Some((since, before_ns)) = before {
            if at - since < CPU_SECONDS_MIN {
                continue;
            }
            points.push(((at + since) / 2.0, used_ns.saturating_sub(before_ns) as f64 / 1e9 / (at - since)));
        }
        from = Some((*at, used_ns));
    }
    points
}

fn servers_title(summary: &Summary) -> String {
    let whole = &summary.whole;
    let mut parts = Vec::new();
    if let Some(us) = whole.servers.cpu_us_per_op {
        parts.push(format!("servers {}", figures::time_us(us)));
    }
    if let Some(us) = whole.generator.cpu_us_per_op {
        parts.push(format!("generator {}", figures::time_us(us)));
    }
    if parts.is_empty() {
        "CPU over time".to_string()
    } else {
        format!("CPU per operation: {}", parts.join(", "))
    }
}

/// All workers together, by the seconds of the first.
fn generator_cores(run: &RunData) -> Vec<(f64, f64)> {
    let samples = &run.generator.samples;
    let Some(first) = samples.first().map(|sample| sample.worker) else { return Vec::new() };
    samples
        .iter()
        .filter(|sample| sample.worker == first && sample.wall_ns > 0)
        .map(|of_first| {
            let (from, to) = (of_first.at_ns.saturating_sub(of_first.wall_ns), of_first.at_ns);
            let cores: f64 = samples
                .iter()
                .filter(|sample| sample.wall_ns > 0)
                .map(|sample| {
                    let start = sample.at_ns.saturating_sub(sample.wall_ns);
                    let shared = sample.at_ns.min(to).saturating_sub(start.max(from)) as f64;
                    sample.cpu_ns as f64 * shared / sample.wall_ns as f64
                })
                .sum();
            ((from + to) as f64 / 2e9, cores / of_first.wall_ns as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_not_those_of_a_moment() {
        let at = |s: f64, cpu_s: f64| (s, Some((cpu_s * 1e9) as u64), None);
        // Half a core; a phase ends at 2.05 s, and the process is looked at once more when all is over.
        let samples = [at(1.0, 0.5), at(2.0, 1.0), at(2.05, 1.04), at(3.0, 1.5), at(3.02, 1.5)];
        assert_eq!(cores_used(&samples), [(1.5, 0.5), (2.5, 0.5)]);
        let away = [at(1.0, 0.5), (2.0, None, None), at(3.0, 0.1), at(4.0, 0.2)];
        assert_eq!(cores_used(&away).iter().map(|point| point.0).collect::<Vec<_>>(), [3.5]);
    }
}
