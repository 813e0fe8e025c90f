//! A member as a process of its own, a client that traces, and a receiver: one tree with both sides in it,
//! although no byte of trace context was sent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use zoometry_spans::sink::{Received, Sink, tree_faults};
use zoometry_spans::{
    Clock, ExportSettings, Exporter, Identity, Kind, Resource, Role, SampleRate, Span, attrs, merge,
};
use zoometry_wire::records::{
    ConnectRequest, ConnectResponse, ReadOnlyByte, ReplyHeader, RequestHeader, xid,
};
use zoometry_wire::request::{CreateRequest, PathWatch, SetDataRequest};
use zoometry_wire::{Acl, Reader, Record, Request, SessionId, Zxid, frame};

struct Member {
    process: Child,
    port: u16,
}

impl Member {
    fn start(directory: &Path, sink: &Sink, extra: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "tickTime=2000\ndataDir={0}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             zoometry.traceFile={0}/server.spans\n{extra}",
            directory.display()
        );
        std::fs::create_dir_all(directory.join("data")).unwrap();
        std::fs::write(directory.join("zoo.cfg"), config).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_zoometry-server"))
            .arg(directory.join("zoo.cfg"))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint())
            .env_remove("OTEL_SERVICE_NAME")
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// As an operator would: SIGTERM, and wait.
    fn stop(mut self) {
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        assert!(self.process.wait().unwrap().success());
    }
}

struct Client {
    stream: TcpStream,
    session: SessionId,
    xid: i32,
    clock: Clock,
    identity: Identity,
    spans: Vec<Span>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "no server: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: 10_000,
            session_id: SessionId(0),
            password: Some(vec![0; 16].into()),
        };
        let mut out = BytesMut::new();
        frame::put(&mut out, |out| request.encode_frame(ReadOnlyByte::Absent, out));
        stream.write_all(&out).unwrap();
        let (response, _) = ConnectResponse::decode_frame(&read_frame(&mut stream)).unwrap();
        Self {
            stream,
            session: response.session_id,
            xid: 0,
            clock: Clock::start(),
            identity: Identity::new(0, SampleRate::ALL),
            spans: Vec::new(),
        }
    }

    /// Sends a request, waits for its reply, and makes the client's span of it. Returns the error code.
    fn ask(&mut self, request: &Request) -> i32 {
        self.xid += 1;
        let start = self.clock.unix_ns(self.clock.now_ns());
        let mut out = BytesMut::new();
        frame::put(&mut out, |out| {
            RequestHeader { xid: self.xid, op: request.op().code() }.encode(out);
            request.encode(out);
        });
        self.stream.write_all(&out).unwrap();
        let reply = loop {
            let body = read_frame(&mut self.stream);
            let header = ReplyHeader::decode(&mut Reader::new(&body)).unwrap();
            if header.xid != xid::NOTIFICATION {
                break header;
            }
        };
        assert_eq!(reply.xid, self.xid);
        let end = self.clock.unix_ns(self.clock.now_ns());
        let trace = self.identity.request(self.session, self.xid);
        let id = trace.span(Role::Client, 0);
        self.spans.push(Span::new(trace, id, request.op().name(), Kind::Client, start, end));
        reply.err
    }
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).unwrap();
    let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

fn create(path: &str) -> Request {
    Request::Create(CreateRequest {
        path: path.into(),
        data: Some(vec![1; 100].into()),
        acl: Acl::open(),
        flags: 0,
    })
}

fn set(path: &str, version: i32) -> Request {
    Request::SetData(SetDataRequest { path: path.into(), data: Some(vec![2; 100].into()), version })
}

fn names(spans: &[Received], trace: zoometry_spans::TraceId) -> Vec<String> {
    let mut names: Vec<_> =
        spans.iter().filter(|r| r.span.trace == trace).map(|r| r.span.name.to_string()).collect();
    names.sort_unstable();
    names
}

