//! Simulated clients: sessions that are opened, moved, left silent and closed; pipelined requests; watches. Each
//! checks what it is told, message by message, against the history.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_replica::zab::{Role, ServerId};
use zoometry_wire::records::{EventType, xid};
use zoometry_wire::request::{CreateRequest, PathMode, PathVersion, PathWatch, SetDataRequest, SetWatches};
use zoometry_wire::{Acl, ErrorCode, Request, Response, SessionId, Zxid};

use super::judge::GHOST_XIDS;
use super::network::{Cargo, End};
use super::watching::{Leaves, Told, Watching};
use super::{Due, TICK_MS, World};

/// What a client says.
#[derive(Debug)]
pub(super) enum ToServer {
    Connect { session: SessionId, password: Vec<u8>, timeout_ms: i32, last_zxid: Zxid },
    Ask { xid: i32, request: Request },
}

/// What it is told. The epoch whose leader lets it in is for the judges only.
#[derive(Debug)]
pub(super) enum ToClient {
    Connected { session: SessionId, password: Vec<u8>, epoch: i64 },
    SessionOver,
    Reply { xid: i32, zxid: Zxid, result: Result<Response, ErrorCode> },
    Event { kind: EventType, path: String, zxid: Zxid },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Away,
    Connecting(u64, ServerId),
    Open(u64, ServerId),
}

/// A request without an answer.
#[derive(Debug)]
struct Asked {
    xid: i32,
    request: Request,
    sent_us: u64,
    /// For sync: what its answer must not be behind.
    floor: Zxid,
}

/// A connection that its client has left without closing it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ghost {
    client: usize,
    session: SessionId,
    wire: u64,
    at: ServerId,
    /// The epoch in which it was opened.
    epoch: i64,
    /// The session has been at another member since, in this epoch or a later one, so this connection speaks
    /// for nobody.
    ///
    /// Being let in by the leader of an earlier epoch does not count. Whose a session is, is kept by the
    /// leader that was asked and by nobody else (`LeaderSessionTracker.java`), and one that was stopped goes
    /// on answering until it notices that others have gone on; the leader of this epoch cannot know. Nor is
    /// any order broken: what the session has asked of the earlier leader is never committed.
    stale: bool,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Requests all the time.
    Busy,
    /// Pings only, until then.
    Idle(u64),
    /// Not a word, until then.
    Silent(u64),
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    session: SessionId,
    password: Vec<u8>,
    timeout_ms: i32,
    last_zxid: Zxid,
    next_xid: i32,
    /// It numbers its requests from 1 again on every connection, as kazoo does, and not through its session.
    renumbers: bool,
    waiting: VecDeque<Asked>,
    watching: Watching,
    /// The watches of the last connection, until they are set again; and what was caught up with meanwhile.
    to_set_again: Option<Watching>,
    caught_up: Vec<Told>,
    mood: Mood,
    /// The epoch in which its connection was opened.
    epoch: i64,
    placed_us: u64,
    heard_us: u64,
    /// When the last request that was answered was sent: a member has heard of the session since.
    touched_us: u64,
    next_ghost_xid: i32,
    /// Sessions that it was told are over.
    pub(super) told_over: Vec<SessionId>,
    /// Acknowledged writes since the world was healed.
    pub(super) writes_since_heal: u32,
    next_own: u32,
}

impl Client {
    pub(super) fn new(renumbers: bool) -> Self {
        Self {
            place: Place::Away,
            session: SessionId(0),
            password: vec![0; 16],
            timeout_ms: 0,
            last_zxid: Zxid(0),
            next_xid: 1,
            renumbers,
            waiting: VecDeque::new(),
            watching: Watching::default(),
            to_set_again: None,
            caught_up: Vec::new(),
            mood: Mood::Busy,
            epoch: 0,
            placed_us: 0,
            heard_us: 0,
            touched_us: 0,
            next_ghost_xid: GHOST_XIDS,
            told_over: Vec::new(),
            writes_since_heal: 0,
            next_own: 0,
        }
    }

