//! Which old files may go (`autopurge`).
//!
//! Invariant: the snapshots that stay can each be brought up to date with the logs that stay. So the newest
//! log that begins at or before the oldest snapshot kept stays as well.
//!
//! Source: `S/PurgeTxnLog.java`; reference §9.7.

use super::disk::{Dir, Disk};
use super::error::StorageError;
use super::{log, snapshot};

/// Fewest snapshots that a purge keeps, whatever it is asked. Source: `DatadirCleanupManager`.
pub const SNAP_RETAIN_MIN: usize = 3;

/// Removes all but the `retain` newest snapshots that are whole, and the logs that none of them needs. With
/// fewer whole snapshots than that nothing is removed. Returns the names of the removed files.
pub fn purge<D: Disk>(disk: &D, retain: usize) -> Result<Vec<String>, StorageError> {
    let snapshots = snapshot::list(disk)?;
    let mut kept = 0;
    let mut oldest = None;
    for found in &snapshots {
        if snapshot::looks_whole(disk, found)? {
            kept += 1;
            oldest = Some(found.zxid);
        }
        if kept == retain.max(SNAP_RETAIN_MIN) {
            break;
        }
    }
    let Some(oldest) = oldest.filter(|_| kept == retain.max(SNAP_RETAIN_MIN)) else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for found in snapshots.iter().rev().take_while(|found| found.zxid < oldest) {
        remove(disk, Dir::Snap, &found.name, &mut removed)?;
    }
    // A crash must not bring a snapshot back whose logs are gone.
    disk.sync_dir(Dir::Snap).map_err(StorageError::io("sync", disk.describe(Dir::Snap, "")))?;
    let logs = log::list(disk)?;
    for (_, name) in &logs[..log::start_index(&logs, oldest)] {
        remove(disk, Dir::Log, name, &mut removed)?;
    }
    Ok(removed)
}

fn remove<D: Disk>(disk: &D, dir: Dir, name: &str, removed: &mut Vec<String>) -> Result<(), StorageError> {
    disk.remove(dir, name).map_err(StorageError::io("remove", disk.describe(dir, name)))?;
    removed.push(name.to_owned());
    Ok(())
}
