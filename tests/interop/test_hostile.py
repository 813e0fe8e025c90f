"""Inputs that would stop a member: each is refused with a clear code, and an ordinary writer does not notice.

The limits are ours (docs/limits.md); Apache has none of them.
"""

import time
import urllib.request

import pytest

import hostile
import raw
from hostile import BAD_ARGUMENTS, AUTH_FAILED, INVALID_ACL, NOT_TRIED, Canary
from member import free_port

MB = 1 << 20


@pytest.fixture(scope="module")
def victim(server_kind, new_server):
    if server_kind == "apache":
        pytest.skip("limits of our own")
    return new_server().start()


def test_ephemerals_whose_names_are_together_too_long_for_one_transaction(victim):
    with Canary(victim.port):
        codes = hostile.long_ephemerals(victim.port)
    assert codes == [0, 0, BAD_ARGUMENTS, BAD_ARGUMENTS, BAD_ARGUMENTS]


def test_more_ephemerals_than_one_transaction_can_list(victim):
    with Canary(victim.port):
        taken, rest = hostile.many_ephemerals(victim.port)
    assert 7500 < taken < 7800 and rest == {BAD_ARGUMENTS}
    assert "jute.maxbuffer.extrasize" in victim.log_tail(200)
    # Whatever was made can be read again.
    victim.restart()
    conn = raw.Connection(victim.port)
    assert conn.create("/after-the-restart", flags=1).err == 0
    conn.close_session()


def test_acls_of_many_entries(victim):
    with Canary(victim.port):
        assert hostile.long_acls(victim.port) == [INVALID_ACL] * 6


def test_many_identities_on_one_connection(victim):
    with Canary(victim.port):
        # One more is the address.
        assert hostile.many_identities(victim.port) == (1023, AUTH_FAILED)


def test_many_lists_of_many_children_in_one_request(victim):
    hostile.make_wide(victim.port, "/wide")
    with Canary(victim.port):
        length, answered, rest = hostile.wide_multi_read(victim.port, "/wide")
    assert 3 * MB < length < 5 * MB and answered > 10 and rest == {NOT_TRIED}


def test_many_connections_that_do_not_read(victim, new_server):
    """Each within its own limit, together beyond theirs."""
    port = free_port()
    settings = {"zoometry.maxUnsentBytes": 8 * MB, "zoometry.metricsPort": port}
    server = new_server(settings).start()
    hostile.make_wide(server.port, "/wide")
    before = server.resident_bytes()

    def unread():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return hostile.unread_bytes(page.read().decode())

    # Who has read everything holds nothing, also while it is idle.
    reader = raw.Connection(server.port)
    assert reader.call("getChildren", "/wide", False).err == 0
    hostile.wait_until(lambda: unread() == 0, "nothing unread", 10)
    with Canary(server.port):
        crowd = [hostile.deaf(server.port, "/wide") for _ in range(12)]
        # A moment for all of them to be answered as far as they are.
        hostile.wait_until(lambda: unread() > 0, "unread replies")
        for _ in range(10):
            assert unread() < 16 * MB
            time.sleep(0.05)
        assert server.resident_bytes() - before < 64 * MB
        # Those who read are answered meanwhile.
        conn = raw.Connection(server.port)
        assert conn.call("exists", "/wide", False).err == 0
        conn.close_session()
        for conn in crowd:
            conn.drop()
        hostile.wait_until(lambda: unread() == 0, "what was unread to be let go")
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 5
