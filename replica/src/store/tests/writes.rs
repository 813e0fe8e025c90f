//! What writes do: Stat, sequence names, multis, sessions, containers, quotas, digests, replay.

use super::*;
use zoometry_wire::jute::Record;
use zoometry_wire::txn::{CreateTxn, SetDataTxn, TxnHeader};
use zoometry_wire::{MultiResult, OpCode, Txn};

fn created(answer: Response) -> String {
    match answer {
        Response::Path(path) | Response::Created(path, _) => path,
        other => panic!("{other:?}"),
    }
}

fn raw(zxid: i64, kind: OpCode, txn: Txn) -> TxnRecord {
    let header = TxnHeader { session: ME, cxid: 1, zxid: Zxid(zxid), time_ms: zxid, kind: kind.code() };
    TxnRecord { header, txn, digest: None }
}

fn raw_create(zxid: i64, path: &str, parent_cversion: i32) -> TxnRecord {
    let (path, data, acl) = (path.to_string(), bytes("hi"), Acl::open());
    let txn = CreateTxn { path, data, acl, ephemeral: false, parent_cversion };
    raw(zxid, OpCode::Create, Txn::Create(txn))
}

#[test]
fn the_known_digests_and_bytes() {
    let mut world = World { zxid: Zxid(0x1_0000_0001), ..World::default() };
    assert_eq!(world.store.digest(), 0x51c6_d660);
    let record = world.prepare(&create("/a"));
    let hex: String = record.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "010000000000000500000001000000010000000200\
         00018bcfe5680000000001000000022f6100000002686900000001\
         0000001f00000005776f726c6400000006616e796f6e650000000001000000020000\
         0002099bf4ba"
    );
    world.apply(&record).unwrap();
    assert_eq!(world.store.digest(), 0x2_099b_f4ba);
}

#[test]
fn a_fresh_server() {
    let world = World::default();
    assert_eq!(world.stat("/"), Stat { cversion: -1, num_children: 1, ..Stat::default() });
    assert_eq!((world.store.node_count(), world.store.approximate_data_size()), (5, 44));
    assert_eq!(world.stat("/zookeeper/config").aversion, -1);
    assert_eq!(
        world
            .store
            .tree
            .acls
            .index(world.store.tree.node(world.store.tree.find("/zookeeper/config").unwrap()).acl),
        1
    );
}

#[test]
fn the_ensemble_stands_in_the_config_node() {
    let mut world = World::default();
    let before = world.store.digest();
    world.store.show_ensemble("server.1=a:1:2:participant\nversion=0", Zxid(0), 7);
    let Ok(Response::Data(data, stat)) = world.read(&get_data("/zookeeper/config", false)) else {
        panic!("anybody may read it")
    };
    assert_eq!(data.as_deref(), Some(&b"server.1=a:1:2:participant\nversion=0"[..]));
    assert_eq!((stat.version, stat.aversion, stat.mzxid, stat.mtime), (-1, -1, Zxid(0), 7));
    assert_eq!(world.store.digest(), before, "no transaction did it");
}

#[test]
fn stat_keeps_account() {
    let mut world = World::default();
    let t0 = world.time_ms;
    world.ok(create("/p"));
    let made = world.zxid;
    let expected = Stat {
        czxid: made,
        mzxid: made,
        pzxid: made,
        ctime: t0,
        mtime: t0,
        data_length: 2,
        ..Stat::default()
    };
    assert_eq!(world.stat("/p"), expected);
    world.time_ms += 5;
    world.ok(create("/p/a"));
    let first_child = world.zxid;
    assert_eq!(world.stat("/p"), Stat { cversion: 1, num_children: 1, pzxid: first_child, ..expected });
    world.ok(create("/p/b"));
    world.ok(delete("/p/a", 0));
    let deleted = world.zxid;
    let now = Stat { cversion: 3, num_children: 1, pzxid: deleted, ..expected };
    assert_eq!(world.stat("/p"), now);
    assert_eq!(world.persisted("/p").cversion, 2, "stored are the creations");
    world.ok(set_data("/p", "longer", 0));
    let set = world.zxid;
    let now = Stat { version: 1, mzxid: set, mtime: t0 + 5, data_length: 6, ..now };
    assert_eq!(world.stat("/p"), now);
    world.ok(set_acl("/p", world_read_write(), 0));
    assert_eq!(world.stat("/p"), Stat { aversion: 1, ..now });
    assert_eq!(world.write(set_acl("/p", Acl::open(), 0)), Err(ErrorCode::NoAuth));
}

