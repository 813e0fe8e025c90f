//! A run judges itself: VALID, SUSPECT or INVALID, with reasons.
//!
//! INVALID means that the figures describe something else than the cluster under the load that was asked
//! for: the schedule was not kept, or there is no data. SUSPECT means that something may have coloured
//! them. Missing data is a finding, never a pass. Only phases that count are judged (warm-up is not).
//!
//! **Closed-loop phases** promise no schedule: an answer makes the next operation due. So a busy generator
//! breaks no promise there, and none of its checks makes such a phase INVALID. A worker that is busy nearly
//! all the time still means that the *generator* set the pace: the rate is a lower bound of what the
//! cluster can do, and answers waited in socket buffers for a busy reader, which their latency includes.
//! That is SUSPECT, with this explanation. CPU time per operation stays right in such a phase, as CPU time
//! is counted and not timed. When the generator has cores left, the cluster set the pace: nothing to say.
//!
//! A closed loop at full speed **on the servers' own machine** takes whatever cores they leave: workers wait
//! for a core although nothing is late. That too is SUSPECT (`run-queue-delay`) and never INVALID: rate and
//! latency are those of both programs on these cores, and would be others with the generator elsewhere. Being
//! co-located alone is only noted, as at a moderate load it costs little.
//!
//! **Open-loop phases** promise that operations are due by the clock. Lateness of the generator is in the
//! response time, so it is never hidden; but when it makes up much of the response time, or operations were
//! not sent at all, the figures are about the generator.
//!
//! **Phases with faults** are meant to be disturbed: errors, missed operations, unsteadiness and a low rate
//! are the finding there, not a flaw of the measurement, up to a quarter of the operations: beyond it the figures
//! describe the lucky ones. Up to the first fault they are judged as others.
//!
//! Each phase has a grade of its own, so that one which is not to be believed does not hide the others; the run's is the
//! worst.
//!
//! Uses only what the results directory holds, so a report can judge again.

mod checks;
mod steadiness;

use serde::{Deserialize, Serialize};

use crate::results::RunData;
use crate::summary::Summary;

/// A worker thread that used more than this share of a core in some second was saturated.
pub const WORKER_BUSY_MAX: f64 = 0.90;
/// Share of a phase that workers may spend runnable but waiting for a core.
pub const RUN_QUEUE_MAX: f64 = 0.10;
/// A timer that fired this late stopped the generator for as long.
pub const JITTER_MAX_NS: u64 = 50_000_000;
/// Share of the response time's p99 that send lag's p99 may have, before the figures are in doubt.
pub const LAG_SHARE_SUSPECT: f64 = 0.20;
/// The same, before they are about the generator.
pub const LAG_SHARE_INVALID: f64 = 0.50;
/// Send lag below this is the price of a timer, whatever its share.
pub const LAG_FLOOR_US: f64 = 250.0;
/// Send lag below this is what a sleeping machine takes to wake up, and no late generator: it makes nothing INVALID.
pub const LAG_INVALID_FLOOR_US: f64 = 1_000.0;
/// Share of operations that waited for the in-flight limit, above which lag is the cluster's doing.
pub const AT_CAP_SHARE: f64 = 0.01;
/// Share of offered operations that may be missed before the run is INVALID (one makes it SUSPECT).
pub const MISSED_SHARE_INVALID: f64 = 0.01;
/// So few missed operations are not INVALID, whatever their share.
pub const MISSED_FLOOR: u64 = 10;
/// Share of a phase's operations that may fail or be missed because of a fault. Beyond it the figures are those of a
/// selection, whoever is to blame.
pub const DISTURBED_INVALID: f64 = 0.25;
/// Answered over offered, in a second and in a phase, below which the schedule was not kept up with.
pub const ACHIEVED_SUSPECT: f64 = 0.99;
/// Answered over offered in a phase, below which its figures describe a growing queue.
pub const ACHIEVED_INVALID: f64 = 0.95;
/// Operations by which a second may fall short by chance.
pub const SHORTFALL_FLOOR: f64 = 10.0;
/// Most over mean of sessions per member, when they were to be spread evenly.
pub const IMBALANCE_MAX: f64 = 1.2;
/// Change from the first to the last third of a phase: of the median, and of a closed loop's rate.
pub const DRIFT_MEDIAN_MAX: f64 = 0.25;
/// See [`DRIFT_MEDIAN_MAX`].
pub const DRIFT_RATE_MAX: f64 = 0.10;
/// A change must also exceed so many standard errors of the difference.
pub const DRIFT_ERRORS_MIN: f64 = 3.0;
/// A shorter phase proves little.
pub const PHASE_SECONDS_MIN: f64 = 5.0;
/// So does one with fewer successes.
pub const PHASE_SAMPLES_MIN: u64 = 1_000;
/// Share of operations that may fail.
pub const ERRORS_SUSPECT: f64 = 0.001;
/// Above this share the successes that percentiles describe are a selection.
pub const ERRORS_INVALID: f64 = 0.10;

/// How far a run can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Grade {
    /// Nothing found that would distort the figures. As a reason's grade: good to know.
    Valid,
    /// Something may have distorted them; the reasons say what and by how much.
    Suspect,
    /// The figures do not describe the cluster. Also the grade of a run that was never judged.
    #[default]
    Invalid,
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Grade::Valid => "VALID",
            Grade::Suspect => "SUSPECT",
            Grade::Invalid => "INVALID",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What this finding alone would make of the run; VALID for a note.
    pub grade: Grade,
    /// Stable short name of the check: `worker-saturated`.
    pub check: String,
    /// The phase, or empty for the whole run.
    pub phase: String,
    /// What was found, the threshold, and what to do, in one sentence or two.
    pub text: String,
}

/// The judgement of a run: the worst grade of its reasons.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst of the reasons', or VALID without any.
    pub grade: Grade,
    /// Worst first.
    pub reasons: Vec<Reason>,
    /// Each measured phase's own grade, in their order; empty in directories from before it was told.
    #[serde(default)]
    pub phases: Vec<PhaseGrade>,
}

/// How far one phase can be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseGrade {
    /// The phase, by name.
    pub phase: String,
    /// The worst of the reasons that name it, or VALID without any.
    pub grade: Grade,
}

impl Verdict {
    /// Judges a run by what the results directory holds of it.
    pub fn judge(run: &RunData, summary: &Summary) -> Verdict {
        let mut reasons = checks::of_run(run, summary);
        let worst =
            |reasons: &[Reason]| reasons.iter().map(|reason| reason.grade).max().unwrap_or(Grade::Valid);
        let mut phases = Vec::new();
        for (at, phase) in run.manifest.phases.iter().enumerate().filter(|(_, phase)| !phase.warmup) {
            let of_phase = checks::of_phase(run, at, phase, &summary.phases[at]);
            phases.push(PhaseGrade { phase: phase.name.clone(), grade: worst(&of_phase) });
            reasons.extend(of_phase);
        }
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.grade));
        Verdict { grade: worst(&reasons), reasons, phases }
    }
}
