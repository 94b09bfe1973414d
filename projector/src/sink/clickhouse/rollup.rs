//! Days added up beforehand, so that a report over years reads a row a day and not every fact of it; and right immediately
//! after a write all the same.
//!
//! # The idea
//! A day is **marked** before rows are inserted into it. A day whose newest mark isn't **covered** is dirty: its rows are read
//! from the facts, by `FINAL`. All other days are read from their sums. A day's sums are never added to: now and then
//! ([`Days::roll_up`]) those of dirty days are made anew from `FINAL`, and then the mark that they cover is noted.
//!
//! # Why sums that are read are never without a row that was inserted
//! An insert may still land after whoever sent it has given it up or has died, so a mark can't be closed by its writer. It ends
//! by itself: the server refuses (`throwIf`) an insert that begins more than [`Timing::valid`] after its mark, and stops one
//! that takes longer than [`INSERT_S_MAX`]. Sums are made only once a day's newest mark is older than [`Timing::settle`], which is
//! longer than both together with time to spare. So they hold all that any mark so far announced. A later insert has a later mark, which
//! they don't cover. All times are the server's; between servers of a cluster clocks may differ by what is spared, a minute.
//!
//! Nothing else needs care: marks of writers that died before their insert make a day dirty for a while; sums that were made
//! twice, or in part before a crash, are replaced by the next ones of the day, and are not read before the mark is covered.
//! Rows never leave a day, so neither do groups.
//!
//! # The layout
//! | table | what |
//! |---|---|
//! | `<read model>_g<n>_days` | `AggregatingMergeTree`: a row a day with its newest mark, and the newest mark that its sums cover |
//! | `<read model>_g<n>_rollup` | `ReplacingMergeTree` by when they were made: a row a day and group with its sums |

use super::super::SinkError;
use super::columns::columns;
use super::config::{Client, broken, quoted, text};
use crate::expr::Kind;
use crate::projection::{ClickhouseStore, DayRollup};
use chrono::NaiveDate;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The server stops an insert that takes longer.
const INSERT_S_MAX: u64 = 60;
/// Days whose sums are made by one statement.
const DAYS_MAX: usize = 62;
/// A call of [`Days::roll_up`] ends after about so long; what is left is for the next one.
const ROUND: Duration = Duration::from_secs(20);
const TIME: &str = "DateTime64(6, 'UTC')";

/// How long marks count.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A mark that is older isn't used for further inserts.
    pub renew: Duration,
    /// The server refuses an insert that begins so long after its mark.
    pub valid: Duration,
    /// Whatever was announced by a mark of this age has landed, or never will.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { renew: seconds(15), valid: seconds(30), settle: seconds(180) }
    }
}

/// The two tables of a generation beside its facts.
#[derive(Clone, Debug)]
pub(crate) struct DayTables {
    facts: String,
    days: String,
    sums: String,
    day: String,
    by: Vec<String>,
    sum: Vec<String>,
}

impl DayTables {
    /// None where the projection asks for no sums.
    pub(crate) fn new(config: &ClickhouseStore, database: &str, read_model: &str, generation: i64) -> Option<Self> {
        let DayRollup { by, sum } = config.rollup.as_ref()?;
        let table =
            |more: &str| format!("{}.{}", quoted(database), quoted(&format!("{read_model}_g{generation}{more}")));
        let quoted_all = |names: &[String]| names.iter().map(|name| quoted(name)).collect();
        Some(Self {
            facts: table(""),
            days: table("_days"),
            sums: table("_rollup"),
            day: quoted(&config.day),
            by: quoted_all(by),
            sum: quoted_all(sum),
        })
    }

    /// The statement that gives the dirty days, as `day`.
    pub(crate) fn dirty_days(&self) -> String {
        format!(
            "SELECT toString(d) AS day FROM (SELECT {} AS d, max(marked) > max(covered) AS dirty FROM {} GROUP BY d) WHERE dirty ORDER BY d",
            self.day, self.days
        )
    }

    /// What queries read instead of the facts, given the days that were dirty when they began: rows of day, groups and sums,
    /// several for a day and group where it is dirty.
    pub(crate) fn rows(&self, dirty: &[String]) -> String {
        let groups: Vec<_> = [&self.day].into_iter().chain(&self.by).map(String::as_str).collect();
        let groups = groups.join(", ");
        let sums = self.sum.join(", ");
        let added = format!("SELECT {groups}, {sums} FROM {} FINAL", self.sums);
        if dirty.is_empty() {
            return format!("({added})");
        }
        let days: Vec<_> = dirty.iter().map(|day| text(day)).collect();
        let (day, days) = (&self.day, days.join(", "));
        let facts: Vec<_> = self.sum.iter().map(|name| format!("toInt64(ifNull(f.{name}, 0)) AS {name}")).collect();
        format!(
            "({added} WHERE {day} NOT IN ({days}) UNION ALL SELECT {groups}, {} FROM {} AS f FINAL WHERE {day} IN ({days}))",
            facts.join(", "),
            self.facts
        )
    }

