//! Span files of the client and of all servers, merged into one `traces.json` of limited size.
//!
//! A trace is kept whole or dropped whole. What is kept, in this order, until the budget is used up: failed
//! traces (to a fifth of it), the slowest (to half), then head-sampled ones, taken from all phases in turn
//! and spread evenly over each phase's time; what is left of the budget goes to the rest in the same order.
//! Among equals, traces that hold both sides come first. How many there were and how many were dropped is
//! returned, and written into the file as attributes of its first resource. A span whose parent is in none
//! of the files becomes a root.
//!
//! Input is not trusted: a line that does not parse is counted and skipped, and of each file at most
//! [`MAX_INPUT`] bytes are read.

use crate::span::{Attr, Value};
use crate::{attrs, json};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Size of the merged file, in bytes, unless told otherwise: under 5 MB.
pub const DEFAULT_BUDGET: usize = 4_800_000;
/// Most that is read of one span file, in bytes.
pub const MAX_INPUT: u64 = 256 << 20;
/// Most spans of one trace that are kept: Jaeger's UI gets slow beyond. The rest is cut off and counted.
pub const MAX_SPANS_PER_TRACE: usize = 500;

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Traces found.
    pub traces: usize,
    /// Traces in the file.
    pub kept: usize,
    /// Spans in the file.
    pub spans: usize,
    /// Kept traces that hold the client's and at least one server's spans.
    pub both_sides: usize,
    /// Traces left out for the budget.
    pub dropped: usize,
    /// Spans left out because their trace had more than [`MAX_SPANS_PER_TRACE`].
    pub cut_spans: usize,
    /// Lines that were not OTLP/JSON (a killed server leaves one torn line).
    pub broken_lines: usize,
    /// Files that were longer than [`MAX_INPUT`].
    pub cut_files: usize,
    /// Size of the file, in bytes.
    pub bytes: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, default)]
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    scope_spans: Vec<ScopeSpans<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeSpans<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default)]
    spans: Vec<&'a RawValue>,
}

/// What selection needs to know of a span; the rest stays text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_span_id: Cow<'a, str>,
    #[serde(borrow)]
    start_time_unix_nano: Cow<'a, str>,
    #[serde(borrow)]
    end_time_unix_nano: Cow<'a, str>,
    #[serde(default)]
    kind: u8,
    #[serde(borrow, default)]
    attributes: Vec<HeadAttr<'a>>,
}

#[derive(Deserialize)]
struct HeadAttr<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: HeadValue<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadValue<'a> {
    #[serde(borrow, default)]
    string_value: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Error,
    Slow,
    Head,
}

#[derive(Debug)]
struct Kept {
    group: usize,
    id: String,
    parent: String,
    text: Box<str>,
}

#[derive(Debug)]
struct Trace {
    spans: Vec<Kept>,
    bytes: usize,
    start_ns: u64,
    end_ns: u64,
    class: Class,
    client: bool,
    server: bool,
    phase: String,
}

impl Trace {
    fn both_sides(&self) -> bool {
        self.client && self.server
    }

