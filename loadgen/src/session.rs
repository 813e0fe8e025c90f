//! A client's session as a pure machine: bytes in, bytes out; no sockets, no clock, no tasks.
//!
//! The owner opens a connection, calls [`Session::connect`], writes what appears in the out buffer, and feeds what
//! arrives to [`Session::receive`]. Requests are appended to the out buffer by [`Session::submit`]; each carries a tag
//! of the owner's choice that comes back with the reply.
//!
//! Invariants:
//! - xids go up by one per request and never start again, whatever happens to its connections, nor when a new session follows one
//!   that expired: a session's number in the run and an xid name one request;
//! - replies are matched first in, first out; a reply out of turn is a broken promise and ends the connection;
//! - the zxid of replies never goes down within a session; if it does, that is recorded as a broken promise;
//! - when a connection is lost every outstanding tag is handed back exactly once: the outcome is unknown;
//! - one-shot watches that have not fired, and persistent ones, are set again with the first request of the next
//!   connection, in frames of at most [`SET_WATCHES_BYTES`] of paths.
//!
//! It does not retry, choose servers, or time anything but pings. Read-only servers are refused (the readOnly
//! byte says false). Sources: `ClientCnxn.java`, reference sections 2 and 4.

use crate::credentials::Credentials;
use crate::promises::Promise;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use zoometry_wire::frame;
use zoometry_wire::jute::{Reader, Record};
use zoometry_wire::records::{
    ConnectRequest, ConnectResponse, EventType, ReadOnlyByte, ReplyHeader, RequestHeader, xid,
};
use zoometry_wire::request::SetWatches;
use zoometry_wire::{ErrorCode, Malformed, OpCode, Request, SessionId, Zxid};

/// Most bytes of paths in one setWatches frame, as the Java client does.
pub const SET_WATCHES_BYTES: usize = 128 * 1024;

/// Longest reply taken: a list of children can be much longer than the longest request. Memory is taken as bytes
/// arrive, not as they are announced.
pub const MAX_REPLY: usize = 64 << 20;

/// Bytes of a session password.
pub const PASSWORD: usize = 16;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No connection.
    Disconnected,
    /// The connect frame has been written; no answer yet.
    Connecting,
    /// Requests may be submitted.
    Attached,
    /// The cluster said that the session is over.
    Expired,
    /// We ended it.
    Closed,
}

/// A reply matched to its request.
#[derive(Debug)]
pub struct Reply<'a, T> {
    /// What the owner gave with the request.
    pub tag: T,
    /// What was asked.
    pub op: OpCode,
    /// The request's number.
    pub xid: i32,
    /// The server's last zxid; a write's own.
    pub zxid: Zxid,
    /// The highest zxid that the session had seen before this reply.
    pub seen: Zxid,
    /// 0, or an error number as it stood on the wire.
    pub err: i32,
    /// The body; empty on an error.
    pub body: &'a [u8],
}

