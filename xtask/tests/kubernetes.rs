//! `compose/kubernetes` against Kubernetes' own types, and against what our programs know: variables, ports, paths, limits.
//!
//! Kubernetes ignores, or refuses too late, what nobody has tried: here each document is read into the API's type and written again. A
//! field that the type doesn't have is lost on the way, one that it needs and that isn't given appears; both are findings.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::{apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch};
use k8s_openapi::api::{core::v1 as core, policy::v1 as policy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const FOLDER: &str = "compose/kubernetes";
/// A program, and the folder of its source.
const PROGRAMS: [(&str, &str); 3] =
    [("projector", "projector/src"), ("command-api", "command-api/src"), ("connectors", "connectors/src")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// All manifests, by their path below the folder.
fn manifests() -> BTreeMap<String, String> {
    let folder = root().join(FOLDER);
    let name = |path: &PathBuf| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    files(&folder, "yaml").iter().map(|path| (name(path), text(path))).collect()
}

/// What our programs know.
struct Known {
    /// The source of each program.
    sources: BTreeMap<&'static str, String>,
    /// `compose/.env`.
    env: BTreeMap<String, String>,
    /// The metrics' page.
    metrics: String,
}

impl Known {
    fn read() -> Self {
        let source = |folder: &str| files(&root().join(folder), "rs").iter().map(text).collect::<String>();
        let lines = text("compose/.env");
        let pairs = lines.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        Self {
            sources: PROGRAMS.map(|(program, folder)| (program, source(folder))).into(),
            env: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            metrics: text("docs/metrics.md"),
        }
    }

    fn takes(&self, program: &str, variable: &str) -> bool {
        // What tracing-subscriber reads by itself.
        variable == "RUST_LOG" || self.sources[program].contains(&format!("env = \"{variable}\""))
    }

    /// The seconds of `const NAME: Duration = Duration::from_secs(N)`.
    fn seconds(&self, program: &str, constant: &str) -> u64 {
        let begin = format!("const {constant}: Duration = Duration::from_secs(");
        let (_, rest) = self.sources[program].split_once(&begin).unwrap();
        rest.split_once(')').unwrap().0.parse().unwrap()
    }
}

/// What is wrong with the manifests.
fn findings(manifests: &BTreeMap<String, String>, known: &Known) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut all: Vec<(String, Value)> = Vec::new();
    for (file, text) in manifests {
        let named = |document: Value| (format!("{file}: {}", document["kind"].as_str().unwrap_or("?")), document);
        match serde_saphyr::from_multiple::<Value>(text) {
            Ok(documents) if file == "kustomization.yaml" => wrong.extend(listed(&documents[0], manifests)),
            Ok(documents) => all.extend(documents.into_iter().map(named)),
            Err(error) => wrong.push(format!("{file}: {error}")),
        }
    }
    for (name, document) in &all {
        let found = schema(document).into_iter().chain(described(document, &all, known));
        wrong.extend(found.map(|finding| format!("{name}: {finding}")));
    }
    wrong
}

/// All files but the jobs are listed, and nothing else is.
fn listed(kustomization: &Value, manifests: &BTreeMap<String, String>) -> Vec<String> {
    let listed: BTreeSet<_> = strings(&kustomization["resources"]).into_iter().collect();
    let there = manifests.keys().filter(|file| *file != "kustomization.yaml" && !file.starts_with("jobs/"));
    let there: BTreeSet<_> = there.map(String::as_str).collect();
    there.symmetric_difference(&listed).map(|file| format!("{file}: listed only, or there only")).collect()
}

fn schema(document: &Value) -> Vec<String> {
    match document["kind"].as_str().unwrap_or_default() {
        "Namespace" => again::<core::Namespace>(document),
        "ConfigMap" => again::<core::ConfigMap>(document),
        "Secret" => again::<core::Secret>(document),
        "Service" => again::<core::Service>(document),
        "Deployment" => again::<apps::Deployment>(document),
        "PodDisruptionBudget" => again::<policy::PodDisruptionBudget>(document),
        "HorizontalPodAutoscaler" => again::<autoscaling::HorizontalPodAutoscaler>(document),
        "Job" => again::<batch::Job>(document),
        other => vec![format!("`{other}` isn't checked; name its type here")],
    }
}

/// Reads a document into its type and writes it again.
fn again<T: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    match serde_json::from_value::<T>(document.clone()).map(|typed| serde_json::to_value(typed).unwrap()) {
        Ok(kept) => differences("", document, &kept, &mut wrong),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}

fn differences(path: &str, given: &Value, kept: &Value, wrong: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                match kept.get(key) {
                    Some(kept) => differences(&format!("{path}.{key}"), value, kept, wrong),
                    None => wrong.push(format!("{path}.{key}: there is no such field")),
                }
            }
            let missing = kept.keys().filter(|key| !given.contains_key(*key));
            wrong.extend(missing.map(|key| format!("{path}.{key}: is needed")));
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            for (at, (given, kept)) in given.iter().zip(kept).enumerate() {
                differences(&format!("{path}[{at}]"), given, kept, wrong);
            }
        }
        _ if given == kept => {}
        _ => wrong.push(format!("{path}: {given} is taken for {kept}")),
    }
}

