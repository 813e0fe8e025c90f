use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::log::{LogOptions, LogReader, SyncMode};
use zoometry_replica::storage::recovery::recover_store;
use zoometry_replica::storage::{Dir, Disk, RecoveryOptions};
use zoometry_replica::store::StoreConfig;
use zoometry_wire::txn::TxnHeader;
use zoometry_wire::{OpCode, Record, SessionId, Txn, TxnRecord};

const PATIENCE: Duration = Duration::from_secs(20);

fn now_ns() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(1);
    NOW.fetch_add(1, Ordering::Relaxed)
}

fn payload(zxid: i64) -> Bytes {
    let kind = OpCode::CreateSession.code();
    let header = TxnHeader { session: SessionId(7), cxid: 0, zxid: Zxid(zxid), time_ms: 1, kind };
    TxnRecord { header, txn: Txn::CreateSession(4000), digest: None }.to_bytes()
}

/// What the thread says, in order.
#[derive(Debug, PartialEq)]
enum Said {
    Durable(Durable),
    Failed(String, Option<i32>),
    Done(&'static str),
}

struct Running {
    queue: DiskQueue,
    thread: DiskThread,
    said: Receiver<Said>,
    say: Sender<Said>,
}

fn start(disk: &MemDisk) -> Running {
    let (say, said) = channel();
    let options = LogOptions { prealloc_bytes: 8192, sync: SyncMode::Always, roll_at_bytes: None };
    let log = TxnLog::new(disk.clone(), options);
    let (durable, failed) = (say.clone(), say.clone());
    let (queue, thread) = spawn(
        disk.clone(),
        log,
        DiskOptions { now_ns, sync_warn_ms: 1000 },
        move |batch, _| durable.send(Said::Durable(batch)).expect("the test listens"),
        move |error| {
            failed.send(Said::Failed(error.to_string(), error.errno())).expect("the test listens");
        },
    )
    .expect("spawn");
    Running { queue, thread, said, say }
}

impl Running {
    fn next(&self) -> Said {
        self.said.recv_timeout(PATIENCE).expect("the disk thread says something")
    }

    fn durable(&self) -> Durable {
        match self.next() {
            Said::Durable(durable) => durable,
            other => panic!("expected a batch, got {other:?}"),
        }
    }

