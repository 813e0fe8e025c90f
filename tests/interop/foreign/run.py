"""Other people's own test suites, run against our server and counted.

    run.py                      all of them
    run.py zkperl node          only these
    run.py --server apache      the suites that need one server, against Debian's Apache: they must pass there too

Each suite is taken from its package registry, built below target/foreign, and run as its authors wrote it. What
starts a server in it (a container, a shell script) is replaced by something that starts ours; see the files
beside this one. A test that fails must stand in EXCEPTIONS with its reason, and a test that stands there must fail.

Needs, beside what .ci/run installs: cargo, and on Debian
    apt-get install libcppunit-dev autoconf automake libtool pkg-config make g++ perl libperl-dev dpkg-dev nodejs npm
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import apache  # noqa: E402
import member  # noqa: E402
import zoometry  # noqa: E402

WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", member.REPOSITORY / "target")) / "foreign"

# (suite, test) -> why it cannot pass.
EXCEPTIONS = {
    ("zookeeper-client", "test_update_ensemble"): "needs reconfiguration, which is not there yet",
    ("zookeeper-client", "test_auth_failed"): "needs SASL: sessionRequireClientSASLAuth is refused at the start",
}


def run(command, cwd, limit_s, log, **env):
    """Runs a command in a process group of its own, its output in `log`; gives its exit code."""
    with open(log, "ab") as out:
        child = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                 env={**os.environ, **env}, start_new_session=True)
        try:
            return child.wait(limit_s)
        except subprocess.TimeoutExpired:
            out.write(f"\n{command[0]} was ended after {limit_s} s\n".encode())
            return -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def must(command, cwd, log, limit_s=900, **env):
    """As `run`, for what a suite needs before its tests: a failure ends everything, with the log's end."""
    code = run(command, cwd, limit_s, log, **env)
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        sys.exit(f"{' '.join(map(str, command))}: exit code {code}, see {log}\n{tail}")


@contextlib.contextmanager
def one_server(kind, directory, **settings):
    """One standalone server of that kind with its defaults; gives `127.0.0.1:PORT`."""
    make = zoometry.Zoometry if kind == "zoometry" else apache.Apache
    shutil.rmtree(directory, ignore_errors=True)
    with make(directory, settings={"maxClientCnxns": 0, **settings}) as server:
        yield f"127.0.0.1:{server.port}"


def fresh_log(name):
    WORK.mkdir(parents=True, exist_ok=True)
    log = WORK / f"{name}.log"
    log.write_bytes(b"")
    return log


def debian_source():
    """Debian's source package of ZooKeeper, unpacked; its signature is checked by apt."""
    for found in WORK.glob("zookeeper-3*/zookeeper-client"):
        return found.parent
    log = fresh_log("debian-source")
    lists = WORK / "apt"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = WORK / "sources.list.d"
    sources.mkdir(exist_ok=True)
    text = pathlib.Path("/etc/apt/sources.list.d/debian.sources").read_text()
    (sources / "source.sources").write_text(re.sub(r"(?m)^Types:.*$", "Types: deb-src", text))
    options = ["-o", f"Dir::State::Lists={lists}", "-o", "Dir::Etc::SourceList=/dev/null",
               "-o", f"Dir::Etc::SourceParts={sources}"]
    must(["apt-get", "update", "-q", *options], WORK, log)
    must(["apt-get", "source", "-q", *options, "zookeeper"], WORK, log)
    return next(WORK.glob("zookeeper-3*/zookeeper-client")).parent


