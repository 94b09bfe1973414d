//! `projector apply`: makes what the files say the live catalog.

use super::rebuild::{How, start};
use super::site::SiteArgs;
use super::{check, plan};
use crate::control::Actor;
use crate::verbs::{VerbError, apply, rebuild};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// Files or folders of projections
    #[arg(env = "PROJECTIONS_DIR", default_value = "projections")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    how: How,
    /// Give up live read models that no file in these folders declares, with all that is in their stores
    #[arg(long)]
    prune: bool,
}

pub(super) async fn run(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&args.how.by).await?;
    let plan = match rebuild::plan(&site, &args.paths).await {
        Err(VerbError::Findings(findings)) => {
            check::print_findings(findings);
            return Ok(ExitCode::FAILURE);
        }
        plan => plan?,
    };
    let actor = Actor { who: &args.how.by, why: args.how.reason.as_deref() };
    for change in &plan.changes {
        if let Some(said) = apply::apply(&site, &plan, change, args.prune, actor).await? {
            println!("{}: {said}", change.read_model);
        }
    }
    // Last, since they take their time.
    let wanted = plan.rebuilds();
    wanted.iter().for_each(|wanted| plan::print(wanted.change));
    start(&site, &wanted, &args.how).await
}
