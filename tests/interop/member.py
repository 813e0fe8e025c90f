"""One ZooKeeper server process under test: start, wait until it serves, stop, kill.

`apache.py` and `zoometry.py` say how their server is started; everything else is here, so that every
suite can run against either one. Only processes that this module started are ever signalled, by their pid.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def free_port() -> int:
    """A loopback TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def four_letter_word(port: int, word: str, timeout_s: float = 5.0) -> str:
    """Sends one command word to the client port and returns everything up to the close."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as conn:
        conn.sendall(word.encode())
        parts = []
        while part := conn.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


class DidNotStart(Exception):
    """The server was not serving in time; the text holds the end of its log."""


class Member:
    """A server process with a configuration file and a data directory.

    `settings` are further zoo.cfg lines as a dict, `properties` are Java system properties (for a
    Zoometry server they become `zookeeper.`-style settings where it has them).
    """

    kind = "server"
    start_limit_s = 40.0

    def __init__(self, home, port=None, settings=None, properties=None, tick_ms=500, data_dir=None):
        self.home = pathlib.Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.data_dir = pathlib.Path(data_dir) if data_dir else self.home / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.home / f"{self.kind}.log"
        self.settings = {
            "tickTime": tick_ms,
            "initLimit": 10,
            "syncLimit": 5,
            "dataDir": self.data_dir,
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            **(settings or {}),
        }
        self.properties = dict(properties or {})
        self.process = None
        # Further arguments for Popen: limits, signals.
        self.popen = {}

    @property
    def address(self) -> str:
        """host:port, as clients write it."""
        return f"127.0.0.1:{self.port}"

    def write_config(self) -> pathlib.Path:
        path = self.home / "zoo.cfg"
        path.write_text("".join(f"{key}={value}\n" for key, value in self.settings.items()))
        return path

    def command(self, config: pathlib.Path) -> list:
        raise NotImplementedError

    def environment(self) -> dict:
        return dict(os.environ)

    def start(self):
        """Starts the process and returns once `srvr` is answered with a mode."""
        self.spawn()
        return self.wait_serving()

    def spawn(self):
        """Starts the process without waiting for anything."""
        assert self.process is None, "already started"
        command = [str(part) for part in self.command(self.write_config())]
        with open(self.log_path, "ab") as log:
            log.write(f"---- {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                env=self.environment(), start_new_session=True, **self.popen,
            )

    def wait_serving(self):
        """Returns once `srvr` is answered with a mode; kills the process if that takes too long."""
        deadline = time.monotonic() + self.start_limit_s
        while True:
            if self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise DidNotStart(f"{self.kind} exited with {code}\n{self.log_tail()}")
            if self.is_serving():
                return self
            if time.monotonic() > deadline:
                self.kill()
                raise DidNotStart(f"{self.kind} not serving after {self.start_limit_s} s\n{self.log_tail()}")
            time.sleep(0.05)

    def is_serving(self) -> bool:
        try:
            return "Mode:" in four_letter_word(self.port, "srvr", 2.0)
        except OSError:
            return False

    def log_tail(self, lines: int = 25) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number):
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def stop(self, limit_s: float = 15.0):
        """SIGTERM, then SIGKILL if it is still there after `limit_s`. Returns the exit code."""
        if self.process is None:
            return None
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
        code, self.process = self.process.returncode, None
        return code

    def kill(self):
        """SIGKILL, as `kill -9` does."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def wipe(self):
        """Deletes the data directory's contents; the server must be stopped."""
        assert self.process is None
        shutil.rmtree(self.data_dir)
        self.data_dir.mkdir(parents=True)

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, *_):
        self.stop()
