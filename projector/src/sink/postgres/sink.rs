//! The sink.

use super::super::{Outcome, Page, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write};
use super::columns::{Column, HIDDEN, cast, check, columns};
use super::config::{Client, Failure, broken, quoted, table, text, visible};
use super::convert::{Cells, cell, from_row, to_row};
use crate::apply::Progress;
use crate::expr::Kind;
use crate::projection::PostgresStore;
use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Batches at once.
const WRITERS: usize = 4;
/// A statement's rows: enough to be quick, few enough to end soon and to be cheap to halve.
const ROWS_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 << 20;
pub(super) const PROGRESS: &str = "projector_progress";
/// Rows are purged in small pieces with a pause behind each, so that nobody waits for it.
const PURGED_AT_ONCE: usize = 1_000;
const PURGES_MAX: usize = 20;
const PURGE_PAUSE: Duration = Duration::from_millis(250);

/// A generation's place in Postgres.
pub struct PostgresSink {
    pub(super) client: Client,
    pub(super) generation: String,
    schema: String,
    view: String,
    pub(super) table: String,
    pub(super) visible: String,
    pub(super) document: Kind,
    pub(super) columns: Vec<Column>,
    indexes: Vec<Vec<String>>,
    tombstones_keep: Option<TimeDelta>,
}

impl PostgresSink {
    /// Opens it. Connects with the first call; needs a Tokio runtime.
    ///
    /// # Errors
    /// When the address can't be used, or a field is named that no program sets or that can't be a column.
    pub fn open(config: &PostgresStore, place: Place, urls: &StoreUrls) -> Result<Self, SinkError> {
        let columns = columns(&place.document, config);
        if let Some(wrong) = check(config, &place.document).into_iter().next() {
            return Err(broken(wrong));
        }
        Ok(Self {
            client: Client::new(urls)?,
            generation: place.id(),
            schema: config.schema.clone(),
            table: table(&place.read_model, place.generation),
            visible: visible(config, &place.read_model, place.generation),
            document: place.document,
            columns,
            indexes: config.indexes.clone(),
            tombstones_keep: urls.tombstones_keep(),
            view: place.read_model,
        })
    }