    fn done(&self, what: &'static str) -> impl FnOnce() + Send + 'static {
        let say = self.say.clone();
        move || say.send(Said::Done(what)).expect("the test listens")
    }

    /// The end of a cut of the log.
    fn cut(&self, done: &'static str, refused: &'static str) -> impl FnOnce(Cut) + Send + 'static {
        let say = self.say.clone();
        move |cut| {
            let what = if cut == Cut::Done { done } else { refused };
            say.send(Said::Done(what)).expect("the test listens");
        }
    }
}

/// Lets one sync begin, and holds it until `go` is sent (or dropped).
fn hold_syncs(disk: &MemDisk) -> (Receiver<()>, Sender<()>) {
    let (begun, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    let gate = Mutex::new((begun, may_go));
    disk.on_sync(move |_| {
        let gate = gate.lock();
        let _ = gate.0.send(());
        // Once nobody holds the other end, syncs pass.
        let _ = gate.1.recv();
    });
    (has_begun, go)
}

fn logged(disk: &MemDisk) -> Vec<i64> {
    let mut names = disk.list(Dir::Log).expect("list");
    names.retain(|name| name.starts_with("log."));
    names.sort_by_key(|name| i64::from_str_radix(&name[4..], 16).expect("hex"));
    let mut zxids = Vec::new();
    for name in names {
        let mut reader = LogReader::open(disk, &name).expect("open");
        while let Some(entry) = reader.next_entry().expect("read") {
            zxids.push(entry.record.header.zxid.0);
        }
    }
    zxids
}

#[test]
fn everything_appended_is_reported_durable_in_order() {
    let disk = MemDisk::new();
    let running = start(&disk);
    for zxid in 1..=500 {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    let (mut records, mut bytes, mut last) = (0, 0, Durable::default());
    while last.upto < Zxid(500) {
        let durable = running.durable();
        assert_eq!(durable.batch, last.batch + 1);
        assert!(durable.upto > last.upto && durable.synced_ns > durable.written_ns);
        assert!(durable.written_ns > durable.taken_ns && durable.taken_ns >= last.synced_ns);
        records += durable.records;
        bytes += durable.bytes;
        last = durable;
    }
    assert_eq!((records, bytes), (500, 500 * (payload(1).len() as u64 + 13)));
    running.thread.stop();
    disk.crash(0);
    assert_eq!(logged(&disk), (1..=500).collect::<Vec<_>>());
}

/// The point of group commit: what came during one sync is one batch.
#[test]
fn what_queues_up_during_a_sync_shares_the_next() {
    let disk = MemDisk::new();
    let running = start(&disk);
    running.queue.append(Zxid(1), payload(1));
    assert_eq!(running.durable().records, 1);
    let (begun, go) = hold_syncs(&disk);
    running.queue.append(Zxid(2), payload(2));
    begun.recv_timeout(PATIENCE).expect("the sync of 2 has begun");
    let mut batch: Vec<_> =
        (3..=50).map(|zxid| Append { zxid: Zxid(zxid), payload: payload(zxid) }).collect();
    running.queue.append_all(&mut batch);
    assert!(batch.is_empty());
    for zxid in 51..=99 {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    assert_eq!(running.queue.depth(), 97);
    assert!(running.said.try_recv().is_err(), "2 is not durable before its sync has ended");
    drop(go);
    assert_eq!((running.durable().records, running.durable().records), (1, 97));
    running.thread.stop();
}

#[test]
fn a_report_says_whether_work_waits() {
    let disk = MemDisk::new();
    let log = TxnLog::new(disk.clone(), LogOptions::default());
    let options = DiskOptions { now_ns, sync_warn_ms: 1000 };
    let (say, said) = channel();
    let report = move |durable: Durable, behind| say.send((durable.upto, behind)).expect("the test listens");
    let (queue, thread) =
        spawn(disk.clone(), log, options, report, |error| panic!("{error}")).expect("spawn");
    let (begun, go) = hold_syncs(&disk);
    queue.append(Zxid(1), payload(1));
    begun.recv_timeout(PATIENCE).expect("the sync of 1 has begun");
    queue.append(Zxid(2), payload(2));
    drop(go);
    let reports = [(); 2].map(|()| said.recv_timeout(PATIENCE).expect("a report"));
    assert_eq!(reports, [(Zxid(1), Behind::Work), (Zxid(2), Behind::Nothing)]);
    thread.stop();
}

#[test]
fn jobs_run_in_the_order_of_the_queue() {
    let disk = MemDisk::new();
    let running = start(&disk);
    let (begun, go) = hold_syncs(&disk);
    running.queue.append(Zxid(1), payload(1));
    begun.recv_timeout(PATIENCE).expect("a sync has begun");
    running.queue.append(Zxid(2), payload(2));
    running.queue.barrier(running.done("barrier"));
    running.queue.append(Zxid(3), payload(3));
    running.queue.epoch(EpochFile::Current, 4, running.done("epoch"));
    running.queue.append(Zxid(4), payload(4));
    running.queue.roll();
    running.queue.append(Zxid(5), payload(5));
    drop(go);
    let mut order = Vec::new();
    for _ in 0..7 {
        order.push(match running.next() {
            Said::Durable(durable) => durable.upto.0.to_string(),
            Said::Done(what) => what.to_owned(),
            failed => panic!("{failed:?}"),
        });
    }
    assert_eq!(order, ["1", "2", "barrier", "3", "epoch", "4", "5"]);
    running.thread.stop();
    assert_eq!(disk.contents(Dir::Snap, "currentEpoch").as_deref(), Some(&b"4"[..]));
    assert!(disk.contents(Dir::Log, "log.5").is_some());
    assert_eq!(logged(&disk), [1, 2, 3, 4, 5]);
}

#[test]
fn appends_go_on_behind_a_truncation() {
    let disk = MemDisk::new();
    let running = start(&disk);
    for zxid in 1..=9 {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    running.queue.truncate(Zxid(4), running.cut("cut", "refused"));
    let second_epoch = 1i64 << 32 | 1;
    running.queue.append(Zxid(second_epoch), payload(second_epoch));
    while running.next() != Said::Done("cut") {}
    assert_eq!(running.durable().upto, Zxid(second_epoch));
    running.thread.stop();
    assert_eq!(logged(&disk), [1, 2, 3, 4, second_epoch]);
}

/// A state from a leader that was lost takes the place of everything; behind what it holds nothing can be cut.
#[test]
fn a_cut_that_is_not_possible_is_refused_and_the_disk_goes_on() {
    let disk = MemDisk::new();
    let running = start(&disk);
    let first = 1i64 << 32;
    for zxid in first + 5..=first + 9 {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    running.queue.truncate(Zxid(first + 3), running.cut("cut", "refused"));
    running.queue.append(Zxid(first + 10), payload(first + 10));
    while running.next() != Said::Done("refused") {}
    assert_eq!(running.durable().upto, Zxid(first + 10));
    running.thread.stop();
    assert_eq!(logged(&disk), (first + 5..=first + 10).collect::<Vec<_>>());
}

/// What a learner's disk goes through: everything in the order of the queue, and nothing of the old history
/// behind an installed state.
#[test]
fn append_epoch_truncate_and_install_keep_their_order() {
    let disk = MemDisk::new();
    let running = start(&disk);
    let (first, second) = (1i64 << 32, 2i64 << 32);
    let installed = Arc::new(RwLock::new(Store::new(StoreConfig::default())));
    let create = TxnHeader {
        session: SessionId(7),
        cxid: 0,
        zxid: Zxid(second | 5),
        time_ms: 1,
        kind: OpCode::CreateSession.code(),
    };
    let create = TxnRecord { header: create, txn: Txn::CreateSession(4000), digest: None };
    installed.write().apply(&create, &mut ()).expect("a session");
    let (begun, go) = hold_syncs(&disk);
    running.queue.append(Zxid(1), payload(1));
    begun.recv_timeout(PATIENCE).expect("a sync has begun");
    (2..=9).for_each(|zxid| running.queue.append(Zxid(zxid), payload(zxid)));
    running.queue.truncate(Zxid(4), running.cut("cut", "refused"));
    running.queue.append(Zxid(first | 1), payload(first | 1));
    running.queue.epoch(EpochFile::Current, 1, running.done("epoch"));
    running.queue.append(Zxid(second | 9), payload(second | 9));
    running.queue.install(installed.clone(), running.done("installed"));
    running.queue.append(Zxid(second | 6), payload(second | 6));
    running.queue.truncate(Zxid(second | 5), running.cut("cut to the installed", "refused"));
    running.queue.append(Zxid(3 << 32 | 1), payload(3 << 32 | 1));
    drop(go);
    let mut order = Vec::new();
    for _ in 0..10 {
        order.push(match running.next() {
            Said::Durable(durable) => durable.upto.to_string(),
            Said::Done(what) => what.to_owned(),
            failed => panic!("{failed:?}"),
        });
    }
    let at = |zxid: i64| Zxid(zxid).to_string();
    let expected = [
        at(1),
        at(9),
        "cut".into(),
        at(first | 1),
        "epoch".into(),
        at(second | 9),
        "installed".into(),
        at(second | 6),
        "cut to the installed".into(),
        at(3 << 32 | 1),
    ];
    assert_eq!(order, expected);
    running.thread.stop();
    disk.crash(0);
    assert_eq!(logged(&disk), [3 << 32 | 1]);
    let again = recover_store(&disk, RecoveryOptions::default(), StoreConfig::default()).expect("recover");
    assert_eq!(again.found.snapshot, Some(Zxid(second | 5)));
    assert_eq!((again.found.last_zxid, again.found.warnings), (Zxid(3 << 32 | 1), vec![]));
    assert_eq!(disk.contents(Dir::Snap, "currentEpoch").as_deref(), Some(&b"1"[..]));
}

/// What a change of the epoch costs: the file and the directory, once each, and no sync can be spared (see
/// the promises of [`Disk`]).
#[test]
fn an_epoch_costs_five_operations_two_of_them_syncs() {
    let disk = MemDisk::new();
    let running = start(&disk);
    let (begun, has_begun) = channel();
    let begun = Mutex::new(begun);
    disk.on_sync(move |name| begun.lock().send(name.to_owned()).expect("the test listens"));
    running.queue.epoch(EpochFile::Accepted, 7, running.done("stored"));
    assert_eq!(running.next(), Said::Done("stored"));
    // Create, write, sync, rename, sync of the directory.
    assert_eq!(disk.operations(), 5);
    assert_eq!(has_begun.try_iter().collect::<Vec<_>>(), ["acceptedEpoch.tmp"]);
    disk.crash(0);
    assert_eq!(disk.contents(Dir::Snap, "acceptedEpoch").as_deref(), Some(&b"7"[..]));
    running.thread.stop();
}

#[test]
fn a_failed_sync_is_final_and_lets_nobody_wait() {
    const EIO: i32 = 5;
    let disk = MemDisk::new();
    let running = start(&disk);
    running.queue.append(Zxid(1), payload(1));
    assert_eq!(running.durable().upto, Zxid(1));
    let before = disk.operations();
    disk.fail_after(1, EIO);
    running.queue.append(Zxid(2), payload(2));
    let Said::Failed(text, errno) = running.next() else { panic!("expected the failure") };
    assert!(text.starts_with("cannot sync mem/log.1:"), "{text}");
    assert_eq!(errno, Some(EIO));
    // The thread is gone or going: these must not block, and never become durable.
    for zxid in 3..=(QUEUE_JOBS_MAX as i64 + 10) {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    running.thread.stop();
    assert_eq!(disk.operations(), before + 2, "nothing was tried behind the failure");
    assert!(running.said.try_recv().is_err());
}

#[test]
fn a_full_disk_fails_with_what_to_do() {
    let disk = MemDisk::new();
    let running = start(&disk);
    disk.limit_space(Some(200));
    for zxid in 1..=20 {
        running.queue.append(Zxid(zxid), payload(zxid));
    }
    let text = loop {
        match running.next() {
            Said::Failed(text, _) => break text,
            Said::Durable(durable) => assert!(durable.upto.0 < 4, "{durable:?}"),
            Said::Done(_) => unreachable!("nothing was to be done"),
        }
    };
    assert!(text.contains("mem/log.1") && text.contains("the disk is full: free some space"), "{text}");
    running.thread.stop();
}

#[test]
fn a_full_queue_makes_the_caller_wait() {
    let disk = MemDisk::new();
    let running = start(&disk);
    let (begun, go) = hold_syncs(&disk);
    running.queue.append(Zxid(1), payload(1));
    begun.recv_timeout(PATIENCE).expect("a sync has begun");
    let large = Bytes::from(vec![0; QUEUE_BYTES_MAX / 4]);
    for zxid in 2..=5 {
        running.queue.append(Zxid(zxid), large.clone());
    }
    let (queue, (passed, has_passed)) = (running.queue.clone(), channel());
    let waiting = std::thread::spawn(move || {
        queue.append(Zxid(6), payload(6));
        passed.send(()).expect("the test listens");
    });
    assert!(has_passed.recv_timeout(Duration::from_millis(100)).is_err(), "the queue is full");
    drop(go);
    has_passed.recv_timeout(PATIENCE).expect("room again");
    waiting.join().expect("no panic");
    while running.durable().upto < Zxid(6) {}
    running.thread.stop();
}

#[test]
fn purge_goes_through_the_queue_and_its_failure_is_no_end() {
    let disk = MemDisk::new();
    let running = start(&disk);
    for zxid in [10, 20, 30, 40, 50] {
        running.queue.append(Zxid(zxid), payload(zxid));
        running.queue.roll();
        // Whole for the quick look that purging takes.
        let name = format!("snapshot.{zxid:x}");
        disk.edit(Dir::Snap, &name, |bytes| *bytes = b"ZKSN......\0\0\0\x01/".to_vec());
    }
    running.queue.barrier(running.done("logged"));
    while running.next() != Said::Done("logged") {}
    disk.fail_after(0, 5);
    running.queue.purge(3);
    running.queue.purge(3);
    running.queue.append(Zxid(60), payload(60));
    assert_eq!(running.durable().upto, Zxid(60));
    running.thread.stop();
    let mut names = disk.list(Dir::Snap).expect("list");
    names.sort();
    let kept = ["log.1e", "log.28", "log.32", "log.3c", "snapshot.1e", "snapshot.28", "snapshot.32"];
    assert_eq!(names, kept);
}

const CHILD: &str = "ZOOMETRY_TEST_DISK_FAILS";

/// Not a test by itself: the process that [`the_process_ends_with_its_code`] starts.
#[test]
fn child_process_whose_disk_fails() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let disk = MemDisk::new();
    disk.fail_after(4, 28);
    let log = TxnLog::new(disk.clone(), LogOptions { prealloc_bytes: 0, ..LogOptions::default() });
    let (queue, _thread) =
        spawn(disk, log, DiskOptions { now_ns, sync_warn_ms: 1000 }, |_, _| (), exit).expect("spawn");
    queue.append(Zxid(1), payload(1));
    std::thread::sleep(PATIENCE);
}

#[test]
fn the_process_ends_with_its_code_and_a_sentence() {
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "disk_thread::tests::child_process_whose_disk_fails", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(EXIT_DISK_FAILED), "{text}");
    assert!(text.contains("storage failed (errno 28)") && text.contains("mem/log.1"), "{text}");
    assert!(text.contains("the disk is full"), "{text}");
}
