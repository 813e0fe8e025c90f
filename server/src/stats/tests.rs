//! Counting, resetting, and many threads at once.

use std::net::SocketAddr;
use std::sync::Arc;

use zoometry_wire::{SessionId, Zxid};

use super::*;

#[test]
fn a_batch_is_taken_once_and_left_empty() {
    let stats = ServerStats::new();
    let mut batch = Batch {
        packets_received: 3,
        packets_sent: 4,
        bytes_received: 50,
        bytes_sent: 60,
        ..Batch::default()
    };
    batch.answered(OpCode::GetData, 2_000_000, 2);
    batch.answered(OpCode::SetData, 5_000_000, 1);
    batch.answered(OpCode::Ping, 100, 1);
    batch.stage(Stage::Read, 1_500, 2);
    batch.observe(Measure::PrepProcessTime, 700);
    batch.response(16);
    batch.response(84);
    stats.record(&mut batch);
    assert!(batch.is_empty());
    stats.record(&mut batch);

    let all = stats.collect();
    assert_eq!((all.packets_received, all.packets_sent), (3, 4));
    assert_eq!((all.counter(Counter::BytesReceived), all.counter(Counter::BytesSent)), (50, 60));
    assert_eq!(all.latency, Latency { count: 4, sum_ns: 9_000_100, min_ns: 100, max_ns: 5_000_000 });
    assert_eq!(all.response, Sizes { last: 84, min: 16, max: 84 });
    assert_eq!(all.requests(OpCode::GetData).count(), 2);
    assert_eq!(all.measure(Measure::ReadLatency).sum(), 4_000_000);
    assert_eq!(all.measure(Measure::UpdateLatency).count(), 1, "a ping is neither read nor write");
    assert_eq!(all.stage(Stage::Read).sum(), 3_000);
    assert_eq!(all.measure(Measure::PrepProcessTime).count(), 1);
}

#[test]
fn reset_keeps_gauges() {
    let stats = ServerStats::new();
    stats.connection_opened();
    stats.outstanding_add(7);
    let mut batch = Batch { packets_received: 1, ..Batch::default() };
    batch.answered(OpCode::GetData, 1, 1);
    stats.record(&mut batch);
    stats.add(Counter::Commits, 9);
    stats.observe(Measure::FsyncTime, 1);
    stats.reset();
    let all = stats.collect();
    assert_eq!((all.connections, all.outstanding), (1, 7));
    assert_eq!((all.packets_received, all.latency, all.response), (0, Latency::default(), Sizes::default()));
    assert_eq!(all.counter(Counter::Commits), 0);
    assert_eq!(all.measure(Measure::FsyncTime).count(), 0);
    assert_eq!(all.requests(OpCode::GetData).count(), 0);
}

#[test]
fn many_threads_lose_nothing() {
    const THREADS: u64 = 2 * SHARDS as u64;
    const ROUNDS: u64 = 50;
    let stats = Arc::new(ServerStats::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut batch = Batch::default();
                for round in 0..ROUNDS {
                    batch.packets_received = 2;
                    batch.answered(OpCode::GetData, round, 2);
                    stats.record(&mut batch);
                    stats.add(Counter::WatchBytes, 1);
                }
            });
        }
    });
    let all = stats.collect();
    assert_eq!(all.packets_received, THREADS * ROUNDS * 2);
    assert_eq!(all.requests(OpCode::GetData).count(), THREADS * ROUNDS * 2);
    assert_eq!(all.requests(OpCode::GetData).sum(), THREADS * 2 * (ROUNDS * (ROUNDS - 1) / 2));
    assert_eq!(all.counter(Counter::WatchBytes), THREADS * ROUNDS);
}

#[test]
fn every_operation_has_its_own_place() {
    let mut places: Vec<usize> = OpCode::ALL.iter().map(|op| op_index(*op)).collect();
    places.dedup();
    assert_eq!(places, (0..OpCode::ALL.len()).collect::<Vec<_>>());
}

