//! From entries to a [`Config`]: typed values, defaults, and the checks that span several keys.
//!
//! Order and rules follow Apache's `QuorumPeerConfig.parseProperties`. The first fault found is the one reported.

mod ensemble;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::keys::OWN_KEYS;
use super::properties::{Property, properties};
use super::*;
use zoometry_replica::storage::log::SNAPSHOT_SIZE_FACTOR_DEFAULT;
use zoometry_replica::zab::history::HISTORY_DEFAULT;

/// Apache's name of the class that turns the Prometheus endpoint on.
const PROMETHEUS_PROVIDER: &str = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider";
const DEFAULT_PROVIDER: &str = "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider";
/// `metricsProvider.httpPort`.
const PROMETHEUS_PORT: u16 = 7000;
/// `jute.maxbuffer`, bytes.
const JUTE_MAX_BUFFER: usize = 1_048_575;

type ReadFile<'a> = &'a mut dyn FnMut(&Path) -> std::io::Result<String>;
type Result<T> = std::result::Result<T, ConfigError>;

/// The file's entries by key, each taken once; what nobody takes is `other` in the end.
struct Entries {
    path: PathBuf,
    found: BTreeMap<String, Property>,
    /// Where each key stands, for faults that are found after its value was taken.
    lines: BTreeMap<String, usize>,
    /// Every key that was asked for, in the file or not: what a misspelt one may have meant.
    known: BTreeSet<String>,
    warnings: Vec<String>,
}

impl Entries {
    fn new(text: &str, path: &Path) -> Result<Self> {
        let list = properties(text).map_err(|(line, problem)| ConfigError {
            path: path.to_path_buf(),
            line: Some(line),
            key: None,
            problem,
        })?;
        let mut entries = Self {
            path: path.to_path_buf(),
            found: BTreeMap::new(),
            lines: BTreeMap::new(),
            known: BTreeSet::new(),
            warnings: Vec::new(),
        };
        for Property { line, key, value } in list {
            let key = key.trim();
            let name = key.strip_prefix("zookeeper.").unwrap_or(key).to_string();
            let entry = Property { line, key: key.to_string(), value: value.trim().to_string() };
            entries.lines.insert(name.clone(), line);
            if let Some(old) = entries.found.insert(name, entry) {
                entries.warnings.push(format!(
                    "{}:{line}: {key} is set again (first on line {}); the last one counts",
                    path.display(),
                    old.line
                ));
            }
        }
        Ok(entries)
    }

