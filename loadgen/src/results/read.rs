//! Reading a directory back. What is missing, cut or contradicts itself is an error that names the file
//! and says what to do; nothing is guessed. A directory whose run never ended is read as far as it was written, and its
//! manifest says so: it is cut short, and INVALID.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::closeup::Close;
use crate::driver::FanOut;
use crate::figures;
use crate::op::Outcome;
use crate::recorder::{INTERVAL_NS, Key, Recording};
use crate::summary::Summary;
use crate::verdict::Verdict;

use super::hlog::{self, Line};
use super::stream::{MORE, SERVER_COLUMNS};
use super::{
    EventRow, FORMAT, GeneratorSample, GeneratorStats, Manifest, PhaseRecord, RunData, ServerSample, State,
    cut_phases, file, gaps,
};

/// The oldest layout that is read.
const FORMAT_MIN: u64 = 1;

/// Reads a results directory.
///
/// # Errors
/// A file that is missing, of another length than when it was written, or not what it should be.
pub fn read(dir: &Path) -> Result<RunData> {
    let mut manifest = read_manifest(dir)?;
    match manifest.state {
        State::Complete => {
            let lengths = std::mem::take(&mut manifest.files);
            load(&Source { dir, lengths: Some(lengths) }, manifest, u64::MAX)
        }
        State::Running => read_cut_off(dir, manifest),
    }
}

/// Reads what the run of this manifest has written until now, when the load is over.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_streamed(dir: &Path, manifest: Manifest) -> Result<RunData> {
    let mut run = load(&Source { dir, lengths: None }, manifest, u64::MAX)?;
    settle(&mut run);
    Ok(run)
}

/// Reads a directory whose run never ended: what was written whole.
fn read_cut_off(dir: &Path, mut manifest: Manifest) -> Result<RunData> {
    let source = Source { dir, lengths: None };
    let log = source.open(file::HISTOGRAMS)?;
    let until_ns = hlog::whole_until(log).with_context(|| broken(dir, file::HISTOGRAMS))?;
    cut_phases(&mut manifest.phases, until_ns);
    manifest.cut_short = true;
    manifest.cut_short_by = format!(
        "it never ended: the program was killed, or still runs; what it wrote reaches to {} of the run's clock",
        figures::seconds(until_ns as f64 / 1e9)
    );
    manifest.ended_unix_ms = manifest.started_unix_ms + until_ns / 1_000_000;
    let mut run = load(&source, manifest, until_ns)?;
    settle(&mut run);
    let summary = Summary::of(&run);
    run.manifest.verdict = Verdict::judge(&run, &summary);
    Ok(run)
}

/// What only is known when everything is there: an event whose end was not known at first was written again, with its end; and which
/// gaps stand out.
fn settle(run: &mut RunData) {
    let events = &mut run.events;
    events.sort_by(|a, b| {
        (a.at_ns, &a.kind, &a.target, &a.detail, std::cmp::Reverse(a.duration_ns)).cmp(&(
            b.at_ns,
            &b.kind,
            &b.target,
            &b.detail,
            std::cmp::Reverse(b.duration_ns),
        ))
    });
    events.dedup_by(|next, kept| {
        let of =
            |event: &EventRow| (event.at_ns, event.kind.clone(), event.target.clone(), event.detail.clone());
        next.kind != "session" && of(next) == of(kept)
    });
    gaps::select(events, &run.recording, &run.manifest.phases);
    events.sort_by_key(|event| event.at_ns);
}

fn load(source: &Source<'_>, manifest: Manifest, until_ns: u64) -> Result<RunData> {
    let dir = source.dir;
    let recording = recording(source, &manifest.phases, until_ns)?;
    let events: Vec<EventRow> = source.rows(file::EVENTS)?;
    let servers = servers(source.open(file::SERVERS)?).with_context(|| broken(dir, file::SERVERS))?;
    let mut samples: Vec<GeneratorSample> = source.rows(file::GENERATOR)?;
    samples.sort_by_key(|sample| (sample.at_ns, sample.worker));
    let completions = match source.has(file::COMPLETIONS) {
        true => {
            completions(&source.rows(file::COMPLETIONS)?).with_context(|| broken(dir, file::COMPLETIONS))?
        }
        false => Vec::new(),
    };
    let generator = GeneratorStats { samples };
    Ok(RunData { manifest, recording, events, servers, generator, completions })
}

