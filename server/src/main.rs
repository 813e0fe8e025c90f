//! `zoometry-server`: one member, as Apache's `zkServer.sh start-foreground`.

use std::process::ExitCode;

/// A seventh of a write's CPU time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    zoometry_server::cli::main(std::env::args_os().skip(1))
}