    fn wire(&self) -> Option<u64> {
        match self.place {
            Place::Away => None,
            Place::Connecting(wire, _) | Place::Open(wire, _) => Some(wire),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.place, Place::Open(..))
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// The weather is over: no more whims.
    pub(super) fn calm(&mut self) {
        self.mood = Mood::Busy;
        self.writes_since_heal = 0;
    }

    /// Whether it has got what it wanted since then.
    pub(super) fn is_content(&self) -> bool {
        self.is_open() && self.writes_since_heal >= CONTENT && self.waiting.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        format!("{:?} {} with {} writes", self.place, self.session, self.writes_since_heal)
    }
}

/// Acknowledged writes with which a client is content in the end.
const CONTENT: u32 = 4;
/// Requests that a client leaves unanswered before it waits.
const PIPELINED_MAX: usize = 12;

impl World {
    fn client(&mut self, client: usize) -> &mut Client {
        &mut self.clients[client]
    }

    /// It is the client's turn.
    pub(super) fn client_due(&mut self, client: usize) {
        let now_us = self.now_us;
        let pause_us = match self.clients[client].place {
            Place::Away => {
                self.client_connects(client);
                5_000
            }
            Place::Connecting(wire, _) => {
                let patience_us = 800_000;
                if now_us > self.clients[client].placed_us + patience_us {
                    self.leave(client, wire);
                }
                self.random.between(5_000, 30_000)
            }
            Place::Open(wire, _) => self.client_acts(client, wire),
        };
        self.plan(now_us + pause_us, Due::Client(client));
    }

    fn client_connects(&mut self, client: usize) {
        if self.clients[client].session == SessionId(0) && self.now_us < self.hush_us {
            return;
        }
        let mut ids = self.ids();
        if self.random.one_in(3) {
            // A stopped member's port still takes connections.
            ids.retain(|id| self.machine(*id).paused_until_us.is_some());
            if ids.is_empty() {
                ids = self.ids();
            }
        }
        let id = self.random.pick(&ids);
        let wire = self.add_wire(End::Client(client), End::Member(id));
        let timeout_ms = 400 + 100 * self.random.below(10) as i32;
        let now_us = self.now_us;
        let it = self.client(client);
        it.place = Place::Connecting(wire, id);
        it.placed_us = now_us;
        if it.session == SessionId(0) {
            it.timeout_ms = timeout_ms;
        }
        let (session, password, timeout_ms, last_zxid) =
            (it.session, it.password.clone(), it.timeout_ms, it.last_zxid);
        self.note(|| format!("client {client} dials {id} with {session}, having seen {last_zxid}"));
        let said = ToServer::Connect { session, password, timeout_ms, last_zxid };
        self.send(wire, End::Client(client), Cargo::ToServer(said));
        let stale = |ghost: &Ghost| {
            (ghost.client, ghost.session, ghost.at, ghost.stale) == (client, session, id, true)
        };
        if let Some(at) = self.ghosts.iter().position(stale) {
            // Back where it was: the old connection may still be heard there.
            let ghost = self.ghosts.remove(at);
            self.haunt(ghost);
        }
    }

    /// Gives the connection up; the session lives on.
    fn leave(&mut self, client: usize, wire: u64) {
        self.close_wire(wire, End::Client(client));
        self.client_lost(client, wire);
    }

    /// The connection is gone, whoever ended it.
    pub(super) fn client_lost(&mut self, client: usize, wire: u64) {
        if self.clients[client].wire() != Some(wire) {
            return;
        }
        self.note(|| format!("client {client} has lost its connection"));
        let model = &self.judge.model;
        let it = &mut self.clients[client];
        if let Err(why) = it.watching.end(model) {
            panic!("client {client}: {why}");
        }
        let left = std::mem::take(&mut it.watching);
        // What was not set again yet is still to be.
        it.to_set_again = Some(it.to_set_again.take().unwrap_or(left)).filter(|left| !left.is_empty());
        it.caught_up.clear();
        it.waiting.clear();
        if it.renumbers {
            it.next_xid = 1;
        }
        it.place = Place::Away;
    }

