//! What a run comes to: per phase and over all measured phases, per kind of operation.
//!
//! Percentiles come from merged histograms, never from averages, and are given only where there are
//! samples enough for them (`n · (1 − p) ≥ 10`).

mod failover;
mod table;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::failover::Failover;
use crate::op::{Op, Outcome};
use crate::recorder::{Class, Total};
use crate::results::{ArrivalKind, PhaseRecord, RunData};

/// One clock's distribution. All in microseconds. `None`: too few samples for that percentile.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Smallest.
    pub min_us: f64,
    /// Median.
    pub p50_us: Option<f64>,
    /// 90th percentile.
    pub p90_us: Option<f64>,
    /// 95th percentile.
    pub p95_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// 99.99th percentile.
    pub p9999_us: Option<f64>,
    /// Largest.
    pub max_us: f64,
}

/// One kind of operation (or a group of kinds) within a phase.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OpSummary {
    /// `get`, `set`, …, or the groups `reads`, `writes`, `all` (without connect and notify).
    pub op: String,
    /// Operations that came due: answered, failed and missed.
    pub offered: u64,
    /// Answered as asked.
    pub count: u64,
    /// Answered as asked per second of the phase, counting only answers within it.
    pub rate: f64,
    /// Failed, all codes.
    pub errors: u64,
    /// Failed, by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Due but never sent, because the backlog was full or the run over.
    pub missed: u64,
    /// Time from due to done of successes: what a user waits.
    pub response: Latency,
    /// Time from sent to done of successes: what the cluster took.
    pub service: Latency,
    /// Time from due to sent, of successes: what the generator and its queue took.
    pub lag: Latency,
    /// Response percentiles with failed and missed operations counted as never answered (infinite):
    /// `None` where the percentile falls among them, or for too few samples.
    pub response_with_failures: Latency,
    /// Payload bytes of successes.
    pub bytes: u64,
}

/// The longest time without a success of a class of operations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GapSummary {
    /// `reads`, `writes`, `connect`, `notify`.
    pub class: String,
    /// The last success before it, on the run's clock.
    pub from_ns: u64,
    /// The first success after it.
    pub to_ns: u64,
}

/// CPU and memory of the cluster in a phase.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServerUse {
    /// CPU time of all members per completed operation; `None` when no member is local.
    pub cpu_us_per_op: Option<f64>,
    /// Cores used by each member, on average.
    pub cores: BTreeMap<String, f64>,
    /// Largest resident memory of each member.
    pub rss_max_bytes: BTreeMap<String, u64>,
}

/// CPU of the generator in a phase.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GeneratorUse {
    /// CPU time of the worker threads per completed operation; `None` when nothing completed.
    pub cpu_us_per_op: Option<f64>,
    /// Cores used by all workers, on average.
    pub cores: f64,
    /// The busiest worker's share of a core in its busiest interval, 0 to 1.
    pub busiest: f64,
}

/// A phase, or all measured ones together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// The phase's name; `all` for the whole run.
    pub name: String,
    /// Not counted in the whole run.
    pub warmup: bool,
    /// Open or closed loop; `None` for the whole run when phases differ.
    pub arrival: Option<ArrivalKind>,
    /// As the workload has it.
    pub arrival_text: String,
    /// Length.
    pub seconds: f64,
    /// The kinds that occurred, in the order of [`Op::ALL`](crate::op::Op::ALL).
    pub ops: Vec<OpSummary>,
    /// `reads`, `writes`, `all`: those with more than one kind in them, and always `all`.
    pub groups: Vec<OpSummary>,
    /// Longest time without success, per class that occurred.
    pub gaps: Vec<GapSummary>,
    /// The cluster's CPU and memory.
    pub servers: ServerUse,
    /// The generator's CPU.
    pub generator: GeneratorUse,
}

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// All phases without warm-up, histograms merged.
    pub whole: PhaseSummary,
    /// Each phase, in order, warm-up included.
    pub phases: Vec<PhaseSummary>,
    /// What faults cost the clients; `None` without faults.
    #[serde(default)]
    pub failover: Option<Failover>,
}

pub(crate) use table::wrap;
pub use table::{Style, table};

/// A percentile is given only when so many samples lie above it.
pub const SAMPLES_ABOVE: f64 = 10.0;

/// Whether `n` samples are enough for the quantile `q`.
pub fn enough(n: u64, q: f64) -> bool {
    n as f64 * (1.0 - q) >= SAMPLES_ABOVE - 1e-6
}

/// A percentile when failures count as answers that never came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tail {
    /// So many microseconds.
    Us(f64),
    /// It falls among the operations that failed or were missed.
    Never,
    /// Too few samples.
    Unknown,
}

