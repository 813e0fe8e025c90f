//! `acceptedEpoch` and `currentEpoch` (being filled in).

use super::disk::Disk;
use super::error::StorageError;
use zoometry_wire::Zxid;

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochFile {
    /// The newest epoch this member has promised to.
    Accepted,
    /// The newest epoch whose leader's history this member has taken over.
    Current,
}

/// Both values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// `acceptedEpoch`.
    pub accepted: i64,
    /// `currentEpoch`.
    pub current: i64,
}

/// Reads both files, derives missing ones from `last`, and refuses contradictions.
pub fn load<D: Disk>(disk: &D, last: Zxid) -> Result<Epochs, StorageError> {
    let _ = (disk, last);
    unimplemented!()
}

/// Writes one, durably and atomically.
pub fn store<D: Disk>(disk: &D, which: EpochFile, epoch: i64) -> Result<(), StorageError> {
    let _ = (disk, which, epoch);
    unimplemented!()
}
