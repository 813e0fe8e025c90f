use super::trail::{Trails, Way};
use super::*;
use zoometry_spans::{Role, SpanId, attrs};

const SESSION: SessionId = SessionId(0x0100_0000_0000_0000);

fn traced(kept_by: KeptBy, xid: i32, received_ns: u64, latency_ns: u64) -> Traced {
    Traced {
        kept_by,
        session: SESSION,
        xid,
        op: OpCode::SetData,
        zxid: Zxid(7),
        error: None,
        peer: "127.0.0.1:4000".parse().unwrap(),
        path: Some("/a/b".into()),
        received_ns,
        work: Work::Read { started_ns: received_ns, ended_ns: received_ns + latency_ns / 2 },
        replied_ns: received_ns + latency_ns,
    }
}

fn builder(parented: bool) -> Builder {
    Builder { identity: Identity::new(0, SampleRate::ALL), server: 3, parented, tracestate: "ot=th:0".into() }
}

fn spans(builder: &Builder, traced: &Traced) -> Vec<Span> {
    let mut out = Vec::new();
    builder.spans(traced, &mut out);
    out
}

fn contained(spans: &[Span]) -> bool {
    spans.iter().all(|span| {
        let parent = spans.iter().find(|parent| Some(parent.span) == span.parent);
        parent.is_none_or(|parent| parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns)
    })
}

fn write() -> Traced {
    let stamps = Stamps { received_ns: 1_000, prep_ns: 2_000, appended_ns: 3_500 };
    let durable =
        Durable { taken_ns: 3_200, written_ns: 4_000, synced_ns: 9_000, records: 5, ..Durable::default() };
    let fanout = Some(Fanout { watchers: 9, first_ns: 10_200, last_ns: 10_900 });
    Traced {
        work: Work::Write {
            stamps,
            durable: Some(durable),
            committed_ns: None,
            apply_ns: 10_000,
            applied_ns: 11_000,
            fanout,
        },
        ..traced(KeptBy::Head, 1, 1_000, 11_000)
    }
}

#[test]
fn a_writes_tree_has_every_station_and_parents_contain_children() {
    let spans = spans(&builder(true), &write());
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    let stations = ["setData", "session queue", "prep", "log sync", "fsync", "apply", "fanout", "reply"];
    assert_eq!(names, stations);
    assert!(contained(&spans));
    let trace = builder(true).identity.request(SESSION, 1);
    assert_eq!(spans[0].parent, Some(trace.span(Role::Client, 0)));
    assert_eq!(spans[4].parent, Some(spans[3].span));
    assert_eq!(spans[6].parent, Some(spans[5].span));
    // The disk took it before the node looked at the clock: prep ends when it was taken.
    assert_eq!(spans[2].end_ns - spans[0].start_ns, 2_200);
    assert_eq!(spans[3].start_ns, spans[2].end_ns);
    let has =
        |span: &Span, key, value: i64| span.attrs.iter().any(|a| a.key == key && a.value == value.into());
    assert!(has(&spans[3], attrs::LOG_BATCH_SIZE, 5));
    assert!(has(&spans[6], attrs::WATCH_COUNT, 9));
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| span.span).collect();
    assert_eq!(ids.len(), spans.len());
}

#[test]
fn in_an_ensemble_the_log_is_a_part_of_the_wait_for_a_quorum() {
    let mut traced = write();
    let Work::Write { committed_ns, .. } = &mut traced.work else { panic!("a write") };
    *committed_ns = Some(9_500);
    let spans = spans(&builder(true), &traced);
    let names: Vec<_> = spans[2..6].iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["prep", "quorum", "log sync", "fsync"]);
    assert_eq!(spans[4].parent, Some(spans[3].span));
    assert!(contained(&spans));
}

/// Two other disks were faster than the leader's own: that one is told when it is done, beside the wait.
#[test]
fn a_leaders_late_disk_is_linked_to_the_wait_for_a_quorum() {
    let mut traced = write();
    let Work::Write { durable, committed_ns, .. } = &mut traced.work else { panic!("a write") };
    (*durable, *committed_ns) = (None, Some(9_500));
    let mut all = spans(&builder(true), &traced);
    let names: Vec<_> = all.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["setData", "session queue", "prep", "quorum", "apply", "fanout", "reply"]);
    let late = Durable { written_ns: 5_000, synced_ns: 60_000, records: 2, ..Durable::default() };
    let (session, xid, zxid, way) = (SESSION, 1, Zxid(7), Way::Answered);
    let trail = Trail { session, xid, zxid, way, appended_ns: 3_500, durable: late, committed_ns: 9_500 };
    builder(true).trail(&trail, &mut all);
    let [sync, fsync] = &all[7..] else { panic!("{all:?}") };
    assert_eq!((sync.name.as_ref(), sync.parent, sync.links[0].span), ("log sync", None, all[3].span));
    assert_eq!((fsync.name.as_ref(), fsync.parent), ("fsync", Some(sync.span)));
    assert_eq!(fsync.end_ns - fsync.start_ns, 55_000);
}

