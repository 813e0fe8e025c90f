"""Small inputs that have brought a member down, and a writer that must not notice.

Each attack takes the port that is attacked and returns what it saw; the tests judge. They are small enough for every
run: with a fault of the old kind each still takes many times as long as is allowed here.
"""

import socket
import threading
import time

import raw

BAD_ARGUMENTS, INVALID_ACL, AUTH_FAILED, NO_NODE, NOT_TRIED, THROTTLED = -8, -114, -115, -101, -2, -127
# An ordinary write beside an attack; a debug build on a busy machine is slow, but not that slow.
WORST_WRITE_S = 5.0


class Canary:
    """An ordinary client that writes all the time, and remembers how long it waited at worst."""

    def __init__(self, port):
        self.port, self.worst_s, self.writes, self.failure = port, 0.0, 0, None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            conn = raw.Connection(self.port, timeout_s=60, timeout_ms=40_000)
            path = f"/canary-{conn.session:x}"
            assert conn.create(path).err == 0
            while not self.stopping.wait(0.01):
                started = time.monotonic()
                reply = conn.call("setData", path, b"sings", -1)
                self.worst_s = max(self.worst_s, time.monotonic() - started)
                assert reply.err == 0, reply
                self.writes += 1
            conn.close_session()
        except (OSError, AssertionError, raw.Closed) as failure:
            self.failure = failure

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.thread.join(60)
        if kind is None:
            assert self.failure is None and not self.thread.is_alive(), f"the canary is dead: {self.failure!r}"
            assert self.writes > 0
            assert self.worst_s < WORST_WRITE_S, f"a write took {self.worst_s:.1f} s"


def wait_until(condition, what, limit_s=60.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def long_ephemerals(port):
    """Five ephemerals with names of 900 kB, and the client vanishes: together more than one transaction may list.
    Returns the codes."""
    conn = raw.Connection(port, timeout_s=30, timeout_ms=2000)
    paths = [f"/{letter * 900_000}" for letter in "abcde"]
    codes = [conn.create(path, flags=1).err for path in paths]
    conn.drop()
    other = raw.Connection(port, timeout_s=30)
    wait_until(lambda: all(other.call("exists", path, False).err == NO_NODE for path in paths), "the session's end")
    other.close_session()
    return codes


def many_ephemerals(port, count=10_000, name_bytes=250):
    """Very many ephemerals of one session, which is closed. Returns how many were taken, and the codes of the rest."""
    conn = raw.Connection(port, timeout_s=60, timeout_ms=40_000)
    root = f"/fat-{conn.session:x}"
    assert conn.create(root).err == 0
    codes = []
    for first in range(0, count, 500):
        xids = []
        for number in range(first, min(first + 500, count)):
            path = f"{root}/{number:0{name_bytes}}"
            xids.append(conn.send("create", raw.body("create", path, b"", raw.OPEN_ACL, 1)))
        codes += [conn.reply(xid).err for xid in xids]
    assert conn.close_session().err == 0
    other = raw.Connection(port, timeout_s=30)
    assert other.call("getChildren", root, False).fields["children"] == []
    assert other.call("delete", root, -1).err == 0
    other.close_session()
    taken = codes.index(next(code for code in [*codes, None] if code != 0)) if any(codes) else count
    return taken, set(codes[taken:])


def long_acls(port, entries=40_000, creates=6):
    """Creates with an ACL of nearly a megabyte. Returns the codes."""
    conn = raw.Connection(port, timeout_s=120, timeout_ms=40_000)
    acl = [(31, "ip", f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}") for i in range(entries)]
    data = raw.body("create", "/long-acl", b"", acl, 0)
    xids = [conn.send("create", data) for _ in range(creates)]
    codes = [conn.reply(xid).err for xid in xids]
    conn.close_session()
    return codes


def many_identities(port, count=1500):
    """As many identities as are taken. Returns how many were, and the code of the first that was not."""
    conn = raw.Connection(port, timeout_s=60, timeout_ms=40_000)
    for number in range(count):
        packet = raw.body("auth", 0, "digest", b"u%07d:p" % number)
        code = conn.reply(conn.send("auth", packet, raw.AUTH_XID)).err
        if code != 0:
            assert conn.is_closed(10)
            return number, code
    conn.close_session()
    return count, 0


def make_wide(port, root, children=5000):
    """A znode with many children."""
    conn = raw.Connection(port, timeout_s=60, timeout_ms=40_000)
    assert conn.create(root).err == 0
    for first in range(0, children, 500):
        names = [f"{root}/member-{number:032}" for number in range(first, first + 500)]
        reply = conn.call("multi", [("create", name, b"", raw.OPEN_ACL, 0) for name in names])
        assert all(code == 0 for _, code, _ in reply.fields["entries"])
    conn.close_session()


def wide_multi_read(port, root, reads=2000):
    """One small request for the children of a wide znode, many times. Returns the reply's length, how many were
    answered, and the codes of the rest."""
    conn = raw.Connection(port, timeout_s=120, timeout_ms=40_000)
    reply = conn.call("multiRead", [("getChildren", root, False)] * reads)
    entries = reply.fields["entries"]
    assert reply.err == 0 and len(entries) == reads
    answered = sum(name == "getChildren" for name, _, _ in entries)
    conn.close_session()
    return len(reply.raw), answered, {fields["err"] for name, _, fields in entries[answered:]}


def deaf(port, root, requests=30):
    """A connection that asks for a wide znode's children again and again and reads nothing."""
    conn = raw.Connection(port, timeout_s=10, timeout_ms=40_000)
    # What the system keeps for it is none of the server's memory.
    conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    ask = raw.i32(1) + raw.i32(raw.OPS["getChildren"]) + raw.body("getChildren", root, False)
    conn.socket.sendall(raw.frame(ask) * requests)
    return conn


def unread_bytes(metrics_text):
    """zk_unsent_bytes of a Prometheus page."""
    line = next(line for line in metrics_text.splitlines() if line.startswith("zk_unsent_bytes"))
    return float(line.split()[-1])

