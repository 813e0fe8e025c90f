//! Peer links: the two ports on which members talk to each other, as events in and calls out.
//!
//! The consensus machine knows links as numbers and members as ids. Here those are sockets:
//!
//! - [`election`]: one connection between each pair of members, for votes. Only the newest vote waits.
//! - [`quorum`]: learners connect to the leader; streams of packets, and whole snapshots between them.
//!
//! Invariants. No call of [`Peers`] waits for the network: calls put bytes into an outbox or wake a task.
//! Events of one link are delivered in the order in which they happened, by one task at a time; the last one
//! is [`PeerEvent::Closed`], unless this side closed the link. A connection that says nothing, or says
//! nonsense, costs its own task and nothing else, and those that have not said who they are take the place of nobody who
//! has ([`hellos`]).
//!
//! What this does not do: it decides nothing. Who leads, who is too silent and who may follow is the
//! machine's to say (`zoometry_replica::zab`). It does not encrypt and does not authenticate: peers are who
//! they say they are, as with Apache's server without `quorum.auth` and `sslQuorum`.
//!
//! Sources: `QuorumCnxManager.java`, `Leader.java`, `LearnerHandler.java`, `Learner.java`; reference §8.1,
//! §8.4, §8.7.

mod address;
mod election;
mod hellos;
mod outbox;
mod quorum;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::watch;
use zoometry_replica::storage::log::LogRange;
use zoometry_replica::store::{Store, StoreConfig};
use zoometry_replica::zab::{Link, ServerId};
use zoometry_wire::peer::{Notification, QuorumPacket};

use crate::config::{Member, Membership};
use crate::disk::FileDisk;

/// What happens on the peer ports.
#[derive(Debug)]
pub enum PeerEvent {
    /// The election connection to a member has come up (true) or gone (false). A connection that takes an
    /// older one's place is reported as up again, without a word about the older one.
    Reachable(ServerId, bool),
    /// A member has told its vote.
    Vote(ServerId, Notification),
    /// A learner has connected to this member's quorum port and said who it is: its FOLLOWERINFO or OBSERVERINFO follows.
    Accepted(Link),
    /// What [`Peers::connect`] asked for.
    Connected(ServerId, Link),
    /// What [`Peers::connect`] asked for did not come about. Reported [`CONNECT_PAUSE`] after it failed.
    Unreachable(ServerId),
    /// Everything whole that one read has brought, in order; never empty. The data are slices of the read
    /// buffer: whoever keeps a small one for long keeps up to 64 KiB with it.
    Packets(Link, Vec<QuorumPacket>),
    /// A SNAP packet whose stream has been read whole, and the store it holds (at the packet's zxid).
    Snapshot(Link, QuorumPacket, Box<Store>),
    /// Ended by the other side, by an error or at a limit; not after [`Peers::close`].
    Closed(Link),
}

/// How long a failed [`Peers::connect`] is kept back before it is reported, so that who tries again at once
/// does not spin.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Unsent bytes at which a link on the quorum port is closed. A learner that is so far behind synchronises
/// anew, which costs less memory than waiting for it.
pub const LINK_OUTBOX_BYTES_MAX: usize = 256 << 20;

/// Batches of packets (of one read each, mostly up to 64 KiB) that may be delivered and not yet
/// [taken](Peers::taken).
pub const UNTAKEN_BATCHES_MAX: usize = 128;

/// What the links need to know.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// This member.
    pub my_id: ServerId,
    /// Every server line, this member's too.
    pub members: BTreeMap<u64, Member>,
    /// `quorumListenOnAllIPs`: both ports on every address of the machine.
    pub listen_on_all: bool,
    /// `cnxTimeout`, ms: opening an election connection.
    pub connect_timeout_ms: u64,
    /// Opening a connection to a leader's quorum port, ms: one try.
    pub quorum_connect_timeout_ms: u64,
    /// How long a connection on either port may take to say who it is, ms (tickTime × syncLimit).
    pub hello_timeout_ms: u64,
    /// Most bytes of data that a quorum packet may carry.
    pub packet_data_bytes_max: usize,
    /// Unsent bytes at which a link is closed; [`LINK_OUTBOX_BYTES_MAX`] except in tests.
    pub outbox_bytes_max: usize,
    /// For stores that arrive as snapshots.
    pub store: StoreConfig,
}

