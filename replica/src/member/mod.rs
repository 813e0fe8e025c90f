//! One member's thinking about requests and sessions: who prepares a write, who owns a session, and what a
//! learner and its leader tell each other beside consensus.
//!
//! [`Member`] stands between the clients' side of a server and [`Zab`]. Alone or leading it makes transactions
//! of requests; as a learner it forwards them, and meets them again as commits. Like everything in this crate
//! it does no I/O and never waits: inputs are method calls, what is to be done comes back as [`Output`]s, to be
//! performed in their order.
//!
//! The store is read here and changed by whoever performs [`Output::Commit`]. It may lag behind the outputs
//! given so far; preparing looks at the outstanding changes as well (see [`Prep`]).
//!
//! Rules: a session belongs to the member through which it was last opened or revalidated, and a write that
//! comes from elsewhere is refused with SessionMoved; learners' pings carry the sessions they heard of; only
//! the leader ends sessions. Source: `PrepRequestProcessor.java`, `LearnerHandler.java`,
//! `SessionTrackerImpl.java`, `ObserverRequestProcessor.java`; reference §2.5, §6, §8.9, §8.10.

mod leading;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use zoometry_wire::peer::{AuthInfo, ForwardedRequest, PacketKind, QuorumPacket, TOUCH_BYTES, put_touches};
use zoometry_wire::{Id, Reader, Record as _, Request, SessionId, TxnRecord, Zxid};

use crate::store::session::{Keeping, SessionTracker};
use crate::store::{Prep, Store};
use crate::zab::{Action, Event, Following, Link, Role, ServerId, Zab};

/// What a step may look at: the clocks, and the state that the member shares with its connections.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// A clock that only goes forward, ms.
    pub now_ms: u64,
    /// ms since the Unix epoch, for transactions.
    pub wall_ms: i64,
    /// The committed state.
    pub store: &'a Store,
    /// The sessions known here.
    pub sessions: &'a mut SessionTracker,
}

/// A client's write, or its `sync` on a learner.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The client's session.
    pub session: SessionId,
    /// The client's number for the request.
    pub cxid: i32,
    /// The connection's identities.
    pub ids: &'a [Id],
    /// What it wants.
    pub request: &'a Request,
}

/// What became of a client's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It was proposed here and has this zxid: a commit with it will come.
    Proposed(Zxid),
    /// It went to the leader: a commit with its session and cxid will come.
    Forwarded,
    /// There is nobody who could take it.
    NotServing,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Something of consensus: messages, log, epochs. Never one of those below.
    Perform(Action),
    /// Apply this transaction and answer whoever asked for it.
    Commit(Box<TxnRecord>),
    /// Apply this transaction, of which nobody knows here whether it is committed: tell nobody.
    Adopt(Box<TxnRecord>),
    /// The member's part has changed. When everything before it is applied, call [`Member::begin`].
    Become(Role),
    /// The leader has said whether a session lives; it is this member's now if it does.
    Revalidated(SessionId, bool),
    /// A learner's client gets the answer to its oldest `sync`: session, cxid and path.
    Synced(SessionId, i32, String),
}

/// Who may take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nobody leads.
    Nobody,
    /// A server without an ensemble: what is on its disk is committed.
    Alone,
    Leading {
        epoch: i64,
    },
    Learning {
        link: Link,
    },
}

/// Where a session's client is connected, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Here,
    Learner(Link),
}

/// A learner's `sync` that the leader has not answered.
#[derive(Debug)]
struct WaitingSync {
    session: SessionId,
    cxid: i32,
    path: String,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    zab: Option<Zab>,
    part: Part,
    prep: Prep,
    last_zxid: Zxid,
    /// What was proposed here and is not committed, each with its bytes.
    /// Boxed: it changes hands several times before it is applied.
    proposed: VecDeque<(Box<TxnRecord>, usize)>,
    proposed_bytes: usize,
    owners: FxHashMap<SessionId, Owner>,
    next_session: SessionId,
    syncs: VecDeque<WaitingSync>,
    actions: VecDeque<Action>,
    /// Those of one step, empty in between; its memory is used again.
    fresh: Vec<Action>,
    buffer: BytesMut,
}

