//! Spans: of work under way, and of legs that are over.

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{FutureExt as _, Link, Span as _, SpanContext, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Set if anything is traced.
pub(crate) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Whether anything is traced.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Whose child a span will be, by W3C's `traceparent`; `None` for what is nobody's.
pub(crate) fn parent(traceparent: &str) -> Option<SpanContext> {
    struct One<'a>(&'a str);
    impl Extractor for One<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }
    let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &One(traceparent));
    Some(found.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The span that `traceparent` names, if it is kept and anything is traced here.
#[must_use]
pub fn sampled(traceparent: &str) -> Option<SpanContext> {
    is_on().then(|| parent(traceparent)).flatten().filter(SpanContext::is_sampled)
}

pub(crate) fn header(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

/// The span that this task is in, if it is kept.
fn current() -> Option<(&'static SdkTracer, Context)> {
    let tracer = TRACER.get()?;
    let context = Context::current();
    context.span().span_context().is_sampled().then_some((tracer, context))
}

/// What goes with a request to another service, so that its spans become children of ours.
#[must_use]
pub fn traceparent() -> Option<String> {
    current().map(|(_, context)| header(context.span().span_context()))
}

/// Gives the span that this task is in its name, where that is known only now.
pub fn named(name: impl FnOnce() -> String) {
    if let Some((_, context)) = current() {
        context.span().update_name(name());
    }
}

/// Does `work` as a span within the one that this task is in, if that is kept.
pub async fn within<T>(name: &'static str, attributes: &[(&'static str, &str)], work: impl Future<Output = T>) -> T {
    let Some((tracer, context)) = current() else { return work.await };
    let attributes = attributes.iter().map(|(key, value)| KeyValue::new(*key, (*value).to_owned()));
    let span = tracer.span_builder(name).with_attributes(attributes).start_with_context(tracer, &context);
    let context = context.with_span(span);
    let answer = work.with_context(context.clone()).await;
    context.span().end();
    answer
}

/// A leg that is over.
#[derive(Clone, Debug)]
pub struct Leg {
    /// What it is.
    pub name: String,
    /// When it began, and ended.
    pub times: (SystemTime, SystemTime),
    /// What it was about.
    pub attributes: Vec<KeyValue>,
    /// Spans of other traces that it did something for.
    pub links: Vec<SpanContext>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

impl Leg {
    /// A leg without anything beside its times. Clocks of different machines differ: one that would end before it began takes no
    /// time.
    #[must_use]
    pub fn new(name: impl Into<String>, from: SystemTime, to: SystemTime) -> Self {
        Self { name: name.into(), times: (from, to.max(from)), attributes: Vec::new(), links: Vec::new(), failed: None }
    }

    /// With what it was about.
    #[must_use]
    pub fn about(self, attributes: Vec<KeyValue>) -> Self {
        Self { attributes, ..self }
    }
}

/// Makes a span of a leg that is over; gives what its own children are called after.
pub fn record(parent: &SpanContext, leg: Leg) -> SpanContext {
    let Some(tracer) = TRACER.get() else { return SpanContext::empty_context() };
    let context = Context::new().with_remote_span_context(parent.clone());
    let links = leg.links.into_iter().map(Link::with_context).collect();
    let builder = tracer.span_builder(leg.name).with_start_time(leg.times.0);
    let mut span = builder.with_attributes(leg.attributes).with_links(links).start_with_context(tracer, &context);
    if let Some(reason) = leg.failed {
        span.set_status(Status::error(reason));
    }
    let made = span.span_context().clone();
    span.end_with_timestamp(leg.times.1);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_what_the_standard_calls_one() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let named = parent(text);
        assert_eq!(named.as_ref().map(header).as_deref(), Some(text));
        assert!(named.is_some_and(|span| span.is_sampled()));
        for nobody in ["", "x", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", &text[3..], "ä"] {
            assert!(parent(nobody).is_none(), "{nobody}");
        }
        assert_eq!(sampled(text), None, "nothing is traced here");
    }
}
