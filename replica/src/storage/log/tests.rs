use super::*;
use crate::storage::disk::mem::{MemDisk, MemFile};
use crate::storage::history::{
    Collect, all_upto, log_range, payload, recover_seen, write_fuzzy_snapshot, write_snapshot,
};
use crate::storage::recovery::{RecoveryOptions, Warning, recover};
use proptest::prelude::*;

const SMALL: LogOptions = LogOptions { prealloc_bytes: 8192, sync: SyncMode::Always, roll_at_bytes: None };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    digits.chunks(2).map(pair).collect()
}

fn reader(disk: &MemDisk, name: &str) -> LogReader<MemFile> {
    LogReader::open(disk, name).expect("open")
}

fn read_all(disk: &MemDisk, name: &str) -> Result<(Vec<Zxid>, LogEnd), StorageError> {
    let mut reader = LogReader::open(disk, name)?;
    let mut zxids = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        zxids.push(entry.record.header.zxid);
    }
    Ok((zxids, reader.end().expect("ended")))
}

/// The reference's §14: one create, written by Apache ZooKeeper 3.9.5.
#[test]
fn a_log_file_is_apaches_byte_for_byte() {
    let create = hex(
        "0100000000000005 00000001 0000000100000002 0000018bcfe56800 00000001 00000002 2f61 00000002 6869 \
         00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00 00000001 00000002 00000002099bf4ba",
    );
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log.append(Zxid(0x1_0000_0002), &create).expect("append");
    let committed = log.commit().expect("commit");
    assert_eq!(committed, Committed { upto: Zxid(0x1_0000_0002), records: 1, bytes: 101 });
    let mut expected = hex("5a4b4c47 00000002 0000000000000000 000000006ecb0b4d 00000058");
    expected.extend_from_slice(&create);
    expected.push(0x42);
    let written = disk.contents(Dir::Log, "log.100000002").expect("the file");
    assert_eq!(written[..expected.len()], expected);
    assert!(written[expected.len()..].iter().all(|byte| *byte == 0), "padding is zeros");
    let entry = reader(&disk, "log.100000002").next_entry().expect("read").expect("one record");
    assert_eq!(entry.payload, create);
    assert_eq!(entry.record.header.session.0, 0x0100_0000_0000_0005);
}

#[test]
fn a_first_file_has_apaches_length() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), LogOptions::default());
    log_range(&mut log, 1, 1).expect("log");
    assert_eq!(disk.contents(Dir::Log, "log.1").expect("the file").len(), 67_108_880);
}

#[test]
fn padding_keeps_ahead_and_goes_with_the_roll() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    for zxid in 1..=600 {
        log_range(&mut log, zxid, zxid).expect("log");
        let len = disk.contents(Dir::Log, "log.1").expect("the file").len() as u64;
        assert!(len >= log.file_bytes() + 4096, "{len} is not ahead of {}", log.file_bytes());
        assert!(len <= log.file_bytes() + 8192 + 4096 + 16, "{len} is far ahead of {}", log.file_bytes());
    }
    let records = log.file_bytes();
    log.roll().expect("roll");
    assert_eq!(disk.contents(Dir::Log, "log.1").expect("the file").len() as u64, records);
    log_range(&mut log, 601, 602).expect("log");
    assert_eq!(read_all(&disk, "log.1").expect("read").0.len(), 600);
    assert_eq!(read_all(&disk, "log.259").expect("read"), (vec![Zxid(601), Zxid(602)], LogEnd::Clean));
}

#[test]
fn a_file_rolls_at_its_limit() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), LogOptions { roll_at_bytes: Some(300), ..SMALL });
    for zxid in 1..=20 {
        log_range(&mut log, zxid, zxid).expect("log");
    }
    let logs = list(&disk).expect("list");
    assert!(logs.len() > 3, "{logs:?}");
    assert_eq!(recover_with_empty_snapshot(&disk), all_upto(20));
}

fn recover_with_empty_snapshot(disk: &MemDisk) -> std::collections::BTreeSet<i64> {
    let options = RecoveryOptions { trust_empty: true, ..RecoveryOptions::default() };
    recover(disk, options, &mut Collect).expect("recover").state
}

#[test]
fn transactions_must_come_in_order() {
    let mut log = TxnLog::new(MemDisk::new(), SMALL);
    log.append(Zxid(5), &payload(Zxid(5))).expect("append");
    assert!(matches!(
        log.append(Zxid(5), &payload(Zxid(5))),
        Err(StorageError::OutOfOrder { zxid: Zxid(5), last: Zxid(5) })
    ));
}

