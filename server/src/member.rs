//! One member's life: recover, serve, stop.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zoometry_replica::storage::log::SyncMode;
use zoometry_replica::storage::recovery::{RecoveredStore, recover_store};
use zoometry_replica::storage::{LogOptions, RecoveryOptions, TxnLog};
use zoometry_replica::store::session::SessionTracker;
use zoometry_replica::store::{Store, StoreConfig};

use crate::config::{Config, Endpoint};
use crate::disk::FileDisk;
use crate::disk_thread::{self, DiskOptions, DiskQueue, DiskThread};
use crate::metrics::{self, ProcessInfo};
use crate::node::{Node, NodeEvent, NodeHandle};
use crate::shared::{Conns, Shared};
use crate::snapshot_thread::{self, SnapshotOptions, SnapshotTaken, Snapshotter};
use crate::stats::{Counter, Measure, ServerStats};
use crate::telemetry::Tracer;
use crate::view::Inspect;
use crate::words::Context;
use crate::{admin, clients, clock, http};

/// How long clients' last replies may take to be sent when the member stops.
const GOODBYE: Duration = Duration::from_millis(500);

/// Runs a standalone member until `stop` completes.
pub async fn run(config: Config, tracer: Tracer, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let start_up = tracing::info_span!("start-up");
    // The port first: a member that cannot serve should not touch its data.
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let disk = FileDisk::open(&config.data_dir, &config.data_log_dir)?;
    let stats: Arc<ServerStats> = Arc::default();
    let recovered =
        tracing::info_span!(parent: &start_up, "recovery").in_scope(|| rebuild(&config, &disk, &stats))?;
    let store = Arc::new(RwLock::new(recovered));
    // Logs without a snapshot do not start, here or at Apache's, so the first one precedes the first log. It
    // also makes what was dropped from the recovered tree final.
    let first = start_up
        .in_scope(|| snapshot_thread::take_snapshot(&disk, &store))
        .context("cannot write the snapshot of the start")?;
    stats.observe(Measure::SnapshotTime, first.took.as_nanos() as u64);
    let last_zxid = store.read().last_zxid();
    let (handle, events) = NodeHandle::new();
    let (queue, log) = start_log(&config, &disk, handle.clone())?;
    let purging = tokio::spawn(purge_regularly(
        config.storage.purge_interval_h,
        config.storage.purge_retain,
        queue.clone(),
    ));
    let snapshots = start_snapshots(&config, disk, Arc::clone(&store), queue.clone(), Arc::clone(&stats))?;
    let sessions = tracked_sessions(&config, &store.read());
    let shared = Arc::new(Shared {
        sessions: Mutex::new(sessions),
        config,
        store,
        conns: Conns::default(),
        node: handle,
        stats,
        disk: queue,
        digests: Mutex::default(),
        tracer,
    });
    let node = Node::new(Arc::clone(&shared), events, log, snapshots);
    let node = std::thread::Builder::new().name("node".into()).spawn(move || node.run())?;
    let metrics = serve_metrics(&shared).await?;
    let admin = serve_admin(&shared).await?;
    let (stopped, stopping) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(clients::accept(Arc::clone(&shared), listener, stopping));
    tracing::info!(%address, zxid = %last_zxid, "serving clients");
    drop(start_up);
    stop.await;
    tracing::info!("stopping");
    let _ = stopped.send(true);
    purging.abort();
    for task in metrics.into_iter().chain(admin) {
        task.abort();
    }
    let _ = accepting.await;
    shared.node.send(NodeEvent::Stop);
    let node = tokio::task::spawn_blocking(move || node.join());
    if node.await?.is_err() {
        bail!("the node's thread panicked; the log on disk is whole, start the server again");
    }
    say_goodbye(&shared).await;
    Ok(())
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let endpoint =
        config.client.listen.as_ref().context("no clientPort in the configuration: nobody could connect")?;
    let mut addresses = (endpoint.host.as_str(), endpoint.port)
        .to_socket_addrs()
        .with_context(|| format!("clientPortAddress {} is no address of this machine", endpoint.host))?;
    let address: SocketAddr =
        addresses.next().with_context(|| format!("{} has no address", endpoint.host))?;
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (clientPort); if another server runs there, stop it or take another port")
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
    let listener = TcpListener::bind((wanted.host.as_str(), wanted.port)).await;
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
    let on_durable = move |durable| node.send(NodeEvent::Durable(durable));
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

fn rebuild(config: &Config, disk: &FileDisk, stats: &ServerStats) -> anyhow::Result<Store> {
    let started_ns = clock::now_ns();
    let options =
        RecoveryOptions { trust_empty: config.storage.trust_empty_snapshot, ..RecoveryOptions::default() };
    let store_config = StoreConfig {
        extended_types: config.requests.extended_types,
        digest: config.storage.digest,
        skip_acl: config.requests.skip_acl,
        enforce_quota: config.requests.enforce_quota,
        reconfig: false,
        super_digest: config.auth.super_digest.clone(),
        hash_seed: hash_seed(),
    };
    let RecoveredStore { found: recovered, digest_mismatches, first_mismatch, .. } =
        recover_store(disk, options, store_config)
            .with_context(|| format!("cannot recover from {}", config.data_dir.display()))?;
    for warning in &recovered.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(zxid) = first_mismatch {
        tracing::warn!(digest_mismatches, first = %zxid, "the tree's digest is not the one in the log");
    }
    stats.observe(Measure::DbInitTime, clock::now_ns() - started_ns);
    stats.observe(Measure::StartupTxnsLoaded, recovered.replayed);
    stats.add(Counter::DigestMismatches, digest_mismatches);
    let mut store = recovered.state;
    let dropped = store.drop_dead_ephemerals();
    tracing::info!(
        zxid = %recovered.last_zxid,
        replayed = recovered.replayed,
        znodes = store.node_count(),
        dead_ephemerals_dropped = dropped,
        "recovered"
    );
    Ok(store)
}

/// A number that clients cannot know: std's hasher is seeded by the system's randomness.
fn hash_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
