//! What the server counts about itself, cheap enough for the request path.
//!
//! A connection's task gathers a [`Batch`] while it works on what its socket held, and hands it over once:
//! one uncontended lock per batch, not per request. Each thread has its own shard; [`ServerStats::collect`]
//! adds the shards up (histograms are merged, percentiles never averaged). Rare events go through
//! [`ServerStats::add`] and [`ServerStats::observe`] directly.
//!
//! Latencies are nanoseconds inside, milliseconds where Apache's names say so. `srst` empties everything
//! except gauges, as Apache's `ServerStats.reset` does.

mod conn;

pub use conn::{Answered, ConnSession, ConnStats, ConnView, op_word};

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use zoometry_wire::OpCode;

/// Shards of the recorded values; threads beyond this share one, which costs time and no correctness.
const SHARDS: usize = 32;
/// Significant decimal digits of the histograms: a bucket is at most 1% wide.
const DIGITS: u8 = 2;

macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$doc])* $name),* }

        impl $type {
            /// Every one.
            pub const ALL: &[$type] = &[$($type::$name),*];

            /// The name that metrics have it by.
            pub fn name(self) -> &'static str {
                match self { $($type::$name => $text),* }
            }
        }
    };
}

named! {
    /// Things that are counted and only grow (until `srst`). The names are Apache's.
    Counter {
        /// Client connections accepted.
        ConnectionRequests = "connection_request_count",
        /// Client connections refused: `maxClientCnxns`, `maxCnxns`.
        ConnectionsRejected = "connection_rejected",
        /// Client connections closed, by either side.
        ConnectionsDropped = "connection_drop_count",
        /// Sessions that came back on a new connection.
        SessionsRevalidated = "connection_revalidate_count",
        /// Connections that never became a session in time.
        SessionlessExpired = "sessionless_connections_expired",
        /// Sessions that ended because nothing was heard of them.
        SessionsExpired = "stale_sessions_expired",
        /// Bytes read from clients.
        BytesReceived = "bytes_received_count",
        /// Bytes written to clients: replies and watch events.
        BytesSent = "response_bytes",
        /// Bytes of watch events written to clients.
        WatchBytes = "watch_bytes",
        /// Writes that entered the preparation queue.
        PrepQueued = "prep_processor_request_queued",
        /// Transactions that entered the disk queue.
        SyncQueued = "sync_processor_request_queued",
        /// Writes proposed.
        Proposals = "proposal_count",
        /// Writes committed.
        Commits = "commit_count",
        /// Transactions after which the tree's digest was not the recorded one.
        DigestMismatches = "digest_mismatches_count",
        /// Starts on a log in which transactions are missing.
        DamagedLogs = "damaged_log_count",
        /// Elections entered.
        Lookings = "looking_count",
        /// Learners synchronised by DIFF.
        DiffSyncs = "diff_count",
        /// Learners synchronised by SNAP.
        SnapSyncs = "snap_count",
        /// Proposals that a learner was sent, in broadcast or to catch up.
        LearnerProposals = "learner_proposal_received_count",
        /// Commits that a learner was told.
        LearnerCommits = "learner_commit_received_count",
        /// Learners' questions whether a session lives.
        Revalidations = "revalidate_count",
        /// Failed authentications.
        AuthFailures = "auth_failed_count",
        /// fsyncs that took longer than `fsync.warningthresholdms`.
        SlowFsyncs = "fsync_threshold_exceed_count",
        /// Connections closed because they did not read what they were sent.
        OutboxOverflows = "outbox_overflow_count",
        /// Frames that were no request: bad length, bad record.
        MalformedFrames = "malformed_frame_count",
        /// Writes refused because no peer and no restart would read their transaction, or that of their session's end.
        OversizedTxns = "oversized_transaction_count",
    }
}

