//! A leader and one learner, joined by hand: what one puts out the other is given, disks are done at once
//! unless a test holds them.

use std::collections::VecDeque;

use super::*;
use crate::store::StoreConfig;
use crate::zab::election::{Electorate, NotificationIntervals};
use crate::zab::history::HISTORY_DEFAULT;
use crate::zab::{Recovered, ServerId, Settings};
use zoometry_wire::peer::{ForwardedRequest, read_touches};
use zoometry_wire::request::{CreateRequest, PathVersion, SetDataRequest};
use zoometry_wire::txn::{CreateTxn, TxnHeader};
use zoometry_wire::{Acl, ErrorCode, OpCode, Response, Txn};

const TICK_MS: u64 = 100;
const LINK: Link = Link(7);
const LEADER: usize = 0;
const LEARNER: usize = 1;

/// A member and what it has been seen to do.
struct Half {
    id: ServerId,
    member: Member,
    store: Store,
    sessions: SessionTracker,
    outputs: VecDeque<Output>,
    /// Disk reports that are held back.
    held: Option<Vec<Event>>,
    commits: Vec<(TxnRecord, Result<Response, ErrorCode>)>,
    revalidated: Vec<(SessionId, bool)>,
    /// Session and xid of each sync, and the state that it was answered in.
    synced: Vec<(SessionId, i32, Zxid)>,
    sent: Vec<QuorumPacket>,
    closed: Vec<Link>,
    role: Role,
}

struct Pair {
    halves: [Half; 2],
    now_ms: u64,
}

fn half(id: i64, store: Store) -> Half {
    let settings = Settings {
        tick_ms: TICK_MS,
        init_limit: 10,
        sync_limit: 50,
        notifications: NotificationIntervals { min_ms: 200, max_ms: 2000 },
        silence_ms: None,
        history_limit: HISTORY_DEFAULT,
    };
    let electorate = Electorate {
        me: ServerId(id),
        voters: (1..=3).map(ServerId).collect(),
        config: String::new(),
        config_version: 0,
    };
    let last_zxid = store.last_zxid();
    let zab = Zab::new(settings, electorate, Recovered { last_zxid, accepted_epoch: 0, current_epoch: 0 });
    Half {
        id: ServerId(id),
        member: Member::in_ensemble(zab, &store, SessionId(id << 56)),
        store,
        sessions: SessionTracker::new(TICK_MS),
        outputs: VecDeque::new(),
        held: None,
        commits: Vec::new(),
        revalidated: Vec::new(),
        synced: Vec::new(),
        sent: Vec::new(),
        closed: Vec::new(),
        role: Role::Looking,
    }
}

impl Pair {
    /// Member 3 leads epoch 1, member 1 follows; member 2 is not there.
    fn new() -> Self {
        Self::over(|| Store::new(StoreConfig::default()))
    }

    fn over(store: impl Fn() -> Store) -> Self {
        let mut pair = Self { halves: [half(3, store()), half(1, store())], now_ms: 0 };
        for (at, other) in [(LEADER, 1), (LEARNER, 3)] {
            pair.step(at, Event::Tick);
            pair.step(at, Event::Reachable(ServerId(other), true));
        }
        pair.run();
        assert_eq!(pair.halves[LEADER].role, Role::Leading { epoch: 1 });
        assert!(matches!(pair.halves[LEARNER].role, Role::Following { epoch: 1, .. }));
        pair
    }

