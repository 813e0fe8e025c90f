//! One machine, told what the others would say.

use super::*;
use election::{Electorate, NotificationIntervals};
use zoometry_wire::Record as _;

mod doubt;
mod lies;
mod silence;
mod waits;

const TICK_MS: u64 = 100;
const LINK: Link = Link(7);

fn member(me: i64, silence_ms: Option<u64>) -> Zab {
    member_of(3, me, silence_ms)
}

fn member_of(voters: i64, me: i64, silence_ms: Option<u64>) -> Zab {
    let recovered = Recovered { last_zxid: Zxid(0), accepted_epoch: 0, current_epoch: 0 };
    member_with(voters, me, silence_ms, recovered)
}

fn member_with(voters: i64, me: i64, silence_ms: Option<u64>, recovered: Recovered) -> Zab {
    let settings = Settings {
        tick_ms: TICK_MS,
        init_limit: 10,
        sync_limit: 5,
        notifications: NotificationIntervals { min_ms: 200, max_ms: 2000 },
        silence_ms,
        history_limit: history::HISTORY_DEFAULT,
    };
    let electorate = Electorate {
        me: ServerId(me),
        voters: (1..=voters).map(ServerId).collect(),
        config: String::new(),
        config_version: 0,
    };
    Zab::new(settings, electorate, recovered)
}

fn step(zab: &mut Zab, now_ms: u64, event: Event) -> Vec<Action> {
    let mut out = Vec::new();
    zab.step(now_ms, event, &mut out);
    out
}

fn vote(leader: i64) -> Notification {
    Notification {
        state: PeerState::Looking,
        leader,
        zxid: Zxid(0),
        election_epoch: 1,
        peer_epoch: 0,
        config: String::new(),
    }
}

fn packet(kind: PacketKind, zxid: i64) -> Event {
    Event::Packet(LINK, QuorumPacket::new(kind, Zxid(zxid)))
}

/// Member 1, which has what member 3 leads with in epoch 1 on its disk.
fn synchronised(silence_ms: Option<u64>) -> Zab {
    let mut zab = member(1, silence_ms);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    step(&mut zab, 0, packet(PacketKind::LeaderInfo, 1 << 32));
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 1));
    step(&mut zab, 0, packet(PacketKind::Diff, 0));
    step(&mut zab, 0, packet(PacketKind::NewLeader, 1 << 32));
    step(&mut zab, 0, Event::EpochStored(EpochKind::Current, 1));
    zab
}

/// Member 1 as a follower of member 3 in epoch 1, in sync since 10 ms.
fn follower(silence_ms: Option<u64>) -> Zab {
    let mut zab = synchronised(silence_ms);
    let out = step(&mut zab, 10, packet(PacketKind::UpToDate, -1));
    let role = Role::Following { leader: ServerId(3), link: LINK, epoch: 1 };
    assert!(out.contains(&Action::Become(role)), "{out:?}");
    zab
}

/// When a follower that hears its leader last at `heard_ms` gives it up.
fn gives_up_at(zab: &mut Zab, heard_ms: u64) -> u64 {
    let out = step(zab, heard_ms, packet(PacketKind::Ping, 0));
    assert!(matches!(out[..], [Action::Pong(..)]), "{out:?}");
    (heard_ms..heard_ms + 10_000)
        .find(|now| step(zab, *now, Event::Tick).contains(&Action::Become(Role::Looking)))
        .expect("a silent leader is given up")
}

#[test]
fn a_silent_leader_is_given_up_after_sync_limit_or_sooner_if_so_set() {
    assert_eq!(gives_up_at(&mut follower(None), 1000), 1000 + 5 * TICK_MS);
    assert_eq!(gives_up_at(&mut follower(Some(60)), 400), 460);
    assert_eq!(gives_up_at(&mut follower(Some(100_000)), 1000), 1000 + 5 * TICK_MS);
}

/// Member 1 has given up member 3, which is stopped: its connections stand. At 700 ms it looks.
fn without_its_leader() -> Zab {
    let mut zab = follower(None);
    let out = step(&mut zab, 700, packet(PacketKind::Ping, 0));
    assert!(matches!(out[..], [Action::Pong(..)]), "{out:?}");
    let out = step(&mut zab, 700 + 5 * TICK_MS, Event::Tick);
    assert!(out.contains(&Action::Become(Role::Looking)), "{out:?}");
    zab
}

/// Member 2's vote for itself, in the second round.
fn second_vote() -> Event {
    Event::Vote(ServerId(2), Notification { election_epoch: 2, peer_epoch: 1, ..vote(2) })
}

