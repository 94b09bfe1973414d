//! The replication slot, which holds back WAL in Postgres for as long as it exists.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

/// A slot as Postgres sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Whether a connector streams from it now.
    pub active: bool,
    /// WAL that Postgres keeps for it, in bytes.
    pub held_bytes: i64,
}

/// Connects to the database of the outbox.
///
/// # Errors
/// Postgres is unreachable or refuses the login.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(url).await
}

/// The slot's state, `None` if it does not exist.
///
/// # Errors
/// The query fails.
pub async fn state(database: &mut PgConnection, name: &str) -> Result<Option<Slot>, sqlx::Error> {
    let row = sqlx::query(
        "select active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as held
         from pg_replication_slots where slot_name = $1",
    )
    .bind(name)
    .fetch_optional(database)
    .await?;
    row.map(|row| Ok(Slot { active: row.try_get("active")?, held_bytes: row.try_get("held")? })).transpose()
}

/// Whether a publication has a table, given as `schema.table`. Without it the connector would run and send nothing.
///
/// # Errors
/// The query fails.
pub async fn published(database: &mut PgConnection, publication: &str, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query("select from pg_publication_tables where pubname = $1 and schemaname || '.' || tablename = $2")
        .bind(publication)
        .bind(table)
        .fetch_optional(database)
        .await
        .map(|row| row.is_some())
}

/// Creates the slot at the end of the WAL: rows written before are not streamed.
///
/// # Errors
/// It exists, or the role may not.
pub async fn create(database: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')")
        .bind(name)
        .execute(database)
        .await
        .map(drop)
}

/// Drops the slot.
///
/// # Errors
/// It is active, does not exist, or the role may not.
pub async fn drop_slot(database: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_drop_replication_slot($1)").bind(name).execute(database).await.map(drop)
}
