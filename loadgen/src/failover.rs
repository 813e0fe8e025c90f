//! What faults cost the clients, computed from every single completion around them ([`crate::closeup`]), never from buckets.
//!
//! A *round* is a fault and what follows: from the moment at which it struck to the moment at which it was undone, but at least
//! [`ROUND_NS_MIN`], and never beyond the next fault or the end of the load.
//!
//! The *gap* of a class of operations (reads, writes) is the longest time between two consecutive successes that overlaps the outage:
//! the later one came after the fault, the earlier one before the outage was over. It is over when a new leader is seen serving; if
//! none comes (a follower was hit, or members do not say what they do), with the round. So a stall of a disk some seconds after a
//! quick failover is not taken for it. Every gap belongs to one round alone: to that of the first fault within it, and if there is none,
//! to that in which it began. So a fault that strikes while nothing succeeds yet is not charged with what the one before it cost; its
//! round says that it began within another one's gap.
//!
//! Times are those at which answers were there. A gap is *open* when no success came any more; its length is then a lower bound, and no expectation about it is met. Merged
//! gaps are over all members; a member's own gap is over the sessions that were attached to it when they got their answers, so the gap
//! of a member that was killed is open unless sessions came back to it.
//!
//! When a leader was hit and another follows, the time from the fault to the first acknowledged write behind the gap is split, by
//! what could be seen from outside (`srvr`, every few milliseconds):
//! - *detection*, until the member that will lead is seen not to follow any more;
//! - *election*, as long as the new leader says that it took (`zk_election_time` in its `mntr`), if it says so;
//! - *synchronisation*, until it is seen serving as leader; together with the election where that is not told;
//! - *re-attach*, until the first session has a connection again;
//! - *first write*, until the first write is acknowledged;
//! - *recovery*, after the gap: until successes of a stretch of [`RATE_NS`] come at [`RATE_SHARE`] of the rate before the fault.
//!
//! Sources of the ideas: the failure detection window and the decomposition that no other tool has.

mod sessions;
#[cfg(test)]
pub(crate) mod tests;

use crate::closeup::Close;
use crate::faults::roles::Role;
use crate::op::Outcome;
use crate::recorder::Class;
use crate::results::{EventRow, RunData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use sessions::{Change, Sessions, session_change};

/// A round lasts at least this long, unless the next fault or the end of the load comes first.
pub const ROUND_NS_MIN: u64 = 5_000_000_000;
/// The rate before a fault is that of so much time.
pub const RATE_BEFORE_NS: u64 = 2_000_000_000;
/// Recovery is judged by stretches of this length.
pub const RATE_NS: u64 = 200_000_000;
/// The share of the rate before the fault that counts as recovered.
pub const RATE_SHARE: f64 = 0.95;
/// The parts of an outage, in their order.
pub const PARTS: [&str; 7] = [
    "detection",
    "election",
    "synchronisation",
    "election and synchronisation",
    "re-attach",
    "first write",
    "recovery",
];
/// Stretches are tried this far apart.
const RATE_STEP_NS: u64 = 10_000_000;

/// All rounds of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Failover {
    /// In the order of time.
    pub rounds: Vec<Round>,
    /// Gaps of writes over the rounds.
    pub write_gap: Option<Spread>,
    /// Gaps of reads over the rounds.
    pub read_gap: Option<Spread>,
    /// Each part of the writes' gap over the rounds that have it.
    pub parts: Vec<(String, Spread)>,
    /// Sessions over the whole run.
    pub sessions: Sessions,
    /// Completions that were too many to be kept; rounds behind them are not measured.
    pub unkept: u64,
}

/// Durations of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Rounds in which it was measured.
    pub rounds: u64,
    /// Of these, rounds in which it never ended.
    pub open: u64,
    /// Shortest, ns.
    pub min_ns: u64,
    /// Median (of an even number: the longer one in the middle), ns.
    pub median_ns: u64,
    /// Longest, ns.
    pub max_ns: u64,
}

