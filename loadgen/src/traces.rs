//! Client spans: which requests are kept, and what becomes of them.
//!
//! A [`Sampler`] sits in every worker and sees every completion. It decides in a few nanoseconds and
//! remembers only what is kept: requests sampled by their derived identity (the server, which is told
//! nothing, keeps the same ones), the slowest of every second, and faults. [`Traces`] takes the kept ones
//! from all workers, turns them into spans on a thread of its own, and sends these to OTLP (when it is on)
//! and into the run's span file, from which [`write_traces_json`] makes `traces.json` at the end.
//!
//! Nothing here blocks a worker: a full queue drops and counts, and so do the limits per second. The decision
//! costs about as much as one division: `cargo bench -p zoometry --bench traces`.

use crate::op::{Op, Outcome};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use zoometry_spans::{
    Clock, Event, Exporter, Identity, KeptBy, Kind, Merged, Resource, Role, Span, SpanFile, Status, attrs,
    merge,
};
use zoometry_wire::{ErrorCode, OpCode, SessionId, Zxid};

/// The slowest requests that each worker keeps of every second, unless told otherwise.
pub const SLOWEST_PER_SECOND: usize = 4;
/// Most head-sampled requests that each worker keeps of a second.
pub const MAX_HEAD_PER_SECOND: u32 = 500;
/// Most faults that each worker keeps of a second.
pub const MAX_FAULTS_PER_SECOND: u32 = 20;
/// Kept requests that may wait for the tracing thread; more are dropped and counted.
pub const QUEUE: usize = 8192;
/// A stretch of the client's own time that is shorter than this gets no span.
const SHORTEST_CHILD_NS: u64 = 5_000;
/// Spans are written to the file in batches of about this many, or as old as [`FLUSH_EVERY`].
const BATCH: usize = 512;
const FLUSH_EVERY: Duration = Duration::from_millis(250);
const SECOND_NS: u64 = 1_000_000_000;

/// One finished request, as its client span needs it. Times are nanoseconds since the run's start.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    /// The session that asked.
    pub session: SessionId,
    /// The request's xid.
    pub xid: i32,
    /// What the workload calls it.
    pub op: Op,
    /// What ZooKeeper calls it; the span's name.
    pub opcode: OpCode,
    /// How it ended.
    pub outcome: Outcome,
    /// The phase that it belongs to: index into [`TraceSettings::phases`].
    pub phase: u16,
    /// Which server was asked: index into [`TraceSettings::servers`].
    pub server: u16,
    /// When it should have been sent.
    pub due_ns: u64,
    /// When it was written to the socket; `due_ns` or less if it never was.
    pub sent_ns: u64,
    /// When its reply was decoded, or when it was given up.
    pub done_ns: u64,
    /// The zxid of the reply; 0 if there was none.
    pub zxid: Zxid,
    /// The znode's path, or its beginning: only the first two parts get into the span.
    pub path: String,
}

/// How a run traces.
#[derive(Debug)]
pub struct TraceSettings {
    /// Derivation and head sampling rate, the same as the servers'.
    pub identity: Identity,
    /// The slowest of each second that each worker keeps; 0 for none.
    pub slowest_per_second: usize,
    /// The run's clock, on which all times are counted.
    pub clock: Clock,
    /// Names of the phases.
    pub phases: Vec<String>,
    /// Host and port of the servers.
    pub servers: Vec<(String, u16)>,
    /// OTLP, if it is on.
    pub exporter: Option<Exporter>,
    /// Who the run is, for the file.
    pub resource: Resource,
    /// The span file; it must not exist yet.
    pub span_file: PathBuf,
}

/// What tracing did in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Kept because of their id.
    pub head: u64,
    /// Kept because they were among the slowest.
    pub slow: u64,
    /// Kept because they failed.
    pub faults: u64,
    /// Would have been kept, but for a limit per second or a full queue.
    pub suppressed: u64,
    /// Spans not in the file because it reached its limit.
    pub unwritten_spans: u64,
    /// Why the file is not complete, if it could not be written.
    pub file_error: Option<String>,
}

enum Message {
    Kept(KeptBy, Box<RequestTrace>),
    Close,
}

/// The run's tracing: one thread that builds and hands on spans.
#[derive(Debug)]
pub struct Traces {
    sender: SyncSender<Message>,
    thread: JoinHandle<TraceCounts>,
    identity: Identity,
    slowest: usize,
    suppressed: Arc<AtomicU64>,
}

