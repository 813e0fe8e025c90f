//! From entries to a [`Config`]: typed values, defaults, and the checks that span several keys.
//!
//! Order and rules follow Apache's `QuorumPeerConfig.parseProperties`. The first fault found is the one reported.

mod ensemble;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::java;
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

    /// A number as `Integer.parseInt` reads it: for the keys that `QuorumPeerConfig` knows.
    fn integer(&mut self, key: &str) -> Result<Option<i64>> {
        Ok(self.number::<i32>(key, i32::MIN, i32::MAX)?.map(i64::from))
    }

    /// A number as `Integer.getInteger` reads it: for the keys that are Java system properties at Apache's.
    fn property(&mut self, key: &str, min: i64) -> Result<Option<i64>> {
        self.decoded(key, min, i32::MAX.into())
    }

    /// The same for `Long.getLong`.
    fn long_property(&mut self, key: &str, min: i64) -> Result<Option<i64>> {
        self.decoded(key, min, i64::MAX)
    }

    fn decoded(&mut self, key: &str, min: i64, max: i64) -> Result<Option<i64>> {
        let expected = format!("a whole number from {min} to {max}, decimal or 0x…");
        self.parsed(key, &expected, |text| java::decode(text).filter(|value| (min..=max).contains(value)))
    }

    fn port(&mut self, key: &str) -> Result<Option<u16>> {
        self.parsed(key, "a port from 1 to 65535, or 0 for none", |text| text.parse::<u16>().ok())
    }

    /// `true` or `false`, anything else is refused. Source: `QuorumPeerConfig.parseBoolean`.
    fn switch(&mut self, key: &str, default: bool) -> Result<bool> {
        let value = self.parsed(key, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }

    /// `true`, or anything else, which is false: for the keys that Apache reads with Java's `Boolean`. What is
    /// neither is told.
    fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(entry) = self.take(key) else { return default };
        let value = entry.value.eq_ignore_ascii_case("true");
        if !value && !entry.value.eq_ignore_ascii_case("false") {
            self.warn_about(&entry, "is neither true nor false, and means false, as for Apache");
        }
        value
    }

    /// Whether the value is exactly `word`, which is the one that changes something: for `forceSync=no` and the like.
    fn is_word(&mut self, key: &str, word: &str) -> bool {
        let Some(entry) = self.take(key) else { return false };
        if !matches!(entry.value.as_str(), "yes" | "no") {
            self.warn_about(
                &entry,
                &format!("does nothing, as for Apache: {key}={word} is what it looks for"),
            );
        }
        entry.value == word
    }

    fn warn_about(&mut self, entry: &Property, what: &str) {
        let Property { line, key, value } = entry;
        self.warnings.push(format!("{}:{line}: {key}={value} {what}", self.path.display()));
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
    let limit =
        |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok()).filter(|limit| *limit > 0);
    Ok(ClientPort {
        listen,
        secure_listen,
        backlog: limit(entries.integer("clientPortListenBacklog")?),
        max_per_ip: limit(entries.integer("maxClientCnxns")?.or(Some(60))),
        max_total: limit(entries.property("maxCnxns", i32::MIN.into())?),
        sessionless_timeout_ms: entries.property("nio.sessionlessCnxnTimeout", 1)?.unwrap_or(10_000) as u64,
        tcp_keep_alive: entries.flag("clientTcpKeepAlive", false),
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
    // -1 is Apache's own word for "the default"; anything below is no limit at all, or none that can be kept.
    let mut timeout = |key, default| -> Result<u32> {
        let value = entries.integer(key)?.filter(|value| *value != -1);
        Ok(value.map_or(default, |value| value.max(0) as u32))
    };
    let sessions = Sessions {
        min_timeout_ms: timeout("minSessionTimeout", ticks(2))?,
        max_timeout_ms: timeout("maxSessionTimeout", ticks(20))?,
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
    let above_zero = |value: Option<i64>| value.filter(|value| *value > 0).map(|value| value as u64);
    const ANY: i64 = i32::MIN as i64;
    let max_frame_bytes =
        entries.property("jute.maxbuffer", 1024)?.map_or(JUTE_MAX_BUFFER, |bytes| bytes as usize);
    // Apache takes any number and lifts it to the least.
    let extra = entries.property("jute.maxbuffer.extrasize", ANY)?;
    Ok(Requests {
        max_frame_bytes,
        max_frame_extra_bytes: extra.map_or(max_frame_bytes, |bytes| bytes.max(0) as usize).max(1024),
        global_outstanding_limit: above_zero(entries.property("globalOutstandingLimit", ANY)?.or(Some(1000)))
            .unwrap_or(1) as u32,
        large_request_threshold_bytes: above_zero(entries.property("largeRequestThreshold", ANY)?),
        large_request_max_bytes: above_zero(entries.property("largeRequestMaxBytes", ANY)?)
            .unwrap_or(104_857_600),
        throttled_op_wait_ms: above_zero(entries.property("throttled_op_wait_time", ANY)?),
        extended_types: entries.flag("extendedTypesEnabled", false),
        enforce_quota: entries.flag("enforceQuota", false),
        eager_acl_check: entries.flag("enableEagerACLCheck", false),
        skip_acl: entries.is_word("skipACL", "yes"),
        read_only_mode: entries.flag("readonlymode.enabled", false),
        container_check_interval_ms: entries.property("znode.container.checkIntervalMs", 1)?.unwrap_or(60_000)
            as u64,
        container_max_per_minute: entries.property("znode.container.maxPerMinute", 1)?.unwrap_or(10_000)
            as u32,
        container_max_never_used_ms: above_zero(
            entries.long_property("znode.container.maxNeverUsedIntervalMs", i64::MIN)?,
        ),
    })
}

/// `preAllocSize`, kilobytes. Apache logs what it cannot read (`64M`) and takes the default.
fn pre_allocated_kib(entries: &mut Entries) -> u64 {
    const DEFAULT_KIB: u64 = 65_536;
    const MAX_KIB: u64 = 1 << 30;
    let Some(entry) = entries.take("preAllocSize") else { return DEFAULT_KIB };
    match entry.value.parse::<i64>() {
        Ok(kib) => u64::try_from(kib).unwrap_or(0).min(MAX_KIB),
        Err(_) => {
            let what = format!("is no number of kilobytes; {DEFAULT_KIB} are taken, as by Apache");
            entries.warn_about(&entry, &what);
            DEFAULT_KIB
        }
    }
}

fn storage(entries: &mut Entries) -> Result<Storage> {
    const KIB: u64 = 1024;
    const ANY: i64 = i64::MIN;
    const ANY_INT: i64 = i32::MIN as i64;
    let kib =
        |value: Option<i64>| value.filter(|value| *value > 0).map(|value| (value as u64).saturating_mul(KIB));
    let snap_size = entries.long_property("snapSizeLimitInKb", ANY)?.or(Some(4_194_304));
    let log_size = entries.long_property("txnLogSizeLimitInKb", ANY)?;
    let purge_interval = entries.integer("autopurge.purgeInterval")?.unwrap_or(0);
    let retain = entries.integer("autopurge.snapRetainCount")?.unwrap_or(3);
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
        snap_count: entries.property("snapCount", ANY_INT)?.unwrap_or(100_000).max(2) as u32,
        snap_size_limit_bytes: kib(snap_size),
        pre_alloc_bytes: pre_allocated_kib(entries) * KIB,
        log_size_limit_bytes: kib(log_size),
        force_sync: !entries.is_word("forceSync", "no"),
        fsync_warning_ms: entries.long_property("fsync.warningthresholdms", ANY)?.unwrap_or(1000).max(0)
            as u64,
        // Apache raises anything below its default to that.
        commit_log_count: entries
            .integer("commitLogCount")?
            .map_or(HISTORY_DEFAULT, |count| usize::try_from(count).unwrap_or(0))
            .max(HISTORY_DEFAULT),
        flush_delay_ms: entries.long_property("flushDelay", ANY)?.unwrap_or(0).max(0) as u64,
        // Apache takes 0 and less for no limit.
        max_batch: entries
            .property("maxBatchSize", ANY_INT)?
            .map_or(1000, |count| u32::try_from(count).ok().filter(|count| *count > 0).unwrap_or(u32::MAX)),
        digest: entries.flag("digest.enabled", true),
        snapshot_last_zxid_block: entries.flag("serializeLastProcessedZxid.enabled", true),
        snapshot_compression: compression.flatten().unwrap_or(Compression::None),
        snapshot_size_factor: entries
            .parsed("snapshotSizeFactor", "a number, below 0 for off", |text| {
                text.parse::<f64>().ok().filter(|value| value.is_finite())
            })?
            .unwrap_or(SNAPSHOT_SIZE_FACTOR_DEFAULT),
        trust_empty_snapshot: entries.flag("snapshot.trust.empty", false),
        data_dir_autocreate: entries.flag("datadir.autocreate", true),
        database_autocreate: entries.flag("db.autocreate", true),
        observer_sync: entries.switch("syncEnabled", true)?,
        purge_retain: retain.max(3) as u32,
        purge_interval_h: u32::try_from(purge_interval).ok().filter(|hours| *hours > 0),
    })
}

