//! The caller's parameters: typed, bounded, each refused by name.

use super::problem::Problem;
use crate::expr::Kind;
use crate::projection::{Paging, Parameter, ParameterType, Sort};
use chrono::{Days, NaiveDate};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Text longer than this is refused unless the parameter says another `max`.
pub(crate) const TEXT_CHARS_MAX: i64 = 256;
const CURSOR_CHARS_MAX: i64 = 4_096;

/// The parameters' values by name; null where an optional one is absent.
pub(crate) type Arguments = Map<String, Json>;

/// What a query takes.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    declared: BTreeMap<String, Parameter>,
    paging: Option<Paging>,
}

fn text(doc: &str) -> Parameter {
    Parameter {
        kind: ParameterType::String,
        required: false,
        default: None,
        min: None,
        max: None,
        filter: None,
        values: Vec::new(),
        doc: doc.into(),
        example: None,
    }
}

fn sort_parameter(sort: &Sort) -> Parameter {
    Parameter {
        default: Some(sort.default.clone().into()),
        values: sort.keys.keys().cloned().collect(),
        ..text("In which order.")
    }
}

impl Parameters {
    /// `declared` with `page`, `size` and `cursor` where the query has pages, and `sort` where it has sort keys.
    pub(crate) fn new(declared: &BTreeMap<String, Parameter>, paging: Option<&Paging>, sort: Option<&Sort>) -> Self {
        let mut declared = declared.clone();
        if let Some(sort) = sort {
            declared.insert("sort".into(), sort_parameter(sort));
        }
        if let Some(paging) = paging {
            let integer = |default: i64, max: i64| Parameter {
                kind: ParameterType::Integer,
                default: Some(default.into()),
                min: Some(1),
                max: Some(max),
                ..text("")
            };
            let page = Parameter { doc: "The page, from 1.".into(), ..integer(1, paging.depth_max) };
            declared.insert("page".into(), page);
            let size = Parameter { doc: "Entries a page.".into(), ..integer(paging.size, paging.size_max) };
            declared.insert("size".into(), size);
            if paging.cursor.is_some() {
                let doc = "Where to go on: the `next_cursor` of the page before. In place of `page`.";
                declared.insert("cursor".into(), Parameter { max: Some(CURSOR_CHARS_MAX), ..text(doc) });
            }
        }
        Self { declared, paging: paging.cloned() }
    }

    /// All by name.
    pub(crate) fn all(&self) -> &BTreeMap<String, Parameter> {
        &self.declared
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Parameter> {
        self.declared.get(name)
    }

    /// Whether a parameter may be absent after defaults.
    pub(crate) fn may_be_absent(&self, name: &str, in_path: bool) -> bool {
        self.get(name).is_some_and(|p| !in_path && !p.required && p.default.is_none())
    }

    /// The type that programs see.
    pub(crate) fn kind(&self, in_path: &[String]) -> Kind {
        let fields = self.declared.iter().fold(crate::expr::Collection::empty(), |fields, (name, parameter)| {
            let kind = match parameter.kind {
                ParameterType::Integer => Kind::integer(),
                ParameterType::Boolean => Kind::boolean(),
                ParameterType::String | ParameterType::Date | ParameterType::Uuid => Kind::bytes(),
            };
            let kind = if self.may_be_absent(name, in_path.contains(name)) { kind.or_null() } else { kind };
            fields.with_known(name.as_str(), kind)
        });
        Kind::object(fields)
    }

    /// Types what the caller gave (`path` and `query` by name) and fills in defaults, of which some depend on `today`.
    pub(crate) fn read(
        &self,
        path: &[(String, String)],
        query: &[(String, String)],
        today: NaiveDate,
    ) -> Result<Arguments, Problem> {
        let mut arguments = Arguments::new();
        for (given, in_path) in path.iter().map(|p| (p, true)).chain(query.iter().map(|p| (p, false))) {
            let (name, text) = given;
            let parameter = self.declared.get(name).filter(|_| in_path || !path.iter().any(|(n, _)| n == name));
            let parameter = parameter.ok_or_else(|| self.unknown(name, path))?;
            if arguments.contains_key(name) {
                return Err(Problem::parameter(name, format!("`{name}` is given twice")));
            }
            let value = typed(parameter, text).map_err(|expected| {
                let found: String = text.chars().take(80).collect();
                Problem::parameter(name, format!("`{name}` is `{found}`, expected {expected}"))
            })?;
            arguments.insert(name.clone(), value);
        }
        for (name, parameter) in &self.declared {
            if !arguments.contains_key(name) {
                if parameter.required {
                    return Err(Problem::parameter(name, format!("`{name}` is missing: {}", expectation(parameter))));
                }
                arguments.insert(name.clone(), default_of(parameter, today));
            }
        }
        self.check_depth(&arguments)?;
        Ok(arguments)
    }

    fn unknown(&self, name: &str, path: &[(String, String)]) -> Problem {
        let known: Vec<_> =
            self.declared.keys().filter(|k| !path.iter().any(|(n, _)| n == *k)).map(|k| format!("`{k}`")).collect();
        let known = if known.is_empty() { "no other than those of freshness".to_owned() } else { known.join(", ") };
        let shown: String = name.chars().take(80).collect();
        Problem::parameter(&shown, format!("`{shown}` is not a parameter of this query; it takes {known}"))
    }

    fn check_depth(&self, arguments: &Arguments) -> Result<(), Problem> {
        if arguments.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
            let first = arguments.get("page").and_then(Json::as_i64) == Some(1);
            return if first { Ok(()) } else { Err(Problem::parameter("page", "give `cursor` or `page`, not both")) };
        }
        let (Some(paging), Some((page, size))) = (&self.paging, page_and_size(arguments)) else { return Ok(()) };
        if page.saturating_mul(size) <= paging.depth_max {
            return Ok(());
        }
        let detail = format!(
            "`page` {page} of `size` {size} is deeper than the first {} entries; narrow the query instead",
            paging.depth_max
        );
        Err(Problem::parameter("page", detail))
    }
}

