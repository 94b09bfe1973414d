//! Where the leg before Kafka is asked about: the write database's outbox, its replication slot, and Kafka Connect.
//!
//! Of the write database only the platform's contract is read (the table `outbox` and the slot), and what Postgres itself
//! shows. A role that isn't allowed to see others' sessions (`pg_read_all_stats`) sees no writer but its own.

use super::leg::{Connect, Heard, Leg, Outbox, Slot, Standing, Writer};
use super::seconds;
use crate::control::Heartbeat;
use crate::sink::access;
use crate::source::connectors;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool, Row};
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const STATEMENT_TIMEOUT_MS: &str = "1500";
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Connect's answer holds for so long: it is a REST call to a busy JVM.
const CONNECT_EVERY: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows that are counted.
const COUNTED_MAX: i64 = 100_000;

/// How to ask about the leg before Kafka.
#[derive(Clone, Debug, clap::Args)]
pub struct BeforeKafkaArgs {
    /// The replication slot that the connector reads the outbox from
    #[arg(long, env = "OUTBOX_SLOT", default_value = "outbox_slot")]
    pub outbox_slot: String,
    /// How old a row of the outbox may become before it is said to be late, in ms; heartbeats must come more often
    #[arg(long, env = "OUTBOX_LATE_MS", default_value_t = 5_000)]
    pub outbox_late_ms: u32,
}

/// Asks about the leg before Kafka.
#[derive(Clone)]
pub struct BeforeKafka {
    pool: Option<PgPool>,
    args: BeforeKafkaArgs,
    connect_url: Option<String>,
    connect: Arc<Mutex<Option<(Instant, Connect)>>>,
}

/// Why the leg can't be looked at: a server that refuses a question is there.
fn no_look(error: &sqlx::Error) -> String {
    match error.as_database_error().and_then(|refusal| refusal.code()).as_deref() {
        Some("42P01" | "42703") => format!("the write database has no outbox as it should be; is it migrated? {error}"),
        Some("42501") => format!("the write database doesn't let its outbox be read: {error}"),
        _ => format!("the write database doesn't answer: {error}"),
    }
}

impl BeforeKafka {
    /// Connects with the first question.
    ///
    /// # Errors
    /// The write database's URL can't be read.
    pub fn open(
        write_url: Option<&str>,
        connect_url: Option<&str>,
        args: &BeforeKafkaArgs,
    ) -> Result<Self, sqlx::Error> {
        let pool = write_url.map(pool).transpose()?;
        Ok(Self { pool, args: args.clone(), connect_url: connect_url.map(str::to_owned), connect: Arc::default() })
    }

    pub(super) async fn look(&self, beat: Option<&Heartbeat>, monitored: bool, topics: &BTreeSet<&str>) -> Leg {
        let (found, connect) = tokio::join!(self.ask(beat), self.connect(topics));
        let late_s = f64::from(self.args.outbox_late_ms) / 1_000.0;
        let mut leg = match found {
            None => {
                Leg::bare(Standing::NotConfigured, "the write database wasn't named (WRITE_DATABASE_URL)".to_owned())
            }
            Some(Err(error)) => Leg::bare(Standing::Unreachable, no_look(&error)),
            Some(Ok(leg)) => Leg { connect: connect.clone(), ..leg }.judge(late_s, monitored),
        };
        leg.connect = connect;
        leg
    }

    /// What can be seen of the leg without knowing of heartbeats.
    pub(crate) async fn look_once(&self) -> Leg {
        self.look(None, false, &BTreeSet::new()).await
    }

    async fn ask(&self, beat: Option<&Heartbeat>) -> Option<Result<Leg, sqlx::Error>> {
        let pool = self.pool.as_ref()?;
        let asked = async {
            let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(pool).await?;
            Ok(Leg {
                outbox: Some(outbox(pool, beat.map_or(-1, |beat| beat.txid), now).await?),
                slot: match self.args.outbox_slot.as_str() {
                    "" => None,
                    name => Some(slot(pool, name).await?),
                },
                writer: writer(pool, now).await?,
                heartbeat: beat.map(|beat| Heard::of(beat, now)),
                ..Leg::bare(Standing::Ok, String::new())
            })
        };
        Some(asked.await)
    }

