//! Where a worker stands in the run: which phase, and what of it falls due when.

use crate::plan::{Due, Plan, Schedule, Share};
use crate::spec::{Arrival, Spec};
use std::iter::Peekable;

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Sessions are being opened, watches armed.
    Waiting,
    /// In a phase.
    Running,
    /// All phases are over: waiting for replies.
    Draining,
    /// Sessions are being closed.
    Closing,
}

/// The walk through the phases.
pub(super) struct Phases {
    share: Share,
    /// (start, end) of each phase on the run's clock; empty before the start is known.
    bounds: Vec<(u64, u64)>,
    closed: Vec<bool>,
    pub(super) stage: Stage,
    /// Index of the current phase; the last one when draining.
    pub(super) current: usize,
    schedule: Option<Peekable<Schedule>>,
}

impl Phases {
    pub(super) fn new(spec: &Spec, share: Share) -> Self {
        Self {
            share,
            bounds: Vec::new(),
            closed: spec.phases.iter().map(|phase| phase.arrival == Arrival::Closed).collect(),
            stage: Stage::Waiting,
            current: 0,
            schedule: None,
        }
    }

    /// The first phase begins at `start_ns`.
    pub(super) fn start(&mut self, spec: &Spec, plan: &Plan, start_ns: u64) {
        let mut at = start_ns;
        self.bounds = spec
            .phases
            .iter()
            .map(|phase| {
                let from = at;
                at += phase.duration_ns;
                (from, at)
            })
            .collect();
        self.stage = Stage::Running;
        self.enter(plan, 0);
    }

    fn enter(&mut self, plan: &Plan, phase: usize) {
        self.current = phase;
        self.schedule = plan.phase(phase).schedule(self.share).map(Iterator::peekable);
    }

    /// Goes on to the next phase, or to draining, if the current one is over. True if it did.
    pub(super) fn advance(&mut self, plan: &Plan, now_ns: u64) -> bool {
        if self.stage != Stage::Running || now_ns < self.bounds[self.current].1 {
            return false;
        }
        if self.current + 1 < self.bounds.len() {
            self.enter(plan, self.current + 1);
        } else {
            self.end();
        }
        true
    }

    /// Ends issuing.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Draining;
        self.schedule = None;
    }

    /// When the current phase began.
    pub(super) fn phase_start_ns(&self) -> u64 {
        self.bounds[self.current].0
    }

    /// When the current phase ends.
    pub(super) fn phase_end_ns(&self) -> u64 {
        self.bounds[self.current].1
    }

    /// Whether slots that free now are used again at once.
    #[inline]
    pub(super) fn is_closed_loop(&self, now_ns: u64) -> bool {
        self.stage == Stage::Running && self.closed[self.current] && now_ns < self.bounds[self.current].1
    }

    /// When the next operation of the schedule is due.
    pub(super) fn next_due_ns(&mut self) -> Option<u64> {
        let start = self.bounds.get(self.current)?.0;
        self.schedule.as_mut()?.peek().map(|due| start + due.due_ns)
    }

    /// The next operation that has come due by `now_ns`, its time on the run's clock.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<Due> {
        let start = self.bounds.get(self.current)?.0;
        let due = self.schedule.as_mut()?.next_if(|due| start + due.due_ns <= now_ns)?;
        Some(Due { due_ns: start + due.due_ns, ..due })
    }
}
