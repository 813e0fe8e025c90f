//! Request traces: clock readings on the hot path, spans off it.
//!
//! The path of a request holds a few readings of one clock ([`Stamps`], and those that a batch shares) and
//! takes one decision, [`Tracer::verdict`]: a hash and two comparisons. Only a request that is kept becomes a
//! [`Traced`] value, waits on its connection's desk until its reply is about to be written, and goes through
//! a bounded channel to the thread that builds spans of it, for OTLP and for `zoometry.traceFile`.
//!
//! Kept are: requests sampled by their derived identity (`zoometry.traceSample`; the load generator keeps the
//! same ones without a word exchanged), requests slower than `zoometry.traceSlowMs`, the slowest
//! `zoometry.traceSlowest` of every second, and answers that say the server is at fault.
//!
//! ```text
//! setData                SERVER    frame read → reply about to be written
//!   session queue                  until the node takes it (reads: until earlier writes are answered)
//!   prep                           validation, transaction, append to the disk's queue
//!   log sync                       append → durable        attr: transactions in the batch
//!     fsync                        the fdatasync that it shared
//!   apply                          the tree is changed
//!     fanout                       watch events into outboxes        attr: watchers
//!   reply                          until the reply is about to be written
//! getData                SERVER    frame read → reply about to be written
//!   session queue, read, reply     those of at least 5 µs
//! ```
//!
//! The SERVER span ends *before* the write to the socket, not after: the client may have the reply before the
//! write call returns, and a parent (the client's span) must contain its children. It names the client's span
//! as its parent only under `zoometry.traceParent`: an unmodified client sends no spans, and a parent that
//! never comes makes a broken tree.
//!
//! Nothing here blocks the request path: what a limit or a full queue keeps out is counted.

mod build;
pub mod trail;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use zoometry_spans::{Exporter, Identity, KeptBy, Resource, SampleRate, Span, SpanFile};
use zoometry_wire::{ErrorCode, OpCode, Request, SessionId, Txn, Zxid};

use crate::clock;
use crate::config::Config;
use crate::disk_thread::Durable;
use build::Builder;
use trail::Trail;

/// Kept requests that may wait for the thread; more are dropped and counted.
pub const QUEUE: usize = 8192;
/// Kept requests that may wait on one connection for their replies to be written.
pub const MAX_ON_DESK: usize = 1024;
/// Most requests that are kept in a second for their id.
pub const MAX_HEAD_PER_SECOND: u32 = 2000;
/// Most requests that are kept in a second for `zoometry.traceSlowMs`, and for faults.
pub const MAX_OTHER_PER_SECOND: u32 = 200;

/// Stretches of a read that are shorter than this get no span.
const SHORTEST_CHILD_NS: u64 = 5_000;
/// Where the search for the slowest of a second begins, and how low it may get.
const FIRST_FLOOR_NS: u64 = 1_000_000;
const LOWEST_FLOOR_NS: u64 = 50_000;
/// Spans are handed on in batches of about this many, or as old as [`FLUSH_EVERY`].
const BATCH: usize = 512;
const FLUSH_EVERY: Duration = Duration::from_millis(200);
const SECOND_NS: u64 = 1_000_000_000;

/// A write's way to the disk, in readings of the process's clock. All zero after `received_ns` when
/// tracing is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamps {
    /// When its bytes were read from the socket.
    pub received_ns: u64,
    /// When the node began to prepare it.
    pub prep_ns: u64,
    /// When it was in the disk's queue.
    pub appended_ns: u64,
}

/// What a request went through between its arrival and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It was answered from the tree.
    Read {
        /// Its turn came.
        started_ns: u64,
        /// Its reply was in the outbox.
        ended_ns: u64,
    },
    /// It went through the log.
    Write {
        /// Up to the disk's queue.
        stamps: Stamps,
        /// The sync that made it durable here; `None` if a quorum of others was faster.
        durable: Option<Durable>,
        /// In an ensemble: when a quorum had it.
        committed_ns: Option<u64>,
        /// Its turn to be applied came.
        apply_ns: u64,
        /// It was applied, its watch events delivered.
        applied_ns: u64,
        /// The watch events that it fired.
        fanout: Option<Fanout>,
    },
    /// It went to the leader and came back as a commit.
    Forwarded {
        /// Its turn to be applied came.
        apply_ns: u64,
        /// It was applied, its watch events delivered.
        applied_ns: u64,
        /// The watch events that it fired.
        fanout: Option<Fanout>,
    },
}

/// Watch events of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fanout {
    /// Events put into outboxes.
    pub watchers: u32,
    /// Before the first.
    pub first_ns: u64,
    /// After the last.
    pub last_ns: u64,
}

