//! Postgres: each document a row with typed columns under its key.
//!
//! # The layout
//! | relation, in the projection's schema | what |
//! |---|---|
//! | `<read model>_g<n>` | the documents: a column a field, and hidden ones; its comment names the generation |
//! | `<read model>_g<n>_visible` | the view of what readers may see of it: neither tombstones nor expired rows nor hidden columns |
//! | `<read model>` | the view of the live generation |
//! | `projector_progress` | a row a generation and partition, holding the progress as JSON, and the owner's fence |
//!
//! Hidden columns: `_key`, compared byte by byte; `_version`; `_deleted`; `_state`; `_expires`, of a tombstone when it was written; `_parents`, indexed where a row
//! has any. A field that is null is not told from one that is missing.
//!
//! # Writing
//! One statement a batch: rows come as one JSON value, and a row lands where its version rises; what isn't returned was stale.
//! Content that the server refuses (text with a zero byte, a number out of range) fails the statement: then the batch is
//! halved until that row stands alone.

mod columns;
mod config;
mod convert;
mod place;
mod sink;
mod table;

use crate::expr::Kind;
use crate::projection::PostgresStore;

pub(crate) use columns::check;
pub(crate) use config::{Fault, REFUSED, fault, options, visible};
pub use sink::PostgresSink;
pub use table::PostgresTable;

/// A document's columns, each with its type.
pub(super) fn columns(document: &Kind, config: &PostgresStore) -> Vec<String> {
    columns::columns(document, config).iter().map(columns::Column::definition).collect()
}
