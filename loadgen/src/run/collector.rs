//! The thread that writes results while the load goes on.
//!
//! A few times a second it takes what the workers have left ([`Handover`]), what members said, and what happened, appends it to the
//! files of the results directory and hands it to the system. Workers wait for nothing but the lock of their own place. What this
//! thread holds in memory is a second or so of the run; when it cannot write, or does not come round within [`STALL_LIMIT`], the
//! run ends, because what waits would grow.

use super::outcome::session_event;
use crate::closeup::Close;
use crate::driver::{FanOut, Handover, Join, Standing, WatchCounts};
use crate::op::Outcome;
use crate::recorder::{Bins, Class, FINE, Key, Merger, Total, Whole, add_bins};
use crate::results::{EventRow, Finder, Manifest, Row, STRETCH, ServerSample, Stream, cut_phases};
use crate::spec::Spec;
use crate::summary;
use anyhow::{Context, Result, anyhow};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use zoometry_spans::Clock;

/// Between two turns: with the workers' own pause, an interval is on its way to the disk after this and a tenth of a second.
const TURN: Duration = Duration::from_millis(200);
/// A turn takes at most this long. What waits then is a few megabytes at most rates.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// What others than the workers have to say.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Members.
    pub(super) servers: Vec<ServerSample>,
    events: Vec<EventRow>,
    trouble: Option<String>,
}

/// What is collected.
pub(super) struct Sources {
    pub(super) clock: Clock,
    pub(super) interval_ns: u64,
    pub(super) handovers: Vec<Arc<Handover>>,
    pub(super) said: Arc<Mutex<Said>>,
}

/// What is only known at the end.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The part of the counts that comes of joining events with writes.
    pub(super) watches: WatchCounts,
    /// Completions around faults that were too many.
    pub(super) completions_unkept: u64,
}

/// The load is over.
#[derive(PartialEq)]
struct Last {
    standing: Vec<Standing>,
    /// When it was cut short; `u64::MAX` if it was not.
    ended_ns: u64,
}

/// A handle on the thread.
pub(super) struct Collector {
    clock: Clock,
    said: Arc<Mutex<Said>>,
    told: FxHashSet<EventRow>,
    turned_ns: Arc<AtomicU64>,
    last: Sender<Last>,
    thread: JoinHandle<Result<Collected>>,
}

impl Collector {
    /// Creates the files and starts the thread.
    pub(super) fn start(dir: &Path, manifest: &Manifest, spec: &Spec, sources: Sources) -> Result<Collector> {
        let (clock, said) = (sources.clock, sources.said.clone());
        let stream = Stream::create(dir, manifest, sources.interval_ns)?;
        let turned_ns = Arc::new(AtomicU64::new(clock.now_ns()));
        let (last, receiver) = channel();
        let writer = Writer::new(stream, manifest, spec, sources, turned_ns.clone());
        let thread =
            std::thread::Builder::new().name("results".into()).spawn(move || writer.run(&receiver))?;
        Ok(Collector { clock, said, told: FxHashSet::default(), turned_ns, last, thread })
    }

    /// Writes events that have not been written yet. One whose end has become known is another one.
    pub(super) fn tell(&mut self, events: Vec<EventRow>) {
        for event in events {
            if self.told.insert(event.clone()) {
                self.said.lock().expect("no thread panics holding it").events.push(event);
            }
        }
    }

    /// Why results are not written any more, if they are not.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.said.lock().expect("no thread panics holding it").trouble.clone();
        let since_ns = self.clock.now_ns().saturating_sub(self.turned_ns.load(Ordering::Acquire));
        let stalled = Duration::from_nanos(since_ns) > STALL_LIMIT;
        trouble.or(stalled.then(|| format!("nothing could be written to the results for {STALL_LIMIT:?}")))
    }

    /// The workers have ended: writes what is left. `ended_ns` says when the load was cut short (`u64::MAX`: it was not).
    pub(super) fn finish(self, standing: Vec<Standing>, ended_ns: u64) -> Result<Collected> {
        // It cannot be gone before this.
        let _ = self.last.send(Last { standing, ended_ns });
        self.thread.join().map_err(|_| anyhow!("the thread that writes results panicked; this is a bug"))?
    }
}

struct Writer {
    stream: Stream,
    sources: Sources,
    manifest: Manifest,
    merger: Merger,
    join: Join,
    finder: Finder,
    /// Completions that others may be older than.
    closes: Vec<Close>,
    /// Since the last stretch.
    totals: BTreeMap<Key, Total>,
    /// The end of the last interval that was written.
    until_ns: u64,
    collected: Collected,
    turned_ns: Arc<AtomicU64>,
}

impl Writer {
    fn new(
        stream: Stream,
        manifest: &Manifest,
        spec: &Spec,
        sources: Sources,
        turned_ns: Arc<AtomicU64>,
    ) -> Writer {
        let asked = spec.phases.iter().map(|phase| {
            [Class::Reads, Class::Writes]
                .map(|class| phase.mix.iter().any(|(op, _)| Class::of(*op) == Some(class)))
        });
        let first = manifest.phases.first().map_or(0, |phase| phase.start_ns / sources.interval_ns);
        Writer {
            stream,
            // One more for what the join makes.
            merger: Merger::new(sources.interval_ns, sources.handovers.len() + 1).starting_at(first),
            join: Join::new(sources.interval_ns),
            finder: Finder::new(manifest.phases.clone(), asked.collect()),
            sources,
            manifest: manifest.clone(),
            closes: Vec::new(),
            totals: BTreeMap::new(),
            until_ns: 0,
            collected: Collected::default(),
            turned_ns,
        }
    }

