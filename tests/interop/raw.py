"""ZooKeeper's client protocol by hand: frames out, frames in, nothing hidden.

No ordinary client sends every operation, sends broken ones, or shows the bytes of a reply. This one does.
It is also an independent decoder: `describe` renders any frame body in one canonical line, which the
golden tests of the wire crate must arrive at too. Field order is that of Apache's zookeeper.jute.
"""

import socket
import struct
import time

NOTIFICATION, PING_XID, AUTH_XID, SET_WATCHES_XID = -1, -2, -4, -8

OPS = {
    "notification": 0, "create": 1, "delete": 2, "exists": 3, "getData": 4, "setData": 5, "getACL": 6,
    "setACL": 7, "getChildren": 8, "sync": 9, "ping": 11, "getChildren2": 12, "check": 13, "multi": 14,
    "create2": 15, "reconfig": 16, "checkWatches": 17, "removeWatches": 18, "createContainer": 19,
    "deleteContainer": 20, "createTTL": 21, "multiRead": 22, "auth": 100, "setWatches": 101, "sasl": 102,
    "getEphemerals": 103, "getAllChildrenNumber": 104, "setWatches2": 105, "addWatch": 106, "whoAmI": 107,
    "createSession": -10, "closeSession": -11, "error": -1,
}
NAMES = {code: name for name, code in OPS.items()}

OPEN_ACL = [(31, "world", "anyone")]

# Fields of every body, in order. Types: i int, q long, ? boolean, s string, b buffer, stat, acl, and
# [s] [acl] [info] vectors. A request or reply that is not listed has no body.
STAT = "czxid:q mzxid:q ctime:q mtime:q version:i cversion:i aversion:i owner:q len:i children:i pzxid:q"
REQUESTS = {
    "create": "path:s data:b acl:[acl] flags:i", "create2": "path:s data:b acl:[acl] flags:i",
    "createContainer": "path:s data:b acl:[acl] flags:i", "createTTL": "path:s data:b acl:[acl] flags:i ttl:q",
    "delete": "path:s version:i", "check": "path:s version:i", "deleteContainer": "path:s",
    "exists": "path:s watch:?", "getData": "path:s watch:?", "getChildren": "path:s watch:?",
    "getChildren2": "path:s watch:?", "setData": "path:s data:b version:i", "getACL": "path:s",
    "setACL": "path:s acl:[acl] version:i", "sync": "path:s", "getAllChildrenNumber": "path:s",
    "getEphemerals": "prefix:s", "addWatch": "path:s mode:i", "checkWatches": "path:s mode:i",
    "removeWatches": "path:s mode:i", "setWatches": "zxid:q data:[s] exist:[s] child:[s]",
    "setWatches2": "zxid:q data:[s] exist:[s] child:[s] persistent:[s] recursive:[s]",
    "reconfig": "joining:s leaving:s members:s config:q", "auth": "kind:i scheme:s auth:b", "sasl": "token:b",
}
REPLIES = {
    "create": "path:s", "create2": "path:s stat:stat", "createContainer": "path:s stat:stat",
    "createTTL": "path:s stat:stat", "exists": "stat:stat", "setData": "stat:stat", "setACL": "stat:stat",
    "getData": "data:b stat:stat", "reconfig": "data:b stat:stat", "getChildren": "children:[s]",
    "getChildren2": "children:[s] stat:stat", "getACL": "acl:[acl] stat:stat", "sync": "path:s",
    "getAllChildrenNumber": "count:i", "getEphemerals": "paths:[s]", "whoAmI": "who:[info]",
    "addWatch": "err:i", "sasl": "token:b", "notification": "kind:i state:i path:s",
}
TXNS = {
    "create": "path:s data:b acl:[acl] ephemeral:? pcversion:i", "create2": "path:s data:b acl:[acl] ephemeral:? pcversion:i",
    "createContainer": "path:s data:b acl:[acl] pcversion:i", "createTTL": "path:s data:b acl:[acl] pcversion:i ttl:q",
    "delete": "path:s", "deleteContainer": "path:s", "setData": "path:s data:b version:i",
    "setACL": "path:s acl:[acl] version:i", "check": "path:s version:i", "createSession": "timeout:i",
    "closeSession": "paths:[s]", "error": "err:i",
}
CONNECT_REQUEST = "version:i zxid:q timeout:i session:q password:b"
CONNECT_REPLY = "version:i timeout:i session:q password:b"


class Undecodable(Exception):
    """The bytes are not the record that was expected."""


# ---- writing

def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def boolean(value):
    return b"\1" if value else b"\0"


def buffer(value):
    return i32(-1) if value is None else i32(len(value)) + value


def string(value):
    return buffer(None if value is None else value.encode("utf-8", "surrogatepass"))


