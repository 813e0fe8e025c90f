"""Filling a server with everything it can hold, and reading a whole tree back for comparison."""

import collections
import random

import raw

SUPER = b"super:secret"
# Requests in flight while filling and reading.
WINDOW = 200


class Pipeline:
    """Requests on one connection, WINDOW in flight; every reply goes to its own function, in order."""

    def __init__(self, conn):
        self.conn = conn
        self.waiting = collections.deque()

    def ask(self, op, data, then):
        self.waiting.append((self.conn.send(op, data), then))
        if len(self.waiting) >= WINDOW:
            self.take()

    def take(self):
        xid, then = self.waiting.popleft()
        then(self.conn.reply(xid))

    def drain(self):
        while self.waiting:
            self.take()


def read(port) -> dict:
    """The whole tree: path -> (data, every field of the Stat, ACL)."""
    conn = raw.Connection(port, timeout_s=60, timeout_ms=60_000)
    assert conn.call("auth", 0, "digest", SUPER).err == 0
    nodes, line = {}, Pipeline(conn)
    level = ["/"]
    while level:
        below = []

        def children(path, reply):
            assert reply.err == 0, (path, reply)
            base = path.rstrip("/")
            below.extend(f"{base}/{name}" for name in reply.fields["children"])

        def data(path, reply):
            assert reply.err == 0, (path, reply)
            nodes[path] = [reply.fields["data"], reply.fields["stat"]]

        def acl(path, reply):
            assert reply.err == 0, (path, reply)
            nodes[path].append(reply.fields["acl"])
        for path in level:
            line.ask("getData", raw.body("getData", path, False), lambda reply, path=path: data(path, reply))
            line.ask("getACL", raw.body("getACL", path), lambda reply, path=path: acl(path, reply))
            line.ask("getChildren2", raw.body("getChildren2", path, False), lambda reply, path=path: children(path, reply))
        line.drain()
        level = below
    # Closing takes a zxid, and every reader takes the same number of them.
    conn.close_session()
    return nodes


def differences(left: dict, right: dict, limit=10) -> list:
    """What two trees do not have in common, as lines."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        one, other = left.get(path), right.get(path)
        if one is None or other is None:
            lines.append(f"{path}: only {'right' if one is None else 'left'}")
        elif one != other:
            for name, a, b in zip(("data", "stat", "acl"), one, other):
                if a != b:
                    if name == "stat":
                        a, b = ({k: v for k, v in x.items() if a[k] != b[k]} for x in (a, b))
                    lines.append(f"{path}: {name} {a} / {b}")
        if len(lines) >= limit:
            return lines + ["..."]
    return lines


class Filler:
    """Random writes under `root`: all kinds of nodes, ACLs, multis, failures. `kept` sessions stay open on the
    server, with their ephemerals, when the connections are dropped."""

    def __init__(self, server, root, seed, sessions=4):
        self.random = random.Random(seed)
        self.root = root
        self.conns = [raw.Connection(server.port, timeout_s=60, timeout_ms=200_000) for _ in range(sessions)]
        self.lines = [Pipeline(conn) for conn in self.conns]
        for number, conn in enumerate(self.conns):
            assert conn.call("auth", 0, "digest", f"user{number}:pw".encode()).err == 0
        self.paths = [root]
        self.counts = collections.Counter()
        assert self.conns[0].create(root, b"root").err == 0

    def note(self, op):
        def then(reply):
            self.counts[op, reply.err] += 1
            if reply.err == 0 and op.startswith("create"):
                self.paths.append(reply.fields["path"])
        return then

    def run(self, writes):
        for _ in range(writes):
            op, data = self.write()
            self.random.choice(self.lines).ask(op, data, self.note(op))
        for line in self.lines:
            line.drain()

    def acl(self):
        return self.random.choice([
            raw.OPEN_ACL, raw.OPEN_ACL, raw.OPEN_ACL, [(31, "auth", ""), (1, "world", "anyone")],
            [(31, "ip", "127.0.0.1"), (1, "world", "anyone")], [(31, "digest", "a:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")],
        ])

    def write(self):
        pick = self.random
        kind = pick.randrange(100)
        parent = pick.choice(self.paths[-5000:] if pick.random() < 0.7 else self.paths[:50])
        path = f"{parent.rstrip('/')}/n{pick.randrange(1_000_000)}"
        data = pick.choice([None, b"", b"x" * pick.randrange(1, 300), pick.randbytes(100)])
        if kind < 60:
            flags = pick.choice([0, 0, 0, 0, 2, 1, 3])
            return "create2", raw.body("create2", path, data, self.acl(), flags)
        if kind < 63:
            return "createTTL", raw.body("createTTL", path, data, self.acl(), pick.choice([5, 6]), 10**9)
        if kind < 66:
            return "createContainer", raw.body("createContainer", path, data, self.acl(), 4)
        if kind < 80:
            return "setData", raw.body("setData", pick.choice(self.paths), data, pick.choice([-1, -1, -1, 0, 3]))
        if kind < 84:
            return "setACL", raw.body("setACL", pick.choice(self.paths), self.acl(), -1)
        if kind < 88:
            return "delete", raw.body("delete", pick.choice(self.paths[1:] or ["/none"]), -1)
        entries = [("create", path, data, raw.OPEN_ACL, pick.choice([0, 0, 1, 2])), ("setData", parent, data, -1)]
        if pick.random() < 0.3:
            entries.append(("check", self.root, 10**6))
        elif pick.random() < 0.5:
            entries += [("create", path + "x", b"", raw.OPEN_ACL, 0), ("delete", path + "x", -1)]
        return "multi", raw.multi(entries)

    def leave(self):
        """Drops the connections; the sessions live on. Returns them: (id, password, ephemerals)."""
        left = []
        for conn in self.conns:
            paths = conn.call("getEphemerals", "/").fields["paths"]
            left.append((conn.session, conn.password, sorted(paths)))
            conn.drop()
        return left
