//! One member's life: recover, serve, stop.

use std::net::ToSocketAddrs as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zoometry_replica::member::Member;
use zoometry_replica::storage::log::{PAYLOAD_BYTES_MAX, SyncMode};
use zoometry_replica::storage::recovery::{Damage, RecoveredStore, recover_store};
use zoometry_replica::storage::{LogOptions, RecoveryOptions, TxnLog, epoch};
use zoometry_replica::store::session::{self, SessionTracker};
use zoometry_replica::store::{Store, StoreConfig};
use zoometry_replica::zab::election::{Electorate, NotificationIntervals};
use zoometry_replica::zab::{Doubt, NO_DATA, Recovered, ServerId, Settings, Zab};

use crate::config::{Config, Endpoint, Ensemble};
use crate::disk::FileDisk;
use crate::disk_thread::{self, Behind, DiskOptions, DiskQueue, DiskThread};
use crate::metrics::{self, ProcessInfo};
use crate::node::{Node, NodeEvent, NodeHandle, Parts};
use crate::peers::{PeerEvent, PeerOptions, Peers};
use crate::shared::{Conns, Part, Shared};
use crate::snapshot_thread::{self, SnapshotOptions, SnapshotTaken, Snapshotter};
use crate::stats::{Counter, Measure, ServerStats};
use crate::telemetry::Tracer;
use crate::view::{Inspect, Mode};
use crate::words::Context;
use crate::{admin, clients, clock, http, listen};

/// A quorum packet's data may be so many times as long as a client's frame or as a transaction that is made here: other
/// members' limits may be wider. A transaction that is taken can be logged and read again
/// ([`PAYLOAD_BYTES_MAX`]).
const PACKET_PER_FRAME: usize = 4;

/// How long clients' last replies may take to be sent when the member stops.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a member does in whose state transactions are missing, for the log.
pub const WAITS_FOR_STATE: &str = "this member takes no part until a leader has sent it the whole state; if the \
    members that are whole are no quorum, bring back one that is, or, to lose what is missing, start this one once with \
    zoometry.acceptDamagedLog=true";

/// Runs a member until `stop` completes: alone, or as one of an ensemble, as the configuration says.
pub async fn run(config: Config, tracer: Tracer, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let start_up = tracing::info_span!("start-up");
    // The ports first: a member that cannot serve should not touch its data.
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let handle = NodeHandle::default();
    let links = open_links(&config, &handle).await?;
    let files = open_files(&config)?;
    let _claim = files.claim()?;
    let stats: Arc<ServerStats> = Arc::default();
    let recovered =
        tracing::info_span!(parent: &start_up, "recovery").in_scope(|| rebuild(&config, &files, &stats))?;
    let alone = links.is_none();
    // An ensemble's member with nothing on its disk may be one whose disk was lost.
    let may_be_empty = alone || config.storage.database_autocreate || take_initialize_mark(&config)?;
    let is_lost = recovered.found.is_fresh() && !may_be_empty;
    let is_new = recovered.found.snapshot.is_none();
    let damage = weigh_damage(&config, recovered.found.damage.as_ref(), alone, &stats)?;
    let Mind { member, store } = start_member(&config, &files, recovered, is_lost, damage.is_some())?;
    let store = Arc::new(RwLock::new(store));
    if is_lost {
        tracing::warn!(
            "nothing is in the data directory, and db.autocreate=false: this member elects nobody until it has \
             the ensemble's state from a leader; the members of a new ensemble need a file `initialize` each"
        );
    } else if damage.is_none() && (alone || is_new) {
        // Logs without a snapshot do not start, here or at Apache's, so the first one precedes the first
        // log. Alone it also makes what was dropped from the recovered tree final.
        let first = start_up
            .in_scope(|| snapshot_thread::take_snapshot(&files, &store, config.storage.snapshot_compression))
            .context("cannot write the snapshot of the start")?;
        stats.observe(Measure::SnapshotTime, first.took.as_nanos() as u64);
    }
    let last_zxid = store.read().last_zxid();
    let (queue, log) = start_log(&config, &files, handle.clone())?;
    let purging = tokio::spawn(purge_regularly(
        config.storage.purge_interval_h,
        config.storage.purge_retain,
        queue.clone(),
    ));
    let snapshots =
        start_snapshots(&config, files.clone(), Arc::clone(&store), queue.clone(), Arc::clone(&stats))?;
    let sessions = tracked_sessions(&config, &store.read());
    let conns = Conns::new(config.own.max_unsent_bytes);
    let shared = Arc::new(Shared {
        sessions: Mutex::new(sessions),
        config,
        store,
        conns,
        node: handle,
        stats,
        disk: queue,
        digests: Mutex::default(),
        tracer,
        files,
        part: Part::new(alone.then_some(Mode::Standalone)),
        standing: Mutex::default(),
    });
    let parts = Parts { shared: Arc::clone(&shared), disk: log, snapshots, member, peers: links, damage };
    let door = shared.node.clone();
    let node = std::thread::Builder::new().name("node".into()).spawn(move || door.run(Node::new(parts)))?;
    let metrics = serve_metrics(&shared).await?;
    let admin = serve_admin(&shared).await?;
    let (stopped, stopping) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(clients::accept(Arc::clone(&shared), listener, stopping));
    tracing::info!(%address, zxid = %last_zxid, "listening for clients");
    drop(start_up);
    stop.await;
    tracing::info!("stopping");
    let _ = stopped.send(true);
    purging.abort();
    for task in metrics.into_iter().chain(admin) {
        task.abort();
    }
    let _ = accepting.await;
    shared.node.leave(NodeEvent::Stop);
    let node = tokio::task::spawn_blocking(move || node.join());
    // A panic there has ended the process.
    let _ = node.await?;
    say_goodbye(&shared).await;
    Ok(())
}

