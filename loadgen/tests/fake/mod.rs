//! A ZooKeeper in this process, for tests: a flat map instead of a tree, no sessions to speak of, no durability; but it can be told to
//! stand still, and when it did is known exactly.

// Each test file uses a part of it.
#![allow(dead_code)]

use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zoometry_wire::jute::Record;
use zoometry_wire::records::{
    ConnectRequest, ConnectResponse, EventType, ReplyHeader, RequestHeader, WatcherEvent, xid,
};
use zoometry_wire::request::CreateMode;
use zoometry_wire::{ErrorCode, OpCode, Request, Response, SessionId, Stat, Zxid, frame, path};

/// How the fake misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// Before it answers the n-th getData (counted over all connections), everything stands still for so long, once.
    pub(crate) stall: Option<(u64, Duration)>,
    /// Every n-th acknowledged setData is not done.
    pub(crate) forget_every: Option<u64>,
    /// Every n-th getData closes its connection instead of answering.
    pub(crate) hang_up_every: Option<u64>,
    /// Ephemeral znodes are acknowledged and not made.
    pub(crate) forget_ephemerals: bool,
    /// Sessions that come back are told that they have expired, and their connections stay open.
    pub(crate) expire: bool,
    /// Persistent znodes that are made by the load are acknowledged and not made.
    pub(crate) forget_creates: bool,
    /// Every sequential znode gets the same name.
    pub(crate) same_number: bool,
    /// After so many setDatas connections with watches are closed, and nobody is let back.
    pub(crate) drop_watchers_after: Option<u64>,
    /// Watches are taken and never fire.
    pub(crate) forget_watches: bool,
    /// Who has not said on its connection that it is this, with this password, may do nothing.
    pub(crate) closed: Option<&'static str>,
    /// Znodes can be made below this one only.
    pub(crate) only_below: Option<&'static str>,
    /// Sessions that come back are given a new id, as if they were new.
    pub(crate) replace_sessions: bool,
    /// What else is done wrong: at every n-th request of a kind, counted over all connections.
    pub(crate) script: &'static [(OpCode, u64, Trick)],
}

/// One way to break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// The reply shows the state before the last change.
    Stale,
    /// The reply holds the value of another znode.
    Swap,
    /// The reply's value lacks its last byte, and its Stat agrees.
    Shorten,
    /// One byte of the value in the reply is another.
    Corrupt,
    /// The write is acknowledged and counted, and the value stays as it was.
    KeepValue,
    /// The reply's list lacks one name.
    HideChild,
    /// It is acknowledged, and nothing is done.
    Forget,
    /// Watchers of the change are told twice.
    TellTwice,
    /// Watchers of the change are not told.
    TellNobody,
    /// The connection that asked is told of a change of the znode, whether it watches it or not.
    TellAsker,
    /// Refused with NoNode.
    Refuse,
}

#[derive(Default)]
struct Shared {
    behaviour: Behaviour,
    nodes: BTreeMap<String, (Bytes, Stat)>,
    /// What a znode was before its last change.
    before: BTreeMap<String, (Bytes, Stat)>,
    /// A sync was asked for. Behind it a run looks at what is left, and is answered honestly.
    over: bool,
    /// Whose connection is whose, and whose ephemeral.
    session_of: BTreeMap<u64, i64>,
    ephemerals: BTreeMap<String, i64>,
    /// Requests so far, by kind.
    asked: BTreeMap<i32, u64>,
    /// One-shot data watches: path and connection.
    watches: Vec<(String, u64)>,
    /// Those that stay, on a znode or on all below it.
    lasting: Vec<(String, u64)>,
    events: Vec<(u64, String)>,
    zxid: i64,
    sessions: i64,
    connections: u64,
    /// Connections that have said who they are.
    known: Vec<u64>,
    gets: u64,
    sets: u64,
    still_until: Option<Instant>,
    down_while: Option<PathBuf>,
    stalled: Option<Duration>,
}