#[test]
fn an_empty_commit_touches_nothing() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    assert_eq!(log.commit().expect("commit"), Committed::default());
    log.roll().expect("roll");
    assert_eq!(disk.operations(), 0);
}

#[test]
fn without_force_sync_commits_do_not_sync() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), LogOptions { sync: SyncMode::Never, ..SMALL });
    log_range(&mut log, 1, 1).expect("log");
    let syncs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = syncs.clone();
    disk.on_sync(move |_| {
        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    log_range(&mut log, 2, 9).expect("log");
    assert_eq!(syncs.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(read_all(&disk, "log.1").expect("read").0.len(), 9);
}

/// Cut at every byte, a log reads to a prefix of what was written, and the reader says how it ended.
#[test]
fn every_prefix_of_a_log_is_a_prefix_of_its_transactions() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), LogOptions { prealloc_bytes: 0, ..SMALL });
    let mut ends = vec![HEADER_BYTES as u64];
    for zxid in 1..=12 {
        log_range(&mut log, zxid, zxid).expect("log");
        ends.push(log.file_bytes());
    }
    let whole = disk.contents(Dir::Log, "log.1").expect("the file");
    for cut in 0..=whole.len() {
        disk.edit(Dir::Log, "log.2", |bytes| *bytes = whole[..cut].to_vec());
        let (zxids, end) = read_all(&disk, "log.2").expect("a prefix is never damaged");
        let expected = ends.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
        assert_eq!(zxids, (1..=expected as i64).map(Zxid).collect::<Vec<_>>(), "cut at {cut}");
        let clean = ends.contains(&(cut as u64));
        match cut {
            0 => assert_eq!(end, LogEnd::Empty),
            1..HEADER_BYTES => assert_eq!(end, LogEnd::NoHeader, "cut at {cut}"),
            _ if clean => assert_eq!(end, LogEnd::Clean, "cut at {cut}"),
            // The first bytes of a checksum are zeros, like padding.
            _ => assert!(end == LogEnd::Torn || whole[cut - 1] == 0, "cut at {cut}: {end:?}"),
        }
    }
}

#[test]
fn damage_behind_an_intact_end_is_an_error_with_its_place() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 1, 1).expect("log");
    let second = log.file_bytes();
    log_range(&mut log, 2, 3).expect("log");
    disk.edit(Dir::Log, "log.1", |bytes| bytes[second as usize + 20] ^= 1);
    let error = read_all(&disk, "log.1").expect_err("damaged").to_string();
    assert!(error.contains("mem/log.1") && error.contains(&format!("at byte {second}")), "{error}");
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn a_wrong_end_byte_is_a_torn_tail() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 1, 2).expect("log");
    let end = log.file_bytes() as usize;
    // The checksum is wrong as well: the end byte decides.
    disk.edit(Dir::Log, "log.1", |bytes| {
        bytes[end - 1] = 0;
        bytes[end - 5] ^= 1;
    });
    assert_eq!(read_all(&disk, "log.1").expect("read"), (vec![Zxid(1)], LogEnd::Torn));
}

#[test]
fn impossible_lengths_are_errors_and_long_ones_cost_no_memory() {
    let disk = MemDisk::new();
    for (length, refused) in [(-2, true), (i32::MIN, true), (i32::MAX, true), (1 << 29, false)] {
        disk.edit(Dir::Log, "log.1", |bytes| {
            *bytes = hex("5a4b4c47 00000002 0000000000000000 0000000000000001");
            bytes.extend_from_slice(&i32::to_be_bytes(length));
        });
        let read = read_all(&disk, "log.1");
        assert_eq!(read.is_err(), refused, "{length}: {read:?}");
    }
}

