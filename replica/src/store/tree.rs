//! The znodes of one member: a slab of nodes, an index by path, and who owns which of them.
//!
//! Invariants: every node but the root hangs under a live parent; `digest` is the sum over all nodes at any
//! time; the lists of ephemerals, containers and TTL znodes are exactly those nodes; nothing that can be seen
//! from outside depends on the order in which the index happens to hold its entries.
//!
//! The tree knows nothing of transactions, watches, quotas or permissions to change: see [`super::apply`].
//! Not bounded here: what a member may store is bounded by its memory and by quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use zoometry_wire::{Acl, Id, SessionId, Stat, StatPersisted};

use super::acl_table::{self, AclSlot, AclTable};
use super::digest;
use super::node_path::NodePath;
use super::owner::Owner;
use super::path_hash::PathHash;

/// A node's place in the slab. Valid as long as the node lives; the place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

impl NodeId {
    /// Its place in the slab.
    pub(super) fn place(self) -> usize {
        self.0 as usize
    }
}

/// The root is the first node and never goes.
pub(super) const ROOT: NodeId = NodeId(0);

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The whole path; "/" for the root.
    pub(super) path: NodePath,
    pub(super) data: Option<Bytes>,
    pub(super) stat: StatPersisted,
    pub(super) acl: AclSlot,
    parent: NodeId,
    /// Where the parent's list of children has this node.
    place: u32,
    pub(super) children: Vec<NodeId>,
    /// Bytes of the children's names.
    names_bytes: u64,
    /// Nodes below this one, at any depth.
    below: u32,
    /// Counts up over all nodes ever made: a child is always younger than its parent.
    pub(super) born: u64,
    /// It has a part in the tree's digest; otherwise the three are 0.
    counts: bool,
    path_crc: u32,
    prefix: u32,
    digest: u32,
}

impl Node {
    /// The last component.
    pub(super) fn name(&self) -> &str {
        zoometry_wire::path::name(&self.path)
    }

    /// Bytes of the list of its children in a reply, known without a look at them.
    pub(super) fn children_bytes(&self) -> usize {
        4 + 4 * self.children.len() + self.names_bytes as usize
    }

    /// Nodes below this one, at any depth.
    pub(super) fn below(&self) -> usize {
        self.below as usize
    }

    pub(super) fn data_len(&self) -> i64 {
        self.data.as_ref().map_or(0, Bytes::len) as i64
    }

    /// Looks at what a read needs of the node, wherever in it that is; says nothing.
    pub(super) fn touch(&self) {
        black_box((
            self.path.as_bytes().first().copied(),
            self.acl,
            self.children.len(),
            self.stat.czxid,
            self.stat.pzxid,
        ));
    }

    /// See [`digest::of_path`]; 0 while it does not count.
    pub(super) fn path_crc(&self) -> u32 {
        self.path_crc
    }

    pub(super) fn prefix(&self) -> u32 {
        self.prefix
    }

    pub(super) fn digest(&self) -> u32 {
        self.digest
    }
}

/// What a new node is made of. Its ACL slot carries one use, which the node takes over.
#[derive(Debug)]
pub(super) struct NewNode<'a> {
    pub(super) path: &'a str,
    pub(super) data: Option<Bytes>,
    pub(super) acl: AclSlot,
    pub(super) stat: StatPersisted,
}

/// The index holds half of each hash, so that growing it touches no node and few strangers are compared.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    node: NodeId,
}

/// hashbrown takes the place from the low bits and a tag from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// One session's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ephemerals {
    nodes: BTreeSet<NodeId>,
    /// What their paths take in the transaction that closes the session.
    path_bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Tree {
    extended_types: bool,
    digests: bool,
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    index: HashTable<Entry>,
    hash: PathHash,
    pub(super) acls: AclTable,
    ephemerals: BTreeMap<SessionId, Ephemerals>,
    containers: BTreeSet<NodeId>,
    ttls: BTreeSet<NodeId>,
    digest: u64,
    data_size: usize,
    births: u64,
}

impl Tree {
    /// The root alone.
    pub(super) fn new(extended_types: bool, digests: bool, hash_seed: u64) -> Self {
        let mut tree = Self {
            extended_types,
            digests,
            nodes: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hash: PathHash::new(hash_seed),
            acls: AclTable::new(),
            ephemerals: BTreeMap::new(),
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            digest: 0,
            data_size: 0,
            births: 0,
        };
        let id = tree.place(NewNode {
            path: "/",
            data: Some(Bytes::new()),
            acl: acl_table::OPEN,
            stat: StatPersisted::default(),
        });
        debug_assert_eq!(id, ROOT);
        tree
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn data_size(&self) -> usize {
        self.data_size
    }

    /// The node at `path`. The empty path names the root too.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        self.find_hashed(self.hash_of(path), path)
    }

