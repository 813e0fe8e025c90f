//! `acceptedEpoch` and `currentEpoch`: what a member has promised, and whose history it has.
//!
//! Invariant, checked at start: epoch of the last logged zxid ≤ currentEpoch ≤ acceptedEpoch. Both files hold
//! a decimal number without a newline and are replaced atomically. A standalone member has none.
//!
//! An epoch is the upper half of a zxid: from 2³¹ on zxids are negative, and every comparison goes wrong. So no number
//! beyond [`EPOCH_MAX`] is taken from a file, and no acceptedEpoch among the last ones ([`EPOCHS_KEPT`]) unless
//! currentEpoch is there, too: a member that leads with such a promise uses up the epochs of all.
//!
//! Source: `Q/QuorumPeer.java`; reference §8.11.

use super::disk::{Dir, Disk, DiskFile};
use super::error::StorageError;
use std::io;
use zoometry_wire::Zxid;

use crate::zab::{EPOCH_MAX, EPOCHS_KEPT};

/// Behind the name of a file that is being replaced. Apache's own, because it looks for `currentEpoch.tmp`.
const UNFINISHED: &str = ".tmp";
/// No decimal i64 is longer; more than this is not an epoch file.
const TEXT_BYTES_MAX: usize = 32;

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochFile {
    /// The newest epoch this member has promised to.
    Accepted,
    /// The newest epoch whose leader's history this member has taken over.
    Current,
}

impl EpochFile {
    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "acceptedEpoch",
            Self::Current => "currentEpoch",
        }
    }
}

/// Both values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// `acceptedEpoch`.
    pub accepted: i64,
    /// `currentEpoch`.
    pub current: i64,
}

/// Reads both files and checks them against `last`, the last zxid of the log. A missing file is derived from
/// `last` and written. A currentEpoch behind the log is one that a crash kept from being written: histories
/// go to the disk before the epochs that they stand for (ZOOKEEPER-4643), and who has a transaction of an epoch
/// has that epoch's initial history before it. So the log's epoch is the current one, if it was accepted.
/// (Apache's server takes it from a left `currentEpoch.tmp`, ZOOKEEPER-1653, and otherwise does not start.)
pub fn load<D: Disk>(disk: &D, last: Zxid) -> Result<Epochs, StorageError> {
    let logged = i64::from(last.epoch());
    let accepted = match read(disk, EpochFile::Accepted.name())? {
        Some(accepted) => accepted,
        None => derive(disk, EpochFile::Accepted, logged)?,
    };
    let current = match read(disk, EpochFile::Current.name())? {
        Some(current) if current >= logged => current,
        Some(current) if accepted < logged => {
            let what =
                format!("currentEpoch is {current}, but the log reaches {last}, which is of epoch {logged}");
            return Err(StorageError::Epochs { what });
        }
        _ => derive(disk, EpochFile::Current, logged)?,
    };
    believe(disk, EpochFile::Current, current, EPOCH_MAX)?;
    let last_promised = EPOCH_MAX - EPOCHS_KEPT / 2;
    believe(
        disk,
        EpochFile::Accepted,
        accepted,
        if current > last_promised { EPOCH_MAX } else { last_promised },
    )?;
    if accepted < current {
        let what = format!("acceptedEpoch is {accepted}, less than currentEpoch {current}");
        return Err(StorageError::Epochs { what });
    }
    Ok(Epochs { accepted, current })
}

fn believe<D: Disk>(disk: &D, which: EpochFile, epoch: i64, at_most: i64) -> Result<(), StorageError> {
    if (0..=at_most).contains(&epoch) {
        return Ok(());
    }
    Err(StorageError::EpochBeyondReason { file: disk.describe(Dir::Snap, which.name()), epoch, at_most })
}

fn derive<D: Disk>(disk: &D, which: EpochFile, epoch: i64) -> Result<i64, StorageError> {
    store(disk, which, epoch)?;
    Ok(epoch)
}

/// Writes one, durably and atomically.
pub fn store<D: Disk>(disk: &D, which: EpochFile, epoch: i64) -> Result<(), StorageError> {
    let name = which.name();
    let unfinished = format!("{name}{UNFINISHED}");
    let described = disk.describe(Dir::Snap, name);
    let mut file =
        disk.create(Dir::Snap, &unfinished).map_err(StorageError::io("create", described.clone()))?;
    let written = file.write_at(0, epoch.to_string().as_bytes());
    written.map_err(StorageError::io("write", described.clone()))?;
    file.sync().map_err(StorageError::io("sync", described.clone()))?;
    let renamed = disk.rename(Dir::Snap, &unfinished, name);
    renamed.map_err(StorageError::io("rename", described.clone()))?;
    disk.sync_dir(Dir::Snap).map_err(StorageError::io("sync the directory of", described))
}

