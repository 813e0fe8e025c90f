//! Tests of the store as a whole, request by request.
//!
//! [`World`] is a member on its own without its disk: a request is prepared, applied and answered at once.

mod limits;
mod properties;
mod reads;
mod refusals;
mod snapshots;
mod watches;
mod writes;

use bytes::{Bytes, BytesMut};
use zoometry_wire::records::perms;
use zoometry_wire::request::{
    CreateRequest, CreateTtlRequest, PathMode, PathVersion, PathWatch, SetAclRequest, SetDataRequest,
};
use zoometry_wire::{Acl, ErrorCode, Id, Request, Response, SessionId, Stat, StatPersisted, TxnRecord, Zxid};

use super::watch::{WatchEvent, WatchSink, WatcherId};
use super::{Answer, Asked, Caller, Prep, Store, StoreConfig};

pub(super) const ME: SessionId = SessionId(0x0100_0000_0000_0005);
pub(super) const OTHER: SessionId = SessionId(0x0100_0000_0000_0006);

/// What watchers were told: kind, path, zxid, who.
#[derive(Debug, Default)]
pub(super) struct Told(pub(super) Vec<(i32, String, i64, Vec<u64>)>);

impl WatchSink for Told {
    fn fire(&mut self, event: &WatchEvent<'_>, watchers: &[WatcherId]) {
        let watchers = watchers.iter().map(|watcher| watcher.0).collect();
        self.0.push((event.kind as i32, event.path.to_string(), event.zxid.0, watchers));
    }
}

pub(super) struct World {
    pub(super) store: Store,
    pub(super) prep: Prep,
    pub(super) zxid: Zxid,
    pub(super) time_ms: i64,
    pub(super) ids: Vec<Id>,
    pub(super) session: SessionId,
    pub(super) session_check: Result<(), ErrorCode>,
    pub(super) told: Told,
}

impl Default for World {
    fn default() -> Self {
        Self::new(StoreConfig { extended_types: true, enforce_quota: true, ..StoreConfig::default() })
    }
}

impl World {
    pub(super) fn new(config: StoreConfig) -> Self {
        Self {
            store: Store::new(config.clone()),
            prep: Prep::new(config),
            zxid: Zxid(0x1_0000_0000),
            time_ms: 1_700_000_000_000,
            ids: vec![id("ip", "127.0.0.1")],
            session: ME,
            session_check: Ok(()),
            told: Told::default(),
        }
    }

    /// The transaction only; it stays outstanding.
    pub(super) fn prepare(&mut self, request: &Request) -> TxnRecord {
        self.zxid = self.zxid.next();
        let asked = Asked {
            session: self.session,
            cxid: 1,
            ids: &self.ids,
            request,
            session_check: self.session_check,
        };
        self.prep.prepare(&self.store, &asked, self.zxid, self.time_ms)
    }

    pub(super) fn apply(&mut self, record: &TxnRecord) -> Result<Response, ErrorCode> {
        let answer = self.store.apply(record, &mut self.told);
        self.prep.applied(record.header.zxid);
        self.store.tree.assert_sound();
        if let Some(digest) = record.digest {
            assert_eq!(digest.tree as u64, self.store.digest(), "digest of {record:?}");
        }
        answer
    }

    pub(super) fn write(&mut self, request: Request) -> Result<Response, ErrorCode> {
        let record = self.prepare(&request);
        assert!(self.store.last_zxid() < record.header.zxid);
        let answer = self.apply(&record);
        assert_eq!(self.store.last_zxid(), self.zxid, "a refused write takes its zxid too");
        answer
    }

    /// A write that must succeed.
    pub(super) fn ok(&mut self, request: Request) -> Response {
        let text = format!("{request:?}");
        self.write(request).unwrap_or_else(|code| panic!("{text}: {code}"))
    }

    pub(super) fn read(&self, request: &Request) -> Result<Response, ErrorCode> {
        let caller = Caller { session: self.session, watcher: WatcherId(1), ids: &self.ids };
        let mut missed = Vec::new();
        let answer = self.store.read(request, &caller, &mut missed);
        assert_eq!(missed, []);
        answer.map(|answer| {
            let (mut as_it_stands, mut made) = (BytesMut::new(), BytesMut::new());
            answer.encode(&mut as_it_stands);
            let response = Response::from(answer);
            response.encode(&mut made);
            assert_eq!(as_it_stands, made, "{response:?}");
            response
        })
    }

    pub(super) fn stat(&self, path: &str) -> Stat {
        match self.read(&exists(path, false)) {
            Ok(Response::Stat(stat)) => stat,
            other => panic!("{path}: {other:?}"),
        }
    }

