//! What a learner or a voter says is checked before it changes anything.

use super::*;
use zoometry_wire::peer::LearnerInfo;

/// Leads epoch 6 of five members as member 5, with members 1 and 2 following over links 1 and 2.
fn leading() -> Zab {
    let mut zab = elected();
    for sid in [1, 2] {
        come(&mut zab, sid as u64, PacketKind::FollowerInfo, sid, 5);
    }
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 6));
    for link in [1, 2] {
        say(&mut zab, link, PacketKind::AckEpoch, 0, Some(5i32.to_bytes()));
    }
    step(&mut zab, 0, Event::EpochStored(EpochKind::Current, 6));
    for link in [1, 2] {
        say(&mut zab, link, PacketKind::Ack, 6 << 32, None);
    }
    assert!(zab.is_established());
    zab
}

/// Member 5 of five, which has accepted epoch 5, is elected; nobody has come to it yet.
fn elected() -> Zab {
    let recovered = Recovered { last_zxid: Zxid(0), accepted_epoch: 5, current_epoch: 5 };
    let mut zab = member_with(5, 5, None, recovered);
    step(&mut zab, 0, Event::Tick);
    for other in 1..=4 {
        step(&mut zab, 0, Event::Vote(ServerId(other), Notification { peer_epoch: 5, ..vote(5) }));
    }
    assert_eq!(zab.peer_state(), PeerState::Leading);
    zab
}

fn say(zab: &mut Zab, link: u64, kind: PacketKind, zxid: i64, data: Option<Bytes>) -> Vec<Action> {
    let packet = QuorumPacket { data, ..QuorumPacket::new(kind, Zxid(zxid)) };
    step(zab, 0, Event::Packet(Link(link), packet))
}

/// Somebody connects and introduces itself.
fn come(zab: &mut Zab, link: u64, kind: PacketKind, sid: i64, accepted: i64) -> Vec<Action> {
    let mut out = step(zab, 0, Event::Accepted(Link(link)));
    out.extend(introduce(zab, link, kind, sid, accepted));
    out
}

fn introduce(zab: &mut Zab, link: u64, kind: PacketKind, sid: i64, accepted: i64) -> Vec<Action> {
    let info = LearnerInfo { sid, protocol: 0x10000, config_version: 0 };
    say(zab, link, kind, accepted << 32, Some(info.to_bytes()))
}

/// Comes, and goes all the way until it is synchronised.
fn join(zab: &mut Zab, link: u64, kind: PacketKind, sid: i64) {
    come(zab, link, kind, sid, 5);
    say(zab, link, PacketKind::AckEpoch, 0, Some((-1i32).to_bytes()));
    say(zab, link, PacketKind::Ack, 6 << 32, None);
}

fn is_closed(out: &[Action], link: u64) -> bool {
    out.contains(&Action::Close(Link(link)))
}

/// Apache's leader goes on, too (`Leader.getEpochToPropose`): the epoch is chosen.
#[test]
fn no_announced_epoch_deposes_a_serving_leader() {
    for kind in [PacketKind::FollowerInfo, PacketKind::ObserverInfo] {
        for sid in [1, 3, 5, 9, -1, i64::MAX] {
            for accepted in [7, 1_000_000_000, EPOCH_MAX, -1, i64::from(i32::MIN)] {
                let mut zab = leading();
                come(&mut zab, 20, kind, sid, accepted);
                let out = step(&mut zab, 10, Event::Tick);
                assert!(zab.is_established(), "{kind:?} of {sid} with epoch {accepted}: {out:?}");
                assert!(!is_closed(&out, 1) && !is_closed(&out, 2), "{out:?}");
            }
        }
    }
}

