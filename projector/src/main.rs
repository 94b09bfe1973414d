//! The `projector` command.

use std::process::ExitCode;

/// A host has dozens of threads that take turns with short-lived documents: glibc keeps an arena for each and gives little back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    projector::cli::main()
}
