//! What must hold for any run of writes.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// A write of one of three sessions (0 is the server's own).
pub(super) type Write = (u8, Request);

fn path() -> impl Strategy<Value = String> + Clone {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    vec(name, 1..4).prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    prop_oneof![
        7 => Just(Acl::open()),
        1 => Just(digest_acl("u1:x")),
        1 => Just(vec![Acl { perms: perms::ALL, id: id("auth", "") }]),
        1 => Just(world(perms::READ | perms::CREATE)),
    ]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![Just(None), "[a-z]{0,8}".prop_map(|text| Some(Bytes::from(text)))]
}

fn version() -> impl Strategy<Value = i32> + Clone {
    prop_oneof![4 => Just(-1), 1 => 0..3]
}

fn create_any() -> impl Strategy<Value = Request> {
    (path(), data(), acl(), 0..5i32, 0..5).prop_map(|(path, data, acl, flags, kind)| {
        let plain = CreateRequest { path, data, acl, flags };
        match kind {
            0 | 1 => Request::Create(plain),
            2 => Request::Create2(plain),
            3 => Request::CreateContainer(CreateRequest { flags: 4, ..plain }),
            _ => {
                let CreateRequest { path, data, acl, flags } = plain;
                Request::CreateTtl(CreateTtlRequest { path, data, acl, flags: 5 + flags % 2, ttl_ms: 30 })
            }
        }
    })
}

fn entry() -> impl Strategy<Value = Request> {
    let path_version = (path(), version()).prop_map(|(path, version)| PathVersion { path, version });
    prop_oneof![
        4 => create_any(),
        2 => path_version.clone().prop_map(Request::Delete),
        1 => path_version.prop_map(Request::Check),
        2 => (path(), data(), version())
            .prop_map(|(path, data, version)| Request::SetData(SetDataRequest { path, data, version })),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let request = prop_oneof![
        8 => entry(),
        1 => (path(), acl(), version())
            .prop_map(|(path, acl, version)| Request::SetAcl(SetAclRequest { path, acl, version })),
        2 => vec(entry(), 0..5).prop_map(Request::Multi),
        1 => Just(Request::CloseSession),
        1 => Just(Request::CreateSession(1000)),
    ];
    prop_oneof![
        12 => (1..4u8, request),
        1 => path().prop_map(|path| (0, Request::DeleteContainer(path))),
    ]
}

/// A run of writes.
pub(super) fn writes(most: usize) -> impl Strategy<Value = Vec<Write>> {
    vec(write(), 1..most)
}

/// A member on its own with the write's session in the chair.
pub(super) fn seat(world: &mut World, session: u8) {
    world.session = SessionId(i64::from(session));
    world.ids = vec![id("ip", "::1"), id("digest", &format!("u{session}:x"))];
    world.time_ms += 10;
}

/// Prepares and applies one by one; the transactions.
fn run_one_by_one(world: &mut World, writes: &[Write]) -> Vec<TxnRecord> {
    let one = |(session, request): &Write| {
        seat(world, *session);
        let record = world.prepare(request);
        let _ = world.apply(&record);
        record
    };
    writes.iter().map(one).collect()
}

fn no_quotas() -> World {
    World::new(StoreConfig { extended_types: true, ..StoreConfig::default() })
}

proptest! {
    /// [`World::apply`] compares the digest kept with one computed from scratch, and with the one that
    /// came with the transaction, and looks at every invariant of the tree.
    #[test]
    fn digest_and_tree_stay_sound(writes in writes(60)) {
        run_one_by_one(&mut no_quotas(), &writes);
    }

    #[test]
    fn preparing_ahead_makes_the_same_transactions(
        writes in writes(60),
        windows in vec(0..12usize, 1..20),
    ) {
        let mut ahead = no_quotas();
        let mut outstanding = std::collections::VecDeque::new();
        let mut records = Vec::new();
        for (at, (session, request)) in writes.iter().enumerate() {
            seat(&mut ahead, *session);
            let record = ahead.prepare(request);
            outstanding.push_back(record.clone());
            records.push(record);
            while outstanding.len() > windows[at % windows.len()] {
                let record = outstanding.pop_front().unwrap();
                let _ = ahead.apply(&record);
            }
        }
        for record in outstanding {
            let _ = ahead.apply(&record);
        }
        prop_assert_eq!(ahead.prep.outstanding(), 0);
        let mut alone = no_quotas();
        prop_assert_eq!(records, run_one_by_one(&mut alone, &writes));
        prop_assert_eq!(contents(&ahead.store), contents(&alone.store));
    }

    /// The fuzziest of snapshots: it is named by its first transaction and holds them all already.
    #[test]
    fn replaying_what_the_tree_holds_changes_nothing(writes in writes(60), from in 0..60usize) {
        let mut world = no_quotas();
        let records = run_one_by_one(&mut world, &writes);
        let before = contents(&world.store);
        for record in &records[from.min(records.len())..] {
            let _ = world.store.apply(record, &mut ());
            world.store.tree.assert_sound();
        }
        prop_assert_eq!(contents(&world.store), before);
    }

    /// A member that hashes otherwise is in the same state and answers in the same order.
    #[test]
    fn nothing_depends_on_the_hash(writes in writes(40), seed in any::<u64>()) {
        let mut other = World::new(StoreConfig { hash_seed: seed, ..no_quotas().store.config().clone() });
        let mut world = no_quotas();
        prop_assert_eq!(run_one_by_one(&mut world, &writes), run_one_by_one(&mut other, &writes));
        prop_assert_eq!(world.read(&get_children("/", false)), other.read(&get_children("/", false)));
    }
}
