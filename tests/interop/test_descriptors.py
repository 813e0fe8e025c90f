"""File descriptors: the limit is raised, clients are held below it, and the member writes on."""

import resource
import time

import pytest

import raw

SOFT, HARD, KEPT = 100, 256, 98
WAIT_S = 30


@pytest.fixture
def small(new_server, server_kind):
    if server_kind == "apache":
        pytest.skip("Apache counts no descriptors: it ends up without")
    server = new_server(settings={"snapCount": 20, "preAllocSize": 64})
    server.popen["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))
    yield server.start()
    server.stop()


def snapshots(server):
    return sorted((server.data_dir / "version-2").glob("snapshot.*"))


def test_clients_leave_descriptors_for_the_log(small):
    first = raw.Connection(small.port)
    served, refused = [first], 0
    for _ in range(HARD + 50):
        try:
            served.append(raw.Connection(small.port))
        except (raw.Closed, OSError):
            refused += 1
    assert SOFT < len(served) <= HARD - KEPT and refused >= 50, (len(served), refused)
    # Log and snapshots roll meanwhile, which takes new files.
    before, limit = snapshots(small), time.monotonic() + WAIT_S
    while len(snapshots(small)) < len(before) + 3:
        assert time.monotonic() < limit and small.process.poll() is None
        assert first.create(f"/roll-{time.monotonic_ns()}", b"x" * 1000).err == 0
    log = small.log_path.read_text()
    assert log.count("refusing a connection") == 1 and "ulimit -Hn" in log, log
    assert "Too many open files" not in log
    # Places that become free are given again.
    for conn in served[1:]:
        conn.close_session()
    limit = time.monotonic() + WAIT_S
    while True:
        try:
            raw.Connection(small.port).close_session()
            break
        except (raw.Closed, OSError):
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert small.stop() == 0
