//! Due times: when the integral of a rate reaches a given number of operations.
//!
//! With even spacing, operation i is due when the integral reaches i, so the first is due at once and the
//! count up to any time differs from the integral by less than one. A Poisson process of the same rate has
//! its arrivals where the integral reaches the sums of independent exponential gaps of mean 1 (time change
//! of a unit-rate process), which works for ramps and steps as well as for a constant rate. Nothing is
//! thinned and nothing is skipped.
//!
//! Times are nanoseconds from the phase's start. No clock, no randomness: gaps are given from outside.

use crate::spec::Rate;

/// A rate over a phase, cut into pieces on which it is linear, with the integral up to each.
#[derive(Debug, Clone, PartialEq)]
pub struct Integral {
    pieces: Vec<Piece>,
    duration_ns: u64,
    total: f64,
}

/// Where the rate goes from `from` to `to` (per second) within `length_ns`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    start_ns: f64,
    length_ns: f64,
    from: f64,
    to: f64,
    /// The integral at the piece's start.
    before: f64,
}

impl Piece {
    fn count(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length_ns / 1e9
    }

    /// When the integral within this piece reaches `count` (0 to `self.count()`): the root of
    /// a·t + (b − a)/(2L)·t² = count, in the form that neither cancels nor divides by zero for a = b.
    fn time_ns(&self, count: f64) -> f64 {
        if count <= 0.0 {
            return self.start_ns;
        }
        let length_s = self.length_ns / 1e9;
        let under_root = self.from * self.from + 2.0 * (self.to - self.from) * count / length_s;
        let within_ns = 2e9 * count / (self.from + under_root.max(0.0).sqrt());
        self.start_ns + within_ns.min(self.length_ns)
    }
}

impl Integral {
    /// The integral of `rate` over a phase of `duration_ns`.
    pub fn new(rate: &Rate, duration_ns: u64) -> Integral {
        let ends: Vec<(f64, f64)> = match rate {
            Rate::Constant(rate) => vec![(*rate, *rate)],
            Rate::Ramp { from, to } => vec![(*from, *to)],
            Rate::Steps(rates) => rates.iter().map(|&rate| (rate, rate)).collect(),
        };
        let length_ns = duration_ns as f64 / ends.len() as f64;
        let mut before = 0.0;
        let mut pieces = Vec::with_capacity(ends.len());
        for (n, (from, to)) in ends.into_iter().enumerate() {
            let piece = Piece { start_ns: n as f64 * length_ns, length_ns, from, to, before };
            before += piece.count();
            pieces.push(piece);
        }
        Integral { pieces, duration_ns, total: before }
    }

    /// The integral over the whole phase: how many operations are asked for.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// How many operations are due with even spacing: those with an index below the total.
    pub fn even_count(&self) -> u64 {
        // A total of 49999.999999999996 means 50000 operations, and one of 50000.000000000004 does too.
        (self.total - 1e-6).ceil().max(0.0) as u64
    }

