//! Every single completion around faults: what gaps and their parts are computed from, never from buckets.
//!
//! Kept from [`BEFORE_NS`] before a workload's first fault to the end of the load, at most [`COMPLETIONS_MAX`] over all workers; what
//! comes after that is counted, and the rounds of faults that it belongs to are not measured.

use crate::op::{Op, Outcome};

/// Kept so long before the first fault: the rate before it is known from this.
pub const BEFORE_NS: u64 = 5_000_000_000;
/// Kept at most, over all workers: so many can be read back, 32 bytes each.
pub const COMPLETIONS_MAX: usize = 4_000_000;

/// One operation that ended, well or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// When, on the run's clock.
    pub at_ns: u64,
    /// Since it was due.
    pub response_ns: u64,
    /// The member that its session was attached to, by its place in the list.
    pub member: u16,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
}

/// One worker's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CloseUp {
    /// Kept from here on; nothing before it is known.
    from_ns: Option<u64>,
    limit: usize,
    kept: usize,
    /// In the order in which they ended, since they were taken last.
    rows: Vec<Close>,
    /// So many more were not kept.
    pub unkept: u64,
}

impl CloseUp {
    /// Keeps what ends from now on after `from_ns`, one of `workers` shares of the limit.
    pub fn begin(&mut self, from_ns: u64, workers: u32) {
        self.from_ns = Some(from_ns);
        self.limit = COMPLETIONS_MAX / workers.max(1) as usize;
    }

    /// An operation has ended.
    #[inline]
    pub fn note(&mut self, row: Close) {
        if self.from_ns.is_none_or(|from_ns| row.at_ns < from_ns) {
            return;
        }
        if self.kept < self.limit {
            self.kept += 1;
            self.rows.push(row);
        } else {
            self.unkept += 1;
        }
    }

    /// What was kept since the last call.
    pub fn take(&mut self) -> Vec<Close> {
        std::mem::take(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_kept_and_the_rest_is_counted() {
        let row = |at_ns| Close { at_ns, response_ns: 1, member: 0, op: Op::Get, outcome: Outcome::Ok };
        let mut nobody = CloseUp::default();
        nobody.note(row(1));
        assert_eq!(nobody, CloseUp::default());
        let mut one = CloseUp::default();
        one.begin(10, 1);
        one.limit = 2;
        [9, 30, 40, 50].map(row).into_iter().for_each(|row| one.note(row));
        assert_eq!(one.take(), [30, 40].map(row));
        one.note(row(60));
        assert_eq!((one.take(), one.unkept), (Vec::new(), 2), "what was taken still counts");
    }
}
