//! A node of its own over a temporary directory, and many who bring it events at once.

use std::io::Read;
use std::net::TcpStream as Client;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use zoometry_replica::member::Member;
use zoometry_replica::storage::{Compression, LogOptions, TxnLog};
use zoometry_replica::store::session::SessionTracker;
use zoometry_replica::store::{Store, StoreConfig};
use zoometry_replica::zab::{Link, Role, ServerId};
use zoometry_wire::peer::{ForwardedRequest, PacketKind, QuorumPacket};
use zoometry_wire::records::{ConnectResponse, ReplyHeader};
use zoometry_wire::request::{CreateRequest, SetDataRequest};
use zoometry_wire::{Acl, Id, Reader, Record, Request, SessionId, Zxid};

use super::*;
use crate::config::Config;
use crate::conn::{Conn, PendingWrite, Phase};
use crate::disk::FileDisk;
use crate::disk_thread::{self, Behind, DiskOptions, Durable};
use crate::node::{FromClient, PROPOSED_BYTES_LIMIT, Parts, Submission, UNFORWARDED_BYTES_LIMIT, Write};
use crate::peers::PeerEvent;
use crate::peers::tests::links::Paused;
use crate::shared::{ConnLimits, Conns, Part, Shared};
use crate::snapshot_thread::{SnapshotOptions, Snapshotter};
use crate::telemetry::Tracer;
use crate::view::Mode;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a member alone is made of, as `member` puts it together.
pub(in crate::node) fn standalone(home: &std::path::Path) -> (Arc<Shared>, Parts) {
    let text = format!("dataDir={}\nclientPort=2181\n", home.display());
    let config = Config::parse(&text, "zoo.cfg").expect("a configuration");
    let files = FileDisk::open(&config.data_dir, &config.data_log_dir).expect("directories");
    let store = Store::new(StoreConfig::default());
    let member = Member::alone(&store, SessionId(1 << 56));
    let store = Arc::new(RwLock::new(store));
    let handle = NodeHandle::default();
    let node = handle.clone();
    let (queue, disk) = disk_thread::spawn(
        files.clone(),
        TxnLog::new(files.clone(), LogOptions::default()),
        DiskOptions { now_ns: clock::now_ns, sync_warn_ms: 60_000 },
        move |durable, behind| match behind {
            Behind::Nothing => node.send(NodeEvent::Durable(durable)),
            Behind::Work => node.leave(NodeEvent::Durable(durable)),
        },
        |error| panic!("{error}"),
    )
    .expect("the disk's thread");
    let options = SnapshotOptions {
        snap_count: 1 << 40,
        snap_size_limit_bytes: 0,
        seed: 1,
        compression: Compression::None,
    };
    let snapshots = Snapshotter::spawn(files.clone(), Arc::clone(&store), queue.clone(), options, |_| ())
        .expect("the snapshots' thread");
    let shared = Arc::new(Shared {
        sessions: Mutex::new(SessionTracker::new(2000)),
        config,
        store,
        conns: Conns::new(512 << 20),
        node: handle,
        stats: Arc::default(),
        disk: queue,
        digests: Mutex::default(),
        tracer: Tracer::off(),
        files,
        part: Part::new(Some(Mode::Standalone)),
        standing: Mutex::default(),
    });
    let parts = Parts { shared: Arc::clone(&shared), disk, snapshots, member, peers: None, damage: None };
    (shared, parts)
}

/// A connection whose task runs, and its client's end.
fn connect(shared: &Arc<Shared>, runtime: &Runtime) -> (Arc<Conn>, Client) {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = Client::connect(listener.local_addr().expect("its number")).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (stream, peer) = listener.accept().await.expect("accept");
        let (reader, writer) = stream.into_split();
        let conn = Conn::new(shared.conns.next_id(), peer, writer, 16 << 20, shared.conns.unsent());
        tokio::spawn(crate::conn::serve(Arc::clone(shared), Arc::clone(&conn), reader));
        (conn, client)
    })
}

fn read_frame(client: &mut Client) -> Vec<u8> {
    let mut length = [0; 4];
    client.read_exact(&mut length).expect("a frame's length");
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut body).expect("a frame");
    body
}

fn open_session(conn: &Arc<Conn>) -> NodeEvent {
    conn.desk().phase = Phase::Opening;
    NodeEvent::Client(FromClient::OpenSession { conn: Arc::clone(conn), timeout_ms: 30_000 })
}

fn submission(conn: &Arc<Conn>, session: SessionId, xid: i32, request: Request) -> NodeEvent {
    let received_ns = clock::now_ns();
    conn.desk().pipeline.push_write(PendingWrite { xid, op: request.op(), received_ns }, 0);
    let ids: Arc<[Id]> = Arc::new([]);
    let writes = vec![Write { xid, request }];
    let conn = Arc::clone(conn);
    NodeEvent::Client(FromClient::Submit(Submission { conn, session, ids, writes, received_ns }))
}

