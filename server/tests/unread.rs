//! A member as a process of its own, and a client that sends much before it reads: replies are written by two
//! hands, the node's and the connection's task's, and have to arrive in order and whole.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use zoometry_wire::records::{ConnectRequest, ReadOnlyByte, ReplyHeader, RequestHeader};
use zoometry_wire::request::{CreateRequest, PathWatch, SetDataRequest};
use zoometry_wire::{Acl, OpCode, Reader, Record, Request, Zxid, frame};

/// Ends the member whatever becomes of the test.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a frame's length");
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).expect("a frame");
    body
}

fn put(out: &mut BytesMut, xid: i32, request: &Request) {
    frame::put(out, |out| {
        RequestHeader { xid, op: request.op() as i32 }.encode(out);
        request.encode(out);
    });
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
    read_frame(&mut stream);
    stream
}

fn create(path: &str, data: Bytes) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: Some(data), acl: Acl::open(), flags: 0 })
}

#[test]
fn replies_come_in_order_to_a_client_that_reads_late() {
    const PAIRS: i32 = 400;
    let home = tempfile::tempdir().expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let config = home.path().join("zoo.cfg");
    let text =
        format!("dataDir={}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n", home.path().display());
    std::fs::write(&config, text).expect("zoo.cfg");
    let process = Command::new(env!("CARGO_BIN_EXE_zoometry-server")).arg(&config).spawn().expect("a member");
    let _member = Member(process);
    let mut stream = connect(port);
    // Far more than sockets hold: 400 replies of 50 kB.
    let value = Bytes::from(vec![7; 50_000]);
    let mut out = BytesMut::new();
    put(&mut out, 1, &create("/large", value.clone()));
    put(&mut out, 2, &create("/small", Bytes::new()));
    for xid in (3..3 + 2 * PAIRS).step_by(2) {
        let set = SetDataRequest { path: "/small".into(), data: Some(Bytes::new()), version: -1 };
        put(&mut out, xid, &Request::SetData(set));
        put(&mut out, xid + 1, &Request::GetData(PathWatch { path: "/large".into(), watch: false }));
    }
    let mut sender = stream.try_clone().expect("the same socket");
    let sending = std::thread::spawn(move || sender.write_all(&out).expect("all is taken in time"));
    std::thread::sleep(Duration::from_millis(300));
    let mut last = Zxid(0);
    for expected in 1..3 + 2 * PAIRS {
        let body = read_frame(&mut stream);
        let mut input = Reader::new(&body);
        let ReplyHeader { xid, zxid, err } = ReplyHeader::decode(&mut input).expect("a header");
        assert_eq!((xid, err), (expected, 0));
        assert!(zxid >= last, "{zxid} behind {last}");
        last = zxid;
        if expected > 2 && expected % 2 == 0 {
            let data = Option::<Bytes>::decode(&mut input).expect("data");
            assert_eq!(data.as_ref(), Some(&value), "reply {expected}");
        }
    }
    sending.join().expect("everything was sent");
    // And the connection still serves.
    let mut out = BytesMut::new();
    put(&mut out, -2, &Request::Ping);
    stream.write_all(&out).expect("a ping");
    let body = read_frame(&mut stream);
    assert_eq!(ReplyHeader::decode(&mut Reader::new(&body)).expect("a header").xid, -2, "{:?}", OpCode::Ping);
}