fn open_files(config: &Config) -> anyhow::Result<FileDisk> {
    let files = if config.storage.data_dir_autocreate {
        FileDisk::open(&config.data_dir, &config.data_log_dir)?
    } else {
        FileDisk::open_existing(&config.data_dir, &config.data_log_dir)
            .context("datadir.autocreate=false, and a directory is missing: is its disk mounted?")?
    };
    Ok(match &config.own.sync_delay_file {
        Some(file) => files.slowed_by(file.clone()),
        None => files,
    })
}

/// The links to the other members, if there are others.
async fn open_links(config: &Config, node: &NodeHandle) -> anyhow::Result<Option<Peers>> {
    let Ensemble::Member(membership) = &config.ensemble else { return Ok(None) };
    if !membership.groups.is_empty() || !membership.weights.is_empty() {
        bail!(
            "group.N and weight.N are not supported: this program counts majorities only; remove these keys, \
             here and at the other members"
        );
    }
    let requests = &config.requests;
    let packet_data_bytes_max = requests
        .max_frame_bytes
        .max(requests.max_txn_bytes())
        .saturating_mul(PACKET_PER_FRAME)
        .min(PAYLOAD_BYTES_MAX);
    let options =
        PeerOptions::new(membership, config.tick_time_ms.into(), packet_data_bytes_max, store_config(config));
    let node = node.clone();
    Ok(Some(Peers::start(options, move |event| deliver(&node, event)).await?))
}

/// Packets come without a lock, and may be performed by the link's task. Everything else is rare.
fn deliver(node: &NodeHandle, event: PeerEvent) {
    match event {
        PeerEvent::Packets(..) => node.send(NodeEvent::Peer(event)),
        event => node.leave(NodeEvent::Peer(event)),
    }
}

/// What thinks for a member, over its state.
struct Mind {
    member: Member,
    store: Store,
}

/// `initialize` beside `version-2` says that an empty database is meant, once. Source: `FileTxnSnapLog.restore`;
/// reference §9.1.
fn take_initialize_mark(config: &Config) -> anyhow::Result<bool> {
    let mark = config.data_log_dir.join("initialize");
    match std::fs::remove_file(&mark) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", mark.display())),
    }
}

/// What becomes of a state in which transactions are missing: alone the server does not start with it; a member is
/// to take no part until it has the whole state, and what is returned says why.
fn weigh_damage(
    config: &Config,
    damage: Option<&Damage>,
    alone: bool,
    stats: &ServerStats,
) -> anyhow::Result<Option<String>> {
    let Some(damage) = damage else { return Ok(None) };
    stats.add(Counter::DamagedLogs, 1);
    if config.own.accept_damaged_log {
        tracing::error!("{damage}; going on without them (zoometry.acceptDamagedLog=true)");
        return Ok(None);
    }
    if alone {
        bail!(
            "{damage}. They were acknowledged, so this server does not start without them. Restore the directory from \
             a backup; or, to lose them, start once with zoometry.acceptDamagedLog=true"
        );
    }
    tracing::error!("{damage}; {WAITS_FOR_STATE}");
    Ok(Some(damage.to_string()))
}

