//! What ZooKeeper promises every client, and how often a run saw it kept and broken.
//!
//! One table ([`Promise::ALL`]) names the promises for everything that speaks of them: expectations, the terminal, the report,
//! `manifest.json` and the exit code. Where each is checked: `driver/views.rs` (values, reads, lists), `driver/arming.rs` (watches),
//! `session.rs` (order, identity), `driver/prepare.rs` (deletes, lists of what the load created).
//!
//! Acknowledged writes and ephemerals have counts of their own ([`CheckedWrites`](crate::results::CheckedWrites),
//! [`Ephemerals`](crate::driver::Ephemerals)).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A promise, named by what a breach of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Promise {
    /// A reply that was not the next one due on its connection.
    #[serde(rename = "replies_out_of_order")]
    OutOfOrder,
    /// A reply with a zxid below one that the session had seen.
    #[serde(rename = "zxids_gone_back")]
    ZxidWentBack,
    /// A session that came back and was given another id without being told that it had expired.
    #[serde(rename = "sessions_replaced")]
    SessionReplaced,
    /// A reply from an older state than the session had been shown.
    #[serde(rename = "stale_reads")]
    StaleRead,
    /// A value that is not the one written, or not the one that its version stands for.
    #[serde(rename = "wrong_values")]
    WrongValue,
    /// A list of children that lacks one, names one twice, or contradicts its Stat.
    #[serde(rename = "wrong_lists")]
    WrongList,
    /// A znode that is there after its deletion was acknowledged.
    #[serde(rename = "undone_deletes")]
    UndoneDelete,
    /// A change that an armed watch did not tell.
    #[serde(rename = "watches.dropped")]
    WatchDropped,
    /// An event without a change of its own: a one-shot watch that fired twice, a change told twice.
    #[serde(rename = "watches.doubled")]
    WatchDoubled,
    /// An event of a znode or a kind that the session never watched.
    #[serde(rename = "watches.unasked")]
    WatchUnasked,
}

impl Promise {
    /// Every promise, in the order in which they are shown.
    pub const ALL: [Promise; 10] = [
        Promise::OutOfOrder,
        Promise::ZxidWentBack,
        Promise::SessionReplaced,
        Promise::StaleRead,
        Promise::WrongValue,
        Promise::WrongList,
        Promise::UndoneDelete,
        Promise::WatchDropped,
        Promise::WatchDoubled,
        Promise::WatchUnasked,
    ];

    /// The name in expectations and in `manifest.json`.
    pub fn name(self) -> &'static str {
        match self {
            Promise::OutOfOrder => "replies_out_of_order",
            Promise::ZxidWentBack => "zxids_gone_back",
            Promise::SessionReplaced => "sessions_replaced",
            Promise::StaleRead => "stale_reads",
            Promise::WrongValue => "wrong_values",
            Promise::WrongList => "wrong_lists",
            Promise::UndoneDelete => "undone_deletes",
            Promise::WatchDropped => "watches.dropped",
            Promise::WatchDoubled => "watches.doubled",
            Promise::WatchUnasked => "watches.unasked",
        }
    }

    /// The promise itself, for the report.
    pub fn promised(self) -> &'static str {
        match self {
            Promise::OutOfOrder => "replies in the order of requests",
            Promise::ZxidWentBack => "zxids never go back within a session",
            Promise::SessionReplaced => "a session stays itself until it is told that it expired",
            Promise::StaleRead => "a session never reads an older state than it has seen",
            Promise::WrongValue => "a value is the one that was written with its version",
            Promise::WrongList => "lists of children are whole",
            Promise::UndoneDelete => "what was deleted stays deleted",
            Promise::WatchDropped => "an armed watch tells the change",
            Promise::WatchDoubled => "a change is told once",
            Promise::WatchUnasked => "only what is watched is told",
        }
    }

    /// What is checked, in the plural.
    pub fn checked_are(self) -> &'static str {
        match self {
            Promise::OutOfOrder | Promise::ZxidWentBack => "replies",
            Promise::SessionReplaced => "sessions",
            Promise::StaleRead => "reads and acknowledgements",
            Promise::WrongValue => "values",
            Promise::WrongList => "lists",
            Promise::UndoneDelete => "deletes",
            Promise::WatchDropped | Promise::WatchDoubled | Promise::WatchUnasked => "armed watches",
        }
    }

    /// The same of one, for "no … ".
    pub fn checked_is(self) -> &'static str {
        match self {
            Promise::OutOfOrder | Promise::ZxidWentBack => "reply came",
            Promise::SessionReplaced => "session was opened",
            Promise::StaleRead => "read or acknowledgement was compared",
            Promise::WrongValue => "value was checked",
            Promise::WrongList => "list was checked",
            Promise::UndoneDelete => "delete was acknowledged",
            Promise::WatchDropped | Promise::WatchDoubled | Promise::WatchUnasked => "watch was armed",
        }
    }

    /// The promise of that [name](Promise::name).
    pub fn of_name(name: &str) -> Option<Promise> {
        Promise::ALL.into_iter().find(|promise| promise.name() == name)
    }
}

