//! From the workers' parts to whole intervals.

use std::collections::BTreeMap;

use super::{Closed, Key, Part};
use crate::op::Op;

/// An interval with what all workers saw in it.
#[derive(Debug, Default)]
pub struct Whole {
    /// It begins at `index` times the interval's length.
    pub index: u64,
    /// By the time done.
    pub rows: BTreeMap<Key, Closed>,
    /// Offered and missed, by the time due, as far as known when the interval was over.
    pub arrivals: BTreeMap<(u16, Op), (u32, u32)>,
    /// First and last success of each millisecond that had one, by class, ascending.
    pub successes: [Vec<(u64, u64)>; 2],
}

/// Operations that were due in an interval that has been given away: they were answered, or missed, later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// The interval.
    pub index: u64,
    /// Phase and operation.
    pub of: (u16, Op),
    /// How many.
    pub offered: u32,
    /// Of these, never sent.
    pub missed: u32,
}

/// Puts parts together. An interval is whole when every worker has handed over everything before its end. Intervals without anything
/// in them are whole as well: none is left out between the first one with anything and the last.
pub struct Merger {
    interval_ns: u64,
    /// Up to when each worker has handed over everything.
    until_ns: Vec<u64>,
    open: BTreeMap<u64, Whole>,
    /// The interval that is given away next; `None` before the first.
    next: Option<u64>,
    late: Vec<Late>,
}

impl Merger {
    /// For so many workers; all record in intervals of the same length.
    pub fn new(interval_ns: u64, workers: usize) -> Merger {
        Merger {
            interval_ns,
            until_ns: vec![0; workers],
            open: BTreeMap::new(),
            next: None,
            late: Vec::new(),
        }
    }

    /// Intervals from this one on are given away, also those before anything was recorded.
    pub fn starting_at(mut self, index: u64) -> Merger {
        self.next = Some(index);
        self
    }

    /// Everything of a worker that ended before `until_ns` is in this part and those before it.
    pub fn add(&mut self, worker: usize, until_ns: u64, part: Part) {
        let first = self.next.unwrap_or(0);
        for (key, closed) in part.intervals {
            // What is reported late counts in the first interval that is still open.
            self.open(closed.index.max(first)).rows.entry(key).or_default().merge(&closed);
        }
        for (of, arrivals) in part.arrivals {
            for (index, offered, missed) in arrivals.iter() {
                if index < first {
                    self.late.push(Late { index, of, offered, missed });
                } else {
                    let sum = self.open(index).arrivals.entry(of).or_default();
                    *sum = (sum.0 + offered, sum.1 + missed);
                }
            }
        }
        for (class, spans) in part.successes.into_iter().enumerate() {
            for span in spans {
                let index = (span.0 / self.interval_ns).max(first);
                self.open(index).successes[class].push(span);
            }
        }
        self.until_ns[worker] = self.until_ns[worker].max(until_ns);
    }

    fn open(&mut self, index: u64) -> &mut Whole {
        self.open.entry(index).or_insert_with(|| Whole { index, ..Whole::default() })
    }

    /// Up to when all workers have handed over everything.
    pub fn until_ns(&self) -> u64 {
        self.until_ns.iter().copied().min().unwrap_or(u64::MAX)
    }

    /// The next whole interval, if there is one.
    pub fn next_whole(&mut self) -> Option<Whole> {
        let first = self.open.first_key_value().map(|(index, _)| *index);
        let next = self.next.or(first)?;
        let until_ns = self.until_ns();
        let is_over = until_ns == u64::MAX && first.is_none();
        if is_over || (next + 1).saturating_mul(self.interval_ns) > until_ns {
            return None;
        }
        self.next = Some(next + 1);
        let mut whole = match self.open.remove(&next) {
            Some(whole) => whole,
            None => Whole { index: next, ..Whole::default() },
        };
        whole.rows.values_mut().for_each(|closed| closed.index = next);
        whole.successes = whole.successes.map(in_order);
        Some(whole)
    }

    /// What came too late for its interval since the last call.
    pub fn take_late(&mut self) -> Vec<Late> {
        std::mem::take(&mut self.late)
    }
}

/// Spans of several workers as one: those of the same millisecond are joined.
fn in_order(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let same = next.0 / 1_000_000 == kept.0 / 1_000_000;
        if same {
            kept.1 = kept.1.max(next.1);
        }
        same
    });
    spans
}
