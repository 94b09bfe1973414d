//! What is wrong in a projection's file, shown with its place: file, line, column, the line itself, why, what to do.

use miette::{LabeledSpan, SourceSpan};
use serde_saphyr::{Location, Spanned};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A projection's file: its name for messages and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as the user gave it.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// One finding in a file.
#[derive(Clone, Debug)]
pub struct Finding {
    source: Source,
    span: Range<usize>,
    message: String,
    label: String,
    help: Option<String>,
}

impl Finding {
    /// A finding about the value at `location`.
    pub(crate) fn at(source: &Source, location: Location, message: impl Into<String>, help: impl Into<String>) -> Self {
        let start = offset(&source.text, location);
        let end = source.text[start..].find(['\n', ':', ' ']).map_or(source.text.len(), |n| start + n.max(1));
        Self {
            source: source.clone(),
            span: start..end,
            message: message.into(),
            label: "here".into(),
            help: Some(help.into()),
        }
    }

    /// A finding inside a program that stands at `program` in the file.
    pub(crate) fn in_program(source: &Source, program: &Spanned<String>, found: &crate::expr::Diagnostic) -> Self {
        let start = in_block(&source.text, program, found.span.start);
        let end = in_block(&source.text, program, found.span.end).max(start + 1).min(source.text.len());
        Self {
            source: source.clone(),
            span: start..end,
            message: found.message.clone(),
            label: found.label.clone(),
            help: found.help.clone(),
        }
    }

    /// Place, message and what to do, on two lines.
    #[must_use]
    pub fn with_help(&self) -> String {
        let help = self.help.as_ref().map(|help| format!("  {help}\n")).unwrap_or_default();
        format!("{self}\n{help}")
    }

    /// Line and column, from 1.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        let before = &self.source.text[..self.span.start];
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}: {}", self.source.name, self.message)
    }
}

impl std::error::Error for Finding {}

impl miette::Diagnostic for Finding {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = SourceSpan::from(self.span.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(self.label.clone()), span))))
    }
}

impl miette::SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let contents = self.text.read_span(span, before, after)?;
        let named = self.name.to_string();
        Ok(Box::new(miette::MietteSpanContents::new_named(
            named,
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// The byte offset of a location; the file's start where it is unknown.
fn offset(text: &str, location: Location) -> usize {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let in_line = text[start..].char_indices().nth(column - 1).map_or(0, |(i, _)| i);
    start + in_line
}

/// The file's offset of a place in a program. In a block scalar (`|`) the program's lines are the file's, less the
/// indentation; otherwise it stands where the value stands, perhaps after a quote.
fn in_block(text: &str, program: &Spanned<String>, at: usize) -> usize {
    let start = offset(text, program.defined);
    let rest = &text[start..];
    if !rest.starts_with(['|', '>']) {
        let quote = usize::from(rest.starts_with(['"', '\'']));
        return (start + quote + at).min(text.len());
    }
    let (mut from, mut left) = (start + rest.find('\n').map_or(rest.len(), |n| n + 1), at);
    let indent = text[from..].lines().find(|l| !l.trim().is_empty()).map_or(0, |l| l.len() - l.trim_start().len());
    for line in program.value.split_inclusive('\n') {
        let skip = indent.min(text[from..].len());
        if left < line.len() {
            return (from + skip + left).min(text.len());
        }
        left -= line.len();
        from += text[from..].find('\n').map_or(0, |n| n + 1);
    }
    from.min(text.len())
}
