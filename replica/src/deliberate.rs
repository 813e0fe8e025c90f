//! Mistakes on purpose: the proof that the simulator's judges bite. Each is a known way to get this protocol
//! wrong, most of them from Apache's bug reports, and one of them can be chosen at run time.
//!
//! Only with the feature `deliberate-bugs`, which nothing but the simulator's proof turns on. Without it
//! [`chosen`] is `false` for the compiler, and the hooks are not there.
//!
//! One known mistake is not here because nobody can see it: to take in a client that has seen more than the
//! member has. A session that comes from elsewhere is opened by the leader's answer, which travels behind every
//! commit before it, so the member has caught up by then.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A transaction is acknowledged when it has been given to the disk.
    AckBeforeSync,
    /// The leader's own acknowledgement is enough for a commit.
    CommitWithoutQuorum,
    /// TRUNC is taken for DIFF: what was never committed stays.
    SkipTrunc,
    /// Votes are compared by zxid and id alone.
    ForgetEpochInVotes,
    /// A watch event is sent behind the reply that shows the new state.
    FireWatchLate,
    /// NEWLEADER is acknowledged before the history behind it is on the disk (ZOOKEEPER-4643, 4646).
    AckNewLeaderEarly,
    /// ACKEPOCH goes out before the accepted epoch is on the disk (ZOOKEEPER-3911).
    AckEpochEarly,
    /// The current epoch is written before the history that it stands for (ZOOKEEPER-4646).
    EpochBeforeHistory,
    /// Requests of a session are taken from wherever they come.
    ObeyTheMoved,
    /// A learner answers `sync` without asking its leader.
    AnswerSyncAtOnce,
    /// The leader does not listen to the sessions in learners' pings.
    DeafToTouches,
    /// Applying counts a parent's children itself, so what a fuzzy snapshot holds already counts twice.
    CountWhileApplying,
    /// A learner that is being synchronised is not told what is proposed and not yet committed.
    HoleInSync,
    /// A member that has found its leader names the epoch with it that it had itself before (ZOOKEEPER-1732).
    OwnEpochInVotes,
    /// Reads do not wait for the writes in front of them.
    ReadJumpsTheQueue,
    /// A state from a leader that is lost again is kept and voted with, though it is in memory alone.
    KeepUnstoredSnapshot,
    /// A member goes on hearing a session's old connection until the leader has said that the session lives.
    EvictLate,
    /// A session's end forgets the ephemerals that are proposed and not yet applied.
    ForgetProposedEphemerals,
    /// A session's client is let in on a learner while what it asked for before is not yet committed.
    RevalidateAtOnce,
    /// A hole that recovery has found in the log is voted with, led with and served.
    TrustTheHole,
    /// What is acknowledged counts, whoever acknowledges it: observers, and ids that no voter has.
    CountTheUnlisted,
    /// A serving leader makes way for any learner that says it has accepted a later epoch.
    BelieveEpochs,
}

impl Bug {
    /// Every mistake.
    pub const ALL: &[Bug] = &[
        Bug::AckBeforeSync,
        Bug::CommitWithoutQuorum,
        Bug::SkipTrunc,
        Bug::ForgetEpochInVotes,
        Bug::FireWatchLate,
        Bug::AckNewLeaderEarly,
        Bug::AckEpochEarly,
        Bug::EpochBeforeHistory,
        Bug::ObeyTheMoved,
        Bug::AnswerSyncAtOnce,
        Bug::DeafToTouches,
        Bug::CountWhileApplying,
        Bug::HoleInSync,
        Bug::OwnEpochInVotes,
        Bug::ReadJumpsTheQueue,
        Bug::KeepUnstoredSnapshot,
        Bug::EvictLate,
        Bug::ForgetProposedEphemerals,
        Bug::RevalidateAtOnce,
        Bug::TrustTheHole,
        Bug::CountTheUnlisted,
        Bug::BelieveEpochs,
    ];
}

#[cfg(feature = "deliberate-bugs")]
mod choice {
    use super::Bug;

    std::thread_local! {
        static CHOSEN: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    }

    /// From now on this thread makes this mistake, and no other.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }

    /// Whether this mistake is to be made.
    pub fn chosen(bug: Bug) -> bool {
        CHOSEN.get() == Some(bug)
    }
}

#[cfg(feature = "deliberate-bugs")]
pub use choice::{choose, chosen};

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "deliberate-bugs"))]
#[inline(always)]
pub const fn chosen(_: Bug) -> bool {
    false
}
