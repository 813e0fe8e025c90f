//! The life of a session's connection: opened, read until it breaks, opened again.

use super::phases::Stage;
use super::slot::{Kind, Load, Role, Scratch, Slot};
use super::watching::Arming;
use super::worker::{Answer, Shared, Worker};
use super::{Happening, What};
use crate::op::{Op, Outcome};
use crate::recorder::Completion;
use crate::session::State;
use crate::spec::WatchKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use zoometry_wire::{ErrorCode, Zxid};

/// Reads from one socket before others get their turn.
const READS_IN_A_ROW: u32 = 4;
/// A member gets this long to accept a connection, before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before a session tries again, doubled each time up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

impl Worker {
    /// The connection of one session, again and again until the run is over.
    pub(super) async fn keep_connected(self: Rc<Self>, at: usize) {
        let mut attempt = 0usize;
        let mut pause = RETRY.0;
        self.slots[at].borrow_mut().load.wanted_ns = Some(self.now_ns());
        while !self.closing.get() {
            let member = {
                let load = &mut self.slots[at].borrow_mut().load;
                load.member = load.route[attempt % load.route.len()];
                load.member
            };
            let reason = match self.connect(at, member).await {
                Ok(reader) => self.converse(at, reader).await,
                Err(reason) => reason,
            };
            let was_attached = self.disconnected(at, &reason);
            let over = self.slots[at].borrow().session.state() == State::Closed;
            if over {
                break;
            }
            if was_attached {
                // The same member first: it may have dropped only this connection.
                (attempt, pause) = (0, RETRY.0);
                continue;
            }
            let address = self.settings.members[usize::from(member)];
            let trouble = format!("{address}: {reason}");
            *self.control.trouble.lock().expect("no thread panics holding it") = Some(trouble);
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
        self.closed.set(self.closed.get() + 1);
    }

    /// Opens a connection and writes the connect frame.
    pub(super) async fn connect(&self, at: usize, member: u16) -> Result<OwnedReadHalf, String> {
        let _permit = self.connecting.acquire().await.expect("nobody closes the semaphore");
        let address = self.settings.members[usize::from(member)];
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .map_err(|_| format!("no connection within {CONNECT_LIMIT:?}"))?
            .map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("TCP_NODELAY: {error}"))?;
        let (reader, writer) = stream.into_split();
        let slot = &mut *self.slots[at].borrow_mut();
        slot.outbox.reset();
        slot.outbox.writer = Some(writer);
        slot.session.connect(self.now_ns(), &mut slot.outbox.bytes);
        slot.outbox.flush();
        Ok(reader)
    }

