//! Faults as a person meets them, with fakes that commands of a cluster file take down: is what they cost told truly, and does every
//! fault that cannot be carried out end the run?

mod fake;

use fake::{Behaviour, Fake};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use zoometry::op::{Op, Outcome};
use zoometry::results;
use zoometry::summary::Summary;

const LOAD: &str = r#"
[data]
znodes = 50
[sessions]
count = 6
in_flight = 4
[[phase]]
name = "load"
duration = "4s"
arrival = { constant = "1000/s" }
mix = { get = 1, set = 1 }
"#;

fn run(directory: &Path, workload: &str, cluster: &str) -> Output {
    let lab = directory.join("lab.toml");
    std::fs::write(&lab, cluster).unwrap();
    run_on(directory, workload, &lab.display().to_string())
}

fn run_on(directory: &Path, workload: &str, cluster: &str) -> Output {
    let file = directory.join("test.toml");
    std::fs::write(&file, workload).unwrap();
    Command::new(env!("CARGO_BIN_EXE_zoometry"))
        .arg("run")
        .arg(file)
        .arg("--cluster")
        .arg(cluster)
        .args(["--no-charts", "--out"])
        .arg(directory.join("results"))
        .output()
        .unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn results_of(directory: &Path) -> PathBuf {
    let mut found = std::fs::read_dir(directory.join("results")).unwrap();
    found.next().expect("a results directory").unwrap().path()
}

/// A fake that `kill` takes down and `restart` brings back, as a member of a cluster file.
fn breakable(directory: &Path, behaviour: Behaviour) -> (Fake, String) {
    let file = directory.join("down");
    let fake = Fake::down_while(behaviour, file.clone());
    let file = file.display();
    let lab = format!(
        "[[member]]\naddress = \"{}\"\nkill = \"touch {file}\"\nrestart = \"rm {file}\"\n",
        fake.address
    );
    (fake, lab)
}

#[test]
fn the_gap_is_as_long_as_the_member_was_down() {
    let directory = tempfile::tempdir().unwrap();
    let (_fake, lab) = breakable(directory.path(), Behaviour::default());
    let workload = format!(
        "expect = [\"failover.write_gap < 100ms\", \"sessions_expired = 0\"]\n{LOAD}\n\
         [[fault]]\nat = \"1s\"\nkind = \"kill\"\ntarget = \"leader\"\nfor = \"600ms\"\nrepeat = 2\nevery = \"1500ms\"\n"
    );
    let output = run(directory.path(), &workload, &lab);
    let told = shown(&output);
    assert!(told.contains("FAILED  failover.write_gap < 100ms"), "{told}");
    assert!(told.contains("met     sessions_expired = 0"), "{told}");
    assert_ne!(output.status.code(), Some(0), "{told}");
    let directory = results_of(directory.path());
    let run = results::read(&directory).unwrap();
    let summary = Summary::of(&run);
    let failover = summary.failover.clone().expect("two faults");
    assert_eq!(failover.rounds.len(), 2);
    for round in &failover.rounds {
        let down_ns = round.healed_ns.unwrap() - round.at_ns;
        assert!((590_000_000..2_000_000_000).contains(&down_ns), "{down_ns}");
        for outage in [round.writes.unwrap(), round.reads.unwrap()] {
            // The commands take their time on both ends; a session comes back within an eighth of the time, and some scheduling.
            let gap_ns = outage.gap.length_ns();
            assert!(gap_ns > down_ns - 500_000_000 && gap_ns < down_ns + 500_000_000, "{gap_ns} {down_ns}");
            assert!(!outage.gap.open);
        }
        assert_eq!((round.sessions.lost, round.sessions.expired), (6, 0), "{round:?}");
        assert!(round.errors.contains_key("CONNECTIONLOSS") || round.errors.is_empty(), "{round:?}");
    }
    // What is in the summary can be computed again from the directory.
    let text = std::fs::read(directory.join("summary.json")).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(written["failover"], serde_json::to_value(&failover).unwrap());
    assert_eq!(run.manifest.checked_writes.unwrap().lost, 0);
    assert!(run.manifest.checked_writes.unwrap().checked > 500);
}

#[test]
fn a_fault_that_cannot_be_carried_out_ends_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour::default());
    let member = format!("[[member]]\naddress = \"{}\"\n", fake.address);
    let fault = "[[fault]]\nat = \"500ms\"\nkind = \"kill\"\ntarget = \"server 1\"\n";
    let workload = format!("{LOAD}\n{fault}");
    let failing =
        run(directory.path(), &workload, &format!("{member}kill = \"echo no such unit; exit 7\"\n"));
    assert_eq!(failing.status.code(), Some(4), "{}", shown(&failing));
    for part in ["test.toml:13", "kill server.1 (127.0.0.1:", "no such unit", "exit status: 7"] {
        assert!(shown(&failing).contains(part), "{part}: {}", shown(&failing));
    }
    assert_eq!(fake.paths(), ["/"], "everything was taken away again");
    let missing = run(directory.path(), &workload, &member);
    assert_eq!(missing.status.code(), Some(2), "{}", shown(&missing));
    assert!(shown(&missing).contains("nothing says how to kill it"), "{}", shown(&missing));
    let nobody = run(directory.path(), &workload.replace("server 1", "server 2"), &member);
    assert_eq!(nobody.status.code(), Some(2), "{}", shown(&nobody));
    assert!(shown(&nobody).contains("no server.2"), "{}", shown(&nobody));
}

