//! What a registry's newer schemas would break: programs are compiled again, against what they would see then.

use crate::event::{Catalog, Shape};
use crate::projection::{Compiled, Finding, Source};
use anyhow::Context;
use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_subject};
use schema_registry_converter::schema_registry_common::SubjectNameStrategy;
use std::time::Duration;

/// What a newer schema does to the projections.
pub(super) struct Newer {
    /// Which, in words.
    pub(super) what: String,
    /// What it breaks.
    pub(super) findings: Vec<Finding>,
}

/// Asks the registry for the newest schema of each event that the projections take; gives those that aren't the folder's.
///
/// # Errors
/// A registry that doesn't answer, or has what isn't Avro.
pub(super) async fn newer(url: &str, catalog: &Catalog, all: &[(&Compiled, &Source)]) -> anyhow::Result<Vec<Newer>> {
    let mut settings = SrSettings::new_builder(url.to_owned());
    settings.set_timeout(Duration::from_secs(5));
    let settings = settings.build().with_context(|| format!("{url} can't be used"))?;
    let mut events: Vec<&str> = all.iter().flat_map(|(c, _)| c.projection.on.keys().map(String::as_str)).collect();
    events.sort_unstable();
    events.dedup();
    let mut found = Vec::new();
    for event in events {
        let Some(version) = catalog.event(event).map(|known| known.version) else { continue };
        let Some(ours) = catalog.reader(event, version) else { continue };
        let Some(subject) = ours.name().map(|name| name.fullname(None)) else { continue };
        // One that isn't there was never written.
        if let Some(theirs) = latest(&settings, &subject).await?
            && theirs.canonical_form() != ours.canonical_form()
        {
            found.extend(compare(catalog, all, event, &subject, &theirs, ours));
        }
        let next = subject.replace(&format!(".v{version}."), &format!(".v{}.", version + 1));
        if next != subject && latest(&settings, &next).await?.is_some() {
            let what = format!(
                "{next}: the registry has the next major version of {event}. Its events become dead letters until the folder of \
                 schemas has it, with an upcaster upcasters/{event}.v{version}.yaml"
            );
            found.push(Newer { what, findings: Vec::new() });
        }
    }
    Ok(found)
}

async fn latest(settings: &SrSettings, subject: &str) -> anyhow::Result<Option<Schema>> {
    match get_schema_by_subject(settings, &SubjectNameStrategy::RecordNameStrategy(subject.to_owned())).await {
        Ok(found) => {
            Ok(Some(Schema::parse_str(&found.schema).with_context(|| format!("{subject}: not an Avro schema"))?))
        }
        Err(error) if error.retriable => Err(error).context("the schema registry is not available"),
        Err(_) => Ok(None),
    }
}

/// Two moments: events of the newer schema read as the folder has it now, and once the folder takes the newer one.
fn compare(
    catalog: &Catalog,
    all: &[(&Compiled, &Source)],
    event: &str,
    subject: &str,
    theirs: &Schema,
    ours: &Schema,
) -> Vec<Newer> {
    let moments = [
        ("events of the registry's newer schema, as they are read today", Shape::resolve(theirs, ours)),
        ("once the folder of schemas takes the registry's newer schema", Shape::new(theirs)),
    ];
    let one = |(moment, shape): (&str, Result<Shape, _>)| match shape {
        Ok(shape) => {
            let then = catalog.with(event, shape.kind());
            let broken = all.iter().filter(|(compiled, _)| compiled.projection.on.contains_key(event));
            let findings =
                broken.flat_map(|(_, source)| Compiled::new(source, &then).err().unwrap_or_default()).collect();
            Newer { what: format!("{subject}: {moment}"), findings }
        }
        Err(error) => Newer {
            what: format!("{subject}: {moment}: every event becomes a dead letter: {error}"),
            findings: Vec::new(),
        },
    };
    let found: Vec<Newer> = moments.into_iter().map(one).collect();
    found.into_iter().filter(|newer| !newer.findings.is_empty() || newer.what.contains("dead letter")).collect()
}
