//! The body of a simulated member: performs what [`Member`] puts out, in order, and serves connections through
//! a real [`Pipeline`], as the server does.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use zoometry_replica::member::{Asking, Member, Output, Submitted, Surroundings};
use zoometry_replica::pipeline::Pipeline;
use zoometry_replica::storage::SnapshotItem;
use zoometry_replica::store::session::{self, SessionTracker};
use zoometry_replica::store::watch::{WatchEvent, WatchSink, WatcherId};
use zoometry_replica::store::{Caller, Store, Walk};
use zoometry_replica::zab::election::{Electorate, NotificationIntervals};
use zoometry_replica::zab::history::HISTORY_DEFAULT;
use zoometry_replica::zab::{Action, Doubt, Event, Link, Recovered, Role, ServerId, Settings, Why, Zab};
use zoometry_wire::peer::{PacketKind, QuorumPacket};
use zoometry_wire::records::{EventType, xid};
use zoometry_wire::{ErrorCode, Id, OpCode, Request, Response, SessionId, Txn, TxnRecord, Zxid};

use super::bugs::{self, Bug};
use super::client::{ToClient, ToServer};
use super::disk::{DiskQueue, Job, Pending};
use super::network::{Cargo, End, Stream};
use super::weather::Moment;
use super::{Due, Machine, TICK_MS, World, store_config};

/// A running member.
pub(super) struct Process {
    pub(super) member: Member,
    pub(super) store: Store,
    sessions: SessionTracker,
    pub(super) role: Role,
    outputs: VecDeque<Output>,
    pub(super) disk: DiskQueue,
    conns: BTreeMap<u64, Conn>,
    /// Which connection asked for what was proposed here, by zxid.
    asked: VecDeque<(Zxid, u64)>,
    by_session: BTreeMap<SessionId, u64>,
    opening: BTreeMap<SessionId, u64>,
    /// Connections that wait for the leader's word about their session, oldest first.
    reattaching: VecDeque<(SessionId, u64)>,
    arrived: BTreeMap<Link, (Store, Option<Zxid>)>,
    streams: Vec<(u64, Walk, Rc<std::cell::RefCell<Stream>>)>,
}

/// A client's connection.
struct Conn {
    session: SessionId,
    timeout_ms: i32,
    phase: Phase,
    pipeline: Pipeline<PendingWrite, (i32, Request)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
}

#[derive(Debug, Clone, Copy)]
struct PendingWrite {
    xid: i32,
}

/// Collects what a transaction tells watchers.
#[derive(Default)]
struct Events(Vec<(EventType, String, Zxid, Vec<WatcherId>)>);

impl WatchSink for Events {
    fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]) {
        self.0.push((event.kind, event.path.to_string(), event.zxid, watchers.to_vec()));
    }
}

fn ids() -> [Id; 1] {
    [Id { scheme: "ip".into(), id: "127.0.0.1".into() }]
}

impl Machine {
    /// What it has told others that it has must be there when it starts again.
    fn judge_promises(&self, recovered: Recovered, id: ServerId) {
        let Recovered { last_zxid, accepted_epoch, current_epoch } = recovered;
        assert!(
            accepted_epoch >= self.promised_accepted && current_epoch >= self.promised_current,
            "{id} said that it has accepted epoch {} and has the history of epoch {}, and starts with \
             {accepted_epoch} and {current_epoch}",
            self.promised_accepted,
            self.promised_current
        );
        assert!(
            last_zxid >= self.promised,
            "{id} said that it has {} on its disk, and starts with {last_zxid}",
            self.promised
        );
    }
}

impl Process {
    /// Who asked for a transaction: what was proposed here is known by its zxid; a learner knows what its clients
    /// asked for by session and xid, which [`World::answer_write`] compares.
    fn origin(&mut self, zxid: Zxid, session: SessionId) -> Option<u64> {
        if self.member.prepares() {
            return self.asked.pop_front_if(|(asked, _)| *asked == zxid).map(|(_, wire)| wire);
        }
        self.by_session.get(&session).copied()
    }
}

impl World {
    fn clocks(&self, id: ServerId) -> (u64, i64) {
        let machine = self.machine(id);
        let now_ms = (self.now_us + machine.clock_ahead_us) / 1000;
        (now_ms, 1_700_000_000_000 + now_ms as i64 + machine.wall_ahead_ms)
    }

