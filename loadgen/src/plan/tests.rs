//! Exact plans for fixed seeds, and what must hold whatever the number of workers.

use proptest::prelude::*;

use super::*;
use crate::spec::{Data, KeyChoice, Placement, Rate, Sessions, Shape, WeightedSize};

const SECOND: u64 = 1_000_000_000;

fn phase(name: &str, arrival: Arrival) -> Phase {
    Phase {
        name: name.into(),
        duration_ns: SECOND,
        warmup: false,
        arrival,
        mix: vec![(Op::Get, 10.0), (Op::Set, 1.0)],
        keys: KeyChoice::Zipf(0.99),
        value: ValueSize::Uniform { min: 10, max: 20 },
        backlog_limit: 1000,
    }
}

fn open(rate: Rate, spacing: Spacing) -> Arrival {
    Arrival::Open { rate, spacing }
}

fn spec(seed: u64, sessions: u32, phases: Vec<Phase>) -> Spec {
    Spec {
        name: "test".into(),
        description: String::new(),
        seed,
        data: Data { root: "/r".into(), znodes: 1000, shape: Shape::Flat, value: ValueSize::Constant(100) },
        sessions: Sessions { count: sessions, in_flight: 10, timeout_ms: 10_000, placement: Placement::Even },
        phases,
        watchers: vec![],
        faults: vec![],
        expect: vec![],
        overrides: vec![],
        text: String::new(),
    }
}

fn plan_of(seed: u64, sessions: u32, phase: Phase) -> PhasePlan {
    Plan::new(&spec(seed, sessions, vec![phase])).phase(0).clone()
}

fn all_shares(plan: &PhasePlan, workers: u32) -> Vec<Vec<Due>> {
    let of = |worker| plan.schedule(Share { worker, workers }).expect("open").collect();
    (0..workers).map(of).collect()
}

#[test]
fn an_operation_depends_on_seed_phase_and_index_alone() {
    let plan = plan_of(7, 3, phase("steady", Arrival::Closed));
    let first: Vec<PlannedOp> = (0..1000).map(|index| plan.op(index)).collect();
    let backwards: Vec<PlannedOp> = (0..1000).rev().map(|index| plan.op(index)).collect();
    assert!(first.iter().eq(backwards.iter().rev()));

    // Sessions, and phases before it, do not change it ...
    let later =
        Plan::new(&spec(7, 50, vec![phase("warm", Arrival::Closed), phase("steady", Arrival::Closed)]));
    assert!((0..1000).all(|index| later.phase(1).op(index) == first[index as usize]));
    // ... another seed, and another name, do.
    assert!((0..1000).any(|index| later.phase(0).op(index) != first[index as usize]));
    let other = plan_of(8, 3, phase("steady", Arrival::Closed));
    assert!((0..1000).any(|index| other.op(index) != first[index as usize]));
}

#[test]
fn mix_and_sizes_are_as_weighted() {
    let mut mixed = phase("mixed", Arrival::Closed);
    mixed.value = ValueSize::Weighted(vec![
        WeightedSize { bytes: 100, weight: 9.0 },
        WeightedSize { bytes: 1024, weight: 1.0 },
    ]);
    let plan = plan_of(1, 1, mixed);
    let ops: Vec<PlannedOp> = (0..110_000).map(|index| plan.op(index)).collect();
    let gets = ops.iter().filter(|op| op.op == Op::Get).count();
    let large = ops.iter().filter(|op| op.value_bytes == 1024).count();
    // Standard deviations 95 and 99; five of them.
    assert!(gets.abs_diff(100_000) < 475, "{gets} gets");
    assert!(large.abs_diff(11_000) < 495, "{large} large values");
    assert!(ops.iter().all(|op| op.key < 1000));
}

#[test]
fn uniform_sizes_reach_both_ends() {
    let plan = plan_of(1, 1, phase("sizes", Arrival::Closed));
    let sizes: Vec<u32> = (0..1000).map(|index| plan.op(index).value_bytes).collect();
    assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&10), Some(&20)));
}

#[test]
fn a_constant_rate_is_dealt_out_in_turn() {
    let plan = plan_of(1, 3, phase("even", open(Rate::Constant(5.0), Spacing::Even)));
    let due = |share| {
        let schedule = plan.schedule(share).expect("open");
        schedule.map(|due| (due.due_ns / 1_000_000, due.index, due.session)).collect::<Vec<_>>()
    };
    assert_eq!(due(Share::ALL), [(0, 0, 0), (200, 1, 1), (400, 2, 2), (600, 3, 0), (800, 4, 1)]);
    assert_eq!(due(Share { worker: 0, workers: 2 }), [(0, 0, 0), (400, 2, 2), (600, 3, 0)]);
    assert_eq!(due(Share { worker: 1, workers: 2 }), [(200, 1, 1), (800, 4, 1)]);
    assert_eq!(due(Share { worker: 3, workers: 4 }), []);
}

