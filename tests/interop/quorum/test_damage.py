"""A member's log is damaged in the middle while the member is down.

It knows that transactions are missing, so it takes no part until its leader has sent it the whole state; alone it
does not start. A tree that is not the logged one is no reason for an ensemble to stop.
"""

import pathlib
import re
import time
import zlib

import pytest

import raw
from load import equal_trees
from member import DidNotStart
from test_sync import SAID, rejoin, write
from zoometry import Zoometry

BATCH = 25
BREAKS_OFF = r"the log breaks off in \S+log\.[0-9a-f]+ at byte \d+: .*missing are the transactions between"
# initLimit must not be shorter than syncLimit, and how long a member in doubt waits is the latter.
QUICK = {"syncLimit": 6}


@pytest.fixture(autouse=True)
def only_ours(ours):
    if ours != "zoometry":
        pytest.skip("Apache's member ends itself, or serves with the hole")


def log_files(data_dir) -> list:
    """The log files that hold a transaction, oldest first."""
    files = sorted(pathlib.Path(data_dir).glob("version-2/log.*"), key=lambda path: int(path.suffix[1:], 16))
    return [path for path in files if records(path)]


def records(path) -> list:
    """Start and end of each record."""
    data, at, found = path.read_bytes(), 16, []
    while length := int.from_bytes(data[at + 8:at + 12], "big"):
        found.append((at, at + 12 + length + 1))
        at += 12 + length + 1
    return found


def edit(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip_end_byte(path):
    _, end = records(path)[len(records(path)) // 2]
    edit(path, lambda data: data.__setitem__(end - 1, 0x43))


def empty(path):
    path.write_bytes(b"")


def change_content(path, old, new):
    """Another content under a right checksum: only the tree's digest can tell."""
    def change(data):
        for start, end in records(path):
            payload = bytes(data[start + 12:end - 1])
            if old in payload:
                payload = payload.replace(old, new)
                data[start + 12:end - 1] = payload
                data[start:start + 8] = zlib.adler32(payload).to_bytes(8, "big")
    edit(path, change)


def change_unseen(path, old, new):
    """The same, and from there on no transaction has a digest, its last twelve bytes: nothing can tell."""
    data, is_changed, changed = path.read_bytes(), False, bytearray()
    for start, end in records(path):
        payload = data[start + 12:end - 1]
        is_changed |= old in payload
        if is_changed:
            payload = payload[:-12].replace(old, new)
        changed += zlib.adler32(payload).to_bytes(8, "big") + len(payload).to_bytes(4, "big") + payload + b"B"
    path.write_bytes(data[:16] + changed)


def three_log_files(ensemble):
    """Seat 3 has a log file for each of three batches, in one epoch, and is down."""
    ensemble.start_led_by(2)
    for batch in range(3):
        if batch:
            ensemble[3].kill()
            ensemble[3].start()
        write(ensemble, BATCH, prefix=f"b{batch}-")
        await_logged(ensemble[3], f"/b{batch}-{BATCH - 1}")
    ensemble[3].kill()


def await_logged(seat, path):
    deadline = time.monotonic() + 20
    while not seat.logged(path.encode()):
        assert time.monotonic() < deadline, f"{seat} does not log {path}"
        time.sleep(0.01)


def nothing_is_lost(ensemble, batches=3):
    """Everything acknowledged is in seat 3's tree, which is everybody's; and seat 3 can lead with it."""
    ensemble.wait_all()
    tree = equal_trees(ensemble)[3]
    missing = [path for batch in range(batches) for path in (f"/b{batch}-{n}" for n in range(BATCH)) if path not in tree]
    assert not missing, missing


@pytest.mark.parametrize("damage", [flip_end_byte, empty, pathlib.Path.unlink], ids=lambda damage: damage.__name__)
def test_a_member_with_a_hole_takes_the_whole_state(new_ensemble, ours, damage):
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours})
    three_log_files(ensemble)
    middle = log_files(ensemble[3].data_dir)[-2]
    damage(middle)
    rejoin(ensemble, "SNAP")
    assert re.search(BREAKS_OFF, ensemble[3].log()), ensemble[3].log()
    nothing_is_lost(ensemble)
    # The directory is a whole one now: it is not asked for again, and the highest number leads.
    ensemble.kill_all()
    ensemble.start_led_by(3)
    assert not re.search(BREAKS_OFF, ensemble[3].log())
    nothing_is_lost(ensemble)


def test_a_hole_before_another_epoch(new_ensemble, ours):
    """Each batch in an epoch of its own, so that the zxids tell nothing: the tree's digest does. All start together, and
    the member with the hole, which has the highest number, is not elected."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours})
    for batch in range(3):
        ensemble.start_led_by(2)
        write(ensemble, BATCH, prefix=f"b{batch}-")
        await_logged(ensemble[3], f"/b{batch}-{BATCH - 1}")
        ensemble.kill_all()
    log_files(ensemble[3].data_dir)[-2].unlink()
    ensemble.start()
    assert ensemble.leader().number != 3
    assert re.search(BREAKS_OFF, ensemble[3].log()), ensemble[3].log()
    nothing_is_lost(ensemble)


def test_where_no_quorum_is_whole_nobody_serves(new_ensemble, ours):
    """One of three is whole, and what only the others hold must not be forgotten: until another whole one comes, or
    somebody decides to lose it."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours})
    three_log_files(ensemble)
    ensemble.kill_all()
    flip_end_byte(log_files(ensemble[3].data_dir)[-2])
    ensemble[3].spawn()
    ensemble[1].spawn()
    deadline = time.monotonic() + 20
    while "takes no part" not in ensemble[3].log():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "zoometry.acceptDamagedLog=true" in ensemble[3].log()
    time.sleep(2)
    assert (ensemble[1].mode(), ensemble[3].mode()) == ("", "")
    ensemble[2].start()
    nothing_is_lost(ensemble)


