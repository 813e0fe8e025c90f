//! Who wants to know about which znode. Source: `WatchManager.java`, `DataTree.java` (triggers) of 3.9;
//! reference §4.
//!
//! A watch belongs to a *watcher*, which is a connection, not a session; it dies with it. There are two
//! tables, as in Apache's: *data* (exists, getData, addWatch) and *child* (getChildren, persistent addWatch).
//! The order of triggers is part of the protocol and is kept here: for a deleted znode the data table fires
//! first, then the child table for whoever was not yet told, then the parent's child table.
//!
//! The table has a lock of its own, so that reads, which share the tree, can leave watches. Lock order: the
//! tree's lock first, then this one. Nothing is called while it is held: a trigger collects its watchers,
//! lets go, and then tells the sink.
//!
//! Bounded by whoever owns it: a watcher may hold as many watches as it has asked for.

use std::collections::BTreeMap;

use foldhash::fast::SeedableRandomState;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use zoometry_wire::records::EventType;
use zoometry_wire::{Acl, Zxid, path};

/// Names a watcher: one connection, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherId(pub u64);

/// What happened, to whom, and who may hear of it.
#[derive(Debug, Clone, Copy)]
pub struct WatchEvent<'a> {
    /// What happened.
    pub kind: EventType,
    /// The znode.
    pub path: &'a str,
    /// The transaction that did it; goes into the notification's header (since 3.9.0).
    pub zxid: Zxid,
    /// A watcher without READ in this list is not told (since 3.8.4 and 3.9.2).
    pub acl: &'a [Acl],
}

/// Whoever delivers events to watchers.
pub trait WatchSink {
    /// One trigger: every watcher in the list is told once. Called before the change is visible to readers.
    fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]);
}

/// For recovery and tests: nobody is watching.
impl WatchSink for () {
    fn fire(&mut self, _: &WatchEvent<'_>, _: &[WatcherId]) {}
}

/// What is being watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watch {
    /// One event of the data table: getData, exists.
    Data,
    /// One event of the child table: getChildren.
    Child,
    /// Every event of the znode, until removed: addWatch mode 0.
    Persistent,
    /// Every event of the znode and all below it except children changes: addWatch mode 1.
    Recursive,
}

/// Which watches to remove or look for. Source: `Watcher.WatcherType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchSelection {
    /// One-shot child watches.
    Children,
    /// One-shot data watches.
    Data,
    /// All of them.
    Any,
    /// Persistent ones.
    Persistent,
    /// Persistent recursive ones.
    Recursive,
}

impl WatchSelection {
    /// The selection with this number on the wire.
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Children),
            2 => Some(Self::Data),
            3 => Some(Self::Any),
            4 => Some(Self::Persistent),
            5 => Some(Self::Recursive),
            _ => None,
        }
    }
}

const STANDARD: u8 = 1;
const PERSISTENT: u8 = 2;
const RECURSIVE: u8 = 4;

/// Watchers of one path in one table, each with the modes in which it watches. Ordered, so that the same run
/// delivers in the same order.
type Watchers = BTreeMap<WatcherId, u8>;
type Paths = HashMap<Box<str>, Watchers, SeedableRandomState>;

#[derive(Debug)]
struct Tables {
    data: Paths,
    child: Paths,
    /// Paths of each watcher, in either table.
    paths: HashMap<WatcherId, HashSet<Box<str>, SeedableRandomState>, SeedableRandomState>,
    /// How many pairs of path and watcher the data table has of each watcher: none that is 0.
    data_pairs_of: HashMap<WatcherId, usize, SeedableRandomState>,
    /// (path, watcher) pairs of the data table, and of the child table.
    data_pairs: usize,
    child_pairs: usize,
    /// How many (path, watcher) pairs that watch recursively have a path of which length, bytes. Only ancestors of
    /// these lengths need to be looked for, however deep a path is.
    recursive: BTreeMap<usize, usize>,
}

/// Sizes, for `wchs` and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchCounts {
    /// Connections with at least one watch in the data table.
    pub watchers: usize,
    /// Paths watched in the data table.
    pub paths: usize,
    /// (path, watcher) pairs in the data table.
    pub data: usize,
    /// (path, watcher) pairs in the child table.
    pub child: usize,
}

/// All watches of one member.
#[derive(Debug)]
pub struct WatchTable {
    tables: Mutex<Tables>,
}