named! {
    /// Things that are measured: each has a count, a sum and a distribution. The names are Apache's.
    Measure {
        /// Answering a read, from its frame's arrival; ns.
        ReadLatency = "readlatency",
        /// Answering a write, from its frame's arrival; ns.
        UpdateLatency = "updatelatency",
        /// One fdatasync; ns.
        FsyncTime = "fsynctime",
        /// Writing one snapshot; ns.
        SnapshotTime = "snapshottime",
        /// Loading the database at start; ns.
        DbInitTime = "dbinittime",
        /// Transactions replayed at start.
        StartupTxnsLoaded = "startup_txns_loaded",
        /// Transactions in one log sync.
        SyncBatchSize = "sync_processor_batch_size",
        /// Write and sync of one batch; ns.
        SyncProcessTime = "sync_process_time",
        /// From entering the disk queue to being taken from it; ns.
        SyncQueueTime = "sync_processor_queue_time_ms",
        /// From entering the disk queue to being durable; ns.
        SyncQueueAndFlushTime = "sync_processor_queue_and_flush_time_ms",
        /// Preparing one write; ns.
        PrepProcessTime = "prep_process_time",
        /// From entering the preparation queue to leaving it; ns.
        PrepQueueTime = "prep_processor_queue_time_ms",
        /// From proposal to quorum; ns.
        QuorumAckLatency = "quorum_ack_latency",
        /// Time without a leader, as this member saw it; ns.
        ElectionTime = "election_time",
        /// Following: from finding the leader to being in sync; ns.
        FollowerSyncTime = "follower_sync_time",
        /// Events of one creation.
        CreatedWatches = "node_created_watch_count",
        /// Events of one deletion.
        DeletedWatches = "node_deleted_watch_count",
        /// Events of one data change.
        ChangedWatches = "node_changed_watch_count",
        /// Events of one change of children.
        ChildrenWatches = "node_children_watch_count",
    }
}

named! {
    /// Where a request's time goes. A read passes Queue or Read, a write Queue, Prep, Append, Sync, Quorum and
    /// Apply. They do not overlap. A write's latency is read when its batch begins to be applied, so its
    /// stages together are longer than that by the batch's apply time. Sending the reply is not in them.
    Stage {
        /// From the frame's arrival until it is begun: a write's until it is prepared, a read's behind a write of
        /// its session until that is applied.
        Queue = "queue",
        /// From the frame's arrival to the answer, for reads that need not wait for a write.
        Read = "read",
        /// Checking a write and making its transaction.
        Prep = "prep",
        /// Waiting for the disk thread, and the write of the batch.
        Append = "append",
        /// fdatasync.
        Sync = "sync",
        /// From durable here until a quorum has it. Where a quorum of others is faster than the disk here, Append and
        /// Sync are left out, and this begins when it was handed to the disk.
        Quorum = "quorum",
        /// From durable, in an ensemble from committed, until the batch has changed the tree and fired its watches.
        Apply = "apply",
    }
}

/// A count, a sum and a distribution of one measured thing, in its own unit.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { histogram: Histogram::new(DIGITS).expect("1 to 5 digits are valid"), sum: 0 }
    }
}

impl Distribution {
    /// `count` times `value`.
    pub fn record(&mut self, value: u64, count: u64) {
        // The histogram grows by itself, up to this limit: 36 years in nanoseconds.
        const HIGHEST: u64 = 1 << 60;
        self.histogram.record_n(value.min(HIGHEST), count).expect("below the growth limit");
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("both resize themselves");
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their sum, exact.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean; 0 when empty.
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// The smallest, within 1%; 0 when empty.
    pub fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.histogram.min() }
    }

    /// The largest, within 1%; 0 when empty.
    pub fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// The value that a share `quantile` (0 to 1) lies at or below, within 1%; `None` when empty.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.histogram.value_at_quantile(quantile))
    }

    /// How many are at or below each of the ascending `bounds`, within 1% of a bound's place.
    pub fn cumulative(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        for value in self.histogram.iter_recorded() {
            // The middle of a bucket stands for it, so that a value equal to a bound counts below it.
            let representative = self.histogram.lowest_equivalent(value.value_iterated_to());
            let index = bounds.partition_point(|bound| *bound < representative);
            if let Some(count) = counts.get_mut(index) {
                *count += value.count_at_value();
            }
        }
        let mut total = 0;
        for count in &mut counts {
            total += *count;
            *count = total;
        }
        counts
    }
}

