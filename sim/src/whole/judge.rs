//! The judges that watch from outside: one history, one leader for each epoch, one tree for each zxid, and what
//! clients were told against what the history says.
//!
//! What counts as committed: what a member has applied that serves clients. From then on it must be in the
//! history of every later leader. What a member has applied while it was being synchronised counts when it
//! begins to serve.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zoometry_replica::zab::ServerId;
use zoometry_wire::records::Stat;
use zoometry_wire::{
    ErrorCode, MultiResult, OpCode, Record as _, Request, Response, SessionId, Txn, TxnRecord, Zxid,
};

use super::World;
use super::model::{Model, Znode};

/// Xids from here on are used on connections that their clients have left.
pub(super) const GHOST_XIDS: i32 = 1_000_000;

/// The writes that a session has sent, and how far the history goes in them.
#[derive(Debug)]
struct Sent {
    /// Their xids, connection by connection. Some clients number from 1 again on every connection, so a
    /// transaction may be one of several writes.
    wires: Vec<(u64, Vec<i32>)>,
    /// Each a connection and a number of its writes: what is in the history may end there.
    reached: BTreeSet<(usize, usize)>,
}

impl Sent {
    fn new() -> Self {
        Self { wires: Vec::new(), reached: BTreeSet::from([(0, 0)]) }
    }

    fn send(&mut self, wire: u64, cxid: i32) {
        match self.wires.last_mut() {
            Some((last, cxids)) if *last == wire => cxids.push(cxid),
            _ => self.wires.push((wire, vec![cxid])),
        }
    }

    /// Where the history may end if a transaction follows that has this xid: the next write of a connection, or
    /// the first of a later one.
    fn behind(&self, cxid: i32) -> BTreeSet<(usize, usize)> {
        let nexts = self.reached.iter().flat_map(|(wire, count)| {
            (*wire..self.wires.len()).map(move |at| (at, if at == *wire { *count } else { 0 }))
        });
        nexts
            .filter(|(at, count)| self.wires[*at].1.get(*count) == Some(&cxid))
            .map(|(at, count)| (at, count + 1))
            .collect()
    }
}

