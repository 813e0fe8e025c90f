//! `zoometry run` as a person meets it, against a fake server: does it tell the truth, and does it end as promised?

mod fake;

use fake::{Behaviour, Fake};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

fn command(directory: &Path, workload: &str, cluster: &str) -> Command {
    let file = directory.join("test.toml");
    std::fs::write(&file, workload).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    command
        .arg("run")
        .arg(file)
        .args(["--cluster", cluster, "--no-charts", "--out"])
        .arg(directory.join("results"));
    command
}

/// Runs measure: two at a time would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(directory: &Path, workload: &str, cluster: &str) -> Output {
    let _alone = alone();
    command(directory, workload, cluster).output().unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The only results directory.
fn results(directory: &Path) -> PathBuf {
    let mut found = std::fs::read_dir(directory.join("results")).unwrap();
    found.next().expect("a results directory").unwrap().path()
}

fn json(path: PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// (count, p99, max) in seconds of getData in the measured phase.
fn get_response(directory: &Path) -> (u64, f64, f64) {
    let summary = json(results(directory).join("summary.json"));
    let ops = summary["whole"]["ops"].as_array().unwrap().clone();
    let get = ops.iter().find(|op| op["op"] == "get").unwrap();
    let seconds = |name: &str| get["response"][name].as_f64().unwrap() / 1e6;
    (get["count"].as_u64().unwrap(), seconds("p99_us"), seconds("max_us"))
}

const STEADY: &str = r#"
[data]
znodes = 100
[sessions]
count = 10
in_flight = 100
[[phase]]
name = "steady"
duration = "5s"
arrival = { constant = "1000/s" }
mix = { get = 1 }
"#;

/// A server that stands still for half a second makes everybody wait who was due in that time: at a constant rate the waiting times
/// are spread evenly between nothing and the whole stall. Of a run of T seconds the slowest 1 % waited more than stall − T/100.
#[test]
fn a_stall_shows_in_response_times_as_arithmetic_demands() {
    let stall = Duration::from_millis(500);
    let mut seen = Vec::new();
    // Other work on the machine can only add to what is measured; an error of the method would be there every time.
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::start(Behaviour { stall: Some((2_000, stall)), ..Default::default() });
        let output = run(directory.path(), STEADY, &fake.address.to_string());
        let (count, p99, max) = get_response(directory.path());
        assert_eq!(count, 5_000, "nothing is skipped\n{}", shown(&output));
        let stalled = fake.stalled().expect("it stood still").as_secs_f64();
        let expected = stalled - 5.0 * 0.01;
        if (p99 / expected - 1.0).abs() < 0.02 && (max / stalled - 1.0).abs() < 0.02 {
            return;
        }
        seen.push(format!("p99 {p99:.4} (expected {expected:.4}), max {max:.4} (expected {stalled:.4})"));
    }
    panic!("not within 2 % in any of five runs:\n{}", seen.join("\n"));
}

#[test]
fn an_overloaded_generator_ends_invalid() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let workload = STEADY.replace("1000/s", "3000000/s").replace("\"5s\"", "\"6s\"");
    let output = run(directory.path(), &workload, &fake.address.to_string());
    assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert_eq!(manifest["verdict"]["grade"], "INVALID");
}

#[test]
fn a_cluster_that_is_not_there_ends_with_4() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), STEADY, "127.0.0.1:1");
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("127.0.0.1:1"), "{}", shown(&output));
    let left = std::fs::read_dir(directory.path().join("results")).unwrap().count();
    assert_eq!(left, 0, "no results directory without results");
}

#[test]
fn bad_input_ends_with_2_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &STEADY.replace("znodes", "znodez"), "127.0.0.1:1");
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("test.toml:3"), "{}", shown(&output));
    let nowhere = STEADY.replace("[sessions]", "[sessions]\nplacement = \"server 2\"");
    let output = run(directory.path(), &nowhere, "127.0.0.1:1");
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("no server.2"), "{}", shown(&output));
    let output = run(directory.path(), STEADY, "nonsense");
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
}

