//! A projection: the YAML file that says which events make which documents, in which store, and how they are queried.

mod compile;
mod diagnostic;
mod model;
mod query;

pub use compile::{Compiled, ReadModelKind};
pub use diagnostic::{Finding, Source};
pub use model::{ClickhouseStore, DayRollup, ElasticsearchStore, PostgresStore, Projection, RedisStore, Store};
pub use query::*;
