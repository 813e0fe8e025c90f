//! The summary as text for a terminal: 80 columns, complete without colour.

use std::fmt::Write;

use crate::figures;
use crate::results::{ArrivalKind, Manifest};
use crate::verdict::Grade;

use super::failover;
use super::{Latency, OpSummary, PhaseSummary, Summary, Tail};

/// Whether escape sequences for colour may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only: files, pipes, `NO_COLOR`.
    Plain,
    /// A terminal.
    Colour,
}

impl Style {
    /// For standard output: colour on a terminal, unless `NO_COLOR` is set.
    pub fn of_stdout() -> Style {
        use std::io::IsTerminal;
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stdout().is_terminal() { Style::Colour } else { Style::Plain }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_string(),
            Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// The verdict's word in its colour.
    pub fn grade(self, grade: Grade) -> String {
        let (code, text) = match grade {
            Grade::Valid => ("1;32", "VALID"),
            Grade::Suspect => ("1;33", "SUSPECT"),
            Grade::Invalid => ("1;31", "INVALID"),
        };
        self.paint(code, text)
    }
}

const WIDTH: usize = 80;

/// The summary, the verdict and the expectations. Ends with a line break.
pub fn table(manifest: &Manifest, summary: &Summary, style: Style) -> String {
    let mut out = String::new();
    let title = format!("{} on {}", manifest.workload, manifest.cluster);
    let _ = writeln!(out, "{}", style.bold(&title));
    let _ =
        writeln!(out, "{}", style.dim("Response times: from the moment an operation was due to its answer."));
    for phase in summary.measured() {
        phase_block(&mut out, phase, style);
    }
    if summary.measured().count() > 1 {
        phase_block(&mut out, &summary.whole, style);
    }
    if let Some(failover) = &summary.failover {
        let _ = writeln!(out, "\n{}", style.bold("faults"));
        for line in failover::lines(failover, manifest) {
            // The lines of a round stand below its head.
            let indent = if line.starts_with(' ') { 4 } else { 2 };
            let wrapped = if line.chars().count() + 2 > WIDTH {
                wrap(&line, WIDTH - indent)
            } else {
                vec![line.trim_start().into()]
            };
            for part in wrapped {
                let _ = writeln!(out, "{:indent$}{part}", "");
            }
        }
    }
    expectations(&mut out, manifest, style);
    verdict(&mut out, manifest, style);
    out
}

fn phase_block(out: &mut String, phase: &PhaseSummary, style: Style) {
    let name = if phase.name == "all" { "all measured phases" } else { &phase.name };
    let _ = writeln!(out);
    let mut about = format!("  {}", figures::seconds(phase.seconds));
    if !phase.arrival_text.is_empty() {
        let _ = write!(about, ", {}", phase.arrival_text);
    }
    let _ = writeln!(out, "{}{}", style.bold(name), style.dim(&about));
    if phase.ops.is_empty() {
        let _ = writeln!(out, "  nothing was due in this phase");
        return;
    }
    let head = format!(
        "  {:<17}{:>8}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "rate/s", "failed", "p50", "p90", "p99", "p99.9", "max"
    );
    let _ = writeln!(out, "{}", style.dim(&head));
    for op in phase.ops.iter().chain(phase.groups.iter().filter(|_| phase.ops.len() > 1)) {
        let name = format!("  {:<17}", op.op);
        let name = if phase.groups.iter().any(|g| g.op == op.op) { style.dim(&name) } else { name };
        let _ = writeln!(out, "{name}{}", op_columns(op));
    }
    for note in notes(phase) {
        for line in wrap(&note, WIDTH - 2) {
            let _ = writeln!(out, "{}", style.dim(&format!("  {line}")));
        }
    }
}

fn op_columns(op: &OpSummary) -> String {
    let mut line = format!("{:>8}{:>8}", figures::rate(op.rate), figures::count(op.errors + op.missed));
    let max = (op.response.count > 0).then_some(op.response.max_us);
    let Latency { p50_us, p90_us, p99_us, p999_us, .. } = op.response;
    for value in [p50_us, p90_us, p99_us, p999_us, max] {
        let _ = write!(line, "{:>9}", figures::time_us_or_dash(value));
    }
    line
}

/// What stands under a phase's table: only what says something.
fn notes(phase: &PhaseSummary) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(all) = phase.all() {
        let offered = if phase.seconds > 0.0 { all.offered as f64 / phase.seconds } else { 0.0 };
        if phase.arrival == Some(ArrivalKind::Open) && offered > 0.0 && all.rate < offered * 0.995 {
            notes.push(format!(
                "offered {}/s, answered {}/s ({})",
                figures::rate(offered),
                figures::rate(all.rate),
                figures::percent(all.rate / offered)
            ));
        }
        notes.push(format!(
            "p99 of service (sent to answer) {}, of send lag (due to sent) {}",
            figures::time_us_or_dash(all.service.p99_us),
            figures::time_us_or_dash(all.lag.p99_us)
        ));
        if all.errors + all.missed > 0 {
            notes.push(failures(all));
        }
    }
    let mut cpu = Vec::new();
    if let Some(us) = phase.servers.cpu_us_per_op {
        let cores: f64 = phase.servers.cores.values().sum();
        cpu.push(format!("servers {} ({} cores)", figures::time_us(us), figures::digits(cores)));
    }
    if let Some(us) = phase.generator.cpu_us_per_op {
        cpu.push(format!(
            "generator {} ({} cores)",
            figures::time_us(us),
            figures::digits(phase.generator.cores)
        ));
    }
    if !cpu.is_empty() {
        notes.push(format!("CPU per operation: {}", cpu.join(", ")));
    }
    if !phase.gaps.is_empty() {
        let gaps = phase
            .gaps
            .iter()
            .map(|gap| format!("{} {}", gap.class, figures::time_us((gap.to_ns - gap.from_ns) as f64 / 1e3)));
        notes.push(format!("longest time without success: {}", gaps.collect::<Vec<_>>().join(", ")));
    }
    notes
}

