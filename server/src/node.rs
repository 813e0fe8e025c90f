//! The node's thread: the one place where writes become transactions and transactions become state.
//!
//! Every event that can wake it is in [`NodeEvent`]. It prepares what clients ask for, hands the transactions
//! to the disk's queue, and applies them in order when the disk has them: `Durable` is the commit of a
//! standalone member. Preparing goes on while the disk syncs, so a batch fills by itself.
//!
//! Applying takes the store's write lock once per batch; the replies, the reads that waited for them and the
//! watch events are in the connections' outboxes before it is released.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use bytes::BytesMut;
use zoometry_replica::store::acl;
use zoometry_replica::store::session;
use zoometry_replica::store::watch::{WatchEvent, WatchSink, WatcherId};
use zoometry_replica::store::{Asked, Prep, Store};
use zoometry_wire::records::{EventType, SYNC_CONNECTED, WatcherEvent, perms};
use zoometry_wire::{ErrorCode, Id, OpCode, Record, Request, Response, SessionId, Txn, TxnRecord, Zxid};

use crate::clock;
use crate::conn::{Conn, Phase, put_notification};
use crate::disk_thread::{DiskThread, Durable};
use crate::handshake;
use crate::shared::{Conns, Shared};
use crate::snapshot_thread::Snapshotter;
use crate::stats::{Batch, Counter, Measure, ServerStats, Stage};
use crate::telemetry::{self, Fanout, Stamps, Traced, Work};

/// Writes prepared and not yet applied; further ones are held back in their order, where each connection's
/// share is limited by `zoometry.maxPipelined`.
pub const PROPOSED_LIMIT: usize = 10_000;

/// Containers and TTL znodes deleted in one round.
const EXPIRED_NODES_PER_ROUND: usize = 1000;

/// Everything that can wake the node.
#[derive(Debug)]
pub enum NodeEvent {
    /// A client wants something that takes a zxid.
    Client(FromClient),
    /// The disk has everything up to here.
    Durable(Durable),
    /// The member stops: nothing new is taken in, what is under way is finished.
    Stop,
}

/// What clients want of the node.
#[derive(Debug)]
pub enum FromClient {
    /// A session.
    OpenSession {
        /// Where it is answered.
        conn: Arc<Conn>,
        /// The negotiated timeout.
        timeout_ms: i32,
    },
    /// Writes, in the client's order.
    Submit(Submission),
}

/// Writes of one connection.
#[derive(Debug)]
pub struct Submission {
    /// Where they are answered.
    pub conn: Arc<Conn>,
    /// Its session.
    pub session: SessionId,
    /// Its identities when the writes arrived.
    pub ids: Arc<[Id]>,
    /// The writes, in order.
    pub writes: Vec<Write>,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// The client's number for it.
    pub xid: i32,
    /// What it asks for.
    pub request: Request,
    /// When its bytes were read, ns on the process's clock.
    pub received_ns: u64,
}

/// The way to the node's thread.
#[derive(Debug, Clone)]
pub struct NodeHandle(Sender<NodeEvent>);

impl NodeHandle {
    /// A handle and the queue's other end.
    pub fn new() -> (Self, Receiver<NodeEvent>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (Self(sender), receiver)
    }

    /// Hands an event over. A node that has stopped takes no more; its clients are being closed.
    pub fn send(&self, event: NodeEvent) {
        let _ = self.0.send(event);
    }
}

/// A transaction on its way to the disk.
#[derive(Debug)]
struct Proposed {
    record: TxnRecord,
    /// The connection that asked, if it was a client's.
    origin: Option<Arc<Conn>>,
    /// What was asked for; a refused write's record does not say.
    op: OpCode,
    stamps: Stamps,
}

/// The node.
pub struct Node {
    shared: Arc<Shared>,
    events: Receiver<NodeEvent>,
    disk: DiskThread,
    snapshots: Snapshotter,
    prep: Prep,
    proposed: VecDeque<Proposed>,
    held: VecDeque<FromClient>,
    last_zxid: Zxid,
    next_session: SessionId,
    next_tick_ms: u64,
    next_container_check_ms: u64,
    stopping: bool,
    buffer: BytesMut,
    /// What the writes of the batch being applied have to tell the statistics.
    booked: Batch,
}

impl Node {
    /// A node over a recovered store.
    pub fn new(
        shared: Arc<Shared>,
        events: Receiver<NodeEvent>,
        disk: DiskThread,
        snapshots: Snapshotter,
    ) -> Self {
        let (prep, last_zxid) = {
            let store = shared.store.read();
            (Prep::new(store.config().clone()), store.last_zxid())
        };
        let server_id = shared.config.session_server_id() as i64;
        let next_session = session::first_id(elapsed_since_boot_ms(), server_id);
        // A whole interval first, as Apache's timer waits: whoever restarts a member finds what was there.
        let next_container_check_ms =
            clock::now_ms().saturating_add(shared.config.requests.container_check_interval_ms);
        Self {
            shared,
            events,
            disk,
            snapshots,
            prep,
            proposed: VecDeque::new(),
            held: VecDeque::new(),
            last_zxid,
            next_session,
            next_tick_ms: 0,
            next_container_check_ms,
            stopping: false,
            buffer: BytesMut::new(),
            booked: Batch::default(),
        }
    }

