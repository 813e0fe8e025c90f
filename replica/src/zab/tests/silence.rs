//! How long a leader may be silent while it synchronises a learner, and what it says meanwhile.

use super::*;
use zoometry_wire::peer::LearnerInfo;

/// `zoometry.leaderSilenceMs`; initLimit is ten times as long.
const SILENCE_MS: u64 = 100;
const INIT_MS: u64 = 10 * TICK_MS;

/// What member 1 hears of the leader, and of its own disk, on its way to becoming a follower. At every step the leader
/// may fall silent.
fn way() -> Vec<Event> {
    vec![
        packet(PacketKind::LeaderInfo, 1 << 32),
        Event::EpochStored(EpochKind::Accepted, 1),
        packet(PacketKind::Snap, 0),
        packet(PacketKind::Proposal, (1 << 32) + 1),
        packet(PacketKind::NewLeader, 1 << 32),
        Event::SnapshotStored,
        Event::EpochStored(EpochKind::Current, 1),
        packet(PacketKind::UpToDate, -1),
    ]
}

/// Member 1 has connected to member 3, and has gone so many steps.
fn on_the_way(silence_ms: Option<u64>, steps: usize, pinged: bool) -> Zab {
    let mut zab = member(1, silence_ms);
    step(&mut zab, 0, Event::Tick);
    for other in [2, 3] {
        step(&mut zab, 0, Event::Reachable(ServerId(other), true));
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    step(&mut zab, 0, Event::Connected(ServerId(3), LINK));
    for event in way().into_iter().take(steps) {
        if pinged {
            assert_eq!(step(&mut zab, 0, packet(PacketKind::Ping, 0)), [], "it is not answered");
        }
        step(&mut zab, 0, event);
    }
    if pinged {
        step(&mut zab, 0, packet(PacketKind::Ping, 0));
    }
    zab
}

/// When it gives its leader up, which says nothing any more.
fn gives_up_at(mut zab: Zab) -> Option<u64> {
    let looks =
        |zab: &mut Zab, now_ms| step(zab, now_ms, Event::Tick).contains(&Action::Become(Role::Looking));
    (1..3000).find(|now_ms| looks(&mut zab, *now_ms))
}

#[test]
fn a_leader_that_pings_may_not_be_silent_for_longer_at_any_time() {
    for steps in 0..=way().len() {
        let at = |silence_ms, pinged| gives_up_at(on_the_way(silence_ms, steps, pinged));
        assert_eq!(at(Some(SILENCE_MS), true), Some(SILENCE_MS), "after {steps} steps");
        let follows = steps == way().len();
        let apache_ms = if follows { 5 * TICK_MS } else { INIT_MS };
        assert_eq!(at(Some(SILENCE_MS), false), Some(apache_ms), "Apache's leader, after {steps} steps");
        assert_eq!(at(None, true), Some(apache_ms), "after {steps} steps");
    }
}

#[test]
fn what_this_member_does_itself_is_no_silence_of_its_leader() {
    let mut zab = on_the_way(Some(SILENCE_MS), 3, true);
    for now_ms in 1..50 {
        assert_eq!(step(&mut zab, now_ms, Event::Tick), []);
    }
    // It has installed a state, for seconds, and sees the time first.
    assert_eq!(step(&mut zab, 5000, Event::Tick), []);
    step(&mut zab, 5001, packet(PacketKind::Ping, 0));
    assert_eq!(step(&mut zab, 5050, Event::Tick), []);
    let gave_up = (5051..6000).find(|now_ms| !step(&mut zab, *now_ms, Event::Tick).is_empty());
    assert_eq!(gave_up, Some(5001 + SILENCE_MS));
}

#[test]
fn bytes_of_a_snapshot_are_as_good_as_pings() {
    let mut zab = on_the_way(Some(SILENCE_MS), 2, true);
    for now_ms in (0..2000).step_by(20) {
        step(&mut zab, now_ms, Event::Moved(LINK));
        assert_eq!(step(&mut zab, now_ms, Event::Tick), [], "at {now_ms}");
    }
}

/// The links that were pinged.
fn pinged(out: &[Action]) -> Vec<u64> {
    let pings = out.iter().filter_map(|action| match action {
        Action::Send(Link(link), packet) if kind(packet) == Some(PacketKind::Ping) => Some(*link),
        _ => None,
    });
    pings.collect()
}

#[test]
fn a_leader_pings_whoever_takes_it_from_the_introduction_on() {
    let mut zab = member(3, Some(SILENCE_MS));
    step(&mut zab, 0, Event::Tick);
    for other in [1, 2] {
        step(&mut zab, 0, Event::Vote(ServerId(other), vote(3)));
    }
    let ours = LearnerInfo { sid: 1, protocol: 0x10000, config_version: 0 };
    let apaches = LearnerInfo { sid: 2, ..ours };
    for (link, info) in [(1, ours.with_pings()), (2, apaches.to_bytes())] {
        step(&mut zab, 0, Event::Accepted(Link(link)));
        let hello = QuorumPacket::new(PacketKind::FollowerInfo, Zxid(0)).with_data(info);
        let out = step(&mut zab, 0, Event::Packet(Link(link), hello));
        assert_eq!(pinged(&out), if link == 1 { vec![1] } else { vec![] });
    }
    let say = |zab: &mut Zab, link: u64, kind: PacketKind, zxid: i64, data: Option<Bytes>| {
        let packet = QuorumPacket { data, ..QuorumPacket::new(kind, Zxid(zxid)) };
        step(zab, 0, Event::Packet(Link(link), packet));
    };
    let mut now_ms = 0;
    let mut pings = |zab: &mut Zab| {
        now_ms += SILENCE_MS / 5;
        pinged(&step(zab, now_ms, Event::Tick))
    };
    assert_eq!(pings(&mut zab), [1], "the epoch is on its way to the disk");
    step(&mut zab, 0, Event::EpochStored(EpochKind::Accepted, 1));
    assert_eq!(pings(&mut zab), [1], "nobody has accepted it");
    for link in [1, 2] {
        say(&mut zab, link, PacketKind::AckEpoch, 0, Some(0i32.to_bytes()));
    }
    step(&mut zab, 0, Event::EpochStored(EpochKind::Current, 1));
    assert_eq!(pings(&mut zab), [1], "both are being synchronised");
    say(&mut zab, 2, PacketKind::Ack, 1 << 32, None);
    assert_eq!(pings(&mut zab), [1, 2], "the one follows, the other is being synchronised");
}
