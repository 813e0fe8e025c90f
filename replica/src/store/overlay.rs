//! Changes that are proposed but not yet applied, path by path: what the next request is judged against.
//!
//! An entry holds the znode as it will be (or that it will be gone) after the last outstanding transaction that
//! touches it, and goes when that transaction is applied. The digest of the tree as it will be is kept along.
//! A multi that fails takes its changes back. Source: `PrepRequestProcessor` (ChangeRecord); reference §3.3.
//!
//! Bounded by what is proposed and not applied, which is for whoever proposes to limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use zoometry_wire::{Acl, SessionId, StatPersisted, Zxid};

use super::node_path::NodePath;
use super::owner::Owner;
use super::tree::listed_bytes;
use super::{Store, digest};

/// A znode as the next request finds it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) stat: StatPersisted,
    pub(super) children: i32,
    pub(super) acl: Arc<[Acl]>,
    pub(super) data_len: i64,
    /// See [`digest::of_path`].
    pub(super) path_crc: u32,
    /// See [`digest::prefix`]; kept up by whoever changes the data.
    pub(super) prefix: u32,
    /// Its part in the tree's digest as it was found; 0 for one that comes new.
    pub(super) found_digest: u32,
}

/// The fate of a path: `None` is gone.
#[derive(Debug, Clone)]
struct Change {
    name: ChangeName,
    path: NodePath,
    view: Option<View>,
    digest: u32,
}

impl Change {
    fn is_of(&self, hash: u64, path: &str) -> bool {
        self.name.hash == hash && self.path.as_bytes() == path.as_bytes()
    }
}

/// Which change: its path's hash, and a number that no other change has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChangeName {
    hash: u64,
    number: u64,
}

/// What was there before a change, to go back to.
#[derive(Debug)]
struct Undo {
    change: ChangeName,
    before: Option<Change>,
}

/// A place to go back to.
#[derive(Debug)]
pub(super) struct Savepoint {
    digest: u64,
    queued: usize,
}

/// A change in its place, and what it does to the list of the ephemerals of a session.
#[derive(Debug)]
struct Queued {
    zxid: Zxid,
    name: ChangeName,
    /// By how many bytes the list of this session's ephemerals grows or, below 0, shrinks.
    listed: Option<(SessionId, i64)>,
}

#[derive(Debug)]
pub(super) struct Overlay {
    extended_types: bool,
    /// By the hashes that the store's tree has for paths.
    changes: HashTable<Change>,
    /// In the order of the changes; those that another one has replaced too.
    queue: VecDeque<Queued>,
    /// How many changes there ever were.
    numbered: u64,
    /// Paths of the changes that are ephemerals, by session.
    owned: BTreeMap<SessionId, BTreeSet<Box<str>>>,
    /// The sums of what `queue` says of the lists of ephemerals; none that is 0.
    listed: BTreeMap<SessionId, i64>,
    /// The tree's digest after all changes; meaningless without any.
    digest: u64,
    /// Since the savepoint, while there is one.
    undo: Option<Vec<Undo>>,
}