fn start_member(
    config: &Config,
    files: &FileDisk,
    recovered: RecoveredStore,
    is_lost: bool,
    is_damaged: bool,
) -> anyhow::Result<Mind> {
    let RecoveredStore { found, tail, .. } = recovered;
    let differs = found.differs.is_some();
    let (mut store, last_zxid) = (found.state, found.last_zxid);
    let first_session = session::first_id(elapsed_since_boot_ms(), config.session_server_id() as i64);
    let Ensemble::Member(membership) = &config.ensemble else {
        let dropped = store.drop_dead_ephemerals();
        if dropped > 0 {
            tracing::info!(dropped, "removed ephemerals of sessions that are not known");
        }
        return Ok(Mind { member: Member::alone(&store, first_session), store });
    };
    let epochs = epoch::load(files, last_zxid)?;
    let settings = Settings {
        tick_ms: config.tick_time_ms.into(),
        init_limit: membership.init_limit.into(),
        sync_limit: membership.sync_limit.into(),
        notifications: NotificationIntervals {
            min_ms: membership.min_notification_ms,
            max_ms: membership.max_notification_ms,
        },
        silence_ms: config.own.leader_silence_ms,
        history_limit: config.storage.commit_log_count,
    };
    let electorate = Electorate {
        me: ServerId(membership.my_id as i64),
        voters: membership.participants().map(|member| ServerId(member.id as i64)).collect(),
        config: membership.text(),
        config_version: membership.version,
    };
    let last_zxid = if is_lost { NO_DATA } else { last_zxid };
    let found = Recovered { last_zxid, accepted_epoch: epochs.accepted, current_epoch: epochs.current };
    let mut zab = Zab::new(settings, electorate, found);
    for (zxid, payload) in tail {
        zab.remember(zxid, payload);
    }
    if is_damaged {
        zab.distrust(Doubt::Missing);
    } else if differs {
        zab.distrust(Doubt::Differs);
    }
    Ok(Mind { member: Member::in_ensemble(zab, &store, first_session), store })
}

/// The state as the directories have it now: after the log was cut. `is_damaged`: transactions are known to be
/// missing there.
pub fn reload(shared: &Shared, is_damaged: bool) -> anyhow::Result<Store> {
    let found = rebuild(&shared.config, &shared.files, &shared.stats)?.found;
    match found.damage {
        Some(damage) if !is_damaged && !shared.config.own.accept_damaged_log => bail!("{damage}"),
        _ => Ok(found.state),
    }
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let endpoint =
        config.client.listen.as_ref().context("no clientPort in the configuration: nobody could connect")?;
    (endpoint.host.as_str(), endpoint.port)
        .to_socket_addrs()
        .with_context(|| format!("clientPortAddress {} is no address of this machine", endpoint.host))?;
    listen::bind(endpoint).await.with_context(|| {
        format!("cannot listen on {endpoint} (clientPort); if another server runs there, stop it or take another port")
    })
}

/// The Prometheus endpoint, if one is configured.
async fn serve_metrics(shared: &Arc<Shared>) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(wanted) = &shared.config.metrics else { return Ok(None) };
    let own = shared.config.own.metrics_port.is_some();
    let key = if own { "zoometry.metricsPort" } else { "metricsProvider.httpPort" };
    let listener = listen_for_operators(&wanted.listen, "metrics", key).await?;
    let process_info = if wanted.export_process_info { ProcessInfo::Export } else { ProcessInfo::Omit };
    let member: Arc<dyn Inspect> = shared.clone();
    let serving = metrics::serve(listener, Arc::clone(&shared.stats), member, process_info);
    Ok(Some(tokio::spawn(serving)))
}

/// The admin endpoint, if one is configured.
async fn serve_admin(shared: &Arc<Shared>) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(wanted) = &shared.config.admin else { return Ok(None) };
    let listener = listen_for_operators(&wanted.listen, "admin", "admin.serverPort").await?;
    let (member, url) = (Arc::clone(shared), wanted.command_url.clone());
    let serving = http::serve(listener, move |target| {
        let context = Context { config: &member.config, stats: &member.stats, member: &*member };
        admin::answer(target, &url, context)
    });
    Ok(Some(tokio::spawn(serving)))
}

async fn listen_for_operators(wanted: &Endpoint, what: &str, key: &str) -> anyhow::Result<TcpListener> {
    let listener = listen::bind(wanted).await;
    listener.with_context(|| format!("cannot listen on {wanted} ({what}); take another {key}"))
}