def zookeeper_client(server):
    """The Rust client `zookeeper-client` of crates.io: its unit tests and its tests against servers."""
    version, name = "0.11.2", "zookeeper-client"
    log, source = fresh_log(name), WORK / name
    if not source.exists():
        probe = WORK / "probe"
        (probe / "src").mkdir(parents=True, exist_ok=True)
        (probe / "src/lib.rs").write_text("")
        (probe / "Cargo.toml").write_text(
            f'[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
            f'[dependencies]\n{name} = "={version}"\n')
        described = subprocess.check_output(["cargo", "metadata", "--format-version=1", "-q"], cwd=probe)
        package = next(p for p in json.loads(described)["packages"] if p["name"] == name)
        shutil.copytree(pathlib.Path(package["manifest_path"]).parent, source)
        manifest = (source / "Cargo.toml").read_text().replace('lto = "thin"', 'lto = "off"')
        shim = HERE / "zookeeper-client/testcontainers"
        manifest += f'\n[dev-dependencies.testcontainers]\npath = "{shim}"\n\n[workspace]\n'
        (source / "Cargo.toml").write_text(manifest)
        (source / "Cargo.lock").unlink(missing_ok=True)
    environment = {"CARGO_TARGET_DIR": str(WORK / "cargo"), "ZOOMETRY_SERVER": str(zoometry.executable())}
    must(["cargo", "build", "--tests", "-q"], source, log, 1800, **environment)
    # What waits for something that is not there waits without end: such tests get a process and a limit of their own.
    alone = [test for suite, test in EXCEPTIONS if suite == name]
    skips = [word for test in alone for word in ("--skip", test)]
    run(["cargo", "test", "--no-fail-fast", "--", "--test-threads=4", *skips], source, 900, log, **environment)
    for test in alone:
        run(["cargo", "test", "--test", "zookeeper", "--", "--exact", test], source, 60, log, **environment)
    outcome = {}
    # With a log written in between, the verdict may follow on a later line.
    for line in log.read_text(errors="replace").splitlines():
        if found := re.match(r"test (\S+)(?: - should panic)? \.\.\. (ok|FAILED)$", line):
            outcome[found[1]] = found[2] == "ok"
    for test in alone:
        outcome.setdefault(test, False)
    return outcome


def zkperl(server):
    """Net::ZooKeeper, the Perl binding in Apache's contrib directory."""
    source = debian_source() / "zookeeper-contrib/zookeeper-contrib-zkperl"
    log = fresh_log("zkperl")
    if not (source / "blib").exists():
        must(["perl", "Makefile.PL", "--zookeeper-include=/usr/include/zookeeper",
              "--zookeeper-lib=/usr/lib/x86_64-linux-gnu"], source, log)
        must(["make"], source, log)
    outcome = {}
    with one_server(server, WORK / "zkperl-server", tickTime=500) as hosts:
        # A directory of its own: one test takes the first child of it for the one that it made.
        made = "use Net::ZooKeeper qw(:acls); " \
               f"Net::ZooKeeper->new('{hosts}')->create('/zkperl', '', 'acl' => ZOO_OPEN_ACL_UNSAFE) or die"
        must(["perl", "-Mblib", "-e", made], source, log)
        run(["prove", "-b", "-v", "t"], source, 300, log, ZK_TEST_HOSTS=hosts, ZK_TEST_PATH="/zkperl",
            PERL_USE_UNSAFE_INC="1")
    script = "?"
    for line in log.read_text(errors="replace").splitlines():
        if found := re.match(r"(t/\S+\.t) \.+", line):
            script = found[1]
        if found := re.match(r"(not )?ok (\d+)( # skip)?", line):
            if not found[3]:
                outcome[f"{script} {found[2]}"] = found[1] is None
    return outcome


def c_client(server):
    """Apache's C client: its own CppUnit tests, without those of reconfiguration, TLS and SASL."""
    source = debian_source() / "zookeeper-client/zookeeper-client-c"
    log = fresh_log("c-client")
    if not (source / "zktest-mt").exists():
        (source / "generated").mkdir(exist_ok=True)
        must(["java", "-cp", "/usr/share/java/zookeeper-jute.jar", "org.apache.jute.compiler.generated.Rcc", "-l", "c",
              "../../../zookeeper-jute/src/main/resources/zookeeper.jute"], source / "generated", log)
        must(["autoreconf", "-if"], source, log)
        must(["./configure", "-q", "--without-openssl", "--without-sasl"], source, log)
        flags = ["CFLAGS=-O0 -Wno-error", "CXXFLAGS=-O0 -Wno-error -include time.h", "AM_CFLAGS="]
        must(["make", "-s", "zktest-mt", *flags], source, log)
    shutil.copy(HERE / "c-client/zkServer.sh", source / "tests/zkServer.sh")
    outcome = {}
    environment = {"ZKROOT": "../..", "ZOOMETRY_SERVER": str(zoometry.executable())}
    for suite in ("init", "close", "operations", "multi", "watchers", "simpleSystem", "clientretry", "readOnly",
                  "logClientEnv", "reconfig"):
        part = fresh_log(f"c-client-{suite}")
        run(["./zktest-mt", f"Zookeeper_{suite}"], source, 180, part, **environment)
        text = part.read_text(errors="replace")
        # A test's line begins with its name and ends with its verdict; the client's log may stand between.
        for found in re.finditer(r"Zookeeper_\w+::(test\w+)(.*?)(?=Zookeeper_\w+::test|\Z)", text, re.S):
            outcome[f"{suite}::{found[1]}"] = bool(re.search(r": elapsed \d+ : OK", found[2]))
    run(["./tests/zkServer.sh", "stop"], source, 30, log, **environment)
    return outcome


