//! Days added up beforehand, on a real ClickHouse: right after each write, whatever is sent again, merged, or cut off in between.

use super::fixtures::{apart, row, row_kind, run_name, unavailable, urls, written};
use anyhow::{Context as _, Result, ensure};
use projector::apply::{Outcome, Write};
use projector::expr::Value;
use projector::projection::{ClickhouseStore, DayRollup};
use projector::sink::clickhouse::{ClickhouseSink, Timing};
use projector::sink::{Place, Sink as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Marks that are over soon, for a test that can't wait for minutes. Nothing here takes as long as they settle.
const QUICK: Timing = Timing {
    renew: Duration::from_millis(200),
    valid: Duration::from_millis(800),
    settle: Duration::from_millis(1_500),
};

/// Day and currency to amount and rows.
type Sums = BTreeMap<(String, String), (i64, i64)>;

fn config() -> ClickhouseStore {
    let columns = [("currency".to_owned(), "LowCardinality(String)".to_owned())].into();
    let rollup = DayRollup { by: vec!["currency".into()], sum: vec!["amount".into(), "n".into()] };
    ClickhouseStore { day: "day".into(), columns, rollup: Some(rollup) }
}

fn open(name: &str, timing: Timing) -> Result<ClickhouseSink> {
    let number = projector::expr::Collection::empty().with_known("n", projector::expr::Kind::integer().or_undefined());
    let document = row_kind().union(projector::expr::Kind::object(number));
    let place = Place { read_model: name.to_owned(), generation: 1, document };
    Ok(ClickhouseSink::open(&config(), place, &urls())?.with_timing(timing))
}

async fn sql(statement: &str) -> Result<String> {
    let response = reqwest::Client::new().post(urls().clickhouse_url).body(statement.to_owned()).send().await?;
    let (ok, text) = (response.status().is_success(), response.text().await?);
    ensure!(ok, "{statement}: {text}");
    Ok(text.trim_end().to_owned())
}

fn table(name: &str, more: &str) -> String {
    format!("`{}`.`{name}_g1{more}`", urls().clickhouse_database)
}

async fn run(steps: impl AsyncFnOnce(&str) -> Result<()> + Send + 'static) -> Result<()> {
    let name = run_name();
    let result = steps(&name).await;
    for what in ["", "_days", "_rollup"] {
        sql(&format!("DROP TABLE IF EXISTS {}", table(&name, what))).await?;
    }
    result
}

/// What a query of the projection sees in place of `{rollup}`, and what all facts add up to.
async fn seen(sink: &ClickhouseSink, name: &str) -> Result<(Sums, Sums)> {
    let rollup = sink.rollup_rows().await?.context("no rollup")?;
    let mut both = Vec::new();
    for from in [rollup, format!("(SELECT day, currency, amount, n FROM {} FINAL)", table(name, ""))] {
        let statement = format!(
            "SELECT toString(day), currency, sum(amount), sum(n) FROM {from} GROUP BY day, currency
             FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0"
        );
        let mut sums = Sums::new();
        for line in sql(&statement).await?.lines() {
            let (day, currency, amount, n): (String, String, i64, Option<i64>) = serde_json::from_str(line)?;
            sums.insert((day, currency), (amount, n.unwrap_or(0)));
        }
        both.push(sums);
    }
    let facts = both.pop().unwrap_or_default();
    Ok((both.pop().unwrap_or_default(), facts))
}

fn fact(day: &str, currency: &str, amount: i64) -> Write {
    let mut write = row(Uuid::now_v7(), 0, day, amount);
    let fields = Arc::make_mut(write.fields.get_or_insert_default());
    fields.insert("currency".into(), Value::from(currency));
    fields.insert("n".into(), Value::from(1));
    write
}

fn day(number: u64) -> String {
    format!("2026-{:02}-{:02}", 1 + number % 2, 1 + number % 5)
}

/// As many numbers as are asked for, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn days_are_right_after_each_write_whatever_comes_between() -> Result<()> {
    apart(run(async |name: &str| {
        // Two hosts write to one place.
        let sinks = [open(name, QUICK)?, open(name, QUICK)?];
        sinks[0].prepare().await?;
        sinks[1].prepare().await?;
        let (mut numbers, mut model, mut sent) = (Numbers(42), Sums::new(), Vec::new());
        let mut rolled_up = 0;
        for step in 0..120 {
            let sink = &sinks[usize::try_from(numbers.below(2))?];
            match numbers.below(8) {
                0..=2 => {
                    let batch: Vec<Write> = (0..1 + numbers.below(20))
                        .map(|_| {
                            let (day, currency) = (day(numbers.below(60)), ["EUR", "USD"][usize::from(numbers.below(2) == 0)]);
                            let amount = i64::try_from(numbers.below(1_000)).unwrap_or(0) - 300;
                            let sums = model.entry((day.clone(), currency.to_owned())).or_default();
                            *sums = (sums.0 + amount, sums.1 + 1);
                            fact(&day, currency, amount)
                        })
                        .collect();
                    written(sink, &batch).await?;
                    sent.push(batch);
                }
                // The same again, by whomever: an answer was lost.
                3 if !sent.is_empty() => {
                    let batch = &sent[usize::try_from(numbers.below(sent.len() as u64))?];
                    written(sink, batch).await?;
                }
                // A day is marked, and nothing comes into it.
                4 => {
                    let mut bad = fact(&day(numbers.below(60)), "EUR", 1);
                    Arc::make_mut(bad.fields.get_or_insert_default()).insert("amount".into(), Value::from("seven"));
                    let outcomes = sink.write(&[bad]).await?;
                    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_)]), "{outcomes:?}");
                }
                5 => drop(sql(&format!("OPTIMIZE TABLE {} FINAL", table(name, ["", "_days", "_rollup"][step % 3]))).await?),
                6 => {
                    tokio::time::sleep(Duration::from_millis(numbers.below(400))).await;
                    sink.upkeep().await?;
                    rolled_up += 1;
                }
                // A host died after it had made sums of days that are dirty, and before it noted that.
                _ => {
                    let dirty = format!("SELECT day FROM {} GROUP BY day HAVING max(marked) > max(covered)", table(name, "_days"));
                    sql(&format!(
                        "INSERT INTO {} SELECT day, currency, 7, 7, now64(6) FROM (SELECT DISTINCT day, currency FROM {} FINAL WHERE day IN ({dirty}))",
                        table(name, "_rollup"), table(name, "")
                    )).await?;
                }
            }
            let (rollup, facts) = seen(sink, name).await?;
            ensure!(facts == model, "step {step}: the facts are {facts:?}, expected {model:?}");
            ensure!(rollup == model, "step {step}: the rollup is {rollup:?}, expected {model:?}");
        }
        ensure!(rolled_up > 5, "upkeep ran {rolled_up} times only");

        // Once nobody writes any more, nothing is read from the facts.
        tokio::time::sleep(QUICK.settle).await;
        sinks[0].upkeep().await?;
        let rows = sinks[1].rollup_rows().await?.context("no rollup")?;
        ensure!(!rows.contains("UNION ALL"), "still dirty: {rows}");
        assert_eq!(seen(&sinks[1], name).await?.0, model);
        // A write makes its day dirty, and its day alone.
        written(&sinks[1], &[fact("2026-01-01", "EUR", 5)]).await?;
        let rows = sinks[0].rollup_rows().await?.context("no rollup")?;
        ensure!(rows.matches("2026-").count() == 2 && rows.contains("IN ('2026-01-01')"), "{rows}");
        let (rollup, facts) = seen(&sinks[0], name).await?;
        assert_eq!(rollup, facts);
        Ok(())
    }))
    .await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_insert_that_comes_too_late_for_its_mark_is_refused() -> Result<()> {
    apart(run(async |name: &str| {
        let late = open(name, Timing { valid: Duration::ZERO, ..QUICK })?;
        late.prepare().await?;
        unavailable(late.write(&[fact("2026-01-01", "EUR", 5)]).await)?;
        assert_eq!(late.count().await?, 0, "nothing landed");
        // A day that the server would take, and that couldn't be marked as it stands.
        let in_time = open(name, QUICK)?;
        let outcomes = in_time.write(&[fact("2026/01/01", "EUR", 5), fact("2026-01-01", "EUR", 5)]).await?;
        ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
        Ok(())
    }))
    .await
}

