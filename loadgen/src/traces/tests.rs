use super::*;
use zoometry_spans::SampleRate;

fn request(xid: i32, due_ns: u64, sent_ns: u64, done_ns: u64) -> RequestTrace {
    RequestTrace {
        session: SessionId(0x1_0000_1234),
        xid,
        op: Op::Set,
        opcode: OpCode::SetData,
        outcome: Outcome::Ok,
        phase: 0,
        server: 0,
        due_ns,
        sent_ns,
        done_ns,
        zxid: Zxid(0x1_0000_0007),
        path: "/load/data/n17".into(),
    }
}

fn settings(rate: SampleRate, directory: &Path) -> TraceSettings {
    TraceSettings {
        identity: Identity::new(0, rate),
        slowest_per_second: 2,
        clock: Clock::start(),
        phases: vec!["steady".into()],
        servers: vec![("127.0.0.1".into(), 2181)],
        exporter: None,
        resource: Resource::load_generator("0", "test"),
        span_file: directory.join("client.spans"),
    }
}

fn offer(sampler: &mut Sampler, request: RequestTrace) {
    let (due, done, outcome) = (request.due_ns, request.done_ns, request.outcome);
    sampler.offer(request.session, request.xid, outcome, done - due, done, || request);
}

fn merged(directory: &Path) -> (Merged, String) {
    let merged = write_traces_json(directory, &[directory.join("client.spans")]).unwrap();
    (merged, std::fs::read_to_string(directory.join("traces.json")).unwrap())
}

#[test]
fn each_second_keeps_its_slowest() {
    let directory = tempfile::tempdir().unwrap();
    let traces = Traces::start(settings(SampleRate::NONE, directory.path())).unwrap();
    let mut sampler = traces.sampler();
    for second in 0..3u64 {
        for n in 0..100u64 {
            let done = second * SECOND_NS + n * 1_000_000 + 100_000;
            // Number 40 and 60 of each second are slower than the others.
            let took = if n == 40 || n == 60 { 90_000 + n } else { n };
            offer(&mut sampler, request((second * 100 + n) as i32 + 1, done - took, done - took, done));
        }
    }
    drop(sampler);
    let counts = traces.finish();
    assert_eq!((counts.slow, counts.head, counts.faults, counts.suppressed), (6, 0, 0, 0));
    let (merged, text) = merged(directory.path());
    assert_eq!((merged.kept, merged.spans), (6, 6));
    for xid in [41, 61, 141, 161, 241, 261] {
        let cxid = format!(r#"{{"key":"zookeeper.cxid","value":{{"intValue":"{xid}"}}}}"#);
        assert!(text.contains(&cxid), "{xid} is missing");
    }
}

#[test]
fn head_sampling_agrees_with_the_identity_and_is_limited() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = settings(SampleRate::from_probability(0.25), directory.path());
    with.slowest_per_second = 0;
    let identity = with.identity;
    let traces = Traces::start(with).unwrap();
    let mut sampler = traces.sampler();
    let mut expected = 0;
    for xid in 1..=1000 {
        expected += u64::from(identity.keeps(SessionId(0x1_0000_1234), xid));
        offer(&mut sampler, request(xid, 10, 20, 30));
    }
    assert!((200..300).contains(&expected));
    for xid in 1001..=10_000 {
        offer(&mut sampler, request(xid, 10, 20, 30));
    }
    drop(sampler);
    let counts = traces.finish();
    assert_eq!(counts.head, u64::from(MAX_HEAD_PER_SECOND));
    assert!(counts.suppressed > 1000);
    assert_eq!(counts.slow, 0);
}

#[test]
fn faults_are_kept_and_refusals_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = settings(SampleRate::NONE, directory.path());
    with.slowest_per_second = 0;
    let traces = Traces::start(with).unwrap();
    let mut sampler = traces.sampler();
    let mut lost = request(1, 10, 0, 30);
    lost.outcome = Outcome::Error(ErrorCode::ConnectionLoss);
    let mut refused = request(2, 10, 20, 30);
    refused.outcome = Outcome::Error(ErrorCode::NoNode);
    offer(&mut sampler, lost);
    offer(&mut sampler, refused);
    drop(sampler);
    assert_eq!(traces.finish().faults, 1);
    let (merged, text) = merged(directory.path());
    assert_eq!(merged.kept, 1);
    assert!(text.contains(r#""status":{"message":"CONNECTIONLOSS","code":2}"#), "{text}");
}

#[test]
fn a_span_lasts_from_due_to_done_and_its_queue_is_inside() {
    let directory = tempfile::tempdir().unwrap();
    let with = settings(SampleRate::ALL, directory.path());
    let start_unix = with.clock.unix_ns(0);
    let builder = Builder { tracestate: "ot=th:0".into(), settings: with };
    let mut spans = Vec::new();
    builder.spans(KeptBy::Head, &request(7, 1_000_000, 3_000_000, 9_000_000), &mut spans);
    let [root, queue] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((root.name.as_ref(), root.kind, root.parent), ("setData", Kind::Client, None));
    assert_eq!(root.end_ns - root.start_ns, 8_000_000);
    assert!((root.start_ns - 1_000_000).abs_diff(start_unix) < 1_000_000);
    assert_eq!(queue.parent, Some(root.span));
    assert_eq!((queue.start_ns, queue.end_ns), (root.start_ns, root.start_ns + 2_000_000));
    assert_eq!(root.events[0].at_ns, queue.end_ns);
    assert_eq!(root.tracestate, "ot=th:0");
    let attribute = |key| root.attrs.iter().find(|a| a.key == key).map(|a| a.value.clone()).unwrap();
    assert_eq!(attribute(attrs::PATH_PREFIX), "/load/data".into());
    assert_eq!(attribute(attrs::ZXID), "0x100000007".to_owned().into());
    assert_eq!(attribute(attrs::PHASE), "steady".into());
    assert_eq!(attribute(attrs::SERVER_PORT), 2181.into());
}

#[test]
fn a_full_disk_costs_the_file_and_not_the_run() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut with = settings(SampleRate::ALL, directory.path());
    with.span_file = "/dev/full".into();
    let traces = Traces::start(with).unwrap();
    let mut sampler = traces.sampler();
    offer(&mut sampler, request(1, 10, 20, 30));
    drop(sampler);
    let counts = traces.finish();
    assert!(counts.file_error.unwrap().starts_with("/dev/full: "));
}

#[test]
fn prefixes_have_two_parts() {
    assert_eq!(path_prefix("/"), "/");
    assert_eq!(path_prefix("/a"), "/a");
    assert_eq!(path_prefix("/a/b"), "/a/b");
    assert_eq!(path_prefix("/a/b/c/d"), "/a/b");
}
