//! One worker thread: its sessions, their connections, and the scheduler that wakes them.
//!
//! Everything here runs on one thread; `RefCell`s are borrowed between awaits only, never across one. What a worker does is
//! told in four more files: `sending`, `receiving`, `arming` (watches) and `connection`.

use super::encode::Filler;
use super::ephemerals::Ephemerals;
use super::handover::Batch;
use super::ledger::Ledger;
use super::phases::{Phases, Stage};
use super::selfmeasure::SelfMeasure;
use super::slot::{Kind, Load, Outbox, Queued, Role, Scratches, Slot, Tag};
use super::timer::{QUANTUM_NS, Timer};
use super::verify::Leftover;
use super::views::Views;
use super::watching::{Arming, Log, Standing, Watched, Watcher, Watching, watchers};
use super::{Control, DRAIN_NS, HAPPENINGS_MAX, Happening, Report, Settings, route};
use crate::closeup::{self, CloseUp};
use crate::op::Op;
use crate::plan::Share;
use crate::recorder::Recorder;
use crate::session::{Session, State, Tick};
use crate::traces::Sampler;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zoometry_wire::{ErrorCode, OpCode, SessionId, Zxid};

/// Pings, phase changes seen by nobody else, stop requests: this often.
const TICK_NS: u64 = 25_000_000;
/// Read from a socket at once, at most.
const READ_BYTES: usize = 256 * 1024;
/// Sessions of one worker that open their connection at the same time.
const CONNECTING_MAX: usize = 64;
/// Sessions get this long to close, together.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What one worker has to tell at its end.
pub(super) struct Notes {
    happenings_unkept: u64,
    ledger: Ledger,
    views: Views,
    scratch: Vec<Leftover>,
    watching: Watching,
    completions_unkept: u64,
    ephemerals: Ephemerals,
    given_up: u64,
    unsent: u64,
    ended_ns: u64,
}

/// What replies and due operations change, whichever session they belong to.
pub(super) struct Shared {
    pub(super) recorder: Recorder,
    pub(super) sampler: Option<Sampler>,
    pub(super) ledger: Ledger,
    pub(super) views: Views,
    pub(super) log: Log,
    pub(super) phases: Phases,
    /// Due and not sent, over all sessions of this worker.
    pub(super) backlog: u64,
    pub(super) outstanding: u64,
    /// Reused for building paths.
    pub(super) path: String,
    /// Since they were handed over last.
    pub(super) happenings: Vec<Happening>,
    pub(super) happenings_kept: usize,
    pub(super) happenings_unkept: u64,
    /// Everything that ended before has been handed over.
    pub(super) handed_ns: u64,
    pub(super) given_up: u64,
    pub(super) unsent: u64,
    pub(super) full_slots: u64,
    /// What [`Control`] has been told.
    pub(super) attached_before: u32,
    pub(super) armed_before: u64,
    pub(super) measure: SelfMeasure,
    pub(super) close_up: CloseUp,
    pub(super) ephemerals: Ephemerals,
}

/// An operation that ended, as traces want it.
pub(super) struct Answer {
    pub(super) session: SessionId,
    pub(super) member: u16,
    pub(super) xid: i32,
    pub(super) opcode: OpCode,
    pub(super) zxid: Zxid,
    pub(super) tag: Tag,
    pub(super) op: Op,
    pub(super) done_ns: u64,
}

pub(super) struct Worker {
    pub(super) settings: Arc<Settings>,
    number: u32,
    pub(super) control: Arc<Control>,
    pub(super) slots: Vec<RefCell<Slot>>,
    pub(super) issuers: usize,
    pub(super) shared: RefCell<Shared>,
    pub(super) read_buffer: RefCell<Box<[u8]>>,
    pub(super) filler: Filler,
    pub(super) watched: Watched,
    pub(super) connecting: tokio::sync::Semaphore,
    /// Connections that ended for good.
    pub(super) closed: Cell<usize>,
    pub(super) closing: Cell<bool>,
}

