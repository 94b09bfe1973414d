//! The one place that names the expression language: VRL, compiled against the types of the event and the document.
//!
//! A program sees two values: `.` is the document being folded and `%` the event (`%data`, `%aggregate_id`, `%sequence`,
//! `%occurred_at`, …). Only pure functions are offered, so that replaying the same events gives the same documents.

mod check;
mod closures;
mod compile;
mod default;
mod functions;
pub mod json;
mod lineage;
mod rewrite;
mod target;
mod wanted;

pub use check::distance;
pub use compile::{Compiler, Diagnostic, Names, Program, Reason, RunError};
pub use lineage::{Flow, flows};
pub use target::Fields;
pub use vrl::value::kind::{Collection, Field};
pub use vrl::value::{KeyString, Kind, ObjectMap as Object, Value};
pub use wanted::Wanted;
