//! What a client's bytes come to: reads are answered on the spot, writes are handed to the node, and what has to
//! wait for a write is put behind it.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use parking_lot::RwLockReadGuard;
use zoometry_replica::store::Store;
use zoometry_spans::KeptBy;
use zoometry_wire::records::{RequestHeader, xid};
use zoometry_wire::{ErrorCode, Id, OpCode, Record, Request, Zxid, frame};

use super::socket::End;
use super::{Conn, Desk, PendingWrite, Phase, Turn};
use crate::clock;
use crate::handshake;
use crate::node::{FromClient, NodeEvent, Submission, Write};
use crate::shared::Shared;
use crate::stats::Stage;
use crate::telemetry::{Traced, Tracer, Work};
use crate::view::Mode;

/// Handles every whole message in `input`, as far as the connection may go now.
pub(super) fn digest(shared: &Arc<Shared>, conn: &Arc<Conn>, input: &mut BytesMut) -> Option<End> {
    let phase = conn.desk().phase;
    match phase {
        Phase::New => match handshake::first_bytes(shared, conn, input) {
            Ok(()) => None,
            Err(why) => Some(End::Garbage(why)),
        },
        Phase::Open => requests(shared, conn, input).err().map(|error| End::Garbage(error.to_string())),
        Phase::Opening | Phase::Closing => None,
    }
}

/// Answers the reads and hands on the writes among the frames that have arrived whole.
fn requests(shared: &Arc<Shared>, conn: &Arc<Conn>, input: &mut BytesMut) -> Result<(), frame::TooLong> {
    let limit = shared.config.requests.max_frame_bytes;
    if frame::first(input, limit)?.is_none() {
        return Ok(());
    }
    // Writes alone need no look at the store; they do not wait while others are applied.
    if are_writes(input, limit) && take_in(shared, conn, input, None)? == Taken::All {
        return Ok(());
    }
    take_in(shared, conn, input, Some(shared.store.read())).map(|_| ())
}

/// How far [`take_in`] has come.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// As far as the connection may go now.
    All,
    /// What is next cannot be answered without the store.
    UpToOneThatNeedsTheStore,
}

/// How long the reads of one connection keep the store to themselves; those that are left come after others.
const READ_SLICE_NS: u64 = 2_000_000;

/// After so many reads of one znode each the clock is looked at, and after every other read.
const READS_PER_LOOK: u32 = 64;

/// The time that reads have the store's lock.
struct Slice {
    ends_ns: u64,
    until_look: u32,
}

impl Slice {
    fn new(began_ns: u64) -> Self {
        Self { ends_ns: began_ns + READ_SLICE_NS, until_look: READS_PER_LOOK }
    }

    /// One more request was answered: whether that was enough.
    fn is_over(&mut self, op: i32) -> bool {
        let is_short = matches!(OpCode::from_code(op), Some(OpCode::GetData | OpCode::Exists | OpCode::Ping));
        self.until_look = if is_short { self.until_look - 1 } else { 0 };
        if self.until_look > 0 {
            return false;
        }
        self.until_look = READS_PER_LOOK;
        clock::now_ns() >= self.ends_ns
    }
}

/// Takes requests in, as far as the connection may go now: one desk lock, and at most one read lock, for all that
/// has arrived.
fn take_in(
    shared: &Arc<Shared>,
    conn: &Arc<Conn>,
    input: &mut BytesMut,
    store: Option<RwLockReadGuard<'_, Store>>,
) -> Result<Taken, frame::TooLong> {
    let limit = shared.config.requests.max_frame_bytes;
    let received_ns = clock::now_ns();
    let mut writes = Vec::new();
    let mut arrived = 0u64;
    let mut consumed = 0;
    let mut taken = Ok(Taken::All);
    let mut reads = Reads::default();
    let mut desk = conn.desk();
    if !shared.sessions.lock().touch(desk.session, received_ns / 1_000_000) {
        // The session is over or being closed: its requests are dropped; the close will follow.
        input.clear();
        return Ok(Taken::All);
    }
    desk.heard_ns = received_ns;
    let locked = store;
    let store = locked.as_deref();
    if let Some(store) = store {
        store.warm(read_paths(input, limit));
    }
    let waiting_before = desk.pipeline.len();
    let most = shared.config.own.max_pipelined;
    let mut slice = Slice::new(received_ns);
    while desk.phase == Phase::Open {
        if !desk.has_room(most, 0) {
            // The node may have put something there since the task looked: it must say so when that is sent.
            desk.is_read = false;
            break;
        }
        let body = match frame::first(&input[consumed..], limit) {
            Ok(Some(body)) => body,
            Ok(None) => break,
            Err(error) => {
                taken = Err(error);
                break;
            }
        };
        match take_request(shared, conn, &mut desk, store, body, received_ns, &mut reads) {
            Took::Request => {}
            Took::Write(write) => writes.push(write),
            Took::Nothing => {
                taken = Ok(Taken::UpToOneThatNeedsTheStore);
                break;
            }
        }
        consumed += frame::PREFIX + body.len();
        arrived += 1;
        if store.is_some() && slice.is_over(operation(body)) {
            break;
        }
    }
    if let Some(store) = store {
        reads.book(&mut desk, store, received_ns, &shared.tracer);
    }
    desk.batch.packets_received += arrived;
    desk.batch.bytes_received += consumed as u64;
    desk.book_held();
    let waiting = desk.pipeline.len() - waiting_before;
    let (session, ids) = (desk.session, Arc::clone(&desk.ids));
    drop(desk);
    drop(locked);
    input.advance(consumed);
    shared.stats.outstanding_add(waiting as i64);
    if !writes.is_empty() {
        let submission = Submission { conn: Arc::clone(conn), session, ids, writes, received_ns };
        shared.node.send(NodeEvent::Client(FromClient::Submit(submission)));
    }
    taken
}

