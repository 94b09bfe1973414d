//! Where read models live. One folder a store, the same file names in each; this file is the contract that all keep.
//!
//! # The contract
//! A [`Sink`] is one generation's place in one store: an index, a table, a key space. Loads and writes of one document come one
//! at a time, and at most [`Sink::writers`] batches beside each other; refreshes, saves and counts may run beside them:
//!
//! 1. [`Sink::prepare`] once, before anything else: creates the place, or finds that it is there and belongs to this generation.
//! 2. [`Sink::load_progress`] when partitions are assigned, to learn where to go on.
//! 3. For each batch: [`Sink::load`] of the documents to fold (never for facts), then [`Sink::write`], then
//!    [`Sink::save_progress`]. Progress is thus never ahead of the documents. Nor is it behind them where the store has transactions:
//!    [`Sink::write_with_progress`] saves it in the one that writes the batch (its last part, if it is written in several).
//!
//! **Every write is conditional.** A document's write carries the version that the fold reached; the store refuses it when it
//! holds that version or a newer one ([`Outcome::Stale`]). A batch that is sent again after an unknown outcome (time-out,
//! connection lost) therefore changes nothing twice. Facts carry a stable id instead, under which the store keeps one row.
//!
//! **Changes**: where a write says what is new since which version ([`Write::changed`]), a store may write just that, and then only onto
//! that very version: a newer one is [`Outcome::Stale`] too, and whoever folded loads the document anew, and folds again. An older one, or
//! none, is of a store that forgot what it had acknowledged: the document lands whole.
//!
//! **Items answer one by one.** A document that the store refuses for its content is [`Outcome::Rejected`]; the others of the
//! batch land. An error of the whole call ([`SinkError`]) says nothing about which items landed: the caller calls again.
//!
//! **State** is text that the core keeps beside a document's fields ([`Stored::state`]); a tombstone may have one too. Readers
//! never see it, and a load gives it back as it was written.
//!
//! **Expiry**: from [`Write::expires`] on readers no longer find the document, and the store may drop it.
//!
//! **Parents**: a document is found again under each name in [`Write::parents`] ([`Sink::children`]).
//!
//! **Progress of a former owner** (a smaller [`Progress::fence`] than the one saved) never replaces that of the present one.
//!
//! **Swaps**: of a read model's places one is read directly; [`Sink::go_live`] moves that from one to another in one step of the
//! store. Whoever writes to either meanwhile still writes to its own.
//!
//! **Deletes** are tombstones that keep the version, so that a late writer can't revive the document.
//!
//! **Purging**: [`Sink::upkeep`] removes what readers haven't seen for [`StoreUrls::tombstones_keep`]: tombstones and expired documents. Until
//! then they tell an event that is read again, from Kafka, from one that isn't handled yet. Afterwards such an event stops its
//! partition (its document lacks it), so they are kept for longer than Kafka keeps events. A tombstone counts from
//! [`Write::expires`], or from when it was written; one that has state is never purged.
//!
//! **Upkeep** changes nothing that readers see.
//!
//! **Names** that begin with `_` belong to the projector: each store hides its version, tombstone mark or row id behind one, and
//! rejects a document that has such a field itself.
//!
//! **A place bears its generation's name.** A place that was made by something else is [`SinkError::Fenced`], never written to.

pub(crate) mod access;
pub mod behind;
pub mod clickhouse;
pub mod elasticsearch;
mod layout;
pub mod memory;
pub mod postgres;
pub mod redis;
mod shape;

use crate::apply::Progress;
use crate::expr::{Kind, Object};
use crate::projection::Store;
use async_trait::async_trait;
use chrono::TimeDelta;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::apply::{Outcome, Partition, Stored, Write};
pub use layout::{layout, types};

/// Why a whole call failed. Unknown outcome throughout: part of the batch may have landed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The store is down, slow, full, read-only or overloaded. Try again after a pause; never an event's fault.
    #[error("{store} is not available: {reason}")]
    Unavailable {
        /// The store's kind.
        store: &'static str,
        /// What it said.
        reason: String,
    },
    /// The place is not this generation's, or another owner took over. Stop; don't try again.
    #[error("{place} belongs to {owner}, not to {generation}")]
    Fenced {
        /// The place that was found taken.
        place: String,
        /// Who holds it.
        owner: String,
        /// Who asked.
        generation: String,
    },
    /// The store answered something that a correct set-up never answers (a missing table, a wrong mapping).
    #[error("{store}: {reason}")]
    Broken {
        /// The store's kind.
        store: &'static str,
        /// What was wrong and what to do.
        reason: String,
    },
}