    /// Brings a machine's process up from what is on its disk.
    pub(super) fn start(&mut self, id: ServerId) {
        if self.machine(id).process.is_some() {
            return;
        }
        let found = match self.machine(id).recover() {
            Ok(found) => found,
            Err(_) if self.machine(id).disk.is_frozen() => {
                self.note(|| format!("{id} loses its power while it starts"));
                let seed = self.random.number();
                self.machine(id).disk.crash(seed);
                return self.plan(self.now_us + 10_000, Due::Start(id));
            }
            Err(error) => panic!("{id} cannot start: {error}"),
        };
        let (last_zxid, accepted_epoch, current_epoch) = (found.last_zxid, found.accepted, found.current);
        self.note(|| format!("start {id}: {last_zxid} accepted {accepted_epoch} current {current_epoch}"));
        let has_hole = found.hole.is_some();
        if let Some(hole) = &found.hole {
            assert!(self.machine(id).is_damaged, "{id} has a hole in its log: {hole}");
            self.note(|| format!("{id}: {hole}"));
        }
        let recovered = Recovered { last_zxid, accepted_epoch, current_epoch };
        let mut zab = self.consensus_of(id, recovered);
        for (zxid, payload) in found.tail {
            zab.remember(zxid, payload);
        }
        if has_hole {
            zab.distrust(Doubt::Missing);
        }
        let machine = self.machine_mut(id);
        machine.lives += 1;
        machine.has_hole = has_hole;
        machine.judge_promises(recovered, id);
        machine.fuzzy_until = Some(machine.snapshot_ahead).filter(|ahead| last_zxid < *ahead);
        machine.promised = last_zxid;
        let is_exact = machine.snapshot_ahead == Zxid(0);
        let life = machine.lives;
        let first_session = session::first_id(self.now_us / 1000 + life * 1_000_000, id.0);
        let store = found.store;
        let process = Process {
            member: Member::in_ensemble(zab, &store, first_session),
            store,
            sessions: SessionTracker::new(TICK_MS),
            role: Role::Looking,
            outputs: VecDeque::new(),
            disk: found.queue,
            conns: BTreeMap::new(),
            asked: VecDeque::new(),
            by_session: BTreeMap::new(),
            opening: BTreeMap::new(),
            reattaching: VecDeque::new(),
            arrived: BTreeMap::new(),
            streams: Vec::new(),
        };
        let machine = self.machine_mut(id);
        machine.process = Some(process);
        machine.last_votes.clear();
        assert!(!is_exact || has_hole || found.mismatches == 0, "{id} replays its log into another tree");
        self.judge_state(id);
        self.unrest();
        for other in self.ids() {
            if other != id {
                self.renew_election_wire(id, other);
            }
        }
        self.plan(self.now_us, Due::Tick(id, life));
    }

    fn consensus_of(&self, me: ServerId, recovered: Recovered) -> Zab {
        let settings = Settings {
            tick_ms: TICK_MS,
            init_limit: 20,
            sync_limit: 10,
            notifications: NotificationIntervals { min_ms: 60, max_ms: 500 },
            silence_ms: self.silence_ms,
            history_limit: HISTORY_DEFAULT,
        };
        let voters = self.voters.iter().copied().collect();
        let electorate = Electorate { me, voters, config: String::new(), config_version: 0 };
        Zab::new(settings, electorate, recovered)
    }

    /// The power fails.
    pub(super) fn crash(&mut self, id: ServerId) {
        if self.machine(id).process.is_none() {
            return;
        }
        self.note(|| format!("crash {id}"));
        let seed = if self.random.one_in(3) { 0 } else { self.random.number() };
        let machine = self.machine_mut(id);
        machine.process = None;
        machine.paused_until_us = None;
        machine.held.clear();
        machine.disk.crash(seed);
        self.drop_end(End::Member(id));
        self.damage_log(id);
        self.unrest();
    }

