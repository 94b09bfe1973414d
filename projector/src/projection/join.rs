//! What a join's documents are made of: a part of the document's own aggregate, and the parts of those that it names (its
//! parents), each folded from its own aggregate's events alone. The document is derived from them by one pure program, so
//! that it doesn't matter in which order two aggregates' events came.

use super::compile::{Events, Programs, ReadModelKind, infer};
use super::diagnostic::{Diagnosis, Finding, Source};
use super::{ParentIds, Projection};
use crate::expr::{Collection, Compiler, Field, KeyString, Kind, Object, Program, RunError, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Parents that one document may name.
const PARENTS_MAX: usize = 1_000;

/// How a join's documents come to be.
#[derive(Clone, Debug)]
pub struct Join {
    /// The aggregate type that has a document each.
    pub own: Arc<str>,
    /// The type of each aggregate type's part.
    pub parts: BTreeMap<Arc<str>, Kind>,
    /// The parents that a document has, by the name that the program calls them by.
    pub parents: Vec<Parent>,
    pub(super) aggregates: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) derive: Program,
}

/// One parent, or several of one type.
#[derive(Clone, Debug)]
pub struct Parent {
    /// `%name` in the program.
    pub name: Arc<str>,
    /// The aggregate type.
    pub aggregate: Arc<str>,
    /// Where the document's own part holds its id.
    pub ids: IdPath,
}

/// A path to one id (`member_id`) or to many (`books[]`, `lines[].book_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Field(KeyString),
    Each,
}

impl IdPath {
    /// Reads a path. None where it isn't one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut path = Vec::new();
        for part in text.split('.') {
            let field = part.trim_end_matches("[]");
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if field.is_empty() || !field.chars().all(good) {
                return None;
            }
            path.push(Segment::Field(field.into()));
            path.extend(std::iter::repeat_n(Segment::Each, (part.len() - field.len()) / 2));
        }
        Some(Self(path))
    }

    /// Whether it leads to many.
    #[must_use]
    pub fn is_many(&self) -> bool {
        self.0.contains(&Segment::Each)
    }

    /// What stands at it in values of this type.
    pub(crate) fn kind(&self, part: &Kind) -> Kind {
        self.0.iter().fold(part.clone(), |kind, segment| match segment {
            Segment::Field(name) => {
                let Some(fields) = kind.as_object() else { return Kind::undefined() };
                let known = fields.known().get(&Field::from(name.as_str())).cloned();
                known.unwrap_or_else(|| fields.unknown_kind())
            }
            Segment::Each => kind.as_array().map_or_else(Kind::undefined, Collection::reduced_kind),
        })
    }

    /// The ids at it. Null or absent is none.
    pub(crate) fn ids(&self, part: &Object) -> Result<BTreeSet<String>, String> {
        let mut at = vec![part.get(self.0.first().and_then(Segment::field).unwrap_or_default())];
        for segment in &self.0[1..] {
            at = match segment {
                Segment::Field(name) => {
                    at.into_iter().flatten().map(|v| v.as_object().and_then(|o| o.get(name))).collect()
                }
                Segment::Each => {
                    let arrays = at.into_iter().flatten().filter_map(Value::as_array);
                    arrays.flatten().map(Some).collect()
                }
            };
        }
        let mut ids = BTreeSet::new();
        for value in at.into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::Bytes(text) => _ = ids.insert(String::from_utf8_lossy(text).into_owned()),
                Value::String(text) => _ = ids.insert(text.to_string()),
                other => return Err(format!("an aggregate's id must be text, not {}", other.kind_str())),
            }
        }
        Ok(ids)
    }
}

impl Segment {
    fn field(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name.as_str()),
            Self::Each => None,
        }
    }
}

impl Join {
    /// The aggregate type of an event type that the projection takes.
    #[must_use]
    pub fn aggregate(&self, event_type: &str) -> Option<&Arc<str>> {
        self.aggregates.get(event_type)
    }

