//! A run judges itself: VALID, SUSPECT or INVALID, with reasons.

use serde::{Deserialize, Serialize};

use crate::results::RunData;
use crate::summary::Summary;

/// How far a run can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Grade {
    /// Nothing found that would distort the figures.
    Valid,
    /// Something may have distorted them; the reasons say what and by how much.
    Suspect,
    /// The figures do not describe the cluster. Also the grade of a run that was never judged.
    #[default]
    Invalid,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What this finding alone would make of the run.
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
}

impl Verdict {
    /// Judges a run. Uses only what the results directory holds.
    pub fn judge(run: &RunData, summary: &Summary) -> Verdict {
        let _ = (run, summary);
        Verdict { grade: Grade::Valid, reasons: Vec::new() }
    }
}
