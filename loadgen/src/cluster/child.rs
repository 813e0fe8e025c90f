//! A server process that never outlives us.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of the log that are shown when a server fails.
const LAST_LINES: usize = 12;
/// Bytes of the log's end that are looked at for them.
const LAST_BYTES: u64 = 64 * 1024;
/// SIGKILL ends a process within this time, unless it waits for the system (a disk that hangs).
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    /// Where its output goes.
    pub log: PathBuf,
    /// The command, for people.
    pub command: String,
}

impl Child {
    /// Starts a program with its output at the end of `log`. Must be called on a thread that lives as long as the child should: the kernel
    /// kills the child when that thread ends (PR_SET_PDEATHSIG).
    pub fn spawn(program: &Path, arguments: &[OsString], log: &Path) -> Result<Child> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("write {}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            // Members have names of their own in traces; the others of OpenTelemetry's variables are theirs too.
            .env_remove("OTEL_SERVICE_NAME")
            // Who our sessions are is no server's business.
            .env_remove(crate::credentials::VARIABLE)
            .stdout(output.try_clone().context("duplicate the log's descriptor")?)
            .stderr(output)
            // Ctrl-C in a terminal goes to the whole foreground group; members are stopped by us, in order.
            .process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only prctl, getppid and _exit are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before the request took effect.
                if libc::getppid() as u32 != parent {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let shown: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
        let shown = format!("{} {}", program.display(), shown.join(" "));
        let process = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Child { process, log: log.to_owned(), command: shown })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The end of its log, as a paragraph to append to an error.
    pub fn last_words(&self) -> String {
        let Ok(text) = tail(&self.log) else { return String::new() };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        if last.is_empty() {
            return format!("; it wrote nothing to {}", self.log.display());
        }
        format!("; the end of {}:\n    {}", self.log.display(), last.join("\n    "))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(how) = self.exited() {
            bail!("{} has ended ({how})", self.command);
        }
        // SAFETY: the process is our child and has not been waited for, so the id is still its own.
        if unsafe { libc::kill(self.process.id() as libc::pid_t, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("signal {}", self.command));
        }
        Ok(())
    }

    /// Whether it has not ended yet. Unlike [`Child::exited`] this leaves an ended process as it is, so that its figures can still
    /// be read.
    pub fn is_running(&self) -> bool {
        // SAFETY: siginfo_t is plain data, for which all zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is writable and outlives the call; the id is that of a child of ours.
        let asked = unsafe { libc::waitid(libc::P_PID, self.process.id(), &mut info, options) };
        // SAFETY: waitid has filled it in, or left the zeros.
        asked == 0 && unsafe { info.si_pid() } == 0
    }

    /// Waits for its end, for `limit`; then SIGKILL. It leaves the ended process as [`Child::is_running`] does.
    ///
    /// # Errors
    /// When the system has not ended it within [`KILL_LIMIT`] of that.
    pub async fn wait_until_ended(&mut self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        let mut killed = false;
        while self.is_running() {
            if !killed && started.elapsed() > limit {
                self.process.kill().context("kill")?;
                killed = true;
            }
            if started.elapsed() > limit + KILL_LIMIT {
                bail!(
                    "{} did not end within {KILL_LIMIT:?} of SIGKILL; it may wait for a disk",
                    self.command
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exited().is_none() {
            // Nothing can be done about a failure, and PDEATHSIG remains.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_dies_leaves_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut child = Child::spawn(
            Path::new("/bin/sh"),
            &["-c".into(), "echo all is well; echo port in use >&2; exit 3".into()],
            &log,
        )
        .unwrap();
        let how = loop {
            if let Some(how) = child.exited() {
                break how;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(how.contains('3'), "{how}");
        assert!(child.last_words().contains("port in use"), "{}", child.last_words());
    }

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut child = Child::spawn(
            Path::new("/bin/sh"),
            &["-c".into(), "trap '' TERM; while :; do sleep 0.01; done".into()],
            &log,
        )
        .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.signal(libc::SIGTERM).unwrap();
        child.wait_until_ended(Duration::from_millis(100)).await.unwrap();
        assert!(child.exited().is_some());
    }
}
