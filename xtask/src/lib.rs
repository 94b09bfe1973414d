//! The tool behind `./dev`: starts and stops the real components and our services, runs the tests, the load, the
//! audit and the demo. Everything of one instance lives in `run/<instance>`; downloads live in `.cache/stack`.

pub mod cli;
pub mod traces;
pub mod usage;

mod audit;
mod bench;
mod containers;
mod demo;
mod lag;
mod load;
mod process;
mod progress;
mod services;
mod settings;
mod stack;
mod status;
mod test;
