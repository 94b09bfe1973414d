//! The connectors that feed our topics: looked at, and started again.

use super::VerbError;
use crate::control::{Actor, Control};
use crate::source::{self, Connector};

/// All connectors of the cluster; `url` is Kafka Connect's, if it was named.
///
/// # Errors
/// It wasn't named, or doesn't answer.
pub(crate) async fn list(url: Option<&str>) -> Result<Vec<Connector>, VerbError> {
    Ok(source::connectors(named(url)?).await?)
}

/// Starts a connector and its tasks again.
///
/// # Errors
/// There is none of this name, or Connect doesn't answer.
pub(crate) async fn restart(
    control: &Control,
    url: Option<&str>,
    name: &str,
    actor: Actor<'_>,
) -> Result<(), VerbError> {
    let url = named(url)?;
    let known = source::connectors(url).await?;
    if !known.iter().any(|connector| connector.name == name) {
        let names: Vec<_> = known.iter().map(|connector| connector.name.as_str()).collect();
        return Err(VerbError::NotFound(format!("no connector `{name}`; there are {}", names.join(", "))));
    }
    // Said before it is done: nothing is done that nobody can find.
    control.log_action("connector restarted", name, actor).await?;
    Ok(source::restart(url, name).await?)
}

fn named(url: Option<&str>) -> Result<&str, VerbError> {
    let message = "where Kafka Connect answers isn't known: start `projector run` with --connect-url (CONNECT_URL)";
    url.ok_or_else(|| VerbError::Unconfigured(message.to_owned()))
}
