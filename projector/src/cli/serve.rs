//! `projector serve` (a colleague writes it).

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServeArgs {}

pub(super) async fn run(_args: ServeArgs) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
