//! What operators and their tools see: how late everything is ([`lag`]), who is told of it ([`alert`]), metrics, health; and
//! what they do, by an API ([`mod@admin`]) and in a browser (`console`).

pub mod admin;
pub mod alert;
mod console;
pub mod health;
pub mod lag;
pub mod metrics;
mod server;
pub mod status;

pub use server::admin;
