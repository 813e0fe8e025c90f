//! Consensus: ZooKeeper's atomic broadcast, as a value. Events in, actions out.
//!
//! [`Zab`] is one member's part in the protocol: who leads ([`election`]), that a quorum agrees on the epoch
//! and on the history before it, and that proposals are committed in order once a quorum has them on disk
//! ([`leader`], [`learner`]). It knows transactions as opaque bytes with a zxid, links as numbers, and time as
//! milliseconds. It does no I/O and never waits: what must be on the disk before something may be said is
//! said when the disk's event arrives. No action carries a condition.
//!
//! Whoever runs it performs the actions *in their order*. The disk's actions go into one first-in-first-out
//! queue, so "transactions, then epoch, then acknowledgement" is an order in that queue.
//!
//! Sources: Junqueira, Reed, Serafini, "Zab" (DSN 2011); `FastLeaderElection.java`, `Leader.java`,
//! `LearnerHandler.java`, `Learner.java`, `Follower.java`, `QuorumPeer.java`; reference §8.

mod doubt;
pub mod election;
pub mod history;
pub mod leader;
pub mod learner;
pub mod sync;
mod why;

use bytes::Bytes;
use zoometry_wire::Zxid;
use zoometry_wire::peer::{LearnerInfo, Notification, PacketKind, PeerState, QuorumPacket};

use crate::deliberate::{Bug, chosen};
pub use doubt::Doubt;
use doubt::{Doubts, Voice};
use election::{Decision, Election, Electorate, NotificationIntervals, Outgoing};
use history::History;
use leader::Leader;
use learner::Learner;
pub use why::Why;

/// A member's number in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub i64);

impl std::fmt::Display for ServerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection on the quorum port. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub u64);

/// What a member says in the place of its last zxid when its data is not there (`zookeeper.db.autocreate`), or not
/// to be trusted ([`Doubt`]): what it acknowledges elects nobody, and it is sent the whole state.
pub const NO_DATA: Zxid = Zxid(-1);

/// The last epoch: in the next one zxids would be negative.
pub const EPOCH_MAX: i64 = i32::MAX as i64;

/// So many of the last epochs nobody's word takes away: they are kept for elections that take place. An epoch among them
/// is believed only close behind this member's own. Below them any number is: a member may have been in elections that
/// the others know nothing of, and who is not believed is not let in.
pub const EPOCHS_KEPT: i64 = 1 << 20;

/// How far ahead of this member's own an epoch among the last [`EPOCHS_KEPT`] is believed. An election that fails adds
/// one.
pub const EPOCHS_AHEAD_MAX: i64 = 16;

/// Which of the two epoch files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EpochKind {
    /// `acceptedEpoch`: no leader of an older epoch is followed any more.
    Accepted,
    /// `currentEpoch`: the epoch whose initial history this member has.
    Current,
}

