//! Documents as lines of a bulk request and back, and what the server says of each item.

use super::super::{Outcome, SinkError, Write, reserved_name};
use super::client::{broken, is_passing, reason, unavailable};
use super::config::DELETED;
use crate::apply::Stored;
use crate::expr::{Kind, json};
use serde_json::{Value as Json, json};
use std::ops::Range;

/// A bulk request's size: large enough to pay for the round trip, far below `http.max_content_length` (100 MB).
const BULK_BYTES_MAX: usize = 5 * 1024 * 1024;
const BULK_ITEMS_MAX: usize = 1000;
/// The server's limit for a document's id.
const ID_BYTES_MAX: usize = 512;

/// The two lines of a write.
///
/// # Errors
/// The reason for which the server would refuse the whole request instead of this item.
pub(super) fn to_lines(write: &Write) -> Result<String, String> {
    if write.key.is_empty() || write.key.len() > ID_BYTES_MAX {
        return Err(format!("its key has {} bytes; 1 to {ID_BYTES_MAX} are allowed", write.key.len()));
    }
    if let Some(reason) = write.fields.as_ref().and_then(reserved_name) {
        return Err(reason);
    }
    let source = match &write.fields {
        Some(fields) => Json::Object(json::object_to_json(fields)),
        None => json!({ DELETED: true }),
    };
    let action = json!({ "index": { "_id": write.key, "version": write.version, "version_type": "external" } });
    Ok(format!("{action}\n{source}\n"))
}

/// Cuts items by bytes and count; an item too large for a request of its own size goes alone.
pub(super) fn requests(sizes: &[usize]) -> Vec<Range<usize>> {
    let mut requests = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, size) in sizes.iter().enumerate() {
        if i > start && (bytes + size > BULK_BYTES_MAX || i - start == BULK_ITEMS_MAX) {
            requests.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    if start < sizes.len() {
        requests.push(start..sizes.len());
    }
    requests
}

/// What a bulk item came to. An error when the whole call has to be made again, or never again.
pub(super) fn outcome(item: &Json) -> Result<Outcome, SinkError> {
    let Some(item) = item.as_object().and_then(|actions| actions.values().next()) else {
        return Err(unavailable("a bulk item without an answer"));
    };
    let status = item["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(500);
    match status {
        200..=299 => Ok(Outcome::Written),
        409 => Ok(Outcome::Stale),
        _ if is_passing(status, item) => Err(unavailable(format!("{status}: {}", reason(item)))),
        // No such index or alias: no document's fault.
        404 => Err(broken(format!("{}; was the index removed? start again to fill it anew", reason(item)))),
        401 | 403 => Err(broken(reason(item))),
        _ => Ok(Outcome::Rejected(reason(item))),
    }
}

/// One document of a `_mget`.
pub(super) fn from_found(found: Json, kind: &Kind) -> Result<Option<Stored>, SinkError> {
    let Json::Object(mut found) = found else { return Err(unavailable("a document without an answer")) };
    if let Some(error) = found.get("error") {
        let missing = error["type"] == "index_not_found_exception";
        let said = reason(error);
        return Err(if missing { broken(format!("{said}; start again to create it")) } else { unavailable(said) });
    }
    if found.get("found") != Some(&Json::Bool(true)) {
        return Ok(None);
    }
    let version = found.get("_version").and_then(Json::as_i64).unwrap_or_default();
    match found.remove("_source") {
        Some(Json::Object(source)) if source.get(DELETED) == Some(&Json::Bool(true)) => {
            Ok(Some(Stored { version, fields: None }))
        }
        Some(Json::Object(source)) => Ok(Some(Stored { version, fields: Some(json::object_from_json(source, kind)) })),
        _ => Err(broken("a document without `_source`; it must not be switched off")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_by_bytes_and_count() {
        assert_eq!(requests(&[]), Vec::<Range<usize>>::new());
        assert_eq!(requests(&[BULK_BYTES_MAX * 2, 1, 1]), [0..1, 1..3]);
        assert_eq!(requests(&vec![1; 2500]), [0..1000, 1000..2000, 2000..2500]);
    }

    #[test]
    fn each_status_has_its_meaning() {
        let item =
            |status: u16, kind: &str| json!({"index": {"status": status, "error": {"type": kind, "reason": "r"}}});
        assert_eq!(outcome(&json!({"index": {"status": 201}})).unwrap(), Outcome::Written);
        assert_eq!(outcome(&item(409, "version_conflict_engine_exception")).unwrap(), Outcome::Stale);
        assert_eq!(outcome(&item(400, "mapper")).unwrap(), Outcome::Rejected("mapper: r".into()));
        assert!(matches!(outcome(&item(429, "es_rejected_execution_exception")), Err(SinkError::Unavailable { .. })));
        assert!(matches!(outcome(&item(403, "cluster_block_exception")), Err(SinkError::Unavailable { .. })));
        assert!(matches!(outcome(&item(404, "index_not_found_exception")), Err(SinkError::Broken { .. })));
    }

    #[test]
    fn a_key_that_would_fail_the_whole_request_is_rejected_alone() {
        let write = Write { key: "x".repeat(513), version: 1, fields: None };
        assert!(to_lines(&write).is_err());
    }
}
