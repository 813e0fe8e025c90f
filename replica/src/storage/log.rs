//! Transaction log files, in Apache's format, byte for byte.
//!
//! ```text
//! header   int 'ZKLG', int 2, long 0                                   16 bytes
//! record   long adler32(payload), int length, payload, byte 0x42       13 + length bytes, any number
//! padding  zeros, up to the end of the file
//! ```
//!
//! Invariants: a file named `log.<zxid>` begins with that transaction; a name appears only when the header
//! behind it is durable; a file is never written again after a roll or a restart, only cut by [`truncate`];
//! within a file zxids grow.
//!
//! Reading, a length of zero, the end of the file inside a record, or a wrong end byte is the end of that
//! file (a torn tail). A record whose end byte is right and whose checksum is wrong was damaged after it was
//! written, or only partly written by a disk that reorders; nobody can tell which, so it is an error.
//!
//! Padding is there for fdatasync: as long as a write stays inside blocks that are allocated *and written*,
//! the sync has no metadata to journal. So space is reserved in steps of `preAllocSize`, and zeros are
//! written [`ZERO_FILL_BYTES`] ahead of the records, in the same call as the records that reach the end of
//! the zeros. Reserved but unwritten blocks alone cost a journal commit at each sync. A roll cuts the
//! padding off.
//!
//! Source: `P/FileTxnLog.java`, `P/FilePadding.java`, `P/Util.java`; reference §9.2, §9.7.

use super::disk::{Dir, Disk, DiskFile};
use super::error::StorageError;
use super::names;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use zoometry_wire::{Record, TxnRecord, Zxid};

mod since;
mod truncate;
pub use since::{LogRange, LogSync, SNAPSHOT_SIZE_FACTOR_DEFAULT, WhySnap, log_since, size_limit};
pub use truncate::truncate;

/// `ZKLG`.
pub const MAGIC: i32 = 0x5a4b_4c47;
/// The only version there is.
pub const VERSION: i32 = 2;
/// The file header's length.
pub const HEADER_BYTES: usize = 16;
/// Closes every record.
pub const END_OF_RECORD: u8 = 0x42;
/// Checksum and length in front of a payload.
const RECORD_HEAD_BYTES: usize = 12;
/// Apache's default `preAllocSize`.
pub const PREALLOC_BYTES_DEFAULT: u64 = 65_536 << 10;
/// Space is reserved when fewer bytes than this are left behind the records, as Apache does.
const RESERVE_MARGIN_BYTES: u64 = 4096;
/// Zeros are written this far ahead of the records. Small enough not to delay the commit that writes them,
/// large enough that few commits do.
pub const ZERO_FILL_BYTES: usize = 512 << 10;
/// What lies so far behind the records need not be kept in memory; told in pieces of this size.
const FORGET_BYTES: u64 = 512 << 10;
/// Longest payload that is read. Only bytes that are really in the file take memory; this stops a length
/// that is noise early. Far above any `jute.maxbuffer`.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// A buffer that grew beyond this in a burst is let go afterwards.
const BUFFER_KEPT_BYTES: usize = 4 << 20;
/// Log files are read in pieces of this size.
const READ_BYTES: usize = 256 << 10;

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

impl Default for LogOptions {
    fn default() -> Self {
        Self { prealloc_bytes: PREALLOC_BYTES_DEFAULT, sync: SyncMode::Always, roll_at_bytes: None }
    }
}

/// What one commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Last zxid it covers.
    pub upto: Zxid,
    /// Records in it.
    pub records: u32,
    /// Bytes of records written: payloads, heads and end bytes.
    pub bytes: u64,
}

/// The log being written. Never appends to an older file: the first append after [`TxnLog::new`] or
/// [`TxnLog::roll`] opens `log.<its zxid>`.
///
/// After an error nothing more may be written: what the file holds then is not known.
#[derive(Debug)]
pub struct TxnLog<D: Disk> {
    disk: D,
    options: LogOptions,
    /// Records not yet handed to the disk.
    buffer: BytesMut,
    /// First zxid in the buffer; names the file if none is open.
    first: Option<Zxid>,
    pending: Committed,
    last: Zxid,
    open: Option<OpenLog<D::File>>,
}

