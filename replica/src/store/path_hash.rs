//! Hashing paths that clients choose.
//!
//! The seed is unknown to clients and decides the multipliers too: with foldhash's fixed ones, paths could be
//! chosen that collide whatever the rest of the seed. Whoever hashes must not let the order of a table be
//! seen.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::{FoldHasher, SeedableRandomState};

fn multipliers(seed: u64) -> SharedSeed {
    SharedSeed::from_u64(seed.rotate_left(32))
}

/// Hashes paths.
#[derive(Debug, Clone)]
pub(super) struct PathHash {
    seed: u64,
    multipliers: SharedSeed,
}

impl PathHash {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, multipliers: multipliers(seed) }
    }

    pub(super) fn of(&self, path: &str) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.multipliers);
        hasher.write(path.as_bytes());
        hasher.finish()
    }
}

/// The same for maps. The multipliers stay for as long as the program: 48 bytes each time.
pub(super) fn state(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, Box::leak(Box::new(multipliers(seed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        assert_eq!(PathHash::new(1).of("/a"), PathHash::new(1).of("/a"));
        assert_ne!(PathHash::new(1).of("/a"), PathHash::new(2).of("/a"));
        assert_ne!(PathHash::new(1).of("/a"), PathHash::new(1).of("/b"));
    }
}
