#!/usr/bin/env python3
"""The same random requests to two servers, and every reply compared, byte for byte.

    differential.py                                Apache against ours, 20 seeds of 150 steps
    differential.py --left apache --right apache   proves that the comparison itself is quiet
    differential.py --seed 7 --steps 400 --verbose

A seeded script of raw requests runs step by step on both servers over three connections: all operations,
all create modes, sequential names, ACLs and identities, multis, watches of every kind, bursts of pipelined
requests, closes, drops, re-attached sessions, malformed and refused requests. After each step every
connection is pinged, so that notifications are compared too, in their order. Both servers start empty, so
even zxids must be equal.

What may differ is taken out first, and nothing else: session ids become the names of their connections,
times must be sane and consistent, children and identity sets are sorted (Apache answers in hash order).

Known deviations, by reference version (see the list DEVIATIONS): what Apache 3.8 does otherwise than 3.9,
which is what we follow, is not asked when the reference is 3.8. Debian has 3.8.0; with ZOOKEEPER_HOME
pointing at an unpacked 3.9 everything is asked.
"""

import argparse
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

import raw
from apache import Apache
from member import four_letter_word
from zoometry import Zoometry

KINDS = {"apache": Apache, "zoometry": Zoometry}
SETTINGS = {
    "extendedTypesEnabled": "true",
    "DigestAuthenticationProvider.superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
    # No session may expire while a seed runs.
    "minSessionTimeout": 100_000,
    "maxSessionTimeout": 200_000,
}
# The container manager would delete at times of its own.
PROPERTIES = {"znode.container.checkIntervalMs": 86_400_000}

DEVIATIONS = """
Apache 3.8 differs from 3.9.5 (which we follow) in these; they are not asked when 3.8 is the reference:
 - the zxid of notifications is -1 (reference section 4.3): compared as "any"
 - create2 inside a multi is answered as create (3.7)
 - removeWatches types 4 and 5, checkWatches likewise (4.5)
 - several watch modes of one connection on one path: the last replaces the others (4.1)
 - exists and events without READ are refused and withheld only since 3.8.4: ACLs always let everybody read
 - checkWatches tells of watches that are long gone
 - full IPv6 text in ip ACLs is refused before 3.9.4 (7.3)
 - bad flags spoil a multi only when their turn comes; containers and TTL modes inside a multi (3.7)
We deviate from every Apache on purpose in these (3.12); they are not asked:
 - writes behind a setACL in one burst: as long as it is not applied, Apache checks them against the older list
 - createTTL with flags other than 5 and 6, or without a ttl in 1..2^40-1: always refused with -8
 - deleteContainer from a client: refused with -6
 - createSession from a client: refused with -6 and a close
 - write bodies that do not decode: refused with -5
"""

LABELS = ("x", "y", "z")
NAMES = ("a", "b", "c", "e")
UNDER_ROOT = [""] + [f"/{n}" for n in NAMES] + [f"/{n}/{m}" for n in NAMES[:3] for m in NAMES] + ["/a/b/c"]
BAD_PATHS = ["", "d", "/d/", "//d", "/d//a", "/d/.", "/d/../a", "/d/\x01", "/d/\ud7ff", "/d/\ue000", "/d/\x00z",
             "/d/\x7f", "/d/\uf900", "/d/\ufff0", "/d/\u00a0 x"]
SYSTEM = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/zookeeper/none"]
USERS = {"u": b"u:p", "v": b"v:q", "super": b"super:secret"}
HASHES = {"u": "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=", "v": "v:Mfy8apI9YguGKmh+AxUmAFSwkII="}


# ---- one server and its connections

