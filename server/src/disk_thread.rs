//! The one thread that writes the log: a queue in, `Durable` out.
//!
//! Group commit without a timer: the thread takes everything that is queued, writes it with one call, syncs
//! once, and reports; what arrived meanwhile is the next batch. Before it takes the queue it lets go of its core
//! once, for whoever is about to bring more. Jobs run in the order in which they were
//! queued, so "transactions, then epoch, then acknowledgement" is an order in this queue.
//!
//! The queue holds at most [`QUEUE_JOBS_MAX`] jobs and [`QUEUE_BYTES_MAX`] bytes; at the limit the caller
//! waits until the thread has taken what is there. Payloads are copied into the queue, one behind the other:
//! a copy costs less than letting go, on this thread, of memory that another one has taken. A caller that waits
//! stops taking requests, which is what should happen when the disk is slower than the clients.
//!
//! A failed write or sync is final: nobody knows what the page cache holds afterwards, so nothing is tried
//! again. The failure is handed to `on_failure` (in the server: [`exit`]) and the thread ends; what was not
//! reported durable never will be.

use crate::snapshot_thread::install_snapshot;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::sync::Arc;
use std::thread::JoinHandle;
use zoometry_replica::storage::disk::Disk;
use zoometry_replica::storage::epoch::{self, EpochFile};
use zoometry_replica::storage::{StorageError, TxnLog, log, retention};
use zoometry_replica::store::Store;
use zoometry_wire::Zxid;

/// Most jobs that wait; a caller with one more waits itself.
pub const QUEUE_JOBS_MAX: usize = 65_536;
/// Most payload bytes that wait; a caller with more waits itself. A single larger payload passes alone.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Memory that grew beyond this in a burst is let go afterwards.
const PAYLOADS_KEPT_BYTES: usize = 4 << 20;
/// The process ends with this code when the disk has failed (Apache's code for the transaction log).
pub const EXIT_DISK_FAILED: i32 = 10;

/// One transaction for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Its place; must be behind the one before.
    pub zxid: Zxid,
    /// Header, transaction and digest, encoded.
    pub payload: Bytes,
}

/// What one sync made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durable {
    /// Every transaction up to this one.
    pub upto: Zxid,
    /// When the batch was taken from the queue, ns on the clock of [`DiskOptions`].
    pub taken_ns: u64,
    /// When it was written.
    pub written_ns: u64,
    /// When it was durable.
    pub synced_ns: u64,
    /// Transactions in it.
    pub records: u32,
    /// Bytes written, with record heads.
    pub bytes: u64,
    /// Its number since the thread's start, from 1; requests of one batch share it.
    pub batch: u64,
}

/// How the thread works.
#[derive(Debug, Clone, Copy)]
pub struct DiskOptions {
    /// The process's monotonic clock, ns.
    pub now_ns: fn() -> u64,
    /// `fsync.warningthresholdms`: a slower sync is logged.
    pub sync_warn_ms: u64,
}

/// What waits in the queue when a sync is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the thread has time.
    Nothing,
    /// More work, or some may wait.
    Work,
}

/// How a cut of the log has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is durable.
    Done,
    /// It is not possible; nothing was changed.
    Refused,
}

type Done = Box<dyn FnOnce() + Send>;
type CutDone = Box<dyn FnOnce(Cut) + Send>;

enum Job {
    /// A transaction; its payload is the next so many bytes of those that wait.
    Append {
        zxid: Zxid,
        length: usize,
    },
    Roll,
    Purge {
        retain: usize,
    },
    Epoch {
        which: EpochFile,
        epoch: i64,
        done: Done,
    },
    Truncate {
        zxid: Zxid,
        done: CutDone,
    },
    Install {
        store: Arc<RwLock<Store>>,
        zxid: Zxid,
        done: Done,
    },
    Barrier(Done),
    Stop,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// Of the appends in `jobs`, in their order.
    payloads: Vec<u8>,
    /// The thread has ended; nothing will be taken any more.
    closed: bool,
    /// The thread sleeps: whoever queues must wake it.
    asleep: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    work: Condvar,
    room: Condvar,
}

/// The way to the disk thread; clones lead to the same one.
#[derive(Clone)]
pub struct DiskQueue {
    shared: Arc<Shared>,
}

impl DiskQueue {
    /// Queues a transaction. Waits while the queue is full.
    pub fn append(&self, zxid: Zxid, payload: Bytes) {
        self.append_all(&mut vec![Append { zxid, payload }]);
    }

    /// Queues several, in order, in one go; leaves `batch` empty. Waits while the queue is full.
    pub fn append_all(&self, batch: &mut Vec<Append>) {
        let bytes = batch.iter().map(|append| append.payload.len()).sum();
        let mut waiting = self.wait_for_room(bytes);
        waiting.payloads.reserve(bytes);
        for Append { zxid, payload } in batch.iter() {
            waiting.payloads.extend_from_slice(payload);
            waiting.jobs.push(Job::Append { zxid: *zxid, length: payload.len() });
        }
        self.wake(&mut waiting);
        drop(waiting);
        batch.clear();
    }

