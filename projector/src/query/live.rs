//! What is served: the declared queries of the live generations, kept in step with the control store.
//!
//! Each second the live generations are read anew; a change of one's queries is served from then on, without a restart. What
//! can't be read or compiled changes nothing of what is served. While the control store is down, the last known catalog
//! stands, so reads go on.

use super::endpoint::Endpoint;
use super::feed::{Feed, Feeds, ProgressSource};
use super::lag::LagMeter;
use super::path::Routes;
use super::store::{Reader, http_client};
use crate::control::{Control, ControlError, Generation, HostStatus};
use crate::event::Catalog;
use crate::projection::{Compiled, Source};
use crate::sink::StoreUrls;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// One live generation as it is served.
pub(crate) struct ReadModel {
    pub(crate) generation: Generation,
    pub(crate) reader: Reader,
    pub(crate) feed: Arc<Feed>,
    endpoints: Vec<Arc<Endpoint>>,
    lag: Arc<Lag>,
}

/// A read model's lag; shared by the versions of its queries.
struct Lag {
    /// In ms; negative when not known.
    now_ms: AtomicI64,
    meter: Mutex<LagMeter>,
    follower: AbortHandle,
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl ReadModel {
    pub(crate) fn name(&self) -> &str {
        &self.generation.read_model
    }

    /// As last reported; `None` when no host reports.
    pub(crate) fn lag_ms(&self) -> Option<u64> {
        u64::try_from(self.lag.now_ms.load(Ordering::Relaxed)).ok()
    }
}

/// One query of one read model.
pub(crate) struct Served {
    pub(crate) model: Arc<ReadModel>,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// All that is served at a moment.
pub(crate) struct Live {
    pub(crate) models: BTreeMap<i64, Arc<ReadModel>>,
    pub(crate) routes: Routes<Arc<Served>>,
    /// Read models whose queries can't be served as they are now, with the reason.
    pub(crate) broken: BTreeMap<String, String>,
    /// The generations with their files that this was made from.
    made_from: Vec<(i64, String)>,
}

impl Live {
    fn add(&mut self, model: Arc<ReadModel>) {
        for endpoint in &model.endpoints {
            let served = Arc::new(Served { model: Arc::clone(&model), endpoint: Arc::clone(endpoint) });
            if let Err(other) = self.routes.add(endpoint.path.clone(), served) {
                let reason = format!("{} has a query of the same path, which is served", other.model.name());
                tracing::error!(read_model = model.name(), %reason, "a query isn't served");
                self.broken.insert(model.name().to_owned(), reason);
            }
        }
        self.models.insert(model.generation.generation_id, model);
    }
}

/// Keeps [`Live`] in step.
pub(crate) struct Keeper {
    live: RwLock<Option<Arc<Live>>>,
    pub(crate) feeds: Arc<Feeds>,
    reachable: std::sync::atomic::AtomicBool,
    urls: StoreUrls,
    schemas: Catalog,
    client: reqwest::Client,
}

impl Keeper {
    pub(crate) fn new(urls: StoreUrls, schemas: Catalog) -> anyhow::Result<Arc<Self>> {
        let client = http_client(&urls)?;
        Ok(Arc::new(Self {
            live: RwLock::default(),
            feeds: Arc::default(),
            reachable: false.into(),
            urls,
            schemas,
            client,
        }))
    }

