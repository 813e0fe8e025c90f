//! From a request to the transaction that everybody applies: the checks, in their order, and the new values.
//! Source: `PrepRequestProcessor.java`; reference §3.3 to §3.7, §3.12.
//!
//! A request is judged by the committed tree plus what is proposed but not applied (the overlay), so that
//! requests can be prepared one behind the other without waiting: the transactions are the same as if each had
//! been applied before the next was prepared. A refused request becomes a transaction as well, of type
//! `error`: it takes its zxid, carries no digest and changes nothing.
//!
//! Not done here: the session tracker's verdict comes with the request ([`Asked::session_check`]), and a
//! session that closes must be refused by the tracker from then on.

use bytes::Bytes;
use zoometry_wire::records::perms;
use zoometry_wire::request::{
    CreateMode, CreateRequest, CreateTtlRequest, PathVersion, SetAclRequest, SetDataRequest,
};
use zoometry_wire::txn::{CreateContainerTxn, CreateTtlTxn, CreateTxn, SetAclTxn, SetDataTxn, TxnHeader};
use zoometry_wire::{
    Acl, ErrorCode, Id, OpCode, Request, SessionId, StatPersisted, Txn, TxnRecord, Zxid, path,
};

use crate::deliberate::{Bug, chosen};

use super::overlay::{Overlay, View};
use super::owner::{self, Owner};
use super::tree::listed_bytes;
use super::{Store, StoreConfig, acl, digest, is_expired, is_special, quota};

/// A write and who asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The session; 0 for the server's own requests.
    pub session: SessionId,
    /// The client's xid; 0 for session requests and the server's own.
    pub cxid: i32,
    /// The connection's identities.
    pub ids: &'a [Id],
    /// The request.
    pub request: &'a Request,
    /// What the session tracker says of the session: SessionExpired, SessionMoved, or, which concerns only
    /// ephemerals, EphemeralOnLocalSession.
    pub session_check: Result<(), ErrorCode>,
}

/// One request's surroundings.
#[derive(Clone, Copy)]
struct Ctx<'a> {
    store: &'a Store,
    asked: &'a Asked<'a>,
    zxid: Zxid,
    time_ms: i64,
}

impl Ctx<'_> {
    fn check_session(&self, ephemeral: bool) -> Result<(), ErrorCode> {
        match self.asked.session_check {
            Err(ErrorCode::EphemeralOnLocalSession) if !ephemeral => Ok(()),
            verdict => verdict,
        }
    }

    /// Whether the transaction can be received by every peer and read by every restart.
    fn fits(&self, txn: &Txn) -> Result<(), ErrorCode> {
        self.fits_bytes(txn.encoded_len())
    }

    fn fits_bytes(&self, bytes: usize) -> Result<(), ErrorCode> {
        if bytes <= self.store.config().txn_bytes_max - TxnRecord::REST_BYTES {
            Ok(())
        } else {
            Err(TOO_LONG)
        }
    }

    fn permit(&self, view: &View, wanted: i32) -> Result<(), ErrorCode> {
        if self.store.config().skip_acl || acl::allows(&view.acl, wanted, self.asked.ids) {
            return Ok(());
        }
        Err(ErrorCode::NoAuth)
    }
}

/// What a request is answered whose transaction would be too long, or with whose ephemeral the end of its session
/// would be. Every client knows the code.
pub const TOO_LONG: ErrorCode = ErrorCode::BadArguments;

/// The fields that all kinds of create have.
struct Create<'a> {
    op: OpCode,
    path: &'a str,
    data: &'a Option<Bytes>,
    acl: &'a [Acl],
    flags: i32,
    ttl_ms: Option<i64>,
}

impl<'a> Create<'a> {
    fn of(op: OpCode, request: &'a CreateRequest) -> Self {
        let CreateRequest { path, data, acl, flags } = request;
        Self { op, path, data, acl, flags: *flags, ttl_ms: None }
    }

    fn of_ttl(request: &'a CreateTtlRequest) -> Self {
        let CreateTtlRequest { path, data, acl, flags, ttl_ms } = request;
        Self { op: OpCode::CreateTtl, path, data, acl, flags: *flags, ttl_ms: Some(*ttl_ms) }
    }
}