impl Shared {
    /// Counts a request, and says what is to be done wrong with it.
    fn trick(&mut self, op: OpCode) -> Option<Trick> {
        if self.over {
            return None;
        }
        let asked = self.asked.entry(op.code()).or_default();
        *asked += 1;
        let due = |(of, every, _): &&(OpCode, u64, Trick)| *of == op && asked.is_multiple_of(*every);
        self.behaviour.script.iter().find(due).map(|(_, _, trick)| *trick)
    }

    /// Events of a changed znode, for everybody who watches it.
    fn tell(&mut self, path: &str, times: usize) {
        let fired: Vec<_> = self.watches.extract_if(.., |(on, _)| on == path).collect();
        let below = |on: &String| {
            path == on || path.strip_prefix(on.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let lasting = self.lasting.iter().filter(|(on, _)| below(on));
        let connections: Vec<u64> = fired.iter().chain(lasting).map(|(_, connection)| *connection).collect();
        for connection in connections {
            self.events.extend(std::iter::repeat_n((connection, path.to_owned()), times));
        }
    }

    /// Whether it will have nothing to do with that connection any more.
    fn leaves(&self, connection: u64) -> bool {
        let over = self.behaviour.drop_watchers_after.is_some_and(|after| self.sets >= after);
        over && self.watches.iter().any(|(_, whose)| *whose == connection)
    }
}

/// The running fake.
pub(crate) struct Fake {
    /// Its client port.
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Fake {
    /// Starts on a free port of 127.0.0.1, on a thread of its own that lives as long as the process.
    pub(crate) fn start(behaviour: Behaviour) -> Fake {
        let mut nodes = BTreeMap::new();
        nodes.insert("/".to_string(), (Bytes::new(), Stat::default()));
        let shared = Arc::new(Mutex::new(Shared { behaviour, nodes, ..Default::default() }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let kept = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    // A peer that has gone already is noticed when it is read from.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(serve(stream, kept.clone()));
                }
            });
        });
        Fake { address, shared }
    }

    /// Starts one that is as good as dead while a file of that name exists.
    pub(crate) fn down_while(behaviour: Behaviour, file: PathBuf) -> Fake {
        let fake = Fake::start(behaviour);
        fake.shared.lock().unwrap().down_while = Some(file);
        fake
    }

    /// How long it really stood still.
    pub(crate) fn stalled(&self) -> Option<Duration> {
        self.shared.lock().unwrap().stalled
    }

    /// Makes an empty znode.
    pub(crate) fn make(&self, path: &str) {
        self.shared.lock().unwrap().nodes.insert(path.into(), (Bytes::new(), Stat::default()));
    }

    /// Takes away every znode whose name begins so, as the end of a session does.
    pub(crate) fn take_away(&self, prefix: &str) {
        self.shared.lock().unwrap().nodes.retain(|path, _| !path::name(path).starts_with(prefix));
    }

    /// The znodes that are left.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.shared.lock().unwrap().nodes.keys().cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut connected = false;
    let connection = {
        let mut shared = shared.lock().unwrap();
        shared.connections += 1;
        shared.connections
    };
    loop {
        // Events of other connections' writes are noticed within a millisecond.
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read_buf(&mut input)).await;
        if let Ok(Ok(0) | Err(_)) = read {
            return;
        }
        let down = shared.lock().unwrap().down_while.as_ref().is_some_and(|file| file.exists());
        if down {
            return;
        }
        if shared.lock().unwrap().leaves(connection) {
            return;
        }
        if !connected && input.starts_with(b"srvr") {
            let _ = stream.write_all(b"Zookeeper version: fake\nMode: standalone\n").await;
            return;
        }
        stand_still(&shared).await;
        while let Some(body) = frame::first(&input, 1 << 20).unwrap() {
            let body = Bytes::copy_from_slice(body);
            input.advance(frame::PREFIX + body.len());
            if !connected {
                connected = true;
                let shared = &mut *shared.lock().unwrap();
                if shared.behaviour.drop_watchers_after.is_some_and(|after| shared.sets >= after) {
                    // A new session may be whoever looks at what is left.
                    let (request, _) = ConnectRequest::decode_frame(&body).unwrap();
                    if request.session_id.0 != 0 {
                        return;
                    }
                }
                connect(shared, connection, &body, &mut out);
                continue;
            }
            let Some(closes) = answer(&shared, connection, &body, &mut out).await else { return };
            if closes {
                let _ = stream.write_all(&out).await;
                return;
            }
        }
        put_events(&mut shared.lock().unwrap(), connection, &mut out);
        if !out.is_empty() && stream.write_all_buf(&mut out).await.is_err() {
            return;
        }
    }
}

