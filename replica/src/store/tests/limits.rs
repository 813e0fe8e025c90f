//! No transaction is longer than every peer receives and every restart reads, whatever is asked for.

use zoometry_wire::{OpCode, Record, Txn};

use super::*;

const MOST: usize = 600;

fn small() -> StoreConfig {
    StoreConfig { extended_types: true, txn_bytes_max: MOST, ..StoreConfig::default() }
}

/// A tree of which the requests below can change something, however long they are.
fn world_of_small_txns() -> World {
    let mut world = World::new(small());
    for request in [create("/a"), create("/b"), container("/c"), create("/c/d")] {
        world.ok(request);
    }
    world.ok(delete("/c/d", -1));
    world
}

/// The transaction, applied; refused or not, it has to be short.
fn made(world: &mut World, request: &Request) -> Txn {
    let record = world.prepare(request);
    assert!(record.to_bytes().len() <= MOST, "{} bytes of {request:?}", record.to_bytes().len());
    let _ = world.apply(&record);
    record.txn
}

/// A request that grows with a number.
type OfLength = Box<dyn Fn(usize) -> Request>;

#[test]
fn every_kind_of_request_is_taken_up_to_the_limit_and_refused_beyond_it() {
    let long = |length: usize| "x".repeat(length);
    let kinds: Vec<(&str, OfLength)> = vec![
        ("create's path", Box::new(move |n| create(&format!("/{}", long(n))))),
        ("create2's data", Box::new(move |n| create_data("/n", bytes(&long(n))))),
        ("create's ACL", Box::new(move |n| create_acl("/n", digest_acl(&format!("{}:x", long(n)))))),
        ("an ephemeral's path", Box::new(move |n| ephemeral(&format!("/{}", long(n))))),
        ("a sequential path", Box::new(move |n| create_flags(&format!("/{}", long(n)), 2))),
        ("a container's path", Box::new(move |n| container(&format!("/{}", long(n))))),
        ("a TTL znode's path", Box::new(move |n| ttl(&format!("/{}", long(n)), 5, 1000))),
        ("setData", Box::new(move |n| set_data("/a", &long(n), -1))),
        ("setACL", Box::new(move |n| set_acl("/a", digest_acl(&format!("{}:x", long(n))), -1))),
        (
            "multi",
            Box::new(move |n| {
                let one = |path: &str| create(&format!("/{path}{}", long(n / 2)));
                Request::Multi(vec![one("m"), check("/a", -1), one("n")])
            }),
        ),
        ("a multi of many", Box::new(|n| Request::Multi(vec![check("/a", -1); n / 16]))),
        // Refused entries are short, and so were their requests.
        (
            "a multi that fails",
            Box::new(|n| {
                let check = Request::Check(PathVersion { path: "/a".into(), version: 99 });
                Request::Multi(std::iter::once(check).chain(vec![delete("/b", 9); n / 12]).collect())
            }),
        ),
    ];
    for (what, request) in kinds {
        let (mut taken, mut refused) = (0, 0);
        for length in (1..MOST + 100).step_by(5) {
            let mut world = world_of_small_txns();
            let before = (world.store.digest(), world.prep.oversized());
            match made(&mut world, &request(length)) {
                Txn::Error(code) => {
                    assert_eq!(code, ErrorCode::BadArguments.code(), "{what}, {length}");
                    assert_eq!((world.store.digest(), world.prep.oversized()), (before.0, before.1 + 1));
                    refused += 1;
                }
                _ => {
                    assert_eq!(refused, 0, "{what}: a longer one is taken than one that was refused");
                    taken += 1;
                }
            }
        }
        assert!(taken > 10 && refused > 10, "{what}: {taken} taken, {refused} refused");
    }
}

#[test]
fn the_longest_that_is_taken_has_exactly_the_limits_bytes() {
    let mut world = world_of_small_txns();
    let fixed = world.prepare(&set_data("/a", "", -1)).to_bytes().len();
    let longest = "x".repeat(MOST - fixed);
    let record = world.prepare(&set_data("/a", &longest, -1));
    assert_eq!((record.header.kind, record.to_bytes().len()), (OpCode::SetData.code(), MOST));
    let record = world.prepare(&set_data("/a", &(longest + "x"), -1));
    assert_eq!(record.txn, Txn::Error(ErrorCode::BadArguments.code()));
}

#[test]
fn auth_entries_that_expand_to_too_much_are_refused() {
    let mut world = world_of_small_txns();
    world.ids.extend((0..100).map(|number| id("digest", &format!("user{number}:xxxxxxxxxxxxxxxx"))));
    let auth = vec![Acl { perms: perms::ALL, id: id("auth", "") }];
    let multi = Request::Multi(vec![check("/a", -1), create_acl("/n", auth.clone())]);
    for request in [create_acl("/n", auth.clone()), set_acl("/a", auth, -1), multi] {
        let digest = world.store.digest();
        made(&mut world, &request);
        assert_eq!(world.store.digest(), digest, "{request:?}");
    }
}

