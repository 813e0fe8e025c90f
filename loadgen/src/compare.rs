//! Comparing runs: who was faster, by how much, and whether that is more than chance.
//!
//! Reads results directories and nothing else. Fingerprints are compared first; sides that were not asked
//! the same (workload, sessions, durability), or runs that are INVALID, are refused unless forced, and the
//! differences are printed above everything in any case.
//!
//! Statistics (see [`statistics`] for how):
//! - with three or more runs on each side, a figure is measured once per run, and the interval of the ratio
//!   comes from how runs differ: this is the one to trust;
//! - with fewer, the interval comes from how seconds of one run differ, or its rounds of faults (block bootstrap). It says
//!   nothing about how another run would have turned out, and the output says so;
//! - intervals are widened for the number of figures that are compared at once (Bonferroni), and a change is
//!   called one only when it is at least [`EFFECT_MIN`];
//! - where such an interval cannot tell, but every run of one side lies below every run of the other, that is said, with
//!   how often chance alone does it.
//!
//! Every value is computed once, in [`Row`]; table, chart and page show the same.

mod fingerprint;
mod kept;
mod page;
mod rows;
mod sides;
mod statistics;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::charts;
use crate::results;

pub use fingerprint::{Difference, Weight};
pub use kept::{Kept, Tally};
pub use rows::{Against, FAULTS, Figure, Finding, Row, WATCHES};
pub use sides::{Side, named, of_directories};
pub use statistics::{Interval, REPEATS_MIN, RESAMPLES};

use sides::Loaded;

/// A ratio nearer to one than this is no difference worth a word.
pub const EFFECT_MIN: f64 = 0.05;
/// Chance of one false alarm among all figures of a comparison.
pub const FALSE_ALARM: f64 = 0.05;
/// Most sides that charts can tell apart.
pub const SIDES_MAX: usize = 7;

/// How to compare.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Compare even what should not be compared.
    pub force: bool,
    /// Where the comparison's own directory is made, with `compare.html` and its charts; `None`: nothing is written.
    pub out: Option<PathBuf>,
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
    /// What was promised and what became of it, counted.
    pub kept: Vec<Kept>,
    /// For a terminal: 80 columns.
    pub text: String,
    /// `compare.html`, if it was written.
    pub report: Option<PathBuf>,
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
    let loaded = sides::load(sides)?;
    let differences = fingerprint::differences(&loaded);
    refuse(&differences, options)?;
    let mut comparison = Comparison {
        labels: loaded.iter().map(|side| side.label.clone()).collect(),
        repeats: loaded.iter().map(|side| side.runs.len()).collect(),
        differences,
        rows: rows::rows(&loaded),
        kept: kept::kept(&loaded),
        text: String::new(),
        report: None,
    };
    comparison.text = text::render(&comparison);
    if let Some(out) = &options.out {
        comparison.report = Some(write(out, &comparison, &loaded)?);
    }
    Ok(comparison)
}

/// Refuses sides that should not be compared, as far as their runs so far tell: to be asked as soon as every side has
/// one, so that nothing is measured in vain.
///
/// # Errors
/// A directory that cannot be read; what should not be compared, unless forced.
pub fn refuse_early(sides: &[Side], options: &Options) -> Result<()> {
    refuse(&fingerprint::differences(&sides::load(sides)?), options)
}

fn refuse(differences: &[Difference], options: &Options) -> Result<()> {
    if options.force {
        return Ok(());
    }
    let of = |weight: Weight| -> Vec<&Difference> {
        differences.iter().filter(|difference| difference.weight == weight).collect()
    };
    let list = |of: &[&Difference]| -> String {
        of.iter().map(|d| format!("\n  {}: {}", d.what, d.values.join(" | "))).collect()
    };
    let (invalid, asked) = (of(Weight::Invalid), of(Weight::Refuses));
    if !invalid.is_empty() {
        bail!(
            "these runs should not be compared, as not all of them can be believed:{}\nRepeat what is INVALID (its \
             report says why), or compare all the same with --force",
            list(&invalid)
        );
    }
    if !asked.is_empty() {
        bail!(
            "these runs should not be compared, as they were not asked the same:{}\nRepeat one of them with the \
             other's settings, or compare all the same with --force",
            list(&asked)
        );
    }
    Ok(())
}

/// The comparison's own directory, `<time>-compare-<workload>-<first side>` in `out`.
fn write(out: &Path, comparison: &Comparison, sides: &[Loaded]) -> Result<PathBuf> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let workload = format!("compare-{}", sides[0].runs[0].run.manifest.workload);
    let name = results::directory_name(now.as_millis() as u64, &workload, &comparison.labels.join("-vs-"));
    let name: String = name.chars().take(DIRECTORY_NAME_MAX).collect();
    let dir = results::make_directory(out, &name)?;
    let drawn = charts::of_sides(comparison, sides.iter().map(Loaded::for_charts).collect());
    charts::write(&dir, &drawn)?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path)
    };
    put("compare.txt", &comparison.text)?;
    put("compare.html", &page::render(comparison, sides, &drawn)?)
}

/// File systems take names of 255 bytes; labels of seven sides can be longer.
const DIRECTORY_NAME_MAX: usize = 120;