#[test]
fn an_ephemeral_that_is_gone_while_its_session_lives_ends_with_4() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(Behaviour { forget_ephemerals: true, ..Behaviour::default() });
    let member = format!("[[member]]\naddress = \"{}\"\n", fake.address);
    let workload = LOAD
        .replace("1000/s", "50/s")
        .replace("4s", "1s")
        .replace("{ get = 1, set = 1 }", "{ create-ephemeral = 1 }");
    let workload = format!("expect = [\"ephemerals_lost = 0\"]\n{workload}");
    let output = run(directory.path(), &workload, &member);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    let told = shown(&output);
    assert!(
        told.contains("PROMISE BROKEN: the ephemeral") && told.contains("FAILED  ephemerals_lost"),
        "{told}"
    );
}

#[test]
fn while_a_disk_is_slow_every_write_waits_for_it() {
    const DELAY_NS: u64 = 100_000_000;
    let directory = tempfile::tempdir().unwrap();
    let load = LOAD.replace("1000/s", "100/s").replace("4s", "3s");
    let fault = "[[fault]]\nat = \"1s\"\nkind = \"slow-disk\"\ndelay = \"100ms\"\ntarget = \"leader\"\nfor = \"1500ms\"\n";
    let output = run_on(directory.path(), &format!("{load}\n{fault}"), "zoometry:1");
    // A busy machine makes a run INVALID.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", shown(&output));
    let run = results::read(&results_of(directory.path())).unwrap();
    let event = |kind: &str| run.events.iter().find(|event| event.kind == kind).expect(kind).at_ns;
    let (slow_ns, fast_ns) = (event("fault"), event("heal"));
    // Due, and what it took.
    let writes = run.completions.iter().filter(|close| close.op == Op::Set && close.outcome == Outcome::Ok);
    let writes: Vec<(u64, u64)> = writes.map(|w| (w.at_ns - w.response_ns, w.response_ns)).collect();
    // The order to be slow takes a moment to be there, and the sync of that moment is not slowed.
    let during = |(due_ns, took_ns): &&(u64, u64)| *due_ns > slow_ns + DELAY_NS && due_ns + took_ns < fast_ns;
    let slowed: Vec<_> = writes.iter().filter(during).collect();
    assert!(slowed.len() >= 20, "{} writes", slowed.len());
    assert!(slowed.iter().all(|(_, took_ns)| *took_ns >= DELAY_NS), "{slowed:?}");
    for (when, is_then) in [("before", true), ("after", false)] {
        let others =
            writes.iter().filter(|(due_ns, _)| if is_then { *due_ns < slow_ns } else { *due_ns > fast_ns });
        assert!(others.map(|(_, took_ns)| *took_ns).min().expect(when) < DELAY_NS, "{when}");
    }
}
