//! What a worker thread notes down of every operation, and what the workers' notes come to together.
//!
//! One [`Recorder`] per worker thread: no locks, no sharing, and no allocation per operation (memory is
//! taken when a (phase, op, outcome) is first seen and when an interval closes). Several times a second a worker
//! hands over what has ended as a [`Part`] and forgets it, so its memory does not grow with time. [`Merger`] puts the
//! workers' parts together, interval by interval; histograms are merged by adding, percentiles are never averaged.
//! [`Recording`] is a whole run in memory, for everything that is computed of one.
//!
//! Three clocks per operation: *due*, *sent*, *done*. Response = done − due, service = done − sent,
//! lag = sent − due. A clock that runs backwards (sent before due) counts as zero.
//!
//! What is kept, and its limits:
//! - per (phase, op, outcome) and interval of the time *done*: response, service and lag in bins of three
//!   significant digits, 1 ns to [`MAX_NS`]; longer times count as [`MAX_NS`];
//! - per (phase, op) and interval of the time *due*: operations offered, and missed;
//! - the first and the last success of reads and of writes in every millisecond, from which gaps are
//!   found to the microsecond.
//!
//! An interval lasts [`INTERVAL_NS`], or twice as long in a run of more than half an hour ([`interval_of`]). In memory a
//! [`Recording`] keeps at most [`MAX_INTERVALS`]: beyond, pairs are merged, so a long run keeps all counts and loses
//! resolution in time.

mod bins;
mod merge;
mod track;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use crate::op::{Op, Outcome};

use bins::OpenBins;
pub(crate) use bins::rank;
pub use bins::{Bins, COARSE, FINE};
pub use merge::{Late, Merger, Whole};
use track::SuccessTrack;

/// The longest time that is told apart from longer ones: ten minutes.
pub const MAX_NS: u64 = 600_000_000_000;
/// The length of an interval.
pub const INTERVAL_NS: u64 = 100_000_000;
/// Intervals of a [`Recording`], at most: half an hour at 100 ms, and what a run takes before and after.
pub const MAX_INTERVALS: u64 = 20_000;
/// A run whose phases are longer has longer intervals.
const SHORT_INTERVALS_NS: u64 = 1_800_000_000_000;

/// The length of the intervals of a run whose phases take `phases_ns` together.
pub fn interval_of(phases_ns: u64) -> u64 {
    if phases_ns > SHORT_INTERVALS_NS { 2 * INTERVAL_NS } else { INTERVAL_NS }
}

/// One operation that ended. Times are nanoseconds since the run's start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// Index of the phase in which the operation was due.
    pub phase: u16,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// When the schedule wanted it sent.
    pub due_ns: u64,
    /// When it was handed to the socket.
    pub sent_ns: u64,
    /// When the answer was there, or was given up.
    pub done_ns: u64,
    /// Payload bytes sent and received.
    pub bytes: u32,
}

/// What histograms are kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index of the phase.
    pub phase: u16,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
}

/// Classes of operations whose gaps are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// What any member answers from its own tree.
    Reads,
    /// What needs a quorum.
    Writes,
}

impl Class {
    /// The class of an operation; none for opening sessions and for notifications.
    pub fn of(op: Op) -> Option<Class> {
        match op {
            Op::Connect | Op::Notify => None,
            op if op.is_write() => Some(Class::Writes),
            _ => Some(Class::Reads),
        }
    }

    /// The class' name, by an operation's name.
    pub fn of_name(op: &str) -> Option<&'static str> {
        Op::ALL.into_iter().find(|known| known.name() == op).and_then(Class::of).map(Class::name)
    }

    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Class::Reads => "reads",
            Class::Writes => "writes",
        }
    }
}

/// A time without success of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Of what.
    pub class: Class,
    /// Last success before, or where the search began.
    pub from_ns: u64,
    /// First success after, or where the search ended.
    pub to_ns: u64,
}

