//! Random numbers by position: what is drawn for operation i depends on a seed and i, not on what was drawn
//! before.
//!
//! A generator with state would have to be shared, or to be split by worker, and then the same workload
//! would do different things on machines with different numbers of cores. Here a position is hashed to the
//! start of a SplitMix64 sequence (Steele, Lea and Flood, OOPSLA 2014), which passes the usual batteries of
//! tests and costs about a nanosecond per number. It is no cryptographic generator.

/// The increment of SplitMix64: 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64: every bit of the input moves about half of the output's.
pub fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A seed for one named part of a run, independent of the seeds of the other parts.
pub fn seed_of(seed: u64, part: &str) -> u64 {
    let named = part.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) // FNV-1a
    });
    scramble(scramble(seed.wrapping_add(GOLDEN)) ^ named)
}

/// The numbers drawn at one position.
#[derive(Debug, Clone)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The numbers of position `index` under `seed`.
    pub fn at(seed: u64, index: u64) -> Draw {
        Draw { state: scramble(seed ^ index.wrapping_mul(GOLDEN)) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        scramble(self.state)
    }

    /// Uniform in 0..bound, for a positive bound (by multiplication: the bias is below bound/2^64).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// A choice by weight: cumulated thresholds on 64 bits, scanned from the front. Meant for a handful of
/// entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted<T> {
    entries: Vec<(u64, T)>,
}

impl<T: Copy> Weighted<T> {
    /// From values and weights: not negative, at least one positive.
    pub fn new(weights: impl IntoIterator<Item = (T, f64)>) -> Weighted<T> {
        let positive: Vec<(T, f64)> = weights.into_iter().filter(|&(_, weight)| weight > 0.0).collect();
        assert!(!positive.is_empty(), "a choice needs a positive weight");
        let total: f64 = positive.iter().map(|&(_, weight)| weight).sum();
        let mut sum = 0.0;
        let mut entries: Vec<(u64, T)> = positive
            .into_iter()
            .map(|(value, weight)| {
                sum += weight;
                ((sum / total * 2f64.powi(64)) as u64, value)
            })
            .collect();
        entries.last_mut().expect("not empty").0 = u64::MAX;
        Weighted { entries }
    }

    /// One of the values.
    pub fn choose(&self, draw: &mut Draw) -> T {
        let [(_, only)] = self.entries[..] else {
            let bits = draw.bits();
            let found = self.entries.iter().find(|&&(threshold, _)| bits < threshold);
            return found.unwrap_or(&self.entries[self.entries.len() - 1]).1;
        };
        only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_of_splitmix64() {
        // Reference values of the published algorithm for the state 1234567.
        let mut draw = Draw { state: 1_234_567 };
        let numbers: Vec<u64> = (0..3).map(|_| draw.bits()).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn positions_and_seeds_do_not_repeat_each_other() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in [seed_of(1, "a"), seed_of(1, "b"), seed_of(2, "a")] {
            for index in 0..1000 {
                assert!(seen.insert(Draw::at(seed, index).bits()));
            }
        }
    }

    #[test]
    fn bounds_hold() {
        let mut draw = Draw::at(7, 0);
        for _ in 0..10_000 {
            assert!(draw.below(3) < 3);
            assert!((0.0..1.0).contains(&draw.unit()));
            let gap = draw.exponential();
            assert!(gap >= 0.0 && gap.is_finite());
        }
    }

    #[test]
    fn weights_are_shares() {
        let choice = Weighted::new([('a', 1.0), ('b', 0.0), ('c', 3.0)]);
        let mut counts = [0u32; 3];
        for index in 0..40_000 {
            counts[choice.choose(&mut Draw::at(3, index)) as usize - 'a' as usize] += 1;
        }
        // 40 000 draws at 1/4: standard deviation 87; five of them.
        assert!(counts[0].abs_diff(10_000) < 435, "{counts:?}");
        assert_eq!(counts[1], 0);
    }
}
