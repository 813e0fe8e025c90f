//! Applying a transaction: the one way in which a store changes. Source: `DataTree.processTxn`, `createNode`,
//! `deleteNode`, `setData`, `setACL`, `killSession`; reference §3.7, §4.2, §5, §9.5.
//!
//! A transaction carries new values, and they are copied, never counted. So a transaction may meet a tree that
//! already holds it and later ones (a fuzzy snapshot): a parent's cversion and pzxid only move forward, a
//! create of what is there brings its ACL and lifts the parent, a delete of what is gone lifts the parent.
//! Forward is as [`is_newer`] has it, so that the counter goes on behind 2147483647; Apache compares numbers
//! there (`DataTree.createNode`), and its counter stands still.
//! What cannot be applied is an error for whoever asked, the same on every member, and changes nothing else.

use zoometry_wire::txn::{CreateTxn, SetAclTxn, SetDataTxn, TxnHeader};
use zoometry_wire::{
    Acl, ErrorCode, MultiResult, OpCode, Response, SessionId, Stat, StatPersisted, Txn, TxnRecord,
};

use super::owner;
use super::tree::{NewNode, NodeId};
use super::watch::WatchSink;
use super::{Store, digest, is_newer, is_special};
use crate::deliberate::{Bug, chosen};
use bytes::Bytes;

/// What a single transaction leaves to say.
enum Done<'a> {
    Nothing,
    Created(&'a str, Stat),
    Changed(&'a str, Stat),
}

/// A create of any kind.
struct Create<'a> {
    path: &'a str,
    data: &'a Option<Bytes>,
    acl: &'a [Acl],
    owner: SessionId,
    parent_cversion: i32,
}

impl Store {
    /// Applies a transaction; the one path for recovery, synchronisation and broadcast. Fires watches into
    /// `sink` before it returns. Returns what the client that asked is answered.
    ///
    /// Transactions that the tree already holds may be applied again, as long as those behind them are too
    /// (reference §9.5): the end is the same.
    pub fn apply(&mut self, record: &TxnRecord, sink: &mut dyn WatchSink) -> Result<Response, ErrorCode> {
        let header = &record.header;
        let answer = match &record.txn {
            Txn::Multi(entries) => self.apply_multi(header, entries, sink),
            txn => self.apply_one(header, txn, sink).map(|done| self.answer(header.kind, done)),
        };
        self.last_zxid = self.last_zxid.max(header.zxid);
        self.compare_digest(record);
        answer
    }