/// The quantiles of a [`Latency`], ascending, as one pass over a histogram wants them.
const QUANTILES: [f64; 6] = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999];

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        if histogram.is_empty() {
            return Latency::default();
        }
        let mut values = histogram.value_at_quantiles(QUANTILES);
        let [p50_us, p90_us, p95_us, p99_us, p999_us, p9999_us] =
            QUANTILES.map(|q| values.next().filter(|_| enough(histogram.len(), q)).map(|ns| ns as f64 / 1e3));
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            min_us: histogram.min() as f64 / 1e3,
            p50_us,
            p90_us,
            p95_us,
            p99_us,
            p999_us,
            p9999_us,
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    /// The percentile for a quantile (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999).
    pub fn at(&self, q: f64) -> Option<f64> {
        let known = [
            (0.5, self.p50_us),
            (0.9, self.p90_us),
            (0.95, self.p95_us),
            (0.99, self.p99_us),
            (0.999, self.p999_us),
            (0.9999, self.p9999_us),
        ];
        known.into_iter().find(|(known, _)| (known - q).abs() < 1e-9).and_then(|(_, value)| value)
    }

    /// As [`Latency::of`], with `failed` more samples of infinite length.
    fn with_failed(histogram: &Histogram<u64>, failed: u64) -> Latency {
        if failed == 0 {
            return Latency::of(histogram);
        }
        let total = histogram.len() + failed;
        let rank = |q: f64| (q * total as f64).ceil() as u64;
        let mut values =
            histogram.value_at_quantiles(QUANTILES.map(|q| rank(q) as f64 / histogram.len() as f64));
        let [p50_us, p90_us, p95_us, p99_us, p999_us, p9999_us] = QUANTILES.map(|q| {
            let known = enough(total, q) && (1..=histogram.len()).contains(&rank(q));
            values.next().filter(|_| known).map(|ns| ns as f64 / 1e3)
        });
        Latency { count: total, p50_us, p90_us, p95_us, p99_us, p999_us, p9999_us, ..Latency::of(histogram) }
    }
}

impl OpSummary {
    /// Failed and missed operations as a share of those offered.
    pub fn failed_share(&self) -> f64 {
        if self.offered == 0 { 0.0 } else { (self.errors + self.missed) as f64 / self.offered as f64 }
    }

    /// A response percentile in which failures count as never answered.
    pub fn tail(&self, q: f64) -> Tail {
        let total = self.response_with_failures.count;
        match self.response_with_failures.at(q) {
            Some(us) => Tail::Us(us),
            None if enough(total, q) => Tail::Never,
            None => Tail::Unknown,
        }
    }
}

/// A kind of operation, or a group of kinds.
struct Group {
    name: &'static str,
    holds: fn(Op) -> bool,
}

const GROUPS: [Group; 3] = [
    Group { name: "reads", holds: |op| Class::of(op) == Some(Class::Reads) },
    Group { name: "writes", holds: |op| Class::of(op) == Some(Class::Writes) },
    Group { name: "all", holds: |op| Class::of(op).is_some() },
];

impl Summary {
    /// Computes everything from what was recorded.
    pub fn of(run: &RunData) -> Summary {
        let phases = &run.manifest.phases;
        let each: Vec<PhaseSummary> = (0..phases.len())
            .map(|at| {
                let phase = &phases[at];
                let mut summary = phase_summary(run, &phase.name, &[at]);
                (summary.warmup, summary.arrival) = (phase.warmup, Some(phase.arrival));
                summary.arrival_text.clone_from(&phase.arrival_text);
                summary
            })
            .collect();
        let measured: Vec<usize> = (0..phases.len()).filter(|at| !phases[*at].warmup).collect();
        let mut whole = phase_summary(run, "all", &measured);
        let first = measured.first().map(|at| phases[*at].arrival);
        whole.arrival = first.filter(|first| measured.iter().all(|at| phases[*at].arrival == *first));
        Summary { whole, phases: each, failover: Failover::of(run) }
    }

    /// The phase of that name; `all` is the whole run.
    pub fn phase(&self, name: &str) -> Option<&PhaseSummary> {
        self.phases.iter().find(|phase| phase.name == name).or_else(|| (name == "all").then_some(&self.whole))
    }

    /// The phases that count.
    pub fn measured(&self) -> impl Iterator<Item = &PhaseSummary> {
        self.phases.iter().filter(|phase| !phase.warmup)
    }
}

impl PhaseSummary {
    /// The kind (`get`) or group (`reads`, `writes`, `all`) of that name.
    pub fn op(&self, name: &str) -> Option<&OpSummary> {
        self.ops.iter().chain(&self.groups).find(|o| o.op == name)
    }

