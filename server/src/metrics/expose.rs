//! The table's readers: Prometheus text (format 0.0.4), and `mntr`.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use zoometry_wire::OpCode;

use super::table::{Kind, Metric, Scope, Source, TABLE, Unit};
use crate::http::{self, Answer};
use crate::stats::{Collected, Distribution, ServerStats, Stage};
use crate::view::{Facts, Inspect};
use crate::words;

/// Upper bounds of the histograms' buckets, with their text in seconds.
const BUCKETS: &[(u64, &str)] = &[
    (5_000, "0.000005"),
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
];

/// Percentiles of a summary. Apache's provider has the median in BASIC ones.
const BASIC_QUANTILES: &[(f64, &str)] = &[(0.5, "0.5")];
/// Apache's three, and two more that dashboards ask for.
const ADVANCED_QUANTILES: &[(f64, &str)] =
    &[(0.5, "0.5"), (0.9, "0.9"), (0.95, "0.95"), (0.99, "0.99"), (0.999, "0.999")];
/// As `mntr` names them.
const WORD_QUANTILES: &[(f64, &str)] = &[(0.5, "p50"), (0.95, "p95"), (0.99, "p99"), (0.999, "p999")];

/// Whether `/metrics` has the `process_*` families (`metricsProvider.exportJvmInfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessInfo {
    /// It has.
    Export,
    /// It has not.
    Omit,
}

/// Answers `GET /metrics` on the listener until the future is dropped. While the member does not serve,
/// gauges of the tree are absent and the rest is there.
pub fn serve(
    listener: TcpListener,
    stats: Arc<ServerStats>,
    member: Arc<dyn Inspect>,
    process_info: ProcessInfo,
) -> impl Future<Output = ()> + Send {
    http::serve(listener, move |target| match target.path {
        "/metrics" => Answer::ok(
            "text/plain; version=0.0.4; charset=utf-8",
            prometheus(member.facts().as_ref(), &stats.collect(), process_info),
        ),
        _ => Answer::plain(404, "there is /metrics"),
    })
}

/// The whole table in Prometheus' text format.
pub fn prometheus(facts: Option<&Facts>, collected: &Collected, process_info: ProcessInfo) -> String {
    let mut text = String::with_capacity(32 * 1024);
    for metric in TABLE {
        if metric.scope == Scope::Ensemble && facts.is_none_or(|facts| facts.ensemble.is_none()) {
            continue;
        }
        if process_info == ProcessInfo::Omit && metric.name.starts_with("process_") {
            continue;
        }
        let samples = samples(metric, facts, collected);
        if !samples.is_empty() {
            let kind = match metric.kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Basic | Kind::Advanced => "summary",
                Kind::Histogram => "histogram",
            };
            let Metric { name, help, .. } = metric;
            let unit = match metric.unit {
                Unit::Milliseconds => " (milliseconds)",
                Unit::Bytes if !name.ends_with("_bytes") => " (bytes)",
                _ => "",
            };
            let _ = write!(text, "# HELP {name} {help}{unit}.\n# TYPE {name} {kind}\n{samples}");
        }
    }
    text
}

/// The sample lines of one metric; empty if it has none now.
fn samples(metric: &Metric, facts: Option<&Facts>, collected: &Collected) -> String {
    let mut text = String::new();
    let name = metric.name;
    match metric.source {
        Source::Gauge(read) => {
            if let Some(value) = facts.and_then(read) {
                let _ = writeln!(text, "{name} {value}");
            }
        }
        Source::Stat(read) => {
            let _ = writeln!(text, "{name} {}", Decimal(read(collected)));
        }
        Source::Process(read) => {
            if let Some(value) = read() {
                let _ = writeln!(text, "{name} {value}");
            }
        }
        Source::Counter(counter) => {
            let _ = writeln!(text, "{name} {}", collected.counter(counter));
        }
        Source::Measure(measure) => {
            let quantiles = if metric.kind == Kind::Advanced { ADVANCED_QUANTILES } else { BASIC_QUANTILES };
            summary(&mut text, metric, collected.measure(measure), quantiles);
        }
        Source::RequestDuration => {
            for op in OpCode::ALL {
                let distribution = collected.requests(*op);
                if distribution.count() > 0 {
                    histogram(&mut text, name, "op", op.name(), distribution);
                }
            }
        }
        Source::StageDuration => {
            for stage in Stage::ALL {
                let distribution = collected.stage(*stage);
                if distribution.count() > 0 {
                    histogram(&mut text, name, "stage", stage.name(), distribution);
                }
            }
        }
    }
    text
}

