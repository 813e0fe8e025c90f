//! The results directory: the seam between measuring and everything that is read off a measurement.
//!
//! A run writes it while it goes on: the manifest when the load begins, rows as they come (a thread of their own appends them and
//! hands them to the system several times a second), the summary and the whole manifest at the end. So a run that is killed leaves
//! all but its last second or two, which [`read`] gives back as a run that was cut short.
//! Report, compare and charts get a [`RunData`] from [`read`]
//! and know nothing else. Every number that a report prints can be computed again from these files:
//!
//! | file | what |
//! |---|---|
//! | `manifest.json` | what was asked, of whom, where, when, and the verdict ([`Manifest`], phases included) |
//! | `summary.json`, `summary.csv` | the computed [`Summary`](crate::summary::Summary) |
//! | `histograms.hlog` | HdrHistogram interval log 1.3: everything per interval, and by tag (phase, op, outcome) |
//! | `intervals.csv` | rows per interval (100 ms), phase, op and outcome; several of the same add up |
//! | `events.csv` | faults, roles, gaps, sessions, with times on the run's clock |
//! | `servers.csv` | each member's CPU, memory and metrics, one row per member and second |
//! | `generator.csv` | each worker thread's own CPU and delays, one row per worker and second |
//! | `completions.csv` | every single completion around faults, one row each (only of runs with faults) |
//! | `traces.json` | kept traces (optional; written by the driver, not here) |
//! | `watches.csv` | per write that was watched, when its watchers heard (optional; likewise) |
//!
//! Times are nanoseconds since the run's start on one monotonic clock, unless a name says `unix`. People are told times since the first
//! phase began ([`Manifest::seconds`]), on which a workload's faults are dated, too.

mod gaps;
mod hlog;
mod measured;
mod read;
mod stream;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::closeup::Close;
use crate::expect::Judged;
use crate::promises::Promises;
use crate::recorder::Recording;
use crate::verdict::Verdict;

pub(crate) use gaps::Finder;
pub use read::read;
pub(crate) use read::{fan_outs, read_manifest, read_streamed};
pub(crate) use stream::{Row, Stream};
pub(crate) use write::{begin, complete, put_summary};
pub use write::{directory_name, make_directory, write};

/// The version of the directory's layout, in `manifest.json`. 1 was written as a whole at the end of a run: its log had a line for
/// each whole phase, none without a tag, and no word of empty intervals.
pub const FORMAT: u32 = 2;
/// Intervals whose whole clocks are written together, so that half a second (at 100 ms) is all that a killed run loses of them.
pub(crate) const STRETCH: u64 = hlog::STRETCH;

/// Whether a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It goes on, or was killed: files may end anywhere.
    Running,
    /// Everything has been written.
    #[default]
    Complete,
}

/// How operations of a phase come to be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrivalKind {
    /// An answer makes the next operation due: speed is found, not asked for.
    Closed,
    /// Operations are due by the clock, whatever the answers do.
    Open,
}

/// A phase as it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseRecord {
    /// Unique in the workload.
    pub name: String,
    /// Excluded from the whole run's figures and from the verdict.
    pub warmup: bool,
    /// Open or closed loop.
    pub arrival: ArrivalKind,
    /// What the workload says about arrivals, for people: `poisson 20000/s`, `closed, 10 in flight`.
    pub arrival_text: String,
    /// First moment at which an operation could be due.
    pub start_ns: u64,
    /// End of the schedule: nothing is due from here on. Answers may come later.
    pub end_ns: u64,
    /// Sessions that took part.
    pub sessions: u32,
    /// Operations in flight per session, at most; 0 when unlimited.
    pub in_flight: u32,
}

/// Something that happened at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventRow {
    /// When it began.
    pub at_ns: u64,
    /// How long it lasted; 0 for a moment.
    pub duration_ns: u64,
    /// `fault`, `heal`, `role`, `gap`, `session`, `note`: what charts group by.
    pub kind: String,
    /// The member, operation class or session that it happened to; may be empty.
    pub target: String,
    /// One line for people.
    pub detail: String,
}

/// One member of the cluster at one time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerSample {
    /// When it was read.
    pub at_ns: u64,
    /// `server.3`; see [`MemberFingerprint::key`].
    pub member: String,
    /// `leader`, `follower`, `observer`, `standalone`; empty when unknown.
    pub role: String,
    /// CPU time used by the process since it started; `None` when the member is not local.
    pub cpu_ns: Option<u64>,
    /// Resident memory; `None` when the member is not local.
    pub rss_bytes: Option<u64>,
    /// Figures of `mntr` by their name (`zk_packets_received`).
    pub metrics: BTreeMap<String, f64>,
}

