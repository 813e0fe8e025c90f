//! Distributions of intervals: counts per bin, few bytes each. The layout is that of an HdrHistogram of two
//! digits, so that both convert without loss.

use super::MAX_NS;

/// Sub-buckets per power of two, as a power of two itself: bins are narrower than 1/128 of their value.
const SUB_BITS: u32 = 7;
/// Bins up to [`MAX_NS`].
const BINS: usize = bin_of(MAX_NS) + 1;

/// The bin of a value: the layout of an HdrHistogram of two digits and unit 1 ns.
const fn bin_of(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(SUB_BITS);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

/// The smallest value of a bin.
const fn bin_low(bin: usize) -> u64 {
    let shift = (bin >> SUB_BITS).saturating_sub(1);
    ((bin - (shift << SUB_BITS)) as u64) << shift
}

/// The middle of a bin, which stands for its values.
const fn bin_mid(bin: usize) -> u64 {
    let shift = (bin >> SUB_BITS).saturating_sub(1);
    bin_low(bin) + ((1u64 << shift) >> 1)
}

/// A distribution in few bytes: the bins (each narrower than 0.8 % of its value) that are not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bins {
    /// (bin, count), by bin.
    bins: Vec<(u16, u32)>,
}

impl Bins {
    /// How many samples.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|&(_, n)| u64::from(n)).sum()
    }

    /// The value (ns) below or at which a share `q` (0 to 1) of the samples lies; `None` without samples.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for &(bin, n) in &self.bins {
            seen += u64::from(n);
            if seen >= rank {
                return Some(bin_mid(usize::from(bin)));
            }
        }
        None
    }

    /// The largest value, to the width of a bin; `None` without samples.
    pub fn max(&self) -> Option<u64> {
        self.bins.last().map(|&(bin, _)| bin_mid(usize::from(bin)))
    }

    /// (value in ns, count), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bins.iter().map(|&(bin, n)| (bin_mid(usize::from(bin)), u64::from(n)))
    }

    /// Adds `count` samples of `value_ns`.
    pub fn add(&mut self, value_ns: u64, count: u32) {
        let bin = bin_of(value_ns.min(MAX_NS)) as u16;
        match self.bins.binary_search_by_key(&bin, |&(b, _)| b) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    /// Adds the other's samples.
    pub fn merge(&mut self, other: &Bins) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        let mut merged = Vec::with_capacity(self.bins.len() + other.bins.len());
        let (mut a, mut b) = (self.bins.iter().copied().peekable(), other.bins.iter().copied().peekable());
        loop {
            match (a.peek().copied(), b.peek().copied()) {
                (Some(x), Some(y)) if x.0 == y.0 => {
                    merged.push((x.0, x.1.saturating_add(y.1)));
                    a.next();
                    b.next();
                }
                (Some(x), Some(y)) if x.0 < y.0 => {
                    merged.push(x);
                    a.next();
                }
                (_, Some(y)) => {
                    merged.push(y);
                    b.next();
                }
                (Some(x), None) => {
                    merged.push(x);
                    a.next();
                }
                (None, None) => break,
            }
        }
        self.bins = merged;
    }

    /// Several distributions as one.
    pub fn merged(parts: &[&Bins]) -> Bins {
        let mut open = OpenBins::new();
        for &(bin, n) in parts.iter().flat_map(|part| &part.bins) {
            let bin = usize::from(bin);
            open.counts[bin] = open.counts[bin].saturating_add(n);
            open.low = open.low.min(bin);
            open.high = open.high.max(bin);
        }
        open.take()
    }

    /// What of these samples is not among `part`, which must be some of them.
    pub(super) fn without(&self, part: &Bins) -> Bins {
        let mut bins = self.bins.clone();
        for &(bin, n) in &part.bins {
            if let Ok(at) = bins.binary_search_by_key(&bin, |&(b, _)| b) {
                bins[at].1 -= n;
            }
        }
        bins.retain(|&(_, n)| n > 0);
        Bins { bins }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Bins>() + self.bins.capacity() * size_of::<(u16, u32)>()
    }
}

/// Bins with a place for each: what the open interval counts in.
pub(super) struct OpenBins {
    counts: Box<[u32]>,
    low: usize,
    high: usize,
}

impl OpenBins {
    pub(super) fn new() -> OpenBins {
        OpenBins { counts: vec![0; BINS].into_boxed_slice(), low: BINS, high: 0 }
    }

    pub(super) fn add(&mut self, value_ns: u64) {
        let bin = bin_of(value_ns.min(MAX_NS));
        self.counts[bin] += 1;
        self.low = self.low.min(bin);
        self.high = self.high.max(bin);
    }

    pub(super) fn take(&mut self) -> Bins {
        if self.low > self.high {
            return Bins::default();
        }
        let touched = &mut self.counts[self.low..=self.high];
        let filled = touched.iter().filter(|n| **n > 0).count();
        let mut bins = Vec::with_capacity(filled);
        for (at, n) in touched.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
            bins.push(((self.low + at) as u16, *n));
            *n = 0;
        }
        (self.low, self.high) = (BINS, 0);
        Bins { bins }
    }
}
