//! What the language accepts and means, and what it says about what it does not accept.

use proptest::prelude::*;

use super::*;

/// The least that a workload needs.
const LEAST: &str = "[[phase]]\nname = \"steady\"\nduration = \"10s\"\nmix = { get = 10, set = 1 }\n";

fn parse(text: &str, overrides: &[&str]) -> Result<Spec, String> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Spec::parse("w.toml", text, &overrides).map_err(|errors| errors.to_string())
}

fn good(text: &str) -> Spec {
    parse(text, &[]).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

/// The complaints about a text that must have some.
fn complaints(text: &str) -> String {
    parse(text, &[]).err().unwrap_or_else(|| panic!("accepted:\n{text}"))
}

fn workload_files() -> Vec<std::path::PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads");
    let entries = std::fs::read_dir(directory).expect("workloads/");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

fn shipped(name: &str) -> Spec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads").join(name);
    Spec::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_least_workload_and_its_defaults() {
    let spec = good(LEAST);
    assert_eq!((spec.name.as_str(), spec.seed), ("w", 1));
    let data =
        Data { root: "/zoometry".into(), znodes: 1000, shape: Shape::Flat, value: ValueSize::Constant(100) };
    assert_eq!(spec.data, data);
    let sessions = Sessions { count: 30, in_flight: 1, timeout_ms: 10_000, placement: Placement::Even };
    assert_eq!(spec.sessions, sessions);
    assert_eq!(
        spec.phases,
        [Phase {
            name: "steady".into(),
            duration_ns: 10_000_000_000,
            warmup: false,
            arrival: Arrival::Closed,
            mix: vec![(Op::Get, 10.0), (Op::Set, 1.0)],
            keys: KeyChoice::Uniform,
            value: ValueSize::Constant(100),
            backlog_limit: DEFAULT_BACKLOG_LIMIT,
        }]
    );
    assert!(spec.watchers.is_empty() && spec.faults.is_empty() && spec.expect.is_empty());
}

#[test]
fn every_shipped_workload_is_good_and_explains_itself() {
    let files = workload_files();
    assert!(files.len() >= 7, "{files:?}");
    for path in files {
        let spec = Spec::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(Some(spec.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        assert!(!spec.expect.is_empty(), "{} expects nothing", spec.name);
        let header: Vec<&str> = spec.text.lines().take_while(|line| line.starts_with('#')).collect();
        let mut question = header.iter().take_while(|line| **line != "#");
        assert!(question.any(|line| line.ends_with('?')), "{} asks nothing", spec.name);
        assert!(header.iter().any(|line| line.contains("How to read the answer")), "{}", spec.name);
        let readme = include_str!("../../../workloads/README.md");
        assert!(readme.contains(&format!("{}.toml", spec.name)), "{} is not in the README", spec.name);
        let (foreseen, judged) = crate::foresee::text(&spec);
        assert!(judged, "{foreseen}");
        assert!(foreseen.lines().all(|line| line.chars().count() <= 80), "{foreseen}");
    }
}

#[test]
fn the_shipped_workloads_are_what_they_are_used_for() {
    assert!(
        shipped("read-heavy.toml").duration_ns() < 45_000_000_000,
        "the README's first run must stay short"
    );
    assert!(shipped("smoke.toml").duration_ns() <= 5_000_000_000);
    for name in ["speed-read.toml", "speed-write.toml"] {
        let spec = shipped(name);
        assert_eq!((spec.sessions.count, spec.sessions.in_flight), (30, 10), "{name}");
        assert_eq!(spec.phases[1].duration_ns, 10_000_000_000, "{name}");
        assert_eq!(spec.phases[1].value, ValueSize::Constant(100), "{name}");
        assert_eq!(spec.phases[1].arrival, Arrival::Closed, "{name}");
    }
    let ratio = shipped("read-ratio.toml");
    let reads = ratio.phases.iter().filter(|phase| !phase.warmup).map(|phase| {
        let weight =
            |op| phase.mix.iter().filter(|&&(kind, _)| kind == op).map(|&(_, weight)| weight).sum::<f64>();
        100.0 * weight(Op::Get) / (weight(Op::Get) + weight(Op::Set))
    });
    assert_eq!(reads.collect::<Vec<f64>>(), [100.0, 90.0, 75.0, 50.0, 25.0, 0.0]);
}

#[test]
fn the_readme_s_example_is_the_language() {
    let readme = include_str!("../../../workloads/README.md");
    let example =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let spec = good(example);
    assert_eq!(spec.data.value, ValueSize::Uniform { min: 10, max: 1024 });
    assert_eq!(spec.phases[0].arrival.to_string(), "ramp 0/s to 2000/s");
    assert_eq!(spec.phases[1].arrival.to_string(), "poisson 2000/s");
    assert_eq!(spec.phases[2].arrival.to_string(), "steps 1000/s, 2000/s, 3000/s, poisson");
    assert_eq!(spec.phases[2].keys, KeyChoice::Hot { keys: 10, share: 0.9 });
    assert_eq!(spec.phases[1].keys, KeyChoice::Zipf(0.99));
    assert_eq!(spec.phases[3].mix.len(), 10, "every operation");
    let group = Watchers {
        count: 100,
        sessions: 10,
        on: WatchOn::Spread,
        kind: WatchKind::OneShot,
        phases: vec![1, 2],
    };
    assert_eq!(spec.watchers, [group]);
    assert_eq!(spec.faults[0].target, FaultTarget::Leader);
    assert_eq!(spec.faults[0].for_ns, Some(5_000_000_000));
}

/// One mistake each, where it stands, and what is said about it.
#[test]
fn mistakes_are_told_with_their_place() {
    let phase = "[[phase]]\nname = \"p\"\nduration = \"10s\"\nmix = { get = 1 }\n";
    let table = [
        (
            "durration = \"5s\"\n",
            "w.toml:5:1: unknown key `durration` in [[phase]]; did you mean `duration`?",
        ),
        ("xyzzy = 1\n", "unknown key `xyzzy` in [[phase]]; expected one of name, duration, warmup"),
        ("warmup = 1\n", "w.toml:5:10: warmup = 1: expected true or false"),
        ("backlog = 0\n", "backlog = 0: expected a whole number from 1"),
        ("backlog = -1\n", "backlog = -1: expected a whole number"),
        ("backlog = 99999999999999999999999\n", "expected a whole number"),
        ("arrival = \"close\"\n", "arrival = \"close\": expected \"closed\", or one of"),
        (
            "arrival = { constant = \"5 per second\" }\n",
            "w.toml:5:24: constant = \"5 per second\": expected a rate",
        ),
        ("arrival = { constant = 0 }\n", "constant = 0: expected a rate above zero"),
        ("arrival = { constant = -1 }\n", "expected a rate"),
        ("arrival = { constant = nan }\n", "expected a rate"),
        ("arrival = { constant = 1e300 }\n", "up to 1000000000/s"),
        ("arrival = { constant = 1, poisson = 1 }\n", "expected exactly one of"),
        ("arrival = { }\n", "expected exactly one of"),
        ("arrival = { poison = 1 }\n", "unknown key `poison` in arrival; did you mean `poisson`?"),
        ("arrival = { constant = 1, spacing = \"even\" }\n", "it goes with ramp and steps"),
        ("arrival = { steps = [1], spacing = \"odd\" }\n", "expected one of even, poisson"),
        ("arrival = { ramp = { from = 1 } }\n", "expected both ends"),
        ("arrival = { ramp = { from = 0, to = 0 } }\n", "a positive rate at one end at least"),
        ("arrival = { steps = [] }\n", "expected a list of rates"),
        ("arrival = { steps = [0, 0] }\n", "expected at least one positive rate"),
        ("arrival = { constant = 0.05 }\n", "at least one operation due within the phase"),
        ("keys = \"zipf\"\n", "expected \"uniform\", \"sequential\", { zipf = 0.99 }"),
        ("keys = { zipf = 0 }\n", "w.toml:5:17: zipf = 0: expected an exponent above 0, up to 10"),
        ("keys = { zipf = 11 }\n", "an exponent above 0, up to 10"),
        ("keys = { zipf = \"1\" }\n", "an exponent above 0, up to 10"),
        (
            "keys = { hot = { keys = 1000, share = 0.5 } }\n",
            "fewer hot keys than there are znodes: data.znodes is 1000",
        ),
        ("keys = { hot = { keys = 0, share = 0.5 } }\n", "expected a whole number from 1"),
        ("keys = { hot = { keys = 10, share = \"110%\" } }\n", "expected a share such as"),
        ("keys = { hot = { keys = 10, share = 0 } }\n", "expected a share such as"),
        ("keys = { hot = { keys = 10 } }\n", "expected both the number of keys and their share"),
        ("value = \"1MiB\"\n", "at most 1047537 bytes: jute.maxbuffer (1048575) less path and headers"),
        ("value = \"10GB\"\n", "value = \"10GB\": expected a size such as"),
        ("value = { min = \"2B\", max = \"1B\" }\n", "expected min not above max"),
        ("value = []\n", "expected a size such as"),
        ("value = [{ size = \"1B\", weight = 0 }]\n", "at least one size with a positive weight"),
        ("value = [{ size = \"1B\" }]\n", "expected both: { size"),
    ];
    for (line, expected) in table {
        let told = complaints(&format!("{phase}{line}"));
        assert!(told.contains(expected), "{line} gave\n{told}");
        assert!(told.starts_with("w.toml:5:"), "{line} gave\n{told}");
        assert_eq!(told.lines().count(), 1, "one mistake, one complaint: {line} gave\n{told}");
    }
}

#[test]
fn mistakes_in_other_places() {
    let table = [
        ("", "w.toml:1:1: there is no [[phase]]"),
        ("[phase]\nname = \"p\"\n", "w.toml:1:1: phase is a table: expected [[phase]], with two brackets"),
        ("phase = 3\n", "expected [[phase]], with two brackets"),
        ("[[phase]]\nduration = \"1s\"\nmix = { get = 1 }\n", "w.toml:1:1: this [[phase]] has no name"),
        (
            "[[phase]]\nname = \"a\"\nmix = { get = 1 }\n",
            "w.toml:1:1: phase a has no duration: expected duration = \"10s\"",
        ),
        ("[[phase]]\nname = \"a\"\nduration = \"1s\"\n", "phase a has no mix"),
        (
            "[[phase]]\nname = \"a\"\nduration = \"0s\"\nmix = { get = 1 }\n",
            "w.toml:3:12: duration = \"0s\": expected a duration above zero",
        ),
        (
            "[[phase]]\nname = \"a\"\nduration = 5\nmix = { get = 1 }\n",
            "duration = 5: expected a duration such as",
        ),
        ("[[phase]]\nname = \"a\"\nduration = \"9999h\"\nmix = { get = 1 }\n", "up to 30days"),
        (
            "[[phase]]\nname = \"a\"\nduration = \"1s\"\nmix = { get = 0 }\n",
            "at least one operation with a positive weight",
        ),
        (
            "[[phase]]\nname = \"a\"\nduration = \"1s\"\nmix = { gets = 1 }\n",
            "unknown key `gets` in mix; did you mean `get`?",
        ),
        ("[[phase]]\nname = \"a\"\nduration = \"1s\"\nmix = { notify = 1 }\n", "unknown key `notify` in mix"),
        ("[[phase]]\nname = \"a\"\nduration = \"1s\"\nmix = { get = -1 }\n", "get = -1: expected a weight"),
        (
            "[[phase]]\nname = \"a\"\nduration = \"1s\"\nmix = { delete = 2, create = 1 }\n",
            "no more delete than create",
        ),
        (
            "[[phase]]\nname = \"a\"\nduration = \"1s\"\nwarmup = true\nmix = { get = 1 }\n",
            "every phase is a warm-up",
        ),
        (
            "[[phase]]\nname = \"a b\"\nduration = \"1s\"\nmix = { get = 1 }\n",
            "a name of letters, digits, - and _",
        ),
        (
            "[[phase]]\nname = \"all\"\nduration = \"1s\"\nmix = { get = 1 }\n",
            "`all` means all phases together",
        ),
        ("seed = \"x\"\n", "w.toml:1:8: seed = \"x\": expected a whole number"),
        (
            "[data]\nroot = \"zoometry\"\n",
            "root = \"zoometry\": expected the path of a znode, but path does not start with /",
        ),
        ("[data]\nroot = \"/\"\n", "a znode of the run's own below /"),
        ("[data]\nroot = \"/zookeeper/x\"\n", "a path outside /zookeeper"),
        ("[data]\nznodes = 0\n", "znodes = 0: expected a whole number from 1 to 100000000"),
        ("[data]\nshape = \"deep\"\n", "expected \"flat\", { fanout = 100 } or { depth = 3 }"),
        ("[data]\nshape = { fanout = 1 }\n", "expected a whole number from 2"),
        (
            "[data]\nshape = { fanout = 10, depth = 2 }\n",
            "expected \"flat\", { fanout = 100 } or { depth = 3 }",
        ),
        ("[data]\nvalue = \"1MiB\"\n", "w.toml:2:9: value = \"1MiB\": expected at most"),
        (
            "[sessions]\nplacement = \"server 0\"\n",
            "expected \"even\", \"leader\", \"followers\" or \"server.2\"",
        ),
        ("[sessions]\ncount = 0\n", "count = 0: expected a whole number from 1 to 1000000"),
        ("[sessions]\ncount = 1.5\n", "count = 1.5: expected a whole number"),
        ("[sessions]\ntimeout = \"1ms\"\n", "timeout = \"1ms\": expected 100ms to 24h"),
        (
            "[session]\ncount = 1\n",
            "w.toml:1:2: unknown key `session` in a workload; did you mean `sessions`?",
        ),
        ("[defaults]\nname = \"x\"\n", "unknown key `name` in [defaults]"),
        ("expect = \"errors.total = 0\"\n", "expected a list such as"),
        ("expect = [7]\n", "expected a string such as"),
        (
            "expect = [\n    \"response.gte.p99 < 5ms\",\n]\n",
            "w.toml:2:5: expectation `response.gte.p99 < 5ms`: unknown operation `gte`; did you mean `get`?",
        ),
        ("seed = 1\nseed = 2\n", "w.toml:2:1: not TOML"),
        ("seed = \n", "w.toml:1:"),
    ];
    for (text, expected) in table {
        let needs_phase = !text.is_empty() && !text.contains("phase");
        let text = if needs_phase { format!("{text}{LEAST}") } else { text.to_string() };
        let told = complaints(&text);
        assert!(told.contains(expected), "{text}\ngave\n{told}");
        assert!(told.starts_with("w.toml:"), "{told}");
        assert_eq!(told.lines().count(), 1, "one mistake, one complaint:\n{text}\ngave\n{told}");
    }
}

#[test]
fn what_does_not_fit_together() {
    let twice = format!("{LEAST}{LEAST}");
    let expect = |text: &str| format!("expect = [\"{text}\"]\n{LEAST}");
    let watchers = |text: &str| format!("{LEAST}[[watchers]]\n{text}");
    let fault = |text: &str| format!("{LEAST}[[fault]]\n{text}");
    let table = [
        (twice, "w.toml:6:8: name = \"steady\": expected a name that no other phase has"),
        (
            expect("response.exists.p99 < 1s"),
            "w.toml:1:11: expectation `response.exists.p99 < 1s`: no phase issues such operations",
        ),
        (expect("phase.stedy.response.get.p99 < 1s"), "there is no phase `stedy`; did you mean `steady`?"),
        (expect("notify.p99 < 1s"), "no phase issues such operations, or watches for them"),
        (expect("missed.total = 0"), "in a closed loop nothing is ever late or missed"),
        (expect("failover.write_gap < 1s"), "there is no [[fault]] whose gap could be measured"),
        (watchers("count = 10\non = \"hot\"\n"), "this [[watchers]] has no kind"),
        (
            watchers("count = 10\non = \"hto\"\nkind = \"one-shot\"\n"),
            "on = \"hto\": expected \"hot\" (all on key 0)",
        ),
        (
            watchers("count = 10\non = \"hot\"\nkind = \"oneshot\"\n"),
            "expected one of one-shot, persistent, recursive; did you mean `one-shot`?",
        ),
        (
            watchers("count = 10\nsessions = 20\non = \"hot\"\nkind = \"one-shot\"\n"),
            "sessions = 20: expected a whole number from 1 to 10",
        ),
        (
            watchers("count = 10\nsessions = 5\non = \"hot\"\nkind = \"one-shot\"\n"),
            "at most 5: 5 sessions cannot leave more watches there",
        ),
        (watchers("count = 1001\nsessions = 10\non = \"znode\"\nkind = \"one-shot\"\n"), "at most 1000"),
        (
            watchers("count = 1\non = { znode = 1000 }\nkind = \"one-shot\"\n"),
            "znode = 1000: expected a whole number from 0 to 999",
        ),
        (
            watchers("count = 1\non = \"subtree\"\nkind = \"persistent\"\n"),
            "\"recursive\": the other kinds see one znode",
        ),
        (
            watchers("count = 1\non = \"hot\"\nkind = \"one-shot\"\nphases = [\"steedy\"]\n"),
            "the name of a phase; did you mean `steady`?",
        ),
        (
            watchers("count = 1\non = \"hot\"\nkind = \"one-shot\"\nphases = []\n"),
            "expected a list of phase names",
        ),
        (fault("at = \"1s\"\nkind = \"kill\"\n"), "this [[fault]] has no target"),
        (fault("at = \"10s\"\nkind = \"kill\"\ntarget = \"leader\"\n"), "a time before the run's end (10s)"),
        (fault("at = \"1s\"\nkind = \"stop\"\ntarget = \"leader\"\n"), "a length with it: for = \"5s\""),
        (
            fault("at = \"1s\"\nkind = \"slow-disk\"\ntarget = \"leader\"\nfor = \"1s\"\n"),
            "a delay with slow-disk",
        ),
        (
            fault("at = \"1s\"\nkind = \"kill\"\ntarget = \"leader\"\ndelay = \"1s\"\n"),
            "a delay with slow-disk, and only with it",
        ),
        (fault("at = \"1s\"\nkind = \"kil\"\ntarget = \"leader\"\n"), "did you mean `kill`?"),
        (
            fault("at = \"1s\"\nkind = \"kill\"\ntarget = \"server\"\n"),
            "\"leader\", \"follower\", \"quorum\", \"all\" or \"server.2\"",
        ),
        (fault("at = \"1s\"\nkind = \"kill\"\ntarget = \"all\"\nrepeat = 3\n"), "repeat and every together"),
        (
            fault("at = \"1s\"\nkind = \"kill\"\ntarget = \"all\"\nrepeat = 3\nevery = \"5s\"\n"),
            "fewer: the last would strike at 11s, the run ends at 10s",
        ),
        (
            fault(
                "at = \"1s\"\nkind = \"kill\"\ntarget = \"all\"\nfor = \"2s\"\nrepeat = 2\nevery = \"2s\"\n",
            ),
            "more than for",
        ),
        (
            "[data]\nznodes = 200_000\n[[phase]]\nname = \"ls\"\nduration = \"1s\"\nmix = { children = 1 }\n"
                .to_string(),
            "no children with 200000 znodes under one parent",
        ),
    ];
    for (text, expected) in table {
        let told = complaints(&text);
        assert!(told.contains(expected), "{text}\ngave\n{told}");
        assert_eq!(told.lines().count(), 1, "{text}\ngave\n{told}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let told = complaints(
        "sed = 1\n[data]\nznodes = 0\n[[phase]]\nname = \"p\"\nduration = \"5\"\nmix = { get = 1 }\n",
    );
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().expect("a place")).collect();
    assert_eq!(places, ["w.toml:1:1", "w.toml:3:10", "w.toml:6:12"], "{told}");
}

#[test]
fn a_mistake_in_the_defaults_is_told_once_where_it_stands() {
    let phases = "[[phase]]\nname = \"a\"\nmix = { get = 1 }\n[[phase]]\nname = \"b\"\nmix = { get = 1 }\n";
    let told = complaints(&format!("[defaults]\nduration = \"x\"\n{phases}"));
    assert_eq!(
        told,
        "w.toml:2:12: duration = \"x\": expected a duration such as \"500ms\", \"5s\" or \"2m\""
    );
    // Also when every phase has its own.
    let told = complaints(&format!("[defaults]\nduration = \"1s\"\nmix = {{ gett = 1 }}\n{phases}"));
    assert_eq!(told, "w.toml:3:9: unknown key `gett` in mix; did you mean `get`?");
}

#[test]
fn defaults_are_taken_key_by_key() {
    let text = "[defaults]\nduration = \"2s\"\nmix = { get = 1, set = 1 }\nkeys = { zipf = 1 }\n\
                [[phase]]\nname = \"a\"\n[[phase]]\nname = \"b\"\nmix = { sync = 1 }\nduration = \"1s\"\n";
    let spec = good(text);
    assert_eq!(spec.phases[0].mix, [(Op::Get, 1.0), (Op::Set, 1.0)]);
    assert_eq!(spec.phases[1].mix, [(Op::Sync, 1.0)], "replaced, not mixed");
    assert_eq!((spec.phases[0].duration_ns, spec.phases[1].duration_ns), (2_000_000_000, 1_000_000_000));
    assert!(spec.phases.iter().all(|phase| phase.keys == KeyChoice::Zipf(1.0)));
}

#[test]
fn overrides_change_the_document() {
    let text = "[defaults]\nmix = { get = 10, set = 1 }\nduration = \"10s\"\n\
                [[phase]]\nname = \"a\"\n[[phase]]\nname = \"b\"\nduration = \"20s\"\n\
                [[watchers]]\ncount = 5\non = \"hot\"\nkind = \"one-shot\"\n";
    let with = |overrides: &[&str]| parse(text, overrides).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(with(&["seed=7"]).seed, 7);
    assert_eq!(with(&["name = other"]).name, "other");
    assert_eq!(with(&["sessions.count=100"]).sessions.count, 100);
    assert_eq!(with(&["sessions.placement=server.2"]).sessions.placement, Placement::Server(2));
    assert_eq!(with(&["sessions.placement=server 2"]).sessions.placement, Placement::Server(2));
    assert_eq!(with(&["phase.b.duration=5s"]).phases[1].duration_ns, 5_000_000_000);
    assert_eq!(with(&["phase.a.duration=5s"]).phases[0].duration_ns, 5_000_000_000, "before the default");
    assert_eq!(with(&["phase.2.duration=5s"]).phases[1].duration_ns, 5_000_000_000);
    assert_eq!(with(&["phase.*.duration=1s"]).duration_ns(), 2_000_000_000);
    let durations = |spec: &Spec| spec.phases.iter().map(|phase| phase.duration_ns).collect::<Vec<_>>();
    assert_eq!(durations(&with(&["defaults.duration=3s"])), [3_000_000_000, 20_000_000_000]);
    assert_eq!(
        with(&["phase.a.mix.get=5"]).phases[0].mix,
        [(Op::Get, 5.0), (Op::Set, 1.0)],
        "in the default mix"
    );
    assert_eq!(with(&["phase.a.mix={ sync = 1 }"]).phases[0].mix, [(Op::Sync, 1.0)]);
    assert_eq!(with(&["phase.a.arrival={ poisson = \"9/s\" }"]).phases[0].arrival.to_string(), "poisson 9/s");
    assert_eq!(with(&["phase.a.arrival.poisson=9/s"]).phases[0].arrival.to_string(), "poisson 9/s");
    assert_eq!(with(&["watchers.1.count=3"]).watchers[0].count, 3);
    assert_eq!(with(&["expect=[\"errors.total = 0\"]"]).expect.len(), 1);
    let expects =
        with(&["expect=[\"errors.total = 0\", \"missed.total = 0\"]", "expect.2=rate.get > 5/s"]).expect;
    assert_eq!(
        expects.iter().map(|expect| expect.text.as_str()).collect::<Vec<_>>(),
        ["errors.total = 0", "rate.get > 5/s"]
    );
    assert_eq!(with(&["seed=1", "seed=2"]).seed, 2, "the last one counts");
    assert_eq!(with(&["seed=7"]).overrides, ["seed=7"]);
}

#[test]
fn a_bad_override_is_named() {
    let table = [
        ("seed", "--set seed: expected KEY=VALUE"),
        ("sessions..count=1", "--set sessions..count=1: `sessions..count` is no key"),
        (
            "sessions.cuont=1",
            "--set sessions.cuont=1: unknown key `cuont` in [sessions]; did you mean `count`?",
        ),
        (
            "sesions.count=1",
            "--set sesions.count=1: unknown key `sesions` in a workload; did you mean `sessions`?",
        ),
        ("sessions.count=0", "--set sessions.count=0: count = 0: expected a whole number from 1"),
        (
            "phase.stedy.duration=5s",
            "--set phase.stedy.duration=5s: there is no phase `stedy`; did you mean `steady`?",
        ),
        ("phase.x.duration=5s", "there is no phase `x`; there is steady"),
        ("phase.steady.duration=5", "--set phase.steady.duration=5: duration = 5: expected a duration"),
        ("phase.steady=5", "expected a key inside phase.steady"),
        ("phase.steady.duration.x=5", "`phase.steady.duration` is a single value; it has no `x` in it"),
        ("phase.steady.mix={ get = ", "--set phase.steady.mix={ get = : not TOML"),
        ("phase.steady.keys={ zipf = 0 }", "{ zipf = 0 }: zipf = 0: expected an exponent"),
    ];
    for (text, expected) in table {
        let told = parse(LEAST, &[text]).expect_err(text);
        assert!(told.contains(expected), "{text} gave\n{told}");
        assert!(told.starts_with("--set "), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_file_of_another_kind_is_told_once() {
    let told = parse(&"Notes of a meeting\n".repeat(100), &[]).expect_err("no workload");
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(told.ends_with("; and 95 more: expected a workload file"), "{told}");
}

#[test]
fn a_file_that_is_not_there() {
    let errors = Spec::load(Path::new("/no/such/workload.toml"), &[]).expect_err("no such file");
    assert!(errors.to_string().starts_with("/no/such/workload.toml: cannot be read: "), "{errors}");
}

#[test]
fn a_spec_survives_json() {
    let spec = shipped("smoke.toml");
    let json = serde_json::to_string(&spec).expect("serializes");
    assert_eq!(serde_json::from_str::<Spec>(&json).expect("deserializes"), spec);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is in the file: a spec or complaints, no panic.
    #[test]
    fn no_text_is_too_strange(text in "[\\PC\n]{0,200}", set in "[\\PC]{0,40}") {
        let _ = parse(&text, &[&set]);
    }

    /// The shipped files with a piece cut out and another put in: nearer to the grammar than noise.
    #[test]
    fn no_damage_is_too_strange(cut in any::<[prop::sample::Index; 3]>(), length in 0usize..40, graft in 0usize..40) {
        let text = include_str!("../../../workloads/smoke.toml");
        let at = |index: &prop::sample::Index, length: usize| {
            let start = index.index(text.len());
            (start, (start + length).min(text.len()))
        };
        let ((from, to), (piece, piece_end)) = (at(&cut[0], length), at(&cut[1], graft));
        let damaged = format!("{}{}{}", &text[..from], &text[piece..piece_end], &text[to..]);
        let _ = parse(&damaged, &[]);
    }
}

#[test]
fn a_fault_that_repeats_is_several() {
    let repeat = "[[fault]]\nat = \"1s\"\nkind = \"kill\"\ntarget = \"leader\"\nfor = \"1s\"\nrepeat = 3\nevery = \"2s\"\n";
    let slow =
        "[[fault]]\nat = \"2s\"\nkind = \"slow-disk\"\ndelay = \"1s\"\ntarget = \"all\"\nfor = \"1s\"\n";
    let spec = good(&format!("{LEAST}{repeat}{slow}"));
    let times: Vec<u64> = spec.faults.iter().map(|fault| fault.at_ns / 1_000_000_000).collect();
    assert_eq!(times, [1, 2, 3, 5]);
    assert_eq!(spec.faults[1].kind, FaultKind::SlowDisk { delay_ns: 1_000_000_000 });
}
