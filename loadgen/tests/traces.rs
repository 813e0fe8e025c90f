//! A whole run of `zoometry` with an embedded server, both exporting to a receiver: what arrives over OTLP,
//! and what `traces.json` says afterwards.

use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use zoometry_spans::sink::{Received, Sink, tree_faults};
use zoometry_spans::{Identity, Kind, SampleRate, Status, Value};
use zoometry_wire::SessionId;

const WORKLOAD: &str = r#"
name = "traced"
description = "Reads, writes and a watch, every tenth of them traced"
seed = 7

[data]
znodes = 50
value = "100B"

[sessions]
count = 4
in_flight = 4

[defaults]
arrival = { constant = "300/s" }
keys = "uniform"
mix = { get = 60, set = 40 }

[[phase]]
name = "first"
duration = "1s"

[[phase]]
name = "second"
duration = "1s"

[[watchers]]
count = 4
on = "subtree"
kind = "recursive"
"#;

struct Run {
    sink: Sink,
    _home: tempfile::TempDir,
    directory: PathBuf,
}

fn run(environment: &[(&str, &str)]) -> Run {
    let home = tempfile::tempdir().unwrap();
    let sink = Sink::start().unwrap();
    std::fs::write(home.path().join("traced.toml"), WORKLOAD).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_zoometry"))
        // One member: client and server are the two sides. What members add is the server's tests' business.
        .args([
            "run",
            "traced.toml",
            "--cluster",
            "zoometry:1",
            "--no-charts",
            "--trace-sample",
            "0.1",
            "--out",
            "out",
        ])
        .current_dir(home.path())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint())
        .env("OTEL_SERVICE_NAME", "our-load")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let code = output.status.code();
    // A loaded machine makes a run INVALID (3); its traces are complete all the same.
    assert!(matches!(code, Some(0 | 3)), "{code:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut results = std::fs::read_dir(home.path().join("out")).unwrap();
    let directory = results.next().unwrap().unwrap().path();
    Run { sink, _home: home, directory }
}

fn text<'a>(received: &'a Received, key: &str) -> Option<&'a str> {
    received.span.attrs.iter().find(|attr| attr.key == key).and_then(|attr| match &attr.value {
        Value::Str(text) => Some(text.as_ref()),
        _ => None,
    })
}

#[test]
fn one_trace_holds_both_sides() {
    let run = run(&[]);
    over_otlp(&run.sink.spans());
    in_the_file(&run.directory.join("traces.json"));
    let left: Vec<_> = span_files(&run.directory);
    assert!(left.is_empty(), "the span files are merged and gone: {left:?}");
}

fn over_otlp(spans: &[Received]) {
    // The server keeps more of its slow requests than the client does, and samples those that prepare and
    // clean up: their client spans do not come. Everything else must be whole.
    let clients: HashSet<_> =
        spans.iter().filter(|r| r.span.kind == Kind::Client).map(|r| r.span.trace).collect();
    let alone = |span: &zoometry_spans::Span| span.kind == Kind::Server && !clients.contains(&span.trace);
    assert_eq!(tree_faults(spans, alone), Vec::<String>::new());

    let identity = Identity::new(0, SampleRate::from_probability(0.1));
    let mut head = 0;
    let mut phases = BTreeMap::new();
    for client in spans.iter().filter(|r| r.span.kind == Kind::Client) {
        assert_eq!(client.service, "our-load");
        assert_eq!(client.span.status, Status::Unset);
        let server = spans.iter().find(|r| r.span.trace == client.span.trace && r.span.kind == Kind::Server);
        if text(client, "zookeeper.trace.kept_by") == Some("head") {
            head += 1;
            let server = server.unwrap_or_else(|| panic!("{:?} has no server side", client.span));
            assert_eq!(server.span.parent, Some(client.span.span));
            assert_eq!(server.service, "server.1", "OTEL_SERVICE_NAME is not handed down");
            assert_eq!(server.span.name, client.span.name);
            assert_eq!(client.span.tracestate, identity.rate().tracestate().unwrap());
        }
        // The trace is the one that anybody computes from the session and the xid.
        let session = text(client, "zookeeper.session.id").unwrap().trim_start_matches("0x");
        let session = SessionId(i64::from_str_radix(session, 16).unwrap());
        let xid = client.span.attrs.iter().find(|a| a.key == "zookeeper.cxid").unwrap();
        let Value::Int(xid) = xid.value else { panic!("{xid:?}") };
        assert_eq!(identity.request(session, xid as i32), client.span.trace);
        *phases.entry(text(client, "zoometry.phase").unwrap()).or_insert(0) += 1;
    }
    // 600 operations are due; a tenth of them is 60, give or take 4 standard deviations.
    assert!((30..=90).contains(&head), "{head}");
    assert_eq!(phases.keys().copied().collect::<Vec<_>>(), ["first", "second"]);
    let named = |name: &str| spans.iter().filter(|r| r.span.name == name).count();
    for station in
        ["session queue", "prep", "log sync", "fsync", "apply", "fanout", "reply", "recovery", "run"]
    {
        assert!(named(station) > 0, "no span {station:?}");
    }
}

fn in_the_file(path: &Path) {
    assert!(std::fs::metadata(path).unwrap().len() < 5_000_000);
    let document: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut traces: HashMap<String, Vec<(String, Json)>> = HashMap::new();
    for group in document["resourceSpans"].as_array().unwrap() {
        let service = group["resource"]["attributes"][0]["value"]["stringValue"].as_str().unwrap();
        for span in
            group["scopeSpans"].as_array().unwrap().iter().flat_map(|s| s["spans"].as_array().unwrap())
        {
            let trace = span["traceId"].as_str().unwrap().to_owned();
            traces.entry(trace).or_default().push((service.to_owned(), span.clone()));
        }
    }
    let services = |spans: &[(String, Json)]| spans.iter().map(|(s, _)| s.clone()).collect::<HashSet<_>>();
    let both = traces.values().filter(|spans| services(spans).len() == 2).count();
    assert!(both >= 30, "{both}");
    let at = |span: &Json, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    for spans in traces.values() {
        let by_id: HashMap<_, _> =
            spans.iter().map(|(_, span)| (span["spanId"].as_str().unwrap(), span)).collect();
        for (_, span) in spans {
            let Some(parent) = span["parentSpanId"].as_str() else { continue };
            let parent = by_id[parent];
            assert!(at(parent, "startTimeUnixNano") <= at(span, "startTimeUnixNano"), "{parent} {span}");
            assert!(at(parent, "endTimeUnixNano") >= at(span, "endTimeUnixNano"), "{parent} {span}");
        }
    }
}

fn span_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(span_files(&path));
        } else if path.to_string_lossy().contains("spans") {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_endpoint_that_cannot_be_used_is_bad_usage() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("traced.toml"), WORKLOAD).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_zoometry"))
        .args(["run", "traced.toml"])
        .current_dir(home.path())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.example"), "{complaint}");
    assert!(complaint.contains("Collector"), "{complaint}");
}

#[test]
fn a_receiver_that_is_down_costs_spans_and_not_the_run() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{gone}"))]);
    in_the_file(&run.directory.join("traces.json"));
    assert!(run.sink.spans().is_empty());
}
