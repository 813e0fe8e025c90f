//! The order of one connection's requests: which may run now, which waits, and for what.
//!
//! ZooKeeper answers the requests of a session in the order in which they were sent, and a read sees every
//! write of its own session that was sent before it and none that was sent behind it
//! (`CommitProcessor.java`). So a read may run at once only while no write is outstanding; otherwise it waits
//! *behind that write*, and whoever applies the write runs the reads that follow it before the next write of
//! any session is applied.
//!
//! Invariant: outside of a completion the head of the queue is a write, so a queue without writes is empty.

use std::collections::VecDeque;

/// Requests not yet answered, oldest first. `W` names a write on its way through the log; `R` is whatever is
/// done and answered on this member: a read, a ping, a refusal.
#[derive(Debug)]
pub struct Pipeline<W, R> {
    /// Each with what its owner says that it comes to, in bytes.
    queue: VecDeque<(Slot<W, R>, usize)>,
    writes: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Slot<W, R> {
    Write(W),
    Read(R),
}

impl<W, R> Default for Pipeline<W, R> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), writes: 0, bytes: 0 }
    }
}

impl<W, R> Pipeline<W, R> {
    /// Whether a read that arrives now may run now.
    pub fn is_clear(&self) -> bool {
        self.queue.is_empty()
    }

    /// Requests not yet answered.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes not yet answered.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// What the requests not yet answered come to, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A write of so many bytes was handed on; its answer comes with [`complete_write`](Self::complete_write).
    pub fn push_write(&mut self, write: W, bytes: usize) {
        self.writes += 1;
        self.push(Slot::Write(write), bytes);
    }

    /// A read of so many bytes has to wait for the writes in front of it.
    pub fn push_read(&mut self, read: R, bytes: usize) {
        assert!(self.writes > 0, "a read waits only behind a write");
        self.push(Slot::Read(read), bytes);
    }

    fn push(&mut self, slot: Slot<W, R>, bytes: usize) {
        self.bytes += bytes;
        self.queue.push_back((slot, bytes));
    }

    fn pop(&mut self) -> Option<Slot<W, R>> {
        let (slot, bytes) = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(slot)
    }

    /// The oldest write, if it is the one that `is` recognises, taken out because it has been applied. The
    /// caller answers it and then drains [`next_read`](Self::next_read).
    pub fn complete_write(&mut self, is: impl FnOnce(&W) -> bool) -> Option<W> {
        match self.queue.front() {
            Some((Slot::Write(write), _)) if is(write) => {}
            _ => return None,
        }
        match self.pop() {
            Some(Slot::Write(write)) => {
                self.writes -= 1;
                Some(write)
            }
            _ => unreachable!("the head was a write"),
        }
    }

    /// The next read whose turn has come, after a completed write.
    pub fn next_read(&mut self) -> Option<R> {
        if !matches!(self.queue.front(), Some((Slot::Read(_), _))) {
            return None;
        }
        match self.pop() {
            Some(Slot::Read(read)) => Some(read),
            _ => unreachable!("the head was a read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(pipeline: &mut Pipeline<i32, i32>) -> Vec<i32> {
        std::iter::from_fn(|| pipeline.next_read()).collect()
    }

    #[test]
    fn reads_run_between_the_writes_around_them() {
        let mut pipeline = Pipeline::default();
        pipeline.push_write(1, 100);
        pipeline.push_read(2, 20);
        pipeline.push_read(3, 20);
        pipeline.push_write(4, 100);
        pipeline.push_read(5, 20);
        assert_eq!(pipeline.bytes(), 260);
        assert_eq!(drain(&mut pipeline), [], "nothing runs before the first write is applied");
        assert_eq!(pipeline.complete_write(|w| *w == 1), Some(1));
        assert_eq!(drain(&mut pipeline), [2, 3], "not 5: it must see write 4");
        assert!(!pipeline.is_clear());
        assert_eq!(pipeline.bytes(), 120);
        assert_eq!(pipeline.complete_write(|w| *w == 4), Some(4));
        assert_eq!(drain(&mut pipeline), [5]);
        assert!(pipeline.is_clear());
        assert_eq!(pipeline.bytes(), 0);
    }

    #[test]
    fn a_write_of_another_incarnation_completes_nothing() {
        let mut pipeline: Pipeline<i32, i32> = Pipeline::default();
        assert_eq!(pipeline.complete_write(|_| true), None);
        pipeline.push_write(1, 100);
        assert_eq!(pipeline.complete_write(|w| *w == 9), None);
        assert_eq!(pipeline.writes(), 1);
    }
}
