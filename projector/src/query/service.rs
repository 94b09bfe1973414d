//! What all requests share.

use super::cache::Cached;
use super::live::Keeper;
use super::measures::Measures;
use super::write_side::WriteSide;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many at a time.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceLimits {
    /// Requests at a time, those that wait included; more are turned away with 503
    #[arg(long = "requests-max", env = "QUERY_REQUESTS_MAX", default_value_t = 4_096)]
    pub requests_max: usize,
    /// Subscribers (server-sent events) at a time; more are turned away with 503
    #[arg(long = "subscribers-max", env = "QUERY_SUBSCRIBERS_MAX", default_value_t = 1_000)]
    pub subscribers_max: usize,
    /// Web origins whose scripts may read answers, `https://shop.example`, comma-separated; `*` for all. None by default
    #[arg(long = "cors-origins", env = "QUERY_CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<String>,
    /// Answers at once, whatever is asked: for the test of the test of read-your-writes
    #[arg(long = "fault-no-wait", env = "PROJECTOR_FAULT_NO_WAIT", hide = true)]
    pub fault_no_wait: bool,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self { requests_max: 4_096, subscribers_max: 1_000, cors_origins: Vec::new(), fault_no_wait: false }
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) write_side: Option<WriteSide>,
    pub(crate) cache: Cached,
    pub(crate) measures: Arc<Measures>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) subscribers: Arc<Semaphore>,
    /// Once the service is asked to stop: streams end, others may.
    pub(crate) stopping: CancellationToken,
    /// No request waits for anything: what a broken service would do.
    pub(crate) fault_no_wait: bool,
}

impl Service {
    pub(crate) fn new(keeper: Arc<Keeper>, write_side: Option<WriteSide>, limits: &ServiceLimits) -> Self {
        Self {
            keeper,
            write_side,
            cache: Cached::default(),
            measures: Arc::default(),
            permits: Arc::new(Semaphore::new(limits.requests_max)),
            subscribers: Arc::new(Semaphore::new(limits.subscribers_max)),
            stopping: CancellationToken::new(),
            fault_no_wait: limits.fault_no_wait,
        }
    }
}
