//! From request stamps to OpenTelemetry spans.
//!
//! Floor 0 of the house, beside `wire`. Client and servers use it alike; nothing here knows a socket of
//! ZooKeeper's or a result of a run.
//!
//! | module | holds |
//! |---|---|
//! | [`identity`] | which trace a request belongs to and whether it is kept: derived, never sent |
//! | [`clock`] | the one clock that stamps are read from |
//! | [`span`], [`attrs`], [`resource`] | spans as plain values, the names in them, who they come from |
//! | [`export`] | spans to OTLP/HTTP, set by OpenTelemetry's standard variables |
//! | [`json`], [`merge`] | spans to OTLP/JSON files, and all files of a run into one `traces.json` |
//! | [`setup`] | the control plane: the log, and `tracing` spans to OTLP |
//! | `sink` | an OTLP/HTTP receiver for tests (feature `sink`) |
//!
//! The request path never builds a span. It carries clock readings; somebody off the path makes
//! [`Span`]s of them, for the few requests that are kept.

pub mod attrs;
pub mod clock;
pub mod export;
mod http_client;
pub mod identity;
pub mod json;
pub mod merge;
pub mod resource;
pub mod setup;
#[cfg(feature = "sink")]
pub mod sink;
pub mod span;

pub use clock::Clock;
pub use export::{ExportCounts, ExportSettings, Exporter, SetupError};
pub use identity::{Domain, Identity, Role, SampleRate, SpanId, TraceId};
pub use json::SpanFile;
pub use merge::{Merged, merge};
pub use resource::Resource;
pub use setup::{Setup, Telemetry, init_tracing};
pub use span::{Attr, Event, KeptBy, Kind, Link, Span, Status, Value, attr};
