//! Bringing a learner up to date from the log files, when it is further behind than the leader's memory.
//!
//! Transactions are committed up to a zxid that the leader names (`upto`): only those are handed on. Before
//! the first packet goes out everything is looked at: the learner's place must be in the files, nothing may
//! be missing from there to `upto` (a hole would become the learner's, and Apache's 3.9.4 and later refuse one inside
//! an epoch; where a file breaks off and another epoch follows nobody can tell, so that counts as one), and it must not be more than the limit, beyond which a snapshot is cheaper. Then the
//! files are read a second time, record by record, in bounded memory.
//!
//! The files may be written to meanwhile, behind `upto`. A purge that takes one away between the two
//! readings is an error of the reader; the learner then connects again.
//!
//! Source: `LearnerHandler.syncFollower`, `ZKDatabase.getProposalsFromTxnLog`,
//! `calculateTxnLogSizeLimit`; reference §8.6. Apache measures whole files, padding included; this measures
//! the records that would be sent.

use super::{LogEnd, LogReader, RECORD_HEAD_BYTES, list, start_index};
use crate::storage::disk::{Dir, Disk, DiskFile};
use crate::storage::error::StorageError;
use crate::storage::recovery::follows;
use crate::storage::snapshot;
use crate::zab::sync::{Plan, plan_from_log};
use bytes::Bytes;
use std::collections::VecDeque;
use zoometry_wire::Zxid;

/// `zookeeper.snapshotSizeFactor`, Apache's default.
pub const SNAPSHOT_SIZE_FACTOR_DEFAULT: f64 = 0.33;

/// How the log files bring a learner up to date.
#[derive(Debug)]
pub enum LogSync<D: Disk> {
    /// DIFF, then these.
    Diff(LogRange<D>),
    /// TRUNC, then these.
    Trunc {
        /// The last transaction that the learner keeps.
        to: Zxid,
        /// What follows.
        then: LogRange<D>,
    },
    /// They do not: it takes a snapshot.
    Snap(WhySnap),
}

/// Why the log files do not serve; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WhySnap {
    /// `zookeeper.snapshotSizeFactor` is negative, or there is no snapshot to compare with.
    #[error("synchronising from the log files is off")]
    Off,
    /// More than the limit.
    #[error("the log files from there on are longer than the limit of {limit_bytes} bytes")]
    TooLong {
        /// The limit.
        limit_bytes: u64,
    },
    /// The learner's last transaction is before the files, or of a history that they do not know.
    #[error("the log files do not hold its place")]
    PlaceUnknown,
    /// Transactions are missing.
    #[error("the log files have a hole between {before} and {after}")]
    Hole {
        /// Last one before it.
        before: Zxid,
        /// First one behind it.
        after: Zxid,
    },
    /// The files end too early: a state that came as a snapshot, or a disk that has not caught up.
    #[error("the log files do not reach to where the memory goes on")]
    EndsEarly,
}

/// How many bytes of log are worth sending instead of a snapshot: `factor` times the newest snapshot's
/// length. `None`: none, always a snapshot.
pub fn size_limit<D: Disk>(disk: &D, factor: f64) -> Result<Option<u64>, StorageError> {
    if factor.is_nan() || factor < 0.0 {
        return Ok(None);
    }
    let Some(newest) = snapshot::list(disk)?.into_iter().next() else { return Ok(None) };
    let len = disk.open(Dir::Snap, &newest.name).and_then(|file| file.len());
    let len = len.map_err(StorageError::io("open", disk.describe(Dir::Snap, &newest.name)))?;
    Ok(Some((len as f64 * factor) as u64))
}

