//! A follower's or observer's side: register, accept the epoch, take over the history, then follow.
//!
//! | phase | ends with |
//! |---|---|
//! | connecting | the link is up: FOLLOWERINFO or OBSERVERINFO goes out |
//! | registering | LEADERINFO: the epoch is accepted, durably, and ACKEPOCH goes out |
//! | synchronising | NEWLEADER: what was committed is in the log, the epoch is current, durably: ACK |
//! | waiting | UPTODATE: clients are served, and what is proposed meanwhile is logged and acknowledged |
//! | following | the leader falls silent, or the link ends |
//!
//! How long the leader may be silent before UPTODATE depends on the leader. Apache's says nothing while it waits for
//! others, for `initLimit` at most. This program's pings from the introduction on; a member that has been pinged, and is
//! told how long a silence may be (`zoometry.leaderSilenceMs`), forgives no longer one. Bytes that move count as much as
//! packets: a long snapshot is no silence.
//!
//! Between SNAP or TRUNC and the disk's answer packets are kept in their order, and while the log is being cut
//! the member does not leave its leader: until the disk has answered nobody knows what it could vote with.
//!
//! A log that cannot be cut where the leader says (the state came from a leader that was lost, with
//! transactions that were never committed, and nothing older is left) is replaced as a whole: the member
//! connects to the leader again and says in ACKEPOCH that it has nothing, zxid −1, which every leader answers
//! with SNAP (Apache's: `LearnerHandler.syncFollower`). It says so only in an acknowledgement that counts for
//! nothing (epoch −1: it has accepted this epoch before; `Leader.waitForEpochAck`), so no leader comes to lead,
//! and no transaction is forgotten, because of it; it votes with what it has, and keeps that on its disk until
//! the new state is there. Apache's learner exits instead.
//!
//! So does a member that has reason to think that its state is wrong ([`super::Doubt`]).
//!
//! Apache's bugs that this file is written against: acknowledging NEWLEADER before the history is durable
//! (ZOOKEEPER-4643, 4646, 4785), ACKEPOCH before the accepted epoch is durable (ZOOKEEPER-3911), several paths
//! that apply (ZOOKEEPER-4925).
//! Source: `Learner.java` (`registerWithLeader`, `syncWithLeader`), `Follower.java`; reference §8.5, §8.7.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_wire::Zxid;
use zoometry_wire::peer::{LEARNER_PROTOCOL, LearnerInfo, PacketKind, QuorumPacket};

use crate::deliberate::{Bug, chosen};

use super::doubt::Voice;
use super::{Action, Base, EpochKind, Event, Link, NO_DATA, Next, Role, ServerId, Why, kind};
use crate::storage::recovery::follows;

/// A transaction that was proposed and is not applied yet.
#[derive(Debug)]
struct Pending {
    zxid: Zxid,
    payload: Bytes,
    committed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Registering,
    /// The accepted epoch is on its way to the disk.
    Accepting,
    /// ACKEPOCH is out: DIFF, TRUNC or SNAP comes next.
    AwaitingSync,
    /// The log is being cut behind this transaction; packets wait.
    Truncating {
        to: Zxid,
    },
    /// Transactions arrive. `snapshot`: the state came as a snapshot and is not on the disk yet.
    Synchronising {
        snapshot: bool,
    },
    /// NEWLEADER has come; the history, and behind it the epoch, are on their way to the disk.
    Storing,
    AwaitingUpToDate,
    Following,
}

