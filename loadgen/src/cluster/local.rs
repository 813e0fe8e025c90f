//! Members that are started on this machine: their directories, ports and zoo.cfg, and their processes, which faults end and
//! start again.
//!
//! Every member has `server.N/` with `zoo.cfg`, `server.log` (appended to by every process that it has had) and `data/`. Ports are
//! asked of the OS, all of an ensemble's at one time, so that they are distinct. They come from the range that outgoing connections
//! use as well; Linux gives even ports to these and odd ones to us, so a member finds its ports free when it comes back.

use super::{Child, Installation, Member, ProcessId, Tracing, relay};
use crate::scrape;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// zoo.cfg's tickTime for local members.
const TICK_MS: u32 = 2000;
/// zoo.cfg's initLimit, in ticks.
const INIT_LIMIT: u32 = 10;
/// zoo.cfg's syncLimit, in ticks.
const SYNC_LIMIT: u32 = 5;
/// Where one of our own members leaves its spans, in its directory.
pub(super) const SPAN_FILE: &str = "spans.jsonl";

/// What is run as a member.
pub(super) enum Program {
    /// This very executable.
    Zoometry,
    /// An installed Apache ZooKeeper.
    Apache(Installation),
}

/// How members reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// By their own ports.
    Direct,
    /// Through relays in this process, so that members can be cut off.
    Relayed,
}

/// What members' disks are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// As they are.
    Plain,
    /// As slow as they are told to be.
    Slowed,
}

/// How local members are made.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// What our own members trace.
    pub tracing: Tracing,
    /// How members reach each other.
    pub links: Links,
    /// Whether the disks of our own members can be made slow.
    pub disks: Disks,
    /// Lines for every member's zoo.cfg, key and value; they take the place of those written otherwise.
    pub zoo_cfg: &'a [(String, String)],
    /// The members' client ports; any free ones if empty.
    pub client_ports: &'a [u16],
    /// The ports on which members show Prometheus what they measure; none if empty.
    pub metrics_ports: &'a [u16],
}

/// So many free ports of 127.0.0.1, distinct.
pub fn free_ports(count: u32) -> Result<Vec<u16>> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held: std::io::Result<Vec<TcpListener>> = (0..count).map(bind).collect();
    let ports = held.and_then(|held| held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect());
    ports.context("find free ports on 127.0.0.1")
}

/// A member's ports on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) quorum: u16,
    pub(super) election: u16,
}

impl Ports {
    /// For so many members, with these client ports if there are any. Another process can take a port before its member does; the
    /// member then says so.
    fn find(members: u32, client: &[u16]) -> Result<Vec<Ports>> {
        let ports = free_ports(members * 3)?;
        let chosen = client.iter().copied().map(Some).chain(std::iter::repeat(None));
        let ports = ports.chunks(3).zip(chosen).map(|(three, client)| Ports {
            client: client.unwrap_or(three[0]),
            quorum: three[1],
            election: three[2],
        });
        Ok(ports.collect())
    }
}

/// The process that a member is at the moment, for those who measure it: faults replace it while they look.
#[derive(Debug, Default)]
pub struct Process(Mutex<(Option<u32>, u64)>);

impl Process {
    /// CPU time of all processes that the member has had, user and system.
    pub fn cpu_ns(&self) -> u64 {
        let (pid, before_ns) = *self.0.lock().expect("no thread panics holding it");
        before_ns + pid.and_then(scrape::process_cpu_ns).unwrap_or(0)
    }

    /// Resident memory; 0 while it has no process.
    pub fn resident_bytes(&self) -> u64 {
        let (pid, _) = *self.0.lock().expect("no thread panics holding it");
        pid.and_then(scrape::resident_bytes).unwrap_or(0)
    }

    /// A new process, after the one before has been booked.
    fn replaced(&self, pid: Option<u32>) {
        let spent_ns = self.cpu_ns();
        *self.0.lock().expect("no thread panics holding it") = (pid, spent_ns);
    }
}

