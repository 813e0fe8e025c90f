//! Expectations: `response.get.p99 < 5ms` and their like, parsed when the workload is read and judged when the run is over.
//!
//! An expectation is met only by a number. Missing data, zero samples and too few samples for the percentile are failures with
//! their reason, never a pass.

use serde::{Deserialize, Serialize};

use crate::op::Op;

/// One line of a workload's `expect` list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// As it was written.
    pub text: String,
    /// Only in this phase; `None`: latencies, rates and shares in every phase that is not a warm-up and issues the
    /// operation, counts summed over the phases that are not a warm-up.
    pub phase: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// How it is compared.
    pub relation: Relation,
    /// With what, in the metric's unit: nanoseconds, operations per second, a count, a share from 0 to 1.
    pub bound: f64,
}

/// What an expectation is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// A latency in nanoseconds, of operations that were answered as asked.
    Latency(Clock, Ops, Stat),
    /// Operations answered as asked, per second of the phase.
    Rate(Ops),
    /// How many operations ended in an error.
    Errors(Ops),
    /// Errors among all operations that ended, 0 to 1.
    ErrorShare(Ops),
    /// How many due operations were missed because the backlog limit was reached.
    Missed(Ops),
    /// Missed among all due operations, 0 to 1.
    MissedShare(Ops),
    /// Writes that were acknowledged and are not there at the end. Of the whole run.
    LostAcknowledgedWrites,
    /// The longest time without an acknowledged write around a fault, in nanoseconds. Of the whole run.
    WriteGap,
}

/// Between which two of the three clock readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// done − due: what users feel.
    Response,
    /// done − sent.
    Service,
    /// sent − due.
    Lag,
}

/// Which kinds of operation, their histograms merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ops {
    /// All that the mix issues (not connect, not notify).
    All,
    /// Those that the cluster answers without logging.
    Reads,
    /// Those that go through the leader's log.
    Writes,
    /// This one.
    One(Op),
}

/// A number that describes a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stat {
    /// The smallest value.
    Min,
    /// The arithmetic mean.
    Mean,
    /// The largest value.
    Max,
    /// Percentile, above 0 and below 100.
    Percentile(f64),
}

/// How a measured number must relate to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// `<`
    #[serde(rename = "<")]
    Less,
    /// `<=`
    #[serde(rename = "<=")]
    AtMost,
    /// `=`
    #[serde(rename = "=")]
    Equal,
    /// `>=`
    #[serde(rename = ">=")]
    AtLeast,
    /// `>`
    #[serde(rename = ">")]
    More,
}

/// A number out of a run's summary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// In the metric's unit: nanoseconds, operations per second, a count, a share from 0 to 1.
    pub value: f64,
    /// How many completions it rests on.
    pub samples: u64,
}

/// What a run's summary must be able to say so that expectations can be judged.
pub trait Measurements {
    /// The metric in one phase, or over all phases that are not a warm-up (`None`: asked for counts and whole-run metrics only).
    /// `None` when it was not measured at all; `samples: 0` when it was and nothing came.
    fn measured(&self, phase: Option<&str>, metric: &Metric) -> Option<Measured>;
}

/// How an expectation turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The expectation as written.
    pub text: String,
    /// Whether it was met.
    pub met: bool,
    /// What was measured, where, from how many samples; or why nothing could be said.
    pub detail: String,
}

impl std::fmt::Display for Judged {
    /// `FAILED response.get.p99 < 5ms: measured 7.31 ms (phase steady, 120000 samples)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", if self.met { "met" } else { "FAILED" }, self.text, self.detail)
    }
}

impl Expectation {
    /// Reads one expectation. The error says what was expected.
    pub fn parse(text: &str) -> Result<Expectation, String> {
        let _ = text;
        unimplemented!()
    }

    /// Judges it. `phases` are the spec's.
    pub fn judge(&self, phases: &[crate::spec::Phase], run: &dyn Measurements) -> Judged {
        let _ = (phases, run);
        unimplemented!()
    }
}

/// How many samples a percentile needs before it is worth printing: ten beyond it.
pub fn samples_needed(percentile: f64) -> u64 {
    (10.0 / (1.0 - percentile / 100.0) - 1e-6).ceil() as u64
}
