//! What an instance is: its ports, URLs, directories and the environment of our services, all derived from `compose/.env`.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The pairs of `compose/.env`, each overridden by the environment variable of the same name.
#[derive(Clone)]
pub(crate) struct Settings {
    root: PathBuf,
    values: BTreeMap<String, String>,
}

impl Settings {
    /// Reads `compose/.env` of the project that the current directory belongs to.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let current = std::env::current_dir().context("reading the current directory")?;
        let root = current
            .ancestors()
            .find(|folder| folder.join("compose/.env").is_file())
            .context("no compose/.env in this directory or above it: run ./dev inside the project")?
            .to_path_buf();
        let mut settings = Self::read(root)?;
        for (key, value) in &mut settings.values {
            if let Ok(moved) = std::env::var(key) {
                *value = moved;
            }
        }
        Ok(settings)
    }

    /// The file alone, of the project at `root`.
    pub(crate) fn read(root: PathBuf) -> anyhow::Result<Self> {
        let path = root.join("compose/.env");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { root, values: parse(&text)? })
    }

    /// The value of a key, or an error that says where it belongs.
    pub(crate) fn get(&self, key: &str) -> anyhow::Result<&str> {
        self.values.get(key).map(String::as_str).with_context(|| format!("compose/.env has no {key}"))
    }

    fn port(&self, key: &str) -> anyhow::Result<u16> {
        let text = self.get(key)?;
        text.parse().with_context(|| format!("{key}={text} is not a port number"))
    }
}

/// KEY=VALUE lines; comments and blank lines are skipped. Quotes and expansion are not supported, nor needed.
pub(crate) fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) =
            line.split_once('=').with_context(|| format!("compose/.env:{}: expected KEY=VALUE", index + 1))?;
        values.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(values)
}

/// Every port that something of an instance listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Port {
    Postgres,
    Kafka,
    KafkaController,
    Registry,
    RegistryManagement,
    Connect,
    Redis,
    Search,
    SearchTransport,
    Elasticsearch7,
    Elasticsearch7Transport,
    Clickhouse,
    ClickhouseTcp,
    CommandApi,
    Query,
    ProjectorAdmin,
}

impl Port {
    const ALL: [Self; 16] = [
        Self::Postgres,
        Self::Kafka,
        Self::KafkaController,
        Self::Registry,
        Self::RegistryManagement,
        Self::Connect,
        Self::Redis,
        Self::Search,
        Self::SearchTransport,
        Self::Elasticsearch7,
        Self::Elasticsearch7Transport,
        Self::Clickhouse,
        Self::ClickhouseTcp,
        Self::CommandApi,
        Self::Query,
        Self::ProjectorAdmin,
    ];

