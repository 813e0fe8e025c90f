//! What became of sessions, from the events that tell it.
//!
//! An event of kind `session` begins with one word: `lost` (its connection), `kept` (attached to the same member again), `moved` (to
//! another), `expired` (the cluster ended it), `new` (the session that followed one that expired).

use crate::results::EventRow;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Sessions that lost their connection, by what became of them; kept, moved, expired and away together are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sessions {
    /// Lost their connection at least once.
    pub lost: u64,
    /// Of these, back at their own member (after the last loss, of several).
    pub kept: u64,
    /// At another member.
    pub moved: u64,
    /// Ended by the cluster.
    pub expired: u64,
    /// Never seen again.
    pub away: u64,
}

impl Sessions {
    /// Those that lost their connection between two moments, and what came of it, be it later. A loss is thereby counted once, whoever
    /// looks at which times.
    pub(super) fn between(events: &[EventRow], from_ns: u64, to_ns: u64) -> Sessions {
        let mut by_session: BTreeMap<&str, Vec<(u64, Change)>> = BTreeMap::new();
        for event in events {
            if let Some(change) = session_change(event) {
                by_session.entry(&event.target).or_default().push(change);
            }
        }
        let mut sessions = Sessions::default();
        for mut changes in by_session.into_values() {
            // Coming back is written down where the connection was lost: by its end it comes later than the loss.
            changes.sort_unstable();
            match became(&changes, from_ns, to_ns) {
                None => continue,
                Some(Change::Kept) => sessions.kept += 1,
                Some(Change::Moved) => sessions.moved += 1,
                Some(Change::Expired | Change::New) => sessions.expired += 1,
                Some(Change::Lost) => sessions.away += 1,
            }
            sessions.lost += 1;
        }
        sessions
    }
}

/// What the losses of one session between two moments came to; `None` if there were none. Changes are in the order of time.
fn became(changes: &[(u64, Change)], from_ns: u64, to_ns: u64) -> Option<Change> {
    let mut became = None;
    // Whether what comes belongs to a loss of that time; and whether the connection is there.
    let (mut counts, mut connected) = (false, true);
    for (at_ns, change) in changes.iter().copied() {
        // One that expires while it is connected loses its connection by that.
        if change == Change::Lost || (change == Change::Expired && connected) {
            counts = (from_ns..to_ns).contains(&at_ns);
        }
        connected = !matches!(change, Change::Lost | Change::Expired);
        if counts && became != Some(Change::Expired) {
            became = Some(change);
        }
    }
    became
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::*;

    #[test]
    fn every_session_that_lost_its_connection_is_counted_once_by_what_came_of_it() {
        for (name, changes, expected) in [
            ("lost before and back within", vec![(5, Lost), (15, Moved)], None),
            ("lost within and back behind", vec![(15, Lost), (25, Kept)], Some(Kept)),
            ("lost twice within", vec![(12, Lost), (13, Kept), (14, Lost), (15, Moved)], Some(Moved)),
            ("lost again behind", vec![(12, Lost), (13, Kept), (24, Lost)], Some(Kept)),
            (
                "lost before and again within",
                vec![(5, Lost), (11, Kept), (14, Lost), (26, Moved)],
                Some(Moved),
            ),
            ("never back", vec![(19, Lost)], Some(Lost)),
            ("at the end of the time", vec![(20, Lost)], None),
            ("replaced", vec![(12, Lost), (18, Expired), (19, New)], Some(Expired)),
            (
                "replaced and lost again",
                vec![(12, Lost), (13, Expired), (14, New), (15, Lost)],
                Some(Expired),
            ),
            ("expired behind", vec![(12, Lost), (28, Expired), (29, New)], Some(Expired)),
            ("expired within, lost before", vec![(5, Lost), (12, Expired), (13, New)], None),
            ("expired while connected", vec![(12, Expired), (13, New)], Some(Expired)),
        ] {
            assert_eq!(became(&changes, 10, 20), expected, "{name}");
        }
    }
}
