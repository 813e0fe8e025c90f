//! A comparison for a terminal: 80 columns, no colour.

use std::fmt::Write;

use crate::figures;
use crate::summary::wrap;

use super::{Against, Comparison, Figure, REPEATS_MIN, Row, Weight};

const WIDTH: usize = 80;

/// Differences first, then figures, then how they were judged.
pub(super) fn render(comparison: &Comparison) -> String {
    let mut out = String::new();
    let sides: Vec<String> = comparison
        .labels
        .iter()
        .zip(&comparison.repeats)
        .map(|(label, runs)| format!("{label} ({runs} {})", if *runs == 1 { "run" } else { "runs" }))
        .collect();
    let _ = writeln!(out, "{}\n", sides.join(" against "));
    differences(&mut out, comparison);
    for other in 1..comparison.labels.len() {
        table(&mut out, comparison, other);
    }
    for line in wrap(&basis(comparison), WIDTH) {
        let _ = writeln!(out, "{line}");
    }
    out
}

fn differences(out: &mut String, comparison: &Comparison) {
    if comparison.differences.is_empty() {
        let _ = writeln!(out, "Asked the same, on the same machine.\n");
        return;
    }
    let _ = writeln!(out, "Before comparing");
    for difference in &comparison.differences {
        let grave = if difference.weight == Weight::Refuses { " (NOT COMPARABLE)" } else { "" };
        let text = format!("{}{grave}: {}", difference.what, difference.values.join(" | "));
        for (at, line) in wrap(&text, WIDTH - 4).into_iter().enumerate() {
            let _ = writeln!(out, "  {} {line}", if at == 0 { "-" } else { " " });
        }
    }
    let _ = writeln!(out);
}

fn table(out: &mut String, comparison: &Comparison, other: usize) {
    let (first, second) = (cut(&comparison.labels[0]), cut(&comparison.labels[other]));
    let mut heading = String::new();
    for row in &comparison.rows {
        let op = if row.op == "all" { "all operations" } else { &row.op };
        let now = format!("{}, {op}", row.phase);
        if now != heading {
            let _ = writeln!(out, "{now}");
            let _ = writeln!(out, "  {:<19}{first:>12}{second:>12}{:>8}{:>14}", "", "ratio", "interval");
            heading = now;
        }
        let _ = writeln!(out, "{}", line(row, other));
    }
    let _ = writeln!(out);
}

fn line(row: &Row, other: usize) -> String {
    let value = |at: usize| row.values[at].map_or("-".to_string(), |value| shown(row.figure, value));
    let mut line = format!("  {:<19}{:>12}{:>12}", row.figure.name(), value(0), value(other));
    match &row.against[other - 1] {
        None => line.push_str("       -"),
        Some(against) => {
            let _ = write!(line, "{:>8}{:>14}", ratio(against.ratio), interval(against));
            if against.interval.is_some() {
                let _ = write!(line, "  {}", against.finding.words());
            }
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// A figure with its unit.
pub(super) fn shown(figure: Figure, value: f64) -> String {
    if figure == Figure::Rate { figures::rate(value) } else { figures::time_us(value) }
}

/// `0.48`, `12.5`.
pub(super) fn ratio(value: f64) -> String {
    figures::digits(value)
}

/// `0.46..0.51`, or nothing when unknown.
pub(super) fn interval(against: &Against) -> String {
    against.interval.map_or(String::new(), |i| format!("{}..{}", ratio(i.low), ratio(i.high)))
}

/// What tells labels apart is often at their end: `zoometry-3 (b)`.
fn cut(label: &str) -> String {
    let letters: Vec<char> = label.chars().collect();
    let text = |letters: &[char]| letters.iter().collect::<String>();
    match letters.len() {
        0..=11 => label.to_string(),
        length => format!("{}…{}", text(&letters[..6]), text(&letters[length - 4..])),
    }
}

/// What the intervals rest on.
pub(super) fn basis(comparison: &Comparison) -> String {
    let fewest = comparison.repeats.iter().min().copied().unwrap_or(0);
    let figures = "Ratios are to the first side. Intervals hold together with 95 % (Bonferroni); \"same\" means \
                   within 5 %.";
    if fewest >= REPEATS_MIN {
        format!("{figures} They come from how repeated runs differ (Welch, on logarithms).")
    } else {
        format!(
            "{figures} They come from how the seconds of one run differ (block bootstrap) and say nothing about how \
             another run would have turned out: repeat runs ({REPEATS_MIN} of each side at least) to know that."
        )
    }
}
