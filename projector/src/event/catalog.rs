//! All event types that there are, from the folder of schemas: their newest types, and how old versions become new.

use super::upcast::{Golden, UpcasterFile};
use super::{AvroError, Shape, Upcaster, UpcasterTest};
use crate::expr::{Compiler, Diagnostic, Kind, RunError, Value};
use apache_avro::Schema;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An event type in its newest version.
#[derive(Clone, Debug)]
pub struct EventType {
    /// The type of its aggregate.
    pub aggregate_type: String,
    /// The newest major version.
    pub version: u32,
    /// The type of its data in that version.
    pub kind: Kind,
    /// The paths of the fields that its schema marks as personal data: `name`, `readers[].name`.
    pub personal: Vec<String>,
}

/// All event types.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    newest: BTreeMap<String, EventType>,
    readers: BTreeMap<(String, u32), Schema>,
    upcasters: BTreeMap<String, BTreeMap<u32, Upcaster>>,
    tests: Vec<UpcasterTest>,
}

/// What is wrong in the folder of schemas.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A schema that can't be loaded.
    #[error(transparent)]
    Schemas(#[from] schemas::LoadError),
    /// A schema that events can't have.
    #[error("event {event} version {version}: {error}")]
    Shape {
        /// The event.
        event: String,
        /// Its major version.
        version: u32,
        /// Why.
        error: AvroError,
    },
    /// A file that can't be read or parsed.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An upcaster's program.
    #[error("{path}: {}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Upcaster {
        /// Which.
        path: PathBuf,
        /// All of them.
        findings: Vec<Diagnostic>,
    },
    /// A major version without a way to the next.
    #[error("event {event}: nothing lifts version {from} to the next; add schemas/upcasters/{event}.v{from}.yaml")]
    NoUpcaster {
        /// The event.
        event: String,
        /// The version that is stuck.
        from: u32,
    },
}

impl Catalog {
    /// Loads a folder of schemas with its upcasters.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file.
    pub fn load(folder: &Path) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for file in schemas::load(folder)? {
            let shape = Shape::new(&file.schema).map_err(|error| CatalogError::Shape {
                event: file.event.clone(),
                version: file.major,
                error,
            })?;
            // Files come by rising version, so the last of a major is what its readers know.
            catalog.readers.insert((file.event.clone(), file.major), file.schema.clone());
            let mut personal = Vec::new();
            find_personal(&file.schema, "", &mut personal);
            let newest =
                EventType { aggregate_type: file.aggregate.clone(), version: file.major, kind: shape.kind(), personal };
            match catalog.newest.get(&file.event) {
                Some(known) if known.version > file.major => {}
                _ => _ = catalog.newest.insert(file.event.clone(), newest),
            }
        }
        catalog.load_upcasters(&folder.join("upcasters"))?;
        let stuck = catalog
            .readers
            .keys()
            .find(|key| catalog.newest[&key.0].version > key.1 && catalog.upcaster(&key.0, key.1).is_none());
        match stuck {
            Some((event, from)) => Err(CatalogError::NoUpcaster { event: event.clone(), from: *from }),
            None => Ok(catalog),
        }
    }

    /// The newest version of an event type.
    #[must_use]
    pub fn event(&self, event_type: &str) -> Option<&EventType> {
        self.newest.get(event_type)
    }

    /// The same, but for the type of one event's data.
    #[must_use]
    pub fn with(&self, event_type: &str, kind: Kind) -> Self {
        let mut other = self.clone();
        if let Some(event) = other.newest.get_mut(event_type) {
            event.kind = kind;
        }
        other
    }

    /// The names of all event types, for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str)
    }

    /// What readers of one major version know.
    #[must_use]
    pub fn reader(&self, event_type: &str, version: u32) -> Option<&Schema> {
        self.readers.get(&(event_type.to_owned(), version))
    }

    /// What lifts this version of an event to a later one.
    #[must_use]
    pub fn upcaster(&self, event_type: &str, version: u32) -> Option<&Upcaster> {
        self.upcasters.get(event_type)?.get(&version)
    }

    /// Lifts an event's data from `version` to the newest, one upcaster after the other.
    ///
    /// # Errors
    /// The upcaster that stopped, by the version that it lifts.
    pub fn lift(&self, event_type: &str, mut version: u32, mut data: Value) -> Result<Value, (u32, RunError)> {
        while let Some(upcaster) = self.upcaster(event_type, version) {
            data = upcaster.lift(data).map_err(|error| (version, error))?;
            version = upcaster.to;
        }
        Ok(data)
    }

    /// The tests in the upcasters' files.
    #[must_use]
    pub fn upcaster_tests(&self) -> &[UpcasterTest] {
        &self.tests
    }

    fn load_upcasters(&mut self, folder: &Path) -> Result<(), CatalogError> {
        let compiler = Compiler::default();
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
        let files = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml"));
        let mut files: Vec<_> = files.collect();
        files.sort();
        for path in files {
            let fail = |reason: String| CatalogError::File { path: path.clone(), reason };
            let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
            let file: UpcasterFile = serde_saphyr::from_str(&text).map_err(|e| fail(e.to_string()))?;
            let kind = |version: u32| {
                let schema = self
                    .reader(&file.event, version)
                    .ok_or_else(|| fail(format!("{} has no version {version}", file.event)))?;
                Shape::new(schema).map(|s| s.kind()).map_err(|e| fail(e.to_string()))
            };
            let known = self.event(&file.event).is_some_and(|e| e.aggregate_type == file.aggregate);
            if !known || file.to <= file.from {
                return Err(fail("`event` and `aggregate` must be those of a schema, and `to` above `from`".into()));
            }
            let upcaster = Upcaster::new(&compiler, &file.upcast.value, &kind(file.from)?, &kind(file.to)?, file.to)
                .map_err(|findings| CatalogError::Upcaster { path: path.clone(), findings })?;
            let test = |golden: Golden| UpcasterTest {
                path: path.clone(),
                event: file.event.clone(),
                from: file.from,
                given: golden.given,
                expect: golden.expect,
            };
            self.tests.extend(file.tests.into_iter().map(test));
            self.upcasters.entry(file.event).or_default().insert(file.from, upcaster);
        }
        Ok(())
    }
}

/// The fields that are marked `"personal": true`, by their paths. A record that is named again is looked at where it is declared.
fn find_personal(schema: &Schema, path: &str, found: &mut Vec<String>) {
    match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
                if field.custom_attributes.get("personal").is_some_and(|mark| mark.as_bool() == Some(true)) {
                    found.push(path);
                } else {
                    find_personal(&field.schema, &path, found);
                }
            }
        }
        Schema::Array(items) => find_personal(&items.items, &format!("{path}[]"), found),
        Schema::Union(union) => union.variants().iter().for_each(|variant| find_personal(variant, path, found)),
        _ => {}
    }
}
