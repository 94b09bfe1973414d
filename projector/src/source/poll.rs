//! The polling thread: takes messages from the client library, reads them, and puts them into the queue; a full one pauses it.

use super::kafka::{Context, DRAIN_DEADLINE, Item, Message, Read};
use crate::apply::Partition;
use crate::event::Raw;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};

/// How long a full queue may block polling before the partitions are paused.
const FULL_QUEUE_PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// The queue's end on the polling thread.
pub(super) struct Queue {
    pub(super) items: mpsc::Sender<Item>,
    pub(super) kib: Arc<Semaphore>,
    pub(super) kib_max: u32,
}

impl Queue {
    /// Gives the item back if there is no room for it.
    fn try_put(&self, mut item: Item) -> Option<Item> {
        if let Item::Message(message) = &mut item
            && message.room.is_none()
        {
            let kib = message.kib().clamp(1, self.kib_max);
            let Ok(room) = Arc::clone(&self.kib).try_acquire_many_owned(kib) else { return Some(item) };
            message.room = Some(room);
        }
        match self.items.try_send(item) {
            // nobody reads any more
            Ok(()) | Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(back)) => Some(back),
        }
    }
}

pub(super) fn poll(
    consumer: &BaseConsumer<Context>,
    queue: &Queue,
    read: &Read,
    rewinds: &std::sync::mpsc::Receiver<(Partition, i64)>,
    stop: &AtomicBool,
    fatal: &OnceLock<String>,
) {
    let mut topics = Vec::new();
    while !stop.load(Ordering::Relaxed) && !queue.items.is_closed() {
        while let Ok((partition, offset)) = rewinds.try_recv() {
            let offset = if offset == 0 { Offset::Beginning } else { Offset::Offset(offset) };
            match consumer.seek(&partition.topic, partition.number, offset, Duration::from_secs(5)) {
                Ok(()) => push(consumer, queue, stop, Item::Rewound(partition)),
                Err(error) => tracing::warn!(%error, ?partition, "seek failed; the partition was probably revoked"),
            }
        }
        consumer.context().remind(consumer);
        match consumer.poll(POLL) {
            None => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "kafka");
                if let Some((code, reason)) = consumer.client().fatal_error() {
                    fatal.get_or_init(|| format!("{code}: {reason}"));
                    break;
                }
            }
            Some(Ok(message)) => {
                let raw = raw(&message);
                let item = Item::Message(Message {
                    partition: Partition { topic: topic(&mut topics, message.topic()), number: message.partition() },
                    offset: message.offset(),
                    sent_ms: message.timestamp().to_millis(),
                    event: read(&raw),
                    raw,
                    room: None,
                });
                push(consumer, queue, stop, item);
            }
        }
    }
    consumer.unsubscribe();
    // Leaving runs the revocation, which drains the queue; then what was handled is committed.
    let deadline = Instant::now() + DRAIN_DEADLINE;
    while Instant::now() < deadline && consumer.assignment().is_ok_and(|a| a.count() > 0) {
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(20)) {
            tracing::debug!(%error, "leaving the group");
        }
    }
    consumer.context().leave();
}

/// A topic's name, one copy for all of its messages.
fn topic(known: &mut Vec<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(topic) = known.iter().find(|topic| ***topic == *name) {
        return Arc::clone(topic);
    }
    let topic: Arc<str> = name.into();
    known.push(Arc::clone(&topic));
    topic
}

/// All that a message says.
pub(super) fn raw(message: &BorrowedMessage<'_>) -> Raw {
    // What is null in the outbox comes as a header without a value.
    let valued = |value: &&[u8]| !value.is_empty();
    let all = message.headers();
    let mut headers = Vec::with_capacity(all.map_or(0, Headers::count));
    headers.extend(all.into_iter().flat_map(Headers::iter).filter_map(|h| Some((h.key, h.value.filter(valued)?))));
    Raw::new(message.key(), &headers, message.payload())
}

/// Puts an item into the queue; if that stays full, pauses the partitions and polls on until there is room.
fn push(consumer: &BaseConsumer<Context>, queue: &Queue, stop: &AtomicBool, item: Item) {
    let (mut item, full_since, mut paused) = (item, Instant::now(), false);
    let revocations = consumer.context().revocations(&item);
    while consumer.context().revocations(&item) == revocations {
        match queue.try_put(item) {
            None => break,
            Some(back) => item = back,
        }
        if !paused && full_since.elapsed() > FULL_QUEUE_PATIENCE {
            paused = consumer.assignment().and_then(|all| consumer.pause(&all)).is_ok();
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if paused {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                // A partition that was assigned meanwhile isn't paused: read its message again later.
                let again = consumer.seek(
                    message.topic(),
                    message.partition(),
                    Offset::Offset(message.offset()),
                    Duration::from_secs(1),
                );
                if let Err(error) = again {
                    tracing::warn!(%error, "can't put a message back");
                }
                paused = consumer.assignment().and_then(|all| consumer.pause(&all)).is_ok();
            }
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if paused && let Err(error) = consumer.assignment().and_then(|all| consumer.resume(&all)) {
        tracing::error!(%error, "can't resume reading");
    }
}
