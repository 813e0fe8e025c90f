//! The proof that the judges bite: the whole world with one mistake in it, seed after seed, until a judge
//! objects. A mistake that lives through all its seeds means that the world is too tame or a judge is asleep.

use zoometry_replica::deliberate::{Bug, choose};

use crate::story::Story;
use crate::{World, judged};

/// A mistake, and how soon it must be caught.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// The mistake.
    pub bug: Bug,
    /// Its name on the command line.
    pub name: &'static str,
    /// Seeds of whole worlds within which a judge must object. About ten times what it takes.
    pub seeds_max: u64,
}

/// Every mistake there is.
pub const PROOFS: &[Proof] = &[
    Proof { bug: Bug::AckBeforeSync, name: "ack-before-sync", seeds_max: 50 },
    Proof { bug: Bug::CommitWithoutQuorum, name: "commit-without-quorum", seeds_max: 100 },
    Proof { bug: Bug::SkipTrunc, name: "skip-trunc", seeds_max: 200 },
    Proof { bug: Bug::ForgetEpochInVotes, name: "forget-epoch-in-votes", seeds_max: 200 },
    Proof { bug: Bug::FireWatchLate, name: "fire-watch-late", seeds_max: 20 },
    Proof { bug: Bug::AckNewLeaderEarly, name: "ack-newleader-early", seeds_max: 50 },
    Proof { bug: Bug::AckEpochEarly, name: "ackepoch-early", seeds_max: 100 },
    Proof { bug: Bug::EpochBeforeHistory, name: "epoch-before-history", seeds_max: 1500 },
    Proof { bug: Bug::ObeyTheMoved, name: "obey-the-moved", seeds_max: 50 },
    Proof { bug: Bug::AnswerSyncAtOnce, name: "answer-sync-at-once", seeds_max: 800 },
    Proof { bug: Bug::DeafToTouches, name: "deaf-to-touches", seeds_max: 50 },
    Proof { bug: Bug::CountWhileApplying, name: "count-while-applying", seeds_max: 100 },
    Proof { bug: Bug::HoleInSync, name: "hole-in-sync", seeds_max: 200 },
    Proof { bug: Bug::OwnEpochInVotes, name: "own-epoch-in-votes", seeds_max: 200 },
    Proof { bug: Bug::ReadJumpsTheQueue, name: "read-jumps-the-queue", seeds_max: 20 },
    Proof { bug: Bug::KeepUnstoredSnapshot, name: "keep-unstored-snapshot", seeds_max: 500 },
    Proof { bug: Bug::EvictLate, name: "evict-late", seeds_max: 500 },
    Proof { bug: Bug::ForgetProposedEphemerals, name: "forget-proposed-ephemerals", seeds_max: 50 },
    Proof { bug: Bug::RevalidateAtOnce, name: "revalidate-at-once", seeds_max: 3000 },
    Proof { bug: Bug::TrustTheHole, name: "trust-the-hole", seeds_max: 200 },
];

impl Proof {
    /// Seeds lived through until a judge objected, and what it said; `None` if none did.
    pub fn prove(&self, from: u64) -> Option<(u64, String)> {
        choose(Some(self.bug));
        let objection = (from..from + self.seeds_max)
            .find_map(|seed| Some((seed - from + 1, judged(World::Whole, seed, Story::silent()).err()?)));
        choose(None);
        objection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_its_proof() {
        for bug in Bug::ALL {
            assert!(PROOFS.iter().any(|proof| proof.bug == *bug), "{bug:?}");
        }
    }
}
