//! What was asked, of whom, where: the part of the manifest that is known before anything is measured.

use super::Options;
use crate::results::{ArrivalKind, Manifest, PhaseRecord};
use crate::spec::{Arrival, Placement, Rate, Spacing, Spec};

/// Everything but what the run itself brings.
pub(super) fn manifest(options: &Options, spec: &Spec) -> Manifest {
    let hashed = format!("{}\n{}", spec.text, spec.overrides.join("\n"));
    Manifest {
        workload: spec.name.clone(),
        question: spec.description.clone(),
        workload_hash: format!("{:016x}", crate::draw::seed_of(0, &hashed)),
        workload_text: spec.text.clone(),
        overrides: spec.overrides.clone(),
        seed: spec.seed,
        cluster: options.cluster.to_string(),
        cluster_label: options.cluster.label(),
        command: options.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("ZOOMETRY_REVISION").map(str::to_owned),
        session_timeout_ms: spec.sessions.timeout_ms,
        // Requests are given up only with their connection, or at the end of the run.
        request_timeout_ms: 0,
        backlog_limit: spec.phases.iter().map(|phase| phase.backlog_limit).max().unwrap_or(0),
        placement: match spec.sessions.placement {
            Placement::Even => "spread".to_owned(),
            Placement::Leader => "leader".to_owned(),
            Placement::Followers => "followers".to_owned(),
            Placement::Server(n) => format!("server.{n}"),
        },
        ..Manifest::default()
    }
}

/// Arguments as a shell takes them again, without what is secret.
pub fn command_line(arguments: impl Iterator<Item = std::ffi::OsString>) -> String {
    let quoted = crate::credentials::hide(arguments).map(|argument| quoted(&argument.to_string_lossy()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// An argument as a shell takes it again.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:,=+@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The phases as they are to run.
pub(super) fn phases(spec: &Spec, start_ns: u64) -> Vec<PhaseRecord> {
    let mut at = start_ns;
    let mut records = Vec::new();
    for phase in &spec.phases {
        let start_ns = at;
        at += phase.duration_ns;
        records.push(PhaseRecord {
            name: phase.name.clone(),
            warmup: phase.warmup,
            arrival: match phase.arrival {
                Arrival::Closed => ArrivalKind::Closed,
                Arrival::Open { .. } => ArrivalKind::Open,
            },
            arrival_text: arrival_text(&phase.arrival, spec.sessions.in_flight),
            start_ns,
            end_ns: at,
            sessions: spec.sessions.count,
            in_flight: spec.sessions.in_flight,
        });
    }
    records
}

fn arrival_text(arrival: &Arrival, in_flight: u32) -> String {
    match arrival {
        Arrival::Closed => format!("closed, {in_flight} in flight"),
        Arrival::Open { rate, spacing } => {
            let spacing = match spacing {
                Spacing::Even => "constant",
                Spacing::Poisson => "poisson",
            };
            match rate {
                Rate::Constant(rate) => format!("{spacing} {rate}/s"),
                Rate::Ramp { from, to } => format!("{spacing} ramp {from} to {to}/s"),
                Rate::Steps(steps) => {
                    let steps: Vec<String> = steps.iter().map(f64::to_string).collect();
                    format!("{spacing} steps {}/s", steps.join(", "))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_typed_again() {
        let arguments = ["zoometry", "run", "my file.toml", "--set", "phase.*.mix={ get = 1 }", "it's", ""];
        assert_eq!(
            command_line(arguments.into_iter().map(std::ffi::OsString::from)),
            r"zoometry run 'my file.toml' --set 'phase.*.mix={ get = 1 }' 'it'\''s' ''"
        );
    }
}
