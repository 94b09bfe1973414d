//! Child processes. The projector's programs run as processes of their own, so that what they take is theirs alone. They are this
//! very program under another name: one build, and the same code as in `projector`.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// By this name the program is `projector`.
pub(crate) const PROJECTOR: &str = "projector";

/// Environment variables beside our own.
pub(crate) type Env = BTreeMap<&'static str, String>;

/// `projector` with these arguments.
pub(crate) fn projector(arguments: &[&str], env: &Env) -> Result<Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg0(PROJECTOR).args(arguments).envs(env).stdin(Stdio::null());
    // What a host of its own doesn't have: its writers, a connector, a fixed identity.
    for name in ["WRITE_DATABASE_URL", "CONNECT_URL", "PROJECTOR_INSTANCE_ID"] {
        command.env_remove(name);
    }
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    Ok(command)
}

/// Runs it to its end; what it prints goes to our stderr.
pub(crate) async fn finish(mut command: Command) -> Result<()> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await?;
    if !output.status.success() {
        bail!(
            "{:?} failed: {}{}",
            command.as_std().get_args().collect::<Vec<_>>(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A running host.
pub(crate) struct Host {
    child: Child,
    /// The process.
    pub(crate) pid: u32,
    /// Where it answers for metrics.
    pub(crate) listen: String,
}

impl Host {
    /// `projector run`.
    pub(crate) fn start(env: &Env, port: u16) -> Result<Self> {
        let mut env = env.clone();
        let listen = format!("127.0.0.1:{port}");
        env.insert("PROJECTOR_ADMIN_LISTEN", listen.clone());
        let child = projector(&["run"], &env)?.stdout(Stdio::null()).spawn()?;
        let pid = child.id().context("it ended at once")?;
        Ok(Self { child, pid, listen })
    }

    /// That it is still there.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "a host ended: {ended:?}");
        Ok(())
    }

    /// Stops it as an operator would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.context("a host doesn't stop")??;
        Ok(())
    }
}
