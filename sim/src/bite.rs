//! The proof that the judges bite: a world with one mistake in it, seed after seed, until a judge
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
    /// The worlds that prove it.
    pub world: World,
    /// Seeds of these worlds within which a judge must object. About ten times what it takes.
    pub seeds_max: u64,
}

/// Every mistake there is.
pub const PROOFS: &[Proof] = &[
    whole(Bug::AckBeforeSync, "ack-before-sync", 50),
    whole(Bug::CommitWithoutQuorum, "commit-without-quorum", 100),
    whole(Bug::SkipTrunc, "skip-trunc", 200),
    whole(Bug::ForgetEpochInVotes, "forget-epoch-in-votes", 200),
    whole(Bug::FireWatchLate, "fire-watch-late", 20),
    whole(Bug::AckNewLeaderEarly, "ack-newleader-early", 50),
    whole(Bug::AckEpochEarly, "ackepoch-early", 100),
    whole(Bug::EpochBeforeHistory, "epoch-before-history", 1500),
    whole(Bug::ObeyTheMoved, "obey-the-moved", 50),
    whole(Bug::AnswerSyncAtOnce, "answer-sync-at-once", 800),
    whole(Bug::DeafToTouches, "deaf-to-touches", 50),
    whole(Bug::CountWhileApplying, "count-while-applying", 100),
    whole(Bug::HoleInSync, "hole-in-sync", 200),
    whole(Bug::OwnEpochInVotes, "own-epoch-in-votes", 200),
    whole(Bug::ReadJumpsTheQueue, "read-jumps-the-queue", 20),
    whole(Bug::KeepUnstoredSnapshot, "keep-unstored-snapshot", 500),
    whole(Bug::EvictLate, "evict-late", 500),
    whole(Bug::ForgetProposedEphemerals, "forget-proposed-ephemerals", 50),
    whole(Bug::RevalidateAtOnce, "revalidate-at-once", 3000),
    whole(Bug::TrustTheHole, "trust-the-hole", 200),
    Proof { world: World::Zab, ..whole(Bug::CountTheUnlisted, "count-the-unlisted", 50) },
    Proof { world: World::Zab, ..whole(Bug::BelieveEpochs, "believe-epochs", 20) },
];

const fn whole(bug: Bug, name: &'static str, seeds_max: u64) -> Proof {
    Proof { bug, name, world: World::Whole, seeds_max }
}

impl Proof {
    /// Seeds lived through until a judge objected, and what it said; `None` if none did.
    pub fn prove(&self, from: u64) -> Option<(u64, String)> {
        choose(Some(self.bug));
        let objection = (from..from + self.seeds_max)
            .find_map(|seed| Some((seed - from + 1, judged(self.world, seed, Story::silent()).err()?)));
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
