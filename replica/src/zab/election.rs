//! Fast leader election: whose history is the longest, and does a quorum agree?
//!
//! Every member votes for the best candidate it has heard of: highest epoch, then highest zxid, then highest
//! id. It tells everyone whenever its vote changes. When a quorum of voters holds the same vote in the same
//! round, and no better one can still be on its way, the candidate leads and the others follow.
//!
//! The machine also answers for a member that is not looking any more: to whoever still is, it says whom it
//! follows, so that a latecomer joins instead of starting a round of its own.
//!
//! Apache's members wait 200 ms after the quorum for a better vote (`finalizeWait`). Such a vote can only come
//! from a voter that has not yet voted in this round; so when every voter that can be reached has voted,
//! there is nothing to wait for, and this machine decides at once. Nor is a leader waited for that this member
//! has just given up because it was silent: its connections may still stand (it was stopped, or the network
//! swallows what it says). It counts again as soon as it says something.
//!
//! Apache's members do not answer a worse vote of their own round. Whoever was told the better one before it
//! began to look itself (it still had a leader, and forgot what it heard) then waits for the repetition,
//! 200 ms; this machine answers.
//!
//! Not here: connections (a lost message is sent again by the timer), and whether the elected one can gather
//! a quorum of followers (the leader finds that out). Source: `FastLeaderElection.java`; reference §8.2, §8.3.

use std::collections::{BTreeMap, BTreeSet};

use zoometry_wire::Zxid;
use zoometry_wire::peer::{Notification, PeerState};

use super::{EPOCH_MAX, NO_DATA, ServerId};
use crate::deliberate::{Bug, chosen};

/// How long a quorum's vote is held open for a better one from a voter that is reachable and still silent.
pub const FINALIZE_WAIT_MS: u64 = 200;

/// First pause before a leader of an epoch that is over for this member is tried again; it doubles.
const REFUSED_PAUSE_MS: u64 = 1_000;
/// Longest such pause.
const REFUSED_PAUSE_MAX_MS: u64 = 60_000;

/// A candidate, and what is known of its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Whom the vote is for.
    pub leader: ServerId,
    /// Its last logged zxid.
    pub zxid: Zxid,
    /// Its current epoch.
    pub epoch: i64,
}

impl Vote {
    /// A vote of somebody who does not vote: an observer looks for the leader only.
    pub const NONE: Self = Self { leader: ServerId(i64::MIN), zxid: Zxid(i64::MIN), epoch: i64::MIN };

    /// Epoch before history before id.
    fn is_better_than(&self, other: &Self) -> bool {
        if chosen(Bug::ForgetEpochInVotes) {
            return (self.zxid, self.leader) > (other.zxid, other.leader);
        }
        (self.epoch, self.zxid, self.leader) > (other.epoch, other.zxid, other.leader)
    }
}

/// How often an undecided election repeats its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotificationIntervals {
    /// First, ms (`fastleader.minNotificationInterval`).
    pub min_ms: u64,
    /// Where the doubling ends, ms (`fastleader.maxNotificationInterval`).
    pub max_ms: u64,
}

/// Who may vote, and what the member is.
#[derive(Debug, Clone)]
pub struct Electorate {
    /// This member.
    pub me: ServerId,
    /// The members whose votes count.
    pub voters: BTreeSet<ServerId>,
    /// Text of the committed configuration; travels in every notification.
    pub config: String,
    /// Its version, a zxid; 0 for a configuration that was never changed.
    pub config_version: i64,
}

impl Electorate {
    /// Whether these members are a quorum: more than half of the voters.
    pub fn is_quorum<'a>(&self, members: impl Iterator<Item = &'a ServerId>) -> bool {
        let counts = |member: &&ServerId| self.voters.contains(member) || chosen(Bug::CountTheUnlisted);
        members.filter(counts).count() * 2 > self.voters.len()
    }

    fn votes(&self, member: ServerId) -> bool {
        self.voters.contains(&member)
    }
}