/// The transaction of session [`SESSION`] with xid 1, as three members see it: the one whose client asked, the
/// leader, and a follower whose disk was done in time or not.
#[test]
fn three_members_spans_make_one_tree() {
    let forwarded = Traced {
        work: Work::Forwarded { apply_ns: 10_000, applied_ns: 11_000, fanout: None },
        ..traced(KeptBy::Head, 1, 1_000, 11_000)
    };
    let mut all = spans(&builder(true), &forwarded);
    let durable = Durable { upto: Zxid(7), written_ns: 5_000, synced_ns: 7_000, ..Durable::default() };
    let late = Durable { synced_ns: 9_900, ..durable };
    let ways = [
        (1, Way::Leading { prep_ns: 2_000 }, durable),
        (2, Way::Following, durable),
        (4, Way::Following, late),
    ];
    for (server, way, durable) in ways {
        let (session, xid, zxid) = (SESSION, 1, Zxid(7));
        let trail = Trail { session, xid, zxid, way, appended_ns: 3_000, durable, committed_ns: 9_000 };
        Builder { server, ..builder(true) }.trail(&trail, &mut all);
    }
    assert!(contained(&all));
    let ids: std::collections::HashSet<_> = all.iter().map(|span| span.span).collect();
    assert_eq!(ids.len(), all.len(), "every span has an id of its own");
    let without_parent: Vec<_> = all
        .iter()
        .filter(|span| !ids.contains(&span.parent.unwrap_or(SpanId(0))))
        .map(|span| (span.name.as_ref(), span.links.len()))
        .collect();
    // The client's span is the load generator's; the late follower is linked to the quorum, not under it.
    assert_eq!(without_parent, [("setData", 0), ("proposal", 1)]);
    let path_to_disk = ["fsync", "log sync", "quorum", "write", "await commit", "setData"];
    let mut span = all.iter().find(|span| span.name == "fsync").unwrap();
    for name in path_to_disk {
        assert_eq!(span.name, name);
        span = all.iter().find(|parent| Some(parent.span) == span.parent).unwrap_or(span);
    }
}

#[test]
fn a_trail_ends_when_its_transaction_is_durable_and_committed() {
    let config = Config::parse("dataDir=/d\nclientPort=1\nzoometry.traceSample=1", "zoo.cfg").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut config = config;
    config.own.trace_file = Some(file.path().into());
    let (tracer, thread) = Tracer::start(&config, None, &resource(&config)).unwrap();
    let mut payload = SESSION.0.to_be_bytes().to_vec();
    payload.extend(1i32.to_be_bytes());
    let mut trails = Trails::default();
    for zxid in 1..=3 {
        trails.appended(&tracer, Zxid(zxid), &payload, Way::Following, 10);
    }
    trails.appended(&tracer, Zxid(4), &payload[..11], Way::Following, 10);
    trails.tell_elsewhere(Zxid(2), true);
    trails.tell_elsewhere(Zxid(3), false);
    trails.committed(&tracer, Zxid(3), 30);
    assert!(!trails.is_empty());
    trails.durable(&tracer, &Durable { upto: Zxid(2), synced_ns: 40, ..Durable::default() });
    assert!(!trails.is_empty(), "the third is not durable");
    trails.durable(&tracer, &Durable { upto: Zxid(3), synced_ns: 50, ..Durable::default() });
    assert!(trails.is_empty());
    thread.unwrap().stop();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(text.matches("\"proposal\"").count(), 1, "{text}");
    assert_eq!(text.matches("\"log sync\"").count(), 2, "{text}");
}

#[test]
fn the_span_of_an_unmodified_clients_request_is_a_root() {
    assert_eq!(spans(&builder(false), &write())[0].parent, None);
}