    async fn connect(&self, topics: &BTreeSet<&str>) -> Option<Connect> {
        let url = self.connect_url.as_deref().filter(|_| !topics.is_empty())?;
        let known = || self.connect.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = known().as_ref().filter(|(at, _)| at.elapsed() < CONNECT_EVERY) {
            return Some(known.clone());
        }
        let answer = match tokio::time::timeout(CONNECT_TIMEOUT, connectors(url)).await {
            Ok(Ok(all)) => {
                let ours = all.into_iter().filter(|c| topics.iter().any(|topic| c.routes_to(topic)));
                let connectors: Vec<_> = ours.map(|c| (c.name, c.state, c.tasks)).collect();
                Connect { state: state(&connectors), connectors, error: None }
            }
            Ok(Err(error)) => unreachable_connect(error.to_string()),
            Err(_) => unreachable_connect(format!("no answer of {url} within {} s", CONNECT_TIMEOUT.as_secs())),
        };
        *known() = Some((Instant::now(), answer.clone()));
        Some(answer)
    }
}

fn unreachable_connect(error: String) -> Connect {
    Connect { state: "UNREACHABLE".to_owned(), connectors: Vec::new(), error: Some(error) }
}

/// The first state that isn't `RUNNING`, of a connector or of a task; one without tasks sends nothing.
fn state(connectors: &[(String, String, Vec<String>)]) -> String {
    if connectors.is_empty() {
        return "MISSING".to_owned();
    }
    let states = connectors.iter().flat_map(|(_, state, tasks)| {
        let without = tasks.is_empty() && state == "RUNNING";
        [state.as_str()].into_iter().chain(tasks.iter().map(String::as_str)).chain(without.then_some("without a task"))
    });
    states.into_iter().find(|state| *state != "RUNNING").unwrap_or("RUNNING").to_owned()
}

fn pool(url: &str) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("projector-monitor")
        .options([("default_transaction_read_only", "on"), ("statement_timeout", STATEMENT_TIMEOUT_MS)])
        .log_statements(tracing::log::LevelFilter::Trace);
    Ok(access::pool(1, ACQUIRE_TIMEOUT).connect_lazy_with(options))
}

/// What was written after the newest heartbeat that came back, by the ids of their transactions: those are given in the order
/// in which transactions begin to write, so one that was open then is missed until it is a second older.
async fn outbox(pool: &PgPool, txid: i64, now: DateTime<Utc>) -> Result<Outbox, sqlx::Error> {
    let row = sqlx::query(
        "select count(*) filter (where aggregate_type <> 'heartbeat') as unpublished, count(*) > $2 as at_least, min(occurred_at) as oldest
         from (select aggregate_type, occurred_at from outbox where published_at is null and txid > $1
               order by txid limit $2 + 1) as waiting",
    )
    .bind(txid)
    .bind(COUNTED_MAX)
    .fetch_one(pool)
    .await?;
    let oldest_at: Option<DateTime<Utc>> = row.try_get("oldest")?;
    Ok(Outbox {
        unpublished: row.try_get("unpublished")?,
        at_least: row.try_get("at_least")?,
        oldest_at,
        oldest_seconds: oldest_at.map_or(0.0, |at| seconds(at, now)),
    })
}

async fn slot(pool: &PgPool, name: &str) -> Result<Slot, sqlx::Error> {
    let row = sqlx::query(
        "select active, wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint as retained, safe_wal_size
         from pg_replication_slots where slot_name = $1 and database = current_database()",
    )
    .bind(name)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else {
        let (wal_status, retained_bytes, safe_bytes) = (None, None, None);
        return Ok(Slot {
            name: name.to_owned(),
            exists: false,
            active: false,
            wal_status,
            retained_bytes,
            safe_bytes,
        });
    };
    Ok(Slot {
        name: name.to_owned(),
        exists: true,
        active: row.try_get("active")?,
        wal_status: row.try_get("wal_status")?,
        retained_bytes: row.try_get("retained")?,
        safe_bytes: row.try_get("safe_wal_size")?,
    })
}

/// Of all databases of the cluster: ids of transactions are the cluster's.
async fn writer(pool: &PgPool, now: DateTime<Utc>) -> Result<Option<Writer>, sqlx::Error> {
    let row = sqlx::query(
        "select pid, application_name, since from (
             select pid, application_name, xact_start as since, age(backend_xid) as age from pg_stat_activity
                 where backend_xid is not null and xact_start is not null and pid <> pg_backend_pid()
             union all
             select null, 'prepared transaction ' || gid, prepared, age(transaction) from pg_prepared_xacts) as open
         order by age desc limit 1",
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        let since: DateTime<Utc> = row.try_get("since")?;
        let (pid, application_name) = (row.try_get("pid")?, row.try_get("application_name")?);
        Ok(Writer { pid, application_name, since, seconds: seconds(since, now) })
    })
    .transpose()
}