fn read<D: Disk>(disk: &D, name: &str) -> Result<Option<i64>, StorageError> {
    let described = disk.describe(Dir::Snap, name);
    let file = match disk.open(Dir::Snap, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StorageError::io("open", described.clone()))?,
    };
    let mut text = [0u8; TEXT_BYTES_MAX];
    let length = file.read_at(0, &mut text).map_err(StorageError::io("read", described.clone()))?;
    let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    match number {
        Some(epoch) => Ok(Some(epoch)),
        None => Err(StorageError::Epochs { what: format!("{described} does not hold a decimal number") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::mem::MemDisk;

    #[test]
    fn missing_files_follow_the_log_and_are_written() {
        let disk = MemDisk::new();
        let epochs = load(&disk, Zxid(3 << 32 | 7)).expect("load");
        assert_eq!(epochs, Epochs { accepted: 3, current: 3 });
        disk.crash(0);
        assert_eq!(disk.contents(Dir::Snap, "acceptedEpoch").as_deref(), Some(&b"3"[..]));
        assert_eq!(disk.contents(Dir::Snap, "currentEpoch").as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn contradictions_are_refused_with_numbers() {
        let disk = MemDisk::new();
        store(&disk, EpochFile::Accepted, 2).expect("store");
        store(&disk, EpochFile::Current, 2).expect("store");
        let error = load(&disk, Zxid(3 << 32 | 1)).expect_err("log ahead").to_string();
        assert!(error.contains("currentEpoch is 2") && error.contains("epoch 3"), "{error}");
        store(&disk, EpochFile::Current, 5).expect("store");
        let error = load(&disk, Zxid(3 << 32 | 1)).expect_err("accepted behind").to_string();
        assert!(error.contains("acceptedEpoch is 2"), "{error}");
    }

    #[test]
    fn a_crash_between_log_and_epoch_is_repaired() {
        let disk = MemDisk::new();
        store(&disk, EpochFile::Accepted, 4).expect("store");
        store(&disk, EpochFile::Current, 3).expect("store");
        let epochs = load(&disk, Zxid(4 << 32 | 1)).expect("load");
        assert_eq!(epochs, Epochs { accepted: 4, current: 4 });
        disk.crash(0);
        assert_eq!(disk.contents(Dir::Snap, "currentEpoch").as_deref(), Some(&b"4"[..]));
    }

    #[test]
    fn an_epoch_that_cannot_be_is_refused_with_its_file() {
        let far = EPOCH_MAX - EPOCHS_KEPT / 2;
        let cases = [
            (far, 5, None),
            (far + 1, 5, Some("acceptedEpoch")),
            (EPOCH_MAX, 5, Some("acceptedEpoch")),
            (EPOCH_MAX, EPOCH_MAX, None),
            (EPOCH_MAX + 1, EPOCH_MAX + 1, Some("currentEpoch")),
            (i64::MAX, i64::MAX, Some("currentEpoch")),
            (-1, 5, Some("acceptedEpoch")),
        ];
        for (accepted, current, refused) in cases {
            let disk = MemDisk::new();
            store(&disk, EpochFile::Accepted, accepted).expect("store");
            store(&disk, EpochFile::Current, current).expect("store");
            match (load(&disk, Zxid(5 << 32 | 1)), refused) {
                (Ok(epochs), None) => assert_eq!(epochs, Epochs { accepted, current }),
                (Err(error), Some(file)) => {
                    let error = error.to_string();
                    assert!(error.starts_with(file) || error.contains(&format!("/{file} ")), "{error}");
                    assert!(error.contains("expected 0 to") && error.contains("start"), "{error}");
                }
                (loaded, _) => panic!("{accepted}, {current}: {loaded:?}"),
            }
        }
    }

    #[test]
    fn noise_in_an_epoch_file_is_named() {
        let disk = MemDisk::new();
        let mut file = disk.create(Dir::Snap, "currentEpoch").expect("create");
        file.write_at(0, b"three").expect("write");
        let error = load(&disk, Zxid(1)).expect_err("noise").to_string();
        assert!(error.contains("currentEpoch") && error.contains("decimal"), "{error}");
    }

    #[test]
    fn every_crash_leaves_the_old_or_the_new_value() {
        for operation in 1..20 {
            let disk = MemDisk::new();
            store(&disk, EpochFile::Current, 6).expect("store");
            disk.freeze_after(operation);
            let done = store(&disk, EpochFile::Current, 7).is_ok();
            for seed in 0..8 {
                let after = disk.fork();
                after.crash(seed);
                let value = read(&after, "currentEpoch").expect("readable");
                assert!(value == Some(7) || (value == Some(6) && !done), "operation {operation}: {value:?}");
            }
        }
    }
}