/// What the election has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This member was elected.
    Lead,
    /// Another one was.
    Follow(ServerId),
}

/// Messages to send, in order.
pub type Outgoing = Vec<(ServerId, Notification)>;

/// What others have said outside of this member's round.
#[derive(Debug, Clone, Copy)]
struct Settled {
    state: PeerState,
    vote: Vote,
    round: i64,
}

/// A leader that this member cannot follow, as it has accepted a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    leader: ServerId,
    epoch: i64,
    /// Not tried again before.
    until_ms: u64,
    pause_ms: u64,
}

/// One member's part in elections.
#[derive(Debug)]
pub struct Election {
    electorate: Electorate,
    intervals: NotificationIntervals,
    state: PeerState,
    /// This member's own candidacy: where a round begins.
    own: Vote,
    vote: Vote,
    /// The round (logical clock); counts every election this process has entered. Not persisted.
    round: i64,
    votes: BTreeMap<ServerId, Vote>,
    /// See [`is_deserted`](Self::is_deserted).
    deserted: bool,
    settled: BTreeMap<ServerId, Settled>,
    reachable: BTreeSet<ServerId>,
    /// Leaders that were given up for their silence, and have told no vote since.
    given_up: BTreeSet<ServerId>,
    /// A member that does not stand for election votes for histories that are not behind this one: epoch and zxid.
    floor: Option<(i64, Zxid)>,
    /// When voters last said that they look for a leader, ms.
    looked_ms: BTreeMap<ServerId, u64>,
    refused: Option<Refused>,
    finalize_at_ms: Option<u64>,
    repeat_at_ms: u64,
    repeat_after_ms: u64,
}

impl Election {
    /// A member that has not looked for a leader yet.
    pub fn new(electorate: Electorate, intervals: NotificationIntervals) -> Self {
        Self {
            electorate,
            intervals,
            state: PeerState::Looking,
            own: Vote::NONE,
            vote: Vote::NONE,
            round: 0,
            votes: BTreeMap::new(),
            deserted: false,
            settled: BTreeMap::new(),
            reachable: BTreeSet::new(),
            given_up: BTreeSet::new(),
            floor: None,
            looked_ms: BTreeMap::new(),
            refused: None,
            finalize_at_ms: None,
            repeat_at_ms: u64::MAX,
            repeat_after_ms: intervals.min_ms,
        }
    }

    /// Begins a round: there is no leader (any more). `last_zxid` counts what is logged, committed or not. A member that
    /// says [`NO_DATA`] there is not elected and votes for nobody, or, with a `floor` (epoch and zxid), for
    /// members whose history is not behind that.
    pub fn look(
        &mut self,
        now_ms: u64,
        last_zxid: Zxid,
        current_epoch: i64,
        floor: Option<(i64, Zxid)>,
        out: &mut Outgoing,
    ) -> Option<Decision> {
        self.floor = floor;
        self.state = PeerState::Looking;
        // A voter may have said any number; Apache's counts on from the smallest, too, and both take up the larger one.
        self.round = self.round.wrapping_add(1);
        let me = self.electorate.me;
        self.own = if self.electorate.votes(me) {
            Vote { leader: me, zxid: last_zxid, epoch: current_epoch }
        } else {
            Vote::NONE
        };
        self.vote = self.own;
        self.votes.clear();
        self.deserted = false;
        self.settled.clear();
        self.repeat_after_ms = self.intervals.min_ms;
        self.broadcast(now_ms, out);
        self.count(now_ms)
    }

    /// This member's leader was silent for too long: until it says something, no vote is expected of it.
    pub fn give_up(&mut self, leader: ServerId) {
        self.given_up.insert(leader);
    }

