//! Which events a transaction fires, in which order, and what a reconnect catches up on.

use super::*;
use zoometry_wire::Zxid;
use zoometry_wire::records::WatcherEvent;
use zoometry_wire::request::SetWatches;

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const CHANGED: i32 = 3;
const CHILDREN: i32 = 4;

/// Leaves a watch for watcher `watcher`.
fn watch(world: &World, watcher: u64, request: &Request) {
    let caller = Caller { session: ME, watcher: WatcherId(watcher), ids: &world.ids };
    let _ = world.store.read(request, &caller, &mut Vec::new());
}

/// What was told since last asked, without the zxid when it is the last write's.
fn told(world: &mut World) -> Vec<(i32, String, Vec<u64>)> {
    let zxid = world.zxid.0;
    std::mem::take(&mut world.told.0)
        .into_iter()
        .map(|(kind, path, at, watchers)| {
            assert_eq!(at, zxid);
            (kind, path, watchers)
        })
        .collect()
}

fn event(kind: i32, path: &str, watchers: &[u64]) -> (i32, String, Vec<u64>) {
    (kind, path.to_string(), watchers.to_vec())
}

#[test]
fn create_set_and_delete() {
    let mut world = World::default();
    watch(&world, 1, &exists("/a", true));
    watch(&world, 2, &get_children("/", true));
    world.ok(create("/a"));
    assert_eq!(told(&mut world), [event(CREATED, "/a", &[1]), event(CHILDREN, "/", &[2])]);
    watch(&world, 1, &get_data("/a", true));
    watch(&world, 2, &get_children("/a", true));
    world.ok(set_data("/a", "x", -1));
    assert_eq!(told(&mut world), [event(CHANGED, "/a", &[1])]);
    world.ok(set_acl("/a", Acl::open(), -1));
    assert_eq!(told(&mut world), [], "setACL says nothing");
    watch(&world, 1, &get_data("/a", true));
    watch(&world, 1, &get_children("/a", true));
    watch(&world, 3, &get_children("/", true));
    world.ok(delete("/a", -1));
    assert_eq!(
        told(&mut world),
        [event(DELETED, "/a", &[1]), event(DELETED, "/a", &[2]), event(CHILDREN, "/", &[3])]
    );
    assert_eq!(world.store.watches().counts(), Default::default());
}

#[test]
fn refused_and_voided_writes_say_nothing() {
    let mut world = World::default();
    world.ok(create("/a"));
    watch(&world, 1, &get_data("/a", true));
    watch(&world, 1, &exists("/b", true));
    assert!(world.write(set_data("/a", "", 9)).is_err());
    world.ok(Request::Multi(vec![set_data("/a", "", -1), create("/b"), delete("/no", -1)]));
    world.ok(Request::Multi(vec![check("/a", 0)]));
    assert_eq!(told(&mut world), []);
}

#[test]
fn a_multi_fires_in_order_with_one_zxid() {
    let mut world = World::default();
    world.ok(create("/a"));
    watch(&world, 1, &Request::AddWatch(mode("/", 1)));
    watch(&world, 2, &Request::AddWatch(mode("/a", 0)));
    world.ok(Request::Multi(vec![
        create("/a/b"),
        set_data("/a", "", -1),
        delete("/a/b", -1),
        delete("/a", -1),
    ]));
    assert_eq!(
        told(&mut world),
        [
            event(CREATED, "/a/b", &[1]),
            event(CHILDREN, "/a", &[2]),
            event(CHANGED, "/a", &[1, 2]),
            event(DELETED, "/a/b", &[1]),
            event(CHILDREN, "/a", &[2]),
            event(DELETED, "/a", &[1, 2]),
        ]
    );
}

#[test]
fn a_closed_session_fires_for_each_ephemeral() {
    let mut world = World::default();
    world.ok(create("/p"));
    world.ok(ephemeral("/p/b"));
    world.ok(ephemeral("/p/a"));
    watch(&world, 1, &get_data("/p/b", true));
    watch(&world, 2, &Request::AddWatch(mode("/p", 0)));
    world.ok(Request::CloseSession);
    assert_eq!(
        told(&mut world),
        [event(CHILDREN, "/p", &[2]), event(DELETED, "/p/b", &[1]), event(CHILDREN, "/p", &[2])]
    );
}

#[test]
fn an_event_brings_the_list_that_it_is_judged_by() {
    struct Lists(Vec<(i32, Vec<Acl>)>);
    impl WatchSink for Lists {
        fn fire(&mut self, event: &WatchEvent<'_>, _: &[WatcherId]) {
            self.0.push((event.kind as i32, event.acl.to_vec()));
        }
    }
    let mut world = World::default();
    watch(&world, 1, &Request::AddWatch(mode("/p", 0)));
    watch(&world, 1, &Request::AddWatch(mode("/p/a", 0)));
    world.ok(create_acl("/p", self::world(perms::ALL)));
    let mut lists = Lists(Vec::new());
    let mine = self::world(perms::READ | perms::WRITE);
    for request in [create_acl("/p/a", mine.clone()), set_data("/p/a", "", -1), delete("/p/a", -1)] {
        let record = world.prepare(&request);
        world.store.apply(&record, &mut lists).unwrap();
        world.prep.applied(record.header.zxid);
    }
    let open = self::world(perms::ALL);
    assert_eq!(
        lists.0,
        [
            (CREATED, mine.clone()),
            (CHILDREN, open.clone()),
            (CHANGED, mine.clone()),
            (DELETED, mine),
            (CHILDREN, open)
        ]
    );
}

#[test]
fn set_watches_tells_what_was_missed_and_watches_the_rest() {
    let mut world = World::default();
    for path in ["/same", "/changed", "/came"] {
        world.ok(create(path));
    }
    let since = world.zxid;
    world.ok(set_data("/changed", "", -1));
    world.ok(create("/changed/child"));
    let paths = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect::<Vec<_>>();
    let request = Request::SetWatches2(SetWatches {
        relative_zxid: since,
        data: paths(&["/changed", "/same", "/gone"]),
        exist: paths(&["/came", "/not-yet"]),
        child: paths(&["/changed", "/same", "/gone"]),
        persistent: paths(&["/gone", "/changed"]),
        recursive: paths(&["/changed"]),
    });
    let caller = Caller { session: ME, watcher: WatcherId(1), ids: &world.ids };
    let mut missed = Vec::new();
    assert_eq!(world.store.read(&request, &caller, &mut missed), Ok(Answer::Made(Response::Empty)));
    let event = |kind, path: &str| WatcherEvent { kind, state: 3, path: path.into() };
    assert_eq!(
        missed,
        [
            event(CHANGED, "/changed"),
            event(DELETED, "/gone"),
            event(CREATED, "/came"),
            event(CHILDREN, "/changed"),
            event(DELETED, "/gone"),
        ]
    );
    let has = |path: &str, kind| world.read(&Request::CheckWatches(mode(path, kind))).is_ok();
    assert!(has("/same", 2) && has("/same", 1) && has("/not-yet", 2));
    assert!(!has("/changed", 2) && !has("/changed", 1) && !has("/gone", 2) && !has("/came", 2));
    assert!(has("/gone", 4) && has("/changed", 4) && has("/changed", 5));
    // A client that has seen everything has missed nothing.
    let all_seen = Request::SetWatches(SetWatches {
        relative_zxid: Zxid(world.zxid.0),
        data: paths(&["/changed"]),
        child: paths(&["/changed"]),
        ..SetWatches::default()
    });
    let mut missed = Vec::new();
    world.store.read(&all_seen, &caller, &mut missed).unwrap();
    assert_eq!(missed, []);
}
