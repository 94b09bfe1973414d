//! The schema registry (Confluent's API): bringing schemas there, and the ids that writers use.
//!
//! An id is the registry's own number of a content, the same that the wire format carries in front of each payload:
//! `GET /schemas/ids/<id>` gives the schema back. Subject = record name, so a major is a subject and a minor a version of
//! it. Registering never overwrites: what the registry has, it keeps under the id it has.

use crate::compatibility::{Incompatibility, compare};
use crate::load::SchemaFile;
use apache_avro::Schema;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_all_versions, get_schema_by_subject_and_version, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SrCall, SuppliedSchema};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::Duration;

/// How long the registry may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Subjects are independent of each other; more at once than this only queue in the registry.
const CONCURRENCY: usize = 4;
/// The registry's rule for each subject. Set before the first version, so that no version slips in unchecked.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";
/// Error codes of Confluent's API for a subject, a version or a schema that isn't there.
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

/// A schema that the registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The subject: the record's full name.
    pub subject: String,
    /// What the wire format carries.
    pub id: u32,
    /// The subject's version in the registry, from 1: not the minor.
    pub version: u32,
    /// Whether this call brought it.
    pub new: bool,
}

/// Why schemas couldn't be registered or found.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No registry answers there, or it can't work just now. Try again later.
    #[error("the schema registry at {url} is not available: {reason}")]
    Unavailable {
        /// Where it should be.
        url: String,
        /// Why it isn't.
        reason: String,
    },
    /// The schema can't live beside the versions that the registry has. Never try again with the same file.
    #[error("the schema registry refused {subject}, which isn't compatible with its version {version} there: {}; the registry said: {message}",
        .incompatibilities.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Incompatible {
        /// The subject.
        subject: String,
        /// The newest version in the registry that it doesn't fit.
        version: u32,
        /// The fields and why.
        incompatibilities: Vec<Incompatibility>,
        /// The registry's own words.
        message: String,
    },
    /// The registry said no for another reason, or isn't one.
    #[error("the schema registry at {url} refused {subject}: {message}")]
    Refused {
        /// Where it is.
        url: String,
        /// The subject.
        subject: String,
        /// Its words.
        message: String,
    },
    /// Schemas that writers need aren't there.
    #[error("not in the schema registry at {url}: {}; run `command-api schemas register`", .subjects.join(", "))]
    NotRegistered {
        /// Where they should be.
        url: String,
        /// All that are missing, with their versions.
        subjects: Vec<String>,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later, with nothing changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Registers all files, each subject's oldest first, and holds the subjects to FULL_TRANSITIVE. The answer comes sorted by
/// subject. Safe to repeat: what is there stays, with its id. A refusal stops it; what came before stays registered.
///
/// # Errors
/// [`RegistryError`], for the first subject that can't be registered.
pub async fn register(files: &[SchemaFile], url: &str) -> Result<Vec<Registered>, RegistryError> {
    let registry = Registry::new(url)?;
    let subjects = files.iter().fold(BTreeMap::<String, Vec<&SchemaFile>>::new(), |mut subjects, file| {
        subjects.entry(file.subject()).or_default().push(file);
        subjects
    });
    let registered: Vec<Vec<Registered>> = stream::iter(subjects)
        .map(|(subject, files)| registry.register(subject, files))
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(registered.into_iter().flatten().collect())
}

/// The ids that writers put before the payloads, by event and major version: those of the highest minors. Registers nothing.
///
/// # Errors
/// [`RegistryError::NotRegistered`] with all that is missing; others as they come.
pub async fn ids(files: &[SchemaFile], url: &str) -> Result<HashMap<(String, u32), u32>, RegistryError> {
    let registry = Registry::new(url)?;
    let mut newest: HashMap<(String, u32), &SchemaFile> = HashMap::new();
    for file in files {
        let known = newest.entry((file.event.clone(), file.major)).or_insert(file);
        if known.minor < file.minor {
            *known = file;
        }
    }
    let found: Vec<_> = stream::iter(newest)
        .map(async |(event, file)| {
            let subject = file.subject();
            let found = registry.find(file, &subject).await?;
            Ok((event, found.map(|(id, _)| id).ok_or_else(|| format!("{subject} ({})", file.version()))))
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let mut ids = HashMap::with_capacity(found.len());
    let mut missing = Vec::new();
    for (event, id) in found {
        match id {
            Ok(id) => _ = ids.insert(event, id),
            Err(subject) => missing.push(subject),
        }
    }
    if missing.is_empty() {
        return Ok(ids);
    }
    missing.sort();
    Err(RegistryError::NotRegistered { url: registry.url, subjects: missing })
}

struct Registry {
    url: String,
    settings: SrSettings,
    /// For what `schema_registry_converter` can't do: setting a subject's compatibility.
    client: reqwest::Client,
}

impl Registry {
    fn new(url: &str) -> Result<Self, RegistryError> {
        let url = url.trim_end_matches('/').to_owned();
        let unusable = |reason: String| RegistryError::Unavailable { url: url.clone(), reason };
        let settings = SrSettings::new_builder(url.clone()).set_timeout(TIMEOUT).build();
        let settings = settings.map_err(|e| unusable(words(&e)))?;
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|e| unusable(chain(&e)))?;
        Ok(Self { settings, client, url })
    }

    /// Registers the versions of one subject, oldest first.
    async fn register(&self, subject: String, mut files: Vec<&SchemaFile>) -> Result<Vec<Registered>, RegistryError> {
        files.sort_by_key(|file| (file.major, file.minor));
        self.hold_compatible(&subject).await?;
        let mut registered = Vec::with_capacity(files.len());
        for file in files {
            let (id, version, new) = match self.find(file, &subject).await? {
                Some((id, version)) => (id, version, false),
                None => {
                    let (id, version) = self.post(file, &subject).await?;
                    (id, version, true)
                }
            };
            registered.push(Registered { subject: subject.clone(), id, version, new });
        }
        Ok(registered)
    }

    async fn post(&self, file: &SchemaFile, subject: &str) -> Result<(u32, u32), RegistryError> {
        let supplied = SuppliedSchema::new(Some(subject.to_owned()), SchemaType::Avro, file.text.clone());
        let id = match post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(posted) => posted.id,
            Err(error) => return Err(self.refusal(file, subject, error).await),
        };
        // The answer to the post has no version; and a registry that doesn't find what it just took would fail writers.
        let found = self.find(file, subject).await?.filter(|(found, _)| *found == id);
        found.ok_or_else(|| self.refused(subject, format!("it gave id {id}, but finds the schema under another")))
    }

    async fn hold_compatible(&self, subject: &str) -> Result<(), RegistryError> {
        let request = self
            .client
            .put(format!("{}/config/{subject}", self.url))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(format!(r#"{{"compatibility":"{COMPATIBILITY}"}}"#));
        let answer = request.send().await.map_err(|e| self.unavailable(chain(&e)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = answer.text().await.unwrap_or_default();
        let reason = format!("setting compatibility {COMPATIBILITY}: {status} {}", body.trim());
        Err(if is_down(u32::from(status.as_u16())) { self.unavailable(reason) } else { self.refused(subject, reason) })
    }

    /// Id and version of a file's schema, if the registry has it.
    async fn find(&self, file: &SchemaFile, subject: &str) -> Result<Option<(u32, u32)>, RegistryError> {
        let body = serde_json::json!({ "schema": file.text, "schemaType": "AVRO" }).to_string();
        match perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body)).await {
            Ok(found) => match (found.id, found.version) {
                (Some(id), Some(version)) => Ok(Some((id, version))),
                _ => {
                    Err(self.refused(subject, "its answer has no id and version; is the URL that of Confluent's API?"))
                }
            },
            Err(error) if code(&error).is_some_and(|code| NOT_FOUND.contains(&code)) => Ok(None),
            Err(error) => Err(self.failure(subject, &error)),
        }
    }

    /// Why a post failed. The registry's message seldom names the field, so ours is found by comparing with what it has.
    async fn refusal(&self, file: &SchemaFile, subject: &str, error: SRCError) -> RegistryError {
        if code(&error) != Some(409) {
            return self.failure(subject, &error);
        }
        let mut versions = get_all_versions(&self.settings, subject.to_owned()).await.unwrap_or_default();
        versions.sort_unstable();
        for version in versions.into_iter().rev() {
            let Ok(theirs) = get_schema_by_subject_and_version(&self.settings, subject, Some(version)).await else {
                break;
            };
            let Ok(theirs) = Schema::parse_str(&theirs.schema) else { continue };
            let incompatibilities = compare(&theirs, &file.schema);
            if !incompatibilities.is_empty() {
                let (subject, message) = (subject.to_owned(), words(&error));
                return RegistryError::Incompatible { subject, version, incompatibilities, message };
            }
        }
        self.refused(subject, words(&error))
    }

    fn failure(&self, subject: &str, error: &SRCError) -> RegistryError {
        if error.retriable || code(error).is_some_and(is_down) {
            self.unavailable(words(error))
        } else {
            self.refused(subject, words(error))
        }
    }

    fn unavailable(&self, reason: String) -> RegistryError {
        RegistryError::Unavailable { url: self.url.clone(), reason }
    }

    fn refused(&self, subject: &str, message: impl Into<String>) -> RegistryError {
        RegistryError::Refused { url: self.url.clone(), subject: subject.to_owned(), message: message.into() }
    }
}

/// The registry's own error code: an HTTP status, mostly with two digits more.
fn code(error: &SRCError) -> Option<u32> {
    error.source()?.downcast_ref::<RawError>().map(|raw| raw.error_code)
}

/// Time-outs, too many requests, and errors of the server: not the schema's fault.
fn is_down(code: u32) -> bool {
    let status = if code > 999 { code / 100 } else { code };
    matches!(status, 408 | 429 | 500..=599)
}

/// The registry's message where there is one, else what went wrong on the way there.
fn words(error: &SRCError) -> String {
    match error.source() {
        Some(source) => match source.downcast_ref::<RawError>() {
            Some(raw) if raw.error_code > 0 => raw.message.clone(),
            Some(_) => error.error.clone(),
            None => chain(source),
        },
        None => error.error.clone(),
    }
}

/// An error with its causes: reqwest's own text doesn't say "connection refused".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn files() -> Vec<SchemaFile> {
        let text = r#"{"type": "record", "name": "x.a.v1.E", "fields": []}"#;
        let schema = Schema::parse_str(text).unwrap();
        let (aggregate, event, text) = ("a".into(), "E".into(), text.into());
        vec![SchemaFile { path: "a/E.v1.avsc".into(), aggregate, event, major: 1, minor: 0, schema, text }]
    }

    /// A server that gives every request the same answer.
    async fn stub(status: &str, body: &str) -> String {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 65536];
                    _ = stream.read(&mut request).await;
                    _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        url
    }

    #[tokio::test]
    async fn a_registry_that_is_down_is_unavailable() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        for error in [register(&files(), &url).await.unwrap_err(), ids(&files(), &url).await.unwrap_err()] {
            assert!(error.is_transient(), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&url) && text.contains("is not available") && text.contains("refused"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_registry_in_trouble_is_unavailable() {
        for (status, body) in [
            ("503 Service Unavailable", "no JSON"),
            ("500 Internal Server Error", r#"{"error_code": 50001, "message": "the backend store is gone"}"#),
        ] {
            let url = stub(status, body).await;
            assert!(register(&files(), &url).await.unwrap_err().is_transient(), "{status}");
            assert!(ids(&files(), &url).await.unwrap_err().is_transient(), "{status}");
        }
    }

    #[tokio::test]
    async fn another_kind_of_server_is_no_registry() {
        let url = stub("404 Not Found", "<html>").await;
        for error in [register(&files(), &url).await.unwrap_err(), ids(&files(), &url).await.unwrap_err()] {
            assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains("404"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_isnt_registered_says_what_to_do() {
        let url = stub("404 Not Found", r#"{"error_code": 40401, "message": "no such subject"}"#).await;
        let text = ids(&files(), &url).await.unwrap_err().to_string();
        assert!(text.contains("x.a.v1.E (1.0)") && text.contains("run `command-api schemas register`"), "{text}");
    }
}