/// Whoever is refused here could not be closed there.
#[test]
fn a_session_owns_as_much_as_its_end_can_list() {
    let mut world = world_of_small_txns();
    let mut owned = 0;
    let nth = |number: usize| format!("/e{number:03}");
    while world.write(ephemeral(&nth(owned))) == Ok(Response::Path(nth(owned))) {
        owned += 1;
    }
    assert!(owned > 40, "{owned}");
    assert_eq!(world.write(ephemeral("/f")), Err(ErrorCode::BadArguments));
    assert_eq!(
        world.write(ephemeral(&nth(0))),
        Err(ErrorCode::NodeExists),
        "what is wrong anyway is told first"
    );
    // Its own data, other znodes and other sessions are not concerned.
    world.ok(set_data(&nth(0), "news", -1));
    world.ok(create("/g"));
    world.session = OTHER;
    world.ok(ephemeral("/other"));
    world.session = ME;
    world.ok(delete(&nth(0), -1));
    world.ok(ephemeral(&nth(0)));
    let record = world.prepare(&Request::CloseSession);
    let bytes = record.to_bytes().len();
    assert!((MOST - 9..=MOST).contains(&bytes), "{bytes}");
    assert_eq!(world.apply(&record), Ok(Response::Empty));
    assert_eq!(world.store.ephemerals_count(), 1, "the other's");
}

/// What is proposed counts at once, and what is taken back does not.
#[test]
fn what_is_outstanding_counts_towards_a_sessions_ephemerals() {
    let mut world = world_of_small_txns();
    let most = MOST - TxnRecord::REST_BYTES - 4;
    let half = format!("/{}", "h".repeat(most / 2 - 10));
    let other_half = format!("/{}", "o".repeat(most / 2 - 10));
    let third = format!("/{}", "t".repeat(most / 2 - 10));
    let is_refused = |record: &TxnRecord| record.header.kind == OpCode::Error.code();
    let mut proposed = vec![world.prepare(&ephemeral(&half))];
    let void = Request::Multi(vec![ephemeral(&other_half), check("/a", 99)]);
    proposed.push(world.prepare(&void));
    proposed.push(world.prepare(&ephemeral(&other_half)));
    proposed.push(world.prepare(&set_data(&half, "again", -1)));
    assert!(proposed.iter().all(|record| !is_refused(record)));
    proposed.push(world.prepare(&ephemeral(&third)));
    assert!(is_refused(&proposed[4]));
    proposed.push(world.prepare(&delete(&half, -1)));
    proposed.push(world.prepare(&ephemeral(&third)));
    assert!(!is_refused(&proposed[6]), "one has made room");
    for record in proposed {
        let _ = world.apply(&record);
        let outstanding = world.prep.outstanding();
        let refused = is_refused(&world.prepare(&ephemeral(&half)));
        assert!(refused, "with {outstanding} outstanding");
    }
    let record = world.prepare(&Request::CloseSession);
    assert!(record.to_bytes().len() <= MOST);
    world.apply(&record).expect("an end");
    assert_eq!(world.store.ephemerals_count(), 0);
}

/// With other limits, or with an Apache leader, a session may come to own more than its end can list.
#[test]
fn what_is_too_much_for_a_sessions_end_goes_before_it() {
    let mut world = World::new(StoreConfig { extended_types: true, ..StoreConfig::default() });
    for number in 0..300 {
        world.ok(ephemeral(&format!("/e{number:04}")));
    }
    let mut world = World { prep: Prep::new(small()), store: with_config(&world.store, small()), ..world };
    world.session = OTHER;
    world.ok(ephemeral("/other"));
    world.session = ME;
    let lists = world.prep.ahead_of_close(&world.store, ME);
    assert!(lists.len() > 5, "{}", lists.len());
    let mut records = Vec::new();
    for paths in lists {
        world.zxid = world.zxid.next();
        records.push(world.prep.delete_all(&world.store, paths, world.zxid, world.time_ms));
    }
    records.push(world.prepare(&Request::CloseSession));
    assert_eq!(world.prep.ahead_of_close(&world.store, ME), Vec::<Vec<String>>::new());
    for record in &records {
        assert!(record.to_bytes().len() <= MOST, "{}", record.to_bytes().len());
        world.apply(record).expect("applied");
    }
    let owners: Vec<SessionId> = world.store.owning_sessions().collect();
    assert_eq!(owners, [OTHER]);
}

/// The same state under another configuration, by way of a snapshot.
fn with_config(store: &Store, config: StoreConfig) -> Store {
    let mut items = store.snapshot_head();
    let mut walk = store.start_walk();
    while store
        .walk(&mut walk, 100, &mut |node| items.push(crate::storage::snapshot::SnapshotItem::Node(node)))
    {
    }
    let items = items.into_iter().map(Ok::<_, std::convert::Infallible>);
    Store::load(config, items, store.last_zxid()).expect("a snapshot")
}
