//! What faults cost, as lines for a terminal.

use crate::failover::{Failover, Outage, Round, Spread};
use crate::figures;
use crate::results::Manifest;

/// So many rounds are told one by one; of more, the spread and the worst.
const ROUNDS_TOLD: usize = 3;

/// The lines, without indent; longer ones are to be wrapped.
pub(super) fn lines(failover: &Failover, manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    if failover.rounds.len() > ROUNDS_TOLD {
        lines.extend(spreads(failover));
        lines.extend(failover.worst().into_iter().flat_map(|round| told(round, manifest, "the worst, ")));
    } else {
        lines.extend(failover.rounds.iter().flat_map(|round| told(round, manifest, "")));
    }
    if failover.unkept > 0 {
        lines.push(format!(
            "{} completions were too many to be kept; rounds behind them were not measured",
            figures::count(failover.unkept)
        ));
    }
    let sessions = failover.sessions;
    let mut kept = vec![format!(
        "sessions over the whole run: {} lost their connection ({} kept their member, {} moved, {} expired, {} never \
         came back)",
        sessions.lost, sessions.kept, sessions.moved, sessions.expired, sessions.away
    )];
    if let Some(checks) = &manifest.checks {
        let ephemerals = &checks.ephemerals;
        if ephemerals.checked + ephemerals.expired > 0 {
            kept.push(format!(
                "ephemerals lost {} of {}",
                ephemerals.lost,
                figures::count(ephemerals.checked)
            ));
        }
    }
    if let Some(writes) = manifest.checked_writes {
        kept.push(format!("acknowledged writes lost {} of {}", writes.lost, figures::count(writes.checked)));
    }
    lines.push(kept.join("; "));
    lines
}

/// Median and worst of everything: lines of a table.
fn spreads(failover: &Failover) -> Vec<String> {
    let rounds = format!("{} rounds", failover.rounds.len());
    let mut lines = vec![format!("{rounds:<30}{:>10}{:>10}{:>10}", "shortest", "median", "worst")];
    let named = [("write gap", failover.write_gap), ("read gap", failover.read_gap)];
    let named = named.into_iter().filter_map(|(name, spread)| Some((name, spread?)));
    let parts = failover.parts.iter().map(|(name, spread)| (name.as_str(), *spread));
    for (name, spread) in named.chain(parts) {
        let Spread { min_ns, median_ns, max_ns, open, rounds } = spread;
        let time = |ns: u64| if ns == 0 { "0".to_owned() } else { figures::time_us(ns as f64 / 1e3) };
        let mut line = format!("{name:<30}{:>10}{:>10}{:>10}", time(min_ns), time(median_ns), time(max_ns));
        if open > 0 {
            line.push_str(&format!("  {open} never ended"));
        } else if rounds < failover.rounds.len() as u64 {
            line.push_str(&format!("  of {rounds}"));
        }
        lines.push(line);
    }
    lines
}

/// One round in a few lines.
fn told(round: &Round, manifest: &Manifest, which: &str) -> Vec<String> {
    let time = |ns: u64| figures::time_us(ns as f64 / 1e3);
    let mut head =
        format!("{which}round {} at {:.3} s: {}", round.number, manifest.seconds(round.at_ns), round.what);
    if let Some(healed_ns) = round.healed_ns {
        head.push_str(&format!(", undone after {}", time(healed_ns - round.at_ns)));
    }
    if let Some(leader) = &round.new_leader {
        head.push_str(&format!("; {leader} leads"));
    }
    if let Some(earlier) = round.within {
        head.push_str(&format!("; it struck within the gap of round {earlier}, which is counted there"));
    }
    let mut lines = vec![head];
    let gap = |name: &str, outage: Option<Outage>| match outage {
        Some(Outage { gap, .. }) if gap.open => {
            format!("{name}: none any more for {}", time(gap.length_ns()))
        }
        Some(Outage { gap, .. }) => format!("{name} stood still for {}", time(gap.length_ns())),
        None if round.within.is_some() => format!("{name}: nothing of its own"),
        None => format!("{name}: none before the fault"),
    };
    lines.push(format!("  {}, {}", gap("writes", round.writes), gap("reads", round.reads)));
    if !round.parts.is_empty() {
        let parts: Vec<String> = round
            .parts
            .iter()
            .filter(|part| part.to_ns > part.from_ns)
            .map(|part| format!("{} {}", part.name, time(part.to_ns - part.from_ns)))
            .collect();
        lines.push(format!("  {}", parts.join(", ")));
    }
    let mut clients: Vec<String> =
        round.errors.iter().map(|(code, n)| format!("{} {code}", figures::count(*n))).collect();
    let sessions = round.sessions;
    clients.push(format!(
        "{} sessions lost their connection: {} kept their member, {} moved, {} expired, {} never came back",
        sessions.lost, sessions.kept, sessions.moved, sessions.expired, sessions.away
    ));
    lines.push(format!("  {}", clients.join("; ")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_workload() {
        let run = crate::failover::tests::run();
        let failover = Failover::of(&run).unwrap();
        // The first phase began when the program had run for a second.
        let told = lines(&failover, &run.manifest);
        assert!(
            told[0].starts_with("round 1 at 4.000 s: kill server 3 (leader), undone after 4.00 s"),
            "{told:?}"
        );
    }
}
