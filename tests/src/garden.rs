//! A projector with files, topics and a control store of its own, for what must not disturb the instance's: a garden, of plants
//! and beds, each a read model in Postgres.

use std::{ffi::OsString, fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};

use crate::{binary, eventually, outbox::Outbox, own_database, var};

/// An aggregate: its kind, its event, the event's number.
const PLANTS: (&str, &str, &str) = ("plant", "PlantGrew", "leaves");
const BEDS: (&str, &str, &str) = ("bed", "BedDug", "metres");
const POSTGRES: &str = "postgres: {}";
const LIMIT: Duration = Duration::from_secs(60);

/// See the module.
pub struct Garden {
    /// The read model of plants, also the aggregate's name.
    pub plants: String,
    /// The read model of beds, also the aggregate's name.
    pub beds: String,
    /// Its control store.
    pub control: String,
    folder: PathBuf,
    admin: String,
}

impl Garden {
    /// Writes its files and makes its control store. Its topics aren't there yet.
    ///
    /// # Errors
    /// When Postgres or the disk doesn't take them.
    pub async fn new() -> Result<Self> {
        Self::planted(&[(PLANTS, POSTGRES), (BEDS, POSTGRES)]).await
    }

    /// Of plants alone, in a database of Redis.
    ///
    /// # Errors
    /// As [`Garden::new`].
    pub async fn of_plants_in_redis(database: u32) -> Result<Self> {
        Self::planted(&[(PLANTS, &format!("redis: {{ prefix: \"plant:\", database: {database} }}"))]).await
    }