/// A member that has found a leader.
#[derive(Debug)]
pub struct Learner {
    leader: ServerId,
    link: Option<Link>,
    phase: Phase,
    epoch: i64,
    pending: VecDeque<Pending>,
    /// Proposals given to the log whose acknowledgement is still owed, oldest first.
    unacked: VecDeque<Zxid>,
    /// Packets that arrived while the disk was busy with something that comes before them.
    kept: VecDeque<QuorumPacket>,
    last_proposed: Zxid,
    /// The end of the log on the disk when a snapshot took the place of the state.
    log_end: Zxid,
    deadline_ms: u64,
    /// The last tick: after a long pause it was this member that stood still.
    ticked_ms: u64,
    /// The leader pings on this link before this member follows.
    pinged: bool,
    /// An observer acknowledges nothing but the synchronisation.
    votes: bool,
    established: bool,
    /// The leader is lost, and is left as soon as the disk has cut the log or refused to.
    leaves: Option<Why>,
    /// The leader was not heard of for too long.
    silent: bool,
    /// It has been asked for the whole state.
    asks: bool,
}

impl Learner {
    pub(super) fn new(base: &mut Base, leader: ServerId, out: &mut Vec<Action>) -> Self {
        out.push(Action::Connect(leader));
        Self {
            leader,
            link: None,
            phase: Phase::Connecting,
            epoch: 0,
            pending: VecDeque::new(),
            unacked: VecDeque::new(),
            kept: VecDeque::new(),
            last_proposed: base.logged,
            log_end: base.logged,
            deadline_ms: base.now_ms + base.settings.init_ms(),
            ticked_ms: base.now_ms,
            pinged: false,
            votes: base.electorate.voters.contains(&base.electorate.me),
            established: false,
            leaves: None,
            silent: false,
            asks: false,
        }
    }

    /// The leader, and its epoch as far as it is known.
    pub(super) fn leads(&self) -> (ServerId, i64) {
        (self.leader, self.epoch)
    }

    /// The leader and the epoch, once, when the member has become part of it.
    pub(super) fn take_established(&mut self) -> Option<(ServerId, i64)> {
        std::mem::take(&mut self.established).then_some((self.leader, self.epoch))
    }

    /// Whether this is the leader, and there is no connection to it yet.
    pub(super) fn calls(&self, member: ServerId) -> bool {
        self.phase == Phase::Connecting && member == self.leader
    }

