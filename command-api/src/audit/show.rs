//! Steps for people.

use serde_json::Value as Json;

use super::Step;

/// One line: position, type, time, and who and what is behind it.
#[must_use]
pub fn describe(step: &Step) -> String {
    let event = &step.event;
    let at = event.occurred_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let mut line = format!("{:>6}  {at}  {}", event.position, event.event_type);
    if event.schema_version > 1 {
        line.push_str(&format!(" v{}", event.schema_version));
    }
    for (name, label) in [("user_id", "by"), ("correlation_id", "correlation"), ("command_id", "command")] {
        if let Some(value) = event.metadata.get(name).and_then(Json::as_str) {
            line.push_str(&format!("  {label} {value}"));
        }
    }
    line
}

/// What a step changed: a line for each field that is another than before, by its path.
#[must_use]
pub fn difference(before: &Json, after: &Json) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, after, &mut lines);
    lines
}

fn compare(path: &str, before: &Json, after: &Json, lines: &mut Vec<String>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (before, after) if before == after => {}
        (Json::Object(old), Json::Object(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(gone) {
                let side = |object: &serde_json::Map<String, Json>| object.get(name).cloned().unwrap_or_default();
                compare(&at(name), &side(old), &side(new), lines);
            }
        }
        (Json::Null, Json::Object(_)) => compare(path, &Json::Object(serde_json::Map::new()), after, lines),
        (Json::Array(old), Json::Array(new)) => {
            for n in 0..old.len().max(new.len()) {
                let side = |list: &[Json]| list.get(n).cloned().unwrap_or_default();
                compare(&format!("{path}[{n}]"), &side(old), &side(new), lines);
            }
        }
        (Json::Null, after) => lines.push(format!("{path}: {after}")),
        (before, after) => lines.push(format!("{path}: {before} → {after}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_shown() {
        let before = json!({"a": 1, "b": {"c": [1, 2], "d": null}, "gone": true});
        let after = json!({"a": 1, "b": {"c": [1, 3, 4], "d": "x"}, "gone": null});
        let lines = ["b.c[1]: 2 → 3", "b.c[2]: 4", "b.d: \"x\"", "gone: true → null"];
        assert_eq!(difference(&before, &after), lines);
        assert_eq!(difference(&Json::Null, &json!({"a": 1, "b": null})), ["a: 1"]);
        assert!(difference(&after, &after).is_empty());
    }
}
