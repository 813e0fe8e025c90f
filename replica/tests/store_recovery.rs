//! The store through its files: what was logged and snapshotted comes back as the same tree, whatever is
//! written while a snapshot is being taken, wherever the power fails, and damage ends in an error.

use bytes::Bytes;
use proptest::prelude::*;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::log::{LogOptions, SyncMode};
use zoometry_replica::storage::recovery::{Proof, RecoveredStore, Warning, recover_store};
use zoometry_replica::storage::snapshot::{SnapshotEnd, SnapshotItem, digest_block};
use zoometry_replica::storage::{
    Compression, Dir, Disk, LogReader, RecoveryOptions, SnapshotWriter, StorageError, TxnLog,
};
use zoometry_replica::store::prep::{Asked, Prep};
use zoometry_replica::store::watch::{WatchEvent, WatchSink, WatcherId};
use zoometry_replica::store::{Store, StoreConfig};
use zoometry_wire::request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest};
use zoometry_wire::{Acl, Id, Record, Request, SessionId, Zxid};

struct Nobody;

impl WatchSink for Nobody {
    fn fire(&mut self, _event: &WatchEvent<'_>, _watchers: &[WatcherId]) {}
}

fn config() -> StoreConfig {
    StoreConfig { digest: true, extended_types: true, ..StoreConfig::default() }
}

/// A member that only writes: store, prep and log over one disk.
struct Member {
    disk: MemDisk,
    store: Store,
    prep: Prep,
    log: TxnLog<MemDisk>,
    /// The next transaction is not the one behind the last.
    next: Option<Zxid>,
}

impl Member {
    fn start(disk: &MemDisk) -> Result<Self, StorageError> {
        let RecoveredStore { found, digest_mismatches, .. } =
            recover_store(disk, RecoveryOptions::default(), config())?;
        assert_eq!(digest_mismatches, 0);
        let options = LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };
        let log = TxnLog::new(disk.clone(), options);
        let (store, prep) = (found.state, Prep::new(config()));
        let mut member = Self { disk: disk.clone(), store, prep, log, next: None };
        if found.snapshot.is_none() {
            member.fuzzy_snapshot(&[])?;
        }
        Ok(member)
    }

    /// One write, durable and applied when this returns.
    fn write(&mut self, session: i64, request: &Request) -> Result<(), StorageError> {
        let zxid = self.next.take().unwrap_or_else(|| self.store.last_zxid().next());
        let ids = [Id { scheme: "ip".into(), id: "127.0.0.1".into() }];
        let asked = Asked { session: SessionId(session), cxid: 1, ids: &ids, request, session_check: Ok(()) };
        let record = self.prep.prepare(&self.store, &asked, zxid, 1_700_000_000_000 + zxid.0);
        self.log.append(zxid, &record.to_bytes())?;
        self.log.commit()?;
        // A refusal is logged and applied like everything else.
        let _ = self.store.apply(&record, &mut Nobody);
        self.prep.applied(zxid);
        Ok(())
    }

    /// A snapshot in slices of one znode, with `meanwhile` written in between, one request for each.
    fn fuzzy_snapshot(&mut self, meanwhile: &[(i64, Request)]) -> Result<(), StorageError> {
        let head: Vec<SnapshotItem> = self.store.snapshot_head();
        let mut writer =
            SnapshotWriter::create(self.disk.clone(), self.store.last_zxid(), Compression::None, &head)?;
        let mut walk = self.store.start_walk();
        let mut requests = meanwhile.iter();
        while self.store.walk(&mut walk, 1, &mut |node| writer.node(&node)) {
            if let Some((session, request)) = requests.next() {
                self.write(*session, request)?;
            }
        }
        writer.finish(self.end()).map(|_| ())
    }

    fn end(&self) -> SnapshotEnd {
        let zxid = self.store.last_zxid();
        SnapshotEnd { digest: Some(digest_block(zxid, self.store.digest())), last_zxid: Some(zxid) }
    }

    /// Everything a snapshot would say, in an order of its own.
    fn facts(&self) -> Vec<String> {
        facts(&self.store)
    }
}

