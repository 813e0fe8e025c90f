//! The recent past, in memory: what a learner that was away for a moment is brought up to date with.
//!
//! Holds the last `commitLogCount` committed transactions, contiguous within each epoch (a hole would be
//! handed on to whoever is synchronised from here, and Apache's 3.9.4 and later refuse it), but no more than
//! [`HISTORY_BYTES_MAX`] of them: a learner is sent all that it lacks of them at once, and a link closes at so many
//! unsent bytes. Who is further behind is brought up to date from the log files, or with the whole state.
//! Source: `ZKDatabase.addCommittedProposal`, `committedLog`.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_wire::Zxid;

/// Transactions kept if nobody says otherwise, and the least that may be asked for. Source: `ZKDatabase`,
/// `commitLogCount`.
pub const HISTORY_DEFAULT: usize = 500;

/// Bytes of transactions kept, at most; the newest is kept however long it is.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// Committed transactions, oldest first.
#[derive(Debug)]
pub struct History {
    txns: VecDeque<(Zxid, Bytes)>,
    limit: usize,
    /// Of the transactions that are kept.
    bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self::new(HISTORY_DEFAULT)
    }
}

impl History {
    /// An empty one that keeps at most so many.
    pub fn new(limit: usize) -> Self {
        Self { txns: VecDeque::new(), limit, bytes: 0 }
    }

    /// One more, behind all others. The oldest goes when there are too many.
    pub fn push(&mut self, zxid: Zxid, payload: Bytes) {
        if let Some((last, _)) = self.txns.back() {
            assert!(zxid > *last, "history goes forward: {zxid} behind {last}");
        }
        self.bytes += payload.len();
        self.txns.push_back((zxid, payload));
        while self.txns.len() > self.limit || self.txns.len() > 1 && self.bytes > HISTORY_BYTES_MAX {
            let oldest = self.txns.pop_front();
            self.bytes -= oldest.map_or(0, |(_, payload)| payload.len());
        }
    }

    /// Forgets everything: the state was replaced, and what was before it is not known here.
    pub fn clear(&mut self) {
        self.txns.clear();
        self.bytes = 0;
    }

    /// Forgets what lies behind `zxid`: it was cut off.
    pub fn truncate(&mut self, zxid: Zxid) {
        while let Some((_, payload)) = self.txns.pop_back_if(|(last, _)| *last > zxid) {
            self.bytes -= payload.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_more_than_asked_for() {
        for limit in [HISTORY_DEFAULT, 700] {
            let mut history = History::new(limit);
            for at in 1..=2000 {
                history.push(Zxid(at), Bytes::new());
                let first = (at - limit as i64).max(0) + 1;
                assert_eq!(history.range(), Some((Zxid(first), Zxid(at))), "of {limit}");
            }
            assert_eq!(history.iter().count(), limit);
        }
    }
    /// All of them have to fit into what may be unsent on a link.
    #[test]
    fn long_ones_are_fewer() {
        let long = Bytes::from(vec![0; HISTORY_BYTES_MAX / 10]);
        let mut history = History::default();
        for at in 1..=100 {
            history.push(Zxid(at), long.clone());
        }
        assert_eq!(history.range(), Some((Zxid(91), Zxid(100))));
        history.truncate(Zxid(95));
        for at in 101..=105 {
            history.push(Zxid(at), long.clone());
        }
        assert_eq!(history.range(), Some((Zxid(91), Zxid(105))), "what was cut off counts no longer");
        history.push(Zxid(106), Bytes::from(vec![0; HISTORY_BYTES_MAX + 1]));
        assert_eq!(history.range(), Some((Zxid(106), Zxid(106))), "the newest is kept");
        history.clear();
        history.push(Zxid(1), long.clone());
        history.push(Zxid(2), long);
        assert_eq!(history.range(), Some((Zxid(1), Zxid(2))));
    }
}