    /// When the integral reaches `count`; the latest such time where the rate is zero for a while. Always
    /// less than the duration, so that a due operation belongs to its phase.
    pub fn time_ns(&self, count: f64) -> u64 {
        let after = self.pieces.partition_point(|piece| piece.before <= count);
        let piece = &self.pieces[after.saturating_sub(1)];
        let time_ns = piece.time_ns(count - piece.before) as u64;
        time_ns.min(self.duration_ns.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn even(rate: Rate, duration_ns: u64) -> Vec<u64> {
        let integral = Integral::new(&rate, duration_ns);
        (0..integral.even_count()).map(|i| integral.time_ns(i as f64)).collect()
    }

    #[test]
    fn due_times_by_hand() {
        let table: [(&str, Rate, u64, &[u64]); 9] = [
            ("4/s for a second", Rate::Constant(4.0), SECOND, &[0, 250_000_000, 500_000_000, 750_000_000]),
            (
                "thirds are cut off, not rounded up",
                Rate::Constant(3.0),
                SECOND,
                &[0, 333_333_333, 666_666_666],
            ),
            ("slower than one a second", Rate::Constant(0.5), 5 * SECOND, &[0, 2 * SECOND, 4 * SECOND]),
            ("a part of an operation still starts one", Rate::Constant(1.5), SECOND, &[0, 666_666_666]),
            // N(t) = 4t²: t = sqrt(i)/2
            (
                "ramp up from zero",
                Rate::Ramp { from: 0.0, to: 8.0 },
                SECOND,
                &[0, 500_000_000, 707_106_781, 866_025_403],
            ),
            // N(t) = 4t − t²: t = 2 − sqrt(4 − i)
            (
                "ramp down to zero",
                Rate::Ramp { from: 4.0, to: 0.0 },
                2 * SECOND,
                &[0, 267_949_192, 585_786_437, SECOND],
            ),
            (
                "two steps",
                Rate::Steps(vec![2.0, 4.0]),
                2 * SECOND,
                &[0, 500_000_000, SECOND, 1_250_000_000, 1_500_000_000, 1_750_000_000],
            ),
            (
                "a pause is a pause",
                Rate::Steps(vec![2.0, 0.0, 1.0]),
                3 * SECOND,
                &[0, 500_000_000, 2 * SECOND],
            ),
            ("starting late", Rate::Steps(vec![0.0, 2.0]), 2 * SECOND, &[SECOND, 1_500_000_000]),
        ];
        for (case, rate, duration_ns, expected) in table {
            assert_eq!(even(rate, duration_ns), expected, "{case}");
        }
    }

    #[test]
    fn a_long_run_does_not_drift() {
        let integral = Integral::new(&Rate::Constant(7000.0), 3600 * SECOND);
        assert_eq!(integral.even_count(), 25_200_000);
        assert_eq!(integral.time_ns(7000.0 * 3599.0), 3599 * SECOND);
        assert_eq!(integral.time_ns(25_199_999.0), 3600 * SECOND - 142_858);
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        prop_oneof![
            (0.1..50_000.0f64).prop_map(Rate::Constant),
            (0.0..50_000.0f64, 0.1..50_000.0f64).prop_map(|(from, to)| Rate::Ramp { from, to }),
            (0.1..50_000.0f64, 0.0..50_000.0f64).prop_map(|(from, to)| Rate::Ramp { from, to }),
            proptest::collection::vec(prop_oneof![Just(0.0), 0.1..50_000.0f64], 1..6)
                .prop_filter("some rate", |rates| rates.iter().any(|&rate| rate > 0.0))
                .prop_map(Rate::Steps),
        ]
    }

    /// The integral up to t, written down once more in the plainest way.
    fn integral_up_to(rate: &Rate, duration_s: f64, t_s: f64) -> f64 {
        match rate {
            Rate::Constant(rate) => rate * t_s,
            Rate::Ramp { from, to } => from * t_s + (to - from) * t_s * t_s / (2.0 * duration_s),
            Rate::Steps(rates) => {
                let step_s = duration_s / rates.len() as f64;
                let spent = |n: usize| (t_s - n as f64 * step_s).clamp(0.0, step_s);
                rates.iter().enumerate().map(|(n, rate)| rate * spent(n)).sum()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn counts_follow_the_integral(rate in any_rate(), duration_ms in 1u64..3000, cut in 0.0..1.0f64) {
            let duration_ns = duration_ms * 1_000_000;
            let duration_s = duration_ns as f64 / 1e9;
            let due = even(rate.clone(), duration_ns);
            prop_assert!(due.is_sorted());
            prop_assert!(due.last().is_none_or(|&last| last < duration_ns));
            let total = integral_up_to(&rate, duration_s, duration_s);
            prop_assert!((due.len() as f64 - total).abs() <= 1.0, "{} due, integral {total}", due.len());
            // Also at any time in between: one operation at the boundary, and one nanosecond's worth of
            // rounding.
            let t_ns = (cut * duration_ns as f64) as u64;
            let count = due.partition_point(|&at| at < t_ns) as f64;
            let expected = integral_up_to(&rate, duration_s, t_ns as f64 / 1e9);
            prop_assert!((count - expected).abs() <= 1.001, "{count} due before {t_ns}, integral {expected}");
        }
    }
}