#[test]
fn a_leader_that_was_given_up_is_not_waited_for() {
    let mut zab = without_its_leader();
    step(&mut zab, 1210, second_vote());
    assert_eq!(zab.peer_state(), PeerState::Following, "at once");
    // It is waited for, and not longer than that, when it has spoken since.
    let mut zab = without_its_leader();
    let leads = Notification { state: PeerState::Leading, peer_epoch: 1, ..vote(3) };
    step(&mut zab, 1205, Event::Vote(ServerId(3), leads));
    step(&mut zab, 1210, second_vote());
    assert_eq!(zab.peer_state(), PeerState::Looking);
    let decided = (1210..2000).find(|now_ms| {
        step(&mut zab, *now_ms, Event::Tick);
        zab.peer_state() == PeerState::Following
    });
    assert_eq!(decided, Some(1210 + election::FINALIZE_WAIT_MS), "repeating the vote does not begin anew");
}

#[test]
fn bytes_that_move_are_a_sign_of_life_only_while_synchronising() {
    let mut zab = member(1, None);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    assert_eq!(zab.synchronising(), [LINK]);
    // A snapshot that takes four times initLimit.
    for now_ms in (0..4 * 10 * TICK_MS).step_by(50) {
        step(&mut zab, now_ms, Event::Moved(LINK));
        let out = step(&mut zab, now_ms, Event::Tick);
        assert!(!out.contains(&Action::Become(Role::Looking)), "at {now_ms}");
    }
    let mut settled = follower(None);
    assert_eq!(settled.synchronising(), []);
    let gave_up = (1000..3000).find(|now| {
        step(&mut settled, *now, Event::Moved(LINK));
        step(&mut settled, *now, Event::Tick).contains(&Action::Become(Role::Looking))
    });
    assert!(gave_up.is_some(), "in broadcast only packets count");
}

#[test]
fn a_learner_that_comes_before_the_election_has_ended_waits_for_its_end() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    let info = zoometry_wire::peer::LearnerInfo { sid: 1, protocol: 0x10000, config_version: 0 };
    let hello = QuorumPacket::new(PacketKind::FollowerInfo, Zxid(0)).with_data(info.to_bytes());
    assert_eq!(step(&mut zab, 0, Event::Accepted(LINK)), []);
    assert_eq!(step(&mut zab, 0, Event::Packet(LINK, hello)), []);
    for other in [1, 2] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
    }
    step(&mut zab, 0, Event::Vote(ServerId(1), vote(3)));
    let out = step(&mut zab, 0, Event::Vote(ServerId(2), vote(3)));
    // With itself and the one that waited there is a quorum for an epoch.
    assert!(out.contains(&Action::StoreEpoch(EpochKind::Accepted, 1)), "{out:?}");
    // Whoever follows another lets go of those that waited.
    let mut other = member(1, None);
    step(&mut other, 0, Event::Tick);
    step(&mut other, 0, Event::Accepted(LINK));
    let out = step(&mut other, 0, Event::Vote(ServerId(3), vote(3)));
    assert!(out.contains(&Action::Close(LINK)) && out.contains(&Action::Connect(ServerId(3))), "{out:?}");
}

#[test]
fn a_snapshot_of_a_lost_leader_is_not_voted_with() {
    let mut zab = member(1, None);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    step(&mut zab, 0, packet(PacketKind::LeaderInfo, 1 << 32));
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 1));
    let out = step(&mut zab, 0, packet(PacketKind::Snap, 5));
    assert_eq!(out, [Action::InstallSnapshot(LINK)]);
    let out = step(&mut zab, 1, Event::Closed(LINK));
    assert!(out.contains(&Action::Reload(Zxid(0))), "{out:?}");
    let votes: Vec<_> = out
        .iter()
        .filter_map(|action| match action {
            Action::Notify(_, vote) => Some((vote.leader, vote.zxid)),
            _ => None,
        })
        .collect();
    assert_eq!(votes, [(1, Zxid(0)), (1, Zxid(0))], "it votes with what its disk has");
}

/// Member 1 of epoch 1, with a tail of its own, has found member 3 and is told to cut its log behind 4.
fn told_to_cut() -> Zab {
    let (tail, behind) = (Zxid((1 << 32) + 9), (1 << 32) + 4);
    let mut zab = member_with(3, 1, None, Recovered { last_zxid: tail, accepted_epoch: 1, current_epoch: 1 });
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        let better = Notification { peer_epoch: 2, zxid: Zxid(2 << 32), ..vote(3) };
        step(&mut zab, 0, Event::Vote(ServerId(other), better));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    step(&mut zab, 0, packet(PacketKind::LeaderInfo, 3 << 32));
    let out = step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 3));
    assert_eq!(ack_epoch(&out), Some((1, tail)), "it says what it has");
    assert_eq!(step(&mut zab, 0, packet(PacketKind::Trunc, behind)), [Action::Truncate(Zxid(behind))]);
    assert_eq!(step(&mut zab, 0, packet(PacketKind::NewLeader, 3 << 32)), []);
    zab
}

