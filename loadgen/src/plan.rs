//! Which operation is due when: a pure function of the spec and its seed.
//!
//! Every operation of a phase has an index. What it *is* (kind, key, value size) depends on (seed, phase,
//! index) and on nothing else, so any worker can compute any operation, in any order, without shared state:
//! [`PhasePlan::op`].
//!
//! When it is *due* and whose it is:
//! - Open arrivals: [`PhasePlan::schedule`] walks the phase's due times and yields those of one [`Share`]
//!   of the sessions. All workers walk the same process, so the aggregate is exactly the process that the
//!   workload asked for, however many workers there are. With even spacing, operation i belongs to session
//!   i mod S; with Poisson spacing the session is drawn at random, so every session (and every member that
//!   they are placed on) sees a Poisson process as well.
//! - Closed loop: session s's n-th operation of the phase has the index n·S + s
//!   ([`PhasePlan::closed_index`]); it is due when the driver finds a free slot.
//!
//! Walking past the operations of other workers costs nothing with even spacing (their indices are stepped
//! over) and one exponential draw each with Poisson spacing. The draws of a phase hang on its name, not on
//! its place in the file: a phase that is put before it does not change it.
//!
//! It does not know about clocks: due times are nanoseconds from the phase's start.

use std::sync::Arc;

use crate::arrivals::Integral;
use crate::draw::{Draw, Weighted, seed_of};
use crate::keys::KeyChooser;
use crate::op::Op;
use crate::spec::{Arrival, Phase, Spacing, Spec, ValueSize};

/// The plans of all phases of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    phases: Vec<PhasePlan>,
    data_seed: u64,
    data_sizes: Sizes,
}

/// The plan of one phase. Cheap to clone: what is large is shared.
#[derive(Debug, Clone)]
pub struct PhasePlan {
    sessions: u32,
    /// Decides what operations are.
    op_seed: u64,
    /// Decides when they are due and whose they are (Poisson only).
    arrival_seed: u64,
    mix: Weighted<Op>,
    keys: KeyChooser,
    sizes: Sizes,
    arrivals: Option<(Arc<Integral>, Spacing)>,
}

/// One operation, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedOp {
    /// What is done.
    pub op: Op,
    /// To which key: an index into the run's [`crate::keys::KeySpace`]. For creates it is only a number to
    /// spread them by; delete removes a znode that the same session created (and is a create while there is
    /// none); sync is about the data root.
    pub key: u64,
    /// Size of the value that a write carries, in bytes (drawn for reads too, and ignored there).
    pub value_bytes: u32,
}

/// The sessions of one worker: session s is the business of worker s mod `workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This worker, counted from 0.
    pub worker: u32,
    /// How many there are, at least one.
    pub workers: u32,
}

impl Share {
    /// Everything: a single worker.
    pub const ALL: Share = Share { worker: 0, workers: 1 };

    /// Whether this worker runs the session.
    pub fn has(self, session: u32) -> bool {
        session % self.workers == self.worker
    }
}

/// An operation of an open phase that falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When, in nanoseconds from the phase's start; less than the phase's duration.
    pub due_ns: u64,
    /// Its index in the phase, to be given to [`PhasePlan::op`].
    pub index: u64,
    /// The session that must issue it.
    pub session: u32,
}

impl Plan {
    /// Prepares every phase.
    pub fn new(spec: &Spec) -> Plan {
        Plan {
            phases: spec.phases.iter().map(|phase| PhasePlan::new(spec, phase)).collect(),
            data_seed: seed_of(spec.seed, "data"),
            data_sizes: Sizes::new(&spec.data.value),
        }
    }

    /// The size of a key's value before the first phase, in bytes: a function of the seed and the key.
    pub fn initial_value_bytes(&self, key: u64) -> u32 {
        self.data_sizes.choose(&mut Draw::at(self.data_seed, key))
    }

    /// The plan of the n-th phase.
    pub fn phase(&self, n: usize) -> &PhasePlan {
        &self.phases[n]
    }
}