impl Fanout {
    /// Counts the delivery of one event to so many watchers.
    pub fn add(seen: &mut Option<Self>, watchers: u32, first_ns: u64, last_ns: u64) {
        let fanout = seen.get_or_insert(Self { watchers: 0, first_ns, last_ns });
        fanout.watchers += watchers;
        fanout.last_ns = last_ns;
    }
}

/// A request that is kept.
#[derive(Debug, Clone)]
pub struct Traced {
    /// Why.
    pub kept_by: KeptBy,
    /// Its session.
    pub session: SessionId,
    /// Its number.
    pub xid: i32,
    /// What it asked for.
    pub op: OpCode,
    /// The zxid in its reply.
    pub zxid: Zxid,
    /// The refusal, if it was refused.
    pub error: Option<ErrorCode>,
    /// Who asked.
    pub peer: SocketAddr,
    /// The znode, if it names one; the first two parts.
    pub path: Option<Box<str>>,
    /// When its bytes were read.
    pub received_ns: u64,
    /// What happened then.
    pub work: Work,
    /// When its reply was about to be written.
    pub replied_ns: u64,
}

/// What tracing did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Requests that became spans.
    pub kept: u64,
    /// Requests that would have, but for a limit or a full queue.
    pub suppressed: u64,
    /// Spans not in the file, because of its limit or an error.
    pub unwritten_spans: u64,
}

#[derive(Debug, Default)]
struct Counts {
    kept: AtomicU64,
    suppressed: AtomicU64,
    unwritten_spans: AtomicU64,
}

/// The hot path's end: decides, and hands over what is kept. Shared by all threads.
#[derive(Debug)]
pub struct Tracer {
    identity: Identity,
    /// Requests that took longer are kept, or are candidates for their second's slowest. `u64::MAX`: none.
    floor_ns: Arc<AtomicU64>,
    /// `None`: tracing is off.
    sender: Option<SyncSender<Message>>,
    counts: Arc<Counts>,
}

enum Message {
    Traced(Box<Traced>),
    Trail(Box<Trail>),
    Stop,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Traced(_) => "Traced",
            Message::Trail(_) => "Trail",
            Message::Stop => "Stop",
        })
    }
}

/// The thread's end, to be stopped when the member stops.
#[derive(Debug)]
pub struct TraceThread {
    sender: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl TraceThread {
    /// Hands on what is queued and ends the thread.
    pub fn stop(self) {
        // An error says that the thread is gone already.
        let _ = self.sender.send(Message::Stop);
        let _ = self.thread.join();
    }
}

/// Who this member is, for OTLP: `zoometry.serviceName`, or `zookeeper-<server id>`.
pub fn resource(config: &Config) -> Resource {
    let resource = Resource::member(env!("CARGO_PKG_VERSION"), "zookeeper", config.session_server_id());
    match &config.own.service_name {
        Some(name) => resource.named(name),
        None => resource,
    }
}

impl Tracer {
    /// No request is traced.
    pub fn off() -> Self {
        Self {
            identity: Identity::new(0, SampleRate::NONE),
            floor_ns: Arc::new(AtomicU64::new(u64::MAX)),
            sender: None,
            counts: Arc::default(),
        }
    }

    /// Tracing as zoo.cfg says; off when there is nowhere to send spans to, or nothing to keep.
    pub fn start(
        config: &Config,
        exporter: Option<Exporter>,
        resource: &Resource,
    ) -> io::Result<(Self, Option<TraceThread>)> {
        let own = &config.own;
        let rate = SampleRate::from_probability(own.trace_sample);
        let wanted = rate != SampleRate::NONE || own.trace_slow_ms.is_some() || own.trace_slowest > 0;
        if !wanted || (exporter.is_none() && own.trace_file.is_none()) {
            return Ok((Self::off(), None));
        }
        let file = match &own.trace_file {
            Some(path) => Some(SpanFile::append(path, resource.clone()).map_err(|error| {
                io::Error::new(error.kind(), format!("zoometry.traceFile {}: {error}", path.display()))
            })?),
            None => None,
        };
        let identity = Identity::new(own.trace_salt, rate);
        let slow_ns = own.trace_slow_ms.map_or(u64::MAX, |ms| (ms * 1e6) as u64);
        let counts: Arc<Counts> = Arc::default();
        let search = Slowest::new(own.trace_slowest, slow_ns);
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = Thread {
            builder: Builder {
                identity,
                server: config.session_server_id(),
                parented: own.trace_parent,
                tracestate: rate.tracestate().unwrap_or_default(),
            },
            file,
            exporter,
            floor_ns: Arc::new(AtomicU64::new(search.floor_ns)),
            search,
            slow_ns,
            budget: Budget::new(),
            counts: Arc::clone(&counts),
            spans: Vec::new(),
        };
        let tracer =
            Self { identity, floor_ns: Arc::clone(&thread.floor_ns), sender: Some(sender.clone()), counts };
        let thread =
            std::thread::Builder::new().name("traces".into()).spawn(move || thread.run(&receiver))?;
        Ok((tracer, Some(TraceThread { sender, thread })))
    }

