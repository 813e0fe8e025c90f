//! Many small worlds of members that run nothing but the protocol, each world from one seed: messages are
//! delivered in random order between links, disks are slow, members crash and lose what was not synced,
//! links break. In the end everything heals and the members must agree and make progress.
//!
//! Judged: no committed transaction is ever lost or changed; states are prefixes of one another; an epoch
//! has one leader; after healing, a new write is committed everywhere; whatever liars say then deposes nobody.
//!
//! The world plays the operator where one is needed: a member that has accepted a later epoch than the leader's stays
//! outside until the next election.

mod liar;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use zoometry_replica::zab::election::{Electorate, NotificationIntervals};
use zoometry_replica::zab::history::HISTORY_DEFAULT;
use zoometry_replica::zab::sync::{Plan, plan_from_log};
use zoometry_replica::zab::{Action, EpochKind, Event, Link, Recovered, Role, ServerId, Settings, Why, Zab};
use zoometry_wire::Zxid;
use zoometry_wire::peer::{Notification, PacketKind, QuorumPacket};

use crate::random::Random;
use crate::story::Story;

type Txns = Vec<(Zxid, Bytes)>;

#[derive(Debug)]
enum Job {
    Append(Zxid, Bytes),
    Epoch(EpochKind, i64),
    Snapshot(Txns),
    Truncate(Zxid),
}

/// What a member knows of a transaction that it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Committed,
    /// It has lost its leader; the transaction is in its log.
    Logged,
}

/// What survives a crash, and what is on its way there.
#[derive(Debug, Default)]
struct Disk {
    log: Txns,
    accepted: i64,
    current: i64,
    queue: VecDeque<Job>,
}

#[derive(Debug)]
enum Cargo {
    Packet(QuorumPacket),
    Snapshot(QuorumPacket, Txns),
}

struct Wire {
    ends: [ServerId; 2],
    lanes: [VecDeque<Cargo>; 2],
}

#[derive(Default)]
struct Member {
    zab: Option<Zab>,
    disk: Disk,
    state: Txns,
    role: Option<Role>,
    /// The leader and the epoch that it could not follow.
    outside: Option<(ServerId, i64)>,
    arrived_snapshot: BTreeMap<Link, Txns>,
    events: VecDeque<Event>,
    snap_packet: Option<(Link, QuorumPacket)>,
}

struct World {
    random: Random,
    now_ms: u64,
    time_stands: bool,
    members: BTreeMap<ServerId, Member>,
    voters: Vec<ServerId>,
    wires: BTreeMap<Link, Wire>,
    votes: BTreeMap<(ServerId, ServerId), VecDeque<Notification>>,
    cut: Vec<(ServerId, ServerId)>,
    next_link: u64,
    liars: BTreeMap<Link, liar::Part>,
    next_value: u64,
    /// What a leader has applied while it led: its client may have been told.
    committed: BTreeMap<Zxid, Bytes>,
    leaders: BTreeMap<i64, ServerId>,
    story: Story,
}

const TICK_MS: u64 = 100;

impl World {
    fn new(seed: u64, story: Story) -> Self {
        let mut random = Random::new(seed);
        let voters = [3, 3, 5, 4][random.below(4)];
        let observers = random.below(2) as i64;
        Self::of(seed, story, voters, observers)
    }

    fn of(seed: u64, story: Story, voters: i64, observers: i64) -> Self {
        let voters: Vec<ServerId> = (1..=voters).map(ServerId).collect();
        let all = (1..=voters.len() as i64 + observers).map(ServerId);
        let mut world = Self {
            random: Random::new(seed),
            now_ms: 0,
            time_stands: false,
            members: all.map(|id| (id, Member::default())).collect(),
            voters,
            wires: BTreeMap::new(),
            votes: BTreeMap::new(),
            cut: Vec::new(),
            next_link: 1,
            liars: BTreeMap::new(),
            next_value: 1,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            story,
        };
        for id in world.ids() {
            world.start(id);
        }
        world
    }

    fn ids(&self) -> Vec<ServerId> {
        self.members.keys().copied().collect()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        self.story.tell(|| format!("{now_ms:6} {}", line()));
    }

