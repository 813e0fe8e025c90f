//! The seam between storage and a file system: few methods, all blocking.
//!
//! Everything hard (formats, torn tails, recovery, retention) is above this trait and exists once, for real
//! files (`server/src/disk.rs`) and for the simulated disk ([`mem::MemDisk`]).
//!
//! What an implementation promises:
//! - after [`DiskFile::sync`] returns, every byte written to that file before it survives a power failure;
//!   before that, any part of it may survive;
//! - a created, renamed or removed *name* survives only after [`Disk::sync_dir`];
//! - [`Disk::rename`] is atomic: after a crash the new name holds the old file or the new one, whole;
//! - bytes never written read as zeros.

pub mod mem;

use std::io;

/// Which of a member's two directories. They may be one and the same place (no `dataLogDir`), and then
/// both list all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// `dataLogDir/version-2`: the log files.
    Log,
    /// `dataDir/version-2`: snapshots and epoch files.
    Snap,
}

impl std::fmt::Display for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Log => "log directory",
            Self::Snap => "snapshot directory",
        })
    }
}

/// Where a member keeps its files. Cheap to clone; clones speak of the same files.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// Names of the plain files in `dir`, in no particular order.
    fn list(&self, dir: Dir) -> io::Result<Vec<String>>;
    /// Opens an existing file, to read it or to truncate it.
    fn open(&self, dir: Dir, name: &str) -> io::Result<Self::File>;
    /// Creates an empty file; one of that name is emptied.
    fn create(&self, dir: Dir, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name in the same directory, replacing what had it.
    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, dir: Dir, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    fn sync_dir(&self, dir: Dir) -> io::Result<()>;
    /// Whether the two directories are different places.
    fn is_split(&self) -> bool;
    /// The full name that a person can find the file by, for messages.
    fn describe(&self, dir: Dir, name: &str) -> String;
}

/// One open file.
pub trait DiskFile: Send + 'static {
    /// Its length, bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads into `buffer` from `offset`; returns how many bytes were there, 0 at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, growing the file if needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the bytes written so far durable, and the length (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` bytes and grows the file to it; new bytes read as zeros. Where the file
    /// system cannot reserve, this is [`set_len`](DiskFile::set_len).
    fn reserve(&mut self, len: u64) -> io::Result<()>;

    /// The bytes from `from` to `to`, which are durable, will hardly be read: memory that keeps a copy of them
    /// may be used for something else. A hint; reading them brings what was written.
    fn forget(&mut self, from: u64, to: u64) {
        let _ = (from, to);
    }

    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}
