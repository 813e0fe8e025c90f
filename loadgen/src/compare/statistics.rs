//! How far a ratio of two figures can be trusted. All on the logarithm, where ratios are differences.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::op::Outcome;
use crate::recorder::{self, Bins, Class};
use crate::results::RunData;

use super::Figure;

/// Runs per side from which run-to-run variation can be estimated.
pub const REPEATS_MIN: usize = 3;
/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 300;
/// Seconds of a run that a bootstrap needs at least.
const BLOCKS_MIN: usize = 5;
/// A block: long enough that neighbours hardly depend on each other (fsync batches, garbage collections).
const BLOCK_NS: u64 = 1_000_000_000;
/// Comparisons must give the same answer every time.
const SEED: u64 = 0x5a6f_6f6d;

/// Where a ratio lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Not below this.
    pub low: f64,
    /// Not above this.
    pub high: f64,
}

/// The mean that suits ratios; of one value, that.
pub(super) fn geometric_mean(values: &[f64]) -> f64 {
    if let [one] = values {
        return *one;
    }
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// From repeated runs: Welch's interval for the difference of mean logarithms.
pub(super) fn between_runs(a: &[f64], b: &[f64], level: f64) -> Option<Interval> {
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
        let mean = logs.iter().sum::<f64>() / n;
        let variance = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n, n - 1.0)
    };
    let ((mean_a, error_a, free_a), (mean_b, error_b, free_b)) = (moments(a), moments(b));
    let error = error_a + error_b;
    if !error.is_finite() || free_a < 1.0 || free_b < 1.0 {
        return None;
    }
    let freedom = if error > 0.0 {
        error.powi(2) / (error_a.powi(2) / free_a + error_b.powi(2) / free_b)
    } else {
        free_a + free_b
    };
    Some(around(mean_b - mean_a, error.sqrt() * student(1.0 - level / 2.0, freedom)))
}

/// From the standard errors (of the logarithm) of two figures of one run each.
pub(super) fn of_errors(ratio: f64, error_a: f64, error_b: f64, level: f64) -> Option<Interval> {
    let error = error_a.hypot(error_b);
    error.is_finite().then(|| around(ratio.ln(), error * normal(1.0 - level / 2.0)))
}

fn around(log_ratio: f64, reach: f64) -> Interval {
    Interval { low: (log_ratio - reach).exp(), high: (log_ratio + reach).exp() }
}

/// Runs that do not overlap are worth a word when chance alone does it at most this often; three against three do.
pub(super) const APART_MAX: f64 = 0.1;

/// How often two sets of runs of the same do not overlap, by chance alone: the exact permutation test, two-sided. `None` if
/// these do overlap.
pub(super) fn apart_by_chance(a: &[f64], b: &[f64]) -> Option<f64> {
    let ends = |values: &[f64]| {
        let fold = |(low, high): (f64, f64), value: &f64| (low.min(*value), high.max(*value));
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), fold)
    };
    let ((low_a, high_a), (low_b, high_b)) = (ends(a), ends(b));
    let apart = !a.is_empty() && !b.is_empty() && (high_a < low_b || high_b < low_a);
    apart.then(|| apart_chance(a.len(), b.len()))
}

/// The same for so many runs: two arrangements of all that there are.
pub(super) fn apart_chance(a: usize, b: usize) -> f64 {
    let arrangements = (1..=b).map(|n| (a + n) as f64 / n as f64).product::<f64>();
    2.0 / arrangements
}

/// Standard error of a figure's logarithm from parts of one run that are alike, such as its rounds of faults, drawn with
/// replacement. `None` of fewer than [`BLOCKS_MIN`].
pub(super) fn of_parts(parts: &[f64], figure: impl Fn(&[f64]) -> Option<f64>) -> Option<f64> {
    if parts.len() < BLOCKS_MIN || parts.iter().any(|part| !part.is_finite()) {
        return None;
    }
    let mut random = SmallRng::seed_from_u64(SEED);
    let logs: Option<Vec<f64>> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<f64> =
                (0..parts.len()).map(|_| parts[random.random_range(0..parts.len())]).collect();
            Some(figure(&drawn).filter(|value| *value > 0.0)?.ln())
        })
        .collect();
    logs.map(|logs| deviation(&logs))
}

