//! Stores that are reached by TLS and ask for a password: each side's proof that is missing or wrong is said with what to do,
//! and no document is to blame.

use super::fixtures::{document, named, one, row, row_kind, run_name, urls, written};
use super::secured::{Authority, CREDENTIALS, PASSWORD, Speaks, in_front_of, postgres, redis};
use anyhow::{Context as _, Result, ensure};
use projector::apply::{Partition, Progress, Write};
use projector::projection::{ClickhouseStore, ElasticsearchStore, PostgresStore, RedisStore, Store};
use projector::sink::{Place, Sink, SinkError, StoreUrls, open};
use std::sync::Arc;
use uuid::Uuid;

/// A store, its addresses with this text for user and password, and a write that it takes.
struct Secured {
    store: Store,
    place: Place,
    address: Box<dyn Fn(&str) -> StoreUrls + Send + Sync>,
    write: Write,
}

impl Secured {
    fn open(&self, credentials: &str, ca_file: Option<&Authority>) -> Result<Arc<dyn Sink>> {
        let urls = StoreUrls { ca_file: ca_file.map(Authority::ca_file), ..(self.address)(credentials) };
        Ok(open(&self.store, self.place.clone(), &urls)?)
    }

    async fn keeps_its_door(&self, authority: &Authority) -> Result<()> {
        let sink = self.open(CREDENTIALS, Some(authority))?;
        sink.prepare().await.context("with both proofs")?;
        written(sink.as_ref(), std::slice::from_ref(&self.write)).await?;
        let partition = Partition { topic: "t".into(), number: 0 };
        let progress = Progress { next_offset: 7, ..Progress::default() };
        sink.save_progress(&[(partition.clone(), progress.clone())]).await?;
        assert_eq!(sink.load_progress(&[partition]).await?, [Some(progress)]);
        if !matches!(self.store, Store::Clickhouse(_)) {
            ensure!(one(sink.as_ref(), &self.write.key).await?.is_some());
        }

        let stranger = Authority::new()?;
        for (what, ca_file) in [("no authority", None), ("another authority", Some(&stranger))] {
            self.refused(what, "STORES_CA_FILE", &*self.open(CREDENTIALS, ca_file)?).await?;
        }
        for (what, credentials) in
            [("a wrong password", "keeper:wrongw0rd"), ("an unknown user", "nobody:s3cr%40t%2Fw%3Ard")]
        {
            self.refused(what, "password", &*self.open(credentials, Some(authority))?).await?;
        }
        Ok(())
    }

    /// Each call fails for good, says what to do, tells no password, and blames no document.
    async fn refused(&self, what: &str, remedy: &str, sink: &dyn Sink) -> Result<()> {
        let write = sink.write(std::slice::from_ref(&self.write)).await.map(|outcomes| format!("{outcomes:?}"));
        let prepared = sink.prepare().await.map(|()| String::new());
        for result in [prepared, write] {
            let store = self.store.name();
            let Err(error) = result else { anyhow::bail!("{store}: {what}: {result:?}") };
            ensure!(matches!(error, SinkError::Broken { .. }), "{store}: {what}: not told as a wrong set-up: {error}");
            let text = format!("{error} {error:?}");
            ensure!(text.contains(remedy), "{store}: {what}: without a remedy: {error}");
            ensure!(
                [PASSWORD, "s3cr%40t", "wrongw0rd"].iter().all(|secret| !text.contains(secret)),
                "{store}: {what}: tells a password: {text}"
            );
            println!("{store}, {what}: {error}");
        }
        Ok(())
    }
}

fn place(name: &str, store: &Store) -> Place {
    let document = if matches!(store, Store::Clickhouse(_)) { row_kind() } else { document() };
    Place { read_model: name.to_owned(), generation: 1, document }
}

