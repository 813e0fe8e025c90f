//! The leader's side: agree on an epoch, bring everybody to one history, then propose and commit.
//!
//! | phase | ends with |
//! |---|---|
//! | discovering | a quorum of voters has registered: the epoch is one above all they have accepted |
//! | accepting | the epoch is on the leader's own disk, and a quorum has acknowledged it |
//! | synchronising | the leader's own current epoch is on disk; learners are synchronised, each by its plan; a quorum has acknowledged NEWLEADER |
//! | broadcasting | a quorum is no longer heard of |
//!
//! A proposal is committed when a quorum has it on disk (the leader's own disk counts as one) and the one
//! before it is committed. Acknowledgements are counted for each proposal by itself: nothing says that who
//! has one has those before it (reference §8.8).
//!
//! What a learner says is its word and no more. Only listed voters that come as followers count: for the epoch, for its
//! acknowledgement, for NEWLEADER, for proposals, and for the quorum that must be heard of. Everybody else may follow
//! and observe. A later epoch than this leader's, whoever announces it, changes nothing once the epoch is chosen: such a
//! learner refuses this leader by itself and stays outside until the next election, as beside Apache's leader. A leader
//! that made way for it could lose what a quorum has acknowledged: members that lost their data and wrote anew are of an
//! earlier epoch than the one that still has the old data.
//! Source: `Leader.java`, `LearnerHandler.java`; reference §8.5, §8.6, §8.9.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use smallvec::SmallVec;
use zoometry_wire::peer::{LEARNER_PROTOCOL, LearnerInfo, PacketKind, QuorumPacket};
use zoometry_wire::{Reader, Record as _, Zxid};

use crate::deliberate::{Bug, chosen};

use super::sync::{Plan, plan};
use super::{
    Action, Base, EPOCH_MAX, EpochKind, Event, Following, Link, NO_DATA, Next, Role, ServerId, Why, kind,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Discovering,
    Accepting,
    Synchronising,
    Broadcasting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Connected; has not said who it is.
    Unknown,
    /// Has registered; LEADERINFO has gone out or will.
    Registered,
    /// Has acknowledged the epoch; its history ends at this zxid.
    Accepted(Zxid),
    /// Is being synchronised; NEWLEADER has gone out.
    Synchronising,
    /// Has the history; UPTODATE goes out when the leader broadcasts.
    Synchronised,
    /// Has been told UPTODATE.
    Following,
}

#[derive(Debug)]
struct Member {
    sid: ServerId,
    /// Came with OBSERVERINFO: it is told what is committed, and nothing before.
    observer: bool,
    /// A listed voter that came with FOLLOWERINFO: what it acknowledges counts.
    votes: bool,
    /// It is pinged before it follows, too.
    takes_pings: bool,
    stage: Stage,
    /// Until when it must be heard of.
    deadline_ms: u64,
}

impl Member {
    /// How long it may be silent.
    fn patience_ms(&self, base: &Base) -> u64 {
        let follows = self.stage == Stage::Following;
        if follows { base.settings.patience_ms() } else { base.settings.init_ms() }
    }

    /// Live traffic is sent to it.
    fn is_forwarding(&self) -> bool {
        matches!(self.stage, Stage::Synchronising | Stage::Synchronised | Stage::Following)
    }
}

#[derive(Debug)]
struct Proposal {
    zxid: Zxid,
    payload: Bytes,
    acks: SmallVec<[ServerId; 5]>,
    proposed_ms: u64,
    /// What learners are answered when this proposal is committed.
    answers: Vec<(Link, QuorumPacket)>,
}

impl Proposal {
    fn acknowledge(&mut self, by: ServerId) {
        if !self.acks.contains(&by) {
            self.acks.push(by);
        }
    }
}

/// A member that was elected.
#[derive(Debug)]
pub struct Leader {
    phase: Phase,
    epoch: i64,
    epoch_stored: bool,
    /// Who has accepted the epoch from this leader, this time.
    epoch_acks: BTreeSet<ServerId>,
    members: BTreeMap<Link, Member>,
    outstanding: VecDeque<Proposal>,
    deadline_ms: u64,
    next_ping_ms: u64,
    established: bool,
}

