"""The table of `server/src/config/apache.txt` against a real Apache ZooKeeper: does it start with each line?

    pytest tests/interop/test_apache_starts.py --long        a JVM per line, some ten minutes on two cores

The table's own test (`cargo test -p zoometry-server --lib config`) asks the same of our server, without a process.
"""

import concurrent.futures
import os

import pytest
from apache import Apache
from member import REPOSITORY, DidNotStart, free_port

TABLE = REPOSITORY / "server/src/config/apache.txt"


def apache_starts(home, line) -> bool:
    """Whether Apache serves with this line in its zoo.cfg, or this property on its command line."""
    key, _, value = line.partition("=")
    server = Apache(home, port=free_port())
    if key.startswith("-D"):
        server.properties[key.removeprefix("-D")] = value
    else:
        server.settings[key] = value
    server.start_limit_s = 90
    try:
        server.start()
        return True
    except DidNotStart as error:
        assert "exited with" in str(error), f"{line}: it neither serves nor ends\n{error}"
        return False
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_apache_starts_as_the_table_says(tmp_path):
    rows = [line.partition(" | ")[0].split(" ", 1) for line in TABLE.read_text().splitlines() if line[0] != "#"]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = pool.map(lambda row: apache_starts(tmp_path / str(row[0]), row[1][1]), enumerate(rows))
        wrong = [line for (verdict, line), starts in zip(rows, starts) if starts != (verdict == "starts")]
    assert wrong == []
