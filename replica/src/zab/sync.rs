//! What does a learner lack, and how is it brought up to date? One pure function, table-tested.
//!
//! A learner that is further behind than [`History`] may still be within the log files; what they are good
//! for is decided by whoever reads them, with [`plan_from_log`].
//!
//! Source: `LearnerHandler.syncFollower`, `queueCommittedProposals`; reference §8.6.

use zoometry_wire::Zxid;

use super::NO_DATA;
use super::history::History;

/// How a learner is brought up to date. Behind it follow the history's transactions above `from`, and then
/// what is proposed and not yet committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// It has a prefix of the history: the rest follows.
    Diff {
        /// Transactions of the history above this one follow.
        from: Zxid,
    },
    /// It has transactions that were never committed: they go, then the rest follows.
    Trunc {
        /// The last one that it keeps; it is in the learner's log.
        to: Zxid,
    },
    /// It is further behind than the history: the log files bring it to `upto`, or a snapshot does.
    FromLog {
        /// Committed; transactions of the history above this one follow.
        upto: Zxid,
    },
    /// It gets the whole state.
    Snap,
}

/// The plan for a learner whose last zxid is `learner`. `last` is the leader's last applied zxid, the end of
/// its history.
pub fn plan(learner: Zxid, history: &History, last: Zxid) -> Plan {
    if learner == NO_DATA {
        return Plan::Snap;
    }
    if learner == last {
        return Plan::Diff { from: last };
    }
    // epoch<<32 is nobody's transaction: a member that led or followed an epoch without writes is there.
    let at_new_epoch = learner.counter() == 0;
    let (min, max) = history.range().unwrap_or((last, last));
    if learner > max && !at_new_epoch {
        // Safe across epochs too: whoever has a transaction of an epoch took over that epoch's initial
        // history, and so did every later leader; if the leader ends before it, it ends with just that.
        return Plan::Trunc { to: max };
    }
    if learner > max {
        // The learner stands at an epoch's beginning, behind everything: it lacks nothing of the history.
        return Plan::Diff { from: max };
    }
    if learner < min {
        return Plan::FromLog { upto: min };
    }
    match history.at_or_before(learner) {
        Some(known) if known == learner => Plan::Diff { from: learner },
        Some(known) if at_new_epoch => Plan::Diff { from: known },
        Some(known) if known.epoch() == learner.epoch() => Plan::Trunc { to: known },
        _ => Plan::Snap,
    }
}

/// The plan for a learner that is further behind than the history, from the log's records up to where the
/// history goes on: `known` is the last record at or before `learner`, `first` the first one behind it. The
/// caller has made sure that from `known` on nothing is missing.
pub fn plan_from_log(learner: Zxid, known: Option<Zxid>, first: Option<Zxid>) -> Plan {
    let at_new_epoch = learner.counter() == 0;
    match known {
        Some(known) if known == learner => Plan::Diff { from: learner },
        Some(known) if at_new_epoch => Plan::Diff { from: known },
        // Who has a transaction of an epoch has that epoch's history up to it, but for its own tail.
        Some(known) if known.epoch() == learner.epoch() => Plan::Trunc { to: known },
        // The log begins right where the learner stands. Of any later beginning nobody knows what was before.
        None if at_new_epoch && first == Some(learner.next()) => Plan::Diff { from: learner },
        _ => Plan::Snap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn zxid(epoch: i64, counter: i64) -> Zxid {
        Zxid(epoch << 32 | counter)
    }

    #[test]
    fn every_case_has_its_plan() {
        let mut history = History::default();
        for at in [zxid(1, 8), zxid(1, 9), zxid(2, 1), zxid(2, 2), zxid(4, 1)] {
            history.push(at, Bytes::new());
        }
        let last = zxid(4, 1);
        let cases = [
            (NO_DATA, Plan::Snap, "says that it has no data"),
            (last, Plan::Diff { from: last }, "has everything"),
            (zxid(2, 1), Plan::Diff { from: zxid(2, 1) }, "has a prefix"),
            (zxid(1, 8), Plan::Diff { from: zxid(1, 8) }, "has exactly the first"),
            (zxid(1, 7), Plan::FromLog { upto: zxid(1, 8) }, "is further behind than the history"),
            (zxid(0, 0), Plan::FromLog { upto: zxid(1, 8) }, "is empty"),
            (zxid(4, 3), Plan::Trunc { to: zxid(4, 1) }, "is ahead in the same epoch"),
            (zxid(5, 3), Plan::Trunc { to: last }, "is ahead in an epoch of its own"),
            (zxid(5, 0), Plan::Diff { from: last }, "is at the beginning of a later epoch"),
            (zxid(2, 0), Plan::Diff { from: zxid(1, 9) }, "is at the beginning of an epoch with writes"),
            (zxid(3, 0), Plan::Diff { from: zxid(2, 2) }, "is at the beginning of an epoch without writes"),
            (zxid(2, 7), Plan::Trunc { to: zxid(2, 2) }, "has a tail that was never committed"),
            (zxid(3, 7), Plan::Snap, "has such a tail, of an epoch that left nothing to cut back to"),
        ];
        for (learner, expected, who) in cases {
            assert_eq!(plan(learner, &history, last), expected, "a learner that {who}");
        }
    }

    #[test]
    fn without_a_history_only_equals_get_a_diff() {
        let history = History::default();
        let last = zxid(2, 5);
        assert_eq!(plan(last, &history, last), Plan::Diff { from: last });
        assert_eq!(plan(zxid(2, 4), &history, last), Plan::FromLog { upto: last });
        assert_eq!(plan(zxid(2, 6), &history, last), Plan::Trunc { to: last });
        assert_eq!(plan(zxid(3, 0), &history, last), Plan::Diff { from: last });
        assert_eq!(plan(NO_DATA, &history, Zxid(0)), Plan::Snap);
    }

    #[test]
    fn the_log_serves_whoever_it_knows() {
        let (known, first) = (|counter| Some(zxid(2, counter)), Some(zxid(2, 6)));
        let cases = [
            (zxid(2, 5), known(5), first, Plan::Diff { from: zxid(2, 5) }),
            (zxid(2, 9), known(5), Some(zxid(3, 1)), Plan::Trunc { to: zxid(2, 5) }),
            (zxid(3, 0), known(5), Some(zxid(3, 1)), Plan::Diff { from: zxid(2, 5) }),
            (zxid(3, 2), known(5), Some(zxid(4, 1)), Plan::Snap),
            (zxid(2, 5), None, first, Plan::Snap),
            (zxid(2, 0), None, Some(zxid(2, 1)), Plan::Diff { from: zxid(2, 0) }),
            (zxid(2, 0), None, Some(zxid(2, 2)), Plan::Snap),
            (zxid(1, 0), None, Some(zxid(2, 1)), Plan::Snap),
            (zxid(0, 0), None, Some(zxid(0, 1)), Plan::Diff { from: zxid(0, 0) }),
            (zxid(0, 0), None, None, Plan::Snap),
            (NO_DATA, None, Some(zxid(0, 1)), Plan::Snap),
        ];
        for (learner, known, first, expected) in cases {
            assert_eq!(plan_from_log(learner, known, first), expected, "{learner}, {known:?}, {first:?}");
        }
    }
}
