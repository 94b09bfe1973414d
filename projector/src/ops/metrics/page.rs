//! A page of metrics: samples by metric, and their text as Prometheus reads it (OpenMetrics).

use super::names::{Kind, Metric};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, EncodeMetric, LabelValueEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// What the answer calls itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label's value. The library writes it as it is, so it is escaped here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Text(String);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => encoder.write_str("\\\\")?,
                '"' => encoder.write_str("\\\"")?,
                '\n' => encoder.write_str("\\n")?,
                c => encoder.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
enum Value {
    Whole(i64),
    Real(f64),
    Count(u64),
    Distribution(Box<Histogram>),
}

type Labels = Vec<(&'static str, Text)>;

/// Samples, by metric.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<Metric, Vec<(Labels, Value)>>);

impl Page {
    /// A gauge that is a whole number.
    pub fn whole(&mut self, metric: Metric, labels: &[&str], value: i64) {
        self.add(metric, labels, Value::Whole(value));
    }

    /// A gauge.
    pub fn real(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Real(value));
    }

    /// A counter.
    pub fn count(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, Value::Count(value));
    }

    /// A distribution as it is now.
    pub fn distribution(&mut self, metric: Metric, labels: &[&str], value: &Histogram) {
        self.add(metric, labels, Value::Distribution(Box::new(value.clone())));
    }

    fn add(&mut self, metric: Metric, labels: &[&str], value: Value) {
        let definition = metric.definition();
        debug_assert_eq!(definition.labels.len(), labels.len(), "{}", definition.name);
        debug_assert_eq!(
            definition.kind,
            match value {
                Value::Whole(_) | Value::Real(_) => Kind::Gauge,
                Value::Count(_) => Kind::Counter,
                Value::Distribution(_) => Kind::Histogram,
            },
            "{}",
            definition.name
        );
        let labels = definition.labels.iter().zip(labels).map(|(name, value)| (*name, Text((*value).to_owned())));
        self.0.entry(metric).or_default().push((labels.collect(), value));
    }

    /// Its text.
    #[must_use]
    pub fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics not written");
        }
        text
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, samples) in &self.0 {
            let definition = metric.definition();
            // The encoder adds it to each sample.
            let name = definition.name.strip_suffix("_total").unwrap_or(definition.name);
            let kind = match definition.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, definition.help, None, kind)?;
            for (labels, value) in samples {
                let mut one = family.encode_family(labels)?;
                match value {
                    Value::Whole(value) => one.encode_gauge(value)?,
                    Value::Real(value) => one.encode_gauge(value)?,
                    Value::Count(value) => one.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                    Value::Distribution(histogram) => histogram.encode(one)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.count(Metric::EventsProcessed, &["loans", "1"], 7);
        page.real(Metric::LagSeconds, &["a\"b\\c\nd", "1"], 0.25);
        page.whole(Metric::PartitionNextOffset, &["loans", "1", "events.loan", "3"], 42);
        let histogram = Histogram::new([1.0, 5.0]);
        histogram.observe(3.0);
        page.distribution(Metric::BatchEvents, &["loans", "1"], &histogram);
        let text = page.render();
        for line in [
            "# TYPE projection_events_processed counter",
            "projection_events_processed_total{read_model=\"loans\",generation=\"1\"} 7",
            "projection_lag_seconds{read_model=\"a\\\"b\\\\c\\nd\",generation=\"1\"} 0.25",
            "projection_partition_next_offset{read_model=\"loans\",generation=\"1\",topic=\"events.loan\",partition=\"3\"} 42",
            "projection_batch_events_bucket{le=\"5.0\",read_model=\"loans\",generation=\"1\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }
}
