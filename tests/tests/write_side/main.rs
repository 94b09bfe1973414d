//! The write side on the whole stack: what it acknowledged survives every crash, what it was asked to wait for is visible, and who is
//! only connected costs it nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod connections;
mod crashes;
mod waits;
