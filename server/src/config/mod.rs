//! `zoo.cfg`: what one member is told at start.
//!
//! The file is Apache ZooKeeper's, key for key, so one file serves either program. [`Config::load`] reads it
//! together with the files it names (`dynamicConfigFile`, `myid`); [`Config::parse_with`] does the same with
//! a reader of the caller's choice, so that nothing here needs a disk to be tested.
//!
//! Rules (source: Apache's `QuorumPeerConfig`, `QuorumPeerMain`; the reference's §10):
//! * Unknown keys never fail; they are kept in [`Config::other`].
//! * A key may carry the prefix `zookeeper.`, as the same setting has it as a Java system property.
//! * A value that does not parse is an error naming file, line, key, what was expected and what to do. Apache
//!   refuses it too, or, where it reads a Java system property, takes the default and says nothing.
//! * What Apache starts with means the same here, odd values as well (`maxClientCnxns=-1`, `snapCount=0x100`):
//!   see `tests/apache.rs`. Where that is not what it seems to mean (`forceSync=false`) there is a warning.
//! * One participant runs standalone, unless `standaloneEnabled=false`.
//!
//! What this module does not do: resolve host names, create directories, open ports, read environment variables.

mod java;
mod keys;
mod properties;
mod read;
mod servers;
#[cfg(test)]
mod tests;

pub use keys::{KeyDoc, OWN_KEYS};
pub use properties::{Property, properties};
pub use servers::{Member, MemberAddress, MemberRole, parse_member};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zoometry_replica::storage::Compression;
use zoometry_replica::store::TXN_BYTES_MAX;
use zoometry_replica::store::acl::DigestAlgorithm;

/// Where a listener binds: a host name or address as written, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name, an IPv4 address, or an IPv6 address without brackets. `0.0.0.0` when none was given.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Endpoint {
    /// The host for "every address of this machine".
    pub const ANY: &'static str = "0.0.0.0";
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Everything that `zoo.cfg` says, typed, with Apache's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// `tickTime`, ms: the unit of every timeout.
    pub tick_time_ms: u32,
    /// `dataDir`: snapshots (under `version-2`) and `myid`.
    pub data_dir: PathBuf,
    /// `dataLogDir`: transaction logs (under `version-2`); `dataDir` unless set.
    pub data_log_dir: PathBuf,
    /// The clients' port and its limits.
    pub client: ClientPort,
    /// Session time-outs and kinds.
    pub sessions: Sessions,
    /// How requests are taken and refused.
    pub requests: Requests,
    /// Log, snapshots, purge.
    pub storage: Storage,
    /// Authentication of clients.
    pub auth: Auth,
    /// Which four-letter words are answered.
    pub words: Whitelist,
    /// The JSON admin endpoint; `None` when off (see [`Admin`] for when it is on).
    pub admin: Option<Admin>,
    /// The Prometheus text endpoint; `None` when off.
    pub metrics: Option<Metrics>,
    /// Alone, or a member of an ensemble.
    pub ensemble: Ensemble,
    /// Keys of our own, all under `zoometry.`.
    pub own: Own,
    /// Keys that this program does not act on, as written: Apache's that have no meaning here, and unknown
    /// ones. Names without a `zookeeper.` prefix.
    pub other: BTreeMap<String, String>,
    /// Things worth a warning at start: what was accepted but is odd, or is accepted and not acted on.
    pub warnings: Vec<String>,
}

/// The clients' port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPort {
    /// Where clients connect; `None` when no client port is configured (`clientPort=0`).
    pub listen: Option<Endpoint>,
    /// The TLS port, if configured.
    pub secure_listen: Option<Endpoint>,
    /// `clientPortListenBacklog`; `None` leaves it to the system.
    pub backlog: Option<u32>,
    /// `maxClientCnxns`: connections of one IP address; `None` (0 or less) is unlimited.
    pub max_per_ip: Option<u32>,
    /// `maxCnxns`: connections of the whole server; `None` (0 or less) leaves it to what the process may have open.
    pub max_total: Option<u32>,
    /// `nio.sessionlessCnxnTimeout`, ms: a connection without a session is closed after this long, and one that
    /// is ending when its client has taken nothing for this long.
    pub sessionless_timeout_ms: u64,
    /// `clientTcpKeepAlive`.
    pub tcp_keep_alive: bool,
}

