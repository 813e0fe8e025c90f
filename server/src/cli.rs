//! The command line of a member. Small on purpose: everything else is in zoo.cfg.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::Config;
use crate::{dump, member};

/// Bad usage or a configuration that cannot be used.
const EXIT_USAGE: u8 = 2;

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
";

/// Runs the program; returns its exit code: 0 stopped as asked, 1 failed, 2 bad usage or configuration.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--help" | "-h" | "help"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!("zoometry-server {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["dump", dir] => report(dump(dir, dir)),
        ["dump", dir, log_dir] => report(dump(dir, log_dir)),
        [file] if !file.starts_with('-') => serve(file),
        _ => {
            eprint!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
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
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.own.log.clone());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.own.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().context("cannot start the worker threads")?;
    runtime.block_on(member::run(config, told_to_stop()))
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
            ExitCode::FAILURE
        }
    }
}