async fn stand_still(shared: &Mutex<Shared>) {
    let until = shared.lock().unwrap().still_until;
    if let Some(until) = until {
        // Short of the end by tokio's grain, then exactly to it.
        tokio::time::sleep(
            until.saturating_duration_since(Instant::now()).saturating_sub(Duration::from_millis(3)),
        )
        .await;
        while Instant::now() < until {
            tokio::task::yield_now().await;
        }
    }
}

fn connect(shared: &mut Shared, connection: u64, body: &[u8], out: &mut BytesMut) {
    let (request, read_only) = ConnectRequest::decode_frame(body).unwrap();
    if shared.behaviour.expire && request.session_id.0 != 0 {
        let over = ConnectResponse {
            protocol_version: 0,
            timeout_ms: 0,
            session_id: SessionId(0),
            password: Some(Bytes::from_static(&[0; 16])),
        };
        frame::put(out, |out| over.encode_frame(read_only, out));
        return;
    }
    let session_id = if request.session_id.0 == 0 || shared.behaviour.replace_sessions {
        shared.sessions += 1;
        SessionId(shared.sessions)
    } else {
        request.session_id
    };
    shared.session_of.insert(connection, session_id.0);
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: request.timeout_ms,
        session_id,
        password: Some(Bytes::from_static(&[1; 16])),
    };
    frame::put(out, |out| response.encode_frame(read_only, out));
}

/// Appends the reply; `None` when the connection is to be dropped, true when it is to be closed after the reply.
async fn answer(shared: &Mutex<Shared>, connection: u64, body: &[u8], out: &mut BytesMut) -> Option<bool> {
    let header = RequestHeader::from_bytes(body).unwrap();
    let op = OpCode::from_code(header.op).unwrap();
    let request = Request::decode(op, &body[8..]).unwrap();
    let mut begins = None;
    let (zxid, result) = {
        let mut shared = shared.lock().unwrap();
        if op == OpCode::GetData {
            shared.gets += 1;
            let gets = shared.gets;
            if !shared.over && shared.behaviour.hang_up_every.is_some_and(|n| gets.is_multiple_of(n)) {
                return None;
            }
            if let Some((_, length)) = shared.behaviour.stall.filter(|(n, _)| *n == gets) {
                begins = Some(Instant::now());
                shared.still_until = Some(Instant::now() + length);
            }
        }
        let trick = shared.trick(op);
        let result = apply(&mut shared, connection, request, trick);
        (shared.zxid, result)
    };
    if let Some(begins) = begins {
        stand_still(shared).await;
        let mut shared = shared.lock().unwrap();
        shared.still_until = None;
        shared.stalled = Some(begins.elapsed());
    }
    let err = result.as_ref().err().map_or(0, |code| code.code());
    put_events(&mut shared.lock().unwrap(), connection, out);
    frame::put(out, |out| {
        ReplyHeader { xid: header.xid, zxid: Zxid(zxid), err }.encode(out);
        if let Ok(response) = result {
            response.encode(out);
        }
    });
    Some(op == OpCode::CloseSession)
}

