//! Comparisons: refused when they would mislead, right about ratios, silent about chance.

use std::path::{Path, PathBuf};

use zoometry::compare::{self, Comparison, FAULTS, Figure, Finding, Options, Row, Side, WATCHES};
use zoometry::figures;
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

/// Sides of one run each, or by cluster, compared without a page.
fn compared(directories: &[PathBuf]) -> anyhow::Result<Comparison> {
    compare::many(&compare::of_directories(directories)?, &Options::default())
}

#[test]
fn two_runs() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("apache:3", 2, 150.0));
    let options = Options { force: false, out: Some(root.path().join("out")) };
    let comparison = compare::many(&compare::of_directories(&[a, b]).unwrap(), &options).unwrap();
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
    let page = comparison.report.unwrap();
    let directory = page.parent().unwrap();
    let name = directory.file_name().unwrap().to_string_lossy();
    assert!(name.ends_with("-compare-read-heavy-zoometry-3-vs-apache-3"), "{name}");
    assert!(directory.join("charts/compare-phases.png").is_file() && directory.join("compare.txt").is_file());
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("zoometry-3") && html.contains("apache-3") && html.contains("higher"));
    assert_eq!(html.matches("<svg").count(), 2);
}

#[test]
fn the_same_cluster_twice_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("zoometry:3", 2, 75.0));
    let comparison = compared(&[a, b]).unwrap();
    assert!(comparison.text.contains("zoomet… (a)  zoomet… (b)"), "{}", comparison.text);
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
    let comparison = compared(&directories).unwrap();
    assert_eq!(comparison.repeats, [3, 3]);
    let median = row(&comparison, "get", Figure::P50).against[0].clone().unwrap();
    assert_eq!(median.finding, Finding::Higher, "{median:?}");
    assert!(comparison.text.contains("Welch"));
    assert!(row(&comparison, "all", Figure::ServerCpu).against[0].as_ref().unwrap().interval.is_some());
    // Each change of the manifest must be one that refuses.
    assert!(comparison.differences.iter().all(|difference| difference.what == "seed"));
}

/// Three runs of a side, slower by so much each.
fn three(root: &Path, side: &str, read_us: [f64; 3], server_us_per_op: [f64; 3]) -> Side {
    let directories = (0..3).map(|n| {
        let run = Made {
            seed: 1 + n as u64,
            server_us_per_op: server_us_per_op[n],
            phases: vec![Phase { read_us: read_us[n], ..Phase::open("steady", 500.0, 6.0) }],
            ..Made::default()
        };
        put(root, &format!("{side}-{n}"), &run.run())
    });
    Side { label: side.into(), directories: directories.collect() }
}

/// Three runs that scatter, and three others that scatter as much and lie above: no interval tells these apart after all
/// figures are allowed for, but that they do not overlap is known.
#[test]
fn runs_that_do_not_overlap_are_told() {
    let root = tempfile::tempdir().unwrap();
    let before = three(root.path(), "before", [60.0, 75.0, 110.0], [8.0; 3]);
    let after = three(root.path(), "after", [130.0, 180.0, 260.0], [8.0; 3]);
    let comparison = compare::many(&[before, after], &Options::default()).unwrap();
    let median = row(&comparison, "get", Figure::P50).against[0].clone().unwrap();
    assert_eq!(median.finding, Finding::HigherInEachRun, "{median:?}");
    let rate = row(&comparison, "all", Figure::Rate).against[0].clone().unwrap();
    assert!(!rate.finding.is_in_each_run(), "the same seeds came to the same rates: {rate:?}");
    let words = comparison.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("higher*") && words.contains("3 runs against 3, chance alone does that to 10.0 %"),
        "{words}"
    );
}

/// One mean for each side, whoever shows it.
#[test]
fn charts_show_the_table_s_values() {
    let root = tempfile::tempdir().unwrap();
    let before = three(root.path(), "before", [75.0; 3], [4.0, 8.0, 16.0]);
    let after = three(root.path(), "after", [75.0; 3], [8.0; 3]);
    let options = Options { force: false, out: Some(root.path().join("out")) };
    let comparison = compare::many(&[before, after], &options).unwrap();
    let cpu = row(&comparison, "all", Figure::ServerCpu);
    let (mean, runs) = (cpu.values[0].unwrap(), &cpu.runs[0]);
    assert!(mean < runs.iter().sum::<f64>() / 3.0 * 0.9, "the arithmetic mean is another one");
    let charts = comparison.report.unwrap().with_file_name("charts");
    let svg = std::fs::read_to_string(charts.join("compare-phases.svg")).unwrap();
    let shown = |text: &str| svg.split(['<', '>']).any(|part| part.trim() == text);
    assert!(shown(&figures::digits(mean)), "{mean} is not in the chart");
}