    /// How paths are hashed here.
    pub(super) fn hash_of(&self, path: &str) -> u64 {
        self.hash.of(path)
    }

    /// As [`find`](Self::find), for who knows the path's hash.
    pub(super) fn find_hashed(&self, hash: u64, path: &str) -> Option<NodeId> {
        let hash = hash as u32;
        let same =
            |entry: &Entry| entry.hash == hash && self.node(entry.node).path.as_bytes() == path.as_bytes();
        match self.index.find(spread(hash), same) {
            Some(entry) => Some(entry.node),
            None if path.is_empty() => Some(ROOT),
            None => None,
        }
    }

    /// The node at `path`, if it is there; otherwise nobody or, rarely, another. No node is looked at.
    pub(super) fn likely(&self, path: &str) -> Option<NodeId> {
        let hash = self.hash_of(path) as u32;
        self.index.find(spread(hash), |entry| entry.hash == hash).map(|entry| entry.node)
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize].as_ref().expect("a live node")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize].as_mut().expect("a live node")
    }

    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).parent
    }

    /// Places in the slab, for walks.
    pub(super) fn slab_len(&self) -> usize {
        self.nodes.len()
    }

    /// Who is at a place of the slab: nobody, or somebody, and later perhaps somebody else.
    pub(super) fn at(&self, place: usize) -> Option<(NodeId, &Node)> {
        self.nodes.get(place)?.as_ref().map(|node| (NodeId(place as u32), node))
    }

    /// How many nodes were ever made: those with a smaller `born` existed at this moment.
    pub(super) fn births(&self) -> u64 {
        self.births
    }

    pub(super) fn owner(&self, stat: &StatPersisted) -> Owner {
        Owner::of(stat, self.extended_types)
    }

    /// The status as clients see it. Source: `DataNode.copyStat`.
    pub(super) fn stat(&self, id: NodeId) -> Stat {
        let Node { stat, children, .. } = self.node(id);
        let num_children = children.len() as i32;
        Stat {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            cversion: stat.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: stat.aversion,
            ephemeral_owner: self.owner(stat).visible(),
            data_length: self.node(id).data_len() as i32,
            num_children,
            pzxid: stat.pzxid,
        }
    }

    pub(super) fn acl(&self, id: NodeId) -> &Arc<[Acl]> {
        self.acls.list(self.node(id).acl)
    }

    pub(super) fn allows(&self, id: NodeId, wanted: i32, ids: &[Id]) -> bool {
        self.acls.allows(self.node(id).acl, wanted, ids)
    }

    /// Adds a node. Its path is free, and `parent` is the node above it.
    pub(super) fn insert(&mut self, parent: NodeId, new: NewNode<'_>) -> NodeId {
        debug_assert!(self.find(new.path).is_none());
        let name_bytes = zoometry_wire::path::name(new.path).len() as u64;
        let id = self.place(new);
        let above = self.node_mut(parent);
        above.names_bytes += name_bytes;
        above.children.push(id);
        let place = (above.children.len() - 1) as u32;
        let node = self.node_mut(id);
        node.parent = parent;
        node.place = place;
        self.count_below(parent, |below| below + 1);
        id
    }

    /// There are more or fewer nodes below `id` and all that it lies below.
    fn count_below(&mut self, mut id: NodeId, count: impl Fn(u32) -> u32) {
        loop {
            let node = self.node_mut(id);
            node.below = count(node.below);
            if id == ROOT {
                return;
            }
            id = node.parent;
        }
    }

    fn place(&mut self, new: NewNode<'_>) -> NodeId {
        let NewNode { path, data, acl, stat } = new;
        let (path_crc, prefix, digest) = self.digest_of(path, &data, &stat);
        self.digest = self.digest.wrapping_add(u64::from(digest));
        self.data_size += path.len() + data.as_ref().map_or(0, Bytes::len);
        let born = self.births;
        self.births += 1;
        let owner = self.owner(&stat);
        let hash = self.hash.of(path) as u32;
        let children = Vec::new();
        let node = Some(Node {
            path: path.into(),
            data,
            stat,
            acl,
            parent: ROOT,
            place: 0,
            children,
            names_bytes: 0,
            below: 0,
            born,
            counts: self.counts(path),
            path_crc,
            prefix,
            digest,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id.0 as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                NodeId(u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 znodes"))
            }
        };
        self.index.insert_unique(spread(hash), Entry { hash, node: id }, |entry| spread(entry.hash));
        self.track(id, owner, path.len());
        id
    }

    /// What a snapshot says of the root. The ACL slot carries one use.
    pub(super) fn replace_root(&mut self, data: Option<Bytes>, acl: AclSlot, stat: StatPersisted) {
        // An owner word here would be wrong; the root belongs to nobody.
        let stat = StatPersisted { ephemeral_owner: SessionId(0), ..stat };
        self.change_data(ROOT, data);
        self.change_stat(ROOT, |root| *root = stat);
        let old = std::mem::replace(&mut self.node_mut(ROOT).acl, acl);
        self.acls.release(old);
    }

    fn counts(&self, path: &str) -> bool {
        self.digests && digest::covers(path)
    }

    fn digest_of(&self, path: &str, data: &Option<Bytes>, stat: &StatPersisted) -> (u32, u32, u32) {
        if !self.counts(path) {
            return (0, 0, 0);
        }
        let path_crc = digest::of_path(path);
        let prefix = digest::prefix(path_crc, data);
        (path_crc, prefix, digest::of_node(prefix, stat))
    }

    /// Removes a node and, should there be any, all below it. Only a replay over a fuzzy snapshot meets
    /// children here; they are younger than the delete and will be created again.
    pub(super) fn remove(&mut self, id: NodeId) {
        debug_assert_ne!(id, ROOT);
        let node = self.node(id);
        let (parent, place, gone) = (node.parent, node.place, node.below + 1);
        let name_bytes = node.name().len() as u64;
        let above = self.node_mut(parent);
        above.names_bytes -= name_bytes;
        above.children.swap_remove(place as usize);
        if let Some(moved) = above.children.get(place as usize).copied() {
            self.node_mut(moved).place = place;
        }
        self.count_below(parent, |below| below - gone);
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let node = self.nodes[id.0 as usize].take().expect("a live node");
            self.forget(id, &node);
            doomed.extend(node.children);
        }
    }

    fn forget(&mut self, id: NodeId, node: &Node) {
        let hash = self.hash.of(&node.path) as u32;
        let entry = self.index.find_entry(spread(hash), |entry| entry.node == id);
        entry.map(hashbrown::hash_table::OccupiedEntry::remove).ok();
        self.digest = self.digest.wrapping_sub(u64::from(node.digest));
        self.data_size -= node.path.len() + node.data.as_ref().map_or(0, Bytes::len);
        self.acls.release(node.acl);
        self.untrack(id, self.owner(&node.stat), node.path.len());
        self.free.push(id);
    }

    fn track(&mut self, id: NodeId, owner: Owner, path_len: usize) {
        match owner {
            Owner::Nobody => {}
            Owner::Session(session) => {
                let own = self.ephemerals.entry(session).or_default();
                own.nodes.insert(id);
                own.path_bytes += listed_bytes(path_len);
            }
            Owner::Container => {
                self.containers.insert(id);
            }
            Owner::Ttl(_) => {
                self.ttls.insert(id);
            }
        }
    }

    fn untrack(&mut self, id: NodeId, owner: Owner, path_len: usize) {
        match owner {
            Owner::Nobody => {}
            Owner::Session(session) => {
                if let Some(own) = self.ephemerals.get_mut(&session) {
                    own.nodes.remove(&id);
                    own.path_bytes -= listed_bytes(path_len);
                    if own.nodes.is_empty() {
                        self.ephemerals.remove(&session);
                    }
                }
            }
            Owner::Container => {
                self.containers.remove(&id);
            }
            Owner::Ttl(_) => {
                self.ttls.remove(&id);
            }
        }
    }

    /// Changes a node's status; the owner word stays as it is.
    pub(super) fn change_stat(&mut self, id: NodeId, change: impl FnOnce(&mut StatPersisted)) {
        let node = self.node_mut(id);
        let owner = node.stat.ephemeral_owner;
        change(&mut node.stat);
        debug_assert_eq!(owner, node.stat.ephemeral_owner);
        if node.counts {
            let before = std::mem::replace(&mut node.digest, digest::of_node(node.prefix, &node.stat));
            let after = node.digest;
            self.digest = self.digest.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
        }
    }

    /// Changes a node's data. What its status says of it is for [`change_stat`](Self::change_stat), which
    /// must follow.
    pub(super) fn change_data(&mut self, id: NodeId, data: Option<Bytes>) -> Option<Bytes> {
        let new_len = data.as_ref().map_or(0, Bytes::len);
        let node = self.node_mut(id);
        if node.counts {
            node.prefix = digest::prefix(node.path_crc, &data);
        }
        let old = std::mem::replace(&mut node.data, data);
        self.data_size += new_len;
        self.data_size -= old.as_ref().map_or(0, Bytes::len);
        old
    }

    pub(super) fn change_acl(&mut self, id: NodeId, list: &[Acl]) {
        let new = self.acls.intern(list);
        let old = std::mem::replace(&mut self.node_mut(id).acl, new);
        self.acls.release(old);
    }

    /// Paths of a session's ephemerals, in order.
    pub(super) fn ephemerals_of(&self, session: SessionId) -> Vec<&str> {
        let own = self.ephemerals.get(&session);
        let nodes = own.into_iter().flat_map(|own| &own.nodes);
        let mut paths: Vec<&str> = nodes.map(|id| &*self.node(*id).path).collect();
        paths.sort_unstable();
        paths
    }

    /// Every ephemeral with its session: by session, and of each in no order.
    pub(super) fn ephemerals(&self) -> impl Iterator<Item = (SessionId, &str)> {
        self.ephemerals
            .iter()
            .flat_map(move |(session, own)| own.nodes.iter().map(move |id| (*session, &*self.node(*id).path)))
    }

    /// What the paths of a session's ephemerals take in a list.
    pub(super) fn ephemeral_bytes(&self, session: SessionId) -> usize {
        self.ephemerals.get(&session).map_or(0, |own| own.path_bytes)
    }

    /// Sessions that own ephemerals, in order.
    pub(super) fn owning_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    pub(super) fn ephemerals_count(&self) -> usize {
        self.ephemerals.values().map(|own| own.nodes.len()).sum()
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Node> {
        self.containers.iter().map(|id| self.node(*id))
    }

    pub(super) fn ttls(&self) -> impl Iterator<Item = &Node> {
        self.ttls.iter().map(|id| self.node(*id))
    }

    /// Calls `visit` with `id` and every node below it.
    pub(super) fn for_each_below(&self, id: NodeId, mut visit: impl FnMut(&Node)) {
        let mut ahead = vec![id];
        while let Some(id) = ahead.pop() {
            let node = self.node(id);
            visit(node);
            ahead.extend(&node.children);
        }
    }
}