    fn with_member<R>(
        &mut self,
        id: ServerId,
        act: impl FnOnce(&mut Member, &mut Surroundings<'_>, &mut Vec<Output>) -> R,
    ) -> Option<R> {
        let (now_ms, wall_ms) = self.clocks(id);
        let process = self.machine_mut(id).process.as_mut()?;
        let mut at = Surroundings { now_ms, wall_ms, store: &process.store, sessions: &mut process.sessions };
        let mut out = Vec::new();
        let done = act(&mut process.member, &mut at, &mut out);
        process.outputs.extend(out);
        Some(done)
    }

    /// An event for a member, and everything that follows from it.
    pub(super) fn give(&mut self, id: ServerId, event: Event) {
        if event != Event::Tick && self.machine(id).process.is_some() {
            self.note(|| format!("{id} <- {}", brief(&event)));
        }
        self.with_member(id, |member, at, out| member.step(at, event, out));
        self.perform_all(id);
    }

    /// Packets that have arrived together: thought about one after the other, and then performed.
    pub(super) fn give_packets(&mut self, id: ServerId, link: Link, packets: Vec<QuorumPacket>) {
        for packet in packets {
            if packet.kind == PacketKind::LeaderInfo as i32 {
                self.machine_mut(id).offered_epoch = i64::from(packet.zxid.epoch());
            }
            let event = Event::Packet(link, packet);
            self.note(|| format!("{id} <- {}", brief(&event)));
            self.with_member(id, |member, at, out| member.step(at, event, out));
        }
        self.perform_all(id);
    }

    pub(super) fn tick_due(&mut self, id: ServerId) {
        self.give(id, Event::Tick);
        let expired = self.with_member(id, |member, at, out| member.expire(at, out)).unwrap_or_default();
        for session in expired {
            self.note(|| format!("{id} ends the silent session {session}"));
            self.judge_expiry(id, session);
        }
        self.perform_all(id);
        let pause_us = self.random.between(8_000, 16_000);
        let life = self.machine(id).lives;
        self.plan(self.now_us + pause_us, Due::Tick(id, life));
    }

    fn perform_all(&mut self, id: ServerId) {
        while let Some(output) =
            self.machine_mut(id).process.as_mut().and_then(|process| process.outputs.pop_front())
        {
            self.perform(id, output);
        }
    }

    fn perform(&mut self, id: ServerId, output: Output) {
        match output {
            Output::Perform(action) => self.perform_action(id, action),
            Output::Commit(record) => self.commit(id, &record),
            Output::Adopt(record) => {
                let zxid = record.header.zxid;
                self.note(|| format!("{id} adopts {zxid}"));
                self.settle_disk(id);
                let Some(process) = self.machine_mut(id).process.as_mut() else { return };
                let _ = process.store.apply(&record, &mut ());
                process.member.applied(zxid);
                self.judge_state(id);
            }
            Output::Become(role) => self.become_role(id, role),
            Output::Revalidated(session, lives) => self.revalidated(id, session, lives),
            Output::Synced(session, cxid, path) => {
                let Some(process) = self.machine_mut(id).process.as_mut() else { return };
                let Some(wire) = process.by_session.get(&session).copied() else { return };
                let zxid = process.store.last_zxid();
                self.answer_write(id, wire, cxid, zxid, Ok(Response::Path(path)));
            }
        }
    }

    fn perform_action(&mut self, id: ServerId, action: Action) {
        match action {
            Action::Notify(to, vote) => {
                self.machine_mut(id).last_votes.insert(to, vote.clone());
                let wire = self.election_wire(id, to);
                self.note(|| {
                    let told = (vote.leader, vote.zxid, vote.peer_epoch);
                    format!("{id} -> {to} {:?} {told:?} round {}", vote.state, vote.election_epoch)
                });
                self.send(wire, End::Member(id), Cargo::Vote(vote));
            }
            Action::Connect(to) => self.connect(id, to),
            Action::Send(Link(wire), packet) => {
                self.hear_promise(id, &packet);
                // It goes with its stream.
                if packet.kind != PacketKind::Snap as i32 {
                    self.send(wire, End::Member(id), Cargo::Packet(packet));
                }
            }
            Action::SendSnapshot(Link(wire)) => self.send_snapshot(id, wire),
            Action::SyncFromLog { link: Link(wire), learner, upto } => {
                self.sync_from_log(id, wire, learner, upto);
            }
            Action::Reload(zxid) => {
                let machine = self.machine_mut(id);
                machine.promised = machine.promised.min(zxid);
                let Some(process) = machine.process.as_mut() else { return };
                process.disk.pending = Some(Pending::Reload);
                self.settle_disk(id);
                let at = self.machine(id).process.as_ref().map(|process| process.store.last_zxid());
                assert!(at.is_none_or(|at| at == zxid), "{id} goes back to {zxid} and is at {at:?}");
            }
            Action::Close(Link(wire)) => self.close_wire(wire, End::Member(id)),
            Action::InstallSnapshot(link) => self.install_snapshot(id, link),
            Action::Append(zxid, payload) => {
                self.note(|| format!("{id} logs {zxid}"));
                self.judge.propose(id, zxid, &payload);
                self.queue(id, Job::Append(zxid, payload));
            }
            Action::Truncate(zxid) => {
                self.note(|| format!("{id} must cut its log behind {zxid}"));
                self.hold_snapshots(id);
                let machine = self.machine_mut(id);
                machine.promised = machine.promised.min(zxid);
                let Some(process) = machine.process.as_mut() else { return };
                process.disk.pending = Some(Pending::Reload);
                process.disk.state_jobs += 1;
                self.queue(id, Job::Truncate(zxid));
                self.tempt(Moment::Cuts(id));
            }
            Action::StoreEpoch(kind, epoch) => {
                self.note(|| format!("{id} stores {kind:?} epoch {epoch}"));
                self.queue(id, Job::Epoch(kind, epoch));
                self.tempt(Moment::Stores(id));
            }
            Action::StoreSnapshot => {
                let Some(process) = self.machine_mut(id).process.as_mut() else { return };
                let zxid = process.store.last_zxid();
                process.disk.pending = Some(Pending::Install);
                process.disk.state_jobs += 1;
                self.queue(id, Job::Install(zxid));
            }
            Action::Tell(why) => {
                self.note(|| format!("{id}: {why}"));
                if let Why::LeaderOutdated { leader, epoch, .. } = why {
                    self.machine_mut(id).outside = Some((leader, epoch));
                }
            }
            Action::Fail(why) => panic!("{id} stops itself: {why}"),
            Action::Pong(..) | Action::Upcall(..) | Action::Apply(..) | Action::Adopt(..) => {
                unreachable!("the member performs this itself: {action:?}")
            }
            Action::Become(role) => self.become_role(id, role),
        }
    }

    /// What a member tells its leader must be true of its disk.
    fn hear_promise(&mut self, id: ServerId, packet: &QuorumPacket) {
        let machine = self.machine_mut(id);
        match PacketKind::from_code(packet.kind) {
            Some(PacketKind::AckEpoch) => {
                machine.promised_accepted = machine.promised_accepted.max(machine.offered_epoch);
            }
            Some(PacketKind::Ack) if packet.zxid.counter() == 0 => {
                let epoch = i64::from(packet.zxid.epoch());
                machine.promised_current = machine.promised_current.max(epoch);
            }
            Some(PacketKind::Ack) => machine.promised = machine.promised.max(packet.zxid),
            _ => {}
        }
    }

    fn become_role(&mut self, id: ServerId, role: Role) {
        self.note(|| format!("{id} is {role:?}"));
        self.unrest();
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let before = std::mem::replace(&mut process.role, role);
        if role == Role::Looking {
            process.asked.clear();
            process.by_session.clear();
            process.opening.clear();
            process.reattaching.clear();
            process.streams.clear();
            let conns = std::mem::take(&mut process.conns);
            for wire in conns.keys() {
                process.store.watches().remove_watcher(WatcherId(*wire));
            }
            for wire in conns.into_keys() {
                self.close_wire(wire, End::Member(id));
            }
        } else {
            assert_eq!(before, Role::Looking, "{id} changes its part");
            self.judge_hole(id);
            let at = self.machine(id).process.as_ref().unwrap().store.last_zxid();
            if let Role::Leading { epoch } = role {
                self.judge.lead(id, epoch, at);
            }
            self.judge_serving(id);
        }
        self.with_member(id, |member, at, out| member.begin(at, role, out));
        if matches!(role, Role::Leading { .. }) {
            self.tempt(Moment::Leads);
        }
    }

    // ---- the state ----

    fn commit(&mut self, id: ServerId, record: &TxnRecord) {
        let zxid = record.header.zxid;
        self.note(|| format!("{id} applies {zxid} of {}", record.header.session));
        // A state that is read again now may hold what is committed here: applying it twice must not matter.
        let is_read_again =
            self.machine(id).process.as_ref().is_some_and(|process| process.disk.pending.is_some());
        self.settle_disk(id);
        let (now_ms, _) = self.clocks(id);
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let last = process.store.last_zxid();
        assert!(zxid > last || is_read_again, "{id} applies {zxid} behind {last}");
        let mut events = Events::default();
        let result = process.store.apply(record, &mut events);
        // The server applies what is committed together in one go, and says so then.
        if !matches!(process.outputs.front(), Some(Output::Commit(_))) {
            process.member.applied(zxid);
        }
        self.judge_state(id);
        if self.machine(id).process.as_ref().is_some_and(|process| process.role != Role::Looking) {
            self.judge_serving(id);
        }
        let is_late = bugs::chosen(Bug::FireWatchLate);
        if !is_late {
            self.tell_watchers(id, &events);
        }
        self.settle(id, record, result, now_ms);
        if is_late {
            self.tell_watchers(id, &events);
        }
        self.count_for_snapshot(id);
    }

    fn tell_watchers(&mut self, id: ServerId, events: &Events) {
        for (kind, path, zxid, watchers) in &events.0 {
            for WatcherId(wire) in watchers {
                let told = ToClient::Event { kind: *kind, path: path.clone(), zxid: *zxid };
                self.send(*wire, End::Member(id), Cargo::ToClient(told));
            }
        }
    }

    /// What an applied transaction means for sessions and for the connection that asked.
    fn settle(&mut self, id: ServerId, record: &TxnRecord, result: Result<Response, ErrorCode>, now_ms: u64) {
        let header = record.header;
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let wire = process.origin(header.zxid, header.session);
        match &record.txn {
            Txn::CreateSession(timeout_ms) => {
                if !process.member.prepares() {
                    process.sessions.open(header.session, *timeout_ms, now_ms);
                }
                if let Some(wire) = process.opening.remove(&header.session) {
                    self.attach(id, wire, header.session);
                }
            }
            Txn::CloseSession(_) => {
                process.sessions.remove(header.session);
                process.member.forget_session(header.session);
                let present = process.by_session.get(&header.session).copied();
                if let Some(wire) = wire {
                    self.answer_write(id, wire, header.cxid, header.zxid, result);
                }
                if let Some(wire) = present {
                    self.close_conn(id, wire);
                }
            }
            _ => {
                if let Some(wire) = wire {
                    let moved = result == Err(ErrorCode::SessionMoved);
                    self.answer_write(id, wire, header.cxid, header.zxid, result);
                    if moved {
                        self.close_conn(id, wire);
                    }
                }
            }
        }
    }

    /// Answers the write at the head of a connection's pipeline, and the reads that waited for it.
    fn answer_write(
        &mut self,
        id: ServerId,
        wire: u64,
        cxid: i32,
        zxid: Zxid,
        result: Result<Response, ErrorCode>,
    ) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(conn) = process.conns.get_mut(&wire) else { return };
        if conn.pipeline.complete_write(|write| write.xid == cxid).is_none() {
            return;
        }
        let mut reads = Vec::new();
        while let Some(read) = conn.pipeline.next_read() {
            reads.push(read);
        }
        self.send(wire, End::Member(id), Cargo::ToClient(ToClient::Reply { xid: cxid, zxid, result }));
        for (xid, request) in reads {
            self.answer_read(id, wire, xid, &request);
        }
    }