    /// Whether any request can be kept. When not, nothing needs to be stamped.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether a request is kept for its id. Known at its arrival.
    #[inline]
    pub fn keeps(&self, session: SessionId, xid: i32) -> bool {
        self.is_on() && self.identity.keeps(session, xid)
    }

    /// Whether a request is kept, and why, when it has been answered after so many nanoseconds.
    #[inline]
    pub fn verdict(
        &self,
        session: SessionId,
        xid: i32,
        latency_ns: u64,
        error: Option<ErrorCode>,
    ) -> Option<KeptBy> {
        if !self.is_on() || xid <= 0 {
            None
        } else if error.is_some_and(is_fault) {
            Some(KeptBy::Error)
        } else if self.identity.keeps(session, xid) {
            Some(KeptBy::Head)
        } else if latency_ns > self.floor_ns.load(Ordering::Relaxed) {
            Some(KeptBy::Slow)
        } else {
            None
        }
    }

    /// Hands over kept requests whose replies are about to be written. Empties the list.
    pub fn finish(&self, kept: &mut Vec<Traced>) {
        let Some(sender) = &self.sender else { return kept.clear() };
        let replied_ns = clock::now_ns();
        for mut traced in kept.drain(..) {
            traced.replied_ns = replied_ns;
            if sender.try_send(Message::Traced(Box::new(traced))).is_err() {
                self.suppressed(1);
            }
        }
    }

    /// Hands over the way of another member's client's transaction through this one.
    fn trail(&self, trail: Trail) {
        let Some(sender) = &self.sender else { return };
        if sender.try_send(Message::Trail(Box::new(trail))).is_err() {
            self.suppressed(1);
        }
    }

    /// Counts kept requests that had to be let go.
    pub fn suppressed(&self, count: u64) {
        self.counts.suppressed.fetch_add(count, Ordering::Relaxed);
    }

    /// What tracing did since the start.
    pub fn counts(&self) -> TraceCounts {
        TraceCounts {
            kept: self.counts.kept.load(Ordering::Relaxed),
            suppressed: self.counts.suppressed.load(Ordering::Relaxed),
            unwritten_spans: self.counts.unwritten_spans.load(Ordering::Relaxed),
        }
    }
}

/// Whether a refusal says that something is wrong, rather than answering about data or rights.
fn is_fault(code: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(
        code,
        SystemError | DataInconsistency | MarshallingError | SessionExpired | SessionMoved | ThrottledOp
    )
}

/// The path that a request names, cut to its first two parts.
pub fn request_path(request: &Request) -> Option<Box<str>> {
    use Request::*;
    let path = match request {
        Exists(get) | GetData(get) | GetChildren(get) | GetChildren2(get) => &get.path,
        GetAcl(path) | Sync(path) | GetAllChildrenNumber(path) => path,
        AddWatch(watch) | CheckWatches(watch) | RemoveWatches(watch) => &watch.path,
        _ => return None,
    };
    Some(prefix(path))
}

/// The path that a transaction changes, cut to its first two parts; a refused one has none.
pub fn txn_path(txn: &Txn) -> Option<Box<str>> {
    let path = match txn {
        Txn::Create(create) => &create.path,
        Txn::CreateTtl(create) => &create.path,
        Txn::CreateContainer(create) => &create.path,
        Txn::Delete(path) => path,
        Txn::SetData(set) => &set.path,
        Txn::SetAcl(set) => &set.path,
        _ => return None,
    };
    Some(prefix(path))
}

fn prefix(path: &str) -> Box<str> {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end]).into()
}

/// The slowest requests of the current second, and the floor that lets only candidates through.
///
/// The floor is half of what made it into the last second's list, so that a burst of slowness is caught from
/// its beginning and an even load does not flood the channel.
struct Slowest {
    limit: usize,
    slow_ns: u64,
    floor_ns: u64,
    second_end_ns: u64,
    kept: Vec<Traced>,
}

impl Slowest {
    fn new(limit: usize, slow_ns: u64) -> Self {
        let floor_ns = if limit == 0 { slow_ns } else { slow_ns.min(FIRST_FLOOR_NS) };
        Self { limit, slow_ns, floor_ns, second_end_ns: 0, kept: Vec::with_capacity(limit) }
    }

