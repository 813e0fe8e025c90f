//! Four-letter words: commands in the first four bytes of a client connection, answered as text, then closed.
//!
//! Texts are Apache's, field by field (compared with a running 3.8.0; see the tests). Rules, from the
//! reference's §11.1: the whitelist is asked first; a word that is not in [`Word::ALL`] is no command at all,
//! its bytes are a frame's length; while the member does not serve, most words are answered with one fixed
//! sentence.
//!
//! What differs on purpose: of `java.*`, `envi` has `java.version` alone, which tools ask for, and says what it is; where Apache lists things in a hash table's order,
//! here they are sorted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::config::{Config, Endpoint, Ensemble, MemberRole};
use crate::metrics::{self, process};
use crate::stats::{Collected, ConnView, ServerStats, op_word};
use crate::view::{Facts, Inspect, Listing, Mode};
use zoometry_wire::SessionId;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A four-letter word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Word { $($(#[$doc])* $name),* }

        impl Word {
            /// Every one.
            pub const ALL: &[Word] = &[$(Word::$name),*];

            /// The word.
            pub fn name(self) -> &'static str {
                match self { $(Word::$name => $text),* }
            }
        }
    };
}

words! {
    /// Are you okay?
    Ruok = "ruok",
    /// Statistics in a few lines.
    Srvr = "srvr",
    /// The same with one line per connection.
    Stat = "stat",
    /// Every metric.
    Mntr = "mntr",
    /// The configuration.
    Conf = "conf",
    /// Connections in detail.
    Cons = "cons",
    /// Sessions and ephemerals.
    Dump = "dump",
    /// Watches: summary.
    Wchs = "wchs",
    /// Watches by connection.
    Wchc = "wchc",
    /// Watches by path.
    Wchp = "wchp",
    /// The environment.
    Envi = "envi",
    /// Is it read-only?
    Isro = "isro",
    /// Reset the server's statistics.
    Srst = "srst",
    /// Reset the connections' statistics.
    Crst = "crst",
    /// Sizes on disk.
    Dirs = "dirs",
    /// Tree digests.
    Hash = "hash",
    /// Get the trace mask.
    Gtmk = "gtmk",
    /// Set the trace mask; eight bytes follow.
    Stmk = "stmk",
}

impl Word {
    /// The word that a connection's first four bytes spell, if they do.
    pub fn recognise(first: [u8; 4]) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.name().as_bytes() == first)
    }

    /// Bytes that follow the word as its argument, big-endian.
    pub fn argument_len(self) -> usize {
        if self == Self::Stmk { 8 } else { 0 }
    }

    /// Whether it is answered while the member does not serve.
    fn needs_serving(self) -> bool {
        !matches!(self, Self::Ruok | Self::Envi | Self::Gtmk | Self::Stmk | Self::Isro)
    }
}

/// Answered by most words while the member does not serve.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// `Zookeeper version:` without those words: the Apache release whose behaviour this is, then our own.
/// Clients take the first three numbers for the server's version.
pub fn version() -> String {
    format!("3.9.5-zoometry-{}, built on {}", env!("CARGO_PKG_VERSION"), BUILT)
}

/// When this version was made. Fixed per version, so that equal sources give equal binaries.
const BUILT: &str = "2026-11-22 00:00 UTC";

/// What a word's answer is made of.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The statistics; `srst` and `stmk` change them.
    pub stats: &'a ServerStats,
    /// The member; `crst` resets its connections.
    pub member: &'a dyn Inspect,
}

/// What is answered to a word that the configuration does not allow, whatever follows it.
pub fn refusal(word: Word, config: &Config) -> Option<String> {
    let name = word.name();
    let allowed = config.words.allows(name);
    (!allowed).then(|| format!("{name} is not executed because it is not in the whitelist.\n"))
}

