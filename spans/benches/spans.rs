//! What tracing costs: on the request path (identity, the decision), and off it (spans, JSON).
//!
//! `cargo bench -p zoometry-spans`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use zoometry_spans::{Clock, Identity, Kind, Role, SampleRate, Span, attrs, json};
use zoometry_wire::SessionId;

fn identity(c: &mut Criterion) {
    let identity = Identity::new(0, SampleRate::from_probability(0.001));
    let session = SessionId(0x0100_0199_aaaa_0001);
    let mut xid = 0;
    let mut next = move || {
        xid = (xid + 1) & 0x7fff_ffff;
        xid
    };
    let mut group = c.benchmark_group("identity");
    group.bench_function("keep decision", |b| b.iter(|| identity.keeps(black_box(session), next())));
    group.bench_function("trace id", |b| b.iter(|| identity.request(black_box(session), next())));
    group.bench_function("trace id and span id", |b| {
        b.iter(|| identity.request(black_box(session), next()).span(Role::Server, black_box(1)));
    });
    let clock = Clock::start();
    group.bench_function("clock reading", |b| b.iter(|| clock.now_ns()));
    group.finish();
}

/// A span as the server builds it.
fn built(identity: &Identity, xid: i32) -> Span {
    let trace = identity.request(SessionId(0x0100_0199_aaaa_0001), xid);
    Span::new(trace, trace.span(Role::Server, 1), "setData", Kind::Server, 1_000, 2_000)
        .child_of(trace.span(Role::Client, 0))
        .with(attrs::RPC_SYSTEM_NAME, "zookeeper")
        .with(attrs::RPC_METHOD, "setData")
        .with(attrs::CXID, i64::from(xid))
        .with(attrs::SERVER_ID, 1)
        .with(attrs::KEPT_BY, "head")
}

fn spans(c: &mut Criterion) {
    let identity = Identity::new(0, SampleRate::ALL);
    let mut group = c.benchmark_group("span");
    group.throughput(Throughput::Elements(1));
    group.bench_function("build", |b| b.iter(|| built(black_box(&identity), 7)));
    let span = built(&identity, 7);
    let mut out = String::new();
    group.bench_function("to JSON", |b| {
        b.iter(|| {
            out.clear();
            json::write_span(&mut out, black_box(&span));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, identity, spans);
criterion_main!(benches);