// --------------------------------------------------------------------------------------------- parts

/// Everything of one (phase, op, outcome) that a worker saw in an interval of the time done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closed {
    /// Which interval: it begins at `index` times the interval's length.
    pub index: u64,
    /// done − due.
    pub response: Bins<FINE>,
    /// done − sent.
    pub service: Bins<FINE>,
    /// sent − due.
    pub lag: Bins<FINE>,
    /// Payload bytes.
    pub bytes: u64,
}

impl Closed {
    /// Adds the other's samples.
    pub fn merge(&mut self, other: &Closed) {
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.lag.merge(&other.lag);
        self.bytes += other.bytes;
    }
}

/// What a worker hands over: everything since the last time.
#[derive(Debug, Default)]
pub struct Part {
    /// Closed intervals.
    pub intervals: Vec<(Key, Closed)>,
    /// Operations by the time due, which may be long ago.
    pub arrivals: Vec<((u16, Op), Arrivals)>,
    /// First and last success of each millisecond that had one, by [`Class`], ascending.
    pub successes: [Vec<(u64, u64)>; 2],
}

impl Part {
    /// Adds what the same worker has noted after it.
    pub fn append(&mut self, later: Part) {
        self.intervals.extend(later.intervals);
        self.arrivals.extend(later.arrivals);
        for (mine, theirs) in self.successes.iter_mut().zip(later.successes) {
            mine.extend(theirs);
        }
    }
}

/// Everything of one (phase, op, outcome) in an interval of the time done, as a [`Recording`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interval {
    /// Which interval: it begins at `index * interval_ns`.
    pub index: u64,
    /// done − due.
    pub response: Bins,
    /// Payload bytes.
    pub bytes: u64,
}

impl Interval {
    fn merge(&mut self, other: &Interval) {
        self.response.merge(&other.response);
        self.bytes += other.bytes;
    }
}

/// Everything of one (phase, op, outcome) over the whole phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// done − due.
    pub response: Histogram<u64>,
    /// done − sent.
    pub service: Histogram<u64>,
    /// sent − due.
    pub lag: Histogram<u64>,
}

/// An empty histogram with the bounds that all have: 1 ns to [`MAX_NS`], three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 3).expect("constant bounds are valid")
}

impl Total {
    /// Nothing recorded yet.
    pub fn new() -> Total {
        Total { response: histogram(), service: histogram(), lag: histogram() }
    }

    /// Adds the other's samples.
    pub fn merge(&mut self, other: &Total) {
        for (mine, theirs) in [
            (&mut self.response, &other.response),
            (&mut self.service, &other.service),
            (&mut self.lag, &other.lag),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
    }
}

/// Adds samples to a histogram.
pub(crate) fn add_bins<const BITS: u32>(histogram: &mut Histogram<u64>, bins: &Bins<BITS>) {
    bins.iter().for_each(|(value, count)| histogram.saturating_record_n(value, count));
}

impl Default for Total {
    fn default() -> Self {
        Total::new()
    }
}

/// Operations of one (phase, op) by the interval in which they were due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// The interval of the first entry of `counts`.
    pub base: u64,
    /// (offered, missed) per interval; offered includes missed.
    pub counts: Vec<(u32, u32)>,
}

impl Arrivals {
    /// Adds to the interval `index`; takes memory for all between it and the others.
    pub fn add(&mut self, index: u64, offered: u32, missed: u32) {
        if self.counts.is_empty() {
            self.base = index;
        }
        if index < self.base {
            let lead = (self.base - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n((0, 0), lead));
            self.base = index;
        }
        let at = (index - self.base) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, (0, 0));
        }
        self.counts[at].0 += offered;
        self.counts[at].1 += missed;
    }

    /// All that was offered.
    pub fn offered(&self) -> u64 {
        self.counts.iter().map(|c| u64::from(c.0)).sum()
    }

    /// All that was missed.
    pub fn missed(&self) -> u64 {
        self.counts.iter().map(|c| u64::from(c.1)).sum()
    }

    /// (interval, offered, missed) where anything was offered.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32, u32)> + '_ {
        let base = self.base;
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, c)| c.0 > 0)
            .map(move |(at, c)| (base + at as u64, c.0, c.1))
    }

    fn coalesce(&mut self) {
        let old = std::mem::take(self);
        for (index, offered, missed) in old.iter() {
            self.add(index / 2, offered, missed);
        }
    }
}

