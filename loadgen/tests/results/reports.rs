//! Charts and the report: complete, self-contained, and only what the directory says.

use std::fs;
use std::path::Path;

use zoometry::results::{self, RunData};
use zoometry::summary::Summary;
use zoometry::{charts, figures, report};

use crate::synthetic::{Made, Phase};

fn report_of(run: &RunData) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    results::write(dir.path(), run, &Summary::of(run)).unwrap();
    let path = report::write(dir.path()).unwrap();
    let html = fs::read_to_string(path).unwrap();
    (dir, html)
}

fn short() -> Made {
    Made {
        phases: vec![
            Phase::open("slow", 800.0, 2.0),
            Phase { failover_at: Some(1.0), ..Phase::open("fast & <risky>", 2_000.0, 3.0) },
        ],
        ..Made::default()
    }
}

#[test]
fn the_report_needs_no_network_and_escapes_what_others_wrote() {
    let mut run = short().run();
    run.manifest.question = "<script>alert(1)</script>".into();
    let (_dir, html) = report_of(&run);
    assert!(!html.contains("<script>alert"));
    assert!(html.contains("&lt;script&gt;alert(1)"));
    assert!(html.contains("fast &amp; &lt;risky&gt;"));
    for loads in ["src=", "href=\"http://cdn", "@import", "url(", "<link"] {
        assert!(!html.contains(loads), "{loads}");
    }
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(html.matches("<svg").count() >= 5);
    assert!(html.len() < 3 << 20, "{} bytes", html.len());
}

#[test]
fn the_report_has_the_numbers_of_the_summary() {
    let run = short().run();
    let summary = Summary::of(&run);
    let (_dir, html) = report_of(&run);
    for phase in &summary.phases {
        for op in &phase.ops {
            for us in [op.response.p50_us, op.service.p90_us, Some(op.lag.max_us)].into_iter().flatten() {
                let shown = figures::time_us(us).replace(' ', "&nbsp;");
                assert!(html.contains(&shown), "{} {} {shown}", phase.name, op.op);
            }
            assert!(html.contains(&figures::count(op.count)));
        }
    }
    for word in [
        "SUSPECT",
        "too-short",
        "failover.write_gap",
        "FAILED",
        "zoometry run workloads/read-heavy.toml",
        "AMD EPYC",
    ] {
        assert!(html.contains(word), "{word}");
    }
}

#[test]
fn a_percentile_that_counts_failures_says_so() {
    let note = "p99, failures counted as never answered";
    let of = |no_node| {
        let phases = vec![Phase { no_node, ..Phase::open("steady", 2_000.0, 3.0) }];
        report_of(&Made { phases, ..Made::default() }.run()).1
    };
    assert!(of(0.002).contains(note));
    assert!(!of(0.0).contains(note));
}

#[test]
fn titles_of_charts_leave_warm_ups_out() {
    let titles = |warmup| {
        let slow = Phase { warmup, failover_at: Some(1.0), ..Phase::open("slow", 800.0, 2.0) };
        let run = Made { phases: vec![slow, Phase::open("steady", 800.0, 2.0)], ..Made::default() }.run();
        let charts = charts::of_run(&run, &Summary::of(&run), &[]);
        ["latency", "heatmap-writes"].map(|name| {
            charts.iter().find(|chart| chart.name == name).expect("it is drawn").title().to_string()
        })
    };
    let (with, without) = (titles(false), titles(true));
    assert!(with[0] != without[0] && with[1] != without[1], "{with:?} {without:?}");
}

#[test]
fn charts_are_files_of_both_kinds() {
    let run = short().run();
    let (dir, _) = report_of(&run);
    let names = [
        "failover",
        "phases",
        "spectrum",
        "throughput",
        "latency",
        "heatmap-reads",
        "heatmap-writes",
        "servers",
    ];
    for name in names {
        let svg = fs::read_to_string(dir.path().join(format!("charts/{name}.svg"))).unwrap();
        assert!(svg.contains("width=\"960\"") && svg.contains("viewBox=\"0 0 1920 "), "{name}");
        assert!(svg.contains("role=\"img\" aria-label="), "{name}");
        let png = fs::read(dir.path().join(format!("charts/{name}.png"))).unwrap();
        assert_eq!(&png[1..4], b"PNG", "{name}");
    }
    assert_eq!(fs::read_dir(dir.path().join("charts")).unwrap().count(), 2 * names.len());
}

#[test]
fn a_chart_is_left_out_where_there_is_nothing_to_show() {
    let mut run = short().run();
    run.servers.clear();
    run.generator.samples.clear();
    run.recording.totals.retain(|key, _| !key.op.is_write());
    run.recording.intervals.retain(|key, _| !key.op.is_write());
    let charts = charts::of_run(&run, &Summary::of(&run), &[]);
    let names: Vec<&str> = charts.iter().map(|chart| chart.name.as_str()).collect();
    assert_eq!(names, ["failover", "phases", "spectrum", "throughput", "latency", "heatmap-reads"]);
    let nothing = Made { phases: Vec::new(), ..Made::default() }.run();
    assert!(charts::of_run(&nothing, &Summary::of(&nothing), &[]).is_empty());
    let (_dir, html) = report_of(&nothing);
    assert!(html.contains("INVALID"));
}

