//! What a run of a workload will be, as far as that is known before it: how long, how many operations, and which
//! expectations there will be samples for.
//!
//! An open phase has a schedule, so what will be due in it is known; a closed one goes as fast as it is answered, so
//! nothing is said about it. Which kind an operation is, is drawn: a kind's number is known to within what
//! chance does to it ([`CHANCE`] standard deviations).

mod text;

use crate::arrivals::Integral;
use crate::expect::{Expectation, Metric, Ops, Relation, Stat, samples_needed};
use crate::figures;
use crate::op::Op;
use crate::spec::{Arrival, Phase, Spacing, Spec};

pub use text::text;

/// Drawn numbers lie within so many standard deviations of what is expected.
pub const CHANCE: f64 = 6.0;

/// How many operations will be due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offered {
    /// On average over all seeds.
    pub expected: f64,
    /// At least, but for a chance of one in a billion.
    pub least: f64,
    /// At most, likewise.
    pub most: f64,
}

/// What can come of an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// It can be met, and it can fail.
    Open,
    /// It may turn out that there are too few samples to judge it.
    Doubtful(String),
    /// It cannot be met, or cannot fail, at the load that the workload asks for.
    Settled(String),
}

/// How many operations of these kinds will be due in a phase; `None` in a closed loop, and for what comes by itself.
pub fn due(phase: &Phase, ops: Ops) -> Option<Offered> {
    let Arrival::Open { rate, spacing } = &phase.arrival else { return None };
    if matches!(ops, Ops::One(Op::Connect | Op::Notify)) {
        return None;
    }
    let integral = Integral::new(rate, phase.duration_ns);
    // A delete that finds nothing to delete is a create.
    let share = phase.share(|op| ops.contains(op) || (op == Op::Delete && ops.contains(Op::Create)));
    let drawn = *spacing == Spacing::Poisson || share < 1.0;
    if !drawn {
        let count = integral.even_count() as f64;
        return Some(Offered { expected: count, least: count, most: count });
    }
    let expected = integral.total() * share;
    let reach = CHANCE * expected.sqrt();
    Some(Offered { expected, least: (expected - reach).max(0.0), most: expected + reach + CHANCE })
}

/// What can come of an expectation of this workload.
pub fn outlook(spec: &Spec, expectation: &Expectation) -> Outlook {
    let Some(ops) = expectation.metric.ops() else { return Outlook::Open };
    let phases = expectation.phases(spec);
    let due: Vec<(&Phase, Offered)> =
        phases.iter().filter_map(|phase| Some((*phase, due(phase, ops)?))).collect();
    let samples = samples(expectation, &due);
    if samples != Outlook::Open {
        return samples;
    }
    let all_open = due.len() == phases.len();
    match expectation.metric {
        Metric::Rate(_) => rates(expectation, &due, all_open),
        Metric::Errors(_) | Metric::Missed(_) if all_open => {
            let most: f64 = due.iter().map(|(_, due)| due.most).sum();
            counts(expectation, most)
        }
        _ => Outlook::Open,
    }
}

/// Whether there will be samples enough in every phase.
fn samples(expectation: &Expectation, due: &[(&Phase, Offered)]) -> Outlook {
    let (needed, what) = match expectation.metric {
        Metric::Latency(_, _, Stat::Percentile(percentile)) => (
            samples_needed(percentile),
            format!("p{percentile} needs {}", figures::count(samples_needed(percentile))),
        ),
        _ => (1, "there must be one at least".to_string()),
    };
    let said = |phase: &Phase, due: &Offered| {
        format!(
            "{what}, and in phase {} {}{} such operations will be due",
            phase.name,
            if due.most > due.expected { "about " } else { "" },
            figures::count(due.expected.round() as u64)
        )
    };
    let short = |of: fn(&Offered) -> f64| due.iter().find(|(_, due)| of(due) < needed as f64);
    match (short(|due| due.most), short(|due| due.least)) {
        (Some((phase, due)), _) => Outlook::Settled(said(phase, due)),
        (None, Some((phase, due))) => Outlook::Doubtful(said(phase, due)),
        (None, None) => Outlook::Open,
    }
}

/// Answers within a phase come at most as often as operations are due in it.
fn rates(expectation: &Expectation, due: &[(&Phase, Offered)], all_open: bool) -> Outlook {
    let most = |(phase, due): &(&Phase, Offered)| due.most * 1e9 / phase.duration_ns as f64;
    let Expectation { relation, bound, .. } = expectation;
    let never = match relation {
        Relation::AtLeast | Relation::More | Relation::Equal => {
            due.iter().find(|phase| !relation.holds(most(phase), *bound) && most(phase) < *bound)
        }
        Relation::Less | Relation::AtMost => None,
    };
    if let Some((phase, due)) = never {
        let rate = due.expected * 1e9 / phase.duration_ns as f64;
        return Outlook::Settled(format!(
            "it could never hold: in phase {} such operations are due at {}/s",
            phase.name,
            figures::rate(rate)
        ));
    }
    let always = matches!(relation, Relation::Less | Relation::AtMost)
        && all_open
        && due.iter().all(|phase| relation.holds(most(phase), *bound));
    match always {
        true => Outlook::Settled("it could not fail: such operations are due at a lower rate".to_string()),
        false => Outlook::Open,
    }
}

