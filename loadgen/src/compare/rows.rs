//! The figures of a comparison: what is measured, each run's value, and what the sides' values say of each other.

use crate::driver::FanOut;
use crate::failover::{Failover, Outage, Round};
use crate::op::Op;
use crate::recorder::Class;
use crate::summary::{OpSummary, PhaseSummary, Summary};

use super::sides::{Loaded, LoadedRun};
use super::statistics::{self, Interval, REPEATS_MIN};
use super::{EFFECT_MIN, FALSE_ALARM};

/// What a figure says of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// More than chance, and at least [`EFFECT_MIN`].
    Higher,
    /// More than chance, and at least [`EFFECT_MIN`].
    Lower,
    /// Every run above every run of the first side, and at least [`EFFECT_MIN`]; the interval alone cannot tell.
    HigherInEachRun,
    /// Every run below every run of the first side, likewise.
    LowerInEachRun,
    /// Whatever the difference is, it is less than [`EFFECT_MIN`].
    Same,
    /// The interval is too wide to say.
    Unclear,
}

impl Finding {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Finding::Higher => "higher",
            Finding::Lower => "lower",
            Finding::HigherInEachRun => "higher in each run",
            Finding::LowerInEachRun => "lower in each run",
            Finding::Same => "same",
            Finding::Unclear => "can't tell",
        }
    }

    /// Whether it is said because runs do not overlap.
    pub fn is_in_each_run(self) -> bool {
        matches!(self, Finding::HigherInEachRun | Finding::LowerInEachRun)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Successes per second.
    Rate,
    /// Median of response time, microseconds.
    P50,
    /// 99th percentile of response time, microseconds.
    P99,
    /// 99.9th percentile of response time, microseconds.
    P999,
    /// The servers' CPU time per operation, microseconds.
    ServerCpu,
    /// Median over a run's faults, or watched writes, microseconds.
    Median,
    /// The longest of them, microseconds.
    Longest,
}

impl Figure {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Rate => "per second",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::P999 => "p99.9",
            Figure::ServerCpu => "servers' CPU per op",
            Figure::Median => "median",
            Figure::Longest => "longest",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self == Figure::Rate
    }

    fn of_op(self, phase: &PhaseSummary, op: &OpSummary) -> Option<f64> {
        match self {
            Figure::Rate => Some(op.rate),
            Figure::P50 => op.response.p50_us,
            Figure::P99 => op.response.p99_us,
            Figure::P999 => op.response.p999_us,
            Figure::ServerCpu => phase.servers.cpu_us_per_op,
            Figure::Median | Figure::Longest => None,
        }
    }

    fn of_lengths(self, mut lengths_us: Vec<f64>) -> Option<f64> {
        lengths_us.sort_by(f64::total_cmp);
        match self {
            Figure::Median => lengths_us.get(lengths_us.len() / 2).copied(),
            Figure::Longest => lengths_us.last().copied(),
            _ => None,
        }
    }
}

/// Another side's figure as a multiple of the first side's.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// Its value over the first side's.
    pub ratio: f64,
    /// Where that ratio lies, as far as it can be said.
    pub interval: Option<Interval>,
    /// What that means.
    pub finding: Finding,
}

/// One figure of all sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it was measured: the phase, by name, or [`FAULTS`] or [`WATCHES`].
    pub phase: String,
    /// The kind of operation, a group of these, or what was awaited.
    pub op: String,
    /// What was measured.
    pub figure: Figure,
    /// Per side, each run's value; infinite where it never ended. Empty unless every run of the side has one: a percentile
    /// that only some have would be a selection.
    pub runs: Vec<Vec<f64>>,
    /// Per side; the mean of its runs (geometric). `None`: not measured, or too few samples.
    pub values: Vec<Option<f64>>,
    /// Per side but the first.
    pub against: Vec<Option<Against>>,
}

/// The place of figures around faults. No phase has this name: it has a space.
pub const FAULTS: &str = "around faults";
/// The place of figures about watched writes.
pub const WATCHES: &str = "watched writes";

/// A row that is wanted, and where its values come from.
struct Wanted {
    source: Source,
    phase: String,
    op: String,
    figure: Figure,
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Phase,
    Faults,
    Watches,
}

