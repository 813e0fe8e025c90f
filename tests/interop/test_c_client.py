"""ZooKeeper's C client: a small program on libzookeeper_mt, and Debian's own `cli_mt` shell."""

import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
CLI_MT = "/usr/lib/zookeeper/bin/cli_mt"


def build(directory) -> pathlib.Path:
    """Compiles c_client.c; needs gcc and libzookeeper-mt-dev."""
    program = pathlib.Path(directory) / "c_client"
    subprocess.run(["gcc", "-O1", "-Wall", "-o", program, HERE / "c_client.c", "-lzookeeper_mt"], check=True)
    return program


def run_program(program, address, root) -> str:
    done = subprocess.run([program, address, root], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def run_cli_mt(address, commands) -> str:
    """Feeds commands to cli_mt, slowly enough that each is answered before the next."""
    script = "".join(f"echo '{command}'; sleep 0.3; " for command in commands)
    done = subprocess.run(f"(sleep 0.7; {script}) | {CLI_MT} {address}", shell=True, capture_output=True,
                          text=True, timeout=90)
    return done.stdout + done.stderr


def test_program(server, tmp_path):
    assert shutil.which("gcc"), "gcc is needed: apt-get install gcc libzookeeper-mt-dev"
    output = run_program(build(tmp_path), server.address, "/c-program")
    assert output.rstrip().endswith("steps")


@pytest.fixture
def shell_output(server):
    return run_cli_mt(server.address, [
        "create /cli-mt", "set /cli-mt hello", "get /cli-mt", "exists /cli-mt", "create +e /cli-mt/e",
        "create +s /cli-mt/s", "ls /cli-mt", "ls2 /cli-mt", "sync /cli-mt", "get /cli-mt/none",
        "addauth digest u:p", "wexists /cli-mt/later", "create /cli-mt/later", "delete /cli-mt/later",
        "delete /cli-mt", "exists /cli-mt", "quit",
    ])


def test_shell(shell_output):
    for expected in ["hello", "Creating [/cli-mt/e] node", "/cli-mt/s0000000001", "/cli-mt/none: rc = -101",
                     "CREATED_EVENT", "rc = -111"]:
        assert expected in shell_output, f"{expected!r} missing in:\n{shell_output}"
