//! Redis: each document a hash that people can read with `HGETALL`.
//!
//! # The layout
//! | key | type | what |
//! |---|---|---|
//! | `<prefix><key>` | hash | a document: its fields as text (nested values as JSON; null = no such field), and hidden ones |
//! | `projector:generation:<read model>` | string | the generation that owns the prefix: `loans-g1` |
//! | `projector:progress:<generation>` | hash | field `<topic>/<partition>`, value the progress as JSON |
//!
//! Hidden fields of a document: `_seq`, its version; `_deleted` = 1 on a tombstone, which has no other fields; `_types`, only
//! where a field's text alone doesn't tell its type (see [`convert`]).
//!
//! # Writing
//! `write.lua` checks owner and version and replaces the hash, atomically; a batch is one pipeline of it, which loads the script
//! first, so that a lost script cache is no special case. The script names two keys, document and owner, so it needs a Redis
//! without cluster mode (as logical databases do).

mod config;
pub(crate) mod convert;
mod sink;

pub use sink::RedisSink;