    fn think<R>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Member, &mut Surroundings<'_>, &mut Vec<Output>) -> R,
    ) -> R {
        let half = &mut self.halves[at];
        let mut surroundings = Surroundings {
            now_ms: self.now_ms,
            wall_ms: 1_700_000_000_000,
            store: &half.store,
            sessions: &mut half.sessions,
        };
        let mut out = Vec::new();
        let done = act(&mut half.member, &mut surroundings, &mut out);
        half.outputs.extend(out);
        done
    }

    fn step(&mut self, at: usize, event: Event) {
        self.think(at, |member, surroundings, out| member.step(surroundings, event, out));
    }

    /// Performs everything until nobody has anything left to do.
    fn run(&mut self) {
        while let Some(at) = [LEADER, LEARNER].into_iter().find(|at| !self.halves[*at].outputs.is_empty()) {
            let output = self.halves[at].outputs.pop_front().expect("not empty");
            self.perform(at, output);
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let other = 1 - at;
        match output {
            Output::Perform(Action::Notify(to, vote)) if to == self.halves[other].id => {
                let from = self.halves[at].id;
                self.step(other, Event::Vote(from, vote));
            }
            Output::Perform(Action::Connect(_)) => {
                self.step(other, Event::Accepted(LINK));
                self.step(at, Event::Connected(ServerId(3), LINK));
            }
            Output::Perform(Action::Send(_, packet)) => {
                self.halves[at].sent.push(packet.clone());
                self.step(other, Event::Packet(LINK, packet));
            }
            Output::Perform(Action::Close(link)) => {
                self.halves[at].closed.push(link);
                self.step(other, Event::Closed(link));
            }
            Output::Perform(Action::Append(zxid, _)) => self.report(at, Event::Durable(zxid)),
            Output::Perform(Action::StoreEpoch(kind, epoch)) => {
                self.report(at, Event::EpochStored(kind, epoch));
            }
            Output::Perform(Action::Notify(..) | Action::Tell(_)) => {}
            Output::Perform(action) => panic!("{action:?}"),
            Output::Commit(record) => self.commit(at, *record),
            Output::Adopt(record) => drop(self.halves[at].store.apply(&record, &mut ())),
            Output::Become(role) => {
                self.halves[at].role = role;
                self.think(at, |member, surroundings, out| member.begin(surroundings, role, out));
            }
            Output::Revalidated(session, lives) => self.halves[at].revalidated.push((session, lives)),
            Output::Synced(session, cxid, _) => {
                let zxid = self.halves[at].store.last_zxid();
                self.halves[at].synced.push((session, cxid, zxid));
            }
        }
    }

    fn report(&mut self, at: usize, event: Event) {
        match &mut self.halves[at].held {
            Some(held) => held.push(event),
            None => self.step(at, event),
        }
    }

    fn commit(&mut self, at: usize, record: TxnRecord) {
        let now_ms = self.now_ms;
        let half = &mut self.halves[at];
        let result = half.store.apply(&record, &mut ());
        half.member.applied(record.header.zxid);
        match record.txn {
            Txn::CreateSession(timeout_ms) if !half.member.prepares() => {
                half.sessions.open(record.header.session, timeout_ms, now_ms);
            }
            Txn::CloseSession(_) => {
                half.sessions.remove(record.header.session);
                half.member.forget_session(record.header.session);
            }
            _ => {}
        }
        half.commits.push((record, result));
    }

    // ---- what clients do ----

    fn submit(&mut self, at: usize, session: SessionId, cxid: i32, request: &Request) -> Submitted {
        let asking = Asking { session, cxid, ids: &[], request };
        self.think(at, |member, surroundings, out| member.submit(surroundings, asking, out))
    }

    /// A session that was opened through this member, with a timeout of ten ticks.
    fn session(&mut self, at: usize) -> SessionId {
        let (session, _) =
            self.think(at, |member, surroundings, out| member.open_session(surroundings, 1000, out));
        self.run();
        assert!(self.halves.iter().all(|half| half.store.has_session(session)));
        session
    }

    fn ask_to_reattach(&mut self, at: usize, session: SessionId) {
        self.think(at, |member, surroundings, out| member.reattach(surroundings, session, 1000, out));
        self.run();
    }

    fn reattach(&mut self, at: usize, session: SessionId) -> bool {
        self.ask_to_reattach(at, session);
        let (revalidated, lives) = self.halves[at].revalidated.pop().expect("an answer");
        assert_eq!(revalidated, session);
        lives
    }

    /// What the last transaction means to whoever asked, which is the same on both members.
    fn last(&mut self) -> (i32, Result<Response, ErrorCode>) {
        self.run();
        let [leader, learner] = [LEADER, LEARNER].map(|at| self.halves[at].commits.last().cloned());
        assert_eq!(leader, learner);
        let (record, result) = leader.expect("a commit");
        (record.header.cxid, result)
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            self.step(LEADER, Event::Tick);
            self.step(LEARNER, Event::Tick);
            self.run();
        }
    }

    fn expired(&mut self) -> Vec<SessionId> {
        let expired = self.think(LEADER, |member, surroundings, out| member.expire(surroundings, out));
        self.run();
        expired
    }
}

