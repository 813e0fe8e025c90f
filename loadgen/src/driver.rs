//! The load: worker threads with a share of the sessions each, driven by the plan.
//!
//! A worker is one OS thread with a single-threaded runtime. It shares nothing with other workers but the [`Control`]; several times a
//! second it leaves its notes in its [`Handover`], from where another thread writes them, so that its memory does not grow with time. Per session there is one task that owns the connection: it reads everything the socket holds, records
//! completions, takes the next due operations and writes them in one call. One more task per worker, the scheduler, wakes when the
//! next operation of an open phase is due ([`timer`]), and ticks: pings, phase changes, what others must know.
//!
//! Invariants:
//! - an operation that is due is sent, or counted as missed when the phase's backlog limit is reached; never skipped;
//! - in a closed loop an operation is due when its slot frees: when the reply to the one before arrived, or its connection was lost;
//! - operations keep the phase in which they were due, even if they are sent or answered in the next;
//! - nothing per operation is allocated, timed or sent between threads.
//!
//! *Sent* is when the operation was encoded for the write call that follows at once. If the server does not read, bytes wait in the socket
//! and in the session's out buffer (never more than `in_flight` requests), and that wait counts as service time.

mod arming;
mod client;
mod connection;
mod encode;
mod ephemerals;
mod handover;
mod joining;
mod ledger;
pub(crate) mod mark;
mod phases;
mod prepare;
mod receiving;
mod selfmeasure;
mod sending;
mod slot;
mod timer;
mod verify;
mod views;
mod watching;
mod worker;

pub(crate) use client::{Client, Refused, error_name};
pub use ephemerals::Ephemerals;
pub(crate) use handover::Handover;
pub(crate) use joining::Join;
pub(crate) use ledger::Ledger;
pub use prepare::Places;
pub(crate) use prepare::{MADE_BY, MADE_FOR_RUNS, Made, clean_up, prepare};
pub use verify::Verified;
pub(crate) use verify::{Leftover, verify};
pub(crate) use views::Views;
pub(crate) use watching::Standing;
pub use watching::{FanOut, WatchCounts, Watching};

use crate::credentials::Credentials;
use crate::keys::KeySpace;
use crate::plan::Plan;
use crate::recorder::Recent;
use crate::spec::{Placement, Spec};
use crate::traces::Sampler;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use zoometry_spans::Clock;
use zoometry_wire::Zxid;

/// After the last phase, outstanding and backlogged operations get this long; then they are given up.
pub const DRAIN_NS: u64 = 10_000_000_000;
/// Connection events kept per worker; more are only counted.
pub const HAPPENINGS_MAX: usize = 20_000;

/// What the load is made of.
pub struct Settings {
    /// The run's clock.
    pub clock: Clock,
    /// The workload.
    pub spec: Arc<Spec>,
    /// Its operations.
    pub plan: Arc<Plan>,
    /// The keys, below the run's own znode.
    pub keys: Arc<KeySpace>,
    /// Where the run's znodes are.
    pub places: Places,
    /// The zxid at which the run's znodes were all there.
    pub prepared: Zxid,
    /// The cluster's client addresses.
    pub members: Vec<SocketAddr>,
    /// Which of them leads, if that is known; needed for placement on leader and followers.
    pub leader: Option<usize>,
    /// Worker threads, at least one.
    pub workers: u32,
    /// Who the sessions are.
    pub credentials: Credentials,
    /// The length of the recorders' intervals.
    pub interval_ns: u64,
    /// Where workers leave their notes, one place for each.
    pub(crate) handovers: Vec<Arc<Handover>>,
}

/// What main and workers tell each other.
#[derive(Debug, Default)]
pub struct Control {
    /// When the first phase begins; 0: not yet.
    start_ns: AtomicU64,
    /// Issue nothing more, wait for what is outstanding.
    stop: AtomicBool,
    /// End at once.
    abort: AtomicBool,
    /// Sessions attached at this moment.
    attached: AtomicU32,
    /// Watches armed so far.
    armed: AtomicU64,
    /// Sessions attached per member at the start, filled in by the workers as they go.
    connections: Mutex<Vec<u32>>,
    /// Why a session could not be opened, the latest.
    trouble: Mutex<Option<String>>,
    /// Why a watch was given up, the first.
    unarmed: Mutex<Option<String>>,
    /// What was completed since somebody last asked.
    recent: Mutex<Recent>,
}

impl Control {
    /// Lets the first phase begin at `start_ns`.
    pub fn go(&self, start_ns: u64) {
        self.start_ns.store(start_ns.max(1), Ordering::Release);
    }

    /// Ends the load early: nothing more is issued, replies are waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Ends the load at once.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Release);
    }

    /// Sessions attached now.
    pub fn attached(&self) -> u32 {
        self.attached.load(Ordering::Acquire)
    }

    /// Watches armed so far.
    pub fn armed(&self) -> u64 {
        self.armed.load(Ordering::Acquire)
    }

    /// Connections opened so far, per member.
    pub fn connections(&self) -> Vec<u32> {
        self.connections.lock().expect("no thread panics holding it").clone()
    }

    fn connected_to(&self, member: u16) {
        let mut connections = self.connections.lock().expect("no thread panics holding it");
        let member = usize::from(member);
        if connections.len() <= member {
            connections.resize(member + 1, 0);
        }
        connections[member] += 1;
    }

    /// The latest reason why a session could not be opened.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("no thread panics holding it").clone()
    }

    /// Why a watch was given up, if one was.
    pub fn unarmed(&self) -> Option<String> {
        self.unarmed.lock().expect("no thread panics holding it").clone()
    }

    /// Completions since the last call, about a tenth of a second old.
    pub fn take_recent(&self) -> Recent {
        std::mem::take(&mut self.recent.lock().expect("no thread panics holding it"))
    }
}

