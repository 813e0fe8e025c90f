//! Spans through the real exporter, over a socket, into the in-repo receiver.

use std::time::Duration;
use zoometry_spans::sink::{Sink, tree_faults};
use zoometry_spans::{
    Event, ExportSettings, Exporter, Identity, Kind, Link, Resource, Role, SampleRate, Span, Status, attr,
};
use zoometry_wire::SessionId;

fn write_trace(identity: &Identity, xid: i32) -> [Vec<Span>; 2] {
    let trace = identity.request(SessionId(0x0100_0000_0000_0000), xid);
    let span = |role, server, name: &'static str, kind, start, end| {
        Span::new(trace, trace.span(role, server), name, kind, start, end)
    };
    let root = trace.span(Role::Client, 0);
    let serving = trace.span(Role::Server, 1);
    let mut client = span(Role::Client, 0, "setData", Kind::Client, 1000, 9000).with("n", i64::from(xid));
    client.tracestate = "ot=th:0".into();
    client.events.push(Event { name: "sent".into(), at_ns: 1500, attrs: vec![attr("late", false)] });
    client.status = Status::Error("CONNECTIONLOSS".into());
    let mut sync =
        span(Role::LogSync, 1, "log sync", Kind::Internal, 3000, 6000).child_of(serving).with("share", 0.5);
    let batch = identity.batch(1, 77);
    sync.links.push(Link { trace: batch, span: batch.span(Role::Root, 1), attrs: vec![attr("n", 4)] });
    [
        vec![client],
        vec![
            span(Role::Server, 1, "setData", Kind::Server, 2000, 8000).child_of(root),
            span(Role::Prep, 1, "prep", Kind::Internal, 2500, 3000).child_of(serving),
            sync,
            span(Role::Apply, 1, "apply", Kind::Internal, 6000, 7000).child_of(serving),
        ],
    ]
}

#[test]
fn what_is_sent_arrives_complete_and_in_one_tree() {
    let sink = Sink::start().unwrap();
    let mut settings = ExportSettings::to(format!("{}/v1/traces", sink.endpoint()));
    settings.delay = Duration::from_millis(20);
    settings.batch = 64;
    settings.headers.insert("x-team".into(), "zoo".into());
    let client = Exporter::start(&settings, &Resource::load_generator("1.2", "r1")).unwrap();
    let server = Exporter::start(&settings, &Resource::member("1.2", "zoo", 1)).unwrap();

    let identity = Identity::new(0, SampleRate::ALL);
    let mut sent = Vec::new();
    for xid in 1..=500 {
        let [client_spans, server_spans] = write_trace(&identity, xid);
        sent.extend(client_spans.iter().map(|span| ("zoometry-load", span.clone())));
        sent.extend(server_spans.iter().map(|span| ("zoo-1", span.clone())));
        assert!(client_spans.into_iter().all(|span| client.send(span)));
        assert!(server_spans.into_iter().all(|span| server.send(span)));
    }
    for (exporter, spans) in [(&client, 500), (&server, 2000)] {
        let counts = exporter.shutdown(Duration::from_secs(20));
        assert_eq!((counts.exported, counts.failed, counts.dropped, counts.waiting), (spans, 0, 0, 0));
    }

    let received = sink.spans();
    assert_eq!(received.len(), sent.len());
    for (service, span) in &sent {
        let found = received.iter().find(|r| r.span.trace == span.trace && r.span.span == span.span).unwrap();
        assert_eq!((&found.span, found.service.as_str()), (span, *service));
    }
    assert_eq!(tree_faults(&received, |_| false), Vec::<String>::new());
    let resource = &received.iter().find(|r| r.service == "zoo-1").unwrap().resource;
    assert!(resource.iter().any(|a| a.key == "service.namespace" && a.value == "zoo".into()));
    let (line, headers) = &sink.heads()[0];
    assert_eq!(line, "POST /v1/traces HTTP/1.1");
    assert!(headers.contains(&("x-team".into(), "zoo".into())), "{headers:?}");
    assert!(headers.contains(&("content-type".into(), "application/x-protobuf".into())), "{headers:?}");
}

#[test]
fn an_overloaded_receiver_gets_the_spans_when_it_recovers() {
    let sink = Sink::start().unwrap();
    sink.refuse(1);
    let mut settings = ExportSettings::to(format!("{}/v1/traces", sink.endpoint()));
    settings.delay = Duration::from_millis(20);
    let exporter = Exporter::start(&settings, &Resource::member("1", "zoo", 1)).unwrap();
    let identity = Identity::new(0, SampleRate::ALL);
    write_trace(&identity, 1).into_iter().flatten().for_each(|span| assert!(exporter.send(span)));
    let received = sink.wait(Duration::from_secs(20), |spans| spans.len() == 5);
    assert_eq!(received.len(), 5);
    assert!(sink.heads().len() >= 2, "the first was refused");
}

#[test]
fn faults_of_a_tree_are_found() {
    let sink = Sink::start().unwrap();
    let settings = ExportSettings::to(format!("{}/v1/traces", sink.endpoint()));
    let exporter = Exporter::start(&settings, &Resource::member("1", "zoo", 1)).unwrap();
    let trace = Identity::new(0, SampleRate::ALL).request(SessionId(1), 1);
    let span = |role, start, end| Span::new(trace, trace.span(role, 1), "x", Kind::Internal, start, end);
    let root = trace.span(Role::Server, 1);
    exporter.send(span(Role::Server, 10, 20));
    exporter.send(span(Role::Server, 10, 20));
    exporter.send(span(Role::Apply, 15, 21).child_of(root));
    exporter.send(span(Role::Reply, 15, 16).child_of(trace.span(Role::Client, 0)));
    exporter.shutdown(Duration::from_secs(20));
    let faults = tree_faults(&sink.spans(), |_| false);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(tree_faults(&sink.spans(), |span| span.start_ns == 15 && span.end_ns == 16).len(), 2);
}
