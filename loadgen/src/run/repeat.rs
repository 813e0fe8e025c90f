//! The same workload on several clusters, several times, in turn: what a comparison needs to tell a difference from chance.
//!
//! Runs are interleaved (A B B A A B ...), so that what drifts on the machine meets all sides alike. Every run starts its cluster anew.
//! What would be refused at the end is refused as soon as it is known: an INVALID run after that run, and sides that were
//! not asked the same when each has its first run.

use super::{Exit, Failure, Finished, Options, Print, run, say};
use crate::cluster::Wanted;
use crate::compare::{self, Comparison, Side};
use std::path::PathBuf;

/// What to run, where, how often.
#[derive(Debug, Clone)]
pub struct Repeats {
    /// As for one run; cluster and zoo.cfg are replaced.
    pub options: Options,
    /// At least two.
    pub sides: Vec<Setup>,
    /// Runs per side, at least one.
    pub repeats: u32,
    /// How to compare.
    pub compare: compare::Options,
}

/// What is run for one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Its name in the comparison.
    pub label: String,
    /// Its cluster.
    pub cluster: Wanted,
    /// Lines for the zoo.cfg of its members.
    pub zoo_cfg: Vec<(String, String)>,
}

/// Sides as a command line names them. `clusters`: `CLUSTER`, or `LABEL=CLUSTER`; `zoo_cfg`: `KEY=VALUE` for every side whose members
/// are started for the run, or `LABEL:KEY=VALUE` for one side, by its label or as its cluster was given.
///
/// # Errors
/// What is no cluster or no line; a label that several sides have; a line for a side that is not there, or whose members are not started.
pub fn setups(clusters: &[String], zoo_cfg: &[String]) -> Result<Vec<Setup>, String> {
    let mut sides = Vec::new();
    for given in clusters {
        let (label, cluster) = match given.split_once('=') {
            Some((label, cluster)) if !label.is_empty() => (Some(label), cluster),
            _ => (None, given.as_str()),
        };
        let cluster: Wanted = cluster.parse()?;
        let label = label.map_or_else(|| cluster.label(), str::to_owned);
        sides.push(Setup { label, cluster, zoo_cfg: Vec::new() });
    }
    for (at, side) in sides.iter().enumerate() {
        if sides[..at].iter().any(|other| other.label == side.label) {
            return Err(format!(
                "two sides are called {0}: give them names, --cluster before={1} --cluster after={1}",
                side.label, side.cluster
            ));
        }
    }
    for line in zoo_cfg {
        let expected = || format!("--zoo-cfg {line}: expected KEY=VALUE, or LABEL:KEY=VALUE for one side");
        let (key, value) = line.split_once('=').ok_or_else(expected)?;
        let (label, key) = key.rsplit_once(':').map_or((None, key), |(label, key)| (Some(label), key));
        if key.trim().is_empty() {
            return Err(expected());
        }
        let names = |side: &&mut Setup| match label {
            None => side.cluster.is_started_here(),
            Some(label) => side.label == label || side.cluster.to_string() == label,
        };
        let labels: Vec<String> = sides.iter().map(|side| side.label.clone()).collect();
        let meant: Vec<&mut Setup> = sides.iter_mut().filter(names).collect();
        if meant.is_empty() {
            return Err(match label {
                Some(label) => {
                    format!("--zoo-cfg {line}: no side is called {label}; there are {}", labels.join(", "))
                }
                None => format!("--zoo-cfg {line}: no side's members are started for the run"),
            });
        }
        for side in meant {
            if !side.cluster.is_started_here() {
                return Err(format!(
                    "--zoo-cfg {line}: {} has its own configuration; change it there, and leave the option out",
                    side.cluster
                ));
            }
            side.zoo_cfg.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Ok(sides)
}

/// Runs everything and prints the comparison. A run that breaks a promise or cannot be done ends it, and so does one that is INVALID
/// unless the comparison is forced; an expectation that is not met does not.
pub fn repeat(repeats: &Repeats) -> Result<Comparison, Failure> {
    let mut sides: Vec<Side> = repeats
        .sides
        .iter()
        .map(|setup| Side { label: setup.label.clone(), directories: Vec::new() })
        .collect();
    let total = repeats.repeats as usize * sides.len();
    let mut done = 0;
    let of = |setup: &Setup| Options {
        cluster: setup.cluster.clone(),
        zoo_cfg: setup.zoo_cfg.clone(),
        print: Print::Line,
        quiet: true,
        ..repeats.options.clone()
    };
    for setup in &repeats.sides {
        let spec = super::spec(&of(setup)).map_err(|error| Failure { exit: Exit::Usage, error })?;
        if *setup == repeats.sides[0] {
            super::warn_of_expectations(&spec);
        }
    }
    for round in 0..repeats.repeats {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            done += 1;
            let setup = &repeats.sides[at];
            say(&format!("run {done} of {total}, {}: ", setup.label));
            let finished = run(&of(setup))?;
            may_be_compared(&finished, &setup.label, repeats.compare.force)?;
            sides[at].directories.push(finished.directory);
        }
        if round == 0 {
            compare::refuse_early(&sides, &repeats.compare)
                .map_err(|error| Failure { exit: Exit::Usage, error })?;
        }
    }
    compare(&sides, &repeats.compare).map_err(|error| Failure { exit: Exit::Invalid, error })
}

fn may_be_compared(finished: &Finished, label: &str, force: bool) -> Result<(), Failure> {
    let directory = finished.directory.display();
    if finished.cut_short {
        let error = anyhow::anyhow!("a signal cut this run short; what was measured is in {directory}");
        return Err(Failure { exit: finished.exit, error });
    }
    let error = match finished.exit {
        Exit::Cluster => anyhow::anyhow!("this run says why it must not be compared: {directory}"),
        Exit::Invalid if !force => anyhow::anyhow!(
            "this run of {label} is INVALID, so its figures do not describe {label}, and there is nothing to compare: \
             {directory} says why. Change what it names (often the rate) for all sides, or go on all the same with \
             --force"
        ),
        _ => return Ok(()),
    };
    Err(Failure { exit: finished.exit, error })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn setups(clusters: &[&str], zoo_cfg: &[&str]) -> Result<Vec<Setup>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        super::setups(&owned(clusters), &owned(zoo_cfg))
    }

    #[test]
    fn sides_have_names_and_lines_of_their_own() {
        let sides = setups(
            &["before=zoometry:3", "after=zoometry:3", "apache:3", "zk1:2181"],
            &["tickTime=500", "after:snapCount=7", "apache:3:initLimit=4", "server.9=h:1:2"],
        )
        .unwrap();
        let lines = |at: usize| -> Vec<String> {
            sides[at].zoo_cfg.iter().map(|(key, value)| format!("{key}={value}")).collect()
        };
        assert_eq!(
            (sides[0].label.as_str(), lines(0)),
            ("before", vec!["tickTime=500".into(), "server.9=h:1:2".into()])
        );
        assert_eq!(lines(1), ["tickTime=500", "snapCount=7", "server.9=h:1:2"]);
        assert_eq!((sides[2].label.as_str(), lines(2)[1].as_str()), ("apache-3", "initLimit=4"));
        assert_eq!(lines(3), [""; 0], "what is not started here has its own");
    }

    #[test]
    fn what_names_no_side_is_refused() {
        for (clusters, zoo_cfg, complaint) in [
            (&["zoometry:3", "zoometry:3"][..], &[][..], "two sides are called zoometry-3"),
            (&["a=zoometry:1", "a=apache:1"], &[], "two sides are called a"),
            (&["zoometry:3", "nonsense"], &[], "'nonsense' has no port"),
            (&["zoometry:3", "apache:3"], &["b:x=1"], "no side is called b; there are zoometry-3, apache-3"),
            (&["zoometry:3", "apache:3"], &["tickTime"], "expected KEY=VALUE"),
            (&["zoometry:3", "apache:3"], &["zoometry-3:=1"], "expected KEY=VALUE"),
            (&["zoometry:3", "zk1:2181"], &["zk1:2181:x=1"], "has its own configuration"),
            (&["zk1:2181", "zk2:2181"], &["x=1"], "no side's members are started"),
        ] {
            let error = setups(clusters, zoo_cfg).unwrap_err();
            assert!(error.contains(complaint), "{clusters:?} {zoo_cfg:?}: {error}");
        }
    }
}
