//! Reads, and the watches they leave. Source: `FinalRequestProcessor.java`; reference §3.4, §3.8, §4.1, §4.4.
//!
//! A read changes nothing but the watch table, which has its own lock, so any number may run beside each
//! other. Reads do not look at paths beyond finding them: what is no path is simply not there.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use zoometry_wire::records::{ClientInfo, EventType, SYNC_CONNECTED, WatcherEvent, perms};
use zoometry_wire::request::{PathMode, PathWatch, SetWatches};
use zoometry_wire::{Acl, ErrorCode, Id, MultiResult, Record, Request, Response, Stat, Zxid, jute, path};

use super::tree::{Node, NodeId};
use super::watch::{Watch, WatchSelection};
use super::{Caller, Store, acl};

/// What a read is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'s> {
    /// getData. The data stay the store's until they are written out: to count their users up and down costs
    /// more than copying a short value does.
    Data(Option<&'s Bytes>, Stat),
    /// Anything else.
    Made(Response),
}

impl Answer<'_> {
    /// Writes the body of the reply, as [`Response::encode`] does.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Data(data, stat) => {
                jute::put_buffer(out, data.map(Bytes::as_ref));
                stat.encode(out);
            }
            Self::Made(response) => response.encode(out),
        }
    }
}

impl From<Answer<'_>> for Response {
    fn from(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Data(data, stat) => Self::Data(data.cloned(), stat),
            Answer::Made(response) => response,
        }
    }
}

/// How many paths [`Store::warm`] takes: more would push one another out of the caches.
const WARMED_MAX: usize = 32;