/// The number of a request's operation; it stands behind the xid.
fn operation(body: &[u8]) -> i32 {
    body.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |op| i32::from_be_bytes(*op))
}

/// Whether nothing but writes has arrived.
fn are_writes(mut input: &[u8], limit: usize) -> bool {
    while let Ok(Some(body)) = frame::first(input, limit) {
        input = &input[frame::PREFIX + body.len()..];
        let header = RequestHeader::from_bytes(body);
        let is_write = |op| OpCode::from_code(op).is_some_and(OpCode::is_write);
        if !header.is_ok_and(|header| is_write(header.op)) {
            return false;
        }
    }
    true
}

/// The paths that the reads among these frames ask for, as they stand there: what [`Store::warm`] wants to know.
fn read_paths(mut input: &[u8], limit: usize) -> impl Iterator<Item = &str> {
    /// Behind the header (xid and operation) stands the length of the path, for nearly every operation.
    const PATH_AT: usize = 12;
    let bodies = std::iter::from_fn(move || {
        let body = frame::first(input, limit).ok()??;
        input = &input[frame::PREFIX + body.len()..];
        Some(body)
    });
    bodies.filter_map(|body| {
        let header = RequestHeader::from_bytes(body).ok()?;
        // Writes are for the node, which does the same in its own turn.
        if OpCode::from_code(header.op)?.is_write() {
            return None;
        }
        let length = i32::from_be_bytes(*body.get(PATH_AT - 4..)?.first_chunk()?).max(0) as usize;
        std::str::from_utf8(body.get(PATH_AT..PATH_AT.saturating_add(length))?).ok()
    })
}

/// The reads answered in one go, counted by kind: they share their times, so they share their bookings.
#[derive(Default)]
struct Reads {
    kinds: Vec<(OpCode, i32, u32)>,
}

impl Reads {
    fn count(&mut self, xid: i32, turn: &Turn) {
        let Some(op) = turn.op() else { return };
        match self.kinds.iter_mut().find(|(kind, ..)| *kind == op) {
            Some((_, last_xid, count)) => (*last_xid, *count) = (xid, *count + 1),
            None => self.kinds.push((op, xid, 1)),
        }
    }

    fn book(self, desk: &mut Desk, store: &Store, received_ns: u64, tracer: &Tracer) {
        if self.kinds.is_empty() {
            return;
        }
        let now_ns = clock::now_ns();
        for (op, xid, count) in self.kinds {
            // They share their times: of a slow run one of each kind is kept. Those that are kept for their
            // ids are on the desk already.
            let verdict = tracer.verdict(desk.session, xid, now_ns.saturating_sub(received_ns), None);
            if verdict == Some(KeptBy::Slow) {
                desk.keep(Traced {
                    kept_by: KeptBy::Slow,
                    session: desk.session,
                    xid,
                    op,
                    zxid: store.last_zxid(),
                    error: None,
                    peer: desk.peer,
                    path: None,
                    received_ns,
                    work: Work::Read { started_ns: received_ns, ended_ns: now_ns },
                    replied_ns: 0,
                });
            }
            desk.answered(PendingWrite { xid, op, received_ns }, store.last_zxid(), now_ns, count);
            desk.batch.stage(Stage::Read, now_ns - received_ns, count);
        }
    }
}

/// What became of a request.
enum Took {
    /// It is answered, or waits in the pipeline.
    Request,
    /// It is to be submitted.
    Write(Write),
    /// It can only be answered with the store at hand; nothing was done.
    Nothing,
}

