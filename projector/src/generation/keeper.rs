//! What hosts do for generations besides feeding them: drive rebuilds that nobody drives, give up what was kept for a way back
//! once its time is over, remove places that are no longer needed, and watch what went live lately. Any number of hosts may do so at once.

use super::health;
use super::job::{Ending, Job};
use super::site::{JobError, Site};
use crate::apply::Partition;
use crate::control::{Member, State};
use crate::host;
use chrono::{TimeDelta, Utc};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A place is removed once no host has fed it for this long.
const UNFED_FOR_S: i64 = 3;
/// How often a failing removal is said.
const SAY_EVERY: u32 = 60;

/// Works until `stop`.
pub async fn keep(site: Site, stop: CancellationToken) {
    let driven: Arc<Mutex<HashSet<i64>>> = Arc::default();
    let mut failed: HashMap<i64, u32> = HashMap::new();
    let mut watched = health::Watched::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = drive(&site, &driven, &stop).await {
            tracing::debug!(%error, "rebuilds weren't looked at");
        }
        if let Err(error) = tidy(&site, &mut failed).await {
            tracing::debug!(%error, "generations weren't tidied up");
        }
        if let Err(error) = watched.look(&site.control).await {
            tracing::debug!(%error, "the health of new generations wasn't looked at");
        }
    }
}

/// Takes up rebuilds that nobody drives.
async fn drive(site: &Site, driven: &Arc<Mutex<HashSet<i64>>>, stop: &CancellationToken) -> Result<(), JobError> {
    let ours = |id: &i64| driven.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
    let rebuilds = site.control.rebuilds().await?;
    for rebuild in rebuilds.into_iter().filter(|r| r.driver.is_none()) {
        if ours(&rebuild.rebuild_id) {
            continue;
        }
        let Some(mut job) = Job::take(site.clone(), rebuild.rebuild_id).await? else { continue };
        driven.lock().unwrap_or_else(PoisonError::into_inner).insert(rebuild.rebuild_id);
        let (driven, stop) = (Arc::clone(driven), stop.clone());
        tokio::spawn(async move {
            let ending = tokio::select! {
                ending = job.run(|_, _| {}) => Some(ending),
                () = stop.cancelled() => None,
            };
            match ending {
                Some(Ending::Live) => {
                    tracing::info!(read_model = rebuild.read_model, "rebuilt: another generation is live")
                }
                Some(Ending::Stopped(reason)) => {
                    tracing::debug!(read_model = rebuild.read_model, reason, "a rebuild waits")
                }
                _ => {}
            }
            driven.lock().unwrap_or_else(PoisonError::into_inner).remove(&rebuild.rebuild_id);
        });
    }
    Ok(())
}

/// Drops what is overdue and removes the places of what was dropped or given up.
async fn tidy(site: &Site, failed: &mut HashMap<i64, u32>) -> Result<(), JobError> {
    site.control.drop_overdue().await?;
    let members = site.control.members().await?;
    let gone = |member: &Member| matches!(member.state, State::Dropped | State::Abandoned);
    if !members.iter().any(gone) {
        return Ok(());
    }
    let fed_since = Utc::now() - TimeDelta::seconds(UNFED_FOR_S);
    let reports = site.control.host_status().await?;
    for member in members.iter().filter(|member| gone(member)) {
        let id = member.generation.generation_id;
        if reports.iter().any(|r| r.generation_id == id && r.updated_at > fed_since) {
            continue;
        }
        match remove(site, member).await {
            Ok(()) => {
                site.control.removed(id, &site.name).await?;
                tracing::info!(generation = member.generation.id(), "its place is removed");
            }
            Err(error) => {
                let tries = failed.entry(id).or_default();
                if tries.is_multiple_of(SAY_EVERY) {
                    tracing::warn!(generation = member.generation.id(), %error, "its place isn't removed yet");
                }
                *tries += 1;
            }
        }
    }
    Ok(())
}

async fn remove(site: &Site, member: &Member) -> Result<(), JobError> {
    let (_, sink) = host::open(&member.generation, &site.catalog, &site.stores)?;
    let topics = member.generation.topics.iter();
    let partitions: Vec<_> = topics
        .flat_map(|(topic, count)| (0..*count).map(|number| Partition { topic: topic.as_str().into(), number }))
        .collect();
    Ok(sink.remove(&partitions).await?)
}