fn failures(all: &OpSummary) -> String {
    let mut parts: Vec<String> =
        all.errors_by_code.iter().map(|(code, n)| format!("{} {code}", figures::count(*n))).collect();
    if all.missed > 0 {
        parts.push(format!("{} missed (due, never sent)", figures::count(all.missed)));
    }
    let p99 = match all.tail(0.99) {
        Tail::Us(us) => figures::time_us(us),
        Tail::Never => "never".to_string(),
        Tail::Unknown => "-".to_string(),
    };
    format!("failed: {}; p99 with failures counted as never answered: {p99}", parts.join(", "))
}

fn expectations(out: &mut String, manifest: &Manifest, style: Style) {
    if manifest.expectations.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", style.bold("expectations"));
    for expectation in &manifest.expectations {
        let (code, word) = if expectation.met { ("32", "met   ") } else { ("1;31", "FAILED") };
        let _ = writeln!(out, "  {}  {}", style.paint(code, word), expectation.text);
        for line in wrap(&expectation.detail, WIDTH - 10) {
            let _ = writeln!(out, "          {}", style.dim(&line));
        }
    }
}

fn verdict(out: &mut String, manifest: &Manifest, style: Style) {
    let _ = writeln!(out, "\nverdict  {}", style.grade(manifest.verdict.grade));
    let phases = &manifest.verdict.phases;
    if phases.len() > 1 && phases.iter().any(|phase| phase.grade != phases[0].grade) {
        let grades =
            phases.iter().map(|phase| format!("{} {}", phase.phase, phase.grade)).collect::<Vec<_>>();
        for line in wrap(&format!("by phase: {}", grades.join(", ")), WIDTH - 2) {
            let _ = writeln!(out, "  {line}");
        }
    }
    for reason in &manifest.verdict.reasons {
        let text = if reason.phase.is_empty() {
            format!("{}: {}", reason.check, reason.text)
        } else {
            format!("{} ({}): {}", reason.check, reason.phase, reason.text)
        };
        for (at, line) in wrap(&text, WIDTH - 4).into_iter().enumerate() {
            let _ = writeln!(out, "  {} {line}", if at == 0 { "-" } else { " " });
        }
    }
}

/// Breaks at spaces; a longer word stays whole.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_string());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
