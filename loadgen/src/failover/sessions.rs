//! What became of sessions, from the events that tell it.
//!
//! An event of kind `session` begins with one word: `lost` (its connection), `kept` (attached to the same member again), `moved` (to
//! another), `expired` (the cluster ended it), `new` (the session that followed one that expired).

use crate::results::EventRow;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Its connection.
    Lost,
    /// Attached again to the same member.
    Kept,
    /// Attached again, to another member.
    Moved,
    /// Ended by the cluster.
    Expired,
    /// A new one in place of one that expired.
    New,
}

impl Change {
    const ALL: [(Change, &'static str); 5] = [
        (Change::Lost, "lost"),
        (Change::Kept, "kept"),
        (Change::Moved, "moved"),
        (Change::Expired, "expired"),
        (Change::New, "new"),
    ];

    /// The word with which the event's detail begins.
    pub fn name(self) -> &'static str {
        Change::ALL.into_iter().find(|(change, _)| *change == self).map_or("", |(_, name)| name)
    }
}

/// The moment at which it was over, and what it was; `None` for other events.
pub fn session_change(event: &EventRow) -> Option<(u64, Change)> {
    if event.kind != "session" {
        return None;
    }
    let word = event.detail.split(':').next()?;
    let change = Change::ALL.into_iter().find(|(_, name)| *name == word).map(|(change, _)| change)?;
    Some((event.at_ns + event.duration_ns, change))
}

/// Sessions by what became of them. A session counts once in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sessions {
    /// Lost their connection at least once.
    pub lost: u64,
    /// Of all that came back, those whose last way back was to their own member.
    pub kept: u64,
    /// To another member.
    pub moved: u64,
    /// Ended by the cluster.
    pub expired: u64,
    /// Without a connection at the end.
    pub away: u64,
}

impl Sessions {
    /// What happened between two moments.
    pub(super) fn between(events: &[EventRow], from_ns: u64, to_ns: u64) -> Sessions {
        let mut last: BTreeMap<&str, (u64, Change)> = BTreeMap::new();
        let (mut lost, mut expired) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            let Some((at_ns, change)) = session_change(event) else { continue };
            if at_ns < from_ns || at_ns >= to_ns {
                continue;
            }
            match change {
                Change::Lost => drop(lost.insert(event.target.as_str())),
                Change::Expired => drop(expired.insert(event.target.as_str())),
                _ => {}
            }
            // Coming back is written down where the connection was lost: by its end it comes later than the loss.
            let known = last.entry(&event.target).or_insert((at_ns, change));
            if (at_ns, change) >= *known {
                *known = (at_ns, change);
            }
        }
        let ended = |wanted: Change| last.values().filter(|(_, change)| *change == wanted).count() as u64;
        Sessions {
            lost: lost.len() as u64,
            kept: ended(Change::Kept),
            moved: ended(Change::Moved),
            expired: expired.len() as u64,
            away: ended(Change::Lost) + ended(Change::Expired),
        }
    }
}
