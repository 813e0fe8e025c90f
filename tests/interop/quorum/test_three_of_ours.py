"""Three of ours, seen through kazoo: writes through any, reads from each, any one may be killed and comes back."""

import time

import pytest
from kazoo.client import KazooClient, KazooState

from load import Load


@pytest.fixture
def connect():
    clients = []

    def make(*seats, **options):
        hosts = ",".join(f"127.0.0.1:{seat.client}" for seat in seats)
        client = KazooClient(hosts=hosts, timeout=20.0, randomize_hosts=False, **options)
        client.start(20)
        clients.append(client)
        return client
    yield make
    for client in clients:
        client.stop()
        client.close()


def test_write_through_any_read_from_each(new_ensemble, ours, connect):
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}).start()
    clients = [connect(seat) for seat in ensemble]
    for number, writer in enumerate(clients):
        writer.create(f"/from{number}", str(number).encode())
        names = [writer.create("/seq-", sequence=True) for _ in range(5)]
        assert len(set(names)) == 5
        for reader in clients:
            reader.sync("/")
            assert reader.get(f"/from{number}")[0] == str(number).encode()
            assert all(reader.exists(name) for name in names)
    stats = [client.get("/from0")[1] for client in clients]
    assert stats[0] == stats[1] == stats[2]


def test_every_member_lists_the_ensemble(new_ensemble, ours, connect):
    """/zookeeper/config, from which clients such as Curator take the servers that they connect to."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours, 4: ours}, observers=(4,)).start()
    expected = [f"{name}={value}" for name, value in ensemble.server_lines().items()] + ["version=0"]
    for seat in ensemble:
        text, stat = connect(seat).get("/zookeeper/config")
        assert text.decode().split("\n") == expected
        assert (stat.version, stat.aversion, stat.mzxid) == (-1, -1, 0)


def test_kill_any_and_go_on(new_ensemble, ours, seed, connect):
    """Each member in turn, the leader too, while a client that knows all three keeps its session and ephemeral."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}).start()
    seats = list(ensemble)
    guest = connect(*seats)
    states = []
    guest.add_listener(states.append)
    guest.create("/guest", ephemeral=True)
    with Load(ensemble, writers=6, seed=seed) as load:
        for seat in seats:
            was = seat.mode()
            seat.kill()
            gap = load.progress()
            seat.start()
            ensemble.wait_all()
            load.progress()
            print(f"{seat} ({was}) killed: every writer had answers again after {gap:.2f} s")
        # The leader once more: each of the three may have led by now, this one has for sure.
        leader = ensemble.leader()
        leader.kill()
        load.progress()
        leader.start()
        ensemble.wait_all()
        print(load.verify())
    assert KazooState.LOST not in states, states
    guest.retry(guest.set, "/guest", b"still mine")
    assert guest.get("/guest")[1].owner_session_id == guest.client_id[0]


def test_frozen_leader(new_ensemble, ours, seed):
    """A leader that stands still (SIGSTOP) is replaced; when it goes on it follows, and what it had not committed is
    gone or committed, but never half of it."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: ours}, settings={"syncLimit": 4}).start()
    with Load(ensemble, writers=6, seed=seed) as load:
        leader = ensemble.leader()
        leader.freeze()
        assert ensemble.leader() is not leader
        load.progress()
        leader.thaw()
        while leader.mode() != "follower":
            leader.check_alive()
            time.sleep(0.05)
        load.progress()
        follower = ensemble.followers()[0]
        follower.freeze()
        load.progress()
        follower.thaw()
        ensemble.wait_all()
        load.progress()
        print(load.verify())
