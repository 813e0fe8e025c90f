//! What the tree must be at every zxid, worked out again from the transactions, naively: each znode keeps all
//! its versions. The judges compare what clients and members show with this.
//!
//! A transaction that does not fit the tree before it is an objection: whoever prepared it was wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zoometry_wire::records::Stat;
use zoometry_wire::txn::{CreateTxn, SetDataTxn, TxnHeader};
use zoometry_wire::{SessionId, Txn, TxnRecord, Zxid};

/// A znode at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Znode {
    pub(super) data: Option<Bytes>,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) version: i32,
    /// Children created so far.
    pub(super) created: i32,
    pub(super) children: i32,
    pub(super) owner: SessionId,
}

/// What a transaction did to one znode, in the order of doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Created(String),
    Deleted(String),
    Data(String),
}

#[derive(Debug)]
struct Version {
    since: Zxid,
    znode: Option<Znode>,
}

/// The tree through all zxids.
#[derive(Debug)]
pub(super) struct Model {
    znodes: BTreeMap<String, Vec<Version>>,
    /// The sessions that are open at the end.
    sessions: BTreeSet<SessionId>,
    closed: BTreeMap<SessionId, Zxid>,
    owned: BTreeMap<SessionId, BTreeSet<String>>,
    changes: Vec<(Zxid, Vec<Change>)>,
}

fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

impl Model {
    pub(super) fn new() -> Self {
        let mut model = Self {
            znodes: BTreeMap::new(),
            sessions: BTreeSet::new(),
            closed: BTreeMap::new(),
            owned: BTreeMap::new(),
            changes: Vec::new(),
        };
        let root = Znode {
            data: None,
            czxid: Zxid(0),
            mzxid: Zxid(0),
            pzxid: Zxid(0),
            version: 0,
            created: 0,
            children: 1,
            owner: SessionId(0),
        };
        model.set("/", Zxid(0), Some(root));
        model
    }

    /// The znode as it was when everything up to `zxid` was applied.
    pub(super) fn at(&self, path: &str, zxid: Zxid) -> Option<&Znode> {
        let versions = self.znodes.get(path)?;
        let behind = versions.partition_point(|version| version.since <= zxid);
        versions[..behind].last()?.znode.as_ref()
    }

    pub(super) fn children_at(&self, path: &str, zxid: Zxid) -> Vec<&str> {
        let prefix = if path == "/" { "/".to_string() } else { format!("{path}/") };
        let below = self.znodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        below
            .filter(|(path, _)| {
                path.len() > prefix.len()
                    && !path[prefix.len()..].contains('/')
                    && self.at(path, zxid).is_some()
            })
            .map(|(path, _)| &path[prefix.len()..])
            .collect()
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(super) fn was_closed(&self, session: SessionId) -> bool {
        self.closed.contains_key(&session)
    }

    pub(super) fn sessions(&self) -> &BTreeSet<SessionId> {
        &self.sessions
    }

    /// Paths of the znodes there are now, the root not among them.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &Znode)> {
        let now = |versions: &Vec<Version>| versions.last().is_some_and(|last| last.znode.is_some());
        self.znodes
            .iter()
            .filter(move |(path, versions)| *path != "/" && now(versions))
            .map(|(path, versions)| (path.as_str(), versions.last().unwrap().znode.as_ref().unwrap()))
    }

    /// What happened behind `after`, up to `upto`, in order.
    pub(super) fn changes(&self, after: Zxid, upto: Zxid) -> &[(Zxid, Vec<Change>)] {
        let start = self.changes.partition_point(|(zxid, _)| *zxid <= after);
        let end = self.changes.partition_point(|(zxid, _)| *zxid <= upto);
        &self.changes[start..end.max(start)]
    }

    fn set(&mut self, path: &str, zxid: Zxid, znode: Option<Znode>) {
        if !self.znodes.contains_key(path) {
            self.znodes.insert(path.to_string(), Vec::new());
        }
        let versions = self.znodes.get_mut(path).expect("just made");
        match versions.last_mut() {
            Some(last) if last.since == zxid => last.znode = znode,
            _ => versions.push(Version { since: zxid, znode }),
        }
    }

    fn now(&self, path: &str) -> Option<&Znode> {
        self.znodes.get(path)?.last()?.znode.as_ref()
    }

    /// Adds the next transaction of the one history.
    pub(super) fn apply(&mut self, record: &TxnRecord) -> Result<(), String> {
        let mut changes = Vec::new();
        self.apply_txn(&record.header, &record.txn, &mut changes)
            .map_err(|why| format!("{why}, by {record:?}"))?;
        if !changes.is_empty() {
            self.changes.push((record.header.zxid, changes));
        }
        Ok(())
    }

