//! Comparing runs: who was faster, by how much, and whether that is more than chance.
//!
//! Reads results directories and nothing else. Fingerprints are compared first; sides that were not asked
//! the same (workload, sessions, durability), or runs that are INVALID, are refused unless forced, and the
//! differences are printed above everything in any case.
//!
//! Statistics (see [`statistics`] for how):
//! - with three or more runs on each side, a figure is measured once per run, and the interval of the ratio
//!   comes from how runs differ: this is the one to trust;
//! - with fewer, the interval comes from how seconds of one run differ (block bootstrap). It says nothing
//!   about how another run would have turned out, and the output says so;
//! - intervals are widened for the number of figures that are compared at once (Bonferroni), and a change is
//!   called one only when it is at least [`EFFECT_MIN`].

mod fingerprint;
mod page;
mod statistics;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::charts;
use crate::results::{self, RunData};
use crate::summary::{OpSummary, PhaseSummary, Summary};

pub use fingerprint::{Difference, Weight};
pub use statistics::{Interval, REPEATS_MIN, RESAMPLES};

/// A ratio nearer to one than this is no difference worth a word.
pub const EFFECT_MIN: f64 = 0.05;
/// Chance of one false alarm among all figures of a comparison.
pub const FALSE_ALARM: f64 = 0.05;
/// Most sides that charts can tell apart.
pub const SIDES_MAX: usize = 7;

/// One side of a comparison: repeated runs of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Short name for tables and charts.
    pub label: String,
    /// Its results directories, at least one.
    pub directories: Vec<PathBuf>,
}

/// How to compare.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Compare even what should not be compared.
    pub force: bool,
    /// Where to write `compare.html` and its charts; `None` for text only.
    pub output: Option<PathBuf>,
}

/// What a figure says of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// More than chance, and at least [`EFFECT_MIN`].
    Higher,
    /// More than chance, and at least [`EFFECT_MIN`].
    Lower,
    /// Whatever the difference is, it is less than [`EFFECT_MIN`].
    Same,
    /// The interval is too wide to say.
    Unclear,
}

impl Finding {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Finding::Higher => "higher",
            Finding::Lower => "lower",
            Finding::Same => "same",
            Finding::Unclear => "can't tell",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Successes per second.
    Rate,
    /// Median of response time, microseconds.
    P50,
    /// 99th percentile of response time, microseconds.
    P99,
    /// 99.9th percentile of response time, microseconds.
    P999,
    /// The servers' CPU time per operation, microseconds.
    ServerCpu,
}

impl Figure {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Rate => "per second",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::P999 => "p99.9",
            Figure::ServerCpu => "servers' CPU per op",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self == Figure::Rate
    }

    fn of(self, phase: &PhaseSummary, op: &OpSummary) -> Option<f64> {
        match self {
            Figure::Rate => Some(op.rate),
            Figure::P50 => op.response.p50_us,
            Figure::P99 => op.response.p99_us,
            Figure::P999 => op.response.p999_us,
            Figure::ServerCpu => phase.servers.cpu_us_per_op,
        }
        .filter(|value| *value > 0.0)
    }
}

/// Another side's figure as a multiple of the first side's.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// Its value over the first side's.
    pub ratio: f64,
    /// Where that ratio lies, as far as it can be said.
    pub interval: Option<Interval>,
    /// What that means.
    pub finding: Finding,
}

/// One figure of all sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The phase, by name.
    pub phase: String,
    /// The kind of operation, or `all`.
    pub op: String,
    /// What was measured.
    pub figure: Figure,
    /// Per side; the mean of its runs (geometric). `None`: not measured, or too few samples.
    pub values: Vec<Option<f64>>,
    /// Per side but the first.
    pub against: Vec<Option<Against>>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Names of the sides.
    pub labels: Vec<String>,
    /// Runs per side.
    pub repeats: Vec<usize>,
    /// What the sides differ in, before anything was measured.
    pub differences: Vec<Difference>,
    /// The figures.
    pub rows: Vec<Row>,
    /// For a terminal: 80 columns.
    pub text: String,
    /// `compare.html`, if it was written.
    pub report: Option<PathBuf>,
}

/// One side with its runs read.
struct Loaded {
    label: String,
    runs: Vec<(RunData, Summary)>,
}

