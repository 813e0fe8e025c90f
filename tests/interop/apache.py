#!/usr/bin/env python3
"""A local standalone Apache ZooKeeper, from Debian's packages or from ZOOKEEPER_HOME.

    apache.py --port 21810 --data DIR        runs one in the foreground until Ctrl-C
    apache.py --print-classpath              the Java class path, for other programs

Debian: `apt-get install zookeeper openjdk-17-jre-headless` (jars in /usr/share/java; the manifest of
zookeeper.jar names what it needs, a logging backend is added here).
ZOOKEEPER_HOME: an unpacked Apache release with lib/*.jar.
"""

import argparse
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import zipfile

from member import Member

DEBIAN_JARS = pathlib.Path("/usr/share/java")
LOG4J = """log4j.rootLogger=INFO,CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{ISO8601} %-5p [%t:%C{1}@%L] %m%n
"""


class NotInstalled(Exception):
    """There is no Apache ZooKeeper on this machine; the text says how to get it."""


def class_path() -> list:
    """Every jar that the server, the shell and the tools need, in order."""
    if home := os.environ.get("ZOOKEEPER_HOME"):
        jars = sorted(pathlib.Path(home, "lib").glob("*.jar")) + sorted(pathlib.Path(home).glob("*.jar"))
        if not any("zookeeper" in jar.name for jar in jars):
            raise NotInstalled(f"ZOOKEEPER_HOME={home} holds no lib/zookeeper-*.jar")
        return jars
    names = ["zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-log4j12.jar", "log4j-1.2.jar",
             "jline.jar", "commons-cli.jar", "snappy-java.jar", "metrics-core.jar"]
    jars = [DEBIAN_JARS / name for name in names]
    missing = [jar.name for jar in jars[:5] if not jar.exists()]
    if missing:
        raise NotInstalled(
            f"Apache ZooKeeper is not installed ({', '.join(missing)} missing in {DEBIAN_JARS}).\n"
            "Get it with: apt-get install zookeeper openjdk-17-jre-headless\n"
            "or unpack an Apache release and set ZOOKEEPER_HOME."
        )
    with zipfile.ZipFile(jars[0]) as jar:
        manifest = jar.read("META-INF/MANIFEST.MF").decode().replace("\r\n", "\n").replace("\n ", "")
    for line in manifest.splitlines():
        if line.startswith("Class-Path:"):
            jars += [pathlib.Path(entry) for entry in line.split(":", 1)[1].split()]
    unique = dict.fromkeys(jar for jar in jars if jar.exists())
    return list(unique)


def java() -> str:
    found = shutil.which("java") or (os.environ.get("JAVA_HOME", "") + "/bin/java")
    if not os.path.exists(found):
        raise NotInstalled("no java; get it with: apt-get install openjdk-17-jre-headless")
    return found


class Apache(Member):
    """Apache ZooKeeper, standalone."""

    kind = "apache"
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

    def command(self, config):
        (self.home / "log4j.properties").write_text(LOG4J)
        jars = ":".join(str(jar) for jar in class_path())
        flags = [f"-D{name}={value}" for name, value in self.properties.items()]
        # The serial collector and C1 only: a test server on two cores should start fast and stay small.
        return [java(), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                "-Dzookeeper.jmx.log4j.disable=true", *flags,
                "-cp", f"{self.home}:{jars}", self.main, config]


def tool_command(main: str, *arguments, home=None, properties=None) -> list:
    """The command line of one of Apache's command-line classes, for example ZooKeeperMain."""
    jars = ":".join(str(jar) for jar in class_path())
    prefix = f"{home}:" if home else ""
    flags = [f"-D{name}={value}" for name, value in (properties or {}).items()]
    return [java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *flags, "-cp", prefix + jars, main, *arguments]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=21810, help="client port on 127.0.0.1")
    parser.add_argument("--data", help="data directory (default: a temporary one)")
    parser.add_argument("--tick-ms", type=int, default=2000)
    parser.add_argument("--print-classpath", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.print_classpath:
            print(":".join(str(jar) for jar in class_path()))
            return 0
        with tempfile.TemporaryDirectory(prefix="apache-zk-") as home:
            with Apache(home, arguments.port, tick_ms=arguments.tick_ms, data_dir=arguments.data) as server:
                print(f"Apache ZooKeeper on {server.address}, data in {server.data_dir}; Ctrl-C stops it", flush=True)
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                try:
                    while server.process.poll() is None:
                        time.sleep(0.2)
                except KeyboardInterrupt:
                    pass
    except NotInstalled as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
