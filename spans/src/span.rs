//! Spans as plain values, before they become anybody's format.
//!
//! A span is built off the hot path, from clock readings that the hot path left behind, and only for traces
//! that are kept. Invariant of every tree built from these: a parent contains its children; whoever may end
//! after its would-be parent is linked, not parented. Names, kinds and attributes follow OpenTelemetry's
//! semantic conventions 1.44 where those have a word for it, and the namespace `zookeeper.` where not.

use crate::identity::{SpanId, TraceId};
use std::borrow::Cow;

/// Most attributes, events or links that one span may carry; more are cut off and counted in the format's
/// own `dropped…Count` fields. OpenTelemetry's default.
pub const MAX_PER_SPAN: usize = 128;

/// W3C's trace flag "random": the low 56 bits of the trace id are fit for sampling.
pub(crate) const FLAG_RANDOM: u8 = 2;

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Str(Cow<'static, str>),
    /// A number.
    Int(i64),
    /// A fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Str(Cow::Borrowed(text))
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Str(Cow::Owned(text))
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Value::Float(x)
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Attr {
    /// One of [`crate::attrs`], or a standard name.
    pub key: Cow<'static, str>,
    /// Its value.
    pub value: Value,
}

/// An attribute in one word.
pub fn attr(key: &'static str, value: impl Into<Value>) -> Attr {
    Attr { key: Cow::Borrowed(key), value: value.into() }
}

/// Which side of an exchange a span is. The numbers are OTLP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Work inside one process.
    Internal = 1,
    /// Answers somebody.
    Server = 2,
    /// Asks somebody and waits.
    Client = 3,
    /// Causes work that it does not wait for.
    Producer = 4,
    /// Such work.
    Consumer = 5,
}

/// How it went. A refusal that the protocol foresees (NONODE, BADVERSION) is a result, not a fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// Nothing to say; the usual one.
    #[default]
    Unset,
    /// A fault, and which.
    Error(Cow<'static, str>),
}

/// A moment within a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub name: Cow<'static, str>,
    /// When, nanoseconds since 1970.
    pub at_ns: u64,
    /// Details.
    pub attrs: Vec<Attr>,
}

/// Another span that this one has to do with, without being its child.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Details.
    pub attrs: Vec<Attr>,
}

/// Why a trace is kept. Written to the root spans as `zookeeper.trace.kept_by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeptBy {
    /// Sampled by its id.
    Head,
    /// Among the slowest, or slower than a threshold.
    Slow,
    /// It failed in a way that it should not.
    Error,
}

impl KeptBy {
    /// The attribute's value.
    pub fn name(self) -> &'static str {
        match self {
            KeptBy::Head => "head",
            KeptBy::Slow => "slow",
            KeptBy::Error => "error",
        }
    }
}

/// One span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its id, unique within the trace.
    pub span: SpanId,
    /// The span that contains it; `None` for a root.
    pub parent: Option<SpanId>,
    /// Low cardinality: `setData`, `log sync`.
    pub name: Cow<'static, str>,
    /// Its side.
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970; not before `start_ns`.
    pub end_ns: u64,
    /// Details.
    pub attrs: Vec<Attr>,
    /// Moments.
    pub events: Vec<Event>,
    /// Relations.
    pub links: Vec<Link>,
    /// How it went.
    pub status: Status,
    /// W3C tracestate: [`SampleRate::tracestate`](crate::identity::SampleRate::tracestate) for head-sampled
    /// traces, empty for others.
    pub tracestate: String,
}

impl Span {
    /// A root of this kind; fields are filled in from there.
    pub fn new(
        trace: TraceId,
        span: SpanId,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        start_ns: u64,
        end_ns: u64,
    ) -> Self {
        Self {
            trace,
            span,
            parent: None,
            name: name.into(),
            kind,
            start_ns,
            end_ns: end_ns.max(start_ns),
            attrs: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
            tracestate: String::new(),
        }
    }

    /// The same, inside of `parent`.
    pub fn child_of(mut self, parent: SpanId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// The same, with an attribute more.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attrs.push(attr(key, value));
        self
    }
}
