//! The statistics of one connection: what `cons` shows.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use zoometry_wire::{OpCode, SessionId, Zxid};

use super::{Batch, Latency};

/// How long a connection without a session is waited for, for `dump`: `nio.sessionlessCnxnTimeout`'s default.
const SESSIONLESS_MS: i64 = 10_000;

/// The statistics of one connection, for `cons`. Its task writes, once per batch; anyone may read.
#[derive(Debug)]
pub struct ConnStats {
    established_ms: i64,
    received: AtomicU64,
    sent: AtomicU64,
    queued: AtomicI64,
    session: AtomicI64,
    timeout_ms: AtomicI64,
    last: Mutex<LastRequest>,
}

#[derive(Debug, Clone, Copy, Default)]
struct LastRequest {
    op: Option<OpCode>,
    cxid: i64,
    zxid: i64,
    response_ms: i64,
    latency_ns: u64,
    latency: Latency,
}

/// What `cons` shows of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnView {
    /// The client's address.
    pub remote: std::net::SocketAddr,
    /// Apache shows the selector's interest bits here: 0 while reading from it is paused, 1 otherwise.
    pub interest_ops: u8,
    /// Requests in process.
    pub queued: i64,
    /// Requests received.
    pub received: u64,
    /// Replies and events sent.
    pub sent: u64,
    /// When it is closed unless something is heard, ms since the Unix epoch.
    pub closes_if_silent_ms: i64,
    /// The session, once there is one.
    pub session: Option<ConnSession>,
}

/// The part of [`ConnView`] that exists once the connection has a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnSession {
    /// The session.
    pub id: SessionId,
    /// The last request's kind; `None` before the first.
    pub last_op: Option<OpCode>,
    /// When the connection was accepted, ms since the Unix epoch.
    pub established_ms: i64,
    /// The negotiated timeout, ms.
    pub timeout_ms: i64,
    /// The last request's xid; `None` before the first.
    pub last_cxid: Option<i64>,
    /// The last reply's zxid; −1 for none.
    pub last_zxid: Zxid,
    /// When the last reply was sent, ms since the Unix epoch (0 before the first). Apache shows its monotonic
    /// clock here; either way only differences mean anything to tools.
    pub last_response_ms: i64,
    /// The last request's latency, ms.
    pub last_latency_ms: u64,
    /// Least, ms.
    pub min_latency_ms: u64,
    /// Mean, whole ms.
    pub avg_latency_ms: u64,
    /// Greatest, ms.
    pub max_latency_ms: u64,
}

/// The last request of a batch, as [`ConnStats::record`] takes it.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Its kind.
    pub op: OpCode,
    /// Its xid.
    pub cxid: i32,
    /// Its reply's zxid.
    pub zxid: Zxid,
    /// Its latency.
    pub latency_ns: u64,
    /// When the reply was sent, ms since the Unix epoch.
    pub at_ms: i64,
}

impl ConnStats {
    /// A connection accepted at `now_ms` (since the Unix epoch).
    pub fn new(now_ms: i64) -> Self {
        Self {
            established_ms: now_ms,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            queued: AtomicI64::new(0),
            session: AtomicI64::new(0),
            timeout_ms: AtomicI64::new(0),
            last: Mutex::default(),
        }
    }

    /// The connection has this session now.
    pub fn set_session(&self, id: SessionId, timeout_ms: i32) {
        self.timeout_ms.store(timeout_ms.into(), Relaxed);
        self.session.store(id.0, Relaxed);
    }

    /// The session, once there is one.
    pub fn session(&self) -> Option<SessionId> {
        Some(SessionId(self.session.load(Relaxed))).filter(|id| id.0 != 0)
    }

    /// Requests in process now.
    pub fn set_queued(&self, queued: usize) {
        self.queued.store(queued as i64, Relaxed);
    }

    /// What a batch did on this connection; call it before [`ServerStats::record`] empties the batch.
    pub fn record(&self, batch: &Batch, last: Option<Answered>) {
        self.received.fetch_add(batch.packets_received, Relaxed);
        self.sent.fetch_add(batch.packets_sent, Relaxed);
        let Some(answered) = last else { return };
        let mut now = self.last.lock();
        now.latency.merge(&batch.latency);
        now.op = Some(answered.op);
        // A ping keeps the session's last xid, as in Apache: its xid names no request.
        if answered.cxid >= 0 {
            now.cxid = answered.cxid.into();
        }
        now.zxid = answered.zxid.0;
        now.response_ms = answered.at_ms;
        now.latency_ns = answered.latency_ns;
    }

    /// `crst`: as if it had just been accepted, but for the session and the time of that.
    pub fn reset(&self) {
        self.received.store(0, Relaxed);
        self.sent.store(0, Relaxed);
        *self.last.lock() = LastRequest::default();
    }

    /// For `cons`.
    pub fn view(&self, remote: std::net::SocketAddr, reading: bool) -> ConnView {
        let last = *self.last.lock();
        let silence_ms = match self.session() {
            Some(_) => self.timeout_ms.load(Relaxed),
            None => SESSIONLESS_MS,
        };
        ConnView {
            remote,
            interest_ops: reading.into(),
            queued: self.queued.load(Relaxed),
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
            closes_if_silent_ms: self.established_ms.max(last.response_ms) + silence_ms,
            session: self.session().map(|id| ConnSession {
                id,
                last_op: last.op,
                established_ms: self.established_ms,
                timeout_ms: self.timeout_ms.load(Relaxed),
                last_cxid: last.op.map(|_| last.cxid),
                last_zxid: Zxid(if last.op.is_some() { last.zxid } else { -1 }),
                last_response_ms: last.response_ms,
                last_latency_ms: last.latency_ns / 1_000_000,
                min_latency_ms: last.latency.min_ms(),
                avg_latency_ms: last.latency.avg_ms() as u64,
                max_latency_ms: last.latency.max_ms(),
            }),
        }
    }
}

/// The last operation as `cons` shows it. Source: Apache's `FinalRequestProcessor`.
pub fn op_word(op: OpCode) -> &'static str {
    match op {
        OpCode::Notification | OpCode::Error => "NA",
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetData => "SETD",
        OpCode::GetAcl => "GETA",
        OpCode::SetAcl => "SETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::Sync => "SYNC",
        OpCode::Ping => "PING",
        OpCode::Check => "CHEC",
        OpCode::Multi => "MULT",
        OpCode::Reconfig => "RECO",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::MultiRead => "MLTR",
        OpCode::Auth => "AUTH",
        OpCode::SetWatches => "SETW",
        OpCode::Sasl => "SASL",
        OpCode::GetEphemerals => "GETE",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::WhoAmI => "HOMI",
        OpCode::CreateSession => "SESS",
        OpCode::CloseSession => "CLOS",
    }
}
