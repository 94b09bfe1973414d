//! Stamping and pruning the outbox, with a real slot; the test plays Debezium and Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use command_api::outbox::{Heartbeats, OutboxError, Published, accept, look, mark, settle, status};
use sqlx::{Connection, PgConnection};
use support::{Service, deposit};
use uuid::Uuid;

const KEPT: Duration = Duration::from_secs(3_600);

/// What Kafka has.
#[derive(Default)]
struct Kafka(HashSet<Uuid>);

impl Heartbeats for Kafka {
    async fn read_back(&mut self, sent: &[Uuid]) -> bool {
        sent.iter().all(|id| self.0.contains(id))
    }
}

struct Connector<'a> {
    service: &'a Service,
    slot: String,
}

impl<'a> Connector<'a> {
    async fn new(service: &'a Service) -> Self {
        let connector = Self { service, slot: format!("w_{}", Uuid::new_v4().simple()) };
        connector.make_slot().await;
        connector
    }

    async fn make_slot(&self) {
        let sql = "select pg_create_logical_replication_slot($1, 'pgoutput')";
        sqlx::query(sql).bind(&self.slot).execute(&self.service.pool).await.unwrap();
    }

    async fn drop_slot(&self) {
        sqlx::query("select pg_drop_replication_slot($1)").bind(&self.slot).execute(&self.service.pool).await.unwrap();
    }

    /// Reads all there is, and confirms it.
    async fn confirm(&self) {
        let sql = "select count(*) from pg_logical_slot_get_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'outbox_pub')";
        sqlx::query(sql).bind(&self.slot).execute(&self.service.pool).await.unwrap();
    }

    async fn deliver(&self, kafka: &mut Kafka) {
        let sql = "select outbox_id from outbox where aggregate_type = 'heartbeat'";
        let sent: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(&self.service.pool).await.unwrap();
        kafka.0.extend(sent);
    }

    async fn work(&self, id: &str) {
        self.service.ok("/v1/commands/accounts/deposit", &deposit(id, "acc", 1)).await;
    }

    /// A mark, and what comes of it when the connector has sent everything.
    async fn round(&self, kafka: &mut Kafka) -> Option<Published> {
        let pool = &self.service.pool;
        look(pool, &self.slot).await.unwrap();
        let mark = mark(pool).await.unwrap();
        self.confirm().await;
        self.deliver(kafka).await;
        settle(pool, &self.slot, &mark, kafka, KEPT).await.unwrap()
    }

    /// Transactions of other databases hold marks back too, so it may take several.
    async fn rounds_until(&self, kafka: &mut Kafka, unstamped: i64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            self.round(kafka).await.unwrap();
            let left = self.unstamped().await;
            assert!(left >= unstamped, "stamped too early");
            if left == unstamped {
                return;
            }
            assert!(Instant::now() < deadline, "{left} rows are not stamped");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn unstamped(&self) -> i64 {
        self.service
            .number("select count(*) from outbox where published_at is null and aggregate_type <> 'heartbeat'")
            .await
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn only_what_is_surely_published_is_stamped_and_pruned() {
    let service = Service::start().await;
    let connector = Connector::new(&service).await;
    let (pool, slot, mut kafka) = (&service.pool, connector.slot.as_str(), Kafka::default());
    look(pool, slot).await.unwrap();
    service.account("acc").await;
    // a transaction that began before the mark and is still open
    let mut open = PgConnection::connect(&service.database_url).await.unwrap();
    let pending = "insert into outbox (aggregate_type, aggregate_id, sequence, event_type, payload) values ('account', 'other', 1, 'X', '\\x00')";
    sqlx::raw_sql("begin").execute(&mut open).await.unwrap();
    sqlx::query(pending).execute(&mut open).await.unwrap();
    connector.work("after").await;

    let taken = mark(pool).await.unwrap();
    assert_eq!(settle(pool, slot, &taken, &mut kafka, KEPT).await.unwrap(), None, "the connector has not confirmed it");
    connector.confirm().await;
    assert_eq!(settle(pool, slot, &taken, &mut kafka, KEPT).await.unwrap(), None, "Kafka has not shown it");
    assert_eq!(connector.unstamped().await, 2);
    connector.deliver(&mut kafka).await;
    let published = settle(pool, slot, &taken, &mut kafka, KEPT).await.unwrap().unwrap();
    assert!(published.stamped <= 1 && published.pruned == 0, "what came after the open transaction stays");
    // however often: the transaction is still open
    connector.rounds_until(&mut kafka, 1).await;
    connector.round(&mut kafka).await.unwrap();
    assert_eq!(connector.unstamped().await, 1);

    sqlx::raw_sql("commit").execute(&mut open).await.unwrap();
    open.close().await.unwrap();
    connector.rounds_until(&mut kafka, 0).await;
    // stamped rows go when their time is over, and no others
    let age = "update outbox set published_at = published_at - interval '2 hours' where aggregate_id = 'acc'";
    sqlx::query(age).execute(pool).await.unwrap();
    assert_eq!(connector.round(&mut kafka).await.unwrap().pruned, 2);
    let left = "select count(*) from outbox where aggregate_type = 'account'";
    assert_eq!((service.number(left).await, service.number("select count(*) from events").await), (1, 2));
    connector.drop_slot().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn rows_that_a_slot_jumped_over_stay_until_somebody_accepts_them() {
    let service = Service::start().await;
    let connector = Connector::new(&service).await;
    let (pool, slot, mut kafka) = (&service.pool, connector.slot.as_str(), Kafka::default());
    look(pool, slot).await.unwrap();
    service.account("acc").await;
    connector.rounds_until(&mut kafka, 0).await;

    connector.work("never-sent").await;
    connector.drop_slot().await;
    assert!(matches!(look(pool, slot).await, Err(OutboxError::NoSlot(name)) if name == slot));
    connector.make_slot().await;
    connector.work("sent").await;
    connector.round(&mut kafka).await.unwrap();
    connector.work("sent-too").await;
    connector.rounds_until(&mut kafka, 2).await;
    // Which of them were sent before anybody looked again is not known: only the last one was.
    let kept = status(pool, slot).await.unwrap().kept;
    assert!(kept >= 2, "{kept}");
    assert_eq!(accept(pool, slot).await.unwrap().cast_signed(), kept);
    assert_eq!((connector.unstamped().await, status(pool, slot).await.unwrap().kept), (0, 0));
    connector.drop_slot().await;
    service.stop().await;
}