/// What a sink must know of the generation whose place it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The read model's name, which names the place (`name-g1`, `name_g1`).
    pub read_model: String,
    /// The generation's number, from 1.
    pub generation: u32,
    /// The inferred type of a document (of a row, for facts).
    pub document: Kind,
}

impl Place {
    /// The generation's name: `loans-g1`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-g{}", self.read_model, self.generation)
    }
}

/// The reason for rejecting a document whose field has a name of ours, if it has one.
pub(crate) fn reserved_name(fields: &Object) -> Option<String> {
    let name = fields.keys().find(|name| name.starts_with('_'))?;
    Some(format!("field `{name}`: names that begin with `_` are the projector's own"))
}

/// Addresses of the stores, from the environment, and how each side proves who it is.
#[derive(Clone, clap::Args)]
pub struct StoreUrls {
    /// Redis, `redis(s)://[user:password@]host:port`, without a database: the projection names that
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,
    /// Elasticsearch or OpenSearch, `http(s)://[user:password@]host:port`
    #[arg(long, env = "ELASTICSEARCH_URL", default_value = "http://127.0.0.1:9200", hide_env_values = true)]
    pub elasticsearch_url: String,
    /// ClickHouse's HTTP interface, `http(s)://[user:password@]host:port`
    #[arg(long, env = "CLICKHOUSE_URL", default_value = "http://127.0.0.1:8123", hide_env_values = true)]
    pub clickhouse_url: String,
    /// The ClickHouse database that holds the read models (not `default`)
    #[arg(long, env = "CLICKHOUSE_DATABASE", default_value = "read_models")]
    pub clickhouse_database: String,
    /// The Postgres database that holds the read models: one of its own, not that of the control store
    #[arg(
        long,
        env = "READ_DATABASE_URL",
        default_value = "postgres://app@127.0.0.1:5432/read_models",
        hide_env_values = true
    )]
    pub postgres_read_url: String,
    /// The certificate authorities that signed the stores' certificates, a PEM file for all stores; without it the public ones
    #[arg(long = "stores-ca-file", env = "STORES_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Days for which a deleted or expired document's place is kept, to tell its old events when they are read again: more than
    /// Kafka keeps events. 0 keeps it for ever
    #[arg(long, env = "TOMBSTONES_KEEP_DAYS", default_value_t = TOMBSTONES_KEEP_DAYS)]
    pub tombstones_keep_days: u16,
}

/// More than the longest retention of events that is usual.
const TOMBSTONES_KEEP_DAYS: u16 = 31;

impl StoreUrls {
    /// For how long tombstones are kept; none for ever.
    #[must_use]
    pub fn tombstones_keep(&self) -> Option<TimeDelta> {
        (self.tombstones_keep_days > 0).then(|| TimeDelta::days(self.tombstones_keep_days.into()))
    }
}

impl Default for StoreUrls {
    /// As the command line's: every store on this machine.
    fn default() -> Self {
        Self {
            redis_url: "redis://127.0.0.1:6379".to_owned(),
            elasticsearch_url: "http://127.0.0.1:9200".to_owned(),
            clickhouse_url: "http://127.0.0.1:8123".to_owned(),
            clickhouse_database: "read_models".to_owned(),
            postgres_read_url: "postgres://app@127.0.0.1:5432/read_models".to_owned(),
            ca_file: None,
            tombstones_keep_days: TOMBSTONES_KEEP_DAYS,
        }
    }
}

impl fmt::Debug for StoreUrls {
    /// The addresses may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreUrls").field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

/// Some documents of a place.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The documents with their keys.
    pub documents: Vec<(String, Stored)>,
    /// Where to go on; none at the end.
    pub next: Option<String>,
}