fn world_read_write() -> Vec<Acl> {
    world(perms::READ | perms::WRITE)
}

#[test]
fn answers_show_the_new_stat() {
    let mut world = World::default();
    assert_eq!(world.ok(create("/a")), Response::Path("/a".into()));
    let answer = world.ok(create2("/b"));
    assert_eq!(answer, Response::Created("/b".into(), world.stat("/b")));
    let answer = world.ok(container("/c"));
    assert_eq!(answer, Response::Created("/c".into(), world.stat("/c")));
    let answer = world.ok(ttl("/d", 5, 1000));
    assert_eq!(answer, Response::Created("/d".into(), world.stat("/d")));
    let answer = world.ok(set_data("/a", "x", -1));
    assert_eq!(answer, Response::Stat(world.stat("/a")));
    let answer = world.ok(set_acl("/a", Acl::open(), -1));
    assert_eq!(answer, Response::Stat(world.stat("/a")));
    assert_eq!(world.ok(delete("/a", -1)), Response::Empty);
}

#[test]
fn owners_as_clients_see_them() {
    let mut world = World::default();
    world.ok(ephemeral("/e"));
    world.ok(container("/c"));
    world.ok(ttl("/t", 5, 1000));
    assert_eq!(world.stat("/e").ephemeral_owner, ME);
    assert_eq!(world.stat("/c").ephemeral_owner, SessionId(0));
    assert_eq!(world.stat("/t").ephemeral_owner, SessionId(0));
    assert_eq!(world.persisted("/c").ephemeral_owner, SessionId(i64::MIN));
    assert_eq!(world.persisted("/t").ephemeral_owner.0 as u64, 0xff00_0000_0000_03e8);
    // Neither refuses children; an ephemeral does.
    world.ok(create("/c/x"));
    world.ok(create("/t/x"));
    assert_eq!(world.write(create("/e/x")), Err(ErrorCode::NoChildrenForEphemerals));
}

#[test]
fn null_and_empty_data_differ() {
    let mut world = World::default();
    world.ok(create_data("/null", None));
    world.ok(create_data("/empty", bytes("")));
    assert_eq!((world.data("/null"), world.data("/empty")), (None, bytes("")));
    assert_eq!(world.stat("/null").data_length, 0);
}

#[test]
fn sequence_names_count_creations_alone() {
    let mut world = World::default();
    world.ok(create("/p"));
    let mut names = Vec::new();
    for flags in [2, 3, 2] {
        names.push(created(world.ok(create_flags("/p/n-", flags))));
    }
    world.ok(delete("/p/n-0000000001", -1));
    world.ok(create("/p/plain"));
    names.push(created(world.ok(create_flags("/p/", 2))));
    names.push(created(world.ok(ttl("/p/t", 6, 1000))));
    assert_eq!(
        names,
        ["/p/n-0000000000", "/p/n-0000000001", "/p/n-0000000002", "/p/0000000004", "/p/t0000000005"]
    );
    assert_eq!(created(world.ok(create_flags("/", 2))), "/0000000001");
}

