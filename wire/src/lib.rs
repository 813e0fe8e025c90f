//! What ZooKeeper puts on the wire and on the disk, as values.
//!
//! Floor 0 of the house: bytes ⇄ records, and nothing else. No sockets, no sessions, no time.
//!
//! | module | holds |
//! |---|---|
//! | [`jute`] | ZooKeeper's encoding: [`Record`], [`Reader`], the one decode error [`Malformed`] |
//! | [`frame`] | the length prefix around every client message |
//! | [`records`] | the small records everything is made of: [`Stat`], [`Acl`], headers, connect |
//! | [`op`] | operation codes |
//! | [`request`], [`response`] | what a client asks and what it is answered, body by body |
//! | [`txn`] | transactions as they stand in logs and proposals |
//! | [`peer`] | what members say to each other: votes and quorum packets |
//! | [`error`] | the error codes that clients know |
//! | [`path`] | which strings are znode paths |
//!
//! Invariants, tested in `tests/`: decoding never panics, whatever the bytes; it never allocates more than
//! the input holds; decode ∘ encode is the identity; and the bytes are those of a real Apache ZooKeeper
//! (golden frames). The source of every layout is Apache's `zookeeper.jute` and the classes it names.

pub mod error;
pub mod frame;
pub mod jute;
pub mod op;
pub mod path;
pub mod peer;
pub mod records;
pub mod request;
pub mod response;
pub mod txn;

pub use error::ErrorCode;
pub use jute::{Malformed, Reader, Record};
pub use op::OpCode;
pub use records::{Acl, Id, SessionId, Stat, StatPersisted, Zxid};
pub use request::Request;
pub use response::{MultiResult, Response};
pub use txn::{Txn, TxnHeader, TxnRecord};
