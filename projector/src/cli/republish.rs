//! `projector republish`: refills a lost topic from the event store.
//!
//! What reads the topic tells duplicates by the order of first occurrences, so nobody else may write to it meanwhile, and
//! nothing may be in it: an event of now before one of then makes the one of then look like a duplicate, and it is lost to
//! every read model built from the topic. That is why nothing here can be forced but the one thing that can't be seen from
//! here, whether a connector writes.

use super::{ControlArg, Output, stop_signal};
use crate::control::Control;

use crate::source::{
    Bounds, Connector, History, KafkaConfig, Refusal, Refused, Selection, Survey, TopicWriter, bounds, connectors,
    describe, frozen, held, judge_topic, other_than, partition_of,
};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PREFIX: &str = "events.";
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `republish`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RepublishArgs {
    /// The topic, `events.<aggregate type>`: it must exist and be empty
    topic: String,
    /// Leave out what has a smaller `global_position`: history that no read model needs any more
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_position: i64,
    /// Send these aggregates only, to look into them on a stack apart: the others' events are then missing for good
    #[arg(long, value_name = "ID")]
    aggregate_id: Vec<String>,
    /// Go on where a run that was interrupted stopped: what the topic holds must be the beginning of what it shall hold
    #[arg(long)]
    resume: bool,
    /// Check everything and count, but send nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Don't ask Kafka Connect whether a connector writes to the topic; you know that none does, and none will before this ends
    #[arg(long)]
    without_connect_check: bool,
    /// Kafka Connect's REST address
    #[arg(long, env = "CONNECT_URL")]
    connect_url: Option<String>,
    /// The database with the event store
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    write_database_url: String,
    #[command(flatten)]
    kafka: KafkaConfig,
    #[command(flatten)]
    control: ControlArg,
    /// How to print the result
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    survey: &'a Survey,
    /// Events sent, by partition.
    partitions: BTreeMap<i32, u64>,
    /// Why it can't be done, in a dry run.
    refusals: Vec<String>,
}