/// One fault and what followed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Round {
    /// Counted from 1.
    pub number: u32,
    /// What was done: `kill server.3 (leader)`.
    pub what: String,
    /// When it was done.
    pub at_ns: u64,
    /// When it was undone.
    pub healed_ns: Option<u64>,
    /// The end of the round.
    pub until_ns: u64,
    /// Whom it hit.
    pub hit: Vec<String>,
    /// It struck within the gap of writes (or reads, if nobody wrote) of this earlier round, which is counted there.
    #[serde(default)]
    pub within: Option<u32>,
    /// Who led afterwards, if a leader was hit.
    pub new_leader: Option<String>,
    /// Writes, if there were any before the fault.
    pub writes: Option<Outage>,
    /// Reads, likewise.
    pub reads: Option<Outage>,
    /// From the fault to the first acknowledged write, and to the old rate.
    pub parts: Vec<Part>,
    /// Failed operations in the round, by code.
    pub errors: BTreeMap<String, u64>,
    /// What became of sessions in the round.
    pub sessions: Sessions,
    /// Each member's own gaps.
    pub members: Vec<MemberOutage>,
}

/// What a class of operations went through in a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// The longest time without success.
    pub gap: Gap,
    /// Successes per second before the fault.
    pub rate_before: f64,
    /// Since when the rate is back; `None` if not within the round.
    pub back_ns: Option<u64>,
}

/// A time without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last success before it.
    pub from_ns: u64,
    /// The first success after it; the end of the load if it is open.
    pub to_ns: u64,
    /// No success came any more.
    pub open: bool,
}

impl Gap {
    /// How long it was, or at least was.
    pub fn length_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

/// A part of an outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// One of [`PARTS`].
    pub name: String,
    /// Begin.
    pub from_ns: u64,
    /// End.
    pub to_ns: u64,
}

/// A member's own gaps, by the sessions attached to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberOutage {
    /// `server.3`.
    pub member: String,
    /// Of writes.
    pub writes: Option<Gap>,
    /// Of reads.
    pub reads: Option<Gap>,
}

/// Gaps between consecutive successes (ascending times), each with the round that it belongs to: that of the first strike within it,
/// or else the one in which it began. Strikes are ascending; what began before the first belongs to none. Behind the last success
/// there is an open gap to `end_ns`, the end of the load.
pub fn gaps(successes: &[u64], strikes: &[u64], end_ns: u64) -> impl Iterator<Item = (usize, Gap)> {
    let gaps = successes.iter().enumerate().map(move |(at, from_ns)| match successes.get(at + 1) {
        Some(to_ns) => Gap { from_ns: *from_ns, to_ns: *to_ns, open: false },
        None => Gap { from_ns: *from_ns, to_ns: end_ns.max(*from_ns), open: true },
    });
    gaps.filter_map(move |gap| {
        // A success at the very moment of a strike came before it.
        let first = strikes.partition_point(|strike| *strike < gap.from_ns);
        match strikes.get(first) {
            Some(strike) if *strike < gap.to_ns => Some((first, gap)),
            _ => Some((first.checked_sub(1)?, gap)),
        }
    })
}

/// The longest of the gaps that belong to a round and began before `over_ns`, the end of its outage. `None` without a success before
/// the round, and if the whole outage lies within another round's gap.
pub fn longest_gap(
    successes: &[u64],
    strikes: &[u64],
    round: usize,
    over_ns: u64,
    end_ns: u64,
) -> Option<Gap> {
    // Only these can be of the round: from the last success before it on.
    let skipped = successes.partition_point(|success| *success <= strikes[round]).checked_sub(1)?;
    let of_round = gaps(&successes[skipped..], strikes, end_ns).take_while(|(_, gap)| gap.from_ns < over_ns);
    let of_round = of_round.filter(|(of, _)| *of == round).map(|(_, gap)| gap);
    of_round.reduce(|longest, gap| if gap.length_ns() > longest.length_ns() { gap } else { longest })
}

/// From when on successes come at [`RATE_SHARE`] of `rate` (per second) again, at or after `from_ns`; looked for until `end_ns`.
pub fn back_at(successes: &[u64], from_ns: u64, end_ns: u64, rate: f64) -> Option<u64> {
    let enough = rate * RATE_SHARE * RATE_NS as f64 / 1e9;
    let before = |at_ns: u64| successes.partition_point(|success| *success < at_ns);
    (from_ns..=end_ns.checked_sub(RATE_NS)?)
        .step_by(RATE_STEP_NS as usize)
        .find(|at_ns| (before(at_ns + RATE_NS) - before(*at_ns)) as f64 >= enough)
}

