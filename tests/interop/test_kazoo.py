"""kazoo, ZooKeeper's Python client, as applications use it: nodes, sessions, ACLs, watches, recipes, restarts.

Persistent and recursive watches, which kazoo does not have, go through `raw.py`.
"""

import contextlib
import itertools
import threading
import time

import pytest
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError, InvalidACLError, NoAuthError, NoChildrenForEphemeralsError, NodeExistsError, NoNodeError,
    NotEmptyError, RolledBackError, RuntimeInconsistency,
)
from kazoo.protocol.states import EventType
from kazoo.security import make_acl, make_digest_acl

import raw
from member import four_letter_word

numbers = itertools.count(1)


def wait_until(condition, limit_s=10.0):
    """Waits for a condition; says whether it came true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def connect():
    """A function that opens a client; all are closed when the test ends."""
    clients = []

    def make(server, timeout=10.0, **options):
        client = KazooClient(hosts=server.address, timeout=timeout, **options)
        client.start(timeout=15)
        clients.append(client)
        return client
    yield make
    for client in clients:
        client.stop()
        client.close()


@pytest.fixture
def zk(server, connect):
    return connect(server)


@pytest.fixture
def root(zk):
    """A fresh znode for this test."""
    path = f"/kazoo-{next(numbers)}"
    zk.create(path, b"")
    return path


# ---- nodes

def test_create_read_change_delete(zk, root):
    path = f"{root}/a"
    assert zk.create(path, b"one") == path
    data, stat = zk.get(path)
    assert (data, stat.version, stat.dataLength, stat.numChildren) == (b"one", 0, 3, 0)
    assert stat.czxid == stat.mzxid == stat.pzxid and stat.ctime == stat.mtime
    after = zk.set(path, b"four", version=0)
    assert (after.version, after.dataLength) == (1, 4) and after.mzxid > after.czxid
    assert abs(after.mtime / 1000 - time.time()) < 5
    with pytest.raises(BadVersionError):
        zk.set(path, b"x", version=0)
    with pytest.raises(NodeExistsError):
        zk.create(path, b"")
    with pytest.raises(BadVersionError):
        zk.delete(path, version=7)
    zk.delete(path, version=1)
    assert zk.exists(path) is None
    for missing in (zk.get, zk.delete, zk.get_children, zk.get_acls):
        with pytest.raises(NoNodeError):
            missing(path)


def test_parent_stat_counts_children(zk, root):
    for name in "abc":
        zk.create(f"{root}/{name}", b"")
    zk.delete(f"{root}/b")
    stat = zk.exists(root)
    assert (stat.cversion, stat.numChildren, stat.version) == (4, 2, 0)
    assert stat.pzxid > stat.mzxid
    with pytest.raises(NotEmptyError):
        zk.delete(root)
    names, stat = zk.get_children(root, include_data=True)
    assert sorted(names) == ["a", "c"] and stat.numChildren == 2


def test_data_may_be_empty_binary_or_unicode(zk, root):
    every_byte = bytes(range(256))
    zk.create(f"{root}/empty", b"")
    zk.create(f"{root}/binary", every_byte)
    zk.create(f"{root}/\u6771\u4eac \u00fc", b"x")
    assert zk.get(f"{root}/empty")[0] == b"" and zk.get(f"{root}/binary")[0] == every_byte
    assert "\u6771\u4eac \u00fc" in zk.get_children(root)


def test_sequential_names_count_creations(zk, root):
    first = zk.create(f"{root}/s-", b"", sequence=True)
    assert first == f"{root}/s-0000000000"
    zk.create(f"{root}/other", b"")
    zk.delete(f"{root}/other")
    assert zk.create(f"{root}/s-", b"", sequence=True) == f"{root}/s-0000000002"
    assert zk.create(f"{root}/", b"", sequence=True) == f"{root}/0000000003"


def test_create_answers_with_the_stat(zk, root):
    path, stat = zk.create(f"{root}/two", b"22", include_data=True)
    assert path == f"{root}/two" and stat.dataLength == 2 and stat.czxid == zk.exists(path).czxid


def test_containers_and_ttl_nodes_vanish(server, zk, root):
    conn = raw.Connection(server.port)
    assert conn.call("createContainer", f"{root}/box", b"", raw.OPEN_ACL, 4).err == 0
    assert conn.call("createTTL", f"{root}/brief", b"", raw.OPEN_ACL, 5, 300).err == 0
    assert conn.call("createTTL", f"{root}/long", b"", raw.OPEN_ACL, 5, 600_000).err == 0
    reply = conn.call("createTTL", f"{root}/s-", b"", raw.OPEN_ACL, 6, 300)
    assert reply.fields["path"] == f"{root}/s-0000000003" and reply.fields["stat"]["owner"] == 0
    # An unused container stays; one whose last child has gone does not. The manager looks every second.
    zk.create(f"{root}/box/child", b"")
    time.sleep(2.5)
    assert zk.exists(f"{root}/box") is not None
    assert zk.exists(f"{root}/brief") is None and zk.exists(f"{root}/s-0000000003") is None
    zk.delete(f"{root}/box/child")
    assert wait_until(lambda: zk.exists(f"{root}/box") is None, 5.0)
    assert zk.exists(f"{root}/long") is not None
    conn.close_session()


def test_a_megabyte_and_no_more(server, connect, zk, root):
    zk.create(f"{root}/large", b"x" * 1_000_000)
    assert len(zk.get(f"{root}/large")[0]) == 1_000_000
    conn = raw.Connection(server.port)
    with contextlib.suppress(raw.Closed):  # at the announced length, or when all of it is sent
        conn.send("setData", raw.body("setData", root, b"x" * 1_048_600, -1))
    assert conn.is_closed(), "a frame above jute.maxbuffer must close the connection"
    assert zk.exists(f"{root}/large").version == 0


def test_many_children_in_one_reply(zk, root):
    batch = [zk.create_async(f"{root}/child-{n:05}", b"") for n in range(3000)]
    for one in batch:
        one.get(timeout=30)
    assert len(zk.get_children(root)) == 3000
    zk.delete(root, recursive=True)


# ---- sessions

def test_ephemerals_vanish_when_the_session_closes(server, connect, zk, root):
    owner = connect(server)
    owner.create(f"{root}/e", b"", ephemeral=True)
    owner.create(f"{root}/s-", b"", ephemeral=True, sequence=True)
    assert zk.exists(f"{root}/e").ephemeralOwner == owner.client_id[0]
    with pytest.raises(NoChildrenForEphemeralsError):
        owner.create(f"{root}/e/child", b"")
    owner.stop()
    assert wait_until(lambda: zk.get_children(root) == [], 3.0)


def test_ephemerals_vanish_when_the_session_expires(server, zk, root):
    owner = raw.Connection(server.port, timeout_ms=1500)
    owner.create(f"{root}/e", b"", flags=1)
    started = time.monotonic()
    owner.drop()
    time.sleep(1.0)
    assert zk.exists(f"{root}/e") is not None, "expired before its timeout"
    assert wait_until(lambda: zk.exists(f"{root}/e") is None, 5.0)
    # Timeout plus at most two ticks of 500 ms, and some slack for a busy machine.
    assert 1.4 < time.monotonic() - started < 4.0
    again = raw.Connection(server.port, session=owner.session, password=owner.password)
    assert again.answer["session"] == 0 and again.answer["timeout"] == 0 and again.is_closed()


def test_timeouts_are_negotiated(server):
    # tickTime is 500 ms here: at least two ticks, at most maxSessionTimeout.
    for asked, granted in ((1, 1000), (-5, 1000), (4000, 4000), (3_600_000, 60_000)):
        conn = raw.Connection(server.port, timeout_ms=asked)
        assert conn.timeout_ms == granted
        conn.close_session()


def test_session_moves_to_a_new_connection(server, zk, root):
    first = raw.Connection(server.port)
    first.create(f"{root}/e", b"", flags=1)
    second = raw.Connection(server.port, session=first.session, password=first.password)
    assert second.session == first.session and second.password == first.password
    assert first.is_closed(), "the session's older connection must be closed"
    assert second.call("exists", f"{root}/e", False).fields["stat"]["owner"] == first.session
    second.close_session()
    assert wait_until(lambda: zk.exists(f"{root}/e") is None, 3.0)


def test_kazoo_reconnects_with_its_session(server, connect, zk, root):
    client = connect(server)
    states = []
    client.add_listener(states.append)
    client.create(f"{root}/e", b"", ephemeral=True)
    session = client.client_id
    client._connection._socket.shutdown(2)
    assert wait_until(lambda: KazooState.CONNECTED in states)
    assert client.client_id == session and zk.exists(f"{root}/e") is not None


def test_longest_timeout_is_twenty_ticks(new_server):
    server = new_server(settings={"maxSessionTimeout": -1}).start()
    conn = raw.Connection(server.port, timeout_ms=3_600_000)
    assert conn.timeout_ms == 10_000
    conn.close_session()
    server.stop()


def test_wrong_password_and_unknown_session(server):
    owner = raw.Connection(server.port)
    for session, password in ((owner.session, b"\1" * 16), (owner.session + 77, owner.password), (7, b"\0" * 16)):
        refused = raw.Connection(server.port, session=session, password=password)
        answer = refused.answer
        assert (answer["session"], answer["timeout"], answer["password"]) == (0, 0, b"\0" * 16)
        assert refused.is_closed()


def test_a_client_from_the_future_is_refused(server):
    with pytest.raises(raw.Closed):
        raw.Connection(server.port, last_zxid=1 << 40)


def test_password_is_a_function_of_the_session(server):
    """Apache's generator, so that a session may re-attach at any member: java.util.Random."""
    conn = raw.Connection(server.port)
    state = (conn.session ^ 0xB3415C00 ^ 0x5DEECE66D) & ((1 << 48) - 1)
    expected = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        expected += ((state >> 16) & 0xFFFFFFFF).to_bytes(4, "little")
    assert conn.password == expected
    conn.close_session()


