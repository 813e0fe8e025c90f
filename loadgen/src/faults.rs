//! What is broken when, and who does it: a workload's faults on the run's clock.
//!
//! - [`schedule`] is pure: which strike and which undoing is due when.
//! - [`state`] is pure: what a member is in, and what a strike or an undoing means to it then.
//! - [`journal`] keeps on disk what is in force, written before it is.
//! - [`Faults`] carries out what is due. When a strike is due it hits the members that are meant *at that moment*; roles are looked at
//!   ahead of it ([`roles`]) and the journal is written ahead of it, so that neither delays it. Commands run beside each other, one
//!   after the other at each member; nothing waits for a strike but its own undoing.
//! - [`heal`] mends what a run has left in force.
//!
//! A step that cannot be carried out is an error that ends the run; nothing is left out silently. Whatever is still broken at the end of
//! the load is undone before the cluster is asked what it kept, except members that were killed for good.
//!
//! What it cost the clients is computed afterwards, from what was recorded: [`crate::failover`].

pub mod heal;
pub mod journal;
pub mod roles;
pub mod schedule;
pub mod state;

use crate::cluster::{Begun, Cluster, Deed, Wanted};
use crate::results::EventRow;
use crate::spec::{Fault, FaultKind, FaultTarget, Spec};
use anyhow::{Context, Error, Result, anyhow, bail};
use journal::{Entry, Journal, Undo};
use roles::{Role, RoleWatch};
use schedule::{Schedule, What, lasts_ns};
use state::{Condition, Order, State};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use zoometry_spans::Clock;

/// A strike at a leader or a follower waits this long for one to be seen.
pub const TARGET_LIMIT: Duration = Duration::from_secs(20);
/// The journal is written so long before a strike, if its members are known then.
const AHEAD_NS: u64 = 500_000_000;
/// A strike that begins at a member within this time was not late: it was made together with those at the others.
const TOGETHER_NS: u64 = 50_000_000;
/// Between two looks for a member that a strike waits for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

fn strike(kind: FaultKind) -> Deed {
    match kind {
        FaultKind::Kill => Deed::Kill,
        FaultKind::Stop => Deed::Stop,
        FaultKind::Restart => Deed::End,
        FaultKind::Cut => Deed::Cut,
        FaultKind::SlowDisk { delay_ns } => Deed::SlowDisk { delay_ns },
    }
}

/// A deed as events tell it.
fn verb(deed: Deed) -> &'static str {
    match deed {
        Deed::Kill => "kill",
        Deed::End => "end",
        Deed::Start => "start again",
        Deed::Stop => "stop",
        Deed::Continue => "let go on",
        Deed::Cut => "cut off",
        Deed::Heal => "no longer cut off",
        Deed::SlowDisk { .. } => "slow disk at",
        Deed::FastDisk => "no slow disk at",
    }
}

/// Whether a cluster of this size and kind has what the workload's faults hit.
///
/// # Errors
/// The first fault that could not be carried out, and why.
pub fn check(spec: &Spec, wanted: &Wanted) -> Result<()> {
    let members = wanted.members();
    for fault in &spec.faults {
        let why = match (fault.target, fault.kind) {
            (FaultTarget::Server(n), _) if n as usize > members => {
                format!("{wanted} has {members} members, and no server.{n}")
            }
            (FaultTarget::Follower, _) if members < 2 => format!("{wanted} has no follower"),
            (_, FaultKind::Cut) if members < 2 => {
                format!("{wanted} has no other members that one could be cut off from")
            }
            (_, FaultKind::SlowDisk { .. }) if matches!(wanted, Wanted::Apache(_)) => {
                "the disks of zoometry:N can be made slow, and those of a cluster file with slow-disk commands".into()
            }
            (_, FaultKind::Restart) if fault.for_ns.is_some() && !wanted.is_started_here() => {
                "the restart command of a cluster file ends and starts a member in one: remove `for`".into()
            }
            _ => continue,
        };
        bail!("{}: this [[fault]] cannot be carried out: {why}", fault.place);
    }
    Ok(())
}

