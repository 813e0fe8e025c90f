"""A write load on an ensemble, and the proof that nothing acknowledged was lost.

Every `Writer` is one session that works under a znode of its own, several requests in flight, on any member that
lets it in; when its connection breaks it re-attaches elsewhere, as clients do. It notes what was acknowledged. A
request whose connection broke before the answer is *unknown*: done or not done, both are right.

What is checked while it runs: sequential names are unique; a session's read shows its own writes; no reply's zxid
goes back. Afterwards, by `verify`, on every member: every acknowledged write is there with its zxid, every
acknowledged delete holds, multis happened whole or not at all, ephemerals live as long as their sessions and no
longer, and the trees of all members are equal in paths, data, ACLs and every field of the Stat.
"""

import random
import threading
import time

import raw
import tree

IN_FLIGHT = 4
PAUSE_S = 0.01
# A member that does not answer for so long is left: frozen, or without a leader.
ANSWER_LIMIT_S = 5.0
LONG_MS, SHORT_MS = 40_000, 3_000
# Every member writes its own configuration text here, not by transactions.
OWN_TO_EACH = "/zookeeper/config"
PRESENT, UNKNOWN, GONE = "present", "unknown", "gone"


class Lost(Exception):
    """A promise was broken; the text says which."""


class Node:
    """What a writer knows about one path."""

    def __init__(self, state, owner=0, czxid=None):
        self.state, self.owner, self.czxid = state, owner, czxid


class Names:
    """Sequential names handed out under the parent that all writers share."""

    def __init__(self):
        self.lock, self.seen = threading.Lock(), set()

    def add(self, path):
        with self.lock:
            if path in self.seen:
                raise Lost(f"{path} was handed out twice")
            self.seen.add(path)