/// What a document says of others, and of our programs.
fn described(document: &Value, all: &[(String, Value)], known: &Known) -> Vec<String> {
    let mut wrong = Vec::new();
    let spec = &document["spec"];
    match document["kind"].as_str().unwrap_or_default() {
        "ConfigMap" | "Secret" => {
            let data = ["data", "stringData"].into_iter().filter_map(|part| document[part].as_object()).flatten();
            let unknown = data.filter(|(key, _)| !PROGRAMS.iter().any(|(program, _)| known.takes(program, key)));
            wrong.extend(unknown.map(|(key, _)| format!("{key}: no program takes it")));
        }
        "Deployment" => {
            if pods(&spec["selector"]["matchLabels"], all).len() != 1 {
                wrong.push("selects other pods than its own".to_owned());
            }
            wrong.extend(pod(&spec["template"]["spec"], all, known));
        }
        "Job" => wrong.extend(pod(&spec["template"]["spec"], all, known)),
        "Service" => {
            let pods = pods(&spec["selector"], all);
            for port in items(&spec["ports"]) {
                let ports = pods.iter().flat_map(|pod| items(&pod["spec"]["containers"][0]["ports"]));
                let found = ports.into_iter().find(|found| found["name"] == port["targetPort"]);
                if found.is_none_or(|found| found["containerPort"] != port["port"]) {
                    wrong.push(format!("port {}: no pod answers it so", port["port"]));
                }
            }
        }
        "PodDisruptionBudget" if pods(&spec["selector"]["matchLabels"], all).is_empty() => {
            wrong.push("selects no pods".to_owned());
        }
        "HorizontalPodAutoscaler" => wrong.extend(autoscaler(spec, all, known)),
        _ => {}
    }
    wrong
}

fn autoscaler(spec: &Value, all: &[(String, Value)], known: &Known) -> Vec<String> {
    let mut wrong = Vec::new();
    let wanted = &spec["scaleTargetRef"];
    let is_wanted =
        |document: &&Value| document["kind"] == wanted["kind"] && document["metadata"]["name"] == wanted["name"];
    match all.iter().map(|(_, document)| document).find(is_wanted) {
        None => wrong.push("scales nothing that is there".to_owned()),
        Some(found) if !found["spec"]["replicas"].is_null() => {
            wrong.push("each apply sets its replicas back".to_owned())
        }
        Some(_) => {}
    }
    for metric in items(&spec["metrics"]).iter().filter_map(|metric| metric["external"]["metric"]["name"].as_str()) {
        if !known.metrics.contains(&format!("| `{metric}` |")) {
            wrong.push(format!("{metric}: no such metric"));
        }
        if spec["maxReplicas"].as_u64() > known.env["TOPIC_PARTITIONS"].parse().ok() {
            wrong.push("more hosts than partitions".to_owned());
        }
    }
    wrong
}

