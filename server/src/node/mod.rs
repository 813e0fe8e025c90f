//! The node: the one place where writes become transactions and transactions become state.
//!
//! Every event that it works on is a [`NodeEvent`], one at a time, on a thread of its own or on that of whoever
//! brings it. What is to be done is thought out by
//! [`Member`](zoometry_replica::member::Member), which has no hands; the node performs its outputs in their
//! order: the log's through the disk's queue, those for other members through the peer links, commits here.
//! Alone, a write is committed when the disk has it; in an ensemble, when a quorum's disks have it. Preparing
//! goes on meanwhile, so a batch fills by itself.
//!
//! - this file: the events, what clients ask for, what time brings
//! - `door`: the queue of events, and the thread
//! - `commit`: applying transactions and answering who asked for them
//! - `ensemble`: the member's part, the peer links, synchronisation
//! - `catch_up`: learners that are far behind

mod catch_up;
mod commit;
mod door;
mod ensemble;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use zoometry_replica::member::{Asking, Member, Output, Submitted, Surroundings};
use zoometry_replica::store::Store;
use zoometry_replica::zab::{EpochKind, Event, Link};
use zoometry_wire::request::{PathVersion, SetDataRequest};
use zoometry_wire::{Id, Request, SessionId, TxnRecord, Zxid};

use crate::clock;
use crate::conn::Conn;
use crate::disk_thread::{Append, Cut, DiskThread, Durable};
use crate::handshake;
use crate::member::WAITS_FOR_STATE;
use crate::peers::{PeerEvent, Peers};
use crate::shared::{ProposalSizes, Shared};
use crate::snapshot_thread::Snapshotter;
use crate::stats::{Batch, Counter};
use crate::telemetry::trail::Trails;
use crate::telemetry::{Stamps, Traced};
use catch_up::Held;
pub use catch_up::LogLook;
pub use door::{EXIT_PANICKED, NodeHandle};
use ensemble::{Pending, is_everyday};

/// Writes prepared and not yet applied; further ones are held back in their order, where each connection's
/// share is limited by `zoometry.maxPipelined`.
pub const PROPOSED_LIMIT: usize = 10_000;

/// Their bytes, likewise. Each follower is sent all of them, and must not lose its link
/// ([`LINK_OUTBOX_BYTES_MAX`](crate::peers::LINK_OUTBOX_BYTES_MAX)) because it has paused for a moment.
pub const PROPOSED_BYTES_LIMIT: usize = 64 << 20;

/// Bytes that wait to be sent to the leader, beyond which a learner holds clients' writes back: it must not lose its
/// link, either, because the leader has paused for a moment.
pub const UNFORWARDED_BYTES_LIMIT: usize = 64 << 20;

/// Containers and TTL znodes deleted in one round.
const EXPIRED_NODES_PER_ROUND: usize = 1000;

/// How often the log says that writes were refused for their length.
const REFUSALS_TOLD_EVERY_MS: u64 = 1000;

/// Events taken from the queue before the peer links are told to send what the first of them has brought.
const EVENTS_PER_FLUSH: usize = 64;

/// How often a member that waits for the whole state says why.
const DAMAGE_TOLD_EVERY_MS: u64 = 60_000;

/// How often consensus is told what time it is.
const CONSENSUS_TICK_MS: u64 = 10;

/// Everything that can wake the node.
#[derive(Debug)]
pub enum NodeEvent {
    /// A client wants something.
    Client(FromClient),
    /// The disk has everything up to here.
    Durable(Durable),
    /// Something happened on the peer links.
    Peer(PeerEvent),
    /// An epoch file is on the disk.
    EpochStored(EpochKind, i64),
    /// The log was cut, or cannot be.
    Truncated(Cut),
    /// The state that the leader sent is on the disk.
    SnapshotStored,
    /// The log files were looked through for a learner.
    LogLooked(LogLook),
    /// Whether the tree's digest was the one that came with this transaction; told when that has changed.
    Compared(Zxid, bool),
    /// The member stops: nothing new is taken in, what is under way is finished.
    Stop,
}

