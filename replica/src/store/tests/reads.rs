//! What reads answer, and to whom.

use super::*;
use ErrorCode::*;
use zoometry_wire::MultiResult;
use zoometry_wire::records::ClientInfo;

fn some_tree() -> World {
    let mut world = World::default();
    for request in [
        create("/a"),
        create("/a/x"),
        create("/a/y"),
        create("/a/y/z"),
        create("/ab"),
        ephemeral("/a/e"),
        create_acl("/secret", digest_acl("u:x")),
    ] {
        world.ok(request);
    }
    world
}

#[test]
fn data_children_and_stat() {
    let mut world = some_tree();
    let stat = world.stat("/a");
    assert_eq!(world.read(&get_data("/a", false)), Ok(Response::Data(bytes("hi"), stat)));
    for data in [None, bytes("")] {
        let stat = match world.ok(Request::SetData(SetDataRequest {
            path: "/ab".into(),
            data: data.clone(),
            version: -1,
        })) {
            Response::Stat(stat) => stat,
            other => panic!("{other:?}"),
        };
        assert_eq!(world.read(&get_data("/ab", false)), Ok(Response::Data(data, stat)), "null is not empty");
    }
    let names = ["x", "y", "e"].map(str::to_string).to_vec();
    assert_eq!(world.read(&get_children("/a", false)), Ok(Response::Children(names.clone())));
    let ask = Request::GetChildren2(path_watch("/a", false));
    assert_eq!(world.read(&ask), Ok(Response::Children2(names, stat)));
    assert_eq!(world.read(&get_data("", false)), world.read(&get_data("/", false)), "the root's other name");
    for missing in ["/b", "/a/", "a", "/a/x/z", "\0"] {
        assert_eq!(world.read(&get_data(missing, true)), Err(NoNode), "{missing:?}");
        assert_eq!(world.read(&get_children(missing, true)), Err(NoNode), "{missing:?}");
    }
    assert_eq!(world.read(&exists("/b\0", true)), Err(BadArguments));
    assert_eq!(world.store.watches().counts(), Default::default());
}

#[test]
fn reading_needs_read() {
    let mut world = some_tree();
    for request in [
        get_data("/secret", true),
        exists("/secret", true),
        get_children("/secret", true),
        Request::GetChildren2(path_watch("/secret", true)),
        Request::GetAcl("/secret".into()),
        Request::GetAllChildrenNumber("/secret".into()),
    ] {
        assert_eq!(world.read(&request), Err(NoAuth), "{request:?}");
    }
    assert_eq!(world.store.watches().counts(), Default::default(), "a refused read leaves no watch");
    world.ids.push(id("digest", "u:x"));
    assert!(world.read(&get_data("/secret", false)).is_ok());
}

#[test]
fn hashes_are_shown_to_administrators_only() {
    let mut world = some_tree();
    let mut list = digest_acl("u:hash");
    list.extend(self::world(perms::READ));
    world.ok(create_acl("/a/mixed", list.clone()));
    let ask = Request::GetAcl("/a/mixed".into());
    let mut masked = digest_acl("u:x");
    masked.extend(self::world(perms::READ));
    let stat = world.stat("/a/mixed");
    assert_eq!(world.read(&ask), Ok(Response::Acl(masked, stat)));
    world.ids.push(id("digest", "u:hash"));
    assert_eq!(world.read(&ask), Ok(Response::Acl(list, stat)));
    assert_eq!(world.read(&Request::GetAcl("/".into())), Ok(Response::Acl(Acl::open(), world.stat("/"))));
}

#[test]
fn counting_descendants() {
    let world = some_tree();
    for (path, expected) in
        [("/a", Ok(4)), ("/a/y", Ok(1)), ("/ab", Ok(0)), ("/", Ok(10)), ("", Ok(11)), ("/no", Err(NoNode))]
    {
        let answer = world.read(&Request::GetAllChildrenNumber(path.into()));
        assert_eq!(answer, expected.map(Response::Count), "{path}");
    }
}

