#!/usr/bin/env python3
"""kill -9 in the middle of a write load, again and again: no acknowledged write may ever be missing.

    kill9.py --rounds 50               our server
    kill9.py --rounds 5 --server apache

Writers on many connections create sequential nodes and set data, several in flight each, and note only what
was acknowledged. At a random moment the server is killed. After the restart everything acknowledged must be
there: every created node, and for every counter node a value at least as new as the last acknowledged one
(and not newer than the last one sent). Sessions re-attach and still own their ephemerals. Now and then the
tail of the log is torn as well: garbage behind the last record, which no acknowledged write can be part of.
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

import raw
import tree
from apache import Apache
from zoometry import Zoometry

KINDS = {"apache": Apache, "zoometry": Zoometry}
SETTINGS = {
    "DigestAuthenticationProvider.superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
    "snapCount": 2000, "minSessionTimeout": 100_000, "maxSessionTimeout": 200_000, "preAllocSize": 256,
}
IN_FLIGHT = 8


class Writer(threading.Thread):
    """One connection. Creates /load/w<n>/s-… and ephemerals, and counts up the data of /load/w<n>."""

    def __init__(self, server, number, session=None):
        super().__init__(daemon=True)
        self.number, self.server = number, server
        self.path = f"/load/w{number}"
        self.created, self.ephemerals = set(), set()
        self.sent = self.acknowledged = 0
        self.session = session
        self.error = None
        self.ready = threading.Event()

    def run(self):
        try:
            self.load()
        except (raw.Closed, ConnectionError, TimeoutError):
            pass  # the server was killed
        except BaseException as error:
            self.error = error
        finally:
            self.ready.set()

    def load(self):
        number, password = self.session or (0, b"\0" * 16)
        conn = raw.Connection(self.server.port, timeout_ms=200_000, session=number, password=password)
        if number and conn.session != number:
            raise AssertionError(f"session {number:#x} was lost")
        self.session = conn.session, conn.password
        self.ready.set()
        rng, waiting = random.Random(self.number), []
        while True:
            while len(waiting) < IN_FLIGHT:
                kind = rng.randrange(10)
                if kind < 5:
                    self.sent += 1
                    data = raw.body("setData", self.path, b"%d" % self.sent, -1)
                    waiting.append((conn.send("setData", data), self.sent))
                else:
                    flags = 3 if kind == 9 else 2
                    data = raw.body("create", f"{self.path}/s-", bytes(rng.randrange(200)), raw.OPEN_ACL, flags)
                    waiting.append((conn.send("create", data), flags))
            xid, what = waiting.pop(0)
            reply = conn.reply(xid)
            assert reply.err == 0, reply
            if reply.op == "create":
                (self.ephemerals if what == 3 else self.created).add(reply.fields["path"])
            else:
                self.acknowledged = what


def verify(server, writers) -> int:
    """Looks for everything acknowledged; returns how many writes that is."""
    nodes = tree.read(server.port)
    total = 0
    for writer in writers:
        missing = (writer.created | writer.ephemerals) - nodes.keys()
        assert not missing, f"{len(missing)} acknowledged creates are missing, for example {sorted(missing)[:3]}"
        value = int(nodes[writer.path][0])
        assert writer.acknowledged <= value <= writer.sent, (
            f"{writer.path} holds {value}; {writer.acknowledged} was acknowledged, {writer.sent} was sent")
        for path in writer.ephemerals:
            assert nodes[path][1]["owner"] == writer.session[0], f"{path} has lost its owner"
        # Not acknowledged, and there all the same: allowed, and from now on it must stay.
        children = [path for path in nodes if path.startswith(writer.path + "/")]
        writer.created |= {path for path in children if nodes[path][1]["owner"] == 0}
        writer.ephemerals |= {path for path in children if nodes[path][1]["owner"]}
        writer.acknowledged = value
        total += len(children) + value
    return total


def tear_the_tail(server, rng):
    """Puts garbage behind the last record of the newest log, as a torn write does."""
    logs = sorted((server.data_dir / "version-2").glob("log.*"), key=lambda path: int(path.name.split(".")[1], 16))
    data = logs[-1].read_bytes()
    end = len(data.rstrip(b"\0"))
    if end <= 16:
        return "no tail to tear"
    with open(logs[-1], "r+b") as log:
        log.seek(end)
        # A plausible start: checksum and length of a record whose bytes never made it.
        log.write(rng.randbytes(8) + (120).to_bytes(4, "big") + rng.randbytes(rng.randrange(60)))
    return "tail torn"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=sorted(KINDS), default="zoometry")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    home = pathlib.Path(tempfile.mkdtemp(prefix="kill9-"))
    server = KINDS[arguments.server](home / "server", settings=SETTINGS)
    writers = []
    try:
        server.start()
        setup = raw.Connection(server.port)
        assert setup.create("/load").err == 0
        for number in range(arguments.connections):
            assert setup.create(f"/load/w{number}", b"0").err == 0
        setup.close_session()
        for number in range(1, arguments.rounds + 1):
            fresh = [Writer(server, n, writers[n].session if writers else None) for n in range(arguments.connections)]
            for old, new in zip(writers, fresh):
                new.created, new.ephemerals = old.created, old.ephemerals
                new.acknowledged = new.sent = old.acknowledged
            writers = fresh
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.ready.wait(30)
            time.sleep(rng.uniform(0.1, 1.2))
            server.kill()
            for writer in writers:
                writer.join(30)
                if writer.error:
                    raise writer.error
            torn = tear_the_tail(server, rng) if number % 3 == 0 else ""
            started = time.monotonic()
            server.start()
            up = time.monotonic() - started
            total = verify(server, writers)
            print(f"round {number}: killed, up again in {up:.1f} s, {total} writes there {torn}", flush=True)
            if number % 10 == 0:
                # Keep the tree small: a new tree, the same directory.
                for writer in writers:
                    shrink(server, writer)
        print(f"{arguments.rounds} rounds of kill -9 on {arguments.server}: no acknowledged write was lost")
        return 0
    except AssertionError as error:
        print(f"FAILED {error}\nfiles are in {home}", file=sys.stderr)
        home = None
        return 1
    finally:
        server.kill()
        if home:
            shutil.rmtree(home, ignore_errors=True)


def shrink(server, writer):
    conn = raw.Connection(server.port)
    line = tree.Pipeline(conn)
    for path in sorted(writer.created | writer.ephemerals):
        line.ask("delete", raw.body("delete", path, -1), lambda reply: None)
    line.drain()
    conn.close_session()
    writer.created, writer.ephemerals = set(), set()


if __name__ == "__main__":
    sys.exit(main())
