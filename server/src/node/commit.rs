//! Applying transactions, and answering who asked for them.
//!
//! Applying takes the store's write lock once per batch; the replies, the reads that waited for them and the
//! watch events are in the connections' outboxes before it is released.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::RwLockWriteGuard;
use zoometry_replica::store::Store;
use zoometry_replica::store::acl;
use zoometry_replica::store::watch::{WatchEvent, WatchSink, WatcherId};
use zoometry_wire::records::{EventType, SYNC_CONNECTED, WatcherEvent, perms};
use zoometry_wire::{ErrorCode, Response, SessionId, Txn, TxnRecord, Zxid};

use super::{Asked, Node, NodeEvent};
use crate::clock;
use crate::conn::{Conn, Phase, put_notification};
use crate::disk_thread::Durable;
use crate::handshake;
use crate::shared::Conns;
use crate::stats::{Batch, Counter, Measure, ServerStats, Stage};
use crate::telemetry::{self, Fanout, Stamps, Traced, Work};
use crate::view::Mode;

/// Syncs remembered for transactions that are not committed; of more the oldest are forgotten, and what they made
/// durable counts as durable elsewhere.
const SYNCS_MAX: usize = 4096;

/// How long a batch of transactions keeps the store to itself; then whoever waits for it goes first.
const APPLY_SLICE_NS: u64 = 5_000_000;

/// After so many transactions and answers the clock is looked at.
const WORK_PER_LOOK: i64 = 16;

/// The time that a batch has the store's lock.
struct Slice {
    ends_ns: u64,
    next_look: i64,
}

impl Slice {
    /// So much is done of the batch: whether it is time to let others go first.
    fn is_over(&mut self, done: i64) -> bool {
        if done < self.next_look {
            return false;
        }
        self.next_look = done + WORK_PER_LOOK;
        let now_ns = clock::now_ns();
        let is_over = now_ns >= self.ends_ns;
        if is_over {
            self.ends_ns = now_ns + APPLY_SLICE_NS;
        }
        is_over
    }
}

/// Who asked for a transaction, if it was a client of this member.
struct Origin {
    conn: Arc<Conn>,
    /// Its way to the disk, if it was proposed here.
    stamps: Option<Stamps>,
}

/// When a transaction had come how far.
#[derive(Clone, Copy, PartialEq, Default)]
struct Moment {
    now_ns: u64,
    /// The sync that made it durable here; `None` if a quorum of others was faster.
    durable: Option<Durable>,
    /// In an ensemble: when a quorum had it.
    committed_ns: Option<u64>,
}

impl Node {
    /// Applies what is committed, in order, and answers it.
    pub(super) fn commit(&mut self) {
        let Some(last) = self.committed.last().map(|record| record.header.zxid) else { return };
        self.settle_disk();
        let mut records = std::mem::take(&mut self.committed);
        let now_ns = clock::now_ns();
        let committed_ns = self.peers.is_some().then_some(now_ns);
        let mut moment = Moment { now_ns, durable: None, committed_ns };
        let shared = Arc::clone(&self.shared);
        {
            let mut store = shared.store.write();
            let mut stages = StageRun::default();
            let mut slice = Slice { ends_ns: now_ns + APPLY_SLICE_NS, next_look: WORK_PER_LOOK };
            for (applied, record) in (1..).zip(&records) {
                moment.durable = self.sync_of(record.header.zxid);
                self.apply(&mut store, record, moment, &mut stages);
                if slice.is_over(applied + self.answered) {
                    // Everything that belongs to this transaction is done: whoever waits may have a look.
                    RwLockWriteGuard::bump(&mut store);
                }
            }
            stages.book(&mut self.booked);
            self.note_digest(&store);
        }
        self.member.applied(last);
        if !self.trails.is_empty() {
            self.trails.committed(&shared.tracer, last, now_ns);
        }
        let decided_ns = committed_ns.or(moment.durable.map(|durable| durable.synced_ns)).unwrap_or(now_ns);
        let applied_ns = clock::now_ns().saturating_sub(decided_ns);
        self.booked.stage(Stage::Apply, applied_ns, records.len() as u32);
        shared.stats.record(&mut self.booked);
        shared.stats.outstanding_add(-std::mem::take(&mut self.answered));
        shared.stats.add(Counter::Commits, records.len() as u64);
        records.clear();
        self.committed = records;
        // A connection is woken once, however many of its writes were in the batch.
        self.woken.sort_unstable_by_key(|conn| conn.id);
        self.woken.dedup_by_key(|conn| conn.id);
        for conn in self.woken.drain(..) {
            conn.flush(&shared, &mut self.traced);
        }
    }