/// What a session reports.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// The connection is attached to the session; requests may be submitted.
    Attached {
        /// The session existed before this connection.
        again: bool,
    },
    /// The cluster said that the session is over; nothing more will come.
    Expired,
    /// The server attached the connection to another session than was asked for, without a word that it is over. The
    /// next event is [`Event::Attached`], to the new one.
    Replaced,
    /// A request was answered.
    Reply(Reply<'a, T>),
    /// A watch fired.
    Watch {
        /// What happened.
        kind: EventType,
        /// The znode.
        path: &'a str,
        /// The transaction; −1 where the server does not tell (before 3.9, and for changes missed while away).
        zxid: Zxid,
    },
    /// The watches of the previous connection stand again.
    WatchesSet,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame longer than allowed.
    #[error(transparent)]
    TooLong(#[from] frame::TooLong),
    /// Bytes that are not the record that was due.
    #[error("the server sent a {0}")]
    Malformed(#[from] Malformed),
    /// A reply that is not the next one due.
    #[error("the server answered xid {got} when {expected:?} was due")]
    OutOfOrder {
        /// The oldest outstanding request; `None` if there was none.
        expected: Option<i32>,
        /// What came.
        got: i32,
    },
    /// The server does not take what the session says it is.
    #[error("the server does not take the credentials (error {0}); is their scheme known there?")]
    AuthFailed(i32),
}

/// Promises of ZooKeeper that this session saw broken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokenPromises {
    /// Replies that were not the next one due.
    pub out_of_order: u64,
    /// Replies with a zxid below one seen earlier in the session.
    pub zxid_went_back: u64,
    /// Connections that were attached to another session than the one that came back.
    pub replaced: u64,
    /// The first breach of each kind, in words.
    pub first: BTreeMap<Promise, String>,
}

impl BrokenPromises {
    /// How often each was broken.
    pub fn counts(&self) -> [(Promise, u64); 3] {
        [
            (Promise::OutOfOrder, self.out_of_order),
            (Promise::ZxidWentBack, self.zxid_went_back),
            (Promise::SessionReplaced, self.replaced),
        ]
    }
}

/// What kind of watch a request leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchKind {
    /// One-shot, on data: getData, or exists on a znode that is there.
    Data,
    /// One-shot, on a znode that was not there.
    Exist,
    /// One-shot, on children.
    Child,
    /// Persistent.
    Persistent,
    /// Persistent, with all descendants.
    Recursive,
}

impl WatchKind {
    const ALL: [WatchKind; 5] =
        [WatchKind::Data, WatchKind::Exist, WatchKind::Child, WatchKind::Persistent, WatchKind::Recursive];
}

#[derive(Debug)]
struct Pending<T> {
    xid: i32,
    op: OpCode,
    tag: T,
    /// What the request does to the session's watches if the server agrees. Boxed: nearly no request has one.
    watch: Option<Box<WatchChange>>,
}

/// What a request does to the session's watches.
#[derive(Debug)]
pub enum WatchChange {
    /// It leaves a watch.
    Sets(WatchKind, String),
    /// It takes away every watch on the path.
    Removes(String),
}

/// The session. `T` is the owner's tag on each request.
#[derive(Debug)]
pub struct Session<T> {
    state: State,
    asked_timeout_ms: i32,
    timeout_ms: i32,
    id: SessionId,
    password: [u8; PASSWORD],
    last_zxid: Zxid,
    last_xid: i32,
    pending: VecDeque<Pending<T>>,
    watches: BTreeSet<(WatchKind, String)>,
    broken: BrokenPromises,
    last_sent_ns: u64,
    last_heard_ns: u64,
    credentials: Credentials,
}

/// What [`Session::tick`] wants of the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Nothing to do.
    Quiet,
    /// A ping was appended to the out buffer.
    Ping,
    /// Nothing was heard for two thirds of the session timeout: drop the connection.
    Silent,
}

impl<T> Session<T> {
    /// A session that does not exist yet; it asks for `timeout_ms`.
    pub fn new(timeout_ms: i32) -> Self {
        Self {
            state: State::Disconnected,
            asked_timeout_ms: timeout_ms,
            timeout_ms,
            id: SessionId(0),
            password: [0; PASSWORD],
            last_zxid: Zxid(0),
            last_xid: 0,
            pending: VecDeque::new(),
            watches: BTreeSet::new(),
            broken: BrokenPromises::default(),
            last_sent_ns: 0,
            last_heard_ns: 0,
            credentials: Credentials::default(),
        }
    }

    /// The same, and it says on every connection who it is.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The session's name; 0 before the first connect.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The timeout agreed with the server, or asked for before that, ms.
    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    /// The highest zxid seen in any reply.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// Requests without a reply.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// The tags of requests without a reply, oldest first.
    pub fn awaited(&self) -> impl Iterator<Item = &T> {
        self.pending.iter().map(|pending| &pending.tag)
    }

    /// The promises that this session saw broken, over all its connections.
    pub fn broken(&self) -> &BrokenPromises {
        &self.broken
    }

