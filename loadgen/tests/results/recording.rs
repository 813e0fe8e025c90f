//! The recorder: nothing is lost, merging is exact, memory stays bounded.

use proptest::prelude::*;
use zoometry::op::{Op, Outcome};
use zoometry::recorder::*;
use zoometry_wire::ErrorCode;

fn completion(due_ns: u64, lag_ns: u64, service_ns: u64) -> Completion {
    Completion {
        phase: 0,
        op: Op::Get,
        outcome: Outcome::Ok,
        due_ns,
        sent_ns: due_ns + lag_ns,
        done_ns: due_ns + lag_ns + service_ns,
        bytes: 10,
    }
}

fn any_completion() -> impl Strategy<Value = Completion> {
    let op = prop::sample::select(vec![Op::Get, Op::Set, Op::Connect]);
    let outcome = prop_oneof![
        4 => Just(Outcome::Ok),
        1 => Just(Outcome::Error(ErrorCode::NoNode)),
        1 => Just(Outcome::Error(ErrorCode::ConnectionLoss)),
    ];
    (0u16..2, op, outcome, 0u64..5_000_000_000, 0u64..2_000_000, 0u64..900_000_000, 0u32..2_000).prop_map(
        |(phase, op, outcome, due_ns, lag, service, bytes)| Completion {
            phase,
            op,
            outcome,
            due_ns,
            sent_ns: due_ns + lag,
            done_ns: due_ns + lag + service,
            bytes,
        },
    )
}

fn record(completions: &[Completion]) -> Recording {
    merged([completions.to_vec()])
}

/// What workers with these completions come to together.
fn merged(workers: impl IntoIterator<Item = Vec<Completion>>) -> Recording {
    let part = |mut completions: Vec<Completion>| {
        completions.sort_by_key(|c| c.done_ns);
        let mut recorder = Recorder::new(INTERVAL_NS);
        completions.iter().for_each(|c| recorder.record(c));
        recorder.finish()
    };
    Recording::merged(INTERVAL_NS, workers.into_iter().map(part))
}

fn finish(recorder: Recorder) -> Recording {
    Recording::merged(INTERVAL_NS, [recorder.finish()])
}

/// The value at a quantile by the definition: the smallest with at least that share at or below it.
fn exact(samples: &mut [u64], q: f64) -> u64 {
    samples.sort_unstable();
    let rank = ((q * samples.len() as f64).ceil() as usize).max(1);
    samples[rank - 1]
}

fn near(measured: u64, exact: u64, share: f64) -> bool {
    measured.abs_diff(exact) as f64 <= exact as f64 * share + 1.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_parts_sum_to_the_whole(completions in prop::collection::vec(any_completion(), 1..400)) {
        let recording = record(&completions);
        let total: u64 = recording.totals.values().map(|t| t.response.len()).sum();
        prop_assert_eq!(total, completions.len() as u64);
        for (key, total) in &recording.totals {
            let mine: Vec<_> = completions.iter().filter(|c| (c.phase, c.op, c.outcome) == (key.phase, key.op, key.outcome)).collect();
            prop_assert_eq!(total.response.len(), mine.len() as u64);
            prop_assert_eq!(total.service.len(), mine.len() as u64);
            prop_assert_eq!(total.lag.len(), mine.len() as u64);
            let intervals = &recording.intervals[key];
            prop_assert_eq!(intervals.iter().map(|i| i.response.count()).sum::<u64>(), mine.len() as u64);
            let bytes: u64 = mine.iter().map(|c| u64::from(c.bytes)).sum();
            prop_assert_eq!(intervals.iter().map(|i| i.bytes).sum::<u64>(), bytes);
        }
        let offered: u64 = recording.arrivals.values().map(Arrivals::offered).sum();
        prop_assert_eq!(offered, completions.len() as u64);
    }

    #[test]
    fn merged_percentiles_are_those_of_all_samples(
        completions in prop::collection::vec(any_completion(), 2..400),
        parts in 2usize..5,
    ) {
        let whole = record(&completions);
        let merged = merged((0..parts).map(|part| completions.iter().copied().skip(part).step_by(parts).collect()));
        prop_assert!(merged == whole);
        for (key, total) in &merged.totals {
            let mut samples: Vec<u64> = completions
                .iter()
                .filter(|c| (c.phase, c.op, c.outcome) == (key.phase, key.op, key.outcome))
                .map(|c| c.done_ns - c.due_ns)
                .collect();
            for q in [0.01, 0.5, 0.9, 0.99, 1.0] {
                let exact = exact(&mut samples, q);
                prop_assert!(near(total.response.value_at_quantile(q), exact, 0.001));
            }
        }
    }

    #[test]
    fn bins_keep_values_to_a_hundredth(values in prop::collection::vec(0u64..700_000_000_000, 1..200)) {
        let mut bins: Bins = Bins::default();
        values.iter().for_each(|v| bins.add(*v, 1));
        let mut bounded: Vec<u64> = values.iter().map(|v| (*v).min(MAX_NS)).collect();
        for q in [0.1, 0.5, 0.99, 1.0] {
            prop_assert!(near(bins.quantile(q).unwrap(), exact(&mut bounded, q), 0.008));
        }
        prop_assert_eq!(bins.count(), values.len() as u64);
    }

    #[test]
    fn gaps_are_those_of_the_sorted_times(
        mut times_us in prop::collection::vec(0u64..3_000_000, 1..60),
        parts in 1usize..4,
    ) {
        let all: Vec<_> = times_us.iter().map(|us| completion(us * 1_000, 0, 0)).collect();
        let recording = merged((0..parts).map(|part| all.iter().copied().skip(part).step_by(parts).collect()));
        times_us.sort_unstable();
        let (from, to) = (0, 3_000_000);
        let mut edges = vec![from];
        edges.extend(&times_us);
        edges.push(to);
        let longest_us = edges.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let gaps = recording.gaps(Class::Reads, from * 1_000, to * 1_000);
        let measured_us = gaps.iter().map(|gap| (gap.to_ns - gap.from_ns) / 1_000).max().unwrap_or(0);
        // Inside one slot of a millisecond only the first and the last success are known.
        prop_assert!(measured_us == longest_us || longest_us < 1_000, "{measured_us} and {longest_us}");
    }
}

