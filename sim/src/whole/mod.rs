//! Whole members in one world: consensus, prep, store, sessions, watches, the real log, snapshots and recovery,
//! and clients that check every answer. Time is a number; everything that happens is an entry in one agenda.
//!
//! | module | is |
//! |---|---|
//! | `process` | the body of a member: performs its outputs, serves connections |
//! | `damage` | what a disk loses of a log while its member is down |
//! | `disk` | the disk queue, snapshots, the start from what a crash has left |
//! | `network` | connections: late, cut, broken |
//! | `client` | simulated clients |
//! | `weather` | what goes wrong |
//! | `judge`, `model`, `watching` | what must be true, worked out again and naively |
//!
//! A life: some seconds of weather; then a majority is healed and must make progress within
//! [`PATIENCE_US`]; then the others come back and must become equal to it. Panics when a judge objects.

mod client;
mod damage;
mod disk;
mod judge;
mod model;
mod network;
mod process;
mod watching;
mod weather;

use std::collections::{BTreeMap, BTreeSet};

use zoometry_replica::deliberate as bugs;
use zoometry_replica::storage::disk::mem::MemDisk;
use zoometry_replica::store::StoreConfig;
use zoometry_replica::zab::{Event, Role, ServerId};
use zoometry_wire::peer::Notification;
use zoometry_wire::{SessionId, Zxid};

use crate::random::Random;
use crate::story::Story;
use client::{Client, Ghost};
use judge::Judge;
use network::Wire;
use process::Process;

/// `tickTime` of the members, ms.
const TICK_MS: u64 = 50;
/// How long a healed majority may take to make progress, and then the others to become equal, µs.
pub const PATIENCE_US: u64 = 20_000_000;

/// How often the operator looks whether somebody is kept out, µs.
const OPERATOR_US: u64 = 3_000_000;

/// The slowest message in good weather, µs.
const LATENCY_MAX_US: u64 = 900;
/// How long nothing happens in the end, µs.
const CALM_US: u64 = 2_500_000;
/// Operations of a disk after which its power fails, if it must not.
const NEVER: u64 = u64::MAX / 4;

/// Everything that can be next.
#[derive(Debug)]
enum Due {
    /// A member's clock, in this life of its machine.
    Tick(ServerId, u64),
    /// Its disk is done with something.
    Disk(ServerId, u64),
    /// The next slice of the snapshot that it writes.
    Slice(ServerId, u64),
    /// The next slice of a snapshot that it sends.
    Stream(ServerId, u64, u64),
    /// An event that it has given itself.
    Local(ServerId, u64, Event),
    /// Something may have arrived: a wire's lane.
    Lane(u64, usize),
    Client(usize),
    Weather,
    Start(ServerId),
    Crash(ServerId),
    CrashLeader,
    /// Off, if it is not, and on again.
    Restart(ServerId),
    Resume(ServerId),
    /// A connection breaks.
    Break(u64),
    Heal,
}

/// What there is of a member when its process is gone.
struct Machine {
    disk: MemDisk,
    process: Option<Process>,
    /// Processes so far.
    lives: u64,
    paused_until_us: Option<u64>,
    /// How far its clock has jumped ahead; such a clock never goes back.
    clock_ahead_us: u64,
    wall_ahead_ms: i64,
    disk_max_us: u64,
    /// It has said that it has this on its disk.
    promised: Zxid,
    /// The epoch that its leader has offered, and what it has told a leader since: that it has accepted an
    /// epoch, that it has an epoch's history.
    offered_epoch: i64,
    promised_accepted: i64,
    promised_current: i64,
    /// Its log was damaged, and no whole state has taken its place on the disk.
    is_damaged: bool,
    /// Its process has found transactions missing in its state.
    has_hole: bool,
    /// Its snapshots hold changes up to here, whatever its log holds.
    snapshot_ahead: Zxid,
    /// Its tree is ahead of its zxid until it has reached this one.
    fuzzy_until: Option<Zxid>,
    last_votes: BTreeMap<ServerId, Notification>,
    /// What has become due while it is stopped.
    held: Vec<Due>,
    /// The leader and the epoch that it could not follow.
    outside: Option<(ServerId, i64)>,
}