fn facts(store: &Store) -> Vec<String> {
    let head = store.snapshot_head();
    let list =
        |index: i64| match head.iter().find(|item| matches!(item, SnapshotItem::Acl(i, _) if *i == index)) {
            Some(SnapshotItem::Acl(_, list)) => list.to_vec(),
            _ => Acl::open(),
        };
    let mut facts: Vec<String> =
        store.sessions().map(|(session, timeout_ms)| format!("{session} {timeout_ms}")).collect();
    let mut walk = store.start_walk();
    while store.walk(&mut walk, 64, &mut |node| {
        facts.push(format!("{} {:?} {:?} {:?}", node.path, node.data, node.stat, list(node.acl)));
    }) {}
    facts.sort();
    facts
}

fn recovered(disk: &MemDisk) -> RecoveredStore {
    recover_store(disk, RecoveryOptions::default(), config()).expect("recover")
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..6).prop_map(|n| format!("/n{n}")),
        (0..6, 0..4).prop_map(|(n, m)| format!("/n{n}/m{m}")),
        (0..3, 0..3, 0..3).prop_map(|(n, m, k)| format!("/n{n}/m{m}/k{k}")),
    ]
}

fn any_acl() -> impl Strategy<Value = Vec<Acl>> {
    let own = |perms| vec![Acl { perms, id: Id { scheme: "ip".into(), id: "127.0.0.1".into() } }];
    prop_oneof![2 => Just(Acl::open()), 1 => Just(own(31)), 1 => Just(own(15))]
}

fn any_simple() -> impl Strategy<Value = Request> {
    let data = prop_oneof![
        Just(None),
        Just(Some(Bytes::new())),
        (0usize..400).prop_map(|length| Some(Bytes::from(vec![7; length]))),
    ];
    let create = (any_path(), data.clone(), any_acl(), prop_oneof![5 => Just(0), 2 => Just(1), 1 => Just(2)])
        .prop_map(|(path, data, acl, flags)| Request::Create(CreateRequest { path, data, acl, flags }));
    prop_oneof![
        6 => create,
        3 => any_path().prop_map(|path| Request::Delete(PathVersion { path, version: -1 })),
        3 => (any_path(), data).prop_map(|(path, data)| {
            Request::SetData(SetDataRequest { path, data, version: -1 })
        }),
    ]
}

fn any_request() -> impl Strategy<Value = (i64, Request)> {
    let request = prop_oneof![
        12 => any_simple(),
        2 => (any_path(), any_acl()).prop_map(|(path, acl)| {
            Request::SetAcl(SetAclRequest { path, acl, version: -1 })
        }),
        3 => proptest::collection::vec(any_simple(), 1..4).prop_map(Request::Multi),
        1 => (4000..9000).prop_map(Request::CreateSession),
        1 => Just(Request::CloseSession),
    ];
    (1i64..4, request)
}

fn requests(most: usize) -> impl Strategy<Value = Vec<(i64, Request)>> {
    proptest::collection::vec(any_request(), 0..most)
}

/// What a leader brings others up to date with is as long as it was asked to be.
#[test]
fn the_last_transactions_are_handed_on() {
    let disk = MemDisk::new();
    let mut member = Member::start(&disk).expect("start");
    for number in 0..40 {
        let create = CreateRequest { path: format!("/n{number}"), data: None, acl: Acl::open(), flags: 0 };
        member.write(1, &Request::Create(create)).expect("write");
    }
    let last = member.store.last_zxid().0;
    for limit in [0, 1, 30, 1000] {
        let options = RecoveryOptions { tail_limit: limit, ..RecoveryOptions::default() };
        let tail = recover_store(&disk, options, config()).expect("recover").tail;
        let zxids: Vec<_> = tail.iter().map(|(zxid, _)| zxid.0).collect();
        let kept = (limit as i64).min(last);
        assert_eq!(zxids, (last - kept + 1..=last).collect::<Vec<_>>(), "of {limit}");
    }
}