/// Everything that can wake the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The election connection to a member has come up or gone.
    Reachable(ServerId, bool),
    /// A member has told its vote.
    Vote(ServerId, Notification),
    /// A learner has connected to this member's quorum port.
    Accepted(Link),
    /// What [`Action::Connect`] asked for: a connection to that member's quorum port.
    Connected(ServerId, Link),
    /// That member could not be reached. A leader is tried again: it opens its port when it has decided itself.
    Unreachable(ServerId),
    /// A packet has arrived. A SNAP packet arrives when the stream behind it has been read whole.
    Packet(Link, QuorumPacket),
    /// Bytes have moved on a connection although no packet is whole: a snapshot is on its way.
    Moved(Link),
    /// A connection on the quorum port has ended.
    Closed(Link),
    /// The log is on the disk up to here.
    Durable(Zxid),
    /// An epoch file is on the disk.
    EpochStored(EpochKind, i64),
    /// What [`Action::StoreSnapshot`] asked for is on the disk.
    SnapshotStored,
    /// The log was cut and the state reloaded.
    Truncated,
    /// The log cannot be cut there ([`StorageError::refuses_cut`](crate::storage::StorageError::refuses_cut)):
    /// files and state are as they were.
    TruncateRefused,
    /// This member leads and has prepared a transaction; its zxid is one above the last.
    Propose(Zxid, Bytes),
    /// What a learner is answered (its `sync`, say), when everything proposed so far is committed.
    Answer(Link, QuorumPacket),
    /// The tree's digest was compared with the one that came with this transaction: they agree or they differ. Told
    /// when that has changed.
    Compared(Zxid, bool),
    /// This member must not go on leading: its epoch has no zxids left. Or what it is part of comes to nothing.
    Resign(Why),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell a member this one's vote, over the election connection.
    Notify(ServerId, Notification),
    /// Connect to a member's quorum port.
    Connect(ServerId),
    /// Send a packet.
    Send(Link, QuorumPacket),
    /// Send the whole state as it is now; packets that follow go behind it.
    SendSnapshot(Link),
    /// Bring a learner that stands at `learner` up to `upto` from the log files: DIFF(`upto`) or TRUNC, then
    /// each transaction as PROPOSAL and COMMIT; packets that follow go behind. Where the files do not serve
    /// ([`log_since`](crate::storage::log::log_since) says so), SNAP with the state's last zxid and the state
    /// as it is now: what follows then repeats a part of it, which learners tolerate.
    SyncFromLog {
        /// The learner.
        link: Link,
        /// Its last transaction.
        learner: Zxid,
        /// Committed.
        upto: Zxid,
    },
    /// Answer the leader's ping, with the sessions heard of since the last one.
    Pong(Link, Zxid),
    /// End a connection.
    Close(Link),
    /// Replace the state by the snapshot that has arrived on this link.
    InstallSnapshot(Link),
    /// Take the state from the disk again, behind everything that is on its way there: a snapshot was taken
    /// over from a leader that is lost, and is in memory alone. The disk's last transaction is this one.
    Reload(Zxid),
    /// Tell the operator why something ends.
    Tell(Why),
    /// Put a transaction into the log.
    Append(Zxid, Bytes),
    /// Cut the log behind this transaction and reload the state, or refuse and change nothing.
    Truncate(Zxid),
    /// Write an epoch file, behind everything appended so far.
    StoreEpoch(EpochKind, i64),
    /// Write a snapshot of the state as it is now, durably.
    StoreSnapshot,
    /// Apply a transaction: it is committed.
    Apply(Zxid, Bytes),
    /// Apply a transaction of which nobody knows here whether it is committed: the member has lost its leader,
    /// and votes with everything in its log. No client may be told.
    Adopt(Zxid, Bytes),
    /// What the member is now.
    Become(Role),
    /// A packet that concerns requests and sessions, not consensus.
    Upcall(Link, QuorumPacket),
    /// The protocol was broken in a way after which this member's state cannot be trusted: stop.
    Fail(String),
}

/// What a member is, as the rest of the server needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Without a leader: no clients are served.
    Looking,
    /// Leading, and a quorum follows: writes are prepared here. The next zxid is `epoch`<<32 + 1.
    Leading {
        /// The epoch.
        epoch: i64,
    },
    /// Following (or observing) a leader, in sync.
    Following {
        /// The leader.
        leader: ServerId,
        /// The connection to it.
        link: Link,
        /// The epoch.
        epoch: i64,
    },
}

/// Limits and intervals. Times in ms.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `tickTime`.
    pub tick_ms: u64,
    /// `initLimit`, ticks: connecting and synchronising.
    pub init_limit: u64,
    /// `syncLimit`, ticks: silence in broadcast.
    pub sync_limit: u64,
    /// How often undecided elections repeat themselves.
    pub notifications: NotificationIntervals,
    /// How long a leader or a synchronised follower may be silent; `None`: `syncLimit`. A leader that has it
    /// pings often enough for it; one that has not (Apache's) pings twice in a tick.
    pub silence_ms: Option<u64>,
    /// `commitLogCount`: committed transactions kept in memory, for learners that are a little behind.
    pub history_limit: usize,
}

