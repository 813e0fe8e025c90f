//! A directory → the newest state it holds.
//!
//! The newest snapshot that can be read, and the log behind it. Invariants: everything that was acknowledged
//! as durable is in the result, or the result names the [`Damage`]; what was not acknowledged may be in it; nothing is
//! guessed. A torn tail ends its file, wherever that file stands in the order, and so does a damaged record; what
//! is behind is replayed from the next file on, so that the end of the log is known. An unreadable directory and
//! logs without a beginning are errors. Odd things that do not matter come back as [`Warning`]s.
//!
//! A snapshot is fuzzy, so transactions that it already holds are applied again: that is the state's to
//! tolerate ([`Restore::replay`] cannot fail). Files stream by; memory is the state's and one item's.
//!
//! What this does not do: choose what to do about damage, drop dead ephemerals, take the first snapshot (the
//! server does, right after; in a fresh directory that is `snapshot.0`).
//!
//! Source: `P/FileTxnSnapLog.java`, `P/FileSnap.java`; reference §9.5.

use super::disk::{Dir, Disk};
use super::error::StorageError;
use super::install;
use super::log::{self, LogEnd, LogEntry, LogReader};
use super::names::{UNFINISHED, parse_installing, parse_log, parse_snapshot};
use super::snapshot::{self, Found, SnapshotEnd, SnapshotItem, SnapshotReader};
use crate::zab::history::HISTORY_DEFAULT;
use zoometry_wire::Zxid;

mod damage;
mod store;
use damage::{Continuity, Verdict};
pub use damage::{Damage, Proof};
pub use store::{RecoveredStore, recover_store};

/// At most so many snapshots are tried, newest first.
pub const SNAPSHOTS_TRIED_MAX: usize = 100;
/// At most so many warnings are kept; the first ones say it all.
pub const WARNINGS_MAX: usize = 100;

/// Whether recovery may tidy up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// The member's own start: unfinished files and empty log files are removed.
    #[default]
    Owner,
    /// Somebody looks: nothing is changed.
    ReadOnly,
}

/// How to read a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// `zookeeper.snapshot.trust.empty`: logs without a snapshot are taken to be complete.
    pub trust_empty: bool,
    /// Who asks.
    pub access: Access,
    /// `zookeeper.commitLogCount`: replayed transactions handed on, for learners that are a little behind.
    pub tail_limit: usize,
}

impl Default for RecoveryOptions {
    fn default() -> Self {
        Self { trust_empty: false, access: Access::default(), tail_limit: HISTORY_DEFAULT }
    }
}

/// Who builds the state while the files stream by.
pub trait Restore {
    /// What is built.
    type State;
    /// The state of a directory that holds nothing.
    fn empty(&mut self) -> Self::State;
    /// Builds a state from a snapshot's items. An error from the iterator must be handed back: recovery then
    /// goes on with the next older snapshot. So it does when the items do not make a state
    /// ([`StorageError::NotAState`]).
    fn load(
        &mut self,
        zxid: Zxid,
        items: &mut dyn Iterator<Item = Result<SnapshotItem, StorageError>>,
    ) -> Result<Self::State, StorageError>;
    /// The snapshot was read to its end, and this stood there.
    fn loaded(&mut self, state: &mut Self::State, end: &SnapshotEnd) {
        let _ = (state, end);
    }
    /// Applies a logged transaction; refusals by the state are its own affair (the snapshot is fuzzy). Says whether
    /// the state's digest is then the one that was logged, where that can be compared.
    fn replay(&mut self, state: &mut Self::State, entry: LogEntry) -> Option<bool>;
    /// Transactions are missing before the next one.
    fn skip(&mut self) {}
}

