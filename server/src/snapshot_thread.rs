//! Snapshots: when they are due, and the thread that writes them.
//!
//! A snapshot is fuzzy: the store is walked in slices under its read lock, writes go on between two slices,
//! and the log from the snapshot's zxid on repairs the difference. The lock is never held across a write to
//! the disk. The file is written under a temporary name, synced and renamed, so a snapshot with a right name
//! is a whole one.
//!
//! Rule (`SyncRequestProcessor.shouldSnapshot`, reference §9.7): due when more than snapCount/2 +
//! random(0..snapCount/2) transactions, or as much of the size limit, have gone into the log since the last
//! one; the randomness keeps an ensemble's members from doing it all at once. The log rolls at the same
//! time, through the disk queue. A snapshot that is still running suppresses the next.
//!
//! A member whose state is replaced (SNAP) or cut back (TRUNC) must not find a snapshot of the old state on
//! its disk afterwards. So the node calls [`Snapshotter::hold`] before the store and the log change: from
//! then on a running snapshot stays without its name, and none is begun until [`Snapshotter::release`].
//!
//! The walk may see transactions that the log does not hold yet: a learner applies what is committed before
//! its own disk is done, and one that has lost its leader applies all it was given. So a snapshot gets its
//! name behind everything that is on its way to the log; or a crash would leave a state that holds what
//! nobody may ever commit, under a zxid before it.
//!
//! A failed snapshot loses nothing (the logs are all there): it is logged and tried again at the next
//! trigger.

use crate::disk_thread::DiskQueue;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use zoometry_replica::storage::disk::Disk;
use zoometry_replica::storage::snapshot::{SnapshotEnd, digest_block};
use zoometry_replica::storage::{Compression, SnapshotWriter, StorageError, install};
use zoometry_replica::store::{Store, Walk};
use zoometry_wire::Zxid;

/// Most znodes encoded under one hold of the read lock.
pub const SLICE_NODES_MAX: usize = 512;
/// Bytes that one slice aims at: where znodes are large, slices hold fewer of them.
pub const SLICE_BYTES: usize = 1 << 20;

/// When a snapshot is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// `snapCount`: transactions between two snapshots, at most (at least half as many). Minimum 2.
    pub snap_count: u64,
    /// `snapSizeLimitInKb`, as bytes of log; 0: no such limit.
    pub snap_size_limit_bytes: u64,
    /// Where the random part begins; members should differ.
    pub seed: u64,
    /// `snapshot.compression.method`.
    pub compression: Compression,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            snap_count: 100_000,
            snap_size_limit_bytes: 4_194_304 << 10,
            seed: 0,
            compression: Compression::None,
        }
    }
}

/// Counts what goes into the log and says when a snapshot is due.
#[derive(Debug, Clone)]
pub struct Trigger {
    options: SnapshotOptions,
    random: u64,
    txns: u64,
    bytes: u64,
    txns_due: u64,
    bytes_due: u64,
}

impl Trigger {
    /// Nothing counted yet.
    pub fn new(options: SnapshotOptions) -> Self {
        let mut trigger =
            Self { options, random: options.seed, txns: 0, bytes: 0, txns_due: 0, bytes_due: 0 };
        trigger.reset();
        trigger
    }

    /// Takes in what was appended; true if a snapshot is due.
    pub fn note(&mut self, txns: u64, bytes: u64) -> bool {
        self.txns += txns;
        self.bytes += bytes;
        let by_size = self.options.snap_size_limit_bytes > 0 && self.bytes > self.bytes_due;
        self.txns > self.txns_due || by_size
    }

    /// Counts from zero, up to new random limits.
    pub fn reset(&mut self) {
        self.txns = 0;
        self.bytes = 0;
        let half = self.options.snap_count.max(2) / 2;
        self.txns_due = half + self.next_random() % half;
        let half = (self.options.snap_size_limit_bytes / 2).max(1);
        self.bytes_due = half + self.next_random() % half;
    }

    /// splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A snapshot that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// Its file's name.
    pub name: String,
    /// The last transaction applied when it began; in the name.
    pub zxid: Zxid,
    /// Znodes in it.
    pub nodes: u64,
    /// Length of the file.
    pub bytes: u64,
    /// How long it took.
    pub took: std::time::Duration,
}

/// Writes a snapshot of `store` now, on this thread. The store may change meanwhile.
pub fn take_snapshot<D: Disk>(
    disk: &D,
    store: &RwLock<Store>,
    compression: Compression,
) -> Result<SnapshotTaken, StorageError> {
    let taken = take(disk, store, &Pass::always(), Purpose::Keep(compression), None)?;
    Ok(taken.expect("nobody closes a gate of one's own"))
}

