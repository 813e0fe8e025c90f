//! Cutting the log: a leader has told this member (TRUNC) that what it logged behind a zxid was never
//! committed.
//!
//! Afterwards the directory recovers to exactly the state at that zxid. So besides the log records behind it
//! every snapshot goes that holds anything of what is cut: those named after a later zxid, and those whose
//! walk began before the cut and ended behind it (a snapshot is fuzzy; the blocks at its end say where it
//! ended). Apache leaves both, and they come back at the next start. Without digests nothing says where a
//! snapshot ended; then its name is all there is to go by.
//!
//! The cut must be known here: a transaction of the log, a snapshot's zxid (the log behind a snapshot that
//! came from a leader does not hold it), or an epoch's beginning (counter 0), which is nobody's transaction
//! and where a member without transactions of that epoch stands; the cut is then behind the last record
//! before it. And what stays must be able to start: a snapshot that can be read to its end, and every
//! transaction from there to the cut; a log that reaches back to the first transaction of all can do
//! without, it gets an empty `snapshot.0`. All of that is checked before anything is changed.
//!
//! A crash leaves the log shorter by some of what was to go, never with a hole and never without what is to
//! stay; truncating again finishes the work: snapshots go first, durably, then files, newest first and each
//! durably, and the cut inside a file comes last.