    fn apply_txn(&mut self, header: &TxnHeader, txn: &Txn, changes: &mut Vec<Change>) -> Result<(), String> {
        match txn {
            Txn::Create(txn) => self.create(header, txn, changes),
            Txn::Delete(path) => self.delete(header.zxid, path, changes),
            Txn::SetData(txn) => self.set_data(header, txn, changes),
            Txn::Check(..) | Txn::Error(_) => Ok(()),
            Txn::Multi(entries) if entries.iter().any(|(_, txn)| matches!(txn, Txn::Error(_))) => Ok(()),
            Txn::Multi(entries) => {
                entries.iter().try_for_each(|(_, txn)| self.apply_txn(header, txn, changes))
            }
            Txn::CreateSession(_) => {
                if !self.sessions.insert(header.session) || self.was_closed(header.session) {
                    return Err(format!("session {} was opened twice", header.session));
                }
                Ok(())
            }
            Txn::CloseSession(listed) => {
                let own = self.owned.remove(&header.session).unwrap_or_default();
                let listed: BTreeSet<String> = listed.clone().unwrap_or_default().into_iter().collect();
                if own != listed {
                    return Err(format!("the session owns {own:?}, and its end lists {listed:?}"));
                }
                for path in &own {
                    self.delete(header.zxid, path, changes)?;
                }
                // Closing what is closed already is allowed: two reasons may meet.
                self.sessions.remove(&header.session);
                self.closed.entry(header.session).or_insert(header.zxid);
                Ok(())
            }
            other => Err(format!("nobody asked for {other:?}")),
        }
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        txn: &CreateTxn,
        changes: &mut Vec<Change>,
    ) -> Result<(), String> {
        let (path, zxid) = (&txn.path, header.zxid);
        if self.now(path).is_some() {
            return Err(format!("{path} is created and exists"));
        }
        let parent_path = parent_of(path);
        let Some(mut parent) = self.now(parent_path).cloned() else {
            return Err(format!("{path} is created without a parent"));
        };
        let owner = if txn.ephemeral { header.session } else { SessionId(0) };
        if txn.ephemeral && !self.is_open(header.session) {
            return Err(format!("{path} is an ephemeral of {}, which is not open", header.session));
        }
        parent.created += 1;
        parent.children += 1;
        parent.pzxid = zxid;
        if parent.created != txn.parent_cversion {
            return Err(format!("{parent_path} has seen {} children", parent.created));
        }
        self.set(parent_path, zxid, Some(parent));
        let znode = Znode {
            data: txn.data.clone(),
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            version: 0,
            created: 0,
            children: 0,
            owner,
        };
        self.set(path, zxid, Some(znode));
        if txn.ephemeral {
            self.owned.entry(owner).or_default().insert(path.clone());
        }
        changes.push(Change::Created(path.clone()));
        Ok(())
    }

    fn delete(&mut self, zxid: Zxid, path: &str, changes: &mut Vec<Change>) -> Result<(), String> {
        let Some(znode) = self.now(path) else { return Err(format!("{path} is deleted and does not exist")) };
        if znode.children > 0 {
            return Err(format!("{path} is deleted and has children"));
        }
        let owner = znode.owner;
        if let Some(own) = self.owned.get_mut(&owner) {
            own.remove(path);
        }
        self.set(path, zxid, None);
        let parent_path = parent_of(path);
        if let Some(mut parent) = self.now(parent_path).cloned() {
            parent.children -= 1;
            parent.pzxid = zxid;
            self.set(parent_path, zxid, Some(parent));
        }
        changes.push(Change::Deleted(path.to_string()));
        Ok(())
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        txn: &SetDataTxn,
        changes: &mut Vec<Change>,
    ) -> Result<(), String> {
        let Some(mut znode) = self.now(&txn.path).cloned() else {
            return Err(format!("{} is written and does not exist", txn.path));
        };
        if txn.version != znode.version + 1 {
            return Err(format!("{} has version {}", txn.path, znode.version));
        }
        znode.version = txn.version;
        znode.mzxid = header.zxid;
        znode.data = txn.data.clone();
        self.set(&txn.path, header.zxid, Some(znode));
        changes.push(Change::Data(txn.path.clone()));
        Ok(())
    }
}

impl Znode {
    /// Its status, but for the times.
    pub(super) fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            version: self.version,
            cversion: self.created * 2 - self.children,
            ephemeral_owner: self.owner,
            data_length: self.data.as_ref().map_or(0, |data| data.len() as i32),
            num_children: self.children,
            pzxid: self.pzxid,
            ..Stat::default()
        }
    }

    /// What is wrong with a status that a client was shown.
    pub(super) fn object(&self, stat: &Stat) -> Option<String> {
        let shown = Stat { ctime: 0, mtime: 0, aversion: 0, ..*stat };
        let own = self.stat();
        (shown != own).then(|| format!("it was {own:?}, and was shown as {shown:?}"))
    }
}
