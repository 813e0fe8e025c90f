//! What can go wrong with a member's files. Every message names the file, the place in it, and what to do.

use std::io;
use zoometry_wire::Zxid;

/// Storage cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk refused.
    #[error("cannot {doing} {file}: {source}{}", advice(source))]
    Io {
        /// What was tried: "write", "sync", "open".
        doing: &'static str,
        /// The file's full name.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A log record whose end is intact is not what was written.
    #[error(
        "{file} is damaged at byte {offset}: {what}; the records behind it cannot be trusted. In an \
         ensemble, move this member's version-2 directories away and let it take a fresh copy from the \
         leader; alone, restore from a backup"
    )]
    CorruptLog {
        /// The file's full name.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A snapshot cannot be read to its end.
    #[error("{file} is damaged at byte {offset}: {what}")]
    CorruptSnapshot {
        /// The file's full name.
        file: String,
        /// Where in the (uncompressed) stream.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A snapshot's items, each readable, do not make a state. Recovery adds file and place
    /// ([`CorruptSnapshot`](Self::CorruptSnapshot)).
    #[error("the items of the snapshot do not fit together: {what}")]
    NotAState {
        /// What is wrong with them.
        what: String,
    },
    /// There are snapshots and none can be read.
    #[error(
        "none of the {tried} snapshots in {dir} can be read; the newest: {newest}. In an ensemble, move this \
         member's version-2 directories away and let it take a fresh copy; alone, restore from a backup"
    )]
    NoReadableSnapshot {
        /// How many were tried.
        tried: usize,
        /// Where.
        dir: String,
        /// Why the newest was refused.
        newest: String,
    },
    /// Logs without any snapshot: they may be the later part of a history whose beginning is gone.
    #[error(
        "{dir} holds log files (the first is {first}) but there is no snapshot to start from; if the logs \
         are known to be complete, start once with zookeeper.snapshot.trust.empty=true"
    )]
    LogsWithoutSnapshot {
        /// The log directory.
        dir: String,
        /// The oldest log file.
        first: String,
    },
    /// A file stands in the directory of the other kind.
    #[error(
        "{file} does not belong there: dataDir keeps snapshots and dataLogDir keeps logs; move it, or check both settings in zoo.cfg"
    )]
    WrongDirectory {
        /// The file's full name.
        file: String,
    },
    /// The epoch files contradict the log or each other.
    #[error("{what}; the data directory mixes files of different members or times, restore it as a whole")]
    Epochs {
        /// The contradiction, with numbers.
        what: String,
    },
    /// An epoch file holds a number that no ensemble comes to.
    #[error(
        "{file} holds {epoch}, expected 0 to {at_most}: the file is damaged, or another member has announced an epoch that \
         cannot be; if the other members hold smaller numbers, move this member's version-2 directories away and start it \
         again, if they hold the same, stop them all, write what currentEpoch holds into acceptedEpoch, and start them"
    )]
    EpochBeyondReason {
        /// The file.
        file: String,
        /// What it holds.
        epoch: i64,
        /// The largest number that is believed.
        at_most: i64,
    },
    /// The log does not hold the transaction it was to be cut behind.
    #[error(
        "cannot truncate the log behind {zxid}: neither a log file nor a snapshot ends there (the logs begin \
         with {first}; {last} is the last before it); nothing was changed"
    )]
    TruncateTarget {
        /// The cut.
        zxid: Zxid,
        /// First transaction there is.
        first: Zxid,
        /// Last transaction found before it.
        last: Zxid,
    },
    /// What would stay could not be started from.
    #[error("cannot truncate the log behind {zxid}: {what}; nothing was changed")]
    TruncateBase {
        /// The cut.
        zxid: Zxid,
        /// What is missing.
        what: String,
    },
    /// The member itself is wrong: transactions must be appended in order.
    #[error("transaction {zxid} was to be logged behind {last}; this is a bug, please report it")]
    OutOfOrder {
        /// The one refused.
        zxid: Zxid,
        /// The last one logged.
        last: Zxid,
    },
}

impl StorageError {
    /// A closure for `map_err` around one call of the disk.
    pub fn io(doing: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { doing, file, source }
    }

    /// Whether it is the answer to a cut of the log that is not possible: nothing was changed, the member is
    /// as it was, and only a whole state from its leader can take the place of its history.
    pub fn refuses_cut(&self) -> bool {
        matches!(self, Self::TruncateTarget { .. } | Self::TruncateBase { .. })
    }

    /// The operating system's error number, if it was its refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// What a person should do about it, where there is one thing to do.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the disk is full: free some space (old logs and snapshots go with autopurge) and start again"
        }
        io::ErrorKind::PermissionDenied => "; check the owner and mode of the directory",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only, often after a disk error: see dmesg"
        }
        _ => "",
    }
}
