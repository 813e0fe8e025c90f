//! A machine's disk: the one queue that everything passes through, the files, snapshots, and the start from
//! what a crash has left.
//!
//! Transactions that wait together are written together and synced once; between the write and the sync the
//! power may fail. Snapshots are written beside the queue, slice by slice, while the store goes on changing.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::epoch::{self, EpochFile};
use zoometry_replica::storage::log::{LogOptions, LogSync, SyncMode};
use zoometry_replica::storage::recovery::{RecoveredStore, recover_store};
use zoometry_replica::storage::snapshot::{Sealed, SnapshotEnd, digest_block};
use zoometry_replica::storage::{
    Compression, RecoveryOptions, SnapshotItem, SnapshotNode, SnapshotWriter, StorageError, TxnLog, install,
    log, retention,
};
use zoometry_replica::store::{Store, Walk};
use zoometry_replica::zab::{EpochKind, Event, ServerId};
use zoometry_wire::Zxid;
use zoometry_wire::peer::{PacketKind, QuorumPacket};

use super::network::{Cargo, End};
use super::{Due, Machine, World, store_config};

/// Something for the disk.
pub(super) enum Job {
    Append(Zxid, Bytes),
    Epoch(EpochKind, i64),
    Truncate(Zxid),
    /// The state as it is takes the place of everything; it does not change until that is done.
    Install(Zxid),
    /// A snapshot is whole: behind everything that it can hold it gets its name.
    Publish(Sealed<MemDisk>),
    Roll,
    Purge,
}

/// A whole state, as it was when it was asked for.
#[derive(Debug)]
pub(super) struct Image {
    zxid: Zxid,
    head: Vec<SnapshotItem>,
    nodes: Vec<SnapshotNode>,
    end: SnapshotEnd,
}

impl Image {
    fn of(store: &Store) -> Self {
        let mut nodes = Vec::new();
        let mut walk = store.start_walk();
        while store.walk(&mut walk, 64, &mut |node| nodes.push(node)) {}
        Self { zxid: store.last_zxid(), head: store.snapshot_head(), nodes, end: end_of(store) }
    }

    fn write(&self, disk: &MemDisk) -> Result<(), StorageError> {
        let mut writer = SnapshotWriter::create(disk.clone(), self.zxid, Compression::None, &self.head)?;
        self.nodes.iter().for_each(|node| writer.node(node));
        writer.finish(self.end).map(|_| ())
    }

    fn install(&self, disk: &MemDisk) -> Result<(), StorageError> {
        let mut writer = SnapshotWriter::create_installing(disk.clone(), self.zxid, &self.head)?;
        self.nodes.iter().for_each(|node| writer.node(node));
        writer.seal_up(self.end).and_then(|sealed| install::install(disk, sealed)).map(|_| ())
    }
}

fn end_of(store: &Store) -> SnapshotEnd {
    let last_zxid = store.last_zxid();
    SnapshotEnd { digest: Some(digest_block(last_zxid, store.digest())), last_zxid: Some(last_zxid) }
}

/// What the disk is doing now.
pub(super) enum Working {
    /// Written; the sync is under way.
    Appends(Zxid),
    Job(Job),
}

/// A snapshot that is being written beside the queue.
pub(super) struct Writing {
    writer: SnapshotWriter<MemDisk>,
    walk: Walk,
}

/// What the disk is doing with the whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// It writes the state down: meanwhile the state must not change.
    Install,
    /// The state must be read again when the disk is done.
    Reload,
}

/// A process's hold on its disk.
pub(super) struct DiskQueue {
    pub(super) log: TxnLog<MemDisk>,
    pub(super) jobs: VecDeque<Job>,
    pub(super) working: Option<Working>,
    pub(super) writing: Option<Writing>,
    /// Transactions applied since the last snapshot.
    pub(super) since_snapshot: u32,
    pub(super) pending: Option<Pending>,
    /// How many such jobs have not been reported yet.
    pub(super) state_jobs: u32,
    /// No snapshot of the present state may appear.
    pub(super) holds_snapshots: bool,
}

