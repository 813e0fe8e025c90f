//! A run as expectations ask about it.

use crate::expect::{Clock, Figure, Measured, Measurements, Metric, Ops, Over, Stat};
use crate::failover::{Failover, Spread};
use crate::op::{Op, Outcome};
use crate::recorder::{Key, Total};
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
            Metric::Failover(figure, over) => self.failover(figure, over),
            Metric::Broken(promise) => self.manifest.checks.as_ref().map(|checks| {
                let record = checks.promises.of(promise);
                Measured { value: record.broken as f64, samples: record.checked.max(record.broken) }
            }),
            Metric::SessionsExpired => Some(self.sessions_expired()),
            Metric::EphemeralsLost => self.manifest.checks.as_ref().map(|checks| Measured {
                value: checks.ephemerals.lost as f64,
                samples: checks.ephemerals.checked,
            }),
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

    /// Of one figure over the rounds of faults. Not measured without a fault; a round that could not be measured counts as no data.
    fn failover(&self, figure: Figure, over: Over) -> Option<Measured> {
        let failover = Failover::of(self)?;
        let rounds = failover.rounds.len() as u64;
        let spread = match figure {
            Figure::WriteGap => failover.write_gap,
            Figure::ReadGap => failover.read_gap,
            Figure::Recovery => Spread::of(failover.rounds.iter().filter_map(|round| {
                let outage = round.writes?;
                let back_ns = outage.back_ns.unwrap_or(outage.gap.to_ns);
                Some((back_ns.saturating_sub(round.at_ns), outage.back_ns.is_none()))
            })),
        };
        let Some(spread) = spread.filter(|spread| spread.rounds == rounds && failover.unkept == 0) else {
            return Some(Measured { value: f64::NAN, samples: 0 });
        };
        let (value_ns, open) = match over {
            Over::Worst => (spread.max_ns, spread.open > 0),
            Over::Median => (spread.median_ns, spread.median_is_open()),
        };
        // What never ended is no number.
        let value = if open { f64::INFINITY } else { value_ns as f64 };
        Some(Measured { value, samples: rounds })
    }

    fn sessions_expired(&self) -> Measured {
        let expired = Outcome::Error(zoometry_wire::ErrorCode::SessionExpired);
        let of_sessions = |key: &Key| key.op == Op::Connect && key.outcome == expired;
        let totals = self.recording.totals.iter().filter(|(key, _)| of_sessions(key));
        let value = totals.map(|(_, total)| total.response.len()).sum::<u64>() as f64;
        Measured { value, samples: self.manifest.connections.values().map(|n| u64::from(*n)).sum() }
    }
}
