//! Watchers: which event belongs to which write, without asking the server for more than every version tells.
//!
//! The identity of a data change is (key, data version): a write's acknowledgement carries the version it made, and a
//! watcher knows the version at which its watch was armed (from the read that armed it), so the next
//! event is about the next version. That needs no zxid in the event (servers before 3.9 send none), works with
//! many writers, and when the event overtakes the acknowledgement. Writers log [`Trigger`]s, watchers log
//! [`Delivery`]s; both leave the worker several times a second and are joined ([`super::Join`]). Latency is from the moment the
//! write was *due* to the event; it is therefore never negative and never clamped.

use crate::spec::{Spec, WatchKind, WatchOn};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// An acknowledged write to a watched key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trigger {
    pub(super) key: u64,
    /// The version that the write made.
    pub(super) version: i32,
    pub(super) phase: u16,
    pub(super) due_ns: u64,
    pub(super) sent_ns: u64,
}

/// An event that a watcher received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) key: u64,
    /// The version that the event is about.
    pub(super) version: i32,
    pub(super) at_ns: u64,
}

/// Where an armed watch stood at the end: every version of the key above `version` should have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(super) key: u64,
    pub(super) version: i32,
    pub(super) kind: WatchKind,
}

/// What was written and what was heard, since it was taken last.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(super) triggers: Vec<Trigger>,
    pub(super) deliveries: Vec<Delivery>,
}

impl Heard {
    pub(super) fn append(&mut self, later: Heard) {
        self.triggers.extend(later.triggers);
        self.deliveries.extend(later.deliveries);
    }
}

/// One worker's part.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) heard: Heard,
    pub(super) counts: WatchCounts,
}

/// What became of the watches of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCounts {
    /// Events received for armed watches.
    pub delivered: u64,
    /// Events without a change: of a one-shot watch that had fired already, or more than there were changes.
    pub duplicate: u64,
    /// Changes that no event told of because a one-shot watch was not armed at that moment.
    pub coalesced: u64,
    /// Changes that happened while a watcher was not connected.
    pub while_away: u64,
    /// Changes that an armed watch should have told and did not by the end of the run.
    pub missing: u64,
    /// Events whose write has no acknowledgement (or was not logged), so that they have no latency.
    pub unattributed: u64,
    /// Events that came when too many writes were waited for (see [`super::Join`]), so that they have no latency.
    pub unlogged: u64,
    /// Watches armed, counting each time.
    pub armed: u64,
    /// Events of a znode or a kind that their session did not watch.
    #[serde(default)]
    pub unasked: u64,
    /// Watches that were given up, because the cluster refused to arm them for too long.
    #[serde(default)]
    pub unarmed: u64,
    /// The first of them, in words.
    #[serde(default)]
    pub first_unarmed: Option<String>,
}

impl WatchCounts {
    pub(crate) fn add(&mut self, other: &WatchCounts) {
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.coalesced += other.coalesced;
        self.while_away += other.while_away;
        self.missing += other.missing;
        self.unattributed += other.unattributed;
        self.unlogged += other.unlogged;
        self.armed += other.armed;
        self.unasked += other.unasked;
        self.unarmed += other.unarmed;
        self.first_unarmed = self.first_unarmed.take().or_else(|| other.first_unarmed.clone());
    }
}

/// When the watchers of one write heard of it, from when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// When the write was due, on the run's clock.
    pub due_ns: u64,
    /// How many watchers heard.
    pub watchers: u32,
    /// The first of them.
    pub first_ns: u64,
    /// The median.
    pub median_ns: u64,
    /// The last.
    pub last_ns: u64,
}

/// What the workers know about watches at the end, together.
#[derive(Debug, Default)]
pub struct Watching {
    /// Sums.
    pub counts: WatchCounts,
    /// Watches that were armed then.
    pub(crate) standing: Vec<Standing>,
}

