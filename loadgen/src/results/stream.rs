//! Files that grow while a run goes on: append-only, one row after the other, so that whatever ends the program, all but the last
//! moments are there. Nothing is kept in memory but what is not written yet. A reader drops a last line that is torn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::closeup::{COMPLETIONS_MAX, Close};
use crate::driver::FanOut;
use crate::op::{Op, Outcome};
use crate::recorder::{Bins, Key, Late, Total};
use crate::summary;

use super::hlog::{self, Span};
use super::{EventRow, GeneratorSample, Manifest, PhaseRecord, ServerSample, file};

/// The columns of `servers.csv` are the figures of the first samples: those of this time.
const FIRST_SAMPLES_NS: u64 = 1_500_000_000;
/// Columns before the figures.
pub(super) const SERVER_COLUMNS: [&str; 5] = ["at_ns", "member", "role", "cpu_ns", "rss_bytes"];
/// The last column: figures that no column has, as `name=value` with spaces between.
pub(super) const MORE: &str = "more";
/// Rows of `watches.csv`; the first ones are kept.
const FAN_OUTS_MAX: usize = 100_000;

/// What a (phase, op, outcome) comes to in an interval.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) response: Bins,
    /// `None` where it is not known, or there are too few samples.
    pub(crate) service_p99_ns: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) offered: u32,
    pub(crate) missed: u32,
}

/// The files of a run that goes on.
pub(crate) struct Stream {
    dir: PathBuf,
    phases: Vec<PhaseRecord>,
    interval_ns: u64,
    histograms: hlog::Writer<BufWriter<File>>,
    intervals: csv::Writer<File>,
    events: csv::Writer<File>,
    generator: csv::Writer<File>,
    servers: Servers,
    completions: Option<csv::Writer<File>>,
    completions_written: usize,
    watches: Option<csv::Writer<File>>,
    watches_written: usize,
}

impl Stream {
    /// Creates the files in a directory that has none of them yet.
    pub(crate) fn create(dir: &Path, manifest: &Manifest, interval_ns: u64) -> Result<Stream> {
        let log = BufWriter::new(create(dir, file::HISTOGRAMS)?);
        let rows = |name| -> Result<csv::Writer<File>> { Ok(csv::Writer::from_writer(create(dir, name)?)) };
        Ok(Stream {
            dir: dir.to_owned(),
            phases: manifest.phases.clone(),
            interval_ns,
            histograms: hlog::Writer::begin(log, manifest.started_unix_ms)?,
            intervals: rows(file::INTERVALS)?,
            events: rows(file::EVENTS)?,
            generator: rows(file::GENERATOR)?,
            servers: Servers { out: rows(file::SERVERS)?, names: None, held: Vec::new() },
            completions: None,
            completions_written: 0,
            watches: None,
            watches_written: 0,
        })
    }

    /// An interval, whole: its rows, and the response times of all of them. `stretch` holds what came together since the last
    /// stretch if one ends here.
    pub(crate) fn interval<const BITS: u32>(
        &mut self,
        index: u64,
        rows: &BTreeMap<Key, Row>,
        all: &Bins<BITS>,
        stretch: Option<&BTreeMap<Key, Total>>,
    ) -> Result<()> {
        let at = Span { from_ns: index * self.interval_ns, to_ns: (index + 1) * self.interval_ns };
        for (key, row) in rows {
            self.row(index, key, row)?;
            if row.response.count() > 0 {
                let phase = &hlog::phase(&self.phases, key.phase)?.name;
                self.histograms.interval(at, phase, key, &row.response)?;
            }
        }
        if let Some(totals) = stretch {
            let from_ns = at.to_ns.saturating_sub(hlog::STRETCH * self.interval_ns);
            self.stretch(from_ns, at.to_ns, totals)?;
        }
        self.histograms.whole(at, all)
    }

    /// All clocks of a stretch of time.
    pub(crate) fn stretch(&mut self, from_ns: u64, to_ns: u64, totals: &BTreeMap<Key, Total>) -> Result<()> {
        let at = Span { from_ns, to_ns };
        for (key, total) in totals {
            let phase = &hlog::phase(&self.phases, key.phase)?.name;
            for (clock, histogram) in
                [("response", &total.response), ("service", &total.service), ("lag", &total.lag)]
            {
                self.histograms.stretch(at, phase, key, clock, histogram)?;
            }
        }
        Ok(())
    }

    /// Operations that were due in an interval that has been written: a row of its own, which adds to the one that is there.
    pub(crate) fn late(&mut self, late: &Late) -> Result<()> {
        let key = Key { phase: late.of.0, op: late.of.1, outcome: Outcome::Ok };
        let row = Row { offered: late.offered, missed: late.missed, ..Row::default() };
        self.row(late.index, &key, &row)
    }

