//! Filling a generation from the event store, where Kafka no longer has all of its history, up to a **seam** from which Kafka
//! goes on.
//!
//! For each topic: (1) the offsets E at which its partitions end; (2) a snapshot S of the event store that sees every
//! transaction that had committed by then ([`History::open_behind`]); (3) what S sees is folded, in an order that keeps
//! invariant I0; (4) the partitions go on in Kafka from E.
//!
//! Nothing is missing: an event below E had been committed before E was asked for, so S sees it; one that S doesn't see is
//! at or above E. Nothing comes twice: what is at or above E and was seen by S is known by the watermark, since (3) keeps I0 and
//! an event that S didn't see was written by a transaction that hadn't ended when S's newest was written.
//!
//! In the other order (S, then E) an event that was committed in between would be in neither.
//!
//! S may see more than Kafka has by now: Debezium is behind. So (5) it is awaited that the live generation has from Kafka what S saw.
//! From then on two generations at one place have the same events, which a comparison and a way back rely on.

use super::job::Job;
use super::sight::said;
use super::site::{JobError, Status, status_of};
use crate::apply::{Occurrence, Partition};
use crate::control::{Ends, Generation, HistoryRead, Rebuild};
use crate::host::Past;
use crate::source::{History, Selection, partition_of};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long a transaction may keep the snapshot waiting before that is said; then it is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_millis(500);
/// Messages that live read models haven't handled, above which the event store isn't read on.
const LIVE_BEHIND_MAX: i64 = 500;
const LIVE_PAUSE: Duration = Duration::from_millis(500);

/// Reads all of it. False if that ended before: an event can't be taken, or somebody else drives the rebuild by now.
pub(super) async fn fill(
    job: &mut Job,
    rebuild: &Rebuild,
    target: &Generation,
    tell: &mut impl FnMut(&Status, Option<&str>),
) -> Result<bool, JobError> {
    let site = job.site.clone();
    let name = &rebuild.read_model;
    let (Some(url), Some(decoder)) = (&site.event_store, &site.decoder) else {
        return Err(JobError::HistoryGone(format!(
            "{name}: its history is to be read from the event store, and {} doesn't know where that is; give it \
             --write-database-url (WRITE_DATABASE_URL)",
            site.name
        )));
    };
    let mut past = Past::take_over(target, &site.control, &site.catalog, decoder, &site.stores).await?;
    let (mut read, mut next_say) = (HistoryRead::default(), Instant::now());
    let (mut began, mut since) = (Instant::now(), 0);
    let live = site.control.progress(rebuild.replaces).await?;
    let mut ahead: Vec<(Partition, Occurrence)> = Vec::new();
    for (topic, count) in &target.topics {
        let of = |number| Partition { topic: topic.as_str().into(), number };
        if (0..*count).all(|number| past.is_complete(&of(number))) {
            continue;
        }
        let Some(aggregate_type) = topic.strip_prefix("events.") else {
            return Err(JobError::HistoryGone(format!("{name}: {topic} isn't filled from the event store")));
        };
        // First the ends, then the snapshot.
        let ends: Ends =
            site.edges.of(topic, *count).await?.into_iter().map(|(number, (_, end))| (of(number), end)).collect();
        let selection =
            Selection { aggregate_type: aggregate_type.to_owned(), from_position: 0, aggregate_ids: Vec::new() };
        let mut history = History::open_behind(url, &selection, PATIENCE).await?;
        read.total += i64::try_from(history.survey().await?.events).unwrap_or(i64::MAX);
        loop {
            let events = history.events().await?;
            if events.is_empty() {
                break;
            }
            for event in &events {
                let partition = of(partition_of(&event.aggregate_id, *count));
                if let Some(progress) = live
                    .get(&partition)
                    .filter(|live| live.epoch.as_deref() == Some(event.epoch()) && !rebuild.options.repair)
                    && let Some(occurrence) =
                        event.occurrence().filter(|(txid, id, sequence)| !progress.has(*txid, id, *sequence))
                {
                    ahead.push((partition.clone(), occurrence));
                }
                past.take(&partition, event.raw()).await?;
            }
            read.done += i64::try_from(events.len()).unwrap_or(0);
            since += events.len();
            if let Some(a_second) = rebuild.options.throttle {
                let events = u32::try_from(since).unwrap_or(u32::MAX);
                tokio::time::sleep_until(began + Duration::from_secs(1) * events / a_second.max(1)).await;
            }
            if Instant::now() < next_say {
                continue;
            }
            (began, since) = (Instant::now(), 0);
            if job.lost.load(Ordering::Relaxed) {
                return Ok(false);
            }
            site.control.rebuild_history(job.hold, read).await?;
            loop {
                let status = status_of(&site, &site.control.rebuild(rebuild.rebuild_id).await?).await?;
                tell(&status, None);
                if status.live_behind <= LIVE_BEHIND_MAX || job.lost.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(LIVE_PAUSE).await;
            }
            site.control.inherit_skips(rebuild.generation_id).await?;
            let failures = site.control.new_failures(rebuild.generation_id, rebuild.replaces).await?;
            if let Some(failure) = failures.first() {
                tracing::warn!(read_model = name, "{}", said(failure));
                return Ok(false);
            }
            let member = site.control.member(rebuild.generation_id).await?;
            if member.paused {
                return Ok(false);
            }
            next_say = Instant::now() + SAY_EVERY;
        }
        past.complete(&ends).await?;
    }
    while !ahead.is_empty() {
        if job.lost.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let live = site.control.progress(rebuild.replaces).await?;
        ahead.retain(|(partition, (txid, aggregate, sequence))| {
            live.get(partition).is_some_and(|progress| !progress.has(*txid, aggregate, *sequence))
        });
        tell(&status_of(&site, &site.control.rebuild(rebuild.rebuild_id).await?).await?, None);
        tokio::time::sleep(SAY_EVERY / 5).await;
    }
    read.finished = true;
    site.control.rebuild_history(job.hold, read).await?;
    Ok(true)
}
