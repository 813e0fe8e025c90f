//! The small records that everything else is made of.
//!
//! Field order is the wire order of Apache's `zookeeper.jute`.

use crate::jute::{Malformed, Reader, Record};
use crate::record;
use bytes::{Bytes, BytesMut};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub i64);

        impl Record for $name {
            fn encode(&self, out: &mut BytesMut) {
                self.0.encode(out);
            }
            fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
                i64::decode(input).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "0x{:x}", self.0)
            }
        }
    };
}

id!(
    /// A transaction's place in the one order: epoch in the high 32 bits, counter in the low 32.
    Zxid
);
id!(
    /// A session's name; its top byte is the id of the server that issued it.
    SessionId
);

impl Zxid {
    /// The epoch: which leadership proposed it.
    pub fn epoch(self) -> i32 {
        (self.0 >> 32) as i32
    }

    /// The place within the epoch.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

record! {
    /// Who somebody is, or who an ACL entry speaks of.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct Id {
        /// `world`, `ip`, `digest`, `auth`, `x509`, `sasl`, `super`.
        pub scheme: String,
        /// The identity, in the scheme's own form.
        pub id: String,
    }
}

record! {
    /// One entry of an access control list.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct Acl {
        /// Bits of [`perms`].
        pub perms: i32,
        /// Whom they are given to.
        pub id: Id,
    }
}

impl Acl {
    /// `world:anyone` with all permissions, `OPEN_ACL_UNSAFE`.
    pub fn open() -> Vec<Acl> {
        vec![Acl { perms: perms::ALL, id: Id { scheme: "world".into(), id: "anyone".into() } }]
    }
}

/// Permission bits. Source: `ZooDefs.Perms`.
pub mod perms {
    /// getData, getChildren, exists.
    pub const READ: i32 = 1;
    /// setData.
    pub const WRITE: i32 = 2;
    /// Creating children.
    pub const CREATE: i32 = 4;
    /// Deleting children.
    pub const DELETE: i32 = 8;
    /// setACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

record! {
    /// A znode's status as clients see it; 68 bytes.
    #[derive(Copy)]
    pub struct Stat {
        /// zxid of the create.
        pub czxid: Zxid,
        /// zxid of the last data change.
        pub mzxid: Zxid,
        /// When it was created, ms since the Unix epoch on the leader's clock.
        pub ctime: i64,
        /// When its data last changed.
        pub mtime: i64,
        /// Data changes.
        pub version: i32,
        /// Children created plus children deleted.
        pub cversion: i32,
        /// ACL changes.
        pub aversion: i32,
        /// The owning session of an ephemeral; 0 for everything else, containers and TTL nodes too.
        pub ephemeral_owner: SessionId,
        /// Bytes of data; 0 for null.
        pub data_length: i32,
        /// Children now.
        pub num_children: i32,
        /// zxid of the last child change.
        pub pzxid: Zxid,
    }
}

record! {
    /// A znode's status as snapshots hold it; 60 bytes.
    #[derive(Copy)]
    pub struct StatPersisted {
        /// zxid of the create.
        pub czxid: Zxid,
        /// zxid of the last data change.
        pub mzxid: Zxid,
        /// Creation, ms since the Unix epoch.
        pub ctime: i64,
        /// Last data change, ms since the Unix epoch.
        pub mtime: i64,
        /// Data changes.
        pub version: i32,
        /// The *raw* cversion: children created so far, deletions not counted.
        pub cversion: i32,
        /// ACL changes.
        pub aversion: i32,
        /// The owner word as stored: a session, or the mark of a container or TTL node.
        pub ephemeral_owner: SessionId,
        /// zxid of the last child change.
        pub pzxid: Zxid,
    }
}

record! {
    /// Head of every request behind the connect handshake.
    #[derive(Copy)]
    pub struct RequestHeader {
        /// The client's number for the request; see [`xid`] for the special ones.
        pub xid: i32,
        /// The operation's number.
        pub op: i32,
    }
}

record! {
    /// Head of every reply and notification; 16 bytes.
    #[derive(Copy)]
    pub struct ReplyHeader {
        /// The request's xid.
        pub xid: i32,
        /// Last zxid that the answering server has processed; a write's own zxid.
        pub zxid: Zxid,
        /// 0, or an [`ErrorCode`](crate::ErrorCode) number, and then no body follows.
        pub err: i32,
    }
}

/// The special xids. Source: `ClientCnxn.java`.
pub mod xid {
    /// A watch event.
    pub const NOTIFICATION: i32 = -1;
    /// A ping and its reply.
    pub const PING: i32 = -2;
    /// An auth packet and its reply.
    pub const AUTH: i32 = -4;
    /// setWatches and its reply.
    pub const SET_WATCHES: i32 = -8;
}

record! {
    /// First frame of a client, without a header. The trailing readOnly byte is not part of this record:
    /// see [`ConnectRequest::decode_frame`].
    pub struct ConnectRequest {
        /// Always 0.
        pub protocol_version: i32,
        /// Last zxid that the client has seen; a server behind it must refuse.
        pub last_zxid_seen: Zxid,
        /// The session timeout asked for, ms.
        pub timeout_ms: i32,
        /// 0 for a new session.
        pub session_id: SessionId,
        /// 16 bytes, from the session's first connect.
        pub password: Option<Bytes>,
    }
}

record! {
    /// First frame of a server, without a header; the readOnly byte follows only if the client sent one.
    pub struct ConnectResponse {
        /// Always 0.
        pub protocol_version: i32,
        /// The negotiated session timeout, ms; 0 says that the session is over.
        pub timeout_ms: i32,
        /// The session.
        pub session_id: SessionId,
        /// 16 bytes to show when re-attaching.
        pub password: Option<Bytes>,
    }
}

/// The optional readOnly byte of the connect frames: clients before 3.4 do not send it and must not get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnlyByte {
    /// Not there.
    Absent,
    /// There, with this value.
    Present(bool),
}

