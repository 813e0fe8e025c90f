//! Log files and snapshots, in Apache's formats, over a narrow [`disk::Disk`].
//!
//! | module | holds |
//! |---|---|
//! | [`disk`] | the seam: what storage needs of a file system, and one in memory |
//! | [`log`] | `log.<zxid>`: [`TxnLog`] appends, [`LogReader`] reads, [`truncate`](log::truncate) cuts, [`log_since`](log::log_since) serves learners |
//! | [`snapshot`] | `snapshot.<zxid>`: [`SnapshotWriter`], [`SnapshotReader`], and the item stream alone |
//! | [`install`] | a state from the leader takes the place of everything |
//! | [`recovery`] | a directory → the newest state it holds |
//! | [`retention`] | which old files may go |
//! | [`epoch`] | `acceptedEpoch` and `currentEpoch` |
//!
//! Everything here is blocking and single-threaded; who calls it brings the thread. Nothing here retries: a
//! failed write or sync is final for the file it happened to, and the caller stops the member.

pub mod disk;
pub mod epoch;
pub mod error;
#[cfg(test)]
mod history;
pub mod install;
pub mod log;
pub mod names;
pub mod recovery;
pub mod retention;
pub mod snapshot;

pub use disk::{Dir, Disk, DiskFile};
pub use error::StorageError;
pub use log::{LogOptions, LogReader, TxnLog};
pub use names::Compression;
pub use recovery::{Recovered, RecoveryOptions, Restore, recover};
pub use retention::purge;
pub use snapshot::{SnapshotItem, SnapshotNode, SnapshotReader, SnapshotWriter};
