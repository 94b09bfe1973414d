//! `projector epoch`: which sources and timelines events may come from.

use super::{ControlAnywhereArg, Output};
use crate::control::Control;
use crate::expr::json::time_text;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `epoch`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EpochArgs {
    #[command(subcommand)]
    verb: EpochVerb,
    #[command(flatten)]
    pub(super) control: ControlAnywhereArg,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text", global = true)]
    output: Output,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum EpochVerb {
    /// List the epochs that read models are in, and those accepted
    List,
    /// Let read models go on with events of a new epoch, once it is sure that its database continues the former one
    Accept {
        /// The epoch, as the error of the stopped partition names it
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        epoch: String,
        /// What happened, for those who ask later: a fail-over, a restore
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
        /// Who accepts it, for the record
        #[arg(long, env = "USER", default_value = "unknown")]
        by: String,
    },
}

pub(super) async fn run(args: &EpochArgs) -> anyhow::Result<ExitCode> {
    let control = args.control.connect().await?;
    match &args.verb {
        EpochVerb::List => list(&control, args.output).await?,
        EpochVerb::Accept { epoch, reason, by } => {
            let is_new = control.accept_epoch(epoch, by, reason).await?;
            match args.output {
                Output::Json => println!("{}", json!({ "epoch": epoch, "accepted": true, "new": is_new })),
                Output::Text if is_new => println!("epoch {epoch} is accepted"),
                Output::Text => println!("epoch {epoch} was accepted before"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(control: &Control, output: Output) -> anyhow::Result<()> {
    let epochs = control.epochs().await?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&json!({ "epochs": epochs }))?);
        return Ok(());
    }
    if epochs.is_empty() {
        println!("no epochs: no progress is published, and none was accepted");
    }
    for epoch in epochs {
        let models =
            if epoch.read_models.is_empty() { "no read model".to_owned() } else { epoch.read_models.join(", ") };
        println!("{}: {models}; {} partitions", epoch.epoch, epoch.partitions);
        if let (Some(at), Some(by), Some(why)) = (epoch.accepted_at, epoch.accepted_by, epoch.why) {
            println!("  accepted {} by {by}: {why}", time_text(&at));
        }
    }
    Ok(())
}