fn deviation(logs: &[f64]) -> f64 {
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (logs.len() - 1) as f64).sqrt()
}

/// Standard error of a figure's logarithm within one run: the phase's seconds, drawn with replacement.
/// `None` for figures that have no value per second, and phases too short for it.
pub(super) fn within_run(run: &RunData, phase: &str, op: &str, figure: Figure) -> Option<f64> {
    let quantile = match figure {
        Figure::Rate => None,
        Figure::P50 => Some(0.5),
        Figure::P99 => Some(0.99),
        Figure::P999 => Some(0.999),
        Figure::ServerCpu | Figure::Median | Figure::Longest => return None,
    };
    let blocks = blocks(run, phase, op)?;
    let sums = Sums::of(&blocks);
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut logs = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let drawn: Vec<usize> = (0..blocks.len()).map(|_| random.random_range(0..blocks.len())).collect();
        let value = quantile.map_or(Some(sums.count(&drawn)), |q| sums.quantile(&drawn, q));
        logs.push((value.filter(|value| *value > 0)? as f64).ln());
    }
    Some(deviation(&logs))
}

/// Distributions summed up bin by bin, so that figures of many of them together are looked up. (To merge those drawn for each
/// resample takes most of the time of a comparison.)
struct Sums {
    /// Each bin that any of them has, ascending: its value, and of each distribution the samples in it and below.
    bins: Vec<(u64, Vec<u64>)>,
}

impl Sums {
    fn of(parts: &[Bins]) -> Sums {
        let mut bins: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            for (value, count) in part.iter() {
                bins.entry(value).or_insert_with(|| vec![0; parts.len()])[at] = count;
            }
        }
        let mut below = vec![0; parts.len()];
        for counts in bins.values_mut() {
            for (sum, count) in below.iter_mut().zip(counts) {
                *sum += *count;
                *count = *sum;
            }
        }
        Sums { bins: bins.into_iter().collect() }
    }

    fn count(&self, drawn: &[usize]) -> u64 {
        self.bins.last().map_or(0, |(_, below)| drawn.iter().map(|at| below[*at]).sum())
    }

    /// As [`Bins::quantile`] of the drawn ones merged.
    fn quantile(&self, drawn: &[usize], q: f64) -> Option<u64> {
        let rank = recorder::rank(q, self.count(drawn));
        let at =
            self.bins.partition_point(|(_, below)| drawn.iter().map(|at| below[*at]).sum::<u64>() < rank);
        self.bins.get(at).map(|(value, _)| *value)
    }
}

/// The successes of each whole second of a phase.
fn blocks(run: &RunData, phase: &str, op: &str) -> Option<Vec<Bins>> {
    let at = run.manifest.phases.iter().position(|record| record.name == phase)?;
    let record = &run.manifest.phases[at];
    let count = (record.end_ns.checked_sub(record.start_ns)? / BLOCK_NS) as usize;
    if count < BLOCKS_MIN || run.recording.interval_ns > BLOCK_NS {
        return None;
    }
    let mut blocks = vec![Bins::default(); count];
    for (key, intervals) in &run.recording.intervals {
        let mine = match op {
            "all" => Class::of(key.op).is_some(),
            _ => op == key.op.name() || Class::of_name(key.op.name()) == Some(op),
        };
        if usize::from(key.phase) == at && key.outcome == Outcome::Ok && mine {
            for interval in intervals {
                let middle_ns = interval.index * run.recording.interval_ns + run.recording.interval_ns / 2;
                let block = middle_ns.saturating_sub(record.start_ns) / BLOCK_NS;
                if let Some(block) = blocks.get_mut(block as usize) {
                    block.merge(&interval.response);
                }
            }
        }
    }
    Some(blocks)
}

/// Quantile of the normal distribution (Acklam's rational approximation, relative error below 1.2e-9).
fn normal(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
    let poly = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let p = p.clamp(1e-12, 1.0 - 1e-12);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        poly(&C, q) / (poly(&D, q) * q + 1.0)
    };
    if p < 0.02425 {
        tail(p)
    } else if p > 1.0 - 0.02425 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        poly(&A, r) * q / (poly(&B, r) * r + 1.0)
    }
}