/// Makes `store` all that the disk holds: writes a snapshot of it, and removes everything else. On the disk
/// thread, with no log file open; the store may change meanwhile, but must not be replaced.
pub(crate) fn install_snapshot<D: Disk>(
    disk: &D,
    store: &RwLock<Store>,
) -> Result<SnapshotTaken, StorageError> {
    let taken = take(disk, store, &Pass::always(), Purpose::Install, None)?;
    Ok(taken.expect("nobody closes a gate of one's own"))
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It stands beside the others.
    Keep(Compression),
    /// It takes the place of everything; it is plain.
    Install,
}

/// Writes a snapshot; it gets its name behind what waits in `log` now. `None` if it was given up because the
/// state was about to be replaced, or because the log has ended.
fn take<D: Disk>(
    disk: &D,
    store: &RwLock<Store>,
    pass: &Pass,
    purpose: Purpose,
    log: Option<&DiskQueue>,
) -> Result<Option<SnapshotTaken>, StorageError> {
    let span = tracing::info_span!("snapshot", zxid = tracing::field::Empty, bytes = tracing::field::Empty);
    let _in_span = span.enter();
    let started = std::time::Instant::now();
    let (zxid, head, walk) = {
        let store = store.read();
        if !pass.is_valid() {
            return Ok(None);
        }
        (store.last_zxid(), store.snapshot_head(), store.start_walk())
    };
    let mut writer = match purpose {
        Purpose::Keep(compression) => SnapshotWriter::create(disk.clone(), zxid, compression, &head)?,
        Purpose::Install => SnapshotWriter::create_installing(disk.clone(), zxid, &head)?,
    };
    drop(head);
    let (nodes, end) = match write_nodes(&mut writer, store, walk, pass) {
        Ok(Some(written)) => written,
        Ok(None) => {
            writer.abandon();
            return Ok(None);
        }
        Err(error) => {
            // On a full disk the space is wanted back.
            writer.abandon();
            return Err(error);
        }
    };
    let end = match purpose {
        Purpose::Keep(_) => end,
        // The leader sent it while writes went on: the tree is ahead of its zxid until those have come as well, and
        // no transaction's digest would be that of the tree as it is now.
        Purpose::Install => SnapshotEnd::default(),
    };
    let sealed = writer.seal_up(end)?;
    if !log.is_none_or(wait_for) {
        sealed.abandon();
        return Ok(None);
    }
    // Who holds snapshots waits for this lock: afterwards the file has its name already, or never gets it.
    let still = pass.gate.state.lock();
    if still.valid != Some(pass.number) {
        sealed.abandon();
        return Ok(None);
    }
    let (name, bytes) = match purpose {
        Purpose::Keep(_) => sealed.publish()?,
        Purpose::Install => install::install(disk, sealed)?,
    };
    drop(still);
    span.record("zxid", tracing::field::display(zxid)).record("bytes", bytes);
    Ok(Some(SnapshotTaken { name, zxid, nodes, bytes, took: started.elapsed() }))
}

/// Waits until everything queued so far is durable; false if it never will be.
fn wait_for(log: &DiskQueue) -> bool {
    let (done, wait) = sync_channel(1);
    log.barrier(move || {
        // It waits below.
        let _ = done.send(());
    });
    wait.recv().is_ok()
}

/// Walks the store slice by slice; returns how many znodes there were and what stands behind them. `None`
/// if it is not the store any more that the walk began in.
fn write_nodes<D: Disk>(
    writer: &mut SnapshotWriter<D>,
    store: &RwLock<Store>,
    mut walk: Walk,
    pass: &Pass,
) -> Result<Option<(u64, SnapshotEnd)>, StorageError> {
    let (mut nodes, mut budget) = (0u64, SLICE_NODES_MAX / 8);
    loop {
        let (before, mut slice_nodes) = (writer.pending_bytes(), 0usize);
        let more = {
            let store = store.read();
            if !pass.is_valid() {
                return Ok(None);
            }
            store.walk(&mut walk, budget, &mut |node| {
                slice_nodes += 1;
                writer.node(&node);
            })
        };
        let node_bytes = (writer.pending_bytes() - before) / slice_nodes.max(1);
        budget = (SLICE_BYTES / node_bytes.max(1)).clamp(1, SLICE_NODES_MAX);
        nodes += slice_nodes as u64;
        writer.flush()?;
        if !more {
            break;
        }
    }
    let store = store.read();
    let last_zxid = store.last_zxid();
    let digest = store.config().digest.then(|| digest_block(last_zxid, store.digest()));
    // The zxid block without a digest block is what 3.9 would take for a digest.
    Ok(Some((nodes, SnapshotEnd { digest, last_zxid: digest.map(|_| last_zxid) })))
}

