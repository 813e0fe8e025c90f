//! Every kind of damage to the middle of a log is found, and an ordinary crash is none.

use super::*;
use crate::storage::disk::mem::MemDisk;
use crate::storage::history::{Collect, all_upto, log_range, recover_seen, write_snapshot};
use crate::storage::log::{LogOptions, SyncMode, TxnLog};
use crate::storage::retention::purge;

const SMALL: LogOptions = LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };

const fn at(epoch: i64, counter: i64) -> i64 {
    epoch << 32 | counter
}

/// A snapshot at 0 and a log file for each of these ranges, closed or with their padding.
fn files(ranges: &[(i64, i64)], is_closed: bool) -> MemDisk {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    for (from, to) in ranges {
        let mut log = TxnLog::new(disk.clone(), SMALL);
        log_range(&mut log, *from, *to).expect("log");
        if is_closed {
            log.roll().expect("roll");
        }
    }
    disk
}

/// Where the `n`-th record of a file ends; 0: where the first one starts.
fn end_of(disk: &MemDisk, name: &str, n: usize) -> usize {
    let mut reader = LogReader::open(disk, name).expect("open");
    for _ in 0..n {
        reader.next_entry().expect("read").expect("a record");
    }
    reader.offset() as usize
}

fn damage_of(disk: &MemDisk) -> Option<Damage> {
    recover_seen(disk).expect("recover").damage
}

const THREE: [(i64, i64); 3] = [(1, 10), (11, 20), (21, 30)];

/// One kind of damage to the file log.b.
struct Kind {
    what: &'static str,
    strike: fn(&MemDisk),
    /// The file and the number of its records where the log breaks off.
    place: (&'static str, usize),
    before: i64,
    proof: fn(&Proof) -> bool,
}

fn edit(disk: &MemDisk, change: impl FnOnce(&mut Vec<u8>)) {
    disk.edit(Dir::Log, "log.b", change);
}

fn is_gap(proof: &Proof) -> bool {
    *proof == Proof::Gap
}

fn is_record(proof: &Proof) -> bool {
    matches!(proof, Proof::Record(_))
}

const KINDS: &[Kind] = &[
    Kind {
        what: "an end byte flipped",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes[end - 1] ^= 1);
        },
        place: ("log.b", 4),
        before: 14,
        proof: is_gap,
    },
    Kind {
        what: "a byte of the content flipped",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes[end - 2] ^= 1);
        },
        place: ("log.b", 4),
        before: 14,
        proof: is_record,
    },
    Kind {
        what: "cut inside a record",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes.truncate(end - 3));
        },
        place: ("log.b", 4),
        before: 14,
        proof: is_gap,
    },
    Kind {
        what: "cut between two records",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes.truncate(end));
        },
        place: ("log.b", 5),
        before: 15,
        proof: is_gap,
    },
    Kind {
        what: "emptied",
        strike: |disk| edit(disk, Vec::clear),
        place: ("log.1", 10),
        before: 10,
        proof: is_gap,
    },
    Kind {
        what: "all of it zeros",
        strike: |disk| edit(disk, |bytes| bytes.fill(0)),
        place: ("log.b", 0),
        before: 10,
        proof: is_gap,
    },
    Kind {
        what: "another file's content",
        strike: |disk| edit(disk, |bytes| bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0")),
        place: ("log.b", 0),
        before: 10,
        proof: is_record,
    },
    Kind {
        what: "removed",
        strike: |disk| disk.remove(Dir::Log, "log.b").expect("remove"),
        place: ("log.1", 10),
        before: 10,
        proof: is_gap,
    },
    Kind {
        what: "a block zeroed, from a record's start",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes[end..end + 100].fill(0));
        },
        place: ("log.b", 5),
        before: 15,
        proof: is_gap,
    },
    Kind {
        what: "a block zeroed, from inside a record",
        strike: |disk| {
            let end = end_of(disk, "log.b", 5);
            edit(disk, |bytes| bytes[end - 1..end + 100].fill(0));
        },
        place: ("log.b", 4),
        before: 14,
        proof: is_gap,
    },
];