impl WatchTable {
    /// An empty table; `hash_seed` keeps clients from choosing paths that collide.
    pub fn new(hash_seed: u64) -> Self {
        let state = super::path_hash::state(hash_seed);
        Self {
            tables: Mutex::new(Tables {
                data: Paths::with_hasher(state.clone()),
                child: Paths::with_hasher(state.clone()),
                paths: HashMap::with_hasher(state.clone()),
                data_pairs_of: HashMap::with_hasher(state),
                data_pairs: 0,
                child_pairs: 0,
                recursive: BTreeMap::new(),
            }),
        }
    }

    /// Registers a watch. Registering it twice has no further effect; different kinds on one path coexist.
    pub fn add(&self, watcher: WatcherId, path: &str, watch: Watch) {
        let tables = &mut *self.tables.lock();
        match watch {
            Watch::Data => tables.insert(Table::Data, watcher, path, STANDARD),
            Watch::Child => tables.insert(Table::Child, watcher, path, STANDARD),
            Watch::Persistent => {
                tables.insert(Table::Data, watcher, path, PERSISTENT);
                tables.insert(Table::Child, watcher, path, PERSISTENT);
            }
            Watch::Recursive => tables.insert(Table::Data, watcher, path, RECURSIVE),
        }
        let own =
            tables.paths.entry(watcher).or_insert_with(|| HashSet::with_hasher(tables.data.hasher().clone()));
        if !own.contains(path) {
            own.insert(path.into());
        }
    }

    /// Removes the selected watches of `watcher` on `path`; false if there were none.
    pub fn remove(&self, watcher: WatcherId, path: &str, selection: WatchSelection) -> bool {
        let tables = &mut *self.tables.lock();
        let (data, child) = selected(selection);
        let removed_data = tables.drop_modes(Table::Data, watcher, path, data);
        let removed_child = tables.drop_modes(Table::Child, watcher, path, child);
        tables.forget_if_unwatched(watcher, path);
        removed_data | removed_child
    }

    /// Whether `watcher` has a watch of the selection on `path`.
    pub fn contains(&self, watcher: WatcherId, path: &str, selection: WatchSelection) -> bool {
        let tables = self.tables.lock();
        let (data, child) = selected(selection);
        let has = |table: &Paths, modes| {
            table.get(path).and_then(|watchers| watchers.get(&watcher)).is_some_and(|own| own & modes != 0)
        };
        has(&tables.data, data) || has(&tables.child, child)
    }

    /// Removes everything a watcher has: its connection is gone.
    pub fn remove_watcher(&self, watcher: WatcherId) {
        let tables = &mut *self.tables.lock();
        for path in tables.paths.remove(&watcher).into_iter().flatten() {
            tables.drop_modes(Table::Data, watcher, &path, u8::MAX);
            tables.drop_modes(Table::Child, watcher, &path, u8::MAX);
        }
    }

    /// A znode has come.
    pub fn node_created(
        &self,
        path: &str,
        zxid: Zxid,
        acl: &[Acl],
        parent_acl: &[Acl],
        sink: &mut dyn WatchSink,
    ) {
        self.fire(Table::Data, WatchEvent { kind: EventType::NodeCreated, path, zxid, acl }, &[], sink);
        self.children_changed(path, zxid, parent_acl, sink);
    }

    /// A znode has gone.
    pub fn node_deleted(
        &self,
        path: &str,
        zxid: Zxid,
        acl: &[Acl],
        parent_acl: &[Acl],
        sink: &mut dyn WatchSink,
    ) {
        let event = WatchEvent { kind: EventType::NodeDeleted, path, zxid, acl };
        let told = self.fire(Table::Data, event, &[], sink);
        self.fire(Table::Child, event, &told, sink);
        self.children_changed(path, zxid, parent_acl, sink);
    }

    /// A znode's data has changed.
    pub fn data_changed(&self, path: &str, zxid: Zxid, acl: &[Acl], sink: &mut dyn WatchSink) {
        self.fire(Table::Data, WatchEvent { kind: EventType::NodeDataChanged, path, zxid, acl }, &[], sink);
    }

    fn children_changed(&self, path: &str, zxid: Zxid, acl: &[Acl], sink: &mut dyn WatchSink) {
        let event = WatchEvent { kind: EventType::NodeChildrenChanged, path: path::parent(path), zxid, acl };
        self.fire(Table::Child, event, &[], sink);
    }

