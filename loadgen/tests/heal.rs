//! Whatever ends a run, no member of a real cluster stays broken: every end that a program can see undoes what is in force, and after
//! kill -9 `zoometry heal` does. The cluster is two fakes, of which commands of a cluster file leave marks in a directory.

mod fake;

use fake::{Behaviour, Fake};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use zoometry::results;

/// Four conditions at two members, all of them in force soon after the load began.
const FAULTS: &str = r#"
[[fault]]
at = "200ms"
kind = "stop"
target = "server 1"
for = "50s"
[[fault]]
at = "200ms"
kind = "slow-disk"
delay = "20ms"
target = "server 1"
for = "50s"
[[fault]]
at = "200ms"
kind = "kill"
target = "server 2"
for = "50s"
[[fault]]
at = "200ms"
kind = "cut"
target = "server 2"
for = "50s"
"#;
const MARKS: [&str; 4] = ["stopped-1", "slow-1", "down-2", "cut-2"];

/// A directory with a cluster file, a place for results, and the two fakes; the second is down while `down-2` exists.
struct Lab {
    directory: tempfile::TempDir,
    _fakes: [Fake; 2],
}

impl Lab {
    fn new() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let second = Fake::down_while(Behaviour::default(), directory.path().join("down-2"));
        let fakes = [Fake::start(Behaviour::default()), second];
        let marks = |n: usize| {
            format!(
                "[[member]]\naddress = \"{}\"\n\
                 stop = \"touch {at}/stopped-{n}\"\ncontinue = \"echo continue-{n} >> {at}/log; rm {at}/stopped-{n}\"\n\
                 slow-disk = \"touch {at}/slow-{n}\"\nfast-disk = \"echo fast-{n} >> {at}/log; rm {at}/slow-{n}\"\n\
                 cut = \"touch {at}/cut-{n}\"\nheal = \"echo heal-{n} >> {at}/log; rm {at}/cut-{n}\"\n\
                 kill = \"touch {at}/down-{n}\"\nrestart = \"echo restart-{n} >> {at}/log; rm {at}/down-{n}\"\n",
                fakes[n - 1].address
            )
        };
        std::fs::write(directory.path().join("lab.toml"), marks(1) + &marks(2)).unwrap();
        Lab { directory, _fakes: fakes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the cluster file.
    fn replace(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("lab.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.path("lab.toml"), text.replace(from, to)).unwrap();
    }

    /// A run whose load lasts so long, with these faults.
    fn run(&self, duration: &str, faults: &str) -> Running {
        let workload = format!(
            "[data]\nznodes = 10\n[sessions]\ncount = 2\nplacement = \"server 1\"\n[[phase]]\nname = \"load\"\n\
             duration = \"{duration}\"\narrival = {{ constant = \"50/s\" }}\nmix = {{ get = 1, set = 1 }}\n{faults}"
        );
        std::fs::write(self.path("test.toml"), workload).unwrap();
        let mut command = zoometry(&["run"], self.directory.path());
        command.arg(self.path("test.toml")).arg("--cluster").arg(self.path("lab.toml"));
        Running::spawn(command.args(["--no-charts"]))
    }

    /// A run that has brought all four conditions about.
    fn broken(&self) -> Running {
        let mut run = self.run("50s", FAULTS);
        run.wait_for("all that is to be broken", || MARKS.iter().all(|mark| self.path(mark).exists()));
        run
    }

    fn results(&self) -> PathBuf {
        let mut found = std::fs::read_dir(self.path("results")).unwrap();
        found.next().expect("a results directory").unwrap().path()
    }

    fn heal(&self, arguments: &[&str]) -> Output {
        zoometry(&["heal"], self.directory.path()).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn is_whole(&self, told: &str) {
        let left: Vec<_> = MARKS.iter().filter(|mark| self.path(mark).exists()).collect();
        assert!(left.is_empty(), "{left:?} is left\n{told}");
    }

    /// The commands that mended something, sorted.
    fn mended(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn zoometry(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoometry"));
    command.args(arguments).arg("--out").arg(directory.join("results"));
    command
}

/// A run, and what it has said so far.
struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    told: String,
}

impl Running {
    fn spawn(command: &mut Command) -> Running {
        // Tests that are started with `nohup` ignore SIGHUP, and so would the run.
        // SAFETY: `signal` may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            })
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Running { child, lines, told: String::new() }
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(60), "{what} did not come\n{}", self.told());
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended\n{}", self.told());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn wait_for_line(&mut self, part: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.told.push_str(&(line.clone() + "\n"));
            if line.contains(part) {
                return;
            }
        }
        panic!("it did not say {part}\n{}", self.told);
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        // Until the end of what it said.
        self.told.extend(self.lines.iter().map(|line| line + "\n"));
        (code, self.told)
    }

    fn told(&mut self) -> String {
        self.told.extend(self.lines.try_iter().map(|line| line + "\n"));
        self.told.clone()
    }
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One signal ends the load; what is in force is undone once, and what was measured is written.
fn one_signal(signal: &str, code: i32) {
    let lab = Lab::new();
    let run = lab.broken();
    run.signal(signal);
    let (ended, told) = run.end();
    assert_eq!(ended, Some(code), "{told}");
    lab.is_whole(&told);
    assert_eq!(lab.mended(), ["continue-1", "fast-1", "heal-2", "restart-2"], "{told}");
    assert!(!told.contains("STILL BROKEN"), "{told}");
    assert!(results::read(&lab.results()).unwrap().manifest.cut_short);
    let output = lab.heal(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(shown(&output).contains("nothing to do"), "{}", shown(&output));
}

#[test]
fn after_sigint_everything_is_undone() {
    one_signal("-INT", 130);
}

#[test]
fn after_sigterm_everything_is_undone() {
    one_signal("-TERM", 143);
}

#[test]
fn after_sighup_everything_is_undone() {
    one_signal("-HUP", 129);
}

#[test]
fn a_second_signal_ends_at_once_and_everything_is_undone() {
    let lab = Lab::new();
    // So that the end takes a while.
    lab.replace("; rm", "; sleep 1; rm -f");
    let mut run = lab.broken();
    run.signal("-INT");
    run.wait_for_line("SIGINT: waiting for replies");
    run.signal("-TERM");
    let (code, told) = run.end();
    assert_eq!(code, Some(130), "the first one counts\n{told}");
    assert!(told.contains("ended at once"), "{told}");
    lab.is_whole(&told);
}

#[test]
fn after_a_command_that_fails_everything_is_undone() {
    let lab = Lab::new();
    lab.replace(&format!("touch {}/down-1", lab.directory.path().display()), "echo no such unit; exit 7");
    let fault = "[[fault]]\nat = \"600ms\"\nkind = \"kill\"\ntarget = \"server 1\"\nfor = \"1s\"\n";
    let (code, told) = lab.run("50s", &format!("{FAULTS}{fault}")).end();
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("could not be carried out") && told.contains("no such unit"), "{told}");
    lab.is_whole(&told);
    assert_eq!(lab.mended()[..2], ["continue-1", "fast-1"], "{told}");
}

#[test]
fn what_cannot_be_undone_is_named_with_what_mends_it() {
    let lab = Lab::new();
    let at = lab.directory.path().display();
    lab.replace("rm ", &format!("test -e {at}/repaired && rm "));
    let stop = "[[fault]]\nat = \"200ms\"\nkind = \"stop\"\ntarget = \"server 1\"\nfor = \"300ms\"\n";
    let (code, told) = lab.run("2s", stop).end();
    assert_eq!(code, Some(4), "{told}");
    let results = lab.results();
    let mends = format!("zoometry heal {}", results.display());
    for part in ["STILL BROKEN", "server.1 (", "is stopped, since", "by hand: echo continue-1", &mends] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert_eq!(lab.heal(&[]).status.code(), Some(4), "not yet");
    std::fs::write(lab.path("repaired"), "").unwrap();
    let output = lab.heal(&[&results.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    lab.is_whole(&shown(&output));
}

#[test]
fn after_kill_9_heal_mends_everything_once() {
    let lab = Lab::new();
    let mut run = lab.broken();
    let goes_on = lab.heal(&[]);
    assert_eq!(goes_on.status.code(), Some(2), "{}", shown(&goes_on));
    assert!(shown(&goes_on).contains("undoes its faults itself"), "{}", shown(&goes_on));
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    assert!(MARKS.iter().all(|mark| lab.path(mark).exists()));
    let report =
        Command::new(env!("CARGO_BIN_EXE_zoometry")).arg("report").arg(lab.results()).output().unwrap();
    assert!(shown(&report).contains("STILL BROKEN"), "{}", shown(&report));
    // The next run says it, whatever it is about.
    let next = lab.run("1s", "").end().1;
    assert!(next.contains("an earlier run ended without undoing its faults"), "{next}");
    let output = lab.heal(&[&lab.path("lab.toml").display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("nothing is left in force"), "{}", shown(&output));
    lab.is_whole(&shown(&output));
    let once = ["continue-1", "fast-1", "heal-2", "restart-2"];
    assert_eq!(lab.mended(), once, "{}", shown(&output));
    let lab_file = lab.path("lab.toml").display().to_string();
    for arguments in [&[][..], &[lab_file.as_str()]] {
        let again = lab.heal(arguments);
        assert_eq!(again.status.code(), Some(0), "{}", shown(&again));
        assert!(shown(&again).contains("nothing to do"), "{}", shown(&again));
    }
    assert_eq!(lab.mended(), once, "nothing was done twice");
}

#[test]
fn without_any_journal_a_cluster_file_is_enough_to_mend() {
    let lab = Lab::new();
    MARKS.iter().for_each(|mark| std::fs::write(lab.path(mark), "").unwrap());
    lab.replace("rm ", "rm -f ");
    let output = lab.heal(&[&lab.path("lab.toml").display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    lab.is_whole(&shown(&output));
    assert!(!lab.mended().contains(&"restart-1".into()), "the first one was there");
}

/// A member that is stopped when the generator is killed dies with it all the same.
#[test]
fn a_stopped_local_member_does_not_outlive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let stop = "[[fault]]\nat = \"200ms\"\nkind = \"stop\"\ntarget = \"server 1\"\nfor = \"50s\"\n";
    let workload = format!(
        "[data]\nznodes = 10\n[sessions]\ncount = 1\n[[phase]]\nname = \"load\"\nduration = \"60s\"\n\
         arrival = {{ constant = \"50/s\" }}\nmix = {{ get = 1 }}\n{stop}"
    );
    std::fs::write(directory.path().join("test.toml"), workload).unwrap();
    let mut command = zoometry(&["run"], directory.path());
    command.arg(directory.path().join("test.toml")).args(["--cluster", "zoometry:1", "--no-charts"]);
    let mut run = Running::spawn(&mut command);
    run.wait_for_line("fault: stop server.1");
    let results = std::fs::read_dir(directory.path().join("results")).unwrap().next().unwrap().unwrap();
    let journal = std::fs::read_to_string(results.path().join("faults.journal")).unwrap();
    let pid = journal.split("\"ends-with-the-run\":{\"pid\":").nth(1).and_then(|rest| rest.split(',').next());
    let stat = format!("/proc/{}/stat", pid.expect(&journal));
    run.wait_for("the stop", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let died = Instant::now();
    // Whoever adopts it may not have waited for it yet.
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(died.elapsed() < Duration::from_secs(20), "it outlived its generator");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = zoometry(&["heal"], directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("it ended with the run"), "{}", shown(&output));
}

/// A strike that waits for a member delays no other, stop and then kill of one member go together, and all is on the workload's clock.
#[test]
fn strikes_are_independent_and_at_their_times() {
    let lab = Lab::new();
    let fault = |at: &str, kind: &str, target: &str, lasts: &str| {
        format!("[[fault]]\nat = \"{at}\"\nkind = \"{kind}\"\ntarget = \"{target}\"\nfor = \"{lasts}\"\n")
    };
    // Neither fake says that it follows: this one never strikes.
    let faults = [
        fault("300ms", "kill", "follower", "1s"),
        fault("200ms", "cut", "server 2", "500ms"),
        fault("400ms", "stop", "server 2", "1500ms"),
        fault("900ms", "kill", "server 2", "500ms"),
    ];
    let (_, told) = lab.run("3s", &faults.concat()).end();
    lab.is_whole(&told);
    assert_eq!(lab.mended(), ["heal-2", "restart-2"], "who was killed is not let go on\n{told}");
    let run = results::read(&lab.results()).unwrap();
    let of_kind = |kind: &str| {
        let events = run.events.iter().filter(move |event| event.kind == kind);
        events.map(|event| (run.manifest.seconds(event.at_ns), event.detail.clone())).collect::<Vec<_>>()
    };
    let strikes = of_kind("fault");
    let named: Vec<&str> = strikes.iter().map(|(_, what)| what.split(" (").next().unwrap()).collect();
    assert_eq!(named, ["cut off server.2", "stop server.2", "kill server.2"], "{told}");
    for ((at_s, what), due_s) in strikes.iter().zip([0.2, 0.4, 0.9]) {
        // A few milliseconds on a quiet machine; this one may be busy.
        assert!((0.0..0.25).contains(&(at_s - due_s)), "{what} at {at_s}");
    }
    let notes = of_kind("note").into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    assert!(notes.contains("let go on server.2: nothing to do, its process was ended meanwhile"), "{notes}");
    assert!(notes.contains("never struck"), "{notes}");
    let healed: Vec<f64> = of_kind("heal").iter().map(|(at_s, _)| *at_s).collect();
    assert!(healed[0] < 1.2, "a strike that waits does not hold it up: {healed:?}");
}
