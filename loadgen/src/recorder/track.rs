//! When there was success at all: from this gaps are found, whichever worker or session succeeded.

/// Resolution within which only the first and the last success are known.
const SLOT_US: u64 = 1_000;

/// First and last success per millisecond since the last hand-over.
#[derive(Debug, Default)]
pub(super) struct SuccessTrack {
    base: u64,
    /// (first, last) in microseconds from the slot's start; first > last: none.
    slots: Vec<(u16, u16)>,
}

const NO_SUCCESS: (u16, u16) = (u16::MAX, 0);

impl SuccessTrack {
    #[inline]
    pub(super) fn add(&mut self, at_ns: u64) {
        let at_us = at_ns / 1_000;
        let slot = at_us / SLOT_US;
        if self.slots.is_empty() {
            self.base = slot;
        }
        // Completions come in the order of time, so nothing lies before the base.
        let at = slot.saturating_sub(self.base) as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, NO_SUCCESS);
        }
        let offset = (at_us % SLOT_US) as u16;
        let (first, last) = self.slots[at];
        self.slots[at] = (first.min(offset), last.max(offset));
    }

    /// First and last success (ns) of every slot that had one, ascending; forgets them.
    pub(super) fn take(&mut self) -> Vec<(u64, u64)> {
        let base = self.base;
        let ns = |slot: usize, us: u16| ((base + slot as u64) * SLOT_US + u64::from(us)) * 1_000;
        let filled = self.slots.drain(..).enumerate().filter(|(_, (first, last))| first <= last);
        filled.map(|(slot, (first, last))| (ns(slot, first), ns(slot, last))).collect()
    }
}
