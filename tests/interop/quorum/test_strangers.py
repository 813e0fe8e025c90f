"""What anybody may say or leave unsaid on the peer ports, with three of ours and beside Apache: no word deposes a leader,
idle connections keep no member out, and epochs do not come to an end."""

import contextlib
import socket
import struct
import time

import pytest

FOLLOWERINFO, OBSERVERINFO = 11, 16
EPOCH_MAX = 2**31 - 1
CROWD = 100


def introduction(kind, sid, accepted):
    """A learner's first packet."""
    info = struct.pack(">qiq", sid, 0x10000, 0)
    return struct.pack(">iqi", kind, accepted << 32, len(info)) + info + struct.pack(">i", -1)


def epoch(seat):
    return seat.zxid() >> 32


def write(seat, path):
    conn = seat.connect()
    conn.create(path)
    conn.close_session()


def exists(conn, path):
    return conn.call("exists", path, False).err == 0


def tell_lies(leader, sids):
    """Everything that a learner can claim about its epoch; returns how many claims were made."""
    claims = [(kind, sid, accepted) for kind in (FOLLOWERINFO, OBSERVERINFO) for sid in sids
              for accepted in (epoch(leader) + 1, epoch(leader) + 1000, EPOCH_MAX, -1)]
    for claim in claims:
        with socket.create_connection(("127.0.0.1", leader.quorum), timeout=10) as liar:
            liar.sendall(introduction(*claim))
            liar.settimeout(0.2)
            # Its answer, the end, or nothing.
            with contextlib.suppress(OSError):
                liar.recv(100)
    return len(claims)


@pytest.mark.parametrize("kinds, number", [
    ({1: "zoometry", 2: "zoometry", 3: "zoometry"}, 3),
    ({1: "apache", 2: "zoometry", 3: "zoometry"}, 3),
    ({1: "zoometry", 2: "zoometry", 3: "apache"}, 3),
], ids=["ours", "ours leads", "Apache leads"])
def test_no_word_deposes_a_leader(new_ensemble, ours, kinds, number):
    """The last case is the measure: Apache's leader answers all of them and goes on."""
    kinds = {seat: ours if kind == "zoometry" else kind for seat, kind in kinds.items()}
    ensemble = new_ensemble(kinds).start_led_by(number)
    leader = ensemble[number]
    write(leader, "/before")
    before = epoch(leader)
    watcher = leader.connect()
    told = tell_lies(leader, [1, 2, number, 99])
    time.sleep(1)
    write(leader, "/after")
    watcher.create("/the-same-connection")
    assert ensemble.leader() is leader and epoch(leader) == before, f"after {told} lies"
    for seat in ensemble.followers():
        assert seat.mode() == "follower"


def test_what_was_written_after_a_loss_is_kept(new_ensemble, ours):
    """Four of five lose their data and write anew. The fifth, whose epoch is the later one, must not take the lead."""
    ensemble = new_ensemble({number: ours for number in range(1, 6)}).start()
    for round_number in range(3):
        write(ensemble.leader(), f"/old{round_number}")
        ensemble.leader().kill()
        ensemble.start()
        ensemble.wait_all()
    old = epoch(ensemble.leader())
    write(ensemble.leader(), "/old")
    ensemble.kill_all()
    rest = [ensemble[number] for number in (1, 2, 4, 5)]
    for seat in rest:
        seat.wipe()
    ensemble.start(*(seat.number for seat in rest))
    leader = ensemble.leader()
    write(leader, "/new")
    new = epoch(leader)
    assert new < old
    ensemble[3].spawn()
    limit = time.monotonic() + 20
    while "move its version-2 directories away" not in ensemble[3].log():
        ensemble[3].check_alive()
        assert time.monotonic() < limit, ensemble.story()
        time.sleep(0.05)
    time.sleep(2)
    assert ensemble.leader() is leader and epoch(leader) == new
    assert ensemble[3].mode() == ""
    # It tries again without haste.
    assert ensemble[3].log().count("cannot follow") <= 4
    for seat in rest:
        conn = seat.connect()
        assert exists(conn, "/new") and not exists(conn, "/old")
        conn.close_session()
    ensemble[3].kill()
    ensemble[3].wipe()
    ensemble[3].start()
    conn = ensemble[3].connect()
    assert exists(conn, "/new")


@pytest.mark.parametrize("port", ["quorum", "election"])
def test_idle_connections_keep_nobody_out(new_ensemble, ours, port):
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}).start()
    leader = ensemble.leader()
    follower = ensemble.followers()[0]
    follower.kill()
    with contextlib.ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(socket.create_connection(("127.0.0.1", getattr(leader, port)), timeout=10))
        began = time.monotonic()
        follower.start()
        took = time.monotonic() - began
        assert follower.mode() == "follower" and ensemble.leader() is leader
        # initLimit and syncLimit are 10 s and 5 s here.
        assert took < 4, f"{took:.1f} s with {CROWD} connections that say nothing"


def test_an_epoch_file_at_the_end_of_all_epochs(new_ensemble, ours):
    """The member says which file it is and what to do, and the others go on."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}).start()
    follower = ensemble.followers()[0]
    write(ensemble.leader(), "/before")
    before = epoch(ensemble.leader())
    follower.stop()
    (follower.data_dir / "version-2" / "acceptedEpoch").write_text(str(EPOCH_MAX))
    follower.spawn()
    code = follower.member.process.wait(20)
    assert code != 0
    said = follower.log()
    assert "acceptedEpoch holds 2147483647" in said and "start" in said, said
    follower.kill()
    leader = ensemble.leader()
    write(leader, "/on")
    assert epoch(leader) == before
