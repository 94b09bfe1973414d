//! Metrics for Prometheus: their names, and who has which numbers.

mod host;
mod names;
mod page;
mod serve;

pub use host::{host, monitored};
pub use names::{Definition, Kind, Metric, Role, document};
pub use page::{CONTENT_TYPE, Page};
pub use serve::serve;

use axum::http::header::CONTENT_TYPE as HEADER;
use axum::response::{IntoResponse, Response};

/// A page as an answer.
#[must_use]
pub fn answer(page: Page) -> Response {
    ([(HEADER, CONTENT_TYPE)], page.render()).into_response()
}