/// `zoometry check FILE` with these expectations: its exit code and what it says.
fn checked(expect: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.toml");
    std::fs::write(&file, format!("expect = [{expect}]\n{STEADY}")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_zoometry")).arg("check").arg(file).output().unwrap();
    let said = shown(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    (output.status.code(), said)
}

#[test]
fn a_workload_is_checked_without_a_cluster() {
    let (code, said) = checked("\"response.get.p99 < 5ms\"");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("5.0 s in 1 phase,") && said.contains("5,000") && said.contains("can be judged"),
        "{said}"
    );
    let (code, said) = checked("\"errors.total >= 0\"");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("test.toml:1:11: ") && said.contains("could not fail"), "{said}");
    let (code, said) = checked("\"response.get.p99.9 < 5ms\"");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("p99.9 needs 10,000") && said.contains("5,000 such operations"), "{said}");
}

/// What is wrong is told before anything is started, with the cluster's own faults among it.
#[test]
fn a_dry_run_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), STEADY, "127.0.0.1:1").arg("--dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!directory.path().join("results").exists());
    let nowhere = STEADY.replace("[sessions]", "[sessions]\nplacement = \"server 2\"");
    let output = command(directory.path(), &nowhere, "127.0.0.1:1").arg("--dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("no server.2"), "{}", shown(&output));
}

#[test]
fn an_expectation_that_is_not_met_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let steady = STEADY.replace("\"5s\"", "\"6s\"").replace("in_flight = 100", "in_flight = 1");
    // A closed loop: how late operations are sent does not enter, so that only the expectation decides.
    let closed = steady.replace("{ constant = \"1000/s\" }", "\"closed\"");
    let workload = format!("expect = [\"rate.get > 100000000/s\"]\n{closed}");
    let output = run(directory.path(), &workload, &fake.address.to_string());
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("FAILED"), "{}", shown(&output));
    assert_eq!(fake.paths(), ["/"], "everything was taken away again");
    let get = &json(results(directory.path()).join("summary.json"))["whole"]["ops"][0];
    let after_the_end = get["count"].as_f64().unwrap() - get["rate"].as_f64().unwrap() * 6.0;
    assert!((-0.5..=10.5).contains(&after_the_end), "only what ten sessions had in flight: {after_the_end}");
}

const WRITES: &str = r#"
[data]
znodes = 10
[sessions]
count = 4
in_flight = 4
[[phase]]
name = "writes"
duration = "2s"
arrival = { constant = "500/s" }
mix = { set = 1 }
"#;

#[test]
fn a_lost_acknowledged_write_ends_with_4() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { forget_every: Some(400), ..Default::default() });
    let output = run(directory.path(), WRITES, &fake.address.to_string());
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("PROMISE BROKEN"), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert_eq!(manifest["checked_writes"]["checked"], 1000);
    assert!(manifest["checked_writes"]["lost"].as_u64().unwrap() >= 1);
}

fn creates(mix: &str, behaviour: Behaviour) -> (tempfile::TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(behaviour);
    let output = run(directory.path(), &WRITES.replace("set = 1", mix), &fake.address.to_string());
    (directory, output)
}

/// A create that was acknowledged is looked for where its session deletes it, too: afterwards there is nothing left to look for.
#[test]
fn a_lost_create_is_told_though_it_was_to_be_deleted() {
    let forgets = Behaviour { forget_creates: true, ..Default::default() };
    let (directory, output) = creates("create = 5, delete = 5", forgets);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert!(manifest["checked_writes"]["lost"].as_u64().unwrap() >= 300, "{}", manifest["checked_writes"]);
    let forgets = Behaviour { forget_ephemerals: true, ..Default::default() };
    let (directory, output) = creates("create-ephemeral = 5, delete = 5", forgets);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert!(manifest["checks"]["ephemerals"]["lost"].as_u64().unwrap() >= 300, "{}", manifest["checks"]);
}

#[test]
fn sequential_znodes_of_the_same_name_are_not_two() {
    let (_, output) = creates("create-sequential = 1", Behaviour { same_number: true, ..Default::default() });
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("q0000000007 was created twice"), "{}", shown(&output));
}

