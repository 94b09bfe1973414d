//! `projector rebuild`: another generation, while everything runs.

mod one;
mod start;
mod status;

pub(super) use start::start;

use super::Output;
use super::site::SiteArgs;
use crate::control::{Actor, Health, Options, Origin, Verify};
use crate::verbs::rebuild;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `rebuild`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RebuildArgs {
    #[command(subcommand)]
    verb: RebuildVerb,
    #[command(flatten)]
    site: SiteArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum RebuildVerb {
    /// Build another generation of read models from their files, and make it live once it is as far as the live one
    Start {
        /// The read models
        #[arg(required = true)]
        names: Vec<String>,
        /// Files or folders of projections
        #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
        projections: Vec<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Show what is under way, what is kept for a way back, and what was done
    Status {
        /// Of this read model only
        name: Option<String>,
        /// How to print it
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Stop feeding the new generation for now
    Pause(About),
    /// Feed it again
    Resume(About),
    /// End a rebuild before it is live; what was built is removed
    Abort(About),
    /// Let a verified generation go live
    Promote {
        #[command(flatten)]
        one: About,
        /// Although it differs in what the plan didn't announce
        #[arg(long)]
        despite_differences: bool,
        /// Don't wait for it
        #[arg(long)]
        detach: bool,
    },
    /// Go back to the generations that were live before, or forward again: several at one barrier, all or none
    Rollback {
        /// The read models
        #[arg(required = true)]
        names: Vec<String>,
        /// Who does it, for the log
        #[arg(long, env = "USER", default_value = "unknown")]
        by: String,
        /// Why, for those who ask later
        #[arg(long)]
        reason: Option<String>,
        /// Don't wait for it
        #[arg(long)]
        detach: bool,
    },
    /// Give up the former generation before its time for a rollback is over
    Retire(About),
    /// Make one document anew from its aggregate's events in the event store; its owner does it, so nothing races it
    One {
        #[command(flatten)]
        one: About,
        /// The document's key
        key: String,
    },
    /// Build a read model anew whose index, table or keys were lost or spoilt: nothing is compared with it, nobody waits for it,
    /// and there is no way back to it
    Repair {
        #[command(flatten)]
        one: About,
        /// Where its history is read: `kafka`, the `event-store`, or there only if Kafka no longer has all of it
        #[arg(long, value_enum, default_value = "auto")]
        from: Source,
        /// Leave it to the hosts, and don't wait for it
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct About {
    /// The read model
    name: String,
    /// Who does it, for the log
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Why, for those who ask later
    #[arg(long)]
    reason: Option<String>,
}

impl About {
    fn actor(&self) -> Actor<'_> {
        Actor { who: &self.by, why: self.reason.as_deref() }
    }
}

/// How a rebuild is done.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct How {
    /// What is compared before it goes live: `all` documents, while both generations stand still, or `sample:N` of them; always
    /// their number
    #[arg(long, value_parser = verify, default_value = "sample:1000")]
    verify: Verify,
    /// Where the history is read: `kafka`, the `event-store`, or there only if Kafka no longer has all of it
    #[arg(long, value_enum, default_value = "auto")]
    from: Source,
    /// All at one barrier: all go live, or none
    #[arg(long)]
    together: bool,
    /// Whether it goes live by itself once it may, or waits for `rebuild promote`
    #[arg(long, value_enum, default_value = "auto")]
    promote: Promote,
    /// Events a second that the replay may take on each host, at most
    #[arg(long)]
    throttle: Option<u32>,
    /// How long the replaced generation is fed, for a way back, such as 90s, 30m, 1h
    #[arg(long, value_parser = seconds, default_value = "1h")]
    rollback_window: u32,
    #[command(flatten)]
    watch: WatchArgs,
    /// Leave it to the hosts, and don't wait for it
    #[arg(long)]
    detach: bool,
    /// Who does it, for the log
    #[arg(long, env = "USER", default_value = "unknown")]
    pub(super) by: String,
    /// Why, for those who ask later
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// What goes back by itself.
#[derive(Clone, Debug, clap::Args)]
struct WatchArgs {
    /// For how long after the swap a broken rule of health goes back by itself, such as 90s, 30m, 1h; 0s for never
    #[arg(long, value_parser = seconds, default_value = "10m")]
    watch: u32,
    /// Rule: of a hundred queries no more fail, by the store's or our fault
    #[arg(long, default_value_t = Health::default().failed_percent)]
    max_failed_percent: u32,
    /// Rule: all but the slowest of a hundred queries take no longer, in ms
    #[arg(long, default_value_t = Health::default().p99_ms)]
    max_p99_ms: u32,
    /// Rule: it isn't further behind its events, in ms
    #[arg(long, default_value_t = Health::default().lag_ms)]
    max_lag_ms: u32,
}

impl How {
    /// Where the history is and what may differ is found out when it begins.
    fn options(&self) -> Options {
        let watch = &self.watch;
        let health = Health {
            watch_s: watch.watch,
            failed_percent: watch.max_failed_percent,
            p99_ms: watch.max_p99_ms,
            lag_ms: watch.max_lag_ms,
        };
        Options {
            verify: self.verify,
            promote: self.promote == Promote::Auto,
            throttle: self.throttle,
            rollback_s: self.rollback_window,
            announced: None,
            despite: false,
            back: false,
            repair: false,
            from: Origin::default(),
            health: (watch.watch > 0).then_some(health),
        }
    }
}

/// Where history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    Kafka,
    EventStore,
    Auto,
}

impl Source {
    fn wanted(self) -> Option<Origin> {
        match self {
            Self::Kafka => Some(Origin::Kafka),
            Self::EventStore => Some(Origin::EventStore),
            Self::Auto => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Promote {
    Auto,
    Manual,
}

fn verify(text: &str) -> Result<Verify, String> {
    match text.split_once(':') {
        None if text == "all" => Ok(Verify::All),
        Some(("sample", count)) => count.parse().map(Verify::Sample).map_err(|_| format!("`{count}` is no number")),
        _ => Err("expected `all` or `sample:N`".to_owned()),
    }
}

fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "expected a number with s, m or h, such as 30m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(wrong()),
    };
    let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number.checked_mul(each).ok_or_else(wrong)
}

pub(super) async fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    match &args.verb {
        RebuildVerb::Start { names, projections, how } => start::start_named(&args.site, names, projections, how).await,
        RebuildVerb::Status { name, output } => {
            let site = args.site.open("status").await?;
            status::status(&site, name.as_deref(), *output).await
        }
        RebuildVerb::Pause(one) => pause(args, one, true).await,
        RebuildVerb::Resume(one) => pause(args, one, false).await,
        RebuildVerb::Abort(one) => {
            let site = args.site.open(&one.by).await?;
            rebuild::abort(&site, &one.name, one.actor()).await?;
            println!("{}: aborted; the hosts remove what was built", one.name);
            Ok(ExitCode::SUCCESS)
        }
        RebuildVerb::Promote { one, despite_differences, detach } => {
            let site = args.site.open(&one.by).await?;
            let all = rebuild::promote(&site, &one.name, *despite_differences, one.actor()).await?;
            start::finish(&site, &all, *detach).await
        }
        RebuildVerb::Rollback { names, by, reason, detach } => {
            let site = args.site.open(by).await?;
            let actor = Actor { who: by, why: reason.as_deref() };
            let all = rebuild::roll_back(&site, names, actor).await?;
            start::finish(&site, &all, *detach).await
        }
        RebuildVerb::Retire(one) => retire(args, one).await,
        RebuildVerb::One { one, key } => one::make_anew(&args.site, one, key).await,
        RebuildVerb::Repair { one, from, detach } => {
            let site = args.site.open(&one.by).await?;
            let all = rebuild::repair(&site, &one.name, from.wanted(), one.actor()).await?;
            start::finish(&site, &all, *detach).await
        }
    }
}

async fn pause(args: &RebuildArgs, one: &About, pause: bool) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&one.by).await?;
    println!("{}: {}", one.name, rebuild::pause(&site, &one.name, pause, one.actor()).await?);
    Ok(ExitCode::SUCCESS)
}

async fn retire(args: &RebuildArgs, one: &About) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&one.by).await?;
    let former = rebuild::retire(&site, &one.name, one.actor()).await?;
    println!("{}: generation {} is given up; the hosts remove its place", one.name, former.generation);
    // So that whoever starts the next one finds its place empty; where no host runs, that is said by the next one.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if site.control.member(former.generation_id).await?.removed {
            println!("{}: it is removed", one.name);
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_samples_are_read() {
        assert_eq!((seconds("90s"), seconds("30m"), seconds("1h")), (Ok(90), Ok(1_800), Ok(3_600)));
        assert!(
            seconds("1d").is_err() && seconds("h").is_err() && seconds("").is_err() && seconds("9999999h").is_err()
        );
        assert_eq!((verify("all"), verify("sample:7")), (Ok(Verify::All), Ok(Verify::Sample(7))));
        assert!(verify("some").is_err() && verify("sample:x").is_err());
    }
}
