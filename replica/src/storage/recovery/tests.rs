use super::*;
use crate::storage::disk::DiskFile;
use crate::storage::disk::mem::MemDisk;
use crate::storage::history::{Collect, Seen, all_upto, log_range, recover_seen, write_snapshot};
use crate::storage::log::{LogOptions, SyncMode, TxnLog};
use crate::storage::retention::purge;
use proptest::prelude::*;

const SMALL: LogOptions = LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };

fn small_log(disk: &MemDisk) -> TxnLog<MemDisk> {
    TxnLog::new(disk.clone(), SMALL)
}

/// A directory with snapshots at 0, 10, 20 … and a log file behind each.
fn directory(disk: &MemDisk, last: i64) {
    let mut log = small_log(disk);
    for first in (0..last).step_by(10) {
        write_snapshot(disk, &all_upto(first)).expect("snapshot");
        log.roll().expect("roll");
        log_range(&mut log, first + 1, last.min(first + 10)).expect("log");
    }
}

#[test]
fn an_empty_directory_is_fresh() {
    let recovered = recover_seen(&MemDisk::new()).expect("recover");
    assert!(recovered.is_fresh());
    assert_eq!((recovered.state, recovered.last_zxid, recovered.warnings), (Seen::new(), Zxid(0), vec![]));
}

#[test]
fn snapshot_and_logs_make_the_state() {
    let disk = MemDisk::new();
    directory(&disk, 37);
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!(recovered.state, all_upto(37));
    assert_eq!((recovered.snapshot, recovered.replayed, recovered.last_zxid), (Some(Zxid(30)), 7, Zxid(37)));
    assert_eq!(recovered.snapshot_end.last_zxid, Some(Zxid(30)));
    assert!(!recovered.is_fresh() && recovered.warnings.is_empty());
}

/// The log that a snapshot needs may have begun long before it.
#[test]
fn replay_begins_inside_a_file() {
    let disk = MemDisk::new();
    let mut log = small_log(&disk);
    log_range(&mut log, 1, 30).expect("log");
    write_snapshot(&disk, &all_upto(17)).expect("snapshot");
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!((recovered.state, recovered.replayed, recovered.warnings), (all_upto(30), 13, vec![]));
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_older_one() {
    let disk = MemDisk::new();
    directory(&disk, 37);
    disk.edit(Dir::Snap, "snapshot.1e", |bytes| bytes[100] ^= 1);
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!((recovered.state, recovered.snapshot), (all_upto(37), Some(Zxid(20))));
    let [Warning::SnapshotSkipped { why }] = &recovered.warnings[..] else {
        panic!("{:?}", recovered.warnings)
    };
    assert!(why.contains("mem/snapshot.1e is damaged at byte"), "{why}");
}

#[test]
fn no_readable_snapshot_is_an_error_that_names_the_newest() {
    let disk = MemDisk::new();
    directory(&disk, 17);
    for name in ["snapshot.0", "snapshot.a"] {
        disk.edit(Dir::Snap, name, |bytes| bytes[70] ^= 1);
    }
    let error = recover_seen(&disk).expect_err("nothing readable").to_string();
    assert!(
        error.contains("none of the 2 snapshots") && error.contains("mem/snapshot.a is damaged"),
        "{error}"
    );
}

/// Apache writes in place: a first start that was cut short leaves half a snapshot.0 and nothing else.
#[test]
fn half_a_first_snapshot_is_a_fresh_start() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    disk.edit(Dir::Snap, "snapshot.0", |bytes| bytes.truncate(30));
    let recovered = recover_seen(&disk).expect("recover");
    assert!(recovered.is_fresh());
    assert_eq!(recovered.warnings.len(), 1);
    disk.edit(Dir::Snap, "snapshot.5", |bytes| *bytes = vec![0; 30]);
    assert!(matches!(recover_seen(&disk), Err(StorageError::NoReadableSnapshot { .. })));
}

#[test]
fn logs_without_a_snapshot_need_trust() {
    let disk = MemDisk::new();
    log_range(&mut small_log(&disk), 1, 9).expect("log");
    let error = recover_seen(&disk).expect_err("no snapshot").to_string();
    assert!(error.contains("log.1") && error.contains("trust.empty"), "{error}");
    let options = RecoveryOptions { trust_empty: true, ..RecoveryOptions::default() };
    assert_eq!(recover(&disk, options, &mut Collect).expect("recover").state, all_upto(9));
}

#[test]
fn torn_tails_end_their_file_wherever_it_stands() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    let mut log = small_log(&disk);
    log_range(&mut log, 1, 6).expect("log");
    let end = log.file_bytes() as usize;
    // The sixth was cut short by a crash; the next life logs another sixth into the next file.
    disk.edit(Dir::Log, "log.1", |bytes| bytes[end - 9..].fill(0));
    log_range(&mut small_log(&disk), 6, 8).expect("log");
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!(recovered.state, all_upto(8));
    assert!(matches!(&recovered.warnings[..], [Warning::TornTail { file, .. }] if file == "mem/log.1"));
}

