//! Transactions, as they stand in log files and in proposals.
//!
//! A payload is [`TxnHeader`], the record of its type, and, where the writer keeps digests, [`TxnDigest`].
//! Values in a transaction are absolute *new* values computed by the leader (versions, the parent's
//! cversion); whoever applies it copies them and does not count itself.
//! Source: `SerializeUtils.deserializeTxn`, `FileTxnLog.java`; reference §9.3.

use crate::jute::{Malformed, Reader, Record, buffer_len, put_slice, str_len};
use crate::op::OpCode;
use crate::record;
use crate::records::{Acl, SessionId, Zxid};
use bytes::{Bytes, BytesMut};

record! {
    /// Who asked for a transaction, and its place in the order; 32 bytes.
    #[derive(Copy)]
    pub struct TxnHeader {
        /// The session that asked; 0 for the server's own.
        pub session: SessionId,
        /// The client's xid; 0 for session transactions.
        pub cxid: i32,
        /// The place in the order.
        pub zxid: Zxid,
        /// The leader's wall clock, ms since the Unix epoch.
        pub time_ms: i64,
        /// The type; an [`OpCode`] number.
        pub kind: i32,
    }
}

record! {
    /// The tree's digest after the transaction.
    #[derive(Copy)]
    pub struct TxnDigest {
        /// 2 today.
        pub version: i32,
        /// The sum over all znodes; see the reference, §9.6.
        pub tree: i64,
    }
}

record! {
    /// create and create2.
    pub struct CreateTxn {
        /// The znode, sequence number included.
        pub path: String,
        /// Its data.
        pub data: Option<Bytes>,
        /// Its ACL, fixed up.
        pub acl: Vec<Acl>,
        /// Owned by the header's session.
        pub ephemeral: bool,
        /// The parent's new raw cversion; −1 (old logs) means one more than now.
        pub parent_cversion: i32,
    }
}

record! {
    /// createTTL.
    pub struct CreateTtlTxn {
        /// The znode, sequence number included.
        pub path: String,
        /// Its data.
        pub data: Option<Bytes>,
        /// Its ACL, fixed up.
        pub acl: Vec<Acl>,
        /// The parent's new raw cversion.
        pub parent_cversion: i32,
        /// Its time to live, ms.
        pub ttl_ms: i64,
    }
}

record! {
    /// createContainer.
    pub struct CreateContainerTxn {
        /// The znode, sequence number included.
        pub path: String,
        /// Its data.
        pub data: Option<Bytes>,
        /// Its ACL, fixed up.
        pub acl: Vec<Acl>,
        /// The parent's new raw cversion.
        pub parent_cversion: i32,
    }
}

record! {
    /// setData, and reconfig on `/zookeeper/config`.
    pub struct SetDataTxn {
        /// The znode.
        pub path: String,
        /// Its new data.
        pub data: Option<Bytes>,
        /// Its new version.
        pub version: i32,
    }
}

record! {
    /// setACL.
    pub struct SetAclTxn {
        /// The znode.
        pub path: String,
        /// Its new ACL, fixed up.
        pub acl: Vec<Acl>,
        /// Its new aversion.
        pub version: i32,
    }
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Txn {
    /// Type 1, or 15: the two differ only in the client's reply. The type is the header's.
    Create(CreateTxn),
    /// Type 21.
    CreateTtl(CreateTtlTxn),
    /// Type 19.
    CreateContainer(CreateContainerTxn),
    /// Types 2 and 20.
    Delete(String),
    /// Types 5 and 16.
    SetData(SetDataTxn),
    /// Type 7.
    SetAcl(SetAclTxn),
    /// Type 13, inside a multi: path and version.
    Check(String, i32),
    /// Type 14: (type, sub-transaction) in order. One entry of type −1 voids them all.
    Multi(Vec<(OpCode, Txn)>),
    /// Type −10: the session's timeout, ms.
    CreateSession(i32),
    /// Type −11: the ephemerals to delete; `None` before 3.6: all that are there.
    CloseSession(Option<Vec<String>>),
    /// Type −1: a refused write, with its code.
    Error(i32),
}

/// Bytes of an ACL in a transaction.
fn acl_len(acl: &[Acl]) -> usize {
    4 + acl.iter().map(|entry| 4 + str_len(&entry.id.scheme) + str_len(&entry.id.id)).sum::<usize>()
}

impl Txn {
    /// What stands in front of each entry of a multi, bytes: its type and its length.
    pub const MULTI_ENTRY_HEAD_BYTES: usize = 8;

