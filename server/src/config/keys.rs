//! The keys of our own, in one table; everything else in `zoo.cfg` is Apache's, documented there.

/// One key of `zoo.cfg` and what it does.
#[derive(Debug, Clone, Copy)]
pub struct KeyDoc {
    /// As it stands in the file.
    pub name: &'static str,
    /// What the value must be.
    pub expected: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
}

/// Every key under `zoometry.`. An unknown one under this prefix gives a warning: it is a slip of the pen.
pub const OWN_KEYS: &[KeyDoc] = &[
    KeyDoc {
        name: "zoometry.workerThreads",
        expected: "a number from 1 to 1024",
        default: "one per core",
        help: "Threads that serve connections; the disk and the snapshot writer have threads of their own.",
    },
    KeyDoc {
        name: "zoometry.traceFile",
        expected: "a path",
        default: "none",
        help: "Kept traces are appended to this file as OTLP/JSON, one line per batch.",
    },
    KeyDoc {
        name: "zoometry.traceSample",
        expected: "a number from 0 to 1",
        default: "0.001",
        help: "Share of requests traced, chosen by their identity: every member and the load generator pick the same ones. Without an OTLP endpoint and zoometry.traceFile nothing is traced.",
    },
    KeyDoc {
        name: "zoometry.traceSlowMs",
        expected: "milliseconds, 0 for off",
        default: "0",
        help: "A request that took longer is kept as a trace even if it was not sampled.",
    },
    KeyDoc {
        name: "zoometry.traceSlowest",
        expected: "a number from 0 to 1000",
        default: "0",
        help: "The slowest requests of every second are kept as traces: so many.",
    },
    KeyDoc {
        name: "zoometry.traceParent",
        expected: "true or false",
        default: "false",
        help: "Clients trace too (the load generator does): this member's spans name the client's as their parent.",
    },
    KeyDoc {
        name: "zoometry.traceSalt",
        expected: "a number",
        default: "0",
        help: "Tells the traces of ensembles apart that share one tracing backend; the same on every member.",
    },
    KeyDoc {
        name: "zoometry.serviceName",
        expected: "a name",
        default: "zookeeper-<server id>",
        help: "service.name of this member's spans: its row and colour in Jaeger.",
    },
    KeyDoc {
        name: "zoometry.metricsPort",
        expected: "a port",
        default: "none",
        help: "Serves Prometheus metrics at this port, as metricsProvider.className with metricsProvider.httpPort does.",
    },
    KeyDoc {
        name: "zoometry.maxOutboxBytes",
        expected: "bytes, at least 65536",
        default: "16777216",
        help: "A connection whose unread replies and watch events pass this is closed.",
    },
    KeyDoc {
        name: "zoometry.maxReplyBytes",
        expected: "bytes, 1048576 to 1073741824",
        default: "67108864",
        help: "A read whose reply would be longer (getChildren of more than a million children) is refused with MARSHALLINGERROR. Apache's server sends it, and its clients close the connection at their own jute.maxbuffer.",
    },
    KeyDoc {
        name: "zoometry.maxUnsentBytes",
        expected: "bytes, at least 1048576",
        default: "536870912",
        help: "What all client connections together may hold of unread replies and watch events and of unanswered requests. From half of it on, connections that hold more than 64 KiB are not read; beyond it, long replies are refused with THROTTLEDOP, and a connection that holds more than its equal share is closed.",
    },
    KeyDoc {
        name: "zoometry.maxPipelined",
        expected: "a number from 1 to 1000000",
        default: "1000",
        help: "Requests of one connection in process before the server stops reading from it.",
    },
    KeyDoc {
        name: "zoometry.leaderSilenceMs",
        expected: "ms, 50 to 600000",
        default: "tickTime x syncLimit",
        help: "How long a leader may be silent before its followers look for another, and a follower before its leader gives it up. Leaders with this key ping five times as often. Give all members the same value; with an Apache leader, which pings every half tick, stay above tickTime. A value of 1000 finds a stopped or cut-off leader in a second and forgives pauses of one.",
    },
    KeyDoc {
        name: "zoometry.acceptDamagedLog",
        expected: "true or false",
        default: "false",
        help: "Starts on a directory whose log has a hole, without the transactions that are missing, for which a server alone does not start and a member waits for its leader's whole state. Acknowledged writes are lost then: set it for one start, where there is no backup and no whole member.",
    },
    KeyDoc {
        name: "zoometry.syncDelayFile",
        expected: "a path",
        default: "none",
        help: "For experiments: every sync of the log takes as many milliseconds longer as stand in this file at that moment; while it is not there, none. The load generator's slow-disk faults use it.",
    },
    KeyDoc {
        name: "zoometry.log",
        expected: "a filter such as info or zoometry_server=debug",
        default: "info",
        help: "What the server writes to standard error; the environment variable RUST_LOG goes before it.",
    },
];