class Side:
    def __init__(self, server):
        self.server = server
        self.open = {}
        self.sessions = {}
        self.passwords = {}
        self.all_sessions = []
        self.last_zxid = 0
        self.base = None

    def connect(self, label, reattach, options):
        """Opens a connection; returns what was seen."""
        options = dict(options)
        if "ahead" in options:
            options["last_zxid"] = self.base + options.pop("ahead")
        if reattach and label in self.passwords:
            options["session"], password = self.passwords[label]
            options.setdefault("password", password)
        conn = raw.Connection(self.server.port, connect=False)
        try:
            fields = conn.connect(**{"timeout_ms": 30000, **options})
        except raw.Closed:
            return ["refused"]
        seen = {"op": "connect", "err": 0, "timeout": fields["timeout"], "passwords": len(fields["password"] or b""),
                "readOnly": fields.get("readOnly", "absent"), "session": fields["session"] != 0}
        if not fields["session"]:
            seen["closed"] = conn.is_closed()
            return [seen]
        if label in self.open:
            # The session moved here; its older connection must be closed by the server.
            seen["old one closed"] = self.open[label].is_closed()
            self.forget(label)
        self.open[label] = conn
        self.passwords[label] = (fields["session"], fields["password"])
        self.all_sessions.append(self.passwords[label])
        self.sessions.setdefault(fields["session"], f"{label}{len(self.sessions)}")
        seen["name"] = self.sessions[fields["session"]]
        if self.base is None:
            self.base = conn.call("ping").zxid
        return [seen]

    def session(self, number):
        return self.sessions.get(number, number) if number else 0

    def zxid(self, number):
        return number - self.base if number > 0 else number

    def request(self, label, requests):
        """Sends one request or a burst, waits for all replies; returns what came, events included."""
        conn, seen = self.open[label], []
        try:
            waiting = []
            for op, data, xid in requests:
                if callable(data):
                    data = data(self)
                waiting.append(conn.send(op, data, xid))
            for _ in waiting:
                while True:
                    reply = conn.receive()
                    seen.append(self.normal(reply))
                    self.last_zxid = max(self.last_zxid, reply.zxid)
                    if reply.op != "notification":
                        break
        except (raw.Closed, TimeoutError) as error:
            seen.append("closed" if isinstance(error, raw.Closed) else "no answer")
            self.forget(label)
        return seen

    def forget(self, label):
        self.open.pop(label).drop()

    def watch_close(self, label, seen):
        """An error reply of an odd request or an auth is followed by a close: wait for it."""
        if label in self.open and seen and isinstance(seen[-1], dict) and seen[-1]["err"]:
            if self.open[label].is_closed(1.0):
                seen.append("then closed")
                self.forget(label)

    def close_all(self):
        """Ends every session that this side ever opened, so that none expires later."""
        for label in list(self.open):
            self.forget(label)
        for number, password in self.all_sessions:
            try:
                conn = raw.Connection(self.server.port, session=number, password=password)
                if conn.session:
                    conn.close_session()
            except raw.Closed:
                pass

    def pings(self):
        """Everything that has been sent to any connection by now, per connection."""
        seen = {}
        for label in sorted(self.open):
            seen[label] = self.request(label, [("ping", b"", raw.PING_XID)])
        return seen

    # -- taking out what may differ

    def normal(self, reply):
        zxid = "any" if reply.op == "notification" else self.zxid(reply.zxid)
        event_zxid = self.zxid(reply.zxid) if reply.op == "notification" else None
        return {"op": reply.op, "xid": reply.xid, "zxid": zxid, "event_zxid": event_zxid, "err": reply.err,
                **self.fields(reply.fields)}

    def fields(self, fields):
        return {name: self.value(name, value) for name, value in fields.items()}

    def value(self, name, value):
        if name == "stat":
            return self.stat(value)
        if name in ("children", "paths") and isinstance(value, list):
            return sorted(value)
        if name == "who":
            return sorted(value)
        if name == "entries":
            return [(op, err, self.fields(entry)) for op, err, entry in value]
        return value

    def stat(self, stat):
        stat = dict(stat)
        for name in ("czxid", "mzxid", "pzxid"):
            stat[name] = self.zxid(stat[name])
        stat["owner"] = self.session(stat["owner"])
        now = time.time() * 1000
        for name in ("ctime", "mtime"):
            if stat[name]:
                sane = now - 3_600_000 < stat[name] < now + 1000
                stat[name] = "now" if sane else stat[name]
        return stat


# ---- the script

