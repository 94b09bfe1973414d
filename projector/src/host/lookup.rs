//! Answers to what programs look up: the live documents of another read model, or the rows of a table, by key. A batch asks for
//! all its keys in one round trip, and what was found is taken again for a while.
//!
//! Which generation of the other read model is live is looked at once a second. The one that was, is fed on for its rollback
//! window, so a swap goes unnoticed.

use super::open;
use crate::apply::Question;
use crate::control::Control;
use crate::event::Catalog;
use crate::expr::Object;
use crate::projection::{Compiled, LookedUp, LookupFrom};
use crate::sink::postgres::PostgresTable;
use crate::sink::{Sink, SinkError, StoreUrls, Stored};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Answers that one lookup keeps at most.
const ANSWERS_MAX: usize = 10_000;
/// Keys that a store is asked for at once, by its contract.
const KEYS_MAX: usize = 10_000;
/// How often the live generation is looked at.
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// All lookups of one projection.
pub struct Lookups {
    compiled: Arc<Compiled>,
    control: Control,
    catalog: Arc<Catalog>,
    urls: StoreUrls,
    kept: Vec<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    target: Option<Target>,
    /// With when it was found.
    answers: HashMap<String, (Instant, Object)>,
}

enum Target {
    Live { generation_id: i64, sink: Arc<dyn Sink>, looked_at: Instant },
    Table(PostgresTable),
}

impl Lookups {
    /// Connects with the first question.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, control: Control, catalog: Arc<Catalog>, urls: StoreUrls) -> Self {
        let kept = compiled.lookups.iter().map(|_| Mutex::default()).collect();
        Self { compiled, control, catalog, urls, kept }
    }

    /// What each key has.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`], until it can be answered.
    pub async fn ask(&self, question: &Question) -> Result<Vec<Option<Object>>, SinkError> {
        let (Some(lookup), Some(kept)) = (self.compiled.lookups.get(question.lookup), self.kept.get(question.lookup))
        else {
            return Ok(vec![None; question.keys.len()]);
        };
        let mut kept = kept.lock().await;
        let now = Instant::now();
        let fresh = |(at, _): &(Instant, Object)| now.duration_since(*at) < lookup.cache;
        let missing: Vec<String> =
            question.keys.iter().filter(|key| !kept.answers.get(*key).is_some_and(fresh)).cloned().collect();
        let mut found: HashMap<String, Object> = HashMap::new();
        if !missing.is_empty() {
            self.find(lookup, &mut kept).await?;
        }
        for keys in missing.chunks(KEYS_MAX) {
            let there = match &kept.target {
                Some(Target::Live { sink, .. }) => {
                    let fields = |stored: Option<Stored>| stored?.fields.map(Arc::unwrap_or_clone);
                    sink.load(keys).await.map(|found| found.into_iter().map(fields).collect())
                }
                Some(Target::Table(table)) => table.rows(keys, &lookup.kind()).await,
                None => Ok(Vec::new()),
            };
            let there = there.map_err(|error| away(lookup, &error))?;
            found.extend(keys.iter().cloned().zip(there).filter_map(|(key, there)| Some((key, there?))));
        }
        let answers = question.keys.iter().map(|key| {
            let known = || kept.answers.get(key).filter(|known| fresh(known)).map(|(_, fields)| fields.clone());
            found.get(key).cloned().or_else(known)
        });
        let answers = answers.collect();
        if kept.answers.len() + found.len() > ANSWERS_MAX {
            kept.answers.clear();
        }
        kept.answers.extend(found.into_iter().take(ANSWERS_MAX).map(|(key, fields)| (key, (now, fields))));
        Ok(answers)
    }

    /// Finds out whom to ask.
    async fn find(&self, lookup: &LookedUp, kept: &mut Kept) -> Result<(), SinkError> {
        let name = match (&lookup.from, &kept.target) {
            (LookupFrom::Table { .. }, Some(_)) => return Ok(()),
            (LookupFrom::Table { schema, table, column }, None) => {
                kept.target = Some(Target::Table(
                    PostgresTable::open(schema, table, column, &self.urls).map_err(|error| away(lookup, &error))?,
                ));
                return Ok(());
            }
            (_, Some(Target::Live { looked_at, .. })) if looked_at.elapsed() < LIVE_EVERY => return Ok(()),
            (LookupFrom::ReadModel(name), _) => name,
        };
        let live = self.control.live().await.map_err(|error| away(lookup, &error))?;
        let generation = live.into_iter().find(|generation| generation.read_model == *name).ok_or_else(|| {
            away(lookup, &format!("no generation of the read model `{name}` is live; `projector apply` it"))
        })?;
        match &mut kept.target {
            Some(Target::Live { generation_id, looked_at, .. }) if *generation_id == generation.generation_id => {
                *looked_at = Instant::now();
            }
            target => {
                let (other, sink) =
                    open(&generation, &self.catalog, &self.urls).map_err(|error| away(lookup, &error))?;
                if let Some(wrong) = lookup.against(other.kind, &other.document).first() {
                    return Err(away(lookup, wrong));
                }
                tracing::info!(lookup = &*lookup.name, generation = generation.id(), "looked up in");
                let looked_at = Instant::now();
                *target = Some(Target::Live { generation_id: generation.generation_id, sink, looked_at });
            }
        }
        Ok(())
    }
}

/// What keeps a lookup from being answered is waited for, whatever it is: a table that isn't there, a read model that was given up.
/// It is nobody else's reason to stop.
fn away(lookup: &LookedUp, error: &dyn std::fmt::Display) -> SinkError {
    SinkError::Unavailable { store: "lookup", reason: format!("`{}`: {error}", lookup.name) }
}
