//! Every metric in one table ([`TABLE`]), and its two readers: the Prometheus text endpoint and `mntr`.
//!
//! Names are Apache's where Apache has the thing; in Prometheus they stand bare, as its provider has them
//! (`znode_count`), in `mntr` behind `zk_`. What only we have is `zk_…` in Prometheus too, with Prometheus'
//! own conventions (base units, `_total`).
//!
//! **Nothing is invented.** A metric of Apache's that has no counterpart here (Netty's buffers, JVM pauses,
//! the commit processor's queues) is absent, not 0. What only a member of an ensemble can have is absent on
//! a standalone server, and a leader's gauges on a follower. A counter that this program does count is there
//! from the start, at 0, as Prometheus wants it.
//!
//! Apache measures in whole milliseconds. `mntr` keeps those for its least, greatest and percentile lines;
//! the Prometheus endpoint gives the same names with their fraction.

mod expose;
pub(crate) mod process;
mod table;

pub use expose::{ProcessInfo, mntr, prometheus, serve};
pub use table::{Kind, Metric, Scope, TABLE, Unit};

#[cfg(test)]
mod tests;
