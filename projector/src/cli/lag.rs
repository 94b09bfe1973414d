//! `projector lag`: how late everything is, and why.

use super::{ControlArg, Output, stop_signal};
use crate::control::Control;
use crate::ops::lag::{self, BeforeKafka, BeforeKafkaArgs, Leg, Line, Report, age};
use anyhow::Context;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// Something is late; 1 is for what went wrong in asking.
const LATE: u8 = 2;
const REDRAW: Duration = Duration::from_secs(1);

/// Arguments of `lag`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LagArgs {
    #[command(flatten)]
    control: ControlArg,
    /// The write database, for the leg before Kafka: its outbox and slot; "not configured" without it
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    write_database_url: Option<String>,
    /// Kafka Connect's REST address, to see its connector's state; not asked without it
    #[arg(long, env = "CONNECT_URL")]
    connect_url: Option<String>,
    #[command(flatten)]
    before: BeforeKafkaArgs,
    /// Show it anew each second until stopped (as JSON: one object a line)
    #[arg(long, short)]
    watch: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: &LagArgs) -> anyhow::Result<ExitCode> {
    let control = Control::connect(&args.control.control_database_url).await?;
    let before = BeforeKafka::open(args.write_database_url.as_deref(), args.connect_url.as_deref(), &args.before)
        .context("WRITE_DATABASE_URL can't be read")?;
    if args.watch {
        tokio::select! {
            watched = watch(&control, &before, args.output) => watched?,
            () = stop_signal() => {}
        }
        return Ok(ExitCode::SUCCESS);
    }
    let report = lag::report(&control, &before).await?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print!("{}", text(&report)),
    }
    Ok(if report.is_late() { ExitCode::from(LATE) } else { ExitCode::SUCCESS })
}

async fn watch(control: &Control, before: &BeforeKafka, output: Output) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(REDRAW);
    loop {
        every.tick().await;
        let shown = match (lag::report(control, before).await, output) {
            (Ok(report), Output::Json) => format!("{}\n", serde_json::to_string(&report)?),
            (Ok(report), Output::Text) => text(&report),
            // The next look may find it again.
            (Err(error), Output::Json) => format!("{}\n", serde_json::json!({"error": error.to_string()})),
            (Err(error), Output::Text) => format!("{error}\n"),
        };
        let mut out = std::io::stdout();
        if output == Output::Text && out.is_terminal() {
            write!(out, "\x1b[H\x1b[2J")?;
        }
        write!(out, "{shown}")?;
        out.flush()?;
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    _ = writeln!(
        text,
        "{:<26} {:>3} {:<11} {:<13} {:<8} {:>8} {:>8} {:>9} {:>9}  why",
        "read model", "gen", "phase", "state", "since", "behind", "oldest", "handled/s", "publ./s"
    );
    for line in &report.read_models {
        row(&mut text, line);
    }
    _ = write!(text, "\nbefore Kafka: {}", before_kafka(&report.before_kafka));
    let standing: Vec<_> = report.alerts.iter().filter(|alert| alert.resolved_at.is_none()).collect();
    if !standing.is_empty() {
        text.push_str("\nalerts\n");
    }
    for alert in standing {
        let since = alert.since.format("%H:%M:%S");
        _ = writeln!(
            text,
            "  {:<8} {:<22} {since}  {}\n{:>43} {}",
            alert.severity.name(),
            alert.name,
            alert.text,
            "→",
            alert.remedy
        );
    }
    text
}

fn row(text: &mut String, line: &Line) {
    let state = match line.parked {
        0 => line.state.name().to_owned(),
        n => format!("{} ({n} parked)", line.state.name()),
    };
    let since = line.since.map_or_else(String::new, |at| at.format("%H:%M:%S").to_string());
    let behind = line.behind_events.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let oldest = line.behind_seconds.map_or_else(|| "?".to_owned(), age);
    let shown = format!(
        "{:<26} {:>3} {:<11} {state:<13} {since:<8} {behind:>8} {oldest:>8} {:>9.1} {:>9.1}  {}",
        line.read_model,
        line.generation,
        line.generation_state.name(),
        line.handled_per_s,
        line.published_per_s,
        line.text
    );
    _ = writeln!(text, "{}", shown.trim_end());
}

fn before_kafka(leg: &Leg) -> String {
    let mut text = leg.state.name().to_owned();
    if !leg.text.is_empty() {
        _ = write!(text, ": {}", leg.text);
    }
    text.push('\n');
    if let Some(outbox) = &leg.outbox {
        let more = if outbox.at_least { "more than " } else { "" };
        _ = writeln!(
            text,
            "  outbox      {more}{} events not known to be published, the oldest row {} old",
            outbox.unpublished,
            age(outbox.oldest_seconds)
        );
    }
    if let Some(heartbeat) = &leg.heartbeat {
        _ = writeln!(text, "  heartbeat   the newest that came back was written {} ago", age(heartbeat.seconds));
    }
    if let Some(slot) = leg.slot.as_ref().filter(|slot| slot.exists) {
        let read = if slot.active { "read" } else { "read by nobody" };
        let kept = slot.retained_bytes.unwrap_or_default() / (1 << 20);
        let left =
            slot.safe_bytes.map_or_else(String::new, |n| format!(", {} MiB more until it is lost", n / (1 << 20)));
        _ = writeln!(text, "  slot        {} is {read}; {kept} MiB of WAL are kept for it{left}", slot.name);
    }
    if let Some(writer) = &leg.writer {
        let pid = writer.pid.map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}"));
        _ = writeln!(
            text,
            "  writer      the oldest: {} ({pid}), for {}",
            writer.application_name,
            age(writer.seconds)
        );
    }
    if let Some(connect) = &leg.connect {
        let all: Vec<_> = connect
            .connectors
            .iter()
            .map(|(name, state, tasks)| format!("{name} {state}, tasks {}", tasks.join(" ")))
            .collect();
        let said = if all.is_empty() { connect.state.to_lowercase() } else { all.join("; ") };
        _ = writeln!(text, "  connector   {said}");
    }
    text
}
