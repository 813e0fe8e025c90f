//! What members and this machine say about themselves while a run goes on.
//!
//! Over the client port: the four-letter words `srvr`, `mntr`, `conf`, if the member allows them. For local members also the
//! process's CPU time (nanoseconds, all threads) and resident memory. Nothing here can fail a run: what is not
//! answered within [`WORD_LIMIT`] is missing from the sample.

use crate::cluster::Process;
use crate::results::{Environment, MemberFingerprint, ServerSample};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zoometry_spans::Clock;

/// A four-letter word is answered within this time or not at all.
pub const WORD_LIMIT: Duration = Duration::from_millis(900);
/// Longest answer taken.
const ANSWER_MAX: u64 = 1 << 20;

/// Sends a four-letter word and reads the answer.
pub async fn word(address: SocketAddr, word: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(word.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(WORD_LIMIT, ask).await.ok()??;
    (!answer.is_empty() && !answer.contains("not in the whitelist")).then_some(answer)
}

/// `leader`, `follower`, `observer`, `standalone`; `None` if the member does not serve or does not say.
pub async fn role(address: SocketAddr) -> Option<String> {
    let answer = word(address, "srvr").await?;
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(|mode| mode.trim().to_owned())
}

/// What a member says about itself.
pub async fn fingerprint(name: &str, host: &str, address: SocketAddr) -> MemberFingerprint {
    let srvr = word(address, "srvr").await.unwrap_or_default();
    let line = |prefix: &str| {
        srvr.lines()
            .find_map(|line| line.strip_prefix(prefix))
            .map_or(String::new(), |rest| rest.trim().to_owned())
    };
    let conf = word(address, "conf").await.unwrap_or_default();
    let settings = conf.lines().filter_map(|line| line.split_once('='));
    MemberFingerprint {
        name: name.to_owned(),
        address: host.to_owned(),
        version: line("Zookeeper version: "),
        role: line("Mode: "),
        settings: settings.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect(),
    }
}

/// A member's figures now.
pub async fn sample(
    clock: &Clock,
    name: &str,
    address: SocketAddr,
    process: Option<&Process>,
) -> ServerSample {
    let mut sample = process_sample(clock, name, process);
    let answer = word(address, "mntr").await.unwrap_or_default();
    for (key, value) in answer.lines().filter_map(|line| line.split_once('\t')) {
        match value.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => {
                sample.metrics.insert(key.to_owned(), value);
            }
            _ if key == "zk_server_state" => sample.role = value.trim().to_owned(),
            _ => {}
        }
    }
    sample
}

/// The part of a sample that needs no answer from the member: exact at the moment of the call.
pub fn process_sample(clock: &Clock, name: &str, process: Option<&Process>) -> ServerSample {
    ServerSample {
        at_ns: clock.now_ns(),
        member: name.to_owned(),
        role: String::new(),
        cpu_ns: process.map(Process::cpu_ns),
        rss_bytes: process.map(Process::resident_bytes),
        metrics: BTreeMap::new(),
    }
}

/// CPU time of a process since it started, user and system, all threads, also those that ended.
pub fn process_cpu_ns(pid: u32) -> Option<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is writable; an unknown pid is answered with an error number.
    if unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; a clock whose process has ended is answered with −1.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Resident memory of a process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// The machine that this process runs on. `data` is where local servers keep their data.
pub fn environment(data: Option<&Path>, colocated: bool) -> Environment {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory_kib = memory.and_then(|m| m.split_whitespace().next()?.parse::<u64>().ok());
    let (clock_step_ns, clock_read_ns) = clock_quality();
    let filesystem = data.and_then(filesystem);
    Environment {
        host: read("/proc/sys/kernel/hostname"),
        kernel: format!("{} {}", read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease")),
        cpu_model: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        cores: cores() as u32,
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory_bytes: memory_kib.unwrap_or(0) * 1024,
        cgroup_cpu_cores: cgroup_cores(&read("/sys/fs/cgroup/cpu.max")),
        cgroup_memory_bytes: read("/sys/fs/cgroup/memory.max").parse().ok(),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        clock_step_ns,
        clock_read_ns,
        data_on_tmpfs: filesystem.as_ref().map(|name| name == "tmpfs" || name == "ramfs"),
        data_filesystem: filesystem,
        colocated,
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn cgroup_cores(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The smallest step of the monotonic clock that was seen, and what one reading costs.
fn clock_quality() -> (u64, u64) {
    const READINGS: u32 = 20_000;
    let started = Instant::now();
    let mut before = started;
    let mut step = u64::MAX;
    for _ in 0..READINGS {
        let now = Instant::now();
        let passed = (now - before).as_nanos() as u64;
        if passed > 0 {
            step = step.min(passed);
        }
        before = now;
    }
    (step, started.elapsed().as_nanos() as u64 / u64::from(READINGS))
}

/// The type of the file system that holds `path`: the longest mount point that is a prefix of it.
fn filesystem(path: &Path) -> Option<String> {
    let path = path.ancestors().find_map(|path| path.canonicalize().ok())?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(mount).then(|| (mount.len(), kind.to_owned()))
    });
    fields.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_measured() {
        let before = process_cpu_ns(std::process::id()).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(5) {
            std::hint::black_box(0);
        }
        assert!(process_cpu_ns(std::process::id()).unwrap() > before);
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        // Linux has no process ids above 4194304.
        assert_eq!(process_cpu_ns(4_194_305), None);
    }

    #[test]
    fn limits_of_a_control_group_are_read() {
        assert_eq!(cgroup_cores("150000 100000"), Some(1.5));
        assert_eq!(cgroup_cores("max 100000"), None);
        assert_eq!(cgroup_cores(""), None);
    }

    #[test]
    fn the_environment_is_found_out() {
        let found = environment(Some(Path::new("/proc/does/not/exist")), true);
        assert!(found.cores >= 1 && found.memory_bytes > 0 && found.clock_read_ns < 100_000);
        assert_eq!(found.data_filesystem.as_deref(), Some("proc"));
        assert_eq!(found.data_on_tmpfs, Some(false));
    }
}
