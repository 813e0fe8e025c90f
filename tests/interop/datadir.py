#!/usr/bin/env python3
"""One data directory, served in turn by Apache ZooKeeper and by our server; the trees must be equal.

    datadir.py                        apache -> zoometry -> apache -> zoometry
    datadir.py --writes 40000 --order zoometry apache zoometry

Each turn starts a server on the directory, compares the whole tree (paths, data, every Stat field, ACLs) with
what the turn before left, re-attaches the sessions that were left open and finds their ephemerals, writes some
more (creates of every kind, ephemerals, ACLs, multis, failures), and stops or kills the server. Snapshots (plain,
gz and snappy) and log files roll many times on the way. Both check the tree digest of every transaction that they replay, and the
one in the snapshot; a mismatch fails the test. One exception: Apache notes the digest of a snapshot beside the
tree that still changes, and once in a hundred snapshots notes one that its own replay does not find either. So
when our server counts a mismatch, Apache is started on a copy of what it was given, and must count the same.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

import raw
import tree
from apache import Apache
from member import four_letter_word
from zoometry import Zoometry

KINDS = {"apache": Apache, "zoometry": Zoometry}
SETTINGS = {
    "extendedTypesEnabled": "true",
    "DigestAuthenticationProvider.superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
    "snapCount": 3000,
    "minSessionTimeout": 100_000,
    "maxSessionTimeout": 200_000,
}
PROPERTIES = {"znode.container.checkIntervalMs": 86_400_000}
# How each turn packs its snapshots: in the default order both servers read what the other packed, in both ways.
METHODS = ["snappy", "gz", "gz", "snappy", ""]


class Failed(Exception):
    """The two servers do not agree."""


def reattach(server, sessions):
    """Every session that was left open is still there, with its ephemerals."""
    for session, password, ephemerals in sessions:
        conn = raw.Connection(server.port, session=session, password=password, timeout_ms=200_000)
        if conn.session != session:
            raise Failed(f"session {session:#x} could not re-attach")
        found = sorted(conn.call("getEphemerals", "/").fields["paths"])
        if found != ephemerals:
            raise Failed(f"session {session:#x}: {len(found)} ephemerals, expected {len(ephemerals)}")
        conn.drop()


def mismatches(server) -> int:
    """Digest mismatches that the server itself has counted."""
    for line in four_letter_word(server.port, "mntr").splitlines():
        if line.startswith("zk_digest_mismatches_count"):
            return int(float(line.split("\t")[1]))
    return 0


def check_digests(server, number, given):
    """No digest mismatch, unless Apache counts as many on the directory that the server was `given`."""
    counted = mismatches(server)
    if not counted:
        return
    if server.kind == "apache" or given is None:
        raise Failed(f"turn {number}: {server.kind} counted {counted} digest mismatches")
    with Apache(given.parent / "judge", settings=SETTINGS, properties=PROPERTIES, data_dir=given) as judge:
        by_apache = mismatches(judge)
    if counted != by_apache:
        raise Failed(f"turn {number}: {server.kind} counted {counted} digest mismatches, Apache {by_apache}")
    print(f"turn {number}: {counted} digest mismatch, in a snapshot of Apache's; it counts the same", flush=True)


def turn(server, number, before, sessions, writes, how):
    """One server's turn; returns (tree, open sessions) as it leaves them."""
    given = None
    if before is not None:
        given = server.home / "given"
        shutil.copytree(server.data_dir, given)
    started = time.monotonic()
    server.start()
    loaded = time.monotonic() - started
    check_digests(server, number, given)
    if before is not None:
        now = tree.read(server.port)
        lines = tree.differences(before, now)
        if lines:
            raise Failed(f"turn {number}: {server.kind} sees another tree:\n  " + "\n  ".join(lines))
        reattach(server, sessions)
    filler = tree.Filler(server, f"/turn{number}", seed=number)
    filler.run(writes)
    kinds = sum(1 for (_, err) in filler.counts if err == 0), sum(1 for (_, err) in filler.counts if err)
    left = filler.leave()
    after = tree.read(server.port)
    ephemerals = sum(1 for _, stat, _ in after.values() if stat["owner"])
    print(f"turn {number}: {server.kind:9} up in {loaded:.1f} s, {len(before or {})} znodes equal; "
          f"left {len(after)} znodes, {ephemerals} ephemerals ({kinds[0]} kinds of success, {kinds[1]} of refusal), {how}",
          flush=True)
    server.kill() if how == "kill" else server.stop()
    if given:
        shutil.rmtree(given)
    return after, sessions + left


def run(home, order, writes):
    data = pathlib.Path(home) / "data"
    before, sessions = None, []
    for number, kind in enumerate(order):
        settings = SETTINGS | {"snapshot.compression.method": METHODS[number % len(METHODS)]}
        options = {"settings": settings, "properties": PROPERTIES, "data_dir": data}
        server = KINDS[kind](pathlib.Path(home) / f"{number}-{kind}", **options)
        try:
            # Killed and stopped by turns: both leave a directory that the other must open.
            how = "kill" if number % 2 else "stop"
            last = number == len(order) - 1
            before, sessions = turn(server, number, before, sessions, 500 if last else writes, how)
        finally:
            server.kill()
    files = sorted(path.name for path in (data / "version-2").iterdir())
    snapshots = [name for name in files if name.startswith("snapshot.")]
    packed = [sum(name.endswith(suffix) for name in snapshots) for suffix in (".gz", ".snappy")]
    print(f"{len([name for name in files if name.startswith('log.')])} logs, {len(snapshots)} snapshots in the "
          f"directory, of these {packed[0]} with gzip and {packed[1]} with snappy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--order", nargs="+", choices=sorted(KINDS),
                        default=["apache", "zoometry", "apache", "zoometry", "apache"])
    parser.add_argument("--writes", type=int, default=15_000, help="in each turn")
    parser.add_argument("--keep", action="store_true", help="leave the files for a look")
    arguments = parser.parse_args()
    home = tempfile.mkdtemp(prefix="datadir-")
    try:
        run(home, arguments.order, arguments.writes)
    except (Failed, raw.Closed) as error:
        print(f"FAILED {type(error).__name__} {error}\nfiles are in {home}", file=sys.stderr)
        arguments.keep = True
        return 1
    finally:
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
