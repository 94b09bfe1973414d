//! How a query asks its store: the one way that it declares, which must be one of that store.

use super::endpoint::Template;
use super::facets::Made;
use super::fields::Fields;
use super::template::{KeyTemplate, SearchTemplate, SqlTemplate};
use super::{hits, suggest, verify};
use crate::projection::{Compiled, Query, Store};

/// What is asked of the store; else what is wrong with that, in words.
pub(super) fn template_of(query: &Query, compiled: &Compiled) -> Result<Template, String> {
    let store = &compiled.projection.store;
    let wanted: &[&str] = match store {
        Store::Redis(_) => &["document"],
        Store::Elasticsearch(_) => &["search", "suggest"],
        Store::Clickhouse(_) | Store::Postgres(_) => &["sql"],
    };
    let given = [
        ("document", query.document.is_some()),
        ("search", query.search.is_some()),
        ("suggest", query.suggest.is_some()),
        ("sql", query.sql.is_some()),
    ];
    let mut said = given.into_iter().filter_map(|(name, is_there)| is_there.then_some(name));
    let (Some(way), None) = (said.next().filter(|way| wanted.contains(way)), said.next()) else {
        let wanted = wanted.join("` or `");
        return Err(format!("a query of a read model in {} has `{wanted}`, and none of the others", store.name()));
    };
    let template = match (&query.document, &query.sql, verify::fields_of(compiled)) {
        (Some(document), ..) => KeyTemplate::parse(&document.key.value).map(Template::Document),
        (_, Some(sql), _) => SqlTemplate::parse(&sql.value, query.sort.as_ref()).map(Template::Sql),
        (.., Some(fields)) => search_of(query, fields).map(Template::Search),
        _ => Err(String::new()),
    };
    let template = template.map_err(|message| format!("{way}: {message}"))?;
    let adds_up = matches!(store, Store::Clickhouse(config) if config.rollup.is_some());
    if matches!(&template, Template::Sql(sql) if sql.reads_rollup()) && !adds_up {
        return Err("sql: `{rollup}` needs `rollup` under `store.clickhouse`, which says what is added up".to_owned());
    }
    Ok(template)
}

fn search_of(query: &Query, fields: Fields<'_>) -> Result<SearchTemplate, String> {
    let mut made = Made::of(query, fields);
    made.body.extend(hits::source(query).map(|source| ("_source".to_owned(), source)));
    let written = match (&query.search, &query.suggest) {
        (Some(body), _) => SearchTemplate::parse(body, query.sort.as_ref())?,
        (None, Some(suggest)) => {
            made.body.extend(suggest::body(suggest, fields));
            SearchTemplate::unwritten()
        }
        (None, None) => SearchTemplate::unwritten(),
    };
    Ok(written.with(made))
}