fn create(path: &str) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: None, acl: Acl::open(), flags: 0 })
}

#[test]
fn a_learners_writes_come_back_as_commits_refused_or_not() {
    let mut pair = Pair::new();
    let session = pair.session(LEARNER);
    let set = |version| Request::SetData(SetDataRequest { path: "/a".into(), data: None, version });
    let cases = [
        (create("/a"), Ok(Response::Path("/a".into()))),
        (create("/a"), Err(ErrorCode::NodeExists)),
        (set(5), Err(ErrorCode::BadVersion)),
        (Request::Delete(PathVersion { path: "/a".into(), version: 0 }), Ok(Response::Empty)),
        (Request::CloseSession, Ok(Response::Empty)),
    ];
    for (cxid, (request, expected)) in (1..).zip(cases) {
        let before = pair.halves[LEADER].store.last_zxid();
        assert_eq!(pair.submit(LEARNER, session, cxid, &request), Submitted::Forwarded);
        assert_eq!(pair.last(), (cxid, expected), "{request:?}");
        assert_eq!(pair.halves[LEADER].store.last_zxid(), before.next(), "a refusal takes a zxid too");
    }
    assert!(!pair.halves[LEARNER].store.has_session(session));
    assert_eq!(pair.halves[LEADER].store.digest(), pair.halves[LEARNER].store.digest());
    let forwarded = pair.halves[LEARNER].sent.iter().find(|packet| packet.kind == PacketKind::Request as i32);
    assert_eq!(forwarded.expect("a request").authinfo, AuthInfo(Some(Vec::new())), "never null");
}

#[test]
fn a_leaders_own_writes_have_their_zxids_at_once() {
    let mut pair = Pair::new();
    let session = pair.session(LEADER);
    let next = pair.halves[LEADER].store.last_zxid().next();
    assert_eq!(pair.submit(LEADER, session, 1, &create("/a")), Submitted::Proposed(next));
    assert_eq!(pair.submit(LEADER, session, 2, &create("/a/b")), Submitted::Proposed(next.next()));
    assert_eq!(pair.halves[LEADER].member.outstanding(), 2);
    assert_eq!(pair.last(), (2, Ok(Response::Path("/a/b".into()))));
    assert_eq!(pair.halves[LEADER].member.outstanding(), 0);
}

#[test]
fn a_session_belongs_to_the_member_where_it_was_last_revalidated() {
    let multi = Request::Multi(vec![create("/m")]);
    for request in [create("/a"), multi, Request::CloseSession] {
        let mut pair = Pair::new();
        let session = pair.session(LEARNER);
        assert!(pair.reattach(LEADER, session), "it moves to the leader");
        pair.submit(LEARNER, session, 1, &request);
        assert_eq!(pair.last(), (1, Err(ErrorCode::SessionMoved)), "{request:?} of the old connection");
        pair.submit(LEADER, session, 2, &create("/b"));
        assert_eq!(pair.last(), (2, Ok(Response::Path("/b".into()))), "behind {request:?}");
        assert!(pair.reattach(LEARNER, session), "and back");
        pair.submit(LEADER, session, 3, &create("/c"));
        assert_eq!(pair.last(), (3, Err(ErrorCode::SessionMoved)));
        pair.submit(LEARNER, session, 4, &create("/c"));
        assert_eq!(pair.last(), (4, Ok(Response::Path("/c".into()))));
    }
}

#[test]
fn a_session_that_is_over_is_not_closed_again_from_a_connection_that_it_had_left() {
    for request in [create("/a"), Request::CloseSession] {
        let mut pair = Pair::new();
        let session = pair.session(LEARNER);
        assert!(pair.reattach(LEADER, session));
        pair.submit(LEADER, session, 2, &Request::CloseSession);
        assert_eq!(pair.last(), (2, Ok(Response::Empty)));
        pair.submit(LEARNER, session, 1, &request);
        assert_eq!(
            pair.last(),
            (1, Err(ErrorCode::SessionExpired)),
            "{request:?}, late on the old connection"
        );
    }
}

