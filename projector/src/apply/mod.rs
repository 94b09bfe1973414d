//! The pure core: (document, event) → document, with order, duplicates and progress decided. No I/O, no clock, no tasks.
//!
//! # What is promised
//! For each document the events of its aggregate are folded **in order, each once**, whatever is delivered again, and a
//! partition's [`Progress`] covers an event only when the store has answered for it. Three rules carry it:
//!
//! 1. **The guard decides.** A document's version is the sequence of its last event. An event is folded only if its sequence is
//!    above that, and the write lands only if the store's version is still below the new one. Where the store was faster
//!    (a former owner, an earlier attempt whose outcome was unknown) the document is loaded and folded again.
//! 2. **Progress is a prefix.** It moves over a batch's events in offset order and never over one that waits for another
//!    ([`Lane`]: gaps, dead letters).
//! 3. **A contradiction is loud.** An event that the watermark calls handled, but whose document hasn't reached it, means that
//!    the source's order is broken; it stops the partition instead of being skipped.
//!
//! What programs look up is asked once a batch, before anything is folded ([`Batch::questions`]): the answer goes into the fold, and
//! rule 1 keeps a second answer from doing so.
//!
//! A join's document has a sequence for each of its parts. A rollup's document has a guard for each partition that adds to it.
//! Facts have no guard: their rows have stable ids, so writing one again changes nothing.

use std::collections::HashMap;

mod batch;
mod document;
mod join;
mod lane;
mod progress;
mod rollup;

pub use batch::{Batch, Finished, Part, Question, Search, Stop};
pub use document::{Changed, Event, Outcome, Partition, Poison, Stored, Write};
pub use lane::{Delivery, Lane, LetterNote, Parked, TRIES, TRIES_TO_FIND};
pub use progress::{Occurrence, Progress, Seen, occurrence};

/// Keys are hashed several times an event: by a hasher that is quick with short texts, and seeded anew by each process.
pub(crate) type QuickMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
