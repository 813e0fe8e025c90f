//! Operation codes. Source: `ZooDefs.OpCode`.

macro_rules! op_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What a request asks for, and what a transaction does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum OpCode { $($(#[$meta])* $name = $code),* }

        impl OpCode {
            /// Every operation.
            pub const ALL: &[OpCode] = &[$(OpCode::$name),*];

            /// The operation with this number, if there is one.
            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The name in ZooKeeper's own words: `getData`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

op_codes! {
    /// A watch event, server to client only.
    Notification = 0, "notification";
    /// Creates a znode; answers with its path.
    Create = 1, "create";
    /// Deletes a znode.
    Delete = 2, "delete";
    /// Reads a Stat; may leave a watch where there is no znode yet.
    Exists = 3, "exists";
    /// Reads data and Stat.
    GetData = 4, "getData";
    /// Writes data.
    SetData = 5, "setData";
    /// Reads the ACL.
    GetAcl = 6, "getACL";
    /// Writes the ACL.
    SetAcl = 7, "setACL";
    /// Reads the children's names.
    GetChildren = 8, "getChildren";
    /// Waits until this server has seen what the leader has proposed.
    Sync = 9, "sync";
    /// Heartbeat.
    Ping = 11, "ping";
    /// Reads the children's names and the Stat.
    GetChildren2 = 12, "getChildren2";
    /// Checks a version, inside a multi only.
    Check = 13, "check";
    /// Several writes, all or none.
    Multi = 14, "multi";
    /// As create; answers with the Stat too.
    Create2 = 15, "create2";
    /// Changes the ensemble.
    Reconfig = 16, "reconfig";
    /// Asks whether a watch is set.
    CheckWatches = 17, "checkWatches";
    /// Removes watches.
    RemoveWatches = 18, "removeWatches";
    /// Creates a container znode.
    CreateContainer = 19, "createContainer";
    /// Deletes an empty container; server-internal.
    DeleteContainer = 20, "deleteContainer";
    /// Creates a znode that expires.
    CreateTtl = 21, "createTTL";
    /// Several reads.
    MultiRead = 22, "multiRead";
    /// Adds an identity to the connection.
    Auth = 100, "auth";
    /// Sets watches again after a reconnect.
    SetWatches = 101, "setWatches";
    /// One step of a SASL exchange.
    Sasl = 102, "sasl";
    /// Lists the session's ephemerals.
    GetEphemerals = 103, "getEphemerals";
    /// Counts all descendants.
    GetAllChildrenNumber = 104, "getAllChildrenNumber";
    /// Sets watches again, persistent ones too.
    SetWatches2 = 105, "setWatches2";
    /// Adds a persistent watch.
    AddWatch = 106, "addWatch";
    /// Lists the connection's identities.
    WhoAmI = 107, "whoAmI";
    /// Opens a session; server-internal.
    CreateSession = -10, "createSession";
    /// Ends the session.
    CloseSession = -11, "closeSession";
    /// A refused write's transaction; never a request.
    Error = -1, "error";
}

impl OpCode {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Whether the operation takes a zxid: it goes through the leader and into the log.
    pub fn is_write(self) -> bool {
        use OpCode::*;
        matches!(
            self,
            Create
                | Delete
                | SetData
                | SetAcl
                | Multi
                | Create2
                | Reconfig
                | CreateContainer
                | DeleteContainer
                | CreateTtl
                | CreateSession
                | CloseSession
                | Check
        )
    }
}

impl std::fmt::Display for OpCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