def test_read_only_byte_is_echoed_only_if_sent(server):
    for read_only, length in ((None, 36), (False, 37)):
        conn = raw.Connection(server.port, read_only=read_only)
        assert len(conn.frames[0]) == length
        conn.close_session()


# ---- order

def test_pipelined_requests_are_answered_in_order(server, root):
    conn = raw.Connection(server.port)
    asked = []
    for n in range(200):
        asked.append(conn.send("create", raw.body("create", f"{root}/p{n}", b"", raw.OPEN_ACL, 0)))
        asked.append(conn.send("getChildren2", raw.body("getChildren2", root, False)))
        asked.append(conn.send("setData", raw.body("setData", f"{root}/p{n}", b"x", -1)))
        asked.append(conn.send("exists", raw.body("exists", f"{root}/p{n}", False)))
    replies = [conn.receive() for _ in asked]
    assert [reply.xid for reply in replies] == asked
    assert all(reply.err == 0 for reply in replies)
    zxids = [reply.zxid for reply in replies]
    assert zxids == sorted(zxids), "a reply must not go back in time"
    for n in range(200):
        # A read sees its own session's writes, and no later ones of it.
        assert replies[4 * n + 1].fields["stat"]["numChildren" if "numChildren" in replies[1].fields["stat"] else "children"] == n + 1
        assert replies[4 * n + 3].fields["stat"]["version"] == 1
    conn.close_session()