/// Decides whether a snapshot that is being written may have its name.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
}

#[derive(Debug)]
struct GateState {
    /// Passes handed out before the present state took over are worth nothing.
    number: u64,
    /// The passes that are good now; none while the gate is closed.
    valid: Option<u64>,
}

impl Default for GateState {
    fn default() -> Self {
        Self { number: 0, valid: Some(0) }
    }
}

/// One snapshot's leave to appear, as long as the state stays what it is.
struct Pass {
    gate: Arc<Gate>,
    number: u64,
}

impl Gate {
    fn enter(self: &Arc<Self>) -> Option<Pass> {
        let number = self.state.lock().valid?;
        Some(Pass { gate: Arc::clone(self), number })
    }

    fn close(&self) {
        self.state.lock().valid = None;
    }

    fn open(&self) {
        let mut state = self.state.lock();
        if state.valid.is_none() {
            state.number += 1;
            state.valid = Some(state.number);
        }
    }
}

impl Pass {
    /// For who can be sure that the state stays.
    fn always() -> Self {
        Self { gate: Arc::default(), number: GateState::default().number }
    }

    /// Ask it under the store's lock: whoever replaces the store has closed the gate before.
    fn is_valid(&self) -> bool {
        self.gate.state.lock().valid == Some(self.number)
    }
}

/// The trigger and its thread.
pub struct Snapshotter {
    trigger: Trigger,
    queue: DiskQueue,
    gate: Arc<Gate>,
    busy: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Snapshotter {
    /// Starts the thread. `on_taken` runs on it after each snapshot, taken or failed; not for one that was
    /// given up.
    pub fn spawn<D: Disk>(
        disk: D,
        store: Arc<RwLock<Store>>,
        queue: DiskQueue,
        options: SnapshotOptions,
        mut on_taken: impl FnMut(&Result<SnapshotTaken, StorageError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let busy = Arc::new(AtomicBool::new(false));
        // One waiting request is the most there can be: `busy` is set before one is sent.
        let (wake, woken): (SyncSender<()>, Receiver<()>) = sync_channel(1);
        let running = busy.clone();
        let gate = Arc::new(Gate::default());
        let asked = gate.clone();
        let log = queue.clone();
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            while woken.recv().is_ok() {
                let taken = match asked.enter() {
                    Some(pass) => take(&disk, &store, &pass, Purpose::Keep(options.compression), Some(&log)),
                    None => Ok(None),
                };
                match &taken {
                    Ok(Some(taken)) => tracing::info!(
                        file = taken.name,
                        nodes = taken.nodes,
                        bytes = taken.bytes,
                        took = ?taken.took,
                        "snapshot written"
                    ),
                    Ok(None) => tracing::info!("snapshot given up: the state is being replaced"),
                    Err(error) => tracing::error!("snapshot failed, will try at the next trigger: {error}"),
                }
                // Before the word is out: whoever hears it may ask for the next one.
                running.store(false, Ordering::Release);
                if let Some(taken) = taken.transpose() {
                    on_taken(&taken);
                }
            }
        })?;
        Ok(Self { trigger: Trigger::new(options), queue, gate, busy, wake, thread })
    }

    /// Call it behind the appends it counts. If a snapshot is due, rolls the log and starts one; true if it
    /// did.
    pub fn appended(&mut self, txns: u64, bytes: u64) -> bool {
        if !self.trigger.note(txns, bytes) {
            return false;
        }
        self.trigger.reset();
        self.queue.roll();
        self.start()
    }

    /// No snapshot of the present state appears any more once this has returned; one that is being written
    /// is given up. Waits at most for a rename and the sync of a directory. Holding twice is holding once.
    pub fn hold(&self) {
        self.gate.close();
    }

    /// The new state is in the store, and durable: snapshots of it may be taken again.
    pub fn release(&self) {
        self.gate.open();
    }

    /// Starts a snapshot unless one is running or they are held; true if it did.
    pub fn start(&self) -> bool {
        if self.gate.enter().is_none() {
            return false;
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            tracing::warn!("snapshot due, but the one before is still being written; skipped");
            return false;
        }
        self.wake.try_send(()).is_ok()
    }

    /// Waits for a running snapshot and ends the thread.
    pub fn stop(self) {
        drop(self.wake);
        // A panic there has been reported by the panic hook.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests;
