//! One session of the load with its connection's buffers: what a worker keeps per session.

use super::watching::Watcher;
use crate::op::Op;
use crate::session::Session;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

/// What comes back with a reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) due_ns: u64,
    pub(super) sent_ns: u64,
    /// A key, the number of a scratch znode, or the index of a watch.
    pub(super) about: u64,
    /// Payload bytes sent.
    pub(super) bytes: u32,
    pub(super) phase: u16,
    pub(super) kind: Kind,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An operation of the plan.
    Op(Op),
    /// getData that leaves a one-shot watch.
    Arm,
    /// addWatch.
    AddWatch,
    /// A read that tells the version at which a persistent watch stands.
    Learn,
    /// A read that tells what a watch that is being taken away should have told.
    Settle,
    /// removeWatches.
    Disarm,
    /// exists of an ephemeral znode, at the end.
    Ephemeral,
    /// closeSession.
    Close,
}

/// An operation that is due and has not been sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) due_ns: u64,
    /// Its index in the phase's plan.
    pub(super) index: u64,
    pub(super) phase: u16,
}

/// A znode that the session created and that has not been deleted: what its name is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scratch {
    /// `p<n>`.
    Persistent(u32),
    /// `e<n>`.
    Ephemeral(u32),
    /// `q<10 digits>`.
    Sequential(u32),
}

impl Scratch {
    /// As one number, for a tag.
    pub(super) fn pack(self) -> u64 {
        let (kind, n) = match self {
            Self::Persistent(n) => (0, n),
            Self::Ephemeral(n) => (1, n),
            Self::Sequential(n) => (2, n),
        };
        kind << 32 | u64::from(n)
    }

    /// The reverse of [`pack`](Self::pack).
    pub(super) fn unpack(packed: u64) -> Self {
        let n = packed as u32;
        match packed >> 32 {
            0 => Self::Persistent(n),
            1 => Self::Ephemeral(n),
            _ => Self::Sequential(n),
        }
    }

    /// The znode of that name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let number = name.get(1..)?.parse().ok()?;
        match name.as_bytes()[0] {
            b'p' => Some(Self::Persistent(number)),
            b'e' => Some(Self::Ephemeral(number)),
            b'q' => Some(Self::Sequential(number)),
            _ => None,
        }
    }

    /// Appends `/<name>`.
    pub(super) fn push_name(self, path: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Persistent(n) => write!(path, "/p{n}"),
            Self::Ephemeral(n) => write!(path, "/e{n}"),
            Self::Sequential(n) => write!(path, "/q{n:010}"),
        };
    }
}

/// Znodes of a session of which it is not known whether they are there, at most; with more nothing is concluded.
const UNCERTAIN_MAX: usize = 100_000;

/// What a session knows of the znodes that it made.
#[derive(Debug, Default)]
pub(crate) struct Scratches {
    /// Acknowledged, and not deleted.
    pub(super) created: Vec<Scratch>,
    /// So many names were used, deleted ones included.
    pub(super) next: u32,
    /// Created or deleted without an acknowledgement, or gone with a session that expired.
    pub(super) uncertain: Vec<Scratch>,
    /// There were more than [`UNCERTAIN_MAX`].
    pub(super) unjudged: bool,
}

impl Scratches {
    /// Stands for the number of a sequential znode that was not told.
    pub(super) const UNTOLD: Scratch = Scratch::Sequential(u32::MAX);

    /// A create or delete was not acknowledged.
    #[cold]
    pub(super) fn uncertain(&mut self, op: Op, scratch: Scratch) {
        match self.uncertain.len() < UNCERTAIN_MAX {
            true if op == Op::CreateSequential => self.uncertain.push(Self::UNTOLD),
            true => self.uncertain.push(scratch),
            false => self.unjudged = true,
        }
    }
}

/// What a session does in the run.
#[derive(Debug)]
pub(super) enum Role {
    /// Issues the plan's operations.
    Issuer,
    /// Watches.
    Watcher(Watcher),
}

/// The half of a connection that writes, and what is waiting to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) bytes: BytesMut,
    pub(super) writer: Option<OwnedWriteHalf>,
    /// The socket's buffer is full; the connection's task goes on when it is not.
    blocked: bool,
    /// The connection's task.
    pub(super) waker: Option<Waker>,
    /// Why the connection must end, set outside its task.
    pub(super) doomed: Option<String>,
}

impl Outbox {
    /// One write call for everything there is. What the socket does not take is left to the connection's task.
    pub(super) fn flush(&mut self) {
        if self.bytes.is_empty() || self.blocked {
            return;
        }
        let Some(writer) = &self.writer else { return };
        match writer.try_write(&self.bytes) {
            Ok(n) if n == self.bytes.len() => self.bytes.clear(),
            Ok(n) => {
                self.bytes.advance(n);
                self.block();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.block(),
            Err(error) => self.doom(format!("write: {error}")),
        }
    }

    fn block(&mut self) {
        self.blocked = true;
        self.wake();
    }

    /// Ends the connection, from wherever.
    pub(super) fn doom(&mut self, reason: String) {
        self.doomed.get_or_insert(reason);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The connection task's part: writes on when the socket takes bytes again.
    pub(super) fn poll_blocked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.blocked {
            let Some(writer) = &mut self.writer else { return Ok(()) };
            match Pin::new(writer).poll_write(cx, &self.bytes) {
                Poll::Pending => return Ok(()),
                Poll::Ready(written) => {
                    let n = written?;
                    self.bytes.advance(n);
                    self.blocked = !self.bytes.is_empty();
                }
            }
        }
        Ok(())
    }

    /// Forgets the connection.
    pub(super) fn reset(&mut self) {
        self.bytes.clear();
        self.writer = None;
        self.blocked = false;
        self.doomed = None;
    }
}

/// A session and everything around it.
pub(super) struct Slot {
    pub(super) session: Session<Tag>,
    pub(super) outbox: Outbox,
    pub(super) load: Load,
}

/// The part of a slot that replies change.
pub(super) struct Load {
    /// Issuers are numbered from 0 over all workers, watchers behind them.
    pub(super) number: u32,
    /// Members in the order in which they are tried; indices into the address list.
    pub(super) route: Vec<u16>,
    /// The member that it is connected to, or was last.
    pub(super) member: u16,
    /// The member that it was attached to last.
    pub(super) home: Option<u16>,
    pub(super) role: Role,
    /// Due and not sent, oldest first.
    pub(super) backlog: VecDeque<Queued>,
    /// Operations of the current phase handed out in a closed loop.
    pub(super) handed_out: u64,
    pub(super) scratch: Scratches,
    /// When the connection was lost or first wanted; `None` while attached.
    pub(super) wanted_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_names_survive_packing() {
        for scratch in [Scratch::Persistent(0), Scratch::Ephemeral(7), Scratch::Sequential(u32::MAX)] {
            assert_eq!(Scratch::unpack(scratch.pack()), scratch);
            let mut path = String::new();
            scratch.push_name(&mut path);
            assert_eq!(Scratch::of_name(&path[1..]), Some(scratch));
        }
        let mut path = String::from("/s");
        Scratch::Sequential(42).push_name(&mut path);
        assert_eq!(path, "/s/q0000000042");
    }
}
