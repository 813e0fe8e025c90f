//! The control plane's spans, from `tracing` to the receiver, set up by the standard variables alone.
//!
//! One test, because a process has one subscriber and one environment.

use std::time::Duration;
use zoometry_spans::sink::{Sink, tree_faults};
use zoometry_spans::{Identity, Kind, Resource, Role, SampleRate, Setup, Span, init_tracing};
use zoometry_wire::SessionId;

#[test]
fn tracing_spans_and_request_spans_share_one_way_out() {
    let sink = Sink::start().unwrap();
    // Sound: the test is alone in its process, and the sink's thread does not read the environment.
    unsafe {
        std::env::set_var("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint());
        std::env::set_var("OTEL_BSP_SCHEDULE_DELAY", "20");
        std::env::set_var("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test");
    }
    let resource = Resource::member("1", "zoo", 7);
    let telemetry =
        init_tracing(Setup { resource: resource.clone(), log: Some("error"), default_level: "info" })
            .unwrap();

    {
        let outer = tracing::info_span!(target: "zoometry_server", "recovery", zxid = "0x5");
        let _in_outer = outer.enter();
        let inner = tracing::info_span!(target: "zoometry_server", "load snapshot");
        let _in_inner = inner.enter();
        tracing::info!(target: "zoometry_server", nodes = 12, "loaded");
    }
    let _not_ours = tracing::info_span!(target: "hyper", "noise").entered();
    let trace = Identity::new(0, SampleRate::ALL).request(SessionId(1), 1);
    let request = Span::new(trace, trace.span(Role::Server, 7), "getData", Kind::Server, 1, 2);
    assert!(telemetry.exporter().unwrap().send(request.clone()));

    let again = init_tracing(Setup { resource, log: None, default_level: "info" });
    assert!(again.unwrap_err().to_string().contains("already"));

    let counts = telemetry.shutdown(Duration::from_secs(20)).unwrap();
    assert_eq!((counts.exported, counts.failed, counts.dropped, counts.waiting), (3, 0, 0, 0));
    let received = sink.spans();
    assert_eq!(tree_faults(&received, |_| false), Vec::<String>::new());
    let named = |name: &str| received.iter().find(|r| r.span.name == name).unwrap();
    let (recovery, load) = (named("recovery"), named("load snapshot"));
    assert_eq!(load.span.parent, Some(recovery.span.span));
    assert_eq!(load.span.trace, recovery.span.trace);
    assert_eq!(load.span.events[0].name, "loaded");
    assert_eq!(named("getData").span, request);
    for one in &received {
        assert_eq!(one.service, "zoo-7");
        assert!(one.resource.iter().any(|a| a.key == "deployment.environment"));
    }
}
