//! The write side on the whole stack: what it acknowledged survives every crash, and what it was asked to wait for is visible.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod crashes;
mod waits;