#[test]
fn ephemerals_by_prefix() {
    let mut world = some_tree();
    world.ok(ephemeral("/ab/e"));
    let of = |world: &World, prefix: Option<&str>| match world
        .read(&Request::GetEphemerals(prefix.map(Into::into)))
    {
        Ok(Response::Ephemerals(paths)) => paths,
        other => panic!("{other:?}"),
    };
    for all in [None, Some(""), Some("/"), Some(" ")] {
        assert_eq!(of(&world, all), ["/a/e", "/ab/e"], "{all:?}");
    }
    assert_eq!(of(&world, Some("/a")), ["/a/e", "/ab/e"], "a plain prefix");
    assert_eq!(of(&world, Some("/ab")), ["/ab/e"]);
    world.session = OTHER;
    assert_eq!(of(&world, None), Vec::<String>::new());
}

/// Not less than it will be, where there is much; and not many times more.
#[test]
fn how_large_an_answer_will_be_is_known_beforehand() {
    let mut world = some_tree();
    let large = Some(Bytes::from(vec![7; 50_000]));
    world.ok(Request::SetData(SetDataRequest { path: "/ab".into(), data: large, version: -1 }));
    for n in 0..1000 {
        world.ok(create(&format!("/a/member-{n:010}")));
    }
    let both = vec![get_data("/ab", false), get_children("/a", false)];
    let asks = [
        get_data("/ab", false),
        get_children("/a", false),
        Request::GetChildren2(path_watch("/a", false)),
        Request::MultiRead(both),
    ];
    for ask in asks {
        let mut body = BytesMut::new();
        world.read(&ask).expect("an answer").encode(&mut body);
        let about = world.store.about_reply_bytes(&ask, &caller(&world));
        assert!((body.len()..2 * body.len()).contains(&about), "{about} for {} of {ask:?}", body.len());
    }
    assert!(world.store.about_reply_bytes(&get_data("/no", false), &caller(&world)) < 1000);
}

fn caller(world: &World) -> Caller<'_> {
    Caller { session: world.session, watcher: WatcherId(1), ids: &world.ids }
}

/// A prefix that nothing has is looked for among all of them.
#[test]
fn what_a_reply_costs_to_make_counts_though_it_is_short() {
    let mut world = some_tree();
    for n in 0..100 {
        world.ok(ephemeral(&format!("/ab/e{n}")));
    }
    let ask = Request::GetEphemerals(Some("/nothing".into()));
    assert_eq!(world.read(&ask), Ok(Response::Ephemerals(Vec::new())));
    assert!(world.store.about_reply_bytes(&ask, &caller(&world)) > 100 * "/ab/e".len());
    let acl = (0..100).flat_map(|n| digest_acl(&format!("user{n}:xxxxxxxxxxxxxxxxxxxxxxxxxxxx")));
    world.ok(create_acl("/ab/acl", acl.chain(self::world(31)).collect()));
    assert!(world.store.about_reply_bytes(&Request::GetAcl("/ab/acl".into()), &caller(&world)) > 3000);
}

/// A small request for many long lists would be answered with gigabytes.
#[test]
fn a_multi_read_is_answered_as_far_as_a_reply_goes() {
    let mut world =
        World::new(StoreConfig { txn_bytes_max: 2000, reply_bytes_max: 20_000, ..Default::default() });
    for n in 0..200 {
        world.ok(create(&format!("/member-{n:010}")));
    }
    let ask = vec![get_data("/member-0000000000", false), get_children("/", false), get_data("/no", false)];
    let all = Request::MultiRead(ask.into_iter().cycle().take(3000).collect());
    let Ok(Response::Multi(results)) = world.read(&all) else { panic!("no results") };
    assert_eq!(results.len(), 3000);
    let not_tried = MultiResult::Error(RuntimeInconsistency.code());
    let answered = results.iter().position(|result| *result == not_tried).expect("an end");
    assert!(results[answered..].iter().all(|result| *result == not_tried));
    assert!(matches!(&results[..3], [
        MultiResult::GetData(..), MultiResult::GetChildren(names), MultiResult::Error(-101),
    ] if names.len() == 201));
    let mut body = BytesMut::new();
    Response::Multi(results[..answered].to_vec()).encode(&mut body);
    assert!((10_000..=20_000).contains(&body.len()), "{}", body.len());
    assert!(world.store.about_reply_bytes(&all, &caller(&world)) <= 20_100);
}

