//! One client connection: its requests in order and its outbox; `socket` moves the bytes, `intake` sees what they
//! ask for.
//!
//! A connection is shared by its task, which reads from the socket, and by the node, which answers writes and
//! delivers watch events. What they share is [`Desk`], behind a lock that is held for memory work only.
//!
//! **Lock order: the store's lock before any desk's.** The task takes the store's read lock, then its desk;
//! the node takes the store's write lock, then desks one after another.
//!
//! Reads never leave the task unless a write of the same connection is outstanding; then they wait in the
//! pipeline behind it, and whoever applies the write runs them ([`Desk::answer_write`]).
//!
//! Limits: `zoometry.maxPipelined` requests unanswered, or [`PIPELINE_PAUSE`] bytes of them and of their expected
//! replies, and the task stops reading; [`OUTBOX_PAUSE`] bytes unsent, and it stops reading;
//! `zoometry.maxOutboxBytes` unsent, and the connection is closed: a client that does not read cannot take the
//! member's memory, nor can many together ([`Unsent`]). A connection that is ending has `nio.sessionlessCnxnTimeout` for each step in which its
//! client takes its last replies. One on which nothing is heard for twice its session's timeout is closed: its
//! session may live on, at another member.

mod intake;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod unsent;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use zoometry_replica::pipeline::Pipeline;
use zoometry_replica::store::acl;
use zoometry_replica::store::watch::WatcherId;
use zoometry_replica::store::{Answer, Caller, Store};
use zoometry_spans::KeptBy;
use zoometry_wire::records::{ReadOnlyByte, ReplyHeader, WatcherEvent, xid};
use zoometry_wire::{ErrorCode, Id, OpCode, Record, Request, Response, SessionId, Zxid, frame};

use crate::clock;
use crate::shared::Shared;
use crate::stats::{Answered, Batch, ConnStats, Counter, Stage};
use crate::telemetry::{self, Traced, Tracer, Work};
pub use socket::serve;
pub use unsent::Unsent;
use unsent::{Held, SHARE_MIN};

/// Unsent bytes at which a connection's socket is no longer read: the client takes its replies first.
pub const OUTBOX_PAUSE: usize = 1 << 20;

/// Bytes of requests not yet answered at which a connection's socket is no longer read. A thousand requests are a
/// gigabyte if each is as long as `jute.maxbuffer` allows. For reads that wait behind a write their replies count
/// as well: they will come all at once, and must not fill the outbox of a client that does read.
pub const PIPELINE_PAUSE: usize = 4 << 20;

/// Requests for one znode that may wait without a look at how much they will be answered: too few to fill an outbox.
const UNWEIGHED: usize = 8;

/// When a connection that waits for something else is looked at again for its silence.
const CLOSER_LOOK: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No session asked for yet.
    New,
    /// A session was asked for and is on its way through the log. Nothing is read meanwhile.
    Opening,
    /// Requests are welcome.
    Open,
    /// What is in the outbox is sent, and then the socket is closed.
    Closing,
}

/// A write that this connection waits for.
#[derive(Debug, Clone, Copy)]
pub struct PendingWrite {
    /// The client's number for it.
    pub xid: i32,
    /// The operation, whose reply it is.
    pub op: OpCode,
    /// When its bytes were read, ns on the process's clock.
    pub received_ns: u64,
}

/// Something to be answered here, in its turn.
#[derive(Debug)]
pub struct Deferred {
    xid: i32,
    received_ns: u64,
    what: Turn,
}

#[derive(Debug)]
enum Turn {
    Read(Request),
    Refuse(ErrorCode),
    /// The end of a session that this member alone knows.
    Goodbye,
    /// An operation that no server knows: answered with zxid −1, and the connection closed.
    Unknown,
}

impl Turn {
    /// The operation, for the statistics.
    fn op(&self) -> Option<OpCode> {
        match self {
            Self::Read(request) => Some(request.op()),
            Self::Refuse(_) | Self::Goodbye | Self::Unknown => None,
        }
    }
}

/// What [`Desk::answer_write`] answered.
#[derive(Debug, Clone, Copy)]
pub struct AnsweredWrite {
    /// How many requests: the write and the reads that waited for it.
    pub requests: usize,
    /// What the write asked for.
    pub op: OpCode,
    /// When its bytes were read, ns on the process's clock.
    pub received_ns: u64,
}

