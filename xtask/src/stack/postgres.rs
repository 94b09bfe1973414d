//! A Postgres cluster of our own, made by the distribution's binaries.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::Launch;
use crate::process;
use crate::progress::Row;
use crate::settings::{Instance, Port};

fn bin(program: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("PGBIN").context("PGBIN is not set: start this with ./dev")?;
    Ok(PathBuf::from(folder).join(program))
}

/// Postgres refuses to run as root: then it runs as the distribution's user, and keeps its pid through `setpriv`.
fn as_postgres(program: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
    if !rustix::process::geteuid().is_root() {
        return (program, arguments);
    }
    // From `/`: the user may not be able to enter the project's directory.
    let mut all: Vec<String> = ["--chdir=/", "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
        .map(str::to_owned)
        .into();
    all.push(program.display().to_string());
    all.extend(arguments);
    (PathBuf::from("env"), all)
}

/// Used when the user `postgres` cannot reach the project's directory, such as a checkout below /root.
pub(super) fn fallback_dir(instance: &Instance) -> PathBuf {
    instance.dir_below("/var/tmp")
}

async fn data_dir(instance: &Instance) -> anyhow::Result<PathBuf> {
    let home = instance.dir();
    let (program, arguments) = as_postgres(PathBuf::from("test"), vec!["-x".to_owned(), home.display().to_string()]);
    let reachable = Command::new(program).args(arguments).status().await.context("running test -x")?.success();
    let parent = if reachable { home } else { fallback_dir(instance) };
    Ok(parent.join("postgres"))
}

pub(super) async fn prepare(instance: &Instance, row: &Row) -> anyhow::Result<Launch> {
    let data = data_dir(instance).await?;
    if !data.join("PG_VERSION").is_file() {
        row.note("creating its cluster");
        create(instance, &data).await?;
    }
    forget_zombie(&data)?;
    // Rewritten at each start, so that a moved port or setting takes effect.
    let mut text = format!(
        "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\n",
        instance.port(Port::Postgres)
    );
    for (key, value) in settings(instance)? {
        text.push_str(&format!("{key} = '{value}'\n"));
    }
    fs::write(data.join("dev.conf"), text)?;
    own(&data.join("dev.conf"))?;
    row.note("starting");
    let (program, arguments) = as_postgres(bin("postgres")?, vec!["-D".to_owned(), data.display().to_string()]);
    Ok(Launch { program, arguments, env: BTreeMap::new() })
}

/// Postgres takes a killed server that nobody has reaped for a running one, and refuses to start.
fn forget_zombie(data: &Path) -> anyhow::Result<()> {
    let lock = data.join("postmaster.pid");
    let pid = fs::read_to_string(&lock).ok().and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
    match pid {
        Some(pid) if process::zombie(pid) => fs::remove_file(&lock).context("removing postmaster.pid of a dead server"),
        _ => Ok(()),
    }
}

/// What differs from Postgres' defaults; compose.yaml says the same.
pub(crate) fn settings(instance: &Instance) -> anyhow::Result<[(&'static str, String); 6]> {
    let configured = |key| instance.settings().get(key).map(str::to_owned);
    Ok([
        ("wal_level", "logical".to_owned()),
        ("max_connections", "200".to_owned()),
        ("shared_buffers", "128MB".to_owned()),
        ("max_wal_senders", configured("POSTGRES_MAX_WAL_SENDERS")?),
        ("max_replication_slots", configured("POSTGRES_MAX_REPLICATION_SLOTS")?),
        ("max_slot_wal_keep_size", configured("POSTGRES_MAX_SLOT_WAL_KEEP_SIZE")?),
    ])
}

async fn create(instance: &Instance, data: &Path) -> anyhow::Result<()> {
    // A cluster without PG_VERSION is what an interrupted initdb left.
    let _ = fs::remove_dir_all(data);
    fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
    own(data)?;
    let options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.push(data.display().to_string());
    let (program, arguments) = as_postgres(bin("initdb")?, arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    process::run_logged(instance, "initdb", &program, &arguments, &BTreeMap::new()).await?;
    let path = data.join("postgresql.conf");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("{text}\ninclude 'dev.conf'\n"))?;
    Ok(())
}

/// Gives a path to the user `postgres`; nothing to do when we are not root.
fn own(path: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let users = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let fields =
        users.lines().find(|line| line.starts_with("postgres:")).context("no user `postgres` in /etc/passwd")?;
    let mut numbers = fields.split(':').skip(2).map(str::parse::<u32>);
    let (Some(Ok(user)), Some(Ok(group))) = (numbers.next(), numbers.next()) else {
        bail!("no ids of user `postgres` in /etc/passwd");
    };
    chown(path, Some(user), Some(group)).with_context(|| format!("chown {}", path.display()))
}

async fn psql(instance: &Instance, what: &[&str]) -> anyhow::Result<String> {
    let port = instance.port(Port::Postgres).to_string();
    let output = Command::new(bin("psql")?)
        .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres"])
        .args(what)
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("running psql")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether the server takes queries (it listens before it has recovered).
pub(super) async fn accepts(instance: &Instance) -> bool {
    psql(instance, &["-c", "select 1"]).await.is_ok_and(|answer| answer == "1")
}

/// Role `app` and the databases, by the script that the container runs too.
pub(super) async fn create_databases(instance: &Instance) -> anyhow::Result<()> {
    let script = instance.root().join("compose/postgres/init.sql").display().to_string();
    psql(instance, &["-f", &script]).await.map(drop)
}
