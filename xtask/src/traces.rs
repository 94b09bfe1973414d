//! A receiver of traces, as any that takes OTLP over HTTP: what the tests look at, and where `./dev bench latency` has the legs
//! of an event's way from.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use prost::Message;

/// Of a span, what is asked for here. Ids are in hex, times in nanoseconds since 1970.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of who made it.
    pub service: String,
    /// Its trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's; empty if it has none.
    pub parent: String,
    /// What it is of.
    pub name: String,
    /// When it began.
    pub from: u64,
    /// When it was over.
    pub to: u64,
    /// Its attribute `event.type`.
    pub event_type: Option<String>,
    /// Ids of the spans that it has links to.
    pub links: Vec<String>,
}

/// Listens until it is dropped.
pub struct Receiver {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Receiver {
    /// On a port of loopback that is free.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let got = Arc::clone(&spans);
        let take = move |body: Bytes| {
            let status = match received(&body) {
                Ok(more) => {
                    got.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
                    StatusCode::OK
                }
                Err(error) => {
                    eprintln!("not OTLP: {error:#}");
                    StatusCode::BAD_REQUEST
                }
            };
            async move { status }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/v1/traces", post(take));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, spans, server })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, which are then forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<Span> {
        std::mem::take(&mut self.spans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

fn received(body: &[u8]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for of in ExportTraceServiceRequest::decode(body)?.resource_spans {
        let service =
            of.resource.and_then(|resource| value(&resource.attributes, "service.name")).context("no service")?;
        for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                event_type: value(&span.attributes, "event.type"),
                name: span.name,
                from: span.start_time_unix_nano,
                to: span.end_time_unix_nano,
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            });
        }
    }
    Ok(spans)
}