/// How a learner whose last zxid is `learner` is brought up to `upto`, a transaction that is committed.
/// `limit_bytes` is what [`size_limit`] says.
pub fn log_since<D: Disk>(
    disk: &D,
    learner: Zxid,
    upto: Zxid,
    limit_bytes: Option<u64>,
) -> Result<LogSync<D>, StorageError> {
    let Some(limit_bytes) = limit_bytes else { return Ok(LogSync::Snap(WhySnap::Off)) };
    let logs = list(disk)?;
    let mut range = LogRange::new(disk, &logs[start_index(&logs, learner)..], Zxid(0), upto);
    let (mut known, mut last, mut txns, mut bytes) = (None, None, 0, 0);
    let mut first = None;
    while let Some((zxid, payload)) = range.next().transpose()? {
        if zxid <= learner {
            known = Some(zxid);
        } else {
            first.get_or_insert(zxid);
            let is_sure =
                |last: Zxid| follows(last, zxid) && !(range.broke_off && last.epoch() != zxid.epoch());
            if let Some(before) = last.filter(|last| !is_sure(*last)) {
                return Ok(LogSync::Snap(WhySnap::Hole { before, after: zxid }));
            }
            txns += 1;
            bytes += (RECORD_HEAD_BYTES + payload.len() + 1) as u64;
            if bytes > limit_bytes {
                return Ok(LogSync::Snap(WhySnap::TooLong { limit_bytes }));
            }
        }
        last = Some(zxid);
        range.broke_off = false;
    }
    if last != Some(upto) {
        return Ok(LogSync::Snap(WhySnap::EndsEarly));
    }
    let range_from =
        |from| LogRange { txns, bytes, ..LogRange::new(disk, &logs[start_index(&logs, from)..], from, upto) };
    Ok(match plan_from_log(learner, known, first) {
        Plan::Diff { from } => LogSync::Diff(range_from(from)),
        Plan::Trunc { to } => LogSync::Trunc { to, then: range_from(to) },
        Plan::Snap | Plan::FromLog { .. } => LogSync::Snap(WhySnap::PlaceUnknown),
    })
}

/// The transactions of a part of the log: zxid and payload, oldest first. Ends after an error.
pub struct LogRange<D: Disk> {
    disk: D,
    names: VecDeque<String>,
    reader: Option<LogReader<D::File>>,
    last: Zxid,
    upto: Zxid,
    txns: u64,
    bytes: u64,
    /// A file has ended inside a record, or has no header, since this was last cleared.
    broke_off: bool,
    ended: bool,
}

impl<D: Disk> LogRange<D> {
    /// What lies behind `from`, up to and with `upto`.
    fn new(disk: &D, logs: &[(Zxid, String)], from: Zxid, upto: Zxid) -> Self {
        let names = logs.iter().map(|(_, name)| name.clone()).collect();
        Self {
            disk: disk.clone(),
            names,
            reader: None,
            last: from,
            upto,
            txns: 0,
            bytes: 0,
            broke_off: false,
            ended: false,
        }
    }

    /// How many transactions a learner is sent.
    pub fn txns(&self) -> u64 {
        self.txns
    }

    /// How many bytes of the log they are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn step(&mut self) -> Result<Option<(Zxid, Bytes)>, StorageError> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(name) = self.names.pop_front() else { return Ok(None) };
                self.reader = Some(LogReader::open(&self.disk, &name)?);
                continue;
            };
            let Some(entry) = reader.next_entry()? else {
                self.broke_off |= reader.end() != Some(LogEnd::Clean);
                self.reader = None;
                continue;
            };
            let zxid = entry.record.header.zxid;
            if zxid > self.upto {
                return Ok(None);
            }
            // A file that begins again before the end of the one before it says nothing new.
            if zxid > self.last {
                self.last = zxid;
                return Ok(Some((zxid, entry.payload)));
            }
        }
    }
}

impl<D: Disk> std::fmt::Debug for LogRange<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogRange").field("upto", &self.upto).field("txns", &self.txns).finish_non_exhaustive()
    }
}

impl<D: Disk> Iterator for LogRange<D> {
    type Item = Result<(Zxid, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::mem::MemDisk;
    use crate::storage::history::{all_upto, log_range, payload, write_snapshot};
    use crate::storage::log::{LogOptions, SyncMode, TxnLog};

    const SMALL: LogOptions =
        LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };
    const NO_LIMIT: Option<u64> = Some(u64::MAX);

