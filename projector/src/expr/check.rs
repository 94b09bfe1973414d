//! Reads of fields that no type has. The engine lets them pass as null.

use super::rewrite::{self, PROBE, Read, Subject};
use super::{Diagnostic, Kind, Reason, compile};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use vrl::compiler::function::{ArgumentList, Compiled, Example, FunctionCompileContext};
use vrl::compiler::state::TypeState;
use vrl::compiler::value::kind;
use vrl::compiler::{
    Compiler as Engine, Context, Expression, Function, FunctionExpression, Parameter, Resolved, TypeDef,
};
use vrl::parser::Program;
use vrl::path::{OwnedSegment, OwnedValuePath, PathPrefix};
use vrl::value::Value;

/// The reads of a program that nothing can be behind. `after` is the document's type at its end, if it compiles.
pub(super) fn unknown_fields(
    source: &str,
    ast: Program,
    functions: &[Box<dyn Function>],
    state: &TypeState,
    after: Option<&Kind>,
) -> Vec<Diagnostic> {
    let (ast, reads) = rewrite::for_checking(ast);
    let mut config = compile::config();
    let probed = Probed::default();
    config.set_custom(probed.clone());
    // What doesn't compile is probed as far as it goes.
    let compiled = Engine::compile(functions, ast, state, config).ok();
    let probed = probed.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (document, event) = (state.external.target_kind(), state.external.metadata_kind());
    let set = |path: &OwnedValuePath| {
        let assigned = compiled.iter().flat_map(|compiled| &compiled.program.info().target_assignments);
        let mut assigned = assigned;
        assigned.any(|set| set.prefix == PathPrefix::Event && path.segments.starts_with(&set.path.segments))
    };
    let unknown = |(number, read): (usize, &Read)| {
        // What a program sets and takes away again was there when it was taken away.
        if read.by_path && read.of == Subject::Document && set(&read.path) {
            return None;
        }
        let found = probed.get(&i64::try_from(number).unwrap_or(-1));
        let mut kinds: Vec<&Kind> = found.into_iter().collect();
        match read.of {
            Subject::Event => kinds.push(event),
            // What sets it may be what doesn't compile.
            Subject::Document if after.is_none() => return None,
            Subject::Document => kinds.extend([document].into_iter().chain(after)),
            Subject::Variable => {}
        }
        // Of what can't be reached nothing is known.
        let lacks = |kind: &&Kind| !kind.is_never() && kind.at_path(&read.path).is_undefined();
        (!kinds.is_empty() && kinds.iter().all(lacks)).then(|| diagnostic(source, read, kinds[0]))
    };
    reads.iter().enumerate().filter_map(unknown).collect()
}

fn diagnostic(source: &str, read: &Read, kind: &Kind) -> Diagnostic {
    let text = source.get(read.span.clone()).unwrap_or_default();
    let (parent, missing) = deepest(kind, &read.path);
    let known: Vec<String> = parent
        .as_object()
        .map(|fields| fields.known().keys().map(|n| n.as_str().to_owned()).collect())
        .unwrap_or_default();
    let near = known.iter().min_by_key(|name| distance(name, &missing)).filter(|name| distance(name, &missing) <= 3);
    let help = match (near, known.is_empty()) {
        (Some(near), _) => format!("did you mean `{near}`? There are {}", known.join(", ")),
        (None, false) => format!("there are {}", known.join(", ")),
        (None, true) => match read.of {
            Subject::Document => "no program sets it; set it, or ask on purpose: `.field ?? default`".to_owned(),
            _ => format!("what it is read from is {}", parent.clone().without_undefined()),
        },
    };
    Diagnostic {
        message: format!("no type has the field `{text}`"),
        span: read.span.clone(),
        label: "this field doesn't exist".into(),
        help: Some(help),
        reason: if read.of == Subject::Document { Reason::UnsetField } else { Reason::UnknownField },
    }
}

/// The type of the last thing on the path that there is, and the name that it lacks.
fn deepest(kind: &Kind, path: &OwnedValuePath) -> (Kind, String) {
    let mut parent = kind.clone();
    let mut before = OwnedValuePath::root();
    for segment in &path.segments {
        before.segments.push(segment.clone());
        let next = kind.at_path(&before);
        if next.is_undefined() {
            let name = match segment {
                OwnedSegment::Field(name) => name.to_string(),
                OwnedSegment::Index(index) => index.to_string(),
            };
            return (parent, name);
        }
        parent = next;
    }
    (parent, String::new())
}

/// How many letters must be changed, added or left out to make one name the other.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The types of what fields are read from, by the number of the read.
#[derive(Clone, Debug, Default)]
struct Probed(Arc<Mutex<BTreeMap<i64, Kind>>>);

