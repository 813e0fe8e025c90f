//! What a member does that has reason to think that its state is wrong.
//!
//! **Transactions are missing** ([`Doubt::Missing`]: recovery has found a hole). The member tells no vote that counts,
//! stands for nothing and proves nothing: its vote and its acknowledgement of an epoch name zxid −1, which ours
//! and Apache's members leave out of every quorum and answer with the whole state (SNAP). So the others elect
//! a leader without it, and what was acknowledged is safe as long as a quorum is whole. With the whole state on its way
//! to the disk the doubt is over.
//!
//! **The tree's digest differs** ([`Doubt::Differs`]: from the one that came with a transaction). The log may be whole,
//! and who computed the digest may be the one that is wrong (Apache's members have done so), so this must never stop an
//! ensemble. Such a member asks its leader for the whole state once for each leader and epoch, and only while a quorum
//! goes on without it; members that see the difference at the same time ask one after the other. If the digest
//! differs again, it serves on and says so. In an election it is silent at first, so that others are
//! elected; then it votes for others; then it stands itself. A digest that agrees again ends the doubt: it is one of
//! the whole tree.

use zoometry_wire::Zxid;

use super::{Action, Base, ServerId, Why};

/// Why a member does not trust its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Transactions are missing in it.
    Missing,
    /// Its digest is not the one that came with the last transaction.
    Differs,
}

/// A member's voice in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Voice {
    /// It waits for a leader whom the others elect.
    Silent,
    /// It votes for others whose history is not behind its own.
    Yields,
    /// It votes and may be elected.
    #[default]
    Full,
}

/// What a member knows of its state's faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubts {
    missing: bool,
    differs: bool,
    /// The leader and the epoch that have given the whole state for a doubt.
    given: Option<(ServerId, i64)>,
    /// It differs although the whole state was given.
    is_excused: bool,
    pub(super) voice: Voice,
    /// When a voice that is not full rises, ms.
    rises_ms: u64,
    /// When a follower may leave for the whole state, ms; `None`: it has not thought of it.
    leaves_ms: Option<u64>,
    /// A quorum goes on without this member, as far as it can see.
    pub(super) others_suffice: bool,
}

impl Doubts {
    pub(super) fn add(&mut self, doubt: Doubt) {
        match doubt {
            Doubt::Missing => self.missing = true,
            Doubt::Differs => self.differs = true,
        }
    }

    /// Whether there is a reason to ask for the whole state.
    pub(super) fn any(&self) -> bool {
        self.missing || self.differs
    }

    /// Whether the state is known to be wrong.
    pub(super) fn is_missing_some(&self) -> bool {
        self.missing
    }

    /// An election begins.
    pub(super) fn look(&mut self, now_ms: u64, wait_ms: u64) {
        let hopes = self.differs && !self.is_excused;
        self.voice = if self.missing || hopes { Voice::Silent } else { Voice::Full };
        self.rises_ms = now_ms + wait_ms;
        self.leaves_ms = None;
    }

    /// Whether an election must begin anew, with a stronger voice. `is_quorum_there`: members of a quorum can be
    /// reached, so that a leader could have been found.
    pub(super) fn rises(&mut self, now_ms: u64, wait_ms: u64, is_quorum_there: bool) -> bool {
        if self.voice == Voice::Full || self.missing {
            return false;
        }
        if !is_quorum_there {
            self.rises_ms = now_ms + wait_ms;
        }
        if self.differs && now_ms < self.rises_ms {
            return false;
        }
        self.rises_ms = now_ms + wait_ms;
        self.voice = if self.voice == Voice::Silent && self.differs { Voice::Yields } else { Voice::Full };
        true
    }

    /// The whole state of a leader is on its way to the disk; `was_asked`: because it was asked for.
    pub(super) fn settle(&mut self, leader: ServerId, epoch: i64, was_asked: bool) {
        let given = if was_asked { Some((leader, epoch)) } else { self.given };
        *self = Self { given, ..Self::default() };
    }

    /// The tree's digest was compared behind a transaction, on a learner of that leader in that epoch.
    pub(super) fn compared(
        &mut self,
        zxid: Zxid,
        agrees: bool,
        leader: Option<(ServerId, i64)>,
        out: &mut Vec<Action>,
    ) {
        if agrees {
            (self.differs, self.is_excused, self.leaves_ms) = (false, false, None);
            return;
        }
        self.is_excused = leader.is_some() && leader == self.given;
        if !self.differs {
            let again = self.is_excused;
            out.push(Action::Tell(if again { Why::DiffersAgain(zxid) } else { Why::Differs(zxid) }));
        }
        self.differs = true;
    }

    /// Whether a follower of that leader leaves now, to come again for the whole state.
    pub(super) fn leaves(&mut self, now_ms: u64, leader: ServerId, epoch: i64, pause_ms: u64) -> bool {
        if !self.differs || self.given == Some((leader, epoch)) {
            return false;
        }
        let leaves_ms = *self.leaves_ms.get_or_insert(now_ms + pause_ms);
        now_ms >= leaves_ms && self.others_suffice
    }
}

impl Base {
    /// Members that differ at the same time leave one after the other: so long after the first sight of it.
    pub(super) fn pause_before_leaving_ms(&self, leader: ServerId) -> u64 {
        let others = self.electorate.voters.iter().filter(|voter| **voter != leader);
        let rank = others.take_while(|voter| **voter < self.electorate.me).count() as u64;
        (rank + 1) * self.settings.tick_ms
    }
}
