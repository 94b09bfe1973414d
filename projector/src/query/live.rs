//! What is served: the declared queries of the live generations, kept in step with the control store.
//!
//! The service says which version of the catalog it answers from, several times a second and whenever the control store
//! notifies; the answer tells the newest. When another generation is live, the new catalog is built, then published, and once
//! the last read of a former generation is out, the service says that it follows: a swap waits for that. Who could say nothing
//! for a second (held still, cut off) asks before the next answer.
//!
//! Each second the live generations are read anew; a change of one's queries is served from then on, without a restart. What
//! can't be read or compiled changes nothing of what is served. While the control store is down, the last known catalog
//! stands, so reads go on.

use super::endpoint::Endpoint;
use super::feed::{Feed, Feeds, ProgressSource};
use super::gate::Gate;
use super::path::Routes;
use super::store::{Reader, http_client};
use super::tally::Tally;
use crate::control::{self, Control, ControlError, Generation, HostStatus, SERVE_LEASE_MS};
use crate::event::Catalog;
use crate::host::LagMeter;
use crate::projection::{Compiled, ReadModelKind, Source};
use crate::sink::StoreUrls;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How often the service says which version it answers from: several times within its lease.
const SAY_EVERY: Duration = Duration::from_millis(300);
/// How long a request waits to make sure of the version, where the service could say nothing for a while.
const MAKE_SURE_MAX: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// One live generation as it is served.
pub(crate) struct ReadModel {
    pub(crate) generation: Generation,
    pub(crate) kind: ReadModelKind,
    pub(crate) reader: Reader,
    pub(crate) feed: Arc<Feed>,
    pub(crate) gate: Arc<Gate>,
    endpoints: Vec<Arc<Endpoint>>,
    lag: Arc<Lag>,
}

/// A read model's lag; shared by the versions of its queries.
struct Lag {
    /// In ms; negative when not known.
    now_ms: AtomicI64,
    meter: Mutex<LagMeter>,
    tally: Mutex<Tally>,
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