def test_a_burst_in_one_segment_behind_the_connect(server):
    """Requests sent before the connect reply are kept, not lost."""
    conn = raw.Connection(server.port, connect=False)
    stream = raw.frame(raw.connect_request())
    for xid in (1, 2, 3):
        stream += raw.frame(raw.i32(xid) + raw.i32(raw.OPS["exists"]) + raw.body("exists", "/", False))
    conn.socket.sendall(stream)
    conn.read_frame()
    conn.pending = [(xid, "exists") for xid in (1, 2, 3)]
    assert [conn.receive().xid for _ in range(3)] == [1, 2, 3]
    conn.drop()


def test_errors_consume_a_zxid(server, root):
    conn = raw.Connection(server.port)
    first = conn.create(f"{root}/a")
    refused = conn.create(f"{root}/a")
    assert refused.err == -110 and refused.zxid == first.zxid + 1
    assert conn.call("exists", f"{root}/none", False).zxid == refused.zxid
    conn.close_session()


def test_sync(zk, root):
    assert zk.sync(root) == root
    assert zk.sync("/does-not-exist") == "/does-not-exist"


# ---- multi

def test_transaction(zk, root):
    good = zk.transaction()
    good.create(f"{root}/a", b"1")
    good.create(f"{root}/a/s-", b"", sequence=True)
    good.set_data(f"{root}/a", b"2")
    good.check(f"{root}/a", 1)
    good.delete(f"{root}/a/s-0000000000")
    results = good.commit()
    assert results[0] == f"{root}/a" and results[1] == f"{root}/a/s-0000000000"
    assert results[2].version == 1 and results[3] is True and results[4] is True
    stat = zk.exists(f"{root}/a")
    assert stat.czxid == stat.mzxid == stat.pzxid, "one transaction has one zxid"


