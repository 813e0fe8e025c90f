//! Writing the directory. The manifest comes last: a directory without one is an interrupted write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::closeup::Close;
use crate::figures;
use crate::op::{Op, Outcome};
use crate::recorder::{Bins, Interval, Key, Recording};
use crate::summary::{self, OpSummary, PhaseSummary, Summary};

use super::{FORMAT, PhaseRecord, RunData, ServerSample, file, hlog};

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

/// Creates the directory and writes everything but traces, charts and the report into it.
///
/// # Errors
/// The file that could not be written and why; or a run whose parts contradict each other (two phases of
/// one name, operations of a phase that the manifest does not have).
pub fn write(dir: &Path, run: &RunData, summary: &Summary) -> Result<()> {
    let phases = &run.manifest.phases;
    let names: BTreeSet<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
    ensure!(names.len() == phases.len(), "two phases have the same name; results are kept by name");
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut contents = vec![
        (file::SUMMARY_JSON, serde_json::to_vec_pretty(summary)?),
        (file::SUMMARY_CSV, summary_csv(summary)?),
        (file::HISTOGRAMS, hlog::write(&run.recording, phases, run.manifest.started_unix_ms)?),
        (file::INTERVALS, intervals_csv(&run.recording, phases)?),
        (file::EVENTS, rows_csv(&run.events)?),
        (file::SERVERS, servers_csv(&run.servers)?),
        (file::GENERATOR, rows_csv(&run.generator.samples)?),
    ];
    if !run.completions.is_empty() {
        contents.push((file::COMPLETIONS, completions_csv(&run.completions)?));
    }
    let mut manifest = run.manifest.clone();
    manifest.format = FORMAT;
    for (name, bytes) in contents {
        put(dir, name, &bytes)?;
        manifest.files.insert(name.to_string(), bytes.len() as u64);
    }
    put(dir, file::MANIFEST, &serde_json::to_vec_pretty(&manifest)?)
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

/// `member` is a place in the manifest's list of members, counted from 1 as `server.1` is.
fn completions_csv(rows: &[Close]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["at_ns", "response_ns", "member", "op", "outcome"])?;
    for row in rows {
        writer.serialize((
            row.at_ns,
            row.response_ns,
            row.member + 1,
            row.op.name(),
            row.outcome.to_string(),
        ))?;
    }
    Ok(writer.into_inner()?)
}

// ------------------------------------------------------------------------------------------ intervals

/// One row of `intervals.csv`. Percentiles are empty where the interval has too few samples for them.
#[derive(Debug, Serialize)]
struct IntervalRow<'a> {
    start_ms: u64,
    interval_ms: u64,
    phase: &'a str,
    op: Op,
    outcome: String,
    count: u64,
    rate: f64,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    max_us: Option<f64>,
    service_p99_us: Option<f64>,
    bytes: u64,
    /// Operations due in this interval, missed ones included; only in rows of outcome `ok`.
    offered: u32,
    /// Of these, never sent because the backlog was full or the run over.
    missed: u32,
}

fn intervals_csv(recording: &Recording, phases: &[PhaseRecord]) -> Result<Vec<u8>> {
    // Rows by time, so that the file reads as the run went.
    let mut rows: BTreeMap<(u64, Key), (Option<&Interval>, u32, u32)> = BTreeMap::new();
    for (key, intervals) in &recording.intervals {
        for interval in intervals {
            rows.entry((interval.index, *key)).or_default().0 = Some(interval);
        }
    }
    for (&(phase, op), arrivals) in &recording.arrivals {
        for (index, offered, missed) in arrivals.iter() {
            let row = rows.entry((index, Key { phase, op, outcome: Outcome::Ok })).or_default();
            (row.1, row.2) = (offered, missed);
        }
    }
    let none = Interval::default();
    let mut writer = csv::Writer::from_writer(Vec::new());
    for ((index, key), (interval, offered, missed)) in rows {
        let phase = phases.get(usize::from(key.phase)).with_context(|| {
            format!("operations were recorded for phase number {}, which is not in the manifest", key.phase)
        })?;
        let interval = interval.unwrap_or(&none);
        let count = interval.response.count();
        let p = |bins: &Bins, q| summary::enough(bins.count(), q).then(|| bins.quantile(q)).flatten().map(us);
        writer.serialize(IntervalRow {
            start_ms: index * recording.interval_ns / 1_000_000,
            interval_ms: recording.interval_ns / 1_000_000,
            phase: &phase.name,
            op: key.op,
            outcome: key.outcome.to_string(),
            count,
            rate: count as f64 * 1e9 / recording.interval_ns as f64,
            p50_us: p(&interval.response, 0.5),
            p90_us: p(&interval.response, 0.9),
            p99_us: p(&interval.response, 0.99),
            p999_us: p(&interval.response, 0.999),
            max_us: interval.response.max().map(us),
            service_p99_us: p(&interval.service, 0.99),
            bytes: interval.bytes,
            offered,
            missed,
        })?;
    }
    Ok(writer.into_inner()?)
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

// -------------------------------------------------------------------------------------------- servers

fn servers_csv(samples: &[ServerSample]) -> Result<Vec<u8>> {
    let names: BTreeSet<&str> =
        samples.iter().flat_map(|sample| sample.metrics.keys().map(String::as_str)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(
        ["at_ns", "member", "role", "cpu_ns", "rss_bytes"].into_iter().chain(names.iter().copied()),
    )?;
    let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    for sample in samples {
        let mut record = vec![
            sample.at_ns.to_string(),
            sample.member.clone(),
            sample.role.clone(),
            text(sample.cpu_ns),
            text(sample.rss_bytes),
        ];
        record.extend(
            names.iter().map(|name| sample.metrics.get(*name).map(|v| v.to_string()).unwrap_or_default()),
        );
        writer.write_record(record)?;
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