    /// This member has found a leader of `epoch`, which it cannot follow. As long as that one leads that epoch nothing
    /// will change; it is tried again with growing pauses.
    pub fn refuse(&mut self, now_ms: u64, leader: ServerId, epoch: i64) {
        let before = self.refused.filter(|refused| (refused.leader, refused.epoch) == (leader, epoch));
        let pause_ms =
            before.map_or(REFUSED_PAUSE_MS, |refused| refused.pause_ms * 2).min(REFUSED_PAUSE_MAX_MS);
        self.refused = Some(Refused { leader, epoch, until_ms: now_ms + pause_ms, pause_ms });
    }

    fn is_refused(&self, now_ms: u64, vote: Vote) -> bool {
        self.refused.is_some_and(|refused| {
            refused.leader == vote.leader && vote.epoch <= refused.epoch && now_ms < refused.until_ms
        })
    }

    /// The election is over, and the member takes up its part. Its vote stays what was elected, its own epoch may be an
    /// older one: who has not heard the last word of the election yet counts what this member says now.
    pub fn conclude(&mut self, state: PeerState) {
        self.settle(state, self.vote.leader, self.vote.epoch);
    }

    /// The member has a leader: `state` is what it is doing now, and its vote's epoch is the new one, or
    /// latecomers would never see a quorum (ZOOKEEPER-1732). The vote's zxid stays as it was.
    pub fn settle(&mut self, state: PeerState, leader: ServerId, epoch: i64) {
        let epoch = if chosen(Bug::OwnEpochInVotes) { self.own.epoch } else { epoch };
        self.state = state;
        self.vote = Vote { leader, epoch, ..self.vote };
        self.finalize_at_ms = None;
        self.repeat_at_ms = u64::MAX;
    }

    /// What this member is doing.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// The round.
    pub fn round(&self) -> i64 {
        self.round
    }

