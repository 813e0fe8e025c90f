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
}

#[derive(Default)]
struct Shared {
    behaviour: Behaviour,
    nodes: BTreeMap<String, (Bytes, Stat)>,
    /// One-shot data watches: path and connection.
    watches: Vec<(String, u64)>,
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
                connect(shared, &body, &mut out);
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

fn connect(shared: &mut Shared, body: &[u8], out: &mut BytesMut) {
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
    let session_id = if request.session_id.0 == 0 {
        shared.sessions += 1;
        SessionId(shared.sessions)
    } else {
        request.session_id
    };
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
            if shared.behaviour.hang_up_every.is_some_and(|n| gets.is_multiple_of(n)) {
                return None;
            }
            if let Some((_, length)) = shared.behaviour.stall.filter(|(n, _)| *n == gets) {
                begins = Some(Instant::now());
                shared.still_until = Some(Instant::now() + length);
            }
        }
        let result = apply(&mut shared, connection, request);
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

fn apply(shared: &mut Shared, connection: u64, request: Request) -> Result<Response, ErrorCode> {
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
            }
            Ok(Response::Path(create.path))
        }
        Request::Delete(delete) => {
            if children(shared, &delete.path).next().is_some() {
                return Err(ErrorCode::NotEmpty);
            }
            shared.nodes.remove(&delete.path).map(|_| Response::Empty).ok_or(ErrorCode::NoNode)
        }
        Request::SetData(set) => {
            shared.sets += 1;
            let forget = shared.behaviour.forget_every.is_some_and(|n| shared.sets.is_multiple_of(n));
            let (data, stat) = shared.nodes.get_mut(&set.path).ok_or(ErrorCode::NoNode)?;
            let mut answer = *stat;
            answer.version += 1;
            answer.mzxid = zxid;
            if !forget {
                *stat = answer;
                *data = set.data.unwrap_or_default();
                let fired: Vec<_> = shared.watches.extract_if(.., |(path, _)| *path == set.path).collect();
                shared.events.extend(fired.into_iter().map(|(path, connection)| (connection, path)));
            }
            Ok(Response::Stat(answer))
        }
        Request::GetData(get) => {
            let (data, stat) = shared.nodes.get(&get.path).ok_or(ErrorCode::NoNode)?.clone();
            if get.watch && !shared.behaviour.forget_watches {
                shared.watches.push((get.path, connection));
            }
            Ok(Response::Data(Some(data), stat))
        }
        Request::Exists(exists) => {
            shared.nodes.get(&exists.path).map(|(_, stat)| Response::Stat(*stat)).ok_or(ErrorCode::NoNode)
        }
        Request::GetChildren(get) => {
            shared.nodes.get(&get.path).ok_or(ErrorCode::NoNode)?;
            Ok(Response::Children(children(shared, &get.path).map(|p| path::name(p).to_string()).collect()))
        }
        Request::RemoveWatches(remove) => {
            let mine = |(path, whose): &(String, u64)| *path == remove.path && *whose == connection;
            shared.watches.retain(|watch| !mine(watch));
            Ok(Response::Empty)
        }
        Request::Sync(path) => Ok(Response::Path(path)),
        Request::Ping | Request::CloseSession | Request::SetWatches(_) | Request::SetWatches2(_) => {
            Ok(Response::Empty)
        }
        other => panic!("the fake knows no {:?}", other.op()),
    }
}

fn children<'a>(shared: &'a Shared, parent: &'a str) -> impl Iterator<Item = &'a String> {
    shared.nodes.keys().filter(move |p| path::parent(p) == parent && *p != "/")
}
