//! Registration against the real registry.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schemas::{RegistryError, SchemaFile, ids, register};
use std::path::Path;

fn url() -> String {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::env::var("SCHEMA_REGISTRY_URL").expect("SCHEMA_REGISTRY_URL")
}

/// A minor of an event of an aggregate of its own, so that runs don't meet.
fn paid(aggregate: &str, minor: u32, fields: &str) -> SchemaFile {
    let text =
        format!(r#"{{"type": "record", "name": "Paid", "namespace": "test.{aggregate}.v1", "fields": [{fields}]}}"#);
    SchemaFile {
        path: format!("{aggregate}/Paid.v1.{minor}.avsc").into(),
        aggregate: aggregate.to_owned(),
        event: "Paid".to_owned(),
        major: 1,
        minor,
        schema: Schema::parse_str(&text).unwrap(),
        text,
    }
}

fn unique() -> String {
    format!("run{}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos())
}

const ID: &str = r#"{"name": "id", "type": "string"}"#;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_folder_registers_once_and_its_ids_give_the_schemas_back() {
    let url = url();
    let files = schemas::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let first = register(&files, &url).await.unwrap();
    let again = register(&files, &url).await.unwrap();
    assert_eq!(again.len(), files.len());
    assert!(again.iter().all(|registered| !registered.new), "{again:?}");
    let keys =
        |all: &[schemas::Registered]| all.iter().map(|r| (r.subject.clone(), r.id, r.version)).collect::<Vec<_>>();
    assert_eq!(keys(&first), keys(&again));

    let ids = ids(&files, &url).await.unwrap();
    let settings = SrSettings::new(url);
    for file in &files {
        let id = ids[&(file.event.clone(), file.major)];
        assert!(again.iter().any(|r| r.subject == file.subject() && r.id == id), "{}", file.subject());
        let theirs = Schema::parse_str(&get_schema_by_id(id, &settings).await.unwrap().schema).unwrap();
        assert_eq!(theirs.canonical_form(), file.schema.canonical_form(), "{}", file.subject());
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_compatible_minor_is_a_version_and_writers_get_its_id() {
    let (url, aggregate) = (url(), unique());
    let files = [
        paid(&aggregate, 0, ID),
        paid(&aggregate, 1, &format!(r#"{ID}, {{"name": "cents", "type": "long", "default": 0}}"#)),
    ];
    let registered = register(&files, &url).await.unwrap();
    assert_eq!(registered.iter().map(|r| (r.version, r.new)).collect::<Vec<_>>(), [(1, true), (2, true)]);
    assert_eq!(ids(&files, &url).await.unwrap()[&("Paid".to_owned(), 1)], registered[1].id);
    assert_eq!(ids(&files[..1], &url).await.unwrap()[&("Paid".to_owned(), 1)], registered[0].id);
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_incompatible_minor_is_refused_with_the_field_named() {
    let (url, aggregate) = (url(), unique());
    let item = |fields: &str| {
        format!(
            r#"{ID}, {{"name": "items", "type": {{"type": "array", "items": {{"type": "record", "name": "Item", "fields": [{fields}]}}}}}}"#
        )
    };
    let quantity = r#"{"name": "quantity", "type": "int"}"#;
    register(&[paid(&aggregate, 0, &item(quantity))], &url).await.unwrap();

    let bad = [paid(&aggregate, 1, &item(&format!(r#"{quantity}, {{"name": "cents", "type": "long"}}"#)))];
    let error = register(&bad, &url).await.unwrap_err();
    assert!(!error.is_transient());
    let text = error.to_string();
    let RegistryError::Incompatible { subject, version, incompatibilities, message } = error else { panic!("{text}") };
    assert_eq!((subject, version), (format!("test.{aggregate}.v1.Paid"), 1));
    assert_eq!(incompatibilities.iter().map(|i| &*i.field).collect::<Vec<_>>(), ["items[].cents"]);
    assert!(!message.is_empty() && text.contains("items[].cents"), "{text}");

    // It is not there, and whoever wants to write it learns what to do.
    let error = ids(&bad, &url).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotRegistered { .. }), "{error}");
    assert!(error.to_string().contains("run `command-api schemas register`"), "{error}");
}