/// The whole answer to a word that is allowed; afterwards the connection is closed. `argument` is what
/// [`Word::argument_len`] asked for, 0 otherwise.
pub fn answer(word: Word, argument: i64, context: Context<'_>) -> String {
    let Context { config, stats, member } = context;
    let facts = member.facts();
    if word.needs_serving() && facts.is_none() {
        return format!("{NOT_SERVING}\n");
    }
    match (word, facts) {
        (Word::Ruok, _) => "imok".into(),
        (Word::Envi, _) => environment(),
        (Word::Gtmk, _) => stats.trace_mask().to_string(),
        (Word::Stmk, _) => {
            stats.set_trace_mask(argument);
            argument.to_string()
        }
        (Word::Isro, facts) => match facts.map(|facts| facts.mode) {
            None => "null".into(),
            Some(Mode::ReadOnly) => "ro".into(),
            Some(_) => "rw".into(),
        },
        (_, None) => format!("{NOT_SERVING}\n"),
        (Word::Srvr, Some(facts)) => status(&facts, &stats.collect(), None),
        (Word::Stat, Some(facts)) => status(&facts, &stats.collect(), Some(&member.connections())),
        (Word::Mntr, Some(facts)) => metrics::mntr(&facts, &stats.collect()),
        (Word::Conf, Some(_)) => configuration(config, directory_sizes(config)),
        (Word::Cons, Some(_)) => connections(&member.connections()),
        (Word::Dump, Some(facts)) => dump(&facts, member),
        (Word::Wchs, Some(facts)) => watch_summary(&facts),
        (Word::Wchc, Some(_)) => watches_by_session(&member.watches_by_path()),
        (Word::Wchp, Some(_)) => watches_by_path(&member.watches_by_path()),
        (Word::Srst, Some(_)) => {
            stats.reset();
            "Server stats reset.\n".into()
        }
        (Word::Crst, Some(_)) => {
            member.reset_connections();
            "Connection stats reset.\n".into()
        }
        (Word::Dirs, Some(_)) => {
            let (data, log) = directory_sizes(config);
            format!("datadir_size: {data}\nlogdir_size: {log}\n")
        }
        (Word::Hash, Some(_)) => {
            let mut text = String::new();
            for (zxid, digest) in member.digests() {
                let _ = writeln!(text, "{:x}: {}", zxid.0, digest as i64);
            }
            text
        }
    }
}

/// A decimal as Java prints it, rounded to four places: `0.0`, `4.25`, `3.3333`.
pub fn decimal(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    format!("{rounded:?}")
}

/// `srvr`, and `stat` when the connections are given.
fn status(facts: &Facts, collected: &Collected, connections: Option<&[ConnView]>) -> String {
    let mut text = format!("Zookeeper version: {}\n", version());
    if facts.mode == Mode::ReadOnly {
        text.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    if let Some(connections) = connections {
        text.push_str("Clients:\n");
        for connection in connections {
            connection_line(&mut text, connection, Lines::Brief);
        }
        text.push('\n');
    }
    let latency = &collected.latency;
    let _ = writeln!(
        text,
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\nZxid: {}\n\
         Mode: {}\nNode count: {}",
        latency.min_ms(),
        decimal(latency.avg_ms()),
        latency.max_ms(),
        collected.packets_received,
        collected.packets_sent,
        collected.connections,
        collected.outstanding,
        facts.last_zxid,
        facts.mode.name(),
        facts.node_count,
    );
    if let Some(leader) = facts.ensemble.as_ref().and_then(|ensemble| ensemble.leader.as_ref()) {
        let _ = writeln!(
            text,
            "Proposal sizes last/min/max: {}/{}/{}",
            leader.last_proposal_size, leader.min_proposal_size, leader.max_proposal_size
        );
    }
    text
}

/// How much of a connection a line shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Brief,
    Full,
}

