//! The checks, one function each. The thresholds are named in the parent.

use crate::failover::{Change, session_change};
use crate::figures;
use crate::op::Op;
use crate::recorder::Class;
use crate::results::{ArrivalKind, EventRow, GeneratorSample, PhaseRecord, RunData};
use crate::summary::{OpSummary, PhaseSummary, Summary, share_before};

use super::*;

/// What is true of the run as a whole.
pub(super) fn of_run(run: &RunData, summary: &Summary) -> Vec<Reason> {
    let manifest = &run.manifest;
    let mut reasons = Vec::new();
    let mut add = |grade, check: &str, text: String| reasons.push(reason(grade, check, "", text));
    if manifest.cut_short {
        let by = match manifest.cut_short_by.as_str() {
            "" => String::new(),
            by => format!(" ({by})"),
        };
        let text = format!("the run was cut short{by}: its last phase is incomplete, later ones are missing");
        add(Grade::Invalid, "cut-short", text);
    }
    if summary.measured().count() == 0 {
        let text = match manifest.cut_short {
            true => "the run was stopped before the first phase that is not warm-up",
            false => "no phase was measured; give the workload at least one phase that is not warm-up",
        };
        add(Grade::Invalid, "no-data", text.to_string());
    }
    if run.generator.samples.is_empty() {
        let text = "the generator did not measure itself, so its own limits cannot be ruled out";
        add(Grade::Suspect, "generator-unmeasured", text.to_string());
    }
    reasons.extend(imbalance(run));
    let writes = run.recording.totals.keys().any(|key| Class::of(key.op) == Some(Class::Writes));
    if writes && manifest.environment.data_on_tmpfs == Some(true) {
        let text = "the data directory is on tmpfs, where fsync costs nothing: writes are not durable writes. \
                    Put it on a disk";
        reasons.push(reason(Grade::Suspect, "data-on-tmpfs", "", text.to_string()));
    }
    if let Some(why) = manifest.checks.as_ref().and_then(|checks| checks.watches.first_unarmed.as_ref()) {
        let count = manifest.checks.as_ref().map_or(0, |checks| checks.watches.unarmed);
        let text = format!(
            "{} watches were given up: {why}. What they should have told is not known",
            figures::count(count)
        );
        reasons.push(reason(Grade::Suspect, "watches-unarmed", "", text));
    }
    if manifest.environment.colocated {
        let text = format!(
            "generator and servers shared {} cores of one machine; latencies include their competition for them",
            manifest.environment.cores
        );
        reasons.push(reason(Grade::Valid, "co-located", "", text));
    }
    reasons
}

fn reason(grade: Grade, check: &str, phase: &str, text: String) -> Reason {
    Reason { grade, check: check.to_string(), phase: phase.to_string(), text }
}

fn imbalance(run: &RunData) -> Option<Reason> {
    let manifest = &run.manifest;
    if manifest.members.len() < 2 || !["", "spread"].contains(&manifest.placement.as_str()) {
        return None;
    }
    let per_member: Vec<u32> = manifest
        .members
        .iter()
        .map(|member| manifest.connections.get(member.key()).copied().unwrap_or(0))
        .collect();
    let most = f64::from(*per_member.iter().max()?);
    let mean = f64::from(per_member.iter().sum::<u32>()) / per_member.len() as f64;
    // A difference of one session is what is left when they cannot be divided evenly.
    (most > mean * IMBALANCE_MAX && most - mean >= 1.0).then(|| {
        let list: Vec<String> = manifest
            .members
            .iter()
            .zip(&per_member)
            .map(|(member, n)| format!("{} {n}", member.key()))
            .collect();
        let text = format!(
            "sessions were to be spread evenly, but the most on one member are {} times the mean \
             (limit {IMBALANCE_MAX}): {}{}",
            figures::digits(most / mean),
            list.join(", "),
            if per_member.contains(&0) { ". Is the member without sessions running?" } else { "" }
        );
        reason(Grade::Suspect, "connection-imbalance", "", text)
    })
}

