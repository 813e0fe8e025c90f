//! The way in to the node: a queue, and a door that stands open while nobody is at work.
//!
//! The node is behind a lock. Its thread holds it while there are events in the queue. Who brings an event when
//! nobody is at work goes in and performs it at once: waking the thread takes longer than most events do, and on
//! an idle member a write would be woken for at every station of its way. Who finds somebody at work, or the
//! queue not empty, leaves the event there; so a busy node is its thread's, as if there were no door, and events
//! of one source stay in their order.
//!
//! Not every event may be performed by whoever brings it ([`Node::welcomes`]): those that take long, or wait for
//! the disk, are the thread's.
//!
//! **Lock order: the node's lock before every other.** Visitors hold none when they come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{EVENTS_PER_FLUSH, Node, NodeEvent};
use crate::clock;

/// The process ends with this code when the node has panicked (Apache's `UNEXPECTED_ERROR`).
pub const EXIT_PANICKED: i32 = 1;

/// The way to the node; clones lead to the same one.
#[derive(Clone, Default)]
pub struct NodeHandle(Arc<Home>);

#[derive(Default)]
struct Home {
    queue: Mutex<Queue>,
    work: Condvar,
    /// `None` before it has begun and after it has ended.
    node: Mutex<Option<Node>>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<NodeEvent>,
    /// The thread sleeps: whoever leaves an event must wake it.
    asleep: bool,
    /// Somebody else is at work, and wakes the thread when he goes, if there is need.
    visited: bool,
}

impl Queue {
    /// Whether the thread has to be woken now; who is told so does it.
    fn must_wake(&mut self) -> bool {
        !self.visited && !self.events.is_empty() && std::mem::take(&mut self.asleep)
    }
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle").field("waiting", &self.0.queue.lock().events.len()).finish()
    }
}

impl NodeHandle {
    /// Has an event performed: here and now if nobody is at work, else by the node's thread. The caller holds no
    /// lock. A node that has stopped takes no more; its clients are being closed.
    pub fn send(&self, event: NodeEvent) {
        let Some(mut at_work) = self.0.node.try_lock() else { return self.leave(event) };
        let Some(node) = at_work.as_mut().filter(|node| node.welcomes(&event) && self.enter()) else {
            drop(at_work);
            return self.leave(event);
        };
        let _ending = EndWithPanic;
        node.step(event);
        node.flush_links();
        drop(at_work);
        let mut queue = self.0.queue.lock();
        queue.visited = false;
        self.wake(queue);
    }

    /// Whether a visitor may go to work: whoever has left an event was before him.
    fn enter(&self) -> bool {
        let mut queue = self.0.queue.lock();
        queue.visited = queue.events.is_empty();
        queue.visited
    }

    /// Leaves an event for the node's thread.
    pub fn leave(&self, event: NodeEvent) {
        let mut queue = self.0.queue.lock();
        queue.events.push_back(event);
        self.wake(queue);
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.must_wake() {
            drop(queue);
            self.0.work.notify_one();
        }
    }

    /// The node's thread: runs until the node is told to stop and everything under way has been answered. Members
    /// of an ensemble do not wait for the others.
    pub fn run(&self, node: Node) {
        *self.0.node.lock() = Some(node);
        let mut events = VecDeque::new();
        loop {
            let mut at_work = self.0.node.lock();
            // Dropped before the lock: nobody comes in to a node in pieces.
            let _ending = EndWithPanic;
            let Some(node) = at_work.as_mut() else { return };
            // With the node's lock held: a visitor who finds the queue empty may go before what is left in it only.
            std::mem::swap(&mut events, &mut self.0.queue.lock().events);
            while !events.is_empty() {
                for event in events.drain(..events.len().min(EVENTS_PER_FLUSH)) {
                    node.step(event);
                    node.tick();
                }
                node.flush_links();
            }
            node.tick();
            node.flush_links();
            if node.has_ended() {
                let node = at_work.take();
                drop(at_work);
                return node.into_iter().for_each(Node::end);
            }
            let wait = Duration::from_millis(node.next_tick_ms.saturating_sub(clock::now_ms()));
            let mut queue = self.0.queue.lock();
            if queue.events.is_empty() {
                queue.asleep = true;
                drop(at_work);
                self.0.work.wait_for(&mut queue, wait);
                queue.asleep = false;
            }
        }
    }
}

/// A member whose node is in pieces must not go on answering. The panic's hook has spoken.
struct EndWithPanic;

impl Drop for EndWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(EXIT_PANICKED);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