/// Before the epoch is chosen it has to be above all that voters have accepted, within reason.
#[test]
fn only_voters_choose_the_epoch_and_only_within_reason() {
    let far = EPOCH_MAX - EPOCHS_KEPT;
    let cases = [
        (PacketKind::FollowerInfo, 1, 8, Some(9), "a voter"),
        (PacketKind::FollowerInfo, 1, far, Some(far + 1), "a voter that is far ahead"),
        (PacketKind::FollowerInfo, 1, far + 1, None, "a voter beyond reason"),
        (PacketKind::FollowerInfo, 1, EPOCH_MAX, None, "a voter at the end of all epochs"),
        (PacketKind::FollowerInfo, 1, -1, None, "a voter with a negative epoch"),
        (PacketKind::ObserverInfo, 1, 8, None, "a voter that comes as an observer"),
        (PacketKind::FollowerInfo, 9, 8, None, "an unlisted id"),
        (PacketKind::ObserverInfo, 9, EPOCH_MAX, None, "an observer"),
    ];
    for (kind, sid, accepted, expected, who) in cases {
        let mut zab = elected();
        let mut out = come(&mut zab, 1, kind, sid, accepted);
        // With member 2 there are two of five, or three.
        out.extend(come(&mut zab, 2, PacketKind::FollowerInfo, 2, 5));
        let stored = out.iter().find_map(|action| match action {
            Action::StoreEpoch(EpochKind::Accepted, epoch) => Some(*epoch),
            _ => None,
        });
        assert_eq!(stored, expected, "{who}");
        if expected.is_none() {
            let out = come(&mut zab, 3, PacketKind::FollowerInfo, 3, 5);
            assert_eq!(out, [Action::StoreEpoch(EpochKind::Accepted, 6)], "{who} has raised nothing");
        }
    }
}

/// An ensemble that has come so far goes on, a step at a time.
#[test]
fn among_the_last_epochs_only_the_next_ones_are_believed() {
    let own = EPOCH_MAX - 100;
    for (accepted, believed) in [(own + EPOCHS_AHEAD_MAX, true), (own + EPOCHS_AHEAD_MAX + 1, false)] {
        let recovered = Recovered { last_zxid: Zxid(0), accepted_epoch: own, current_epoch: own };
        let mut zab = member_with(3, 3, None, recovered);
        step(&mut zab, 0, Event::Tick);
        for other in [1, 2] {
            step(&mut zab, 0, Event::Vote(ServerId(other), Notification { peer_epoch: own, ..vote(3) }));
        }
        let out = come(&mut zab, 1, PacketKind::FollowerInfo, 1, accepted);
        let stored = out.contains(&Action::StoreEpoch(EpochKind::Accepted, accepted + 1));
        assert_eq!((stored, is_closed(&out, 1)), (believed, !believed), "{out:?}");
    }
}

#[test]
fn the_last_epoch_is_the_end_and_says_so() {
    let recovered = Recovered { last_zxid: Zxid(0), accepted_epoch: EPOCH_MAX, current_epoch: 5 };
    let mut zab = member_with(1, 1, None, recovered);
    let out = step(&mut zab, 0, Event::Tick);
    let said = out.iter().find_map(|action| match action {
        Action::Fail(why) => Some(why.as_str()),
        _ => None,
    });
    assert!(said.is_some_and(|why| why.contains("acceptedEpoch")), "{out:?}");
    assert!(!out.iter().any(|action| matches!(action, Action::StoreEpoch(..))), "{out:?}");
}

#[test]
fn only_what_voters_acknowledge_counts() {
    let first = (6 << 32) + 1;
    let strangers =
        [(PacketKind::FollowerInfo, 9), (PacketKind::ObserverInfo, 9), (PacketKind::ObserverInfo, 3)];
    for (kind, sid) in strangers {
        let mut zab = leading();
        join(&mut zab, 20, kind, sid);
        step(&mut zab, 0, Event::Propose(Zxid(first), Bytes::from_static(b"txn")));
        step(&mut zab, 0, Event::Durable(Zxid(first)));
        say(&mut zab, 1, PacketKind::Ack, first, None);
        let committed = |out: &[Action]| out.iter().any(|action| matches!(action, Action::Apply(..)));
        assert!(!committed(&say(&mut zab, 20, PacketKind::Ack, first, None)), "{kind:?} of {sid}");
        assert!(committed(&say(&mut zab, 2, PacketKind::Ack, first, None)));
        // Nor does it stand in for a voter that has gone.
        step(&mut zab, 0, Event::Closed(Link(2)));
        step(&mut zab, 10, Event::Tick);
        assert_eq!(zab.peer_state(), PeerState::Looking, "{kind:?} of {sid}");
    }
}

