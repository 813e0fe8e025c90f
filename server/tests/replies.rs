//! A member as a process of its own, and clients that send many requests before they read: whoever answers them,
//! and whoever writes the replies (the connection's task, or the node), they arrive in order and whole.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tempfile::TempDir;
use zoometry_wire::records::{ConnectRequest, ReadOnlyByte, ReplyHeader, RequestHeader};
use zoometry_wire::request::{CreateRequest, PathMode, PathWatch, SetDataRequest};
use zoometry_wire::{Acl, ErrorCode, OpCode, Reader, Record, Request, Zxid, frame};

/// A member alone, ended whatever becomes of the test.
struct Member {
    process: Child,
    port: u16,
    _home: TempDir,
}

impl Member {
    fn start(keys: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
        let config = home.path().join("zoo.cfg");
        let data = home.path().display();
        let text = format!("dataDir={data}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n{keys}");
        std::fs::write(&config, text).expect("zoo.cfg");
        let process = Command::new(env!("CARGO_BIN_EXE_zoometry-server")).arg(&config).spawn();
        Self { process: process.expect("a member"), port, _home: home }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn put(out: &mut BytesMut, xid: i32, request: &Request) {
    frame::put(out, |out| {
        RequestHeader { xid, op: request.op() as i32 }.encode(out);
        request.encode(out);
    });
}

fn reply(stream: &mut TcpStream) -> ReplyHeader {
    ReplyHeader::decode(&mut Reader::new(&read_frame(stream).expect("a reply"))).expect("a header")
}

fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => panic!("the member does not listen: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut out = BytesMut::new();
    let request = ConnectRequest { timeout_ms: 30_000, ..ConnectRequest::default() };
    frame::put(&mut out, |out| request.encode_frame(ReadOnlyByte::Present(false), out));
    stream.write_all(&out).expect("connect");
    read_frame(&mut stream).expect("a session");
    stream
}

fn create(path: &str, data: Bytes) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: Some(data), acl: Acl::open(), flags: 0 })
}