impl Traces {
    /// Creates the span file and starts the thread.
    pub fn start(settings: TraceSettings) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let file = SpanFile::append(&settings.span_file, settings.resource.clone())?;
        let identity = settings.identity;
        let slowest = settings.slowest_per_second;
        let builder = Builder { tracestate: identity.rate().tracestate().unwrap_or_default(), settings };
        let thread = std::thread::Builder::new()
            .name("traces".into())
            .spawn(move || Writer { builder, file, counts: TraceCounts::default() }.run(&receiver))?;
        Ok(Self { sender, thread, identity, slowest, suppressed: Arc::default() })
    }

    /// A sampler for one worker.
    pub fn sampler(&self) -> Sampler {
        Sampler {
            identity: self.identity,
            sender: self.sender.clone(),
            suppressed: self.suppressed.clone(),
            slowest: Vec::with_capacity(self.slowest),
            slowest_limit: self.slowest,
            floor_ns: if self.slowest == 0 { u64::MAX } else { 0 },
            second_end_ns: SECOND_NS,
            head_left: MAX_HEAD_PER_SECOND,
            faults_left: MAX_FAULTS_PER_SECOND,
        }
    }

    /// Writes what is still queued and ends the thread. Samplers must have been dropped (or flushed)
    /// before; what they offer later is lost.
    pub fn finish(self) -> TraceCounts {
        // Blocks only until the thread has caught up; it cannot be gone before this message.
        let closed = self.sender.send(Message::Close).is_ok();
        let mut counts = match self.thread.join() {
            Ok(counts) if closed => counts,
            _ => TraceCounts { file_error: Some("the tracing thread died".into()), ..Default::default() },
        };
        counts.suppressed += self.suppressed.load(Ordering::Relaxed);
        counts
    }
}

/// One worker's decision which requests to keep. Dropping it hands over the last second's slowest.
#[derive(Debug)]
pub struct Sampler {
    identity: Identity,
    sender: SyncSender<Message>,
    suppressed: Arc<AtomicU64>,
    /// The slowest of the current second, in no order; few.
    slowest: Vec<RequestTrace>,
    slowest_limit: usize,
    /// A request must be slower than this to be among them; 0 until there are enough.
    floor_ns: u64,
    second_end_ns: u64,
    head_left: u32,
    faults_left: u32,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Kept(..) => "Kept",
            Message::Close => "Close",
        })
    }
}

impl Sampler {
    /// To be called with every completion. `response_ns` is done − due. `describe` is called only if the
    /// request is kept, or may turn out to be among its second's slowest; it may allocate.
    #[inline]
    pub fn offer(
        &mut self,
        session: SessionId,
        xid: i32,
        outcome: Outcome,
        response_ns: u64,
        done_ns: u64,
        describe: impl FnOnce() -> RequestTrace,
    ) {
        if done_ns >= self.second_end_ns {
            self.next_second(done_ns);
        }
        let head = self.identity.keeps(session, xid);
        if head || response_ns > self.floor_ns || outcome != Outcome::Ok {
            self.consider(head, outcome, response_ns, describe);
        }
    }

    #[cold]
    fn consider(
        &mut self,
        head: bool,
        outcome: Outcome,
        response_ns: u64,
        describe: impl FnOnce() -> RequestTrace,
    ) {
        let left = if is_fault(outcome) {
            Some((KeptBy::Error, &mut self.faults_left))
        } else if head {
            Some((KeptBy::Head, &mut self.head_left))
        } else {
            None
        };
        match left {
            Some((_, 0)) => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
            }
            Some((kept_by, left)) => {
                *left -= 1;
                self.send(kept_by, describe());
            }
            None if response_ns > self.floor_ns => self.keep_slow(describe()),
            None => {}
        }
    }

    fn keep_slow(&mut self, request: RequestTrace) {
        if self.slowest.len() < self.slowest_limit {
            self.slowest.push(request);
        } else if let Some(fastest) = self.slowest.iter_mut().min_by_key(|kept| response_ns(kept)) {
            *fastest = request;
        }
        if self.slowest.len() == self.slowest_limit {
            self.floor_ns = self.slowest.iter().map(response_ns).min().unwrap_or(u64::MAX);
        }
    }

    /// Hands over the current second's slowest.
    pub fn flush(&mut self) {
        for request in std::mem::take(&mut self.slowest) {
            self.send(KeptBy::Slow, request);
        }
        self.floor_ns = if self.slowest_limit == 0 { u64::MAX } else { 0 };
    }

    #[cold]
    fn next_second(&mut self, done_ns: u64) {
        self.flush();
        self.second_end_ns = (done_ns / SECOND_NS + 1) * SECOND_NS;
        self.head_left = MAX_HEAD_PER_SECOND;
        self.faults_left = MAX_FAULTS_PER_SECOND;
    }

    fn send(&mut self, kept_by: KeptBy, request: RequestTrace) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Kept(kept_by, Box::new(request))) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.flush();
    }
}

fn response_ns(request: &RequestTrace) -> u64 {
    request.done_ns.saturating_sub(request.due_ns)
}