impl Spread {
    /// Of lengths, each with whether it is open; `None` of none.
    pub fn of(lengths: impl IntoIterator<Item = (u64, bool)>) -> Option<Spread> {
        let mut lengths: Vec<(u64, bool)> = lengths.into_iter().collect();
        // What never ended is longer than everything that did.
        lengths.sort_unstable_by_key(|(length_ns, open)| (*open, *length_ns));
        let (first, last) = (lengths.first()?, lengths.last()?);
        Some(Spread {
            rounds: lengths.len() as u64,
            open: lengths.iter().filter(|(_, open)| *open).count() as u64,
            min_ns: first.0,
            median_ns: lengths[lengths.len() / 2].0,
            max_ns: last.0,
        })
    }

    /// The median is that of an open gap.
    pub fn median_is_open(&self) -> bool {
        self.open > self.rounds - 1 - self.rounds / 2
    }
}

impl Failover {
    /// Of a run with faults; `None` of one without.
    pub fn of(run: &RunData) -> Option<Failover> {
        let look = Look::at(run)?;
        let rounds: Vec<Round> = (0..look.strikes.len()).map(|at| look.round(at)).collect();
        let gaps = |of: fn(&Round) -> Option<Outage>| {
            Spread::of(rounds.iter().filter_map(of).map(|outage| (outage.gap.length_ns(), outage.gap.open)))
        };
        let parts = PARTS.into_iter().filter_map(|name| {
            let of_name = rounds.iter().flat_map(|round| &round.parts).filter(|part| part.name == name);
            Spread::of(of_name.map(|part| (part.to_ns - part.from_ns, false)))
                .map(|spread| (name.to_owned(), spread))
        });
        let from_ns = run.manifest.phases.first().map_or(0, |phase| phase.start_ns);
        Some(Failover {
            parts: parts.collect(),
            write_gap: gaps(|round| round.writes),
            read_gap: gaps(|round| round.reads),
            sessions: Sessions::between(&run.events, from_ns, u64::MAX),
            unkept: run.manifest.checks.as_ref().map_or(0, |checks| checks.completions_unkept),
            rounds,
        })
    }

    /// The round with the longest gap of writes, or of reads if nobody wrote.
    pub fn worst(&self) -> Option<&Round> {
        let length = |round: &&Round| {
            let gap = round.writes.or(round.reads).map(|outage| outage.gap);
            gap.map_or((false, 0), |gap| (gap.open, gap.length_ns()))
        };
        self.rounds.iter().max_by_key(length)
    }
}

/// One strike: the events of all members that it hit.
struct Strike<'a> {
    at_ns: u64,
    events: Vec<&'a EventRow>,
}

struct Look<'a> {
    run: &'a RunData,
    strikes: Vec<Strike<'a>>,
    /// When they were.
    times: Vec<u64>,
    /// Times of successes, by class: all, and by member.
    successes: [Vec<u64>; 2],
    by_member: Vec<[Vec<u64>; 2]>,
    end_ns: u64,
}

