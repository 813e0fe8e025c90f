//! Expectations: `response.get.p99 < 5ms` and their like, parsed when the workload is read and judged when
//! the run is over.
//!
//! An expectation is met only by a number. Missing data, zero samples and too few samples for the
//! percentile are failures with their reason, never a pass; and one that could not fail, or never hold (about
//! an operation that no phase issues, about misses in a closed loop, `errors.total >= 0`), is refused when the
//! workload is read. What depends on how much load there is, such as whether there are samples enough, is told
//! before the run by [`crate::foresee`].
//!
//! Without a phase, a latency, a rate or a share must hold in *every* phase that is not a warm-up and
//! issues the operation, and the worst of them is reported. Counts are summed over those phases instead.

use serde::{Deserialize, Serialize};

mod range;

use crate::figures;
use crate::op::Op;
use crate::promises::Promise;
use crate::spec::quantity::{self, DURATION_FORM, RATE_FORM, SHARE_FORM};
use crate::spec::{Arrival, Phase, Spec, hint};

/// One line of a workload's `expect` list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// As it was written.
    pub text: String,
    /// Only in this phase; `None`: latencies, rates and shares in every phase that is not a warm-up and
    /// issues the operation, counts summed over the phases that are not a warm-up.
    pub phase: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// How it is compared.
    pub relation: Relation,
    /// With what, in the metric's unit: nanoseconds, operations per second, a count, a share from 0 to 1.
    pub bound: f64,
}

/// What an expectation is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// A latency in nanoseconds, of operations that were answered as asked.
    Latency(Clock, Ops, Stat),
    /// Operations answered as asked, per second of the phase.
    Rate(Ops),
    /// How many operations ended in an error.
    Errors(Ops),
    /// Errors among all operations that ended, 0 to 1.
    ErrorShare(Ops),
    /// How many due operations were missed because the backlog limit was reached.
    Missed(Ops),
    /// Missed among all due operations, 0 to 1.
    MissedShare(Ops),
    /// Writes that were acknowledged and are not there at the end. Of the whole run.
    LostAcknowledgedWrites,
    /// A duration around faults, in nanoseconds. Of the whole run.
    Failover(Figure, Over),
    /// How often a promise was broken. Of the whole run.
    Broken(Promise),
    /// Sessions that the cluster ended. Of the whole run.
    SessionsExpired,
    /// Ephemeral znodes that are gone while their sessions live. Of the whole run.
    EphemeralsLost,
}

/// What is measured of each fault; see [`crate::failover`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// The longest time between two acknowledged writes.
    WriteGap,
    /// The longest time between two answered reads.
    ReadGap,
    /// From the fault until writes are acknowledged at the old rate.
    Recovery,
}

/// Which of several faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// The longest.
    Worst,
    /// The one in the middle.
    Median,
}

/// Between which two of the three clock readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// done − due: what users feel.
    Response,
    /// done − sent.
    Service,
    /// sent − due.
    Lag,
}

/// Which kinds of operation, their histograms merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ops {
    /// All that the mix issues (not connect, not notify).
    All,
    /// Those that the cluster answers without logging.
    Reads,
    /// Those that go through the leader's log.
    Writes,
    /// This one.
    One(Op),
}

/// A number that describes a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stat {
    /// The smallest value.
    Min,
    /// The arithmetic mean.
    Mean,
    /// The largest value.
    Max,
    /// Percentile, above 0 and below 100.
    Percentile(f64),
}

/// How a measured number must relate to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// `<`
    #[serde(rename = "<")]
    Less,
    /// `<=`
    #[serde(rename = "<=")]
    AtMost,
    /// `=`
    #[serde(rename = "=")]
    Equal,
    /// `>=`
    #[serde(rename = ">=")]
    AtLeast,
    /// `>`
    #[serde(rename = ">")]
    More,
}

/// A number out of a run's summary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// In the metric's unit: nanoseconds, operations per second, a count, a share from 0 to 1.
    pub value: f64,
    /// What it rests on: operations answered as asked (latencies, rates), that ended (errors), that were
    /// due (missed), acknowledged writes that were looked up (lost ones). Zero is a failure, whatever the
    /// value.
    pub samples: u64,
}

