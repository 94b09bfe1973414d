//! Stores that aren't there.

use super::fixtures::{document, row, row_kind, unavailable, urls_at};
use anyhow::{Context as _, Result};
use projector::projection::{ClickhouseStore, ElasticsearchStore, PostgresStore, RedisStore, Store};
use projector::sink::{Place, open};
use uuid::Uuid;

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() -> Result<()> {
    // A port that nothing listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let clickhouse = Store::Clickhouse(ClickhouseStore { day: "day".into(), ..ClickhouseStore::default() });
    let stores = [
        (Store::Redis(RedisStore { prefix: "x:".into(), database: 0 }), document()),
        (Store::Elasticsearch(ElasticsearchStore::default()), document()),
        (Store::Postgres(PostgresStore::default()), row_kind()),
        (clickhouse, row_kind()),
    ];
    for (store, document) in stores {
        let sink = open(&store, Place { read_model: "away".into(), generation: 1, document }, &urls_at(port))?;
        let write = row(Uuid::now_v7(), 0, "2026-11-21", 1);
        for result in [sink.prepare().await, sink.write(&[write]).await.map(|_| ())] {
            unavailable(result).with_context(|| store.name())?;
        }
    }
    Ok(())
}
