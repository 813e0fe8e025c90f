"""What members say about themselves: the same fields as an Apache member in the same role, and the same answers
while there is no quorum."""

import re
import time

import pytest

# What an ensemble's operator looks at, on every member. Apache has hundreds more about its own insides (queues of
# its processors, pools, caches); they are no part of the comparison.
EVERYWHERE = {
    "version", "server_state", "peer_state", "quorum_size", "proposal_count", "commit_count", "looking_count", "diff_count",
    "snap_count", "learner_proposal_received_count", "learner_commit_received_count", "revalidate_count",
    "connection_revalidate_count", "stale_sessions_expired", "digest_mismatches_count", "cnt_election_time", "cnt_fsynctime",
    "cnt_updatelatency", "cnt_readlatency", "cnt_follower_sync_time", "znode_count", "watch_count", "ephemerals_count",
    "approximate_data_size", "global_sessions", "local_sessions", "num_alive_connections", "outstanding_requests",
    "packets_received", "packets_sent", "avg_latency", "min_latency", "max_latency", "uptime", "open_file_descriptor_count",
}
# Some are kept for every learner or for every namespace, and come with the first of them.
KEYED = re.compile(r"^(avg|min|max|cnt|sum|p50|p95|p99|p999)_\S+_(learner_handler_\w+|(write|read)_per_namespace)$")
ALONE = ["ruok", "isro", "srvr", "stat", "mntr", "conf", "cons", "dump", "wchs", "dirs", "hash"]
NOT_SERVING = "This ZooKeeper instance is not currently serving requests"


def fields(word, text) -> list:
    """The names in an answer, in order, without their values."""
    if word in ("srvr", "stat"):
        return [line.split(":")[0] for line in text.splitlines() if ": " in line and not line.startswith(" ")]
    names = [re.split(r"[=\t]|: ", line)[0] for line in text.splitlines() if line.strip()]
    return [name.removeprefix("zk_") for name in names]


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


def metrics(answers, who, role) -> set:
    return {name for name in fields("mntr", answers[who, role]["mntr"]) if not KEYED.match(name)}


@pytest.mark.parametrize("role", ["leader", "follower", "observer"])
def test_metrics_of_a_role(answers, role):
    """What Apache has in this role and not in another one, and what every member has."""
    mine, apaches = metrics(answers, "ours", role), metrics(answers, "apache", role)
    common = metrics(answers, "apache", "leader") & metrics(answers, "apache", "follower") & metrics(answers, "apache", "observer")
    elsewhere = (metrics(answers, "apache", "leader") | metrics(answers, "apache", "observer")) - apaches
    assert EVERYWHERE <= common, sorted(EVERYWHERE - common)
    missing, wrong = (EVERYWHERE | (apaches - common)) - mine, mine & elsewhere
    assert not missing, f"missing in mntr of a {role}: {sorted(missing)}"
    assert not wrong, f"no business of a {role}: {sorted(wrong)}"


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