impl Machine {
    fn new() -> Self {
        Self {
            disk: MemDisk::new(),
            process: None,
            lives: 0,
            paused_until_us: None,
            clock_ahead_us: 0,
            wall_ahead_ms: 0,
            disk_max_us: 2_000,
            promised: Zxid(0),
            offered_epoch: 0,
            promised_accepted: 0,
            promised_current: 0,
            is_damaged: false,
            has_hole: false,
            snapshot_ahead: Zxid(0),
            fuzzy_until: None,
            last_votes: BTreeMap::new(),
            held: Vec::new(),
            outside: None,
        }
    }
}

struct World {
    random: Random,
    /// In worlds with damaged disks: what becomes of them. A source of its own, so that the other worlds are as they
    /// were.
    damages: Option<Random>,
    story: Story,
    now_us: u64,
    next_due: u64,
    agenda: BTreeMap<(u64, u64), Due>,
    machines: Vec<Machine>,
    voters: Vec<ServerId>,
    wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    elections: BTreeMap<(ServerId, ServerId), u64>,
    cut: BTreeSet<(ServerId, ServerId)>,
    latency_max_us: u64,
    /// Where the network is slower still, from one member to another, µs.
    slow: BTreeMap<(ServerId, ServerId), u64>,
    clients: Vec<Client>,
    client_pause_max_us: u64,
    /// Connections that their clients have left without closing them.
    ghosts: Vec<Ghost>,
    judge: Judge,
    snapshot_every: u32,
    /// Once in so many dangerous moments something goes wrong.
    temptation: usize,
    /// `zoometry.leaderSilenceMs`.
    silence_ms: Option<u64>,
    /// When something last went wrong or was put right.
    restless_us: u64,
    /// Until then no client writes.
    hush_us: u64,
    /// Since when nothing goes wrong any more.
    healed_us: Option<u64>,
    /// Members that stay dead until the others have made progress.
    buried: BTreeSet<ServerId>,
}

fn store_config() -> StoreConfig {
    StoreConfig::default()
}

impl World {
    fn new(seed: u64, story: Story) -> Self {
        let mut random = Random::new(seed);
        let mut damages = Random::new(!seed);
        let has_damage = damages.one_in(damage::WORLDS);
        let voters: Vec<ServerId> = (1..=random.pick(&[3, 3, 3, 5])).map(ServerId).collect();
        let members = voters.len() + usize::from(random.one_in(3));
        let clients = 3 + random.below(4);
        let mut world = Self {
            damages: has_damage.then_some(damages),
            story,
            now_us: 0,
            next_due: 0,
            agenda: BTreeMap::new(),
            machines: (0..members).map(|_| Machine::new()).collect(),
            voters,
            wires: BTreeMap::new(),
            next_wire: 1,
            elections: BTreeMap::new(),
            cut: BTreeSet::new(),
            latency_max_us: LATENCY_MAX_US,
            slow: BTreeMap::new(),
            clients: (0..clients).map(|client| Client::new(client % 2 == 1)).collect(),
            client_pause_max_us: random.pick(&[5_000, 20_000, 60_000, 150_000]),
            ghosts: Vec::new(),
            judge: Judge::new(),
            snapshot_every: random.pick(&[12, 40, 120, 400]),
            temptation: random.pick(&[4, 12, 40]),
            silence_ms: random.pick(&[None, None, Some(150)]),
            restless_us: 0,
            hush_us: 0,
            healed_us: None,
            buried: BTreeSet::new(),
            random,
        };
        world.add_election_wires();
        for id in world.ids() {
            let at_us = world.random.between(0, 50_000);
            world.plan(at_us, Due::Start(id));
        }
        for client in 0..clients {
            let at_us = world.random.between(100_000, 400_000);
            world.plan(at_us, Due::Client(client));
        }
        let at_us = world.random.between(200_000, 900_000);
        world.plan(at_us, Due::Weather);
        world
    }

    fn ids(&self) -> Vec<ServerId> {
        (1..=self.machines.len() as i64).map(ServerId).collect()
    }

    fn machine(&self, id: ServerId) -> &Machine {
        &self.machines[id.0 as usize - 1]
    }

    fn machine_mut(&mut self, id: ServerId) -> &mut Machine {
        &mut self.machines[id.0 as usize - 1]
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now_us = self.now_us;
        self.story.tell(|| format!("{now_us:9} {}", line()));
    }

