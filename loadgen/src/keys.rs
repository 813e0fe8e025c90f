//! Keys: which one an operation is about, and which znode that is.
//!
//! A key is a number below the workload's `znodes`. [`KeyChooser`] draws it; [`KeySpace`] spells its path.
//! Key 0 is the most popular key wherever there is one (zipf, hot set): watchers that sit "on the hottest
//! znode" sit on key 0.
//!
//! The layout is a function of the data's shape alone, so that whoever knows the workload file can find
//! every znode again: `root/k0042` in a flat shape, `root/d00/k42` with a fan-out of 100. All names of a
//! level have the same width, so all paths have the same length. Neighbouring keys share a parent. Keys are
//! leaves.

use crate::draw::Draw;
use crate::spec::{Data, KeyChoice, Shape};

/// The paths of a run's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    root: String,
    keys: u64,
    /// Children per inner znode, at most.
    fanout: u64,
    /// Levels below the root; keys are on the last.
    levels: u32,
    /// Digits of a name.
    width: usize,
}

impl KeySpace {
    /// The key space of a workload's data.
    pub fn new(data: &Data) -> KeySpace {
        let keys = data.znodes.max(1);
        let (fanout, levels) = match data.shape {
            Shape::Flat => (keys, 1),
            Shape::Fanout(fanout) => {
                let fanout = u64::from(fanout.max(2));
                let levels = (1..).find(|&levels| fanout.saturating_pow(levels) >= keys);
                (fanout, levels.unwrap_or(1))
            }
            Shape::Depth(levels) => (smallest_base(keys, levels.max(1)), levels.max(1)),
        };
        let width = (fanout.min(keys) - 1).checked_ilog10().unwrap_or(0) as usize + 1;
        KeySpace { root: data.root.clone(), keys, fanout, levels, width }
    }

    /// How many keys there are; valid keys are below.
    pub fn len(&self) -> u64 {
        self.keys
    }

    /// Never: there is at least one key.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The data root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The length of every key's path in bytes.
    pub fn path_bytes(&self) -> usize {
        self.root.len() + self.levels as usize * self.name_bytes_with_slash()
    }

    /// The length of a znode's name below the root, in bytes.
    pub fn name_bytes(&self) -> usize {
        self.width + 1
    }

    /// How many keys hang on the key's parent, itself included; keys are all that does.
    #[inline]
    pub fn siblings(&self, key: u64) -> u64 {
        self.fanout.min(self.keys - key / self.fanout * self.fanout)
    }

    /// How many children the fullest znode of the data has.
    pub fn widest(&self) -> u64 {
        self.fanout.min(self.keys)
    }

    /// Appends the key's path to `out`.
    pub fn push_path(&self, key: u64, out: &mut String) {
        debug_assert!(key < self.keys, "key {key} of {}", self.keys);
        self.push_parent(key, out);
        self.push_name('k', key % self.fanout, out);
    }

    /// The key's path.
    pub fn path(&self, key: u64) -> String {
        let mut path = String::with_capacity(self.path_bytes());
        self.push_path(key, &mut path);
        path
    }

    /// Appends the path of the znode that holds the key (what `children` lists).
    pub fn push_parent(&self, key: u64, out: &mut String) {
        out.push_str(&self.root);
        self.push_directories(key / self.fanout, self.levels - 1, out);
    }

