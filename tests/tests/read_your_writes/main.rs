//! Read-your-writes: whoever passes a command's token on to a query never misses what that command wrote.
//!
//! `simple`: the shortest story. `model`: many clients, each with a model of what it wrote, read by every endpoint while the
//! projector is killed, held still and lagging. `edges`: tokens that can't be met. `hostile`: texts that try to be more than values.
//!
//! The long form of the model (100,000 reads) is part of `./dev test faults`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod client;
mod edges;
mod hostile;
mod model;
#[path = "../faults/poison.rs"]
#[allow(dead_code)]
mod poison;
mod simple;
mod tally;
mod wallet;