/// Epoch and zxid of an ACKEPOCH.
fn ack_epoch(out: &[Action]) -> Option<(i32, Zxid)> {
    out.iter().find_map(|action| match action {
        Action::Send(_, packet) if kind(packet) == Some(PacketKind::AckEpoch) => {
            let epoch = packet.data.as_deref()?.try_into().ok()?;
            Some((i32::from_be_bytes(epoch), packet.zxid))
        }
        _ => None,
    })
}

fn on(link: Link, kind: PacketKind, zxid: i64) -> Event {
    Event::Packet(link, QuorumPacket::new(kind, Zxid(zxid)))
}

#[test]
fn a_log_that_cannot_be_cut_is_replaced_by_the_leaders_state() {
    let tail = Zxid((1 << 32) + 9);
    let mut zab = told_to_cut();
    let out = step(&mut zab, 1, Event::TruncateRefused);
    assert_eq!(out, [Action::Close(LINK), Action::Connect(ServerId(3))], "no election is needed");
    assert_eq!(zab.logged(), tail);
    let again = Link(8);
    step(&mut zab, 1, Event::Closed(LINK));
    step(&mut zab, 1, Event::Connected(ServerId(3), again));
    let out = step(&mut zab, 1, on(again, PacketKind::LeaderInfo, 3 << 32));
    assert_eq!(ack_epoch(&out), Some((-1, NO_DATA)), "it asks for everything, and counts for nothing");
    let out = step(&mut zab, 1, on(again, PacketKind::Snap, (2 << 32) + 1));
    assert_eq!(out, [Action::InstallSnapshot(again)]);
    // The leader is lost before the state is on its way to the disk: what was there is there.
    let mut lost = told_to_cut();
    step(&mut lost, 1, Event::TruncateRefused);
    step(&mut lost, 1, Event::Connected(ServerId(3), again));
    step(&mut lost, 1, on(again, PacketKind::LeaderInfo, 3 << 32));
    step(&mut lost, 1, on(again, PacketKind::Snap, (2 << 32) + 1));
    let out = step(&mut lost, 1, Event::Closed(again));
    assert!(out.contains(&Action::Reload(tail)), "{out:?}");
    let out = step(&mut zab, 1, on(again, PacketKind::NewLeader, 3 << 32));
    assert_eq!(out, [Action::StoreSnapshot]);
    step(&mut zab, 1, Event::SnapshotStored);
    let out = step(&mut zab, 1, Event::EpochStored(EpochKind::Current, 3));
    assert!(matches!(&out[..], [Action::Send(_, ack)] if kind(ack) == Some(PacketKind::Ack)), "{out:?}");
    assert_eq!(zab.logged(), Zxid((2 << 32) + 1));
}

/// What it has is its word in an acknowledgement that counts: the leader of another epoch is told that.
#[test]
fn no_leader_is_made_by_a_member_that_asks_for_everything() {
    let mut zab = told_to_cut();
    step(&mut zab, 1, Event::TruncateRefused);
    step(&mut zab, 1, Event::Connected(ServerId(3), Link(8)));
    step(&mut zab, 1, on(Link(8), PacketKind::LeaderInfo, 4 << 32));
    let out = step(&mut zab, 1, Event::EpochStored(EpochKind::Accepted, 4));
    assert_eq!(ack_epoch(&out), Some((1, Zxid((1 << 32) + 9))));
}

#[test]
fn whoever_cuts_its_log_votes_when_it_knows_with_what() {
    let ends = [(Event::Truncated, (1 << 32) + 4), (Event::TruncateRefused, (1 << 32) + 9)];
    for (event, last) in ends {
        let mut zab = told_to_cut();
        assert_eq!(step(&mut zab, 1, Event::Closed(LINK)), []);
        let out = step(&mut zab, 2, event);
        assert!(out.contains(&Action::Become(Role::Looking)), "{out:?}");
        let votes = out.iter().filter_map(|action| match action {
            Action::Notify(_, vote) => Some(vote.zxid),
            _ => None,
        });
        assert_eq!(votes.collect::<Vec<_>>(), [Zxid(last), Zxid(last)]);
    }
}

#[test]
fn whoever_begins_to_look_late_is_told_the_better_vote_again() {
    let mut zab = member(2, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(1), true));
    let votes = |out: &[Action]| -> Vec<(ServerId, i64)> {
        let told = out.iter().filter_map(|action| match action {
            Action::Notify(to, vote) => Some((*to, vote.leader)),
            _ => None,
        });
        told.collect()
    };
    // Member 1 votes for itself: it cannot have taken in that member 2 is better.
    let out = step(&mut zab, 1, Event::Vote(ServerId(1), vote(1)));
    assert_eq!(votes(&out), [(ServerId(1), 2)]);
    // And agrees: a quorum, and nobody who can be reached is silent.
    let out = step(&mut zab, 2, Event::Vote(ServerId(1), vote(2)));
    assert_eq!(votes(&out), []);
    assert_eq!(zab.peer_state(), PeerState::Leading);
}