/// Documented: the counter overflows and goes on with −2147483648. pzxid goes on too, for plain creates as well, or
/// a child watch that is set again would miss them.
#[test]
fn the_parents_counter_goes_on_behind_the_largest_number() {
    let mut world = World::default();
    world.ok(create("/p"));
    let id = world.store.tree.find("/p").unwrap();
    let count =
        |world: &mut World, cversion| world.store.tree.change_stat(id, |stat| stat.cversion = cversion);
    count(&mut world, i32::MAX - 1);
    let mut names: Vec<String> = (0..4).map(|_| created(world.ok(create_flags("/p/s-", 2)))).collect();
    world.ok(create("/p/plain"));
    names.push(created(world.ok(create_flags("/p/s-", 2))));
    assert_eq!(
        names,
        ["/p/s-2147483646", "/p/s-2147483647", "/p/s--2147483648", "/p/s--2147483647", "/p/s--2147483645"]
    );
    assert_eq!(world.persisted("/p").pzxid, world.store.last_zxid());
    for (cversion, expected) in [(-5, "/p/-000000005"), (-1, "/p/-000000001"), (0, "/p/0000000000")] {
        count(&mut world, cversion);
        assert_eq!(created(world.ok(create_flags("/p/", 2))), expected);
        assert_eq!(world.persisted("/p").cversion, cversion + 1);
    }
    assert_eq!(world.store.digest_mismatches(), 0, "prep and apply agree");
    world.store.tree.assert_sound();
}

/// An Apache leader's counter stands at 2147483647, and each of its creates says −2147483648.
#[test]
fn below_a_leader_whose_counter_stands_still_pzxid_moves() {
    let mut store = Store::new(StoreConfig::default());
    let apply = |store: &mut Store, record: &TxnRecord| store.apply(record, &mut ()).unwrap();
    apply(&mut store, &raw_create(10, "/p", 1));
    let id = store.tree.find("/p").unwrap();
    store.tree.change_stat(id, |stat| stat.cversion = i32::MAX);
    for (zxid, path) in [(11, "/p/a"), (12, "/p/b")] {
        apply(&mut store, &raw_create(zxid, path, i32::MIN));
        let stat = store.tree.node(id).stat;
        assert_eq!((stat.cversion, stat.pzxid), (i32::MIN, Zxid(zxid)));
    }
    // Older ones, behind a fuzzy snapshot, move nothing back.
    apply(&mut store, &raw_create(9, "/p/c", i32::MAX));
    let stat = store.tree.node(id).stat;
    assert_eq!((stat.cversion, stat.pzxid), (i32::MIN, Zxid(12)));
}

/// −1 would be a version that nobody can expect (ZOOKEEPER-4743).
#[test]
fn versions_wrap_and_leave_out_minus_one() {
    let mut world = World::default();
    world.ok(create("/a"));
    let id = world.store.tree.find("/a").unwrap();
    for (now, next) in [(i32::MAX, i32::MIN), (i32::MIN, i32::MIN + 1), (-2, 0)] {
        world.store.tree.change_stat(id, |stat| (stat.version, stat.aversion) = (now, now));
        assert_eq!(world.write(set_data("/a", "", now.wrapping_sub(1))), Err(ErrorCode::BadVersion));
        world.ok(Request::Multi(vec![check("/a", now), set_data("/a", "", now)]));
        world.ok(set_acl("/a", super::world(perms::ALL), now));
        assert_eq!((world.stat("/a").version, world.stat("/a").aversion), (next, next));
        world.ok(set_data("/a", "", -1));
    }
    world.store.tree.change_stat(id, |stat| stat.version = i32::MIN);
    world.ok(delete("/a", -1));
}

#[test]
fn path_rules() {
    let mut world = World::default();
    world.ok(create("/p"));
    for good in ["/p/a b", "/p/...", "/p/.a", "/p/漢字", "/p/\u{f900}", "/p/\u{ffef}", "/p/a\u{a0}"] {
        assert!(world.write(create(good)).is_ok(), "{good:?}");
    }
    for bad in [
        "/p/",
        "/p/.",
        "/p/..",
        "/p//a",
        "/p/\u{1f}",
        "/p/\u{7f}",
        "/p/\u{9f}",
        "/p/\u{e000}",
        "/p/\u{f8ff}",
        "/p/\u{fff0}",
        "/p/\u{1f600}",
        "p",
        "",
    ] {
        let answer = world.write(create(bad));
        assert!(matches!(answer, Err(ErrorCode::BadArguments | ErrorCode::NoNode)), "{bad:?}: {answer:?}");
        assert!(bad.is_empty() || !world.exists(bad), "{bad:?}");
    }
}

