//! A transaction's way through a member of an ensemble: logged, durable, committed.
//!
//! The member that a client talks to traces its request ([`Traced`](super::Traced)); every member that logs the
//! transaction adds its part. Who is traced is known from the transaction itself, which names session and xid,
//! so only requests kept for their id have trails: nobody tells the others that a request was slow.

use std::collections::VecDeque;

use zoometry_wire::{SessionId, Zxid};

use super::Tracer;
use crate::disk_thread::Durable;

/// Trails that wait for their disk or their commit; beyond it new ones are let go, and counted.
pub const OPEN_MAX: usize = 4096;

/// What the member is to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It proposed it.
    Leading {
        /// When it began to prepare it, ns on the process's clock.
        prep_ns: u64,
    },
    /// It logged a leader's proposal.
    Following,
    /// It proposed it for its own client, whose request has told the rest: a quorum of others was faster than the
    /// disk here.
    Answered,
}

/// A transaction that is kept, whole. Times are ns on the process's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// Whose request it is.
    pub session: SessionId,
    /// Its number.
    pub xid: i32,
    /// Its place.
    pub zxid: Zxid,
    /// What this member is to it.
    pub way: Way,
    /// When it was in the disk's queue.
    pub appended_ns: u64,
    /// The sync that made it durable here.
    pub durable: Durable,
    /// When it was known to be committed.
    pub committed_ns: u64,
}

#[derive(Debug)]
struct Open {
    trail: Trail,
    is_durable: bool,
    is_committed: bool,
}

/// The trails that are not at their ends, in the order of their zxids.
#[derive(Debug, Default)]
pub struct Trails {
    open: VecDeque<Open>,
}

impl Trails {
    /// A transaction was put into the disk's queue. `payload` begins with its header.
    pub fn appended(&mut self, tracer: &Tracer, zxid: Zxid, payload: &[u8], way: Way, now_ns: u64) {
        let Some((session, xid)) = who(payload) else { return };
        if xid <= 0 || !tracer.keeps(session, xid) {
            return;
        }
        if self.open.len() >= OPEN_MAX {
            return tracer.suppressed(1);
        }
        let (durable, committed_ns) = (Durable::default(), 0);
        let trail = Trail { session, xid, zxid, way, appended_ns: now_ns, durable, committed_ns };
        self.open.push_back(Open { trail, is_durable: false, is_committed: false });
    }

    /// The disk has reported.
    pub fn durable(&mut self, tracer: &Tracer, durable: &Durable) {
        for open in self.open.iter_mut().take_while(|open| open.trail.zxid <= durable.upto) {
            if !open.is_durable {
                (open.is_durable, open.trail.durable) = (true, *durable);
            }
        }
        self.finish(tracer);
    }

    /// Everything up to `zxid` is committed.
    pub fn committed(&mut self, tracer: &Tracer, zxid: Zxid, now_ns: u64) {
        for open in self.open.iter_mut().take_while(|open| open.trail.zxid <= zxid) {
            if !open.is_committed {
                (open.is_committed, open.trail.committed_ns) = (true, now_ns);
            }
        }
        self.finish(tracer);
    }

    /// The transaction is this member's own client's, whose request tells all of it, but for a disk that is late.
    pub fn tell_elsewhere(&mut self, zxid: Zxid, is_durable: bool) {
        let Ok(index) = self.open.binary_search_by_key(&zxid, |open| open.trail.zxid) else { return };
        if is_durable {
            self.open.remove(index);
        } else {
            self.open[index].trail.way = Way::Answered;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What was under way is over: the member has lost its leader.
    pub fn clear(&mut self) {
        self.open.clear();
    }

    fn finish(&mut self, tracer: &Tracer) {
        while let Some(open) = self.open.pop_front_if(|open| open.is_durable && open.is_committed) {
            tracer.trail(open.trail);
        }
    }
}

/// Session and xid of a transaction's header.
fn who(payload: &[u8]) -> Option<(SessionId, i32)> {
    let (session, rest) = payload.split_first_chunk::<8>()?;
    let xid = rest.first_chunk::<4>()?;
    Some((SessionId(i64::from_be_bytes(*session)), i32::from_be_bytes(*xid)))
}