pub(super) fn rows(sides: &[Loaded]) -> Vec<Row> {
    let wanted = wanted(sides);
    let per_side: Vec<Vec<Vec<f64>>> = wanted
        .iter()
        .map(|wanted| {
            let whole = |side: &Loaded| -> Option<Vec<f64>> {
                side.runs.iter().map(|one| one.value(wanted)).collect()
            };
            sides.iter().map(|side| whole(side).unwrap_or_default()).collect()
        })
        .collect();
    let compared = per_side.iter().filter(|sides| sides.iter().all(|runs| !runs.is_empty()));
    let level = FALSE_ALARM / (compared.count() * (sides.len() - 1)).max(1) as f64;
    wanted
        .iter()
        .zip(per_side)
        .filter(|(_, runs)| runs.iter().any(|runs| !runs.is_empty()))
        .map(|(wanted, runs)| row(sides, wanted, runs, level))
        .collect()
}

/// Phases that every run of every side measured, in the first run's order, then faults and watches.
fn wanted(sides: &[Loaded]) -> Vec<Wanted> {
    let all: Vec<&LoadedRun> = sides.iter().flat_map(|side| &side.runs).collect();
    let Some(first) = all.first() else { return Vec::new() };
    let has = |summary: &Summary, name: &str| summary.measured().any(|phase| phase.name == name);
    let mut wanted = Vec::new();
    let mut add = |source, phase: &str, op: &str, figures: &[Figure]| {
        for figure in figures {
            wanted.push(Wanted { source, phase: phase.to_owned(), op: op.to_owned(), figure: *figure });
        }
    };
    for phase in first.summary.measured().filter(|phase| all.iter().all(|one| has(&one.summary, &phase.name)))
    {
        let groups = phase.groups.iter().filter(|group| group.op != "all");
        for op in phase.ops.iter().chain(groups) {
            add(Source::Phase, &phase.name, &op.op, &[Figure::Rate, Figure::P50, Figure::P99, Figure::P999]);
        }
        let whole: &[Figure] =
            if phase.ops.len() > 1 { &[Figure::Rate, Figure::ServerCpu] } else { &[Figure::ServerCpu] };
        add(Source::Phase, &phase.name, "all", whole);
    }
    let rounds =
        all.iter().filter_map(|one| one.summary.failover.as_ref()).map(|failover| failover.rounds.len());
    // Of one round, median and longest are the same.
    let of_faults: &[Figure] =
        if rounds.max().unwrap_or(0) > 1 { &[Figure::Median, Figure::Longest] } else { &[Figure::Longest] };
    for what in awaited(&all) {
        add(Source::Faults, FAULTS, &what, of_faults);
    }
    add(Source::Watches, WATCHES, "until the last watcher knows", &[Figure::Median, Figure::Longest]);
    wanted
}

const WRITE_GAP: &str = "write gap";
const READ_GAP: &str = "read gap";

/// What faults made clients wait for, in the order of a round; a part that some run does not tell apart is left out.
fn awaited(all: &[&LoadedRun]) -> Vec<String> {
    let mut awaited = vec![WRITE_GAP.to_string(), READ_GAP.to_string()];
    for name in crate::failover::PARTS {
        let has = |failover: &Failover| failover.parts.iter().any(|(part, _)| part == name);
        if all.iter().all(|one| one.summary.failover.as_ref().is_some_and(has)) {
            awaited.push(name.to_string());
        }
    }
    awaited
}

impl LoadedRun {
    fn value(&self, wanted: &Wanted) -> Option<f64> {
        let value = match wanted.source {
            Source::Phase => {
                let phase = self.summary.phase(&wanted.phase)?;
                wanted.figure.of_op(phase, phase.op(&wanted.op)?)
            }
            Source::Faults => wanted.figure.of_lengths(self.of_rounds(&wanted.op)?),
            Source::Watches => {
                let last = |fan_out: &FanOut| fan_out.last_ns as f64 / 1e3;
                wanted.figure.of_lengths(self.fan_outs.iter().map(last).collect())
            }
        };
        value.filter(|value| *value > 0.0)
    }