/// One worker thread of the generator over one interval (about a second), measured by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GeneratorSample {
    /// End of the interval.
    pub at_ns: u64,
    /// Length of the interval.
    pub wall_ns: u64,
    /// Which worker thread.
    pub worker: u16,
    /// CPU time of the thread in the interval (CLOCK_THREAD_CPUTIME_ID).
    pub cpu_ns: u64,
    /// Time in which the thread could run but waited for a core (second field of
    /// `/proc/self/task/<tid>/schedstat`).
    pub run_queue_ns: u64,
    /// The worst lateness of a timer in the interval.
    pub jitter_max_ns: u64,
    /// Requests in flight at the end of the interval.
    pub in_flight: u32,
    /// How often an operation that was due had to wait because the in-flight limit was reached.
    pub at_cap: u64,
}

/// What the generator knows of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GeneratorStats {
    /// One row per worker and second. (Connections per member are in [`Manifest::connections`].)
    pub samples: Vec<GeneratorSample>,
}

/// What a member said about itself, for the fingerprint that comparisons check.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MemberFingerprint {
    /// `server.3`, as everywhere in the directory; empty in directories from before, where the address was the name.
    #[serde(default)]
    pub name: String,
    /// `host:port` of the client port.
    pub address: String,
    /// The version line of `srvr` or `envi`.
    pub version: String,
    /// `leader`, `follower`, `observer`, `standalone`; as found at the start.
    pub role: String,
    /// Settings that change what is measured (`forceSync`, `maxClientCnxns`, `tickTime`, `-Xmx`), from `conf`.
    pub settings: BTreeMap<String, String>,
}

impl MemberFingerprint {
    /// What the member is called in events, samples and counts of this directory.
    pub fn key(&self) -> &str {
        if self.name.is_empty() { &self.address } else { &self.name }
    }
}

/// The machine that the generator ran on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Host name.
    pub host: String,
    /// `uname -sr`.
    pub kernel: String,
    /// Model name from /proc/cpuinfo.
    pub cpu_model: String,
    /// Logical cores that this process may use.
    pub cores: u32,
    /// Frequency governor; empty when the machine shows none.
    pub governor: String,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// CPU limit of the control group, in cores; `None` when unlimited.
    pub cgroup_cpu_cores: Option<f64>,
    /// Memory limit of the control group; `None` when unlimited.
    pub cgroup_memory_bytes: Option<u64>,
    /// The kernel's clock source (`tsc`, `kvm-clock`).
    pub clock_source: String,
    /// Smallest step seen of the monotonic clock, and what reading it costs.
    pub clock_step_ns: u64,
    /// See `clock_step_ns`.
    pub clock_read_ns: u64,
    /// File system type of the servers' data directory, when the servers are local.
    pub data_filesystem: Option<String>,
    /// Whether that is memory, in which fsync costs nothing.
    pub data_on_tmpfs: Option<bool>,
    /// Whether the servers share this machine's cores.
    pub colocated: bool,
}

/// What came of looking up, at the end, what the cluster had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedWrites {
    /// Acknowledged writes that were looked up.
    pub checked: u64,
    /// Of these, how many were not there.
    pub lost: u64,
}

/// What was found when the load was over: kept promises, watches, what was left over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checks {
    /// Writes whose outcome is unknown (each could hide one loss).
    pub unknown: u64,
    /// The first acknowledged write that was not there, in words.
    pub first_lost: Option<String>,
    /// What every reply, watch event and list was held against.
    #[serde(default)]
    pub promises: Promises,
    /// Operations still outstanding when the drain limit was reached; they are also errors (REQUESTTIMEOUT).
    pub given_up: u64,
    /// Operations that were due but not sent because the run was cut short.
    pub unsent: u64,
    /// What became of watches.
    pub watches: crate::driver::WatchCounts,
    /// What became of ephemeral znodes.
    #[serde(default)]
    pub ephemerals: crate::driver::Ephemerals,
    /// Completions around faults that were too many to be kept.
    #[serde(default)]
    pub completions_unkept: u64,
}

