//! The rules of the shop: pure functions, no I/O, no clock.
//!
//! A command on a state gives events, or the rule that forbids it; a state is the fold of its events. The state tables
//! hold exactly that fold (the commands write what [`Aggregate::evolve`] returned), so replaying the events gives them again.
//! Accounts have no state table: they are loaded from their events.
//!
//! One file an aggregate. The events are serde enums: a variant's serialized name is the event type, with `.v2` and so on
//! behind it where it is not version 1; its content has the fields of the Avro schema, which encoding checks.

pub mod account;
pub mod customer;
pub mod order;
pub mod product;
mod violation;

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

pub use account::{Account, AccountEvent};
pub use customer::{Customer, CustomerEvent};
pub use order::{Order, OrderEvent};
pub use product::{Product, ProductEvent};
pub use violation::Violation;

/// A point in time, to the microsecond.
pub type Time = DateTime<Utc>;

/// What has a stream of events of its own. Serialized, it is a snapshot, and the row of its state table if it has one.
pub trait Aggregate: Clone + Serialize + DeserializeOwned + Send + Sync {
    /// The aggregate type: the topic's suffix, the stream id's prefix.
    const TYPE: &'static str;
    /// Raised when a serialized state of before can't be read any more: snapshots of another format are left alone.
    const SNAPSHOT_FORMAT: i32 = 1;
    /// All events of this aggregate.
    type Event: Serialize + DeserializeOwned + Send + Sync;

    /// An old version of an event's data as the newest one, with its version. Done whenever an event is read, so that
    /// the domain knows the newest alone.
    #[must_use]
    fn upcast(_event_type: &str, version: i32, data: Json) -> (i32, Json) {
        (version, data)
    }
    /// The state after an event. `None` only before the first event, and for a first event that begins nothing, which
    /// no command decides on.
    #[must_use]
    fn evolve(state: Option<Self>, event: &Self::Event, at: Time) -> Option<Self>;
    /// The aggregate's id.
    fn id(&self) -> String;
    /// How many events there were: the stream's position.
    fn version(&self) -> i64;
}

/// Folds a stream from its beginning.
pub fn replay<'a, A: Aggregate + 'a>(events: impl IntoIterator<Item = (&'a A::Event, Time)>) -> Option<A>
where
    A::Event: 'a,
{
    events.into_iter().fold(None, |state, (event, at)| A::evolve(state, event, at))
}