/// What a path takes in a list of paths. Paths have no characters whose encoding is longer here than in UTF-8
/// (`zoometry_wire::path::validate`).
pub(super) fn listed_bytes(path_len: usize) -> usize {
    4 + path_len
}

#[cfg(test)]
impl Tree {
    /// Checks every invariant against a look at all nodes.
    pub(super) fn assert_sound(&self) {
        let (mut digest, mut data_size, mut count) = (0u64, 0, 0);
        let mut owned: BTreeMap<SessionId, Ephemerals> = BTreeMap::new();
        let (mut containers, mut ttls) = (BTreeSet::new(), BTreeSet::new());
        let mut below = vec![0; self.nodes.len()];
        for at in 0..self.nodes.len() {
            let Some((id, node)) = self.at(at) else {
                assert!(self.free.contains(&NodeId(at as u32)), "place {at} is lost");
                continue;
            };
            count += 1;
            assert_eq!(self.find(&node.path), Some(id), "{}", node.path);
            let (.., expected) = self.digest_of(&node.path, &node.data, &node.stat);
            assert_eq!(node.digest, expected, "{}", node.path);
            digest = digest.wrapping_add(u64::from(expected));
            data_size += node.path.len() + node.data.as_ref().map_or(0, Bytes::len);
            self.acls.list(node.acl);
            let mut names_bytes = 0;
            for (place, child) in node.children.iter().enumerate() {
                let child = self.node(*child);
                names_bytes += child.name().len() as u64;
                assert_eq!((child.parent, child.place as usize), (id, place), "{}", child.path);
                assert_eq!(zoometry_wire::path::parent(&child.path), &*node.path);
                assert!(child.born > node.born);
            }
            assert_eq!(node.names_bytes, names_bytes, "{}", node.path);
            let mut above = id;
            while above != ROOT {
                above = self.parent(above);
                below[above.place()] += 1;
            }
            match self.owner(&node.stat) {
                Owner::Nobody => {}
                Owner::Session(session) => {
                    let own = owned.entry(session).or_default();
                    own.nodes.insert(id);
                    own.path_bytes += listed_bytes(node.path.len());
                }
                Owner::Container => {
                    containers.insert(id);
                }
                Owner::Ttl(_) => {
                    ttls.insert(id);
                }
            }
        }
        for (node, below) in self.nodes.iter().zip(below) {
            assert_eq!(node.as_ref().map_or(0, |node| node.below), below);
        }
        let mut reachable = 0;
        self.for_each_below(ROOT, |_| reachable += 1);
        assert_eq!((count, count), (self.len(), reachable));
        assert_eq!((digest, data_size), (self.digest, self.data_size));
        assert_eq!((&owned, &containers, &ttls), (&self.ephemerals, &self.containers, &self.ttls));
    }
}
