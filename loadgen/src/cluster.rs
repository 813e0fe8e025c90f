//! Whom to load: a cluster that is already there, or one that is started on this machine for the run.
//!
//! `zoometry:N` runs members as child processes of this very executable (`zoometry server zoo.cfg`); `apache:N` runs an
//! installed Apache ZooKeeper. Both get loopback ports that were free a moment ago, a directory of their own, the same zoo.cfg, and are
//! gone when the run is: SIGTERM at the end, SIGKILL on drop, and the kernel kills them when this process dies.
//!
//! It does not repair members that fall over during a run, and starts one member only so far.

mod apache;
mod child;

pub use apache::Installation;
pub use child::Child;

use crate::driver::Client;
use crate::progress::Waiting;
use crate::results::MemberFingerprint;
use crate::scrape;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A local member gets this long until it serves.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// A local member gets this long to end after SIGTERM.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Timeout of the session that asks whether a member serves.
const PROBE_TIMEOUT_MS: i32 = 4000;
/// zoo.cfg's tickTime for local members.
const TICK_MS: u32 = 2000;

/// Where one of our own members leaves its spans, in its directory.
const SPAN_FILE: &str = "spans.jsonl";

/// How our own members trace; the load generator samples by the same share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracing {
    /// Share of requests that are traced from the start, 0 to 1.
    pub sample: f64,
    /// A request that takes longer is kept as well; 0 for none.
    pub slow_ms: u32,
    /// So many of the slowest requests of every second are kept as well.
    pub slowest: u32,
    /// Where spans go besides OTLP, and whose requests they are.
    pub clients: Clients,
}

/// Who loads our own members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// We do: members name our spans as their parents, and leave their spans in a file for `traces.json`.
    Ours,
    /// Anybody: members' spans are roots, and go to OTLP only.
    Others,
}

/// What `--cluster` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `zoometry:N`: our own, N members.
    Zoometry(u32),
    /// `apache:N`: Apache ZooKeeper, N members.
    Apache(u32),
    /// `host:port,host:port`.
    Hosts(Vec<String>),
}

impl Wanted {
    /// A short name for directories and charts: `zoometry-1`.
    pub fn label(&self) -> String {
        match self {
            Wanted::Zoometry(n) => format!("zoometry-{n}"),
            Wanted::Apache(n) => format!("apache-{n}"),
            Wanted::Hosts(hosts) if hosts.len() == 1 => hosts[0].clone(),
            Wanted::Hosts(hosts) => format!("{}-and-{}-more", hosts[0], hosts.len() - 1),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Zoometry(n) => write!(f, "zoometry:{n}"),
            Wanted::Apache(n) => write!(f, "apache:{n}"),
            Wanted::Hosts(hosts) => write!(f, "{}", hosts.join(",")),
        }
    }
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected zoometry:N, apache:N, or host:port,host:port,...";
        let members = |n: &str| match n.parse::<u32>() {
            Ok(1) => Ok(1),
            Ok(n @ 2..=15) => Err(format!(
                "'{text}' asks for {n} members, and this version starts one: use {}:1, or start \
                 the ensemble yourself and name its hosts",
                text.split(':').next().unwrap_or(text)
            )),
            _ => Err(format!("'{text}': {expected}; N is a number of members")),
        };
        match text.split_once(':') {
            Some(("zoometry", n)) => members(n).map(Wanted::Zoometry),
            Some(("apache", n)) => members(n).map(Wanted::Apache),
            _ => {
                let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_owned()).collect();
                for host in &hosts {
                    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
                    if name.is_empty() || port.parse::<u16>().is_err_and(|_| !port.is_empty()) {
                        return Err(format!("'{host}' is no address; {expected}"));
                    }
                    if port.is_empty() {
                        return Err(format!(
                            "'{host}' has no port; {expected} (ZooKeeper's usual port is 2181)"
                        ));
                    }
                }
                Ok(Wanted::Hosts(hosts))
            }
        }
    }
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// `host:port` as given, or the loopback address.
    pub name: String,
    /// Its client port.
    pub address: SocketAddr,
    /// The process, if we started it.
    pub child: Option<Child>,
    /// What it was started with, for the manifest.
    pub settings: BTreeMap<String, String>,
}

/// A cluster, reachable or started.
#[derive(Debug)]
pub struct Cluster {
    /// What was asked for.
    pub wanted: Wanted,
    /// In the order of the list; sessions are placed by this order.
    pub members: Vec<Member>,
    /// Where local members keep their things; `None` for hosts.
    pub directory: Option<PathBuf>,
}

