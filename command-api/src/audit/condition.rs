//! Where a replay stops: a VRL program over `.before`, `.after` and `.event`, such as `.after.balance_cents < 1000`.

use serde_json::json;
use vrl::compiler::runtime::Runtime;
use vrl::compiler::state::{ExternalEnv, RuntimeState};
use vrl::compiler::{CompileConfig, Program, TargetValueRef, TimeZone, compile_with_external};
use vrl::diagnostic::Formatter;
use vrl::value::{Kind, Secrets, Value};

use super::Step;

/// Why a condition can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConditionError {
    /// It doesn't compile.
    #[error("the condition doesn't compile:\n{0}")]
    Compile(String),
    /// It gives something else than `true` or `false`.
    #[error("the condition must give true or false, such as `.after.balance_cents < 1000`; it gives {0}")]
    NotBoolean(String),
    /// It failed on a step.
    #[error("the condition failed at position {position}: {reason}")]
    Failed {
        /// Of the step.
        position: i64,
        /// VRL's words.
        reason: String,
    },
}

/// What steps are made of, as far as they were seen.
#[derive(Debug)]
pub struct Types(Kind);

impl Types {
    /// Takes note of a step.
    pub fn learn(&mut self, step: &Step) {
        self.0 = std::mem::replace(&mut self.0, Kind::never()).union(Kind::from(&view(step)));
    }

    /// Compiles a condition against these types: what may be null or absent must be provided for, as everywhere in VRL.
    ///
    /// # Errors
    /// [`ConditionError::Compile`], [`ConditionError::NotBoolean`].
    pub fn compile(self, source: &str) -> Result<Condition, ConditionError> {
        let env = ExternalEnv::new_with_kind(self.0, Kind::any_object());
        let compiled = compile_with_external(source, &vrl::stdlib::all(), &env, CompileConfig::default());
        let compiled = compiled.map_err(|found| ConditionError::Compile(Formatter::new(source, found).to_string()))?;
        let kind = compiled.program.final_type_info().result.kind().clone();
        if !kind.is_boolean() {
            return Err(ConditionError::NotBoolean(kind.to_string()));
        }
        Ok(Condition(compiled.program))
    }
}

/// A compiled condition.
#[derive(Debug)]
pub struct Condition(Program);

impl Condition {
    /// To be filled with every step that the condition will meet.
    #[must_use]
    pub fn types() -> Types {
        Types(Kind::never())
    }

    /// Whether it holds on a step.
    ///
    /// # Errors
    /// [`ConditionError::Failed`].
    pub fn holds(&self, step: &Step) -> Result<bool, ConditionError> {
        let (mut value, mut metadata, mut secrets) = (view(step), Value::Object(Default::default()), Secrets::new());
        let mut target = TargetValueRef { value: &mut value, metadata: &mut metadata, secrets: &mut secrets };
        let mut runtime = Runtime::new(RuntimeState::default());
        let given = runtime.resolve(&mut target, &self.0, &TimeZone::default());
        let position = step.event.position;
        let given = given.map_err(|error| ConditionError::Failed { position, reason: error.to_string() })?;
        Ok(given == Value::Boolean(true))
    }
}

fn view(step: &Step) -> Value {
    let event = &step.event;
    let mut view = Value::from(json!({
        "before": step.before,
        "after": step.after,
        "event": {
            "type": event.event_type,
            "version": event.schema_version,
            "position": event.position,
            "data": event.data,
            "metadata": event.metadata,
        },
    }));
    if let Some(seen) = view.as_object_mut().and_then(|view| view.get_mut("event")).and_then(Value::as_object_mut) {
        seen.insert("at".into(), Value::Timestamp(event.occurred_at));
    }
    view
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::Value as Json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Time;
    use crate::store::Recorded;

    fn step(position: i64, before: Json, after: Json) -> Step {
        let event = Recorded {
            global_position: position,
            stream_id: "account-a".to_owned(),
            position,
            event_id: Uuid::nil(),
            event_type: "FundsWithdrawn".to_owned(),
            schema_version: 1,
            data: json!({"amount_cents": 5}),
            metadata: json!({"user_id": "u"}),
            epoch: String::new(),
            txid: 1,
            occurred_at: Time::UNIX_EPOCH,
        };
        Step { event, before, after }
    }

    fn steps() -> [Step; 2] {
        let (first, second) = (json!({"balance_cents": 9, "note": null}), json!({"balance_cents": 4, "note": "x"}));
        [step(1, Json::Null, first.clone()), step(2, first, second)]
    }

    fn compile(source: &str) -> Result<Condition, ConditionError> {
        let mut types = Condition::types();
        steps().iter().for_each(|step| types.learn(step));
        types.compile(source)
    }

    #[test]
    fn a_condition_sees_before_after_and_the_event() {
        for (source, first, second) in [
            (".after.balance_cents < 5", false, true),
            (".before == null", true, false),
            ("exists(.before.balance_cents) && .event.type == \"FundsWithdrawn\"", false, true),
            (".event.position == 2 && .event.data.amount_cents > 4", false, true),
            (".event.at > t'1969-01-01T00:00:00Z'", true, true),
            (".after.note == \"x\"", false, true),
        ] {
            let condition = compile(source).unwrap();
            let held = steps().map(|step| condition.holds(&step).unwrap());
            assert_eq!(held, [first, second], "{source}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_a_reason() {
        for (source, reason) in [
            (".after.balance_cents <", "syntax error"),
            (".after.balance_cents", "must give true or false"),
            ("upcase(.after.note) == \"X\"", "null"),
        ] {
            let error = compile(source).unwrap_err().to_string();
            assert!(error.contains(reason), "{source}: {error}");
        }
    }
}
