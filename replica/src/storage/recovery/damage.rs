//! What is missing between a snapshot and the end of the log, and how that is known.
//!
//! Zxids of one epoch have no gaps, and a later epoch begins with counter 1. Where one epoch ended nobody can see from
//! the zxids: the end is given away by a record that is damaged, by a snapshot that was written later and
//! cannot be read, or by the tree's digest, which is logged with each transaction and is another one behind
//! missing transactions. An ordinary crash is none of these: it leaves an unfinished record at the end of a
//! file, padding, or a file without records, and what follows is logged without a gap.

use zoometry_wire::Zxid;

/// Transactions that were in the log once are missing in the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file in which the log breaks off.
    pub file: String,
    /// Where in that file, bytes.
    pub offset: u64,
    /// How it is known.
    pub proof: Proof,
    /// The last transaction before what is missing.
    pub before: Zxid,
    /// The first one behind it; `None` if there is none that can be read.
    pub after: Option<Zxid>,
}

/// How it is known that something is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Proof {
    /// By the zxids.
    #[error("the next transaction in the log files has a zxid that does not follow")]
    Gap,
    /// A record's end is intact and its content is not, or the file is no log.
    #[error("{0}")]
    Record(String),
    /// By the digest of the tree at the first transaction behind an epoch's end.
    #[error("behind it the tree's digest is not the one in the log")]
    Digest,
    /// A snapshot that was complete once and cannot be read holds more.
    #[error("a snapshot that cannot be read reaches {0}")]
    Snapshot(Zxid),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, proof, before, after } = self;
        write!(f, "the log breaks off in {file} at byte {offset}: {proof}; missing are the transactions ")?;
        match after {
            Some(after) => write!(f, "between {before} and {after}"),
            None => write!(f, "behind {before}"),
        }
    }
}

/// What recovery knows about the result besides the result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) damage: Option<Damage>,
    pub(super) differs: Option<Zxid>,
}

/// Follows the replay and notices what is missing.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    /// Snapshots that were complete once and cannot be read.
    milestones: Vec<Zxid>,
    /// Where the file before ended.
    place: Option<(String, u64)>,
    /// What is wrong with the record there.
    broken: Option<String>,
    /// An epoch has ended together with a file, and no digest has been compared since.
    seam: Option<Damage>,
    /// The tree's digest has not been the logged one since this transaction; behind such an end.
    differs: Option<(Zxid, Option<Damage>)>,
    damage: Option<Damage>,
}

impl Continuity {
    /// `milestones` are the zxids of snapshots that were complete once and cannot be read.
    pub(super) fn new(milestones: Vec<Zxid>) -> Self {
        Self { milestones, ..Self::default() }
    }

    /// A transaction is about to be replayed behind `last`; it stands in `file` at `offset`. Says whether
    /// something is missing between the two.
    pub(super) fn next(
        &mut self,
        last: Zxid,
        zxid: Zxid,
        file: &str,
        offset: u64,
        begins_file: bool,
    ) -> bool {
        let changes_epoch = zxid.epoch() != last.epoch();
        let broken = self.broken.take();
        let passed = self.milestones.iter().find(|at| (last.0 + 1..zxid.0).contains(&at.0));
        let proof = match (broken, passed) {
            (None, _) if !super::follows(last, zxid) => Some(Proof::Gap),
            (Some(what), _) if changes_epoch || !super::follows(last, zxid) => Some(Proof::Record(what)),
            (_, Some(at)) => Some(Proof::Snapshot(*at)),
            _ => None,
        };
        let is_missing = proof.is_some();
        if is_missing || (begins_file && changes_epoch) {
            let (file, offset) = self.place.clone().unwrap_or_else(|| (file.to_owned(), offset));
            let damage = |proof| Damage { file, offset, proof, before: last, after: Some(zxid) };
            match proof {
                Some(proof) => self.damage.get_or_insert(damage(proof)),
                None => self.seam.get_or_insert(damage(Proof::Digest)),
            };
        }
        is_missing
    }

    /// Whether the tree's digest is the logged one behind a transaction; `None` if that cannot be compared.
    pub(super) fn compared(&mut self, zxid: Zxid, agrees: Option<bool>) {
        match agrees {
            None => {}
            Some(true) => (self.seam, self.differs) = (None, None),
            Some(false) if self.differs.is_none() => self.differs = Some((zxid, self.seam.take())),
            Some(false) => {}
        }
    }

    /// A file has been read up to there, where a record is damaged if `broken` says so.
    pub(super) fn file_ended(&mut self, file: &str, offset: u64, broken: Option<String>) {
        if self.broken.is_none() {
            self.place = Some((file.to_owned(), offset));
            self.broken = broken;
        }
    }

    /// The replay has ended behind `last`.
    pub(super) fn finish(mut self, last: Zxid) -> Verdict {
        let unread = self.milestones.iter().find(|at| **at > last).map(|at| Proof::Snapshot(*at));
        let proof = self.broken.take().map(Proof::Record).or(unread);
        if let (None, Some(proof)) = (&self.damage, proof) {
            let (file, offset) = self.place.unwrap_or_default();
            self.damage = Some(Damage { file, offset, proof, before: last, after: None });
        }
        let differs = self.differs.as_ref().map(|(zxid, _)| *zxid);
        let damage = self.damage.or(self.differs.and_then(|(_, seam)| seam));
        Verdict { damage, differs }
    }
}