    fn error(&self, entry: &Property, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            line: Some(entry.line),
            key: Some(entry.key.clone()),
            problem: problem.into(),
        }
    }

    /// A fault of a key that is missing, or whose value was fine until others were looked at.
    fn about(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            line: self.lines.get(key).copied(),
            key: Some(key.into()),
            problem: problem.into(),
        }
    }

    /// The entry, if it is there and not empty.
    fn take(&mut self, key: &str) -> Option<Property> {
        self.known.insert(key.to_string());
        self.found.remove(key).filter(|entry| !entry.value.is_empty())
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.take(key).map(|entry| entry.value)
    }

    fn path_value(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A value that `read` understands; `expected` completes "expected …".
    fn parsed<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(entry) = self.take(key) else { return Ok(None) };
        match read(&entry.value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(
                &entry,
                format!(
                    "{:?} is not valid, expected {expected}; correct the value or remove the line",
                    entry.value
                ),
            )),
        }
    }

    /// A whole number from `min` to `max`.
    fn number<T>(&mut self, key: &str, min: T, max: T) -> Result<Option<T>>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let expected = format!("a whole number from {min} to {max}");
        self.parsed(key, &expected, |text| text.parse().ok().filter(|value| (min..=max).contains(value)))
    }

    fn number_or<T>(&mut self, key: &str, min: T, max: T, default: T) -> Result<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        Ok(self.number(key, min, max)?.unwrap_or(default))
    }

    /// A whole number where one value, or anything up to it, means "off".
    fn number_unless(
        &mut self,
        key: &str,
        off_up_to: i64,
        max: i64,
        default: Option<u64>,
    ) -> Result<Option<u64>> {
        let expected = format!("a whole number up to {max} ({off_up_to} or less is off)");
        let value =
            self.parsed(key, &expected, |text| text.parse::<i64>().ok().filter(|value| *value <= max))?;
        Ok(match value {
            None => default,
            Some(value) => u64::try_from(value).ok().filter(|_| value > off_up_to),
        })
    }

    fn port(&mut self, key: &str) -> Result<Option<u16>> {
        self.parsed(key, "a port from 1 to 65535, or 0 for none", |text| text.parse::<u16>().ok())
    }

    /// `true` or `false`, as Java's `Boolean` but strict: a slip of the pen is told, not taken for `false`.
    fn switch(&mut self, key: &str, default: bool) -> Result<bool> {
        let value = self.parsed(key, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }

    /// Takes every `<prefix><number>` entry.
    fn numbered(&mut self, prefix: &str) -> Result<Vec<(u64, Property)>> {
        let names: Vec<String> = self.found.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        let mut taken = Vec::new();
        for name in names {
            let entry = self.found.remove(&name).expect("listed above");
            match name[prefix.len()..].parse::<u64>() {
                Ok(number) => taken.push((number, entry)),
                Err(_) => {
                    return Err(self.error(
                        &entry,
                        format!("expected {prefix}<number>, for example {prefix}1; correct the key"),
                    ));
                }
            }
        }
        taken.sort_by_key(|(number, _)| *number);
        Ok(taken)
    }
}

/// See [`Config::parse_with`].
pub(super) fn read(text: &str, path: &Path, read_file: ReadFile<'_>) -> Result<Config> {
    let mut entries = Entries::new(text, path)?;
    let tick_time_ms = entries.number_or("tickTime", 1, i32::MAX as u32, 3000)?;
    let data_dir = entries.path_value("dataDir").ok_or_else(|| {
        entries.about(
            "dataDir",
            "is missing, expected a directory for snapshots and logs; add dataDir=<directory>",
        )
    })?;
    let data_log_dir = entries.path_value("dataLogDir").unwrap_or_else(|| data_dir.clone());
    let mut client = client_port(&mut entries)?;
    let ensemble = ensemble::ensemble(&mut entries, &data_dir, &mut client, read_file)?;
    if client.listen.is_none()
        && client.secure_listen.is_none()
        && matches!(ensemble, Ensemble::Standalone { .. })
    {
        return Err(
            entries.about("clientPort", "is missing, expected a port for clients; add clientPort=2181")
        );
    }
    let own = own(&mut entries)?;
    let mut config = Config {
        path: path.to_path_buf(),
        tick_time_ms,
        data_dir,
        data_log_dir,
        client,
        sessions: sessions(&mut entries, tick_time_ms)?,
        requests: requests(&mut entries)?,
        storage: storage(&mut entries)?,
        auth: auth(&mut entries)?,
        words: whitelist(&mut entries),
        admin: admin(&mut entries)?,
        metrics: metrics(&mut entries, &own)?,
        ensemble,
        own,
        other: BTreeMap::new(),
        warnings: Vec::new(),
    };
    if config.requests.read_only_mode
        && let Whitelist::Listed(words) = &mut config.words
        && !words.iter().any(|word| word == "isro")
    {
        words.push("isro".into());
    }
    distinct_ports(&entries, &config)?;
    if let Ensemble::Member(membership) = &config.ensemble {
        let not_served = beyond_this_member(&entries, membership)?;
        entries.warnings.extend(not_served);
    }
    leftovers(&mut entries, &mut config);
    Ok(config)
}

