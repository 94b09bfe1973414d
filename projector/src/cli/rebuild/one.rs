//! `projector rebuild one`: a single document, made anew by its owner.

use super::super::site::SiteArgs;
use super::About;
use crate::verbs::rebuild::{self, ONE_WITHIN};
use std::process::ExitCode;

pub(super) async fn make_anew(args: &SiteArgs, one: &About, key: &str) -> anyhow::Result<ExitCode> {
    let site = args.open(&one.by).await?;
    let order = rebuild::make_anew(&site, &one.name, key, one.actor()).await?;
    let answer = order.answer.unwrap_or_default();
    match order.outcome.as_deref() {
        Some("done") => {
            println!("{} `{key}`: {answer}", one.name);
            Ok(ExitCode::SUCCESS)
        }
        Some(_) => {
            eprintln!("{} `{key}`: {answer}", one.name);
            Ok(ExitCode::FAILURE)
        }
        None => anyhow::bail!("no host that owns `{key}` has done it within {ONE_WITHIN:?}; it is done once one runs"),
    }
}
