use super::*;
use crate::op::Op;
use crate::results::{Manifest, MemberFingerprint, PhaseRecord, ServerSample};
use zoometry_wire::ErrorCode;

const MS: u64 = 1_000_000;

fn gap(successes_ms: &[u64], at_ms: u64, over_ms: u64) -> Option<(u64, u64, bool)> {
    gap_of(successes_ms, &[at_ms], 0, over_ms)
}

fn gap_of(successes_ms: &[u64], strikes_ms: &[u64], round: usize, over_ms: u64) -> Option<(u64, u64, bool)> {
    let ns = |times: &[u64]| times.iter().map(|ms| ms * MS).collect::<Vec<u64>>();
    longest_gap(&ns(successes_ms), &ns(strikes_ms), round, over_ms * MS, 10_000 * MS)
        .map(|gap| (gap.from_ns / MS, gap.to_ns / MS, gap.open))
}

#[test]
fn a_gap_overlaps_the_round_and_lies_between_successes() {
    // The longest one of all lies before the fault, the next behind the round.
    let successes = [0, 900, 1000, 1010, 1310, 1400, 2000, 2001, 9999];
    assert_eq!(gap(&successes, 1005, 1500), Some((1400, 2000, false)), "begun in the round, ended behind it");
    assert_eq!(
        gap(&successes, 1005, 1400),
        Some((1010, 1310, false)),
        "the one that begins at 1400 is too late"
    );
    assert_eq!(
        gap(&successes, 1311, 1312),
        Some((1310, 1400, false)),
        "it was under way when the fault struck"
    );
    assert_eq!(gap(&successes, 1310, 1312), Some((1310, 1400, false)), "a success at the very moment");
    assert_eq!(gap(&[500, 600], 550, 5000), Some((600, 10_000, true)), "nothing came any more");
    assert_eq!(gap(&[500], 400, 5000), None, "nothing was there before");
    assert_eq!(gap(&[], 400, 5000), None);
}

#[test]
fn a_gap_belongs_to_one_round() {
    // A leader is killed at 1000, nothing succeeds until 7000; at 5000 a follower is restarted, at 7500 again.
    let (successes, strikes) =
        ([900, 990, 7000, 7010, 7040, 7490, 7495, 7600, 7601, 9999], [1000, 5000, 7500]);
    assert_eq!(gap_of(&successes, &strikes, 0, 5000), Some((990, 7000, false)), "whoever strikes within it");
    assert_eq!(gap_of(&successes, &strikes, 1, 7400), Some((7040, 7490, false)), "only what comes behind it");
    assert_eq!(gap_of(&successes, &strikes, 1, 6000), None, "its outage is over within the gap of another");
    assert_eq!(gap_of(&successes, &strikes, 2, 7600), Some((7495, 7600, false)), "its own");
    // What begins before a strike and ends behind it is that strike's, not the round's in which it began.
    assert_eq!(gap_of(&successes, &strikes, 1, 7500), Some((7040, 7490, false)));
    // Every gap from the first strike on has exactly one round.
    let of_rounds: Vec<usize> = gaps(&successes, &strikes, 10_000).map(|(round, _)| round).collect();
    assert_eq!(of_rounds, [0, 1, 1, 1, 1, 2, 2, 2, 2]);
}

#[test]
fn the_rate_is_back_when_a_whole_stretch_has_it() {
    // 1000 per second until 1 s; from 2 s on half of that; from 3 s on all of it.
    let successes: Vec<u64> =
        (0..1000).chain((2000..3000).step_by(2)).chain(3000..4000).map(|ms| ms * MS).collect();
    let back = back_at(&successes, 2000 * MS, 4000 * MS, 1000.0).unwrap() / MS;
    assert!((2970..=3000).contains(&back), "{back}");
    assert_eq!(back_at(&successes, 2000 * MS, 4000 * MS, 1100.0), None);
    assert_eq!(back_at(&successes, 0, 100 * MS, 1000.0), None, "shorter than a stretch");
}

