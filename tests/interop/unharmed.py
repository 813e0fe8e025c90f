"""Is the speed unharmed? Interleaved pairs of runs: the program of one commit against today's.

    unharmed.py                                  reads and durable writes, one member and three, 12 pairs each
    unharmed.py --case write:3 --pairs 20        one case, more pairs
    unharmed.py --baseline COMMIT --allow 3      other commit, other limit

Each pair runs the same workload with both programs, one after the other; the order changes from pair to pair. The
figure is CPU time per operation, the servers' and the generator's. A case fails if the upper end of the 95 %
interval of the median ratio is above 1 + allow %. The interval comes from order statistics and assumes nothing of
the distribution. Run it on an idle machine.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

from member import REPOSITORY

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
WORK = TARGET / "unharmed"
# name -> workload, the phases that count, what makes it short.
CASES = {
    "read": ("speed-read", ["full-speed"], {"phase.warm-up.duration": "2s", "phase.full-speed.duration": "6s"}),
    "write": ("speed-write", ["full-speed"], {"phase.warm-up.duration": "2s", "phase.full-speed.duration": "6s"}),
    "one-in-flight": ("one-in-flight", ["writes", "reads"], {
        "phase.warm-up-writes.duration": "1s", "phase.writes.duration": "4s",
        "phase.warm-up-reads.duration": "1s", "phase.reads.duration": "4s"}),
}


def interval(ratios, confidence=0.95):
    """Median and the tightest order-statistic interval of the median with at least that confidence."""
    ordered, n = sorted(ratios), len(ratios)
    outside = [sum(math.comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    k = max((k for k in range(1, n // 2 + 1) if 2 * outside[k] <= 1 - confidence), default=None)
    if k is None:
        sys.exit(f"{n} pairs are too few for a {confidence:.0%} interval, at least 6 are needed")
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return middle, ordered[k - 1], ordered[n - k]


def baseline_program(commit):
    """Builds `zoometry` of a commit below target/unharmed, once."""
    source = WORK / commit
    program = source / "target/release/zoometry"
    if not program.exists():
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, stdout=subprocess.PIPE)
        if archive.returncode != 0:
            sys.exit(f"commit {commit} is not in this repository; a shallow clone lacks it: git fetch --unshallow")
        subprocess.run(["tar", "x", "-C", source], input=archive.stdout, check=True)
        subprocess.run(["cargo", "build", "--release", "--bin", "zoometry"], cwd=source, check=True,
                       env={**os.environ, "CARGO_TARGET_DIR": str(source / "target")})
    return program


def one_run(program, workloads, case, members):
    """CPU microseconds per operation of one run, per phase that counts: the servers' and the generator's."""
    workload, phases, settings = CASES[case]
    out = WORK / "results"
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "run", workloads / f"{workload}.toml", "--cluster", f"zoometry:{members}", "--out", out]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    # 1 and 3 are verdicts on latency and on a busy machine; the CPU time is measured all the same.
    if done.returncode not in (0, 1, 3):
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    summary = json.loads(next(out.glob("*/summary.json")).read_text())
    figures = {}
    for phase in summary["phases"]:
        if phase["name"] in phases:
            figures[phase["name"]] = (phase["servers"]["cpu_us_per_op"], phase["generator"]["cpu_us_per_op"])
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", default="a6f5b0c", help="a commit, or the path of a program (%(default)s)")
    parser.add_argument("--candidate", default=TARGET / "release/zoometry", help="today's program (%(default)s)")
    parser.add_argument("--case", action="append", metavar="NAME:MEMBERS", help=f"of {', '.join(CASES)}")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--allow", type=float, default=3.0, help="per cent (%(default)s)")
    arguments = parser.parse_args()
    given = pathlib.Path(arguments.baseline)
    old = given if given.is_file() else baseline_program(arguments.baseline)
    new = pathlib.Path(arguments.candidate)
    if not new.is_file():
        sys.exit(f"{new} is not there; build it with: cargo build --release --bin zoometry")
    # The older program may not know what today's workload files say; today's knows theirs.
    workloads = WORK / "workloads"
    shutil.rmtree(workloads, ignore_errors=True)
    older = old.parents[2] / "workloads"
    shutil.copytree(older if older.is_dir() else REPOSITORY / "workloads", workloads)

    passed = failed = 0
    for case in arguments.case or ["read:1", "write:1", "read:3", "write:3", "one-in-flight:1", "one-in-flight:3"]:
        name, _, members = case.partition(":")
        if name not in CASES:
            parser.error(f"no such case: {case}; there are {', '.join(CASES)}")
        pairs, started = [], time.monotonic()
        for pair in range(arguments.pairs):
            order = [old, new] if pair % 2 == 0 else [new, old]
            figures = {program: one_run(program, workloads, name, members or "1") for program in order}
            pairs.append((figures[old], figures[new]))
            print(f"{case}: pair {pair + 1} of {arguments.pairs}, {time.monotonic() - started:.0f} s",
                  file=sys.stderr, flush=True)
        for phase in CASES[name][1]:
            for side, whose in enumerate(("servers", "generator")):
                before = sorted(a[phase][side] for a, _ in pairs)[len(pairs) // 2]
                ratios = [b[phase][side] / a[phase][side] for a, b in pairs]
                middle, low, high = interval(ratios)
                good = high <= 1 + arguments.allow / 100
                passed, failed = passed + good, failed + (not good)
                print(f"{case:16} {phase:10} {whose:9} {before:7.2f} us/op before, "
                      f"now {middle:.3f} times [{low:.3f}, {high:.3f}] {'ok' if good else 'SLOWER'}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
