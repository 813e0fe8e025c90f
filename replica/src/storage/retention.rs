//! Which old files may go (being filled in).

use super::disk::Disk;
use super::error::StorageError;

/// Fewest snapshots that a purge keeps, whatever it is asked.
pub const SNAP_RETAIN_MIN: usize = 3;

/// Removes all but the `retain` newest valid snapshots, and the logs that none of them needs. Returns the
/// names of the removed files.
pub fn purge<D: Disk>(disk: &D, retain: usize) -> Result<Vec<String>, StorageError> {
    let _ = (disk, retain);
    unimplemented!()
}
