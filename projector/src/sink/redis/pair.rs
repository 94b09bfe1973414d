//! The two databases of a read model: the one that its file names, which readers look at, and its neighbour (0 and 1, 2 and 3, …),
//! where another generation is built or kept. `SWAPDB` exchanges them in one step, under all open connections. So nobody relies
//! on a number: what reads or writes asks for the generation's marker in the same breath, and looks into the other one where it
//! isn't.

use super::super::{SinkError, StoreUrls};
use super::config::{Names, broken, classify, connect};
use crate::projection::RedisStore;
use redis::Value;
use redis::aio::ConnectionManager;
use std::sync::atomic::{AtomicUsize, Ordering};

const SWAP: &str = include_str!("swap.lua");
const REMOVE: &str = include_str!("remove.lua");
const REMOVE_MAX: usize = 1_000;

/// Whose a database is.
pub(super) enum Owner {
    Us,
    /// This generation's; nobody's if empty.
    Other(String),
}

pub(super) struct Pair {
    databases: [u8; 2],
    connections: [ConnectionManager; 2],
    /// Where our generation was seen last.
    at: AtomicUsize,
    marker: String,
    generation: String,
}

/// The other database of a pair.
#[must_use]
pub(crate) fn neighbour(database: u8) -> u8 {
    database ^ 1
}

impl Pair {
    pub(super) fn open(config: &RedisStore, urls: &StoreUrls, names: &Names) -> Result<Self, SinkError> {
        let other = RedisStore { database: neighbour(config.database), ..config.clone() };
        Ok(Self {
            databases: [config.database, other.database],
            connections: [connect(config, urls)?, connect(&other, urls)?],
            at: AtomicUsize::new(0),
            marker: names.marker.clone(),
            generation: names.generation.clone(),
        })
    }

    fn here(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    pub(super) fn connection(&self) -> ConnectionManager {
        self.connections[self.here()].clone()
    }

    pub(super) fn database(&self) -> u8 {
        self.databases[self.here()]
    }

    async fn owner(&self, at: usize) -> Result<Option<String>, SinkError> {
        let mut connection = self.connections[at].clone();
        redis::cmd("GET").arg(&self.marker).query_async(&mut connection).await.map_err(|e| classify(&e))
    }

    async fn is_ours(&self, at: usize) -> Result<bool, SinkError> {
        Ok(self.owner(at).await?.as_ref() == Some(&self.generation))
    }

    /// Goes to the other database if our generation is there, else stays.
    pub(super) async fn look_elsewhere(&self) -> Result<(), SinkError> {
        let other = 1 - self.here();
        // A server may have one database only.
        if matches!(self.is_ours(other).await, Ok(true)) {
            self.at.store(other, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Goes where our generation is, if it is anywhere.
    pub(super) async fn find(&self) -> Result<(), SinkError> {
        if self.is_ours(self.here()).await? { Ok(()) } else { self.look_elsewhere().await }
    }

    /// Takes the database that readers look at, unless our generation is in the other one.
    pub(super) async fn take_first(&self) -> Result<Owner, SinkError> {
        self.at.store(0, Ordering::Relaxed);
        if self.owner(0).await?.as_ref() != Some(&self.generation) {
            self.look_elsewhere().await?;
        }
        if self.here() == 1 { Ok(Owner::Us) } else { self.take(0).await }
    }

    /// Takes the other one, unless our generation is in the first. It must be empty: what a lost generation left there would be
    /// taken for ours.
    pub(super) async fn take_second(&self, names: &Names) -> Result<Owner, SinkError> {
        let first = self.is_ours(0).await?;
        self.at.store(usize::from(!first), Ordering::Relaxed);
        if first {
            return Ok(Owner::Us);
        }
        if self.owner(1).await?.is_none() {
            self.expect_empty(names).await?;
        }
        self.take(1).await
    }

    async fn expect_empty(&self, names: &Names) -> Result<(), SinkError> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(names.pattern()).arg("COUNT").arg(REMOVE_MAX);
            let mut connection = self.connections[1].clone();
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.map_err(|e| classify(&e))?;
            if let Some(key) = keys.first() {
                return Err(broken(format!(
                    "database {} is nobody's, and holds `{key}` and perhaps more; remove what a lost generation left there (FLUSHDB \
                     in that database, if nothing else is in it)",
                    self.databases[1]
                )));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&self, at: usize) -> Result<Owner, SinkError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SETNX").arg(&self.marker).arg(&self.generation).ignore();
        pipeline.cmd("GET").arg(&self.marker);
        let mut connection = self.connections[at].clone();
        let (owner,): (Option<String>,) = pipeline.query_async(&mut connection).await.map_err(|e| classify(&e))?;
        let owner = owner.unwrap_or_default();
        Ok(if owner == self.generation { Owner::Us } else { Owner::Other(owner) })
    }

    /// Makes our generation's database the one that readers look at.
    pub(super) async fn swap(&self) -> Result<Owner, SinkError> {
        let mut command = redis::cmd("EVAL");
        command.arg(SWAP).arg(1).arg(&self.marker).arg(&self.generation).arg(self.databases[0]).arg(self.databases[1]);
        let mut connection = self.connections[0].clone();
        match command.query_async(&mut connection).await.map_err(|e| classify(&e))? {
            Value::Int(_) => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Owner::Us)
            }
            Value::BulkString(owner) => Ok(Owner::Other(String::from_utf8_lossy(&owner).into_owned())),
            other => Err(broken(format!("unexpected answer to a swap: {other:?}"))),
        }
    }

    /// Removes all keys of our generation, its marker last.
    pub(super) async fn remove(&self, names: &Names) -> Result<(), SinkError> {
        self.find().await?;
        if !self.is_ours(self.here()).await? {
            return Ok(());
        }
        for pattern in [names.pattern(), format!("{}*", names.children(""))] {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(REMOVE_MAX);
                let mut connection = self.connection();
                let (next, keys): (u64, Vec<String>) =
                    scan.query_async(&mut connection).await.map_err(|e| classify(&e))?;
                self.unlink(&keys).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        self.unlink(&[names.progress.clone(), self.marker.clone()]).await
    }

    async fn unlink(&self, keys: &[String]) -> Result<(), SinkError> {
        let mut command = redis::cmd("EVAL");
        command.arg(REMOVE).arg(keys.len() + 1).arg(&self.marker).arg(keys).arg(&self.generation);
        command.exec_async(&mut self.connection()).await.map_err(|e| classify(&e))
    }
}