/// No more can fail than are due.
fn counts(expectation: &Expectation, most: f64) -> Outlook {
    let holds = |value: f64| expectation.relation.holds(value, expectation.bound);
    let due = figures::count(most as u64);
    match (holds(0.0), holds(most), expectation.relation) {
        (_, _, Relation::Equal) if expectation.bound <= most => Outlook::Open,
        (true, true, _) => {
            Outlook::Settled(format!("it could not fail: {due} such operations are due at most"))
        }
        (false, false, _) => {
            Outlook::Settled(format!("it could never hold: {due} such operations are due at most"))
        }
        _ => Outlook::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two phases: an open one of 10 s with three reads to a write, and a closed one of reads.
    fn workload(rate: &str, expect: &str) -> Spec {
        let text = format!(
            "expect = [\"{expect}\"]\n[[phase]]\nname = \"open\"\nduration = \"10s\"\narrival = {{ {rate} }}\n\
             mix = {{ get = 3, set = 1 }}\n[[phase]]\nname = \"closed\"\nduration = \"10s\"\nmix = {{ get = 1 }}\n"
        );
        Spec::parse("w.toml", &text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn what_will_be_due() {
        let spec = workload("constant = \"1000/s\"", "errors.total = 0");
        let all = due(&spec.phases[0], Ops::All).expect("an open phase");
        assert_eq!(all, Offered { expected: 10_000.0, least: 10_000.0, most: 10_000.0 });
        let sets = due(&spec.phases[0], Ops::One(Op::Set)).expect("an open phase");
        assert!(sets.expected == 2_500.0 && sets.least < 2_300.0 && sets.most > 2_700.0, "{sets:?}");
        assert_eq!(due(&spec.phases[1], Ops::All), None);
    }

    /// The plan draws as many of a kind as was said.
    #[test]
    fn the_plan_keeps_what_was_said() {
        let spec = workload("poisson = \"1000/s\"", "errors.total = 0");
        let plan = crate::plan::Plan::new(&spec);
        let sets = due(&spec.phases[0], Ops::One(Op::Set)).expect("an open phase");
        let all = due(&spec.phases[0], Ops::All).expect("an open phase");
        let phase = plan.phase(0);
        let planned: Vec<Op> = phase
            .schedule(crate::plan::Share::ALL)
            .expect("an open phase")
            .map(|due| phase.op(due.index).op)
            .collect();
        let of =
            |wanted: Option<Op>| planned.iter().filter(|op| wanted.is_none_or(|w| **op == w)).count() as f64;
        for (due, count) in [(sets, of(Some(Op::Set))), (all, of(None))] {
            assert!(due.least < count && count < due.most, "{due:?}, {count}");
        }
    }

    #[test]
    fn the_outlook() {
        let settled = [
            ("constant = \"200/s\"", "phase.open.response.set.p99 < 5ms", "p99 needs 1,000"),
            ("constant = \"999/s\"", "phase.open.response.p99.9 < 5ms", "phase open 9,990 such operations"),
            ("constant = \"1000/s\"", "rate.set > 500/s", "due at 250/s"),
            ("constant = \"1000/s\"", "phase.open.rate < 1500/s", "could not fail"),
            (
                "constant = \"1000/s\"",
                "phase.open.errors.total < 20000",
                "10,000 such operations are due at most",
            ),
            ("constant = \"1000/s\"", "phase.open.missed.total > 20000", "could never hold"),
        ];
        for (rate, text, why) in settled {
            let spec = workload(rate, text);
            match outlook(&spec, &spec.expect[0]) {
                Outlook::Settled(said) => assert!(said.contains(why), "{text}: {said}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let spec = workload("constant = \"401/s\"", "phase.open.response.set.p99 < 5ms");
        assert!(matches!(outlook(&spec, &spec.expect[0]), Outlook::Doubtful(_)));
        for text in [
            "phase.open.response.p99.9 < 5ms",
            "response.get.p99.99 < 5ms",
            "rate.set > 240/s",
            "phase.closed.rate > 1000000/s",
            "errors.total = 0",
            "errors.total < 20000",
            "lost_acknowledged_writes = 0",
        ] {
            let spec = workload("constant = \"20000/s\"", text);
            assert_eq!(outlook(&spec, &spec.expect[0]), Outlook::Open, "{text}");
        }
    }
}
