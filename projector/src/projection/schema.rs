//! The JSON Schema of a projection's file, by which editors complete and check it. It is read off the types that the file is
//! parsed into: their fields, which of them may be left out, and their doc comments.

use serde_json::{Map, Value as Json, json};

/// The files with the types.
const SOURCES: [&str; 3] = [include_str!("model.rs"), include_str!("query.rs"), include_str!("test.rs")];
/// The type of the whole file.
const ROOT: &str = "Projection";

/// The JSON Schema.
///
/// # Errors
/// A type that it has no words for: teach [`of_type`] about it.
pub fn schema() -> Result<Json, String> {
    let mut definitions = Map::new();
    for source in SOURCES {
        for (name, definition) in types(source.split("#[cfg(test)]").next().unwrap_or_default())? {
            definitions.insert(name, definition);
        }
    }
    let mut reached = vec![ROOT.to_owned()];
    let mut next = 0;
    while let Some(name) = reached.get(next).cloned() {
        let definition = definitions.get(&name).ok_or_else(|| format!("there is no type {name}"))?;
        for other in references(definition) {
            if !reached.contains(&other) {
                reached.push(other);
            }
        }
        next += 1;
    }
    definitions.retain(|name, _| reached.contains(name));
    let mut schema = definitions.remove(ROOT).unwrap_or_default();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "A projection".into();
    schema["$defs"] = Json::Object(definitions);
    Ok(schema)
}

fn references(definition: &Json) -> Vec<String> {
    match definition {
        Json::Object(map) => map
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("$ref", Json::String(path)) => vec![path.trim_start_matches("#/$defs/").to_owned()],
                (_, value) => references(value),
            })
            .collect(),
        Json::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// The types that a source declares, each as a schema.
fn types(source: &str) -> Result<Vec<(String, Json)>, String> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    let (mut docs, mut attributes) = (Vec::new(), String::new());
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else {
            let is_input = attributes.contains("Deserialize");
            let name = |rest: &str| rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            let body = |lines: &mut std::str::Lines<'_>| {
                lines.take_while(|line| *line != "}").map(str::to_owned).collect::<Vec<_>>()
            };
            if let Some(rest) = line.strip_prefix("pub struct ").filter(|_| is_input) {
                let all_optional = attributes.contains("deny_unknown_fields, default");
                let definition = of_struct(&docs.join(" "), &body(&mut lines), all_optional)
                    .map_err(|e| format!("{}: {e}", name(rest)))?;
                found.push((name(rest), definition));
            } else if let Some(rest) = line.strip_prefix("pub enum ").filter(|_| is_input) {
                let is_untagged = attributes.contains("untagged");
                found.push((name(rest), of_enum(&docs.join(" "), &body(&mut lines), is_untagged)?));
            }
            docs.clear();
            attributes.clear();
        }
    }
    Ok(found)
}

fn of_struct(doc: &str, body: &[String], all_optional: bool) -> Result<Json, String> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let (mut docs, mut attributes) = (Vec::new(), String::new());
    for line in body.iter().map(|line| line.trim()) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else if let Some((name, kind)) =
            line.trim_start_matches("pub(super) ").trim_start_matches("pub ").split_once(": ")
        {
            let renamed = attributes.split_once("rename = \"").and_then(|(_, rest)| rest.split('"').next());
            let name = renamed.unwrap_or(name).to_owned();
            let mut schema = of_type(kind.trim_end_matches(','))?;
            schema["description"] = docs.join(" ").into();
            if !attributes.contains("default") && !all_optional {
                required.push(Json::from(name.as_str()));
            }
            properties.insert(name, schema);
            docs.clear();
            attributes.clear();
        }
    }
    Ok(json!({
        "description": doc, "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    }))
}

/// Variants without content are texts, those with some are maps of one entry, or that content itself.
fn of_enum(doc: &str, body: &[String], is_untagged: bool) -> Result<Json, String> {
    let (mut texts, mut maps, mut docs): (Vec<Json>, _, Vec<String>) = (Vec::new(), Vec::new(), Vec::new());
    for line in body.iter().map(|line| line.trim()) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim().to_owned());
            continue;
        }
        let variant = line.trim_end_matches(',');
        let (name, content) =
            variant.split_once('(').map_or((variant, None), |(name, rest)| (name, Some(rest.trim_end_matches(')'))));
        let name = name.to_lowercase();
        match content {
            Some(content) if is_untagged => maps.push(of_type(content)?),
            Some(content) => maps.push(json!({
                "description": docs.join(" "), "type": "object", "required": [name], "additionalProperties": false,
                "properties": { name.clone(): reference(content) },
            })),
            // As YAML's null, too.
            None if name == "null" => texts.extend([Json::Null, name.into()]),
            None => texts.push(name.into()),
        }
        docs.clear();
    }
    Ok(if maps.is_empty() {
        json!({"description": doc, "enum": texts})
    } else {
        json!({"description": doc, "oneOf": maps})
    })
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// A Rust type as it is in YAML.
fn of_type(kind: &str) -> Result<Json, String> {
    let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<").or_else(|| inner("Spanned<")) {
        return of_type(inner);
    }
    if let Some(inner) = inner("Vec<") {
        return Ok(json!({"type": "array", "items": of_type(inner)?}));
    }
    if let Some(inner) = inner("BTreeMap<String, ") {
        return Ok(json!({"type": "object", "additionalProperties": of_type(inner)?}));
    }
    Ok(match kind {
        "String" => json!({"type": "string"}),
        "bool" => json!({"type": "boolean"}),
        "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => json!({"type": "integer"}),
        "f64" | "serde_json::Number" => json!({"type": "number"}),
        "Node" | "Json" | "serde_json::Value" => json!({}),
        name if name.chars().all(char::is_alphanumeric) => reference(name),
        other => return Err(format!("no words for the type {other}")),
    })
}
