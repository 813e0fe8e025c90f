//! A directory → the newest state it holds (being filled in).

use super::disk::Disk;
use super::error::StorageError;
use super::log::LogEntry;
use super::snapshot::{SnapshotEnd, SnapshotItem};
use zoometry_wire::Zxid;

/// How to read a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryOptions {
    /// `zookeeper.snapshot.trust.empty`: logs without a snapshot are taken to be complete.
    pub trust_empty: bool,
}

/// Who builds the state while the files stream by.
pub trait Restore {
    /// What is built.
    type State;
    /// Builds a state from a snapshot's items (none for an empty directory). An error from the iterator
    /// must be handed back: recovery then goes on with the next older snapshot.
    fn load(
        &mut self,
        zxid: Zxid,
        items: &mut dyn Iterator<Item = Result<SnapshotItem, StorageError>>,
    ) -> Result<Self::State, StorageError>;
    /// The snapshot was read to its end, and this stood there.
    fn loaded(&mut self, state: &mut Self::State, end: &SnapshotEnd) {
        let _ = (state, end);
    }
    /// Applies a logged transaction; refusals by the state are its own affair (the snapshot is fuzzy).
    fn replay(&mut self, state: &mut Self::State, entry: LogEntry);
}

/// Something odd that did not prevent recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A snapshot could not be read; an older one was taken.
    SnapshotSkipped {
        /// Why, with file and place.
        why: String,
    },
    /// Transactions are missing inside an epoch.
    Hole {
        /// Where the record behind the hole stands.
        file: String,
        /// Last zxid before it.
        before: Zxid,
        /// First zxid behind it.
        after: Zxid,
    },
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovered<S> {
    /// The state, up to `last_zxid`.
    pub state: S,
    /// Last transaction in it.
    pub last_zxid: Zxid,
    /// The snapshot it began with; `None` for an empty directory.
    pub snapshot: Option<Zxid>,
    /// Transactions replayed.
    pub replayed: u64,
    /// What was odd.
    pub warnings: Vec<Warning>,
}

/// Reads the directory.
pub fn recover<D: Disk, R: Restore>(
    disk: &D,
    options: RecoveryOptions,
    restore: &mut R,
) -> Result<Recovered<R::State>, StorageError> {
    let _ = (disk, options, restore);
    unimplemented!()
}
