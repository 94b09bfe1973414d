//! What the files say is made live: read models created, their queries changed, given up. Rebuilds are another verb's
//! ([`super::rebuild`]).

use super::VerbError;
use super::rebuild::{Plan, topics};
use crate::control::Actor;
use crate::generation::{Change, Site, What};
use crate::host;

/// Does what the plan says of one read model; says what came of it. Of a rebuild it does nothing.
///
/// # Errors
/// [`VerbError`]; among them that a place can't be prepared.
pub(crate) async fn apply(
    site: &Site,
    plan: &Plan,
    change: &Change,
    prune: bool,
    actor: Actor<'_>,
) -> Result<Option<String>, VerbError> {
    let name = &change.read_model;
    let live = plan.live.iter().find(|generation| generation.read_model == *name);
    if change.what == What::Retire {
        let Some(live) = live else { return Ok(None) };
        if !prune {
            let message = "no file declares it; left as it is (`projector apply --prune` gives it up)";
            return Ok(Some(message.to_owned()));
        }
        let actor = Actor { why: actor.why.or(Some("no file declares it")), ..actor };
        if !site.control.give_up(live.generation_id, actor).await? {
            return Err(VerbError::Refused(format!("{name} is being rebuilt; `projector rebuild abort {name}` first")));
        }
        return Ok(Some("given up; the hosts remove its place".to_owned()));
    }
    let file = plan.files.iter().find(|(compiled, _)| compiled.projection.name.value == *name);
    let (Some((compiled, source)), false) = (file, change.what == What::Rebuild) else { return Ok(None) };
    let (generation, said) = match live {
        Some(generation) if change.what == What::InPlace => {
            site.control.update_config(generation.generation_id, &source.text, actor).await?;
            (generation.clone(), "changed in place (queries)")
        }
        Some(generation) => (generation.clone(), "unchanged"),
        None => {
            let topics = topics(site, compiled).await?;
            let fingerprint = compiled.fingerprint();
            (site.control.create_live(name, &fingerprint, &source.text, &topics, actor).await?, "created")
        }
    };
    // Also for an unchanged one: a store that lost its place gets it again. No other one goes live meanwhile.
    if let Some(stays) = site.control.stay_live(generation.generation_id).await? {
        let (_, sink) = host::open(&generation, &site.catalog, &site.stores)?;
        let failed = |what, error| VerbError::Refused(format!("{name}: can't {what}: {error}"));
        sink.prepare().await.map_err(|error| failed("prepare its place", error))?;
        sink.go_live().await.map_err(|error| failed("make its place the live one", error))?;
        drop(stays);
    }
    Ok(Some(format!("generation {} {said}", generation.generation)))
}
