//! Log lines that could come thousands of times: the first is written, the others are counted.

use std::time::Duration;

use parking_lot::Mutex;

/// How long a line is not repeated.
pub const PAUSE: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    at_ns: Option<u64>,
    left_out: u64,
}

impl Seldom {
    /// Whether the line is to be written at `now_ns` (of the process's clock): the first one, and then at most one in
    /// [`PAUSE`]. If so, how many were left out since the last.
    pub fn say(&self, now_ns: u64) -> Option<u64> {
        let mut said = self.0.lock();
        let pause_ns = PAUSE.as_nanos() as u64;
        if said.at_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < pause_ns) {
            said.left_out += 1;
            return None;
        }
        said.at_ns = Some(now_ns);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_minute_and_says_how_many_were_left_out() {
        let seldom = Seldom::default();
        let minute_ns = PAUSE.as_nanos() as u64;
        let said =
            [5, 6, 7, minute_ns + 4, minute_ns + 5, minute_ns + 6, 3 * minute_ns].map(|now| seldom.say(now));
        assert_eq!(said, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