/// How one promise was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// So many times it was looked at.
    pub checked: u64,
    /// So many times it was broken.
    pub broken: u64,
    /// The first breach, in words.
    pub first: Option<String>,
}

/// All promises of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Promises {
    records: [Record; Promise::ALL.len()],
    /// Values that were read and are too short for a mark, so that only version, length and filling could be checked.
    pub short_values: u64,
    /// Reads of keys beyond the table of versions, of which only the value could be checked.
    pub untracked_reads: u64,
}

/// [`Promises`] as they stand in `manifest.json`.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    records: BTreeMap<Promise, Record>,
    short_values: u64,
    untracked_reads: u64,
}

impl From<Stored> for Promises {
    fn from(mut stored: Stored) -> Self {
        let records = Promise::ALL.map(|promise| stored.records.remove(&promise).unwrap_or_default());
        let Stored { short_values, untracked_reads, .. } = stored;
        Promises { records, short_values, untracked_reads }
    }
}

impl From<Promises> for Stored {
    fn from(promises: Promises) -> Self {
        let Promises { records, short_values, untracked_reads } = promises;
        Stored { records: Promise::ALL.into_iter().zip(records).collect(), short_values, untracked_reads }
    }
}

impl Promises {
    /// What is known of one promise.
    pub fn of(&self, promise: Promise) -> &Record {
        &self.records[promise as usize]
    }

    /// All of them, in the order of [`Promise::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Promise, &Record)> {
        Promise::ALL.into_iter().zip(&self.records)
    }

    /// Those that were broken.
    pub fn broken(&self) -> impl Iterator<Item = (Promise, &Record)> {
        self.iter().filter(|(_, record)| record.broken > 0)
    }

    /// The promise was looked at `times` more.
    #[inline]
    pub(crate) fn checked(&mut self, promise: Promise, times: u64) {
        self.records[promise as usize].checked += times;
    }

    /// The promise was broken `times` more, as `how` says of the first time.
    #[cold]
    pub(crate) fn broke(&mut self, promise: Promise, times: u64, how: impl FnOnce() -> String) {
        let record = &mut self.records[promise as usize];
        record.broken += times;
        if times > 0 && record.first.is_none() {
            record.first = Some(how());
        }
    }

    /// Adds another part of the same run.
    pub(crate) fn merge(&mut self, other: Promises) {
        for (record, theirs) in self.records.iter_mut().zip(other.records) {
            record.checked += theirs.checked;
            record.broken += theirs.broken;
            record.first = record.first.take().or(theirs.first);
        }
        self.short_values += other.short_values;
        self.untracked_reads += other.untracked_reads;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_everywhere() {
        for (at, promise) in Promise::ALL.into_iter().enumerate() {
            assert_eq!(promise as usize, at, "{promise:?}");
            assert_eq!(Promise::of_name(promise.name()), Some(promise));
            assert_eq!(serde_json::to_value(promise).unwrap(), promise.name());
        }
    }

    #[test]
    fn manifests_give_back_what_was_written() {
        let mut promises = Promises { short_values: 3, ..Default::default() };
        promises.checked(Promise::StaleRead, 7);
        promises.broke(Promise::StaleRead, 2, || "first".into());
        promises.broke(Promise::StaleRead, 1, || "second".into());
        let text = serde_json::to_string(&promises).unwrap();
        assert_eq!(serde_json::from_str::<Promises>(&text).unwrap(), promises);
        let record = Record { checked: 7, broken: 3, first: Some("first".into()) };
        assert_eq!(promises.of(Promise::StaleRead), &record);
        assert_eq!(promises.broken().count(), 1);
    }
}
