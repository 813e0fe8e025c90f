//! Snapshots: the item stream, and the file around it.
//!
//! ```text
//! header   int 'ZKSN', int 2, long −1
//! body     sessions  int count, (long id, int timeout)*
//!          ACLs      int count, (long index, vector<ACL>)*
//!          znodes    (string path, buffer data, long acl, StatPersisted)*, parents first, the root is ""
//!          string "/"
//! seal     long adler32 of everything before, string "/"                  13 bytes
//! digest   long zxid, int 2, long digest, seal                            33 bytes, optional (3.6)
//! zxid     long last zxid processed, seal                                 21 bytes, optional (3.9)
//! ```
//!
//! The body alone is also what a leader sends a learner (SNAP): [`encode_head`], [`encode_node`],
//! [`encode_end`] and [`ItemDecoder`] are that part.
//!
//! Seals are cumulative. The two optional blocks carry no tag, so a reader has to go by what is left of the
//! file; the writer never writes the zxid block alone, which 3.9 would take for a digest. Snapshots are
//! written under a temporary name and renamed when durable, so a whole name means a whole file. Memory is
//! bounded by the largest item, and the largest item by the bytes that are there.
//!
//! Source: `P/FileSnap.java`, `P/SnapStream.java`, `S/util/SerializeUtils.java`; reference §9.4.

use std::sync::Arc;

use super::disk::{Dir, Disk, DiskFile};
use super::error::StorageError;
use super::names::{self, Compression};
use bytes::{BufMut, Bytes, BytesMut};
use zoometry_wire::txn::TxnDigest;
use zoometry_wire::{Acl, SessionId, StatPersisted, Zxid};

mod items;
mod packed;
mod reader;
mod writer;

pub use items::{ItemDecoder, encode_end, encode_head, encode_node};
pub use reader::SnapshotReader;
pub use writer::{Sealed, SnapshotWriter};

/// `ZKSN`.
pub const MAGIC: i32 = 0x5a4b_534e;
/// The only version there is.
pub const VERSION: i32 = 2;
/// The file header's length.
pub const HEADER_BYTES: usize = 16;
/// What the header carries as database id.
const DBID: i64 = -1;
/// Closes the znodes, and every seal.
const END_MARK: &str = "/";
/// An Adler-32 as a long, and the end mark.
const SEAL_BYTES: usize = 13;
/// Version of the digest that Apache computes since 3.6.
pub const DIGEST_VERSION: i32 = 2;

/// One piece of a snapshot, in the order in which they stand in the file: sessions, ACLs, znodes with
/// parents before children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A session and its timeout, ms.
    Session(SessionId, i32),
    /// An entry of the ACL table: the index that znodes refer to, and the list.
    Acl(i64, Arc<[Acl]>),
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

/// What stands behind the last znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotEnd {
    /// The tree's digest, and the zxid at which it was that. Apache's server writes zeros while it has not
    /// applied a transaction since its start.
    pub digest: Option<(Zxid, TxnDigest)>,
    /// Last zxid processed when writing ended (3.9 and later).
    pub last_zxid: Option<Zxid>,
}

/// The digest block for a tree whose digest at `zxid` is `digest`.
pub fn digest_block(zxid: Zxid, digest: u64) -> (Zxid, TxnDigest) {
    (zxid, TxnDigest { version: DIGEST_VERSION, tree: digest as i64 })
}

/// A snapshot file, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The zxid in the name.
    pub zxid: Zxid,
    /// The name.
    pub name: String,
    /// The extension.
    pub compression: Compression,
}

/// The snapshot files, newest first.
pub fn list<D: Disk>(disk: &D) -> Result<Vec<Found>, StorageError> {
    let names = disk.list(Dir::Snap).map_err(StorageError::io("list", disk.describe(Dir::Snap, "")))?;
    let found = names.into_iter().filter_map(|name| {
        let (zxid, compression) = names::parse_snapshot(&name)?;
        Some(Found { zxid, name, compression })
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by(|a, b| b.zxid.cmp(&a.zxid).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

/// A quick look at whether the file was written to its end, as Apache takes it: a plain file ends with the
/// end mark, a compressed one begins with its format's magic. Says nothing about what is in between.
pub fn looks_whole<D: Disk>(disk: &D, found: &Found) -> Result<bool, StorageError> {
    const LENGTH_MIN: u64 = 10;
    const MARK: [u8; 5] = [0, 0, 0, 1, b'/'];
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let described = disk.describe(Dir::Snap, &found.name);
    let file = disk.open(Dir::Snap, &found.name).map_err(StorageError::io("open", described.clone()))?;
    let len = file.len().map_err(StorageError::io("read", described.clone()))?;
    let (offset, expected): (u64, &[u8]) = match found.compression {
        Compression::None if len < LENGTH_MIN => return Ok(false),
        Compression::None => (len - MARK.len() as u64, &MARK),
        Compression::Gzip => (0, &GZIP),
        Compression::Snappy => (0, &packed::SNAPPY_MAGIC),
    };
    let mut there = [0u8; 8];
    let read = file.read_at(offset, &mut there[..expected.len()]);
    let read = read.map_err(StorageError::io("read", described))?;
    Ok(there[..read] == *expected)
}

/// Appends a seal over everything that `adler` has seen.
fn put_seal(adler: u32, out: &mut BytesMut) {
    out.put_i64(i64::from(adler));
    zoometry_wire::jute::put_str(out, END_MARK);
}

#[cfg(test)]
mod tests;
