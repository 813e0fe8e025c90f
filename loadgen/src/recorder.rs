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

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use crate::op::{Op, Outcome};

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

// ---------------------------------------------------------------------------------------------- bins

/// Sub-buckets per power of two, as a power of two itself: bins are narrower than 1/128 of their value.
const SUB_BITS: u32 = 7;
/// Bins up to [`MAX_NS`].
const BINS: usize = bin_of(MAX_NS) + 1;

/// The bin of a value: the layout of an HdrHistogram of two digits and unit 1 ns.
const fn bin_of(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(SUB_BITS);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

/// The smallest value of a bin.
const fn bin_low(bin: usize) -> u64 {
    let shift = (bin >> SUB_BITS).saturating_sub(1);
    ((bin - (shift << SUB_BITS)) as u64) << shift
}

/// The middle of a bin, which stands for its values.
const fn bin_mid(bin: usize) -> u64 {
    let shift = (bin >> SUB_BITS).saturating_sub(1);
    bin_low(bin) + ((1u64 << shift) >> 1)
}

/// A distribution in few bytes: the bins (each narrower than 0.8 % of its value) that are not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bins {
    /// (bin, count), by bin.
    bins: Vec<(u16, u32)>,
}

impl Bins {
    /// How many samples.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|&(_, n)| u64::from(n)).sum()
    }

    /// The value (ns) below or at which a share `q` (0 to 1) of the samples lies; `None` without samples.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for &(bin, n) in &self.bins {
            seen += u64::from(n);
            if seen >= rank {
                return Some(bin_mid(usize::from(bin)));
            }
        }
        None
    }

    /// The largest value, to the width of a bin; `None` without samples.
    pub fn max(&self) -> Option<u64> {
        self.bins.last().map(|&(bin, _)| bin_mid(usize::from(bin)))
    }

    /// (value in ns, count), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bins.iter().map(|&(bin, n)| (bin_mid(usize::from(bin)), u64::from(n)))
    }

    /// Adds `count` samples of `value_ns`.
    pub fn add(&mut self, value_ns: u64, count: u32) {
        let bin = bin_of(value_ns.min(MAX_NS)) as u16;
        match self.bins.binary_search_by_key(&bin, |&(b, _)| b) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    /// Adds the other's samples.
    pub fn merge(&mut self, other: &Bins) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        let mut merged = Vec::with_capacity(self.bins.len() + other.bins.len());
        let (mut a, mut b) = (self.bins.iter().copied().peekable(), other.bins.iter().copied().peekable());
        loop {
            match (a.peek().copied(), b.peek().copied()) {
                (Some(x), Some(y)) if x.0 == y.0 => {
                    merged.push((x.0, x.1.saturating_add(y.1)));
                    a.next();
                    b.next();
                }
                (Some(x), Some(y)) if x.0 < y.0 => {
                    merged.push(x);
                    a.next();
                }
                (_, Some(y)) => {
                    merged.push(y);
                    b.next();
                }
                (Some(x), None) => {
                    merged.push(x);
                    a.next();
                }
                (None, None) => break,
            }
        }
        self.bins = merged;
    }

    /// Several distributions as one.
    pub fn merged(parts: &[&Bins]) -> Bins {
        let mut open = OpenBins::new();
        for &(bin, n) in parts.iter().flat_map(|part| &part.bins) {
            let bin = usize::from(bin);
            open.counts[bin] = open.counts[bin].saturating_add(n);
            open.low = open.low.min(bin);
            open.high = open.high.max(bin);
        }
        open.take()
    }

    fn bytes(&self) -> usize {
        size_of::<Bins>() + self.bins.capacity() * size_of::<(u16, u32)>()
    }
}

/// Bins with a place for each: what the open interval counts in.
struct OpenBins {
    counts: Box<[u32]>,
    low: usize,
    high: usize,
}

impl OpenBins {
    fn new() -> OpenBins {
        OpenBins { counts: vec![0; BINS].into_boxed_slice(), low: BINS, high: 0 }
    }

    fn add(&mut self, value_ns: u64) {
        let bin = bin_of(value_ns.min(MAX_NS));
        self.counts[bin] += 1;
        self.low = self.low.min(bin);
        self.high = self.high.max(bin);
    }

