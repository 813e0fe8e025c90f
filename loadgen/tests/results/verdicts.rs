//! The verdict: a good run passes, and each check has a run that it does not let pass.

use zoometry::op::Outcome;
use zoometry::recorder::Completion;
use zoometry::results::*;
use zoometry::summary::Summary;
use zoometry::verdict::{Grade, Verdict};
use zoometry_wire::ErrorCode;

use crate::summaries::ramp;
use crate::synthetic::{Made, Phase, address};

/// A run of which there is nothing to say: ten seconds at 1,000/s, latencies of 1 to 50 us.
fn good() -> RunData {
    good_but(|_| ())
}

fn good_but(change: impl Fn(&mut Completion)) -> RunData {
    let mut run = ramp(50, change);
    run.manifest.environment.colocated = false;
    run
}

fn judge(run: &RunData) -> Verdict {
    Verdict::judge(run, &Summary::of(run))
}

#[track_caller]
fn finds(run: &RunData, check: &str, grade: Grade) {
    let verdict = judge(run);
    let found = verdict.reasons.iter().find(|reason| reason.check == check);
    assert_eq!(found.map(|reason| reason.grade), Some(grade), "{check} in {:#?}", verdict.reasons);
    assert!(verdict.grade >= grade);
}

#[track_caller]
fn finds_not(run: &RunData, check: &str) {
    let verdict = judge(run);
    assert!(verdict.reasons.iter().all(|reason| reason.check != check), "{:#?}", verdict.reasons);
}

#[test]
fn a_good_run_is_valid() {
    let verdict = judge(&good());
    assert_eq!(verdict, Verdict { grade: Grade::Valid, reasons: Vec::new(), phases: verdict.phases.clone() });
    assert_eq!(judge(&Made::default().run()).grade, Grade::Valid);
}

#[test]
fn never_judged_is_invalid() {
    assert_eq!(Verdict::default().grade, Grade::Invalid);
}

#[test]
fn no_data() {
    let mut run = good();
    run.recording = Default::default();
    finds(&run, "no-data", Grade::Invalid);
    run.manifest.phases[0].warmup = true;
    finds(&run, "no-data", Grade::Invalid);
    finds(&good_but(|c| c.outcome = Outcome::Error(ErrorCode::ConnectionLoss)), "no-data", Grade::Invalid);
}

#[test]
fn cut_short() {
    let mut run = good();
    run.manifest.cut_short = true;
    run.manifest.cut_short_by = "SIGTERM".into();
    finds(&run, "cut-short", Grade::Invalid);
    assert!(judge(&run).reasons[0].text.contains("cut short (SIGTERM)"));
}

#[test]
fn generator_unmeasured() {
    let mut run = good();
    run.generator.samples.clear();
    finds(&run, "generator-unmeasured", Grade::Suspect);
}

#[test]
fn saturated_worker() {
    let mut run = good();
    run.generator.samples[5].cpu_ns = 950_000_000;
    finds(&run, "worker-saturated", Grade::Suspect);
    run.manifest.phases[0].arrival = ArrivalKind::Closed;
    finds(&run, "worker-saturated", Grade::Suspect);
    run.generator.samples[5].cpu_ns = 850_000_000;
    finds_not(&run, "worker-saturated");
}

#[test]
fn run_queue_delay() {
    let mut run = good();
    run.generator.samples.iter_mut().for_each(|sample| sample.run_queue_ns = 150_000_000);
    finds(&run, "run-queue-delay", Grade::Suspect);
}

#[test]
fn connections_lost() {
    let mut run = good();
    let event = |at_ns, kind: &str, detail: &str| EventRow {
        at_ns,
        duration_ns: 0,
        kind: kind.into(),
        target: "session 3".into(),
        detail: detail.into(),
    };
    run.events = vec![event(
        run.manifest.phases[0].start_ns + 5_000_000_000,
        "session",
        "lost: connection to 10.0.0.1:2181: the server closed the connection",
    )];
    finds(&run, "connections-lost", Grade::Suspect);
    let reason = judge(&run).reasons.into_iter().find(|reason| reason.check == "connections-lost");
    assert!(
        reason.is_some_and(|reason| reason.text.contains("connection to 10.0.0.1:2181: the server closed"))
    );
    run.events.insert(0, event(run.manifest.phases[0].start_ns + 4_000_000_000, "fault", "kill"));
    finds_not(&run, "connections-lost");
}

