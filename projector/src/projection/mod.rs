//! A projection: the YAML file that says which events make which documents, in which store, and how they are queried.

mod compile;
mod diagnostic;
mod join;
mod model;
mod query;
mod test;

pub use compile::{Compiled, ReadModelKind};
pub use diagnostic::{Finding, Source};
pub use join::{IdPath, Join, Parent};
pub use model::{
    ClickhouseStore, DayRollup, ElasticsearchStore, ParentIds, PostgresStore, Projection, RedisStore, Store, Ttl,
};
pub use query::*;
pub use test::{DeadLetter, Expect, TestCase};
