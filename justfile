# Every recipe is one cargo or script call: whoever has no `just` can type what stands here.

python := "target/interop-venv/bin/python"

[private]
default:
    @just --list --unsorted

# Run a workload file, leave a results directory
run *ARGS:
    cargo run --release -- run {{ARGS}}

# Just a server to play with
up *ARGS:
    cargo run --release -- up {{ARGS}}

# Draw charts and report.html again
report DIRECTORY:
    cargo run --release -- report {{DIRECTORY}}

# Format, lints and all tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace

# All tests that need no network
test *ARGS:
    cargo test --workspace {{ARGS}}

# What CI runs; installs Debian packages
ci *STEP:
    bash .ci/run {{STEP}}

# Python packages of the interop tests
venv:
    python3 -m venv target/interop-venv
    target/interop-venv/bin/pip install -q -r tests/interop/requirements.txt

# Real clients and hostile ones
interop SERVER="zoometry" *ARGS:
    {{python}} -m pytest tests/interop --server {{SERVER}} {{ARGS}}

# Ensembles: ours beside Apache members
quorum *ARGS:
    {{python}} -m pytest tests/interop/quorum {{ARGS}}

# kazoo's own test suite, with our server
kazoo-own *ARGS:
    PYTHONPATH=tests/interop {{python}} -m pytest -p kazoo_own --pyargs kazoo.tests {{ARGS}}

# The same requests to Apache and to us
differential *ARGS:
    {{python}} tests/interop/differential.py {{ARGS}}

# One data directory for Apache and us
datadir *ARGS:
    {{python}} tests/interop/datadir.py {{ARGS}}

# Other people's own suites, run and counted
foreign *ARGS:
    {{python}} tests/interop/foreign/run.py {{ARGS}}

# Today's speed against an older commit's, in pairs
unharmed *ARGS:
    {{python}} tests/interop/unharmed.py {{ARGS}}

# kill -9 loses nothing acknowledged
kill9 ROUNDS="50":
    {{python}} tests/interop/kill9.py --rounds {{ROUNDS}}

# The leader's network cable pulled under load (root, Linux)
cable *ARGS:
    {{python}} tests/interop/cable.py {{ARGS}}

# Capture the golden frames again
golden:
    {{python}} tests/interop/capture.py wire/tests/golden

# Criterion's micro-benchmarks
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Fuzz a decoder, see wire/fuzz/README.md
fuzz TARGET="client_frames" SECONDS="60":
    cd wire && cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# Reads: our server and Apache in turn
speed-read *ARGS:
    cargo run --release -- compare workloads/speed-read.toml --cluster zoometry:1 --cluster apache:1 --repeats 3 {{ARGS}}

# Durable writes: our server and Apache in turn
speed-write *ARGS:
    cargo run --release -- compare workloads/speed-write.toml --cluster zoometry:1 --cluster apache:1 --repeats 3 {{ARGS}}

# Reads, durable writes and latency: ensembles of three, ours and Apache's in turn
speed-ensemble *ARGS:
    cargo run --release -- compare workloads/speed-read.toml --cluster zoometry:3 --cluster apache:3 --repeats 3 {{ARGS}}
    cargo run --release -- compare workloads/speed-write.toml --cluster zoometry:3 --cluster apache:3 --repeats 3 {{ARGS}}
    cargo run --release -- compare workloads/one-in-flight.toml --cluster zoometry:3 --cluster apache:3 --repeats 3 {{ARGS}}

# Twenty leaders killed under load, ours and Apache's
failover *ARGS:
    cargo run --release -- compare workloads/leader-failover.toml --cluster zoometry:3 --cluster apache:3 --repeats 1 --set fault.1.repeat=20 --set fault.1.every=10s --set phase.load.duration=212s {{ARGS}}

# Thousands of simulated lives
sim COUNT="1000":
    cargo run --release -p zoometry-sim -- many --count {{COUNT}}

# The simulator's judges against mistakes made on purpose
bite:
    cargo run --release -p zoometry-sim --features deliberate-bugs -- bite

# A run with one request in ten traced
traces FILE="workloads/smoke.toml":
    cargo run --release -- run {{FILE}} --trace-sample 0.1
