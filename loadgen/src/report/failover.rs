//! What faults cost: the report's tables.

use std::fmt::Write;

use crate::charts::escape;
use crate::failover::{Failover, Gap, Outage, Round, Spread};
use crate::figures;
use crate::results::Manifest;

fn time(ns: u64) -> String {
    if ns == 0 {
        return "0".to_string();
    }
    figures::time_us(ns as f64 / 1e3).replace(' ', "&nbsp;")
}

fn cell(ns: Option<u64>, open: bool) -> String {
    match ns {
        Some(ns) => format!("<td data-v={ns}>{}{}</td>", if open { "&gt;&nbsp;" } else { "" }, time(ns)),
        None => "<td>-</td>".to_string(),
    }
}

fn gap_cell(gap: Option<Gap>) -> String {
    cell(gap.map(|gap| gap.length_ns()), gap.is_some_and(|gap| gap.open))
}

/// Median and worst, every round, and the members of the worst one.
pub(super) fn tables(failover: &Failover, manifest: &Manifest) -> String {
    let mut html = String::new();
    if failover.rounds.len() > 1 {
        html.push_str(&spreads(failover));
    }
    html.push_str(&rounds(failover, manifest));
    if let Some(round) = failover.worst() {
        html.push_str(&members(round));
    }
    html
}

fn spreads(failover: &Failover) -> String {
    let mut html = "<div class=scroll><table><thead><tr><th class=text></th><th>rounds</th><th>shortest</th>\
                    <th>median</th><th>worst</th><th>never ended</th></tr></thead><tbody>"
        .to_string();
    let named = [("write gap", failover.write_gap), ("read gap", failover.read_gap)];
    let named = named.into_iter().filter_map(|(name, spread)| Some((name, spread?)));
    let parts = failover.parts.iter().map(|(name, spread)| (name.as_str(), *spread));
    for (name, spread) in named.chain(parts) {
        let Spread { rounds, open, min_ns, median_ns, max_ns } = spread;
        let _ = write!(
            html,
            "<tr><td class=text>{}</td><td>{rounds}</td><td>{}</td><td>{}</td><td>{}</td><td>{open}</td></tr>",
            escape(name),
            time(min_ns),
            time(median_ns),
            time(max_ns)
        );
    }
    html.push_str("</tbody></table></div>");
    html
}

fn rounds(failover: &Failover, manifest: &Manifest) -> String {
    let parts: Vec<&str> = failover.parts.iter().map(|(name, _)| name.as_str()).collect();
    let heads: String = parts.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let mut html = format!(
        "<h3>Rounds</h3><div class=scroll><table class=sortable><thead><tr><th>round</th><th>at</th>\
         <th class=text>what</th><th>write gap</th><th>read gap</th>{heads}<th class=text>errors</th>\
         <th>lost</th><th>kept</th><th>moved</th><th>expired</th><th>away</th></tr></thead><tbody>"
    );
    for round in &failover.rounds {
        let gap = |outage: Option<Outage>| gap_cell(outage.map(|outage| outage.gap));
        let errors: Vec<String> =
            round.errors.iter().map(|(code, n)| format!("{} {code}", figures::count(*n))).collect();
        let _ = write!(
            html,
            "<tr><td data-v={}>{}</td><td data-v={}>{:.3}&nbsp;s</td><td class=text>{}</td>{}{}",
            round.number,
            round.number,
            round.at_ns,
            manifest.seconds(round.at_ns),
            escape(&what(round)),
            gap(round.writes),
            gap(round.reads)
        );
        for name in &parts {
            let part = round.parts.iter().find(|part| part.name == **name);
            html.push_str(&cell(part.map(|part| part.to_ns - part.from_ns), false));
        }
        let sessions = round.sessions;
        let _ = write!(html, "<td class=text>{}</td>", escape(&errors.join(", ")));
        for n in [sessions.lost, sessions.kept, sessions.moved, sessions.expired, sessions.away] {
            let _ = write!(html, "<td data-v={n}>{n}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str(
        "</tbody></table></div><p class=note>A gap is the longest time between two successes that overlaps the round, \
         and is counted in one round alone; &gt; marks one that never ended. Parts run from the fault to the first acknowledged write, recovery from there to \
         95&nbsp;% of the old rate. Sessions that lost their connection: kept (back at their own member), moved to another, \
         expired, or never seen again (away).</p>",
    );
    html
}

/// What was done, and whether what it cost is counted elsewhere.
fn what(round: &Round) -> String {
    match round.within {
        Some(earlier) => {
            format!("{} (within the gap of round {earlier}, which is counted there)", round.what)
        }
        None => round.what.clone(),
    }
}

fn members(round: &Round) -> String {
    let mut html = format!(
        "<h3>Each member in round {}</h3><div class=scroll><table><thead><tr><th class=text>member</th>\
         <th>write gap</th><th>read gap</th><th class=text></th></tr></thead><tbody>",
        round.number
    );
    for member in &round.members {
        let hit = if round.hit.contains(&member.member) { "hit" } else { "" };
        let leads = if round.new_leader.as_ref() == Some(&member.member) { "leads afterwards" } else { hit };
        let _ = write!(
            html,
            "<tr><td class=text>{}</td>{}{}<td class=text>{leads}</td></tr>",
            escape(&member.member),
            gap_cell(member.writes),
            gap_cell(member.reads)
        );
    }
    html.push_str("</tbody></table></div>");
    html
}