#[test]
fn what_never_ended_is_longer_than_everything_that_did() {
    let spread = Spread::of([(300, false), (10, true), (100, false), (200, false)]).unwrap();
    assert_eq!((spread.min_ns, spread.median_ns, spread.max_ns, spread.open), (100, 300, 10, 1));
    assert!(!spread.median_is_open());
    assert!(Spread::of([(1, true), (2, true), (3, false)]).unwrap().median_is_open());
    assert!(Spread::of([(1, true), (3, false)]).unwrap().median_is_open(), "the longer one of two");
    assert_eq!(Spread::of([]), None);
}

fn event(at_ms: u64, duration_ms: u64, kind: &str, target: &str, detail: &str) -> EventRow {
    EventRow {
        at_ns: at_ms * MS,
        duration_ns: duration_ms * MS,
        kind: kind.into(),
        target: target.into(),
        detail: detail.into(),
    }
}

/// Three members, `c` leads and is killed at 5 s; `b` leads from 5.3 s on. One write per ms before, and from 5.4 s on.
pub(crate) fn run() -> RunData {
    let member = |address: &str| MemberFingerprint { address: address.into(), ..Default::default() };
    let manifest = Manifest {
        members: vec![member("a"), member("b"), member("c")],
        phases: vec![PhaseRecord {
            name: "load".into(),
            warmup: false,
            arrival: crate::results::ArrivalKind::Open,
            arrival_text: String::new(),
            start_ns: 1000 * MS,
            end_ns: 12_000 * MS,
            sessions: 3,
            in_flight: 1,
        }],
        ..Manifest::default()
    };
    let events = vec![
        event(5000, 4000, "fault", "c", "kill server 3 (leader)"),
        event(5001, 0, "session", "session 2", "lost: connection to c: it was closed"),
        event(5001, 349, "session", "session 2", "moved: from c to b after 349 ms"),
        event(5005, 0, "role", "c", "silent"),
        event(5020, 0, "role", "a", "electing"),
        event(5030, 0, "role", "b", "electing"),
        event(5031, 0, "session", "session 1", "lost: connection to b: it was closed"),
        event(5031, 600, "session", "session 1", "kept: at b after 600 ms"),
        event(5032, 0, "session", "session 0", "lost: connection to a: it was closed"),
        event(5300, 0, "role", "b", "leader"),
        event(9000, 0, "heal", "c", "start again server 3"),
    ];
    let times = (2000..5000).chain(5400..12_000);
    let close = |at_ms: u64, member: u16, op, outcome| Close {
        at_ns: at_ms * MS,
        response_ns: MS,
        member,
        op,
        outcome,
    };
    let mut completions: Vec<Close> =
        times.map(|at_ms| close(at_ms, (at_ms % 2) as u16, Op::Set, Outcome::Ok)).collect();
    completions.extend((2000..5031).step_by(10).map(|at_ms| close(at_ms, 0, Op::Get, Outcome::Ok)));
    completions.extend((5350..12_000).step_by(10).map(|at_ms| close(at_ms, 1, Op::Get, Outcome::Ok)));
    completions.push(close(5001, 2, Op::Set, Outcome::Error(ErrorCode::ConnectionLoss)));
    completions.sort_by_key(|close| close.at_ns);
    let sample = |at_ms: u64, count: f64, sum_ms: f64| ServerSample {
        at_ns: at_ms * MS,
        member: "b".into(),
        metrics: [("zk_cnt_election_time".to_owned(), count), ("zk_sum_election_time".to_owned(), sum_ms)]
            .into(),
        ..ServerSample::default()
    };
    let mut run = RunData::new(
        manifest,
        Default::default(),
        events,
        vec![sample(4500, 1.0, 30.0), sample(5900, 2.0, 230.0)],
        Default::default(),
    );
    run.completions = completions;
    run
}