/// What `watches.csv` holds, by time; nothing when nobody watched.
///
/// # Errors
/// When it is not what it should be.
pub(crate) fn fan_outs(dir: &Path) -> Result<Vec<FanOut>> {
    let source = Source { dir, lengths: None };
    if !source.has(file::WATCHES) {
        return Ok(Vec::new());
    }
    let mut rows: Vec<FanOut> = source.rows(file::WATCHES)?;
    rows.sort_by_key(|row| row.due_ns);
    // Watchers that heard long after the others have a row of their own.
    rows.dedup_by(|next, kept| {
        let same = next.due_ns == kept.due_ns;
        if same {
            let median_ns = if next.watchers > kept.watchers { next.median_ns } else { kept.median_ns };
            *kept = FanOut {
                watchers: kept.watchers + next.watchers,
                first_ns: kept.first_ns.min(next.first_ns),
                last_ns: kept.last_ns.max(next.last_ns),
                median_ns,
                ..*kept
            };
        }
        same
    });
    Ok(rows)
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
             a run that was killed before its load began has no results",
            dir.display(),
            file::MANIFEST
        );
    }
    /// What is read first: another format may have another manifest.
    #[derive(Deserialize)]
    struct Format {
        #[serde(default = "first")]
        format: u64,
    }
    fn first() -> u64 {
        FORMAT_MIN
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Format { format } = serde_json::from_slice(&text).with_context(|| broken(dir, file::MANIFEST))?;
    ensure!(
        (FORMAT_MIN..=u64::from(FORMAT)).contains(&format),
        "{}: this directory has format {format}; this zoometry reads {FORMAT_MIN} and {FORMAT}: use a newer zoometry",
        dir.display()
    );
    serde_json::from_slice(&text).with_context(|| broken(dir, file::MANIFEST))
}

fn broken(dir: &Path, name: &str) -> String {
    format!(
        "{} is damaged; copy the directory again, or repeat the run (its command is in {})",
        dir.join(name).display(),
        file::MANIFEST
    )
}

/// The files of a directory.
struct Source<'a> {
    dir: &'a Path,
    /// What they must be long; `None` while they are being written, when a last line may be torn.
    lengths: Option<BTreeMap<String, u64>>,
}

impl Source<'_> {
    fn has(&self, name: &str) -> bool {
        match &self.lengths {
            Some(lengths) => lengths.contains_key(name),
            None => self.dir.join(name).exists(),
        }
    }

    /// A file's whole lines.
    fn open(&self, name: &str) -> Result<BufReader<std::io::Take<File>>> {
        let path = self.dir.join(name);
        let mut file = File::open(&path)
            .with_context(|| format!("cannot read {}; copy the directory again, whole", path.display()))?;
        let length = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        let whole = match &self.lengths {
            Some(lengths) => {
                let expected = lengths.get(name).copied();
                if expected != Some(length) {
                    let expected = expected.map_or("does not list it".to_string(), |n| format!("says {n}"));
                    return Err(anyhow::anyhow!("it has {length} bytes, {} {expected}", file::MANIFEST)
                        .context(broken(self.dir, name)));
                }
                length
            }
            None => {
                whole_lines(&mut file, length).with_context(|| format!("cannot read {}", path.display()))?
            }
        };
        Ok(BufReader::new(file.take(whole)))
    }

    fn rows<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let rows: Result<Vec<T>, csv::Error> =
            csv::Reader::from_reader(self.open(name)?).deserialize().collect();
        rows.with_context(|| broken(self.dir, name))
    }
}

