#!/usr/bin/env python3
"""Moves a data directory between Apache ZooKeeper and our server, both ways, and compares every znode.

    data_directory.py [--znodes 2000] [--first apache|zoometry]

The first server is filled through kazoo (plain, sequential and ephemeral znodes, ACLs, null and empty data,
multis that succeed and that fail, deletes, rewrites), killed with SIGKILL in the middle of a write load, and
started again to see what it says itself. Then, on copies of the directory:

1. `zoometry-server dump` is compared with what the first server served;
2. the other server is started on it and compared, written to, and killed;
3. the first server is started on what the other one left and compared again.

Sessions must move too: the one that owns the ephemerals stays open until the end, by long timeouts.
Exit code 1 and a list of differences if anything is unlike.
"""

import argparse
import itertools
import logging
import multiprocessing
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.security import make_acl, make_digest_acl

from apache import Apache
from zoometry import Zoometry, executable

KINDS = {"apache": Apache, "zoometry": Zoometry}
# 20 ticks are the longest session timeout: a minute, so that ephemerals outlive two restarts.
TICK_MS = 3000
SETTINGS = {"extendedTypesEnabled": "true", "preAllocSize": "256", "snapCount": "700"}
AUTH = ("digest", "u:p")
PERMS = "cdrwa"


def connect(server) -> KazooClient:
    client = KazooClient(hosts=server.address, timeout=60.0, auth_data=[AUTH])
    client.start(30)
    return client


