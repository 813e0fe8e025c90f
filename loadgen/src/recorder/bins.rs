//! Distributions of intervals: counts per bin, few bytes each. The layout is that of an HdrHistogram of two or
//! three digits, so that both convert without loss.

use super::MAX_NS;

/// Bins of intervals: 2^7 per power of two, so that each is narrower than 0.8 % of its value.
pub const COARSE: u32 = 7;
/// Bins that workers count in: 2^10 per power of two, narrower than 0.1 % of their value.
pub const FINE: u32 = 10;
/// Fine bins up to [`MAX_NS`].
const FINE_BINS: usize = bin_of(FINE, MAX_NS) + 1;

/// The bin of a value: the layout of an HdrHistogram of unit 1 ns, with two digits (7 bits) or three (10).
const fn bin_of(bits: u32, value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(bits);
    ((shift as usize) << bits) + (value >> shift) as usize
}

/// The smallest value of a bin.
const fn bin_low(bits: u32, bin: usize) -> u64 {
    let shift = (bin >> bits).saturating_sub(1);
    ((bin - (shift << bits)) as u64) << shift
}

/// The middle of a bin, which stands for its values.
const fn bin_mid(bits: u32, bin: usize) -> u64 {
    let shift = (bin >> bits).saturating_sub(1);
    bin_low(bits, bin) + ((1u64 << shift) >> 1)
}

/// Which of `total` samples, counted from one in ascending order, a share `q` of them lies below or at.
pub(crate) fn rank(q: f64, total: u64) -> u64 {
    ((q * total as f64).ceil() as u64).clamp(1, total.max(1))
}

/// A distribution in few bytes: the bins that are not empty, of [`COARSE`] or [`FINE`] width.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bins<const BITS: u32 = COARSE> {
    /// (bin, count), by bin.
    bins: Vec<(u16, u32)>,
}

impl<const BITS: u32> Bins<BITS> {
    /// How many samples.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|&(_, n)| u64::from(n)).sum()
    }

    /// The value (ns) below or at which a share `q` (0 to 1) of the samples lies; `None` without samples.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = rank(q, self.count());
        let mut seen = 0;
        for &(bin, n) in &self.bins {
            seen += u64::from(n);
            if seen >= rank {
                return Some(bin_mid(BITS, usize::from(bin)));
            }
        }
        None
    }

    /// The largest value, to the width of a bin; `None` without samples.
    pub fn max(&self) -> Option<u64> {
        self.bins.last().map(|&(bin, _)| bin_mid(BITS, usize::from(bin)))
    }

    /// (value in ns, count), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bins.iter().map(|&(bin, n)| (bin_mid(BITS, usize::from(bin)), u64::from(n)))
    }

    /// Adds `count` samples of `value_ns`.
    pub fn add(&mut self, value_ns: u64, count: u32) {
        let bin = bin_of(BITS, value_ns.min(MAX_NS)) as u16;
        match self.bins.binary_search_by_key(&bin, |&(b, _)| b) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    /// Adds the other's samples.
    pub fn merge(&mut self, other: &Self) {
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
    pub fn merged(parts: &[&Self]) -> Self {
        let mut bins: Vec<(u16, u32)> = parts.iter().flat_map(|part| &part.bins).copied().collect();
        bins.sort_unstable_by_key(|&(bin, _)| bin);
        bins.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        Bins { bins }
    }
}

impl Bins<FINE> {
    /// The same samples in coarse bins.
    pub fn coarse(&self) -> Bins {
        let mut bins: Vec<(u16, u32)> = Vec::new();
        for &(bin, n) in &self.bins {
            let bin = bin_of(COARSE, bin_low(FINE, usize::from(bin))) as u16;
            match bins.last_mut() {
                Some(last) if last.0 == bin => last.1 = last.1.saturating_add(n),
                _ => bins.push((bin, n)),
            }
        }
        Bins { bins }
    }
}

/// Bins that share a bit in [`OpenBins`].
const BLOCK: usize = 64;
const BLOCKS: usize = FINE_BINS.div_ceil(BLOCK);

/// Fine bins with a place for each: what the open interval counts in.
pub(super) struct OpenBins {
    counts: Box<[u32]>,
    /// A bit for every [`BLOCK`] bins with anything in them, so that the others are not looked at.
    touched: [u64; BLOCKS.div_ceil(64)],
}

impl OpenBins {
    pub(super) fn new() -> OpenBins {
        OpenBins { counts: vec![0; BLOCKS * BLOCK].into_boxed_slice(), touched: [0; BLOCKS.div_ceil(64)] }
    }

    #[inline]
    pub(super) fn add(&mut self, value_ns: u64) {
        let bin = bin_of(FINE, value_ns.min(MAX_NS));
        self.counts[bin] += 1;
        let block = bin / BLOCK;
        self.touched[block / 64] |= 1 << (block % 64);
    }

    pub(super) fn take(&mut self) -> Bins<FINE> {
        let mut bins = Vec::new();
        for (word, touched) in self.touched.iter_mut().enumerate() {
            while *touched != 0 {
                let first = (word * 64 + touched.trailing_zeros() as usize) * BLOCK;
                *touched &= *touched - 1;
                for (at, n) in self.counts[first..first + BLOCK].iter_mut().enumerate() {
                    if *n > 0 {
                        bins.push(((first + at) as u16, std::mem::take(n)));
                    }
                }
            }
        }
        Bins { bins }
    }
}