fn client_port(entries: &mut Entries) -> Result<ClientPort> {
    let listen = listener(entries, "clientPort", "clientPortAddress")?;
    let secure_listen = listener(entries, "secureClientPort", "secureClientPortAddress")?;
    let limit = |value: u32| Some(value).filter(|value| *value > 0);
    Ok(ClientPort {
        listen,
        secure_listen,
        backlog: entries
            .number_unless("clientPortListenBacklog", 0, 1 << 20, None)?
            .map(|backlog| backlog as u32),
        max_per_ip: limit(entries.number_or("maxClientCnxns", 0, i32::MAX as u32, 60)?),
        max_total: limit(entries.number_or("maxCnxns", 0, i32::MAX as u32, 0)?),
        sessionless_timeout_ms: entries.number_or(
            "nio.sessionlessCnxnTimeout",
            1,
            i32::MAX as u64,
            10_000,
        )?,
        tcp_keep_alive: entries.switch("clientTcpKeepAlive", false)?,
    })
}

fn listener(entries: &mut Entries, port_key: &str, address_key: &str) -> Result<Option<Endpoint>> {
    let port = entries.port(port_key)?.filter(|port| *port != 0);
    let address = entries.take(address_key);
    match (port, address) {
        (None, Some(address)) => Err(entries.error(
            &address,
            format!("is set without {port_key}; add {port_key}=<port> or remove this line"),
        )),
        (None, None) => Ok(None),
        (Some(port), address) => {
            let host = address.map_or_else(|| Endpoint::ANY.to_string(), |entry| bare_host(&entry.value));
            Ok(Some(Endpoint { host, port }))
        }
    }
}

/// Without the brackets of an IPv6 address.
fn bare_host(text: &str) -> String {
    text.trim_start_matches('[').trim_end_matches(']').to_string()
}

fn sessions(entries: &mut Entries, tick_time_ms: u32) -> Result<Sessions> {
    let ticks = |count: u32| tick_time_ms.saturating_mul(count).min(i32::MAX as u32);
    // -1 is Apache's own word for "the default".
    let min = entries.number_unless("minSessionTimeout", -1, i32::MAX.into(), None)?;
    let max = entries.number_unless("maxSessionTimeout", -1, i32::MAX.into(), None)?;
    let sessions = Sessions {
        min_timeout_ms: min.map_or(ticks(2), |value| value as u32),
        max_timeout_ms: max.map_or(ticks(20), |value| value as u32),
        local_enabled: entries.switch("localSessionsEnabled", false)?,
        local_upgrading_enabled: entries.switch("localSessionsUpgradingEnabled", false)?,
    };
    if sessions.min_timeout_ms > sessions.max_timeout_ms {
        let problem = format!(
            "{} ms is above maxSessionTimeout ({} ms, 20 ticks unless set); lower it or raise maxSessionTimeout",
            sessions.min_timeout_ms, sessions.max_timeout_ms
        );
        return Err(entries.about("minSessionTimeout", &problem));
    }
    Ok(sessions)
}

fn requests(entries: &mut Entries) -> Result<Requests> {
    let max_frame = "a number of bytes, decimal or 0x…, from 1024 to 1073741824";
    Ok(Requests {
        max_frame_bytes: entries
            .parsed("jute.maxbuffer", max_frame, |text| {
                let value = match text.strip_prefix("0x") {
                    Some(digits) => usize::from_str_radix(digits, 16).ok(),
                    None => text.parse().ok(),
                };
                value.filter(|value| (1024..=1 << 30).contains(value))
            })?
            .unwrap_or(JUTE_MAX_BUFFER),
        global_outstanding_limit: entries.number_or("globalOutstandingLimit", 1, i32::MAX as u32, 1000)?,
        large_request_threshold_bytes: entries.number_unless(
            "largeRequestThreshold",
            0,
            i32::MAX.into(),
            None,
        )?,
        large_request_max_bytes: entries.number_or(
            "largeRequestMaxBytes",
            1,
            i32::MAX as u64,
            104_857_600,
        )?,
        throttled_op_wait_ms: entries.number_unless("throttled_op_wait_time", 0, i32::MAX.into(), None)?,
        extended_types: entries.switch("extendedTypesEnabled", false)?,
        enforce_quota: entries.switch("enforceQuota", false)?,
        skip_acl: entries.switch("skipACL", false)?,
        read_only_mode: entries.switch("readonlymode.enabled", false)?,
        container_check_interval_ms: entries.number_or(
            "znode.container.checkIntervalMs",
            1,
            i64::MAX as u64,
            60_000,
        )?,
        container_max_per_minute: entries.number_or(
            "znode.container.maxPerMinute",
            1,
            i32::MAX as u32,
            10_000,
        )?,
        container_max_never_used_ms: entries.number_unless(
            "znode.container.maxNeverUsedIntervalMs",
            0,
            i64::MAX,
            None,
        )?,
    })
}

