//! The node in an ensemble: performing what consensus says, hearing the peer links, changing parts.
//!
//! Rules: outputs are performed in their order; what the log gets goes through the disk's queue, so
//! "transactions, then epoch, then acknowledgement" is an order there; a member without a leader serves
//! nobody, and its clients are sent to others by closing their connections.

use std::sync::Arc;

use zoometry_replica::member::Output;
use zoometry_replica::storage::epoch::EpochFile;
use zoometry_replica::store::session::Keeping;
use zoometry_replica::zab::{Action, EpochKind, Event, Role};
use zoometry_wire::peer::{PacketKind, PeerState, QuorumPacket};
use zoometry_wire::{SessionId, Zxid};

use super::{Node, NodeEvent};
use crate::clock;
use crate::config::Ensemble;
use crate::conn::{Conn, Phase};
use crate::disk_thread::{Append, Cut};
use crate::handshake;
use crate::member;
use crate::peers::PeerEvent;
use crate::shared::ProposalSizes;
use crate::stats::{Counter, Measure};
use crate::telemetry::trail::Way;
use crate::view::Mode;

/// The process ends with this code when the leader's word contradicts this member's state (Apache's
/// `UNMATCHED_TXN_COMMIT`).
const EXIT_INCONSISTENT: i32 = 12;

/// What the disk is doing with the whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// It writes the state down: meanwhile the state must not change.
    Install,
    /// The state must be read again when the disk is done.
    Reload,
}

/// How long a member looks for a leader before it serves reads alone, at least.
const READ_ONLY_WAIT_MS: u64 = 2000;

/// Whether a packet is of the broadcast, and takes no longer than a client's request. What belongs to finding
/// together may read files, or replace the state.
pub(super) fn is_everyday(packet: &QuorumPacket) -> bool {
    matches!(
        PacketKind::from_code(packet.kind),
        Some(
            PacketKind::Proposal
                | PacketKind::Ack
                | PacketKind::Commit
                | PacketKind::Inform
                | PacketKind::Ping
                | PacketKind::Request
                | PacketKind::Revalidate
                | PacketKind::Sync
        )
    )
}