fn connection_line(text: &mut String, connection: &ConnView, lines: Lines) {
    let ConnView { remote, interest_ops, queued, received, sent, session, .. } = connection;
    let _ = write!(text, " /{remote}[{interest_ops:x}](queued={queued},recved={received},sent={sent}");
    if let (Lines::Full, Some(session)) = (lines, session) {
        let op = session.last_op.map_or("NA", op_word);
        let _ = write!(
            text,
            ",sid={},lop={op},est={},to={}",
            session.id, session.established_ms, session.timeout_ms
        );
        if let Some(cxid) = session.last_cxid {
            let _ = write!(text, ",lcxid=0x{cxid:x}");
        }
        let _ = write!(
            text,
            ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={}",
            session.last_zxid,
            session.last_response_ms,
            session.last_latency_ms,
            session.min_latency_ms,
            session.avg_latency_ms,
            session.max_latency_ms
        );
    }
    text.push_str(")\n");
}

fn connections(connections: &[ConnView]) -> String {
    let mut text = String::new();
    for connection in connections {
        connection_line(&mut text, connection, Lines::Full);
    }
    text.push('\n');
    text
}

fn dump(facts: &Facts, member: &dyn Inspect) -> String {
    let mut all = member.sessions();
    all.listed.sort_by_key(|session| (session.expires_ms, session.id));
    let sessions = &all.listed;
    let mut text = "SessionTracker dump:\n".to_string();
    if matches!(facts.mode, Mode::Standalone | Mode::Leader) {
        let sets: Vec<_> = sessions.chunk_by(|one, next| one.expires_ms == next.expires_ms).collect();
        let _ = writeln!(text, "Session Sets ({})/({}):", sets.len(), sessions.len());
        for set in sets {
            let _ = writeln!(text, "{} expire at {}:", set.len(), java_date(set[0].expires_ms));
            for session in set {
                let _ = writeln!(text, "\t{}", session.id);
            }
        }
    } else {
        // Expiry is the leader's business: a learner knows the timeouts only.
        let _ = writeln!(text, "Global Sessions({}):", sessions.len());
        for session in sessions {
            let _ = writeln!(text, "{}\t{}ms", session.id, session.timeout_ms);
        }
    }
    text += &all.note();
    let ephemerals = member.ephemerals();
    let _ = writeln!(text, "ephemeral nodes dump:\nSessions with Ephemerals ({}):", ephemerals.listed.len());
    for (id, paths) in &ephemerals.listed {
        let _ = writeln!(text, "{id}:");
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    text += &ephemerals.note();
    text.push_str("Connections dump:\n");
    connection_sets(&mut text, &member.connections());
    text
}

/// Connections by the time at which a silent one is closed, in Apache's buckets of ten seconds.
fn connection_sets(text: &mut String, connections: &[ConnView]) {
    const BUCKET_MS: i64 = 10_000;
    let mut sets: BTreeMap<i64, Vec<&ConnView>> = BTreeMap::new();
    for connection in connections {
        let due_ms = connection.closes_if_silent_ms;
        sets.entry((due_ms / BUCKET_MS + 1) * BUCKET_MS).or_default().push(connection);
    }
    let _ = writeln!(text, "Connections Sets ({})/({}):", sets.len(), connections.len());
    for (due_ms, connections) in sets {
        let _ = writeln!(text, "{} expire at {}:", connections.len(), java_date(due_ms));
        for connection in connections {
            let id = connection.session.as_ref().map_or(SessionId(0), |session| session.id);
            let _ = writeln!(text, "\tip: /{} sessionId: {id}", connection.remote);
        }
    }
}

fn watch_summary(facts: &Facts) -> String {
    let watches = &facts.watches;
    format!(
        "{} connections watching {} paths\nTotal watches:{}\n",
        watches.connections, watches.paths, watches.data
    )
}

fn watches_by_session(by_path: &Listing<BTreeMap<String, Vec<SessionId>>>) -> String {
    let mut by_session: BTreeMap<SessionId, Vec<&str>> = BTreeMap::new();
    for (path, sessions) in &by_path.listed {
        for session in sessions {
            by_session.entry(*session).or_default().push(path);
        }
    }
    let mut text = String::new();
    for (session, paths) in by_session {
        let _ = writeln!(text, "{session}");
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    text += &by_path.note();
    text.push('\n');
    text
}

fn watches_by_path(by_path: &Listing<BTreeMap<String, Vec<SessionId>>>) -> String {
    let mut text = String::new();
    for (path, sessions) in &by_path.listed {
        let _ = writeln!(text, "{path}");
        for session in sessions {
            let _ = writeln!(text, "\t{session}");
        }
    }
    text += &by_path.note();
    text.push('\n');
    text
}

/// Bytes of the files under the snapshot and the log directory.
pub(crate) fn directory_sizes(config: &Config) -> (u64, u64) {
    (directory_bytes(&config.snapshot_dir()), directory_bytes(&config.log_dir()))
}

/// The lengths of the directory's files. A file that goes away meanwhile counts nothing.
fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|data| data.is_file())
        .map(|data| data.len())
        .sum()
}

