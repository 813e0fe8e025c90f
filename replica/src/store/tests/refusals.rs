//! Which error wins when several rules are broken: reference §3.4, one row after the other.

use super::*;
use ErrorCode::*;
use zoometry_wire::request::ReconfigRequest;

/// A tree in which every rule can be broken: /open (with a child), /closed (nobody but u:x may do anything, with
/// a child), /ephemeral, /leaf.
fn world_with_everything() -> World {
    let mut world = World::default();
    for request in [
        create("/open"),
        create("/open/child"),
        create("/leaf"),
        create_acl("/closed", digest_acl("u:x")),
        ephemeral("/ephemeral"),
    ] {
        world.ok(request);
    }
    world.ids.push(id("digest", "u:x"));
    world.ok(create_acl("/closed/child", digest_acl("u:x")));
    world.ids.pop();
    world
}

fn refusals(cases: Vec<(&str, Request, ErrorCode)>) {
    for (what, request, expected) in cases {
        let mut world = world_with_everything();
        let digest = world.store.digest();
        let record = world.prepare(&request);
        assert_eq!(record.txn, zoometry_wire::Txn::Error(expected.code()), "{what}");
        assert_eq!((record.header.kind, record.digest), (-1, None), "{what}");
        assert_eq!(world.apply(&record), Err(expected), "{what}");
        assert_eq!(world.store.digest(), digest, "{what}");
        assert_eq!(world.prep.outstanding(), 0, "{what}");
    }
}

/// The same with the session gone.
fn refusals_of_a_dead_session(cases: Vec<(&str, Request, ErrorCode)>) {
    for (what, request, expected) in cases {
        let mut world = world_with_everything();
        world.session_check = Err(SessionExpired);
        assert_eq!(world.write(request), Err(expected), "{what}");
    }
}

/// What the member that receives a write may refuse by itself; everything else is for the leader.
#[test]
fn eager_acl_checks() {
    let world = world_with_everything();
    let nobody = [id("ip", "127.0.0.1")];
    let somebody = [id("digest", "u:x")];
    for refused in [
        create("/closed/new"),
        ttl("/closed/new", 5, 1000),
        container("/closed/new"),
        delete("/closed/child", -1),
        set_data("/closed", "", -1),
        set_acl("/closed", Acl::open(), -1),
    ] {
        assert_eq!(world.store.eager_acl_check(&refused, &nobody), Err(NoAuth), "{refused:?}");
        assert_eq!(world.store.eager_acl_check(&refused, &somebody), Ok(()), "{refused:?}");
    }
    let multi = Request::Multi(vec![set_data("/closed", "", -1)]);
    for left in [create("/open/new"), set_data("/none", "", -1), create("x"), multi, Request::CloseSession] {
        assert_eq!(world.store.eager_acl_check(&left, &nobody), Ok(()), "{left:?}");
    }
}

fn create_with(path: &str, acl: Vec<Acl>, flags: i32) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: None, acl, flags })
}

#[test]
fn create_refusals_in_their_order() {
    refusals(vec![
        ("bad flags before everything", create_with("x", vec![], 7), BadArguments),
        ("negative flags", create_with("/a", Acl::open(), -1), BadArguments),
        ("TTL mode without a ttl", create_with("x", vec![], 5), BadArguments),
        ("createTTL with plain flags", ttl("/a", 0, 1000), BadArguments),
        ("createTTL with plain flags and no ttl", ttl("/a", 0, -1), BadArguments),
        ("ttl 0", ttl("/a", 5, 0), BadArguments),
        ("ttl too long", ttl("/a", 6, 1 << 40), BadArguments),
        ("no slash, before the ACL", create_with("x", vec![], 0), BadArguments),
        ("empty path", create_with("", vec![], 0), BadArguments),
        ("NUL, before the ACL", create_with("/a\0", vec![], 0), BadArguments),
        ("empty ACL, before the parent", create_with("/no/a", vec![], 0), InvalidAcl),
        (
            "ACL of an unknown scheme",
            create_acl("/no/a", vec![Acl { perms: 31, id: id("x", "y") }]),
            InvalidAcl,
        ),
        ("no parent, before the path", create("/no/\u{1}"), NoNode),
        ("no CREATE on the parent, before the path", create("/closed/\u{1}"), NoAuth),
        ("no CREATE, before exists", create("/closed/child"), NoAuth),
        ("bad character", create("/open/\u{1}"), BadArguments),
        ("dots", create("/open/.."), BadArguments),
        ("trailing slash", create("/open/"), BadArguments),
        ("exists", create("/open"), NodeExists),
        ("the root", create("/"), NodeExists),
        ("parent is ephemeral", create("/ephemeral/a"), NoChildrenForEphemerals),
    ]);
    refusals_of_a_dead_session(vec![
        ("flags before the session", create_with("/a", vec![], 9), BadArguments),
        ("ttl before the session", ttl("/a", 5, 0), BadArguments),
        ("session before the path", create_with("x", vec![], 0), SessionExpired),
        ("session before the ACL", create_with("/a", vec![], 0), SessionExpired),
    ]);
}

#[test]
fn ttl_znodes_need_extended_types() {
    let mut world = World::new(StoreConfig::default());
    assert_eq!(world.write(ttl("/a", 5, 1000)), Err(Unimplemented));
    assert_eq!(world.write(create_flags("/a", 5)), Err(Unimplemented));
    assert_eq!(world.write(ttl("/a", 0, 1000)), Err(BadArguments), "never a transaction with a bad ttl");
    assert_eq!(world.write(ttl("/a", 5, 0)), Err(BadArguments));
    assert_eq!(world.write(ttl("/a", 9, 1000)), Err(BadArguments));
}

