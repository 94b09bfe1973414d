//! What may change within a major version, and where personal data is.
//!
//! Minors of a major are FULL_TRANSITIVE: each reads what any other wrote. So a field comes and goes with a default, and
//! keeps its type. The registry checks that too, but names no versions and often no field; this check runs without
//! servers, before a commit. It is stricter in three points, where Avro would read bytes that then mean something
//! else or that our own reader doesn't take: a logical type may not change (microseconds read as milliseconds), bytes
//! and string are two types, and aliases don't make a rename.

use crate::SchemaFile;
use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, RecordField, RecordSchema, SchemaKind, UnionSchema};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// A difference between two schemas that breaks reading in one direction or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatibility {
    /// The field, as a path from the record: `items[].quantity`; `[]` is an array's item, `{}` a map's value.
    pub field: String,
    /// What happened to it and why that breaks reading.
    pub reason: String,
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.field, self.reason)
    }
}

/// Something wrong in the folder of schemas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Two minors of a major can't read each other.
    #[error("{path}: {event} {newer} isn't compatible with {older}: {incompatibility}")]
    Incompatible {
        /// The newer version's file.
        path: PathBuf,
        /// The event.
        event: String,
        /// The older version, such as `1.0`.
        older: String,
        /// The newer version.
        newer: String,
        /// Field and reason.
        incompatibility: Incompatibility,
    },
    /// A field isn't marked as personal data must be.
    #[error("{path}: `{field}`: {reason}")]
    Personal {
        /// The file.
        path: PathBuf,
        /// The field, as a path from the record.
        field: String,
        /// What is wrong with its marks.
        reason: String,
    },
}

/// All that [`check`] found, never empty.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CheckError(pub Vec<Finding>);

/// Checks that all minors of each major read each other, and that personal fields name their subject.
///
/// # Errors
/// Everything that is wrong; a field that breaks several pairs of versions in the same way is told once.
pub fn check(files: &[SchemaFile]) -> Result<(), CheckError> {
    let mut findings = Vec::new();
    for (index, newer) in files.iter().enumerate() {
        let mut told = Vec::new();
        // Nearest version first: it is the one that the author of the newer file looked at.
        for older in
            files[..index].iter().rev().filter(|older| older.event == newer.event && older.major == newer.major)
        {
            for incompatibility in compare(&older.schema, &newer.schema) {
                if told.contains(&incompatibility) {
                    continue;
                }
                told.push(incompatibility.clone());
                findings.push(Finding::Incompatible {
                    path: newer.path.clone(),
                    event: newer.event.clone(),
                    older: older.version(),
                    newer: newer.version(),
                    incompatibility,
                });
            }
        }
        findings.extend(unmarked(newer));
    }
    if findings.is_empty() { Ok(()) } else { Err(CheckError(findings)) }
}

/// What keeps two versions of a schema from reading each other, both ways; nothing when they can.
#[must_use]
pub fn compare(older: &Schema, newer: &Schema) -> Vec<Incompatibility> {
    let mut comparison = Comparison { older: names(older), newer: names(newer), seen: Vec::new(), found: Vec::new() };
    comparison.schemas(older, newer, "");
    comparison.found
}

type Names<'a> = HashMap<String, &'a Schema>;

struct Comparison<'a> {
    older: Names<'a>,
    newer: Names<'a>,
    /// Pairs of records under comparison or done: records may hold themselves.
    seen: Vec<(String, String)>,
    found: Vec<Incompatibility>,
}

impl<'a> Comparison<'a> {
    fn found(&mut self, field: &str, reason: impl Into<String>) {
        // The schema as a whole has no name of its own.
        let field = if field.is_empty() { "." } else { field };
        self.found.push(Incompatibility { field: field.into(), reason: reason.into() });
    }

    fn schemas(&mut self, older: &'a Schema, newer: &'a Schema, path: &str) {
        let (older, newer) = (resolve(&self.older, older), resolve(&self.newer, newer));
        match (older, newer) {
            (Schema::Record(old), Schema::Record(new)) => self.records(old, new, path),
            (Schema::Array(old), Schema::Array(new)) => self.schemas(&old.items, &new.items, &format!("{path}[]")),
            (Schema::Map(old), Schema::Map(new)) => self.schemas(&old.types, &new.types, &format!("{path}{{}}")),
            (Schema::Enum(old), Schema::Enum(new)) => self.enums(old, new, path),
            (Schema::Union(old), Schema::Union(new)) => self.branches(old.variants(), new.variants(), path),
            (Schema::Union(old), new) => self.branches(old.variants(), std::slice::from_ref(new), path),
            (old, Schema::Union(new)) => self.branches(std::slice::from_ref(old), new.variants(), path),
            (old, new) => {
                let (old, new) = (describe(old), describe(new));
                if old != new {
                    self.found(path, format!("type changed from {old} to {new}"));
                }
            }
        }
    }

