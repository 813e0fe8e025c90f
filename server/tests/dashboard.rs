//! `dashboards/zoometry-server.json` against the table of metrics and the rules of Grafana's grid, and the
//! files beside it against each other. Grafana itself is not run here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use zoometry_server::metrics::{Kind, TABLE};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&file("zoometry-server.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// Every series name that a scrape can hold: summaries and histograms have more than their own.
fn series_names() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["up".to_string()]);
    for metric in TABLE {
        let suffixes: &[&str] = match metric.kind {
            Kind::Gauge | Kind::Counter => &[""],
            Kind::Basic | Kind::Advanced => &["", "_sum", "_count"],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        names.extend(suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name)));
    }
    names
}

/// The series that a PromQL expression names: words that are no function, no label and no keyword.
fn series_in(expression: &str) -> BTreeSet<String> {
    const KEYWORDS: [&str; 10] =
        ["sum", "min", "max", "avg", "count", "and", "or", "unless", "offset", "bool"];
    const LABEL_LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut names = BTreeSet::new();
    let chars: Vec<char> = expression.chars().collect();
    let mut at = 0;
    let skip_past = |from: usize, end: char| {
        chars[from..].iter().position(|c| *c == end).map_or(chars.len(), |length| from + length + 1)
    };
    while at < chars.len() {
        match chars[at] {
            '{' => at = skip_past(at, '}'),
            '[' => at = skip_past(at, ']'),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let start = at;
                while at < chars.len()
                    && (chars[at].is_ascii_alphanumeric() || matches!(chars[at], '_' | ':'))
                {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let next = chars[at..].iter().find(|c| !c.is_whitespace());
                if LABEL_LISTS.contains(&word.as_str()) {
                    at = skip_past(at, ')');
                } else if next != Some(&'(') && !KEYWORDS.contains(&word.as_str()) {
                    names.insert(word);
                }
            }
            c if c.is_ascii_digit() => {
                while at < chars.len() && (chars[at].is_ascii_alphanumeric() || chars[at] == '.') {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    names
}

#[test]
fn series_are_found_in_expressions() {
    let names = |expression| series_in(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(names("sum(rate(a_total{job=~\"$job\"}[$__rate_interval]))"), ["a_total"]);
    assert_eq!(names("a{x=\"1\"} / on (job) group_left (b) c"), ["a", "c"]);
    assert_eq!(names("histogram_quantile(0.99, sum by (le, op) (rate(h_bucket[5m])))"), ["h_bucket"]);
    assert_eq!(names("1e3 * a and b offset 5m"), ["a", "b"]);
}

#[test]
fn every_series_is_in_the_table() {
    let dashboard = dashboard();
    let known = series_names();
    let mut used = BTreeSet::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let found = series_in(text(target, "expr"));
            assert!(!found.is_empty(), "{target}");
            used.extend(found);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = text(variable, "definition");
            let arguments = query.strip_prefix("label_values(").expect("label_values");
            used.extend(series_in(arguments.split(['{', ',']).next().expect("a series")));
        }
    }
    assert!(used.len() > 30, "the expressions are read: {used:?}");
    let strangers: Vec<_> = used.difference(&known).collect();
    assert!(strangers.is_empty(), "no such metric: {strangers:?}");
}

#[test]
fn panels_are_whole() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["schemaVersion"], &dashboard["id"]), (&Value::from(39), &Value::Null));
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(number(panel, "id")), "id {} stands twice", panel["id"]);
        let title = text(panel, "title");
        if panel["type"] == "row" {
            continue;
        }
        assert!(["timeseries", "stat", "heatmap"].contains(&text(panel, "type")), "{title}");
        assert!(text(panel, "description").ends_with('.'), "{title}: a description of whole sentences");
        assert_ne!(text(&panel["fieldConfig"]["defaults"], "unit"), "", "{title}");
        let targets = panel["targets"].as_array().expect("targets");
        let references: BTreeSet<_> = targets.iter().map(|target| text(target, "refId")).collect();
        assert_eq!(references.len(), targets.len(), "{title}: references stand once");
        for source in targets.iter().chain([panel]) {
            assert_eq!(text(&source["datasource"], "uid"), "${datasource}", "{title}");
        }
        for target in targets {
            let expression = text(target, "expr");
            assert!(expression.contains("job=~\"$job\",instance=~\"$instance\""), "{title}: {expression}");
            assert!(
                !expression.contains("rate(") || expression.contains("[$__rate_interval]"),
                "{expression}"
            );
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let grid = &panel["gridPos"];
        let (x, y, w, h) = (number(grid, "x"), number(grid, "y"), number(grid, "w"), number(grid, "h"));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{}", text(panel, "title"));
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another panel at {cell:?}", text(panel, "title"));
        }
    }
    // No hole either: every line that is used is used to its end.
    let lines: BTreeSet<u64> = taken.iter().map(|(_, y)| *y).collect();
    assert_eq!(taken.len() as u64, lines.len() as u64 * COLUMNS);
    assert_eq!(lines.last().map(|last| last + 1), Some(lines.len() as u64));
}

/// What one file mounts or names, the other has.
#[test]
fn the_files_fit_together() {
    let compose = file("compose.yaml");
    for name in ["prometheus.yml", "zoometry-server.json"] {
        assert!(compose.contains(&format!("./{name}:")), "{name} is mounted");
        file(name);
    }
    assert!(compose.contains("./provisioning:/etc/grafana/provisioning:ro"));
    let provider = file("provisioning/dashboards/zoometry.yaml");
    assert!(provider.contains("path: /var/lib/grafana/dashboards"));
    assert!(compose.contains(":/var/lib/grafana/dashboards/zoometry-server.json:ro"));
    let sources = file("provisioning/datasources/datasources.yaml");
    let dashboard = dashboard();
    let chosen = text(&dashboard["templating"]["list"][0]["current"], "value");
    assert!(sources.contains(&format!("uid: {chosen}\n")), "the default data source is provisioned");
    for (service, port) in [("prometheus", 9090), ("jaeger", 16686)] {
        assert!(sources.contains(&format!("url: http://{service}:{port}\n")), "{service}");
        assert!(compose.contains(&format!("\n  {service}:\n")), "{service}");
    }
}
