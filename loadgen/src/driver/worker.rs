//! One worker thread: its sessions, their connections, and the scheduler that wakes them.
//!
//! Everything here runs on one thread; `RefCell`s are borrowed between awaits only, never across one.

use super::encode::{self, Filler};
use super::ledger::Ledger;
use super::phases::{Phases, Stage};
use super::selfmeasure::SelfMeasure;
use super::slot::{Kind, Load, Outbox, Queued, Role, Scratch, Slot, Tag};
use super::timer::{QUANTUM_NS, Timer};
use super::watching::{Arming, Delivery, Log, Standing, Trigger, Watch, Watched, Watcher, watchers};
use super::{Control, DRAIN_NS, HAPPENINGS_MAX, Happening, Report, Settings, What, needs_scratch, route};
use crate::op::{Op, Outcome};
use crate::plan::Share;
use crate::recorder::{Completion, Recorder, Recording};
use crate::results::GeneratorSample;
use crate::session::{BrokenPromises, Event, ProtocolError, Reply, Session, State, Tick, WatchKind as Mark};
use crate::spec::WatchKind;
use crate::traces::{RequestTrace, Sampler};
use bytes::Buf;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use zoometry_wire::jute::{Reader, Record};
use zoometry_wire::records::EventType;
use zoometry_wire::request::CreateMode;
use zoometry_wire::{ErrorCode, OpCode, SessionId, Zxid};

/// Pings, phase changes seen by nobody else, stop requests: this often.
const TICK_NS: u64 = 25_000_000;
/// Read from a socket at once, at most.
const READ_BYTES: usize = 256 * 1024;
/// Reads from one socket before others get their turn.
const READS_IN_A_ROW: u32 = 4;
/// Sessions of one worker that open their connection at the same time.
const CONNECTING_MAX: usize = 64;
/// A member gets this long to accept and answer, before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before a session tries again, doubled each time up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Requests for arming watches outstanding per watcher session.
const ARMING_WINDOW: usize = 256;
/// Sessions get this long to close, together.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Offset of the data version in a Stat.
const STAT_VERSION: usize = 32;
/// Bytes of a Stat.
const STAT: usize = 68;

/// What one worker has to tell at its end.
pub(super) struct Notes {
    recording: Recording,
    happenings: Vec<Happening>,
    happenings_unkept: u64,
    broken: BrokenPromises,
    ledger: Ledger,
    created: Vec<String>,
    log: Log,
    given_up: u64,
    unsent: u64,
    ended_ns: u64,
    samples: Vec<GeneratorSample>,
}

/// What replies and due operations change, whichever session they belong to.
struct Shared {
    recorder: Recorder,
    sampler: Option<Sampler>,
    ledger: Ledger,
    log: Log,
    phases: Phases,
    /// Due and not sent, over all sessions of this worker.
    backlog: u64,
    outstanding: u64,
    /// Reused for building paths.
    path: String,
    happenings: Vec<Happening>,
    happenings_unkept: u64,
    given_up: u64,
    unsent: u64,
    full_slots: u64,
    /// What [`Control`] has been told.
    attached_before: u32,
    armed_before: u64,
    measure: SelfMeasure,
}

/// An operation that ended, as traces want it.
struct Answer {
    session: SessionId,
    member: u16,
    xid: i32,
    opcode: OpCode,
    zxid: Zxid,
    tag: Tag,
    op: Op,
    done_ns: u64,
}