/// Something odd that did not prevent recovery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A snapshot could not be read; an older one was taken.
    #[error("{why}; went back to an older snapshot")]
    SnapshotSkipped {
        /// Why, with file and place.
        why: String,
    },
    /// A log file ends inside a record. Normal after a power failure or kill -9.
    #[error("{file} ends with an unfinished record at byte {offset}, which was never acknowledged; dropped")]
    TornTail {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
    },
    /// A log file without a header: its creation was cut short.
    #[error("{file} has no header, and so no transactions; ignored")]
    NoHeader {
        /// The file.
        file: String,
    },
    /// A record or a file is not what was written; the rest of the file is left out.
    #[error("{file} is damaged at byte {offset}: {what}; the rest of that file is left out")]
    Damaged {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Transactions are missing.
    #[error("transactions between {before} and {after} are missing: {file} goes on behind a hole")]
    Hole {
        /// Where the record behind the hole stands.
        file: String,
        /// Last zxid before it.
        before: Zxid,
        /// First zxid behind it.
        after: Zxid,
    },
    /// A log file repeats or goes back behind what was already replayed.
    #[error("{file} holds {zxid} behind {last}; skipped")]
    Backwards {
        /// The file.
        file: String,
        /// The one skipped.
        zxid: Zxid,
        /// The last one before it.
        last: Zxid,
    },
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovered<S> {
    /// The state, up to `last_zxid`.
    pub state: S,
    /// Last transaction in it.
    pub last_zxid: Zxid,
    /// The zxid of the snapshot it began with; `None` if there was none.
    pub snapshot: Option<Zxid>,
    /// What stood at the end of that snapshot.
    pub snapshot_end: SnapshotEnd,
    /// Transactions replayed.
    pub replayed: u64,
    /// What was odd; the first [`WARNINGS_MAX`].
    pub warnings: Vec<Warning>,
    /// The first place where transactions are missing: the state is wrong.
    pub damage: Option<Damage>,
    /// The state's digest has not been the logged one since this transaction, and is not at the end: the state is
    /// wrong, or who wrote the log has computed it wrongly.
    pub differs: Option<Zxid>,
}

impl<S> Recovered<S> {
    /// Whether there was nothing at all.
    pub fn is_fresh(&self) -> bool {
        self.snapshot.is_none() && self.last_zxid == Zxid(0)
    }
}

/// Reads the directory.
pub fn recover<D: Disk, R: Restore>(
    disk: &D,
    options: RecoveryOptions,
    restore: &mut R,
) -> Result<Recovered<R::State>, StorageError> {
    check_directories(disk)?;
    if options.access == Access::Owner {
        install::complete(disk)?;
        tidy(disk)?;
    }
    // Who may only look sees what the owner's recovery would make of it.
    let (logs, snapshots) = match install::pending(disk)? {
        Some(installing) => (Vec::new(), vec![installing]),
        None => (log::list(disk)?, snapshot::list(disk)?),
    };
    let (mut warnings, mut milestones) = (Vec::new(), Vec::new());
    let (damage, differs) = (None, None);
    let mut recovered = match newest_readable(disk, &snapshots, restore, &mut warnings, &mut milestones)? {
        Some((state, zxid, snapshot_end)) => {
            let snapshot = Some(zxid);
            Recovered {
                state,
                last_zxid: zxid,
                snapshot,
                snapshot_end,
                replayed: 0,
                warnings,
                damage,
                differs,
            }
        }
        None => {
            if let (Some((_, first)), false) = (logs.first(), options.trust_empty) {
                let dir = disk.describe(Dir::Log, "");
                return Err(StorageError::LogsWithoutSnapshot { dir, first: first.clone() });
            }
            Recovered {
                state: restore.empty(),
                last_zxid: Zxid(0),
                snapshot: None,
                snapshot_end: SnapshotEnd::default(),
                replayed: 0,
                warnings,
                damage,
                differs,
            }
        }
    };
    let start = log::start_index(&logs, recovered.last_zxid);
    let mut continuity = Continuity::new(milestones);
    for (_, name) in &logs[start..] {
        replay_file(disk, name, restore, &mut recovered, &mut continuity)?;
    }
    let Verdict { damage, differs } = continuity.finish(recovered.last_zxid);
    Ok(Recovered { damage, differs, ..recovered })
}

/// A log in the snapshot directory, or the reverse, says that zoo.cfg has changed sides.
fn check_directories<D: Disk>(disk: &D) -> Result<(), StorageError> {
    if !disk.is_split() {
        return Ok(());
    }
    let stray = |dir: Dir, is_stray: fn(&str) -> bool| -> Result<(), StorageError> {
        let names = disk.list(dir).map_err(StorageError::io("list", disk.describe(dir, "")))?;
        match names.iter().find(|name| is_stray(name)) {
            Some(name) => Err(StorageError::WrongDirectory { file: disk.describe(dir, name) }),
            None => Ok(()),
        }
    };
    stray(Dir::Snap, |name| parse_log(name).is_some())?;
    stray(Dir::Log, |name| parse_snapshot(name).is_some())
}

/// Removes what a crash left half made, including log files of no bytes, over which Apache's server does not
/// start before 3.9.3.
fn tidy<D: Disk>(disk: &D) -> Result<(), StorageError> {
    for dir in [Dir::Log, Dir::Snap] {
        let names = disk.list(dir).map_err(StorageError::io("list", disk.describe(dir, "")))?;
        for name in names {
            let unfinished = name.strip_prefix(UNFINISHED);
            let ours = unfinished.is_some_and(|rest| {
                parse_log(rest).is_some()
                    || parse_snapshot(rest).is_some()
                    || parse_installing(rest).is_some()
            });
            let empty_log = dir == Dir::Log && parse_log(&name).is_some() && is_empty(disk, &name)?;
            if ours || empty_log {
                disk.remove(dir, &name).map_err(StorageError::io("remove", disk.describe(dir, &name)))?;
            }
        }
    }
    Ok(())
}

fn is_empty<D: Disk>(disk: &D, name: &str) -> Result<bool, StorageError> {
    use super::disk::DiskFile;
    let opened = disk.open(Dir::Log, name).and_then(|file| file.is_empty());
    opened.map_err(StorageError::io("open", disk.describe(Dir::Log, name)))
}

/// The newest snapshot that reads completely; `None` if the directory has none. Newer ones that were complete once
/// become `milestones`; an epoch's beginning is none, as it says nothing about the transaction before it.
fn newest_readable<D: Disk, R: Restore>(
    disk: &D,
    snapshots: &[Found],
    restore: &mut R,
    warnings: &mut Vec<Warning>,
    milestones: &mut Vec<Zxid>,
) -> Result<Option<(R::State, Zxid, SnapshotEnd)>, StorageError> {
    let mut newest = None;
    let mut tried = 0;
    // Unfinished files (Apache writes in place) do not count among the hundred, as with Apache.
    for found in snapshots {
        let whole = snapshot::looks_whole(disk, found)?;
        if tried == SNAPSHOTS_TRIED_MAX {
            break;
        }
        tried += usize::from(whole);
        // Nothing can have been acknowledged before the first snapshot was whole.
        let needless = !whole && found.zxid == Zxid(0);
        match load(disk, restore, found) {
            Ok((state, end)) => return Ok(Some((state, found.zxid, end))),
            Err(error @ StorageError::CorruptSnapshot { .. }) => {
                let why = error.to_string();
                if !needless {
                    newest.get_or_insert_with(|| why.clone());
                }
                warn(warnings, Warning::SnapshotSkipped { why });
                if whole && found.zxid.counter() != 0 {
                    milestones.push(found.zxid);
                }
            }
            Err(other) => return Err(other),
        }
    }
    match newest {
        None => Ok(None),
        Some(newest) => {
            let dir = disk.describe(Dir::Snap, "");
            Err(StorageError::NoReadableSnapshot { tried: warnings.len(), dir, newest })
        }
    }
}

fn load<D: Disk, R: Restore>(
    disk: &D,
    restore: &mut R,
    found: &Found,
) -> Result<(R::State, SnapshotEnd), StorageError> {
    let mut reader = SnapshotReader::open(disk, &found.name)?;
    let mut state = restore.load(found.zxid, &mut reader).map_err(|error| match error {
        StorageError::NotAState { what } => reader.corrupt(what),
        other => other,
    })?;
    // The seals stand at the end: whatever the state took, the file is read through.
    for item in reader.by_ref() {
        item?;
    }
    let end = reader.end().unwrap_or_default();
    restore.loaded(&mut state, &end);
    Ok((state, end))
}

fn replay_file<D: Disk, R: Restore>(
    disk: &D,
    name: &str,
    restore: &mut R,
    recovered: &mut Recovered<R::State>,
    continuity: &mut Continuity,
) -> Result<(), StorageError> {
    let base = recovered.snapshot.unwrap_or(Zxid(0));
    let mut reader = match LogReader::open(disk, name) {
        Err(StorageError::CorruptLog { file, offset, what }) => {
            continuity.file_ended(&file, offset, Some(what.clone()));
            warn(&mut recovered.warnings, Warning::Damaged { file, offset, what });
            return Ok(());
        }
        opened => opened?,
    };
    let file = reader.described().to_owned();
    let mut previous = None;
    let broken = loop {
        let offset = reader.offset();
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(StorageError::CorruptLog { offset, what, .. }) => break Some((offset, what)),
            Err(error) => return Err(error),
        };
        let (zxid, last) = (entry.record.header.zxid, recovered.last_zxid);
        let before: Option<Zxid> = previous.replace(zxid);
        if zxid <= last {
            // Up to the snapshot's zxid this is what it holds already; behind it, a disorder.
            if zxid > base || before.is_some_and(|before| zxid <= before) {
                warn(&mut recovered.warnings, Warning::Backwards { file: file.clone(), zxid, last });
            }
            continue;
        }
        if !follows(last, zxid) {
            let hole = Warning::Hole { file: file.clone(), before: last, after: zxid };
            warn(&mut recovered.warnings, hole);
        }
        if continuity.next(last, zxid, &file, offset, before.is_none()) {
            restore.skip();
        }
        recovered.last_zxid = zxid;
        recovered.replayed += 1;
        let agrees = restore.replay(&mut recovered.state, entry);
        continuity.compared(zxid, agrees);
    };
    let end = broken.as_ref().map_or(reader.offset(), |(offset, _)| *offset);
    continuity.file_ended(&file, end, broken.as_ref().map(|(_, what)| what.clone()));
    let warning = match (broken, reader.end()) {
        (Some((offset, what)), _) => Warning::Damaged { file, offset, what },
        (None, Some(LogEnd::Torn)) => Warning::TornTail { file, offset: end },
        (None, Some(LogEnd::NoHeader | LogEnd::Empty)) => Warning::NoHeader { file },
        (None, Some(LogEnd::Clean) | None) => return Ok(()),
    };
    warn(&mut recovered.warnings, warning);
    Ok(())
}

/// Whether `next` may stand right behind `last`: the next counter, or the first of a later epoch.
pub(crate) fn follows(last: Zxid, next: Zxid) -> bool {
    next == last.next() || (next.epoch() > last.epoch() && next.counter() <= 1)
}

fn warn(warnings: &mut Vec<Warning>, warning: Warning) {
    if warnings.len() < WARNINGS_MAX {
        warnings.push(warning);
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
