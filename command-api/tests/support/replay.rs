//! Do the events give the state tables, and nothing else?

use std::collections::BTreeMap;

use command_api::domain::{Aggregate, Customer, Order, Product};
use command_api::store::read::history;
use command_api::store::streams::load;
use serde_json::Value;
use sqlx::PgPool;

/// Folds every stream of an aggregate type, as the service reads it.
async fn replayed<A: Aggregate>(pool: &PgPool) -> BTreeMap<String, Value> {
    let mut connection = pool.acquire().await.unwrap();
    let streams: Vec<(String, String)> =
        sqlx::query_as("select distinct stream_id, aggregate_id from events where aggregate_type = $1")
            .bind(A::TYPE)
            .fetch_all(pool)
            .await
            .unwrap();
    let mut states = BTreeMap::new();
    for (stream, id) in streams {
        let mut state: Option<A> = None;
        for event in history(&mut connection, &stream, 0, i64::MAX).await.unwrap() {
            state = Some(event.evolve(state).unwrap());
        }
        let loaded: Option<A> = load(&mut connection, &stream, i64::MAX).await.unwrap();
        assert_eq!(serde_json::to_value(&loaded).unwrap(), serde_json::to_value(&state).unwrap(), "{stream}");
        states.insert(id, serde_json::to_value(state).unwrap());
    }
    states
}

/// The state tables, read back as the domain's types.
async fn stored<A: Aggregate>(pool: &PgPool, sql: &'static str) -> BTreeMap<String, Value> {
    let rows: Vec<Value> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
    let states = rows.into_iter().map(|row| serde_json::from_value::<A>(row).unwrap());
    states.map(|state| (state.id(), serde_json::to_value(state).unwrap())).collect()
}

/// Compares both ways; gives how many customers, products and orders there are.
pub(crate) async fn replay_gives_the_tables(pool: &PgPool) -> [usize; 3] {
    let customers = stored::<Customer>(pool, "select to_jsonb(c) from customers c").await;
    assert_eq!(customers, replayed::<Customer>(pool).await);
    let products = "select to_jsonb(p) || to_jsonb(i) from products p join inventory i using (product_id)";
    let products = stored::<Product>(pool, products).await;
    assert_eq!(products, replayed::<Product>(pool).await);
    let orders = "select to_jsonb(o) || jsonb_build_object(
            'items', coalesce((select jsonb_agg(to_jsonb(i) order by position) from order_items i where i.order_id = o.order_id), '[]'),
            'payments', coalesce((select jsonb_agg(to_jsonb(p) order by position) from payments p where p.order_id = o.order_id), '[]'))
        from orders o";
    let orders = stored::<Order>(pool, orders).await;
    assert_eq!(orders, replayed::<Order>(pool).await);
    [customers.len(), products.len(), orders.len()]
}