impl Cluster {
    /// A cluster that is already there. Nothing is connected to yet.
    ///
    /// # Errors
    /// A host that does not resolve.
    pub fn hosts(wanted: &Wanted) -> Result<Cluster> {
        let Wanted::Hosts(hosts) = wanted else { bail!("{wanted} is not a list of hosts") };
        let members = hosts.iter().map(|host| resolve(host)).collect::<Result<Vec<_>>>()?;
        Ok(Cluster { wanted: wanted.clone(), members, directory: None })
    }

    /// Resolves the hosts, or starts the members below `directory` and waits until they serve.
    ///
    /// # Errors
    /// A host that does not resolve; no Apache ZooKeeper installed; a member that died or did not serve in time, with the last
    /// lines of its log.
    pub async fn start(
        wanted: &Wanted,
        directory: &Path,
        tracing: Tracing,
        waiting: &mut Waiting,
    ) -> Result<Cluster> {
        let members = match wanted {
            Wanted::Hosts(_) => return Cluster::hosts(wanted),
            Wanted::Zoometry(n) => start_members(*n, directory, tracing, &Program::Zoometry)?,
            Wanted::Apache(n) => {
                let installation = Installation::find(&|name| std::env::var_os(name))?;
                start_members(*n, directory, tracing, &Program::Apache(installation))?
            }
        };
        let directory = Some(directory.to_owned());
        let mut cluster = Cluster { wanted: wanted.clone(), members, directory };
        for member in &mut cluster.members {
            wait_until_serving(member, waiting).await?;
        }
        Ok(cluster)
    }

    /// The files in which local members leave their spans, as far as they exist.
    pub fn span_files(&self) -> Vec<PathBuf> {
        let homes = self.directory.iter().flat_map(|directory| {
            (1..=self.members.len()).map(move |member| directory.join(format!("member-{member}")))
        });
        homes.map(|home| home.join(SPAN_FILE)).filter(|file| file.is_file()).collect()
    }

    /// The client addresses, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.address).collect()
    }

    /// The connect string that other clients take.
    pub fn connect_string(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        names.join(",")
    }

    /// Whether its members share this machine with us: they were started here, or listen on loopback.
    pub fn is_local(&self) -> bool {
        self.members.iter().any(|member| member.child.is_some() || member.address.ip().is_loopback())
    }

    /// What each member says about itself.
    pub async fn fingerprints(&self) -> Vec<MemberFingerprint> {
        let mut all = Vec::new();
        for member in &self.members {
            let mut found = scrape::fingerprint(&member.name, member.address).await;
            found.settings.extend(member.settings.clone());
            all.push(found);
        }
        all
    }

    /// Which member leads (a standalone server leads itself); `None` if nobody says so.
    pub async fn leader(&self) -> Option<usize> {
        for (at, member) in self.members.iter().enumerate() {
            let role = scrape::role(member.address).await;
            if matches!(role.as_deref(), Some("leader" | "standalone")) {
                return Some(at);
            }
        }
        None
    }

    /// A local member that is not running any more, with the end of its log.
    pub fn fallen(&mut self) -> Option<String> {
        self.members.iter_mut().find_map(|member| {
            let child = member.child.as_mut()?;
            let how = child.exited()?;
            Some(format!("{} ended ({how}){}", member.name, child.last_words()))
        })
    }

    /// Stops local members; keeps their logs and zoo.cfg, removes their data unless `keep`.
    pub async fn stop(mut self, keep: Keep) -> Result<()> {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                child.stop(STOP_LIMIT).await.with_context(|| format!("stop {}", member.name))?;
            }
        }
        if let (Some(directory), Keep::Nothing) = (&self.directory, keep) {
            for member in 1..=self.members.len() {
                let data = directory.join(format!("member-{member}")).join("data");
                std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
            }
        }
        Ok(())
    }
}

/// What is left of local members' data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing but logs and zoo.cfg.
    Nothing,
    /// Everything.
    Data,
}

fn resolve(host: &str) -> Result<Member> {
    let address = host
        .to_socket_addrs()
        .with_context(|| format!("{host} cannot be resolved; --cluster takes host:port,host:port,..."))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    Ok(Member { name: host.to_owned(), address, child: None, settings: BTreeMap::new() })
}