/// Everything known from outside.
#[derive(Debug)]
pub(super) struct Judge {
    /// Every transaction that anybody logged, committed or not.
    proposed: BTreeMap<Zxid, Bytes>,
    /// Who leads an epoch, and where its history ended when it began.
    epochs: BTreeMap<i32, (ServerId, Zxid)>,
    committed: Vec<Zxid>,
    records: BTreeMap<Zxid, TxnRecord>,
    pub(super) model: Model,
    digests: BTreeMap<Zxid, u64>,
    sent: BTreeMap<SessionId, Sent>,
    /// The last acknowledged write of each epoch.
    acknowledged: BTreeMap<i32, Zxid>,
    /// Names of acknowledged sequential znodes.
    sequential: BTreeSet<String>,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            proposed: BTreeMap::new(),
            epochs: BTreeMap::new(),
            committed: Vec::new(),
            records: BTreeMap::new(),
            model: Model::new(),
            digests: BTreeMap::new(),
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            sequential: BTreeSet::new(),
        }
    }

    /// Somebody logs a transaction.
    pub(super) fn propose(&mut self, id: ServerId, zxid: Zxid, payload: &Bytes) {
        let known = self.proposed.entry(zxid).or_insert_with(|| payload.clone());
        assert_eq!(known, payload, "{id} logs another transaction at {zxid}");
    }

    /// A member leads an epoch, on top of a history that ends at `base`.
    pub(super) fn lead(&mut self, id: ServerId, epoch: i64, base: Zxid) {
        let (leader, _) = *self.epochs.entry(epoch as i32).or_insert((id, base));
        assert_eq!(leader, id, "epoch {epoch} has two leaders");
        assert!(i64::from(base.epoch()) < epoch, "{id} leads epoch {epoch} from {base}");
    }

    /// The newest epoch that anybody has led.
    pub(super) fn newest_epoch(&self) -> i32 {
        self.epochs.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    pub(super) fn committed_upto(&self) -> Zxid {
        self.committed.last().copied().unwrap_or(Zxid(0))
    }

    /// A member that serves is at `upto`: so the history goes at least that far, and holds what it held.
    pub(super) fn settle(&mut self, upto: Zxid) -> Result<(), String> {
        let end = self.committed_upto();
        if upto <= end {
            let known = upto == Zxid(0) || self.committed.binary_search(&upto).is_ok();
            return if known { Ok(()) } else { Err(format!("{upto} is not in the committed history")) };
        }
        let mut new = Vec::new();
        let mut at = upto;
        while at > end {
            new.push(at);
            at = match at.counter() {
                0 => return Err(format!("{at} is nobody's transaction")),
                1 => match self.epochs.get(&at.epoch()) {
                    Some((_, base)) => *base,
                    None => return Err(format!("nobody led the epoch of {at}")),
                },
                _ => Zxid(at.0 - 1),
            };
        }
        if at != end {
            return Err(format!("its history up to {upto} comes from {at}, but {end} was committed: lost"));
        }
        for zxid in new.into_iter().rev() {
            self.add(zxid)?;
        }
        Ok(())
    }

    /// The next committed transaction.
    fn add(&mut self, zxid: Zxid) -> Result<(), String> {
        let Some(payload) = self.proposed.get(&zxid) else { return Err(format!("nobody logged {zxid}")) };
        let record = TxnRecord::from_bytes(payload).map_err(|error| format!("{zxid}: {error}"))?;
        self.model.apply(&record)?;
        self.judge_order(&record)?;
        self.committed.push(zxid);
        self.records.insert(zxid, record);
        Ok(())
    }

    /// A session's writes come in the order in which it sent them, each once; of those of one connection none
    /// is left out before another.
    fn judge_order(&mut self, record: &TxnRecord) -> Result<(), String> {
        let header = record.header;
        if header.cxid == 0 || header.session == SessionId(0) {
            return Ok(());
        }
        let refused = refusal(&record.txn);
        let late = matches!(refused, Some(ErrorCode::SessionMoved | ErrorCode::SessionExpired));
        if header.cxid >= GHOST_XIDS {
            return match refused {
                Some(_) => Ok(()),
                None => Err(format!("a write came from a connection that its session had left: {record:?}")),
            };
        }
        let sent = self.sent.entry(header.session).or_insert_with(Sent::new);
        let behind = sent.behind(header.cxid);
        if late {
            // It may be this one or not: it is not done.
            sent.reached.extend(behind);
        } else if behind.is_empty() {
            return Err(format!(
                "nobody waits for {record:?}: it came before, or behind later ones, or an earlier one of its \
                 connection did not come, or nobody sent it"
            ));
        } else {
            sent.reached = behind;
        }
        Ok(())
    }

    /// A client sends a write.
    pub(super) fn send(&mut self, session: SessionId, cxid: i32, wire: u64) {
        self.sent.entry(session).or_insert_with(Sent::new).send(wire, cxid);
    }

    /// A member's tree at `zxid` has this digest.
    pub(super) fn compare(&mut self, zxid: Zxid, digest: u64) -> Result<(), String> {
        let known = *self.digests.entry(zxid).or_insert(digest);
        if known == digest { Ok(()) } else { Err(format!("two trees at {zxid}: {known:x} and {digest:x}")) }
    }

    /// The last write, in epochs up to `epoch`, of which some client knows.
    pub(super) fn acknowledged(&self, epoch: i32) -> Zxid {
        self.acknowledged.range(..=epoch).next_back().map_or(Zxid(0), |(_, zxid)| *zxid)
    }

    /// A client was answered a write.
    pub(super) fn write_answered(
        &mut self,
        session: SessionId,
        cxid: i32,
        request: &Request,
        zxid: Zxid,
        result: &Result<Response, ErrorCode>,
    ) -> Result<(), String> {
        let Some(record) = self.records.get(&zxid) else {
            return Err(format!("{zxid} was acknowledged and is not committed"));
        };
        if (record.header.session, record.header.cxid) != (session, cxid) {
            return Err(format!("{zxid} was acknowledged to {session}, xid {cxid}, and is {record:?}"));
        }
        if !is_of(request, &record.txn) {
            return Err(format!("{request:?} was answered with {record:?}"));
        }
        let best = self.acknowledged.entry(zxid.epoch()).or_default();
        *best = zxid.max(*best);
        let expected = self.answer(record);
        if expected != without_times(result.clone()) {
            return Err(format!("{request:?} at {zxid} was answered {result:?} instead of {expected:?}"));
        }
        if let (Request::Create(create), Ok(Response::Path(path))) = (request, result)
            && (create.flags == 2 || create.flags == 3)
            && !self.sequential.insert(path.clone())
        {
            return Err(format!("the sequential name {path} was given twice"));
        }
        Ok(())
    }

    /// What whoever asked for a transaction must be told.
    fn answer(&self, record: &TxnRecord) -> Result<Response, ErrorCode> {
        let zxid = record.header.zxid;
        let stat = |path: &str| self.model.at(path, zxid).map(Znode::stat).unwrap_or_default();
        match &record.txn {
            Txn::Error(code) => Err(ErrorCode::from_code(*code).unwrap_or(ErrorCode::SystemError)),
            Txn::Create(txn) => Ok(Response::Path(txn.path.clone())),
            Txn::SetData(txn) => Ok(Response::Stat(stat(&txn.path))),
            // Never told entry by entry (ZOOKEEPER-710).
            Txn::Multi(_) if refusal(&record.txn) == Some(ErrorCode::SessionMoved) => {
                Err(ErrorCode::SessionMoved)
            }
            Txn::Multi(entries) => {
                let failed = entries.iter().position(|(_, txn)| matches!(txn, Txn::Error(_)));
                let results = entries.iter().enumerate().map(|(at, (op, txn))| match txn {
                    Txn::Error(code) => MultiResult::Error(*code),
                    _ if failed.is_some_and(|failed| at < failed) => MultiResult::Error(0),
                    Txn::Create(txn) => MultiResult::Create(txn.path.clone()),
                    Txn::SetData(txn) => MultiResult::SetData(stat(&txn.path)),
                    _ if *op == OpCode::Check => MultiResult::Check,
                    _ => MultiResult::Delete,
                });
                Ok(Response::Multi(results.collect()))
            }
            _ => Ok(Response::Empty),
        }
    }

    /// A client was shown the state at `zxid`.
    pub(super) fn read_answered(
        &self,
        request: &Request,
        zxid: Zxid,
        result: &Result<Response, ErrorCode>,
    ) -> Result<(), String> {
        if zxid != Zxid(0) && self.committed.binary_search(&zxid).is_err() {
            return Err(format!("a read shows the state at {zxid}, which is not in the committed history"));
        }
        let path = match request {
            Request::GetData(ask) | Request::Exists(ask) | Request::GetChildren2(ask) => &ask.path,
            _ => return Ok(()),
        };
        let znode = self.model.at(path, zxid);
        let objection = match (znode, result) {
            (None, Err(ErrorCode::NoNode)) => None,
            (None, shown) => Some(format!("it was not there, and was shown as {shown:?}")),
            (Some(znode), Ok(Response::Stat(stat))) => znode.object(stat),
            (Some(znode), Ok(Response::Data(data, stat))) if *data == znode.data => znode.object(stat),
            (Some(znode), Ok(Response::Children2(names, stat))) => {
                let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
                names.sort_unstable();
                let expected = self.model.children_at(path, zxid);
                if names == expected {
                    znode.object(stat)
                } else {
                    Some(format!("its children were {expected:?}, and {names:?} were shown"))
                }
            }
            (Some(znode), shown) => Some(format!("it was {znode:?}, and was shown as {shown:?}")),
        };
        objection.map_or(Ok(()), |what| Err(format!("{path} at {zxid}: {what}")))
    }
}

