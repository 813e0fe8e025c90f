//! What a workload file says, checked: the types that the plan, the driver and the results build on.
//!
//! A [`Spec`] exists only when every check has passed: no zero durations, no weights that are all zero, no
//! hot set larger than the data. Whoever holds one need not check again. Numbers are in one unit each,
//! named in the field: nanoseconds, operations per second, bytes.
//!
//! This file holds the types and the two ways in ([`Spec::load`], [`Spec::parse`]). `document` reads TOML
//! into a tree that remembers where everything stood, and applies `--set`; `quantity` reads durations,
//! rates, sizes and shares; `check` (with the `readers` of single values) turns the tree into a `Spec` or
//! into a list of complaints. The language itself is described on one page in `workloads/README.md`.
//! Nothing here knows about clusters, clocks or sockets.

mod check;
mod document;
pub mod quantity;
mod readers;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::expect::Expectation;
use crate::op::Op;

/// How many due operations may wait if a phase does not say.
pub const DEFAULT_BACKLOG_LIMIT: u64 = 100_000;

/// A whole workload: what data there is, who talks, in which phases, and what is expected of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The workload's name, part of the results directory's name: letters, digits, `-` and `_`.
    pub name: String,
    /// The question that the workload answers, in the author's words.
    pub description: String,
    /// The one seed from which every random choice of the run is derived.
    pub seed: u64,
    /// The znodes that exist before the first phase.
    pub data: Data,
    /// The sessions that issue the operations.
    pub sessions: Sessions,
    /// In the order in which they run, one after the other; never empty, names unique.
    pub phases: Vec<Phase>,
    /// Sessions that only watch, beside those of `sessions`.
    pub watchers: Vec<Watchers>,
    /// What is broken when, in the order of `at_ns`; a table that repeats is several of them.
    pub faults: Vec<Fault>,
    /// What decides the exit code.
    pub expect: Vec<Expectation>,
    /// The `--set` overrides that were applied, as they were given.
    pub overrides: Vec<String>,
    /// The file as it was read, before overrides.
    pub text: String,
}

/// The znodes that are created before the run: `znodes` leaves below `root`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The znode below which everything happens. An absolute path, not `/` and not below `/zookeeper`.
    pub root: String,
    /// How many keys there are: at least one, numbered from 0.
    pub znodes: u64,
    /// How the keys are laid out in the tree.
    pub shape: Shape,
    /// Size of the values, at the start and in writes (a phase can override the latter).
    pub value: ValueSize,
}

/// How keys become paths; see [`crate::keys::KeySpace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// All keys are children of the root.
    Flat,
    /// No znode has more children than this; as many levels as that takes.
    Fanout(u32),
    /// Every key lies this many levels below the root; as wide as that takes.
    Depth(u32),
}

/// Sizes of values in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueSize {
    /// Always this many.
    Constant(u32),
    /// Uniform, both ends included.
    Uniform {
        /// Smallest size in bytes.
        min: u32,
        /// Largest size in bytes.
        max: u32,
    },
    /// One of these, by weight; never empty, the weights' sum positive.
    Weighted(Vec<WeightedSize>),
}

/// One entry of a weighted list of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeightedSize {
    /// Size in bytes.
    pub bytes: u32,
    /// Share among the weights, not negative.
    pub weight: f64,
}

impl ValueSize {
    /// The largest size that can come up, in bytes.
    pub fn largest(&self) -> u32 {
        match self {
            ValueSize::Constant(bytes) => *bytes,
            ValueSize::Uniform { max, .. } => *max,
            ValueSize::Weighted(list) => list.iter().map(|entry| entry.bytes).max().unwrap_or(0),
        }
    }
}

/// The sessions that issue the operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// How many, at least one.
    pub count: u32,
    /// How many requests one session keeps outstanding at most, at least one. In a closed loop: always this
    /// many.
    pub in_flight: u32,
    /// The session timeout asked for, in milliseconds.
    pub timeout_ms: u32,
    /// Which members they connect to.
    pub placement: Placement,
}

/// Which members of the ensemble sessions connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Spread over all members in turn.
    Even,
    /// All on the leader.
    Leader,
    /// Spread over the members that do not lead.
    Followers,
    /// All on the n-th member of the list, counted from 1.
    Server(u32),
}