def test_failed_transaction_changes_nothing(zk, root):
    bad = zk.transaction()
    bad.create(f"{root}/a", b"1")
    bad.check(root, 9)
    bad.delete(root)
    results = bad.commit()
    assert [type(result) for result in results] == [RolledBackError, BadVersionError, RuntimeInconsistency]
    assert zk.get_children(root) == []


# ---- ACLs

def test_world_and_digest_acls(server, connect, zk, root):
    owner = connect(server, auth_data=[("digest", "user:secret")])
    acl = [make_digest_acl("user", "secret", all=True), make_acl("world", "anyone", read=True)]
    owner.create(f"{root}/mine", b"private", acl=acl)
    assert zk.get(f"{root}/mine")[0] == b"private"
    for call in (lambda: zk.set(f"{root}/mine", b"x"), lambda: zk.set_acls(f"{root}/mine", acl),
                 lambda: zk.create(f"{root}/mine/child", b"")):
        with pytest.raises(NoAuthError):
            call()
    owner.set(f"{root}/mine", b"y")
    owner.create(f"{root}/mine/child", b"")
    with pytest.raises(NoAuthError):
        zk.delete(f"{root}/mine/child")
    owner.delete(f"{root}/mine/child")
    # Deleting a node needs DELETE on its parent, which is open.
    zk.delete(f"{root}/mine")


def test_auth_scheme_becomes_the_callers_identity(server, connect, zk, root):
    owner = connect(server, auth_data=[("digest", "user:secret")])
    owner.create(f"{root}/mine", b"", acl=[make_acl("auth", "", all=True)])
    acls, stat = owner.get_acls(f"{root}/mine")
    assert [acl.id.scheme for acl in acls] == ["digest"] and stat.aversion == 0
    with pytest.raises(NoAuthError):
        zk.get_acls(f"{root}/mine")
    owner.set_acls(f"{root}/mine", [make_acl("world", "anyone", read=True)], version=0)
    acls, stat = zk.get_acls(f"{root}/mine")
    assert stat.aversion == 1
    with pytest.raises(NoAuthError):
        owner.set_acls(f"{root}/mine", [make_acl("world", "anyone", all=True)])
    with pytest.raises(InvalidACLError):
        zk.create(f"{root}/nobody", b"", acl=[make_acl("auth", "", all=True)])


def test_readers_see_digests_masked(server, connect, zk, root):
    acl = [make_digest_acl("user", "secret", all=True), make_acl("world", "anyone", read=True)]
    zk.create(f"{root}/mine", b"", acl=acl)
    assert {one.id.id for one in zk.get_acls(f"{root}/mine")[0]} == {"user:x", "anyone"}
    owner = connect(server, auth_data=[("digest", "user:secret")])
    assert acl[0].id.id in {one.id.id for one in owner.get_acls(f"{root}/mine")[0]}


