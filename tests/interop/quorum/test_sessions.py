"""Sessions in an ensemble: they move between members, expire by the leader's clock, and outlive leaders.

Every test runs in three ensembles: ours alone, ours following an Apache leader, and ours leading Apache followers.
`near` is the follower that the test is about, `far` another follower.
"""

import time

import pytest

import raw
from ensemble import Ensemble
from load import equal_trees

LAYOUTS = {
    "ours_alone": ({1: "ours", 2: "ours", 3: "ours"}, 3, 1),
    "ours_follows": ({1: "ours", 2: "apache", 3: "apache"}, 3, 1),
    "ours_leads": ({1: "apache", 2: "apache", 3: "ours"}, 3, 1),
}
TIMEOUT_MS = 2000
NODE_CREATED, NODE_DELETED, NODE_CHANGED, CHILDREN_CHANGED = 1, 2, 3, 4


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, ours, tmp_path_factory):
    kinds, leader, near = LAYOUTS[request.param]
    kinds = {number: ours if kind == "ours" else kind for number, kind in kinds.items()}
    with Ensemble(tmp_path_factory.mktemp(request.param) / "e", kinds) as ensemble:
        yield ensemble.start_led_by(leader), near


class Places:
    """The leader and two followers, as they are when the test starts, and a path for the test alone."""

    counter = 0

    def __init__(self, ensemble, near):
        self.ensemble, self.leader = ensemble, ensemble.leader()
        followers = ensemble.followers()
        self.near = next((seat for seat in followers if seat.number == near), followers[0])
        self.far = next(seat for seat in followers if seat is not self.near)
        Places.counter += 1
        self.root = f"/t{Places.counter}"
        conn = self.leader.connect()
        assert conn.create(self.root).err == 0
        conn.close_session()


@pytest.fixture
def places(layout):
    ensemble, near = layout
    if len(ensemble.running) < 3:
        ensemble.start()
    return Places(ensemble.wait_all(), near)


def synced(seat, path, **session):
    """`exists` on a member after a sync there: the Stat or None. The session is left to expire: how it ends is not
    what is asked here, and an Apache follower has been seen to leave the end unanswered, below an Apache leader
    too."""
    conn = seat.connect(**session)
    assert conn.call("sync", path).err == 0
    reply = conn.call("exists", path, False)
    conn.drop()
    return reply.fields["stat"] if reply.err == 0 else None


def again(seat, conn, **session):
    """A second connection of the same session. It goes on counting its requests, as clients do: members match
    what is committed with what waits by session and number."""
    options = {"session": conn.session, "password": conn.password, "timeout_ms": conn.timeout_ms, **session}
    new = seat.connect(**options)
    new.next_xid = conn.next_xid + 100
    return new


def test_session_moves_to_another_member(places):
    old = places.near.connect()
    path = f"{places.root}/e"
    assert old.create(path, flags=1).err == 0
    new = again(places.far, old)
    assert new.session == old.session
    assert new.call("exists", path, False).fields["stat"]["owner"] == old.session
    assert new.create(f"{places.root}/after", flags=1).err == 0
    # The old connection may read until it writes; then it is closed without an answer. (Its member must know what
    # the new one has done: Apache's takes the first commit of a session for the answer that it waits for.)
    assert synced(places.near, path) is not None
    assert old.call("getData", path, False).err == 0
    old.send("setData", raw.body("setData", path, b"from the old one", -1))
    with pytest.raises(raw.Closed):
        old.receive()
    assert new.call("getData", path, False).fields["data"] == b""
    # To the leader and back.
    leading = again(places.leader, new)
    assert leading.session == old.session
    assert leading.call("setData", path, b"leader", -1).err == 0
    back = again(places.near, leading)
    assert back.call("setData", path, b"back", -1).err == 0
    back.close_session()
    for seat in places.ensemble:
        assert synced(seat, path) is None
        assert synced(seat, f"{places.root}/after") is None


def test_the_same_member_replaces_the_connection(places):
    old = places.near.connect()
    new = again(places.near, old)
    assert new.session == old.session
    assert old.is_closed()
    assert new.create(f"{places.root}/x").err == 0
    new.close_session()


@pytest.mark.parametrize("where", ["near", "leader"])
def test_reattach_is_refused(places, where):
    """A wrong password, an unknown session, and one that was closed elsewhere."""
    seat = getattr(places, where)
    conn = places.far.connect()
    for session, password in [(conn.session, b"x" * 16), (0x1234567890, conn.password)]:
        refused = seat.connect(session=session, password=password)
        assert (refused.session, refused.timeout_ms) == (0, 0)
        assert refused.is_closed()
    assert conn.create(f"{places.root}/still-there").err == 0
    conn.close_session()
    refused = seat.connect(session=conn.session, password=conn.password)
    assert (refused.session, refused.timeout_ms) == (0, 0)