/// The page's number and size where the query has pages.
pub(crate) fn page_and_size(arguments: &Arguments) -> Option<(i64, i64)> {
    Some((arguments.get("page")?.as_i64()?, arguments.get("size")?.as_i64()?))
}

/// What a parameter must be, in words.
fn expectation(parameter: &Parameter) -> String {
    if !parameter.values.is_empty() {
        return format!("one of {}", parameter.values.join(", "));
    }
    match (parameter.kind, parameter.min, parameter.max) {
        (ParameterType::String, ..) => format!("text of 1 to {} characters", parameter.max.unwrap_or(TEXT_CHARS_MAX)),
        (ParameterType::Integer, Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
        (ParameterType::Integer, Some(min), None) => format!("a whole number of at least {min}"),
        (ParameterType::Integer, None, Some(max)) => format!("a whole number of at most {max}"),
        (ParameterType::Integer, None, None) => "a whole number".into(),
        (ParameterType::Boolean, ..) => "true or false".into(),
        (ParameterType::Date, ..) => "a date such as 2026-05-23".into(),
        (ParameterType::Uuid, ..) => "a UUID".into(),
    }
}

/// A value of the parameter's type from text; else what was expected.
fn typed(parameter: &Parameter, text: &str) -> Result<Json, String> {
    let value = match parameter.kind {
        ParameterType::String => {
            let chars = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            let fits = chars >= 1 && chars <= parameter.max.unwrap_or(TEXT_CHARS_MAX) && !text.contains('\0');
            fits.then(|| text.into())
        }
        ParameterType::Integer => {
            let in_bounds =
                |n: &i64| parameter.min.is_none_or(|min| *n >= min) && parameter.max.is_none_or(|max| *n <= max);
            text.parse().ok().filter(in_bounds).map(Json::from)
        }
        ParameterType::Boolean => text.parse::<bool>().ok().map(Json::from),
        ParameterType::Date => date(text).map(|day| day.to_string().into()),
        ParameterType::Uuid => uuid::Uuid::try_parse(text).ok().map(|id| id.to_string().into()),
    };
    value
        .filter(|_| parameter.values.is_empty() || parameter.values.iter().any(|v| v == text))
        .ok_or_else(|| expectation(parameter))
}

/// A day that every store can hold, written in full.
fn date(text: &str) -> Option<NaiveDate> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (text.len() == 10 && ("1970-01-01"..="2149-06-06").contains(&text)).then_some(day)
}

fn default_of(parameter: &Parameter, today: NaiveDate) -> Json {
    match &parameter.default {
        None => Json::Null,
        Some(Json::String(text)) if parameter.kind == ParameterType::Date => {
            relative_date(text, today).map_or(Json::Null, |day| day.to_string().into())
        }
        Some(value) => value.clone(),
    }
}

/// `2026-05-23`, `today`, `today-29d`, `today+1d`.
fn relative_date(text: &str, today: NaiveDate) -> Option<NaiveDate> {
    let Some(rest) = text.strip_prefix("today") else { return date(text) };
    if rest.is_empty() {
        return Some(today);
    }
    let days = |digits: &str| digits.strip_suffix('d').and_then(|n| n.parse().ok()).map(Days::new);
    match rest.split_at_checked(1)? {
        ("+", digits) => today.checked_add_days(days(digits)?),
        ("-", digits) => today.checked_sub_days(days(digits)?),
        _ => None,
    }
}

