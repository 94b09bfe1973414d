//! A projection: the YAML file that says which events make which documents, in which store, and how they are queried.

mod compile;
mod diagnostic;
mod join;
mod model;
mod query;
mod schema;
mod test;
mod verify;

pub use compile::{Compiled, ReadModelKind};
pub use diagnostic::{Diagnosis, Finding, Source};
pub use join::{IdPath, Join, Parent};
pub use model::{
    ClickhouseStore, DayRollup, ElasticsearchStore, NamedParent, ParentIds, PostgresStore, Projection, RedisStore,
    Store, Ttl,
};
pub use query::*;
pub use schema::schema;
pub use test::{DeadLetter, Expect, TestCase};
