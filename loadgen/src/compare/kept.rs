//! What the cluster had promised, and what became of it: counts, which need no statistics.

use super::sides::{Loaded, LoadedRun};
use crate::promises::Promise;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How often it happened.
    pub count: u64,
    /// Of how many, where that is known.
    pub of: Option<u64>,
}

/// One thing that is counted, over all runs of each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// In words.
    pub what: &'static str,
    /// Whether one is one too many.
    pub is_promise: bool,
    /// Per side; `None` where no run looked.
    pub sides: Vec<Option<Tally>>,
}

type Count = (&'static str, bool, fn(&LoadedRun) -> Option<Tally>);

const COUNTS: [Count; 7] = [
    ("acknowledged writes lost", true, |one| {
        one.run.manifest.checked_writes.map(|writes| of(writes.lost, writes.checked))
    }),
    ("ephemerals lost", true, |one| {
        let ephemerals = one.run.manifest.checks.as_ref()?.ephemerals.clone();
        (ephemerals.checked > 0).then(|| of(ephemerals.lost, ephemerals.checked))
    }),
    ("changes that no watch was armed for", false, |one| {
        let watches = &one.run.manifest.checks.as_ref()?.watches;
        (watches.armed > 0).then(|| Tally { count: watches.coalesced + watches.while_away, of: None })
    }),
    ("operations failed", false, |one| one.summary.whole.all().map(|all| of(all.errors, all.offered))),
    ("operations missed", false, |one| one.summary.whole.all().map(|all| of(all.missed, all.offered))),
    ("sessions that lost their connection", false, |one| {
        one.summary.failover.as_ref().map(|failover| of(failover.sessions.lost, sessions(one)))
    }),
    ("sessions expired", false, |one| {
        one.summary.failover.as_ref().map(|failover| of(failover.sessions.expired, sessions(one)))
    }),
];

fn of(count: u64, of: u64) -> Tally {
    Tally { count, of: Some(of) }
}

fn sessions(one: &LoadedRun) -> u64 {
    one.run.manifest.connections.values().map(|n| u64::from(*n)).sum()
}

/// Everything that some run counted.
pub(super) fn kept(sides: &[Loaded]) -> Vec<Kept> {
    let counts = COUNTS.into_iter().map(|(what, is_promise, count)| row(sides, what, is_promise, &count));
    let promises = Promise::ALL.into_iter().map(|promise| {
        row(sides, promise.name(), true, &|one| {
            let record = one.run.manifest.checks.as_ref()?.promises.of(promise);
            (record.checked > 0).then(|| of(record.broken, record.checked))
        })
    });
    counts.chain(promises).filter(|row| row.sides.iter().any(Option::is_some)).collect()
}

fn row(
    sides: &[Loaded],
    what: &'static str,
    is_promise: bool,
    count: &dyn Fn(&LoadedRun) -> Option<Tally>,
) -> Kept {
    let sum = |side: &Loaded| {
        side.runs
            .iter()
            .filter_map(count)
            .reduce(|a, b| Tally { count: a.count + b.count, of: a.of.zip(b.of).map(|(a, b)| a + b) })
    };
    Kept { what, is_promise, sides: sides.iter().map(sum).collect() }
}
