//! No invented zeros: whatever the table of metrics shows of a standalone server is counted or measured
//! somewhere in the server's sources.

use std::path::{Path, PathBuf};

use zoometry_server::metrics::{Scope, TABLE};
use zoometry_server::stats::{Counter, Measure, Stage};

/// The server's sources but for those that define and show the statistics, and tests.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().expect("a name");
        if path.is_dir() {
            if !matches!(name.as_str(), "metrics" | "stats" | "words" | "http") {
                sources(&path, text);
            }
        } else if name.ends_with(".rs") && !matches!(name.as_str(), "stats.rs" | "tests.rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// In the table for members of an ensemble only.
fn only_in_ensembles(name: &str) -> bool {
    TABLE.iter().any(|metric| metric.name == name && metric.scope == Scope::Ensemble)
}

#[test]
fn every_counter_and_measure_is_fed() {
    let mut text = String::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    assert!(text.contains("Counter::SessionsExpired"), "the sources were read");
    // These are fed where connections and batches are handed over, in stats.rs itself.
    let inside = [
        Counter::ConnectionRequests,
        Counter::ConnectionsDropped,
        Counter::BytesReceived,
        Counter::BytesSent,
    ];
    let counters = Counter::ALL.iter().filter(|counter| !inside.contains(counter));
    let inside = [Measure::ReadLatency, Measure::UpdateLatency];
    let measures = Measure::ALL.iter().filter(|measure| !inside.contains(measure));
    let names = counters.map(|counter| (format!("Counter::{counter:?}"), counter.name()));
    let names = names.chain(measures.map(|measure| (format!("Measure::{measure:?}"), measure.name())));
    let stages = Stage::ALL.iter().filter(|stage| **stage != Stage::Quorum);
    let names = names.chain(stages.map(|stage| (format!("Stage::{stage:?}"), stage.name())));
    let fed = |path: &str| {
        text.match_indices(path).any(|(at, _)| {
            let behind = text[at + path.len()..].chars().next();
            behind.is_none_or(|c| !c.is_alphanumeric())
        })
    };
    let unfed: Vec<_> = names.filter(|(path, name)| !only_in_ensembles(name) && !fed(path)).collect();
    assert!(unfed.is_empty(), "shown, but nobody counts them: {unfed:?}");
}