impl PhasePlan {
    /// Prepares one phase of a workload.
    pub fn new(spec: &Spec, phase: &Phase) -> PhasePlan {
        PhasePlan {
            sessions: spec.sessions.count.max(1),
            op_seed: seed_of(spec.seed, &format!("ops {}", phase.name)),
            arrival_seed: seed_of(spec.seed, &format!("arrivals {}", phase.name)),
            mix: Weighted::new(phase.mix.iter().copied()),
            keys: KeyChooser::new(phase.keys, spec.data.znodes),
            sizes: Sizes::new(&phase.value),
            arrivals: match &phase.arrival {
                Arrival::Closed => None,
                Arrival::Open { rate, spacing } => {
                    Some((Arc::new(Integral::new(rate, phase.duration_ns)), *spacing))
                }
            },
        }
    }

    /// What operation `index` is.
    pub fn op(&self, index: u64) -> PlannedOp {
        let mut draw = Draw::at(self.op_seed, index);
        let op = self.mix.choose(&mut draw);
        let value_bytes = self.sizes.choose(&mut draw);
        PlannedOp { op, key: self.keys.choose(index, &mut draw), value_bytes }
    }

    /// The index of the n-th operation (from 0) of a session in a closed loop.
    pub fn closed_index(&self, session: u32, n: u64) -> u64 {
        n * u64::from(self.sessions) + u64::from(session)
    }

    /// The due operations of a share of the sessions; `None` in a closed loop.
    pub fn schedule(&self, share: Share) -> Option<Schedule> {
        let (integral, spacing) = self.arrivals.as_ref()?;
        let sessions = self.sessions;
        let walk = match spacing {
            Spacing::Even => Walk::Even { round: 0, session: share.worker },
            Spacing::Poisson => Walk::Poisson { index: 0, reached: 0.0, seed: self.arrival_seed },
        };
        Some(Schedule { integral: Arc::clone(integral), sessions, share, walk })
    }

    /// How many operations the rate asks for over the phase (its integral); `None` in a closed loop.
    pub fn offered(&self) -> Option<f64> {
        self.arrivals.as_ref().map(|(integral, _)| integral.total())
    }
}

/// The due operations of one share of the sessions, in the order of their due times.
#[derive(Debug, Clone)]
pub struct Schedule {
    integral: Arc<Integral>,
    sessions: u32,
    share: Share,
    walk: Walk,
}

#[derive(Debug, Clone)]
enum Walk {
    /// The next one is due when the integral reaches `round + session`; `round` is a multiple of the number
    /// of sessions.
    Even { round: u64, session: u32 },
    /// The integral has been followed up to `reached`, where operation `index` − 1 was due.
    Poisson { index: u64, reached: f64, seed: u64 },
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        match &mut self.walk {
            Walk::Even { round, session } => {
                if *session >= self.sessions {
                    return None; // more workers than sessions
                }
                let (index, issuer) = (*round + u64::from(*session), *session);
                if index >= self.integral.even_count() {
                    return None; // indices only grow
                }
                *session += self.share.workers;
                if *session >= self.sessions {
                    *session = self.share.worker;
                    *round += u64::from(self.sessions);
                }
                Some(Due { due_ns: self.integral.time_ns(index as f64), index, session: issuer })
            }
            Walk::Poisson { index, reached, seed } => loop {
                let mut draw = Draw::at(*seed, *index);
                let next = *reached + draw.exponential();
                if next >= self.integral.total() {
                    return None;
                }
                let session = draw.below(u64::from(self.sessions)) as u32;
                let this = *index;
                (*index, *reached) = (this + 1, next);
                if self.share.has(session) {
                    return Some(Due { due_ns: self.integral.time_ns(next), index: this, session });
                }
            },
        }
    }
}

/// Draws sizes of values.
#[derive(Debug, Clone)]
enum Sizes {
    Constant(u32),
    Uniform { min: u32, count: u64 },
    Weighted(Weighted<u32>),
}

impl Sizes {
    fn new(value: &ValueSize) -> Sizes {
        match value {
            ValueSize::Constant(bytes) => Sizes::Constant(*bytes),
            ValueSize::Uniform { min, max } => {
                Sizes::Uniform { min: *min, count: u64::from(max.saturating_sub(*min)) + 1 }
            }
            ValueSize::Weighted(list) => {
                Sizes::Weighted(Weighted::new(list.iter().map(|entry| (entry.bytes, entry.weight))))
            }
        }
    }

    fn choose(&self, draw: &mut Draw) -> u32 {
        match self {
            Sizes::Constant(bytes) => *bytes,
            Sizes::Uniform { min, count } => min + draw.below(*count) as u32,
            Sizes::Weighted(choice) => choice.choose(draw),
        }
    }
}

#[cfg(test)]
mod tests;
