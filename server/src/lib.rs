//! A complete ZooKeeper member: the body around `zoometry-replica`.

pub mod config;
pub mod disk;
pub mod disk_thread;
pub mod metrics;
pub mod snapshot_thread;
pub mod stats;
pub mod words;