#[test]
fn a_reply_that_would_be_too_long_is_refused_before_it_is_made() {
    let mut world = World::new(StoreConfig { reply_bytes_max: 500, ..Default::default() });
    let lists = |world: &World| {
        [
            get_children("/a", true),
            Request::GetChildren2(path_watch("/a", true)),
            Request::GetEphemerals(None),
        ]
        .map(|request| world.read(&request).err())
    };
    world.ok(create("/a"));
    assert_eq!(lists(&world), [None, None, None]);
    world.store.watches().remove_watcher(WatcherId(1));
    for n in 0..30 {
        world.ok(ephemeral(&format!("/a/member-{n:010}")));
    }
    assert_eq!(lists(&world), [Some(MarshallingError); 3]);
    assert_eq!(world.store.watches().counts(), Default::default(), "a refused read leaves no watch");
    assert!(world.read(&exists("/a", false)).is_ok() && world.read(&get_data("/a", false)).is_ok());
}

#[test]
fn multi_reads_fail_one_by_one() {
    let world = some_tree();
    let answer = world.read(&Request::MultiRead(vec![
        get_data("/ab", true),
        get_data("/no", true),
        get_children("/a/y", true),
        get_data("/secret", true),
    ]));
    let expected = vec![
        MultiResult::GetData(bytes("hi"), world.stat("/ab")),
        MultiResult::Error(-101),
        MultiResult::GetChildren(vec!["z".into()]),
        MultiResult::Error(-102),
    ];
    assert_eq!(answer, Ok(Response::Multi(expected)));
    assert_eq!(world.store.watches().counts(), Default::default());
}

#[test]
fn who_am_i_and_sync() {
    let mut world = some_tree();
    world.ids.push(id("digest", "u:hash"));
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    let expected = vec![info("ip", "127.0.0.1"), info("digest", "u")];
    assert_eq!(world.read(&Request::WhoAmI), Ok(Response::WhoAmI(expected)));
    assert_eq!(world.read(&Request::Sync("/no".into())), Ok(Response::Path("/no".into())));
    assert_eq!(world.read(&Request::Ping), Err(Unimplemented));
    assert_eq!(world.read(&create("/q")), Err(Unimplemented));
}

#[test]
fn adding_looking_for_and_removing_watches() {
    let world = some_tree();
    assert_eq!(world.read(&Request::AddWatch(mode("/no", 2))), Err(MarshallingError));
    assert_eq!(world.read(&Request::AddWatch(mode("/no", 0))), Ok(Response::Error(0)));
    assert_eq!(world.read(&Request::AddWatch(mode("/no", 1))), Ok(Response::Error(0)));
    for (kind, expected) in [
        (0, Err(MarshallingError)),
        (1, Err(NoWatcher)),
        (4, Ok(Response::Empty)),
        (6, Err(MarshallingError)),
    ] {
        assert_eq!(world.read(&Request::CheckWatches(mode("/no", kind))), expected, "{kind}");
        assert_eq!(world.read(&Request::RemoveWatches(mode("/no", kind))), expected, "{kind}");
    }
    assert_eq!(world.read(&Request::RemoveWatches(mode("/no", 4))), Err(NoWatcher));
    assert_eq!(world.read(&Request::RemoveWatches(mode("/no", 3))), Ok(Response::Empty));
    assert_eq!(world.store.watches().counts(), Default::default());
}
