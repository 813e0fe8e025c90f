//! The life of a session's connection: opened, read until it breaks, opened again.
//!
//! What a session does when its connection is gone must not decide how long a failover takes, nor press the cluster harder than
//! clients do:
//! - a connection that was closed is opened again at once, first with the same member (it may have dropped only this connection); after
//!   silence, with the next one;
//! - a member that refuses, or closes before it has answered the connect frame or in less than [`SHORT_LIFE`], makes room for the
//!   next one at once;
//! - when all members have been tried, the session pauses: an eighth of the time since it lost its connection, within [`PAUSE`], give or
//!   take a quarter, differently for each session. So a session comes back at most about an eighth later than it could;
//! - a member that accepts and then says nothing (stopped, or cut off) is given up after an eighth of that time as well, within
//!   [`ANSWER_LIMIT`]; an established connection, like that of other clients, after two thirds of the session timeout.

use super::phases::Stage;
use super::slot::{Kind, Load, Role, Scratch, Slot};
use super::watching::Arming;
use super::worker::{Answer, Shared, Worker};
use super::{Happening, What};
use crate::closeup::Close;
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
use zoometry_wire::{ErrorCode, SessionId, Zxid};

/// Reads from one socket before others get their turn.
const READS_IN_A_ROW: u32 = 4;
/// A member gets at least and at most this long to answer the connect frame of a session that exists. A new session waits the whole of
/// it: a server may have made it without our hearing.
const ANSWER_LIMIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// Shortest and longest pause between two rounds through the members.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A connection that ends sooner counts as none: there is something about this session, or what it asks for, that the server does not
/// take, and it will hardly take it a moment later.
const SHORT_LIFE: Duration = Duration::from_millis(100);
/// Why a connection ended that was given up.
pub(super) const SILENCE: &str = "the server was silent for two thirds of the session timeout";

/// How long a member may take to accept a connection, and then to answer the connect frame: an eighth of the time since the session
/// lost its connection.
fn answer_limit(away: Duration) -> Duration {
    (away / 8).clamp(ANSWER_LIMIT.0, ANSWER_LIMIT.1)
}

/// The pause after a round through all members in vain.
fn pause(away: Duration, session: u32, round: u32) -> Duration {
    // A quarter up or down, spread over sessions and rounds without a generator of random numbers.
    let spread = session.wrapping_mul(2_654_435_761).wrapping_add(round.wrapping_mul(40_503)) >> 16 & 0xff;
    (away / 8).clamp(PAUSE.0, PAUSE.1) * (192 + spread / 2) / 256
}

impl Worker {
    /// The connection of one session, again and again until the run is over.
    pub(super) async fn keep_connected(self: Rc<Self>, at: usize) {
        let mut attempt = 0usize;
        let mut lost_ns = self.now_ns();
        self.slots[at].borrow_mut().load.wanted_ns = Some(lost_ns);
        while !self.closing.get() {
            let (member, members) = {
                let load = &mut self.slots[at].borrow_mut().load;
                load.member = load.route[attempt % load.route.len()];
                (load.member, load.route.len())
            };
            let limit = match self.slots[at].borrow().session.id() {
                SessionId(0) => ANSWER_LIMIT.1,
                _ => answer_limit(Duration::from_nanos(self.now_ns() - lost_ns)),
            };
            let began_ns = self.now_ns();
            let reason = match self.connect(at, member, limit).await {
                Ok(reader) => self.converse(at, reader, limit).await,
                Err(reason) => reason,
            };
            let was_attached = self.disconnected(at, &reason);
            let over = self.slots[at].borrow().session.state() == State::Closed;
            if over {
                break;
            }
            if was_attached && self.now_ns() - began_ns >= SHORT_LIFE.as_nanos() as u64 {
                lost_ns = self.now_ns();
                let load = &self.slots[at].borrow().load;
                let same = load.route.iter().position(|m| *m == member).unwrap_or(0);
                attempt = same + usize::from(reason == SILENCE);
                continue;
            }
            let address = self.settings.members[usize::from(member)];
            let trouble = format!("{address}: {reason}");
            *self.control.trouble.lock().expect("no thread panics holding it") = Some(trouble);
            attempt += 1;
            if attempt.is_multiple_of(members) {
                let away = Duration::from_nanos(self.now_ns() - lost_ns);
                tokio::time::sleep(pause(away, at as u32, (attempt / members) as u32)).await;
            }
        }
        self.closed.set(self.closed.get() + 1);
    }

