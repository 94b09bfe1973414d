//! The audit's verdict, for people and for programs.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::compare::{Comparison, Difference};

/// One read model's result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    /// The read model.
    pub(crate) name: &'static str,
    /// Where it lives.
    pub(crate) store: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub(crate) comparison: Comparison,
    /// Why the store couldn't be read, if it couldn't.
    pub(crate) unreadable: Option<String>,
}

impl Verdict {
    pub(super) fn new(name: &'static str, store: &'static str, comparison: Comparison) -> Self {
        Self { name, store, comparison, unreadable: None }
    }

    pub(super) fn unreadable(name: &'static str, store: &'static str, error: &anyhow::Error) -> Self {
        Self { name, store, comparison: Comparison::default(), unreadable: Some(format!("{error:#}")) }
    }

    /// No difference, and something to compare on both sides: two empty sides prove nothing.
    pub(crate) fn agrees(&self) -> bool {
        self.comparison.different == 0 && self.comparison.expected > 0 && self.comparison.actual > 0
    }
}

/// All read models' results.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Whether every read model agrees with the write database.
    pub(crate) agrees: bool,
    /// In the order of the audit.
    pub(crate) read_models: Vec<Verdict>,
}

impl Report {
    pub(super) fn new(read_models: Vec<Verdict>) -> Self {
        Self { agrees: read_models.iter().all(Verdict::agrees), read_models }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<14} {:>10} {:>10}", "read model", "store", "compared", "different")?;
        for verdict in &self.read_models {
            let found = &verdict.comparison;
            write!(f, "\n{:<24} {:<14} {:>10} {:>10}", verdict.name, verdict.store, found.compared, found.different)?;
        }
        for verdict in self.read_models.iter().filter(|verdict| !verdict.agrees()) {
            explain(verdict, f)?;
        }
        Ok(())
    }
}

fn explain(verdict: &Verdict, f: &mut Formatter<'_>) -> fmt::Result {
    let found = &verdict.comparison;
    write!(f, "\n\n{} in {}:", verdict.name, verdict.store)?;
    if let Some(error) = &verdict.unreadable {
        return write!(f, "\n  can't be read: {error}");
    }
    if found.expected == 0 {
        write!(f, "\n  the write database has nothing to compare with: `./dev demo` sends work")?;
    }
    if found.actual == 0 {
        write!(f, "\n  the store is empty")?;
    }
    for difference in &found.differences {
        match difference {
            Difference::Missing { key } => write!(f, "\n  missing  {key}")?,
            Difference::Extra { key } => write!(f, "\n  extra    {key}")?,
            Difference::Field { key, field, expected, actual } => {
                write!(f, "\n  differs  {key}  {field}: expected {expected}, actual {actual}")?
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::compare::{Documents, compare};

    fn verdict(expected: serde_json::Value, actual: serde_json::Value) -> Verdict {
        let side = |value| -> Documents { serde_json::from_value(value).unwrap() };
        Verdict::new("order_summary", "redis", compare(&side(expected), &side(actual), 10))
    }

    #[test]
    fn two_empty_sides_do_not_agree() {
        let empty = verdict(json!({}), json!({}));
        assert_eq!(empty.comparison.different, 0);
        assert!(!empty.agrees());
        assert!(!Report::new(vec![empty]).agrees);
    }

    #[test]
    fn the_text_names_key_field_and_both_values() {
        let report = Report::new(vec![verdict(
            json!({"order:1": {"status": "confirmed"}, "order:2": {}}),
            json!({"order:1": {"status": "pending"}}),
        )]);
        let text = report.to_string();
        assert!(text.contains("order_summary            redis                   2          2"), "{text}");
        assert!(text.contains("differs  order:1  status: expected \"confirmed\", actual \"pending\""), "{text}");
        assert!(text.contains("missing  order:2"), "{text}");
    }
}