/// Lost connections are outcomes, not the end: sessions come back, and everything due is accounted for.
#[test]
fn sessions_survive_lost_connections() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { hang_up_every: Some(500), ..Default::default() });
    let output = run(directory.path(), &STEADY.replace("\"5s\"", "\"3s\""), &fake.address.to_string());
    let summary = json(results(directory.path()).join("summary.json"));
    let ops = summary["whole"]["ops"].as_array().unwrap().clone();
    let get = ops.iter().find(|op| op["op"] == "get").unwrap();
    let of = |name: &str| get[name].as_u64().unwrap();
    assert!(get["errors_by_code"]["CONNECTIONLOSS"].as_u64().unwrap() >= 5, "{get}\n{}", shown(&output));
    assert_eq!(of("offered"), 3_000);
    assert_eq!(of("count") + of("errors") + of("missed"), 3_000);
    let connect = ops.iter().find(|op| op["op"] == "connect").expect("reconnects are recorded");
    assert!(connect["count"].as_u64().unwrap() >= 5);
}

/// A server that lets sessions in and then closes (what they ask for is too long for it, say) is not pressed.
#[test]
fn a_server_that_closes_at_once_is_asked_again_with_pauses() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { hang_up_every: Some(1), ..Default::default() });
    let output = run(directory.path(), &STEADY.replace("\"5s\"", "\"3s\""), &fake.address.to_string());
    let summary = json(results(directory.path()).join("summary.json"));
    let ops = summary["whole"]["ops"].as_array().unwrap().clone();
    let connect = ops.iter().find(|op| op["op"] == "connect").expect("reconnects are recorded");
    // Ten sessions, which pause for a quarter of a second each when they have been away for two seconds.
    let count = connect["count"].as_u64().unwrap();
    assert!((10..1_000).contains(&count), "{count} connections in 3 s\n{}", shown(&output));
}

/// What a server says last may not be followed by the end of the connection: it may be stopped, or cut off, in between.
#[test]
fn sessions_that_expired_begin_anew_though_the_server_does_not_close() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { hang_up_every: Some(500), expire: true, ..Default::default() });
    let output = run(directory.path(), &STEADY.replace("\"5s\"", "\"3s\""), &fake.address.to_string());
    let summary = json(results(directory.path()).join("summary.json"));
    let ops = summary["whole"]["ops"].as_array().unwrap().clone();
    let of = |name: &str| ops.iter().find(|op| op["op"] == name).unwrap().clone();
    let (get, connect) = (of("get"), of("connect"));
    assert!(connect["errors_by_code"]["SESSIONEXPIRED"].as_u64().unwrap() >= 5, "{connect}");
    assert_eq!(get["missed"], 0, "{get}\n{}", shown(&output));
    assert!(get["response"]["max_us"].as_f64().unwrap() < 2e6, "{get}\n{}", shown(&output));
}

const WATCHED: &str = r#"
[data]
znodes = 5
[sessions]
count = 2
[[phase]]
name = "changes"
duration = "3s"
arrival = { constant = "50/s" }
mix = { set = 1 }
[[watchers]]
count = 10
on = { znode = 0 }
kind = "one-shot"
"#;

#[test]
fn watch_events_are_attributed_to_their_writes() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let output = run(directory.path(), WATCHED, &fake.address.to_string());
    let manifest = json(results(directory.path()).join("manifest.json"));
    let watches = &manifest["checks"]["watches"];
    let delivered = watches["delivered"].as_u64().unwrap();
    assert!(delivered >= 50, "{watches}\n{}", shown(&output));
    for none in ["missing", "duplicate", "unattributed", "unlogged"] {
        assert_eq!(watches[none], 0, "{none}: {watches}");
    }
    let fan_out = std::fs::read_to_string(results(directory.path()).join("watches.csv")).unwrap();
    assert!(fan_out.starts_with("due_ns,watchers,first_ns,median_ns,last_ns"), "{fan_out}");
    let heard: u64 =
        fan_out.lines().skip(1).map(|l| l.split(',').nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(heard, delivered);
}

/// `WATCHED` with watches in every other of a row of phases, in which much is written.
fn watched_now_and_then() -> String {
    let phase = |name: &str| {
        format!(
            "[[phase]]\nname = \"{name}\"\nduration = \"300ms\"\narrival = {{ constant = \"2000/s\" }}\nmix = {{ set = 1 }}\n"
        )
    };
    let phases: String = ["a", "b", "c", "d", "e", "f"].map(phase).concat();
    let rest = WATCHED.split_once("[[watchers]]").unwrap().1;
    format!(
        "[data]\nznodes = 1\n[sessions]\ncount = 2\nin_flight = 8\n{phases}[[watchers]]{rest}phases = [\"a\", \"c\", \"e\"]\n"
    )
}

