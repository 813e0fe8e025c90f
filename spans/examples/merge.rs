//! Span files (`zoometry.traceFile`) into one OTLP/JSON file that Jaeger's UI opens by upload:
//!
//! `cargo run -p zoometry-spans --example merge -- traces.json server-1.spans server-2.spans`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zoometry_spans::merge;

fn main() -> ExitCode {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (output, inputs) = (paths.next(), paths.collect::<Vec<_>>());
    let Some(output) = output.filter(|_| !inputs.is_empty()) else {
        eprintln!("usage: merge OUTPUT.json SPAN_FILE...");
        return ExitCode::from(2);
    };
    match merge::merge(&inputs, Path::new(&output), merge::DEFAULT_BUDGET) {
        Ok(merged) => {
            println!("{merged:#?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("merge: {error}");
            ExitCode::FAILURE
        }
    }
}
