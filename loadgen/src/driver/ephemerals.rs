//! Whether ephemeral znodes are still there, asked by the sessions that own them, when the load is over and before they are closed.
//!
//! An ephemeral whose creation was acknowledged must exist as long as its session lives, whatever happened to the members. Those of
//! sessions that expired are gone rightly, and counted apart. One whose deletion was sent is nobody's business any more.

use super::slot::{Kind, Scratch, Tag};
use super::worker::Worker;
use super::{encode, slot::Slot};
use crate::session::State;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use zoometry_wire::{ErrorCode, OpCode};

/// All answers must be there within this time; what is not stays unchecked.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of ephemeral znodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ephemerals {
    /// Looked for at the end by a session that never expired since it made them, or missed when that was to delete them.
    pub checked: u64,
    /// Of these, not there.
    pub lost: u64,
    /// Gone with sessions that expired.
    pub expired: u64,
    /// The first that was lost, in words.
    pub first_lost: Option<String>,
}

impl Ephemerals {
    /// Adds another worker's.
    pub(super) fn merge(&mut self, other: Ephemerals) {
        self.checked += other.checked;
        self.lost += other.lost;
        self.expired += other.expired;
        self.first_lost = self.first_lost.take().or(other.first_lost);
    }
}

impl Worker {
    /// Asks for all of them.
    pub(super) async fn look_for_ephemerals(&self) {
        let mut asked = self.shared.borrow().ephemerals.checked;
        for slot in &self.slots[..self.issuers] {
            let Slot { session, outbox, load } = &mut *slot.borrow_mut();
            if session.state() != State::Attached {
                continue;
            }
            for scratch in load.scratch.created.iter().filter(|s| matches!(s, Scratch::Ephemeral(_))) {
                let mut path = String::new();
                self.push_scratch(load.number, *scratch, &mut path);
                let about = scratch.pack();
                let tag = Tag { due_ns: 0, sent_ns: 0, about, bytes: 0, phase: 0, kind: Kind::Ephemeral };
                session.submit(OpCode::Exists, tag, &mut outbox.bytes, |out| {
                    encode::path_watch(out, &path, false);
                });
                asked += 1;
            }
            outbox.flush();
        }
        let started = Instant::now();
        while self.shared.borrow().ephemerals.checked < asked && started.elapsed() < LIMIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// One answer.
    pub(super) fn ephemeral_answered(&self, counts: &mut Ephemerals, session: u32, about: u64, err: i32) {
        counts.checked += 1;
        if err == ErrorCode::NoNode.code() {
            counts.lost += 1;
            counts.first_lost.get_or_insert_with(|| {
                let mut path = String::new();
                self.push_scratch(session, Scratch::unpack(about), &mut path);
                format!("the ephemeral {path} is gone, and its session {session} lives")
            });
        }
    }
}