    fn start(&mut self, id: ServerId) {
        self.note(|| format!("start {id}"));
        let settings = Settings {
            tick_ms: TICK_MS,
            init_limit: 10,
            sync_limit: 5,
            notifications: NotificationIntervals { min_ms: 200, max_ms: 2000 },
            silence_ms: None,
            history_limit: HISTORY_DEFAULT,
        };
        let electorate = Electorate {
            me: id,
            voters: self.voters.iter().copied().collect(),
            config: String::new(),
            config_version: 0,
        };
        let member = self.members.get_mut(&id).unwrap();
        member.disk.queue.clear();
        member.state = member.disk.log.clone();
        let last_zxid = member.state.last().map_or(Zxid(0), |(zxid, _)| *zxid);
        let (accepted_epoch, current_epoch) = (member.disk.accepted, member.disk.current);
        let mut zab = Zab::new(settings, electorate, Recovered { last_zxid, accepted_epoch, current_epoch });
        let known = member.state.len().saturating_sub(3);
        for (zxid, payload) in &member.state[known..] {
            zab.remember(*zxid, payload.clone());
        }
        member.zab = Some(zab);
        member.events.clear();
        member.snap_packet = None;
        for other in self.ids() {
            if other != id && self.members[&other].zab.is_some() {
                self.give(id, Event::Reachable(other, true));
                self.give(other, Event::Reachable(id, true));
            }
        }
        self.give(id, Event::Tick);
    }

    fn crash(&mut self, id: ServerId) {
        self.note(|| format!("crash {id}"));
        let member = self.members.get_mut(&id).unwrap();
        member.zab = None;
        member.role = None;
        member.events.clear();
        member.disk.queue.clear();
        let links: Vec<Link> =
            self.wires.iter().filter(|(_, wire)| wire.ends.contains(&id)).map(|(link, _)| *link).collect();
        for link in links {
            self.break_link(link);
        }
        self.votes.retain(|(from, to), _| *from != id && *to != id);
        for other in self.ids() {
            self.give(other, Event::Reachable(id, false));
        }
    }

    fn break_link(&mut self, link: Link) {
        if let Some(wire) = self.wires.remove(&link) {
            for end in wire.ends {
                self.give(end, Event::Closed(link));
            }
        }
    }

    fn give(&mut self, id: ServerId, event: Event) {
        if let Some(member) = self.members.get_mut(&id).filter(|member| member.zab.is_some()) {
            member.events.push_back(event);
        }
    }

    fn is_cut(&self, a: ServerId, b: ServerId) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    /// One member takes the next of its events.
    fn run(&mut self, id: ServerId) {
        let now_ms = self.now_ms;
        let member = self.members.get_mut(&id).unwrap();
        let (Some(zab), Some(event)) = (member.zab.as_mut(), member.events.pop_front()) else { return };
        let described = format!("{event:?}");
        let mut actions = Vec::new();
        zab.step(now_ms, event, &mut actions);
        if described != "Tick" || !actions.is_empty() {
            self.note(|| format!("{id} <- {described}"));
        }
        for action in actions {
            self.perform(id, action);
        }
    }