    /// How many bytes the transaction takes, without its header and digest
    /// ([`TxnRecord::REST_BYTES`]): known without encoding it, so that one that no peer and no restart would
    /// read is refused before it exists.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Create(txn) => str_len(&txn.path) + buffer_len(txn.data.as_deref()) + acl_len(&txn.acl) + 5,
            Self::CreateTtl(txn) => {
                str_len(&txn.path) + buffer_len(txn.data.as_deref()) + acl_len(&txn.acl) + 12
            }
            Self::CreateContainer(txn) => {
                str_len(&txn.path) + buffer_len(txn.data.as_deref()) + acl_len(&txn.acl) + 4
            }
            Self::Delete(path) => str_len(path),
            Self::SetData(txn) => str_len(&txn.path) + buffer_len(txn.data.as_deref()) + 4,
            Self::SetAcl(txn) => str_len(&txn.path) + acl_len(&txn.acl) + 4,
            Self::Check(path, _) => str_len(path) + 4,
            Self::Multi(entries) => {
                let entry = |(_, txn): &(OpCode, Self)| Self::MULTI_ENTRY_HEAD_BYTES + txn.encoded_len();
                4 + entries.iter().map(entry).sum::<usize>()
            }
            Self::CreateSession(_) | Self::Error(_) => 4,
            Self::CloseSession(Some(paths)) => 4 + paths.iter().map(|path| str_len(path)).sum::<usize>(),
            Self::CloseSession(None) => 0,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Create(txn) => txn.encode(out),
            Self::CreateTtl(txn) => txn.encode(out),
            Self::CreateContainer(txn) => txn.encode(out),
            Self::Delete(path) => path.encode(out),
            Self::SetData(txn) => txn.encode(out),
            Self::SetAcl(txn) => txn.encode(out),
            Self::Check(path, version) => {
                path.encode(out);
                version.encode(out);
            }
            Self::Multi(entries) => {
                (entries.len() as i32).encode(out);
                for (kind, txn) in entries {
                    kind.code().encode(out);
                    let mut body = BytesMut::new();
                    txn.encode(&mut body);
                    put_slice(out, &body);
                }
            }
            Self::CreateSession(timeout_ms) => timeout_ms.encode(out),
            Self::CloseSession(Some(paths)) => paths.encode(out),
            Self::CloseSession(None) => {}
            Self::Error(code) => code.encode(out),
        }
    }

    fn decode(kind: OpCode, input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            OpCode::Create | OpCode::Create2 => Self::Create(read_create(kind, input)?),
            OpCode::CreateTtl => Self::CreateTtl(Record::decode(input)?),
            OpCode::CreateContainer => Self::CreateContainer(Record::decode(input)?),
            OpCode::Delete | OpCode::DeleteContainer => Self::Delete(Record::decode(input)?),
            OpCode::SetData | OpCode::Reconfig => Self::SetData(Record::decode(input)?),
            OpCode::SetAcl => Self::SetAcl(Record::decode(input)?),
            OpCode::Check => Self::Check(Record::decode(input)?, Record::decode(input)?),
            OpCode::Multi => Self::Multi(read_multi(input)?),
            OpCode::CreateSession => Self::CreateSession(Record::decode(input)?),
            OpCode::CloseSession if input.remaining() == 0 => Self::CloseSession(None),
            OpCode::CloseSession => Self::CloseSession(Some(Record::decode(input)?)),
            OpCode::Error => Self::Error(Record::decode(input)?),
            _ => return Err(input.malformed("transaction type")),
        })
    }
}

/// Type 1 may be the old record without a parent cversion (CreateTxnV0): its bytes end early.
fn read_create(kind: OpCode, input: &mut Reader<'_>) -> Result<CreateTxn, Malformed> {
    Ok(CreateTxn {
        path: Record::decode(input)?,
        data: Record::decode(input)?,
        acl: Record::decode(input)?,
        ephemeral: Record::decode(input)?,
        parent_cversion: if kind == OpCode::Create && input.remaining() == 0 {
            -1
        } else {
            Record::decode(input)?
        },
    })
}

fn read_multi(input: &mut Reader<'_>) -> Result<Vec<(OpCode, Txn)>, Malformed> {
    let start = input.clone();
    let count = i32::decode(input)?;
    // An entry takes at least eight bytes.
    if count < -1 || count as i64 * 8 > input.remaining() as i64 {
        return Err(start.malformed("multi count"));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let start = input.clone();
        let kind = OpCode::from_code(i32::decode(input)?)
            .filter(|kind| *kind != OpCode::Multi)
            .ok_or(start.malformed("transaction type"))?;
        let body = input.buffer()?.unwrap_or_default();
        entries.push((kind, Txn::decode(kind, &mut Reader::new(body))?));
    }
    Ok(entries)
}

/// A whole payload: header, transaction, digest. [`encode`](Record::encode) gives the bytes that go into
/// the log and into proposals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnRecord {
    /// Who and where.
    pub header: TxnHeader,
    /// What.
    pub txn: Txn,
    /// The tree's digest afterwards, if the writer keeps one. Never written behind an error or behind a
    /// closeSession without a body, which readers would misread.
    pub digest: Option<TxnDigest>,
}

impl TxnRecord {
    /// Bytes of a payload beside those of its transaction: the header and the digest.
    pub const REST_BYTES: usize = 32 + 12;
}

impl Record for TxnRecord {
    fn encode(&self, out: &mut BytesMut) {
        self.header.encode(out);
        self.txn.encode(out);
        let readable = !matches!(self.txn, Txn::Error(_) | Txn::CloseSession(None));
        if let Some(digest) = self.digest.filter(|_| readable) {
            digest.encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let header = TxnHeader::decode(input)?;
        let kind = OpCode::from_code(header.kind).ok_or(input.malformed("transaction type"))?;
        let txn = Txn::decode(kind, input)?;
        let digest = if input.remaining() == 0 { None } else { Some(TxnDigest::decode(input)?) };
        Ok(Self { header, txn, digest })
    }
}
