"""readonlymode.enabled: a member that is cut off from its quorum serves readers that ask for it."""

import time

import pytest

import raw

# New sessions on such a member are local ones; without them Apache refuses even readers.
SETTINGS = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}
NOT_READ_ONLY = -119


def wait_mode(seat, mode):
    limit = time.monotonic() + 20
    while seat.mode() != mode:
        seat.check_alive()
        assert time.monotonic() < limit, f"{seat} is {seat.mode()!r}, not {mode!r}"
        time.sleep(0.05)


def test_a_cut_off_member_serves_readers(new_ensemble, ours):
    ensemble = new_ensemble({1: ours, 2: ours, 3: "apache"}, settings=SETTINGS,
                            properties={"readonlymode.enabled": "true"}).start_led_by(2)
    cut_off = ensemble[1]
    owner = cut_off.connect()
    assert owner.create("/a", b"before").err == 0
    assert owner.create("/e", flags=1).err == 0
    ensemble[2].kill()
    ensemble[3].kill()
    wait_mode(cut_off, "read-only")
    assert owner.is_closed()
    assert cut_off.word("isro") == "ro"
    assert "READ-ONLY mode; serving only read-only clients\n" in cut_off.word("srvr")
    # Whoever did not ask for it is closed without an answer, and so is a session of the ensemble.
    for options in ({"read_only": False}, {"read_only": None}, {"read_only": True, "session": owner.session,
                                                               "password": owner.password}):
        with pytest.raises(raw.Closed):
            raw.Connection(cut_off.client, **options)
    reader = raw.Connection(cut_off.client, read_only=True)
    assert reader.session != 0 and reader.answer["readOnly"] is True
    assert reader.call("getData", "/a", True).fields["data"] == b"before"
    assert reader.call("exists", "/e", False).fields["stat"]["owner"] == owner.session
    for refused in [("create", "/b", b"", raw.OPEN_ACL, 0), ("setData", "/a", b"", -1), ("delete", "/a", -1), ("sync", "/"),
                    ("multi", [("setData", "/a", b"", -1)])]:
        assert reader.call(*refused).err == NOT_READ_ONLY, refused
    assert reader.call("ping").err == 0
    # The quorum is back: readers are closed and everybody is served again.
    ensemble[2].start()
    ensemble.wait_all()
    assert reader.is_closed()
    assert cut_off.word("isro") == "rw"
    back = cut_off.connect(session=owner.session, password=owner.password)
    assert back.session == owner.session
    assert back.call("setData", "/e", b"after", -1).err == 0
    back.close_session()