#[test]
fn a_multi_sees_itself_and_answers_entry_by_entry() {
    let mut world = World::default();
    let answer = world.ok(Request::Multi(vec![
        create("/m"),
        create2("/m/a"),
        container("/m/c"),
        ttl("/m/t", 5, 1000),
        set_data("/m", "x", 0),
        check("/m", 1),
        create_flags("/m/s", 2),
        delete("/m/a", 0),
    ]));
    let Response::Multi(results) = answer else { panic!("{answer:?}") };
    assert_eq!(results[0], MultiResult::Create("/m".into()));
    for (at, path) in [(1, "/m/a"), (2, "/m/c"), (3, "/m/t")] {
        assert!(matches!(&results[at], MultiResult::Create2(made, _) if made == path), "{:?}", results[at]);
    }
    assert!(matches!(results[4], MultiResult::SetData(Stat { version: 1, .. })));
    assert_eq!(results[5], MultiResult::Check);
    assert_eq!(results[6], MultiResult::Create("/m/s0000000003".into()));
    assert_eq!(results[7], MultiResult::Delete);
    let stat = world.stat("/m");
    assert_eq!((stat.czxid, stat.mzxid, stat.pzxid), (world.zxid, world.zxid, world.zxid));
    assert_eq!(world.ok(Request::Multi(vec![])), Response::Multi(vec![]));
}

#[test]
fn a_failed_multi_leaves_no_trace_but_its_transaction() {
    let mut world = World::default();
    world.ok(create("/a"));
    let before = world.store.digest();
    let request = Request::Multi(vec![
        create("/b"),
        set_data("/a", "x", -1),
        delete("/no", -1),
        create("/c"),
        check("/no", 1),
    ]);
    let record = world.prepare(&request);
    let Txn::Multi(entries) = &record.txn else { panic!("{record:?}") };
    assert_eq!(entries.iter().map(|(op, _)| op.code()).collect::<Vec<_>>(), [1, 5, -1, -1, -1]);
    assert_eq!(entries[2].1, Txn::Error(-101));
    assert_eq!(entries[4].1, Txn::Error(-2));
    assert_eq!(record.header.kind, 14);
    assert_eq!(record.digest.map(|digest| digest.tree as u64), Some(before));
    // What comes behind it is judged as if it had never been.
    assert_eq!(world.prep.outstanding(), 0);
    assert_eq!(world.prepare(&delete("/b", -1)).txn, Txn::Error(-101));
    let set = world.prepare(&set_data("/a", "y", 0));
    assert!(matches!(set.txn, Txn::SetData(SetDataTxn { version: 1, .. })));
    let codes = [0, 0, -101, -2, -2].map(MultiResult::Error);
    assert_eq!(world.apply(&record), Ok(Response::Multi(codes.to_vec())));
    assert!(!world.exists("/b"));
}

#[test]
fn a_multi_that_is_none_is_refused_whole() {
    let mut world = World::default();
    for odd in [
        vec![create("/a"), create_flags("/b", 9)],
        vec![delete("/no", -1), create_flags("/b", 5)],
        vec![create("/a"), get_data("/", false)],
        vec![create("/a"), Request::Multi(vec![])],
        vec![create("/a"), Request::DeleteContainer("/a".into())],
        vec![create("/a"), set_acl("/a", Acl::open(), -1)],
    ] {
        assert_eq!(world.write(Request::Multi(odd)), Err(ErrorCode::MarshallingError));
    }
    assert!(!world.exists("/a"));
}

/// Seen on 3.9.5: the flag makes a container inside a multi, whichever create carries it; alone it does not.
#[test]
fn the_container_flag_counts_inside_a_multi() {
    let mut world = World::default();
    let record = world.prepare(&Request::Multi(vec![create_flags("/box", 4)]));
    let Txn::Multi(entries) = &record.txn else { panic!("{record:?}") };
    assert_eq!(entries[0].0, OpCode::CreateContainer);
    let Ok(Response::Multi(results)) = world.apply(&record) else { panic!("refused") };
    assert!(matches!(&results[0], MultiResult::Create2(path, _) if path == "/box"));
    assert!(matches!(world.prepare(&create_flags("/alone", 4)).txn, Txn::Create(_)));
}