pub(super) async fn run(args: &RepublishArgs) -> anyhow::Result<ExitCode> {
    let topic = args.topic.as_str();
    let aggregate_type = topic.strip_prefix(PREFIX).filter(|t| !t.is_empty());
    let aggregate_type =
        aggregate_type.with_context(|| format!("`{topic}` is no topic of events: expected {PREFIX}…"))?;
    let (refusals, begin) = refusals(args).await?;
    if !refusals.is_empty() && !args.dry_run {
        bail!("{topic} can't be refilled now:{}", Refused(refusals));
    }
    // Behind the checks: what the snapshot doesn't see comes by the connector, once it runs again.
    let selection = Selection {
        aggregate_type: aggregate_type.to_owned(),
        from_position: args.from_position,
        aggregate_ids: args.aggregate_id.clone(),
    };
    let mut history = History::open(&args.write_database_url, &selection).await?;
    let survey = history.survey().await?;
    eprintln!("{}", summary(topic, &survey));
    let held = if args.resume { resumed(args, &mut history, &begin).await? } else { BTreeMap::new() };
    let refusals: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if args.dry_run {
        refusals.iter().for_each(|refusal| eprintln!("  - {refusal}"));
        let clean = refusals.is_empty();
        print(args.output, &Report { topic, dry_run: true, survey: &survey, partitions: BTreeMap::new(), refusals })?;
        return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    ensure!(survey.events > 0, "the event store has no such events: nothing to send to {topic}");
    if !args.yes && !confirmed(topic)? {
        eprintln!("nothing was sent");
        return Ok(ExitCode::FAILURE);
    }
    let mut writer = TopicWriter::new(&args.kafka, topic)?;
    let partitions = i32::try_from(begin.len()).unwrap_or(i32::MAX);
    let sent = tokio::select! {
        sent = send(&mut history, &mut writer, survey.events, held, partitions) => sent,
        () = stop_signal() => Err(anyhow::anyhow!("interrupted")),
    };
    sent.with_context(|| {
        format!(
            "{topic} holds a part of its events only: repeat this with --resume, while its connector is still stopped"
        )
    })?;
    ensure_alone(args, &begin, writer.delivered()).await?;
    let partitions = writer.delivered().clone();
    print(args.output, &Report { topic, dry_run: false, survey: &survey, partitions, refusals })?;
    eprintln!(
        "{topic} is complete up to now; start its connector again, it sends what was written since (`connectors apply`)"
    );
    Ok(ExitCode::SUCCESS)
}

/// All that speaks against it, and where the topic's partitions are.
async fn refusals(args: &RepublishArgs) -> anyhow::Result<(Vec<Refusal>, Bounds)> {
    let topic = &args.topic;
    // The connector first: a topic that is empty while it runs needn't be a moment later.
    let mut refusals = writing_connectors(args).await?;
    let frozen = frozen(&Control::connect(&args.control.control_database_url).await?.live().await?);
    let described = describe(&args.kafka, std::slice::from_ref(topic)).await?;
    let found = described.get(topic);
    refusals.extend(judge_topic(topic, found, frozen.get(topic)));
    let Some(found) = found else { return Ok((refusals, Bounds::new())) };
    let bounds = bounds(&args.kafka, topic, found.partitions).await?;
    let held: i64 = bounds.values().map(|(low, high)| high - low).sum();
    if held > 0 && !args.resume {
        refusals.push(Refusal {
            what: format!("topic `{topic}` isn't empty: its partitions hold some {held} messages"),
            why: "an event that comes behind newer ones is taken for a duplicate, and would be lost to every read model that is \
                  built from this topic"
                .to_owned(),
            remedy: "if it is incomplete, stop its connector, delete the topic, create it again with as many partitions, and \
                     repeat this (docs/republish.md); if it holds what an interrupted run of this sent, and nothing else, repeat \
                     this with --resume"
                .to_owned(),
        });
    }
    Ok((refusals, bounds))
}

/// How many events each partition holds already, once it is sure that they are the first ones.
async fn resumed(args: &RepublishArgs, history: &mut History, begin: &Bounds) -> anyhow::Result<BTreeMap<i32, u64>> {
    let topic = &args.topic;
    let remedy = "make the topic anew as docs/republish.md says, and repeat this without --resume";
    if let Some((partition, (low, _))) = begin.iter().find(|(_, (low, _))| *low > 0) {
        bail!("{topic} can't be resumed: partition {partition} begins at {low}, its first messages are gone; {remedy}");
    }
    let held = held(&args.kafka, topic, begin).await?;
    let count = i32::try_from(begin.len()).unwrap_or(i32::MAX);
    if let Some(partition) = other_than(history, &held, |key| partition_of(key, count)).await? {
        bail!(
            "{topic} can't be resumed: what partition {partition} holds isn't the beginning of what is to be sent to it; \
             somebody else wrote to it, or a transaction that was open at the first run belongs between; {remedy}"
        );
    }
    let held: BTreeMap<i32, u64> = held.into_iter().map(|(partition, held)| (partition, held.count)).collect();
    eprintln!("{topic} holds {} of them already, the first ones of each partition", held.values().sum::<u64>());
    Ok(held)
}

async fn writing_connectors(args: &RepublishArgs) -> anyhow::Result<Vec<Refusal>> {
    if args.without_connect_check {
        tracing::warn!("not checked: whether a connector writes to the topic");
        return Ok(Vec::new());
    }
    let url = args.connect_url.as_deref().context(
        "can't tell whether a connector writes to the topic; give --connect-url (CONNECT_URL), or --without-connect-check if \
         none can",
    )?;
    let all = connectors(url).await.context(
        "can't tell whether a connector writes to the topic; --without-connect-check goes on if you know that none does, and \
         that none will before this ends",
    )?;
    Ok(all.iter().filter(|c| c.routes_to(&args.topic) && !c.at_rest()).map(|c| running(c, url)).collect())
}

fn running(connector: &Connector, url: &str) -> Refusal {
    let (name, url) = (&connector.name, url.trim_end_matches('/'));
    Refusal {
        what: format!("connector {name} is {} and writes to this topic", connector.state),
        why: "a new event that lands among the old ones makes those behind it look like duplicates, and they would be lost to \
              every read model that is built from this topic"
            .to_owned(),
        remedy: format!(
            "stop it (curl -X PUT {url}/connectors/{name}/stop), start it again afterwards (`connectors apply`): what is written \
             meanwhile waits in its slot"
        ),
    }
}

fn summary(topic: &str, survey: &Survey) -> String {
    let time = |time: Option<_>| time.as_ref().map_or_else(|| "-".to_owned(), crate::expr::json::time_text);
    let mut text = format!(
        "{topic}: {} events in the event store, from {} to {}",
        survey.events,
        time(survey.oldest),
        time(survey.newest)
    );
    if survey.epochs.len() > 1 {
        text.push_str(&format!(
            "\n  of {} epochs ({}): a read model built from it stops where the second begins, until an operator accepts it",
            survey.epochs.len(),
            survey.epochs.join(", ")
        ));
    }
    text
}

fn confirmed(topic: &str) -> anyhow::Result<bool> {
    ensure!(std::io::stdin().is_terminal(), "nobody to ask whether to send them to {topic}; add --yes, or --dry-run");
    eprint!("send them to {topic}? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("can't read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Sends all but those that are held, the first of each partition.
async fn send(
    history: &mut History,
    writer: &mut TopicWriter,
    total: u64,
    mut held: BTreeMap<i32, u64>,
    partitions: i32,
) -> anyhow::Result<()> {
    let (started, mut line, mut sent) = (Instant::now(), Instant::now(), 0_u64);
    let total = total - held.values().sum::<u64>();
    loop {
        let events = history.events().await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            if let Some(left @ 1..) = held.get_mut(&partition_of(&event.aggregate_id, partitions)) {
                *left -= 1;
                continue;
            }
            writer.send(event).await?;
            sent += 1;
        }
        if line.elapsed() >= LINE_EVERY {
            line = Instant::now();
            eprintln!("{}", progress(sent, total, started.elapsed()));
        }
    }
    writer.settle().await?;
    let delivered: u64 = writer.delivered().values().sum();
    ensure!(delivered == total, "{delivered} of {total} events were delivered");
    eprintln!("{}", progress(delivered, total, started.elapsed()));
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn progress(sent: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = sent as f64 / seconds;
    let left =
        if sent < total { format!(" · about {:.0} s left", (total - sent) as f64 / rate) } else { String::new() };
    format!("{sent}/{total} · {rate:.0}/s · {seconds:.0} s{left}")
}

/// Nobody else wrote: what the partitions hold more than before is what was delivered.
async fn ensure_alone(args: &RepublishArgs, begin: &Bounds, delivered: &BTreeMap<i32, u64>) -> anyhow::Result<()> {
    let partitions = i32::try_from(begin.len()).unwrap_or(i32::MAX);
    for (partition, (_, end)) in bounds(&args.kafka, &args.topic, partitions).await? {
        let grown = end - begin.get(&partition).map_or(0, |(_, end)| *end);
        let ours = delivered.get(&partition).copied().unwrap_or(0);
        if i64::try_from(ours) != Ok(grown) {
            bail!(
                "partition {partition} of {} has grown by {grown} messages, {ours} of them from here: somebody else wrote \
                 meanwhile, and read models built from it would miss events; stop whatever writes to it, empty it as \
                 docs/republish.md says, and repeat this",
                args.topic
            );
        }
    }
    Ok(())
}

fn print(output: Output, report: &Report<'_>) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
        Output::Text if report.dry_run => {}
        Output::Text => {
            println!("{:>9} {:>12}", "partition", "events");
            for (partition, events) in &report.partitions {
                println!("{partition:>9} {events:>12}");
            }
            println!("{:>9} {:>12}", "all", report.survey.events);
        }
    }
    Ok(())
}
