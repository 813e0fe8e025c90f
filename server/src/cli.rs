//! The command line of a member. Small on purpose: everything else is in zoo.cfg.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use zoometry_spans::{Setup, SetupError, init_tracing};

use crate::config::Config;
use crate::telemetry::{self, Tracer};
use crate::{descriptors, dump, member};

/// Bad usage or a configuration that cannot be used.
const EXIT_USAGE: u8 = 2;
/// How long the last spans may take to reach the OTLP endpoint when the member stops.
const LAST_SPANS: Duration = Duration::from_secs(3);

const HELP: &str = "\
One ZooKeeper server, on Apache's own protocol and files.

Usage:
  zoometry-server ZOO_CFG          run in the foreground until SIGTERM or Ctrl-C
  zoometry-server dump DATA_DIR [DATA_LOG_DIR]
                                   print what a stopped server holds: sessions, znodes
  zoometry-server --version

A minimal ZOO_CFG:
  tickTime=2000
  dataDir=/var/lib/zookeeper
  clientPort=2181

Log level: zoometry.log=debug in ZOO_CFG, or the environment variable RUST_LOG.
Traces: OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 sends them to Jaeger.
";

/// Runs the program; returns its exit code: 0 stopped as asked, 1 failed, 2 bad usage or configuration.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--help" | "-h" | "help"] | ["dump", "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!("zoometry-server {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        [] => {
            eprint!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
        ["dump", dir] if !dir.starts_with('-') => report(dump(dir, dir)),
        ["dump", dir, log_dir] => report(dump(dir, log_dir)),
        [file] if !file.starts_with('-') && !is_command(file) => serve(file),
        ref words => {
            eprintln!("zoometry-server: {}; see zoometry-server --help", misused(words));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Whether `word` is `dump`, or what zkServer.sh takes in front of a zoo.cfg, and no file.
fn is_command(word: &str) -> bool {
    matches!(word, "dump" | "start" | "start-foreground" | "stop" | "restart" | "status")
        && !Path::new(word).exists()
}

/// What is wrong with a command line that means nothing.
fn misused(words: &[&str]) -> String {
    match words {
        ["dump", ..] => "dump takes DATA_DIR, and DATA_LOG_DIR if logs are elsewhere".into(),
        [word, ..] if word.starts_with('-') => format!("there is no option {word}"),
        [word, ..] if is_command(word) => format!(
            "there is no command {word}: zoometry-server ZOO_CFG runs in the foreground until SIGTERM or Ctrl-C"
        ),
        _ => format!("expected one ZOO_CFG, got {}", words.join(" ")),
    }
}

fn serve(file: &str) -> ExitCode {
    match Config::load(file) {
        Ok(config) => report(run(config)),
        Err(error) => {
            eprintln!("zoometry-server: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn dump(data_dir: &str, data_log_dir: &str) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let dumped = dump::dump(data_dir.as_ref(), data_log_dir.as_ref(), &mut out);
    let written = dumped.and_then(|()| out.flush().context("cannot write the dump"));
    written.or_else(|error| match error.downcast_ref::<std::io::Error>() {
        // The reader has seen enough (`| head`).
        Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

fn run(config: Config) -> anyhow::Result<()> {
    let resource = telemetry::resource(&config);
    let telemetry = init_tracing(Setup { resource, log: None, default_level: &config.own.log })?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "cannot raise the limit of open files to the hard one (`ulimit -Hn`)");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.own.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().context("cannot start the worker threads")?;
    let (tracer, traces) = Tracer::start(&config, telemetry.exporter().cloned(), telemetry.resource())?;
    let result = run_to_end(runtime, member::run(config, tracer, told_to_stop()));
    if let Some(traces) = traces {
        traces.stop();
    }
    telemetry.shutdown(LAST_SPANS);
    result
}

/// Waits for `work`, and for nothing that it has left behind: looking up another member's name may take half a
/// minute, and cannot be broken off.
fn run_to_end<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// SIGTERM or Ctrl-C.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zoometry-server: {error:#}");
            if error.is::<SetupError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misused_command_line_is_told_what_is_wrong() {
        let table: &[(&[&str], &str)] = &[
            (&["dump"], "dump takes DATA_DIR"),
            (&["dump", "-x"], "dump takes DATA_DIR"),
            (&["start", "zoo.cfg"], "no command start: zoometry-server ZOO_CFG runs"),
            (&["start-foreground"], "no command start-foreground"),
            (&["--foo"], "no option --foo"),
            (&["a.cfg", "b.cfg"], "expected one ZOO_CFG, got a.cfg b.cfg"),
        ];
        for (words, told) in table {
            assert!(misused(words).contains(told), "{words:?}: {}", misused(words));
            assert_eq!(main(words.iter().map(OsString::from)), ExitCode::from(EXIT_USAGE), "{words:?}");
        }
    }

    #[test]
    fn what_cannot_be_broken_off_is_not_waited_for() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (began, begins) = std::sync::mpsc::channel();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            run_to_end(Runtime::new().expect("a runtime"), async move {
                tokio::task::spawn_blocking(move || (began.send(()), wait.recv()));
                begins.recv()
            })
            .expect("it has begun");
            ended.send(())
        });
        end.recv_timeout(Duration::from_secs(20)).expect("the end");
        drop(release);
    }
}
