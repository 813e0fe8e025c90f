//! What a worker thread notes down of every operation, and what the workers' notes come to together.
//!
//! One [`Recorder`] per worker thread: no locks, no sharing, and no allocation per operation (memory is
//! taken when a (phase, op, outcome) is first seen and when an interval closes). At the end each becomes
//! a [`Recording`], and recordings are merged by adding histograms; percentiles are never averaged.
//!
//! Three clocks per operation: *due*, *sent*, *done*. Response = done − due, service = done − sent,
//! lag = sent − due. A clock that runs backwards (sent before due) counts as zero.
//!
//! What is kept, and its limits:
//! - per (phase, op, outcome): response, service and lag as HdrHistograms, 1 ns to [`MAX_NS`], three
//!   significant digits; longer times count as [`MAX_NS`];
//! - the same per interval of [`INTERVAL_NS`] of the time *done*, response and service, in bins of less
//!   than 0.8 % width ([`Bins`]); intervals without completions do not exist. When a worker has more than
//!   [`MAX_INTERVALS`] intervals behind it or more than [`INTERVAL_BYTES_MAX`] bytes of them, the interval
//!   doubles and pairs are merged: a long run keeps all counts and loses resolution in time;
//! - per (phase, op) and interval of the time *due*: operations offered, and missed;
//! - the first and the last success of reads and of writes in every millisecond, from which gaps are
//!   found to the microsecond; the slots double beyond [`SUCCESS_SLOTS_MAX`].

mod bins;
mod track;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use crate::op::{Op, Outcome};

pub use bins::Bins;
use bins::OpenBins;
use track::SuccessTrack;

/// The longest time that is told apart from longer ones: ten minutes.
pub const MAX_NS: u64 = 600_000_000_000;
/// The length of an interval at the start of a run.
pub const INTERVAL_NS: u64 = 100_000_000;
/// Intervals since the run's start, after which the interval doubles: half an hour at 100 ms.
pub const MAX_INTERVALS: u64 = 18_000;
/// Memory for closed intervals per worker, beyond which the interval doubles.
pub const INTERVAL_BYTES_MAX: usize = 64 << 20;
/// Slots of the success track per class (4 bytes each): a quarter of an hour at 1 ms.
pub const SUCCESS_SLOTS_MAX: usize = 1 << 20;

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

/// Everything of one (phase, op, outcome) in an interval of the time done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interval {
    /// Which interval: it begins at `index * interval_ns`.
    pub index: u64,
    /// done − due.
    pub response: Bins,
    /// done − sent.
    pub service: Bins,
    /// Payload bytes.
    pub bytes: u64,
}

impl Interval {
    fn merge(&mut self, other: &Interval) {
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.bytes += other.bytes;
    }

    fn memory(&self) -> usize {
        size_of::<Interval>() + self.response.bytes() + self.service.bytes()
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
    /// Adds to the interval `index`. `index` is bounded by the recorder's [`MAX_INTERVALS`].
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
    total: Total,
    open_index: u64,
    open_response: OpenBins,
    open_service: OpenBins,
    open_bytes: u64,
    open_count: u32,
    closed: Vec<Interval>,
}

impl Slot {
    fn new(key: Key, index: u64) -> Slot {
        Slot {
            key,
            total: Total::new(),
            open_index: index,
            open_response: OpenBins::new(),
            open_service: OpenBins::new(),
            open_bytes: 0,
            open_count: 0,
            closed: Vec::new(),
        }
    }

