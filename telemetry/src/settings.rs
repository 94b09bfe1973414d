//! Whether and where traces are sent, by the variables that OpenTelemetry's specification names.

use crate::span::TRACER;
use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as Export};
use std::sync::atomic::{AtomicU32, Ordering};

/// Traces.
#[derive(Clone, Debug, clap::Args)]
pub struct TracesArgs {
    /// A receiver of traces that speaks OTLP over HTTP, such as http://127.0.0.1:4318; without one nothing is traced
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Which traces are kept. With `parentbased_…`, whoever began a trace has decided
    #[arg(long, env = "OTEL_TRACES_SAMPLER", default_value = "parentbased_traceidratio", value_name = "SAMPLER")]
    traces_sampler: Which,
    /// The share of traces that `…traceidratio` keeps, from 0 to 1
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 0.01, value_name = "SHARE")]
    traces_share: f64,
    /// Whose spans they are; by default what this process is
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    service_name: Option<String>,
}

/// OpenTelemetry's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Which {
    AlwaysOn,
    AlwaysOff,
    Traceidratio,
    ParentbasedAlwaysOn,
    ParentbasedAlwaysOff,
    ParentbasedTraceidratio,
}

impl Which {
    fn sampler(self, share: f64) -> Sampler {
        let by_parent = |root| Sampler::ParentBased(Box::new(root));
        match self {
            Self::AlwaysOn => Sampler::AlwaysOn,
            Self::AlwaysOff => Sampler::AlwaysOff,
            Self::Traceidratio => Sampler::TraceIdRatioBased(share),
            Self::ParentbasedAlwaysOn => by_parent(Sampler::AlwaysOn),
            Self::ParentbasedAlwaysOff => by_parent(Sampler::AlwaysOff),
            Self::ParentbasedTraceidratio => by_parent(Sampler::TraceIdRatioBased(share)),
        }
    }
}

/// What keeps traces going; to be [stopped](Traces::stop), or the last seconds' spans are lost.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl TracesArgs {
    /// Begins to trace, if that is asked for. Once a process.
    ///
    /// # Errors
    /// What is set makes no sense. A receiver that isn't there is no error: it is said in the log, and spans are lost.
    pub fn start(&self, role: &'static str) -> anyhow::Result<Traces> {
        let Some(endpoint) = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(Traces(None));
        };
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.traces_share),
            "OTEL_TRACES_SAMPLER_ARG is {}: the share of traces that are kept is a number from 0 to 1",
            self.traces_share
        );
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .context("OTEL_EXPORTER_OTLP_ENDPOINT isn't the address of a receiver, such as http://127.0.0.1:4318")?;
        let name = self.service_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(role).to_owned();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Saying { exporter, failed: AtomicU32::new(0) })
            .with_sampler(self.traces_sampler.sampler(self.traces_share))
            .with_resource(Resource::builder().with_service_name(name.clone()).build())
            .build();
        anyhow::ensure!(TRACER.set(provider.tracer("projector")).is_ok(), "traces were begun before");
        tracing::info!(service = name, sampler = ?self.traces_sampler, share = self.traces_share, "tracing");
        Ok(Traces(Some(provider)))
    }
}

impl Traces {
    /// Sends what is left, for 5 s at most.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        // It blocks, and would keep the runtime from whatever else ends now.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// Says when spans can't be sent: the first time, and then ever more rarely.
#[derive(Debug)]
struct Saying {
    exporter: SpanExporter,
    failed: AtomicU32,
}

impl Export for Saying {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) if self.failed.swap(0, Ordering::Relaxed) > 0 => tracing::info!("spans are sent again"),
            Ok(()) => {}
            Err(error) => {
                let failed = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
                if failed.is_power_of_two() {
                    tracing::warn!(%error, spans, failed, "spans can't be sent: they are lost");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