fn storage(entries: &mut Entries) -> Result<Storage> {
    const KIB: u64 = 1024;
    let kib = |value: Option<u64>| value.map(|value| value.saturating_mul(KIB));
    let snap_size = entries.number_unless("snapSizeLimitInKb", 0, 1 << 40, Some(4_194_304))?;
    let log_size = entries.number_unless("txnLogSizeLimitInKb", 0, 1 << 40, None)?;
    let purge_interval = entries.number_or("autopurge.purgeInterval", 0, 1 << 20, 0)?;
    let retain = entries.number_or("autopurge.snapRetainCount", 0, i32::MAX as u32, 3)?;
    if retain < 3 {
        entries.warnings.push(format!("autopurge.snapRetainCount={retain} is below 3; 3 snapshots are kept"));
    }
    let compression = entries
        .found
        .contains_key("snapshot.compression.method")
        .then(|| {
            entries.parsed("snapshot.compression.method", "gz or snappy", |text| match text {
                "gz" => Some(Compression::Gzip),
                "snappy" => Some(Compression::Snappy),
                _ => None,
            })
        })
        .transpose()?;
    Ok(Storage {
        // Apache raises anything below 2 to 2, so that the number drawn between half and all of it is never 0.
        snap_count: entries.number_or("snapCount", 1, i32::MAX as u32, 100_000)?.max(2),
        snap_size_limit_bytes: kib(snap_size),
        pre_alloc_bytes: entries.number_or("preAllocSize", 1, 1 << 30, 65_536)? * KIB,
        log_size_limit_bytes: kib(log_size),
        force_sync: entries.switch("forceSync", true)?,
        fsync_warning_ms: entries.number_or("fsync.warningthresholdms", 0, i64::MAX as u64, 1000)?,
        // Apache raises anything below its default to that.
        commit_log_count: entries
            .number_or("commitLogCount", 1, i32::MAX as usize, HISTORY_DEFAULT)?
            .max(HISTORY_DEFAULT),
        flush_delay_ms: entries.number_or("flushDelay", 0, i32::MAX as u64, 0)?,
        max_batch: entries.number_or("maxBatchSize", 1, i32::MAX as u32, 1000)?,
        digest: entries.switch("digest.enabled", true)?,
        snapshot_last_zxid_block: entries.switch("serializeLastProcessedZxid.enabled", true)?,
        snapshot_compression: compression.flatten().unwrap_or(Compression::None),
        snapshot_size_factor: entries
            .parsed("snapshotSizeFactor", "a number, below 0 for off", |text| {
                text.parse::<f64>().ok().filter(|value| value.is_finite())
            })?
            .unwrap_or(SNAPSHOT_SIZE_FACTOR_DEFAULT),
        trust_empty_snapshot: entries.switch("snapshot.trust.empty", false)?,
        data_dir_autocreate: entries.switch("datadir.autocreate", true)?,
        database_autocreate: entries.switch("db.autocreate", true)?,
        observer_sync: entries.switch("syncEnabled", true)?,
        purge_retain: retain.max(3),
        purge_interval_h: Some(purge_interval).filter(|hours| *hours > 0),
    })
}