/// What a run's summary must be able to say so that expectations can be judged.
pub trait Measurements {
    /// The metric in one phase, or over all phases that are not a warm-up (`None`: asked for counts and
    /// whole-run metrics only). `None` when it was not measured at all; `samples: 0` when it was and
    /// nothing came.
    fn measured(&self, phase: Option<&str>, metric: &Metric) -> Option<Measured>;
}

/// How an expectation turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The expectation as written.
    pub text: String,
    /// Whether it was met.
    pub met: bool,
    /// What was measured, where, from how many samples; or why nothing could be said.
    pub detail: String,
}

impl std::fmt::Display for Judged {
    /// `FAILED response.get.p99 < 5ms: measured 7.31 ms (phase steady, 120,000 samples)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", if self.met { "met" } else { "FAILED" }, self.text, self.detail)
    }
}

impl Metric {
    /// What kind of number it is.
    fn unit(&self) -> Unit {
        match self {
            Metric::Latency(..) | Metric::Failover(..) => Unit::Duration,
            Metric::Rate(_) => Unit::Rate,
            Metric::ErrorShare(_) | Metric::MissedShare(_) => Unit::Share,
            Metric::Errors(_) | Metric::Missed(_) => Unit::Count,
            Metric::LostAcknowledgedWrites | Metric::SessionsExpired | Metric::EphemeralsLost => Unit::Count,
            Metric::Broken(_) => Unit::Count,
        }
    }

    /// The operations that it is about, if it is about operations of a phase.
    pub(crate) fn ops(&self) -> Option<Ops> {
        match *self {
            Metric::Latency(_, ops, _) | Metric::Rate(ops) | Metric::Errors(ops) => Some(ops),
            Metric::ErrorShare(ops) | Metric::Missed(ops) | Metric::MissedShare(ops) => Some(ops),
            Metric::LostAcknowledgedWrites
            | Metric::Failover(..)
            | Metric::Broken(_)
            | Metric::SessionsExpired
            | Metric::EphemeralsLost => None,
        }
    }

    /// Asked once for the whole run rather than phase by phase, unless a phase was named.
    fn is_summed(&self) -> bool {
        self.unit() == Unit::Count || matches!(self, Metric::Failover(..))
    }

    /// What its samples are, for reasons.
    fn samples_are(&self) -> &'static str {
        match self {
            Metric::LostAcknowledgedWrites => "acknowledged write was checked",
            Metric::Failover(..) => "fault was measured (or not every one)",
            Metric::SessionsExpired => "session was opened",
            Metric::EphemeralsLost => "ephemeral znode was checked",
            Metric::Broken(promise) => promise.checked_is(),
            Metric::Missed(_) | Metric::MissedShare(_) => "operation was due",
            Metric::Errors(_) | Metric::ErrorShare(_) => "operation ended",
            Metric::Latency(..) | Metric::Rate(_) => "operation was answered",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Duration,
    Rate,
    Count,
    Share,
}

impl Unit {
    fn parse(self, text: &str) -> Option<f64> {
        match self {
            Unit::Duration => quantity::duration_ns(text).map(|ns| ns as f64),
            Unit::Rate => quantity::rate_per_s(text),
            Unit::Share => quantity::share(text),
            Unit::Count => quantity::number(text),
        }
    }

    fn form(self) -> &'static str {
        match self {
            Unit::Duration => DURATION_FORM,
            Unit::Rate => RATE_FORM,
            Unit::Share => SHARE_FORM,
            Unit::Count => "a number",
        }
    }

    /// The value with so many decimals, in the unit that suits it.
    fn show(self, value: f64, decimals: usize) -> String {
        match self {
            Unit::Rate => format!("{value:.*}/s", decimals - 1),
            Unit::Share => format!("{:.*}%", decimals, value * 100.0),
            Unit::Count if value >= 0.0 && value.fract() == 0.0 => figures::count(value as u64),
            Unit::Count => format!("{value}"),
            Unit::Duration if value < 1e3 => format!("{value:.0} ns"),
            Unit::Duration if value < 1e6 => format!("{:.*} µs", decimals, value / 1e3),
            Unit::Duration if value < 1e9 => format!("{:.*} ms", decimals, value / 1e6),
            Unit::Duration => format!("{:.*} s", decimals, value / 1e9),
        }
    }
}

