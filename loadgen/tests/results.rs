//! Everything right of the recorder: recording, the directory, summary, verdict.

mod synthetic;

#[path = "results/comparisons.rs"]
mod comparisons;
#[path = "results/directory.rs"]
mod directory;
#[path = "results/expectations.rs"]
mod expectations;
#[path = "results/recording.rs"]
mod recording;
#[path = "results/reports.rs"]
mod reports;
#[path = "results/summaries.rs"]
mod summaries;
#[path = "results/verdicts.rs"]
mod verdicts;
