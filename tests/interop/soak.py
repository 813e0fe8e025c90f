#!/usr/bin/env python3
"""A long load, then kill -9: the generator's memory does not grow with time, and all but the last 2 s are there.

    soak.py --minutes 30 --rate 5000      half an hour
    soak.py --minutes 1                   for a gate

Starts `zoometry run` with an ensemble of its own on this machine, reads the generator's resident memory every second,
kills it (its members die with it), and lets `zoometry report` say what it left. Fails if the memory at the end is more
than 1.2 times that at a sixth of the time (at 5 minutes of 30; at half a minute of one), or if the report ends more than
2 s before the kill.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

GROWTH_MAX = 1.2
LOST_MAX_S = 2.0
START_LIMIT_S = 120

WORKLOAD = """
name = "soak"
[data]
znodes = 10_000
value = "100B"
[sessions]
count = 30
in_flight = 100
[[watchers]]
count = 100
on = "znode"
kind = "persistent"
[[phase]]
name = "steady"
duration = "{seconds}s"
arrival = {{ poisson = "{rate}/s" }}
mix = {{ get = 10, set = 1 }}
"""


def executable():
    """ZOOMETRY, or the newest build of it."""
    if named := os.environ.get("ZOOMETRY"):
        return pathlib.Path(named)
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    built = [path for profile in ("release", "debug") if (path := target / profile / "zoometry").exists()]
    if not built:
        sys.exit(f"no zoometry under {target}; build it with: cargo build --release -p zoometry")
    return max(built, key=lambda path: path.stat().st_mtime)


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def begun(out, child):
    """Waits for the load's begin; the directory and its manifest."""
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit and child.poll() is None:
        for manifest in out.glob("*/manifest.json"):
            return manifest.parent, json.loads(manifest.read_text())
        time.sleep(0.1)
    sys.exit(f"the load did not begin within {START_LIMIT_S} s (exit code {child.poll()})")


def soak(zoometry, out, minutes, rate):
    seconds = minutes * 60
    workload = out / "soak.toml"
    # Longer than it is let to live: the kill comes in the middle of a phase.
    workload.write_text(WORKLOAD.format(seconds=round(seconds) + 60, rate=rate))
    command = [zoometry, "run", workload, "--quiet", "--no-charts", "--out", out]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    memory = []
    try:
        directory, manifest = begun(out, child)
        begin = manifest["started_unix_ms"] / 1e3 + manifest["phases"][0]["start_ns"] / 1e9
        while (now := time.time()) < begin + seconds:
            if child.poll() is not None:
                sys.exit(f"the run ended by itself after {now - begin:.0f} s (exit code {child.returncode})")
            memory.append((now - begin, resident_mib(child.pid)))
            if len(memory) % 60 == 0:
                print(f"{memory[-1][0]:6.0f} s  {memory[-1][1]:7.1f} MiB", flush=True)
            time.sleep(max(0.0, 1 - (time.time() - now)))
    finally:
        child.kill()
        child.wait()
    return directory, time.time() - begin, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--rate", type=int, default=5000)
    arguments = parser.parse_args()
    if not (0.2 <= arguments.minutes <= 120 and 1 <= arguments.rate <= 100_000):
        parser.error("--minutes is 0.2 to 120, --rate 1 to 100000")
    zoometry = executable()
    with tempfile.TemporaryDirectory(prefix="zoometry-soak-") as out:
        directory, lived, memory = soak(zoometry, pathlib.Path(out), arguments.minutes, arguments.rate)
        size = sum(path.stat().st_size for path in directory.glob("*") if path.is_file()) / 2**20
        started = time.monotonic()
        told = subprocess.run([zoometry, "report", directory], capture_output=True, text=True, timeout=600)
        took = time.monotonic() - started
        if told.returncode != 0:
            sys.exit(f"zoometry report: exit code {told.returncode}\n{told.stdout}{told.stderr}")
        whole = json.loads((directory / "summary.json").read_text())["whole"]
    early_s = max(min(30.0, lived / 2), lived / 6)
    early = next(mib for at, mib in memory if at >= early_s)
    late = max(mib for at, mib in memory if at >= lived - 10)
    operations = next(op for op in whole["groups"] if op["op"] == "all")
    expected = arguments.rate * whole["seconds"]
    print(f"resident memory at {early_s:.0f} s: {early:.1f} MiB; in the last 10 s of {lived:.0f} s: {late:.1f} MiB")
    print(f"growth {late / early:.2f} (limit {GROWTH_MAX})")
    print(f"killed after {lived:.2f} s; the report has {whole['seconds']:.2f} s, {lived - whole['seconds']:.2f} s less "
          f"(limit {LOST_MAX_S})")
    print(f"operations {operations['count']} of about {expected:.0f}, missed {operations['missed']}; "
          f"the directory had {size:.1f} MiB, the report took {took:.1f} s")
    bad = []
    if late / early > GROWTH_MAX:
        bad.append("memory grows with time")
    if lived - whole["seconds"] > LOST_MAX_S:
        bad.append("more than the last moments is lost")
    if "it never ended" not in " ".join(told.stdout.split()):
        bad.append("the report does not say that the run never ended")
    if not 0.9 < (operations["count"] + operations["missed"]) / expected < 1.1:
        bad.append("operations are missing")
    for complaint in bad:
        print(f"FAILED: {complaint}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