#[test]
fn a_record_that_is_whole_and_unreadable_is_an_error() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    let mut unknown = payload(Zxid(1)).to_vec();
    unknown[31] = 99;
    log.append(Zxid(1), &unknown).expect("append");
    log.commit().expect("commit");
    let error = read_all(&disk, "log.1").expect_err("unknown type").to_string();
    assert!(
        error.contains("mem/log.1 is damaged at byte 16") && error.contains("transaction type"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_log_is_named() {
    let disk = MemDisk::new();
    disk.edit(Dir::Log, "log.1", |bytes| *bytes = b"these are not the bytes of a log".to_vec());
    let error = read_all(&disk, "log.1").expect_err("not a log").to_string();
    assert!(error.contains("mem/log.1") && error.contains("ZKLG"), "{error}");
}

#[test]
fn a_full_disk_is_said_in_plain_words() {
    let disk = MemDisk::new();
    disk.limit_space(Some(3000));
    let mut log = TxnLog::new(disk.clone(), SMALL);
    // The reservation does not fit, the records do at first.
    let error = (1..100).find_map(|zxid| log_range(&mut log, zxid, zxid).err()).expect("it fills up");
    let text = error.to_string();
    assert!(text.contains("cannot write mem/log.1") && text.contains("the disk is full"), "{text}");
    disk.limit_space(None);
    let read = read_all(&disk, "log.1").expect("read").0;
    assert!(read.len() > 10, "{read:?}");
}

#[test]
fn truncation_keeps_the_target_and_nothing_behind_it() {
    for target in 1..=30 {
        let disk = MemDisk::new();
        write_snapshot(&disk, &all_upto(0)).expect("snapshot");
        let mut log = TxnLog::new(disk.clone(), SMALL);
        for first in [1, 11, 21] {
            log_range(&mut log, first, first + 9).expect("log");
            log.roll().expect("roll");
        }
        truncate(&disk, Zxid(target)).expect("truncate");
        disk.crash(0);
        let recovered = recover_seen(&disk).expect("recover");
        assert_eq!(recovered.state, all_upto(target), "target {target}");
        assert_eq!(recovered.warnings, []);
        log.continue_from(Zxid(target)).expect("continue");
        log_range(&mut log, target + 1, target + 3).expect("log");
        assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(target + 3), "target {target}");
    }
}

#[test]
fn truncation_removes_snapshots_that_hold_what_is_cut() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 1, 20).expect("log");
    write_snapshot(&disk, &all_upto(15)).expect("snapshot");
    truncate(&disk, Zxid(12)).expect("truncate");
    assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(12));
}

#[test]
fn truncation_that_would_lose_the_base_or_has_no_target_touches_nothing() {
    let disk = MemDisk::new();
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 5, 20).expect("log");
    write_snapshot(&disk, &all_upto(15)).expect("snapshot");
    let before = disk.operations();
    assert!(matches!(truncate(&disk, Zxid(12)), Err(StorageError::TruncateBase { zxid: Zxid(12), .. })));
    let error = truncate(&disk, Zxid(21)).expect_err("no such record");
    assert!(
        matches!(error, StorageError::TruncateTarget { first: Zxid(5), last: Zxid(20), .. }),
        "{error:?}"
    );
    assert!(truncate(&disk, Zxid(3)).is_err());
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_crash_during_truncation_loses_nothing_up_to_the_target() {
    for operation in 0..12 {
        for seed in 0..6 {
            let disk = MemDisk::new();
            write_snapshot(&disk, &all_upto(0)).expect("snapshot");
            let mut log = TxnLog::new(disk.clone(), SMALL);
            for first in [1, 11, 21, 31] {
                log_range(&mut log, first, first + 9).expect("log");
                log.roll().expect("roll");
            }
            disk.freeze_after(operation);
            let done = truncate(&disk, Zxid(7)).is_ok();
            disk.crash(seed);
            let recovered = recover_seen(&disk).expect("recover");
            let last = recovered.last_zxid.0;
            assert_eq!(recovered.state, all_upto(last), "operation {operation}, seed {seed}");
            assert!(last >= 7 && (!done || last == 7), "operation {operation}, seed {seed}: {last}");
            assert!(!recovered.warnings.iter().any(|warning| matches!(warning, Warning::Hole { .. })));
            truncate(&disk, Zxid(7)).expect("truncating again finishes the work");
            assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(7));
        }
    }
}

/// A snapshot whose name is before the cut, and whose walk went on behind it.
#[test]
fn truncation_removes_a_fuzzy_snapshot_that_ended_behind_the_cut() {
    for (ended, kept) in [(12, true), (13, false), (20, false)] {
        for operation in 0..10 {
            let disk = MemDisk::new();
            write_snapshot(&disk, &all_upto(0)).expect("snapshot");
            let mut log = TxnLog::new(disk.clone(), SMALL);
            log_range(&mut log, 1, 20).expect("log");
            // Something of every transaction up to its end is in it.
            write_fuzzy_snapshot(&disk, Zxid(10), &all_upto(ended), ended).expect("snapshot");
            disk.freeze_after(operation);
            let done = truncate(&disk, Zxid(12)).is_ok();
            disk.crash(operation);
            let recovered = recover_seen(&disk).expect("recover");
            let expected = if done { 12 } else { recovered.last_zxid.0 };
            assert!((12..=20).contains(&expected));
            assert_eq!(recovered.state, all_upto(expected), "ended at {ended}, stopped at {operation}");
            truncate(&disk, Zxid(12)).expect("again");
            let recovered = recover_seen(&disk).expect("recover");
            assert_eq!((recovered.state, recovered.snapshot == Some(Zxid(10))), (all_upto(12), kept));
        }
    }
}

