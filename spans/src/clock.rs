//! One clock per process for everything that is stamped: monotonic, anchored once to wall-clock time.
//!
//! Two processes on one machine anchor at different moments to the same `CLOCK_REALTIME`; Linux slews
//! `CLOCK_MONOTONIC` at the same rate as `CLOCK_REALTIME`, so their spans stay aligned (below a microsecond,
//! unless the wall clock is *stepped* between or after the anchors; a step is never followed, because time
//! inside a trace must not go backwards). Machines differ by whatever NTP leaves between them; nothing here
//! corrects that.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many pairs of readings the anchor is chosen from: the one with the least time between its readings.
const ANCHOR_TRIES: usize = 16;

/// A monotonic clock that knows what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_unix_ns: u64,
}

impl Clock {
    /// A clock whose zero is now.
    pub fn start() -> Self {
        let mut best = None;
        for _ in 0..ANCHOR_TRIES {
            let before = Instant::now();
            let wall = SystemTime::now();
            let spread = before.elapsed();
            if best.is_none_or(|(least, _, _)| spread < least) {
                best = Some((spread, before + spread / 2, wall));
            }
        }
        let (_, origin, wall) = best.expect("ANCHOR_TRIES is not zero");
        let origin_unix_ns = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        Self { origin, origin_unix_ns }
    }

    /// The same time, counted from `zero`.
    pub fn starting_at(zero: Instant) -> Self {
        let now = Self::start();
        let ago = now.origin.saturating_duration_since(zero).as_nanos() as u64;
        let ahead = zero.saturating_duration_since(now.origin).as_nanos() as u64;
        Self { origin: zero, origin_unix_ns: now.origin_unix_ns.saturating_sub(ago).saturating_add(ahead) }
    }

    /// Nanoseconds since the clock's zero.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.at_ns(Instant::now())
    }

    /// The reading for an instant; 0 for one before the clock's zero.
    #[inline]
    pub fn at_ns(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// A reading as nanoseconds since 1970.
    #[inline]
    pub fn unix_ns(&self, reading_ns: u64) -> u64 {
        self.origin_unix_ns.saturating_add(reading_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_zero_tells_the_same_time() {
        let clock = Clock::start();
        let instant = Instant::now();
        let earlier = Clock::starting_at(instant - Duration::from_secs(1));
        let one = clock.unix_ns(clock.at_ns(instant));
        let other = earlier.unix_ns(earlier.at_ns(instant));
        assert!(one.abs_diff(other) < 1_000_000, "{one} {other}");
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(wall.abs_diff(clock.unix_ns(clock.now_ns())) < 5_000_000_000);
        assert_eq!(clock.at_ns(instant - Duration::from_secs(100)), 0);
    }
}
