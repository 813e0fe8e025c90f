//! The slowest requests of which a trace was kept, from `traces.json` (OTLP in JSON).
//!
//! Traces are optional; a file that is there but cannot be read is an error like any other.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::charts::escape;
use crate::figures;
use crate::results::{RunData, file};

/// Rows of the table.
const SHOWN: usize = 15;
/// Stages named per request, longest first.
const STAGES: usize = 3;
/// Where Jaeger's UI listens when started as the README says.
const JAEGER: &str = "http://localhost:16686/trace/";

/// The slowest kept requests, slowest first.
pub(super) struct Slowest {
    rows: Vec<Row>,
    kept: usize,
}

struct Row {
    trace: String,
    op: String,
    phase: String,
    outcome: String,
    at_s: f64,
    length_us: f64,
    /// (name, microseconds), longest first.
    stages: Vec<(String, f64)>,
}

struct Span {
    id: String,
    name: String,
    start_ns: u64,
    end_ns: u64,
    attributes: HashMap<String, String>,
}

/// Reads the traces of a results directory; empty when there are none.
pub(super) fn read(dir: &Path, run: &RunData) -> Result<Slowest> {
    let path = dir.join(file::TRACES);
    if !path.exists() {
        return Ok(Slowest { rows: Vec::new(), kept: 0 });
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut traces: HashMap<String, Vec<Span>> = HashMap::new();
    for document in serde_json::Deserializer::from_slice(&text).into_iter::<Value>() {
        let document = document.with_context(|| {
            format!(
                "{} is damaged; copy the directory again, or delete the file to do without traces",
                path.display()
            )
        })?;
        collect(&document, &mut traces);
    }
    // Of the report's clock, whose zero is the beginning of the first phase.
    let started_ns = run.manifest.started_unix_ms as f64 * 1e6 - run.manifest.seconds(0) * 1e9;
    let mut rows: Vec<Row> =
        traces.into_iter().filter_map(|(trace, spans)| row(trace, &spans, started_ns)).collect();
    let kept = rows.len();
    rows.sort_by(|a, b| b.length_us.total_cmp(&a.length_us).then_with(|| a.trace.cmp(&b.trace)));
    rows.truncate(SHOWN);
    Ok(Slowest { rows, kept })
}

fn collect(document: &Value, traces: &mut HashMap<String, Vec<Span>>) {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for resource in list(document, "resourceSpans") {
        for scope in list(&resource, "scopeSpans") {
            for span in list(&scope, "spans") {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_string();
                // OTLP/JSON writes 64-bit integers as strings; some writers use numbers.
                let time =
                    |key: &str| span[key].as_u64().or_else(|| span[key].as_str()?.parse().ok()).unwrap_or(0);
                let attributes = list(&span, "attributes").iter().filter_map(attribute).collect();
                traces.entry(text("traceId")).or_default().push(Span {
                    id: text("spanId"),
                    name: text("name"),
                    start_ns: time("startTimeUnixNano"),
                    end_ns: time("endTimeUnixNano"),
                    attributes,
                });
            }
        }
    }
}

fn attribute(pair: &Value) -> Option<(String, String)> {
    let value = pair["value"].as_object()?.values().next()?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    Some((pair["key"].as_str()?.to_string(), text))
}

/// A trace by its client span: the one that names the workload's operation.
fn row(trace: String, spans: &[Span], started_ns: f64) -> Option<Row> {
    let root = spans.iter().find(|span| span.attributes.contains_key(zoometry_spans::attrs::OPERATION))?;
    let of = |key: &str| root.attributes.get(key).cloned().unwrap_or_default();
    let us = |span: &Span| span.end_ns.saturating_sub(span.start_ns) as f64 / 1e3;
    let mut stages: Vec<(String, f64)> =
        spans.iter().filter(|span| span.id != root.id).map(|span| (span.name.clone(), us(span))).collect();
    stages.sort_by(|a, b| b.1.total_cmp(&a.1));
    stages.truncate(STAGES);
    let error = of(zoometry_spans::attrs::ERROR_TYPE);
    Some(Row {
        trace,
        op: of(zoometry_spans::attrs::OPERATION),
        phase: of(zoometry_spans::attrs::PHASE),
        outcome: if error.is_empty() { "ok".to_string() } else { error },
        at_s: (root.start_ns as f64 - started_ns) / 1e9,
        length_us: us(root),
        stages,
    })
}

impl Slowest {
    /// The table; nothing without traces.
    pub(super) fn html(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut html = format!(
            "<h3>Slowest traced requests</h3><p class=note>The {} slowest of {} kept traces. Open \
             <code>traces.json</code> in Jaeger’s UI (Search, Upload), or follow a link when Jaeger received this \
             run on this machine.</p><div class=scroll><table class=sortable><thead><tr><th>took</th>\
             <th class=text>operation</th><th class=text>outcome</th><th class=text>phase</th><th>at</th>\
             <th class=text>longest parts</th><th class=text>trace</th></tr></thead><tbody>",
            self.rows.len(),
            figures::count(self.kept as u64)
        );
        for row in &self.rows {
            let stages: Vec<String> =
                row.stages.iter().map(|(name, us)| format!("{name} {}", figures::time_us(*us))).collect();
            let _ = write!(
                html,
                "<tr><td data-v={}>{}</td><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td>\
                 <td data-v={}>{:.3}&nbsp;s</td><td class=text>{}</td>\
                 <td class=text><a href=\"{JAEGER}{}\"><code>{}</code></a></td></tr>",
                row.length_us,
                figures::time_us(row.length_us).replace(' ', "&nbsp;"),
                escape(&row.op),
                escape(&row.outcome),
                escape(&row.phase),
                row.at_s,
                row.at_s,
                escape(&stages.join(", ")),
                escape(&row.trace),
                escape(&row.trace),
            );
        }
        html.push_str("</tbody></table></div>");
        html
    }
}
