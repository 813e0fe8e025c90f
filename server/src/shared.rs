//! What the tasks and threads of one member share.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use zoometry_replica::store::Store;
use zoometry_replica::store::acl::DigestScheme;
use zoometry_replica::store::session::SessionTracker;
use zoometry_replica::store::watch::WatcherId;
use zoometry_replica::zab::Following;
use zoometry_wire::{SessionId, Zxid};

use crate::config::Config;
use crate::conn::{Conn, Unsent};
use crate::disk::FileDisk;
use crate::disk_thread::DiskQueue;
use crate::node::NodeHandle;
use crate::stats::ServerStats;
use crate::telemetry::Tracer;
use crate::view::Mode;

/// Distance of the digests kept for `hash`, in zxids. Source: `DataTree.DIGEST_LOG_INTERVAL`.
pub const DIGEST_INTERVAL: i64 = 128;
/// How many are kept. Source: `DataTree.DIGEST_LOG_LIMIT`.
pub const DIGESTS_KEPT: usize = 1024;

/// One member's common ground. Lock order: the node's (see [`NodeHandle`]), `store`, then a connection's desk, then
/// `sessions`, then the tables inside `conns`.
#[derive(Debug)]
pub struct Shared {
    /// zoo.cfg.
    pub config: Config,
    /// The committed state. Written by the node alone.
    pub store: Arc<RwLock<Store>>,
    /// Who is alive.
    pub sessions: Mutex<SessionTracker>,
    /// Who is connected.
    pub conns: Conns,
    /// The way to the node.
    pub node: NodeHandle,
    /// Counters.
    pub stats: Arc<ServerStats>,
    /// The way to the disk's thread.
    pub disk: DiskQueue,
    /// Tree digests kept for `hash`, oldest first; see [`keep_digest`](Self::keep_digest).
    pub digests: Mutex<VecDeque<(Zxid, u64)>>,
    /// Which requests are traced.
    pub tracer: Tracer,
    /// The data directories.
    pub files: FileDisk,
    /// What this member is to its clients: see [`mode`](Self::mode).
    pub part: Part,
    /// How the ensemble stands, as the node last saw it.
    pub standing: Mutex<Standing>,
}

/// What a member is to its clients, readable by every task without a lock.
#[derive(Debug)]
pub struct Part(AtomicU8);

impl Part {
    const MODES: [Option<Mode>; 6] = [
        None,
        Some(Mode::Standalone),
        Some(Mode::Leader),
        Some(Mode::Follower),
        Some(Mode::Observer),
        Some(Mode::ReadOnly),
    ];

    /// A part to begin with.
    pub fn new(mode: Option<Mode>) -> Self {
        let part = Self(AtomicU8::new(0));
        part.set(mode);
        part
    }

    fn set(&self, mode: Option<Mode>) {
        let index = Self::MODES.iter().position(|known| *known == mode).unwrap_or_default();
        self.0.store(index as u8, Ordering::Release);
    }

    fn get(&self) -> Option<Mode> {
        Self::MODES[usize::from(self.0.load(Ordering::Acquire))]
    }
}

/// How the ensemble stands, for operators.
#[derive(Debug, Default)]
pub struct Standing {
    /// On a leader: who follows.
    pub following: Option<Following>,
    /// On a leader: since when, ms on the process's clock.
    pub leading_since_ms: u64,
    /// On a leader: the sizes of its proposals, once there was one.
    pub proposals: Option<ProposalSizes>,
    /// On a learner: who leads it.
    pub follows: Option<u64>,
}

/// Bytes of proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalSizes {
    /// The last one's.
    pub last: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

impl ProposalSizes {
    /// One more.
    pub fn note(seen: &mut Option<Self>, bytes: i64) {
        *seen = Some(match *seen {
            None => Self { last: bytes, min: bytes, max: bytes },
            Some(Self { min, max, .. }) => Self { last: bytes, min: min.min(bytes), max: max.max(bytes) },
        });
    }
}

impl Shared {
    /// What this member is to its clients; `None` while it has no leader and serves nobody.
    pub fn mode(&self) -> Option<Mode> {
        self.part.get()
    }

    /// Called by the node alone.
    pub fn set_mode(&self, mode: Option<Mode>) {
        self.part.set(mode);
    }

    /// How clients authenticate by user and password.
    pub fn digest_scheme(&self) -> DigestScheme<'_> {
        let auth = &self.config.auth;
        DigestScheme {
            enabled: auth.digest_enabled,
            algorithm: auth.digest_algorithm,
            super_digest: auth.super_digest.as_deref(),
        }
    }

    /// Remembers the tree's digest at every zxid that [`DIGEST_INTERVAL`] divides, at most [`DIGESTS_KEPT`]: the
    /// same zxids on every member, so that they can be compared. To be called behind every transaction.
    pub fn keep_digest(&self, store: &Store) {
        let zxid = store.last_zxid();
        if zxid.0 % DIGEST_INTERVAL != 0 {
            return;
        }
        let mut digests = self.digests.lock();
        // What was cut off, or replaced by a leader's state, is not this member's history any more.
        while digests.back().is_some_and(|(last, _)| *last >= zxid) {
            digests.pop_back();
        }
        if digests.len() == DIGESTS_KEPT {
            digests.pop_front();
        }
        digests.push_back((zxid, store.digest()));
    }
}

