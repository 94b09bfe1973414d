//! Migrations against the real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use command_api::migrate::{MigrateError, Options, check, migrate};
use command_api::store::ATTEMPTS_MAX;
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{Service, deposit, order, problem};

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

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn connections_that_broke_while_idle_are_replaced_unnoticed() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_000, 100).await);
    let body = order(&customer, &product, 1);
    assert!(join_all((0..8).map(|_| service.post("/orders", &body))).await.iter().all(|(status, _)| *status == 201));
    let mut other = PgConnection::connect(&service.database_url).await.unwrap();
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
    assert!(sqlx::query_scalar::<_, i64>(kill).fetch_one(&mut other).await.unwrap() > 1);
    let answers = join_all((0..8).map(|_| service.post("/orders", &body))).await;
    assert!(answers.iter().all(|(status, _)| *status == 201), "{answers:?}");
    other.close().await.unwrap();
    service.assert_sound().await;
    service.stop().await;
}

/// Clients that are gone leave no transaction open: what came next on that connection without one of its own would never be committed.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_request_that_is_given_up_at_any_moment_leaves_no_transaction_behind() {
    let service = Service::start().await;
    service.account("acc").await;
    for round in 0..20 {
        let bodies: Vec<_> = (0..16).map(|n| deposit(&format!("{round}-{n}"), "acc", 1)).collect();
        let asked = join_all(bodies.iter().map(|body| service.post("/v1/commands/accounts/deposit", body)));
        let _ = tokio::time::timeout(Duration::from_micros(1_000 + round * 400), asked).await;
    }
    let open = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and state like 'idle in transaction%' and state_change < clock_timestamp() - interval '500 ms'";
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut other = PgConnection::connect(&service.database_url).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(open).fetch_one(&mut other).await.unwrap(), 0);
    other.close().await.unwrap();
    service.assert_sound().await;
    service.stop().await;
}

/// One customer is held up by another process, and forty commands wait for that one.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_held_up_holds_up_nothing_else() {
    let service = Service::start().await;
    let (held, other) = (service.customer(None).await, service.customer(None).await);
    let mut rival = PgConnection::connect(&service.database_url).await.unwrap();
    let mut unit = rival.begin().await.unwrap();
    sqlx::query("select from customers where customer_id = $1::uuid for update")
        .bind(&held)
        .execute(&mut *unit)
        .await
        .unwrap();
    let rename = json!({"name": "Ada King"});
    let path = |id: &str| format!("/customers/{id}");
    let change = async || service.send(Method::PATCH, &path(&held), &rename).await;
    let waiting = join_all((0..40).map(|_| change()));
    let others = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..20 {
            let path = path(&other);
            let change = service.send(Method::PATCH, &path, &rename);
            let (status, answer) = tokio::time::timeout(Duration::from_secs(5), change).await.expect("held up, too");
            assert_eq!(status, 200, "{answer}");
        }
        unit.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(waiting, others);
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    rival.close().await.unwrap();
    service.assert_sound().await;
    service.stop().await;
}

/// A trigger plays the rival; its counter survives the roll-backs.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn lost_races_are_run_again_and_given_up_with_409() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_000, 100).await);
    let rival = "create sequence tries;
        create function lose() returns trigger language plpgsql as $$ begin
            if nextval('tries') <= current_setting('test.losses')::int then raise serialization_failure; end if;
            return new;
        end $$;
        create trigger rival before insert on outbox for each statement execute function lose();";
    sqlx::raw_sql(rival).execute(&service.pool).await.unwrap();
    let losses = async |n: i64| {
        let set = format!(
            "alter sequence tries restart; do $$ begin
            execute format('alter database %I set test.losses = {n}', current_database()); end $$;"
        );
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&service.pool).await.unwrap();
        // a database's setting is read when a connection begins
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
        let mut other = PgConnection::connect(&service.database_url).await.unwrap();
        sqlx::query(end).execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    };
    losses(3).await;
    assert_eq!(service.post("/orders", &order(&customer, &product, 1)).await.0, 201);
    assert_eq!(service.number("select last_value from tries").await, 4);
    losses(1_000).await;
    let (status, answer) = service.post("/orders", &order(&customer, &product, 1)).await;
    assert_eq!((status, problem(&answer)), (409, "/problems/lost-race"), "{answer}");
    assert_eq!(service.number("select last_value from tries").await, i64::from(ATTEMPTS_MAX));
    assert_eq!(service.number("select reserved from inventory").await, 1);
    service.assert_sound().await;
    service.stop().await;
}