/// Bytes up to the end of the last line that has one. Leaves the file at its begin.
fn whole_lines(file: &mut File, length: u64) -> std::io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = length;
    let mut whole = 0;
    while end > 0 {
        let begin = end.saturating_sub(STEP);
        let mut bytes = vec![0; (end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            whole = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(whole)
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

/// Counts and bytes of intervals, which their histograms must agree with.
type Expected = HashMap<(Key, u64), (u64, u64)>;

fn recording(source: &Source<'_>, phases: &[PhaseRecord], until_ns: u64) -> Result<Recording> {
    let dir = source.dir;
    let (mut recording, mut expected) =
        arrivals(source, phases, until_ns).with_context(|| broken(dir, file::INTERVALS))?;
    let log = source.open(file::HISTOGRAMS)?;
    hlog::read(log, phases, until_ns, |line| {
        match line {
            Line::Interval(key, start_ns, response) => {
                let count = response.count();
                let (counted, bytes) = expected.remove(&(key, start_ns)).unwrap_or_default();
                ensure!(
                    counted == count,
                    "{} {} at {} ms: it has {count}, the row of {} says {counted}",
                    key.op,
                    key.outcome,
                    start_ns / 1_000_000,
                    file::INTERVALS
                );
                recording.add_interval(key, start_ns, response, bytes);
            }
            Line::Stretch(key, clock, histogram) => {
                let total = recording.totals.entry(key).or_default();
                let mine = match clock {
                    hlog::Clock::Response => &mut total.response,
                    hlog::Clock::Service => &mut total.service,
                    hlog::Clock::Lag => &mut total.lag,
                };
                mine.add(histogram)
                    .map_err(|error| anyhow::anyhow!("a histogram does not fit: {error:?}"))?;
            }
        }
        Ok(())
    })
    .with_context(|| broken(dir, file::HISTOGRAMS))?;
    if let Some(((key, start_ns), (count, _))) = expected.into_iter().min() {
        bail!(
            "{}: its row of {} {} at {} ms counts {count}, {} has no such interval",
            broken(dir, file::INTERVALS),
            key.op,
            key.outcome,
            start_ns / 1_000_000,
            file::HISTOGRAMS
        );
    }
    for (key, intervals) in &recording.intervals {
        let parts: u64 = intervals.iter().map(|interval| interval.response.count()).sum();
        let total = recording.totals.get(key).map_or(0, |total| total.response.len());
        ensure!(
            parts == total,
            "{}: the intervals of {} {} sum to {parts}, the phase has {total}",
            broken(dir, file::HISTOGRAMS),
            key.op,
            key.outcome
        );
    }
    Ok(recording)
}

/// What `intervals.csv` holds.
fn arrivals(source: &Source<'_>, phases: &[PhaseRecord], until_ns: u64) -> Result<(Recording, Expected)> {
    let mut reader = csv::Reader::from_reader(source.open(file::INTERVALS)?);
    let mut recording: Option<Recording> = None;
    let mut expected = Expected::new();
    for (at, row) in reader.deserialize().enumerate() {
        let row: IntervalRow = row?;
        let place = || format!("row {}", at + 1);
        ensure!(row.interval_ms > 0, "{}: an interval of 0 ms", place());
        let interval_ns = row.interval_ms.saturating_mul(1_000_000);
        let start_ns = row.start_ms.saturating_mul(1_000_000);
        if start_ns.saturating_add(interval_ns) > until_ns {
            continue;
        }
        let recording = recording.get_or_insert_with(|| Recording::new(interval_ns));
        add_row(recording, &mut expected, &row, start_ns, phases).with_context(place)?;
    }
    Ok((recording.unwrap_or_else(|| Recording::new(INTERVAL_NS)), expected))
}

fn add_row(
    recording: &mut Recording,
    expected: &mut Expected,
    row: &IntervalRow,
    start_ns: u64,
    phases: &[PhaseRecord],
) -> Result<()> {
    let phase = phases
        .iter()
        .position(|phase| phase.name == row.phase)
        .with_context(|| format!("the manifest has no phase {:?}", row.phase))? as u16;
    let op = hlog::parse_op(&row.op).with_context(|| format!("unknown operation {:?}", row.op))?;
    let outcome =
        hlog::parse_outcome(&row.outcome).with_context(|| format!("unknown outcome {:?}", row.outcome))?;
    if row.count > 0 {
        expected.insert((Key { phase, op, outcome }, start_ns), (row.count, row.bytes));
    }
    if outcome == Outcome::Ok && row.offered > 0 {
        recording.add_arrivals((phase, op), start_ns, row.offered, row.missed);
    }
    Ok(())
}

fn servers(rows: impl Read) -> Result<Vec<ServerSample>> {
    let mut reader = csv::Reader::from_reader(rows);
    let names: Vec<String> = reader.headers()?.iter().map(str::to_string).collect();
    if names.is_empty() {
        // Members had not been asked yet.
        return Ok(Vec::new());
    }
    let known = SERVER_COLUMNS.len();
    ensure!(names.len() >= known, "it has {} columns, {known} at least were expected", names.len());
    let optional = |text: &str| (!text.is_empty()).then(|| text.parse::<u64>()).transpose();
    let mut samples = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut metrics = BTreeMap::new();
        let columns = names.iter().map(String::as_str).zip(record.iter()).skip(known);
        for (name, value) in columns.filter(|(_, value)| !value.is_empty()) {
            let mut add = |name: &str, value: &str| -> Result<()> {
                let value = value.parse().with_context(|| format!("{name} is {value:?}"))?;
                metrics.insert(name.to_owned(), value);
                Ok(())
            };
            match name {
                MORE => {
                    let pairs = value.split(' ').filter_map(|pair| pair.split_once('='));
                    pairs.into_iter().try_for_each(|(name, value)| add(name, value))?;
                }
                name => add(name, value)?,
            }
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
    samples.sort_by(|a, b| (a.at_ns, &a.member).cmp(&(b.at_ns, &b.member)));
    Ok(samples)
}