#[test]
fn delete_refusals_in_their_order() {
    refusals(vec![
        ("no slash", delete("x", 0), BadArguments),
        ("NUL", delete("/no/a\0", 0), BadArguments),
        ("the root", delete("/", 9), BadArguments),
        ("/zookeeper", delete("/zookeeper", 9), BadArguments),
        ("quota", delete("/zookeeper/quota", 9), BadArguments),
        ("config", delete("/zookeeper/config", 9), BadArguments),
        ("no parent", delete("/no/a", 0), NoNode),
        ("no DELETE on the parent, before missing", delete("/closed/no", 0), NoAuth),
        ("missing", delete("/open/no", 0), NoNode),
        ("version, before children", delete("/open", 9), BadVersion),
        ("children", delete("/open", 0), NotEmpty),
        ("children, any version", delete("/open", -1), NotEmpty),
        ("a path that is none is just missing", delete("/open/", 0), NoNode),
    ]);
    refusals_of_a_dead_session(vec![("session before the path", delete("x", 0), SessionExpired)]);
}

#[test]
fn set_data_refusals_in_their_order() {
    refusals(vec![
        ("path", set_data("/no/", "", 0), BadArguments),
        ("missing", set_data("/no", "", 9), NoNode),
        ("no WRITE, before the version", set_data("/closed", "", 9), NoAuth),
        ("version", set_data("/open", "", 9), BadVersion),
    ]);
    refusals_of_a_dead_session(vec![("session before the path", set_data("x", "", 0), SessionExpired)]);
}

#[test]
fn set_acl_refusals_in_their_order() {
    refusals(vec![
        ("path, before the ACL", set_acl("/no/", vec![], 0), BadArguments),
        ("ACL, before missing", set_acl("/no", vec![], 0), InvalidAcl),
        (
            "auth without an identity",
            set_acl("/no", vec![Acl { perms: 31, id: id("auth", "") }], 0),
            InvalidAcl,
        ),
        ("missing", set_acl("/no", Acl::open(), 9), NoNode),
        ("no ADMIN, before the version", set_acl("/closed", Acl::open(), 9), NoAuth),
        ("version", set_acl("/open", Acl::open(), 9), BadVersion),
    ]);
}

#[test]
fn check_refusals_in_their_order() {
    for (what, request, expected) in [
        ("path", check("/no/", 0), BadArguments),
        ("missing", check("/no", 9), NoNode),
        ("no READ, before the version", check("/closed", 9), NoAuth),
        ("version", check("/open", 9), BadVersion),
    ] {
        let answer = world_with_everything().write(Request::Multi(vec![request]));
        let expected = vec![zoometry_wire::MultiResult::Error(expected.code())];
        assert_eq!(answer, Ok(Response::Multi(expected)), "{what}");
    }
    refusals(vec![("check alone", check("/open", 0), Unimplemented)]);
}

#[test]
fn what_the_server_alone_may_ask() {
    refusals(vec![
        ("deleteContainer from a client", Request::DeleteContainer("/leaf".into()), Unimplemented),
        ("reconfig when it is off", Request::Reconfig(ReconfigRequest::default()), ReconfigDisabled),
        ("a read", get_data("/leaf", false), Unimplemented),
    ]);
    let mut world = World::new(StoreConfig { reconfig: true, ..StoreConfig::default() });
    assert_eq!(world.write(Request::Reconfig(ReconfigRequest::default())), Err(Unimplemented));
    world.session_check = Err(SessionExpired);
    assert_eq!(world.write(Request::Reconfig(ReconfigRequest::default())), Err(SessionExpired));
}

#[test]
fn delete_container_refusals() {
    let refused = |path: &str, expected| {
        let mut world = world_with_everything();
        world.ok(container("/full"));
        world.ok(create("/full/a"));
        world.ok(ttl("/young", 5, 1000));
        world.time_ms += 1000;
        world.session = SessionId(0);
        world.session_check = Err(SessionExpired);
        assert_eq!(world.write(Request::DeleteContainer(path.into())), Err(expected), "{path}");
    };
    refused("/zookeeper", BadArguments);
    refused("/no", NoNode);
    refused("/full", NotEmpty);
    refused("/ephemeral", BadVersion);
    refused("/leaf", BadVersion);
    refused("/young", BadVersion);
}

#[test]
fn local_sessions_have_no_ephemerals() {
    let mut world = World { session_check: Err(EphemeralOnLocalSession), ..World::default() };
    assert_eq!(world.write(ephemeral("/a")), Err(EphemeralOnLocalSession));
    assert_eq!(world.write(create_flags("/a", 3)), Err(EphemeralOnLocalSession));
    world.ok(create("/a"));
    world.ok(set_data("/a", "", -1));
}

#[test]
fn super_and_skip_acl_pass() {
    let mut world = world_with_everything();
    world.ids.push(id("super", ""));
    world.ok(set_data("/closed", "", -1));
    world.ok(delete("/closed/child", -1));
    world.ok(set_data("/zookeeper/config", "x", -1));
    let mut world = World::new(StoreConfig { skip_acl: true, ..StoreConfig::default() });
    world.ok(create_acl("/closed", digest_acl("u:x")));
    world.ok(create("/closed/a"));
    world.read(&get_data("/closed", false)).unwrap();
}

#[test]
fn anybody_may_read_the_config_and_nobody_write_it() {
    let mut world = World::default();
    assert!(world.read(&get_data("/zookeeper/config", false)).is_ok());
    assert_eq!(world.write(set_data("/zookeeper/config", "x", -1)), Err(NoAuth));
    assert_eq!(world.write(create("/zookeeper/config/x")), Err(NoAuth));
}
