//! Compiling a program against known types, and running it.

use super::target::{Fields, Sides, field};
use super::{KeyString, Kind, Value, Wanted, check, functions, rewrite};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use vrl::compiler::runtime::{Runtime, Terminate};
use vrl::compiler::state::{ExternalEnv, LocalEnv};
use vrl::compiler::{CompileConfig, Compiler as Engine, Function, TimeZone, TypeState};
use vrl::diagnostic::{DiagnosticList, DiagnosticMessage};
use vrl::parser::parse;
use vrl::path::{OwnedSegment, PathPrefix};

/// One finding in a program's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where: a byte range of the program's text.
    pub span: Range<usize>,
    /// What stands at that place, in a few words.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whose rule it is.
    pub reason: Reason,
}

/// What kind of thing a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine refuses it: syntax, types, calls that may fail.
    Engine,
    /// A field that neither the event nor a closure's item or a variable can have.
    UnknownField,
    /// A field that no program sets.
    UnsetField,
    /// An upcaster's result that doesn't fit the newer version.
    Misfit,
}

/// Why a program stopped at run time. The value it worked on must be thrown away: it may be half changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A call with `!` failed, or an assertion didn't hold.
    #[error("program failed: {0}")]
    Failed(String),
    /// The program said `abort`.
    #[error("program aborted: {0}")]
    Aborted(String),
}

/// Names of a document's fields.
pub type Names = Arc<BTreeSet<KeyString>>;

/// A compiled program. Cheap to share, immutable; each run brings its own state.
#[derive(Clone, Debug)]
pub struct Program {
    inner: vrl::compiler::Program,
    sets: Names,
    sets_all: bool,
    result: Kind,
    document: Kind,
}

/// Compiles programs with the one set of functions that the product offers.
pub struct Compiler {
    functions: Vec<Box<dyn Function>>,
}

impl Default for Compiler {
    fn default() -> Self {
        Self { functions: functions::offered() }
    }
}

impl Compiler {
    /// Compiles `source` where `.` is a `document` and `%` an `event`. The event is read-only.
    ///
    /// # Errors
    /// All findings at once; among them reads of fields that no type has, which the engine itself lets pass as null.
    pub fn compile(&self, source: &str, document: &Kind, event: &Kind) -> Result<Program, Vec<Diagnostic>> {
        let list = |list: DiagnosticList| list.iter().map(Diagnostic::from).collect::<Vec<_>>();
        let ast = parse(source).map_err(|error| list(vec![Box::new(error) as Box<dyn DiagnosticMessage>].into()))?;
        let state = TypeState {
            local: LocalEnv::default(),
            external: ExternalEnv::new_with_kind(document.clone(), event.clone()),
        };
        let running = rewrite::for_running(ast.clone());
        let compiled = match Engine::compile(&self.functions, running, &state, config()) {
            Ok(compiled) => compiled,
            Err(refused) => {
                let unknown = check::unknown_fields(source, ast, &self.functions, &state, None);
                return Err(list(refused).into_iter().chain(unknown).collect());
            }
        };
        let end = compiled.program.final_type_info();
        let after = end.state.external.target_kind().clone();
        let unknown = check::unknown_fields(source, ast, &self.functions, &state, Some(&after));
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let (sets, sets_all) = sets(&compiled.program);
        Ok(Program { result: end.result.kind().clone(), document: after, inner: compiled.program, sets, sets_all })
    }
}

/// The event is read-only.
pub(super) fn config() -> CompileConfig {
    let mut config = CompileConfig::default();
    config.set_read_only_path(vrl::path::OwnedTargetPath::metadata_root(), true);
    config
}

impl Program {
    /// The type of the document after a run.
    #[must_use]
    pub fn document(&self) -> &Kind {
        &self.document
    }

    /// The type of the program's own value (its last expression).
    #[must_use]
    pub fn result(&self) -> &Kind {
        &self.result
    }

    /// Runs the program: changes `document`, reads `event`, gives the value of the last expression.
    ///
    /// # Errors
    /// [`RunError`]; `document` may then be half changed.
    pub fn run(&self, document: &mut Value, event: &dyn Fields) -> Result<Value, RunError> {
        self.resolve(&mut Sides { document, event, changed_otherwise: false })
    }

