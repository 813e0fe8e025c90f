"""Corners of the client protocol where a server may not be narrower than Apache's; they pass with --server apache too."""

import socket
import struct

import pytest

import raw
from member import four_letter_word

AUTH_FAILED, UNIMPLEMENTED = -115, -6
NOT_LISTED = "{} is not executed because it is not in the whitelist.\n"


def auth(conn, scheme, data, xid=raw.AUTH_XID):
    return conn.reply(conn.send("auth", raw.body("auth", 0, scheme, data), xid))


@pytest.mark.parametrize("xid", [raw.AUTH_XID, 0, 7, -9, 2**31 - 1])
def test_an_auth_packets_xid_comes_back(server, xid):
    """The Rust crate zookeeper-client numbers it as any other request, and reconnects for ever without this."""
    conn = raw.Connection(server.port)
    reply = auth(conn, "digest", b"u:p", xid)
    assert (reply.xid, reply.err, reply.zxid) == (xid, 0, 0)
    assert conn.call("exists", "/", False).err == 0
    assert auth(conn, "nonsense", b"", xid).err == AUTH_FAILED
    assert conn.is_closed()


@pytest.mark.parametrize("credentials", [b"", b":", b":p", b"u", b"u:p:q"])
def test_odd_digest_credentials(server, credentials):
    """`addauth digest ""` is somebody, and somebody else than the next one."""
    path = f"/odd-{credentials.hex()}"
    owner, other = raw.Connection(server.port), raw.Connection(server.port)
    assert auth(owner, "digest", credentials).err == 0
    assert owner.create(path, b"x", [(31, "auth", "")]).err == 0
    assert owner.call("getData", path, False).err == 0
    assert auth(other, "digest", b"x" + credentials).err == 0
    assert other.call("getData", path, False).err == -102
    for conn in (owner, other):
        conn.close_session()


def test_null_credentials_are_nobody(server):
    conn = raw.Connection(server.port)
    assert auth(conn, "ip", None).err == 0
    conn.send("auth", raw.body("auth", 0, "digest", None), raw.AUTH_XID)
    try:
        assert conn.receive().err == AUTH_FAILED
    except raw.Closed:
        pass  # 3.8.0 does not say why.
    assert conn.is_closed()


@pytest.mark.parametrize("read_only", [None, False, True])
def test_connect_requests_of_every_age(server, read_only):
    """The readOnly byte comes back to those that sent one."""
    conn = raw.Connection(server.port, read_only=read_only)
    assert conn.answer.get("readOnly") is (None if read_only is None else False)
    assert conn.call("exists", "/", False).err == 0
    conn.close_session()


@pytest.mark.parametrize("timeout_ms", [-(2**31), -1, 0, 2**31 - 1])
def test_asked_timeouts(server, timeout_ms):
    conn = raw.Connection(server.port, timeout_ms=timeout_ms)
    assert 0 < conn.timeout_ms <= 60_000
    conn.close_session()


@pytest.mark.parametrize("xid", [0, -3, -1000, -(2**31), 2**31 - 1])
def test_any_xid_comes_back(server, xid):
    conn = raw.Connection(server.port)
    assert conn.reply(conn.send("exists", raw.body("exists", "/", False), xid)).err == 0
    assert conn.reply(conn.send("sync", raw.body("sync", "/"), xid)).err == 0
    conn.close_session()


def test_a_ping_is_answered_as_a_ping(server):
    conn = raw.Connection(server.port)
    conn.send("ping", xid=77)
    assert conn.receive().xid == raw.PING_XID
    conn.close_session()


@pytest.mark.parametrize("op", [-2, 10, 99, 108, 2**31 - 1])
def test_unknown_operations(server, op):
    """The connection ends; whether the refusal before it arrives is a matter of luck."""
    conn = raw.Connection(server.port)
    conn.send(op)
    try:
        reply = conn.receive()
        assert (reply.err, reply.zxid) == (UNIMPLEMENTED, -1)
    except raw.Closed:
        pass
    assert conn.is_closed()


