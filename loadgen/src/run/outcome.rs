//! What was measured, put together, judged, written and shown.

use anyhow::Result;

use super::{Exit, Finished, Measured, Print, Run, say};
use crate::driver::{self, Report, Verified, What};
use crate::failover::Change;
use crate::figures;
use crate::promises::Promise;
use crate::recorder::{Class, Key};
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
        if let Some(by) = cut_short_by {
            manifest.cut_short = true;
            manifest.cut_short_by = by;
            results::cut_phases(&mut manifest.phases, report.ended_ns);
        }
        let mut run = results::read_streamed(&self.directory, manifest)?;
        run.manifest.checks = Some(checks(verified, &report, &run));
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
            let complaints = complaints(checks);
            for complaint in &complaints {
                say(&format!("\nPROMISE BROKEN: {complaint}\n"));
            }
            if complaints.is_empty() && self.options.print == Print::Summary {
                say(&format!("\npromises kept: {}\n", looked_at(checks)));
            }
        }
    }
}

/// `1,000 replies, 3 sessions, 800 values (20 too short for a mark), …`: how often promises were looked at.
fn looked_at(checks: &Checks) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (promise, record) in checks.promises.iter().filter(|(_, record)| record.checked > 0) {
        let mut part = format!("{} {}", figures::count(record.checked), promise.checked_are());
        if promise == Promise::WrongValue && checks.promises.short_values > 0 {
            part += &format!(" ({} too short for a mark)", figures::count(checks.promises.short_values));
        }
        // Several promises can be about the same things.
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(", ")
}

/// What is said of broken promises: each with the first breach.
fn complaints(checks: &Checks) -> Vec<String> {
    let mut found: Vec<String> =
        [&checks.first_lost, &checks.ephemerals.first_lost].into_iter().flatten().cloned().collect();
    found.extend(checks.promises.broken().map(|(promise, record)| {
        let first = record.first.as_deref().unwrap_or_default();
        format!(
            "{} ({} = {}); first: {first}",
            promise.promised(),
            promise.name(),
            figures::count(record.broken)
        )
    }));
    found
}

fn checks(verified: Option<Verified>, report: &Report, run: &RunData) -> Checks {
    let first_lost = verified.as_ref().and_then(|verified| verified.first.clone());
    let mut promises = match verified {
        Some(verified) => verified.promises,
        None => report.views.promises.clone(),
    };
    let is_reply = |key: &Key| Class::of(key.op).is_some();
    let replies = run.recording.totals.iter().filter(|(key, _)| is_reply(key));
    let replies = replies.map(|(_, total)| total.response.len()).sum();
    promises.checked(Promise::OutOfOrder, replies);
    promises.checked(Promise::ZxidWentBack, replies);
    let sessions = run.manifest.connections.values().map(|n| u64::from(*n)).sum();
    promises.checked(Promise::SessionReplaced, sessions);
    let watches = &report.watching.counts;
    for promise in [Promise::WatchDropped, Promise::WatchDoubled, Promise::WatchUnasked] {
        promises.checked(promise, watches.armed);
    }
    // Those that were not looked at a last time, and are judged by acknowledged writes.
    let owed = watches.missing.saturating_sub(promises.of(Promise::WatchDropped).broken);
    promises.broke(Promise::WatchDropped, owed, || {
        "a watch that was armed at the end had not told of an acknowledged write".into()
    });
    Checks {
        unknown: report.ledger.unknown_total(),
        first_lost,
        promises,
        given_up: report.given_up,
        unsent: report.unsent,
        watches: watches.clone(),
        ephemerals: report.ephemerals.clone(),
        completions_unkept: report.completions_unkept,
    }
}

/// What the run comes to.
fn exit(run: &RunData) -> Exit {
    let lost = run.manifest.checked_writes.is_some_and(|writes| writes.lost > 0);
    let checks = run.manifest.checks.as_ref();
    let broken =
        checks.is_some_and(|checks| checks.promises.broken().count() > 0 || checks.ephemerals.lost > 0);
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
