//! Who leads, looked at every few milliseconds around faults.
//!
//! A thread of its own asks every member `srvr`: every [`FAST`] for [`SETTLED`] after every step of a fault, and from a change of role
//! on until things have been settled for so long; every [`WAITING`] while a fault lasts that nobody has noticed; every [`SLOW`] in the
//! rest of a window around a fault; not at all otherwise. Only changes are kept; each is dated by the moment at which
//! the answer was there, so a change is seen up to [`FAST`] and one answer's time late. A member that accepts connections but does
//! not answer within [`ANSWER_LIMIT`] is silent, dated by when it was asked.

use crate::results::EventRow;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use zoometry_spans::Clock;

/// Between two questions while roles change.
pub const FAST: Duration = Duration::from_millis(5);
/// Between two questions while nobody has noticed a fault.
pub const WAITING: Duration = Duration::from_millis(20);
/// Between two questions while they do not.
pub const SLOW: Duration = Duration::from_millis(50);
/// A member that has not answered by now is silent.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// Roles that have not changed for so long, with a leader among them, are settled.
pub const SETTLED: Duration = Duration::from_secs(1);
/// Looked at so long before a step.
const BEFORE: Duration = Duration::from_millis(1500);
/// And so long after it, at least.
const AFTER: Duration = Duration::from_secs(5);
/// Longest answer taken.
const ANSWER_MAX: u64 = 4096;

/// What a member does, as far as it can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves as leader.
    Leader,
    /// Serves as follower.
    Follower,
    /// Serves as observer.
    Observer,
    /// Serves alone.
    Standalone,
    /// Says that it serves nobody: looking for a leader, or synchronising.
    Electing,
    /// Says nothing, or cannot be reached.
    Silent,
}

impl Role {
    const ALL: [Role; 6] =
        [Role::Leader, Role::Follower, Role::Observer, Role::Standalone, Role::Electing, Role::Silent];

    /// The word in events.
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Observer => "observer",
            Role::Standalone => "standalone",
            Role::Electing => "electing",
            Role::Silent => "silent",
        }
    }

    /// The reverse of [`Role::name`].
    pub fn of_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether clients are served.
    pub fn serves(self) -> bool {
        !matches!(self, Role::Electing | Role::Silent)
    }

    /// By what a member answers to `srvr`.
    fn of_answer(answer: &str) -> Role {
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::trim);
        match mode {
            Some("leader") => Role::Leader,
            Some("follower") => Role::Follower,
            Some("observer") => Role::Observer,
            Some("standalone") => Role::Standalone,
            _ if answer.is_empty() => Role::Silent,
            _ => Role::Electing,
        }
    }
}

struct Log {
    now: Vec<Option<Role>>,
    changed_ns: u64,
    events: Vec<EventRow>,
}

struct Shared {
    clock: Clock,
    /// Begin and end of each fault.
    faults: Mutex<Vec<(u64, u64)>>,
    log: Mutex<Log>,
}

/// Looks until it is dropped.
pub struct RoleWatch {
    shared: Arc<Shared>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl RoleWatch {
    /// Looks at these members (name and client address), above all around faults with these begins and ends.
    pub(super) fn start(
        clock: Clock,
        members: Vec<(String, SocketAddr)>,
        faults: Vec<(u64, u64)>,
    ) -> Result<RoleWatch> {
        let now = vec![None; members.len()];
        let log = Mutex::new(Log { now, changed_ns: 0, events: Vec::new() });
        let shared = Arc::new(Shared { clock, faults: Mutex::new(faults), log });
        let (stop, mut stopped) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kept = shared.clone();
        let body = move || {
            runtime.block_on(async move {
                for (at, (name, address)) in members.into_iter().enumerate() {
                    tokio::spawn(look(kept.clone(), at, name, address));
                }
                // Until whoever wants to know has gone.
                while stopped.changed().await.is_ok() {}
            });
        };
        let thread =
            std::thread::Builder::new().name("roles".into()).spawn(body).context("start a thread")?;
        Ok(RoleWatch { shared, stop, thread: Some(thread) })
    }

    /// What was seen last.
    pub(super) fn now(&self) -> Vec<Option<Role>> {
        self.shared.log.lock().expect("no thread panics holding it").now.clone()
    }

    /// The same, for people.
    pub(super) fn told(&self) -> String {
        let now = self.now();
        let told = now
            .iter()
            .enumerate()
            .map(|(at, role)| format!("server.{} {}", at + 1, role.map_or("not seen yet", Role::name)));
        told.collect::<Vec<_>>().join(", ")
    }

    /// What has changed until now, when.
    pub(super) fn so_far(&self) -> Vec<EventRow> {
        self.shared.log.lock().expect("no thread panics holding it").events.clone()
    }

    /// A fault begins and ends at other times than was planned.
    pub(super) fn moved(&self, fault: usize, times: (u64, u64)) {
        self.shared.faults.lock().expect("no thread panics holding it")[fault] = times;
    }

    /// Ends looking; what has changed, when.
    pub(super) fn stop(mut self) -> Vec<EventRow> {
        drop(std::mem::replace(&mut self.stop, watch::channel(()).0));
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
        std::mem::take(&mut self.shared.log.lock().expect("no thread panics holding it").events)
    }
}

impl Shared {
    /// Whether to ask now, and how long until the next question.
    fn pause(&self, now_ns: u64) -> (bool, Duration) {
        let log = self.log.lock().expect("no thread panics holding it");
        let leads = log.now.iter().flatten().any(|role| matches!(role, Role::Leader | Role::Standalone));
        let faults = self.faults.lock().expect("no thread panics holding it");
        pace(&faults, now_ns, log.changed_ns, leads)
            .map_or((log.now.iter().any(Option::is_none), SLOW), |pause| (true, pause))
    }

