//! What a client asks for, body by body.

use crate::jute::{Malformed, Reader, Record};
use crate::op::OpCode;
use crate::record;
use crate::records::{Acl, AuthPacket, Zxid};
use bytes::{Bytes, BytesMut};

record! {
    /// create, create2, createContainer.
    pub struct CreateRequest {
        /// The znode; for sequential modes a prefix.
        pub path: String,
        /// Its data; null and empty differ.
        pub data: Option<Bytes>,
        /// Its ACL; empty is refused.
        pub acl: Vec<Acl>,
        /// A [`CreateMode`] number.
        pub flags: i32,
    }
}

record! {
    /// createTTL.
    pub struct CreateTtlRequest {
        /// The znode; for sequential modes a prefix.
        pub path: String,
        /// Its data.
        pub data: Option<Bytes>,
        /// Its ACL.
        pub acl: Vec<Acl>,
        /// A [`CreateMode`] number, 5 or 6.
        pub flags: i32,
        /// How long it lives without a change, ms.
        pub ttl_ms: i64,
    }
}

record! {
    /// A path and the version it must have; −1 matches any. delete and check.
    pub struct PathVersion {
        /// The znode.
        pub path: String,
        /// The expected version.
        pub version: i32,
    }
}

record! {
    /// A path and whether to leave a watch. exists, getData, getChildren, getChildren2.
    pub struct PathWatch {
        /// The znode.
        pub path: String,
        /// Leave a one-shot watch.
        pub watch: bool,
    }
}

record! {
    /// setData.
    pub struct SetDataRequest {
        /// The znode.
        pub path: String,
        /// The new data.
        pub data: Option<Bytes>,
        /// The expected data version.
        pub version: i32,
    }
}

record! {
    /// setACL.
    pub struct SetAclRequest {
        /// The znode.
        pub path: String,
        /// The new ACL.
        pub acl: Vec<Acl>,
        /// The expected ACL version.
        pub version: i32,
    }
}

record! {
    /// reconfig.
    pub struct ReconfigRequest {
        /// Server lines to add, or null.
        pub joining: Option<String>,
        /// Ids to remove, or null.
        pub leaving: Option<String>,
        /// The whole new membership, or null.
        pub members: Option<String>,
        /// The configuration version this is based on; −1 for any.
        pub current_config: i64,
    }
}

record! {
    /// A path and a number: addWatch (mode 0 persistent, 1 recursive), checkWatches and removeWatches
    /// (type 1 children, 2 data, 3 any, 4 persistent, 5 recursive).
    pub struct PathMode {
        /// The znode.
        pub path: String,
        /// The mode or type.
        pub mode: i32,
    }
}

record! {
    /// setWatches and, with the two last lists, setWatches2.
    pub struct SetWatches {
        /// Last zxid that the client has seen: what changed later has been missed.
        pub relative_zxid: Zxid,
        /// Data watches of znodes that existed.
        pub data: Vec<String>,
        /// Watches for znodes that did not exist.
        pub exist: Vec<String>,
        /// Child watches.
        pub child: Vec<String>,
        /// Persistent watches; setWatches2 only.
        pub persistent: Vec<String>,
        /// Persistent recursive watches; setWatches2 only.
        pub recursive: Vec<String>,
    }
}

/// What kind of znode to create. Source: `CreateMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum CreateMode {
    /// Lives until it is deleted.
    Persistent = 0,
    /// Lives as long as its session.
    Ephemeral = 1,
    /// Persistent, its name made unique by a counter.
    PersistentSequential = 2,
    /// Ephemeral, its name made unique by a counter.
    EphemeralSequential = 3,
    /// Goes when its last child has gone.
    Container = 4,
    /// Goes when it has not changed for its TTL.
    Ttl = 5,
    /// As [`Ttl`](Self::Ttl), its name made unique by a counter.
    TtlSequential = 6,
}

impl CreateMode {
    /// The mode with this number.
    pub fn from_flags(flags: i32) -> Option<Self> {
        use CreateMode::*;
        [Persistent, Ephemeral, PersistentSequential, EphemeralSequential, Container, Ttl, TtlSequential]
            .into_iter()
            .find(|mode| *mode as i32 == flags)
    }

    /// Belongs to its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Gets a counter appended to its name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential | Self::TtlSequential)
    }

    /// Has a TTL.
    pub fn is_ttl(self) -> bool {
        matches!(self, Self::Ttl | Self::TtlSequential)
    }
}

