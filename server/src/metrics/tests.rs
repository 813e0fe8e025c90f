//! The table against Apache's own output, and both texts against their formats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zoometry_wire::OpCode;

use super::*;
use crate::http;
use crate::stats::{Batch, ServerStats, Stage};
use crate::view::Mode;
use crate::words::tests::{Fixture, facts, leader, stats};

/// First words of the lines of a running Apache ZooKeeper 3.8.0's `mntr`.
const STANDALONE: &str = include_str!("../../tests/data/apache-3.8.0-mntr-standalone.txt");
const LEADER: &str = include_str!("../../tests/data/apache-3.8.0-mntr-leader.txt");

fn names(mntr: &str) -> BTreeSet<&str> {
    mntr.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect()
}

/// No line of `mntr` has a name that Apache's has not.
#[test]
fn mntr_invents_no_names() {
    let ours = mntr(&facts(Mode::Standalone), &stats().collect());
    let strangers: Vec<_> = names(&ours).difference(&names(STANDALONE)).copied().collect();
    assert_eq!(strangers, [""; 0]);
    let ours = mntr(&leader(), &stats().collect());
    let strangers: Vec<_> = names(&ours).difference(&names(LEADER)).copied().collect();
    assert_eq!(strangers, [""; 0]);
}

/// What people chart and alert on is there.
#[test]
fn the_names_that_people_use_are_there() {
    let ours = mntr(&leader(), &stats().collect());
    let names = names(&ours);
    for name in [
        "version",
        "server_state",
        "peer_state",
        "avg_latency",
        "min_latency",
        "max_latency",
        "packets_received",
        "packets_sent",
        "num_alive_connections",
        "outstanding_requests",
        "znode_count",
        "watch_count",
        "ephemerals_count",
        "approximate_data_size",
        "open_file_descriptor_count",
        "max_file_descriptor_count",
        "uptime",
        "global_sessions",
        "connection_drop_count",
        "connection_rejected",
        "stale_sessions_expired",
        "avg_fsynctime",
        "max_fsynctime",
        "cnt_fsynctime",
        "sum_fsynctime",
        "p99_readlatency",
        "p99_updatelatency",
        "learners",
        "synced_followers",
        "pending_syncs",
        "quorum_size",
        "proposal_count",
        "commit_count",
        "cnt_election_time",
        "bytes_received_count",
        "response_bytes",
        "max_client_response_size",
    ] {
        assert!(names.contains(format!("zk_{name}").as_str()), "{name} is missing");
    }
}

#[test]
fn mntr_lines() {
    let text = mntr(&facts(Mode::Standalone), &stats().collect());
    let values: BTreeMap<&str, &str> =
        text.lines().map(|line| line.split_once('\t').expect("a tab")).collect();
    for (name, value) in [
        ("zk_server_state", "standalone"),
        ("zk_avg_latency", "4.25"),
        ("zk_min_latency", "1"),
        ("zk_max_latency", "19"),
        ("zk_packets_received", "22"),
        ("zk_znode_count", "10"),
        ("zk_watch_count", "4"),
        ("zk_num_alive_connections", "3"),
        ("zk_last_client_response_size", "84"),
        ("zk_cnt_fsynctime", "1"),
        ("zk_avg_fsynctime", "3.0"),
        ("zk_sum_fsynctime", "3"),
        ("zk_cnt_updatelatency", "2"),
        ("zk_stale_sessions_expired", "5"),
        ("zk_p999_updatelatency", "19"),
        ("zk_avg_snapshottime", "0.0"),
    ] {
        assert_eq!(values.get(name), Some(&value), "{name}");
    }
    assert!(!values.contains_key("zk_peer_state"));
    // Everything but the two texts is a number, as collectors expect.
    for (name, value) in values {
        assert!(
            matches!(name, "zk_version" | "zk_server_state") || value.parse::<f64>().is_ok(),
            "{name}={value}"
        );
    }
}

