//! A run answers what expectations ask.

use zoometry::expect::{Clock, Measured, Measurements, Metric, Ops, Stat};
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
    assert_eq!(run.measured(None, &Metric::WriteGap), None);
    run.manifest.checked_writes = Some(CheckedWrites { checked: 50, lost: 2 });
    assert_eq!(
        run.measured(None, &Metric::LostAcknowledgedWrites),
        Some(Measured { value: 2.0, samples: 50 })
    );
    // A fault without a gap of writes: there were no writes.
    run.events = vec![EventRow {
        at_ns: 5_000_000_000,
        duration_ns: 0,
        kind: "fault".into(),
        target: String::new(),
        detail: String::new(),
    }];
    assert_eq!(run.measured(None, &Metric::WriteGap), Some(Measured { value: 0.0, samples: 0 }));
}

#[test]
fn the_gap_of_a_failover() {
    let phases = vec![Phase { failover_at: Some(1.0), ..Phase::open("failover", 2_000.0, 3.0) }];
    let run = Made { phases, ..Made::default() }.run();
    let gap = run.measured(None, &Metric::WriteGap).unwrap();
    assert!((150e6..260e6).contains(&gap.value), "{gap:?}");
}