    /// What the digests that came with transactions say of the tree.
    fn note_digest(&mut self, store: &Store) {
        let (agrees, mismatches) = (store.digest_agrees(), store.digest_mismatches());
        if mismatches != self.mismatches_booked {
            self.shared
                .stats
                .add(Counter::DigestMismatches, mismatches.saturating_sub(self.mismatches_booked));
            self.mismatches_booked = mismatches;
        }
        let Some(agrees) = agrees.filter(|agrees| self.digest_told != Some(*agrees)) else { return };
        self.digest_told = Some(agrees);
        if self.peers.is_some() {
            // Behind what is being performed.
            self.shared.node.leave(NodeEvent::Compared(store.last_zxid(), agrees));
        } else if !agrees {
            let zxid = store.last_zxid();
            tracing::error!(%zxid, "the tree's digest is not the one that was computed for this transaction");
        }
    }

    /// Another store has taken the place of the one before.
    pub(super) fn renew_digest(&mut self, mismatches: u64) {
        (self.digest_told, self.mismatches_booked) = (None, mismatches);
    }

    /// A sync of this member's disk has ended.
    pub(super) fn note_sync(&mut self, durable: Durable) {
        if self.syncs.len() == SYNCS_MAX {
            self.syncs.pop_front();
        }
        self.syncs.push_back(durable);
    }

    /// The sync that made a transaction durable here, if it is; of those before it nobody will ask any more.
    fn sync_of(&mut self, zxid: Zxid) -> Option<Durable> {
        while self.syncs.pop_front_if(|durable| durable.upto < zxid).is_some() {}
        self.syncs.front().copied()
    }

    /// Applies a transaction of which nobody may be told.
    pub(super) fn adopt(&mut self, record: &TxnRecord) {
        self.settle_disk();
        let zxid = record.header.zxid;
        let mut store = self.shared.store.write();
        // A refusal is what its client would have been told.
        let _ = store.apply(record, &mut ());
        self.shared.keep_digest(&store);
        drop(store);
        self.member.applied(zxid);
    }

    fn apply(&mut self, store: &mut Store, record: &TxnRecord, moment: Moment, stages: &mut StageRun) {
        let header = record.header;
        let origin = self.origin(record);
        let stamps = origin.as_ref().and_then(|origin| origin.stamps);
        if let Some(stamps) = stamps {
            if !self.trails.is_empty() {
                self.trails.tell_elsewhere(header.zxid, moment.durable.is_some());
            }
            stages.count(&mut self.booked, stamps, moment);
        }
        let latency_ns = stamps.map_or(0, |stamps| moment.now_ns.saturating_sub(stamps.received_ns));
        let tracer = &self.shared.tracer;
        let timed =
            origin.is_some() && tracer.verdict(header.session, header.cxid, latency_ns, None).is_some();
        let mut delivery = Delivery {
            conns: &self.shared.conns,
            stats: &self.shared.stats,
            woken: &mut self.woken,
            timed,
            fanout: None,
        };
        let apply_ns = if timed { clock::now_ns() } else { moment.now_ns };
        let result = store.apply(record, &mut delivery);
        self.shared.keep_digest(store);
        let fanout = delivery.fanout;
        match &record.txn {
            Txn::CreateSession(timeout_ms) => self.session_created(origin, header.session, *timeout_ms),
            Txn::CloseSession(_) => {
                if let Some(origin) = origin {
                    let times = (apply_ns, fanout);
                    self.answer(store, &origin, record, &result, moment, times);
                    self.remember_to_wake(origin.conn);
                }
                self.session_closed(header.session);
            }
            _ => {
                if let Some(origin) = origin {
                    let times = (apply_ns, fanout);
                    self.answer(store, &origin, record, &result, moment, times);
                    self.remember_to_wake(origin.conn);
                }
            }
        }
    }

    /// The writes of one connection mostly come in runs.
    fn remember_to_wake(&mut self, conn: Arc<Conn>) {
        if !self.woken.last().is_some_and(|last| Arc::ptr_eq(last, &conn)) {
            self.woken.push(conn);
        }
    }

    /// Who asked. Requests that were proposed here are known by their zxid; a learner knows its clients'
    /// requests by session and xid, which the connection compares.
    fn origin(&mut self, record: &TxnRecord) -> Option<Origin> {
        let header = record.header;
        if header.session == SessionId(0) {
            // The server's own, which may stand between what one connection has asked for.
            return None;
        }
        if let Some(asked) = self.asked.front()
            && asked.from <= header.zxid
        {
            let Asked { conn, stamps, upto, .. } = asked;
            let origin = Origin { conn: Arc::clone(conn), stamps: Some(*stamps) };
            if header.zxid >= *upto {
                self.asked.pop_front();
            }
            return Some(origin);
        }
        if !self.shared.mode().is_some_and(Mode::is_learner) {
            return None;
        }
        let conn = match record.txn {
            Txn::CreateSession(_) => self.opening.remove(&header.session),
            _ => self.shared.conns.of_session(header.session),
        };
        conn.map(|conn| Origin { conn, stamps: None })
    }