    /// What a client with an open session does in its turn. Returns the pause until the next, µs.
    fn client_acts(&mut self, client: usize, wire: u64) -> u64 {
        let now_us = self.now_us;
        let is_calm = self.healed_us.is_some();
        let it = &mut self.clients[client];
        let timeout_us = it.timeout_ms as u64 * 1000;
        match it.mood {
            Mood::Silent(until_us) if now_us < until_us => return 20_000,
            Mood::Silent(_) => it.mood = Mood::Busy,
            Mood::Idle(until_us) if now_us >= until_us => it.mood = Mood::Busy,
            _ => {}
        }
        let unanswered_us = it.waiting.front().map_or(0, |asked| now_us - asked.sent_us);
        if unanswered_us > timeout_us * 2 / 3 || !is_calm && self.random.one_in(60) {
            return self.client_moves(client, wire);
        }
        if !is_calm && self.random.one_in(250) {
            let until_us = now_us + self.random.between(timeout_us / 2, timeout_us * 2);
            self.client(client).mood = Mood::Silent(until_us);
            return 1_000;
        }
        if !is_calm && self.random.one_in(60) {
            let until_us = now_us + self.random.between(100_000, 2_000_000);
            self.client(client).mood = Mood::Idle(until_us);
        }
        let is_done = is_calm && self.clients[client].writes_since_heal >= CONTENT;
        let is_hushed = now_us < self.hush_us && !is_calm;
        if self.clients[client].mood == Mood::Busy && !is_done && !is_hushed {
            for _ in 0..=self.random.below(3) {
                if self.clients[client].waiting.len() < PIPELINED_MAX {
                    let request = self.any_request(client);
                    self.ask(client, wire, request);
                }
            }
            let slowest_us = self.client_pause_max_us;
            return self.random.between(500, slowest_us);
        }
        if self.clients[client].waiting.is_empty() && now_us > self.clients[client].heard_us + timeout_us / 4
        {
            self.ask(client, wire, Request::Ping);
        }
        self.random.between(10_000, 25_000)
    }

    /// To another member; sometimes the old connection is left behind without a word, and used once more.
    fn client_moves(&mut self, client: usize, wire: u64) -> u64 {
        let session = self.clients[client].session;
        if self.random.one_in(3) && self.healed_us.is_none() {
            let Place::Open(_, at) = self.clients[client].place else { return 1_000 };
            let epoch = self.clients[client].epoch;
            self.client_lost(client, wire);
            self.ghosts.push(Ghost { client, session, wire, at, epoch, stale: false });
        } else {
            self.leave(client, wire);
        }
        self.random.between(500, 20_000)
    }

    fn ask(&mut self, client: usize, wire: u64, request: Request) {
        let now_us = self.now_us;
        let floor = match &request {
            Request::Sync(_) => self.sync_floor(client),
            _ => Zxid(0),
        };
        let it = &mut self.clients[client];
        let xid = match request {
            Request::Ping => xid::PING,
            Request::SetWatches2(_) => xid::SET_WATCHES,
            _ => it.next_xid,
        };
        it.next_xid += i32::from(xid > 0);
        if request.op().is_write() {
            self.judge.send(it.session, xid, wire);
        }
        it.waiting.push_back(Asked { xid, request: request.clone(), sent_us: now_us, floor });
        self.note(|| format!("client {client} asks {xid}: {request:?}"));
        self.send(wire, End::Client(client), Cargo::ToServer(ToServer::Ask { xid, request }));
    }

    /// A sync must show whatever some client knows already, if the member's leader can know of it.
    fn sync_floor(&mut self, client: usize) -> Zxid {
        let Place::Open(_, id) = self.clients[client].place else { return Zxid(0) };
        let epoch = match self.machine(id).process.as_ref().map(|process| process.role) {
            Some(Role::Leading { epoch } | Role::Following { epoch, .. }) => epoch as i32,
            _ => 0,
        };
        self.judge.acknowledged(epoch)
    }