    /// Its key in `compose/.env`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Postgres => "POSTGRES_PORT",
            Self::Kafka => "KAFKA_PORT",
            Self::KafkaController => "KAFKA_CONTROLLER_PORT",
            Self::Registry => "REGISTRY_PORT",
            Self::RegistryManagement => "REGISTRY_MANAGEMENT_PORT",
            Self::Connect => "CONNECT_PORT",
            Self::Redis => "REDIS_PORT",
            Self::Search => "SEARCH_PORT",
            Self::SearchTransport => "SEARCH_TRANSPORT_PORT",
            Self::Elasticsearch7 => "ELASTICSEARCH7_PORT",
            Self::Elasticsearch7Transport => "ELASTICSEARCH7_TRANSPORT_PORT",
            Self::Clickhouse => "CLICKHOUSE_PORT",
            Self::ClickhouseTcp => "CLICKHOUSE_TCP_PORT",
            Self::CommandApi => "COMMAND_API_PORT",
            Self::Query => "QUERY_PORT",
            Self::ProjectorAdmin => "PROJECTOR_ADMIN_PORT",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The name of the tests' instance.
pub(crate) const TEST: &str = "test";

/// One running copy of everything: `dev` for people, `test` for the tests.
#[derive(Clone)]
pub(crate) struct Instance {
    name: String,
    settings: Settings,
    ports: BTreeMap<Port, u16>,
    release: bool,
    answers_first: bool,
    more: BTreeMap<String, String>,
}

impl Instance {
    /// Names an instance; `test` has every port moved by TEST_PORT_OFFSET.
    pub(crate) fn new(settings: Settings, name: &str) -> anyhow::Result<Self> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            bail!("instance name {name:?}: only letters, digits and '-' are allowed");
        }
        let offset = if name == TEST { settings.port("TEST_PORT_OFFSET")? } else { 0 };
        let mut ports = BTreeMap::new();
        for port in Port::ALL {
            let number = settings.port(port.key())?;
            let moved =
                number.checked_add(offset).with_context(|| format!("{port} + TEST_PORT_OFFSET is above 65535"))?;
            ports.insert(port, moved);
        }
        let answers_first = name != TEST;
        Ok(Self { name: name.to_owned(), settings, ports, release: false, answers_first, more: BTreeMap::new() })
    }

    /// The same, with our own binaries as `cargo build --release` leaves them.
    #[must_use]
    pub(crate) fn released(self) -> Self {
        Self { release: true, ..self }
    }

    /// The same, on which who waits for an answer comes before what follows behind: as every instance but that of the tests.
    #[must_use]
    pub(crate) fn answers_first(self) -> Self {
        Self { answers_first: true, ..self }
    }

    /// The same, with more in the environment of our services.
    #[must_use]
    pub(crate) fn with(mut self, variables: &[(&str, &str)]) -> Self {
        self.more.extend(variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self
    }

    /// Whether processes have unequal shares of the machine. Those of tests have equal ones: what they ask of partitions that
    /// change hands, as fast as the engine answers, must hold without favour.
    pub(crate) fn has_answers_first(&self) -> bool {
        self.answers_first
    }

    /// Whether its services are built as for production.
    pub(crate) fn is_released(&self) -> bool {
        self.release
    }

    /// Whether it is the one that the tests use, and nobody else.
    pub(crate) fn is_for_tests(&self) -> bool {
        self.name == TEST
    }

    /// The instance's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The pairs of `compose/.env`.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The project's root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.settings.root
    }

    /// State of the instance: `pid/`, `log/`, `conf/` and one directory a component.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root().join("run").join(&self.name)
    }

    /// A directory of the instance outside the project, for what can't or shouldn't be in [`Self::dir`].
    pub(crate) fn dir_below(&self, parent: &str) -> PathBuf {
        let inode = std::fs::metadata(self.root()).map(|data| data.ino()).unwrap_or_default();
        Path::new(parent).join(format!("projection-platform-{inode}-{}", self.name))
    }

    /// Downloads, shared by the instances.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root().join(".cache/stack")
    }

    /// The log file of a component or service.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir().join("log").join(format!("{name}.log"))
    }

    /// The pid file of a component or service; it holds the pid alone.
    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.dir().join("pid").join(name)
    }

    /// One of our own binaries, as cargo leaves it.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target().join(if self.release { "release" } else { "debug" }).join(name)
    }

    fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root().join("target"), PathBuf::from)
    }

    /// A port's number in this instance.
    pub(crate) fn port(&self, port: Port) -> u16 {
        self.ports[&port]
    }

    /// `http://127.0.0.1:<port>`
    pub(crate) fn http(&self, port: Port) -> String {
        format!("http://127.0.0.1:{}", self.port(port))
    }

    fn listen(&self, port: Port) -> String {
        format!("127.0.0.1:{}", self.port(port))
    }

    fn postgres_url(&self, database: &str) -> String {
        format!("postgres://app@127.0.0.1:{}/{database}", self.port(Port::Postgres))
    }

    /// The only configuration of our services and tests; see README for what each variable means.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut env: BTreeMap<String, String> = self
            .settings
            .values
            .iter()
            .filter(|(key, _)| {
                ["TOPIC_", "DEBEZIUM_", "CLICKHOUSE_DATABASE"].iter().any(|prefix| key.starts_with(prefix))
            })
            .filter(|(key, _)| *key != "DEBEZIUM_VERSION")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let derived = [
            // Everything is on loopback: a proxy of the machine must not be asked for it.
            ("NO_PROXY", no_proxy()),
            ("DEV_INSTANCE", self.name.clone()),
            ("DEV_RUN_DIR", text(self.dir())),
            ("WRITE_DATABASE_URL", self.postgres_url("app")),
            ("CONTROL_DATABASE_URL", self.postgres_url("control")),
            ("READ_DATABASE_URL", self.postgres_url("read_models")),
            ("KAFKA_BROKERS", self.listen(Port::Kafka)),
            ("SCHEMA_REGISTRY_URL", format!("{}/apis/ccompat/v7", self.http(Port::Registry))),
            ("CONNECT_URL", self.http(Port::Connect)),
            ("REDIS_URL", format!("redis://127.0.0.1:{}", self.port(Port::Redis))),
            ("ELASTICSEARCH_URL", self.http(Port::Search)),
            ("CLICKHOUSE_URL", self.http(Port::Clickhouse)),
            ("SCHEMAS_DIR", text(self.root().join("schemas"))),
            ("PROJECTIONS_DIR", text(self.root().join("projections"))),
            ("CONNECTORS_DIR", text(self.root().join("connectors"))),
            ("COMMAND_API_LISTEN", self.listen(Port::CommandApi)),
            ("COMMAND_API_URL", self.http(Port::CommandApi)),
            ("QUERY_LISTEN", self.listen(Port::Query)),
            ("QUERY_URL", self.http(Port::Query)),
            ("PROJECTOR_ADMIN_LISTEN", self.listen(Port::ProjectorAdmin)),
            ("PROJECTOR_ADMIN_URL", self.http(Port::ProjectorAdmin)),
            // For loopback alone, as all of this; no secret.
            ("ADMIN_TOKEN", "local-development-only".to_owned()),
            // A killed projector takes its partitions back at once, not when the group gives it up after 10 s.
            ("PROJECTOR_INSTANCE_ID", self.name().to_owned()),
            ("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())),
        ];
        env.extend(derived.map(|(key, value)| (key.to_owned(), value)));
        if self.is_for_tests() {
            env.insert("ELASTICSEARCH7_URL".to_owned(), self.http(Port::Elasticsearch7));
        }
        env.extend(self.more.clone());
        env
    }
}

