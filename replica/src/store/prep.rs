//! From a request to the transaction that everybody applies.

use super::{Store, StoreConfig};
use zoometry_wire::txn::TxnHeader;
use zoometry_wire::{ErrorCode, Id, OpCode, Request, SessionId, Txn, TxnRecord, Zxid};

/// A write and who asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The session; 0 for the server's own requests.
    pub session: SessionId,
    /// The client's xid; 0 for session requests and the server's own.
    pub cxid: i32,
    /// The connection's identities.
    pub ids: &'a [Id],
    /// The request.
    pub request: &'a Request,
    /// What the session tracker says of the session: SessionExpired, SessionMoved,
    /// EphemeralOnLocalSession.
    pub session_check: Result<(), ErrorCode>,
}

/// Turns requests into transactions, one after the other, looking at the committed tree and at the changes
/// that are proposed but not yet applied (the overlay).
#[derive(Debug)]
pub struct Prep {
    _config: StoreConfig,
}

impl Prep {
    /// No outstanding changes. `config` is the store's.
    pub fn new(config: StoreConfig) -> Self {
        Self { _config: config }
    }

    /// The transaction for a request: type `error` if it is refused. `zxid` is one above the last, whatever
    /// the outcome; `time_ms` is the leader's wall clock.
    pub fn prepare(&mut self, _store: &Store, asked: &Asked<'_>, zxid: Zxid, time_ms: i64) -> TxnRecord {
        let code = ErrorCode::SystemError.code();
        let header =
            TxnHeader { session: asked.session, cxid: asked.cxid, zxid, time_ms, kind: OpCode::Error.code() };
        TxnRecord { header, txn: Txn::Error(code), digest: None }
    }

    /// The store has applied everything up to `zxid`: forget the outstanding changes up to there.
    pub fn applied(&mut self, _zxid: Zxid) {}

    /// Nothing that was prepared will be applied any more: forget all outstanding changes.
    pub fn reset(&mut self) {}

    /// Changes that wait for their transaction to be applied.
    pub fn outstanding(&self) -> usize {
        0
    }
}
