//! The fields of a search's documents: whether there is one under a path, what it holds, how it is mapped.

use crate::expr::{Kind, distance};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The inferred type with the mapping's refinements.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) document: &'a Kind,
    pub(super) refined: &'a BTreeMap<String, Json>,
}

impl Fields<'_> {
    /// What is wrong with a field's name, if the read model has none under it.
    pub(super) fn unknown(&self, path: &str) -> Option<String> {
        let refined = |known: &String| path == known || path.strip_prefix(known.as_str()).is_some_and(is_inner);
        if self.refined.keys().any(refined) || self.kind(path).is_some() {
            return None;
        }
        let known =
            self.document.as_object().into_iter().flat_map(|fields| fields.known().keys().map(ToString::to_string));
        let nearest = known.min_by_key(|known| distance(known, path)).filter(|known| distance(known, path) <= 2);
        let near = nearest.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
        Some(format!("the read model has no field `{path}`{near}"))
    }

    /// The type of the values under a path; those in lists count one by one.
    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        let kind = path.split('.').try_fold(self.document.clone(), |kind, step| {
            let kind = item(kind);
            let fields = kind.as_object()?;
            let known = fields.known().get(&step.into()).cloned();
            known.or_else(|| fields.unknown_kind().contains_any_defined().then(|| fields.unknown_kind()))
        })?;
        Some(item(kind))
    }

    /// How a field is mapped, where the file says so: the field itself, or one of its other forms (`name.keyword`).
    pub(super) fn mapping(&self, path: &str) -> Option<&Json> {
        self.refined.get(path).or_else(|| {
            let (field, form) = path.rsplit_once('.')?;
            self.refined.get(field)?.get("fields")?.get(form)
        })
    }

    /// The type in a field's mapping, where the file says so.
    pub(super) fn mapped(&self, path: &str) -> Option<&str> {
        self.mapping(path)?.get("type")?.as_str()
    }
}

fn is_inner(rest: &str) -> bool {
    rest.starts_with('.')
}

fn item(mut kind: Kind) -> Kind {
    while kind.as_object().is_none()
        && let Some(items) = kind.as_array()
    {
        kind = items.reduced_kind();
    }
    kind
}
