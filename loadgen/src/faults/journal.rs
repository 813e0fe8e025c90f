//! `faults.journal` in the results directory: every fault in force, and what undoes it, so that it can be undone whatever becomes of
//! the run.
//!
//! A line is written and synced before a fault is done ([`Journal::begin`]), one when it is done, one when it is undone; each is a JSON
//! object. What is begun and not undone is *open*. Lines about the end of a fault are not synced: the worst that losing one does is
//! that a fault is undone twice, which does no harm. The file is locked while its run lives, so that nobody else mends what the run
//! will undo itself. A last line without its end was being written when the run was killed; nothing had been done yet.

use super::state::Condition;
use crate::cluster::ProcessId;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// The file's name in a results directory.
pub const FILE: &str = "faults.journal";
/// The version of the file's layout.
const FORMAT: u32 = 1;
/// Longest journal read; a run of 1000 faults at 9 members writes a tenth of it.
const BYTES_MAX: u64 = 64 << 20;

/// Whose faults these are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// See [`FORMAT`].
    pub format: u32,
    /// The run's process.
    pub pid: u32,
    /// `--cluster`, for people.
    pub cluster: String,
    /// The cluster file, absolute.
    pub cluster_file: Option<PathBuf>,
}

/// A member in a condition that it must not stay in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub server: u32,
    /// `host:port` of its client port.
    pub member: String,
    /// What it is in.
    pub condition: Condition,
    /// What was done: `stop server.3 (leader)`.
    pub fault: String,
    /// When it was about to be done, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What undoes it.
    pub undo: Undo,
    /// The workload leaves it so: a kill without `for`.
    #[serde(default)]
    pub stays: bool,
}

/// What undoes a fault when the run cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// A command of the cluster file; `None` where the file has none.
    Command(Option<String>),
    /// The member ends with the run, and with it whatever was done to it: its process, unless it has none.
    EndsWithTheRun(Option<ProcessId>),
}

/// An entry that has not been undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What is to be mended.
    pub entry: Entry,
    /// It was done; otherwise it was only announced.
    pub done: bool,
    /// Why it could not be undone, if that was tried.
    pub failed: Option<String>,
}

type Key = (u32, Condition);
type Opens = BTreeMap<Key, Open>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
enum Line {
    Run(Head),
    Begin(Entry),
    Done { server: u32, condition: Condition },
    Undone { server: u32, condition: Condition, how: String },
}

/// A run's journal. The file comes into being with the first fault.
#[derive(Debug)]
pub struct Journal {
    /// Where it is.
    pub path: PathBuf,
    head: Head,
    inner: Mutex<Inner>,
    /// Held for reading by every deed that is under way.
    at_work: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    open: Opens,
}

impl Journal {
    /// Of a run with this results directory. Nothing is written yet.
    pub fn new(directory: &Path, cluster: String, cluster_file: Option<PathBuf>) -> Journal {
        let cluster_file = cluster_file.map(|file| file.canonicalize().unwrap_or(file));
        let head = Head { format: FORMAT, pid: std::process::id(), cluster, cluster_file };
        Journal { path: directory.join(FILE), head, inner: Mutex::default(), at_work: Arc::default() }
    }

    /// What was left behind in a results directory; `None` if it has no journal. The file stays locked.
    ///
    /// # Errors
    /// The run still goes on; the file is not a journal.
    pub fn take_over(directory: &Path) -> Result<Option<Journal>> {
        let path = directory.join(FILE);
        let Some((head, open, _)) = read(&path)? else { return Ok(None) };
        let file = File::options().append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use: the run (process {}) goes on and undoes its faults itself, or another `heal` is at work",
                path.display(),
                head.pid
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // It may have been mended before it was locked.
        let (head, open, whole) = read(&path)?.unwrap_or((head, open, 0));
        file.set_len(whole).with_context(|| format!("cannot write {}", path.display()))?;
        let inner = Mutex::new(Inner { file: Some(file), open });
        Ok(Some(Journal { path, head, inner, at_work: Arc::default() }))
    }

    /// Whose it is.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// A fault is about to be done. When this returns that is on the disk.
    ///
    /// # Errors
    /// When it could not be written: the fault must not be done then.
    pub fn begin(&self, entry: Entry) -> Result<()> {
        let inner = &mut *self.inner();
        if inner.file.is_none() {
            inner.file = Some(self.create()?);
        }
        inner.open.insert(key(&entry), Open { entry: entry.clone(), done: false, failed: None });
        self.write(inner, &Line::Begin(entry))?;
        let synced = inner.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.with_context(|| format!("cannot sync {}", self.path.display()))
    }

