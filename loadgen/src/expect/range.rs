//! Between which limits a metric lies whatever a cluster does: a relation that holds for all of these, or for none,
//! expects nothing.

use super::{Clock, Figure, Metric, Relation, Unit};
use crate::recorder::MAX_NS;

/// What a metric can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    unit: Unit,
    low: f64,
    /// Whether it can be exactly `low`.
    reaches_low: bool,
    /// `None`: as large as it likes.
    high: Option<f64>,
}

/// The range of a metric.
pub(super) fn of(metric: &Metric) -> Range {
    let unit = metric.unit();
    let (reaches_low, high) = match metric {
        // An answer takes time. Recorders put what is longer than their limit at the limit, in a bin of a thousandth.
        Metric::Latency(Clock::Response | Clock::Service, ..) => (false, Some(MAX_NS as f64 * 1.001)),
        Metric::Latency(Clock::Lag, ..) => (true, Some(MAX_NS as f64 * 1.001)),
        Metric::ErrorShare(_) | Metric::MissedShare(_) => (true, Some(1.0)),
        Metric::Failover(Figure::WriteGap | Figure::ReadGap, _) => (false, None),
        _ => (true, None),
    };
    Range { unit, low: 0.0, reaches_low, high }
}

impl Range {
    /// Refuses a relation that holds for the whole range, or for nothing in it.
    ///
    /// # Errors
    /// Why it expects nothing.
    pub(super) fn check(&self, relation: Relation, bound: f64) -> Result<(), String> {
        // Relations are monotonic or about one point: what the ends and the bound itself say holds in between.
        let mut can_be: Vec<f64> = vec![if self.reaches_low { self.low } else { self.low + f64::EPSILON }];
        can_be.push(self.high.unwrap_or(f64::MAX));
        can_be.extend(
            [bound, bound.next_down(), bound.next_up()].into_iter().filter(|value| self.contains(*value)),
        );
        let holds = |value: &f64| relation.holds(*value, bound);
        match (can_be.iter().all(holds), can_be.iter().any(holds)) {
            (true, _) => Err(format!("this could not fail: {}", self.words())),
            (_, false) => Err(format!("this could never hold: {}", self.words())),
            _ => Ok(()),
        }
    }

    fn contains(&self, value: f64) -> bool {
        let above = if self.reaches_low { value >= self.low } else { value > self.low };
        let whole = self.unit != Unit::Count || value.fract() == 0.0;
        above && whole && self.high.is_none_or(|high| value <= high)
    }

    fn words(&self) -> String {
        match (self.unit, self.high) {
            (Unit::Share, _) => "a share is 0 % at least and 100 % at most".to_string(),
            (Unit::Count, _) => "a count is 0 or a whole number above it".to_string(),
            (Unit::Rate, _) => "a rate is 0/s at least".to_string(),
            (Unit::Duration, Some(_)) if !self.reaches_low => {
                format!(
                    "it takes more than no time, and what takes more than {MAX_S} s is recorded as {MAX_S} s"
                )
            }
            (Unit::Duration, Some(_)) => {
                format!("it is 0 s at least, and what is more than {MAX_S} s is recorded as {MAX_S} s")
            }
            (Unit::Duration, None) => "it takes more than no time".to_string(),
        }
    }
}

const MAX_S: u64 = MAX_NS / 1_000_000_000;
