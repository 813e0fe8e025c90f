//! The tree's digest (AdHash): a sum modulo 2^64 of one CRC-32 for each znode, so that it follows every change
//! without a look at the rest. Members that have applied the same transactions have the same digest.
//!
//! Covered: path, data, and the status as it is stored (*raw* cversion, owner word). Not covered: ACL lists,
//! and everything below /zookeeper, which members may keep differently (quota usage). Source:
//! `DigestCalculator.java`, `AdHash.java`; reference §9.6.

use bytes::Bytes;
use crc32fast::Hasher;
use zoometry_wire::StatPersisted;
use zoometry_wire::txn::TxnDigest;

/// The digest version that is written and compared.
pub const VERSION: i32 = 2;

/// Digest of a tree with the given sum, as it is attached to transactions.
pub fn of_tree(sum: u64) -> TxnDigest {
    TxnDigest { version: VERSION, tree: sum as i64 }
}

/// Whether a znode counts at all.
pub fn covers(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

/// CRC of the path, which begins a znode's digest. Kept beside the znode.
pub fn of_path(path: &str) -> u32 {
    let mut crc = Hasher::new();
    if path != "/" {
        crc.update(path.as_bytes());
    }
    crc.finalize()
}

/// The part of a znode's digest that its status does not change: CRC of path ([`of_path`]) and data. Kept
/// beside the znode, so that a new child costs its parent 60 bytes and not all of the parent's data again.
pub fn prefix(path_crc: u32, data: &Option<Bytes>) -> u32 {
    let mut crc = Hasher::new_with_initial(path_crc);
    crc.update(data.as_deref().unwrap_or_default());
    crc.finalize()
}

/// A znode's digest from its [`prefix`] and its status.
pub fn of_node(prefix: u32, stat: &StatPersisted) -> u32 {
    let mut bytes = [0u8; 60];
    let longs = [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime];
    for (slot, value) in bytes.chunks_exact_mut(8).zip(longs) {
        slot.copy_from_slice(&value.to_be_bytes());
    }
    let ints = [stat.version, stat.cversion, stat.aversion];
    for (slot, value) in bytes[40..52].chunks_exact_mut(4).zip(ints) {
        slot.copy_from_slice(&value.to_be_bytes());
    }
    bytes[52..].copy_from_slice(&stat.ephemeral_owner.0.to_be_bytes());
    let mut crc = Hasher::new_with_initial(prefix);
    crc.update(&bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_znodes() {
        let empty = Some(Bytes::new());
        let of = |path| of_node(prefix(of_path(path), &empty), &StatPersisted::default());
        assert_eq!(of("/"), 0x0412_8908);
        assert_eq!(of("/zookeeper"), 0x4db4_4d58);
    }

    #[test]
    fn what_counts() {
        assert!(covers("/") && covers("/zookeeper") && covers("/zookeeper2/a"));
        assert!(!covers("/zookeeper/config") && !covers("/zookeeper/quota/a"));
    }
}