/// Session time-outs and kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// `minSessionTimeout`, ms; 2 ticks unless set.
    pub min_timeout_ms: u32,
    /// `maxSessionTimeout`, ms; 20 ticks unless set.
    pub max_timeout_ms: u32,
    /// `localSessionsEnabled`.
    pub local_enabled: bool,
    /// `localSessionsUpgradingEnabled`.
    pub local_upgrading_enabled: bool,
}

/// How requests are taken and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// `jute.maxbuffer`, bytes: the longest frame that a client may send.
    pub max_frame_bytes: usize,
    /// `jute.maxbuffer.extrasize`, bytes, at least 1024: so much longer than a frame a transaction may be. The same as
    /// `jute.maxbuffer` unless set. Source: `BinaryInputArchive.java`.
    pub max_frame_extra_bytes: usize,
    /// `globalOutstandingLimit`: requests in process in the whole server before reading pauses.
    pub global_outstanding_limit: u32,
    /// `largeRequestThreshold`, bytes; `None` is off.
    pub large_request_threshold_bytes: Option<u64>,
    /// `largeRequestMaxBytes`: bytes of large requests in process before one is refused.
    pub large_request_max_bytes: u64,
    /// `throttled_op_wait_time`, ms: a request that waited longer is answered −127; `None` is off.
    pub throttled_op_wait_ms: Option<u64>,
    /// `extendedTypesEnabled`: TTL nodes.
    pub extended_types: bool,
    /// `enforceQuota`: hard limits refuse the write.
    pub enforce_quota: bool,
    /// `enableEagerACLCheck`: a write that the ACL forbids is refused by the member that receives it, without a
    /// transaction.
    pub eager_acl_check: bool,
    /// `skipACL`.
    pub skip_acl: bool,
    /// `readonlymode.enabled`.
    pub read_only_mode: bool,
    /// `znode.container.checkIntervalMs`.
    pub container_check_interval_ms: u64,
    /// `znode.container.maxPerMinute`.
    pub container_max_per_minute: u32,
    /// `znode.container.maxNeverUsedIntervalMs`; `None` (0) keeps never-used containers forever.
    pub container_max_never_used_ms: Option<u64>,
}

impl Requests {
    /// The longest transaction that is made here: what Apache's members read as well, if theirs are set alike.
    pub fn max_txn_bytes(&self) -> usize {
        self.max_frame_bytes.saturating_add(self.max_frame_extra_bytes).min(TXN_BYTES_MAX)
    }
}

/// Log, snapshots, purge.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// `snapCount`: transactions between snapshots (the real number is drawn between half of it and it).
    pub snap_count: u32,
    /// `snapSizeLimitInKb`, in bytes: log bytes between snapshots; `None` is off.
    pub snap_size_limit_bytes: Option<u64>,
    /// `preAllocSize`, in bytes: how far the log file is grown ahead of what is written; 0 is not at all.
    pub pre_alloc_bytes: u64,
    /// `txnLogSizeLimitInKb`, in bytes: a log file is rolled behind this; `None` is off.
    pub log_size_limit_bytes: Option<u64>,
    /// `forceSync`: sync the log before acknowledging. `no` loses acknowledged writes when the machine fails.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`.
    pub fsync_warning_ms: u64,
    /// `commitLogCount`: committed transactions kept in memory for learners that are a little behind, at least 500.
    pub commit_log_count: usize,
    /// `flushDelay`, ms: Apache waits this long for more writes; here group commit needs no timer. Kept for `conf`.
    pub flush_delay_ms: u64,
    /// `maxBatchSize`: transactions of one log sync at the most.
    pub max_batch: u32,
    /// `digest.enabled`: keep and check the tree's digest.
    pub digest: bool,
    /// `serializeLastProcessedZxid.enabled`: the 3.9 block at the snapshot's end.
    pub snapshot_last_zxid_block: bool,
    /// `snapshot.compression.method`, of snapshots that are written.
    pub snapshot_compression: Compression,
    /// `snapshotSizeFactor`: a learner is sent log files up to so many times the newest snapshot's length, beyond that a
    /// snapshot; below 0: always a snapshot.
    pub snapshot_size_factor: f64,
    /// `snapshot.trust.empty`: start on logs without any snapshot.
    pub trust_empty_snapshot: bool,
    /// `datadir.autocreate`: make missing directories.
    pub data_dir_autocreate: bool,
    /// `db.autocreate`: an empty directory is a new, empty database.
    pub database_autocreate: bool,
    /// `syncEnabled`: an observer writes logs and snapshots.
    pub observer_sync: bool,
    /// `autopurge.snapRetainCount`, at least 3.
    pub purge_retain: u32,
    /// `autopurge.purgeInterval`, hours; `None` (0 or less) never purges.
    pub purge_interval_h: Option<u32>,
}