    // ---- what it hears ----

    pub(super) fn client_hears(&mut self, client: usize, wire: u64, said: ToClient) {
        if self.clients[client].wire() != Some(wire) {
            // A connection that was left behind.
            return;
        }
        self.note(|| format!("client {client} hears {said:?}"));
        let now_us = self.now_us;
        self.client(client).heard_us = now_us;
        match said {
            ToClient::Connected { session, password, epoch } => {
                self.client_connected(client, wire, session, password);
                self.leave_ghosts(client, epoch);
            }
            ToClient::SessionOver => self.client_expired(client, wire),
            ToClient::Reply { xid, zxid, result } => {
                if let Err(why) = self.hear_reply(client, wire, xid, zxid, result) {
                    panic!("client {client}: {why}");
                }
            }
            ToClient::Event { kind, path, zxid } => {
                let told = Told { kind, path, zxid };
                let it = &mut self.clients[client];
                if zxid == Zxid(-1) {
                    it.caught_up.push(told);
                } else if let Err(why) = it.watching.hear(told) {
                    panic!("client {client}: {why}");
                }
            }
        }
    }

    fn client_connected(&mut self, client: usize, wire: u64, session: SessionId, password: Vec<u8>) {
        let now_us = self.now_us;
        let Place::Connecting(_, id) = self.clients[client].place else {
            panic!("client {client} is connected twice");
        };
        let it = self.client(client);
        assert!(it.session == SessionId(0) || it.session == session, "client {client} gets another session");
        let is_new = it.session == SessionId(0);
        (it.session, it.password) = (session, password);
        it.place = Place::Open(wire, id);
        it.placed_us = now_us;
        it.touched_us = now_us;
        it.watching = Watching::behind(it.last_zxid);
        if is_new && self.random.one_in(2) {
            let root =
                |path: &str| CreateRequest { path: path.into(), data: None, acl: Acl::open(), flags: 0 };
            for path in ["/d", "/seq", "/eph"] {
                self.ask(client, wire, Request::Create(root(path)));
            }
        }
        let it = self.client(client);
        if let Some(left) = &it.to_set_again {
            let list = |of: &std::collections::BTreeSet<String>| of.iter().cloned().collect();
            let lists = SetWatches {
                relative_zxid: it.last_zxid,
                data: list(&left.data),
                exist: list(&left.exist),
                child: list(&left.child),
                persistent: list(&left.persistent),
                recursive: list(&left.recursive),
            };
            self.ask(client, wire, Request::SetWatches2(lists));
        }
    }

    /// The client's session is here now, by the word of this epoch's leader: what becomes of the connections
    /// that it has left.
    fn leave_ghosts(&mut self, client: usize, epoch: i64) {
        let Place::Open(_, id) = self.clients[client].place else { return };
        let session = self.clients[client].session;
        self.client(client).epoch = epoch;
        for mut ghost in std::mem::take(&mut self.ghosts) {
            if ghost.client == client && (ghost.session != session || ghost.at == id) {
                self.close_wire(ghost.wire, End::Client(client));
                continue;
            }
            let has_moved = ghost.client == client && ghost.epoch <= epoch;
            ghost.stale |= has_moved;
            if has_moved && self.random.one_in(2) {
                self.haunt(ghost);
            } else {
                self.ghosts.push(ghost);
            }
        }
    }

    /// A write on a connection that the session has left: by now it is somebody else's.
    fn haunt(&mut self, ghost: Ghost) {
        let Ghost { client, wire: ghost, .. } = ghost;
        let it = self.client(client);
        let xid = it.next_ghost_xid;
        it.next_ghost_xid += 1;
        self.note(|| format!("client {client} writes on its old connection, xid {xid}"));
        let request = Request::SetData(SetDataRequest {
            path: "/d".into(),
            data: Some(Bytes::from_static(b"ghost")),
            version: -1,
        });
        self.send(ghost, End::Client(client), Cargo::ToServer(ToServer::Ask { xid, request }));
        self.close_wire(ghost, End::Client(client));
    }