/// What clients want of the node.
#[derive(Debug)]
pub enum FromClient {
    /// A session.
    OpenSession {
        /// Where it is answered.
        conn: Arc<Conn>,
        /// The negotiated timeout.
        timeout_ms: i32,
    },
    /// To go on with a session, whose password it knew.
    Reattach {
        /// Where it is answered.
        conn: Arc<Conn>,
        /// The session.
        session: SessionId,
        /// The negotiated timeout.
        timeout_ms: i32,
    },
    /// Writes, in the client's order.
    Submit(Submission),
}

/// Writes of one connection, and on a learner its `sync`s.
#[derive(Debug)]
pub struct Submission {
    /// Where they are answered.
    pub conn: Arc<Conn>,
    /// Its session.
    pub session: SessionId,
    /// Its identities when the writes arrived.
    pub ids: Arc<[Id]>,
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// When their bytes were read, ns on the process's clock.
    pub received_ns: u64,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// The client's number for it.
    pub xid: i32,
    /// What it asks for.
    pub request: Request,
}

/// Whom a run of transactions proposed here has to be answered to.
#[derive(Debug)]
struct Asked {
    from: Zxid,
    upto: Zxid,
    conn: Arc<Conn>,
    stamps: Stamps,
}

/// A connection that waits for the leader's word on its session.
#[derive(Debug)]
struct Reattaching {
    conn: Arc<Conn>,
    timeout_ms: i32,
}

/// The node.
pub struct Node {
    shared: Arc<Shared>,
    disk: DiskThread,
    snapshots: Snapshotter,
    member: Member,
    /// The links to the other members of an ensemble.
    peers: Option<Peers>,
    /// Who asked for what was proposed here, in the order of the zxids.
    asked: VecDeque<Asked>,
    /// On a learner: connections whose new sessions are on their way through the leader.
    opening: FxHashMap<SessionId, Arc<Conn>>,
    reattaching: FxHashMap<SessionId, VecDeque<Reattaching>>,
    held: VecDeque<FromClient>,
    /// Stores that arrived whole, until consensus says what becomes of them.
    arrived: FxHashMap<Link, Box<Store>>,
    /// Learners for which the log files are being looked through.
    looked_for: FxHashMap<Link, Held>,
    /// Threads that do so, for links that have ended meanwhile as well.
    log_looks: usize,
    outputs: Vec<Output>,
    #[expect(clippy::vec_box, reason = "as the member hands them out: moved, not made here")]
    committed: Vec<Box<TxnRecord>>,
    appends: Vec<Append>,
    woken: Vec<Arc<Conn>>,
    traced: Vec<Traced>,
    /// Bytes that had moved on links over which somebody is being synchronised, when last looked at.
    moved: FxHashMap<Link, u64>,
    /// Transactions on their way that are traced.
    trails: Trails,
    /// When the member was last given something to think about, ns on the process's clock.
    thought_ns: u64,
    /// What the disk is doing with the whole state.
    pending: Option<Pending>,
    /// How many such jobs it has not reported yet.
    disk_jobs: u32,
    /// What the disk has reported that may hold transactions not yet committed, oldest first.
    syncs: VecDeque<Durable>,
    looking_since_ms: u64,
    /// When the election ended, until the member has become part of what it decided.
    found_leader_ms: Option<u64>,
    leading_since_ms: u64,
    proposals: Option<ProposalSizes>,
    /// Of the refusals that [`Member::oversized`] counts, those that are told; and when more may be.
    told_oversized: u64,
    next_told_ms: u64,
    next_tick_ms: u64,
    next_container_check_ms: u64,
    stopping: bool,
    /// What is missing in the state, while it is, and when that is told again.
    damage: Option<String>,
    next_damage_ms: u64,
    /// What consensus was told of the tree's digest.
    digest_told: Option<bool>,
    /// Mismatches of the present store that are counted.
    mismatches_booked: u64,
    /// What the writes of the batch being applied have to tell the statistics.
    booked: Batch,
    /// Requests answered in that batch.
    answered: i64,
}

/// What a node is made of.
pub struct Parts {
    /// What it shares with the connections.
    pub shared: Arc<Shared>,
    /// The disk's thread.
    pub disk: DiskThread,
    /// The snapshots' thread.
    pub snapshots: Snapshotter,
    /// Its mind.
    pub member: Member,
    /// In an ensemble: the links to the others.
    pub peers: Option<Peers>,
    /// What is missing in the state; the member has been told ([`Zab::distrust`](zoometry_replica::zab::Zab::distrust)).
    pub damage: Option<String>,
}