    /// Ends the present log file; the next transaction opens another.
    pub fn roll(&self) {
        self.push(Job::Roll);
    }

    /// Removes all but the `retain` newest snapshots, and the logs that none of them needs.
    pub fn purge(&self, retain: usize) {
        self.push(Job::Purge { retain });
    }

    /// Writes an epoch file, behind everything queued so far; `done` runs on the disk thread when it is
    /// durable.
    pub fn epoch(&self, which: EpochFile, epoch: i64, done: impl FnOnce() + Send + 'static) {
        self.push(Job::Epoch { which, epoch, done: Box::new(done) });
    }

    /// Cuts the log behind `zxid`, removes snapshots that hold anything later, and closes the log file; `done`
    /// runs on the disk thread when that is durable, or when it has turned out that the log cannot be cut
    /// there and nothing was changed. Snapshots must be held until the state has been reloaded
    /// ([`Snapshotter::hold`](crate::snapshot_thread::Snapshotter::hold)).
    pub fn truncate(&self, zxid: Zxid, done: impl FnOnce(Cut) + Send + 'static) {
        self.push(Job::Truncate { zxid, done: Box::new(done) });
    }

    /// Makes `store` all that the disk holds, and closes the log file: writes a snapshot of it, then removes
    /// every other snapshot and every log; a crash leaves the old state or this one. `done` runs on the disk
    /// thread when that is durable. Appends go on behind the store's last zxid as it is now; those that are
    /// applied before the job has come to its end may be in the snapshot as well. Reads the store: the caller
    /// must not hold its write lock. Snapshots must be held from before the store was replaced.
    pub fn install(&self, store: Arc<RwLock<Store>>, done: impl FnOnce() + Send + 'static) {
        let zxid = store.read().last_zxid();
        self.push(Job::Install { store, zxid, done: Box::new(done) });
    }

    /// Runs `done` on the disk thread when everything queued so far is durable.
    pub fn barrier(&self, done: impl FnOnce() + Send + 'static) {
        self.push(Job::Barrier(Box::new(done)));
    }

    /// Jobs that wait now.
    pub fn depth(&self) -> usize {
        self.shared.waiting.lock().jobs.len()
    }

    fn push(&self, job: Job) {
        let mut waiting = self.wait_for_room(0);
        waiting.jobs.push(job);
        self.wake(&mut waiting);
    }

    fn wait_for_room(&self, bytes: usize) -> parking_lot::MutexGuard<'_, Waiting> {
        let mut waiting = self.shared.waiting.lock();
        while !waiting.closed && !waiting.jobs.is_empty() && is_full(&waiting, bytes) {
            self.shared.room.wait(&mut waiting);
        }
        waiting
    }

    fn wake(&self, waiting: &mut Waiting) {
        if waiting.closed {
            // The process is ending: what nobody will write is let go, and never reported durable.
            waiting.jobs.clear();
            waiting.payloads.clear();
        } else if waiting.asleep {
            waiting.asleep = false;
            self.shared.work.notify_one();
        }
    }
}

impl std::fmt::Debug for DiskQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskQueue").field("depth", &self.depth()).finish()
    }
}

fn is_full(waiting: &Waiting, bytes: usize) -> bool {
    waiting.jobs.len() >= QUEUE_JOBS_MAX || waiting.payloads.len() + bytes > QUEUE_BYTES_MAX
}

/// The running thread, to be stopped and joined.
pub struct DiskThread {
    queue: DiskQueue,
    thread: JoinHandle<()>,
}

impl DiskThread {
    /// Makes everything queued durable, closes the log file, ends the thread and waits for it.
    pub fn stop(self) {
        self.queue.push(Job::Stop);
        // A panic in a callback has been reported by the panic hook; there is nothing left to do here.
        let _ = self.thread.join();
    }
}

/// Starts the thread. `on_durable` runs on it after every sync, `on_failure` at most once. While nothing waits,
/// `on_durable` may queue as much as is allowed at once.
pub fn spawn<D: Disk>(
    disk: D,
    log: TxnLog<D>,
    options: DiskOptions,
    on_durable: impl FnMut(Durable, Behind) + Send + 'static,
    on_failure: impl FnOnce(&StorageError) + Send + 'static,
) -> std::io::Result<(DiskQueue, DiskThread)> {
    let shared = Arc::new(Shared::default());
    let queue = DiskQueue { shared: shared.clone() };
    let thread = std::thread::Builder::new().name("disk".into()).spawn(move || {
        let close = CloseOnExit(shared.clone());
        let mut worker = Worker { disk, log, options, on_durable, batch: 0, taken_ns: 0 };
        if let Err(error) = worker.run(&shared) {
            on_failure(&error);
        }
        drop(close);
    })?;
    Ok((queue.clone(), DiskThread { queue, thread }))
}

/// Lets waiting callers go when the thread ends, however it ends.
struct CloseOnExit(Arc<Shared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic hook has spoken. A member that cannot log must not go on answering.
            std::process::exit(EXIT_DISK_FAILED);
        }
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        waiting.jobs.clear();
        waiting.payloads.clear();
        self.0.room.notify_all();
    }
}