    async fn planted(read_models: &[((&str, &str, &str), &str)]) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let control = own_database("garden").await?;
        let suffix = control.rsplit_once('_').context("no suffix")?.1.to_owned();
        let folder = PathBuf::from(var("DEV_RUN_DIR")?).join(format!("garden-{suffix}"));
        let [plants, beds] = [PLANTS, BEDS].map(|(kind, ..)| format!("{kind}_{suffix}"));
        for ((kind, event, field), store) in read_models {
            let name = format!("{kind}_{suffix}");
            let (schemas, projections) = (folder.join("schemas").join(&name), folder.join("projections"));
            fs::create_dir_all(&schemas)?;
            fs::create_dir_all(&projections)?;
            let schema = format!(
                r#"{{"type": "record", "name": "{event}", "namespace": "garden.{name}.v1", "doc": "It did.",
                    "fields": [{{"name": "{field}", "type": "int"}}, {{"name": "note", "type": "string"}}]}}"#
            );
            fs::write(schemas.join(format!("{event}.v1.avsc")), schema)?;
            let projection = format!(
                "name: {name}\nstore: {{ {store} }}\non:\n  {event}: |\n    .{field} = %data.{field}\n    .note = %data.note\n"
            );
            fs::write(projections.join(format!("{name}.yaml")), projection)?;
        }
        let admin = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        Ok(Self { plants, beds, control, folder, admin })
    }

    /// Sets the limits of its plants.
    ///
    /// # Errors
    /// When the disk doesn't take them.
    pub fn limit_plants(&self, limits: &str) -> Result<()> {
        let path = self.folder.join("projections").join(format!("{}.yaml", self.plants));
        let text = fs::read_to_string(&path)?;
        Ok(fs::write(path, format!("{text}limits: {limits}\n"))?)
    }

    /// The topic of an aggregate.
    #[must_use]
    pub fn topic(name: &str) -> String {
        format!("events.{name}")
    }

    /// Sends its events.
    ///
    /// # Errors
    /// When the registry refuses its schemas.
    pub async fn outbox(&self) -> Result<Outbox> {
        Outbox::open(&self.folder.join("schemas")).await
    }

    /// What the projector is told by its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 5] {
        [
            ("CONTROL_DATABASE_URL", self.control.clone().into()),
            ("SCHEMAS_DIR", self.folder.join("schemas").into()),
            ("PROJECTIONS_DIR", self.folder.join("projections").into()),
            ("PROJECTOR_ADMIN_LISTEN", self.admin.clone().into()),
            ("PROJECTOR_INSTANCE_ID", self.plants.clone().into()),
        ]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("projector"));
        command.args(arguments).envs(self.environment()).kill_on_drop(true);
        command
    }

    /// Runs a verb to its end, whatever comes of it: what it printed to stdout and stderr, and whether it was a success.
    ///
    /// # Errors
    /// When it takes longer than a minute.
    pub async fn said(&self, arguments: &[&str], more: &[(&str, &str)]) -> Result<(String, String, bool)> {
        let output = self.command(arguments).envs(more.iter().copied()).output();
        let output =
            tokio::time::timeout(LIMIT, output).await.with_context(|| format!("{arguments:?} doesn't end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr), output.status.success()))
    }

    /// Makes its read models live. Topics that were just made may not be seen yet.
    ///
    /// # Errors
    /// When that fails for a minute.
    pub async fn apply(&self) -> Result<()> {
        eventually("the garden is applied", LIMIT, async || {
            let (out, errors, done) = self.said(&["apply"], &[]).await?;
            ensure!(done, "{out}{errors}");
            Ok(Some(()))
        })
        .await
    }

    /// Starts a host, whose log has a name.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn host(&self, name: &str, more: &[(&str, &str)]) -> Result<GardenHost> {
        let log = self.folder.join(format!("{name}.log"));
        let mut command = self.command(&["run"]);
        command.envs(more.iter().copied()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        Ok(GardenHost { child: command.spawn()?, log, url: format!("http://{}", self.admin) })
    }

    /// What `projector lag` says of a read model.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn line(&self, name: &str) -> Result<Value> {
        let (out, errors, _) = self.said(&["lag", "--output", "json"], &[]).await?;
        let report: Value = serde_json::from_str(&out).with_context(|| errors)?;
        let mut lines = report["read_models"].as_array().into_iter().flatten();
        lines.find(|line| line["read_model"] == name).cloned().with_context(|| format!("no {name} in {report:#}"))
    }

    /// Waits until so many messages of an aggregate's topic are handled.
    ///
    /// # Errors
    /// When they aren't within a minute.
    pub async fn handled(&self, name: &str, messages: i64) -> Result<()> {
        let mut control = PgConnection::connect(&self.control).await?;
        let sql = "select coalesce(sum((progress->>'next_offset')::bigint), 0)::bigint from progress where topic = $1";
        let limit = tokio::time::Instant::now() + LIMIT;
        loop {
            let found: i64 = sqlx::query_scalar(sql).bind(Self::topic(name)).fetch_one(&mut control).await?;
            if found == messages {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < limit, "{found} messages of {name} are handled, not {messages}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a document's number is this one, as direct readers see it.
    ///
    /// # Errors
    /// When it isn't within a minute.
    pub async fn shows(&self, name: &str, key: &str, number: i64) -> Result<()> {
        let field = if name == self.plants { PLANTS.2 } else { BEDS.2 };
        let sql = format!("select {field}::bigint from read_models.{name}_g1 where _key = $1");
        eventually(&format!("{name} {key} has {number} {field}"), LIMIT, async || {
            let mut store = PgConnection::connect(&var("READ_DATABASE_URL")?).await?;
            let found: Option<i64> =
                sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(key).fetch_optional(&mut store).await?;
            ensure!(found == Some(number), "it has {found:?}");
            Ok(Some(()))
        })
        .await
    }
}

/// A `projector run` of the garden's; killed when it is dropped.
pub struct GardenHost {
    child: Child,
    log: PathBuf,
    url: String,
}

impl GardenHost {
    /// What it has logged.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When that can't be learned.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it answers to whoever has this token.
    ///
    /// # Errors
    /// When it doesn't, or refuses.
    pub async fn answers(&self, path: &str, token: &str) -> Result<String> {
        let asked = reqwest::Client::new().get(format!("{}{path}", self.url)).bearer_auth(token).send().await?;
        Ok(asked.error_for_status()?.text().await?)
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// When it fails, or isn't gone within half a minute.
    pub async fn terminate(mut self) -> Result<()> {
        let pid =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("it ended")?;
        kill_process(pid, Signal::TERM)?;
        let status = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.context("it goes on")??;
        ensure!(status.success(), "{status}: {}", self.log()?);
        Ok(())
    }
}
