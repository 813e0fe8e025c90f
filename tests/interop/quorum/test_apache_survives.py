"""Nothing that a leader of ours accepts ends an Apache follower: writes whose application throws there.

Every member keeps the usage of quotas when it applies a transaction (`StatsTrack`, `PathTrie`), and a RuntimeException in
that place ends it. Apache's own leader accepts these writes and ends as well: --server apache shows that.
"""

import pytest

import raw

BAD_ARGUMENTS = -8
LIMITS, USAGE = "zookeeper_limits", "zookeeper_stats"
# What Apache cannot read as usage.
UNREADABLE = [None, b"count", b"count=", b"count=x", b"=", b",count=1", b"\xff"]
READABLE = [b"", b",", b"a==7", b"=1", b"count=1,bytes=2=;byteHardLimit=9"]
# Where a limits znode must not lie: what is behind the length of /zookeeper/quota is not there, or names nothing.
PLACES = ["/zookeeper", "/zookeeper/quota", "/zookeeper/abcde", "/zookeeper/a\u00e9\u00e9\u00e9", "/zookeeper/quota/ "]


def with_a_quota(seat):
    conn = seat.connect()
    for path in ("/q", "/zookeeper/quota/q", *PLACES[2:]):
        assert conn.create(path, None).err == 0, path
    # Null in both: not read, here or there.
    for name in (LIMITS, USAGE):
        assert conn.create(f"/zookeeper/quota/q/{name}", None).err == 0
    return conn


def dangerous(conn):
    """Asks for each of these writes, and for one whose application reads it; yields the answers."""
    for data in UNREADABLE:
        yield conn.call("setData", f"/zookeeper/quota/q/{USAGE}", data, -1).err
        assert conn.create("/q/s", b"x", flags=2).err == 0
    for place in PLACES:
        yield conn.create(f"{place}/{LIMITS}", b"count=9,bytes=9").err
        # Where it may come to be, it ends a member when it goes.
        conn.call("delete", f"{place}/{LIMITS}", -1)


def test_quota_znodes_that_end_an_apache_member(new_ensemble, ours):
    ensemble = new_ensemble({1: "apache", 2: "apache", 3: ours}).start_led_by(3)
    conn = with_a_quota(ensemble[3])
    if ours == "apache":
        with pytest.raises(raw.Closed):
            list(dangerous(conn))
        assert "Severe unrecoverable error" in ensemble[3].log()
        return
    assert set(dangerous(conn)) == {BAD_ARGUMENTS}
    # What Apache can read stays welcome, and limits may hold anything.
    for data in READABLE:
        assert conn.call("setData", f"/zookeeper/quota/q/{USAGE}", data, -1).err == 0
    assert conn.call("setData", f"/zookeeper/quota/q/{LIMITS}", None, -1).err == 0
    last = conn.create("/q/last", b"x")
    assert last.err == 0
    conn.close_session()
    # And they read it from their disks.
    ensemble.restart(1)
    ensemble.wait_all()
    for seat in ensemble:
        there = seat.connect()
        there.call("sync", "/")
        assert there.call("exists", "/q/last", False).err == 0
        there.close_session()
        assert "Severe unrecoverable error" not in seat.log()
