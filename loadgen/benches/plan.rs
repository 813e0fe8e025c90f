//! What planning an operation costs: it happens on the generator's hot path, so it must stay below 100 ns
//! altogether (what it is, which key, how large, when due), whatever the distribution and the number of
//! workers.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use zoometry::keys::KeySpace;
use zoometry::plan::{Plan, Share};
use zoometry::spec::Spec;

fn spec(keys: &str, arrival: &str) -> Spec {
    let text = format!(
        "[data]\nznodes = 1_000_000\nshape = {{ fanout = 1000 }}\nvalue = {{ min = 10, max = 1000 }}\n\
         [[phase]]\nname = \"p\"\nduration = \"1s\"\nmix = {{ get = 10, set = 1, multi = 1 }}\n\
         keys = {keys}\narrival = {arrival}\n"
    );
    Spec::parse("bench.toml", &text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("op");
    group.throughput(Throughput::Elements(1));
    for (name, keys) in [
        ("uniform", "\"uniform\""),
        ("zipf 0.99", "{ zipf = 0.99 }"),
        ("zipf 1.5", "{ zipf = 1.5 }"),
        ("hot set", "{ hot = { keys = 10, share = 0.9 } }"),
        ("sequential", "\"sequential\""),
    ] {
        let plan = Plan::new(&spec(keys, "\"closed\""));
        let mut index = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                index += 1;
                black_box(plan.phase(0).op(index))
            })
        });
    }
    group.finish();
}

/// Due time and operation together, for one of so many workers: 100 000 due in a second, per operation of
/// its own.
fn schedules(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule and op");
    for (name, arrival, workers) in [
        ("constant", "{ constant = 100000 }", 1),
        ("ramp", "{ ramp = { from = 0, to = 200000 } }", 1),
        ("poisson", "{ poisson = 100000 }", 1),
        ("poisson, 1 of 4 workers", "{ poisson = 100000 }", 4),
    ] {
        let plan = Plan::new(&spec("{ zipf = 0.99 }", arrival));
        let schedule = || plan.phase(0).schedule(Share { worker: 0, workers }).expect("open");
        group.throughput(Throughput::Elements(schedule().count() as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                schedule,
                |schedule| {
                    for due in schedule {
                        black_box((due.due_ns, plan.phase(0).op(due.index)));
                    }
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

fn paths(c: &mut Criterion) {
    let space = KeySpace::new(&spec("\"uniform\"", "\"closed\"").data);
    let mut path = String::new();
    let mut key = 0;
    c.bench_function("path, two levels", |b| {
        b.iter(|| {
            path.clear();
            key = (key + 7919) % space.len();
            space.push_path(key, &mut path);
            black_box(&path);
        })
    });
}

criterion_group!(benches, operations, schedules, paths);
criterion_main!(benches);
