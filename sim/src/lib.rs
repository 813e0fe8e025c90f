//! Real replica code in simulated worlds, each world from one seed.
//!
//! | world | what runs | what may happen to it |
//! |---|---|---|
//! | [`store`] | prep, store, log, snapshots, recovery of one member | the power fails anywhere, unsynced bytes survive or not |
//! | [`zab`] | the consensus of three to six members | messages late and reordered between links, links cut, disks slow, members crash |
//!
//! The same seed gives the same life, down to the last line of its [`story::Story`]. A judge that objects
//! panics with what it saw; `zoometry-sim run --seed N --story` tells how it came to that.
//!
//! Not here yet: whole members (clients, watches, sessions) over the simulated network.

pub mod random;
pub mod store;
pub mod story;
pub mod zab;

use story::Story;

/// A kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// One member's data directory.
    Store,
    /// The consensus of several members.
    Zab,
}

impl World {
    /// Every kind.
    pub const ALL: [World; 2] = [World::Store, World::Zab];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            World::Store => "store",
            World::Zab => "zab",
        }
    }

    /// Lives the world of this seed through. Panics when a judge objects.
    pub fn live(self, seed: u64, story: Story) -> Story {
        match self {
            World::Store => store::live(seed, story),
            World::Zab => zab::live(seed, story),
        }
    }
}
