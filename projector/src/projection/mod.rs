//! A projection: the YAML file that says which events make which documents, in which store, and how they are queried.

mod compile;
mod diagnostic;
mod join;
mod lookup;
mod masks;
mod model;
mod query;
mod schema;
mod test;
mod verify;

pub use compile::{Compiled, ReadModelKind};
pub use diagnostic::{Diagnosis, Finding, Source};
pub use join::{IdPath, Join, Parent};
pub use lookup::{LookedUp, LookupFrom};
pub use masks::{check_masks, personal_fields};
pub use model::{
    ClickhouseStore, DayRollup, ElasticsearchStore, Limits, Lookup, Mask, Missing, NamedParent, ParentIds,
    PostgresStore, Projection, RedisStore, Store, Ttl,
};
pub use query::*;
pub use schema::schema;
pub use test::{DeadLetter, Expect, TestCase};
