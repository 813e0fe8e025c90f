//! The kinds of operation that a workload can ask for, and how each can end.

use serde::{Deserialize, Serialize};
use zoometry_wire::ErrorCode;

/// A kind of operation, as the `mix` of a workload names it and as results are keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// getData.
    Get,
    /// exists.
    Exists,
    /// getChildren2.
    Children,
    /// setData.
    Set,
    /// create of a persistent znode under the run's own scratch directory.
    Create,
    /// create of an ephemeral znode.
    CreateEphemeral,
    /// create of a sequential znode.
    CreateSequential,
    /// delete of a znode that the run created.
    Delete,
    /// multi: check and setData.
    Multi,
    /// sync.
    Sync,
    /// Opening (or re-attaching) a session.
    Connect,
    /// A watch event's way from the write that caused it to a watcher.
    Notify,
}

impl Op {
    /// Every kind.
    pub const ALL: [Op; 12] = [
        Op::Get,
        Op::Exists,
        Op::Children,
        Op::Set,
        Op::Create,
        Op::CreateEphemeral,
        Op::CreateSequential,
        Op::Delete,
        Op::Multi,
        Op::Sync,
        Op::Connect,
        Op::Notify,
    ];

    /// The name in workloads and results.
    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Exists => "exists",
            Op::Children => "children",
            Op::Set => "set",
            Op::Create => "create",
            Op::CreateEphemeral => "create-ephemeral",
            Op::CreateSequential => "create-sequential",
            Op::Delete => "delete",
            Op::Multi => "multi",
            Op::Sync => "sync",
            Op::Connect => "connect",
            Op::Notify => "notify",
        }
    }

    /// Whether it is about a znode that the load makes itself, below the session's own place.
    pub fn is_scratch(self) -> bool {
        use Op::*;
        matches!(self, Create | CreateEphemeral | CreateSequential | Delete)
    }

    /// Whether the cluster must log it: it goes through the leader.
    pub fn is_write(self) -> bool {
        use Op::*;
        matches!(self, Set | Create | CreateEphemeral | CreateSequential | Delete | Multi)
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How an operation ended. Errors are outcomes with histograms of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered as asked.
    Ok,
    /// Answered with an error, or lost: `ConnectionLoss` when the connection broke with the answer
    /// outstanding (the outcome is unknown), `RequestTimeout` when the run ended without one.
    Error(ErrorCode),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Ok => f.pad("ok"),
            Outcome::Error(code) => f.pad(code.name()),
        }
    }
}