/// What is true of one measured phase.
pub(super) fn of_phase(run: &RunData, at: usize, phase: &PhaseRecord, summary: &PhaseSummary) -> Vec<Reason> {
    let Some(all) = summary.all().or(summary.ops.first()).filter(|all| all.count > 0) else {
        let text = "not one operation succeeded; a run without data proves nothing".to_string();
        return vec![reason(Grade::Invalid, "no-data", &phase.name, text)];
    };
    let look = Look { run, at, phase, all, quiet_ns: quiet_until(run, phase) };
    let found = [
        look.lost(),
        look.errors(),
        look.missed(),
        look.achieved(),
        look.achieved_in_a_second(),
        look.send_lag(),
        look.saturated(),
        look.run_queue(),
        look.jitter(),
        look.short(),
        steadiness::drift(run, at, phase, look.quiet_ns),
    ];
    let named = |(grade, check, text): Finding| reason(grade, check, &phase.name, text);
    found.into_iter().flatten().map(named).collect()
}

/// A grade, a check's name, and what was found.
pub(super) type Finding = (Grade, &'static str, String);

/// Until when nothing was done to the cluster on purpose: the phase's end, or its first fault.
fn quiet_until(run: &RunData, phase: &PhaseRecord) -> u64 {
    let faults = run.events.iter().filter(|event| event.kind == "fault");
    let inside = faults.filter(|event| event.at_ns < phase.end_ns);
    // A fault of an earlier phase disturbs this one as long as it lasts.
    let disturbing = inside
        .filter(|event| event.at_ns >= phase.start_ns || event.at_ns + event.duration_ns > phase.start_ns);
    disturbing.map(|event| event.at_ns.max(phase.start_ns)).min().unwrap_or(phase.end_ns)
}

struct Look<'a> {
    run: &'a RunData,
    at: usize,
    phase: &'a PhaseRecord,
    all: &'a OpSummary,
    quiet_ns: u64,
}

