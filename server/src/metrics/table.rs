//! The table of metrics.

use crate::stats::{Collected, Counter, Measure};
use crate::view::Facts;

use super::process;

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Only up.
    Counter,
    /// Count, sum and the median; Apache's BASIC.
    Basic,
    /// Count, sum and five percentiles; Apache's ADVANCED.
    Advanced,
    /// Count, sum and buckets, one set per label value.
    Histogram,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds; the source has nanoseconds where it is a [`Measure`].
    Milliseconds,
    /// Seconds.
    Seconds,
}

/// Who has the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every server.
    Server,
    /// Members of an ensemble.
    Ensemble,
    /// Every server, only over HTTP: `mntr` has no room for it or never had it.
    HttpOnly,
}

/// Where the value comes from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// Known while the member serves.
    Gauge(fn(&Facts) -> Option<f64>),
    /// Known always.
    Stat(fn(&Collected) -> f64),
    Counter(Counter),
    Measure(Measure),
    Process(fn() -> Option<f64>),
    RequestDuration,
    StageDuration,
}

/// One metric.
#[derive(Clone, Copy)]
pub struct Metric {
    /// As Prometheus has it.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// Who has it.
    pub scope: Scope,
    /// One sentence.
    pub help: &'static str,
    pub(super) source: Source,
}

impl Metric {
    /// As `mntr` has it.
    pub fn word_name(&self) -> String {
        if self.name.starts_with("zk_") { self.name.to_string() } else { format!("zk_{}", self.name) }
    }
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    scope: Scope,
    source: Source,
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, scope, help, source }
}

macro_rules! ensemble {
    ($f:expr) => {
        Source::Gauge(|facts| facts.ensemble.as_ref().map($f))
    };
}

macro_rules! leader {
    ($f:expr) => {
        Source::Gauge(|facts| facts.ensemble.as_ref().and_then(|ensemble| ensemble.leader.as_ref()).map($f))
    };
}

use Kind::{Advanced, Basic, Counter as Count, Gauge, Histogram};
use Scope::{Ensemble, HttpOnly, Server};
use Source as S;
use Unit::{Bytes, Milliseconds as Ms, Seconds};

const N: Unit = Unit::Count;