def test_ip_acls(zk, root):
    zk.create(f"{root}/here", b"x", acl=[make_acl("ip", "127.0.0.0/8", all=True)])
    zk.create(f"{root}/there", b"x", acl=[make_acl("ip", "10.1.2.3", all=True)])
    assert zk.get(f"{root}/here")[0] == b"x"
    with pytest.raises(NoAuthError):
        zk.get(f"{root}/there")
    assert zk.exists(f"{root}/here") is not None


def test_super_user(server, connect, root):
    anybody, superuser = connect(server), connect(server, auth_data=[("digest", "super:secret")])
    anybody.create(f"{root}/locked", b"x", acl=[make_acl("ip", "10.1.2.3", all=True)])
    with pytest.raises(NoAuthError):
        anybody.set(f"{root}/locked", b"y")
    assert superuser.set(f"{root}/locked", b"y").version == 1


def test_invalid_acls_and_failed_authentication(server, zk, root):
    for scheme, who in (("nosuch", "x"), ("world", "nobody"), ("digest", "nocolon"), ("ip", "nowhere")):
        with pytest.raises(InvalidACLError):
            zk.create(f"{root}/x", b"", acl=[make_acl(scheme, who, all=True)])
    conn = raw.Connection(server.port)
    assert conn.call("auth", 0, "nosuch", b"x").err == -115 and conn.is_closed()


def test_enforced_authentication(new_server):
    """Who has not authenticated by one of the schemes is answered with an error, and closed, whatever it asks for."""
    server = new_server({"enforce.auth.enabled": "true", "enforce.auth.schemes": "digest"}).start()
    for asked in (("getData", "/", False), ("create", "/a", b"", raw.OPEN_ACL, 0), ("ping",), ("closeSession",)):
        conn = raw.Connection(server.port)
        reply = conn.call(*asked)
        assert (reply.zxid, reply.err) == (0, -124) and conn.is_closed(), asked
    conn = raw.Connection(server.port)
    assert conn.call("auth", 0, "ip", b"").err == 0
    assert conn.call("exists", "/a", False).err == -124
    conn = raw.Connection(server.port)
    assert conn.call("auth", 0, "digest", b"user:password").err == 0
    assert conn.create("/a").err == 0
    server.stop()


def test_digest_authentication_turned_off(new_server):
    server = new_server({"DigestAuthenticationProvider.enabled": "false"}).start()
    conn = raw.Connection(server.port)
    assert conn.call("auth", 0, "digest", b"super:secret").err == -115 and conn.is_closed()
    server.stop()


# ---- watches

def collect(events):
    return [(event.type, event.path) for event in events]


def test_one_shot_watches(zk, root):
    path, events = f"{root}/w", []
    assert zk.exists(path, watch=events.append) is None
    zk.create(path, b"")
    assert wait_until(lambda: len(events) == 1)
    zk.get(path, watch=events.append)
    zk.get_children(path, watch=events.append)
    zk.set(path, b"1")
    zk.set(path, b"2")
    zk.create(f"{path}/c", b"")
    zk.create(f"{path}/d", b"")
    zk.exists(path, watch=events.append)
    zk.delete(f"{path}/c")
    zk.delete(f"{path}/d")
    zk.delete(path)
    assert wait_until(lambda: len(events) == 4)
    time.sleep(0.1)
    assert collect(events) == [
        (EventType.CREATED, path), (EventType.CHANGED, path), (EventType.CHILD, path), (EventType.DELETED, path),
    ]


def test_an_event_comes_before_the_reply_that_shows_it(server, root):
    watcher, writer = raw.Connection(server.port), raw.Connection(server.port)
    for n in range(50):
        watcher.call("getData", root, True)
        writer.call("setData", root, b"%d" % n, -1)
        seen = watcher.call("getData", root, False)
        assert seen.fields["data"] == b"%d" % n and len(watcher.events) == n + 1
    watcher.close_session()
    writer.close_session()