#[test]
fn a_closed_loop_has_no_schedule_but_indices_that_do_not_collide() {
    let plan = plan_of(1, 3, phase("closed", Arrival::Closed));
    assert!(plan.schedule(Share::ALL).is_none());
    assert!(plan.offered().is_none());
    let mut indices: Vec<u64> = (0..3)
        .flat_map(|session| (0..4).map(move |n| (session, n)))
        .map(|(s, n)| plan.closed_index(s, n))
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..12).collect::<Vec<u64>>());
}

#[test]
fn poisson_gaps_are_exponential_and_sessions_alike() {
    let mut long = phase("poisson", open(Rate::Constant(10_000.0), Spacing::Poisson));
    long.duration_ns = 10 * SECOND;
    let due: Vec<Due> = plan_of(11, 4, long).schedule(Share::ALL).expect("open").collect();
    // 100 000 expected with a standard deviation of 316.
    assert!((due.len() as f64 - 100_000.0).abs() < 5.0 * 316.0, "{}", due.len());

    // The largest distance between the gaps' distribution and 1 − e^(−λt) (Kolmogorov and Smirnov:
    // 1.95/√n is exceeded once in a thousand), for the whole process and for one session's part of it.
    let distance = |times: Vec<u64>, mean_ns: f64| {
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        gaps.sort_unstable_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let off = |(i, gap): (usize, &f64)| ((i as f64 + 0.5) / n - (1.0 - (-gap / mean_ns).exp())).abs();
        gaps.iter().enumerate().map(off).fold(0.0, f64::max) * n.sqrt()
    };
    let all = distance(due.iter().map(|due| due.due_ns).collect(), 100_000.0);
    let one = distance(due.iter().filter(|due| due.session == 2).map(|due| due.due_ns).collect(), 400_000.0);
    assert!(all < 1.95 && one < 1.95, "{all} and {one}");
}

#[test]
fn initial_sizes_are_a_function_of_the_key() {
    let mut spec = spec(3, 1, vec![phase("one", Arrival::Closed)]);
    spec.data.value = ValueSize::Uniform { min: 0, max: 9 };
    let plan = Plan::new(&spec);
    let sizes: Vec<u32> = (0..100).map(|key| plan.initial_value_bytes(key)).collect();
    assert!(sizes.iter().all(|&bytes| bytes <= 9) && sizes.iter().any(|&bytes| bytes != sizes[0]));
    assert_eq!(sizes[41], Plan::new(&spec).initial_value_bytes(41));
}

/// The first operations of seed 1, written down: a change here changes what every recorded seed means.
#[test]
fn seeds_keep_their_meaning() {
    let plan = plan_of(1, 2, phase("steady", open(Rate::Constant(1000.0), Spacing::Poisson)));
    let ops: Vec<(Op, u64, u32)> =
        (0..6).map(|index| plan.op(index)).map(|op| (op.op, op.key, op.value_bytes)).collect();
    let get = |key, bytes| (Op::Get, key, bytes);
    assert_eq!(ops, [get(6, 17), get(0, 18), get(280, 14), get(31, 19), get(0, 20), get(0, 20)]);
    let due: Vec<(u64, u32)> =
        plan.schedule(Share::ALL).expect("open").take(4).map(|due| (due.due_ns, due.session)).collect();
    assert_eq!(due, [(540_952, 1), (5_315_612, 0), (6_725_673, 1), (8_400_940, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_many_workers_the_process_is_the_same(
        seed in any::<u64>(),
        sessions in 1u32..40,
        workers in 1u32..9,
        from in 0.0..3000.0f64,
        to in 1.0..3000.0f64,
        poisson in any::<bool>(),
    ) {
        let spacing = if poisson { Spacing::Poisson } else { Spacing::Even };
        let plan = plan_of(seed, sessions, phase("p", open(Rate::Ramp { from, to }, spacing)));
        let whole: Vec<Due> = plan.schedule(Share::ALL).expect("open").collect();
        let shares = all_shares(&plan, workers);
        for (worker, share) in shares.iter().enumerate() {
            prop_assert!(share.is_sorted_by_key(|due| due.due_ns));
            let share_of = Share { worker: worker as u32, workers };
            prop_assert!(share.iter().all(|due| share_of.has(due.session) && due.session < sessions));
        }
        let mut together: Vec<Due> = shares.into_iter().flatten().collect();
        together.sort_unstable_by_key(|due| due.index);
        prop_assert_eq!(&together, &whole);
        prop_assert!(whole.iter().enumerate().all(|(n, due)| due.index == n as u64 && due.due_ns < SECOND));
        if !poisson {
            prop_assert!((whole.len() as f64 - plan.offered().expect("open")).abs() <= 1.0);
        }
    }
}