fn auth(entries: &mut Entries) -> Result<Auth> {
    let enforced = entries.switch("enforce.auth.enabled", false)?;
    let schemes_entry = entries.take("enforce.auth.schemes");
    let mut schemes: Vec<String> = schemes_entry
        .iter()
        .flat_map(|entry| entry.value.split(','))
        .map(|scheme| scheme.trim().to_string())
        .filter(|scheme| !scheme.is_empty())
        .collect();
    if enforced && schemes.is_empty() {
        return Err(entries.about(
            "enforce.auth.schemes",
            "is missing though enforce.auth.enabled is true, expected schemes such as digest,sasl; add it",
        ));
    }
    if !enforced {
        schemes.clear();
    }
    let digest_enabled = entries.switch("DigestAuthenticationProvider.enabled", true)?;
    let offered = |scheme: &str| scheme == "ip" || (scheme == "digest" && digest_enabled);
    if let Some(scheme) = schemes.iter().find(|scheme| !offered(scheme)) {
        let problem =
            format!("{scheme} is not offered here, nobody could get in; take digest, or remove the keys");
        return Err(entries.about("enforce.auth.schemes", &problem));
    }
    if entries.switch("sessionRequireClientSASLAuth", false)? {
        let problem = "SASL is not offered here, nobody could get in; remove the key, or use enforce.auth.schemes=digest";
        return Err(entries.about("sessionRequireClientSASLAuth", problem));
    }
    // Another algorithm makes other identities: whoever holds the ACLs of today would be shut out.
    entries.parsed("DigestAuthenticationProvider.digestAlg", "SHA1, the only one there is here", |text| {
        matches!(text, "SHA1" | "SHA-1").then_some(())
    })?;
    let mut providers = BTreeMap::new();
    let names: Vec<String> =
        entries.found.keys().filter(|name| name.starts_with("authProvider.")).cloned().collect();
    for name in names {
        if let Some(class) = entries.text(&name) {
            providers.insert(name["authProvider.".len()..].to_string(), class);
        }
    }
    Ok(Auth {
        super_digest: entries.text("DigestAuthenticationProvider.superDigest"),
        digest_enabled,
        enforced_schemes: schemes,
        providers,
    })
}

fn whitelist(entries: &mut Entries) -> Whitelist {
    let Some(text) = entries.text("4lw.commands.whitelist") else {
        return Whitelist::Listed(vec!["srvr".into()]);
    };
    let words: Vec<String> =
        text.split(',').map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| word == "*") { Whitelist::All } else { Whitelist::Listed(words) }
}

fn admin(entries: &mut Entries) -> Result<Option<Admin>> {
    let enabled = entries.switch("admin.enableServer", true)?;
    let port = entries.port("admin.serverPort")?.filter(|port| *port != 0);
    let host = entries
        .text("admin.serverAddress")
        .map_or_else(|| Endpoint::ANY.to_string(), |host| bare_host(&host));
    let command_url = entries.text("admin.commandURL").unwrap_or_else(|| "/commands".into());
    // A connection here lasts for one request, under limits of its own.
    entries.number::<u64>("admin.idleTimeout", 1, i32::MAX as u64)?;
    Ok(port.filter(|_| enabled).map(|port| Admin {
        listen: Endpoint { host, port },
        command_url: format!("/{}", command_url.trim_matches('/')),
    }))
}

fn metrics(entries: &mut Entries, own: &Own) -> Result<Option<Metrics>> {
    let provider = entries.take("metricsProvider.className");
    let host = entries
        .text("metricsProvider.httpHost")
        .map_or_else(|| Endpoint::ANY.to_string(), |host| bare_host(&host));
    let port = entries.port("metricsProvider.httpPort")?;
    let export_process_info = entries.switch("metricsProvider.exportJvmInfo", true)?;
    // Knobs of Apache's thread pool behind its endpoint: read so that they do not end among the unknown ones.
    for key in ["numWorkerThreads", "maxQueueSize", "workerShutdownTimeoutMs"] {
        entries.number::<u64>(&format!("metricsProvider.{key}"), 0, i64::MAX as u64)?;
    }
    let by_class = match &provider {
        None => false,
        Some(entry) if entry.value == PROMETHEUS_PROVIDER => true,
        Some(entry) if entry.value == DEFAULT_PROVIDER => false,
        Some(entry) => {
            entries.warnings.push(format!(
                "{}:{}: metricsProvider.className={} is not known here; metrics are served by four-letter words only",
                entries.path.display(),
                entry.line,
                entry.value
            ));
            false
        }
    };
    let port = own
        .metrics_port
        .or_else(|| by_class.then(|| port.unwrap_or(PROMETHEUS_PORT)))
        .filter(|port| *port != 0);
    Ok(port.map(|port| Metrics { listen: Endpoint { host, port }, export_process_info }))
}

