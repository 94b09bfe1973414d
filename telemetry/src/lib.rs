//! What a process tells while it runs, beside its metrics: log lines ([`logs`]) and traces. One place for both services.
//!
//! # Traces
//! OpenTelemetry's API as it is, without a bridge from `tracing`: most legs of a command's way are known only once they are over,
//! and belong to a trace that began in another process ([`record`]). Only requests under way are spans while they last
//! ([`serve`], [`within`]).
//!
//! Where no endpoint is set, each of these is one look at an empty cell: nothing is parsed, made or kept.

mod http;
mod limit;
pub mod logs;
mod settings;
mod span;

pub use http::serve;
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanContext;
pub use settings::{Traces, TracesArgs};
pub use span::{Leg, is_on, named, record, sampled, traceparent, within};