    fn saw(&self, at: usize, name: &str, role: Role, at_ns: u64) {
        let mut log = self.log.lock().expect("no thread panics holding it");
        let before = log.now[at].replace(role);
        if before == Some(role) {
            return;
        }
        log.changed_ns = at_ns;
        // What it was at the start is in the manifest.
        if before.is_some() {
            log.events.push(EventRow {
                at_ns,
                duration_ns: 0,
                kind: "role".into(),
                target: name.to_owned(),
                detail: role.name().into(),
            });
        }
    }
}

/// How often to ask, by the faults, the last change of a role and whether somebody leads; `None`: not at all.
fn pace(faults: &[(u64, u64)], now_ns: u64, changed_ns: u64, leads: bool) -> Option<Duration> {
    let ns = |duration: Duration| duration.as_nanos() as u64;
    let soon_ns = now_ns + ns(FAST);
    let recent = |at_ns: u64| at_ns <= soon_ns && now_ns < at_ns + ns(SETTLED);
    if let Some((begin_ns, end_ns)) = faults.iter().rev().find(|(begin_ns, _)| *begin_ns <= soon_ns) {
        let noticed = changed_ns >= *begin_ns;
        let settled = leads && now_ns >= changed_ns + ns(SETTLED);
        if now_ns < end_ns + ns(AFTER) || !leads {
            return Some(match (noticed, settled) {
                _ if recent(*begin_ns) || recent(*end_ns) => FAST,
                (true, false) => FAST,
                (false, _) => WAITING,
                (true, true) => SLOW,
            });
        }
    }
    faults.iter().any(|(begin_ns, _)| (now_ns..=now_ns + ns(BEFORE)).contains(begin_ns)).then_some(SLOW)
}

async fn look(shared: Arc<Shared>, at: usize, name: String, address: SocketAddr) {
    loop {
        let asked_ns = shared.clock.now_ns();
        let (ask, pause) = shared.pause(asked_ns);
        if ask {
            match tokio::time::timeout(ANSWER_LIMIT, srvr(address)).await {
                Ok(answer) => {
                    let role = Role::of_answer(&answer.unwrap_or_default());
                    shared.saw(at, &name, role, shared.clock.now_ns());
                }
                Err(_) => shared.saw(at, &name, Role::Silent, asked_ns),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

pub(super) async fn srvr(address: impl tokio::net::ToSocketAddrs) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::net::TcpListener;

    #[test]
    fn answers_are_roles() {
        assert_eq!(Role::of_answer("Zookeeper version: 3.8\nMode: leader\nNode count: 5\n"), Role::Leader);
        assert_eq!(Role::of_answer("Mode: standalone\n"), Role::Standalone);
        let not_serving = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(Role::of_answer(not_serving), Role::Electing);
        assert_eq!(Role::of_answer(""), Role::Silent);
        for role in Role::ALL {
            assert_eq!(Role::of_name(role.name()), Some(role));
        }
    }

    #[tokio::test]
    async fn a_change_of_role_is_seen_within_milliseconds_of_a_step() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new("Mode: follower\n"));
        let answers = mode.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = *answers.lock().unwrap();
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        let clock = Clock::starting_at(Instant::now());
        let step_ns = clock.now_ns() + 300_000_000;
        let watch = RoleWatch::start(clock, vec![("m:1".into(), address)], vec![(step_ns, step_ns)]).unwrap();
        tokio::time::sleep(Duration::from_millis(320)).await;
        assert_eq!(watch.now(), [Some(Role::Follower)]);
        *mode.lock().unwrap() = "Mode: leader\n";
        let changed_ns = clock.now_ns();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let events = tokio::task::spawn_blocking(|| watch.stop()).await.unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].target.as_str(), events[0].detail.as_str()), ("m:1", "leader"));
        let late_ms = (events[0].at_ns - changed_ns) / 1_000_000;
        assert!(late_ms < 300, "seen {late_ms} ms late");
    }

    #[test]
    fn questions_come_fast_when_something_happens_and_never_stop_while_a_fault_lasts() {
        const S: u64 = 1_000_000_000;
        let faults = [(10 * S, 30 * S), (60 * S, 60 * S)];
        let pace = |now: f64, changed: f64, leads| {
            pace(&faults, (now * S as f64) as u64, (changed * S as f64) as u64, leads)
        };
        assert_eq!(pace(5.0, 1.0, true), None);
        assert_eq!(pace(9.0, 1.0, true), Some(SLOW), "soon");
        assert_eq!(pace(10.5, 1.0, true), Some(FAST), "just struck");
        assert_eq!(pace(19.0, 1.0, true), Some(WAITING), "nobody has noticed");
        assert_eq!(pace(20.5, 20.0, false), Some(FAST), "no leader");
        assert_eq!(pace(20.9, 20.3, true), Some(FAST), "a leader, just now");
        assert_eq!(pace(25.0, 20.3, true), Some(SLOW), "settled");
        assert_eq!(pace(30.5, 20.3, true), Some(FAST), "just undone");
        assert_eq!(pace(40.0, 31.0, true), None, "all is well");
        assert_eq!(pace(40.0, 31.0, false), Some(FAST), "still no leader");
    }
}