/// Least, greatest, count and sum of a latency; ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// How many requests.
    pub count: u64,
    /// Their latencies' sum, ns.
    pub sum_ns: u64,
    /// The least, ns; `u64::MAX` while there is none.
    pub min_ns: u64,
    /// The greatest, ns.
    pub max_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl Latency {
    /// `count` requests of this latency.
    pub fn record(&mut self, latency_ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.merge(&Self {
            count,
            sum_ns: latency_ns.saturating_mul(count),
            min_ns: latency_ns,
            max_ns: latency_ns,
        });
    }

    /// Adds the other's requests.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The least, in whole ms as Apache shows it; 0 while there is none.
    pub fn min_ms(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min_ns / 1_000_000 }
    }

    /// The mean in ms, with its fraction; 0 while there is none.
    pub fn avg_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_ns as f64 / self.count as f64 / 1e6 }
    }

    /// The greatest, in whole ms.
    pub fn max_ms(&self) -> u64 {
        self.max_ns / 1_000_000
    }
}

/// Sizes in bytes of what clients were sent: last, least, greatest; −1 while there is none, as Apache has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The last.
    pub last: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { last: -1, min: -1, max: -1 }
    }
}

impl Sizes {
    /// One more.
    pub fn record(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.merge(&Self { last: bytes, min: bytes, max: bytes });
    }

    /// The other's came later.
    pub fn merge(&mut self, later: &Self) {
        if later.last < 0 {
            return;
        }
        self.last = later.last;
        self.min = if self.min < 0 { later.min } else { self.min.min(later.min) };
        self.max = self.max.max(later.max);
    }
}

/// What one connection's task has to report; gathered without a lock, handed over by [`ServerStats::record`].
#[derive(Debug, Default)]
pub struct Batch {
    /// Requests received, pings too.
    pub packets_received: u64,
    /// Replies and watch events sent.
    pub packets_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    latency: Latency,
    response: Sizes,
    requests: Vec<(OpCode, u64, u32)>,
    stages: Vec<(Stage, u64, u32)>,
    measures: Vec<(Measure, u64, u32)>,
}

impl Batch {
    /// `count` requests of one kind were answered, each `latency_ns` behind its frame's arrival.
    pub fn answered(&mut self, op: OpCode, latency_ns: u64, count: u32) {
        self.latency.record(latency_ns, count.into());
        book(&mut self.requests, op, latency_ns, count);
        if !matches!(op, OpCode::Ping) {
            let measure = if op.is_write() { Measure::UpdateLatency } else { Measure::ReadLatency };
            book(&mut self.measures, measure, latency_ns, count);
        }
    }

    /// `count` requests spent `took_ns` each in a stage.
    pub fn stage(&mut self, stage: Stage, took_ns: u64, count: u32) {
        book(&mut self.stages, stage, took_ns, count);
    }

    /// A measured value, in the measure's unit.
    pub fn observe(&mut self, measure: Measure, value: u64) {
        self.observe_many(measure, value, 1);
    }

    /// The same value, measured for several.
    pub fn observe_many(&mut self, measure: Measure, value: u64, count: u32) {
        book(&mut self.measures, measure, value, count);
    }

    /// The size of one reply.
    pub fn response(&mut self, bytes: usize) {
        self.response.record(bytes);
    }

    /// Whether there is nothing to hand over.
    pub fn is_empty(&self) -> bool {
        self.packets_received == 0
            && self.packets_sent == 0
            && self.bytes_received == 0
            && self.bytes_sent == 0
            && self.requests.is_empty()
            && self.stages.is_empty()
            && self.measures.is_empty()
            && self.response.last < 0
    }

