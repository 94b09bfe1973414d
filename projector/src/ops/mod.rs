//! What operators and their tools see: how late everything is ([`lag`]), metrics, health; and what they do, by an API
//! ([`admin`]) and in a browser (`console`).

pub mod admin;
mod console;
pub mod lag;
mod server;

pub use server::admin;
