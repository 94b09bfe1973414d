//! What operators and their tools see: how late everything is ([`lag`]), who is told of it ([`alert`]), metrics, health.

pub mod alert;
pub mod health;
pub mod lag;
pub mod metrics;
mod server;

pub use server::admin;