proptest! {
    /// Whatever happens while a snapshot is written, snapshot and log give the same tree.
    #[test]
    fn a_fuzzy_snapshot_and_the_log_make_the_tree(
        before in requests(60),
        meanwhile in requests(40),
        behind in requests(10),
    ) {
        let disk = MemDisk::new();
        let mut member = Member::start(&disk).expect("start");
        for session in 1..4 {
            member.write(session, &Request::CreateSession(5000)).expect("write");
        }
        for (session, request) in &before {
            member.write(*session, request).expect("write");
        }
        member.fuzzy_snapshot(&meanwhile).expect("snapshot");
        for (session, request) in &behind {
            member.write(*session, request).expect("write");
        }
        let again = recovered(&disk);
        prop_assert_eq!(again.found.warnings, []);
        prop_assert_eq!(again.digest_mismatches, 0);
        prop_assert_eq!(again.found.state.digest(), member.store.digest());
        prop_assert_eq!(facts(&again.found.state), member.facts());
    }

    /// The power fails anywhere: the recovered tree is that of the acknowledged writes, or of one more.
    #[test]
    fn acknowledged_writes_survive(
        writes in requests(40),
        snapshot_at in 0usize..40,
        operation in 0u64..90,
        seed in any::<u64>(),
    ) {
        let disk = MemDisk::new();
        disk.freeze_after(operation);
        let mut history = vec![(Zxid(0), facts(&Store::new(config())))];
        let lived = (|| -> Result<(), StorageError> {
            let mut member = Member::start(&disk)?;
            for (at, (session, request)) in writes.iter().enumerate() {
                if at == snapshot_at {
                    member.fuzzy_snapshot(&[])?;
                }
                member.write(*session, request)?;
                history.push((member.store.last_zxid(), member.facts()));
            }
            Ok(())
        })();
        disk.crash(seed);
        let again = recovered(&disk);
        let acknowledged = history.last().expect("at least the empty tree");
        let last = again.found.last_zxid;
        prop_assert!(last >= acknowledged.0 && (lived.is_err() || last == acknowledged.0));
        if last == acknowledged.0 {
            prop_assert_eq!(&facts(&again.found.state), &acknowledged.1);
        }
        let holes = again.found.warnings.iter().any(|warning| !matches!(warning, Warning::TornTail { .. }));
        prop_assert!(!holes, "{:?}", again.found.warnings);
    }

    /// Damage anywhere in any file: a tree or an error, never a panic.
    #[test]
    fn damage_never_panics(
        before in requests(40),
        behind in requests(20),
        file in 0usize..4,
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        reseal in any::<bool>(),
    ) {
        let disk = MemDisk::new();
        let mut member = Member::start(&disk).expect("start");
        for (session, request) in &before {
            member.write(*session, request).expect("write");
        }
        member.fuzzy_snapshot(&behind).expect("snapshot");
        let mut names = disk.list(Dir::Log).expect("list");
        names.sort();
        let name = names[file % names.len()].clone();
        disk.edit(Dir::Log, &name, |bytes| {
            for (place, value) in &places {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            if reseal && name.starts_with("log") {
                reseal_records(bytes);
            }
        });
        if let Err(error) = recover_store(&disk, RecoveryOptions::default(), config()) {
            prop_assert!(error.to_string().contains("mem/"), "{}", error);
        }
    }
}

/// Gives damaged records right checksums again, so that the damage reaches the store.
fn reseal_records(bytes: &mut [u8]) {
    let mut at = 16;
    while let Some(head) = bytes.get(at + 8..at + 12) {
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        let Some(payload) = bytes.get(at + 12..at + 12 + length).filter(|payload| !payload.is_empty()) else {
            return;
        };
        let checksum = u64::from(simd_adler32::adler32(&payload));
        bytes[at..at + 8].copy_from_slice(&checksum.to_be_bytes());
        at += 12 + length + 1;
    }
}

/// A digest that is not the tree's is counted, with the first place, and nothing else happens.
#[test]
fn digest_mismatches_are_counted() {
    let disk = MemDisk::new();
    let mut member = Member::start(&disk).expect("start");
    for n in 0..5 {
        let request = CreateRequest { path: format!("/n{n}"), data: None, acl: Acl::open(), flags: 0 };
        member.write(1, &Request::Create(request)).expect("write");
    }
    disk.edit(Dir::Log, "log.1", |bytes| {
        // The last eight bytes of the first record's payload are its digest.
        let length = u32::from_be_bytes(bytes[24..28].try_into().expect("four bytes")) as usize;
        bytes[28 + length - 1] ^= 1;
        reseal_records(bytes);
    });
    let again = recovered(&disk);
    assert_eq!((again.digest_mismatches, again.first_mismatch), (1, Some(Zxid(1))));
    assert_eq!(again.found.state.digest(), member.store.digest());
    assert_eq!((again.found.damage, again.found.differs), (None, None), "the next one agrees");
}

fn create(member: &mut Member, name: &str) {
    let request = CreateRequest {
        path: format!("/{name}"),
        data: Some(name.to_owned().into()),
        acl: Acl::open(),
        flags: 0,
    };
    member.write(1, &Request::Create(request)).expect("write");
}

/// Six transactions in log.1, three of the next epoch in log.100000001.
fn two_epochs(disk: &MemDisk) {
    let mut member = Member::start(disk).expect("start");
    (1..=6).for_each(|n| create(&mut member, &format!("n{n}")));
    member.log.roll().expect("roll");
    member.next = Some(Zxid(1 << 32 | 1));
    (7..=9).for_each(|n| create(&mut member, &format!("n{n}")));
}

/// Where a file's `n`-th record ends.
fn end_of(disk: &MemDisk, name: &str, n: usize) -> usize {
    let mut reader = LogReader::open(disk, name).expect("open");
    (0..n).for_each(|_| assert!(reader.next_entry().expect("read").is_some()));
    reader.offset() as usize
}

/// Where one epoch ended its zxids do not tell; the digest behind it does.
#[test]
fn a_hole_before_another_epoch_is_known_by_the_digest() {
    let whole = MemDisk::new();
    two_epochs(&whole);
    let found = recovered(&whole).found;
    assert_eq!((found.damage, found.differs), (None, None));
    let end = end_of(&whole, "log.1", 4);
    type Strike = fn(&MemDisk, usize);
    let strikes: [(Strike, i64); 4] = [
        (|disk, end| disk.edit(Dir::Log, "log.1", |bytes| bytes.truncate(end)), 4),
        (|disk, end| disk.edit(Dir::Log, "log.1", |bytes| bytes[end - 1] ^= 1), 3),
        (|disk, end| disk.edit(Dir::Log, "log.1", |bytes| bytes[end..end + 40].fill(0)), 4),
        (|disk, _| disk.remove(Dir::Log, "log.1").expect("remove"), 0),
    ];
    for (strike, before) in strikes {
        let disk = whole.fork();
        strike(&disk, end);
        let again = recovered(&disk);
        let damage = again.found.damage.unwrap_or_else(|| panic!("behind {before}"));
        let known = (damage.proof, damage.before, damage.after);
        assert_eq!(known, (Proof::Digest, Zxid(before), Some(Zxid(1 << 32 | 1))));
        // Without digests nothing shows it.
        let blind = StoreConfig { digest: false, ..config() };
        let found = recover_store(&disk, RecoveryOptions::default(), blind).expect("recover").found;
        assert_eq!((found.damage, found.differs), (None, None));
    }
}

/// In the middle of an epoch nothing can be missing: the tree is another one for another reason.
#[test]
fn a_tree_that_differs_from_its_log_is_told_from_a_hole() {
    let disk = MemDisk::new();
    two_epochs(&disk);
    let start = end_of(&disk, "log.1", 2);
    disk.edit(Dir::Log, "log.1", |bytes| {
        let data = bytes[start..].windows(2).rposition(|two| two == b"n3").expect("the data");
        bytes[start + data + 1] = b'x';
        reseal_records(bytes);
    });
    let found = recovered(&disk).found;
    assert_eq!((found.damage, found.differs), (None, Some(Zxid(3))));
}
