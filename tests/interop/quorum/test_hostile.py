"""Inputs that would split an ensemble: what its leader makes, all others can receive, ours and Apache's."""

import pytest

import hostile
from hostile import BAD_ARGUMENTS, INVALID_ACL, NOT_TRIED, Canary


@pytest.mark.parametrize("third", ["ours", "apache"])
def test_nobody_is_lost_and_nobody_elected(new_ensemble, server_kind, third):
    if server_kind == "apache":
        pytest.skip("limits of our own")
    kinds = {1: "apache" if third == "apache" else server_kind, 2: server_kind, 3: server_kind}
    ensemble = new_ensemble(kinds).start_led_by(3)
    leader, follower, witness = (ensemble[number] for number in (3, 2, 1))
    hostile.make_wide(follower.client, "/wide")
    epoch = leader.zxid() >> 32
    with Canary(witness.client):
        assert hostile.long_ephemerals(follower.client) == [0, 0] + [BAD_ARGUMENTS] * 3
        taken, rest = hostile.many_ephemerals(follower.client)
        assert 7500 < taken < 7800 and rest == {BAD_ARGUMENTS}
        assert hostile.long_acls(follower.client) == [INVALID_ACL] * 6
        assert hostile.wide_multi_read(follower.client, "/wide")[2] == {NOT_TRIED}
    assert leader.zxid() >> 32 == epoch, "there was an election"
    assert (leader.mode(), follower.mode(), witness.mode()) == ("leader", "follower", "follower")
    # And whoever comes again can read what they have.
    witness.stop()
    witness.start()
    hostile.wait_until(lambda: witness.zxid() == leader.zxid(), "the same state")


def test_a_session_that_owns_too_much_is_ended_in_parts(new_ensemble, server_kind):
    """A leader with wider limits, as Apache's are, lets a session own more than its end can list. The next leader ends
    it all the same, and an Apache follower takes what it makes of it."""
    if server_kind == "apache":
        pytest.skip("limits of our own")
    ensemble = new_ensemble({1: "apache", 2: server_kind, 3: server_kind})
    ensemble[3].settings["jute.maxbuffer.extrasize"] = 8 << 20
    ensemble.start_led_by(3)
    conn = ensemble[3].connect(timeout_ms=3000)
    paths = [f"/{number:090000}" for number in range(40)]
    assert [conn.create(path, flags=1).err for path in paths] == [0] * len(paths)
    ensemble[3].kill()
    leader = ensemble.leader()
    assert leader.number == 2
    for seat in (ensemble[2], ensemble[1]):
        other = seat.connect()
        gone = [hostile.NO_NODE] * len(paths)
        hostile.wait_until(lambda: [other.call("exists", path, False).err for path in paths] == gone, f"{seat}")
        other.close_session()
    epoch = leader.zxid() >> 32
    ensemble[3].start()
    ensemble[1].stop()
    ensemble[1].start()
    hostile.wait_until(lambda: len({seat.zxid() for seat in ensemble}) == 1, "the same state")
    assert leader.zxid() >> 32 == epoch, "there was another election"
