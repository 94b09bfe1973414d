//! Starting rebuilds, alone or together, and waiting for them.

use super::super::site::{SiteArgs, attend};
use super::super::{check, plan, stop_signal};
use super::How;
use crate::control::{Actor, Origin, Rebuild};
use crate::generation::Site;
use crate::verbs::VerbError;
use crate::verbs::rebuild::{self, Wanted};
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) async fn start_named(
    args: &SiteArgs,
    names: &[String],
    projections: &[PathBuf],
    how: &How,
) -> anyhow::Result<ExitCode> {
    let site = args.open(&how.by).await?;
    let plan = match rebuild::plan(&site, projections).await {
        Err(VerbError::Findings(findings)) => {
            check::print_findings(findings);
            return Ok(ExitCode::FAILURE);
        }
        plan => plan?,
    };
    let wanted = plan.wanted(names)?;
    wanted.iter().for_each(|wanted| plan::print(wanted.change));
    start(&site, &wanted, how).await
}

/// Starts rebuilds and drives them, one after the other unless they go live together, or leaves them to the hosts.
pub(crate) async fn start(site: &Site, wanted: &[Wanted<'_>], how: &How) -> anyhow::Result<ExitCode> {
    let each = if how.together { wanted.len().max(1) } else { 1 };
    let mut worst = ExitCode::SUCCESS;
    let actor = Actor { who: &how.by, why: how.reason.as_deref() };
    for wanted in wanted.chunks(each) {
        let rebuilds = rebuild::begin(site, wanted, how.from.wanted(), &how.options(), actor).await?;
        for rebuild in rebuilds.iter().filter(|rebuild| rebuild.options.from == Origin::EventStore) {
            println!("{}: its history is read from the event store", rebuild.read_model);
        }
        let code = finish(site, &rebuilds, how.detach).await?;
        if code != ExitCode::SUCCESS {
            worst = code;
        }
    }
    Ok(worst)
}

/// Waits until all of them have come to rest, unless they are left to the hosts.
pub(super) async fn finish(site: &Site, rebuilds: &[Rebuild], detach: bool) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = rebuilds.iter().map(|rebuild| rebuild.read_model.as_str()).collect();
    let names = names.join(", ");
    if detach {
        println!("{names}: left to the hosts; see `projector rebuild status`");
        return Ok(ExitCode::SUCCESS);
    }
    let several = rebuilds.len() > 1;
    let all = futures::future::try_join_all(rebuilds.iter().map(|rebuild| attend(site, rebuild, several)));
    tokio::select! {
        codes = all => Ok(codes?.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)),
        () = stop_signal() => {
            eprintln!("\n{names}: the hosts go on; `projector rebuild abort {}` ends it", rebuilds[0].read_model);
            Ok(ExitCode::FAILURE)
        }
    }
}