#[test]
fn a_reads_short_stretches_get_no_span() {
    let short = spans(&builder(true), &traced(KeptBy::Head, 1, 1_000, 8_000));
    assert_eq!(short.len(), 1);
    let long = spans(&builder(true), &traced(KeptBy::Head, 1, 1_000, 80_000));
    let names: Vec<_> = long.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["setData", "read", "reply"]);
    assert!(contained(&long));
}

#[test]
fn a_clock_that_is_read_out_of_order_makes_no_crooked_tree() {
    let mut crooked = write();
    crooked.replied_ns = 5_000;
    let spans = spans(&builder(true), &crooked);
    assert!(contained(&spans));
    assert!(spans.iter().all(|span| span.start_ns <= span.end_ns));
}

#[test]
fn refusals_are_results_and_faults_are_faults() {
    let mut refused = write();
    refused.error = Some(ErrorCode::BadVersion);
    let span = &spans(&builder(true), &refused)[0];
    assert_eq!(span.status, zoometry_spans::Status::Unset);
    assert!(span.attrs.iter().any(|a| a.key == attrs::RPC_STATUS_CODE && a.value == "-103".into()));
    refused.error = Some(ErrorCode::SystemError);
    assert_ne!(spans(&builder(true), &refused)[0].status, zoometry_spans::Status::Unset);
}

#[test]
fn the_slowest_of_a_second_are_found_behind_a_floor() {
    let mut search = Slowest::new(3, u64::MAX);
    assert_eq!(search.floor_ns, FIRST_FLOOR_NS);
    let mut kept = Vec::new();
    for second in 0..3u64 {
        assert!(search.due(second * SECOND_NS).len() == if second == 0 { 0 } else { 3 });
        for n in 1..=100 {
            let latency_ns = n * 1_000_000;
            if latency_ns > search.floor_ns {
                search.offer(traced(KeptBy::Slow, n as i32, second * SECOND_NS, latency_ns));
            }
        }
        kept = search.kept.iter().map(|t| t.xid).collect();
        kept.sort_unstable();
        assert_eq!(kept, [98, 99, 100]);
        assert_eq!(search.floor_ns, 98_000_000);
    }
    assert_eq!(kept.len(), 3);
    // A quiet time lowers the floor again, to a limit.
    for second in 4..40 {
        search.due(second * SECOND_NS);
    }
    assert_eq!(search.floor_ns, LOWEST_FLOOR_NS);
}

#[test]
fn a_fixed_threshold_stays_the_ceiling_of_the_floor() {
    let search = Slowest::new(0, 5_000_000);
    assert_eq!(search.floor_ns, 5_000_000);
    let mut search = Slowest::new(1, 5_000_000);
    search.offer(traced(KeptBy::Slow, 1, 0, 90_000_000));
    assert_eq!(search.floor_ns, 5_000_000);
}

#[test]
fn each_second_has_a_budget() {
    let mut budget = Budget::new();
    let admitted = (0..5000).filter(|_| budget.admits(KeptBy::Slow, 10)).count();
    assert_eq!(admitted as u32, MAX_OTHER_PER_SECOND);
    assert!(budget.admits(KeptBy::Head, 10), "its own budget");
    assert!(budget.admits(KeptBy::Slow, 10 + SECOND_NS));
}

#[test]
fn off_is_off() {
    let tracer = Tracer::off();
    assert!(!tracer.is_on() && !tracer.keeps(SESSION, 1));
    assert_eq!(tracer.verdict(SESSION, 1, u64::MAX, Some(ErrorCode::SystemError)), None);
    let mut kept = vec![write()];
    tracer.finish(&mut kept);
    assert!(kept.is_empty());
}

#[test]
fn special_xids_are_never_kept() {
    let (sender, _receiver) = sync_channel(1);
    let tracer = Tracer {
        identity: Identity::new(0, SampleRate::ALL),
        floor_ns: Arc::new(AtomicU64::new(0)),
        sender: Some(sender),
        counts: Arc::default(),
    };
    for xid in [-8, -4, -2, -1, 0] {
        assert_eq!(tracer.verdict(SESSION, xid, 5, Some(ErrorCode::SystemError)), None);
    }
    assert_eq!(tracer.verdict(SESSION, 1, 5, None), Some(KeptBy::Head));
    assert_eq!(tracer.verdict(SESSION, 1, 5, Some(ErrorCode::SystemError)), Some(KeptBy::Error));
    // A queue that nobody empties suppresses and counts.
    tracer.finish(&mut vec![write(), write(), write()]);
    assert_eq!(tracer.counts().suppressed, 2);
}
