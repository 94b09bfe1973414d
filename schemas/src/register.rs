//! Registration through Confluent's API, which Apicurio speaks too.

use std::path::PathBuf;
use std::time::Duration;

use apache_avro::Schema;
use futures::{StreamExt, TryStreamExt, stream};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_all_versions, get_schema_by_subject_and_version, is_compatible_schema, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use serde_json::json;

use crate::{Incompatible, SchemaFile, check, check_pair};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Subjects are independent of each other; more at once than this only queues in the registry.
const CONCURRENCY: usize = 4;

/// Why schemas couldn't be registered or looked up.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The registry is not reachable or failed.
    #[error("schema registry at {url}: {reason}")]
    Registry {
        /// Its address.
        url: String,
        /// What it, or the network, said.
        reason: String,
    },
    /// A schema that readers of its major's other versions couldn't read, or the other way round.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// The registry has not got this schema.
    #[error("the registry doesn't know {subject} as {path} has it: run `command-api schemas register`")]
    Missing {
        /// The subject.
        subject: String,
        /// The file.
        path: PathBuf,
    },
}

/// A schema and its id in the registry.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The file.
    pub file: SchemaFile,
    /// The id that the wire format carries.
    pub id: u32,
}

/// A schema registry with Confluent's API.
#[derive(Debug)]
pub struct Registry {
    url: String,
    settings: SrSettings,
    http: reqwest::Client,
}

impl Registry {
    /// A client of the registry at `url`, such as `http://registry:8081/apis/ccompat/v7`.
    ///
    /// # Errors
    /// When the HTTP client can't be set up.
    pub fn new(url: &str) -> Result<Self, RegisterError> {
        let url = url.trim_end_matches('/').to_owned();
        let fail = |reason: String| RegisterError::Registry { url: url.clone(), reason };
        let mut settings = SrSettings::new_builder(url.clone());
        settings.set_timeout(TIMEOUT);
        let settings = settings.build().map_err(|e| fail(e.to_string()))?;
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|e| fail(e.to_string()))?;
        Ok(Self { url, settings, http })
    }

    /// Registers all files, oldest version first; what is registered already stays as it is. Each subject is set to
    /// FULL_TRANSITIVE, so that the registry refuses what others might send it.
    ///
    /// # Errors
    /// The first schema that the folder itself or the registry refuses, with the field; or the registry's failure.
    pub async fn register(&self, files: &[SchemaFile]) -> Result<Vec<Registered>, RegisterError> {
        check(files)?;
        // Files are sorted, so those of one subject stand together.
        let subjects: Vec<&[SchemaFile]> = files.chunk_by(|a, b| a.full_name() == b.full_name()).collect();
        let registered: Vec<Vec<Registered>> =
            stream::iter(subjects).map(|files| self.register_subject(files)).buffered(CONCURRENCY).try_collect().await?;
        Ok(registered.into_iter().flatten().collect())
    }

    async fn register_subject(&self, files: &[SchemaFile]) -> Result<Vec<Registered>, RegisterError> {
        let mut registered = Vec::with_capacity(files.len());
        for file in files {
            let subject = file.full_name();
            let exists = !self.versions(&subject).await?.is_empty();
            if exists {
                // Some registries keep a rule only for a subject that exists: hence before a later version, after the first.
                self.set_compatibility(&subject).await?;
                self.check_compatible(&subject, file).await?;
            }
            let id = match self.id(&subject, file).await? {
                Some(id) => id,
                None => {
                    let posted = post_schema(&self.settings, subject.clone(), supplied(file)).await;
                    posted.map_err(|e| self.failed(&e))?.id
                }
            };
            if !exists {
                self.set_compatibility(&subject).await?;
            }
            registered.push(Registered { file: file.clone(), id });
        }
        Ok(registered)
    }

    /// The ids of schemas that must be registered already.
    ///
    /// # Errors
    /// [`RegisterError::Missing`] for the first that isn't; or the registry's failure.
    pub async fn look_up(&self, files: &[SchemaFile]) -> Result<Vec<Registered>, RegisterError> {
        stream::iter(files)
            .map(async |file: &SchemaFile| {
                let subject = file.full_name();
                let id = self.id(&subject, file).await?;
                let id = id.ok_or_else(|| RegisterError::Missing { subject, path: file.path.clone() })?;
                Ok(Registered { file: file.clone(), id })
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await
    }

    async fn id(&self, subject: &str, file: &SchemaFile) -> Result<Option<u32>, RegisterError> {
        let body = json!({"schema": file.text, "schemaType": "AVRO"});
        let answer = self.http.post(format!("{}/subjects/{subject}", self.url)).json(&body).send().await;
        let answer = answer.map_err(|e| self.unreachable(&e))?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status().map_err(|e| self.unreachable(&e))?;
        let body: serde_json::Value = answer.json().await.map_err(|e| self.unreachable(&e))?;
        let id = body["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(Some).ok_or_else(|| self.broken(format!("an answer without an id: {body}")))
    }

    async fn versions(&self, subject: &str) -> Result<Vec<u32>, RegisterError> {
        match get_all_versions(&self.settings, subject.to_owned()).await {
            Ok(versions) => Ok(versions),
            Err(error) if error.error.contains("404") => Ok(Vec::new()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn set_compatibility(&self, subject: &str) -> Result<(), RegisterError> {
        let url = format!("{}/config/{subject}", self.url);
        let answer = self.http.put(url).json(&json!({"compatibility": "FULL_TRANSITIVE"})).send().await;
        answer.and_then(reqwest::Response::error_for_status).map(drop).map_err(|e| self.unreachable(&e))
    }

    async fn check_compatible(&self, subject: &str, file: &SchemaFile) -> Result<(), RegisterError> {
        let compatible = is_compatible_schema(&self.settings, subject.to_owned(), supplied(file)).await;
        if compatible.map_err(|e| self.failed(&e))? {
            return Ok(());
        }
        Err(self.explain(subject, file).await?.into())
    }

    /// Registries say only that, or in their own words why: find the field by comparing with what they have.
    async fn explain(&self, subject: &str, file: &SchemaFile) -> Result<Incompatible, RegisterError> {
        for version in self.versions(subject).await? {
            let known = get_schema_by_subject_and_version(&self.settings, subject, Some(version)).await;
            let known = known.map_err(|e| self.failed(&e))?.schema;
            let known = Schema::parse_str(&known).map_err(|e| self.broken(format!("{subject} {version}: {e}")))?;
            if let Err((field, reason)) = check_pair(&known, &file.schema) {
                let other = format!("{subject} version {version} in the registry").into();
                return Ok(Incompatible { path: file.path.clone(), other, field, reason });
            }
        }
        Ok(Incompatible {
            path: file.path.clone(),
            other: format!("{subject} in the registry").into(),
            field: ".".to_owned(),
            reason: "is refused by the registry's own rules".to_owned(),
        })
    }

    fn failed(&self, error: &SRCError) -> RegisterError {
        self.broken(error.to_string())
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegisterError {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.broken(format!("{error}{cause}"))
    }

    fn broken(&self, reason: String) -> RegisterError {
        RegisterError::Registry { url: self.url.clone(), reason }
    }
}

fn supplied(file: &SchemaFile) -> SuppliedSchema {
    SuppliedSchema::new(Some(file.full_name()), SchemaType::Avro, file.text.clone())
}