    /// Reads until the connection ends; says why it did.
    pub(super) async fn converse(&self, at: usize, mut reader: OwnedReadHalf) -> String {
        let mut partial = bytes::BytesMut::new();
        std::future::poll_fn(|cx| {
            {
                let outbox = &mut self.slots[at].borrow_mut().outbox;
                if !outbox.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    outbox.waker = Some(cx.waker().clone());
                }
                if let Some(reason) = outbox.doomed.take() {
                    return Poll::Ready(reason);
                }
                if let Err(error) = outbox.poll_blocked(cx) {
                    return Poll::Ready(format!("write: {error}"));
                }
            }
            for _ in 0..READS_IN_A_ROW {
                let mut buffer = self.read_buffer.borrow_mut();
                let mut read = ReadBuf::new(&mut buffer);
                match Pin::new(&mut reader).poll_read(cx, &mut read) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(format!("read: {error}")),
                    Poll::Ready(Ok(())) if read.filled().is_empty() => {
                        return Poll::Ready("the server closed the connection".into());
                    }
                    Poll::Ready(Ok(())) => {
                        if let Err(error) = self.received(at, &mut partial, read.filled()) {
                            return Poll::Ready(error.to_string());
                        }
                    }
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Books the loss of a connection: outstanding operations have an unknown outcome, and in a closed loop their slots are
    /// free. True if the session had been attached.
    pub(super) fn disconnected(&self, at: usize, reason: &str) -> bool {
        let now_ns = self.now_ns();
        let slot = &mut *self.slots[at].borrow_mut();
        let mut shared = self.shared.borrow_mut();
        let Slot { session, outbox, load } = slot;
        let was_attached = matches!(session.state(), State::Attached | State::Closed);
        outbox.reset();
        let (id, member) = (session.id(), load.member);
        session.disconnected(|tag, opcode, xid| {
            let Kind::Op(op) = tag.kind else { return };
            shared.outstanding -= 1;
            let lost = Answer { session: id, member, xid, opcode, zxid: Zxid(0), tag, op, done_ns: now_ns };
            self.lost(&mut shared, load, &lost, ErrorCode::ConnectionLoss);
            if shared.phases.is_closed_loop(now_ns) {
                self.hand_out(&mut shared, load, now_ns);
            }
        });
        if let Role::Watcher(watcher) = &mut load.role {
            // One-shot requests that got no answer left no watch; persistent ones must be looked at again anyway.
            for (at, watch) in watcher.watches.iter_mut().enumerate() {
                if watch.arming == Arming::Asked {
                    watch.arming = Arming::Idle;
                    watcher.queue.push_back(at as u32);
                }
            }
        }
        if session.state() == State::Attached || session.state() == State::Disconnected {
            load.wanted_ns.get_or_insert(now_ns);
        }
        if was_attached && session.state() != State::Closed {
            let what = What::Lost(reason.to_owned());
            shared.happened(Happening { at_ns: now_ns, session: load.number, member: load.member, what });
        }
        was_attached
    }

    /// Records an operation that will not be answered any more.
    pub(super) fn lost(&self, shared: &mut Shared, load: &Load, lost: &Answer, code: ErrorCode) {
        let tag = lost.tag;
        if matches!(lost.op, Op::Set | Op::Multi) {
            shared.ledger.unknown(tag.about);
        }
        shared.recorder.record(&Completion {
            phase: tag.phase,
            op: lost.op,
            outcome: Outcome::Error(code),
            due_ns: tag.due_ns,
            sent_ns: tag.sent_ns,
            done_ns: lost.done_ns,
            bytes: tag.bytes,
        });
        self.offer(shared, load, lost, Outcome::Error(code));
    }

    /// The session has a connection again (or its first).
    pub(super) fn attached(&self, shared: &mut Shared, load: &mut Load, now_ns: u64, again: bool) {
        let wanted_ns = load.wanted_ns.take().unwrap_or(now_ns);
        if let Role::Watcher(watcher) = &mut load.role
            && watcher.wanted
        {
            if !again {
                watcher.watches.iter_mut().for_each(|watch| watch.arming = Arming::Idle);
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            } else if watcher.kind != WatchKind::OneShot {
                // They stand again, but what changed meanwhile was not told.
                watcher.queue = (0..watcher.watches.len() as u32).collect();
            }
        }
        if shared.phases.stage != Stage::Running {
            self.control.connected_to(load.member);
            return;
        }
        shared.recorder.record(&Completion {
            phase: shared.phases.current as u16,
            op: Op::Connect,
            outcome: Outcome::Ok,
            due_ns: wanted_ns,
            sent_ns: wanted_ns,
            done_ns: now_ns,
            bytes: 0,
        });
        let what = What::Reattached { away_ns: now_ns - wanted_ns.min(now_ns) };
        shared.happened(Happening { at_ns: now_ns, session: load.number, member: load.member, what });
    }

    /// The cluster has forgotten the session: its ephemerals are gone, its watches too.
    pub(super) fn expired(&self, shared: &mut Shared, load: &mut Load, now_ns: u64) {
        load.created.retain(|scratch| !matches!(scratch, Scratch::Ephemeral(_)));
        if shared.phases.stage == Stage::Waiting {
            return;
        }
        shared.recorder.record(&Completion {
            phase: shared.phases.current as u16,
            op: Op::Connect,
            outcome: Outcome::Error(ErrorCode::SessionExpired),
            due_ns: load.wanted_ns.unwrap_or(now_ns),
            sent_ns: load.wanted_ns.unwrap_or(now_ns),
            done_ns: now_ns,
            bytes: 0,
        });
        let happening =
            Happening { at_ns: now_ns, session: load.number, member: load.member, what: What::Expired };
        shared.happened(happening);
    }
}
