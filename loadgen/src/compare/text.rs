//! A comparison for a terminal: 80 columns, no colour.

use std::fmt::Write;

use crate::figures;
use crate::summary::wrap;

use super::{Against, Comparison, Figure, Kept, REPEATS_MIN, Row, Tally, statistics};

const WIDTH: usize = 80;
/// Room for a side's name above its figures.
const LABEL_WIDTH: usize = 11;

/// Differences first, then figures, then how they were judged.
pub(super) fn render(comparison: &Comparison) -> String {
    let mut out = String::new();
    let sides: Vec<String> = comparison
        .labels
        .iter()
        .zip(&comparison.repeats)
        .map(|(label, runs)| format!("{label} ({runs} {})", if *runs == 1 { "run" } else { "runs" }))
        .collect();
    for line in wrap(&sides.join(" against "), WIDTH) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out);
    differences(&mut out, comparison);
    for other in 1..comparison.labels.len() {
        table(&mut out, comparison, other);
    }
    for line in basis(comparison).iter().flat_map(|paragraph| wrap(paragraph, WIDTH)) {
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
        let grave = if difference.weight.refuses() { " (NOT COMPARABLE)" } else { "" };
        let text = format!("{}{grave}: {}", difference.what, difference.values.join(" | "));
        for (at, line) in wrap(&text, WIDTH - 4).into_iter().enumerate() {
            let _ = writeln!(out, "  {} {line}", if at == 0 { "-" } else { " " });
        }
    }
    let _ = writeln!(out);
}

/// Name, first side, other side, ratio, interval, finding.
type Cells = [String; 6];

fn table(out: &mut String, comparison: &Comparison, other: usize) {
    let labels = (cut(&comparison.labels[0]), cut(&comparison.labels[other]));
    let head: Cells = [String::new(), labels.0, labels.1, "ratio".into(), "interval".into(), String::new()];
    let rows: Vec<(String, Cells)> =
        comparison.rows.iter().map(|row| (place(row), cells(row, other))).collect();
    let kept: Vec<Cells> = comparison.kept.iter().map(|kept| counted(kept, other)).collect();
    // One width per column over the whole table, so that nothing runs together and blocks stand below each other.
    let all = || rows.iter().map(|(_, cells)| cells).chain(std::iter::once(&head));
    let width = |column: usize| all().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut heading = String::new();
    for (place, cells) in &rows {
        if *place != heading {
            let _ = writeln!(out, "{place}");
            let _ = writeln!(out, "{}", line(&head, &widths));
            heading.clone_from(place);
        }
        let _ = writeln!(out, "{}", line(cells, &widths));
    }
    let wide = |column: usize| kept.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths = [wide(0), wide(1).max(widths[1]), wide(2).max(widths[2]), 0, 0, 0];
    let _ = writeln!(out, "counted over all runs");
    let _ = writeln!(
        out,
        "{}",
        line(
            &[String::new(), head[1].clone(), head[2].clone(), String::new(), String::new(), String::new()],
            &widths
        )
    );
    for cells in &kept {
        let _ = writeln!(out, "{}", line(cells, &widths));
    }
    let _ = writeln!(out);
}

/// Where a row's figures are of, as a heading.
fn place(row: &Row) -> String {
    let op = if row.op == "all" { "all operations" } else { &row.op };
    format!("{}, {op}", row.phase)
}

/// Columns with two spaces between them; the first and the last to the left, the others to the right.
fn line(cells: &Cells, widths: &[usize]) -> String {
    let mut line = format!("  {:<1$}", cells[0], widths[0]);
    for column in 1..5 {
        let _ = write!(line, "  {:>1$}", cells[column], widths[column]);
    }
    let _ = write!(line, "  {}", cells[5]);
    line.truncate(line.trim_end().len());
    line
}

