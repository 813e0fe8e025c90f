"""A whole ensemble is replaced, one member at a time, on the same data directories, under load; and back."""

from load import Load


def replace_each(ensemble, load, kind):
    """Followers first and the leader last, as an operator does it; each one must serve before the next goes."""
    leader = ensemble.leader()
    for seat in [*ensemble.others(leader), leader]:
        assert seat.stop() is not None
        seat.become(kind)
        seat.start()
        ensemble.wait_all()
        load.progress()


def test_rolling_replacement_there_and_back(new_ensemble, ours, seed):
    # Small enough for snapshots and new logs to happen on the way.
    ensemble = new_ensemble({1: "apache", 2: "apache", 3: "apache"}, settings={"snapCount": 500}).start()
    with Load(ensemble, writers=6, seed=seed) as load:
        replace_each(ensemble, load, ours)
        assert all(seat.kind == ours for seat in ensemble)
        load.progress(50)
        replace_each(ensemble, load, "apache")
        load.progress()
        print(load.verify())
    # What the directories hold is the same as well: all down, all up, and nothing has changed.
    for seat in ensemble:
        seat.stop()
        seat.become(ours)
    ensemble.start()
    print(load.verify_again())
