//! What the store costs without anything around it: no frames, no locks, no disk.
//!
//! Over 100 000 znodes of 100 bytes, asked for in an order that no cache foresees.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use zoometry_replica::store::watch::WatcherId;
use zoometry_replica::store::{Answer, Asked, Caller, Prep, Store, StoreConfig};
use zoometry_wire::request::{CreateRequest, PathVersion, PathWatch, SetDataRequest};
use zoometry_wire::{Acl, Id, Request, Response, SessionId, TxnRecord, Zxid};

const ZNODES: usize = 100_000;
const PER_PARENT: usize = 100;
const SESSION: SessionId = SessionId(5);

struct World {
    store: Store,
    prep: Prep,
    zxid: Zxid,
    ids: Vec<Id>,
}

impl World {
    fn new() -> Self {
        let config = StoreConfig { hash_seed: 42, ..StoreConfig::default() };
        let ids = vec![Id { scheme: "ip".into(), id: "127.0.0.1".into() }];
        let store = Store::new(config.clone());
        let mut world = Self { store, prep: Prep::new(config), zxid: Zxid(0), ids };
        for at in 0..ZNODES / PER_PARENT {
            world.write(&create(format!("/parent-{at:04}")));
            for child in 0..PER_PARENT {
                world.write(&create(path(at * PER_PARENT + child)));
            }
        }
        world
    }

    fn prepare(&mut self, request: &Request) -> TxnRecord {
        self.zxid = self.zxid.next();
        let asked = Asked { session: SESSION, cxid: 1, ids: &self.ids, request, session_check: Ok(()) };
        self.prep.prepare(&self.store, &asked, self.zxid, 1_700_000_000_000)
    }

    fn write(&mut self, request: &Request) -> Response {
        let record = self.prepare(request);
        let answer = self.store.apply(&record, &mut ()).expect("a write that succeeds");
        self.prep.applied(self.zxid);
        answer
    }

    fn read(&self, request: &Request) -> Answer<'_> {
        let caller = Caller { session: SESSION, watcher: WatcherId(1), ids: &self.ids };
        self.store.read(request, &caller, &mut Vec::new()).expect("a read that succeeds")
    }
}

fn path(at: usize) -> String {
    format!("/parent-{:04}/child-{:04}", at / PER_PARENT, at % PER_PARENT)
}

fn value() -> Option<Bytes> {
    Some(Bytes::from_static(&[7; 100]))
}

fn create(path: String) -> Request {
    Request::Create(CreateRequest { path, data: value(), acl: Acl::open(), flags: 0 })
}

/// A fixed order in which no znode is near the one before it.
fn scattered() -> impl Iterator<Item = usize> + Clone {
    (0..ZNODES).map(|at| at * 48_271 % ZNODES)
}

fn reads(c: &mut Criterion) {
    let world = World::new();
    let mut group = c.benchmark_group("read");
    let watch = |path| PathWatch { path, watch: false };
    // As on a server, the request is warm, for it has just been decoded, and the znode is not.
    let mut at = scattered().cycle();
    group.bench_function("getData", |b| {
        b.iter_batched(
            || Request::GetData(watch(path(at.next().expect("endless")))),
            |ask| black_box(world.read(&ask)),
            BatchSize::SmallInput,
        )
    });
    let mut ten = || -> Vec<String> { at.by_ref().take(10).map(path).collect() };
    group.bench_function("getData, ten of one connection", |b| {
        b.iter_batched(
            || ten().into_iter().map(|path| Request::GetData(watch(path))).collect::<Vec<_>>(),
            |asks| {
                world.store.warm(asks.iter().filter_map(|ask| match ask {
                    Request::GetData(ask) => Some(ask.path.as_str()),
                    _ => None,
                }));
                for ask in &asks {
                    black_box(world.read(ask));
                }
            },
            BatchSize::SmallInput,
        )
    });
    let hot = Request::GetData(watch(path(0)));
    group.bench_function("getData, one znode", |b| b.iter(|| black_box(world.read(&hot))));
    group.bench_function("exists", |b| {
        b.iter_batched(
            || Request::Exists(watch(path(at.next().expect("endless")))),
            |ask| black_box(world.read(&ask)),
            BatchSize::SmallInput,
        )
    });
    let list = Request::GetChildren(watch("/parent-0500".into()));
    group.bench_function("getChildren of 100", |b| b.iter(|| black_box(world.read(&list))));
    group.finish();
}

fn writes(c: &mut Criterion) {
    let mut world = World::new();
    let mut group = c.benchmark_group("write");
    let set = |at| Request::SetData(SetDataRequest { path: path(at), data: value(), version: -1 });
    let asks: Vec<Request> = scattered().map(set).collect();
    let mut next = asks.iter().cycle();
    group.bench_function("setData, prep and apply", |b| {
        b.iter(|| black_box(world.write(next.next().expect("endless"))))
    });
    let mut next = asks.chunks(100).cycle();
    group.bench_function("setData, 100 prepared ahead", |b| {
        b.iter(|| {
            let records: Vec<TxnRecord> =
                next.next().expect("endless").iter().map(|ask| world.prepare(ask)).collect();
            for record in &records {
                black_box(world.store.apply(record, &mut ()).expect("a write that succeeds"));
            }
            world.prep.applied(world.zxid);
        })
    });
    let mut at = 0;
    group.bench_function("create and delete", |b| {
        b.iter_batched(
            || {
                at += 1;
                let path = format!("/parent-0500/new-{at:09}");
                let delete = Request::Delete(PathVersion { path: path.clone(), version: -1 });
                (create(path), delete)
            },
            |(create, delete)| {
                black_box(world.write(&create));
                black_box(world.write(&delete));
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

criterion_group!(benches, reads, writes);
criterion_main!(benches);