impl Look<'_> {
    fn open(&self) -> bool {
        self.phase.arrival == ArrivalKind::Open
    }

    fn disturbed(&self) -> bool {
        self.quiet_ns < self.phase.end_ns
    }

    fn samples(&self) -> impl Iterator<Item = &GeneratorSample> {
        let (from_ns, to_ns) = (self.phase.start_ns, self.phase.end_ns);
        self.run.generator.samples.iter().filter(move |sample| {
            let middle_ns = sample.at_ns.saturating_sub(sample.wall_ns / 2);
            sample.wall_ns > 0 && middle_ns >= from_ns && middle_ns < to_ns
        })
    }

    /// Connections that ended before anything was done to the cluster on purpose: what else is found may come of it.
    fn lost(&self) -> Option<Finding> {
        let undisturbed = self.phase.start_ns..self.quiet_ns;
        let is_lost = |event: &&EventRow| matches!(session_change(event), Some((at_ns, Change::Lost)) if undisturbed.contains(&at_ns));
        let lost: Vec<&EventRow> = self.run.events.iter().filter(is_lost).collect();
        let first = lost.iter().min_by_key(|event| event.at_ns)?;
        let count = match lost.len() {
            1 => "a connection was".to_string(),
            n => format!("{} connections were", figures::count(n as u64)),
        };
        Some((
            Grade::Suspect,
            "connections-lost",
            format!(
                "{count} lost without a fault of the workload's (first, at {}, {}); if a member was gone, what was \
                 missed or late is its doing and not the rate's",
                figures::seconds(self.run.manifest.seconds(first.at_ns).max(0.0)),
                first.detail.strip_prefix("lost: ").unwrap_or(&first.detail)
            ),
        ))
    }

    fn errors(&self) -> Option<Finding> {
        let share = self.all.errors as f64 / self.all.offered as f64;
        let (suspect, invalid) = match self.disturbed() {
            true => (DISTURBED_INVALID, DISTURBED_INVALID),
            false => (ERRORS_SUSPECT, ERRORS_INVALID),
        };
        if share <= suspect {
            return None;
        }
        let (grade, limit) =
            if share > invalid { (Grade::Invalid, invalid) } else { (Grade::Suspect, suspect) };
        let codes: Vec<&str> = self.all.errors_by_code.keys().map(String::as_str).collect();
        Some((
            grade,
            "errors",
            format!(
                "{} of the operations failed ({}; limit {}); percentiles are those of the successes",
                figures::percent(share),
                codes.join(", "),
                figures::percent(limit)
            ),
        ))
    }

    fn missed(&self) -> Option<Finding> {
        let share = self.all.missed as f64 / self.all.offered as f64;
        let (limit, why) = match self.disturbed() {
            true => (DISTURBED_INVALID, "the fault kept them waiting"),
            false => (MISSED_SHARE_INVALID, "lower the rate or raise the limit in flight"),
        };
        let grade = match self.all.missed {
            0 => return None,
            missed if share > limit && missed > MISSED_FLOOR => Grade::Invalid,
            _ => Grade::Suspect,
        };
        let advice = format!("INVALID above {}: {why}", figures::percent(limit));
        Some((
            grade,
            "missed",
            format!(
                "{} operations ({}) were due and never sent, because the backlog was full or the run over before \
                 their turn; {advice}",
                figures::count(self.all.missed),
                figures::percent(share)
            ),
        ))
    }

    /// Answered (well or not) against offered, over the undisturbed part.
    fn achieved(&self) -> Option<Finding> {
        if !self.open() {
            return None;
        }
        let (offered, answered) = self
            .by_time(self.phase.end_ns - self.phase.start_ns)
            .first()
            .copied()
            .filter(|(offered, _)| *offered > 0.0)?;
        let achieved = answered / offered;
        if achieved >= ACHIEVED_SUSPECT || offered - answered <= SHORTFALL_FLOOR {
            return None;
        }
        let grade = if achieved < ACHIEVED_INVALID { Grade::Invalid } else { Grade::Suspect };
        Some((
            grade,
            "rate-not-achieved",
            format!(
                "{} of what was offered was answered within the phase (INVALID below {}); the rest waited or was \
                 missed, and latencies describe that queue. Lower the rate; a closed-loop phase finds the highest one",
                figures::percent(achieved),
                figures::percent(ACHIEVED_INVALID)
            ),
        ))
    }

    fn achieved_in_a_second(&self) -> Option<Finding> {
        if !self.open() {
            return None;
        }
        let seconds = self.by_time(1_000_000_000);
        let short = |(offered, answered): &(f64, f64)| {
            answered / offered < ACHIEVED_SUSPECT
                && offered - answered > SHORTFALL_FLOOR.max(3.0 * offered.sqrt())
        };
        let worst = seconds.iter().map(|(offered, answered)| answered / offered.max(1.0)).fold(1.0, f64::min);
        let count = seconds.iter().filter(|second| short(second)).count();
        (count > 0).then(|| {
            (
                Grade::Suspect,
                "slow-second",
                format!(
                    "in {count} of {} seconds less than {} of the offered operations were answered \
                     (worst: {}); something stood still",
                    seconds.len(),
                    figures::percent(ACHIEVED_SUSPECT),
                    figures::percent(worst)
                ),
            )
        })
    }

    /// (offered, answered) in windows of the undisturbed part; the last one may be shorter, and is left
    /// out when it is less than half a window.
    fn by_time(&self, window_ns: u64) -> Vec<(f64, f64)> {
        let recording = &self.run.recording;
        let length_ns = self.quiet_ns - self.phase.start_ns;
        let whole = (length_ns / window_ns) as usize + usize::from(length_ns % window_ns * 2 >= window_ns);
        let mut windows = vec![(0.0, 0.0); whole.max(1)];
        let window_of = |index: u64| {
            // The interval in which the phase begins belongs to it.
            let start_ns = (index * recording.interval_ns).max(self.phase.start_ns);
            ((start_ns - self.phase.start_ns) / window_ns) as usize
        };
        let counted = |op: Op| Class::of(op).is_some();
        let mine = |phase: u16, op: Op| usize::from(phase) == self.at && counted(op);
        for (_, arrivals) in recording.arrivals.iter().filter(|((phase, op), _)| mine(*phase, *op)) {
            for (index, offered, _) in arrivals.iter() {
                let share = share_before(index, recording.interval_ns, self.quiet_ns);
                if let Some(window) = windows.get_mut(window_of(index)) {
                    window.0 += f64::from(offered) * share;
                }
            }
        }
        for (_, intervals) in recording.intervals.iter().filter(|(key, _)| mine(key.phase, key.op)) {
            for interval in intervals {
                let share = share_before(interval.index, recording.interval_ns, self.quiet_ns);
                if let Some(window) = windows.get_mut(window_of(interval.index)) {
                    window.1 += interval.response.count() as f64 * share;
                }
            }
        }
        windows.retain(|(offered, _)| *offered > 0.0);
        windows
    }

    fn send_lag(&self) -> Option<Finding> {
        let (lag, response) = (self.all.lag.p99_us?, self.all.response.p99_us?);
        let waited: u64 = self.samples().map(|sample| sample.at_cap).sum();
        let by_limit = waited as f64 > self.all.offered as f64 * AT_CAP_SHARE;
        if !self.open() || self.disturbed() || lag < LAG_FLOOR_US || lag <= response * LAG_SHARE_SUSPECT {
            return None;
        }
        let share = figures::percent(lag / response);
        let lag_text = figures::time_us(lag);
        if by_limit {
            let text = format!(
                "p99 of the time from due to sent is {lag_text}, {share} of the response time's: operations \
                 waited for the limit in flight. Response times are right for that limit; service \
                 times are not the cluster's at this rate"
            );
            return Some((Grade::Suspect, "in-flight-limit", text));
        }
        let invalid = lag > response * LAG_SHARE_INVALID && lag >= LAG_INVALID_FLOOR_US;
        let limit = if invalid { LAG_SHARE_INVALID } else { LAG_SHARE_SUSPECT };
        Some((
            if invalid { Grade::Invalid } else { Grade::Suspect },
            "send-lag",
            format!(
                "p99 of the time from due to sent is {lag_text}, {share} of the response time's (limit {}): the \
                 generator was late. Give it more cores or workers, or lower the rate",
                figures::percent(limit)
            ),
        ))
    }

    fn saturated(&self) -> Option<Finding> {
        let busy = |sample: &GeneratorSample| sample.cpu_ns as f64 / sample.wall_ns as f64;
        let all = self.samples().count();
        let saturated = self.samples().filter(|sample| busy(sample) > WORKER_BUSY_MAX).count();
        if saturated == 0 {
            return None;
        }
        let meaning = if self.open() {
            "operations may have been sent late"
        } else {
            "in a closed loop the generator then set the pace: the rate is a lower bound of the cluster's, and \
             latencies include the wait for a busy reader (CPU per operation is not affected)"
        };
        Some((
            Grade::Suspect,
            "worker-saturated",
            format!(
                "a worker thread was busy more than {} in {saturated} of {all} seconds of workers; {meaning}. \
                 Use more workers, or a machine of its own for the generator",
                figures::percent(WORKER_BUSY_MAX)
            ),
        ))
    }

    fn run_queue(&self) -> Option<Finding> {
        let (waited, wall) = self
            .samples()
            .fold((0.0, 0.0), |sum, s| (sum.0 + s.run_queue_ns as f64, sum.1 + s.wall_ns as f64));
        let share = waited / wall;
        // In a closed loop the wait slows the pace down, but nothing becomes late by it.
        (wall > 0.0 && share > RUN_QUEUE_MAX).then(|| {
            (
                Grade::Suspect,
                "run-queue-delay",
                format!(
                    "workers waited for a core {} of the time (limit {}): this machine had more to do than it \
                     has cores. Latencies include that wait",
                    figures::percent(share),
                    figures::percent(RUN_QUEUE_MAX)
                ),
            )
        })
    }

    fn jitter(&self) -> Option<Finding> {
        let worst = self.samples().map(|sample| sample.jitter_max_ns).max()?;
        (self.open() && worst > JITTER_MAX_NS).then(|| {
            (
                Grade::Suspect,
                "timer-jitter",
                format!(
                    "a timer of the generator fired {} late (limit {}): the machine stood still, or was stopped",
                    figures::time_us(worst as f64 / 1e3),
                    figures::time_us(JITTER_MAX_NS as f64 / 1e3)
                ),
            )
        })
    }

    fn short(&self) -> Option<Finding> {
        let seconds = (self.phase.end_ns - self.phase.start_ns) as f64 / 1e9;
        let text = if seconds < PHASE_SECONDS_MIN {
            let lasted = figures::seconds(seconds);
            format!("it lasted {lasted}; below {PHASE_SECONDS_MIN} s one pause decides the percentiles")
        } else if self.all.count < PHASE_SAMPLES_MIN {
            format!(
                "only {} operations succeeded; below {} high percentiles are chance",
                figures::count(self.all.count),
                figures::count(PHASE_SAMPLES_MIN)
            )
        } else {
            return None;
        };
        Some((Grade::Suspect, "too-short", text))
    }
}
