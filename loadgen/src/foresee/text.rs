//! The foreseen run for a terminal: 80 columns, no colour.

use std::fmt::Write;

use crate::expect::Ops;
use crate::figures;
use crate::spec::{
    Arrival, FaultKind, FaultTarget, Phase, Placement, Shape, Spec, ValueSize, WatchKind, WatchOn, Watchers,
};
use crate::summary::wrap;

use super::{Outlook, due, outlook};

const WIDTH: usize = 80;
/// Faults that are told one by one; a table that repeats can be a thousand of them.
const FAULTS_TOLD: usize = 5;

/// What will run, for how long, how many operations, what can be judged. Says whether every expectation can be.
pub fn text(spec: &Spec) -> (String, bool) {
    let mut out = String::new();
    let title = [spec.name.as_str(), spec.description.as_str()].map(str::trim);
    for line in wrap(title.join(": ").trim_end_matches([':', ' ']), WIDTH) {
        let _ = writeln!(out, "{line}");
    }
    let measured = spec.phases.iter().filter(|phase| !phase.warmup).count();
    let phases = match spec.phases.len() {
        1 => "1 phase".to_string(),
        n => format!("{n} phases"),
    };
    let takes = figures::seconds(spec.duration_ns() as f64 / 1e9);
    let mut about = vec![
        ("takes", format!("{takes} in {phases}, {measured} of them measured")),
        ("data", data(spec)),
        ("sessions", sessions(spec)),
    ];
    about.extend(spec.watchers.iter().map(|group| ("watchers", watchers(spec, group))));
    about.extend(spec.faults.iter().take(FAULTS_TOLD).map(|fault| ("fault", self::fault(fault))));
    if let Some(more @ 1..) = spec.faults.len().checked_sub(FAULTS_TOLD) {
        about.push(("", format!("and {more} more faults")));
    }
    for (name, text) in about {
        for (at, line) in wrap(&text, WIDTH - 12).into_iter().enumerate() {
            let _ = writeln!(out, "  {:<9} {line}", if at == 0 { name } else { "" });
        }
    }
    phase_table(&mut out, spec);
    let judged = expectations(&mut out, spec);
    (out, judged)
}

fn data(spec: &Spec) -> String {
    let shape = match spec.data.shape {
        Shape::Flat => "flat".to_string(),
        Shape::Fanout(n) => format!("fan-out {n}"),
        Shape::Depth(n) => format!("depth {n}"),
    };
    let value = match &spec.data.value {
        ValueSize::Constant(bytes) => figures::bytes(f64::from(*bytes)),
        ValueSize::Uniform { min, max } => {
            format!("{} to {}", figures::bytes(f64::from(*min)), figures::bytes(f64::from(*max)))
        }
        ValueSize::Weighted(list) => format!("{} sizes by weight", list.len()),
    };
    format!(
        "{} znodes below {} ({shape}), values of {value}",
        figures::count(spec.data.znodes),
        spec.data.root
    )
}

fn sessions(spec: &Spec) -> String {
    let placement = match spec.sessions.placement {
        Placement::Even => "spread evenly".to_string(),
        Placement::Leader => "on the leader".to_string(),
        Placement::Followers => "on the followers".to_string(),
        Placement::Server(n) => format!("on server.{n}"),
    };
    let more = match spec.watcher_sessions() {
        0 => String::new(),
        n => format!("; {} more only watch", figures::count(n)),
    };
    format!(
        "{}, up to {} in flight each, {placement}{more}",
        figures::count(spec.sessions.count.into()),
        spec.sessions.in_flight
    )
}

fn watchers(spec: &Spec, group: &Watchers) -> String {
    let kind = match group.kind {
        WatchKind::OneShot => "one-shot",
        WatchKind::Persistent => "persistent",
        WatchKind::Recursive => "recursive",
    };
    let on = match group.on {
        WatchOn::Spread => "one znode each".to_string(),
        WatchOn::Znode(key) => format!("all on key {key}"),
        WatchOn::Subtree => "on the whole data root".to_string(),
    };
    let phases: Vec<&str> = group.phases.iter().map(|n| spec.phases[usize::from(*n)].name.as_str()).collect();
    let phases = if phases.len() == spec.phases.len() { "all phases".to_string() } else { phases.join(", ") };
    format!("{} {kind}, {on}, in {phases}", figures::count(group.count))
}

