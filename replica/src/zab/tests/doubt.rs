//! Members that have reason to think that their state is wrong.

use super::*;

const LAST: Zxid = Zxid(1 << 32 | 9);
const AGAIN: Link = Link(8);
/// `initLimit` and `syncLimit` of these members, ms.
const INIT_MS: u64 = 10 * TICK_MS;
const SYNC_MS: u64 = 5 * TICK_MS;

fn doubting(me: i64, doubt: Doubt) -> Zab {
    let recovered = Recovered { last_zxid: LAST, accepted_epoch: 1, current_epoch: 1 };
    let mut zab = member_with(3, me, None, recovered);
    zab.distrust(doubt);
    zab
}

fn votes(out: &[Action]) -> Vec<(i64, Zxid)> {
    let told = out.iter().filter_map(|action| match action {
        Action::Notify(_, vote) => Some((vote.leader, vote.zxid)),
        _ => None,
    });
    told.collect()
}

/// A vote in the second epoch's election for a member whose history ends there.
fn vote_at(leader: i64, zxid: Zxid, round: i64) -> Notification {
    Notification { zxid, peer_epoch: 1, election_epoch: round, ..vote(leader) }
}

/// Members 1 and 2 have elected member 2, and say so.
fn elected_without_it(zab: &mut Zab, now_ms: u64) -> Vec<Action> {
    let follows = Notification { state: PeerState::Following, ..vote_at(2, LAST, 5) };
    let leads = Notification { state: PeerState::Leading, ..follows.clone() };
    let mut out = step(zab, now_ms, Event::Vote(ServerId(1), follows));
    out.extend(step(zab, now_ms, Event::Vote(ServerId(2), leads)));
    out
}

/// Its leader is member 2 in epoch 2, which it has not accepted before.
fn acknowledges(zab: &mut Zab, now_ms: u64, link: Link) -> Option<(i32, Zxid)> {
    step(zab, now_ms, Event::Connected(ServerId(2), link));
    let mut out = step(zab, now_ms, on(link, PacketKind::LeaderInfo, 2 << 32));
    out.extend(step(zab, now_ms, Event::EpochStored(EpochKind::Accepted, 2)));
    ack_epoch(&out)
}

/// It takes the whole state from that link, and follows.
fn takes_the_state(zab: &mut Zab, now_ms: u64, link: Link) {
    let out = step(zab, now_ms, on(link, PacketKind::Snap, LAST.0));
    assert_eq!(out, [Action::InstallSnapshot(link)]);
    let out = step(zab, now_ms, on(link, PacketKind::NewLeader, 2 << 32));
    assert_eq!(out, [Action::StoreSnapshot]);
    step(zab, now_ms, Event::SnapshotStored);
    step(zab, now_ms, Event::EpochStored(EpochKind::Current, 2));
    let out = step(zab, now_ms, on(link, PacketKind::UpToDate, -1));
    assert!(out.iter().any(|action| matches!(action, Action::Become(Role::Following { .. }))), "{out:?}");
}

#[test]
fn a_member_with_a_hole_elects_nobody_until_it_has_a_leaders_state() {
    let mut zab = doubting(3, Doubt::Missing);
    let out = step(&mut zab, 0, Event::Tick);
    assert_eq!(votes(&out), [(3, NO_DATA), (3, NO_DATA)]);
    // Whatever the others have, and for as long as it takes.
    for other in [1, 2] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        let out = step(&mut zab, 1, Event::Vote(ServerId(other), vote_at(other, Zxid(LAST.0 + 1), 1)));
        assert_eq!(votes(&out), []);
    }
    let out: Vec<Action> =
        (2..10 * INIT_MS).step_by(10).flat_map(|now| step(&mut zab, now, Event::Tick)).collect();
    assert!(votes(&out).iter().all(|vote| *vote == (3, NO_DATA)), "{out:?}");
    assert_eq!(zab.peer_state(), PeerState::Looking);
    let now = 10 * INIT_MS;
    assert!(elected_without_it(&mut zab, now).contains(&Action::Connect(ServerId(2))));
    assert_eq!(acknowledges(&mut zab, now, LINK), Some((-1, NO_DATA)), "which counts for nothing");
    assert!(zab.is_missing_some());
    takes_the_state(&mut zab, now, LINK);
    assert!(!zab.is_in_doubt());
    // From now on it votes as everybody does.
    let out = step(&mut zab, now, Event::Closed(LINK));
    assert_eq!(votes(&out), [(3, LAST), (3, LAST)]);
}