def vector(items, write):
    return i32(len(items)) + b"".join(write(item) for item in items)


def acl_entry(entry):
    perms, scheme, who = entry
    return i32(perms) + string(scheme) + string(who)


WRITERS = {"i": i32, "q": i64, "?": boolean, "s": string, "b": buffer,
           "[s]": lambda items: vector(items, string), "[acl]": lambda items: vector(items, acl_entry)}


def body(op, *values):
    """The body of a request for `op`, its fields in schema order."""
    fields = REQUESTS.get(op, "").split()
    assert len(fields) == len(values), (op, fields, values)
    return b"".join(WRITERS[field.split(":")[1]](value) for field, value in zip(fields, values))


def multi(entries):
    """The body of a multi or multiRead: entries are (op, field, ...)."""
    parts = [i32(OPS[op]) + b"\0" + i32(-1) + body(op, *values) for op, *values in entries]
    return b"".join(parts) + MULTI_END


MULTI_END = i32(-1) + b"\1" + i32(-1)


def frame(payload):
    return i32(len(payload)) + payload


def connect_request(timeout_ms=30000, session=0, password=b"\0" * 16, last_zxid=0, read_only=False):
    """The first frame's body. `read_only=None` leaves the byte out, as clients before 3.4 do."""
    record = i32(0) + i64(last_zxid) + i32(timeout_ms) + i64(session) + buffer(password)
    return record + (b"" if read_only is None else boolean(read_only))


# ---- reading

