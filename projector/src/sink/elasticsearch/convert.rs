//! A write as a search document, and the server's answers back.

use super::super::{Outcome, SinkError, Stored, Write};
use super::config::{broken, unavailable};
use crate::expr::json::AsJson;
use crate::expr::{Kind, json};
use chrono::Utc;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value as Json;
use std::sync::Arc;

/// What is stored of a write: its fields, and ours where they are needed; no field has a name like ours.
pub(super) struct Source<'a>(pub(super) &'a Write);

impl Serialize for Source<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(write) = self;
        let mut source = to.serialize_map(None)?;
        match &write.fields {
            Some(fields) => {
                for (name, value) in fields.iter() {
                    source.serialize_entry(name.as_str(), &AsJson(value))?;
                }
            }
            None => source.serialize_entry("_deleted", &true)?,
        }
        if let Some(state) = &write.state {
            source.serialize_entry("_state", &**state)?;
        }
        if let Some(at) = &write.expires.or_else(|| write.is_bare().then(Utc::now)) {
            source.serialize_entry("_expires", &json::time_text(at))?;
        }
        if !write.parents.is_empty() {
            source.serialize_entry("_parents", &write.parents)?;
            source.serialize_entry("_key", &write.key)?;
        }
        source.end()
    }
}

/// What a document is that a load found; none where it found nothing.
pub(super) fn stored(mut doc: Json, document: &Kind) -> Option<Stored> {
    let version = doc["_version"].as_i64()?;
    let Json::Object(mut source) = doc["_source"].take() else { return None };
    let state = source.get("_state").and_then(Json::as_str).map(Into::into);
    let deleted = source.get("_deleted") == Some(&Json::Bool(true));
    source.retain(|name, _| !name.starts_with('_'));
    let fields = (!deleted).then(|| Arc::new(json::object_from_json(source, document)));
    Some(Stored { version, fields, state })
}

/// An item's outcome: the server says 200 to a bulk request with errors inside.
pub(super) fn outcome(item: &Json) -> Result<Outcome, SinkError> {
    let reason = || {
        format!(
            "{}: {}",
            item["error"]["type"].as_str().unwrap_or("error"),
            item["error"]["reason"].as_str().unwrap_or_default()
        )
    };
    match item["status"].as_u64() {
        Some(200 | 201) => Ok(Outcome::Written),
        Some(409) => Ok(Outcome::Stale),
        Some(408 | 429 | 500..) => Err(unavailable(reason())),
        Some(403) if reason().contains("block") => Err(unavailable(reason())),
        Some(400) => Ok(Outcome::Rejected(reason())),
        // No such alias or index: no document's fault.
        Some(404) => Err(broken(format!("{}: was the index removed? start again to fill it anew", reason()))),
        _ => Err(broken(format!("_bulk: {item}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_status_has_its_meaning() {
        let item = |status: u16, kind: &str| json!({"status": status, "error": {"type": kind, "reason": "r"}});
        assert_eq!(outcome(&json!({"status": 201})).unwrap(), Outcome::Written);
        assert_eq!(outcome(&item(409, "version_conflict_engine_exception")).unwrap(), Outcome::Stale);
        assert_eq!(outcome(&item(400, "mapper")).unwrap(), Outcome::Rejected("mapper: r".into()));
        let overloaded =
            [item(429, "rejected_execution"), item(503, "unavailable_shards"), item(403, "cluster_block_exception")];
        for item in overloaded {
            assert!(matches!(outcome(&item), Err(SinkError::Unavailable { .. })), "{item}");
        }
        assert!(matches!(outcome(&item(404, "index_not_found_exception")), Err(SinkError::Broken { .. })));
    }
}