    fn perform(&mut self, id: ServerId, action: Action) {
        self.note(|| format!("{id}    {action:?}"));
        match action {
            Action::Notify(to, vote) => self.votes.entry((id, to)).or_default().push_back(vote),
            Action::Connect(to) => self.connect(id, to),
            Action::Send(link, packet) => self.send(id, link, packet),
            Action::SendSnapshot(link) => {
                let member = self.members.get_mut(&id).unwrap();
                let (at, packet) = member.snap_packet.take().expect("SNAP goes before its stream");
                assert_eq!(at, link);
                let state = member.state.clone();
                assert_eq!(packet.zxid, state.last().map_or(Zxid(0), |(zxid, _)| *zxid));
                self.load(id, link, Cargo::Snapshot(packet, state));
            }
            Action::Reload(end) => {
                while !self.members[&id].disk.queue.is_empty() {
                    self.finish_a_job(id);
                }
                let member = self.members.get_mut(&id).unwrap();
                member.state = member.disk.log.clone();
                assert_eq!(end, member.state.last().map_or(Zxid(0), |(zxid, _)| *zxid));
            }
            Action::SyncFromLog { link, learner, upto } => self.sync_from_log(id, link, learner, upto),
            Action::Pong(link, zxid) => {
                let pong = QuorumPacket::new(PacketKind::Ping, zxid).with_data(Bytes::new());
                self.load(id, link, Cargo::Packet(pong));
            }
            Action::Close(link) => {
                let other =
                    self.wires.remove(&link).and_then(|wire| wire.ends.into_iter().find(|end| *end != id));
                if let Some(other) = other {
                    self.give(other, Event::Closed(link));
                }
            }
            Action::InstallSnapshot(link) => {
                let member = self.members.get_mut(&id).unwrap();
                member.state = member.arrived_snapshot.remove(&link).expect("it has arrived");
            }
            Action::Append(zxid, payload) => self.queue(id, Job::Append(zxid, payload)),
            Action::StoreEpoch(kind, epoch) => self.queue(id, Job::Epoch(kind, epoch)),
            Action::StoreSnapshot => {
                let state = self.members[&id].state.clone();
                self.queue(id, Job::Snapshot(state));
            }
            Action::Truncate(zxid) => self.queue(id, Job::Truncate(zxid)),
            Action::Apply(zxid, payload) => self.apply(id, zxid, payload, Known::Committed),
            Action::Adopt(zxid, payload) => self.apply(id, zxid, payload, Known::Logged),
            Action::Become(role) => self.become_role(id, role),
            Action::Tell(Why::LeaderOutdated { leader, epoch, .. }) => {
                self.members.get_mut(&id).unwrap().outside = Some((leader, epoch));
            }
            Action::Upcall(..) | Action::Tell(_) => {}
            Action::Fail(why) => panic!("{id}: {why}"),
        }
    }

    /// From the member's own log, as far as its disk has it; sometimes a part of the log has been purged.
    fn sync_from_log(&mut self, id: ServerId, link: Link, learner: Zxid, upto: Zxid) {
        let member = &self.members[&id];
        let purged = if self.random.one_in(3) { self.random.below(member.disk.log.len() + 1) } else { 0 };
        let log = member.disk.log[purged..].iter().filter(|(zxid, _)| *zxid <= upto);
        let log: Txns = log.cloned().collect();
        let split = log.partition_point(|(zxid, _)| *zxid <= learner);
        let known = split.checked_sub(1).map(|at| log[at].0);
        let plan = if log.last().is_some_and(|(zxid, _)| *zxid == upto) {
            plan_from_log(learner, known, log.get(split).map(|(zxid, _)| *zxid))
        } else {
            Plan::Snap
        };
        let (packet, from) = match plan {
            Plan::Diff { from } => (QuorumPacket::new(PacketKind::Diff, upto), from),
            Plan::Trunc { to } => (QuorumPacket::new(PacketKind::Trunc, to), to),
            Plan::Snap | Plan::FromLog { .. } => {
                let state = member.state.clone();
                let last = state.last().map_or(Zxid(0), |(zxid, _)| *zxid);
                return self.load(
                    id,
                    link,
                    Cargo::Snapshot(QuorumPacket::new(PacketKind::Snap, last), state),
                );
            }
        };
        self.note(|| format!("{id}    from the log: {packet:?} {from}"));
        self.load(id, link, Cargo::Packet(packet));
        for (zxid, payload) in log.into_iter().filter(|(zxid, _)| *zxid > from) {
            let proposal = QuorumPacket::new(PacketKind::Proposal, zxid).with_data(payload);
            self.load(id, link, Cargo::Packet(proposal));
            self.load(id, link, Cargo::Packet(QuorumPacket::new(PacketKind::Commit, zxid)));
        }
    }

    fn queue(&mut self, id: ServerId, job: Job) {
        self.members.get_mut(&id).unwrap().disk.queue.push_back(job);
    }

