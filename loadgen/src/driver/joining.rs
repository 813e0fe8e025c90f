//! Which event is about which write: joined while the load goes on, in bounded memory.
//!
//! A write is remembered for [`REMEMBERED_NS`] after it was first heard of, and at most [`WRITES_MAX`] of them; an event whose write's
//! acknowledgement does not come in that time cannot be attributed and is counted so.

use super::watching::{Delivery, FanOut, Heard, Standing, Trigger, WatchCounts, missed_by};
use crate::op::{Op, Outcome};
use crate::recorder::{Completion, Part, Recorder};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// So long events and their write's acknowledgement may be apart.
const REMEMBERED_NS: u64 = 60_000_000_000;
/// Writes that are remembered, at most; the oldest are forgotten first.
const WRITES_MAX: usize = 1 << 20;
/// When nobody has heard of a write for so long, those who have are told as a fan-out.
const QUIET_NS: u64 = 1_000_000_000;

/// A change: a key and the version that a write made of it.
type Change = (u64, i32);

/// A write, and who heard of it.
#[derive(Debug, Default)]
struct Write {
    trigger: Option<Trigger>,
    /// When, by watchers that are in no fan-out yet.
    heard: Vec<u64>,
}

/// Joins writes and events. See the module.
pub(crate) struct Join {
    writes: FxHashMap<Change, Write>,
    /// In the order in which they were first heard of, and when.
    order: VecDeque<(u64, Change)>,
    /// Writes with entries in `heard`.
    fresh: Vec<Change>,
    /// Not yet joined, because other workers may have heard earlier.
    pending: Vec<Delivery>,
    newest: FxHashMap<u64, i32>,
    recorder: Recorder,
    counts: WatchCounts,
}

impl Join {
    /// Nothing yet; intervals of this length.
    pub(crate) fn new(interval_ns: u64) -> Join {
        Join {
            writes: FxHashMap::default(),
            order: VecDeque::new(),
            fresh: Vec::new(),
            pending: Vec::new(),
            newest: FxHashMap::default(),
            recorder: Recorder::new(interval_ns),
            counts: WatchCounts::default(),
        }
    }

    /// Takes what a worker wrote and heard.
    pub(crate) fn add(&mut self, heard: Heard) {
        for trigger in heard.triggers {
            let newest = self.newest.entry(trigger.key).or_insert(trigger.version);
            *newest = (*newest).max(trigger.version);
            let change = (trigger.key, trigger.version);
            let write = Self::write(&mut self.writes, &mut self.order, change, trigger.sent_ns);
            write.trigger = Some(trigger);
            // Events that overtook the acknowledgement.
            for at_ns in &write.heard {
                record(&mut self.recorder, &trigger, *at_ns);
            }
        }
        self.pending.extend(heard.deliveries);
    }

    fn write<'w>(
        writes: &'w mut FxHashMap<Change, Write>,
        order: &mut VecDeque<(u64, Change)>,
        change: Change,
        at_ns: u64,
    ) -> &'w mut Write {
        writes.entry(change).or_insert_with(|| {
            order.push_back((at_ns, change));
            Write::default()
        })
    }

    /// Everything before `until_ns` has been added: gives back notifications as completions of [`Op::Notify`], and tells fan-outs.
    pub(crate) fn turn(&mut self, until_ns: u64, mut tell: impl FnMut(FanOut)) -> Part {
        self.pending.sort_unstable_by_key(|delivery| delivery.at_ns);
        let known = self.pending.partition_point(|delivery| delivery.at_ns < until_ns);
        for delivery in self.pending.drain(..known) {
            let change = (delivery.key, delivery.version);
            let write = Self::write(&mut self.writes, &mut self.order, change, delivery.at_ns);
            if write.heard.is_empty() {
                self.fresh.push(change);
            }
            write.heard.push(delivery.at_ns);
            if let Some(trigger) = &write.trigger {
                record(&mut self.recorder, trigger, delivery.at_ns);
            }
        }
        let quiet = |write: &Write| write.heard.last().is_none_or(|at_ns| at_ns + QUIET_NS < until_ns);
        self.fresh.retain(|change| match self.writes.get_mut(change) {
            Some(write) if write.trigger.is_some() && quiet(write) => {
                write.tell(&mut tell);
                false
            }
            write => write.is_some(),
        });
        self.forget(until_ns, &mut tell);
        self.recorder.take(until_ns)
    }

    fn forget(&mut self, until_ns: u64, tell: &mut impl FnMut(FanOut)) {
        while let Some((at_ns, change)) = self.order.front().copied() {
            let full = self.order.len() > WRITES_MAX;
            if !full && at_ns.saturating_add(REMEMBERED_NS) > until_ns {
                return;
            }
            self.order.pop_front();
            let Some(mut write) = self.writes.remove(&change) else { continue };
            match write.trigger {
                Some(_) => write.tell(tell),
                None if full => self.counts.unlogged += write.heard.len() as u64,
                None => self.counts.unattributed += write.heard.len() as u64,
            }
        }
    }

    /// The run is over, and these watches are still armed: says what of the counts only is known now.
    pub(crate) fn finish(
        mut self,
        standing: &[Standing],
        mut tell: impl FnMut(FanOut),
    ) -> (Part, WatchCounts) {
        let part = self.turn(u64::MAX, &mut tell);
        for watch in standing {
            let behind = self.newest.get(&watch.key).map_or(0, |newest| i64::from(newest - watch.version));
            self.counts.missing += missed_by(watch.kind, behind);
        }
        (part, self.counts)
    }
}

