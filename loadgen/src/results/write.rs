//! Writing the directory. The manifest is there from the beginning of the load on, and says whether the run is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::figures;
use crate::op::Outcome;
use crate::recorder::{Bins, Class, Key};
use crate::summary::{OpSummary, PhaseSummary, Summary};

use super::stream::{Row, Stream};
use super::{FORMAT, Manifest, RunData, State, file};

/// The name of a run's directory: `<UTC time>-<workload>-<cluster>`.
pub fn directory_name(started_unix_ms: u64, workload: &str, cluster_label: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    };
    format!("{}-{}-{}", figures::utc_compact(started_unix_ms), plain(workload), plain(cluster_label))
}

/// Makes a directory of that name in `out`; with a number behind the name if another run has it already.
///
/// # Errors
/// The directory that could not be made, and why.
pub fn make_directory(out: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut directory = out.join(name);
    for number in 2.. {
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => {
                made.with_context(|| format!("cannot create {}", directory.display()))?;
                break;
            }
        }
        directory = out.join(format!("{name}-{number}"));
    }
    Ok(directory)
}

/// Writes the manifest of a run that begins: until [`complete`], the directory says of itself that the run goes on.
///
/// # Errors
/// The file that could not be written and why; two phases of one name.
pub(crate) fn begin(dir: &Path, manifest: &Manifest) -> Result<()> {
    let names: BTreeSet<&str> = manifest.phases.iter().map(|phase| phase.name.as_str()).collect();
    ensure!(names.len() == manifest.phases.len(), "two phases have the same name; results are kept by name");
    put_manifest(dir, Manifest { state: State::Running, ..manifest.clone() })
}

/// Writes what is known when a run is over: the summary, the events in order, the whole manifest.
///
/// # Errors
/// The file that could not be written and why.
pub(crate) fn complete(dir: &Path, run: &RunData, summary: &Summary) -> Result<()> {
    put_summary(dir, summary)?;
    put(dir, file::EVENTS, &rows_csv(&run.events)?)?;
    let mut manifest = Manifest { state: State::Complete, ..run.manifest.clone() };
    for name in [file::SUMMARY_JSON, file::SUMMARY_CSV].into_iter().chain(file::STREAMED) {
        if let Ok(metadata) = std::fs::metadata(dir.join(name)) {
            manifest.files.insert(name.to_string(), metadata.len());
        }
    }
    put_manifest(dir, manifest)
}

/// Writes `summary.json` and `summary.csv`.
///
/// # Errors
/// The file that could not be written and why.
pub(crate) fn put_summary(dir: &Path, summary: &Summary) -> Result<()> {
    put(dir, file::SUMMARY_JSON, &serde_json::to_vec_pretty(summary)?)?;
    put(dir, file::SUMMARY_CSV, &summary_csv(summary)?)
}

