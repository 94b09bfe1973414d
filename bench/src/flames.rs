//! Flame graphs: where a host's processor time goes. `perf` samples its stacks, `inferno` draws them.
//!
//! Stacks are unwound by the program's own tables (DWARF), so that the build which is sampled is the one that is measured; a function
//! that the compiler put into its caller is counted there.

use anyhow::{Context as _, Result, ensure};
use inferno::collapse::Collapse as _;
use inferno::collapse::perf::Folder;
use inferno::flamegraph;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Samples a second of each thread that runs: an odd number, which doesn't fall into step with anything.
const A_SECOND: &str = "499";
/// Of the stack, at each sample.
const STACK_BYTES: u32 = 16_384;
/// How long `perf` may take to begin.
const ATTACHED_AFTER: Duration = Duration::from_millis(500);
/// What takes less of the whole than this percentage isn't drawn.
const LEAST_PERCENT: f64 = 0.2;

/// Stacks of a process, being taken.
pub(crate) struct Samples {
    perf: Child,
    file: PathBuf,
}

impl Samples {
    /// From now on; threads that are begun while `perf` looks for those that are there would be missed.
    pub(crate) async fn take(pid: u32) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("bench-{pid}.perf"));
        let stacks = format!("dwarf,{STACK_BYTES}");
        let perf = Command::new("perf")
            .args(["record", "-q", "-F", A_SECOND, "-g", "--call-graph", &stacks, "-p", &pid.to_string(), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("flame graphs need perf: apt install linux-perf")?;
        tokio::time::sleep(ATTACHED_AFTER).await;
        Ok(Self { perf, file })
    }

    /// Ends, and draws.
    pub(crate) async fn draw(mut self, to: &Path, title: &str) -> Result<()> {
        let pid = self.perf.id().context("perf ended by itself")?;
        Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
        self.perf.wait().await?;
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-i"])
            .arg(&self.file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(script.status.success(), "perf script: {}", String::from_utf8_lossy(&script.stderr));
        std::fs::remove_file(&self.file)?;
        let mut stacks = Vec::new();
        Folder::default().collapse(script.stdout.as_slice(), &mut stacks)?;
        let stacks = String::from_utf8(stacks)?;
        let mut options = flamegraph::Options::default();
        options.title = title.to_owned();
        options.subtitle = Some("processor time of `projector run`, by function".to_owned());
        options.min_width = LEAST_PERCENT;
        // The same function has the same colour in each of them.
        options.hash = true;
        std::fs::create_dir_all(to.parent().context("no folder")?)?;
        let mut svg = std::io::BufWriter::new(std::fs::File::create(to)?);
        flamegraph::from_lines(&mut options, stacks.lines(), &mut svg)?;
        eprintln!("    {}", to.display());
        Ok(())
    }
}