impl Relation {
    pub(crate) fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Relation::Less => value < bound,
            Relation::AtMost => value <= bound,
            Relation::Equal => value == bound,
            Relation::AtLeast => value >= bound,
            Relation::More => value > bound,
        }
    }

    /// How far a value is on the wrong side (or, negative, on the right one).
    fn excess(self, value: f64, bound: f64) -> f64 {
        match self {
            Relation::Less | Relation::AtMost => value - bound,
            Relation::Equal => (value - bound).abs(),
            Relation::AtLeast | Relation::More => bound - value,
        }
    }
}

impl Ops {
    /// The names in expectations, in the order in which they are offered.
    fn named() -> Vec<(&'static str, Ops)> {
        let groups = [("all", Ops::All), ("reads", Ops::Reads), ("writes", Ops::Writes)];
        groups.into_iter().chain(Op::ALL.map(|op| (op.name(), Ops::One(op)))).collect()
    }

    fn parse(word: &str) -> Result<Ops, String> {
        let named = Ops::named();
        let found = named.iter().find(|(name, _)| *name == word);
        let names = || named.iter().map(|&(name, _)| name).collect::<Vec<_>>();
        found
            .map(|&(_, ops)| ops)
            .ok_or_else(|| format!("unknown operation `{word}`{}", hint(word, &names())))
    }

    /// Whether the group contains this kind of operation.
    pub fn contains(self, op: Op) -> bool {
        let automatic = matches!(op, Op::Connect | Op::Notify);
        match self {
            Ops::All => !automatic,
            Ops::Reads => !automatic && !op.is_write(),
            Ops::Writes => op.is_write(),
            Ops::One(one) => one == op,
        }
    }

    /// Whether any of them occurs in the n-th phase of a workload.
    fn occur(self, spec: &Spec, n: usize) -> bool {
        match self {
            Ops::One(Op::Connect) => true, // sessions can be lost and found in any phase
            Ops::One(Op::Notify) => spec.watchers.iter().any(|group| group.phases.contains(&(n as u16))),
            _ => spec.phases[n].mix.iter().any(|&(op, _)| self.contains(op)),
        }
    }
}

impl Stat {
    fn parse(word: &str) -> Option<Stat> {
        match word {
            "min" => Some(Stat::Min),
            "mean" => Some(Stat::Mean),
            "max" => Some(Stat::Max),
            _ => {
                let percentile = quantity::number(word.strip_prefix('p')?)?;
                (percentile > 0.0 && percentile < 100.0).then_some(Stat::Percentile(percentile))
            }
        }
    }
}

const METRIC_FORM: &str = "response.get.p99, service.writes.mean, lag.max, notify.p99, rate.get, \
                           errors.total, errors.share, missed.total, missed.share, lost_acknowledged_writes, ephemerals_lost, \
                           sessions_expired, stale_reads, watches.dropped or failover.write_gap";
const STAT_FORM: &str = "min, mean, max or a percentile such as p99.9";

