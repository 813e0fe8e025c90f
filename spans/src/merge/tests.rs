use super::*;
use crate::{Identity, KeptBy, Kind, Resource, Role, SampleRate, Span, SpanFile, TraceId};
use zoometry_wire::SessionId;

const MS: u64 = 1_000_000;

fn trace(xid: i32) -> TraceId {
    Identity::new(0, SampleRate::ALL).request(SessionId(1), xid)
}

fn client(xid: i32, kept_by: KeptBy, phase: &'static str, start_ns: u64, took_ns: u64) -> Span {
    let trace = trace(xid);
    Span::new(trace, trace.span(Role::Client, 0), "setData", Kind::Client, start_ns, start_ns + took_ns)
        .with(attrs::KEPT_BY, kept_by.name())
        .with(attrs::PHASE, phase)
}

fn server(xid: i32, start_ns: u64, took_ns: u64) -> Span {
    let trace = trace(xid);
    Span::new(trace, trace.span(Role::Server, 1), "setData", Kind::Server, start_ns, start_ns + took_ns)
        .child_of(trace.span(Role::Client, 0))
}

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(clients: &[Span], servers: &[Span]) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        let write = |name, resource, spans: &[Span]| {
            let mut file = SpanFile::append(&files.path(name), resource).unwrap();
            spans.chunks(7).for_each(|batch| file.write(batch).unwrap());
        };
        write("client", Resource::load_generator("0", "run"), clients);
        write("server", Resource::member("0", "zoo", 1), servers);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn merge(&self, budget: usize) -> (Merged, serde_json::Value, String) {
        let inputs = [self.path("client"), self.path("server"), self.path("never written")];
        let merged = merge(&inputs, &self.path("traces.json"), budget).unwrap();
        let text = std::fs::read_to_string(self.path("traces.json")).unwrap();
        assert_eq!(text.len(), merged.bytes);
        (merged, serde_json::from_str(&text).unwrap(), text)
    }
}