    fn become_role(&mut self, id: ServerId, role: Role) {
        if let Role::Leading { epoch } = role {
            let leader = *self.leaders.entry(epoch).or_insert(id);
            assert_eq!(leader, id, "two leaders in epoch {epoch}");
        }
        self.members.get_mut(&id).unwrap().role = Some(role);
    }

    fn apply(&mut self, id: ServerId, zxid: Zxid, payload: Bytes, known: Known) {
        let member = self.members.get_mut(&id).unwrap();
        if let Some((last, _)) = member.state.last() {
            assert!(zxid > *last, "{id} applies {zxid} behind {last}");
        }
        member.state.push((zxid, payload.clone()));
        // What is applied in a synchronisation was committed long ago, or is about to be.
        if known == Known::Committed && member.zab.as_ref().unwrap().is_established() {
            let known = self.committed.entry(zxid).or_insert(payload.clone());
            assert_eq!(*known, payload, "two transactions at {zxid}");
        }
    }

    fn connect(&mut self, id: ServerId, to: ServerId) {
        if self.members[&to].zab.is_none() || self.is_cut(id, to) {
            return self.give(id, Event::Unreachable(to));
        }
        let link = Link(self.next_link);
        self.next_link += 1;
        self.wires.insert(link, Wire { ends: [id, to], lanes: Default::default() });
        self.give(id, Event::Connected(to, link));
        self.give(to, Event::Accepted(link));
    }

    fn send(&mut self, id: ServerId, link: Link, packet: QuorumPacket) {
        if packet.kind == PacketKind::Snap as i32 {
            self.members.get_mut(&id).unwrap().snap_packet = Some((link, packet));
        } else {
            self.load(id, link, Cargo::Packet(packet));
        }
    }

    fn load(&mut self, id: ServerId, link: Link, cargo: Cargo) {
        if let Some(wire) = self.wires.get_mut(&link) {
            let lane = usize::from(wire.ends[0] == id);
            wire.lanes[lane].push_back(cargo);
        }
    }

    /// Something on some link or election connection arrives.
    fn deliver(&mut self) {
        self.answer_as_liars();
        let mut lanes: Vec<(Link, usize)> = Vec::new();
        for (link, wire) in &self.wires {
            let [a, b] = wire.ends;
            if !self.is_cut(a, b) && !self.liars.contains_key(link) {
                lanes.extend((0..2).filter(|lane| !wire.lanes[*lane].is_empty()).map(|lane| (*link, lane)));
            }
        }
        if !lanes.is_empty() {
            let (link, lane) = lanes[self.random.below(lanes.len())];
            let wire = self.wires.get_mut(&link).unwrap();
            let to = wire.ends[lane];
            let packet = match wire.lanes[lane].pop_front().unwrap() {
                Cargo::Packet(packet) => packet,
                Cargo::Snapshot(packet, state) => {
                    self.members.get_mut(&to).unwrap().arrived_snapshot.insert(link, state);
                    packet
                }
            };
            self.give(to, Event::Packet(link, packet));
        }
        let pairs: Vec<_> =
            self.votes.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        if !pairs.is_empty() {
            let (from, to) = pairs[self.random.below(pairs.len())];
            let vote = self.votes.get_mut(&(from, to)).unwrap().pop_front().unwrap();
            if !self.is_cut(from, to) {
                self.give(to, Event::Vote(from, vote));
            }
        }
    }

    /// Some disk finishes a job.
    fn sync_some_disk(&mut self) {
        let ids = self.ids();
        let id = ids[self.random.below(ids.len())];
        self.finish_a_job(id);
    }

    fn finish_a_job(&mut self, id: ServerId) {
        let member = self.members.get_mut(&id).unwrap();
        let disk = &mut member.disk;
        let Some(job) = disk.queue.pop_front() else { return };
        let event = match job {
            Job::Append(zxid, payload) => {
                disk.log.push((zxid, payload));
                Event::Durable(zxid)
            }
            Job::Epoch(kind, epoch) => {
                match kind {
                    EpochKind::Accepted => disk.accepted = epoch,
                    EpochKind::Current => disk.current = epoch,
                }
                Event::EpochStored(kind, epoch)
            }
            Job::Snapshot(state) => {
                disk.log = state;
                Event::SnapshotStored
            }
            // As if what lies before it were in a snapshot that cannot be undone.
            Job::Truncate(_) if self.random.one_in(4) => Event::TruncateRefused,
            Job::Truncate(zxid) => {
                assert!(
                    zxid.0 == 0 || disk.log.iter().any(|(at, _)| *at == zxid),
                    "{id} cannot cut at {zxid}, which it does not have"
                );
                disk.log.retain(|(at, _)| *at <= zxid);
                member.state = disk.log.clone();
                Event::Truncated
            }
        };
        self.give(id, event);
    }

