//! The mapping: inferred from the document's type, refined by the projection.

use super::super::shape::{Shape, fields, shape};
use crate::expr::Kind;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Text is a keyword up to this length; longer ones are stored but not indexed, since the server would refuse them.
const KEYWORD_MAX: u32 = 8_191;

/// The index's mapping for documents of type `document`, with `refined` fields (by path, `products.name`) put over it.
pub(super) fn mapping(document: &Kind, refined: &BTreeMap<String, Json>, generation: &str) -> Json {
    let mut properties = properties(document);
    for (path, refinement) in refined {
        let steps: Vec<&str> = path.split('.').collect();
        refine(&mut properties, &steps, refinement);
    }
    properties.extend(hidden());
    json!({"dynamic": "strict", "_meta": {"generation": generation}, "properties": properties})
}

/// The fields of our own.
pub(super) fn hidden() -> Map<String, Json> {
    let fields = [
        ("_deleted", json!({"type": "boolean"})),
        ("_expires", json!({"type": "date"})),
        // A keyword takes 32 KiB.
        ("_state", opaque()),
        ("_parents", json!({"type": "keyword"})),
        // By which children are sorted: a server needn't be able to sort by `_id`.
        ("_key", json!({"type": "keyword"})),
    ];
    fields.map(|(name, mapping)| (name.to_owned(), mapping)).into_iter().collect()
}

fn properties(kind: &Kind) -> Map<String, Json> {
    fields(kind).map(|(name, kind)| (name, field(kind))).collect()
}

fn field(kind: &Kind) -> Json {
    match shape(kind) {
        Shape::Text => json!({"type": "keyword", "ignore_above": KEYWORD_MAX}),
        Shape::Integer => json!({"type": "long"}),
        Shape::Float => json!({"type": "double"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Time => json!({"type": "date"}),
        // Fields that aren't known can't be mapped: such an object is stored, but not searched.
        Shape::Object(fields) if fields.unknown_kind().contains_any_defined() => opaque(),
        Shape::Object(_) => json!({"properties": properties(kind)}),
        // An array of a type is mapped as the type.
        Shape::List(items) => field(&items),
        Shape::Mixed => opaque(),
    }
}

/// Takes any JSON, and doesn't look into it.
fn opaque() -> Json {
    json!({"type": "object", "enabled": false})
}

fn refine(properties: &mut Map<String, Json>, steps: &[&str], refinement: &Json) {
    match steps {
        [] => {}
        [last] => _ = properties.insert((*last).to_owned(), refinement.clone()),
        [first, rest @ ..] => {
            let inner = properties.entry((*first).to_owned()).or_insert_with(|| json!({}));
            if !inner["properties"].is_object() {
                *inner = json!({"properties": {}});
            }
            if let Some(inner) = inner["properties"].as_object_mut() {
                refine(inner, rest, refinement);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Collection;

    #[test]
    fn types_become_mappings_and_paths_refine_them() {
        let line =
            Kind::object(Collection::empty().with_known("name", Kind::bytes()).with_known("price", Kind::integer()));
        let document = Collection::empty()
            .with_known("id", Kind::bytes())
            .with_known("at", Kind::timestamp().or_null())
            .with_known("lines", Kind::array(Collection::from_unknown(line)).or_undefined());
        let refined = BTreeMap::from([("lines.name".to_owned(), json!({"type": "text"}))]);
        let mapping = mapping(&Kind::object(document), &refined, "orders-g1");
        assert_eq!(mapping["properties"]["at"], json!({"type": "date"}));
        assert_eq!(
            mapping["properties"]["lines"]["properties"],
            json!({"name": {"type": "text"}, "price": {"type": "long"}})
        );
        assert_eq!(mapping["_meta"]["generation"], "orders-g1");
    }
}
