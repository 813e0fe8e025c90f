//! A node that leads, and the end of a learner's link.

use zoometry_replica::storage::log::WhySnap;
use zoometry_wire::txn::TxnHeader;
use zoometry_wire::{ErrorCode, OpCode, SessionId, Txn, TxnRecord};

use super::*;
use crate::node::door::tests::standalone;
use crate::peers::tests::links::{packets, pair};

fn refusal(zxid: Zxid) -> TxnRecord {
    let kind = OpCode::Error.code();
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid, time_ms: 1, kind };
    TxnRecord { header, txn: Txn::Error(ErrorCode::NoNode.code()), digest: None }
}

/// The files turn out not to serve, and writes have gone on while they were looked through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_state_holds_is_not_sent_behind_it() {
    let (mut learner, here, leader, there) = pair(|options| options).await;
    let home = tempfile::tempdir().expect("a directory");
    let (shared, mut parts) = standalone(home.path());
    parts.peers = Some(leader.peers.clone());
    let mut node = Node::new(parts);
    let packet = |kind, zxid| QuorumPacket::new(kind, Zxid(zxid));
    node.looked_for.insert(there, Held::default());
    // When it was planned, 1 was committed and 2 was proposed.
    for (kind, zxid) in [
        (PacketKind::Proposal, 1),
        (PacketKind::Commit, 1),
        (PacketKind::Proposal, 2),
        (PacketKind::NewLeader, 1 << 32),
        (PacketKind::Commit, 2),
        (PacketKind::Proposal, 3),
        (PacketKind::Commit, 3),
        (PacketKind::Inform, 3),
        (PacketKind::Proposal, 4),
    ] {
        node.send(there, packet(kind, zxid));
    }
    for zxid in 1..=3 {
        let _ = shared.store.write().apply(&refusal(Zxid(zxid)), &mut ());
    }
    let found = Ok(LogSync::Snap(WhySnap::EndsEarly));
    node.log_looks = 1;
    node.log_looked(LogLook { link: there, learner: Zxid(0), upto: Zxid(1), found });
    node.send(there, packet(PacketKind::Commit, 4));
    node.flush_links();
    let PeerEvent::Snapshot(_, head, store) = learner.next().await else { panic!("expected the state") };
    assert_eq!((head, store.last_zxid()), (packet(PacketKind::Snap, 3), Zxid(3)));
    let behind = [
        packet(PacketKind::NewLeader, 1 << 32),
        packet(PacketKind::Proposal, 4),
        packet(PacketKind::Commit, 4),
    ];
    assert_eq!(packets(&mut learner, here, 3).await, behind);
    node.end();
}

/// It takes long, and a learner must not think that its leader is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_heard_of_while_files_are_looked_through() {
    let (mut learner, here, leader, there) = pair(|options| options).await;
    let home = tempfile::tempdir().expect("a directory");
    let (_shared, mut parts) = standalone(home.path());
    parts.peers = Some(leader.peers.clone());
    let mut node = Node::new(parts);
    node.looked_for.insert(there, Held::default());
    let ping = QuorumPacket::new(PacketKind::Ping, Zxid(7));
    node.send(there, QuorumPacket::new(PacketKind::Proposal, Zxid(7)));
    node.send(there, ping.clone());
    node.flush_links();
    assert_eq!(packets(&mut learner, here, 1).await, [ping]);
    node.end();
}

/// They read gigabytes each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_looked_through_for_so_many_at_a_time() {
    let (mut learner, here, leader, there) = pair(|options| options).await;
    let home = tempfile::tempdir().expect("a directory");
    let (_shared, mut parts) = standalone(home.path());
    parts.peers = Some(leader.peers.clone());
    let mut node = Node::new(parts);
    node.log_looks = LOG_LOOKS_MAX;
    node.look_into_log(there, Zxid(1), Zxid(2));
    assert!(node.looked_for.is_empty());
    let event = learner.next().await;
    assert!(matches!(event, PeerEvent::Closed(link) if link == here), "{event:?}");
    node.end();
}
