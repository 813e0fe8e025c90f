"""An ensemble of members of any kind on this machine: start, stop, kill, freeze, change of kind, roles.

A `Seat` is a place in the ensemble: an id, three ports, a data directory and a role. Who sits there, Apache
ZooKeeper or our server, may change between two starts; the directory and the ports stay. So one test can
replace a whole ensemble, member by member.

Ports come from a block that this process holds for its lifetime, below the range from which the kernel takes the
ports of outgoing connections: a member that is down for a while still finds its ports free.

Only processes started here are ever signalled.
"""

import atexit
import os
import pathlib
import signal
import socket
import time

import raw
from apache import Apache
from member import DidNotStart, four_letter_word
from zoometry import Zoometry

KINDS = {"apache": Apache, "zoometry": Zoometry}
TICK_MS = 500
SUPER = "super:lK75jTNcA+U9vtVEw5vB51mj/w4="  # the password is "secret"
# A short tick, so that losses are seen soon; initLimit is long because a JVM may start on a busy machine.
SETTINGS = {
    "initLimit": 20, "syncLimit": 10, "preAllocSize": 1024, "maxSessionTimeout": 60_000,
    "extendedTypesEnabled": "true", "DigestAuthenticationProvider.superDigest": SUPER,
}
START_LIMIT_S = 60.0
ROLE_LIMIT_S = 60.0
NOT_SERVING = "not currently serving"

BLOCK_FIRST, BLOCK_SIZE, BLOCKS = 15_000, 100, 150


class PortBlock:
    """A hundred ports of this process: whoever listens on the first one of a block owns it."""

    def __init__(self):
        self.guard = socket.socket()
        start = os.getpid() % BLOCKS
        for offset in range(BLOCKS):
            first = BLOCK_FIRST + (start + offset) % BLOCKS * BLOCK_SIZE
            try:
                self.guard.bind(("127.0.0.1", first))
                self.guard.listen(1)
            except OSError:
                continue
            self.next, self.end = first + 1, first + BLOCK_SIZE
            return
        raise RuntimeError(f"all {BLOCKS} blocks of ports from {BLOCK_FIRST} on are taken")

    def take(self) -> int:
        """A port of the block that is free now; each is given out once, then from the start again."""
        for _ in range(BLOCK_SIZE):
            port, self.next = self.next, self.next + 1
            if self.next == self.end:
                self.next = self.end - BLOCK_SIZE + 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise RuntimeError("no free port left in the block")


_block = None


def take_port() -> int:
    global _block
    if _block is None:
        _block = PortBlock()
        atexit.register(_block.guard.close)
    return _block.take()