/// Every metric that this server has.
#[rustfmt::skip]
pub const TABLE: &[Metric] = &[
    metric("ephemerals_count", Gauge, N, Server, S::Gauge(|f| Some(f.ephemerals as f64)), "Ephemeral znodes"),
    metric("num_alive_connections", Gauge, N, Server, S::Stat(|c| c.connections as f64), "Open client connections"),
    metric("avg_latency", Gauge, Ms, Server, S::Stat(|c| c.latency.avg_ms()), "Mean time from a request's arrival to its answer, since the start or srst"),
    metric("outstanding_requests", Gauge, N, Server, S::Stat(|c| c.outstanding as f64), "Requests read and not yet answered"),
    metric("znode_count", Gauge, N, Server, S::Gauge(|f| Some(f.node_count as f64)), "znodes, the root and /zookeeper included"),
    metric("global_sessions", Gauge, N, Server, S::Gauge(|f| Some(f.global_sessions as f64)), "Sessions that the whole ensemble knows"),
    metric("local_sessions", Gauge, N, Server, S::Gauge(|f| Some(f.local_sessions as f64)), "Sessions that only this server knows"),
    metric("last_client_response_size", Gauge, Bytes, Server, S::Stat(|c| c.response.last as f64), "Last reply; -1 before the first"),
    metric("max_client_response_size", Gauge, Bytes, Server, S::Stat(|c| c.response.max as f64), "Longest reply; -1 before the first"),
    metric("min_client_response_size", Gauge, Bytes, Server, S::Stat(|c| c.response.min as f64), "Shortest reply; -1 before the first"),
    metric("packets_received", Gauge, N, Server, S::Stat(|c| c.packets_received as f64), "Requests received, since the start or srst"),
    metric("packets_sent", Gauge, N, Server, S::Stat(|c| c.packets_sent as f64), "Replies and watch events sent, since the start or srst"),
    metric("watch_count", Gauge, N, Server, S::Gauge(|f| Some((f.watches.data + f.watches.child) as f64)), "Watches set"),
    metric("min_latency", Gauge, Ms, Server, S::Stat(|c| c.latency.min_ms() as f64), "Shortest time from a request's arrival to its answer"),
    metric("max_latency", Gauge, Ms, Server, S::Stat(|c| c.latency.max_ms() as f64), "Longest time from a request's arrival to its answer"),
    metric("approximate_data_size", Gauge, Bytes, Server, S::Gauge(|f| Some(f.approximate_data_size as f64)), "Paths and data of all znodes"),
    metric("uptime", Gauge, Ms, Server, S::Stat(|c| c.uptime_ms as f64), "Time since the start"),
    metric("open_file_descriptor_count", Gauge, N, Server, S::Process(|| process::open_files().map(|n| n as f64)), "File descriptors in use"),
    metric("max_file_descriptor_count", Gauge, N, Server, S::Process(|| process::max_open_files().map(|n| n as f64)), "File descriptors allowed"),

    metric("quorum_size", Gauge, N, Ensemble, ensemble!(|e| e.quorum_size as f64), "Voting members"),
    metric("learners", Gauge, N, Ensemble, leader!(|l| l.learners as f64), "Connected learners; leader only"),
    metric("synced_followers", Gauge, N, Ensemble, leader!(|l| l.synced_followers as f64), "Followers in sync; leader only"),
    metric("synced_non_voting_followers", Gauge, N, Ensemble, leader!(|l| l.synced_non_voting_followers as f64), "Followers in sync without a vote; leader only"),
    metric("synced_observers", Gauge, N, Ensemble, leader!(|l| l.synced_observers as f64), "Observers in sync; leader only"),
    metric("pending_syncs", Gauge, N, Ensemble, leader!(|l| l.pending_syncs as f64), "sync requests waiting; leader only"),
    metric("leader_uptime", Gauge, Ms, Ensemble, leader!(|l| l.uptime_ms as f64), "Time since it began to lead; leader only"),
    metric("last_proposal_size", Gauge, Bytes, Ensemble, leader!(|l| l.last_proposal_size as f64), "Last proposal; leader only"),
    metric("max_proposal_size", Gauge, Bytes, Ensemble, leader!(|l| l.max_proposal_size as f64), "Longest proposal; leader only"),
    metric("min_proposal_size", Gauge, Bytes, Ensemble, leader!(|l| l.min_proposal_size as f64), "Shortest proposal; leader only"),

    metric("connection_request_count", Count, N, Server, S::Counter(Counter::ConnectionRequests), "Client connections accepted"),
    metric("connection_rejected", Count, N, Server, S::Counter(Counter::ConnectionsRejected), "Client connections refused by maxClientCnxns or maxCnxns"),
    metric("connection_drop_count", Count, N, Server, S::Counter(Counter::ConnectionsDropped), "Client connections closed, by either side"),
    metric("connection_revalidate_count", Count, N, Server, S::Counter(Counter::SessionsRevalidated), "Sessions that came back on a new connection"),
    metric("sessionless_connections_expired", Count, N, Server, S::Counter(Counter::SessionlessExpired), "Connections that did not open a session in time"),
    metric("stale_sessions_expired", Count, N, Server, S::Counter(Counter::SessionsExpired), "Sessions expired"),
    metric("bytes_received_count", Count, Bytes, Server, S::Counter(Counter::BytesReceived), "Bytes read from clients"),
    metric("response_bytes", Count, Bytes, Server, S::Counter(Counter::BytesSent), "Bytes written to clients"),
    metric("watch_bytes", Count, Bytes, Server, S::Counter(Counter::WatchBytes), "Bytes of watch events written to clients"),
    metric("prep_processor_request_queued", Count, N, Server, S::Counter(Counter::PrepQueued), "Writes that entered the preparation queue"),
    metric("sync_processor_request_queued", Count, N, Server, S::Counter(Counter::SyncQueued), "Transactions that entered the disk queue"),
    metric("digest_mismatches_count", Count, N, Server, S::Counter(Counter::DigestMismatches), "Transactions behind which the tree's digest was not the recorded one"),
    metric("auth_failed_count", Count, N, Server, S::Counter(Counter::AuthFailures), "Failed authentications"),
    metric("proposal_count", Count, N, Ensemble, S::Counter(Counter::Proposals), "Writes proposed"),
    metric("commit_count", Count, N, Ensemble, S::Counter(Counter::Commits), "Writes committed"),
    metric("learner_proposal_received_count", Count, N, Ensemble, S::Counter(Counter::LearnerProposals), "Proposals received from the leader"),
    metric("learner_commit_received_count", Count, N, Ensemble, S::Counter(Counter::LearnerCommits), "Commits received from the leader"),
    metric("revalidate_count", Count, N, Ensemble, S::Counter(Counter::Revalidations), "Learners' questions whether a session lives"),
    metric("looking_count", Count, N, Ensemble, S::Counter(Counter::Lookings), "Elections entered"),
    metric("diff_count", Count, N, Ensemble, S::Counter(Counter::DiffSyncs), "Learners synchronised by DIFF"),
    metric("snap_count", Count, N, Ensemble, S::Counter(Counter::SnapSyncs), "Learners synchronised by SNAP"),

    metric("readlatency", Advanced, Ms, Server, S::Measure(Measure::ReadLatency), "Reads, from arrival to answer"),
    metric("updatelatency", Advanced, Ms, Server, S::Measure(Measure::UpdateLatency), "Writes, from arrival to answer"),
    metric("fsynctime", Basic, Ms, Server, S::Measure(Measure::FsyncTime), "One sync of the transaction log"),
    metric("snapshottime", Basic, Ms, Server, S::Measure(Measure::SnapshotTime), "Writing one snapshot"),
    metric("dbinittime", Basic, Ms, Server, S::Measure(Measure::DbInitTime), "Loading the database at the start"),
    metric("startup_txns_loaded", Basic, N, Server, S::Measure(Measure::StartupTxnsLoaded), "Transactions replayed at the start"),
    metric("sync_processor_batch_size", Basic, N, Server, S::Measure(Measure::SyncBatchSize), "Transactions of one log sync"),
    metric("sync_process_time", Basic, Ms, Server, S::Measure(Measure::SyncProcessTime), "Write and sync of one batch"),
    metric("sync_processor_queue_time_ms", Advanced, Ms, Server, S::Measure(Measure::SyncQueueTime), "Waiting for the disk"),
    metric("sync_processor_queue_and_flush_time_ms", Advanced, Ms, Server, S::Measure(Measure::SyncQueueAndFlushTime), "Waiting for the disk, and until durable"),
    metric("prep_process_time", Basic, Ms, Server, S::Measure(Measure::PrepProcessTime), "Checking one write and making its transaction"),
    metric("prep_processor_queue_time_ms", Advanced, Ms, Server, S::Measure(Measure::PrepQueueTime), "Waiting for preparation"),
    metric("node_created_watch_count", Basic, N, Server, S::Measure(Measure::CreatedWatches), "Events of one creation"),
    metric("node_deleted_watch_count", Basic, N, Server, S::Measure(Measure::DeletedWatches), "Events of one deletion"),
    metric("node_changed_watch_count", Basic, N, Server, S::Measure(Measure::ChangedWatches), "Events of one change of data"),
    metric("node_children_watch_count", Basic, N, Server, S::Measure(Measure::ChildrenWatches), "Events of one change of children"),
    metric("quorum_ack_latency", Advanced, Ms, Ensemble, S::Measure(Measure::QuorumAckLatency), "From proposal to quorum"),
    metric("election_time", Basic, Ms, Ensemble, S::Measure(Measure::ElectionTime), "From looking to a leader"),
    metric("follower_sync_time", Basic, Ms, Ensemble, S::Measure(Measure::FollowerSyncTime), "From finding the leader to being in sync"),

    metric("zk_request_duration_seconds", Histogram, Seconds, HttpOnly, S::RequestDuration, "From a request's arrival to its answer, by operation"),
    metric("zk_stage_duration_seconds", Histogram, Seconds, HttpOnly, S::StageDuration, "Where requests spend their time; the stages of one request do not overlap"),
    metric("zk_disk_queue_transactions", Gauge, N, HttpOnly, S::Gauge(|f| Some(f.disk_queue as f64)), "Transactions waiting for the disk now"),
    metric("zk_unsent_bytes", Gauge, Bytes, HttpOnly, S::Gauge(|f| Some(f.unsent_bytes as f64)), "Unread replies and events and unanswered requests, of all client connections together"),
    metric("zk_watched_paths", Gauge, N, HttpOnly, S::Gauge(|f| Some(f.watches.paths as f64)), "Paths with a watch"),
    metric("zk_watching_connections", Gauge, N, HttpOnly, S::Gauge(|f| Some(f.watches.connections as f64)), "Connections with a watch"),
    metric("zk_epoch_transactions", Gauge, N, HttpOnly, S::Gauge(|f| Some(f.last_zxid.counter().into())), "Transactions of the epoch up to the last applied zxid: its low half"),
    metric("zk_epoch", Gauge, N, HttpOnly, S::Gauge(|f| Some(f.last_zxid.epoch().into())), "Epoch of the last applied zxid: its high half"),
    metric("zk_slow_fsyncs_total", Count, N, HttpOnly, S::Counter(Counter::SlowFsyncs), "Log syncs over fsync.warningthresholdms"),
    metric("zk_outbox_overflows_total", Count, N, HttpOnly, S::Counter(Counter::OutboxOverflows), "Connections closed because they did not read what they were sent"),
    metric("zk_damaged_logs_total", Count, N, HttpOnly, S::Counter(Counter::DamagedLogs), "Starts on a log in which transactions are missing"),
    metric("zk_malformed_frames_total", Count, N, HttpOnly, S::Counter(Counter::MalformedFrames), "Frames that were no request"),
    metric("zk_oversized_transactions_total", Count, N, HttpOnly, S::Counter(Counter::OversizedTxns), "Writes refused because their transaction, or that of their session's end, would be longer than every member reads"),

    metric("process_cpu_seconds_total", Count, Seconds, HttpOnly, S::Process(process::cpu_seconds), "CPU time used"),
    metric("process_start_time_seconds", Gauge, Seconds, HttpOnly, S::Process(process::start_time_seconds), "Start of the process, since the Unix epoch"),
    metric("process_resident_memory_bytes", Gauge, Bytes, HttpOnly, S::Process(|| process::memory().resident.map(|n| n as f64)), "Resident memory"),
    metric("process_virtual_memory_bytes", Gauge, Bytes, HttpOnly, S::Process(|| process::memory().virtual_size.map(|n| n as f64)), "Virtual memory"),
    metric("process_open_fds", Gauge, N, HttpOnly, S::Process(|| process::open_files().map(|n| n as f64)), "File descriptors in use"),
    metric("process_max_fds", Gauge, N, HttpOnly, S::Process(|| process::max_open_files().map(|n| n as f64)), "File descriptors allowed"),
    metric("process_threads", Gauge, N, HttpOnly, S::Process(|| process::threads().map(|n| n as f64)), "Threads"),
];
