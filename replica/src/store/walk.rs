//! Snapshots: writing one in slices while the tree goes on changing, and loading one. Source:
//! `DataTree.serialize`, `deserialize`; reference §9.4, §9.5.
//!
//! A snapshot is *fuzzy*: named by the zxid at which it began, it may hold later changes; replaying the log
//! from that zxid on makes up for it. Three rules hold whatever happens between two slices:
//!
//! - a znode that existed at the start and still exists when the walk ends is in the snapshot;
//! - a znode that came after the start is not (replay brings it), even if it took an old one's place;
//! - a znode stands behind its parent. It follows from the second rule: whoever is old has only old ancestors.
//!
//! Apache's own snapshots may name an ACL index that their table lacks; ours never do.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use zoometry_wire::{Acl, StatPersisted, Zxid, path};

use super::acl_table::{self, AclSlot};
use super::tree::{NewNode, Node, NodeId, ROOT};
use super::{Store, StoreConfig};
use crate::storage::snapshot::{SnapshotItem, SnapshotNode};

/// So many places where nobody is due are passed in the time of one znode that is emitted.
const PLACES_PER_NODE: usize = 16;

/// How far a snapshot has come.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Nodes born at or behind this came after the start.
    horizon: u64,
    /// The ACL table in the snapshot's head ends before this index, which stands for "nobody".
    nobody: i64,
    /// The place in the slab that is next.
    place: usize,
    /// One bit for each place: its node has been emitted.
    emitted: Vec<u64>,
}

impl Walk {
    fn is_emitted(&self, place: usize) -> bool {
        self.emitted.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 != 0)
    }

    fn mark(&mut self, place: usize) {
        if self.emitted.len() <= place / 64 {
            self.emitted.resize(place / 64 + 1, 0);
        }
        self.emitted[place / 64] |= 1 << (place % 64);
    }
}

/// Why a snapshot is not a tree.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LoadError<E> {
    /// The source of the items failed.
    #[error(transparent)]
    Source(E),
    /// A znode before its parent, or without one.
    #[error("znode {0:?} stands before its parent or has none")]
    Orphan(String),
    /// A znode twice.
    #[error("znode {0:?} is there twice")]
    Duplicate(String),
}

impl Store {
    /// What stands at the head of a snapshot: the sessions, then the ACL table. To be taken together with
    /// [`start_walk`](Self::start_walk) and [`last_zxid`](Self::last_zxid), which names the snapshot, with no
    /// write in between.
    pub fn snapshot_head(&self) -> Vec<SnapshotItem> {
        let sessions =
            self.sessions().map(|(session, timeout_ms)| SnapshotItem::Session(session, timeout_ms));
        let lists = self.tree.acls.lists();
        let lists = lists.iter().map(|(index, list)| SnapshotItem::Acl(*index, Arc::clone(list)));
        let nobody = SnapshotItem::Acl(self.tree.acls.next_index(), [acl_table::nobody()].into());
        sessions.chain(lists).chain([nobody]).collect()
    }

    /// The walk over the znodes that exist now.
    pub fn start_walk(&self) -> Walk {
        let nobody = self.tree.acls.next_index();
        Walk { horizon: self.tree.births(), nobody, place: 0, emitted: Vec::new() }
    }

    /// Emits up to `budget` znodes and says whether there may be more. Where most znodes have been deleted, none at
    /// all may be due in the part that it looks at: a call is never long. Writes may be applied between two calls.
    pub fn walk(&self, walk: &mut Walk, budget: usize, emit: &mut dyn FnMut(SnapshotNode)) -> bool {
        let mut left = budget;
        let mut line: Vec<NodeId> = Vec::new();
        let end = walk.place.saturating_add(budget.saturating_mul(PLACES_PER_NODE));
        while walk.place < self.tree.slab_len() {
            if walk.place >= end {
                return true;
            }
            self.unemitted_line(walk, &mut line);
            while let Some(id) = line.pop() {
                if left == 0 {
                    return true;
                }
                left -= 1;
                walk.mark(id.place());
                emit(self.snapshot_node(walk, self.tree.node(id)));
            }
            walk.place += 1;
        }
        false
    }

