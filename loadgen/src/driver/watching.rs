//! Watchers: which event belongs to which write, without asking the server for more than every version tells.
//!
//! The identity of a data change is (key, data version): a write's acknowledgement carries the version it made, and a
//! watcher knows the version at which its watch was armed (from the read that armed it), so the next
//! event is about the next version. That needs no zxid in the event (servers before 3.9 send none), works with
//! many writers, and when the event overtakes the acknowledgement. Writers log [`Trigger`]s, watchers log
//! [`Delivery`]s; they are joined when the run is over. Latency is from the moment the write was *due* to the event; it is
//! therefore never negative and never clamped.
//!
//! Limits: at most [`LOG_MAX`] entries per worker and kind (more are counted as unlogged); an event whose write's
//! acknowledgement was lost cannot be attributed and is counted so.

use crate::op::{Op, Outcome};
use crate::recorder::{Completion, Recorder, Recording};
use crate::spec::{Spec, WatchKind, WatchOn};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Entries that a worker keeps of each log: 8 million, about 250 MB.
pub(super) const LOG_MAX: usize = 8 << 20;

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
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) key: u64,
    pub(super) version: i32,
    pub(super) kind: WatchKind,
}

/// One worker's part.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) triggers: Vec<Trigger>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) standing: Vec<Standing>,
    pub(super) counts: WatchCounts,
}

/// What became of the watches of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCounts {
    /// Events received for armed watches.
    pub delivered: u64,
    /// Events of a watch that was not armed: a one-shot watch that fired twice.
    pub duplicate: u64,
    /// Changes that no event told of because a one-shot watch was not armed at that moment.
    pub coalesced: u64,
    /// Changes that happened while a watcher was not connected.
    pub while_away: u64,
    /// Changes that an armed watch should have told and did not by the end of the run.
    pub missing: u64,
    /// Events whose write has no acknowledgement (or was not logged), so that they have no latency.
    pub unattributed: u64,
    /// Entries beyond the log's limit.
    pub unlogged: u64,
    /// Watches armed, counting each time.
    pub armed: u64,
}