#[derive(Debug)]
struct OpenLog<F> {
    file: F,
    name: String,
    /// Where the next record goes.
    end: u64,
    /// The file's length, padding included.
    reserved: u64,
    /// Zeros have been written up to here.
    zeroed: u64,
    /// The system may forget its copy up to here.
    forgotten: u64,
    /// Written since the last sync.
    dirty: bool,
    preallocate: bool,
}

impl<D: Disk> TxnLog<D> {
    /// A log that opens its file at the first append.
    pub fn new(disk: D, options: LogOptions) -> Self {
        Self {
            disk,
            options,
            buffer: BytesMut::new(),
            first: None,
            pending: Committed::default(),
            last: Zxid(0),
            open: None,
        }
    }

    /// Takes a payload (header, transaction, digest as encoded by [`TxnRecord`]) into the buffer. `zxid`
    /// must be behind the last one appended here.
    pub fn append(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), StorageError> {
        if zxid <= self.last {
            return Err(StorageError::OutOfOrder { zxid, last: self.last });
        }
        // A length of zero is the end of a log file, and a longer payload would not be read again.
        assert!((1..=PAYLOAD_BYTES_MAX).contains(&payload.len()), "payload of {} bytes", payload.len());
        let before = self.buffer.len();
        self.buffer.reserve(RECORD_HEAD_BYTES + payload.len() + 1);
        self.buffer.put_i64(i64::from(simd_adler32::adler32(&payload)));
        self.buffer.put_i32(payload.len() as i32);
        self.buffer.put_slice(payload);
        self.buffer.put_u8(END_OF_RECORD);
        self.first.get_or_insert(zxid);
        self.last = zxid;
        self.pending.upto = zxid;
        self.pending.records += 1;
        self.pending.bytes += (self.buffer.len() - before) as u64;
        Ok(())
    }

    /// Writes the buffer into the file, without syncing. Says what was in it; zero records if nothing was.
    pub fn write(&mut self) -> Result<Committed, StorageError> {
        let Some(first) = self.first.take() else { return Ok(Committed::default()) };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create(first)?,
        };
        let records = self.buffer.len() as u64;
        open.reserve(open.end + records, self.options.prealloc_bytes);
        if self.options.sync == SyncMode::Always {
            let zeros = open.zeros_wanted(open.end + records);
            self.buffer.resize(self.buffer.len() + zeros, 0);
        }
        let written = open.file.write_at(open.end, &self.buffer);
        written.map_err(StorageError::io("write", self.disk.describe(Dir::Log, &open.name)))?;
        open.zeroed = open.zeroed.max(open.end + self.buffer.len() as u64);
        open.end += records;
        open.reserved = open.reserved.max(open.zeroed);
        open.dirty = true;
        self.open = Some(open);
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        self.buffer.clear();
        Ok(std::mem::take(&mut self.pending))
    }

    /// Makes what was written durable, as the options say, and rolls a file that has grown too large.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        let Some(open) = self.open.as_mut().filter(|open| open.dirty) else { return Ok(()) };
        if self.options.sync == SyncMode::Always {
            let synced = open.file.sync();
            synced.map_err(StorageError::io("sync", self.disk.describe(Dir::Log, &open.name)))?;
        }
        open.dirty = false;
        open.forget();
        match self.options.roll_at_bytes {
            Some(limit) if self.file_bytes() > limit => self.close(),
            _ => Ok(()),
        }
    }

    /// [`write`](Self::write) and [`sync`](Self::sync).
    pub fn commit(&mut self) -> Result<Committed, StorageError> {
        let committed = self.write()?;
        self.sync()?;
        Ok(committed)
    }

    /// Commits, closes the file, and lets the next append open another.
    pub fn roll(&mut self) -> Result<(), StorageError> {
        self.commit()?;
        self.close()
    }

    /// As [`roll`](Self::roll), for a log that has been cut behind `zxid`: appends go on from there.
    pub fn continue_from(&mut self, zxid: Zxid) -> Result<(), StorageError> {
        self.roll()?;
        self.last = zxid;
        Ok(())
    }

    /// Bytes in the present file, padding not counted; 0 between two files.
    pub fn file_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.end)
    }

    fn close(&mut self) -> Result<(), StorageError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let cut = open.file.set_len(open.end);
        cut.map_err(StorageError::io("cut the padding of", self.disk.describe(Dir::Log, &open.name)))
    }

    /// Creates `log.<first>`. The name appears when the header is durable: releases of Apache's server
    /// before 3.9.3 do not start over a log file without a header.
    fn create(&self, first: Zxid) -> Result<OpenLog<D::File>, StorageError> {
        let name = names::log(first);
        let unfinished = names::unfinished(&name);
        let described = self.disk.describe(Dir::Log, &name);
        let file = self.disk.create(Dir::Log, &unfinished);
        let file = file.map_err(StorageError::io("create", described.clone()))?;
        let mut header = BytesMut::with_capacity(HEADER_BYTES);
        header.put_i32(MAGIC);
        header.put_i32(VERSION);
        header.put_i64(0);
        let mut open = OpenLog {
            file,
            name,
            end: HEADER_BYTES as u64,
            reserved: HEADER_BYTES as u64,
            zeroed: HEADER_BYTES as u64,
            forgotten: 0,
            dirty: false,
            preallocate: self.options.prealloc_bytes > 0,
        };
        open.file.write_at(0, &header).map_err(StorageError::io("write", described.clone()))?;
        open.reserve(open.end, self.options.prealloc_bytes);
        open.file.sync().map_err(StorageError::io("sync", described.clone()))?;
        let named = self.disk.rename(Dir::Log, &unfinished, &open.name);
        named.map_err(StorageError::io("rename", described.clone()))?;
        self.disk.sync_dir(Dir::Log).map_err(StorageError::io("sync the directory of", described))?;
        Ok(open)
    }
}