/// Whether more was unsent than is allowed. Nothing is put into the outbox then: it would come instead of what
/// was thrown away, and be taken for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    None,
    Uncounted,
    Counted,
}

/// What a connection's task and the node share.
#[derive(Debug)]
pub struct Desk {
    /// Bytes to be sent, frames whole.
    pub out: BytesMut,
    /// Requests not yet answered.
    pub pipeline: Pipeline<PendingWrite, Deferred>,
    /// Who the client has shown to be. Replaced, never changed, so that writes under way keep theirs.
    pub ids: Arc<[Id]>,
    /// The session, once there is one.
    pub session: SessionId,
    /// How long it may be silent.
    timeout_ms: u64,
    /// When something was last heard on this connection, ns on the process's clock.
    heard_ns: u64,
    /// Where the connection stands.
    pub phase: Phase,
    /// The readOnly byte of its connect request, which decides the form of the response.
    pub read_only: ReadOnlyByte,
    /// The session's client has come on another connection: what may still arrive on this one is older than
    /// what arrives there, and is not taken in.
    pub superseded: bool,
    /// Unsent bytes at which the connection is closed, the longest reply among them not counted.
    outbox_limit: usize,
    /// The longest reply in the outbox, if it is longer than [`OUTBOX_PAUSE`]: one reply may be longer than the limit.
    longest_reply: usize,
    /// Bytes that the task had taken out of the outbox and not sent, when it last looked.
    in_hand: usize,
    /// What the connection holds, as part of what all hold.
    held: Held,
    /// The node remembers to send what is in the outbox.
    to_be_woken: bool,
    overflow: Overflow,
    /// The task takes bytes in: it need not be told that there is room for requests again.
    is_read: bool,
    /// What happened here since the task last reported it.
    batch: Batch,
    last: Option<Answered>,
    /// Traced requests whose replies are in `out`, and how many did not fit.
    traced: Vec<Traced>,
    untraced: u64,
    id: WatcherId,
    peer: SocketAddr,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Its name, also as a watcher.
    pub id: WatcherId,
    /// The client's address.
    pub peer: SocketAddr,
    desk: Mutex<Desk>,
    /// The socket, for whoever sends.
    writer: OwnedWriteHalf,
    /// The task has bytes in hand, which come before those in the outbox.
    is_sending: AtomicBool,
    wake: Notify,
    /// For `cons`.
    pub stats: ConnStats,
}

impl Conn {
    /// A connection that has just been accepted.
    pub fn new(
        id: WatcherId,
        peer: SocketAddr,
        writer: OwnedWriteHalf,
        outbox_limit: usize,
        unsent: &Arc<Unsent>,
    ) -> Arc<Self> {
        let ip = Id { scheme: "ip".into(), id: peer.ip().to_canonical().to_string() };
        Arc::new(Self {
            id,
            peer,
            desk: Mutex::new(Desk {
                out: BytesMut::new(),
                pipeline: Pipeline::default(),
                ids: Arc::new([ip]),
                session: SessionId(0),
                timeout_ms: 0,
                heard_ns: 0,
                phase: Phase::New,
                read_only: ReadOnlyByte::Absent,
                superseded: false,
                outbox_limit,
                longest_reply: 0,
                in_hand: 0,
                held: Held::new(unsent),
                to_be_woken: false,
                overflow: Overflow::None,
                is_read: false,
                batch: Batch::default(),
                last: None,
                traced: Vec::new(),
                untraced: 0,
                id,
                peer,
            }),
            writer,
            is_sending: AtomicBool::new(false),
            wake: Notify::new(),
            stats: ConnStats::new(clock::wall_ms()),
        })
    }

    /// The shared part. Mind the lock order in the module's head.
    pub fn desk(&self) -> parking_lot::MutexGuard<'_, Desk> {
        self.desk.lock()
    }

    /// Tells the task that its desk has changed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the connection after what is in its outbox has been sent.
    pub fn close(&self) {
        self.desk().phase = Phase::Closing;
        self.wake();
    }

    /// As [`close`](Self::close): its session's client has come on another connection.
    pub fn supersede(&self) {
        self.desk().superseded = true;
        self.close();
    }

    /// The connection's own address as the scheme `ip` knows it.
    fn address(&self) -> String {
        self.peer.ip().to_canonical().to_string()
    }
}

