//! What is in force at one member, and what a strike or its undoing means then: pure.
//!
//! Faults overlap, so each keeps a *hold* of its own on a condition, and the condition lasts until its last hold is gone: two stops
//! that overlap are one longer stop. Conditions do not know each other, with one exception: a process that ends is not stopped any
//! more, so what would let it go on has nothing to do. A restart leaves a member running, whoever took it down.

use crate::cluster::Deed;
use crate::spec::FaultKind;
use serde::{Deserialize, Serialize};

/// What a fault brings a member into. In this order they are mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its process is stopped (SIGSTOP).
    Stopped,
    /// It is cut off from the other members.
    Cut,
    /// Its disk is slow.
    Slowed,
    /// It has no process.
    Down,
}

impl Condition {
    /// What a kind of fault brings about.
    pub fn of(kind: FaultKind) -> Condition {
        match kind {
            FaultKind::Kill | FaultKind::Restart => Condition::Down,
            FaultKind::Stop => Condition::Stopped,
            FaultKind::Cut => Condition::Cut,
            FaultKind::SlowDisk { .. } => Condition::Slowed,
        }
    }

    /// What ends it.
    pub fn undo(self) -> Deed {
        match self {
            Condition::Stopped => Deed::Continue,
            Condition::Cut => Deed::Heal,
            Condition::Slowed => Deed::FastDisk,
            Condition::Down => Deed::Start,
        }
    }

    /// After "is".
    pub fn name(self) -> &'static str {
        match self {
            Condition::Stopped => "stopped",
            Condition::Cut => "cut off",
            Condition::Slowed => "slowed",
            Condition::Down => "down",
        }
    }
}

/// What is to be done at a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// This.
    Do(Deed),
    /// Nothing, because of this.
    Nothing(&'static str),
}

/// One member. Faults are known by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    down: Vec<usize>,
    stopped: Vec<usize>,
    cut: Vec<usize>,
    /// With the delay of each, ns; the longest one holds.
    slowed: Vec<(usize, u64)>,
}

impl State {
    /// Whether it cannot do anything: it is down or stopped.
    pub fn is_out(&self) -> bool {
        !self.down.is_empty() || !self.stopped.is_empty()
    }

    /// Whether a condition is in force.
    pub fn is(&self, condition: Condition) -> bool {
        match condition {
            Condition::Stopped => !self.stopped.is_empty(),
            Condition::Cut => !self.cut.is_empty(),
            Condition::Slowed => !self.slowed.is_empty(),
            Condition::Down => !self.down.is_empty(),
        }
    }

    /// A fault strikes.
    pub fn strike(&mut self, fault: usize, kind: FaultKind) -> Order {
        let was = self.is(Condition::of(kind));
        match kind {
            FaultKind::Stop if self.is(Condition::Down) => return Order::Nothing("it is down"),
            FaultKind::Stop => self.stopped.push(fault),
            FaultKind::Cut => self.cut.push(fault),
            FaultKind::Kill | FaultKind::Restart => self.down.push(fault),
            FaultKind::SlowDisk { delay_ns } => {
                let before_ns = self.delay_ns();
                self.slowed.push((fault, delay_ns));
                return match delay_ns > before_ns {
                    true => Order::Do(Deed::SlowDisk { delay_ns }),
                    false => Order::Nothing("its disk is as slow already"),
                };
            }
        }
        match kind {
            FaultKind::Kill if !was => Order::Do(Deed::Kill),
            FaultKind::Restart if !was => Order::Do(Deed::End),
            FaultKind::Stop if !was => Order::Do(Deed::Stop),
            FaultKind::Cut if !was => Order::Do(Deed::Cut),
            FaultKind::Stop => Order::Nothing("it is stopped already"),
            FaultKind::Cut => Order::Nothing("it is cut off already"),
            _ => Order::Nothing("it is down already"),
        }
    }

    /// A deed was done. What ends a process or starts one leaves none that is stopped; one that failed changes nothing.
    pub fn done(&mut self, deed: Deed) {
        if matches!(deed, Deed::Kill | Deed::End | Deed::Start) {
            self.stopped.clear();
        }
    }

    /// A fault that struck ends.
    pub fn undo(&mut self, fault: usize, kind: FaultKind) -> Order {
        let condition = Condition::of(kind);
        if let FaultKind::SlowDisk { .. } = kind {
            let before_ns = self.delay_ns();
            self.slowed.retain(|(holds, _)| *holds != fault);
            return match self.delay_ns() {
                0 => Order::Do(Deed::FastDisk),
                delay_ns if delay_ns < before_ns => Order::Do(Deed::SlowDisk { delay_ns }),
                _ => Order::Nothing("another fault keeps its disk slow"),
            };
        }
        let holds = match condition {
            Condition::Stopped => &mut self.stopped,
            Condition::Cut => &mut self.cut,
            Condition::Down | Condition::Slowed => &mut self.down,
        };
        let Some(at) = holds.iter().position(|holds| *holds == fault) else {
            return Order::Nothing(match condition {
                Condition::Stopped => "its process was ended meanwhile",
                _ => "it was started meanwhile",
            });
        };
        match kind {
            FaultKind::Restart => holds.clear(),
            _ => drop(holds.remove(at)),
        }
        match (holds.is_empty(), condition) {
            (true, _) => Order::Do(condition.undo()),
            (false, Condition::Stopped) => Order::Nothing("another fault keeps it stopped"),
            (false, Condition::Cut) => Order::Nothing("another fault keeps it cut off"),
            (false, _) => Order::Nothing("another fault keeps it down"),
        }
    }