/// One stretch of the run with one arrival process and one mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Unique: letters, digits, `-` and `_`.
    pub name: String,
    /// How long it lasts in nanoseconds, positive.
    pub duration_ns: u64,
    /// Run, recorded and shown, but left out of every summary and expectation.
    pub warmup: bool,
    /// When operations are due.
    pub arrival: Arrival,
    /// Kinds of operation and their weights, all positive, in the order of [`Op::ALL`]; never empty.
    pub mix: Vec<(Op, f64)>,
    /// Which key an operation is about.
    pub keys: KeyChoice,
    /// Size of the values that this phase writes.
    pub value: ValueSize,
    /// How many due operations may wait for a free slot, over all sessions, before further ones count as
    /// missed.
    pub backlog_limit: u64,
}

impl Phase {
    /// The share of its operations of the kinds that `holds`, 0 to 1.
    pub fn share(&self, holds: impl Fn(Op) -> bool) -> f64 {
        let sum: f64 = self.mix.iter().map(|(_, weight)| weight).sum();
        self.mix.iter().filter(|(op, _)| holds(*op)).map(|(_, weight)| weight / sum).sum()
    }

    /// Whether operations of this kind occur.
    pub fn issues(&self, op: Op) -> bool {
        self.mix.iter().any(|&(kind, _)| kind == op)
    }
}

/// When operations are due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// Whenever a slot frees: every session keeps `in_flight` requests outstanding.
    Closed,
    /// By a schedule that does not look at the answers.
    Open {
        /// Operations per second over the phase, all sessions together.
        rate: Rate,
        /// How they are spread around that rate.
        spacing: Spacing,
    },
}

/// Operations per second as a function of the time in the phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// The same throughout, positive.
    Constant(f64),
    /// Linear from the phase's start to its end; not both zero.
    Ramp {
        /// At the start, per second.
        from: f64,
        /// At the end, per second.
        to: f64,
    },
    /// Equally long steps; never empty, not all zero.
    Steps(Vec<f64>),
}

/// How due times lie around the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// As regular as the rate allows.
    Even,
    /// A Poisson process: independent, exponential gaps.
    Poisson,
}

/// Which key an operation is about. Key 0 is the most popular one wherever there is a most popular one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChoice {
    /// All alike.
    Uniform,
    /// Key k with probability proportional to 1/(k+1)^exponent.
    Zipf(f64),
    /// `share` (0 to 1) of the operations go to the first `keys` keys, the rest to the others; uniform in
    /// both.
    Hot {
        /// Size of the hot set, at least 1 and less than the number of znodes.
        keys: u64,
        /// Share of the operations, 0 to 1.
        share: f64,
    },
    /// One after the other, again from 0 after the last.
    Sequential,
}

/// A group of watchers: sessions that read nothing but what their watches make them read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watchers {
    /// How many watches are kept armed.
    pub count: u64,
    /// Over how many sessions of their own they are spread, round robin; at most `count`.
    pub sessions: u32,
    /// What they watch.
    pub on: WatchOn,
    /// How.
    pub kind: WatchKind,
    /// In which phases (indices into `Spec::phases`) they are armed; never empty, ascending.
    pub phases: Vec<u16>,
}

/// What a group of watchers watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchOn {
    /// Each its own znode: watcher w watches key w modulo the number of keys.
    Spread,
    /// All of them this one key; the hottest is key 0.
    Znode(u64),
    /// The whole data root (recursive watches only).
    Subtree,
}

/// How a watch is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchKind {
    /// A data watch, left by getData; fires once, and is left again by the read that follows the event.
    OneShot,
    /// addWatch, persistent.
    Persistent,
    /// addWatch, persistent and recursive.
    Recursive,
}

/// Something that is broken on purpose, on the run's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When, in nanoseconds since the first phase began.
    pub at_ns: u64,
    /// What happens.
    pub kind: FaultKind,
    /// To whom.
    pub target: FaultTarget,
    /// For how long in nanoseconds; `None`: for good (kill) or at once (restart).
    pub for_ns: Option<u64>,
    /// Where it stands: `file:line:column`.
    pub place: String,
}