    /// The latencies in this batch, for the connection's own statistics.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }
}

/// Adds to a run of equal values: the writes of one submission share their times.
fn book<T: Copy + PartialEq>(runs: &mut Vec<(T, u64, u32)>, what: T, value: u64, count: u32) {
    match runs.last_mut() {
        Some((same, equal, counted)) if (*same, *equal) == (what, value) && count <= u32::MAX - *counted => {
            *counted += count;
        }
        _ => runs.push((what, value, count)),
    }
}

/// Operations have numbers from −11 to 107; this is the way from one to a place in [`OpCode::ALL`].
fn op_index(op: OpCode) -> usize {
    const LOWEST: i32 = -11;
    static INDEX: std::sync::LazyLock<[u8; 128]> = std::sync::LazyLock::new(|| {
        let mut index = [0; 128];
        for (place, op) in OpCode::ALL.iter().enumerate() {
            index[(op.code() - LOWEST) as usize] = place as u8;
        }
        index
    });
    INDEX[(op.code() - LOWEST) as usize].into()
}

/// One thread's share.
#[derive(Debug, Default)]
struct Shard {
    packets_received: u64,
    packets_sent: u64,
    latency: Latency,
    response: Sizes,
    requests: Vec<Option<Box<Distribution>>>,
    stages: Vec<Option<Box<Distribution>>>,
    measures: Vec<Option<Box<Distribution>>>,
}

fn slot(slots: &mut Vec<Option<Box<Distribution>>>, index: usize) -> &mut Distribution {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index].get_or_insert_default()
}

impl Shard {
    fn take(&mut self, batch: &mut Batch) {
        self.packets_received += batch.packets_received;
        self.packets_sent += batch.packets_sent;
        self.latency.merge(&batch.latency);
        self.response.merge(&batch.response);
        for (op, value, count) in batch.requests.drain(..) {
            slot(&mut self.requests, op_index(op)).record(value, count.into());
        }
        for (stage, value, count) in batch.stages.drain(..) {
            slot(&mut self.stages, stage as usize).record(value, count.into());
        }
        for (measure, value, count) in batch.measures.drain(..) {
            slot(&mut self.measures, measure as usize).record(value, count.into());
        }
    }
}

fn merge_slots(into: &mut [Distribution], from: &[Option<Box<Distribution>>]) {
    for (into, from) in into.iter_mut().zip(from) {
        if let Some(from) = from {
            into.merge(from);
        }
    }
}

/// Everything recorded so far, added up: plain values for words and metrics.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Requests received since the start or `srst`.
    pub packets_received: u64,
    /// Replies and events sent.
    pub packets_sent: u64,
    /// Latency of all requests.
    pub latency: Latency,
    /// Sizes of replies.
    pub response: Sizes,
    /// Requests read and not yet answered.
    pub outstanding: i64,
    /// Open client connections.
    pub connections: i64,
    /// ms since [`ServerStats::new`].
    pub uptime_ms: u64,
    counters: Vec<u64>,
    requests: Vec<Distribution>,
    stages: Vec<Distribution>,
    measures: Vec<Distribution>,
}

impl Collected {
    /// A counter's value.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// A measure's distribution, in the measure's unit.
    pub fn measure(&self, measure: Measure) -> &Distribution {
        &self.measures[measure as usize]
    }

    /// A stage's distribution, ns.
    pub fn stage(&self, stage: Stage) -> &Distribution {
        &self.stages[stage as usize]
    }

    /// Request latency of one operation, ns.
    pub fn requests(&self, op: OpCode) -> &Distribution {
        &self.requests[op_index(op)]
    }
}

