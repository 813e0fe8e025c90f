//! `zoometry-server`: one member, as Apache's `zkServer.sh start-foreground`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zoometry_server::cli::main(std::env::args_os().skip(1))
}
