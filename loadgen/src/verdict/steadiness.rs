//! Whether a phase was in a steady state: its first third against its last.
//!
//! Each third is cut into batches; a change counts when it is large (a share of the first third's mean)
//! and more than chance (standard errors of the difference of means, from the spread of the batches).

use crate::figures;
use crate::op::{Op, Outcome};
use crate::recorder::{Bins, Class};
use crate::results::{ArrivalKind, PhaseRecord, RunData};

use super::checks::Finding;
use super::{DRIFT_ERRORS_MIN, DRIFT_MEDIAN_MAX, DRIFT_RATE_MAX, Grade};

/// Batches per third.
const BATCHES: usize = 5;
/// A rate that was meant to change (ramps, steps) says nothing about steadiness.
const OFFERED_CHANGE_MAX: f64 = 0.05;

/// Rate, offered rate and median of a batch.
#[derive(Default, Clone)]
struct Batch {
    offered: f64,
    response: Bins,
}

/// The finding, if the undisturbed part of the phase drifted. Medians are those of one kind of operation: the
/// median of a mix jumps when half of it are fast reads and half are slow writes.
pub(super) fn drift(run: &RunData, at: usize, phase: &PhaseRecord, quiet_ns: u64) -> Option<Finding> {
    let rates = of_ops(run, at, phase, quiet_ns, "the rate", |op| Class::of(op).is_some(), Judge::Rate);
    let medians = Op::ALL.into_iter().filter(|op| Class::of(*op).is_some()).filter_map(|op| {
        let what = format!("the median response time of {op}");
        of_ops(run, at, phase, quiet_ns, &what, |other| other == op, Judge::Median)
    });
    rates.into_iter().chain(medians).next()
}

#[derive(PartialEq)]
enum Judge {
    Rate,
    Median,
}

fn of_ops(
    run: &RunData,
    at: usize,
    phase: &PhaseRecord,
    quiet_ns: u64,
    what: &str,
    holds: impl Fn(Op) -> bool,
    judge: Judge,
) -> Option<Finding> {
    let batches = batches(run, at, phase, quiet_ns, holds)?;
    let (first, last) = (&batches[..BATCHES], &batches[2 * BATCHES..]);
    let of = |part: &[Batch], figure: fn(&Batch) -> Option<f64>| -> Option<Vec<f64>> {
        part.iter().map(figure).collect()
    };
    let change = |figure: fn(&Batch) -> Option<f64>| change(&of(first, figure)?, &of(last, figure)?);
    let offered = change(|batch| Some(batch.offered))?;
    if phase.arrival == ArrivalKind::Open && offered.share.abs() > OFFERED_CHANGE_MAX {
        return None;
    }
    let (change, limit) = match judge {
        Judge::Rate if phase.arrival == ArrivalKind::Open => return None,
        Judge::Rate => (change(|batch| Some(batch.response.count() as f64))?, DRIFT_RATE_MAX),
        Judge::Median => {
            // A median of a handful is chance.
            let median = |batch: &Batch| {
                let sure = crate::summary::enough(batch.response.count(), 0.5);
                batch.response.quantile(0.5).filter(|_| sure).map(|ns| ns as f64)
            };
            (change(median)?, DRIFT_MEDIAN_MAX)
        }
    };
    change.exceeds(limit).then(|| {
        let text = format!(
            "{what} changed by {:+.0} % from the first to the last third (limit {}): no steady state. Warm up \
             longer, or find what grows (data, memory, a log that is being written)",
            change.share * 100.0,
            figures::percent(limit)
        );
        (Grade::Suspect, "unsteady", text)
    })
}

/// Three thirds of [`BATCHES`] each; `None` when the recording's intervals are too long for that.
fn batches(
    run: &RunData,
    at: usize,
    phase: &PhaseRecord,
    quiet_ns: u64,
    holds: impl Fn(Op) -> bool,
) -> Option<Vec<Batch>> {
    let recording = &run.recording;
    let count = 3 * BATCHES;
    let length_ns = quiet_ns.saturating_sub(phase.start_ns) / count as u64;
    // Whole intervals only: a batch with one more than its neighbour would look like a change.
    let length_ns = length_ns - length_ns % recording.interval_ns;
    if length_ns == 0 {
        return None;
    }
    let mut batches = vec![Batch::default(); count];
    let batch_of = |index: u64| {
        let middle_ns = index * recording.interval_ns + recording.interval_ns / 2;
        middle_ns.checked_sub(phase.start_ns).map(|ns| (ns / length_ns) as usize).filter(|at| *at < count)
    };
    for (key, intervals) in &recording.intervals {
        let mine = usize::from(key.phase) == at && key.outcome == Outcome::Ok && holds(key.op);
        for interval in intervals.iter().filter(|_| mine) {
            if let Some(batch) = batch_of(interval.index) {
                batches[batch].response.merge(&interval.response);
            }
        }
    }
    for ((of, op), arrivals) in &recording.arrivals {
        let mine = usize::from(*of) == at && holds(*op);
        for (index, offered, _) in arrivals.iter().filter(|_| mine) {
            if let Some(batch) = batch_of(index) {
                batches[batch].offered += f64::from(offered);
            }
        }
    }
    Some(batches)
}

struct Change {
    /// Of the first mean.
    share: f64,
    /// In standard errors of the difference.
    errors: f64,
}

impl Change {
    fn exceeds(&self, share: f64) -> bool {
        self.share.abs() > share && self.errors > DRIFT_ERRORS_MIN
    }
}

fn change(first: &[f64], last: &[f64]) -> Option<Change> {
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    };
    let ((a, error_a), (b, error_b)) = (moments(first), moments(last));
    (a > 0.0).then(|| Change {
        share: (b - a) / a,
        errors: (b - a).abs() / (error_a + error_b).sqrt().max(f64::MIN_POSITIVE),
    })
}