    fn records(&mut self, older: &'a RecordSchema, newer: &'a RecordSchema, path: &str) {
        let pair = (older.name.fullname(None), newer.name.fullname(None));
        if self.seen.contains(&pair) {
            return;
        }
        if older.name.name() != newer.name.name() {
            self.found(path, format!("record renamed from {} to {}", older.name.name(), newer.name.name()));
        }
        self.seen.push(pair);
        for old in &older.fields {
            let path = join(path, &old.name);
            match newer.fields.iter().find(|new| new.name == old.name) {
                Some(new) => self.schemas(&old.schema, &new.schema, &path),
                None if old.default.is_none() => {
                    self.found(&path, "removed without default: readers of the older version require it");
                }
                None => {}
            }
        }
        for new in newer.fields.iter().filter(|new| older.fields.iter().all(|old| old.name != new.name)) {
            if new.default.is_none() {
                self.found(&join(path, &new.name), "added without default: events of the older version don't have it");
            }
        }
    }

    fn enums(&mut self, older: &EnumSchema, newer: &EnumSchema, path: &str) {
        if older.name.name() != newer.name.name() {
            self.found(path, format!("enum renamed from {} to {}", older.name.name(), newer.name.name()));
        }
        // The reader's own default stands for a symbol that it doesn't know.
        for symbol in older.symbols.iter().filter(|symbol| newer.default.is_none() && !newer.symbols.contains(symbol)) {
            self.found(
                path,
                format!("enum symbol {symbol} removed: older events hold it, and the newer enum has no default"),
            );
        }
        for symbol in newer.symbols.iter().filter(|symbol| older.default.is_none() && !older.symbols.contains(symbol)) {
            self.found(path, format!("enum symbol {symbol} added: readers of the older version don't know it, and its enum has no default"));
        }
    }

    /// Each branch needs its counterpart: what one side writes, the other must read.
    fn branches(&mut self, older: &'a [Schema], newer: &'a [Schema], path: &str) {
        let mut removed = Vec::new();
        for old in older {
            match counterpart((&self.older, old), (&self.newer, newer)) {
                Some(new) => self.schemas(old, new, path),
                None => removed.push(resolve(&self.older, old)),
            }
        }
        let added: Vec<_> = newer
            .iter()
            .filter(|new| counterpart((&self.newer, new), (&self.older, older)).is_none())
            .map(|new| resolve(&self.newer, new))
            .collect();
        match (&removed[..], &added[..]) {
            ([old], [new]) => self.found(path, format!("type changed from {} to {}", describe(old), describe(new))),
            (removed, added) => {
                for old in removed {
                    let reason = match old {
                        Schema::Null => "no longer nullable: older events may hold null".to_owned(),
                        old => format!("{} no longer allowed: older events may hold it", describe(old)),
                    };
                    self.found(path, reason);
                }
                for new in added {
                    let reason = match new {
                        Schema::Null => "made nullable: readers of the older version don't take null".to_owned(),
                        new => format!("{} now allowed: readers of the older version don't take it", describe(new)),
                    };
                    self.found(path, reason);
                }
            }
        }
    }
}

/// What is wrong with the marks of personal data: `"personal": true, "subject": "<field with the person's id>"`.
///
/// The subject is a field of the top record also when the personal field is nested: one person, one key, one place to look.
fn unmarked(file: &SchemaFile) -> Vec<Finding> {
    let Schema::Record(top) = &file.schema else { return Vec::new() };
    let mut findings = Vec::new();
    each_field(top, "", &mut |field, path| {
        let marks = &field.custom_attributes;
        let reason = match (marks.get("personal"), marks.get("subject")) {
            (None, None) => return,
            (None, Some(_)) => "has a `subject` but not `\"personal\": true`".to_owned(),
            (Some(personal), _) if personal != &serde_json::Value::Bool(true) => {
                "`personal` must be true, or left out".to_owned()
            }
            (Some(_), None) => {
                "is personal, but has no `subject`: name the field that holds the person's id".to_owned()
            }
            (Some(_), Some(subject)) => {
                let holder = top.fields.iter().find(|holder| Some(&*holder.name) == subject.as_str());
                match holder.map(|holder| &holder.schema) {
                    Some(Schema::String | Schema::Uuid(_)) => return,
                    Some(other) => format!("its subject {subject} must be a string, not {}", describe(other)),
                    None => format!("its subject {subject} isn't a field of {}", top.name.name()),
                }
            }
        };
        findings.push(Finding::Personal { path: file.path.clone(), field: path.to_owned(), reason });
    });
    findings
}