    pub(super) fn qualified(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(name))
    }

    fn fenced(&self, name: &str, owner: String) -> SinkError {
        SinkError::Fenced {
            place: format!("table {}", self.qualified(name)),
            owner,
            generation: self.generation.clone(),
        }
    }

    /// What the relation of this name is (`r` a table, `v` a view, …) and says in its comment, if it is there.
    pub(super) async fn relation(&self, name: &str) -> Result<Option<(String, String)>, SinkError> {
        let sql = "SELECT c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
        let rows = self.client.rows(sqlx::query(sql).bind(&self.schema).bind(name)).await?;
        rows.first().map(|row| Ok((cell(row, 0)?, cell(row, 1)?))).transpose()
    }

    /// Makes the table, with its marker, or nothing at all.
    async fn create(&self) -> Result<(), SinkError> {
        let table = self.qualified(&self.table);
        let mut sql = format!(
            "CREATE TABLE {table} ({}, PRIMARY KEY (_key));
             COMMENT ON TABLE {table} IS {};
             CREATE INDEX ON {table} USING gin (_parents) WHERE _parents IS NOT NULL;",
            self.definitions(),
            text(&self.generation)
        );
        for fields in &self.indexes {
            let fields: Vec<_> = fields.iter().map(|field| quoted(field)).collect();
            sql.push_str(&format!("CREATE INDEX ON {table} ({});", fields.join(", ")));
        }
        Ok(self.client.define(&sql).await?)
    }

    /// That the table has all columns of this generation.
    async fn check_columns(&self) -> Result<(), SinkError> {
        let sql =
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2";
        let rows = self.client.rows(sqlx::query(sql).bind(&self.schema).bind(&self.table)).await?;
        let there: HashSet<String> = rows.iter().map(|row| cell(row, 0)).collect::<Result<_, _>>()?;
        let hidden = HIDDEN.iter().map(|(name, _)| *name);
        let missing = hidden.chain(self.columns.iter().map(|c| c.name.as_str())).find(|name| !there.contains(*name));
        match missing {
            Some(missing) => Err(broken(format!(
                "table {} has no column `{missing}`: the projection was changed within its generation; drop the table and \
                 start again to fill it anew",
                self.qualified(&self.table)
            ))),
            None => Ok(()),
        }
    }

    /// All columns with their types.
    fn definitions(&self) -> String {
        let hidden = HIDDEN.iter().map(|(name, kind)| format!("{} {kind}", quoted(name)));
        hidden.chain(self.columns.iter().map(Column::definition)).collect::<Vec<_>>().join(", ")
    }

    /// The fields' columns.
    fn select(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        names.join(", ")
    }

    /// The statement that writes rows where their version rises; it gives the keys of those that landed.
    fn upsert(&self, again: bool) -> String {
        let hidden = HIDDEN.iter().map(|(name, kind)| (quoted(name), cast(kind)));
        let columns: Vec<_> = hidden.chain(self.columns.iter().map(|c| (quoted(&c.name), cast(&c.sql_type)))).collect();
        let list = |each: &dyn Fn(usize, &str, &str) -> String| {
            let all = columns.iter().enumerate().map(|(n, (name, kind))| each(n + 1, name, kind));
            all.collect::<Vec<_>>().join(", ")
        };
        let set = columns.iter().skip(1).map(|(name, _)| format!("{name} = excluded.{name}"));
        // In the order of keys, so that of two writers neither waits for the other in a circle.
        format!(
            "INSERT INTO {} AS t ({}) SELECT {} FROM unnest({}) AS r({}) ORDER BY c1 COLLATE \"C\"
             ON CONFLICT (_key) DO UPDATE SET {} WHERE t._version {} excluded._version RETURNING t._key",
            self.qualified(&self.table),
            list(&|_, name, _| name.to_owned()),
            list(&|n, _, kind| format!("c{n}::{kind}")),
            list(&|n, _, _| format!("${n}::text[]")),
            list(&|n, _, _| format!("c{n}")),
            set.collect::<Vec<_>>().join(", "),
            if again { "<=" } else { "<" },
        )
    }

    /// The statement that saves progress where no later owner has; its parameters begin at this number.
    fn save(&self, from: usize, condition: &str) -> String {
        let [generation, topic, partition, progress, fence] = [0, 1, 2, 3, 4].map(|n| from + n);
        format!(
            "INSERT INTO {} AS p (generation, topic, partition, progress, fence) SELECT ${generation}, topic, partition, progress, fence
             FROM unnest(${topic}::text[], ${partition}::integer[], ${progress}::text[], ${fence}::bigint[])
             AS r(topic, partition, progress, fence) {condition} ORDER BY topic, partition
             ON CONFLICT (generation, topic, partition) DO UPDATE
             SET progress = excluded.progress, fence = excluded.fence, saved = excluded.saved WHERE p.fence <= excluded.fence",
            self.qualified(PROGRESS)
        )
    }

    fn bind_progress<'q>(
        &'q self,
        query: Statement<'q>,
        progress: &'q [(Partition, Progress)],
    ) -> Result<Statement<'q>, SinkError> {
        let text = |progress| serde_json::to_string(progress).map_err(|e| broken(e.to_string()));
        let texts: Vec<_> = progress.iter().map(|(_, progress)| text(progress)).collect::<Result<_, _>>()?;
        Ok(query
            .bind(&self.generation)
            .bind(progress.iter().map(|(partition, _)| &*partition.topic).collect::<Vec<_>>())
            .bind(progress.iter().map(|(partition, _)| partition.number).collect::<Vec<_>>())
            .bind(texts)
            .bind(progress.iter().map(|(_, progress)| progress.fence).collect::<Vec<_>>()))
    }

    /// [`PostgresSink::upsert`] that also saves progress, if all rows land: one statement, so that it is one transaction in one round trip.
    fn upsert_and_save(&self, again: bool) -> String {
        let parameters = HIDDEN.len() + self.columns.len();
        let condition = format!("WHERE (SELECT count(*) FROM written) = ${}", parameters + 6);
        format!(
            "WITH written AS ({}), saved AS ({}) SELECT _key FROM written",
            self.upsert(again),
            self.save(parameters + 1, &condition)
        )
    }

    /// Sends one statement, column by column, and progress, if there is any; gives the keys that it wrote.
    async fn send(
        &self,
        sql: &str,
        rows: &[Pending<'_>],
        progress: &[(Partition, Progress)],
    ) -> Result<HashSet<String>, Failure> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for column in 0..HIDDEN.len() + self.columns.len() {
            let cells = rows.iter().map(|row| row.cells.get(column).and_then(Option::as_deref));
            query = query.bind(cells.collect::<Vec<_>>());
        }
        if !progress.is_empty() {
            let all = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            query = self.bind_progress(query, progress).map_err(Failure::Error)?.bind(all);
        }
        let written = self.client.rows(query).await?;
        written.iter().map(|row| cell(row, 0)).collect::<Result<_, _>>().map_err(Failure::Error)
    }

    /// Writes rows; when the server refuses them, halves them until the one that it refuses stands alone. Progress is saved with them
    /// if all land at once.
    async fn write_some(
        &self,
        rows: &[Pending<'_>],
        progress: &[(Partition, Progress)],
        outcomes: &mut [Outcome],
    ) -> Result<bool, SinkError> {
        // Documents are made anew one at a time.
        let again = rows.iter().all(|row| row.again);
        let all = if progress.is_empty() { self.upsert(again) } else { self.upsert_and_save(again) };
        let (mut sent, mut saved) = (vec![(rows, all, progress)], false);
        while let Some((rows, sql, progress)) = sent.pop() {
            match (self.send(&sql, rows, progress).await, rows) {
                (Ok(written), rows) => {
                    saved |= !progress.is_empty() && written.len() == rows.len();
                    for row in rows {
                        let landed = written.contains(row.key);
                        outcomes[row.at] = if landed { Outcome::Written } else { Outcome::Stale };
                    }
                }
                (Err(Failure::Refused(reason)), [row]) => outcomes[row.at] = Outcome::Rejected(reason),
                (Err(Failure::Refused(_)), rows) => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    sent.extend([second, first].map(|half| (half, self.upsert(again), [].as_slice())));
                }
                (Err(failure), _) => return Err(failure.into()),
            }
        }
        Ok(saved)
    }
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A row on its way, and its place in the batch.
struct Pending<'a> {
    at: usize,
    key: &'a str,
    again: bool,
    cells: Cells,
}