/// Compares two results directories.
///
/// # Errors
/// As [`many`].
pub fn directories(a: &Path, b: &Path, options: &Options) -> Result<Comparison> {
    let label = |dir: &Path| -> Result<String> { Ok(results::read_manifest(dir)?.cluster_label) };
    let (mut first, mut second) = (label(a)?, label(b)?);
    if first == second {
        (first, second) = (format!("{first} (a)"), format!("{second} (b)"));
    }
    let side = |label: String, dir: &Path| Side { label, directories: vec![dir.to_path_buf()] };
    many(&[side(first, a), side(second, b)], options)
}

/// Compares results directories: two with each other; of more, those of one cluster are its repeated runs.
///
/// # Errors
/// As [`many`].
pub fn runs(directories: &[PathBuf], options: &Options) -> Result<Comparison> {
    if let [a, b] = directories {
        return self::directories(a, b, options);
    }
    let mut sides: Vec<Side> = Vec::new();
    for dir in directories {
        let label = results::read_manifest(dir)?.cluster_label;
        match sides.iter_mut().find(|side| side.label == label) {
            Some(side) => side.directories.push(dir.clone()),
            None => sides.push(Side { label, directories: vec![dir.clone()] }),
        }
    }
    ensure!(
        sides.len() >= 2,
        "all {} directories are of one cluster; name two to compare two runs",
        directories.len()
    );
    many(&sides, options)
}

/// Compares any number of sides with any number of runs each; ratios are to the first side.
///
/// # Errors
/// A directory that cannot be read, or is named twice; fewer than two sides or more than [`SIDES_MAX`]; sides that
/// should not be compared, unless forced.
pub fn many(sides: &[Side], options: &Options) -> Result<Comparison> {
    ensure!(sides.len() >= 2, "a comparison needs two sides at least, {} given", sides.len());
    ensure!(
        sides.len() <= SIDES_MAX,
        "{} sides are too many to tell apart; the limit is {SIDES_MAX}",
        sides.len()
    );
    refuse_repetition(sides)?;
    let mut loaded = Vec::new();
    for side in sides {
        ensure!(!side.directories.is_empty(), "{} has no results to compare", side.label);
        let runs: Result<Vec<(RunData, Summary)>> = side
            .directories
            .iter()
            .map(|dir| {
                let run = results::read(dir)?;
                let summary = Summary::of(&run);
                Ok((run, summary))
            })
            .collect();
        loaded.push(Loaded { label: side.label.clone(), runs: runs? });
    }
    let differences = fingerprint::differences(&loaded);
    refuse(&differences, options)?;
    let rows = rows(&loaded);
    let mut comparison = Comparison {
        labels: loaded.iter().map(|side| side.label.clone()).collect(),
        repeats: loaded.iter().map(|side| side.runs.len()).collect(),
        differences,
        rows,
        text: String::new(),
        report: None,
    };
    comparison.text = text::render(&comparison);
    if let Some(dir) = &options.output {
        comparison.report = Some(write(dir, &comparison, &loaded)?);
    }
    Ok(comparison)
}

/// A run that is counted twice would look like one that came out the same again.
fn refuse_repetition(sides: &[Side]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for dir in sides.iter().flat_map(|side| &side.directories) {
        // What cannot be found is the reader's to tell.
        let place = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        ensure!(
            seen.insert(place),
            "{} is named twice; a run that is compared with itself says nothing",
            dir.display()
        );
    }
    Ok(())
}

fn refuse(differences: &[Difference], options: &Options) -> Result<()> {
    let grave: Vec<&Difference> = differences.iter().filter(|d| d.weight == Weight::Refuses).collect();
    if grave.is_empty() || options.force {
        return Ok(());
    }
    let list: Vec<String> = grave.iter().map(|d| format!("  {}: {}", d.what, d.values.join(" | "))).collect();
    bail!(
        "these runs should not be compared, as they were not asked the same:\n{}\nRepeat one of them with the \
         other's settings, or compare all the same with --force",
        list.join("\n")
    )
}

fn write(dir: &Path, comparison: &Comparison, sides: &[Loaded]) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let drawn = charts::of_sides(
        &sides
            .iter()
            .map(|side| charts::SideRuns {
                label: side.label.clone(),
                runs: side.runs.iter().map(|(run, summary)| (run, summary)).collect(),
            })
            .collect::<Vec<_>>(),
    );
    charts::write(dir, &drawn)?;
    let path = dir.join("compare.html");
    let html = page::render(comparison, sides, &drawn)?;
    std::fs::write(&path, html).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Phases that every run of every side measured, in the first run's order.
