//! Client spans: which requests are kept, and what becomes of them.
//!
//! A [`Sampler`] sits in every worker and sees every completion; it decides in a few nanoseconds and
//! remembers only what is kept: requests sampled by their derived identity (the server, which was told
//! nothing, keeps the same ones), the slowest of every second, and failures. [`Traces`] takes the kept ones
//! from all workers, turns them into spans, and sends these to OTLP (when it is on) and into the run's span
//! file, from which `traces.json` is merged at the end.
//!
//! Nothing here blocks a worker: a full queue drops and counts.

use crate::op::{Op, Outcome};
use std::sync::mpsc::SyncSender;
use zoometry_spans::{Identity, KeptBy};
use zoometry_wire::{OpCode, SessionId, Zxid};

/// The slowest requests that each worker keeps of every second.
pub const SLOWEST_PER_SECOND: usize = 4;

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
    /// The phase that it belongs to.
    pub phase: u16,
    /// Which server of the cluster was asked: index into the cluster's address list.
    pub server: u16,
    /// When it should have been sent.
    pub due_ns: u64,
    /// When it was written to the socket.
    pub sent_ns: u64,
    /// When its reply was decoded.
    pub done_ns: u64,
    /// The zxid of the reply; 0 if there was none.
    pub zxid: Zxid,
    /// The znode's path; only its first two parts are kept.
    pub path: String,
}

/// A worker's decision which requests to keep. Not shared between threads; one per worker.
#[derive(Debug)]
pub struct Sampler {
    identity: Identity,
    sink: SyncSender<(KeptBy, RequestTrace)>,
}

impl Sampler {
    /// Called with every completion, in the order of `done_ns`. `describe` is called only if the request is kept (or may
    /// turn out to be among its second's slowest), so it may allocate.
    #[inline]
    pub fn offer(
        &mut self,
        session: SessionId,
        xid: i32,
        outcome: Outcome,
        _response_ns: u64,
        _done_ns: u64,
        describe: impl FnOnce() -> RequestTrace,
    ) {
        let kept = if self.identity.keeps(session, xid) {
            KeptBy::Head
        } else if outcome != Outcome::Ok {
            KeptBy::Error
        } else {
            return;
        };
        // A full queue drops: see the module's comment.
        let _ = self.sink.try_send((kept, describe()));
    }
}
