//! The error codes that ZooKeeper clients know. Source: `KeeperException.java`.

macro_rules! error_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum ErrorCode { $($(#[$meta])* $name = $code),* }

        impl ErrorCode {
            /// Every code, most general first.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code for a number from the wire; `None` for 0 (OK) and numbers that no version uses.
            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The constant's name in `KeeperException.Code`, without underscores: `NONODE`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

error_codes! {
    /// The server failed; the range marker of system errors.
    SystemError = -1, "SYSTEMERROR";
    /// In a failed multi: an operation behind the one that failed.
    RuntimeInconsistency = -2, "RUNTIMEINCONSISTENCY";
    /// The data is not what it must be.
    DataInconsistency = -3, "DATAINCONSISTENCY";
    /// Client side: the connection was lost with the request unanswered.
    ConnectionLoss = -4, "CONNECTIONLOSS";
    /// The request could not be decoded.
    MarshallingError = -5, "MARSHALLINGERROR";
    /// The operation is unknown or switched off.
    Unimplemented = -6, "UNIMPLEMENTED";
    /// Client side: no answer in time.
    OperationTimeout = -7, "OPERATIONTIMEOUT";
    /// A bad path, flag, TTL or reconfiguration.
    BadArguments = -8, "BADARGUMENTS";
    /// Internal: the session is not known here.
    UnknownSession = -12, "UNKNOWNSESSION";
    /// Reconfig: no synced quorum of the new configuration.
    NewConfigNoQuorum = -13, "NEWCONFIGNOQUORUM";
    /// Reconfig: another one is under way.
    ReconfigInProgress = -14, "RECONFIGINPROGRESS";
    /// The range marker of errors that a caller can provoke.
    ApiError = -100, "APIERROR";
    /// The znode does not exist.
    NoNode = -101, "NONODE";
    /// The ACL forbids it.
    NoAuth = -102, "NOAUTH";
    /// The expected version is not the current one.
    BadVersion = -103, "BADVERSION";
    /// Ephemeral znodes have no children.
    NoChildrenForEphemerals = -108, "NOCHILDRENFOREPHEMERALS";
    /// The znode exists.
    NodeExists = -110, "NODEEXISTS";
    /// The znode has children.
    NotEmpty = -111, "NOTEMPTY";
    /// The session is over.
    SessionExpired = -112, "SESSIONEXPIRED";
    /// Client side: a callback that is none.
    InvalidCallback = -113, "INVALIDCALLBACK";
    /// The ACL list is not valid.
    InvalidAcl = -114, "INVALIDACL";
    /// Authentication failed; the connection is closed.
    AuthFailed = -115, "AUTHFAILED";
    /// The session moved to another server; the connection is closed.
    SessionMoved = -118, "SESSIONMOVED";
    /// A write was sent to a read-only server.
    NotReadOnly = -119, "NOTREADONLY";
    /// An ephemeral on a local session.
    EphemeralOnLocalSession = -120, "EPHEMERALONLOCALSESSION";
    /// No such watch on this connection.
    NoWatcher = -121, "NOWATCHER";
    /// Client side: the request timed out (since 3.5.5).
    RequestTimeout = -122, "REQUESTTIMEOUT";
    /// Reconfiguration is switched off.
    ReconfigDisabled = -123, "RECONFIGDISABLED";
    /// This server demands SASL first; the connection is closed.
    SessionClosedRequireSaslAuth = -124, "SESSIONCLOSEDREQUIRESASLAUTH";
    /// A hard quota would be exceeded (since 3.7).
    QuotaExceeded = -125, "QUOTAEXCEEDED";
    /// The request waited too long in a throttled server (since 3.7).
    ThrottledOp = -127, "THROTTLEDOP";
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

impl std::error::Error for ErrorCode {}