/// The leader is lost before its state is on its way to the disk: nothing is better than before.
#[test]
fn half_a_state_is_no_state() {
    let mut zab = doubting(3, Doubt::Missing);
    step(&mut zab, 0, Event::Tick);
    elected_without_it(&mut zab, 0);
    acknowledges(&mut zab, 0, LINK);
    step(&mut zab, 0, on(LINK, PacketKind::Snap, LAST.0 + 7));
    let out = step(&mut zab, 1, Event::Closed(LINK));
    assert!(out.contains(&Action::Reload(LAST)), "{out:?}");
    assert_eq!(votes(&out), [(3, NO_DATA), (3, NO_DATA)]);
}

/// The only voter: nobody else could elect it.
#[test]
fn a_member_with_a_hole_does_not_elect_itself() {
    let recovered = Recovered { last_zxid: LAST, accepted_epoch: 1, current_epoch: 1 };
    for (doubt, state) in [(None, PeerState::Leading), (Some(Doubt::Missing), PeerState::Looking)] {
        let mut zab = member_with(1, 1, None, recovered);
        doubt.into_iter().for_each(|doubt| zab.distrust(doubt));
        (0..5000).step_by(50).for_each(|now| drop(step(&mut zab, now, Event::Tick)));
        assert_eq!(zab.peer_state(), state);
    }
}

/// First others are to be elected, then it votes for one of them, then it stands: an ensemble of nothing but members whose
/// digest differs comes up.
#[test]
fn a_member_whose_digest_differs_waits_and_then_votes() {
    let mut zab = doubting(3, Doubt::Differs);
    step(&mut zab, 0, Event::Tick);
    step(&mut zab, 0, Event::Reachable(ServerId(1), true));
    let until = |zab: &mut Zab, from: u64, upto: u64| -> Vec<(i64, Zxid)> {
        let out: Vec<Action> = (from..upto).step_by(10).flat_map(|now| step(zab, now, Event::Tick)).collect();
        votes(&out)
    };
    let first = vote_at(1, LAST, 1);
    step(&mut zab, 10, Event::Vote(ServerId(1), first.clone()));
    assert!(until(&mut zab, 10, SYNC_MS).iter().all(|vote| vote.1 == NO_DATA), "silent");
    until(&mut zab, SYNC_MS, SYNC_MS + 20);
    let behind = Notification { zxid: Zxid(LAST.0 - 1), ..first.clone() };
    let told = step(&mut zab, SYNC_MS + 20, Event::Vote(ServerId(1), behind));
    assert!(votes(&told).iter().all(|vote| vote.1 == NO_DATA), "not for a shorter history: {told:?}");
    let mut other = doubting(3, Doubt::Differs);
    step(&mut other, 0, Event::Tick);
    step(&mut other, 0, Event::Reachable(ServerId(1), true));
    until(&mut other, 0, SYNC_MS + 20);
    let told =
        step(&mut other, SYNC_MS + 20, Event::Vote(ServerId(1), Notification { election_epoch: 3, ..first }));
    assert!(votes(&told).contains(&(1, LAST)), "{told:?}");
    assert_eq!(other.peer_state(), PeerState::Following);
    // The first one has found nobody.
    assert!(until(&mut zab, SYNC_MS + 20, 2 * SYNC_MS + 50).contains(&(3, LAST)), "stands itself");
}

/// Member 1, 2 or 3 of three as a follower of member 2 or 3 in epoch 2, with the others in sight since long ago.
fn settled(me: i64) -> Zab {
    let recovered = Recovered { last_zxid: LAST, accepted_epoch: 1, current_epoch: 1 };
    let mut zab = member_with(3, me, None, recovered);
    step(&mut zab, 0, Event::Tick);
    for other in (1..=3).filter(|other| *other != me) {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
    }
    elected_without_it(&mut zab, 0);
    assert_eq!(acknowledges(&mut zab, 0, LINK), Some((1, LAST)));
    step(&mut zab, 0, on(LINK, PacketKind::Diff, LAST.0));
    step(&mut zab, 0, on(LINK, PacketKind::NewLeader, 2 << 32));
    step(&mut zab, 0, Event::EpochStored(EpochKind::Current, 2));
    step(&mut zab, 0, on(LINK, PacketKind::UpToDate, -1));
    zab
}

/// When a follower whose leader speaks leaves it, up to a time.
fn leaves_at(zab: &mut Zab, link: Link, from: u64, upto: u64) -> Option<u64> {
    (from..upto).step_by(10).find(|now| {
        step(zab, *now, on(link, PacketKind::Ping, 0));
        step(zab, *now, Event::Tick).contains(&Action::Become(Role::Looking))
    })
}