    fn answer(&self, kind: i32, done: Done<'_>) -> Response {
        match done {
            Done::Nothing => Response::Empty,
            Done::Created(path, _) if kind == OpCode::Create.code() => Response::Path(path.into()),
            Done::Created(path, stat) => Response::Created(path.into(), stat),
            Done::Changed(path, stat) if kind == OpCode::Reconfig.code() => {
                let data = self.tree.find(path).and_then(|id| self.tree.node(id).data.clone());
                Response::Data(data, stat)
            }
            Done::Changed(_, stat) => Response::Stat(stat),
        }
    }

    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        entries: &[(OpCode, Txn)],
        sink: &mut dyn WatchSink,
    ) -> Result<Response, ErrorCode> {
        let failed = entries.iter().position(|(_, txn)| matches!(txn, Txn::Error(_)));
        if let Some(failed) = failed {
            return void_multi(entries, failed);
        }
        let results = entries.iter().map(|(op, txn)| match self.apply_one(header, txn, sink) {
            Err(code) => MultiResult::Error(code.code()),
            Ok(Done::Created(path, _)) if *op == OpCode::Create => MultiResult::Create(path.into()),
            Ok(Done::Created(path, stat)) => MultiResult::Create2(path.into(), stat),
            Ok(Done::Changed(_, stat)) => MultiResult::SetData(stat),
            Ok(Done::Nothing) if *op == OpCode::Check => MultiResult::Check,
            Ok(Done::Nothing) => MultiResult::Delete,
        });
        Ok(Response::Multi(results.collect()))
    }

    fn apply_one<'a>(
        &mut self,
        header: &TxnHeader,
        txn: &'a Txn,
        sink: &mut dyn WatchSink,
    ) -> Result<Done<'a>, ErrorCode> {
        match txn {
            Txn::Create(CreateTxn { path, data, acl, ephemeral, parent_cversion }) => {
                let owner = if *ephemeral { header.session } else { SessionId(0) };
                let create = Create { path, data, acl, owner, parent_cversion: *parent_cversion };
                self.create(header, create, sink)
            }
            Txn::CreateContainer(txn) => {
                let (path, data, acl) = (&txn.path, &txn.data, &txn.acl);
                let parent_cversion = txn.parent_cversion;
                let create = Create { path, data, acl, owner: owner::CONTAINER, parent_cversion };
                self.create(header, create, sink)
            }
            Txn::CreateTtl(txn) => {
                let (path, data, acl) = (&txn.path, &txn.data, &txn.acl);
                let parent_cversion = txn.parent_cversion;
                let owner = owner::ttl_word(txn.ttl_ms)?;
                self.create(header, Create { path, data, acl, owner, parent_cversion }, sink)
            }
            Txn::Delete(path) => self.delete(header, path, sink).map(|()| Done::Nothing),
            Txn::SetData(txn) => self.set_data(header, txn, sink),
            Txn::SetAcl(SetAclTxn { path, acl, version }) => {
                let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
                self.tree.change_acl(id, acl);
                self.tree.change_stat(id, |stat| stat.aversion = *version);
                Ok(Done::Changed(path, self.tree.stat(id)))
            }
            Txn::Check(..) => Ok(Done::Nothing),
            Txn::CreateSession(timeout_ms) => {
                self.sessions.insert(header.session, *timeout_ms);
                Ok(Done::Nothing)
            }
            Txn::CloseSession(listed) => {
                self.close_session(header, listed.as_deref().unwrap_or_default(), sink);
                Ok(Done::Nothing)
            }
            // A multi within a multi does not decode.
            Txn::Multi(_) => Err(ErrorCode::MarshallingError),
            Txn::Error(code) => Err(ErrorCode::from_code(*code).unwrap_or(ErrorCode::SystemError)),
        }
    }

    fn create<'a>(
        &mut self,
        header: &TxnHeader,
        new: Create<'a>,
        sink: &mut dyn WatchSink,
    ) -> Result<Done<'a>, ErrorCode> {
        let path = new.path;
        let parent = self.find_parent(path)?;
        if let Some(existing) = self.tree.find(path) {
            self.tree.change_acl(existing, new.acl);
            self.lift_parent(parent, new.parent_cversion, header);
            return Err(ErrorCode::NodeExists);
        }
        self.lift_parent(parent, new.parent_cversion, header);
        let stat = StatPersisted {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime: header.time_ms,
            mtime: header.time_ms,
            ephemeral_owner: new.owner,
            ..StatPersisted::default()
        };
        let acl = self.tree.acls.intern(new.acl);
        let id = self.tree.insert(parent, NewNode { path, data: new.data.clone(), acl, stat });
        let stat = self.tree.stat(id);
        self.quota_created(path, i64::from(stat.data_length));
        let parent_acl = self.tree.acl(parent);
        self.watches.node_created(path, header.zxid, self.tree.acl(id), parent_acl, sink);
        Ok(Done::Created(path, stat))
    }

    /// A child came: cversion and pzxid move, and only forward. A transaction of an old log has no cversion (−1)
    /// and means one more than now, which is right for one whose counter has come to −1 again as well.
    ///
    /// The zxid is compared for itself: below an Apache leader whose counter stands at 2147483647 every create
    /// carries the same cversion, and a client that sets its child watch again must hear of each.
    fn lift_parent(&mut self, parent: NodeId, cversion: i32, header: &TxnHeader) {
        let StatPersisted { cversion: now, pzxid, .. } = self.tree.node(parent).stat;
        let counts = cversion == -1 || chosen(Bug::CountWhileApplying);
        let cversion = if counts { now.wrapping_add(1) } else { cversion };
        if is_newer(cversion, now) || header.zxid > pzxid {
            self.tree.change_stat(parent, |stat| {
                stat.cversion = if is_newer(cversion, now) { cversion } else { now };
                stat.pzxid = pzxid.max(header.zxid);
            });
        }
    }

    pub(super) fn delete(
        &mut self,
        header: &TxnHeader,
        path: &str,
        sink: &mut dyn WatchSink,
    ) -> Result<(), ErrorCode> {
        if is_special(path) {
            return Err(ErrorCode::BadArguments);
        }
        let parent = self.find_parent(path)?;
        if header.zxid > self.tree.node(parent).stat.pzxid {
            self.tree.change_stat(parent, |stat| stat.pzxid = header.zxid);
        }
        let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        // Only behind a fuzzy snapshot is there anything below; it goes along, and replay brings it again.
        let mut gone: Vec<(String, i64)> = Vec::new();
        self.tree.for_each_below(id, |node| gone.push((node.path.to_string(), node.data_len())));
        let acl = self.tree.acl(id).clone();
        self.tree.remove(id);
        for (path, bytes) in gone {
            self.quota_deleted(&path, bytes);
        }
        self.watches.node_deleted(path, header.zxid, &acl, self.tree.acl(parent), sink);
        Ok(())
    }

    fn set_data<'a>(
        &mut self,
        header: &TxnHeader,
        txn: &'a SetDataTxn,
        sink: &mut dyn WatchSink,
    ) -> Result<Done<'a>, ErrorCode> {
        let id = self.tree.find(&txn.path).ok_or(ErrorCode::NoNode)?;
        let old = self.tree.change_data(id, txn.data.clone());
        self.tree.change_stat(id, |stat| {
            stat.version = txn.version;
            stat.mtime = header.time_ms;
            stat.mzxid = header.zxid;
        });
        let stat = self.tree.stat(id);
        let grown = i64::from(stat.data_length) - old.map_or(0, |data| data.len() as i64);
        self.quota_changed(&txn.path, 0, grown);
        self.watches.data_changed(&txn.path, header.zxid, self.tree.acl(id), sink);
        Ok(Done::Changed(&txn.path, stat))
    }

    /// The listed paths go whoever owns them (ZOOKEEPER-3145), then what else the session owns.
    fn close_session(&mut self, header: &TxnHeader, listed: &[String], sink: &mut dyn WatchSink) {
        for path in listed {
            // Gone already when a snapshot is ahead of the transaction.
            let _ = self.delete(header, path, sink);
        }
        let own: Vec<String> = self.ephemerals_of(header.session).map(str::to_string).collect();
        for path in own {
            let _ = self.delete(header, &path, sink);
        }
        self.sessions.remove(&header.session);
    }

    fn find_parent(&self, path: &str) -> Result<NodeId, ErrorCode> {
        let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
        self.tree.find(&path[..slash]).ok_or(ErrorCode::NoNode)
    }

    /// A mismatch is counted and never stops a member. Behind a fuzzy snapshot the tree is ahead of its
    /// transactions for a while; comparing starts with the first that agrees.
    fn compare_digest(&mut self, record: &TxnRecord) {
        let Some(theirs) = record.digest.filter(|digest| digest.version == digest::VERSION) else { return };
        if !self.config.digest {
            return;
        }
        let equal = theirs.tree as u64 == self.tree.digest();
        self.digest_settled |= equal;
        self.digest_mismatches += u64::from(!equal && self.digest_settled);
        self.digest_agrees = self.digest_settled.then_some(equal);
    }
}

/// One entry of type error voids all: what stood before it answers 0, what stands behind it −2.
fn void_multi(entries: &[(OpCode, Txn)], failed: usize) -> Result<Response, ErrorCode> {
    let result = |(at, (_, txn)): (usize, &(OpCode, Txn))| match txn {
        Txn::Error(code) => *code,
        _ if at < failed => 0,
        _ => ErrorCode::RuntimeInconsistency.code(),
    };
    let codes: Vec<i32> = entries.iter().enumerate().map(result).collect();
    if codes.contains(&ErrorCode::SessionMoved.code()) {
        // Never told to a client: the connection is closed (ZOOKEEPER-710).
        return Err(ErrorCode::SessionMoved);
    }
    Ok(Response::Multi(codes.into_iter().map(MultiResult::Error).collect()))
}