/// Something that happened to a session's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When, on the run's clock.
    pub at_ns: u64,
    /// The session's number in the run.
    pub session: u32,
    /// Index of the member.
    pub member: u16,
    /// What.
    pub what: What,
}

/// Kinds of [`Happening`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The connection was lost, for this reason.
    Lost(String),
    /// The session is attached again, this long after it lost its connection.
    Reattached {
        /// Nanoseconds without a connection.
        away_ns: u64,
        /// The member that it was attached to before; `None` for a new session after one that expired.
        from: Option<u16>,
    },
    /// The cluster said that the session is over; a new one follows.
    Expired,
}

/// What the workers did, together.
pub struct Report {
    /// Connection events beyond [`HAPPENINGS_MAX`].
    pub happenings_unkept: u64,
    /// What was acknowledged.
    pub(crate) ledger: Ledger,
    /// What was shown of keys, and promises that were broken.
    pub(crate) views: Views,
    /// What sessions know of the znodes that they made.
    pub(crate) scratch: Vec<Leftover>,
    /// Completions around faults that were too many to be kept.
    pub completions_unkept: u64,
    /// What became of ephemeral znodes.
    pub ephemerals: Ephemerals,
    /// Watches, as far as workers know; the rest comes of joining ([`Join`]).
    pub watching: Watching,
    /// Operations that were outstanding when the drain limit was reached.
    pub given_up: u64,
    /// Operations that were due and not sent because the run was cut short.
    pub unsent: u64,
    /// When the last phase ended, or the run was cut short.
    pub ended_ns: u64,
}

/// A running load.
pub struct Driver {
    control: Arc<Control>,
    threads: Vec<JoinHandle<anyhow::Result<worker::Notes>>>,
}

impl Driver {
    /// Starts the workers, which connect their sessions at once. `samplers` has one entry per worker, or none at all.
    pub fn start(settings: Settings, samplers: Vec<Sampler>) -> std::io::Result<Driver> {
        let control = Arc::new(Control::default());
        let settings = Arc::new(settings);
        let mut samplers = samplers.into_iter();
        let mut threads = Vec::new();
        for number in 0..settings.workers {
            let (settings, control, sampler) = (settings.clone(), control.clone(), samplers.next());
            let body = move || worker::run(settings, control, number, sampler);
            threads.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(body)?);
        }
        Ok(Driver { control, threads })
    }

    /// The way to talk to the workers.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Whether every worker has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the workers and merges their notes.
    pub fn join(mut self) -> anyhow::Result<Report> {
        let mut notes = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            let name = thread.thread().name().unwrap_or("worker").to_owned();
            notes.push(thread.join().map_err(|_| anyhow::anyhow!("{name} panicked; this is a bug"))??);
        }
        Ok(worker::merge(notes))
    }
}

impl Drop for Driver {
    /// A load that nobody waits for any more ends at once; after [`Driver::join`] there is none.
    fn drop(&mut self) {
        self.control.abort();
    }
}

/// How many watches a group keeps armed: two on the same znode in one session are one.
pub fn watches_of(spec: &Spec, group: &crate::spec::Watchers) -> u64 {
    let group_only = Spec { watchers: vec![group.clone()], ..spec.clone() };
    watching::watchers(&group_only).iter().map(|watcher| watcher.watches.len() as u64).sum()
}

/// How many worker threads suit this machine: half of its cores when servers share it, so at least one.
pub fn workers_for(cores: usize, shared_with_servers: bool) -> u32 {
    let cores = if shared_with_servers { cores / 2 } else { cores };
    cores.clamp(1, 32) as u32
}

/// The order in which session `number` tries the members.
fn route(settings: &Settings, number: u32) -> Vec<u16> {
    let members = settings.members.len() as u16;
    // First choices are spread evenly; so are the second choices of those who share a first one, so that the sessions of a member
    // that is lost do not all go to one other.
    let turned = |mut list: Vec<u16>| -> Vec<u16> {
        let (number, length) = (number as usize, list.len().max(1));
        list.rotate_left(number % length);
        if list.len() > 2 {
            let others = &mut list[1..];
            others.rotate_left(number / length % others.len());
        }
        list
    };
    let all = || (0..members).collect::<Vec<u16>>();
    match (settings.spec.sessions.placement, settings.leader) {
        (Placement::Server(n), _) => vec![(n.max(1) - 1) as u16],
        (Placement::Leader, Some(leader)) => {
            let leader = leader as u16;
            [vec![leader], all().into_iter().filter(|m| *m != leader).collect()].concat()
        }
        (Placement::Followers, Some(leader)) if members > 1 => {
            let leader = leader as u16;
            let followers = turned(all().into_iter().filter(|m| *m != leader).collect());
            [followers, vec![leader]].concat()
        }
        _ => turned(all()),
    }
}