/// Turns requests into transactions, one after the other.
#[derive(Debug)]
pub struct Prep {
    extended_types: bool,
    overlay: Overlay,
    oversized: u64,
}

impl Prep {
    /// No outstanding changes. `config` is the store's.
    pub fn new(config: StoreConfig) -> Self {
        let overlay = Overlay::new(config.extended_types);
        Self { extended_types: config.extended_types, overlay, oversized: 0 }
    }

    /// The transaction for a request: type `error` if it is refused. `zxid` is one above the last, whatever
    /// became of it; `time_ms` is the leader's wall clock.
    pub fn prepare(&mut self, store: &Store, asked: &Asked<'_>, zxid: Zxid, time_ms: i64) -> TxnRecord {
        let ctx = Ctx { store, asked, zxid, time_ms };
        let outcome = match asked.request {
            Request::Multi(requests) => self.multi(ctx, requests),
            Request::Check(_) => Err(ErrorCode::Unimplemented),
            request => self.one(ctx, request),
        };
        let (kind, txn) = match outcome {
            Ok(txn) => (asked.request.op(), txn),
            Err(code) => (OpCode::Error, Txn::Error(code.code())),
        };
        self.record(ctx, kind, txn)
    }

    /// The store has applied everything up to `zxid`: forget the outstanding changes up to there.
    pub fn applied(&mut self, zxid: Zxid) {
        self.overlay.applied(zxid);
    }

    /// Nothing that was prepared will be applied any more: forget all outstanding changes.
    pub fn reset(&mut self) {
        self.overlay.clear();
    }

    /// Changes that wait for their transaction to be applied.
    pub fn outstanding(&self) -> usize {
        self.overlay.len()
    }

    /// How many requests were refused because their transaction would have been too long, or that of their
    /// session's end.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// What has to go before the session can be closed in one transaction, in lists for
    /// [`delete_all`](Self::delete_all). Nothing, unless it owns more than [`prepare`](Self::prepare) allows:
    /// through an Apache leader, or with other limits.
    pub fn ahead_of_close(&self, store: &Store, session: SessionId) -> Vec<Vec<String>> {
        let most = close_paths_bytes_max(store);
        let mut bytes = self.overlay.ephemeral_bytes(store, session);
        let mut lists: Vec<Vec<String>> = Vec::new();
        if bytes <= most {
            return lists;
        }
        let mut list_bytes = 0;
        for path in self.overlay.ephemerals_of(store, session) {
            if bytes <= most {
                break;
            }
            bytes -= listed_bytes(path.len());
            let entry_bytes = Txn::MULTI_ENTRY_HEAD_BYTES + listed_bytes(path.len());
            if lists.is_empty() || list_bytes + entry_bytes > most / 2 {
                lists.push(Vec::new());
                list_bytes = 0;
            }
            list_bytes += entry_bytes;
            lists.last_mut().expect("just made").push(path);
        }
        lists
    }

    /// The server's own transaction, session 0, that deletes znodes of a session that is ending.
    pub fn delete_all(&mut self, store: &Store, paths: Vec<String>, zxid: Zxid, time_ms: i64) -> TxnRecord {
        let (session, request) = (SessionId(0), &Request::CloseSession);
        let asked = Asked { session, cxid: 0, ids: &[], request, session_check: Ok(()) };
        let ctx = Ctx { store, asked: &asked, zxid, time_ms };
        for path in &paths {
            self.remove(ctx, path);
        }
        let deletes = paths.into_iter().map(|path| (OpCode::Delete, Txn::Delete(path)));
        self.record(ctx, OpCode::Multi, Txn::Multi(deletes.collect()))
    }

    fn record(&self, ctx: Ctx<'_>, kind: OpCode, txn: Txn) -> TxnRecord {
        let Ctx { store, asked: &Asked { session, cxid, .. }, zxid, time_ms } = ctx;
        let digest = (kind != OpCode::Error && store.config().digest)
            .then(|| digest::of_tree(self.overlay.digest(store)));
        let header = TxnHeader { session, cxid, zxid, time_ms, kind: kind.code() };
        TxnRecord { header, txn, digest }
    }

