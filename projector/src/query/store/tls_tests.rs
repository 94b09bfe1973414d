//! Readers of stores that are reached by TLS and ask for a password.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::expr::Collection;
use crate::projection::{ClickhouseStore, ElasticsearchStore, PostgresStore, RedisStore};
use crate::query::template::SqlTemplate;
use secured::{Authority, CREDENTIALS, PASSWORD, Speaks};

/// The servers, as the sink contract has them.
#[allow(clippy::duplicate_mod, unreachable_pub, dead_code)]
#[path = "../../../tests/sink_contract/secured.rs"]
mod secured;

const WRONG: &str = "keeper:wrongw0rd";

fn generation() -> Generation {
    Generation {
        generation_id: 1,
        read_model: "books".into(),
        generation: 1,
        state: "live".into(),
        fingerprint: String::new(),
        config: String::new(),
        topics: Default::default(),
    }
}

/// Reads something that isn't there; a store that lets us in says so in its own way.
async fn read(store: &Store, urls: &StoreUrls) -> Result<String, ReadError> {
    let client = http_client(urls)?;
    let document = Kind::object(Collection::any());
    match Reader::open(store, &generation(), &document, urls, &client)? {
        Reader::Redis(reader) => reader.read("nobody").await.map(|found| format!("{found:?}")),
        Reader::Search(reader) => {
            reader.refresh().await?;
            reader.search(&serde_json::json!({})).await.map(|found| format!("{found:?}"))
        }
        Reader::Clickhouse(reader) => {
            let sql = SqlTemplate::parse("SELECT 1 AS n -- {table}", None).unwrap();
            reader.query(&sql, &Default::default()).await.map(|found| format!("{found:?}"))
        }
        Reader::Postgres(reader) => {
            let sql = SqlTemplate::parse("SELECT 1 AS n -- {table}\n", None).unwrap();
            reader.query(&sql, &Default::default()).await.map(|found| format!("{found:?}"))
        }
    }
}

async fn keeps_its_door(store: &Store, authority: &Authority, address: impl Fn(&str) -> StoreUrls) {
    let ca_file = Some(authority.ca_file());
    let (name, stranger) = (store.name(), Authority::new().unwrap());
    let right = read(store, &StoreUrls { ca_file: ca_file.clone(), ..address(CREDENTIALS) }).await;
    // The index isn't there, which only who was let in can know.
    let let_in = right.is_ok() || right.as_ref().is_err_and(|e| e.to_string().contains("index_not_found"));
    assert!(let_in, "{name}: {right:?}");
    for (ca_file, who, remedy) in [
        (None, CREDENTIALS, "STORES_CA_FILE"),
        (Some(stranger.ca_file()), CREDENTIALS, "STORES_CA_FILE"),
        (ca_file, WRONG, "password"),
    ] {
        let result = read(store, &StoreUrls { ca_file, ..address(who) }).await;
        let text = format!("{result:?}");
        assert!(matches!(result, Err(ReadError::Unavailable(_))), "{name}: {text}");
        assert!(text.contains(remedy), "{name}: without a remedy: {text}");
        assert!([PASSWORD, "s3cr%40t", "wrongw0rd"].iter().all(|secret| !text.contains(secret)), "{name}: {text}");
    }
}

fn env(name: &str, otherwise: &str) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn readers_by_tls_with_a_password() {
    let (search, clickhouse) =
        (env("ELASTICSEARCH_URL", "http://127.0.0.1:19200"), env("CLICKHOUSE_URL", "http://127.0.0.1:18123"));
    let authority = Authority::new().unwrap();

    let server = secured::redis(&authority).await.unwrap();
    let store = Store::Redis(RedisStore { prefix: "books:".into(), database: 0 });
    let url = |who: &str| format!("rediss://{who}@127.0.0.1:{}", server.port);
    keeps_its_door(&store, &authority, |who| StoreUrls { redis_url: url(who), ..StoreUrls::default() }).await;

    let server = secured::postgres(&authority).await.unwrap();
    let store = Store::Postgres(PostgresStore::default());
    let url = |who: &str| format!("postgres://{who}@127.0.0.1:{}/postgres?sslmode=verify-full", server.port);
    keeps_its_door(&store, &authority, |who| StoreUrls { postgres_read_url: url(who), ..StoreUrls::default() }).await;

    let port = secured::in_front_of(&search, &authority, Speaks::Elasticsearch).await.unwrap();
    let store = Store::Elasticsearch(ElasticsearchStore::default());
    let url = |who: &str| format!("https://{who}@127.0.0.1:{port}");
    keeps_its_door(&store, &authority, |who| StoreUrls { elasticsearch_url: url(who), ..StoreUrls::default() }).await;

    let port = secured::in_front_of(&clickhouse, &authority, Speaks::Clickhouse).await.unwrap();
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), ..ClickhouseStore::default() });
    let url = |who: &str| format!("https://{who}@127.0.0.1:{port}");
    let address = |who: &str| StoreUrls {
        clickhouse_url: url(who),
        clickhouse_database: "system".to_owned(),
        ..StoreUrls::default()
    };
    keeps_its_door(&store, &authority, address).await;
}