/// Creates the directory and writes a run that is in memory into it: everything but traces, charts and the report. (`zoometry run`
/// writes while the run goes on, into the same files.)
///
/// # Errors
/// The file that could not be written and why; or a run whose parts contradict each other (two phases of
/// one name, operations of a phase that the manifest does not have).
pub fn write(dir: &Path, run: &RunData, summary: &Summary) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    begin(dir, &run.manifest)?;
    let recording = &run.recording;
    let mut stream = Stream::create(dir, &run.manifest, recording.interval_ns)?;
    for (at, phase) in run.manifest.phases.iter().enumerate() {
        let mine = recording.totals.iter().filter(|(key, _)| usize::from(key.phase) == at);
        let totals = mine.map(|(key, total)| (*key, total.clone())).collect();
        stream.stretch(phase.start_ns, phase.end_ns, &totals)?;
    }
    let mut intervals: BTreeMap<u64, BTreeMap<Key, Row>> = BTreeMap::new();
    for (key, all) in &recording.intervals {
        for interval in all {
            let row = intervals.entry(interval.index).or_default().entry(*key).or_default();
            row.response.clone_from(&interval.response);
            row.bytes = interval.bytes;
        }
    }
    for (&(phase, op), arrivals) in &recording.arrivals {
        for (index, offered, missed) in arrivals.iter() {
            let key = Key { phase, op, outcome: Outcome::Ok };
            let row = intervals.entry(index).or_default().entry(key).or_default();
            (row.offered, row.missed) = (offered, missed);
        }
    }
    let (first, last) = (intervals.keys().next().copied(), intervals.keys().last().copied());
    for index in first.unwrap_or(1)..=last.unwrap_or(0) {
        let rows = intervals.remove(&index).unwrap_or_default();
        let counted = |key: &Key| key.outcome == Outcome::Ok && Class::of(key.op).is_some();
        let all: Vec<&Bins> =
            rows.iter().filter(|(key, _)| counted(key)).map(|(_, row)| &row.response).collect();
        stream.interval(index, &rows, &Bins::merged(&all), None)?;
    }
    run.servers.iter().try_for_each(|sample| stream.server(sample.clone()))?;
    run.generator.samples.iter().try_for_each(|sample| stream.generator(sample))?;
    run.completions.iter().try_for_each(|close| stream.completion(close).map(drop))?;
    stream.finish()?;
    complete(dir, run, summary)
}

fn put_manifest(dir: &Path, mut manifest: Manifest) -> Result<()> {
    manifest.format = FORMAT;
    // In one step: whoever ends the program meanwhile, there is a manifest.
    let (path, new) = (dir.join(file::MANIFEST), format!("{}.new", file::MANIFEST));
    put(dir, &new, &serde_json::to_vec_pretty(&manifest)?)?;
    std::fs::rename(dir.join(new), &path).with_context(|| format!("cannot write {}", path.display()))
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).with_context(|| {
        format!("cannot write {}; free some space or choose another directory", path.display())
    })
}

fn rows_csv<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.into_inner()?)
}

// -------------------------------------------------------------------------------------------- summary

fn summary_csv(summary: &Summary) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(
        ["phase", "warmup", "op", "seconds", "offered", "count", "rate", "errors", "missed", "bytes"]
            .into_iter()
            .map(str::to_string)
            .chain(["response", "service", "lag"].into_iter().flat_map(|clock| {
                ["mean", "p50", "p90", "p95", "p99", "p999", "p9999", "max"]
                    .map(|figure| format!("{clock}_{figure}_us"))
            }))
            .chain(
                ["errors_by_code", "servers_cpu_us_per_op", "generator_cpu_us_per_op"].map(str::to_string),
            ),
    )?;
    for phase in summary.phases.iter().chain([&summary.whole]) {
        for op in phase.ops.iter().chain(&phase.groups) {
            writer.write_record(summary_record(phase, op))?;
        }
    }
    Ok(writer.into_inner()?)
}

fn summary_record(phase: &PhaseSummary, op: &OpSummary) -> Vec<String> {
    let number = |value: Option<f64>| value.map(|v| format!("{v:.3}")).unwrap_or_default();
    let mut record = vec![
        phase.name.clone(),
        phase.warmup.to_string(),
        op.op.clone(),
        format!("{:.3}", phase.seconds),
        op.offered.to_string(),
        op.count.to_string(),
        format!("{:.3}", op.rate),
        op.errors.to_string(),
        op.missed.to_string(),
        op.bytes.to_string(),
    ];
    for clock in [&op.response, &op.service, &op.lag] {
        let some = |value: f64| (clock.count > 0).then_some(value);
        record.extend(
            [
                some(clock.mean_us),
                clock.p50_us,
                clock.p90_us,
                clock.p95_us,
                clock.p99_us,
                clock.p999_us,
                clock.p9999_us,
                some(clock.max_us),
            ]
            .map(number),
        );
    }
    let codes: Vec<String> = op.errors_by_code.iter().map(|(code, n)| format!("{code}={n}")).collect();
    record.push(codes.join(" "));
    record.push(number(phase.servers.cpu_us_per_op));
    record.push(number(phase.generator.cpu_us_per_op));
    record
}
