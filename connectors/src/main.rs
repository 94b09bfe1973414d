//! `connectors`: topics and the outbox connector on a Kafka Connect.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use connectors::apply::{self, Outcome};
use connectors::connect::{Client, Config};
use connectors::{defaults, remove, slot, topics};

/// Brings the outbox connector to a Kafka Connect, and keeps it as configured.
///
/// Its configuration is outbox.json; what differs between environments is read by the Connect worker from its own
/// environment (OUTBOX_DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD, OUTBOX_TOPIC_PARTITIONS, …), see worker.properties.
#[derive(Parser)]
#[command(name = "connectors", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Place {
    /// Kafka Connect's REST address
    #[arg(long, global = true, env = "CONNECT_URL", default_value = "http://127.0.0.1:18083")]
    connect_url: String,
    /// Directory of the connectors' configurations
    #[arg(long, global = true, env = "CONNECTORS_DIR", default_value = "connectors")]
    directory: PathBuf,
    /// The connector: its name in Connect, and of its file without `.json`
    #[arg(long, global = true, env = "CONNECTOR_NAME", default_value = "outbox")]
    name: String,
    /// Seconds to wait until the connector streams
    #[arg(long, global = true, env = "CONNECTOR_WAIT_SECONDS", default_value_t = 60)]
    wait_seconds: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Create the topics, validate and apply the configuration, wait until it streams; safe to repeat
    Apply {
        #[command(flatten)]
        topics: TopicSettings,
        #[command(flatten)]
        database: Database,
        /// Create the replication slot if it is missing: events written before it do not reach Kafka
        #[arg(long)]
        create_slot: bool,
    },
    /// Create the topics that are missing, and nothing else: the connector is neither started nor asked. For `projector republish`
    Topics {
        #[command(flatten)]
        topics: TopicSettings,
    },
    /// Ask Connect what is wrong with the configuration; changes nothing
    Validate,
    /// Print the state of the connector, its tasks and its slot; exit code 1 unless all run
    Status {
        #[command(flatten)]
        database: Database,
    },
    /// Remove the connector; its slot stays and holds WAL unless it is dropped too
    Remove {
        #[command(flatten)]
        database: Database,
        /// Drop the replication slot too
        #[arg(long)]
        drop_slot: bool,
    },
}

