"""A parent's counter behind 2147483647, in ensembles of both programs.

ZooKeeper's documentation lets it go on with −2147483648. Ours does; Apache's members keep 2147483647, and an Apache
leader gives the same sequential name for ever. `docs/ensemble.md` says what that means for a mixed ensemble.
"""

import time

import prepared

NODE_EXISTS, SEQUENTIAL, LIMIT_S = -110, 2, 30


def start(new_ensemble, kinds, leader):
    ensemble = new_ensemble(kinds, properties=prepared.PROPERTIES)
    for seat in ensemble:
        prepared.write(seat.data_dir, prepared.at_the_counters_end())
    ensemble.start_led_by(leader)
    return ensemble


def next_name(conn):
    reply = conn.create("/wrap/s-", flags=SEQUENTIAL)
    return reply.fields["path"].removeprefix("/wrap/s-") if reply.err == 0 else reply.err


def parent(seat, children):
    """The parent's cversion as it is stored, and its pzxid, once this member knows of so many children."""
    conn, limit = seat.connect(), time.monotonic() + LIMIT_S
    while (stat := conn.call("exists", "/wrap", False).fields["stat"])["children"] < children:
        assert time.monotonic() < limit, f"{seat} is behind: {stat}"
        time.sleep(0.02)
    conn.close_session()
    # Clients see twice the creations minus the children, in 32 bits.
    stored = [cversion for cversion in (2**31 - 1, *range(-(2**31), -(2**31) + 9))
              if (cversion * 2 - stat["children"] + 2**31) % 2**32 - 2**31 == stat["cversion"]]
    return stored, stat["pzxid"]


def test_ours_goes_on_and_apaches_followers_stand_still(new_ensemble, ours):
    ensemble = start(new_ensemble, {1: "apache", 2: "apache", 3: ours}, leader=3)
    conn = ensemble[3].connect()
    names = [next_name(conn) for _ in range(4)]
    last = conn.create("/wrap/plain")
    assert last.err == 0
    if ours == "apache":
        assert names[:2] == ["2147483646", "2147483647"] and NODE_EXISTS in names[2:], names
        return
    assert names == ["2147483646", "2147483647", "-2147483648", "-2147483647"]
    stored, pzxid = parent(ensemble[3], 6)
    assert (-(2**31) + 3 in stored, pzxid) == (True, last.zxid)
    for seat in (ensemble[1], ensemble[2]):
        stored, pzxid = parent(seat, 6)
        # They live, have every child, and count no more.
        assert 2**31 - 1 in stored and pzxid < last.zxid, (seat, stored, pzxid)
    conn.close_session()


def test_below_an_apache_leader_pzxid_goes_on(new_ensemble, ours):
    ensemble = start(new_ensemble, {1: ours, 2: ours, 3: "apache"}, leader=3)
    conn = ensemble[3].connect()
    assert [next_name(conn) for _ in range(3)] == ["2147483646", "2147483647", NODE_EXISTS]
    for name in ("a", "b"):
        last = conn.create(f"/wrap/{name}")
        assert last.err == 0
        if ours != "apache":
            # A child watch that is set again must hear of it.
            assert parent(ensemble[1], 4 + (name == "b"))[1] == last.zxid
    conn.close_session()
