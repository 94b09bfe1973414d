//! The declarative language and its tools, as a user meets them: the binary, run on a library's events (`tests/library`) and on
//! the repository's own. `UPDATE=1 cargo test` accepts what is found.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod bad;
mod brevity;
mod domain;
mod explained;
mod fuzz;
mod lookups;
mod payloads;
mod registry;
mod support;
mod testing;
mod traced;
