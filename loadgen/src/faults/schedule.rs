//! Which fault begins or ends when: pure, on the run's clock.
//!
//! A strike is due at its time and stays due until it is said to be done, so that one that waits for a member delays nothing else. Its
//! undoing is due `for` after the strike was really made: a fault that came late lasts as long as it was to last. When the run winds
//! up, whatever is in force ends at once, and what has not begun never does.

use crate::spec::{Fault, FaultKind};

/// Whether a step breaks or mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The fault ends.
    Undo,
    /// The fault begins.
    Strike,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Due at this time.
    Ahead(u64),
    /// To be undone at this time, or never.
    Struck(Option<u64>),
    Over,
}

/// Where every fault of a run stands.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// How long each lasts; `None` for good.
    lasts: Vec<Option<u64>>,
    stands: Vec<Stand>,
    winds_up: bool,
}

/// How long a fault lasts: a restart without a pause ends as soon as it has begun.
pub fn lasts_ns(fault: &Fault) -> Option<u64> {
    match fault.kind {
        FaultKind::Restart => Some(fault.for_ns.unwrap_or(0)),
        _ => fault.for_ns,
    }
}

impl Schedule {
    /// The first phase begins at `start_ns`.
    pub fn new(faults: &[Fault], start_ns: u64) -> Schedule {
        Schedule {
            lasts: faults.iter().map(lasts_ns).collect(),
            stands: faults.iter().map(|fault| Stand::Ahead(start_ns.saturating_add(fault.at_ns))).collect(),
            winds_up: false,
        }
    }

    /// What is due, with the time at which it was: undoing first, both in the order of the faults.
    pub fn due(&self, now_ns: u64) -> Vec<(What, usize, u64)> {
        let steps = |what: What| self.steps().filter(move |step| step.0 == what && step.2 <= now_ns);
        steps(What::Undo).chain(steps(What::Strike)).collect()
    }

    /// When the next step is due; in the past if one already is.
    pub fn next_ns(&self) -> Option<u64> {
        self.steps().map(|(.., at_ns)| at_ns).min()
    }

    fn steps(&self) -> impl Iterator<Item = (What, usize, u64)> {
        let steps = self.stands.iter().enumerate();
        steps.filter_map(|(fault, stand)| match *stand {
            Stand::Ahead(at_ns) => Some((What::Strike, fault, at_ns)),
            Stand::Struck(Some(at_ns)) => Some((What::Undo, fault, at_ns)),
            Stand::Struck(None) | Stand::Over => None,
        })
    }

    /// Strikes that are due by `until_ns`, with their times, whether or not they already are.
    pub fn strikes_until(&self, until_ns: u64) -> impl Iterator<Item = (usize, u64)> {
        let strikes = self.steps().filter(move |step| step.0 == What::Strike && step.2 <= until_ns);
        strikes.map(|(_, fault, at_ns)| (fault, at_ns))
    }

    /// A strike has been made; says when it is to be undone.
    pub fn struck(&mut self, fault: usize, at_ns: u64) -> Option<u64> {
        let until_ns = self.lasts[fault].map(|lasts_ns| match self.winds_up {
            true => at_ns,
            false => at_ns.saturating_add(lasts_ns),
        });
        self.stands[fault] = Stand::Struck(until_ns);
        until_ns
    }

    /// A fault is over.
    pub fn over(&mut self, fault: usize) {
        self.stands[fault] = Stand::Over;
    }

    /// Nothing new begins; what lasts ends now. Gives the strikes that were due and not made.
    pub fn wind_up(&mut self, now_ns: u64) -> Vec<usize> {
        self.winds_up = true;
        let mut missed = Vec::new();
        for (fault, stand) in self.stands.iter_mut().enumerate() {
            match stand {
                Stand::Ahead(at_ns) => {
                    if *at_ns <= now_ns {
                        missed.push(fault);
                    }
                    *stand = Stand::Over;
                }
                Stand::Struck(Some(at_ns)) => *at_ns = now_ns.min(*at_ns),
                Stand::Struck(None) | Stand::Over => {}
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::tests::faults;

    const S: u64 = 1_000_000_000;

    /// Every step at its time, strikes made at once unless `late` says by how many seconds.
    fn steps(text: &str, late: impl Fn(usize) -> u64) -> Vec<(u64, What, usize)> {
        let mut schedule = Schedule::new(&faults(text), 100 * S);
        let mut steps = Vec::new();
        for now_ns in (100..200).map(|s| s * S) {
            // A step can make another one due at the same moment.
            loop {
                let due = schedule.due(now_ns);
                let due: Vec<_> = due
                    .into_iter()
                    .filter(|(what, fault, at_ns)| *what == What::Undo || now_ns >= at_ns + late(*fault) * S)
                    .collect();
                let Some((what, fault, _)) = due.first().copied() else { break };
                steps.push((now_ns / S - 100, what, fault));
                match what {
                    What::Strike => drop(schedule.struck(fault, now_ns)),
                    What::Undo => schedule.over(fault),
                }
            }
        }
        assert_eq!(schedule.next_ns(), None);
        steps
    }

    const MANY: &str = "[[fault]]\nat = \"5s\"\nkind = \"stop\"\ntarget = \"follower\"\nfor = \"5s\"\n\
        [[fault]]\nat = \"2s\"\nkind = \"restart\"\ntarget = \"server 2\"\n\
        [[fault]]\nat = \"10s\"\nkind = \"kill\"\ntarget = \"leader\"\nfor = \"2s\"\nrepeat = 2\nevery = \"4s\"\n\
        [[fault]]\nat = \"20s\"\nkind = \"kill\"\ntarget = \"all\"\n";

    #[test]
    fn steps_come_in_the_order_of_time_and_undoing_comes_first() {
        use What::*;
        // Faults are sorted by their time: restart, stop, kill, kill, kill all.
        assert_eq!(
            steps(MANY, |_| 0),
            [
                (2, Strike, 0),
                (2, Undo, 0),
                (5, Strike, 1),
                (10, Undo, 1),
                (10, Strike, 2),
                (12, Undo, 2),
                (14, Strike, 3),
                (16, Undo, 3),
                (20, Strike, 4),
            ]
        );
    }

    #[test]
    fn a_strike_that_waits_delays_nobody_and_lasts_as_long_as_it_was_to() {
        use What::*;
        // The first kill finds nobody for five seconds.
        assert_eq!(
            steps(MANY, |fault| if fault == 2 { 5 } else { 0 })[3..],
            [(10, Undo, 1), (14, Strike, 3), (15, Strike, 2), (16, Undo, 3), (17, Undo, 2), (20, Strike, 4)]
        );
    }

    #[test]
    fn winding_up_ends_what_is_in_force_and_tells_what_never_began() {
        let mut schedule = Schedule::new(&faults(MANY), 0);
        schedule.struck(1, 5 * S);
        schedule.over(0);
        assert_eq!(schedule.wind_up(11 * S), [2], "the first kill was due");
        assert_eq!(schedule.due(11 * S), [(What::Undo, 1, 10 * S)]);
        let mut schedule = Schedule::new(&faults(MANY), 0);
        schedule.struck(1, 5 * S);
        assert_eq!(schedule.wind_up(6 * S), [0]);
        assert_eq!(schedule.due(6 * S), [(What::Undo, 1, 6 * S)], "before its time");
        schedule.over(1);
        assert_eq!(schedule.next_ns(), None);
    }
}