    fn answer_read(&mut self, id: ServerId, wire: u64, xid: i32, request: &Request) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(conn) = process.conns.get(&wire) else { return };
        let caller = Caller { session: conn.session, watcher: WatcherId(wire), ids: &ids() };
        let mut missed = Vec::new();
        let result = match request {
            Request::Ping => Ok(Response::Empty),
            request => process.store.read(request, &caller, &mut missed).map(Response::from),
        };
        let zxid = process.store.last_zxid();
        for event in missed {
            let kind = EventType::from_code(event.kind).expect("our own");
            let told = ToClient::Event { kind, path: event.path, zxid: Zxid(-1) };
            self.send(wire, End::Member(id), Cargo::ToClient(told));
        }
        self.send(wire, End::Member(id), Cargo::ToClient(ToClient::Reply { xid, zxid, result }));
    }

    // ---- connections ----

    /// Something from a client.
    pub(super) fn hear_client(&mut self, id: ServerId, wire: u64, said: ToServer) {
        match said {
            ToServer::Connect { session, password, timeout_ms, last_zxid } => {
                self.hear_connect(id, wire, session, &password, timeout_ms, last_zxid);
            }
            ToServer::Ask { xid, request } => self.hear_request(id, wire, xid, request),
        }
        self.perform_all(id);
    }

    fn hear_connect(
        &mut self,
        id: ServerId,
        wire: u64,
        session: SessionId,
        password: &[u8],
        timeout_ms: i32,
        last_zxid: Zxid,
    ) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let here = process.store.last_zxid();
        let is_behind = last_zxid > here;
        if process.role == Role::Looking || is_behind {
            return self.close_wire(wire, End::Member(id));
        }
        let pipeline = Pipeline::default();
        let conn = Conn { session, timeout_ms, phase: Phase::Opening, pipeline };
        process.conns.insert(wire, conn);
        if session == SessionId(0) {
            let asked = self.with_member(id, |member, at, out| member.open_session(at, timeout_ms, out));
            let Some((session, _)) = asked else { return };
            self.note(|| format!("{id} opens session {session}"));
            let Some(process) = self.machine_mut(id).process.as_mut() else { return };
            process.opening.insert(session, wire);
            return;
        }
        assert!(session::password_opens(session, password), "the client has the right one");
        if let Some(older) = process.by_session.get(&session).copied()
            && !bugs::chosen(Bug::EvictLate)
        {
            // Before the leader is asked: what the old connection still sends must not come behind this.
            self.close_conn(id, older);
        }
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.reattaching.push_back((session, wire));
        self.with_member(id, |member, at, out| member.reattach(at, session, timeout_ms, out));
    }

    fn revalidated(&mut self, id: ServerId, session: SessionId, lives: bool) {
        let (now_ms, _) = self.clocks(id);
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(at) = process.reattaching.iter().position(|(waiting, _)| *waiting == session) else {
            return;
        };
        let Some((_, wire)) = process.reattaching.remove(at) else { return };
        let Some(conn) = process.conns.get(&wire) else { return };
        if !lives {
            self.send(wire, End::Member(id), Cargo::ToClient(ToClient::SessionOver));
            return self.close_conn(id, wire);
        }
        if !process.member.prepares() {
            process.sessions.open(session, conn.timeout_ms, now_ms);
        }
        self.attach(id, wire, session);
    }

    /// The session is on this connection now.
    fn attach(&mut self, id: ServerId, wire: u64, session: SessionId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let epoch = match process.role {
            Role::Leading { epoch } | Role::Following { epoch, .. } => epoch,
            Role::Looking => unreachable!("{id} has nobody's word and lets {session} in"),
        };
        let Some(conn) = process.conns.get_mut(&wire) else { return };
        conn.session = session;
        conn.phase = Phase::Open;
        let older = process.by_session.insert(session, wire).filter(|older| *older != wire);
        if let Some(older) = older {
            self.close_conn(id, older);
        }
        let password = session::password(session).to_vec();
        self.send(wire, End::Member(id), Cargo::ToClient(ToClient::Connected { session, password, epoch }));
    }

    fn hear_request(&mut self, id: ServerId, wire: u64, xid: i32, request: Request) {
        let (now_ms, _) = self.clocks(id);
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let prepares = process.member.prepares();
        let Some(conn) = process.conns.get_mut(&wire).filter(|conn| conn.phase == Phase::Open) else {
            return;
        };
        if !process.sessions.touch(conn.session, now_ms) {
            return;
        }
        let is_write = request.op().is_write() || matches!(request, Request::Sync(_)) && !prepares;
        if !is_write {
            let xid = if matches!(request, Request::Ping) { xid::PING } else { xid };
            if conn.pipeline.is_clear() || bugs::chosen(Bug::ReadJumpsTheQueue) {
                self.answer_read(id, wire, xid, &request);
            } else {
                conn.pipeline.push_read((xid, request), 0);
            }
            return;
        }
        conn.pipeline.push_write(PendingWrite { xid }, 0);
        let session = conn.session;
        let is_sync = request.op() == OpCode::Sync;
        if is_sync && bugs::chosen(Bug::AnswerSyncAtOnce) {
            let zxid = process.store.last_zxid();
            return self.answer_write(id, wire, xid, zxid, Ok(Response::Path("/".into())));
        }
        let submitted = self.with_member(id, |member, at, out| {
            member.submit(at, Asking { session, cxid: xid, ids: &ids(), request: &request }, out)
        });
        if let Some(Submitted::Proposed(zxid)) = submitted
            && let Some(process) = self.machine_mut(id).process.as_mut()
        {
            process.asked.push_back((zxid, wire));
        }
    }

    /// A client's connection has ended.
    pub(super) fn lose_client(&mut self, id: ServerId, wire: u64) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(conn) = process.conns.remove(&wire) else { return };
        process.store.watches().remove_watcher(WatcherId(wire));
        if process.by_session.get(&conn.session) == Some(&wire) {
            process.by_session.remove(&conn.session);
        }
    }

    fn close_conn(&mut self, id: ServerId, wire: u64) {
        self.lose_client(id, wire);
        self.close_wire(wire, End::Member(id));
    }

    // ---- whole states between members ----

    pub(super) fn send_snapshot(&mut self, id: ServerId, wire: u64) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let packet = QuorumPacket::new(PacketKind::Snap, process.store.last_zxid());
        let stream =
            Rc::new(std::cell::RefCell::new(Stream { items: process.store.snapshot_head(), until: None }));
        process.streams.push((wire, process.store.start_walk(), stream.clone()));
        self.send(wire, End::Member(id), Cargo::Snapshot(packet, stream));
        let life = self.machine(id).lives;
        self.plan(self.now_us + 300, Due::Stream(id, life, wire));
    }

    /// The next slice of a snapshot on its way to a learner.
    pub(super) fn stream_due(&mut self, id: ServerId, wire: u64) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(at) = process.streams.iter().position(|(to, ..)| *to == wire) else { return };
        let (_, walk, stream) = &mut process.streams[at];
        let mut items = Vec::new();
        let more = process.store.walk(walk, 12, &mut |node| items.push(SnapshotItem::Node(node)));
        stream.borrow_mut().items.extend(items);
        if more {
            let pause_us = self.random.between(100, 3_000);
            let life = self.machine(id).lives;
            return self.plan(self.now_us + pause_us, Due::Stream(id, life, wire));
        }
        stream.borrow_mut().until = Some(process.store.last_zxid());
        process.streams.remove(at);
        self.kick_lanes();
    }

    /// A snapshot has arrived whole.
    pub(super) fn take_snapshot_in(&mut self, id: ServerId, link: Link, zxid: Zxid, stream: &Stream) {
        let items = stream.items.iter().cloned().map(Ok::<_, std::convert::Infallible>);
        let store = Store::load(store_config(), items, zxid).expect("a leader sends a tree");
        let until = stream.until.filter(|until| *until > zxid);
        self.note(|| format!("{id} has received the state at {zxid}, fuzzy until {until:?}"));
        if let Some(process) = self.machine_mut(id).process.as_mut() {
            process.arrived.insert(link, (store, until));
        }
    }

    fn install_snapshot(&mut self, id: ServerId, link: Link) {
        self.settle_disk(id);
        self.hold_snapshots(id);
        let machine = self.machine_mut(id);
        let Some(process) = machine.process.as_mut() else { return };
        let (store, until) = process.arrived.remove(&link).expect("it has arrived");
        process.store = store;
        machine.has_hole = false;
        machine.promised = machine.promised.min(process.store.last_zxid());
        machine.fuzzy_until = until;
        machine.snapshot_ahead = until.unwrap_or(Zxid(0)).max(machine.snapshot_ahead);
        self.judge_state(id);
        self.tempt(Moment::TakesOver(link.0));
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Packet(link, packet) => {
            let kind = PacketKind::from_code(packet.kind);
            format!("{kind:?} {} on {}", packet.zxid, link.0)
        }
        Event::Vote(from, vote) => {
            format!(
                "{from} {:?} for {} {} epoch {} round {}",
                vote.state, vote.leader, vote.zxid, vote.peer_epoch, vote.election_epoch
            )
        }
        event => format!("{event:?}"),
    }
}