    fn client_expired(&mut self, client: usize, wire: u64) {
        self.leave(client, wire);
        let it = self.client(client);
        it.told_over.push(it.session);
        self.forget_session(client);
    }

    fn forget_session(&mut self, client: usize) {
        let it = self.client(client);
        it.session = SessionId(0);
        it.last_zxid = Zxid(0);
        it.next_xid = 1;
        it.watching = Watching::default();
        it.to_set_again = None;
        it.mood = Mood::Busy;
    }

    fn hear_reply(
        &mut self,
        client: usize,
        wire: u64,
        xid: i32,
        zxid: Zxid,
        result: Result<Response, ErrorCode>,
    ) -> Result<(), String> {
        let it = &mut self.clients[client];
        let Some(asked) = it.waiting.pop_front() else { return Err(format!("an answer to nothing: {xid}")) };
        if asked.xid != xid {
            return Err(format!("{xid} is answered before {}", asked.xid));
        }
        if zxid < it.last_zxid {
            return Err(format!("has seen {}, and is shown {zxid}", it.last_zxid));
        }
        if zxid < asked.floor {
            return Err(format!("a sync was answered at {zxid}, and {} was known before", asked.floor));
        }
        it.last_zxid = zxid;
        if asked.sent_us > it.touched_us + it.timeout_ms as u64 * 500 {
            // It was silent for long: what the leader then thought of it may still be under way.
            it.placed_us = self.now_us;
        }
        it.touched_us = asked.sent_us;
        it.watching.reach(&self.judge.model, zxid)?;
        let request = &asked.request;
        if request.op().is_write() {
            return self.hear_write(client, wire, xid, zxid, request, &result);
        }
        self.judge.read_answered(request, zxid, &result)?;
        match request {
            Request::SetWatches2(lists) => {
                return self.hear_watches_set_again(client, lists.relative_zxid, zxid);
            }
            Request::GetData(ask) if ask.watch && result.is_ok() => {
                it.watching.leave(Leaves::Data, &ask.path, true);
            }
            Request::Exists(ask) if ask.watch => {
                it.watching.leave(Leaves::Data, &ask.path, result.is_ok());
            }
            Request::GetChildren2(ask) if ask.watch && result.is_ok() => {
                it.watching.leave(Leaves::Child, &ask.path, true);
            }
            Request::AddWatch(ask) => {
                let leaves = if ask.mode == 0 { Leaves::Persistent } else { Leaves::Recursive };
                it.watching.leave(leaves, &ask.path, true);
            }
            _ => {}
        }
        Ok(())
    }

    fn hear_write(
        &mut self,
        client: usize,
        wire: u64,
        xid: i32,
        zxid: Zxid,
        request: &Request,
        result: &Result<Response, ErrorCode>,
    ) -> Result<(), String> {
        let it = &mut self.clients[client];
        it.writes_since_heal += u32::from(result.is_ok());
        self.judge.write_answered(it.session, xid, request, zxid, result)?;
        if *result == Err(ErrorCode::SessionMoved) {
            self.leave(client, wire);
        } else if *request == Request::CloseSession && result.is_ok() {
            self.leave(client, wire);
            self.forget_session(client);
        }
        Ok(())
    }

    /// What it has missed since `since` was sent before this reply: neither more nor less than the model says.
    fn hear_watches_set_again(&mut self, client: usize, since: Zxid, zxid: Zxid) -> Result<(), String> {
        let it = &mut self.clients[client];
        let Some(left) = it.to_set_again.take() else { return Ok(()) };
        let (watching, missed) = Watching::set_again(&left, &self.judge.model, since, zxid);
        let caught_up = std::mem::take(&mut it.caught_up);
        if caught_up != missed {
            return Err(format!("caught up with {caught_up:?} instead of {missed:?} at {zxid}"));
        }
        it.watching.set_behind(watching);
        Ok(())
    }

    // ---- what it asks ----