#[test]
fn empty_and_headerless_last_files_are_no_obstacle() {
    for content in [&b""[..], &[0; 16], &[0; 5000], b"ZKL", b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0"] {
        let disk = MemDisk::new();
        directory(&disk, 17);
        disk.edit(Dir::Log, "log.12", |bytes| *bytes = content.to_vec());
        let recovered = recover_seen(&disk).expect("recover");
        assert_eq!(recovered.state, all_upto(17), "{content:?}");
        // Releases before 3.9.3 do not start over an empty log file.
        assert_eq!(disk.contents(Dir::Log, "log.12").is_none(), content.is_empty());
        log_range(&mut small_log(&disk), 18, 19).expect("log");
        assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(19), "{content:?}");
    }
}

#[test]
fn a_headerless_file_in_the_middle_is_damage() {
    let disk = MemDisk::new();
    directory(&disk, 37);
    disk.edit(Dir::Snap, "snapshot.1e", |bytes| bytes[100] ^= 1);
    disk.edit(Dir::Log, "log.15", |bytes| bytes[..16].fill(0));
    let damage = recover_seen(&disk).expect("recover").damage.expect("it is found");
    assert_eq!((damage.file.as_str(), damage.offset, damage.proof), ("mem/log.15", 0, Proof::Gap));
}

#[test]
fn holes_are_reported() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    log_range(&mut small_log(&disk), 1, 4).expect("log");
    log_range(&mut small_log(&disk), 8, 9).expect("log");
    let recovered = recover_seen(&disk).expect("recover");
    let hole = Warning::Hole { file: "mem/log.8".into(), before: Zxid(4), after: Zxid(8) };
    assert_eq!(recovered.warnings, [hole]);
    assert_eq!(recovered.last_zxid, Zxid(9));
}

#[test]
fn a_new_epoch_is_no_hole_unless_its_beginning_is_missing() {
    let first = 1 << 32 | 1;
    for (from, holes) in [(first, 0), (first + 1, 1)] {
        let disk = MemDisk::new();
        write_snapshot(&disk, &all_upto(0)).expect("snapshot");
        log_range(&mut small_log(&disk), 1, 4).expect("log");
        log_range(&mut small_log(&disk), from, from + 3).expect("log");
        assert_eq!(recover_seen(&disk).expect("recover").warnings.len(), holes);
    }
}

#[test]
fn what_was_replayed_is_not_replayed_again() {
    let disk = MemDisk::new();
    write_snapshot(&disk, &all_upto(0)).expect("snapshot");
    log_range(&mut small_log(&disk), 1, 6).expect("log");
    log_range(&mut small_log(&disk), 4, 8).expect("log");
    let recovered = recover_seen(&disk).expect("recover");
    assert_eq!((recovered.state, recovered.replayed), (all_upto(8), 8));
    assert!(matches!(&recovered.warnings[0], Warning::Backwards { zxid: Zxid(4), last: Zxid(6), .. }));
}

#[test]
fn directories_that_changed_sides_are_refused() {
    let disk = MemDisk::split();
    directory(&disk, 17);
    assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(17));
    disk.edit(Dir::Snap, "log.12", |_| ());
    let error = recover_seen(&disk).expect_err("stray log").to_string();
    assert!(error.contains("mem/log.12") && error.contains("dataLogDir"), "{error}");
}

#[test]
fn a_reader_changes_nothing_and_the_owner_tidies() {
    let disk = MemDisk::new();
    directory(&disk, 17);
    for name in ["tmp.snapshot.12", "tmp.log.12", "log.12", "tmp.notes"] {
        disk.edit(Dir::Log, name, |_| ());
    }
    let before = disk.operations();
    let options = RecoveryOptions { access: Access::ReadOnly, ..RecoveryOptions::default() };
    assert_eq!(recover(&disk, options, &mut Collect).expect("recover").state, all_upto(17));
    assert_eq!(disk.operations(), before);
    recover_seen(&disk).expect("recover");
    let mut names = disk.list(Dir::Log).expect("list");
    names.retain(|name| name.starts_with("tmp.") || name == "log.12");
    assert_eq!(names, ["tmp.notes"]);
}

#[test]
fn purge_keeps_what_the_kept_snapshots_need() {
    let disk = MemDisk::new();
    directory(&disk, 77);
    disk.edit(Dir::Snap, "snapshot.46", |bytes| bytes.truncate(50));
    let removed = purge(&disk, 1).expect("purge");
    // Whole and newest: 60, 50, 40. The broken 70 does not count and stays.
    let expected = ["snapshot.0", "snapshot.a", "snapshot.14", "snapshot.1e", "log.1", "log.b", "log.15"];
    assert_eq!(removed, expected);
    for broken in ["snapshot.3c", "snapshot.32"] {
        assert_eq!(recover_seen(&disk).expect("recover").state, all_upto(77));
        disk.edit(Dir::Snap, broken, |bytes| bytes[80] ^= 1);
    }
    let recovered = recover_seen(&disk).expect("the oldest kept snapshot has its logs");
    assert_eq!((recovered.state, recovered.snapshot), (all_upto(77), Some(Zxid(40))));
    assert!(!recovered.warnings.iter().any(|warning| matches!(warning, Warning::Hole { .. })));
}

