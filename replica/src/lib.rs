//! One ZooKeeper ensemble member's thinking, with no I/O, clock or threads of its own.

pub mod deliberate;
pub mod member;
pub mod pipeline;
pub mod storage;
pub mod store;
pub mod zab;