def text(raw):
    """A string from Java: supplementary characters come as two surrogates of three bytes each."""
    try:
        return raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise Undecodable(f"{n} bytes wanted at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n:self.at]

    def left(self):
        return len(self.data) - self.at

    def value(self, kind):
        if kind == "i":
            return struct.unpack(">i", self.take(4))[0]
        if kind == "q":
            return struct.unpack(">q", self.take(8))[0]
        if kind == "?":
            return self.take(1) != b"\0"
        if kind == "b":
            length = self.value("i")
            return None if length == -1 else bytes(self.take(length))
        if kind == "s":
            raw = self.value("b")
            return None if raw is None else text(raw)
        if kind == "stat":
            return self.fields(STAT)
        if kind == "acl":
            return (self.value("i"), self.value("s"), self.value("s"))
        if kind == "info":
            return (self.value("s"), self.value("s"))
        if kind.startswith("["):
            return [self.value(kind[1:-1]) for _ in range(self.value("i"))]
        raise AssertionError(kind)

    def fields(self, layout):
        named = (field.split(":") for field in layout.split())
        return {name: self.value(kind) for name, kind in named}


def decode_multi(reader, schema, is_reply):
    """Entries of a multi: a list of (op name, error, fields)."""
    entries = []
    while True:
        code, done, err = reader.value("i"), reader.value("?"), reader.value("i")
        if done:
            return entries
        name = NAMES.get(code)
        if is_reply and name == "error":
            entries.append((name, err, {"err": reader.value("i")}))
        elif name is None:
            raise Undecodable(f"multi entry of type {code}")
        else:
            entries.append((name, err, reader.fields(schema.get(name, ""))))


def decode(op, data, is_reply):
    """The fields of a body, all of it: bytes left over are an error."""
    reader = Reader(data)
    schema = REPLIES if is_reply else REQUESTS
    if op in ("multi", "multiRead"):
        fields = {"entries": decode_multi(reader, schema, is_reply)}
    elif op == "connect":
        fields = reader.fields(CONNECT_REPLY if is_reply else CONNECT_REQUEST)
        if reader.left():
            fields["readOnly"] = reader.value("?")
    else:
        fields = reader.fields(schema.get(op, ""))
    if reader.left():
        raise Undecodable(f"{reader.left()} bytes left behind {op}")
    return fields


# ---- one canonical line per frame

def render(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "(" + " ".join(f"{name}={render(item)}" for name, item in value.items()) + ")"
    if isinstance(value, tuple):
        return ":".join(part if isinstance(part, str) else render(part) for part in value)
    return "[" + ",".join(render(item) for item in value) + "]"


def describe(op, data, is_reply):
    """A body in one line: `path="/a" data=0x6869 acl=[31:world:anyone] flags=0`."""
    fields = decode(op, data, is_reply)
    if "entries" in fields:
        lines = [f"{name}/{err} {render(entry)}" for name, err, entry in fields["entries"]]
        return "; ".join(lines)
    return " ".join(f"{name}={render(value)}" for name, value in fields.items())


def describe_txn(payload):
    """A transaction's payload (header, record, digest) in one line."""
    reader = Reader(payload)
    head = reader.fields("session:q cxid:i zxid:q time:q type:i")
    name = NAMES[head["type"]]
    if name == "multi":
        entries = []
        for _ in range(reader.value("i")):
            sub = NAMES[reader.value("i")]
            entries.append(f"{sub} {render(Reader(reader.value('b')).fields(TXNS[sub]))}")
        line = "; ".join(entries)
    else:
        line = f"{name} {render(reader.fields(TXNS[name]))}"
    digest = reader.fields("version:i tree:q") if reader.left() else None
    if reader.left():
        raise Undecodable(f"{reader.left()} bytes left behind {name}")
    return f"{render(head)} {line} digest={render(digest)}"


# ---- a connection

class Closed(Exception):
    """The server closed the connection."""


class Reply:
    """One frame from the server: its header, the body's bytes, and, for the operation asked, its fields."""

    def __init__(self, data, op):
        self.raw = data
        self.xid, self.zxid, self.err = struct.unpack(">iqi", data[:16])
        self.body = data[16:]
        self.op = "notification" if self.xid == NOTIFICATION else op
        self.fields = decode(self.op, self.body, True) if self.err == 0 else {}

    def __repr__(self):
        return f"<{self.op} xid={self.xid} zxid={self.zxid:#x} err={self.err} {self.fields}>"


class Connection:
    """A session over one TCP connection. `events` collects notifications in the order of arrival."""

    def __init__(self, port, timeout_s=10.0, connect=True, **session):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.next_xid = 1
        self.pending = []
        self.events = []
        self.frames = []
        if connect:
            self.connect(**session)

    def connect(self, **session):
        self.send_frame(connect_request(**session))
        answer = self.read_frame()
        self.frames.append(answer)
        fields = decode("connect", answer, True)
        self.session, self.password = fields["session"], fields["password"]
        self.timeout_ms, self.answer = fields["timeout"], fields
        return fields

    def send_frame(self, payload):
        """A server that refuses what it has read so far may close before the rest is sent: `Closed`."""
        try:
            self.socket.sendall(frame(payload))
        except ConnectionError as error:
            raise Closed(str(error)) from error

    def read_frame(self):
        length = struct.unpack(">i", self._read(4))[0]
        return self._read(length)

    def _read(self, n):
        while len(self.received) < n:
            try:
                part = self.socket.recv(1 << 20)
            except ConnectionError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed("end of stream")
            self.received += part
        taken = bytes(self.received[:n])
        del self.received[:n]
        return taken

    def send(self, op, data=b"", xid=None):
        """Sends a request without waiting; returns its xid."""
        if xid is None:
            xid, self.next_xid = self.next_xid, self.next_xid + 1
        code = op if isinstance(op, int) else OPS[op]
        self.pending.append((xid, NAMES.get(code, "unknown")))
        self.send_frame(i32(xid) + i32(code) + data)
        return xid

    def receive(self):
        """The next frame, notification or reply."""
        data = self.read_frame()
        xid = struct.unpack(">i", data[:4])[0]
        op = "unknown"
        for at, (asked, name) in enumerate(self.pending):
            if asked == xid and xid != NOTIFICATION:
                op = name
                del self.pending[at]
                break
        reply = Reply(data, op)
        if reply.op == "notification":
            self.events.append(reply)
        return reply

    def reply(self, xid):
        """The reply to `xid`; notifications on the way are kept in `events`."""
        while (got := self.receive()).xid != xid or got.op == "notification":
            pass
        return got

    def call(self, op, *values):
        """Asks and waits for the answer. For multi and multiRead pass one list of entries."""
        data = multi(values[0]) if op in ("multi", "multiRead") else body(op, *values)
        special = {"ping": PING_XID, "auth": AUTH_XID, "setWatches": SET_WATCHES_XID, "setWatches2": SET_WATCHES_XID}
        return self.reply(self.send(op, data, special.get(op)))

    def create(self, path, data=b"", acl=None, flags=0):
        return self.call("create", path, data, OPEN_ACL if acl is None else acl, flags)

    def drain(self, wait_s=0.2):
        """Takes what arrives within `wait_s`; returns the frames."""
        frames, limit = [], time.monotonic() + wait_s
        before = self.socket.gettimeout()
        try:
            while (left := limit - time.monotonic()) > 0:
                self.socket.settimeout(left)
                frames.append(self.receive())
        except (TimeoutError, Closed):
            pass
        finally:
            self.socket.settimeout(before)
        return frames

    def is_closed(self, wait_s=5.0):
        """Whether the server closes the connection within `wait_s`, without another byte."""
        before = self.socket.gettimeout()
        self.socket.settimeout(wait_s)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(before)

    def close_session(self):
        reply = self.call("closeSession")
        self.socket.close()
        return reply

    def drop(self):
        """Closes the socket and leaves the session to expire."""
        self.socket.close()