class Seat:
    """One place in the ensemble, and the process in it if it runs."""

    def __init__(self, ensemble, number, kind, observer=False):
        self.ensemble, self.number, self.kind, self.observer = ensemble, number, kind, observer
        self.client, self.quorum, self.election = take_port(), take_port(), take_port()
        self.data_dir = ensemble.home / f"data{number}"
        self.data_dir.mkdir(parents=True)
        self.member = None
        self.frozen = False
        self.settings, self.properties = {}, {}

    def __repr__(self):
        return f"<{self.number}:{self.kind}{' observer' if self.observer else ''}>"

    def line(self, form) -> str:
        """The value of this seat's server line."""
        role = "observer" if self.observer else "participant"
        value = f"127.0.0.1:{self.quorum}:{self.election}:{role}"
        return value if form == "static" else f"{value};127.0.0.1:{self.client}"

    def make(self):
        """A member of this seat's kind, not started."""
        (self.data_dir / "myid").write_text(f"{self.number}\n")
        form, lines = self.ensemble.form, self.ensemble.server_lines()
        home = self.ensemble.home / f"{self.number}-{self.kind}"
        settings = {**SETTINGS, **self.ensemble.settings, **self.settings}
        if self.observer:
            settings["peerType"] = "observer"
        if form == "dynamic":
            home.mkdir(parents=True, exist_ok=True)
            (home / "zoo.dynamic").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
            settings["dynamicConfigFile"] = home / "zoo.dynamic"
        else:
            settings.update(lines)
        properties = {**self.ensemble.properties, **self.properties}
        member = KINDS[self.kind](home, port=self.client, settings=settings, properties=properties,
                                  tick_ms=TICK_MS, data_dir=self.data_dir)
        if form != "static":
            # The client's address stands in the server line alone.
            del member.settings["clientPort"], member.settings["clientPortAddress"]
        member.start_limit_s = START_LIMIT_S
        return member

    def spawn(self):
        """Starts the process without waiting."""
        assert not self.runs(), f"{self} runs already"
        self.member = self.make()
        path = self.member.log_path
        self.log_start = path.stat().st_size if path.exists() else 0
        self.member.spawn()
        return self

    def start(self):
        """Starts it and waits until it serves."""
        self.spawn()
        return self.wait_serving()

    def wait_serving(self):
        self.member.wait_serving()
        return self

    def runs(self) -> bool:
        return self.member is not None and self.member.process is not None

    def check_alive(self):
        """A process that ended by itself is a failure, whatever else holds."""
        if self.runs() and (code := self.member.process.poll()) is not None:
            raise DidNotStart(f"{self} ended by itself with {code}\n{self.member.log_tail()}")

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.thaw()
        return self.member.stop() if self.runs() else None

    def kill(self):
        """SIGKILL, frozen or not."""
        if self.runs():
            self.member.kill()
        self.frozen = False

    def freeze(self):
        """SIGSTOP: the process is there, its sockets are open, and it does nothing. Returns when it stands still,
        which the last of its threads does a moment after the signal."""
        self.member.signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.member.process.pid}/task")
        while any(path.read_text().rpartition(")")[2].split()[0] not in "TtZ" for path in tasks.glob("*/stat")):
            time.sleep(0.001)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self.member.signal(signal.SIGCONT)
            self.frozen = False

    def become(self, kind):
        """Another kind of server takes this seat, on the same directory; the old one must be down."""
        assert not self.runs()
        self.kind = kind

    def wipe(self):
        """Deletes everything but the seat's number; the process must be down."""
        assert not self.runs()
        for path in sorted(self.data_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def word(self, word, timeout_s=5.0) -> str:
        """The answer to a four-letter word; an empty text if there is none."""
        if not self.runs() or self.frozen:
            return ""
        try:
            return four_letter_word(self.client, word, timeout_s)
        except OSError:
            return ""

    def mode(self) -> str:
        """`leader`, `follower`, `observer`, `read-only`, or an empty text while it does not serve."""
        for line in self.word("srvr", 2.0).splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ")
        return ""

    def metrics(self) -> dict:
        """`mntr` as a dict, names without `zk_`, numbers as floats."""
        found = {}
        for line in self.word("mntr").splitlines():
            name, _, value = line.partition("\t")
            try:
                found[name.removeprefix("zk_")] = float(value)
            except ValueError:
                found[name.removeprefix("zk_")] = value
        return found

    def zxid(self) -> int:
        """The last zxid that the member has applied."""
        for line in self.word("srvr").splitlines():
            if line.startswith("Zxid: "):
                return int(line.removeprefix("Zxid: "), 16)
        raise RuntimeError(f"{self} does not serve")

    def digests(self) -> dict:
        """The kept tree digests: zxid -> digest."""
        pairs = (line.split(": ") for line in self.word("hash").splitlines() if ": " in line)
        return {int(zxid, 16): int(digest) for zxid, digest in pairs}

    def log(self) -> str:
        """What the process has logged since it was last started."""
        with open(self.member.log_path, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode("utf-8", "replace")

    def connect(self, **session):
        """A raw connection to this member alone; waits out the moment in which it does not accept clients."""
        limit = time.monotonic() + ROLE_LIMIT_S
        while True:
            try:
                return raw.Connection(self.client, timeout_s=20, **session)
            except (OSError, raw.Closed):
                if time.monotonic() > limit or not self.runs():
                    raise
                time.sleep(0.05)

    def logged(self, marker: bytes) -> bool:
        """Whether the transaction log on disk holds these bytes."""
        return any(marker in path.read_bytes() for path in (self.data_dir / "version-2").glob("log.*"))


class Ensemble:
    """Seats by number. `kinds` says who sits where: {1: "apache", 2: "zoometry", …}; `observers` holds numbers.

    `form` is the way the server lines are written: `line` (the client's address in the server line), `static`
    (clientPort), `dynamic` (in a dynamicConfigFile).
    """

    def __init__(self, home, kinds, observers=(), settings=None, properties=None, form="line"):
        self.home = pathlib.Path(home)
        self.settings, self.properties = dict(settings or {}), dict(properties or {})
        self.form = form
        self.seats = {}
        for number, kind in kinds.items():
            self.seats[number] = Seat(self, number, kind, number in observers)

    def __getitem__(self, number) -> Seat:
        return self.seats[number]

    def __iter__(self):
        return iter(self.seats.values())

    def server_lines(self) -> dict:
        return {f"server.{seat.number}": seat.line(self.form) for seat in self}

    @property
    def running(self) -> list:
        return [seat for seat in self if seat.runs() and not seat.frozen]

    @property
    def voters(self) -> list:
        return [seat for seat in self if not seat.observer]

    def start(self, *numbers):
        """Starts these seats, or all that are down, at once, and waits until they serve."""
        seats = [self[number] for number in numbers] or [seat for seat in self if not seat.runs()]
        for seat in seats:
            seat.spawn()
        for seat in seats:
            seat.wait_serving()
        return self

    def start_led_by(self, number):
        """Starts an ensemble of equal histories so that `number` leads, whoever is faster.

        It first gets as many voters with lower ids as make a quorum with it, then the others."""
        below = [seat.number for seat in self.voters if seat.number < number]
        needed = len(self.voters) // 2
        assert len(below) >= needed, f"seat {number} has too low an id to lead"
        self.start(number, *below[:needed])
        if len(self.running) < len(self.seats):
            self.start()
        assert self.leader().number == number, f"{self.leader()} leads"
        return self

    def leader(self) -> Seat:
        """The member that leads; waits for one."""
        limit = time.monotonic() + ROLE_LIMIT_S
        while time.monotonic() < limit:
            for seat in self.running:
                seat.check_alive()
                if seat.mode() == "leader":
                    return seat
            time.sleep(0.05)
        raise DidNotStart(f"nobody leads after {ROLE_LIMIT_S} s\n{self.story()}")

    def others(self, seat) -> list:
        """The running members but this one."""
        return [other for other in self.running if other is not seat]

    def followers(self) -> list:
        """The running voters that do not lead."""
        leader = self.leader()
        return [seat for seat in self.running if seat is not leader and not seat.observer]

    def wait_all(self):
        """Until every running member serves in its role."""
        self.leader()
        limit = time.monotonic() + ROLE_LIMIT_S
        for seat in self.running:
            wanted = {"observer"} if seat.observer else {"leader", "follower"}
            while seat.mode() not in wanted:
                seat.check_alive()
                if time.monotonic() > limit:
                    raise DidNotStart(f"{seat} does not serve\n{self.story()}")
                time.sleep(0.05)
        return self

    def make_leader(self, number) -> Seat:
        """Makes a voter the leader of an ensemble of three voters, whatever load runs.

        The other follower is killed, then something is written, so that the wanted one has the longer history;
        then the leader is killed and the other one, which must vote for the longer history, comes back."""
        wanted, leader = self[number], self.leader()
        if wanted is leader:
            return leader
        rest = [seat for seat in self.voters if seat not in (wanted, leader)]
        assert len(rest) == 1 and wanted.runs(), "made for three voters that all run"
        rest[0].kill()
        conn = wanted.connect()
        # Takes a zxid, whatever the answer: one that the killed one cannot have.
        conn.create("/make-leader")
        conn.close_session()
        leader.kill()
        rest[0].spawn()
        rest[0].wait_serving()
        assert self.leader() is wanted, f"{self.leader()} leads, not {wanted}"
        leader.start()
        self.wait_all()
        return wanted

    def restart(self, *numbers):
        for number in numbers:
            self[number].stop()
        return self.start(*numbers)

    def kill_all(self):
        """SIGKILL to all, as one."""
        for seat in self.running:
            seat.member.signal(signal.SIGKILL)
        for seat in self:
            seat.kill()

    def close(self):
        """Ends every process that is left."""
        for seat in self:
            seat.thaw()
            if seat.runs():
                seat.member.signal(signal.SIGTERM)
        for seat in self:
            seat.stop()

    def story(self) -> str:
        """For a failure's text: who is what, and the end of every log."""
        lines = []
        for seat in self:
            state = "frozen" if seat.frozen else (seat.mode() or "not serving") if seat.runs() else "down"
            lines.append(f"-- {seat}: {state}, files in {self.home}")
            if seat.member is not None:
                lines.append(seat.member.log_tail(12))
        return "\n".join(lines)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
