//! Comparisons: refused when they would mislead, right about ratios, silent about chance.

use std::path::{Path, PathBuf};

use zoometry::compare::{self, Comparison, Figure, Finding, Options, Row, Side};
use zoometry::results::{self, RunData};
use zoometry::summary::Summary;

use crate::synthetic::{Made, Phase};

fn made(cluster: &'static str, seed: u64, read_us: f64) -> RunData {
    Made {
        cluster,
        seed,
        phases: vec![Phase { read_us, ..Phase::open("steady", 2_000.0, 6.0) }],
        ..Made::default()
    }
    .run()
}

fn put(root: &Path, name: &str, run: &RunData) -> PathBuf {
    let dir = root.join(name);
    results::write(&dir, run, &Summary::of(run)).unwrap();
    dir
}

fn row<'a>(comparison: &'a Comparison, op: &str, figure: Figure) -> &'a Row {
    comparison.rows.iter().find(|row| row.op == op && row.figure == figure).unwrap()
}

#[test]
fn two_runs() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("apache:3", 2, 150.0));
    let output = root.path().join("out");
    let options = Options { force: false, output: Some(output.clone()) };
    let comparison = compare::directories(&a, &b, &options).unwrap();
    let against = |op: &str, figure| row(&comparison, op, figure).against[0].clone().unwrap();
    let median = against("get", Figure::P50);
    assert!((1.85..2.1).contains(&median.ratio), "{median:?}");
    assert_eq!(median.finding, Finding::Higher);
    let interval = median.interval.unwrap();
    assert!(interval.low < median.ratio && median.ratio < interval.high);
    assert_eq!(against("get", Figure::Rate).finding, Finding::Same);
    assert_eq!(against("all", Figure::ServerCpu).interval, None, "one run has no spread of that");
    assert!(comparison.text.lines().all(|line| line.chars().count() <= 80), "{}", comparison.text);
    let words = comparison.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("block bootstrap") && words.contains("repeat runs"), "{words}");
    let html = std::fs::read_to_string(output.join("compare.html")).unwrap();
    assert!(html.contains("zoometry-3") && html.contains("apache-3") && html.contains("higher"));
    assert_eq!(html.matches("<svg").count(), 2);
}

#[test]
fn the_same_cluster_twice_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("zoometry:3", 2, 75.0));
    let comparison = compare::directories(&a, &b, &Options::default()).unwrap();
    assert!(comparison.text.contains("zoomet… (a) zoomet… (b)"), "{}", comparison.text);
    assert_eq!(comparison.labels, ["zoometry-3 (a)", "zoometry-3 (b)"]);
    for row in &comparison.rows {
        let finding = row.against[0].as_ref().map(|against| against.finding);
        assert!(!matches!(finding, Some(Finding::Higher | Finding::Lower)), "{row:?}");
    }
}

#[test]
fn repeated_runs() {
    let root = tempfile::tempdir().unwrap();
    let mut directories = Vec::new();
    for repeat in 0..3 {
        // The second cluster's runs are all slower, and not all equally.
        let slower = 150.0 + 4.0 * f64::from(repeat);
        for (cluster, read_us, seed) in [("zoometry:3", 75.0, 1), ("apache:3", slower, 100)] {
            let run = made(cluster, seed + repeat as u64, read_us);
            directories.push(put(root.path(), &format!("{seed}-{repeat}"), &run));
        }
    }
    let comparison = compare::runs(&directories, &Options::default()).unwrap();
    assert_eq!(comparison.repeats, [3, 3]);
    let median = row(&comparison, "get", Figure::P50).against[0].clone().unwrap();
    assert_eq!(median.finding, Finding::Higher, "{median:?}");
    assert!(comparison.text.contains("Welch"));
    assert!(row(&comparison, "all", Figure::ServerCpu).against[0].as_ref().unwrap().interval.is_some());
    // Each change of the manifest must be one that refuses.
    assert!(comparison.differences.iter().all(|difference| difference.what == "seed"));
}

#[test]
fn different_questions_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    type Change = fn(&mut RunData);
    let changes: [(&str, Change); 6] = [
        ("workload", |run| run.manifest.workload_hash = "other".into()),
        ("overrides", |run| run.manifest.overrides.clear()),
        ("sessions per phase", |run| run.manifest.phases[0].sessions = 300),
        ("durability", |run| {
            run.manifest.members[0].settings.insert("forceSync".into(), "no".into());
        }),
        ("tmpfs", |run| run.manifest.environment.data_on_tmpfs = Some(true)),
        ("verdict", |run| run.manifest.verdict.grade = zoometry::verdict::Grade::Invalid),
    ];
    for (at, (what, change)) in changes.into_iter().enumerate() {
        let mut run = made("apache:3", 1, 75.0);
        change(&mut run);
        let b = put(root.path(), &format!("b{at}"), &run);
        let error = format!("{:#}", compare::directories(&a, &b, &Options::default()).unwrap_err());
        assert!(error.contains(what) && error.contains("--force"), "{what}: {error}");
        let forced = compare::directories(&a, &b, &Options { force: true, output: None }).unwrap();
        assert!(forced.text.contains("NOT COMPARABLE"), "{}", forced.text);
    }
}

#[test]
fn too_few_or_too_many_sides() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let side = Side { label: "a".into(), directories: vec![a.clone()] };
    let many = |n: usize| compare::many(&vec![side.clone(); n], &Options::default());
    assert!(format!("{:#}", many(1).unwrap_err()).contains("two sides"));
    assert!(format!("{:#}", many(8).unwrap_err()).contains("limit is 7"));
    assert!(format!("{:#}", many(2).unwrap_err()).contains("is named twice"));
    let error = compare::runs(&[a.clone(), a.clone(), a], &Options::default()).unwrap_err();
    assert!(format!("{error:#}").contains("of one cluster"));
}

#[test]
fn a_run_is_counted_once() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("apache:3", 2, 75.0));
    let again = root.path().join("b/../a");
    let error = compare::runs(&[a, b, again], &Options::default()).unwrap_err().to_string();
    assert!(error.contains("b/../a is named twice"), "{error}");
}