    fn row(&mut self, index: u64, key: &Key, row: &Row) -> Result<()> {
        let count = row.response.count();
        let p = |q| summary::enough(count, q).then(|| row.response.quantile(q)).flatten().map(us);
        self.intervals.serialize(IntervalRow {
            start_ms: index * self.interval_ns / 1_000_000,
            interval_ms: self.interval_ns / 1_000_000,
            phase: &hlog::phase(&self.phases, key.phase)?.name,
            op: key.op,
            outcome: key.outcome.to_string(),
            count,
            rate: count as f64 * 1e9 / self.interval_ns as f64,
            p50_us: p(0.5),
            p90_us: p(0.9),
            p99_us: p(0.99),
            p999_us: p(0.999),
            max_us: row.response.max().map(us),
            service_p99_us: row.service_p99_ns.map(us),
            bytes: row.bytes,
            offered: row.offered,
            missed: row.missed,
        })?;
        Ok(())
    }

    /// Something that happened.
    pub(crate) fn event(&mut self, event: &EventRow) -> Result<()> {
        Ok(self.events.serialize(event)?)
    }

    /// A worker's second.
    pub(crate) fn generator(&mut self, sample: &GeneratorSample) -> Result<()> {
        Ok(self.generator.serialize(sample)?)
    }

    /// A member's second.
    pub(crate) fn server(&mut self, sample: ServerSample) -> Result<()> {
        self.servers.add(sample)
    }

    /// A completion around a fault; false when there are [`COMPLETIONS_MAX`] already. Call in the order of time.
    pub(crate) fn completion(&mut self, row: &Close) -> Result<bool> {
        if self.completions_written == COMPLETIONS_MAX {
            return Ok(false);
        }
        self.completions_written += 1;
        let out = match &mut self.completions {
            Some(out) => out,
            none => {
                let mut out = csv::Writer::from_writer(create(&self.dir, file::COMPLETIONS)?);
                out.write_record(["at_ns", "response_ns", "member", "op", "outcome"])?;
                none.insert(out)
            }
        };
        // `member` is a place in the manifest's list of members, counted from 1 as `server.1` is.
        let (op, outcome) = (row.op.name(), row.outcome.to_string());
        out.serialize((row.at_ns, row.response_ns, row.member + 1, op, outcome))?;
        Ok(true)
    }

    /// When the watchers of a write heard.
    pub(crate) fn fan_out(&mut self, fan_out: &FanOut) -> Result<()> {
        if self.watches_written == FAN_OUTS_MAX {
            return Ok(());
        }
        self.watches_written += 1;
        let out = match &mut self.watches {
            Some(out) => out,
            none => none.insert(csv::Writer::from_writer(create(&self.dir, file::WATCHES)?)),
        };
        Ok(out.serialize(fan_out)?)
    }

    /// Hands everything to the system. Intervals' rows go before their histograms, which say up to when all is there.
    pub(crate) fn flush(&mut self) -> Result<()> {
        for out in [&mut self.intervals, &mut self.events, &mut self.generator] {
            out.flush()?;
        }
        for out in [&mut self.completions, &mut self.watches].into_iter().flatten() {
            out.flush()?;
        }
        self.servers.out.flush()?;
        self.histograms.flush()
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.servers.begin()?;
        self.flush()
    }
}

fn create(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(name);
    File::create(&path).with_context(|| {
        format!("cannot write {}; free some space or choose another directory", path.display())
    })
}

/// One row of `intervals.csv`. Percentiles are empty where the interval has too few samples for them. Several rows of one interval,
/// phase, operation and outcome add up.
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

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// `servers.csv`: its columns are not known before members have been asked.
struct Servers {
    out: csv::Writer<File>,
    names: Option<Vec<String>>,
    /// Samples before that.
    held: Vec<ServerSample>,
}

impl Servers {
    fn add(&mut self, sample: ServerSample) -> Result<()> {
        let at_ns = sample.at_ns;
        if let Some(names) = &self.names {
            return put_sample(&mut self.out, names, &sample);
        }
        self.held.push(sample);
        match at_ns > self.held[0].at_ns + FIRST_SAMPLES_NS {
            true => self.begin(),
            false => Ok(()),
        }
    }

    /// Decides the columns, if that has not been done.
    fn begin(&mut self) -> Result<()> {
        if self.names.is_some() {
            return Ok(());
        }
        let names: BTreeSet<String> =
            self.held.iter().flat_map(|sample| sample.metrics.keys().cloned()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let columns = SERVER_COLUMNS.into_iter().chain(names.iter().map(String::as_str)).chain([MORE]);
        self.out.write_record(columns)?;
        for sample in std::mem::take(&mut self.held) {
            put_sample(&mut self.out, &names, &sample)?;
        }
        self.names = Some(names);
        Ok(())
    }
}

fn put_sample(out: &mut csv::Writer<File>, names: &[String], sample: &ServerSample) -> Result<()> {
    let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let mut record = vec![
        sample.at_ns.to_string(),
        sample.member.clone(),
        sample.role.clone(),
        text(sample.cpu_ns),
        text(sample.rss_bytes),
    ];
    record
        .extend(names.iter().map(|name| sample.metrics.get(name).map(|v| v.to_string()).unwrap_or_default()));
    // Names are sorted.
    let more = sample.metrics.iter().filter(|(name, _)| names.binary_search(name).is_err());
    let more: Vec<String> = more.map(|(name, value)| format!("{name}={value}")).collect();
    record.push(more.join(" "));
    Ok(out.write_record(record)?)
}