/// Its acknowledgement would stand for the leader's own disk.
#[test]
fn nobody_else_is_this_leader() {
    for sid in [5, -1, i64::MIN] {
        let mut zab = leading();
        step(&mut zab, 0, Event::Accepted(Link(19)));
        let out = come(&mut zab, 20, PacketKind::FollowerInfo, sid, 5);
        assert!(is_closed(&out, 20), "{sid}: {out:?}");
        assert!(!is_closed(&out, 19), "one that has not spoken yet is nobody's double: {out:?}");
    }
}

/// An unlisted follower is told proposals and commits, as Apache's `Follower` expects them; an observer, what is
/// committed.
#[test]
fn an_unlisted_follower_is_fed_as_a_follower() {
    let first = Zxid((6 << 32) + 1);
    let cases = [
        (PacketKind::FollowerInfo, vec![PacketKind::Proposal, PacketKind::Commit]),
        (PacketKind::ObserverInfo, vec![PacketKind::Inform]),
    ];
    for (introduction, expected) in cases {
        let mut zab = leading();
        join(&mut zab, 20, introduction, 9);
        let mut out = step(&mut zab, 0, Event::Propose(first, Bytes::from_static(b"txn")));
        out.extend(step(&mut zab, 0, Event::Durable(first)));
        for link in [1, 2] {
            out.extend(say(&mut zab, link, PacketKind::Ack, first.0, None));
        }
        let told = out.iter().filter_map(|action| match action {
            Action::Send(Link(20), packet) => kind(packet),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}

/// A word alone does not cut a follower off: who claims its id must have come as far as the epoch.
#[test]
fn a_second_claim_of_an_id_has_to_prove_itself_first() {
    let mut zab = leading();
    let out = come(&mut zab, 20, PacketKind::FollowerInfo, 2, 5);
    assert!(!is_closed(&out, 2), "{out:?}");
    let out = come(&mut zab, 21, PacketKind::FollowerInfo, 2, 5);
    assert!(is_closed(&out, 20) && !is_closed(&out, 2), "claims do not pile up: {out:?}");
    let out = say(&mut zab, 21, PacketKind::AckEpoch, 0, Some((-1i32).to_bytes()));
    assert!(is_closed(&out, 2), "member 2 is there: {out:?}");
    // An observer of that name takes no voter's place, however far it comes.
    join(&mut zab, 22, PacketKind::ObserverInfo, 1);
    assert!(zab.learner(Link(1)).is_some() && zab.learner(Link(22)).is_some());
}

#[test]
fn who_is_not_synchronised_asks_for_nothing() {
    for asked in [PacketKind::Request, PacketKind::Revalidate, PacketKind::Ping] {
        let mut zab = leading();
        come(&mut zab, 20, PacketKind::FollowerInfo, 9, 5);
        let out = say(&mut zab, 20, asked, -1, Some(Bytes::new()));
        assert!(is_closed(&out, 20), "{out:?}");
        let mut zab = leading();
        come(&mut zab, 20, PacketKind::FollowerInfo, 9, 5);
        say(&mut zab, 20, PacketKind::AckEpoch, 0, Some((-1i32).to_bytes()));
        assert_eq!(say(&mut zab, 20, asked, -1, Some(Bytes::new())), []);
    }
}

/// During an election whoever is no voter makes room for those that are.
#[test]
fn strangers_do_not_fill_the_place_of_voters() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    for link in 100..100 + 2 * (3 * EARLY_LINKS_PER_VOTER) as u64 {
        come(&mut zab, link, PacketKind::ObserverInfo, link as i64, 0);
    }
    assert_eq!(step(&mut zab, 0, Event::Accepted(Link(1))), [Action::Close(Link(109))]);
    assert_eq!(introduce(&mut zab, 1, PacketKind::FollowerInfo, 1, 0), []);
    for link in 200..300 {
        assert!(!is_closed(&come(&mut zab, link, PacketKind::FollowerInfo, 9, 0), 1));
    }
    let out = step(&mut zab, 0, Event::Vote(ServerId(2), vote(3)));
    assert!(out.contains(&Action::StoreEpoch(EpochKind::Accepted, 1)), "voter 1 has waited: {out:?}");
}

/// Member 1 has accepted epoch 5; the others lost their data and serve in epoch 1. It stays outside, without haste.
#[test]
fn who_cannot_follow_tries_again_with_pauses_until_there_is_another_epoch() {
    let recovered = Recovered { last_zxid: Zxid(5 << 32 | 9), accepted_epoch: 5, current_epoch: 5 };
    let mut zab = member_with(3, 1, None, recovered);
    let settled = |from, state, peer_epoch| {
        let told = Notification { state, election_epoch: 1, peer_epoch, zxid: Zxid(0), ..vote(3) };
        Event::Vote(ServerId(from), told)
    };
    step(&mut zab, 0, Event::Tick);
    let (mut tries, mut link) = (Vec::new(), 0);
    for now_ms in (0..20_000).step_by(50) {
        let mut out = step(&mut zab, now_ms, settled(2, PeerState::Following, 1));
        out.extend(step(&mut zab, now_ms, settled(3, PeerState::Leading, 1)));
        if out.contains(&Action::Connect(ServerId(3))) {
            tries.push(now_ms);
            link += 1;
            step(&mut zab, now_ms, Event::Connected(ServerId(3), Link(link)));
            step(&mut zab, now_ms, on(Link(link), PacketKind::LeaderInfo, 1 << 32));
            assert_eq!(zab.peer_state(), PeerState::Looking);
        }
    }
    assert_eq!(tries, [0, 1_000, 3_000, 7_000, 15_000]);
    step(&mut zab, 20_000, settled(2, PeerState::Following, 6));
    let out = step(&mut zab, 20_000, settled(3, PeerState::Leading, 6));
    assert!(out.contains(&Action::Connect(ServerId(3))), "the next epoch is tried at once: {out:?}");
}

#[test]
fn a_round_has_no_end() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    for round in [i64::MAX, i64::MIN, i64::MAX] {
        let told = Notification { election_epoch: round, ..vote(3) };
        step(&mut zab, 0, Event::Vote(ServerId(1), told.clone()));
        if zab.peer_state() == PeerState::Looking {
            // It is in an earlier round than this member, says so, and is told the later one.
            step(&mut zab, 0, Event::Vote(ServerId(1), Notification { election_epoch: i64::MAX, ..told }));
        }
        step(&mut zab, 300, Event::Tick);
        assert_eq!(zab.peer_state(), PeerState::Leading, "round {round}");
        step(&mut zab, 300, Event::Resign(Why::QuorumLost));
        assert_eq!(zab.peer_state(), PeerState::Looking);
    }
}

#[test]
fn a_vote_of_an_epoch_that_cannot_be_is_no_vote() {
    for peer_epoch in [EPOCH_MAX + 1, i64::MAX, -1, i64::MIN] {
        for state in [PeerState::Looking, PeerState::Following, PeerState::Leading] {
            let mut zab = member(1, None);
            step(&mut zab, 0, Event::Tick);
            for other in [2, 3] {
                let told = Notification { state, peer_epoch, ..vote(3) };
                assert_eq!(step(&mut zab, 0, Event::Vote(ServerId(other), told)), [], "{peer_epoch}");
            }
            assert_eq!(zab.peer_state(), PeerState::Looking);
        }
    }
}

#[test]
fn a_leader_of_an_epoch_that_cannot_be_is_left() {
    let mut zab = member(1, None);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    let out = step(&mut zab, 0, packet(PacketKind::LeaderInfo, (EPOCH_MAX + 1) << 32));
    assert!(out.contains(&Action::Tell(Why::LeaderConfused(ServerId(3)))), "{out:?}");
    assert!(!out.iter().any(|action| matches!(action, Action::StoreEpoch(..))), "{out:?}");
}
