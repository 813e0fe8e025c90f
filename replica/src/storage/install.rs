//! A state that came from the leader (SNAP) takes the place of everything a directory holds, at once.
//!
//! What is there may be another history: records that were never committed, snapshots named after later
//! zxids. It may also be all that a quorum knows of a transaction, until the new state, which holds it too,
//! is durable. So a crash must leave the old directory or the new one, nothing in between:
//!
//! 1. the snapshot is written under a temporary name and synced;
//! 2. it is renamed to `install.snapshot.<zxid>`, durably: from here on it alone counts;
//! 3. all log files and all other snapshots are removed, durably, the older ones too: behind the new state
//!    nothing of another history may be found by a recovery that goes back to an older snapshot;
//! 4. it gets its own name, durably.
//!
//! A recovery that meets `install.snapshot.<zxid>` does steps 3 and 4 again ([`complete`]); one that may not
//! change anything reads that file and nothing else. Apache's server does not know the name: a directory
//! whose member died between 2 and 4 has to be started by this server once before Apache's can take it over.

use super::disk::{Dir, Disk};
use super::error::StorageError;
use super::log;
use super::names::{self, Compression};
use super::snapshot::{self, Found, Sealed};
use zoometry_wire::Zxid;

/// Puts a sealed snapshot in the place of everything; it was begun with
/// [`create_installing`](snapshot::SnapshotWriter::create_installing). No log file may be open, and no other
/// snapshot may appear meanwhile. Returns the file's name and length, bytes.
pub fn install<D: Disk>(disk: &D, sealed: Sealed<D>) -> Result<(String, u64), StorageError> {
    let zxid = names::parse_installing(sealed.name());
    let zxid = zxid.expect("a snapshot that was begun in order to be installed");
    let (_, bytes) = sealed.publish()?;
    complete(disk)?;
    Ok((names::snapshot(zxid, Compression::None), bytes))
}

/// The snapshot whose installation has begun and not ended.
pub fn pending<D: Disk>(disk: &D) -> Result<Option<Found>, StorageError> {
    let names = disk.list(Dir::Snap).map_err(StorageError::io("list", disk.describe(Dir::Snap, "")))?;
    let found = names.into_iter().filter_map(|name| {
        Some(Found { zxid: names::parse_installing(&name)?, name, compression: Compression::None })
    });
    // There is one at most: the next does not begin before this has ended.
    Ok(found.max_by_key(|found| found.zxid))
}

/// Ends an installation that has begun; its zxid, if there was one.
pub fn complete<D: Disk>(disk: &D) -> Result<Option<Zxid>, StorageError> {
    let Some(found) = pending(disk)? else { return Ok(None) };
    for (_, name) in log::list(disk)?.iter().rev() {
        remove(disk, Dir::Log, name)?;
    }
    for old in snapshot::list(disk)? {
        remove(disk, Dir::Snap, &old.name)?;
    }
    for dir in [Dir::Log, Dir::Snap] {
        sync_dir(disk, dir)?;
    }
    let described = disk.describe(Dir::Snap, &found.name);
    let renamed = disk.rename(Dir::Snap, &found.name, &names::snapshot(found.zxid, Compression::None));
    renamed.map_err(StorageError::io("rename", described))?;
    sync_dir(disk, Dir::Snap)?;
    Ok(Some(found.zxid))
}

fn remove<D: Disk>(disk: &D, dir: Dir, name: &str) -> Result<(), StorageError> {
    disk.remove(dir, name).map_err(StorageError::io("remove", disk.describe(dir, name)))
}