const FIRST: Zxid = Zxid(2 << 32 | 1);

#[test]
fn a_follower_whose_digest_differs_takes_the_whole_state_once() {
    let mut zab = settled(3);
    let out = step(&mut zab, 100, Event::Compared(FIRST, false));
    assert_eq!(out, [Action::Tell(Why::Differs(FIRST))]);
    let left = leaves_at(&mut zab, LINK, 100, 5000).expect("a quorum goes on without it");
    assert!(elected_without_it(&mut zab, left).contains(&Action::Connect(ServerId(2))));
    assert_eq!(acknowledges(&mut zab, left, AGAIN), Some((-1, NO_DATA)));
    takes_the_state(&mut zab, left, AGAIN);
    // And again: it serves on, and says so once.
    let out = step(&mut zab, left, Event::Compared(FIRST, false));
    assert_eq!(out, [Action::Tell(Why::DiffersAgain(FIRST))]);
    assert!(Why::DiffersAgain(FIRST).is_error());
    assert_eq!(step(&mut zab, left, Event::Compared(FIRST.next(), false)), []);
    assert_eq!(leaves_at(&mut zab, AGAIN, left, left + 5000), None);
    // Nor does the next election wait for it.
    let out = step(&mut zab, left + 5000, Event::Closed(AGAIN));
    assert!(votes(&out).iter().all(|vote| vote.1 == LAST), "{out:?}");
}

#[test]
fn a_digest_that_agrees_again_ends_the_doubt() {
    let mut zab = settled(3);
    step(&mut zab, 100, Event::Compared(FIRST, false));
    assert!(zab.is_in_doubt());
    step(&mut zab, 110, Event::Compared(FIRST.next(), true));
    assert!(!zab.is_in_doubt());
    assert_eq!(leaves_at(&mut zab, LINK, 110, 5000), None);
}

/// A wrong digest from the leader is seen by all followers at once: one of them is away at a time, and none if the
/// others are no quorum.
#[test]
fn followers_whose_digests_differ_leave_one_after_the_other() {
    let at = |me: i64| {
        let mut zab = settled(me);
        step(&mut zab, 2000, Event::Compared(FIRST, false));
        zab
    };
    let first = leaves_at(&mut at(1), LINK, 2000, 5000).expect("it leaves");
    let third = leaves_at(&mut at(3), LINK, 2000, 5000).expect("it leaves when it is alone with that");
    assert!(third >= first + TICK_MS, "{first} {third}");
    // Member 3 hears that member 1 looks for a leader: it stays while member 1 may be away.
    let mut zab = at(3);
    assert_eq!(leaves_at(&mut zab, LINK, 2000, first), None);
    step(&mut zab, first, Event::Vote(ServerId(1), vote_at(1, NO_DATA, 9)));
    assert_eq!(leaves_at(&mut zab, LINK, first, first + INIT_MS), None);
    assert!(leaves_at(&mut zab, LINK, first + INIT_MS, first + 2 * INIT_MS).is_some());
    // With one of three down nobody leaves.
    let mut zab = at(3);
    step(&mut zab, 2000, Event::Reachable(ServerId(1), false));
    assert_eq!(leaves_at(&mut zab, LINK, 2000, 20_000), None);
}

/// A leader that leaves out transactions is asked for the whole state when it is found again, and not for the same
/// DIFF.
#[test]
fn a_leader_that_skips_transactions_is_asked_for_its_state() {
    for next in [LAST.0 + 2, 2 << 32 | 2] {
        let recovered = Recovered { last_zxid: LAST, accepted_epoch: 1, current_epoch: 1 };
        let mut zab = member_with(3, 3, None, recovered);
        step(&mut zab, 0, Event::Tick);
        elected_without_it(&mut zab, 0);
        assert_eq!(acknowledges(&mut zab, 0, LINK), Some((1, LAST)));
        step(&mut zab, 0, on(LINK, PacketKind::Diff, next));
        let out = step(&mut zab, 0, on(LINK, PacketKind::Proposal, next));
        let why = Why::LeaderSkipped { leader: ServerId(2), last: LAST, next: Zxid(next) };
        assert!(out.contains(&Action::Tell(why)), "{out:?}");
        elected_without_it(&mut zab, 1);
        assert_eq!(acknowledges(&mut zab, 1, AGAIN), Some((-1, NO_DATA)));
    }
}
