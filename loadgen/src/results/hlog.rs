//! `histograms.hlog`: the HdrHistogram interval log, version 1.3, as every HdrHistogram tool reads it.
//!
//! Values are nanoseconds. The log is written while the run goes on; of each interval it has, in this order:
//! - `PHASE:OP:OUTCOME:response:interval`, response times with two significant digits;
//! - at the end of a stretch of [`STRETCH`] intervals, `PHASE:OP:OUTCOME:CLOCK` with three digits, clocks `response`, `service`
//!   and `lag`, of the whole stretch: those of a phase add up to the phase;
//! - one line without a tag, response times of all successful operations but opening sessions and notifications, with three
//!   digits. Every interval has it, also one in which nothing was answered: what tools without tags read is complete, and the
//!   line says that everything before it is.
//!
//! Phase names are escaped so that no tag has a comma, colon or space.

use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use zoometry_wire::ErrorCode;

use crate::op::{Op, Outcome};
use crate::recorder::{self, Bins, COARSE, Key, MAX_NS};

use super::PhaseRecord;

/// Intervals per stretch.
pub(super) const STRETCH: u64 = 5;
/// The longest line that is read: an uncompressed histogram of three digits takes a fifth of it.
const LINE_MAX: u64 = 1 << 20;
/// Interval maxima are in milliseconds.
const MAX_DIVISOR: f64 = 1e6;

/// From when to when a line is about, on the run's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

/// Writes the log, line by line.
pub(super) struct Writer<W> {
    out: W,
    encoder: Encoder,
    /// Reused for every line: with two digits, and with three.
    coarse: Histogram<u64>,
    fine: Histogram<u64>,
}

impl<W: Write> Writer<W> {
    /// Begins a log with its head.
    pub(super) fn begin(mut out: W, started_unix_ms: u64) -> Result<Writer<W>> {
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(started_unix_ms);
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("zoometry: values in ns, interval maxima in ms")
            .add_comment(
                "without a tag: response times of all successful operations, a line for every interval",
            )
            .add_comment(
                "tags PHASE:OP:OUTCOME:CLOCK add up to phases; with :interval behind for each interval",
            )
            .with_start_time(started)
            .with_base_time(started)
            .with_max_value_divisor(MAX_DIVISOR)
            .begin_log_with(&mut out, &mut serializer)?;
        let coarse = Histogram::new_with_bounds(1, MAX_NS, 2).expect("constant bounds are valid");
        let encoder = Encoder { serializer, encoded: Vec::new(), line: String::new() };
        Ok(Writer { out, encoder, coarse, fine: recorder::histogram() })
    }

    /// The response times of a (phase, op, outcome) in an interval.
    pub(super) fn interval(&mut self, at: Span, phase: &str, key: &Key, response: &Bins) -> Result<()> {
        self.coarse.reset();
        recorder::add_bins(&mut self.coarse, response);
        let tag = format!("{}:interval", tag(phase, key, "response"));
        self.encoder.put(&mut self.out, at, Some(&tag), &self.coarse)
    }

    /// A clock of a (phase, op, outcome) in a stretch.
    pub(super) fn stretch(
        &mut self,
        at: Span,
        phase: &str,
        key: &Key,
        clock: &str,
        histogram: &Histogram<u64>,
    ) -> Result<()> {
        self.encoder.put(&mut self.out, at, Some(&tag(phase, key, clock)), histogram)
    }