    fn run(mut self, last: &Receiver<Last>) -> Result<Collected> {
        loop {
            let asked = last.recv_timeout(TURN);
            let turned = match &asked {
                Ok(last) => self.end(last),
                Err(_) => self.turn(),
            };
            if let Err(error) = turned {
                let error = error.context("the results could not be written");
                self.said().trouble = Some(format!("{error:#}"));
                return Err(error);
            }
            self.turned_ns.store(self.sources.clock.now_ns(), Ordering::Release);
            // Without a last word the run ends at once: what is written by now is all.
            if asked != Err(RecvTimeoutError::Timeout) {
                self.stream.finish()?;
                return Ok(self.collected);
            }
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.sources.said.lock().expect("no thread panics holding it")
    }

    /// Takes and writes what there is.
    fn turn(&mut self) -> Result<()> {
        let mut until_ns = u64::MAX;
        for (worker, handover) in self.sources.handovers.iter().enumerate() {
            let batch = handover.take();
            until_ns = until_ns.min(batch.until_ns);
            batch.samples.iter().try_for_each(|sample| self.stream.generator(sample))?;
            for happening in &batch.happenings {
                self.stream.event(&session_event(happening, &self.manifest.members))?;
            }
            self.closes.extend(batch.closes);
            self.join.add(batch.heard);
            self.merger.add(worker, batch.until_ns, batch.part);
        }
        let mut fan_outs = Vec::new();
        let told = self.join.turn(until_ns, |fan_out| fan_outs.push(fan_out));
        self.notified(until_ns, told, &fan_outs)?;
        self.closes.sort_by_key(|close| close.at_ns);
        let known = self.closes.partition_point(|close| close.at_ns < until_ns);
        for close in self.closes.drain(..known) {
            self.collected.completions_unkept += u64::from(!self.stream.completion(&close)?);
        }
        let said = std::mem::take(&mut *self.said());
        said.events.iter().try_for_each(|event| self.stream.event(event))?;
        said.servers.into_iter().try_for_each(|sample| self.stream.server(sample))?;
        self.stream.flush()
    }

    /// What the join has found, and the intervals that are whole by it.
    fn notified(&mut self, until_ns: u64, part: crate::recorder::Part, fan_outs: &[FanOut]) -> Result<()> {
        fan_outs.iter().try_for_each(|fan_out| self.stream.fan_out(fan_out))?;
        let joining = self.sources.handovers.len();
        self.merger.add(joining, until_ns, part);
        while let Some(whole) = self.merger.next_whole() {
            self.whole(&whole)?;
        }
        self.merger.take_late().iter().try_for_each(|late| self.stream.late(late))
    }

    fn whole(&mut self, whole: &Whole) -> Result<()> {
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        for (key, closed) in &whole.rows {
            let (count, p99) = (closed.service.count(), closed.service.quantile(0.99));
            let row = Row {
                response: closed.response.coarse(),
                service_p99_ns: p99.filter(|_| summary::enough(count, 0.99)),
                bytes: closed.bytes,
                ..Row::default()
            };
            rows.insert(*key, row);
            let total = self.totals.entry(*key).or_default();
            add_bins(&mut total.response, &closed.response);
            add_bins(&mut total.service, &closed.service);
            add_bins(&mut total.lag, &closed.lag);
        }
        for (&(phase, op), &(offered, missed)) in &whole.arrivals {
            let row = rows.entry(Key { phase, op, outcome: Outcome::Ok }).or_default();
            (row.offered, row.missed) = (offered, missed);
        }
        let counted = |key: &Key| key.outcome == Outcome::Ok && Class::of(key.op).is_some();
        let all: Vec<&Bins<FINE>> =
            whole.rows.iter().filter(|(key, _)| counted(key)).map(|(_, closed)| &closed.response).collect();
        let stretch = ((whole.index + 1).is_multiple_of(STRETCH)).then(|| std::mem::take(&mut self.totals));
        self.stream.interval(whole.index, &rows, &Bins::merged(&all), stretch.as_ref())?;
        self.until_ns = (whole.index + 1) * self.sources.interval_ns;
        let mut gaps = Vec::new();
        self.finder.add(&whole.successes, self.until_ns, |gap| gaps.push(gap));
        gaps.iter().try_for_each(|gap| self.stream.event(gap))
    }

    /// The last turn.
    fn end(&mut self, last: &Last) -> Result<()> {
        self.turn()?;
        let join = std::mem::replace(&mut self.join, Join::new(self.sources.interval_ns));
        let mut fan_outs = Vec::new();
        let (part, counts) = join.finish(&last.standing, |fan_out| fan_outs.push(fan_out));
        self.collected.watches = counts;
        self.notified(u64::MAX, part, &fan_outs)?;
        cut_phases(&mut self.manifest.phases, last.ended_ns);
        self.fill_up()?;
        let from_ns =
            self.until_ns / (STRETCH * self.sources.interval_ns) * STRETCH * self.sources.interval_ns;
        let totals = std::mem::take(&mut self.totals);
        self.stream.stretch(from_ns, self.until_ns.max(from_ns), &totals)?;
        let mut gaps = Vec::new();
        self.finder.end(&self.manifest.phases, |gap| gaps.push(gap));
        gaps.iter().try_for_each(|gap| self.stream.event(gap)).context("events")
    }

    /// Intervals at the end in which nothing was answered any more (or in all the run).
    fn fill_up(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.manifest.phases.first(), self.manifest.phases.last()) else {
            return Ok(());
        };
        let (from_ns, end_ns) = (self.until_ns.max(first.start_ns), last.end_ns);
        let interval_ns = self.sources.interval_ns;
        for index in from_ns / interval_ns..end_ns / interval_ns {
            self.whole(&Whole { index, ..Whole::default() })?;
        }
        Ok(())
    }
}
