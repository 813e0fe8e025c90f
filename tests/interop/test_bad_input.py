"""Hostile and broken clients, full and damaged disks: the server stays healthy or says clearly why not."""

import contextlib
import random
import resource
import socket
import struct
import subprocess
import threading
import time

import pytest

import raw
import tree
from member import DidNotStart

MB = 1 << 20


@pytest.fixture
def healthy(server):
    """After the test an ordinary client must be served at once."""
    yield server
    started = time.monotonic()
    conn = raw.Connection(server.port)
    path = f"/healthy-{time.monotonic_ns()}"
    assert conn.create(path).err == 0 and conn.call("delete", path, -1).err == 0
    conn.close_session()
    assert time.monotonic() - started < 2.0, "the server has become slow"


def plain_socket(server):
    conn = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def is_closed(conn, wait_s=10.0):
    conn.settimeout(wait_s)
    try:
        while conn.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# ---- bytes that are no requests

def test_garbage(healthy):
    rng = random.Random(7)
    for size in (1, 3, 4, 5, 44, 1000, 100_000):
        for _ in range(8):
            with plain_socket(healthy) as conn:
                try:
                    conn.sendall(rng.randbytes(size))
                    conn.shutdown(socket.SHUT_WR)
                except OSError:
                    continue  # closed already
                assert is_closed(conn), f"{size} bytes of garbage and the end: still open"


def test_an_http_request(healthy):
    with plain_socket(healthy) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_closed(conn)


@pytest.mark.parametrize("length", [2**31 - 1, -1, -(2**31), 2 * MB])
def test_announced_lengths(healthy, length):
    """Refused on the announcement: nobody waits for two gigabytes."""
    before = healthy.resident_bytes()
    with plain_socket(healthy) as conn:
        conn.sendall(struct.pack(">i", length))
        assert is_closed(conn, 5.0)
    established = raw.Connection(healthy.port)
    established.socket.sendall(struct.pack(">i", length))
    assert established.is_closed()
    assert healthy.resident_bytes() - before < 64 * MB


@pytest.mark.parametrize("payload", [
    b"", b"\0" * 10, raw.connect_request(password=b"\0" * 7), raw.i32(0) + raw.i64(0) + raw.i32(1) + raw.i64(0) + raw.i32(2**30),
], ids=["empty", "short", "short password", "password of a gigabyte"])
def test_broken_connect_requests(healthy, payload):
    with plain_socket(healthy) as conn:
        conn.sendall(raw.frame(payload))
        with contextlib.suppress(OSError):  # reset already
            conn.shutdown(socket.SHUT_WR)
        assert is_closed(conn)