/// Pings in the time of the shortest silence that is taken for death: a lost one must not kill.
const PINGS_PER_SILENCE: u64 = 5;

impl Settings {
    fn init_ms(&self) -> u64 {
        self.tick_ms * self.init_limit
    }

    fn sync_ms(&self) -> u64 {
        self.tick_ms * self.sync_limit
    }

    /// The longest silence in broadcast.
    fn patience_ms(&self) -> u64 {
        self.silence_ms.map_or(self.sync_ms(), |silence_ms| silence_ms.min(self.sync_ms()))
    }

    /// From one ping to the next.
    fn ping_ms(&self) -> u64 {
        let often_ms = self.silence_ms.map_or(u64::MAX, |silence_ms| silence_ms / PINGS_PER_SILENCE);
        (self.tick_ms / 2).min(often_ms).max(1)
    }
}

/// What recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Last transaction in the log, committed or not; the state is at it.
    pub last_zxid: Zxid,
    /// `acceptedEpoch`.
    pub accepted_epoch: i64,
    /// `currentEpoch`.
    pub current_epoch: i64,
}

/// What all roles share.
#[derive(Debug)]
struct Base {
    settings: Settings,
    electorate: Electorate,
    now_ms: u64,
    accepted_epoch: i64,
    current_epoch: i64,
    /// Last transaction given to the log.
    logged: Zxid,
    /// Last transaction applied; with no leader, equal to `logged`.
    applied: Zxid,
    /// The log is on the disk up to here.
    durable: Zxid,
    history: History,
    /// The epoch whose leader has asked for a cut of the log that is not possible, or has left out transactions: it is
    /// asked for the whole state.
    unfit_epoch: Option<i64>,
    doubts: Doubts,
}

impl Base {
    /// The last epoch that a voter may say it has accepted.
    fn epochs_believed(&self) -> i64 {
        let close = (self.accepted_epoch + EPOCHS_AHEAD_MAX).min(EPOCH_MAX - 1);
        close.max(EPOCH_MAX - EPOCHS_KEPT)
    }

    fn apply(&mut self, zxid: Zxid, payload: Bytes, out: &mut Vec<Action>) {
        self.applied = zxid;
        self.history.push(zxid, payload.clone());
        out.push(Action::Apply(zxid, payload));
    }

    fn adopt(&mut self, zxid: Zxid, payload: Bytes, out: &mut Vec<Action>) {
        self.applied = zxid;
        self.history.push(zxid, payload.clone());
        out.push(Action::Adopt(zxid, payload));
    }

    fn append(&mut self, zxid: Zxid, payload: Bytes, out: &mut Vec<Action>) {
        self.logged = zxid;
        out.push(Action::Append(zxid, payload));
    }
}

/// What a role says after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    /// It has come to its end: look for a leader.
    Look(Why),
}

#[derive(Debug)]
enum State {
    /// Learners that already know whom they will follow may connect before this member knows it. What they
    /// say waits here: a closed connection would send them into another election.
    Looking {
        early: Vec<(Link, Vec<QuorumPacket>)>,
    },
    Leading(Leader),
    Learning(Learner),
}

/// Connections that wait for an undecided member, for each voter; with one more, the oldest of those that are no voter's
/// is closed, or else the oldest.
pub const EARLY_LINKS_PER_VOTER: usize = 3;
/// Packets that wait for an undecided member on one connection: a learner says one thing and then waits.
pub const EARLY_PACKETS_MAX: usize = 4;

/// A leader's followers, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Following {
    /// Connected learners that have introduced themselves.
    pub learners: usize,
    /// Voters in sync, without the leader.
    pub synced_followers: usize,
    /// Observers in sync.
    pub synced_observers: usize,
    /// `sync` requests that wait for a commit.
    pub pending_syncs: usize,
}

/// One member's part in the protocol.
#[derive(Debug)]
pub struct Zab {
    base: Base,
    election: Election,
    state: State,
    started: bool,
}

