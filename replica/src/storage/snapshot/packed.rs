//! Compressed snapshot files: gzip, and snappy in the framing of xerial's Java library.
//!
//! ```text
//! snappy   magic 82 'SNAPPY' 00, int version 1, int oldest version that can read it 1, blocks
//! block    int length, so many bytes of snappy's own format; Java's writer packs 32 KiB at a time
//! ```
//!
//! The bytes inside are those of a plain file, seals and all. Source: `P/SnapStream.java`, and for the framing
//! `SnappyOutputStream.java` of xerial's snappy-java.

use super::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Read, Write};

/// What a file of snappy blocks begins with.
pub(super) const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Both versions in the header.
const SNAPPY_VERSION: i32 = 1;
/// So much goes into a block.
const BLOCK_BYTES: usize = 32 << 10;
/// No block that is longer, packed or unpacked, is read.
const BLOCK_BYTES_MAX: usize = 64 << 20;
/// No block is read that claims to have been so many times as long: snappy cannot do that.
const RATIO_MAX: usize = 64;

/// Packs what goes into a file.
pub(super) enum Packer {
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Box<SnappyWriter>),
}

impl Packer {
    /// `None`: the bytes are written as they are.
    pub(super) fn new(compression: Compression) -> Option<Self> {
        match compression {
            Compression::None => None,
            // At a start clients wait for it.
            Compression::Gzip => Some(Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast()))),
            Compression::Snappy => Some(Self::Snappy(Box::new(SnappyWriter::new()))),
        }
    }

    /// Takes `bytes`, and puts what has been packed in the place of what is in `packed`.
    pub(super) fn pack(&mut self, bytes: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        packed.clear();
        match self {
            Self::Gzip(gzip) => {
                gzip.write_all(bytes)?;
                packed.append(gzip.get_mut());
                Ok(())
            }
            Self::Snappy(snappy) => snappy.pack(bytes, packed),
        }
    }

    /// As [`pack`](Self::pack), with all that is left.
    pub(super) fn finish(&mut self, packed: &mut Vec<u8>) -> io::Result<()> {
        packed.clear();
        match self {
            Self::Gzip(gzip) => {
                gzip.try_finish()?;
                packed.append(gzip.get_mut());
                Ok(())
            }
            Self::Snappy(snappy) => snappy.put_block(packed),
        }
    }
}

/// Blocks of snappy.
pub(super) struct SnappyWriter {
    encoder: snap::raw::Encoder,
    /// Not yet a block.
    waiting: Vec<u8>,
    is_begun: bool,
}

impl SnappyWriter {
    fn new() -> Self {
        Self { encoder: snap::raw::Encoder::new(), waiting: Vec::new(), is_begun: false }
    }

    fn pack(&mut self, mut bytes: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(taken);
            bytes = rest;
            if self.waiting.len() == BLOCK_BYTES {
                self.put_block(packed)?;
            }
        }
        Ok(())
    }

    fn put_block(&mut self, packed: &mut Vec<u8>) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_begun, true) {
            packed.extend_from_slice(&SNAPPY_MAGIC);
            packed.extend_from_slice(&SNAPPY_VERSION.to_be_bytes());
            packed.extend_from_slice(&SNAPPY_VERSION.to_be_bytes());
        }
        if !self.waiting.is_empty() {
            let block = self.encoder.compress_vec(&self.waiting).map_err(io::Error::other)?;
            packed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            packed.extend_from_slice(&block);
            self.waiting.clear();
        }
        Ok(())
    }
}

/// What a file of snappy blocks holds.
pub(super) struct SnappyReader<R> {
    source: R,
    decoder: snap::raw::Decoder,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// Of the block, what has been read.
    taken: usize,
    is_begun: bool,
}

impl<R: Read> SnappyReader<R> {
    pub(super) fn new(source: R) -> Self {
        let decoder = snap::raw::Decoder::new();
        Self { source, decoder, packed: Vec::new(), block: Vec::new(), taken: 0, is_begun: false }
    }

    fn read_head(&mut self) -> io::Result<()> {
        let mut head = [0; 16];
        self.source.read_exact(&mut head)?;
        if head[..8] != SNAPPY_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has no header of snappy blocks"));
        }
        Ok(())
    }

    /// Says whether there was one.
    fn read_block(&mut self) -> io::Result<bool> {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut length = [0; 4];
        let there = read_up_to(&mut self.source, &mut length)?;
        if there == 0 {
            return Ok(false);
        }
        if there < length.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(bad(format!("a block of {length} bytes, at most {BLOCK_BYTES_MAX} are read")));
        }
        self.packed.clear();
        // No more than the file has.
        self.source.by_ref().take(length as u64).read_to_end(&mut self.packed)?;
        if self.packed.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let unpacked = snap::raw::decompress_len(&self.packed).map_err(|error| bad(error.to_string()))?;
        if unpacked > BLOCK_BYTES_MAX.min(length * RATIO_MAX) {
            return Err(bad(format!("a block of {length} bytes that claims to hold {unpacked}")));
        }
        self.block.resize(unpacked, 0);
        self.taken = 0;
        self.decoder
            .decompress(&self.packed, &mut self.block)
            .map_err(|error| bad(error.to_string()))
            .map(|_| true)
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.read_head()?;
        }
        while self.taken == self.block.len() {
            if !self.read_block()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.taken);
        buffer[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Fills `buffer`, or as much of it as there is.
fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut there = 0;
    while there < buffer.len() {
        match source.read(&mut buffer[there..])? {
            0 => break,
            read => there += read,
        }
    }
    Ok(there)
}