use super::{LogReader, list, start_index};
use crate::storage::disk::{Dir, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::names::Compression;
use crate::storage::recovery::follows;
use crate::storage::snapshot::{self, Found, SnapshotEnd, SnapshotReader, SnapshotWriter};
use crate::store::{Store, StoreConfig};
use zoometry_wire::Zxid;

/// Cuts the log right behind `zxid`, and removes what is later. No [`TxnLog`] may have a file open, and no
/// snapshot of the state that is being cut may appear meanwhile or afterwards.
///
/// [`TxnLog`]: super::TxnLog
pub fn truncate<D: Disk>(disk: &D, zxid: Zxid) -> Result<(), StorageError> {
    let logs = list(disk)?;
    let found = Snapshots::look(disk, zxid)?;
    let cut = find_cut(disk, &logs, zxid, found.base.as_ref())?;
    match &found.base {
        Some(base) => check_reach(disk, &logs, base.zxid, zxid)?,
        None if logs_begin_at_the_beginning(disk, &logs)? || zxid == Zxid(0) => {
            check_reach(disk, &logs, Zxid(0), zxid)?;
            write_empty_base(disk)?;
        }
        None => {
            let what = "there is no readable snapshot at or before it to start from".into();
            return Err(StorageError::TruncateBase { zxid, what });
        }
    }
    for beyond in &found.beyond {
        remove(disk, Dir::Snap, &beyond.name)?;
    }
    if !found.beyond.is_empty() {
        sync_dir(disk, Dir::Snap)?;
    }
    for (_, name) in logs[cut.files..].iter().rev() {
        remove(disk, Dir::Log, name)?;
        // One by one: a file system may order removals as it likes, and a hole must not come of it.
        sync_dir(disk, Dir::Log)?;
    }
    let Some((offset, name)) = cut.inside else { return Ok(()) };
    let described = disk.describe(Dir::Log, &name);
    let mut file = disk.open(Dir::Log, &name).map_err(StorageError::io("open", described.clone()))?;
    file.set_len(offset).map_err(StorageError::io("cut", described.clone()))?;
    file.sync().map_err(StorageError::io("sync", described))
}

/// Where the log ends afterwards.
struct Cut {
    /// So many of the files stay.
    files: usize,
    /// The last of these, and its length.
    inside: Option<(u64, String)>,
}

fn find_cut<D: Disk>(
    disk: &D,
    logs: &[(Zxid, String)],
    zxid: Zxid,
    base: Option<&Found>,
) -> Result<Cut, StorageError> {
    let files = logs.partition_point(|(first, _)| *first <= zxid);
    let mut last = Zxid(0);
    let mut inside = None;
    if let Some((_, name)) = files.checked_sub(1).and_then(|at| logs.get(at)) {
        let mut reader = LogReader::open(disk, name)?;
        let mut offset = reader.offset();
        while let Some(entry) = reader.next_entry()? {
            if entry.record.header.zxid > zxid {
                break;
            }
            (last, offset) = (entry.record.header.zxid, reader.offset());
        }
        inside = Some((offset, name.clone()));
    }
    let known = last == zxid || zxid.counter() == 0 || base.is_some_and(|base| base.zxid == zxid);
    if !known {
        let first = logs.first().map_or(Zxid(0), |(first, _)| *first);
        return Err(StorageError::TruncateTarget { zxid, first, last });
    }
    Ok(Cut { files, inside })
}

/// The snapshots, as a cut sees them.
#[derive(Default)]
struct Snapshots {
    /// Hold what is cut; newest first.
    beyond: Vec<Found>,
    /// The newest that stays and can be read to its end.
    base: Option<Found>,
}

impl Snapshots {
    fn look<D: Disk>(disk: &D, zxid: Zxid) -> Result<Self, StorageError> {
        let mut snapshots = Self::default();
        for found in snapshot::list(disk)? {
            if found.zxid > zxid {
                snapshots.beyond.push(found);
                continue;
            }
            match read_through(disk, &found) {
                Ok(end) if reaches(&end) > zxid => snapshots.beyond.push(found),
                Ok(_) => {
                    // Whatever is older had ended before this one began.
                    snapshots.base = Some(found);
                    break;
                }
                // Recovery goes past these as well.
                Err(StorageError::CorruptSnapshot { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(snapshots)
    }
}

/// Reads a snapshot to its end, with all its checksums.
fn read_through<D: Disk>(disk: &D, found: &Found) -> Result<SnapshotEnd, StorageError> {
    let mut reader = SnapshotReader::open(disk, &found.name)?;
    for item in reader.by_ref() {
        item?;
    }
    Ok(reader.end().unwrap_or_default())
}

/// The last transaction of which the snapshot may hold something, as far as its end says.
fn reaches(end: &SnapshotEnd) -> Zxid {
    let digest = end.digest.map_or(Zxid(0), |(zxid, _)| zxid);
    digest.max(end.last_zxid.unwrap_or(Zxid(0)))
}

/// The logs must hold everything behind `base` up to `zxid`.
fn check_reach<D: Disk>(
    disk: &D,
    logs: &[(Zxid, String)],
    base: Zxid,
    zxid: Zxid,
) -> Result<(), StorageError> {
    let mut last = base;
    for (_, name) in &logs[start_index(logs, base)..] {
        let mut reader = LogReader::open(disk, name)?;
        while let Some(entry) = reader.next_entry()? {
            let next = entry.record.header.zxid;
            if next > zxid {
                return Ok(());
            }
            if next <= last {
                continue;
            }
            if !follows(last, next) {
                let what = format!(
                    "the newest snapshot that does not hold what is to be cut is at {base}, and the \
                     transactions between {last} and {next} are in no log"
                );
                return Err(StorageError::TruncateBase { zxid, what });
            }
            last = next;
        }
    }
    Ok(())
}

/// Only zxid 1 has nothing before it for certain: what begins an epoch has the epochs before it.
fn logs_begin_at_the_beginning<D: Disk>(disk: &D, logs: &[(Zxid, String)]) -> Result<bool, StorageError> {
    let Some((_, name)) = logs.first() else { return Ok(false) };
    let first = LogReader::open(disk, name)?.next_entry()?;
    Ok(first.is_some_and(|entry| entry.record.header.zxid == Zxid(1)))
}

/// `snapshot.0` of a tree that nothing has happened to.
fn write_empty_base<D: Disk>(disk: &D) -> Result<(), StorageError> {
    let store = Store::new(StoreConfig::default());
    let mut writer =
        SnapshotWriter::create(disk.clone(), Zxid(0), Compression::None, &store.snapshot_head())?;
    let mut walk = store.start_walk();
    while store.walk(&mut walk, usize::MAX, &mut |node| writer.node(&node)) {}
    writer.finish(SnapshotEnd::default()).map(drop)
}

fn remove<D: Disk>(disk: &D, dir: Dir, name: &str) -> Result<(), StorageError> {
    disk.remove(dir, name).map_err(StorageError::io("remove", disk.describe(dir, name)))
}

fn sync_dir<D: Disk>(disk: &D, dir: Dir) -> Result<(), StorageError> {
    disk.sync_dir(dir).map_err(StorageError::io("sync", disk.describe(dir, "")))
}