impl Zab {
    /// A member as recovery has left it. It does nothing before its first event.
    pub fn new(settings: Settings, electorate: Electorate, recovered: Recovered) -> Self {
        let election = Election::new(electorate.clone(), settings.notifications);
        let Recovered { last_zxid, accepted_epoch, current_epoch } = recovered;
        let history = History::new(settings.history_limit);
        Self {
            base: Base {
                settings,
                electorate,
                now_ms: 0,
                accepted_epoch,
                current_epoch,
                logged: last_zxid,
                applied: last_zxid,
                durable: last_zxid,
                history,
                unfit_epoch: None,
                doubts: Doubts::default(),
            },
            election,
            state: State::Looking { early: Vec::new() },
            started: false,
        }
    }

    /// Before the first event: a transaction that recovery has replayed, oldest first, so that learners can
    /// be brought up to date with it.
    pub fn remember(&mut self, zxid: Zxid, payload: Bytes) {
        self.base.history.push(zxid, payload);
    }

    /// Before the first event: there is reason to think that the state is wrong.
    pub fn distrust(&mut self, doubt: Doubt) {
        if !chosen(Bug::TrustTheHole) {
            self.base.doubts.add(doubt);
        }
    }

    /// Whether transactions are missing in the state, so that nothing of it may be shown.
    pub fn is_missing_some(&self) -> bool {
        self.base.doubts.is_missing_some()
    }

    /// Whether there is reason to think that the state is wrong.
    pub fn is_in_doubt(&self) -> bool {
        self.base.doubts.any()
    }

    /// Takes one event at `now_ms` (a clock that only goes forward) and appends what is to be done.
    pub fn step(&mut self, now_ms: u64, event: Event, out: &mut Vec<Action>) {
        self.base.now_ms = now_ms;
        if !self.started {
            self.started = true;
            self.look(out);
        }
        match event {
            Event::Reachable(member, up) => {
                let decision =
                    self.elect(out, |election, votes| election.set_reachable(now_ms, member, up, votes));
                self.decide(decision, out);
                self.leave_what_comes_to_nothing(out);
            }
            Event::Vote(from, vote) => {
                let decision =
                    self.elect(out, |election, votes| election.receive(now_ms, from, &vote, votes));
                self.decide(decision, out);
                self.leave_what_comes_to_nothing(out);
            }
            Event::Unreachable(leader) if self.has_lost(leader) => {
                self.step_role(Event::Resign(Why::LeaderUnreachable(leader)), out);
            }
            Event::Tick => {
                let decision = self.elect(out, |election, votes| election.tick(now_ms, votes));
                self.decide(decision, out);
                if self.base.doubts.any() || self.base.doubts.voice != Voice::Full {
                    self.weigh_doubts(out);
                }
                self.step_role(Event::Tick, out);
            }
            Event::Compared(zxid, agrees) => {
                let leader = match &self.state {
                    State::Learning(learner) => Some(learner.leads()),
                    State::Looking { .. } | State::Leading(_) => None,
                };
                self.base.doubts.compared(zxid, agrees, leader, out);
            }
            Event::Durable(zxid) => {
                self.base.durable = self.base.durable.max(zxid);
                self.step_role(Event::Durable(zxid), out);
            }
            Event::EpochStored(EpochKind::Accepted, epoch) => {
                self.base.accepted_epoch = self.base.accepted_epoch.max(epoch);
                self.step_role(event, out);
            }
            Event::EpochStored(EpochKind::Current, epoch) => {
                self.base.current_epoch = self.base.current_epoch.max(epoch);
                self.step_role(event, out);
            }
            event => self.step_role(event, out),
        }
    }

    /// The member's state, for `zabstate` and the admin's words.
    pub fn peer_state(&self) -> PeerState {
        self.election.state()
    }

    /// Whether this member leads and a quorum follows: it takes proposals.
    pub fn is_established(&self) -> bool {
        matches!(&self.state, State::Leading(leader) if leader.is_broadcasting())
    }

