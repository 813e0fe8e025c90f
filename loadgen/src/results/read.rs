//! Reading a directory back. What is missing, cut or contradicts itself is an error that names the file
//! and says what to do; nothing is guessed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::closeup::Close;
use crate::op::Outcome;
use crate::recorder::{INTERVAL_NS, Interval, Key, MAX_INTERVALS, Recording};

use super::{EventRow, FORMAT, GeneratorStats, Manifest, PhaseRecord, RunData, ServerSample, file, hlog};

/// Reads a results directory.
///
/// # Errors
/// A file that is missing, of another length than when it was written, or not what it should be.
pub fn read(dir: &Path) -> Result<RunData> {
    let mut manifest = read_manifest(dir)?;
    let interval_rows: Vec<IntervalRow> = rows(dir, file::INTERVALS, &manifest)?;
    let recording = recording(dir, &manifest, &interval_rows)?;
    let events: Vec<EventRow> = rows(dir, file::EVENTS, &manifest)?;
    let servers =
        servers(&bytes(dir, file::SERVERS, &manifest)?).with_context(|| broken(dir, file::SERVERS))?;
    let generator = GeneratorStats { samples: rows(dir, file::GENERATOR, &manifest)? };
    let completions = match manifest.files.contains_key(file::COMPLETIONS) {
        true => completions(&rows(dir, file::COMPLETIONS, &manifest)?)
            .with_context(|| broken(dir, file::COMPLETIONS))?,
        false => Vec::new(),
    };
    manifest.files = BTreeMap::new();
    Ok(RunData { manifest, recording, events, servers, generator, completions })
}

fn completions(rows: &[(u64, u64, u16, String, String)]) -> Result<Vec<Close>> {
    let close = |(at_ns, response_ns, member, op, outcome): &(u64, u64, u16, String, String)| {
        Ok(Close {
            at_ns: *at_ns,
            response_ns: *response_ns,
            member: member.checked_sub(1).context("members are counted from 1")?,
            op: hlog::parse_op(op).with_context(|| format!("unknown operation {op:?}"))?,
            outcome: hlog::parse_outcome(outcome).with_context(|| format!("unknown outcome {outcome:?}"))?,
        })
    };
    rows.iter().map(close).collect()
}

/// Reads the manifest alone.
///
/// # Errors
/// When there is none, or it is not one that this version understands.
pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(file::MANIFEST);
    if !path.exists() {
        bail!(
            "{} is not a results directory: it has no {}. Name a directory that `zoometry run` wrote; \
             if a run was killed while writing, its results are lost",
            dir.display(),
            file::MANIFEST
        );
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text).with_context(|| broken(dir, file::MANIFEST))?;
    ensure!(
        manifest.format == FORMAT,
        "{} has layout {}, this version reads layout {FORMAT}; use the version that wrote it ({})",
        path.display(),
        manifest.format,
        manifest.version
    );
    Ok(manifest)
}

fn broken(dir: &Path, name: &str) -> String {
    format!(
        "{} is damaged; copy the directory again, or repeat the run (its command is in {})",
        dir.join(name).display(),
        file::MANIFEST
    )
}

fn bytes(dir: &Path, name: &str, manifest: &Manifest) -> Result<Vec<u8>> {
    let path = dir.join(name);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("cannot read {}; copy the directory again, whole", path.display()))?;
    let expected = manifest.files.get(name).copied();
    if expected != Some(bytes.len() as u64) {
        let expected = expected.map_or("does not list it".to_string(), |n| format!("says {n}"));
        return Err(anyhow::anyhow!("it has {} bytes, {} {expected}", bytes.len(), file::MANIFEST)
            .context(broken(dir, name)));
    }
    Ok(bytes)
}

fn rows<T: DeserializeOwned>(dir: &Path, name: &str, manifest: &Manifest) -> Result<Vec<T>> {
    let bytes = bytes(dir, name, manifest)?;
    let rows: Result<Vec<T>, csv::Error> = csv::Reader::from_reader(&bytes[..]).deserialize().collect();
    rows.with_context(|| broken(dir, name))
}

