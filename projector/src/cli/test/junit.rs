//! Results in the XML that CI servers read: a suite a file, a case a test.

use super::{Tested, Verdict, explain};
use std::collections::BTreeMap;
use std::fmt::Write;

pub(super) fn report(tested: &[Tested<'_>]) -> String {
    let mut suites: BTreeMap<&str, Vec<&Tested<'_>>> = BTreeMap::new();
    for t in tested {
        suites.entry(t.file).or_default().push(t);
    }
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (file, cases) in suites {
        let failed = cases.iter().filter(|t| !matches!(t.verdict, Verdict::Passed)).count();
        let seconds: f64 = cases.iter().map(|t| t.elapsed.as_secs_f64()).sum();
        // Writing to a string doesn't fail.
        _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" time=\"{seconds:.6}\">",
            escaped(file),
            cases.len()
        );
        for t in cases {
            let (name, model) = (escaped(&t.name), escaped(t.subject));
            let (line, time) = (t.line, t.elapsed.as_secs_f64());
            let open = format!(
                "    <testcase name=\"{name}\" classname=\"{model}\" file=\"{}\" line=\"{line}\" time=\"{time:.6}\"",
                escaped(file)
            );
            if matches!(t.verdict, Verdict::Passed) {
                _ = writeln!(xml, "{open}/>");
                continue;
            }
            let reason = escaped(&explain(&t.verdict));
            let first = escaped(explain(&t.verdict).lines().next().unwrap_or("failed"));
            _ = writeln!(xml, "{open}>\n      <failure message=\"{first}\">{reason}</failure>\n    </testcase>");
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no such characters.
            c if c.is_control() && !matches!(c, '\n' | '\t' | '\r') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