impl Member {
    /// A server without an ensemble over a recovered store. `first_session` is the first id it gives
    /// ([`session::first_id`](crate::store::session::first_id)).
    pub fn alone(store: &Store, first_session: SessionId) -> Self {
        Self::new(None, Part::Alone, store, first_session)
    }

    /// A member of an ensemble, without a leader yet.
    pub fn in_ensemble(zab: Zab, store: &Store, first_session: SessionId) -> Self {
        Self::new(Some(zab), Part::Nobody, store, first_session)
    }

    fn new(zab: Option<Zab>, part: Part, store: &Store, first_session: SessionId) -> Self {
        Self {
            zab,
            part,
            prep: Prep::new(store.config().clone()),
            last_zxid: store.last_zxid(),
            proposed: VecDeque::new(),
            proposed_bytes: 0,
            owners: FxHashMap::default(),
            next_session: first_session,
            syncs: VecDeque::new(),
            actions: VecDeque::new(),
            fresh: Vec::new(),
            buffer: BytesMut::new(),
        }
    }

    /// Whether requests are prepared here: sessions are ended and containers are emptied by this member.
    pub fn prepares(&self) -> bool {
        matches!(self.part, Part::Alone | Part::Leading { .. })
    }

    /// Whether there is a leader to ask, here or elsewhere. Without one nothing is known about any session: a client
    /// that comes back is to be sent to another member, and never told that its session is over.
    pub fn has_leader(&self) -> bool {
        self.part != Part::Nobody
    }

    /// The link to the leader, if another member leads.
    pub fn leader_link(&self) -> Option<Link> {
        match self.part {
            Part::Learning { link } => Some(link),
            Part::Nobody | Part::Alone | Part::Leading { .. } => None,
        }
    }

    /// Transactions proposed here and not committed yet.
    pub fn outstanding(&self) -> usize {
        self.proposed.len()
    }

    /// Their bytes.
    pub fn outstanding_bytes(&self) -> usize {
        self.proposed_bytes
    }

    /// Requests refused here because they would have made a transaction that is too long ([`Prep::oversized`]).
    pub fn oversized(&self) -> u64 {
        self.prep.oversized()
    }

    /// Who follows, if this member leads.
    pub fn following(&self) -> Option<Following> {
        self.zab.as_ref().and_then(Zab::following)
    }

    /// Who is at the other end of a link ([`Zab::learner`]).
    pub fn learner(&self, link: Link) -> Option<ServerId> {
        self.zab.as_ref().and_then(|zab| zab.learner(link))
    }

    /// The links over which somebody is being synchronised ([`Zab::synchronising`]).
    pub fn synchronising(&self) -> Vec<Link> {
        self.zab.as_ref().map_or_else(Vec::new, Zab::synchronising)
    }

    /// Whether transactions are missing in the state, so that nothing of it may be shown ([`Zab::is_missing_some`]).
    pub fn is_missing_some(&self) -> bool {
        self.zab.as_ref().is_some_and(Zab::is_missing_some)
    }

    /// Whether there is reason to think that the state is wrong ([`Zab::is_in_doubt`]).
    pub fn is_in_doubt(&self) -> bool {
        self.zab.as_ref().is_some_and(Zab::is_in_doubt)
    }

    /// What the member is doing, in the words of its peers; `None` for a server alone.
    pub fn peer_state(&self) -> Option<zoometry_wire::peer::PeerState> {
        self.zab.as_ref().map(Zab::peer_state)
    }

    // ---- what clients want ----

