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