#[test]
fn the_table_is_sound() {
    let mut seen = BTreeSet::new();
    for metric in TABLE {
        assert!(seen.insert(metric.name), "{} is in the table twice", metric.name);
        assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        let ours = metric.name.starts_with("zk_") || metric.name.starts_with("process_");
        assert_eq!(
            ours,
            metric.scope == Scope::HttpOnly,
            "{}: ours are HTTP only, Apache's are not",
            metric.name
        );
        if ours && metric.kind == Kind::Counter {
            assert!(metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}

/// One sample: name, labels as written, value.
fn samples(text: &str) -> Vec<(String, String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed labels")),
                None => (series, ""),
            };
            (name.into(), labels.into(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        })
        .collect()
}

fn busy() -> ServerStats {
    let stats = stats();
    let mut batch = Batch::default();
    batch.answered(OpCode::GetData, 7_000, 10);
    batch.answered(OpCode::GetData, 40_000_000_000, 1);
    batch.stage(Stage::Read, 3_000, 11);
    stats.record(&mut batch);
    stats
}

#[test]
fn the_text_is_prometheus() {
    let text = prometheus(Some(&leader()), &busy().collect(), ProcessInfo::Export);
    assert!(text.ends_with('\n'));
    let mut family = String::new();
    let mut families = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(families.insert(name.to_string()), "{name} stands twice");
            assert!(!help.is_empty());
            let kind =
                lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
            assert!(matches!(kind, "gauge" | "counter" | "summary" | "histogram"));
            family = name.to_string();
        } else {
            let name = line.split(['{', ' ']).next().expect("a name");
            let suffixes = ["", "_sum", "_count", "_bucket"];
            assert!(
                suffixes.iter().any(|suffix| name == format!("{family}{suffix}")),
                "{line} is not of {family}"
            );
        }
    }
    let series: Vec<_> = samples(&text).into_iter().map(|(name, labels, _)| (name, labels)).collect();
    assert_eq!(series.len(), series.iter().collect::<BTreeSet<_>>().len(), "a series stands twice");
    // Every metric of the table is there for a busy leader.
    let missing: Vec<_> =
        TABLE.iter().map(|metric| metric.name).filter(|name| !families.contains(*name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn histograms_are_cumulative_and_complete() {
    let text = prometheus(Some(&leader()), &busy().collect(), ProcessInfo::Omit);
    let all = samples(&text);
    let of = |name: &str, labels: &str| {
        let found = all.iter().find(|sample| sample.0 == name && sample.1 == labels);
        found.unwrap_or_else(|| panic!("{name}{{{labels}}} is missing")).2
    };
    let buckets: Vec<f64> = all
        .iter()
        .filter(|sample| {
            sample.0 == "zk_request_duration_seconds_bucket" && sample.1.contains("op=\"getData\"")
        })
        .map(|sample| sample.2)
        .collect();
    assert!(buckets.windows(2).all(|pair| pair[0] <= pair[1]), "{buckets:?}");
    let bucket = |le: &str| of("zk_request_duration_seconds_bucket", &format!("op=\"getData\",le=\"{le}\""));
    assert_eq!(
        (bucket("0.000005"), bucket("0.00001"), bucket("30"), bucket("+Inf")),
        (0.0, 10.0, 24.0, 25.0)
    );
    assert_eq!(of("zk_request_duration_seconds_count", "op=\"getData\""), 25.0);
    let sum = of("zk_request_duration_seconds_sum", "op=\"getData\"");
    assert!((sum - (40.0 + 70e-6 + 0.048)).abs() < 1e-9, "{sum}");
    assert_eq!(of("zk_stage_duration_seconds_count", "stage=\"read\""), 11.0);
    assert_eq!(of("fsynctime_sum", ""), 3.0);
    assert_eq!(of("fsynctime_count", ""), 1.0);
    let median = of("updatelatency", "quantile=\"0.5\"");
    assert!((median - 1.0).abs() < 0.01, "milliseconds with their fraction: {median}");
}

#[test]
fn what_is_not_there_is_absent() {
    let standalone = prometheus(Some(&facts(Mode::Standalone)), &stats().collect(), ProcessInfo::Omit);
    for name in ["quorum_size", "learners", "commit_count", "election_time", "process_cpu_seconds_total"] {
        assert!(!standalone.contains(&format!("# TYPE {name} ")), "{name}");
    }
    let looking = prometheus(None, &stats().collect(), ProcessInfo::Omit);
    assert!(!looking.contains("znode_count") && looking.contains("\npackets_received 22\n"));
    let follower = prometheus(
        Some(&crate::view::Facts {
            ensemble: leader()
                .ensemble
                .map(|ensemble| crate::view::EnsembleFacts { leader: None, ..ensemble }),
            ..facts(Mode::Follower)
        }),
        &stats().collect(),
        ProcessInfo::Omit,
    );
    assert!(follower.contains("\nquorum_size 3\n") && !follower.contains("# TYPE learners "));
}

#[tokio::test]
async fn the_endpoint_serves_metrics_and_nothing_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, Arc::new(stats()), Arc::new(Fixture::default()), ProcessInfo::Export));
    let answer = http::tests::exchange(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nznode_count 10\n"), "{answer}");
    let answer = http::tests::exchange(address, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn this_process_is_described() {
    assert!(process::memory().resident.is_some_and(|bytes| bytes > 1 << 20));
    assert!(process::open_files().is_some_and(|count| count >= 3));
    assert!(process::max_open_files().is_some_and(|count| count > 3));
    assert!(process::threads().is_some_and(|count| count >= 1));
    assert!(process::cpu_seconds().is_some());
    let started = process::start_time_seconds().expect("there");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!(started <= now + 2.0 && now - started < 3600.0, "{started} {now}");
}