fn put_events(shared: &mut Shared, connection: u64, out: &mut BytesMut) {
    let (mine, others) = shared.events.drain(..).partition::<Vec<_>, _>(|(whose, _)| *whose == connection);
    shared.events = others;
    for (_, path) in mine {
        frame::put(out, |out| {
            ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(-1), err: 0 }.encode(out);
            WatcherEvent { kind: EventType::NodeDataChanged as i32, state: 3, path }.encode(out);
        });
    }
}

fn apply(
    shared: &mut Shared,
    connection: u64,
    request: Request,
    trick: Option<Trick>,
) -> Result<Response, ErrorCode> {
    if trick == Some(Trick::Refuse) {
        return Err(ErrorCode::NoNode);
    }
    if request.op().is_write() {
        shared.zxid += 1;
    }
    let zxid = Zxid(shared.zxid);
    let open = matches!(request, Request::Auth(_) | Request::Ping | Request::CloseSession);
    if shared.behaviour.closed.is_some() && !open && !shared.known.contains(&connection) {
        return Err(ErrorCode::NoAuth);
    }
    match request {
        Request::Auth(packet) => {
            if packet.auth.as_deref() == shared.behaviour.closed.map(str::as_bytes) {
                shared.known.push(connection);
            }
            Ok(Response::Empty)
        }
        Request::Create(create)
            if shared.behaviour.only_below.is_some_and(|root| !create.path.starts_with(root)) =>
        {
            Err(ErrorCode::NoAuth)
        }
        Request::Create(create) => {
            let sequential = create.flags & CreateMode::PersistentSequential as i32 != 0;
            if sequential && shared.behaviour.same_number {
                let path = format!("{}0000000007", create.path);
                shared.nodes.insert(path.clone(), (create.data.unwrap_or_default(), Stat::default()));
                return Ok(Response::Path(path));
            }
            if shared.nodes.contains_key(&create.path) {
                return Err(ErrorCode::NodeExists);
            }
            if !shared.nodes.contains_key(path::parent(&create.path)) {
                return Err(ErrorCode::NoNode);
            }
            let data = create.data.unwrap_or_default();
            let stat =
                Stat { czxid: zxid, mzxid: zxid, data_length: data.len() as i32, ..Default::default() };
            let ephemeral = create.flags == CreateMode::Ephemeral as i32;
            let by_the_load = path::name(&create.path).starts_with('p');
            if !(shared.behaviour.forget_ephemerals && ephemeral
                || shared.behaviour.forget_creates && by_the_load)
            {
                shared.nodes.insert(create.path.clone(), (data, stat));
                if ephemeral {
                    shared.ephemerals.insert(create.path.clone(), shared.session_of[&connection]);
                }
            }
            Ok(Response::Path(create.path))
        }
        Request::Delete(delete) => {
            if children(shared, &delete.path).next().is_some() {
                return Err(ErrorCode::NotEmpty);
            }
            if trick == Some(Trick::Forget) {
                return Ok(Response::Empty);
            }
            shared.nodes.remove(&delete.path).map(|_| Response::Empty).ok_or(ErrorCode::NoNode)
        }
        Request::SetData(set) => {
            shared.sets += 1;
            let forget = shared.behaviour.forget_every.is_some_and(|n| shared.sets.is_multiple_of(n));
            let (data, stat) = shared.nodes.get_mut(&set.path).ok_or(ErrorCode::NoNode)?;
            let value = set.data.unwrap_or_default();
            let mut answer = *stat;
            answer.version += 1;
            answer.mzxid = zxid;
            answer.data_length = value.len() as i32;
            if !forget {
                shared.before.insert(set.path.clone(), (data.clone(), *stat));
                *stat = answer;
                if trick != Some(Trick::KeepValue) {
                    *data = value;
                }
                let times = match trick {
                    Some(Trick::TellTwice) => 2,
                    Some(Trick::TellNobody) => 0,
                    _ => 1,
                };
                shared.tell(&set.path, times);
                if trick == Some(Trick::TellAsker) {
                    shared.events.push((connection, set.path));
                }
            }
            Ok(Response::Stat(answer))
        }
        Request::GetData(get) => {
            let (data, stat) = shared.nodes.get(&get.path).ok_or(ErrorCode::NoNode)?.clone();
            let answer = match trick {
                Some(Trick::Stale) => shared.before.get(&get.path).cloned().unwrap_or((data, stat)),
                Some(Trick::Swap) => {
                    let beside =
                        |path: &&String| path::parent(path) == path::parent(&get.path) && **path != get.path;
                    let other = shared.nodes.keys().find(beside).expect("another key");
                    (shared.nodes[other].0.clone(), stat)
                }
                Some(Trick::Shorten) => {
                    (data.slice(..data.len() - 1), Stat { data_length: stat.data_length - 1, ..stat })
                }
                Some(Trick::Corrupt) => {
                    let mut bytes = data.to_vec();
                    *bytes.last_mut().expect("a value") ^= 1;
                    (bytes.into(), stat)
                }
                _ => (data, stat),
            };
            if get.watch && !shared.behaviour.forget_watches {
                shared.watches.push((get.path, connection));
            }
            Ok(Response::Data(Some(answer.0), answer.1))
        }
        Request::Exists(exists) => {
            shared.nodes.get(&exists.path).map(|(_, stat)| Response::Stat(*stat)).ok_or(ErrorCode::NoNode)
        }
        Request::GetChildren(get) => {
            shared.nodes.get(&get.path).ok_or(ErrorCode::NoNode)?;
            Ok(Response::Children(children(shared, &get.path).map(|p| path::name(p).to_string()).collect()))
        }
        Request::GetChildren2(get) => {
            let stat = shared.nodes.get(&get.path).ok_or(ErrorCode::NoNode)?.1;
            let mut names: Vec<String> =
                children(shared, &get.path).map(|p| path::name(p).to_string()).collect();
            let stat = Stat { num_children: names.len() as i32, ..stat };
            if trick == Some(Trick::HideChild) {
                names.pop();
            }
            Ok(Response::Children2(names, stat))
        }
        Request::AddWatch(add) => {
            shared.lasting.push((add.path, connection));
            Ok(Response::Error(0))
        }
        Request::RemoveWatches(remove) => {
            let mine = |(path, whose): &(String, u64)| *path == remove.path && *whose == connection;
            shared.watches.retain(|watch| !mine(watch));
            shared.lasting.retain(|watch| !mine(watch));
            Ok(Response::Empty)
        }
        Request::Sync(path) => {
            shared.over = true;
            Ok(Response::Path(path))
        }
        Request::CloseSession => {
            let session = shared.session_of[&connection];
            for (path, _) in shared.ephemerals.extract_if(.., |_, owner| *owner == session) {
                shared.nodes.remove(&path);
            }
            Ok(Response::Empty)
        }
        Request::SetWatches(set) | Request::SetWatches2(set) => {
            for path in set.data {
                match shared.nodes.get(&path) {
                    Some((_, stat)) if stat.mzxid <= set.relative_zxid => {
                        shared.watches.push((path, connection))
                    }
                    _ => shared.events.push((connection, path)),
                }
            }
            let lasting = set.persistent.into_iter().chain(set.recursive);
            shared.lasting.extend(lasting.map(|path| (path, connection)));
            Ok(Response::Empty)
        }
        Request::Ping => Ok(Response::Empty),
        other => panic!("the fake knows no {:?}", other.op()),
    }
}

fn children<'a>(shared: &'a Shared, parent: &'a str) -> impl Iterator<Item = &'a String> {
    shared.nodes.keys().filter(move |p| path::parent(p) == parent && *p != "/")
}
