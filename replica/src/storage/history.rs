//! For tests: a state that remembers which transactions it has seen, and how to write one.

use super::error::StorageError;
use super::log::LogEntry;
use super::names::Compression;
use super::recovery::{Recovered, RecoveryOptions, Restore, recover};
use super::snapshot::{Sealed, SnapshotEnd, SnapshotItem, SnapshotNode, SnapshotWriter, digest_block};
use super::{Disk, TxnLog};
use bytes::Bytes;
use std::collections::BTreeSet;
use zoometry_wire::txn::SetDataTxn;
use zoometry_wire::{Acl, OpCode, Record, SessionId, StatPersisted, Txn, TxnHeader, TxnRecord, Zxid};

/// The zxids applied.
pub(crate) type Seen = BTreeSet<i64>;

/// A transaction whose payload differs from others' in content and length.
pub(crate) fn payload(zxid: Zxid) -> Bytes {
    let data = vec![zxid.0 as u8; (zxid.0 as usize * 7) % 60];
    let kind = OpCode::SetData.code();
    let header =
        TxnHeader { session: SessionId(1), cxid: zxid.0 as i32, zxid, time_ms: 1_700_000_000_000, kind };
    let txn = Txn::SetData(SetDataTxn { path: "/a".into(), data: Some(data.into()), version: zxid.0 as i32 });
    TxnRecord { header, txn, digest: None }.to_bytes()
}

/// Appends transactions `from..=to` and commits them.
pub(crate) fn log_range<D: Disk>(log: &mut TxnLog<D>, from: i64, to: i64) -> Result<(), StorageError> {
    for zxid in from..=to {
        log.append(Zxid(zxid), &payload(Zxid(zxid)))?;
    }
    log.commit().map(|_| ())
}

/// Writes a snapshot of `seen`: one znode for each transaction.
pub(crate) fn write_snapshot<D: Disk>(disk: &D, seen: &Seen) -> Result<String, StorageError> {
    let last = seen.last().copied().unwrap_or(0);
    write_fuzzy_snapshot(disk, Zxid(last), seen, last)
}

/// Writes a snapshot that began at `zxid` and ended at `ended`, when it held `seen`.
pub(crate) fn write_fuzzy_snapshot<D: Disk>(
    disk: &D,
    zxid: Zxid,
    seen: &Seen,
    ended: i64,
) -> Result<String, StorageError> {
    let writer = SnapshotWriter::create(disk.clone(), zxid, Compression::None, &head())?;
    write(writer, seen, ended)?.publish().map(|(name, _)| name)
}

/// A snapshot of `seen` that is ready to be installed.
pub(crate) fn seal_installing<D: Disk>(disk: &D, zxid: Zxid, seen: &Seen) -> Result<Sealed<D>, StorageError> {
    write(SnapshotWriter::create_installing(disk.clone(), zxid, &head())?, seen, zxid.0)
}

fn head() -> [SnapshotItem; 3] {
    [
        SnapshotItem::Session(SessionId(0x10_0000), 30_000),
        SnapshotItem::Acl(1, Acl::open().into()),
        SnapshotItem::Acl(2, [].into()),
    ]
}

fn write<D: Disk>(mut writer: SnapshotWriter<D>, seen: &Seen, ended: i64) -> Result<Sealed<D>, StorageError> {
    let node = |path: String| SnapshotNode { path, data: None, acl: 1, stat: StatPersisted::default() };
    writer.node(&node(String::new()));
    for zxid in seen {
        writer.node(&node(format!("/{zxid}")));
        writer.flush()?;
    }
    let end = SnapshotEnd { digest: Some(digest_block(Zxid(ended), 77)), last_zxid: Some(Zxid(ended)) };
    writer.seal_up(end)
}

/// Builds [`Seen`].
pub(crate) struct Collect;

impl Restore for Collect {
    type State = Seen;

    fn empty(&mut self) -> Seen {
        Seen::new()
    }

    fn load(
        &mut self,
        _zxid: Zxid,
        items: &mut dyn Iterator<Item = Result<SnapshotItem, StorageError>>,
    ) -> Result<Seen, StorageError> {
        let mut seen = Seen::new();
        for item in items {
            if let SnapshotItem::Node(node) = item? {
                seen.extend(node.path.strip_prefix('/').and_then(|zxid| zxid.parse::<i64>().ok()));
            }
        }
        Ok(seen)
    }

    fn replay(&mut self, state: &mut Seen, entry: LogEntry) -> Option<bool> {
        state.insert(entry.record.header.zxid.0);
        None
    }
}

/// Recovers a [`Seen`].
pub(crate) fn recover_seen<D: Disk>(disk: &D) -> Result<Recovered<Seen>, StorageError> {
    recover(disk, RecoveryOptions::default(), &mut Collect)
}

/// The transactions `1..=last`.
pub(crate) fn all_upto(last: i64) -> Seen {
    (1..=last).collect()
}