/// Everything about a run that is not a measurement.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of the directory, [`FORMAT`].
    #[serde(default)]
    pub format: u32,
    /// Whether the run is over.
    #[serde(default)]
    pub state: State,
    /// The workload's file name without its extension.
    pub workload: String,
    /// The header comment of the workload file: the question that it answers.
    pub question: String,
    /// The whole file, as read.
    pub workload_text: String,
    /// A hash of `workload_text` with `overrides` applied, hexadecimal.
    pub workload_hash: String,
    /// `--set` options, in order.
    pub overrides: Vec<String>,
    /// The root seed.
    pub seed: u64,
    /// As given: `zoometry:3`, `apache:1`, or a host list.
    pub cluster: String,
    /// A short name for charts and directory names: `zoometry-3`.
    pub cluster_label: String,
    /// The command that repeats this run.
    pub command: String,
    /// Version of this program.
    pub version: String,
    /// `git describe` of the build, where it is known.
    pub revision: Option<String>,
    /// Start, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// End, milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// The run ended before its phases were over.
    pub cut_short: bool,
    /// What ended it, in words (`SIGTERM`); empty when it was not cut short, or nobody knows.
    #[serde(default)]
    pub cut_short_by: String,
    /// Worker threads of the generator.
    pub workers: u32,
    /// Session timeout asked for.
    pub session_timeout_ms: u32,
    /// Time after which an unanswered request counts as lost; 0 for never.
    pub request_timeout_ms: u32,
    /// Limit of the backlog of due operations, per worker.
    pub backlog_limit: u64,
    /// How sessions were to be placed: `spread` for evenly over the members, or what else was asked for.
    pub placement: String,
    /// Sessions connected to each member.
    pub connections: BTreeMap<String, u32>,
    /// Where it ran.
    pub environment: Environment,
    /// Who was measured.
    pub members: Vec<MemberFingerprint>,
    /// What the phases were.
    pub phases: Vec<PhaseRecord>,
    /// What the workload expected, and what came of it.
    pub expectations: Vec<Judged>,
    /// Whether acknowledged writes survived; `None` when nobody looked.
    pub checked_writes: Option<CheckedWrites>,
    /// What else was found when the load was over; `None` when the run ended before that.
    #[serde(default)]
    pub checks: Option<Checks>,
    /// Whether the run can be believed.
    pub verdict: Verdict,
    /// Bytes of each other file, so that a cut or changed one is noticed. Filled in when the run is over, checked
    /// and emptied by [`read`].
    #[serde(default)]
    pub files: BTreeMap<String, u64>,
}

impl Manifest {
    /// A time as people are told it: seconds since the first phase began, as in the workload.
    pub fn seconds(&self, at_ns: u64) -> f64 {
        let zero_ns = self.phases.first().map_or(0, |phase| phase.start_ns);
        (at_ns as f64 - zero_ns as f64) / 1e9
    }
}

/// A run: all that the directory holds, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct RunData {
    /// Not measured: what, whom, where, when.
    pub manifest: Manifest,
    /// Histograms and counters.
    pub recording: Recording,
    /// Faults, elections, gaps.
    pub events: Vec<EventRow>,
    /// The members, second by second.
    pub servers: Vec<ServerSample>,
    /// The generator's threads, second by second.
    pub generator: GeneratorStats,
    /// Every completion around faults, by time; empty without faults.
    pub completions: Vec<Close>,
}

impl RunData {
    /// Puts a run together: gaps found in the recording become events. `completions` are filled in by whoever has them.
    pub fn new(
        manifest: Manifest,
        mut recording: Recording,
        mut events: Vec<EventRow>,
        servers: Vec<ServerSample>,
        generator: GeneratorStats,
    ) -> RunData {
        events.extend(gaps::events(&recording, &manifest.phases));
        events.sort_by_key(|event| event.at_ns);
        recording.forget_successes();
        RunData { manifest, recording, events, servers, generator, completions: Vec::new() }
    }
}

/// The files of a directory, beside the manifest. `traces.json`, charts and the report come on top.
pub(crate) mod file {
    pub(crate) const MANIFEST: &str = "manifest.json";
    pub(crate) const SUMMARY_JSON: &str = "summary.json";
    pub(crate) const SUMMARY_CSV: &str = "summary.csv";
    pub(crate) const HISTOGRAMS: &str = "histograms.hlog";
    pub(crate) const INTERVALS: &str = "intervals.csv";
    pub(crate) const EVENTS: &str = "events.csv";
    pub(crate) const SERVERS: &str = "servers.csv";
    pub(crate) const GENERATOR: &str = "generator.csv";
    pub(crate) const COMPLETIONS: &str = "completions.csv";
    pub(crate) const TRACES: &str = "traces.json";
    pub(crate) const WATCHES: &str = "watches.csv";
    /// What is written while the run goes on.
    pub(crate) const STREAMED: [&str; 7] =
        [HISTOGRAMS, INTERVALS, EVENTS, SERVERS, GENERATOR, COMPLETIONS, WATCHES];
}

/// The phases of a run that ended at `ended_ns`: those that had not begun are left out.
pub(crate) fn cut_phases(phases: &mut Vec<PhaseRecord>, ended_ns: u64) {
    let begun = phases.iter().take_while(|phase| phase.start_ns < ended_ns).count();
    // The first one stays even if nothing of it ran: results without any phase say nothing to anybody.
    phases.truncate(begun.max(1));
    if let Some(last) = phases.last_mut() {
        last.end_ns = last.end_ns.min(ended_ns.max(last.start_ns + 1));
    }
}