    fn delay_ns(&self) -> u64 {
        self.slowed.iter().map(|(_, delay_ns)| *delay_ns).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FaultKind::*;
    use Order::{Do, Nothing};

    /// (fault, kind, true for a strike, what is to be done)
    type Step = (usize, FaultKind, bool, Order);

    fn follow(name: &str, steps: &[Step]) {
        let mut state = State::default();
        for (n, (fault, kind, strike, expected)) in steps.iter().enumerate() {
            let order = match strike {
                true => state.strike(*fault, *kind),
                false => state.undo(*fault, *kind),
            };
            assert_eq!(order, *expected, "{name}, step {}", n + 1);
            if let Do(deed) = order {
                state.done(deed);
            }
        }
        assert_eq!(state, State::default(), "{name}: nothing is left in force");
    }

    #[test]
    fn a_kill_that_fails_leaves_a_stop_to_be_undone() {
        let mut state = State::default();
        let deed = |order| if let Do(deed) = order { Some(deed) } else { None };
        let stop = deed(state.strike(0, Stop)).unwrap();
        state.done(stop);
        assert_eq!(state.strike(1, Kill), Do(Deed::Kill));
        assert_eq!(state.undo(0, Stop), Do(Deed::Continue), "nothing has ended its process");
    }

    #[test]
    fn faults_at_one_member_are_independent() {
        let slow = |delay_ns| SlowDisk { delay_ns };
        follow(
            "stop, then kill",
            &[
                (0, Stop, true, Do(Deed::Stop)),
                (1, Kill, true, Do(Deed::Kill)),
                (0, Stop, false, Nothing("its process was ended meanwhile")),
                (1, Kill, false, Do(Deed::Start)),
            ],
        );
        follow(
            "stop, then kill and start, all within the stop",
            &[
                (0, Stop, true, Do(Deed::Stop)),
                (1, Kill, true, Do(Deed::Kill)),
                (1, Kill, false, Do(Deed::Start)),
                (0, Stop, false, Nothing("its process was ended meanwhile")),
            ],
        );
        follow(
            "a member that is down cannot be stopped",
            &[
                (0, Kill, true, Do(Deed::Kill)),
                (1, Stop, true, Nothing("it is down")),
                (0, Kill, false, Do(Deed::Start)),
                (1, Stop, false, Nothing("its process was ended meanwhile")),
            ],
        );
        follow(
            "two stops that overlap",
            &[
                (0, Stop, true, Do(Deed::Stop)),
                (1, Stop, true, Nothing("it is stopped already")),
                (0, Stop, false, Nothing("another fault keeps it stopped")),
                (1, Stop, false, Do(Deed::Continue)),
            ],
        );
        follow(
            "a cut and a stop",
            &[
                (0, Cut, true, Do(Deed::Cut)),
                (1, Stop, true, Do(Deed::Stop)),
                (0, Cut, false, Do(Deed::Heal)),
                (1, Stop, false, Do(Deed::Continue)),
            ],
        );
        follow(
            "a cut lasts beyond the process",
            &[
                (0, Cut, true, Do(Deed::Cut)),
                (2, Cut, true, Nothing("it is cut off already")),
                (1, Restart, true, Do(Deed::End)),
                (1, Restart, false, Do(Deed::Start)),
                (0, Cut, false, Nothing("another fault keeps it cut off")),
                (2, Cut, false, Do(Deed::Heal)),
            ],
        );
        follow(
            "a restart of a dead member starts it, for whatever it was down",
            &[
                (0, Kill, true, Do(Deed::Kill)),
                (1, Restart, true, Nothing("it is down already")),
                (1, Restart, false, Do(Deed::Start)),
                (0, Kill, false, Nothing("it was started meanwhile")),
            ],
        );
        follow(
            "two kills that overlap",
            &[
                (0, Kill, true, Do(Deed::Kill)),
                (1, Kill, true, Nothing("it is down already")),
                (0, Kill, false, Nothing("another fault keeps it down")),
                (1, Kill, false, Do(Deed::Start)),
            ],
        );
        follow(
            "the slowest disk holds",
            &[
                (0, slow(50), true, Do(Deed::SlowDisk { delay_ns: 50 })),
                (1, slow(90), true, Do(Deed::SlowDisk { delay_ns: 90 })),
                (2, slow(20), true, Nothing("its disk is as slow already")),
                (1, slow(90), false, Do(Deed::SlowDisk { delay_ns: 50 })),
                (2, slow(20), false, Nothing("another fault keeps its disk slow")),
                (0, slow(50), false, Do(Deed::FastDisk)),
            ],
        );
    }
}
