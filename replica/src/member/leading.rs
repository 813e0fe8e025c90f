//! A member that prepares requests: its own clients' and its learners'.

use zoometry_wire::peer::{ForwardedRequest, PacketKind, QuorumPacket, read_touches};
use zoometry_wire::txn::TxnHeader;
use zoometry_wire::{ErrorCode, OpCode, Reader, Record as _, Request, SessionId, Txn, TxnRecord, Zxid};

use super::{Asking, Member, Output, Owner, Part, Surroundings};
use crate::deliberate::{Bug, chosen};
use crate::store::Asked;
use crate::zab::{Action, Event, Link, Why};

/// The last counter of an epoch; it is never given to a transaction (`Leader.propose`, reference §8.11).
const LAST_COUNTER: u32 = 0xffff_ffff;

/// Payloads are slices of buffers of this size, so that a small one costs no allocation of its own. What is
/// behind one buffer is let go when all that lie in it are.
const PAYLOADS_BYTES: usize = 64 << 10;
/// With less room than this a new buffer is begun; a payload that is longer after all makes its own room.
const PAYLOAD_ROOM_BYTES: usize = 1 << 10;

impl Member {
    /// Proposes the end of every session that has fallen silent. Returns them.
    pub fn expire(&mut self, at: &mut Surroundings<'_>, out: &mut Vec<Output>) -> Vec<SessionId> {
        if !self.prepares() {
            return Vec::new();
        }
        let expired = at.sessions.expire(at.now_ms);
        for session in &expired {
            self.ask_myself(at, *session, &Request::CloseSession, out);
        }
        expired
    }

    /// Proposes to delete a container or a znode whose time is over; whether it still is, is looked at again.
    pub fn delete_expired(&mut self, at: &mut Surroundings<'_>, path: String, out: &mut Vec<Output>) {
        if self.prepares() {
            self.ask_myself(at, SessionId(0), &Request::DeleteContainer(path), out);
        }
    }

    /// Ephemerals of sessions that nobody knows: their end is proposed, so that it is everybody's.
    pub(super) fn bury_the_dead(&mut self, at: &mut Surroundings<'_>, out: &mut Vec<Output>) {
        let owners = at.store.owning_sessions();
        let dead: Vec<SessionId> = owners.filter(|session| !at.store.has_session(*session)).collect();
        for session in dead {
            self.ask_myself(at, session, &Request::CloseSession, out);
        }
    }

    fn ask_myself(
        &mut self,
        at: &mut Surroundings<'_>,
        session: SessionId,
        request: &Request,
        out: &mut Vec<Output>,
    ) {
        self.propose_for(at, Owner::Here, Asking { session, cxid: 0, ids: &[], request }, out);
    }

    /// Makes a transaction of a request and proposes it. `None` if the epoch has no zxid left for it.
    pub(super) fn propose_for(
        &mut self,
        at: &mut Surroundings<'_>,
        from: Owner,
        asking: Asking<'_>,
        out: &mut Vec<Output>,
    ) -> Option<Zxid> {
        let Asking { session, cxid, ids, request } = asking;
        let session_check = match request {
            Request::CreateSession(timeout_ms) => {
                at.sessions.open(session, *timeout_ms, at.now_ms);
                self.set_owner(session, from);
                Ok(())
            }
            // A server's own word: a session's end, when it was silent; nobody's session.
            Request::CloseSession if cxid == 0 => Ok(()),
            Request::DeleteContainer(_) => Ok(()),
            // A client's own end is refused like any other write of its: one that was late on a connection
            // that it has left must come in neither while the session lives elsewhere nor when it is over.
            _ => match at.sessions.check(session) {
                Ok(()) => self.check_owner(session, from).map_or(Ok(()), Err),
                refused => refused,
            },
        };
        if *request == Request::CloseSession && session_check.is_ok() {
            at.sessions.set_closing(session);
            self.delete_ahead(at, session, out)?;
        }
        let zxid = self.next_zxid(at, out)?;
        let record = match (request, session_check) {
            // A session is closed by its owner only; prep does not look at the verdict.
            (Request::CloseSession, Err(code)) => refusal(at, &asking, zxid, code),
            _ if request.has_bad_ttl() => refusal(at, &asking, zxid, ErrorCode::BadArguments),
            _ => {
                let asked = Asked { session, cxid, ids, request, session_check };
                self.prep.prepare(at.store, &asked, zxid, at.wall_ms)
            }
        };
        self.propose(at, record, out);
        Some(zxid)
    }