class Script:
    """Draws steps from a seed. It learns what exists from the left side's replies."""

    def __init__(self, seed, old_reference):
        self.random = random.Random(seed)
        self.root = f"/d{seed}"
        self.paths = [self.root + path for path in UNDER_ROOT]
        self.old = old_reference
        self.known = []
        self.watch_modes = {}

    def one(self, *choices):
        return self.random.choice(choices)

    def chance(self, percent):
        return self.random.random() * 100 < percent

    def path(self):
        if self.chance(3):
            return self.random.choice(BAD_PATHS)
        if self.chance(4):
            return self.random.choice(SYSTEM)
        if self.known and self.chance(15):
            return self.random.choice(self.known[-20:])
        return self.random.choice(self.paths)

    def good_path(self):
        return self.random.choice(self.paths)

    def data(self):
        return self.one(None, b"", b"x", b"hello", bytes(self.random.randrange(256) for _ in range(20)))

    def version(self):
        return self.one(-1, -1, -1, 0, 1, 2, 5, -2)

    def flags(self):
        return self.random.choice([0] * 8 + [1, 1, 2, 2, 3, 4, 5, 6, 7, -1])

    def acl(self):
        readable = [(1, "world", "anyone")] if self.old else []
        return self.some_acl() + readable

    def some_acl(self):
        if self.chance(75):
            return raw.OPEN_ACL
        perms = lambda: self.one(1, 2, 4, 8, 16, 31, 31, 3, 0, 63)  # noqa: E731
        entries = [
            (perms(), "world", "anyone"), (perms(), "auth", ""), (perms(), "digest", HASHES["u"]),
            (perms(), "digest", HASHES["v"]), (perms(), "ip", "127.0.0.1"), (perms(), "ip", "10.0.0.0/8"),
            (perms(), "ip", "127.0.0.0/8"),
        ]
        if not self.old:
            entries.append((perms(), "ip", "::1"))
        if self.chance(15):
            entries += [(31, "world", "nobody"), (31, "nosuch", "x"), (31, "digest", "nocolon"), (31, "ip", "nowhere"),
                        (31, "", ""), (31, "ip", "1.2.3.4/99"), (31, "digest", "a:b:c"), (31, "super", "x")]
        if self.chance(5):
            return []
        return [self.random.choice(entries) for _ in range(self.one(1, 1, 2, 3))]

    def create(self, inside=False):
        ops = ["create", "create", "createContainer"] if inside and self.old else ["create", "create2", "createContainer"]
        op = self.one(*ops, "createTTL")
        if op == "createTTL":
            flags, ttl = self.one((5, 1), (5, 600000), (6, 1000), (5, (1 << 40) - 1))
            return (op, self.path(), self.data(), self.acl(), flags, ttl)
        if op == "createContainer":
            flags = 4 if inside and self.old else self.one(4, 4, 4, 4, 0, 1, 2)
        else:
            flags = self.one(0, 0, 1, 2, 3) if inside and (self.old or self.chance(95)) else self.flags()
        return (op, self.path(), self.data(), self.acl(), flags)

    def write(self, inside=False):
        kind = self.random.randrange(10)
        if kind < 5:
            return self.create(inside)
        if kind < 7:
            return ("delete", self.path(), self.version())
        if kind < 9 or inside:
            return ("setData", self.path(), self.data(), self.version())
        return ("setACL", self.path(), self.acl(), self.version())

    def multi_entry(self):
        return ("check", self.path(), self.version()) if self.chance(20) else self.write(inside=True)

    def watched(self, label, mode):
        """A path for a watch; an old reference gets only one kind of watch per connection and path."""
        path = self.good_path()
        if self.old:
            for _ in range(50):
                if self.watch_modes.setdefault((label, path), mode) == mode:
                    return path
                path = self.good_path()
            return self.root + "/unwatched"
        return path

    def read(self, label):
        op = self.one("exists", "getData", "getChildren", "getChildren2", "getACL", "getAllChildrenNumber",
                      "getEphemerals", "whoAmI", "sync", "multiRead", "exists", "getData", "getChildren2")
        if op == "whoAmI":
            return (op,)
        if op == "multiRead":
            entries = [(self.one("getData", "getChildren"), self.path(), False) for _ in range(self.random.randrange(4))]
            return (op, entries)
        if op == "getEphemerals":
            return (op, self.one("/", "", None, self.root, self.root + "/a", self.root + "/a/"))
        if op in ("exists", "getData", "getChildren", "getChildren2"):
            if self.chance(50):
                return (op, self.watched(label, "standard"), True)
            return (op, self.path(), False)
        return (op, self.path())

    def watch(self, label):
        kind = self.random.randrange(5)
        if kind < 2:
            mode = self.one(0, 1, 1, 0, 7)
            return ("addWatch", self.watched(label, f"mode{mode}") if mode < 2 else self.root + "/odd", mode)
        if kind == 2:
            types = (9,) if self.old else (1, 2, 3, 4, 5, 0)
            return ("checkWatches", self.good_path(), self.one(*types))
        if kind == 3:
            types = (3, 9) if self.old else (1, 2, 3, 4, 5, 9)
            return ("removeWatches", self.good_path(), self.one(*types))
        return self.set_watches(label)

    def set_watches(self, label):
        back = self.one(0, 1, 3, 10, 10_000)
        lists = [[self.watched(label, "standard") for _ in range(self.random.randrange(3))] for _ in range(3)]
        op = self.one("setWatches", "setWatches2")
        if op == "setWatches2":
            lists += [[self.watched(label, f"mode{mode}") for _ in range(self.random.randrange(2))] for mode in (0, 1)]
        return (op, back, *lists)

    def step(self, sides):
        """The next step: (kind, label, ...)."""
        label = self.random.choice(LABELS)
        if label not in sides[0].open:
            if self.chance(8):
                return ("connect", label, False, {"ahead": 100_000})
            if self.chance(8):
                return ("connect", label, True, {"password": b"wrong" + bytes(11)})
            options = self.one({}, {"read_only": None}, {"read_only": True}, {"timeout_ms": 100}, {"timeout_ms": -5},
                               {"timeout_ms": 10_000_000})
            return ("connect", label, self.chance(60), {} if "timeout_ms" in options and self.chance(60) else options)
        kind = self.random.randrange(100)
        if kind < 42:
            return ("request", label, [self.write()])
        if kind < 62:
            return ("request", label, [self.read(label)])
        if kind < 74:
            return ("request", label, [("multi", [self.multi_entry() for _ in range(self.random.randrange(5))])])
        if kind < 83:
            return ("request", label, [self.watch(label)])
        if kind < 91:
            burst = [self.one(self.write(), self.read(label)) for _ in range(self.one(3, 5, 9))]
            acl_changes = [at for at, (op, *_) in enumerate(burst) if op == "setACL"]
            return ("request", label, burst[: acl_changes[0] + 1] if acl_changes else burst)
        if kind < 94:
            user = self.one("u", "u", "v", "super") if self.chance(85) else None
            scheme, credential = ("digest", USERS[user]) if user else self.one(
                ("ip", b""), ("nosuch", b"x"), ("digest", b"nocolon"), ("world", b"anyone"), ("digest", None))
            return ("request", label, [("auth", 0, scheme, credential)])
        if kind < 95:
            return ("odd", label, self.one(0, 13, 99, -1, 200) if not self.old else self.one(0, 99, -1, 200))
        if kind < 97:
            return ("request", label, [("closeSession",)])
        return self.one(("drop", label), ("connect", label, True, {}))

    def encode(self, request):
        """(op, data or function of the side, xid or None)."""
        op, *values = request
        if op in ("multi", "multiRead"):
            return (op, raw.multi(values[0]), None)
        if op in ("setWatches", "setWatches2"):
            back, *lists = values
            # Relative to each side's own last zxid.
            def data(side, back=back, lists=lists, op=op):
                return raw.body(op, max(0, side.last_zxid - back), *lists)
            return (op, data, raw.SET_WATCHES_XID)
        return (op, raw.body(op, *values), raw.AUTH_XID if op == "auth" else None)

    def learn(self, seen):
        for reply in seen:
            if isinstance(reply, dict) and reply.get("err") == 0 and str(reply.get("op", "")).startswith("create"):
                self.known.append(reply["path"])