/// What happens to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL; started again after `for`, if that is given.
    Kill,
    /// SIGSTOP, and SIGCONT after `for`.
    Stop,
    /// A clean stop and start.
    Restart,
    /// Cut off from the other members for `for`.
    Cut,
    /// Every sync of its disk takes this much longer, for `for`.
    SlowDisk {
        /// Added to each sync, in nanoseconds.
        delay_ns: u64,
    },
}

/// Whom a fault hits, decided when it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultTarget {
    /// The leader of that moment.
    Leader,
    /// One member that does not lead.
    Follower,
    /// As many members as a quorum has, the leader among them.
    Quorum,
    /// Every member.
    All,
    /// The n-th member of the list, counted from 1.
    Server(u32),
}

/// Everything that is wrong with a workload file, in the order of the file. Displays one complaint per
/// line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// `file:line:column`, or `--set key=value`.
    pub place: String,
    /// What is wrong, what was expected, and what may have been meant.
    pub what: String,
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}
impl std::error::Error for SpecErrors {}

impl Spec {
    /// Reads a workload file and applies `--set` overrides (`"phase.steady.duration=5s"`), in the order
    /// given.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the overrides, with places; or that it cannot be read.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Spec, SpecErrors> {
        let file = path.display().to_string();
        let unreadable = |what: String| SpecErrors(vec![SpecError { place: file.clone(), what }]);
        let length =
            std::fs::metadata(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?.len();
        if length > MAX_FILE_BYTES {
            return Err(unreadable(format!(
                "{length} bytes: expected a workload file, which has at most {MAX_FILE_BYTES}"
            )));
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        Spec::parse(&file, &text, overrides)
    }

    /// Like [`Spec::load`], from text; `file` names it in complaints, and gives the workload its name if it
    /// has none.
    ///
    /// # Errors
    /// Everything that is wrong with text and overrides, with places.
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Spec, SpecErrors> {
        let source = document::Source { file, text, overrides };
        let root = source.read().map_err(check::in_order)?;
        check::check(&source, &root)
    }

    /// The length of all phases together in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.phases.iter().map(|phase| phase.duration_ns).sum()
    }

    /// How many sessions the watchers have, beside those that issue operations.
    pub fn watcher_sessions(&self) -> u64 {
        self.watchers.iter().map(|group| u64::from(group.sessions)).sum()
    }
}

impl std::fmt::Display for Arrival {
    /// `closed`, `constant 5000/s`, `poisson 20000/s`, `ramp 0/s to 5000/s`, `steps 1000/s, 2000/s,
    /// poisson`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Arrival::Open { rate, spacing } = self else { return write!(f, "closed") };
        match (rate, spacing) {
            (Rate::Constant(rate), Spacing::Even) => return write!(f, "constant {rate}/s"),
            (Rate::Constant(rate), Spacing::Poisson) => return write!(f, "poisson {rate}/s"),
            (Rate::Ramp { from, to }, _) => write!(f, "ramp {from}/s to {to}/s")?,
            (Rate::Steps(rates), _) => {
                for (n, rate) in rates.iter().enumerate() {
                    write!(f, "{}{rate}/s", if n == 0 { "steps " } else { ", " })?;
                }
            }
        }
        match spacing {
            Spacing::Even => Ok(()),
            Spacing::Poisson => write!(f, ", poisson"),
        }
    }
}

/// A workload file longer than this is some other file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The candidate that a misspelt word probably meant.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace(['_', ' '], "-");
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('_', "-"));
    let best = candidates.iter().copied().min_by_key(|candidate| distance(candidate))?;
    let tolerated = (word.chars().count().max(best.chars().count()) / 3).max(1);
    (distance(best) <= tolerated).then_some(best)
}

/// `; did you mean …?`, or nothing.
fn near_hint(word: &str, candidates: &[&str]) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// `; did you mean …?`, or the candidates.
pub(crate) fn hint(word: &str, candidates: &[&str]) -> String {
    match near_hint(word, candidates) {
        near if near.is_empty() => format!("; expected one of {}", candidates.join(", ")),
        near => near,
    }
}

#[cfg(test)]
mod tests;