fn cells(row: &Row, other: usize) -> Cells {
    let value = |at: usize| row.values[at].map_or("-".to_string(), |value| shown(row.figure, value));
    let (ratio, interval, words) = match &row.against[other - 1] {
        None => ("-".to_string(), String::new(), String::new()),
        Some(against) => (ratio(against.ratio), interval(against), words(against)),
    };
    [row.figure.name().to_string(), value(0), value(other), ratio, interval, words]
}

/// A finding in the room that there is; a star stands for *in each run*.
fn words(against: &Against) -> String {
    match against.finding.words().strip_suffix(" in each run") {
        Some(word) => format!("{word}*"),
        None if against.interval.is_none() => String::new(),
        None => against.finding.words().to_string(),
    }
}

fn counted(kept: &Kept, other: usize) -> Cells {
    let side = |at: usize| kept.sides[at].map_or("-".to_string(), tally);
    [kept.what.to_string(), side(0), side(other), String::new(), String::new(), String::new()]
}

/// `0 of 12,345`
pub(super) fn tally(tally: Tally) -> String {
    let count = figures::count(tally.count);
    tally.of.map_or(count.clone(), |of| format!("{count} of {}", figures::count(of)))
}

/// A figure with its unit.
pub(super) fn shown(figure: Figure, value: f64) -> String {
    match figure {
        _ if value.is_infinite() => "never".to_string(),
        Figure::Rate => figures::rate(value),
        _ => figures::time_us(value),
    }
}

/// `0.48`, `12.5`.
pub(super) fn ratio(value: f64) -> String {
    figures::digits(value)
}

/// An interval whose ends differ by more than this factor says nothing, and its ends are not worth their room.
const WIDE: f64 = 1000.0;

/// `0.46..0.51`, or nothing when unknown.
pub(super) fn interval(against: &Against) -> String {
    match against.interval {
        None => String::new(),
        Some(i) if i.high > i.low * WIDE => "very wide".to_string(),
        Some(i) => format!("{}..{}", ratio(i.low), ratio(i.high)),
    }
}

/// What tells labels apart is often at their end: `zoometry-3 (b)`.
fn cut(label: &str) -> String {
    let letters: Vec<char> = label.chars().collect();
    let text = |letters: &[char]| letters.iter().collect::<String>();
    match letters.len() {
        0..=LABEL_WIDTH => label.to_string(),
        length => format!("{}…{}", text(&letters[..6]), text(&letters[length - 4..])),
    }
}

/// What the findings rest on, in paragraphs.
pub(super) fn basis(comparison: &Comparison) -> Vec<String> {
    let fewest = comparison.repeats.iter().min().copied().unwrap_or(0);
    let figures = "Values are geometric means of a side's runs, ratios are to the first side. Intervals hold together \
                   with 95 % (Bonferroni); \"same\" means within 5 %.";
    let mut basis = vec![if fewest >= REPEATS_MIN {
        format!("{figures} They come from how repeated runs differ (Welch, on logarithms).")
    } else {
        format!(
            "{figures} They come from how the seconds of one run differ, or its faults (block bootstrap), and say \
             nothing about how another run would have turned out: repeat runs ({REPEATS_MIN} of each side at least) \
             to know that."
        )
    }];
    let against = comparison.rows.iter().flat_map(|row| row.against.iter().flatten());
    let starred = against.filter(|against| against.finding.is_in_each_run()).count();
    if starred > 0 {
        let most =
            comparison.repeats.iter().skip(1).max().copied().unwrap_or(fewest).min(comparison.repeats[0]);
        basis.push(format!(
            "* in each run: every run of one side lies above, or below, every run of the other, though the interval \
             cannot tell. With {} runs against {most}, chance alone does that to {} % of figures that do not \
             differ (exact permutation test), and {} figures are compared here. More runs would tell.",
            comparison.repeats[0],
            figures::digits(100.0 * statistics::apart_chance(comparison.repeats[0], most)),
            comparison.rows.len()
        ));
    }
    basis
}
