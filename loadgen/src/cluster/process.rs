//! A process that can be found again: by its id, and by when it was started, because ids are given anew.

use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Which process, of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine was (field 22 of `/proc/PID/stat`).
    pub started: u64,
    /// Which start of which machine that was (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

impl ProcessId {
    /// The process that has this id now; `None` if there is none.
    pub fn of(pid: u32) -> Option<ProcessId> {
        Some(ProcessId { pid, started: started(pid)?, boot: boot() })
    }

    /// Opens it, so that a signal reaches it and no other process; `None` if it has ended.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(&self) -> io::Result<Option<OpenProcess>> {
        // SAFETY: no memory is passed.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid as libc::pid_t, 0) };
        if opened < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the descriptor was just given to us, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(opened as libc::c_int) };
        // Looked at after it was opened: from here on the descriptor stands for this process alone.
        let same = started(self.pid) == Some(self.started) && boot() == self.boot;
        Ok(same.then_some(OpenProcess(descriptor)))
    }
}

/// A process that was the right one when it was opened.
#[derive(Debug)]
pub struct OpenProcess(OwnedFd);

impl OpenProcess {
    /// Sends a signal; false if it has ended meanwhile.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<bool> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no siginfo is passed; the descriptor is open.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0) };
        match sent {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
                error => Err(error),
            },
        }
    }
}

/// When a process was started; `None` if there is none that lives.
fn started(pid: u32) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // The state is field 3; of a process that has ended only its exit code is left.
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot() -> String {
    read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_signal_reaches_the_process_that_was_meant_or_none() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id()).expect("it runs");
        assert!(process.open().unwrap().is_some());
        for other in [
            ProcessId { started: process.started + 1, ..process.clone() },
            ProcessId { boot: "another".into(), ..process.clone() },
        ] {
            assert!(other.open().unwrap().is_none(), "the id is another process's now: {other:?}");
        }
        let open = process.open().unwrap().unwrap();
        assert!(open.signal(libc::SIGKILL).unwrap());
        child.wait().unwrap();
        assert!(!open.signal(libc::SIGCONT).unwrap());
        assert!(process.open().unwrap().is_none() && ProcessId::of(child.id()).is_none());
    }
}
