//! Why a member has given up its part, or a leader one of its learners: one sentence for whoever reads the log.
//! Nothing depends on it.

use zoometry_wire::Zxid;

use super::ServerId;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A learner's link has ended: the leader was killed, or has closed it.
    #[error("the connection to the leader, server {0}, has ended")]
    LeaderGone(ServerId),
    /// A learner has heard nothing of its leader for as long as it may be silent.
    #[error("nothing was heard of the leader, server {leader}, for {silent_ms} ms")]
    LeaderSilent {
        /// The leader.
        leader: ServerId,
        /// `syncLimit` or `zoometry.leaderSilenceMs`; `initLimit` while it is synchronised by a leader that does not ping.
        silent_ms: u64,
    },
    /// Its quorum port does not answer, and nor does its election port.
    #[error("server {0}, which was elected, cannot be reached any more")]
    LeaderUnreachable(ServerId),
    /// It leads an epoch that is older than one that this member has accepted.
    #[error(
        "server {leader} leads epoch {epoch}, and this member has accepted epoch {accepted}: it cannot follow, and waits \
         for the next election; if what the others have is to be kept, move its version-2 directories away and start it \
         again"
    )]
    LeaderOutdated {
        /// The leader.
        leader: ServerId,
        /// Its epoch.
        epoch: i64,
        /// This member's.
        accepted: i64,
    },
    /// A packet that does not belong there.
    #[error("server {0} has sent what no leader sends at that point")]
    LeaderConfused(ServerId),
    /// Transactions are missing between two that it proposed.
    #[error("server {leader} proposed {next} right behind {last}: transactions are missing between them")]
    LeaderSkipped {
        /// The leader.
        leader: ServerId,
        /// The proposal before.
        last: Zxid,
        /// The one that came.
        next: Zxid,
    },
    /// The digest that came with a transaction is not the tree's.
    #[error(
        "the tree's digest differs from the one that came with {0}: this member's state is wrong, or that digest"
    )]
    Differs(Zxid),
    /// The same, behind a whole state.
    #[error(
        "the tree's digest differs from the one that came with {0}, although this leader has sent the whole state: \
         serving on; compare the members' trees (zoometry-server dump, the digests of `hash`)"
    )]
    DiffersAgain(Zxid),
    /// A follower's state may be wrong, and a quorum goes on without it.
    #[error("leaving server {0} for a moment, to take its whole state in the place of one that may be wrong")]
    LeavesForState(ServerId),
    /// The votes that a decision rests on have changed.
    #[error("the quorum that this election counted on has gone elsewhere")]
    Deserted,
    /// A leader whose learners have not come in time.
    #[error("no quorum has come to this leader within {0} ms (initLimit)")]
    NoQuorumCame(u64),
    /// A leader whose learners are gone or silent.
    #[error("this leader has lost its quorum")]
    QuorumLost,
    /// A leader whose learners are there and acknowledge nothing.
    #[error("no quorum has acknowledged {zxid} within {waited_ms} ms (syncLimit)")]
    Unacknowledged {
        /// The oldest proposal.
        zxid: Zxid,
        /// How long it has waited.
        waited_ms: u64,
    },
    /// A leader that has given out every zxid of its epoch.
    #[error("this leader's epoch has no zxid left; a new epoch begins")]
    EpochFull,
    /// A leader has heard nothing of a learner for as long as it may be silent.
    #[error("nothing was heard of {} for {silent_ms} ms; its connection is closed", named(*learner))]
    LearnerSilent {
        /// The learner; −1 if it has never said.
        learner: ServerId,
        /// `syncLimit`, or `initLimit` while it synchronises.
        silent_ms: u64,
    },
    /// It has opened a second link: the first one counts no longer.
    #[error("server {0} has connected again; its older connection is closed")]
    LearnerAgain(ServerId),
    /// A voter says that it has accepted an epoch that cannot be.
    #[error(
        "server {learner} says that it has accepted epoch {accepted}, expected 0 to {at_most}; it is not let in: correct \
         its file acceptedEpoch, or move its version-2 directories away and start it again"
    )]
    EpochBeyondReason {
        /// The learner.
        learner: ServerId,
        /// What it says.
        accepted: i64,
        /// What is believed.
        at_most: i64,
    },
    /// It cannot be led: an old protocol, a newer configuration, more history than the leader, or nonsense.
    #[error("{} is not let in: {why}", named(*learner))]
    LearnerUnfit {
        /// The learner; −1 if it has not said.
        learner: ServerId,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Why {
    /// Whether somebody has to look at it.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::DiffersAgain(_))
    }
}

fn named(learner: ServerId) -> String {
    if learner.0 < 0 { "a learner that has not said who it is".into() } else { format!("server {learner}") }
}