#[tokio::test]
#[ignore = "needs redis-server: ./dev test"]
async fn redis_by_tls_with_a_password() -> Result<()> {
    let urls = urls();
    let authority = Authority::new()?;
    let server = redis(&authority).await?;
    let port = server.port;
    let store = Store::Redis(RedisStore { prefix: "tls:".into(), database: 3 });
    let address = move |who: &str| StoreUrls { redis_url: format!("rediss://{who}@127.0.0.1:{port}"), ..urls.clone() };
    let secured = Secured { place: place("tls", &store), store, address: Box::new(address), write: named("a", 1) };
    secured.keeps_its_door(&authority).await?;
    // Nobody is nobody.
    let anonymous = StoreUrls {
        redis_url: format!("rediss://127.0.0.1:{port}"),
        ca_file: Some(authority.ca_file()),
        ..super::fixtures::urls()
    };
    secured.refused("no user", "password", &*open(&secured.store, secured.place.clone(), &anonymous)?).await
}

#[tokio::test]
#[ignore = "needs Postgres' programs: ./dev test"]
async fn postgres_by_tls_with_a_password() -> Result<()> {
    let urls = urls();
    let authority = Authority::new()?;
    let server = postgres(&authority).await?;
    let port = server.port;
    let store = Store::Postgres(PostgresStore::default());
    let address = move |who: &str| StoreUrls {
        // Without this a server's certificate isn't looked at unless an authority is named.
        postgres_read_url: format!("postgres://{who}@127.0.0.1:{port}/postgres?sslmode=verify-full"),
        ..urls.clone()
    };
    let secured = Secured { place: place("tls", &store), store, address: Box::new(address), write: named("a", 1) };
    secured.keeps_its_door(&authority).await?;

    // To name an authority is to ask for its word.
    let stranger = Authority::new()?;
    let url = format!("postgres://{CREDENTIALS}@127.0.0.1:{port}/postgres");
    for (ca_file, expected) in [(authority.ca_file(), true), (stranger.ca_file(), false)] {
        let urls = StoreUrls { postgres_read_url: url.clone(), ca_file: Some(ca_file), ..super::fixtures::urls() };
        assert_eq!(open(&secured.store, secured.place.clone(), &urls)?.prepare().await.is_ok(), expected);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn elasticsearch_by_tls_with_a_password() -> Result<()> {
    let (urls, name) = (urls(), run_name());
    let authority = Authority::new()?;
    let port = in_front_of(&urls.elasticsearch_url, &authority, Speaks::Elasticsearch).await?;
    let (client, index) = (reqwest::Client::new(), format!("{}/{name}-g1", urls.elasticsearch_url));
    let progress = format!("{}/projector-progress/_doc/{name}-g1%2Ft%2F0", urls.elasticsearch_url);
    let store = Store::Elasticsearch(ElasticsearchStore::default());
    let address =
        move |who: &str| StoreUrls { elasticsearch_url: format!("https://{who}@127.0.0.1:{port}"), ..urls.clone() };
    let secured = Secured { place: place(&name, &store), store, address: Box::new(address), write: named("a", 1) };
    let result = secured.keeps_its_door(&authority).await;
    client.delete(index).send().await?;
    client.delete(progress).send().await?;
    result
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn clickhouse_by_tls_with_a_password() -> Result<()> {
    let (urls, name) = (urls(), run_name());
    let authority = Authority::new()?;
    let port = in_front_of(&urls.clickhouse_url, &authority, Speaks::Clickhouse).await?;
    let (url, database) = (urls.clickhouse_url.clone(), format!("{name}_d"));
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), ..ClickhouseStore::default() });
    let in_database = database.clone();
    let address = move |who: &str| StoreUrls {
        clickhouse_url: format!("https://{who}@127.0.0.1:{port}"),
        clickhouse_database: in_database.clone(),
        ..urls.clone()
    };
    let write = row(Uuid::now_v7(), 0, "2026-11-21", 1);
    let secured = Secured { place: place(&name, &store), store, address: Box::new(address), write };
    let result = secured.keeps_its_door(&authority).await;
    reqwest::Client::new().post(url).body(format!("DROP DATABASE IF EXISTS {database}")).send().await?;
    result
}
