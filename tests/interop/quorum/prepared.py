"""Data directories made by hand: a state that no client brings about in a test's time.

One log file in Apache's format, without digests and without a snapshot: every member that starts on it needs
`digest.enabled=false` and `snapshot.trust.empty=true` (see PROPERTIES).
"""

import pathlib
import zlib

import raw

PROPERTIES = {"zookeeper.digest.enabled": "false", "zookeeper.snapshot.trust.empty": "true"}
EPOCH = 1


def create_txn(counter, path, parent_cversion, data=b""):
    """The payload of a persistent znode's creation, the `counter`th transaction of the epoch."""
    zxid = EPOCH << 32 | counter
    header = raw.i64(1) + raw.i32(counter) + raw.i64(zxid) + raw.i64(1_700_000_000_000) + raw.i32(raw.OPS["create"])
    acl = raw.vector(raw.OPEN_ACL, raw.acl_entry)
    record = raw.string(path) + raw.buffer(data) + acl + raw.boolean(False) + raw.i32(parent_cversion)
    return zxid, header + record


def write(data_dir, transactions):
    """Makes `data_dir/version-2` of an ensemble's member that has logged these (zxid, payload)."""
    version_dir = pathlib.Path(data_dir) / "version-2"
    version_dir.mkdir(parents=True)
    for name in ("acceptedEpoch", "currentEpoch"):
        (version_dir / name).write_text(str(EPOCH))
    log = b"ZKLG" + raw.i32(2) + raw.i64(0)
    for _, payload in transactions:
        log += raw.i64(zlib.adler32(payload)) + raw.buffer(payload) + b"B"
    (version_dir / f"log.{transactions[0][0]:x}").write_bytes(log + bytes(4096))


def at_the_counters_end():
    """/wrap, whose next sequential child is …2147483646."""
    return [create_txn(1, "/wrap", 1), create_txn(2, "/wrap/first", 2**31 - 2)]