def npm_package(name, version, log, **dev_dependencies):
    """An npm package's own files with what its tests need, installed."""
    directory = WORK / f"{name}-{version}"
    if (directory / "installed").exists():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    must(["npm", "pack", "-s", f"{name}@{version}"], WORK, log)
    must(["tar", "xzf", WORK / f"{name}-{version}.tgz", "-C", directory, "--strip-components=1"], WORK, log)
    if dev_dependencies:
        # Their newest development tools want a newer Node than Debian's.
        manifest = json.loads((directory / "package.json").read_text())
        manifest["devDependencies"] = dev_dependencies
        (directory / "package.json").write_text(json.dumps(manifest))
    # The headers lie beside the node that is installed: nothing is to be downloaded for them.
    prefix = pathlib.Path(shutil.which("node") or "/usr/bin/node").resolve().parent.parent
    must(["npm", "install", "--no-audit", "--no-fund"], directory, log, 1200, npm_config_nodedir=str(prefix))
    (directory / "installed").touch()
    return directory


def tap_lines(log, package):
    """Reads the Test Anything Protocol: `ok 1 name`, `not ok 2 name`."""
    lines = re.finditer(r"(?m)^(not )?ok \d+ (?:- )?(.*)$", log.read_text(errors="replace"))
    return {f"{package}: {found[2]}": found[1] is None for found in lines}


def node(server):
    """Both Node.js clients: `node-zookeeper-client` (JavaScript) and `zookeeper` (Apache's C client inside)."""
    log = fresh_log("node")
    outcome = {}
    directory = npm_package("node-zookeeper-client", "1.1.3", log)
    tap = fresh_log("node-mocha")
    run(["npx", "mocha", "--recursive", "--reporter", "tap", "test/"], directory, 120, tap)
    outcome.update(tap_lines(tap, "node-zookeeper-client"))

    directory = npm_package("zookeeper", "7.3.0", log, ava="6.x", sinon="19.x")
    with one_server(server, WORK / "node-server") as hosts:
        for part in ("unit/**", "integration"):
            tap = fresh_log(f"node-{part.partition('/')[0]}")
            run(["npx", "ava", "--tap", f"./tests/{part}/*.js", "--", hosts], directory, 180, tap)
            outcome.update(tap_lines(tap, "zookeeper"))
    return outcome


SUITES = {"zookeeper-client": zookeeper_client, "zkperl": zkperl, "c-client": c_client, "node": node}
# Fewer than these have not been run, whatever the rest said.
AT_LEAST = {"zookeeper-client": 86, "zkperl": 456, "c-client": 75, "node": 118}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (all)")
    parser.add_argument("--server", choices=("zoometry", "apache"), default="zoometry")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    passed = failed = excepted = 0
    for name in arguments.suites or SUITES:
        outcome = SUITES[name](arguments.server)
        bad = sorted(test for test, good in outcome.items() if not good and (name, test) not in EXCEPTIONS)
        odd = sorted(test for test, good in outcome.items() if good and (name, test) in EXCEPTIONS)
        known = sum(not good for good in outcome.values()) - len(bad)
        print(f"{name}: {sum(outcome.values())} of {len(outcome)} passed", flush=True)
        for (suite, test), reason in EXCEPTIONS.items():
            if suite == name and outcome.get(test) is False:
                print(f"  {test}: {reason}")
        for test in bad:
            print(f"  FAILED: {test}")
        for test in odd:
            print(f"  passed, but stands in EXCEPTIONS: {test}")
        if len(outcome) < AT_LEAST[name]:
            bad.append("count")
            print(f"  FAILED: {len(outcome)} tests were found, at least {AT_LEAST[name]} were expected; see {WORK}")
        passed += sum(outcome.values())
        failed += len(bad) + len(odd)
        excepted += known
    print(f"{passed} passed, {failed} failed, {excepted} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