impl Node {
    /// A node over a recovered store.
    pub fn new(parts: Parts) -> Self {
        let Parts { shared, disk, snapshots, member, peers, damage } = parts;
        let mismatches_booked = shared.store.read().digest_mismatches();
        // A whole interval first, as Apache's timer waits: whoever restarts a member finds what was there.
        let next_container_check_ms =
            clock::now_ms().saturating_add(shared.config.requests.container_check_interval_ms);
        Self {
            shared,
            disk,
            snapshots,
            member,
            peers,
            asked: VecDeque::new(),
            opening: FxHashMap::default(),
            reattaching: FxHashMap::default(),
            held: VecDeque::new(),
            arrived: FxHashMap::default(),
            looked_for: FxHashMap::default(),
            log_looks: 0,
            outputs: Vec::new(),
            committed: Vec::new(),
            appends: Vec::new(),
            woken: Vec::new(),
            traced: Vec::new(),
            moved: FxHashMap::default(),
            trails: Trails::default(),
            thought_ns: 0,
            pending: None,
            disk_jobs: 0,
            syncs: VecDeque::new(),
            looking_since_ms: clock::now_ms(),
            found_leader_ms: None,
            leading_since_ms: 0,
            proposals: None,
            told_oversized: 0,
            next_told_ms: 0,
            next_tick_ms: 0,
            next_container_check_ms,
            stopping: false,
            damage,
            next_damage_ms: clock::now_ms() + DAMAGE_TOLD_EVERY_MS,
            digest_told: None,
            mismatches_booked,
            booked: Batch::default(),
            answered: 0,
        }
    }

    /// Whether an event may be performed by whoever brings it, because it neither takes long nor waits.
    fn welcomes(&self, event: &NodeEvent) -> bool {
        let is_quiet = !self.stopping
            && self.pending.is_none()
            && self.held.is_empty()
            && self.shared.mode().is_some()
            && self.has_room();
        is_quiet
            && match event {
                NodeEvent::Client(_) | NodeEvent::Durable(_) => true,
                NodeEvent::Peer(PeerEvent::Packets(_, packets)) => packets.iter().all(is_everyday),
                _ => false,
            }
    }

    /// Whether clients' writes are taken in now, or held back.
    fn has_room(&self) -> bool {
        self.member.outstanding() < PROPOSED_LIMIT
            && self.member.outstanding_bytes() < PROPOSED_BYTES_LIMIT
            && self.unforwarded_bytes() < UNFORWARDED_BYTES_LIMIT
    }

    /// On a learner: what the link to the leader has not taken yet.
    fn unforwarded_bytes(&self) -> usize {
        match (&self.peers, self.member.leader_link()) {
            (Some(peers), Some(leader)) => peers.unsent_bytes(leader),
            _ => 0,
        }
    }

    /// Takes in what was held back, as far as there is room now.
    fn take_held(&mut self) {
        while !self.held.is_empty() && self.has_room() {
            let Some(asked) = self.held.pop_front() else { break };
            self.take(asked);
        }
    }

    fn has_ended(&self) -> bool {
        self.stopping && (self.peers.is_some() || self.member.outstanding() == 0)
    }

    fn end(self) {
        if let Some(peers) = &self.peers {
            peers.stop();
        }
        // Nobody is answered any more, and what follows may take long: clients are to go elsewhere now.
        for conn in self.shared.conns.all() {
            conn.close();
        }
        self.snapshots.stop();
        self.disk.stop();
    }

    fn step(&mut self, event: NodeEvent) {
        match event {
            // What is held back came before.
            NodeEvent::Client(asked) if self.held.is_empty() && self.has_room() => self.take(asked),
            NodeEvent::Client(asked) => self.held.push_back(asked),
            NodeEvent::Durable(durable) => {
                self.note_sync(durable);
                self.consensus(Event::Durable(durable.upto));
                self.book_sync(&durable);
            }
            NodeEvent::Peer(event) => self.hear(event),
            NodeEvent::EpochStored(kind, epoch) => self.consensus(Event::EpochStored(kind, epoch)),
            NodeEvent::Truncated(cut) => self.truncated(cut),
            NodeEvent::SnapshotStored => self.snapshot_stored(),
            NodeEvent::LogLooked(look) => self.log_looked(look),
            NodeEvent::Compared(zxid, agrees) => self.consensus(Event::Compared(zxid, agrees)),
            NodeEvent::Stop => {
                self.stopping = true;
                self.held.clear();
            }
        }
        self.take_held();
    }