impl Overlay {
    pub(super) fn new(extended_types: bool) -> Self {
        Self {
            extended_types,
            changes: HashTable::new(),
            queue: VecDeque::new(),
            numbered: 0,
            owned: BTreeMap::new(),
            listed: BTreeMap::new(),
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

    fn change(&self, hash: u64, path: &str) -> Option<&Change> {
        if self.changes.is_empty() {
            return None;
        }
        self.changes.find(hash, |change| change.is_of(hash, path))
    }

    /// The znode at `path` as the next request finds it.
    pub(super) fn get(&self, store: &Store, path: &str) -> Option<View> {
        let path = Self::key(path);
        let hash = store.tree.hash_of(path);
        if let Some(change) = self.change(hash, path) {
            return change.view.clone().map(|view| View { found_digest: change.digest, ..view });
        }
        let node = store.tree.node(store.tree.find_hashed(hash, path)?);
        Some(View {
            stat: node.stat,
            children: node.children.len() as i32,
            acl: store.tree.acls.list(node.acl).clone(),
            data_len: node.data_len(),
            path_crc: node.path_crc(),
            prefix: node.prefix(),
            found_digest: node.digest(),
        })
    }

    /// Paths of the session's ephemerals as the next request finds them, in order.
    pub(super) fn ephemerals_of(&self, store: &Store, session: SessionId) -> BTreeSet<String> {
        let unchanged = |path: &&str| self.change(store.tree.hash_of(path), path).is_none();
        let applied = store.ephemerals_of(session).filter(unchanged);
        let outstanding = self.owned.get(&session).into_iter().flatten().map(|path| &**path);
        applied.chain(outstanding).map(str::to_string).collect()
    }

    /// What the paths of the session's ephemerals, as the next request finds them, take in a list.
    pub(super) fn ephemeral_bytes(&self, store: &Store, session: SessionId) -> usize {
        let applied = store.tree.ephemeral_bytes(session);
        let outstanding = self.listed.get(&session).copied().unwrap_or_default();
        applied.saturating_add_signed(outstanding as isize)
    }

    /// The znode at `path` will be as `view` says once `zxid` is applied. The view is what
    /// [`get`](Self::get) has given, changed, or one of a znode that is not there yet.
    pub(super) fn set(&mut self, store: &Store, zxid: Zxid, path: &str, view: View) {
        let path = Self::key(path);
        debug_assert_eq!(
            self.get(store, path).map_or(0, |found| found.found_digest),
            view.found_digest,
            "{path} was changed meanwhile"
        );
        let counts = store.config().digest && digest::covers(path);
        let before = view.found_digest;
        let after = if counts { digest::of_node(view.prefix, &view.stat) } else { 0 };
        self.put(store, zxid, path, Some(view), (before, after));
    }

    /// As [`set`](Self::set), for a znode that is not there yet.
    pub(super) fn add(&mut self, store: &Store, zxid: Zxid, path: &str, view: View) {
        let listed = self.listing(&view);
        self.set(store, zxid, path, view);
        self.list(listed.map(|session| (session, listed_bytes(path.len()) as i64)));
    }

    /// There will be nothing at `path` once `zxid` is applied.
    pub(super) fn remove(&mut self, store: &Store, zxid: Zxid, path: &str) {
        let path = Self::key(path);
        let found = self.get(store, path);
        let before = found.as_ref().map_or(0, |found| found.found_digest);
        let listed = found.as_ref().and_then(|found| self.listing(found));
        self.put(store, zxid, path, None, (before, 0));
        self.list(listed.map(|session| (session, -(listed_bytes(path.len()) as i64))));
    }

    /// In whose list of ephemerals a znode is.
    fn listing(&self, view: &View) -> Option<SessionId> {
        match Owner::of(&view.stat, self.extended_types) {
            Owner::Session(session) => Some(session),
            _ => None,
        }
    }

    /// What the last change does to the lists of ephemerals.
    fn list(&mut self, listed: Option<(SessionId, i64)>) {
        if let Some(last) = self.queue.back_mut() {
            last.listed = listed;
        }
        if let Some((session, bytes)) = listed {
            self.add_listed(session, bytes);
        }
    }

    fn add_listed(&mut self, session: SessionId, bytes: i64) {
        let sum = self.listed.entry(session).or_default();
        *sum += bytes;
        if *sum == 0 {
            self.listed.remove(&session);
        }
    }

    fn put(
        &mut self,
        store: &Store,
        zxid: Zxid,
        path: &str,
        view: Option<View>,
        (before, after): (u32, u32),
    ) {
        let sum = self.digest(store);
        self.digest = sum.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
        let hash = store.tree.hash_of(path);
        self.numbered += 1;
        let name = ChangeName { hash, number: self.numbered };
        self.queue.push_back(Queued { zxid, name, listed: None });
        let old = self.changes.find_entry(hash, |change| change.is_of(hash, path));
        let old = old.ok().map(|entry| entry.remove().0);
        let change = Change { name, path: path.into(), view, digest: after };
        self.hand_over(old.as_ref(), Some(&change));
        self.changes.insert_unique(hash, change, |change| change.name.hash);
        if let Some(undo) = &mut self.undo {
            undo.push(Undo { change: name, before: old });
        }
    }

    /// Takes a change out, unless another one has taken its path.
    fn take(&mut self, name: ChangeName) -> Option<Change> {
        let entry = self.changes.find_entry(name.hash, |change| change.name == name).ok()?;
        Some(entry.remove().0)
    }

    fn owner(&self, change: &Change) -> Option<SessionId> {
        self.listing(change.view.as_ref()?)
    }

    /// One path's change has taken the place of another: whose ephemeral it is may be another session.
    fn hand_over(&mut self, from: Option<&Change>, to: Option<&Change>) {
        let (old, new) =
            (from.and_then(|change| self.owner(change)), to.and_then(|change| self.owner(change)));
        if old == new {
            return;
        }
        if let (Some(session), Some(change)) = (old, from)
            && let Some(paths) = self.owned.get_mut(&session)
        {
            paths.remove(&*change.path);
            if paths.is_empty() {
                self.owned.remove(&session);
            }
        }
        if let (Some(session), Some(change)) = (new, to) {
            self.owned.entry(session).or_default().insert((*change.path).into());
        }
    }

    /// Everything up to `zxid` has been applied.
    pub(super) fn applied(&mut self, zxid: Zxid) {
        while let Some(Queued { name, listed, .. }) = self.queue.pop_front_if(|change| change.zxid <= zxid) {
            let done = self.take(name);
            self.hand_over(done.as_ref(), None);
            if let Some((session, bytes)) = listed {
                self.add_listed(session, -bytes);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.queue.clear();
        self.owned.clear();
        self.listed.clear();
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
        for Undo { change, before } in self.undo.take().unwrap_or_default().into_iter().rev() {
            let undone = self.take(change);
            self.hand_over(undone.as_ref(), before.as_ref());
            if let Some(before) = before {
                self.changes.insert_unique(change.hash, before, |change| change.name.hash);
            }
        }
        while self.queue.len() > savepoint.queued {
            if let Some(Queued { listed: Some((session, bytes)), .. }) = self.queue.pop_back() {
                self.add_listed(session, -bytes);
            }
        }
        self.digest = savepoint.digest;
    }
}