/// The metric behind an optional `phase.NAME.`
fn parse_metric(text: &str) -> Result<Metric, String> {
    if let Some(promise) = Promise::of_name(text) {
        return Ok(Metric::Broken(promise));
    }
    match text {
        "lost_acknowledged_writes" => return Ok(Metric::LostAcknowledgedWrites),
        "sessions_expired" => return Ok(Metric::SessionsExpired),
        "ephemerals_lost" => return Ok(Metric::EphemeralsLost),
        _ => {}
    }
    let (family, rest) = text.split_once('.').unwrap_or((text, ""));
    match family {
        "response" => parse_latency(Clock::Response, rest),
        "service" => parse_latency(Clock::Service, rest),
        "lag" => parse_latency(Clock::Lag, rest),
        "notify" => {
            let stat =
                Stat::parse(rest).ok_or_else(|| format!("`{rest}` after notify: expected {STAT_FORM}"))?;
            Ok(Metric::Latency(Clock::Response, Ops::One(Op::Notify), stat))
        }
        "failover" => parse_failover(rest),
        "rate" => Ok(Metric::Rate(if rest.is_empty() { Ops::All } else { Ops::parse(rest)? })),
        "errors" => match parse_count(family, rest)? {
            (ops, true) => Ok(Metric::ErrorShare(ops)),
            (ops, false) => Ok(Metric::Errors(ops)),
        },
        "missed" => match parse_count(family, rest)? {
            (ops, true) => Ok(Metric::MissedShare(ops)),
            (ops, false) => Ok(Metric::Missed(ops)),
        },
        _ => {
            let families = [
                "response",
                "service",
                "lag",
                "notify",
                "rate",
                "errors",
                "missed",
                "lost_acknowledged_writes",
                "ephemerals_lost",
                "sessions_expired",
                "failover",
                "phase",
            ];
            let promises = Promise::ALL.map(Promise::name);
            let near = crate::spec::nearest(text, &promises);
            match near.or_else(|| crate::spec::nearest(family, &families)) {
                Some(near) => Err(format!("unknown metric `{text}`; did you mean `{near}`?")),
                None => Err(format!("unknown metric `{text}`; expected the like of {METRIC_FORM}")),
            }
        }
    }
}

/// `write_gap`, `write_gap.median`.
fn parse_failover(rest: &str) -> Result<Metric, String> {
    let (figure, over) = rest.split_once('.').unwrap_or((rest, "worst"));
    let figure = match figure {
        "write_gap" => Figure::WriteGap,
        "read_gap" => Figure::ReadGap,
        "recovery" => Figure::Recovery,
        _ => {
            let near = hint(figure, &["write_gap", "read_gap", "recovery"]);
            return Err(format!("unknown figure `{figure}` of failover{near}"));
        }
    };
    match over {
        "worst" => Ok(Metric::Failover(figure, Over::Worst)),
        "median" => Ok(Metric::Failover(figure, Over::Median)),
        _ => Err(format!("`{over}` in `failover.{rest}`: expected median or worst (default)")),
    }
}

/// `get.p99`, or `p99` for all operations.
fn parse_latency(clock: Clock, rest: &str) -> Result<Metric, String> {
    if let Some(stat) = Stat::parse(rest) {
        return Ok(Metric::Latency(clock, Ops::All, stat));
    }
    let (op, stat) = rest.split_once('.').unwrap_or((rest, ""));
    let ops = Ops::parse(op)?;
    let stat = Stat::parse(stat).ok_or_else(|| format!("`{stat}` after `{op}`: expected {STAT_FORM}"))?;
    Ok(Metric::Latency(clock, ops, stat))
}

/// `total`, `share`, `get.total`, `get.share`; true for the share.
fn parse_count(family: &str, rest: &str) -> Result<(Ops, bool), String> {
    let (ops, what) = match rest.rsplit_once('.') {
        Some((op, what)) => (Ops::parse(op)?, what),
        None => (Ops::All, rest),
    };
    match what {
        "total" => Ok((ops, false)),
        "share" => Ok((ops, true)),
        _ => Err(format!("`{what}` in `{family}.{rest}`: expected {family}.total or {family}.share")),
    }
}

