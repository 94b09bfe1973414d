//! Redis: each document a hash that people can read with `HGETALL`.
//!
//! # The layout
//! | key | type | what |
//! |---|---|---|
//! | `<prefix><key>` | hash | a document: its fields as text (nested values as JSON; null = no such field), and hidden ones |
//! | `projector:generation:<read model>` | string | the generation that owns the prefix in this database: `loans-g1` |
//! | `projector:progress:<generation>` | hash | field `<topic>/<partition>`, value the progress as JSON |
//! | `projector:children:<generation>:<parent>` | sorted set, all scores 0 | the keys of the documents that name this parent |
//!
//! Hidden fields of a document: `_seq`, its version; `_deleted` = 1 on a tombstone, which has no fields of its own; `_types`,
//! only where a field's text alone doesn't tell its type (see [`convert`]); `_state`, only where there is some. Expiry is the
//! key's own, and so is the end of a tombstone.
//!
//! # Writing
//! `write.lua` checks owner and version and replaces the hash, atomically; a batch is one pipeline of it, which loads the script
//! first, so that a lost script cache is no special case. The script names two keys, document and owner, so it needs a Redis
//! without cluster mode (as logical databases do). Children are noted before the document is written, in a call of their own: so
//! a parent may name a child that was never written or no longer names it, but misses none.
//!
//! # Two databases
//! A read model has the database that its file names, which readers look at, and its neighbour ([`pair`]): a generation that isn't
//! live is there, and `SWAPDB` makes it live. Each script and each load checks the marker.
//!
//! `progress.lua` saves progress unless a later owner did.

mod config;
pub(crate) mod convert;
mod pair;
mod sink;

pub(crate) use config::client;
pub(crate) use pair::neighbour;
pub use sink::RedisSink;