/// One generation's place in one store. See the module for the contract.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Creates the place (index with mapping, table, marker of the key space) if it isn't there. Idempotent.
    async fn prepare(&self) -> Result<(), SinkError>;

    /// [`Sink::prepare`] for a generation that isn't the live one: where only one place is read directly, another one is taken.
    async fn prepare_aside(&self) -> Result<(), SinkError> {
        self.prepare().await
    }

    /// Tells the store that a flood of writes begins that nobody reads yet, or that it is over: until then it needs neither
    /// refreshes nor copies. Idempotent.
    async fn replaying(&self, on: bool) -> Result<(), SinkError> {
        let _ = on;
        Ok(())
    }

    /// Makes this place the one that direct readers see (alias, view, key). Idempotent; they see the former one until then, and
    /// never none.
    async fn go_live(&self) -> Result<(), SinkError>;

    /// The documents of `keys`, in that order, `None` where there is none. At most 10,000 keys.
    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError>;

    /// Writes a batch whose keys are distinct; one outcome a write, in order.
    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError>;

    /// [`Sink::write`], and with it [`Sink::save_progress`], if every write of the batch is [`Outcome::Written`] and the store can do
    /// both at once; says whether it was saved so.
    async fn write_with_progress(
        &self,
        batch: &[Write],
        progress: &[(Partition, Progress)],
    ) -> Result<(Vec<Outcome>, bool), SinkError> {
        let _ = progress;
        Ok((self.write(batch).await?, false))
    }

    /// Whether it can do both at once: in one transaction.
    fn has_transactions(&self) -> bool {
        false
    }

    /// Makes all that was written before this call visible to searches. Nothing to do where writes are visible at once.
    async fn refresh(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether readers see a write only after [`Sink::refresh`].
    fn needs_refresh(&self) -> bool {
        false
    }

    /// The least time from the begin of one batch to the begin of the next. Where a write costs the store the same for one
    /// document as for fifty, a flood is better met with fewer and larger batches; an event that comes alone never waits, nor
    /// does a batch for which there is no more room.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }

    /// How many batches, without a document in common, it may be given at once. More than one where a store would otherwise be idle
    /// while the next batch is made.
    fn writers(&self) -> usize {
        1
    }

    /// Whether it says [`Outcome::Written`] of what it writes later; see [`behind::Behind`].
    fn puts_off(&self) -> bool {
        false
    }

    /// The progress saved for these partitions, in that order.
    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError>;

    /// Saves progress, after the batches that it covers.
    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError>;

    /// The keys above `after` (all, if none), in order, at most `limit`, of the documents that name `parent` among their
    /// [`Write::parents`]. All whose write was answered before this call; perhaps also some that no longer name it.
    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        let _ = (parent, after, limit);
        Err(SinkError::Broken { store: "store", reason: "keeps no parents".to_owned() })
    }

    /// Some of the documents (rows) that readers see, with a cursor for more: each once, in no order that means anything, as long
    /// as nobody writes. Sees what was written before the last [`Sink::refresh`].
    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let _ = (cursor, limit);
        Err(SinkError::Broken { store: "store", reason: "can't be browsed".to_owned() })
    }

    /// [`Sink::load`], also for rows.
    async fn fetch(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        self.load(keys).await
    }

    /// Removes the place with all that is in it, and the progress of these partitions. Idempotent; nothing of another
    /// generation's is touched.
    async fn remove(&self, partitions: &[Partition]) -> Result<(), SinkError> {
        let _ = partitions;
        Err(SinkError::Broken { store: "store", reason: "can't be removed".to_owned() })
    }

    /// What the place needs now and then, beside all other calls: what is no longer needed is removed, what is added up
    /// beforehand is added up. A bounded piece of work at a time; any host may do it, several at once too.
    async fn upkeep(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// How many documents (rows) readers see now.
    async fn count(&self) -> Result<u64, SinkError>;
}

/// What is wrong with the names in a projection's `store`, seen without a server.
#[must_use]
pub fn check(store: &Store, document: &Kind) -> Vec<String> {
    match store {
        Store::Redis(_) | Store::Elasticsearch(_) => Vec::new(),
        Store::Clickhouse(config) => clickhouse::check(config, document),
        Store::Postgres(config) => postgres::check(config, document),
    }
}

/// Opens the sink that a projection's `store` asks for. The one registry of stores.
///
/// # Errors
/// When the address can't be used; the store itself need not be up yet.
pub fn open(store: &Store, place: Place, urls: &StoreUrls) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(match store {
        Store::Redis(config) => Arc::new(redis::RedisSink::open(config, place, urls)?),
        Store::Elasticsearch(config) => Arc::new(elasticsearch::ElasticsearchSink::open(config, place, urls)?),
        Store::Clickhouse(config) => Arc::new(clickhouse::ClickhouseSink::open(config, place, urls)?),
        Store::Postgres(config) => Arc::new(postgres::PostgresSink::open(config, place, urls)?),
    })
}
