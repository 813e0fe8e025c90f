//! Whom to load: a cluster that is already there, or one that is started on this machine for the run.
//!
//! `zoometry:N` runs members as child processes of this very executable (`zoometry server zoo.cfg`); `apache:N` runs an
//! installed Apache ZooKeeper. Both get loopback ports that were free a moment ago, a directory of their own, the same zoo.cfg, and are
//! gone when the run is: SIGTERM at the end, SIGKILL on drop, and the kernel kills them when this process dies.
//!
//! Members are broken on purpose by [`Cluster::perform`]; it does not repair members that fall over by themselves.

mod apache;
mod child;
mod file;
mod local;
mod process;
mod relay;

pub use apache::Installation;
pub use child::Child;
pub use file::{ClusterFile, Commands, FileMember, run as run_command};
pub use local::{Disks, Links, Local, Making, Process, free_ports};
pub use process::ProcessId;

use crate::credentials::Credentials;
use crate::driver::Client;
use crate::progress::Waiting;
use crate::results::MemberFingerprint;
use crate::scrape;
use anyhow::{Context, Result, bail};
use local::{Program, SPAN_FILE, start_members};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

/// How many members `run` and `up` start when nobody says.
pub const DEFAULT_MEMBERS: u32 = 3;
/// How many members an ensemble on one machine may have.
pub const MEMBERS_MAX: u32 = 9;
/// A local ensemble gets this long until all of it serves, and [`START_LIMIT_PER_MEMBER`] more for each member.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// See [`START_LIMIT`].
pub const START_LIMIT_PER_MEMBER: Duration = Duration::from_secs(5);
/// A local member gets this long to end after SIGTERM.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Timeout of the session that asks whether a member serves.
const PROBE_TIMEOUT_MS: i32 = 4000;

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
    /// `host:port,host:port`, or with the znode behind it below which everything is to happen: `host:port,host:port/app`.
    Hosts(Vec<String>, Chroot),
    /// `FILE.toml`: hosts, and the commands that break them.
    File(ClusterFile),
}

/// A path in front of every other path, as in the connect strings of ZooKeeper's clients; empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chroot(String);

impl std::str::FromStr for Chroot {
    type Err = String;

    /// `/app`; `/` and nothing are no chroot.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "/" {
            return Ok(Chroot::default());
        }
        match zoometry_wire::path::validate(text) {
            Ok(()) if text.contains(',') => {
                Err(format!("'{text}': the chroot goes behind the last host: host:port,host:port/chroot"))
            }
            Ok(()) => Ok(Chroot(text.to_owned())),
            Err(error) => Err(format!("'{text}' behind the hosts is no path of a znode: {error}")),
        }
    }
}

impl Wanted {
    /// The path in front of every other path; empty for none.
    pub fn chroot(&self) -> &str {
        match self {
            Wanted::Zoometry(_) | Wanted::Apache(_) => "",
            Wanted::Hosts(_, chroot) => &chroot.0,
            Wanted::File(file) => &file.chroot.0,
        }
    }

    /// Whether its members are started for the run, and belong to nobody else.
    pub fn is_started_here(&self) -> bool {
        matches!(self, Wanted::Zoometry(_) | Wanted::Apache(_))
    }

    /// How many members it has.
    pub fn members(&self) -> usize {
        match self {
            Wanted::Zoometry(n) | Wanted::Apache(n) => *n as usize,
            Wanted::Hosts(hosts, _) => hosts.len(),
            Wanted::File(file) => file.members.len(),
        }
    }

    /// What is worth knowing about an ensemble of this size.
    pub fn advice(&self) -> Option<String> {
        match self {
            Wanted::Zoometry(n) | Wanted::Apache(n) if n % 2 == 0 => Some(format!(
                "note: {n} members survive the loss of {}, no more than {} would; odd numbers are usual",
                (n - 1) / 2,
                n - 1
            )),
            _ => None,
        }
    }

