//! What is wrong in a projection's file, shown with its place: file, line, column, the line itself, why, what to do.

use crate::expr::Reason;
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

/// What a finding is about; `check --output json` and the head of each finding name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Diagnosis {
    /// The file isn't YAML, or hasn't the shape of a projection.
    Shape,
    /// The read model's name.
    Name,
    /// An event that no schema has.
    UnknownEvent,
    /// Nothing feeds it.
    NoEvent,
    /// What feeds it can't be kept in one document.
    Feed,
    /// A program that the engine refuses.
    Program,
    /// A field that neither the event nor a closure's item can have.
    UnknownField,
    /// A field that no program sets.
    UnsetField,
    /// The document's type doesn't settle.
    Unsettled,
    /// A field that is now of one type, now of another.
    MixedTypes,
    /// A field's name that is the projector's own.
    ReservedName,
    /// The rows of a rollup.
    SumBy,
    /// The parents of a join, and what it makes of them.
    Join,
    /// What is asked for by key.
    Lookup,
    /// Personal data, and how it is shown.
    Masks,
    /// Settings out of their range.
    Limits,
    /// When documents expire.
    Ttl,
    /// The day of a fact.
    Day,
    /// A setting of the store that its fields don't fit.
    Mapping,
    /// A declared query.
    Query,
    /// A test's given events.
    Given,
    /// Two files that declare one read model.
    SameName,
    /// Two read models in one place of a store.
    SamePlace,
    /// Two queries under one path.
    SamePath,
}

impl Diagnosis {
    /// All that there are.
    pub const ALL: [Self; 24] = [
        Self::Shape,
        Self::Name,
        Self::UnknownEvent,
        Self::NoEvent,
        Self::Feed,
        Self::Program,
        Self::UnknownField,
        Self::UnsetField,
        Self::Unsettled,
        Self::MixedTypes,
        Self::ReservedName,
        Self::SumBy,
        Self::Join,
        Self::Lookup,
        Self::Masks,
        Self::Limits,
        Self::Ttl,
        Self::Day,
        Self::Mapping,
        Self::Query,
        Self::Given,
        Self::SameName,
        Self::SamePlace,
        Self::SamePath,
    ];

    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Name => "name",
            Self::UnknownEvent => "unknown-event",
            Self::NoEvent => "no-event",
            Self::Feed => "feed",
            Self::Program => "program",
            Self::UnknownField => "unknown-field",
            Self::UnsetField => "unset-field",
            Self::Unsettled => "unsettled",
            Self::MixedTypes => "mixed-types",
            Self::ReservedName => "reserved-name",
            Self::SumBy => "sum-by",
            Self::Join => "join",
            Self::Lookup => "lookup",
            Self::Masks => "masks",
            Self::Limits => "limits",
            Self::Ttl => "ttl",
            Self::Day => "day",
            Self::Mapping => "mapping",
            Self::Query => "query",
            Self::Given => "given",
            Self::SameName => "same-name",
            Self::SamePlace => "same-place",
            Self::SamePath => "same-path",
        }
    }
}

/// One finding in a file.
#[derive(Clone, Debug)]
pub struct Finding {
    rule: Option<Diagnosis>,
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
        Self::on(source, start..end, message, help)
    }

    /// A finding about a part of the text.
    pub(crate) fn on(source: &Source, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            rule: None,
            source: source.clone(),
            span,
            message: message.into(),
            label: "here".into(),
            help: Some(help.into()),
        }
    }

    /// A finding about an entry of a map: the first line that begins with its name; the file's start if there is none.
    pub(crate) fn at_entry(source: &Source, name: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let mut from = 0;
        let mut span = 0..source.text.find('\n').unwrap_or(source.text.len());
        for line in source.text.split_inclusive('\n') {
            let bare = line.trim_start().trim_start_matches(['-', '"', '\'', '{', ' ']);
            if let Some(rest) = bare.strip_prefix(name)
                && rest.trim_start_matches(['"', '\'']).starts_with(':')
            {
                let start = from + line.len() - bare.len();
                span = start..start + name.len();
                return Self::on(source, span, message, help);
            }
            from += line.len();
        }
        // Not an entry: perhaps in a list.
        if let Some((start, _)) =
            source.text.match_indices(name).find(|(at, _)| !within_word(&source.text, *at, name.len()))
        {
            span = start..start + name.len();
        }
        Self::on(source, span, message, help)
    }

    /// Says what it is about.
    #[must_use]
    pub(crate) fn of(mut self, rule: Diagnosis) -> Self {
        self.rule = Some(rule);
        self
    }

    /// What it is about.
    #[must_use]
    pub fn rule(&self) -> Option<Diagnosis> {
        self.rule
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// A finding inside a program that stands at `program` in the file.
    pub(crate) fn in_program(source: &Source, program: &Spanned<String>, found: &crate::expr::Diagnostic) -> Self {
        let start = in_block(&source.text, program, found.span.start);
        let end = in_block(&source.text, program, found.span.end).max(start + 1).min(source.text.len());
        let rule = match found.reason {
            Reason::UnknownField => Diagnosis::UnknownField,
            Reason::UnsetField => Diagnosis::UnsetField,
            Reason::Engine | Reason::Misfit => Diagnosis::Program,
        };
        Self {
            rule: Some(rule),
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
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.rule.map(|rule| Box::new(rule.name()) as Box<dyn fmt::Display>)
    }

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

/// Whether what stands at a place is only a part of a word.
fn within_word(text: &str, at: usize, length: usize) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    text[..at].ends_with(letter) || text[at + length..].starts_with(letter)
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
    let mut from = text[..start].rfind('\n').map_or(0, |n| n + 1);
    // The place of a block is that of its first letter, or that of its sign.
    let above = text[..from].trim_end().lines().last().unwrap_or_default();
    let opened = above.trim_end_matches(|c: char| matches!(c, '-' | '+') || c.is_ascii_digit()).ends_with(['|', '>']);
    if rest.starts_with(['|', '>']) {
        from = start + rest.find('\n').map_or(rest.len(), |n| n + 1);
    } else if !(opened && text[from..start].trim().is_empty()) {
        let quote = usize::from(rest.starts_with(['"', '\'']));
        return (start + quote + at).min(text.len());
    }
    let mut left = at;
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