class Writer(threading.Thread):
    """One session after the other, one connection at a time."""

    def __init__(self, number, ensemble, names, rng, timeout_ms):
        super().__init__(daemon=True)
        self.number, self.names, self.random, self.timeout_ms = number, names, rng, timeout_ms
        seats = list(ensemble)
        first = number % len(seats)
        self.seats = seats[first:] + seats[:first]
        self.root = f"/load/w{number}"
        self.nodes = {}
        self.session, self.password, self.zxid = 0, b"\0" * 16, 0
        self.ended_sessions, self.kept = set(), True
        self.sent = self.acknowledged = self.made = 0
        self.multi_acknowledged = 0
        self.unknown_sequential = self.unknown_shared = 0
        # Whether the end of the session was asked for and is not answered.
        self.exact = self.leaving = False
        self.acks, self.attached, self.expired = 0, 0, 0
        # When the session last heard of a server, and where it was attached when.
        self.heard, self.history = time.monotonic(), []
        self.longest_gap_s, self.last_ack = 0.0, None
        self.stopping = threading.Event()
        self.error = None
        self.conn = None

    # ---- connections

    def run(self):
        try:
            while True:
                self.attach()
                try:
                    self.work()
                    return
                except (raw.Closed, OSError):
                    self.conn.drop()
        except BaseException as error:
            self.error = error

    def attach(self):
        """Finds a member that takes the session; a new session if the old one has expired."""
        at, limit = 0, time.monotonic() + 90
        while True:
            seat, at = self.seats[at % len(self.seats)], at + 1
            try:
                conn = raw.Connection(seat.client, timeout_s=ANSWER_LIMIT_S, timeout_ms=self.timeout_ms, session=self.session,
                                      password=self.password, last_zxid=self.zxid)
            except (raw.Closed, OSError):
                if time.monotonic() > limit:
                    raise Lost(f"writer {self.number} found no member in 90 s") from None
                time.sleep(0.05)
                continue
            if conn.session == 0:
                conn.drop()
                silent_s = time.monotonic() - self.heard
                if silent_s < self.timeout_ms / 1000 - 0.2 and not self.leaving:
                    raise Lost(f"{seat} refused session {self.session:#x} {silent_s:.2f} s after its last sign of life, "
                               f"its timeout is {self.timeout_ms} ms\n{self.history}\n")
                self.end_session()
                self.expired += 1
                continue
            if self.session and conn.session != self.session:
                raise Lost(f"session {self.session:#x} came back as {conn.session:#x}")
            # Requests are counted through the whole life of a client, as Apache's own clients do: members match
            # commits with what waits by session and number.
            if self.conn is not None:
                conn.next_xid = self.conn.next_xid
            self.session, self.password, self.conn = conn.session, conn.password, conn
            self.exact = self.leaving = False
            self.attached += 1
            self.heard = time.monotonic()
            self.history.append((time.strftime("%T"), round(time.time() % 1, 3), seat, hex(self.session)))
            return

    def end_session(self):
        """The session is over; so are its ephemerals."""
        self.ended_sessions.add(self.session)
        for node in self.nodes.values():
            if node.owner and node.owner == self.session:
                node.state = GONE
        self.session, self.password = 0, b"\0" * 16

    # ---- the load

    def work(self):
        waiting = []
        try:
            while not self.stopping.is_set():
                while len(waiting) < IN_FLIGHT:
                    waiting.append(self.ask())
                self.take(waiting)
                time.sleep(PAUSE_S)
                if self.random.random() < 0.002:
                    self.change_session(waiting)
            while waiting:
                self.take(waiting)
        finally:
            for _, _, lost in waiting:
                lost()

    def take(self, waiting):
        xid, then, _ = waiting[0]
        reply = self.conn.reply(xid)
        waiting.pop(0)
        if reply.zxid > 0:
            if reply.zxid < self.zxid:
                raise Lost(f"writer {self.number}: {reply} after zxid {self.zxid:#x}")
            self.zxid = reply.zxid
        then(reply)
        now = self.heard = time.monotonic()
        if self.last_ack is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_ack)
        self.last_ack = now
        self.acks += 1

    def change_session(self, waiting):
        """Closes the session, with an answer, and goes on with a new one."""
        while waiting:
            self.take(waiting)
        self.leaving = True
        self.conn.close_session()
        self.end_session()
        self.attach()

    def ask(self):
        """Sends a random request; returns (xid, what to do with the reply, what to do without one)."""
        kinds = [(35, self.set_counter), (10, self.create_sequential), (5, self.create_shared), (10, self.create_plain),
                 (8, self.delete), (10, self.create_ephemeral), (8, self.do_multi), (4, self.be_refused), (10, self.read)]
        return self.random.choices([ask for _, ask in kinds], [weight for weight, _ in kinds])[0]()

    def send(self, op, *values):
        data = raw.multi(values[0]) if op == "multi" else raw.body(op, *values)
        return self.conn.send(op, data)

    def set_counter(self):
        self.sent += 1
        value = self.sent

        def then(reply):
            self.expect(reply, 0)
            self.acknowledged = value
        xid = self.send("setData", self.root, b"%d" % value, -1)
        self.exact = True
        return xid, then, lambda: None

    def read(self):
        exact, low, high = self.exact, self.acknowledged, self.sent

        def then(reply):
            self.expect(reply, 0)
            value = int(reply.fields["data"])
            if not (value == high if exact else low <= value <= high):
                raise Lost(f"writer {self.number} read {value}; {low} was acknowledged, {high} sent, exact: {exact}")
        return self.send("getData", self.root, False), then, lambda: None

    def payload(self):
        return self.random.choice([None, b"", self.random.randbytes(self.random.randrange(1, 400))])

    def create(self, op, path, flags, node):
        """Asks for one znode; `node` becomes known under the name that comes back."""
        node.state = UNKNOWN
        values = [path, self.payload(), raw.OPEN_ACL, flags] + ([10**10] if op == "createTTL" else [])
        if not flags & 2 or op == "createTTL":
            self.nodes[path] = node

        def then(reply):
            self.expect(reply, 0)
            made = reply.fields["path"]
            if flags & 2 and op != "createTTL":
                self.names.add(made)
                self.nodes[made] = node
            elif made != path:
                raise Lost(f"{path} was created as {made}")
            node.state, node.czxid = PRESENT, reply.zxid
        return self.send(op, *values), then

    def fresh(self, letter):
        self.made += 1
        return f"{self.root}/{letter}{self.made}"

    def create_plain(self):
        op, flags = self.random.choice([("create", 0), ("create2", 0), ("createContainer", 4), ("createTTL", 5)])
        xid, then = self.create(op, self.fresh("p"), flags, Node(UNKNOWN))
        return xid, then, lambda: None

    def create_sequential(self):
        xid, then = self.create("create2", f"{self.root}/s-", 2, Node(UNKNOWN))

        def lost():
            self.unknown_sequential += 1
        return xid, then, lost

    def create_shared(self):
        flags = self.random.choice([2, 3])
        xid, then = self.create("create", "/load/shared/n-", flags, Node(UNKNOWN, self.session if flags & 1 else 0))

        def lost():
            self.unknown_shared += 1
        return xid, then, lost

    def create_ephemeral(self):
        xid, then = self.create("create", self.fresh("e"), 1, Node(UNKNOWN, self.session))
        return xid, then, lambda: None

    def delete(self):
        there = [path for path, node in self.nodes.items() if node.state == PRESENT]
        if not there:
            return self.create_plain()
        path = self.random.choice(there)
        node = self.nodes[path]
        node.state = UNKNOWN

        def then(reply):
            self.expect(reply, 0)
            node.state = GONE
        return self.send("delete", path, -1), then, lambda: None

    def do_multi(self):
        self.made += 1
        value, path = self.made, f"{self.root}/m{self.made}"
        node = self.nodes[path] = Node(UNKNOWN)
        node.multi = value

        def then(reply):
            self.expect(reply, 0)
            errors = [entry for entry in reply.fields["entries"] if entry[0] == "error"]
            if errors:
                raise Lost(f"a multi that must succeed was refused: {reply}")
            node.state, node.czxid = PRESENT, reply.zxid
            self.multi_acknowledged = value
        entries = [("create", path, b"%d" % value, raw.OPEN_ACL, 0), ("check", self.root, -1),
                   ("setData", f"{self.root}-multi", b"%d" % value, -1)]
        return self.send("multi", entries), then, lambda: None

    def be_refused(self):
        """Refused requests take a zxid too and must change nothing."""
        kind = self.random.randrange(3)
        if kind == 0:
            return self.send("create", self.root, b"", raw.OPEN_ACL, 0), lambda r: self.expect(r, -110), lambda: None
        if kind == 1:
            return self.send("setData", self.root, b"wrong", 10**8), lambda r: self.expect(r, -103), lambda: None
        path = self.fresh("x")
        self.nodes[path] = Node(GONE)
        entries = [("create", path, b"", raw.OPEN_ACL, 0), ("setData", self.root, b"wrong", 10**8)]

        def then(reply):
            self.expect(reply, 0)
            if {entry[0] for entry in reply.fields["entries"]} != {"error"}:
                raise Lost(f"a multi that must be refused was not: {reply}")
        return self.send("multi", entries), then, lambda: None

    def expect(self, reply, err):
        if reply.err != err:
            raise Lost(f"writer {self.number}: {reply}, expected error {err}")

    # ---- the end

    def check(self, nodes):
        """Looks for everything that this writer knows in a tree; returns how many writes were looked for."""
        value = int(nodes[self.root][0])
        if not self.acknowledged <= value <= self.sent:
            raise Lost(f"{self.root} holds {value}; {self.acknowledged} was acknowledged, {self.sent} sent")
        own = [path for path in nodes if path.startswith(self.root + "/")]
        strangers = [path for path in own if path not in self.nodes]
        sequential = [path for path in strangers if path.startswith(f"{self.root}/s-")]
        if len(strangers) != len(sequential) or len(sequential) > self.unknown_sequential:
            raise Lost(f"{sorted(strangers)[:5]} of {len(strangers)} were never asked for "
                       f"({self.unknown_sequential} sequential ones are unknown)")
        for path, node in self.nodes.items():
            self.check_node(path, node, nodes.get(path))
        multis = [node.multi for path, node in self.nodes.items() if hasattr(node, "multi") and path in nodes]
        applied = int(nodes[f"{self.root}-multi"][0])
        # A multi's znode may have been deleted since, so the counter may be ahead of the znodes.
        if applied < max([self.multi_acknowledged, *multis]):
            raise Lost(f"{self.root}-multi holds {applied}, multi {max(multis, default=0)} is half there, "
                       f"{self.multi_acknowledged} was acknowledged")
        return len(self.nodes) + value + applied

    def check_node(self, path, node, found):
        if found is None:
            if node.state == PRESENT and (not node.owner or node.owner not in self.ended_sessions):
                raise Lost(f"{path}, acknowledged at zxid {node.czxid:#x}, is missing")
            return
        stat = found[1]
        if node.state == GONE:
            raise Lost(f"{path} is there, but it was deleted, refused, or its session {node.owner:#x} is over: {stat}")
        if node.owner in self.ended_sessions and node.owner:
            raise Lost(f"{path} is there, but its session {node.owner:#x} is over: {stat}")
        if node.czxid is not None and stat["czxid"] != node.czxid:
            raise Lost(f"{path} was acknowledged at {node.czxid:#x} and has czxid {stat['czxid']:#x}")
        if stat["owner"] != node.owner and not path.startswith(f"{self.root}/p"):
            raise Lost(f"{path} belongs to {stat['owner']:#x}, not to {node.owner:#x}")


