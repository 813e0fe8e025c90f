//! The summary's arithmetic, against runs whose figures are known.

use zoometry::op::{Op, Outcome};
use zoometry::recorder::{Completion, INTERVAL_NS, Recorder, Recording};
use zoometry::results::*;
use zoometry::summary::{Style, Summary, Tail, enough, table};
use zoometry_wire::ErrorCode;

use crate::synthetic::{Made, Phase, address};

/// One phase of ten seconds: a read each millisecond that takes 1 us, 2 us, … of `cycle` steps.
pub(crate) fn ramp(cycle: u64, change: impl Fn(&mut Completion)) -> RunData {
    let made = Made { phases: vec![Phase::open("p", 1_000.0, 10.0)], ..Made::default() };
    let mut run = made.run();
    let mut recorder = Recorder::new(INTERVAL_NS);
    for n in 0..10_000u64 {
        let due_ns = n * 1_000_000;
        let service_ns = (n % cycle + 1) * 1_000;
        let mut c = Completion {
            phase: 0,
            op: Op::Get,
            outcome: Outcome::Ok,
            due_ns,
            sent_ns: due_ns,
            done_ns: due_ns + service_ns,
            bytes: 100,
        };
        change(&mut c);
        recorder.record(&c);
    }
    run.recording = Recording::merged(INTERVAL_NS, [recorder.finish()]);
    run
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= b.abs() * 0.002 + 1e-9
}

#[test]
fn a_known_distribution() {
    let summary = Summary::of(&ramp(1_000, |_| ()));
    let get = summary.phases[0].op("get").unwrap();
    assert_eq!(
        (get.count, get.offered, get.errors, get.missed, get.bytes),
        (10_000, 10_000, 0, 0, 1_000_000)
    );
    assert!(close(get.rate, 1_000.0), "{}", get.rate);
    assert!(close(get.response.p50_us.unwrap(), 500.0));
    assert!(close(get.response.p90_us.unwrap(), 900.0));
    assert!(close(get.response.p99_us.unwrap(), 990.0));
    assert!(close(get.response.p999_us.unwrap(), 999.0));
    assert!(close(get.response.mean_us, 500.5));
    assert!(close(get.response.max_us, 1_000.0));
    assert_eq!(get.response.p9999_us, None, "one sample lies above it");
    assert_eq!(get.response, get.service);
    assert_eq!(summary.whole.op("get").unwrap(), get);
}

#[test]
fn percentiles_need_ten_samples_above() {
    assert!(enough(1_000, 0.99) && !enough(999, 0.99));
    assert!(enough(20, 0.5) && !enough(19, 0.5));
    assert!(enough(100_000, 0.9999) && !enough(99_999, 0.9999));
}

#[test]
fn failures_count_as_never_answered_beside_the_percentiles_of_successes() {
    let fail = |c: &mut Completion| {
        if (c.due_ns / 1_000_000).is_multiple_of(20) {
            c.outcome = Outcome::Error(ErrorCode::ConnectionLoss);
        }
    };
    let summary = Summary::of(&ramp(1_000, fail));
    let get = summary.whole.op("get").unwrap();
    assert_eq!((get.count, get.errors, get.errors_by_code["CONNECTIONLOSS"]), (9_500, 500, 500));
    assert!(close(get.failed_share(), 0.05));
    assert!(get.response.p99_us.is_some());
    assert_eq!(get.tail(0.99), Tail::Never);
    // Nine tenths of all are 9,000 of the 9,500 successes.
    assert!(matches!(get.tail(0.9), Tail::Us(us) if (945.0..950.0).contains(&us)), "{:?}", get.tail(0.9));
    assert_eq!(get.tail(0.9999), Tail::Unknown);
}

#[test]
fn answers_after_the_phase_do_not_count_for_its_rate() {
    let run = ramp(1, |c| c.done_ns = c.due_ns + 5_000_000_000);
    let summary = Summary::of(&run);
    let get = summary.whole.op("get").unwrap();
    assert_eq!(get.count, 10_000);
    assert!(close(get.rate, 500.0), "{}", get.rate);
}

#[test]
fn warm_up_is_not_in_the_whole() {
    let run = Made {
        phases: vec![
            Phase { warmup: true, ..Phase::open("warm-up", 1_000.0, 2.0) },
            Phase::open("a", 1_000.0, 2.0),
            Phase::open("b", 1_000.0, 2.0),
        ],
        ..Made::default()
    }
    .run();
    let summary = Summary::of(&run);
    let count = |name: &str| summary.phase(name).unwrap().all().unwrap().count;
    assert_eq!(count("all"), count("a") + count("b"));
    assert!(count("warm-up") > 0);
    assert!(close(summary.whole.seconds, 4.0));
    for phase in &summary.phases {
        let sum: u64 = phase.ops.iter().map(|op| op.count).sum();
        assert_eq!(phase.all().unwrap().count, sum);
        let merged = phase.all().unwrap().response.p90_us.unwrap();
        let parts: Vec<f64> = phase.ops.iter().map(|op| op.response.p90_us.unwrap()).collect();
        assert!(merged > parts[0] && merged < parts[1], "between get's and set's: {merged} {parts:?}");
    }
}

#[test]
fn cpu_per_operation() {
    let mut run = ramp(1_000, |_| ());
    run.manifest.members.truncate(1);
    // 20 ms of CPU per second and server, sampled off the phase's edges; 1,000 operations a second.
    run.servers = (0..=11)
        .map(|n| ServerSample {
            at_ns: n * 1_000_000_000 + 300_000_000,
            member: address(0),
            cpu_ns: Some(n * 20_000_000),
            rss_bytes: Some(n << 20),
            ..ServerSample::default()
        })
        .collect();
    run.generator.samples = (1..=10)
        .map(|n| GeneratorSample {
            at_ns: n * 1_000_000_000,
            wall_ns: 1_000_000_000,
            cpu_ns: 3_000_000,
            ..GeneratorSample::default()
        })
        .collect();
    let phase = Summary::of(&run).whole;
    assert!(close(phase.servers.cpu_us_per_op.unwrap(), 20.0), "{:?}", phase.servers);
    assert!(close(phase.servers.cores[&address(0)], 0.02));
    assert_eq!(phase.servers.rss_max_bytes[&address(0)], 9 << 20);
    assert!(close(phase.generator.cpu_us_per_op.unwrap(), 3.0));
    run.servers.truncate(3);
    assert_eq!(Summary::of(&run).whole.servers.cpu_us_per_op, None, "too little of the phase was sampled");
}

#[test]
fn the_longest_gap_is_named() {
    let run = Made {
        phases: vec![Phase { failover_at: Some(2.0), ..Phase::open("failover", 2_000.0, 5.0) }],
        ..Made::default()
    }
    .run();
    let summary = Summary::of(&run);
    let gap = summary.whole.gaps.iter().find(|gap| gap.class == "writes").unwrap();
    let length_ms = (gap.to_ns - gap.from_ns) / 1_000_000;
    assert!((150..260).contains(&length_ms), "{length_ms}");
    assert!((1_900_000_000..2_050_000_000).contains(&gap.from_ns));
    assert!(run.events.iter().any(|event| event.kind == "gap" && event.target == "writes"));
}

#[test]
fn the_table_fits_a_terminal() {
    let run = Made::default().run();
    let text = table(&run.manifest, &Summary::of(&run), Style::Plain);
    println!("{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for word in
        ["low", "failover", "get", "set", "p99.9", "verdict", "FAILED", "longest time without success"]
    {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(table(&run.manifest, &Summary::of(&run), Style::Colour).contains('\x1b'));
}
