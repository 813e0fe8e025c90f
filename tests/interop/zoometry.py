"""Our own server, standalone, with the same interface as `apache.Apache`.

The executable is ZOOMETRY_SERVER, or target/{release,debug}/zoometry-server (the newer one) under
CARGO_TARGET_DIR or the repository.
"""

import os
import pathlib

from member import REPOSITORY, Member


def executable() -> pathlib.Path:
    if named := os.environ.get("ZOOMETRY_SERVER"):
        return pathlib.Path(named)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [target / profile / "zoometry-server" for profile in ("release", "debug")]
    built = [path for path in built if path.exists()]
    if not built:
        raise FileNotFoundError(f"no zoometry-server under {target}; build it with: cargo build -p zoometry-server")
    return max(built, key=lambda path: path.stat().st_mtime)


class Zoometry(Member):
    """zoometry-server, standalone."""

    kind = "zoometry"
    start_limit_s = 15.0

    def write_config(self):
        # What Apache takes as Java properties, our server takes from zoo.cfg under the same name
        # without the `zookeeper.` prefix, as Apache's own fallback does the other way round.
        for name, value in self.properties.items():
            self.settings[name.removeprefix("zookeeper.")] = value
        return super().write_config()

    def command(self, config):
        return [executable(), config]

    def environment(self):
        # What the server lets go of leaves its process at once, not a second later when something else is asked
        # for: resident memory is what it holds, and can be compared with its limits.
        return {**super().environment(), "MIMALLOC_PURGE_DELAY": "0"}