#[test]
fn a_moved_session_is_told_nothing() {
    let mut world = World { session_check: Err(ErrorCode::SessionMoved), ..World::default() };
    assert_eq!(world.write(Request::Multi(vec![create("/a")])), Err(ErrorCode::SessionMoved));
    assert_eq!(world.write(create("/a")), Err(ErrorCode::SessionMoved));
}

#[test]
fn sessions_come_and_take_their_ephemerals_along() {
    let mut world = World::default();
    world.ok(Request::CreateSession(30_000));
    assert_eq!(world.store.sessions().collect::<Vec<_>>(), [(ME, 30_000)]);
    world.ok(create("/p"));
    for path in ["/p/b", "/p/a", "/p/gone"] {
        world.ok(ephemeral(path));
    }
    world.session = OTHER;
    world.ok(ephemeral("/p/other"));
    // Outstanding when the session closes: one more, one less.
    world.session = ME;
    let outstanding = [ephemeral("/p/late"), delete("/p/gone", -1)].map(|request| world.prepare(&request));
    let close = world.prepare(&Request::CloseSession);
    assert_eq!(close.txn, Txn::CloseSession(Some(vec!["/p/a".into(), "/p/b".into(), "/p/late".into()])));
    // Behind it the parent has one child left, the other session's.
    world.session = OTHER;
    let last = [delete("/p/other", -1), delete("/p", -1)].map(|request| world.prepare(&request));
    for record in outstanding.iter().chain([&close]).chain(&last) {
        assert!(world.apply(record).is_ok(), "{record:?}");
    }
    assert_eq!(world.store.sessions().count(), 0);
    assert_eq!(world.store.ephemerals_count(), 0);
    assert!(!world.exists("/p"));
}

#[test]
fn an_old_close_without_a_list_takes_what_is_there() {
    let mut world = World::default();
    world.ok(ephemeral("/b"));
    world.ok(ephemeral("/a"));
    world
        .store
        .apply(&raw(world.zxid.0 + 1, OpCode::CloseSession, Txn::CloseSession(None)), &mut ())
        .unwrap();
    assert!(!world.exists("/a") && !world.exists("/b"));
}

#[test]
fn dead_ephemerals_go_at_the_start() {
    let mut world = World::default();
    world.ok(Request::CreateSession(1000));
    world.ok(ephemeral("/mine"));
    world.session = OTHER;
    world.ok(ephemeral("/theirs"));
    assert_eq!(world.store.drop_dead_ephemerals(), 1);
    assert!(world.exists("/mine") && !world.exists("/theirs"));
    assert_eq!(world.stat("/").pzxid, world.zxid);
}

#[test]
fn containers_and_ttls_come_due() {
    let mut world = World::default();
    let t0 = world.time_ms;
    for request in [
        container("/used"),
        create("/used/a"),
        container("/unused"),
        ttl("/t", 5, 1000),
        ttl("/full", 5, 1000),
        create("/full/a"),
    ] {
        world.ok(request);
    }
    let due = |world: &World, after_ms, never_used| world.store.expired_nodes(t0 + after_ms, never_used, 10);
    assert_eq!(due(&world, 1000, 0), Vec::<String>::new());
    assert_eq!(due(&world, 1001, 0), ["/t"]);
    world.ok(delete("/used/a", -1));
    world.time_ms += 500;
    world.ok(set_data("/t", "renewed", -1));
    assert_eq!(due(&world, 1001, 0), ["/used"]);
    assert_eq!(due(&world, 1501, 1500), ["/used", "/unused", "/t"]);
    assert_eq!(world.store.expired_nodes(t0 + 1501, 1500, 2).len(), 2);
    // A counter that has wrapped has counted children as well.
    let used = world.store.tree.find("/used").unwrap();
    world.store.tree.change_stat(used, |stat| stat.cversion = i32::MIN);
    assert!(due(&world, 0, 0).contains(&"/used".to_string()));
    world.time_ms = t0 + 1501;
    world.session = SessionId(0);
    for path in due(&world, 1501, 0) {
        assert_eq!(world.ok(Request::DeleteContainer(path)), Response::Empty);
    }
    assert_eq!(due(&world, 1501, 0), Vec::<String>::new());
    assert!(!world.exists("/t") && !world.exists("/used") && world.exists("/unused"));
}