    /// The node at the walk's place, if it is due, and its ancestors that are: oldest last.
    fn unemitted_line(&self, walk: &Walk, line: &mut Vec<NodeId>) {
        line.clear();
        let Some((id, node)) = self.tree.at(walk.place) else { return };
        if node.born >= walk.horizon {
            return;
        }
        let mut next = id;
        while !walk.is_emitted(next.place()) {
            line.push(next);
            if next == ROOT {
                return;
            }
            next = self.tree.parent(next);
        }
    }

    /// A list that came after the head was written is not in it, but then the transaction that set it is in
    /// the log: until that is replayed, nobody.
    fn snapshot_node(&self, walk: &Walk, node: &Node) -> SnapshotNode {
        let acl = self.tree.acls.index(node.acl).min(walk.nobody);
        let path = if &*node.path == "/" { String::new() } else { node.path.to_string() };
        SnapshotNode { path, data: node.data.clone(), acl, stat: node.stat }
    }

    /// The tree of a snapshot whose file is named by `zxid`; the log behind it must still be applied.
    pub fn load<E>(
        config: StoreConfig,
        items: impl Iterator<Item = Result<SnapshotItem, E>>,
        zxid: Zxid,
    ) -> Result<Self, LoadError<E>> {
        let mut store = Self::bare(config);
        let mut slots: BTreeMap<i64, AclSlot> = BTreeMap::from([(acl_table::OPEN_INDEX, acl_table::OPEN)]);
        for item in items {
            match item.map_err(LoadError::Source)? {
                SnapshotItem::Session(session, timeout_ms) => {
                    store.sessions.insert(session, timeout_ms);
                }
                SnapshotItem::Acl(index, list) => {
                    let table = &mut store.tree.acls;
                    slots.entry(index).or_insert_with(|| table.restore(index, list));
                }
                SnapshotItem::Node(node) => {
                    let table = &mut store.tree.acls;
                    let slot = *slots.entry(node.acl).or_insert_with(|| table.restore_missing(node.acl));
                    store.load_node(node, slot)?;
                }
            }
        }
        store.tree.acls.purge_unused();
        store.add_system_nodes();
        store.restore_quotas();
        store.last_zxid = zxid;
        store.digest_settled = false;
        Ok(store)
    }

    fn load_node<E>(&mut self, node: SnapshotNode, acl: AclSlot) -> Result<(), LoadError<E>> {
        let SnapshotNode { path, data, stat, .. } = node;
        if path.is_empty() {
            self.tree.acls.hold(acl);
            self.tree.replace_root(data, acl, stat);
            return Ok(());
        }
        let parent = path.starts_with('/').then(|| self.tree.find(path::parent(&path))).flatten();
        let Some(parent) = parent else { return Err(LoadError::Orphan(path)) };
        if self.tree.find(&path).is_some() {
            return Err(LoadError::Duplicate(path));
        }
        self.tree.acls.hold(acl);
        self.tree.insert(parent, NewNode { path: &path, data, acl, stat });
        Ok(())
    }

    /// /zookeeper and what must be below it; a snapshot from before 3.5 lacks some of it.
    pub(super) fn add_system_nodes(&mut self) {
        for path in ["/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            if self.tree.find(path).is_some() {
                continue;
            }
            let parent = self.tree.find(path::parent(path)).unwrap_or(ROOT);
            let is_config = path == "/zookeeper/config";
            let list: &[Acl] = if is_config { &acl_table::read_only() } else { &[] };
            let acl = self.tree.acls.intern(list);
            let aversion = if is_config { -1 } else { 0 };
            let stat = StatPersisted { aversion, ..StatPersisted::default() };
            self.tree.insert(parent, NewNode { path, data: Some(bytes::Bytes::new()), acl, stat });
        }
    }
}
