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
//! tests:
//!   - given: { title: Emma, days: 14 }
//!     expect: { title: Emma, hours: 336 }
//! ```
//!
//! Chains follow by themselves: what lifts version 1 to 2 is followed by what lifts 2 to 3. `projector test` runs the tests.

use super::{Catalog, Node, Sample, Shape};
use crate::expr::{Compiler, Diagnostic, Kind, Program, RunError, Value, json};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_saphyr::Spanned;
use std::path::PathBuf;

/// An upcaster's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpcasterFile {
    pub(super) event: String,
    pub(super) aggregate: String,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) upcast: Spanned<String>,
    #[serde(default)]
    pub(super) tests: Vec<Golden>,
}

/// What one datum of the old version is in the new one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Golden {
    pub(super) given: Spanned<Node>,
    pub(super) expect: Json,
}

/// A test in an upcaster's file.
#[derive(Clone, Debug)]
pub struct UpcasterTest {
    /// The file.
    pub path: PathBuf,
    /// The event.
    pub event: String,
    /// The version that is lifted.
    pub from: u32,
    /// Data of that version.
    pub given: Spanned<Node>,
    /// The same in the version that the upcaster gives.
    pub expect: Json,
}

impl UpcasterTest {
    /// Lifts what is given, and gives what it comes to.
    ///
    /// # Errors
    /// What in `given` isn't of the old version, or why the upcaster stopped; in words.
    pub fn run(&self, catalog: &Catalog) -> Result<Json, String> {
        let schema =
            catalog.reader(&self.event, self.from).ok_or_else(|| format!("no schema of version {}", self.from))?;
        let shape = Shape::new(schema).map_err(|error| error.to_string())?;
        let sample = Sample { at: chrono::DateTime::UNIX_EPOCH, texts: Vec::new() };
        let data = shape.typed(&self.given.value.to_json(), &sample).map_err(|found| {
            let one = |m: &super::Mismatch| format!("given `{}`: {}; {}", m.path.join("."), m.reason, m.help);
            found.iter().map(one).collect::<Vec<_>>().join("\n")
        })?;
        let upcaster = catalog.upcaster(&self.event, self.from).ok_or("no upcaster")?;
        upcaster.lift(data).map(|value| json::to_json(&value)).map_err(|error| error.to_string())
    }
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
                reason: crate::expr::Reason::Misfit,
            }]
        })?;
        Ok(Self { to: version, program })
    }

    /// Lifts an event's data.
    ///
    /// # Errors
    /// [`RunError`]: the data is then of no use.
    pub fn lift(&self, mut data: Value) -> Result<Value, RunError> {
        self.program.run(&mut data, &Value::Null)?;
        Ok(data)
    }
}