// ------------------------------------------------------------------------------------------ recorder

struct Slot {
    key: Key,
    index: u64,
    response: OpenBins,
    service: OpenBins,
    lag: OpenBins,
    bytes: u64,
    count: u32,
}

impl Slot {
    fn new(key: Key, index: u64) -> Slot {
        let bins = OpenBins::new;
        Slot { key, index, response: bins(), service: bins(), lag: bins(), bytes: 0, count: 0 }
    }
}

/// What was completed since the last time somebody asked, for a progress line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recent {
    /// Successes.
    pub completed: u64,
    /// Failures.
    pub errors: u64,
    /// Due but never sent.
    pub missed: u64,
    /// done − due of successes.
    pub response: Bins,
}

impl Recent {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Recent) {
        self.completed += other.completed;
        self.errors += other.errors;
        self.missed += other.missed;
        self.response.merge(&other.response);
    }
}

const NO_SLOT: u32 = u32::MAX;

/// One worker's notes. See the module.
pub struct Recorder {
    interval_ns: u64,
    slots: Vec<Slot>,
    /// Slots of successes by phase and op: the way of nearly every operation.
    successes: Vec<[u32; Op::ALL.len()]>,
    failures: FxHashMap<Key, u32>,
    arrivals: Vec<[Arrivals; Op::ALL.len()]>,
    tracks: [SuccessTrack; 2],
    closed: Vec<(Key, Closed)>,
    recent: Recent,
}

impl Recorder {
    /// Nothing recorded; intervals of this length.
    pub fn new(interval_ns: u64) -> Recorder {
        Recorder {
            interval_ns,
            slots: Vec::new(),
            successes: Vec::new(),
            failures: FxHashMap::default(),
            arrivals: Vec::new(),
            tracks: Default::default(),
            closed: Vec::new(),
            recent: Recent::default(),
        }
    }

    /// Notes an operation that ended. Call in the order of `done_ns`: an operation that is reported late
    /// counts in the interval that is open, everything else of it stays exact.
    pub fn record(&mut self, c: &Completion) {
        let response = c.done_ns.saturating_sub(c.due_ns);
        let service = c.done_ns.saturating_sub(c.sent_ns);
        let lag = c.sent_ns.saturating_sub(c.due_ns);
        self.offer(c.phase, c.op, c.due_ns, 0);
        let slot = self.slot(c);
        let index = c.done_ns / self.interval_ns;
        if index > self.slots[slot].index {
            self.close(slot);
            self.slots[slot].index = index;
        }
        let slot = &mut self.slots[slot];
        slot.response.add(response);
        slot.service.add(service);
        slot.lag.add(lag);
        slot.bytes += u64::from(c.bytes);
        slot.count += 1;
        if let (Outcome::Ok, Some(class)) = (c.outcome, Class::of(c.op)) {
            self.tracks[class as usize].add(c.done_ns);
        }
    }

    /// Notes an operation that was due and never sent, because the backlog was full or the run over.
    pub fn missed(&mut self, phase: u16, op: Op, due_ns: u64) {
        self.recent.missed += 1;
        self.offer(phase, op, due_ns, 1);
    }

    /// What was completed in the intervals that closed since the last call; `now_ns` closes those before it.
    pub fn take_recent(&mut self, now_ns: u64) -> Recent {
        self.close_before(now_ns / self.interval_ns);
        std::mem::take(&mut self.recent)
    }