impl Node {
    /// Performs what the member has said, in order, until it says nothing more. Appends and commits are
    /// gathered and handed on in runs, the appends first.
    pub(super) fn perform(&mut self) {
        while !self.outputs.is_empty() {
            let mut outputs = std::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Commit(record) => self.committed.push(record),
                    Output::Perform(Action::Append(zxid, payload)) => {
                        if self.peers.is_some() {
                            self.trace_append(zxid, &payload);
                            ProposalSizes::note(&mut self.proposals, payload.len() as i64);
                        }
                        self.appends.push(Append { zxid, payload });
                    }
                    Output::Perform(Action::Send(link, packet)) => self.send(link, packet),
                    output => {
                        // What follows may look at the state, and its jobs go behind what was appended.
                        self.append();
                        self.commit();
                        self.perform_rare(output);
                    }
                }
            }
            self.append();
            self.commit();
            if self.outputs.is_empty() {
                // The allocation is used again.
                self.outputs = outputs;
            }
        }
    }

    /// Hands what is to be appended to the disk.
    fn append(&mut self) {
        if self.appends.is_empty() {
            return;
        }
        let (txns, bytes) = self
            .appends
            .iter()
            .fold((0, 0), |(txns, bytes), append| (txns + 1, bytes + append.payload.len() as u64));
        self.shared.disk.append_all(&mut self.appends);
        self.snapshots.appended(txns, bytes);
        self.shared.stats.add(Counter::SyncQueued, txns);
        if self.shared.mode() == Some(Mode::Leader) {
            self.shared.stats.add(Counter::Proposals, txns);
        }
    }

    /// If it is to be traced, a transaction's way through this member begins here.
    fn trace_append(&mut self, zxid: Zxid, payload: &[u8]) {
        let tracer = &self.shared.tracer;
        if !tracer.is_on() {
            return;
        }
        let way = match self.shared.mode() {
            Some(Mode::Leader) => Way::Leading { prep_ns: self.thought_ns },
            _ => Way::Following,
        };
        self.trails.appended(tracer, zxid, payload, way, clock::now_ns());
    }

    fn perform_rare(&mut self, output: Output) {
        match output {
            Output::Adopt(record) => {
                self.leave_clients();
                self.adopt(&record);
            }
            Output::Become(role) => self.become_part(role),
            Output::Revalidated(session, lives) => self.reattached(session, lives),
            Output::Synced(session, cxid, path) => self.synced(session, cxid, path),
            Output::Perform(action) => self.act(action),
            Output::Commit(_) => unreachable!("commits are gathered"),
        }
    }

    fn act(&mut self, action: Action) {
        let Some(peers) = &self.peers else { return };
        match action {
            Action::Notify(to, vote) => peers.notify(to, vote),
            Action::Connect(to) => peers.connect(to),
            Action::SendSnapshot(link) => peers.send_snapshot(link, Arc::clone(&self.shared.store)),
            Action::SyncFromLog { link, learner, upto } => self.look_into_log(link, learner, upto),
            Action::Close(link) => {
                peers.close(link);
                self.forget_link(link);
            }
            Action::InstallSnapshot(link) => {
                self.settle_disk();
                if let Some(store) = self.arrived.remove(&link) {
                    self.snapshots.hold();
                    tracing::info!(zxid = %store.last_zxid(), "taking over the leader's snapshot");
                    self.renew_digest(store.digest_mismatches());
                    *self.shared.store.write() = *store;
                }
            }
            Action::Reload(_) => {
                self.pending = Some(Pending::Reload);
                self.settle_disk();
            }
            Action::StoreEpoch(kind, epoch) => {
                let node = self.shared.node.clone();
                let file = match kind {
                    EpochKind::Accepted => EpochFile::Accepted,
                    EpochKind::Current => EpochFile::Current,
                };
                let stored = move || node.leave(NodeEvent::EpochStored(kind, epoch));
                self.shared.disk.epoch(file, epoch, stored);
            }
            Action::Truncate(zxid) => {
                tracing::warn!(%zxid, "the leader does not have what this member has logged behind here; cutting it off");
                let node = self.shared.node.clone();
                self.snapshots.hold();
                self.pending = Some(Pending::Reload);
                self.disk_jobs += 1;
                self.shared.disk.truncate(zxid, move |cut| node.leave(NodeEvent::Truncated(cut)));
            }
            Action::StoreSnapshot => {
                let node = self.shared.node.clone();
                let store = Arc::clone(&self.shared.store);
                self.pending = Some(Pending::Install);
                self.disk_jobs += 1;
                self.shared.disk.install(store, move || node.leave(NodeEvent::SnapshotStored));
            }
            Action::Tell(why) if why.is_error() => tracing::error!("{why}"),
            Action::Tell(why) => tracing::warn!("{why}"),
            Action::Fail(why) => {
                tracing::error!("this member's state cannot be trusted any more, it stops: {why}");
                std::process::exit(EXIT_INCONSISTENT);
            }
            Action::Append(..)
            | Action::Send(..)
            | Action::Apply(..)
            | Action::Adopt(..)
            | Action::Become(_)
            | Action::Pong(..)
            | Action::Upcall(..) => unreachable!("performed elsewhere"),
        }
    }

    /// Before the state changes: what the disk was told to do with the state as it was has to be done.
    pub(super) fn settle_disk(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        self.shared.disk.barrier(move || {
            // The node waits for it; if it is gone nobody does.
            let _ = done.send(());
        });
        if wait.recv().is_ok() {
            match pending {
                Pending::Reload => self.reload(),
                Pending::Install => self.snapshots.release(),
            }
        }
    }

    /// The log was cut, durably; or it cannot be, and everything is as it was.
    pub(super) fn truncated(&mut self, cut: Cut) {
        // A leader may have been lost and another found meanwhile: only the last job's end is the end.
        self.disk_jobs -= 1;
        if self.disk_jobs == 0 && self.pending.take() == Some(Pending::Reload) {
            match cut {
                Cut::Done => self.reload(),
                Cut::Refused => self.snapshots.release(),
            }
        }
        match cut {
            Cut::Done => self.consensus(Event::Truncated),
            Cut::Refused => {
                tracing::warn!("the log cannot be cut there; the leader's whole state is to take its place");
                self.consensus(Event::TruncateRefused);
            }
        }
    }

    /// The state that the leader sent is on the disk.
    pub(super) fn snapshot_stored(&mut self) {
        self.disk_jobs -= 1;
        if self.disk_jobs == 0 && self.pending.take() == Some(Pending::Install) {
            self.snapshots.release();
        }
        self.consensus(Event::SnapshotStored);
    }

    /// Reads the state again from the disk.
    fn reload(&mut self) {
        match member::reload(&self.shared, self.member.is_missing_some()) {
            Ok(store) => {
                self.renew_digest(store.digest_mismatches());
                *self.shared.store.write() = store;
                self.snapshots.release();
            }
            Err(error) => {
                tracing::error!("cannot read the state from the disk again, this member stops: {error:#}");
                std::process::exit(EXIT_INCONSISTENT);
            }
        }
    }

    /// Whoever is receiving a snapshot, or sending one, is alive as long as bytes move, or as this side has not read them.
    pub(super) fn watch_transfers(&mut self) {
        let Some(peers) = &self.peers else { return };
        let links = self.member.synchronising();
        self.moved.retain(|link, _| links.contains(link));
        let mut alive = Vec::new();
        for link in links {
            let Some(bytes) = peers.moved_bytes(link) else { continue };
            let has_moved = self.moved.insert(link, bytes).is_some_and(|before| before != bytes);
            if has_moved || peers.loads(link) {
                alive.push(link);
            }
        }
        for link in alive {
            self.consensus(Event::Moved(link));
        }
    }

    pub(super) fn flush_links(&mut self) {
        if let Some(peers) = &self.peers {
            peers.flush();
        }
    }

    /// Whether the election that was going on has ended.
    fn time_election(&mut self) {
        let decided = self.member.peer_state().is_some_and(|state| state != PeerState::Looking);
        if self.found_leader_ms.is_none() && decided && self.shared.mode().is_none() {
            let now_ms = clock::now_ms();
            self.found_leader_ms = Some(now_ms);
            let took_ns = (now_ms - self.looking_since_ms) * 1_000_000;
            self.shared.stats.observe(Measure::ElectionTime, took_ns);
        }
    }

    fn count_packets(&self, packets: &[QuorumPacket]) {
        let (mut proposals, mut commits, mut revalidations) = (0, 0, 0);
        for packet in packets {
            match PacketKind::from_code(packet.kind) {
                Some(PacketKind::Proposal) => proposals += 1,
                Some(PacketKind::Commit) => commits += 1,
                // The leader's answers look the same.
                Some(PacketKind::Revalidate) if self.member.prepares() => revalidations += 1,
                _ => {}
            }
        }
        let counted = [
            (Counter::LearnerProposals, proposals),
            (Counter::LearnerCommits, commits),
            (Counter::Revalidations, revalidations),
        ];
        for (counter, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
            self.shared.stats.add(counter, count);
        }
    }

    /// Something happened on the peer links.
    pub(super) fn hear(&mut self, event: PeerEvent) {
        let event = match event {
            PeerEvent::Packets(link, packets) => {
                self.count_packets(&packets);
                self.think(|member, at, out| {
                    for packet in packets {
                        member.step(at, Event::Packet(link, packet), out);
                    }
                });
                self.perform();
                if let Some(peers) = &self.peers {
                    peers.taken(link);
                }
                return;
            }
            PeerEvent::Snapshot(link, packet, store) => {
                self.arrived.insert(link, store);
                self.consensus(Event::Packet(link, packet));
                // A link that this side has closed says no more: nobody would come for it later.
                self.arrived.remove(&link);
                return;
            }
            PeerEvent::Closed(link) => {
                self.forget_link(link);
                Event::Closed(link)
            }
            PeerEvent::Reachable(member, up) => Event::Reachable(member, up),
            PeerEvent::Vote(member, vote) => {
                if let Some(peers) = &self.peers {
                    peers.heard(member);
                }
                Event::Vote(member, vote)
            }
            PeerEvent::Accepted(link) => Event::Accepted(link),
            PeerEvent::Connected(member, link) => Event::Connected(member, link),
            PeerEvent::Unreachable(member) => Event::Unreachable(member),
        };
        self.consensus(event);
        self.time_election();
    }

    fn become_part(&mut self, role: Role) {
        // Read-only clients go and come again: their sessions were nobody's.
        self.leave_clients();
        match role {
            Role::Looking => {
                self.looking_since_ms = clock::now_ms();
                self.found_leader_ms = None;
                self.shared.stats.add(Counter::Lookings, 1);
                tracing::info!("looking for a leader");
            }
            Role::Leading { epoch } => {
                self.leading_since_ms = clock::now_ms();
                self.proposals = None;
                tracing::info!(epoch, "leading");
            }
            Role::Following { leader, epoch, .. } => tracing::info!(%leader, epoch, "following"),
        }
        if role != Role::Looking
            && let Ensemble::Member(membership) = &self.shared.config.ensemble
        {
            let (text, version) = (membership.text(), Zxid(membership.version));
            self.shared.store.write().show_ensemble(&text, version, clock::wall_ms());
        }
        self.think(|member, at, out| member.begin(at, role, out));
        let mode = match (role, self.member.peer_state()) {
            (Role::Looking, _) => None,
            (Role::Leading { .. }, _) => Some(Mode::Leader),
            (Role::Following { .. }, Some(PeerState::Observing)) => Some(Mode::Observer),
            (Role::Following { .. }, _) => Some(Mode::Follower),
        };
        if let Some(found_ms) = self.found_leader_ms.take().filter(|_| mode.is_some_and(Mode::is_learner)) {
            let took_ns = (clock::now_ms() - found_ms) * 1_000_000;
            self.shared.stats.observe(Measure::FollowerSyncTime, took_ns);
        }
        self.shared.set_mode(mode);
        self.shared.standing.lock().follows = match role {
            Role::Following { leader, .. } => Some(leader.0 as u64),
            Role::Looking | Role::Leading { .. } => None,
        };
        self.publish();
    }

    /// A member that finds no leader for a while serves reads to clients that asked for no more, if it is
    /// configured so. Source: `QuorumPeer.java`, `ReadOnlyZooKeeperServer.java`; reference §2.8.
    pub(super) fn serve_reads_alone(&mut self, now_ms: u64) {
        let wait_ms = u64::from(self.shared.config.tick_time_ms).max(READ_ONLY_WAIT_MS);
        if self.shared.mode().is_some()
            || !self.shared.config.requests.read_only_mode
            || self.member.is_in_doubt()
            || now_ms < self.looking_since_ms + wait_ms
        {
            return;
        }
        tracing::warn!(
            "Read-only server started: no leader for {wait_ms} ms, only reads of read-only clients are answered"
        );
        self.shared.sessions.lock().begin(Keeping::Touches, std::iter::empty(), now_ms);
        self.shared.set_mode(Some(Mode::ReadOnly));
    }

    /// A session for a read-only client: nobody else hears of it, and it ends with its connection. Source:
    /// as above; unlike Apache's server this needs no local sessions.
    pub(super) fn open_read_only(&mut self, conn: &Arc<Conn>, session: SessionId, timeout_ms: i32) {
        if self.shared.mode() != Some(Mode::ReadOnly) {
            return conn.close();
        }
        self.shared.sessions.lock().open(session, timeout_ms, clock::now_ms());
        handshake::session_opened(&self.shared, conn, session, timeout_ms);
    }

    /// Nobody is served any more: clients go and find a member that has a leader. What waited here was
    /// promised nothing.
    fn leave_clients(&mut self) {
        if self.shared.mode().is_none() {
            return;
        }
        self.shared.set_mode(None);
        self.asked.clear();
        self.opening.clear();
        self.reattaching.clear();
        self.held.clear();
        self.trails.clear();
        for conn in self.shared.conns.all() {
            // Who has not asked for a session may be an operator with a four-letter word.
            if conn.desk().phase != Phase::New {
                conn.close();
            }
        }
    }

    /// Shows operators how the ensemble stands.
    pub(super) fn publish(&mut self) {
        let following = self.member.following();
        let mut standing = self.shared.standing.lock();
        standing.following = following;
        standing.leading_since_ms = self.leading_since_ms;
        standing.proposals = self.proposals;
    }
}
