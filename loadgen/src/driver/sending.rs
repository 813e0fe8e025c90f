//! From a due operation to bytes in a session's out buffer.

use super::encode;
use super::slot::{Kind, Load, Queued, Scratch, Slot, Tag};
use super::views::Writer;
use super::worker::{Shared, Worker};
use crate::op::Op;
use crate::session::State;
use bytes::BytesMut;
use zoometry_wire::OpCode;
use zoometry_wire::request::CreateMode;

impl Worker {
    /// Closed loop: the session's next operation is due now.
    #[inline]
    pub(super) fn hand_out(&self, shared: &mut Shared, load: &mut Load, due_ns: u64) {
        let phase = shared.phases.current;
        let index = self.settings.plan.phase(phase).closed_index(load.number, load.handed_out);
        load.handed_out += 1;
        load.backlog.push_back(Queued { due_ns, index, phase: phase as u16 });
        shared.backlog += 1;
    }

    /// Encodes as many due operations as there are free slots. The caller flushes.
    pub(super) fn fill(&self, shared: &mut Shared, slot: &mut Slot) {
        if slot.session.state() != State::Attached || slot.load.backlog.is_empty() {
            return;
        }
        let free =
            (self.settings.spec.sessions.in_flight as usize).saturating_sub(slot.session.outstanding());
        if free == 0 {
            return;
        }
        let now_ns = self.now_ns();
        for _ in 0..free {
            let Some(queued) = slot.load.backlog.pop_front() else { break };
            shared.backlog -= 1;
            shared.outstanding += 1;
            self.send(&mut shared.path, slot, queued, now_ns);
        }
        slot.session.wrote(now_ns);
    }

    /// Encodes one operation.
    pub(super) fn send(&self, path: &mut String, slot: &mut Slot, queued: Queued, now_ns: u64) {
        let planned = self.settings.plan.phase(usize::from(queued.phase)).op(queued.index);
        let Slot { session, outbox, load } = slot;
        let out = &mut outbox.bytes;
        let keys = &self.settings.keys;
        path.clear();
        let mut tag = Tag {
            due_ns: queued.due_ns,
            sent_ns: now_ns,
            about: planned.key,
            bytes: 0,
            phase: queued.phase,
            kind: Kind::Op(planned.op),
        };
        let writer = Writer::new(load.number, session.next_xid());
        let value = |out: &mut BytesMut| self.filler.put(out, planned.value_bytes, planned.key, writer);
        match planned.op {
            Op::Get => {
                keys.push_path(planned.key, path);
                session.submit(OpCode::GetData, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Exists => {
                keys.push_path(planned.key, path);
                session.submit(OpCode::Exists, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Children => {
                keys.push_parent(planned.key, path);
                session.submit(OpCode::GetChildren2, tag, out, |out| encode::path_watch(out, path, false));
            }
            Op::Set => {
                keys.push_path(planned.key, path);
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::SetData, tag, out, |out| encode::set_data(out, path, value));
            }
            Op::Multi => {
                keys.push_path(planned.key, path);
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::Multi, tag, out, |out| encode::check_and_set(out, path, value));
            }
            Op::Sync => {
                session.submit(OpCode::Sync, tag, out, |out| encode::put_path(out, keys.root()));
            }
            Op::Delete if !load.scratch.created.is_empty() => {
                let scratch = load.scratch.created.pop().expect("it is not empty");
                self.push_scratch(load.number, scratch, path);
                tag.about = scratch.pack();
                session.submit(OpCode::Delete, tag, out, |out| encode::path_number(out, path, -1));
            }
            // A session with nothing to delete creates, so that the next delete has something: see workloads/README.md.
            Op::Create | Op::CreateEphemeral | Op::CreateSequential | Op::Delete => {
                let n = load.scratch.next;
                load.scratch.next += 1;
                let (op, scratch, mode) = match planned.op {
                    Op::CreateEphemeral => {
                        (Op::CreateEphemeral, Scratch::Ephemeral(n), CreateMode::Ephemeral)
                    }
                    Op::CreateSequential => {
                        (Op::CreateSequential, Scratch::Sequential(0), CreateMode::PersistentSequential)
                    }
                    _ => (Op::Create, Scratch::Persistent(n), CreateMode::Persistent),
                };
                match scratch {
                    // The server appends the number.
                    Scratch::Sequential(_) => {
                        self.push_scratch_parent(load.number, path);
                        path.push_str("/q");
                    }
                    named => self.push_scratch(load.number, named, path),
                }
                tag.kind = Kind::Op(op);
                tag.about = scratch.pack();
                tag.bytes = planned.value_bytes;
                session.submit(OpCode::Create, tag, out, |out| encode::create(out, path, mode, value));
            }
            Op::Connect | Op::Notify => unreachable!("a mix has no {}", planned.op),
        }
    }

    pub(super) fn push_scratch_parent(&self, session: u32, path: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(path, "{}/{session}", self.settings.places.scratch);
    }

    pub(super) fn push_scratch(&self, session: u32, scratch: Scratch, path: &mut String) {
        self.push_scratch_parent(session, path);
        scratch.push_name(path);
    }
}