    /// Opens a connection and writes the connect frame.
    pub(super) async fn connect(
        &self,
        at: usize,
        member: u16,
        limit: Duration,
    ) -> Result<OwnedReadHalf, String> {
        let _permit = self.connecting.acquire().await.expect("nobody closes the semaphore");
        let address = self.settings.members[usize::from(member)];
        let stream = tokio::time::timeout(limit, TcpStream::connect(address))
            .await
            .map_err(|_| format!("no connection within {limit:?}"))?
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
    pub(super) async fn converse(&self, at: usize, reader: OwnedReadHalf, limit: Duration) -> String {
        let mut conversation = std::pin::pin!(self.read_on(at, reader));
        // The timer is looked at only until the answer is there.
        let first = tokio::time::timeout(limit, conversation.as_mut()).await;
        match first {
            Ok(reason) => reason,
            Err(_) if self.slots[at].borrow().session.state() == State::Connecting => {
                format!("no answer to the connect frame within {limit:?}")
            }
            Err(_) => conversation.await,
        }
    }

    async fn read_on(&self, at: usize, mut reader: OwnedReadHalf) -> String {
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
                        // The server will close, too, if it can: nobody needs to wait for it.
                        if self.slots[at].borrow().session.state() == State::Expired {
                            return Poll::Ready("the session has expired".into());
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
            watcher.removing = 0;
            // One-shot requests that got no answer left no watch; persistent ones must be looked at again anyway.
            for (at, watch) in watcher.watches.iter_mut().enumerate() {
                if !watcher.wanted || watcher.settling {
                    watch.arming = Arming::Idle;
                } else if watch.arming == Arming::Asked {
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
    pub(super) fn lost(&self, shared: &mut Shared, load: &mut Load, lost: &Answer, code: ErrorCode) {
        let tag = lost.tag;
        match lost.op {
            Op::Set | Op::Multi => shared.ledger.unknown(tag.about),
            Op::Create | Op::CreateEphemeral | Op::CreateSequential | Op::Delete => {
                load.scratch.uncertain(lost.op, Scratch::unpack(tag.about));
            }
            _ => {}
        }
        let (at_ns, outcome) = (lost.done_ns, Outcome::Error(code));
        let response_ns = at_ns.saturating_sub(tag.due_ns);
        shared.close_up.note(Close { at_ns, response_ns, member: lost.member, op: lost.op, outcome });
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
        let from = load.home.replace(load.member).filter(|_| again);
        if let Role::Watcher(watcher) = &mut load.role
            && watcher.wanted
            && !watcher.settling
        {
            if !again {
                // A new session may see an older state than the one before it.
                for watch in &mut watcher.watches {
                    (watch.arming, watch.seen) = (Arming::Idle, false);
                }
            } else if watcher.kind != WatchKind::OneShot {
                // They stand again, but what changed meanwhile was not told.
                let armed = watcher.watches.iter_mut().filter(|watch| watch.arming == Arming::Armed);
                armed.for_each(|watch| watch.arming = Arming::Asked);
            }
            if !again || watcher.kind != WatchKind::OneShot {
                watcher.queue = (0..watcher.watches.len() as u32).collect();
                watcher.refused.clear();
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
        let what = What::Reattached { away_ns: now_ns - wanted_ns.min(now_ns), from };
        shared.happened(Happening { at_ns: now_ns, session: load.number, member: load.member, what });
    }

    /// The cluster has forgotten the session: its ephemerals are gone, its watches too.
    pub(super) fn expired(&self, shared: &mut Shared, load: &mut Load, now_ns: u64) {
        let is_ephemeral = |scratch: &mut Scratch| matches!(scratch, Scratch::Ephemeral(_));
        let gone: Vec<Scratch> = load.scratch.created.extract_if(.., is_ephemeral).collect();
        shared.ephemerals.expired += gone.len() as u64;
        gone.into_iter().for_each(|scratch| load.scratch.uncertain(Op::CreateEphemeral, scratch));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_time_away_and_differ_between_sessions() {
        let ms = Duration::from_millis;
        for session in 0..1000 {
            let short = pause(ms(1), session, 1);
            assert!(short >= ms(7) && short <= ms(13), "{short:?}");
            let long = pause(ms(800), session, 5);
            assert!(long >= ms(75) && long <= ms(125), "{long:?}");
            assert!(pause(ms(60_000), session, 9) <= ms(320));
        }
        let different: std::collections::BTreeSet<_> = (0..100).map(|s| pause(ms(800), s, 5)).collect();
        assert!(different.len() > 50, "{} of 100", different.len());
    }

    #[test]
    fn silence_is_waited_for_longer_the_longer_it_lasts() {
        let ms = Duration::from_millis;
        assert_eq!(
            (answer_limit(ms(0)), answer_limit(ms(4000)), answer_limit(ms(60_000))),
            (ms(200), ms(500), ms(3000))
        );
    }
}
