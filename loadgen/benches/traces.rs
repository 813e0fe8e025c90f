//! What the decision costs whether a finished request is kept as a trace.
//!
//! `cargo bench -p zoometry --bench traces`

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use zoometry::op::{Op, Outcome};
use zoometry::traces::{RequestTrace, SLOWEST_PER_SECOND, TraceSettings, Traces};
use zoometry_spans::{Clock, Identity, Resource, SampleRate};
use zoometry_wire::{OpCode, SessionId, Zxid};

fn offer(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let traces = Traces::start(TraceSettings {
        identity: Identity::new(0, SampleRate::from_probability(SampleRate::DEFAULT_PROBABILITY)),
        slowest_per_second: SLOWEST_PER_SECOND,
        clock: Clock::start(),
        phases: vec!["steady".into()],
        servers: vec![("127.0.0.1".into(), 2181)],
        exporter: None,
        resource: Resource::load_generator("0", "bench"),
        span_file: directory.path().join("spans"),
    })
    .expect("a writable temporary directory");
    let mut sampler = traces.sampler();
    let session = SessionId(0x0100_0199_aaaa_0001);
    let mut n = 0u64;
    // 100 000 requests a second, with latencies of 1 to 2 ms in no order.
    c.bench_function("sampler, every request", |b| {
        b.iter(|| {
            n += 1;
            let done_ns = n * 10_000;
            let response_ns = 1_000_000 + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
            let xid = (n & 0x7fff_ffff) as i32;
            sampler.offer(black_box(session), xid, Outcome::Ok, response_ns, done_ns, || RequestTrace {
                session,
                xid,
                op: Op::Get,
                opcode: OpCode::GetData,
                outcome: Outcome::Ok,
                phase: 0,
                server: 0,
                due_ns: done_ns.saturating_sub(response_ns),
                sent_ns: done_ns.saturating_sub(response_ns),
                done_ns,
                zxid: Zxid(1),
                path: "/load/data/n1".into(),
            });
        });
    });
    drop(sampler);
    let counts = traces.finish();
    println!("{n} requests, kept {} for their ids and {} as the slowest", counts.head, counts.slow);
}

criterion_group!(benches, offer);
criterion_main!(benches);
