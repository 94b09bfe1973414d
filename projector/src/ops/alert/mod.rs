//! Alerts: what of a [report](super::lag::Report) somebody must know of ([`rules`]), since when it counts and when it is over
//! ([`machine`], pure), and telling: the log, metrics, the control store, a webhook ([`webhook`]).
//!
//! Of several hosts one raises alerts, the one that holds the monitor's lease in the control store ([`monitor`]). The alerts
//! that stand are kept there, so that the next holder goes on without telling them again. Whether that store answers each host
//! watches and tells for itself (`reach`).

pub mod machine;
mod monitor;
mod reach;
pub mod rules;
mod webhook;

pub use monitor::{Monitor, MonitorArgs, Seen};
pub use webhook::Webhook;