    /// The statements that make the tables, which bear the generation's name.
    fn definitions(&self, columns: &[(String, String)], generation: &str) -> [String; 2] {
        let kind = |name: &String| {
            let found = columns.iter().find(|(column, _)| quoted(column) == *name);
            format!("{name} {}", found.map_or("String", |(_, kind)| kind))
        };
        let groups: Vec<_> = [&self.day].into_iter().chain(&self.by).map(kind).collect();
        let sums: Vec<_> = self.sum.iter().map(|name| format!("{name} Int64")).collect();
        let key: Vec<_> = [&self.day].into_iter().chain(&self.by).map(String::as_str).collect();
        let newest = format!("SimpleAggregateFunction(max, {TIME})");
        let comment = text(generation);
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {} ({}, marked {newest}, covered {newest}) ENGINE = AggregatingMergeTree
                 ORDER BY {} COMMENT {comment}",
                self.days,
                kind(&self.day),
                self.day
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} ({}, {}, _made {TIME}) ENGINE = ReplacingMergeTree(_made)
                 ORDER BY ({}) SETTINGS allow_nullable_key = 1 COMMENT {comment}",
                self.sums,
                groups.join(", "),
                sums.join(", "),
                key.join(", ")
            ),
        ]
    }
}

/// The days of a generation as its writer sees them.
pub(super) struct Days {
    tables: DayTables,
    columns: Vec<(String, String)>,
    timing: Timing,
    marks: Mutex<HashMap<NaiveDate, Mark>>,
}

/// Our newest mark of a day.
#[derive(Clone)]
struct Mark {
    /// By the server's clock.
    at: String,
    /// By ours, before the server was asked for its time.
    asked: Instant,
}

impl Days {
    pub(super) fn new(tables: DayTables, row: &Kind, config: &ClickhouseStore) -> Self {
        Self { tables, columns: columns(row, config), timing: Timing::default(), marks: Mutex::default() }
    }

    pub(super) fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    pub(super) async fn prepare(&self, client: &Client, generation: &str) -> Result<(), SinkError> {
        for statement in self.tables.definitions(&self.columns, generation) {
            client.execute(&statement).await?;
        }
        Ok(())
    }

    /// As [`DayTables::rows`], of now.
    pub(super) async fn rows(&self, client: &Client) -> Result<String, SinkError> {
        let dirty = client.rows(&self.tables.dirty_days()).await?;
        let dirty: Vec<_> = dirty.iter().filter_map(|row| row["day"].as_str().map(str::to_owned)).collect();
        Ok(self.tables.rows(&dirty))
    }

