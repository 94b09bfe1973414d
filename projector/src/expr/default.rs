//! `value ?? default` for a value that can't fail but may be null: see [`super::rewrite`].

use super::rewrite::DEFAULT;
use vrl::compiler::function::{ArgumentList, Compiled, Example, FunctionCompileContext};
use vrl::compiler::state::TypeState;
use vrl::compiler::value::kind;
use vrl::compiler::{Context, Expression, Function, FunctionExpression, Parameter, Resolved, TypeDef};
use vrl::value::{Kind, Value};

#[derive(Clone, Copy, Debug)]
pub(super) struct OrDefault;

impl Function for OrDefault {
    fn identifier(&self) -> &'static str {
        DEFAULT
    }
    fn usage(&self) -> &'static str {
        "value ?? default"
    }
    fn category(&self) -> &'static str {
        "Coerce"
    }
    fn return_kind(&self) -> u16 {
        kind::ANY
    }
    fn examples(&self) -> &'static [Example] {
        &[]
    }
    fn parameters(&self) -> &'static [Parameter] {
        const PARAMETERS: &[Parameter] = &[
            Parameter::required("value", kind::ANY, "What may be null."),
            Parameter::required("default", kind::ANY, "What it is then."),
        ];
        PARAMETERS
    }
    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let (value, default) = (arguments.required("value"), arguments.required("default"));
        Ok(OrDefaultCall { value, default }.as_expr())
    }
}

#[derive(Clone, Debug)]
struct OrDefaultCall {
    value: Box<dyn Expression>,
    default: Box<dyn Expression>,
}

impl FunctionExpression for OrDefaultCall {
    fn resolve(&self, ctx: &mut Context<'_>) -> Resolved {
        match self.value.resolve(ctx)? {
            Value::Null => self.default.resolve(ctx),
            value => Ok(value),
        }
    }

    fn type_def(&self, state: &TypeState) -> TypeDef {
        let mut value = self.value.type_def(state).kind().clone();
        let default = self.default.type_def(state);
        if !value.contains_null() && !value.contains_undefined() {
            return TypeDef::from(value);
        }
        value.remove_null();
        value.remove_undefined();
        let kind = if value.is_never() { default.kind().clone() } else { value.union(default.kind().clone()) };
        TypeDef::from(Kind::upgrade_undefined(kind)).maybe_fallible(default.is_fallible())
    }
}