/// Whether an outcome is a fault: not one that the protocol foresees as an answer about the data.
fn is_fault(outcome: Outcome) -> bool {
    use ErrorCode::*;
    match outcome {
        Outcome::Ok => false,
        Outcome::Error(code) => !matches!(code, NoNode | NodeExists | BadVersion | NotEmpty),
    }
}

/// From a finished request to its spans.
struct Builder {
    settings: TraceSettings,
    tracestate: String,
}

impl Builder {
    fn spans(&self, kept_by: KeptBy, request: &RequestTrace, out: &mut Vec<Span>) {
        let trace = self.settings.identity.request(request.session, request.xid);
        let root = trace.span(Role::Client, 0);
        let at = |ns| self.settings.clock.unix_ns(ns);
        let (due_ns, done_ns) = (request.due_ns, request.done_ns.max(request.due_ns));
        let sent_ns = request.sent_ns.clamp(due_ns, done_ns);
        let name = request.opcode.name();
        let mut span = Span::new(trace, root, name, Kind::Client, at(due_ns), at(done_ns))
            .with(attrs::DB_SYSTEM_NAME, "zookeeper")
            .with(attrs::DB_OPERATION_NAME, name)
            .with(attrs::OPERATION, request.op.name())
            .with(attrs::SESSION_ID, format!("{}", request.session))
            .with(attrs::CXID, i64::from(request.xid))
            .with(attrs::KEPT_BY, kept_by.name());
        if let Some(phase) = self.settings.phases.get(usize::from(request.phase)) {
            span = span.with(attrs::PHASE, phase.clone());
        }
        if let Some((host, port)) = self.settings.servers.get(usize::from(request.server)) {
            span = span.with(attrs::SERVER_ADDRESS, host.clone()).with(attrs::SERVER_PORT, i64::from(*port));
        }
        if request.zxid.0 != 0 {
            span = span.with(attrs::ZXID, request.zxid.to_string());
        }
        if !request.path.is_empty() {
            span = span.with(attrs::PATH_PREFIX, path_prefix(&request.path).to_owned());
        }
        if let Outcome::Error(code) = request.outcome {
            span = span.with(attrs::DB_RESPONSE_STATUS_CODE, code.code().to_string());
            if is_fault(request.outcome) {
                span = span.with(attrs::ERROR_TYPE, code.name());
                span.status = Status::Error(code.name().into());
            }
        }
        if self.settings.identity.keeps(request.session, request.xid) {
            span.tracestate = self.tracestate.clone();
        }
        if request.sent_ns > 0 {
            span.events.push(Event { name: "sent".into(), at_ns: at(sent_ns), attrs: Vec::new() });
        }
        out.push(span);
        if sent_ns - due_ns >= SHORTEST_CHILD_NS {
            let id = trace.span(Role::SendQueue, 0);
            out.push(
                Span::new(trace, id, "send queue", Kind::Internal, at(due_ns), at(sent_ns)).child_of(root),
            );
        }
    }
}

/// The first two parts of a path: `/load/data` of `/load/data/n17`.
fn path_prefix(path: &str) -> &str {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end])
}

struct Writer {
    builder: Builder,
    file: SpanFile,
    counts: TraceCounts,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) -> TraceCounts {
        let mut spans = Vec::with_capacity(BATCH * 2);
        loop {
            match receiver.recv_timeout(FLUSH_EVERY) {
                Ok(Message::Kept(kept_by, request)) => {
                    match kept_by {
                        KeptBy::Head => self.counts.head += 1,
                        KeptBy::Slow => self.counts.slow += 1,
                        KeptBy::Error => self.counts.faults += 1,
                    }
                    self.builder.spans(kept_by, &request, &mut spans);
                    if spans.len() >= BATCH {
                        self.write(&mut spans);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.write(&mut spans),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.write(&mut spans);
        self.counts.unwritten_spans = self.file.dropped();
        self.counts
    }

    fn write(&mut self, spans: &mut Vec<Span>) {
        if self.counts.file_error.is_none()
            && let Err(error) = self.file.write(spans)
        {
            self.counts.file_error = Some(format!("{}: {error}", self.file.path().display()));
        }
        match &self.builder.settings.exporter {
            // What OTLP does not take it counts itself.
            Some(exporter) => spans.drain(..).for_each(|span| {
                exporter.send(span);
            }),
            None => spans.clear(),
        }
    }
}

/// Merges the run's span files, its own and the servers', into `traces.json` of the results directory.
pub fn write_traces_json(directory: &Path, span_files: &[PathBuf]) -> io::Result<Merged> {
    merge::merge(span_files, &directory.join("traces.json"), merge::DEFAULT_BUDGET)
}

#[cfg(test)]
mod tests;
