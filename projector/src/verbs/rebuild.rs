//! Another generation, while everything runs: begun, watched, held, ended, gone back from. The hosts drive what is begun here
//! unless the caller does.

use super::{VerbError, files};
use crate::control::{Actor, Generation, Member, New, Options, Origin, Rebuild, Remake, State, Verify};
use crate::generation::{Change, Site, What, changes, may_rebuild, origin};
use crate::projection::{Compiled, Source};
use crate::source::partition_counts;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How long the owner of a document may take to make it anew.
pub(crate) const ONE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Projections' files compared with what is live.
pub(crate) struct Plan {
    pub(crate) files: Vec<(Compiled, Source)>,
    pub(crate) live: Vec<Generation>,
    pub(crate) changes: Vec<Change>,
}

/// Compares files with what is live; folders are all that there should be.
///
/// # Errors
/// [`VerbError`]; among them all that is wrong in the files.
pub(crate) async fn plan(site: &Site, paths: &[PathBuf]) -> Result<Plan, VerbError> {
    let files = files::load(paths, &site.catalog)?;
    let live = site.control.live().await?;
    let changes = changes(&live, &files, files::are_all(paths), &site.catalog);
    Ok(Plan { files, live, changes })
}

/// What is to be built, and the fields that may differ then.
pub(crate) struct Wanted<'a> {
    pub(crate) compiled: &'a Compiled,
    pub(crate) source: &'a Source,
    pub(crate) announced: Option<Vec<String>>,
    /// What the plan says of it.
    pub(crate) change: &'a Change,
}

impl Plan {
    /// What is built when these read models are, whether the plan says so or not.
    ///
    /// # Errors
    /// No file declares one of them.
    pub(crate) fn wanted(&self, names: &[String]) -> Result<Vec<Wanted<'_>>, VerbError> {
        if let Some(name) = names.iter().find(|name| !self.declares(name)) {
            return Err(VerbError::NotFound(format!("no file of the projections declares the read model `{name}`")));
        }
        let changes = self.changes.iter().filter(|change| names.contains(&change.read_model));
        Ok(changes.filter_map(|change| self.one(change)).collect())
    }

    /// What is built where documents change.
    pub(crate) fn rebuilds(&self) -> Vec<Wanted<'_>> {
        self.changes.iter().filter(|c| c.what == What::Rebuild).filter_map(|change| self.one(change)).collect()
    }

    fn declares(&self, name: &str) -> bool {
        self.files.iter().any(|(compiled, _)| compiled.projection.name.value == name)
    }

    fn one<'a>(&'a self, change: &'a Change) -> Option<Wanted<'a>> {
        let (compiled, source) = self.files.iter().find(|(c, _)| c.projection.name.value == change.read_model)?;
        // The same projection again must give the same documents.
        let announced = if change.what == What::Rebuild { change.fields.clone() } else { Some(Vec::new()) };
        Some(Wanted { compiled, source, announced, change })
    }
}