    const fn at(epoch: i64, counter: i64) -> i64 {
        epoch << 32 | counter
    }

    /// 1:5 … 1:9 | 2:1 2:2, 4:1 … 4:6, in two files of their own for the last epoch.
    fn directory() -> (MemDisk, TxnLog<MemDisk>) {
        let disk = MemDisk::new();
        let mut log = TxnLog::new(disk.clone(), SMALL);
        for (from, to) in [(at(1, 5), at(1, 9)), (at(2, 1), at(2, 2)), (at(4, 1), at(4, 3))] {
            log_range(&mut log, from, to).expect("log");
        }
        log.roll().expect("roll");
        log_range(&mut log, at(4, 4), at(4, 6)).expect("log");
        (disk, log)
    }

    #[derive(Debug, PartialEq)]
    enum Got {
        Diff(Vec<i64>),
        Trunc(i64, Vec<i64>),
        Snap(WhySnap),
    }

    fn collect(range: LogRange<MemDisk>) -> Vec<i64> {
        let all = range.map(|item| {
            let (zxid, bytes) = item.expect("read");
            assert_eq!(bytes, payload(zxid));
            zxid.0
        });
        all.collect()
    }

    fn since(disk: &MemDisk, learner: i64, upto: i64, limit: Option<u64>) -> Got {
        match log_since(disk, Zxid(learner), Zxid(upto), limit).expect("read") {
            LogSync::Diff(range) => Got::Diff(collect(range)),
            LogSync::Trunc { to, then } => Got::Trunc(to.0, collect(then)),
            LogSync::Snap(why) => Got::Snap(why),
        }
    }

    #[test]
    fn every_place_of_a_learner_has_its_answer() {
        let (disk, _log) = directory();
        let last = at(4, 5);
        let four: Vec<i64> = (1..=5).map(|counter| at(4, counter)).collect();
        let behind = |before: &[i64]| before.iter().copied().chain(four.clone()).collect::<Vec<_>>();
        let cases = [
            (at(4, 4), Got::Diff(vec![last])),
            (at(2, 2), Got::Diff(four.clone())),
            (at(1, 9), Got::Diff(behind(&[at(2, 1), at(2, 2)]))),
            (at(2, 0), Got::Diff(behind(&[at(2, 1), at(2, 2)]))),
            (at(3, 0), Got::Diff(four.clone())),
            (at(2, 7), Got::Trunc(at(2, 2), four.clone())),
            (at(1, 11), Got::Trunc(at(1, 9), behind(&[at(2, 1), at(2, 2)]))),
            (at(3, 7), Got::Snap(WhySnap::PlaceUnknown)),
            (at(1, 4), Got::Snap(WhySnap::PlaceUnknown)),
            (at(1, 0), Got::Snap(WhySnap::PlaceUnknown)),
            (at(0, 0), Got::Snap(WhySnap::PlaceUnknown)),
        ];
        for (learner, expected) in cases {
            assert_eq!(since(&disk, learner, last, NO_LIMIT), expected, "a learner at {}", Zxid(learner));
        }
    }

    #[test]
    fn an_empty_learner_is_served_by_logs_from_the_very_beginning() {
        let disk = MemDisk::new();
        log_range(&mut TxnLog::new(disk.clone(), SMALL), 1, 9).expect("log");
        assert_eq!(since(&disk, 0, 9, NO_LIMIT), Got::Diff((1..=9).collect()));
    }