def perform(script, step, sides):
    """Runs a step on both sides; returns (seen on the left, seen on the right)."""
    kind, label, *rest = step
    if kind == "request":
        encoded = [script.encode(request) for request in rest[0]]
    results = []
    for side in sides:
        if kind == "connect":
            seen = side.connect(label, *rest)
        elif kind == "drop":
            side.forget(label)
            seen = []
        elif kind == "odd":
            seen = side.request(label, [(rest[0], b"", None)])
            side.watch_close(label, seen)
        else:
            seen = side.request(label, encoded)
            if rest[0][0][0] == "closeSession" and label in side.open:
                seen.append("then closed" if side.open[label].is_closed() else "then left open")
                side.forget(label)
            elif rest[0][0][0] == "auth":
                side.watch_close(label, seen)
        results.append({"direct": seen, "then": side.pings()})
    if kind == "request":
        script.learn(results[0]["direct"])
    return results


def loosened(step, results, old_reference):
    """What may differ in a particular kind of step."""
    closes = step[0] == "request" and step[2][0][0] == "closeSession"
    for result in results:
        for replies in [result["direct"], *result["then"].values()]:
            events = [reply for reply in replies if isinstance(reply, dict) and reply["op"] == "notification"]
            if old_reference:
                for event in events:
                    event["event_zxid"] = "any"
            if closes and len(events) > 1:
                # A closed session's ephemerals are deleted in hash order.
                ordered = iter(sorted(events, key=lambda event: (event["path"], event["kind"])))
                replies[:] = [next(ordered) if reply in events else reply for reply in replies]
    return results


