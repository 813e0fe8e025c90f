//! What a ZooKeeper is: the tree and its rules, pure.
//!
//! [`Store`] is the committed state of one member: znodes, ACLs, sessions, quotas, watches. It changes through
//! [`Store::apply`] alone, which recovery, synchronisation and broadcast share, and it is read through
//! [`Store::read`]. [`Prep`] turns a request into the transaction that the store will apply, looking at the
//! store and at what is proposed but not yet applied.
//!
//! No I/O, no clock, no randomness: times and zxids come with the transactions, the hash seed from outside.

pub mod acl;
mod acl_table;
mod apply;
pub mod digest;
mod node_path;
mod overlay;
pub mod owner;
mod path_hash;
pub mod prep;
pub mod quota;
mod read;
pub mod session;
mod tree;
mod walk;
pub mod watch;

#[cfg(test)]
mod tests;

pub use prep::{Asked, Prep};
pub use read::Answer;
pub use walk::{LoadError, Walk};

use std::collections::BTreeMap;

use bytes::Bytes;
use owner::Owner;
use quota::QuotaPaths;
use tree::{Node, Tree};
use watch::{WatchTable, WatcherId};
use zoometry_wire::frame::DEFAULT_MAX_FRAME;
use zoometry_wire::txn::TxnHeader;
use zoometry_wire::{Id, SessionId, Zxid};

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
    /// The longest transaction that is made, bytes of its payload: at most [`TXN_BYTES_MAX`], and what every peer
    /// takes and every restart reads. Apache's reads `jute.maxbuffer` + `jute.maxbuffer.extrasize`.
    pub txn_bytes_max: usize,
    /// The longest reply to one read, bytes; a longer one (a list of very many children) is refused with
    /// MarshallingError. Apache's server sends any, and its clients refuse what is above their `jute.maxbuffer`.
    pub reply_bytes_max: usize,
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
            txn_bytes_max: TXN_BYTES_DEFAULT,
            reply_bytes_max: REPLY_BYTES_DEFAULT,
            hash_seed: 0,
        }
    }
}

impl StoreConfig {
    /// The longest reply to many reads in one, bytes: what Apache's clients take by default, several times, or what
    /// an ensemble set up for longer frames is meant to carry. What does not go in is answered with an error.
    pub fn multi_read_bytes_max(&self) -> usize {
        self.txn_bytes_max.max(MULTI_READ_BYTES).min(self.reply_bytes_max)
    }
}

/// Four times the longest frame that Apache's clients take by default.
const MULTI_READ_BYTES: usize = 4 << 20;

/// The longest reply to one read, unless configured.
pub const REPLY_BYTES_DEFAULT: usize = 64 << 20;

/// What Apache's servers read with their defaults: twice `jute.maxbuffer`. Source: `BinaryInputArchive.checkLength`.
pub const TXN_BYTES_DEFAULT: usize = 2 * DEFAULT_MAX_FRAME;

/// No transaction is longer than this, whatever the configuration says: queues and links have to hold some, and
/// snapshots are read with limits as well.
pub const TXN_BYTES_MAX: usize = 32 << 20;

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
    tree: Tree,
    quotas: QuotaPaths,
    sessions: BTreeMap<SessionId, i32>,
    watches: WatchTable,
    last_zxid: Zxid,
    /// Digests that come with transactions are worth comparing.
    digest_settled: bool,
    digest_mismatches: u64,
    /// What the last comparison has shown.
    digest_agrees: Option<bool>,
}

impl Store {
    /// An empty tree with /zookeeper, /zookeeper/quota and /zookeeper/config.
    pub fn new(config: StoreConfig) -> Self {
        let mut store = Self::bare(config);
        store.add_system_nodes();
        store
    }

    /// The root alone.
    fn bare(config: StoreConfig) -> Self {
        Self {
            tree: Tree::new(config.extended_types, config.digest, config.hash_seed),
            quotas: QuotaPaths::default(),
            sessions: BTreeMap::new(),
            watches: WatchTable::new(config.hash_seed),
            last_zxid: Zxid(0),
            digest_settled: true,
            digest_mismatches: 0,
            digest_agrees: None,
            config,
        }
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
        self.tree.digest()
    }

    /// Transactions whose digest was not the tree's after they were applied (`digest_mismatches_count`).
    pub fn digest_mismatches(&self) -> u64 {
        self.digest_mismatches
    }

    /// Whether the digest that came with the last transaction that had one was the tree's; `None` while there was
    /// nothing to compare with.
    pub fn digest_agrees(&self) -> Option<bool> {
        self.digest_agrees
    }

    /// Znodes as `srvr` and `mntr` count them: the root twice, so a fresh server has 5.
    pub fn node_count(&self) -> usize {
        self.tree.len() + 1
    }

    /// Znodes that belong to sessions.
    pub fn ephemerals_count(&self) -> usize {
        self.tree.ephemerals_count()
    }

