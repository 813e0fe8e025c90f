//! What a ZooKeeper is: the tree and its rules.

pub mod acl;
pub mod digest;
pub mod prep;
pub mod quota;
pub mod session;
pub mod tree;
pub mod watch;