/// Begins rebuilds that go live at one barrier, all or none. `from`: where the history must be read, if not where it is.
///
/// # Errors
/// [`VerbError`]; among them that one of them is under way, and that its history is nowhere to be read.
pub(crate) async fn begin(
    site: &Site,
    wanted: &[Wanted<'_>],
    from: Option<Origin>,
    options: &Options,
    actor: Actor<'_>,
) -> Result<Vec<Rebuild>, VerbError> {
    let mut ready: Vec<(String, BTreeMap<String, i32>, Options)> = Vec::new();
    for Wanted { compiled, announced, .. } in wanted {
        let topics = topics(site, compiled).await?;
        may_rebuild(site, compiled).await?;
        let from = origin(site, &compiled.projection.name.value, &topics, from).await?;
        ready.push((compiled.fingerprint(), topics, Options { from, announced: announced.clone(), ..options.clone() }));
    }
    let all: Vec<New<'_>> = wanted
        .iter()
        .zip(&ready)
        .map(|(wanted, (fingerprint, topics, options))| New {
            read_model: &wanted.compiled.projection.name.value,
            fingerprint,
            config: &wanted.source.text,
            topics,
            options,
        })
        .collect();
    Ok(site.control.start_rebuilds(&all, actor).await?)
}

/// The topics that feed a read model, with their number of partitions.
///
/// # Errors
/// Kafka doesn't answer, or lacks one.
pub(super) async fn topics(site: &Site, compiled: &Compiled) -> Result<BTreeMap<String, i32>, VerbError> {
    let (kafka, topics) = (site.kafka.clone(), compiled.topics());
    // The client library waits for the broker.
    let counts = tokio::task::spawn_blocking(move || partition_counts(&kafka, &topics)).await;
    Ok(counts.map_err(|error| VerbError::Refused(format!("Kafka wasn't asked: {error}")))??)
}

/// Builds what is live anew, as it was applied, without the one that is lost.
///
/// # Errors
/// [`VerbError`].
pub(crate) async fn repair(
    site: &Site,
    name: &str,
    from: Option<Origin>,
    actor: Actor<'_>,
) -> Result<Vec<Rebuild>, VerbError> {
    let live = live(site, name).await?;
    let (compiled, _) = crate::host::open(&live, &site.catalog, &site.stores)?;
    may_rebuild(site, &compiled).await?;
    let from = origin(site, name, &live.topics, from).await?;
    let options = Options { back: false, repair: true, from, ..Options::back(Verify::Sample(0)) };
    let new = New {
        read_model: &live.read_model,
        fingerprint: &live.fingerprint,
        config: &live.config,
        topics: &live.topics,
        options: &options,
    };
    Ok(site.control.start_rebuilds(&[new], actor).await?)
}

/// Lets a verified generation go live, with all that go live with it.
///
/// # Errors
/// [`VerbError`]; among them that nothing is under way.
pub(crate) async fn promote(
    site: &Site,
    name: &str,
    despite: bool,
    actor: Actor<'_>,
) -> Result<Vec<Rebuild>, VerbError> {
    let rebuild = under_way(site, name).await?;
    site.control.ask_promotion(&rebuild, despite, actor).await?;
    let mut all = vec![site.control.rebuild(rebuild.lead()).await?];
    all.extend(site.control.rebuilds_led_by(rebuild.lead()).await?);
    Ok(all)
}

/// Goes back to the generations that were live before, or forward again: all at one barrier, or none.
///
/// # Errors
/// [`VerbError`]; among them that there is none to go to.
pub(crate) async fn roll_back(site: &Site, names: &[String], actor: Actor<'_>) -> Result<Vec<Rebuild>, VerbError> {
    Ok(site.control.start_ways_back(names, &Options::back(Verify::Sample(100)), actor).await?)
}

/// Ends a rebuild before it is live.
///
/// # Errors
/// [`VerbError`]; among them that nothing is under way, and that the decision has fallen.
pub(crate) async fn abort(site: &Site, name: &str, actor: Actor<'_>) -> Result<(), VerbError> {
    Ok(site.control.abort_rebuild(&under_way(site, name).await?, actor).await?)
}

/// Stops feeding the new generation, or the former one, or feeds it again; says what came of it.
///
/// # Errors
/// [`VerbError`]; among them that there is neither.
pub(crate) async fn pause(site: &Site, name: &str, pause: bool, actor: Actor<'_>) -> Result<&'static str, VerbError> {
    let target = match site.control.rebuild_of(name).await? {
        Some(rebuild) => Some(rebuild.generation_id),
        None => former(site, name).await?.map(|member| member.generation.generation_id),
    };
    let target = target.ok_or_else(|| {
        let message = "isn't being rebuilt, and has no former generation; see `projector rebuild status`";
        VerbError::Refused(format!("{name} {message}"))
    })?;
    let changed = site.control.pause(target, pause, actor).await?;
    Ok(match (pause, changed) {
        (true, true) => "paused",
        (false, true) => "goes on",
        (true, false) => "was paused already, or is live",
        (false, false) => "wasn't paused",
    })
}

/// Gives up the former generation before its time; gives it.
///
/// # Errors
/// [`VerbError`]; among them that there is none, or that it is about to be live again.
pub(crate) async fn retire(site: &Site, name: &str, actor: Actor<'_>) -> Result<Generation, VerbError> {
    let member = former(site, name).await?.ok_or_else(|| {
        VerbError::Refused(format!("{name} has no former generation; see `projector rebuild status`"))
    })?;
    if !site.control.retire(member.generation.generation_id, actor).await? {
        let message = format!("{name} is on its way back to it; `projector rebuild abort {name}` first");
        return Err(VerbError::Refused(message));
    }
    Ok(member.generation)
}

/// Has a document made anew by its owner; gives what came of it, or the order as it is if nothing has within the time.
///
/// # Errors
/// [`VerbError`].
pub(crate) async fn make_anew(site: &Site, name: &str, key: &str, actor: Actor<'_>) -> Result<Remake, VerbError> {
    let live = live(site, name).await?;
    let id = site.control.order_document(live.generation_id, key, actor).await?;
    let until = Instant::now() + ONE_WITHIN;
    loop {
        let order = site.control.remake(id).await?;
        if order.outcome.is_some() || Instant::now() > until {
            return Ok(order);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn under_way(site: &Site, name: &str) -> Result<Rebuild, VerbError> {
    let rebuild = site.control.rebuild_of(name).await?;
    rebuild.ok_or_else(|| VerbError::Refused(format!("{name} isn't being rebuilt; see `projector rebuild status`")))
}

async fn live(site: &Site, name: &str) -> Result<Generation, VerbError> {
    let live = site.control.live().await?;
    let live = live.into_iter().find(|generation| generation.read_model == name);
    live.ok_or_else(|| VerbError::NotFound(format!("no read model `{name}` is live; `projector apply` creates it")))
}

async fn former(site: &Site, name: &str) -> Result<Option<Member>, VerbError> {
    let members = site.control.members().await?;
    Ok(members.into_iter().rev().find(|m| m.generation.read_model == name && m.state == State::Retired))
}