#[test]
fn both_sides_come_together_and_the_file_counts() {
    let clients: Vec<Span> = (1..=20).map(|x| client(x, KeptBy::Head, "a", 1000, 500)).collect();
    let servers: Vec<Span> = (11..=30).map(|x| server(x, 1100, 300)).collect();
    let files = Files::new(&clients, &servers);
    let (merged, json, text) = files.merge(DEFAULT_BUDGET);
    assert_eq!((merged.traces, merged.kept, merged.dropped), (30, 30, 0));
    assert_eq!((merged.spans, merged.both_sides, merged.broken_lines), (40, 10, 0));
    let groups = json["resourceSpans"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[1]["resource"]["attributes"][0]["value"]["stringValue"], "zoo-1");
    assert_eq!(groups[0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 20);
    assert!(text.contains(r#"{"key":"zoometry.traces.dropped","value":{"intValue":"0"}}"#));
    let servers = groups[1]["scopeSpans"][0]["spans"].as_array().unwrap();
    let parented = servers.iter().filter(|span| span.get("parentSpanId").is_some()).count();
    assert_eq!((servers.len(), parented), (20, 10), "no span names a parent that is not there");
}

#[test]
fn the_budget_keeps_whole_traces_of_every_kind() {
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for x in 1..=3000 {
        let at = u64::from(x as u32) * MS;
        let (kept_by, took) = match x % 10 {
            0 => (KeptBy::Error, 50 * MS),
            1 => (KeptBy::Slow, u64::from(x as u32) * 1000),
            _ => (KeptBy::Head, MS),
        };
        clients.push(client(x, kept_by, if x <= 2700 { "long" } else { "short" }, at, took));
        servers.push(server(x, at + 10, took - 20));
    }
    let files = Files::new(&clients, &servers);
    let (merged, json, text) = files.merge(200_000);
    assert!(text.len() <= 200_000 && text.len() > 180_000, "{}", text.len());
    assert_eq!(merged.traces, 3000);
    assert_eq!(merged.kept + merged.dropped, 3000);
    assert_eq!(merged.both_sides, merged.kept, "whole traces only");
    assert_eq!(merged.spans, 2 * merged.kept);
    let spans = json["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let count =
        |class: &str| spans.iter().filter(|s| s["attributes"][0]["value"]["stringValue"] == class).count();
    let (errors, slow, head) = (count("error"), count("slow"), count("head"));
    assert!(errors > 20 && slow > 50 && head > 50, "{errors} {slow} {head}");
    // The slowest are there: the last one first.
    assert!(text.contains(&trace(2991).to_string()) && text.contains(&trace(2981).to_string()));
    assert!(!text.contains(&trace(1).to_string()));
    // The short phase has as many head-sampled traces as the long one, and the long one's are spread.
    let of = |phase: &str| -> Vec<u64> {
        let of_phase = spans.iter().filter(|s| {
            s["attributes"][0]["value"]["stringValue"] == "head"
                && s["attributes"][1]["value"]["stringValue"] == phase
        });
        of_phase.map(|s| s["startTimeUnixNano"].as_str().unwrap().parse().unwrap()).collect()
    };
    let (long, short) = (of("long"), of("short"));
    assert!(long.len().abs_diff(short.len()) <= 1, "{} {}", long.len(), short.len());
    let widest = long.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest < 3 * 2700 * MS / long.len() as u64, "{widest}");
}

#[test]
fn broken_input_is_counted_and_skipped() {
    let files = Files::new(&[client(1, KeptBy::Head, "a", 0, 5)], &[server(1, 1, 2)]);
    let mut text = std::fs::read(files.path("server")).unwrap();
    let torn = text[..60].to_vec();
    text.extend_from_slice(
        b"\n\xff\xfe\n{}\n[1,2]\n{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[7]}]}]}\n",
    );
    text.extend_from_slice(&torn);
    std::fs::write(files.path("server"), text).unwrap();
    let (merged, ..) = files.merge(DEFAULT_BUDGET);
    assert_eq!((merged.traces, merged.spans, merged.broken_lines), (1, 2, 4));
}

#[test]
fn no_budget_and_no_spans_still_make_a_document() {
    let files = Files::new(&[client(1, KeptBy::Head, "a", 0, 5)], &[]);
    let (merged, json, _) = files.merge(100);
    assert_eq!((merged.kept, merged.dropped), (0, 1));
    assert_eq!(json["resourceSpans"].as_array().unwrap().len(), 0);
    let (merged, json, _) = Files::new(&[], &[]).merge(DEFAULT_BUDGET);
    assert_eq!((merged.traces, json["resourceSpans"].as_array().unwrap().len()), (0, 0));
}

#[test]
fn a_monstrous_trace_is_cut() {
    let trace = trace(1);
    let spans: Vec<Span> = (0..600)
        .map(|n| Span::new(trace, trace.span(Role::WatchReceived, n), "watch", Kind::Consumer, 0, 1))
        .collect();
    let (merged, ..) = Files::new(&spans, &spans).merge(DEFAULT_BUDGET);
    assert_eq!((merged.spans, merged.kept), (MAX_SPANS_PER_TRACE, 1));
    assert_eq!(merged.cut_spans, 200);
}

#[test]
fn every_prefix_is_spread() {
    assert_eq!(spread(&[]), Vec::<usize>::new());
    assert_eq!(spread(&[5]), [5]);
    let order = spread(&(0..8).collect::<Vec<_>>());
    assert_eq!(order, [0, 4, 2, 6, 1, 5, 3, 7]);
    let mut all = spread(&(0..1000).collect::<Vec<_>>());
    let mut first: Vec<usize> = all[..100].to_vec();
    first.sort_unstable();
    assert!(first.windows(2).all(|pair| pair[1] - pair[0] <= 20));
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
}