#[test]
fn revalidation_says_who_lives() {
    let mut pair = Pair::new();
    let (here, there) = (pair.session(LEADER), pair.session(LEARNER));
    for at in [LEADER, LEARNER] {
        assert!(pair.reattach(at, here) && pair.reattach(at, there));
        assert!(!pair.reattach(at, SessionId(99)), "never heard of");
    }
    // From the moment of its close on, committed or not.
    pair.halves[LEADER].held = Some(Vec::new());
    pair.submit(LEARNER, there, 1, &Request::CloseSession);
    pair.run();
    assert!(!pair.reattach(LEADER, there));
    pair.ask_to_reattach(LEARNER, there);
    pair.submit(LEARNER, there, 2, &create("/late"));
    for event in pair.halves[LEADER].held.take().expect("held") {
        pair.step(LEADER, event);
    }
    assert_eq!(pair.last(), (2, Err(ErrorCode::SessionExpired)));
    assert_eq!(pair.halves[LEARNER].revalidated, [(there, false)]);
    assert!(!pair.halves[LEARNER].store.has_session(there));
}

/// Requests are known by their numbers, and these begin anew with a connection: nothing that was asked for on an
/// earlier one may still come.
#[test]
fn a_session_goes_on_behind_what_it_had_asked_for_before() {
    let mut pair = Pair::new();
    let session = pair.session(LEARNER);
    pair.halves[LEADER].held = Some(Vec::new());
    pair.submit(LEARNER, session, 1, &create("/before"));
    pair.ask_to_reattach(LEARNER, session);
    assert_eq!(pair.halves[LEARNER].revalidated, [], "the write is not committed");
    for event in pair.halves[LEADER].held.take().expect("held") {
        pair.step(LEADER, event);
    }
    pair.run();
    assert_eq!(pair.halves[LEARNER].revalidated, [(session, true)]);
    assert_eq!(pair.last(), (1, Ok(Response::Path("/before".into()))));
}

#[test]
fn pings_carry_whom_a_learner_has_heard_of() {
    let mut pair = Pair::new();
    let (loud, quiet) = (pair.session(LEARNER), pair.session(LEARNER));
    pair.halves[LEARNER].sent.clear();
    for _ in 0..22 {
        let now_ms = pair.now_ms;
        assert!(pair.halves[LEARNER].sessions.touch(loud, now_ms));
        pair.pass(50);
        if pair.now_ms <= 900 {
            assert_eq!(pair.expired(), [], "at {}", pair.now_ms);
        }
    }
    let pings = pair.halves[LEARNER].sent.iter().filter(|packet| packet.kind == PacketKind::Ping as i32);
    let touches: Vec<_> = pings.map(|ping| read_touches(ping.data.as_ref().expect("never null"))).collect();
    assert!(touches.len() > 10);
    assert!(touches.iter().all(|touched| *touched == Ok(Vec::new()) || *touched == Ok(vec![(loud, 1000)])));
    assert_eq!(pair.expired(), [quiet]);
    assert_eq!(pair.last(), (0, Ok(Response::Empty)), "the end is a transaction");
    assert!(pair.halves.iter().all(|half| half.store.has_session(loud) && !half.store.has_session(quiet)));
    let learner = pair.think(LEARNER, |member, surroundings, out| member.expire(surroundings, out));
    assert_eq!(learner, [], "only the leader ends sessions");
    pair.pass(1200);
    assert_eq!(pair.expired(), [loud], "silent since");
}

#[test]
fn a_sync_is_answered_behind_what_was_proposed_before_it() {
    let mut pair = Pair::new();
    let session = pair.session(LEARNER);
    let leaders = pair.session(LEADER);
    let sync = Request::Sync("/".into());
    let idle = pair.halves[LEADER].store.last_zxid();
    assert_eq!(pair.submit(LEARNER, session, 1, &sync), Submitted::Forwarded);
    pair.run();
    assert_eq!(pair.halves[LEARNER].synced, [(session, 1, idle)], "nothing was outstanding");
    pair.halves[LEADER].held = Some(Vec::new());
    pair.submit(LEADER, leaders, 1, &create("/a"));
    pair.submit(LEARNER, session, 2, &sync);
    pair.submit(LEARNER, session, 3, &sync);
    pair.run();
    assert_eq!(pair.halves[LEARNER].synced.len(), 1, "the write is not committed");
    for event in pair.halves[LEADER].held.take().expect("held") {
        pair.step(LEADER, event);
    }
    pair.run();
    let after = idle.next();
    assert_eq!(pair.halves[LEARNER].synced[1..], [(session, 2, after), (session, 3, after)]);
    assert_eq!(pair.halves[LEARNER].store.last_zxid(), after, "a sync takes no zxid");
}

