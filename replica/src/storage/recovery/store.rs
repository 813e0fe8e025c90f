//! Recovery into the [`Store`], with the digests checked on the way.

use super::{Recovered, RecoveryOptions, Restore, recover};
use crate::storage::disk::Disk;
use crate::storage::error::StorageError;
use crate::storage::log::LogEntry;
use crate::storage::snapshot::{DIGEST_VERSION, SnapshotEnd, SnapshotItem};
use crate::store::watch::{WatchEvent, WatchSink, WatcherId};
use crate::store::{LoadError, Store, StoreConfig};
use zoometry_wire::Zxid;

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
}

/// Recovers the store of a member.
pub fn recover_store<D: Disk>(
    disk: &D,
    options: RecoveryOptions,
    config: StoreConfig,
) -> Result<RecoveredStore, StorageError> {
    let mut rebuild = Rebuild { config, compare_behind: None, mismatches: 0, first: None };
    let found = recover(disk, options, &mut rebuild)?;
    Ok(RecoveredStore { found, digest_mismatches: rebuild.mismatches, first_mismatch: rebuild.first })
}

struct Rebuild {
    config: StoreConfig,
    /// The tree is still fuzzy up to here. `None`: for how long is not known, so nothing is compared.
    compare_behind: Option<Zxid>,
    mismatches: u64,
    first: Option<Zxid>,
}

impl Restore for Rebuild {
    type State = Store;

    fn empty(&mut self) -> Store {
        self.compare_behind = Some(Zxid(0));
        Store::new(self.config.clone())
    }

    fn load(
        &mut self,
        zxid: Zxid,
        items: &mut dyn Iterator<Item = Result<SnapshotItem, StorageError>>,
    ) -> Result<Store, StorageError> {
        Store::load(self.config.clone(), items, zxid).map_err(|error| match error {
            LoadError::Source(error) => error,
            other => StorageError::NotAState { what: other.to_string() },
        })
    }

    fn loaded(&mut self, state: &mut Store, end: &SnapshotEnd) {
        let recorded = end.digest.filter(|(zxid, _)| *zxid >= state.last_zxid());
        self.compare_behind = recorded.map(|(zxid, _)| zxid);
    }

    fn replay(&mut self, state: &mut Store, entry: LogEntry) {
        let zxid = entry.record.header.zxid;
        // Refusals are part of replay: the snapshot may already hold what the log brings.
        let _ = state.apply(&entry.record, &mut NobodyWatches);
        let comparable = state.config().digest && self.compare_behind.is_some_and(|behind| zxid > behind);
        let recorded = entry.record.digest.filter(|digest| comparable && digest.version == DIGEST_VERSION);
        if recorded.is_some_and(|digest| digest.tree as u64 != state.digest()) {
            self.mismatches += 1;
            self.first.get_or_insert(zxid);
        }
    }
}

struct NobodyWatches;

impl WatchSink for NobodyWatches {
    fn fire(&mut self, _event: &WatchEvent<'_>, _watchers: &[WatcherId]) {}
}