/// A decoded request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answered with the path.
    Create(CreateRequest),
    /// Answered with path and Stat.
    Create2(CreateRequest),
    /// Answered with path and Stat.
    CreateContainer(CreateRequest),
    /// Answered with path and Stat.
    CreateTtl(CreateTtlRequest),
    /// Answered with nothing.
    Delete(PathVersion),
    /// Server-internal; refused from clients.
    DeleteContainer(String),
    /// Answered with the Stat.
    SetData(SetDataRequest),
    /// Answered with the Stat.
    SetAcl(SetAclRequest),
    /// Inside a multi only.
    Check(PathVersion),
    /// The sub-requests: create kinds, delete, setData, check.
    Multi(Vec<Request>),
    /// Changes the ensemble.
    Reconfig(ReconfigRequest),
    /// Server-internal: opens a session with this timeout (ms).
    CreateSession(i32),
    /// Ends the session.
    CloseSession,
    /// Answered with the path.
    Sync(String),
    /// Answered with the Stat.
    Exists(PathWatch),
    /// Answered with data and Stat.
    GetData(PathWatch),
    /// Answered with ACL and Stat.
    GetAcl(String),
    /// Answered with names.
    GetChildren(PathWatch),
    /// Answered with names and Stat.
    GetChildren2(PathWatch),
    /// The sub-requests: getData and getChildren.
    MultiRead(Vec<Request>),
    /// Answered with the session's ephemerals under a prefix.
    GetEphemerals(Option<String>),
    /// Answered with a count.
    GetAllChildrenNumber(String),
    /// Answered with an error record, 0.
    AddWatch(PathMode),
    /// Answered with nothing.
    CheckWatches(PathMode),
    /// Answered with nothing.
    RemoveWatches(PathMode),
    /// Answered with nothing, behind the events that were missed.
    SetWatches(SetWatches),
    /// As [`SetWatches`](Self::SetWatches), with the persistent lists.
    SetWatches2(SetWatches),
    /// Answered with identities.
    WhoAmI,
    /// Answered with nothing.
    Ping,
    /// Answered with nothing.
    Auth(AuthPacket),
    /// Answered with a token.
    Sasl(Option<Bytes>),
}

/// Deepest sense of "a multi inside a multi": there is none.
const IN_MULTI: &[OpCode] = &[
    OpCode::Create,
    OpCode::Create2,
    OpCode::CreateContainer,
    OpCode::CreateTtl,
    OpCode::Delete,
    OpCode::SetData,
    OpCode::Check,
];
const IN_MULTI_READ: &[OpCode] = &[OpCode::GetData, OpCode::GetChildren];

record! {
    /// Stands before every entry of a multi, and, with `done`, behind the last.
    pub struct MultiHeader {
        /// The entry's operation; −1 for an error and for the end.
        pub op: i32,
        /// Nothing follows.
        pub done: bool,
        /// The entry's error code; −1 in requests and at the end.
        pub err: i32,
    }
}

impl MultiHeader {
    /// The header behind the last entry.
    pub const END: Self = Self { op: -1, done: true, err: -1 };
}

impl Request {
    /// Reads the body of a request for `op`. Operations that no client may send (notification, error)
    /// are malformed. Bytes behind the record are ignored, as Apache's server does.
    pub fn decode(op: OpCode, body: &[u8]) -> Result<Self, Malformed> {
        Self::read(op, &mut Reader::new(body))
    }