    #[test]
    fn the_files_must_reach_to_the_end_without_a_hole() {
        let (disk, mut log) = directory();
        assert_eq!(since(&disk, at(2, 1), at(4, 7), NO_LIMIT), Got::Snap(WhySnap::EndsEarly));
        assert_eq!(since(&MemDisk::new(), at(2, 1), at(4, 7), NO_LIMIT), Got::Snap(WhySnap::EndsEarly));
        log.continue_from(Zxid(at(4, 8))).expect("roll");
        log_range(&mut log, at(4, 9), at(4, 12)).expect("log");
        let hole = WhySnap::Hole { before: Zxid(at(4, 6)), after: Zxid(at(4, 9)) };
        assert_eq!(since(&disk, at(2, 1), at(4, 12), NO_LIMIT), Got::Snap(hole));
        assert_eq!(since(&disk, at(4, 10), at(4, 12), NO_LIMIT), Got::Diff(vec![at(4, 11), at(4, 12)]));
        // Right behind the learner's place there may be no hole either.
        assert_eq!(since(&disk, at(4, 6), at(4, 12), NO_LIMIT), Got::Snap(hole));
        // What was appended and is not committed stays here.
        assert_eq!(since(&disk, at(4, 4), at(4, 6), NO_LIMIT), Got::Diff(vec![at(4, 5), at(4, 6)]));
    }

    #[test]
    fn a_file_that_breaks_off_before_another_epoch_serves_nobody() {
        let disk = MemDisk::new();
        for (from, to) in [(at(1, 1), at(1, 9)), (at(2, 1), at(2, 4))] {
            log_range(&mut TxnLog::new(disk.clone(), SMALL), from, to).expect("log");
        }
        let behind: Vec<i64> = (6..=9).map(|n| at(1, n)).chain((1..=4).map(|n| at(2, n))).collect();
        assert_eq!(since(&disk, at(1, 5), at(2, 4), NO_LIMIT), Got::Diff(behind));
        let mut reader = LogReader::open(&disk, "log.100000001").expect("open");
        (0..7).for_each(|_| drop(reader.next_entry().expect("read")));
        let end = reader.offset() as usize;
        disk.edit(Dir::Log, "log.100000001", |bytes| bytes[end - 1] ^= 1);
        let hole = WhySnap::Hole { before: Zxid(at(1, 6)), after: Zxid(at(2, 1)) };
        assert_eq!(since(&disk, at(1, 5), at(2, 4), NO_LIMIT), Got::Snap(hole));
        // Behind it nothing is in doubt.
        assert_eq!(
            since(&disk, at(2, 1), at(2, 4), NO_LIMIT),
            Got::Diff((2..=4).map(|n| at(2, n)).collect())
        );
    }

    #[test]
    fn more_than_the_limit_is_a_snapshot() {
        let (disk, _log) = directory();
        let record = |zxid: i64| payload(Zxid(zxid)).len() as u64 + 13;
        let needed = record(at(4, 5)) + record(at(4, 6));
        let of = |limit| since(&disk, at(4, 4), at(4, 6), limit);
        assert_eq!(of(Some(needed)), Got::Diff(vec![at(4, 5), at(4, 6)]));
        assert_eq!(of(Some(needed - 1)), Got::Snap(WhySnap::TooLong { limit_bytes: needed - 1 }));
        assert_eq!(of(None), Got::Snap(WhySnap::Off));
        assert_eq!(size_limit(&disk, 0.33).expect("list"), None);
        let older = write_snapshot(&disk, &all_upto(100)).expect("snapshot");
        let newer = write_snapshot(&disk, &all_upto(200)).expect("snapshot");
        let len = |name: &str| disk.contents(Dir::Snap, name).expect("the file").len() as f64;
        assert!(len(&newer) > len(&older));
        assert_eq!(size_limit(&disk, 0.33).expect("list"), Some((len(&newer) * 0.33) as u64));
        assert_eq!(size_limit(&disk, -1.0).expect("list"), None);
        assert_eq!(size_limit(&disk, f64::NAN).expect("list"), None);
    }

    #[test]
    fn a_file_that_goes_between_the_two_readings_is_an_error_with_its_name() {
        let (disk, _log) = directory();
        let LogSync::Diff(mut range) =
            log_since(&disk, Zxid(at(2, 1)), Zxid(at(4, 5)), NO_LIMIT).expect("read")
        else {
            panic!("the files serve")
        };
        disk.remove(Dir::Log, "log.400000004").expect("remove");
        let error = range.find_map(Result::err).expect("a file is missing").to_string();
        assert!(error.contains("mem/log.400000004"), "{error}");
        assert!(range.next().is_none());
    }
}
