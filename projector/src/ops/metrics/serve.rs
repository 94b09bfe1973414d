//! What a query service has.

use super::names::Metric;
use super::page::Page;
use crate::query::Measures;

/// Its page.
#[must_use]
pub fn serve(measures: &Measures) -> Page {
    let mut page = Page::default();
    measures.requests(|endpoint, status, seconds| {
        page.distribution(Metric::QuerySeconds, &[endpoint, &status.to_string()], seconds);
    });
    measures.waits(|read_model, outcome, count| page.count(Metric::QueryWaits, &[read_model, outcome], count));
    measures.wait_seconds(|read_model, seconds| page.distribution(Metric::QueryWaitSeconds, &[read_model], seconds));
    page.count(Metric::QueryCache, &["hit"], measures.cache_hits.get());
    page.count(Metric::QueryCache, &["miss"], measures.cache_misses.get());
    page.count(Metric::QueryShed, &["overloaded"], measures.overloaded.get());
    page.count(Metric::QueryShed, &["timed_out"], measures.timed_out.get());
    page
}
