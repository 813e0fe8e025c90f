//! `histograms.hlog`: the HdrHistogram interval log, version 1.3, as every HdrHistogram tool reads it.
//!
//! Values are nanoseconds. Tags are `PHASE:OP:OUTCOME:CLOCK` for a whole phase (three significant digits,
//! clocks `response`, `service` and `lag`), and the same with `:interval` behind for each interval (two
//! digits, `response` and `service`). Phase names are escaped so that no tag has a comma, colon or space.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use zoometry_wire::ErrorCode;

use crate::op::{Op, Outcome};
use crate::recorder::{Bins, Interval, Key, MAX_NS, Recording, Total};

use super::PhaseRecord;

/// Writes all histograms of a recording.
pub(super) fn write(recording: &Recording, phases: &[PhaseRecord], started_unix_ms: u64) -> Result<Vec<u8>> {
    let mut lines: Vec<(u64, u64, String, Histogram<u64>)> = Vec::new();
    for (key, total) in &recording.totals {
        let phase = phase(phases, key.phase)?;
        let length_ns = phase.end_ns.saturating_sub(phase.start_ns);
        for (clock, histogram) in
            [("response", &total.response), ("service", &total.service), ("lag", &total.lag)]
        {
            lines.push((phase.start_ns, length_ns, tag(&phase.name, key, clock), histogram.clone()));
        }
    }
    for (key, intervals) in &recording.intervals {
        let phase = phase(phases, key.phase)?;
        for interval in intervals {
            for (clock, bins) in [("response", &interval.response), ("service", &interval.service)] {
                let tag = format!("{}:interval", tag(&phase.name, key, clock));
                let start_ns = interval.index * recording.interval_ns;
                lines.push((start_ns, recording.interval_ns, tag, from_bins(bins)));
            }
        }
    }
    lines.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
    encode(&lines, started_unix_ms)
}

fn encode(lines: &[(u64, u64, String, Histogram<u64>)], started_unix_ms: u64) -> Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(started_unix_ms);
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("zoometry: values in ns, interval maxima in ms")
        .add_comment("tags PHASE:OP:OUTCOME:CLOCK for whole phases, with :interval for each interval")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1e6);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    for (start_ns, length_ns, tag, histogram) in lines {
        let tag = Tag::new(tag).with_context(|| format!("{tag:?} is no tag of an interval log"))?;
        writer
            .write_histogram(
                histogram,
                Duration::from_nanos(*start_ns),
                Duration::from_nanos(*length_ns),
                Some(tag),
            )
            .map_err(|error| anyhow::anyhow!("histogram {} cannot be encoded: {error:?}", tag.as_str()))?;
    }
    Ok(log)
}

/// What the log holds: whole phases, and intervals without their bytes.
pub(super) struct Contents {
    /// Whole phases.
    pub(super) totals: BTreeMap<Key, Total>,
    /// Intervals, by index.
    pub(super) intervals: BTreeMap<Key, BTreeMap<u64, Interval>>,
}

/// Reads back what [`write`] wrote. `interval_ns` must be the recording's.
pub(super) fn read(log: &[u8], phases: &[PhaseRecord], interval_ns: u64) -> Result<Contents> {
    let mut contents = Contents { totals: BTreeMap::new(), intervals: BTreeMap::new() };
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(log) {
        let entry = entry.map_err(|error| anyhow::anyhow!("a line is no interval log entry ({error:?})"))?;
        let LogEntry::Interval(line) = entry else { continue };
        let tag = line.tag().map(|tag| tag.as_str()).unwrap_or_default();
        let (key, clock, interval) = parse_tag(tag, phases)?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(line.encoded_histogram())
            .with_context(|| format!("the histogram of {tag} is not base64"))?;
        let histogram: Histogram<u64> = deserializer
            .deserialize(&mut std::io::Cursor::new(&bytes))
            .map_err(|error| anyhow::anyhow!("the histogram of {tag} cannot be decoded: {error:?}"))?;
        if interval {
            let index = (line.start_timestamp().as_nanos() as u64 + interval_ns / 2) / interval_ns;
            let slot = contents.intervals.entry(key).or_default().entry(index).or_default();
            slot.index = index;
            match clock {
                "response" => slot.response = to_bins(&histogram),
                "service" => slot.service = to_bins(&histogram),
                other => bail!("{tag}: no intervals are kept of clock {other:?}"),
            }
        } else {
            let total = contents.totals.entry(key).or_default();
            match clock {
                "response" => total.response = histogram,
                "service" => total.service = histogram,
                "lag" => total.lag = histogram,
                other => bail!("{tag}: unknown clock {other:?}; known are response, service and lag"),
            }
        }
    }
    Ok(contents)
}

fn phase(phases: &[PhaseRecord], index: u16) -> Result<&PhaseRecord> {
    phases.get(usize::from(index)).with_context(|| {
        format!("operations were recorded for phase number {index}, but the run had {} phases", phases.len())
    })
}

fn tag(phase: &str, key: &Key, clock: &str) -> String {
    format!("{}:{}:{}:{clock}", escape(phase), key.op, key.outcome)
}

fn parse_tag<'t>(tag: &'t str, phases: &[PhaseRecord]) -> Result<(Key, &'t str, bool)> {
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

fn from_bins(bins: &Bins) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, MAX_NS, 2).expect("constant bounds are valid");
    bins.iter().for_each(|(value, count)| histogram.saturating_record_n(value, count));
    histogram
}

fn to_bins(histogram: &Histogram<u64>) -> Bins {
    let mut bins = Bins::default();
    for step in histogram.iter_recorded() {
        let count = u32::try_from(step.count_at_value()).unwrap_or(u32::MAX);
        bins.add(histogram.lowest_equivalent(step.value_iterated_to()), count);
    }
    bins
}
