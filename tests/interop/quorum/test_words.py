"""What members say about themselves: the same fields as an Apache member in the same role, and the same answers
while there is no quorum."""

import re
import time

import pytest

# Fields with a part of their own for every learner and namespace; `raw` reads them without that part.
KEYED = re.compile(r"(avg|min|max|cnt|sum|p50|p95|p99|p999)_[^_]+_(learner_handler_qp_size|learner_handler_qp_time_ms|"
                   r"(?:read|write)_per_namespace)$")
# How far an Apache of another version may differ: names that came or went between 3.8 and 3.9.
SINCE_3_9 = {
    "cnxn_closed_without_zk_server_running", "skip_learner_request_to_next_processor_count", "quit_leading_due_to_disloyal_voter",
}
ALONE = ["ruok", "isro", "srvr", "stat", "mntr", "conf", "cons", "dump", "wchs", "dirs", "hash"]
NOT_SERVING = "This ZooKeeper instance is not currently serving requests"


def fields(word, text) -> list:
    """The names in an answer, in order, without their values."""
    if word in ("srvr", "stat"):
        return [line.split(":")[0] for line in text.splitlines() if ": " in line and not line.startswith(" ")]
    names = [re.split(r"[=\t]|: ", line)[0] for line in text.splitlines() if line.strip()]
    return [KEYED.sub(r"\1_KEY_\2", name.removeprefix("zk_")) for name in names]


@pytest.fixture(scope="module")
def answers(ours, tmp_path_factory):
    """(kind, role) -> word -> answer; each kind leads once, beside a follower and an observer of either kind."""
    from ensemble import Ensemble
    kinds = {1: ours, 2: "apache", 3: ours, 4: "apache", 5: ours, 6: "apache"}
    with Ensemble(tmp_path_factory.mktemp("words") / "e", {n: k for n, k in kinds.items() if n != 4},
                  observers=(5, 6)) as ensemble:
        found = {}
        for leader in (3, 2):
            ensemble.start_led_by(3) if leader == 3 else ensemble.make_leader(2)
            conn = ensemble[1].connect()
            conn.create(f"/by{leader}", b"x")
            conn.call("getData", f"/by{leader}", False)
            conn.close_session()
            for seat in ensemble:
                said = {word: seat.word(word) for word in ("srvr", "stat", "mntr", "conf", "isro", "ruok", "dump")}
                # The seat names who it is, so that both are there also when all are Apache's.
                who = "apache" if kinds[seat.number] == "apache" and seat.number in (2, 6) else "ours"
                found[who, seat.mode()] = said
        yield found


@pytest.mark.parametrize("role", ["leader", "follower", "observer"])
@pytest.mark.parametrize("word", ["srvr", "stat", "conf"])
def test_same_lines(answers, role, word):
    assert fields(word, answers["ours", role][word]) == fields(word, answers["apache", role][word])


@pytest.mark.parametrize("role", ["leader", "follower", "observer"])
def test_same_metrics(answers, role):
    mine, apaches = (set(fields("mntr", answers[who, role]["mntr"])) for who in ("ours", "apache"))
    missing, more = apaches - mine - SINCE_3_9, mine - apaches
    assert not missing, f"missing in mntr of a {role}: {sorted(missing)}"
    print(f"{role}: {len(mine)} metrics, beyond Apache's: {sorted(more)}")


@pytest.mark.parametrize("role, state", [("leader", "leading"), ("follower", "following"), ("observer", "observing")])
def test_states(answers, role, state):
    said = answers["ours", role]
    assert f"Mode: {role}\n" in said["srvr"]
    assert f"zk_server_state\t{role}\n" in said["mntr"]
    assert f"zk_peer_state\t{state} - broadcast\n" in said["mntr"]
    assert (said["isro"], said["ruok"]) == ("rw", "imok")
    assert "zk_quorum_size\t3\n" in said["mntr"]
    if role == "leader":
        assert "zk_synced_followers\t2\n" in said["mntr"] and "zk_synced_observers\t2\n" in said["mntr"]
    observer = "1" if role == "observer" else "0"
    assert f"\npeerType={observer}\n" in said["conf"]
    membership = said["conf"].split("membership: \n")[1]
    assert re.search(r"^server\.1=127\.0\.0\.1:\d+:\d+:participant;127\.0\.0\.1:\d+$", membership, re.M)
    assert re.search(r"^version=0$", membership, re.M)
    assert ("Session Sets (" if role == "leader" else "Global Sessions(") in said["dump"]


def test_without_a_quorum(new_ensemble, ours):
    """A member alone answers `ruok` and `isro`, and for the rest says that it does not serve; so does one whose
    quorum has just gone. Clients are closed without an answer."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: "apache"})
    for kind in (ours, "apache"):
        ensemble[1].become(kind)
        ensemble[1].spawn()
        check_alone(ensemble[1])
        ensemble[1].kill()
    ensemble[1].become(ours)
    ensemble.start_led_by(2)
    session = ensemble[1].connect()
    ensemble[3].kill()
    ensemble[2].kill()
    check_alone(ensemble[1])
    assert session.is_closed()
    ensemble[2].start()
    ensemble.wait_all()
    again = ensemble[1].connect(session=session.session, password=session.password)
    assert again.session == session.session
    again.close_session()


def check_alone(seat):
    limit = time.monotonic() + 20
    while seat.word("ruok") != "imok" or NOT_SERVING not in seat.word("srvr"):
        seat.check_alive()
        assert time.monotonic() < limit, seat.word("srvr")
        time.sleep(0.05)
    expected = {"ruok": "imok", "isro": "null"}
    for word in ALONE:
        assert seat.word(word).rstrip("\n") == expected.get(word, NOT_SERVING), word