enum Program {
    Zoometry,
    Apache(Installation),
}

fn start_members(count: u32, directory: &Path, tracing: Tracing, program: &Program) -> Result<Vec<Member>> {
    ensure!(count == 1, "this version starts one member, not {count}");
    let mut members = Vec::new();
    for number in 1..=count {
        let home = directory.join(format!("member-{number}"));
        let data = home.join("data");
        std::fs::create_dir_all(&data)
            .with_context(|| format!("create the data directory {}", data.display()))?;
        let home = home.canonicalize().with_context(|| format!("resolve {}", home.display()))?;
        let port = free_port()?;
        let config = home.join("zoo.cfg");
        let mut text = zoo_cfg(&home.join("data"), port);
        if let Program::Zoometry = program {
            text.push_str(&tracing_cfg(&home.join(SPAN_FILE), tracing));
        }
        std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let log = home.join("server.log");
        let (child, settings) = match program {
            Program::Zoometry => {
                let executable = std::env::current_exe().context("find this executable")?;
                (Child::spawn(&executable, &["server".into(), config.into()], &log)?, BTreeMap::new())
            }
            Program::Apache(installation) => {
                let arguments = installation.arguments(&config);
                let settings = installation.settings();
                (Child::spawn(&installation.java, &arguments, &log)?, settings)
            }
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        members.push(Member { name: address.to_string(), address, child: Some(child), settings });
    }
    Ok(members)
}

/// The same for every kind of member, so that they can be compared: everything durable, nothing throttled.
fn zoo_cfg(data: &Path, port: u16) -> String {
    format!(
        "# Written by zoometry for one run.\n\
         tickTime={TICK_MS}\n\
         dataDir={}\n\
         clientPort={port}\n\
         clientPortAddress=127.0.0.1\n\
         maxClientCnxns=0\n\
         forceSync=yes\n\
         admin.enableServer=false\n\
         4lw.commands.whitelist=*\n",
        data.display()
    )
}

/// What only our own members understand.
fn tracing_cfg(file: &Path, tracing: Tracing) -> String {
    let Tracing { sample, slow_ms, slowest, clients } = tracing;
    let mut text = format!(
        "zoometry.traceSample={sample}\nzoometry.traceSlowMs={slow_ms}\nzoometry.traceSlowest={slowest}\n"
    );
    if clients == Clients::Ours {
        text.push_str(&format!("zoometry.traceParent=true\nzoometry.traceFile={}\n", file.display()));
    }
    text
}

/// A port that nobody listens on now. Another process can take it before the member does; the member then says so.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

async fn wait_until_serving(member: &mut Member, waiting: &mut Waiting) -> Result<()> {
    let started = Instant::now();
    loop {
        // A member that answers srvr serves; one that keeps its words to itself must open a session for us.
        if scrape::role(member.address).await.is_some() {
            return Ok(());
        }
        if let Ok(client) = Client::connect(&[member.address], PROBE_TIMEOUT_MS, Instant::now()).await {
            client.close().await;
            return Ok(());
        }
        let child = member.child.as_mut().expect("only local members are waited for");
        if let Some(how) = child.exited() {
            bail!("the server on {} ended before it served ({how}){}", member.name, child.last_words());
        }
        if started.elapsed() > START_LIMIT {
            bail!("the server on {} does not serve after {START_LIMIT:?}{}", member.name, child.last_words());
        }
        waiting.still(started.elapsed(), || format!("waiting for the server on {}", member.name));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_as_documented() {
        let good = [
            ("zoometry:1", Wanted::Zoometry(1), "zoometry-1"),
            ("apache:1", Wanted::Apache(1), "apache-1"),
            ("zk1:2181", Wanted::Hosts(vec!["zk1:2181".into()]), "zk1:2181"),
            ("a:1, b:2", Wanted::Hosts(vec!["a:1".into(), "b:2".into()]), "a:1-and-1-more"),
        ];
        for (text, wanted, label) in good {
            assert_eq!(text.parse(), Ok(wanted.clone()), "{text}");
            assert_eq!(wanted.label(), label);
        }
        for (text, complaint) in [
            ("zoometry:3", "starts one"),
            ("apache:0", "number of members"),
            ("zoometry:many", "number of members"),
            ("localhost", "has no port"),
            ("zk1:port", "is no address"),
            ("", "is no address"),
            ("a:1,,b:2", "is no address"),
        ] {
            let error = text.parse::<Wanted>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
