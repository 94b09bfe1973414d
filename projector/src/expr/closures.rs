//! Types for what closures do. The engine's own types take a closure to run exactly once and to leave the variables around it as
//! they were, and call what `map_values` makes what it was made from; from wrong types come wrong columns. Here a closure's
//! body is followed until the types around it no longer widen, and lists are lists of any length.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use vrl::compiler::function::{ArgumentList, Closure, Compiled, Example, FunctionCompileContext, closure};
use vrl::compiler::state::{TypeInfo, TypeState};
use vrl::compiler::{
    CompileConfig, Context, Expression, Function, FunctionExpression, Parameter, Resolved, TypeDef, compile_with_state,
};
use vrl::value::Kind;
use vrl::value::kind::Collection;

/// Rounds in which the types around a closure settle; what hasn't by then nests in itself.
const ROUNDS_MAX: usize = 8;
/// Answers that a call keeps.
const ANSWERS: usize = 8;

/// The functions that get other types here.
const TYPED: [&str; 7] = ["append", "array", "filter", "for_each", "map_values", "object", "push"];

/// The engine's functions, with sound types.
pub(super) fn typed(functions: Vec<Box<dyn Function>>) -> Vec<Box<dyn Function>> {
    functions
        .into_iter()
        .map(|inner| if TYPED.contains(&inner.identifier()) { Box::new(Typed { inner }) as _ } else { inner })
        .collect()
}

#[derive(Debug)]
struct Typed {
    inner: Box<dyn Function>,
}

impl Function for Typed {
    fn identifier(&self) -> &'static str {
        self.inner.identifier()
    }
    fn usage(&self) -> &'static str {
        self.inner.usage()
    }
    fn category(&self) -> &'static str {
        self.inner.category()
    }
    fn return_kind(&self) -> u16 {
        self.inner.return_kind()
    }
    fn examples(&self) -> &'static [Example] {
        self.inner.examples()
    }
    fn parameters(&self) -> &'static [Parameter] {
        self.inner.parameters()
    }
    fn closure(&self) -> Option<closure::Definition> {
        self.inner.closure()
    }
    fn compile(&self, state: &TypeState, ctx: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let call = Call {
            name: self.identifier(),
            value: arguments.required("value"),
            more: arguments.optional("item").or_else(|| arguments.optional("items")),
            recursive: arguments.optional("recursive").is_some(),
            closure: arguments.optional_closure().cloned(),
            inner: self.inner.compile(state, ctx, arguments)?,
            known: Arc::default(),
        };
        Ok(Box::new(call))
    }
}

#[derive(Clone, Debug)]
struct Call {
    name: &'static str,
    value: Box<dyn Expression>,
    /// What `push` and `append` add.
    more: Option<Box<dyn Expression>>,
    recursive: bool,
    closure: Option<Closure>,
    inner: Box<dyn Expression>,
    /// The last answers: the compiler asks the same again at each level of nesting.
    known: Arc<Mutex<VecDeque<(TypeState, TypeInfo)>>>,
}

impl Expression for Call {
    fn resolve(&self, ctx: &mut Context<'_>) -> Resolved {
        self.inner.resolve(ctx)
    }

    fn resolve_constant(&self, state: &TypeState) -> Option<vrl::value::Value> {
        self.inner.resolve_constant(state)
    }

    fn type_info(&self, state: &TypeState) -> TypeInfo {
        let known =
            |known: &VecDeque<(TypeState, TypeInfo)>| known.iter().find(|(s, _)| s == state).map(|(_, i)| i.clone());
        if let Some(info) = known(&self.known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return info;
        }
        let info = self.infer(state);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_front((state.clone(), info.clone()));
        known.truncate(ANSWERS);
        info
    }
}

impl Call {
    fn infer(&self, state: &TypeState) -> TypeInfo {
        let value = self.value.type_def(state).kind().clone();
        let (state_after, made) = match &self.closure {
            Some(closure) => settle(state, closure, &value),
            None => (state.clone(), Kind::never()),
        };
        let mut result = self.inner.type_def(state);
        let more = self.more.as_ref().map(|more| more.type_def(state).kind().clone().upgrade_undefined());
        let kind = match self.name {
            "map_values" if !self.recursive => mapped(&value, &made.upgrade_undefined()),
            "filter" => filtered(&value),
            // Of what is no list there is nothing to be known; the engine takes it for a list of anything.
            "array" => Some(Kind::array(value.as_array().cloned().unwrap_or_else(Collection::empty))),
            "object" => Some(Kind::object(value.as_object().cloned().unwrap_or_else(Collection::empty))),
            "push" => listed(&value, &more.unwrap_or_else(Kind::any)),
            "append" => listed(&value, &more.as_ref().map_or_else(Kind::any, items)),
            _ => None,
        };
        if let Some(kind) = kind {
            *result.kind_mut() = kind;
        }
        TypeInfo::new(state_after, result)
    }
}