impl Store {
    /// Brings what is known of these paths into the processor's caches, of [`WARMED_MAX`] at most; says nothing.
    ///
    /// A look-up waits for memory three times in a row: index, node, data. One request behind the other waits
    /// for each; here all wait for their index together, then all for their nodes, then all for their data. So
    /// whoever has several requests at hand calls this for all of them first.
    pub fn warm<'a>(&self, paths: impl Iterator<Item = &'a str>) {
        let mut places = [None; WARMED_MAX];
        let mut count = 0;
        for (place, path) in places.iter_mut().zip(paths) {
            *place = self.tree.likely(path);
            count += 1;
        }
        let nodes = || places[..count].iter().flatten().map(|id| self.tree.node(*id));
        for node in nodes() {
            node.touch();
        }
        for data in nodes().filter_map(|node| node.data.as_ref()) {
            black_box((data.first().copied(), data.last().copied()));
        }
    }

    /// Answers a read and leaves its watch. `catch_up` receives what setWatches finds missed; these events
    /// are sent before the reply. Writes, ping, auth and sasl are not answered here (Unimplemented).
    pub fn read(
        &self,
        request: &Request,
        caller: &Caller<'_>,
        catch_up: &mut Vec<WatcherEvent>,
    ) -> Result<Answer<'_>, ErrorCode> {
        if let Request::GetData(ask) = request {
            let id = self.readable(&ask.path, caller.ids)?;
            self.leave(ask, Watch::Data, caller);
            return Ok(Answer::Data(self.tree.node(id).data.as_ref(), self.tree.stat(id)));
        }
        self.make(request, caller, catch_up).map(Answer::Made)
    }

    /// About how many bytes the reply to a read would have, if it were answered now: at least, where its making is
    /// what costs, as many as its making would look at.
    pub fn about_reply_bytes(&self, request: &Request, caller: &Caller<'_>) -> usize {
        /// A header and a Stat.
        const REPLY: usize = 100;
        /// An entry of an ACL, most often.
        const ACL_ENTRY: usize = 48;
        /// What a watch event has beside its path.
        const EVENT: usize = 36;
        let node = |path: &str| self.tree.find(path).map(|id| self.tree.node(id));
        REPLY
            + match request {
                Request::GetData(ask) => node(&ask.path).map_or(0, |node| node.data_len() as usize),
                Request::GetChildren(ask) | Request::GetChildren2(ask) => {
                    node(&ask.path).map_or(0, Node::children_bytes)
                }
                Request::MultiRead(requests) => {
                    let replies = requests.iter().map(|one| self.about_reply_bytes(one, caller));
                    replies.sum::<usize>().min(self.config.multi_read_bytes_max())
                }
                Request::GetEphemerals(_) => self.tree.ephemeral_bytes(caller.session),
                Request::GetAcl(path) => {
                    self.tree.find(path).map_or(0, |id| self.tree.acl(id).len() * ACL_ENTRY)
                }
                Request::WhoAmI => caller.ids.iter().map(|id| id.scheme.len() + id.id.len()).sum(),
                Request::SetWatches(lists) | Request::SetWatches2(lists) => {
                    let lists = [&lists.data, &lists.exist, &lists.child];
                    lists.into_iter().flatten().map(|path| EVENT + path.len()).sum()
                }
                _ => 0,
            }
    }

    /// A reply is known to be too long before it is made.
    fn check_reply(&self, bytes: usize) -> Result<(), ErrorCode> {
        if bytes <= self.config.reply_bytes_max { Ok(()) } else { Err(ErrorCode::MarshallingError) }
    }

    /// Everything but getData.
    fn make(
        &self,
        request: &Request,
        caller: &Caller<'_>,
        catch_up: &mut Vec<WatcherEvent>,
    ) -> Result<Response, ErrorCode> {
        match request {
            Request::Exists(ask) => self.exists(ask, caller),
            Request::GetChildren(ask) => {
                let id = self.readable(&ask.path, caller.ids)?;
                self.check_reply(self.tree.node(id).children_bytes())?;
                self.leave(ask, Watch::Child, caller);
                Ok(Response::Children(self.children(id)))
            }
            Request::GetChildren2(ask) => {
                let id = self.readable(&ask.path, caller.ids)?;
                self.check_reply(self.tree.node(id).children_bytes())?;
                self.leave(ask, Watch::Child, caller);
                Ok(Response::Children2(self.children(id), self.tree.stat(id)))
            }
            Request::GetAcl(path) => self.get_acl(path, caller.ids),
            Request::MultiRead(requests) => Ok(Response::Multi(self.read_many(requests, caller.ids))),
            Request::GetEphemerals(prefix) => {
                self.check_reply(self.tree.ephemeral_bytes(caller.session))?;
                Ok(Response::Ephemerals(self.ephemerals_under(prefix.as_deref(), caller)))
            }
            Request::GetAllChildrenNumber(path) => self.count_below(path, caller.ids).map(Response::Count),
            Request::WhoAmI => Ok(Response::WhoAmI(caller.ids.iter().map(client_info).collect())),
            Request::Sync(path) => Ok(Response::Path(path.clone())),
            Request::AddWatch(ask) => self.add_watch(ask, caller),
            Request::CheckWatches(ask) => {
                let selection = WatchSelection::from_code(ask.mode).ok_or(ErrorCode::MarshallingError)?;
                found(self.watches.contains(caller.watcher, &ask.path, selection))
            }
            Request::RemoveWatches(ask) => {
                let selection = WatchSelection::from_code(ask.mode).ok_or(ErrorCode::MarshallingError)?;
                found(self.watches.remove(caller.watcher, &ask.path, selection))
            }
            Request::SetWatches(lists) | Request::SetWatches2(lists) => {
                self.set_watches(lists, caller, catch_up);
                Ok(Response::Empty)
            }
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    /// The znode, if it is there and the caller may read it.
    fn readable(&self, path: &str, ids: &[Id]) -> Result<NodeId, ErrorCode> {
        let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        self.permit(id, perms::READ, ids)?;
        Ok(id)
    }

    /// Whether a write may go to the leader as far as the ACL that is applied here says: NoAuth if not. What cannot be
    /// judged by one znode (none is there, a multi) is left to the leader. Source:
    /// `ZooKeeperServer.authWriteRequest` (`enableEagerACLCheck`).
    pub fn eager_acl_check(&self, write: &Request, ids: &[Id]) -> Result<(), ErrorCode> {
        let (path, wanted) = match write {
            Request::Create(new) | Request::Create2(new) | Request::CreateContainer(new) => {
                (path::parent(&new.path), perms::CREATE)
            }
            Request::CreateTtl(new) => (path::parent(&new.path), perms::CREATE),
            Request::Delete(delete) => (path::parent(&delete.path), perms::DELETE),
            Request::SetData(set) => (set.path.as_str(), perms::WRITE),
            Request::SetAcl(set) => (set.path.as_str(), perms::ADMIN),
            _ => return Ok(()),
        };
        self.tree.find(path).map_or(Ok(()), |id| self.permit(id, wanted, ids))
    }

    pub(super) fn permit(&self, id: NodeId, wanted: i32, ids: &[Id]) -> Result<(), ErrorCode> {
        if self.config.skip_acl || self.tree.allows(id, wanted, ids) {
            return Ok(());
        }
        Err(ErrorCode::NoAuth)
    }

    fn leave(&self, ask: &PathWatch, watch: Watch, caller: &Caller<'_>) {
        if ask.watch {
            self.watches.add(caller.watcher, &ask.path, watch);
        }
    }

    fn children(&self, id: NodeId) -> Vec<String> {
        let children = &self.tree.node(id).children;
        children.iter().map(|child| self.tree.node(*child).name().to_string()).collect()
    }

    /// The watch is left on a missing znode too: it is what tells of its creation.
    fn exists(&self, ask: &PathWatch, caller: &Caller<'_>) -> Result<Response, ErrorCode> {
        if ask.path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let found = self.tree.find(&ask.path);
        if let Some(id) = found {
            self.permit(id, perms::READ, caller.ids)?;
        }
        self.leave(ask, Watch::Data, caller);
        found.map(|id| Response::Stat(self.tree.stat(id))).ok_or(ErrorCode::NoNode)
    }

    /// Who may read but not administer does not see the hashes.
    fn get_acl(&self, path: &str, ids: &[Id]) -> Result<Response, ErrorCode> {
        let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        self.permit(id, perms::READ | perms::ADMIN, ids)?;
        let mut list = self.tree.acl(id).to_vec();
        if self.permit(id, perms::ADMIN, ids).is_err() {
            list.iter_mut().for_each(mask);
        }
        Ok(Response::Acl(list, self.tree.stat(id)))
    }

    /// The entries of a multiRead, as many as a reply may hold. From the first that does not go in, all have the code
    /// that an entry of a multi has that was not tried: the client may ask for these again.
    fn read_many(&self, requests: &[Request], ids: &[Id]) -> Vec<MultiResult> {
        /// A header and a Stat, or an error.
        const ENTRY: usize = 80;
        let mut results = Vec::with_capacity(requests.len());
        let mut left = self.config.multi_read_bytes_max();
        for request in requests {
            let entry = self.readable_one(request, ids);
            let bytes = match (&entry, request) {
                (Ok(id), Request::GetChildren(_)) => self.tree.node(*id).children_bytes(),
                (Ok(id), _) => self.tree.node(*id).data_len() as usize,
                (Err(_), _) => 0,
            };
            if ENTRY + bytes > left {
                break;
            }
            left -= ENTRY + bytes;
            results.push(match (entry, request) {
                (Ok(id), Request::GetChildren(_)) => MultiResult::GetChildren(self.children(id)),
                (Ok(id), _) => MultiResult::GetData(self.tree.node(id).data.clone(), self.tree.stat(id)),
                (Err(code), _) => MultiResult::Error(code.code()),
            });
        }
        results.resize(requests.len(), MultiResult::Error(ErrorCode::RuntimeInconsistency.code()));
        results
    }

    /// The znode of an entry of a multiRead. It leaves no watch, and its error is its own.
    fn readable_one(&self, request: &Request, ids: &[Id]) -> Result<NodeId, ErrorCode> {
        match request {
            Request::GetData(ask) | Request::GetChildren(ask) => self.readable(&ask.path, ids),
            // Nothing else decodes as part of a multiRead.
            _ => Err(ErrorCode::MarshallingError),
        }
    }

    /// A plain string prefix, not a path; nothing, blanks or "/" is all.
    fn ephemerals_under(&self, prefix: Option<&str>, caller: &Caller<'_>) -> Vec<String> {
        let prefix = prefix.filter(|prefix| !matches!(prefix.trim(), "" | "/")).unwrap_or_default();
        let own = self.ephemerals_of(caller.session);
        own.filter(|path| path.starts_with(prefix)).map(str::to_string).collect()
    }

    /// Descendants at any depth.
    fn count_below(&self, path: &str, ids: &[Id]) -> Result<i32, ErrorCode> {
        let id = self.readable(path, ids)?;
        if id == super::tree::ROOT {
            // Asked for as "", the root counts itself: Apache counts the paths that start with "" + "/".
            return Ok((self.tree.len() - usize::from(!path.is_empty())) as i32);
        }
        Ok(self.tree.node(id).below() as i32)
    }

    fn add_watch(&self, ask: &PathMode, caller: &Caller<'_>) -> Result<Response, ErrorCode> {
        let watch = match ask.mode {
            0 => Watch::Persistent,
            1 => Watch::Recursive,
            _ => return Err(ErrorCode::MarshallingError),
        };
        self.watches.add(caller.watcher, &ask.path, watch);
        Ok(Response::Error(0))
    }

    /// After a reconnect: what has changed since the client's last zxid is told now, the rest is watched again.
    fn set_watches(&self, lists: &SetWatches, caller: &Caller<'_>, missed: &mut Vec<WatcherEvent>) {
        let since = lists.relative_zxid;
        let mut settle = |paths: &[String], watch, news: &dyn Fn(&str) -> Option<EventType>| {
            for path in paths {
                match news(path) {
                    Some(kind) => missed.push(event(kind, path)),
                    None => self.watches.add(caller.watcher, path, watch),
                }
            }
        };
        let changed = |path: &str, kind, zxid: fn(&Store, NodeId) -> Zxid| match self.tree.find(path) {
            None => Some(EventType::NodeDeleted),
            Some(id) => (zxid(self, id) > since).then_some(kind),
        };
        settle(&lists.data, Watch::Data, &|path| {
            changed(path, EventType::NodeDataChanged, |store, id| store.tree.node(id).stat.mzxid)
        });
        settle(&lists.exist, Watch::Data, &|path| self.tree.find(path).map(|_| EventType::NodeCreated));
        settle(&lists.child, Watch::Child, &|path| {
            changed(path, EventType::NodeChildrenChanged, |store, id| store.tree.node(id).stat.pzxid)
        });
        settle(&lists.persistent, Watch::Persistent, &|_| None);
        settle(&lists.recursive, Watch::Recursive, &|_| None);
    }
}

fn event(kind: EventType, path: &str) -> WatcherEvent {
    WatcherEvent { kind: kind as i32, state: SYNC_CONNECTED, path: path.to_string() }
}

fn found(any: bool) -> Result<Response, ErrorCode> {
    if any { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) }
}

fn client_info(id: &Id) -> ClientInfo {
    ClientInfo { scheme: id.scheme.clone(), user: acl::display_name(id).to_string() }
}

fn mask(entry: &mut Acl) {
    if entry.id.scheme == "digest"
        && let Some(colon) = entry.id.id.find(':')
    {
        entry.id.id.truncate(colon);
        entry.id.id.push_str(":x");
    }
}