#[test]
fn what_a_learner_must_not_forward_is_refused_in_its_place() {
    let mut pair = Pair::new();
    let session = pair.session(LEARNER);
    let whole = ForwardedRequest { session, cxid: 0, op: 0, body: Bytes::new() };
    let cases = [
        (OpCode::Create.code(), &b"\0\0\0"[..], ErrorCode::MarshallingError),
        (OpCode::Multi.code(), b"", ErrorCode::MarshallingError),
        (OpCode::CreateSession.code(), b"\0", ErrorCode::MarshallingError),
        (OpCode::Check.code(), b"\0\0\0\x01/\0\0\0\0", ErrorCode::Unimplemented),
        (OpCode::DeleteContainer.code(), b"\0\0\0\x02/a", ErrorCode::Unimplemented),
        (OpCode::GetData.code(), b"\0\0\0\x02/a\0", ErrorCode::Unimplemented),
        (OpCode::Ping.code(), b"", ErrorCode::Unimplemented),
        (777, b"", ErrorCode::Unimplemented),
    ];
    for (cxid, (op, body, expected)) in (1..).zip(cases) {
        let forwarded = ForwardedRequest { cxid, op, body: Bytes::from_static(body), ..whole.clone() };
        let packet = QuorumPacket::new(PacketKind::Request, Zxid(-1)).with_data(forwarded.to_bytes());
        pair.step(LEADER, Event::Packet(LINK, packet));
        assert_eq!(pair.last(), (cxid, Err(expected)), "operation {op}: its client waits for an answer");
    }
    assert_eq!(pair.halves[LEADER].closed, []);
    assert_eq!(pair.halves[LEADER].store.digest(), Store::new(StoreConfig::default()).digest());
}

#[test]
fn whoever_sends_no_request_at_all_is_no_member() {
    for data in [&b""[..], b"\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0"] {
        let mut pair = Pair::new();
        let packet = QuorumPacket::new(PacketKind::Request, Zxid(-1)).with_data(Bytes::copy_from_slice(data));
        pair.step(LEADER, Event::Packet(LINK, packet));
        pair.run();
        assert_eq!(pair.halves[LEADER].closed, [LINK]);
        assert_eq!(pair.halves[LEARNER].role, Role::Looking);
    }
}

#[test]
fn without_a_leader_nothing_is_taken() {
    let mut pair = Pair::new();
    let session = pair.session(LEARNER);
    pair.step(LEARNER, Event::Closed(LINK));
    assert_eq!(pair.submit(LEARNER, session, 1, &create("/a")), Submitted::NotServing, "from that moment");
    assert!(!pair.halves[LEARNER].member.has_leader());
    let (_, opened) =
        pair.think(LEARNER, |member, surroundings, out| member.open_session(surroundings, 1000, out));
    assert_eq!(opened, Submitted::NotServing);
}

#[test]
fn the_last_counter_of_an_epoch_is_nobodys() {
    let mut pair = Pair::new();
    let session = pair.session(LEADER);
    let logged = pair.halves[LEADER].store.last_zxid();
    pair.halves[LEADER].member.last_zxid = Zxid(1 << 32 | 0xffff_fffe);
    assert_eq!(pair.submit(LEADER, session, 1, &create("/a")), Submitted::NotServing);
    let resigns = |output: &Output| matches!(output, Output::Become(Role::Looking));
    assert!(pair.halves[LEADER].outputs.iter().any(resigns));
    assert_eq!(pair.submit(LEADER, session, 2, &create("/a")), Submitted::NotServing);
    let appends = |output: &Output| matches!(output, Output::Perform(Action::Append(..)));
    assert!(!pair.halves[LEADER].outputs.iter().any(appends), "nothing was proposed");
    assert_eq!(pair.halves[LEADER].store.last_zxid(), logged);
}