/// A member that took its state from a leader has no log record of that state's zxid.
#[test]
fn the_cut_may_be_a_snapshots_zxid_or_an_epochs_beginning() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(15)).expect("snapshot");
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 16, 20).expect("log");
    log.roll().expect("roll");
    truncate(&disk, Zxid(15)).expect("truncate");
    disk.crash(0);
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!((recovered.state, recovered.last_zxid), (all_upto(15), Zxid(15)));
    log.continue_from(Zxid(15)).expect("continue");
    log_range(&mut log, 16, 17).expect("log");
    log.roll().expect("roll");
    let first = 1 << 32 | 1;
    log_range(&mut log, first, first + 3).expect("log");
    truncate(&disk, Zxid(1 << 32)).expect("truncate");
    disk.crash(0);
    assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(17));
}

#[test]
fn logs_from_the_very_beginning_need_no_snapshot_to_be_cut() {
    for (target, operation) in [0, 7, 12].into_iter().flat_map(|target| (0..16).map(move |at| (target, at))) {
        let disk = MemDisk::new();
        let mut log = TxnLog::new(disk.clone(), SMALL);
        log_range(&mut log, 1, 10).expect("log");
        log.roll().expect("roll");
        log_range(&mut log, 11, 20).expect("log");
        write_snapshot(&disk, &all_upto(15)).expect("snapshot");
        disk.freeze_after(operation);
        let done = truncate(&disk, Zxid(target)).is_ok();
        disk.crash(operation);
        let recovered = recover_seen(&disk).expect("recover");
        let last = recovered.last_zxid.0;
        assert!(last >= target && (!done || last == target), "{last} after {operation} for {target}");
        assert_eq!(recovered.state, all_upto(last));
        truncate(&disk, Zxid(target)).expect("again");
        assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(target));
    }
}

/// Going back to an older snapshot is no way out when the logs do not reach from there.
#[test]
fn a_hole_behind_the_base_is_an_error_and_nothing_is_touched() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(3)).expect("snapshot");
    let mut log = TxnLog::new(disk.clone(), SMALL);
    log_range(&mut log, 9, 20).expect("log");
    write_snapshot(&disk, &all_upto(15)).expect("snapshot");
    let before = disk.operations();
    let error = truncate(&disk, Zxid(12)).expect_err("4..8 are nowhere");
    assert!(error.refuses_cut() && error.to_string().contains("at 0x3"), "{error}");
    assert_eq!(disk.operations(), before);
    truncate(&disk, Zxid(17)).expect("from the newer one it can");
    assert_eq!(recover_seen(&disk).expect("recover").last_zxid, Zxid(17));
}

proptest! {
    /// Whatever bytes stand in a log file, reading ends with records, an end, or an error.
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        let disk = MemDisk::new();
        disk.edit(Dir::Log, "log.1", |bytes| {
            if header {
                bytes.extend(hex("5a4b4c47 00000002 0000000000000000"));
            }
            bytes.extend_from_slice(&noise);
        });
        let _ = read_all(&disk, "log.1");
    }

    /// One changed byte: what is read is a prefix, or the reader refuses. Never a changed transaction.
    #[test]
    fn a_changed_byte_never_changes_a_transaction(at in 16usize..1200, flip in 1u8..) {
        let disk = MemDisk::new();
        let mut log = TxnLog::new(disk.clone(), SMALL);
        log_range(&mut log, 1, 12).expect("log");
        disk.edit(Dir::Log, "log.1", |bytes| bytes[at] ^= flip);
        let mut reader = reader(&disk, "log.1");
        let mut expected = 1;
        while let Ok(Some(entry)) = reader.next_entry() {
            prop_assert_eq!(&entry.payload, &payload(Zxid(expected)));
            expected += 1;
        }
        // Behind the last record there is padding, where a change is a torn record.
        prop_assert!(expected <= 13);
    }
}