@pytest.mark.parametrize("where", ["near", "leader"])
def test_silence_expires_the_session(places, where):
    """The leader decides, for clients of its followers too; every member loses the ephemeral, no sooner and not
    much later than the timeout."""
    seat = getattr(places, where)
    path = f"{places.root}/e"
    watchers = []
    conn = seat.connect(timeout_ms=TIMEOUT_MS)
    assert conn.timeout_ms == TIMEOUT_MS
    assert conn.create(path, flags=1).err == 0
    for other in places.ensemble:
        watcher = other.connect()
        assert watcher.call("sync", path).err == 0
        assert watcher.call("exists", path, True).err == 0
        watchers.append(watcher)
    # Alive as long as it pings, well beyond the timeout.
    for _ in range(6):
        time.sleep(TIMEOUT_MS / 4000)
        assert conn.call("ping").err == 0
    silent = time.monotonic()
    for watcher in watchers:
        event = watcher.receive()
        assert (event.op, event.fields["kind"], event.fields["path"]) == ("notification", NODE_DELETED, path)
    lasted = time.monotonic() - silent
    # Two ticks of rounding, and a ping's way from a follower to the leader.
    assert TIMEOUT_MS / 1000 - 0.6 < lasted < TIMEOUT_MS / 1000 + 4, lasted
    for watcher in watchers:
        assert watcher.call("exists", path, False).err == -101
        watcher.close_session()
    refused = places.far.connect(session=conn.session, password=conn.password)
    assert refused.session == 0


def test_closing_ends_the_ephemerals_everywhere(places):
    conn = places.near.connect()
    paths = [f"{places.root}/e{number}" for number in range(20)]
    for path in paths:
        assert conn.create(path, flags=1).err == 0
    conn.close_session()
    for seat in places.ensemble:
        assert all(synced(seat, path) is None for path in paths)


def test_sync_shows_the_latest(places):
    """What one member has acknowledged is there after a sync through another."""
    writer = places.leader.connect()
    readers = [places.near.connect(), places.far.connect(), places.leader.connect()]
    for number in range(100):
        assert writer.call("setData", places.root, b"%d" % number, -1).err == 0
        for reader in readers:
            # Both at once: the read waits behind the sync.
            asked = [reader.send("sync", raw.body("sync", places.root)),
                     reader.send("getData", raw.body("getData", places.root, False))]
            assert reader.reply(asked[0]).fields["path"] == places.root
            assert reader.reply(asked[1]).fields["data"] == b"%d" % number
    for conn in [writer, *readers]:
        conn.close_session()