/// What a local member is made of.
#[derive(Debug)]
pub struct Local {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
    /// Ended on purpose: that it does not run is no surprise.
    down: bool,
    /// Its `zoometry.syncDelayFile`.
    pub(super) delay_file: Option<PathBuf>,
    /// For samplers.
    pub process: Arc<Process>,
}

impl Local {
    /// Starts its process, on whatever data there is.
    pub(super) fn start(&mut self) -> Result<()> {
        let child = Child::spawn(&self.program, &self.arguments, &self.log)?;
        self.process.replaced(Some(child.id()));
        self.child = Some(child);
        self.down = false;
        Ok(())
    }

    /// How it ended, if nobody asked it to, with the end of its log.
    pub(super) fn fallen(&mut self) -> Option<String> {
        let child = self.child.as_mut().filter(|_| !self.down)?;
        let how = child.exited()?;
        Some(format!("({how}){}", child.last_words()))
    }

    /// Whether it has a process that runs, or could if it were not stopped.
    pub(super) fn has_process(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.exited().is_none())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        self.child.as_ref().map_or_else(String::new, Child::last_words)
    }

    /// Lines of its log that warn of something and contain one of `words`.
    pub(super) fn warnings_of(&self, words: &[&str]) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let warned = log.lines().filter_map(|line| line.split_once(" WARN ")).map(|(_, text)| text.trim());
        warned.filter(|text| words.iter().any(|word| text.contains(word))).map(str::to_owned).collect()
    }

    /// SIGKILL; it is gone when the future is done.
    pub(super) fn kill(&mut self) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
        self.down = true;
        if let Some(child) = &mut self.child {
            child.signal(libc::SIGKILL)?;
        }
        Ok(self.end(super::STOP_LIMIT))
    }

    /// SIGSTOP.
    pub(super) fn pause(&mut self) -> Result<()> {
        self.child.as_mut().context("it has no process")?.signal(libc::SIGSTOP)
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) -> Result<()> {
        self.child.as_mut().context("it has no process")?.signal(libc::SIGCONT)
    }

    /// Every sync takes so much longer from now on.
    pub(super) fn slow_disk(&mut self, delay_ns: Option<u64>) -> Result<()> {
        let file = self.delay_file.as_ref().context("its disk cannot be made slow")?;
        let written = match delay_ns {
            // It is read at every moment: whole or not at all.
            Some(delay_ns) => {
                let fresh = file.with_extension("fresh");
                std::fs::write(&fresh, format!("{}\n", delay_ns as f64 / 1e6))
                    .and_then(|()| std::fs::rename(&fresh, file))
            }
            None => match std::fs::remove_file(file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        written.with_context(|| format!("write {}", file.display()))
    }

    /// SIGTERM, to be followed by [`Local::end`]. A stopped process takes the signal when it goes on.
    pub(super) fn ask_to_end(&mut self) {
        self.down = true;
        if let Some(child) = &mut self.child {
            // A process that has ended needs no asking.
            let _ = child.signal(libc::SIGTERM).and_then(|()| child.signal(libc::SIGCONT));
        }
    }

    /// The end of its process, which is waited for for `limit`; then SIGKILL.
    pub(super) fn end(&mut self, limit: Duration) -> impl Future<Output = Result<()>> + Send + use<> {
        let (child, process) = (self.child.take(), self.process.clone());
        async move {
            if let Some(mut child) = child {
                child.wait_until_ended(limit).await?;
                // As long as nobody has waited for it, its CPU time can be read.
                process.replaced(None);
            }
            Ok(())
        }
    }

    /// Its process, to be found again.
    pub(crate) fn process_id(&self) -> Option<ProcessId> {
        ProcessId::of(self.child.as_ref()?.id())
    }
}

/// A member's own directory, counted from 1. Data directories of before were called `member-N`, and are used on.
pub(super) fn home(directory: &Path, number: usize) -> PathBuf {
    let before = directory.join(format!("member-{number}"));
    if before.is_dir() { before } else { directory.join(super::server_name(number)) }
}

/// Starts `count` members below `directory`; says which relays lie between them.
pub(super) fn start_members(
    count: u32,
    directory: &Path,
    making: Making<'_>,
    program: &Program,
) -> Result<(Vec<Member>, Option<relay::Relays>)> {
    let ports = Ports::find(count, making.client_ports)?;
    let relays = match making.links {
        Links::Relayed if count > 1 => Some(relay::Relays::start(&ports)?),
        _ => None,
    };
    let mut members = Vec::new();
    for (at, own) in ports.iter().enumerate() {
        let home = home(directory, at + 1);
        let data = home.join("data");
        std::fs::create_dir_all(&data)
            .with_context(|| format!("create the data directory {}", data.display()))?;
        let home = home.canonicalize().with_context(|| format!("resolve {}", home.display()))?;
        let data = home.join("data");
        let config = home.join("zoo.cfg");
        let mut text = zoo_cfg(&data, own.client);
        if count > 1 {
            let others = relays.as_ref().map_or(&ports[..], relay::Relays::ports);
            text.push_str(&ensemble_cfg(at, &ports, others));
            let myid = data.join("myid");
            std::fs::write(&myid, format!("{}\n", at + 1))
                .with_context(|| format!("write {}", myid.display()))?;
        }
        if let Some(port) = making.metrics_ports.get(at) {
            text.push_str(&metrics_cfg(*port));
        }
        let mut delay_file = None;
        if let Program::Zoometry = program {
            text.push_str(&tracing_cfg(&home.join(SPAN_FILE), making.tracing));
            text.push_str(&format!("zoometry.serviceName={}\n", super::server_name(at + 1)));
            if making.disks == Disks::Slowed {
                let file = home.join("sync-delay-ms");
                text.push_str(&format!("zoometry.syncDelayFile={}\n", file.display()));
                delay_file = Some(file);
            }
        }
        let text = with_lines(&text, making.zoo_cfg);
        std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let (program, arguments, mut settings) = match program {
            Program::Zoometry => {
                let executable = std::env::current_exe().context("find this executable")?;
                (executable, vec!["server".into(), config.into()], BTreeMap::new())
            }
            Program::Apache(installation) => {
                (installation.java.clone(), installation.arguments(&config), installation.settings())
            }
        };
        settings.extend(making.zoo_cfg.iter().map(|(key, value)| (format!("zoo.cfg {key}"), value.clone())));
        let mut local = Local {
            program,
            arguments,
            log: home.join("server.log"),
            child: None,
            down: false,
            delay_file,
            process: Arc::default(),
        };
        local.start()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, own.client));
        members.push(Member {
            name: super::server_name(at + 1),
            host: address.to_string(),
            address,
            local: Some(local),
            commands: Default::default(),
            settings,
        });
    }
    Ok((members, relays))
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

