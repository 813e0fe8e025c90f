//! The results directory: what is written is read back, and a damaged one is named.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use zoometry::results::{self, RunData};
use zoometry::summary::Summary;
use zoometry::verdict::{Grade, Verdict};

use crate::synthetic::{Made, Phase};

fn small() -> Made {
    Made {
        phases: vec![
            Phase { warmup: true, ..Phase::open("warm-up", 500.0, 1.0) },
            Phase { failover_at: Some(1.0), no_node: 0.01, ..Phase::open("steady: 1, quick", 2_000.0, 3.0) },
        ],
        ..Made::default()
    }
}

fn written() -> (tempfile::TempDir, RunData) {
    let dir = tempfile::tempdir().unwrap();
    let run = small().run();
    results::write(dir.path(), &run, &Summary::of(&run)).unwrap();
    (dir, run)
}

#[test]
fn what_is_written_is_read_back() {
    let (dir, run) = written();
    let back = results::read(dir.path()).unwrap();
    assert_eq!(back.manifest, run.manifest);
    assert_eq!(back.events, run.events);
    assert_eq!(back.servers, run.servers);
    assert_eq!(back.generator, run.generator);
    assert!(back.recording == run.recording, "histograms, intervals or arrivals differ");
}

#[test]
fn summary_and_verdict_can_be_computed_again() {
    let (dir, run) = written();
    let back = results::read(dir.path()).unwrap();
    let summary: Summary =
        serde_json::from_slice(&fs::read(dir.path().join("summary.json")).unwrap()).unwrap();
    assert!(Summary::of(&back) == summary, "differs from {}", dir.path().join("summary.json").display());
    assert_eq!(Verdict::judge(&back, &summary), run.manifest.verdict);
}

#[test]
fn an_empty_run_is_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let run = Made { phases: Vec::new(), ..Made::default() }.run();
    results::write(dir.path(), &run, &Summary::of(&run)).unwrap();
    assert!(results::read(dir.path()).unwrap() == run);
}

#[test]
fn the_log_is_an_interval_log() {
    let (dir, run) = written();
    let log = fs::read(dir.path().join("histograms.hlog")).unwrap();
    let text = String::from_utf8(log.clone()).unwrap();
    assert!(text.contains("[Histogram log format version 1.3]"), "{}", &text[..300]);
    let (mut tagged, mut starts) = (0, Vec::new());
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            match interval.tag() {
                Some(_) => tagged += 1,
                None => starts.push(interval.start_timestamp()),
            }
        }
    }
    let wholes = 3 * run.recording.totals.len();
    let intervals: usize = run.recording.intervals.values().map(Vec::len).sum();
    assert_eq!(tagged, wholes + intervals);
    // Without tags there is a line for every interval, one behind the other.
    let step = Duration::from_nanos(run.recording.interval_ns);
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == step), "{starts:?}");
    assert!(starts.len() >= 40, "{}", starts.len());
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let files = ["intervals.csv", "histograms.hlog", "events.csv", "servers.csv", "generator.csv"];
    for name in files {
        for damage in [cut as fn(&Path), remove] {
            let (dir, _) = written();
            damage(&dir.path().join(name));
            let error = format!("{:#}", results::read(dir.path()).unwrap_err());
            assert!(error.contains(name), "{error}");
            assert!(error.contains("copy the directory again"), "{error}");
        }
    }
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let last_row = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap();
    fs::write(path, &bytes[..=last_row]).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[test]
fn damage_that_keeps_the_length_is_found_where_it_changes_a_count() {
    let (dir, _) = written();
    let path = dir.path().join("intervals.csv");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replacen(",get,ok,", ",set,ok,", 1);
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    let error = format!("{:#}", results::read(dir.path()).unwrap_err());
    assert!(error.contains("intervals.csv") && error.contains("row "), "{error}");
}