    /// Whether the leader has not said yet that a quorum has come to it.
    pub(super) fn is_not_let_in(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Registering)
    }

    /// The leader, if it is left because it was silent.
    pub(super) fn given_up(&self) -> Option<ServerId> {
        self.silent.then_some(self.leader)
    }

    pub(super) fn synchronising(&self) -> Vec<Link> {
        self.link.filter(|_| self.phase != Phase::Following).into_iter().collect()
    }

    pub(super) fn step(&mut self, base: &mut Base, event: Event, out: &mut Vec<Action>) -> Next {
        match event {
            Event::Connected(to, link) if self.calls(to) => self.register(base, link, out),
            // One that was called for an earlier leader may have taken its time.
            Event::Connected(_, link) | Event::Accepted(link) => out.push(Action::Close(link)),
            Event::Unreachable(to) if self.calls(to) => out.push(Action::Connect(to)),
            Event::Closed(link) if Some(link) == self.link => {
                self.link = None;
                return self.leave(Why::LeaderGone(self.leader));
            }
            Event::Resign(why) => return self.leave(why),
            Event::Moved(link) if Some(link) == self.link && self.phase != Phase::Following => {
                self.deadline_ms = base.now_ms + self.patience_ms(base);
            }
            Event::Tick => return self.tick(base),
            Event::Packet(link, packet) if Some(link) == self.link => {
                let is_early_ping = self.phase != Phase::Following && kind(&packet) == Some(PacketKind::Ping);
                self.pinged |= is_early_ping;
                self.deadline_ms = base.now_ms + self.patience_ms(base);
                if is_early_ping {
                    return Next::Stay;
                }
                return self.receive(base, packet, out);
            }
            Event::EpochStored(EpochKind::Accepted, epoch)
                if self.phase == Phase::Accepting && epoch == self.epoch =>
            {
                let current = base.current_epoch as i32;
                self.ack_epoch(base, current, out);
            }
            Event::Truncated => {
                if let Phase::Truncating { to } = self.phase {
                    return self.truncated(base, to, out);
                }
            }
            Event::TruncateRefused if matches!(self.phase, Phase::Truncating { .. }) => {
                return self.come_again(base, out);
            }
            Event::SnapshotStored if self.phase == Phase::Storing => {
                base.unfit_epoch = None;
                out.push(Action::StoreEpoch(EpochKind::Current, self.epoch));
            }
            Event::EpochStored(EpochKind::Current, epoch)
                if self.phase == Phase::Storing && epoch == self.epoch =>
            {
                self.send(PacketKind::Ack, Zxid(self.epoch << 32), None, out);
                self.phase = Phase::AwaitingUpToDate;
                return self.receive_kept(base, out);
            }
            Event::Durable(zxid) => self.acknowledge(zxid, out),
            _ => {}
        }
        Next::Stay
    }

    /// How long the leader may be silent.
    fn patience_ms(&self, base: &Base) -> u64 {
        let is_told = self.pinged && base.settings.silence_ms.is_some();
        let is_soon = self.phase == Phase::Following || is_told;
        if is_soon { base.settings.patience_ms() } else { base.settings.init_ms() }
    }

    fn tick(&mut self, base: &mut Base) -> Next {
        let patience_ms = self.patience_ms(base);
        let since_ms = base.now_ms - std::mem::replace(&mut self.ticked_ms, base.now_ms);
        if self.phase != Phase::Following && since_ms > patience_ms / 2 {
            // While this member takes over a state, what the leader says waits: that is no silence.
            self.deadline_ms += since_ms;
        }
        if base.now_ms >= self.deadline_ms {
            self.silent = true;
            return self.leave(Why::LeaderSilent { leader: self.leader, silent_ms: patience_ms });
        }
        let pause_ms = base.pause_before_leaving_ms(self.leader);
        if self.phase == Phase::Following
            && base.doubts.leaves(base.now_ms, self.leader, self.epoch, pause_ms)
        {
            return self.leave(Why::LeavesForState(self.leader));
        }
        Next::Stay
    }

    fn leave(&mut self, why: Why) -> Next {
        if matches!(self.phase, Phase::Truncating { .. }) {
            self.leaves = Some(why);
            return Next::Stay;
        }
        Next::Look(why)
    }

    fn leader_is_confused(&self) -> Next {
        Next::Look(Why::LeaderConfused(self.leader))
    }

    fn truncated(&mut self, base: &mut Base, to: Zxid, out: &mut Vec<Action>) -> Next {
        base.history.truncate(to);
        (base.logged, base.applied, base.durable) = (to, to, to);
        self.last_proposed = to;
        self.phase = Phase::Synchronising { snapshot: false };
        if let Some(why) = self.leaves {
            return Next::Look(why);
        }
        self.receive_kept(base, out)
    }

    /// Everything is as it was, and the leader's history is not behind it: the leader is asked for all of it.
    fn come_again(&mut self, base: &mut Base, out: &mut Vec<Action>) -> Next {
        base.unfit_epoch = Some(self.epoch);
        if let Some(why) = self.leaves {
            return Next::Look(why);
        }
        // Not by way of an election: the leader may lack the quorum that would name it.
        out.extend(self.link.take().map(Action::Close));
        self.kept.clear();
        self.phase = Phase::Connecting;
        self.deadline_ms = base.now_ms + base.settings.init_ms();
        out.push(Action::Connect(self.leader));
        Next::Stay
    }

    /// The member leaves its leader: what is logged counts as applied, committed or not.
    pub(super) fn resign(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        out.extend(self.link.take().map(Action::Close));
        if self.phase == (Phase::Synchronising { snapshot: true }) && !chosen(Bug::KeepUnstoredSnapshot) {
            // Nobody may vote with, or lead with, what is not on its way to the disk.
            let end = self.log_end;
            (base.logged, base.applied, base.durable) = (end, end, end);
            base.history.clear();
            self.pending.clear();
            out.push(Action::Reload(end));
        }
        for Pending { zxid, payload, .. } in self.pending.drain(..) {
            if zxid <= base.logged {
                base.adopt(zxid, payload, out);
            }
        }
    }

    fn register(&mut self, base: &Base, link: Link, out: &mut Vec<Action>) {
        self.link = Some(link);
        self.phase = Phase::Registering;
        self.pinged = false;
        let me = base.electorate.me;
        let info = LearnerInfo {
            sid: me.0,
            protocol: LEARNER_PROTOCOL,
            config_version: base.electorate.config_version,
        };
        let kind = if base.electorate.voters.contains(&me) {
            PacketKind::FollowerInfo
        } else {
            PacketKind::ObserverInfo
        };
        self.send(kind, Zxid(base.accepted_epoch << 32), Some(info.with_pings()), out);
    }

    fn send(&self, kind: PacketKind, zxid: Zxid, data: Option<Bytes>, out: &mut Vec<Action>) {
        if let Some(link) = self.link {
            out.push(Action::Send(link, QuorumPacket { data, ..QuorumPacket::new(kind, zxid) }));
        }
    }

    fn receive_kept(&mut self, base: &mut Base, out: &mut Vec<Action>) -> Next {
        for packet in std::mem::take(&mut self.kept) {
            let next = self.receive(base, packet, out);
            if next != Next::Stay {
                return next;
            }
        }
        Next::Stay
    }

    fn receive(&mut self, base: &mut Base, packet: QuorumPacket, out: &mut Vec<Action>) -> Next {
        match self.phase {
            Phase::Connecting | Phase::Accepting => Next::Stay,
            Phase::Registering => self.hear_epoch(base, &packet, out),
            Phase::AwaitingSync => self.begin_sync(base, &packet, out),
            Phase::Truncating { .. } | Phase::Storing => {
                self.kept.push_back(packet);
                Next::Stay
            }
            Phase::Synchronising { snapshot } => self.synchronise(base, packet, snapshot, out),
            Phase::AwaitingUpToDate => self.await_up_to_date(base, packet, out),
            Phase::Following => self.follow(base, packet, out),
        }
    }

    fn hear_epoch(&mut self, base: &mut Base, packet: &QuorumPacket, out: &mut Vec<Action>) -> Next {
        if kind(packet) != Some(PacketKind::LeaderInfo) || packet.zxid.0 < 0 {
            return self.leader_is_confused();
        }
        self.epoch = i64::from(packet.zxid.epoch());
        if self.epoch < base.accepted_epoch {
            let (leader, epoch, accepted) = (self.leader, self.epoch, base.accepted_epoch);
            return Next::Look(Why::LeaderOutdated { leader, epoch, accepted });
        }
        if self.epoch == base.accepted_epoch {
            // Accepted before: this acknowledgement must not count for the epoch a second time.
            self.ack_epoch(base, -1, out);
        } else {
            self.phase = Phase::Accepting;
            out.push(Action::StoreEpoch(EpochKind::Accepted, self.epoch));
            if chosen(Bug::AckEpochEarly) {
                self.ack_epoch(base, base.current_epoch as i32, out);
            }
        }
        Next::Stay
    }

    fn ack_epoch(&mut self, base: &Base, current_epoch: i32, out: &mut Vec<Action>) {
        self.phase = Phase::AwaitingSync;
        self.asks = self.wants_everything(base);
        let current_epoch = if self.asks { -1 } else { current_epoch };
        let data = Bytes::copy_from_slice(&current_epoch.to_be_bytes());
        let last = if self.asks { NO_DATA } else { base.logged };
        self.send(PacketKind::AckEpoch, last, Some(data), out);
    }

    /// Whether the leader is asked for the whole state, in an acknowledgement that counts for nothing: the state here
    /// is not trusted and others have elected it, or what it has sent in this epoch does not fit.
    fn wants_everything(&self, base: &Base) -> bool {
        base.doubts.voice == Voice::Silent || base.unfit_epoch == Some(self.epoch)
    }

    fn begin_sync(&mut self, base: &mut Base, packet: &QuorumPacket, out: &mut Vec<Action>) -> Next {
        match kind(packet) {
            Some(kind @ (PacketKind::Diff | PacketKind::Trunc)) if self.asks => {
                out.push(Action::Fail(format!(
                    "the leader answered {kind:?} {} to a member that asked for the whole state; move its version-2 directories away and start it again",
                    packet.zxid
                )));
                return self.leader_is_confused();
            }
            Some(PacketKind::Diff) => self.phase = Phase::Synchronising { snapshot: false },
            Some(PacketKind::Trunc) if chosen(Bug::SkipTrunc) => {
                self.phase = Phase::Synchronising { snapshot: false };
            }
            Some(PacketKind::Trunc) => {
                self.phase = Phase::Truncating { to: packet.zxid };
                out.push(Action::Truncate(packet.zxid));
            }
            Some(PacketKind::Snap) => {
                base.history.clear();
                self.log_end = base.logged;
                (base.logged, base.applied, base.durable) = (packet.zxid, packet.zxid, packet.zxid);
                self.phase = Phase::Synchronising { snapshot: true };
                out.extend(self.link.map(Action::InstallSnapshot));
            }
            Some(PacketKind::Ping) | None => {}
            Some(_) => return self.leader_is_confused(),
        }
        self.last_proposed = base.logged;
        Next::Stay
    }

    /// Takes a proposal in. A hole is the end of this leader: it would become ours (Apache refuses one inside an epoch
    /// since 3.9.4). When it is found again, it is asked for the whole state.
    fn propose(&mut self, base: &mut Base, packet: QuorumPacket, committed: bool) -> Next {
        let zxid = packet.zxid;
        let last = self.last_proposed;
        if zxid <= last {
            // The stream behind a snapshot repeats what the snapshot already holds.
            return Next::Stay;
        }
        if !follows(last, zxid) && (last.counter() != 0 || zxid.epoch() != last.epoch()) {
            base.unfit_epoch = Some(self.epoch);
            return Next::Look(Why::LeaderSkipped { leader: self.leader, last, next: zxid });
        }
        self.last_proposed = zxid;
        self.pending.push_back(Pending { zxid, payload: packet.data.unwrap_or_default(), committed });
        Next::Stay
    }

    fn commit(&mut self, zxid: Zxid, out: &mut Vec<Action>) -> Next {
        // What is committed stands in front. While this member stores a snapshot nothing leaves the queue: it
        // grows by all that is written meanwhile.
        let committed = self.pending.partition_point(|pending| pending.committed);
        match self.pending.get_mut(committed) {
            Some(oldest) if oldest.zxid == zxid => oldest.committed = true,
            Some(oldest) if zxid > oldest.zxid => {
                out.push(Action::Fail(format!(
                    "the leader committed {zxid} while {} is the oldest proposal that waits",
                    oldest.zxid
                )));
                return self.leader_is_confused();
            }
            // A commit of what is committed here already, or of what nobody proposed to us.
            _ => {}
        }
        Next::Stay
    }

    fn synchronise(
        &mut self,
        base: &mut Base,
        packet: QuorumPacket,
        snapshot: bool,
        out: &mut Vec<Action>,
    ) -> Next {
        match kind(&packet) {
            Some(PacketKind::Proposal) => return self.propose(base, packet, false),
            Some(PacketKind::Inform) => return self.propose(base, packet, true),
            Some(PacketKind::Commit) => return self.commit(packet.zxid, out),
            Some(PacketKind::NewLeader) => {
                if chosen(Bug::EpochBeforeHistory) && !snapshot {
                    out.push(Action::StoreEpoch(EpochKind::Current, self.epoch));
                }
                self.take_over_committed(base, snapshot, out);
                self.phase = Phase::Storing;
                if chosen(Bug::AckNewLeaderEarly) {
                    self.send(PacketKind::Ack, Zxid(self.epoch << 32), None, out);
                }
                if snapshot {
                    base.doubts.settle(self.leader, self.epoch, self.asks);
                    // The snapshot holds what was committed behind it as well.
                    out.push(Action::StoreSnapshot);
                } else {
                    out.push(Action::StoreEpoch(EpochKind::Current, self.epoch));
                }
            }
            _ => {}
        }
        Next::Stay
    }

    /// What was committed during the synchronisation goes into the state; into the log too, unless a
    /// snapshot of that state is about to be written.
    fn take_over_committed(&mut self, base: &mut Base, snapshot: bool, out: &mut Vec<Action>) {
        while let Some(Pending { zxid, payload, .. }) = self.pending.pop_front_if(|head| head.committed) {
            if snapshot {
                base.logged = zxid;
                base.durable = zxid;
            } else {
                base.append(zxid, payload.clone(), out);
            }
            base.apply(zxid, payload, out);
        }
    }

    fn await_up_to_date(&mut self, base: &mut Base, packet: QuorumPacket, out: &mut Vec<Action>) -> Next {
        match kind(&packet) {
            Some(PacketKind::Proposal) => return self.propose(base, packet, false),
            Some(PacketKind::Inform) => return self.propose(base, packet, true),
            Some(PacketKind::Commit) => return self.commit(packet.zxid, out),
            Some(PacketKind::UpToDate) => {
                self.send(PacketKind::Ack, Zxid(self.epoch << 32), None, out);
                self.phase = Phase::Following;
                self.established = true;
                // Apache's leader pings from now on, and its first ones may wait.
                let patience_ms = if self.pinged { self.patience_ms(base) } else { base.settings.sync_ms() };
                self.deadline_ms = base.now_ms + patience_ms;
                if let Some(link) = self.link {
                    out.push(Action::Become(Role::Following {
                        leader: self.leader,
                        link,
                        epoch: self.epoch,
                    }));
                }
                for pending in &self.pending {
                    base.append(pending.zxid, pending.payload.clone(), out);
                    if self.votes {
                        self.unacked.push_back(pending.zxid);
                    }
                }
                self.apply_committed(base, out);
            }
            _ => {}
        }
        Next::Stay
    }

    fn follow(&mut self, base: &mut Base, packet: QuorumPacket, out: &mut Vec<Action>) -> Next {
        let (Some(kind), Some(link)) = (kind(&packet), self.link) else { return Next::Stay };
        match kind {
            PacketKind::Proposal | PacketKind::Inform => {
                let (zxid, payload) = (packet.zxid, packet.data.clone().unwrap_or_default());
                let before = self.pending.len();
                let next = self.propose(base, packet, kind == PacketKind::Inform);
                if self.pending.len() > before {
                    base.append(zxid, payload, out);
                    if self.votes {
                        self.unacked.push_back(zxid);
                    }
                    if chosen(Bug::AckBeforeSync) {
                        self.acknowledge(zxid, out);
                    }
                }
                self.apply_committed(base, out);
                next
            }
            PacketKind::Commit => {
                let next = self.commit(packet.zxid, out);
                self.apply_committed(base, out);
                next
            }
            PacketKind::Ping => {
                out.push(Action::Pong(link, packet.zxid));
                Next::Stay
            }
            PacketKind::Revalidate | PacketKind::Sync => {
                out.push(Action::Upcall(link, packet));
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    /// A commit may come before this member's own disk is done; the state follows the commit.
    fn apply_committed(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        while let Some(Pending { zxid, payload, .. }) = self.pending.pop_front_if(|head| head.committed) {
            base.apply(zxid, payload, out);
        }
    }

    /// One acknowledgement for each proposal: the leader counts each by itself.
    fn acknowledge(&mut self, durable: Zxid, out: &mut Vec<Action>) {
        while let Some(zxid) = self.unacked.pop_front_if(|zxid| *zxid <= durable) {
            self.send(PacketKind::Ack, zxid, None, out);
        }
    }
}