    /// Closes the open interval, if anything is in it; says what was put away and how many bytes it takes.
    fn close(&mut self) -> Option<(&Interval, usize)> {
        if self.open_count == 0 {
            return None;
        }
        let interval = Interval {
            index: self.open_index,
            response: self.open_response.take(),
            service: self.open_service.take(),
            bytes: self.open_bytes,
        };
        (self.open_bytes, self.open_count) = (0, 0);
        let memory = interval.memory();
        match self.closed.last_mut() {
            Some(last) if last.index == interval.index => last.merge(&interval),
            _ => self.closed.push(interval),
        }
        self.closed.last().map(|last| (last, memory))
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
    closed_bytes: usize,
    recent: Recent,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}

impl Recorder {
    /// Nothing recorded.
    pub fn new() -> Recorder {
        Recorder {
            interval_ns: INTERVAL_NS,
            slots: Vec::new(),
            successes: Vec::new(),
            failures: FxHashMap::default(),
            arrivals: Vec::new(),
            tracks: [SuccessTrack::new(), SuccessTrack::new()],
            closed_bytes: 0,
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
        if index > self.slots[slot].open_index {
            self.close(slot);
            self.make_room(index);
            self.slots[slot].open_index = c.done_ns / self.interval_ns;
        }
        let slot = &mut self.slots[slot];
        slot.total.response.saturating_record(response);
        slot.total.service.saturating_record(service);
        slot.total.lag.saturating_record(lag);
        slot.open_response.add(response);
        slot.open_service.add(service);
        slot.open_bytes += u64::from(c.bytes);
        slot.open_count += 1;
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
        for slot in 0..self.slots.len() {
            if self.slots[slot].open_index < now_ns / self.interval_ns {
                self.close(slot);
            }
        }
        std::mem::take(&mut self.recent)
    }

    /// Ends recording.
    pub fn finish(mut self) -> Recording {
        for slot in 0..self.slots.len() {
            self.close(slot);
        }
        let mut recording = Recording { interval_ns: self.interval_ns, ..Recording::default() };
        for slot in self.slots {
            recording.totals.insert(slot.key, slot.total);
            recording.intervals.insert(slot.key, slot.closed);
        }
        for (phase, ops) in self.arrivals.into_iter().enumerate() {
            for (op, arrivals) in Op::ALL.into_iter().zip(ops) {
                if !arrivals.counts.is_empty() {
                    recording.arrivals.insert((phase as u16, op), arrivals);
                }
            }
        }
        recording.tracks = self.tracks.into();
        recording
    }

    fn offer(&mut self, phase: u16, op: Op, due_ns: u64, missed: u32) {
        let phase = usize::from(phase);
        if phase >= self.arrivals.len() {
            self.arrivals.resize_with(phase + 1, Default::default);
        }
        self.make_room(due_ns / self.interval_ns);
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

    fn close(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        let (outcome, count) = (slot.key.outcome, u64::from(slot.open_count));
        // The closed interval may have been merged into one before it: count what is new only.
        let before = slot.closed.last().filter(|last| last.index == slot.open_index).cloned();
        let Some((closed, memory)) = slot.close() else { return };
        self.closed_bytes += memory;
        match outcome {
            Outcome::Error(_) => self.recent.errors += count,
            Outcome::Ok => {
                self.recent.completed += count;
                match before {
                    None => self.recent.response.merge(&closed.response),
                    Some(before) => self.recent.response.merge(&closed.response.without(&before.response)),
                }
            }
        }
    }

    /// Doubles the interval until `index` and the memory of closed intervals are within their limits.
    fn make_room(&mut self, mut index: u64) {
        // An interval of hours has nothing left to merge; more memory than that is many keys, not time.
        let full = |recorder: &Recorder| {
            recorder.closed_bytes > INTERVAL_BYTES_MAX && recorder.interval_ns < INTERVAL_NS << 16
        };
        while index >= MAX_INTERVALS || full(self) {
            for slot in 0..self.slots.len() {
                self.close(slot);
            }
            for slot in &mut self.slots {
                coalesce(&mut slot.closed);
                slot.open_index /= 2;
            }
            self.arrivals.iter_mut().flatten().for_each(Arrivals::coalesce);
            self.interval_ns *= 2;
            index /= 2;
            self.closed_bytes = self.slots.iter().flat_map(|s| &s.closed).map(Interval::memory).sum();
        }
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

// ----------------------------------------------------------------------------------------- recording

/// Everything that the workers noted, merged.
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
    /// Reads, writes. Empty in a recording that was read back: its gaps are events.
    tracks: Vec<SuccessTrack>,
}

impl Default for Recording {
    fn default() -> Self {
        Recording {
            interval_ns: INTERVAL_NS,
            totals: BTreeMap::new(),
            intervals: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            tracks: Vec::new(),
        }
    }
}

impl Recording {
    /// All workers' recordings as one.
    pub fn merged(parts: impl IntoIterator<Item = Recording>) -> Recording {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap_or_default();
        parts.for_each(|part| whole.merge(part));
        whole
    }

    /// Adds another worker's. The result has the longer of the two intervals.
    pub fn merge(&mut self, mut other: Recording) {
        while self.interval_ns < other.interval_ns {
            self.coalesce();
        }
        while other.interval_ns < self.interval_ns {
            other.coalesce();
        }
        for (key, total) in other.totals {
            self.totals.entry(key).or_default().merge(&total);
        }
        for (key, intervals) in other.intervals {
            let mine = self.intervals.entry(key).or_default();
            *mine = merge_by_index(std::mem::take(mine), intervals);
        }
        for (key, arrivals) in other.arrivals {
            let mine = self.arrivals.entry(key).or_default();
            arrivals.iter().for_each(|(index, offered, missed)| mine.add(index, offered, missed));
        }
        if self.tracks.is_empty() {
            self.tracks = other.tracks;
        } else {
            self.tracks.iter_mut().zip(other.tracks).for_each(|(mine, theirs)| mine.merge(theirs));
        }
    }

    /// Times without success of `class` between two moments, including from the first moment to the
    /// first success and from the last success to the second moment. Empty when nothing was tracked.
    pub fn gaps(&self, class: Class, from_ns: u64, to_ns: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if let Some(track) = self.tracks.get(class as usize) {
            track.gaps(from_ns, to_ns, |from_ns, to_ns| gaps.push(Gap { class, from_ns, to_ns }));
        }
        gaps
    }

    /// Forgets the track of successes, once its gaps have become events.
    pub fn forget_successes(&mut self) {
        self.tracks = Vec::new();
    }

    fn coalesce(&mut self) {
        self.intervals.values_mut().for_each(coalesce);
        self.arrivals.values_mut().for_each(Arrivals::coalesce);
        self.interval_ns *= 2;
    }
}

fn merge_by_index(a: Vec<Interval>, b: Vec<Interval>) -> Vec<Interval> {
    let mut all = a;
    all.extend(b);
    all.sort_by_key(|interval| interval.index);
    let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
    for interval in all {
        match merged.last_mut() {
            Some(last) if last.index == interval.index => last.merge(&interval),
            _ => merged.push(interval),
        }
    }
    merged
}
