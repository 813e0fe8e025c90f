//! What a client is answered, body by body. A reply is a [`ReplyHeader`](crate::records::ReplyHeader) and,
//! when its `err` is 0, one of these.

use crate::error::ErrorCode;
use crate::jute::{Malformed, Reader, Record};
use crate::op::OpCode;
use crate::records::{Acl, ClientInfo, Stat};
use crate::request::MultiHeader;
use bytes::{Bytes, BytesMut};

/// A reply's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Nothing: delete, ping, closeSession, setWatches, removeWatches, checkWatches, auth.
    Empty,
    /// create, sync: the path.
    Path(String),
    /// create2, createContainer, createTTL.
    Created(String, Stat),
    /// setData, setACL, exists.
    Stat(Stat),
    /// getData, reconfig.
    Data(Option<Bytes>, Stat),
    /// getChildren: names.
    Children(Vec<String>),
    /// getChildren2.
    Children2(Vec<String>, Stat),
    /// getACL.
    Acl(Vec<Acl>, Stat),
    /// multi, multiRead.
    Multi(Vec<MultiResult>),
    /// getAllChildrenNumber.
    Count(i32),
    /// getEphemerals: paths.
    Ephemerals(Vec<String>),
    /// whoAmI.
    WhoAmI(Vec<ClientInfo>),
    /// addWatch: an error record, 0.
    Error(i32),
    /// sasl.
    Token(Option<Bytes>),
}

/// One entry of a multi's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiResult {
    /// A create.
    Create(String),
    /// A create2, createContainer or createTTL; all answer as create2.
    Create2(String, Stat),
    /// A delete.
    Delete,
    /// A setData.
    SetData(Stat),
    /// A check.
    Check,
    /// A getData, in a multiRead.
    GetData(Option<Bytes>, Stat),
    /// A getChildren, in a multiRead.
    GetChildren(Vec<String>),
    /// The entry's error: 0 before the one that failed, −2 behind it.
    Error(i32),
}

impl MultiResult {
    /// The error, if this entry is one; `Some(None)`-like zero codes read as no error.
    pub fn error(&self) -> Option<ErrorCode> {
        match self {
            Self::Error(code) => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    fn op(&self) -> i32 {
        match self {
            Self::Create(_) => OpCode::Create.code(),
            Self::Create2(..) => OpCode::Create2.code(),
            Self::Delete => OpCode::Delete.code(),
            Self::SetData(_) => OpCode::SetData.code(),
            Self::Check => OpCode::Check.code(),
            Self::GetData(..) => OpCode::GetData.code(),
            Self::GetChildren(_) => OpCode::GetChildren.code(),
            Self::Error(_) => OpCode::Error.code(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let err = if let Self::Error(code) = self { *code } else { 0 };
        MultiHeader { op: self.op(), done: false, err }.encode(out);
        match self {
            Self::Create(path) => path.encode(out),
            Self::Create2(path, stat) => {
                path.encode(out);
                stat.encode(out);
            }
            Self::SetData(stat) => stat.encode(out),
            Self::GetData(data, stat) => {
                data.encode(out);
                stat.encode(out);
            }
            Self::GetChildren(names) => names.encode(out),
            Self::Error(code) => code.encode(out),
            Self::Delete | Self::Check => {}
        }
    }

    fn decode(op: i32, input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match OpCode::from_code(op) {
            Some(OpCode::Create) => Self::Create(Record::decode(input)?),
            Some(OpCode::Create2) => Self::Create2(Record::decode(input)?, Record::decode(input)?),
            Some(OpCode::Delete) => Self::Delete,
            Some(OpCode::SetData) => Self::SetData(Record::decode(input)?),
            Some(OpCode::Check) => Self::Check,
            Some(OpCode::GetData) => Self::GetData(Record::decode(input)?, Record::decode(input)?),
            Some(OpCode::GetChildren) => Self::GetChildren(Record::decode(input)?),
            Some(OpCode::Error) => Self::Error(Record::decode(input)?),
            _ => return Err(input.malformed("multi result")),
        })
    }
}

impl Response {
    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Empty => {}
            Self::Path(path) => path.encode(out),
            Self::Created(path, stat) => {
                path.encode(out);
                stat.encode(out);
            }
            Self::Stat(stat) => stat.encode(out),
            Self::Data(data, stat) => {
                data.encode(out);
                stat.encode(out);
            }
            Self::Children(names) | Self::Ephemerals(names) => names.encode(out),
            Self::Children2(names, stat) => {
                names.encode(out);
                stat.encode(out);
            }
            Self::Acl(acl, stat) => {
                acl.encode(out);
                stat.encode(out);
            }
            Self::Multi(results) => {
                for result in results {
                    result.encode(out);
                }
                MultiHeader::END.encode(out);
            }
            Self::Count(n) | Self::Error(n) => n.encode(out),
            Self::WhoAmI(infos) => infos.encode(out),
            Self::Token(token) => token.encode(out),
        }
    }

    /// Reads the body of the reply to a request for `op` whose header's `err` was 0.
    pub fn decode(op: OpCode, body: &[u8]) -> Result<Self, Malformed> {
        let input = &mut Reader::new(body);
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(Record::decode(input)?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Created(Record::decode(input)?, Record::decode(input)?)
            }
            OpCode::SetData | OpCode::SetAcl | OpCode::Exists => Self::Stat(Record::decode(input)?),
            OpCode::GetData | OpCode::Reconfig => Self::Data(Record::decode(input)?, Record::decode(input)?),
            OpCode::GetChildren => Self::Children(Record::decode(input)?),
            OpCode::GetChildren2 => Self::Children2(Record::decode(input)?, Record::decode(input)?),
            OpCode::GetAcl => Self::Acl(Record::decode(input)?, Record::decode(input)?),
            OpCode::Multi | OpCode::MultiRead => {
                let mut results = Vec::new();
                loop {
                    let header = MultiHeader::decode(input)?;
                    if header.done {
                        return Ok(Self::Multi(results));
                    }
                    results.push(MultiResult::decode(header.op, input)?);
                }
            }
            OpCode::GetAllChildrenNumber => Self::Count(Record::decode(input)?),
            OpCode::GetEphemerals => Self::Ephemerals(Record::decode(input)?),
            OpCode::WhoAmI => Self::WhoAmI(Record::decode(input)?),
            OpCode::AddWatch => Self::Error(Record::decode(input)?),
            OpCode::Sasl => Self::Token(Record::decode(input)?),
            OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::Check
            | OpCode::Ping
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::CreateSession
            | OpCode::CloseSession => Self::Empty,
            OpCode::Notification | OpCode::Error => return Err(input.malformed("reply operation")),
        })
    }
}
