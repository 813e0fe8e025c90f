//! What was acknowledged, so that at the end it can be looked for.
//!
//! Per key: the highest zxid of an acknowledged write, how many writes were acknowledged, and how many have an unknown
//! outcome. At the end the znode's `mzxid` must not be below the former and its data `version` (0 when the run
//! created it, one more with every write) not below the latter. Per session: the znodes that it was
//! told exist; one that is not there when it is to be deleted is as lost as one that is not there at the end.
//!
//! What this can miss: a lost write hidden by as many writes whose acknowledgement we never got and that did take effect (their number
//! is reported beside it), and an acknowledged delete that came back.

use super::views::KEYS_MAX;
use rustc_hash::FxHashMap;
use zoometry_wire::{Stat, Zxid};

/// What one key's znode must show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The highest zxid of a write that was acknowledged.
    pub(crate) zxid: Zxid,
    /// Acknowledged writes.
    pub(crate) writes: u32,
    /// Writes whose outcome is unknown.
    pub(crate) unknown: u32,
}

impl Acknowledged {
    fn merge(&mut self, other: &Self) {
        self.zxid = self.zxid.max(other.zxid);
        self.writes += other.writes;
        self.unknown += other.unknown;
    }

    /// How many acknowledged writes are certainly missing from a znode with this Stat (`None`: it is gone).
    pub(crate) fn missing_from(&self, stat: Option<&Stat>) -> u64 {
        let Some(stat) = stat else { return u64::from(self.writes) };
        let short = i64::from(self.writes) - i64::from(stat.version);
        let behind = stat.mzxid < self.zxid;
        (short.max(0) as u64).max(u64::from(behind))
    }
}

/// One worker's, or everybody's.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By key: a write costs no look-up.
    near: Vec<Acknowledged>,
    /// Keys behind those.
    far: FxHashMap<u64, Acknowledged>,
    /// Znodes that were not there any more when they were to be deleted.
    gone: u64,
    first_gone: Option<String>,
}

impl Ledger {
    /// For so many keys.
    pub(super) fn new(keys: u64) -> Ledger {
        Ledger { near: vec![Acknowledged::default(); keys.min(KEYS_MAX) as usize], ..Ledger::default() }
    }

    #[inline]
    fn entry(&mut self, key: u64) -> &mut Acknowledged {
        match self.near.get_mut(key as usize) {
            Some(entry) => entry,
            None => self.far.entry(key).or_default(),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u64, &Acknowledged)> {
        let near = self.near.iter().enumerate().map(|(key, entry)| (key as u64, entry));
        near.chain(self.far.iter().map(|(key, entry)| (*key, entry)))
    }

    /// Writes to these keys may be acknowledged next: see [`Views::expect`](super::views::Views::expect).
    #[inline]
    pub(super) fn expect(&self, keys: impl Iterator<Item = u64>) {
        let writes = |entry: &Acknowledged| entry.writes;
        let read = keys.map(|key| self.near.get(key as usize).map_or(0, writes));
        std::hint::black_box(read.fold(0, |all, one| all | one));
    }

    /// A write to the key was acknowledged.
    #[inline]
    pub(super) fn acknowledged(&mut self, key: u64, zxid: Zxid) {
        let entry = self.entry(key);
        entry.zxid = entry.zxid.max(zxid);
        entry.writes += 1;
    }

    /// A write to the key was lost sight of.
    pub(super) fn unknown(&mut self, key: u64) {
        self.entry(key).unknown += 1;
    }

    /// A znode whose creation was acknowledged was not there when its session deleted it.
    pub(super) fn gone(&mut self, path: String) {
        self.gone += 1;
        self.first_gone.get_or_insert(path);
    }

    /// How many there were, and the first of them.
    pub(crate) fn all_gone(&self) -> (u64, Option<&str>) {
        (self.gone, self.first_gone.as_deref())
    }

    /// Adds another worker's.
    pub(super) fn merge(&mut self, other: Ledger) {
        self.gone += other.gone;
        let keys = self.near.len().max(other.near.len());
        self.near.resize(keys, Acknowledged::default());
        for (key, theirs) in other.entries().filter(|(_, theirs)| theirs.writes + theirs.unknown > 0) {
            self.entry(key).merge(theirs);
        }
        self.first_gone = self.first_gone.take().or(other.first_gone);
    }

    /// Keys with at least one acknowledged write, ascending.
    pub(crate) fn acknowledged_keys(&self) -> Vec<(u64, Acknowledged)> {
        let mut keys: Vec<_> = self.entries().filter(|(_, a)| a.writes > 0).map(|(k, a)| (k, *a)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// Writes whose outcome is unknown, over all keys.
    pub(crate) fn unknown_total(&self) -> u64 {
        self.entries().map(|(_, a)| u64::from(a.unknown)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_not_there_is_missing() {
        let mut ledger = Ledger::new(4);
        for zxid in [5, 9, 7] {
            ledger.acknowledged(3, Zxid(zxid));
        }
        let mut second = Ledger::default();
        second.acknowledged(3, Zxid(8));
        second.unknown(4);
        ledger.merge(second);
        let keys = ledger.acknowledged_keys();
        assert_eq!(keys, [(3, Acknowledged { zxid: Zxid(9), writes: 4, unknown: 0 })]);
        assert_eq!(ledger.unknown_total(), 1);
        let stat = |mzxid, version| Stat { mzxid: Zxid(mzxid), version, ..Default::default() };
        let (_, key) = keys[0];
        assert_eq!(key.missing_from(Some(&stat(9, 4))), 0);
        assert_eq!(key.missing_from(Some(&stat(12, 6))), 0, "later writes");
        assert_eq!(key.missing_from(Some(&stat(8, 4))), 1, "the last one is not there");
        assert_eq!(key.missing_from(Some(&stat(12, 2))), 2, "two versions short");
        assert_eq!(key.missing_from(None), 4);
    }
}