#[test]
fn timer_jitter() {
    let mut run = good();
    run.generator.samples[3].jitter_max_ns = 80_000_000;
    finds(&run, "timer-jitter", Grade::Suspect);
}

#[test]
fn send_lag() {
    let late = |share: f64| {
        good_but(move |c| {
            c.done_ns = c.due_ns + 2_000_000;
            c.sent_ns = c.due_ns + (2_000_000.0 * share) as u64;
        })
    };
    // A quiet phase on a machine that sleeps: late in proportion, but hardly late.
    let quiet = good_but(|c| {
        c.sent_ns = c.due_ns + 956_000;
        c.done_ns = c.due_ns + 1_300_000;
    });
    finds(&quiet, "send-lag", Grade::Suspect);
    finds_not(&late(0.1), "send-lag");
    finds(&late(0.3), "send-lag", Grade::Suspect);
    finds(&late(0.6), "send-lag", Grade::Invalid);
    let mut limited = late(0.6);
    limited.generator.samples.iter_mut().for_each(|sample| sample.at_cap = 500);
    finds_not(&limited, "send-lag");
    finds(&limited, "in-flight-limit", Grade::Suspect);
    let mut closed = late(0.6);
    closed.manifest.phases[0].arrival = ArrivalKind::Closed;
    finds_not(&closed, "send-lag");
}

#[test]
fn missed() {
    let with_missed = |n: u64| {
        let mut run = good();
        let arrivals = run.recording.arrivals.values_mut().next().unwrap();
        (0..n).for_each(|at| arrivals.add(at % 100, 1, 1));
        run
    };
    finds(&with_missed(1), "missed", Grade::Suspect);
    finds(&with_missed(500), "missed", Grade::Invalid);
    // A fault excuses much, but not that most was never sent.
    let with_fault = |missed: u64| {
        let mut run = with_missed(missed);
        run.events.push(EventRow {
            at_ns: 4_000_000_000,
            duration_ns: 0,
            kind: "fault".into(),
            target: address(0),
            detail: "kill".into(),
        });
        run
    };
    finds(&with_fault(500), "missed", Grade::Suspect);
    finds(&with_fault(10_000), "missed", Grade::Invalid);
}

#[test]
fn a_few_missed_ones_are_not_invalid_in_a_small_phase() {
    let mut run = good_but(|_| ());
    let arrivals = run.recording.arrivals.values_mut().next().unwrap();
    *arrivals = Default::default();
    (0..100).for_each(|at| arrivals.add(at, 1, u32::from(at < 5)));
    finds(&run, "missed", Grade::Suspect);
}

#[test]
fn each_phase_has_a_grade_of_its_own() {
    let mut run = Made::default().run();
    let short = run.manifest.phases.iter().position(|phase| phase.name == "low").unwrap();
    run.recording.totals.retain(|key, _| usize::from(key.phase) != short);
    let verdict = judge(&run);
    let grades: Vec<(&str, Grade)> = verdict.phases.iter().map(|of| (of.phase.as_str(), of.grade)).collect();
    assert_eq!(grades, [("low", Grade::Invalid), ("middle", Grade::Valid), ("failover", Grade::Valid)]);
    assert_eq!(verdict.grade, Grade::Invalid);
}

#[test]
fn overload_is_invalid() {
    // Answers come at half of the rate at which operations are due.
    let run = good_but(|c| c.done_ns = c.due_ns * 2 + 50_000);
    finds(&run, "rate-not-achieved", Grade::Invalid);
    assert_eq!(judge(&run).grade, Grade::Invalid);
    let slightly = good_but(|c| c.done_ns = c.due_ns * 103 / 100 + 50_000);
    finds(&slightly, "rate-not-achieved", Grade::Suspect);
    finds_not(&good(), "rate-not-achieved");
}