fn configuration(config: &Config, (data_bytes, log_bytes): (u64, u64)) -> String {
    let port =
        |endpoint: &Option<Endpoint>| endpoint.as_ref().map_or(-1, |endpoint| i32::from(endpoint.port));
    let server_id = match &config.ensemble {
        Ensemble::Standalone { .. } => 0,
        Ensemble::Member(membership) => membership.my_id,
    };
    let mut text = format!(
        "clientPort={}\nsecureClientPort={}\ndataDir={}\ndataDirSize={data_bytes}\ndataLogDir={}\n\
         dataLogSize={log_bytes}\ntickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\n\
         clientPortListenBacklog={}\nserverId={server_id}\n",
        port(&config.client.listen),
        port(&config.client.secure_listen),
        config.snapshot_dir().display(),
        config.log_dir().display(),
        config.tick_time_ms,
        config.client.max_per_ip.unwrap_or(0),
        config.sessions.min_timeout_ms,
        config.sessions.max_timeout_ms,
        config.client.backlog.map_or(-1, i64::from),
    );
    if let Ensemble::Member(membership) = &config.ensemble {
        let me = membership.me();
        let address = &me.addresses[0];
        let peer_type = i32::from(me.role == MemberRole::Observer);
        let _ = write!(
            text,
            "initLimit={}\nsyncLimit={}\nelectionAlg=3\nelectionPort={}\nquorumPort={}\npeerType={peer_type}\n\
             membership: \n",
            membership.init_limit, membership.sync_limit, address.election_port, address.quorum_port,
        );
        for member in membership.members.values() {
            let _ = writeln!(text, "server.{}={member}", member.id);
        }
        let _ = write!(text, "version={:x}", membership.version);
    }
    text
}

/// `envi`: the lines that have a meaning without Java, under Apache's names.
fn environment() -> String {
    let mut text = "Environment:\n".to_string();
    for (key, value) in environment_entries() {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// Key and value of each line of `envi`, in order.
pub(crate) fn environment_entries() -> Vec<(&'static str, String)> {
    let read =
        |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let memory = process::memory();
    let megabytes = |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| format!("{}MB", bytes >> 20));
    vec![
        ("zookeeper.version", version()),
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("java.version", format!("none (zoometry-server {})", env!("CARGO_PKG_VERSION"))),
        ("os.name", std::env::consts::OS.to_string()),
        ("os.arch", std::env::consts::ARCH.to_string()),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("user.name", process::user_name().unwrap_or_default()),
        ("user.home", variable("HOME")),
        ("user.dir", std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default()),
        ("os.memory.free", megabytes(memory.available)),
        ("os.memory.max", megabytes(memory.total)),
        ("os.memory.total", megabytes(memory.resident)),
    ]
}

/// A date as `java.util.Date` prints it, in UTC: `Sun Nov 22 13:56:06 UTC 2026`.
pub(crate) fn java_date(unix_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ms.div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: the leap day is then the last day of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        time / 3600,
        time / 60 % 60,
        time % 60,
    )
}

#[cfg(test)]
pub(crate) mod tests;
