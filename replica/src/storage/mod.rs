//! Log files and snapshots, in Apache's formats, over a narrow [`disk::Disk`].

pub mod disk;
pub mod log;
pub mod recovery;
pub mod snapshot;