/// What is wrong with a declaration, if anything: a default of another type, bounds that exclude everything.
pub(crate) fn check(name: &str, parameter: &Parameter) -> Option<String> {
    if let (Some(min), Some(max)) = (parameter.min, parameter.max)
        && min > max
    {
        return Some(format!("parameter `{name}`: `min` {min} is above `max` {max}"));
    }
    if !parameter.values.is_empty() && parameter.kind != ParameterType::String {
        return Some(format!("parameter `{name}`: `values` goes with type string only"));
    }
    if let Some(example) = &parameter.example
        && !fits(parameter, example)
    {
        return Some(format!("parameter `{name}`: the example {example} is not {}", expectation(parameter)));
    }
    let default = parameter.default.as_ref()?;
    if parameter.required {
        return Some(format!("parameter `{name}`: a required parameter has no use for a default"));
    }
    (!fits(parameter, default))
        .then(|| format!("parameter `{name}`: the default {default} is not {}", expectation(parameter)))
}

/// Whether a value of the declaration is one that a caller could give.
fn fits(parameter: &Parameter, value: &Json) -> bool {
    match (parameter.kind, value) {
        (ParameterType::Date, Json::String(text)) => relative_date(text, NaiveDate::default()).is_some(),
        (ParameterType::Integer, Json::Number(n)) => typed(parameter, &n.to_string()).is_ok(),
        (ParameterType::Boolean, Json::Bool(_)) => true,
        (ParameterType::String | ParameterType::Uuid, Json::String(text)) => {
            typed(parameter, text).is_ok_and(|v| v == *value)
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let declared = "
            id: { type: uuid }
            q: { type: string, max: 10 }
            status: { type: string, values: [open, closed] }
            n: { type: integer, min: -5, max: 5, default: 3 }
            flag: { type: boolean }
            from: { type: date, default: today-29d }";
        let declared = serde_saphyr::from_str(declared).unwrap();
        Parameters::new(&declared, Some(&Paging { size: 20, size_max: 100, depth_max: 1_000, cursor: None }), None)
    }

    fn read(query: &[(&str, &str)]) -> Result<Arguments, String> {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        let path = own(&[("id", "0192F0C1-1111-7000-8000-000000000001")]);
        let today = NaiveDate::from_ymd_opt(2026, 5, 30).unwrap();
        parameters().read(&path, &own(query), today).map_err(|p| p.body()["detail"].as_str().unwrap().to_owned())
    }

    #[test]
    fn types_defaults_and_absence() {
        let arguments = read(&[("q", "blue cup"), ("flag", "true"), ("page", "3")]).unwrap();
        let expected = serde_json::json!({
            "id": "0192f0c1-1111-7000-8000-000000000001", "q": "blue cup", "flag": true, "page": 3, "size": 20,
            "from": "2026-05-01", "n": 3, "status": null,
        });
        assert_eq!(Json::Object(arguments), expected);
    }

    #[test]
    fn what_is_refused_is_named_with_what_was_expected() {
        let cases = [
            (vec![("colour", "red")], "`colour` is not a parameter"),
            (vec![("id", "7")], "`id` is not a parameter"),
            (vec![("q", "")], "`q` is ``, expected text of 1 to 10"),
            (vec![("q", "12345678901")], "expected text of 1 to 10"),
            (vec![("status", "open' or 1=1")], "expected one of open, closed"),
            (vec![("n", "6")], "`n` is `6`, expected a whole number from -5 to 5"),
            (vec![("n", "1e3")], "`n` is `1e3`"),
            (vec![("flag", "yes")], "expected true or false"),
            (vec![("from", "2026-02-30")], "`from` is `2026-02-30`, expected a date"),
            (vec![("from", "2026-5-3")], "expected a date"),
            (vec![("page", "0")], "`page` is `0`"),
            (vec![("size", "101")], "a whole number from 1 to 100"),
            (vec![("page", "11"), ("size", "100")], "deeper than the first 1000"),
            (vec![("n", "1"), ("n", "2")], "`n` is given twice"),
        ];
        for (query, said) in cases {
            let error = read(&query).unwrap_err();
            assert!(error.contains(said), "{query:?}: {error}");
        }
    }

    #[test]
    fn declarations_are_checked() {
        let check = |yaml: &str| check("p", &serde_saphyr::from_str(yaml).unwrap());
        for good in [
            "{ type: date, default: today-29d }",
            "{ type: integer, default: 3 }",
            "{ type: date, default: 2026-01-01 }",
        ] {
            assert_eq!(check(good), None, "{good}");
        }
        for bad in [
            "{ type: integer, default: many }",
            "{ type: integer, min: 3, max: 1 }",
            "{ type: date, default: yesterday }",
            "{ type: string, values: [a], default: b }",
            "{ type: integer, default: 7, max: 5 }",
            "{ type: date, values: [a] }",
            "{ type: string, required: true, default: a }",
        ] {
            assert!(check(bad).is_some(), "{bad}");
        }
    }
}