#[test]
fn every_kind_of_damage_to_a_middle_file_is_found_with_its_place() {
    for is_closed in [true, false] {
        for Kind { what, strike, place: (file, records), before, proof } in KINDS {
            let disk = files(&THREE, is_closed);
            assert_eq!(damage_of(&disk), None);
            // A file whose header is damaged breaks off before its first record.
            let is_headless = *file == "log.b" && *records == 0;
            let offset = if is_headless { 0 } else { end_of(&disk, file, *records) as u64 };
            strike(&disk);
            // Who looks sees what the owner sees, and the owner the same again: nothing is tidied away.
            let look = RecoveryOptions { access: Access::ReadOnly, ..RecoveryOptions::default() };
            let looked = recover(&disk, look, &mut Collect).expect("recover").damage;
            let damage = damage_of(&disk).unwrap_or_else(|| panic!("{what} is not found"));
            assert_eq!(damage_of(&disk), Some(damage.clone()), "{what}");
            let seen = looked.unwrap_or_else(|| panic!("{what} is not seen"));
            assert_eq!((seen.before, seen.after), (damage.before, damage.after), "{what}");
            assert!(proof(&damage.proof), "{what}: {damage:?}");
            let range = (damage.before, damage.after);
            assert_eq!(range, (Zxid(*before), Some(Zxid(21))), "{what}: {damage:?}");
            assert_eq!((damage.file, damage.offset), (format!("mem/{file}"), offset), "{what}");
            // The end of the log is known in spite of it.
            assert_eq!(recover_seen(&disk).expect("recover").last_zxid, Zxid(30), "{what}");
        }
    }
}

#[test]
fn the_message_names_file_place_and_what_is_missing() {
    let disk = files(&THREE, true);
    disk.remove(Dir::Log, "log.b").expect("remove");
    let offset = end_of(&disk, "log.1", 10);
    let told = damage_of(&disk).expect("a hole").to_string();
    assert_eq!(
        told,
        format!(
            "the log breaks off in mem/log.1 at byte {offset}: the next transaction in the log files has a zxid that \
             does not follow; missing are the transactions between 0xa and 0x15"
        )
    );
}

/// Its record may have been acknowledged; nobody can tell.
#[test]
fn a_damaged_record_in_the_last_file_is_damage() {
    let disk = files(&THREE, false);
    disk.edit(Dir::Log, "log.15", |bytes| bytes[40] ^= 1);
    let damage = damage_of(&disk).expect("it is found");
    assert_eq!((damage.file.as_str(), damage.offset, damage.before), ("mem/log.15", 16, Zxid(20)));
    assert_eq!(damage.after, None);
    assert!(is_record(&damage.proof) && damage.to_string().ends_with("behind 0x14"), "{damage}");
}

/// What a power failure leaves, here or in Apache's directory, is no damage.
#[test]
fn an_ordinary_crash_is_no_damage() {
    // The tail of the last file is torn; and of one in the middle, where the next life logs the same again.
    let disk = files(&THREE, false);
    let end = end_of(&disk, "log.15", 10);
    disk.edit(Dir::Log, "log.15", |bytes| bytes[end - 9..].fill(0));
    assert_eq!(damage_of(&disk), None, "a torn tail");
    log_range(&mut TxnLog::new(disk.clone(), SMALL), 30, 35).expect("log");
    assert_eq!(damage_of(&disk), None, "what was torn is logged again");
    // A record that a disk has written in parts only, and that is logged again.
    let disk = files(&THREE, true);
    let end = end_of(&disk, "log.15", 10);
    disk.edit(Dir::Log, "log.15", |bytes| bytes[end - 2] ^= 1);
    log_range(&mut TxnLog::new(disk.clone(), SMALL), 30, 35).expect("log");
    assert_eq!(damage_of(&disk), None, "what was half written is logged again");
    // Another leader has gone on without what was torn.
    let disk = files(&[(1, 10), (11, 20), (at(1, 1), at(1, 5))], false);
    let end = end_of(&disk, "log.b", 10);
    disk.edit(Dir::Log, "log.b", |bytes| bytes[end - 9..].fill(0));
    assert_eq!(damage_of(&disk), None, "a torn tail before another epoch");
    // A file that was begun and holds nothing, whole, as zeros, or as no byte.
    for content in [&b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0"[..], &[0; 4096], b""] {
        let disk = files(&[(1, 10), (at(1, 1), at(1, 5))], false);
        disk.edit(Dir::Log, "log.b", |bytes| *bytes = content.to_vec());
        assert_eq!(damage_of(&disk), None, "{} bytes", content.len());
    }
}

