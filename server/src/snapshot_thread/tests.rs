use super::*;
use crate::disk_thread::{self, DiskOptions, DiskThread};
use bytes::BytesMut;
use std::sync::mpsc::channel;
use std::time::Duration;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::log::LogOptions;
use zoometry_replica::storage::recovery::recover_store;
use zoometry_replica::storage::snapshot::{ItemDecoder, encode_end, encode_head, encode_node};
use zoometry_replica::storage::{Compression, Dir, RecoveryOptions, TxnLog};
use zoometry_replica::store::StoreConfig;
use zoometry_replica::store::prep::{Asked, Prep};
use zoometry_wire::request::CreateRequest;
use zoometry_wire::{Acl, Record, Request, SessionId, TxnRecord};

const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> StoreConfig {
    StoreConfig { digest: true, ..StoreConfig::default() }
}

fn options(snap_count: u64, snap_size_limit_bytes: u64, seed: u64) -> SnapshotOptions {
    SnapshotOptions { snap_count, snap_size_limit_bytes, seed, compression: Compression::None }
}

fn create(store: &Store, prep: &mut Prep, data_bytes: usize) -> TxnRecord {
    let zxid = store.last_zxid().next();
    let request = Request::Create(CreateRequest {
        path: format!("/n{}", zxid.0),
        data: Some(vec![1; data_bytes].into()),
        acl: Acl::open(),
        flags: 0,
    });
    let (session, session_check) = (SessionId(1), Ok(()));
    let asked = Asked { session, cxid: 1, ids: &[], request: &request, session_check };
    prep.prepare(store, &asked, zxid, 1)
}

fn write(store: &RwLock<Store>, prep: &mut Prep, data_bytes: usize) -> TxnRecord {
    let record = create(&store.read(), prep, data_bytes);
    store.write().apply(&record, &mut ()).expect("a create");
    prep.applied(record.header.zxid);
    record
}

fn disk_thread_for(disk: &MemDisk) -> (DiskQueue, DiskThread) {
    let log = TxnLog::new(disk.clone(), LogOptions { prealloc_bytes: 4096, ..LogOptions::default() });
    let disk_options = DiskOptions { now_ns: || 0, sync_warn_ms: 1000 };
    disk_thread::spawn(disk.clone(), log, disk_options, |_, _| (), |error| panic!("{error}")).expect("spawn")
}

#[test]
fn due_between_half_and_all_of_snap_count_at_a_place_of_each_member() {
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut trigger = Trigger::new(options(1000, 0, seed));
        for _ in 0..4 {
            let due = (1..=1001).find(|_| trigger.note(1, 1 << 40)).expect("due by snapCount");
            assert!((501..=1000).contains(&due), "seed {seed}: due after {due}");
            places.insert(due);
            trigger.reset();
        }
    }
    assert!(places.len() > 100, "{places:?}");
}

#[test]
fn due_by_size_too() {
    let mut trigger = Trigger::new(options(u64::MAX / 4, 1 << 20, 3));
    let due = (1..=1100).find(|_| trigger.note(1, 1024)).expect("due by size");
    assert!((512..=1024).contains(&due), "due after {due} KiB");
}

#[test]
fn a_tiny_snap_count_is_not_a_crash() {
    for snap_count in [0, 1, 2, 3] {
        let mut trigger = Trigger::new(options(snap_count, 1, 1));
        assert!((0..3).any(|_| trigger.note(1, 1)));
    }
}