/// Most file descriptors that the links of an ensemble of so many members take.
pub fn descriptors_max(members: usize) -> u64 {
    // An accepted link has two, and one more while a part of the log is read for it.
    let quorum = hellos::HELLOS_WAITING_MAX + quorum::links_max(members) * 3;
    // A vote's connection may be opened while the old one is found dead.
    let election = hellos::HELLOS_WAITING_MAX + election::STRANGERS_MAX + 2 * members;
    (quorum + election) as u64
}

impl PeerOptions {
    /// From the configuration. `packet_data_bytes_max` should be well above `jute.maxbuffer`: a transaction
    /// is longer than the request it came from.
    pub fn new(
        membership: &Membership,
        tick_ms: u64,
        packet_data_bytes_max: usize,
        store: StoreConfig,
    ) -> Self {
        let limit =
            if membership.connect_limit > 0 { membership.connect_limit } else { membership.init_limit };
        Self {
            my_id: ServerId(membership.my_id as i64),
            members: membership.members.clone(),
            listen_on_all: membership.listen_on_all,
            connect_timeout_ms: membership.connect_timeout_ms,
            quorum_connect_timeout_ms: (tick_ms * u64::from(limit)).min(membership.connect_timeout_ms),
            hello_timeout_ms: tick_ms * u64::from(membership.sync_limit),
            packet_data_bytes_max,
            outbox_bytes_max: LINK_OUTBOX_BYTES_MAX,
            store,
        }
    }
}

/// What the tasks and the calls share.
struct Hub {
    options: PeerOptions,
    runtime: Handle,
    deliver: Box<dyn Fn(PeerEvent) + Send + Sync>,
    stop: watch::Sender<bool>,
    election: election::Election,
    links: quorum::Links,
}

impl Hub {
    /// Runs a task until it ends or the links are stopped.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => {}
                () = task => {}
            }
        });
    }

    fn deliver(&self, event: PeerEvent) {
        (self.deliver)(event);
    }

    /// A member's line; `None` for ids that no line has.
    fn member(&self, id: ServerId) -> Option<&Member> {
        u64::try_from(id.0).ok().and_then(|id| self.options.members.get(&id))
    }
}

/// The links to the other members. Clones are the same links; they live until [`stop`](Self::stop).
#[derive(Clone)]
pub struct Peers(Arc<Hub>);

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("my_id", &self.0.options.my_id).finish_non_exhaustive()
    }
}

impl Peers {
    /// Binds both ports and starts the tasks, on the runtime of the caller. The error names the port that
    /// cannot be had, and its key. `deliver` is called on those tasks. Packets it may deal with
    /// at once; everything else is sometimes delivered under a lock of theirs: it hands the event over and
    /// returns, and calls nothing here.
    pub async fn start(
        options: PeerOptions,
        deliver: impl Fn(PeerEvent) + Send + Sync + Clone + 'static,
    ) -> anyhow::Result<Self> {
        let listeners = address::listen(&options).await?;
        let hub = Arc::new(Hub {
            runtime: Handle::current(),
            deliver: Box::new(deliver),
            stop: watch::Sender::new(false),
            election: election::Election::new(&options),
            links: quorum::Links::default(),
            options,
        });
        for listener in listeners.election {
            hub.spawn(election::accept(Arc::clone(&hub), listener));
        }
        for listener in listeners.quorum {
            hub.spawn(quorum::accept(Arc::clone(&hub), listener));
        }
        Ok(Self(hub))
    }

