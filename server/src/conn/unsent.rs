//! What all client connections together hold: unread replies and watch events, unanswered requests.
//!
//! Each connection has limits of its own, but many within theirs could still take all memory. Beyond
//! `zoometry.maxUnsentBytes` for all of them:
//!
//! | together | what happens |
//! |---|---|
//! | half of it | a connection that holds more than [`SHARE_MIN`] is not read until it holds less |
//! | all of it | a reply longer than [`SHARE_MIN`] is refused with THROTTLEDOP before it is made |
//! | all of it | a connection that holds more than its equal share is closed: the worst are among them |
//!
//! A connection says in steps of [`STEP`] what it holds, so that short replies, which are sent at once, touch
//! nothing that connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Nobody's share is less than this, however many share.
pub(super) const SHARE_MIN: usize = 64 << 10;

/// A connection's own count and what it has told of it differ by less than this.
const STEP: usize = 16 << 10;

/// The sum over all connections.
#[derive(Debug)]
pub struct Unsent {
    limit: usize,
    bytes: AtomicUsize,
    connections: AtomicUsize,
}

impl Unsent {
    /// None yet; `limit` in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), connections: AtomicUsize::new(0) }
    }

    /// What all hold.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether connections that hold much are to be left unread.
    pub fn is_scarce(&self) -> bool {
        self.bytes() > self.limit / 2
    }

    /// Whether there is more than is allowed.
    pub fn is_over(&self) -> bool {
        self.bytes() > self.limit
    }

    /// Whether `more` bytes would be more than is allowed.
    pub fn would_be_over(&self, more: usize) -> bool {
        self.bytes().saturating_add(more) > self.limit
    }

    /// What one connection may hold once there is more than is allowed.
    pub fn share(&self) -> usize {
        (self.limit / self.connections.load(Relaxed).max(1)).max(SHARE_MIN)
    }
}

/// One connection's part of it.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<Unsent>,
    told: usize,
}

impl Held {
    /// A connection that holds nothing yet.
    pub(super) fn new(all: &Arc<Unsent>) -> Self {
        all.connections.fetch_add(1, Relaxed);
        Self { all: Arc::clone(all), told: 0 }
    }

    /// The sum it is part of.
    pub(super) fn all(&self) -> &Unsent {
        &self.all
    }

    /// The connection holds so many bytes now.
    pub(super) fn tell(&mut self, bytes: usize) {
        if bytes.abs_diff(self.told) < STEP && bytes > 0 {
            return;
        }
        if bytes > self.told {
            self.all.bytes.fetch_add(bytes - self.told, Relaxed);
        } else if bytes < self.told {
            self.all.bytes.fetch_sub(self.told - bytes, Relaxed);
        }
        self.told = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tell(0);
        self.all.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_what_each_holds_and_forgets_who_is_gone() {
        let all = Arc::new(Unsent::new(1 << 20));
        let mut one = Held::new(&all);
        let mut two = Held::new(&all);
        one.tell(100);
        assert_eq!(all.bytes(), 0, "short replies are told of by nobody");
        one.tell(300 << 10);
        two.tell(300 << 10);
        assert_eq!(all.bytes(), 600 << 10);
        assert!(all.is_scarce() && !all.is_over() && all.would_be_over(500 << 10));
        one.tell(800 << 10);
        assert!(all.is_over());
        assert_eq!(all.share(), 512 << 10, "one holds more, two does not");
        one.tell(0);
        assert_eq!(all.bytes(), 300 << 10);
        drop(two);
        assert_eq!((all.bytes(), all.share()), (0, 1 << 20));
        let many: Vec<Held> = (0..100).map(|_| Held::new(&all)).collect();
        assert_eq!(all.share(), SHARE_MIN);
        drop(many);
    }
}
