//! Migrations against the real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use command_api::migrate::{MigrateError, Options, check, migrate};
use sqlx::{Connection, PgConnection};
use support::Service;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn migrating_twice_is_safe_and_a_missing_migration_is_named() {
    let service = Service::start().await;
    let options = Options { connector_role: "debezium".to_owned(), ..Options::default() };
    migrate(&service.database_url, &options).await.unwrap();
    check(&service.pool).await.unwrap();
    sqlx::query("delete from _sqlx_migrations where version = 3").execute(&service.pool).await.unwrap();
    let error = check(&service.pool).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Pending(versions) if versions == &[3]), "{error}");
    assert!(error.to_string().contains("command-api migrate"));
    service.stop().await;
}

/// The connector's role may do what the connector does, and nothing else.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_connector_may_read_the_outbox_and_send_its_heartbeat() {
    let service = Service::start().await;
    let mut connection = PgConnection::connect(&service.database_url).await.unwrap();
    sqlx::query("set role debezium").execute(&mut connection).await.unwrap();
    let heartbeat = r"insert into outbox(aggregate_type,aggregate_id,sequence,event_type,payload) values ('heartbeat','heartbeat',0,'Heartbeat','\x00')";
    sqlx::query(heartbeat).execute(&mut connection).await.unwrap();
    let complete = "select count(*) from outbox where epoch = outbox_epoch() and txid >= tx_min and schema_version = 1 and metadata = '{}'";
    assert_eq!(sqlx::query_scalar::<_, i64>(complete).fetch_one(&mut connection).await.unwrap(), 1);
    for forbidden in [
        "select count(*) from customers",
        "select count(*) from events",
        "delete from outbox",
        "update outbox set sequence = 1",
    ] {
        assert!(sqlx::query(forbidden).execute(&mut connection).await.is_err(), "{forbidden}");
    }
    connection.close().await.unwrap();
    let published = "select count(*) from pg_publication_tables where pubname = 'outbox_pub' and tablename = 'outbox'";
    assert_eq!(service.number(published).await, 1);
    let inserts = "select count(*) from pg_publication where pubname = 'outbox_pub' and pubinsert and not (pubupdate or pubdelete or pubtruncate)";
    assert_eq!(service.number(inserts).await, 1);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn two_writers_of_one_position_cannot_both_win() {
    let service = Service::start().await;
    service.customer(None).await;
    let again = "insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version, data, payload)
                 select stream_id, stream_position, gen_random_uuid(), aggregate_type, aggregate_id, event_type, schema_version, data, payload from events";
    let error = sqlx::query(again).execute(&service.pool).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().constraint(), Some("events_stream_position"));
    service.stop().await;
}
