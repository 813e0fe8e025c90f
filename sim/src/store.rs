//! One standalone member's data through many lives: requests become transactions, are logged, applied and
//! snapshotted, until the power fails in the middle of some write, sync or rename; then the directory is
//! recovered and the member lives on.
//!
//! Runs the real prep, store, log, snapshot and recovery code over a disk in memory that keeps what was
//! synced and an arbitrary part of what was not. Judged after each crash: every acknowledged write is there,
//! in order, and the tree's digest is the one that was recorded when its last transaction was prepared; the
//! digest of a recovered tree is the sum over its znodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::storage::log::{LogOptions, SyncMode};
use zoometry_replica::storage::recovery::recover_store;
use zoometry_replica::storage::snapshot::{SnapshotEnd, digest_block};
use zoometry_replica::storage::{Compression, RecoveryOptions, SnapshotWriter, StorageError, TxnLog};
use zoometry_replica::store::{Asked, Prep, Store, StoreConfig};
use zoometry_wire::request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest};
use zoometry_wire::{Acl, Id, Record as _, Request, SessionId, Zxid};

use crate::random::Random;
use crate::story::Story;

/// Lives of one directory.
const LIVES: usize = 8;
/// Requests in a life that no crash ends.
const REQUESTS_PER_LIFE: usize = 120;
/// Requests prepared ahead of the disk, at most.
const AHEAD: usize = 6;

fn config() -> StoreConfig {
    StoreConfig { extended_types: true, ..StoreConfig::default() }
}

struct Member {
    disk: MemDisk,
    store: Store,
    prep: Prep,
    log: TxnLog<MemDisk>,
    last_zxid: Zxid,
}

impl Member {
    fn start(disk: &MemDisk) -> Result<Self, StorageError> {
        let recovered = recover_store(disk, RecoveryOptions::default(), config())?;
        assert_eq!(recovered.digest_mismatches, 0, "a replayed transaction gave another tree");
        let options = LogOptions { prealloc_bytes: 4096, sync: SyncMode::Always, roll_at_bytes: None };
        let store = recovered.found.state;
        let mut member = Self {
            disk: disk.clone(),
            last_zxid: store.last_zxid(),
            prep: Prep::new(config()),
            log: TxnLog::new(disk.clone(), options),
            store,
        };
        member.snapshot()?;
        Ok(member)
    }

    fn snapshot(&mut self) -> Result<(), StorageError> {
        let head = self.store.snapshot_head();
        let mut writer =
            SnapshotWriter::create(self.disk.clone(), self.store.last_zxid(), Compression::None, &head)?;
        let mut walk = self.store.start_walk();
        while self.store.walk(&mut walk, 16, &mut |node| writer.node(&node)) {}
        let zxid = self.store.last_zxid();
        let digest = Some(digest_block(zxid, self.store.digest()));
        writer.finish(SnapshotEnd { digest, last_zxid: Some(zxid) })?;
        self.log.roll()
    }

    /// Several writes, prepared ahead of one another, made durable together, then applied. Returns each
    /// one's zxid and the digest that the tree has behind it, if the transaction says.
    fn write(
        &mut self,
        requests: &[(SessionId, Request)],
        expected: &mut BTreeMap<Zxid, Option<i64>>,
    ) -> Result<(), StorageError> {
        let ids = [Id { scheme: "ip".into(), id: "127.0.0.1".into() }];
        let mut records = Vec::new();
        for (session, request) in requests {
            self.last_zxid = self.last_zxid.next();
            let asked = Asked { session: *session, cxid: 1, ids: &ids, request, session_check: Ok(()) };
            let time_ms = 1_700_000_000_000 + self.last_zxid.0;
            let record = self.prep.prepare(&self.store, &asked, self.last_zxid, time_ms);
            expected.insert(self.last_zxid, record.digest.map(|digest| digest.tree));
            self.log.append(self.last_zxid, &record.to_bytes())?;
            records.push(record);
        }
        self.log.commit()?;
        for record in records {
            // A refusal is logged and applied like everything else.
            let _ = self.store.apply(&record, &mut ());
            self.prep.applied(record.header.zxid);
        }
        Ok(())
    }
}