#[derive(Args)]
struct Database {
    /// Postgres database of the outbox, to look at the replication slot
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

#[derive(Args)]
struct TopicSettings {
    /// Kafka's addresses
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:19092")]
    brokers: String,
    /// Aggregates with a topic events.<aggregate>
    #[arg(long, env = "TOPIC_AGGREGATES", value_delimiter = ',', default_value = defaults::value("TOPIC_AGGREGATES"))]
    aggregates: Vec<String>,
    /// Partitions of each of these topics; fixed when they are created
    #[arg(long, env = "TOPIC_PARTITIONS", default_value = defaults::value("TOPIC_PARTITIONS"))]
    partitions: i32,
    /// Days for which Kafka keeps events
    #[arg(long, env = "TOPIC_RETENTION_DAYS", default_value = defaults::value("TOPIC_RETENTION_DAYS"))]
    retention_days: u32,
    /// Copies of each partition
    #[arg(long, env = "TOPIC_REPLICATION_FACTOR", default_value = defaults::value("TOPIC_REPLICATION_FACTOR"))]
    replication_factor: i32,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Both providers end up in the tree; an error only says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let place = &cli.place;
    let client = Client::new(&place.connect_url)?;
    let config = apply::read(&place.directory.join(format!("{}.json", place.name)))?;
    match &cli.command {
        Command::Apply { topics, database, create_slot } => {
            apply_all(&client, place, &config, topics, database, *create_slot).await?;
        }
        Command::Topics { topics } => create_topics(topics, &config).await?,
        Command::Validate => {
            apply::validate(&client, &place.name, &config).await?;
            println!("{}: valid", place.name);
        }
        Command::Status { database } => return status(&client, place, &config, database).await,
        Command::Remove { database, drop_slot } => remove_one(&client, place, &config, database, *drop_slot).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn setting<'a>(config: &'a Config, key: &str) -> anyhow::Result<&'a str> {
    config.get(key).map(String::as_str).with_context(|| format!("the configuration has no {key}"))
}

async fn apply_all(
    client: &Client,
    place: &Place,
    config: &Config,
    wanted: &TopicSettings,
    database: &Database,
    create_slot: bool,
) -> anyhow::Result<()> {
    let slot_name = setting(config, "slot.name")?;
    let mut connection = slot::connect(&database.database_url).await.context("connecting to the write database")?;
    let (publication, table) = (setting(config, "publication.name")?, setting(config, "table.include.list")?);
    if !slot::published(&mut connection, publication, table).await? {
        bail!("publication {publication} with table {table} does not exist: run `command-api migrate` first");
    }
    let absent = slot::state(&mut connection, slot_name).await?.is_none();
    if absent {
        if !create_slot {
            bail!(
                "replication slot {slot_name} does not exist, so no event written until now would reach Kafka. \
                 `command-api migrate` makes it before the first row; if it was dropped since, and the events between \
                 are sent again from the event store, repeat this with --create-slot"
            );
        }
        slot::create(&mut connection, slot_name).await.context("creating the replication slot")?;
        println!("slot {slot_name}: created");
    }
    create_topics(wanted, config).await?;
    let limit = Duration::from_secs(place.wait_seconds);
    let outcome = apply::configure(client, &place.name, config, absent, limit).await?;
    let did = match outcome {
        Outcome::Created => "created",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
    };
    println!("connector {}: {did}", place.name);
    let started = std::time::Instant::now();
    apply::wait_running(client, &place.name, limit).await?;
    // A task says RUNNING before it has connected: only the slot tells that it streams.
    while !slot::state(&mut connection, slot_name).await?.is_some_and(|slot| slot.active) {
        apply::wait_running(client, &place.name, limit.saturating_sub(started.elapsed())).await?;
        if started.elapsed() >= limit {
            bail!("connector {} runs, but slot {slot_name} is not active after {} s", place.name, limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("connector {}: RUNNING, slot {slot_name} active", place.name);
    Ok(())
}

/// Creates what is missing; what is there must be as it should.
async fn create_topics(wanted: &TopicSettings, config: &Config) -> anyhow::Result<()> {
    let settings = topics::Settings {
        aggregates: wanted.aggregates.clone(),
        partitions: wanted.partitions,
        retention_days: wanted.retention_days,
        replication_factor: wanted.replication_factor,
    };
    let created = topics::ensure(&wanted.brokers, &settings, setting(config, "topic.prefix")?).await?;
    let what = if created.is_empty() { "unchanged".to_owned() } else { format!("created {}", created.join(", ")) };
    println!("topics: {what}");
    Ok(())
}

async fn status(client: &Client, place: &Place, config: &Config, database: &Database) -> anyhow::Result<ExitCode> {
    let Some(status) = client.status(&place.name).await? else {
        println!("connector {}: not there", place.name);
        return Ok(ExitCode::FAILURE);
    };
    println!("connector {}: {}", place.name, status.connector.state);
    for (number, task) in status.tasks.iter().enumerate() {
        println!("task {number}: {}", task.state);
    }
    if let Some(trace) = status.failure() {
        println!("{trace}");
    }
    let slot_name = setting(config, "slot.name")?;
    let mut connection = slot::connect(&database.database_url).await.context("connecting to the write database")?;
    let slot = slot::state(&mut connection, slot_name).await?;
    match slot {
        None => println!("slot {slot_name}: not there"),
        Some(slot) => {
            let state = if slot.active { "active" } else { "not active" };
            println!("slot {slot_name}: {state}, holds {} KiB of WAL", slot.held_bytes / 1024);
        }
    }
    let streams = status.running() && slot.is_some_and(|slot| slot.active);
    Ok(if streams { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn remove_one(
    client: &Client,
    place: &Place,
    config: &Config,
    database: &Database,
    drop_slot: bool,
) -> anyhow::Result<()> {
    let existed = client.delete(&place.name).await?;
    println!("connector {}: {}", place.name, if existed { "removed" } else { "was not there" });
    let slot_name = setting(config, "slot.name")?;
    let mut connection = slot::connect(&database.database_url).await.context("connecting to the write database")?;
    let Some(state) =
        remove::wait_inactive(&mut connection, slot_name, Duration::from_secs(place.wait_seconds)).await?
    else {
        println!("slot {slot_name}: was not there");
        return Ok(());
    };
    let wanted = drop_slot || (std::io::stdin().is_terminal() && ask(slot_name)?);
    if !wanted {
        println!("{}", remove::explain_kept(slot_name, state));
        return Ok(());
    }
    slot::drop_slot(&mut connection, slot_name).await.context("dropping the replication slot")?;
    println!("slot {slot_name}: dropped; {}", remove::explain_drop(slot_name));
    Ok(())
}

fn ask(slot_name: &str) -> anyhow::Result<bool> {
    eprint!("{}\ndrop slot {slot_name} too? [y/N] ", remove::explain_drop(slot_name));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
