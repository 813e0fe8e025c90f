//! Changes that are proposed but not yet applied, path by path: what the next request is judged against.
//!
//! An entry holds the znode as it will be (or that it will be gone) after the last outstanding transaction that
//! touches it, and goes when that transaction is applied. The digest of the tree as it will be is kept along.
//! A multi that fails takes its changes back. Source: `PrepRequestProcessor` (ChangeRecord); reference §3.3.
//!
//! Bounded by what is proposed and not applied, which is for whoever proposes to limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use zoometry_wire::{Acl, SessionId, StatPersisted, Zxid};

use super::owner::Owner;
use super::path_hash::PathHash;
use super::{Store, digest};

/// A znode as the next request finds it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) stat: StatPersisted,
    pub(super) children: i32,
    pub(super) acl: Arc<[Acl]>,
    pub(super) data: Option<Bytes>,
    /// See [`digest::prefix`]; kept up by whoever changes the data.
    pub(super) prefix: u32,
}

/// The fate of a path: `None` is gone.
#[derive(Debug, Clone)]
struct Change {
    path: Arc<str>,
    zxid: Zxid,
    view: Option<View>,
    digest: u32,
}

/// What was there before a change, to go back to.
#[derive(Debug)]
struct Undo {
    path: Arc<str>,
    before: Option<Change>,
}

/// A place to go back to.
#[derive(Debug)]
pub(super) struct Savepoint {
    digest: u64,
    queued: usize,
}

#[derive(Debug)]
pub(super) struct Overlay {
    extended_types: bool,
    changes: HashTable<Change>,
    hash: PathHash,
    /// (zxid, path) in the order of the changes.
    queue: VecDeque<(Zxid, Arc<str>)>,
    /// Paths of the changes that are ephemerals, by session.
    owned: BTreeMap<SessionId, BTreeSet<Arc<str>>>,
    /// The tree's digest after all changes; meaningless without any.
    digest: u64,
    /// Since the savepoint, while there is one.
    undo: Option<Vec<Undo>>,
}

impl Overlay {
    pub(super) fn new(extended_types: bool, hash_seed: u64) -> Self {
        Self {
            extended_types,
            changes: HashTable::new(),
            hash: PathHash::new(hash_seed),
            queue: VecDeque::new(),
            owned: BTreeMap::new(),
            digest: 0,
            undo: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The digest of the tree once everything outstanding is applied.
    pub(super) fn digest(&self, store: &Store) -> u64 {
        if self.queue.is_empty() { store.digest() } else { self.digest }
    }

    /// The root has two names.
    fn key(path: &str) -> &str {
        if path.is_empty() { "/" } else { path }
    }

    fn change(&self, path: &str) -> Option<&Change> {
        if self.changes.is_empty() {
            return None;
        }
        self.changes.find(self.hash.of(path), |change| *change.path == *path)
    }

    /// The znode at `path` as the next request finds it.
    pub(super) fn get(&self, store: &Store, path: &str) -> Option<View> {
        let path = Self::key(path);
        if let Some(change) = self.change(path) {
            return change.view.clone();
        }
        let id = store.tree.find(path)?;
        let node = store.tree.node(id);
        Some(View {
            stat: node.stat,
            children: node.children.len() as i32,
            acl: store.tree.acls.list(node.acl).clone(),
            data: node.data.clone(),
            prefix: node.prefix(),
        })
    }

    /// Paths of the session's ephemerals as the next request finds them, in order.
    pub(super) fn ephemerals_of(&self, store: &Store, session: SessionId) -> BTreeSet<String> {
        let applied = store.ephemerals_of(session).filter(|path| self.change(path).is_none());
        let outstanding = self.owned.get(&session).into_iter().flatten().map(|path| &**path);
        applied.chain(outstanding).map(str::to_string).collect()
    }

    /// The znode at `path` will be as `view` says once `zxid` is applied.
    pub(super) fn set(&mut self, store: &Store, zxid: Zxid, path: &str, view: Option<View>) {
        let path = Self::key(path);
        let before = match self.change(path) {
            Some(change) => change.digest,
            None => store.tree.find(path).map_or(0, |id| store.tree.node(id).digest()),
        };
        let counts = store.config().digest && digest::covers(path);
        let after = match &view {
            Some(view) if counts => digest::of_node(view.prefix, &view.stat),
            _ => 0,
        };
        let sum = self.digest(store);
        self.digest = sum.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
        let path: Arc<str> = path.into();
        self.queue.push_back((zxid, path.clone()));
        let old = self.replace(path.clone(), Some(Change { path: path.clone(), zxid, view, digest: after }));
        if let Some(undo) = &mut self.undo {
            undo.push(Undo { path, before: old });
        }
    }

    /// Puts `new` in the path's place, or nothing, and returns what was there.
    fn replace(&mut self, path: Arc<str>, new: Option<Change>) -> Option<Change> {
        let new_owner = new.as_ref().and_then(|change| self.owner(change));
        let hash = &self.hash;
        let same = |change: &Change| change.path == path;
        let old = match self.changes.entry(hash.of(&path), same, |change| hash.of(&change.path)) {
            Entry::Occupied(mut entry) => match new {
                Some(new) => Some(std::mem::replace(entry.get_mut(), new)),
                None => Some(entry.remove().0),
            },
            Entry::Vacant(entry) => {
                if let Some(new) = new {
                    entry.insert(new);
                }
                None
            }
        };
        let old_owner = old.as_ref().and_then(|change| self.owner(change));
        if old_owner != new_owner {
            self.reassign(path, old_owner, new_owner);
        }
        old
    }

    fn owner(&self, change: &Change) -> Option<SessionId> {
        match Owner::of(&change.view.as_ref()?.stat, self.extended_types) {
            Owner::Session(session) => Some(session),
            _ => None,
        }
    }

    fn reassign(&mut self, path: Arc<str>, from: Option<SessionId>, to: Option<SessionId>) {
        if let Some(session) = from
            && let Some(paths) = self.owned.get_mut(&session)
        {
            paths.remove(&path);
            if paths.is_empty() {
                self.owned.remove(&session);
            }
        }
        if let Some(session) = to {
            self.owned.entry(session).or_default().insert(path);
        }
    }

    /// Everything up to `zxid` has been applied.
    pub(super) fn applied(&mut self, zxid: Zxid) {
        while self.queue.front().is_some_and(|(at, _)| *at <= zxid) {
            let Some((done, path)) = self.queue.pop_front() else { return };
            if self.change(&path).is_some_and(|change| change.zxid == done) {
                self.replace(path, None);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.queue.clear();
        self.owned.clear();
        self.undo = None;
    }

    /// From here on, changes can be taken back: until [`commit`](Self::commit) or
    /// [`roll_back`](Self::roll_back).
    pub(super) fn savepoint(&mut self, store: &Store) -> Savepoint {
        self.undo = Some(Vec::new());
        Savepoint { digest: self.digest(store), queued: self.queue.len() }
    }

    /// The changes since the savepoint stay.
    pub(super) fn commit(&mut self, _: Savepoint) {
        self.undo = None;
    }

    /// The changes since the savepoint never were.
    pub(super) fn roll_back(&mut self, savepoint: Savepoint) {
        for Undo { path, before } in self.undo.take().unwrap_or_default().into_iter().rev() {
            self.replace(path, before);
        }
        self.queue.truncate(savepoint.queued);
        self.digest = savepoint.digest;
    }
}
