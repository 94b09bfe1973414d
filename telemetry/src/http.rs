//! Requests that are answered here.

use crate::span::{TRACER, header, parent};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{FutureExt as _, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A middleware: answers as a span, the child of the one that the request names. What comes behind it sees that span as the
/// request's `traceparent`, and passes it on.
pub async fn serve(mut request: Request, next: Next) -> Response {
    let Some(tracer) = TRACER.get() else { return next.run(request).await };
    // Of whom are asked every second, and nobody looks for.
    if ["/health/live", "/health/ready", "/metrics"].iter().any(|path| request.uri().path().ends_with(path)) {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = route.map(|path| path.strip_prefix("/api").unwrap_or(path));
    let method = request.method().as_str();
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let method = KeyValue::new("http.request.method", method.to_owned());
    let named = request.headers().get(TRACEPARENT).and_then(|value| parent(value.to_str().ok()?));
    let context = named.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
    let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes([method]);
    let span = span.start_with_context(tracer, &context);
    if !span.span_context().is_sampled() {
        return next.run(request).await;
    }
    if let Ok(value) = HeaderValue::from_str(&header(span.span_context())) {
        request.headers_mut().insert(TRACEPARENT, value);
    }
    let context = context.with_span(span);
    let response = next.run(request).with_context(context.clone()).await;
    let (span, status) = (context.span(), response.status());
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(status.to_string()));
    }
    span.end();
    response
}