#[test]
fn a_snapshot_taken_during_writes_recovers_with_the_log() {
    let disk = MemDisk::new();
    let store = Arc::new(RwLock::new(Store::new(config())));
    take_snapshot(&disk, &store, Compression::None).expect("the first snapshot");
    let log_options = LogOptions { prealloc_bytes: 65_536, ..LogOptions::default() };
    let (mut prep, mut log) = (Prep::new(config()), TxnLog::new(disk.clone(), log_options));
    let mut write = |data_bytes| {
        let record = write(&store, &mut prep, data_bytes);
        log.append(record.header.zxid, &record.to_bytes()).expect("append");
        log.commit().expect("commit");
    };
    (0..3000).for_each(|n| write(n % 300));
    let writing = std::thread::spawn({
        let (disk, store) = (disk.clone(), store.clone());
        move || take_snapshot(&disk, &store, Compression::None).expect("snapshot")
    });
    while !writing.is_finished() {
        write(100);
    }
    let taken = writing.join().expect("no panic");
    assert_eq!(taken.name, format!("snapshot.{:x}", taken.zxid.0));
    assert!(taken.nodes >= 3000 && taken.bytes > 3000 * 150, "{taken:?}");
    write(1);
    let again = recover_store(&disk, RecoveryOptions::default(), config()).expect("recover");
    assert_eq!(again.found.snapshot, Some(taken.zxid));
    assert_eq!((again.digest_mismatches, again.found.warnings), (0, vec![]));
    assert_eq!(again.found.state.digest(), store.read().digest());
    assert_eq!(again.found.state.node_count(), store.read().node_count());
}

/// A leader sends its state while writes go on: the tree is ahead of its zxid until those have come too.
#[test]
fn a_state_that_is_ahead_of_its_zxid_recovers_with_the_log() {
    let leader = RwLock::new(Store::new(config()));
    let mut prep = Prep::new(config());
    let log: Vec<_> = (1..=20).map(|_| write(&leader, &mut prep, 10)).collect();
    let mut bytes = BytesMut::new();
    let mut decoder = ItemDecoder::new();
    {
        let leader = leader.read();
        encode_head(&leader.snapshot_head(), &mut bytes);
        leader.walk(&mut leader.start_walk(), usize::MAX, &mut |node| encode_node(&node, &mut bytes));
        encode_end(&mut bytes);
    }
    decoder.push(&bytes);
    let items = std::iter::from_fn(|| decoder.next_item().transpose());
    let ahead = RwLock::new(Store::load(config(), items, Zxid(10)).expect("a state"));
    let disk = MemDisk::new();
    install_snapshot(&disk, &ahead).expect("installed");
    let mut txns = TxnLog::new(disk.clone(), LogOptions::default());
    for record in &log[10..] {
        txns.append(record.header.zxid, &record.to_bytes()).expect("append");
    }
    txns.commit().expect("commit");
    let again = recover_store(&disk, RecoveryOptions::default(), config()).expect("recover");
    assert_eq!(again.found.snapshot, Some(Zxid(10)));
    assert_eq!(again.found.state.digest(), leader.read().digest());
    assert_eq!((again.digest_mismatches, again.first_mismatch), (0, None));
}

#[test]
fn a_failed_snapshot_leaves_no_file_and_the_next_one_works() {
    let disk = MemDisk::new();
    let store = RwLock::new(Store::new(config()));
    let mut prep = Prep::new(config());
    (0..40).for_each(|_| drop(write(&store, &mut prep, 20_000)));
    disk.limit_space(Some(300_000));
    let error = take_snapshot(&disk, &store, Compression::None).expect_err("full").to_string();
    assert!(error.contains("mem/snapshot.28") && error.contains("the disk is full"), "{error}");
    assert_eq!(disk.list(Dir::Snap).expect("list"), Vec::<String>::new());
    disk.limit_space(None);
    take_snapshot(&disk, &store, Compression::None).expect("room again");
}

#[test]
fn a_due_snapshot_rolls_the_log_and_a_running_one_suppresses_the_next() {
    let disk = MemDisk::new();
    let store = Arc::new(RwLock::new(Store::new(config())));
    let (queue, thread) = disk_thread_for(&disk);
    let (say, said) = channel();
    let mut snapshots =
        Snapshotter::spawn(disk.clone(), store.clone(), queue.clone(), options(20, 0, 1), move |taken| {
            say.send(taken.is_ok()).expect("the test listens");
        })
        .expect("spawn");
    let mut prep = Prep::new(config());
    let mut append = |snapshots: &mut Snapshotter| {
        let record = write(&store, &mut prep, 10);
        queue.append(record.header.zxid, record.to_bytes());
        snapshots.appended(1, 100)
    };
    // The snapshot cannot go on while somebody holds the store.
    let held = store.write();
    assert!(snapshots.start());
    assert!(!snapshots.start());
    drop(held);
    assert!(said.recv_timeout(PATIENCE).expect("taken"));
    let before = (0..30).find(|_| append(&mut snapshots)).expect("due within snapCount");
    assert!((10..=20).contains(&before), "{before}");
    assert!(said.recv_timeout(PATIENCE).expect("taken"));
    append(&mut snapshots);
    snapshots.stop();
    thread.stop();
    let logs = disk.list(Dir::Log).expect("list");
    assert_eq!(logs.iter().filter(|name| name.starts_with("log.")).count(), 2, "{logs:?}");
    let again = recover_store(&disk, RecoveryOptions::default(), config()).expect("recover");
    assert_eq!(again.found.state.digest(), store.read().digest());
}

