//! What was measured, put together, judged, written and shown.

use anyhow::Result;

use super::{Exit, Finished, Measured, Print, Run, say};
use crate::driver::{self, Report, Verified, What};
use crate::failover::Change;
use crate::figures;
use crate::results::{self, CheckedWrites, Checks, EventRow, RunData};
use crate::summary::{self, Summary};
use crate::verdict::{Grade, Verdict};

impl Run<'_> {
    pub(super) fn write(&self, measured: Measured, verified: Option<Verified>) -> Result<Finished> {
        let cut_short = measured.cut_short_by.is_some();
        let (run, summary) = self.put_together(measured, verified)?;
        self.show(&run, &summary);
        // What was measured has been said, whatever becomes of the files.
        results::complete(&self.directory, &run, &summary)?;
        if self.options.print == Print::Summary {
            say(&format!("\nresults  {}\n", self.directory.display()));
        }
        if self.options.charts {
            // The figures are safe in the directory; `zoometry report` can try again.
            match crate::report::write(&self.directory) {
                Ok(path) if self.options.print == Print::Summary => {
                    say(&format!("report   {}\n", path.display()));
                }
                Ok(_) => {}
                Err(error) => eprintln!("zoometry: the report could not be written: {error:#}"),
            }
        }
        Ok(Finished { directory: self.directory.clone(), exit: exit(&run), cut_short })
    }

    /// Everything that is and will be in the directory, judged.
    fn put_together(&self, measured: Measured, verified: Option<Verified>) -> Result<(RunData, Summary)> {
        let Measured { report, mut manifest, cut_short_by, .. } = measured;
        manifest.ended_unix_ms = self.started_unix_ms + self.run_start.elapsed().as_millis() as u64;
        manifest.checked_writes =
            verified.as_ref().map(|v| CheckedWrites { checked: v.acknowledged, lost: v.lost });
        manifest.checks = verified.map(|verified| checks(verified, &report));
        if let Some(by) = cut_short_by {
            manifest.cut_short = true;
            manifest.cut_short_by = by;
            results::cut_phases(&mut manifest.phases, report.ended_ns);
        }
        let mut run = results::read_streamed(&self.directory, manifest)?;
        if report.happenings_unkept > 0 {
            run.events.push(EventRow {
                at_ns: report.ended_ns,
                duration_ns: 0,
                kind: "note".into(),
                target: String::new(),
                detail: format!("{} more events of sessions were not kept", report.happenings_unkept),
            });
        }
        let summary = Summary::of(&run);
        run.manifest.verdict = Verdict::judge(&run, &summary);
        run.manifest.expectations = self.spec.expect.iter().map(|e| e.judge(&self.spec, &run)).collect();
        Ok((run, summary))
    }

    fn show(&self, run: &RunData, summary: &Summary) {
        match self.options.print {
            Print::Summary => say(&summary::table(&run.manifest, summary, summary::Style::of_stdout())),
            Print::Line => say(&format!("{}\n", one_line(run, summary))),
        }
        if let Some(checks) = &run.manifest.checks {
            let complaints = [&checks.first_lost, &checks.first_broken, &checks.ephemerals.first_lost];
            for complaint in complaints.into_iter().flatten() {
                say(&format!("\nPROMISE BROKEN: {complaint}\n"));
            }
        }
    }
}

fn checks(verified: Verified, report: &Report) -> Checks {
    Checks {
        unknown: verified.unknown,
        first_lost: verified.first,
        broken_promises: report.broken.count(),
        first_broken: report.broken.first.clone(),
        given_up: report.given_up,
        unsent: report.unsent,
        watches: report.watching.counts.clone(),
        ephemerals: report.ephemerals.clone(),
        completions_unkept: report.completions_unkept,
    }
}

/// What the run comes to.
fn exit(run: &RunData) -> Exit {
    let lost = run.manifest.checked_writes.is_some_and(|writes| writes.lost > 0);
    let checks = run.manifest.checks.as_ref();
    let broken = checks.is_some_and(|checks| checks.broken_promises > 0 || checks.ephemerals.lost > 0);
    let met = run.manifest.expectations.iter().all(|judged| judged.met);
    match (lost || broken, run.manifest.verdict.grade, met) {
        (true, _, _) => Exit::Cluster,
        (_, Grade::Invalid, _) => Exit::Invalid,
        (_, _, false) => Exit::NotMet,
        _ => Exit::Met,
    }
}

pub(super) fn session_event(
    happening: &driver::Happening,
    members: &[results::MemberFingerprint],
) -> EventRow {
    let member = members.get(usize::from(happening.member)).map_or("", |member| member.key());
    let name = |at: u16| members.get(usize::from(at)).map_or("", |member| member.key());
    // The first word is read again by `failover::session_change`.
    let (duration_ns, change, told) = match &happening.what {
        What::Lost(reason) => (0, Change::Lost, format!("connection to {member}: {reason}")),
        What::Reattached { away_ns, from } => {
            let after = format!("after {} ms", away_ns / 1_000_000);
            match from {
                Some(from) if *from == happening.member => {
                    (*away_ns, Change::Kept, format!("at {member} again {after}"))
                }
                Some(from) => (*away_ns, Change::Moved, format!("from {} to {member} {after}", name(*from))),
                None => (*away_ns, Change::New, format!("at {member} {after}")),
            }
        }
        What::Expired => (0, Change::Expired, format!("says {member}")),
    };
    let detail = format!("{}: {told}", change.name());
    EventRow {
        at_ns: happening.at_ns - duration_ns.min(happening.at_ns),
        duration_ns,
        kind: "session".into(),
        target: format!("session {}", happening.session),
        detail,
    }
}

/// `12,345/s, p99 1.20 ms, VALID`
fn one_line(run: &RunData, summary: &Summary) -> String {
    let all = summary.whole.all();
    let rate = all.map_or(0.0, |all| all.rate);
    let p99_us = all.and_then(|all| all.response.p99_us);
    let grade = summary::Style::of_stdout().grade(run.manifest.verdict.grade);
    format!("{}/s, p99 {}, {grade}", figures::rate(rate), figures::time_us_or_dash(p99_us))
}
