//! One scripted server per promise: each breaks it now and then, and the run must say so, by name and exit code, and of nothing else.
//!
//! How a new one is added: a [`Trick`] in `fake`, a line here.

mod fake;

use fake::{Behaviour, Fake, Trick};
use std::path::Path;
use std::process::{Command, Output};
use zoometry::promises::Promise;
use zoometry_wire::OpCode;

const MIXED: &str = r#"
[data]
znodes = 20
[sessions]
count = 3
in_flight = 4
[[phase]]
name = "load"
duration = "800ms"
arrival = { constant = "600/s" }
mix = { get = 4, exists = 1, children = 1, set = 3, create = 1, create-sequential = 1, create-ephemeral = 1, delete = 2 }
[[watchers]]
count = 6
sessions = 2
on = "znode"
kind = "one-shot"
[[watchers]]
count = 6
sessions = 2
on = "znode"
kind = "persistent"
"#;

fn run(directory: &Path, workload: &str, fake: &Fake) -> Output {
    let file = directory.join("test.toml");
    std::fs::write(&file, workload).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    command.arg("run").arg(file).args(["--cluster", &fake.address.to_string(), "--out"]);
    command.arg(directory.join("results")).output().unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn file(directory: &Path, name: &str) -> String {
    let mut found = std::fs::read_dir(directory.join("results")).unwrap();
    let results = found.next().expect("a results directory").unwrap().path();
    std::fs::read_to_string(results.join(name)).unwrap()
}

fn manifest(directory: &Path) -> serde_json::Value {
    serde_json::from_str(&file(directory, "manifest.json")).unwrap()
}

/// An expectation for every promise.
fn expecting(workload: &str) -> String {
    let lines: Vec<String> =
        Promise::ALL.iter().map(|promise| format!("\"{} = 0\"", promise.name())).collect();
    format!("expect = [{}]\n{workload}", lines.join(", "))
}

/// Whether nothing of the kind was found, as [`expecting`] asks.
fn met(manifest: &serde_json::Value, promise: Promise) -> Option<bool> {
    let expectations = manifest["expectations"].as_array().unwrap();
    let text = format!("{} = 0", promise.name());
    expectations.iter().find(|judged| judged["text"] == text)?["met"].as_bool()
}

/// Runs the workload against such a server: the promise is told as broken everywhere, the `others` may be, and no further one.
#[track_caller]
fn tells(behaviour: Behaviour, workload: &str, promise: Promise, others: &[Promise]) {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &expecting(workload), &Fake::start(behaviour));
    let shown = shown(&output);
    assert_eq!(output.status.code(), Some(4), "{shown}");
    let (name, text) = (promise.name(), promise.promised());
    assert!(shown.contains(&format!("PROMISE BROKEN: {text} ({name} = ")), "{shown}");
    let manifest = manifest(directory.path());
    assert_eq!(met(&manifest, promise), Some(false), "{shown}");
    let records = &manifest["checks"]["promises"]["records"];
    for other in Promise::ALL {
        let record = &records[other.name()];
        if other == promise {
            assert!(record["broken"].as_u64().unwrap() > 0, "{records}\n{shown}");
            assert!(!record["first"].as_str().unwrap().is_empty(), "{records}");
        } else if !others.contains(&other) {
            assert_eq!(record["broken"], 0, "{other:?}: {records}\n{shown}");
        }
    }
    assert_eq!(manifest["checked_writes"]["lost"], 0, "{shown}");
    let report = file(directory.path(), "report.html");
    assert!(
        report.contains(text) && report.contains(&format!("times broken ({name})")),
        "the report tells {name}"
    );
}

/// [`tells`] for a script of one trick.
#[track_caller]
fn catches(script: &'static [(OpCode, u64, Trick)], promise: Promise) {
    tells(Behaviour { script, ..Default::default() }, MIXED, promise, &[]);
}

#[test]
fn an_honest_server_is_not_accused() {
    let directory = tempfile::tempdir().unwrap();
    // Connections are lost now and then, so that outcomes are unknown and watches are set again.
    let fake = Fake::start(Behaviour { hang_up_every: Some(40), ..Default::default() });
    let output = run(directory.path(), &expecting(MIXED), &fake);
    let shown = shown(&output);
    let manifest = manifest(directory.path());
    let records = &manifest["checks"]["promises"]["records"];
    for promise in Promise::ALL {
        let record = &records[promise.name()];
        assert_eq!(record["broken"], 0, "{promise:?}: {records}\n{shown}");
        assert!(record["checked"].as_u64().unwrap() > 0, "{promise:?} was looked at: {records}\n{shown}");
        assert_eq!(met(&manifest, promise), Some(true), "{promise:?}: {shown}");
    }
    assert!(!shown.contains("PROMISE BROKEN") && shown.contains("promises kept"), "{shown}");
    assert_eq!(manifest["checked_writes"]["lost"], 0, "{shown}");
    assert_ne!(output.status.code(), Some(4), "{shown}");
}

