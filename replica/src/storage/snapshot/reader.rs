//! Reading a snapshot file.

use super::packed::SnappyReader;
use super::{
    END_MARK, Found, HEADER_BYTES, ItemDecoder, MAGIC, SEAL_BYTES, SnapshotEnd, SnapshotItem, put_seal,
};
use crate::storage::disk::{Dir, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::names::{Compression, parse_snapshot};
use bytes::BytesMut;
use std::io::{self, Read};
use zoometry_wire::jute::Reader;
use zoometry_wire::txn::TxnDigest;
use zoometry_wire::{Record, Zxid};

/// The file is read in pieces of this size.
const READ_BYTES: usize = 256 << 10;
/// Seal, digest block and zxid block with their seals; an old digest is a hex string.
const TAIL_BYTES_MAX: usize = 256;

/// Reads a snapshot file item by item, in bounded memory. Checks every seal; whoever builds something from
/// the items may only trust it when the iterator has ended without an error.
pub struct SnapshotReader {
    source: Box<dyn Read + Send>,
    described: String,
    decoder: ItemDecoder,
    chunk: Vec<u8>,
    end: Option<SnapshotEnd>,
    failed: bool,
}

impl SnapshotReader {
    /// Opens the file and reads its header.
    pub fn open<D: Disk>(disk: &D, name: &str) -> Result<Self, StorageError> {
        let described = disk.describe(Dir::Snap, name);
        let (zxid, compression) = parse_snapshot(name).unwrap_or((Zxid(0), Compression::None));
        let found = Found { zxid, name: name.to_owned(), compression };
        let file = disk.open(Dir::Snap, &found.name).map_err(StorageError::io("open", described.clone()))?;
        let plain = FileSource { file, offset: 0 };
        let source: Box<dyn Read + Send> = match found.compression {
            Compression::None => Box::new(plain),
            Compression::Gzip => {
                Box::new(flate2::read::GzDecoder::new(io::BufReader::with_capacity(READ_BYTES, plain)))
            }
            Compression::Snappy => {
                Box::new(SnappyReader::new(io::BufReader::with_capacity(READ_BYTES, plain)))
            }
        };
        let decoder = ItemDecoder::new();
        let mut reader = Self { source, described, decoder, chunk: Vec::new(), end: None, failed: false };
        while reader.decoder.rest().len() < HEADER_BYTES {
            if !reader.read_more()? {
                return Err(reader.corrupt("the file ends inside its header"));
            }
        }
        if reader.decoder.rest()[..4] != MAGIC.to_be_bytes() {
            return Err(reader.corrupt("not a snapshot: it does not begin with ZKSN"));
        }
        reader.decoder.consume(HEADER_BYTES);
        Ok(reader)
    }

    /// What stood behind the last znode; `None` until the iterator has ended without an error.
    pub fn end(&self) -> Option<SnapshotEnd> {
        self.end
    }

    fn step(&mut self) -> Result<Option<SnapshotItem>, StorageError> {
        loop {
            match self.decoder.next_item() {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) if self.decoder.is_done() => {
                    self.end = Some(self.read_end()?);
                    return Ok(None);
                }
                Ok(None) => {
                    if !self.read_more()? {
                        return Err(self.corrupt("the file ends before the last znode"));
                    }
                }
                Err(error) => {
                    return Err(StorageError::CorruptSnapshot {
                        file: self.described.clone(),
                        offset: error.offset as u64,
                        what: format!("malformed {}", error.what),
                    });
                }
            }
        }
    }

    /// Seals and optional blocks; which of these there are follows from how much is left.
    fn read_end(&mut self) -> Result<SnapshotEnd, StorageError> {
        while self.decoder.rest().len() <= TAIL_BYTES_MAX && self.read_more()? {}
        self.check_seal()?;
        let mut end = SnapshotEnd::default();
        const ZXID_BLOCK: usize = 8 + SEAL_BYTES;
        if !matches!(self.decoder.rest().len(), 0 | ZXID_BLOCK) {
            end.digest = self.read_digest()?;
            self.check_seal()?;
        }
        if self.decoder.rest().len() == ZXID_BLOCK {
            end.last_zxid = Zxid::from_bytes(self.decoder.rest()).ok();
            self.decoder.consume(8);
            self.check_seal()?;
        }
        match self.decoder.rest().len() {
            0 => Ok(end),
            left => Err(self.corrupt(format!("{left} bytes that do not belong there"))),
        }
    }

    /// Before version 2 the digest was a string and covered other fields: it is skipped.
    fn read_digest(&mut self) -> Result<Option<(Zxid, TxnDigest)>, StorageError> {
        let mut input = Reader::new(self.decoder.rest());
        let read = (|| {
            let (zxid, version) = (Zxid::decode(&mut input)?, i32::decode(&mut input)?);
            if version < 2 {
                input.buffer()?;
                return Ok(None);
            }
            Ok(Some((zxid, TxnDigest { version, tree: Record::decode(&mut input)? })))
        })();
        let taken = input.offset();
        let digest = read.map_err(|_: zoometry_wire::Malformed| self.corrupt("malformed digest block"))?;
        self.decoder.consume(taken);
        Ok(digest)
    }

    fn check_seal(&mut self) -> Result<(), StorageError> {
        let mut expected = BytesMut::with_capacity(SEAL_BYTES);
        put_seal(self.decoder.adler(), &mut expected);
        match self.decoder.rest().get(..SEAL_BYTES) {
            None => Err(self.corrupt("the file ends inside a checksum")),
            Some(seal) if seal == expected => {
                self.decoder.consume(SEAL_BYTES);
                Ok(())
            }
            Some(seal) if &seal[12..] != END_MARK.as_bytes() => {
                Err(self.corrupt("a checksum without its end mark"))
            }
            Some(_) => Err(self.corrupt("the checksum is not that of the bytes before it")),
        }
    }

    fn read_more(&mut self) -> Result<bool, StorageError> {
        self.chunk.resize(READ_BYTES, 0);
        let read = self.source.read(&mut self.chunk);
        let read = read.map_err(|error| match error.kind() {
            // The decompressor's verdict on the bytes, not the disk's.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.corrupt(format!("cannot be unpacked: {error}"))
            }
            _ => StorageError::Io { doing: "read", file: self.described.clone(), source: error },
        })?;
        self.decoder.push(&self.chunk[..read]);
        Ok(read > 0)
    }

    pub(in crate::storage) fn corrupt(&self, what: impl Into<String>) -> StorageError {
        StorageError::CorruptSnapshot {
            file: self.described.clone(),
            offset: self.decoder.offset(),
            what: what.into(),
        }
    }
}

/// Ends after the first error.
impl Iterator for SnapshotReader {
    type Item = Result<SnapshotItem, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.end.is_some() {
            return None;
        }
        let item = self.step().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

struct FileSource<F> {
    file: F,
    offset: u64,
}

impl<F: DiskFile> Read for FileSource<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}