@pytest.mark.parametrize("op", sorted(set(raw.REQUESTS) - {"auth", "sasl", "check", "deleteContainer", "reconfig"}))
def test_truncated_bodies(healthy, op):
    """A body cut short is refused or closes the connection, and never reaches the tree."""
    values = {"s": "/cut", "b": b"data", "i": 0, "q": 1, "?": False, "[acl]": raw.OPEN_ACL, "[s]": ["/a", "/b"]}
    whole = raw.body(op, *(values[field.split(":")[1]] for field in raw.REQUESTS[op].split()))
    for cut in sorted({0, 1, 3, 4, 5, len(whole) // 2, len(whole) - 1}):
        conn = raw.Connection(healthy.port)
        try:
            xid = raw.SET_WATCHES_XID if op.startswith("setWatches") else None
            reply = conn.reply(conn.send(op, whole[:cut], xid))
            assert reply.err == -5, (op, cut, reply)
        except raw.Closed:
            pass
        conn.drop()
    check = raw.Connection(healthy.port)
    assert check.call("exists", "/cut", False).err == -101
    check.close_session()


def test_hostile_counts(healthy):
    before = healthy.resident_bytes()
    conn = raw.Connection(healthy.port)
    for count in (2**31 - 1, 2**30, 10**6):
        for op, head in (("create", raw.string("/x") + raw.buffer(b"")), ("setWatches", raw.i64(0)),
                         ("setACL", raw.string("/x"))):
            try:
                conn.send(op, head + raw.i32(count))
                assert conn.receive().err == -5
            except raw.Closed:
                conn = raw.Connection(healthy.port)
    conn.drop()
    assert healthy.resident_bytes() - before < 64 * MB


# ---- slow and silent clients

def test_silent_connections(healthy):
    """Half-open: connected, and never a byte."""
    silent = [plain_socket(healthy) for _ in range(300)]
    conn = raw.Connection(healthy.port)
    assert conn.call("exists", "/", False).err == 0
    conn.close_session()
    for one in silent:
        one.close()


def test_slow_loris(healthy):
    """A byte at a time: others are served meanwhile, and the slow one is answered in the end."""
    slow = plain_socket(healthy)
    stream = raw.frame(raw.connect_request())
    stream += raw.frame(raw.i32(1) + raw.i32(raw.OPS["exists"]) + raw.body("exists", "/", False))
    other = raw.Connection(healthy.port)
    for byte in stream:
        slow.sendall(bytes([byte]))
        assert other.call("exists", "/", False).err == 0
    slow.settimeout(10)
    received = b""
    while len(received) < 41 + 4 + 16 + 68:
        received += slow.recv(1000)
    slow.close()
    other.close_session()


def test_a_reader_that_never_reads(healthy, server_kind):
    """Asks for 2 GB of replies and takes none: the server must hold a bounded part of them."""
    setup = raw.Connection(healthy.port)
    setup.create("/large", b"x" * 1_000_000)
    before = healthy.resident_bytes()
    greedy = raw.Connection(healthy.port)
    request = raw.frame(raw.i32(1) + raw.i32(raw.OPS["getData"]) + raw.body("getData", "/large", False))
    greedy.socket.settimeout(3.0)
    try:
        for _ in range(2000):
            greedy.socket.sendall(request)
    except (TimeoutError, ConnectionError):
        pass
    time.sleep(1.0)
    grown = healthy.resident_bytes() - before
    # Apache has a bound of its own, its heap (512 MB here).
    limit = 600 * MB if server_kind == "apache" else 64 * MB
    assert grown < limit, f"grown by {grown / MB:.0f} MB"
    assert setup.call("exists", "/large", False).err == 0
    greedy.drop()
    setup.call("delete", "/large", -1)
    setup.close_session()


def test_a_watcher_that_never_reads(healthy, server_kind):
    """Events pile up for it: the writer is not held back, and memory is bounded."""
    setup = raw.Connection(healthy.port, timeout_s=60)
    path = "/" + "watched-" * 120
    setup.create(path)
    deaf = [raw.Connection(healthy.port) for _ in range(4)]
    for conn in deaf:
        conn.call("addWatch", path, 1)
    before = healthy.resident_bytes()
    line = tree.Pipeline(setup)
    # 40 000 events of 1 kB, four times: 160 MB, where 16 MB unread are the end of a connection.
    for _ in range(40_000):
        line.ask("setData", raw.body("setData", path, b"", -1), lambda reply: None)
    line.drain()
    grown = healthy.resident_bytes() - before
    limit = 600 * MB if server_kind == "apache" else 64 * MB
    assert grown < limit, f"grown by {grown / MB:.0f} MB"
    for conn in deaf:
        conn.drop()
    setup.call("delete", path, -1)
    setup.close_session()


def test_many_connections_come_and_go(healthy):
    def churn():
        for _ in range(40):
            conn = raw.Connection(healthy.port)
            conn.drop() if random.random() < 0.5 else conn.close_session()
    threads = [threading.Thread(target=churn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


# ---- what the disk does to a server, and what an operator gets wrong (ours only: Apache's texts are its own)

@pytest.fixture
def ours(server_kind, new_server):
    if server_kind != "zoometry":
        pytest.skip("the texts and exit codes of our server")
    return new_server()


def fill(server, count=50):
    conn = raw.Connection(server.port)
    conn.create("/kept")
    for n in range(count):
        assert conn.create(f"/kept/n{n}", b"x" * 100).err == 0
    conn.close_session()


def children(server):
    conn = raw.Connection(server.port)
    names = conn.call("getChildren", "/kept", False).fields["children"]
    conn.close_session()
    return names


def test_port_in_use(ours):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ours.port = ours.settings["clientPort"] = taken.getsockname()[1]
        with pytest.raises(DidNotStart) as failure:
            ours.start()
    assert str(ours.port) in str(failure.value) and "in use" in str(failure.value)


@pytest.mark.parametrize("line, expected", [
    ("clientPort=two", "two"), ("tickTime=-5", "tickTime"), ("dataDir=", "dataDir"),
])
def test_bad_configuration(ours, line, expected):
    config = ours.write_config()
    with open(config, "a") as out:
        out.write(line + "\n")
    command = [str(part) for part in ours.command(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and expected in text and "zoo.cfg" in text, text


def test_unusable_data_directory(ours):
    file = ours.home / "a-file"
    file.write_text("no directory")
    ours.settings["dataDir"] = file / "data"
    with pytest.raises(DidNotStart) as failure:
        ours.start()
    assert "a-file" in str(failure.value)


def test_missing_data_directory(ours):
    """With datadir.autocreate=false a directory whose disk is not mounted is not made anew."""
    ours.settings["datadir.autocreate"] = "false"
    with pytest.raises(DidNotStart) as failure:
        ours.start()
    assert "version-2" in str(failure.value)
    assert not any(ours.data_dir.iterdir())
    (ours.data_dir / "version-2").mkdir()
    ours.start()


def test_corrupt_newest_snapshot(ours):
    """Apache falls back to the older one and replays more log; so do we."""
    ours.settings["snapCount"] = 20
    ours.start()
    fill(ours, 200)
    ours.stop()
    snapshots = sorted((ours.data_dir / "version-2").glob("snapshot.*"), key=lambda p: int(p.name.split(".")[1], 16))
    assert len(snapshots) > 2
    damaged = bytearray(snapshots[-1].read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    snapshots[-1].write_bytes(damaged)
    snapshots[-2].write_bytes(snapshots[-2].read_bytes()[:100])
    ours.start()
    assert len(children(ours)) == 200
    assert snapshots[-1].name in ours.log_path.read_text()
    ours.stop()


def test_corrupt_log_is_not_passed_over(ours):
    """A record that fails its checksum in the middle of a log: acknowledged writes stand behind it, so the
    server must not start as if they had never been."""
    ours.settings["snapCount"] = 100_000
    ours.start()
    fill(ours, 100)
    ours.kill()
    log = max((ours.data_dir / "version-2").glob("log.*"), key=lambda p: int(p.name.split(".")[1], 16))
    data = bytearray(log.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 0xFF
    log.write_bytes(data)
    with pytest.raises(DidNotStart) as failure:
        ours.start()
    assert log.name in str(failure.value)


def test_full_disk(ours):
    """A write that fails is final: the process logs the file's name and exits. Nothing acknowledged is lost."""
    limit = 300_000
    ours.settings["preAllocSize"] = 64

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    # Python ignores SIGXFSZ; inherited, a write beyond the limit fails as on a full disk.
    ours.popen = {"preexec_fn": limited, "restore_signals": False}
    ours.start()
    conn, acknowledged = raw.Connection(ours.port), 0
    conn.create("/kept")
    with pytest.raises((raw.Closed, TimeoutError)):
        for n in range(10_000):
            if conn.create(f"/kept/n{n}", b"x" * 1000).err == 0:
                acknowledged += 1
    assert ours.process.wait(10) != 0
    ours.process = None
    log = ours.log_tail()
    assert "log." in log and ("large" in log or "space" in log), log
    ours.popen = {}
    ours.start()
    assert len(children(ours)) >= acknowledged > 50
    ours.stop()


def test_sigterm_is_clean(ours):
    ours.start()
    fill(ours)
    assert ours.stop() in (0, None)
    ours.start()
    assert len(children(ours)) == 50
    ours.stop()


