//! Snapshots taken in slices, and what becomes of them.

use super::properties::{Write, seat, writes};
use super::*;
use crate::storage::snapshot::{SnapshotItem, SnapshotNode};
use crate::store::{LoadError, Walk};
use proptest::prelude::*;
use std::convert::Infallible;

fn load(items: Vec<SnapshotItem>, zxid: Zxid) -> Result<Store, LoadError<Infallible>> {
    let config = StoreConfig { extended_types: true, hash_seed: 99, ..StoreConfig::default() };
    Store::load(config, items.into_iter().map(Ok), zxid)
}

/// A snapshot with nothing going on beside it.
fn snapshot(store: &Store) -> Vec<SnapshotItem> {
    let mut items = store.snapshot_head();
    let mut walk = store.start_walk();
    while store.walk(&mut walk, 3, &mut |node| items.push(SnapshotItem::Node(node))) {}
    items
}

fn slice(store: &Store, walk: &mut Walk, budget: usize, nodes: &mut Vec<SnapshotNode>) -> bool {
    let before = nodes.len();
    let more = store.walk(walk, budget, &mut |node| nodes.push(node));
    assert!(nodes.len() - before <= budget);
    more
}

proptest! {
    #[test]
    fn a_fuzzy_snapshot_and_its_log_give_the_tree(
        before in writes(40),
        during in writes(60),
        budgets in prop::collection::vec((1..4usize, 0..6usize), 1..20),
    ) {
        let mut world = World::new(StoreConfig { extended_types: true, ..StoreConfig::default() });
        let write = |world: &mut World, (session, request): &Write| {
            seat(world, *session);
            let record = world.prepare(request);
            let _ = world.apply(&record);
            record
        };
        for one in &before {
            write(&mut world, one);
        }
        let zxid = world.zxid;
        let head = world.store.snapshot_head();
        let mut walk = world.store.start_walk();
        let (mut nodes, mut log) = (Vec::new(), Vec::new());
        let mut during = during.iter();
        for (budget, writes) in budgets.iter().cycle() {
            if !slice(&world.store, &mut walk, *budget, &mut nodes) {
                break;
            }
            log.extend(during.by_ref().take(*writes).map(|one| write(&mut world, one)));
        }
        log.extend(during.map(|one| write(&mut world, one)));
        let indexes: Vec<i64> = head
            .iter()
            .filter_map(|item| if let SnapshotItem::Acl(index, _) = item { Some(*index) } else { None })
            .collect();
        prop_assert!(nodes.iter().all(|node| node.acl == -1 || indexes.contains(&node.acl)));

        let items = head.into_iter().chain(nodes.into_iter().map(SnapshotItem::Node)).collect();
        let mut loaded = load(items, zxid).unwrap();
        for record in &log {
            let _ = loaded.apply(record, &mut ());
        }
        prop_assert_eq!(contents(&loaded), contents(&world.store));
        prop_assert_eq!(loaded.last_zxid(), world.store.last_zxid());
        prop_assert_eq!(loaded.digest_mismatches(), 0);
    }
}

#[test]
fn a_quiet_snapshot_is_the_tree() {
    let mut world = World::default();
    for request in [
        Request::CreateSession(30_000),
        create_data("/null", None),
        create_acl("/closed", digest_acl("u:x")),
        create_acl("/closed2", digest_acl("u:x")),
        ephemeral("/e"),
        container("/c"),
        ttl("/t", 5, 1000),
        create("/c/x"),
    ] {
        world.ok(request);
    }
    let items = snapshot(&world.store);
    let loaded = load(items.clone(), world.zxid).unwrap();
    assert_eq!(contents(&loaded), contents(&world.store));
    assert_eq!(snapshot(&loaded).len(), items.len(), "the list of nobody does not pile up");
    assert_eq!(
        (loaded.node_count(), loaded.approximate_data_size()),
        (12, world.store.approximate_data_size())
    );
    assert_eq!(loaded.last_zxid(), world.zxid);
}

#[test]
fn a_place_that_is_used_again_does_not_break_the_order() {
    let mut world = World::default();
    for path in ["/a", "/b", "/b/x"] {
        world.ok(create(path));
    }
    let (mut walk, mut nodes) = (world.store.start_walk(), Vec::new());
    // The root, /zookeeper and what is below it, /a.
    assert!(slice(&world.store, &mut walk, 5, &mut nodes));
    assert_eq!(nodes.last().unwrap().path, "/a");
    // /a's place goes to a child of a znode whose turn has not come, and the other way round.
    for request in [delete("/a", -1), create("/b/y"), delete("/b/x", -1), create("/a"), create("/a/z")] {
        world.ok(request);
    }
    while slice(&world.store, &mut walk, 1, &mut nodes) {}
    let paths: Vec<&str> = nodes.iter().map(|node| &*node.path).skip(4).collect();
    assert_eq!(paths, ["/a", "/b"]);
}