    fn plan(&mut self, at_us: u64, due: Due) {
        self.agenda.insert((at_us.max(self.now_us), self.next_due), due);
        self.next_due += 1;
    }

    /// Lets everything happen up to a time.
    fn run_until(&mut self, until_us: u64) {
        while let Some(first) = self.agenda.first_entry().filter(|first| first.key().0 <= until_us) {
            let ((at_us, _), due) = first.remove_entry();
            self.now_us = at_us;
            self.happen(due);
        }
        self.now_us = until_us;
    }

    fn happen(&mut self, due: Due) {
        let owner = match &due {
            Due::Tick(id, life) | Due::Disk(id, life) | Due::Slice(id, life) => Some((*id, *life)),
            Due::Stream(id, life, _) | Due::Local(id, life, _) => Some((*id, *life)),
            _ => None,
        };
        if let Some((id, life)) = owner {
            let machine = self.machine(id);
            if machine.lives != life || machine.process.is_none() {
                return;
            }
            if machine.paused_until_us.is_some() {
                return self.machine_mut(id).held.push(due);
            }
        }
        match due {
            Due::Tick(id, _) => self.tick_due(id),
            Due::Disk(id, _) => self.disk_due(id),
            Due::Slice(id, _) => self.slice_due(id),
            Due::Stream(id, _, wire) => self.stream_due(id, wire),
            Due::Local(
                id,
                _,
                event @ (Event::Truncated | Event::TruncateRefused | Event::SnapshotStored),
            ) => self.state_job_done(id, event),
            Due::Local(id, _, event) => self.give(id, event),
            Due::Lane(wire, dir) => self.lane_due(wire, dir),
            Due::Client(client) => self.client_due(client),
            Due::Weather => self.weather_due(),
            Due::Start(id) if !self.buried.contains(&id) => self.start(id),
            Due::Crash(id) if self.healed_us.is_none() => self.crash(id),
            Due::CrashLeader if self.healed_us.is_none() => self.crash_leader(),
            Due::Restart(id) if self.healed_us.is_none() => {
                self.crash(id);
                self.start(id);
            }
            Due::Resume(id) => self.resume(id),
            Due::Heal if self.healed_us.is_none() => self.heal(),
            Due::Break(wire) if self.healed_us.is_none() => self.break_wire(wire),
            Due::Start(_) | Due::Crash(_) | Due::CrashLeader | Due::Restart(_) | Due::Heal => {}
            Due::Break(_) => {}
        }
    }

    /// The weather is over for a majority; the rest stays dead for now.
    fn heal_a_majority(&mut self) {
        self.heal();
        self.healed_us = Some(self.now_us);
        // Who was damaged is no part of the majority until it has another's state.
        let damaged = self.voters.iter().filter(|voter| self.machine(**voter).is_damaged).count();
        let mut may_rest = (self.voters.len() - 1) / 2 - damaged;
        for id in self.ids() {
            self.go_on(id);
            if may_rest > 0 && self.random.one_in(2) {
                may_rest -= usize::from(self.voters.contains(&id));
                self.crash(id);
                self.buried.insert(id);
            } else {
                if self.random.one_in(8) {
                    self.crash(id);
                }
                self.machine(id).disk.freeze_after(NEVER);
                self.start(id);
            }
        }
        for id in self.buried.clone() {
            self.machine(id).disk.freeze_after(NEVER);
        }
        self.kick_lanes();
        for client in &mut self.clients {
            client.calm();
        }
        self.note(|| "a majority is healed".into());
    }

    /// Whether the members that live have one tree, and nothing is left to do.
    fn is_settled(&self) -> bool {
        let mut ends = BTreeSet::new();
        for id in self.ids() {
            if self.buried.contains(&id) {
                continue;
            }
            let Some(process) = &self.machine(id).process else { return false };
            if process.role == Role::Looking || !process.disk.is_idle() {
                return false;
            }
            ends.insert(process.store.last_zxid());
        }
        let own: BTreeSet<SessionId> = self.clients.iter().map(Client::session).collect();
        ends.len() == 1
            && self.clients.iter().all(Client::is_content)
            // Whoever has gone without a word has been noticed.
            && self.judge.model.sessions().iter().all(|session| own.contains(session))
    }

