"""A pytest plugin that runs kazoo's own test suite against a server of our choice.

    PYTHONPATH=tests/interop INTEROP_SERVER=zoometry pytest -p kazoo_own --pyargs kazoo.tests

kazoo's harness starts Java processes; here it is handed one standalone server from `zoometry.py` or
`apache.py` instead. Left out, by name: what needs an ensemble (reconfig, read-only mode, observers, two addresses), SASL and
TLS, and packages that kazoo only needs for its tests (gevent, eventlet).
"""

import os
import pathlib
import sys
import tempfile
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
# The harness imports these to make TLS certificates, which we do not need.
for name in ("OpenSSL", "jks"):
    sys.modules.setdefault(name, types.ModuleType(name))
os.environ.setdefault("ZOOKEEPER_VERSION", "3.9.5")
os.environ.setdefault("ZOOKEEPER_CLUSTER_SIZE", "1")

from kazoo.testing import harness  # noqa: E402

from apache import Apache  # noqa: E402
from zoometry import Zoometry  # noqa: E402

KIND = {"apache": Apache, "zoometry": Zoometry}[os.environ.get("INTEROP_SERVER", "zoometry")]
SETTINGS = {
    "reconfigEnabled": "true",
    # The super user's password is "test".
    "DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
}
LEFT_OUT = ("sasl", "ssl", "tls", "reconfig", "read_only", "gevent", "eventlet", "kerberos", "gssapi", "interrupt",
            "readonly", "max_connections", "update_host_list")


class Managed:
    """What kazoo's harness expects of a server."""

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(prefix="kazoo-own-")
        self.member = KIND(self.home.name, settings=SETTINGS, tick_ms=2000)

    running = property(lambda self: self.member.process is not None)
    client_port = property(lambda self: self.member.port)
    address = property(lambda self: self.member.address)
    secure_address = property(lambda self: self.member.address)

    def run(self):
        if not self.running:
            self.member.start()

    def stop(self):
        self.member.stop()

    def reset(self):
        self.stop()
        self.member.wipe()

    def destroy(self):
        self.reset()

    def get_logs(self, num_lines=100):
        return self.member.log_tail(num_lines).splitlines()


class Cluster:
    """One server, where kazoo would start several."""

    def __init__(self, **_):
        self.servers = [Managed()]

    def __getitem__(self, at):
        return self.servers[at]

    def __iter__(self):
        return iter(self.servers)

    def start(self):
        for server in self.servers:
            server.run()

    def stop(self):
        for server in self.servers:
            server.stop()

    def terminate(self):
        for server in self.servers:
            server.destroy()

    def get_logs(self):
        return self.servers[0].get_logs()


harness.ZookeeperCluster = Cluster


def pytest_report_header(config):
    return f"server under test: {KIND.kind}, with kazoo's own tests"


def pytest_ignore_collect(collection_path, config):
    return True if any(word in collection_path.name for word in LEFT_OUT) else None


def pytest_collection_modifyitems(config, items):
    def left_out(item):
        return any(word in item.nodeid.lower() for word in LEFT_OUT)
    config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
    items[:] = [item for item in items if not left_out(item)]