    fn session_created(&mut self, origin: Option<Origin>, session: SessionId, timeout_ms: i32) {
        let mut sessions = self.shared.sessions.lock();
        if sessions.timeout_ms(session).is_none() {
            sessions.open(session, timeout_ms, clock::now_ms());
        }
        drop(sessions);
        if let Some(origin) = origin {
            handshake::session_opened(&self.shared, &origin.conn, session, timeout_ms);
        }
    }

    fn session_closed(&mut self, session: SessionId) {
        self.shared.sessions.lock().remove(session);
        self.member.forget_session(session);
        if let Some(conn) = self.shared.conns.take_session(session) {
            conn.desk().phase = Phase::Closing;
            self.woken.push(conn);
        }
    }

    fn answer(
        &mut self,
        store: &Store,
        origin: &Origin,
        record: &TxnRecord,
        result: &Result<Response, ErrorCode>,
        moment: Moment,
        (apply_ns, fanout): (u64, Option<Fanout>),
    ) {
        let header = record.header;
        let tracer = &self.shared.tracer;
        let mut desk = origin.conn.desk();
        if result == &Err(ErrorCode::SessionMoved) {
            // The session lives on elsewhere; a client that still speaks on an older connection is told by the
            // close alone. That connection may be another member's, and the session's present one may be here.
            if desk.close_moved(header.cxid) {
                drop(desk);
                self.shared.stats.outstanding_add(-1);
            }
            return;
        }
        let answered = desk.answer_write(store, header.cxid, header.zxid, result, moment.now_ns, tracer);
        let Some(answered) = answered else { return };
        let error = result.as_ref().err().copied();
        let latency_ns = moment.now_ns.saturating_sub(answered.received_ns);
        if let Some(kept_by) = tracer.verdict(header.session, header.cxid, latency_ns, error) {
            let applied_ns = clock::now_ns();
            let work = match origin.stamps {
                Some(stamps) => {
                    let (durable, committed_ns) = (moment.durable, moment.committed_ns);
                    Work::Write { stamps, durable, committed_ns, apply_ns, applied_ns, fanout }
                }
                None => Work::Forwarded { apply_ns, applied_ns, fanout },
            };
            desk.keep(Traced {
                kept_by,
                session: header.session,
                xid: header.cxid,
                op: answered.op,
                zxid: header.zxid,
                error,
                peer: origin.conn.peer,
                path: telemetry::txn_path(&record.txn),
                received_ns: answered.received_ns,
                work,
                replied_ns: 0,
            });
        }
        self.answered += answered.requests as i64;
    }

    /// A learner's client gets the answer to its `sync`, behind everything that was committed before.
    pub(super) fn synced(&mut self, session: SessionId, cxid: i32, path: String) {
        let Some(conn) = self.shared.conns.of_session(session) else { return };
        let store = self.shared.store.read();
        let mut desk = conn.desk();
        let (zxid, now_ns): (Zxid, u64) = (store.last_zxid(), clock::now_ns());
        let result = Ok(Response::Path(path));
        let answered = desk.answer_write(&store, cxid, zxid, &result, now_ns, &self.shared.tracer);
        drop(desk);
        drop(store);
        if let Some(answered) = answered {
            self.shared.stats.outstanding_add(-(answered.requests as i64));
        }
        conn.flush(&self.shared, &mut self.traced);
    }

    pub(super) fn book_sync(&mut self, durable: &Durable) {
        let stats = &self.shared.stats;
        if !self.trails.is_empty() {
            self.trails.durable(&self.shared.tracer, durable);
        }
        let slow_ns = self.shared.config.storage.fsync_warning_ms.saturating_mul(1_000_000);
        stats.add(Counter::SlowFsyncs, u64::from(durable.synced_ns - durable.written_ns > slow_ns));
        self.booked.observe(Measure::FsyncTime, durable.synced_ns - durable.written_ns);
        self.booked.observe(Measure::SyncProcessTime, durable.synced_ns - durable.taken_ns);
        self.booked.observe(Measure::SyncBatchSize, durable.records.into());
        stats.record(&mut self.booked);
    }
}

/// Writes of one submission, one sync and one batch: they share their times, so they are booked once.
#[derive(Default)]
struct StageRun {
    stamps: Stamps,
    moment: Moment,
    writes: u32,
}

impl StageRun {
    fn count(&mut self, booked: &mut Batch, stamps: Stamps, moment: Moment) {
        if (stamps, moment) != (self.stamps, self.moment) {
            self.book(booked);
            (self.stamps, self.moment) = (stamps, moment);
        }
        self.writes += 1;
    }