impl<F: DiskFile> OpenLog<F> {
    /// Keeps the file's length ahead of `end`, in Apache's steps. A reservation that fails (a full disk, a
    /// quota) is not an error yet: the records may still fit. The write itself will say.
    fn reserve(&mut self, end: u64, step: u64) {
        if !self.preallocate || end + RESERVE_MARGIN_BYTES < self.reserved {
            return;
        }
        let len = if end > self.reserved { (end + step) / step * step } else { self.reserved + step };
        match self.file.reserve(len) {
            Ok(()) => self.reserved = len,
            Err(_) => self.preallocate = false,
        }
    }

    /// Lets the memory of what has been written go, in large pieces and some way behind the writing. A log is
    /// written and hardly ever read; the file system takes the same, warm memory for what comes next, instead
    /// of more and more of the machine's.
    fn forget(&mut self) {
        let upto = self.end.saturating_sub(FORGET_BYTES) / FORGET_BYTES * FORGET_BYTES;
        if upto > self.forgotten {
            self.file.forget(self.forgotten, upto);
            self.forgotten = upto;
        }
    }

    /// How many zeros to write behind records that end at `end`.
    fn zeros_wanted(&self, end: u64) -> usize {
        if !self.preallocate || end <= self.zeroed {
            return 0;
        }
        ZERO_FILL_BYTES.min(self.reserved.saturating_sub(end) as usize)
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

/// How a log file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// At the end of the file, or with padding behind the last record.
    Clean,
    /// In the middle of a record that was never acknowledged.
    Torn,
    /// There is no header, only zeros or the beginning of one: the file was being created when the member
    /// died.
    NoHeader,
    /// Not a single byte.
    Empty,
}

/// Reads one log file from its start.
#[derive(Debug)]
pub struct LogReader<F: DiskFile> {
    file: F,
    described: String,
    buffer: BytesMut,
    /// Offset in the file of the buffer's first byte.
    at: u64,
    end: Option<LogEnd>,
}

impl<F: DiskFile> LogReader<F> {
    /// Opens `name` and checks its header. A file without a header has no records (see
    /// [`LogEnd`]); a header that is something else is an error.
    pub fn open<D: Disk<File = F>>(disk: &D, name: &str) -> Result<Self, StorageError> {
        let described = disk.describe(Dir::Log, name);
        let file = disk.open(Dir::Log, name).map_err(StorageError::io("open", described.clone()))?;
        let mut reader = Self { file, described, buffer: BytesMut::new(), at: 0, end: None };
        let whole = reader.fill(HEADER_BYTES)?;
        let header = &reader.buffer[..reader.buffer.len().min(HEADER_BYTES)];
        let expected = MAGIC.to_be_bytes();
        let torn = !whole && header.iter().zip(&expected).all(|(byte, magic)| byte == magic);
        if header.is_empty() {
            reader.end = Some(LogEnd::Empty);
        } else if torn || header.iter().all(|byte| *byte == 0) {
            reader.end = Some(LogEnd::NoHeader);
        } else if header[..header.len().min(4)] != expected {
            return Err(reader.corrupt(0, "not a transaction log: it does not begin with ZKLG"));
        } else {
            reader.consume(HEADER_BYTES);
        }
        Ok(reader)
    }