#[test]
fn the_three_clocks() {
    let recording = record(&[completion(1_000_000, 250_000, 750_000)]);
    let total = recording.totals.values().next().unwrap();
    assert!(near(total.response.max(), 1_000_000, 0.001));
    assert!(near(total.service.max(), 750_000, 0.001));
    assert!(near(total.lag.max(), 250_000, 0.001));
}

#[test]
fn a_clock_that_runs_backwards_counts_as_zero() {
    let mut recorder = Recorder::new(INTERVAL_NS);
    recorder.record(&Completion { due_ns: 50, sent_ns: 40, done_ns: 30, ..completion(0, 0, 0) });
    let recording = finish(recorder);
    let total = recording.totals.values().next().unwrap();
    assert_eq!((total.response.max(), total.service.max(), total.lag.max()), (0, 0, 0));
}

/// 500 ms without answers at 1,000/s must show as the arithmetic demands: of 10,000 operations 500 wait, the
/// longest 500 ms, evenly spread; so p99 is 400 ms.
#[test]
fn a_stall_shows_in_response_time() {
    let completions: Vec<_> = (0..10_000u64)
        .map(|n| {
            let due = n * 1_000_000;
            let stalled = (3_000_000_000..3_500_000_000).contains(&due);
            let done = if stalled { 3_500_000_000 } else { due } + 100_000;
            Completion { done_ns: done, ..completion(due, 0, 0) }
        })
        .collect();
    let recording = record(&completions);
    let p99 = recording.totals.values().next().unwrap().response.value_at_quantile(0.99);
    assert!(near(p99, 400_000_000, 0.01), "{p99}");
    let gaps = recording.gaps(Class::Reads, 0, 10_000_000_000);
    let longest = gaps.iter().max_by_key(|gap| gap.to_ns - gap.from_ns).unwrap();
    assert_eq!((longest.from_ns, longest.to_ns), (2_999_100_000, 3_500_100_000));
    assert!(recording.gaps(Class::Writes, 0, 1_000).len() <= 1);
}

#[test]
fn missed_operations_are_offered_and_have_no_latency() {
    let mut recorder = Recorder::new(INTERVAL_NS);
    recorder.record(&completion(0, 0, 100));
    recorder.missed(0, Op::Get, 150_000_000);
    recorder.missed(0, Op::Set, 150_000_000);
    let recording = finish(recorder);
    assert_eq!(recording.arrivals[&(0, Op::Get)].offered(), 2);
    assert_eq!(recording.arrivals[&(0, Op::Get)].missed(), 1);
    assert_eq!(recording.arrivals[&(0, Op::Set)].missed(), 1);
    assert_eq!(recording.totals.len(), 1);
}

