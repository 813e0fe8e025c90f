//! What one connection's watches must tell it, worked out from the history: which event, in which order, and
//! before which reply. One-shot watches once, persistent ones every time, nothing else.
//!
//! A watch is left by the reply that showed the state it was left on; so whatever happens behind that zxid
//! fires it, and every event up to the zxid of the next reply must have arrived before that reply.

use std::collections::{BTreeSet, VecDeque};

use zoometry_wire::Zxid;
use zoometry_wire::records::EventType;

use super::model::{Change, Model};

/// An event as it arrived, or as it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: EventType,
    pub(super) path: String,
    pub(super) zxid: Zxid,
}

/// Which watch a request leaves, when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    Data,
    Child,
    Persistent,
    Recursive,
}

/// The watches of one connection, and the events that have arrived on it.
#[derive(Debug, Default, Clone)]
pub(super) struct Watching {
    pub(super) data: BTreeSet<String>,
    pub(super) exist: BTreeSet<String>,
    pub(super) child: BTreeSet<String>,
    pub(super) persistent: BTreeSet<String>,
    pub(super) recursive: BTreeSet<String>,
    arrived: VecDeque<Told>,
    upto: Zxid,
}

impl Watching {
    /// No watches, on a connection of a session that has seen `zxid`.
    pub(super) fn behind(zxid: Zxid) -> Self {
        Self { upto: zxid, ..Self::default() }
    }

    /// An event has arrived.
    pub(super) fn hear(&mut self, told: Told) -> Result<(), String> {
        if told.zxid <= self.upto {
            return Err(format!("{told:?} comes behind a reply that shows the state at {}", self.upto));
        }
        self.arrived.push_back(told);
        Ok(())
    }

    /// A reply has arrived that shows the state at `zxid`: every event up to there must have come before.
    pub(super) fn reach(&mut self, model: &Model, zxid: Zxid) -> Result<(), String> {
        for (at, changes) in model.changes(self.upto, zxid) {
            for change in changes {
                for expected in self.fire(*at, change) {
                    let arrived = self.arrived.pop_front();
                    if arrived.as_ref() != Some(&expected) {
                        return Err(format!(
                            "a reply shows the state at {zxid}, and {expected:?} was due before it; instead came {arrived:?}"
                        ));
                    }
                }
            }
        }
        self.upto = self.upto.max(zxid);
        match self.arrived.front() {
            Some(told) if told.zxid <= self.upto => Err(format!("{told:?} came, and nobody watched for it")),
            _ => Ok(()),
        }
    }

    /// The connection has ended: what has arrived must be the beginning of what was due.
    pub(super) fn end(&mut self, model: &Model) -> Result<(), String> {
        let Some(last) = self.arrived.back().map(|told| told.zxid) else { return Ok(()) };
        for (at, changes) in model.changes(self.upto, last) {
            for change in changes {
                for expected in self.fire(*at, change) {
                    match self.arrived.pop_front() {
                        Some(told) if told == expected => {}
                        None => return Ok(()),
                        told => return Err(format!("{expected:?} was due, and {told:?} came")),
                    }
                }
            }
        }
        self.upto = last;
        match self.arrived.front() {
            Some(told) => Err(format!("{told:?} came, and nobody watched for it")),
            None => Ok(()),
        }
    }

    /// A request that leaves a watch was answered with the state reached.
    pub(super) fn leave(&mut self, leaves: Leaves, path: &str, exists: bool) {
        match leaves {
            Leaves::Data if exists => self.data.insert(path.to_string()),
            Leaves::Data => self.exist.insert(path.to_string()),
            Leaves::Child => self.child.insert(path.to_string()),
            Leaves::Persistent => self.persistent.insert(path.to_string()),
            Leaves::Recursive => self.recursive.insert(path.to_string()),
        };
    }

    /// On a new connection the watches of the old one are set again, which was answered at `zxid`. Returns the
    /// events that catch up with what was missed since `since`, in their order.
    pub(super) fn set_again(old: &Watching, model: &Model, since: Zxid, zxid: Zxid) -> (Self, Vec<Told>) {
        let mut new = Self::default();
        let mut missed = Vec::new();
        let mut tell = |kind, path: &str| missed.push(Told { kind, path: path.to_string(), zxid: Zxid(-1) });
        for path in &old.data {
            match model.at(path, zxid) {
                None => tell(EventType::NodeDeleted, path),
                Some(znode) if znode.mzxid > since => tell(EventType::NodeDataChanged, path),
                Some(_) => {
                    new.data.insert(path.clone());
                }
            }
        }
        for path in &old.exist {
            match model.at(path, zxid) {
                Some(_) => tell(EventType::NodeCreated, path),
                None => {
                    new.exist.insert(path.clone());
                }
            }
        }
        for path in &old.child {
            match model.at(path, zxid) {
                None => tell(EventType::NodeDeleted, path),
                Some(znode) if znode.pzxid > since => tell(EventType::NodeChildrenChanged, path),
                Some(_) => {
                    new.child.insert(path.clone());
                }
            }
        }
        new.persistent = old.persistent.clone();
        new.recursive = old.recursive.clone();
        (new, missed)
    }

    /// Takes the watches that were set again beside those left on this connection already.
    pub(super) fn set_behind(&mut self, again: Self) {
        self.data.extend(again.data);
        self.exist.extend(again.exist);
        self.child.extend(again.child);
        self.persistent.extend(again.persistent);
        self.recursive.extend(again.recursive);
    }

    /// Whether nothing is watched.
    pub(super) fn is_empty(&self) -> bool {
        let lists = [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive];
        lists.iter().all(|list| list.is_empty())
    }

    /// What a change must tell.
    fn fire(&mut self, zxid: Zxid, change: &Change) -> Vec<Told> {
        let mut due = Vec::new();
        let mut tell = |kind, path: &str| due.push(Told { kind, path: path.to_string(), zxid });
        match change {
            Change::Data(path) => {
                if self.data_fires(path) {
                    tell(EventType::NodeDataChanged, path);
                }
            }
            Change::Created(path) => {
                if self.data_fires(path) {
                    tell(EventType::NodeCreated, path);
                }
                if self.child_fires(parent_of(path)) {
                    tell(EventType::NodeChildrenChanged, parent_of(path));
                }
            }
            Change::Deleted(path) => {
                let (by_data, by_child) = (self.data_fires(path), self.child_fires(path));
                if by_data || by_child {
                    tell(EventType::NodeDeleted, path);
                }
                if self.child_fires(parent_of(path)) {
                    tell(EventType::NodeChildrenChanged, parent_of(path));
                }
            }
        }
        due
    }

    fn data_fires(&mut self, path: &str) -> bool {
        let one_shot = self.data.remove(path) | self.exist.remove(path);
        let is_below = |above: &String| {
            path == above || path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        one_shot || self.persistent.contains(path) || self.recursive.iter().any(is_below)
    }

    fn child_fires(&mut self, path: &str) -> bool {
        self.child.remove(path) | self.persistent.contains(path)
    }
}

fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}
