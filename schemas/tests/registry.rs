//! Registration against the real registry.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;

use apache_avro::Schema;
use schemas::{RegisterError, Registry, SchemaFile};

fn registry() -> Registry {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Registry::new(&std::env::var("SCHEMA_REGISTRY_URL").expect("SCHEMA_REGISTRY_URL")).unwrap()
}

/// A schema of an aggregate of its own, so that tests don't meet.
fn paid(aggregate: &str, fields: &str) -> SchemaFile {
    let namespace = format!("shop.{aggregate}.v1");
    let text = format!(r#"{{"type": "record", "name": "Paid", "namespace": "{namespace}", "fields": [{fields}]}}"#);
    SchemaFile {
        path: "Paid.v1.avsc".into(),
        aggregate: aggregate.to_owned(),
        event: "Paid".to_owned(),
        major: 1,
        minor: 0,
        schema: Schema::parse_str(&text).unwrap(),
        text,
    }
}

fn unique() -> String {
    format!("trial{}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn registering_twice_gives_the_same_ids_and_they_are_found() {
    let registry = registry();
    let files = schemas::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let ids = |registered: Vec<schemas::Registered>| registered.iter().map(|r| r.id).collect::<Vec<_>>();
    let first = ids(registry.register(&files).await.unwrap());
    assert_eq!(first, ids(registry.register(&files).await.unwrap()));
    assert_eq!(first, ids(registry.look_up(&files).await.unwrap()));
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_incompatible_schema_is_refused_with_the_field_named() {
    let registry = registry();
    let aggregate = unique();
    let good = paid(&aggregate, r#"{"name": "id", "type": "string"}"#);
    registry.register(std::slice::from_ref(&good)).await.unwrap();
    let bad = paid(&aggregate, r#"{"name": "id", "type": "string"}, {"name": "cents", "type": "long"}"#);
    // alone, so that only the registry knows what was there before
    let error = registry.register(std::slice::from_ref(&bad)).await.unwrap_err();
    let RegisterError::Incompatible(error) = error else { panic!("{error}") };
    assert_eq!(error.field, "cents");
    assert!(matches!(registry.look_up(&[bad]).await, Err(RegisterError::Missing { .. })));
    let better = paid(&aggregate, r#"{"name": "id", "type": "string"}, {"name": "cents", "type": "long", "default": 0}"#);
    registry.register(&[good, better]).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let registry = Registry::new("http://127.0.0.1:9").unwrap();
    let error = registry.look_up(&[paid("x", "")]).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9"), "{error}");
}