    /// Runs the program for what it does to the document: gives the fields that may have become others, `None` if any of them may.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn change(&self, document: &mut Value, event: &dyn Fields) -> Result<Option<&Names>, RunError> {
        let mut sides = Sides { document, event, changed_otherwise: false };
        self.resolve(&mut sides)?;
        Ok((!sides.changed_otherwise).then_some(&self.sets))
    }

    fn resolve(&self, sides: &mut Sides<'_>) -> Result<Value, RunError> {
        Runtime::default().resolve(sides, &self.inner, &TimeZone::Named(chrono_tz::UTC)).map_err(|stop| match stop {
            Terminate::Abort(error) => RunError::Aborted(error.to_string()),
            stop => RunError::Failed(stop.to_string()),
        })
    }

    /// The document's fields that the program may set, but not those that it may delete; `None` if it may set any of them.
    #[must_use]
    pub fn sets(&self) -> Option<&Names> {
        (!self.sets_all).then_some(&self.sets)
    }

    /// Whether the program reads this field of the document.
    #[must_use]
    pub fn reads_own(&self, name: &str) -> bool {
        let paths = self.inner.info().target_queries.iter().filter(|path| path.prefix == PathPrefix::Event);
        paths.map(|path| path.path.segments.first()).any(|first| match first {
            Some(OwnedSegment::Field(field)) => field.as_str() == name,
            // All of it at once.
            _ => true,
        })
    }

    /// The event's fields that the program reads, by their first name.
    #[must_use]
    pub fn reads(&self) -> BTreeSet<String> {
        let paths = self.inner.info().target_queries.iter().filter(|path| path.prefix == PathPrefix::Metadata);
        paths
            .filter_map(|path| match path.path.segments.first() {
                Some(OwnedSegment::Field(field)) => Some(field.to_string()),
                _ => None,
            })
            .collect()
    }

    /// What the program reads of one of the event's fields.
    #[must_use]
    pub fn wants(&self, name: &str) -> Wanted {
        let mut wanted = Wanted::nothing();
        for path in self.inner.info().target_queries.iter().filter(|path| path.prefix == PathPrefix::Metadata) {
            match path.path.segments.split_first() {
                Some((OwnedSegment::Field(first), rest)) if first.as_str() == name => wanted.add(rest),
                Some((OwnedSegment::Field(_), _)) => {}
                // The event as a whole.
                _ => wanted.add(&[]),
            }
        }
        wanted
    }

    /// Whether a run can stop with an error, so that the caller must keep the document as it was.
    #[must_use]
    pub fn can_fail(&self) -> bool {
        self.inner.info().fallible || self.inner.info().abortable
    }
}

/// The fields that a program sets, and whether it also sets all of them at once.
fn sets(program: &vrl::compiler::Program) -> (Names, bool) {
    let paths = program.info().target_assignments.iter().filter(|path| path.prefix == PathPrefix::Event);
    let fields = paths.clone().filter_map(|path| field(path).cloned()).collect();
    (Arc::new(fields), paths.clone().any(|path| field(path).is_none()))
}

impl From<&vrl::diagnostic::Diagnostic> for Diagnostic {
    fn from(from: &vrl::diagnostic::Diagnostic) -> Self {
        let label = from.labels.iter().find(|l| l.primary).or(from.labels.first());
        Self {
            message: format!("{} (E{})", from.message, from.code),
            span: label.map_or(0..0, |l| l.span.range()),
            label: label.map_or_else(String::new, |l| l.message.clone()),
            help: advice(from.code).map(str::to_owned).or_else(|| from.notes.first().map(ToString::to_string)),
            reason: Reason::Engine,
        }
    }
}