fn record(recorder: &mut Recorder, trigger: &Trigger, done_ns: u64) {
    recorder.record(&Completion {
        phase: trigger.phase,
        op: Op::Notify,
        outcome: Outcome::Ok,
        due_ns: trigger.due_ns,
        sent_ns: trigger.sent_ns,
        done_ns,
        bytes: 0,
    });
}

impl Write {
    /// Tells who has heard since the last time.
    fn tell(&mut self, tell: &mut impl FnMut(FanOut)) {
        let (Some(trigger), false) = (&self.trigger, self.heard.is_empty()) else { return };
        let mut heard: Vec<u64> =
            self.heard.drain(..).map(|at_ns| at_ns.saturating_sub(trigger.due_ns)).collect();
        heard.sort_unstable();
        tell(FanOut {
            due_ns: trigger.due_ns,
            watchers: heard.len() as u32,
            first_ns: heard[0],
            median_ns: heard[(heard.len() - 1) / 2],
            last_ns: heard[heard.len() - 1],
        });
        self.heard = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{INTERVAL_NS, Recording};
    use crate::spec::WatchKind;

    const SECOND: u64 = 1_000_000_000;

    fn trigger(key: u64, version: i32, due_ns: u64) -> Trigger {
        Trigger { key, version, phase: 0, due_ns, sent_ns: due_ns + 1 }
    }

    fn delivery(key: u64, version: i32, at_ns: u64) -> Delivery {
        Delivery { key, version, at_ns }
    }

    #[test]
    fn deliveries_find_their_writes_whatever_the_order() {
        let mut join = Join::new(INTERVAL_NS);
        let triggers = vec![trigger(1, 2, 200), trigger(1, 1, 100), trigger(2, 1, 100)];
        let deliveries =
            vec![delivery(1, 2, 260), delivery(1, 1, 130), delivery(1, 1, 150), delivery(7, 1, 150)];
        join.add(Heard { triggers: Vec::new(), deliveries });
        let mut parts = vec![join.turn(SECOND, |_| panic!("no write is acknowledged"))];
        join.add(Heard { triggers, deliveries: Vec::new() });
        let standing = [
            Standing { key: 1, version: 2, kind: WatchKind::Persistent },
            Standing { key: 1, version: 0, kind: WatchKind::Persistent },
            Standing { key: 1, version: 0, kind: WatchKind::OneShot },
            Standing { key: 2, version: 1, kind: WatchKind::OneShot },
        ];
        let mut fan_outs = Vec::new();
        let (part, counts) = join.finish(&standing, |fan_out| fan_outs.push(fan_out));
        parts.push(part);
        assert_eq!(counts.unattributed, 1);
        assert_eq!(counts.missing, 3, "two of the persistent watch, one of the one-shot");
        fan_outs.sort_by_key(|fan_out| fan_out.due_ns);
        assert_eq!(fan_outs.len(), 2);
        assert_eq!((fan_outs[0].watchers, fan_outs[0].first_ns, fan_outs[0].last_ns), (2, 30, 50));
        assert_eq!((fan_outs[1].watchers, fan_outs[1].median_ns), (1, 60));
        let key = crate::recorder::Key { phase: 0, op: Op::Notify, outcome: Outcome::Ok };
        assert_eq!(Recording::merged(INTERVAL_NS, parts).totals[&key].response.len(), 3);
    }

    /// An hour of writes that two watchers hear of: what is told is complete, what is kept does not grow.
    #[test]
    fn memory_does_not_grow_with_time() {
        let mut join = Join::new(INTERVAL_NS);
        let mut heard = 0;
        for second in 0..3_600u64 {
            let at_ns = second * SECOND;
            let triggers = vec![trigger(1, second as i32, at_ns)];
            let deliveries =
                vec![delivery(1, second as i32, at_ns + 5), delivery(1, second as i32, at_ns + 6)];
            join.add(Heard { triggers, deliveries });
            join.turn(at_ns + SECOND, |fan_out| heard += fan_out.watchers);
            assert!(join.writes.len() <= 62 && join.order.len() <= 62 && join.pending.is_empty());
            assert!(join.fresh.len() <= 3, "{}", join.fresh.len());
        }
        let (_, counts) = join.finish(&[], |fan_out| heard += fan_out.watchers);
        assert_eq!((heard, counts.unattributed), (7_200, 0));
    }
}
