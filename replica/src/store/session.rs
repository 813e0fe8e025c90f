//! Who is alive. Source: `SessionTrackerImpl.java`, `ExpiryQueue.java`, `ZooKeeperServer.generatePasswd`;
//! reference §2.3 and §6.
//!
//! Sessions expire in buckets of one tick: a deadline is rounded up to the next tick, so a session is never
//! ended early and at most one tick late. A touch only moves the session's own deadline; the bucket it lies
//! in is looked at when its time has come, and the session is put into a later one if it was heard of
//! since. So a touch costs one look-up, whatever the number of sessions.
//!
//! Times are milliseconds on a clock that only goes forward; whoever runs the tracker brings it.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use zoometry_wire::{ErrorCode, SessionId};

/// Bytes of a session's password.
pub const PASSWORD_LEN: usize = 16;

/// The password of a session: every member computes the same one, so a session can re-attach anywhere.
/// (It is what `java.util.Random` gives for a seed made of the id: it keeps honest clients apart, no more.)
pub fn password(id: SessionId) -> [u8; PASSWORD_LEN] {
    const MASK: u64 = (1 << 48) - 1;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    let mut state = ((id.0 as u64 ^ 0xB341_5C00) ^ MULTIPLIER) & MASK;
    let mut bytes = [0; PASSWORD_LEN];
    for group in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        group.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// Whether `offered` opens session `id`.
pub fn password_opens(id: SessionId, offered: &[u8]) -> bool {
    id.0 != 0 && offered == password(id)
}

/// The first session id that a server issues after a start at `elapsed_ms`; the following ones count up.
/// The top byte is the low byte of the server's id.
pub fn first_id(elapsed_ms: u64, server_id: i64) -> SessionId {
    let id = (((elapsed_ms << 24) >> 8) | ((server_id as u64) << 56)) as i64;
    // This one value marks containers (`EphemeralType.CONTAINER_EPHEMERAL_OWNER`).
    SessionId(if id == i64::MIN { id + 1 } else { id })
}

#[derive(Debug, Clone, Copy)]
struct Tracked {
    timeout_ms: i32,
    deadline_ms: u64,
    closing: bool,
    /// On a learner: it was heard of here since the leader was last told.
    heard: bool,
}

/// What a member does with what it hears of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It decides when they are over: a leader, or a server alone.
    Deadlines,
    /// It tells its leader: a learner.
    Touches,
}

/// The sessions that one member knows, each with the time until which it lives or, on a learner, with
/// whether it was heard of since the leader last asked.
#[derive(Debug)]
pub struct SessionTracker {
    tick_ms: u64,
    keeping: Keeping,
    sessions: FxHashMap<SessionId, Tracked>,
    /// On a learner: those heard of, in the order in which they were.
    heard: Vec<SessionId>,
    /// Sessions by the end of the bucket in which they will next be looked at.
    buckets: BTreeMap<u64, Vec<SessionId>>,
}

impl SessionTracker {
    /// No sessions; buckets of `tick_ms`.
    pub fn new(tick_ms: u64) -> Self {
        Self {
            tick_ms: tick_ms.max(1),
            keeping: Keeping::Deadlines,
            sessions: FxHashMap::default(),
            heard: Vec::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Begins anew in another role: these are the sessions, each with its full timeout (ms) ahead of it.
    pub fn begin(&mut self, keeping: Keeping, sessions: impl Iterator<Item = (SessionId, i32)>, now_ms: u64) {
        *self = Self { keeping, ..Self::new(self.tick_ms) };
        for (id, timeout_ms) in sessions {
            self.open(id, timeout_ms, now_ms);
        }
    }

    fn deadline(&self, now_ms: u64, timeout_ms: i32) -> u64 {
        ((now_ms + timeout_ms.max(0) as u64) / self.tick_ms + 1) * self.tick_ms
    }

    /// Starts (or, on a restart, continues) to track a session, with a full timeout ahead of it.
    pub fn open(&mut self, id: SessionId, timeout_ms: i32, now_ms: u64) {
        let deadline_ms = self.deadline(now_ms, timeout_ms);
        let tracked = Tracked { timeout_ms, deadline_ms, closing: false, heard: false };
        let known = self.sessions.insert(id, tracked);
        if known.is_none() && self.keeping == Keeping::Deadlines {
            self.buckets.entry(deadline_ms).or_default().push(id);
        }
    }

    /// The session was heard of. False if it is not known or is being closed.
    pub fn touch(&mut self, id: SessionId, now_ms: u64) -> bool {
        let tick_ms = self.tick_ms;
        match self.sessions.get_mut(&id) {
            Some(session) if self.keeping == Keeping::Touches => {
                if !session.heard {
                    session.heard = true;
                    self.heard.push(id);
                }
                true
            }
            Some(session) if !session.closing => {
                let deadline = ((now_ms + session.timeout_ms.max(0) as u64) / tick_ms + 1) * tick_ms;
                session.deadline_ms = session.deadline_ms.max(deadline);
                true
            }
            _ => false,
        }
    }

    /// On a learner: the sessions heard of since the last call, with their timeouts (ms), for the leader.
    /// At most `most` of them, the longest heard first; the others stay for the next time.
    pub fn take_heard(&mut self, most: usize) -> Vec<(SessionId, i32)> {
        let most = most.min(self.heard.len());
        let mut heard = Vec::with_capacity(most);
        for id in self.heard.drain(..most) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.heard = false;
                heard.push((id, session.timeout_ms));
            }
        }
        heard
    }

