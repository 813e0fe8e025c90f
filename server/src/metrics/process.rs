//! What the operating system says of this process: `/proc/self` and its limits. Where `/proc` is missing,
//! a value is absent rather than 0.

use std::fs::read_to_string;

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident in this process.
    pub(crate) resident: Option<u64>,
    /// Virtual size of this process.
    pub(crate) virtual_size: Option<u64>,
    /// The machine's.
    pub(crate) total: Option<u64>,
    /// The machine's, free or easily freed.
    pub(crate) available: Option<u64>,
}

/// Reads `/proc/self/status` and `/proc/meminfo`.
pub(crate) fn memory() -> Memory {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let machine = read_to_string("/proc/meminfo").unwrap_or_default();
    Memory {
        resident: kilobytes(&status, "VmRSS:"),
        virtual_size: kilobytes(&status, "VmSize:"),
        total: kilobytes(&machine, "MemTotal:"),
        available: kilobytes(&machine, "MemAvailable:"),
    }
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// File descriptors in use.
pub(crate) fn open_files() -> Option<u64> {
    // The directory's own descriptor is among them.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

/// File descriptors that may be in use.
pub(crate) fn max_open_files() -> Option<u64> {
    crate::descriptors::limit()
}

/// CPU seconds used, user and system.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let (user, system) = stat_field(13).zip(stat_field(14))?;
    Some((user + system) as f64 / ticks_per_second()?)
}

/// Threads of this process.
pub(crate) fn threads() -> Option<u64> {
    stat_field(19)
}

/// When the process began, seconds since the Unix epoch.
pub(crate) fn start_time_seconds() -> Option<f64> {
    let machine = read_to_string("/proc/stat").ok()?;
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(21)? as f64 / ticks_per_second()?)
}

fn ticks_per_second() -> Option<f64> {
    // SAFETY: no memory is involved.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (ticks > 0).then_some(ticks as f64)
}

/// A field of `/proc/self/stat`, counted from 0 for the process id.
fn stat_field(index: usize) -> Option<u64> {
    let text = read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, which may hold blanks.
    let rest = &text[text.rfind(')')? + 1..];
    rest.split_whitespace().nth(index - 2)?.parse().ok()
}

/// The user that the process runs as, from `/etc/passwd`.
pub(crate) fn user_name() -> Option<String> {
    // SAFETY: no memory is involved, and the call cannot fail.
    let id = unsafe { libc::geteuid() }.to_string();
    let users = read_to_string("/etc/passwd").ok()?;
    let of_id = |line: &&str| line.split(':').nth(2) == Some(id.as_str());
    users.lines().find(of_id).and_then(|line| line.split(':').next()).map(str::to_string)
}