    /// A fault that was begun has been done, or is being done.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn done(&self, server: u32, condition: Condition) -> Result<()> {
        let inner = &mut *self.inner();
        match inner.open.get_mut(&(server, condition)) {
            Some(open) => open.done = true,
            None => return Ok(()),
        }
        self.write(inner, &Line::Done { server, condition })
    }

    /// A fault is undone.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn undone(&self, server: u32, condition: Condition, how: &str) -> Result<()> {
        let inner = &mut *self.inner();
        if inner.open.remove(&(server, condition)).is_none() {
            return Ok(());
        }
        self.write(inner, &Line::Undone { server, condition, how: how.into() })
    }

    /// A fault could not be undone, for this reason. It stays open.
    pub fn failed(&self, server: u32, condition: Condition, why: String) {
        if let Some(open) = self.inner().open.get_mut(&(server, condition)) {
            open.failed = Some(why);
        }
    }

    /// Whether a condition is noted as in force or about to be.
    pub fn has(&self, server: u32, condition: Condition) -> bool {
        self.inner().open.contains_key(&(server, condition))
    }

    /// What is not undone.
    pub fn open(&self) -> Vec<Open> {
        self.inner().open.values().cloned().collect()
    }

    /// A deed is under way for as long as this is held.
    pub fn at_work(&self) -> Option<OwnedRwLockReadGuard<()>> {
        self.at_work.clone().try_read_owned().ok()
    }

    /// Returns when no deed is under way.
    pub async fn until_idle(&self) {
        drop(self.at_work.write().await);
    }

    /// The results directory.
    pub fn directory(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).to_owned()
    }

    /// Takes the file away, if nothing in it is open: for a run that leaves no results.
    pub fn forget(&self) {
        let inner = &mut *self.inner();
        if inner.open.is_empty() && inner.file.take().is_some() {
            // Its directory then stays, with a journal that says that all is well.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // After a panic above all it must be known what is to be undone.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self) -> Result<File> {
        let shown = || format!("cannot write {}", self.path.display());
        let mut file = File::options().create_new(true).append(true).open(&self.path).with_context(shown)?;
        file.try_lock().with_context(shown)?;
        file.write_all(&line(&Line::Run(self.head.clone()))?).with_context(shown)?;
        let directory = self.directory();
        File::open(directory).and_then(|directory| directory.sync_all()).with_context(shown)?;
        Ok(file)
    }

    fn write(&self, inner: &mut Inner, what: &Line) -> Result<()> {
        let bytes = line(what)?;
        let written = inner.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes));
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn key(entry: &Entry) -> Key {
    (entry.server, entry.condition)
}

fn line(what: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(what)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Reads a journal, and how many bytes of it are whole lines; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<(Head, Opens, u64)>> {
    let shown = path.display();
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    ensure!(length <= BYTES_MAX, "{shown} has {length} bytes; expected a journal of at most {BYTES_MAX}");
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (mut head, mut open) = (None, Opens::new());
    for (number, text) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
        if text.is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(text)
            .with_context(|| format!("{shown}, line {}: no line of a journal of faults", number + 1))?;
        match line {
            Line::Run(run) => {
                ensure!(
                    run.format == FORMAT,
                    "{shown} has format {}; this program knows {FORMAT}",
                    run.format
                );
                head = Some(run);
            }
            Line::Begin(entry) => {
                open.insert(key(&entry), Open { entry, done: false, failed: None });
            }
            Line::Done { server, condition } => {
                if let Some(open) = open.get_mut(&(server, condition)) {
                    open.done = true;
                }
            }
            Line::Undone { server, condition, .. } => drop(open.remove(&(server, condition))),
        }
    }
    // Killed before its first line was whole: nothing had been done.
    Ok(Some((head.unwrap_or_default(), open, whole as u64)))
}

/// Below `out`, the results directories with a journal, newest first: whose it is, and what is open.
pub fn below(out: &Path) -> Vec<(PathBuf, Head, Vec<Open>)> {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    // Their names begin with the time.
    directories.sort();
    let journals = directories.into_iter().rev().filter_map(|directory| {
        let (head, open, _) = read(&directory.join(FILE)).ok()??;
        Some((directory, head, open.into_values().collect()))
    });
    journals.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(server: u32, condition: Condition) -> Entry {
        Entry {
            server,
            member: format!("zk{server}:2181"),
            condition,
            fault: "stop server.1 (leader)".into(),
            at_unix_ms: 7,
            undo: Undo::Command(Some("true".into())),
            stays: false,
        }
    }

    fn left(directory: &Path) -> Vec<(u32, Condition, bool)> {
        let (_, open, _) = read(&directory.join(FILE)).unwrap().unwrap();
        open.values().map(|open| (open.entry.server, open.entry.condition, open.done)).collect()
    }

    #[test]
    fn what_was_begun_and_not_undone_is_open_after_the_run_has_gone() {
        use Condition::*;
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path(), "lab".into(), None);
        assert!(!journal.path.exists(), "a run without faults leaves none");
        assert!(Journal::take_over(directory.path()).unwrap().is_none());
        journal.begin(entry(1, Stopped)).unwrap();
        journal.begin(entry(1, Cut)).unwrap();
        journal.begin(entry(2, Stopped)).unwrap();
        journal.done(1, Stopped).unwrap();
        journal.undone(2, Stopped, "continue").unwrap();
        journal.undone(3, Stopped, "never begun").unwrap();
        assert_eq!(left(directory.path()), [(1, Stopped, true), (1, Cut, false)]);
        let error = Journal::take_over(directory.path()).unwrap_err().to_string();
        assert!(error.contains("the run (process "), "{error}");
        drop(journal);
        // Killed in the middle of a line.
        let path = directory.path().join(FILE);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(&line(&Line::Begin(entry(3, Down))).unwrap()[..30]);
        std::fs::write(&path, &text).unwrap();
        let journal = Journal::take_over(directory.path()).unwrap().unwrap();
        assert_eq!(journal.open().len(), 2);
        for condition in [Stopped, Cut] {
            journal.undone(1, condition, "healed").unwrap();
        }
        assert!(journal.open().is_empty() && left(directory.path()).is_empty());
    }

    #[test]
    fn what_is_no_journal_is_named_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(directory.path().join(FILE), text).unwrap();
        let head = r#"{"line":"run","format":1,"pid":1,"cluster":"lab","cluster_file":null}"#;
        for (text, complaint) in [
            (format!("{head}\nnonsense\n"), "line 2: no line of a journal"),
            (head.replace("\"format\":1", "\"format\":2") + "\n", "has format 2"),
        ] {
            write(&text);
            let error = format!("{:#}", Journal::take_over(directory.path()).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
        write("");
        assert!(Journal::take_over(directory.path()).unwrap().unwrap().open().is_empty());
    }
}
