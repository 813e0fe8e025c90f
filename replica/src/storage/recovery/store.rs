//! Recovery into the [`Store`], with the digests checked on the way.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Recovered, RecoveryOptions, Restore, recover};
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::LogEntry;
use crate::storage::snapshot::{DIGEST_VERSION, SnapshotEnd, SnapshotItem};
use crate::store::watch::{WatchEvent, WatchSink, WatcherId};
use crate::store::{LoadError, Store, StoreConfig};
use zoometry_wire::Zxid;
use zoometry_wire::txn::TxnDigest;

/// A recovered store, and how its digests compared.
#[derive(Debug)]
pub struct RecoveredStore {
    /// The store and how it was found.
    pub found: Recovered<Store>,
    /// Transactions whose digest was not that of the tree after them (`digest_mismatches_count`). Never a
    /// reason not to start.
    pub digest_mismatches: u64,
    /// The first of them.
    pub first_mismatch: Option<Zxid>,
    /// The last transactions replayed, oldest first, at most [`RecoveryOptions::tail_limit`]: what a leader can
    /// bring others up to date with.
    pub tail: VecDeque<(Zxid, Bytes)>,
}

/// Recovers the store of a member.
pub fn recover_store<D: Disk>(
    disk: &D,
    options: RecoveryOptions,
    config: StoreConfig,
) -> Result<RecoveredStore, StorageError> {
    let (tail_limit, tail) = (options.tail_limit, VecDeque::new());
    let mut rebuild = Rebuild { config, fuzzy: Fuzzy::Unknown, mismatches: 0, first: None, tail_limit, tail };
    let found = recover(disk, options, &mut rebuild)?;
    let Rebuild { mismatches, first, tail, .. } = rebuild;
    Ok(RecoveredStore { found, digest_mismatches: mismatches, first_mismatch: first, tail })
}

struct Rebuild {
    config: StoreConfig,
    fuzzy: Fuzzy,
    mismatches: u64,
    first: Option<Zxid>,
    tail_limit: usize,
    tail: VecDeque<(Zxid, Bytes)>,
}

/// Whether the tree is that of its last transaction, so that digests mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fuzzy {
    /// It is.
    No,
    /// It will be at this zxid, and then the digest is this, if the snapshot says so.
    Until(Zxid, Option<i64>),
    /// The snapshot does not say; comparing starts with the first transaction that agrees.
    Unknown,
}

impl Rebuild {
    /// Compares at `zxid`, with `logged` as the transaction's digest if it has one. `None`: there is nothing to
    /// compare with.
    fn compare(&mut self, state: &Store, zxid: Zxid, logged: Option<TxnDigest>) -> Option<bool> {
        let logged = logged.filter(|digest| digest.version == DIGEST_VERSION).map(|digest| digest.tree);
        let expected = match self.fuzzy {
            _ if !state.config().digest => return None,
            Fuzzy::Until(end, tree) if zxid >= end => {
                self.fuzzy = Fuzzy::No;
                if zxid == end { tree } else { logged }
            }
            Fuzzy::No => logged,
            Fuzzy::Unknown if logged == Some(state.digest() as i64) => {
                self.fuzzy = Fuzzy::No;
                logged
            }
            Fuzzy::Until(..) | Fuzzy::Unknown => None,
        };
        let agrees = expected.map(|expected| expected as u64 == state.digest());
        if agrees == Some(false) {
            self.mismatches += 1;
            self.first.get_or_insert(zxid);
        }
        agrees
    }
}

impl Restore for Rebuild {
    type State = Store;

    fn empty(&mut self) -> Store {
        self.fuzzy = Fuzzy::No;
        self.tail.clear();
        Store::new(self.config.clone())
    }

    fn load(
        &mut self,
        zxid: Zxid,
        items: &mut dyn Iterator<Item = Result<SnapshotItem, StorageError>>,
    ) -> Result<Store, StorageError> {
        self.tail.clear();
        Store::load(self.config.clone(), items, zxid).map_err(|error| match error {
            LoadError::Source(error) => error,
            other => StorageError::NotAState { what: other.to_string() },
        })
    }

    fn loaded(&mut self, state: &mut Store, end: &SnapshotEnd) {
        let began = state.last_zxid();
        self.fuzzy = match (end.digest, end.last_zxid) {
            // Nothing had been applied yet, so nothing was applied meanwhile.
            (Some((Zxid(0), digest)), _) if began == Zxid(0) && digest.tree == 0 => Fuzzy::No,
            // A digest from before the snapshot began says nothing about it.
            (Some((zxid, digest)), _) if zxid >= began => Fuzzy::Until(zxid, Some(digest.tree)),
            (_, Some(zxid)) => Fuzzy::Until(zxid, None),
            _ => Fuzzy::Unknown,
        };
        self.compare(state, began, None);
    }

    fn replay(&mut self, state: &mut Store, entry: LogEntry) -> Option<bool> {
        // Refusals are part of replay: the snapshot may already hold what the log brings.
        let _ = state.apply(&entry.record, &mut NobodyWatches);
        let zxid = entry.record.header.zxid;
        let agrees = self.compare(state, zxid, entry.record.digest);
        self.tail.push_back((zxid, entry.payload));
        if self.tail.len() > self.tail_limit {
            self.tail.pop_front();
        }
        agrees
    }

    fn skip(&mut self) {
        // With what is behind a hole nobody can be brought up to date who is before it.
        self.tail.clear();
    }
}

struct NobodyWatches;

impl WatchSink for NobodyWatches {
    fn fire(&mut self, _event: &WatchEvent<'_>, _watchers: &[WatcherId]) {}
}
