//! What changes for readers: the documents of two generations that stand at the same place, by their keys.

use crate::control::Verify;
use crate::expr::{Object, json};
use crate::sink::{Sink, SinkError, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: usize = 1_000;
/// Examples that are kept, one for each field at first.
const EXAMPLES_MAX: usize = 8;

/// How two generations differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Documents of the live one.
    pub live: u64,
    /// Documents of the other.
    pub shadow: u64,
    /// Documents that were compared.
    pub compared: u64,
    /// Of these, those that differ in some field.
    pub differing: u64,
    /// How many differ in each field.
    pub fields: BTreeMap<String, u64>,
    /// Keys that the live one has and the other hasn't, of those compared.
    pub missing: u64,
    /// Keys that the other has and the live one hasn't, of those compared.
    pub extra: u64,
    /// Some of the differences.
    pub examples: Vec<Example>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The document's key.
    pub key: String,
    /// The field; none where the whole document is missing on a side.
    pub field: Option<String>,
    /// What the live one has.
    pub live: Json,
    /// What the other has.
    pub shadow: Json,
}

impl Difference {
    fn documents(&mut self, key: &str, live: Option<&Object>, shadow: Option<&Object>) {
        self.compared += 1;
        // As most are, and readers wait meanwhile.
        if live == shadow {
            return;
        }
        let (live, shadow) = match (live, shadow) {
            (Some(live), Some(shadow)) => (json::object_to_json(live), json::object_to_json(shadow)),
            (None, None) => return,
            (live, shadow) => {
                let count = if live.is_some() { &mut self.missing } else { &mut self.extra };
                *count += 1;
                if *count == 1 {
                    let whole = |side: Option<&Object>| side.map_or(Json::Null, |o| json::object_to_json(o).into());
                    let example =
                        Example { key: key.to_owned(), field: None, live: whole(live), shadow: whole(shadow) };
                    self.examples.push(example);
                }
                return;
            }
        };
        let names: BTreeSet<&String> = live.keys().chain(shadow.keys()).collect();
        let side = |of: &serde_json::Map<String, Json>, name: &str| of.get(name).cloned().unwrap_or(Json::Null);
        let mut differs = false;
        for name in names {
            let (live, shadow) = (side(&live, name), side(&shadow, name));
            if live == shadow {
                continue;
            }
            differs = true;
            let count = self.fields.entry(name.clone()).or_default();
            *count += 1;
            if *count == 1 && self.examples.len() < EXAMPLES_MAX {
                self.examples.push(Example { key: key.to_owned(), field: Some(name.clone()), live, shadow });
            }
        }
        self.differing += u64::from(differs);
    }

    /// What speaks against the swap: differences that weren't announced. With `announced` none, all were.
    #[must_use]
    pub fn refusal(&self, announced: Option<&[String]>) -> Option<String> {
        let announced = announced?;
        let mut said: Vec<String> = self
            .fields
            .iter()
            .filter(|(field, _)| !announced.contains(field))
            .map(|(field, count)| format!("`{field}` differs in {count} of {} documents", self.compared))
            .collect();
        if self.missing > 0 || (self.live > self.shadow && self.live - self.shadow > 0) {
            said.push(format!("{} documents are missing", self.missing.max(self.live.saturating_sub(self.shadow))));
        }
        if self.extra > 0 || self.shadow > self.live {
            said.push(format!("{} documents are new", self.extra.max(self.shadow.saturating_sub(self.live))));
        }
        if said.is_empty() {
            return None;
        }
        let example = self.examples.iter().find(|e| e.field.as_ref().is_none_or(|field| !announced.contains(field)));
        Some(format!(
            "{}, which the plan didn't announce{}",
            said.join(", "),
            example.map(for_example).unwrap_or_default()
        ))
    }

    /// For people, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (field, count) in &self.fields {
            let example = self.examples.iter().find(|e| e.field.as_ref() == Some(field));
            let example = example.map(for_example).unwrap_or_default();
            lines.push(format!("`{field}` differs in {count} of {} documents{example}", self.compared));
        }
        if self.missing > 0 {
            lines.push(format!("{} documents are missing", self.missing));
        }
        if self.extra > 0 {
            lines.push(format!("{} documents are new", self.extra));
        }
        if self.live != self.shadow {
            lines.push(format!("{} documents before, {} after", self.live, self.shadow));
        }
        if lines.is_empty() {
            lines.push(format!("nothing differs in {} documents of {}", self.compared, self.live));
        }
        lines
    }
}

fn for_example(example: &Example) -> String {
    let short = |value: &Json| value.to_string().chars().take(120).collect::<String>();
    format!("; for example `{}`: {} → {}", example.key, short(&example.live), short(&example.shadow))
}

/// Chooses keys of a generation, evenly over all of its documents. To be done before both stand still: it takes a while.
pub(super) async fn sample(sink: &dyn Sink, count: u32) -> Result<Vec<String>, SinkError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let every = (sink.count().await? / u64::from(count)).max(1);
    let (mut keys, mut cursor, mut number) = (Vec::new(), None, 0_u64);
    loop {
        let page = sink.browse(cursor.as_deref(), PAGE).await?;
        for (key, _) in page.documents {
            if number.is_multiple_of(every) && keys.len() < count as usize {
                keys.push(key);
            }
            number += 1;
        }
        cursor = page.next;
        if cursor.is_none() || keys.len() >= count as usize {
            return Ok(keys);
        }
    }
}

/// Compares two generations that stand at the same place. `keys`: those to be compared, if not all are.
///
/// # Errors
/// A store that doesn't answer.
pub async fn compare(
    live: &dyn Sink,
    shadow: &dyn Sink,
    verify: Verify,
    keys: &[String],
) -> Result<Difference, SinkError> {
    let mut difference =
        Difference { live: live.count().await?, shadow: shadow.count().await?, ..Difference::default() };
    if verify != Verify::All {
        for keys in keys.chunks(PAGE) {
            let (of_live, of_shadow) = tokio::try_join!(live.fetch(keys), shadow.fetch(keys))?;
            for ((key, live), shadow) in keys.iter().zip(of_live).zip(of_shadow) {
                difference.documents(key, fields(live.as_ref()), fields(shadow.as_ref()));
            }
        }
        return Ok(difference);
    }
    let mut seen = BTreeSet::new();
    let mut page = live.browse(None, PAGE).await?;
    loop {
        page.documents.retain(|(key, _)| seen.insert(key.clone()));
        let keys: Vec<String> = page.documents.iter().map(|(key, _)| key.clone()).collect();
        let next = async {
            let Some(cursor) = page.next.as_deref() else { return Ok(None) };
            live.browse(Some(cursor), PAGE).await.map(Some)
        };
        let (others, next) = tokio::try_join!(shadow.fetch(&keys), next)?;
        for ((key, live), shadow) in page.documents.iter().zip(others) {
            difference.documents(key, live.fields.as_deref(), fields(shadow.as_ref()));
        }
        let Some(next) = next else { break };
        page = next;
    }
    // Only then there can be keys that the live one hasn't.
    if difference.shadow + difference.missing > difference.live {
        let mut cursor = None;
        loop {
            let mut page = shadow.browse(cursor.as_deref(), PAGE).await?;
            page.documents.retain(|(key, _)| seen.insert(key.clone()));
            for (key, stored) in &page.documents {
                difference.documents(key, None, stored.fields.as_deref());
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(difference)
}

fn fields(stored: Option<&Stored>) -> Option<&Object> {
    stored.and_then(|stored| stored.fields.as_deref())
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