/// What of `intervals.csv` is not in the histograms.
#[derive(Debug, Deserialize)]
struct IntervalRow {
    start_ms: u64,
    interval_ms: u64,
    phase: String,
    op: String,
    outcome: String,
    count: u64,
    bytes: u64,
    offered: u32,
    missed: u32,
}

fn recording(dir: &Path, manifest: &Manifest, rows: &[IntervalRow]) -> Result<Recording> {
    let interval_ns = rows.first().map_or(INTERVAL_NS, |row| row.interval_ms * 1_000_000);
    ensure!(interval_ns > 0, "{}: an interval of 0 ms", broken(dir, file::INTERVALS));
    let log = bytes(dir, file::HISTOGRAMS, manifest)?;
    let mut contents =
        hlog::read(&log, &manifest.phases, interval_ns).with_context(|| broken(dir, file::HISTOGRAMS))?;
    let mut recording = Recording::default();
    recording.interval_ns = interval_ns;
    recording.totals = std::mem::take(&mut contents.totals);
    for (at, row) in rows.iter().enumerate() {
        add_row(&mut recording, &mut contents.intervals, row, &manifest.phases)
            .with_context(|| format!("row {} of {}", at + 1, file::INTERVALS))
            .with_context(|| broken(dir, file::INTERVALS))?;
    }
    for (key, intervals) in contents.intervals {
        let intervals: Vec<Interval> = intervals.into_values().collect();
        let parts: u64 = intervals.iter().map(|interval| interval.response.count()).sum();
        let total = recording.totals.get(&key).map_or(0, |total| total.response.len());
        ensure!(
            parts == total,
            "{}: the intervals of {} {} sum to {parts}, the phase has {total}",
            broken(dir, file::HISTOGRAMS),
            key.op,
            key.outcome
        );
        recording.intervals.insert(key, intervals);
    }
    Ok(recording)
}

fn add_row(
    recording: &mut Recording,
    intervals: &mut BTreeMap<Key, BTreeMap<u64, Interval>>,
    row: &IntervalRow,
    phases: &[PhaseRecord],
) -> Result<()> {
    let phase = phases
        .iter()
        .position(|phase| phase.name == row.phase)
        .with_context(|| format!("the manifest has no phase {:?}", row.phase))? as u16;
    let op = hlog::parse_op(&row.op).with_context(|| format!("unknown operation {:?}", row.op))?;
    let outcome =
        hlog::parse_outcome(&row.outcome).with_context(|| format!("unknown outcome {:?}", row.outcome))?;
    let index = row.start_ms.saturating_mul(1_000_000) / recording.interval_ns;
    ensure!(index < MAX_INTERVALS, "it begins at {} ms, later than any run can have", row.start_ms);
    if row.count > 0 {
        let interval = intervals
            .get_mut(&Key { phase, op, outcome })
            .and_then(|intervals| intervals.get_mut(&index))
            .with_context(|| format!("{} has no such interval", file::HISTOGRAMS))?;
        ensure!(
            interval.response.count() == row.count,
            "it counts {}, {} has {}",
            row.count,
            file::HISTOGRAMS,
            interval.response.count()
        );
        interval.bytes = row.bytes;
    }
    if outcome == Outcome::Ok && row.offered > 0 {
        recording.arrivals.entry((phase, op)).or_default().add(index, row.offered, row.missed);
    }
    Ok(())
}

fn servers(bytes: &[u8]) -> Result<Vec<ServerSample>> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names: Vec<String> = reader.headers()?.iter().map(str::to_string).collect();
    ensure!(names.len() >= 5, "it has {} columns, five at least were expected", names.len());
    let optional = |text: &str| (!text.is_empty()).then(|| text.parse::<u64>()).transpose();
    let mut samples = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut metrics = BTreeMap::new();
        for (name, value) in names.iter().zip(record.iter()).skip(5).filter(|(_, value)| !value.is_empty()) {
            metrics.insert(name.clone(), value.parse().with_context(|| format!("{name} is {value:?}"))?);
        }
        samples.push(ServerSample {
            at_ns: record[0].parse().context("column at_ns")?,
            member: record[1].to_string(),
            role: record[2].to_string(),
            cpu_ns: optional(&record[3]).context("column cpu_ns")?,
            rss_bytes: optional(&record[4]).context("column rss_bytes")?,
            metrics,
        });
    }
    Ok(samples)
}