    /// The parents that a part names: aggregate type and id.
    ///
    /// # Errors
    /// When something that isn't text stands where an id is expected, or when there are too many.
    pub fn named(&self, part: &Object) -> Result<BTreeSet<(Arc<str>, String)>, String> {
        let mut named = BTreeSet::new();
        for parent in &self.parents {
            let ids = parent.ids.ids(part).map_err(|reason| format!("parent `{}`: {reason}", parent.name))?;
            named.extend(ids.into_iter().map(|id| (Arc::clone(&parent.aggregate), id)));
        }
        if named.len() > PARENTS_MAX {
            return Err(format!("it names {} parents, and may name {PARENTS_MAX}", named.len()));
        }
        Ok(named)
    }

    /// Makes the document of its parts. `parent` gives another aggregate's part, if that has one.
    ///
    /// # Errors
    /// None that the compiler let pass.
    pub fn derive<'a>(
        &self,
        part: &Object,
        parent: impl Fn(&Arc<str>, &str) -> Option<&'a Object>,
    ) -> Result<Option<Object>, RunError> {
        let value = |aggregate: &Arc<str>, id: &str| {
            parent(aggregate, id).map_or(Value::Null, |part| Value::Object(part.clone()))
        };
        let of = |one: &Parent| {
            let ids = one.ids.ids(part).unwrap_or_default();
            let found = if one.ids.is_many() {
                Value::Object(ids.iter().map(|id| (id.as_str().into(), value(&one.aggregate, id))).collect())
            } else {
                ids.first().map_or(Value::Null, |id| value(&one.aggregate, id))
            };
            (KeyString::from(one.name.as_ref()), found)
        };
        let parents = Value::Object(self.parents.iter().map(of).collect());
        let mut document = Value::Object(part.clone());
        self.derive.run(&mut document, &parents)?;
        Ok(match document {
            Value::Object(fields) => Some(fields),
            _ => None,
        })
    }
}

