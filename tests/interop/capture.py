#!/usr/bin/env python3
"""Captures what real clients and a real Apache ZooKeeper say to each other, as golden test data.

    capture.py OUT_DIR          writes OUT_DIR/{kazoo,c,cli_mt,zkcli,raw}.txt and txns.txt

A proxy stands between the client and the server and writes down every frame. Repetitions are dropped: at
most KEEP frames of one direction, operation and error code are kept for each client. A frame takes three
lines of the file: `# direction operation client server`, its fields in one line (rendered by raw.py, which
knows nothing of the wire crate), and its bytes with the length prefix, in hex. Transaction payloads are cut
out of the log that the server wrote meanwhile.
"""

import argparse
import collections
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import raw
from apache import Apache, class_path, java

HERE = pathlib.Path(__file__).resolve().parent
KEEP = 4
CUT = b"/cut-the-line"


class Proxy:
    """Listens on a loopback port, forwards to `upstream`, keeps the frames of both directions."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.frames = []
        self.lock = threading.Lock()
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.upstream))
            line = {"asked": collections.defaultdict(collections.deque), "first": {True: True, False: True}}
            for source, sink, is_reply in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, is_reply, line), daemon=True).start()

    def _pump(self, source, sink, is_reply, line):
        try:
            while True:
                prefix = self._read(source, 4)
                payload = self._read(source, struct.unpack(">i", prefix)[0])
                with self.lock:
                    self._note(prefix + payload, is_reply, line)
                if not is_reply and CUT in payload:
                    break
                sink.sendall(prefix + payload)
        except (OSError, EOFError):
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def _read(source, n):
        data = b""
        while len(data) < n:
            part = source.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _note(self, data, is_reply, line):
        payload = data[4:]
        if line["first"][is_reply]:
            line["first"][is_reply] = False
            op, body, err = "connect", payload, 0
        elif is_reply:
            xid, _, err = struct.unpack(">iqi", payload[:16])
            asked = line["asked"][xid]
            op = "notification" if xid == raw.NOTIFICATION else asked.popleft() if asked else "unknown"
            body = payload[16:]
        else:
            xid, code = struct.unpack(">ii", payload[:8])
            op, body, err = raw.NAMES.get(code, "unknown"), payload[8:], 0
            line["asked"][xid].append(op)
        if op != "unknown":
            self.frames.append((is_reply, op, err, body, data))

    def close(self):
        self.closed = True
        self.listener.close()


def line_of_fields(is_reply, op, err, body):
    if err:
        assert not body, (op, err, body)
        return f"err={err}"
    try:
        return raw.describe(op, body, is_reply)
    except raw.Undecodable:
        return "malformed"


def shape(is_reply, op, err, body):
    """What makes two frames repetitions of each other."""
    if line_of_fields(is_reply, op, err, body) == "malformed":
        return (is_reply, op, "malformed")
    if op in ("multi", "multiRead") and err == 0:
        return (is_reply, op, tuple((name, code) for name, code, _ in raw.decode(op, body, is_reply)["entries"]))
    if op == "notification":
        return (is_reply, op, raw.decode(op, body, True)["kind"])
    if not is_reply and "flags" in raw.REQUESTS.get(op, ""):
        return (is_reply, op, raw.decode(op, body, False)["flags"])
    return (is_reply, op, err)


def write_golden(path, frames, client, server):
    """Writes the kept frames; returns their number."""
    seen, kept = collections.Counter(), []
    for is_reply, op, err, body, data in frames:
        key = shape(is_reply, op, err, body)
        seen[key] += 1
        if seen[key] > KEEP or data in [frame for _, _, frame in kept]:
            continue
        direction = "reply" if is_reply else "request"
        kept.append((f"# {direction} {op} {client} {server}", line_of_fields(is_reply, op, err, body), data))
    with open(path, "w") as out:
        for head, fields, data in kept:
            out.write(f"{head}\n{fields}\n{data.hex()}\n")
    return len(kept)


# ---- the clients

def kazoo_session(port):
    from kazoo.client import KazooClient
    from kazoo.exceptions import KazooException
    from kazoo.security import make_acl, make_digest_acl

    def refused(call, *arguments, **named):
        try:
            call(*arguments, **named)
        except KazooException:
            return
        raise AssertionError(f"{call} {arguments} was not refused")

    zk = KazooClient(hosts=f"127.0.0.1:{port}", timeout=20)
    zk.start()
    zk.create("/k", b"root")
    zk.create("/k/a", b"one", acl=[make_acl("world", "anyone", all=True)])
    zk.create("/k/eph", b"", ephemeral=True)
    zk.create("/k/seq-", b"", sequence=True)
    zk.create("/k/eseq-", b"", ephemeral=True, sequence=True)
    zk.create("/k/two", b"22", include_data=True)
    zk.create("/k/two-", b"22", include_data=True, sequence=True, ephemeral=True)
    zk.create("/k/\u00fcml\u00e4ut \u6771\u4eac", "gr\u00fc\u00dfe".encode())
    refused(zk.create, "/k/a", b"again")
    refused(zk.create, "/k/none/x", b"")
    refused(zk.create, "/k/eph/x", b"")
    refused(zk.create, "/k/two", b"", include_data=True)
    events = []
    zk.exists("/k/a", watch=events.append)
    zk.exists("/k/later", watch=events.append)
    zk.get("/k/a", watch=events.append)
    refused(zk.get, "/k/none")
    zk.get_children("/k", watch=events.append)
    zk.get_children("/k", include_data=True)
    refused(zk.get_children, "/k/none")
    refused(zk.get_children, "/k/none", include_data=True)
    zk.set("/k/a", b"two")
    refused(zk.set, "/k/a", b"x", version=7)
    zk.create("/k/later", b"")
    zk.get("/k/later", watch=events.append)
    zk.delete("/k/later")
    refused(zk.delete, "/k/a", version=9)
    refused(zk.delete, "/k")
    refused(zk.delete, "/k/none")
    zk.sync("/k")
    zk.add_auth("digest", "user:secret")
    zk.create("/k/mine", b"", acl=[make_digest_acl("user", "secret", all=True)])
    zk.get_acls("/k/mine")
    refused(zk.get_acls, "/k/none")
    zk.set_acls("/k/mine", [make_acl("world", "anyone", read=True), make_acl("ip", "10.0.0.0/8", write=True)])
    refused(zk.set_acls, "/k/mine", [make_acl("world", "anyone", all=True)])
    refused(zk.set, "/k/mine", b"x")
    refused(zk.create, "/k/bad", b"", acl=[make_acl("nosuch", "x", all=True)])
    good = zk.transaction()
    good.create("/k/t", b"1")
    good.create("/k/t/s-", b"", sequence=True)
    good.set_data("/k/t", b"2")
    good.check("/k/t", 1)
    good.delete("/k/two")
    good.commit()
    bad = zk.transaction()
    bad.create("/k/t2", b"1")
    bad.check("/k/t", 9)
    bad.delete("/k/t")
    bad.commit()
    refused(zk.reconfig, joining=None, leaving="1", new_members=None)
    zk.get("/k/a", watch=events.append)
    zk.get_children("/k", watch=events.append)
    zk.exists("/k/awaited", watch=events.append)
    session = zk.client_id
    zk._connection._socket.shutdown(socket.SHUT_RDWR)
    time.sleep(1.0)
    zk.retry(zk.exists, "/k")
    assert zk.client_id == session
    time.sleep(8.0)  # long enough for a ping: a third of the session timeout
    zk.delete("/k/t", recursive=True)
    zk.stop()
    zk.close()
    # An anonymous stranger is refused what only `user` may do.
    stranger = KazooClient(hosts=f"127.0.0.1:{port}", auth_data=[("nosuch", "x")])
    try:
        stranger.start(timeout=3)
    except Exception:
        pass
    stranger.stop()
    stranger.close()


def c_session(port):
    import test_c_client
    with tempfile.TemporaryDirectory() as directory:
        test_c_client.run_program(test_c_client.build(directory), f"127.0.0.1:{port}", "/c")


def cli_mt_session(port):
    import test_c_client
    test_c_client.run_cli_mt(f"127.0.0.1:{port}", [
        "create /mt", "set /mt hello", "get /mt", "exists /mt", "create +e /mt/e", "create +s /mt/s", "ls /mt",
        "ls2 /mt", "sync /mt", "addauth digest u:p", "wexists /mt/later", "create2 /mt/later", "delete /mt/later",
        "config", "quit",
    ])


def zkcli_session(port):
    import test_zkcli
    test_zkcli.run_script(f"127.0.0.1:{port}", (HERE / "zkcli.txt").read_text())


def raw_session(port):
    """What no client at hand sends: every operation once well formed, and the refusals."""
    c = raw.Connection(port, timeout_ms=20000)
    acl = raw.OPEN_ACL
    c.create("/r", b"root")
    c.create("/r/null", None)
    for flags in range(7):
        c.call("create", f"/r/create-{flags}", b"d", acl, flags)
        c.call("create2", f"/r/create2-{flags}", b"d", acl, flags)
        c.call("createContainer", f"/r/container-{flags}", b"d", acl, flags)
        c.call("createTTL", f"/r/ttl-{flags}", b"d", acl, flags, 600000)
    c.call("create", "/r/bad-flags", b"", acl, 99)
    c.call("create", "/r/no-acl", b"", [], 0)
    c.call("createTTL", "/r/bad-ttl", b"", acl, 5, 1 << 40)
    c.call("create", "bad//path", b"", acl, 0)
    c.call("getAllChildrenNumber", "/r")
    c.call("getAllChildrenNumber", "/none")
    c.call("getEphemerals", "/r")
    c.call("getEphemerals", None)
    c.call("whoAmI")
    c.call("multiRead", [("getData", "/r", False), ("getChildren", "/r", False), ("getData", "/none", False)])
    c.call("multi", [("create", "/r/m", b"", acl, 0), ("create2", "/r/m/2", b"", acl, 0),
                     ("createContainer", "/r/m/c", b"", acl, 4), ("createTTL", "/r/m/t", b"", acl, 5, 1000000),
                     ("setData", "/r/m", b"x", 0), ("check", "/r/m", 1), ("delete", "/r/m/2", 0)])
    c.call("multi", [("delete", "/none", -1), ("check", "/r", 0)])
    c.call("multi", [])
    c.reply(c.send("multi", raw.multi([("getData", "/r", False)])))
    c.call("addWatch", "/r/p", 0)
    c.call("addWatch", "/r/q", 1)
    c.call("addWatch", "/r/q", 7)
    c.call("checkWatches", "/r/p", 3)
    c.call("checkWatches", "/none", 1)
    c.call("removeWatches", "/r/p", 3)
    c.call("removeWatches", "/r/p", 2)
    c.call("removeWatches", "/r/p", 9)
    c.call("create", "/r/q", b"", acl, 0)
    c.call("create", "/r/q/deep", b"", acl, 0)
    c.call("setWatches", 1, ["/r", "/none"], ["/r/q", "/none"], ["/r", "/none"])
    c.call("setWatches2", 1, ["/r/q"], ["/none"], ["/r/q"], ["/p1", "/r"], ["/p2", "/r/q"])
    c.call("setData", "/r/q", b"2", -1)
    c.call("sync", "/r/\U0001f600")
    c.call("auth", 0, "ip", None)
    c.call("ping")
    c.call("reconfig", None, "1", None, -1)
    c.call("setACL", "/r/q", [(1, "world", "anyone"), (31, "auth", "")], -1)
    c.close_session()
    old = raw.Connection(port, timeout_ms=8000, read_only=None)
    old.drop()
    refused = raw.Connection(port, session=old.session, password=b"x" * 16)
    refused.drop()
    again = raw.Connection(port, session=old.session, password=old.password, read_only=False)
    again.reply(again.send(99))
    again.drop()
    bad = raw.Connection(port)
    bad.call("auth", 0, "nosuch", b"x")
    bad.drop()
    short = raw.Connection(port)
    short.reply(short.send("getData", b"\0\0"))
    short.drop()


CLIENTS = {
    "kazoo": ("kazoo-2.11.0", kazoo_session), "c": ("libzookeeper_mt-3.8.0", c_session),
    "cli_mt": ("cli_mt-3.8.0", cli_mt_session), "zkcli": ("zkCli-3.8.0", zkcli_session),
    "raw": ("handmade", raw_session),
}


# ---- transactions

def log_payloads(path):
    """The payloads of a transaction log file: 16 bytes of header, then (checksum, length, payload, 0x42)."""
    data = pathlib.Path(path).read_bytes()
    at = 16
    while at + 12 <= len(data):
        _, length = struct.unpack(">qi", data[at:at + 12])
        if length <= 0:
            return
        yield data[at + 12:at + 12 + length]
        at += 12 + length + 1


def write_txns(path, data_dir, server):
    seen, count = collections.Counter(), 0
    with open(path, "w") as out:
        for log in sorted(pathlib.Path(data_dir, "version-2").glob("log.*")):
            for payload in log_payloads(log):
                kind = struct.unpack(">i", payload[28:32])[0]
                # Multis of different lengths are different things; other records are not.
                entries = payload[32:36] if kind == raw.OPS["multi"] else b""
                seen[kind, entries] += 1
                if seen[kind, entries] > KEEP:
                    continue
                out.write(f"# txn {raw.NAMES[kind]} log {server}\n")
                out.write(f"{raw.describe_txn(payload)}\n{payload.hex()}\n")
                count += 1
    return count


def server_version():
    done = subprocess.run([java(), "-cp", ":".join(map(str, class_path())), "org.apache.zookeeper.Version"],
                          capture_output=True, text=True, timeout=60)
    found = re.search(r"(\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return f"apache-{found.group(1)}" if found else "apache"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", choices=sorted(CLIENTS), nargs="*")
    parser.add_argument("--suffix", default="", help="appended to the file names")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    version = server_version()
    with tempfile.TemporaryDirectory() as home:
        with Apache(home, settings={"extendedTypesEnabled": "true"}) as server:
            for name in arguments.only or CLIENTS:
                client, session = CLIENTS[name]
                proxy = Proxy(server.port)
                session(proxy.port)
                time.sleep(0.3)
                proxy.close()
                path = arguments.out / f"{name}{arguments.suffix}.txt"
                print(f"{path}: {write_golden(path, proxy.frames, client, version)} frames")
        path = arguments.out / f"txns{arguments.suffix}.txt"
        print(f"{path}: {write_txns(path, server.data_dir, version)} payloads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