    /// Hands over everything that ended before the interval of `now_ns`, and forgets it.
    pub fn take(&mut self, now_ns: u64) -> Part {
        self.close_before(now_ns / self.interval_ns);
        let mut part = Part { intervals: std::mem::take(&mut self.closed), ..Part::default() };
        for (phase, ops) in self.arrivals.iter_mut().enumerate() {
            for (op, arrivals) in Op::ALL.into_iter().zip(ops) {
                if !arrivals.counts.is_empty() {
                    part.arrivals.push(((phase as u16, op), std::mem::take(arrivals)));
                }
            }
        }
        part.successes = self.tracks.each_mut().map(SuccessTrack::take);
        part
    }

    /// Ends recording: what has not been handed over yet.
    pub fn finish(mut self) -> Part {
        self.take(u64::MAX)
    }

    fn close_before(&mut self, index: u64) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].index < index {
                self.close(slot);
            }
        }
    }

    fn offer(&mut self, phase: u16, op: Op, due_ns: u64, missed: u32) {
        let phase = usize::from(phase);
        if phase >= self.arrivals.len() {
            self.arrivals.resize_with(phase + 1, Default::default);
        }
        self.arrivals[phase][op as usize].add(due_ns / self.interval_ns, 1, missed);
    }

    fn slot(&mut self, c: &Completion) -> usize {
        if c.outcome == Outcome::Ok
            && let Some(slots) = self.successes.get(usize::from(c.phase))
            && slots[c.op as usize] != NO_SLOT
        {
            return slots[c.op as usize] as usize;
        }
        self.slot_of_failure_or_new(c)
    }

    #[cold]
    fn slot_of_failure_or_new(&mut self, c: &Completion) -> usize {
        let key = Key { phase: c.phase, op: c.op, outcome: c.outcome };
        if let Some(&slot) = self.failures.get(&key) {
            return slot as usize;
        }
        let slot = self.slots.len();
        self.slots.push(Slot::new(key, c.done_ns / self.interval_ns));
        match c.outcome {
            Outcome::Error(_) => {
                self.failures.insert(key, slot as u32);
            }
            Outcome::Ok => {
                let phase = usize::from(c.phase);
                if phase >= self.successes.len() {
                    self.successes.resize(phase + 1, [NO_SLOT; Op::ALL.len()]);
                }
                self.successes[phase][c.op as usize] = slot as u32;
            }
        }
        slot
    }

    /// Closes a slot's open interval, if anything is in it.
    fn close(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        if slot.count == 0 {
            return;
        }
        let closed = Closed {
            index: slot.index,
            response: slot.response.take(),
            service: slot.service.take(),
            lag: slot.lag.take(),
            bytes: std::mem::take(&mut slot.bytes),
        };
        let count = u64::from(std::mem::take(&mut slot.count));
        match slot.key.outcome {
            Outcome::Error(_) => self.recent.errors += count,
            Outcome::Ok => {
                self.recent.completed += count;
                self.recent.response.merge(&closed.response.coarse());
            }
        }
        self.closed.push((slot.key, closed));
    }
}

// ----------------------------------------------------------------------------------------- recording

/// A whole run in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Length of an interval.
    pub interval_ns: u64,
    /// Whole phases.
    pub totals: BTreeMap<Key, Total>,
    /// Intervals by the time done, ascending.
    pub intervals: BTreeMap<Key, Vec<Interval>>,
    /// Operations by the time due.
    pub arrivals: BTreeMap<(u16, Op), Arrivals>,
    /// First and last success of each millisecond, by [`Class`]. Empty in a recording that was read back: its gaps are
    /// events.
    pub(crate) successes: [Vec<(u64, u64)>; 2],
}

impl Default for Recording {
    fn default() -> Self {
        Recording::new(INTERVAL_NS)
    }
}

impl Recording {
    /// Nothing recorded; intervals of this length.
    pub fn new(interval_ns: u64) -> Recording {
        Recording {
            interval_ns,
            totals: BTreeMap::new(),
            intervals: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            successes: Default::default(),
        }
    }

