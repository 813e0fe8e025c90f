//! Names of attributes, each written once. OpenTelemetry semantic conventions 1.44; `zookeeper.` is ours,
//! because the registry has no entry for ZooKeeper.

/// The conventions that the standard names are taken from.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// The instrumentation scope of every span.
pub const SCOPE: &str = "zookeeper";

/// Always `zookeeper`, on client spans.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// `setData`.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// How many operations a multi holds.
pub const DB_OPERATION_BATCH_SIZE: &str = "db.operation.batch.size";
/// The error code's number, as text.
pub const DB_RESPONSE_STATUS_CODE: &str = "db.response.status_code";
/// Always `zookeeper`, on server spans.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// `setData`, on server spans.
pub const RPC_METHOD: &str = "rpc.method";
/// The error code's number, as text, on server spans.
pub const RPC_STATUS_CODE: &str = "rpc.status_code";
/// The error's name: `NODEEXISTS`.
pub const ERROR_TYPE: &str = "error.type";
/// Host that the client speaks to.
pub const SERVER_ADDRESS: &str = "server.address";
/// Port that the client speaks to.
pub const SERVER_PORT: &str = "server.port";
/// The asking client's address.
pub const CLIENT_ADDRESS: &str = "client.address";

/// The session, in hex.
pub const SESSION_ID: &str = "zookeeper.session.id";
/// The request's xid.
pub const CXID: &str = "zookeeper.cxid";
/// The transaction, in hex.
pub const ZXID: &str = "zookeeper.zxid";
/// Which leadership.
pub const EPOCH: &str = "zookeeper.epoch";
/// The member's myid.
pub const SERVER_ID: &str = "zookeeper.server.id";
/// `standalone`, `leader`, `follower`, `observer`.
pub const SERVER_ROLE: &str = "zookeeper.server.role";
/// The first parts of the path, never all of a deep one.
pub const PATH_PREFIX: &str = "zookeeper.path.prefix";
/// How many watchers were told.
pub const WATCH_COUNT: &str = "zookeeper.watch.count";
/// How many transactions shared the fsync.
pub const LOG_BATCH_SIZE: &str = "zookeeper.txnlog.batch.size";
/// Whether a member's disk was done only after a quorum of others.
pub const QUORUM_LATE: &str = "zookeeper.quorum.late";
/// Why the trace is kept: `head`, `slow`, `error`.
pub const KEPT_BY: &str = "zookeeper.trace.kept_by";
/// The phase of the workload.
pub const PHASE: &str = "zoometry.phase";
/// The load generator's operation, as the workload names it.
pub const OPERATION: &str = "zoometry.op";
