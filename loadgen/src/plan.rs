//! Which operation is due when: a pure function of the spec and its seed.
//!
//! Every operation of a phase has an index. What it *is* (kind, key, value size) depends on (seed, phase, index) and
//! on nothing else, so any worker can compute any operation, in any order, without shared state: [`PhasePlan::op`].
//!
//! When it is *due* and whose it is:
//! - Open arrivals: [`PhasePlan::schedule`] walks the phase's due times and yields those of one [`Share`] of the sessions.
//!   All workers walk the same process, so the aggregate is exactly the process that the workload asked for, however many workers
//!   there are. With even spacing, operation i belongs to session i mod S; with Poisson spacing the session is drawn at
//!   random, so every session (and every member that they are placed on) sees a Poisson process as well.
//! - Closed loop: session s's n-th operation of the phase has the index n·S + s ([`PhasePlan::closed_index`]); it is due when
//!   the driver finds a free slot.
//!
//! It does not know about clocks: due times are nanoseconds from the phase's start.

use crate::op::Op;
use crate::spec::Spec;

/// The plans of all phases of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    phases: Vec<PhasePlan>,
}

/// The plan of one phase. Cheap to clone and to share.
#[derive(Debug, Clone)]
pub struct PhasePlan {
    sessions: u32,
}

/// One operation, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedOp {
    /// What is done.
    pub op: Op,
    /// To which key: an index into the run's [`crate::keys::KeySpace`]. For creates it is only a number to spread them by;
    /// delete removes a znode that the same session created; sync is about the data root.
    pub key: u64,
    /// Size of the value that a write carries, in bytes (drawn for reads too, and ignored there).
    pub value_bytes: u32,
}

/// The sessions of one worker: session s is the business of worker s mod `workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This worker, counted from 0.
    pub worker: u32,
    /// How many there are.
    pub workers: u32,
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

/// The due operations of one share of the sessions, in the order of their due times.
#[derive(Debug, Clone)]
pub struct Schedule {}

impl Iterator for Schedule {
    type Item = Due;
    fn next(&mut self) -> Option<Due> {
        unimplemented!()
    }
}

impl Plan {
    /// Prepares the tables of every phase.
    pub fn new(spec: &Spec) -> Plan {
        let _ = spec;
        unimplemented!()
    }

    /// The plan of the n-th phase.
    pub fn phase(&self, n: usize) -> &PhasePlan {
        &self.phases[n]
    }
}

impl PhasePlan {
    /// What operation `index` is.
    pub fn op(&self, index: u64) -> PlannedOp {
        let _ = index;
        unimplemented!()
    }

    /// The index of the n-th operation (from 0) of a session in a closed loop.
    pub fn closed_index(&self, session: u32, n: u64) -> u64 {
        n * u64::from(self.sessions) + u64::from(session)
    }

    /// The due operations of a share; `None` in a closed loop.
    pub fn schedule(&self, share: Share) -> Option<Schedule> {
        let _ = share;
        unimplemented!()
    }

    /// How many operations the rate asks for over the phase (its integral); `None` in a closed loop.
    pub fn offered(&self) -> Option<f64> {
        unimplemented!()
    }
}