fn auth(entries: &mut Entries) -> Result<Auth> {
    let enforced = entries.flag("enforce.auth.enabled", false);
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
    let digest_enabled = entries.flag("DigestAuthenticationProvider.enabled", true);
    let offered = |scheme: &str| scheme == "ip" || (scheme == "digest" && digest_enabled);
    if let Some(scheme) = schemes.iter().find(|scheme| !offered(scheme)) {
        let problem =
            format!("{scheme} is not offered here, nobody could get in; take digest, or remove the keys");
        return Err(entries.about("enforce.auth.schemes", &problem));
    }
    if entries.flag("sessionRequireClientSASLAuth", false) {
        let problem = "SASL is not offered here, nobody could get in; remove the key, or use enforce.auth.schemes=digest";
        return Err(entries.about("sessionRequireClientSASLAuth", problem));
    }
    let algorithms: Vec<&str> = DigestAlgorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    let digest_algorithm = entries
        .parsed(
            "DigestAuthenticationProvider.digestAlg",
            &format!("one of {}", algorithms.join(", ")),
            DigestAlgorithm::from_name,
        )?
        .unwrap_or_default();
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
        digest_algorithm,
        enforced_schemes: schemes,
        providers,
    })
}

fn whitelist(entries: &mut Entries) -> Whitelist {
    let text = entries.text("4lw.commands.whitelist").unwrap_or_default();
    let words: Vec<String> =
        text.split(',').map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| word == "*") { Whitelist::All } else { Whitelist::Listed(words) }
}

