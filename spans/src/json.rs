//! OTLP/JSON: what `traces.json` and the span files are written in.
//!
//! The format is OpenTelemetry's `ExportTraceServiceRequest` in its JSON mapping: camelCase keys, trace and
//! span ids as lower-case **hex** (where protobuf's own JSON mapping has base64: a generic protobuf parser
//! needs them converted first), 64-bit numbers as strings, enums as numbers. Jaeger's UI opens it by upload.
//!
//! A span file is a line per batch, each line such a request; only the last line of a killed process can be
//! torn. Writing goes straight to text; reading is in [`crate::merge`].

use crate::attrs;
use crate::resource::Resource;
use crate::span::{Attr, FLAG_RANDOM, MAX_PER_SPAN, Span, Status, Value};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// OTLP's `flags` of every span: sampled, and with random ids.
const SPAN_FLAGS: u8 = 1 | FLAG_RANDOM;

/// One span, as an element of `spans`.
pub fn write_span(out: &mut String, span: &Span) {
    // Writing to a String does not fail.
    let _ = write!(out, r#"{{"traceId":"{}","spanId":"{}""#, span.trace, span.span);
    if let Some(parent) = span.parent {
        let _ = write!(out, r#","parentSpanId":"{parent}""#);
    }
    if !span.tracestate.is_empty() {
        out.push_str(r#","traceState":"#);
        text(out, &span.tracestate);
    }
    let _ = write!(out, r#","flags":{SPAN_FLAGS},"name":"#);
    text(out, &span.name);
    let _ = write!(
        out,
        r#","kind":{},"startTimeUnixNano":"{}","endTimeUnixNano":"{}""#,
        span.kind as u8, span.start_ns, span.end_ns
    );
    attributes(out, &span.attrs);
    dropped(out, "droppedAttributesCount", span.attrs.len());
    if !span.events.is_empty() {
        out.push_str(r#","events":["#);
        for (n, event) in span.events.iter().take(MAX_PER_SPAN).enumerate() {
            comma(out, n);
            let _ = write!(out, r#"{{"timeUnixNano":"{}","name":"#, event.at_ns);
            text(out, &event.name);
            attributes(out, &event.attrs);
            out.push('}');
        }
        out.push(']');
        dropped(out, "droppedEventsCount", span.events.len());
    }
    if !span.links.is_empty() {
        out.push_str(r#","links":["#);
        for (n, link) in span.links.iter().take(MAX_PER_SPAN).enumerate() {
            comma(out, n);
            let _ = write!(out, r#"{{"traceId":"{}","spanId":"{}""#, link.trace, link.span);
            attributes(out, &link.attrs);
            out.push('}');
        }
        out.push(']');
        dropped(out, "droppedLinksCount", span.links.len());
    }
    if let Status::Error(message) = &span.status {
        out.push_str(r#","status":{"message":"#);
        text(out, message);
        out.push_str(r#","code":2}"#);
    }
    out.push('}');
}

/// A whole request: these spans, from this resource.
pub fn write_request(out: &mut String, resource: &Resource, spans: &[Span]) {
    out.push_str(r#"{"resourceSpans":[{"resource":"#);
    write_resource(out, resource);
    out.push_str(r#","scopeSpans":[{"scope":"#);
    write_scope(out, resource);
    out.push_str(r#","spans":["#);
    for (n, span) in spans.iter().enumerate() {
        comma(out, n);
        write_span(out, span);
    }
    let _ = write!(out, r#"],"schemaUrl":"{0}"}}],"schemaUrl":"{0}"}}]}}"#, attrs::SCHEMA_URL);
}

fn write_resource(out: &mut String, resource: &Resource) {
    out.push_str(r#"{"attributes":["#);
    for (n, attr) in resource.attrs().iter().enumerate() {
        comma(out, n);
        attribute(out, attr);
    }
    out.push_str("]}");
}

fn write_scope(out: &mut String, resource: &Resource) {
    let _ = write!(out, r#"{{"name":"{}","version":"#, attrs::SCOPE);
    text(out, resource.service_version());
    out.push('}');
}

fn comma(out: &mut String, n: usize) {
    if n > 0 {
        out.push(',');
    }
}

fn dropped(out: &mut String, key: &str, length: usize) {
    if length > MAX_PER_SPAN {
        let _ = write!(out, r#","{key}":{}"#, length - MAX_PER_SPAN);
    }
}

fn attributes(out: &mut String, attrs: &[Attr]) {
    if attrs.is_empty() {
        return;
    }
    out.push_str(r#","attributes":["#);
    for (n, attr) in attrs.iter().take(MAX_PER_SPAN).enumerate() {
        comma(out, n);
        attribute(out, attr);
    }
    out.push(']');
}

pub(crate) fn attribute(out: &mut String, attr: &Attr) {
    out.push_str(r#"{"key":"#);
    text(out, &attr.key);
    out.push_str(r#","value":"#);
    // Writing to a String does not fail.
    let _ = match &attr.value {
        Value::Str(value) => {
            out.push_str(r#"{"stringValue":"#);
            text(out, value);
            write!(out, "}}")
        }
        Value::Int(n) => write!(out, r#"{{"intValue":"{n}"}}"#),
        // JSON has no NaN and no infinity; protobuf's mapping writes their names.
        Value::Float(x) if x.is_finite() => write!(out, r#"{{"doubleValue":{x:?}}}"#),
        Value::Float(x) if x.is_nan() => write!(out, r#"{{"doubleValue":"NaN"}}"#),
        Value::Float(x) => {
            let name = if *x > 0.0 { "Infinity" } else { "-Infinity" };
            write!(out, r#"{{"doubleValue":"{name}"}}"#)
        }
        Value::Bool(b) => write!(out, r#"{{"boolValue":{b}}}"#),
    };
    out.push('}');
}

/// A JSON string.
fn text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Largest span file, in bytes, unless told otherwise. At the limit spans are counted and not written.
pub const MAX_SPAN_FILE: u64 = 64 << 20;

/// A span file that is being written: a line per batch.
#[derive(Debug)]
pub struct SpanFile {
    path: PathBuf,
    file: File,
    resource: Resource,
    line: String,
    written: u64,
    limit: u64,
    dropped: u64,
}

impl SpanFile {
    /// Opens the file, appending if it exists: a member that is restarted goes on with the same one.
    pub fn append(path: &Path, resource: Resource) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        let mut opened = Self {
            path: path.to_owned(),
            file,
            resource,
            line: String::new(),
            written,
            limit: MAX_SPAN_FILE,
            dropped: 0,
        };
        if written > 0 {
            // Ends a line that a killed predecessor may have torn.
            opened.put("\n".to_owned())?;
        }
        Ok(opened)
    }

    /// The same, with another limit in bytes.
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Writes a batch as one line, in one write call.
    pub fn write(&mut self, spans: &[Span]) -> io::Result<()> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        write_request(&mut line, &self.resource, spans);
        line.push('\n');
        if self.written + line.len() as u64 > self.limit {
            self.dropped += spans.len() as u64;
            self.line = line;
            return Ok(());
        }
        self.put(line)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Spans that the limit kept out.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn put(&mut self, line: String) -> io::Result<()> {
        let result = self.file.write_all(line.as_bytes());
        self.written += line.len() as u64;
        self.line = line;
        result
    }
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
