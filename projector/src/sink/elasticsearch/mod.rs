//! Elasticsearch and OpenSearch alike: each document a search document under its key.
//!
//! # The layout
//! | index | what |
//! |---|---|
//! | `<read model>-g<n>` | the documents; the mapping is strict, inferred from the programs, and names its generation in `_meta` |
//! | `<read model>-g<n>-write` | an alias through which the sink writes, and only through it: so a lost index isn't made anew, without its mapping, by the next write |
//! | `<read model>` | the alias of the live generation; it shows neither tombstones nor expired documents. Held by anything else, the place isn't prepared |
//! | `projector-progress` | one document a partition, `<generation>/<topic>/<partition>`, holding the progress as text; written through `projector-progress-write` |
//!
//! A document's version is the server's own, of type `external`: the server refuses a write whose version isn't above the one
//! it holds, also that of a tombstone, a document with `_deleted: true` and no fields. Progress has the owner's fence for a version (type
//! `external_gte`), so that the server refuses that of a former owner.
//!
//! Other hidden fields: `_state`, stored and not looked into; `_expires`, by which queries leave a document out from then on (of a tombstone, when it was written);
//! `_parents` with `_key`, by which children are found. An index of an earlier release gets them when it is prepared.
//!
//! Only calls that both servers have alike are used, through the crate's transport without typed helpers, which would send
//! headers that one of them refuses.

mod config;
mod convert;
mod mapping;
mod place;
mod sink;

use crate::expr::Kind;
use serde_json::Value as Json;
use std::collections::BTreeMap;

pub use sink::ElasticsearchSink;

/// A document's mapping.
pub(super) fn mapping(document: &Kind, refined: &BTreeMap<String, Json>, generation: &str) -> Json {
    mapping::mapping(document, refined, generation)
}