def test_events_of_one_request_in_order(server, root):
    conn = raw.Connection(server.port)
    conn.call("exists", f"{root}/x", True)
    conn.call("getChildren", root, True)
    conn.create(f"{root}/x")
    assert [(e.fields["kind"], e.fields["path"]) for e in conn.events] == [(1, f"{root}/x"), (4, root)]
    conn.events.clear()
    conn.call("getData", f"{root}/x", True)
    conn.call("getChildren", f"{root}/x", True)
    conn.call("getChildren", root, True)
    conn.call("delete", f"{root}/x", -1)
    assert [(e.fields["kind"], e.fields["path"]) for e in conn.events] == [(2, f"{root}/x"), (4, root)]
    conn.close_session()


def test_persistent_watch(server, root):
    conn = raw.Connection(server.port)
    assert conn.call("addWatch", root, 0).fields == {"err": 0}
    for _ in range(3):
        conn.call("setData", root, b"x", -1)
    conn.create(f"{root}/c")
    conn.create(f"{root}/c/deep")
    assert [e.fields["kind"] for e in conn.events] == [3, 3, 3, 4]
    assert conn.call("checkWatches", root, 3).err == 0
    assert conn.call("removeWatches", root, 3).err == 0
    assert conn.call("checkWatches", root, 3).err == -121
    conn.call("setData", root, b"x", -1)
    assert len(conn.events) == 4
    conn.close_session()


def test_persistent_recursive_watch(server, root):
    conn = raw.Connection(server.port)
    conn.call("addWatch", root, 1)
    conn.create(f"{root}/c")
    conn.create(f"{root}/c/deep")
    conn.call("setData", f"{root}/c/deep", b"x", -1)
    conn.call("delete", f"{root}/c/deep", -1)
    seen = [(e.fields["kind"], e.fields["path"]) for e in conn.events]
    assert seen == [(1, f"{root}/c"), (1, f"{root}/c/deep"), (3, f"{root}/c/deep"), (2, f"{root}/c/deep")]
    conn.close_session()


def test_set_watches_tells_what_was_missed(server, zk, root):
    for name in "abc":
        zk.create(f"{root}/{name}", b"")
    before = zk.exists(root).pzxid
    zk.set(f"{root}/a", b"new")
    zk.delete(f"{root}/b")
    conn = raw.Connection(server.port)
    conn.call("setWatches", before, [f"{root}/a", f"{root}/b", f"{root}/c"], [f"{root}/c", f"{root}/d"], [root])
    seen = [(e.fields["kind"], e.fields["path"].removeprefix(root)) for e in conn.events]
    assert seen == [(3, "/a"), (2, "/b"), (1, "/c"), (4, "")]
    conn.events.clear()
    zk.set(f"{root}/c", b"x")
    zk.create(f"{root}/d", b"")
    conn.call("ping")
    assert [(e.fields["kind"], e.fields["path"].removeprefix(root)) for e in conn.events] == [(3, "/c"), (1, "/d")]
    conn.close_session()


def test_three_hundred_watchers_of_one_node(server, root):
    watchers = [raw.Connection(server.port) for _ in range(300)]
    for watcher in watchers:
        watcher.call("getData", root, True)
    watchers[0].call("setData", root, b"x", -1)
    for watcher in watchers:
        watcher.call("ping")
        assert [e.fields["kind"] for e in watcher.events] == [3]
    for watcher in watchers:
        watcher.close_session()


# ---- recipes

def test_lock(server, connect, root):
    held, order = threading.Lock(), []

    def work(name):
        client = connect(server)
        for _ in range(3):
            with client.Lock(f"{root}/lock", name):
                assert held.acquire(blocking=False), "two hold the lock"
                order.append(name)
                time.sleep(0.01)
                held.release()
    run_all([lambda name=name: work(name) for name in ("a", "b", "c")])
    assert sorted(order) == sorted("abc" * 3)


def test_read_and_write_locks(server, connect, root):
    one, two = connect(server), connect(server)
    first, second = one.ReadLock(f"{root}/rw", "1"), two.ReadLock(f"{root}/rw", "2")
    assert first.acquire(timeout=5) and second.acquire(timeout=5)
    writer = two.WriteLock(f"{root}/rw", "w")
    with pytest.raises(Exception):
        writer.acquire(timeout=0.3)
    first.release()
    second.release()
    assert writer.acquire(timeout=5)
    writer.release()