#[test]
fn a_slice_is_short_where_all_znodes_have_gone() {
    let mut world = World::default();
    for count in 0..1000 {
        world.ok(create(&format!("/n{count}")));
    }
    for count in 0..1000 {
        world.ok(delete(&format!("/n{count}"), -1));
    }
    let (mut walk, mut nodes, mut slices) = (world.store.start_walk(), Vec::new(), 1);
    while slice(&world.store, &mut walk, 5, &mut nodes) {
        slices += 1;
    }
    assert_eq!(nodes.len(), 4);
    assert!(slices > 10, "1000 places in {slices} slices");
}

#[test]
fn a_list_that_came_later_is_nobodys_until_replay() {
    let mut world = World::default();
    world.ok(create("/a"));
    let zxid = world.zxid;
    let (head, mut walk, mut nodes) = (world.store.snapshot_head(), world.store.start_walk(), Vec::new());
    let log = [self::world(perms::ALL - perms::CREATE), digest_acl("u:x")].map(|list| {
        let record = world.prepare(&set_acl("/a", list, -1));
        world.apply(&record).unwrap();
        record
    });
    while slice(&world.store, &mut walk, 9, &mut nodes) {}
    let in_head =
        |index| head.iter().any(|item| matches!(item, SnapshotItem::Acl(known, _) if *known == index));
    assert!(in_head(nodes.last().unwrap().acl), "Apache stops at an index that its table lacks");
    let items = head.into_iter().chain(nodes.into_iter().map(SnapshotItem::Node)).collect();
    let mut loaded = load(items, zxid).unwrap();
    let may_read = |store: &Store, user: &str| {
        let ids = [id("digest", user)];
        let caller = Caller { session: ME, watcher: WatcherId(1), ids: &ids };
        store.read(&get_data("/a", false), &caller, &mut Vec::new()).is_ok()
    };
    assert!(!may_read(&loaded, "u:x"));
    for record in log {
        loaded.apply(&record, &mut ()).unwrap();
    }
    assert!(may_read(&loaded, "u:x") && !may_read(&loaded, "v:x"));
}

#[test]
fn a_hole_in_apaches_acl_table_lets_nobody_in() {
    let node = |path: &str, acl| {
        let (path, data, stat) = (path.to_string(), None, StatPersisted::default());
        SnapshotItem::Node(SnapshotNode { path, data, acl, stat })
    };
    let store = load(vec![node("", -1), node("/a", 7)], Zxid(5)).unwrap();
    let caller = Caller { session: ME, watcher: WatcherId(1), ids: &[] };
    let answer = store.read(&get_data("/a", false), &caller, &mut Vec::new()).map(Response::from);
    assert_eq!(answer, Err(ErrorCode::NoAuth));
    assert!(store.tree.find("/zookeeper/config").is_some(), "what an old snapshot lacks is added");
    assert!(store.tree.acls.next_index() > 8);
}

#[test]
fn damaged_snapshots_are_refused() {
    let node = |path: &str| {
        let (path, data, acl, stat) = (path.to_string(), None, -1, StatPersisted::default());
        SnapshotItem::Node(SnapshotNode { path, data, acl, stat })
    };
    let orphan = |path: &str| LoadError::Orphan(path.to_string());
    assert_eq!(load(vec![node("/a/b")], Zxid(1)).unwrap_err(), orphan("/a/b"));
    assert_eq!(load(vec![node("a")], Zxid(1)).unwrap_err(), orphan("a"));
    let twice = LoadError::Duplicate("/a".to_string());
    assert_eq!(load(vec![node("/a"), node("/a")], Zxid(1)).unwrap_err(), twice);
    assert_eq!(load(vec![node("/")], Zxid(1)).unwrap_err(), LoadError::Duplicate("/".to_string()));
    let failing = Store::load(StoreConfig::default(), [Err("torn")].into_iter(), Zxid(1));
    assert_eq!(failing.unwrap_err(), LoadError::Source("torn"));
}

#[test]
fn quotas_are_counted_again() {
    let mut world = World::default();
    for request in [
        create("/q"),
        create("/q/a"),
        create("/zookeeper/quota/q"),
        create_data("/zookeeper/quota/q/zookeeper_limits", bytes("count=9,bytes=9")),
        create_data("/zookeeper/quota/q/zookeeper_stats", bytes("count=7,bytes=7")),
    ] {
        world.ok(request);
    }
    let mut items = snapshot(&world.store);
    for item in &mut items {
        if let SnapshotItem::Node(node) = item
            && node.path.ends_with("zookeeper_stats")
        {
            node.data = bytes("count=99,bytes=99");
        }
    }
    world.store = load(items, world.zxid).unwrap();
    assert_eq!(world.data("/zookeeper/quota/q/zookeeper_stats"), bytes("count=2,bytes=4"));
    world.ok(create("/q/b"));
    assert_eq!(world.data("/zookeeper/quota/q/zookeeper_stats"), bytes("count=3,bytes=6"));
}