impl DiskQueue {
    fn new(disk: &MemDisk) -> Self {
        let options = LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };
        Self {
            log: TxnLog::new(disk.clone(), options),
            jobs: VecDeque::new(),
            working: None,
            writing: None,
            since_snapshot: 0,
            pending: None,
            state_jobs: 0,
            holds_snapshots: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.working.is_none()
    }
}

/// What a start has found.
pub(super) struct Found {
    pub(super) store: Store,
    pub(super) queue: DiskQueue,
    pub(super) last_zxid: Zxid,
    pub(super) accepted: i64,
    pub(super) current: i64,
    pub(super) tail: VecDeque<(Zxid, Bytes)>,
    pub(super) mismatches: u64,
    pub(super) hole: Option<String>,
}

impl Machine {
    /// Reads what is on the disk, and writes the snapshot of the start.
    pub(super) fn recover(&self) -> Result<Found, StorageError> {
        let RecoveredStore { found, digest_mismatches, tail, .. } =
            recover_store(&self.disk, RecoveryOptions::default(), store_config())?;
        let hole = found.damage.as_ref().map(ToString::to_string);
        let epochs = epoch::load(&self.disk, found.last_zxid)?;
        let store = found.state;
        if hole.is_none() {
            Image::of(&store).write(&self.disk)?;
        }
        Ok(Found {
            queue: DiskQueue::new(&self.disk),
            last_zxid: store.last_zxid(),
            store,
            accepted: epochs.accepted,
            current: epochs.current,
            tail,
            mismatches: digest_mismatches,
            hole,
        })
    }
}

impl World {
    /// Brings a learner up to date from the log files, or with the whole state where they do not serve.
    pub(super) fn sync_from_log(&mut self, id: ServerId, wire: u64, learner: Zxid, upto: Zxid) {
        let disk = self.machine(id).disk.clone();
        let factor = self.random.pick(&[0.33, 3.0, 50.0]);
        let found = log::size_limit(&disk, factor)
            .and_then(|limit| log::log_since(&disk, learner, upto, limit))
            .and_then(|found| {
                let (kind, zxid, range) = match found {
                    LogSync::Diff(range) => (PacketKind::Diff, upto, range),
                    LogSync::Trunc { to, then } => (PacketKind::Trunc, to, then),
                    LogSync::Snap(_) => return Ok(None),
                };
                Ok(Some((kind, zxid, range.collect::<Result<Vec<_>, _>>()?)))
            });
        // A damaged file serves nobody.
        let found = if matches!(found, Err(StorageError::CorruptLog { .. })) { Ok(None) } else { found };
        let Some(found) = self.stored(id, found) else { return };
        let send = |world: &mut World, packet| world.send(wire, End::Member(id), Cargo::Packet(packet));
        if let Some((kind, zxid, txns)) = found {
            self.note(|| {
                format!("{id} brings a learner from {learner} to {upto} from its log, {kind:?} {zxid}")
            });
            send(self, QuorumPacket::new(kind, zxid));
            for (zxid, payload) in txns {
                send(self, QuorumPacket::new(PacketKind::Proposal, zxid).with_data(payload));
                send(self, QuorumPacket::new(PacketKind::Commit, zxid));
            }
            return;
        }
        self.send_snapshot(id, wire);
    }

