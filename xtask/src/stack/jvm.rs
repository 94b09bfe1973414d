//! Kafka, Kafka Connect and the schema registry: one JVM each, with small heaps.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Launch, download};
use crate::process;
use crate::progress::Row;
use crate::settings::{Instance, Port};

const SMALL: [&str; 4] = ["-XX:+UseSerialGC", "-Xss512k", "-XX:MaxMetaspaceSize=160m", "-Djava.awt.headless=true"];

/// A JVM with a class data archive, which is written at its first stop and halves later starts.
fn java(instance: &Instance, name: &str, heap: [&str; 2], rest: &[String]) -> anyhow::Result<Launch> {
    let archives = instance.cache().join("cds");
    process::create_dir(&archives)?;
    let archive = archives.join(format!("{}-{name}.jsa", instance.name()));
    let mut arguments: Vec<String> = heap.iter().chain(&SMALL).map(|&text| text.to_owned()).collect();
    arguments.push("-XX:+AutoCreateSharedArchive".to_owned());
    arguments.push(format!("-XX:SharedArchiveFile={}", archive.display()));
    arguments.extend(["-Xlog:cds=off".to_owned(), "-Xlog:cds+dynamic=off".to_owned()]);
    arguments.extend_from_slice(rest);
    Ok(Launch { program: download::java_home()?.join("bin/java"), arguments, env: BTreeMap::new() })
}

fn kafka_classpath(instance: &Instance) -> anyhow::Result<Vec<String>> {
    let log4j = instance.root().join("compose/native/kafka/log4j2.yaml");
    let jars = download::jars(instance)?.join("kafka");
    Ok(vec![
        format!("-Dlog4j2.configurationFile={}", log4j.display()),
        "-cp".to_owned(),
        format!("{}/*", jars.display()),
    ])
}

/// A broker that is its own controller (KRaft); its storage is formatted once.
pub(super) async fn kafka(instance: &Instance, row: &Row) -> anyhow::Result<Launch> {
    let data = instance.dir().join("kafka");
    let config = instance.dir().join("conf/server.properties");
    let (port, controller) = (instance.port(Port::Kafka), instance.port(Port::KafkaController));
    let text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=4
{shared}",
        data = data.display(),
        shared = fs::read_to_string(instance.root().join("compose/native/kafka/server.properties"))?,
    );
    fs::write(&config, text)?;
    if !data.join("meta.properties").is_file() {
        row.note("formatting its storage");
        let id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        let mut arguments = vec!["-XX:TieredStopAtLevel=1".to_owned(), "-XX:+UseSerialGC".to_owned()];
        arguments.extend(kafka_classpath(instance)?);
        // `=` keeps an id that begins with '-' from being read as an option.
        arguments.extend(["kafka.tools.StorageTool", "format", "--standalone"].map(str::to_owned));
        arguments.extend([format!("--cluster-id={id}"), "-c".to_owned(), config.display().to_string()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let java = download::java_home()?.join("bin/java");
        process::run_logged(instance, "kafka-format", &java, &arguments, &BTreeMap::new()).await?;
    }
    row.note("starting");
    let mut rest = kafka_classpath(instance)?;
    rest.extend(["kafka.Kafka".to_owned(), config.display().to_string()]);
    java(instance, "kafka", ["-Xms128m", "-Xmx256m"], &rest)
}

/// A distributed worker; its settings are connectors/worker.properties plus what only this machine knows.
pub(super) fn connect(instance: &Instance) -> anyhow::Result<Launch> {
    let config = instance.dir().join("conf/connect.properties");
    let (kafka, port) = (instance.port(Port::Kafka), instance.port(Port::Connect));
    let text = format!(
        "{shared}
bootstrap.servers=127.0.0.1:{kafka}
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
rest.advertised.port={port}
plugin.path={plugins}
",
        shared = fs::read_to_string(instance.root().join("connectors/worker.properties"))?,
        plugins = download::jars(instance)?.join("plugins").display(),
    );
    fs::write(&config, text)?;
    let mut rest = kafka_classpath(instance)?;
    rest.extend(["org.apache.kafka.connect.cli.ConnectDistributed".to_owned(), config.display().to_string()]);
    let mut launch = java(instance, "connect", ["-Xms128m", "-Xmx320m"], &rest)?;
    launch.env = connector_variables(instance)?;
    Ok(launch)
}

/// What connectors/outbox.json reads through Connect's EnvVarConfigProvider.
pub(crate) fn connector_variables(instance: &Instance) -> anyhow::Result<BTreeMap<String, String>> {
    let settings = instance.settings();
    Ok([
        ("OUTBOX_DATABASE_HOST", "127.0.0.1".to_owned()),
        ("OUTBOX_DATABASE_PORT", instance.port(Port::Postgres).to_string()),
        ("OUTBOX_DATABASE_NAME", "app".to_owned()),
        ("OUTBOX_DATABASE_USER", settings.get("DEBEZIUM_USER")?.to_owned()),
        ("OUTBOX_DATABASE_PASSWORD", settings.get("DEBEZIUM_PASSWORD")?.to_owned()),
        ("OUTBOX_TOPIC_PARTITIONS", settings.get("TOPIC_PARTITIONS")?.to_owned()),
        ("OUTBOX_TOPIC_REPLICATION_FACTOR", settings.get("TOPIC_REPLICATION_FACTOR")?.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into())
}

/// Apicurio, with its schemas in Postgres (in memory without these settings).
pub(super) fn registry(instance: &Instance) -> anyhow::Result<Launch> {
    let jar = download::jars(instance)?.join("registry/quarkus-run.jar");
    let mut launch =
        java(instance, "registry", ["-Xms64m", "-Xmx192m"], &["-jar".to_owned(), jar.display().to_string()])?;
    let database = format!("jdbc:postgresql://127.0.0.1:{}/registry", instance.port(Port::Postgres));
    launch.env = [
        ("APICURIO_STORAGE_KIND", "sql".to_owned()),
        ("APICURIO_STORAGE_SQL_KIND", "postgresql".to_owned()),
        ("APICURIO_DATASOURCE_URL", database),
        ("APICURIO_DATASOURCE_USERNAME", "postgres".to_owned()),
        ("APICURIO_DATASOURCE_PASSWORD", "unused-by-trust".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_INITIAL_SIZE", "2".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_MIN_SIZE", "2".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_MAX_SIZE", "8".to_owned()),
        ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
        ("QUARKUS_HTTP_PORT", instance.port(Port::Registry).to_string()),
        ("QUARKUS_MANAGEMENT_HOST", "127.0.0.1".to_owned()),
        ("QUARKUS_MANAGEMENT_PORT", instance.port(Port::RegistryManagement).to_string()),
        ("QUARKUS_HTTP_ACCESS_LOG_ENABLED", "false".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    Ok(launch)
}