/// Gives its argument, and notes its type when it is compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe;

impl Function for Probe {
    fn identifier(&self) -> &'static str {
        PROBE
    }
    fn usage(&self) -> &'static str {
        ""
    }
    fn category(&self) -> &'static str {
        "Type"
    }
    fn return_kind(&self) -> u16 {
        kind::ANY
    }
    fn examples(&self) -> &'static [Example] {
        &[]
    }
    fn parameters(&self) -> &'static [Parameter] {
        const PARAMETERS: &[Parameter] = &[
            Parameter::required("value", kind::ANY, "What a field is read from."),
            Parameter::required("number", kind::INTEGER, "The read's number."),
        ];
        PARAMETERS
    }
    fn compile(&self, state: &TypeState, ctx: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let value = arguments.required("value");
        let number = arguments.required_literal("number", state)?;
        if let (Value::Integer(number), Some(probed)) = (number, ctx.get_external_context_mut::<Probed>()) {
            let found = value.type_def(state).kind().clone();
            let mut probed = probed.0.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = probed.remove(&number).map_or(found.clone(), |before| before.union(found));
            probed.insert(number, seen);
        }
        Ok(ProbeCall(value).as_expr())
    }
}

#[derive(Clone, Debug)]
struct ProbeCall(Box<dyn Expression>);

impl FunctionExpression for ProbeCall {
    fn resolve(&self, ctx: &mut Context<'_>) -> Resolved {
        self.0.resolve(ctx)
    }
    fn type_def(&self, state: &TypeState) -> TypeDef {
        self.0.type_def(state)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Collection, Compiler};
    use super::*;

    fn event() -> Kind {
        let copy = Collection::empty().with_known("shelf", Kind::bytes()).with_known("fee_cents", Kind::integer());
        let data = Collection::empty()
            .with_known("title", Kind::bytes())
            .with_known("note", Kind::bytes().or_null())
            .with_known("copies", Kind::array(Collection::from_unknown(Kind::object(copy))));
        Kind::object(Collection::empty().with_known("data", Kind::object(data)))
    }

    fn unknown(source: &str) -> Vec<String> {
        let document = Kind::object(Collection::empty().with_known("days", Kind::integer().or_undefined()));
        match Compiler::default().compile(source, &document, &event()) {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(|d| source[d.span.clone()].to_owned()).collect(),
        }
    }

    #[test]
    fn an_unknown_field_is_found_wherever_it_is_read() {
        let wrong = [
            ("x = map_values(%data.copies) -> |c| { c.shelve }", "c.shelve"),
            ("for_each(%data.copies) -> |_i, c| { .n = c.fee }", "c.fee"),
            (".x = filter(%data.copies) -> |_i, c| { c.self == \"A\" }", "c.self"),
            ("data = %data\n.x = data.titel", "data.titel"),
            ("if %data.titel == \"x\" { .x = 1 }", "%data.titel"),
            (".x = [{\"a\": %data.titel}]", "%data.titel"),
            (".x = %data.note.text", "%data.note.text"),
            ("del(.dayz)", ".dayz"),
            (".x = .dayz", ".dayz"),
            ("x = %data.copies[0]\n.x = x.shelve", "x.shelve"),
        ];
        for (source, at) in wrong {
            assert_eq!(unknown(source), [at], "{source}");
        }
    }

    #[test]
    fn what_is_there_or_asked_for_on_purpose_is_no_error() {
        let right = [
            ".x = map_values(%data.copies) -> |c| { c.shelf }",
            "del(.days)",
            ".t = 1\ndel(.t)",
            ".x = %data.genre ?? null",
            ".x = exists(%data.genre)",
            ".x = .days\n.y = .x",
            "x = %data.copies[0]\n.x = x.shelf",
            "parts = split(%data.title, \" \")\n.x = parts[1]",
            ".x = parse_json!(%data.title).a.b",
        ];
        for source in right {
            let found = Compiler::default().compile(
                source,
                &Kind::object(Collection::empty().with_known("days", Kind::integer())),
                &event(),
            );
            assert!(found.is_ok(), "{source}: {:?}", found.err());
        }
    }

    #[test]
    fn a_slip_is_guessed() {
        let document = Kind::object(Collection::empty());
        let found = Compiler::default().compile(".x = %data.titel", &document, &event()).unwrap_err();
        assert_eq!(found[0].help.as_deref(), Some("did you mean `title`? There are copies, note, title"));
        assert_eq!((distance("titel", "title"), distance("a", "a"), distance("", "abc")), (2, 0, 3));
    }
}