#[test]
fn a_slow_second() {
    let run = good_but(|c| {
        if (4_000_000_000..4_500_000_000).contains(&c.due_ns) {
            c.done_ns = 5_100_000_000 + c.due_ns / 1_000_000;
        }
    });
    finds(&run, "slow-second", Grade::Suspect);
    finds_not(&run, "rate-not-achieved");
    finds_not(&good(), "slow-second");
}

#[test]
fn unequal_connections() {
    let mut run = good();
    assert_eq!(run.manifest.members.len(), 3);
    run.manifest.connections.insert(address(0), 20);
    finds(&run, "connection-imbalance", Grade::Suspect);
    run.manifest.placement = "leader".into();
    finds_not(&run, "connection-imbalance");
    run.manifest.placement = "spread".into();
    run.manifest.connections = [(address(0), 1)].into();
    finds_not(&run, "connection-imbalance");
    run.manifest.connections = [(address(0), 30)].into();
    finds(&run, "connection-imbalance", Grade::Suspect);
}

#[test]
fn drift() {
    let slower = good_but(|c| c.done_ns += c.due_ns / 100_000);
    finds(&slower, "unsteady", Grade::Suspect);
    finds_not(&good(), "unsteady");
    // Half fast reads and half slow writes: the median of both together would be anywhere between.
    let mixed = Phase { write_share: 0.5, ..Phase::open("p", 3_000.0, 8.0) };
    finds_not(&Made { phases: vec![mixed], ..Made::default() }.run(), "unsteady");
    // A closed loop that slows down: each operation is due when the one before it is done.
    let mut closed = good_but(|c| {
        c.due_ns = (c.due_ns as f64 * (1.0 + c.due_ns as f64 / 20e9)) as u64;
        c.sent_ns = c.due_ns;
        c.done_ns = c.due_ns + 30_000;
    });
    closed.manifest.phases[0].arrival = ArrivalKind::Closed;
    finds(&closed, "unsteady", Grade::Suspect);
}

#[test]
fn too_short() {
    let short = Made { phases: vec![Phase::open("p", 2_000.0, 2.0)], ..Made::default() }.run();
    finds(&short, "too-short", Grade::Suspect);
    let few = Made { phases: vec![Phase::open("p", 50.0, 10.0)], ..Made::default() }.run();
    finds(&few, "too-short", Grade::Suspect);
}

#[test]
fn errors() {
    let failing = |every: u64| {
        good_but(move |c| {
            if (c.due_ns / 1_000_000).is_multiple_of(every) {
                c.outcome = Outcome::Error(ErrorCode::NoNode);
            }
        })
    };
    finds(&failing(100), "errors", Grade::Suspect);
    finds(&failing(5), "errors", Grade::Invalid);
    finds_not(&failing(5_000), "errors");
}

#[test]
fn faults_excuse_what_they_cause() {
    let mut run = good_but(|c| {
        if (4_000_000_000..6_000_000_000).contains(&c.due_ns) {
            c.outcome = Outcome::Error(ErrorCode::ConnectionLoss);
            c.done_ns += 3_000_000_000;
        }
    });
    finds(&run, "errors", Grade::Invalid);
    run.events.push(EventRow {
        at_ns: 4_000_000_000,
        duration_ns: 2_000_000_000,
        kind: "fault".into(),
        target: address(0),
        detail: "kill".into(),
    });
    assert_eq!(judge(&run).grade, Grade::Valid, "{:#?}", judge(&run));
    // When a fault costs most of the answers, what is left is a selection.
    let half = good_but(|c| {
        if c.due_ns > 4_000_000_000 {
            c.outcome = Outcome::Error(ErrorCode::ConnectionLoss);
        }
    });
    let half = RunData { events: run.events, ..half };
    finds(&half, "errors", Grade::Invalid);
}

#[test]
fn data_in_memory() {
    let made = Made { phases: vec![Phase::open("p", 2_000.0, 5.0)], ..Made::default() };
    let mut run = made.run();
    run.manifest.environment.data_on_tmpfs = Some(true);
    finds(&run, "data-on-tmpfs", Grade::Suspect);
    finds(&run, "co-located", Grade::Valid);
    let mut reads_only = good();
    reads_only.manifest.environment.data_on_tmpfs = Some(true);
    finds_not(&reads_only, "data-on-tmpfs");
}