#[test]
fn the_next_request_is_judged_by_the_new_acl() {
    let mut world = World::default();
    world.ok(create("/a"));
    let set = world.prepare(&set_acl("/a", world_read_write(), 0));
    assert_eq!(world.prepare(&create("/a/b")).txn, Txn::Error(-102));
    world.apply(&set).unwrap();
    assert_eq!(world.write(create("/a/b")), Err(ErrorCode::NoAuth));
}

#[test]
fn quotas_count_and_refuse() {
    let mut world = World::default();
    let quota = |name: &str| format!("/zookeeper/quota/q/{name}");
    world.ok(create("/q"));
    world.ok(create("/q/a"));
    world.ok(create("/zookeeper/quota/q"));
    let limits = "count=1,bytes=1=;byteHardLimit=12;countHardLimit=4";
    world.ok(create_data(&quota("zookeeper_limits"), bytes(limits)));
    world.ok(create_data(&quota("zookeeper_stats"), bytes("count=0,bytes=0")));
    let usage =
        |world: &World| String::from_utf8(world.data(&quota("zookeeper_stats")).unwrap().to_vec()).unwrap();
    assert_eq!(usage(&world), "count=2,bytes=4", "counted when the usage znode comes");
    let unchanged = world.stat(&quota("zookeeper_stats"));
    world.ok(create("/q/a/b"));
    world.ok(create_data("/q/c", None));
    assert_eq!(usage(&world), "count=4,bytes=6");
    assert_eq!(world.write(create("/q/d")), Err(ErrorCode::QuotaExceeded));
    assert_eq!(
        world.write(set_data("/q", "123456789", 9)),
        Err(ErrorCode::QuotaExceeded),
        "before the version"
    );
    world.ok(set_data("/q", "12345678", -1));
    assert_eq!(usage(&world), "count=4,bytes=12");
    world.ok(delete("/q/a/b", -1));
    assert_eq!(usage(&world), "count=3,bytes=10");
    let now = world.stat(&quota("zookeeper_stats"));
    assert_eq!(
        Stat { data_length: 0, ..now },
        Stat { data_length: 0, ..unchanged },
        "no change that is seen"
    );
    world.ok(delete(&quota("zookeeper_limits"), -1));
    world.ok(create_data("/q/d", bytes("0123456789")));
    assert_eq!(usage(&world), "count=3,bytes=10");
}

#[test]
fn soft_quotas_never_refuse() {
    let mut world = World::new(StoreConfig { enforce_quota: true, ..StoreConfig::default() });
    world.ok(create("/q"));
    world.ok(create("/zookeeper/quota/q"));
    world.ok(create_data("/zookeeper/quota/q/zookeeper_limits", bytes("count=1,bytes=1")));
    world.ok(create_data("/zookeeper/quota/q/zookeeper_stats", bytes("count=0,bytes=0")));
    world.ok(create("/q/a"));
}

