//! What a person sees while a run goes on: a live line on a terminal, one line per step elsewhere, nothing with `--quiet`.
//!
//! Everything goes to standard error: standard output is for results.

use crate::figures;
use crate::recorder::Recent;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A wait is worth a line after this long.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The live rate and percentile are about this much of the past.
const WINDOW: Duration = Duration::from_secs(1);

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A line that is rewritten.
    Live,
    /// One line per step.
    Steps,
    /// Nothing.
    Nothing,
}

impl Show {
    /// Live on a terminal, steps elsewhere.
    pub fn on_stderr(quiet: bool) -> Show {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Live,
            (false, false) => Show::Steps,
        }
    }
}

/// A wait of unknown length.
#[derive(Debug)]
pub struct Waiting {
    show: Show,
    bar: Option<ProgressBar>,
    told: bool,
}

impl Waiting {
    /// Nothing is shown before [`PATIENCE`] is over.
    pub fn new(show: Show) -> Waiting {
        Waiting { show, bar: None, told: false }
    }

    /// Still waiting, since `elapsed`, for what `text` says.
    pub fn still(&mut self, elapsed: Duration, text: impl FnOnce() -> String) {
        if elapsed < PATIENCE {
            return;
        }
        match self.show {
            Show::Nothing => {}
            Show::Steps if self.told => {}
            Show::Steps => {
                self.told = true;
                eprintln!("{}", text());
            }
            Show::Live => {
                let bar = self.bar.get_or_insert_with(|| bar(None));
                bar.set_message(format!("{} ({:.0} s)", text(), elapsed.as_secs_f64()));
                bar.tick();
            }
        }
    }

    /// The wait is over.
    pub fn done(&mut self) {
        self.told = false;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Work of a known amount.
#[derive(Debug)]
pub struct Counting {
    bar: Option<ProgressBar>,
    shown_at: Instant,
}

impl Counting {
    /// `what` is done `total` times.
    pub fn new(show: Show, what: &str, total: u64) -> Counting {
        let bar = (show == Show::Live).then(|| {
            let bar = bar(Some(total));
            bar.set_message(what.to_owned());
            bar
        });
        if show == Show::Steps {
            eprintln!("{what}");
        }
        Counting { bar, shown_at: Instant::now() }
    }

    /// So many are done. Cheap enough to be called for each.
    pub fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar
            && done.is_multiple_of(64)
            && self.shown_at.elapsed() > Duration::from_millis(50)
        {
            self.shown_at = Instant::now();
            bar.set_position(done);
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The load, phase by phase.
#[derive(Debug)]
pub struct Load {
    show: Show,
    bar: Option<ProgressBar>,
    phase: Option<usize>,
    /// What was completed, by when it was asked for; about [`WINDOW`] of it.
    recent: VecDeque<(Instant, Recent)>,
    errors: u64,
    missed: u64,
}

/// Where the load stands.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    /// Index of the phase.
    pub phase: usize,
    /// How many there are.
    pub phases: usize,
    /// Its name.
    pub name: &'a str,
    /// Into the phase.
    pub elapsed: Duration,
    /// The phase's length.
    pub duration: Duration,
}

impl Load {
    /// Nothing yet.
    pub fn new(show: Show) -> Load {
        Load { show, bar: None, phase: None, recent: VecDeque::new(), errors: 0, missed: 0 }
    }

    /// Called about ten times a second with what was completed since the last call.
    pub fn update(&mut self, position: Position<'_>, recent: Recent) {
        self.errors += recent.errors;
        self.missed += recent.missed;
        let now = Instant::now();
        self.recent.push_back((now, recent));
        while self.recent.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.recent.pop_front();
        }
        if self.phase != Some(position.phase) {
            self.begin(position);
        }
        if let Some(bar) = &self.bar {
            bar.set_position((position.elapsed.as_millis() as u64).min(bar.length().unwrap_or(0)));
            bar.set_message(self.line());
        }
    }

    fn begin(&mut self, position: Position<'_>) {
        self.phase = Some(position.phase);
        let title = format!("phase {}/{} {}", position.phase + 1, position.phases, position.name);
        match self.show {
            Show::Nothing => {}
            Show::Steps => {
                eprintln!("{title}, {}", figures::seconds(position.duration.as_secs_f64()));
            }
            Show::Live => {
                self.done();
                let bar = ProgressBar::new(position.duration.as_millis() as u64);
                bar.set_style(
                    ProgressStyle::with_template("{prefix} [{bar:16}] {msg}")
                        .expect("a constant template is valid")
                        .progress_chars("=> "),
                );
                bar.set_prefix(title);
                self.bar = Some(bar);
            }
        }
    }

    /// `12,345/s  p99 1.20 ms  3 errors`
    fn line(&self) -> String {
        let mut all = Recent::default();
        self.recent.iter().for_each(|(_, recent)| all.merge(recent));
        let span = self.recent.front().map_or(WINDOW, |(at, _)| at.elapsed().max(Duration::from_millis(100)));
        let mut line = format!("{}/s", figures::rate(all.completed as f64 / span.as_secs_f64()));
        if let Some(p99_ns) = all.response.quantile(0.99) {
            line.push_str(&format!("  p99 {}", figures::time_us(p99_ns as f64 / 1e3)));
        }
        if self.errors > 0 {
            line.push_str(&format!("  {} errors", figures::count(self.errors)));
        }
        if self.missed > 0 {
            line.push_str(&format!("  {} missed", figures::count(self.missed)));
        }
        line
    }

    /// A line about something that happened, above the live one.
    pub fn note(&self, text: &str) {
        match (&self.bar, self.show) {
            (_, Show::Nothing) => {}
            (Some(bar), _) => bar.println(text),
            (None, _) => eprintln!("{text}"),
        }
    }

    /// The load is over.
    pub fn done(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} [{bar:24}] {pos}/{len}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_style(
        ProgressStyle::with_template(template).expect("a constant template is valid").progress_chars("=> "),
    );
    bar
}