fn common_phases(sides: &[Loaded]) -> Vec<String> {
    let runs: Vec<&Summary> = sides.iter().flat_map(|side| &side.runs).map(|(_, summary)| summary).collect();
    let Some(first) = runs.first() else { return Vec::new() };
    first
        .measured()
        .map(|phase| phase.name.clone())
        .filter(|name| runs.iter().all(|summary| summary.measured().any(|phase| phase.name == *name)))
        .collect()
}

fn rows(sides: &[Loaded]) -> Vec<Row> {
    let mut wanted: Vec<(String, String, Figure)> = Vec::new();
    for phase in common_phases(sides) {
        let Some(summary) = sides[0].runs[0].1.phase(&phase) else { continue };
        for op in &summary.ops {
            for figure in [Figure::Rate, Figure::P50, Figure::P99, Figure::P999] {
                wanted.push((phase.clone(), op.op.clone(), figure));
            }
        }
        wanted.push((phase.clone(), "all".to_string(), Figure::ServerCpu));
    }
    let per_side: Vec<Vec<Vec<Option<f64>>>> = wanted
        .iter()
        .map(|(phase, op, figure)| sides.iter().map(|side| side.figures(phase, op, *figure)).collect())
        .collect();
    let compared = per_side.iter().filter(|sides| sides.iter().all(|runs| runs.iter().any(Option::is_some)));
    let level = FALSE_ALARM / (compared.count() * (sides.len() - 1)).max(1) as f64;
    wanted
        .into_iter()
        .zip(per_side)
        .map(|((phase, op, figure), values)| row(sides, phase, op, figure, &values, level))
        .filter(|row| row.values.iter().any(Option::is_some))
        .collect()
}

fn row(
    sides: &[Loaded],
    phase: String,
    op: String,
    figure: Figure,
    values: &[Vec<Option<f64>>],
    level: f64,
) -> Row {
    // A side has a value only when all of its runs do: a percentile that only some have would be a selection.
    let whole: Vec<Option<Vec<f64>>> = values.iter().map(|runs| runs.iter().copied().collect()).collect();
    let means: Vec<Option<f64>> =
        whole.iter().map(|runs| runs.as_ref().map(|runs| statistics::geometric_mean(runs))).collect();
    let against = (1..sides.len())
        .map(|other| {
            let (a, b) = (whole[0].as_ref()?, whole[other].as_ref()?);
            let ratio = means[other]? / means[0]?;
            let interval = if a.len() >= REPEATS_MIN && b.len() >= REPEATS_MIN {
                statistics::between_runs(a, b, level)
            } else {
                let one = |side: &Loaded| statistics::within_run(&side.runs[0].0, &phase, &op, figure);
                statistics::of_errors(ratio, one(&sides[0])?, one(&sides[other])?, level)
            };
            Some(Against { ratio, interval, finding: finding(ratio, interval) })
        })
        .collect::<Vec<Option<Against>>>();
    // Without an interval the ratio alone is still worth a line.
    let against = against
        .into_iter()
        .zip(1..)
        .map(|(known, other): (Option<Against>, usize)| {
            known.or_else(|| {
                let ratio = means[other]? / means[0]?;
                Some(Against { ratio, interval: None, finding: Finding::Unclear })
            })
        })
        .collect();
    Row { phase, op, figure, values: means, against }
}

/// What a ratio and its interval say.
fn finding(ratio: f64, interval: Option<Interval>) -> Finding {
    let Some(Interval { low, high }) = interval else { return Finding::Unclear };
    let same = 1.0 / (1.0 + EFFECT_MIN)..=1.0 + EFFECT_MIN;
    match () {
        () if same.contains(&low) && same.contains(&high) => Finding::Same,
        () if low > 1.0 && !same.contains(&ratio) => Finding::Higher,
        () if high < 1.0 && !same.contains(&ratio) => Finding::Lower,
        () => Finding::Unclear,
    }
}

impl Loaded {
    fn figures(&self, phase: &str, op: &str, figure: Figure) -> Vec<Option<f64>> {
        self.runs
            .iter()
            .map(|(_, summary)| {
                let phase = summary.phase(phase)?;
                figure.of(phase, phase.op(op)?)
            })
            .collect()
    }
}