/// Compiles a join: each aggregate's programs among themselves, then the document of their parts.
pub(super) fn compile(
    compiler: &Compiler,
    source: &Source,
    projection: &Projection,
    events: &Events<'_>,
) -> Result<(Programs, Kind, Join), Vec<Finding>> {
    let parents = parents(source, projection)?;
    let mut by_aggregate: BTreeMap<Arc<str>, Events<'_>> = BTreeMap::new();
    for (name, (event, kind, program)) in events {
        let mine = by_aggregate.entry(event.aggregate_type.as_str().into()).or_default();
        mine.insert(name, (event, kind.clone(), program));
    }
    let own = own(source, projection, &parents, by_aggregate.keys())?;
    let (mut programs, mut parts, mut findings) = (Programs::new(), BTreeMap::new(), Vec::new());
    for (aggregate, events) in &by_aggregate {
        match infer(compiler, source, ReadModelKind::Entity, events) {
            Ok((of_part, part)) => {
                programs.extend(of_part);
                parts.insert(Arc::clone(aggregate), part);
            }
            Err(found) => findings.extend(found),
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let own_part = Kind::object(parts[&own].as_object().cloned().unwrap_or_else(Collection::empty));
    for (parent, ids) in parents.iter().zip(projection.join.values()) {
        findings.extend(check_ids(&parent.ids, &own_part).map(|(message, help)| {
            Finding::at(source, ids.defined, format!("parent `{}`: {message}", parent.name), help).of(Diagnosis::Join)
        }));
    }
    let Some(text) = projection.derive.as_ref().filter(|_| findings.is_empty()) else { return Err(findings) };
    let seen = parents.iter().map(|parent| {
        let part = parts[&parent.aggregate].clone().or_null();
        let many = || Kind::object(Collection::empty().with_unknown(part.clone()));
        (Field::from(parent.name.as_ref()), if parent.ids.is_many() { many() } else { part.clone() })
    });
    let seen = Kind::object(Collection::from(seen.collect::<BTreeMap<_, _>>()));
    let in_program = |found: Vec<_>| found.iter().map(|d| Finding::in_program(source, text, d)).collect::<Vec<_>>();
    let derive = compiler.compile(&text.value, &own_part, &seen).map_err(in_program)?;
    if derive.can_fail() {
        return Err(vec![Finding::at(
            source,
            text.defined,
            "`derive` can fail",
            "it runs for each change of each part, and none of them is to blame: say what holds instead (`int(.n) ?? 0`), without `!` and `abort`",
        ).of(Diagnosis::Join)]);
    }
    let document = derive.document().clone();
    let aggregates = events.iter().map(|(name, (event, ..))| (Arc::from(*name), event.aggregate_type.as_str().into()));
    let join = Join { own, parts, parents, aggregates: aggregates.collect(), derive };
    Ok((programs, document, join))
}

/// The parents as the file names them.
fn parents(source: &Source, projection: &Projection) -> Result<Vec<Parent>, Vec<Finding>> {
    let (mut parents, mut findings) = (Vec::new(), Vec::new());
    for (name, ids) in &projection.join {
        let (aggregate, path) = match &ids.value {
            ParentIds::Path(path) => (name, path),
            ParentIds::Named(named) => (&named.aggregate, &named.id),
        };
        match IdPath::parse(path) {
            Some(ids) => parents.push(Parent { name: name.as_str().into(), aggregate: aggregate.as_str().into(), ids }),
            None => findings.push(
                Finding::at(
                    source,
                    ids.defined,
                    format!("`{path}` is no path to an id"),
                    "names with dots between; `[]` behind a list, as in `lines[].book_id`",
                )
                .of(Diagnosis::Join),
            ),
        }
    }
    if findings.is_empty() { Ok(parents) } else { Err(findings) }
}

/// The one aggregate type that has a document each.
fn own<'a>(
    source: &Source,
    projection: &Projection,
    parents: &[Parent],
    aggregates: impl Iterator<Item = &'a Arc<str>> + Clone,
) -> Result<Arc<str>, Vec<Finding>> {
    let found =
        |message: String, help: &str| Finding::at(source, projection.name.defined, message, help).of(Diagnosis::Join);
    let without = parents.iter().filter(|p| !aggregates.clone().any(|aggregate| *aggregate == p.aggregate));
    let help =
        "name at least one of its events under `on:`; or say which aggregate it is: `name: { aggregate: …, id: … }`";
    let findings: Vec<_> =
        without.map(|p| found(format!("parent `{}`: no event of `{}` is taken", p.name, p.aggregate), help)).collect();
    if !findings.is_empty() {
        return Err(findings);
    }
    let others: Vec<_> =
        aggregates.filter(|aggregate| !parents.iter().any(|parent| parent.aggregate == **aggregate)).collect();
    match others[..] {
        [own] => Ok(Arc::clone(own)),
        [] => Err(vec![found(
            "all aggregates are parents".to_owned(),
            "take events of the aggregate that has a document each",
        )]),
        _ => Err(vec![found(
            format!(
                "several aggregates could have the documents: {}",
                others.iter().map(|a| &***a).collect::<Vec<_>>().join(", ")
            ),
            "say under `join:` where a document holds the others' ids",
        )]),
    }
}

/// What is wrong with a path into a part of this type.
fn check_ids(ids: &IdPath, part: &Kind) -> Option<(String, &'static str)> {
    let kind = ids.kind(part);
    if kind.is_undefined() {
        return Some((
            "no program sets what its path leads to".to_owned(),
            "check the path against the fields that the programs set; `[]` stands behind a list only",
        ));
    }
    if kind.contains_bytes() {
        return None;
    }
    let help = if kind.contains_array() {
        "write `[]` behind the name of a list"
    } else {
        "an aggregate's id is text; `to_string` makes it so"
    };
    Some((format!("its path leads to {kind}"), help))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ids(path: &str, part: Value) -> Result<Vec<String>, String> {
        let Value::Object(part) = part else { return Ok(Vec::new()) };
        IdPath::parse(path).unwrap().ids(&part).map(|ids| ids.into_iter().collect())
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let part =
            || vrl::value!({"by": {"member": "m"}, "books": ["b", "a", "b"], "lines": [{"book": "c"}, {}, null]});
        assert_eq!(ids("by.member", part()).unwrap(), ["m"]);
        assert_eq!(ids("books[]", part()).unwrap(), ["a", "b"]);
        assert_eq!(ids("lines[].book", part()).unwrap(), ["c"]);
        assert!(ids("nothing[].here", part()).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_id_is_named() {
        assert!(ids("n", vrl::value!({"n": 3})).unwrap_err().contains("integer"));
        for bad in ["", ".", "a..b", "a[", "[]", "a b"] {
            assert_eq!(IdPath::parse(bad), None, "{bad}");
        }
    }
}