    /// Tells a member this one's vote. Only the newest waits while there is no connection; the last one sent
    /// is sent again when a new connection comes up and nothing newer waits. Votes for ids that have neither
    /// a server line nor a connection are dropped.
    pub fn notify(&self, to: ServerId, vote: Notification) {
        election::notify(&self.0, to, &vote);
    }

    /// One [`PeerEvent::Vote`] of this member has been dealt with. With 100 of them outstanding it is not listened to:
    /// one that does nothing but vote must not fill the memory.
    pub fn heard(&self, from: ServerId) {
        election::heard(&self.0, from);
    }

    /// Connects to a member's quorum port: [`PeerEvent::Connected`] or [`PeerEvent::Unreachable`] follows.
    pub fn connect(&self, to: ServerId) {
        self.0.spawn(quorum::connect(Arc::clone(&self.0), to));
    }

    /// Puts a packet into the link's outbox. Nobody is woken: see [`flush`](Self::flush). A link that is gone
    /// takes nothing; its [`PeerEvent::Closed`] is on its way.
    pub fn send(&self, link: Link, packet: &QuorumPacket) {
        self.0.links.send(link, packet);
    }

    /// Sends the state as it is now behind everything sent so far (the SNAP packet was sent before); what is
    /// sent later goes behind it. The head and the beginning of the walk are taken before this returns, under
    /// the store's read lock: the caller may hold that too, but not the write lock. Until the snapshot is
    /// sent the store may change by transactions, but be replaced only after [`close`](Self::close).
    pub fn send_snapshot(&self, link: Link, store: Arc<RwLock<Store>>) {
        self.0.links.send_snapshot(link, store);
    }

    /// Sends these transactions, each as PROPOSAL and COMMIT, behind everything sent so far (the DIFF or TRUNC packet
    /// was sent before); what is sent later goes behind them. They are read as the socket takes them. Until they are
    /// sent the log may grow, but be cut only after [`close`](Self::close).
    pub fn send_log(&self, link: Link, range: LogRange<FileDisk>) {
        self.0.links.send_log(link, range);
    }

    /// Wakes the writers of the links that have something unsent.
    pub fn flush(&self) {
        self.0.links.flush();
    }

    /// Ends a link after what is in its outbox has been sent, or after [`CLOSE_LINGER`]. A snapshot that is
    /// not yet sent whole is broken off, and so is what is sent from the log: the store may be replaced and the log
    /// cut from now on. No
    /// [`PeerEvent::Closed`] follows, except one that is already on its way.
    pub fn close(&self, link: Link) {
        self.0.links.close(link);
    }

    /// The other end of a link; `None` when it is gone.
    pub fn address(&self, link: Link) -> Option<SocketAddr> {
        self.0.links.address(link)
    }

    /// The packets of one [`PeerEvent::Packets`] have been dealt with. With [`UNTAKEN_BATCHES_MAX`] of them
    /// outstanding a link is not read: its other end feels that its packets are not taken.
    pub fn taken(&self, link: Link) {
        self.0.links.taken(link);
    }

    /// Bytes that wait to be sent on a link, those included that are being written; 0 when it is gone.
    pub fn unsent_bytes(&self, link: Link) -> usize {
        self.0.links.unsent_bytes(link)
    }

    /// Bytes that have gone over a link in either direction; `None` when it is gone. While a snapshot is on
    /// its way no packet arrives and nothing is acknowledged, for as long as it takes: that this number grows
    /// is then the sign of life.
    pub fn moved_bytes(&self, link: Link) -> Option<u64> {
        self.0.links.moved_bytes(link)
    }

    /// Whether this side makes a store of a snapshot that has arrived on a link, and does not read on: the other side's
    /// silence means nothing then.
    pub fn loads(&self, link: Link) -> bool {
        self.0.links.loads(link)
    }

    /// Ends all tasks; no event follows. Both ports are free as soon as the tasks have ended, which is not
    /// waited for.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }
}

pub use outbox::CLOSE_LINGER;
