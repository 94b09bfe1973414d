//! On a real Redis.

use super::documents::{Text, documents};
use super::fixtures::{
    apart, changed, fenced, loan, named, one, place, put, run_name, speed, tombstone, unavailable, urls, urls_at,
    written,
};
use super::outages::outages;
use super::proxy::{Mode, Proxy};
use anyhow::{Result, ensure};
use projector::apply::{Outcome, Write};
use projector::projection::{RedisStore, Store};
use projector::sink::{SinkError, open};
use redis::aio::MultiplexedConnection;
use serde_json::json;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn redis_keeps_the_contract() -> Result<()> {
    let name = run_name();
    let prefix = format!("{name}[*]:");
    let store = Store::Redis(RedisStore { prefix: prefix.clone(), database: 0 });
    let result = {
        let name = name.clone();
        apart(async move { steps(&name, &prefix, &store).await }).await
    };

    let mut connection = connection().await?;
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*{name}*")).query_async(&mut connection).await?;
    for keys in keys.chunks(500) {
        redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
    }
    result
}

async fn connection() -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(urls().redis_url)?.get_multiplexed_async_connection().await?)
}

async fn steps(name: &str, prefix: &str, store: &Store) -> Result<()> {
    let sink = open(store, place(name, 1), &urls())?;
    let sink = sink.as_ref();
    documents(sink, Text::Any).await?;
    speed("redis", sink, loan).await?;
    fenced(open(store, place(name, 2), &urls())?.prepare().await);

    let mut connection = connection().await?;
    // People read it without tools of ours, and see nothing but version and fields.
    let mut fields: Vec<String> =
        redis::cmd("HKEYS").arg(format!("{prefix}speed-7")).query_async(&mut connection).await?;
    fields.sort_unstable();
    assert_eq!(fields, ["_seq", "at", "n", "name", "products"]);
    let n: String = redis::cmd("HGET").arg(format!("{prefix}speed-7")).arg("n").query_async(&mut connection).await?;
    let at: String = redis::cmd("HGET").arg(format!("{prefix}speed-7")).arg("at").query_async(&mut connection).await?;
    assert_eq!((n.as_str(), at.as_str()), ("7", "2026-11-21T05:00:00.000000Z"));
    let stateful = Write { state: Some("s".into()), ..named("hidden", 1) };
    written(sink, &[stateful]).await?;
    let key = format!("{prefix}hidden");
    assert_eq!(redis::cmd("HGET").arg(&key).arg("_state").query_async::<String>(&mut connection).await?, "s");
    written(sink, &[named("hidden", 2)]).await?;
    let fields: Vec<String> = redis::cmd("HKEYS").arg(&key).query_async(&mut connection).await?;
    ensure!(!fields.contains(&"_state".to_owned()), "state that is no more leaves no field: {fields:?}");

    // What changed since an older version than the one that is there isn't brought to it: whoever did so is told to load it anew.
    written(sink, &[put("patched", 1, json!({ "name": "a", "n": 1 }))]).await?;
    let next = |version, since| {
        let next = put("patched", version, json!({ "name": "b", "n": 1 }));
        Write { changed: Some(changed(since, &["name"])), ..next }
    };
    for (version, since, expected) in [(2, 0, Outcome::Stale), (4, 1, Outcome::Written)] {
        assert_eq!(sink.write(&[next(version, since)]).await?, [expected], "version {version} since {since}");
    }
    written(sink, &[tombstone("patched", 5)]).await?;
    assert_eq!(sink.write(&[next(6, 4)]).await?, [Outcome::Stale]);
    written(sink, &[put("patched", 7, json!({ "name": "a", "n": 1 }))]).await?;
    // Only what is said to be new goes over the wire: something else was set by hand, and stays.
    let key = format!("{prefix}patched");
    redis::cmd("HSET").arg(&key).arg("n").arg("9").exec_async(&mut connection).await?;
    written(sink, &[next(8, 7)]).await?;
    let all: Vec<String> =
        redis::cmd("HMGET").arg(&key).arg(&["_seq", "name", "n"]).query_async(&mut connection).await?;
    assert_eq!(all, ["8", "b", "9"]);

    // A lost script cache is no special case.
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?;
    written(sink, &[named("after-flush", 1)]).await?;

    // A key of another type is refused alone.
    redis::cmd("SET").arg(format!("{prefix}foreign")).arg("x").exec_async(&mut connection).await?;
    let outcomes = sink.write(&[named("foreign", 1), named("beside", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    redis::cmd("DEL").arg(format!("{prefix}foreign")).exec_async(&mut connection).await?;

    away(name, store).await?;

    // Another generation took over, or the database was emptied: a former owner writes nothing.
    let marker = format!("projector:generation:{name}");
    redis::cmd("SET").arg(&marker).arg(format!("{name}-g2")).exec_async(&mut connection).await?;
    fenced(sink.write(&[named("late", 1)]).await.map(|_| ()));
    ensure!(one(sink, "late").await?.is_none(), "a former owner's write landed");
    redis::cmd("DEL").arg(&marker).exec_async(&mut connection).await?;
    let emptied = sink.write(&[named("late", 1)]).await;
    ensure!(matches!(emptied, Err(SinkError::Broken { .. })), "{emptied:?}");
    Ok(())
}

async fn away(name: &str, store: &Store) -> Result<()> {
    let proxy = Proxy::start(&urls().redis_url).await?;
    let direct = open(store, place(name, 1), &urls())?;
    let through = open(store, place(name, 1), &urls_at(proxy.port))?;
    outages(through.as_ref(), direct.as_ref(), &proxy, false).await?;

    // No answer, and no end either: given up after a while.
    let batch = [named("silent", 1)];
    proxy.set(Mode::SilentAfter(0));
    unavailable(through.write(&batch).await)?;
    proxy.heal();
    assert_eq!(direct.write(&batch).await?, [Outcome::Stale], "it had landed");
    Ok(())
}
