//! The control plane's logging and tracing, set up once per process.
//!
//! Start-up, elections, sessions and snapshots are `tracing` spans and events: a few a second, where the
//! microsecond that such a span costs does not matter. Events go to stderr; spans of this project's crates
//! at `info` and above go to OTLP as well, when that is on. Requests never come this way: see
//! [`crate::span`].

use crate::attrs;
use crate::export::{ExportCounts, ExportSettings, Exporter, SetupError};
use crate::resource::Resource;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::io::IsTerminal;
use std::time::Duration;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What OpenTelemetry's own crates say; our counters say it better.
const QUIET: [&str; 3] = ["opentelemetry=off", "opentelemetry_sdk=off", "opentelemetry_otlp=off"];

/// What a process wants.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Who it is; the environment's say is added here.
    pub resource: Resource,
    /// `--log`: a level or `target=level` pairs. Without it `RUST_LOG` counts, and without that
    /// `default_level`.
    pub log: Option<&'a str>,
    /// `info` for a server, `warn` for a program that prints results.
    pub default_level: &'a str,
}

/// The process's telemetry, to be shut down at its end.
#[derive(Debug)]
pub struct Telemetry {
    exporter: Option<Exporter>,
    provider: Option<SdkTracerProvider>,
    resource: Resource,
}

/// Installs the log, and the export if the environment asks for it. Once per process.
///
/// Errors are for the person at the keyboard: exit code 2.
pub fn init_tracing(setup: Setup<'_>) -> Result<Telemetry, SetupError> {
    let resource = setup.resource.with_env();
    let settings = ExportSettings::from_env()?;
    let exporter = settings.as_ref().map(|settings| Exporter::start(settings, &resource)).transpose()?;
    let provider = exporter.clone().map(|exporter| {
        SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(crate::export::otel_resource(&resource))
            .with_span_processor(exporter)
            .build()
    });

    let filter = log_filter(setup.log, std::env::var("RUST_LOG").ok().as_deref(), setup.default_level)?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_filter(filter);
    let control_plane = provider.as_ref().map(|provider| {
        let scope = InstrumentationScope::builder(attrs::SCOPE)
            .with_version(resource.service_version().to_owned())
            .with_schema_url(attrs::SCHEMA_URL)
            .build();
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer_with_scope(scope))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target("zoometry", LevelFilter::INFO))
    });
    tracing_subscriber::registry()
        .with(control_plane)
        .with(log)
        .try_init()
        .map_err(|_| SetupError::AlreadyInitialised)?;

    if let Some(settings) = settings {
        tracing::debug!(endpoint = settings.endpoint, service = resource.service_name(), "spans go to OTLP");
        for warning in settings.warnings {
            tracing::warn!("{warning}");
        }
    }
    Ok(Telemetry { exporter, provider, resource })
}

impl Telemetry {
    /// Where request spans go, if OTLP is on.
    pub fn exporter(&self) -> Option<&Exporter> {
        self.exporter.as_ref()
    }

    /// Who the process is, environment included; for span files.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Delivers what waits, within the deadline, and says in the log what was lost. `None` without OTLP.
    pub fn shutdown(self, deadline: Duration) -> Option<ExportCounts> {
        let exporter = self.exporter?;
        let counts = exporter.shutdown(deadline);
        // The provider's processor is the exporter, which is down already.
        drop(self.provider);
        let lost = counts.failed + counts.dropped + counts.waiting;
        if lost > 0 {
            tracing::warn!(
                exported = counts.exported,
                failed = counts.failed,
                dropped = counts.dropped,
                unsent = counts.waiting,
                last_error = counts.last_error.as_deref().unwrap_or("none"),
                "not all spans reached the OTLP endpoint"
            );
        }
        Some(counts)
    }
}

fn log_filter(
    log: Option<&str>,
    rust_log: Option<&str>,
    default_level: &str,
) -> Result<EnvFilter, SetupError> {
    let text = log.or(rust_log.filter(|text| !text.trim().is_empty())).unwrap_or(default_level);
    let mut filter = EnvFilter::builder()
        .parse(text)
        .map_err(|error| SetupError::LogFilter { filter: text.to_owned(), problem: error.to_string() })?;
    for quiet in QUIET.iter().filter(|quiet| !text.contains(quiet.split('=').next().unwrap_or(quiet))) {
        filter = filter.add_directive(quiet.parse().expect("a constant directive"));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_beats_the_variable_beats_the_default() {
        let shown = |log, env| log_filter(log, env, "info").map(|f| f.to_string()).map_err(|e| e.to_string());
        assert!(shown(Some("debug"), Some("trace")).unwrap().ends_with("debug"));
        assert!(shown(None, Some("trace")).unwrap().ends_with("trace"));
        assert!(shown(None, Some(" ")).unwrap().ends_with("info"));
        assert!(shown(None, None).unwrap().contains("opentelemetry_sdk=off"));
        assert!(shown(Some("opentelemetry_sdk=debug"), None).unwrap().contains("opentelemetry_sdk=debug"));
        let error = shown(Some("zoometry=loud"), None).unwrap_err();
        assert!(error.contains("zoometry=loud") && error.contains("expected a level"), "{error}");
    }
}
