//! The same workload on several clusters, several times, in turn: what a comparison needs to tell a difference from chance.
//!
//! Runs are interleaved (A B B A A B ...), so that what drifts on the machine meets all sides alike. Every run starts its cluster anew.

use super::{Exit, Failure, Options, Print, run, say};
use crate::cluster::Wanted;
use crate::compare::{self, Comparison, Side};
use std::path::PathBuf;

/// What to run, where, how often.
#[derive(Debug, Clone)]
pub struct Repeats {
    /// As for one run; the cluster is replaced.
    pub options: Options,
    /// At least two.
    pub clusters: Vec<Wanted>,
    /// Runs per cluster, at least one.
    pub repeats: u32,
    /// How to compare.
    pub compare: compare::Options,
}

/// Runs everything and prints the comparison. A run that breaks a promise or cannot be done ends it; an expectation that is not
/// met does not, and an INVALID run is left to the comparison to refuse.
pub fn repeat(repeats: &Repeats) -> Result<Comparison, Failure> {
    let mut sides: Vec<Side> = repeats
        .clusters
        .iter()
        .map(|cluster| Side { label: cluster.label(), directories: Vec::new() })
        .collect();
    let total = repeats.repeats as usize * sides.len();
    let mut done = 0;
    if !repeats.clusters.iter().any(Wanted::is_started_here) {
        super::check_members_are_started(&repeats.options)
            .map_err(|error| Failure { exit: Exit::Usage, error })?;
    }
    for round in 0..repeats.repeats {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            done += 1;
            let cluster = repeats.clusters[at].clone();
            say(&format!("run {done} of {total} on {cluster}: "));
            let mut options = Options { cluster, print: Print::Line, quiet: true, ..repeats.options.clone() };
            if !options.cluster.is_started_here() {
                options.zoo_cfg.clear();
            }
            let finished = run(&options)?;
            if finished.cut_short {
                let error = anyhow::anyhow!(
                    "a signal cut this run short; what was measured is in {}",
                    finished.directory.display()
                );
                return Err(Failure { exit: finished.exit, error });
            }
            if finished.exit == Exit::Cluster {
                let error = anyhow::anyhow!(
                    "this run says why it must not be compared: {}",
                    finished.directory.display()
                );
                return Err(Failure { exit: Exit::Cluster, error });
            }
            sides[at].directories.push(finished.directory);
        }
    }
    compare(&sides, &repeats.compare).map_err(|error| Failure { exit: Exit::Invalid, error })
}

fn compare(sides: &[Side], options: &compare::Options) -> anyhow::Result<Comparison> {
    let comparison = compare::many(sides, options)?;
    say(&format!("\n{}", comparison.text));
    let directories: Vec<&PathBuf> = sides.iter().flat_map(|side| &side.directories).collect();
    say("\nresults\n");
    directories.iter().for_each(|directory| say(&format!("  {}\n", directory.display())));
    if let Some(report) = &comparison.report {
        say(&format!("report   {}\n", report.display()));
    }
    Ok(comparison)
}