    /// Begins a connection: appends the connect frame. A session that exists is re-attached with its id and
    /// password; one that has expired or was closed begins anew, with a new id and no watches.
    pub fn connect(&mut self, now_ns: u64, out: &mut BytesMut) {
        debug_assert!(self.pending.is_empty(), "disconnected() hands tags back before the next connect");
        if matches!(self.state, State::Expired | State::Closed) {
            self.id = SessionId(0);
            self.password = [0; PASSWORD];
            self.last_zxid = Zxid(0);
            self.watches.clear();
        }
        self.state = State::Connecting;
        self.last_heard_ns = now_ns;
        self.last_sent_ns = now_ns;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.asked_timeout_ms,
            session_id: self.id,
            password: Some(Bytes::copy_from_slice(&self.password)),
        };
        frame::put(out, |out| request.encode_frame(ReadOnlyByte::Present(false), out));
        // Servers take them in order: before any request that needs them.
        self.credentials.put(out);
    }

    /// Appends a request; `body` writes what follows the header. Returns the xid.
    pub fn submit(
        &mut self,
        op: OpCode,
        tag: T,
        out: &mut BytesMut,
        body: impl FnOnce(&mut BytesMut),
    ) -> i32 {
        self.submit_watching(op, tag, None, out, body)
    }

    /// The xid of the next request.
    #[inline]
    pub fn next_xid(&self) -> i32 {
        // Negative numbers have meanings of their own, and 0 is nobody's.
        if self.last_xid == i32::MAX { 1 } else { self.last_xid + 1 }
    }

    /// As [`submit`](Self::submit), for a request that leaves a watch, which is set again after a reconnect, or takes one away.
    pub fn submit_watching(
        &mut self,
        op: OpCode,
        tag: T,
        watch: Option<WatchChange>,
        out: &mut BytesMut,
        body: impl FnOnce(&mut BytesMut),
    ) -> i32 {
        assert_eq!(self.state, State::Attached, "requests need an attached session");
        let xid = self.next_xid();
        self.last_xid = xid;
        self.pending.push_back(Pending { xid, op, tag, watch: watch.map(Box::new) });
        frame::put(out, |out| {
            RequestHeader { xid, op: op.code() }.encode(out);
            body(out);
        });
        xid
    }

    /// Says that what was appended so far is being written now, so that pings fall due from here.
    pub fn wrote(&mut self, now_ns: u64) {
        self.last_sent_ns = now_ns;
    }

    /// Appends closeSession; the server answers and closes the connection.
    pub fn close(&mut self, tag: T, out: &mut BytesMut) {
        self.submit(OpCode::CloseSession, tag, out, |_| {});
    }

    /// Takes what arrived and reports what it means. Returns how many bytes were whole frames; the rest must
    /// be shown again with more behind it. After an error the connection must be dropped.
    pub fn receive(
        &mut self,
        now_ns: u64,
        input: &[u8],
        mut report: impl FnMut(Event<'_, T>),
    ) -> Result<usize, ProtocolError> {
        self.last_heard_ns = now_ns;
        let mut taken = 0;
        while let Some(body) = frame::first(&input[taken..], MAX_REPLY)? {
            taken += frame::PREFIX + body.len();
            match self.state {
                State::Connecting => self.connected(body, &mut report)?,
                State::Attached => self.frame(body, &mut report)?,
                // The server's last frame stands; anything behind it has no meaning.
                State::Disconnected | State::Expired | State::Closed => break,
            }
        }
        Ok(taken)
    }

    fn connected(&mut self, body: &[u8], report: &mut impl FnMut(Event<'_, T>)) -> Result<(), ProtocolError> {
        let (response, _) = ConnectResponse::decode_frame(body)?;
        if response.timeout_ms <= 0 || response.session_id.0 == 0 {
            self.state = State::Expired;
            report(Event::Expired);
            return Ok(());
        }
        let password = response.password.unwrap_or_default();
        if password.len() != PASSWORD {
            return Err(Reader::new(body).malformed("session password").into());
        }
        let again = self.id == response.session_id;
        if !again && self.id.0 != 0 {
            let (before, now) = (self.id, response.session_id);
            self.broken.replaced += 1;
            self.broken.first.entry(Promise::SessionReplaced).or_insert_with(|| {
                format!("session {before} came back and was given the new session {now}, not told that it had expired")
            });
            // Its ephemerals and watches went with it, and the new one has seen nothing yet.
            self.last_zxid = Zxid(0);
            self.watches.clear();
            report(Event::Replaced);
        }
        self.id = response.session_id;
        self.timeout_ms = response.timeout_ms;
        self.password.copy_from_slice(&password);
        self.state = State::Attached;
        report(Event::Attached { again });
        Ok(())
    }

    fn frame(&mut self, body: &[u8], report: &mut impl FnMut(Event<'_, T>)) -> Result<(), ProtocolError> {
        let mut input = Reader::new(body);
        let header = ReplyHeader::decode(&mut input)?;
        match header.xid {
            xid::NOTIFICATION => return self.notification(header.zxid, &mut input, report),
            xid::AUTH if header.err != 0 => return Err(ProtocolError::AuthFailed(header.err)),
            xid::AUTH => return Ok(()),
            xid::PING => self.saw(header.zxid, header.xid),
            xid::SET_WATCHES => {
                self.saw(header.zxid, header.xid);
                report(Event::WatchesSet);
            }
            got => {
                if self.pending.front().is_none_or(|next| next.xid != got) {
                    let expected = self.pending.front().map(|next| next.xid);
                    let error = ProtocolError::OutOfOrder { expected, got };
                    self.broken.out_of_order += 1;
                    self.broken
                        .first
                        .entry(Promise::OutOfOrder)
                        .or_insert_with(|| format!("session {}: {error}", self.id));
                    return Err(error);
                }
                let pending = self.pending.pop_front().expect("the front was just looked at");
                let seen = self.last_zxid;
                self.saw(header.zxid, header.xid);
                if let Some(watch) = pending.watch {
                    self.changes_watches(*watch, header.err);
                }
                if pending.op == OpCode::CloseSession {
                    self.state = State::Closed;
                }
                report(Event::Reply(Reply {
                    tag: pending.tag,
                    op: pending.op,
                    xid: pending.xid,
                    zxid: header.zxid,
                    seen,
                    err: header.err,
                    body: input.rest(),
                }));
            }
        }
        Ok(())
    }

    fn notification(
        &mut self,
        zxid: Zxid,
        input: &mut Reader<'_>,
        report: &mut impl FnMut(Event<'_, T>),
    ) -> Result<(), ProtocolError> {
        let start = input.clone();
        let code = i32::decode(input)?;
        let _state = i32::decode(input)?;
        let path = input.str()?;
        let Some(kind) = EventType::from_code(code) else {
            return Err(start.malformed("event type").into());
        };
        let gone: &[WatchKind] = match kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[WatchKind::Data, WatchKind::Exist],
            EventType::NodeDeleted => &[WatchKind::Data, WatchKind::Exist, WatchKind::Child],
            EventType::NodeChildrenChanged => &[WatchKind::Child],
        };
        if !self.watches.is_empty() {
            for kind in gone {
                self.watches.remove(&(*kind, path.to_owned()));
            }
        }
        report(Event::Watch { kind, path, zxid });
        Ok(())
    }

    /// Remembers a watch if the server set it: exists leaves one even where there is no znode. Forgets those that are not
    /// wanted any more, whatever the server says of them: they must not be set again.
    fn changes_watches(&mut self, change: WatchChange, err: i32) {
        let missing = err == ErrorCode::NoNode.code();
        match change {
            WatchChange::Sets(WatchKind::Exist, path) if err == 0 => {
                self.watches.insert((WatchKind::Data, path));
            }
            WatchChange::Sets(WatchKind::Exist, path) if missing => {
                self.watches.insert((WatchKind::Exist, path));
            }
            WatchChange::Sets(kind, path) if err == 0 => {
                self.watches.insert((kind, path));
            }
            WatchChange::Sets(..) => {}
            WatchChange::Removes(path) => {
                for kind in WatchKind::ALL {
                    self.watches.remove(&(kind, path.clone()));
                }
            }
        }
    }

    /// Checks that zxids never go down. Requests that fail before the pipeline are answered with −1 or 0.
    fn saw(&mut self, zxid: Zxid, xid: i32) {
        if zxid.0 <= 0 {
            return;
        }
        if zxid < self.last_zxid {
            self.broken.zxid_went_back += 1;
            let seen = self.last_zxid;
            let session = self.id;
            self.broken.first.entry(Promise::ZxidWentBack).or_insert_with(|| {
                format!("session {session}: zxid {zxid} in the reply to xid {xid}, after {seen}")
            });
            return;
        }
        self.last_zxid = zxid;
    }

    /// The connection is gone. Hands back every outstanding tag with its operation and xid, oldest first: whether those requests took
    /// effect is unknown.
    pub fn disconnected(&mut self, mut lost: impl FnMut(T, OpCode, i32)) {
        if matches!(self.state, State::Connecting | State::Attached) {
            self.state = State::Disconnected;
        }
        for pending in std::mem::take(&mut self.pending) {
            // A connection's watches end with it, and this one is not to be set again.
            if let Some(watch) = pending.watch
                && let WatchChange::Removes(_) = *watch
            {
                self.changes_watches(*watch, 0);
            }
            lost(pending.tag, pending.op, pending.xid);
        }
    }

    /// Appends setWatches for everything that stood when the connection was lost. Call it once, when
    /// [`Event::Attached`] has said `again`, before any request.
    pub fn set_watches(&mut self, out: &mut BytesMut) {
        let mut batch = SetWatches { relative_zxid: self.last_zxid, ..Default::default() };
        let mut bytes = 0;
        for (kind, path) in &self.watches {
            bytes += path.len() + 4;
            match kind {
                WatchKind::Data => &mut batch.data,
                WatchKind::Exist => &mut batch.exist,
                WatchKind::Child => &mut batch.child,
                WatchKind::Persistent => &mut batch.persistent,
                WatchKind::Recursive => &mut batch.recursive,
            }
            .push(path.clone());
            if bytes >= SET_WATCHES_BYTES {
                let next = SetWatches { relative_zxid: self.last_zxid, ..Default::default() };
                put_set_watches(std::mem::replace(&mut batch, next), out);
                bytes = 0;
            }
        }
        if bytes > 0 {
            put_set_watches(batch, out);
        }
    }

    /// Forgets every watch: none is set again after a reconnect.
    pub fn forget_watches(&mut self) {
        self.watches.clear();
    }

    /// Keeps the session alive: a ping when nothing was written for a third of the timeout.
    pub fn tick(&mut self, now_ns: u64, out: &mut BytesMut) -> Tick {
        let third_ns = self.timeout_ms.max(3) as u64 * 1_000_000 / 3;
        match self.state {
            State::Connecting | State::Attached
                if now_ns.saturating_sub(self.last_heard_ns) > 2 * third_ns =>
            {
                Tick::Silent
            }
            State::Attached if now_ns.saturating_sub(self.last_sent_ns) >= third_ns => {
                frame::put(out, |out| {
                    RequestHeader { xid: xid::PING, op: OpCode::Ping.code() }.encode(out);
                });
                self.last_sent_ns = now_ns;
                Tick::Ping
            }
            _ => Tick::Quiet,
        }
    }
}

fn put_set_watches(batch: SetWatches, out: &mut BytesMut) {
    // Servers before 3.6 know only the first form, so it is used whenever it will do.
    let request = if batch.persistent.is_empty() && batch.recursive.is_empty() {
        Request::SetWatches(batch)
    } else {
        Request::SetWatches2(batch)
    };
    frame::put(out, |out| {
        RequestHeader { xid: xid::SET_WATCHES, op: request.op().code() }.encode(out);
        request.encode(out);
    });
}

#[cfg(test)]
mod tests;