fn fault(fault: &crate::spec::Fault) -> String {
    let kind = match fault.kind {
        FaultKind::Kill => "kill".to_string(),
        FaultKind::Stop => "stop".to_string(),
        FaultKind::Restart => "restart".to_string(),
        FaultKind::Cut => "cut off".to_string(),
        FaultKind::SlowDisk { delay_ns } => {
            format!("slow by {} per sync the disk of", figures::time_us(delay_ns as f64 / 1e3))
        }
    };
    let target = match fault.target {
        FaultTarget::Leader => "the leader".to_string(),
        FaultTarget::Follower => "a follower".to_string(),
        FaultTarget::Quorum => "a quorum, the leader among them".to_string(),
        FaultTarget::All => "all members".to_string(),
        FaultTarget::Server(n) => format!("server.{n}"),
    };
    let length =
        fault.for_ns.map_or(String::new(), |ns| format!(", for {}", figures::seconds(ns as f64 / 1e9)));
    format!("at {}: {kind} {target}{length}", figures::seconds(fault.at_ns as f64 / 1e9))
}

fn phase_table(out: &mut String, spec: &Spec) {
    let _ = writeln!(out, "\n{:<22}{:>12}  {:>16}  arrivals", "phase", "lasts", "operations due");
    let mut total = 0.0;
    let mut closed = false;
    for phase in &spec.phases {
        let due = due(phase, Ops::All);
        total += due.map_or(0.0, |due| due.expected);
        closed |= due.is_none();
        let count = match (due, &phase.arrival) {
            (Some(due), _) if due.most > due.expected => format!("about {}", rounded(due.expected)),
            (Some(due), _) => rounded(due.expected),
            (None, _) => "as answered".to_string(),
        };
        let arrivals = match &phase.arrival {
            Arrival::Closed => format!("closed, {} in flight", spec.sessions.in_flight),
            arrival => arrival.to_string(),
        };
        let lasts = figures::seconds(phase.duration_ns as f64 / 1e9);
        let name = if phase.warmup { format!("{} (warm-up)", phase.name) } else { phase.name.clone() };
        let head = format!("{name:<22}{lasts:>12}  {count:>16}  ");
        let indent = head.chars().count();
        for (at, line) in wrap(&arrivals, WIDTH.saturating_sub(indent).max(20)).into_iter().enumerate() {
            let _ =
                if at == 0 { writeln!(out, "{head}{line}") } else { writeln!(out, "{:indent$}{line}", "") };
        }
        for line in wrap(&mix(phase), WIDTH - 4) {
            let _ = writeln!(out, "    {line}");
        }
    }
    if spec.phases.len() > 1 && total > 0.0 {
        let also = if closed { ", and what closed loops ask for" } else { "" };
        let _ = writeln!(out, "{:<34}  {:>16}{also}", "together", rounded(total));
    }
}

fn rounded(count: f64) -> String {
    figures::count(count.round() as u64)
}

/// `get 90.9 %, set 9.09 %`
fn mix(phase: &Phase) -> String {
    let shares = phase
        .mix
        .iter()
        .map(|(op, _)| format!("{op} {}", figures::percent(phase.share(|other| other == *op))));
    shares.collect::<Vec<_>>().join(", ")
}

fn expectations(out: &mut String, spec: &Spec) -> bool {
    if spec.expect.is_empty() {
        let _ =
            writeln!(out, "\nnothing is expected: the exit code says only whether the run can be believed");
        return true;
    }
    let _ = writeln!(out, "\nexpectations");
    let mut judged = true;
    for expectation in &spec.expect {
        let (word, why) = match outlook(spec, expectation) {
            Outlook::Open => ("can be judged", String::new()),
            Outlook::Doubtful(why) => ("may lack samples", why),
            Outlook::Settled(why) => {
                judged = false;
                ("CANNOT BE JUDGED", why)
            }
        };
        let _ = writeln!(out, "  {word:<17} {}", expectation.text);
        for line in wrap(&why, WIDTH - 20).iter().filter(|line| !line.is_empty()) {
            let _ = writeln!(out, "  {:<17} {line}", "");
        }
    }
    judged
}
