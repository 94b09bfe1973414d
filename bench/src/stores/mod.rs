//! The read stores: each emptied, fed by its best bulk client with documents that are ready (limit (b)), and read as any
//! reader would, to be compared.

mod clickhouse;
mod postgres;
mod redis;
mod search;

use crate::oracle::{self, Document};
use crate::{data::Data, peer};
use anyhow::{Result, bail};
use projector::sink::StoreUrls;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// A store with the reference projection that feeds it from orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Redis,
    Search,
    Clickhouse,
    Postgres,
}

impl Store {
    /// The reference projection.
    pub(crate) fn projection(self) -> &'static str {
        match self {
            Self::Redis => "order_summary",
            Self::Search => "order_search",
            Self::Clickhouse => "daily_revenue",
            Self::Postgres => "order_details",
        }
    }

    /// The instance's component, whose process it is.
    pub(crate) fn component(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Search => "search",
            Self::Clickhouse => "clickhouse",
            Self::Postgres => "postgres",
        }
    }

    /// The peer that writes to it, if there is one.
    pub(crate) fn peer(self) -> Option<peer::Target> {
        match self {
            Self::Redis => Some(peer::Target::Redis),
            Self::Search => Some(peer::Target::Search),
            Self::Clickhouse | Self::Postgres => None,
        }
    }
}

/// Whose documents are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// What direct readers of the live generation see; of copies of a projection, the one of this number.
    Ours(usize),
    /// What the peer wrote.
    Peers,
}

/// Limit (b) of a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fed {
    /// Documents (rows).
    pub(crate) documents: usize,
    /// From the first request until the last answer.
    pub(crate) seconds: f64,
    /// How.
    pub(crate) client: String,
}

impl Fed {
    fn new(documents: usize, took: Duration, client: &str) -> Self {
        Self { documents, seconds: took.as_secs_f64(), client: client.to_owned() }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.documents as f64 / self.seconds
    }
}

/// The addresses, and what is done there.
pub(crate) struct Stores {
    pub(crate) urls: StoreUrls,
    pub(crate) http: reqwest::Client,
}

impl Stores {
    pub(crate) fn new(urls: StoreUrls) -> Result<Self> {
        Ok(Self { urls, http: reqwest::Client::builder().no_proxy().build()? })
    }

    /// Removes whatever an earlier measurement left.
    pub(crate) async fn clear(&self, store: Store) -> Result<()> {
        match store {
            Store::Redis => redis::clear(self).await,
            Store::Search => search::clear(self).await,
            Store::Clickhouse => clickhouse::clear(self).await,
            Store::Postgres => postgres::clear(self).await,
        }
    }

    /// Makes what the peer needs.
    pub(crate) async fn prepare_peer(&self, target: peer::Target) -> Result<()> {
        match target {
            peer::Target::Redis => Ok(()),
            peer::Target::Search => search::create(self, peer::INDEX).await,
        }
    }

    /// Limit (b): the final documents, made ready beforehand.
    pub(crate) async fn feed(&self, store: Store, data: Data) -> Result<Fed> {
        let documents = data.all().flat_map(|order| oracle::of(store, &order));
        match store {
            Store::Redis => redis::feed(self, documents).await,
            Store::Search => search::feed(self, documents).await,
            Store::Clickhouse => clickhouse::feed(self, documents).await,
            Store::Postgres => postgres::feed(self, documents).await,
        }
    }

    /// Some documents of ours, by their keys.
    pub(crate) async fn some(&self, store: Store, keys: &[String]) -> Result<HashMap<String, Document>> {
        match store {
            Store::Redis => redis::some(self, keys).await,
            Store::Postgres => postgres::some(self, keys).await,
            Store::Search => search::some(self, keys).await,
            Store::Clickhouse => bail!("its rows are read as a whole only: they have no keys"),
        }
    }

    /// All documents, by their keys.
    pub(crate) async fn found(&self, store: Store, whose: Whose) -> Result<HashMap<String, Document>> {
        match store {
            Store::Redis => redis::found(self, whose).await,
            Store::Search => search::found(self, whose).await,
            Store::Clickhouse => clickhouse::found(self).await,
            Store::Postgres => postgres::found(self).await,
        }
    }
}
