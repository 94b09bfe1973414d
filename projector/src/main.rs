//! The `projector` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    projector::cli::main()
}