/// A learner applies before its own disk is done. Whatever a snapshot holds is in the log when it has its
/// name.
#[test]
fn a_snapshot_gets_its_name_behind_what_it_may_hold() {
    let disk = MemDisk::new();
    let store = Arc::new(RwLock::new(Store::new(config())));
    let (queue, thread) = disk_thread_for(&disk);
    let (syncing, release) = (channel(), channel::<()>());
    let (at_sync, waits) = (syncing.0, Mutex::new(release.1));
    disk.on_sync(move |name| {
        if name.contains("log.") {
            let _ = at_sync.send(());
            let _ = waits.lock().recv_timeout(PATIENCE);
        }
    });
    let (say, said) = channel();
    let snapshots =
        Snapshotter::spawn(disk.clone(), store.clone(), queue.clone(), options(20, 0, 1), move |taken| {
            say.send(taken.is_ok()).expect("the test listens");
        })
        .expect("spawn");
    let record = write(&store, &mut Prep::new(config()), 10);
    queue.append(record.header.zxid, record.to_bytes());
    syncing.1.recv_timeout(PATIENCE).expect("the log is being written");
    assert!(snapshots.start());
    assert!(said.recv_timeout(Duration::from_millis(100)).is_err(), "named before the log is durable");
    drop(release.0);
    assert!(said.recv_timeout(PATIENCE).expect("taken"));
    snapshots.stop();
    thread.stop();
}

/// The state is replaced while a snapshot of the old one is being written: it never gets its name, and none
/// is begun until the new state is there.
#[test]
fn a_held_snapshot_leaves_nothing_behind() {
    let disk = MemDisk::new();
    let store = Arc::new(RwLock::new(Store::new(config())));
    let (queue, thread) = disk_thread_for(&disk);
    let (say, said) = channel();
    let snapshots =
        Snapshotter::spawn(disk.clone(), store.clone(), queue.clone(), options(20, 0, 1), move |taken| {
            say.send(taken.as_ref().map(|taken| taken.zxid).ok()).expect("the test listens");
        })
        .expect("spawn");
    let mut prep = Prep::new(config());
    (0..50).for_each(|_| drop(write(&store, &mut prep, 10)));
    // Its file is written and synced, and it is about to be renamed, when the snapshots are held.
    let (synced, has_synced) = channel();
    let (go, may_go) = channel::<()>();
    let both = Mutex::new((synced, may_go));
    disk.on_sync(move |name| {
        let both = both.lock();
        if name.starts_with("tmp.snapshot.32") {
            both.0.send(()).expect("the test listens");
            let _ = both.1.recv();
        }
    });
    assert!(snapshots.start());
    has_synced.recv_timeout(PATIENCE).expect("the snapshot is nearly there");
    snapshots.hold();
    *store.write() = Store::new(config());
    let mut prep = Prep::new(config());
    (0..30).for_each(|_| drop(write(&store, &mut prep, 10)));
    drop(go);
    assert!(!snapshots.start(), "held");
    let (done, is_done) = channel();
    queue.install(store.clone(), move || done.send(()).expect("the test listens"));
    is_done.recv_timeout(PATIENCE).expect("installed");
    snapshots.release();
    // Until the one that was given up has ended, another cannot begin.
    while !snapshots.start() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        said.recv_timeout(PATIENCE).expect("taken"),
        Some(Zxid(30)),
        "nothing was said of the old one"
    );
    snapshots.stop();
    thread.stop();
    let names = disk.list(Dir::Snap).expect("list");
    assert_eq!(names, ["snapshot.1e"]);
    let again = recover_store(&disk, RecoveryOptions::default(), config()).expect("recover");
    assert_eq!(again.found.state.digest(), store.read().digest());
}