#[test]
fn purge_with_few_snapshots_removes_nothing() {
    let disk = MemDisk::new();
    directory(&disk, 27);
    disk.edit(Dir::Snap, "snapshot.0", |bytes| bytes.truncate(9));
    assert_eq!(purge(&disk, 3).expect("purge"), Vec::<String>::new());
}

/// One step of a member's life with its disk.
#[derive(Debug, Clone, Copy)]
enum Step {
    Commit(i64),
    Roll,
    Snapshot,
    Purge,
    Restart,
}

/// Performs the steps until the disk gives up. `acknowledged` is what a client would have been told.
fn live(disk: &MemDisk, steps: &[Step], acknowledged: &mut i64) -> Result<(), StorageError> {
    let mut recovered = recover_seen(disk)?;
    if recovered.is_fresh() {
        write_snapshot(disk, &recovered.state)?;
    }
    let mut log = small_log(disk);
    for step in steps {
        let last = recovered.state.last().copied().unwrap_or(0);
        match step {
            Step::Commit(count) => {
                log_range(&mut log, last + 1, last + count)?;
                *acknowledged = last + count;
                recovered.state.extend(last + 1..=last + count);
            }
            Step::Roll => log.roll()?,
            Step::Snapshot => {
                write_snapshot(disk, &recovered.state)?;
            }
            Step::Purge => {
                purge(disk, 3)?;
            }
            Step::Restart => {
                recovered = recover_seen(disk)?;
                log = small_log(disk);
            }
        }
    }
    Ok(())
}

/// Runs the steps, with the power failing after `operation` changes, twice; then checks the state.
fn survive(steps: &[Step], operation: u64, seed: u64) {
    let disk = MemDisk::new();
    let mut acknowledged = 0;
    for life in 0..3 {
        if life < 2 {
            disk.freeze_after(operation);
        }
        let lived = live(&disk, steps, &mut acknowledged);
        assert!(lived.is_ok() || disk.is_frozen(), "life {life}: {lived:?}");
        disk.crash(seed * 3 + if seed == 0 { 0 } else { life });
        let recovered = recover_seen(&disk).expect("recover");
        let last = recovered.last_zxid.0;
        assert!(last >= acknowledged, "life {life}: {acknowledged} was acknowledged, {last} is there");
        assert_eq!(recovered.state, all_upto(last), "life {life}");
        let odd = recovered.warnings.iter().find(|warning| !matches!(warning, Warning::TornTail { .. }));
        assert_eq!(odd, None, "life {life}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_operation() {
    use Step::*;
    let steps = [
        Commit(3),
        Commit(1),
        Roll,
        Snapshot,
        Commit(2),
        Restart,
        Commit(70),
        Roll,
        Commit(1),
        Snapshot,
        Commit(4),
        Snapshot,
        Roll,
        Commit(2),
        Snapshot,
        Purge,
        Commit(5),
        Restart,
        Snapshot,
        Purge,
        Commit(1),
    ];
    let operations = {
        let disk = MemDisk::new();
        live(&disk, &steps, &mut 0).expect("nothing fails");
        disk.operations()
    };
    assert!(operations > 60, "{operations}");
    for operation in 0..=operations {
        for seed in 0..6 {
            survive(&steps, operation, seed);
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1i64..40).prop_map(Step::Commit),
        2 => Just(Step::Roll),
        2 => Just(Step::Snapshot),
        1 => Just(Step::Purge),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn any_life_survives_any_crash(
        steps in proptest::collection::vec(any_step(), 1..30),
        operation in 0u64..120,
        seed in any::<u32>(),
    ) {
        survive(&steps, operation, u64::from(seed));
    }

    /// Random damage anywhere: recovery gives a state or an error that can be shown.
    #[test]
    fn damage_never_panics(
        file in 0usize..8,
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let disk = MemDisk::new();
        directory(&disk, 37);
        let mut names = disk.list(Dir::Log).expect("list");
        names.sort();
        let name = &names[file % names.len()];
        disk.edit(Dir::Log, name, |bytes| {
            for (place, value) in &places {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        match recover_seen(&disk) {
            Ok(recovered) => prop_assert!(recovered.state.is_subset(&all_upto(37))),
            Err(error) => prop_assert!(error.to_string().contains("mem/"), "{}", error),
        }
    }
}

#[test]
fn a_failing_disk_is_named_with_its_number() {
    let disk = MemDisk::new();
    directory(&disk, 7);
    let mut log = small_log(&disk);
    log_range(&mut log, 8, 8).expect("log");
    const EIO: i32 = 5;
    disk.fail_after(1, EIO);
    let error = log_range(&mut log, 9, 9).expect_err("the sync fails");
    assert_eq!(error.errno(), Some(EIO));
    assert!(error.to_string().starts_with("cannot sync mem/log.8"), "{error}");
    let mut file = disk.open(Dir::Log, "log.8").expect("open");
    disk.fail_after(0, EIO);
    assert!(file.sync().is_err() && file.sync().is_ok());
}