#[test]
fn faults_watches_and_promises_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let side = |name: &str, cluster, lost: u64| {
        let phases = vec![Phase { failover_at: Some(2.0), ..Phase::open("failover", 500.0, 6.0) }];
        let mut run = Made { cluster, phases, ..Made::default() }.run();
        run.manifest.checked_writes = Some(results::CheckedWrites { checked: 5_000, lost });
        let dir = put(root.path(), name, &run);
        // Each write's last watcher hears after 3 ms; twice as late on the other side.
        let late = 1 + lost;
        std::fs::write(
            dir.join("watches.csv"),
            format!("due_ns,watchers,first_ns,median_ns,last_ns\n1,9,1000000,2000000,{}\n", 3_000_000 * late),
        )
        .unwrap();
        dir
    };
    let directories = [side("a", "zoometry:3", 0), side("b", "apache:3", 1)];
    let options = Options { force: false, out: Some(root.path().join("out")) };
    let comparison = compare::many(&compare::of_directories(&directories).unwrap(), &options).unwrap();
    let of = |phase: &str, op: &str| {
        comparison.rows.iter().find(|row| row.phase == phase && row.op == op && row.figure == Figure::Longest)
    };
    let gap = of(FAULTS, "write gap").expect("the fault's gap").values[0].unwrap();
    assert!(gap > 100_000.0, "{gap} µs");
    let told = of(WATCHES, "until the last watcher knows").expect("watches").clone();
    assert_eq!((told.values[0], told.against[0].as_ref().unwrap().ratio), (Some(3_000.0), 2.0));
    let lost = comparison.kept.iter().find(|kept| kept.what == "acknowledged writes lost").unwrap();
    assert_eq!(lost.sides.iter().flatten().map(|tally| tally.count).collect::<Vec<_>>(), [0, 1]);
    let words = comparison.text.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["around faults, write gap", "watched writes, until the last", "lost 0 of 5,000 1 of 5,000"] {
        assert!(words.contains(said), "{said} is not in\n{}", comparison.text);
    }
    assert!(comparison.text.lines().all(|line| line.chars().count() <= 80), "{}", comparison.text);
    let html = std::fs::read_to_string(comparison.report.unwrap()).unwrap();
    assert!(
        html.contains("What the faults cost") && html.contains("<td class=failed>1&nbsp;of&nbsp;5,000</td>")
    );
}

#[test]
fn sides_are_named_in_several_ways() {
    let text = |arguments: &[&str]| {
        let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        compare::named(&owned)
    };
    let sides = text(&["old=r/a", "r/b=c", "new=", "r/c", "old=r/d"]).unwrap();
    let side = |label: &str, directories: &[&str]| Side {
        label: label.into(),
        directories: directories.iter().map(PathBuf::from).collect(),
    };
    assert_eq!(sides, [side("old", &["r/a", "r/b=c", "r/d"]), side("new", &["r/c"])]);
    assert!(text(&["r/a"]).unwrap_err().to_string().contains("expected LABEL=DIRECTORY"));
    assert!(text(&["old="]).unwrap_err().to_string().contains("no results directory"));
}

/// Three runs of one cluster are three sides; with two clusters among them they are repeats.
#[test]
fn several_runs_of_one_cluster_are_sides() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, cluster, seed| put(root.path(), name, &made(cluster, seed, 75.0));
    let mut directories: Vec<PathBuf> = (0..3).map(|n| put(&n.to_string(), "zoometry:3", n)).collect();
    let sides = compare::of_directories(&directories).unwrap();
    let labels: Vec<&str> = sides.iter().map(|side| side.label.as_str()).collect();
    assert_eq!(labels, ["zoometry-3 (a)", "zoometry-3 (b)", "zoometry-3 (c)"]);
    assert_eq!(compared(&directories).unwrap().repeats, [1, 1, 1]);
    directories.push(put("3", "apache:3", 4));
    assert_eq!(compared(&directories).unwrap().repeats, [3, 1]);
}

#[test]
fn an_invalid_run_is_refused_as_such() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let mut run = made("apache:3", 1, 75.0);
    run.manifest.verdict.grade = zoometry::verdict::Grade::Invalid;
    let b = put(root.path(), "b", &run);
    let error = format!("{:#}", compared(&[a, b]).unwrap_err());
    assert!(
        error.contains("not all of them can be believed") && error.contains("VALID | INVALID"),
        "{error}"
    );
    assert!(!error.contains("asked the same"), "{error}");
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
        let sides = compare::of_directories(&[a.clone(), b]).unwrap();
        let error = format!("{:#}", compare::many(&sides, &Options::default()).unwrap_err());
        assert!(error.contains(what) && error.contains("--force"), "{what}: {error}");
        let forced = compare::many(&sides, &Options { force: true, out: None }).unwrap();
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
}

#[test]
fn a_run_is_counted_once() {
    let root = tempfile::tempdir().unwrap();
    let a = put(root.path(), "a", &made("zoometry:3", 1, 75.0));
    let b = put(root.path(), "b", &made("apache:3", 2, 75.0));
    let again = root.path().join("b/../a");
    let error = compared(&[a, b, again]).unwrap_err().to_string();
    assert!(error.contains("b/../a is named twice"), "{error}");
}