/// Authentication of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `DigestAuthenticationProvider.superDigest`: `super:<base64 of the digest>`.
    pub super_digest: Option<String>,
    /// `DigestAuthenticationProvider.enabled`: whether clients may authenticate by user and password.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`; the same on every member.
    pub digest_algorithm: DigestAlgorithm,
    /// `enforce.auth.enabled` with `enforce.auth.schemes`: one of these schemes must have been used; empty is off.
    pub enforced_schemes: Vec<String>,
    /// `authProvider.N` lines, by N: Java class names.
    pub providers: BTreeMap<String, String>,
}

/// Which four-letter words are answered: `4lw.commands.whitelist`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whitelist {
    /// `*`.
    All,
    /// These, and `srvr`, whatever the list says: Apache's own scripts need it.
    Listed(Vec<String>),
}

/// Source: `FourLetterCommands.isEnabled`.
const ALWAYS_ALLOWED: &str = "srvr";

impl Whitelist {
    /// Whether the word may be answered.
    pub fn allows(&self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(words) => word == ALWAYS_ALLOWED || words.iter().any(|listed| listed == word),
        }
    }
}

/// The JSON admin endpoint. Apache's default is on, at 8080. Ours is **off unless `admin.serverPort` stands in
/// the file**: several members on one machine are common here, and would collide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `admin.serverAddress` and `admin.serverPort`.
    pub listen: Endpoint,
    /// `admin.commandURL`.
    pub command_url: String,
}

/// The Prometheus text endpoint: on when `metricsProvider.className` is Apache's Prometheus provider, or when
/// `zoometry.metricsPort` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `metricsProvider.httpHost` and `metricsProvider.httpPort`, or `zoometry.metricsPort`.
    pub listen: Endpoint,
    /// `metricsProvider.exportJvmInfo`: here, the `process_*` families.
    pub export_process_info: bool,
}

/// Alone, or a member of an ensemble.
#[derive(Debug, Clone, PartialEq)]
pub enum Ensemble {
    /// One server, no peers.
    Standalone {
        /// The id of the one server line if there is one, otherwise 0. For names; `conf` shows 0, as Apache's.
        server_id: u64,
    },
    /// A member among others.
    Member(Box<Membership>),
}

/// What a member of an ensemble knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// This server: the number in `myid`.
    pub my_id: u64,
    /// Every server line, by id; this server's too.
    pub members: BTreeMap<u64, Member>,
    /// `group.G=…`: ids by group; empty for plain majorities.
    pub groups: BTreeMap<u64, Vec<u64>>,
    /// `weight.N`; a member that is not listed weighs 1.
    pub weights: BTreeMap<u64, u64>,
    /// Version of the configuration (a zxid); 0 for a static file.
    pub version: i64,
    /// `initLimit`, ticks.
    pub init_limit: u32,
    /// `syncLimit`, ticks.
    pub sync_limit: u32,
    /// `connectToLearnerMasterLimit`, ticks; 0 means initLimit.
    pub connect_limit: u32,
    /// `leaderServes`: whether the leader takes clients.
    pub leader_serves: bool,
    /// `quorumListenOnAllIPs`.
    pub listen_on_all: bool,
    /// `cnxTimeout`, ms: opening an election connection.
    pub connect_timeout_ms: u64,
    /// `fastleader.minNotificationInterval`, ms.
    pub min_notification_ms: u64,
    /// `fastleader.maxNotificationInterval`, ms.
    pub max_notification_ms: u64,
    /// `observerMasterPort`; `None` (0) is off.
    pub observer_master_port: Option<u16>,
    /// `reconfigEnabled`.
    pub reconfig_enabled: bool,
    /// `standaloneEnabled`.
    pub standalone_enabled: bool,
    /// `dynamicConfigFile`, if the server lines came from one.
    pub dynamic_config_file: Option<PathBuf>,
}

impl Membership {
    /// This server's own line.
    pub fn me(&self) -> &Member {
        &self.members[&self.my_id]
    }