    /// A single write; inside a multi also check.
    fn one(&mut self, ctx: Ctx<'_>, request: &Request) -> Result<Txn, ErrorCode> {
        match request {
            Request::Create(create) => self.create(ctx, Create::of(OpCode::Create, create)),
            Request::Create2(create) => self.create(ctx, Create::of(OpCode::Create2, create)),
            Request::CreateContainer(create) => self.create(ctx, Create::of(OpCode::CreateContainer, create)),
            Request::CreateTtl(create) => self.create(ctx, Create::of_ttl(create)),
            Request::Delete(delete) => self.delete(ctx, delete),
            Request::DeleteContainer(path) => self.delete_container(ctx, path),
            Request::SetData(set) => self.set_data(ctx, set),
            Request::SetAcl(set) => self.set_acl(ctx, set),
            Request::Check(check) => self.check(ctx, check),
            Request::CreateSession(timeout_ms) => Ok(Txn::CreateSession(*timeout_ms)),
            Request::CloseSession => Ok(self.close_session(ctx)),
            Request::Reconfig(_) => refuse_reconfig(ctx),
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    /// All or none: at the first refusal the changes so far are taken back. The sub-transactions before it
    /// stay in the transaction, where the error behind them voids them; what stands behind it is not tried.
    fn multi(&mut self, ctx: Ctx<'_>, requests: &[Request]) -> Result<Txn, ErrorCode> {
        if requests.iter().any(|request| !is_multi_entry(request)) {
            return Err(ErrorCode::MarshallingError);
        }
        let savepoint = self.overlay.savepoint(ctx.store);
        let mut entries: Vec<(OpCode, Txn)> = Vec::with_capacity(requests.len());
        let mut bytes = 4;
        for (at, request) in requests.iter().enumerate() {
            let op = multi_op(request);
            let outcome = match request {
                Request::Create(new) | Request::Create2(new) => self.create(ctx, Create::of(op, new)),
                request => self.one(ctx, request),
            };
            if let Ok(txn) = &outcome {
                bytes += Txn::MULTI_ENTRY_HEAD_BYTES + txn.encoded_len();
            }
            // With what would stand in the rest if the next one were refused.
            if let Err(code) = ctx.fits_bytes(bytes + (requests.len() - at) * VOID_ENTRY_BYTES) {
                self.overlay.roll_back(savepoint);
                self.oversized += 1;
                return Err(code);
            }
            match outcome {
                Ok(txn) => entries.push((op, txn)),
                Err(code) => {
                    self.overlay.roll_back(savepoint);
                    entries.push((OpCode::Error, Txn::Error(code.code())));
                    let rest = Txn::Error(ErrorCode::RuntimeInconsistency.code());
                    entries.resize(requests.len(), (OpCode::Error, rest));
                    return Ok(Txn::Multi(entries));
                }
            }
        }
        self.overlay.commit(savepoint);
        Ok(Txn::Multi(entries))
    }

    fn create(&mut self, ctx: Ctx<'_>, new: Create<'_>) -> Result<Txn, ErrorCode> {
        let mode = self.check_mode(&new)?;
        ctx.check_session(mode.is_ephemeral())?;
        let slash = new.path.rfind('/').filter(|_| !new.path.contains('\0'));
        let parent_path = &new.path[..slash.ok_or(ErrorCode::BadArguments)?];
        let acl = acl::fix_up(new.acl, ctx.asked.ids)?;
        let mut parent = self.overlay.get(ctx.store, parent_path).ok_or(ErrorCode::NoNode)?;
        ctx.permit(&parent, perms::CREATE)?;
        let path = if mode.is_sequential() {
            format!("{}{:010}", new.path, parent.stat.cversion)
        } else {
            new.path.to_string()
        };
        path::validate(&path).map_err(|_| ErrorCode::BadArguments)?;
        if self.overlay.get(ctx.store, &path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if let Owner::Session(_) = Owner::of(&parent.stat, self.extended_types) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        quota::check_place(&path)?;
        let bytes = new.data.as_ref().map_or(0, Bytes::len);
        ctx.store.check_quota(&path, 1, bytes as i64)?;

        let parent_cversion = parent.stat.cversion.wrapping_add(1);
        let (txn, ephemeral_owner) = create_txn(ctx, &new, mode, path.clone(), acl, parent_cversion)?;
        self.check_size(ctx, &txn)?;
        if mode.is_ephemeral() && ephemeral_owner == ctx.asked.session {
            self.check_close(ctx, &path)?;
        }
        parent.children += 1;
        parent.stat.cversion = parent_cversion;
        parent.stat.pzxid = parent.stat.pzxid.max(ctx.zxid);
        self.overlay.set(ctx.store, ctx.zxid, parent_path, parent);
        let stat = StatPersisted {
            czxid: ctx.zxid,
            mzxid: ctx.zxid,
            pzxid: ctx.zxid,
            ctime: ctx.time_ms,
            mtime: ctx.time_ms,
            ephemeral_owner,
            ..StatPersisted::default()
        };
        let acl = acl_of(&txn).into();
        let counts = ctx.store.config().digest && digest::covers(&path);
        let path_crc = if counts { digest::of_path(&path) } else { 0 };
        let prefix = if counts { digest::prefix(path_crc, new.data) } else { 0 };
        let data_len = bytes as i64;
        let view = View { stat, children: 0, acl, data_len, path_crc, prefix, found_digest: 0 };
        self.overlay.add(ctx.store, ctx.zxid, &path, view);
        Ok(txn)
    }

    /// The mode, if the operation may be asked for it. A createTTL that is none never becomes a transaction.
    fn check_mode(&self, new: &Create<'_>) -> Result<CreateMode, ErrorCode> {
        let mode = CreateMode::from_flags(new.flags).ok_or(ErrorCode::BadArguments)?;
        if let Some(ttl_ms) = new.ttl_ms {
            owner::ttl_word(ttl_ms)?;
            if !mode.is_ttl() {
                return Err(ErrorCode::BadArguments);
            }
        }
        if mode.is_ttl() && !self.extended_types {
            return Err(ErrorCode::Unimplemented);
        }
        if mode.is_ttl() && new.ttl_ms.is_none() {
            return Err(ErrorCode::BadArguments);
        }
        Ok(mode)
    }

    fn delete(&mut self, ctx: Ctx<'_>, delete: &PathVersion) -> Result<Txn, ErrorCode> {
        ctx.check_session(false)?;
        let path = &delete.path;
        let parent_path = deletable(path)?;
        let parent = self.overlay.get(ctx.store, parent_path).ok_or(ErrorCode::NoNode)?;
        ctx.permit(&parent, perms::DELETE)?;
        let node = self.overlay.get(ctx.store, path).ok_or(ErrorCode::NoNode)?;
        next_version(node.stat.version, delete.version)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        let txn = Txn::Delete(path.clone());
        self.check_size(ctx, &txn)?;
        self.remove(ctx, path);
        Ok(txn)
    }

    /// The server's own request, session 0. Since it was found due the znode may have been renewed, or be
    /// another one: then BadVersion. (Apache looks only at children and ephemerals here.)
    fn delete_container(&mut self, ctx: Ctx<'_>, path: &str) -> Result<Txn, ErrorCode> {
        if ctx.asked.session != SessionId(0) {
            return Err(ErrorCode::Unimplemented);
        }
        deletable(path)?;
        let node = self.overlay.get(ctx.store, path).ok_or(ErrorCode::NoNode)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        match Owner::of(&node.stat, self.extended_types) {
            Owner::Container => {}
            owner if is_expired(owner, node.stat.mtime, ctx.time_ms) => {}
            _ => return Err(ErrorCode::BadVersion),
        }
        let txn = Txn::Delete(path.to_string());
        self.check_size(ctx, &txn)?;
        self.remove(ctx, path);
        Ok(txn)
    }

    /// The znode will be gone, and its parent have one child less.
    fn remove(&mut self, ctx: Ctx<'_>, path: &str) {
        let parent_path = path::parent(path);
        if let Some(mut parent) = self.overlay.get(ctx.store, parent_path) {
            parent.children -= 1;
            parent.stat.pzxid = parent.stat.pzxid.max(ctx.zxid);
            self.overlay.set(ctx.store, ctx.zxid, parent_path, parent);
        }
        self.overlay.remove(ctx.store, ctx.zxid, path);
    }

    fn set_data(&mut self, ctx: Ctx<'_>, set: &SetDataRequest) -> Result<Txn, ErrorCode> {
        ctx.check_session(false)?;
        let SetDataRequest { path, data, version } = set;
        path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
        let mut node = self.overlay.get(ctx.store, path).ok_or(ErrorCode::NoNode)?;
        ctx.permit(&node, perms::WRITE)?;
        quota::check_overwrite(path, data.as_deref())?;
        let data_len = data.as_ref().map_or(0, Bytes::len) as i64;
        ctx.store.check_quota(path, 0, data_len - node.data_len)?;
        let version = next_version(node.stat.version, *version)?;
        let txn = Txn::SetData(SetDataTxn { path: path.clone(), data: data.clone(), version });
        self.check_size(ctx, &txn)?;
        node.stat.version = version;
        node.stat.mtime = ctx.time_ms;
        node.stat.mzxid = ctx.zxid;
        node.data_len = data_len;
        if ctx.store.config().digest && digest::covers(path) {
            node.prefix = digest::prefix(node.path_crc, data);
        }
        self.overlay.set(ctx.store, ctx.zxid, path, node);
        Ok(txn)
    }

    fn set_acl(&mut self, ctx: Ctx<'_>, set: &SetAclRequest) -> Result<Txn, ErrorCode> {
        ctx.check_session(false)?;
        let path = &set.path;
        path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
        let acl = acl::fix_up(&set.acl, ctx.asked.ids)?;
        let mut node = self.overlay.get(ctx.store, path).ok_or(ErrorCode::NoNode)?;
        ctx.permit(&node, perms::ADMIN)?;
        let version = next_version(node.stat.aversion, set.version)?;
        node.stat.aversion = version;
        // Apache leaves the old list in its overlay, so that the next request may still be judged by it.
        node.acl = acl.as_slice().into();
        let txn = Txn::SetAcl(SetAclTxn { path: path.clone(), acl, version });
        self.check_size(ctx, &txn)?;
        self.overlay.set(ctx.store, ctx.zxid, path, node);
        Ok(txn)
    }

    /// Refuses what no peer and no restart would read.
    fn check_size(&mut self, ctx: Ctx<'_>, txn: &Txn) -> Result<(), ErrorCode> {
        let verdict = ctx.fits(txn);
        self.oversized += u64::from(verdict.is_err());
        verdict
    }

    /// Refuses the ephemeral with which the session's end would be too long (ZOOKEEPER-4306).
    fn check_close(&mut self, ctx: Ctx<'_>, path: &str) -> Result<(), ErrorCode> {
        let now = self.overlay.ephemeral_bytes(ctx.store, ctx.asked.session);
        if now + listed_bytes(path.len()) <= close_paths_bytes_max(ctx.store) {
            return Ok(());
        }
        self.oversized += 1;
        Err(TOO_LONG)
    }

    fn check(&mut self, ctx: Ctx<'_>, check: &PathVersion) -> Result<Txn, ErrorCode> {
        ctx.check_session(false)?;
        let path = &check.path;
        path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
        let node = self.overlay.get(ctx.store, path).ok_or(ErrorCode::NoNode)?;
        ctx.permit(&node, perms::READ)?;
        let version = next_version(node.stat.version, check.version)?;
        Ok(Txn::Check(path.clone(), version))
    }

    /// Never refused: expiry asks for it as well as the client. Lists the session's ephemerals as they will
    /// be then, in the order of their paths.
    fn close_session(&mut self, ctx: Ctx<'_>) -> Txn {
        let mut paths: Vec<String> =
            self.overlay.ephemerals_of(ctx.store, ctx.asked.session).into_iter().collect();
        if chosen(Bug::ForgetProposedEphemerals) {
            paths = ctx.store.ephemerals_of(ctx.asked.session).map(str::to_string).collect();
        }
        for path in &paths {
            self.remove(ctx, path);
        }
        Txn::CloseSession(Some(paths))
    }
}

/// An entry of a multi that was refused, or stands behind one that was.
const VOID_ENTRY_BYTES: usize = Txn::MULTI_ENTRY_HEAD_BYTES + 4;

/// What the paths of a session's ephemerals may take, so that its end is one transaction of allowed length.
fn close_paths_bytes_max(store: &Store) -> usize {
    store.config().txn_bytes_max - TxnRecord::REST_BYTES - 4
}

/// The operation, not the flags, decides what becomes of it; the flags only make it sequential or, for the
/// plain kinds, ephemeral. Returns the owner word too.
fn create_txn(
    ctx: Ctx<'_>,
    new: &Create<'_>,
    mode: CreateMode,
    path: String,
    acl: Vec<Acl>,
    parent_cversion: i32,
) -> Result<(Txn, SessionId), ErrorCode> {
    let data = new.data.clone();
    Ok(match (new.op, new.ttl_ms) {
        (_, Some(ttl_ms)) => {
            let txn = CreateTtlTxn { path, data, acl, parent_cversion, ttl_ms };
            (Txn::CreateTtl(txn), owner::ttl_word(ttl_ms)?)
        }
        (OpCode::CreateContainer, None) => {
            let txn = CreateContainerTxn { path, data, acl, parent_cversion };
            (Txn::CreateContainer(txn), owner::CONTAINER)
        }
        (_, None) => {
            let ephemeral = mode.is_ephemeral();
            let txn = CreateTxn { path, data, acl, ephemeral, parent_cversion };
            (Txn::Create(txn), if ephemeral { ctx.asked.session } else { SessionId(0) })
        }
    })
}

fn acl_of(txn: &Txn) -> &[Acl] {
    match txn {
        Txn::Create(txn) => &txn.acl,
        Txn::CreateTtl(txn) => &txn.acl,
        Txn::CreateContainer(txn) => &txn.acl,
        _ => &[],
    }
}

/// What may stand in a multi. Flags that mean nothing, or a TTL mode without a TTL, spoil the whole of it
/// (−5), not one entry.
fn is_multi_entry(request: &Request) -> bool {
    match request {
        Request::Create(new) | Request::Create2(new) | Request::CreateContainer(new) => {
            CreateMode::from_flags(new.flags).is_some_and(|mode| !mode.is_ttl())
        }
        Request::CreateTtl(new) => CreateMode::from_flags(new.flags).is_some(),
        Request::Delete(_) | Request::SetData(_) | Request::Check(_) => true,
        _ => false,
    }
}

/// The type of an entry's transaction. In a multi, and only there, the container flag makes a container
/// whichever create carries it. Source: `Op.Create.getOpcode`.
fn multi_op(request: &Request) -> OpCode {
    match request {
        Request::Create(new) | Request::Create2(new) if new.flags == CreateMode::Container as i32 => {
            OpCode::CreateContainer
        }
        request => request.op(),
    }
}

/// The parent of a path that may be deleted. Deletes do not look at the path closer than this.
fn deletable(path: &str) -> Result<&str, ErrorCode> {
    if is_special(path) || path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    quota::check_place(path)?;
    path.rfind('/').map(|slash| &path[..slash]).ok_or(ErrorCode::BadArguments)
}

/// The version behind `now`, if the caller expects `now` or anything (−1). Behind the largest number comes the
/// smallest. Behind −2 comes 0: nobody could expect −1 (ZOOKEEPER-4743; Apache does so from 3.10 on, and its
/// older followers copy the number from the transaction).
fn next_version(now: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != now {
        return Err(ErrorCode::BadVersion);
    }
    Ok(match now.wrapping_add(1) {
        -1 => 0,
        next => next,
    })
}

/// A member on its own has nothing to reconfigure.
fn refuse_reconfig(ctx: Ctx<'_>) -> Result<Txn, ErrorCode> {
    if !ctx.store.config().reconfig {
        return Err(ErrorCode::ReconfigDisabled);
    }
    ctx.check_session(false)?;
    Err(ErrorCode::Unimplemented)
}