#[test]
fn files_that_are_not_needed_may_be_gone() {
    // Purged, or left behind by a state that a leader has sent: the log has a hole before the snapshot.
    let disk = files(&[(1, 10), (31, 40)], true);
    write_snapshot(&disk, &all_upto(30)).expect("snapshot");
    assert_eq!(damage_of(&disk), None, "the snapshot has what is missing");
    disk.edit(Dir::Snap, "snapshot.1e", |bytes| bytes[70] ^= 1);
    assert_eq!(damage_of(&disk).map(|damage| damage.before), Some(Zxid(10)), "and now nobody has it");
    let disk = files(&THREE, true);
    for last in [10, 20, 25, 28] {
        write_snapshot(&disk, &all_upto(last)).expect("snapshot");
    }
    purge(&disk, 3).expect("purge");
    assert_eq!(disk.contents(Dir::Log, "log.1"), None);
    assert_eq!(damage_of(&disk), None);
}

#[test]
fn across_epochs_a_hole_is_known_by_what_is_left() {
    let ranges = [(1, 10), (at(1, 1), at(1, 5))];
    let epochs = || files(&ranges, true);
    assert_eq!(damage_of(&epochs()), None);
    // An epoch begins with its first transaction.
    let disk = files(&[(1, 10), (at(1, 2), at(1, 5))], true);
    assert!(damage_of(&disk).is_some_and(|damage| is_gap(&damage.proof)));
    // A damaged record was there, whatever followed it.
    let disk = epochs();
    let end = end_of(&disk, "log.1", 5);
    disk.edit(Dir::Log, "log.1", |bytes| bytes[end - 2] ^= 1);
    let damage = damage_of(&disk).expect("it is found");
    assert!(is_record(&damage.proof), "{damage:?}");
    assert_eq!((damage.before, damage.after), (Zxid(4), Some(Zxid(at(1, 1)))));
    // A later snapshot cannot be read, but its name says how far the log went.
    let disk = epochs();
    let name = write_snapshot(&disk, &all_upto(10)).expect("snapshot");
    disk.edit(Dir::Snap, &name, |bytes| bytes[70] ^= 1);
    assert_eq!(damage_of(&disk), None, "the log reaches it");
    let end = end_of(&disk, "log.1", 7);
    disk.edit(Dir::Log, "log.1", |bytes| bytes.truncate(end));
    assert_eq!(damage_of(&disk).map(|damage| damage.proof), Some(Proof::Snapshot(Zxid(10))));
    // One that was never finished says nothing: Apache writes them in place.
    disk.edit(Dir::Snap, &name, |bytes| bytes.truncate(60));
    assert_eq!(damage_of(&disk), None);
    // Nor does the log's end behind one that can be read.
    let disk = files(&[(1, 10)], true);
    let name = write_snapshot(&disk, &all_upto(15)).expect("snapshot");
    assert_eq!(damage_of(&disk), None);
    disk.edit(Dir::Snap, &name, |bytes| bytes[70] ^= 1);
    assert_eq!(damage_of(&disk).map(|damage| (damage.before, damage.after)), Some((Zxid(10), None)));
}