    /// What is served now; `None` until the control store was read for the first time.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the control store answered the last time.
    pub(crate) fn reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Follows the control store; ends only with its task.
    pub(crate) async fn follow(self: Arc<Self>, control_url: String) {
        let control = loop {
            match Control::connect(&control_url).await {
                Ok(control) => break control,
                Err(error) => tracing::warn!(%error, "the control store can't be reached yet"),
            }
            sleep(LOOK_EVERY).await;
        };
        let listener = tokio::spawn(Arc::clone(&self.feeds).listen(control.clone()));
        let _stop_with_us = StopOnDrop(listener.abort_handle());
        let source: Arc<dyn ProgressSource> = Arc::new(control.clone());
        loop {
            let looked = timeout(LOOK_TIMEOUT, self.look(&control, &source)).await;
            let looked = looked.map_or_else(|_| Err("no answer in time".to_owned()), |l| l.map_err(|e| e.to_string()));
            if self.reachable.swap(looked.is_ok(), Ordering::Relaxed) != looked.is_ok() {
                match looked {
                    Ok(()) => tracing::info!("the control store answers"),
                    Err(error) => {
                        tracing::warn!(%error, "the control store doesn't answer; what is known is served on")
                    }
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, control: &Control, source: &Arc<dyn ProgressSource>) -> Result<(), ControlError> {
        let generations = control.live().await?;
        let reports = control.host_status().await?;
        self.serve(generations, source);
        if let Some(live) = self.live() {
            live.models.values().for_each(|model| measure(model, &reports));
        }
        Ok(())
    }

    /// Serves these generations from now on, if they or their files aren't those that are served already.
    pub(crate) fn serve(&self, generations: Vec<Generation>, source: &Arc<dyn ProgressSource>) {
        let before = self.live();
        let made_from: Vec<_> = generations.iter().map(|g| (g.generation_id, g.config.clone())).collect();
        if before.as_deref().is_some_and(|live| live.made_from == made_from) {
            return;
        }
        let live = Arc::new(self.build(generations, made_from, before.as_deref(), source));
        self.feeds.replace(live.models.values().map(|m| Arc::clone(&m.feed)));
        // What was notified before they were listened for is read now.
        live.models.values().for_each(|m| m.feed.notify());
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live);
    }

    fn build(
        &self,
        generations: Vec<Generation>,
        made_from: Vec<(i64, String)>,
        before: Option<&Live>,
        source: &Arc<dyn ProgressSource>,
    ) -> Live {
        let mut live = Live { models: BTreeMap::new(), routes: Routes::new(), broken: BTreeMap::new(), made_from };
        for generation in generations {
            let (id, name) = (generation.generation_id, generation.read_model.clone());
            let known = before.and_then(|live| live.models.get(&id));
            let model = match self.compile(generation, known, source) {
                Ok(model) => model,
                Err(reason) => {
                    tracing::error!(read_model = name, %reason, served = known.is_some(), "its queries as they are now can't be served");
                    live.broken.insert(name, reason);
                    let Some(known) = known else { continue };
                    Arc::clone(known)
                }
            };
            live.add(model);
        }
        tracing::info!(read_models = live.models.len(), queries = live.routes.len(), "the catalog is served");
        live
    }

    fn compile(
        &self,
        generation: Generation,
        known: Option<&Arc<ReadModel>>,
        source: &Arc<dyn ProgressSource>,
    ) -> Result<Arc<ReadModel>, String> {
        let file = Source { name: generation.id().into(), text: generation.config.as_str().into() };
        let said = |findings: Vec<crate::projection::Finding>| {
            findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let compiled = Compiled::new(&file, &self.schemas).map_err(said)?;
        let endpoints = Endpoint::compile_all(&file, &compiled).map_err(said)?.into_iter().map(Arc::new).collect();
        let reader = match known {
            Some(model) => model.reader.clone(),
            None => Reader::open(&compiled.projection.store, &generation, &compiled.document, &self.urls, &self.client)
                .map_err(|e| e.to_string())?,
        };
        let (feed, lag) = match known {
            Some(model) => (Arc::clone(&model.feed), Arc::clone(&model.lag)),
            None => follow_progress(generation.generation_id, source),
        };
        Ok(Arc::new(ReadModel { generation, reader, feed, endpoints, lag }))
    }
}

fn follow_progress(generation_id: i64, source: &Arc<dyn ProgressSource>) -> (Arc<Feed>, Arc<Lag>) {
    let feed = Feed::new(generation_id);
    let follower = tokio::spawn(Arc::clone(&feed).follow(Arc::clone(source))).abort_handle();
    (feed, Arc::new(Lag { now_ms: AtomicI64::new(-1), meter: Mutex::default(), follower }))
}

fn measure(model: &ReadModel, reports: &[HostStatus]) {
    let own: Vec<_> = reports.iter().filter(|r| r.generation_id == model.generation.generation_id).collect();
    let mut meter = model.lag.meter.lock().unwrap_or_else(PoisonError::into_inner);
    let lag_ms = meter.observe(&own, chrono::Utc::now());
    model.lag.now_ms.store(lag_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(-1), Ordering::Relaxed);
}

struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