/// A list of any length of these; the empty one where there are none.
fn list_of(items: Kind) -> Kind {
    Kind::array(if items.is_never() { Collection::empty() } else { Collection::from_unknown(items) })
}

/// What a collection holds.
fn items(kind: &Kind) -> Kind {
    let object = kind.as_object().map(Collection::reduced_kind);
    let array = kind.as_array().map(Collection::reduced_kind);
    match (object, array) {
        (Some(a), Some(b)) => a.union(b),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Kind::any(),
    }
}

fn mapped(value: &Kind, made: &Kind) -> Option<Kind> {
    let array = value.as_array().map(|_| list_of(made.clone()));
    let object = value.as_object().map(|fields| {
        let known = fields.known().keys().map(|name| (name.clone(), made.clone())).collect();
        let unknown = fields.unknown_kind().contains_any_defined();
        Kind::object(Collection::from_parts(known, if unknown { made.clone() } else { Kind::undefined() }))
    });
    array.into_iter().chain(object).reduce(|a, b| a.union(b))
}

fn filtered(value: &Kind) -> Option<Kind> {
    let array = value.as_array().map(|items| list_of(items.reduced_kind()));
    let object = value.as_object().map(|fields| {
        let known = fields.known().iter().map(|(name, kind)| (name.clone(), kind.clone().or_undefined())).collect();
        Kind::object(Collection::from_parts(known, fields.unknown_kind()))
    });
    array.into_iter().chain(object).reduce(|a, b| a.union(b))
}

fn listed(value: &Kind, more: &Kind) -> Option<Kind> {
    let items = value.as_array()?.reduced_kind().union(more.clone());
    Some(list_of(items))
}

/// The types after a closure has run any number of times over `value`, and what its body gives.
fn settle(state: &TypeState, closure: &Closure, value: &Kind) -> (TypeState, Kind) {
    let mut key = Kind::never();
    if value.contains_object() {
        key.add_bytes();
    }
    if value.contains_array() {
        key.add_integer();
    }
    let kinds = match closure.variables.len() {
        1 => vec![items(value)],
        _ => vec![key, items(value)],
    };
    let mut settled = state.clone();
    let mut made = closure.block_type_def.kind().clone().union(closure.block_type_def.returns().clone());
    for _ in 0..ROUNDS_MAX {
        let Some((after, kind)) = once(&settled, closure, &kinds) else { break };
        made = kind;
        let next = settled.clone().merge(after);
        if next == settled {
            break;
        }
        settled = next;
    }
    (settled, made)
}

/// The types after one run of the body. Variables can't be put into a state from outside; so a small program does it.
fn once(state: &TypeState, closure: &Closure, kinds: &[Kind]) -> Option<(TypeState, Kind)> {
    let names = ["given_key", "given_item"];
    let names = &names[names.len().saturating_sub(kinds.len())..];
    let mut functions: Vec<Box<dyn Function>> =
        vec![Box::new(Given { name: "closure_body", body: Some(closure.clone()), kind: Kind::null() })];
    let mut source = String::from("{ ");
    for ((name, kind), variable) in names.iter().zip(kinds).zip(&closure.variables) {
        source.push_str(&format!("{}\n", format_args!("{} = {name}()", &**variable)));
        functions.push(Box::new(Given { name, body: None, kind: kind.clone() }));
    }
    source.push_str("closure_body() }");
    let compiled = compile_with_state(&source, &functions, state, CompileConfig::default()).ok()?;
    let info = compiled.program.final_type_info();
    Some((info.state, info.result.kind().clone()))
}

/// A value of a type that is known, or a closure's body.
#[derive(Clone, Debug)]
struct Given {
    name: &'static str,
    body: Option<Closure>,
    kind: Kind,
}

