//! The recent past, in memory: what a learner that was away for a moment is brought up to date with.
//!
//! Holds the last [`HISTORY_LIMIT`] committed transactions, contiguous within each epoch (a hole would be
//! handed on to whoever is synchronised from here, and Apache's 3.9.4 and later refuse it).
//! Source: `ZKDatabase.addCommittedProposal`, `committedLog`.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_wire::Zxid;

/// Transactions kept (`zookeeper.commitLogCount`).
pub const HISTORY_LIMIT: usize = 500;

/// Committed transactions, oldest first.
#[derive(Debug, Default)]
pub struct History {
    txns: VecDeque<(Zxid, Bytes)>,
}

impl History {
    /// One more, behind all others. The oldest goes when there are too many.
    pub fn push(&mut self, zxid: Zxid, payload: Bytes) {
        if let Some((last, _)) = self.txns.back() {
            assert!(zxid > *last, "history goes forward: {zxid} behind {last}");
        }
        if self.txns.len() == HISTORY_LIMIT {
            self.txns.pop_front();
        }
        self.txns.push_back((zxid, payload));
    }

    /// Forgets everything: the state was replaced, and what was before it is not known here.
    pub fn clear(&mut self) {
        self.txns.clear();
    }

    /// Forgets what lies behind `zxid`: it was cut off.
    pub fn truncate(&mut self, zxid: Zxid) {
        while self.txns.back().is_some_and(|(last, _)| *last > zxid) {
            self.txns.pop_back();
        }
    }

    /// First and last zxid, if there are any.
    pub fn range(&self) -> Option<(Zxid, Zxid)> {
        Some((self.txns.front()?.0, self.txns.back()?.0))
    }

    /// The transactions, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Zxid, &Bytes)> {
        self.txns.iter().map(|(zxid, payload)| (*zxid, payload))
    }

    /// The last transaction at or before `zxid`.
    pub fn at_or_before(&self, zxid: Zxid) -> Option<Zxid> {
        let index = self.txns.partition_point(|(at, _)| *at <= zxid);
        index.checked_sub(1).map(|index| self.txns[index].0)
    }
}
