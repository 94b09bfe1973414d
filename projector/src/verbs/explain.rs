//! What a read model is made of, for those who didn't write it: as text, and as what a picture is drawn from.

use crate::event::Catalog;
use crate::expr::{Flow, flows};
use crate::projection::{Compiled, Limits, LookupFrom, Mask, Missing, Store};
use crate::sink;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What feeds a read model and what reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Lineage {
    pub(crate) name: String,
    pub(crate) store: &'static str,
    pub(crate) kind: &'static str,
    /// The events that it takes, by the aggregate whose topic they are in.
    pub(crate) topics: BTreeMap<String, Vec<String>>,
    pub(crate) lookups: Vec<LooksUp>,
    /// The paths of its queries.
    pub(crate) queries: Vec<String>,
}

/// Where a read model looks something up.
#[derive(Debug, Serialize)]
pub(crate) struct LooksUp {
    pub(crate) name: String,
    /// A read model, or a table with its schema.
    pub(crate) from: String,
    pub(crate) table: bool,
}

impl Lineage {
    pub(crate) fn of(compiled: &Compiled, catalog: &Catalog) -> Self {
        let projection = &compiled.projection;
        let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in projection.on.keys() {
            if let Some(known) = catalog.event(event) {
                topics.entry(known.aggregate_type.to_string()).or_default().push(event.clone());
            }
        }
        let lookups = compiled.lookups.iter().map(|lookup| {
            let (from, table) = match &lookup.from {
                LookupFrom::ReadModel(name) => (name.clone(), false),
                LookupFrom::Table { schema, table, .. } => (format!("{schema}.{table}"), true),
            };
            LooksUp { name: lookup.name.to_string(), from, table }
        });
        Self {
            name: projection.name.value.clone(),
            store: projection.store.name(),
            kind: compiled.kind.name(),
            topics,
            lookups: lookups.collect(),
            queries: projection.queries.iter().map(|query| query.get.value.clone()).collect(),
        }
    }
}

/// All about one read model; with a field only what flows into it, empty where nothing does.
pub(crate) fn explain(compiled: &Compiled, source: &str, field: Option<&str>) -> String {
    let projection = &compiled.projection;
    let name = &projection.name.value;
    let mut events = String::new();
    let derive = projection.derive.as_ref().map(|derive| flows(&derive.value)).unwrap_or_default();
    let wanted = field.map(|field| wanted(compiled, &derive, field));
    let inside = |flow: &Flow, aggregate: Option<&str>| {
        let is = |(of, path): &(Option<String>, String)| {
            (of.is_none() || aggregate.is_none() || of.as_deref() == aggregate)
                && (within(&flow.field, path) || within(&flow.field, &format!("[].{path}")))
        };
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(is))
    };
    for (event, program) in &projection.on {
        let aggregate = compiled.join.as_ref().and_then(|join| join.aggregate(event)).map(|aggregate| &**aggregate);
        let lines: String = flows(&program.value).iter().filter(|flow| inside(flow, aggregate)).map(line).collect();
        if !lines.is_empty() || field.is_none() {
            // Writing to a string doesn't fail.
            _ = write!(events, "    {event}\n{lines}");
        }
    }
    let shown = |flow: &&Flow| field.is_none_or(|field| within(&flow.field, field));
    let lines: String = derive.iter().filter(shown).map(line).collect();
    if !lines.is_empty() {
        _ = write!(events, "    derive, from the parts\n{lines}");
    }
    if field.is_some() {
        return if events.is_empty() { events } else { format!("{name} ({source})\n{events}") };
    }
    let mut text = format!("{name} ({source})\n");
    if !projection.description.is_empty() {
        _ = writeln!(text, "  {}", projection.description.trim());
    }
    let mut row = |what: &str, value: &str| _ = writeln!(text, "  {what:<10} {value}");
    row("owner", &projection.owner);
    row("kind", &format!("{}: {}", compiled.kind.name(), meaning(compiled.kind.name())));
    row("fed by", &compiled.topics().join(", "));
    row("group", &format!("projector.{name}-g<generation>; `projector status` shows which generation is live"));
    row("data", &place(compiled));
    for lookup in &compiled.lookups {
        let from = match &lookup.from {
            LookupFrom::ReadModel(name) => format!("the read model {name}"),
            LookupFrom::Table { schema, table, column } => format!("the table {schema}.{table}, by {column}"),
        };
        let missing = match lookup.missing {
            Missing::Wait => "else the event waits, and is a dead letter after some minutes",
            Missing::Null => "else null",
            Missing::Dlq => "else the event is a dead letter",
        };
        let key = projection.lookup.get(&*lookup.name).map_or("", |l| l.value.key.as_str());
        row("looks up", &format!("%{} in {from}, as of then, under %data.{key}; {missing}", lookup.name));
    }
    if !projection.masks.is_empty() {
        let mask = |(field, mask): (&String, &Mask)| format!("{field}: {}", format!("{mask:?}").to_lowercase());
        row("personal", &projection.masks.iter().map(mask).collect::<Vec<_>>().join(", "));
    }
    let Limits { lag_ms_max, lag_ms_critical, batch_max, batch_wait_ms } = projection.limits;
    row(
        "limits",
        &format!(
            "late above {lag_ms_max} ms, critical above {lag_ms_critical} ms; batches of {batch_max} events, {batch_wait_ms} ms apart at least"
        ),
    );
    for query in &projection.queries {
        row("query", &format!("GET {}  {}", query.get.value, query.description.trim()));
    }
    text.push_str("  events\n");
    text.push_str(&events);
    text.push_str("  document\n");
    sink::types(&compiled.document).iter().for_each(|line| _ = writeln!(text, "    {line}"));
    let layout = sink::layout(&projection.store, &compiled.document);
    if !layout.is_empty() {
        _ = writeln!(text, "  {}", projection.store.name());
        layout.iter().for_each(|line| _ = writeln!(text, "    {line}"));
    }
    text
}