fn pod(pod: &Value, all: &[(String, Value)], known: &Known) -> Vec<String> {
    let mut wrong = Vec::new();
    for container in ["initContainers", "containers"].into_iter().flat_map(|part| items(&pod[part])) {
        let command = strings(&container["command"]);
        let program = command.first().copied().unwrap_or_default();
        let Some(source) = known.sources.get(program) else {
            wrong.push(format!("`{program}` is none of our programs"));
            continue;
        };
        for name in items(&container["env"]).iter().filter_map(|variable| variable["name"].as_str()) {
            if !known.takes(program, name) {
                wrong.push(format!("{name}: {program} doesn't take it"));
            }
        }
        for (kind, part) in [("ConfigMap", "configMapRef"), ("Secret", "secretRef")] {
            for name in items(&container["envFrom"]).iter().map(|from| &from[part]["name"]).filter(|n| !n.is_null()) {
                if !all.iter().any(|(_, other)| other["kind"] == kind && other["metadata"]["name"] == *name) {
                    wrong.push(format!("there is no {kind} {name}"));
                }
            }
        }
        for option in command.iter().filter_map(|word| word.strip_prefix("--")) {
            if !source.contains(&format!("    {}: ", option.replace('-', "_"))) {
                wrong.push(format!("--{option}: {program} has no such option"));
            }
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"]) {
            let Some(path) = probe["path"].as_str() else { continue };
            if !source.contains(&format!("\"{path}\"")) {
                wrong.push(format!("{path}: {program} doesn't answer it"));
            }
            if !items(&container["ports"]).iter().any(|port| port["name"] == probe["port"]) {
                wrong.push(format!("{}: a probe of no port", probe["port"]));
            }
        }
        wrong.extend(listens(container, &command, all, known));
        wrong.extend(stops(pod, container, &command, known));
        let read_only = &container["securityContext"]["readOnlyRootFilesystem"];
        if *read_only != true || pod["securityContext"]["runAsNonRoot"] != true {
            wrong.push("may write where it runs, or be root".to_owned());
        }
    }
    wrong
}

/// The ports are those that its settings have it listen on, which are compose's.
fn listens(container: &Value, command: &[&str], all: &[(String, Value)], known: &Known) -> Option<String> {
    let (variable, port) = match command {
        ["command-api", "serve"] => ("COMMAND_API_LISTEN", "COMMAND_API_PORT"),
        ["projector", "run"] => ("PROJECTOR_ADMIN_LISTEN", "PROJECTOR_ADMIN_PORT"),
        ["projector", "serve"] => ("QUERY_LISTEN", "QUERY_PORT"),
        _ => return None,
    };
    let settings = all.iter().find(|(_, document)| document["kind"] == "ConfigMap").map(|(_, found)| &found["data"]);
    let set = settings.and_then(|settings| settings[variable].as_str()).unwrap_or_default();
    let right = format!("0.0.0.0:{}", known.env[port]);
    let ports = items(&container["ports"]).iter().map(|port| format!("0.0.0.0:{}", port["containerPort"]));
    let ports: Vec<String> = ports.collect();
    (set != right || ports != [right.clone()]).then(|| format!("{variable} is {set}, ports {ports:?}: not {right}"))
}

/// Who is asked to stop gets the time that the program takes for it, and what it sleeps before.
fn stops(pod: &Value, container: &Value, command: &[&str], known: &Known) -> Option<String> {
    let takes = match command {
        ["command-api", "serve"] => known.seconds("command-api", "REQUEST_TIME_MAX"),
        ["projector", "run"] => known.seconds("projector", "REST_WITHIN"),
        ["projector", "serve"] => known.seconds("projector", "DRAIN_MAX"),
        _ => return None,
    };
    let sleeps = strings(&container["lifecycle"]["preStop"]["exec"]["command"]);
    let sleeps: u64 = sleeps.get(1).map_or(0, |seconds| seconds.parse().unwrap());
    let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    // And some for what comes after: leaving the group, the last words.
    (given < sleeps + takes + 5).then(|| format!("{given} s are too short to stop: {sleeps} + {takes} + 5"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

/// The deployments' pods that have these labels.
fn pods<'a>(labels: &Value, all: &'a [(String, Value)]) -> Vec<&'a Value> {
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else { return Vec::new() };
    let deployments = all.iter().filter(|(_, document)| document["kind"] == "Deployment");
    let templates = deployments.map(|(_, document)| &document["spec"]["template"]);
    templates.filter(|pod| labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)).collect()
}

