use super::*;

fn settings(pairs: &[(&str, &str)]) -> Result<Option<ExportSettings>, SetupError> {
    ExportSettings::from_variables(|name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    settings(pairs).unwrap_err().to_string()
}

#[test]
fn nothing_is_sent_unless_asked_for() {
    assert_eq!(settings(&[]).unwrap(), None);
    assert_eq!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(), None);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
    assert_eq!(settings(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap(), None);
    assert_eq!(settings(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(), None);
    assert!(settings(&[endpoint, ("OTEL_SDK_DISABLED", "false")]).unwrap().is_some());
}

#[test]
fn the_endpoint_for_all_signals_gets_the_path_and_the_one_for_traces_does_not() {
    let all = |url| settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).unwrap().unwrap().endpoint;
    assert_eq!(all("http://localhost:4318"), "http://localhost:4318/v1/traces");
    assert_eq!(all("http://[::1]:4318/otlp/"), "http://[::1]:4318/otlp/v1/traces");
    let both = settings(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/in"),
    ]);
    assert_eq!(both.unwrap().unwrap().endpoint, "http://localhost:4318/in");
}

#[test]
fn endpoints_that_cannot_work_are_refused_with_a_way_out() {
    let refused = |url| refusal(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]);
    let https = refused("https://otlp.example:443");
    assert!(https.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.example:443: "), "{https}");
    assert!(https.contains("Collector"), "{https}");
    for url in ["localhost:4318", "grpc://localhost:4317", "/v1/traces", "http://", "ht tp://x"] {
        let text = refused(url);
        assert!(text.contains("http://localhost:4318"), "{url}: {text}");
    }
    assert!(refused("http://me:secret@host").contains("OTEL_EXPORTER_OTLP_HEADERS"));
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
    assert!(refusal(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).contains("4318"));
    assert!(refusal(&[endpoint, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).contains("unset"));
}

#[test]
fn limits_and_headers_are_read_and_nonsense_is_warned_of() {
    let read = settings(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc=, x-team = zoo,broken"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "500"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ])
    .unwrap()
    .unwrap();
    assert_eq!(read.headers["authorization"], "Basic abc=");
    assert_eq!(read.headers["x-team"], "zoo");
    assert_eq!((read.timeout, read.queue, read.batch), (Duration::from_millis(1500), 100, 100));
    assert_eq!(read.delay, DEFAULT_DELAY);
    assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
    assert!(read.warnings.iter().any(|w| w.contains("OTEL_BSP_SCHEDULE_DELAY=soon")));
    assert!(read.warnings.iter().all(|w| !w.contains("broken")), "headers may hold secrets");
}

#[test]
fn an_unreachable_endpoint_fails_counts_and_does_not_hang() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = ExportSettings::to(format!("http://{free}/v1/traces"));
    settings.queue = 10;
    settings.timeout = Duration::from_millis(200);
    let exporter = Exporter::start(&settings, &Resource::member("0", "zoo", 1)).unwrap();
    let identity = crate::Identity::new(0, crate::SampleRate::ALL);
    for xid in 1..=30 {
        let trace = identity.request(zoometry_wire::SessionId(1), xid);
        let taken =
            exporter.send(Span::new(trace, trace.span(crate::Role::Client, 0), "x", Kind::Client, 1, 2));
        assert_eq!(taken, xid <= 10);
    }
    let begun = std::time::Instant::now();
    let counts = exporter.shutdown(Duration::from_secs(5));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((counts.exported, counts.failed, counts.dropped, counts.waiting), (0, 10, 20, 0));
    assert!(counts.last_error.is_some());
    let trace = identity.request(zoometry_wire::SessionId(1), 99);
    assert!(!exporter.send(Span::new(trace, trace.span(crate::Role::Client, 0), "late", Kind::Client, 1, 2)));
    assert_eq!(exporter.counts().dropped, 21);
}