    /// Takes a candidate in, if it is slow enough.
    fn offer(&mut self, traced: Traced) {
        if self.kept.len() < self.limit {
            self.kept.push(traced);
        } else if let Some(fastest) = self.kept.iter_mut().min_by_key(|kept| latency_ns(kept))
            && latency_ns(fastest) < latency_ns(&traced)
        {
            *fastest = traced;
        }
        if self.limit > 0 && self.kept.len() == self.limit {
            let least = self.kept.iter().map(latency_ns).min().unwrap_or(u64::MAX);
            self.floor_ns = self.floor_ns.max(least).min(self.slow_ns);
        }
    }

    /// The last second's slowest, once it is over.
    fn due(&mut self, now_ns: u64) -> Vec<Traced> {
        if self.limit == 0 || now_ns < self.second_end_ns {
            return Vec::new();
        }
        self.second_end_ns = now_ns + SECOND_NS;
        let least = if self.kept.len() == self.limit {
            self.kept.iter().map(latency_ns).min().unwrap_or(self.floor_ns)
        } else {
            self.floor_ns
        };
        self.floor_ns = (least / 2).max(LOWEST_FLOOR_NS).min(self.slow_ns);
        std::mem::take(&mut self.kept)
    }
}

fn latency_ns(traced: &Traced) -> u64 {
    traced.replied_ns.saturating_sub(traced.received_ns)
}

/// How many more requests may be kept in this second.
struct Budget {
    second_end_ns: u64,
    head: u32,
    other: u32,
}

impl Budget {
    fn new() -> Self {
        Self { second_end_ns: 0, head: 0, other: 0 }
    }

    fn admits(&mut self, kept_by: KeptBy, now_ns: u64) -> bool {
        if now_ns >= self.second_end_ns {
            *self = Self {
                second_end_ns: now_ns + SECOND_NS,
                head: MAX_HEAD_PER_SECOND,
                other: MAX_OTHER_PER_SECOND,
            };
        }
        let left = if kept_by == KeptBy::Head { &mut self.head } else { &mut self.other };
        let admitted = *left > 0;
        *left = left.saturating_sub(1);
        admitted
    }
}

struct Thread {
    builder: Builder,
    file: Option<SpanFile>,
    exporter: Option<Exporter>,
    floor_ns: Arc<AtomicU64>,
    search: Slowest,
    slow_ns: u64,
    budget: Budget,
    counts: Arc<Counts>,
    spans: Vec<Span>,
}

impl Thread {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            match receiver.recv_timeout(FLUSH_EVERY) {
                Ok(Message::Traced(traced)) => self.take(traced),
                Ok(Message::Trail(trail)) => self.take_trail(&trail),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.second_over(clock::now_ns());
            if self.spans.len() >= BATCH {
                self.flush();
            }
        }
        self.second_over(u64::MAX - SECOND_NS);
        self.flush();
    }

    fn take(&mut self, traced: Box<Traced>) {
        let candidate = traced.kept_by == KeptBy::Slow && latency_ns(&traced) <= self.slow_ns;
        if candidate {
            self.search.offer(*traced);
            self.floor_ns.store(self.search.floor_ns, Ordering::Relaxed);
        } else if self.budget.admits(traced.kept_by, traced.replied_ns) {
            self.keep(&traced);
        } else {
            self.counts.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take_trail(&mut self, trail: &Trail) {
        if self.budget.admits(KeptBy::Head, trail.committed_ns) {
            self.builder.trail(trail, &mut self.spans);
        } else {
            self.counts.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn second_over(&mut self, now_ns: u64) {
        let due = self.search.due(now_ns);
        self.floor_ns.store(self.search.floor_ns, Ordering::Relaxed);
        for traced in due {
            self.keep(&traced);
        }
    }

    fn keep(&mut self, traced: &Traced) {
        self.counts.kept.fetch_add(1, Ordering::Relaxed);
        self.builder.spans(traced, &mut self.spans);
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            let dropped_before = file.dropped();
            match file.write(&self.spans) {
                Ok(()) => {
                    let dropped = file.dropped() - dropped_before;
                    self.counts.unwritten_spans.fetch_add(dropped, Ordering::Relaxed);
                }
                Err(error) => {
                    let path = file.path().display().to_string();
                    tracing::warn!(path, %error, "the trace file cannot be written; it stays as it is");
                    self.counts.unwritten_spans.fetch_add(self.spans.len() as u64, Ordering::Relaxed);
                    self.file = None;
                }
            }
        }
        match &self.exporter {
            // What OTLP does not take it counts itself.
            Some(exporter) => self.spans.drain(..).for_each(|span| {
                exporter.send(span);
            }),
            None => self.spans.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