    /// A short name for directories and charts: `zoometry-1`.
    pub fn label(&self) -> String {
        match self {
            Wanted::Zoometry(n) => format!("zoometry-{n}"),
            Wanted::Apache(n) => format!("apache-{n}"),
            Wanted::Hosts(hosts, _) if hosts.len() == 1 => hosts[0].clone(),
            Wanted::Hosts(hosts, _) => format!("{}-and-{}-more", hosts[0], hosts.len() - 1),
            Wanted::File(file) => file.name.clone(),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Zoometry(n) => write!(f, "zoometry:{n}"),
            Wanted::Apache(n) => write!(f, "apache:{n}"),
            Wanted::Hosts(hosts, chroot) => write!(f, "{}{}", hosts.join(","), chroot.0),
            Wanted::File(file) => {
                let addresses: Vec<&str> = file.members.iter().map(|m| m.address.as_str()).collect();
                write!(f, "{}{}", addresses.join(","), file.chroot.0)
            }
        }
    }
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let members = |n: &str| match n.parse::<u32>() {
            Ok(n) if (1..=MEMBERS_MAX).contains(&n) => Ok(n),
            _ => Err(format!("'{text}': {EXPECTED}; N is a number of members from 1 to {MEMBERS_MAX}")),
        };
        match text.split_once(':') {
            Some(("zoometry", n)) => members(n).map(Wanted::Zoometry),
            Some(("apache", n)) => members(n).map(Wanted::Apache),
            _ if text.ends_with(".toml") => ClusterFile::load(Path::new(text)).map(Wanted::File),
            _ => {
                let (hosts, chroot) = text.split_at(text.find('/').unwrap_or(text.len()));
                let chroot: Chroot = chroot.parse()?;
                let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
                hosts.iter().try_for_each(|host| check_address(host))?;
                if let Some(at) = (1..hosts.len()).find(|at| hosts[..*at].contains(&hosts[*at])) {
                    return Err(format!("'{}' is there twice; name every member once", hosts[at]));
                }
                Ok(Wanted::Hosts(hosts, chroot))
            }
        }
    }
}

const EXPECTED: &str =
    "expected zoometry:N, apache:N, host:port,host:port,...[/chroot] or a cluster file (.toml)";

/// Complains about what is not `host:port`.
fn check_address(host: &str) -> Result<(), String> {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    if name.is_empty() || port.parse::<u16>().is_err_and(|_| !port.is_empty()) {
        return Err(format!("'{host}' is no address; {EXPECTED}"));
    }
    if port.is_empty() {
        return Err(format!("'{host}' has no port; {EXPECTED} (ZooKeeper's usual port is 2181)"));
    }
    Ok(())
}

/// What a member is called everywhere, counted from 1: as in zoo.cfg. Of a cluster that is already there, in the order in which its
/// members are given.
pub fn server_name(number: usize) -> String {
    format!("server.{number}")
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// `server.3`, see [`server_name`].
    pub name: String,
    /// `host:port` as given, or the loopback address.
    pub host: String,
    /// Its client port.
    pub address: SocketAddr,
    /// Its process, if we start it.
    pub local: Option<Local>,
    /// What breaks it, if we do not.
    pub commands: Commands,
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
    /// Who our sessions are.
    pub credentials: Credentials,
    relays: Option<relay::Relays>,
}

/// What can be done to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and its end is waited for.
    End,
    /// A new process on the same data.
    Start,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// Cut off from the other members.
    Cut,
    /// No longer cut off.
    Heal,
    /// Every sync of its disk takes this much longer.
    SlowDisk {
        /// In nanoseconds.
        delay_ns: u64,
    },
    /// Its disk is as fast as it is.
    FastDisk,
}

impl Cluster {
    /// A cluster that is already there. Nothing is connected to yet.
    ///
    /// # Errors
    /// A host that does not resolve.
    pub fn hosts(wanted: &Wanted) -> Result<Cluster> {
        let members = match wanted {
            Wanted::Hosts(hosts, _) => {
                let members = hosts.iter().zip(1..);
                members
                    .map(|(host, number)| resolve(number, host, Commands::default()))
                    .collect::<Result<Vec<_>>>()?
            }
            Wanted::File(file) => file
                .members
                .iter()
                .zip(1..)
                .map(|(member, number)| resolve(number, &member.address, member.commands.clone()))
                .collect::<Result<Vec<_>>>()?,
            _ => bail!("{wanted} is not a list of hosts"),
        };
        Ok(Cluster {
            wanted: wanted.clone(),
            members,
            directory: None,
            credentials: Credentials::default(),
            relays: None,
        })
    }