impl Expectation {
    /// Reads one expectation: metric, relation, bound.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<Expectation, String> {
        let form = "expected a metric, a relation (< <= = >= >) and a bound, such as response.get.p99 < 5ms";
        let at = text.find(['<', '>', '=']).ok_or(form)?;
        let relations = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Less),
            (">", Relation::More),
            ("=", Relation::Equal),
        ];
        let (sign, relation) =
            *relations.iter().find(|(sign, _)| text[at..].starts_with(sign)).ok_or(form)?;
        let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
        let (phase, metric) = match left.strip_prefix("phase.") {
            Some(rest) => {
                let (phase, metric) =
                    rest.split_once('.').ok_or_else(|| format!("`{left}`: expected phase.NAME.METRIC"))?;
                (Some(phase.to_string()), metric)
            }
            None => (None, left),
        };
        let metric = parse_metric(metric)?;
        if phase.is_some() && metric.ops().is_none() {
            return Err("this is about the whole run, not about a phase".to_string());
        }
        let unit = metric.unit();
        let bound = unit.parse(right).ok_or_else(|| format!("bound `{right}`: expected {}", unit.form()))?;
        range::of(&metric).check(relation, bound)?;
        Ok(Expectation { text: text.trim().to_string(), phase, metric, relation, bound })
    }

    /// Whether this workload can meet and fail it at all.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, spec: &Spec) -> Result<(), String> {
        if let Some(name) = &self.phase {
            let names: Vec<&str> = spec.phases.iter().map(|phase| phase.name.as_str()).collect();
            match spec.phases.iter().find(|phase| phase.name == *name) {
                None => return Err(format!("there is no phase `{name}`{}", hint(name, &names))),
                Some(phase) if phase.warmup => {
                    return Err(format!("phase {name} is a warm-up, which nothing is expected of"));
                }
                Some(_) => {}
            }
        }
        let phases = self.phases(spec);
        let issues =
            |of: &dyn Fn(Op) -> bool| spec.phases.iter().any(|phase| phase.mix.iter().any(|(op, _)| of(*op)));
        match self.metric {
            Metric::Failover(..) if spec.faults.is_empty() => {
                return Err("there is no [[fault]] whose gap could be measured".to_string());
            }
            Metric::Failover(Figure::WriteGap | Figure::Recovery, _) | Metric::LostAcknowledgedWrites
                if !issues(&|op| op.is_write()) =>
            {
                return Err("no phase writes anything".to_string());
            }
            Metric::Failover(Figure::ReadGap, _) if !issues(&|op| Ops::Reads.contains(op)) => {
                return Err("no phase reads anything".to_string());
            }
            Metric::EphemeralsLost if !issues(&|op| op == Op::CreateEphemeral) => {
                return Err("no phase creates ephemeral znodes".to_string());
            }
            Metric::Broken(promise) => return promise_can_be_checked(promise, spec, issues),
            Metric::Failover(..)
            | Metric::LostAcknowledgedWrites
            | Metric::EphemeralsLost
            | Metric::SessionsExpired => return Ok(()),
            _ if phases.is_empty() => {
                let of = self
                    .phase
                    .as_ref()
                    .map_or_else(|| "no phase".to_string(), |name| format!("phase {name} never"));
                return Err(format!("{of} issues such operations, or watches for them, outside warm-ups"));
            }
            _ => {}
        }
        let late = matches!(
            self.metric,
            Metric::Latency(Clock::Lag, ..) | Metric::Missed(_) | Metric::MissedShare(_)
        );
        if late && phases.iter().all(|phase| phase.arrival == Arrival::Closed) {
            return Err("in a closed loop nothing is ever late or missed; this could not fail".to_string());
        }
        Ok(())
    }

    /// The phases that it looks at.
    pub(crate) fn phases<'a>(&self, spec: &'a Spec) -> Vec<&'a Phase> {
        let ops = self.metric.ops();
        let named = |phase: &Phase| self.phase.as_ref().is_none_or(|name| *name == phase.name);
        let occurs = |n: usize| ops.is_none_or(|ops| ops.occur(spec, n));
        let looked_at = |&(n, phase): &(usize, &Phase)| !phase.warmup && named(phase) && occurs(n);
        spec.phases.iter().enumerate().filter(looked_at).map(|(_, phase)| phase).collect()
    }

    /// Judges it by what a run of that workload measured.
    pub fn judge(&self, spec: &Spec, run: &dyn Measurements) -> Judged {
        let judged = |met: bool, detail: String| Judged { text: self.text.clone(), met, detail };
        let asked: Vec<Option<&str>> = match &self.phase {
            None if self.metric.is_summed() => vec![None],
            _ => self.phases(spec).into_iter().map(|phase| Some(phase.name.as_str())).collect(),
        };
        let mut readings = Vec::with_capacity(asked.len());
        for phase in asked {
            match self.reading(phase, run) {
                Ok(measured) => readings.push((phase, measured)),
                Err(why) => return judged(false, format!("{why} ({})", where_of(phase))),
            }
        }
        let excess = |measured: &Measured| self.relation.excess(measured.value, self.bound);
        let worst = readings.iter().max_by(|(_, a), (_, b)| excess(a).total_cmp(&excess(b)));
        let Some((phase, measured)) = worst else {
            return judged(false, "no phase that was measured issues such operations".to_string());
        };
        let failed =
            readings.iter().filter(|(_, measured)| !self.relation.holds(measured.value, self.bound)).count();
        let shown = self.shown(measured.value);
        let samples = match measured.samples {
            1 => "1 sample".to_string(),
            n => format!("{} samples", figures::count(n)),
        };
        let mut detail = format!("measured {shown} ({}, {samples})", where_of(*phase));
        if failed > 1 {
            detail.push_str(&format!("; fails in {failed} of {} phases, this is the worst", readings.len()));
        }
        judged(failed == 0, detail)
    }

    /// The number, or why there is none that could be judged.
    fn reading(&self, phase: Option<&str>, run: &dyn Measurements) -> Result<Measured, String> {
        let measured = run.measured(phase, &self.metric).ok_or("nothing was measured")?;
        if measured.samples == 0 {
            return Err(format!("no {}", self.metric.samples_are()));
        }
        if let Metric::Latency(_, _, Stat::Percentile(percentile)) = self.metric {
            let needed = samples_needed(percentile);
            if measured.samples < needed {
                return Err(format!("p{percentile} needs {needed} samples, there are {}", measured.samples));
            }
        }
        if !measured.value.is_finite() {
            return Err(format!("the measured value is {}", measured.value));
        }
        Ok(measured)
    }

    /// With as many decimals as it takes to see on which side of the bound it lies.
    fn shown(&self, value: f64) -> String {
        let unit = self.metric.unit();
        let told_apart = |&decimals: &usize| {
            value == self.bound || unit.show(value, decimals) != unit.show(self.bound, decimals)
        };
        unit.show(value, (2..=6).find(told_apart).unwrap_or(6))
    }
}

