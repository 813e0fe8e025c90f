//! What four-letter words, metrics and the admin endpoint may ask of the member. The node implements
//! [`Inspect`]; nothing here knows how.
//!
//! Every method returns plain, owned values and must not wait: what takes the tree's lock takes it once.

use std::collections::BTreeMap;

use zoometry_wire::{SessionId, Zxid};

use crate::stats::ConnView;

/// What the server is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Alone.
    Standalone,
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It follows without a vote.
    Observer,
    /// Cut off from the quorum, answering reads of read-only clients.
    ReadOnly,
}

impl Mode {
    /// Whether it learns what a leader decides.
    pub fn is_learner(self) -> bool {
        matches!(self, Self::Follower | Self::Observer)
    }

    /// As `srvr` and `mntr` show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::ReadOnly => "read-only",
        }
    }
}

/// Watches, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchTotals {
    /// Connections with a data, exist or persistent watch.
    pub connections: u64,
    /// Paths that they watch.
    pub paths: u64,
    /// Pairs of connection and path in that table.
    pub data: u64,
    /// Pairs of connection and path among child watches.
    pub child: u64,
}

/// Gauges of a serving member.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What it is.
    pub mode: Mode,
    /// Last zxid applied.
    pub last_zxid: Zxid,
    /// znodes, `/` and `/zookeeper` included.
    pub node_count: u64,
    /// Ephemeral znodes.
    pub ephemerals: u64,
    /// Bytes of paths and data.
    pub approximate_data_size: u64,
    /// Watches.
    pub watches: WatchTotals,
    /// Sessions known to the whole ensemble.
    pub global_sessions: u64,
    /// Sessions of this server only.
    pub local_sessions: u64,
    /// Transactions waiting for the disk now.
    pub disk_queue: u64,
    /// Bytes of unread replies and events and of unanswered requests, of all client connections together.
    pub unsent_bytes: u64,
    /// Present in an ensemble.
    pub ensemble: Option<EnsembleFacts>,
}

/// Gauges that only a member of an ensemble has.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleFacts {
    /// As `mntr` shows it: `following - broadcast`, `leading - broadcast`, `observing - broadcast`, …
    pub peer_state: String,
    /// Voting members.
    pub quorum_size: u64,
    /// Id of the member that leads, if there is one.
    pub leader_id: Option<u64>,
    /// Id of the server that an observer follows, if it is not the leader.
    pub observer_master_id: Option<u64>,
    /// Present on the leader.
    pub leader: Option<LeaderFacts>,
}

/// Gauges of a leader.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeaderFacts {
    /// Connected learners.
    pub learners: u64,
    /// Followers in sync.
    pub synced_followers: u64,
    /// Followers in sync that have no vote yet.
    pub synced_non_voting_followers: u64,
    /// Observers in sync.
    pub synced_observers: u64,
    /// `sync` requests waiting.
    pub pending_syncs: u64,
    /// ms since it began to lead.
    pub uptime_ms: u64,
    /// Bytes of the last proposal; −1 for none.
    pub last_proposal_size: i64,
    /// Bytes of the least.
    pub min_proposal_size: i64,
    /// Bytes of the greatest.
    pub max_proposal_size: i64,
}

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// The negotiated timeout.
    pub timeout_ms: i32,
    /// When it expires unless heard of, ms since the Unix epoch; the end of its tick.
    pub expires_ms: i64,
}

/// How much of what there may be very much of is listed for operators, bytes of text: sessions, ephemerals, watches.
/// Their lists are made under locks that every request needs.
pub const LISTING_BYTES_MAX: usize = 8 << 20;

/// A list, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing<T> {
    /// What is in it.
    pub listed: T,
    /// How much is not ([`LISTING_BYTES_MAX`]).
    pub left_out: usize,
}

impl<T> Listing<T> {
    /// What is said behind a list that is not whole.
    pub fn note(&self) -> String {
        match self.left_out {
            0 => String::new(),
            more => format!("... and {more} more: at most {LISTING_BYTES_MAX} bytes are listed\n"),
        }
    }
}

/// What the operator's interfaces see of the member.
pub trait Inspect: Send + Sync {
    /// The gauges; `None` while the member does not serve (starting, or looking for a leader).
    fn facts(&self) -> Option<Facts>;

    /// Every open client connection, in no order. The one that asks is among them.
    fn connections(&self) -> Vec<ConnView>;

    /// `crst`.
    fn reset_connections(&self);

    /// Every session, in no order.
    fn sessions(&self) -> Listing<Vec<SessionView>>;

    /// Ephemeral znodes by session.
    fn ephemerals(&self) -> Listing<BTreeMap<SessionId, Vec<String>>>;

    /// Sessions that watch each path (data manager: data, exist and persistent watches).
    fn watches_by_path(&self) -> Listing<BTreeMap<String, Vec<SessionId>>>;

    /// Tree digests kept, oldest first, each with its zxid.
    fn digests(&self) -> Vec<(Zxid, u64)>;
}
