//! Upcasters lift an old major version of an event to the next one, declaratively, before any projection sees it.
//!
//! A file in `schemas/upcasters/` names event and versions and holds one program, in which `.` is the event's data:
//!
//! ```yaml
//! event: Borrowed
//! aggregate: loan
//! from: 1
//! to: 2
//! upcast: |
//!   .hours = .days * 24
//!   del(.days)
//! ```

use crate::expr::{Compiler, Diagnostic, Kind, Program, RunError, Value};
use serde::Deserialize;
use serde_saphyr::Spanned;

/// An upcaster's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpcasterFile {
    pub(super) event: String,
    pub(super) aggregate: String,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) upcast: Spanned<String>,
}

/// A compiled upcaster.
#[derive(Clone, Debug)]
pub struct Upcaster {
    /// The version it gives.
    pub to: u32,
    program: Program,
}

impl Upcaster {
    /// Compiles a program from data of type `from` to data of type `to`.
    ///
    /// # Errors
    /// The program's findings, and that its result isn't of type `to`, with the field.
    pub fn new(
        compiler: &Compiler,
        source: &str,
        from: &Kind,
        to: &Kind,
        version: u32,
    ) -> Result<Self, Vec<Diagnostic>> {
        let program = compiler.compile(source, from, &Kind::object(crate::expr::Collection::empty()))?;
        to.is_superset(program.document()).map_err(|path| {
            vec![Diagnostic {
                message: format!(
                    "the result doesn't fit version {version}: `{path}` is missing, too much, or of another type"
                ),
                span: 0..source.trim_end().len().min(1),
                label: "this program's result".into(),
                help: Some(format!("set, convert or delete `{path}`; the target is {to}")),
            }]
        })?;
        Ok(Self { to: version, program })
    }

    /// Lifts an event's data.
    ///
    /// # Errors
    /// [`RunError`]: the data is then of no use.
    pub fn lift(&self, mut data: Value) -> Result<Value, RunError> {
        self.program.run(&mut data, &mut Value::Object(crate::expr::Object::new()))?;
        Ok(data)
    }
}