    /// A client's write, or its `sync` if this member is a learner.
    pub fn submit(
        &mut self,
        at: &mut Surroundings<'_>,
        asking: Asking<'_>,
        out: &mut Vec<Output>,
    ) -> Submitted {
        match self.part {
            Part::Nobody => Submitted::NotServing,
            Part::Alone | Part::Leading { .. } => {
                let zxid = self.propose_for(at, Owner::Here, asking, out);
                zxid.map_or(Submitted::NotServing, Submitted::Proposed)
            }
            Part::Learning { link } => {
                if let Request::Sync(path) = asking.request {
                    let (session, cxid, path) = (asking.session, asking.cxid, path.clone());
                    self.syncs.push_back(WaitingSync { session, cxid, path });
                }
                self.forward(link, asking, out);
                Submitted::Forwarded
            }
        }
    }

    /// A client wants a session: its id, and what became of the wish. Its commit opens it.
    pub fn open_session(
        &mut self,
        at: &mut Surroundings<'_>,
        timeout_ms: i32,
        out: &mut Vec<Output>,
    ) -> (SessionId, Submitted) {
        let session = self.next_session;
        self.next_session = SessionId(session.0 + 1);
        let request = Request::CreateSession(timeout_ms);
        (session, self.submit(at, Asking { session, cxid: 0, ids: &[], request: &request }, out))
    }

    /// A client has come with a session from elsewhere or from before. The answer is an
    /// [`Output::Revalidated`], now or when the leader has spoken. Only for a member that
    /// [has a leader](Self::has_leader).
    pub fn reattach(
        &mut self,
        at: &mut Surroundings<'_>,
        session: SessionId,
        timeout_ms: i32,
        out: &mut Vec<Output>,
    ) {
        match self.part {
            Part::Nobody => out.push(Output::Revalidated(session, false)),
            Part::Alone | Part::Leading { .. } => {
                let lives = self.claim(at, session, timeout_ms, Owner::Here);
                out.push(Output::Revalidated(session, lives));
            }
            Part::Learning { link } => {
                self.buffer.clear();
                session.encode(&mut self.buffer);
                timeout_ms.encode(&mut self.buffer);
                let data = self.buffer.split().freeze();
                let packet = QuorumPacket::new(PacketKind::Revalidate, Zxid(-1)).with_data(data);
                out.push(Output::Perform(Action::Send(link, packet)));
            }
        }
    }

    fn forward(&mut self, link: Link, asking: Asking<'_>, out: &mut Vec<Output>) {
        asking.request.encode(&mut self.buffer);
        let Asking { session, cxid, ids, request } = asking;
        let body = self.buffer.split().freeze();
        let forwarded = ForwardedRequest { session, cxid, op: request.op().code(), body };
        let packet = QuorumPacket {
            // Not null: Apache's leader tells the two apart.
            authinfo: AuthInfo(Some(ids.to_vec())),
            ..QuorumPacket::new(PacketKind::Request, Zxid(-1)).with_data(forwarded.to_bytes())
        };
        out.push(Output::Perform(Action::Send(link, packet)));
    }

    // ---- what the body reports ----

    /// An event of consensus: of the links, the disk, the clock.
    pub fn step(&mut self, at: &mut Surroundings<'_>, event: Event, out: &mut Vec<Output>) {
        let Some(zab) = &mut self.zab else {
            if let (Part::Alone, Event::Durable(upto)) = (self.part, event) {
                while let Some(record) = self.take_proposed(|zxid| zxid <= upto) {
                    out.push(Output::Commit(record));
                }
            }
            return;
        };
        zab.step(at.now_ms, event, &mut self.fresh);
        self.actions.extend(self.fresh.drain(..));
        self.drain(at, out);
    }

    /// Everything up to `zxid` was applied to the store.
    pub fn applied(&mut self, zxid: Zxid) {
        self.prep.applied(zxid);
    }

