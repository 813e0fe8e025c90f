"""Fixtures of the ensemble tests. Who sits where is each test's business; `ours` is the server under test.

    pytest tests/interop/quorum                      our server beside Apache's
    pytest tests/interop/quorum --server apache      Apache in every seat, to prove the tests themselves
    pytest tests/interop/quorum --rounds 50          the long rounds of kill -9
"""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from ensemble import Ensemble  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, default=3, help="rounds of kill -9")
    parser.addoption("--seed", type=int, default=1, help="of the load and of the rounds")


def pytest_configure(config):
    config.addinivalue_line("markers", "takes_rounds: the test takes longer the more --rounds there are")


def pytest_collection_modifyitems(config, items):
    # Before the test begins: its clock is set then.
    limit_s = 120 + 60 * config.getoption("--rounds")
    for item in items:
        if item.get_closest_marker("takes_rounds"):
            item.add_marker(pytest.mark.timeout(limit_s))


@pytest.fixture(scope="session")
def ours(server_kind):
    """The kind of the seats under test."""
    return server_kind


@pytest.fixture(scope="session")
def seed(request):
    return request.config.getoption("--seed")


@pytest.fixture
def new_ensemble(tmp_path):
    """A function that makes (and does not start) an ensemble; everything is stopped after the test."""
    made = []

    def make(kinds, **options):
        made.append(Ensemble(tmp_path / f"ensemble{len(made)}", kinds, **options))
        return made[-1]
    yield make
    for ensemble in made:
        ensemble.close()
