//! Gaps: times in which a class of operations had no success at all, whichever worker or session.
//!
//! Of each measured phase and class the longest one always becomes an event, so that a report can name it;
//! others only if they stand out.

use crate::figures;
use crate::op::Op;
use crate::recorder::{Class, Gap, Recording};

use super::{EventRow, PhaseRecord};

/// A gap shorter than this is not worth an event, unless it is the longest.
pub(super) const GAP_NOTED_NS: u64 = 50_000_000;
/// Nor one shorter than so many mean spacings of successes.
pub(super) const GAP_SPACINGS: f64 = 20.0;
/// At most so many gaps per phase and class, longest first.
pub(super) const GAPS_PER_PHASE: usize = 32;

/// The gaps of a run as events.
pub(super) fn events(recording: &Recording, phases: &[PhaseRecord]) -> Vec<EventRow> {
    let mut events = Vec::new();
    for (at, phase) in phases.iter().enumerate().filter(|(_, phase)| !phase.warmup) {
        for class in [Class::Reads, Class::Writes] {
            let offered = recording
                .arrivals
                .keys()
                .any(|(p, op)| usize::from(*p) == at && Class::of(*op) == Some(class));
            if offered {
                let mut gaps = recording.gaps(class, phase.start_ns, phase.end_ns);
                gaps.sort_by_key(|gap| (std::cmp::Reverse(gap.to_ns - gap.from_ns), gap.from_ns));
                let successes = successes(recording, at, class).max(1);
                let spacing_ns = (phase.end_ns - phase.start_ns) as f64 / successes as f64;
                let noted =
                    |length: u64| length >= GAP_NOTED_NS && length as f64 >= GAP_SPACINGS * spacing_ns;
                let keep = gaps.iter().filter(|gap| noted(gap.to_ns - gap.from_ns)).count();
                gaps.truncate(keep.clamp(1, GAPS_PER_PHASE));
                events.extend(gaps.into_iter().map(|gap| event(gap, &phase.name)));
            }
        }
    }
    events
}

fn successes(recording: &Recording, phase: usize, class: Class) -> u64 {
    let of_class = |op: Op| Class::of(op) == Some(class);
    recording
        .totals
        .iter()
        .filter(|(key, _)| usize::from(key.phase) == phase && of_class(key.op))
        .filter(|(key, _)| key.outcome == crate::op::Outcome::Ok)
        .map(|(_, total)| total.response.len())
        .sum()
}

fn event(gap: Gap, phase: &str) -> EventRow {
    let length_ns = gap.to_ns - gap.from_ns;
    EventRow {
        at_ns: gap.from_ns,
        duration_ns: length_ns,
        kind: "gap".to_string(),
        target: gap.class.name().to_string(),
        detail: format!(
            "no successful {} for {} (phase {phase})",
            gap.class.name(),
            figures::time_us(length_ns as f64 / 1e3)
        ),
    }
}