impl Desk {
    /// The connection has this session now.
    pub fn open(&mut self, session: SessionId, timeout_ms: i32, now_ns: u64) {
        (self.session, self.phase) = (session, Phase::Open);
        (self.timeout_ms, self.heard_ns) = (timeout_ms.max(0) as u64, now_ns);
    }

    /// For how long the connection may stay without a sign of its client; zero: no longer. Twice as long as the
    /// session: who is a little late is for the sessions' tracker to judge.
    pub fn patience(&self, now_ns: u64) -> Duration {
        let most = Duration::from_millis(2 * self.timeout_ms.max(1));
        if self.phase != Phase::Open || !self.pipeline.is_clear() {
            return most.max(CLOSER_LOOK);
        }
        most.saturating_sub(Duration::from_nanos(now_ns.saturating_sub(self.heard_ns)))
    }

    /// Whether more requests are welcome, if `in_hand` bytes are on their way out of the outbox.
    fn has_room(&self, max_pipelined: usize, in_hand: usize) -> bool {
        let is_scarce = self.held.all().is_scarce();
        let (pipeline, outbox) =
            if is_scarce { (SHARE_MIN, SHARE_MIN) } else { (PIPELINE_PAUSE, OUTBOX_PAUSE) };
        self.pipeline.len() < max_pipelined
            && self.pipeline.bytes() < pipeline
            && self.out.len() + in_hand < outbox
    }

    fn held_bytes(&self) -> usize {
        self.out.len() + self.in_hand + self.pipeline.bytes()
    }

    /// The socket has not taken everything.
    fn hold_in_hand(&mut self, bytes: usize) {
        self.in_hand = bytes;
        self.book_held();
    }

    /// What the connection holds counts towards what all hold.
    fn book_held(&mut self) {
        self.held.tell(self.held_bytes());
    }

    /// Closes the connection if all together hold too much, and this one more than its share of it. Says whether it
    /// did.
    pub fn give_way(&mut self) -> bool {
        let is_worst = self.held.all().is_over()
            && self.phase != Phase::Closing
            && self.held_bytes() > self.held.all().share();
        if is_worst {
            self.give_up_on_client();
        }
        is_worst
    }

    /// Whether there is no memory for the reply to a read that may be long.
    fn is_too_much(&self, store: &Store, request: &Request) -> bool {
        let all = self.held.all();
        if !all.is_scarce() || is_for_one_znode(request) {
            return false;
        }
        let bytes = store.about_reply_bytes(request, &self.caller());
        bytes > SHARE_MIN && all.would_be_over(bytes)
    }