/// Whether the commands are there for every member that could be hit.
///
/// # Errors
/// The first that is missing.
pub fn check_commands(spec: &Spec, cluster: &Cluster) -> Result<()> {
    for fault in &spec.faults {
        let deeds = [Some(strike(fault.kind)), lasts_ns(fault).map(|_| Condition::of(fault.kind).undo())];
        for deed in deeds.into_iter().flatten() {
            let hit = |at: &usize| match fault.target {
                FaultTarget::Server(n) => n as usize == at + 1,
                _ => true,
            };
            for at in (0..cluster.members.len()).filter(hit) {
                cluster.can_perform(at, deed).with_context(|| fault.place.clone())?;
            }
        }
    }
    Ok(())
}

/// The faults of a run that goes on.
pub struct Faults {
    clock: Clock,
    faults: Vec<Fault>,
    schedule: Schedule,
    journal: Arc<Journal>,
    watch: RoleWatch,
    members: Vec<Member>,
    /// Of each fault, whom it hit, and when.
    hit: Vec<(u64, Vec<usize>)>,
    /// Of each fault, whose entries were written to the journal ahead.
    announced: Vec<Vec<usize>>,
    events: Vec<EventRow>,
    told: Vec<String>,
    ended: mpsc::UnboundedSender<Ended>,
    endings: mpsc::UnboundedReceiver<Ended>,
    arrived: Vec<Ended>,
}

/// What is done and to be done at one member.
#[derive(Default)]
struct Member {
    state: State,
    steps: VecDeque<(What, usize)>,
    busy: bool,
    /// Faults that hit it, and where in the events each is.
    events: Vec<(usize, usize)>,
}

/// A deed that took its time is over.
struct Ended {
    at: usize,
    step: (What, usize),
    deed: Deed,
    result: Result<()>,
}