    /// Whoever leads gets a write.
    fn write(&mut self) {
        for id in self.ids() {
            let member = &self.members[&id];
            let (Some(Role::Leading { epoch }), Some(zab)) = (member.role, &member.zab) else { continue };
            // Behind the events that are on their way, which may end the leadership, nothing is proposed.
            if !zab.is_established() || !member.events.is_empty() {
                continue;
            }
            let last = zab.logged();
            let zxid = if i64::from(last.epoch()) == epoch { last.next() } else { Zxid(epoch << 32).next() };
            let value = Bytes::copy_from_slice(&self.next_value.to_be_bytes());
            self.next_value += 1;
            self.give(id, Event::Propose(zxid, value));
            self.run(id);
        }
    }

    fn some_fault(&mut self) {
        let ids = self.ids();
        let id = ids[self.random.below(ids.len())];
        match self.random.below(8) {
            6 | 7 => self.lie(id),
            0 if self.members[&id].zab.is_some() => self.crash(id),
            1 | 2 if self.members[&id].zab.is_none() => self.start(id),
            3 => self.cut_off(id),
            4 | 5 => self.cut.clear(),
            _ => {}
        }
    }

    fn cut_off(&mut self, id: ServerId) {
        let ids = self.ids();
        let other = ids[self.random.below(ids.len())];
        if other == id {
            return;
        }
        self.cut.push((id, other));
        // Sometimes the ends learn of it at once, sometimes only by the silence.
        if self.random.one_in(2) {
            let between = |wire: &Wire| wire.ends.contains(&id) && wire.ends.contains(&other);
            let links: Vec<Link> =
                self.wires.iter().filter(|(_, wire)| between(wire)).map(|(link, _)| *link).collect();
            links.into_iter().for_each(|link| self.break_link(link));
        }
    }

    fn spin(&mut self, steps: usize, faults: bool) {
        for _ in 0..steps {
            match self.random.below(12) {
                0 if !self.time_stands && self.random.one_in(3) => {
                    self.now_ms += 5 + self.random.below(20) as u64;
                    for id in self.ids() {
                        self.give(id, Event::Tick);
                    }
                }
                1..=4 => self.deliver(),
                5..=6 => self.sync_some_disk(),
                7 if self.random.one_in(6) => self.write(),
                8 if faults && self.random.one_in(25) => self.some_fault(),
                _ => {
                    let ids = self.ids();
                    let id = ids[self.random.below(ids.len())];
                    self.run(id);
                }
            }
        }
    }

    /// Restarts a leader that has led for long while a member cannot follow it.
    fn play_the_operator(&mut self) {
        let leads =
            |(leader, epoch): (ServerId, i64)| self.members[&leader].role == Some(Role::Leading { epoch });
        let kept_out = self.members.values().filter(|member| member.role == Some(Role::Looking));
        let leader = kept_out.filter_map(|member| member.outside).find(|outside| leads(*outside));
        if let Some((leader, epoch)) = leader {
            self.note(|| format!("{leader}, which leads epoch {epoch}, is restarted for those outside"));
            self.crash(leader);
            self.start(leader);
        }
    }

    fn judge(&self) {
        let states: Vec<(ServerId, &Txns)> =
            self.members.iter().filter(|(_, m)| m.zab.is_some()).map(|(id, m)| (*id, &m.state)).collect();
        for (id, state) in &states {
            assert_eq!(*state, states[0].1, "{id} and {} differ", states[0].0);
        }
        self.judge_the_committed();
    }

