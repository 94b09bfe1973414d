//! What is asked of the stores: declared templates in which the caller's values are bound, never pasted as text.

use super::facets::Made;
use super::parameters::{Arguments, page_and_size};
use crate::projection::Sort;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// What a template must not say.
pub(crate) type TemplateError = String;

/// A document's key: text with parameters in braces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Parameter(String),
}

impl KeyTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("`{{` without `}}` in `{text}`"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Parameter(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| if let Piece::Parameter(name) = piece { Some(name.as_str()) } else { None })
    }

    /// The parameter that the key is, where it is nothing else.
    pub(crate) fn only_parameter(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Parameter(name)] => Some(name),
            _ => None,
        }
    }

    pub(crate) fn render(&self, arguments: &Arguments) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Parameter(name) => text_of(arguments.get(name).unwrap_or(&Json::Null)),
        };
        self.0.iter().map(text).collect()
    }
}

/// A value as text, as keys and ClickHouse's parameters carry it.
pub(crate) fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A search's body with `{param: name}` nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SearchTemplate {
    /// As it was written.
    body: Map<String, Json>,
    /// What was made from other declarations.
    made: Made,
    /// What each sort key stands for.
    sorts: BTreeMap<String, Json>,
}

/// What a search's body may say; all else is taken for a slip, or belongs to `paging` and `sort`.
const BODY: [&str; 9] =
    ["query", "sort", "aggs", "post_filter", "highlight", "collapse", "min_score", "rescore", "track_total_hits"];

impl SearchTemplate {
    pub(crate) fn parse(body: &Json, sort: Option<&Sort>) -> Result<Self, TemplateError> {
        let Json::Object(body) = body else { return Err("a search's body is a map: `query`, `sort`, …".into()) };
        for name in body.keys() {
            match name.as_str() {
                "from" | "size" => return Err(format!("`{name}` comes from `paging`, which bounds it")),
                "search_after" => return Err("`search_after` comes from `paging`, by its `cursor`".into()),
                "sort" if sort.is_some() => {
                    return Err("`sort` stands in the query's own `sort`, not in its body".into());
                }
                known if BODY.contains(&known) => {}
                other => return Err(format!("`{other}` is none of {}", BODY.join(", "))),
            }
        }
        let sorts: BTreeMap<_, _> = sort.map(|sort| sort.keys.clone()).unwrap_or_default();
        if let Some(name) = sorts.iter().find_map(|(name, by)| (!by.is_array()).then_some(name)) {
            return Err(format!("sort key `{name}`: expected a list, as a search's `sort` is"));
        }
        Ok(Self { body: body.clone(), made: Made::default(), sorts })
    }

    /// A search of which nothing was written by hand.
    pub(crate) fn unwritten() -> Self {
        Self { body: Map::new(), made: Made::default(), sorts: BTreeMap::new() }
    }

    /// The search, with what other declarations add to it.
    pub(super) fn with(self, made: Made) -> Self {
        Self { made, ..self }
    }

    /// The search, for somebody who doesn't look at how many hits there are: the best of them are found without the others.
    pub(crate) fn uncounted(mut self) -> Self {
        self.body.entry("track_total_hits").or_insert(Json::Bool(false));
        self
    }

    /// Every list by which hits may be sorted.
    pub(crate) fn sorts(&self) -> impl Iterator<Item = &Json> {
        self.body.get("sort").into_iter().chain(self.sorts.values())
    }

    /// The names of the fields that are sorted by, filtered or matched in what was written, as far as they can be told: those of `term`, `terms`,
    /// `match`, `range` and their like.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.body.values().for_each(|node| collect_fields(node, &mut names));
        for by in self.sorts().filter_map(Json::as_array).flatten() {
            match by {
                Json::String(name) => names.push(name.clone()),
                Json::Object(map) if parameter_of(by).is_none() => names.extend(map.keys().cloned()),
                _ => {}
            }
        }
        names.retain(|name| !name.starts_with('_'));
        names
    }

    /// The parameters of what was written.
    pub(crate) fn written_parameters(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.body.values().for_each(|node| collect_parameters(node, &mut names));
        names
    }

    pub(crate) fn parameters(&self) -> Vec<&str> {
        let mut names = self.written_parameters();
        self.made.body.values().chain(&self.made.filters).for_each(|node| collect_parameters(node, &mut names));
        names
    }

    /// The body to send: deleted and expired documents left out, exact totals unless they are declared otherwise, the page.
    pub(crate) fn render(&self, arguments: &Arguments, after: Option<&[Json]>) -> Json {
        let all = self.body.iter().chain(&self.made.body);
        let mut body: Map<_, _> =
            all.filter_map(|(name, node)| Some((name.clone(), substitute(node, arguments)?))).collect();
        if let Some(by) = arguments.get("sort").and_then(Json::as_str).and_then(|key| self.sorts.get(key)) {
            body.insert("sort".into(), by.clone());
        }
        let asked = body.remove("query").unwrap_or_else(|| json!({"match_all": {}}));
        let hidden = json!([{"term": {"_deleted": true}}, {"range": {"_expires": {"lte": "now"}}}]);
        let mut visible = json!({"must": [asked], "must_not": hidden});
        if !self.made.filters.is_empty() {
            visible["filter"] = self.made.filters.iter().filter_map(|clause| substitute(clause, arguments)).collect();
        }
        body.insert("query".into(), json!({"bool": visible}));
        body.entry("track_total_hits").or_insert(Json::Bool(true));
        if let Some((page, size)) = page_and_size(arguments) {
            let from = if after.is_some() { 0 } else { (page - 1) * size };
            body.insert("from".into(), from.into());
            body.insert("size".into(), size.into());
        }
        if let Some(after) = after {
            body.insert("search_after".into(), after.into());
        }
        Json::Object(body)
    }
}