/// One request: answered into the outbox, put behind the writes in front of it, or returned to be submitted.
fn take_request(
    shared: &Shared,
    conn: &Conn,
    desk: &mut Desk,
    store: Option<&Store>,
    body: &[u8],
    received_ns: u64,
    reads: &mut Reads,
) -> Took {
    let mut input = zoometry_wire::Reader::new(body);
    let Ok(RequestHeader { xid, op }) = RequestHeader::decode(&mut input) else {
        desk.phase = Phase::Closing;
        return Took::Request;
    };
    let is_auth = OpCode::from_code(op) == Some(OpCode::Auth);
    if !is_auth && !is_admitted(&desk.ids, &shared.config.auth.enforced_schemes) {
        desk.refuse(xid, Zxid(0), ErrorCode::SessionClosedRequireSaslAuth);
        desk.phase = Phase::Closing;
        return Took::Request;
    }
    match sort(op, input.rest(), shared.mode()) {
        Arrival::Auth => desk.authenticate(shared, &conn.address(), xid, input.rest()),
        Arrival::Here(turn) => {
            let xid = if matches!(turn, Turn::Read(Request::Ping)) { xid::PING } else { xid };
            match store {
                _ if !desk.pipeline.is_clear() => {
                    desk.wait(store, xid, received_ns, turn, body.len());
                }
                None => return Took::Nothing,
                Some(store) => {
                    reads.count(xid, &turn);
                    if shared.tracer.keeps(desk.session, xid) {
                        desk.answer_traced(KeptBy::Head, store, xid, received_ns, turn);
                    } else {
                        desk.answer_here(store, xid, turn);
                    }
                }
            }
        }
        Arrival::Write(request) => {
            // Behind writes of its own the ACL may be another one by then: that is for the leader to see.
            if shared.config.requests.eager_acl_check && desk.pipeline.is_clear() {
                let Some(store) = store else { return Took::Nothing };
                if let Err(code) = store.eager_acl_check(&request, &desk.ids) {
                    desk.refuse(xid, store.last_zxid(), code);
                    return Took::Request;
                }
            }
            desk.pipeline.push_write(PendingWrite { xid, op: request.op(), received_ns }, body.len());
            return Took::Write(Write { xid, request });
        }
    }
    Took::Request
}

/// What a frame's request comes to.
enum Arrival {
    Auth,
    Here(Turn),
    Write(Request),
}

/// Sorts a request: is it answered here, or does it go through the log? Bad input is found here, at the
/// member that received it, before it could reach a leader (reference §3.12).
fn sort(op: i32, body: &[u8], mode: Option<Mode>) -> Arrival {
    let Some(op) = OpCode::from_code(op) else { return Arrival::Here(Turn::Unknown) };
    match op {
        OpCode::Auth => return Arrival::Auth,
        OpCode::Notification | OpCode::Error | OpCode::Check | OpCode::CreateSession => {
            return Arrival::Here(Turn::Unknown);
        }
        OpCode::DeleteContainer => return Arrival::Here(Turn::Refuse(ErrorCode::Unimplemented)),
        _ => {}
    }
    match Request::decode(op, body) {
        Err(_) => Arrival::Here(Turn::Refuse(ErrorCode::MarshallingError)),
        Ok(Request::Sasl(_)) => Arrival::Here(Turn::Refuse(ErrorCode::AuthFailed)),
        Ok(request) if request.has_bad_ttl() => Arrival::Here(Turn::Refuse(ErrorCode::BadArguments)),
        Ok(Request::CloseSession) if mode == Some(Mode::ReadOnly) => Arrival::Here(Turn::Goodbye),
        Ok(_) if mode == Some(Mode::ReadOnly) && (op.is_write() || op == OpCode::Sync) => {
            Arrival::Here(Turn::Refuse(ErrorCode::NotReadOnly))
        }
        Ok(request) if op.is_write() => Arrival::Write(request),
        // A learner's leader says when everything before is committed; a leader knows by itself.
        Ok(request) if op == OpCode::Sync && mode.is_some_and(Mode::is_learner) => Arrival::Write(request),
        Ok(request) => Arrival::Here(Turn::Read(request)),
    }
}

/// Whether the client has shown to be one of those who may ask for anything: `enforce.auth.schemes`, if any.
/// Source: `AuthenticationHelper.java`; reference §2.10.
fn is_admitted(ids: &[Id], enforced: &[String]) -> bool {
    enforced.is_empty() || ids.iter().any(|id| enforced.contains(&id.scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One slow read ends a slice that is over; short ones are too quick for a look at the clock each.
    #[test]
    fn the_store_is_let_go_when_a_slice_is_over() {
        let long_ago_ns = clock::now_ns().saturating_sub(2 * READ_SLICE_NS);
        let is_over = |slice: &mut Slice, op: OpCode| slice.is_over(op.code());
        assert!(is_over(&mut Slice::new(long_ago_ns), OpCode::GetAllChildrenNumber));
        let mut slice = Slice::new(long_ago_ns);
        let looked = (1..=2 * READS_PER_LOOK).find(|_| is_over(&mut slice, OpCode::GetData));
        assert_eq!(looked, Some(READS_PER_LOOK));
        let mut fresh = Slice::new(clock::now_ns() + 60_000_000_000);
        assert!((0..1000).all(|_| !is_over(&mut fresh, OpCode::MultiRead)));
    }
}