    /// What was awaited, round by round, in microseconds; infinite where it never came.
    fn of_rounds(&self, what: &str) -> Option<Vec<f64>> {
        let failover = self.summary.failover.as_ref()?;
        let gap = |outage: Option<Outage>| {
            outage.map(
                |outage| if outage.gap.open { f64::INFINITY } else { outage.gap.length_ns() as f64 / 1e3 },
            )
        };
        let length = |round: &Round| match what {
            WRITE_GAP => gap(round.writes),
            READ_GAP => gap(round.reads),
            part => {
                let part = round.parts.iter().find(|other| other.name == part)?;
                Some((part.to_ns - part.from_ns) as f64 / 1e3)
            }
        };
        Some(failover.rounds.iter().filter_map(length).collect())
    }

    /// Standard error of a figure's logarithm within this run, where one run can tell it.
    fn error(&self, wanted: &Wanted) -> Option<f64> {
        match (wanted.source, wanted.figure) {
            (Source::Phase, figure) => statistics::within_run(&self.run, &wanted.phase, &wanted.op, figure),
            (Source::Faults, Figure::Median) => {
                let lengths = self.of_rounds(&wanted.op)?;
                statistics::of_parts(&lengths, |drawn| Figure::Median.of_lengths(drawn.to_vec()))
            }
            _ => None,
        }
    }
}

fn row(sides: &[Loaded], wanted: &Wanted, runs: Vec<Vec<f64>>, level: f64) -> Row {
    let mean = |runs: &Vec<f64>| (!runs.is_empty()).then(|| statistics::geometric_mean(runs));
    let values: Vec<Option<f64>> = runs.iter().map(mean).collect();
    let against = |other: usize| {
        let ratio = Some(values[other]? / values[0]?).filter(|ratio| ratio.is_finite() && *ratio > 0.0)?;
        let (a, b) = (&runs[0], &runs[other]);
        let interval = if a.len() >= REPEATS_MIN && b.len() >= REPEATS_MIN {
            statistics::between_runs(a, b, level)
        } else {
            let errors = sides[0].runs[0].error(wanted).zip(sides[other].runs[0].error(wanted));
            errors.and_then(|(a, b)| statistics::of_errors(ratio, a, b, level))
        };
        Some(Against { ratio, interval, finding: finding(ratio, interval, a, b) })
    };
    let against = (1..sides.len()).map(against).collect();
    Row { phase: wanted.phase.clone(), op: wanted.op.clone(), figure: wanted.figure, runs, values, against }
}

/// What a ratio, its interval and the runs say.
fn finding(ratio: f64, interval: Option<Interval>, a: &[f64], b: &[f64]) -> Finding {
    let same = 1.0 / (1.0 + EFFECT_MIN)..=1.0 + EFFECT_MIN;
    let large = !same.contains(&ratio);
    let apart = statistics::apart_by_chance(a, b).is_some_and(|chance| chance <= statistics::APART_MAX);
    match interval {
        Some(Interval { low, high }) if same.contains(&low) && same.contains(&high) => Finding::Same,
        Some(Interval { low, .. }) if low > 1.0 && large => Finding::Higher,
        Some(Interval { high, .. }) if high < 1.0 && large => Finding::Lower,
        _ if apart && large && ratio > 1.0 => Finding::HigherInEachRun,
        _ if apart && large => Finding::LowerInEachRun,
        _ => Finding::Unclear,
    }
}

impl super::Comparison {
    /// The figure of a phase's operations of one kind, or of a class (`reads`, `writes`) that has one kind only.
    pub(crate) fn row(&self, phase: &str, op: &str, figure: Figure) -> Option<&Row> {
        let mut of_phase = self.rows.iter().filter(|row| row.phase == phase && row.figure == figure);
        let is = |row: &&Row| row.op == op;
        let only = |row: &&Row| Class::of_name(&row.op) == Some(op) || (op == "all" && is_kind(&row.op));
        of_phase.clone().find(is).or_else(|| of_phase.find(only))
    }
}

fn is_kind(name: &str) -> bool {
    Op::ALL.into_iter().any(|op| op.name() == name && Class::of(op).is_some())
}