    /// `reads` or `writes`, also where these are of one kind only and need no group.
    pub fn class(&self, name: &str) -> Option<&OpSummary> {
        self.op(name).or_else(|| self.ops.iter().find(|op| Class::of_name(&op.op) == Some(name)))
    }

    /// Everything but opening sessions and notifications.
    pub fn all(&self) -> Option<&OpSummary> {
        self.op("all")
    }
}

/// Seconds of a phase's schedule.
pub(crate) fn length_s(phase: &PhaseRecord) -> f64 {
    phase.end_ns.saturating_sub(phase.start_ns) as f64 / 1e9
}

fn phase_summary(run: &RunData, name: &str, phases: &[usize]) -> PhaseSummary {
    let records: Vec<&PhaseRecord> = phases.iter().map(|at| &run.manifest.phases[*at]).collect();
    let seconds = records.iter().map(|phase| length_s(phase)).sum();
    let ops: Vec<OpSummary> = Op::ALL
        .into_iter()
        .filter_map(|op| op_summary(run, op.name(), phases, |other| other == op))
        .collect();
    let groups = GROUPS
        .iter()
        .filter(|group| {
            let kinds =
                Op::ALL.iter().filter(|op| (group.holds)(**op) && ops.iter().any(|o| o.op == op.name()));
            group.name == "all" || kinds.count() > 1
        })
        .filter_map(|group| op_summary(run, group.name, phases, group.holds))
        .collect::<Vec<_>>();
    let completed = groups.iter().find(|group| group.op == "all").map_or(0.0, |all| all.rate * seconds);
    PhaseSummary {
        name: name.to_string(),
        warmup: false,
        arrival: None,
        arrival_text: String::new(),
        seconds,
        ops,
        groups,
        gaps: longest_gaps(run, &records),
        servers: server_use(run, &records, completed),
        generator: generator_use(run, &records, completed),
    }
}

fn op_summary(run: &RunData, name: &str, phases: &[usize], holds: impl Fn(Op) -> bool) -> Option<OpSummary> {
    let mine = |phase: u16, op: Op| phases.contains(&usize::from(phase)) && holds(op);
    let recording = &run.recording;
    let mut summary = OpSummary { op: name.to_string(), ..OpSummary::default() };
    for (_, arrivals) in recording.arrivals.iter().filter(|((phase, op), _)| mine(*phase, *op)) {
        summary.offered += arrivals.offered();
        summary.missed += arrivals.missed();
    }
    if summary.offered == 0 {
        return None;
    }
    let mut successes = Total::new();
    for (key, total) in recording.totals.iter().filter(|(key, _)| mine(key.phase, key.op)) {
        match key.outcome {
            Outcome::Ok => successes.merge(total),
            Outcome::Error(code) => {
                summary.errors += total.response.len();
                *summary.errors_by_code.entry(code.name().to_string()).or_default() += total.response.len();
            }
        }
    }
    for (key, intervals) in recording.intervals.iter().filter(|(key, _)| mine(key.phase, key.op)) {
        if key.outcome == Outcome::Ok {
            summary.bytes += intervals.iter().map(|interval| interval.bytes).sum::<u64>();
        }
    }
    summary.count = successes.response.len();
    summary.rate = rate_of(run, phases, &holds);
    summary.response = Latency::of(&successes.response);
    summary.service = Latency::of(&successes.service);
    summary.lag = Latency::of(&successes.lag);
    summary.response_with_failures =
        Latency::with_failed(&successes.response, summary.errors + summary.missed);
    Some(summary)
}

/// Successes per second of the phases, of the kinds that `holds`: only answers within their phase count,
/// so that a backlog which is answered later does not look like speed.
pub(crate) fn rate_of(run: &RunData, phases: &[usize], holds: impl Fn(Op) -> bool) -> f64 {
    let recording = &run.recording;
    let mut within = 0.0;
    for (key, intervals) in &recording.intervals {
        let phase = usize::from(key.phase);
        if key.outcome == Outcome::Ok && phases.contains(&phase) && holds(key.op) {
            let end_ns = run.manifest.phases[phase].end_ns;
            for interval in intervals {
                let share = share_before(interval.index, recording.interval_ns, end_ns);
                within += interval.response.count() as f64 * share;
            }
        }
    }
    let seconds: f64 = phases.iter().map(|at| length_s(&run.manifest.phases[*at])).sum();
    if seconds > 0.0 { within / seconds } else { 0.0 }
}

/// How much of an interval lies before a moment, 0 to 1.
pub(crate) fn share_before(index: u64, interval_ns: u64, end_ns: u64) -> f64 {
    let start_ns = index * interval_ns;
    (end_ns.saturating_sub(start_ns) as f64 / interval_ns as f64).min(1.0)
}