    fn any_request(&mut self, client: usize) -> Request {
        let healing = self.healed_us.is_some();
        let random = &mut self.random;
        let path = any_path(random);
        let watch = random.one_in(3);
        let data = Some(Bytes::from(vec![random.number() as u8; random.below(20)]));
        let acl = Acl::open();
        let its_number = self.clients[client].next_own;
        match random.below(if healing { 24 } else { 25 }) {
            0..=3 => Request::Create(CreateRequest { path, data, acl, flags: 0 }),
            4..=5 => {
                let path = format!("/seq/{}-", random.below(2));
                Request::Create(CreateRequest {
                    path,
                    data,
                    acl,
                    flags: if random.one_in(2) { 2 } else { 3 },
                })
            }
            6..=7 => {
                self.clients[client].next_own += 1;
                let path = format!("/eph/{client}-{its_number}");
                Request::Create(CreateRequest { path, data, acl, flags: 1 })
            }
            8..=10 => {
                let version = if random.one_in(3) { random.below(4) as i32 } else { -1 };
                Request::SetData(SetDataRequest { path, data, version })
            }
            11 => Request::Delete(PathVersion { path, version: -1 }),
            12 if its_number > 0 => {
                let path = format!("/eph/{client}-{}", random.below(its_number as usize));
                Request::Delete(PathVersion { path, version: -1 })
            }
            12..=13 => any_multi(random),
            14..=16 => Request::GetData(PathWatch { path, watch }),
            17..=18 => Request::Exists(PathWatch { path, watch }),
            19..=20 => {
                let path = ["/d", "/seq", "/eph"][random.below(3)].to_string();
                Request::GetChildren2(PathWatch { path, watch })
            }
            21..=22 => Request::Sync("/".into()),
            23 if random.one_in(3) => {
                let path = if random.one_in(2) { "/d".to_string() } else { path };
                Request::AddWatch(PathMode { path, mode: random.below(2) as i32 })
            }
            23 => Request::Ping,
            _ if random.one_in(6) => Request::CloseSession,
            _ => Request::Ping,
        }
    }

    // ---- expiry ----

    /// A leader ends a session for its silence: was it silent? Only while nothing else was wrong can that be
    /// judged from outside.
    pub(super) fn judge_expiry(&mut self, id: ServerId, session: SessionId) {
        let now_us = self.now_us;
        let restless_us = self.restless_us;
        let Some(client) = self.clients.iter().find(|client| client.session == session) else { return };
        let timeout_us = client.timeout_ms as u64 * 1000;
        let calm_for_us = now_us.saturating_sub(restless_us.max(client.placed_us));
        let silent_for_us = now_us.saturating_sub(client.touched_us);
        // Whoever is heard of at least every half of its timeout, and whose leader hears of it a ping later,
        // cannot have been silent for the whole of it.
        let is_calm = self.is_calm() && calm_for_us > timeout_us / 2 + 3 * TICK_MS * 1000;
        assert!(
            !(is_calm && client.is_open() && silent_for_us < timeout_us / 2),
            "{id} ends session {session} for its silence, and a member has heard of it {silent_for_us} µs ago"
        );
    }
}

fn any_path(random: &mut crate::random::Random) -> String {
    if random.one_in(3) {
        return format!("/d/n{}/k{}", random.below(2), random.below(2));
    }
    format!("/d/n{}", random.below(6))
}

/// Of znodes that have nothing to do with each other, so that each result is that of the whole.
fn any_multi(random: &mut crate::random::Random) -> Request {
    let first = random.below(6);
    let parts = (0..1 + random.below(3)).map(|at| {
        let path = format!("/d/n{}", (first + at) % 6);
        match random.below(4) {
            0 => {
                Request::Create(CreateRequest { path, data: Some(Bytes::new()), acl: Acl::open(), flags: 0 })
            }
            1 => Request::Delete(PathVersion { path, version: -1 }),
            2 => Request::Check(PathVersion { path, version: -1 }),
            _ => Request::SetData(SetDataRequest { path, data: Some(Bytes::from_static(b"m")), version: -1 }),
        }
    });
    Request::Multi(parts.collect())
}