/// What one of the measure's units is in the metric's.
fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Milliseconds => 1e-6,
        Unit::Seconds => 1e-9,
        Unit::Count | Unit::Bytes => 1.0,
    }
}

fn summary(text: &mut String, metric: &Metric, distribution: &Distribution, quantiles: &[(f64, &str)]) {
    let (name, scale) = (metric.name, scale(metric.unit));
    for (quantile, label) in quantiles {
        // No samples: NaN is the format's word for "no such percentile".
        let value = distribution.quantile(*quantile).map_or(f64::NAN, |value| value as f64 * scale);
        let _ = writeln!(text, "{name}{{quantile=\"{label}\"}} {}", Decimal(value));
    }
    let _ = writeln!(text, "{name}_sum {}", Decimal(distribution.sum() as f64 * scale));
    let _ = writeln!(text, "{name}_count {}", distribution.count());
}

fn histogram(text: &mut String, name: &str, label: &str, value: &str, distribution: &Distribution) {
    let bounds: Vec<u64> = BUCKETS.iter().map(|(bound, _)| *bound).collect();
    for ((_, bound), count) in BUCKETS.iter().zip(distribution.cumulative(&bounds)) {
        let _ = writeln!(text, "{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {count}");
    }
    let count = distribution.count();
    let _ = writeln!(text, "{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{{label}=\"{value}\"}} {}", Decimal(distribution.sum() as f64 * 1e-9));
    let _ = writeln!(text, "{name}_count{{{label}=\"{value}\"}} {count}");
}

/// A number without the noise of binary fractions: nine places, no trailing zeros.
struct Decimal(f64);

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_nan() {
            return f.write_str("NaN");
        }
        let text = format!("{:.9}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// `mntr`: `name<TAB>value` lines, Apache's names and number formats.
pub fn mntr(facts: &Facts, collected: &Collected) -> String {
    let mut text = format!("zk_version\t{}\nzk_server_state\t{}\n", words::version(), facts.mode.name());
    if let Some(ensemble) = &facts.ensemble {
        let _ = writeln!(text, "zk_peer_state\t{}", ensemble.peer_state);
        if let Some(id) = ensemble.observer_master_id {
            let _ = writeln!(text, "zk_observer_master_id\t{id}");
        }
    }
    for metric in TABLE {
        let absent = match metric.scope {
            Scope::Server => false,
            Scope::Ensemble => facts.ensemble.is_none(),
            Scope::HttpOnly => true,
        };
        if !absent {
            word_lines(&mut text, metric, facts, collected);
        }
    }
    text
}

fn word_lines(text: &mut String, metric: &Metric, facts: &Facts, collected: &Collected) {
    let name = metric.word_name();
    match metric.source {
        Source::Gauge(read) => {
            if let Some(value) = read(facts) {
                let _ = writeln!(text, "{name}\t{value}");
            }
        }
        Source::Stat(read) => {
            // avg_latency is the one with a fraction; Apache prints it as a decimal even when whole.
            let value = read(collected);
            let value = if metric.name == "avg_latency" { words::decimal(value) } else { value.to_string() };
            let _ = writeln!(text, "{name}\t{value}");
        }
        Source::Process(read) => {
            if let Some(value) = read() {
                let _ = writeln!(text, "{name}\t{value}");
            }
        }
        Source::Counter(counter) => {
            let _ = writeln!(text, "{name}\t{}", collected.counter(counter));
        }
        Source::Measure(measure) => {
            let distribution = collected.measure(measure);
            let scale = scale(metric.unit);
            let whole = |value: u64| (value as f64 * scale) as u64;
            let bare = metric.name;
            let mean = words::decimal(distribution.mean() * scale);
            let _ = writeln!(
                text,
                "zk_avg_{bare}\t{mean}\nzk_min_{bare}\t{}\nzk_max_{bare}\t{}\nzk_cnt_{bare}\t{}\nzk_sum_{bare}\t{}",
                whole(distribution.min()),
                whole(distribution.max()),
                distribution.count(),
                whole(distribution.sum()),
            );
            if metric.kind == Kind::Advanced {
                for (quantile, label) in WORD_QUANTILES {
                    let value = whole(distribution.quantile(*quantile).unwrap_or(0));
                    let _ = writeln!(text, "zk_{label}_{bare}\t{value}");
                }
            }
        }
        // Scope::HttpOnly, so they do not come here: `mntr` has no labels.
        Source::RequestDuration | Source::StageDuration => {}
    }
}