    /// Tells everyone in `table` who watches the event's path, except those already told; who that is, in order.
    fn fire(
        &self,
        table: Table,
        event: WatchEvent<'_>,
        told: &[WatcherId],
        sink: &mut dyn WatchSink,
    ) -> Vec<WatcherId> {
        let mut watchers = self.tables.lock().triggered(table, event.path);
        watchers.retain(|watcher| told.binary_search(watcher).is_err());
        if !watchers.is_empty() {
            sink.fire(&event, &watchers);
        }
        watchers
    }

    /// Sizes.
    pub fn counts(&self) -> WatchCounts {
        let tables = self.tables.lock();
        WatchCounts {
            watchers: tables.data_pairs_of.len(),
            paths: tables.data.len(),
            data: tables.data_pairs,
            child: tables.child_pairs,
        }
    }

    /// Watched paths of the data table with their watchers, both in order; for `wchp` and `wchc`. Of many only some:
    /// what takes `most_bytes` as text. [`counts`](Self::counts) says how many pairs there are.
    pub fn by_path(&self, most_bytes: usize) -> BTreeMap<String, Vec<WatcherId>> {
        /// A session's number with what stands around it.
        const WATCHER_BYTES: usize = 20;
        let tables = self.tables.lock();
        let mut left = most_bytes;
        let some = tables.data.iter().map_while(|(path, own)| {
            left = left.checked_sub(path.len())?;
            let watchers: Vec<_> = own.keys().copied().take(left / WATCHER_BYTES).collect();
            left -= watchers.len() * WATCHER_BYTES;
            (!watchers.is_empty()).then(|| (path.to_string(), watchers))
        });
        some.collect()
    }
}

#[derive(Clone, Copy)]
enum Table {
    Data,
    Child,
}

impl Tables {
    fn table(&mut self, table: Table) -> &mut Paths {
        match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        }
    }

    fn insert(&mut self, table: Table, watcher: WatcherId, path: &str, mode: u8) {
        let paths = self.table(table);
        if !paths.contains_key(path) {
            paths.insert(path.into(), Watchers::new());
        }
        let modes = paths.get_mut(path).expect("just made").entry(watcher).or_default();
        let (is_new_pair, is_new_mode) = (*modes == 0, *modes & mode == 0);
        *modes |= mode;
        if is_new_pair {
            self.count_pair(table, watcher);
        }
        if is_new_mode && mode == RECURSIVE {
            *self.recursive.entry(path.len()).or_default() += 1;
        }
    }

    fn count_pair(&mut self, table: Table, watcher: WatcherId) {
        match table {
            Table::Data => {
                self.data_pairs += 1;
                *self.data_pairs_of.entry(watcher).or_default() += 1;
            }
            Table::Child => self.child_pairs += 1,
        }
    }

    fn discount_pair(&mut self, table: Table, watcher: WatcherId) {
        match table {
            Table::Data => {
                self.data_pairs -= 1;
                if let Some(pairs) = self.data_pairs_of.get_mut(&watcher) {
                    *pairs -= 1;
                    if *pairs == 0 {
                        self.data_pairs_of.remove(&watcher);
                    }
                }
            }
            Table::Child => self.child_pairs -= 1,
        }
    }

    /// The watchers of a trigger, in order; their one-shot watches are used up.
    fn triggered(&mut self, table: Table, path: &str) -> Vec<WatcherId> {
        let mut found: Vec<WatcherId> = Vec::new();
        if let Some(watchers) = self.table(table).get_mut(path) {
            found.extend(watchers.keys());
            let mut emptied = Vec::new();
            watchers.retain(|watcher, modes| {
                *modes &= !STANDARD;
                if *modes == 0 {
                    emptied.push(*watcher);
                }
                *modes != 0
            });
            if watchers.is_empty() {
                self.table(table).remove(path);
            }
            for watcher in emptied {
                self.discount_pair(table, watcher);
                self.forget_if_unwatched(watcher, path);
            }
        }
        if !self.recursive.is_empty() && matches!(table, Table::Data) {
            self.add_recursive_ancestors(path, &mut found);
        }
        found
    }

    fn add_recursive_ancestors(&self, path: &str, found: &mut Vec<WatcherId>) {
        let is_ancestor = |length: usize| length == 1 || path.as_bytes().get(length) == Some(&b'/');
        let lengths = self.recursive.range(..path.len()).map(|(length, _)| *length);
        for length in lengths.filter(|length| is_ancestor(*length)) {
            let watchers = self.data.get(&path[..length]).into_iter().flatten();
            found.extend(watchers.filter(|(_, modes)| **modes & RECURSIVE != 0).map(|(watcher, _)| *watcher));
        }
        found.sort_unstable();
        found.dedup();
    }

    fn drop_modes(&mut self, table: Table, watcher: WatcherId, path: &str, modes: u8) -> bool {
        let paths = self.table(table);
        let Some(watchers) = paths.get_mut(path) else { return false };
        let Some(own) = watchers.get_mut(&watcher) else { return false };
        let dropped = *own & modes;
        *own &= !modes;
        let is_gone = *own == 0;
        if is_gone {
            watchers.remove(&watcher);
        }
        if watchers.is_empty() {
            paths.remove(path);
        }
        if is_gone {
            self.discount_pair(table, watcher);
        }
        if dropped & RECURSIVE != 0
            && let Some(pairs) = self.recursive.get_mut(&path.len())
        {
            *pairs -= 1;
            if *pairs == 0 {
                self.recursive.remove(&path.len());
            }
        }
        dropped != 0
    }

    fn forget_if_unwatched(&mut self, watcher: WatcherId, path: &str) {
        let watches = |table: &Paths| table.get(path).is_some_and(|own| own.contains_key(&watcher));
        if watches(&self.data) || watches(&self.child) {
            return;
        }
        if let Some(own) = self.paths.get_mut(&watcher) {
            own.remove(path);
            if own.is_empty() {
                self.paths.remove(&watcher);
            }
        }
    }
}