/// `pairs` of a small write and a large read, all sent at once and read late. Requests 1 and 2 have been answered.
fn send_pairs(stream: &mut TcpStream, value: &Bytes, pairs: i32) -> JoinHandle<()> {
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", value.clone()));
    put(&mut out, 2, &create("/small", Bytes::new()));
    stream.write_all(&out).expect("two writes");
    assert_eq!([reply(stream).xid, reply(stream).xid], [1, 2]);
    out.clear();
    for xid in (3..3 + 2 * pairs).step_by(2) {
        let set = SetDataRequest { path: "/small".into(), data: Some(Bytes::new()), version: -1 };
        put(&mut out, xid, &Request::SetData(set));
        put(&mut out, xid + 1, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
    }
    let mut sender = stream.try_clone().expect("the same socket");
    let sending = std::thread::spawn(move || {
        // A connection that is closed for its unread replies takes no more.
        let _ = sender.write_all(&out);
    });
    std::thread::sleep(Duration::from_millis(300));
    sending
}

#[test]
fn replies_come_in_order_to_a_client_that_reads_late() {
    // Together (50 kB each) larger than an outbox may be, and far more than sockets hold.
    const PAIRS: i32 = 400;
    let member = Member::start("");
    let mut stream = connect(member.port);
    let value = Bytes::from(vec![7; 50_000]);
    let sending = send_pairs(&mut stream, &value, PAIRS);
    let mut last = Zxid(0);
    for expected in 3..3 + 2 * PAIRS {
        let body = read_frame(&mut stream).expect("a reply");
        let mut input = Reader::new(&body);
        let ReplyHeader { xid, zxid, err } = ReplyHeader::decode(&mut input).expect("a header");
        assert_eq!((xid, err), (expected, 0));
        assert!(zxid >= last, "{zxid} behind {last}");
        last = zxid;
        if expected % 2 == 0 {
            let data = Option::<Bytes>::decode(&mut input).expect("data");
            assert_eq!(data.as_ref(), Some(&value), "reply {expected}");
        }
    }
    sending.join().expect("everything was sent");
    // And the connection still serves.
    let mut out = BytesMut::new();
    put(&mut out, -2, &Request::Ping);
    stream.write_all(&out).expect("a ping");
    assert_eq!(reply(&mut stream).xid, -2);
}

/// What is answered while the sockets are full comes when they are not: nothing waits for the client to say
/// something more.
#[test]
fn no_reply_stays_behind_when_the_sockets_fill_up() {
    // Sockets hold some megabytes: for some of these numbers they are just full.
    const PAIRS: i32 = 30;
    let member = Member::start("");
    let value = Bytes::from(vec![7; 200_000]);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", value));
    put(&mut out, 2, &create("/small", Bytes::new()));
    let mut stream = connect(member.port);
    stream.write_all(&out).expect("two writes");
    assert_eq!([reply(&mut stream).xid, reply(&mut stream).xid], [1, 2]);
    for pairs in 1..=PAIRS {
        let mut stream = connect(member.port);
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        for xid in (1..=2 * pairs).step_by(2) {
            out.clear();
            put(&mut out, xid, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
            let set = SetDataRequest { path: "/small".into(), data: Some(Bytes::new()), version: -1 };
            put(&mut out, xid + 1, &Request::SetData(set));
            stream.write_all(&out).expect("a read and a write");
            std::thread::sleep(Duration::from_millis(3));
        }
        for expected in 1..=2 * pairs {
            assert_eq!(reply(&mut stream).xid, expected, "of {pairs} pairs");
        }
    }
}

/// What is thrown away with a full outbox leaves no gap: the connection ends there.
#[test]
fn a_full_outbox_is_the_end_of_the_replies() {
    const PAIRS: i32 = 400;
    let member = Member::start("zoometry.maxOutboxBytes=65536\n");
    let mut stream = connect(member.port);
    let sending = send_pairs(&mut stream, &Bytes::from(vec![7; 50_000]), PAIRS);
    let mut expected = 3;
    while let Ok(body) = read_frame(&mut stream) {
        let ReplyHeader { xid, .. } = ReplyHeader::decode(&mut Reader::new(&body)).expect("a header");
        assert_eq!(xid, expected);
        expected += 1;
    }
    assert!(expected < 3 + 2 * PAIRS, "the limit was not reached");
    sending.join().expect("nothing more is taken");
}

/// While much is unsent the socket is not read, and when all of it is sent it must be read again.
#[test]
fn a_connection_goes_on_after_a_reply_as_large_as_its_outbox() {
    let member = Member::start("jute.maxbuffer=8388608\n");
    let mut stream = connect(member.port);
    for (round, size) in [600_000, 1_100_000, 2_000_000, 4_000_000].into_iter().enumerate() {
        let (path, xid) = (format!("/{size}"), 2 * round as i32 + 1);
        let mut out = BytesMut::new();
        put(&mut out, xid, &create(&path, Bytes::from(vec![7; size])));
        stream.write_all(&out).expect("a large write");
        assert_eq!(reply(&mut stream).xid, xid);
        let mut out = BytesMut::new();
        put(&mut out, xid + 1, &Request::GetData(PathWatch { path, watch: false }));
        stream.write_all(&out).expect("a read of it");
        assert_eq!(reply(&mut stream).xid, xid + 1);
    }
    let mut out = BytesMut::new();
    put(&mut out, -2, &Request::Ping);
    stream.write_all(&out).expect("a ping");
    assert_eq!(reply(&mut stream).xid, -2);
}

/// Where nothing but writes has arrived, the store is not looked at; what then cannot be read is refused all the
/// same, in its turn.
#[test]
fn a_write_that_cannot_be_read_is_refused_in_its_turn() {
    let member = Member::start("");
    let mut stream = connect(member.port);
    let broken = |out: &mut BytesMut, xid| {
        frame::put(out, |out| {
            RequestHeader { xid, op: OpCode::SetData as i32 }.encode(out);
            out.put_slice(&[0x7f; 6]);
        });
    };
    let refused = ErrorCode::MarshallingError.code();
    let mut out = BytesMut::new();
    broken(&mut out, 1);
    put(&mut out, 2, &create("/a", Bytes::new()));
    broken(&mut out, 3);
    put(&mut out, 4, &create("/a", Bytes::new()));
    stream.write_all(&out).expect("four requests");
    let replies: Vec<_> = (0..4).map(|_| reply(&mut stream)).map(|header| (header.xid, header.err)).collect();
    assert_eq!(replies, [(1, refused), (2, 0), (3, refused), (4, ErrorCode::NodeExists.code())]);
}

/// The answer to the end of the session comes behind all others, though the connection ends with it.
#[test]
fn the_last_reply_comes_to_a_client_that_reads_late() {
    const READS: i32 = 100;
    let member = Member::start("");
    let mut stream = connect(member.port);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", Bytes::from(vec![7; 600_000])));
    stream.write_all(&out).expect("a write");
    assert_eq!(reply(&mut stream).xid, 1);
    out.clear();
    for xid in 2..2 + READS {
        put(&mut out, xid, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
    }
    put(&mut out, 2 + READS, &Request::CloseSession);
    stream.write_all(&out).expect("all of it");
    for expected in 2..=2 + READS {
        // The member has always more to send than the socket takes.
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(reply(&mut stream).xid, expected);
    }
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
}

/// A connection that is ending waits for its client to take the last replies, but not for ever.
#[test]
fn a_client_that_never_reads_is_let_go_with_its_session() {
    // Sessions end after 2 s of silence.
    let member = Member::start("tickTime=100\nnio.sessionlessCnxnTimeout=500\n");
    let mut stream = connect(member.port);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", Bytes::from(vec![7; 600_000])));
    stream.write_all(&out).expect("a write");
    assert_eq!(reply(&mut stream).xid, 1);
    out.clear();
    // Far more than sockets hold.
    for xid in 2..102 {
        put(&mut out, xid, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
    }
    stream.write_all(&out).expect("all of it");
    assert_eq!(connections(member.port), 2, "its own, and the one that asks");
    let deadline = Instant::now() + Duration::from_secs(10);
    while connections(member.port) > 1 {
        assert!(Instant::now() < deadline, "the member holds on to a client that does not read");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// However large requests are, only so much of them is taken in before they are answered.
#[test]
fn large_writes_wait_at_the_clients() {
    const WRITES: i32 = 200;
    let member = Member::start("");
    let mut stream = connect(member.port);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", Bytes::new()));
    stream.write_all(&out).expect("a write");
    assert_eq!(reply(&mut stream).xid, 1);
    let mut sender = stream.try_clone().expect("the same socket");
    let sending = std::thread::spawn(move || {
        let data = Bytes::from(vec![7; 1_000_000]);
        for xid in 2..2 + WRITES {
            let mut out = BytesMut::new();
            let set = SetDataRequest { path: "/large".into(), data: Some(data.clone()), version: -1 };
            put(&mut out, xid, &Request::SetData(set));
            sender.write_all(&out).expect("a write");
        }
    });
    let replies = std::thread::spawn(move || {
        for expected in 2..2 + WRITES {
            assert_eq!(reply(&mut stream).xid, expected);
        }
    });
    let mut most = 0;
    while !sending.is_finished() {
        most = most.max(srvr(member.port, "Outstanding: "));
    }
    sending.join().expect("everything was sent");
    replies.join().expect("everything was answered");
    // Five of them are more than may wait, and up to five more were answered but are still counted: that is done
    // when all that were committed together have been.
    assert!(most <= 2 * 5, "{most} writes of a megabyte were taken in");
}

/// A client that always has more to ask is one of many.
#[test]
fn nobody_waits_for_those_who_never_pause() {
    const PINGS: u32 = 10;
    const ENOUGH: Duration = Duration::from_secs(5);
    let member = Member::start("zoometry.workerThreads=1\n");
    let mut requests = BytesMut::new();
    for xid in 1..=20_000 {
        put(&mut requests, xid, &Request::GetData(PathWatch { path: "/".into(), watch: false }));
    }
    let requests = requests.freeze();
    let busy: Vec<_> = (0..3).map(|_| connect(member.port)).collect();
    let mut stream = connect(member.port);
    std::thread::scope(|scope| {
        for stream in &busy {
            let (mut reader, mut writer) = (stream, stream);
            scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let requests = &requests;
            scope.spawn(move || while writer.write_all(requests).is_ok() {});
        }
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let mut out = BytesMut::new();
        put(&mut out, -2, &Request::Ping);
        for _ in 0..PINGS {
            stream.write_all(&out).expect("a ping");
            assert_eq!(reply(&mut stream).xid, -2);
        }
        let took = began.elapsed();
        for stream in &busy {
            stream.shutdown(std::net::Shutdown::Both).expect("the end");
        }
        assert!(took < ENOUGH, "{PINGS} pings took {took:?}");
    });
}

/// `clientTcpKeepAlive`: the system asks whether a silent client is still there.
#[test]
fn keepalive_is_switched_on_if_it_is_wanted() {
    for (keys, wanted) in [("", false), ("clientTcpKeepAlive=true\n", true)] {
        let member = Member::start(keys);
        let stream = connect(member.port);
        let client = stream.local_addr().expect("its address").port();
        let [here, there] = [member.port, client].map(|port| format!("0100007F:{port:04X}"));
        // What the system waits for on the member's side is the sixth field; 02 is keepalive.
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the system's connections");
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = fields.into_iter().find(|fields| fields[1] == here && fields[2] == there);
        assert_eq!(own.expect("the connection")[5].starts_with("02:"), wanted);
    }
}

fn connections(port: u16) -> usize {
    srvr(port, "Connections: ")
}

/// What `srvr` counts.
fn srvr(port: u16, line: &str) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the member");
    stream.write_all(b"srvr").expect("a word");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let count = text.lines().find_map(|text| text.strip_prefix(line)).expect("a line of srvr");
    count.parse().expect("a number")
}

/// Events that the connection's watches bring meanwhile are no sign that its client reads.
#[test]
fn a_client_that_never_reads_is_let_go_whatever_it_watches() {
    // Sessions end after 2 s of silence.
    let member = Member::start("tickTime=100\nnio.sessionlessCnxnTimeout=500\n");
    let mut stream = connect(member.port);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", Bytes::from(vec![7; 600_000])));
    put(&mut out, 2, &create("/small", Bytes::new()));
    put(&mut out, 3, &Request::AddWatch(PathMode { path: "/small".into(), mode: 0 }));
    stream.write_all(&out).expect("two writes and a watch");
    for xid in 1..=3 {
        assert_eq!(reply(&mut stream).xid, xid);
    }
    out.clear();
    // Far more than sockets hold.
    for xid in 4..104 {
        put(&mut out, xid, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
    }
    stream.write_all(&out).expect("all of it");
    let mut other = connect(member.port);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut xid = 0;
    while connections(member.port) > 2 {
        assert!(Instant::now() < deadline, "the member holds on to a client that does not read");
        xid += 1;
        let mut out = BytesMut::new();
        let set = SetDataRequest { path: "/small".into(), data: Some(Bytes::new()), version: -1 };
        put(&mut out, xid, &Request::SetData(set));
        other.write_all(&out).expect("a write");
        assert_eq!(reply(&mut other).xid, xid);
        std::thread::sleep(Duration::from_millis(100));
    }
}