/// Why a transaction changes nothing, if it does not.
fn refusal(txn: &Txn) -> Option<ErrorCode> {
    match txn {
        Txn::Error(code) => ErrorCode::from_code(*code),
        Txn::Multi(entries) => entries.iter().find_map(|(_, txn)| refusal(txn)),
        _ => None,
    }
}

/// Whether this request can have become this transaction.
fn is_of(request: &Request, txn: &Txn) -> bool {
    match (request, txn) {
        (_, Txn::Error(_)) | (Request::CloseSession, Txn::CloseSession(_)) => true,
        (Request::Create(create), Txn::Create(txn)) => {
            txn.path.starts_with(&create.path) && txn.data == create.data
        }
        (Request::SetData(set), Txn::SetData(txn)) => txn.path == set.path && txn.data == set.data,
        (Request::Delete(delete), Txn::Delete(path)) => *path == delete.path,
        (Request::Multi(requests), Txn::Multi(txns)) => requests.len() == txns.len(),
        _ => false,
    }
}

/// Times are the leader's clock: nobody outside knows what they must be.
fn without_times(mut result: Result<Response, ErrorCode>) -> Result<Response, ErrorCode> {
    let forget = |stat: &mut Stat| (stat.ctime, stat.mtime) = (0, 0);
    match &mut result {
        Ok(Response::Stat(stat)) => forget(stat),
        Ok(Response::Multi(results)) => results.iter_mut().for_each(|result| {
            if let MultiResult::SetData(stat) = result {
                forget(stat);
            }
        }),
        _ => {}
    }
    result
}

impl World {
    /// Whatever a member has in memory at some zxid is what everybody has there.
    pub(super) fn judge_state(&mut self, id: ServerId) {
        let machine = self.machine_mut(id);
        let Some(process) = machine.process.as_ref() else { return };
        let (zxid, digest) = (process.store.last_zxid(), process.store.digest());
        if machine.has_hole || machine.fuzzy_until.is_some_and(|until| zxid < until) {
            return;
        }
        let was_exact = machine.fuzzy_until.take().is_none() && machine.snapshot_ahead == Zxid(0);
        let mismatches = process.store.digest_mismatches();
        if let Err(why) = self.judge.compare(zxid, digest) {
            panic!("{id}: {why}");
        }
        assert!(!was_exact || mismatches == 0, "{id} is not told the digest that it has at {zxid}");
    }

    /// A member that serves clients has only what is committed.
    pub(super) fn judge_serving(&mut self, id: ServerId) {
        let Some(process) = self.machine(id).process.as_ref() else { return };
        let upto = process.store.last_zxid();
        if let Err(why) = self.judge.settle(upto) {
            panic!("{id} serves: {why}");
        }
    }
}
