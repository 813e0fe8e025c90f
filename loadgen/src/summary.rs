//! What a run comes to: per phase and over all measured phases, per kind of operation.
//!
//! Percentiles come from merged histograms, never from averages, and are given only where there are
//! samples enough for them (`n · (1 − p) ≥ 10`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::results::{ArrivalKind, RunData};

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
    /// Due but never sent, because the backlog was full.
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
}

impl Summary {
    /// Computes everything from what was recorded.
    pub fn of(run: &RunData) -> Summary {
        let _ = run;
        Summary { whole: PhaseSummary::empty("all"), phases: Vec::new() }
    }

    /// The phase of that name; `all` is the whole run.
    pub fn phase(&self, name: &str) -> Option<&PhaseSummary> {
        if name == "all" { Some(&self.whole) } else { self.phases.iter().find(|p| p.name == name) }
    }
}

impl PhaseSummary {
    fn empty(name: &str) -> PhaseSummary {
        PhaseSummary {
            name: name.to_string(),
            warmup: false,
            arrival: None,
            arrival_text: String::new(),
            seconds: 0.0,
            ops: Vec::new(),
            groups: Vec::new(),
            gaps: Vec::new(),
            servers: ServerUse::default(),
            generator: GeneratorUse::default(),
        }
    }

    /// The kind (`get`) or group (`reads`, `writes`, `all`) of that name.
    pub fn op(&self, name: &str) -> Option<&OpSummary> {
        self.ops.iter().chain(&self.groups).find(|o| o.op == name)
    }
}