fn admin(entries: &mut Entries) -> Result<Option<Admin>> {
    // Apache looks for exactly `false`.
    let enabled = entries.text("admin.enableServer").is_none_or(|value| value != "false");
    let port = entries.port("admin.serverPort")?.filter(|port| *port != 0);
    let host = entries
        .text("admin.serverAddress")
        .map_or_else(|| Endpoint::ANY.to_string(), |host| bare_host(&host));
    let command_url = entries.text("admin.commandURL").unwrap_or_else(|| "/commands".into());
    // A connection here lasts for one request, under limits of its own.
    entries.property("admin.idleTimeout", i32::MIN.into())?;
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
    let export_process_info = entries.flag("metricsProvider.exportJvmInfo", true);
    // Knobs of Apache's thread pool behind its endpoint: read so that they do not end among the unknown ones.
    for key in ["numWorkerThreads", "maxQueueSize", "workerShutdownTimeoutMs"] {
        entries.text(&format!("metricsProvider.{key}"));
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
        max_reply_bytes: entries.number_or("zoometry.maxReplyBytes", 1 << 20, 1 << 30, 64 << 20)?,
        max_unsent_bytes: entries.number_or("zoometry.maxUnsentBytes", 1 << 20, 1 << 40, 512 << 20)?,
        max_pipelined: entries.number_or("zoometry.maxPipelined", 1, 1_000_000, 1000)?,
        leader_silence_ms: entries.number("zoometry.leaderSilenceMs", 50, 600_000)?,
        accept_damaged_log: entries.switch("zoometry.acceptDamagedLog", false)?,
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
    if entries.found.contains_key("oraclePath") {
        warnings.push("oraclePath is not asked: two members need each other, use three".into());
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
        (
            config.sessions.local_enabled,
            "localSessionsEnabled: sessions are global; each is opened and closed through the log",
        ),
        (
            storage.pre_alloc_bytes == 0,
            "preAllocSize of 0 or less: the log is not grown ahead of the writing, so each sync has a size to write as well",
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
    if config.own.accept_damaged_log {
        entries.warnings.push(
            "zoometry.acceptDamagedLog=true: a hole in the log is gone past, and what is missing stays lost; remove \
             the key when the server has started"
                .into(),
        );
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