#[test]
fn distributions_are_exact_within_a_percent() {
    let mut one = Distribution::default();
    let mut other = Distribution::default();
    for value in 1..=1000u64 {
        if value % 2 == 0 { one.record(value * 1000, 1) } else { other.record(value * 1000, 1) }
    }
    one.merge(&other);
    assert_eq!((one.count(), one.sum()), (1000, 500_500_000));
    assert_eq!(one.mean(), 500_500.0);
    for (quantile, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.999, 999_000.0)] {
        let found = one.quantile(quantile).expect("not empty") as f64;
        assert!((found / exact - 1.0).abs() < 0.01, "{quantile}: {found}");
    }
    let bounds = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    let counts = one.cumulative(&bounds);
    for (count, exact) in counts.iter().zip([1u64, 10, 100, 1000, 1000]) {
        assert!(count.abs_diff(exact) <= exact / 50, "{counts:?}");
    }
    assert_eq!(Distribution::default().quantile(0.5), None);
    assert_eq!((Distribution::default().min(), Distribution::default().max()), (0, 0));
}

#[test]
fn any_value_can_be_recorded() {
    let mut distribution = Distribution::default();
    for value in [0, 1, u64::MAX, u64::MAX - 1] {
        distribution.record(value, 3);
    }
    assert_eq!(distribution.count(), 12);
    assert_eq!(distribution.sum(), u64::MAX);
    assert_eq!(distribution.cumulative(&[0, u64::MAX]), [3, 12]);
}

#[test]
fn sizes_and_latencies_start_empty() {
    let mut sizes = Sizes::default();
    sizes.merge(&Sizes::default());
    assert_eq!(sizes, Sizes { last: -1, min: -1, max: -1 });
    sizes.record(20);
    sizes.record(10);
    sizes.merge(&Sizes::default());
    assert_eq!(sizes, Sizes { last: 10, min: 10, max: 20 });
    let empty = Latency::default();
    assert_eq!((empty.min_ms(), empty.avg_ms(), empty.max_ms()), (0, 0.0, 0));
}

fn remote() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4000))
}

#[test]
fn a_connection_shows_its_last_request() {
    let conn = ConnStats::new(1000);
    let new = conn.view(remote(), true);
    assert_eq!((new.session, new.closes_if_silent_ms, new.interest_ops), (None, 11_000, 1));

    conn.set_session(SessionId(5), 4000);
    let fresh = conn.view(remote(), false);
    assert_eq!(fresh.interest_ops, 0);
    let session = fresh.session.expect("it has one");
    assert_eq!((session.last_op, session.last_cxid, session.last_zxid), (None, None, Zxid(-1)));

    let mut batch = Batch { packets_received: 2, packets_sent: 2, ..Batch::default() };
    batch.answered(OpCode::GetData, 3_000_000, 1);
    batch.answered(OpCode::SetData, 8_000_000, 1);
    let last = Answered { op: OpCode::SetData, cxid: 7, zxid: Zxid(9), latency_ns: 8_000_000, at_ms: 2000 };
    conn.record(&batch, Some(last));
    let ping = Answered { op: OpCode::Ping, cxid: -2, zxid: Zxid(9), latency_ns: 1, at_ms: 3000 };
    conn.record(&Batch { packets_received: 1, ..Batch::default() }, Some(ping));
    conn.set_queued(3);

    let view = conn.view(remote(), true);
    assert_eq!((view.received, view.sent, view.queued, view.closes_if_silent_ms), (3, 2, 3, 7000));
    let session = view.session.expect("it has one");
    assert_eq!(session.last_op, Some(OpCode::Ping));
    assert_eq!(session.last_cxid, Some(7), "a ping's xid names no request");
    assert_eq!((session.min_latency_ms, session.avg_latency_ms, session.max_latency_ms), (3, 5, 8));
    assert_eq!((session.established_ms, session.timeout_ms, session.last_response_ms), (1000, 4000, 3000));

    conn.reset();
    let view = conn.view(remote(), true);
    assert_eq!((view.received, view.sent), (0, 0));
    let session = view.session.expect("the session stays");
    assert_eq!((session.last_op, session.last_cxid, session.max_latency_ms), (None, None, 0));
}

/// The names of the wire's operations in `cons`, all four or more capitals as tools expect them.
#[test]
fn operation_words() {
    for op in OpCode::ALL {
        assert!(op_word(*op).bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
    }
    assert_eq!(op_word(OpCode::CreateTtl), "CREA");
    assert_eq!(op_word(OpCode::GetChildren2), "GETC");
}
