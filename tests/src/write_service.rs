//! A command-api on a database of its own, beside the instance's.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{binary, eventually, processes::log, var};

/// Killed when it is dropped.
#[derive(Debug)]
pub struct WriteService {
    /// Where it listens.
    pub url: String,
    child: Child,
    server: String,
    database: String,
}

impl WriteService {
    /// Makes the database, and starts the service; nothing of it reaches Kafka.
    ///
    /// # Errors
    /// When Postgres refuses, or the service doesn't get ready.
    pub async fn start() -> Result<Self> {
        // the schemas are in the registry then
        crate::tools::services_up().await?;
        let server = var("WRITE_DATABASE_URL")?;
        let database = format!("write_side_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&mut admin).await?;
        let base = server.rsplit_once('/').context("WRITE_DATABASE_URL has no database")?.0;
        let listen = format!("127.0.0.1:{}", std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let command = |verb: &str| {
            let mut command = Command::new(binary("command-api"));
            command
                .arg(verb)
                .env("WRITE_DATABASE_URL", format!("{base}/{database}"))
                // a slot belongs to the whole cluster
                .env("OUTBOX_SLOT", "")
                .env("KAFKA_BROKERS", "")
                .env("COMMAND_API_LISTEN", &listen)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        ensure!(command("migrate").status()?.success(), "the database can't be migrated");
        let child = command("serve").spawn().context("can't start command-api")?;
        let service = Self { url: format!("http://{listen}"), child, server, database };
        let ready = format!("{}/health/ready", service.url);
        eventually(&format!("{ready}, see also {}", log("command-api")), Duration::from_secs(20), || async {
            Ok(reqwest::get(&ready).await?.status().is_success().then_some(()))
        })
        .await?;
        Ok(service)
    }

    /// Takes the database away under it.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn drop_database(&self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.server).await?;
        let drop = format!("drop database if exists {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await?;
        Ok(())
    }

    /// Ends it, and its database.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn stop(self) -> Result<()> {
        self.drop_database().await
    }
}

impl Drop for WriteService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
