//! An OTLP/HTTP receiver for tests: takes what a real exporter sends and hands it over as plain spans.
//!
//! Feature `sink`; never in a release. One thread per connection, protobuf decoded by `opentelemetry-proto`,
//! which shares no code with the JSON side. Bodies are read up to [`MAX_BODY`].

use crate::span::{Attr, Event, Kind, Link, Span, Status, Value};
use crate::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest body that is accepted, in bytes.
pub const MAX_BODY: usize = 64 << 20;

/// One span as it came, and from whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// `service.name` of its resource.
    pub service: String,
    /// All attributes of its resource.
    pub resource: Vec<Attr>,
    /// The span.
    pub span: Span,
}

/// One request's line and headers (names in lower case).
pub type RequestHead = (String, Vec<(String, String)>);

#[derive(Debug, Default)]
struct Inbox {
    spans: Vec<Received>,
    heads: Vec<RequestHead>,
    /// Requests to be answered with 503 before any is accepted.
    refuse: usize,
}

/// A running receiver; it lives until the process ends.
#[derive(Debug, Clone)]
pub struct Sink {
    address: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Self { address: listener.local_addr()?, inbox: Arc::default() };
        let inbox = sink.inbox.clone();
        std::thread::Builder::new().name("otlp sink".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let inbox = inbox.clone();
                std::thread::spawn(move || serve(&stream, &inbox));
            }
        })?;
        Ok(sink)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `n` requests are answered 503, as an overloaded collector does.
    pub fn refuse(&self, n: usize) {
        self.inbox().refuse = n;
    }

    /// Everything that has come so far.
    pub fn spans(&self) -> Vec<Received> {
        self.inbox().spans.clone()
    }

    /// The requests' lines and headers so far.
    pub fn heads(&self) -> Vec<RequestHead> {
        self.inbox().heads.clone()
    }

    /// Waits until `enough` says yes, or the time is over; what has come either way.
    pub fn wait(&self, within: Duration, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + within;
        loop {
            let spans = self.spans();
            if enough(&spans) || Instant::now() >= deadline {
                return spans;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: &TcpStream, inbox: &Mutex<Inbox>) {
    let mut input = BufReader::new(stream);
    while let Ok(Some((head, body))) = read_request(&mut input) {
        let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let posted = head.0.starts_with("POST /v1/traces ");
        inbox.heads.push(head);
        let status = if inbox.refuse > 0 {
            inbox.refuse -= 1;
            "503 Service Unavailable"
        } else if !posted {
            "404 Not Found"
        } else if let Ok(request) = ExportTraceServiceRequest::decode(body.as_slice()) {
            inbox.spans.extend(received(request));
            "200 OK"
        } else {
            "400 Bad Request"
        };
        drop(inbox);
        let mut stream = stream;
        if stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(input: &mut impl BufRead) -> io::Result<Option<(RequestHead, Vec<u8>)>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let request_line = line.trim_end().to_owned();
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        }
        headers.push((name, value));
    }
    if length > MAX_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(((request_line, headers), body)))
}

fn received(request: ExportTraceServiceRequest) -> Vec<Received> {
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = attrs(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = resource.iter().find(|attr| attr.key == "service.name").map(|attr| &attr.value);
        let service = match service {
            Some(Value::Str(name)) => name.to_string(),
            _ => String::new(),
        };
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Received { service: service.clone(), resource: resource.clone(), span: plain(span) });
        }
    }
    all
}

fn plain(span: otlp::Span) -> Span {
    let parent = span_id(&span.parent_span_id);
    Span {
        trace: trace_id(&span.trace_id),
        span: span_id(&span.span_id),
        parent: (parent.0 != 0).then_some(parent),
        name: span.name.into(),
        kind: match span.kind {
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Internal,
        },
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        attrs: attrs(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|e| Event { name: e.name.into(), at_ns: e.time_unix_nano, attrs: attrs(e.attributes) })
            .collect(),
        links: span
            .links
            .into_iter()
            .map(|l| Link {
                trace: trace_id(&l.trace_id),
                span: span_id(&l.span_id),
                attrs: attrs(l.attributes),
            })
            .collect(),
        status: match span.status {
            Some(status) if status.code == 2 => Status::Error(status.message.into()),
            _ => Status::Unset,
        },
        tracestate: span.trace_state,
    }
}

fn trace_id(bytes: &[u8]) -> TraceId {
    TraceId(bytes.try_into().map_or(0, u128::from_be_bytes))
}

fn span_id(bytes: &[u8]) -> SpanId {
    SpanId(bytes.try_into().map_or(0, u64::from_be_bytes))
}

fn attrs(pairs: Vec<KeyValue>) -> Vec<Attr> {
    let value = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => Some(Value::Str(text.into())),
        any_value::Value::IntValue(n) => Some(Value::Int(n)),
        any_value::Value::DoubleValue(x) => Some(Value::Float(x)),
        any_value::Value::BoolValue(b) => Some(Value::Bool(b)),
        _ => None,
    };
    pairs
        .into_iter()
        .filter_map(|pair| {
            Some(Attr { key: pair.key.into(), value: pair.value.and_then(|any| any.value).and_then(value)? })
        })
        .collect()
}

/// What is wrong with a set of spans as trees: parents that are missing, children that stick out of their
/// parents, ids used twice. Empty if all is well. `missing_parent_ok` names spans whose parent another
/// process would have sent.
pub fn tree_faults(spans: &[Received], missing_parent_ok: impl Fn(&Span) -> bool) -> Vec<String> {
    let mut by_id = std::collections::HashMap::new();
    let mut faults = Vec::new();
    for received in spans {
        let span = &received.span;
        if by_id.insert((span.trace, span.span), span).is_some() {
            faults.push(format!("{} {} {:?} was sent twice", span.trace, span.span, span.name));
        }
    }
    for received in spans {
        let span = &received.span;
        if span.end_ns < span.start_ns {
            faults.push(format!("{} {:?} ends before it starts", span.trace, span.name));
        }
        let Some(parent) = span.parent else { continue };
        match by_id.get(&(span.trace, parent)) {
            None if missing_parent_ok(span) => {}
            None => faults.push(format!("{} {:?} has no parent {parent}", span.trace, span.name)),
            Some(parent) if span.start_ns < parent.start_ns || span.end_ns > parent.end_ns => {
                faults.push(format!(
                    "{} {:?} {}..{} is not contained in {:?} {}..{}",
                    span.trace,
                    span.name,
                    span.start_ns,
                    span.end_ns,
                    parent.name,
                    parent.start_ns,
                    parent.end_ns
                ));
            }
            Some(_) => {}
        }
    }
    faults
}
