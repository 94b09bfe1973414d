//! Events as they come off the topics: the envelope in the headers, the Avro payload, and old versions lifted to the newest.

mod avro;
mod catalog;
mod envelope;
mod node;
mod raw;
mod registry;
mod seen;
mod snapshot;
mod typed;
mod upcast;

pub use avro::{AvroError, Shape};
pub use catalog::{Catalog, CatalogError, EventType};
pub use envelope::{Envelope, EnvelopeError, EventRef};
pub use node::Node;
pub use raw::Raw;
pub use registry::{DecodeError, Decoder};
pub use seen::SeenEvent;
pub use snapshot::TxSnapshot;
pub use typed::{Mismatch, Sample};
pub use upcast::{Upcaster, UpcasterTest};