impl Leader {
    pub(super) fn new(base: &mut Base, out: &mut Vec<Action>) -> Self {
        let mut leader = Self {
            phase: Phase::Discovering,
            epoch: 0,
            epoch_stored: false,
            epoch_acks: BTreeSet::new(),
            members: BTreeMap::new(),
            outstanding: VecDeque::new(),
            deadline_ms: base.now_ms + base.settings.init_ms(),
            next_ping_ms: base.now_ms + base.settings.ping_ms(),
            established: false,
        };
        leader.choose_epoch(base, base.accepted_epoch, out);
        leader
    }

    /// The epoch, once, when a quorum follows.
    pub(super) fn take_established(&mut self) -> Option<i64> {
        std::mem::take(&mut self.established).then_some(self.epoch)
    }

    pub(super) fn is_broadcasting(&self) -> bool {
        self.phase == Phase::Broadcasting
    }

    pub(super) fn step(&mut self, base: &mut Base, event: Event, out: &mut Vec<Action>) -> Next {
        match event {
            Event::Accepted(link) => {
                let deadline_ms = base.now_ms + base.settings.init_ms();
                let stage = Stage::Unknown;
                let sid = ServerId(-1);
                let (observer, votes, takes_pings) = (true, false, false);
                let member = Member { sid, observer, votes, takes_pings, stage, deadline_ms };
                self.members.insert(link, member);
            }
            Event::Connected(_, link) => out.push(Action::Close(link)),
            Event::Closed(link) => self.forget(link),
            Event::Packet(link, packet) => self.receive(base, link, packet, out),
            Event::Moved(link) => {
                if let Some(member) = self.members.get_mut(&link)
                    && member.stage == Stage::Synchronising
                {
                    member.deadline_ms = base.now_ms + base.settings.init_ms();
                }
            }
            Event::EpochStored(EpochKind::Accepted, epoch) if epoch == self.epoch => {
                self.epoch_stored = true;
                self.tell_epoch(base, out);
            }
            Event::EpochStored(EpochKind::Current, epoch) if epoch == self.epoch => {
                self.begin_sync(base, out)
            }
            Event::Durable(zxid) => self.acknowledge_own(base, zxid, out),
            Event::Propose(zxid, payload) => self.propose(base, zxid, payload, out),
            Event::Answer(link, packet) => match self.outstanding.back_mut() {
                Some(last) => last.answers.push((link, packet)),
                None => out.push(Action::Send(link, packet)),
            },
            Event::Tick => return self.tick(base, out),
            Event::Resign(why) => return Next::Look(why),
            _ => {}
        }
        Next::Stay
    }

    /// The leader has lost its quorum. What is logged counts as applied, committed or not.
    pub(super) fn resign(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        out.extend(std::mem::take(&mut self.members).into_keys().map(Action::Close));
        for proposal in self.outstanding.drain(..) {
            base.adopt(proposal.zxid, proposal.payload, out);
        }
    }

    pub(super) fn synchronising(&self) -> Vec<Link> {
        let unsettled = self.members.iter().filter(|(_, member)| member.stage == Stage::Synchronising);
        unsettled.map(|(link, _)| *link).collect()
    }

    pub(super) fn learner(&self, link: Link) -> Option<ServerId> {
        let member = self.members.get(&link).filter(|member| member.stage != Stage::Unknown)?;
        Some(member.sid)
    }

    pub(super) fn following(&self) -> Following {
        let synced = |member: &&Member| matches!(member.stage, Stage::Synchronised | Stage::Following);
        let observers = self.members.values().filter(synced).filter(|member| member.observer).count();
        let answers = self.outstanding.iter().flat_map(|proposal| &proposal.answers);
        Following {
            learners: self.members.values().filter(|member| member.stage != Stage::Unknown).count(),
            synced_followers: self.members.values().filter(synced).count() - observers,
            synced_observers: observers,
            pending_syncs: answers.filter(|(_, answer)| kind(answer) == Some(PacketKind::Sync)).count(),
        }
    }

    fn forget(&mut self, link: Link) {
        self.members.remove(&link);
    }

    fn drop_member(&mut self, link: Link, why: Why, out: &mut Vec<Action>) {
        out.extend([Action::Tell(why), Action::Close(link)]);
        self.forget(link);
    }