    /// The next record; `None` at the end, see [`end`](Self::end).
    pub fn next_entry(&mut self) -> Result<Option<LogEntry>, StorageError> {
        let start = self.at;
        let Some(payload) = self.next_payload()? else { return Ok(None) };
        match TxnRecord::from_bytes(&payload) {
            Ok(record) => Ok(Some(LogEntry { record, payload })),
            Err(error) => {
                let place = format!("the checksum is right, but the transaction cannot be read: {error}");
                Err(self.corrupt(start, place))
            }
        }
    }

    /// Offset right behind the last record that was read.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// How the file ended; `None` while there may be more records.
    pub fn end(&self) -> Option<LogEnd> {
        self.end
    }

    /// The file's full name.
    pub fn described(&self) -> &str {
        &self.described
    }

    fn next_payload(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.end.is_some() {
            return Ok(None);
        }
        if !self.fill(RECORD_HEAD_BYTES)? {
            return Ok(self.finish(self.buffer.iter().all(|byte| *byte == 0)));
        }
        let mut head = &self.buffer[..RECORD_HEAD_BYTES];
        let (checksum, length) = (head.get_i64(), head.get_i32());
        if length == 0 || length == -1 {
            return Ok(self.finish(length == 0 && checksum == 0));
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX);
        let Some(length) = length else {
            return Err(self.corrupt(self.at, "a record announces an impossible length"));
        };
        let whole = RECORD_HEAD_BYTES + length + 1;
        if !self.fill(whole)? || self.buffer[whole - 1] != END_OF_RECORD {
            return Ok(self.finish(false));
        }
        let payload = &self.buffer[RECORD_HEAD_BYTES..whole - 1];
        let actual = i64::from(simd_adler32::adler32(&payload));
        if actual != checksum {
            let what = format!("the checksum of a record is {checksum:#x}, its content gives {actual:#x}");
            return Err(self.corrupt(self.at, what));
        }
        let payload = Bytes::copy_from_slice(payload);
        self.consume(whole);
        Ok(Some(payload))
    }

    fn finish(&mut self, clean: bool) -> Option<Bytes> {
        self.end = Some(if clean { LogEnd::Clean } else { LogEnd::Torn });
        None
    }

    fn consume(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.at += bytes as u64;
    }

    /// Makes the buffer at least `wanted` bytes long; false if the file ends before. Memory grows with the
    /// bytes that are there, not with those that are announced.
    fn fill(&mut self, wanted: usize) -> Result<bool, StorageError> {
        while self.buffer.len() < wanted {
            let filled = self.buffer.len();
            self.buffer.resize(filled + READ_BYTES, 0);
            let read = self.file.read_at(self.at + filled as u64, &mut self.buffer[filled..]);
            let read = read.map_err(StorageError::io("read", self.described.clone()))?;
            self.buffer.truncate(filled + read);
            if read == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::CorruptLog { file: self.described.clone(), offset, what: what.into() }
    }
}

/// The log files, oldest first.
pub fn list<D: Disk>(disk: &D) -> Result<Vec<(Zxid, String)>, StorageError> {
    let names = disk.list(Dir::Log).map_err(StorageError::io("list", disk.describe(Dir::Log, "")))?;
    let mut logs: Vec<_> =
        names.into_iter().filter_map(|name| Some((names::parse_log(&name)?, name))).collect();
    logs.sort();
    Ok(logs)
}

/// Where the newest log at or before `zxid` stands in `logs`: reading from there misses nothing behind it.
pub fn start_index(logs: &[(Zxid, String)], zxid: Zxid) -> usize {
    logs.partition_point(|(first, _)| *first <= zxid).saturating_sub(1)
}

#[cfg(test)]
mod tests;