    /// Whatever liars say, who leads goes on. No time passes: nobody is given up for a silence.
    fn judge_the_liars(&mut self) {
        let leads =
            |world: &Self, id: &ServerId| world.members[id].zab.as_ref().is_some_and(Zab::is_established);
        let leaders: Vec<ServerId> = self.ids().into_iter().filter(|id| leads(self, id)).collect();
        self.time_stands = true;
        for id in self.ids() {
            self.lie(id);
            self.spin(150, false);
            for id in self.ids() {
                self.give(id, Event::Tick);
            }
            self.spin(150, false);
        }
        assert!(leaders.iter().all(|id| leads(self, id)), "a liar has deposed {leaders:?}");
    }

    /// What one member lacks of the newest may be on its way.
    fn judge_the_committed(&self) {
        let states = self.members.iter().filter(|(_, m)| m.zab.is_some()).map(|(id, m)| (*id, &m.state));
        for (id, state) in states {
            let end = state.last().map_or(Zxid(0), |(zxid, _)| *zxid);
            let at: BTreeMap<Zxid, &Bytes> = state.iter().map(|(zxid, payload)| (*zxid, payload)).collect();
            for (zxid, payload) in self.committed.range(..=end) {
                let own = at.get(zxid).unwrap_or_else(|| panic!("{id} has lost {zxid}"));
                assert_eq!(*own, payload, "{id} has something else at {zxid}");
            }
        }
    }
}

/// Four of five members have lost their data and write anew when the fifth comes back, whose epoch is the later one: it
/// stays outside, and what they have written since is kept. Apache's leader goes on, too.
pub fn four_lost_their_data(seed: u64) {
    let mut world = World::of(seed, Story::silent(), 5, 0);
    let fifth = ServerId(1 + world.random.below(5) as i64);
    let write_some = |world: &mut World, at_least: usize| {
        for _ in 0..200 {
            world.spin(500, false);
            if world.committed.len() >= at_least {
                return;
            }
        }
        panic!("nothing is committed: {:?}", world.leaders);
    };
    // A few epochs, so that the old one is the later.
    for round in 1..=3 {
        write_some(&mut world, round * 2);
        let leader = *world.leaders.values().next_back().unwrap();
        world.crash(leader);
        world.start(leader);
    }
    write_some(&mut world, 8);
    for id in world.ids() {
        world.crash(id);
    }
    for id in world.ids().into_iter().filter(|id| *id != fifth) {
        *world.members.get_mut(&id).unwrap() = Member::default();
        world.start(id);
    }
    world.committed.clear();
    world.leaders.clear();
    write_some(&mut world, 3);
    let leaders = world.leaders.clone();
    world.start(fifth);
    world.spin(20_000, false);
    assert_eq!(world.leaders, leaders, "the one that still had its data has deposed the leader");
    assert!(world.members[&fifth].outside.is_some(), "{fifth} has found a leader that it cannot follow");
    world.members.remove(&fifth);
    world.judge_the_committed();
}

/// Lives one world through. Panics when a judge objects.
pub fn live(seed: u64, story: Story) -> Story {
    let mut world = World::new(seed, story);
    world.spin(12_000, true);
    // Everything heals; a new write must reach everybody.
    world.note(|| "heal".into());
    world.cut.clear();
    for id in world.ids() {
        if world.members[&id].zab.is_none() {
            world.start(id);
        }
    }
    let before = world.next_value;
    for round in 0.. {
        world.spin(2_000, false);
        let is_new = |value: &Bytes| u64::from_be_bytes(value[..].try_into().unwrap()) >= before;
        let committed_new = world.committed.values().any(is_new);
        let ends: Vec<_> =
            world.members.values().map(|member| member.state.last().map(|(zxid, _)| *zxid)).collect();
        let idle = world.members.values().all(|member| member.disk.queue.is_empty());
        if committed_new && idle && ends.iter().all(|end| *end == ends[0]) {
            break;
        }
        assert!(round < 200, "no progress after healing: {ends:?}");
        if round % 10 == 9 {
            world.play_the_operator();
        }
    }
    world.judge();
    world.judge_the_liars();
    world.judge_the_committed();
    world.story
}