/// Events on their way when a phase's end takes the watches away are no second firing.
#[test]
fn watches_that_are_taken_away_did_not_fire_twice() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let output = run(directory.path(), &watched_now_and_then(), &fake.address.to_string());
    let watches = &json(results(directory.path()).join("manifest.json"))["checks"]["watches"];
    assert!(watches["delivered"].as_u64().unwrap() >= 50, "{watches}\n{}", shown(&output));
    assert_eq!((&watches["duplicate"], &watches["missing"]), (&0.into(), &0.into()), "{watches}");
}

/// What a watch should have told is judged when it is taken away, not only at the end of the run.
#[test]
fn watches_that_are_taken_away_without_having_fired_are_missed() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { forget_watches: true, ..Default::default() });
    let output = run(directory.path(), &watched_now_and_then(), &fake.address.to_string());
    let watches = &json(results(directory.path()).join("manifest.json"))["checks"]["watches"];
    assert_eq!(watches["missing"], 30, "ten watches in three phases: {watches}\n{}", shown(&output));
}

/// Who was not connected at the end cannot say what it was not told.
#[test]
fn watchers_that_are_away_at_the_end_miss_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { drop_watchers_after: Some(100), ..Default::default() });
    let output = run(directory.path(), WATCHED, &fake.address.to_string());
    let watches = &json(results(directory.path()).join("manifest.json"))["checks"]["watches"];
    assert!(watches["delivered"].as_u64().unwrap() >= 50, "{watches}\n{}", shown(&output));
    assert_eq!(watches["missing"], 0, "{watches}");
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn ctrl_c_writes_what_was_measured() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let workload = STEADY.replace("\"5s\"", "\"300s\"");
    let _alone = alone();
    let mut command = command(directory.path(), &workload, &fake.address.to_string());
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("phase 1/1")), "the phase begins");
    // What was asked is known by now, whatever becomes of the file.
    std::fs::remove_file(directory.path().join("test.toml")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    interrupt(&child);
    let asked = Instant::now();
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30), "it ends soon, not after five minutes");
    assert_eq!(output.status.code(), Some(130), "{}\n{:?}", shown(&output), rest.join());
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert_eq!(manifest["cut_short"], true);
    assert_eq!(manifest["verdict"]["grade"], "INVALID", "{}", manifest["verdict"]);
    assert_eq!(manifest["workload_text"], workload);
    let (count, ..) = get_response(directory.path());
    assert!(count >= 500, "{count} operations were measured before");
    assert_eq!(fake.paths(), ["/"], "it cleaned up");
}

/// Starts a run whose phase lasts for minutes, lets it go on for so long, and kills it.
fn killed_after(directory: &Path, address: &str, seconds: f64) {
    use std::io::{BufRead, BufReader};
    let mut command = command(directory, &STEADY.replace("\"5s\"", "\"300s\""), address);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("phase 1/1")), "the phase begins");
    std::thread::sleep(Duration::from_secs_f64(seconds));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Runs `zoometry` with these words and a results directory.
fn zoometry(words: &[&str], directories: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zoometry")).args(words).args(directories).output().unwrap()
}

#[test]
fn a_run_that_is_killed_leaves_all_but_its_last_moments() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let (lasted, alone) = (5.0, alone());
    killed_after(directory.path(), &fake.address.to_string(), lasted);
    drop(alone);
    let left = results(directory.path());
    assert_eq!(json(left.join("manifest.json"))["state"], "running");
    // A line may be torn wherever the kill came.
    for name in ["histograms.hlog", "intervals.csv", "generator.csv"] {
        let file = std::fs::OpenOptions::new().write(true).open(left.join(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    }
    let output = zoometry(&["report"], &[&left]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let told = shown(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("INVALID") && told.contains("it never ended: the program was killed"), "{told}");
    assert!(std::fs::read_to_string(left.join("report.html")).unwrap().contains("it never ended"));
    let summary = json(left.join("summary.json"));
    let seconds = summary["whole"]["seconds"].as_f64().unwrap();
    // The phase began when its line was printed, a tenth of a second late at most; a busy machine kills later, never sooner.
    assert!(seconds >= lasted - 2.0 && seconds < 60.0, "{seconds} s of {lasted} s were written");
    let (count, ..) = get_response(directory.path());
    assert!(count as f64 > 0.9 * 1_000.0 * seconds, "{count} operations in {seconds} s");
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(&left).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), other.join(entry.file_name())).unwrap();
        }
    }
    let output = zoometry(&["compare"], &[&left, &other]);
    assert_ne!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("INVALID"), "{}", shown(&output));
}