    fn refuse(&mut self, link: Link, why: &'static str, out: &mut Vec<Action>) {
        let learner = self.members.get(&link).map_or(ServerId(-1), |member| member.sid);
        self.drop_member(link, Why::LearnerUnfit { learner, why }, out);
    }

    /// The voters among those that `has` picks, the leader among them.
    fn quorum(&self, base: &Base, has: impl Fn(&Member) -> bool) -> bool {
        let members = self.members.values().filter(|member| counts(member) && has(member));
        let sids: BTreeSet<ServerId> = members.map(|member| member.sid).chain([base.electorate.me]).collect();
        base.electorate.is_quorum(sids.iter())
    }

    // ---- registration and epoch ----

    fn receive(&mut self, base: &mut Base, link: Link, packet: QuorumPacket, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&link) else { return };
        member.deadline_ms = base.now_ms + member.patience_ms(base);
        match (member.stage, kind(&packet)) {
            (Stage::Unknown, Some(PacketKind::FollowerInfo | PacketKind::ObserverInfo)) => {
                self.register(base, link, &packet, out);
            }
            (Stage::Registered, Some(PacketKind::AckEpoch)) => self.hear_ack_epoch(base, link, &packet, out),
            (Stage::Unknown | Stage::Registered, _) => {
                self.refuse(link, "it says something before it is synchronised", out);
            }
            (Stage::Synchronising, Some(PacketKind::Ack)) if packet.zxid == Zxid(self.epoch << 32) => {
                member.stage = Stage::Synchronised;
                self.try_establish(base, out);
                self.welcome(base, link, out);
            }
            (Stage::Synchronised | Stage::Following, Some(PacketKind::Ack)) => {
                self.acknowledge(base, link, packet.zxid, out);
            }
            (
                Stage::Synchronised | Stage::Following,
                Some(PacketKind::Ping | PacketKind::Request | PacketKind::Revalidate),
            ) => out.push(Action::Upcall(link, packet)),
            _ => {}
        }
    }

    fn register(&mut self, base: &mut Base, link: Link, packet: &QuorumPacket, out: &mut Vec<Action>) {
        let info = packet.data.as_deref().map(LearnerInfo::read);
        let Some(Ok(info)) = info else { return self.refuse(link, "its first packet cannot be read", out) };
        let sid = ServerId(info.sid);
        let accepted = i64::from(packet.zxid.epoch());
        let follows = kind(packet) == Some(PacketKind::FollowerInfo);
        let votes = follows && base.electorate.voters.contains(&sid);
        let is_choosing = self.phase == Phase::Discovering && votes;
        if let Some(why) = unfit(base, &info) {
            return self.drop_member(link, Why::LearnerUnfit { learner: sid, why }, out);
        }
        let at_most = base.epochs_believed();
        if is_choosing && !(0..=at_most).contains(&accepted) {
            return self.drop_member(link, Why::EpochBeyondReason { learner: sid, accepted, at_most }, out);
        }
        if chosen(Bug::BelieveEpochs) && self.phase == Phase::Broadcasting && accepted > self.epoch {
            return out.extend(std::mem::take(&mut self.members).into_keys().map(Action::Close));
        }
        // One that has not proved itself makes room; one that follows is left when this one has gone as far.
        self.drop_others(link, sid, |other| other.stage == Stage::Registered && (votes || !other.votes), out);
        if let Some(member) = self.members.get_mut(&link) {
            (member.sid, member.observer, member.votes) = (sid, !follows, votes);
            member.takes_pings = packet.data.as_deref().is_some_and(LearnerInfo::takes_pings);
            member.stage = Stage::Registered;
            if member.takes_pings {
                // From now on it knows that this leader does not fall silent.
                out.push(Action::Send(link, QuorumPacket::new(PacketKind::Ping, base.logged)));
            }
        }
        if is_choosing {
            self.choose_epoch(base, accepted, out);
        } else if self.phase != Phase::Discovering && self.epoch_stored {
            out.push(self.leader_info(link));
        }
    }

    /// Ends the other links that claim this id, if they are such. Nobody who is no voter takes a voter's place.
    fn drop_others(
        &mut self,
        link: Link,
        sid: ServerId,
        is_left: impl Fn(&Member) -> bool,
        out: &mut Vec<Action>,
    ) {
        let claims = |member: &Member| member.stage != Stage::Unknown && member.sid == sid;
        let others =
            self.members.iter().filter(|(at, other)| **at != link && claims(other) && is_left(other));
        let others: Vec<Link> = others.map(|(at, _)| *at).collect();
        for link in others {
            self.drop_member(link, Why::LearnerAgain(sid), out);
        }
    }

    /// One more voter has said which epoch it has accepted; with a quorum the new epoch is above them all.
    fn choose_epoch(&mut self, base: &mut Base, accepted: i64, out: &mut Vec<Action>) {
        self.epoch = self.epoch.max(accepted + 1);
        if self.epoch > EPOCH_MAX {
            return out.push(Action::Fail(format!(
                "this member has accepted epoch {accepted}, and there is none behind it; stop every member, make the \
                 files acceptedEpoch and currentEpoch hold the epoch of the last transaction, and start them again"
            )));
        }
        if self.quorum(base, |member| member.stage != Stage::Unknown) {
            self.phase = Phase::Accepting;
            out.push(Action::StoreEpoch(EpochKind::Accepted, self.epoch));
        }
    }

    fn leader_info(&self, link: Link) -> Action {
        let data = Bytes::copy_from_slice(&LEARNER_PROTOCOL.to_be_bytes());
        Action::Send(link, QuorumPacket::new(PacketKind::LeaderInfo, Zxid(self.epoch << 32)).with_data(data))
    }

    fn tell_epoch(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        let registered = self.members.iter().filter(|(_, member)| member.stage == Stage::Registered);
        out.extend(registered.map(|(link, _)| self.leader_info(*link)));
        self.try_make_current(base, out);
    }

    fn hear_ack_epoch(&mut self, base: &mut Base, link: Link, packet: &QuorumPacket, out: &mut Vec<Action>) {
        let data = packet.data.as_deref().unwrap_or_default();
        let Ok(current_epoch) = i32::decode(&mut Reader::new(data)) else {
            return self.refuse(link, "its acknowledgement of the epoch cannot be read", out);
        };
        // −1: accepted this epoch before; such an acknowledgement proves nothing anew. A learner with more
        // history than the leader means that the election went wrong: this leader must not go on.
        if current_epoch != -1
            && (i64::from(current_epoch), packet.zxid) > (base.current_epoch, base.logged)
            && self.phase != Phase::Broadcasting
            && self.phase != Phase::Synchronising
        {
            return self.refuse(link, "it has more history than this leader", out);
        }
        let Some(member) = self.members.get_mut(&link) else { return };
        member.stage = Stage::Accepted(packet.zxid);
        // Who had accepted it before may have done so for another leader of the same number; and who has no
        // data says nothing about what was committed.
        if counts(member) && current_epoch != -1 && packet.zxid != NO_DATA {
            self.epoch_acks.insert(member.sid);
        }
        let (sid, votes) = (member.sid, member.votes);
        self.drop_others(link, sid, |other| votes || !other.votes, out);
        match self.phase {
            Phase::Discovering | Phase::Accepting => self.try_make_current(base, out),
            Phase::Synchronising | Phase::Broadcasting => self.synchronise(base, link, out),
        }
    }

    fn try_make_current(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        if self.phase == Phase::Accepting
            && self.epoch_stored
            && base.electorate.is_quorum(self.epoch_acks.iter().chain([&base.electorate.me]))
        {
            self.phase = Phase::Synchronising;
            self.deadline_ms = base.now_ms + base.settings.init_ms();
            out.push(Action::StoreEpoch(EpochKind::Current, self.epoch));
        }
    }

    // ---- synchronisation ----

    /// The leader's history, and behind it its current epoch, are on its disk.
    fn begin_sync(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        let waiting: Vec<Link> = self
            .members
            .iter()
            .filter(|(_, member)| matches!(member.stage, Stage::Accepted(_)))
            .map(|(link, _)| *link)
            .collect();
        for link in waiting {
            self.synchronise(base, link, out);
        }
        self.try_establish(base, out);
    }

    fn synchronise(&mut self, base: &mut Base, link: Link, out: &mut Vec<Action>) {
        // Until the leader's own epoch is current, nobody is told that it is.
        if base.current_epoch != self.epoch {
            return;
        }
        let Some(member) = self.members.get_mut(&link) else { return };
        let Stage::Accepted(learner) = member.stage else { return };
        member.stage = Stage::Synchronising;
        let (observer, sid) = (member.observer, member.sid);
        // What it acknowledged on an earlier connection it may be about to cut off: it gets all of it again, and
        // until it has acknowledged it again, that is on one disk less.
        for proposal in &mut self.outstanding {
            proposal.acks.retain(|by| *by != sid);
        }
        let send = |kind, zxid, data: Option<Bytes>| {
            Action::Send(link, QuorumPacket { data, ..QuorumPacket::new(kind, zxid) })
        };
        let applied = base.applied;
        let from = match plan(learner, &base.history, applied) {
            Plan::Diff { from } => {
                let end = if learner == applied { learner } else { applied };
                out.push(send(PacketKind::Diff, end, None));
                from
            }
            Plan::Trunc { to } => {
                out.push(send(PacketKind::Trunc, to, None));
                to
            }
            Plan::FromLog { upto } => {
                out.push(Action::SyncFromLog { link, learner, upto });
                upto
            }
            Plan::Snap => {
                out.push(send(PacketKind::Snap, applied, None));
                out.push(Action::SendSnapshot(link));
                applied
            }
        };
        for (zxid, payload) in base.history.iter().filter(|(zxid, _)| *zxid > from) {
            out.push(send(PacketKind::Proposal, zxid, Some(payload.clone())));
            out.push(send(PacketKind::Commit, zxid, None));
        }
        if !observer && !chosen(Bug::HoleInSync) {
            for proposal in &self.outstanding {
                out.push(send(PacketKind::Proposal, proposal.zxid, Some(proposal.payload.clone())));
            }
        }
        let config = Bytes::copy_from_slice(base.electorate.config.as_bytes());
        out.push(send(PacketKind::NewLeader, Zxid(self.epoch << 32), Some(config)));
    }

    /// A quorum has the history: from here on this member leads.
    fn try_establish(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        let has = |member: &Member| matches!(member.stage, Stage::Synchronised | Stage::Following);
        if self.phase != Phase::Synchronising || base.current_epoch != self.epoch || !self.quorum(base, has) {
            return;
        }
        self.phase = Phase::Broadcasting;
        self.established = true;
        out.push(Action::Become(Role::Leading { epoch: self.epoch }));
        let links: Vec<Link> = self.members.keys().copied().collect();
        for link in links {
            self.welcome(base, link, out);
        }
    }

    fn welcome(&mut self, base: &Base, link: Link, out: &mut Vec<Action>) {
        let broadcasting = self.phase == Phase::Broadcasting;
        let Some(member) = self.members.get_mut(&link) else { return };
        if broadcasting && member.stage == Stage::Synchronised {
            member.stage = Stage::Following;
            // Its first pings may wait behind what it has to log.
            member.deadline_ms = base.now_ms + base.settings.sync_ms();
            out.push(Action::Send(link, QuorumPacket::new(PacketKind::UpToDate, Zxid(-1))));
        }
    }

    // ---- broadcast ----

    fn propose(&mut self, base: &mut Base, zxid: Zxid, payload: Bytes, out: &mut Vec<Action>) {
        assert!(self.phase == Phase::Broadcasting, "only an established leader proposes");
        let last = self.outstanding.back().map_or(base.logged, |proposal| proposal.zxid);
        let expected =
            if last.epoch() as i64 == self.epoch { last.next() } else { Zxid(self.epoch << 32).next() };
        assert!(zxid == expected, "proposals are numbered without holes: {zxid} behind {last}");
        let packet = QuorumPacket::new(PacketKind::Proposal, zxid).with_data(payload.clone());
        for (link, member) in &self.members {
            if member.is_forwarding() && !member.observer {
                out.push(Action::Send(*link, packet.clone()));
            }
        }
        base.append(zxid, payload.clone(), out);
        let proposed_ms = base.now_ms;
        self.outstanding.push_back(Proposal {
            zxid,
            payload,
            acks: SmallVec::new(),
            proposed_ms,
            answers: Vec::new(),
        });
        if chosen(Bug::AckBeforeSync) {
            self.acknowledge_own(base, zxid, out);
        }
    }

    fn acknowledge_own(&mut self, base: &mut Base, durable: Zxid, out: &mut Vec<Action>) {
        let me = base.electorate.me;
        for proposal in self.outstanding.iter_mut().take_while(|proposal| proposal.zxid <= durable) {
            proposal.acknowledge(me);
        }
        self.commit(base, out);
    }

    fn acknowledge(&mut self, base: &mut Base, link: Link, zxid: Zxid, out: &mut Vec<Action>) {
        let Some(member) = self.members.get(&link).filter(|member| counts(member)) else { return };
        // The second acknowledgement of the synchronisation names the epoch's beginning.
        if let Ok(index) = self.outstanding.binary_search_by_key(&zxid, |proposal| proposal.zxid) {
            self.outstanding[index].acknowledge(member.sid);
            self.commit(base, out);
        }
    }

    fn commit(&mut self, base: &mut Base, out: &mut Vec<Action>) {
        while let Some(head) = self.outstanding.pop_front_if(|head| {
            base.electorate.is_quorum(head.acks.iter()) || chosen(Bug::CommitWithoutQuorum)
        }) {
            let Proposal { zxid, payload, answers, .. } = head;
            let commit = QuorumPacket::new(PacketKind::Commit, zxid);
            for (link, member) in self.members.iter().filter(|(_, member)| member.is_forwarding()) {
                let packet = if member.observer {
                    QuorumPacket::new(PacketKind::Inform, zxid).with_data(payload.clone())
                } else {
                    commit.clone()
                };
                out.push(Action::Send(*link, packet));
            }
            base.apply(zxid, payload, out);
            out.extend(answers.into_iter().map(|(link, answer)| Action::Send(link, answer)));
        }
    }

    // ---- time ----

    fn tick(&mut self, base: &mut Base, out: &mut Vec<Action>) -> Next {
        let now_ms = base.now_ms;
        let silent: Vec<(Link, Why)> = self
            .members
            .iter()
            .filter(|(_, member)| now_ms >= member.deadline_ms)
            .map(|(link, member)| {
                let silent_ms = member.patience_ms(base);
                (*link, Why::LearnerSilent { learner: member.sid, silent_ms })
            })
            .collect();
        for (link, why) in silent {
            self.drop_member(link, why, out);
        }
        self.ping(base, out);
        if self.phase != Phase::Broadcasting {
            let is_late = now_ms >= self.deadline_ms;
            let why = Why::NoQuorumCame(base.settings.init_ms());
            return if is_late { Next::Look(why) } else { Next::Stay };
        }
        let waited_ms = base.settings.sync_ms();
        if let Some(oldest) = self.outstanding.front()
            && now_ms >= oldest.proposed_ms + waited_ms
        {
            return Next::Look(Why::Unacknowledged { zxid: oldest.zxid, waited_ms });
        }
        if !self.quorum(base, |member| matches!(member.stage, Stage::Synchronised | Stage::Following)) {
            return Next::Look(Why::QuorumLost);
        }
        Next::Stay
    }

    /// Says to learners that this leader is there: before they follow, to those that take it. (Apache's learner ends when
    /// it is pinged where it expects DIFF, TRUNC or SNAP.)
    fn ping(&mut self, base: &Base, out: &mut Vec<Action>) {
        if base.now_ms < self.next_ping_ms {
            return;
        }
        self.next_ping_ms = base.now_ms + base.settings.ping_ms();
        let takes = |member: &Member| member.stage == Stage::Following || member.takes_pings;
        for (link, _) in self.members.iter().filter(|(_, member)| takes(member)) {
            out.push(Action::Send(*link, QuorumPacket::new(PacketKind::Ping, base.logged)));
        }
    }
}

/// Whether what this learner acknowledges counts.
fn counts(member: &Member) -> bool {
    member.votes || chosen(Bug::CountTheUnlisted)
}

/// Why somebody who introduces itself like that cannot be led here.
fn unfit(base: &Base, info: &LearnerInfo) -> Option<&'static str> {
    if info.sid < 0 {
        return Some("its id is negative");
    }
    if info.sid == base.electorate.me.0 {
        return Some("it claims this leader's own id; give every member its own number in myid");
    }
    if info.protocol < LEARNER_PROTOCOL {
        return Some("its protocol is older than 3.4's");
    }
    // Whoever knows a later configuration must not be led by this leader.
    let is_later = info.config_version > base.electorate.config_version;
    is_later.then_some("it knows a later configuration of the ensemble")
}