impl Log {
    pub(super) fn trigger(&mut self, trigger: Trigger) {
        self.heard.triggers.push(trigger);
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        self.counts.delivered += 1;
        self.heard.deliveries.push(delivery);
    }
}

/// How many events an armed watch still owes that is so many versions behind.
pub(super) fn missed_by(kind: WatchKind, behind: i64) -> u64 {
    match kind {
        // One event is all that a one-shot watch owes.
        WatchKind::OneShot => u64::from(behind > 0),
        WatchKind::Persistent | WatchKind::Recursive => behind.max(0) as u64,
    }
}

/// Which keys anybody watches, so that writers log only those.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched {
    below: u64,
    single: Vec<u64>,
}

impl Watched {
    pub(super) fn of(spec: &Spec) -> Watched {
        let mut watched = Watched::default();
        for group in &spec.watchers {
            match group.on {
                WatchOn::Spread => watched.below = watched.below.max(group.count.min(spec.data.znodes)),
                WatchOn::Subtree => watched.below = spec.data.znodes,
                WatchOn::Znode(key) => watched.single.push(key),
            }
        }
        watched
    }

    #[inline]
    pub(super) fn contains(&self, key: u64) -> bool {
        key < self.below || self.single.contains(&key)
    }
}

/// How a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arming {
    /// Nothing is set.
    Idle,
    /// Asked for; the version is not known yet.
    Asked,
    /// Set; `version` of the [`Watch`] is the newest that this watcher knows of.
    Armed,
}

/// One watch of a watcher session.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) key: u64,
    pub(super) version: i32,
    pub(super) arming: Arming,
    /// Whether `version` means anything: the watch has been armed before.
    pub(super) seen: bool,
    /// Since when the cluster has refused to arm it; 0 if it has not.
    pub(super) refused_ns: u64,
}

/// The watches of one watcher session: some keys of one group.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    /// Index into `Spec::watchers`.
    pub(super) group: u16,
    pub(super) kind: WatchKind,
    /// The whole subtree with one recursive watch.
    pub(super) subtree: bool,
    pub(super) watches: Vec<Watch>,
    /// Whether the current phase wants them armed.
    pub(super) wanted: bool,
    /// Watches to be armed or looked at (indices), oldest first.
    pub(super) queue: std::collections::VecDeque<u32>,
    pub(super) by_path: FxHashMap<String, u32>,
    /// Refused, to be asked for again when their time has come.
    pub(super) refused: Vec<u32>,
    pub(super) ask_again_ns: u64,
    /// Removals without an answer, on this connection: until they are answered events may come of watches that are not wanted.
    pub(super) removing: u32,
    /// The load is over: watches are looked at a last time, and not armed any more.
    pub(super) settling: bool,
}

/// Distributes the watches of all groups over their sessions: one [`Watcher`] per session, in order.
pub(super) fn watchers(spec: &Spec) -> Vec<Watcher> {
    let mut all = Vec::new();
    for (number, group) in spec.watchers.iter().enumerate() {
        let sessions = u64::from(group.sessions.max(1));
        for session in 0..sessions {
            let mut keys: Vec<u64> = match group.on {
                WatchOn::Spread => {
                    (session..group.count).step_by(sessions as usize).map(|w| w % spec.data.znodes).collect()
                }
                WatchOn::Znode(key) => vec![key],
                WatchOn::Subtree => (0..spec.data.znodes).collect(),
            };
            // The same watch twice on one connection has no further effect.
            keys.sort_unstable();
            keys.dedup();
            let watch = |key| Watch { key, version: 0, arming: Arming::Idle, seen: false, refused_ns: 0 };
            all.push(Watcher {
                group: number as u16,
                kind: group.kind,
                subtree: group.on == WatchOn::Subtree,
                watches: keys.into_iter().map(watch).collect(),
                wanted: false,
                queue: Default::default(),
                by_path: FxHashMap::default(),
                refused: Vec::new(),
                ask_again_ns: 0,
                removing: 0,
                settling: false,
            });
        }
    }
    all
}
