//! Load generator and analyst for ZooKeeper-protocol coordination services.

pub mod arrivals;
pub mod charts;
pub mod closeup;
pub mod cluster;
pub mod compare;
pub mod draw;
pub mod driver;
pub mod expect;
pub mod failover;
pub mod faults;
pub mod figures;
pub mod keys;
pub mod op;
pub mod plan;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod results;
pub mod run;
pub mod scrape;
pub mod session;
pub mod signals;
pub mod spec;
pub mod summary;
pub mod traces;
pub mod verdict;
