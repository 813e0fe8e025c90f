//! What one `Recorder::record` costs the generator: it must stay well under 100 ns.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zoometry::op::{Op, Outcome};
use zoometry::recorder::{Completion, INTERVAL_NS, Recorder};

/// Operations per iteration: a second of a busy worker, with its interval changes.
const BATCH: u64 = 100_000;

/// Latencies between 50 us and about 1 ms, two kinds of operation, 10 us apart.
fn completion(n: u64) -> Completion {
    let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    let due_ns = n * 10_000;
    Completion {
        phase: 1,
        op: if n.is_multiple_of(11) { Op::Set } else { Op::Get },
        outcome: Outcome::Ok,
        due_ns,
        sent_ns: due_ns + 3_000,
        done_ns: due_ns + 50_000 + spread,
        bytes: 100,
    }
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("recorder");
    group.throughput(Throughput::Elements(BATCH));
    let completions: Vec<Completion> = (0..BATCH).map(completion).collect();
    group.bench_function("record 100,000 in one second of run", |b| {
        let mut recorder = Recorder::new(INTERVAL_NS);
        let mut second = 0u64;
        b.iter(|| {
            let shift = second * 1_000_000_000;
            second += 1;
            for c in &completions {
                recorder.record(&Completion {
                    due_ns: c.due_ns + shift,
                    sent_ns: c.sent_ns + shift,
                    done_ns: c.done_ns + shift,
                    ..*c
                });
            }
            // Handing over is part of the cost.
            std::hint::black_box(recorder.take(shift + 1_000_000_000));
        });
    });
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
