//! Real replica code in simulated worlds, each world from one seed.
//!
//! | world | what runs | what may happen to it |
//! |---|---|---|
//! | [`store`] | prep, store, log, snapshots, recovery of one member | the power fails anywhere, unsynced bytes survive or not |
//! | [`whole`] | whole members and their clients | late, cut and broken connections, crashes, torn tails, damaged logs, slow disks, jumping clocks, stopped processes |
//! | [`zab`] | the consensus of three to six members | messages late and reordered between links, links cut, disks slow, members crash |
//!
//! The same seed gives the same life, down to the last line of its [`story::Story`]. A judge that objects
//! panics with what it saw; `zoometry-sim run --seed N` tells how it came to that.

#[cfg(feature = "deliberate-bugs")]
pub mod bite;
pub mod random;
pub mod store;
pub mod story;
pub mod whole;
pub mod zab;

use std::cell::RefCell;

use story::Story;

/// A kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// One member's data directory.
    Store,
    /// The consensus of several members.
    Zab,
    /// Whole members with clients.
    Whole,
}

impl World {
    /// Every kind.
    pub const ALL: [World; 3] = [World::Store, World::Zab, World::Whole];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            World::Store => "store",
            World::Zab => "zab",
            World::Whole => "whole",
        }
    }

    /// Lives the world of this seed through. Panics when a judge objects.
    pub fn live(self, seed: u64, story: Story) -> Story {
        match self {
            World::Store => store::live(seed, story),
            World::Zab => zab::live(seed, story),
            World::Whole => whole::live(seed, story),
        }
    }
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static OBJECTION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lives a world through, and takes a judge's objection (or any other panic) for an error.
pub fn judged(world: World, seed: u64, story: Story) -> Result<Story, String> {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_judged = OBJECTION.with_borrow_mut(|objection| {
                let Some(said) = objection else { return false };
                *said = panic.to_string().replace('\n', " ");
                true
            });
            if !is_judged {
                before(panic);
            }
        }));
    });
    OBJECTION.set(Some(String::new()));
    let lived = std::panic::catch_unwind(|| world.live(seed, story));
    let said = OBJECTION.take().unwrap_or_default();
    lived.map_err(|_| said)
}
