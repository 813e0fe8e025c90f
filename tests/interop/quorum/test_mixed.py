"""Our server beside Apache members in one ensemble, in every role, under load, with leaders killed both ways."""

import pytest

from load import Load


def test_beside_two_apache_members(new_ensemble, ours, seed):
    """Ours follows and observes, then leads, is killed while it leads, and follows again."""
    kinds = {1: "apache", 2: "apache", 3: ours, 4: ours}
    ensemble = new_ensemble(kinds, observers=(4,)).start_led_by(2)
    assert (ensemble[3].mode(), ensemble[4].mode()) == ("follower", "observer")
    with Load(ensemble, writers=8, seed=seed) as load:
        ensemble.make_leader(3)
        assert ensemble[4].mode() == "observer"
        load.progress()
        ensemble[3].kill()
        assert ensemble.leader().number in (1, 2)
        load.progress()
        ensemble[3].start()
        ensemble.wait_all()
        assert ensemble[3].mode() == "follower"
        load.progress()
        print(load.verify())


def test_two_beside_one_apache_member(new_ensemble, ours, seed):
    """Apache leads two of ours and is killed; one of ours leads, Apache comes back as its follower; an Apache
    observer sees all of it."""
    kinds = {1: ours, 2: ours, 3: "apache", 4: "apache"}
    ensemble = new_ensemble(kinds, observers=(4,)).start_led_by(3)
    with Load(ensemble, writers=8, seed=seed) as load:
        ensemble[3].kill()
        assert ensemble.leader().number in (1, 2)
        load.progress()
        ensemble[3].start()
        ensemble.wait_all()
        assert (ensemble[3].mode(), ensemble[4].mode()) == ("follower", "observer")
        load.progress()
        # Apache's turn to lead again, and ours to take it from there by the id alone.
        ensemble.make_leader(3)
        load.progress()
        print(load.verify())


@pytest.mark.parametrize("form", ["static", "dynamic"])
def test_forms_of_server_lines(new_ensemble, ours, seed, form):
    """The client's port as clientPort, and the server lines in a dynamicConfigFile."""
    ensemble = new_ensemble({1: ours, 2: ours, 3: "apache"}, form=form).start_led_by(2)
    with Load(ensemble, writers=3, seed=seed) as load:
        print(load.verify())


def test_server_id_zero(new_ensemble, ours, seed):
    """An ensemble 0, 1, 2: ours is 0, follows, leads an Apache member, and follows again."""
    ensemble = new_ensemble({0: ours, 1: "apache", 2: ours}).start_led_by(2)
    with Load(ensemble, writers=3, seed=seed) as load:
        ensemble.make_leader(0)
        load.progress()
        ensemble[0].kill()
        assert ensemble.leader().number in (1, 2)
        ensemble[0].start()
        ensemble.wait_all()
        load.progress()
        print(load.verify())