    /// All that workers noted, each its parts as one.
    pub fn merged(interval_ns: u64, parts: impl IntoIterator<Item = Part>) -> Recording {
        let parts: Vec<Part> = parts.into_iter().collect();
        let mut merger = Merger::new(interval_ns, parts.len());
        for (worker, part) in parts.into_iter().enumerate() {
            merger.add(worker, u64::MAX, part);
        }
        let mut recording = Recording::new(interval_ns);
        while let Some(whole) = merger.next_whole() {
            recording.add(interval_ns, &whole);
        }
        recording
    }

    /// Adds an interval of all workers, `interval_ns` long.
    fn add(&mut self, interval_ns: u64, whole: &Whole) {
        for (key, closed) in &whole.rows {
            let total = self.totals.entry(*key).or_default();
            add_bins(&mut total.response, &closed.response);
            add_bins(&mut total.service, &closed.service);
            add_bins(&mut total.lag, &closed.lag);
            let start_ns = whole.index * interval_ns;
            self.add_interval(*key, start_ns, closed.response.coarse(), closed.bytes);
        }
        for (of, (offered, missed)) in &whole.arrivals {
            self.add_arrivals(*of, whole.index * interval_ns, *offered, *missed);
        }
        for (mine, theirs) in self.successes.iter_mut().zip(&whole.successes) {
            mine.extend(theirs);
        }
    }

    /// Adds what was done in the interval that begins at `start_ns`. Call in the order of time.
    pub(crate) fn add_interval(&mut self, key: Key, start_ns: u64, response: Bins, bytes: u64) {
        let index = self.index_of(start_ns);
        let interval = Interval { index, response, bytes };
        let intervals = self.intervals.entry(key).or_default();
        match intervals.last_mut() {
            Some(last) if last.index == index => last.merge(&interval),
            _ => intervals.push(interval),
        }
    }

    /// Adds what was due in the interval that begins at `start_ns`.
    pub(crate) fn add_arrivals(&mut self, of: (u16, Op), start_ns: u64, offered: u32, missed: u32) {
        let index = self.index_of(start_ns);
        self.arrivals.entry(of).or_default().add(index, offered, missed);
    }

    /// The interval of a moment; makes intervals longer until it is one of [`MAX_INTERVALS`].
    pub(crate) fn index_of(&mut self, at_ns: u64) -> u64 {
        while at_ns / self.interval_ns >= MAX_INTERVALS {
            self.intervals.values_mut().for_each(coalesce);
            self.arrivals.values_mut().for_each(Arrivals::coalesce);
            self.interval_ns *= 2;
        }
        at_ns / self.interval_ns
    }

    /// Times without success of `class` between two moments, including from the first moment to the
    /// first success and from the last success to the second moment.
    pub fn gaps(&self, class: Class, from_ns: u64, to_ns: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut previous = from_ns;
        let spans = self.successes[class as usize].iter();
        for (first_ns, last_ns) in spans.filter(|(_, last_ns)| *last_ns >= from_ns) {
            if *first_ns >= to_ns {
                break;
            }
            if *first_ns > previous {
                gaps.push(Gap { class, from_ns: previous, to_ns: *first_ns });
            }
            previous = previous.max(*last_ns);
        }
        if previous < to_ns {
            gaps.push(Gap { class, from_ns: previous, to_ns });
        }
        gaps
    }

    /// Forgets when there was success, once gaps have become events.
    pub(crate) fn forget_successes(&mut self) {
        self.successes = Default::default();
    }
}

fn coalesce(intervals: &mut Vec<Interval>) {
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len() / 2 + 1);
    for mut interval in intervals.drain(..) {
        interval.index /= 2;
        match merged.last_mut() {
            Some(last) if last.index == interval.index => last.merge(&interval),
            _ => merged.push(interval),
        }
    }
    *intervals = merged;
}
