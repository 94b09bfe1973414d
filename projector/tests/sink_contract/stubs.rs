//! Answers of servers that are full, overloaded or read-only, by a server that gives just these: never a document's fault.

use super::fixtures::{document, named, row, row_kind, unavailable, urls_at};
use anyhow::{Result, ensure};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use projector::apply::{Outcome, Partition, Progress};
use projector::projection::{ClickhouseStore, ElasticsearchStore, Store};
use projector::sink::{Place, Sink, open};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Gives every call the same answer.
async fn server(status: u16, body: String) -> Result<u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let status = StatusCode::from_u16(status)?;
    let answer =
        move || std::future::ready((status, [("content-type", "application/json")], body.clone()).into_response());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    Ok(port)
}

fn sink(store: &Store, port: u16) -> Result<Arc<dyn Sink>> {
    let document = if matches!(store, Store::Clickhouse(_)) { row_kind() } else { document() };
    Ok(open(store, Place { read_model: "stub".into(), generation: 1, document }, &urls_at(port))?)
}

fn progress() -> [(Partition, Progress); 1] {
    [(Partition { topic: "t".into(), number: 0 }, Progress::default())]
}

/// A bulk request's answer in which the second item failed.
fn item_failed(status: u16, kind: &str, reason: &str) -> String {
    let failed = json!({"index": {"status": status, "error": {"type": kind, "reason": reason}}});
    json!({"errors": true, "items": [{"index": {"status": 201}}, failed]}).to_string()
}

#[tokio::test]
async fn an_elasticsearch_that_is_full_or_overloaded_is_unavailable() -> Result<()> {
    let block = "index [stub] blocked by: [FORBIDDEN/12/index read-only / allow delete (api)];";
    let flood = "index [stub] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];";
    let whole =
        |status: u16, kind: &str| json!({"error": {"type": kind, "reason": block}, "status": status}).to_string();
    let answers = [
        (429, whole(429, "es_rejected_execution_exception")),
        (429, whole(429, "circuit_breaking_exception")),
        (503, whole(503, "cluster_block_exception")),
        (503, "<html>no backend</html>".to_owned()),
        (403, whole(403, "cluster_block_exception")),
        (200, item_failed(429, "es_rejected_execution_exception", "queue full")),
        (200, item_failed(503, "unavailable_shards_exception", "primary shard is not active")),
        (200, item_failed(403, "cluster_block_exception", block)),
        (200, item_failed(429, "cluster_block_exception", flood)),
        (200, item_failed(500, "i_o_exception", "No space left on device")),
    ];
    let store = Store::Elasticsearch(ElasticsearchStore::default());
    for (status, body) in answers {
        let sink = sink(&store, server(status, body.clone()).await?)?;
        let result = sink.write(&[named("a", 1), named("b", 1)]).await;
        ensure!(unavailable(result).is_ok(), "{status} {body}");
        if status != 200 {
            unavailable(sink.load(&["a".to_owned()]).await)?;
        }
        unavailable(sink.save_progress(&[progress(), progress()].concat()).await)?;
    }
    // A document's own fault is told from these.
    let sink = sink(&store, server(200, item_failed(400, "document_parsing_exception", "failed to parse")).await?)?;
    let outcomes = sink.write(&[named("a", 1), named("b", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Written, Outcome::Rejected(_)]), "{outcomes:?}");
    Ok(())
}

#[tokio::test]
async fn a_clickhouse_that_is_full_or_overloaded_is_unavailable() -> Result<()> {
    let said =
        |code: u32, text: &str, name: &str| format!("Code: {code}. DB::Exception: {text}. ({name}) (version 25.8)");
    let answers = [
        (503, "no backend".to_owned()),
        (500, said(241, "Memory limit (total) exceeded: would use 1.80 GiB", "MEMORY_LIMIT_EXCEEDED")),
        (500, said(243, "Cannot reserve 1.00 MiB, not enough space", "NOT_ENOUGH_SPACE")),
        (500, said(242, "Table is in readonly mode", "TABLE_IS_READ_ONLY")),
        (500, said(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")),
        (500, said(252, "Too many parts (300)", "TOO_MANY_PARTS")),
        (500, said(159, "Timeout exceeded", "TIMEOUT_EXCEEDED")),
    ];
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), ..ClickhouseStore::default() });
    let batch = [row(Uuid::now_v7(), 0, "2026-11-21", 1), row(Uuid::now_v7(), 0, "2026-11-21", 2)];
    for (status, body) in answers {
        let sink = sink(&store, server(status, body.clone()).await?)?;
        ensure!(unavailable(sink.write(&batch).await).is_ok(), "{status} {body}");
        unavailable(sink.save_progress(&progress()).await)?;
        unavailable(sink.load_progress(&[]).await)?;
    }
    let bad = said(27, "Cannot parse input", "CANNOT_PARSE_INPUT_ASSERTION_FAILED");
    let outcomes = sink(&store, server(400, bad).await?)?.write(&batch).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Rejected(_)]), "{outcomes:?}");
    Ok(())
}
