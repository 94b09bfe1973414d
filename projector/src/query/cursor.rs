//! Where a list goes on: the values by which the last entry of a page was sorted.
//!
//! A cursor is base64url of `[generation, fingerprint, [value, …]]`. The fingerprint is of the query's path and its other arguments, since under
//! another order or filter the values would mean another place. The values name no field and reach the store as bound values only; a forged one can
//! at most skip entries of its owner's list.

use super::parameters::Arguments;
use super::problem::Problem;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use std::hash::{DefaultHasher, Hash, Hasher};

/// More values than any list is sorted by.
const VALUES_MAX: usize = 16;

/// What a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    generation: i32,
    fingerprint: u64,
}

impl List {
    pub(crate) fn new(generation: i32, path: &str, arguments: &Arguments) -> Self {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        for (name, value) in arguments.iter().filter(|(name, _)| !["page", "size", "cursor"].contains(&name.as_str())) {
            (name, value.to_string()).hash(&mut hasher);
        }
        Self { generation, fingerprint: hasher.finish() }
    }

    /// The cursor behind an entry.
    pub(crate) fn behind(&self, values: &[Json]) -> String {
        URL_SAFE_NO_PAD.encode(json!([self.generation, self.fingerprint, values]).to_string())
    }

    /// The values of a cursor of this list.
    pub(crate) fn read(&self, text: &str) -> Result<Vec<Json>, Problem> {
        let garbled =
            || Problem::parameter("cursor", "`cursor` can't be read; pass it on unchanged, or begin again without it");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| garbled())?;
        let (generation, fingerprint, values): (i32, u64, Vec<Json>) =
            serde_json::from_slice(&bytes).map_err(|_| garbled())?;
        let plain = |value: &Json| !value.is_array() && !value.is_object();
        if values.is_empty() || values.len() > VALUES_MAX || !values.iter().all(plain) {
            return Err(garbled());
        }
        if generation != self.generation {
            let detail =
                "`cursor` is of another generation of the read model, which was rebuilt since; begin again without it";
            return Err(Problem::parameter("cursor", detail));
        }
        if fingerprint != self.fingerprint {
            let detail =
                "`cursor` is of another list; the parameters beside `cursor` and `size` must stay what they were";
            return Err(Problem::parameter("cursor", detail));
        }
        Ok(values)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(generation: i32, arguments: Json) -> List {
        List::new(generation, "/books", arguments.as_object().unwrap())
    }

    #[test]
    fn a_cursor_goes_on_in_its_own_list_only() {
        let own = list(2, json!({"q": "a", "cursor": null, "size": 20}));
        let cursor = own.behind(&[json!(7), json!("b-1"), json!(null)]);
        let next = list(2, json!({"q": "a", "cursor": cursor, "size": 50}));
        assert_eq!(next.read(&cursor).unwrap(), [json!(7), json!("b-1"), json!(null)]);
        let said = |list: List, text: &str| list.read(text).unwrap_err().body()["detail"].to_string();
        assert!(said(list(3, json!({"q": "a"})), &cursor).contains("another generation"));
        assert!(said(list(2, json!({"q": "b"})), &cursor).contains("another list"));
        for garbled in ["", "!", "AAAA", &cursor[..9], &URL_SAFE_NO_PAD.encode("[2,1,[{\"script\":1}]]")] {
            assert!(said(own, garbled).contains("can't be read"), "{garbled}");
        }
    }
}