def fill(server, znodes: int, seed: int):
    """Everything that a log and a snapshot can hold, several times over."""
    choice = random.Random(seed)
    client = connect(server)
    lists = [None, [make_digest_acl("u", "p", all=True)], [make_acl("world", "anyone", read=True),
             make_digest_acl("u", "p", all=True), make_acl("ip", "127.0.0.1", all=True)]]
    client.ensure_path("/tree")
    made = ["/tree"]
    for number in range(znodes):
        parent = choice.choice(made[-50:] + made[:5])
        data = choice.choice([b"", b"x", bytes(choice.randrange(2000)), str(number).encode()])
        path = client.create(f"{parent}/n{number}", data, acl=choice.choice(lists),
                             sequence=choice.random() < 0.1)
        made.append(path)
    for path in choice.sample(made[1:], znodes // 5):
        try:
            choice.choice([lambda: client.set(path, b"again" * choice.randrange(50)),
                           lambda: client.set_acls(path, lists[2]), lambda: client.delete(path)])()
        except KazooException:
            pass
    for number in range(znodes // 10):
        multi = client.transaction()
        multi.create(f"/tree/m{number}", b"multi")
        multi.set_data(f"/tree/m{number}", b"twice")
        multi.create(f"/tree/m{number}/child")
        if number % 3 == 0:
            multi.check("/tree/none", 7)
        if number % 3 == 1:
            multi.delete(f"/tree/m{number}/child")
        multi.commit()
    client.ensure_path("/services")
    for number in range(30):
        client.create(f"/services/e{number}", str(number).encode(), ephemeral=True)
    client.create("/services/s-", b"", ephemeral=True, sequence=True)
    return client


def write_until_killed(server, work, *arguments):
    """Runs `work` and then a write load in a process of its own, kills the server with SIGKILL in the middle
    of the load and then the process, so that its sessions stay open in the server's files."""
    ready = multiprocessing.Event()
    writer = multiprocessing.Process(target=write_forever, args=(server, ready, work, *arguments))
    writer.start()
    assert ready.wait(120), "the writer did not get through"
    time.sleep(1)
    server.kill()
    writer.kill()
    writer.join()


def write_forever(server, ready, work, *arguments):
    logging.disable()
    owner = work(server, *arguments)
    client = connect(server)
    client.ensure_path("/load")
    ready.set()
    for number in itertools.count():
        client.create_async(f"/load/{owner.client_id[0]:x}-{number}", bytes(number % 900))
        if number % 7 == 0:
            client.delete_async(f"/load/{owner.client_id[0]:x}-{number // 2}")
        if number % 50 == 0:
            time.sleep(0.01)


def tree(server) -> dict:
    """What the server serves: path -> comparable facts."""
    client = connect(server)
    found = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        try:
            data, stat = client.get(path)
            acls, _ = client.get_acls(path)
        except KazooException as error:
            found[path] = type(error).__name__
            continue
        acls = [f"{acl.id.scheme}:{acl.id.id}:{letters(acl.perms)}" for acl in acls]
        found[path] = facts(data or b"", stat, acls)
        waiting += [f"{path.rstrip('/')}/{name}" for name in client.get_children(path)]
    client.stop()
    client.close()
    return found


def facts(data, stat, acls):
    return {"czxid": stat.czxid, "mzxid": stat.mzxid, "pzxid": stat.pzxid, "ctime": stat.ctime,
            "mtime": stat.mtime, "version": stat.version, "cversion": stat.cversion,
            "aversion": stat.aversion, "owner": stat.ephemeralOwner, "children": stat.numChildren,
            "length": len(data), "crc32": zlib.crc32(data), "acl": sorted(acls)}


def letters(perms: int) -> str:
    bits = {"c": 4, "d": 8, "r": 1, "w": 2, "a": 16}
    return "".join(letter for letter in PERMS if perms & bits[letter])


def dump(data_dir) -> dict:
    """The same from `zoometry-server dump`; prints its head lines."""
    run = subprocess.run([executable(), "dump", data_dir], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"dump failed: {run.stderr}")
    found = {}
    for line in run.stdout.splitlines():
        if line.startswith("#"):
            print(f"    {line}")
        if not line.startswith("znode "):
            continue
        _, path, rest = line.split(" ", 2)
        words = dict(word.split("=", 1) for word in rest.split(" "))
        number = {name: int(words[name], 0) for name in
                  ["czxid", "mzxid", "pzxid", "ctime", "mtime", "version", "cversion", "aversion", "owner", "children"]}
        length = 0 if words["data"] == "null" else int(words["data"])
        found[path] = {**number, "length": length, "crc32": int(words.get("crc32", "0"), 16),
                       "acl": sorted(words["acl"].split(","))}
    if " 0 mismatches" not in run.stdout:
        sys.exit("the tree's digest is not that of the log")
    return found


def differences(one: dict, other: dict, what: str) -> int:
    """Prints the first differences; returns how many there are. Data that may not be read is skipped."""
    count = 0
    for path in sorted(set(one) | set(other)):
        left, right = one.get(path), other.get(path)
        if isinstance(left, str) or isinstance(right, str):
            continue
        if left != right:
            count += 1
            if count <= 10:
                keys = [key for key in (left or right) if (left or {}).get(key) != (right or {}).get(key)]
                print(f"    {path}: " + ", ".join(f"{key} {(left or {}).get(key)} != {(right or {}).get(key)}"
                                                 for key in keys))
    print(f"  {what}: {len(one)} and {len(other)} znodes, {count} differences")
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--znodes", type=int, default=2000)
    parser.add_argument("--first", choices=sorted(KINDS), default="apache")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="work in this directory and leave it there")
    arguments = parser.parse_args()
    other = next(kind for kind in KINDS if kind != arguments.first)
    with tempfile.TemporaryDirectory(prefix="data-directory-") as temporary:
        home = pathlib.Path(arguments.keep or temporary)
        sys.exit(1 if exchange(home, arguments, arguments.first, other) else 0)


def exchange(home, arguments, first: str, other: str) -> int:
    wrong = 0
    data = home / "data"

    def server(kind):
        return KINDS[kind](home / kind, settings=SETTINGS, tick_ms=TICK_MS, data_dir=data)

    print(f"fill {first}")
    running = server(first).start()
    write_until_killed(running, fill, arguments.znodes, arguments.seed)
    after_crash = dump(shutil.copytree(data, home / "crashed"))
    with server(first) as running:
        served = tree(running)
        running.kill()
    wrong += differences(served, after_crash, f"{first} itself and dump of the crashed directory")
    wrong += differences(served, dump(data), f"{first} and dump")
    owned = sum(1 for facts in served.values() if facts["owner"])
    wrong += owned < 31
    print(f"  {owned} ephemerals")
    print(f"{other} takes over")
    running = server(other).start()
    wrong += differences(served, tree(running), f"{first} and {other}")
    write_until_killed(running, fill_more)
    taken_over = dump(shutil.copytree(data, home / "taken-over"))
    print(f"{first} takes it back")
    with server(first) as running:
        wrong += differences(taken_over, tree(running), f"dump of what {other} left, and {first}")
    return wrong


def fill_more(server):
    client = connect(server)
    client.ensure_path("/more")
    for number in range(400):
        client.create(f"/more/{number}", bytes(number))
        client.set(f"/more/{number}", b"set")
    for number in range(0, 400, 3):
        client.delete(f"/more/{number}")
    client.create("/more/ephemeral", b"e", ephemeral=True)
    return client


if __name__ == "__main__":
    main()
