//! The container path: `compose/compose.yaml` by whichever compose is installed.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::settings::Instance;

/// Builds our images and starts all containers, each after the health checks of what it needs.
pub(crate) fn up(instance: &Instance) -> anyhow::Result<ExitCode> {
    compose(instance, &["up", "--build", "--detach"])
}

/// Stops and removes the containers; their volumes stay.
pub(crate) fn down(instance: &Instance) -> anyhow::Result<ExitCode> {
    compose(instance, &["down"])
}

fn compose(instance: &Instance, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let (program, first) = find()?;
    let status = Command::new(program)
        .args(first)
        .args(["--file", "compose/compose.yaml"])
        .args(arguments)
        .current_dir(instance.root())
        .status()
        .with_context(|| format!("running {program}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find() -> anyhow::Result<(&'static str, &'static [&'static str])> {
    let works = |program: &str, arguments: &[&str]| {
        let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    };
    if works("docker", &["compose", "version"]) {
        return Ok(("docker", &["compose"]));
    }
    if works("docker-compose", &["version"]) {
        return Ok(("docker-compose", &[]));
    }
    bail!("neither `docker compose` nor `docker-compose` works here; leave out --containers to run natively")
}

/// The container path can't be run everywhere, so what it says is compared with what the native path does.
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::settings::{Port, Settings, parse};
    use crate::stack;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn native() -> Instance {
        Instance::new(Settings::read(root().to_path_buf()).unwrap(), "dev").unwrap()
    }

    fn env_file() -> BTreeMap<String, String> {
        parse(&std::fs::read_to_string(root().join("compose/.env")).unwrap()).unwrap()
    }

    /// `compose config`: every reference to compose/.env resolved, the file checked against compose's own schema.
    fn compose_config() -> Value {
        let (program, first) = find().unwrap();
        let mut command = Command::new(program);
        command.args(first).args(["--file", "compose/compose.yaml", "config"]).current_dir(root());
        // A variable of the test run would hide what the file says.
        for key in env_file().keys() {
            command.env_remove(key);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("not set"), "a variable is in no file");
        serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }

    fn text(value: &Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    fn environment(config: &Value, service: &str) -> BTreeMap<String, String> {
        let values = config["services"][service]["environment"].as_object().unwrap();
        values.iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }

    fn properties(path: &str) -> BTreeMap<String, String> {
        let lines = std::fs::read_to_string(root().join(path)).unwrap();
        let pairs = lines.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// `127.0.0.1:<host>:<container>`, in the short form of compose 1 or the long form of compose 2.
    fn host_ports(config: &Value, service: &str) -> BTreeSet<u16> {
        let ports = config["services"][service]["ports"].as_array().unwrap();
        let host = |port: &Value| match port.as_str() {
            Some(short) => {
                let parts: Vec<&str> = short.split(':').collect();
                assert_eq!(parts[0], "127.0.0.1", "{service} is reachable from outside: {short}");
                parts[1].parse().unwrap()
            }
            None => {
                assert_eq!(port["host_ip"], "127.0.0.1", "{service} is reachable from outside");
                text(&port["published"]).parse().unwrap()
            }
        };
        ports.iter().map(host).collect()
    }

    #[test]
    #[ignore = "needs docker-compose: ./dev test"]
    fn compose_accepts_the_file_and_says_what_the_native_path_does() {
        let config = compose_config();
        let instance = native();
        versions_are_those_of_the_native_path(&config);
        ports_are_those_of_the_native_path(&config, &instance);
        broker_and_worker_have_the_same_settings(&config);
        connector_reads_the_same_variables(&config);
        postgres_has_the_same_settings(&config);
        services_get_the_same_variables(&config, &instance);
        everything_that_stays_up_has_a_health_check(&config);
    }

    fn versions_are_those_of_the_native_path(config: &Value) {
        let env = env_file();
        let tag = |service: &str| text(&config["services"][service]["image"]).rsplit_once(':').unwrap().1.to_owned();
        assert_eq!(tag("kafka"), env["KAFKA_VERSION"]);
        assert_eq!(tag("connect"), env["DEBEZIUM_VERSION"]);
        assert_eq!(tag("registry"), env["APICURIO_VERSION"]);
        // These differ from the native path, which takes what Debian, Maven and npm have; README says so.
        for (service, major) in [("postgres", "17."), ("redis", "7."), ("search", "9."), ("clickhouse", "25.")] {
            assert!(tag(service).starts_with(major), "{service} is {}", tag(service));
        }
        for service in config["services"].as_object().unwrap().values() {
            let image = text(&service["image"]);
            assert!(!image.ends_with(":latest") && image.contains(':'), "{image} is not pinned");
        }
        let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
        assert!(env["RUST_IMAGE"].starts_with(&format!("rust:{channel}-")), "the image builds with another Rust");
    }

    fn ports_are_those_of_the_native_path(config: &Value, instance: &Instance) {
        for part in stack::COMPONENTS.iter().chain(&crate::services::SERVICES) {
            let published = host_ports(config, part.name);
            assert!(published.contains(&instance.port(part.ports[0])), "{}: {published:?}", part.name);
        }
        let kafka = environment(config, "kafka");
        let outside = format!("HOST://127.0.0.1:{}", instance.port(Port::Kafka));
        assert!(
            kafka["KAFKA_ADVERTISED_LISTENERS"].ends_with(&outside),
            "clients on the host would not find the broker"
        );
    }

    fn broker_and_worker_have_the_same_settings(config: &Value) {
        let kafka = environment(config, "kafka");
        for (key, value) in properties("compose/native/kafka/server.properties") {
            let name = format!("KAFKA_{}", key.replace('.', "_").to_uppercase());
            assert_eq!(kafka.get(&name), Some(&value), "{name}");
        }
        let connect = environment(config, "connect");
        for (key, value) in properties("connectors/worker.properties") {
            let plain = key.replace('.', "_").to_uppercase();
            let found = connect.get(&plain).or_else(|| connect.get(&format!("CONNECT_{plain}")));
            assert_eq!(found, Some(&value), "{key}");
        }
    }

    fn connector_reads_the_same_variables(config: &Value) {
        let connect = environment(config, "connect");
        let native = stack::connector_variables(&native()).unwrap();
        let file = std::fs::read_to_string(root().join("connectors/outbox.json")).unwrap();
        let used: BTreeSet<&str> =
            file.split("${env:").skip(1).filter_map(|rest| rest.split_once('}')).map(|pair| pair.0).collect();
        let given: BTreeSet<&str> = native.keys().map(String::as_str).collect();
        assert_eq!(used, given, "connectors/outbox.json and the native worker");
        for name in used {
            assert!(connect.contains_key(name), "compose's worker lacks {name}");
            if !["OUTBOX_DATABASE_HOST", "OUTBOX_DATABASE_PORT"].contains(&name) {
                assert_eq!(connect[name], native[name], "{name}");
            }
        }
    }

    fn postgres_has_the_same_settings(config: &Value) {
        let command: Vec<String> =
            config["services"]["postgres"]["command"].as_array().unwrap().iter().map(text).collect();
        let compose: BTreeMap<&str, &str> =
            command.iter().filter_map(|word| word.strip_prefix("-c")?.split_once('=')).collect();
        let native = stack::postgres_settings(&native()).unwrap();
        let native: BTreeMap<&str, &str> = native.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(compose, native);
    }

    fn services_get_the_same_variables(config: &Value, instance: &Instance) {
        let native: BTreeSet<String> =
            instance.env().into_keys().filter(|key| !key.starts_with("DEV_") && key != "NO_PROXY").collect();
        for service in crate::services::SERVICES {
            let compose = environment(config, service.name);
            let keys: BTreeSet<String> = compose.keys().cloned().collect();
            assert_eq!(keys, native, "{}", service.name);
            for (key, value) in instance.env() {
                if key.starts_with("TOPIC_") || key.starts_with("DEBEZIUM_") || key == "CLICKHOUSE_DATABASE" {
                    assert_eq!(compose[&key], value, "{key}");
                }
            }
        }
    }

    fn everything_that_stays_up_has_a_health_check(config: &Value) {
        for part in stack::COMPONENTS.iter().chain(&crate::services::SERVICES) {
            assert!(config["services"][part.name]["healthcheck"]["test"].is_array(), "{}", part.name);
        }
    }
}