#[test]
fn a_new_leader_buries_the_ephemerals_of_sessions_that_nobody_knows() {
    let dead = SessionId(5);
    let store = || {
        let mut store = Store::new(StoreConfig::default());
        let header = zoometry_wire::TxnHeader {
            session: dead,
            cxid: 1,
            zxid: Zxid(1),
            time_ms: 0,
            kind: OpCode::Create.code(),
        };
        let txn = Txn::Create(zoometry_wire::txn::CreateTxn {
            path: "/left".into(),
            data: None,
            acl: Acl::open(),
            ephemeral: true,
            parent_cversion: 1,
        });
        store.apply(&TxnRecord { header, txn, digest: None }, &mut ()).expect("a create");
        store
    };
    let mut pair = Pair::over(store);
    let (cxid, result) = pair.last();
    assert_eq!((cxid, result), (0, Ok(Response::Empty)));
    let (record, _) = &pair.halves[LEARNER].commits[0];
    assert_eq!((record.header.session, &record.txn), (dead, &Txn::CloseSession(Some(vec!["/left".into()]))));
    assert!(pair.halves.iter().all(|half| half.store.ephemerals_count() == 0));
}

#[test]
fn alone_what_is_on_the_disk_is_committed() {
    let store = Store::new(StoreConfig::default());
    let mut sessions = SessionTracker::new(TICK_MS);
    let mut member = Member::alone(&store, SessionId(1));
    let mut at = Surroundings { now_ms: 0, wall_ms: 0, store: &store, sessions: &mut sessions };
    let mut out = Vec::new();
    let (session, opened) = member.open_session(&mut at, 1000, &mut out);
    assert_eq!(opened, Submitted::Proposed(Zxid(1)));
    let request = create("/a");
    let asking = Asking { session, cxid: 1, ids: &[], request: &request };
    assert_eq!(member.submit(&mut at, asking, &mut out), Submitted::Proposed(Zxid(2)));
    assert!(out.iter().all(|output| matches!(output, Output::Perform(Action::Append(..)))));
    out.clear();
    member.step(&mut at, Event::Durable(Zxid(1)), &mut out);
    let zxids = |out: &[Output]| -> Vec<Zxid> {
        let zxid = |output: &Output| match output {
            Output::Commit(record) => record.header.zxid,
            other => panic!("{other:?}"),
        };
        out.iter().map(zxid).collect()
    };
    assert_eq!(zxids(&out), [Zxid(1)]);
    member.step(&mut at, Event::Durable(Zxid(2)), &mut out);
    assert_eq!(zxids(&out), [Zxid(1), Zxid(2)]);
    assert_eq!(member.outstanding(), 0);
    // There is nobody to whom a session could have moved.
    member.reattach(&mut at, session, 1000, &mut out);
    assert!(matches!(out.last(), Some(Output::Revalidated(_, true))));
}

/// An Apache leader sets no limit to what a session owns, and ours has to end it all the same.
#[test]
fn a_session_that_owns_more_than_its_end_can_list_is_closed_in_several_transactions() {
    const MOST: usize = 1000;
    let session = SessionId(1);
    let store = || {
        let mut store = Store::new(StoreConfig { txn_bytes_max: MOST, ..StoreConfig::default() });
        for number in 1..=100 {
            let (kind, txn) = match number {
                1 => (OpCode::CreateSession, Txn::CreateSession(1000)),
                _ => {
                    let path = format!("/ephemeral-{number}");
                    let (data, acl) = (None, Acl::open());
                    let txn = CreateTxn { path, data, acl, ephemeral: true, parent_cversion: number };
                    (OpCode::Create, Txn::Create(txn))
                }
            };
            let header =
                TxnHeader { session, zxid: Zxid(number.into()), kind: kind.code(), ..TxnHeader::default() };
            store.apply(&TxnRecord { header, txn, digest: None }, &mut ()).expect("applied");
        }
        store
    };
    let mut pair = Pair::over(store);
    assert_eq!(pair.halves[LEADER].store.ephemerals_count(), 99);
    pair.pass(5000);
    assert_eq!(pair.expired(), [session]);
    let commits = &pair.halves[LEARNER].commits;
    assert!(commits.len() > 2, "{}", commits.len());
    assert!(commits.iter().all(|(record, _)| record.to_bytes().len() <= MOST));
    assert!(commits[..commits.len() - 1].iter().all(|(record, _)| record.header.session == SessionId(0)));
    for half in &pair.halves {
        assert_eq!((half.store.ephemerals_count(), half.store.has_session(session)), (0, false));
        assert_eq!(half.store.digest_mismatches(), 0);
    }
}
