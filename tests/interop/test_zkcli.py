"""Debian's zkCli.sh (Apache's Java client) through a script that touches every command it has."""

import pathlib
import re
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ZKCLI = "/usr/share/zookeeper/bin/zkCli.sh"


def run_script(address, script: str) -> str:
    """Feeds a script to zkCli.sh; standard output and error as one text."""
    done = subprocess.run([ZKCLI, "-server", address], input=script, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def output(server):
    return run_script(server.address, (HERE / "zkcli.txt").read_text())


@pytest.mark.parametrize("pattern", [
    r"Created /cli\n", r"Created /cli/seq-0000000001\n", r"Created /cli/eseq-0000000003\n",
    r"Created /cli/box\n", r"Created /cli/ttl\n", r"Node already exists: /cli/a",
    r"Node does not exist: /cli/nowhere/x", r"\[a, box, empty, eph, eseq-0000000003, seq-0000000001, ttl\]",
    r"cversion = 7\ndataVersion = 0\naclVersion = 0\nephemeralOwner = 0x0\ndataLength = 9\nnumChildren = 7",
    r"dataVersion = 2\naclVersion = 0\nephemeralOwner = 0x0\ndataLength = 5\nnumChildren = 0",
    r"version No is not valid : /cli/a", r"version No is not valid : /cli/child",
    r"'world,'anyone\n: cdrwa", r"'digest,'u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\n: cdrwa", r"'world,'anyone\n: r\n",
    r"Insufficient permission : /cli/mine", r"ip: 127\.0\.0\.1\ndigest: u\n",
    r"Output quota for /cli count=100,bytes=-1=;byteHardLimit=-1;countHardLimit=-1",
    r"Output stat for /cli count=9,bytes=20", r"NodeDataChanged path:/cli/a", r"NodeCreated path:/cli/later",
    r"NodeChildrenChanged path:/cli\n", r"PersistentWatchRemoved path:/cli/a", r"Sync is OK",
    r"\[/cli/eph, /cli/eseq-0000000003\]", r"\n10\n", r"Reconfig is disabled", r"state:Closed type:None",
], ids=lambda pattern: re.sub(r"\W+", "-", pattern)[:40])
def test_output(output, pattern):
    assert re.search(pattern, output), output


def test_left_nothing(output):
    """`deleteall /cli` came through: the listing behind it does not name cli."""
    listing = re.findall(r"^\[.*zookeeper.*\]$", output, re.M)
    assert listing and "cli" not in re.split(r"[\[\], ]+", listing[-1]), output