class Load:
    """Writers spread over an ensemble's members: `with Load(ensemble) as load:` and at the end `load.verify()`."""

    def __init__(self, ensemble, writers=6, seed=1):
        self.ensemble, self.names = ensemble, Names()
        conn = ensemble.leader().connect()
        for path in ["/load", "/load/shared"]:
            assert conn.create(path).err == 0
        self.writers = []
        for number in range(writers):
            assert conn.create(f"/load/w{number}", b"0").err == 0
            assert conn.create(f"/load/w{number}-multi", b"0").err == 0
            timeout_ms = SHORT_MS if number % 3 == 2 else LONG_MS
            self.writers.append(Writer(number, ensemble, self.names, random.Random(seed * 1000 + number), timeout_ms))
        conn.close_session()

    def start(self):
        for writer in self.writers:
            writer.start()
        self.progress()
        return self

    def check_errors(self):
        for writer in self.writers:
            if writer.error:
                raise writer.error

    def progress(self, acks=20, limit_s=60.0):
        """Waits until every writer has had `acks` more answers; returns the seconds that it took."""
        started = time.monotonic()
        before = [writer.acks for writer in self.writers]
        while any(writer.acks - count < acks for writer, count in zip(self.writers, before)):
            self.check_errors()
            if time.monotonic() - started > limit_s:
                stuck = [w.number for w, count in zip(self.writers, before) if w.acks - count < acks]
                raise Lost(f"writers {stuck} got less than {acks} answers in {limit_s} s\n{self.ensemble.story()}")
            time.sleep(0.02)
        return time.monotonic() - started

    def stop(self):
        """Ends the load: every writer gets the answers that it waits for and keeps its session, with no reader."""
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(120)
            if writer.is_alive():
                raise Lost(f"writer {writer.number} does not end\n{self.ensemble.story()}")
        self.check_errors()

    def verify(self) -> dict:
        """Stops the load, ends a third of the sessions by closing and a third by silence, and looks for everything
        on every running member. Returns counts for the report."""
        if not self.writers[0].stopping.is_set():
            self.stop()
        for writer in self.writers:
            kind = writer.number % 3
            if kind == 1:
                writer.conn.close_session()
            elif kind == 2:
                writer.conn.drop()
            if kind:
                writer.ended_sessions.add(writer.session)
        return self.verify_again()

    def verify_again(self) -> dict:
        """Looks for everything once more, after the load has ended."""
        self.wait_expired()
        trees = equal_trees(self.ensemble)
        nodes = next(iter(trees.values()))
        shared = [path for path in nodes if path.startswith("/load/shared/")]
        known = {path for writer in self.writers for path in writer.nodes}
        unknown = sum(writer.unknown_shared for writer in self.writers)
        strangers = [path for path in shared if path not in known]
        if len(strangers) > unknown:
            raise Lost(f"{len(strangers)} znodes under /load/shared, {unknown} are unknown: {strangers[:5]}")
        looked_for = sum(writer.check(nodes) for writer in self.writers)
        return {
            "writes looked for": looked_for, "znodes": len(nodes), "members": len(trees),
            "digests compared": equal_digests(self.ensemble),
            "attached": sum(writer.attached for writer in self.writers),
            "sessions expired": sum(writer.expired for writer in self.writers),
            "longest pause ms": round(1000 * max(writer.longest_gap_s for writer in self.writers)),
        }

    def wait_expired(self, limit_s=30.0):
        """Until no member knows an ephemeral of a session that is over."""
        ended = {session for writer in self.writers for session in writer.ended_sessions}
        limit = time.monotonic() + limit_s
        for seat in self.ensemble.running:
            while left := ended & ephemeral_owners(seat):
                if time.monotonic() > limit:
                    raise Lost(f"{seat} still has ephemerals of {', '.join(f'{s:#x}' for s in left)}, "
                               f"{limit_s} s after they ended\n{self.ensemble.story()}")
                time.sleep(0.2)

    def close(self):
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(20)
            if writer.conn:
                writer.conn.drop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


