//! `check --registry`, against a stub that answers as Confluent's API does.

use super::support::{library, projector};
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value as Json, json};

/// A registry with these subjects; gives its address.
pub fn registry(subjects: &[(&'static str, Json)]) -> String {
    let subjects: Vec<(String, String)> =
        subjects.iter().map(|(name, schema)| ((*name).to_owned(), schema.to_string())).collect();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let by_id = subjects.clone();
            let latest = move |Path(subject): Path<String>| {
                let found = subjects.iter().position(|(name, _)| *name == subject);
                let answer = match found {
                    Some(n) => (
                        StatusCode::OK,
                        json!({"subject": subject, "version": 2, "id": n + 1, "schema": subjects[n].1}),
                    ),
                    None => (StatusCode::NOT_FOUND, json!({"error_code": 40401, "message": "no such subject"})),
                };
                std::future::ready((answer.0, axum::Json(answer.1)))
            };
            let by_id = move |Path(id): Path<usize>| std::future::ready(axum::Json(json!({"schema": by_id[id - 1].1})));
            let app = Router::new()
                .route("/subjects/{subject}/versions/latest", get(latest))
                .route("/schemas/ids/{id}", get(by_id));
            axum::serve(listener, app).await.unwrap();
        });
    });
    format!("http://{}", receive.recv().unwrap())
}

pub fn schema(file: &str) -> Json {
    serde_json::from_str(&std::fs::read_to_string(library(file)).unwrap()).unwrap()
}

#[test]
fn a_registry_with_the_same_schemas_or_without_any_breaks_nothing() {
    let same = registry(&[("library.loan.v1.Borrowed", schema("schemas/loan/Borrowed.v1.avsc"))]);
    let ran = projector(&["check", &library("projections"), "--registry", &same]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_field_that_a_newer_schema_lost_is_named_with_its_place() {
    let mut newer = schema("schemas/loan/Borrowed.v1.avsc");
    newer["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "title");
    let url = registry(&[("library.loan.v1.Borrowed", newer)]);
    let ran = projector(&["check", &library("projections/loans.yaml"), "--registry", &url]);
    assert_eq!(ran.code, 1);
    // The folder's schema has no default for it.
    assert!(
        ran.err.contains("every event becomes a dead letter: schema: field `title` was added without a default"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("once the folder of schemas takes the registry's newer schema"), "{}", ran.err);
    assert!(ran.err.contains("loans.yaml:11:14: no type has the field `%data.title`"), "{}", ran.err);
}

#[test]
fn a_newer_major_version_needs_an_upcaster() {
    let url = registry(&[("library.loan.v2.Borrowed", schema("schemas/loan/Borrowed.v1.avsc"))]);
    let ran = projector(&["check", &library("projections/loans.yaml"), "--registry", &url]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("library.loan.v2.Borrowed: the registry has the next major version"), "{}", ran.err);
}