fn no_proxy() -> String {
    let set = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).filter(|text| !text.is_empty());
    set.into_iter().chain(["127.0.0.1,localhost".to_owned()]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::read(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()).unwrap()
    }

    #[test]
    fn test_instance_moves_every_port_and_url() {
        let dev = Instance::new(settings(), "dev").unwrap();
        let test = Instance::new(settings(), "test").unwrap();
        for port in Port::ALL {
            assert_eq!(test.port(port), dev.port(port) + 2000, "{port}");
        }
        assert_eq!(dev.env()["KAFKA_BROKERS"], "127.0.0.1:19092");
        assert_eq!(test.env()["WRITE_DATABASE_URL"], "postgres://app@127.0.0.1:17432/app");
        assert!(test.env()["DEV_RUN_DIR"].ends_with("run/test"));
    }

    #[test]
    fn a_line_without_a_value_is_named() {
        let error = parse("A=1\n\n# comment\nB\n").unwrap_err();
        assert_eq!(error.to_string(), "compose/.env:4: expected KEY=VALUE");
    }

    #[test]
    fn instance_names_cannot_leave_the_run_directory() {
        for name in ["", "..", "a/b", "x y"] {
            assert!(Instance::new(settings(), name).is_err(), "{name:?}");
        }
    }
}