#[test]
fn a_run_whose_fault_fails_ends_early_and_leaves_what_it_measured() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let lab = directory.path().join("lab.toml");
    let member =
        format!("[[member]]\naddress = \"{}\"\nkill = \"echo no such host; exit 7\"\n", fake.address);
    std::fs::write(&lab, member).unwrap();
    let steady = STEADY.replace("\"5s\"", "\"300s\"");
    let workload = format!("{steady}[[fault]]\nat = \"2s\"\nkind = \"kill\"\ntarget = \"server 1\"\n");
    let output = command(directory.path(), &workload, lab.to_str().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("no such host"), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert_eq!((&manifest["state"], &manifest["verdict"]["grade"]), (&"complete".into(), &"INVALID".into()));
    assert!(manifest["cut_short_by"].as_str().unwrap().contains("no such host"), "{manifest}");
    let (count, ..) = get_response(directory.path());
    assert!(count >= 1_000, "{count} operations were measured before");
    let output = zoometry(&["report"], &[&results(directory.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}

#[test]
fn what_a_foreign_cluster_cannot_do_is_refused() {
    for option in [["--zoo-cfg", "tickTime=300"], ["--data-dir", "data"]] {
        let directory = tempfile::tempdir().unwrap();
        let output = command(directory.path(), WRITES, "127.0.0.1:1").args(option).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        let told =
            format!("{} is for members that are started for the run; 127.0.0.1:1 has", option.join(" "));
        assert!(shown(&output).contains(&told), "{}", shown(&output));
    }
}

/// Whoever measures a setting must hear that it was none.
#[test]
fn a_misspelt_line_for_zoo_cfg_is_told() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), WRITES, "zoometry:1");
    let output = command.args(["--zoo-cfg", "ticktime=500"]).output().unwrap();
    assert!(shown(&output).contains("ticktime is not known and does nothing; did you mean tickTime?"));
}

/// A member must not survive us, whatever ends us.
#[test]
fn no_member_is_left_behind() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    command.args(["up", "1", "--data-dir"]).arg(directory.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.trim().strip_prefix("connect string  ").map(str::to_owned));
    let address = address.expect("it says where it is");
    assert!(std::net::TcpStream::connect(&address).is_ok(), "it serves");
    child.kill().unwrap();
    child.wait().unwrap();
    let died = Instant::now();
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(died.elapsed() < Duration::from_secs(10), "the member on {address} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_workload_can_be_compared_on_two_clusters() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let fakes = [Fake::start(Behaviour::default()), Fake::start(Behaviour::default())];
    let file = directory.path().join("test.toml");
    std::fs::write(&file, WRITES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    // Forced, because a busy machine makes so short a run INVALID.
    command
        .arg("compare")
        .arg(&file)
        .args(["--repeats", "2", "--force", "--out"])
        .arg(directory.path().join("results"));
    for fake in &fakes {
        command.args(["--cluster", &fake.address.to_string()]);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(
        std::fs::read_dir(directory.path().join("results")).unwrap().count(),
        5,
        "two runs each, and the comparison"
    );
    assert!(shown(&output).contains("run 4 of 4"), "{}", shown(&output));
}

/// Nothing more is measured when one side's figures will not count.
#[test]
fn an_invalid_side_ends_a_comparison_at_once() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let fakes = [Fake::start(Behaviour::default()), Fake::start(Behaviour::default())];
    let file = directory.path().join("test.toml");
    std::fs::write(&file, STEADY.replace("1000/s", "3000000/s").replace("\"5s\"", "\"1s\"")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    command.arg("compare").arg(&file).args(["--repeats", "1", "--out"]).arg(directory.path().join("results"));
    for (label, fake) in ["one", "other"].into_iter().zip(&fakes) {
        command.args(["--cluster", &format!("{label}={}", fake.address)]);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
    assert!(shown(&output).contains("this run of one is INVALID"), "{}", shown(&output));
    assert!(!shown(&output).contains("run 2 of 2"), "{}", shown(&output));
}

/// [`STEADY`] as short as it can be.
fn short() -> String {
    STEADY.replace("1000/s", "200/s").replace("\"5s\"", "\"1s\"")
}

/// Whether any file below a directory has these bytes in it.
fn has_bytes(directory: &Path, wanted: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return has_bytes(&path, wanted);
        }
        std::fs::read(path).unwrap().windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes())
    })
}