    /// A member that has accepted a later epoch than the leader's stays outside until the next election, and only an
    /// operator knows that nothing was lost.
    fn play_the_operator(&mut self) {
        let part = |id: ServerId| self.machine(id).process.as_ref().map(|process| process.role);
        let kept_out = self.ids().into_iter().filter(|id| part(*id) == Some(Role::Looking));
        let leader = kept_out
            .filter_map(|id| self.machine(id).outside)
            .find(|(leader, epoch)| part(*leader) == Some(Role::Leading { epoch: *epoch }));
        if let Some((leader, epoch)) = leader {
            self.note(|| format!("{leader}, which leads epoch {epoch}, is restarted for those outside"));
            self.crash(leader);
            self.start(leader);
        }
    }

    fn demand_progress(&mut self, what: &str) {
        let until_us = self.now_us + PATIENCE_US;
        let mut operator_us = self.now_us + OPERATOR_US;
        while !self.is_settled() {
            assert!(self.now_us < until_us, "no progress after {what}: {}", self.state());
            let next_us = self.now_us + 50_000;
            self.run_until(next_us);
            if self.now_us >= operator_us {
                operator_us = self.now_us + OPERATOR_US;
                self.play_the_operator();
            }
        }
        let state = self.state();
        self.note(|| format!("settled: {state}"));
    }

    fn state(&self) -> String {
        let members = self.ids().into_iter().map(|id| match &self.machine(id).process {
            Some(process) => {
                format!("{id} {:?} at {}", process.role, process.store.last_zxid())
            }
            None => format!("{id} dead"),
        });
        let members: Vec<String> = members.collect();
        let clients: Vec<String> = self.clients.iter().map(Client::describe).collect();
        format!("{}; clients {}", members.join(", "), clients.join(", "))
    }

    /// The end of all: every member has the tree and the sessions that the history gives.
    fn judge_the_end(&mut self) {
        let end = self.judge.committed_upto();
        for id in self.ids() {
            let process = self.machine(id).process.as_ref().expect("all live");
            assert_eq!(process.store.last_zxid(), end, "{id} ends elsewhere");
            let sessions: BTreeSet<SessionId> = process.store.sessions().map(|(id, _)| id).collect();
            assert_eq!(&sessions, self.judge.model.sessions(), "{id} knows other sessions");
            let mut shown = BTreeMap::new();
            let mut walk = process.store.start_walk();
            while process.store.walk(&mut walk, 64, &mut |node| {
                shown.insert(node.path, (node.data, node.stat));
            }) {}
            shown.retain(|path, _| !path.is_empty() && !path.starts_with("/zookeeper"));
            let expected: Vec<&str> = self.judge.model.paths().map(|(path, _)| path).collect();
            let paths: Vec<&str> = shown.keys().map(String::as_str).collect();
            assert_eq!(paths, expected, "{id} has other znodes");
            for (path, znode) in self.judge.model.paths() {
                let (data, stat) = &shown[path];
                let own = (&znode.data, znode.version, znode.mzxid, znode.owner, znode.created, znode.pzxid);
                let has = (data, stat.version, stat.mzxid, stat.ephemeral_owner, stat.cversion, stat.pzxid);
                assert_eq!(has, own, "{id} has another {path}");
            }
        }
        for client in &self.clients {
            for session in &client.told_over {
                assert!(
                    self.judge.model.was_closed(*session),
                    "a client was told that {session} is over, and it is not"
                );
            }
        }
    }
}

/// Lives one world through. Panics when a judge objects.
pub fn live(seed: u64, story: Story) -> Story {
    let mut world = World::new(seed, story);
    let weather_us = world.random.between(2_000_000, 8_000_000);
    world.run_until(weather_us);
    world.heal_a_majority();
    world.demand_progress("a majority was healed");
    for id in std::mem::take(&mut world.buried) {
        world.start(id);
    }
    world.demand_progress("all were healed");
    // Nothing goes wrong for a while: nobody's session may end now.
    world.run_until(world.now_us + CALM_US);
    world.demand_progress("a calm");
    world.judge_the_end();
    world.machines.iter_mut().for_each(|machine| machine.process = None);
    world.story
}
