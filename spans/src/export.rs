//! Spans to an OTLP/HTTP receiver (Jaeger, an OpenTelemetry Collector, Tempo …), through OpenTelemetry's
//! own batch processor and protobuf encoding.
//!
//! Everything is set by OpenTelemetry's standard environment variables, and nothing is sent unless one of
//! the endpoint variables is set. Two things are stricter than the SDK's: spans beyond the queue are dropped
//! *and counted* here, before the processor would drop them silently; and a batch that could not be
//! delivered is counted as failed, with the last error kept for the closing message.
//!
//! [`Exporter::send`] never blocks, but allocates: it is meant for threads off the request path.

use crate::attrs;
use crate::http_client::Client;
use crate::resource::{Resource, percent_decoded};
use crate::span::{Attr, Kind, MAX_PER_SPAN, Span, Status, Value};
use opentelemetry::trace::{
    Event as OtelEvent, Link as OtelLink, SpanContext, SpanId, SpanKind, Status as OtelStatus, TraceFlags,
    TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Spans that may wait for export, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise. More are dropped and
/// counted.
pub const DEFAULT_QUEUE: usize = 65_536;
/// Spans in one request, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says otherwise.
pub const DEFAULT_BATCH: usize = 4096;
/// How long a span waits for company, unless `OTEL_BSP_SCHEDULE_DELAY` says otherwise.
pub const DEFAULT_DELAY: Duration = Duration::from_millis(500);
/// Time for one request, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why export could not be set up. The message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The endpoint cannot be used.
    #[error("{variable}={value}: {problem}")]
    Endpoint {
        /// The variable that holds it.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting that asks for something that is not built in.
    #[error("{variable}={value} is not supported: {problem}")]
    Unsupported {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is possible instead.
        problem: &'static str,
    },
    /// OpenTelemetry refused the settings.
    #[error("OpenTelemetry refused the export settings: {0}")]
    Refused(String),
    /// The log filter does not parse.
    #[error(
        "log filter {filter:?}: {problem}; expected a level (error, warn, info, debug, trace) or target=level pairs"
    )]
    LogFilter {
        /// The filter.
        filter: String,
        /// The parser's complaint.
        problem: String,
    },
    /// Somebody else has installed a subscriber already.
    #[error("tracing has been initialised already in this process")]
    AlreadyInitialised,
}

/// Where and how to export.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportSettings {
    /// The full URL, path included.
    pub endpoint: String,
    /// Headers to send along.
    pub headers: HashMap<String, String>,
    /// Time for one request.
    pub timeout: Duration,
    /// Spans that may wait.
    pub queue: usize,
    /// Spans in one request.
    pub batch: usize,
    /// How long a span waits for company.
    pub delay: Duration,
    /// Values that were ignored because they do not parse, one sentence each.
    pub warnings: Vec<String>,
}