#[test]
fn stale_reads() {
    let script = &[(OpCode::GetData, 5, Trick::Stale)];
    // A watch that is armed by a stale read cannot tell what its version promises.
    let others = [Promise::WatchDropped, Promise::WatchDoubled];
    tells(Behaviour { script, ..Default::default() }, MIXED, Promise::StaleRead, &others);
}

#[test]
fn a_znode_that_was_there_is_not_any_more() {
    catches(&[(OpCode::GetChildren2, 5, Trick::Refuse)], Promise::StaleRead);
}

#[test]
fn values_of_other_znodes() {
    catches(&[(OpCode::GetData, 5, Trick::Swap)], Promise::WrongValue);
}

#[test]
fn shortened_values() {
    catches(&[(OpCode::GetData, 5, Trick::Shorten)], Promise::WrongValue);
}

#[test]
fn changed_values() {
    catches(&[(OpCode::GetData, 5, Trick::Corrupt)], Promise::WrongValue);
}

/// The version counts the write, the value is the one before.
#[test]
fn lost_values_with_the_right_version() {
    catches(&[(OpCode::SetData, 10, Trick::KeepValue)], Promise::WrongValue);
}

/// Values too short for a mark are checked by version, length and filling, and the report says so.
#[test]
fn short_values() {
    let workload = MIXED.replace("znodes = 20", "znodes = 20\nvalue = \"10B\"");
    let workload =
        workload.replace("name = \"load\"", "name = \"load\"\nvalue = { min = \"5B\", max = \"15B\" }");
    let keeps = Behaviour { script: &[(OpCode::SetData, 10, Trick::KeepValue)], ..Default::default() };
    tells(keeps, &workload, Promise::WrongValue, &[]);
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &workload, &Fake::start(Behaviour::default()));
    let report = file(directory.path(), "report.html");
    assert!(report.contains("too short for a mark (16 bytes)"), "{}", shown(&output));
    assert_eq!(manifest(directory.path())["checks"]["promises"]["records"]["wrong_values"]["broken"], 0);
}

#[test]
fn lists_that_lack_a_child() {
    catches(&[(OpCode::GetChildren2, 5, Trick::HideChild)], Promise::WrongList);
}

#[test]
fn undone_deletes() {
    catches(&[(OpCode::Delete, 7, Trick::Forget)], Promise::UndoneDelete);
}

#[test]
fn sessions_that_are_replaced() {
    let replaces = Behaviour { replace_sessions: true, hang_up_every: Some(40), ..Default::default() };
    tells(replaces, MIXED, Promise::SessionReplaced, &[]);
}

/// What is asked of watches here is told in time for the end of the load only by chance; the last look finds it.
#[test]
fn dropped_events() {
    catches(&[(OpCode::SetData, 3, Trick::TellNobody)], Promise::WatchDropped);
}

#[test]
fn doubled_events() {
    catches(&[(OpCode::SetData, 5, Trick::TellTwice)], Promise::WatchDoubled);
}

#[test]
fn events_that_were_not_asked_for() {
    catches(&[(OpCode::SetData, 5, Trick::TellAsker)], Promise::WatchUnasked);
}

/// A read that would arm a watch is refused: the run says which, and ends.
#[test]
fn watches_that_cannot_be_armed_are_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let fake =
        Fake::start(Behaviour { script: &[(OpCode::GetData, 1, Trick::Refuse)], ..Default::default() });
    let began = std::time::Instant::now();
    let output = run(directory.path(), MIXED, &fake);
    let shown = shown(&output);
    assert_eq!(output.status.code(), Some(4), "{shown}");
    assert!(shown.contains("asked for a watch on /zoometry/run-") && shown.contains("for 5s"), "{shown}");
    assert!(began.elapsed().as_secs() < 40, "it does not wait for the sessions' minute");
}

/// A member that does not have the znode yet has it a moment later.
#[test]
fn watches_that_are_refused_now_and_then_are_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let script = &[(OpCode::GetData, 2, Trick::Refuse)];
    let fake = Fake::start(Behaviour { script, ..Default::default() });
    let workload = MIXED.replace("get = 4, ", "");
    let output = run(directory.path(), &workload, &fake);
    let watches = &manifest(directory.path())["checks"]["watches"];
    assert!(watches["armed"].as_u64().unwrap() > 12, "{watches}\n{}", shown(&output));
    assert_eq!(watches["unarmed"], 0, "{watches}");
    assert_ne!(output.status.code(), Some(4), "{}", shown(&output));
}