fn own(entries: &mut Entries) -> Result<Own> {
    let share = "a number from 0 to 1";
    let own = Own {
        worker_threads: entries.number("zoometry.workerThreads", 1, 1024)?,
        trace_file: entries.path_value("zoometry.traceFile"),
        trace_sample: entries
            .parsed("zoometry.traceSample", share, |text| {
                text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value))
            })?
            .unwrap_or(zoometry_spans::SampleRate::DEFAULT_PROBABILITY),
        trace_slowest: entries.number_or("zoometry.traceSlowest", 0, 1000, 0)?,
        trace_parent: entries.switch("zoometry.traceParent", false)?,
        trace_salt: entries.number_or("zoometry.traceSalt", 0, u64::MAX, 0)?,
        trace_slow_ms: entries
            .parsed("zoometry.traceSlowMs", "milliseconds, 0 for off", |text| {
                text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
            })?
            .filter(|value| *value > 0.0),
        service_name: entries.text("zoometry.serviceName"),
        metrics_port: entries.port("zoometry.metricsPort")?.filter(|port| *port != 0),
        max_outbox_bytes: entries.number_or("zoometry.maxOutboxBytes", 65_536, 1 << 40, 16 << 20)?,
        max_pipelined: entries.number_or("zoometry.maxPipelined", 1, 1_000_000, 1000)?,
        leader_silence_ms: entries.number("zoometry.leaderSilenceMs", 50, 600_000)?,
        sync_delay_file: entries.path_value("zoometry.syncDelayFile"),
        log: entries.text("zoometry.log").unwrap_or_else(|| "info".into()),
    };
    for (name, entry) in &entries.found {
        if name.starts_with("zoometry.") {
            let known: Vec<&str> = OWN_KEYS.iter().map(|key| key.name).collect();
            entries.warnings.push(format!(
                "{}:{}: {name} is not known and does nothing; there are {}",
                entries.path.display(),
                entry.line,
                known.join(", ")
            ));
        }
    }
    Ok(own)
}

/// No two of this server's listeners on one port.
fn distinct_ports(entries: &Entries, config: &Config) -> Result<()> {
    let mut ports: Vec<(String, u16)> = Vec::new();
    let mut add = |name: &str, endpoint: Option<&Endpoint>| {
        if let Some(endpoint) = endpoint {
            ports.push((name.to_string(), endpoint.port));
        }
    };
    add("clientPort", config.client.listen.as_ref());
    add("secureClientPort", config.client.secure_listen.as_ref());
    add("admin.serverPort", config.admin.as_ref().map(|admin| &admin.listen));
    let metrics_key =
        if config.own.metrics_port.is_some() { "zoometry.metricsPort" } else { "metricsProvider.httpPort" };
    add(metrics_key, config.metrics.as_ref().map(|metrics| &metrics.listen));
    if let Ensemble::Member(membership) = &config.ensemble {
        let me = membership.me();
        for address in &me.addresses {
            ports.push((format!("server.{}", me.id), address.quorum_port));
            ports.push((format!("server.{}", me.id), address.election_port));
        }
    }
    for (index, (name, port)) in ports.iter().enumerate() {
        // One line's ports were compared when it was read; its several addresses are different interfaces.
        if let Some((other, _)) = ports[..index].iter().find(|(other, used)| used == port && other != name) {
            return Err(entries
                .about(name, &format!("port {port} is already taken by {other}; give each its own port")));
        }
    }
    Ok(())
}

