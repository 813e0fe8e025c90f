//! The one clock of this process: nanoseconds since its first reading, never backwards.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use zoometry_spans::Clock;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);

/// Nanoseconds since the process's first reading.
pub fn now_ns() -> u64 {
    CLOCK.now_ns()
}

/// Milliseconds since the process's first reading.
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// A reading of [`now_ns`] on the wall clock, ns since 1970.
pub fn unix_ns(reading_ns: u64) -> u64 {
    CLOCK.unix_ns(reading_ns)
}

/// The wall clock, ms since 1970; read anew each time, so that a step of the system's clock shows in
/// transaction times as it does in Apache's.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