/// Lives one directory through. Panics when a judge objects.
pub fn live(seed: u64, mut story: Story) -> Story {
    let mut random = Random::new(seed);
    let disk = MemDisk::new();
    let mut expected: BTreeMap<Zxid, Option<i64>> = BTreeMap::new();
    let mut acknowledged = Zxid(0);
    for life in 0..LIVES {
        if !random.one_in(4) {
            disk.freeze_after(random.below(160) as u64);
        }
        let ended = one_life(&disk, &mut random, &mut expected, &mut acknowledged, &mut story);
        story.tell(|| format!("life {life} ends at {acknowledged}: {ended:?}"));
        disk.crash(random.number());
        let found = recover_store(&disk, RecoveryOptions::default(), config())
            .unwrap_or_else(|error| panic!("not recovered after {acknowledged}: {error}"));
        judge(&found.found.state, acknowledged, &expected);
        // What was not acknowledged and is there now will stay; what is not there never was.
        acknowledged = found.found.last_zxid;
        expected.split_off(&acknowledged.next());
        story.tell(|| format!("recovered at {acknowledged}, digest {:x}", found.found.state.digest()));
    }
    story
}

fn one_life(
    disk: &MemDisk,
    random: &mut Random,
    expected: &mut BTreeMap<Zxid, Option<i64>>,
    acknowledged: &mut Zxid,
    story: &mut Story,
) -> Result<(), String> {
    let mut member = Member::start(disk).map_err(|error| error.to_string())?;
    let mut done = 0;
    while done < REQUESTS_PER_LIFE {
        let batch: Vec<_> = (0..=random.below(AHEAD)).map(|_| any_request(random)).collect();
        done += batch.len();
        member.write(&batch, expected).map_err(|error| error.to_string())?;
        *acknowledged = member.last_zxid;
        story.tell(|| {
            format!("{} writes, now {acknowledged}, digest {:x}", batch.len(), member.store.digest())
        });
        if random.one_in(12) {
            member.snapshot().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn judge(store: &Store, acknowledged: Zxid, expected: &BTreeMap<Zxid, Option<i64>>) {
    let last = store.last_zxid();
    assert!(last >= acknowledged, "acknowledged {acknowledged}, recovered only {last}");
    // A refused write carries no digest: the tree is that of the one before.
    let recorded = expected.range(..=last).rev().find_map(|(_, digest)| *digest);
    if let Some(recorded) = recorded {
        assert_eq!(store.digest() as i64, recorded, "the tree at {last} is not the one that was written");
    }
}

fn any_request(random: &mut Random) -> (SessionId, Request) {
    let session = SessionId(1 + random.below(4) as i64);
    let request = match random.below(12) {
        0 => Request::CreateSession(4000),
        1 if random.one_in(3) => Request::CloseSession,
        2..=5 => {
            let flags = [0, 0, 0, 1, 2, 3, 4][random.below(7)];
            Request::Create(CreateRequest {
                path: any_path(random),
                data: any_data(random),
                acl: Acl::open(),
                flags,
            })
        }
        6 => Request::Delete(PathVersion { path: any_path(random), version: -1 }),
        7 => Request::SetAcl(SetAclRequest { path: any_path(random), acl: Acl::open(), version: -1 }),
        8 => Request::Multi((0..1 + random.below(4)).map(|_| any_simple(random)).collect()),
        _ => any_simple(random),
    };
    (session, request)
}

fn any_simple(random: &mut Random) -> Request {
    let path = any_path(random);
    match random.below(4) {
        0 => Request::Create(CreateRequest { path, data: any_data(random), acl: Acl::open(), flags: 0 }),
        1 => Request::Delete(PathVersion { path, version: -1 }),
        2 => Request::Check(PathVersion { path, version: random.below(3) as i32 }),
        _ => Request::SetData(SetDataRequest { path, data: any_data(random), version: -1 }),
    }
}

fn any_path(random: &mut Random) -> String {
    (0..1 + random.below(3)).map(|_| format!("/n{}", random.below(5))).collect()
}

fn any_data(random: &mut Random) -> Option<Bytes> {
    match random.below(4) {
        0 => None,
        1 => Some(Bytes::new()),
        _ => Some(Bytes::from(vec![random.number() as u8; random.below(300)])),
    }
}