#[test]
fn one_trace_holds_both_sides_with_nothing_sent() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start().unwrap();
    let member =
        Member::start(directory.path(), &sink, "zoometry.traceSample=1\nzoometry.traceParent=true\n");
    let mut client = Client::connect(member.port);
    let watched = |path: &str| Request::GetData(PathWatch { path: path.into(), watch: true });
    assert_eq!(client.ask(&create("/a")), 0);
    assert_eq!(client.ask(&watched("/a")), 0);
    assert_eq!(client.ask(&set("/a", 0)), 0);
    assert_eq!(client.ask(&set("/a", 77)), -103);
    for n in 0..50 {
        assert_eq!(client.ask(&set("/a", -1)), 0);
        assert_eq!(client.ask(&watched(if n % 2 == 0 { "/a" } else { "/" })), 0);
    }
    let requests = client.spans.len();

    let exporter = Exporter::start(
        &ExportSettings::to(format!("{}/v1/traces", sink.endpoint())),
        &Resource::load_generator("0", "test"),
    )
    .unwrap();
    assert!(client.spans.iter().all(|span| exporter.send(span.clone())));
    exporter.shutdown(Duration::from_secs(20));
    member.stop();

    let all = sink.spans();
    let (control_plane, spans): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| {
        r.span.attrs.iter().all(|a| !a.key.starts_with("zookeeper.")) && {
            !client.spans.iter().any(|span| span.trace == r.span.trace)
        }
    });
    assert!(control_plane.iter().any(|r| r.span.name == "recovery"), "{control_plane:?}");
    assert_eq!(tree_faults(&spans, |_| false), Vec::<String>::new());
    for span in &client.spans {
        let server = spans
            .iter()
            .find(|r| r.span.trace == span.trace && r.span.kind == Kind::Server)
            .unwrap_or_else(|| panic!("{} {} has no server span", span.trace, span.name));
        assert_eq!(server.span.parent, Some(span.span));
        assert_eq!(server.span.name, span.name);
        assert_eq!(server.service, "zookeeper-1");
    }
    let servers = spans.iter().filter(|r| r.span.kind == Kind::Server).count();
    assert_eq!(servers, requests);

    let write = ["apply", "fsync", "log sync", "prep", "reply", "session queue", "setData", "setData"];
    let mut told = write.map(String::from).to_vec();
    told.push("fanout".into());
    told.sort_unstable();
    assert_eq!(names(&spans, client.spans[2].trace), told, "the watch on /a fired");
    assert_eq!(names(&spans, client.spans[3].trace), write, "refused, and logged all the same");
    let fanout = spans.iter().find(|r| r.span.name == "fanout").unwrap();
    assert!(fanout.span.attrs.iter().any(|a| a.key == attrs::WATCH_COUNT && a.value == 1.into()));

    // The member's file says the same as what it sent.
    let merged =
        merge(&[directory.path().join("server.spans")], &directory.path().join("traces.json"), 5_000_000);
    let merged = merged.unwrap();
    assert_eq!((merged.traces, merged.kept, merged.broken_lines), (requests, requests, 0));
    assert_eq!(merged.spans, spans.len() - requests);
}

#[test]
fn an_unmodified_client_gets_whole_trees_and_slow_requests_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start().unwrap();
    // Every durable write takes longer than a nanosecond, and no read is sampled.
    let extra = "zoometry.traceSample=0\nzoometry.traceSlowMs=0.000001\nzoometry.serviceName=zoo\n";
    let member = Member::start(directory.path(), &sink, extra);
    let mut client = Client::connect(member.port);
    assert_eq!(client.ask(&create("/a")), 0);
    assert_eq!(client.ask(&Request::Exists(PathWatch { path: "/a".into(), watch: false })), 0);
    member.stop();
    let spans = sink.spans();
    assert_eq!(tree_faults(&spans, |_| false), Vec::<String>::new());
    let roots: Vec<_> = spans.iter().filter(|r| r.span.kind == Kind::Server).collect();
    assert_eq!(roots.len(), 2);
    for root in roots {
        assert_eq!((root.span.parent, root.service.as_str()), (None, "zoo"));
        assert!(root.span.attrs.iter().any(|a| a.key == attrs::KEPT_BY && a.value == "slow".into()));
        assert_eq!(root.span.tracestate, "");
    }
}
