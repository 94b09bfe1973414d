//! ClickHouse: rows of facts, each kept once under its stable id.
//!
//! # The layout
//! | table | what |
//! |---|---|
//! | `<read model>_g<n>` | `ReplacingMergeTree`: a row's columns, and its id `_event_id`, `_row`; by month and day |
//! | `<read model>` | the view of the live generation, without duplicates (`FINAL`) and without the id |
//! | `<read model>_g<n>_days`, `<read model>_g<n>_rollup` | where the projection asks for a `rollup`: its days added up, see [`rollup`] |
//! | `projector_progress` | `ReplacingMergeTree`: a row a generation, partition and owner's fence, holding the progress as JSON |
//!
//! A row sent twice is stored twice until a merge drops one; `FINAL` gives one at any time. An event's day never changes, so
//! both copies are always in one partition.
//!
//! An insert can't look at what is there. So the fence is part of the key under which progress is kept, a former owner's late
//! save stands in a row of its own, and who loads takes the row of the highest fence.

mod columns;
mod config;
mod place;
mod rollup;
mod sink;

use crate::expr::Kind;
use crate::projection::ClickhouseStore;

pub(crate) use columns::check;
pub(crate) use rollup::DayTables;
pub use rollup::Timing;
pub use sink::ClickhouseSink;

/// A row's columns with their types.
pub(super) fn columns(row: &Kind, config: &ClickhouseStore) -> Vec<(String, String)> {
    columns::columns(row, config)
}