/// The connections, by name, by session and by address.
#[derive(Debug)]
pub struct Conns {
    next: AtomicU64,
    unsent: Arc<Unsent>,
    by_id: Mutex<FxHashMap<WatcherId, Arc<Conn>>>,
    by_session: Mutex<FxHashMap<SessionId, Arc<Conn>>>,
    by_ip: Mutex<FxHashMap<IpAddr, usize>>,
}

/// How many connections there may be; `usize::MAX` is any number.
#[derive(Debug, Clone, Copy)]
pub struct ConnLimits {
    /// `maxClientCnxns`: of one address.
    pub per_address: usize,
    /// `maxCnxns`: of all.
    pub total: usize,
    /// How many can be served with the file descriptors that there are; see [`crate::descriptors`].
    pub descriptors: usize,
}

impl ConnLimits {
    /// Any number.
    pub const NONE: Self = Self { per_address: usize::MAX, total: usize::MAX, descriptors: usize::MAX };
}

/// Why a connection was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `maxClientCnxns` of one address are connected.
    #[error("its address has {0} connections already (maxClientCnxns)")]
    PerAddress(usize),
    /// `maxCnxns` are connected.
    #[error("{0} clients are connected already (maxCnxns)")]
    Total(usize),
    /// As many are connected as file descriptors can be spared.
    #[error(
        "{0} clients are connected already, and the file descriptors that are left are kept for the log, snapshots, \
         peers and operators (raise the hard limit, `ulimit -Hn`)"
    )]
    Descriptors(usize),
}

impl Conns {
    /// Nobody yet; `max_unsent_bytes` for what they may hold together.
    pub fn new(max_unsent_bytes: usize) -> Self {
        Self {
            next: AtomicU64::default(),
            unsent: Arc::new(Unsent::new(max_unsent_bytes)),
            by_id: Mutex::default(),
            by_session: Mutex::default(),
            by_ip: Mutex::default(),
        }
    }

    /// What they hold together.
    pub fn unsent(&self) -> &Arc<Unsent> {
        &self.unsent
    }

    /// If they hold too much together: closes those that hold more than their share.
    pub fn limit_unsent(&self) {
        if !self.unsent.is_over() {
            return;
        }
        for conn in self.all() {
            if conn.desk().give_way() {
                conn.wake();
            }
        }
    }

    /// A name for a new connection.
    pub fn next_id(&self) -> WatcherId {
        WatcherId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a connection in, unless its address or the member has as many as it may have.
    pub fn admit(&self, conn: &Arc<Conn>, limits: ConnLimits) -> Result<(), Refused> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= limits.total {
            return Err(Refused::Total(by_id.len()));
        }
        if by_id.len() >= limits.descriptors {
            return Err(Refused::Descriptors(by_id.len()));
        }
        let mut by_ip = self.by_ip.lock();
        if by_ip.get(&conn.peer.ip()).is_some_and(|count| *count >= limits.per_address) {
            return Err(Refused::PerAddress(limits.per_address));
        }
        let count = by_ip.entry(conn.peer.ip()).or_default();
        *count += 1;
        by_id.insert(conn.id, Arc::clone(conn));
        Ok(())
    }

    /// The connection has ended.
    pub fn release(&self, conn: &Conn) {
        self.by_id.lock().remove(&conn.id);
        if let Entry::Occupied(mut count) = self.by_ip.lock().entry(conn.peer.ip()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let session = conn.desk().session;
        if let Entry::Occupied(own) = self.by_session.lock().entry(session)
            && own.get().id == conn.id
        {
            own.remove();
        }
    }

    /// The session is on this connection now. Returns the one it was on before, which has to close.
    pub fn attach(&self, session: SessionId, conn: &Arc<Conn>) -> Option<Arc<Conn>> {
        self.by_session.lock().insert(session, Arc::clone(conn)).filter(|old| old.id != conn.id)
    }

    /// The connection that a session is on.
    pub fn of_session(&self, session: SessionId) -> Option<Arc<Conn>> {
        self.by_session.lock().get(&session).cloned()
    }

    /// The connection of a session that is over.
    pub fn take_session(&self, session: SessionId) -> Option<Arc<Conn>> {
        self.by_session.lock().remove(&session)
    }

    /// Calls `f` for each of these connections that is still there.
    pub fn each(&self, ids: &[WatcherId], mut f: impl FnMut(&Arc<Conn>)) {
        let by_id = self.by_id.lock();
        for conn in ids.iter().filter_map(|id| by_id.get(id)) {
            f(conn);
        }
    }

    /// All connections, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<_> = self.by_id.lock().values().cloned().collect();
        all.sort_unstable_by_key(|conn| conn.id);
        all
    }

    /// Connections now.
    pub fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