#[test]
fn a_closed_cluster_is_told_who_asks_and_nobody_else_is() {
    let fake = Fake::start(Behaviour { closed: Some("ann:hunter2"), ..Default::default() });
    let address = fake.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &short(), &address);
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("NOAUTH") && said.contains("data.root = \"/zoometry\" is closed"), "{said}");
    assert!(said.contains("ZOOMETRY_AUTH=digest:user:password"), "{said}");
    assert!(!said.contains("left behind"), "nothing was made: {said}");

    let _alone = alone();
    // Each request of every session would fail without it, so that nothing would be left to measure.
    let mut command = command(directory.path(), &short(), &address);
    let output = command.args(["--auth", "digest:ann:hunter2"]).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", shown(&output));
    let manifest = json(results(directory.path()).join("manifest.json"));
    assert!(
        manifest["command"].as_str().unwrap().contains("--auth 'digest:ann:***'"),
        "{}",
        manifest["command"]
    );
    let summary = json(results(directory.path()).join("summary.json"));
    assert_eq!(summary["whole"]["groups"][0]["errors"], 0, "{}", shown(&output));
    assert!(!has_bytes(directory.path().join("results").as_path(), "hunter2"));
    assert!(!shown(&output).contains("hunter2"));
}

#[test]
fn everything_is_below_the_chroot() {
    let fake = Fake::start(Behaviour { only_below: Some("/app/"), ..Default::default() });
    let cluster = format!("{}/app", fake.address);
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &short(), &cluster);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("the chroot /app of"), "{}", shown(&output));
    fake.make("/app");
    let output = run(directory.path(), &short(), &cluster);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", shown(&output));
    assert_eq!(fake.paths(), ["/", "/app"]);
}

/// `zoometry clean` of a cluster that wants to know who asks.
fn clean(cluster: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    let output =
        command.args(["clean", cluster]).env("ZOOMETRY_AUTH", "digest:ann:hunter2").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    shown(&output)
}

#[test]
fn what_a_killed_run_left_is_named_and_removed() {
    let fake = Fake::start(Behaviour { closed: Some("ann:hunter2"), ..Default::default() });
    let address = fake.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let _alone = alone();
    let start = || {
        let mut command = command(directory.path(), STEADY, &address);
        command.env("ZOOMETRY_AUTH", "digest:ann:hunter2").stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let marked = |fake: &Fake| fake.paths().iter().any(|path| path.contains("/alive-"));
    let mut killed = start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !marked(&fake) {
        assert!(Instant::now() < deadline, "no run has left a mark: {:?}", fake.paths());
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Its session has not ended yet: it looks as if it lived.
    let said = clean(&address);
    assert!(said.contains("in use   /zoometry/run-") && said.contains("process "), "{said}");
    fake.take_away("alive-");
    // Somebody else's znodes are nobody's business.
    fake.make("/zoometry/run-1-2");
    fake.make("/zoometry/other");
    let mut next = start();
    let mut lines = BufReader::new(next.stderr.take().unwrap()).lines().map_while(Result::ok);
    let note = lines.find(|line| line.contains("runs that were killed left"));
    next.kill().unwrap();
    next.wait().unwrap();
    let note = note.expect("it says what is left");
    assert!(
        note.contains("/zoometry/run-") && note.contains(&format!("`zoometry clean {address}`")),
        "{note}"
    );
    fake.take_away("alive-");
    let said = clean(&address);
    assert!(said.contains("removed  /zoometry/run-"), "{said}");
    assert_eq!(fake.paths(), ["/", "/zoometry", "/zoometry/other", "/zoometry/run-1-2"]);
    fake.take_away("run-");
    fake.take_away("other");
    assert!(clean(&address).contains("nothing is left of any run"));
}