    fn take(&mut self) -> Bins {
        if self.low > self.high {
            return Bins::default();
        }
        let touched = &mut self.counts[self.low..=self.high];
        let filled = touched.iter().filter(|n| **n > 0).count();
        let mut bins = Vec::with_capacity(filled);
        for (at, n) in touched.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
            bins.push(((self.low + at) as u16, *n));
            *n = 0;
        }
        (self.low, self.high) = (BINS, 0);
        Bins { bins }
    }
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

/// First and last success per slot of time. Merging is exact: the union of all workers' successes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SuccessTrack {
    slot_us: u64,
    /// (first, last) in microseconds from the slot's start; first > last: none.
    slots: Vec<(u16, u16)>,
}

const NO_SUCCESS: (u16, u16) = (u16::MAX, 0);
/// Offsets are 16 bits of microseconds. A run of more than 17 hours keeps no gaps beyond.
const SLOT_US_MAX: u64 = 64_000;

impl SuccessTrack {
    fn new() -> SuccessTrack {
        SuccessTrack { slot_us: 1_000, slots: Vec::new() }
    }

    fn add(&mut self, at_ns: u64) {
        let at_us = at_ns / 1_000;
        let mut slot = (at_us / self.slot_us) as usize;
        if slot >= self.slots.len() {
            while slot >= SUCCESS_SLOTS_MAX {
                if self.slot_us * 2 > SLOT_US_MAX {
                    return;
                }
                self.coalesce();
                slot = (at_us / self.slot_us) as usize;
            }
            if slot >= self.slots.len() {
                self.slots.resize(slot + 1, NO_SUCCESS);
            }
        }
        let offset = (at_us % self.slot_us) as u16;
        let (first, last) = self.slots[slot];
        self.slots[slot] = (first.min(offset), last.max(offset));
    }

    fn coalesce(&mut self) {
        let half = self.slot_us as u16;
        let pairs = self.slots.chunks(2).map(|pair| {
            let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(NO_SUCCESS));
            let b = if b.0 > b.1 { b } else { (b.0 + half, b.1 + half) };
            (a.0.min(b.0), a.1.max(b.1))
        });
        self.slots = pairs.collect();
        self.slot_us *= 2;
    }

    fn merge(&mut self, mut other: SuccessTrack) {
        while self.slot_us < other.slot_us {
            self.coalesce();
        }
        while other.slot_us < self.slot_us {
            other.coalesce();
        }
        if self.slots.len() < other.slots.len() {
            self.slots.resize(other.slots.len(), NO_SUCCESS);
        }
        for (mine, theirs) in self.slots.iter_mut().zip(other.slots) {
            *mine = (mine.0.min(theirs.0), mine.1.max(theirs.1));
        }
    }

    /// The times (ns) without success between `from` and `to`, at slot resolution inside a slot, to the
    /// microsecond across slots.
    fn gaps(&self, from_ns: u64, to_ns: u64, mut each: impl FnMut(u64, u64)) {
        let slot_ns = self.slot_us * 1_000;
        let mut previous = from_ns;
        let first_slot = ((from_ns / slot_ns) as usize).min(self.slots.len());
        for (slot, &(first, last)) in self.slots.iter().enumerate().skip(first_slot) {
            if first > last {
                continue;
            }
            let first_ns = slot as u64 * slot_ns + u64::from(first) * 1_000;
            let last_ns = slot as u64 * slot_ns + u64::from(last) * 1_000;
            if first_ns >= to_ns {
                break;
            }
            if first_ns > previous {
                each(previous, first_ns);
            }
            previous = previous.max(last_ns);
        }
        if previous < to_ns {
            each(previous, to_ns);
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

    /// Notes an operation that was due and never sent, because the backlog was full.
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
                    Some(before) => {
                        self.recent.response.merge(&difference(&closed.response, &before.response))
                    }
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

fn difference(whole: &Bins, part: &Bins) -> Bins {
    let mut bins = whole.bins.clone();
    for &(bin, n) in &part.bins {
        if let Ok(at) = bins.binary_search_by_key(&bin, |&(b, _)| b) {
            bins[at].1 -= n;
        }
    }
    bins.retain(|&(_, n)| n > 0);
    Bins { bins }
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