/// The body of a worker thread.
pub(super) fn run(
    settings: Arc<Settings>,
    control: Arc<Control>,
    number: u32,
    sampler: Option<Sampler>,
) -> anyhow::Result<Notes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let worker = Rc::new(Worker::new(settings, control, number, sampler));
    let ended_ns = local.block_on(&runtime, worker.clone().schedule())?;
    drop(local);
    drop(runtime);
    let worker = Rc::into_inner(worker).expect("all tasks have been dropped");
    Ok(worker.notes(ended_ns))
}

impl Worker {
    pub(super) fn new(
        settings: Arc<Settings>,
        control: Arc<Control>,
        number: u32,
        sampler: Option<Sampler>,
    ) -> Worker {
        let spec = &settings.spec;
        let workers = settings.workers;
        let share = Share { worker: number, workers };
        let timeout_ms = spec.sessions.timeout_ms as i32;
        let slot = |number: u32, role: Role| {
            RefCell::new(Slot {
                session: Session::new(timeout_ms).with_credentials(settings.credentials.clone()),
                outbox: Outbox::default(),
                load: Load {
                    number,
                    route: route(&settings, number),
                    member: 0,
                    home: None,
                    role,
                    backlog: Default::default(),
                    handed_out: 0,
                    scratch: Scratches::default(),
                    wanted_ns: None,
                },
            })
        };
        let mine = |count: u32| (number..count).step_by(workers as usize);
        let mut slots: Vec<_> = mine(spec.sessions.count).map(|n| slot(n, Role::Issuer)).collect();
        let issuers = slots.len();
        let all_watchers = watchers(spec);
        for n in mine(all_watchers.len() as u32) {
            let mut watcher = all_watchers[n as usize].clone();
            index_paths(&mut watcher, &settings);
            slots.push(slot(spec.sessions.count + n, Role::Watcher(watcher)));
        }
        Worker {
            filler: Filler::of(spec),
            watched: Watched::of(spec),
            slots,
            issuers,
            shared: RefCell::new(Shared {
                recorder: Recorder::new(settings.interval_ns),
                sampler,
                ledger: Ledger::new(spec.data.znodes),
                views: Views::new(spec.data.znodes, settings.prepared),
                log: Log::default(),
                phases: Phases::new(spec, share),
                backlog: 0,
                outstanding: 0,
                path: String::new(),
                happenings: Vec::new(),
                happenings_kept: 0,
                happenings_unkept: 0,
                handed_ns: 0,
                given_up: 0,
                unsent: 0,
                full_slots: 0,
                attached_before: 0,
                armed_before: 0,
                measure: SelfMeasure::new(number as u16),
                close_up: CloseUp::default(),
                ephemerals: Ephemerals::default(),
            }),
            read_buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            connecting: tokio::sync::Semaphore::new(CONNECTING_MAX),
            closed: Cell::new(0),
            closing: Cell::new(false),
            settings,
            number,
            control,
        }
    }

    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        self.settings.clock.now_ns()
    }

    // ------------------------------------------------------------------------------------- scheduler

    /// Runs the worker to its end; returns when the last phase ended.
    pub(super) async fn schedule(self: Rc<Self>) -> anyhow::Result<u64> {
        for at in 0..self.slots.len() {
            tokio::task::spawn_local(self.clone().keep_connected(at));
        }
        let timer = Timer::new()?;
        if !self.wait_for_start().await {
            return Ok(self.now_ns());
        }
        let mut ended_ns = None;
        let mut next_tick_ns = 0;
        loop {
            let now_ns = self.now_ns();
            self.issue_due(now_ns);
            if self.control.abort.load(Ordering::Acquire) {
                break;
            }
            if self.control.stop.load(Ordering::Acquire) {
                self.cut_short();
            }
            if self.advance(now_ns) {
                continue;
            }
            if now_ns >= next_tick_ns {
                self.tick(now_ns);
                next_tick_ns = now_ns + TICK_NS;
            }
            let wake_ns = {
                let mut shared = self.shared.borrow_mut();
                if shared.phases.stage == Stage::Draining {
                    let ended = *ended_ns.get_or_insert(now_ns);
                    if shared.outstanding + shared.backlog == 0 || now_ns >= ended + DRAIN_NS {
                        break;
                    }
                    next_tick_ns.min(now_ns + 1_000_000)
                } else {
                    let due = shared.phases.next_due_ns().unwrap_or(u64::MAX);
                    due.min(next_tick_ns).min(shared.phases.phase_end_ns())
                }
            };
            let sleep_ns = wake_ns.saturating_sub(now_ns).max(QUANTUM_NS);
            timer.sleep(sleep_ns).await?;
            let late_ns = self.now_ns().saturating_sub(now_ns + sleep_ns);
            self.shared.borrow_mut().measure.woke_late(late_ns);
        }
        self.measure(self.now_ns());
        self.give_up();
        if !self.control.abort.load(Ordering::Acquire) {
            self.settle_watches().await;
            self.look_for_ephemerals().await;
        }
        self.close_sessions().await;
        Ok(ended_ns.unwrap_or_else(|| self.now_ns()))
    }

    /// Waits until main gives the word; false if it was told to end instead.
    pub(super) async fn wait_for_start(&self) -> bool {
        let mut prepared = false;
        loop {
            if self.control.abort.load(Ordering::Acquire) || self.control.stop.load(Ordering::Acquire) {
                self.shared.borrow_mut().phases.end();
                return false;
            }
            let start_ns = self.control.start_ns.load(Ordering::Acquire);
            let now_ns = self.now_ns();
            self.tick(now_ns);
            if !prepared {
                prepared = true;
                self.want_watches(0);
            }
            if start_ns != 0 {
                let wait_ns = start_ns.saturating_sub(now_ns);
                if wait_ns < TICK_NS {
                    tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
                    let mut shared = self.shared.borrow_mut();
                    shared.phases.start(&self.settings.spec, &self.settings.plan, start_ns);
                    let full_slots = shared.full_slots;
                    shared.measure.begin(start_ns, full_slots);
                    if let Some(fault) = self.settings.spec.faults.first() {
                        let from_ns = (start_ns + fault.at_ns).saturating_sub(closeup::BEFORE_NS);
                        shared.close_up.begin(from_ns, self.settings.workers);
                    }
                    drop(shared);
                    self.phase_begun();
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn advance(&self, now_ns: u64) -> bool {
        let mut shared = self.shared.borrow_mut();
        if !shared.phases.advance(&self.settings.plan, now_ns) {
            return false;
        }
        let running = shared.phases.stage == Stage::Running;
        let phase = shared.phases.current;
        drop(shared);
        // A phase's own figures must not be mixed with the next one's.
        self.measure(now_ns);
        if running {
            self.want_watches(phase);
            self.phase_begun();
        }
        true
    }

    /// In a closed loop: fills every slot. Operations of the phase before that are still out keep their slots.
    pub(super) fn phase_begun(&self) {
        let mut shared = self.shared.borrow_mut();
        let start_ns = shared.phases.phase_start_ns();
        let closed = shared.phases.is_closed_loop(start_ns);
        for slot in &self.slots[..self.issuers] {
            let slot = &mut *slot.borrow_mut();
            slot.load.handed_out = 0;
            if closed {
                let taken = slot.session.outstanding() + slot.load.backlog.len();
                for _ in taken..self.settings.spec.sessions.in_flight as usize {
                    self.hand_out(&mut shared, &mut slot.load, start_ns);
                }
                self.fill(&mut shared, slot);
                slot.outbox.flush();
            }
        }
    }

    /// Ctrl-C: what is due and unsent is forgotten, and counted.
    pub(super) fn cut_short(&self) {
        let mut shared = self.shared.borrow_mut();
        if shared.phases.stage != Stage::Running {
            return;
        }
        shared.phases.end();
        shared.unsent += shared.backlog;
        shared.backlog = 0;
        for slot in &self.slots {
            slot.borrow_mut().load.backlog.clear();
        }
    }

    /// What everybody's connection needs now and then.
    pub(super) fn tick(&self, now_ns: u64) {
        let mut attached = 0;
        for slot in &self.slots {
            let Slot { session, outbox, .. } = &mut *slot.borrow_mut();
            attached += u32::from(session.state() == State::Attached);
            match session.tick(now_ns, &mut outbox.bytes) {
                Tick::Quiet => {}
                Tick::Ping => outbox.flush(),
                Tick::Silent => outbox.doom(super::connection::SILENCE.into()),
            }
        }
        if self.shared.borrow().measure.is_due(now_ns) {
            self.measure(now_ns);
        }
        self.arm_what_was_refused(now_ns);
        let mut shared = self.shared.borrow_mut();
        let before = std::mem::replace(&mut shared.attached_before, attached);
        // Every worker adds its own difference.
        self.control.attached.fetch_add(attached.wrapping_sub(before), Ordering::AcqRel);
        let armed = shared.log.counts.armed;
        let armed_before = std::mem::replace(&mut shared.armed_before, armed);
        self.control.armed.fetch_add(armed - armed_before, Ordering::AcqRel);
        let recent = shared.recorder.take_recent(now_ns);
        if recent.completed + recent.errors + recent.missed > 0 {
            self.control.recent.lock().expect("no thread panics holding it").merge(&recent);
        }
        let interval_ns = self.settings.interval_ns;
        if now_ns / interval_ns > shared.handed_ns / interval_ns {
            shared.handed_ns = now_ns / interval_ns * interval_ns;
            self.hand_over(&mut shared, now_ns);
        }
    }

    /// Gives away what was noted, to be written by another thread.
    fn hand_over(&self, shared: &mut Shared, now_ns: u64) {
        self.settings.handovers[self.number as usize].put(Batch {
            until_ns: shared.handed_ns,
            part: shared.recorder.take(now_ns),
            samples: shared.measure.take(),
            happenings: std::mem::take(&mut shared.happenings),
            closes: shared.close_up.take(),
            heard: std::mem::take(&mut shared.log.heard),
        });
    }

    /// Books what this thread has cost since the last time.
    pub(super) fn measure(&self, now_ns: u64) {
        let shared = &mut *self.shared.borrow_mut();
        shared.measure.sample(now_ns, shared.outstanding as u32, shared.full_slots);
    }

    /// Sends everything of the schedule that has come due.
    pub(super) fn issue_due(&self, now_ns: u64) {
        let mut shared = self.shared.borrow_mut();
        if shared.phases.stage != Stage::Running {
            return;
        }
        let phase = shared.phases.current;
        let workers = self.settings.workers;
        let limit = self.settings.spec.phases[phase].backlog_limit.div_ceil(u64::from(workers)).max(1);
        // A session with several due operations is flushed once: when the next one belongs to another.
        let mut open: Option<usize> = None;
        while let Some(due) = shared.phases.pop_due(now_ns) {
            let at = (due.session / workers) as usize;
            if let Some(before) = open.filter(|before| *before != at) {
                self.slots[before].borrow_mut().outbox.flush();
            }
            open = Some(at);
            let slot = &mut *self.slots[at].borrow_mut();
            if shared.backlog >= limit {
                let op = self.settings.plan.phase(phase).op(due.index).op;
                shared.recorder.missed(phase as u16, op, due.due_ns);
                continue;
            }
            let queued = Queued { due_ns: due.due_ns, index: due.index, phase: phase as u16 };
            slot.load.backlog.push_back(queued);
            shared.backlog += 1;
            if slot.session.outstanding() >= self.settings.spec.sessions.in_flight as usize {
                shared.full_slots += 1;
            }
            self.fill(&mut shared, slot);
        }
        if let Some(at) = open {
            self.slots[at].borrow_mut().outbox.flush();
        }
    }

    // ------------------------------------------------------------------------------------- the end

    /// The drain limit is reached: what is still outstanding will not be waited for.
    pub(super) fn give_up(&self) {
        let now_ns = self.now_ns();
        let shared = &mut *self.shared.borrow_mut();
        for slot in &self.slots {
            let Slot { session, load, .. } = &mut *slot.borrow_mut();
            if session.outstanding() > 0 {
                let (id, member) = (session.id(), load.member);
                session.disconnected(|tag, opcode, xid| {
                    let Kind::Op(op) = tag.kind else { return };
                    shared.outstanding -= 1;
                    shared.given_up += 1;
                    let lost =
                        Answer { session: id, member, xid, opcode, zxid: Zxid(0), tag, op, done_ns: now_ns };
                    self.lost(shared, load, &lost, ErrorCode::RequestTimeout);
                });
            }
            for queued in load.backlog.drain(..) {
                shared.backlog -= 1;
                let op = self.settings.plan.phase(usize::from(queued.phase)).op(queued.index).op;
                shared.recorder.missed(queued.phase, op, queued.due_ns);
            }
        }
    }

    /// Closes every session that is attached and waits a little for the answers.
    pub(super) async fn close_sessions(&self) {
        self.shared.borrow_mut().phases.stage = Stage::Closing;
        self.closing.set(true);
        for slot in &self.slots {
            let Slot { session, outbox, load } = &mut *slot.borrow_mut();
            load.backlog.clear();
            if session.state() == State::Attached {
                let tag = Tag { due_ns: 0, sent_ns: 0, about: 0, bytes: 0, phase: 0, kind: Kind::Close };
                session.close(tag, &mut outbox.bytes);
                outbox.flush();
            } else {
                outbox.doom("the run is over".into());
            }
        }
        let all_closed = async {
            while self.closed.get() < self.slots.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if !self.control.abort.load(Ordering::Acquire) {
            // A server that does not answer expires the sessions itself.
            let _ = tokio::time::timeout(CLOSE_LIMIT, all_closed).await;
        }
    }

    pub(super) fn notes(self, ended_ns: u64) -> Notes {
        let mut scratch = Vec::new();
        let mut standing = Vec::new();
        {
            let mut shared = self.shared.borrow_mut();
            shared.handed_ns = u64::MAX;
            self.hand_over(&mut shared, u64::MAX);
        }
        let mut shared = self.shared.into_inner();
        for slot in self.slots {
            let Slot { session, load, .. } = slot.into_inner();
            for (promise, times) in session.broken().counts() {
                let first = || session.broken().first.get(&promise).cloned().unwrap_or_default();
                shared.views.promises.broke(promise, times, first);
            }
            if load.scratch.next > 0 {
                let closed = session.state() == State::Closed;
                scratch.push(Leftover { session: load.number, closed, znodes: load.scratch });
            }
            // Only who heard the end of the session from the server has heard everything before it.
            if let Role::Watcher(watcher) = &load.role
                && session.state() == State::Closed
            {
                let armed =
                    watcher.watches.iter().filter(|watch| watcher.wanted && watch.arming == Arming::Armed);
                standing.extend(armed.map(|watch| Standing {
                    key: watch.key,
                    version: watch.version,
                    kind: watcher.kind,
                }));
            }
        }
        Notes {
            happenings_unkept: shared.happenings_unkept,
            ledger: shared.ledger,
            views: shared.views,
            scratch,
            watching: Watching { counts: shared.log.counts, standing },
            completions_unkept: shared.close_up.unkept,
            ephemerals: shared.ephemerals,
            given_up: shared.given_up,
            unsent: shared.unsent,
            ended_ns,
        }
    }
}

impl Shared {
    pub(super) fn happened(&mut self, happening: Happening) {
        if self.happenings_kept < HAPPENINGS_MAX {
            self.happenings_kept += 1;
            self.happenings.push(happening);
        } else {
            self.happenings_unkept += 1;
        }
    }
}

/// All workers' notes as one report.
pub(super) fn merge(notes: Vec<Notes>) -> Report {
    let mut report = Report {
        happenings_unkept: 0,
        ledger: Ledger::default(),
        views: Views::default(),
        scratch: Vec::new(),
        completions_unkept: 0,
        ephemerals: Ephemerals::default(),
        watching: Default::default(),
        given_up: 0,
        unsent: 0,
        ended_ns: 0,
    };
    for notes in notes {
        report.happenings_unkept += notes.happenings_unkept;
        report.ledger.merge(notes.ledger);
        report.views.merge(notes.views);
        report.scratch.extend(notes.scratch);
        report.watching.counts.add(&notes.watching.counts);
        report.watching.standing.extend(notes.watching.standing);
        report.completions_unkept += notes.completions_unkept;
        report.ephemerals.merge(notes.ephemerals);
        report.given_up += notes.given_up;
        report.unsent += notes.unsent;
        report.ended_ns = report.ended_ns.max(notes.ended_ns);
    }
    report
}

/// Paths of a watcher's keys, to find the watch that an event is about.
fn index_paths(watcher: &mut Watcher, settings: &Settings) {
    for (at, watch) in watcher.watches.iter().enumerate() {
        let mut path = String::new();
        settings.keys.push_path(watch.key, &mut path);
        watcher.by_path.insert(path, at as u32);
    }
}
