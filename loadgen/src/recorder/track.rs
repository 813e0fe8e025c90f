//! When there was success at all: from this gaps are found, whichever worker or session succeeded.

use super::SUCCESS_SLOTS_MAX;

/// First and last success per slot of time. Merging is exact: the union of all workers' successes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SuccessTrack {
    slot_us: u64,
    /// (first, last) in microseconds from the slot's start; first > last: none.
    slots: Vec<(u16, u16)>,
}

const NO_SUCCESS: (u16, u16) = (u16::MAX, 0);
/// Offsets are 16 bits of microseconds. A run of more than 17 hours keeps no gaps beyond.
const SLOT_US_MAX: u64 = 64_000;

impl SuccessTrack {
    pub(super) fn new() -> SuccessTrack {
        SuccessTrack { slot_us: 1_000, slots: Vec::new() }
    }

    pub(super) fn add(&mut self, at_ns: u64) {
        let at_us = at_ns / 1_000;
        let mut slot = (at_us / self.slot_us) as usize;
        if slot >= self.slots.len() {
            while slot >= SUCCESS_SLOTS_MAX {
                if self.slot_us * 2 > SLOT_US_MAX {
                    return;
                }
                self.coalesce();
                slot = (at_us / self.slot_us) as usize;
            }
            if slot >= self.slots.len() {
                self.slots.resize(slot + 1, NO_SUCCESS);
            }
        }
        let offset = (at_us % self.slot_us) as u16;
        let (first, last) = self.slots[slot];
        self.slots[slot] = (first.min(offset), last.max(offset));
    }

    fn coalesce(&mut self) {
        let half = self.slot_us as u16;
        let pairs = self.slots.chunks(2).map(|pair| {
            let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(NO_SUCCESS));
            let b = if b.0 > b.1 { b } else { (b.0 + half, b.1 + half) };
            (a.0.min(b.0), a.1.max(b.1))
        });
        self.slots = pairs.collect();
        self.slot_us *= 2;
    }

    pub(super) fn merge(&mut self, mut other: SuccessTrack) {
        while self.slot_us < other.slot_us {
            self.coalesce();
        }
        while other.slot_us < self.slot_us {
            other.coalesce();
        }
        if self.slots.len() < other.slots.len() {
            self.slots.resize(other.slots.len(), NO_SUCCESS);
        }
        for (mine, theirs) in self.slots.iter_mut().zip(other.slots) {
            *mine = (mine.0.min(theirs.0), mine.1.max(theirs.1));
        }
    }

    /// The times (ns) without success between `from` and `to`, at slot resolution inside a slot, to the
    /// microsecond across slots.
    pub(super) fn gaps(&self, from_ns: u64, to_ns: u64, mut each: impl FnMut(u64, u64)) {
        let slot_ns = self.slot_us * 1_000;
        let mut previous = from_ns;
        let first_slot = ((from_ns / slot_ns) as usize).min(self.slots.len());
        for (slot, &(first, last)) in self.slots.iter().enumerate().skip(first_slot) {
            if first > last {
                continue;
            }
            let first_ns = slot as u64 * slot_ns + u64::from(first) * 1_000;
            let last_ns = slot as u64 * slot_ns + u64::from(last) * 1_000;
            if first_ns >= to_ns {
                break;
            }
            if first_ns > previous {
                each(previous, first_ns);
            }
            previous = previous.max(last_ns);
        }
        if previous < to_ns {
            each(previous, to_ns);
        }
    }
}
