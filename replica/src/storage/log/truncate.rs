//! Cutting the log: a leader has told this member (TRUNC) that what it logged behind a zxid was never
//! committed.
//!
//! The cut must be a transaction that the log holds. Snapshots behind it go too, since they contain what is
//! being cut (Apache leaves them, and they come back at the next start); if none older could be started
//! from, nothing is touched. Files are removed newest first and the cut itself comes last, so a crash in
//! between leaves a shorter log that still holds the target, and truncating again finishes the work.

use super::{LogReader, list, start_index};
use crate::storage::disk::{Dir, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::snapshot;
use zoometry_wire::Zxid;

/// Cuts the log right behind `zxid`, and removes later log files and later snapshots. No [`TxnLog`] may have
/// a file open.
///
/// [`TxnLog`]: super::TxnLog
pub fn truncate<D: Disk>(disk: &D, zxid: Zxid) -> Result<(), StorageError> {
    let logs = list(disk)?;
    let at = start_index(&logs, zxid);
    let cut = match logs.get(at) {
        Some((_, name)) => find(disk, name, zxid)?,
        None => Err(Zxid(0)),
    };
    let cut = cut.map_err(|last| StorageError::TruncateTarget {
        zxid,
        first: logs.first().map_or(Zxid(0), |(first, _)| *first),
        last,
    })?;
    remove_later_snapshots(disk, zxid)?;
    for (_, name) in logs[at + 1..].iter().rev() {
        let removed = disk.remove(Dir::Log, name);
        removed.map_err(StorageError::io("remove", disk.describe(Dir::Log, name)))?;
    }
    disk.sync_dir(Dir::Log).map_err(StorageError::io("sync", disk.describe(Dir::Log, "")))?;
    let name = &logs[at].1;
    let described = disk.describe(Dir::Log, name);
    let mut file = disk.open(Dir::Log, name).map_err(StorageError::io("open", described.clone()))?;
    file.set_len(cut).map_err(StorageError::io("cut", described.clone()))?;
    file.sync().map_err(StorageError::io("sync", described))
}

/// The offset behind the record `zxid`, or the last zxid before it if it is not there.
fn find<D: Disk>(disk: &D, name: &str, zxid: Zxid) -> Result<Result<u64, Zxid>, StorageError> {
    let mut reader = LogReader::open(disk, name)?;
    let mut last = Zxid(0);
    while let Some(entry) = reader.next_entry()? {
        last = entry.record.header.zxid;
        if last == zxid {
            return Ok(Ok(reader.offset()));
        }
        if last > zxid {
            break;
        }
    }
    Ok(Err(last))
}

fn remove_later_snapshots<D: Disk>(disk: &D, zxid: Zxid) -> Result<(), StorageError> {
    let snapshots = snapshot::list(disk)?;
    let later = snapshots.iter().take_while(|found| found.zxid > zxid).count();
    if later == 0 {
        return Ok(());
    }
    if !snapshots[later..].iter().any(|found| snapshot::looks_whole(disk, found).unwrap_or(false)) {
        return Err(StorageError::TruncateBase { zxid });
    }
    for found in &snapshots[..later] {
        let removed = disk.remove(Dir::Snap, &found.name);
        removed.map_err(StorageError::io("remove", disk.describe(Dir::Snap, &found.name)))?;
    }
    disk.sync_dir(Dir::Snap).map_err(StorageError::io("sync", disk.describe(Dir::Snap, "")))
}
