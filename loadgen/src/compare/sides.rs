//! Who is compared with whom: results directories, put together to sides and named.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::charts;
use crate::driver::FanOut;
use crate::results::{self, RunData};
use crate::summary::Summary;

/// One side of a comparison: repeated runs of the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Short name for tables and charts.
    pub label: String,
    /// Its results directories, at least one.
    pub directories: Vec<PathBuf>,
}

/// One run, read.
pub(super) struct LoadedRun {
    pub(super) directory: PathBuf,
    pub(super) run: RunData,
    pub(super) summary: Summary,
    pub(super) fan_outs: Vec<FanOut>,
}

/// One side with its runs read.
pub(super) struct Loaded {
    pub(super) label: String,
    pub(super) runs: Vec<LoadedRun>,
}

impl Loaded {
    pub(super) fn for_charts(&self) -> charts::SideRuns<'_> {
        let runs = self.runs.iter().map(|one| &one.run).collect();
        charts::SideRuns { label: self.label.clone(), runs }
    }
}

/// Sides of results directories without names: two are a side each, and so are several of one cluster; of
/// more, those of one cluster are its repeated runs.
///
/// # Errors
/// A directory that is none.
pub fn of_directories(directories: &[PathBuf]) -> Result<Vec<Side>> {
    let labels: Result<Vec<String>> =
        directories.iter().map(|dir| Ok(results::read_manifest(dir)?.cluster_label)).collect();
    let labels = labels?;
    let several = labels.iter().any(|label| *label != labels[0]);
    let mut sides: Vec<Side> = Vec::new();
    for (label, dir) in labels.into_iter().zip(directories) {
        match sides.iter_mut().find(|side| side.label == label && several && directories.len() > 2) {
            Some(side) => side.directories.push(dir.clone()),
            None => sides.push(Side { label, directories: vec![dir.clone()] }),
        }
    }
    tell_apart(&mut sides);
    Ok(sides)
}

/// Labels that several sides have get a letter behind them.
pub(crate) fn tell_apart(sides: &mut [Side]) {
    let labels: Vec<String> = sides.iter().map(|side| side.label.clone()).collect();
    for (at, side) in sides.iter_mut().enumerate() {
        if labels.iter().filter(|label| **label == side.label).count() > 1 {
            let before = labels[..at].iter().filter(|label| **label == side.label).count();
            side.label = format!("{} ({})", side.label, char::from(b'a' + (before % 26) as u8));
        }
    }
}

/// Sides as a command line names them: `LABEL=DIRECTORY`, and directories without a label behind it, which are of the same side.
///
/// # Errors
/// A directory before the first label; a label without directories.
pub fn named(arguments: &[String]) -> Result<Vec<Side>> {
    let mut sides: Vec<Side> = Vec::new();
    let mut at = None;
    for argument in arguments {
        let directory = match argument.split_once('=') {
            // A directory whose name has an equals sign in it is named by its path.
            Some((label, directory)) if !label.is_empty() && !label.contains('/') => {
                at = Some(sides.iter().position(|side| side.label == label).unwrap_or(sides.len()));
                if at == Some(sides.len()) {
                    sides.push(Side { label: label.to_owned(), directories: Vec::new() });
                }
                directory
            }
            _ => argument,
        };
        let Some(side) = at.and_then(|at| sides.get_mut(at)) else {
            bail!("--side {argument}: expected LABEL=DIRECTORY, for example --side before=results/A")
        };
        if !directory.is_empty() {
            side.directories.push(PathBuf::from(directory));
        }
    }
    for side in &sides {
        ensure!(!side.directories.is_empty(), "--side {}=: no results directory is named", side.label);
    }
    Ok(sides)
}

/// Reads every run of every side.
pub(super) fn load(sides: &[Side]) -> Result<Vec<Loaded>> {
    refuse_repetition(sides)?;
    let one = |dir: &PathBuf| -> Result<LoadedRun> {
        let run = results::read(dir)?;
        let summary = Summary::of(&run);
        Ok(LoadedRun { directory: dir.clone(), run, summary, fan_outs: results::fan_outs(dir)? })
    };
    let side = |side: &Side| -> Result<Loaded> {
        ensure!(!side.directories.is_empty(), "{} has no results to compare", side.label);
        let runs: Result<Vec<LoadedRun>> = side.directories.iter().map(one).collect();
        Ok(Loaded { label: side.label.clone(), runs: runs.with_context(|| format!("side {}", side.label))? })
    };
    sides.iter().map(side).collect()
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

/// A directory's name, for tables.
pub(super) fn short(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}