def test_election(server, connect, root):
    leaders, done = [], threading.Event()

    def lead(name):
        leaders.append(name)
        time.sleep(0.05)
    run_all([lambda n=n: connect(server).Election(f"{root}/election", n).run(lead, n) for n in ("a", "b", "c")])
    done.set()
    assert sorted(leaders) == ["a", "b", "c"]


def test_queue(server, connect, root):
    producer, consumer = connect(server).Queue(f"{root}/queue"), connect(server).Queue(f"{root}/queue")
    for n in range(20):
        producer.put(b"%d" % n, priority=100)
    producer.put(b"urgent", priority=1)
    assert consumer.get() == b"urgent" and [consumer.get() for _ in range(20)] == [b"%d" % n for n in range(20)]
    assert consumer.get() is None


def test_locking_queue(server, connect, root):
    queue = connect(server).LockingQueue(f"{root}/lqueue")
    queue.put(b"one")
    queue.put_all([b"two", b"three"])
    for expected in (b"one", b"two", b"three"):
        assert queue.get(timeout=5) == expected
        assert queue.consume()


def test_barriers(server, connect, root):
    zk = connect(server)
    barrier = zk.Barrier(f"{root}/barrier")
    barrier.create()
    opened = []
    waiter = threading.Thread(target=lambda: opened.append(connect(server).Barrier(f"{root}/barrier").wait(10)))
    waiter.start()
    time.sleep(0.1)
    assert not opened
    barrier.remove()
    waiter.join(10)
    assert opened == [True]


def test_double_barrier(server, connect, root):
    inside, most = [], []

    def member(name):
        double = connect(server).DoubleBarrier(f"{root}/double", 3, name)
        double.enter()
        inside.append(name)
        most.append(wait_until(lambda: len(inside) == 3, 5.0))
        double.leave()
    run_all([lambda n=n: member(n) for n in ("a", "b", "c")])
    assert most == [True, True, True]


def test_party_counter_semaphore_and_cache(server, connect, root):
    one, two = connect(server), connect(server)
    party = one.Party(f"{root}/party", "one")
    party.join()
    two.Party(f"{root}/party", "two").join()
    assert sorted(party) == ["one", "two"]
    counter = one.Counter(f"{root}/counter")
    run_all([lambda c=c: [c.Counter(f"{root}/counter")._change(1) for _ in range(10)] for c in (one, two)])
    assert counter.value == 20
    with one.Semaphore(f"{root}/semaphore", max_leases=2), two.Semaphore(f"{root}/semaphore", max_leases=2):
        assert len(one.Semaphore(f"{root}/semaphore", max_leases=2).lease_holders()) == 2


def test_data_and_children_watchers(server, connect, zk, root):
    data, children = [], []
    zk.DataWatch(f"{root}/d", lambda value, stat: data.append(value))
    zk.ChildrenWatch(root, lambda names: children.append(sorted(names)))
    other = connect(server)
    other.create(f"{root}/d", b"1")
    assert wait_until(lambda: data[-1:] == [b"1"] and children[-1:] == [["d"]])
    other.set(f"{root}/d", b"2")
    assert wait_until(lambda: data[-1:] == [b"2"])


