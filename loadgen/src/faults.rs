//! What is broken when, and who does it: a workload's faults on the run's clock.
//!
//! [`plan`] is pure: it turns faults into steps, strikes and their undoing, in the order of time. [`Faults`] carries them out: when a
//! strike is due it finds out whom it hits (the leader *of that moment*), does it, and notes when it was really done. A step that
//! cannot be carried out is an error that ends the run; nothing is left out silently. Whatever is still broken at the end of the load is
//! undone before the cluster is asked what it kept, except members that were killed for good.
//!
//! [`roles`] looks at who leads, often, around strikes. What it cost the clients is computed afterwards, from what was recorded:
//! [`crate::failover`].

pub mod roles;

use crate::cluster::{Cluster, Deed, Wanted};
use crate::results::EventRow;
use crate::spec::{Fault, FaultKind, FaultTarget, Spec};
use anyhow::{Context, Result, bail};
use roles::{Role, RoleWatch};
use std::time::{Duration, Instant};
use zoometry_spans::Clock;

/// A strike at a leader or a follower waits this long for one to be seen.
pub const TARGET_LIMIT: Duration = Duration::from_secs(20);

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Nanoseconds since the first phase began.
    pub at_ns: u64,
    /// Which of the workload's faults.
    pub fault: usize,
    /// Begin or end it.
    pub what: What,
}

/// Whether a step breaks or mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The fault ends.
    Undo,
    /// The fault begins.
    Strike,
}

/// Every step of a run, in order; at one moment, undoing comes first.
pub fn plan(faults: &[Fault]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (fault, of) in faults.iter().enumerate() {
        steps.push(Step { at_ns: of.at_ns, fault, what: What::Strike });
        let for_ns = match of.kind {
            FaultKind::Restart => Some(of.for_ns.unwrap_or(0)),
            _ => of.for_ns,
        };
        if let Some(for_ns) = for_ns {
            steps.push(Step { at_ns: of.at_ns.saturating_add(for_ns), fault, what: What::Undo });
        }
    }
    // A restart without a pause is struck and undone at the same moment, in that order: the sort is stable.
    let instant =
        |step: &Step| faults[step.fault].kind == FaultKind::Restart && faults[step.fault].for_ns.is_none();
    steps.sort_by_key(|step| (step.at_ns, instant(step), if instant(step) { What::Undo } else { step.what }));
    steps
}

fn strike(kind: FaultKind) -> Deed {
    match kind {
        FaultKind::Kill => Deed::Kill,
        FaultKind::Stop => Deed::Stop,
        FaultKind::Restart => Deed::End,
        FaultKind::Cut => Deed::Cut,
        FaultKind::SlowDisk { delay_ns } => Deed::SlowDisk { delay_ns },
    }
}

