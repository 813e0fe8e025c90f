//! The leader's node brings up a learner that is further behind than memory reaches: from the log files, or with
//! the whole state where they do not serve.
//!
//! Two things must not wait meanwhile: the writes of everybody else, and the order of what the learner is sent.
//! So the files are looked through by a thread of its own, and what consensus has for the learner is held here until
//! it is known what goes before it. Then the link's task reads the transactions from the files as the socket takes
//! them.

use std::sync::Arc;

use zoometry_replica::storage::error::StorageError;
use zoometry_replica::storage::log::{self, LogSync};
use zoometry_replica::zab::Link;
use zoometry_wire::Zxid;
use zoometry_wire::peer::{PacketKind, QuorumPacket};

use super::{Node, NodeEvent};
use crate::config::Ensemble;
use crate::disk::FileDisk;
use crate::peers::{LINK_OUTBOX_BYTES_MAX, PeerEvent};
use crate::stats::Counter;

/// What the log files have for a learner.
#[derive(Debug)]
pub struct LogLook {
    link: Link,
    learner: Zxid,
    upto: Zxid,
    found: Result<LogSync<FileDisk>, StorageError>,
}

/// What a learner is to be sent when it is known what goes before it.
#[derive(Debug, Default)]
pub(super) struct Held {
    packets: Vec<QuorumPacket>,
    bytes: usize,
}

/// Learners for which the log files are looked through at a time. One with a server line is served beyond it.
const LOG_LOOKS_MAX: usize = 8;

impl Node {
    /// Sends a packet to another member, behind everything that it was sent before.
    pub(super) fn send(&mut self, link: Link, packet: QuorumPacket) {
        if !self.looked_for.is_empty()
            // That this leader is there is said meanwhile.
            && packet.kind != PacketKind::Ping as i32
            && let Some(held) = self.looked_for.get_mut(&link)
        {
            held.bytes += packet.data.as_ref().map_or(0, |data| data.len());
            held.packets.push(packet);
            if held.bytes > LINK_OUTBOX_BYTES_MAX {
                tracing::warn!(
                    server = self.server_at(link),
                    "more is proposed than a learner may be behind; it has to come again"
                );
                self.end_link(link);
            }
            return;
        }
        if let Some(peers) = &self.peers {
            peers.send(link, &packet);
        }
        let Some(kind) = PacketKind::from_code(packet.kind) else { return };
        match kind {
            PacketKind::Diff => self.shared.stats.add(Counter::DiffSyncs, 1),
            PacketKind::Snap => self.shared.stats.add(Counter::SnapSyncs, 1),
            PacketKind::Trunc => {}
            _ => return,
        }
        tracing::info!(server = self.server_at(link), ?kind, zxid = %packet.zxid, "synchronising a learner");
    }

    /// The learner's number, for the log.
    fn server_at(&self, link: Link) -> Option<i64> {
        self.member.learner(link).map(|learner| learner.0)
    }

    /// Whether the learner has a server line.
    fn is_listed(&self, link: Link) -> bool {
        let Ensemble::Member(membership) = &self.shared.config.ensemble else { return false };
        let id = self.server_at(link).and_then(|id| u64::try_from(id).ok());
        id.is_some_and(|id| membership.members.contains_key(&id))
    }

    /// This side wants a link's end, and consensus is to hear of it.
    fn end_link(&mut self, link: Link) {
        self.forget_link(link);
        if let Some(peers) = &self.peers {
            peers.close(link);
        }
        self.shared.node.leave(NodeEvent::Peer(PeerEvent::Closed(link)));
    }

    /// Nothing more is sent there, and what was received there does not count.
    pub(super) fn forget_link(&mut self, link: Link) {
        self.arrived.remove(&link);
        self.looked_for.remove(&link);
    }

    /// Has the log files looked through for a learner that stands at `learner`: as many of them as are worth it,
    /// which may be gigabytes.
    pub(super) fn look_into_log(&mut self, link: Link, learner: Zxid, upto: Zxid) {
        if self.log_looks >= LOG_LOOKS_MAX && !self.is_listed(link) {
            tracing::warn!(
                server = self.server_at(link),
                "the log files are being looked through for {LOG_LOOKS_MAX} learners, the most at a time; one without a \
                 server line has to come again"
            );
            return self.end_link(link);
        }
        self.log_looks += 1;
        self.looked_for.insert(link, Held::default());
        let (files, node) = (self.shared.files.clone(), self.shared.node.clone());
        let factor = self.shared.config.storage.snapshot_size_factor;
        let look = move || {
            let limit = log::size_limit(&files, factor);
            let found = limit.and_then(|limit| log::log_since(&files, learner, upto, limit));
            node.leave(NodeEvent::LogLooked(LogLook { link, learner, upto, found }));
        };
        if let Err(error) = std::thread::Builder::new().name("log look".into()).spawn(look) {
            tracing::warn!(%error, "no thread for a learner that is far behind; it has to come again");
            self.log_looks -= 1;
            self.end_link(link);
        }
    }

    /// The log files have been looked through for a learner.
    pub(super) fn log_looked(&mut self, look: LogLook) {
        let LogLook { link, learner, upto, found } = look;
        self.log_looks -= 1;
        // The link may have ended meanwhile.
        let Some(held) = self.looked_for.remove(&link) else { return };
        let found = match found {
            Ok(LogSync::Diff(range)) => Some((PacketKind::Diff, upto, range)),
            Ok(LogSync::Trunc { to, then }) => Some((PacketKind::Trunc, to, then)),
            Ok(LogSync::Snap(why)) => {
                tracing::info!(server = self.server_at(link), from = %learner, "a snapshot for a learner: {why}");
                None
            }
            Err(error) => {
                tracing::warn!(server = self.server_at(link), from = %learner, "a snapshot for a learner, the log files failed: {error}");
                None
            }
        };
        let mut covered = None;
        match found {
            Some((kind, zxid, range)) => {
                let (txns, bytes) = (range.txns(), range.bytes());
                tracing::info!(server = self.server_at(link), txns, bytes, from = %learner, "synchronising from the log files");
                self.send(link, QuorumPacket::new(kind, zxid));
                if let Some(peers) = &self.peers {
                    peers.send_log(link, range);
                }
            }
            None => covered = Some(self.send_state(link)),
        }
        for packet in held.packets {
            if covered.is_none_or(|upto| !is_covered(&packet, upto)) {
                self.send(link, packet);
            }
        }
    }

    /// Sends the whole state as it is now, where consensus counted on the log files; returns its last transaction.
    fn send_state(&mut self, link: Link) -> Zxid {
        let last_zxid = self.shared.store.read().last_zxid();
        self.send(link, QuorumPacket::new(PacketKind::Snap, last_zxid));
        if let Some(peers) = &self.peers {
            peers.send_snapshot(link, Arc::clone(&self.shared.store));
        }
        last_zxid
    }
}

/// Whether a learner that is sent the whole state up to there has this packet's transaction in it. Before NEWLEADER
/// or behind it: writes went on while the log files were looked through. Apache's learner ends itself at a COMMIT
/// whose proposal it was not sent.
fn is_covered(packet: &QuorumPacket, upto: Zxid) -> bool {
    let kind = PacketKind::from_code(packet.kind);
    let is_of_a_txn = matches!(kind, Some(PacketKind::Proposal | PacketKind::Commit | PacketKind::Inform));
    is_of_a_txn && packet.zxid <= upto
}

#[cfg(test)]
mod tests;
