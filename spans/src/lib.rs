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
//!
//! The request path never builds a span. It carries clock readings; somebody off the path makes
//! [`Span`]s of them, for the few requests that are kept.

pub mod attrs;
pub mod clock;
pub mod identity;
pub mod resource;
pub mod span;

pub use clock::Clock;
pub use identity::{Domain, Identity, Role, SampleRate, SpanId, TraceId};
pub use resource::Resource;
pub use span::{Attr, Event, KeptBy, Kind, Link, Span, Status, Value, attr};
