//! What a ZooKeeper is: the tree and its rules, pure.
//!
//! [`Store`] is the committed state of one member: znodes, ACLs, sessions, quotas, watches. It changes through
//! [`Store::apply`] alone, which recovery, synchronisation and broadcast share, and it is read through
//! [`Store::read`]. [`Prep`] turns a request into the transaction that the store will apply, looking at the
//! store and at what is proposed but not yet applied.
//!
//! No I/O, no clock, no randomness: times and zxids come with the transactions, the hash seed from outside.

pub mod acl;
pub mod digest;
pub mod prep;
pub mod quota;
pub mod session;
pub mod tree;
pub mod watch;

pub use prep::{Asked, Prep};

use crate::storage::snapshot::{SnapshotItem, SnapshotNode};
use watch::{WatchSink, WatchTable, WatcherId};
use zoometry_wire::records::WatcherEvent;
use zoometry_wire::{ErrorCode, Id, Request, Response, SessionId, TxnRecord, Zxid};

/// What a member's store is allowed to do. The values that decide what a transaction means
/// (`extended_types`) must be the same on every member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// TTL znodes (`zookeeper.extendedTypesEnabled`).
    pub extended_types: bool,
    /// Keep the tree's digest and attach it to transactions (`zookeeper.digest.enabled`).
    pub digest: bool,
    /// Nobody is refused anything (`zookeeper.skipACL`).
    pub skip_acl: bool,
    /// Hard quotas refuse (`zookeeper.enforceQuota`).
    pub enforce_quota: bool,
    /// reconfig is answered otherwise than with ReconfigDisabled (`reconfigEnabled`).
    pub reconfig: bool,
    /// The digest identity that may do everything (`zookeeper.DigestAuthenticationProvider.superDigest`).
    pub super_digest: Option<String>,
    /// Seeds the index of paths: unknown to clients, so that they cannot choose paths that collide.
    pub hash_seed: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            extended_types: false,
            digest: true,
            skip_acl: false,
            enforce_quota: false,
            reconfig: false,
            super_digest: None,
            hash_seed: 0,
        }
    }
}

/// Who asks: identities of the connection, the session, and the name its watches go by.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The session.
    pub session: SessionId,
    /// The connection.
    pub watcher: WatcherId,
    /// The connection's identities.
    pub ids: &'a [Id],
}

/// The committed state of one member.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    watches: WatchTable,
    last_zxid: Zxid,
}

/// How far a snapshot has come; see [`Store::walk`].
#[derive(Debug, Clone, Default)]
pub struct Walk {}

impl Store {
    /// An empty tree with /zookeeper, /zookeeper/quota and /zookeeper/config.
    pub fn new(config: StoreConfig) -> Self {
        let watches = WatchTable::new(config.hash_seed);
        Self { config, watches, last_zxid: Zxid(0) }
    }

    /// The tree of a snapshot whose file is named by `zxid`; the log behind it must still be applied.
    pub fn load<E>(
        config: StoreConfig,
        items: impl Iterator<Item = Result<SnapshotItem, E>>,
        zxid: Zxid,
    ) -> Result<Self, E> {
        for item in items {
            item?;
        }
        Ok(Self { last_zxid: zxid, ..Self::new(config) })
    }

    /// The last transaction applied.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The configuration.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The tree's digest (reference §9.6); 0 when digests are off.
    pub fn digest(&self) -> u64 {
        0
    }

    /// Znodes as `srvr` and `mntr` count them: the root twice, so a fresh server has 5.
    pub fn node_count(&self) -> usize {
        0
    }

    /// Znodes that belong to sessions.
    pub fn ephemerals_count(&self) -> usize {
        0
    }

    /// Bytes of paths and data (`approximate_data_size`).
    pub fn approximate_data_size(&self) -> usize {
        0
    }

    /// The sessions and their timeouts (ms), in order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        std::iter::empty()
    }

    /// Whether the session exists in the committed state.
    pub fn has_session(&self, _session: SessionId) -> bool {
        false
    }

    /// The ephemerals by session, both in order; for `dump`.
    pub fn ephemerals(&self) -> impl Iterator<Item = (SessionId, Vec<&str>)> + '_ {
        std::iter::empty()
    }

    /// The watches; reads under a shared lock leave theirs here.
    pub fn watches(&self) -> &WatchTable {
        &self.watches
    }

    /// Applies a transaction; the one path for recovery, synchronisation and broadcast. Fires watches into
    /// `sink` before it returns. Returns what the client that asked is answered.
    ///
    /// A transaction at or below [`last_zxid`](Self::last_zxid) may be applied again; so may those that a
    /// fuzzy snapshot already holds (reference §9.5): the end is the same.
    pub fn apply(&mut self, record: &TxnRecord, _sink: &mut dyn WatchSink) -> Result<Response, ErrorCode> {
        self.last_zxid = self.last_zxid.max(record.header.zxid);
        Err(ErrorCode::SystemError)
    }

    /// Answers a read and leaves its watch. `catch_up` receives what setWatches finds missed; these events
    /// are sent before the reply. Writes, ping, auth and sasl are not answered here (Unimplemented).
    pub fn read(
        &self,
        _request: &Request,
        _caller: &Caller<'_>,
        _catch_up: &mut Vec<WatcherEvent>,
    ) -> Result<Response, ErrorCode> {
        Err(ErrorCode::SystemError)
    }

    /// What stands at the head of a snapshot: the sessions, then the ACL table.
    pub fn snapshot_head(&self) -> Vec<SnapshotItem> {
        Vec::new()
    }

    /// Starts a walk over the znodes that exist now.
    pub fn start_walk(&self) -> Walk {
        Walk {}
    }

    /// Emits up to `budget` znodes, parents before children, and says whether there are more. Writes may be
    /// applied between two calls: znodes that come after the start are left out (replay brings them), znodes
    /// that go before their turn are left out too.
    pub fn walk(&self, _walk: &mut Walk, _budget: usize, _emit: &mut dyn FnMut(SnapshotNode)) -> bool {
        false
    }

    /// Containers and TTL znodes due for deletion at `now_ms` (wall clock), in the order of their paths, at
    /// most `limit`. `max_never_used_ms` > 0 also takes containers that never had a child for that long.
    /// Ask for each with [`Request::DeleteContainer`] of session 0.
    pub fn expired_nodes(&self, _now_ms: i64, _max_never_used_ms: i64, _limit: usize) -> Vec<String> {
        Vec::new()
    }

    /// Deletes ephemerals whose session is not known, as a leader or standalone server does when it starts
    /// (reference §6): without a transaction, before it takes its first snapshot. Returns how many.
    pub fn drop_dead_ephemerals(&mut self) -> usize {
        0
    }
}
