//! Transaction log files (being filled in).

use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use bytes::{Bytes, BytesMut};
use zoometry_wire::{TxnRecord, Zxid};

/// When a commit may be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// After fdatasync.
    #[default]
    Always,
    /// After write (`forceSync=no`): a power failure may lose what was acknowledged.
    Never,
}

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// `preAllocSize`, bytes: files grow in such steps, ahead of the writing. 0: no preallocation.
    pub prealloc_bytes: u64,
    /// `forceSync`.
    pub sync: SyncMode,
    /// `txnLogSizeLimitInKb`, as bytes: a larger file is rolled without a snapshot. `None`: never.
    pub roll_at_bytes: Option<u64>,
}

/// The log being written. Never appends to an older file: the first append after [`TxnLog::new`] or
/// [`TxnLog::roll`] opens `log.<its zxid>`.
pub struct TxnLog<D: Disk> {
    disk: D,
    options: LogOptions,
    buffer: BytesMut,
    file: Option<D::File>,
}

/// What one commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Last zxid it covers.
    pub upto: Zxid,
    /// Records in it.
    pub records: u32,
    /// Bytes written.
    pub bytes: u64,
}

impl<D: Disk> TxnLog<D> {
    /// A log that opens its file at the first append.
    pub fn new(disk: D, options: LogOptions) -> Self {
        Self { disk, options, buffer: BytesMut::new(), file: None }
    }
    /// Takes a payload (header, transaction, digest as encoded by [`TxnRecord`]) into the buffer.
    pub fn append(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), StorageError> {
        let _ = (zxid, payload, &self.disk, &self.options, &self.buffer, &self.file);
        unimplemented!()
    }
    /// Writes the buffer into the file, without syncing.
    pub fn write(&mut self) -> Result<Committed, StorageError> {
        unimplemented!()
    }
    /// Makes what was written durable, as the options say.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// [`write`](Self::write) and [`sync`](Self::sync).
    pub fn commit(&mut self) -> Result<Committed, StorageError> {
        let committed = self.write()?;
        self.sync()?;
        Ok(committed)
    }
    /// Commits, closes the file, and lets the next append open another.
    pub fn roll(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// Bytes in the present file, padding not counted.
    pub fn file_bytes(&self) -> u64 {
        0
    }
}

/// One record out of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Decoded.
    pub record: TxnRecord,
    /// As it stands in the file.
    pub payload: Bytes,
}

/// Reads one log file from its start.
pub struct LogReader<F: DiskFile> {
    file: F,
}

impl<F: DiskFile> LogReader<F> {
    /// The next record; `None` at the end, be it clean or torn.
    pub fn next_entry(&mut self) -> Result<Option<LogEntry>, StorageError> {
        let _ = &self.file;
        unimplemented!()
    }
}

/// Cuts the log right behind `zxid` and removes later files.
pub fn truncate<D: Disk>(disk: &D, zxid: Zxid) -> Result<(), StorageError> {
    let _ = (disk, zxid);
    unimplemented!()
}