/// Quantile of Student's distribution: exact for one and two degrees of freedom, Hill's expansion beyond.
fn student(p: f64, freedom: f64) -> f64 {
    let tail = 2.0 * (1.0 - p);
    if freedom < 1.5 {
        return 1.0 / (std::f64::consts::FRAC_PI_2 * tail).tan();
    }
    if freedom < 2.5 {
        return (2.0 / (tail * (2.0 - tail)) - 2.0).sqrt();
    }
    let n = freedom;
    let a = 1.0 / (n - 0.5);
    let b = 48.0 / (a * a);
    let c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * n;
    let y = (d * tail).powf(2.0 / n);
    let squared = if y > 0.05 + a {
        let x = normal(tail / 2.0);
        let y = x * x;
        let c = if n < 5.0 { c + 0.3 * (n - 4.5) * (x + 0.6) } else { c };
        let c = (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b + c;
        let y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        (a * y * y).exp_m1()
    } else {
        ((1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y - 1.0)
            * (n + 1.0)
            / (n + 2.0)
            + 1.0 / y
    };
    (n * squared).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959964), (0.995, 2.575829), (0.9999, 3.719016)] {
            assert!((normal(p) - z).abs() < 1e-5, "{p}: {}", normal(p));
        }
        let table = [
            (0.975, 1.0, 12.7062),
            (0.975, 2.0, 4.30265),
            (0.975, 4.0, 2.77645),
            (0.975, 8.0, 2.30600),
            (0.995, 4.0, 4.60409),
            (0.9995, 8.0, 5.04131),
            (0.975, 30.0, 2.04227),
            (0.9995, 4.0, 8.61030),
        ];
        for (p, freedom, t) in table {
            let computed = student(p, freedom);
            assert!((computed - t).abs() / t < 2e-3, "{p}, {freedom}: {computed}, table {t}");
        }
    }

    #[test]
    fn sums_are_those_of_the_merged() {
        let parts: Vec<Bins> = (0..4u64)
            .map(|part| {
                let mut bins = Bins::default();
                (0..50 * part).for_each(|n| bins.add(1_000 + n * n * 37 % (9_000 << part), 1 + n as u32 % 3));
                bins
            })
            .collect();
        let sums = Sums::of(&parts);
        for drawn in [vec![0, 1, 2, 3], vec![3, 3, 1], vec![2], vec![0, 0]] {
            let merged = Bins::merged(&drawn.iter().map(|at| &parts[*at]).collect::<Vec<_>>());
            assert_eq!(sums.count(&drawn), merged.count());
            for q in [0.0, 0.01, 0.5, 0.99, 0.999, 1.0] {
                assert_eq!(sums.quantile(&drawn, q), merged.quantile(q), "{q} of {drawn:?}");
            }
        }
    }

    #[test]
    fn runs_that_do_not_overlap() {
        assert_eq!(apart_by_chance(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), Some(0.1));
        assert_eq!(apart_by_chance(&[6.0, 4.0, 5.0], &[3.0, 1.0, 2.0]), Some(0.1));
        assert_eq!(apart_by_chance(&[1.0, 2.0, 4.5], &[4.0, 5.0, 6.0]), None);
        assert!((apart_chance(5, 5) - 2.0 / 252.0).abs() < 1e-12 && apart_chance(2, 3) == 0.2);
    }

    #[test]
    fn equal_runs_differ_by_nothing_and_double_ones_by_two() {
        let a = [10.0, 11.0, 9.5, 10.2, 10.4];
        let same = between_runs(&a, &a, 0.05).unwrap();
        assert!(same.low < 1.0 && same.high > 1.0 && same.high < 1.2, "{same:?}");
        let doubled = between_runs(&a, &a.map(|v| 2.0 * v), 0.05).unwrap();
        assert!(doubled.low > 1.7 && doubled.high < 2.4, "{doubled:?}");
        assert!((geometric_mean(&[1.0, 4.0]) - 2.0).abs() < 1e-12);
    }
}