def run_all(functions):
    """Runs each in a thread of its own; the first exception is raised here."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


# ---- restarts, and what operators ask

@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_keeps_data_sessions_and_ephemerals(own_server, connect, how):
    client = connect(own_server)
    client.create("/r", b"kept", acl=[make_acl("world", "anyone", all=True)])
    client.create("/r/e", b"", ephemeral=True)
    client.create("/r/s-", b"", sequence=True)
    session, before = client.client_id, client.get("/r")
    getattr(own_server, how)()
    own_server.start()
    assert wait_until(lambda: client.connected, 20)
    assert client.retry(client.get, "/r") == before
    assert client.client_id == session, "the session must survive"
    assert client.exists("/r/e").ephemeralOwner == session[0]
    assert client.create("/r/s-", b"", sequence=True) == "/r/s-0000000002"
    assert client.set("/r", b"new").version == 1
    client.stop()
    other = connect(own_server)
    assert wait_until(lambda: sorted(other.get_children("/r")) == ["s-0000000001", "s-0000000002"])


def test_expiry_behind_a_restart(own_server, connect):
    """A session whose client never comes back expires after the restart too."""
    owner = raw.Connection(own_server.port, timeout_ms=1000)
    owner.create("/e", b"", flags=1)
    own_server.kill()
    own_server.start()
    zk = connect(own_server)
    assert wait_until(lambda: zk.exists("/e") is None, 8.0)


def test_four_letter_words(server, zk, root):
    assert four_letter_word(server.port, "ruok") == "imok"
    srvr = four_letter_word(server.port, "srvr")
    for line in ("Zookeeper version: ", "Latency min/avg/max: ", "Received: ", "Sent: ", "Connections: ",
                 "Outstanding: ", "Zxid: 0x", "Mode: standalone", "Node count: "):
        assert line in srvr
    mntr = dict(line.split("\t", 1) for line in four_letter_word(server.port, "mntr").splitlines() if "\t" in line)
    for name in ("zk_version", "zk_avg_latency", "zk_num_alive_connections", "zk_outstanding_requests",
                 "zk_server_state", "zk_znode_count", "zk_watch_count", "zk_ephemerals_count",
                 "zk_approximate_data_size", "zk_open_file_descriptor_count", "zk_packets_received"):
        assert name in mntr, f"{name} missing in mntr"
    assert mntr["zk_server_state"] == "standalone" and int(mntr["zk_znode_count"]) >= 6
    for word, expected in (("conf", "clientPort="), ("cons", "sid=0x"), ("dump", "SessionTracker dump"),
                           ("envi", "zookeeper.version="), ("stat", "Clients:"), ("dirs", "datadir_size: "),
                           ("isro", "rw"), ("wchs", "connections watching"), ("srst", "reset"), ("crst", "reset")):
        assert expected in four_letter_word(server.port, word), word


def test_words_about_watches(server, zk, root):
    zk.get(root, watch=lambda event: None)
    session = f"0x{zk.client_id[0]:x}"
    by_session = four_letter_word(server.port, "wchc")
    by_path = four_letter_word(server.port, "wchp")
    assert session in by_session and root in by_session
    assert by_path.index(root) < by_path.index(session, by_path.index(root))


def test_words_must_be_whitelisted(new_server):
    server = new_server(settings={"4lw.commands.whitelist": "srvr,ruok"}).start()
    assert four_letter_word(server.port, "ruok") == "imok"
    assert "not in the whitelist" in four_letter_word(server.port, "wchs")
    server.stop()


def test_max_client_connections(new_server):
    server = new_server(settings={"maxClientCnxns": 3}).start()
    kept = [raw.Connection(server.port) for _ in range(3)]
    with pytest.raises((raw.Closed, ConnectionError)):
        raw.Connection(server.port)
    kept.pop().close_session()
    assert wait_until(lambda: can_connect(server), 3.0)
    server.stop()


def can_connect(server):
    try:
        raw.Connection(server.port).close_session()
        return True
    except (raw.Closed, ConnectionError):
        return False


def test_cli_output_of_quotas(server, zk, root):
    """The usage node of a quota is kept by the server itself."""
    quota = f"/zookeeper/quota{root}"
    zk.ensure_path(quota)
    zk.create(f"{quota}/zookeeper_limits", b"count=100,bytes=-1")
    zk.create(f"{quota}/zookeeper_stats", b"count=0,bytes=0")
    zk.create(f"{root}/a", b"12345")
    zk.create(f"{root}/b", b"123")
    zk.set(f"{root}/b", b"1")
    zk.delete(f"{root}/a")
    text = zk.get(f"{quota}/zookeeper_stats")[0].decode()
    assert text.startswith("count=2,bytes=1"), text