/// What to do about the engine's most frequent refusals; for the others its own note.
fn advice(code: usize) -> Option<&'static str> {
    Some(match code {
        100 | 103 | 630 => {
            "say what it is then: `… ?? default`; or `name!(…)`, by which an event for which it fails becomes a dead letter"
        }
        105 => {
            "only pure functions are offered, so that a replay gives the same documents; the time is `%occurred_at`. See docs/projections.md"
        }
        110 => "make it that type first: `string!(…)`, `int!(…)`; of what may be null, `… ?? default`",
        315 => "the event can't be changed: set a field of the document, `.name = …`",
        651 => "it can't fail: leave the `??` out",
        200..300 => "mend the syntax at this place, or just before it; docs/projections.md shows programs",
        701 => "set it before; `.name` is the document's field, `%data.name` the event's",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::expr::{Collection, Object};

    fn event() -> Kind {
        let data = Collection::empty().with_known("total", Kind::integer()).with_known("name", Kind::bytes().or_null());
        Kind::object(Collection::empty().with_known("data", Kind::object(data)).with_known("sequence", Kind::integer()))
    }

    fn compile(source: &str) -> Result<Program, Vec<Diagnostic>> {
        Compiler::default().compile(source, &Kind::object(Collection::empty()), &event())
    }

    #[test]
    fn a_program_changes_the_document_and_reads_the_event() {
        let program = compile(".total = %data.total * 2\n.seq = %sequence").unwrap();
        let mut document = Value::Object(Object::new());
        let event = vrl::value!({"data": {"total": 21}, "sequence": 3});
        program.run(&mut document, &event).unwrap();
        assert_eq!(document, vrl::value!({"total": 42, "seq": 3}));
        assert!(program.document().as_object().unwrap().known().get(&"total".into()).unwrap().is_integer());
    }

    #[test]
    fn what_a_program_sets_is_known() {
        let program = compile(".total = %data.total\n.a = { \"b\": 1 }\n.a.b = 2\nx = .total").unwrap();
        assert_eq!(**program.sets().unwrap(), ["a".into(), "total".into()].into());
        assert_eq!(compile(". = [{ \"a\": 1 }]").unwrap().sets(), None, "the whole document");
    }

    #[test]
    fn what_a_run_changed_is_known_unless_it_deletes() {
        let event = Value::from(Object::from([("data".into(), Value::from(Object::new()))]));
        let changed = |source| {
            let mut document = Value::Object(Object::from([("total".into(), Value::from(1))]));
            let program = compile(source).unwrap();
            program.change(&mut document, &event).unwrap().map(|names| names.iter().map(ToString::to_string).collect())
        };
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(changed(".total = 2"), names(&["total"]));
        assert_eq!(changed("if %sequence == 1 { .total = 2 }"), names(&["total"]), "it may");
        assert_eq!(changed("for_each([1]) -> |_i, n| { .n = n }"), names(&["n"]));
        assert_eq!(changed(".total, .err = to_int(%data.name)"), names(&["err", "total"]));
        assert_eq!(changed(".total = 2\ndel(.total)"), None);
        assert_eq!(changed(".n = 1\nif %sequence == 1 { del(.n) }"), names(&["n"]), "only a run that deletes");
        assert_eq!(changed(". = {}"), None);
        assert_eq!(changed("if %sequence == 1 { . = null } else { .n = 1 }"), names(&["n"]), "only a run that does");
    }

    #[test]
    fn what_a_program_reads_is_known() {
        let program = |source| compile(source).unwrap();
        for source in [
            ".total = 1\n.a = .total",
            ".total = { \"a\": 1 }\nx = .total.a\n.b = x",
            ".total = 1\n.a = [1]\nfor_each([1]) -> |_i, v| { .b = .total + v }",
            ".total = 1\nx = .\n.b = x",
        ] {
            assert!(program(source).reads_own("total"), "{source}");
        }
        assert!(!program(".total = %data.total\n.b = 1\n.c = .b").reads_own("total"));
    }

    #[test]
    fn a_field_that_no_schema_has_is_an_error_with_its_place() {
        let errors = compile(".a = 1\n.total = %data.totl").unwrap_err();
        assert_eq!(errors[0].span, 16..26, "{errors:?}");
        assert!(errors[0].message.contains("%data.totl"));
    }

    #[test]
    fn a_field_that_may_be_missing_is_asked_for_on_purpose() {
        let program = compile(".name = %data.name ?? %data.nick ?? \"nobody\"\n.n = (int(.n) ?? 0) + 1").unwrap();
        let mut document = Value::Object(Object::new());
        program.run(&mut document, &vrl::value!({"data": {"total": 1, "name": null}})).unwrap();
        assert_eq!(document, vrl::value!({"name": "nobody", "n": 1}));
        let fields = program.document().as_object().unwrap().known();
        assert!(fields.get(&"name".into()).unwrap().is_bytes(), "{}", program.document());
        assert!(compile(".a = upcase(%data.name ?? \"x\")").is_ok());
    }

    #[test]
    fn nullable_misuse_and_impure_functions_do_not_compile() {
        assert!(compile(".name = upcase(%data.name)").is_err());
        assert!(compile(".at = now()").is_err());
        assert!(compile("%data.total = 3").is_err());
    }
}