    /// Whether a leader is elected, and for all that is known here no quorum follows yet.
    fn hopes_for_a_quorum(&self) -> bool {
        match &self.state {
            State::Leading(leader) => !leader.is_broadcasting(),
            State::Learning(learner) => learner.is_not_let_in(),
            State::Looking { .. } => false,
        }
    }

    /// Nobody has to wait until initLimit is over for a quorum that will not come.
    fn leave_what_comes_to_nothing(&mut self, out: &mut Vec<Action>) {
        if self.election.is_deserted() && self.hopes_for_a_quorum() {
            self.step_role(Event::Resign(Why::Deserted), out);
        }
    }

    /// Whether this is the leader that was elected, and is being called, and has no election connection either.
    fn has_lost(&self, leader: ServerId) -> bool {
        let is_called = matches!(&self.state, State::Learning(learner) if learner.calls(leader));
        is_called && !self.election.reaches(leader)
    }

    /// Who follows, if this member leads.
    pub fn following(&self) -> Option<Following> {
        match &self.state {
            State::Leading(leader) => Some(leader.following()),
            State::Looking { .. } | State::Learning(_) => None,
        }
    }

    /// Who is at the other end, if this member leads and it has said so.
    pub fn learner(&self, link: Link) -> Option<ServerId> {
        match &self.state {
            State::Leading(leader) => leader.learner(link),
            State::Looking { .. } | State::Learning(_) => None,
        }
    }

    /// The connections over which somebody is being synchronised. Whoever runs the machine tells it when
    /// bytes [move](Event::Moved) there: a snapshot may take longer than anybody may be silent.
    pub fn synchronising(&self) -> Vec<Link> {
        match &self.state {
            State::Looking { .. } => Vec::new(),
            State::Leading(leader) => leader.synchronising(),
            State::Learning(learner) => learner.synchronising(),
        }
    }

    /// Last transaction in the log.
    pub fn logged(&self) -> Zxid {
        self.base.logged
    }

    fn elect(
        &mut self,
        out: &mut Vec<Action>,
        f: impl FnOnce(&mut Election, &mut Outgoing) -> Option<Decision>,
    ) -> Option<Decision> {
        let mut votes = Outgoing::new();
        let decision = f(&mut self.election, &mut votes);
        out.extend(votes.into_iter().map(|(to, vote)| Action::Notify(to, vote)));
        decision
    }

    fn leave(&mut self, why: Why, out: &mut Vec<Action>) {
        out.push(Action::Tell(why));
        match &mut self.state {
            State::Leading(leader) => leader.resign(&mut self.base, out),
            State::Learning(learner) => {
                learner.resign(&mut self.base, out);
                if let Some(leader) = learner.given_up() {
                    self.election.give_up(leader);
                }
            }
            State::Looking { .. } => {}
        }
        if let Why::LeaderOutdated { leader, epoch, .. } = why {
            self.election.refuse(self.base.now_ms, leader, epoch);
        }
        self.state = State::Looking { early: Vec::new() };
        self.look(out);
    }

    fn look(&mut self, out: &mut Vec<Action>) {
        self.base.doubts.look(self.base.now_ms, self.base.settings.sync_ms());
        out.push(Action::Become(Role::Looking));
        self.begin_election(out);
    }

    fn begin_election(&mut self, out: &mut Vec<Action>) {
        let (now_ms, logged, epoch) = (self.base.now_ms, self.base.logged, self.base.current_epoch);
        let zxid = if self.base.doubts.voice == Voice::Full { logged } else { NO_DATA };
        let floor = (self.base.doubts.voice == Voice::Yields).then_some((epoch, logged));
        let decision = self.elect(out, |election, votes| election.look(now_ms, zxid, epoch, floor, votes));
        self.decide(decision, out);
    }

    /// A member in doubt may have waited long enough for others, or may leave its leader for the whole state.
    fn weigh_doubts(&mut self, out: &mut Vec<Action>) {
        let now_ms = self.base.now_ms;
        let (wait_ms, away_ms) = (self.base.settings.sync_ms(), self.base.settings.init_ms());
        match &self.state {
            State::Looking { .. } => {
                let is_quorum_there = self.election.reaches_a_quorum();
                if self.base.doubts.rises(now_ms, wait_ms, is_quorum_there) {
                    self.begin_election(out);
                }
            }
            State::Learning(_) => {
                self.base.doubts.others_suffice = self.election.others_suffice(now_ms, away_ms);
            }
            State::Leading(_) => {}
        }
    }

