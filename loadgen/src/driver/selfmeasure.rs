//! What a worker thread knows of itself, for the verdict: its CPU time, how long it had to wait for a core, how late it woke.

use crate::results::GeneratorSample;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A sample is this long, unless a phase ends sooner.
const SAMPLE_NS: u64 = 1_000_000_000;
/// Shorter leftovers (at a phase's end) are not worth a row.
const SHORTEST_NS: u64 = 20_000_000;

/// Measures the thread that it is called on.
#[derive(Debug)]
pub(super) struct SelfMeasure {
    worker: u16,
    /// This thread's schedstat; `None` where the kernel has none.
    schedstat: Option<File>,
    since_ns: Option<u64>,
    cpu_ns: u64,
    run_queue_ns: u64,
    at_cap: u64,
    jitter_max_ns: u64,
    samples: Vec<GeneratorSample>,
}

impl SelfMeasure {
    /// To be made on the worker's own thread.
    pub(super) fn new(worker: u16) -> Self {
        Self {
            worker,
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            since_ns: None,
            cpu_ns: 0,
            run_queue_ns: 0,
            at_cap: 0,
            jitter_max_ns: 0,
            samples: Vec::new(),
        }
    }

    /// The first phase begins.
    pub(super) fn begin(&mut self, now_ns: u64, at_cap: u64) {
        self.since_ns = Some(now_ns);
        self.cpu_ns = thread_cpu_ns();
        self.run_queue_ns = self.run_queue();
        self.at_cap = at_cap;
        self.jitter_max_ns = 0;
    }

    /// The scheduler woke so much later than it asked.
    pub(super) fn woke_late(&mut self, late_ns: u64) {
        self.jitter_max_ns = self.jitter_max_ns.max(late_ns);
    }

    /// Whether a sample's length has passed.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.since_ns.is_some_and(|since_ns| now_ns >= since_ns + SAMPLE_NS)
    }

    /// Ends the current sample. `at_cap` counts from the start of the run.
    pub(super) fn sample(&mut self, now_ns: u64, in_flight: u32, at_cap: u64) {
        let Some(since_ns) = self.since_ns else { return };
        let wall_ns = now_ns.saturating_sub(since_ns);
        if wall_ns < SHORTEST_NS {
            return;
        }
        let (cpu_ns, run_queue_ns) = (thread_cpu_ns(), self.run_queue());
        self.samples.push(GeneratorSample {
            at_ns: now_ns,
            wall_ns,
            worker: self.worker,
            cpu_ns: cpu_ns - self.cpu_ns,
            run_queue_ns: run_queue_ns.saturating_sub(self.run_queue_ns),
            jitter_max_ns: self.jitter_max_ns,
            in_flight,
            at_cap: at_cap - self.at_cap,
        });
        (self.since_ns, self.cpu_ns, self.run_queue_ns) = (Some(now_ns), cpu_ns, run_queue_ns);
        (self.at_cap, self.jitter_max_ns) = (at_cap, 0);
    }

    /// Samples since the last call.
    pub(super) fn take(&mut self) -> Vec<GeneratorSample> {
        std::mem::take(&mut self.samples)
    }

    /// Time that this thread was runnable and had no core: schedstat's second number.
    fn run_queue(&self) -> u64 {
        let mut buffer = [0; 96];
        let Some(length) = self.schedstat.as_ref().and_then(|file| file.read_at(&mut buffer, 0).ok()) else {
            return 0;
        };
        let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
    }
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
