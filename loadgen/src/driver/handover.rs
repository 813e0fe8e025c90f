//! How a worker's notes leave it while the load goes on.

use super::Happening;
use super::watching::Heard;
use crate::closeup::Close;
use crate::recorder::Part;
use crate::results::GeneratorSample;
use std::sync::Mutex;

/// What a worker has noted since the last time.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Everything that ended before this moment has been handed over.
    pub(crate) until_ns: u64,
    pub(crate) part: Part,
    pub(crate) samples: Vec<GeneratorSample>,
    pub(crate) happenings: Vec<Happening>,
    /// Some may be younger than `until_ns`.
    pub(crate) closes: Vec<Close>,
    /// Some may be younger than `until_ns`.
    pub(crate) heard: Heard,
}

/// Between a worker, which puts something here several times a second, and the thread that writes it. It holds what the worker noted
/// since that thread came last; a thread that does not come ends the run.
#[derive(Debug, Default)]
pub(crate) struct Handover(Mutex<Batch>);

impl Handover {
    /// The worker's side.
    pub(super) fn put(&self, batch: Batch) {
        let mut waiting = self.0.lock().expect("no thread panics holding it");
        waiting.until_ns = batch.until_ns;
        waiting.part.append(batch.part);
        waiting.samples.extend(batch.samples);
        waiting.happenings.extend(batch.happenings);
        waiting.closes.extend(batch.closes);
        waiting.heard.append(batch.heard);
    }

    /// The other side.
    pub(crate) fn take(&self) -> Batch {
        let mut waiting = self.0.lock().expect("no thread panics holding it");
        let until_ns = waiting.until_ns;
        std::mem::replace(&mut waiting, Batch { until_ns, ..Batch::default() })
    }
}
