//! The Avro schemas of all events, one file an event and version: loading, compatibility, registration.
//!
//! - [`load()`] reads a folder and refuses a file whose name, folder and record don't say the same.
//! - [`check`] holds the minors of a major to the registry's FULL_TRANSITIVE, and names the field that breaks it; it also
//!   sees to it that personal fields say whose they are.
//! - [`register`] brings the files to the registry, and [`ids`] asks it for the ids that writers put before each payload.
//!
//! A new minor is a file `<Event>.v<major>.<minor>.avsc` beside the others, readable both ways with each of them. Anything
//! else is a new major: a new record name, hence a new subject, with an upcaster in `upcasters/<Event>.v<from>.yaml`.

mod compatibility;
mod load;
mod registry;
mod upcasters;

pub use compatibility::{CheckError, Finding, Incompatibility, check, compare};
pub use load::{LoadError, SchemaFile, load};
pub use registry::{Registered, RegistryError, ids, register};
pub use upcasters::missing_upcasters;