/// The file with these lines in place of those that set the same keys.
fn with_lines(text: &str, lines: &[(String, String)]) -> String {
    let is_set = |line: &str| {
        line.split_once('=').is_some_and(|(key, _)| lines.iter().any(|(other, _)| other == key.trim()))
    };
    let mut kept: String =
        text.lines().filter(|line| !is_set(line)).map(|line| format!("{line}\n")).collect();
    for (key, value) in lines {
        kept.push_str(&format!("{key}={value}\n"));
    }
    kept
}

/// The part about the ensemble in the zoo.cfg of the member at `at`: its own real ports, which it listens on, and those by which it
/// reaches the others.
fn ensemble_cfg(at: usize, real: &[Ports], others: &[Ports]) -> String {
    let mut text = format!("initLimit={INIT_LIMIT}\nsyncLimit={SYNC_LIMIT}\n");
    for (of, (own, relayed)) in real.iter().zip(others).enumerate() {
        let ports = if of == at { own } else { relayed };
        text.push_str(&format!("server.{}=127.0.0.1:{}:{}\n", of + 1, ports.quorum, ports.election));
    }
    text
}

/// Figures for Prometheus, of our members and Apache's alike.
fn metrics_cfg(port: u16) -> String {
    format!(
        "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpHost=127.0.0.1\nmetricsProvider.httpPort={port}\n"
    )
}

