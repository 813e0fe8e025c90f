//! A complete ZooKeeper member: the body around `zoometry-replica`.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`config`] | the command line and zoo.cfg |
//! | [`member`] | one member's life: recover, serve, stop |
//! | [`clients`], [`handshake`], [`conn`] | taking clients in, opening sessions, moving requests and replies |
//! | [`node`] | the thread that turns writes into transactions and transactions into state |
//! | [`disk`], [`disk_thread`], [`snapshot_thread`] | files, the log's one queue, snapshots |
//! | [`dump`] | a stopped member's data directory as text |
//! | [`stats`], [`view`], [`status`] | what is counted, and what may be asked of the member |
//! | [`words`], [`metrics`], [`admin`], [`http`] | what operators see |
//! | [`descriptors`], [`seldom`] | how many clients there may be, and how often the log says so |
//! | [`telemetry`] | which requests are traced, and their spans |

pub mod admin;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod conn;
pub mod descriptors;
pub mod disk;
pub mod disk_thread;
pub mod dump;
pub mod handshake;
pub mod http;
pub mod listen;
pub mod member;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod seldom;
pub mod shared;
pub mod snapshot_thread;
pub mod stats;
pub mod status;
pub mod telemetry;
pub mod view;
pub mod words;