    /// Lets the member think, with the clocks and the shared state at hand. What it says is in `outputs`.
    fn think<T>(
        &mut self,
        thought: impl FnOnce(&mut Member, &mut Surroundings<'_>, &mut Vec<Output>) -> T,
    ) -> T {
        let store = self.shared.store.read();
        let mut sessions = self.shared.sessions.lock();
        self.thought_ns = clock::now_ns();
        let mut at = Surroundings {
            now_ms: self.thought_ns / 1_000_000,
            wall_ms: clock::wall_ms(),
            store: &store,
            sessions: &mut sessions,
        };
        thought(&mut self.member, &mut at, &mut self.outputs)
    }

    fn consensus(&mut self, event: Event) {
        self.think(|member, at, out| member.step(at, event, out));
        self.perform();
    }

    fn take(&mut self, asked: FromClient) {
        match asked {
            _ if self.stopping => {}
            FromClient::OpenSession { conn, timeout_ms } => {
                let (session, submitted) =
                    self.think(|member, at, out| member.open_session(at, timeout_ms, out));
                match submitted {
                    Submitted::Proposed(zxid) => {
                        let stamps = Stamps::default();
                        self.asked.push_back(Asked { from: zxid, upto: zxid, conn, stamps });
                    }
                    Submitted::Forwarded => {
                        self.opening.insert(session, conn);
                    }
                    Submitted::NotServing => self.open_read_only(&conn, session, timeout_ms),
                }
                self.perform();
            }
            // The leader was lost after the connection had looked: "refused" would end the session.
            FromClient::Reattach { conn, .. } if !self.member.has_leader() => conn.close(),
            FromClient::Reattach { conn, session, timeout_ms } => {
                // Before the leader is asked: frames that are late on the old connection must not get in behind
                // what the client sends on the new one.
                if let Some(old) = self.shared.conns.of_session(session).filter(|old| old.id != conn.id) {
                    tracing::debug!(%session, old = %old.peer, new = %conn.peer, "the client came again");
                    old.supersede();
                }
                let waiting = self.reattaching.entry(session).or_default();
                waiting.push_back(Reattaching { conn, timeout_ms });
                self.think(|member, at, out| member.reattach(at, session, timeout_ms, out));
                self.perform();
            }
            FromClient::Submit(submission) => self.submit(submission),
        }
    }

    /// Writes of one connection. They are prepared and handed to the disk together and share their stamps.
    fn submit(&mut self, submission: Submission) {
        let Submission { conn, session, ids, writes, received_ns } = submission;
        if conn.desk().superseded {
            return;
        }
        let prep_ns = clock::now_ns();
        let count = writes.len() as u64;
        self.shared.stats.add(Counter::PrepQueued, count);
        let mut proposed: Option<(Zxid, Zxid)> = None;
        let mut refused = false;
        self.think(|member, at, out| {
            at.store.warm(writes.iter().filter_map(|write| match &write.request {
                Request::SetData(SetDataRequest { path, .. }) | Request::Delete(PathVersion { path, .. }) => {
                    Some(path.as_str())
                }
                _ => None,
            }));
            for write in &writes {
                let asking = Asking { session, cxid: write.xid, ids: &ids, request: &write.request };
                match member.submit(at, asking, out) {
                    Submitted::Proposed(zxid) => {
                        proposed = Some((proposed.map_or(zxid, |(from, _)| from), zxid));
                    }
                    Submitted::Forwarded => {}
                    Submitted::NotServing => refused = true,
                }
            }
        });
        if refused {
            conn.close();
        }
        let stamps = Stamps { received_ns, prep_ns, appended_ns: 0 };
        if let Some((from, upto)) = proposed {
            self.asked.push_back(Asked { from, upto, conn, stamps });
        }
        self.perform();
        if proposed.is_some()
            && let Some(asked) = self.asked.back_mut()
        {
            asked.stamps.appended_ns = clock::now_ns();
        }
    }

    /// What time brings: sessions that have fallen silent, containers that are empty.
    fn tick(&mut self) {
        let now_ms = clock::now_ms();
        if now_ms < self.next_tick_ms {
            return;
        }
        let tick_ms = u64::from(self.shared.config.tick_time_ms);
        self.next_tick_ms = now_ms + (tick_ms / 2).clamp(1, 500);
        if self.stopping {
            return;
        }
        if self.peers.is_some() {
            self.next_tick_ms = now_ms + CONSENSUS_TICK_MS;
            self.watch_transfers();
            self.serve_reads_alone(now_ms);
            self.tell_damage(now_ms);
            self.consensus(Event::Tick);
            self.publish();
            // A link has become free without an event.
            self.take_held();
        }
        let expired = self.think(|member, at, out| member.expire(at, out));
        for session in expired {
            let timeout_ms = self.shared.sessions.lock().timeout_ms(session).unwrap_or_default();
            let expiry = tracing::info_span!("session expiry", %session, timeout_ms).entered();
            tracing::info!("expiring a session that has fallen silent");
            self.shared.stats.add(Counter::SessionsExpired, 1);
            drop(expiry);
        }
        self.tell_oversized(now_ms);
        self.shared.conns.limit_unsent();
        if now_ms >= self.next_container_check_ms {
            self.next_container_check_ms = now_ms + self.shared.config.requests.container_check_interval_ms;
            self.delete_expired_nodes();
        }
        self.perform();
    }

    /// A member that waits for the whole state says why, as long as it waits.
    fn tell_damage(&mut self, now_ms: u64) {
        let Some(damage) = &self.damage else { return };
        if !self.member.is_missing_some() {
            tracing::info!("the whole state of the leader is here; this member takes part again");
            self.damage = None;
        } else if now_ms >= self.next_damage_ms {
            self.next_damage_ms = now_ms + DAMAGE_TOLD_EVERY_MS;
            tracing::error!("{damage}; {WAITS_FOR_STATE}");
        }
    }

    /// Clients decide how often they are refused, but not how long the log gets.
    fn tell_oversized(&mut self, now_ms: u64) {
        let refused = self.member.oversized() - self.told_oversized;
        if refused == 0 || now_ms < self.next_told_ms {
            return;
        }
        self.told_oversized += refused;
        self.next_told_ms = now_ms + REFUSALS_TOLD_EVERY_MS;
        self.shared.stats.add(Counter::OversizedTxns, refused);
        tracing::warn!(
            refused,
            limit = self.shared.config.requests.max_txn_bytes(),
            "refused writes whose transaction, or that of their session's end, would be longer than every member \
             reads (jute.maxbuffer + jute.maxbuffer.extrasize)"
        );
    }

    fn delete_expired_nodes(&mut self) {
        if !self.member.prepares() {
            return;
        }
        let wall_ms = clock::wall_ms();
        let never_used_ms = self.shared.config.requests.container_max_never_used_ms;
        let never_used_ms = never_used_ms.map_or(0, |ms| ms as i64);
        let paths = self.shared.store.read().expired_nodes(wall_ms, never_used_ms, EXPIRED_NODES_PER_ROUND);
        self.think(|member, at, out| {
            for path in paths {
                member.delete_expired(at, path, out);
            }
        });
    }

    /// The leader (or this member itself) has said whether a session lives.
    fn reattached(&mut self, session: SessionId, lives: bool) {
        // Several connections may have asked; answers come in the order of the questions.
        let Some(waiting) = self.reattaching.get_mut(&session) else { return };
        let Some(Reattaching { conn, timeout_ms }) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            self.reattaching.remove(&session);
        }
        if !lives {
            return handshake::session_refused(&conn);
        }
        if !self.shared.sessions.lock().is_open(session) {
            // Its creation has not reached this member yet; the leader knows it.
            self.shared.sessions.lock().open(session, timeout_ms, clock::now_ms());
        }
        self.shared.stats.add(Counter::SessionsRevalidated, 1);
        handshake::session_opened(&self.shared, &conn, session, timeout_ms);
    }
}
