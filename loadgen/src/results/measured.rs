//! A run as expectations ask about it.

use crate::expect::{Clock, Measured, Measurements, Metric, Ops, Stat};
use crate::op::Outcome;
use crate::recorder::{Class, Total};
use crate::summary::rate_of;

use super::RunData;

impl Measurements for RunData {
    fn measured(&self, phase: Option<&str>, metric: &Metric) -> Option<Measured> {
        let phases: Vec<usize> = match phase {
            Some(name) => vec![self.manifest.phases.iter().position(|phase| phase.name == name)?],
            None => (0..self.manifest.phases.len()).filter(|at| !self.manifest.phases[*at].warmup).collect(),
        };
        match *metric {
            Metric::Latency(clock, ops, stat) => Some(self.latency(&phases, clock, ops, stat)),
            Metric::Rate(ops) => {
                let value = rate_of(self, &phases, |op| ops.contains(op));
                Some(Measured { value, samples: self.successes(&phases, ops) })
            }
            Metric::Errors(ops) => Some(self.errors(&phases, ops)),
            Metric::ErrorShare(ops) => Some(share(self.errors(&phases, ops))),
            Metric::Missed(ops) => Some(self.missed(&phases, ops)),
            Metric::MissedShare(ops) => Some(share(self.missed(&phases, ops))),
            Metric::LostAcknowledgedWrites => self
                .manifest
                .checked_writes
                .map(|checked| Measured { value: checked.lost as f64, samples: checked.checked }),
            Metric::WriteGap => self.write_gap(&phases),
        }
    }
}

fn share(count: Measured) -> Measured {
    Measured { value: count.value / (count.samples.max(1)) as f64, ..count }
}

impl RunData {
    fn totals(&self, phases: &[usize], ops: Ops) -> impl Iterator<Item = (Outcome, &Total)> {
        self.recording
            .totals
            .iter()
            .filter(move |(key, _)| phases.contains(&usize::from(key.phase)) && ops.contains(key.op))
            .map(|(key, total)| (key.outcome, total))
    }

    fn successes(&self, phases: &[usize], ops: Ops) -> u64 {
        let ok = self.totals(phases, ops).filter(|(outcome, _)| *outcome == Outcome::Ok);
        ok.map(|(_, total)| total.response.len()).sum()
    }

    fn latency(&self, phases: &[usize], clock: Clock, ops: Ops, stat: Stat) -> Measured {
        let mut merged = Total::new();
        for (_, total) in self.totals(phases, ops).filter(|(outcome, _)| *outcome == Outcome::Ok) {
            merged.merge(total);
        }
        let histogram = match clock {
            Clock::Response => merged.response,
            Clock::Service => merged.service,
            Clock::Lag => merged.lag,
        };
        let value = match stat {
            Stat::Min => histogram.min() as f64,
            Stat::Mean => histogram.mean(),
            Stat::Max => histogram.max() as f64,
            Stat::Percentile(percent) => histogram.value_at_quantile(percent / 100.0) as f64,
        };
        Measured { value, samples: histogram.len() }
    }

    fn errors(&self, phases: &[usize], ops: Ops) -> Measured {
        let mut measured = Measured { value: 0.0, samples: 0 };
        for (outcome, total) in self.totals(phases, ops) {
            measured.samples += total.response.len();
            if outcome != Outcome::Ok {
                measured.value += total.response.len() as f64;
            }
        }
        measured
    }

    fn missed(&self, phases: &[usize], ops: Ops) -> Measured {
        let mut measured = Measured { value: 0.0, samples: 0 };
        for ((phase, op), arrivals) in &self.recording.arrivals {
            if phases.contains(&usize::from(*phase)) && ops.contains(*op) {
                measured.samples += arrivals.offered();
                measured.value += arrivals.missed() as f64;
            }
        }
        measured
    }

    /// The longest gap of writes that was still open at or after a fault of these phases. Not measured
    /// without a fault.
    fn write_gap(&self, phases: &[usize]) -> Option<Measured> {
        let inside = |at_ns: u64| {
            let phase = |at: &usize| &self.manifest.phases[*at];
            phases.iter().map(phase).any(|phase| at_ns >= phase.start_ns && at_ns < phase.end_ns)
        };
        let faults = self.events.iter().filter(|event| event.kind == "fault" && inside(event.at_ns));
        let first_ns = faults.map(|event| event.at_ns).min()?;
        let gaps: Vec<u64> = self
            .events
            .iter()
            .filter(|event| {
                event.kind == "gap" && event.target == Class::Writes.name() && inside(event.at_ns)
            })
            .filter(|event| event.at_ns + event.duration_ns > first_ns)
            .map(|event| event.duration_ns)
            .collect();
        let longest = gaps.iter().max().copied().unwrap_or(0);
        Some(Measured { value: longest as f64, samples: gaps.len() as u64 })
    }
}
