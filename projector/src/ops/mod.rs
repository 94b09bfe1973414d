//! What operators and their tools see: how late everything is ([`lag`]), metrics, health.

pub mod lag;
mod server;

pub use server::admin;