    fn caller(&self) -> Caller<'_> {
        Caller { session: self.session, watcher: self.id, ids: &self.ids }
    }

    /// Puts a reply into the outbox: what `body` writes.
    fn reply(&mut self, xid: i32, zxid: Zxid, body: impl FnOnce(&mut BytesMut)) {
        self.put_reply(ReplyHeader { xid, zxid, err: 0 }, body);
    }

    /// Puts a reply into the outbox that has no body.
    fn refuse(&mut self, xid: i32, zxid: Zxid, code: ErrorCode) {
        self.put_reply(ReplyHeader { xid, zxid, err: code.code() }, |_| {});
    }

    fn put_reply(&mut self, header: ReplyHeader, body: impl FnOnce(&mut BytesMut)) {
        if self.overflow != Overflow::None {
            return;
        }
        let before = self.out.len();
        frame::put(&mut self.out, |out| {
            header.encode(out);
            body(out);
        });
        self.batch.packets_sent += 1;
        let reply_bytes = self.out.len() - before;
        self.batch.response(reply_bytes);
        if reply_bytes > OUTBOX_PAUSE {
            self.longest_reply = self.longest_reply.max(reply_bytes);
        }
    }

    /// Puts what is to be answered here, and came as so many bytes, behind the writes in front of it.
    fn wait(&mut self, store: Option<&Store>, xid: i32, received_ns: u64, what: Turn, bytes: usize) {
        let reply_bytes = match (&what, store) {
            (Turn::Read(request), Some(store))
                if self.pipeline.len() >= UNWEIGHED || !is_for_one_znode(request) =>
            {
                store.about_reply_bytes(request, &self.caller())
            }
            _ => 0,
        };
        self.pipeline.push_read(Deferred { xid, received_ns, what }, bytes + reply_bytes);
    }

    /// Books `count` requests of one kind that were answered at `now_ns`.
    fn answered(&mut self, request: PendingWrite, zxid: Zxid, now_ns: u64, count: u32) {
        let PendingWrite { xid: cxid, op, received_ns } = request;
        let latency_ns = now_ns.saturating_sub(received_ns);
        self.batch.answered(op, latency_ns, count);
        let at_ms = (clock::unix_ns(now_ns) / 1_000_000) as i64;
        self.last = Some(Answered { op, cxid, zxid, latency_ns, at_ms });
    }

    /// Puts a watch event into the outbox, ready-made; a connection that is ending wants none.
    pub fn notify(&mut self, frame: &[u8]) {
        if self.overflow != Overflow::None || self.phase == Phase::Closing {
            return;
        }
        // Before it has grown: the last step of growing is the largest.
        if self.out.len() + frame.len() > self.outbox_limit + self.longest_reply {
            return self.give_up_on_client();
        }
        self.out.extend_from_slice(frame);
        self.batch.packets_sent += 1;
        self.book_held();
        self.give_way();
    }

    /// The node will send what is in the outbox: whether it had been told so before.
    pub fn to_be_woken(&mut self) -> bool {
        std::mem::replace(&mut self.to_be_woken, true)
    }

    fn limit_outbox(&mut self) {
        if self.out.len() > self.outbox_limit + self.longest_reply && self.phase != Phase::Closing {
            self.give_up_on_client();
        }
        self.book_held();
        self.give_way();
    }

    fn give_up_on_client(&mut self) {
        self.overflow = Overflow::Uncounted;
        tracing::warn!(
            session = %self.session,
            unsent_bytes = self.out.len(),
            "closing a connection whose client does not read its replies"
        );
        // Unlike clearing it, this gives its memory back.
        self.out = BytesMut::new();
        self.phase = Phase::Closing;
        self.book_held();
    }

    /// The node has applied the write at the head of this connection's pipeline: answers it, and runs the
    /// reads that waited for it. Returns what that answered: nothing if the write is not the head of this
    /// connection's pipeline, because its client is gone.
    pub fn answer_write(
        &mut self,
        store: &Store,
        xid: i32,
        zxid: Zxid,
        result: &Result<Response, ErrorCode>,
        now_ns: u64,
        tracer: &Tracer,
    ) -> Option<AnsweredWrite> {
        let before = self.pipeline.len();
        let write = self.pipeline.complete_write(|write| write.xid == xid)?;
        match result {
            Ok(response) => self.reply(xid, zxid, |out| response.encode(out)),
            Err(code) => self.refuse(xid, zxid, *code),
        }
        self.answered(write, zxid, now_ns, 1);
        if write.op == OpCode::CloseSession {
            self.phase = Phase::Closing;
        }
        while let Some(Deferred { xid, received_ns, what }) = self.pipeline.next_read() {
            let op = what.op();
            let latency_ns = now_ns.saturating_sub(received_ns);
            match tracer.verdict(self.session, xid, latency_ns, None) {
                Some(kept_by) => self.answer_traced(kept_by, store, xid, received_ns, what),
                None => {
                    self.answer_here(store, xid, what);
                }
            }
            self.limit_outbox();
            if let Some(op) = op {
                self.answered(PendingWrite { xid, op, received_ns }, store.last_zxid(), now_ns, 1);
                self.batch.stage(Stage::Queue, latency_ns, 1);
            }
        }
        let requests = before - self.pipeline.len();
        Some(AnsweredWrite { requests, op: write.op, received_ns: write.received_ns })
    }

    /// The write in turn was refused because its session has moved: if it is this connection's, the connection
    /// ends without an answer. Says whether it was.
    pub fn close_moved(&mut self, xid: i32) -> bool {
        let moved = self.pipeline.complete_write(|write| write.xid == xid).is_some();
        if moved {
            self.phase = Phase::Closing;
        }
        moved
    }

    /// The socket is gone: nobody waits for what is outstanding any more. Returns how much that is.
    pub fn abandon(&mut self) -> usize {
        self.phase = Phase::Closing;
        (self.out, self.in_hand) = (BytesMut::new(), 0);
        let abandoned = std::mem::take(&mut self.pipeline).len();
        self.book_held();
        abandoned
    }

    /// As [`answer_here`](Self::answer_here), for a request that is kept as a trace.
    fn answer_traced(&mut self, kept_by: KeptBy, store: &Store, xid: i32, received_ns: u64, turn: Turn) {
        let Turn::Read(request) = &turn else {
            self.answer_here(store, xid, turn);
            return;
        };
        let (op, path) = (request.op(), telemetry::request_path(request));
        let started_ns = clock::now_ns();
        let error = self.answer_here(store, xid, turn);
        self.keep(Traced {
            kept_by,
            session: self.session,
            xid,
            op,
            zxid: store.last_zxid(),
            error,
            peer: self.peer,
            path,
            received_ns,
            work: Work::Read { started_ns, ended_ns: clock::now_ns() },
            replied_ns: 0,
        });
    }

    /// A request's reply is in the outbox; its trace waits for the outbox to be written.
    pub fn keep(&mut self, traced: Traced) {
        if self.traced.len() < telemetry::MAX_ON_DESK {
            self.traced.push(traced);
        } else {
            self.untraced += 1;
        }
    }

    /// Answers a request whose turn it is. Returns the refusal, if it was refused.
    fn answer_here(&mut self, store: &Store, xid: i32, turn: Turn) -> Option<ErrorCode> {
        if self.phase == Phase::Closing {
            return None;
        }
        let zxid = store.last_zxid();
        let refused = match turn {
            Turn::Read(Request::Ping) => {
                self.reply(xid, zxid, |_| {});
                return None;
            }
            Turn::Read(request) if self.is_too_much(store, &request) => ErrorCode::ThrottledOp,
            Turn::Read(request) => match self.read(store, &request) {
                Ok(answer) => {
                    self.reply(xid, zxid, |out| answer.encode(out));
                    return None;
                }
                Err(code) => code,
            },
            Turn::Refuse(code) => code,
            Turn::Goodbye => {
                self.reply(xid, zxid, |_| {});
                self.phase = Phase::Closing;
                return None;
            }
            Turn::Unknown => {
                self.refuse(xid, Zxid(-1), ErrorCode::Unimplemented);
                self.phase = Phase::Closing;
                return Some(ErrorCode::Unimplemented);
            }
        };
        self.refuse(xid, zxid, refused);
        Some(refused)
    }

    fn read<'s>(&mut self, store: &'s Store, request: &Request) -> Result<Answer<'s>, ErrorCode> {
        let mut missed = Vec::new();
        let result = store.read(request, &self.caller(), &mut missed);
        for event in &missed {
            // Catch-up events carry no zxid: what they tell of may be several transactions.
            put_notification(&mut self.out, Zxid(-1), event);
        }
        result
    }

    /// Answers an auth packet at once, outside of the pipeline, as Apache's server does: its reply may
    /// overtake those of earlier writes. It carries the packet's xid, whatever that is: not every client says −4.
    fn authenticate(&mut self, shared: &Shared, address: &str, xid: i32, body: &[u8]) {
        let added = match Request::decode(OpCode::Auth, body) {
            Ok(Request::Auth(packet)) => {
                acl::authenticate(&packet.scheme, packet.auth.as_deref(), address, shared.digest_scheme())
            }
            _ => Err(ErrorCode::MarshallingError),
        };
        match added.and_then(|added| acl::with_ids(&self.ids, added)) {
            Ok(all) => {
                if let Some(all) = all {
                    self.ids = all.into();
                }
                self.reply(xid, Zxid(0), |_| {});
            }
            Err(_) => {
                shared.stats.add(Counter::AuthFailures, 1);
                self.refuse(xid, Zxid(0), ErrorCode::AuthFailed);
                self.phase = Phase::Closing;
            }
        }
    }
}

/// Whether a read asks for one znode's data, status or nothing: its reply is no longer than the znode, and quickly
/// made.
fn is_for_one_znode(request: &Request) -> bool {
    matches!(request, Request::GetData(_) | Request::Exists(_) | Request::Ping | Request::Sync(_))
}

/// Appends a watch event's frame.
pub fn put_notification(out: &mut BytesMut, zxid: Zxid, event: &WatcherEvent) {
    frame::put(out, |out| {
        ReplyHeader { xid: xid::NOTIFICATION, zxid, err: 0 }.encode(out);
        event.encode(out);
    });
}