#[test]
fn a_leader_s_death_is_split_into_its_parts() {
    let failover = Failover::of(&run()).unwrap();
    let [round] = &failover.rounds[..] else { panic!("{failover:?}") };
    assert_eq!((round.what.as_str(), round.new_leader.as_deref()), ("kill server 3 (leader)", Some("b")));
    assert_eq!((round.healed_ns, round.until_ns), (Some(9000 * MS), 10_000 * MS), "five seconds at least");
    let writes = round.writes.unwrap();
    assert_eq!(writes.gap, Gap { from_ns: 4999 * MS, to_ns: 5400 * MS, open: false });
    assert!((writes.rate_before - 1000.0).abs() < 1.0, "{}", writes.rate_before);
    let reads = round.reads.unwrap();
    assert_eq!((reads.gap.from_ns, reads.gap.to_ns), (5030 * MS, 5350 * MS));
    let parts: Vec<(&str, u64)> =
        round.parts.iter().map(|part| (part.name.as_str(), (part.to_ns - part.from_ns) / MS)).collect();
    assert_eq!(
        parts,
        [
            ("detection", 30),
            ("election", 200),
            ("synchronisation", 70),
            ("re-attach", 50),
            ("first write", 50),
            ("recovery", 0)
        ]
    );
    assert_eq!(round.errors, [("CONNECTIONLOSS".to_owned(), 1)].into());
    let sessions = Sessions { lost: 3, kept: 1, moved: 1, expired: 0, away: 1 };
    assert_eq!(round.sessions, sessions);
    assert_eq!(round.members[2].writes, None, "nobody wrote at c");
    assert!(round.members[0].reads.unwrap().open, "nobody read at a any more");
    assert_eq!(failover.write_gap.unwrap().max_ns, 401 * MS);
}

#[test]
fn without_the_leader_s_word_election_and_synchronisation_are_one_part() {
    let mut run = run();
    run.servers.clear();
    let round = &Failover::of(&run).unwrap().rounds[0];
    assert_eq!(round.parts[1].name, "election and synchronisation");
    assert_eq!(round.parts[1].to_ns, 5300 * MS);
}

#[test]
fn a_follower_s_death_has_no_parts_and_a_run_without_faults_no_failover() {
    let mut quiet = run();
    quiet.events.retain(|event| event.kind != "role");
    assert!(Failover::of(&quiet).unwrap().rounds[0].parts.is_empty());
    quiet.events.retain(|event| event.kind != "fault");
    assert_eq!(Failover::of(&quiet), None);
}

#[test]
fn a_stall_after_a_failover_is_not_the_failover() {
    let mut run = run();
    // Longer than the failover, and two seconds behind it.
    run.completions.retain(|close| !(7400 * MS..8400 * MS).contains(&close.at_ns));
    let round = &Failover::of(&run).unwrap().rounds[0];
    assert_eq!(round.writes.unwrap().gap.length_ns(), 401 * MS);
    // Where nobody says who leads, the whole round is looked at.
    run.events.retain(|event| event.kind != "role");
    let round = &Failover::of(&run).unwrap().rounds[0];
    assert_eq!(round.writes.unwrap().gap.length_ns(), 1001 * MS);
}

#[test]
fn a_leader_that_was_only_slow_to_answer_is_no_new_one() {
    let mut run = run();
    run.events.retain(|event| event.kind != "role");
    run.manifest.members[1].role = "leader".into();
    run.events.push(event(5500, 0, "role", "b", "silent"));
    run.events.push(event(5600, 0, "role", "b", "leader"));
    let round = &Failover::of(&run).unwrap().rounds[0];
    assert_eq!((round.new_leader.as_ref(), round.parts.len()), (None, 0));
}

#[test]
fn a_fault_within_another_one_s_gap_is_not_charged_with_it() {
    let mut run = run();
    run.events.push(event(5200, 300, "fault", "a", "end server.1 (follower)"));
    run.events.sort_by_key(|event| event.at_ns);
    let failover = Failover::of(&run).unwrap();
    let [first, second] = &failover.rounds[..] else { panic!("{failover:?}") };
    assert_eq!((first.within, first.writes.unwrap().gap.length_ns()), (None, 401 * MS));
    assert_eq!((second.within, second.writes.unwrap().gap.length_ns()), (Some(1), MS));
    assert_eq!((second.healed_ns, second.parts.len()), (Some(5500 * MS), 0));
    // Everybody was gone before the second one struck.
    assert_eq!((first.sessions.lost, second.sessions), (3, Sessions::default()));
    assert_eq!(first.sessions.kept + first.sessions.moved + first.sessions.away, first.sessions.lost);
}