    /// Runs until it is told to stop and everything under way has been answered.
    pub fn run(mut self) {
        while !(self.stopping && self.proposed.is_empty()) {
            if let Some(event) = self.next_event() {
                self.step(event);
            }
            self.tick();
        }
        self.snapshots.stop();
        self.disk.stop();
    }

    fn next_event(&mut self) -> Option<NodeEvent> {
        let wait_ms = self.next_tick_ms.saturating_sub(clock::now_ms());
        match self.events.recv_timeout(Duration::from_millis(wait_ms)) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(NodeEvent::Stop),
        }
    }

    fn step(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Client(asked) if self.proposed.len() < PROPOSED_LIMIT => self.take(asked),
            NodeEvent::Client(asked) => self.held.push_back(asked),
            NodeEvent::Durable(durable) => {
                self.commit(&durable);
                while self.proposed.len() < PROPOSED_LIMIT {
                    let Some(asked) = self.held.pop_front() else { break };
                    self.take(asked);
                }
            }
            NodeEvent::Stop => {
                self.stopping = true;
                self.held.clear();
            }
        }
    }

    fn take(&mut self, asked: FromClient) {
        match asked {
            _ if self.stopping => {}
            FromClient::OpenSession { conn, timeout_ms } => {
                let session = self.next_session;
                self.next_session = SessionId(session.0 + 1);
                self.shared.sessions.lock().open(session, timeout_ms, clock::now_ms());
                let request = Request::CreateSession(timeout_ms);
                self.propose(session, 0, &[], &request, Some(conn), Stamps::default());
            }
            FromClient::Submit(submission) => {
                let mut prep_ns = clock::now_ns();
                let Submission { conn, session, ids, writes } = submission;
                self.shared.stats.add(Counter::PrepQueued, writes.len() as u64);
                for write in writes {
                    let origin = Some(Arc::clone(&conn));
                    let stamps = Stamps { received_ns: write.received_ns, prep_ns, appended_ns: 0 };
                    // One write is prepared when the one before is done: they share the reading.
                    prep_ns = self.propose(session, write.xid, &ids, &write.request, origin, stamps);
                }
            }
        }
    }

    /// Makes a transaction of a request and hands it to the disk. Returns when that was done, if it is a
    /// client's request.
    fn propose(
        &mut self,
        session: SessionId,
        cxid: i32,
        ids: &[Id],
        request: &Request,
        origin: Option<Arc<Conn>>,
        mut stamps: Stamps,
    ) -> u64 {
        let session_check = self.check_session(session, request);
        if matches!(request, Request::CloseSession) {
            self.shared.sessions.lock().set_closing(session);
        }
        self.last_zxid = self.last_zxid.next();
        let asked = Asked { session, cxid, ids, request, session_check };
        let time_ms = clock::wall_ms();
        let record = {
            let store = self.shared.store.read();
            self.prep.prepare(&store, &asked, self.last_zxid, time_ms)
        };
        record.encode(&mut self.buffer);
        let payload = self.buffer.split().freeze();
        let bytes = payload.len() as u64;
        self.shared.disk.append(self.last_zxid, payload);
        self.snapshots.appended(1, bytes);
        self.shared.stats.add(Counter::SyncQueued, 1);
        if stamps.prep_ns > 0 {
            stamps.appended_ns = clock::now_ns();
        }
        self.proposed.push_back(Proposed { record, origin, op: request.op(), stamps });
        stamps.appended_ns
    }

    fn check_session(&self, session: SessionId, request: &Request) -> Result<(), ErrorCode> {
        match request {
            // The server's own, and the two that make and end sessions.
            Request::DeleteContainer(_) | Request::CreateSession(_) | Request::CloseSession => Ok(()),
            _ => self.shared.sessions.lock().check(session),
        }
    }

    /// Applies everything that the disk has, in order, and answers it.
    fn commit(&mut self, durable: &Durable) {
        let mut woken: Vec<Arc<Conn>> = Vec::new();
        {
            let now_ns = clock::now_ns();
            let mut store = self.shared.store.write();
            while self.proposed.front().is_some_and(|head| head.record.header.zxid <= durable.upto) {
                let proposed = self.proposed.pop_front().expect("checked");
                let timed = self.is_traced(&proposed, now_ns, None);
                book_stages(&mut self.booked, &proposed.stamps, durable);
                let mut delivery = Delivery {
                    conns: &self.shared.conns,
                    stats: &self.shared.stats,
                    woken: &mut woken,
                    timed,
                    fanout: None,
                };
                let apply_ns = if timed { clock::now_ns() } else { now_ns };
                let result = store.apply(&proposed.record, &mut delivery);
                let fanout = delivery.fanout;
                let traced = self.traced(&proposed, durable, &result, now_ns, apply_ns, fanout);
                let touched = self.settle(&store, &proposed, &result, now_ns, traced);
                woken.extend(touched);
                if let Some(origin) = proposed.origin {
                    woken.push(origin);
                }
            }
            self.shared.keep_digest(&store);
        }
        self.prep.applied(durable.upto);
        self.book(durable, clock::now_ns());
        // A connection is woken once, however many of its writes were in the batch.
        woken.sort_unstable_by_key(|conn| conn.id);
        woken.dedup_by_key(|conn| conn.id);
        for conn in woken {
            conn.wake();
        }
    }

    fn book(&mut self, durable: &Durable, applied_ns: u64) {
        self.booked.stage(Stage::Apply, applied_ns.saturating_sub(durable.synced_ns), durable.records);
        let stats = &self.shared.stats;
        stats.record(&mut self.booked);
        let slow_ns = self.shared.config.storage.fsync_warning_ms.saturating_mul(1_000_000);
        stats.add(Counter::SlowFsyncs, u64::from(durable.synced_ns - durable.written_ns > slow_ns));
        stats.observe(Measure::FsyncTime, durable.synced_ns - durable.written_ns);
        stats.observe(Measure::SyncProcessTime, durable.synced_ns - durable.taken_ns);
        stats.observe(Measure::SyncBatchSize, durable.records.into());
        stats.add(Counter::Proposals, durable.records.into());
        stats.add(Counter::Commits, durable.records.into());
    }

    /// What an applied transaction means for sessions and for the connection that asked. Returns a
    /// connection besides the origin that has to look at its desk.
    fn settle(
        &self,
        store: &Store,
        proposed: &Proposed,
        result: &Result<Response, ErrorCode>,
        now_ns: u64,
        traced: Option<Traced>,
    ) -> Option<Arc<Conn>> {
        let header = proposed.record.header;
        match (&proposed.record.txn, &proposed.origin) {
            (Txn::CreateSession(timeout_ms), Some(conn)) => {
                handshake::session_opened(&self.shared, conn, header.session, *timeout_ms);
                None
            }
            (Txn::CloseSession(_), origin) => {
                if let Some(conn) = origin {
                    self.answer(store, conn, proposed, result, now_ns, traced);
                }
                self.shared.sessions.lock().remove(header.session);
                let conn = self.shared.conns.take_session(header.session)?;
                conn.desk().phase = Phase::Closing;
                Some(conn)
            }
            (_, Some(conn)) => {
                self.answer(store, conn, proposed, result, now_ns, traced);
                None
            }
            (_, None) => None,
        }
    }

    /// Whether a write is kept as a trace, as far as that is known.
    fn is_traced(&self, proposed: &Proposed, now_ns: u64, error: Option<ErrorCode>) -> bool {
        let header = proposed.record.header;
        let latency_ns = now_ns.saturating_sub(proposed.stamps.received_ns);
        self.shared.tracer.verdict(header.session, header.cxid, latency_ns, error).is_some()
    }

    fn traced(
        &self,
        proposed: &Proposed,
        durable: &Durable,
        result: &Result<Response, ErrorCode>,
        now_ns: u64,
        apply_ns: u64,
        fanout: Option<Fanout>,
    ) -> Option<Traced> {
        let header = proposed.record.header;
        let stamps = proposed.stamps;
        let conn = proposed.origin.as_ref()?;
        let error = result.as_ref().err().copied();
        let latency_ns = now_ns.saturating_sub(stamps.received_ns);
        let kept_by = self.shared.tracer.verdict(header.session, header.cxid, latency_ns, error)?;
        Some(Traced {
            kept_by,
            session: header.session,
            xid: header.cxid,
            op: proposed.op,
            zxid: header.zxid,
            error,
            peer: conn.peer,
            path: telemetry::txn_path(&proposed.record.txn),
            received_ns: stamps.received_ns,
            work: Work::Write { stamps, durable: *durable, apply_ns, applied_ns: clock::now_ns(), fanout },
            replied_ns: 0,
        })
    }

    fn answer(
        &self,
        store: &Store,
        conn: &Conn,
        proposed: &Proposed,
        result: &Result<Response, ErrorCode>,
        now_ns: u64,
        traced: Option<Traced>,
    ) {
        let header = proposed.record.header;
        let mut desk = conn.desk();
        let tracer = &self.shared.tracer;
        let answered = desk.answer_write(store, header.cxid, header.zxid, result, now_ns, tracer);
        if let Some(traced) = traced.filter(|_| answered > 0) {
            desk.keep(traced);
        }
        drop(desk);
        self.shared.stats.outstanding_add(-(answered as i64));
    }

    /// What time brings: sessions that have fallen silent, containers that are empty.
    fn tick(&mut self) {
        let now_ms = clock::now_ms();
        if now_ms < self.next_tick_ms || self.stopping {
            return;
        }
        let tick_ms = u64::from(self.shared.config.tick_time_ms);
        self.next_tick_ms = now_ms + (tick_ms / 2).clamp(1, 500);
        let expired = self.shared.sessions.lock().expire(now_ms);
        for session in expired {
            let timeout_ms = self.shared.sessions.lock().timeout_ms(session).unwrap_or_default();
            let expiry = tracing::info_span!("session expiry", %session, timeout_ms).entered();
            tracing::info!("expiring a session that has fallen silent");
            self.shared.stats.add(Counter::SessionsExpired, 1);
            self.propose(session, 0, &[], &Request::CloseSession, None, Stamps::default());
            drop(expiry);
        }
        if now_ms >= self.next_container_check_ms {
            self.next_container_check_ms = now_ms + self.shared.config.requests.container_check_interval_ms;
            self.delete_expired_nodes();
        }
    }

    fn delete_expired_nodes(&mut self) {
        let wall_ms = clock::wall_ms();
        let never_used_ms = self.shared.config.requests.container_max_never_used_ms;
        let never_used_ms = never_used_ms.map_or(0, |ms| ms as i64);
        let paths = self.shared.store.read().expired_nodes(wall_ms, never_used_ms, EXPIRED_NODES_PER_ROUND);
        for path in paths {
            self.propose(SessionId(0), 0, &[], &Request::DeleteContainer(path), None, Stamps::default());
        }
    }
}