    /// Marks days, and gives the head of the insert that may follow: the server refuses that once a mark is over.
    pub(super) async fn mark(&self, client: &Client, days: &BTreeSet<NaiveDate>) -> Result<String, SinkError> {
        let fresh = |mark: &Mark| mark.asked.elapsed() < self.timing.renew;
        let old: Vec<NaiveDate> = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.retain(|_, mark| fresh(mark));
            days.iter().filter(|day| !marks.contains_key(day)).copied().collect()
        };
        if !old.is_empty() {
            let mark = Mark { asked: Instant::now(), at: self.now(client).await? };
            let at = text(&mark.at);
            let rows: Vec<_> = old.iter().map(|day| format!("('{day}', {at})")).collect();
            let sql =
                format!("INSERT INTO {} ({}, marked) VALUES {}", self.tables.days, self.tables.day, rows.join(", "));
            client.execute(&sql).await?;
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.extend(old.into_iter().map(|day| (day, mark.clone())));
        }
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest =
            days.iter().filter_map(|day| marks.get(day)).map(|mark| mark.at.as_str()).min().unwrap_or_default();
        Ok(self.insert(oldest))
    }

    fn insert(&self, mark: &str) -> String {
        let columns = self.columns.iter().map(|(name, kind)| (quoted(name), kind.as_str()));
        let hidden = [("_event_id".to_owned(), "UUID"), ("_row".to_owned(), "UInt16")];
        let (names, structure): (Vec<_>, Vec<_>) =
            columns.chain(hidden).map(|(name, kind)| (name.clone(), format!("{name} {kind}"))).unzip();
        let names = names.join(", ");
        format!(
            "INSERT INTO {} ({names}) SETTINGS max_execution_time = {INSERT_S_MAX} SELECT {names} FROM input({})
             WHERE throwIf(now64(6) > addMilliseconds(toDateTime64({}, 6, 'UTC'), {}), 'the mark of the day is over') = 0",
            self.tables.facts,
            text(&structure.join(", ")),
            text(mark),
            self.timing.valid.as_millis()
        )
    }

    async fn now(&self, client: &Client) -> Result<String, SinkError> {
        let rows = client.rows("SELECT toString(now64(6, 'UTC')) AS now").await?;
        let now = rows.first().and_then(|row| row["now"].as_str()).map(str::to_owned);
        now.ok_or_else(|| broken("no time in the answer".to_owned()))
    }

    /// Makes the sums of dirty days whose marks have settled.
    pub(super) async fn roll_up(&self, client: &Client) -> Result<(), SinkError> {
        let began = Instant::now();
        while began.elapsed() < ROUND && self.roll_up_some(client).await? == DAYS_MAX {}
        Ok(())
    }

    async fn roll_up_some(&self, client: &Client) -> Result<usize, SinkError> {
        let DayTables { facts, days, sums, day, by, sum } = &self.tables;
        let settled = format!(
            "SELECT toString(d) AS day, toString(m) AS mark, toString(now64(6, 'UTC')) AS now
             FROM (SELECT {day} AS d, max(marked) AS m, max(covered) AS c FROM {days} GROUP BY d)
             WHERE m > c AND addMilliseconds(m, {}) < now64(6) ORDER BY d LIMIT {DAYS_MAX}",
            self.timing.settle.as_millis()
        );
        let rows = client.rows(&settled).await?;
        let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let Some(now) = rows.first().map(|row| field(row, "now")) else { return Ok(0) };
        let list: Vec<_> = rows.iter().map(|row| text(&field(row, "day"))).collect();
        let groups: Vec<_> = [day].into_iter().chain(by).map(|name| format!("f.{name}")).collect();
        let names: Vec<_> = [day].into_iter().chain(by).chain(sum).map(String::as_str).collect();
        let added: Vec<_> = sum.iter().map(|name| format!("toInt64(ifNull(sum(f.{name}), 0))")).collect();
        let (groups, list) = (groups.join(", "), list.join(", "));
        let sql = format!(
            "INSERT INTO {sums} ({}, _made) SELECT {groups}, {}, toDateTime64({}, 6, 'UTC') FROM {facts} AS f FINAL
             WHERE f.{day} IN ({list}) GROUP BY {groups}",
            names.join(", "),
            added.join(", "),
            text(&now)
        );
        client.execute(&sql).await?;
        // Only now, when all their sums are there.
        let covered: Vec<_> =
            rows.iter().map(|row| format!("({}, {})", text(&field(row, "day")), text(&field(row, "mark")))).collect();
        client.execute(&format!("INSERT INTO {days} ({day}, covered) VALUES {}", covered.join(", "))).await?;
        Ok(rows.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tables() -> DayTables {
        let rollup = Some(DayRollup { by: vec!["kind".to_owned()], sum: vec!["n".to_owned()] });
        let config = ClickhouseStore { day: "day".to_owned(), rollup, ..ClickhouseStore::default() };
        DayTables::new(&config, "d", "loans", 2).unwrap()
    }

    #[test]
    fn clean_days_are_read_from_their_sums_alone() {
        assert_eq!(tables().rows(&[]), "(SELECT `day`, `kind`, `n` FROM `d`.`loans_g2_rollup` FINAL)");
    }

    #[test]
    fn a_dirty_day_is_read_from_its_facts_alone() {
        let rows = tables().rows(&["2026-11-20".to_owned(), "2026-11-21".to_owned()]);
        let (sums, facts) = rows.split_once(" UNION ALL ").unwrap();
        assert!(sums.ends_with("`loans_g2_rollup` FINAL WHERE `day` NOT IN ('2026-11-20', '2026-11-21')"), "{sums}");
        assert!(facts.ends_with("`loans_g2` AS f FINAL WHERE `day` IN ('2026-11-20', '2026-11-21'))"), "{facts}");
    }

    #[test]
    fn marks_settle_only_after_every_insert_that_they_allow() {
        let timing = Timing::default();
        assert!(timing.renew < timing.valid);
        assert!(timing.valid + Duration::from_secs(INSERT_S_MAX + 60) <= timing.settle, "a minute is spared");
    }
}
