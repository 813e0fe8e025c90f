"""Which server the suites run against, and fixtures that start it.

    pytest tests/interop --server zoometry      our server (the default)
    pytest tests/interop --server apache        Apache ZooKeeper, to prove that the tests themselves are right
"""

import contextlib
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from apache import Apache  # noqa: E402
from zoometry import Zoometry  # noqa: E402

KINDS = {"apache": Apache, "zoometry": Zoometry}
# Extended types give TTL nodes; the super user's password is "secret".
SETTINGS = {
    "extendedTypesEnabled": "true",
    # Raw connections send no pings; on a busy machine twenty ticks of 500 ms would be too few.
    "maxSessionTimeout": 60_000,
    "DigestAuthenticationProvider.superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
}
# Apache reads this one as a Java property only.
PROPERTIES = {"znode.container.checkIntervalMs": 1000}


def pytest_addoption(parser):
    parser.addoption("--server", choices=sorted(KINDS), default="zoometry", help="the server under test")
    parser.addoption("--long", action="store_true", help="the tests that take many minutes as well")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes many minutes, and is left out without --long")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="--long was not given"))


def pytest_report_header(config):
    return f"server under test: {config.getoption('--server')}"


@pytest.fixture(scope="session")
def server_kind(request):
    """`apache` or `zoometry`."""
    return request.config.getoption("--server")


@pytest.fixture(scope="session")
def new_server(server_kind, tmp_path_factory):
    """A function that makes (and does not start) a server; keyword arguments as for `Member`."""
    with contextlib.ExitStack() as stack:
        def make(settings=None, **options):
            home = tmp_path_factory.mktemp(server_kind)
            settings = {**SETTINGS, **(settings or {})}
            server = KINDS[server_kind](home, settings=settings, properties=PROPERTIES, **options)
            stack.callback(server.stop)
            return server
        yield make


@pytest.fixture(scope="session")
def server(new_server):
    """One running server for the tests that do not restart it."""
    return new_server().start()


@pytest.fixture
def own_server(new_server):
    """A running server for one test alone."""
    server = new_server().start()
    yield server
    server.stop()
