//! `xtask`, the tool behind `./dev`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    xtask::cli::main().await
}