    /// Where they spent their time until they were committed; nothing for those that no client asked for.
    fn book(&mut self, booked: &mut Batch) {
        let Stamps { received_ns, prep_ns, appended_ns } = self.stamps;
        let writes = std::mem::take(&mut self.writes);
        if prep_ns == 0 || writes == 0 {
            return;
        }
        // The disk may have been faster than the reading behind the append.
        let appended_ns = appended_ns.max(prep_ns);
        let queued_ns = prep_ns.saturating_sub(received_ns);
        let prepared_ns = appended_ns - prep_ns;
        booked.stage(Stage::Queue, queued_ns, writes);
        booked.stage(Stage::Prep, prepared_ns, writes);
        booked.observe_many(Measure::PrepQueueTime, queued_ns, writes);
        booked.observe_many(Measure::PrepProcessTime, prepared_ns, writes);
        let mut durable_ns = appended_ns;
        if let Some(durable) = self.moment.durable {
            booked.stage(Stage::Append, durable.written_ns.saturating_sub(appended_ns), writes);
            booked.stage(Stage::Sync, durable.synced_ns - durable.written_ns, writes);
            let waited_ns = durable.taken_ns.saturating_sub(appended_ns);
            booked.observe_many(Measure::SyncQueueTime, waited_ns, writes);
            let until_durable_ns = durable.synced_ns.saturating_sub(appended_ns);
            booked.observe_many(Measure::SyncQueueAndFlushTime, until_durable_ns, writes);
            durable_ns = durable_ns.max(durable.synced_ns);
        }
        if let Some(committed_ns) = self.moment.committed_ns {
            booked.stage(Stage::Quorum, committed_ns.saturating_sub(durable_ns), writes);
            let waited_ns = committed_ns.saturating_sub(appended_ns);
            booked.observe_many(Measure::QuorumAckLatency, waited_ns, writes);
        }
    }
}

/// What an event is counted as.
fn watch_measure(kind: EventType) -> Measure {
    match kind {
        EventType::NodeCreated => Measure::CreatedWatches,
        EventType::NodeDeleted => Measure::DeletedWatches,
        EventType::NodeDataChanged => Measure::ChangedWatches,
        EventType::NodeChildrenChanged => Measure::ChildrenWatches,
    }
}

/// Puts watch events into outboxes while the store is being changed.
struct Delivery<'a> {
    conns: &'a Conns,
    stats: &'a ServerStats,
    woken: &'a mut Vec<Arc<Conn>>,
    /// The write is traced.
    timed: bool,
    fanout: Option<Fanout>,
}

impl WatchSink for Delivery<'_> {
    fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]) {
        let first_ns = if self.timed { clock::now_ns() } else { 0 };
        let mut told = 0;
        let mut frame = BytesMut::new();
        let notification =
            WatcherEvent { kind: event.kind as i32, state: SYNC_CONNECTED, path: event.path.to_string() };
        put_notification(&mut frame, event.zxid, &notification);
        self.conns.each(watchers, |conn| {
            let mut desk = conn.desk();
            if acl::allows(event.acl, perms::READ, &desk.ids) {
                desk.notify(&frame);
                let is_remembered = desk.to_be_woken();
                drop(desk);
                if !is_remembered {
                    self.woken.push(Arc::clone(conn));
                }
                told += 1;
            }
        });
        self.stats.observe(watch_measure(event.kind), told as u64);
        self.stats.add(Counter::WatchBytes, told as u64 * frame.len() as u64);
        if self.timed {
            Fanout::add(&mut self.fanout, told, first_ns, clock::now_ns());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in microseconds: in the disk's queue at 10, durable at 40 or not, committed at 70.
    fn booked(is_durable: bool) -> crate::stats::Collected {
        let durable =
            Durable { taken_ns: 15_000, written_ns: 20_000, synced_ns: 40_000, ..Durable::default() };
        let moment =
            Moment { now_ns: 70_000, durable: is_durable.then_some(durable), committed_ns: Some(70_000) };
        let (mut stages, mut batch) = (StageRun::default(), Batch::default());
        let stamps = Stamps { received_ns: 1_000, prep_ns: 4_000, appended_ns: 10_000 };
        for _ in 0..3 {
            stages.count(&mut batch, stamps, moment);
        }
        stages.book(&mut batch);
        let stats = ServerStats::default();
        stats.record(&mut batch);
        stats.collect()
    }

    #[test]
    fn the_stages_of_a_write_are_all_of_its_time_until_it_is_committed() {
        let told = |is_durable| {
            let collected = booked(is_durable);
            [Stage::Queue, Stage::Prep, Stage::Append, Stage::Sync, Stage::Quorum]
                .map(|stage| collected.stage(stage).sum() / 3000)
        };
        assert_eq!(told(true), [3, 6, 10, 20, 30]);
        assert_eq!(told(false), [3, 6, 0, 0, 60], "the disk here was not waited for");
    }
}