fn create(path: &str) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: Some(Bytes::new()), acl: Acl::open(), flags: 0 })
}

/// Refused unless it is performed behind `version` others.
fn set(path: &str, version: i32) -> Request {
    Request::SetData(SetDataRequest { path: path.into(), data: Some(Bytes::new()), version })
}

/// One of many: opens a session, and writes what is refused out of order. Some events are performed where they
/// are brought, some left; it waits for nothing, or now and then for an idle node.
fn write_in_order(shared: &Arc<Shared>, (conn, mut client): (Arc<Conn>, Client), number: i32, writes: i32) {
    let opened = ConnectResponse::decode(&mut Reader::new(&read_frame(&mut client))).expect("a response");
    let path = format!("/n{number}");
    shared.node.send(submission(&conn, opened.session_id, 0, create(&path)));
    let mut read = 0;
    let mut expect_reply = |expected: i32| {
        let body = read_frame(&mut client);
        let header = ReplyHeader::decode(&mut Reader::new(&body)).expect("a header");
        assert_eq!((header.xid, header.err), (expected, 0), "of {number}");
    };
    for xid in 1..=writes {
        let event = submission(&conn, opened.session_id, xid, set(&path, xid - 1));
        match (xid + number) % 5 {
            0 => shared.node.leave(event),
            _ => shared.node.send(event),
        }
        if (xid * 7 + number) % 50 == 0 {
            (read..=xid).for_each(&mut expect_reply);
            read = xid + 1;
        }
    }
    (read..=writes).for_each(&mut expect_reply);
}

#[test]
fn events_of_one_source_stay_in_order_and_none_is_lost() {
    const SOURCES: i32 = 6;
    const WRITES: i32 = 1500;
    let home = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (shared, parts) = standalone(home.path());
    let conns: Vec<_> = (0..SOURCES).map(|_| connect(&shared, &runtime)).collect();
    // Brought before the node has begun: they wait for it.
    conns.iter().for_each(|(conn, _)| shared.node.send(open_session(conn)));
    let door = shared.node.clone();
    let node = std::thread::spawn(move || door.run(Node::new(parts)));
    std::thread::scope(|scope| {
        for (number, conn) in (0..).zip(conns) {
            let shared = &shared;
            scope.spawn(move || write_in_order(shared, conn, number, WRITES));
        }
    });
    // A session each, a znode each, and what was written to it.
    assert_eq!(shared.store.read().last_zxid().counter(), (SOURCES * (WRITES + 2)) as u32);

    stop(&shared, node);
}

#[test]
fn a_node_that_has_stopped_takes_no_more() {
    let home = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (shared, parts) = standalone(home.path());
    let (conn, mut client) = connect(&shared, &runtime);
    let door = shared.node.clone();
    let node = std::thread::spawn(move || door.run(Node::new(parts)));
    shared.node.send(open_session(&conn));
    let opened = ConnectResponse::decode(&mut Reader::new(&read_frame(&mut client))).expect("a response");
    // What is under way when it is told to stop is answered all the same.
    shared.node.send(submission(&conn, opened.session_id, 1, create("/before")));
    stop(&shared, node);
    let body = read_frame(&mut client);
    assert_eq!(ReplyHeader::decode(&mut Reader::new(&body)).expect("a header").xid, 1);
    shared.node.send(submission(&conn, opened.session_id, 2, create("/behind")));
    assert_eq!(conn.desk().pipeline.len(), 1, "it waits for ever; its client is being closed");
}