/// Five years of days: the same question to the rollup and to all facts, in turn. `ROLLUP_FACTS_A_DAY` makes it larger.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn five_years_are_quicker_by_the_rollup() -> Result<()> {
    apart(run(async |name: &str| {
        const DAYS: u32 = 1_826;
        let a_day: u32 = std::env::var("ROLLUP_FACTS_A_DAY").map_or(Ok(300), |text| text.parse())?;
        let sink = open(name, Timing { settle: Duration::ZERO, ..Timing::default() })?;
        sink.prepare().await?;
        // As inserts that came in any order would lie there.
        let (facts, days) = (table(name, ""), table(name, "_days"));
        for part in 0..4 {
            sql(&format!(
                "INSERT INTO {facts} (day, currency, amount, n, note, recorded_at, tags, _event_id, _row)
                 SELECT toDate('2022-01-01') + number % {DAYS}, ['EUR', 'USD', 'CHF'][1 + number % 3], number % 9973, 1, 'a note', now64(6), [],
                 generateUUIDv4(number), 0 FROM numbers({part} * {DAYS} * {a_day} / 4, {DAYS} * {a_day} / 4)
                 SETTINGS max_partitions_per_insert_block = 0"
            ))
            .await?;
        }
        sql(&format!("INSERT INTO {days} (day, marked) SELECT toDate('2022-01-01') + number, now64(6) FROM numbers({DAYS})")).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let made = Instant::now();
        while sink.rollup_rows().await?.context("no rollup")?.contains("UNION ALL") {
            ensure!(made.elapsed() < Duration::from_secs(120), "days stay dirty");
            sink.upkeep().await?;
        }
        let made = made.elapsed();
        // Today is written to.
        written(&sink, &[fact("2026-12-31", "EUR", 5)]).await?;

        let (mut by_rollup, mut by_facts) = (Vec::new(), Vec::new());
        let ask = async |from: &str| -> Result<(String, Duration)> {
            let began = Instant::now();
            let answer = sql(&format!(
                "SELECT toStartOfMonth(day) AS month, currency, sum(amount), sum(n) FROM {from}
                 WHERE day >= '2022-01-01' AND day < '2027-01-01' GROUP BY month, currency ORDER BY month, currency"
            ))
            .await?;
            Ok((answer, began.elapsed()))
        };
        for _ in 0..15 {
            let began = Instant::now();
            let rollup = sink.rollup_rows().await?.context("no rollup")?;
            ensure!(rollup.contains("IN ('2026-12-31')"), "{rollup}");
            let (a, _) = ask(&rollup).await?;
            // What a query pays: the dirty days, then the rows.
            by_rollup.push(began.elapsed());
            let (b, took) = ask(&format!("{facts} FINAL")).await?;
            by_facts.push(took);
            ensure!(a == b, "the rollup says something else than the facts:\n{a}\n{b}");
        }
        by_rollup.sort_unstable();
        by_facts.sort_unstable();
        let (a, b) = (by_rollup[7].as_secs_f64() * 1_000.0, by_facts[7].as_secs_f64() * 1_000.0);
        println!(
            "{} facts over {DAYS} days: rollup {a:.1} ms, all facts FINAL {b:.1} ms (medians of 15, in turn): {:.1} times; sums made in {:.1} s",
            DAYS * a_day,
            b / a,
            made.as_secs_f64()
        );
        ensure!(b > a, "the rollup is no quicker");
        Ok(())
    }))
    .await
}