impl<'a> Look<'a> {
    fn at(run: &'a RunData) -> Option<Look<'a>> {
        let mut strikes: Vec<Strike<'a>> = Vec::new();
        for event in run.events.iter().filter(|event| event.kind == "fault") {
            match strikes.last_mut().filter(|strike| strike.at_ns == event.at_ns) {
                Some(strike) => strike.events.push(event),
                None => strikes.push(Strike { at_ns: event.at_ns, events: vec![event] }),
            }
        }
        if strikes.is_empty() || run.completions.is_empty() {
            return None;
        }
        let mut successes = [Vec::new(), Vec::new()];
        let mut by_member = vec![[Vec::new(), Vec::new()]; run.manifest.members.len()];
        for close in run.completions.iter().filter(|close| close.outcome == Outcome::Ok) {
            let Some(class) = Class::of(close.op) else { continue };
            successes[class as usize].push(close.at_ns);
            if let Some(member) = by_member.get_mut(usize::from(close.member)) {
                member[class as usize].push(close.at_ns);
            }
        }
        let end_ns = run.manifest.phases.iter().map(|phase| phase.end_ns).max()?;
        let times = strikes.iter().map(|strike| strike.at_ns).collect();
        Some(Look { run, strikes, times, successes, by_member, end_ns })
    }

    fn round(&self, at: usize) -> Round {
        let strike = &self.strikes[at];
        let at_ns = strike.at_ns;
        let hit: Vec<String> = strike.events.iter().map(|event| event.target.clone()).collect();
        let next_ns = self.strikes.get(at + 1).map_or(self.end_ns, |next| next.at_ns);
        // Where it lasts at one member still, it has not been undone.
        let undone = |event: &&EventRow| (event.duration_ns > 0).then_some(event.at_ns + event.duration_ns);
        let undone: Option<Vec<u64>> = strike.events.iter().map(undone).collect();
        let healed_ns = undone.and_then(|undone| undone.into_iter().max());
        // A fault that is never undone lasts as long as it is alone.
        let until_ns = healed_ns.unwrap_or(next_ns).max(at_ns + ROUND_NS_MIN).min(next_ns).max(at_ns);
        let around = self.around(at);
        let within = around.map(|(of, _)| of).filter(|of| *of < at).map(|of| of as u32 + 1);
        // Its own gap may last longer than the round; of another one's gap it does not know who ended it.
        let lead = match (around, within) {
            (_, Some(_)) => None,
            (Some((_, gap)), None) => self.new_leader(at_ns, until_ns.max(gap.to_ns), &hit),
            (None, None) => self.new_leader(at_ns, until_ns, &hit),
        };
        let over_ns = lead.map_or(until_ns, |(serving_ns, _)| serving_ns);
        let mut round = Round {
            number: at as u32 + 1,
            what: strike.events.iter().map(|event| event.detail.as_str()).collect::<Vec<_>>().join(", "),
            at_ns,
            healed_ns,
            until_ns,
            hit,
            within,
            writes: self.outage(Class::Writes, at, over_ns),
            reads: self.outage(Class::Reads, at, over_ns),
            sessions: Sessions::between(&self.run.events, at_ns, until_ns),
            errors: self.errors(at_ns, until_ns),
            members: self.members(at, over_ns),
            ..Round::default()
        };
        if let Some((serving_ns, leader)) = lead {
            self.split(&mut round, serving_ns, leader);
        }
        round
    }

    /// The gap of writes (of reads, if nobody wrote) in which this round began, and whose it is.
    fn around(&self, at: usize) -> Option<(usize, Gap)> {
        let successes = self.successes.iter().rev().find(|successes| !successes.is_empty())?;
        let around = successes.partition_point(|success| *success <= self.times[at]).checked_sub(1)?;
        gaps(&successes[around..], &self.times, self.end_ns).next()
    }

    fn outage(&self, class: Class, at: usize, over_ns: u64) -> Option<Outage> {
        let successes = &self.successes[class as usize];
        let at_ns = self.times[at];
        let gap = longest_gap(successes, &self.times, at, over_ns, self.end_ns)?;
        let from_ns = at_ns.saturating_sub(RATE_BEFORE_NS).max(*successes.first()?);
        let count = successes.iter().filter(|at| **at >= from_ns && **at < at_ns).count();
        let rate_before = if at_ns > from_ns { count as f64 * 1e9 / (at_ns - from_ns) as f64 } else { 0.0 };
        let back_ns = (!gap.open && rate_before > 0.0)
            .then(|| back_at(successes, gap.to_ns, self.end_ns, rate_before))
            .flatten();
        Some(Outage { gap, rate_before, back_ns })
    }

    fn members(&self, at: usize, over_ns: u64) -> Vec<MemberOutage> {
        let gap = |successes: &[u64]| longest_gap(successes, &self.times, at, over_ns, self.end_ns);
        let members = self.run.manifest.members.iter().zip(&self.by_member);
        members
            .map(|(member, by_class)| MemberOutage {
                member: member.key().to_owned(),
                writes: gap(&by_class[Class::Writes as usize]),
                reads: gap(&by_class[Class::Reads as usize]),
            })
            .collect()
    }

    fn errors(&self, at_ns: u64, until_ns: u64) -> BTreeMap<String, u64> {
        let mut errors = BTreeMap::new();
        let inside = |close: &&Close| close.at_ns >= at_ns && close.at_ns < until_ns;
        for close in self.run.completions.iter().filter(inside) {
            if let Outcome::Error(code) = close.outcome {
                *errors.entry(code.name().to_owned()).or_default() += 1;
            }
        }
        errors
    }

    /// Changes of role in a round, by time.
    fn roles(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (u64, &str, Role)> {
        let roles = self.run.events.iter().filter(|event| event.kind == "role");
        let inside = roles.filter(move |event| event.at_ns >= from_ns && event.at_ns <= to_ns);
        inside.filter_map(|event| Some((event.at_ns, event.target.as_str(), Role::of_name(&event.detail)?)))
    }

    /// Who was seen to lead first in a round, of those that were not hit and did not lead before, and when.
    fn new_leader(&self, at_ns: u64, until_ns: u64, hit: &[String]) -> Option<(u64, &str)> {
        let mut leads = self.roles(at_ns, until_ns).filter(|(_, _, role)| *role == Role::Leader);
        let new = |member: &str| {
            !hit.iter().any(|hit| hit == member) && self.role_before(member, at_ns) != Some(Role::Leader)
        };
        leads.find(|(_, member, _)| new(member)).map(|(serving_ns, member, _)| (serving_ns, member))
    }

    /// What a member served as last before a moment.
    fn role_before(&self, member: &str, at_ns: u64) -> Option<Role> {
        let seen = self.roles(0, at_ns).filter(|(_, of, role)| *of == member && role.serves()).last();
        seen.map(|(_, _, role)| role).or_else(|| {
            let found = self.run.manifest.members.iter().find(|found| found.key() == member)?;
            Role::of_name(&found.role)
        })
    }

    /// Splits the outage of writes.
    fn split(&self, round: &mut Round, serving_ns: u64, leader: &str) {
        round.new_leader = Some(leader.to_owned());
        let Some(outage) = round.writes.filter(|outage| !outage.gap.open) else { return };
        let (at_ns, first_write_ns) = (round.at_ns, outage.gap.to_ns);
        if first_write_ns <= at_ns {
            return;
        }
        let mut of_leader = self.roles(at_ns, serving_ns).filter(|(_, member, _)| *member == leader);
        let detected_ns =
            of_leader.find(|(_, _, role)| !role.serves()).map_or(serving_ns, |(at_ns, ..)| at_ns);
        let elected_ns = self.election_ns(leader, serving_ns).map(|took_ns| detected_ns + took_ns);
        let attached = self.run.events.iter().filter_map(session_change);
        let attached =
            attached.filter(|(_, change)| matches!(change, Change::Kept | Change::Moved | Change::New));
        let attached_ns = attached.map(|(back_ns, _)| back_ns).filter(|back_ns| *back_ns > detected_ns).min();
        let ends = [
            ("detection", Some(detected_ns)),
            ("election", elected_ns),
            (
                if elected_ns.is_some() { "synchronisation" } else { "election and synchronisation" },
                Some(serving_ns),
            ),
            ("re-attach", attached_ns),
            ("first write", Some(first_write_ns)),
        ];
        let mut from_ns = at_ns;
        for (name, to_ns) in ends {
            // Seen a little late, a step may lie behind the next one; nothing is counted twice.
            let Some(to_ns) = to_ns.map(|to_ns| to_ns.clamp(from_ns, first_write_ns)) else { continue };
            round.parts.push(Part { name: name.into(), from_ns, to_ns });
            from_ns = to_ns;
        }
        if let Some(back_ns) = outage.back_ns {
            round.parts.push(Part { name: "recovery".into(), from_ns, to_ns: back_ns.max(from_ns) });
        }
    }

    /// How long the election took, as the new leader says in its first figures after it.
    fn election_ns(&self, leader: &str, serving_ns: u64) -> Option<u64> {
        let of_leader = self.run.servers.iter().filter(|sample| sample.member == leader);
        let told: Vec<(u64, f64, f64)> = of_leader
            .filter_map(|sample| {
                let figure = |name: &str| sample.metrics.get(name).copied();
                Some((sample.at_ns, figure("zk_cnt_election_time")?, figure("zk_sum_election_time")?))
            })
            .collect();
        let after = told.iter().find(|(at_ns, ..)| *at_ns >= serving_ns)?;
        let before = told.iter().rev().find(|(at_ns, ..)| *at_ns < serving_ns);
        let (count, sum_ms) = match before {
            // Fewer than before: another process has begun to count anew.
            Some(before) if before.1 <= after.1 => (after.1 - before.1, after.2 - before.2),
            _ => (after.1, after.2),
        };
        (count == 1.0 && sum_ms >= 0.0).then_some((sum_ms * 1e6) as u64)
    }
}