/// The name in a `{param: name}` node.
pub(super) fn parameter_of(node: &Json) -> Option<&str> {
    let map = node.as_object().filter(|map| map.len() == 1)?;
    map.get("param")?.as_str()
}

pub(crate) fn collect_parameters<'a>(node: &'a Json, names: &mut Vec<&'a str>) {
    if let Some(name) = parameter_of(node) {
        return names.push(name);
    }
    match node {
        Json::Object(map) => map.values().for_each(|n| collect_parameters(n, names)),
        Json::Array(items) => items.iter().for_each(|n| collect_parameters(n, names)),
        _ => {}
    }
}

/// Queries whose only entry is a field's name.
const OF_A_FIELD: [&str; 11] = [
    "term",
    "terms",
    "match",
    "range",
    "prefix",
    "wildcard",
    "fuzzy",
    "match_phrase",
    "match_phrase_prefix",
    "match_bool_prefix",
    "terms_set",
];

fn collect_fields(node: &Json, names: &mut Vec<String>) {
    match node {
        Json::Object(map) => {
            for (name, inner) in map {
                match inner {
                    // An aggregation (`terms`, `range`, …) says `field`.
                    Json::Object(agg) if agg.get("field").is_some_and(Json::is_string) => {
                        names.extend(agg.get("field").and_then(Json::as_str).map(str::to_owned));
                    }
                    Json::Object(fields) if OF_A_FIELD.contains(&name.as_str()) => {
                        names.extend(fields.keys().filter(|key| *key != "boost").cloned());
                    }
                    Json::Array(list) if name == "fields" => {
                        let texts = list.iter().filter_map(Json::as_str);
                        names.extend(texts.map(|f| f.split('^').next().unwrap_or_default().to_owned()));
                    }
                    _ => collect_fields(inner, names),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|n| collect_fields(n, names)),
        _ => {}
    }
}

/// The node with values in place; `None` when it holds an absent one outside a list.
pub(crate) fn substitute(node: &Json, arguments: &Arguments) -> Option<Json> {
    if let Some(name) = parameter_of(node) {
        return arguments.get(name).filter(|value| !value.is_null()).cloned();
    }
    Some(match node {
        Json::Object(map) => {
            let entries = map.iter().map(|(name, node)| Some((name.clone(), substitute(node, arguments)?)));
            Json::Object(entries.collect::<Option<_>>()?)
        }
        Json::Array(items) => items.iter().filter_map(|item| substitute(item, arguments)).collect(),
        other => other.clone(),
    })
}

/// A statement with bound parameters as ClickHouse writes them, `{name:Type}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SqlTemplate {
    text: String,
    /// The bound names with their types.
    pub(crate) bound: Vec<(String, String)>,
    /// What each sort key stands for: text of the declaration.
    sorts: BTreeMap<String, String>,
}

impl SqlTemplate {
    pub(crate) fn parse(text: &str, sort: Option<&Sort>) -> Result<Self, TemplateError> {
        let template = Self::of_any(text, &["table", "rollup", "sort"])?;
        if !text.contains("{table}") && !text.contains("{rollup}") {
            return Err("it must read from `{table}`, which names this generation's table, or from `{rollup}`".into());
        }
        let mut sorts = BTreeMap::new();
        for (name, by) in sort.iter().flat_map(|sort| &sort.keys) {
            let by = by.as_str().ok_or_else(|| format!("sort key `{name}`: expected the text behind `order by`"))?;
            if by.contains(['{', '}']) {
                return Err(format!("sort key `{name}`: no parameters can stand in it"));
            }
            sorts.insert(name.clone(), by.to_owned());
        }
        match (text.contains("{sort}"), sorts.is_empty()) {
            (true, true) => Err("`{sort}` needs `sort` beside `sql`, which says what its keys stand for".into()),
            (false, false) => Err("`sort` is declared, but no `{sort}` stands in it".into()),
            _ => Ok(Self { sorts, ..template }),
        }
    }

    /// A column of the projector's own that it names.
    pub(crate) fn hidden_column(&self) -> Option<&str> {
        let mut words = self.text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        words.find(|word| ["_key", "_version", "_deleted", "_state", "_expires", "_parents"].contains(word))
    }

    /// A statement that reads no table of ours.
    pub(crate) fn elsewhere(text: &str) -> Result<Self, TemplateError> {
        Self::of_any(text, &[])
    }

    fn of_any(text: &str, ours: &[&str]) -> Result<Self, TemplateError> {
        let mut bound = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('{') {
            let (inside, after) = after.split_once('}').ok_or("`{` without `}`")?;
            rest = after;
            if ours.contains(&inside) {
                continue;
            }
            let (name, kind) = inside.split_once(':').ok_or_else(|| {
                let ours: String = ours.iter().map(|name| format!("`{{{name}}}`, ")).collect();
                format!("`{{{inside}}}` is none of {ours}`{{name:Type}}`")
            })?;
            let (name, kind) = (name.trim().to_owned(), kind.trim().to_owned());
            if !bound.iter().any(|(known, _)| *known == name) {
                bound.push((name, kind));
            }
        }
        Ok(Self { text: text.to_owned(), bound, sorts: BTreeMap::new() })
    }

    /// What `{sort}` stands for.
    pub(crate) fn sort(&self, arguments: &Arguments) -> &str {
        let key = arguments.get("sort").and_then(Json::as_str);
        key.and_then(|key| self.sorts.get(key)).map_or("", String::as_str)
    }

    /// Whether it reads days that were added up beforehand.
    pub(crate) fn reads_rollup(&self) -> bool {
        self.text.contains("{rollup}")
    }

    /// The statement for ClickHouse, a table, and what stands for the rollup: names of ours, not the caller's.
    pub(crate) fn statement(&self, table: &str, rollup: &str, sort: &str) -> String {
        self.text.replace("{table}", table).replace("{rollup}", rollup).replace("{sort}", sort)
    }

    /// The statement for Postgres, whose parameters have numbers: `$1::Type`.
    pub(crate) fn numbered(&self, table: &str, sort: &str) -> String {
        let (mut statement, mut rest) = (String::with_capacity(self.text.len()), self.text.as_str());
        while let Some((before, (inside, after))) =
            rest.split_once('{').and_then(|(b, r)| Some((b, r.split_once('}')?)))
        {
            statement.push_str(before);
            match inside.split_once(':') {
                None => statement.push_str(if inside == "sort" { sort } else { table }),
                Some((name, kind)) => {
                    let at = self.bound.iter().position(|(known, _)| *known == name.trim()).unwrap_or_default();
                    statement.push_str(&format!("${}::{}", at + 1, kind.trim()));
                }
            }
            rest = after;
        }
        statement + rest
    }

    /// The bound values as text, in order; none for null.
    pub(crate) fn texts(&self, arguments: &Arguments) -> Vec<Option<String>> {
        let page = page_and_size(arguments);
        let text = |name: &str| match (name, page) {
            ("limit", Some((_, size))) => Some(size.to_string()),
            ("offset", Some(_)) if is_after(arguments) => Some("0".to_owned()),
            ("offset", Some((page, size))) => Some(((page - 1) * size).to_string()),
            _ => arguments.get(name).filter(|value| !value.is_null()).map(text_of),
        };
        self.bound.iter().map(|(name, _)| text(name)).collect()
    }

    /// The bound values as ClickHouse's HTTP parameters carry them: escaped text, `\N` for null.
    pub(crate) fn values(&self, arguments: &Arguments) -> Vec<(String, String)> {
        let value = |text: Option<String>| text.map_or("\\N".to_owned(), |text| escaped(&text));
        let named = self.bound.iter().zip(self.texts(arguments));
        named.map(|((name, _), text)| (format!("param_{name}"), value(text))).collect()
    }
}

/// Whether a cursor says where the page begins.
fn is_after(arguments: &Arguments) -> bool {
    arguments.keys().any(|name| name.starts_with(AFTER))
}

/// What the names of a cursor's bound values begin with.
pub(crate) const AFTER: &str = "after_";

/// ClickHouse reads a parameter as a TSV field.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