/// Whether one path is another, or leads into it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The fields of the parts that a field of the document is made of, each with the aggregate whose part it is in (none: any).
fn wanted(compiled: &Compiled, derive: &[Flow], field: &str) -> Vec<(Option<String>, String)> {
    let Some(join) = &compiled.join else { return vec![(None, field.to_owned())] };
    let own = Some(join.own.to_string());
    let mut wanted = vec![(own.clone(), field.to_owned())];
    let sources = derive.iter().filter(|flow| within(&flow.field, field)).flat_map(|f| f.from.iter().chain(&f.when));
    for source in sources {
        if let Some(path) = source.strip_prefix('.') {
            wanted.push((own.clone(), path.to_owned()));
        } else if let Some((parent, path)) = source.strip_prefix('%').and_then(|source| source.split_once('.')) {
            let parent = join.parents.iter().find(|one| *one.name == *parent.trim_end_matches("[]"));
            wanted.extend(parent.map(|parent| (Some(parent.aggregate.to_string()), path.to_owned())));
        }
    }
    wanted
}

fn line(flow: &Flow) -> String {
    let field = if flow.field.is_empty() { "the document" } else { &flow.field };
    let list = |sources: &std::collections::BTreeSet<String>| sources.iter().cloned().collect::<Vec<_>>().join(", ");
    let what = match (flow.deleted, flow.from.is_empty(), flow.text.lines().next()) {
        (true, ..) => "is taken away".to_owned(),
        (_, false, _) => format!("← {}", list(&flow.from)),
        (_, _, Some("null")) if flow.field.is_empty() => "is deleted".to_owned(),
        (_, _, text) if flow.text.lines().count() == 1 => format!("= {}", text.unwrap_or_default()),
        _ => "= a constant".to_owned(),
    };
    let when = if flow.when.is_empty() { String::new() } else { format!(", depending on {}", list(&flow.when)) };
    format!("      {field} {what}{when}\n")
}

fn meaning(kind: &str) -> &'static str {
    match kind {
        "entity" => "one aggregate a document, whose sequence is the document's version",
        "rollup" => "whole numbers that many aggregates add to, each event once",
        "facts" => "rows under stable ids, each kept once",
        "join" => "parts of several aggregates in one document",
        _ => "see docs/projections.md",
    }
}

/// Where people look who read the store themselves.
fn place(compiled: &Compiled) -> String {
    let name = &compiled.projection.name.value;
    match &compiled.projection.store {
        Store::Redis(store) => format!("redis: HGETALL {}<key>, in database {}", store.prefix, store.database),
        Store::Elasticsearch(_) => format!("elasticsearch: the alias {name}"),
        Store::Clickhouse(_) => format!("clickhouse: the view {name}"),
        Store::Postgres(store) => format!("postgres: the view {}.{name}", store.schema),
    }
}
