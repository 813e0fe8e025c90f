//! `zoometry heal`, and the last words of a run: what is still in force is undone, and what cannot be is named.
//!
//! Faults are undone from their journal, each member's one after the other, members beside each other. A member that was to be started
//! again and answers at its address is left as it is. What was done to members that a run had started itself ended with them: they
//! die with the run, by the kernel's hand (`PR_SET_PDEATHSIG`); one that did not is ended now.

use super::journal::{self, Entry, Journal, Open, Undo};
use super::roles;
use super::state::Condition;
use crate::cluster::{ClusterFile, ProcessId, run_command};
use crate::figures;
use crate::signals::Signals;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A member that is asked whether it is there has this long to answer.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// A process that outlived its run has this long to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What became of an entry: how it was undone, or why it could not be.
type Outcome = Result<String, String>;

/// Undoes these entries, and gives each to `say` with what became of it, as soon as it is known.
async fn mend(entries: Vec<Entry>, say: &mut dyn FnMut(&Entry, &Outcome)) {
    let mut by_server: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
    entries.into_iter().for_each(|entry| by_server.entry(entry.server).or_default().push(entry));
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    for mut entries in by_server.into_values() {
        let sender = sender.clone();
        entries.sort_by_key(|entry| entry.condition);
        tokio::spawn(async move {
            for entry in entries {
                let outcome = undo(&entry).await;
                if sender.send((entry, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some((entry, outcome)) = outcomes.recv().await {
        say(&entry, &outcome);
    }
}

async fn undo(entry: &Entry) -> Outcome {
    let told = |error: anyhow::Error| format!("{error:#}");
    match &entry.undo {
        Undo::EndsWithTheRun(None) => Ok("it ended with the run".into()),
        Undo::EndsWithTheRun(Some(process)) => end(process).await.map_err(told),
        Undo::Command(_) if entry.condition == Condition::Down && is_there(&entry.member).await => {
            Ok("it runs already".into())
        }
        Undo::Command(None) => Err(format!("nothing says how to {} it", entry.condition.undo().key())),
        Undo::Command(Some(command)) => {
            run_command(command, entry.condition.undo()).await.map_err(told)?;
            Ok(format!("`{command}`"))
        }
    }
}

/// A member of the run's own that has outlived it.
async fn end(process: &ProcessId) -> Result<String> {
    let pid = process.pid;
    let over = format!("it ended with the run (process {pid})");
    let Some(open) = process.open()? else { return Ok(over) };
    let mut lives = open.signal(libc::SIGCONT)? && open.signal(libc::SIGTERM)?;
    let asked = Instant::now();
    while lives && asked.elapsed() < END_LIMIT {
        tokio::time::sleep(Duration::from_millis(10)).await;
        lives = open.signal(0)? && process.open()?.is_some();
    }
    if lives {
        open.signal(libc::SIGKILL)?;
    }
    Ok(format!("it had outlived the run, and was ended (process {pid})"))
}

/// Whether a member says anything at its address.
async fn is_there(member: &str) -> bool {
    let answer = tokio::time::timeout(REACH_LIMIT, roles::srvr(member)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|text| !text.is_empty()))
}

/// `server.3 (zk3:2181) is stopped`.
fn is_in(entry: &Entry) -> String {
    format!("server.{} ({}) is {}", entry.server, entry.member, entry.condition.name())
}

/// The end of a run, however it came about: undoes what is still in force, says what could not be undone and how to mend it. True if
/// nothing is broken that the workload does not leave so. One more signal ends the attempt.
pub async fn settle(journal: &Journal, signals: &mut Signals) -> bool {
    // A strike that is under way would come after its undoing.
    let mending = async {
        journal.until_idle().await;
        let untried = journal.open().into_iter().filter(|open| open.failed.is_none());
        let foreign = |open: &Open| matches!(open.entry.undo, Undo::Command(_));
        let (foreign, own): (Vec<Open>, Vec<Open>) = untried.partition(foreign);
        let mut entries: Vec<Entry> = own.into_iter().map(|open| open.entry).collect();
        let due = foreign.into_iter().map(|open| open.entry).filter(|entry| !entry.stays);
        let due: Vec<Entry> = due.collect();
        if !due.is_empty() {
            eprintln!("zoometry: undoing what is in force (one more signal leaves it so)");
        }
        entries.extend(due);
        mend(entries, &mut |entry, outcome| note(journal, entry, outcome)).await;
    };
    let further = signals.count() + 1;
    tokio::select! {
        () = mending => {}
        _ = signals.came(further) => {}
    }
    let open = journal.open();
    let directory = journal.directory();
    if !open.is_empty() {
        eprintln!("zoometry: {}", last_words(&open, &directory));
    }
    open.iter().all(|open| open.entry.stays)
}

fn note(journal: &Journal, entry: &Entry, outcome: &Outcome) {
    match outcome {
        Ok(how) => {
            if let Err(error) = journal.undone(entry.server, entry.condition, how) {
                eprintln!("zoometry: {error:#}");
            }
        }
        Err(why) => journal.failed(entry.server, entry.condition, why.clone()),
    }
}

/// What is still broken, and how to mend it.
fn last_words(open: &[Open], directory: &Path) -> String {
    let mut text = match open.iter().all(|open| open.entry.stays) {
        true => "as the workload leaves it:".to_owned(),
        false => "STILL BROKEN:".to_owned(),
    };
    for open in open {
        let entry = &open.entry;
        let since = figures::utc(entry.at_unix_ms);
        text.push_str(&format!("\n  {}, since {since} by the fault: {}", is_in(entry), entry.fault));
        if !open.done {
            text.push_str(" (announced; it may not have been done)");
        }
        if let Some(why) = &open.failed {
            text.push_str(&format!("\n    undoing it failed: {why}"));
        }
        if let Undo::Command(Some(command)) = &entry.undo {
            text.push_str(&format!("\n    by hand: {command}"));
        }
    }
    let directory = crate::run::quoted(&directory.to_string_lossy());
    text + &format!("\n  to mend it: zoometry heal {directory}")
}

/// What a run has left in force, for whoever looks at its results; `None` if nothing, or if it still goes on.
pub fn left_in(directory: &Path) -> Option<String> {
    let open = Journal::take_over(directory).ok()??.open();
    (!open.is_empty()).then(|| last_words(&open, directory))
}

/// What earlier runs with results below `out` have left in force, for a note at the start of the next one; `None` if nothing.
pub fn left_below(out: &Path) -> Option<String> {
    let due = |open: &Open| !open.entry.stays;
    let (directory, _, open) = journal::below(out).into_iter().find(|(directory, _, open)| {
        open.iter().any(due) && !matches!(Journal::take_over(directory), Err(_) | Ok(None))
    })?;
    let open: Vec<Open> = open.into_iter().filter(due).collect();
    Some(format!("an earlier run ended without undoing its faults: {}", last_words(&open, &directory)))
}

/// `zoometry heal [RESULTS|CLUSTER-FILE]`: mends what a run has left in force; without an argument, the newest one below `out` that left
/// anything. True if nothing is left.
///
/// # Errors
/// What cannot be read; a run that still goes on.
pub fn heal(what: Option<&Path>, out: &Path) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match what {
        Some(file) if file.extension().is_some_and(|extension| extension == "toml") => {
            let file = ClusterFile::load(file).map_err(anyhow::Error::msg)?;
            runtime.block_on(heal_cluster(&file, out))
        }
        Some(directory) => {
            ensure!(
                directory.is_dir(),
                "{} is no results directory, nor a cluster file (.toml)",
                directory.display()
            );
            runtime.block_on(heal_results(directory))
        }
        None => match journal::below(out).into_iter().find(|(.., open)| !open.is_empty()) {
            Some((directory, ..)) => runtime.block_on(heal_results(&directory)),
            None => {
                println!("nothing to do: no run below {} has left a fault in force", out.display());
                Ok(true)
            }
        },
    }
}

async fn heal_results(directory: &Path) -> Result<bool> {
    let Some(journal) = Journal::take_over(directory)? else {
        println!(
            "nothing to do: {} has no {}, its run has begun no fault",
            directory.display(),
            journal::FILE
        );
        return Ok(true);
    };
    let open = journal.open();
    if open.is_empty() {
        println!("nothing to do: every fault in {} was undone", journal.path.display());
        return Ok(true);
    }
    println!("{}, on {}:", directory.display(), journal.head().cluster);
    let done: BTreeMap<(u32, Condition), bool> =
        open.iter().map(|open| ((open.entry.server, open.entry.condition), open.done)).collect();
    let entries = open.into_iter().map(|open| open.entry).collect();
    mend(entries, &mut |entry, outcome| {
        note(&journal, entry, outcome);
        let was_done = done.get(&(entry.server, entry.condition)).copied().unwrap_or(true);
        say_outcome(entry, outcome, was_done);
    })
    .await;
    let left = journal.open().len();
    match left {
        0 => println!("nothing is left in force"),
        _ => println!(
            "{left} could not be undone; mend it by hand, then: zoometry heal {}",
            crate::run::quoted(&directory.to_string_lossy())
        ),
    }
    Ok(left == 0)
}

fn say_outcome(entry: &Entry, outcome: &Outcome, was_done: bool) {
    let was = format!("server.{} ({}), {}", entry.server, entry.member, entry.condition.name());
    let announced = if was_done { "" } else { " (only announced: it may not have been done)" };
    match outcome {
        Ok(how) => println!("  {was}{announced}: undone, {how}"),
        Err(why) => println!("  {was}{announced}: COULD NOT BE UNDONE: {why}"),
    }
}

/// The runs below `out` that loaded the cluster of this file; if there are none, every command of the file that mends something.
async fn heal_cluster(file: &ClusterFile, out: &Path) -> Result<bool> {
    let path = file.path.canonicalize().with_context(|| format!("cannot read {}", file.path.display()))?;
    let of_file =
        journal::below(out).into_iter().filter(|(_, head, _)| head.cluster_file.as_ref() == Some(&path));
    let runs: Vec<(PathBuf, bool)> =
        of_file.map(|(directory, _, open)| (directory, !open.is_empty())).collect();
    if !runs.is_empty() {
        let open = runs.iter().filter(|(_, open)| *open).map(|(directory, _)| directory);
        let mut healed = true;
        for directory in open.clone() {
            healed &= heal_results(directory).await?;
        }
        if open.count() == 0 {
            println!(
                "nothing to do: the runs below {} undid every fault at {}",
                out.display(),
                path.display()
            );
        }
        return Ok(healed);
    }
    println!("no run below {} names {}: running every command that mends", out.display(), path.display());
    let entries = mending(file);
    if entries.is_empty() {
        bail!("{} has no command that mends anything: continue, heal, fast-disk or restart", path.display());
    }
    let mut healed = true;
    mend(entries, &mut |entry, outcome| {
        healed &= outcome.is_ok();
        say_outcome(entry, outcome, true);
    })
    .await;
    Ok(healed)
}

/// Everything that a cluster file can mend, as if all of it had been broken.
fn mending(file: &ClusterFile) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (at, member) in file.members.iter().enumerate() {
        for condition in [Condition::Stopped, Condition::Cut, Condition::Slowed, Condition::Down] {
            if let Some(command) = member.commands.of(condition.undo()) {
                entries.push(Entry {
                    server: at as u32 + 1,
                    member: member.address.clone(),
                    condition,
                    fault: String::new(),
                    at_unix_ms: 0,
                    undo: Undo::Command(Some(command.to_owned())),
                    stays: false,
                });
            }
        }
    }
    entries
}