    fn decide(&mut self, decision: Option<Decision>, out: &mut Vec<Action>) {
        let (State::Looking { early }, Some(decision)) = (&mut self.state, decision) else { return };
        let early = std::mem::take(early);
        match decision {
            Decision::Lead => {
                self.election.conclude(PeerState::Leading);
                self.state = State::Leading(Leader::new(&mut self.base, out));
                for (link, packets) in early {
                    self.step_role(Event::Accepted(link), out);
                    for packet in packets {
                        self.step_role(Event::Packet(link, packet), out);
                    }
                }
            }
            Decision::Follow(leader) => {
                out.extend(early.into_iter().map(|(link, _)| Action::Close(link)));
                let votes = self.base.electorate.voters.contains(&self.base.electorate.me);
                let state = if votes { PeerState::Following } else { PeerState::Observing };
                self.election.conclude(state);
                self.state = State::Learning(Learner::new(&mut self.base, leader, out));
            }
        }
    }

    fn step_role(&mut self, event: Event, out: &mut Vec<Action>) {
        let epoch_before = self.base.current_epoch;
        let next = match &mut self.state {
            State::Leading(leader) => leader.step(&mut self.base, event, out),
            State::Learning(learner) => learner.step(&mut self.base, event, out),
            State::Looking { early } => {
                wait_for_a_role(early, &self.base.electorate, event, out);
                Next::Stay
            }
        };
        match (next, &mut self.state) {
            (Next::Stay, State::Leading(leader)) => {
                if let Some(epoch) = leader.take_established() {
                    self.election.settle(PeerState::Leading, self.base.electorate.me, epoch);
                }
            }
            (Next::Stay, State::Learning(learner)) => {
                if let Some((leader, epoch)) = learner.take_established() {
                    self.election.settle(self.election.state(), leader, epoch);
                }
            }
            (Next::Look(why), State::Leading(_) | State::Learning(_)) => self.leave(why, out),
            (_, State::Looking { .. }) => {}
        }
        debug_assert!(self.base.current_epoch >= epoch_before);
    }
}

/// Nobody leads here yet: whoever connects waits for the end of the election. Voters go before all others.
fn wait_for_a_role(
    early: &mut Vec<(Link, Vec<QuorumPacket>)>,
    electorate: &Electorate,
    event: Event,
    out: &mut Vec<Action>,
) {
    match event {
        Event::Accepted(link) => {
            if early.len() >= electorate.voters.len() * EARLY_LINKS_PER_VOTER {
                let is_voter = |packets: &[QuorumPacket]| {
                    let said = packets.first().and_then(|packet| packet.data.as_deref());
                    let info = said.and_then(|data| LearnerInfo::read(data).ok());
                    info.is_some_and(|info| electorate.voters.contains(&ServerId(info.sid)))
                };
                let other = early.iter().position(|(_, packets)| !is_voter(packets));
                let (last, _) = early.remove(other.unwrap_or(0));
                out.push(Action::Close(last));
            }
            early.push((link, Vec::new()));
        }
        Event::Connected(_, link) => out.push(Action::Close(link)),
        Event::Closed(link) => early.retain(|(other, _)| *other != link),
        Event::Packet(link, packet) => match early.iter_mut().find(|(other, _)| *other == link) {
            Some((_, packets)) if packets.len() < EARLY_PACKETS_MAX => packets.push(packet),
            _ => {
                early.retain(|(other, _)| *other != link);
                out.push(Action::Close(link));
            }
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests;

/// The kind of a packet; unknown ones are skipped by everyone.
fn kind(packet: &QuorumPacket) -> Option<PacketKind> {
    PacketKind::from_code(packet.kind)
}