def ephemeral_owners(seat) -> set:
    """The sessions that own ephemerals, by the `dump` word."""
    text = seat.word("dump")
    assert "ephemeral nodes dump:" in text, text
    text = text.split("ephemeral nodes dump:")[1].split("Connections dump:")[0]
    return {int(line.rstrip(":"), 16) for line in text.splitlines() if line.startswith("0x")}


def synced_tree(seat) -> dict:
    """A member's whole tree, after a sync through it."""
    conn = seat.connect()
    assert conn.call("sync", "/").err == 0
    conn.close_session()
    return {path: node for path, node in tree.read(seat.client).items() if path != OWN_TO_EACH}


def equal_trees(ensemble) -> dict:
    """Reads every running member's tree and compares them all; returns them by seat number."""
    trees = {seat.number: synced_tree(seat) for seat in ensemble.running}
    first, *rest = trees
    for other in rest:
        if lines := tree.differences(trees[first], trees[other]):
            raise Lost(f"{ensemble[first]} and {ensemble[other]} hold different trees:\n  " + "\n  ".join(lines))
    return trees


def took_a_snapshot(apache) -> bool:
    """Whether the leader has sent it one; where no log says so (a release without a logging backend), perhaps."""
    log = apache.log()
    return "Getting a snapshot from leader" in log or "Peer state changed" not in log


def equal_digests(ensemble) -> int:
    """Compares the digests that members keep for the same zxid; returns how many were compared. A member that has
    itself found a digest that does not fit its tree is a failure too.

    Left out are Apache's members that were sent a snapshot since their start: a snapshot is taken while writes go
    on, so it holds some of what is sent behind it, and Apache compares digests on the way as if it did not."""
    kept, compared = {}, 0
    for seat in ensemble.running:
        if seat.kind == "apache" and took_a_snapshot(seat):
            continue
        if count := seat.metrics().get("digest_mismatches_count", 0):
            raise Lost(f"{seat} has counted {count:.0f} digest mismatches")
        for zxid, digest in seat.digests().items():
            if zxid in kept:
                compared += 1
                if kept[zxid][0] != digest:
                    raise Lost(f"at zxid {zxid:#x} {seat} has digest {digest}, {kept[zxid][1]} has {kept[zxid][0]}")
            else:
                kept[zxid] = digest, seat
    return compared
