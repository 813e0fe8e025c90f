//! An election that has come to nothing: nobody waits until initLimit is over for a quorum that will not come.

use super::*;

/// Member 1 has elected member 3 with what member 3 said, and calls it.
fn calling() -> Zab {
    let mut zab = member(1, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(3), true));
    let out = step(&mut zab, 1, Event::Vote(ServerId(3), vote(3)));
    assert!(out.contains(&Action::Connect(ServerId(3))), "{out:?}");
    zab
}

/// Member 2 was elected by member 1 and waits for it.
fn elected() -> Zab {
    let mut zab = member(2, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(1), true));
    step(&mut zab, 1, Event::Vote(ServerId(1), vote(2)));
    assert_eq!(zab.peer_state(), PeerState::Leading);
    zab
}

/// The elected one has not heard the vote that elected it, and tells its own again.
#[test]
fn a_follower_of_an_older_epoch_says_whom_it_elected() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(2), true));
    step(&mut zab, 5, second_vote());
    assert_eq!(zab.peer_state(), PeerState::Following);
    let out = step(&mut zab, 10, second_vote());
    let said = Notification { state: PeerState::Following, election_epoch: 2, peer_epoch: 1, ..vote(2) };
    assert_eq!(out, [Action::Notify(ServerId(2), said)]);
}

/// Member 1 elected member 2, hears of member 3 before it has decided, and turns to that.
#[test]
fn whoever_elected_this_member_may_turn_to_another_while_nobody_follows() {
    let told = |from, leader| Event::Vote(ServerId(from), vote(leader));
    let mut zab = member(2, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(1), true));
    step(&mut zab, 1, told(1, 2));
    assert_eq!(zab.peer_state(), PeerState::Leading);
    step(&mut zab, 2, told(3, 3));
    assert_eq!(zab.peer_state(), PeerState::Leading, "the newcomer alone changes nothing");
    let out = step(&mut zab, 3, told(1, 3));
    assert_eq!(zab.peer_state(), PeerState::Looking);
    assert!(out.contains(&Action::Become(Role::Looking)), "{out:?}");
}

/// Member 3 heard of a later round before it counted member 1's vote, which is of no use to it then.
#[test]
fn whoever_follows_one_that_looks_on_looks_too() {
    let mut zab = member(1, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(3), true));
    step(&mut zab, 1, Event::Vote(ServerId(3), vote(3)));
    step(&mut zab, 2, Event::Connected(ServerId(3), LINK));
    assert_eq!(zab.peer_state(), PeerState::Following);
    step(&mut zab, 3, Event::Vote(ServerId(3), vote(3)));
    assert_eq!(zab.peer_state(), PeerState::Following, "it repeats itself");
    let out = step(&mut zab, 4, Event::Vote(ServerId(3), Notification { election_epoch: 9, ..vote(3) }));
    assert!(out.contains(&Action::Close(LINK)), "{out:?}");
    assert_eq!(zab.peer_state(), PeerState::Looking);
}

/// Member 1 elected member 2 while its newer epoch was on its way to the disk; it was refused, and looks again.
#[test]
fn whoever_was_refused_for_its_later_epoch_may_lead_at_once() {
    let mut zab = member(2, None);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(1), true));
    step(&mut zab, 1, Event::Vote(ServerId(1), vote(2)));
    assert_eq!(zab.peer_state(), PeerState::Leading);
    let again = Notification { election_epoch: 2, peer_epoch: 1, ..vote(1) };
    step(&mut zab, 5, Event::Vote(ServerId(1), again.clone()));
    assert_eq!(zab.peer_state(), PeerState::Looking);
    step(&mut zab, 6, Event::Vote(ServerId(1), again));
    assert_eq!(zab.peer_state(), PeerState::Following);
}

/// It was the vote of an earlier life of member 3, that had waited for a connection.
#[test]
fn whoever_follows_one_that_has_begun_again_looks_too() {
    let mut zab = calling();
    step(&mut zab, 2, Event::Connected(ServerId(3), LINK));
    step(&mut zab, 3, Event::Vote(ServerId(3), Notification { peer_epoch: 1, ..vote(3) }));
    assert_eq!(zab.peer_state(), PeerState::Looking);
}

/// An Apache member opens its port 200 ms after this one has decided.
#[test]
fn a_leader_that_does_not_answer_yet_is_called_again() {
    let mut zab = calling();
    for tries in 1..10 {
        let out = step(&mut zab, 50 * tries, Event::Unreachable(ServerId(3)));
        assert_eq!(out, [Action::Connect(ServerId(3))], "try {tries}");
    }
}

#[test]
fn a_leader_that_is_gone_altogether_is_not_called_again() {
    let mut zab = calling();
    step(&mut zab, 2, Event::Reachable(ServerId(3), false));
    assert_eq!(zab.peer_state(), PeerState::Following, "its election connection may come up anew");
    step(&mut zab, 50, Event::Unreachable(ServerId(2)));
    assert_eq!(zab.peer_state(), PeerState::Following, "that is somebody else");
    step(&mut zab, 50, Event::Unreachable(ServerId(3)));
    assert_eq!(zab.peer_state(), PeerState::Looking);
}

#[test]
fn a_connection_to_an_earlier_leader_is_not_taken_for_that_to_the_present_one() {
    let mut zab = calling();
    assert_eq!(step(&mut zab, 2, Event::Connected(ServerId(2), LINK)), [Action::Close(LINK)]);
    let out = step(&mut zab, 3, Event::Connected(ServerId(3), Link(8)));
    assert!(matches!(&out[..], [Action::Send(Link(8), _)]), "{out:?}");
}

#[test]
fn an_elected_member_does_not_wait_for_one_that_has_gone() {
    let mut zab = elected();
    step(&mut zab, 2, Event::Reachable(ServerId(3), false));
    assert_eq!(zab.peer_state(), PeerState::Leading, "nobody had counted on that one");
    step(&mut zab, 3, Event::Reachable(ServerId(1), false));
    assert_eq!(zab.peer_state(), PeerState::Looking);
}

/// Member 1 of five elected member 5, together with members 2 and 3, of which it knows; both look again.
#[test]
fn whoever_elected_a_leader_with_others_that_look_on_looks_too() {
    let mut zab = member_of(5, 1, None);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 1, Event::Vote(ServerId(other), vote(5)));
    }
    assert_eq!(zab.peer_state(), PeerState::Following);
    step(&mut zab, 2, Event::Vote(ServerId(2), vote(4)));
    assert_eq!(zab.peer_state(), PeerState::Following, "an earlier vote of the same round, late");
    step(&mut zab, 3, Event::Vote(ServerId(2), Notification { election_epoch: 2, ..vote(2) }));
    assert_eq!(zab.peer_state(), PeerState::Looking);
}

/// Member 3 waited for member 1 to vote, too, when member 2, who had elected it, went.
#[test]
fn a_vote_goes_with_its_voter() {
    let mut zab = member(3, None);
    step(&mut zab, 0, Event::Tick);
    for other in [1, 2] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
    }
    step(&mut zab, 1, Event::Vote(ServerId(2), vote(3)));
    step(&mut zab, 2, Event::Reachable(ServerId(2), false));
    step(&mut zab, 3, Event::Vote(ServerId(1), vote(1)));
    assert_eq!(zab.peer_state(), PeerState::Looking, "one of three is no quorum");
    step(&mut zab, 4, Event::Vote(ServerId(1), vote(3)));
    assert_eq!(zab.peer_state(), PeerState::Leading);
}
