"""`histograms.hlog` in the hands of other people's tools: the Python port of HdrHistogram, and its own Java processor where
HDRHISTOGRAM_JAR names it (org.hdrhistogram:HdrHistogram, `mvn dependency:get -Dartifact=org.hdrhistogram:HdrHistogram:2.2.2`).
"""

import csv
import os
import shutil
import subprocess

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from soak import executable

# Nothing is asked for in the second phase for most of its intervals: they must be there all the same.
WORKLOAD = """
[data]
znodes = 10
[sessions]
count = 2
[[phase]]
name = "busy"
duration = "2s"
arrival = { constant = "500/s" }
mix = { get = 3, set = 1 }
[[phase]]
name = "idle"
duration = "2s"
arrival = { constant = "2/s" }
mix = { get = 1 }
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    home = tmp_path_factory.mktemp("histograms")
    (home / "short.toml").write_text(WORKLOAD)
    command = [executable(), "run", "short.toml", "--cluster", "zoometry:1", "--quiet", "--no-charts", "--out", "out"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120)
    # A busy machine may make so short a run INVALID: what it wrote is well-formed all the same.
    assert done.returncode in (0, 3), done.stdout + done.stderr
    (directory,) = (home / "out").iterdir()
    return directory


def successes(results, phase=None):
    with open(results / "intervals.csv", newline="") as rows:
        mine = [row for row in csv.DictReader(rows) if row["outcome"] == "ok" and row["op"] not in ("connect", "notify")]
    return sum(int(row["count"]) for row in mine if phase in (None, row["phase"]))


def lines(results):
    """(tag, start, length, histogram) of every line; the tag of an untagged one is None."""
    with open(results / "histograms.hlog") as log:
        for line in log:
            if line[0] in '#"':
                continue
            tag, rest = line[4:].split(",", 1) if line.startswith("Tag=") else (None, line)
            start, length, _, encoded = rest.strip().split(",")
            yield tag, float(start), float(length), HdrHistogram.decode(encoded.encode())


def test_every_interval_has_a_line_without_a_tag(results):
    untagged = [(start, length, histogram) for tag, start, length, histogram in lines(results) if tag is None]
    for (start, length, _), (following, _, _) in zip(untagged, untagged[1:]):
        assert round(start + length, 3) == round(following, 3)
    # 4 s of 100 ms, and what the last answers took.
    assert len(untagged) >= 40
    assert sum(histogram.get_total_count() for _, _, histogram in untagged) == successes(results)
    assert any(histogram.get_total_count() == 0 for _, _, histogram in untagged)


def test_tags_add_up_to_phases(results):
    counts = {}
    for tag, _, _, histogram in lines(results):
        counts[tag] = counts.get(tag, 0) + histogram.get_total_count()
    for phase in ("busy", "idle"):
        for suffix in ("", ":interval"):
            mine = sum(counts.get(f"{phase}:{op}:ok:response{suffix}", 0) for op in ("get", "set"))
            assert mine == successes(results, phase) > 0, (phase, suffix)


def test_the_python_reader_reads_it_without_tags(results, tmp_path):
    # Its reader knows no tags at all, so it is shown what other readers pass over.
    log = tmp_path / "untagged.hlog"
    text = (results / "histograms.hlog").read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in text if not line.startswith("Tag=")))
    whole = HdrHistogram(1, 600_000_000_000, 3)
    reader = HistogramLogReader(str(log), whole)
    while (histogram := reader.get_next_interval_histogram()) is not None:
        whole.add(histogram)
    assert whole.get_total_count() == successes(results)


@pytest.mark.skipif(
    "HDRHISTOGRAM_JAR" not in os.environ or shutil.which("java") is None,
    reason="HDRHISTOGRAM_JAR does not name HdrHistogram's jar, or there is no java",
)
@pytest.mark.parametrize("tag", [None, "busy:get:ok:response", "busy:get:ok:lag", "busy:set:ok:response:interval"])
def test_the_java_processor_reads_it(results, tag):
    command = ["java", "-cp", os.environ["HDRHISTOGRAM_JAR"], "org.HdrHistogram.HistogramLogProcessor"]
    command += ["-i", results / "histograms.hlog", *(["-tag", tag] if tag else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "#[Interval percentile distribution]" not in done.stderr, done.stderr
    assert "Exception" not in done.stdout + done.stderr, done.stderr
    if tag is None:
        assert f"Total count    = {successes(results):>12}" in done.stdout, done.stdout[-400:]