    /// The configuration as notifications and NEWLEADER carry it: server lines and the version, no newline
    /// at the end.
    pub fn text(&self) -> String {
        let lines: String =
            self.members.values().map(|member| format!("server.{}={member}\n", member.id)).collect();
        format!("{lines}version={:x}", self.version)
    }

    /// Those who vote, by id.
    pub fn participants(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role == MemberRole::Participant)
    }
}

/// Keys of our own; [`OWN_KEYS`] is the table with their documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// `zoometry.workerThreads`; `None` is one per core.
    pub worker_threads: Option<usize>,
    /// `zoometry.traceFile`: kept traces are appended here as OTLP/JSON lines.
    pub trace_file: Option<PathBuf>,
    /// `zoometry.traceSample`: the share of requests traced at the head, 0 to 1.
    pub trace_sample: f64,
    /// `zoometry.traceSlowest`: so many of the slowest requests of every second are kept; 0 is off.
    pub trace_slowest: usize,
    /// `zoometry.traceParent`: the SERVER span names the client's span as its parent.
    pub trace_parent: bool,
    /// `zoometry.traceSalt`: mixed into every trace id.
    pub trace_salt: u64,
    /// `zoometry.traceSlowMs`: a request slower than this is kept whatever the sample says; `None` is off.
    pub trace_slow_ms: Option<f64>,
    /// `zoometry.serviceName`: `service.name` of this member's spans; `None` is `zookeeper-<server id>`.
    pub service_name: Option<String>,
    /// `zoometry.metricsPort`: the Prometheus endpoint without naming Apache's provider class.
    pub metrics_port: Option<u16>,
    /// `zoometry.maxOutboxBytes`: a connection whose unread replies and events pass this is closed.
    pub max_outbox_bytes: usize,
    /// `zoometry.maxReplyBytes`: the longest reply to one read.
    pub max_reply_bytes: usize,
    /// `zoometry.maxUnsentBytes`: what all connections together hold of replies, events and requests.
    pub max_unsent_bytes: usize,
    /// `zoometry.maxPipelined`: requests of one connection in process before reading from it pauses.
    pub max_pipelined: usize,
    /// `zoometry.leaderSilenceMs`: the longest silence between leader and followers; `None` is
    /// tickTime × syncLimit.
    pub leader_silence_ms: Option<u64>,
    /// `zoometry.acceptDamagedLog`: go on without transactions that recovery finds missing.
    pub accept_damaged_log: bool,
    /// `zoometry.syncDelayFile`: how many milliseconds longer each sync takes stands in this file.
    pub sync_delay_file: Option<PathBuf>,
    /// `zoometry.log`: what to log, in tracing-subscriber's filter language.
    pub log: String,
}

/// Why a configuration was refused. The text is one paragraph: place, key, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; `None` when no line is to blame (a missing key, an unreadable file).
    pub line: Option<usize>,
    /// The key, if one is to blame.
    pub key: Option<String>,
    /// What is wrong, what was expected, what to do.
    pub problem: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": ")?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file and the files that it names.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.to_path_buf(),
            line: None,
            key: None,
            problem: format!(
                "cannot be read ({error}); give the path of a readable zoo.cfg: zoometry-server <zoo.cfg>"
            ),
        })?;
        Self::parse_with(&text, path, &mut |file| std::fs::read_to_string(file))
    }

    /// Reads the text alone; every other file that it names counts as missing. For standalone configurations.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::parse_with(text, path.as_ref(), &mut |_| Err(std::io::ErrorKind::NotFound.into()))
    }

    /// Reads the text; `read_file` gives the contents of `myid` and of the dynamic file when they are asked for.
    pub fn parse_with(
        text: &str,
        path: &Path,
        read_file: &mut dyn FnMut(&Path) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        read::read(text, path, read_file)
    }

    /// The server id that session ids carry in their top byte: `myid`, and 1 for a standalone server.
    /// Source: `ZooKeeperServer.createSessionTrackerServerId`.
    pub fn session_server_id(&self) -> u64 {
        match &self.ensemble {
            Ensemble::Standalone { .. } => 1,
            Ensemble::Member(membership) => membership.my_id,
        }
    }

    /// Where snapshots are: `dataDir/version-2`.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.data_dir.join("version-2")
    }

    /// Where transaction logs are: `dataLogDir/version-2`.
    pub fn log_dir(&self) -> PathBuf {
        self.data_log_dir.join("version-2")
    }
}
