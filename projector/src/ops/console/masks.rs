//! What is personal, shown as the read model or the event's schema says.

use crate::projection::Mask;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A document for those of whom nobody knows what they may read.
pub(super) fn masked(mut document: Json, masks: &BTreeMap<String, Mask>) -> Json {
    for (path, mask) in masks {
        let path: Vec<&str> = path.split('.').map(|name| name.trim_end_matches("[]")).collect();
        hide(&mut document, &path, *mask);
    }
    document
}

/// Data of an event whose personal fields its schema names.
pub(super) fn without_personal<'a>(data: Json, personal: impl Iterator<Item = &'a String>) -> Json {
    masked(data, &personal.map(|path| (path.clone(), Mask::Hide)).collect())
}

fn hide(value: &mut Json, path: &[&str], mask: Mask) {
    match (value, path) {
        (Json::Array(items), _) => items.iter_mut().for_each(|item| hide(item, path, mask)),
        (Json::Object(fields), [name, rest @ ..]) => {
            if let Some(field) = fields.get_mut(*name) {
                hide(field, rest, mask);
            }
        }
        (value, []) if !value.is_null() => match mask {
            Mask::Show => {}
            Mask::Hide => *value = Json::from("(hidden)"),
            Mask::Initial => {
                let first = value.as_str().and_then(|text| text.chars().next());
                *value = first.map_or_else(|| Json::from("(hidden)"), |first| format!("{first}…").into());
            }
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_masked_is_not_shown() {
        let masks =
            [("name", Mask::Initial), ("readers.mail", Mask::Hide), ("shelf", Mask::Show), ("home", Mask::Hide)];
        let masks = masks.map(|(path, mask)| (path.to_owned(), mask)).into();
        let document = json!({
            "name": "Émile", "shelf": "A1", "readers": [{"mail": "a@b.example", "n": 1}, {"mail": null}],
            "home": {"street": "Main St"},
        });
        let shown = masked(document, &masks);
        assert_eq!(
            shown,
            json!({"name": "É…", "shelf": "A1", "readers": [{"mail": "(hidden)", "n": 1}, {"mail": null}], "home": "(hidden)"})
        );
        let personal = ["mail".to_owned()];
        let data = without_personal(json!({"mail": "a@b.example", "book": "b"}), personal.iter());
        assert_eq!(data, json!({"mail": "(hidden)", "book": "b"}));
    }
}