#[test]
fn a_long_run_keeps_all_counts_in_few_intervals() {
    let mut recorder = Recorder::new(INTERVAL_NS);
    let hours = 5;
    for second in 0..hours * 3_600u64 {
        recorder.record(&completion(second * 1_000_000_000, 1_000, 50_000));
    }
    let recording = finish(recorder);
    assert_eq!(recording.interval_ns, INTERVAL_NS * 16);
    let intervals = recording.intervals.values().next().unwrap();
    assert!(intervals.len() as u64 <= MAX_INTERVALS);
    assert_eq!(intervals.iter().map(|i| i.response.count()).sum::<u64>(), hours * 3_600);
    let arrivals = recording.arrivals.values().next().unwrap();
    assert_eq!(arrivals.offered(), hours * 3_600);
    assert!(arrivals.counts.len() as u64 <= MAX_INTERVALS);
    let gaps = recording.gaps(Class::Reads, 0, hours * 3_600_000_000_000);
    let longest = gaps.iter().map(|gap| gap.to_ns - gap.from_ns).max().unwrap();
    assert_eq!(longest, 1_000_000_000);
}

#[test]
fn a_long_run_has_longer_intervals() {
    let minute = 60_000_000_000;
    assert_eq!(interval_of(30 * minute), INTERVAL_NS);
    assert_eq!(interval_of(31 * minute), 2 * INTERVAL_NS);
}

/// An hour of a worker that hands over twice a second: what it gives is complete, and none of it is in its hands any more.
#[test]
fn what_is_handed_over_is_complete_and_forgotten() {
    let mut recorder = Recorder::new(INTERVAL_NS);
    let mut merger = Merger::new(INTERVAL_NS, 1);
    let (mut count, mut offered, mut missed, mut wholes) = (0, 0, 0, 0);
    for half in 1..=7_200u64 {
        let now_ns = half * 500_000_000;
        // The last one was due long ago.
        for due_ns in [now_ns - 400_000_000, now_ns - 300_000_000, now_ns.saturating_sub(3_000_000_000)] {
            recorder.record(&Completion { done_ns: now_ns - 250_000_000, ..completion(due_ns, 0, 0) });
        }
        recorder.missed(0, Op::Get, now_ns);
        let part = recorder.take(now_ns);
        assert!(part.intervals.len() == 1 && part.successes[0].len() == 1, "only what is new");
        merger.add(0, now_ns, part);
        while let Some(whole) = merger.next_whole() {
            wholes += 1;
            count += whole.rows.values().map(|closed| closed.response.count()).sum::<u64>();
            let sums = whole.arrivals.values();
            sums.for_each(|(o, m)| (offered, missed) = (offered + o, missed + m));
        }
        let late = merger.take_late();
        late.iter().for_each(|late| (offered, missed) = (offered + late.offered, missed + late.missed));
    }
    assert_eq!((count, offered, missed), (21_600, 28_800 - 1, 7_200 - 1), "one was missed just now");
    assert!(wholes >= 7_199 * 5, "{wholes}: intervals without anything are whole, too");
}

/// An interval is whole when the slowest worker has handed it over; what nothing happened in is there as well.
#[test]
fn an_interval_waits_for_every_worker() {
    let mut merger = Merger::new(INTERVAL_NS, 2);
    let mut recorder = Recorder::new(INTERVAL_NS);
    recorder.record(&completion(10_000_000, 0, 0));
    merger.add(0, 3 * INTERVAL_NS, recorder.take(3 * INTERVAL_NS));
    assert!(merger.next_whole().is_none());
    merger.add(1, 2 * INTERVAL_NS, Part::default());
    let wholes: Vec<u64> = std::iter::from_fn(|| merger.next_whole()).map(|whole| whole.index).collect();
    assert_eq!(wholes, [0, 1]);
    // Nor are those left out in which nobody has done anything yet.
    let mut merger = Merger::new(INTERVAL_NS, 1).starting_at(5);
    merger.add(0, 7 * INTERVAL_NS, Part::default());
    let wholes: Vec<u64> = std::iter::from_fn(|| merger.next_whole()).map(|whole| whole.index).collect();
    assert_eq!(wholes, [5, 6]);
}

#[test]
fn recent_counts_everything_once() {
    let mut recorder = Recorder::new(INTERVAL_NS);
    let mut seen = Recent::default();
    for n in 0..1_000u64 {
        let due = n * 1_000_000;
        let outcome = if n % 10 == 0 { Outcome::Error(ErrorCode::NoNode) } else { Outcome::Ok };
        recorder.record(&Completion { outcome, ..completion(due, 0, 200_000) });
        if n % 130 == 0 {
            recorder.missed(0, Op::Get, due);
            seen.merge(&recorder.take_recent(due));
        }
    }
    seen.merge(&recorder.take_recent(2_000_000_000));
    assert_eq!((seen.completed, seen.errors, seen.missed), (900, 100, 8));
    assert_eq!(seen.response.count(), 900);
    assert_eq!(recorder.take_recent(3_000_000_000), Recent::default());
}