    /// Resolves the hosts, or starts the members below `directory` and waits until each has opened a session for us.
    ///
    /// # Errors
    /// A host that does not resolve; no Apache ZooKeeper installed; a member that died or did not serve in time, with the last
    /// lines of its log.
    pub async fn start(
        wanted: &Wanted,
        directory: &Path,
        making: Making<'_>,
        waiting: &mut Waiting,
    ) -> Result<Cluster> {
        let (members, relays) = match wanted {
            Wanted::Hosts(..) | Wanted::File(_) => return Cluster::hosts(wanted),
            Wanted::Zoometry(n) => start_members(*n, directory, making, &Program::Zoometry)?,
            Wanted::Apache(n) => {
                let installation = Installation::find(&|name| std::env::var_os(name))?;
                start_members(*n, directory, making, &Program::Apache(installation))?
            }
        };
        let directory = Some(directory.to_owned());
        let credentials = Credentials::default();
        let mut cluster = Cluster { wanted: wanted.clone(), members, directory, credentials, relays };
        cluster.wait_until_serving(waiting).await?;
        Ok(cluster)
    }

    /// The same, for sessions that say who they are.
    pub fn with_credentials(self, credentials: Credentials) -> Cluster {
        Cluster { credentials, ..self }
    }

    /// A session with the first member that lets us, by `deadline`.
    pub(crate) async fn client(&self, timeout_ms: i32, deadline: Instant) -> Result<Client> {
        Client::connect(&self.addresses(), timeout_ms, deadline, &self.credentials).await
    }

