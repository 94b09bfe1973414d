//! Migrations: run explicitly, checked when the service starts.

use std::collections::BTreeSet;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};

static MIGRATOR: Migrator = sqlx::migrate!();

/// What the migrations can't know.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The role that the outbox connector logs in with.
    pub connector_role: String,
    /// Its password; without one the role's password stays as it is.
    pub connector_password: Option<String>,
    /// The replication slot; none is made without a name. Slots belong to the whole cluster.
    pub slot: Option<String>,
}

/// Why the database couldn't be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A migration.
    #[error(transparent)]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Some weren't applied.
    #[error("the database lacks migrations {0:?}: run `command-api migrate`")]
    Pending(Vec<i64>),
}

/// Applies what is missing. Safe to repeat; of two at a time, one waits.
///
/// # Errors
/// [`MigrateError`]; migrations before the one that failed stay applied.
pub async fn migrate(url: &str, options: &Options) -> Result<(), MigrateError> {
    let mut connection = PgConnection::connect(url).await?;
    // That a table is there already is no news.
    sqlx::raw_sql("set client_min_messages = warning").execute(&mut connection).await?;
    let password = options.connector_password.clone().unwrap_or_default();
    let settings = [
        ("connector_role", &options.connector_role),
        ("slot", &options.slot.clone().unwrap_or_default()),
        ("password", &password),
    ];
    for (name, value) in settings {
        let query = sqlx::query("select set_config('command_api.' || $1, $2, false)").bind(name).bind(value);
        query.execute(&mut connection).await?;
    }
    MIGRATOR.run_direct(None, &mut connection, false).await?;
    if !password.is_empty() {
        // Each time, so that a changed password takes effect.
        let alter = "do $$ begin
            execute format('alter role %I password %L', current_setting('command_api.connector_role'),
                           current_setting('command_api.password'));
        end $$";
        sqlx::raw_sql(alter).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Refuses a database that lacks a migration.
///
/// # Errors
/// [`MigrateError::Pending`], or the database's failure.
pub async fn check(pool: &PgPool) -> Result<(), MigrateError> {
    let exists = "select to_regclass('_sqlx_migrations') is not null";
    let mut applied = BTreeSet::new();
    if sqlx::query_scalar(exists).fetch_one(pool).await? {
        let versions = "select version from _sqlx_migrations where success";
        applied.extend(sqlx::query_scalar::<_, i64>(versions).fetch_all(pool).await?);
    }
    let pending: Vec<i64> = MIGRATOR.iter().map(|m| m.version).filter(|version| !applied.contains(version)).collect();
    if pending.is_empty() { Ok(()) } else { Err(MigrateError::Pending(pending)) }
}