fn longest_gaps(run: &RunData, phases: &[&PhaseRecord]) -> Vec<GapSummary> {
    let mut longest: BTreeMap<&str, GapSummary> = BTreeMap::new();
    for event in run.events.iter().filter(|event| event.kind == "gap") {
        let to_ns = event.at_ns + event.duration_ns;
        if phases.iter().any(|phase| event.at_ns >= phase.start_ns && to_ns <= phase.end_ns) {
            let gap = longest.entry(&event.target).or_default();
            if event.duration_ns >= gap.to_ns - gap.from_ns {
                *gap = GapSummary { class: event.target.clone(), from_ns: event.at_ns, to_ns };
            }
        }
    }
    longest.into_values().collect()
}

/// What of a cumulative figure falls between two moments, linearly between samples. `None` unless the
/// samples reach over at least half of that time.
fn between(samples: &[(u64, f64)], from_ns: u64, to_ns: u64) -> Option<(f64, f64)> {
    let (first, last) = (samples.first()?.0.max(from_ns), samples.last()?.0.min(to_ns));
    if last <= first || (last - first) * 2 < to_ns - from_ns {
        return None;
    }
    let value = |at: u64| {
        let after = samples.partition_point(|sample| sample.0 < at).min(samples.len() - 1);
        let (x1, y1) = samples[after];
        let (x0, y0) = samples[after.saturating_sub(1)];
        if x1 <= x0 { y1 } else { y0 + (y1 - y0) * (at - x0) as f64 / (x1 - x0) as f64 }
    };
    Some((value(last) - value(first), (last - first) as f64))
}

fn server_use(run: &RunData, phases: &[&PhaseRecord], completed: f64) -> ServerUse {
    let mut used = ServerUse::default();
    let mut cpu: BTreeMap<&str, Vec<(u64, f64)>> = BTreeMap::new();
    for sample in &run.servers {
        if let Some(ns) = sample.cpu_ns {
            cpu.entry(&sample.member).or_default().push((sample.at_ns, ns as f64));
        }
        let inside = phases.iter().any(|p| sample.at_ns >= p.start_ns && sample.at_ns <= p.end_ns);
        if let (true, Some(rss)) = (inside, sample.rss_bytes) {
            let max = used.rss_max_bytes.entry(sample.member.clone()).or_default();
            *max = rss.max(*max);
        }
    }
    cpu.values_mut().for_each(|samples| samples.sort_by_key(|sample| sample.0));
    let mut total_us = 0.0;
    let mut known = !cpu.is_empty() && !phases.is_empty();
    for (member, samples) in cpu {
        let (mut busy_ns, mut wall_ns) = (0.0, 0.0);
        for phase in phases {
            let length_ns = (phase.end_ns - phase.start_ns) as f64;
            match between(&samples, phase.start_ns, phase.end_ns) {
                // What the samples do not cover is taken to have gone on at the same rate.
                Some((used_ns, seen_ns)) => busy_ns += used_ns * length_ns / seen_ns,
                None => known = false,
            }
            wall_ns += length_ns;
        }
        total_us += busy_ns / 1e3;
        if known && wall_ns > 0.0 {
            used.cores.insert(member.to_string(), busy_ns / wall_ns);
        }
    }
    used.cpu_us_per_op = (known && completed >= 1.0).then(|| total_us / completed);
    used
}

fn generator_use(run: &RunData, phases: &[&PhaseRecord], completed: f64) -> GeneratorUse {
    let mut used = GeneratorUse::default();
    let (mut cpu_ns, mut wall_ns) = (0.0, 0.0);
    for phase in phases {
        wall_ns += (phase.end_ns - phase.start_ns) as f64;
        for sample in run.generator.samples.iter().filter(|sample| sample.wall_ns > 0) {
            let from_ns = sample.at_ns.saturating_sub(sample.wall_ns).max(phase.start_ns);
            let inside =
                sample.at_ns.min(phase.end_ns).saturating_sub(from_ns) as f64 / sample.wall_ns as f64;
            cpu_ns += sample.cpu_ns as f64 * inside;
            if inside >= 0.5 {
                used.busiest = used.busiest.max(sample.cpu_ns as f64 / sample.wall_ns as f64);
            }
        }
    }
    let known = !run.generator.samples.is_empty();
    used.cores = if wall_ns > 0.0 { cpu_ns / wall_ns } else { 0.0 };
    used.cpu_us_per_op = (known && completed >= 1.0).then(|| cpu_ns / 1e3 / completed);
    used
}