impl ExportSettings {
    /// Defaults, to this URL (`http://host:4318/v1/traces`).
    pub fn to(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            headers: HashMap::new(),
            timeout: DEFAULT_TIMEOUT,
            queue: DEFAULT_QUEUE,
            batch: DEFAULT_BATCH,
            delay: DEFAULT_DELAY,
            warnings: Vec::new(),
        }
    }

    /// What the standard variables say; `None` if they name no endpoint or switch tracing off.
    pub fn from_env() -> Result<Option<Self>, SetupError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    pub(crate) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SetupError> {
        let set = |name: &str| variable(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let off = set("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|v| v == "none");
        if off {
            return Ok(None);
        }
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, value, endpoint) = match (set(TRACES), set(ALL)) {
            (Some(url), _) => (TRACES, url.clone(), url),
            (None, Some(url)) => (ALL, url.clone(), format!("{}/v1/traces", url.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        check_endpoint(name, &value)?;
        let either = |signal: &'static str, general: &'static str| match set(signal) {
            Some(value) => Some((signal, value)),
            None => set(general).map(|value| (general, value)),
        };
        if let Some((variable, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
            && value != "http/protobuf"
        {
            let problem = "spans are sent as http/protobuf; unset it and use the receiver's HTTP port (4318)";
            return Err(SetupError::Unsupported { variable, value, problem });
        }
        if let Some((variable, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
            && value != "none"
        {
            let problem = "spans are sent uncompressed; unset it";
            return Err(SetupError::Unsupported { variable, value, problem });
        }
        let mut settings = Self::to(endpoint);
        let headers = either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        for pair in headers.iter().flat_map(|(_, list)| list.split(',')) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    settings.headers.insert(key.trim().to_owned(), percent_decoded(value.trim()));
                }
                _ if pair.trim().is_empty() => {}
                // Not quoted in the message: it may be a secret.
                _ => settings.warnings.push("a header in OTEL_EXPORTER_OTLP_HEADERS has no '='".into()),
            }
        }
        let timeout = either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        if let Some(ms) = timeout.and_then(|(name, value)| settings.number(name, &value)) {
            settings.timeout = Duration::from_millis(ms);
        }
        let mut numbers = |name| set(name).and_then(|value| settings.number(name, &value));
        let queue = numbers("OTEL_BSP_MAX_QUEUE_SIZE");
        let batch = numbers("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
        let delay = numbers("OTEL_BSP_SCHEDULE_DELAY");
        settings.queue = queue.map_or(settings.queue, |n| n as usize);
        settings.batch = batch.map_or(settings.batch, |n| n as usize).min(settings.queue);
        settings.delay = delay.map_or(settings.delay, Duration::from_millis);
        Ok(Some(settings))
    }

    /// A positive number of at most ten million; anything else is a warning.
    fn number(&mut self, name: &str, value: &str) -> Option<u64> {
        let number = u64::from_str(value).ok().filter(|n| (1..=10_000_000).contains(n));
        if number.is_none() {
            self.warnings
                .push(format!("{name}={value} is ignored: expected a whole number from 1 to 10000000"));
        }
        number
    }
}

fn check_endpoint(variable: &'static str, value: &str) -> Result<(), SetupError> {
    let refuse = |problem: String| Err(SetupError::Endpoint { variable, value: value.to_owned(), problem });
    let uri: http::Uri = match value.parse() {
        Ok(uri) => uri,
        Err(error) => {
            return refuse(format!("not a URL ({error}); expected something like http://localhost:4318"));
        }
    };
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if authority.as_str().contains('@') => refuse(
            "a user name in the URL is not supported; use OTEL_EXPORTER_OTLP_HEADERS=authorization=…".into(),
        ),
        (Some("http"), Some(_)) => Ok(()),
        (Some("https"), _) => refuse(
            "https is not supported; send to an OpenTelemetry Collector (or Jaeger) on http:// in the same \
             network and let it forward with TLS"
                .into(),
        ),
        _ => refuse("expected something like http://localhost:4318".into()),
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Handed to the processor and not yet through the exporter.
    waiting: AtomicUsize,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// What became of all spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportCounts {
    /// Delivered.
    pub exported: u64,
    /// In batches that could not be delivered.
    pub failed: u64,
    /// Not taken because the queue was full, or after shutdown.
    pub dropped: u64,
    /// Still waiting.
    pub waiting: u64,
    /// The last error, if any.
    pub last_error: Option<String>,
}

/// A handle on the export; clones share one queue.
#[derive(Debug, Clone)]
pub struct Exporter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    processor: BatchSpanProcessor,
    counts: Arc<Counts>,
    queue: usize,
    scope: InstrumentationScope,
    closed: AtomicBool,
}

impl Exporter {
    /// Starts the exporting thread.
    pub fn start(settings: &ExportSettings, resource: &Resource) -> Result<Self, SetupError> {
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(settings.timeout))
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .with_headers(settings.headers.clone())
            .build()
            .map_err(|error| SetupError::Refused(error.to_string()))?;
        let counts = Arc::new(Counts::default());
        let counted = Counted { otlp, counts: counts.clone(), endpoint: settings.endpoint.clone() };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.delay)
            .build();
        let mut processor = BatchSpanProcessor::new(counted, config);
        processor.set_resource(&otel_resource(resource));
        let scope = InstrumentationScope::builder(attrs::SCOPE)
            .with_version(resource.service_version().to_owned())
            .with_schema_url(attrs::SCHEMA_URL)
            .build();
        Ok(Self {
            inner: Arc::new(Inner {
                processor,
                counts,
                queue: settings.queue,
                scope,
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Hands a span over; a full queue drops and counts it. Returns whether it was taken.
    pub fn send(&self, span: Span) -> bool {
        if self.inner.admit() {
            self.inner.processor.on_end(span_data(span, &self.inner.scope));
            true
        } else {
            false
        }
    }

    /// What became of the spans so far.
    pub fn counts(&self) -> ExportCounts {
        let counts = &self.inner.counts;
        ExportCounts {
            exported: counts.exported.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            waiting: counts.waiting.load(Ordering::Relaxed) as u64,
            last_error: counts.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Sends what waits and ends the thread, within the deadline. Spans sent later are dropped.
    pub fn shutdown(&self, deadline: Duration) -> ExportCounts {
        self.inner.closed.store(true, Ordering::Relaxed);
        // The outcome is in the counts: what was not delivered is failed or still waiting.
        let _ = self.inner.processor.shutdown_with_timeout(deadline);
        self.counts()
    }
}

impl Inner {
    /// Takes a place in the queue.
    fn admit(&self) -> bool {
        let before = self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let admitted = before < self.queue && !self.closed.load(Ordering::Relaxed);
        if !admitted {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

/// Spans of the `tracing` layer go through the same queue.
impl SpanProcessor for Exporter {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.inner.admit() {
            self.inner.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.processor.shutdown_with_timeout(timeout)
    }
}

/// The OTLP exporter, with its outcomes counted.
#[derive(Debug)]
struct Counted {
    otlp: opentelemetry_otlp::SpanExporter,
    counts: Arc<Counts>,
    endpoint: String,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.otlp.export(batch).await;
        match &result {
            Ok(()) => {
                self.counts.exported.fetch_add(spans as u64, Ordering::Relaxed);
            }
            Err(error) => {
                if self.counts.failed.fetch_add(spans as u64, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        endpoint = self.endpoint, %error, spans,
                        "spans could not be delivered; further failures are only counted"
                    );
                }
                let mut last = self.counts.last_error.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(error.to_string());
            }
        }
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        self.otlp.set_resource(resource);
    }
}

pub(crate) fn otel_resource(resource: &Resource) -> opentelemetry_sdk::Resource {
    opentelemetry_sdk::Resource::builder_empty()
        .with_schema_url(resource.attrs().iter().cloned().map(key_value), attrs::SCHEMA_URL)
        .build()
}

fn key_value(attr: Attr) -> KeyValue {
    match attr.value {
        Value::Str(text) => KeyValue::new(attr.key, text),
        Value::Int(n) => KeyValue::new(attr.key, n),
        Value::Float(x) => KeyValue::new(attr.key, x),
        Value::Bool(b) => KeyValue::new(attr.key, b),
    }
}

fn key_values(attrs: Vec<Attr>) -> Vec<KeyValue> {
    attrs.into_iter().take(MAX_PER_SPAN).map(key_value).collect()
}

fn over(length: usize) -> u32 {
    length.saturating_sub(MAX_PER_SPAN) as u32
}

fn at(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

fn context(trace: crate::TraceId, span: crate::SpanId, tracestate: &str, is_remote: bool) -> SpanContext {
    let state = TraceState::from_str(tracestate).unwrap_or_default();
    let flags = TraceFlags::SAMPLED | TraceFlags::new(crate::span::FLAG_RANDOM);
    SpanContext::new(TraceId::from(trace.0), SpanId::from(span.0), flags, is_remote, state)
}

/// The span as the SDK's exporters take it.
fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let mut events = SpanEvents::default();
    events.dropped_count = over(span.events.len());
    events.events = span
        .events
        .into_iter()
        .take(MAX_PER_SPAN)
        .map(|e| OtelEvent::new(e.name, at(e.at_ns), key_values(e.attrs), 0))
        .collect();
    let mut links = SpanLinks::default();
    links.dropped_count = over(span.links.len());
    links.links = span
        .links
        .into_iter()
        .take(MAX_PER_SPAN)
        .map(|l| OtelLink::new(context(l.trace, l.span, "", true), key_values(l.attrs), 0))
        .collect();
    SpanData {
        span_context: context(span.trace, span.span, &span.tracestate, false),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.0)),
        parent_span_is_remote: span.kind == Kind::Server,
        span_kind: match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name,
        start_time: at(span.start_ns),
        end_time: at(span.end_ns),
        dropped_attributes_count: over(span.attrs.len()),
        attributes: key_values(span.attrs),
        events,
        links,
        status: match span.status {
            Status::Unset => OtelStatus::Unset,
            Status::Error(description) => OtelStatus::Error { description },
        },
        instrumentation_scope: scope.clone(),
    }
}

#[cfg(test)]
#[path = "export/tests.rs"]
mod tests;