impl ReadOnlyByte {
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        if input.remaining() == 0 { Ok(Self::Absent) } else { bool::decode(input).map(Self::Present) }
    }

    fn encode(self, out: &mut BytesMut) {
        if let Self::Present(value) = self {
            value.encode(out);
        }
    }
}

impl ConnectRequest {
    /// The whole frame body: the record and, if it is there, the readOnly byte.
    pub fn decode_frame(body: &[u8]) -> Result<(Self, ReadOnlyByte), Malformed> {
        let mut input = Reader::new(body);
        Ok((Self::decode(&mut input)?, ReadOnlyByte::decode(&mut input)?))
    }

    /// Writes the frame body.
    pub fn encode_frame(&self, read_only: ReadOnlyByte, out: &mut BytesMut) {
        self.encode(out);
        read_only.encode(out);
    }
}

impl ConnectResponse {
    /// The whole frame body: the record and, if it is there, the readOnly byte.
    pub fn decode_frame(body: &[u8]) -> Result<(Self, ReadOnlyByte), Malformed> {
        let mut input = Reader::new(body);
        Ok((Self::decode(&mut input)?, ReadOnlyByte::decode(&mut input)?))
    }

    /// Writes the frame body.
    pub fn encode_frame(&self, read_only: ReadOnlyByte, out: &mut BytesMut) {
        self.encode(out);
        read_only.encode(out);
    }
}

record! {
    /// An identity offered by a client.
    pub struct AuthPacket {
        /// Always 0.
        pub kind: i32,
        /// The scheme.
        pub scheme: String,
        /// What the scheme wants: for digest `user:password`.
        pub auth: Option<Bytes>,
    }
}

record! {
    /// A watch event.
    #[derive(Hash)]
    pub struct WatcherEvent {
        /// An [`EventType`] number.
        pub kind: i32,
        /// Always 3, SyncConnected.
        pub state: i32,
        /// The znode.
        pub path: String,
    }
}

/// `KeeperState.SyncConnected`, the only state that travels.
pub const SYNC_CONNECTED: i32 = 3;

/// What happened to a watched znode. Source: `Watcher.Event.EventType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum EventType {
    /// It was created.
    NodeCreated = 1,
    /// It was deleted.
    NodeDeleted = 2,
    /// Its data changed.
    NodeDataChanged = 3,
    /// A child came or went.
    NodeChildrenChanged = 4,
}

impl EventType {
    /// The event with this number.
    pub fn from_code(code: i32) -> Option<Self> {
        [Self::NodeCreated, Self::NodeDeleted, Self::NodeDataChanged, Self::NodeChildrenChanged]
            .into_iter()
            .find(|kind| *kind as i32 == code)
    }
}

record! {
    /// One identity of a connection, for whoAmI.
    pub struct ClientInfo {
        /// The scheme.
        pub scheme: String,
        /// What may be shown of the identity.
        pub user: String,
    }
}
