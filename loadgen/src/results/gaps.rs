//! Gaps: times in which a class of operations had no success at all, whichever worker or session.
//!
//! Of each measured phase and class the longest one always becomes an event, so that a report can name it;
//! others only if they stand out. While a run goes on it is not known yet which these will be: a [`Finder`] tells every
//! gap that is the longest so far or stands out so far, and [`select`] takes those out that do not in the end.

use crate::figures;
use crate::op::{Op, Outcome};
use crate::recorder::{Class, Gap, Recording};

use super::{EventRow, PhaseRecord};

/// A gap shorter than this is not worth an event, unless it is the longest.
const GAP_NOTED_NS: u64 = 50_000_000;
/// Nor one shorter than so many mean spacings of successes.
const GAP_SPACINGS: f64 = 20.0;
/// At most so many gaps per phase and class, longest first.
const GAPS_PER_PHASE: usize = 32;
/// What an event of a gap is called.
const KIND: &str = "gap";

const CLASSES: [Class; 2] = [Class::Reads, Class::Writes];

/// Whether a gap stands out among successes that came `spacing_ns` apart.
fn stands_out(length_ns: u64, spacing_ns: f64) -> bool {
    length_ns >= GAP_NOTED_NS && length_ns as f64 >= GAP_SPACINGS * spacing_ns
}

/// Finds gaps while successes come in.
#[derive(Debug)]
pub(crate) struct Finder {
    phases: Vec<PhaseRecord>,
    /// Which classes of operations each phase asks for.
    asked: Vec<[bool; 2]>,
    classes: [State; 2],
}

/// Where the search stands for a class.
#[derive(Debug, Default)]
struct State {
    phase: usize,
    /// The last success in the phase, or its begin.
    previous_ns: Option<u64>,
    spans: u64,
    longest_ns: u64,
}

impl Finder {
    pub(crate) fn new(phases: Vec<PhaseRecord>, asked: Vec<[bool; 2]>) -> Finder {
        Finder { phases, asked, classes: Default::default() }
    }

    /// Takes successes, (first, last) of each millisecond that had one, ascending; then everything before `until_ns` is known.
    pub(crate) fn add(
        &mut self,
        successes: &[Vec<(u64, u64)>; 2],
        until_ns: u64,
        mut tell: impl FnMut(EventRow),
    ) {
        for class in CLASSES {
            for (first_ns, last_ns) in &successes[class as usize] {
                self.phases_until(class, *first_ns, &mut tell);
                self.gap(class, *first_ns, &mut tell);
                let state = &mut self.classes[class as usize];
                let from_ns = self.phases.get(state.phase).map_or(u64::MAX, |phase| phase.start_ns);
                if *first_ns >= from_ns {
                    state.previous_ns = Some(*last_ns);
                    state.spans += 1;
                }
            }
            self.phases_until(class, until_ns, &mut tell);
        }
    }

    /// The load is over: these are the phases as they ran.
    pub(crate) fn end(&mut self, phases: &[PhaseRecord], tell: impl FnMut(EventRow)) {
        self.phases = phases.to_vec();
        self.add(&Default::default(), u64::MAX, tell);
    }

    /// Ends the phases that are over at a moment, each with the gap from its last success to its end.
    fn phases_until(&mut self, class: Class, at_ns: u64, tell: &mut impl FnMut(EventRow)) {
        while let Some(end_ns) = self.phases.get(self.classes[class as usize].phase).map(|phase| phase.end_ns)
            && at_ns >= end_ns
        {
            self.gap(class, end_ns, tell);
            let phase = self.classes[class as usize].phase + 1;
            self.classes[class as usize] = State { phase, ..State::default() };
        }
    }

    /// A gap that ends at a moment within the current phase, or with it.
    fn gap(&mut self, class: Class, to_ns: u64, tell: &mut impl FnMut(EventRow)) {
        let state = &mut self.classes[class as usize];
        let Some(phase) = self.phases.get(state.phase) else { return };
        let asked = self.asked.get(state.phase).is_some_and(|asked| asked[class as usize]);
        let from_ns = state.previous_ns.unwrap_or(phase.start_ns);
        if phase.warmup || !asked || to_ns <= from_ns {
            return;
        }
        let length_ns = to_ns - from_ns;
        let spacing_ns = (to_ns - phase.start_ns) as f64 / state.spans.max(1) as f64;
        if length_ns > state.longest_ns || stands_out(length_ns, spacing_ns) {
            tell(event(Gap { class, from_ns, to_ns }, &phase.name));
        }
        state.longest_ns = state.longest_ns.max(length_ns);
    }
}

/// The gaps of a run in memory, as events.
pub(super) fn events(recording: &Recording, phases: &[PhaseRecord]) -> Vec<EventRow> {
    let asked = (0..phases.len()).map(|at| {
        CLASSES.map(|class| {
            recording.arrivals.keys().any(|(p, op)| usize::from(*p) == at && Class::of(*op) == Some(class))
        })
    });
    let mut finder = Finder::new(phases.to_vec(), asked.collect());
    let mut events = Vec::new();
    finder.add(&recording.successes, u64::MAX, |event| events.push(event));
    select(&mut events, recording, phases);
    events
}

/// Leaves of all gaps those that are worth an event, now that everything is known.
pub(super) fn select(events: &mut Vec<EventRow>, recording: &Recording, phases: &[PhaseRecord]) {
    let (mut gaps, others): (Vec<EventRow>, Vec<EventRow>) =
        events.drain(..).partition(|event| event.kind == KIND);
    *events = others;
    gaps.sort_by_key(|gap| (std::cmp::Reverse(gap.duration_ns), gap.at_ns));
    for (at, phase) in phases.iter().enumerate() {
        for class in CLASSES {
            let inside = |gap: &&EventRow| {
                gap.target == class.name() && gap.at_ns >= phase.start_ns && gap.at_ns < phase.end_ns
            };
            let mine: Vec<&EventRow> = gaps.iter().filter(inside).collect();
            let successes = successes(recording, at, class).max(1);
            let spacing_ns = (phase.end_ns - phase.start_ns) as f64 / successes as f64;
            let keep = mine.iter().filter(|gap| stands_out(gap.duration_ns, spacing_ns)).count();
            events.extend(mine.into_iter().take(keep.clamp(1, GAPS_PER_PHASE)).cloned());
        }
    }
}

fn successes(recording: &Recording, phase: usize, class: Class) -> u64 {
    let of_class = |op: Op| Class::of(op) == Some(class);
    recording
        .totals
        .iter()
        .filter(|(key, _)| usize::from(key.phase) == phase && of_class(key.op))
        .filter(|(key, _)| key.outcome == Outcome::Ok)
        .map(|(_, total)| total.response.len())
        .sum()
}

fn event(gap: Gap, phase: &str) -> EventRow {
    let length_ns = gap.to_ns - gap.from_ns;
    EventRow {
        at_ns: gap.from_ns,
        duration_ns: length_ns,
        kind: KIND.to_string(),
        target: gap.class.name().to_string(),
        detail: format!(
            "no successful {} for {} (phase {phase})",
            gap.class.name(),
            figures::time_us(length_ns as f64 / 1e3)
        ),
    }
}