impl Faults {
    /// Begins to look at roles. The first phase begins at `start_ns` of the clock.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        spec: &Spec,
        cluster: &Cluster,
        clock: Clock,
        start_ns: u64,
        journal: Arc<Journal>,
    ) -> Result<Faults> {
        let times = spec.faults.iter().map(|fault| {
            let begin_ns = start_ns + fault.at_ns;
            (begin_ns, begin_ns.saturating_add(fault.for_ns.unwrap_or(0)))
        });
        let addresses = cluster.members.iter().map(|m| (m.name.clone(), m.address)).collect();
        let (ended, endings) = mpsc::unbounded_channel();
        Ok(Faults {
            clock,
            schedule: Schedule::new(&spec.faults, start_ns),
            journal,
            watch: RoleWatch::start(clock, addresses, times.collect())?,
            members: cluster.members.iter().map(|_| Member::default()).collect(),
            hit: vec![(0, Vec::new()); spec.faults.len()],
            announced: vec![Vec::new(); spec.faults.len()],
            faults: spec.faults.clone(),
            events: Vec::new(),
            told: Vec::new(),
            ended,
            endings,
            arrived: Vec::new(),
        })
    }

    /// Returns when [`Faults::advance`] has something to do.
    pub async fn due(&mut self) {
        let now_ns = self.clock.now_ns();
        let looks = self.schedule.due(now_ns).iter().any(|(what, ..)| *what == What::Strike);
        let until = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(now_ns));
        let announced = self.unannounced(u64::MAX).map(|(_, at_ns)| at_ns.saturating_sub(AHEAD_NS)).min();
        let step = self.schedule.next_ns().map(until).unwrap_or(Duration::MAX);
        let waits = self.members.iter().any(|member| !member.busy && !member.steps.is_empty());
        let pause = match announced {
            _ if waits || !self.arrived.is_empty() => Duration::ZERO,
            _ if looks => LOOK_PAUSE,
            // Whom it will hit may not be known yet.
            Some(at_ns) => step.min(until(at_ns).max(LOOK_PAUSE)),
            None => step,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            ended = self.endings.recv() => self.arrived.extend(ended),
        }
    }

    /// What has happened until now, roles included; a fault that has not been undone has no length yet.
    pub fn so_far(&self) -> Vec<EventRow> {
        self.events.iter().cloned().chain(self.watch.so_far()).collect()
    }

    /// Carries out what is due, without waiting for anything.
    ///
    /// # Errors
    /// The first step that could not be carried out. The others go on with the next call.
    pub fn advance(&mut self, cluster: &mut Cluster) -> Result<()> {
        while let Ok(ended) = self.endings.try_recv() {
            self.arrived.push(ended);
        }
        while let Some(ended) = self.arrived.pop() {
            self.ended(ended)?;
        }
        let now_ns = self.clock.now_ns();
        for (what, fault, due_ns) in self.schedule.due(now_ns) {
            match what {
                What::Undo => {
                    self.schedule.over(fault);
                    for at in std::mem::take(&mut self.hit[fault].1) {
                        self.members[at].steps.push_back((What::Undo, fault));
                    }
                }
                What::Strike => self.aim(fault, due_ns, cluster)?,
            }
            // At once: what is due later in this list may be aimed at whom is left.
            self.begin_steps(cluster)?;
        }
        self.begin_steps(cluster)?;
        let ahead: Vec<usize> =
            self.unannounced(now_ns.saturating_add(AHEAD_NS)).map(|(fault, _)| fault).collect();
        for fault in ahead {
            if let Some(members) = choose(self.faults[fault].target, &self.roles()) {
                self.announce(fault, &members, cluster)?;
                self.announced[fault] = members;
            }
        }
        Ok(())
    }

    /// What has happened since the last call, for people.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Nothing new begins, and what is in force is undone by the next [`Faults::advance`].
    pub fn wind_up(&mut self) {
        for fault in self.schedule.wind_up(self.clock.now_ns()) {
            let fault = &self.faults[fault];
            let detail =
                format!("the fault at {} never struck: no member was seen that it could hit", fault.place);
            self.note(String::new(), detail);
        }
    }

    /// The load is over: what is still in force is undone. Gives all events back, those of roles among them, and the first thing that
    /// could not be mended.
    pub async fn finish(mut self, cluster: &mut Cluster) -> (Vec<EventRow>, Result<()>) {
        let mut first = Ok(());
        self.wind_up();
        loop {
            let advanced = self.advance(cluster);
            first = first.and(advanced);
            let idle = self.members.iter().all(|member| !member.busy && member.steps.is_empty());
            if idle && self.schedule.next_ns().is_none() {
                break;
            }
            self.due().await;
        }
        let mut events = self.events;
        events.extend(self.watch.stop());
        (events, first)
    }

    /// Strikes due by a time that are not in the journal yet.
    fn unannounced(&self, until_ns: u64) -> impl Iterator<Item = (usize, u64)> {
        let strikes = self.schedule.strikes_until(until_ns);
        strikes.filter(|(fault, _)| self.announced[*fault].is_empty())
    }

    /// Roles as they were seen last; who is down or stopped has none, though it may have been seen with one.
    fn roles(&self) -> Vec<Option<Role>> {
        let seen = self.watch.now().into_iter().zip(&self.members);
        seen.map(|(role, member)| if member.state.is_out() { Some(Role::Silent) } else { role }).collect()
    }

    /// A strike is due: it is made if there is somebody to hit.
    fn aim(&mut self, fault: usize, due_ns: u64, cluster: &Cluster) -> Result<()> {
        let Some(members) = choose(self.faults[fault].target, &self.roles()) else {
            let limit_ns = TARGET_LIMIT.as_nanos() as u64;
            if self.clock.now_ns().saturating_sub(due_ns) <= limit_ns {
                return Ok(());
            }
            self.schedule.over(fault);
            let why =
                anyhow!("for {TARGET_LIMIT:?} no member was seen that it could hit ({})", self.watch.told());
            return Err(self.could_not(What::Strike, fault, why));
        };
        if let Err(why) = self.announce(fault, &members, cluster) {
            self.schedule.over(fault);
            return Err(why);
        }
        for at in std::mem::take(&mut self.announced[fault]) {
            let condition = Condition::of(self.faults[fault].kind);
            if !members.contains(&at) && !self.members[at].state.is(condition) {
                self.journal.undone(at as u32 + 1, condition, "another member was hit")?;
            }
        }
        let at_ns = self.clock.now_ns();
        let until_ns = self.schedule.struck(fault, at_ns);
        self.watch.moved(fault, (at_ns, until_ns.unwrap_or(at_ns)));
        members.iter().for_each(|at| self.members[*at].steps.push_back((What::Strike, fault)));
        self.hit[fault] = (at_ns, members);
        Ok(())
    }

    /// Writes to the journal what a fault would do to these members. When this returns it is on the disk.
    fn announce(&self, fault: usize, members: &[usize], cluster: &Cluster) -> Result<()> {
        let of = &self.faults[fault];
        let condition = Condition::of(of.kind);
        let roles = self.watch.now();
        for at in members.iter().copied() {
            let strikes = matches!(self.members[at].state.clone().strike(fault, of.kind), Order::Do(_));
            if !strikes || self.journal.has(at as u32 + 1, condition) {
                continue;
            }
            let member = &cluster.members[at];
            let undo = match &member.local {
                Some(local) => Undo::EndsWithTheRun(local.process_id()),
                None => Undo::Command(cluster.command(at, condition.undo()).map(str::to_owned)),
            };
            let entry = Entry {
                server: at as u32 + 1,
                member: member.host.clone(),
                condition,
                fault: told(strike(of.kind), at, roles[at]),
                at_unix_ms: journal::unix_ms(),
                undo,
                stays: lasts_ns(of).is_none(),
            };
            self.journal.begin(entry).map_err(|why| self.could_not(What::Strike, fault, why))?;
        }
        Ok(())
    }

    /// Begins what is next at every member that is not busy.
    fn begin_steps(&mut self, cluster: &mut Cluster) -> Result<()> {
        for at in 0..self.members.len() {
            while !self.members[at].busy
                && let Some(step) = self.members[at].steps.pop_front()
            {
                self.begin(at, step, cluster)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, at: usize, step: (What, usize), cluster: &mut Cluster) -> Result<()> {
        let (what, fault) = step;
        let kind = self.faults[fault].kind;
        if what == What::Strike {
            // Not yet there if the member was busy, and in another state, when the strike was aimed.
            self.announce(fault, &[at], cluster)?;
        }
        let state = &mut self.members[at].state;
        let order = match what {
            What::Strike => state.strike(fault, kind),
            What::Undo => state.undo(fault, kind),
        };
        let deed = match order {
            Order::Do(deed) => deed,
            Order::Nothing(why) => {
                let deed = if what == What::Strike { strike(kind) } else { Condition::of(kind).undo() };
                self.needless(at, step, deed, why, cluster);
                return Ok(());
            }
        };
        if what == What::Strike {
            self.journal.done(at as u32 + 1, Condition::of(kind))?;
            let detail = told(deed, at, self.watch.now()[at]);
            self.told.push(format!("fault: {detail}"));
            self.members[at].events.push((fault, self.events.len()));
            let target = cluster.members[at].name.clone();
            // Members that are hit together are hit at one time.
            let now_ns = self.clock.now_ns();
            let at_ns =
                Some(self.hit[fault].0).filter(|at_ns| now_ns - at_ns < TOGETHER_NS).unwrap_or(now_ns);
            self.events.push(EventRow { at_ns, duration_ns: 0, kind: "fault".into(), target, detail });
        }
        match cluster.begin(at, deed) {
            Ok(Begun::Done) => self.ended(Ended { at, step, deed, result: Ok(()) }),
            Ok(Begun::Needless(why)) => {
                self.needless(at, step, deed, why, cluster);
                self.in_force_no_more(at, deed)
            }
            Ok(Begun::Going(rest)) => {
                self.members[at].busy = true;
                let (ended, at_work) = (self.ended.clone(), self.journal.at_work());
                tokio::spawn(async move {
                    let result = rest.await;
                    drop(at_work);
                    // Where nobody listens any more the journal knows what is in force.
                    let _ = ended.send(Ended { at, step, deed, result });
                });
                Ok(())
            }
            Err(why) => self.ended(Ended { at, step, deed, result: Err(why) }),
        }
    }

    /// There was nothing to do, and that is told.
    fn needless(&mut self, at: usize, step: (What, usize), deed: Deed, why: &str, cluster: &Cluster) {
        let detail = format!("{} server.{}: nothing to do, {why}", verb(deed), at + 1);
        self.told.push(format!("fault: {detail}"));
        self.note(cluster.members[at].name.clone(), detail);
        if step.0 == What::Undo {
            self.close_event(at, step.1);
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<()> {
        let Ended { at, step: (what, fault), deed, result } = ended;
        self.members[at].busy = false;
        let (server, condition) = (at as u32 + 1, Condition::of(self.faults[fault].kind));
        if let Err(why) = result {
            match what {
                What::Undo => self.journal.failed(server, condition, format!("{why:#}")),
                // It was to stay so, and is not.
                What::Strike if lasts_ns(&self.faults[fault]).is_none() => {
                    self.journal.undone(server, condition, "it could not be done")?;
                }
                What::Strike => {}
            }
            return Err(self.could_not(what, fault, why));
        }
        self.in_force_no_more(at, deed)?;
        if what == What::Undo {
            let detail = format!("{} server.{}", verb(deed), at + 1);
            self.told.push(format!("fault: {detail}"));
            let target = self.close_event(at, fault);
            self.event("heal", target, detail);
        }
        Ok(())
    }

    /// A deed was done: what it has ended.
    fn in_force_no_more(&mut self, at: usize, deed: Deed) -> Result<()> {
        self.members[at].state.done(deed);
        let ends: &[Condition] = match deed {
            // A process that has ended is not stopped any more.
            Deed::Kill => &[Condition::Stopped],
            Deed::Start => &[Condition::Stopped, Condition::Down],
            Deed::Continue => &[Condition::Stopped],
            Deed::Heal => &[Condition::Cut],
            Deed::FastDisk => &[Condition::Slowed],
            Deed::End | Deed::Stop | Deed::Cut | Deed::SlowDisk { .. } => &[],
        };
        ends.iter().try_for_each(|condition| self.journal.undone(at as u32 + 1, *condition, verb(deed)))
    }

    /// A fault at a member is over: its event lasts until now. Gives the member's name.
    fn close_event(&mut self, at: usize, fault: usize) -> String {
        let now_ns = self.clock.now_ns();
        let event = self.members[at].events.iter().find(|(of, _)| *of == fault);
        let Some(event) = event.and_then(|(_, index)| self.events.get_mut(*index)) else {
            return String::new();
        };
        event.duration_ns = now_ns - event.at_ns;
        event.target.clone()
    }

    fn event(&mut self, kind: &str, target: String, detail: String) {
        let at_ns = self.clock.now_ns();
        self.events.push(EventRow { at_ns, duration_ns: 0, kind: kind.into(), target, detail });
    }

    fn note(&mut self, target: String, detail: String) {
        self.event("note", target, detail);
    }

    fn could_not(&self, what: What, fault: usize, why: Error) -> Error {
        let done = match what {
            What::Strike => "carried out",
            What::Undo => "undone",
        };
        why.context(format!("the fault at {} could not be {done}", self.faults[fault].place))
    }
}

/// `kill server.3 (leader)`.
fn told(deed: Deed, at: usize, role: Option<Role>) -> String {
    let role = role.map_or_else(String::new, |role| format!(" ({})", role.name()));
    format!("{} server.{}{role}", verb(deed), at + 1)
}

/// Who is hit, by the roles of the moment; `None` if there is nobody of that kind.
fn choose(target: FaultTarget, roles: &[Option<Role>]) -> Option<Vec<usize>> {
    let leads = |role: &Option<Role>| matches!(role, Some(Role::Leader | Role::Standalone));
    let leader = || roles.iter().position(leads);
    let others = || (0..roles.len()).filter(|at| matches!(roles[*at], Some(Role::Follower)));
    match target {
        FaultTarget::Leader => leader().map(|leader| vec![leader]),
        // Not before there is a leader: only then are the others followers for certain.
        FaultTarget::Follower => leader().and_then(|_| others().next()).map(|follower| vec![follower]),
        FaultTarget::Quorum => {
            let leader = leader()?;
            let quorum = roles.len() / 2 + 1;
            let all: Vec<usize> = std::iter::once(leader).chain(others()).take(quorum).collect();
            (all.len() == quorum).then_some(all)
        }
        FaultTarget::All => Some((0..roles.len()).collect()),
        FaultTarget::Server(n) => Some(vec![n.max(1) as usize - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn faults(text: &str) -> Vec<Fault> {
        let phase = "[[phase]]\nname = \"p\"\nduration = \"60s\"\nmix = { set = 1 }\n";
        Spec::parse("w.toml", &format!("{phase}{text}"), &[]).unwrap_or_else(|e| panic!("{e}")).faults
    }

    #[test]
    fn targets_are_those_of_the_moment() {
        use Role::*;
        let roles = [Some(Follower), None, Some(Leader), Some(Follower), Some(Electing)];
        assert_eq!(choose(FaultTarget::Leader, &roles), Some(vec![2]));
        assert_eq!(choose(FaultTarget::Follower, &roles), Some(vec![0]));
        assert_eq!(choose(FaultTarget::Quorum, &roles), Some(vec![2, 0, 3]));
        assert_eq!(choose(FaultTarget::All, &roles), Some(vec![0, 1, 2, 3, 4]));
        assert_eq!(choose(FaultTarget::Server(2), &roles), Some(vec![1]));
        let electing = [Some(Electing), Some(Follower), Some(Silent)];
        assert_eq!(choose(FaultTarget::Leader, &electing), None);
        assert_eq!(choose(FaultTarget::Follower, &electing), None);
        assert_eq!(choose(FaultTarget::Quorum, &[Some(Leader), Some(Silent), Some(Silent)]), None);
    }

    #[test]
    fn what_a_cluster_does_not_have_is_refused_before_the_run() {
        let spec = |fault: &str| {
            let text = format!(
                "[[phase]]\nname = \"p\"\nduration = \"9s\"\nmix = {{ set = 1 }}\n[[fault]]\nat = \"1s\"\n{fault}"
            );
            Spec::parse("w.toml", &text, &[]).unwrap_or_else(|e| panic!("{e}"))
        };
        let hosts: Wanted = "a:1,b:2".parse().unwrap();
        for (fault, wanted, why) in [
            ("kind = \"kill\"\ntarget = \"server 4\"\n", Wanted::Zoometry(3), "no server.4"),
            ("kind = \"kill\"\ntarget = \"follower\"\n", Wanted::Apache(1), "no follower"),
            ("kind = \"cut\"\ntarget = \"leader\"\nfor = \"1s\"\n", Wanted::Apache(1), "no other members"),
            (
                "kind = \"slow-disk\"\ndelay = \"9ms\"\ntarget = \"all\"\nfor = \"1s\"\n",
                Wanted::Apache(3),
                "a cluster file",
            ),
            ("kind = \"restart\"\ntarget = \"leader\"\nfor = \"1s\"\n", hosts.clone(), "remove `for`"),
        ] {
            let error = check(&spec(fault), &wanted).unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with("w.toml:"), "{error}");
        }
        assert!(check(&spec("kind = \"kill\"\ntarget = \"follower\"\n"), &Wanted::Apache(3)).is_ok());
    }
}