    /// A session may own more than one transaction can list, if an Apache leader or other limits let it. What is
    /// too much goes first, in transactions of the server's own; whoever applies them needs to know nothing of it.
    fn delete_ahead(
        &mut self,
        at: &mut Surroundings<'_>,
        session: SessionId,
        out: &mut Vec<Output>,
    ) -> Option<()> {
        for paths in self.prep.ahead_of_close(at.store, session) {
            let zxid = self.next_zxid(at, out)?;
            let record = self.prep.delete_all(at.store, paths, zxid, at.wall_ms);
            self.propose(at, record, out);
        }
        Some(())
    }

    fn next_zxid(&mut self, at: &mut Surroundings<'_>, out: &mut Vec<Output>) -> Option<Zxid> {
        // Events that were taken in together may have ended what `begin` is told to begin.
        if self.zab.as_ref().is_some_and(|zab| !zab.is_established()) {
            return None;
        }
        let next = self.last_zxid.next();
        if matches!(self.part, Part::Leading { .. }) && next.counter() == LAST_COUNTER {
            self.part = Part::Nobody;
            self.step(at, Event::Resign(Why::EpochFull), out);
            return None;
        }
        self.last_zxid = next;
        Some(next)
    }

    fn propose(&mut self, at: &mut Surroundings<'_>, record: TxnRecord, out: &mut Vec<Output>) {
        let zxid = record.header.zxid;
        if self.buffer.capacity() < PAYLOAD_ROOM_BYTES {
            self.buffer.reserve(PAYLOADS_BYTES);
        }
        record.encode(&mut self.buffer);
        let payload = self.buffer.split().freeze();
        self.proposed.push_back((Box::new(record), payload.len()));
        self.proposed_bytes += payload.len();
        if self.zab.is_some() {
            self.step(at, Event::Propose(zxid, payload), out);
        } else {
            out.push(Output::Perform(Action::Append(zxid, payload)));
        }
    }

    // ---- sessions ----

    /// A session's client is at `by` now, if the session lives.
    pub(super) fn claim(
        &mut self,
        at: &mut Surroundings<'_>,
        session: SessionId,
        timeout_ms: i32,
        by: Owner,
    ) -> bool {
        let lives = at.sessions.touch(session, at.now_ms);
        if lives {
            at.sessions.open(session, timeout_ms, at.now_ms);
            self.set_owner(session, by);
        }
        lives
    }

    fn set_owner(&mut self, session: SessionId, owner: Owner) {
        // Alone there is one place only.
        if self.zab.is_some() {
            self.owners.insert(session, owner);
        }
    }

    /// What is wrong with a request from there: the session may be somebody else's by now. Whoever speaks
    /// for a session of which nobody has spoken before becomes its owner.
    fn check_owner(&mut self, session: SessionId, from: Owner) -> Option<ErrorCode> {
        self.zab.as_ref().filter(|_| !chosen(Bug::ObeyTheMoved))?;
        let owner = *self.owners.entry(session).or_insert(from);
        (owner != from).then_some(ErrorCode::SessionMoved)
    }

    /// A session's end was applied.
    pub fn forget_session(&mut self, session: SessionId) {
        self.owners.remove(&session);
    }

    // ---- what learners want ----