#[test]
fn replay_guards() {
    let mut store = Store::new(StoreConfig::default());
    let apply = |store: &mut Store, record: &TxnRecord| store.apply(record, &mut ());
    apply(&mut store, &raw_create(10, "/p", 1)).unwrap();
    apply(&mut store, &raw_create(11, "/p/a", 1)).unwrap();
    let stat = |store: &Store, path: &str| store.tree.node(store.tree.find(path).unwrap()).stat;
    // A create of what is there lifts the parent and brings its ACL.
    let mut again = raw_create(15, "/p/a", 5);
    if let Txn::Create(txn) = &mut again.txn {
        txn.acl = world(perms::READ);
    }
    assert_eq!(apply(&mut store, &again), Err(ErrorCode::NodeExists));
    assert_eq!((stat(&store, "/p").cversion, stat(&store, "/p").pzxid), (5, Zxid(15)));
    assert_eq!(stat(&store, "/p/a").czxid, Zxid(11));
    assert_eq!(**store.tree.acl(store.tree.find("/p/a").unwrap()), *world(perms::READ));
    // An older one moves nothing back.
    assert_eq!(apply(&mut store, &raw_create(12, "/p/b", 2)), Ok(Response::Path("/p/b".into())));
    assert_eq!((stat(&store, "/p").cversion, stat(&store, "/p").pzxid), (5, Zxid(15)));
    // A delete of what is gone moves the parent forward only.
    let delete = |zxid| raw(zxid, OpCode::Delete, Txn::Delete("/p/none".into()));
    assert_eq!(apply(&mut store, &delete(14)), Err(ErrorCode::NoNode));
    assert_eq!(stat(&store, "/p").pzxid, Zxid(15));
    assert_eq!(apply(&mut store, &delete(20)), Err(ErrorCode::NoNode));
    assert_eq!(stat(&store, "/p").pzxid, Zxid(20));
    // A delete takes along what a fuzzy snapshot has below.
    apply(&mut store, &raw(21, OpCode::Delete, Txn::Delete("/p".into()))).unwrap();
    assert!(store.tree.find("/p/a").is_none() && store.tree.find("/p/b").is_none());
    store.tree.assert_sound();
}

#[test]
fn transactions_that_nobody_should_write() {
    let mut store = Store::new(StoreConfig { extended_types: true, ..StoreConfig::default() });
    let before = store.digest();
    for (txn, expected) in [
        (Txn::Delete("/".into()), ErrorCode::BadArguments),
        (Txn::Delete("/zookeeper".into()), ErrorCode::BadArguments),
        (Txn::Delete("x".into()), ErrorCode::BadArguments),
        (Txn::Delete(String::new()), ErrorCode::BadArguments),
        (Txn::CreateTtl(Default::default()), ErrorCode::BadArguments),
        (Txn::Create(Default::default()), ErrorCode::BadArguments),
        (Txn::SetData(SetDataTxn { path: "/no".into(), ..Default::default() }), ErrorCode::NoNode),
        (Txn::Multi(vec![]), ErrorCode::MarshallingError),
        (Txn::Error(12345), ErrorCode::SystemError),
    ] {
        let text = format!("{txn:?}");
        let record = match txn {
            Txn::Multi(_) => raw(5, OpCode::Multi, Txn::Multi(vec![(OpCode::Multi, txn)])),
            _ => raw(5, OpCode::Create, txn),
        };
        match store.apply(&record, &mut ()) {
            Ok(Response::Multi(results)) => assert_eq!(results, [MultiResult::Error(expected.code())]),
            other => assert_eq!(other, Err(expected), "{text}"),
        }
        store.tree.assert_sound();
    }
    assert_eq!(store.digest(), before);
}

#[test]
fn an_old_create_counts_for_itself() {
    let mut store = Store::new(StoreConfig::default());
    store.apply(&raw_create(10, "/a", -1), &mut ()).unwrap();
    store.apply(&raw_create(11, "/b", -1), &mut ()).unwrap();
    let root = store.tree.node(super::super::tree::ROOT).stat;
    assert_eq!((root.cversion, root.pzxid), (2, Zxid(11)));
}

#[test]
fn a_wrong_digest_is_counted() {
    let mut world = World::default();
    let mut record = world.prepare(&create("/a"));
    record.digest = record.digest.map(|digest| zoometry_wire::txn::TxnDigest { tree: 1, ..digest });
    world.store.apply(&record, &mut ()).unwrap();
    assert_eq!(world.store.digest_mismatches(), 1);
}

#[test]
fn without_digests_there_are_none() {
    let mut world = World::new(StoreConfig { digest: false, ..StoreConfig::default() });
    let record = world.prepare(&create("/a"));
    assert_eq!(record.digest, None);
    world.apply(&record).unwrap();
    assert_eq!(world.store.digest(), 0);
}