    /// A disk's answer; an error is the power failing in the middle, or an objection.
    fn stored<T>(&mut self, id: ServerId, result: Result<T, StorageError>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(_) if self.machine(id).disk.is_frozen() => {
                self.note(|| format!("{id} loses its power in the middle of an operation"));
                self.crash(id);
                None
            }
            Err(error) => panic!("{id}: storage fails: {error}"),
        }
    }

    pub(super) fn queue(&mut self, id: ServerId, job: Job) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.jobs.push_back(job);
        self.kick_disk(id);
    }

    /// The disk begins with the next part of the queue, unless it is busy.
    fn kick_disk(&mut self, id: ServerId) {
        if !self.take_job(id) {
            return;
        }
        let machine = self.machine(id);
        let (life, slowest_us) = (machine.lives, machine.disk_max_us);
        let took_us = 20 + self.random.below(slowest_us as usize) as u64;
        self.plan(self.now_us + took_us, Due::Disk(id, life));
    }

    /// Takes the next part of the queue, if there is one and the disk is free.
    fn take_job(&mut self, id: ServerId) -> bool {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return false };
        let queue = &mut process.disk;
        if queue.working.is_some() || queue.jobs.is_empty() {
            return false;
        }
        let mut upto = None;
        let mut written = Ok(());
        while let Some(Job::Append(..)) = queue.jobs.front() {
            let Some(Job::Append(zxid, payload)) = queue.jobs.pop_front() else { break };
            upto = Some(zxid);
            written = written.and_then(|()| queue.log.append(zxid, &payload));
        }
        let working = match upto {
            Some(upto) => {
                written = written.and_then(|()| queue.log.write().map(|_| ()));
                Working::Appends(upto)
            }
            None => Working::Job(queue.jobs.pop_front().expect("not empty")),
        };
        queue.working = Some(working);
        self.stored(id, written).is_some()
    }

    /// What the disk was doing is done.
    pub(super) fn disk_due(&mut self, id: ServerId) {
        if let Some(event) = self.finish_job(id) {
            match event {
                Event::Truncated | Event::TruncateRefused | Event::SnapshotStored => {
                    self.state_job_done(id, event)
                }
                event => self.give(id, event),
            }
        }
        self.kick_disk(id);
    }

    /// Ends what the disk is doing. Returns what is to be reported.
    fn finish_job(&mut self, id: ServerId) -> Option<Event> {
        let disk = self.machine(id).disk.clone();
        let process = self.machine_mut(id).process.as_mut()?;
        let queue = &mut process.disk;
        let (mut refused, mut is_installed) = (None, false);
        let (result, event, promised) = match queue.working.take()? {
            Working::Appends(upto) => (queue.log.sync(), Some(Event::Durable(upto)), Some(upto)),
            Working::Job(Job::Epoch(kind, epoch)) => {
                let file = match kind {
                    EpochKind::Accepted => EpochFile::Accepted,
                    EpochKind::Current => EpochFile::Current,
                };
                (epoch::store(&disk, file, epoch), Some(Event::EpochStored(kind, epoch)), None)
            }
            Working::Job(Job::Truncate(zxid)) => {
                // What was on its way to the disk before the cut has got there before it.
                match queue.log.roll().and_then(|()| log::truncate(&disk, zxid)) {
                    Err(error) if error.refuses_cut() => {
                        refused = Some(error);
                        (Ok(()), Some(Event::TruncateRefused), Some(process.store.last_zxid()))
                    }
                    cut => {
                        let cut = cut.and_then(|()| queue.log.continue_from(zxid));
                        (cut, Some(Event::Truncated), Some(zxid))
                    }
                }
            }
            Working::Job(Job::Install(zxid)) => {
                let image = Image::of(&process.store);
                let installed = queue.log.continue_from(zxid).and_then(|()| image.install(&disk));
                is_installed = installed.is_ok();
                (installed, Some(Event::SnapshotStored), Some(image.zxid))
            }
            Working::Job(Job::Publish(sealed)) if queue.holds_snapshots => {
                sealed.abandon();
                (Ok(()), None, None)
            }
            Working::Job(Job::Publish(sealed)) => (sealed.publish().map(|_| ()), None, None),
            Working::Job(Job::Roll) => (queue.log.roll(), None, None),
            Working::Job(Job::Purge) => (retention::purge(&disk, 3).map(|_| ()), None, None),
            Working::Job(Job::Append(..)) => unreachable!("appends are taken together"),
        };
        self.stored(id, result)?;
        if let Some(error) = refused {
            self.note(|| format!("{id}: {error}"));
        }
        if is_installed {
            self.machine_mut(id).is_damaged = false;
        }
        if let Some(promised) = promised {
            self.machine_mut(id).promised = promised;
        }
        event
    }

    /// The log was cut, or the state that the leader sent is on the disk. A leader may have been lost and
    /// another found meanwhile: only the last job's end is the end.
    pub(super) fn state_job_done(&mut self, id: ServerId, event: Event) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.state_jobs -= 1;
        if process.disk.state_jobs == 0
            && let Some(pending) = process.disk.pending.take()
        {
            match event {
                // The state is as it was, on the disk and in memory.
                Event::TruncateRefused => self.release_snapshots(id),
                _ => self.end_pending(id, pending),
            }
        }
        self.give(id, event);
    }

    fn end_pending(&mut self, id: ServerId, pending: Pending) {
        match pending {
            Pending::Reload => self.reload(id),
            Pending::Install => self.release_snapshots(id),
        }
    }

    fn release_snapshots(&mut self, id: ServerId) {
        if let Some(process) = self.machine_mut(id).process.as_mut() {
            process.disk.holds_snapshots = false;
        }
    }

    /// Before the state changes: what the disk was told to do with the state as it was has to be done. What
    /// the disk reports meanwhile is heard afterwards.
    pub(super) fn settle_disk(&mut self, id: ServerId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(pending) = process.disk.pending.take() else { return };
        self.note(|| format!("{id} waits for its disk"));
        let life = self.machine(id).lives;
        while self.machine(id).process.as_ref().is_some_and(|process| !process.disk.is_idle()) {
            if let Some(event) = self.finish_job(id) {
                self.plan(self.now_us, Due::Local(id, life, event));
            }
            self.take_job(id);
        }
        self.end_pending(id, pending);
    }

    /// Reads the state again from the disk.
    fn reload(&mut self, id: ServerId) {
        if self.machine(id).process.is_none() {
            return;
        }
        let disk = self.machine(id).disk.clone();
        let read = recover_store(&disk, RecoveryOptions::default(), store_config());
        let Some(read) = self.stored(id, read) else { return };
        let machine = self.machine_mut(id);
        machine.has_hole = read.found.damage.is_some();
        assert!(machine.is_damaged || !machine.has_hole, "{id} reads a hole: {:?}", read.found.damage);
        let Some(process) = machine.process.as_mut() else { return };
        process.store = read.found.state;
        process.disk.holds_snapshots = false;
        let zxid = process.store.last_zxid();
        machine.fuzzy_until = Some(machine.snapshot_ahead).filter(|ahead| zxid < *ahead);
        self.note(|| format!("{id} has read its state again, {zxid}"));
        self.judge_state(id);
    }

    // ---- snapshots beside the queue ----

    /// A transaction was applied: is a snapshot due?
    pub(super) fn count_for_snapshot(&mut self, id: ServerId) {
        let every = self.snapshot_every;
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.since_snapshot += 1;
        let queue = &process.disk;
        if queue.since_snapshot < every || queue.writing.is_some() || queue.holds_snapshots {
            return;
        }
        process.disk.since_snapshot = 0;
        let (head, zxid, walk) =
            (process.store.snapshot_head(), process.store.last_zxid(), process.store.start_walk());
        self.queue(id, Job::Roll);
        let created = SnapshotWriter::create(self.machine(id).disk.clone(), zxid, Compression::None, &head);
        let Some(writer) = self.stored(id, created) else { return };
        let life = self.machine(id).lives;
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.writing = Some(Writing { writer, walk });
        self.plan(self.now_us + 500, Due::Slice(id, life));
    }

    /// The next slice of the snapshot that is being written.
    pub(super) fn slice_due(&mut self, id: ServerId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let Some(mut writing) = process.disk.writing.take() else { return };
        let store = &process.store;
        let Writing { writer, walk } = &mut writing;
        let more = store.walk(walk, 12, &mut |node| writer.node(&node));
        if more {
            process.disk.writing = Some(writing);
            let life = self.machine(id).lives;
            let pause_us = self.random.between(200, 4_000);
            return self.plan(self.now_us + pause_us, Due::Slice(id, life));
        }
        let (end, at) = (end_of(store), store.last_zxid());
        let sealed = writing.writer.seal_up(end);
        if let Some(sealed) = self.stored(id, sealed) {
            self.note(|| format!("{id} has written {}, ended at {at}", sealed.name()));
            // It may hold what the log does not hold yet.
            self.queue(id, Job::Publish(sealed));
            if self.random.one_in(3) {
                self.queue(id, Job::Purge);
            }
        }
    }

    /// No snapshot of the present state may appear any more; one that is being written is given up.
    pub(super) fn hold_snapshots(&mut self, id: ServerId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.holds_snapshots = true;
        if let Some(writing) = process.disk.writing.take() {
            writing.writer.abandon();
        }
    }
}