    pub(super) fn serve_learner(
        &mut self,
        at: &mut Surroundings<'_>,
        link: Link,
        packet: QuorumPacket,
        out: &mut Vec<Output>,
    ) {
        let data = packet.data.unwrap_or_default();
        match PacketKind::from_code(packet.kind) {
            Some(PacketKind::Request) => {
                let ids = packet.authinfo.0.unwrap_or_default();
                if let Ok(forwarded) = ForwardedRequest::read(&data) {
                    self.serve_request(at, link, &ids, &forwarded, out);
                } else {
                    // Whoever sends this is no member; its link ends, and with it what else it may send.
                    self.actions.push_back(Action::Close(link));
                    self.step(at, Event::Closed(link), out);
                }
            }
            Some(PacketKind::Ping) if chosen(Bug::DeafToTouches) => {}
            Some(PacketKind::Ping) => {
                for (session, _timeout_ms) in read_touches(&data).unwrap_or_default() {
                    at.sessions.touch(session, at.now_ms);
                }
            }
            Some(PacketKind::Revalidate) => {
                let mut input = Reader::new(&data);
                let (Ok(session), Ok(timeout_ms)) = (SessionId::decode(&mut input), i32::decode(&mut input))
                else {
                    return;
                };
                let lives = self.claim(at, session, timeout_ms, Owner::Learner(link));
                session.encode(&mut self.buffer);
                lives.encode(&mut self.buffer);
                let data = self.buffer.split().freeze();
                let answer = QuorumPacket::new(PacketKind::Revalidate, packet.zxid).with_data(data);
                if chosen(Bug::RevalidateAtOnce) {
                    return out.push(Output::Perform(Action::Send(link, answer)));
                }
                // Some clients number their requests anew on every connection: what one has asked for on an earlier
                // one must not be taken for what it asks for on this one. Behind this no commit of it comes.
                self.step(at, Event::Answer(link, answer), out);
            }
            _ => {}
        }
    }

    /// A request that a learner forwards. Everything but `sync` becomes a transaction: the learner waits for
    /// it, be it a refusal.
    fn serve_request(
        &mut self,
        at: &mut Surroundings<'_>,
        link: Link,
        ids: &[zoometry_wire::Id],
        forwarded: &ForwardedRequest,
        out: &mut Vec<Output>,
    ) {
        let (session, cxid) = (forwarded.session, forwarded.cxid);
        let op = OpCode::from_code(forwarded.op);
        if op == Some(OpCode::Sync) {
            let answer = QuorumPacket::new(PacketKind::Sync, Zxid(0));
            return self.step(at, Event::Answer(link, answer), out);
        }
        let proposable =
            op.filter(|op| op.is_write() && !matches!(op, OpCode::DeleteContainer | OpCode::Check));
        let request = proposable.map(|op| Request::decode(op, &forwarded.body));
        match request {
            Some(Ok(request)) => {
                let asking = Asking { session, cxid, ids, request: &request };
                self.propose_for(at, Owner::Learner(link), asking, out);
            }
            refused => {
                let code =
                    if refused.is_some() { ErrorCode::MarshallingError } else { ErrorCode::Unimplemented };
                let asking = Asking { session, cxid, ids, request: &Request::CloseSession };
                if let Some(zxid) = self.next_zxid(at, out) {
                    let record = refusal(at, &asking, zxid, code);
                    self.propose(at, record, out);
                }
            }
        }
    }
}

/// A transaction that changes nothing and tells whoever asked why.
fn refusal(at: &Surroundings<'_>, asking: &Asking<'_>, zxid: Zxid, code: ErrorCode) -> TxnRecord {
    let header = TxnHeader {
        session: asking.session,
        cxid: asking.cxid,
        zxid,
        time_ms: at.wall_ms,
        kind: OpCode::Error.code(),
    };
    TxnRecord { header, txn: Txn::Error(code.code()), digest: None }
}