fn where_of(phase: Option<&str>) -> String {
    phase.map_or_else(|| "whole run".to_string(), |name| format!("phase {name}"))
}

/// Whether the workload does anything by which the promise could be seen broken.
fn promise_can_be_checked(
    promise: Promise,
    spec: &Spec,
    issues: impl Fn(&dyn Fn(Op) -> bool) -> bool,
) -> Result<(), String> {
    let (can, cannot) = match promise {
        Promise::OutOfOrder | Promise::ZxidWentBack | Promise::SessionReplaced => (true, ""),
        Promise::StaleRead => (
            issues(&|op| matches!(op, Op::Get | Op::Exists | Op::Set | Op::Multi)),
            "no phase reads or writes the data znodes",
        ),
        Promise::WrongValue => (
            issues(&|op| matches!(op, Op::Get | Op::Set | Op::Multi)),
            "no phase reads or writes values of the data znodes",
        ),
        Promise::WrongList => (
            issues(&|op| op == Op::Children || op.is_scratch()),
            "no phase asks for children, or creates znodes",
        ),
        Promise::UndoneDelete => {
            (issues(&|op| matches!(op, Op::Delete | Op::CreateEphemeral)), "no phase deletes anything")
        }
        Promise::WatchDropped | Promise::WatchDoubled | Promise::WatchUnasked => {
            (!spec.watchers.is_empty(), "there are no [[watchers]]")
        }
    };
    if can { Ok(()) } else { Err(cannot.to_string()) }
}

/// How many samples a percentile needs before it is worth printing: ten beyond it.
pub fn samples_needed(percentile: f64) -> u64 {
    (10.0 / (1.0 - percentile / 100.0) - 1e-6).ceil() as u64
}

#[cfg(test)]
mod tests;