/// Where a write spent its time up to the disk; nothing for those that no client asked for.
fn book_stages(booked: &mut Batch, stamps: &Stamps, durable: &Durable) {
    let &Stamps { received_ns, prep_ns, appended_ns } = stamps;
    if prep_ns == 0 {
        return;
    }
    let queued_ns = prep_ns.saturating_sub(received_ns);
    let prepared_ns = appended_ns.saturating_sub(prep_ns);
    booked.stage(Stage::Queue, queued_ns, 1);
    booked.stage(Stage::Prep, prepared_ns, 1);
    booked.stage(Stage::Append, durable.written_ns.saturating_sub(appended_ns), 1);
    booked.stage(Stage::Sync, durable.synced_ns - durable.written_ns, 1);
    booked.observe(Measure::PrepQueueTime, queued_ns);
    booked.observe(Measure::PrepProcessTime, prepared_ns);
    booked.observe(Measure::SyncQueueTime, durable.taken_ns.saturating_sub(appended_ns));
    booked.observe(Measure::SyncQueueAndFlushTime, durable.synced_ns.saturating_sub(appended_ns));
}

/// What an event is counted as.
fn watch_measure(kind: EventType) -> Measure {
    match kind {
        EventType::NodeCreated => Measure::CreatedWatches,
        EventType::NodeDeleted => Measure::DeletedWatches,
        EventType::NodeDataChanged => Measure::ChangedWatches,
        EventType::NodeChildrenChanged => Measure::ChildrenWatches,
    }
}