    /// The member's part has changed, and what was committed before is applied.
    pub fn begin(&mut self, at: &mut Surroundings<'_>, role: Role, out: &mut Vec<Output>) {
        self.proposed.clear();
        self.proposed_bytes = 0;
        self.syncs.clear();
        self.owners.clear();
        self.prep.reset();
        self.part = match role {
            Role::Looking => Part::Nobody,
            Role::Leading { epoch } => Part::Leading { epoch },
            Role::Following { link, .. } => Part::Learning { link },
        };
        match role {
            // What is known of sessions stays until there is a leader who knows better.
            Role::Looking => {}
            Role::Leading { epoch } => {
                self.last_zxid = Zxid(epoch << 32);
                at.sessions.begin(Keeping::Deadlines, at.store.sessions(), at.now_ms);
                self.bury_the_dead(at, out);
            }
            Role::Following { .. } => {
                at.sessions.begin(Keeping::Touches, at.store.sessions(), at.now_ms);
            }
        }
    }

    /// Sorts the actions of consensus: those that concern requests and sessions are performed here.
    fn drain(&mut self, at: &mut Surroundings<'_>, out: &mut Vec<Output>) {
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Apply(zxid, payload) => {
                    let record = self.record(zxid, &payload);
                    out.push(record.map_or_else(Output::Perform, Output::Commit));
                }
                Action::Adopt(zxid, payload) => {
                    let record = self.record(zxid, &payload);
                    out.push(record.map_or_else(Output::Perform, Output::Adopt));
                }
                Action::Become(role) => {
                    if role == Role::Looking {
                        // From here on nothing is taken in, whatever happens before `begin`.
                        self.part = Part::Nobody;
                    }
                    out.push(Output::Become(role));
                }
                Action::Pong(link, zxid) => {
                    // No packet may be longer than a transaction: Apache's leader reads no more.
                    let most = at.store.config().txn_bytes_max / TOUCH_BYTES;
                    put_touches(&at.sessions.take_heard(most), &mut self.buffer);
                    let data = self.buffer.split().freeze();
                    let pong = QuorumPacket::new(PacketKind::Ping, zxid).with_data(data);
                    out.push(Output::Perform(Action::Send(link, pong)));
                }
                Action::Upcall(link, packet) => match self.part {
                    Part::Leading { .. } => self.serve_learner(at, link, packet, out),
                    Part::Learning { link: leader } if link == leader => self.hear_leader(&packet, out),
                    Part::Nobody | Part::Alone | Part::Learning { .. } => {}
                },
                action => out.push(Output::Perform(action)),
            }
        }
    }

    /// The transaction of a payload: as it was proposed here, or read from what the leader sent.
    fn record(&mut self, zxid: Zxid, payload: &Bytes) -> Result<Box<TxnRecord>, Action> {
        if let Some(record) = self.take_proposed(|proposed| proposed == zxid) {
            return Ok(record);
        }
        let record = TxnRecord::decode(&mut Reader::new(payload));
        record.map(Box::new).map_err(|error| Action::Fail(format!("cannot read transaction {zxid}: {error}")))
    }

    /// The oldest of what was proposed here, if its zxid is one of these.
    fn take_proposed(&mut self, is: impl FnOnce(Zxid) -> bool) -> Option<Box<TxnRecord>> {
        let (record, bytes) = self.proposed.pop_front_if(|(record, _)| is(record.header.zxid))?;
        self.proposed_bytes -= bytes;
        Some(record)
    }

    fn hear_leader(&mut self, packet: &QuorumPacket, out: &mut Vec<Output>) {
        match PacketKind::from_code(packet.kind) {
            Some(PacketKind::Revalidate) => {
                let mut data = Reader::new(packet.data.as_deref().unwrap_or_default());
                if let (Ok(session), Ok(lives)) = (SessionId::decode(&mut data), bool::decode(&mut data)) {
                    out.push(Output::Revalidated(session, lives));
                }
            }
            Some(PacketKind::Sync) => {
                if let Some(WaitingSync { session, cxid, path }) = self.syncs.pop_front() {
                    out.push(Output::Synced(session, cxid, path));
                }
            }
            _ => {}
        }
    }
}