fn undo(kind: FaultKind) -> Deed {
    match kind {
        FaultKind::Kill | FaultKind::Restart => Deed::Start,
        FaultKind::Stop => Deed::Continue,
        FaultKind::Cut => Deed::Heal,
        FaultKind::SlowDisk { .. } => Deed::FastDisk,
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
        let deeds = [Some(strike(fault.kind)), plan_undoes(fault).then(|| undo(fault.kind))];
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

fn plan_undoes(fault: &Fault) -> bool {
    fault.for_ns.is_some() || fault.kind == FaultKind::Restart
}

/// The faults of a run that goes on.
pub struct Faults {
    clock: Clock,
    start_ns: u64,
    faults: Vec<Fault>,
    steps: std::iter::Peekable<std::vec::IntoIter<Step>>,
    /// Whom a fault hit that has not been undone, and where its events are.
    struck: Vec<Option<Struck>>,
    events: Vec<EventRow>,
    watch: RoleWatch,
}

struct Struck {
    at_ns: u64,
    members: Vec<usize>,
    events: std::ops::Range<usize>,
}

impl Faults {
    /// Begins to look at roles. The first phase begins at `start_ns` of the clock.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(spec: &Spec, cluster: &Cluster, clock: Clock, start_ns: u64) -> Result<Faults> {
        let steps = plan(&spec.faults);
        let lasts = |fault: &Fault| {
            let begin_ns = start_ns + fault.at_ns;
            (begin_ns, begin_ns.saturating_add(fault.for_ns.unwrap_or(0)))
        };
        let times: Vec<(u64, u64)> = spec.faults.iter().map(lasts).collect();
        let members = cluster.members.iter().map(|m| (m.name.clone(), m.address)).collect();
        Ok(Faults {
            clock,
            start_ns,
            faults: spec.faults.clone(),
            steps: steps.into_iter().peekable(),
            struck: spec.faults.iter().map(|_| None).collect(),
            events: Vec::new(),
            watch: RoleWatch::start(clock, members, &times)?,
        })
    }

    /// How long until the next step is due; `None` when there is none. A fault that had to wait for somebody to hit lasts as long as
    /// it was to last.
    pub fn due_in(&mut self) -> Option<Duration> {
        let step = *self.steps.peek()?;
        let struck = self.struck[step.fault].as_ref().filter(|_| step.what == What::Undo);
        let lasts_until = struck.map(|struck| struck.at_ns + self.faults[step.fault].for_ns.unwrap_or(0));
        let at_ns = lasts_until.unwrap_or(0).max(self.start_ns + step.at_ns);
        Some(Duration::from_nanos(at_ns.saturating_sub(self.clock.now_ns())))
    }

    /// What has happened until now, roles included; a fault that has not been undone has no length yet.
    pub fn so_far(&self) -> Vec<EventRow> {
        self.events.iter().cloned().chain(self.watch.so_far()).collect()
    }

    /// Carries out the next step; says what was done.
    ///
    /// # Errors
    /// Why it could not be.
    pub async fn next(&mut self, cluster: &mut Cluster) -> Result<String> {
        let step = self.steps.next().context("all faults have been carried out")?;
        let fault = self.faults[step.fault].clone();
        let done = match step.what {
            What::Strike => self.strike(&fault, step.fault, cluster).await,
            What::Undo => self.undo(&fault, step.fault, cluster).await,
        };
        done.with_context(|| format!("the fault at {} could not be carried out", fault.place))
    }

    async fn strike(&mut self, fault: &Fault, number: usize, cluster: &mut Cluster) -> Result<String> {
        let members = self.targets(fault.target).await?;
        let deed = strike(fault.kind);
        let roles = self.watch.now();
        let at_ns = self.clock.now_ns();
        let from = self.events.len();
        for at in &members {
            cluster.perform(*at, deed).await?;
            let role = roles[*at].map_or("", Role::name);
            self.events.push(EventRow {
                at_ns,
                duration_ns: 0,
                kind: "fault".into(),
                target: cluster.members[*at].name.clone(),
                detail: format!("{} server.{} ({role})", verb(deed), at + 1).replace(" ()", ""),
            });
        }
        let told =
            self.events[from..].iter().map(|event| event.detail.clone()).collect::<Vec<_>>().join(", ");
        self.struck[number] = Some(Struck { at_ns, members, events: from..self.events.len() });
        Ok(told)
    }

    async fn undo(&mut self, fault: &Fault, number: usize, cluster: &mut Cluster) -> Result<String> {
        let struck = self.struck[number].take().context("it has not struck")?;
        let deed = undo(fault.kind);
        let mut told = Vec::new();
        for at in struck.members {
            cluster.perform(at, deed).await?;
            let at_ns = self.clock.now_ns();
            let detail = format!("{} server.{}", verb(deed), at + 1);
            told.push(detail.clone());
            let target = cluster.members[at].name.clone();
            self.events.push(EventRow { at_ns, duration_ns: 0, kind: "heal".into(), target, detail });
        }
        let now_ns = self.clock.now_ns();
        for event in &mut self.events[struck.events] {
            event.duration_ns = now_ns - event.at_ns;
        }
        Ok(told.join(", "))
    }

    /// Who is meant at this moment. Waits for a leader if there is none.
    async fn targets(&self, target: FaultTarget) -> Result<Vec<usize>> {
        let started = Instant::now();
        loop {
            if let Some(members) = choose(target, &self.watch.now()) {
                return Ok(members);
            }
            if started.elapsed() > TARGET_LIMIT {
                bail!("for {TARGET_LIMIT:?} no member was seen that it could hit ({})", self.watch.told());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The load is over: what is still stopped or cut off is mended, what was to be started again is started. Gives all events back,
    /// those of roles among them.
    ///
    /// # Errors
    /// What could not be mended.
    pub async fn finish(mut self, cluster: &mut Cluster) -> Result<Vec<EventRow>> {
        for number in 0..self.faults.len() {
            let fault = self.faults[number].clone();
            if self.struck[number].is_some() && plan_undoes(&fault) {
                self.undo(&fault, number, cluster)
                    .await
                    .with_context(|| format!("the fault at {} could not be undone", fault.place))?;
            }
        }
        let mut events = self.events;
        events.extend(self.watch.stop());
        Ok(events)
    }
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

    fn faults(text: &str) -> Vec<Fault> {
        let phase = "[[phase]]\nname = \"p\"\nduration = \"60s\"\nmix = { set = 1 }\n";
        Spec::parse("w.toml", &format!("{phase}{text}"), &[]).unwrap_or_else(|e| panic!("{e}")).faults
    }

    #[test]
    fn faults_become_steps_in_the_order_of_time() {
        let text = "[[fault]]\nat = \"5s\"\nkind = \"stop\"\ntarget = \"follower\"\nfor = \"5s\"\n\
                    [[fault]]\nat = \"2s\"\nkind = \"restart\"\ntarget = \"server 2\"\n\
                    [[fault]]\nat = \"10s\"\nkind = \"kill\"\ntarget = \"leader\"\nfor = \"2s\"\nrepeat = 2\nevery = \"4s\"\n\
                    [[fault]]\nat = \"20s\"\nkind = \"kill\"\ntarget = \"all\"\n";
        let faults = faults(text);
        let steps: Vec<(u64, FaultKind, What)> = plan(&faults)
            .iter()
            .map(|step| (step.at_ns / 1_000_000_000, faults[step.fault].kind, step.what))
            .collect();
        use FaultKind::*;
        assert_eq!(
            steps,
            [
                (2, Restart, What::Strike),
                (2, Restart, What::Undo),
                (5, Stop, What::Strike),
                (10, Stop, What::Undo),
                (10, Kill, What::Strike),
                (12, Kill, What::Undo),
                (14, Kill, What::Strike),
                (16, Kill, What::Undo),
                (20, Kill, What::Strike),
            ]
        );
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
