//! From the bytes that a socket held to completions, acknowledgements and the operations that follow.

use super::slot::{Kind, Load, Role, Scratch, Slot, Tag};
use super::views::{Asker, Writer};
use super::watching::Trigger;
use super::worker::{Answer, Shared, Worker};
use crate::closeup::Close;
use crate::op::{Op, Outcome};
use crate::recorder::Completion;
use crate::session::{Event, ProtocolError, Reply};
use crate::traces::RequestTrace;
use bytes::Buf;
use zoometry_wire::jute::{Reader, Record};
use zoometry_wire::{ErrorCode, OpCode, SessionId};

/// Offset of the data version in a Stat.
const STAT_VERSION: usize = 32;
/// Bytes of a Stat.
pub(super) const STAT: usize = 68;
/// Bytes of the shortest reply with a Stat: length, header, Stat.
const REPLY_MIN: usize = 4 + 16 + STAT;

impl Worker {
    /// Takes what the socket held: records completions, sends what falls due by them, in one write.
    pub(super) fn received(
        &self,
        at: usize,
        partial: &mut bytes::BytesMut,
        bytes: &[u8],
    ) -> Result<(), ProtocolError> {
        let done_ns = self.now_ns();
        {
            let slot = &mut *self.slots[at].borrow_mut();
            let mut shared = self.shared.borrow_mut();
            let Slot { session, outbox, load } = slot;
            let id = session.id();
            // So many replies may have come, or fewer.
            let awaited = || session.awaited().take(bytes.len() / REPLY_MIN);
            let is_write = |tag: &&Tag| matches!(tag.kind, Kind::Op(Op::Set | Op::Multi));
            shared.views.expect(awaited().map(|tag| tag.about));
            shared.ledger.expect(awaited().filter(is_write).map(|tag| tag.about));
            let mut attached = None;
            let mut report = |event: Event<'_, Tag>| match event {
                Event::Reply(reply) => self.replied(&mut shared, load, id, done_ns, reply),
                Event::Attached { again } => attached = Some(again),
                Event::Expired | Event::Replaced => self.expired(&mut shared, load, done_ns),
                Event::Watch { kind, path, .. } => self.fired(&mut shared, load, done_ns, kind, path),
                Event::WatchesSet => {}
            };
            if partial.is_empty() {
                let taken = session.receive(done_ns, bytes, &mut report)?;
                partial.extend_from_slice(&bytes[taken..]);
            } else {
                partial.extend_from_slice(bytes);
                let taken = session.receive(done_ns, partial, &mut report)?;
                partial.advance(taken);
            }
            if let Some(again) = attached {
                if again {
                    session.set_watches(&mut outbox.bytes);
                }
                self.attached(&mut shared, load, done_ns, again);
            }
            match slot.load.role {
                Role::Issuer => self.fill(&mut shared, slot),
                Role::Watcher(_) => self.arm(&mut shared, slot),
            }
            slot.outbox.flush();
        }
        // At full speed the timer's turn comes late: what has come due meanwhile goes out now.
        let due = self.shared.borrow_mut().phases.next_due_ns().is_some_and(|due_ns| due_ns <= done_ns);
        if due {
            self.issue_due(done_ns);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn replied(
        &self,
        shared: &mut Shared,
        load: &mut Load,
        session: SessionId,
        done_ns: u64,
        reply: Reply<'_, Tag>,
    ) {
        let tag = reply.tag;
        let op = match tag.kind {
            Kind::Op(op) => op,
            Kind::Ephemeral => {
                return self.ephemeral_answered(&mut shared.ephemerals, load.number, tag.about, reply.err);
            }
            _ => return self.watch_replied(shared, load, &reply),
        };
        shared.outstanding -= 1;
        let mut err = reply.err;
        if op == Op::Multi && err == 0 {
            err = multi_error(reply.body);
        }
        let outcome = match err {
            0 => Outcome::Ok,
            code => Outcome::Error(ErrorCode::from_code(code).unwrap_or(ErrorCode::SystemError)),
        };
        let asker = Asker { session: load.number, member: load.member, seen: reply.seen };
        if outcome == Outcome::Ok {
            self.answered_as_asked(shared, load, op, &reply, asker);
        } else {
            self.refused(shared, load, op, tag.about, err, asker);
        }
        let response_ns = done_ns.saturating_sub(tag.due_ns);
        shared.close_up.note(Close { at_ns: done_ns, response_ns, member: load.member, op, outcome });
        let read = if op.is_write() { 0 } else { reply.body.len() as u32 };
        shared.recorder.record(&Completion {
            phase: tag.phase,
            op,
            outcome,
            due_ns: tag.due_ns,
            sent_ns: tag.sent_ns,
            done_ns,
            bytes: tag.bytes + read,
        });
        if shared.sampler.is_some() {
            let (xid, opcode, zxid) = (reply.xid, reply.op, reply.zxid);
            let answer = Answer { session, member: load.member, xid, opcode, zxid, tag, op, done_ns };
            self.offer(shared, load, &answer, outcome);
        }
        if shared.phases.is_closed_loop(done_ns) {
            self.hand_out(shared, load, done_ns);
        }
    }

    /// What a success proves and what it must not contradict.
    #[inline]
    fn answered_as_asked(
        &self,
        shared: &mut Shared,
        load: &mut Load,
        op: Op,
        reply: &Reply<'_, Tag>,
        asker: Asker,
    ) {
        let (tag, body) = (&reply.tag, reply.body);
        match op {
            Op::Get => drop(shared.views.value(tag.about, body, &self.filler, asker)),
            Op::Exists => drop(shared.views.stat(tag.about, body, Writer::NONE, asker)),
            Op::Children => {
                let keys = &self.settings.keys;
                let names = (keys.siblings(tag.about), keys.name_bytes());
                shared.views.children(tag.about, body, names, asker);
            }
            Op::Set | Op::Multi => {
                shared.ledger.acknowledged(tag.about, reply.zxid);
                let stat = written_stat(op, body);
                let writer = Writer::new(load.number, reply.xid);
                shared.views.acknowledged(tag.about, stat, writer, tag.bytes, asker);
                if self.watched.contains(tag.about) {
                    triggered(shared, tag, stat);
                }
            }
            Op::Create | Op::CreateEphemeral | Op::CreateSequential => {
                load.scratch.created.extend(created(tag.about, body));
            }
            Op::Delete | Op::Sync | Op::Connect | Op::Notify => {}
        }
    }

    /// What an error leaves open, or proves.
    #[cold]
    fn refused(&self, shared: &mut Shared, load: &mut Load, op: Op, about: u64, err: i32, asker: Asker) {
        let no_node = err == ErrorCode::NoNode.code();
        match op {
            Op::Get | Op::Exists | Op::Set | Op::Multi | Op::Children if no_node => {
                shared.views.no_node(about, asker);
            }
            // Nobody else deletes here, and this session was told that the znode is there.
            Op::Delete if no_node => self.is_gone(shared, load, about),
            Op::Create | Op::CreateEphemeral | Op::CreateSequential | Op::Delete => {
                load.scratch.uncertain(op, Scratch::unpack(about));
            }
            _ => {}
        }
    }

    /// A znode that was to be deleted was not there, though its creation had been acknowledged.
    #[cold]
    pub(super) fn is_gone(&self, shared: &mut Shared, load: &Load, about: u64) {
        if let Scratch::Ephemeral(_) = Scratch::unpack(about) {
            let noted = ErrorCode::NoNode.code();
            return self.ephemeral_answered(&mut shared.ephemerals, load.number, about, noted);
        }
        let mut path = String::new();
        self.push_scratch(load.number, Scratch::unpack(about), &mut path);
        shared.ledger.gone(path);
    }

    /// Shows a finished operation to the traces' sampler.
    #[inline]
    pub(super) fn offer(&self, shared: &mut Shared, load: &Load, answer: &Answer, outcome: Outcome) {
        let Some(sampler) = &mut shared.sampler else { return };
        let Answer { session, xid, tag, done_ns, .. } = *answer;
        let response_ns = done_ns.saturating_sub(tag.due_ns);
        sampler.offer(session, xid, outcome, response_ns, done_ns, || {
            let mut path = String::new();
            match answer.op {
                Op::Get | Op::Exists | Op::Set | Op::Multi => {
                    self.settings.keys.push_path(tag.about, &mut path)
                }
                Op::Children => self.settings.keys.push_parent(tag.about, &mut path),
                Op::Sync => path.push_str(self.settings.keys.root()),
                _ => self.push_scratch_parent(load.number, &mut path),
            }
            RequestTrace {
                session,
                xid,
                op: answer.op,
                opcode: answer.opcode,
                outcome,
                phase: tag.phase,
                server: answer.member,
                due_ns: tag.due_ns,
                sent_ns: tag.sent_ns,
                done_ns,
                zxid: answer.zxid,
                path,
            }
        });
    }
}

/// A write to a watched key was acknowledged: remembers which version it made.
fn triggered(shared: &mut Shared, tag: &Tag, stat: &[u8]) {
    let Some(version) = version_of(stat) else { return };
    shared.log.trigger(Trigger {
        key: tag.about,
        version,
        phase: tag.phase,
        due_ns: tag.due_ns,
        sent_ns: tag.sent_ns,
    });
}

/// The Stat in the reply to a write of a key: the body of setData; before the end mark (9 bytes) of a multi whose last entry is
/// setData.
fn written_stat(op: Op, body: &[u8]) -> &[u8] {
    match op {
        Op::Multi => body.len().checked_sub(9 + STAT).map_or(&[], |at| &body[at..at + STAT]),
        _ => body,
    }
}

/// The data version in a Stat.
pub(super) fn version_of(stat: &[u8]) -> Option<i32> {
    stat.get(STAT_VERSION..STAT_VERSION + 4)
        .map(|bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

/// What a create made, from its tag and the path in its reply (which, of a sequential znode, only the server knows).
fn created(about: u64, body: &[u8]) -> Option<Scratch> {
    match Scratch::unpack(about) {
        Scratch::Sequential(_) => {
            let path = Reader::new(body).str().ok()?;
            path.get(path.len().checked_sub(10)?..)?.parse().ok().map(Scratch::Sequential)
        }
        named => Some(named),
    }
}

/// The error inside a multi's results, 0 if it succeeded. A failed multi consists of error entries only (reference 3.7).
fn multi_error(body: &[u8]) -> i32 {
    let mut input = Reader::new(body);
    let mut worst = 0;
    while let Ok(op) = i32::decode(&mut input) {
        let (Ok(done), Ok(err)) = (bool::decode(&mut input), i32::decode(&mut input)) else { break };
        if done || op != OpCode::Error.code() {
            break;
        }
        if err != 0 && err != ErrorCode::RuntimeInconsistency.code() && worst == 0 {
            worst = err;
        }
        if i32::decode(&mut input).is_err() {
            break;
        }
    }
    worst
}