    /// Bytes of paths and data (`approximate_data_size`).
    pub fn approximate_data_size(&self) -> usize {
        self.tree.data_size()
    }

    /// The sessions and their timeouts (ms), in order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        self.sessions.iter().map(|(session, timeout_ms)| (*session, *timeout_ms))
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the session exists in the committed state.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The ephemerals by session, both in order.
    pub fn ephemerals(&self) -> impl Iterator<Item = (SessionId, Vec<&str>)> + '_ {
        self.tree.owning_sessions().map(|session| (session, self.tree.ephemerals_of(session)))
    }

    /// As [`ephemerals`](Self::ephemerals), but of many only some: what takes `most_bytes` as text.
    pub fn some_ephemerals(&self, most_bytes: usize) -> BTreeMap<SessionId, Vec<String>> {
        let mut left = most_bytes;
        let mut some: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
        for (session, path) in self.tree.ephemerals() {
            match left.checked_sub(path.len() + 2) {
                Some(rest) => left = rest,
                None => break,
            }
            some.entry(session).or_default().push(path.to_string());
        }
        some.values_mut().for_each(|paths| paths.sort_unstable());
        some
    }

    /// Sessions that own ephemerals, in order.
    pub fn owning_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.tree.owning_sessions()
    }

    /// One session's ephemerals, in order.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = &str> + '_ {
        self.tree.ephemerals_of(session).into_iter()
    }

    /// The watches; reads under a shared lock leave theirs here.
    pub fn watches(&self) -> &WatchTable {
        &self.watches
    }

    /// Containers and TTL znodes due for deletion at `now_ms` (wall clock), at most `limit`.
    /// `max_never_used_ms` above 0 also takes containers that never had a child for that long. Ask for each
    /// with [`Request::DeleteContainer`](zoometry_wire::Request::DeleteContainer) of session 0; whether it is
    /// still due is looked at again then.
    pub fn expired_nodes(&self, now_ms: i64, max_never_used_ms: i64, limit: usize) -> Vec<String> {
        let unused = |node: &&Node| {
            node.children.is_empty()
                && (node.stat.cversion != 0
                    || max_never_used_ms > 0 && now_ms.saturating_sub(node.stat.mtime) > max_never_used_ms)
        };
        let expired = |node: &&Node| {
            node.children.is_empty() && is_expired(self.tree.owner(&node.stat), node.stat.mtime, now_ms)
        };
        let due = self.tree.containers().filter(unused).chain(self.tree.ttls().filter(expired));
        due.take(limit).map(|node| node.path.to_string()).collect()
    }

    /// Writes the ensemble's configuration to /zookeeper/config, where clients look it up. Every member does this for
    /// itself, without a transaction, before it serves anybody; so nobody can watch yet. `version` is the
    /// configuration's. Source: `ZKDatabase.initConfigInZKDatabase`; reference §3.9.
    pub fn show_ensemble(&mut self, text: &str, version: Zxid, time_ms: i64) {
        let Some(id) = self.tree.find(CONFIG_NODE) else { return };
        self.tree.change_data(id, Some(Bytes::copy_from_slice(text.as_bytes())));
        self.tree.change_stat(id, |stat| {
            stat.version = -1;
            stat.mzxid = version;
            stat.mtime = time_ms;
        });
    }

    /// Deletes ephemerals whose session is not known, as a leader or standalone server does when it starts:
    /// without a transaction, before it takes its first snapshot (reference §6, §9.5). Returns how many.
    pub fn drop_dead_ephemerals(&mut self) -> usize {
        let dead: Vec<SessionId> =
            self.tree.owning_sessions().filter(|session| !self.has_session(*session)).collect();
        let paths: Vec<String> =
            dead.iter().flat_map(|session| self.ephemerals_of(*session)).map(str::to_string).collect();
        let header = TxnHeader { zxid: self.last_zxid, ..TxnHeader::default() };
        let deleted = paths.iter().filter(|path| self.delete(&header, path, &mut ()).is_ok());
        deleted.count()
    }
}

/// Whether one of a znode's counters at `one` is ahead of where it was at `other`. Counters wrap at 2^31, and two
/// values that are compared are less than 2^31 steps apart: the difference tells, not the magnitude.
fn is_newer(one: i32, other: i32) -> bool {
    one.wrapping_sub(other) > 0
}

/// A TTL counts from the last change of the data.
fn is_expired(owner: Owner, mtime_ms: i64, now_ms: i64) -> bool {
    matches!(owner, Owner::Ttl(ttl_ms) if now_ms.saturating_sub(mtime_ms) > ttl_ms)
}

/// Who is in the ensemble.
const CONFIG_NODE: &str = "/zookeeper/config";

/// Paths that cannot be deleted.
fn is_special(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | CONFIG_NODE)
}