#[test]
fn manifests_are_what_kubernetes_and_our_programs_know() {
    let wrong = findings(&manifests(), &Known::read());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn images_and_the_read_model_that_is_rebuilt_are_there() {
    let manifests = manifests();
    let images = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(str::to_owned).collect()
    };
    let ours = images(&text("compose/compose.yaml"))[0].clone();
    assert!(manifests.values().flat_map(|text| images(text)).all(|image| image == ours), "not all are {ours}");
    let rebuild = &manifests["jobs/rebuild.yaml"];
    let name = rebuild.split_once("rebuild, start, ").unwrap().1.split_once(',').unwrap().0;
    assert!(root().join(format!("projections/{name}.yaml")).is_file(), "{name}");
}

#[test]
fn a_token_that_everybody_can_read_lets_no_host_start() {
    let secrets = &manifests()["secrets.yaml"];
    let token = secrets.lines().find_map(|line| line.trim().strip_prefix("ADMIN_TOKEN: ")).unwrap();
    assert!(token.len() < 16, "docs/admin.md: 16 characters at least");
}

/// Without this, nobody knows whether any fault would be found.
#[test]
fn faults_are_found() {
    let known = Known::read();
    let grace = ("terminationGracePeriodSeconds: 20", "terminationGracePeriodSeconds: 10");
    let unnamed = ("containers:\n        - name: projector\n", "containers:\n        - tty: false\n");
    let metric = ("metric: { name: projection_lag_seconds }", "metric: { name: projection_lag }");
    for (file, (right, fault), finding) in [
        ("projector-run.yaml", ("readinessProbe:", "readynessProbe:"), ".readynessProbe: there is no such field"),
        ("projector-run.yaml", ("minReadySeconds: 15", "minReadySeconds: soon"), "invalid type"),
        ("projector-run.yaml", metric, "no such metric"),
        ("projector-run.yaml", ("maxReplicas: 12", "maxReplicas: 13"), "more hosts than partitions"),
        (
            "projector-run.yaml",
            ("kind: Deployment, name: projector-run", "kind: Deployment, name: run"),
            "scales nothing",
        ),
        ("projector-serve.yaml", unnamed, "[0].name: is needed"),
        ("projector-serve.yaml", grace, "too short to stop"),
        ("command-api.yaml", ("apiVersion: apps/v1", "apiVersion: apps/v1beta1"), "apps/v1"),
        ("command-api.yaml", ("API_POOL_SIZE", "API_POOL"), "COMMAND_API_POOL: command-api doesn't take it"),
        ("command-api.yaml", ("path: /health/ready", "path: /healthz"), "/healthz: command-api doesn't answer it"),
        ("command-api.yaml", ("containerPort: 18000", "containerPort: 8080"), "COMMAND_API_LISTEN"),
        ("command-api.yaml", ("targetPort: http", "targetPort: web"), "no pod answers it so"),
        ("command-api.yaml", ("RootFilesystem: true", "RootFilesystem: false"), "may write"),
        ("settings.yaml", ("KAFKA_BROKERS", "KAFKA_BROKER"), "KAFKA_BROKER: no program takes it"),
        ("settings.yaml", ("name: settings", "name: setting"), "there is no ConfigMap"),
        ("jobs/rebuild.yaml", (", --reason", ", --because"), "--because: projector has no such option"),
        ("jobs/prepare.yaml", ("[command-api, migrate", "[commands, migrate"), "is none of our programs"),
        ("kustomization.yaml", ("  - command-api.yaml\n", ""), "command-api.yaml: listed only, or there only"),
    ] {
        let mut manifests = manifests();
        let text = manifests.get_mut(file).unwrap();
        assert!(text.contains(right), "{file} has no `{right}`");
        *text = text.replacen(right, fault, 1);
        let found = findings(&manifests, &known);
        assert!(found.iter().any(|found| found.contains(finding)), "`{fault}` in {file}: {found:?}");
    }
}
