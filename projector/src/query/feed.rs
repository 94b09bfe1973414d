//! How far each live generation has come, in memory, kept current by the control store's notifications.
//!
//! One connection listens; it only marks a generation's feed as *dirty*. A task a feed reads the published progress anew
//! when the feed is dirty and somebody waits (else once a second, for the headers of answers), so that a busy projector costs a
//! quiet query service nothing, and any number of notifications during a read cost one more read.
//!
//! No wake-up is lost: a waiter subscribes before it looks; the dirty mark is taken off before the read that honours it, so a
//! notification that comes during the read asks for another; and after each reconnect all feeds are dirty, because what was
//! notified in between is unknown. A read each second, whatever was notified, is the safety net.

use crate::control::{Control, GENERATIONS_CHANNEL, PROGRESS_CHANNEL, ProgressMap};
use async_trait::async_trait;
use sqlx::postgres::PgListener;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// Where published progress is read.
#[async_trait]
pub(crate) trait ProgressSource: Send + Sync + 'static {
    /// The progress of a generation; an error in words.
    async fn read(&self, generation_id: i64) -> Result<ProgressMap, String>;
}

#[async_trait]
impl ProgressSource for Control {
    async fn read(&self, generation_id: i64) -> Result<ProgressMap, String> {
        self.progress(generation_id).await.map_err(|e| e.to_string())
    }
}

/// One generation's published progress as last read.
pub(crate) struct Feed {
    generation_id: i64,
    snapshot: watch::Sender<Arc<ProgressMap>>,
    /// Whether something was notified since the last read began.
    dirty: AtomicBool,
    /// How often something was notified.
    notified: AtomicU64,
    /// How many sleep on the snapshot.
    waiting: AtomicUsize,
    /// Wakes the reading task.
    wake: Notify,
    /// Whether the last read succeeded.
    readable: AtomicBool,
}

/// A look at a feed that can wait for the next change.
pub(crate) struct Subscription {
    feed: Arc<Feed>,
    receiver: watch::Receiver<Arc<ProgressMap>>,
    counted: bool,
}

impl Feed {
    pub(crate) fn new(generation_id: i64) -> Arc<Self> {
        Arc::new(Self {
            generation_id,
            snapshot: watch::Sender::new(Arc::default()),
            dirty: AtomicBool::new(true),
            notified: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
            readable: AtomicBool::new(false),
        })
    }

    /// Something was published.
    pub(crate) fn notify(&self) {
        self.notified.fetch_add(1, Ordering::SeqCst);
        self.dirty.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// A number that grows whenever the read model has moved on.
    pub(crate) fn moved(&self) -> u64 {
        self.notified.load(Ordering::SeqCst)
    }

    /// What was last read; the truth is this or more.
    pub(crate) fn snapshot(&self) -> Arc<ProgressMap> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Whether progress could be read the last time.
    pub(crate) fn readable(&self) -> bool {
        self.readable.load(Ordering::SeqCst)
    }

    /// Waits until progress was read for the first time.
    pub(crate) async fn first(&self) {
        let mut receiver = self.snapshot.subscribe();
        if !self.readable() {
            // The sender is ours: it can't be gone.
            _ = receiver.changed().await;
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { feed: Arc::clone(self), receiver: self.snapshot.subscribe(), counted: false }
    }

    /// Reads whenever it must; ends only with its task.
    pub(crate) async fn follow(self: Arc<Self>, source: Arc<dyn ProgressSource>) {
        let mut back_off = BACK_OFF_MIN;
        let mut due = Instant::now();
        loop {
            let woken = timeout_at(due, self.wake.notified()).await.is_ok();
            let awaited = self.waiting.load(Ordering::SeqCst) > 0;
            if woken && !(awaited && self.dirty.load(Ordering::SeqCst)) {
                continue;
            }
            due = Instant::now() + LOOK_EVERY;
            self.dirty.store(false, Ordering::SeqCst);
            let read = timeout(READ_TIMEOUT, source.read(self.generation_id)).await;
            match read.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(progress) => {
                    self.readable.store(true, Ordering::SeqCst);
                    self.snapshot.send_replace(Arc::new(progress));
                    back_off = BACK_OFF_MIN;
                }
                Err(error) => {
                    if self.readable.swap(false, Ordering::SeqCst) {
                        tracing::warn!(generation_id = self.generation_id, %error, "progress can't be read");
                    }
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                    self.notify();
                }
            }
        }
    }
}

impl Subscription {
    /// What was last read. A change after this call ends [`Subscription::changed`].
    pub(crate) fn look(&mut self) -> Arc<ProgressMap> {
        Arc::clone(&self.receiver.borrow_and_update())
    }

    /// Sleeps until progress was read anew since the last look.
    pub(crate) async fn changed(&mut self) {
        if !self.counted {
            self.counted = true;
            self.feed.waiting.fetch_add(1, Ordering::SeqCst);
            // What was notified while nobody waited is read now.
            self.feed.wake.notify_one();
        }
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn readable(&self) -> bool {
        self.feed.readable()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.counted {
            self.feed.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The feeds by generation, for the one that listens.
#[derive(Default)]
pub(crate) struct Feeds {
    feeds: Mutex<HashMap<i64, Arc<Feed>>>,
    connected: AtomicBool,
    /// Wakes whoever follows the catalog.
    pub(crate) catalog: Notify,
}

impl Feeds {
    /// The feeds that are listened for from now on.
    pub(crate) fn replace(&self, feeds: impl Iterator<Item = Arc<Feed>>) {
        *self.lock() = feeds.map(|feed| (feed.generation_id, feed)).collect();
    }

    /// Whether notifications arrive.
    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }

    /// Listens, and connects again with growing pauses; ends only with its task.
    pub(crate) async fn listen(self: Arc<Self>, control: Control) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            match self.listen_once(&control, &mut back_off).await {
                Ok(()) => tracing::warn!("connection for notifications lost"),
                Err(error) => tracing::warn!(%error, "can't listen for notifications"),
            }
            self.connected.store(false, Ordering::SeqCst);
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    async fn listen_once(&self, control: &Control, back_off: &mut Duration) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(control.pool()).await?;
        listener.eager_reconnect(false);
        listener.listen_all([PROGRESS_CHANNEL, GENERATIONS_CHANNEL]).await?;
        *back_off = BACK_OFF_MIN;
        self.connected.store(true, Ordering::SeqCst);
        for feed in self.lock().values() {
            feed.notify();
        }
        self.catalog.notify_one();
        while let Some(notification) = listener.try_recv().await? {
            if notification.channel() == GENERATIONS_CHANNEL {
                self.catalog.notify_one();
                continue;
            }
            let id = notification.payload().parse().ok();
            if let Some(feed) = id.and_then(|id: i64| self.lock().get(&id).cloned()) {
                feed.notify();
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