/// The server's answer to a failed disk: say what happened and what to do, and end the process.
pub fn exit(error: &StorageError) {
    let errno = error.errno().map(|errno| format!(" (errno {errno})")).unwrap_or_default();
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("storage failed{errno}, this member stops: {error}");
    } else {
        // The reason for an exit is not a matter of log levels.
        eprintln!("zoometry-server: storage failed{errno}, this member stops: {error}");
    }
    std::process::exit(EXIT_DISK_FAILED);
}

struct Worker<D: Disk, F> {
    disk: D,
    log: TxnLog<D>,
    options: DiskOptions,
    on_durable: F,
    batch: u64,
    taken_ns: u64,
}

impl<D: Disk, F: FnMut(Durable, Behind)> Worker<D, F> {
    fn run(&mut self, shared: &Shared) -> Result<(), StorageError> {
        let (mut jobs, mut payloads) = (Vec::new(), Vec::new());
        loop {
            take(shared, &mut jobs, &mut payloads);
            self.taken_ns = (self.options.now_ns)();
            let mut rest = payloads.as_slice();
            for job in jobs.drain(..) {
                match job {
                    Job::Append { zxid, length } => {
                        let (payload, behind) = rest.split_at(length);
                        self.log.append(zxid, payload)?;
                        rest = behind;
                    }
                    Job::Stop => {
                        self.commit(None)?;
                        return self.log.roll();
                    }
                    other => {
                        self.commit(None)?;
                        self.perform(other)?;
                    }
                }
            }
            self.commit(Some(shared))?;
            payloads.clear();
            if payloads.capacity() > PAYLOADS_KEPT_BYTES {
                payloads = Vec::new();
            }
        }
    }

    /// Writes, syncs and reports what was appended; `queue` is given when everything that was taken from it is
    /// done with that.
    fn commit(&mut self, queue: Option<&Shared>) -> Result<(), StorageError> {
        let committed = self.log.write()?;
        if committed.records == 0 {
            return Ok(());
        }
        let written_ns = (self.options.now_ns)();
        self.log.sync()?;
        let synced_ns = (self.options.now_ns)();
        let sync_ms = synced_ns.saturating_sub(written_ns) / 1_000_000;
        if sync_ms > self.options.sync_warn_ms {
            tracing::warn!(sync_ms, bytes = committed.bytes, "fsync of the transaction log was slow");
        }
        self.batch += 1;
        let behind = match queue {
            Some(queue) if queue.waiting.lock().jobs.is_empty() => Behind::Nothing,
            _ => Behind::Work,
        };
        let durable = Durable {
            upto: committed.upto,
            taken_ns: self.taken_ns,
            written_ns,
            synced_ns,
            records: committed.records,
            bytes: committed.bytes,
            batch: self.batch,
        };
        (self.on_durable)(durable, behind);
        // The next part of this batch, if there is one, begins now.
        self.taken_ns = synced_ns;
        Ok(())
    }

    fn perform(&mut self, job: Job) -> Result<(), StorageError> {
        match job {
            Job::Roll => self.log.roll()?,
            Job::Purge { retain } => match retention::purge(&self.disk, retain) {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => tracing::info!(files = removed.join(" "), "purged"),
                // Nothing is lost by keeping a file too many.
                Err(error) => tracing::warn!("purge failed, will try again next time: {error}"),
            },
            Job::Epoch { which, epoch, done } => {
                epoch::store(&self.disk, which, epoch)?;
                done();
            }
            Job::Truncate { zxid, done } => {
                self.log.roll()?;
                match log::truncate(&self.disk, zxid) {
                    Ok(()) => {
                        self.log.continue_from(zxid)?;
                        done(Cut::Done);
                    }
                    Err(error) if error.refuses_cut() => {
                        tracing::warn!("{error}");
                        done(Cut::Refused);
                    }
                    Err(error) => return Err(error),
                }
            }
            Job::Install { store, zxid, done } => {
                self.log.continue_from(zxid)?;
                let taken = install_snapshot(&self.disk, &store)?;
                tracing::info!(
                    file = taken.name,
                    nodes = taken.nodes,
                    bytes = taken.bytes,
                    "state installed"
                );
                done();
            }
            Job::Barrier(done) => done(),
            Job::Append { .. } | Job::Stop => unreachable!("the loop keeps these"),
        }
        Ok(())
    }
}

/// Waits for work and takes all of it. Both vectors are empty, and used again for what comes.
fn take(shared: &Shared, jobs: &mut Vec<Job>, payloads: &mut Vec<u8>) {
    let mut waiting = shared.waiting.lock();
    while waiting.jobs.is_empty() {
        waiting.asleep = true;
        shared.work.wait(&mut waiting);
    }
    // Where every core is busy, this thread has taken one from somebody who may be about to bring more: with a
    // sync as costly as it is, they go first. On a core with nothing else to do this is nothing.
    MutexGuard::unlocked(&mut waiting, std::thread::yield_now);
    waiting.asleep = false;
    std::mem::swap(&mut waiting.jobs, jobs);
    std::mem::swap(&mut waiting.payloads, payloads);
    shared.room.notify_all();
}

#[cfg(test)]
mod tests;