@pytest.mark.parametrize("op", ["setWatches", "setWatches2"])
def test_watches_are_set_again(server, op):
    conn = raw.Connection(server.port)
    path = f"/again-{op}"
    lists = [[], [path], []] + ([[], []] if op == "setWatches2" else [])
    assert conn.call(op, 2**62, *lists).err == 0
    assert conn.create(path).err == 0
    assert [event.fields["path"] for event in conn.drain()] + [event.fields["path"] for event in conn.events]
    conn.close_session()


def test_a_sasl_token_does_not_end_the_session(server):
    """Nobody is logged in by it; Apache without SASL answers with a null token, we with a refusal."""
    conn = raw.Connection(server.port)
    reply = conn.call("sasl", b"")
    assert reply.err == AUTH_FAILED or reply.fields == {"token": None}
    assert conn.call("exists", "/", False).err == 0
    conn.close_session()


# ---- four-letter words

@pytest.fixture(scope="module")
def guarded(new_server):
    """A server that lets one word through, and that is not srvr."""
    server = new_server(settings={"4lw.commands.whitelist": "ruok"}).start()
    yield server
    server.stop()


def test_words_that_are_not_listed(guarded):
    """`srvr` is let through all the same, and stmk is refused without its argument."""
    assert four_letter_word(guarded.port, "ruok") == "imok"
    assert "Mode: standalone" in four_letter_word(guarded.port, "srvr")
    for word in ("stat", "mntr", "conf", "envi", "stmk", "gtmk", "isro", "dirs", "hash", "wchs"):
        assert four_letter_word(guarded.port, word) == NOT_LISTED.format(word)


def test_the_trace_mask(server):
    def ask(payload):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as conn:
            conn.sendall(payload)
            return b"".join(iter(lambda: conn.recv(4096), b""))
    before = int(ask(b"gtmk"))
    assert ask(b"stmk" + struct.pack(">q", 0x15)) == b"21"
    assert ask(b"gtmk") == b"21"
    assert ask(b"stmk" + struct.pack(">q", before)) == str(before).encode()


def test_the_environment(server):
    lines = dict(line.split("=", 1) for line in four_letter_word(server.port, "envi").splitlines()[1:])
    assert lines["zookeeper.version"].startswith("3.") and lines["java.version"]


# ---- digests

def test_another_digest_algorithm(new_server):
    server = new_server(settings={"DigestAuthenticationProvider.digestAlg": "SHA-256"}).start()
    conn = raw.Connection(server.port)
    assert auth(conn, "digest", b"u:p").err == 0
    assert conn.create("/sha", b"", [(31, "auth", "")]).err == 0
    acl = conn.call("getACL", "/sha").fields["acl"]
    assert acl == [(31, "digest", "u:/Y8xRBngpX5duYn15uUqIRaIaCviy5TEwSk419hCwuA=")]
    conn.close_session()
    server.stop()


# ---- refused by the member that receives it

def test_eager_acl_checks(new_server, server_kind):
    """A write that the ACL forbids takes no zxid; one behind a change of the ACL is judged by the new one."""
    if server_kind == "apache":
        pytest.skip("Apache's standalone server does not look at enableEagerACLCheck, its quorum members do")
    server = new_server(settings={"enableEagerACLCheck": "true"}).start()
    conn, nobody = raw.Connection(server.port), raw.Connection(server.port)
    assert auth(conn, "digest", b"u:p").err == 0
    assert conn.create("/mine", b"", [(31, "auth", "")]).err == 0
    before = four_letter_word(server.port, "srvr").partition("Zxid: ")[2].split()[0]
    for op, *values in (("create", "/mine/a", b"", raw.OPEN_ACL, 0), ("delete", "/mine/a", -1),
                        ("setData", "/mine", b"", -1), ("setACL", "/mine", raw.OPEN_ACL, -1)):
        assert nobody.call(op, *values).err == -102, op
    assert nobody.call("setData", "/nothing", b"", -1).err == -101
    assert four_letter_word(server.port, "srvr").partition("Zxid: ")[2].split()[0] == hex(int(before, 16) + 1)
    opened = conn.send("setACL", raw.body("setACL", "/mine", raw.OPEN_ACL, -1))
    written = conn.send("setData", raw.body("setData", "/mine", b"x", -1))
    assert [conn.reply(opened).err, conn.reply(written).err] == [0, 0]
    assert nobody.call("setData", "/mine", b"y", -1).err == 0
    server.stop()
