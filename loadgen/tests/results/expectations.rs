//! A run answers what expectations ask.

use zoometry::closeup::Close;
use zoometry::expect::{Clock, Figure, Measured, Measurements, Metric, Ops, Over, Stat};
use zoometry::op::{Op, Outcome};
use zoometry::results::{CheckedWrites, EventRow};
use zoometry_wire::ErrorCode;

use crate::summaries::ramp;
use crate::synthetic::{Made, Phase};

#[test]
fn latencies_rates_and_errors() {
    let run = ramp(1_000, |c| {
        if (c.due_ns / 1_000_000).is_multiple_of(4) {
            c.outcome = Outcome::Error(ErrorCode::NoNode);
        }
    });
    let get = Ops::One(Op::Get);
    let value = |metric: Metric| run.measured(Some("p"), &metric).unwrap();
    let p90 = value(Metric::Latency(Clock::Response, get, Stat::Percentile(90.0)));
    assert!((895e3..905e3).contains(&p90.value) && p90.samples == 7_500, "{p90:?}");
    let p37 = value(Metric::Latency(Clock::Service, Ops::Reads, Stat::Percentile(37.5)));
    assert!((370e3..380e3).contains(&p37.value), "{p37:?}");
    assert_eq!(value(Metric::Errors(get)), Measured { value: 2_500.0, samples: 10_000 });
    assert_eq!(value(Metric::ErrorShare(Ops::All)), Measured { value: 0.25, samples: 10_000 });
    assert_eq!(value(Metric::Missed(get)), Measured { value: 0.0, samples: 10_000 });
    assert_eq!(value(Metric::Latency(Clock::Lag, Ops::Writes, Stat::Max)).samples, 0);
    let rate = value(Metric::Rate(get));
    assert!((rate.value - 750.0).abs() < 1.0 && rate.samples == 7_500, "{rate:?}");
    assert_eq!(run.measured(Some("no such phase"), &Metric::Errors(get)), None);
    assert_eq!(run.measured(None, &Metric::Errors(get)), Some(Measured { value: 2_500.0, samples: 10_000 }));
}

#[test]
fn what_was_not_measured_is_none() {
    let mut run = ramp(10, |_| ());
    assert_eq!(run.measured(None, &Metric::LostAcknowledgedWrites), None);
    let write_gap = Metric::Failover(Figure::WriteGap, Over::Worst);
    assert_eq!(run.measured(None, &write_gap), None);
    assert_eq!(run.measured(None, &Metric::EphemeralsLost), None);
    run.manifest.checked_writes = Some(CheckedWrites { checked: 50, lost: 2 });
    assert_eq!(
        run.measured(None, &Metric::LostAcknowledgedWrites),
        Some(Measured { value: 2.0, samples: 50 })
    );
    // A fault around which no completion was kept.
    run.events = vec![EventRow {
        at_ns: 5_000_000_000,
        duration_ns: 0,
        kind: "fault".into(),
        target: String::new(),
        detail: String::new(),
    }];
    assert_eq!(run.measured(None, &write_gap), None);
    // Reads only: the gap of writes has no data, which is no pass.
    let close = |at_ms: u64| Close {
        at_ns: at_ms * 1_000_000,
        response_ns: 1,
        member: 0,
        op: Op::Get,
        outcome: Outcome::Ok,
    };
    run.completions = vec![close(4_900), close(5_100), close(9_999)];
    assert_eq!(run.measured(None, &write_gap).map(|measured| measured.samples), Some(0));
    let read_gap = run.measured(None, &Metric::Failover(Figure::ReadGap, Over::Median)).unwrap();
    assert_eq!(read_gap.samples, 1);
    assert_eq!(read_gap.value, 4.899e9);
}

/// Writes every millisecond, but for some time after each fault.
fn outages(lengths_ms: &[u64]) -> zoometry::results::RunData {
    let mut run = Made { phases: vec![Phase::open("p", 10.0, 60.0)], ..Made::default() }.run();
    run.events.clear();
    let start_ns = run.manifest.phases[0].start_ns;
    let mut silent = Vec::new();
    for (at, length_ms) in lengths_ms.iter().enumerate() {
        let from_ns = start_ns + (at as u64 + 1) * 10_000_000_000;
        silent.push(from_ns + 1..from_ns + length_ms * 1_000_000);
        let kind = "fault".into();
        let (target, detail) = (String::new(), String::new());
        run.events.push(EventRow { at_ns: from_ns, duration_ns: 0, kind, target, detail });
    }
    let times = (0..60_000).map(|ms| start_ns + ms * 1_000_000);
    let answered = times.filter(|at_ns| !silent.iter().any(|silent| silent.contains(at_ns)));
    let close = |at_ns| Close { at_ns, response_ns: 1, member: 0, op: Op::Set, outcome: Outcome::Ok };
    run.completions = answered.map(close).collect();
    run
}

#[test]
fn the_gaps_of_failovers() {
    let value = |run: &zoometry::results::RunData, figure, over| {
        run.measured(None, &Metric::Failover(figure, over)).unwrap().value / 1e6
    };
    let run = outages(&[300, 100, 200]);
    assert_eq!(value(&run, Figure::WriteGap, Over::Worst), 300.0);
    assert_eq!(value(&run, Figure::WriteGap, Over::Median), 200.0);
    let recovery = value(&run, Figure::Recovery, Over::Worst);
    assert!((280.0..=300.0).contains(&recovery), "{recovery}");
    // One that never ends: the worst is no number, the median is.
    let run = outages(&[100, 200, 100_000]);
    assert_eq!(value(&run, Figure::WriteGap, Over::Worst), f64::INFINITY);
    assert_eq!(value(&run, Figure::WriteGap, Over::Median), 200.0);
}