    /// A span whose parent nobody kept (the server found a request slow and the client did not) becomes a
    /// root: a parent that never comes looks like a broken trace.
    fn make_roots(&mut self) {
        let ids: HashSet<String> = self.spans.iter().map(|kept| kept.id.clone()).collect();
        for kept in &mut self.spans {
            if !kept.parent.is_empty() && !ids.contains(&kept.parent) {
                let named = format!(r#","parentSpanId":"{}""#, kept.parent);
                kept.text = kept.text.replacen(&named, "", 1).into();
            }
        }
    }

    fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// Resource and scope, as text, of everything that one process wrote.
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Group {
    resource: String,
    scope: String,
}

#[derive(Debug, Default)]
struct Pool {
    groups: Vec<Group>,
    group_of: HashMap<Group, usize>,
    traces: BTreeMap<String, Trace>,
    merged: Merged,
}

/// Merges span files into one OTLP/JSON document of at most `budget` bytes. Files that do not exist are
/// skipped: a server that kept nothing wrote none.
pub fn merge(inputs: &[PathBuf], output: &Path, budget: usize) -> io::Result<Merged> {
    let mut pool = Pool::default();
    for path in inputs {
        pool.read(path)?;
    }
    let (document, merged) = pool.document(budget);
    let mut file = File::create(output)?;
    file.write_all(document.as_bytes())?;
    Ok(merged)
}

impl Pool {
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if file.metadata()?.len() > MAX_INPUT {
            self.merged.cut_files += 1;
        }
        let mut lines = BufReader::with_capacity(1 << 16, file.take(MAX_INPUT));
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if !line.trim_ascii().is_empty() && self.line(&line).is_none() {
                self.merged.broken_lines += 1;
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Option<()> {
        let request: Request<'_> = serde_json::from_slice(line).ok()?;
        for resource_spans in &request.resource_spans {
            for scope_spans in &resource_spans.scope_spans {
                let text = |raw: Option<&RawValue>| raw.map_or("{}", RawValue::get).to_owned();
                let group = Group { resource: text(resource_spans.resource), scope: text(scope_spans.scope) };
                let next = self.groups.len();
                let index = *self.group_of.entry(group.clone()).or_insert(next);
                if index == next {
                    self.groups.push(group);
                }
                for span in &scope_spans.spans {
                    self.span(index, span.get())?;
                }
            }
        }
        Some(())
    }

    fn span(&mut self, group: usize, text: &str) -> Option<()> {
        let head: Head<'_> = serde_json::from_str(text).ok()?;
        let start_ns: u64 = head.start_time_unix_nano.parse().ok()?;
        let end_ns: u64 = head.end_time_unix_nano.parse().ok()?;
        let attribute = |key: &str| {
            let found = head.attributes.iter().find(|attr| attr.key == key)?;
            found.value.string_value.as_deref()
        };
        let trace = self.traces.entry(head.trace_id.clone().into_owned()).or_insert_with(|| Trace {
            spans: Vec::new(),
            bytes: 0,
            start_ns,
            end_ns,
            class: Class::Head,
            client: false,
            server: false,
            phase: String::new(),
        });
        if trace.spans.iter().any(|kept| kept.id == head.span_id) {
            return Some(());
        }
        if trace.spans.len() >= MAX_SPANS_PER_TRACE {
            self.merged.cut_spans += 1;
            return Some(());
        }
        trace.start_ns = trace.start_ns.min(start_ns);
        trace.end_ns = trace.end_ns.max(end_ns);
        trace.bytes += text.len() + 2;
        let class = match attribute(attrs::KEPT_BY) {
            Some("error") => Class::Error,
            Some("slow") => Class::Slow,
            _ => Class::Head,
        };
        trace.class = trace.class.min(class);
        trace.client |= head.kind == crate::Kind::Client as u8;
        trace.server |= head.kind == crate::Kind::Server as u8;
        if let Some(phase) = attribute(attrs::PHASE) {
            trace.phase = phase.to_owned();
        }
        trace.spans.push(Kept {
            group,
            id: head.span_id.into_owned(),
            parent: head.parent_span_id.into_owned(),
            text: text.into(),
        });
        Some(())
    }

    fn document(mut self, budget: usize) -> (String, Merged) {
        let frame: usize =
            self.groups.iter().map(|group| group.resource.len() + group.scope.len() + 512).sum();
        let mut traces: Vec<Trace> = std::mem::take(&mut self.traces).into_values().collect();
        traces.iter_mut().for_each(Trace::make_roots);
        let kept = select(&traces, budget.saturating_sub(frame + 256));
        let merged = &mut self.merged;
        merged.traces = traces.len();
        merged.kept = kept.len();
        merged.dropped = traces.len() - kept.len();
        merged.spans = kept.iter().map(|&n| traces[n].spans.len()).sum();
        merged.both_sides = kept.iter().filter(|&&n| traces[n].both_sides()).count();
        let document = self.write(&traces, &kept);
        self.merged.bytes = document.len();
        (document, self.merged)
    }

    fn write(&self, traces: &[Trace], kept: &[usize]) -> String {
        let mut out = String::from("{\"resourceSpans\":[");
        let mut first_group = true;
        for (index, group) in self.groups.iter().enumerate() {
            let mut spans = kept
                .iter()
                .flat_map(|&n| &traces[n].spans)
                .filter(|kept| kept.group == index)
                .map(|kept| &kept.text)
                .peekable();
            if spans.peek().is_none() {
                continue;
            }
            out.push_str(if first_group { "\n{\"resource\":" } else { ",\n{\"resource\":" });
            match first_group {
                true => self.write_counted(&mut out, &group.resource),
                false => out.push_str(&group.resource),
            }
            first_group = false;
            out.push_str(",\"scopeSpans\":[{\"scope\":");
            out.push_str(&group.scope);
            out.push_str(",\"spans\":[");
            for (n, text) in spans.enumerate() {
                out.push_str(if n == 0 { "\n" } else { ",\n" });
                out.push_str(text);
            }
            out.push_str("\n],\"schemaUrl\":\"");
            out.push_str(attrs::SCHEMA_URL);
            out.push_str("\"}],\"schemaUrl\":\"");
            out.push_str(attrs::SCHEMA_URL);
            out.push_str("\"}");
        }
        out.push_str("\n]}\n");
        out
    }

    /// The resource, with the merge's counts among its attributes. A resource that is not shaped as ours
    /// is left alone.
    fn write_counted(&self, out: &mut String, resource: &str) {
        let Some(head) = resource.strip_suffix("]}").filter(|head| head.starts_with("{\"attributes\":["))
        else {
            return out.push_str(resource);
        };
        out.push_str(head);
        let counts = [
            ("zoometry.traces.found", self.merged.traces),
            ("zoometry.traces.kept", self.merged.kept),
            ("zoometry.traces.dropped", self.merged.dropped),
        ];
        for (n, (key, count)) in counts.into_iter().enumerate() {
            if n > 0 || !head.ends_with('[') {
                out.push(',');
            }
            json::attribute(out, &Attr { key: Cow::Borrowed(key), value: Value::Int(count as i64) });
        }
        out.push_str("]}");
    }
}

/// Which traces to keep, as indices in order of time; see the module for the rules.
fn select(traces: &[Trace], budget: usize) -> Vec<usize> {
    let mut errors = Vec::new();
    let mut slow = Vec::new();
    let mut phases: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, trace) in traces.iter().enumerate() {
        match trace.class {
            Class::Error => errors.push(n),
            Class::Slow => slow.push(n),
            Class::Head => phases.entry(&trace.phase).or_default().push(n),
        }
    }
    let slowest_first = |n: &usize| {
        let trace = &traces[*n];
        (!trace.both_sides(), std::cmp::Reverse(trace.duration_ns()))
    };
    errors.sort_by_key(slowest_first);
    // For the slowest, slowness comes before completeness.
    slow.sort_by_key(|&n| (std::cmp::Reverse(traces[n].duration_ns()), !traces[n].both_sides()));
    let mut head: Vec<std::collections::VecDeque<usize>> = Vec::new();
    for (_, mut members) in phases {
        members.sort_by_key(|&n| traces[n].start_ns);
        let (whole, half): (Vec<usize>, Vec<usize>) =
            members.into_iter().partition(|&n| traces[n].both_sides());
        head.push(spread(&whole).into_iter().chain(spread(&half)).collect());
    }
    let mut turns = Vec::new();
    while head.iter().any(|phase| !phase.is_empty()) {
        turns.extend(head.iter_mut().filter_map(std::collections::VecDeque::pop_front));
    }

    let mut choice = Choice { traces, kept: Vec::new(), used: 0, budget };
    let errors = choice.take(errors, budget / 5);
    let slow = choice.take(slow, budget / 2);
    let turns = choice.take(turns, budget);
    for rest in [slow, errors, turns] {
        choice.take(rest, budget);
    }
    choice.kept.sort_by_key(|&n| (traces[n].start_ns, n));
    choice.kept
}

struct Choice<'a> {
    traces: &'a [Trace],
    kept: Vec<usize>,
    used: usize,
    budget: usize,
}

impl Choice<'_> {
    /// Takes candidates in order while they fit into `share` and into the whole; returns the others.
    fn take(&mut self, candidates: Vec<usize>, share: usize) -> Vec<usize> {
        let mut left = share;
        let mut others = Vec::new();
        for n in candidates {
            let bytes = self.traces[n].bytes;
            if bytes <= left && self.used + bytes <= self.budget {
                left -= bytes;
                self.used += bytes;
                self.kept.push(n);
            } else {
                others.push(n);
            }
        }
        others
    }
}

/// The same elements, reordered so that every prefix is spread evenly over the whole: by the bits of their
/// position, reversed.
fn spread(sorted: &[usize]) -> Vec<usize> {
    let bits = usize::BITS - sorted.len().saturating_sub(1).leading_zeros();
    let mut order: Vec<usize> = (0..sorted.len()).collect();
    if bits > 0 {
        order.sort_by_key(|&n| n.reverse_bits() >> (usize::BITS - bits));
    }
    order.into_iter().map(|n| sorted[n]).collect()
}

#[cfg(test)]
#[path = "merge/tests.rs"]
mod tests;