def test_a_session_reads_its_own_writes(places):
    """Through a follower, pipelined: every read behind a write shows it, with the write's zxid or a later one."""
    conn = places.near.connect()
    asked = []
    for number in range(300):
        asked.append(conn.send("setData", raw.body("setData", places.root, b"%d" % number, -1)))
        asked.append(conn.send("getData", raw.body("getData", places.root, False)))
    last = 0
    for at, xid in enumerate(asked):
        reply = conn.receive()
        assert reply.xid == xid and reply.err == 0 and reply.zxid >= last
        last = reply.zxid
        if at % 2:
            assert reply.fields["data"] == b"%d" % (at // 2)
    conn.close_session()


def test_watches_on_a_follower(places):
    """Data, child, exists and persistent watches on one member for writes through others; an event is there
    before any reply that shows the new state."""
    watcher, writer = places.near.connect(), places.far.connect()
    root, child, new = places.root, f"{places.root}/c", f"{places.root}/n"
    assert writer.create(child).err == 0
    assert watcher.call("sync", root).err == 0
    assert watcher.call("getData", child, True).err == 0
    assert watcher.call("getChildren2", root, True).err == 0
    assert watcher.call("exists", new, True).err == -101
    # On a connection of its own: up to 3.8 it would replace the standard watch of the same path.
    deep = places.near.connect()
    assert deep.call("addWatch", root, 1).err == 0
    assert writer.call("setData", child, b"changed", -1).err == 0
    assert writer.create(new).err == 0
    assert writer.call("delete", child, -1).err == 0
    assert watcher.call("sync", root).err == 0
    reply = watcher.call("getChildren2", root, False)
    assert sorted(reply.fields["children"]) == ["n"]
    events = [(event.fields["kind"], event.fields["path"]) for event in watcher.events]
    assert events == [(NODE_CHANGED, child), (NODE_CREATED, new), (CHILDREN_CHANGED, root)], events
    assert deep.call("sync", root).err == 0
    events = [(event.fields["kind"], event.fields["path"]) for event in deep.events]
    assert events == [(NODE_CHANGED, child), (NODE_CREATED, new), (NODE_DELETED, child)], events
    for conn in (watcher, deep, writer):
        conn.close_session()


def test_identities_travel_with_forwarded_requests(places):
    """What a client has proved to its follower counts at the leader: creator's ACLs, and refusal without."""
    owner, stranger = places.near.connect(), places.near.connect()
    assert owner.call("auth", 0, "digest", b"me:secret").err == 0
    path = f"{places.root}/mine"
    assert owner.create(path, acl=[(31, "auth", "")]).err == 0
    assert owner.call("setData", path, b"mine", -1).err == 0
    assert stranger.call("setData", path, b"not yours", -1).err == -102
    assert stranger.call("getData", path, False).err == -102
    assert stranger.create(f"{path}/below").err == -102
    assert stranger.create(f"{places.root}/auth", acl=[(31, "auth", "")]).err == -114
    assert owner.call("getACL", path).fields["acl"][0][1] == "digest"
    owner.close_session()
    stranger.close_session()


def test_every_kind_of_write_through_a_follower(places):
    conn, root = places.near.connect(), places.root
    assert conn.call("create2", f"{root}/a", b"1", raw.OPEN_ACL, 0).fields["stat"]["version"] == 0
    assert conn.call("createContainer", f"{root}/box", b"", raw.OPEN_ACL, 4).err == 0
    assert conn.call("createTTL", f"{root}/ttl", b"", raw.OPEN_ACL, 5, 10**9).err == 0
    assert conn.call("setACL", f"{root}/a", raw.OPEN_ACL, 0).fields["stat"]["aversion"] == 1
    reply = conn.call("multi", [("create", f"{root}/m-", b"", raw.OPEN_ACL, 2), ("setData", f"{root}/a", b"2", 0),
                                ("delete", f"{root}/box", -1)])
    assert [entry[:2] for entry in reply.fields["entries"]] == [("create", 0), ("setData", 0), ("delete", 0)]
    reply = conn.call("multi", [("setData", f"{root}/a", b"3", -1), ("check", f"{root}/a", 77)])
    assert [entry[2]["err"] for entry in reply.fields["entries"]] == [0, -103]
    assert conn.call("delete", f"{root}/none", -1).err == -101
    assert conn.call("setData", f"{root}/a", b"x", 0).err == -103
    assert conn.create(f"{root}/b", acl=[]).err == -114
    assert conn.call("getData", f"{root}/a", False).fields["data"] == b"2"
    big = bytes(900_000)
    assert conn.call("setData", f"{root}/a", big, -1).err == 0
    conn.close_session()
    reader = places.far.connect()
    assert reader.call("sync", root).err == 0
    assert reader.call("getData", f"{root}/a", False).fields["data"] == big
    reader.close_session()


def test_a_member_that_is_behind_refuses(places):
    """A client that has seen more than this member knows must go to another one."""
    with pytest.raises(raw.Closed):
        raw.Connection(places.near.client, last_zxid=places.near.zxid() + 1000)


def test_session_survives_the_leader(places):
    """Its follower finds a new leader; the session, its ephemerals and its right to write are still there. Then
    the same for a session whose own member was the leader."""
    near, leader = places.near, places.leader
    conn, guest = near.connect(timeout_ms=20_000), leader.connect(timeout_ms=20_000)
    mine, guests = f"{places.root}/mine", f"{places.root}/guests"
    assert conn.create(mine, flags=1).err == 0 and guest.create(guests, flags=1).err == 0
    leader.kill()
    assert places.ensemble.leader() is not leader
    places.ensemble.wait_all()
    moved, survivor = again(near, guest), again(places.far, conn)
    assert (moved.session, survivor.session) == (guest.session, conn.session)
    assert survivor.call("setData", mine, b"still mine", -1).err == 0
    assert moved.call("setData", guests, b"too", -1).err == 0
    leader.start()
    back = again(leader, moved)
    assert back.session == guest.session
    for seat in places.ensemble:
        assert synced(seat, mine)["owner"] == conn.session and synced(seat, guests)["owner"] == guest.session
    back.close_session()
    survivor.close_session()
    assert all(synced(seat, path) is None for seat in places.ensemble for path in (mine, guests))
    equal_trees(places.ensemble)