fn sync_dir<D: Disk>(disk: &D, dir: Dir) -> Result<(), StorageError> {
    disk.sync_dir(dir).map_err(StorageError::io("sync", disk.describe(dir, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::mem::MemDisk;
    use crate::storage::history::write_snapshot;
    use crate::storage::history::{Collect, Seen, all_upto, log_range, recover_seen, seal_installing};
    use crate::storage::log::{LogOptions, TxnLog};
    use crate::storage::recovery::{Access, RecoveryOptions, recover};
    use crate::storage::retention::purge;

    const SMALL: LogOptions =
        LogOptions { prealloc_bytes: 4096, sync: crate::storage::log::SyncMode::Always, roll_at_bytes: None };

    /// A history up to 40 with snapshots at 0 and 30.
    fn old(disk: &MemDisk) -> TxnLog<MemDisk> {
        let mut log = TxnLog::new(disk.clone(), SMALL);
        write_snapshot(disk, &all_upto(0)).expect("snapshot");
        log_range(&mut log, 1, 30).expect("log");
        log.roll().expect("roll");
        write_snapshot(disk, &all_upto(30)).expect("snapshot");
        log_range(&mut log, 31, 40).expect("log");
        log
    }

    /// Another history, which shares only the first transactions, and ends at `last`.
    fn other(last: i64) -> Seen {
        (1..=10).chain([last]).collect()
    }

    /// At every operation and with every part of what was not synced: the old state or the new one.
    #[test]
    fn a_crash_leaves_the_old_state_or_the_new_one() {
        for (split, last) in [(false, 25), (true, 25), (true, 35), (false, 50), (false, 30)] {
            let mut outcomes = [0; 2];
            for (operation, seed) in (0..40).flat_map(|operation| (0..6).map(move |seed| (operation, seed))) {
                let disk = if split { MemDisk::split() } else { MemDisk::new() };
                let mut log = old(&disk);
                disk.freeze_after(operation);
                let done = log
                    .roll()
                    .and_then(|()| seal_installing(&disk, Zxid(last), &other(last)))
                    .and_then(|sealed| install(&disk, sealed))
                    .is_ok();
                disk.crash(seed);
                let look = RecoveryOptions { access: Access::ReadOnly, ..RecoveryOptions::default() };
                let seen = recover(&disk, look, &mut Collect).expect("read").state;
                let is_new = seen == other(last);
                assert!(is_new || seen == all_upto(40), "{last}, {operation}, {seed}: {seen:?}");
                assert!(is_new || !done);
                outcomes[usize::from(is_new)] += 1;
                let recovered = recover_seen(&disk).expect("recover");
                assert_eq!(recovered.state, seen, "who looks and who owns see the same");
                assert_eq!(recovered.warnings, []);
                // It stays so, and life goes on.
                disk.crash(0);
                let mut log = TxnLog::new(disk.clone(), SMALL);
                let next = recovered.last_zxid.0 + 1;
                log_range(&mut log, next, next).expect("log");
                let mut expected = seen;
                expected.insert(next);
                assert_eq!(recover_seen(&disk).expect("recover").state, expected);
            }
            assert!(outcomes[0] > 10 && outcomes[1] > 10, "{outcomes:?}");
        }
    }

    #[test]
    fn nothing_of_the_old_history_is_left_to_go_back_to() {
        let disk = MemDisk::new();
        let mut log = old(&disk);
        log.roll().expect("roll");
        let sealed = seal_installing(&disk, Zxid(25), &other(25)).expect("seal");
        let (name, bytes) = install(&disk, sealed).expect("install");
        assert_eq!(disk.list(Dir::Snap).expect("list"), [name.as_str()]);
        assert_eq!(disk.contents(Dir::Snap, &name).map(|bytes| bytes.len() as u64), Some(bytes));
        log.continue_from(Zxid(25)).expect("continue");
        log_range(&mut log, 26, 28).expect("log");
        assert_eq!(purge(&disk, 3).expect("purge"), Vec::<String>::new());
        let expected: Seen = other(25).into_iter().chain(26..=28).collect();
        assert_eq!(recover_seen(&disk).expect("recover").state, expected);
        // A damaged one is an error, and not a way back into another history.
        disk.edit(Dir::Snap, &name, |bytes| bytes[70] ^= 1);
        assert!(matches!(recover_seen(&disk), Err(StorageError::NoReadableSnapshot { .. })));
    }
}