    /// Inner znodes between root and keys, parents first; the root itself is not among them. Empty for a
    /// flat shape.
    pub fn inner_paths(&self) -> impl Iterator<Item = String> + '_ {
        (1..self.levels).flat_map(move |level| {
            let keys_below = self.fanout.saturating_pow(self.levels - level);
            (0..self.keys.div_ceil(keys_below)).map(move |n| {
                let mut path = self.root.clone();
                self.push_directories(n, level, &mut path);
                path
            })
        })
    }

    /// The path of the n-th inner znode of a level: n's digits to the base `fanout`, most significant
    /// first.
    fn push_directories(&self, n: u64, level: u32, out: &mut String) {
        for above in (0..level).rev() {
            let digit = n / self.fanout.saturating_pow(above) % self.fanout;
            self.push_name('d', digit, out);
        }
    }

    fn push_name(&self, kind: char, mut number: u64, out: &mut String) {
        let mut digits = [b'0'; 20];
        for place in (0..self.width).rev() {
            digits[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        out.push('/');
        out.push(kind);
        out.push_str(std::str::from_utf8(&digits[..self.width]).expect("ASCII digits"));
    }

    fn name_bytes_with_slash(&self) -> usize {
        self.name_bytes() + 1
    }
}

/// The smallest base b ≥ 2 with b^power ≥ n (1 for n = 1).
fn smallest_base(n: u64, power: u32) -> u64 {
    if n <= 1 {
        return 1;
    }
    // The root in floating point is off by at most one; walk to the exact answer.
    let mut base = ((n as f64).powf(1.0 / f64::from(power)) as u64).max(2) - 1;
    while base.saturating_pow(power) < n {
        base += 1;
    }
    base.max(2)
}

/// Draws keys.
#[derive(Debug, Clone)]
pub enum KeyChooser {
    /// All alike.
    Uniform {
        /// Number of keys.
        keys: u64,
    },
    /// By rank.
    Zipf(Zipf),
    /// A hot set and the others.
    Hot {
        /// Number of hot keys; they come first.
        hot: u64,
        /// Number of keys altogether.
        keys: u64,
        /// Share of draws from the hot set.
        share: f64,
    },
    /// By the operation's index.
    Sequential {
        /// Number of keys.
        keys: u64,
    },
}

impl KeyChooser {
    /// Prepares a choice among `keys` keys.
    pub fn new(choice: KeyChoice, keys: u64) -> KeyChooser {
        let keys = keys.max(1);
        match choice {
            KeyChoice::Uniform => KeyChooser::Uniform { keys },
            KeyChoice::Zipf(exponent) => KeyChooser::Zipf(Zipf::new(keys, exponent)),
            KeyChoice::Hot { keys: hot, share } => KeyChooser::Hot { hot: hot.clamp(1, keys), keys, share },
            KeyChoice::Sequential => KeyChooser::Sequential { keys },
        }
    }

    /// The key of operation `index`.
    pub fn choose(&self, index: u64, draw: &mut Draw) -> u64 {
        match self {
            KeyChooser::Uniform { keys } => draw.below(*keys),
            KeyChooser::Zipf(zipf) => zipf.choose(draw),
            KeyChooser::Hot { hot, keys, share } => {
                if draw.unit() < *share || hot == keys {
                    draw.below(*hot)
                } else {
                    hot + draw.below(keys - hot)
                }
            }
            KeyChooser::Sequential { keys } => index % keys,
        }
    }
}

/// Zipf's law over a finite number of ranks: rank k (from 0) has a probability proportional to
/// 1/(k+1)^exponent.
///
/// Drawn by rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from
/// monotone discrete distributions", ACM TOMACS 6(3), 1996): the continuous x^−s is inverted and the result
/// rounded; what the rounding gets wrong is rejected. It needs no tables, so a million keys cost what ten
/// do, and it accepts nearly always.
#[derive(Debug, Clone)]
pub struct Zipf {
    ranks: f64,
    exponent: f64,
    /// 1/(1 − exponent), or `None` where the exponent is so near to 1 that it must not be used.
    reciprocal: Option<f64>,
    /// The integral's values between which the inverted variable is uniform.
    low: f64,
    high: f64,
    /// Rounding down by at most this much is always right.
    sure: f64,
}

/// Nearer to an exponent of 1 than this, the integral is computed in the form that does not cancel. Farther
/// away the plain form is good to twelve digits, and several times as fast.
const NEAR_ONE: f64 = 1e-3;

impl Zipf {
    /// Over `ranks` ranks (at least one), with a positive exponent.
    pub fn new(ranks: u64, exponent: f64) -> Zipf {
        let reciprocal = ((1.0 - exponent).abs() > NEAR_ONE).then(|| 1.0 / (1.0 - exponent));
        let ranks = ranks.max(1) as f64;
        let mut zipf = Zipf { ranks, exponent, reciprocal, low: 0.0, high: 0.0, sure: 0.0 };
        // The first rank's whole mass of 1 lies left of 1.5, whatever the integral says about that stretch.
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(ranks + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.mass(2.0));
        zipf
    }

    /// A rank, from 0.
    pub fn choose(&self, draw: &mut Draw) -> u64 {
        loop {
            let at = self.high + draw.unit() * (self.low - self.high);
            let x = self.inverse(at);
            let rank = x.round().clamp(1.0, self.ranks);
            // The first rank is never rejected: its mass begins at `low`.
            if rank == 1.0 || rank - x <= self.sure || at >= self.integral(rank + 0.5) - self.mass(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn mass(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// ∫₁ˣ t^−s dt = (x^(1−s) − 1)/(1−s), and ln x in the limit s → 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let y = (1.0 - self.exponent) * log;
        match self.reciprocal {
            Some(reciprocal) => (y.exp() - 1.0) * reciprocal,
            None if y.abs() < 1e-8 => log * (1.0 + y / 2.0),
            None => log * y.exp_m1() / y,
        }
    }

    /// The x whose integral is `value`.
    fn inverse(&self, value: f64) -> f64 {
        let y = ((1.0 - self.exponent) * value).max(-1.0);
        match self.reciprocal {
            Some(reciprocal) => ((1.0 + y).ln() * reciprocal).exp(),
            None if y.abs() < 1e-8 => (value * (1.0 - y / 2.0)).exp(),
            None => (value * y.ln_1p() / y).exp(),
        }
    }
}

#[cfg(test)]
mod tests;