struct Worker {
    settings: Arc<Settings>,
    control: Arc<Control>,
    slots: Vec<RefCell<Slot>>,
    issuers: usize,
    shared: RefCell<Shared>,
    read_buffer: RefCell<Box<[u8]>>,
    filler: Filler,
    watched: Watched,
    connecting: tokio::sync::Semaphore,
    /// Connections that ended for good.
    closed: Cell<usize>,
    closing: Cell<bool>,
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
    fn new(settings: Arc<Settings>, control: Arc<Control>, number: u32, sampler: Option<Sampler>) -> Worker {
        let spec = &settings.spec;
        let workers = settings.workers;
        let share = Share { worker: number, workers };
        let timeout_ms = spec.sessions.timeout_ms as i32;
        let slot = |number: u32, role: Role| {
            RefCell::new(Slot {
                session: Session::new(timeout_ms),
                outbox: Outbox::default(),
                load: Load {
                    number,
                    route: route(&settings, number),
                    member: 0,
                    role,
                    backlog: Default::default(),
                    handed_out: 0,
                    sequence: 0,
                    created: Vec::new(),
                    next_scratch: 0,
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
        let largest = spec.phases.iter().map(|phase| phase.value.largest()).max().unwrap_or(0);
        Worker {
            filler: Filler::new(spec.seed, largest),
            watched: Watched::of(spec),
            slots,
            issuers,
            shared: RefCell::new(Shared {
                recorder: Recorder::new(),
                sampler,
                ledger: Ledger::default(),
                log: Log::default(),
                phases: Phases::new(spec, share),
                backlog: 0,
                outstanding: 0,
                path: String::new(),
                happenings: Vec::new(),
                happenings_unkept: 0,
                given_up: 0,
                unsent: 0,
                full_slots: 0,
                attached_before: 0,
                armed_before: 0,
                measure: SelfMeasure::new(number as u16),
            }),
            read_buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            connecting: tokio::sync::Semaphore::new(CONNECTING_MAX),
            closed: Cell::new(0),
            closing: Cell::new(false),
            settings,
            control,
        }
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.settings.clock.now_ns()
    }

    // ------------------------------------------------------------------------------------- scheduler

    /// Runs the worker to its end; returns when the last phase ended.
    async fn schedule(self: Rc<Self>) -> anyhow::Result<u64> {
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
        self.close_sessions().await;
        Ok(ended_ns.unwrap_or_else(|| self.now_ns()))
    }

    /// Waits until main gives the word; false if it was told to end instead.
    async fn wait_for_start(&self) -> bool {
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
                    drop(shared);
                    self.phase_begun();
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn advance(&self, now_ns: u64) -> bool {
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
    fn phase_begun(&self) {
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
    fn cut_short(&self) {
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
    fn tick(&self, now_ns: u64) {
        let mut attached = 0;
        for slot in &self.slots {
            let Slot { session, outbox, .. } = &mut *slot.borrow_mut();
            attached += u32::from(session.state() == State::Attached);
            match session.tick(now_ns, &mut outbox.bytes) {
                Tick::Quiet => {}
                Tick::Ping => outbox.flush(),
                Tick::Silent => {
                    outbox.doom("the server was silent for two thirds of the session timeout".into())
                }
            }
        }
        if self.shared.borrow().measure.is_due(now_ns) {
            self.measure(now_ns);
        }
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
    }

    /// Books what this thread has cost since the last time.
    fn measure(&self, now_ns: u64) {
        let shared = &mut *self.shared.borrow_mut();
        shared.measure.sample(now_ns, shared.outstanding as u32, shared.full_slots);
    }

    /// Sends everything of the schedule that has come due.
    fn issue_due(&self, now_ns: u64) {
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

    // ------------------------------------------------------------------------------------- sending

    /// Closed loop: the session's next operation is due now.
    #[inline]
    fn hand_out(&self, shared: &mut Shared, load: &mut Load, due_ns: u64) {
        let phase = shared.phases.current;
        let index = self.settings.plan.phase(phase).closed_index(load.number, load.handed_out);
        load.handed_out += 1;
        load.backlog.push_back(Queued { due_ns, index, phase: phase as u16 });
        shared.backlog += 1;
    }

    /// Encodes as many due operations as there are free slots. The caller flushes.
    fn fill(&self, shared: &mut Shared, slot: &mut Slot) {
        if slot.session.state() != State::Attached || slot.load.backlog.is_empty() {
            return;
        }
        let free =
            (self.settings.spec.sessions.in_flight as usize).saturating_sub(slot.session.outstanding());
        if free == 0 {
            return;
        }
        let now_ns = self.now_ns();
        for _ in 0..free {
            let Some(queued) = slot.load.backlog.pop_front() else { break };
            shared.backlog -= 1;
            shared.outstanding += 1;
            self.send(&mut shared.path, slot, queued, now_ns);
        }
        slot.session.wrote(now_ns);
    }

    /// Encodes one operation.
    fn send(&self, path: &mut String, slot: &mut Slot, queued: Queued, now_ns: u64) {
        let planned = self.settings.plan.phase(usize::from(queued.phase)).op(queued.index);
        let Slot { session, outbox, load } = slot;
        let out = &mut outbox.bytes;
        let keys = &self.settings.keys;
        path.clear();
        let mut tag = Tag {
            due_ns: queued.due_ns,
            sent_ns: now_ns,
            about: planned.key,
            bytes: 0,
            phase: queued.phase,
            kind: Kind::Op(planned.op),
        };
        let writer = u64::from(load.number);
        let sequence = load.sequence;
        let value = |out: &mut bytes::BytesMut| self.filler.put(out, planned.value_bytes, writer, sequence);
        match planned.op {
            Op::Get => {
                keys.push_path(planned.key, path);
                session.submit(OpCode::GetData, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Exists => {
                keys.push_path(planned.key, path);
                session.submit(OpCode::Exists, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Children => {
                keys.push_parent(planned.key, path);
                session.submit(OpCode::GetChildren2, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Set => {
                keys.push_path(planned.key, path);
                load.sequence += 1;
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::SetData, tag, out, |out| encode::set_data(out, path, value));
            }
            Op::Multi => {
                keys.push_path(planned.key, path);
                load.sequence += 1;
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::Multi, tag, out, |out| encode::check_and_set(out, path, value));
            }
            Op::Sync => {
                session.submit(OpCode::Sync, tag, out, |out| encode::put_path(out, keys.root()));
            }
            Op::Delete if !load.created.is_empty() => {
                let scratch = load.created.pop().expect("it is not empty");
                self.push_scratch(load.number, scratch, path);
                tag.about = scratch.pack();
                session.submit(OpCode::Delete, tag, out, |out| encode::path_number(out, path, -1));
            }
            // A session with nothing to delete creates, so that the next delete has something: see workloads/README.md.
            Op::Create | Op::CreateEphemeral | Op::CreateSequential | Op::Delete => {
                let n = load.next_scratch;
                load.next_scratch += 1;
                let (op, scratch, mode) = match planned.op {
                    Op::CreateEphemeral => {
                        (Op::CreateEphemeral, Scratch::Ephemeral(n), CreateMode::Ephemeral)
                    }
                    Op::CreateSequential => {
                        (Op::CreateSequential, Scratch::Sequential(0), CreateMode::PersistentSequential)
                    }
                    _ => (Op::Create, Scratch::Persistent(n), CreateMode::Persistent),
                };
                match scratch {
                    // The server appends the number.
                    Scratch::Sequential(_) => {
                        self.push_scratch_parent(load.number, path);
                        path.push_str("/q");
                    }
                    named => self.push_scratch(load.number, named, path),
                }
                load.sequence += 1;
                tag.kind = Kind::Op(op);
                tag.about = scratch.pack();
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::Create, tag, out, |out| encode::create(out, path, mode, value));
            }
            Op::Connect | Op::Notify => unreachable!("a mix has no {}", planned.op),
        }
    }

    fn push_scratch_parent(&self, session: u32, path: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(path, "{}/{session}", self.settings.places.scratch);
    }

    fn push_scratch(&self, session: u32, scratch: Scratch, path: &mut String) {
        self.push_scratch_parent(session, path);
        scratch.push_name(path);
    }

    // ------------------------------------------------------------------------------------- receiving

    /// Takes what the socket held: records completions, sends what falls due by them, in one write.
    fn received(&self, at: usize, partial: &mut bytes::BytesMut, bytes: &[u8]) -> Result<(), ProtocolError> {
        let done_ns = self.now_ns();
        {
            let slot = &mut *self.slots[at].borrow_mut();
            let mut shared = self.shared.borrow_mut();
            let Slot { session, outbox, load } = slot;
            let id = session.id();
            let mut attached = None;
            let mut report = |event: Event<'_, Tag>| match event {
                Event::Reply(reply) => self.replied(&mut shared, load, id, done_ns, reply),
                Event::Attached { again } => attached = Some(again),
                Event::Expired => self.expired(&mut shared, load, done_ns),
                Event::Watch { kind, path, .. } => self.fired(&mut shared, load, done_ns, kind, path),
                Event::WatchesSet => {}
            };
            if partial.is_empty() {
                let taken = session.receive(done_ns, bytes, &mut report)?;
                partial.extend_from_slice(&bytes[taken..]);
            } else {
                partial.extend_from_slice(bytes);
                let taken = session.receive(done_ns, partial, &mut report)?;
                partial.advance(taken);
            }
            if let Some(again) = attached {
                if again {
                    session.set_watches(&mut outbox.bytes);
                }
                self.attached(&mut shared, load, done_ns, again);
            }
            match slot.load.role {
                Role::Issuer => self.fill(&mut shared, slot),
                Role::Watcher(_) => self.arm(&mut shared, slot),
            }
            slot.outbox.flush();
        }
        // At full speed the timer's turn comes late: what has come due meanwhile goes out now.
        let due = self.shared.borrow_mut().phases.next_due_ns().is_some_and(|due_ns| due_ns <= done_ns);
        if due {
            self.issue_due(done_ns);
        }
        Ok(())
    }

    #[inline]
    fn replied(
        &self,
        shared: &mut Shared,
        load: &mut Load,
        session: SessionId,
        done_ns: u64,
        reply: Reply<'_, Tag>,
    ) {
        let tag = reply.tag;
        let Kind::Op(op) = tag.kind else { return self.watch_replied(shared, load, &reply) };
        shared.outstanding -= 1;
        let mut err = reply.err;
        if op == Op::Multi && err == 0 {
            err = multi_error(reply.body);
        }
        let outcome = match err {
            0 => Outcome::Ok,
            code => Outcome::Error(ErrorCode::from_code(code).unwrap_or(ErrorCode::SystemError)),
        };
        if outcome == Outcome::Ok {
            match op {
                Op::Set | Op::Multi => {
                    shared.ledger.acknowledged(tag.about, reply.zxid);
                    if self.watched.contains(tag.about) {
                        self.triggered(shared, &tag, reply.body);
                    }
                }
                Op::Create | Op::CreateEphemeral | Op::CreateSequential => {
                    load.created.extend(created(tag.about, reply.body));
                }
                _ => {}
            }
        }
        let read = if op.is_write() { 0 } else { reply.body.len() as u32 };
        shared.recorder.record(&Completion {
            phase: tag.phase,
            op,
            outcome,
            due_ns: tag.due_ns,
            sent_ns: tag.sent_ns,
            done_ns,
            bytes: tag.bytes + read,
        });
        if shared.sampler.is_some() {
            let (xid, opcode, zxid) = (reply.xid, reply.op, reply.zxid);
            let answer = Answer { session, member: load.member, xid, opcode, zxid, tag, op, done_ns };
            self.offer(shared, load, &answer, outcome);
        }
        if shared.phases.is_closed_loop(done_ns) {
            self.hand_out(shared, load, done_ns);
        }
    }

    /// Shows a finished operation to the traces' sampler.
    #[inline]
    fn offer(&self, shared: &mut Shared, load: &Load, answer: &Answer, outcome: Outcome) {
        let Some(sampler) = &mut shared.sampler else { return };
        let Answer { session, xid, tag, done_ns, .. } = *answer;
        let response_ns = done_ns.saturating_sub(tag.due_ns);
        sampler.offer(session, xid, outcome, response_ns, done_ns, || {
            let mut path = String::new();
            match answer.op {
                Op::Get | Op::Exists | Op::Set | Op::Multi => {
                    self.settings.keys.push_path(tag.about, &mut path)
                }
                Op::Children => self.settings.keys.push_parent(tag.about, &mut path),
                Op::Sync => path.push_str(self.settings.keys.root()),
                _ => self.push_scratch_parent(load.number, &mut path),
            }
            RequestTrace {
                session,
                xid,
                op: answer.op,
                opcode: answer.opcode,
                outcome,
                phase: tag.phase,
                server: answer.member,
                due_ns: tag.due_ns,
                sent_ns: tag.sent_ns,
                done_ns,
                zxid: answer.zxid,
                path,
            }
        });
    }

    /// A write to a watched key was acknowledged: remembers which version it made.
    fn triggered(&self, shared: &mut Shared, tag: &Tag, body: &[u8]) {
        // The Stat is the body of setData, and stands before the end mark (9 bytes) of a multi whose last entry is setData.
        let stat = if tag.kind == Kind::Op(Op::Multi) {
            body.len().checked_sub(9 + STAT).map(|at| &body[at..at + STAT])
        } else {
            body.get(..STAT)
        };
        let Some(version) = stat.and_then(version_of) else { return };
        shared.log.trigger(Trigger {
            key: tag.about,
            version,
            phase: tag.phase,
            due_ns: tag.due_ns,
            sent_ns: tag.sent_ns,
        });
    }

    // ------------------------------------------------------------------------------------- watchers

    /// Tells watchers whether `phase` wants them armed, and lets them begin.
    fn want_watches(&self, phase: usize) {
        let mut shared = self.shared.borrow_mut();
        for slot in &self.slots[self.issuers..] {
            let slot = &mut *slot.borrow_mut();
            let Role::Watcher(watcher) = &mut slot.load.role else { continue };
            let group = &self.settings.spec.watchers[usize::from(watcher.group)];
            let wanted = group.phases.contains(&(phase as u16));
            if wanted == watcher.wanted {
                continue;
            }
            watcher.wanted = wanted;
            let session = &mut slot.session;
            if wanted {
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            } else {
                watcher.queue.clear();
                disarm(&self.settings, watcher, session, &mut slot.outbox.bytes, &mut shared);
            }
            self.arm(&mut shared, slot);
            slot.outbox.flush();
        }
    }

    /// Sends requests for the watches at the head of the queue. The caller flushes.
    fn arm(&self, shared: &mut Shared, slot: &mut Slot) {
        let Slot { session, outbox, load } = slot;
        let Role::Watcher(watcher) = &mut load.role else { return };
        if session.state() != State::Attached || watcher.queue.is_empty() {
            return;
        }
        let now_ns = self.now_ns();
        let out = &mut outbox.bytes;
        while session.outstanding() < ARMING_WINDOW {
            let Some(at) = watcher.queue.pop_front() else { break };
            let watch = &mut watcher.watches[at as usize];
            let tag = |kind| Tag {
                due_ns: now_ns,
                sent_ns: now_ns,
                about: u64::from(at),
                bytes: 0,
                phase: 0,
                kind,
            };
            shared.path.clear();
            self.settings.keys.push_path(watch.key, &mut shared.path);
            let path = &shared.path;
            if watcher.kind == WatchKind::OneShot {
                watch.arming = Arming::Asked;
                let mark = Some((Mark::Data, path.clone()));
                session.submit_watching(OpCode::GetData, tag(Kind::Arm), mark, out, |out| {
                    encode::path_watch(out, path, true);
                });
                continue;
            }
            // One recursive watch covers a subtree; every other watch needs its own. A watch that stands again after
            // a reconnect is only looked at.
            if watch.arming == Arming::Idle && (!watcher.subtree || at == 0) {
                let (mode, mark) = match watcher.kind {
                    WatchKind::Recursive => (1, Mark::Recursive),
                    _ => (0, Mark::Persistent),
                };
                let on = if watcher.subtree { self.settings.keys.root() } else { path.as_str() };
                let mark = Some((mark, on.to_owned()));
                session.submit_watching(OpCode::AddWatch, tag(Kind::AddWatch), mark, out, |out| {
                    encode::path_number(out, on, mode);
                });
            }
            watch.arming = Arming::Asked;
            session.submit(OpCode::Exists, tag(Kind::Learn), out, |out| encode::path_watch(out, path, false));
        }
        session.wrote(now_ns);
    }

    /// An answer to one of a watcher's requests.
    fn watch_replied(&self, shared: &mut Shared, load: &mut Load, reply: &Reply<'_, Tag>) {
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(watch) = watcher.watches.get_mut(reply.tag.about as usize) else { return };
        let stat = match (reply.tag.kind, reply.err) {
            (Kind::Arm, 0) => reply.body.len().checked_sub(STAT).map(|at| &reply.body[at..]),
            (Kind::Learn, 0) => Some(reply.body),
            (Kind::Arm | Kind::Learn | Kind::AddWatch, err) if err != 0 => {
                watch.arming = Arming::Idle;
                let name = super::client::error_name(err);
                let trouble = format!("arming a watch on key {}: {name}", watch.key);
                *self.control.trouble.lock().expect("no thread panics holding it") = Some(trouble);
                return;
            }
            _ => return,
        };
        let Some(version) = stat.and_then(version_of) else { return };
        let counts = &mut shared.log.counts;
        if watch.arming == Arming::Asked {
            counts.armed += 1;
            let behind = i64::from(version) - i64::from(watch.version);
            if watch.seen && behind > 0 {
                match watcher.kind {
                    WatchKind::OneShot => counts.coalesced += behind as u64,
                    WatchKind::Persistent | WatchKind::Recursive => counts.while_away += behind as u64,
                }
            }
            watch.seen = true;
            watch.arming = Arming::Armed;
        }
        watch.version = version;
    }

    /// A watch event.
    fn fired(&self, shared: &mut Shared, load: &mut Load, at_ns: u64, kind: EventType, path: &str) {
        let Role::Watcher(watcher) = &mut load.role else { return };
        let Some(&at) = watcher.by_path.get(path) else { return };
        if kind != EventType::NodeDataChanged {
            return;
        }
        let watch = &mut watcher.watches[at as usize];
        if watch.arming != Arming::Armed {
            // A persistent watch that stands while its version is being learned: the answer will show this change.
            if watcher.kind == WatchKind::OneShot {
                shared.log.counts.duplicate += 1;
            }
            return;
        }
        watch.version = watch.version.wrapping_add(1);
        shared.log.delivered(Delivery { key: watch.key, version: watch.version, at_ns });
        if watcher.kind == WatchKind::OneShot {
            watch.arming = Arming::Idle;
            if watcher.wanted {
                watcher.queue.push_back(at);
            }
        }
    }

    // ------------------------------------------------------------------------------------- connections

    /// The connection of one session, again and again until the run is over.
    async fn keep_connected(self: Rc<Self>, at: usize) {
        let mut attempt = 0usize;
        let mut pause = RETRY.0;
        self.slots[at].borrow_mut().load.wanted_ns = Some(self.now_ns());
        while !self.closing.get() {
            let member = {
                let load = &mut self.slots[at].borrow_mut().load;
                load.member = load.route[attempt % load.route.len()];
                load.member
            };
            let reason = match self.connect(at, member).await {
                Ok(reader) => self.converse(at, reader).await,
                Err(reason) => reason,
            };
            let was_attached = self.disconnected(at, &reason);
            let over = self.slots[at].borrow().session.state() == State::Closed;
            if over {
                break;
            }
            if was_attached {
                // The same member first: it may have dropped only this connection.
                (attempt, pause) = (0, RETRY.0);
                continue;
            }
            let address = self.settings.members[usize::from(member)];
            let trouble = format!("{address}: {reason}");
            *self.control.trouble.lock().expect("no thread panics holding it") = Some(trouble);
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
        self.closed.set(self.closed.get() + 1);
    }

    /// Opens a connection and writes the connect frame.
    async fn connect(&self, at: usize, member: u16) -> Result<OwnedReadHalf, String> {
        let _permit = self.connecting.acquire().await.expect("nobody closes the semaphore");
        let address = self.settings.members[usize::from(member)];
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .map_err(|_| format!("no connection within {CONNECT_LIMIT:?}"))?
            .map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("TCP_NODELAY: {error}"))?;
        let (reader, writer) = stream.into_split();
        let slot = &mut *self.slots[at].borrow_mut();
        slot.outbox.reset();
        slot.outbox.writer = Some(writer);
        slot.session.connect(self.now_ns(), &mut slot.outbox.bytes);
        slot.outbox.flush();
        Ok(reader)
    }

    /// Reads until the connection ends; says why it did.
    async fn converse(&self, at: usize, mut reader: OwnedReadHalf) -> String {
        let mut partial = bytes::BytesMut::new();
        std::future::poll_fn(|cx| {
            {
                let outbox = &mut self.slots[at].borrow_mut().outbox;
                if !outbox.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    outbox.waker = Some(cx.waker().clone());
                }
                if let Some(reason) = outbox.doomed.take() {
                    return Poll::Ready(reason);
                }
                if let Err(error) = outbox.poll_blocked(cx) {
                    return Poll::Ready(format!("write: {error}"));
                }
            }
            for _ in 0..READS_IN_A_ROW {
                let mut buffer = self.read_buffer.borrow_mut();
                let mut read = ReadBuf::new(&mut buffer);
                match Pin::new(&mut reader).poll_read(cx, &mut read) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(format!("read: {error}")),
                    Poll::Ready(Ok(())) if read.filled().is_empty() => {
                        return Poll::Ready("the server closed the connection".into());
                    }
                    Poll::Ready(Ok(())) => {
                        if let Err(error) = self.received(at, &mut partial, read.filled()) {
                            return Poll::Ready(error.to_string());
                        }
                    }
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Books the loss of a connection: outstanding operations have an unknown outcome, and in a closed loop their slots are
    /// free. True if the session had been attached.
    fn disconnected(&self, at: usize, reason: &str) -> bool {
        let now_ns = self.now_ns();
        let slot = &mut *self.slots[at].borrow_mut();
        let mut shared = self.shared.borrow_mut();
        let Slot { session, outbox, load } = slot;
        let was_attached = matches!(session.state(), State::Attached | State::Closed);
        outbox.reset();
        let (id, member) = (session.id(), load.member);
        session.disconnected(|tag, opcode, xid| {
            let Kind::Op(op) = tag.kind else { return };
            shared.outstanding -= 1;
            let lost = Answer { session: id, member, xid, opcode, zxid: Zxid(0), tag, op, done_ns: now_ns };
            self.lost(&mut shared, load, &lost, ErrorCode::ConnectionLoss);
            if shared.phases.is_closed_loop(now_ns) {
                self.hand_out(&mut shared, load, now_ns);
            }
        });
        if let Role::Watcher(watcher) = &mut load.role {
            // One-shot requests that got no answer left no watch; persistent ones must be looked at again anyway.
            for (at, watch) in watcher.watches.iter_mut().enumerate() {
                if watch.arming == Arming::Asked {
                    watch.arming = Arming::Idle;
                    watcher.queue.push_back(at as u32);
                }
            }
        }
        if session.state() == State::Attached || session.state() == State::Disconnected {
            load.wanted_ns.get_or_insert(now_ns);
        }
        if was_attached && session.state() != State::Closed {
            let what = What::Lost(reason.to_owned());
            shared.happened(Happening { at_ns: now_ns, session: load.number, member: load.member, what });
        }
        was_attached
    }

    /// Records an operation that will not be answered any more.
    fn lost(&self, shared: &mut Shared, load: &Load, lost: &Answer, code: ErrorCode) {
        let tag = lost.tag;
        if matches!(lost.op, Op::Set | Op::Multi) {
            shared.ledger.unknown(tag.about);
        }
        shared.recorder.record(&Completion {
            phase: tag.phase,
            op: lost.op,
            outcome: Outcome::Error(code),
            due_ns: tag.due_ns,
            sent_ns: tag.sent_ns,
            done_ns: lost.done_ns,
            bytes: tag.bytes,
        });
        self.offer(shared, load, lost, Outcome::Error(code));
    }

    /// The session has a connection again (or its first).
    fn attached(&self, shared: &mut Shared, load: &mut Load, now_ns: u64, again: bool) {
        let wanted_ns = load.wanted_ns.take().unwrap_or(now_ns);
        if let Role::Watcher(watcher) = &mut load.role
            && watcher.wanted
        {
            if !again {
                watcher.watches.iter_mut().for_each(|watch| watch.arming = Arming::Idle);
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            } else if watcher.kind != WatchKind::OneShot {
                // They stand again, but what changed meanwhile was not told.
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            }
        }
        if shared.phases.stage != Stage::Running {
            self.control.connected_to(load.member);
            return;
        }
        shared.recorder.record(&Completion {
            phase: shared.phases.current as u16,
            op: Op::Connect,
            outcome: Outcome::Ok,
            due_ns: wanted_ns,
            sent_ns: wanted_ns,
            done_ns: now_ns,
            bytes: 0,
        });
        let what = What::Reattached { away_ns: now_ns - wanted_ns.min(now_ns) };
        shared.happened(Happening { at_ns: now_ns, session: load.number, member: load.member, what });
    }

    /// The cluster has forgotten the session: its ephemerals are gone, its watches too.
    fn expired(&self, shared: &mut Shared, load: &mut Load, now_ns: u64) {
        load.created.retain(|scratch| !matches!(scratch, Scratch::Ephemeral(_)));
        if shared.phases.stage == Stage::Waiting {
            return;
        }
        shared.recorder.record(&Completion {
            phase: shared.phases.current as u16,
            op: Op::Connect,
            outcome: Outcome::Error(ErrorCode::SessionExpired),
            due_ns: load.wanted_ns.unwrap_or(now_ns),
            sent_ns: load.wanted_ns.unwrap_or(now_ns),
            done_ns: now_ns,
            bytes: 0,
        });
        let happening =
            Happening { at_ns: now_ns, session: load.number, member: load.member, what: What::Expired };
        shared.happened(happening);
    }

    // ------------------------------------------------------------------------------------- the end

    /// The drain limit is reached: what is still outstanding will not be waited for.
    fn give_up(&self) {
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
    async fn close_sessions(&self) {
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

    fn notes(self, ended_ns: u64) -> Notes {
        let mut broken = BrokenPromises::default();
        let mut created = Vec::new();
        let scratch = needs_scratch(&self.settings.spec);
        let mut standing = Vec::new();
        for slot in &self.slots {
            let slot = slot.borrow();
            broken.merge(slot.session.broken().clone());
            if scratch {
                for name in slot.load.created.iter().filter(|name| !matches!(name, Scratch::Ephemeral(_))) {
                    let mut path = String::new();
                    self.push_scratch(slot.load.number, *name, &mut path);
                    created.push(path);
                }
            }
            if let Role::Watcher(watcher) = &slot.load.role {
                let armed = watcher.watches.iter().filter(|watch| watch.arming == Arming::Armed);
                standing.extend(armed.map(|watch| Standing {
                    key: watch.key,
                    version: watch.version,
                    kind: watcher.kind,
                }));
            }
        }
        let shared = self.shared.into_inner();
        let mut log = shared.log;
        log.standing = standing;
        Notes {
            recording: shared.recorder.finish(),
            happenings: shared.happenings,
            happenings_unkept: shared.happenings_unkept,
            broken,
            ledger: shared.ledger,
            created,
            log,
            given_up: shared.given_up,
            unsent: shared.unsent,
            ended_ns,
            samples: shared.measure.finish(),
        }
    }
}

impl Shared {
    fn happened(&mut self, happening: Happening) {
        if self.happenings.len() < HAPPENINGS_MAX {
            self.happenings.push(happening);
        } else {
            self.happenings_unkept += 1;
        }
    }
}

/// All workers' notes as one report.
pub(super) fn merge(notes: Vec<Notes>) -> Report {
    let mut report = Report {
        recording: Recording::default(),
        happenings: Vec::new(),
        happenings_unkept: 0,
        broken: BrokenPromises::default(),
        ledger: Ledger::default(),
        created: Vec::new(),
        watching: Default::default(),
        given_up: 0,
        unsent: 0,
        ended_ns: 0,
        samples: Vec::new(),
    };
    let mut log = Log::default();
    let mut recordings = Vec::new();
    for notes in notes {
        recordings.push(notes.recording);
        report.happenings.extend(notes.happenings);
        report.happenings_unkept += notes.happenings_unkept;
        report.broken.merge(notes.broken);
        report.ledger.merge(notes.ledger);
        report.created.extend(notes.created);
        log.merge(notes.log);
        report.given_up += notes.given_up;
        report.unsent += notes.unsent;
        report.ended_ns = report.ended_ns.max(notes.ended_ns);
        report.samples.extend(notes.samples);
    }
    report.happenings.sort_by_key(|happening| happening.at_ns);
    report.samples.sort_by_key(|sample| (sample.at_ns, sample.worker));
    report.watching = log.join();
    recordings.push(std::mem::take(&mut report.watching.notifications));
    report.recording = Recording::merged(recordings);
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

/// Takes a watcher's watches away; what still stood is judged now.
fn disarm(
    settings: &Settings,
    watcher: &mut Watcher,
    session: &mut Session<Tag>,
    out: &mut bytes::BytesMut,
    shared: &mut Shared,
) {
    let attached = session.state() == State::Attached;
    let tag = Tag { due_ns: 0, sent_ns: 0, about: 0, bytes: 0, phase: 0, kind: Kind::Disarm };
    let any = 3;
    let whole = watcher.subtree;
    for (at, watch) in watcher.watches.iter_mut().enumerate() {
        if watch.arming == Arming::Armed {
            let (key, version) = (watch.key, watch.version);
            shared.log.standing.push(Standing { key, version, kind: watcher.kind });
        }
        *watch = Watch { arming: Arming::Idle, ..watch.clone() };
        if !attached || (whole && at > 0) {
            continue;
        }
        let mut path = String::new();
        if whole {
            path.push_str(settings.keys.root())
        } else {
            settings.keys.push_path(watch.key, &mut path)
        }
        session.submit(OpCode::RemoveWatches, tag, out, |out| encode::path_number(out, &path, any));
    }
}

/// The data version in a Stat.
fn version_of(stat: &[u8]) -> Option<i32> {
    stat.get(STAT_VERSION..STAT_VERSION + 4)
        .map(|bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

/// What a create made, from its tag and the path in its reply (which, of a sequential znode, only the server knows).
fn created(about: u64, body: &[u8]) -> Option<Scratch> {
    match Scratch::unpack(about) {
        Scratch::Sequential(_) => {
            let path = Reader::new(body).str().ok()?;
            path.get(path.len().checked_sub(10)?..)?.parse().ok().map(Scratch::Sequential)
        }
        named => Some(named),
    }
}

/// The error inside a multi's results, 0 if it succeeded. A failed multi consists of error entries only (reference 3.7).
fn multi_error(body: &[u8]) -> i32 {
    let mut input = Reader::new(body);
    let mut worst = 0;
    while let Ok(op) = i32::decode(&mut input) {
        let (Ok(done), Ok(err)) = (bool::decode(&mut input), i32::decode(&mut input)) else { break };
        if done || op != OpCode::Error.code() {
            break;
        }
        if err != 0 && err != ErrorCode::RuntimeInconsistency.code() && worst == 0 {
            worst = err;
        }
        if i32::decode(&mut input).is_err() {
            break;
        }
    }
    worst
}
