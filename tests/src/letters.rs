//! Dead letters, by the CLI as an operator has it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::{eventually, processes::log, tools};

const LIMIT: Duration = Duration::from_secs(30);

/// What `projector dlq list` lists.
///
/// # Errors
/// When it fails.
pub async fn list() -> Result<Vec<Value>> {
    let all = tools::json("projector", &["dlq", "list", "--output", "json"], LIMIT).await?;
    all["dead_letters"].as_array().cloned().with_context(|| format!("no list in {all}"))
}

/// The dead letters must be of these orders, and of each of them there must be one.
///
/// # Errors
/// When they are not, with all of them.
pub async fn are_of(orders: &[Uuid]) -> Result<()> {
    let letters = list().await?;
    let found: BTreeSet<String> =
        letters.iter().filter_map(|letter| letter["aggregate_id"].as_str()).map(str::to_owned).collect();
    let expected: BTreeSet<String> = orders.iter().map(Uuid::to_string).collect();
    ensure!(found == expected, "dead letters of {expected:?} expected, see {}: {letters:#?}", log("projector-run"));
    Ok(())
}

/// Waits until every one of these read models has parked the event, and another one behind it.
///
/// # Errors
/// When it isn't so within half a minute.
pub async fn parked(read_models: &[String], event: Uuid) -> Result<()> {
    let what = format!("{event} parked with one behind it by {read_models:?}, see {}", log("projector-run"));
    eventually(&what, LIMIT, || async {
        let letters = list().await?;
        for name in read_models {
            let is = |letter: &&Value| letter["read_model"] == **name && letter["dead_letter_id"] == event.to_string();
            let letter = letters.iter().find(is).with_context(|| format!("{name} has not: {letters:#?}"))?;
            ensure!(letter["reason"].is_string(), "not parked for a fault: {letter}");
            ensure!(letter["waiting"] == 1, "not one behind it: {letter}");
        }
        Ok(Some(()))
    })
    .await
}

/// Everything about one letter of a read model.
///
/// # Errors
/// When there is no such letter.
pub async fn show(read_model: &str, event: Uuid) -> Result<Value> {
    let id = event.to_string();
    let shown =
        tools::json("projector", &["dlq", "show", &id, "--read-model", read_model, "--output", "json"], LIMIT).await?;
    shown["dead_letters"].get(0).cloned().with_context(|| format!("{id} is not shown: {shown}"))
}

/// Passes over a letter of a read model.
///
/// # Errors
/// When the owner doesn't do it.
pub async fn skip(read_model: &str, event: Uuid, reason: &str) -> Result<()> {
    let id = event.to_string();
    let arguments =
        ["dlq", "skip", &id, "--read-model", read_model, "--reason", reason, "--by", "tests", "--output", "json"];
    let answer = tools::json("projector", &arguments, LIMIT).await?;
    ensure!(answer["dead_letters"][0]["state"] == "skipped", "{answer}");
    Ok(())
}