    /// A connection to a member has come up or gone.
    pub fn set_reachable(
        &mut self,
        now_ms: u64,
        member: ServerId,
        up: bool,
        out: &mut Outgoing,
    ) -> Option<Decision> {
        if up {
            self.reachable.insert(member);
            if self.state == PeerState::Looking {
                out.push((member, self.message()));
            }
            return None;
        }
        self.reachable.remove(&member);
        match self.state {
            // Who has gone cannot send a better vote any more, and is not there to follow: a leader elected by it
            // would wait for it until initLimit is over. When it is back it says again what it said.
            PeerState::Looking => {
                self.votes.remove(&member);
                self.settled.remove(&member);
                self.count(now_ms)
            }
            // nor follow.
            PeerState::Leading => {
                self.votes.remove(&member);
                self.count_the_loyal();
                None
            }
            PeerState::Following | PeerState::Observing => None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64, out: &mut Outgoing) -> Option<Decision> {
        if self.state != PeerState::Looking {
            return None;
        }
        if now_ms >= self.repeat_at_ms {
            self.repeat_after_ms = (self.repeat_after_ms * 2).min(self.intervals.max_ms);
            // The vote is the same: what is held open for a better one is not held open longer.
            self.tell_all(now_ms, out);
        }
        self.count(now_ms)
    }

    /// When [`tick`](Self::tick) next has something to do, ms.
    pub fn next_ms(&self) -> u64 {
        self.finalize_at_ms.unwrap_or(u64::MAX).min(self.repeat_at_ms)
    }

    /// A member has told its vote.
    pub fn receive(
        &mut self,
        now_ms: u64,
        from: ServerId,
        said: &Notification,
        out: &mut Outgoing,
    ) -> Option<Decision> {
        self.given_up.remove(&from);
        if said.state == PeerState::Looking && self.electorate.votes(from) {
            self.looked_ms.insert(from, now_ms);
        }
        if !self.electorate.votes(from) {
            // An observer, or somebody who is not in the configuration: it looks for the leader, and its
            // own opinion does not count.
            out.push((from, self.message()));
            return None;
        }
        let vote = Vote { leader: ServerId(said.leader), zxid: said.zxid, epoch: said.peer_epoch };
        // A member without data says epoch -1. Its vote counts for nothing, but it has to be told who leads.
        let has_no_data = vote.epoch == -1 && vote.zxid == NO_DATA;
        if !has_no_data && !(0..=EPOCH_MAX).contains(&vote.epoch) {
            return None;
        }
        if self.state != PeerState::Looking {
            if said.state == PeerState::Looking {
                out.push((from, self.message()));
                self.notice_desertion(from, said.election_epoch, vote);
            }
            return None;
        }
        match said.state {
            PeerState::Looking => self.hear_looking(now_ms, from, said.election_epoch, vote, out),
            PeerState::Following | PeerState::Leading => {
                let said = Settled { state: said.state, vote, round: said.election_epoch };
                self.hear_settled(now_ms, from, said)
            }
            PeerState::Observing => None,
        }
    }

    fn hear_looking(
        &mut self,
        now_ms: u64,
        from: ServerId,
        round: i64,
        vote: Vote,
        out: &mut Outgoing,
    ) -> Option<Decision> {
        // A member whose data is not there, or not to be trusted, may not elect (reference §9.5).
        let may_elect = self.own.zxid != NO_DATA
            || self.floor.is_some_and(|(epoch, zxid)| (vote.epoch, vote.zxid) >= (epoch, zxid));
        if !self.electorate.votes(vote.leader) || vote.zxid == NO_DATA || !may_elect {
            return None;
        }
        if round < self.round {
            out.push((from, self.message()));
            return None;
        }
        if round > self.round {
            self.round = round;
            self.votes.clear();
            self.vote = if vote.is_better_than(&self.own) { vote } else { self.own };
            self.broadcast(now_ms, out);
        } else if vote.is_better_than(&self.vote) {
            self.vote = vote;
            self.broadcast(now_ms, out);
        } else if self.vote.is_better_than(&vote) {
            // It may have been told so while it still had a leader, and not have listened.
            out.push((from, self.message()));
        }
        self.votes.insert(from, vote);
        self.count(now_ms)
    }

    /// A member looks on, though this one has decided. Until a quorum follows, what was decided may come to nothing,
    /// and everybody would wait for the others until initLimit is over:
    ///
    /// - the elected one does not know of it: it has begun again, or is in a later round;
    /// - a voter has found a better candidate before it decided itself, one who came up just now;
    /// - its vote was an old one that had waited for a connection, or it has followed and was refused: it is in a
    ///   later round.
    fn notice_desertion(&mut self, from: ServerId, round: i64, vote: Vote) {
        let is_later = round > self.round;
        if from == self.vote.leader {
            self.deserted |= is_later || round == self.round && vote != self.vote;
            return;
        }
        let leads = self.state == PeerState::Leading;
        let has_turned = if leads {
            is_later || round == self.round && vote.is_better_than(&self.vote)
        } else {
            is_later && vote.leader != self.vote.leader
        };
        if !has_turned || self.votes.get(&from) != Some(&self.vote) {
            return;
        }
        self.votes.insert(from, vote);
        self.count_the_loyal();
    }

    fn count_the_loyal(&mut self) {
        let loyal = self.votes.iter().filter(|(_, vote)| **vote == self.vote).map(|(member, _)| member);
        self.deserted |= !self.electorate.is_quorum(loyal);
    }

    /// Whether those who elected this member's leader, or that leader, have turned to another election since. Of no
    /// meaning once a quorum follows.
    pub fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// Whether a quorum is there, this member among it.
    pub fn reaches_a_quorum(&self) -> bool {
        self.electorate.is_quorum(self.reachable.iter().chain([&self.electorate.me]))
    }

    /// Whether the others are a quorum with a leader, as far as can be seen here: those who can be reached and have not
    /// said within `away_ms` that they look for a leader.
    pub fn others_suffice(&self, now_ms: u64, away_ms: u64) -> bool {
        let looked =
            |other: &ServerId| self.looked_ms.get(other).is_some_and(|at_ms| now_ms < at_ms + away_ms);
        let others = self.reachable.iter().filter(|other| **other != self.electorate.me && !looked(other));
        self.electorate.is_quorum(others)
    }

    /// Whether there is an election connection to this member.
    pub fn reaches(&self, member: ServerId) -> bool {
        self.reachable.contains(&member)
    }

    /// Someone has a leader already: joined when a quorum says the same and that leader says so itself.
    fn hear_settled(&mut self, now_ms: u64, from: ServerId, said: Settled) -> Option<Decision> {
        if !self.electorate.votes(said.vote.leader) || self.is_refused(now_ms, said.vote) {
            return None;
        }
        if said.round == self.round {
            self.votes.insert(from, said.vote);
            let agree = |vote: &Vote| (vote.leader, vote.epoch) == (said.vote.leader, said.vote.epoch);
            let agreeing = self.votes.iter().filter(|(_, vote)| agree(vote)).map(|(member, _)| member);
            if self.electorate.is_quorum(agreeing) {
                self.settled.insert(from, said);
                if self.leads(said.vote.leader, said.round) {
                    return self.join(said);
                }
            }
        }
        self.settled.insert(from, said);
        let agreeing = self
            .settled
            .iter()
            .filter(|(_, other)| (other.vote.leader, other.vote.epoch) == (said.vote.leader, said.vote.epoch))
            .map(|(member, _)| member);
        if self.electorate.is_quorum(agreeing) && self.leads(said.vote.leader, said.round) {
            self.round = said.round;
            return self.join(said);
        }
        None
    }

    /// Whether the named leader says itself that it leads; of this member: whether it was elected in that
    /// very round (a restarted leader must not take an old election for its own).
    fn leads(&self, leader: ServerId, round: i64) -> bool {
        if leader == self.electorate.me {
            return round == self.round;
        }
        self.settled.get(&leader).is_some_and(|said| said.state == PeerState::Leading)
    }

    fn join(&mut self, said: Settled) -> Option<Decision> {
        self.vote = said.vote;
        self.finalize_at_ms = None;
        Some(self.decision())
    }

    fn decision(&self) -> Decision {
        if self.vote.leader == self.electorate.me {
            Decision::Lead
        } else {
            Decision::Follow(self.vote.leader)
        }
    }

    /// Does a quorum hold this member's vote, and can no better one come any more?
    fn count(&mut self, now_ms: u64) -> Option<Decision> {
        let me = self.electorate.me;
        if !self.electorate.votes(me) || self.vote.zxid == NO_DATA {
            return None;
        }
        self.votes.insert(me, self.vote);
        let agreeing = self.votes.iter().filter(|(_, vote)| **vote == self.vote).map(|(member, _)| member);
        if !self.electorate.is_quorum(agreeing) {
            self.finalize_at_ms = None;
            return None;
        }
        let voters = &self.electorate.voters;
        let silent = voters.iter().any(|voter| {
            *voter != me
                && self.reachable.contains(voter)
                && !self.given_up.contains(voter)
                && !self.votes.contains_key(voter)
        });
        let finalize_at_ms = *self.finalize_at_ms.get_or_insert(now_ms + FINALIZE_WAIT_MS);
        if silent && now_ms < finalize_at_ms {
            return None;
        }
        self.finalize_at_ms = None;
        Some(self.decision())
    }

    /// Tells everyone a vote that is news.
    fn broadcast(&mut self, now_ms: u64, out: &mut Outgoing) {
        self.finalize_at_ms = None;
        self.tell_all(now_ms, out);
    }

    fn tell_all(&mut self, now_ms: u64, out: &mut Outgoing) {
        self.repeat_at_ms = now_ms + self.repeat_after_ms;
        let message = self.message();
        let others = self.electorate.voters.iter().filter(|voter| **voter != self.electorate.me);
        out.extend(others.map(|voter| (*voter, message.clone())));
    }

    fn message(&self) -> Notification {
        Notification {
            state: self.state,
            leader: self.vote.leader.0,
            zxid: self.vote.zxid,
            election_epoch: self.round,
            peer_epoch: self.vote.epoch,
            config: self.electorate.config.clone(),
        }
    }
}