fn start_log(config: &Config, disk: &FileDisk, node: NodeHandle) -> anyhow::Result<(DiskQueue, DiskThread)> {
    let storage = &config.storage;
    let options = LogOptions {
        prealloc_bytes: storage.pre_alloc_bytes,
        sync: if storage.force_sync { SyncMode::Always } else { SyncMode::Never },
        roll_at_bytes: storage.log_size_limit_bytes,
    };
    let log = TxnLog::new(disk.clone(), options);
    let disk_options = DiskOptions { now_ns: clock::now_ns, sync_warn_ms: storage.fsync_warning_ms };
    let on_durable = move |durable, behind| match behind {
        // The node may want to append: with nothing waiting there is room, or this thread would wait for itself.
        Behind::Nothing => node.send(NodeEvent::Durable(durable)),
        Behind::Work => node.leave(NodeEvent::Durable(durable)),
    };
    Ok(disk_thread::spawn(disk.clone(), log, disk_options, on_durable, disk_thread::exit)?)
}

fn start_snapshots(
    config: &Config,
    disk: FileDisk,
    store: Arc<RwLock<Store>>,
    queue: DiskQueue,
    stats: Arc<ServerStats>,
) -> anyhow::Result<Snapshotter> {
    let options = SnapshotOptions {
        snap_count: u64::from(config.storage.snap_count),
        snap_size_limit_bytes: config.storage.snap_size_limit_bytes.unwrap_or(0),
        seed: clock::wall_ms() as u64,
        compression: config.storage.snapshot_compression,
    };
    let book = move |taken: &Result<SnapshotTaken, _>| {
        if let Ok(taken) = taken {
            stats.observe(Measure::SnapshotTime, taken.took.as_nanos() as u64);
        }
    };
    Ok(Snapshotter::spawn(disk, store, queue, options, book)?)
}

/// `autopurge`: at the start and then every so many hours, old snapshots and logs go.
async fn purge_regularly(interval_h: Option<u32>, retain: u32, queue: DiskQueue) {
    let Some(hours) = interval_h else { return };
    let mut interval = tokio::time::interval(Duration::from_secs(u64::from(hours) * 3600));
    loop {
        interval.tick().await;
        queue.purge(retain as usize);
    }
}

/// Every session of the recovered state gets its full timeout again.
fn tracked_sessions(config: &Config, store: &Store) -> SessionTracker {
    let mut sessions = SessionTracker::new(u64::from(config.tick_time_ms));
    for (id, timeout_ms) in store.sessions() {
        sessions.open(id, timeout_ms, clock::now_ms());
    }
    sessions
}

/// Lets the connections send what is in their outboxes.
async fn say_goodbye(shared: &Shared) {
    for conn in shared.conns.all() {
        conn.close();
    }
    let deadline = tokio::time::Instant::now() + GOODBYE;
    while !shared.conns.is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn store_config(config: &Config) -> StoreConfig {
    StoreConfig {
        extended_types: config.requests.extended_types,
        digest: config.storage.digest,
        skip_acl: config.requests.skip_acl,
        enforce_quota: config.requests.enforce_quota,
        reconfig: false,
        super_digest: config.auth.super_digest.clone(),
        txn_bytes_max: config.requests.max_txn_bytes(),
        reply_bytes_max: config.own.max_reply_bytes,
        hash_seed: hash_seed(),
    }
}

fn rebuild(config: &Config, disk: &FileDisk, stats: &ServerStats) -> anyhow::Result<RecoveredStore> {
    let started_ns = clock::now_ns();
    let options = RecoveryOptions {
        trust_empty: config.storage.trust_empty_snapshot,
        tail_limit: config.storage.commit_log_count,
        ..RecoveryOptions::default()
    };
    let recovered = recover_store(disk, options, store_config(config))
        .with_context(|| format!("cannot recover from {}", config.data_dir.display()))?;
    let found = &recovered.found;
    for warning in &found.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(zxid) = recovered.first_mismatch {
        let digest_mismatches = recovered.digest_mismatches;
        tracing::warn!(digest_mismatches, first = %zxid, "the tree's digest is not the one in the log");
        if let Some(since) = found.differs {
            tracing::error!(%since, "the recovered tree is not the one that was logged, as far as its digest tells");
        }
    }
    stats.observe(Measure::DbInitTime, clock::now_ns() - started_ns);
    stats.observe(Measure::StartupTxnsLoaded, found.replayed);
    stats.add(Counter::DigestMismatches, recovered.digest_mismatches);
    tracing::info!(
        zxid = %found.last_zxid,
        replayed = found.replayed,
        znodes = found.state.node_count(),
        "recovered"
    );
    Ok(recovered)
}

/// Where session ids start: a clock that a restart of this process does not set back.
fn elapsed_since_boot_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the call to fill.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// A number that clients cannot know, the same for every store of this process: std's hasher is seeded by the
/// system's randomness.
fn hash_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    *SEED
}