/// The modes that a selection means in the data and in the child table.
fn selected(selection: WatchSelection) -> (u8, u8) {
    match selection {
        WatchSelection::Children => (0, STANDARD),
        WatchSelection::Data => (STANDARD, 0),
        WatchSelection::Any => (u8::MAX, u8::MAX),
        WatchSelection::Persistent => (PERSISTENT, PERSISTENT),
        WatchSelection::Recursive => (RECURSIVE, RECURSIVE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EventType::*;

    #[derive(Default)]
    struct Told(Vec<(EventType, String, Vec<u64>)>);

    impl WatchSink for Told {
        fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]) {
            self.0.push((event.kind, event.path.to_string(), watchers.iter().map(|w| w.0).collect()));
        }
    }

    fn table(watches: &[(u64, &str, Watch)]) -> WatchTable {
        let table = WatchTable::new(7);
        for (watcher, path, watch) in watches {
            table.add(WatcherId(*watcher), path, *watch);
        }
        table
    }

    fn deleted(table: &WatchTable, path: &str) -> Vec<(EventType, String, Vec<u64>)> {
        let mut told = Told::default();
        table.node_deleted(path, Zxid(1), &[], &[], &mut told);
        told.0
    }

    fn created(table: &WatchTable, path: &str) -> Vec<(EventType, String, Vec<u64>)> {
        let mut told = Told::default();
        table.node_created(path, Zxid(1), &[], &[], &mut told);
        told.0
    }

    #[test]
    fn one_shot_watches_fire_once_and_leave_nothing() {
        let table = table(&[(1, "/a", Watch::Data), (1, "/a", Watch::Data), (2, "/", Watch::Child)]);
        let expected =
            vec![(NodeCreated, "/a".to_string(), vec![1]), (NodeChildrenChanged, "/".to_string(), vec![2])];
        assert_eq!(created(&table, "/a"), expected);
        assert_eq!(created(&table, "/a"), []);
        assert_eq!(table.counts(), WatchCounts::default());
        assert!(table.tables.lock().paths.is_empty());
    }

    /// To look for each watcher among all the others would take this ten seconds.
    #[test]
    fn fifty_thousand_watchers_of_one_znode_are_told_once_each() {
        let table = WatchTable::new(7);
        for watcher in (0..50_000).map(WatcherId) {
            for (path, watch) in [("/", Watch::Recursive), ("/a", Watch::Data), ("/a", Watch::Child)] {
                table.add(watcher, path, watch);
            }
        }
        let told = deleted(&table, "/a");
        assert_eq!(told, [(NodeDeleted, "/a".to_string(), (0..50_000).collect())]);
    }

    #[test]
    fn a_delete_tells_everyone_once_data_then_child_then_parent() {
        let table = table(&[
            (1, "/a", Watch::Data),
            (1, "/a", Watch::Child),
            (2, "/a", Watch::Child),
            (3, "/", Watch::Child),
        ]);
        assert_eq!(
            deleted(&table, "/a"),
            [
                (NodeDeleted, "/a".to_string(), vec![1]),
                (NodeDeleted, "/a".to_string(), vec![2]),
                (NodeChildrenChanged, "/".to_string(), vec![3]),
            ]
        );
        // Watcher 1's child watch was used up as well, although it was told only once.
        assert_eq!(table.counts(), WatchCounts::default());
    }

    #[test]
    fn persistent_watches_stay_and_see_children() {
        let table = table(&[(1, "/a", Watch::Persistent)]);
        for _ in 0..2 {
            assert_eq!(created(&table, "/a/b"), [(NodeChildrenChanged, "/a".to_string(), vec![1])]);
            assert_eq!(deleted(&table, "/a"), [(NodeDeleted, "/a".to_string(), vec![1])]);
        }
    }

    #[test]
    fn recursive_watches_see_all_below_but_no_children_changes() {
        let table = table(&[(1, "/a", Watch::Recursive), (2, "/", Watch::Recursive)]);
        assert_eq!(created(&table, "/a/b/c"), [(NodeCreated, "/a/b/c".to_string(), vec![1, 2])]);
        assert_eq!(created(&table, "/ab"), [(NodeCreated, "/ab".to_string(), vec![2])]);
        assert_eq!(deleted(&table, "/a"), [(NodeDeleted, "/a".to_string(), vec![1, 2])]);
        assert!(table.remove(WatcherId(2), "/", WatchSelection::Recursive));
        table.remove_watcher(WatcherId(1));
        assert!(table.tables.lock().recursive.is_empty());
        assert_eq!(created(&table, "/a/b"), []);
    }

    /// To look for each of the ancestors of such a path would be to hash two gigabytes, a thousand times.
    #[test]
    fn a_deep_path_is_no_slower_than_what_is_watched() {
        let table = table(&[(1, "/a", Watch::Recursive), (2, "/aa", Watch::Recursive)]);
        let deep = "/a".repeat(50_000);
        for _ in 0..1000 {
            table.add(WatcherId(3), "/", Watch::Recursive);
            let told = table.tables.lock().triggered(Table::Data, &deep);
            assert_eq!(told, [WatcherId(1), WatcherId(3)]);
            assert!(table.remove(WatcherId(3), "/", WatchSelection::Recursive));
        }
    }

    #[test]
    fn counts_follow_what_is_watched() {
        let table = table(&[
            (1, "/a", Watch::Data),
            (1, "/a", Watch::Persistent),
            (1, "/b", Watch::Recursive),
            (2, "/a", Watch::Data),
            (2, "/a", Watch::Data),
            (3, "/a", Watch::Child),
        ]);
        assert_eq!(table.counts(), WatchCounts { watchers: 2, paths: 2, data: 3, child: 2 });
        assert_eq!(table.by_path(100).values().map(Vec::len).sum::<usize>(), 3);
        assert_eq!(table.by_path(50).values().map(Vec::len).sum::<usize>(), 2);
        deleted(&table, "/a");
        assert_eq!(table.counts(), WatchCounts { watchers: 1, paths: 2, data: 2, child: 1 });
        assert!(!table.remove(WatcherId(1), "/b", WatchSelection::Persistent));
        assert!(table.remove(WatcherId(1), "/b", WatchSelection::Any));
        assert_eq!(table.counts(), WatchCounts { watchers: 1, paths: 1, data: 1, child: 1 });
        table.remove_watcher(WatcherId(1));
        assert_eq!(table.counts(), WatchCounts::default());
        assert!(table.tables.lock().data_pairs_of.is_empty());
    }

    #[test]
    fn kinds_coexist_and_are_removed_apart() {
        let me = WatcherId(1);
        let table = table(&[
            (1, "/a", Watch::Data),
            (1, "/a", Watch::Child),
            (1, "/a", Watch::Persistent),
            (1, "/a", Watch::Recursive),
        ]);
        use WatchSelection::*;
        for selection in [Children, Data, Persistent, Recursive] {
            assert!(table.contains(me, "/a", selection), "{selection:?}");
            assert!(table.remove(me, "/a", selection), "{selection:?}");
            assert!(!table.contains(me, "/a", selection), "{selection:?}");
            assert!(!table.remove(me, "/a", selection), "{selection:?}");
        }
        assert!(!table.contains(me, "/a", Any));
        assert!(table.tables.lock().paths.is_empty());
    }
}