#[async_trait]
impl Sink for PostgresSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        let (schema, progress) = (quoted(&self.schema), self.qualified(PROGRESS));
        let sql = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE IF NOT EXISTS {progress} (generation text, topic text, partition integer, progress text NOT NULL,
             fence bigint NOT NULL, saved timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (generation, topic, partition))"
        );
        self.client.define(&sql).await?;
        if self.relation(&self.table).await?.is_none()
            && let Err(error) = self.create().await
            && self.relation(&self.table).await?.is_none()
        {
            return Err(error);
        }
        let (kind, owner) = self.relation(&self.table).await?.unwrap_or_default();
        if kind != "r" || owner != self.generation {
            let owner = if owner.is_empty() { "somebody else".to_owned() } else { owner };
            return Err(self.fenced(&self.table, owner));
        }
        self.check_columns().await?;
        let sql = format!(
            "CREATE INDEX IF NOT EXISTS {} ON {} (_expires) WHERE _expires IS NOT NULL;
             CREATE OR REPLACE VIEW {} AS SELECT {} FROM {} WHERE NOT _deleted AND (_expires IS NULL OR _expires > now())",
            quoted(&format!("{}_expires", self.table)),
            self.qualified(&self.table),
            self.visible,
            self.select(),
            self.qualified(&self.table)
        );
        Ok(self.client.define(&sql).await?)
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        let view = self.qualified(&self.view);
        let there = self.relation(&self.view).await?;
        if let Some((kind, _)) = there.as_ref().filter(|(kind, _)| kind != "v") {
            return Err(self.fenced(&self.view, format!("somebody else (a relation of kind `{kind}`)")));
        }
        // A view can't be replaced by one of other columns; what stands on it, and who may read it, would be lost with it.
        let drop = if there.is_some() { format!("DROP VIEW {view};") } else { String::new() };
        let create = format!("VIEW {view} AS SELECT {} FROM {}", self.select(), self.visible);
        match self.client.define(&format!("CREATE OR REPLACE {create}")).await {
            Err(Failure::Error(SinkError::Broken { .. })) if there.is_some() => {
                Ok(self.client.define(&format!("{drop} CREATE {create}")).await?)
            }
            done => Ok(done?),
        }
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        // A zero byte is in no text of this server.
        let asked: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.contains('\0')).collect();
        let fields: Vec<_> = self.columns.iter().map(Column::read).collect();
        let sql = format!(
            "SELECT t._key, t._version, t._deleted, t._state, row_to_json(r)::text
             FROM {} AS t CROSS JOIN LATERAL (SELECT {}) AS r WHERE t._key = ANY($1)",
            self.qualified(&self.table),
            fields.join(", ")
        );
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(sql)).bind(asked)).await?;
        let found: HashMap<String, Stored> =
            rows.iter().map(|row| from_row(row, &self.document)).collect::<Result<_, _>>()?;
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        Ok(self.write_with_progress(batch, &[]).await?.0)
    }

    fn has_transactions(&self) -> bool {
        true
    }

    async fn write_with_progress(
        &self,
        batch: &[Write],
        progress: &[(Partition, Progress)],
    ) -> Result<(Vec<Outcome>, bool), SinkError> {
        let mut outcomes = vec![Outcome::Stale; batch.len()];
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (at, write) in batch.iter().enumerate() {
            let cells = match to_row(write, &self.columns) {
                Ok(cells) => cells,
                Err(reason) => {
                    outcomes[at] = Outcome::Rejected(reason);
                    continue;
                }
            };
            let length: usize = cells.iter().flatten().map(String::len).sum();
            if rows.len() == ROWS_MAX || (bytes > 0 && bytes + length > BYTES_MAX) {
                self.write_some(&rows, &[], &mut outcomes).await?;
                rows.clear();
                bytes = 0;
            }
            bytes += length;
            rows.push(Pending { at, key: &write.key, again: write.again, cells });
        }
        if rows.is_empty() {
            return Ok((outcomes, false));
        }
        // Progress goes with the last rows: those before them have their answers.
        let written = outcomes.iter().filter(|outcome| **outcome == Outcome::Written).count();
        let progress = if written + rows.len() == batch.len() { progress } else { &[] };
        let saved = self.write_some(&rows, progress, &mut outcomes).await?;
        Ok((outcomes, saved))
    }

    fn writers(&self) -> usize {
        WRITERS
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        let sql = format!("SELECT topic, partition, progress FROM {} WHERE generation = $1", self.qualified(PROGRESS));
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(sql)).bind(&self.generation)).await?;
        let mut found = HashMap::new();
        for row in &rows {
            let (topic, number, text): (String, i32, String) = (cell(row, 0)?, cell(row, 1)?, cell(row, 2)?);
            let partition = Partition { topic: topic.into(), number };
            let progress: Progress =
                serde_json::from_str(&text).map_err(|e| broken(format!("{partition:?} isn't progress: {e}")))?;
            found.insert(partition, progress);
        }
        Ok(partitions.iter().map(|partition| found.get(partition).cloned()).collect())
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        if progress.is_empty() {
            return Ok(());
        }
        let sql = self.save(1, "");
        let query = self.bind_progress(sqlx::query(AssertSqlSafe(sql)), progress)?;
        Ok(self.client.rows(query).await.map(drop)?)
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        if parent.contains('\0') {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT _key FROM {} WHERE _parents @> ARRAY[$1::text] AND ($2::text IS NULL OR _key > $2::text)
             ORDER BY _key LIMIT $3",
            self.qualified(&self.table)
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(sql)).bind(parent).bind(after).bind(limit)).await?;
        rows.iter().map(|row| cell(row, 0)).collect()
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        self.page(cursor, limit).await
    }

    async fn remove(&self, _: &[Partition]) -> Result<(), SinkError> {
        self.remove_place().await
    }

    async fn upkeep(&self) -> Result<(), SinkError> {
        let Some(gone) = self.tombstones_keep.and_then(|keep| Utc::now().checked_sub_signed(keep)) else {
            return Ok(());
        };
        // A row that is being written to is skipped, and looked at again once it is locked.
        let table = self.qualified(&self.table);
        let sql = format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE _expires < $1
             ORDER BY _expires LIMIT {PURGED_AT_ONCE} FOR UPDATE SKIP LOCKED)) RETURNING 1"
        );
        for _ in 0..PURGES_MAX {
            let purged = self.client.rows(sqlx::query(AssertSqlSafe(sql.clone())).bind(gone)).await?;
            if purged.len() < PURGED_AT_ONCE {
                break;
            }
            tokio::time::sleep(PURGE_PAUSE).await;
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64, SinkError> {
        let sql = format!("SELECT count(*) FROM {}", self.visible);
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(sql))).await?;
        let count: i64 = cell(rows.first().ok_or_else(|| broken("no count in the answer".to_owned()))?, 0)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}