/// Visits the fields of a record and of those in it, once a definition: a reference adds none.
fn each_field<'a>(record: &'a RecordSchema, path: &str, visit: &mut impl FnMut(&'a RecordField, &str)) {
    for field in &record.fields {
        let path = join(path, &field.name);
        visit(field, &path);
        each_record(&field.schema, &path, &mut |record, path| each_field(record, path, visit));
    }
}

fn each_record<'a>(schema: &'a Schema, path: &str, visit: &mut dyn FnMut(&'a RecordSchema, &str)) {
    match schema {
        Schema::Record(record) => visit(record, path),
        Schema::Array(array) => each_record(&array.items, &format!("{path}[]"), visit),
        Schema::Map(map) => each_record(&map.types, &format!("{path}{{}}"), visit),
        Schema::Union(union) => union.variants().iter().for_each(|branch| each_record(branch, path, visit)),
        _ => {}
    }
}

/// The named types that a schema defines, for the places that only refer to them.
fn names(schema: &Schema) -> Names<'_> {
    fn collect<'a>(schema: &'a Schema, names: &mut Names<'a>) {
        if let (Some(name), false) = (schema.name(), matches!(schema, Schema::Ref { .. })) {
            names.insert(name.fullname(None), schema);
        }
        match schema {
            Schema::Record(record) => record.fields.iter().for_each(|field| collect(&field.schema, names)),
            Schema::Array(array) => collect(&array.items, names),
            Schema::Map(map) => collect(&map.types, names),
            Schema::Union(union) => union.variants().iter().for_each(|branch| collect(branch, names)),
            _ => {}
        }
    }
    let mut names = HashMap::new();
    collect(schema, &mut names);
    names
}

/// The branch of a union that stands for a branch of the other version's.
fn counterpart<'a>(
    (names, branch): (&Names<'a>, &'a Schema),
    (others, branches): (&Names<'a>, &'a [Schema]),
) -> Option<&'a Schema> {
    let wanted = key(resolve(names, branch));
    branches.iter().find(|other| key(resolve(others, other)) == wanted)
}

fn resolve<'a>(names: &Names<'a>, schema: &'a Schema) -> &'a Schema {
    match schema {
        Schema::Ref { name } => names.get(&name.fullname(None)).copied().unwrap_or(schema),
        other => other,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What makes two branches of unions counterparts: the kind, and the name of a type that has one.
fn key(schema: &Schema) -> (SchemaKind, Option<&str>) {
    (schema.into(), schema.name().map(|name| name.name()))
}

/// A type for messages, and for equality of those that hold no other.
fn describe(schema: &Schema) -> String {
    match schema {
        Schema::Record(record) => format!("record {}", record.name.name()),
        Schema::Enum(schema) => format!("enum {}", schema.name.name()),
        Schema::Fixed(fixed) => format!("fixed {} of {} bytes", fixed.name.name(), fixed.size),
        Schema::Ref { name } => name.name().to_owned(),
        Schema::Array(_) => "array".into(),
        Schema::Map(_) => "map".into(),
        Schema::Union(union) => describe_union(union),
        // These are attributes of another type in the file, and are told as they are written there.
        logical => match serde_json::to_value(logical) {
            Ok(serde_json::Value::String(name)) => name,
            Ok(serde_json::Value::Object(object)) => {
                let text = |key: &str| object.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
                let digits = |key: &str| object.get(key).map(|value| format!(" {key} {value}")).unwrap_or_default();
                format!("{} ({}{}{})", text("type"), text("logicalType"), digits("precision"), digits("scale"))
            }
            _ => format!("{:?}", SchemaKind::from(logical)).to_lowercase(),
        },
    }
}

fn describe_union(union: &UnionSchema) -> String {
    union.variants().iter().map(describe).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
#[path = "compatibility_tests.rs"]
mod tests;
