//! Writing a snapshot file.

use super::packed::Packer;
use super::{
    Compression, DBID, MAGIC, SnapshotEnd, SnapshotItem, SnapshotNode, VERSION, encode_end, encode_head,
    encode_node, put_seal,
};
use crate::storage::disk::{Dir, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::names;
use bytes::{BufMut, BytesMut};
use simd_adler32::Adler32;
use zoometry_wire::{Record, Zxid};

/// The buffer goes to the disk when it holds this much.
const FLUSH_BYTES: usize = 256 << 10;

/// Writes `snapshot.<zxid>`, plain or packed: under a temporary name, renamed when it is whole and durable. One that is dropped
/// unfinished leaves the temporary file behind; the next recovery removes it.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    file: D::File,
    name: String,
    described: String,
    buffer: BytesMut,
    packer: Option<Packer>,
    packed: Vec<u8>,
    /// Bytes at the disk.
    written: u64,
    /// Over the bytes that have left the buffer, as they were there.
    adler: Adler32,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins; `head` holds all sessions and ACLs. `zxid` is the last transaction applied.
    pub fn create(
        disk: D,
        zxid: Zxid,
        compression: Compression,
        head: &[SnapshotItem],
    ) -> Result<Self, StorageError> {
        Self::create_named(disk, names::snapshot(zxid, compression), compression, head)
    }

    /// As [`create`](Self::create), for [`install`](crate::storage::install::install). Another snapshot of
    /// the same zxid, of a state that is being given up, may still be at its temporary file.
    pub fn create_installing(disk: D, zxid: Zxid, head: &[SnapshotItem]) -> Result<Self, StorageError> {
        Self::create_named(disk, names::installing(zxid), Compression::None, head)
    }

    fn create_named(
        disk: D,
        name: String,
        compression: Compression,
        head: &[SnapshotItem],
    ) -> Result<Self, StorageError> {
        let described = disk.describe(Dir::Snap, &name);
        let file = disk.create(Dir::Snap, &names::unfinished(&name));
        let file = file.map_err(StorageError::io("create", described.clone()))?;
        let mut buffer = BytesMut::with_capacity(FLUSH_BYTES);
        buffer.put_i32(MAGIC);
        buffer.put_i32(VERSION);
        buffer.put_i64(DBID);
        encode_head(head, &mut buffer);
        let (packer, adler) = (Packer::new(compression), Adler32::new());
        Ok(Self { disk, file, name, described, buffer, packer, packed: Vec::new(), written: 0, adler })
    }

    /// Takes a znode into the buffer. No I/O: it may run under a lock.
    pub fn node(&mut self, node: &SnapshotNode) {
        encode_node(node, &mut self.buffer);
    }

    /// Bytes encoded and not yet handed to the disk.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the buffer out if it is worth a call. Call it often, and without holding locks.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if self.buffer.len() < FLUSH_BYTES { Ok(()) } else { self.write_out() }
    }

    /// Seals, syncs and renames. Returns the file's name and length, bytes.
    pub fn finish(self, end: SnapshotEnd) -> Result<(String, u64), StorageError> {
        self.seal_up(end)?.publish()
    }

    /// Seals and syncs; the file keeps its temporary name until it is published.
    pub fn seal_up(mut self, end: SnapshotEnd) -> Result<Sealed<D>, StorageError> {
        assert!(
            end.digest.is_some() || end.last_zxid.is_none(),
            "the zxid block alone would be read as a digest"
        );
        encode_end(&mut self.buffer);
        self.seal()?;
        if let Some((zxid, digest)) = end.digest {
            zxid.encode(&mut self.buffer);
            digest.encode(&mut self.buffer);
            self.seal()?;
        }
        if let Some(zxid) = end.last_zxid {
            zxid.encode(&mut self.buffer);
            self.seal()?;
        }
        self.write_rest()?;
        let Self { disk, mut file, name, described, written: bytes, .. } = self;
        file.sync().map_err(StorageError::io("sync", described))?;
        Ok(Sealed { disk, name, bytes })
    }

    /// Removes the unfinished file again, after a failure.
    pub fn abandon(self) {
        // It failed already; whether this works too changes nothing, recovery tidies as well.
        let _ = self.disk.remove(Dir::Snap, &names::unfinished(&self.name));
    }

    fn seal(&mut self) -> Result<(), StorageError> {
        self.write_out()?;
        put_seal(self.adler.finish(), &mut self.buffer);
        self.write_out()
    }

    fn write_out(&mut self) -> Result<(), StorageError> {
        let bytes = match &mut self.packer {
            None => &self.buffer[..],
            Some(packer) => {
                let packed = packer.pack(&self.buffer, &mut self.packed);
                packed.map_err(StorageError::io("pack", self.described.clone()))?;
                &self.packed
            }
        };
        let written = self.file.write_at(self.written, bytes);
        written.map_err(StorageError::io("write", self.described.clone()))?;
        self.written += bytes.len() as u64;
        self.adler.write(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    /// What the packer has kept back.
    fn write_rest(&mut self) -> Result<(), StorageError> {
        let Some(packer) = &mut self.packer else { return Ok(()) };
        let packed = packer.finish(&mut self.packed);
        packed.map_err(StorageError::io("pack", self.described.clone()))?;
        let written = self.file.write_at(self.written, &self.packed);
        written.map_err(StorageError::io("write", self.described.clone()))?;
        self.written += self.packed.len() as u64;
        Ok(())
    }
}

/// A snapshot that is whole and durable, and still has its temporary name. Dropped, it is as one that was
/// never finished.
pub struct Sealed<D: Disk> {
    disk: D,
    name: String,
    bytes: u64,
}

impl<D: Disk> Sealed<D> {
    /// Gives it its name, durably. Returns the name and the file's length, bytes.
    pub fn publish(self) -> Result<(String, u64), StorageError> {
        let Self { disk, name, bytes } = self;
        let described = disk.describe(Dir::Snap, &name);
        let renamed = disk.rename(Dir::Snap, &names::unfinished(&name), &name);
        renamed.map_err(StorageError::io("rename", described.clone()))?;
        disk.sync_dir(Dir::Snap).map_err(StorageError::io("sync the directory of", described))?;
        Ok((name, bytes))
    }

    /// The name that it will have.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes it: the state it is of has been given up.
    pub fn abandon(self) {
        // Whether this works changes nothing, recovery tidies as well.
        let _ = self.disk.remove(Dir::Snap, &names::unfinished(&self.name));
    }
}