    /// Everything in an interval, behind all other lines of it.
    pub(super) fn whole<const BITS: u32>(&mut self, at: Span, response: &Bins<BITS>) -> Result<()> {
        let histogram = if BITS == COARSE { &mut self.coarse } else { &mut self.fine };
        histogram.reset();
        recorder::add_bins(histogram, response);
        self.encoder.put(&mut self.out, at, None, histogram)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Encodes lines.
struct Encoder {
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
    line: String,
}

impl Encoder {
    fn put(
        &mut self,
        out: &mut impl Write,
        at: Span,
        tag: Option<&str>,
        histogram: &Histogram<u64>,
    ) -> Result<()> {
        use std::fmt::Write as _;
        self.line.clear();
        self.encoded.clear();
        if let Some(tag) = tag {
            write!(self.line, "Tag={tag},")?;
        }
        let (from_s, length_s) = (at.from_ns as f64 / 1e9, (at.to_ns - at.from_ns) as f64 / 1e9);
        let max = histogram.max() as f64 / MAX_DIVISOR;
        write!(self.line, "{from_s:.3},{length_s:.3},{max:.3},")?;
        self.serializer
            .serialize(histogram, &mut self.encoded)
            .map_err(|error| anyhow!("a histogram cannot be encoded: {error:?}"))?;
        base64::engine::general_purpose::STANDARD.encode_string(&self.encoded, &mut self.line);
        self.line.push('\n');
        Ok(out.write_all(self.line.as_bytes())?)
    }
}

/// What a line is about.
pub(super) enum Line {
    /// Response times of an interval that begins at this time, in coarse bins.
    Interval(Key, u64, Bins),
    /// A clock of a stretch (or, in directories of format 1, of a whole phase).
    Stretch(Key, Clock, Histogram<u64>),
}

/// Which clock a histogram is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Response,
    Service,
    Lag,
}

/// Reads a log; lines that end after `until_ns` are passed over, and those that say nothing new.
pub(super) fn read(
    mut log: impl BufRead,
    phases: &[PhaseRecord],
    until_ns: u64,
    mut each: impl FnMut(Line) -> Result<()>,
) -> Result<()> {
    let mut deserializer = Deserializer::new();
    each_line(&mut log, |line| {
        let span = span_of(line);
        let Some(tag) = line.tag().filter(|_| span.to_ns <= until_ns) else { return Ok(()) };
        let tag = tag.as_str();
        let (key, clock, interval) = parse_tag(tag, phases)?;
        if interval && clock != Clock::Response {
            return Ok(());
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(line.encoded_histogram())
            .with_context(|| format!("the histogram of {tag} is not base64"))?;
        let histogram: Histogram<u64> = deserializer
            .deserialize(&mut std::io::Cursor::new(&bytes))
            .map_err(|error| anyhow!("the histogram of {tag} cannot be decoded: {error:?}"))?;
        each(match interval {
            true => Line::Interval(key, span.from_ns, to_bins(&histogram)),
            false => Line::Stretch(key, clock, histogram),
        })
    })
}

/// Up to when a log that was still being written has everything: the end of the last stretch that was written whole.
pub(super) fn whole_until(mut log: impl BufRead) -> Result<u64> {
    let mut until_ns = 0;
    each_line(&mut log, |line| {
        if line.tag().is_none() {
            let span = span_of(line);
            let stretch_ns = (span.to_ns - span.from_ns).max(1) * STRETCH;
            until_ns = span.to_ns / stretch_ns * stretch_ns;
        }
        Ok(())
    })?;
    Ok(until_ns)
}

fn each_line(
    log: &mut impl BufRead,
    mut each: impl FnMut(&IntervalLogHistogram<'_>) -> Result<()>,
) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = std::io::Read::take(&mut *log, LINE_MAX).read_until(b'\n', &mut line)? as u64;
        match length {
            0 => return Ok(()),
            LINE_MAX => bail!("a line is longer than {LINE_MAX} bytes"),
            _ => {}
        }
        for entry in IntervalLogIterator::new(&line) {
            match entry.map_err(|error| anyhow!("a line is no interval log entry ({error:?})"))? {
                LogEntry::Interval(histogram) => each(&histogram)?,
                _ => continue,
            }
        }
    }
}

/// Times of a log are in milliseconds.
fn span_of(line: &IntervalLogHistogram<'_>) -> Span {
    let ns = |time: Duration| (time.as_secs_f64() * 1e3).round() as u64 * 1_000_000;
    let from_ns = ns(line.start_timestamp());
    Span { from_ns, to_ns: from_ns + ns(line.duration()) }
}

/// The phase of that number.
pub(super) fn phase(phases: &[PhaseRecord], index: u16) -> Result<&PhaseRecord> {
    phases.get(usize::from(index)).with_context(|| {
        format!("operations were recorded for phase number {index}, but the run had {} phases", phases.len())
    })
}

fn tag(phase: &str, key: &Key, clock: &str) -> String {
    format!("{}:{}:{}:{clock}", escape(phase), key.op, key.outcome)
}

fn parse_tag(tag: &str, phases: &[PhaseRecord]) -> Result<(Key, Clock, bool)> {
    let parts: Vec<&str> = tag.split(':').collect();
    let (phase, op, outcome, clock, interval) = match parts[..] {
        [phase, op, outcome, clock] => (phase, op, outcome, clock, false),
        [phase, op, outcome, clock, "interval"] => (phase, op, outcome, clock, true),
        _ => bail!("tag {tag:?} is not of the form PHASE:OP:OUTCOME:CLOCK[:interval]"),
    };
    let index = phases
        .iter()
        .position(|p| escape(&p.name) == phase)
        .with_context(|| format!("tag {tag:?}: the manifest has no phase {phase:?}"))?;
    let op = parse_op(op).with_context(|| format!("tag {tag:?}: unknown operation {op:?}"))?;
    let outcome =
        parse_outcome(outcome).with_context(|| format!("tag {tag:?}: unknown outcome {outcome:?}"))?;
    let clock = match clock {
        "response" => Clock::Response,
        "service" => Clock::Service,
        "lag" => Clock::Lag,
        other => bail!("tag {tag:?}: unknown clock {other:?}; known are response, service and lag"),
    };
    Ok((Key { phase: index as u16, op, outcome }, clock, interval))
}

/// An operation by its name.
pub(super) fn parse_op(name: &str) -> Option<Op> {
    Op::ALL.into_iter().find(|op| op.name() == name)
}

/// An outcome by its name.
pub(super) fn parse_outcome(name: &str) -> Option<Outcome> {
    if name == "ok" {
        return Some(Outcome::Ok);
    }
    ErrorCode::ALL.iter().find(|code| code.name() == name).map(|code| Outcome::Error(*code))
}

fn escape(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    name.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:x}", c as u32) }).collect()
}

fn to_bins(histogram: &Histogram<u64>) -> Bins {
    let mut bins = Bins::default();
    for step in histogram.iter_recorded() {
        let count = u32::try_from(step.count_at_value()).unwrap_or(u32::MAX);
        bins.add(histogram.lowest_equivalent(step.value_iterated_to()), count);
    }
    bins
}