impl Function for Given {
    fn identifier(&self) -> &'static str {
        self.name
    }
    fn usage(&self) -> &'static str {
        ""
    }
    fn category(&self) -> &'static str {
        ""
    }
    fn return_kind(&self) -> u16 {
        vrl::compiler::value::kind::ANY
    }
    fn examples(&self) -> &'static [Example] {
        &[]
    }
    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, _: ArgumentList) -> Compiled {
        match &self.body {
            Some(closure) => Ok(Box::new(Body(closure.clone()))),
            None => Ok(FunctionExpression::as_expr(&Known(self.kind.clone()))),
        }
    }
}

#[derive(Clone, Debug)]
struct Known(Kind);

impl FunctionExpression for Known {
    fn resolve(&self, _: &mut Context<'_>) -> Resolved {
        Ok(vrl::value::Value::Null)
    }
    fn type_def(&self, _: &TypeState) -> TypeDef {
        self.0.clone().into()
    }
}

#[derive(Clone, Debug)]
struct Body(Closure);

impl Expression for Body {
    fn resolve(&self, ctx: &mut Context<'_>) -> Resolved {
        self.0.block.resolve(ctx)
    }
    fn type_info(&self, state: &TypeState) -> TypeInfo {
        let info = self.0.block.type_info(state);
        let kind = info.result.kind().clone().union(info.result.returns().clone());
        TypeInfo::new(info.state, TypeDef::from(kind))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Collection, Compiler, Kind};

    /// The document's type after a program.
    fn document(source: &str) -> String {
        let copy = Collection::empty().with_known("shelf", Kind::bytes()).with_known("fee", Kind::integer());
        let data = Collection::empty().with_known("copies", Kind::array(Collection::from_unknown(Kind::object(copy))));
        let event = Kind::object(Collection::empty().with_known("data", Kind::object(data)));
        let compiled = Compiler::default().compile(source, &Kind::object(Collection::empty()), &event);
        describe(compiled.unwrap().document())
    }

    fn describe(kind: &Kind) -> String {
        match (kind.as_array(), kind.as_object()) {
            (Some(items), None) if items.reduced_kind().is_never() => "[]".to_owned(),
            (Some(items), None) => format!("[{}]", describe(&items.reduced_kind())),
            (None, Some(fields)) => {
                let fields = fields.known().iter().map(|(name, kind)| format!("{}: {}", name.as_str(), describe(kind)));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
            _ => kind.to_string(),
        }
    }

    #[test]
    fn what_closures_make_has_a_type() {
        let made = [
            (
                ".x = map_values(%data.copies) -> |c| { {\"s\": c.shelf, \"f\": c.fee} }",
                "{x: [{f: integer, s: string}]}",
            ),
            (".x = map_values(%data.copies) -> |c| { c.shelf }", "{x: [string]}"),
            (".x = map_values({\"a\": 1}) -> |_n| { \"s\" }", "{x: {a: string}}"),
            (".x = filter(%data.copies) -> |_i, c| { c.fee > 3 }", "{x: [{fee: integer, shelf: string}]}"),
            ("x = []\nfor_each(%data.copies) -> |_i, c| { x = push(x, c.shelf) }\n.x = x", "{x: [string]}"),
            ("for_each(%data.copies) -> |_i, c| { .last = c.shelf }", "{last: string or undefined}"),
            ("n = 0\nfor_each(%data.copies) -> |_i, c| { n = c.shelf }\n.n = n", "{n: string or integer}"),
            (
                "a = 0\nb = 0\nfor_each(%data.copies) -> |_i, c| { b = a\n a = c.shelf }\n.b = b",
                "{b: string or integer}",
            ),
            (".x = push(array(.x) ?? [], 1)", "{x: [integer]}"),
            (".x = filter(array(.x) ?? []) -> |_i, x| { x != 1 }", "{x: []}"),
            (".x = append([1], map_values(%data.copies) -> |c| { c.fee })", "{x: [integer]}"),
        ];
        for (source, expected) in made {
            assert_eq!(document(source), expected, "{source}");
        }
    }

    #[test]
    fn a_closures_variable_is_not_known_outside() {
        let source = "for_each([1]) -> |_i, c| { .x = c }\n.y = c";
        assert!(
            Compiler::default()
                .compile(source, &Kind::object(Collection::empty()), &Kind::object(Collection::empty()))
                .is_err()
        );
    }
}
