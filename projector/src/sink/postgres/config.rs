//! The client: one statement, its time-out, and what its failures mean.

use super::super::access::{CREDENTIALS_REMEDY, pool, unreached, with_causes, with_remedy};
use super::super::{SinkError, StoreUrls};
use crate::projection::PostgresStore;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, Postgres};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The server gives a statement up after this time, and the client a silent server a little later.
const STATEMENT_TIMEOUT_MS: u64 = 30_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// The sink's batches; saves, counts and searches for children beside them.
const CONNECTIONS_MAX: u32 = 6;

/// Why a statement failed.
pub(super) enum Failure {
    /// The rows that it carried are to blame; the server's words.
    Refused(String),
    /// All else.
    Error(SinkError),
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(reason) => broken(reason),
            Failure::Error(error) => error,
        }
    }
}

#[derive(Clone)]
pub(super) struct Client {
    pool: PgPool,
}

impl Client {
    pub(super) fn new(urls: &StoreUrls) -> Result<Self, SinkError> {
        let options = options(urls)
            .map_err(broken)?
            .application_name("projector")
            // Times are read as text, in UTC; floats in full.
            .options([("TimeZone", "UTC"), ("extra_float_digits", "1"), ("client_min_messages", "warning")])
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)])
            .log_statements(tracing::log::LevelFilter::Trace);
        Ok(Self { pool: pool(CONNECTIONS_MAX, CONNECTION_TIMEOUT).connect_lazy_with(options) })
    }

    /// A statement with its bound values, and its answer.
    pub(super) async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Failure> {
        let mut connection = self.pool.acquire().await.map_err(|e| classify(&e))?;
        match tokio::time::timeout(ANSWER_TIMEOUT, query.fetch_all(&mut *connection)).await {
            Ok(answer) => answer.map_err(|e| classify(&e)),
            Err(_) => Err(abandon(connection)),
        }
    }

    /// Statements that define tables and views, as one transaction and one after the other: of two that found nothing there,
    /// one would fail.
    pub(super) async fn define(&self, statements: &str) -> Result<(), Failure> {
        let sql = format!("SELECT pg_advisory_xact_lock(hashtext('projector')); {statements}");
        let mut connection = self.pool.acquire().await.map_err(|e| classify(&e))?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection);
        match tokio::time::timeout(ANSWER_TIMEOUT, done).await {
            Ok(done) => done.map(drop).map_err(|e| classify(&e)),
            Err(_) => Err(abandon(connection)),
        }
    }
}

/// How the database is reached. With an authority to trust, a connection that it doesn't vouch for is refused, unless the URL
/// says otherwise (`sslmode`).
pub(crate) fn options(urls: &StoreUrls) -> Result<PgConnectOptions, String> {
    let url = &urls.postgres_read_url;
    let options = PgConnectOptions::from_str(url).map_err(|e| {
        format!("READ_DATABASE_URL can't be used: {e}; expected postgres://[user[:password]@]host[:port]/database")
    })?;
    let Some(pem) = urls.authorities()? else { return Ok(options) };
    let options = options.ssl_root_cert_from_pem(pem);
    let says_itself = url.contains("sslmode=") || url.contains("ssl-mode=");
    Ok(if says_itself { options } else { options.ssl_mode(PgSslMode::VerifyFull) })
}

/// Closes a connection whose answer may still come, or never: nobody else may wait for it.
fn abandon(connection: PoolConnection<Postgres>) -> Failure {
    drop(connection.detach());
    Failure::Error(unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
}

/// The class of codes that say that a user isn't let in.
pub(crate) const REFUSED: &str = "28";

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The rows': a value that its type or a constraint doesn't take, a row that is too large.
    Contents,
    /// The server's, and it passes: connection lost, transaction rolled back, out of a resource, stopping or cancelled, a disk
    /// that fails, a lock held, read-only.
    Servers,
    /// All else: a wrong set-up, which waiting doesn't mend.
    Setups,
}

/// Whose fault an error of this code (SQLSTATE) is.
pub(crate) fn fault(code: &str) -> Fault {
    let among = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    if among(&["22", "23", "54000"]) {
        Fault::Contents
    } else if among(&["08", "40", "53", "57", "58", "55P03", "25006"]) {
        Fault::Servers
    } else {
        Fault::Setups
    }
}

fn classify(error: &sqlx::Error) -> Failure {
    let said = with_causes(error).chars().take(500).collect::<String>();
    match error {
        sqlx::Error::Database(refusal) => {
            let reason = format!("{}: {said}", refusal.code().unwrap_or_default());
            match fault(&refusal.code().unwrap_or_default()) {
                Fault::Contents => Failure::Refused(reason),
                Fault::Servers => Failure::Error(unavailable(reason)),
                Fault::Setups if reason.starts_with(REFUSED) => {
                    Failure::Error(broken(format!("{reason}; {CREDENTIALS_REMEDY}")))
                }
                Fault::Setups => Failure::Error(broken(reason)),
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed => Failure::Error(unreached("postgres", said)),
        // A value that can't even be sent.
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Failure::Refused(said),
        // Among them TLS that one side doesn't speak.
        _ => Failure::Error(broken(with_remedy(said))),
    }
}

fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { store: "postgres", reason }
}

pub(super) fn broken(reason: String) -> SinkError {
    SinkError::Broken { store: "postgres", reason }
}

/// An identifier in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in quotes.
pub(super) fn text(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
    format!("E'{escaped}'")
}

/// The name of a generation's table, without its schema.
pub(super) fn table(read_model: &str, generation: impl Display) -> String {
    format!("{read_model}_g{generation}")
}

/// The view of what readers may see of a generation, with its schema, in quotes.
pub(crate) fn visible(config: &PostgresStore, read_model: &str, generation: impl Display) -> String {
    format!("{}.{}", quoted(&config.schema), quoted(&format!("{}_visible", table(read_model, generation))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_texts_stay_what_they_are() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(text("it's \\"), "E'it\\'s \\\\'");
        let config = PostgresStore::default();
        assert_eq!(visible(&config, "loans", 2), "\"read_models\".\"loans_g2_visible\"");
    }

    #[test]
    fn failures_are_sorted_by_whose_fault_they_are() {
        for (codes, whose) in [
            (&["22P05", "22003", "23502", "54000"][..], Fault::Contents),
            (&["53100", "53200", "53300", "57014", "57P01", "25006", "40P01", "08006"], Fault::Servers),
            (&["42P01", "42703", "28000", "3D000", "42501"], Fault::Setups),
        ] {
            for code in codes {
                assert_eq!(fault(code), whose, "{code}");
            }
        }
    }
}