#[test]
fn odd_runs_can_be_drawn() {
    let odd = [
        vec![Phase::open("one", 3.0, 0.3)],
        vec![Phase { no_node: 1.0, write_share: 0.0, ..Phase::open("only errors", 100.0, 1.0) }],
        (0..30).map(|_| Phase::open("x", 50.0, 0.2)).collect(),
    ];
    for mut phases in odd {
        for (at, phase) in phases.iter_mut().enumerate() {
            phase.name = Box::leak(format!("a phase with a long name {at}").into_boxed_str());
        }
        let run = Made { phases, ..Made::default() }.run();
        let (_dir, html) = report_of(&run);
        assert!(html.contains("</html>"));
    }
}

const TRACES: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
  {"traceId":"0af7","spanId":"01","name":"setData","startTimeUnixNano":"1795355112000000000",
   "endTimeUnixNano":"1795355112007500000","attributes":[
     {"key":"zoometry.op","value":{"stringValue":"set"}},
     {"key":"zoometry.phase","value":{"stringValue":"slow"}}]},
  {"traceId":"0af7","spanId":"02","parentSpanId":"01","name":"fsync","startTimeUnixNano":"1795355112001000000",
   "endTimeUnixNano":"1795355112006000000","attributes":[]}]}]}]}
"#;

fn with_traces(text: &str) -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    let run = short().run();
    results::write(dir.path(), &run, &Summary::of(&run))?;
    fs::write(dir.path().join("traces.json"), text)?;
    read_report(dir.path())
}

fn read_report(dir: &Path) -> anyhow::Result<String> {
    Ok(fs::read_to_string(report::write(dir)?)?)
}

#[test]
fn the_slowest_traces_are_listed() {
    let html = with_traces(TRACES).unwrap();
    for word in ["Slowest traced requests", "7.50&nbsp;ms", "fsync 5.00 ms", "/trace/0af7", "2.000&nbsp;s"] {
        assert!(html.contains(word), "{word}");
    }
    assert!(!with_traces("").unwrap().contains("Slowest traced requests"));
    let error = format!("{:#}", with_traces("{\"resourceSpans\": [").unwrap_err());
    assert!(error.contains("traces.json is damaged"), "{error}");
}

#[test]
fn fan_outs_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let run = short().run();
    results::write(dir.path(), &run, &Summary::of(&run)).unwrap();
    let rows: String = (0..50u64)
        .map(|n| format!("{},{},{},{},{}\n", n * 40_000_000, 500, 400_000 + n, 2_000_000 + n, 9_000_000 + n))
        .collect();
    let path = dir.path().join("watches.csv");
    fs::write(&path, format!("due_ns,watchers,first_ns,median_ns,last_ns\n{rows}")).unwrap();
    let html = read_report(dir.path()).unwrap();
    assert!(html.contains("Up to 500 watchers; the last of them heard after 9.00 ms"));
    assert!(dir.path().join("charts/fan-out.png").exists());
    fs::write(&path, "due_ns,watchers\n1,x\n").unwrap();
    assert!(format!("{:#}", read_report(dir.path()).unwrap_err()).contains("watches.csv is damaged"));
}

#[test]
fn a_fault_has_its_picture_and_its_figures() {
    let run = short().run();
    let summary = Summary::of(&run);
    let failover = summary.failover.clone().expect("the leader was killed");
    let round = &failover.rounds[0];
    assert_eq!(round.new_leader.as_deref(), Some("127.0.0.1:2182"));
    let gap_ns = round.writes.expect("writes").gap.length_ns();
    assert!((150_000_000..260_000_000).contains(&gap_ns), "{gap_ns}");
    let (dir, html) = report_of(&run);
    for told in ["What the faults cost", "chart-failover", "kill the leader", "leads afterwards"] {
        assert!(html.contains(told), "{told}");
    }
    let shown = figures::time_us(gap_ns as f64 / 1e3);
    assert!(html.contains(&shown.replace(' ', "&nbsp;")), "{shown}");
    assert!(dir.path().join("charts/failover.png").exists());
    let text = zoometry::summary::table(&run.manifest, &summary, zoometry::summary::Style::Plain);
    assert!(text.contains(&format!("writes stood still for {shown}")), "{text}");
    // One round needs no chart of rounds, and no fault no picture at all.
    assert!(!html.contains("chart-failover-rounds"));
    let quiet = Made { phases: vec![Phase::open("quiet", 500.0, 2.0)], ..Made::default() }.run();
    assert!(!report_of(&quiet).1.contains("chart-failover"));
}