/// Stops the node; it must end in time.
fn stop(shared: &Shared, node: std::thread::JoinHandle<()>) {
    shared.node.leave(NodeEvent::Stop);
    let deadline = Instant::now() + PATIENCE;
    while !node.is_finished() {
        assert!(Instant::now() < deadline, "the node does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    node.join().expect("the node's thread");
}

/// The disk may take its time; the thread sleeps until it has something to say.
#[test]
fn a_node_that_waits_for_its_end_sleeps_meanwhile() {
    let home = tempfile::tempdir().expect("a directory");
    let mut node = Node::new(standalone(home.path()).1);
    node.stopping = true;
    let now_ms = clock::now_ms();
    node.tick();
    assert!(node.next_tick_ms > now_ms);
    node.end();
}

#[test]
fn a_connection_that_has_ended_is_not_kept_for_its_session() {
    let home = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let (shared, parts) = standalone(home.path());
    let (conn, _client) = connect(&shared, &runtime);
    conn.close();
    crate::handshake::session_opened(&shared, &conn, SessionId(5), 1000);
    assert!(shared.conns.of_session(SessionId(5)).is_none());
    Node::new(parts).end();
}

/// The end of a snapshot that is being written is waited for; clients would sit there without an answer, and their
/// sessions expire elsewhere.
#[test]
fn clients_are_let_go_before_the_end_is_waited_for() {
    let home = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let (shared, parts) = standalone(home.path());
    let (conn, mut client) = connect(&shared, &runtime);
    shared.conns.admit(&conn, ConnLimits::NONE).expect("there is room");
    // A node looks at its store when it is made.
    let node = Node::new(parts);
    let store = shared.store.write();
    assert!(node.snapshots.start(), "it waits for the store");
    let ending = std::thread::spawn(move || node.end());
    assert_eq!(client.read(&mut [0]).expect("the end of the connection"), 0);
    assert!(!ending.is_finished());
    drop(store);
    ending.join().expect("the node's thread");
}

/// The link may have been closed here while its last event was on the way.
#[test]
fn a_state_that_nobody_waits_for_is_not_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let mut node = Node::new(standalone(home.path()).1);
    let packet = QuorumPacket::new(PacketKind::Snap, Zxid(5));
    node.hear(PeerEvent::Snapshot(Link(7), packet, Box::new(Store::new(StoreConfig::default()))));
    assert!(node.arrived.is_empty());
    node.end();
}

/// A follower that has paused is sent all of it when it goes on.
#[test]
fn no_more_bytes_are_proposed_than_may_wait_for_a_follower() {
    const WRITES: i32 = 100;
    const BYTES: usize = 1 << 20;
    let home = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let (shared, parts) = standalone(home.path());
    let (conn, _client) = connect(&shared, &runtime);
    shared.sessions.lock().open(SessionId(1), 30_000, clock::now_ms());
    // Nobody tells this node what the disk has: nothing is committed.
    let mut node = Node::new(parts);
    for xid in 1..=WRITES {
        let data = Some(Bytes::from(vec![0; BYTES]));
        let request = SetDataRequest { path: "/".into(), data, version: -1 };
        node.step(submission(&conn, SessionId(1), xid, Request::SetData(request)));
    }
    assert!(
        (PROPOSED_BYTES_LIMIT..PROPOSED_BYTES_LIMIT + 2 * BYTES).contains(&node.member.outstanding_bytes())
    );
    assert_eq!(node.member.outstanding() + node.held.len(), WRITES as usize);
    // Those that waited are proposed in their turn.
    while node.member.outstanding() > 0 {
        let upto = shared.store.read().last_zxid().next();
        node.step(NodeEvent::Durable(Durable { upto, ..Durable::default() }));
    }
    assert!(node.held.is_empty() && node.member.outstanding_bytes() == 0);
    assert_eq!(shared.store.read().last_zxid(), Zxid(WRITES.into()));
    node.end();
}

/// A leader that has paused reads nothing for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_bytes_are_forwarded_than_may_wait_for_the_leader() {
    const WRITES: i32 = 80;
    const BYTES: usize = 2 << 20;
    let (learner, link, mut leader) = Paused::connect().await;
    let home = tempfile::tempdir().expect("a directory");
    let (shared, mut parts) = standalone(home.path());
    parts.peers = Some(learner.peers.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let _client = Client::connect(listener.local_addr().expect("its number")).expect("connect");
    let (stream, peer) = listener.accept().await.expect("accept");
    let conn =
        Conn::new(shared.conns.next_id(), peer, stream.into_split().1, 16 << 20, shared.conns.unsent());
    let mut node = Node::new(parts);
    let role = Role::Following { leader: ServerId(2), link, epoch: 1 };
    node.think(|member, at, out| member.begin(at, role, out));
    for xid in 1..=WRITES {
        let data = Some(Bytes::from(vec![0; BYTES]));
        let request = SetDataRequest { path: "/".into(), data, version: -1 };
        node.step(submission(&conn, SessionId(1), xid, Request::SetData(request)));
        node.flush_links();
        assert!(learner.peers.unsent_bytes(link) < UNFORWARDED_BYTES_LIMIT + 2 * BYTES);
    }
    assert!(!node.held.is_empty());
    // The leader goes on, and says nothing.
    let (reading, mut xids) = (leader.read(WRITES as usize), Vec::new());
    let ticking = async {
        loop {
            node.tick();
            node.flush_links();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let forwarded =
        tokio::select! { read = reading => read, () = ticking => unreachable!("it ticks for ever") };
    for packet in forwarded {
        let request = ForwardedRequest::read(&packet.data.expect("a request")).expect("a request");
        xids.push(request.cxid);
    }
    assert_eq!(xids, Vec::from_iter(1..=WRITES), "in their order");
    node.end();
}