#[test]
fn not_a_results_directory() {
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", results::read(dir.path()).unwrap_err());
    assert!(error.contains("is not a results directory"), "{error}");
    fs::write(dir.path().join("manifest.json"), "{").unwrap();
    let error = format!("{:#}", results::read(dir.path()).unwrap_err());
    assert!(error.contains("manifest.json is damaged"), "{error}");
}

#[test]
fn another_layout_is_refused() {
    let (dir, _) = written();
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap().replacen("\"format\": 2", "\"format\": 3", 1);
    // What else a newer manifest has is nobody's business.
    fs::write(&path, text.replacen("\"verdict\"", "\"judgement\"", 1)).unwrap();
    let error = format!("{:#}", results::read(dir.path()).unwrap_err());
    let told = "this directory has format 3; this zoometry reads 1 and 2: use a newer zoometry";
    assert!(error.contains(told), "{error}");
}

/// A directory that a version wrote which did not stream yet.
#[test]
fn a_directory_of_the_first_layout_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format-1");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let run = results::read(dir.path()).unwrap();
    let mut written: Summary =
        serde_json::from_slice(&fs::read(dir.path().join("summary.json")).unwrap()).unwrap();
    let read = Summary::of(&run);
    // A fault's end was that of the heal's row. It is that of the fault's own row now, which has another reading of the clock.
    let healed = |summary: &Summary| summary.failover.as_ref().unwrap().rounds[0].healed_ns.unwrap();
    assert!(healed(&written).abs_diff(healed(&read)) < 1_000_000, "{} {}", healed(&written), healed(&read));
    written.failover.as_mut().unwrap().rounds[0].healed_ns = Some(healed(&read));
    assert!(read == written, "other figures than the version that wrote it had");
    assert_eq!(run.events.len(), 6);
    zoometry::report::write(dir.path()).unwrap();
    // Nor was the key always there.
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap().replacen("\"format\": 1,", "", 1);
    fs::write(&path, text).unwrap();
    assert_eq!(results::read(dir.path()).unwrap().recording, run.recording);
}

#[test]
fn a_run_that_has_written_nothing_yet_is_read() {
    let (dir, _) = written();
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap().replacen("\"complete\"", "\"running\"", 1);
    fs::write(&path, text).unwrap();
    for name in ["histograms.hlog", "intervals.csv", "events.csv", "servers.csv", "generator.csv"] {
        fs::write(dir.path().join(name), "a torn line").unwrap();
    }
    let run = results::read(dir.path()).unwrap();
    assert_eq!((run.manifest.phases.len(), run.manifest.verdict.grade), (1, Grade::Invalid));
    assert!(run.manifest.cut_short && run.recording.totals.is_empty());
}

#[test]
fn two_phases_of_one_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let phases = vec![Phase::open("a", 100.0, 0.5), Phase::open("a", 100.0, 0.5)];
    let run = Made { phases, ..Made::default() }.run();
    let error = format!("{:#}", results::write(dir.path(), &run, &Summary::of(&run)).unwrap_err());
    assert!(error.contains("same name"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    fs::write(&file, "").unwrap();
    let run = small().run();
    let error = format!("{:#}", results::write(&file, &run, &Summary::of(&run)).unwrap_err());
    assert!(error.contains("taken"), "{error}");
}

#[test]
fn names_of_directories() {
    let name = results::directory_name(1_795_355_110_000, "read heavy/2", "zk1:2181,zk2:2181");
    assert_eq!(name, "20261122T134510Z-read-heavy-2-zk1-2181-zk2-2181");
}

#[test]
fn runs_that_begin_in_the_same_second_have_directories_of_their_own() {
    let out = tempfile::tempdir().unwrap();
    let made = [(); 3].map(|()| results::make_directory(&out.path().join("results"), "same").unwrap());
    let names = made.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    assert_eq!(names, ["same", "same-2", "same-3"]);
    fs::write(out.path().join("file"), "").unwrap();
    let error = format!("{:#}", results::make_directory(&out.path().join("file"), "same").unwrap_err());
    assert!(error.contains("cannot create"), "{error}");
}
