//! Any YAML, with the place of each part: for what people write by hand and a schema types, so that a mistake has its line.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// Any YAML, with the place of each part.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// null, true, 5, 1.5, text.
    Scalar(Json),
    /// A list.
    List(Vec<Spanned<Node>>),
    /// A map, in the order of the file.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// Without the places.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Scalar(scalar) => scalar.clone(),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(name, value)| (name.value.clone(), value.value.to_json()));
                Json::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// The place of what stands at `path`: of a map's entry its name's, which is what a reader looks for.
    #[must_use]
    pub fn place(&self, path: &[String], here: Location) -> Location {
        let Some((step, rest)) = path.split_first() else { return here };
        match self {
            Self::Scalar(_) => here,
            Self::List(items) => {
                let item = step.parse().ok().and_then(|n: usize| items.get(n));
                item.map_or(here, |item| item.value.place(rest, item.defined))
            }
            Self::Map(entries) => {
                let entry = entries.iter().find(|(name, _)| name.value == *step);
                entry.map_or(here, |(name, value)| {
                    let inner = if rest.is_empty() { name.defined } else { value.defined };
                    value.value.place(rest, inner)
                })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Json::Null))
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Json::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}
