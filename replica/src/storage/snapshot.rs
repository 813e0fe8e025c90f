//! Snapshot files (being written).

use bytes::Bytes;
use zoometry_wire::{Acl, SessionId, StatPersisted};

/// One piece of a snapshot, in the order in which they stand in the file: sessions, ACLs, znodes with
/// parents before children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A session and its timeout, ms.
    Session(SessionId, i32),
    /// An entry of the ACL table: the index that znodes refer to, and the list.
    Acl(i64, Vec<Acl>),
    /// A znode.
    Node(SnapshotNode),
}

/// A znode as it stands in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotNode {
    /// Its path; the root's is empty.
    pub path: String,
    /// Its data; null and empty differ.
    pub data: Option<Bytes>,
    /// Index into the ACL table; −1 is `world:anyone`, all permissions.
    pub acl: i64,
    /// Its status.
    pub stat: StatPersisted,
}

use super::disk::Disk;
use super::error::StorageError;
use zoometry_wire::Zxid;
use zoometry_wire::txn::TxnDigest;

/// What stands behind the last znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotEnd {
    /// The tree's digest, and the zxid at which it was that.
    pub digest: Option<(Zxid, TxnDigest)>,
    /// Last zxid processed when writing ended (3.9 and later).
    pub last_zxid: Option<Zxid>,
}

/// Writes `snapshot.<zxid>`: under a temporary name, renamed when it is whole and durable.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins; `head` holds all sessions and ACLs, in this order.
    pub fn create(disk: D, zxid: Zxid, head: &[SnapshotItem]) -> Result<Self, StorageError> {
        let _ = (zxid, head);
        let _ = Self { disk };
        unimplemented!()
    }
    /// Takes a znode into the buffer.
    pub fn node(&mut self, node: &SnapshotNode) {
        let _ = (node, &self.disk);
        unimplemented!()
    }
    /// Bytes encoded and not yet handed to the disk.
    pub fn pending_bytes(&self) -> usize {
        0
    }
    /// Writes the buffer out if it is worth a call. Call it without holding locks.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// Seals, syncs and renames. Returns the file's name and length, bytes.
    pub fn finish(self, end: SnapshotEnd) -> Result<(String, u64), StorageError> {
        let _ = end;
        unimplemented!()
    }
}

/// Reads a snapshot file item by item, in bounded memory.
pub struct SnapshotReader {
    end: Option<SnapshotEnd>,
}

impl SnapshotReader {
    /// Opens the file and reads its header.
    pub fn open<D: Disk>(disk: &D, name: &str) -> Result<Self, StorageError> {
        let _ = (disk, name);
        unimplemented!()
    }
    /// What stood behind the last znode; `None` until the iterator has ended.
    pub fn end(&self) -> Option<SnapshotEnd> {
        self.end
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<SnapshotItem, StorageError>;
    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}

/// The digest block for a tree whose digest at `zxid` is `digest`.
pub fn digest_block(zxid: Zxid, digest: u64) -> (Zxid, TxnDigest) {
    (zxid, TxnDigest { version: 2, tree: digest as i64 })
}