impl WatchCounts {
    fn add(&mut self, other: &WatchCounts) {
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.coalesced += other.coalesced;
        self.while_away += other.while_away;
        self.missing += other.missing;
        self.unattributed += other.unattributed;
        self.unlogged += other.unlogged;
        self.armed += other.armed;
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

/// Everything about watches.
#[derive(Debug, Default)]
pub struct Watching {
    /// Sums.
    pub counts: WatchCounts,
    /// One entry per write with at least one delivery, by due time.
    pub fan_outs: Vec<FanOut>,
    /// Every delivery as a completion of [`Op::Notify`].
    pub(super) notifications: Recording,
}

impl Log {
    pub(super) fn trigger(&mut self, trigger: Trigger) {
        if self.triggers.len() < LOG_MAX {
            self.triggers.push(trigger);
        } else {
            self.counts.unlogged += 1;
        }
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        self.counts.delivered += 1;
        if self.deliveries.len() < LOG_MAX {
            self.deliveries.push(delivery);
        } else {
            self.counts.unlogged += 1;
        }
    }

    pub(super) fn merge(&mut self, other: Log) {
        self.triggers.extend(other.triggers);
        self.deliveries.extend(other.deliveries);
        self.standing.extend(other.standing);
        self.counts.add(&other.counts);
    }

    /// Attributes deliveries to writes.
    pub(super) fn join(mut self) -> Watching {
        let mut newest: FxHashMap<u64, i32> = FxHashMap::default();
        let mut by_change: FxHashMap<(u64, i32), u32> = FxHashMap::default();
        for (at, trigger) in self.triggers.iter().enumerate() {
            by_change.insert((trigger.key, trigger.version), at as u32);
            let version = newest.entry(trigger.key).or_insert(trigger.version);
            *version = (*version).max(trigger.version);
        }
        self.deliveries.sort_unstable_by_key(|delivery| delivery.at_ns);
        let mut heard: Vec<Vec<u64>> = vec![Vec::new(); self.triggers.len()];
        let mut recorder = Recorder::new();
        for delivery in &self.deliveries {
            let Some(&at) = by_change.get(&(delivery.key, delivery.version)) else {
                self.counts.unattributed += 1;
                continue;
            };
            let trigger = &self.triggers[at as usize];
            heard[at as usize].push(delivery.at_ns.saturating_sub(trigger.due_ns));
            recorder.record(&Completion {
                phase: trigger.phase,
                op: Op::Notify,
                outcome: Outcome::Ok,
                due_ns: trigger.due_ns,
                sent_ns: trigger.sent_ns,
                done_ns: delivery.at_ns,
                bytes: 0,
            });
        }
        for watch in &self.standing {
            let behind = newest.get(&watch.key).map_or(0, |newest| i64::from(newest - watch.version));
            self.counts.missing += missed_by(watch.kind, behind);
        }
        let mut fan_outs: Vec<FanOut> = heard
            .into_iter()
            .zip(&self.triggers)
            .filter(|(heard, _)| !heard.is_empty())
            .map(|(mut heard, trigger)| {
                heard.sort_unstable();
                FanOut {
                    due_ns: trigger.due_ns,
                    watchers: heard.len() as u32,
                    first_ns: heard[0],
                    median_ns: heard[(heard.len() - 1) / 2],
                    last_ns: heard[heard.len() - 1],
                }
            })
            .collect();
        fan_outs.sort_unstable_by_key(|fan_out| fan_out.due_ns);
        Watching { counts: self.counts, fan_outs, notifications: recorder.finish() }
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
            let watch = |key| Watch { key, version: 0, arming: Arming::Idle, seen: false };
            all.push(Watcher {
                group: number as u16,
                kind: group.kind,
                subtree: group.on == WatchOn::Subtree,
                watches: keys.into_iter().map(watch).collect(),
                wanted: false,
                queue: Default::default(),
                by_path: FxHashMap::default(),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(key: u64, version: i32, due_ns: u64) -> Trigger {
        Trigger { key, version, phase: 0, due_ns, sent_ns: due_ns + 1 }
    }

    #[test]
    fn deliveries_find_their_writes_whatever_the_order() {
        let log = Log {
            triggers: vec![trigger(1, 2, 200), trigger(1, 1, 100), trigger(2, 1, 100)],
            deliveries: vec![
                Delivery { key: 1, version: 2, at_ns: 260 },
                Delivery { key: 1, version: 1, at_ns: 130 },
                Delivery { key: 1, version: 1, at_ns: 150 },
                Delivery { key: 7, version: 1, at_ns: 150 },
            ],
            standing: vec![
                Standing { key: 1, version: 2, kind: WatchKind::Persistent },
                Standing { key: 1, version: 0, kind: WatchKind::Persistent },
                Standing { key: 1, version: 0, kind: WatchKind::OneShot },
                Standing { key: 2, version: 1, kind: WatchKind::OneShot },
            ],
            counts: WatchCounts::default(),
        };
        let watching = log.join();
        assert_eq!(watching.counts.unattributed, 1);
        assert_eq!(watching.counts.missing, 3, "two of the persistent watch, one of the one-shot");
        let fan_outs = &watching.fan_outs;
        assert_eq!(fan_outs.len(), 2);
        assert_eq!((fan_outs[0].watchers, fan_outs[0].first_ns, fan_outs[0].last_ns), (2, 30, 50));
        assert_eq!((fan_outs[1].watchers, fan_outs[1].median_ns), (1, 60));
        let key = crate::recorder::Key { phase: 0, op: Op::Notify, outcome: Outcome::Ok };
        assert_eq!(watching.notifications.totals[&key].response.len(), 3);
    }
}