    /// Whether the session is known and not being closed.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.check(id).is_ok()
    }

    /// Whether the session may ask for writes.
    pub fn check(&self, id: SessionId) -> Result<(), ErrorCode> {
        match self.sessions.get(&id) {
            Some(session) if !session.closing => Ok(()),
            _ => Err(ErrorCode::SessionExpired),
        }
    }

    /// Its closing is on its way: nothing more is accepted from it.
    pub fn set_closing(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = true;
        }
    }

    /// It is over.
    pub fn remove(&mut self, id: SessionId) {
        // Its entry in a bucket goes when that bucket's time comes.
        self.sessions.remove(&id);
    }

    /// A session's timeout, ms.
    pub fn timeout_ms(&self, id: SessionId) -> Option<i32> {
        self.sessions.get(&id).map(|session| session.timeout_ms)
    }

    /// Sessions tracked.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is tracked.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions whose time is over at `now_ms`, marked as closing; each is named once.
    pub fn expire(&mut self, now_ms: u64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= now_ms) {
            for id in bucket.remove() {
                match self.sessions.get_mut(&id) {
                    Some(session) if session.deadline_ms > now_ms => {
                        self.buckets.entry(session.deadline_ms).or_default().push(id);
                    }
                    Some(session) if !session.closing => {
                        session.closing = true;
                        expired.push(id);
                    }
                    _ => {}
                }
            }
        }
        expired.sort_unstable();
        expired
    }

    /// When [`expire`](Self::expire) next has something to look at, ms.
    pub fn next_look_ms(&self) -> Option<u64> {
        self.buckets.keys().next().copied()
    }

    /// Sessions by the time at which they will expire unless heard of, for `dump`; of many only `most`.
    pub fn by_deadline(&self, most: usize) -> BTreeMap<u64, Vec<SessionId>> {
        let mut sets: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
        for (id, session) in self.sessions.iter().take(most) {
            sets.entry(session.deadline_ms).or_default().push(*id);
        }
        sets.values_mut().for_each(|ids| ids.sort_unstable());
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_apaches() {
        let cases: [(i64, u128); 4] = [
            (0x0300_0017_fbb0_0000, 0xa202fc8987dc97e050fb3e17a829fd1e),
            (0x0100_0000_0000_0000, 0xf22acd4a97e69d6d20a49bb638eadb38),
            (1, 0x054cc74a37327db215e702e20c73f005),
            (0x0100_0017_fb7f_0000, 0xb3ed7a27c4387f68490fdcbfad605c61),
        ];
        for (id, expected) in cases {
            assert_eq!(password(SessionId(id)), expected.to_be_bytes(), "{id:x}");
        }
        assert!(!password_opens(SessionId(0), &password(SessionId(0))));
    }

    #[test]
    fn first_ids_are_apaches() {
        assert_eq!(first_id(0x123_4567_89ab, 200).0 as u64, 0xc823_4567_89ab_0000);
    }

    #[test]
    fn a_silent_session_expires_within_a_tick_and_never_early() {
        let mut tracker = SessionTracker::new(2000);
        let id = SessionId(1);
        tracker.open(id, 4000, 500);
        for now in (500..=4500).step_by(100) {
            assert_eq!(tracker.expire(now), [], "at {now}");
        }
        let at = (4501..).find(|now| !tracker.expire(*now).is_empty()).unwrap();
        assert!(at <= 6500, "{at}");
        assert_eq!(tracker.check(id), Err(ErrorCode::SessionExpired));
        assert!(!tracker.touch(id, at), "a closing session cannot be revived");
        assert_eq!(tracker.expire(at + 100_000), [], "named once");
    }

    #[test]
    fn a_touched_session_lives() {
        let mut tracker = SessionTracker::new(100);
        tracker.open(SessionId(1), 1000, 0);
        for now in (0..20_000).step_by(900) {
            assert_eq!(tracker.expire(now), []);
            assert!(tracker.touch(SessionId(1), now));
        }
        tracker.remove(SessionId(1));
        assert_eq!(tracker.expire(100_000), []);
        assert_eq!(tracker.next_look_ms(), None, "nothing is kept of a session that is gone");
    }

    #[test]
    fn a_learner_tells_once_whom_it_heard_and_expires_nobody() {
        let mut tracker = SessionTracker::new(100);
        let known = [(SessionId(1), 1000), (SessionId(2), 2000), (SessionId(3), 3000)];
        tracker.begin(Keeping::Touches, known.into_iter(), 0);
        for id in [3, 1, 3] {
            assert!(tracker.touch(SessionId(id), 50));
        }
        assert!(!tracker.touch(SessionId(9), 50));
        tracker.remove(SessionId(1));
        assert_eq!(tracker.take_heard(9), [(SessionId(3), 3000)]);
        assert_eq!(tracker.take_heard(9), []);
        for id in [3, 2] {
            assert!(tracker.touch(SessionId(id), 60));
        }
        assert_eq!(tracker.take_heard(1), [(SessionId(3), 3000)], "what a packet takes");
        assert!(tracker.touch(SessionId(3), 70));
        assert_eq!(tracker.take_heard(2), [(SessionId(2), 2000), (SessionId(3), 3000)]);
        assert_eq!(tracker.expire(1_000_000), []);
        assert_eq!(tracker.next_look_ms(), None, "a learner keeps no deadlines");
    }
}