/// Puts watch events into outboxes while the store is being changed.
struct Delivery<'a> {
    conns: &'a Conns,
    stats: &'a ServerStats,
    woken: &'a mut Vec<Arc<Conn>>,
    /// The write is traced.
    timed: bool,
    fanout: Option<Fanout>,
}

impl WatchSink for Delivery<'_> {
    fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]) {
        let first_ns = if self.timed { clock::now_ns() } else { 0 };
        let mut told = 0;
        let mut frame = BytesMut::new();
        let notification =
            WatcherEvent { kind: event.kind as i32, state: SYNC_CONNECTED, path: event.path.to_string() };
        put_notification(&mut frame, event.zxid, &notification);
        self.conns.each(watchers, |conn| {
            let mut desk = conn.desk();
            if acl::allows(event.acl, perms::READ, &desk.ids) {
                desk.notify(&frame);
                drop(desk);
                self.woken.push(Arc::clone(conn));
                told += 1;
            }
        });
        self.stats.observe(watch_measure(event.kind), told as u64);
        self.stats.add(Counter::WatchBytes, told as u64 * frame.len() as u64);
        if self.timed {
            Fanout::add(&mut self.fanout, told, first_ns, clock::now_ns());
        }
    }
}

/// Where session ids start: a clock that a restart of this process does not set back.
fn elapsed_since_boot_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the call to fill.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
