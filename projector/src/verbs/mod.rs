//! What operators ask and do, once: the command line, the admin API and the console call these, and each shows the answer in its
//! own way. Nothing prints here, and nothing waits for a person.
//!
//! Whatever changes something takes an [`Actor`](crate::control::Actor): who does it and why, for the log in the control store.

pub(crate) mod apply;
pub(crate) mod connectors;
mod error;
pub(crate) mod explain;
pub(crate) mod files;
pub(crate) mod given;
pub(crate) mod history;
pub(crate) mod letters;
pub(crate) mod memory;
pub(crate) mod rebuild;
pub(crate) mod report;
pub(crate) mod trace;

pub(crate) use error::{VerbError, finding_json};