    /// A query came to its end: see [`Tally::note`].
    pub(crate) fn note(&self, failed: bool, took: Option<Duration>) {
        self.lag.tally.lock().unwrap_or_else(PoisonError::into_inner).note(failed, took);
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
        for (endpoint, path) in model.endpoints.iter().flat_map(|e| e.paths().map(move |path| (e, path))) {
            let served = Arc::new(Served { model: Arc::clone(&model), endpoint: Arc::clone(endpoint) });
            if let Err(other) = self.routes.add(path.clone(), served) {
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
    /// Who we are to the control store, and the version that we have said.
    id: Uuid,
    version: AtomicI64,
    /// Of generations that aren't served any more, and may still be read.
    closed: Mutex<Vec<Arc<Gate>>>,
    /// Generations that may go live soon: compiled, connected and followed before both stand still for it.
    prepared: Mutex<BTreeMap<i64, Arc<ReadModel>>>,
    /// When we asked for the newest version that we serve.
    made_sure: watch::Sender<Instant>,
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
            id: Uuid::now_v7(),
            version: AtomicI64::new(0),
            closed: Mutex::default(),
            prepared: Mutex::default(),
            made_sure: watch::Sender::new(Instant::now()),
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
        let mut next_look = Instant::now();
        loop {
            let whole = Instant::now() >= next_look;
            let looked = timeout(LOOK_TIMEOUT, self.look(&control, &source, whole)).await;
            let looked = looked.map_or_else(|_| Err("no answer in time".to_owned()), |l| l.map_err(|e| e.to_string()));
            if whole {
                next_look = Instant::now() + LOOK_EVERY;
            }
            if self.reachable.swap(looked.is_ok(), Ordering::Relaxed) != looked.is_ok() {
                match looked {
                    Ok(()) => tracing::info!("the control store answers"),
                    Err(error) => {
                        tracing::warn!(%error, "the control store doesn't answer; what is known is served on")
                    }
                }
            }
            _ = timeout(SAY_EVERY, self.feeds.catalog.notified()).await;
        }
    }

    /// Says our version; follows where there is a newer one. `whole`: looks at files and lag too.
    async fn look(&self, control: &Control, source: &Arc<dyn ProgressSource>, whole: bool) -> Result<(), ControlError> {
        let asked = Instant::now();
        let said = self.version.load(Ordering::Relaxed);
        let newest = control.serves(self.id, said).await?;
        if whole || newest != said {
            let (version, generations) = control.catalog().await?;
            self.bind(generations, source).await;
            self.made_sure.send_replace(asked);
            self.wait_for_reads(control, said).await?;
            self.version.store(version, Ordering::Relaxed);
            if version != said {
                control.serves(self.id, version).await?;
                tracing::info!(version, "this version of the catalog is served");
            }
        } else {
            self.made_sure.send_replace(asked);
        }
        if whole {
            self.prepare(control.upcoming().await?, source);
        }
        if let Some(live) = self.live().filter(|_| whole) {
            let reports = control.host_status().await?;
            live.models.values().for_each(|model| measure(model, &reports));
            let served = live.models.iter().map(|(id, model)| {
                let sum = model.lag.tally.lock().unwrap_or_else(PoisonError::into_inner).turn();
                control::Served { generation_id: *id, answered: sum.answered, failed: sum.failed, p99_ms: sum.p99_ms }
            });
            control.report_served(self.id, &served.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Waits until nobody reads the generations that aren't served any more; says meanwhile that we don't follow yet.
    async fn wait_for_reads(&self, control: &Control, said: i64) -> Result<(), ControlError> {
        loop {
            let next = self.closed.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
            let Some(gate) = next else { return Ok(()) };
            while timeout(SAY_EVERY, gate.emptied()).await.is_err() {
                control.serves(self.id, said).await?;
            }
            self.closed.lock().unwrap_or_else(PoisonError::into_inner).pop();
        }
    }

    /// Makes sure, where it isn't, that what is served was the newest a moment ago. Without the control store what is known is
    /// served on: nothing can have changed while it was down for all.
    pub(crate) async fn make_sure(&self) {
        let mut made_sure = self.made_sure.subscribe();
        let lease = Duration::from_millis(SERVE_LEASE_MS);
        let is_fresh = |at: &Instant| at.elapsed() < lease;
        if is_fresh(&made_sure.borrow_and_update()) || !self.reachable() {
            return;
        }
        self.feeds.catalog.notify_one();
        _ = timeout(MAKE_SURE_MAX, made_sure.wait_for(is_fresh)).await;
    }

    /// Stops saying anything: nobody needs to wait for us.
    pub(crate) async fn leave(&self, control_url: &str) {
        let leave = async { Control::connect(control_url).await?.serves_no_more(self.id).await };
        _ = timeout(LOOK_TIMEOUT, leave).await;
    }

    /// Makes what may go live soon ready to be served, so that a swap has only to bind it.
    fn prepare(&self, upcoming: Vec<Generation>, source: &Arc<dyn ProgressSource>) {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.retain(|id, _| upcoming.iter().any(|generation| generation.generation_id == *id));
        for generation in upcoming {
            let id = generation.generation_id;
            if prepared.contains_key(&id) {
                continue;
            }
            // What can't be compiled is said once it is live.
            if let Ok(model) = self.compile(generation, None, source) {
                prepared.insert(id, model);
            }
        }
    }

    /// Serves these generations, once the progress of what is new was read.
    async fn bind(&self, generations: Vec<Generation>, source: &Arc<dyn ProgressSource>) {
        let before = self.live();
        let Some(live) = self.build_if_new(generations, before.as_deref(), source) else { return };
        let known = |id: &i64| before.as_deref().is_some_and(|before| before.models.contains_key(id));
        for (_, model) in live.models.iter().filter(|(id, _)| !known(id)) {
            _ = timeout(LOOK_EVERY, model.feed.first()).await;
        }
        self.publish(live, before.as_deref());
    }

    /// Serves these generations from now on, if they or their files aren't those that are served already.
    #[cfg(test)]
    pub(crate) fn serve(&self, generations: Vec<Generation>, source: &Arc<dyn ProgressSource>) {
        let before = self.live();
        if let Some(live) = self.build_if_new(generations, before.as_deref(), source) {
            self.publish(live, before.as_deref());
        }
    }

    fn build_if_new(
        &self,
        generations: Vec<Generation>,
        before: Option<&Live>,
        source: &Arc<dyn ProgressSource>,
    ) -> Option<Live> {
        let made_from: Vec<_> = generations.iter().map(|g| (g.generation_id, g.config.clone())).collect();
        if before.is_some_and(|live| live.made_from == made_from) {
            return None;
        }
        Some(self.build(generations, made_from, before, source))
    }

    fn publish(&self, live: Live, before: Option<&Live>) {
        let live = Arc::new(live);
        self.feeds.replace(live.models.values().map(|m| Arc::clone(&m.feed)));
        // What was notified before they were listened for is read now.
        live.models.values().for_each(|m| m.feed.notify());
        let gone: Vec<_> = before
            .into_iter()
            .flat_map(|before| &before.models)
            .filter(|(id, _)| !live.models.contains_key(id))
            .map(|(_, model)| Arc::clone(&model.gate))
            .collect();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live);
        // Whom this turns away finds the new ones.
        gone.iter().for_each(|gate| gate.close());
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
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
            let ready = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            let known = before.and_then(|live| live.models.get(&id)).or(ready.as_ref());
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
        if let Some(known) = known.filter(|known| known.generation.config == generation.config) {
            return Ok(Arc::clone(known));
        }
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
        let kind = compiled.kind;
        let gate = known.map_or_else(Arc::default, |model| Arc::clone(&model.gate));
        Ok(Arc::new(ReadModel { generation, kind, reader, feed, gate, endpoints, lag }))
    }
}

fn follow_progress(generation_id: i64, source: &Arc<dyn ProgressSource>) -> (Arc<Feed>, Arc<Lag>) {
    let feed = Feed::new(generation_id);
    let follower = tokio::spawn(Arc::clone(&feed).follow(Arc::clone(source))).abort_handle();
    (feed, Arc::new(Lag { now_ms: AtomicI64::new(-1), meter: Mutex::default(), tally: Mutex::default(), follower }))
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
