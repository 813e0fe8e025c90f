//! What must be equal before figures may be compared, and what is worth knowing when it is not.

use std::collections::BTreeSet;

use crate::figures;
use crate::results::{Manifest, RunData};
use crate::verdict::Grade;

use super::sides::{Loaded, LoadedRun};

/// What a difference means for a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// A run is INVALID: its figures do not describe its cluster.
    Invalid,
    /// The runs were not asked the same: figures are not comparable.
    Refuses,
    /// They are, if one knows it.
    Notable,
}

impl Weight {
    /// Whether figures should not be compared.
    pub fn refuses(self) -> bool {
        self != Weight::Notable
    }
}

/// Something in which the sides differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// In words.
    pub what: String,
    /// Per side.
    pub values: Vec<String>,
    /// Whether figures can be compared all the same.
    pub weight: Weight,
}

/// A property of a run, as text.
type Property = (&'static str, Weight, fn(&Manifest) -> String);

const PROPERTIES: [Property; 15] = [
    ("workload", Weight::Refuses, |m| format!("{} {}", m.workload, m.workload_hash)),
    ("overrides", Weight::Refuses, |m| m.overrides.join(" ")),
    ("sessions per phase", Weight::Refuses, |m| of_phases(m, |p| p.sessions)),
    ("in flight per session", Weight::Refuses, |m| of_phases(m, |p| p.in_flight)),
    ("session timeout (ms)", Weight::Refuses, |m| m.session_timeout_ms.to_string()),
    ("placement of sessions", Weight::Refuses, |m| m.placement.clone()),
    ("durability (forceSync)", Weight::Refuses, force_sync),
    ("data in memory (tmpfs)", Weight::Refuses, |m| {
        m.environment
            .data_on_tmpfs
            .map_or("unknown".to_string(), |yes| if yes { "yes" } else { "no" }.to_string())
    }),
    ("zoo.cfg", Weight::Notable, zoo_cfg),
    ("seed", Weight::Notable, |m| m.seed.to_string()),
    ("members", Weight::Notable, |m| m.members.len().to_string()),
    ("generator's machine", Weight::Notable, |m| {
        format!(
            "{}, {}, {} cores, {}",
            m.environment.host, m.environment.cpu_model, m.environment.cores, m.environment.kernel
        )
    }),
    ("generator's version", Weight::Notable, |m| m.version.clone()),
    ("servers on the generator's machine", Weight::Notable, |m| {
        if m.environment.colocated { "yes" } else { "no" }.to_string()
    }),
    ("data's file system", Weight::Notable, |m| {
        m.environment.data_filesystem.clone().unwrap_or_else(|| "unknown".to_string())
    }),
];

fn of_phases(manifest: &Manifest, value: fn(&crate::results::PhaseRecord) -> u32) -> String {
    let values: Vec<String> = manifest.phases.iter().map(|phase| value(phase).to_string()).collect();
    let distinct: BTreeSet<&String> = values.iter().collect();
    match distinct.into_iter().next() {
        Some(one) if values.iter().all(|value| value == one) => one.clone(),
        _ => values.join(","),
    }
}

/// Apache's default is yes, and a server that does not say otherwise has it.
fn force_sync(manifest: &Manifest) -> String {
    let values: BTreeSet<&str> = manifest
        .members
        .iter()
        .map(|member| {
            let setting = member.settings.iter().find(|(name, _)| name.eq_ignore_ascii_case("forcesync"));
            setting.map_or("yes", |(_, value)| if value == "no" || value == "false" { "no" } else { "yes" })
        })
        .collect();
    values.into_iter().collect::<Vec<_>>().join(",")
}

/// The lines that were asked for on the command line, of members that were started for the run.
fn zoo_cfg(manifest: &Manifest) -> String {
    let lines: BTreeSet<String> = manifest
        .members
        .iter()
        .flat_map(|member| &member.settings)
        .filter_map(|(name, value)| Some(format!("{}={value}", name.strip_prefix("zoo.cfg ")?)))
        .collect();
    lines.into_iter().collect::<Vec<_>>().join(" ")
}

/// In what the runs differ, gravest first.
pub(super) fn differences(sides: &[Loaded]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (what, weight, value) in PROPERTIES {
        let values: Vec<String> =
            sides.iter().map(|side| distinct(side.runs.iter().map(|one| value(&one.run.manifest)))).collect();
        if values.iter().any(|value| *value != values[0] || value.contains(" / ")) {
            differences.push(Difference { what: what.to_string(), values, weight });
        }
    }
    differences.extend(believed(sides));
    differences.extend(phases(sides));
    differences.sort_by_key(|difference| difference.weight);
    differences
}

/// All distinct values of repeated runs.
fn distinct(values: impl Iterator<Item = String>) -> String {
    let values: BTreeSet<String> =
        values.map(|value| if value.is_empty() { "none".to_string() } else { value }).collect();
    values.into_iter().collect::<Vec<_>>().join(" / ")
}

/// Runs that are not VALID are named; INVALID ones refuse, with their reasons.
fn believed(sides: &[Loaded]) -> Option<Difference> {
    let grade = |one: &LoadedRun| one.run.manifest.verdict.grade;
    let worst = sides.iter().flat_map(|side| &side.runs).map(grade).max()?;
    let weight = match worst {
        Grade::Valid => return None,
        Grade::Suspect => Weight::Notable,
        Grade::Invalid => Weight::Invalid,
    };
    let told = |one: &LoadedRun| {
        let verdict = &one.run.manifest.verdict;
        match verdict.reasons.iter().find(|reason| reason.grade == Grade::Invalid) {
            Some(reason) if reason.phase.is_empty() => format!("{} ({})", verdict.grade, reason.check),
            Some(reason) => format!("{} ({} in {})", verdict.grade, reason.check, reason.phase),
            None => verdict.grade.to_string(),
        }
    };
    let text = |side: &Loaded| distinct(side.runs.iter().map(told));
    Some(Difference { what: "verdict".to_string(), values: sides.iter().map(text).collect(), weight })
}

/// Phases that not all have are not compared.
fn phases(sides: &[Loaded]) -> Option<Difference> {
    let names = |run: &RunData| {
        let measured = run.manifest.phases.iter().filter(|phase| !phase.warmup);
        measured.map(|phase| phase.name.clone()).collect::<Vec<_>>().join(",")
    };
    let lengths = |run: &RunData| {
        let measured = run.manifest.phases.iter().filter(|phase| !phase.warmup);
        let texts = measured.map(|phase| figures::seconds((phase.end_ns - phase.start_ns) as f64 / 1e9));
        texts.collect::<Vec<_>>().join(",")
    };
    let of = |text: &dyn Fn(&RunData) -> String| -> Vec<String> {
        sides.iter().map(|side| distinct(side.runs.iter().map(|one| text(&one.run)))).collect()
    };
    for (what, values) in [("phases", of(&names)), ("lengths of phases", of(&lengths))] {
        if values.iter().any(|value| *value != values[0]) {
            return Some(Difference { what: what.to_string(), values, weight: Weight::Notable });
        }
    }
    None
}