    pub(super) fn persisted(&self, path: &str) -> StatPersisted {
        self.store.tree.node(self.store.tree.find(path).expect(path)).stat
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.store.tree.find(path).is_some()
    }

    pub(super) fn data(&self, path: &str) -> Option<Bytes> {
        self.store.tree.node(self.store.tree.find(path).expect(path)).data.clone()
    }
}

pub(super) fn id(scheme: &str, id: &str) -> Id {
    Id { scheme: scheme.into(), id: id.into() }
}

/// One entry for `world:anyone`.
pub(super) fn world(perms: i32) -> Vec<Acl> {
    vec![Acl { perms, id: id("world", "anyone") }]
}

/// All permissions for a digest identity.
pub(super) fn digest_acl(user: &str) -> Vec<Acl> {
    vec![Acl { perms: perms::ALL, id: id("digest", user) }]
}

pub(super) fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn create_request(path: &str, flags: i32) -> CreateRequest {
    CreateRequest { path: path.into(), data: bytes("hi"), acl: Acl::open(), flags }
}

pub(super) fn create(path: &str) -> Request {
    Request::Create(create_request(path, 0))
}

pub(super) fn create_flags(path: &str, flags: i32) -> Request {
    Request::Create(create_request(path, flags))
}

pub(super) fn create2(path: &str) -> Request {
    Request::Create2(create_request(path, 0))
}

pub(super) fn container(path: &str) -> Request {
    Request::CreateContainer(create_request(path, 4))
}

pub(super) fn ephemeral(path: &str) -> Request {
    create_flags(path, 1)
}

pub(super) fn create_acl(path: &str, acl: Vec<Acl>) -> Request {
    Request::Create(CreateRequest { acl, ..create_request(path, 0) })
}

pub(super) fn create_data(path: &str, data: Option<Bytes>) -> Request {
    Request::Create(CreateRequest { data, ..create_request(path, 0) })
}

pub(super) fn ttl(path: &str, flags: i32, ttl_ms: i64) -> Request {
    let (path, data, acl) = (path.into(), bytes("hi"), Acl::open());
    Request::CreateTtl(CreateTtlRequest { path, data, acl, flags, ttl_ms })
}

pub(super) fn delete(path: &str, version: i32) -> Request {
    Request::Delete(PathVersion { path: path.into(), version })
}

pub(super) fn check(path: &str, version: i32) -> Request {
    Request::Check(PathVersion { path: path.into(), version })
}

pub(super) fn set_data(path: &str, data: &str, version: i32) -> Request {
    Request::SetData(SetDataRequest { path: path.into(), data: bytes(data), version })
}

pub(super) fn set_acl(path: &str, acl: Vec<Acl>, version: i32) -> Request {
    Request::SetAcl(SetAclRequest { path: path.into(), acl, version })
}

fn path_watch(path: &str, watch: bool) -> PathWatch {
    PathWatch { path: path.into(), watch }
}

pub(super) fn exists(path: &str, watch: bool) -> Request {
    Request::Exists(path_watch(path, watch))
}

pub(super) fn get_data(path: &str, watch: bool) -> Request {
    Request::GetData(path_watch(path, watch))
}

pub(super) fn get_children(path: &str, watch: bool) -> Request {
    Request::GetChildren(path_watch(path, watch))
}

pub(super) fn mode(path: &str, mode: i32) -> PathMode {
    PathMode { path: path.into(), mode }
}

/// Path, data, ACL, stored status, names of the children.
type NodeContents = (String, Option<Bytes>, Vec<Acl>, StatPersisted, Vec<String>);

/// Everything that can be told of a store from outside, in an order of its own.
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    nodes: Vec<NodeContents>,
    sessions: Vec<(SessionId, i32)>,
    ephemerals: Vec<(SessionId, Vec<String>)>,
    digest: u64,
}

pub(super) fn contents(store: &Store) -> Contents {
    store.tree.assert_sound();
    let mut nodes = Vec::new();
    store.tree.for_each_below(super::tree::ROOT, |node| {
        let acl = store.tree.acls.list(node.acl).to_vec();
        let mut children: Vec<String> =
            node.children.iter().map(|child| store.tree.node(*child).name().to_string()).collect();
        children.sort();
        nodes.push((node.path.to_string(), node.data.clone(), acl, node.stat, children));
    });
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    let owned =
        |(session, paths): (SessionId, Vec<&str>)| (session, paths.into_iter().map(str::to_string).collect());
    Contents {
        nodes,
        sessions: store.sessions().collect(),
        ephemerals: store.ephemerals().map(owned).collect(),
        digest: store.digest(),
    }
}