def test_with_an_apache_leader(new_ensemble, ours):
    """A hole, and then a tree that differs: Apache's leader, too, sends the whole state for either, once."""
    ensemble = new_ensemble({1: "apache", 2: "apache", 3: ours}, settings=QUICK)
    three_log_files(ensemble)
    flip_end_byte(log_files(ensemble[3].data_dir)[-2])
    rejoin(ensemble, "SNAP")
    assert re.search(BREAKS_OFF, ensemble[3].log())
    nothing_is_lost(ensemble)
    conn = ensemble.leader().connect()
    conn.create("/differs", b"right")
    await_logged(ensemble[3], "/differs")
    conn.close_session()
    ensemble[3].kill()
    change_content(log_files(ensemble[3].data_dir)[-1], b"right", b"wrong")
    rejoin(ensemble, "SNAP")
    assert "the recovered tree is not the one that was logged" in ensemble[3].log()
    ensemble.wait_all()
    equal_trees(ensemble)


def test_a_follower_whose_tree_differs_takes_the_whole_state(new_ensemble, ours):
    """It cannot know before the first write that comes with a digest; then it leaves its leader for a moment."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}).start_led_by(2)
    write(ensemble, 5)
    conn = ensemble[2].connect()
    conn.create("/differs", b"right")
    await_logged(ensemble[3], "/differs")
    ensemble[3].kill()
    change_unseen(log_files(ensemble[3].data_dir)[-1], b"right", b"wrong")
    rejoin(ensemble, "DIFF")
    assert b"wrong" in ensemble[3].connect().call("getData", "/differs", False).body
    before = len(ensemble[2].log())
    conn.create("/another", b"")
    deadline = time.monotonic() + 30
    while not re.search(SAID[ours]["SNAP"], ensemble[2].log()[before:]):
        assert time.monotonic() < deadline, ensemble.story()
        time.sleep(0.05)
    conn.close_session()
    ensemble.wait_all()
    equal_trees(ensemble)
    assert ensemble.leader().number == 2, "the others have gone on"
    assert "leaving server 2 for a moment" in ensemble[3].log()
    assert ensemble[3].metrics()["digest_mismatches_count"] > 0


def test_a_wrong_digest_in_every_log_stops_nobody(new_ensemble, ours):
    """A leader has sent a digest that is nobody's (Apache's have done so): every member finds it at the end of its log.
    They come up, and the next transaction shows that nothing is wrong."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}, settings=QUICK).start_led_by(2)
    write(ensemble, 5)
    for seat in ensemble:
        await_logged(seat, "/n4")
    ensemble.kill_all()
    for seat in ensemble:
        path = log_files(seat.data_dir)[-1]

        def spoil(data, path=path):
            start, end = records(path)[-1]
            data[end - 2] ^= 1
            data[start:start + 8] = zlib.adler32(bytes(data[start + 12:end - 1])).to_bytes(8, "big")
        edit(path, spoil)
    ensemble.start()
    differ = [seat for seat in ensemble if "the recovered tree is not the one that was logged" in seat.log()]
    assert len(differ) >= 2, "the logs of a quorum end with it"
    leader = ensemble.leader()
    looked = [seat.log().count("looking for a leader") for seat in ensemble]
    write(ensemble, 5, prefix="after")
    ensemble.wait_all()
    equal_trees(ensemble)
    assert ensemble.leader() is leader
    assert [seat.log().count("looking for a leader") for seat in ensemble] == looked


def test_alone_it_does_not_start(tmp_path):
    server = Zoometry(tmp_path)
    for batch in range(3):
        with server:
            conn = raw.Connection(server.port)
            for number in range(5):
                conn.create(f"/b{batch}-{number}", b"")
            conn.close_session()
    files = log_files(server.data_dir)
    for path in server.data_dir.glob("version-2/snapshot.*"):
        if path.name != "snapshot.0":
            path.unlink()
    flip_end_byte(files[1])
    with pytest.raises(DidNotStart) as refused:
        server.start()
    told = str(refused.value)
    assert re.search(BREAKS_OFF, told) and files[1].name in told, told
    assert "zoometry.acceptDamagedLog=true" in told
    # Nothing was changed by that.
    with pytest.raises(DidNotStart):
        server.start()
    server.settings["zoometry.acceptDamagedLog"] = "true"
    with server:
        conn = raw.Connection(server.port)
        found = [conn.call("exists", f"/b{batch}-4", False).err for batch in range(3)]
        assert found == [0, -101, 0], "what is missing is lost, and nothing else"
        conn.close_session()
    # Once was enough.
    del server.settings["zoometry.acceptDamagedLog"]
    with server:
        pass