/// An epoch that was accepted before may have been another leader's: two of one number must not come of it.
#[test]
fn an_epoch_accepted_before_counts_for_nobody() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    for other in [1, 2] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    let introduce = |zab: &mut Zab, sid: i64| {
        let link = Link(sid as u64);
        let info = zoometry_wire::peer::LearnerInfo { sid, protocol: 0x10000, config_version: 0 };
        step(zab, 0, Event::Accepted(link));
        let packet = QuorumPacket::new(PacketKind::FollowerInfo, Zxid(0)).with_data(info.to_bytes());
        step(zab, 0, Event::Packet(link, packet))
    };
    assert_eq!(introduce(&mut zab, 1), [Action::StoreEpoch(EpochKind::Accepted, 1)]);
    introduce(&mut zab, 2);
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 1));
    let mut accept = |sid: u64, current_epoch: i32| {
        let data = Bytes::copy_from_slice(&current_epoch.to_be_bytes());
        let packet = QuorumPacket::new(PacketKind::AckEpoch, Zxid(0)).with_data(data);
        step(&mut zab, 0, Event::Packet(Link(sid), packet))
    };
    assert_eq!(accept(1, -1), []);
    assert_eq!(accept(2, 0), [Action::StoreEpoch(EpochKind::Current, 1)]);
}

#[test]
fn what_a_learner_acknowledged_before_it_came_again_counts_no_more() {
    let mut zab = member_of(5, 5, None);
    step(&mut zab, 0, Event::Tick);
    for other in 1..=4 {
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(5)));
    }
    let say = |zab: &mut Zab, link: u64, kind: PacketKind, zxid: i64, data: Option<bytes::Bytes>| {
        let packet = QuorumPacket { data, ..QuorumPacket::new(kind, Zxid(zxid)) };
        step(zab, 0, Event::Packet(Link(link), packet))
    };
    let come = |zab: &mut Zab, link: u64, sid: i64| {
        step(zab, 0, Event::Accepted(Link(link)));
        let info = zoometry_wire::peer::LearnerInfo { sid, protocol: 0x10000, config_version: 0 };
        say(zab, link, PacketKind::FollowerInfo, 0, Some(info.to_bytes()));
    };
    for sid in [1, 2] {
        come(&mut zab, sid as u64, sid);
    }
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 1));
    for link in [1, 2] {
        say(&mut zab, link, PacketKind::AckEpoch, 0, Some(0i32.to_bytes()));
    }
    step(&mut zab, 0, Event::EpochStored(EpochKind::Current, 1));
    for link in [1, 2] {
        say(&mut zab, link, PacketKind::Ack, 1 << 32, None);
    }
    assert!(zab.is_established());
    let first = (1 << 32) + 1;
    step(&mut zab, 0, Event::Propose(Zxid(first), bytes::Bytes::from_static(b"txn")));
    step(&mut zab, 0, Event::Durable(Zxid(first)));
    say(&mut zab, 1, PacketKind::Ack, first, None);
    // Member 1 comes again, with the proposal in its log: it is told to cut it off.
    step(&mut zab, 0, Event::Closed(Link(1)));
    come(&mut zab, 11, 1);
    say(&mut zab, 11, PacketKind::AckEpoch, first, Some((-1i32).to_bytes()));
    let committed = |out: &[Action]| out.iter().any(|action| matches!(action, Action::Apply(..)));
    let out = say(&mut zab, 2, PacketKind::Ack, first, None);
    assert!(!committed(&out), "it is on two disks of five for certain: {out:?}");
    say(&mut zab, 11, PacketKind::Ack, 1 << 32, None);
    let out = say(&mut zab, 11, PacketKind::Ack, first, None);
    assert!(committed(&out), "{out:?}");
}

/// A search through all that waits, for every commit, would take this minutes.
#[test]
fn what_is_committed_before_a_learner_is_up_to_date_costs_the_same_each() {
    const WRITES: i64 = 200_000;
    let mut zab = synchronised(None);
    for count in 1..=WRITES {
        step(&mut zab, 0, packet(PacketKind::Proposal, (1 << 32) + count));
        step(&mut zab, 0, packet(PacketKind::Commit, (1 << 32) + count));
    }
    let out = step(&mut zab, 10, packet(PacketKind::UpToDate, -1));
    let applied = out.iter().filter(|action| matches!(action, Action::Apply(..))).count();
    assert_eq!(applied as i64, WRITES);
}