thread_local! {
    /// Which shard this thread writes to.
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

/// The server's statistics; shared by every thread.
#[derive(Debug)]
pub struct ServerStats {
    started: std::time::Instant,
    shards: Box<[Mutex<Shard>]>,
    counters: Box<[AtomicU64]>,
    outstanding: AtomicI64,
    connections: AtomicI64,
    trace_mask: AtomicI64,
}

impl Default for ServerStats {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerStats {
    /// Nothing counted yet; uptime starts now.
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            counters: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            outstanding: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            // Apache's default: CLIENT_REQUEST | SESSION | … (`ZooTrace`), shown by gtmk.
            trace_mask: AtomicI64::new(306),
        }
    }

    fn shard(&self) -> &Mutex<Shard> {
        let index = SHARD.with(|shard| {
            if shard.get() == usize::MAX {
                shard.set(NEXT_SHARD.fetch_add(1, Relaxed));
            }
            shard.get()
        });
        &self.shards[index % self.shards.len()]
    }

    /// Takes what the batch holds and leaves it empty, its memory kept for the next round.
    pub fn record(&self, batch: &mut Batch) {
        if batch.is_empty() {
            return;
        }
        self.add(Counter::BytesReceived, batch.bytes_received);
        self.add(Counter::BytesSent, batch.bytes_sent);
        self.shard().lock().take(batch);
        batch.packets_received = 0;
        batch.packets_sent = 0;
        batch.bytes_received = 0;
        batch.bytes_sent = 0;
        batch.latency = Latency::default();
        batch.response = Sizes::default();
    }

    /// Counts `n` more.
    pub fn add(&self, counter: Counter, n: u64) {
        if n != 0 {
            self.counters[counter as usize].fetch_add(n, Relaxed);
        }
    }

    /// One measured value, in the measure's unit.
    pub fn observe(&self, measure: Measure, value: u64) {
        slot(&mut self.shard().lock().measures, measure as usize).record(value, 1);
    }

    /// `n` requests were read and are in process (negative: were answered). Returns how many are now.
    pub fn outstanding_add(&self, n: i64) -> i64 {
        self.outstanding.fetch_add(n, Relaxed) + n
    }

    /// Requests in process.
    pub fn outstanding(&self) -> i64 {
        self.outstanding.load(Relaxed)
    }

    /// A client connection was accepted.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.add(Counter::ConnectionRequests, 1);
    }

    /// A client connection is gone.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
        self.add(Counter::ConnectionsDropped, 1);
    }

    /// Open client connections.
    pub fn connections(&self) -> i64 {
        self.connections.load(Relaxed)
    }

    /// What `gtmk` shows.
    pub fn trace_mask(&self) -> i64 {
        self.trace_mask.load(Relaxed)
    }

    /// What `stmk` sets. Nothing here reads it; it is kept for tools that set and get it.
    pub fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Relaxed);
    }

    /// `srst`: empties counters and distributions. Gauges (connections, outstanding, uptime) stay.
    pub fn reset(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard::default();
        }
        for counter in &self.counters {
            counter.store(0, Relaxed);
        }
    }

    /// Everything added up. Takes each shard's lock once, shortly.
    pub fn collect(&self) -> Collected {
        let empty = |n: usize| vec![Distribution::default(); n];
        let mut all = Collected {
            packets_received: 0,
            packets_sent: 0,
            latency: Latency::default(),
            response: Sizes::default(),
            outstanding: self.outstanding(),
            connections: self.connections(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            counters: self.counters.iter().map(|counter| counter.load(Relaxed)).collect(),
            requests: empty(OpCode::ALL.len()),
            stages: empty(Stage::ALL.len()),
            measures: empty(Measure::ALL.len()),
        };
        for shard in &self.shards {
            let shard = shard.lock();
            all.packets_received += shard.packets_received;
            all.packets_sent += shard.packets_sent;
            all.latency.merge(&shard.latency);
            all.response.merge(&shard.response);
            merge_slots(&mut all.requests, &shard.requests);
            merge_slots(&mut all.stages, &shard.stages);
            merge_slots(&mut all.measures, &shard.measures);
        }
        all
    }
}

#[cfg(test)]
mod tests;