/// Keys that ask of an ensemble what this program does not do. An error where going on would mean less
/// protection than was asked for; otherwise a warning.
fn beyond_this_member(entries: &Entries, membership: &Membership) -> Result<Vec<String>> {
    for key in ["sslQuorum", "ssl.quorum", "portUnification", "quorum.auth.enableSasl"] {
        let asked = |value: &str| value.trim().eq_ignore_ascii_case("true");
        if let Some(entry) = entries.found.get(key).filter(|entry| asked(&entry.value)) {
            return Err(ConfigError {
                path: entries.path.clone(),
                line: Some(entry.line),
                key: Some(key.into()),
                problem: "links between members are neither encrypted nor authenticated by this program; \
                          remove the key, here and at the other members, and protect the ports otherwise \
                          (a private network, a tunnel)"
                    .into(),
            });
        }
    }
    let mut warnings = Vec::new();
    if membership.observer_master_port.is_some() {
        warnings.push("observerMasterPort is not served: observers must be able to reach the leader".into());
    }
    if membership.reconfig_enabled {
        warnings.push(
            "reconfigEnabled=true: this program follows an ensemble that was never reconfigured; it neither \
             takes nor applies reconfigurations"
                .into(),
        );
    }
    Ok(warnings)
}

/// What was asked for and does not happen here, key by key with what happens instead.
fn not_acted_upon(config: &Config) -> Vec<String> {
    let (requests, storage) = (&config.requests, &config.storage);
    let asked = [
        (
            requests.large_request_threshold_bytes.is_some(),
            "largeRequestThreshold: large requests are not throttled; what a connection may hold is limited",
        ),
        (
            requests.throttled_op_wait_ms.is_some(),
            "throttled_op_wait_time: requests are not given up for having waited; connections are not read instead",
        ),
        (
            !config.auth.providers.is_empty(),
            "authProvider: only the schemes world, auth, digest, ip and super are known",
        ),
        (
            !storage.observer_sync,
            "syncEnabled=false: an observer writes its log and its snapshots all the same",
        ),
    ];
    let surprising = asked.into_iter().filter(|(is_asked, _)| *is_asked);
    surprising.map(|(_, warning)| warning.to_string()).collect()
}

/// Keys that nobody asked for and that are one slip of the pen away from one that somebody did. Others may be what
/// Apache hands on as a system property, and are no fault.
fn misspelt(entries: &Entries) -> Vec<String> {
    let slips = |name: &str, known: &str| {
        strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &known.to_ascii_lowercase())
    };
    let near = |name: &str| entries.known.iter().find(|known| known.len() > 4 && slips(name, known) <= 1);
    let told = |(name, entry): (&String, &Property)| {
        let (path, line, key) = (entries.path.display(), entry.line, &entry.key);
        Some(format!("{path}:{line}: {key} is not known and does nothing; did you mean {}?", near(name)?))
    };
    entries.found.iter().filter_map(told).collect()
}

/// What nobody asked for is kept as it is; what will surprise is told.
fn leftovers(entries: &mut Entries, config: &mut Config) {
    if config.client.secure_listen.is_some() {
        entries
            .warnings
            .push("secureClientPort is read, but TLS for clients is not served by this version".into());
    }
    if !config.storage.force_sync {
        entries.warnings.push("forceSync=no: a machine failure loses acknowledged writes".into());
    }
    if config.requests.skip_acl {
        entries.warnings.push("skipACL=yes: every client may do everything".into());
    }
    if let Some(file) = &config.own.sync_delay_file {
        let file = file.display();
        entries
            .warnings
            .push(format!("zoometry.syncDelayFile: syncs are as slow as {file} says, for experiments"));
    }
    entries.warnings.extend(not_acted_upon(config));
    let misspelt = misspelt(entries);
    entries.warnings.extend(misspelt);
    config.warnings = std::mem::take(&mut entries.warnings);
    config.other =
        std::mem::take(&mut entries.found).into_iter().map(|(name, entry)| (name, entry.value)).collect();
}