    /// Waits until every member has opened a session for us.
    async fn wait_until_serving(&mut self, waiting: &mut Waiting) -> Result<()> {
        let limit = START_LIMIT + START_LIMIT_PER_MEMBER * self.members.len() as u32;
        let started = Instant::now();
        for at in 0..self.members.len() {
            let address = self.members[at].address;
            loop {
                if let Ok(client) =
                    Client::connect(&[address], PROBE_TIMEOUT_MS, Instant::now(), &self.credentials).await
                {
                    client.close().await;
                    break;
                }
                if let Some(fallen) = self.fallen() {
                    bail!("before all members served, {fallen}");
                }
                let member = &self.members[at];
                if started.elapsed() > limit {
                    let last_words = member.local.as_ref().map_or_else(String::new, Local::last_words);
                    bail!("{member} does not serve after {limit:?}{last_words}");
                }
                waiting.still(started.elapsed(), || format!("waiting for {member}"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The files in which local members leave their spans, as far as they exist.
    pub fn span_files(&self) -> Vec<PathBuf> {
        let homes = self
            .directory
            .iter()
            .flat_map(|directory| (1..=self.members.len()).map(move |number| local::home(directory, number)));
        homes.map(|home| home.join(SPAN_FILE)).filter(|file| file.is_file()).collect()
    }

    /// The client addresses, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.address).collect()
    }

    /// The connect string that other clients take.
    pub fn connect_string(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|member| member.host.as_str()).collect();
        format!("{}{}", names.join(","), self.wanted.chroot())
    }

    /// Whether its members share this machine with us: they were started here, or listen on loopback.
    pub fn is_local(&self) -> bool {
        self.members.iter().any(|member| member.local.is_some() || member.address.ip().is_loopback())
    }

    /// What each member says about itself.
    pub async fn fingerprints(&self) -> Vec<MemberFingerprint> {
        let mut all = Vec::new();
        for member in &self.members {
            let mut found = scrape::fingerprint(&member.name, &member.host, member.address).await;
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

    /// What each member says it does at this moment: `leader`, `follower`, …; `None` where it serves nobody.
    pub async fn roles(&self) -> Vec<Option<String>> {
        let mut roles = Vec::new();
        for member in &self.members {
            roles.push(scrape::role(member.address).await);
        }
        roles
    }

    /// A local member that ended without being asked to, with the end of its log.
    pub fn fallen(&mut self) -> Option<String> {
        self.members.iter_mut().find_map(|member| {
            let how = member.local.as_mut()?.fallen()?;
            Some(format!("{member} ended {how}"))
        })
    }

    /// What the first local member's log warns of in lines of its zoo.cfg: all have the same.
    pub fn warnings_of(&self, zoo_cfg: &[(String, String)]) -> Vec<String> {
        let keys: Vec<&str> = zoo_cfg.iter().map(|(key, _)| key.as_str()).collect();
        let local = self.members.first().and_then(|member| member.local.as_ref());
        local.map_or_else(Vec::new, |local| local.warnings_of(&keys))
    }

    /// Whether a deed can be done to the member at `at` at all.
    ///
    /// # Errors
    /// What is missing.
    pub fn can_perform(&self, at: usize, deed: Deed) -> Result<()> {
        let member = &self.members[at];
        if let Some(local) = &member.local {
            if matches!(deed, Deed::Cut | Deed::Heal) && self.relays.is_none() {
                bail!("{member} has no others that it could be cut off from");
            }
            if matches!(deed, Deed::SlowDisk { .. } | Deed::FastDisk) && local.delay_file.is_none() {
                bail!("the disk of {member} cannot be made slow");
            }
            return Ok(());
        }
        // The command that starts a member also ends the process that it had.
        if deed != Deed::End && member.command(deed).is_none() {
            bail!(
                "{member} was not started by this run, and nothing says how to {} it: give --cluster a file with \
                 [[member]] address = \"{}\", {} = \"command\"",
                deed.key(),
                member.host,
                deed.key()
            );
        }
        Ok(())
    }

    /// Begins to do something to the member at `at`.
    ///
    /// # Errors
    /// What could not be done.
    pub fn begin(&mut self, at: usize, deed: Deed) -> Result<Begun> {
        let what = format!("{} {}", deed.key(), self.members[at]);
        match self.begin_to(at, deed).with_context(|| what.clone())? {
            Begun::Going(rest) => Ok(Begun::Going(Box::pin(async { rest.await.context(what) }))),
            begun => Ok(begun),
        }
    }

    fn begin_to(&mut self, at: usize, deed: Deed) -> Result<Begun> {
        self.can_perform(at, deed)?;
        let member = &mut self.members[at];
        let Some(local) = &mut member.local else {
            let command = member.command(deed).map(str::to_owned);
            return Ok(match command {
                Some(command) => Begun::Going(Box::pin(async move { file::run(&command, deed).await })),
                None => Begun::Done,
            });
        };
        match (deed, &self.relays) {
            (Deed::Kill, _) => return Ok(Begun::Going(Box::pin(local.kill()?))),
            (Deed::End, _) => {
                local.ask_to_end();
                return Ok(Begun::Going(Box::pin(local.end(STOP_LIMIT))));
            }
            (Deed::Start, _) if local.has_process() => return Ok(Begun::Needless("it runs already")),
            (Deed::Start, _) => local.start()?,
            (Deed::Stop, _) => local.pause()?,
            (Deed::Continue, _) if !local.has_process() => {
                return Ok(Begun::Needless("it has no process any more"));
            }
            (Deed::Continue, _) => local.resume()?,
            (Deed::Cut, Some(relays)) => relays.cut(at),
            (Deed::Heal, Some(relays)) => relays.heal(at),
            (Deed::Cut | Deed::Heal, None) => bail!("there are no relays between the members"),
            (Deed::SlowDisk { delay_ns }, _) => local.slow_disk(Some(delay_ns))?,
            (Deed::FastDisk, _) => local.slow_disk(None)?,
        }
        Ok(Begun::Done)
    }

    /// The command by which somebody else can do this to the member at `at`; for members that were not started here.
    pub fn command(&self, at: usize, deed: Deed) -> Option<&str> {
        self.members[at].command(deed)
    }

    /// Stops local members; keeps their logs and zoo.cfg, removes their data unless `keep`.
    pub async fn stop(mut self, keep: Keep) -> Result<()> {
        // All at once: the last ones of an ensemble have nobody to talk to.
        self.members.iter_mut().filter_map(|member| member.local.as_mut()).for_each(Local::ask_to_end);
        for member in &mut self.members {
            if let Some(local) = &mut member.local {
                local.end(STOP_LIMIT).await.with_context(|| format!("stop {member}"))?;
            }
        }
        if let (Some(directory), Keep::Nothing) = (&self.directory, keep) {
            for number in 1..=self.members.len() {
                let data = local::home(directory, number).join("data");
                std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
            }
        }
        Ok(())
    }
}

/// How far a deed is when it has begun.
pub enum Begun {
    /// It is done.
    Done,
    /// It is done when this is.
    Going(Pin<Box<dyn Future<Output = Result<()>> + Send>>),
    /// There was nothing to do, because of this.
    Needless(&'static str),
}

/// What is left of local members' data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing but logs and zoo.cfg.
    Nothing,
    /// Everything.
    Data,
}

impl Deed {
    /// The key of its command in a cluster file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Deed::Kill => "kill",
            Deed::End | Deed::Start => "restart",
            Deed::Stop => "stop",
            Deed::Continue => "continue",
            Deed::Cut => "cut",
            Deed::Heal => "heal",
            Deed::SlowDisk { .. } => "slow-disk",
            Deed::FastDisk => "fast-disk",
        }
    }
}

impl std::fmt::Display for Member {
    /// `server.3 (zk3:2181)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.host)
    }
}

impl Member {
    fn command(&self, deed: Deed) -> Option<&str> {
        self.commands.of(deed)
    }
}

fn resolve(number: usize, host: &str, commands: Commands) -> Result<Member> {
    let address = host
        .to_socket_addrs()
        .with_context(|| format!("{host} cannot be resolved; --cluster takes host:port,host:port,..."))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let (name, host) = (server_name(number), host.to_owned());
    Ok(Member { name, host, address, local: None, commands, settings: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_as_documented() {
        let hosts = |hosts: &[&str], chroot: &str| {
            Wanted::Hosts(hosts.iter().map(|host| (*host).to_owned()).collect(), Chroot(chroot.into()))
        };
        let good = [
            ("zoometry:1", Wanted::Zoometry(1), "zoometry-1"),
            ("apache:1", Wanted::Apache(1), "apache-1"),
            ("apache:3", Wanted::Apache(3), "apache-3"),
            ("zk1:2181", hosts(&["zk1:2181"], ""), "zk1:2181"),
            ("zk1:2181/", hosts(&["zk1:2181"], ""), "zk1:2181"),
            ("a:1, b:2", hosts(&["a:1", "b:2"], ""), "a:1-and-1-more"),
            ("a:1,b:2/app/x", hosts(&["a:1", "b:2"], "/app/x"), "a:1-and-1-more"),
        ];
        for (text, wanted, label) in good {
            assert_eq!(text.parse(), Ok(wanted.clone()), "{text}");
            assert_eq!(wanted.label(), label);
        }
        for (text, complaint) in [
            ("zoometry:10", "from 1 to 9"),
            ("apache:0", "number of members"),
            ("zoometry:many", "number of members"),
            ("localhost", "has no port"),
            ("zk1:port", "is no address"),
            ("", "is no address"),
            ("a:1,,b:2", "is no address"),
            ("a:1,b:2,a:1", "'a:1' is there twice"),
            ("a:1,b:2/app/", "'/app/' behind the hosts is no path of a znode"),
            ("a:1/app,b:2", "the chroot goes behind the last host"),
            ("no-such-cluster.toml", "cannot be read"),
        ] {
            let error = text.parse::<Wanted>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn what_nobody_said_how_to_do_is_refused_with_what_is_missing() {
        let commands = Commands { kill: Some("exit 3".into()), ..Commands::default() };
        let member = FileMember { address: "127.0.0.1:2181".into(), commands };
        let wanted = Wanted::File(ClusterFile {
            path: "lab.toml".into(),
            name: "lab".into(),
            members: vec![member],
            chroot: Chroot::default(),
        });
        let mut cluster = Cluster::hosts(&wanted).unwrap();
        let Ok(Begun::Going(killing)) = cluster.begin(0, Deed::Kill) else { panic!("a command takes time") };
        let error = format!("{:#}", killing.await.unwrap_err());
        assert!(error.starts_with("kill server.1 (127.0.0.1:2181): `exit 3` failed"), "{error}");
        let Err(error) = cluster.begin(0, Deed::Stop) else { panic!("there is no command") };
        let error = format!("{error:#}");
        assert!(error.contains("nothing says how to stop it") && error.contains("stop = "), "{error}");
    }
}