/// What only our own members understand.
fn tracing_cfg(file: &Path, tracing: Tracing) -> String {
    let Tracing { sample, slow_ms, slowest, clients } = tracing;
    let mut text = format!(
        "zoometry.traceSample={sample}\nzoometry.traceSlowMs={slow_ms}\nzoometry.traceSlowest={slowest}\n"
    );
    if clients == super::Clients::Ours {
        text.push_str(&format!("zoometry.traceParent=true\nzoometry.traceFile={}\n", file.display()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_an_ensemble_are_distinct() {
        let ports = Ports::find(9, &[]).unwrap();
        let mut all: Vec<u16> = ports.iter().flat_map(|p| [p.client, p.quorum, p.election]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 27);
    }

    #[test]
    fn data_of_before_is_used_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("member-2")).unwrap();
        assert_eq!(home(dir.path(), 1), dir.path().join("server.1"));
        assert_eq!(home(dir.path(), 2), dir.path().join("member-2"));
    }

    #[test]
    fn client_ports_can_be_chosen() {
        let ports = Ports::find(3, &[29_801, 29_802]).unwrap();
        assert_eq!((ports[0].client, ports[1].client), (29_801, 29_802));
        assert!(ports[2].client != 0 && ports[0].quorum != ports[0].election);
    }

    #[test]
    fn lines_from_outside_take_the_place_of_ours() {
        let lines = [("tickTime", "500"), ("snapCount", "7")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let text = with_lines("tickTime=2000\nsyncLimit=5\n", &lines);
        assert_eq!(text, "syncLimit=5\ntickTime=500\nsnapCount=7\n");
    }

    #[test]
    fn a_member_listens_on_its_own_ports_and_reaches_others_by_theirs() {
        let ports = |base: u16| Ports { client: base, quorum: base + 1, election: base + 2 };
        let real = [ports(10), ports(20), ports(30)];
        let direct = ensemble_cfg(1, &real, &real);
        assert_eq!(
            direct,
            "initLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:11:12\nserver.2=127.0.0.1:21:22\nserver.3=127.0.0.1:31:32\n"
        );
        let relayed = ensemble_cfg(1, &real, &[ports(110), ports(120), ports(130)]);
        assert_eq!(
            relayed,
            "initLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:111:112\nserver.2=127.0.0.1:21:22\nserver.3=127.0.0.1:131:132\n"
        );
    }

    #[tokio::test]
    async fn a_member_that_was_killed_starts_again_and_its_cpu_time_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut local = Local {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; sleep 60".into(),
            ],
            log: dir.path().join("log"),
            child: None,
            down: false,
            delay_file: None,
            process: Arc::default(),
        };
        local.start().unwrap();
        let log = dir.path().join("log");
        while !std::fs::read_to_string(&log).unwrap().contains("ready") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        local.kill().unwrap().await.unwrap();
        let spent_ns = local.process.cpu_ns();
        assert!(spent_ns > 0 && !local.has_process() && local.process.resident_bytes() == 0);
        assert_eq!(local.fallen(), None, "it was killed on purpose");
        local.start().unwrap();
        local.pause().unwrap();
        assert!(local.has_process() && local.process.cpu_ns() >= spent_ns);
        local.ask_to_end();
        local.end(Duration::from_secs(5)).await.unwrap();
        assert!(!local.has_process());
    }
}
