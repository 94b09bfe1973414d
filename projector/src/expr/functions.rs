//! The functions that programs may call: pure ones only.
//!
//! An allow-list rather than a ban: a function that a later engine adds is not offered until somebody has looked whether it
//! reads the clock, the environment, the network or a source of randomness, any of which would make a replay differ.

use vrl::compiler::Function;

const ALLOWED: &[&str] = &[
    "abs", "append", "array", "assert", "assert_eq", "bool", "boolean", "ceil", "chunks", "compact", "contains",
    "contains_all", "decode_base64", "del", "downcase", "encode_base64", "encode_json", "ends_with", "exists", "filter", "find",
    "flatten", "float", "floor", "for_each", "format_int", "format_number", "format_timestamp", "from_unix_timestamp", "get",
    "includes", "int", "integer", "is_array", "is_boolean", "is_empty", "is_float", "is_integer", "is_null", "is_nullish",
    "is_object", "is_string", "is_timestamp", "join", "keys", "length", "map_keys", "map_values", "match", "md5", "merge", "mod",
    "object", "parse_int", "parse_json", "parse_regex", "parse_timestamp", "pop", "push", "redact", "remove", "replace",
    "round", "set", "sha2", "slice", "sort", "split", "starts_with", "string", "strip_whitespace", "strlen", "tally", "timestamp",
    "to_bool", "to_float", "to_int", "to_string", "to_unix_timestamp", "trim", "truncate", "type_def", "unflatten", "unique", "unnest",
    "upcase", "values", "zip",
];

/// The allowed part of the engine's standard library.
pub(super) fn pure() -> Vec<Box<dyn Function>> {
    vrl::stdlib::all().into_iter().filter(|f| ALLOWED.contains(&f.identifier())).collect()
}
