//! `projector rebuild one`: a single document, made anew by its owner.

use super::super::site::SiteArgs;
use super::About;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long the owner may take.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn make_anew(args: &SiteArgs, one: &About, key: &str) -> anyhow::Result<ExitCode> {
    let site = args.open(&one.by).await?;
    let live = site.control.live().await?;
    let Some(live) = live.into_iter().find(|generation| generation.read_model == one.name) else {
        anyhow::bail!("no read model `{}` is live", one.name)
    };
    let id = site.control.order_document(live.generation_id, key, one.actor()).await?;
    let until = Instant::now() + LIMIT;
    loop {
        let order = site.control.remake(id).await?;
        let answer = order.answer.unwrap_or_default();
        match order.outcome.as_deref() {
            Some("done") => {
                println!("{} `{key}`: {answer}", one.name);
                return Ok(ExitCode::SUCCESS);
            }
            Some(_) => {
                eprintln!("{} `{key}`: {answer}", one.name);
                return Ok(ExitCode::FAILURE);
            }
            None if Instant::now() > until => {
                anyhow::bail!("no host that owns `{key}` has done it within {LIMIT:?}; it is done once one runs")
            }
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
