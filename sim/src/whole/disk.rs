//! A machine's disk: the one queue that everything passes through, the files, snapshots, and the start from
//! what a crash has left.
//!
//! Transactions that wait together are written together and synced once; between the write and the sync the
//! power may fail. Snapshots are written beside the queue, slice by slice, while the store goes on changing.

use std::collections::VecDeque;

use bytes::Bytes;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::epoch::{self, EpochFile};
use zoometry_replica::storage::log::{LogOptions, SyncMode};
use zoometry_replica::storage::recovery::{RecoveredStore, Warning, recover_store};
use zoometry_replica::storage::snapshot::{SnapshotEnd, digest_block};
use zoometry_replica::storage::{
    RecoveryOptions, SnapshotItem, SnapshotNode, SnapshotWriter, StorageError, TxnLog, log, retention,
};
use zoometry_replica::store::{Store, Walk};
use zoometry_replica::zab::{EpochKind, Event, ServerId};
use zoometry_wire::Zxid;

use super::{Due, Machine, World, store_config};

/// Something for the disk.
#[derive(Debug)]
pub(super) enum Job {
    Append(Zxid, Bytes),
    Epoch(EpochKind, i64),
    Truncate(Zxid),
    Snapshot(Box<Image>),
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
    pub(super) fn of(store: &Store) -> Self {
        let mut nodes = Vec::new();
        let mut walk = store.start_walk();
        while store.walk(&mut walk, 64, &mut |node| nodes.push(node)) {}
        Self { zxid: store.last_zxid(), head: store.snapshot_head(), nodes, end: end_of(store) }
    }

    fn write(&self, disk: &MemDisk) -> Result<(), StorageError> {
        let mut writer = SnapshotWriter::create(disk.clone(), self.zxid, &self.head)?;
        self.nodes.iter().for_each(|node| writer.node(node));
        writer.finish(self.end).map(|_| ())
    }
}

fn end_of(store: &Store) -> SnapshotEnd {
    let last_zxid = store.last_zxid();
    SnapshotEnd { digest: Some(digest_block(last_zxid, store.digest())), last_zxid: Some(last_zxid) }
}

/// What the disk is doing now.
#[derive(Debug)]
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

/// A process's hold on its disk.
pub(super) struct DiskQueue {
    pub(super) log: TxnLog<MemDisk>,
    pub(super) jobs: VecDeque<Job>,
    pub(super) working: Option<Working>,
    pub(super) writing: Option<Writing>,
    /// Transactions applied since the last snapshot.
    pub(super) since_snapshot: u32,
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
        let hole = found.warnings.iter().find(|warning| matches!(warning, Warning::Hole { .. }));
        let hole = hole.map(ToString::to_string);
        let epochs = epoch::load(&self.disk, found.last_zxid)?;
        let store = found.state;
        Image::of(&store).write(&self.disk)?;
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

    /// Takes the next part of the queue, unless the disk is busy.
    fn kick_disk(&mut self, id: ServerId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let queue = &mut process.disk;
        if queue.working.is_some() || queue.jobs.is_empty() {
            return;
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
        if self.stored(id, written).is_none() {
            return;
        }
        let machine = self.machine(id);
        let (life, slowest_us) = (machine.lives, machine.disk_max_us);
        let took_us = 20 + self.random.below(slowest_us as usize) as u64;
        self.plan(self.now_us + took_us, Due::Disk(id, life));
    }

    /// What the disk was doing is done.
    pub(super) fn disk_due(&mut self, id: ServerId) {
        let disk = self.machine(id).disk.clone();
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        let queue = &mut process.disk;
        let Some(working) = queue.working.take() else { return };
        let mut stored = None;
        let (result, event) = match working {
            Working::Appends(upto) => (queue.log.sync(), Some(Event::Durable(upto))),
            Working::Job(Job::Epoch(kind, epoch)) => {
                let file = match kind {
                    EpochKind::Accepted => EpochFile::Accepted,
                    EpochKind::Current => EpochFile::Current,
                };
                (epoch::store(&disk, file, epoch), Some(Event::EpochStored(kind, epoch)))
            }
            Working::Job(Job::Truncate(zxid)) => return self.truncate(id, zxid),
            Working::Job(Job::Snapshot(image)) => {
                let written = queue.log.roll().and_then(|()| image.write(&disk));
                stored = Some(image.zxid);
                (written, Some(Event::SnapshotStored))
            }
            Working::Job(Job::Roll) => (queue.log.roll(), None),
            Working::Job(Job::Purge) => (retention::purge(&disk, 3).map(|_| ()), None),
            Working::Job(Job::Append(..)) => unreachable!("appends are taken together"),
        };
        if self.stored(id, result).is_none() {
            return;
        }
        if let Some(zxid) = stored {
            self.note(|| format!("{id} has stored the state it was sent, {zxid}"));
        }
        if let Some(Event::Durable(zxid)) = event {
            stored = Some(zxid);
        }
        if let Some(zxid) = stored {
            self.machine_mut(id).promised = zxid;
        }
        if let Some(event) = event {
            self.give(id, event);
        }
        self.kick_disk(id);
    }

    /// Cuts the log and reads the state again.
    fn truncate(&mut self, id: ServerId, zxid: Zxid) {
        let machine = self.machine_mut(id);
        let disk = machine.disk.clone();
        let process = machine.process.as_mut().expect("it has a disk queue");
        let cut = process.disk.log.continue_from(zxid).and_then(|()| log::truncate(&disk, zxid));
        let read = cut.and_then(|()| recover_store(&disk, RecoveryOptions::default(), store_config()));
        let Some(read) = self.stored(id, read) else { return };
        let machine = self.machine_mut(id);
        let process = machine.process.as_mut().expect("it has a disk queue");
        process.store = read.found.state;
        machine.promised = machine.promised.min(zxid);
        let at = process.store.last_zxid();
        assert_eq!(at, zxid, "{id} was cut back");
        self.judge_state(id);
        self.give(id, Event::Truncated);
        self.kick_disk(id);
    }

    // ---- snapshots beside the queue ----

    /// A transaction was applied: is a snapshot due?
    pub(super) fn count_for_snapshot(&mut self, id: ServerId) {
        let every = self.snapshot_every;
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        process.disk.since_snapshot += 1;
        if process.disk.since_snapshot < every || process.disk.writing.is_some() {
            return;
        }
        process.disk.since_snapshot = 0;
        let (head, zxid, walk) =
            (process.store.snapshot_head(), process.store.last_zxid(), process.store.start_walk());
        self.queue(id, Job::Roll);
        let created = SnapshotWriter::create(self.machine(id).disk.clone(), zxid, &head);
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
        let finished = writing.writer.finish(end);
        if let Some((name, _)) = self.stored(id, finished) {
            self.note(|| format!("{id} has written {name}, ended at {at}"));
            // It may hold what this disk's own log does not hold yet.
            let machine = self.machine_mut(id);
            if at > machine.promised {
                machine.snapshot_ahead = machine.snapshot_ahead.max(at);
            }
            if self.random.one_in(3) {
                self.queue(id, Job::Purge);
            }
        }
    }

    /// The state is about to be another than what the snapshot's walk began with.
    pub(super) fn abandon_snapshot(&mut self, id: ServerId) {
        let Some(process) = self.machine_mut(id).process.as_mut() else { return };
        if let Some(writing) = process.disk.writing.take() {
            writing.writer.abandon();
        }
    }
}