def show(result):
    lines = []
    for title, replies in [("reply", result["direct"]), *result["then"].items()]:
        for reply in replies:
            if isinstance(reply, dict) and reply.get("op") == "ping" and title != "reply":
                continue
            lines.append(f"      {title:6} {reply}")
    return "\n".join(lines)


def run_seed(seed, steps, sides, old_reference, verbose):
    """Returns the number of requests compared, or raises Different."""
    script = Script(seed, old_reference)
    history, compared = [], 0
    for side in sides:
        for label in list(side.open):
            side.forget(label)
    for label in LABELS:
        plan = ("connect", label, False, {})
        results = perform(script, plan, sides)
        check(seed, 0, plan, results, history, old_reference)
    # Starting point: /d is there, and everybody may do everything to it.
    first = ("request", "x", [("create", script.root, b"", raw.OPEN_ACL, 0)])
    check(seed, 0, first, perform(script, first, sides), history, old_reference)
    for number in range(steps):
        step = script.step(sides)
        if not sides[0].open and step[0] == "request":
            continue
        history.append(step)
        results = perform(script, step, sides)
        if verbose:
            print(f"{seed}.{number} {step}\n{show(results[0])}")
        check(seed, number, step, results, history, old_reference)
        compared += len(step[2]) if step[0] == "request" else 1
    for side in sides:
        side.close_all()
    return compared


class Different(Exception):
    pass


def check(seed, number, step, results, history, old_reference):
    left, right = loosened(step, results, old_reference)
    if left == right:
        return
    before = "\n".join(f"      {one}" for one in history[-4:-1])
    raise Different(
        f"seed {seed}, step {number}: {step}\n    left:\n{show(left)}\n    right:\n{show(right)}\n    before it:\n{before}"
    )


def is_old(server):
    """Whether a reference is Apache 3.8 or older."""
    found = re.search(r"version: (\d+)\.(\d+)", four_letter_word(server.port, "srvr"))
    return (int(found.group(1)), int(found.group(2))) < (3, 9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", choices=sorted(KINDS), default="apache")
    parser.add_argument("--right", choices=sorted(KINDS), default="zoometry")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--keep-going", action="store_true", help="report every differing seed, not only the first")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    home = pathlib.Path(tempfile.mkdtemp(prefix="differential-"))
    servers = [KINDS[kind](home / f"{side}-{kind}", settings=SETTINGS, properties=PROPERTIES)
               for side, kind in (("left", arguments.left), ("right", arguments.right))]
    compared, different = 0, 0
    try:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            # A tree per seed: both servers start empty, or go on from where the last seed left them.
            for server in servers:
                if server.process is None:
                    server.wipe()
                    server.start()
            old = is_old(servers[0])
            if seed == arguments.seed:
                print(f"left: {arguments.left} ({'3.8 or older' if old else '3.9 or newer'}), right: {arguments.right}")
            sides = [Side(server) for server in servers]
            try:
                compared += run_seed(seed, arguments.steps, sides, old, arguments.verbose)
            except Different as error:
                different += 1
                print(f"DIFFERENT {error}")
                if not arguments.keep_going:
                    return 1
                for server in servers:
                    server.stop()
        print(f"{compared} requests compared in {arguments.seeds} seeds, {different} seeds different")
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
