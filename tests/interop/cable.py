#!/usr/bin/env python3
"""Pulls the leader's network cable under load, again and again: nobody says goodbye, and nothing is refused.

    cable.py                              our servers
    cable.py --server apache
    cable.py --silence-ms 1000 --cut-s 8 --every-s 12
                                          with zoometry.leaderSilenceMs=1000

Three members and the load generator have a network namespace each, on one bridge. `zoometry run` measures
workloads/leader-failover.toml with `cut` faults, whose commands in a cluster file take the leader's link down and up
again. Needs Linux, root and iproute2 (apt-get install iproute2).
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from apache import Apache
from member import REPOSITORY
from zoometry import Zoometry, executable

KINDS = {"apache": Apache, "zoometry": Zoometry}
IDS = (1, 2, 3)
LOAD = 4


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True)


class Network:
    """A bridge in a namespace of its own, and a namespace behind each of its ports."""

    def __init__(self):
        tag = f"zm{os.getpid()}"
        self.bridge = f"{tag}b"
        self.names = {port: f"{tag}n{port}" for port in (*IDS, LOAD)}
        self.links = {port: f"{tag}l{port}" for port in self.names}

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "br0", "up")
        for port, name in self.names.items():
            ip("netns", "add", name)
            ip("link", "add", self.links[port], "netns", self.bridge, "type", "veth", "peer", "name", "e0", "netns", name)
            ip("-n", self.bridge, "link", "set", self.links[port], "master", "br0", "up")
            ip("-n", name, "addr", "add", f"{self.address(port)}/24", "dev", "e0")
            ip("-n", name, "link", "set", "e0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def __exit__(self, *_):
        for name in (self.bridge, *self.names.values()):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    def address(self, port):
        return f"10.77.0.{port}"

    def inside(self, port, command):
        return ["ip", "netns", "exec", self.names[port], *map(str, command)]

    def cable(self, port, state):
        return f"ip -n {self.bridge} link set {self.links[port]} {state}"


def start(network, kind, home, silence_ms):
    """One member in each namespace."""
    settings = {f"server.{id}": f"{network.address(id)}:2888:3888" for id in IDS}
    if silence_ms:
        settings["zoometry.leaderSilenceMs"] = silence_ms
    members = []
    for id in IDS:
        own = {"clientPortAddress": network.address(id), **settings}
        member = KINDS[kind](home / str(id), 2181, settings=own, tick_ms=2000)
        (member.data_dir / "myid").write_text(f"{id}\n")
        command = member.command
        member.command = lambda config, id=id, command=command: network.inside(id, command(config))
        member.spawn()
        members.append(member)
    return members


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=sorted(KINDS), default="zoometry")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--silence-ms", type=int, default=0, help="zoometry.leaderSilenceMs (default: syncLimit)")
    parser.add_argument("--cut-s", type=int, default=20, help="how long the cable is out, seconds")
    parser.add_argument("--every-s", type=int, default=35, help="from one round to the next, seconds")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("cable.py makes network namespaces and needs root for it")
    if not shutil.which("ip"):
        sys.exit("cable.py needs the ip command; get it with: apt-get install iproute2")
    program = executable().with_name("zoometry")
    if not program.exists():
        sys.exit(f"no {program}; build it with: cargo build --release --workspace --bins")
    load_s = options.every_s * options.rounds + 10
    with tempfile.TemporaryDirectory(prefix="cable-") as directory, Network() as network:
        home = pathlib.Path(directory)
        lab = "".join(
            f'[[member]]\naddress = "{network.address(id)}:2181"\n'
            f'cut = "{network.cable(id, "down")}"\nheal = "{network.cable(id, "up")}"\n' for id in IDS)
        (home / "lab.toml").write_text(lab)
        members = start(network, options.server, home, options.silence_ms)
        try:
            time.sleep(10 if options.server == "apache" else 3)
            return subprocess.run(network.inside(LOAD, [
                program, "run", REPOSITORY / "workloads/leader-failover.toml",
                "--cluster", home / "lab.toml", "--set", "fault.1.kind=cut", "--set", f"fault.1.for={options.cut_s}s",
                "--set", f"fault.1.repeat={options.rounds}", "--set", f"fault.1.every={options.every_s}s",
                "--set", f"phase.load.duration={load_s}s", "--set", "expect.1=failover.write_gap < 60s",
                "--set", "expect.2=failover.read_gap < 60s"])).returncode
        finally:
            for member in members:
                member.kill()


if __name__ == "__main__":
    sys.exit(main())