    fn read(op: OpCode, input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match op {
            OpCode::Create => Self::Create(Record::decode(input)?),
            OpCode::Create2 => Self::Create2(Record::decode(input)?),
            OpCode::CreateContainer => Self::CreateContainer(Record::decode(input)?),
            OpCode::CreateTtl => Self::CreateTtl(Record::decode(input)?),
            OpCode::Delete => Self::Delete(Record::decode(input)?),
            OpCode::DeleteContainer => Self::DeleteContainer(Record::decode(input)?),
            OpCode::SetData => Self::SetData(Record::decode(input)?),
            OpCode::SetAcl => Self::SetAcl(Record::decode(input)?),
            OpCode::Check => Self::Check(Record::decode(input)?),
            OpCode::Multi => Self::Multi(read_multi(input, IN_MULTI)?),
            OpCode::Reconfig => Self::Reconfig(Record::decode(input)?),
            OpCode::CreateSession => Self::CreateSession(Record::decode(input)?),
            OpCode::CloseSession => Self::CloseSession,
            OpCode::Sync => Self::Sync(Record::decode(input)?),
            OpCode::Exists => Self::Exists(Record::decode(input)?),
            OpCode::GetData => Self::GetData(Record::decode(input)?),
            OpCode::GetAcl => Self::GetAcl(Record::decode(input)?),
            OpCode::GetChildren => Self::GetChildren(Record::decode(input)?),
            OpCode::GetChildren2 => Self::GetChildren2(Record::decode(input)?),
            OpCode::MultiRead => Self::MultiRead(read_multi(input, IN_MULTI_READ)?),
            OpCode::GetEphemerals => Self::GetEphemerals(Record::decode(input)?),
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber(Record::decode(input)?),
            OpCode::AddWatch => Self::AddWatch(Record::decode(input)?),
            OpCode::CheckWatches => Self::CheckWatches(Record::decode(input)?),
            OpCode::RemoveWatches => Self::RemoveWatches(Record::decode(input)?),
            OpCode::SetWatches => Self::SetWatches(read_set_watches(input, false)?),
            OpCode::SetWatches2 => Self::SetWatches2(read_set_watches(input, true)?),
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::Ping => Self::Ping,
            OpCode::Auth => Self::Auth(Record::decode(input)?),
            OpCode::Sasl => Self::Sasl(Record::decode(input)?),
            OpCode::Notification | OpCode::Error => return Err(input.malformed("request operation")),
        })
    }

    /// The operation.
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::DeleteContainer(_) => OpCode::DeleteContainer,
            Self::SetData(_) => OpCode::SetData,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::Check(_) => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CreateSession(_) => OpCode::CreateSession,
            Self::CloseSession => OpCode::CloseSession,
            Self::Sync(_) => OpCode::Sync,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::GetAcl(_) => OpCode::GetAcl,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::GetEphemerals(_) => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Self::AddWatch(_) => OpCode::AddWatch,
            Self::CheckWatches(_) => OpCode::CheckWatches,
            Self::RemoveWatches(_) => OpCode::RemoveWatches,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::Ping => OpCode::Ping,
            Self::Auth(_) => OpCode::Auth,
            Self::Sasl(_) => OpCode::Sasl,
        }
    }

    /// Whether a TTL is out of range, or stands beside a mode without one: such a request must never become a
    /// transaction, whatever the configuration says.
    pub fn has_bad_ttl(&self) -> bool {
        const MAX_TTL_MS: i64 = (1 << 40) - 1;
        match self {
            Self::CreateTtl(create) => {
                !CreateMode::from_flags(create.flags).is_some_and(CreateMode::is_ttl)
                    || !(1..=MAX_TTL_MS).contains(&create.ttl_ms)
            }
            Self::Multi(requests) => requests.iter().any(Self::has_bad_ttl),
            _ => false,
        }
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Create(r) | Self::Create2(r) | Self::CreateContainer(r) => r.encode(out),
            Self::CreateTtl(r) => r.encode(out),
            Self::Delete(r) | Self::Check(r) => r.encode(out),
            Self::SetData(r) => r.encode(out),
            Self::SetAcl(r) => r.encode(out),
            Self::Multi(requests) | Self::MultiRead(requests) => {
                for request in requests {
                    MultiHeader { op: request.op().code(), done: false, err: -1 }.encode(out);
                    request.encode(out);
                }
                MultiHeader::END.encode(out);
            }
            Self::Reconfig(r) => r.encode(out),
            Self::CreateSession(timeout_ms) => timeout_ms.encode(out),
            Self::Sync(path)
            | Self::GetAcl(path)
            | Self::GetAllChildrenNumber(path)
            | Self::DeleteContainer(path) => path.encode(out),
            Self::Exists(r) | Self::GetData(r) | Self::GetChildren(r) | Self::GetChildren2(r) => {
                r.encode(out)
            }
            Self::GetEphemerals(prefix) => prefix.encode(out),
            Self::AddWatch(r) | Self::CheckWatches(r) | Self::RemoveWatches(r) => r.encode(out),
            Self::SetWatches(r) => {
                r.relative_zxid.encode(out);
                for list in [&r.data, &r.exist, &r.child] {
                    list.encode(out);
                }
            }
            Self::SetWatches2(r) => r.encode(out),
            Self::Auth(r) => r.encode(out),
            Self::Sasl(token) => token.encode(out),
            Self::CloseSession | Self::WhoAmI | Self::Ping => {}
        }
    }
}

fn read_multi(input: &mut Reader<'_>, allowed: &[OpCode]) -> Result<Vec<Request>, Malformed> {
    let mut requests = Vec::new();
    loop {
        let start = input.clone();
        let header = MultiHeader::decode(input)?;
        if header.done {
            return Ok(requests);
        }
        match OpCode::from_code(header.op).filter(|op| allowed.contains(op)) {
            Some(op) => requests.push(Request::read(op, input)?),
            None => return Err(start.malformed("multi entry")),
        }
    }
}

fn read_set_watches(input: &mut Reader<'_>, persistent: bool) -> Result<SetWatches, Malformed> {
    let mut watches = SetWatches {
        relative_zxid: Record::decode(input)?,
        data: Record::decode(input)?,
        exist: Record::decode(input)?,
        child: Record::decode(input)?,
        ..Default::default()
    };
    if persistent {
        watches.persistent = Record::decode(input)?;
        watches.recursive = Record::decode(input)?;
    }
    Ok(watches)
}
