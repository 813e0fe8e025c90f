//! Waking up on time: a timerfd, because tokio's own timers are rounded up to whole milliseconds.
//!
//! A timerfd is armed with nanoseconds and expires on the kernel's high-resolution timers; it is one more descriptor in the
//! worker's epoll set, so waiting for the next due operation and for replies is the same wait and burns no CPU.
//! Wake-ups closer together than [`QUANTUM_NS`] are made one: at high rates a worker wakes at most
//! 20 000 times a second and issues everything that has come due, and an operation is sent at most that much late.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// The shortest sleep: what is due earlier is sent together.
pub(super) const QUANTUM_NS: u64 = 50_000;

/// A one-shot timer of nanosecond grain.
#[derive(Debug)]
pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Must be called inside a runtime.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; its result is checked before it is owned.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an OwnedFd keeps its descriptor open for as long as it lives, and always names the same one.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self { fd })
    }

    /// Sleeps for at least `ns` (at least 1).
    pub(super) async fn sleep(&self, ns: u64) -> io::Result<()> {
        let ns = ns.max(1);
        let value = libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        };
        let spec =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the descriptor is a timerfd, `spec` outlives the call, and the old value is not asked for.
        if unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &spec, std::ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|fd| {
                let mut count = [0u8; 8];
                // SAFETY: eight writable bytes are there, which is what a timerfd gives.
                let n = unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
                if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
            match read {
                Ok(result) => return result,
                // Readiness left over from a timer that was armed anew.
                Err(_would_block) => continue,
            }
        }
    }
}
