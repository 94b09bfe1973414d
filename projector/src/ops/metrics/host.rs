//! What a host has, and what the monitor sees of everything.

use super::names::Metric;
use super::page::Page;
use crate::control::{Alert, State};
use crate::host::Watched;
use crate::ops::lag::{Leg, Line, Report};

/// What runs on this host.
pub fn host(page: &mut Page, all: &[Watched]) {
    for watched in all {
        let generation = watched.generation.to_string();
        let each = [watched.read_model.as_str(), &generation];
        counts(page, &each, watched);
        now(page, &each, watched);
    }
}

fn counts(page: &mut Page, each: &[&str; 2], watched: &Watched) {
    let (stats, measures) = (&watched.stats, &watched.stats.measures);
    let (applied, duplicates, errors) = stats.counts();
    page.count(Metric::EventsProcessed, each, applied);
    page.count(Metric::DuplicatesSkipped, each, duplicates);
    page.count(Metric::Errors, each, errors);
    page.count(Metric::Retries, each, measures.retries.get());
    page.count(Metric::EventsFailed, each, measures.failures.get());
    page.count(Metric::DeadLettersParked, each, measures.parked.get());
    page.count(Metric::DocumentsWritten, each, measures.written.get());
    page.count(Metric::Conflicts, each, measures.conflicts.get());
    page.count(Metric::CacheLookups, &[each[0], each[1], "hit"], measures.cache_hits.get());
    page.count(Metric::CacheLookups, &[each[0], each[1], "miss"], measures.cache_misses.get());
    page.distribution(Metric::VisibleSeconds, each, &measures.visible_seconds);
    page.distribution(Metric::BatchEvents, each, &measures.batch_events);
    page.distribution(Metric::FoldSeconds, each, &measures.fold_seconds);
    let store = [each[0], each[1], watched.promise.store];
    page.distribution(Metric::LoadSeconds, &store, &measures.load_seconds);
    page.distribution(Metric::WriteSeconds, &store, &measures.write_seconds);
}

fn now(page: &mut Page, each: &[&str; 2], watched: &Watched) {
    let (stats, reported, positions) = (&watched.stats, watched.stats.reported(), watched.stats.positions());
    page.real(Metric::LagSeconds, each, stats.lag().as_secs_f64());
    page.real(Metric::LagThreshold, each, watched.promise.lag_max.as_secs_f64());
    page.real(Metric::LagCritical, each, watched.promise.lag_critical.as_secs_f64());
    page.whole(Metric::BehindEvents, each, reported.behind);
    page.real(Metric::ErrorRate, each, reported.error_rate);
    page.real(Metric::HandledPerSecond, each, reported.handled_per_s);
    page.real(Metric::PublishedPerSecond, each, reported.published_per_s);
    page.whole(Metric::QueueEvents, each, whole(watched.queued.items));
    page.whole(Metric::QueueBytes, each, i64::from(watched.queued.kib) * 1_024);
    page.whole(Metric::PartitionsHeld, each, whole(positions.len()));
    for (partition, next) in positions {
        // Only for partitions that are this host's: which host has which can be seen, and that each has one.
        let labels = [each[0], each[1], &partition.topic, &partition.number.to_string()];
        page.whole(Metric::PartitionNextOffset, &labels, next);
    }
    if let Some(waiting) = stats.waiting() {
        let labels = [each[0], each[1], waiting.on.as_str()];
        page.whole(Metric::WaitingSince, &labels, waiting.since.timestamp());
    }
}

/// What the monitor sees.
pub fn monitored(page: &mut Page, report: &Report) {
    for line in &report.read_models {
        of_line(page, line);
    }
    for Alert { name, severity, read_model, .. } in report.alerts.iter().filter(|a| a.resolved_at.is_none()) {
        let labels = [name.as_str(), severity.name(), read_model.as_deref().unwrap_or_default()];
        page.whole(Metric::AlertActive, &labels, 1);
    }
    of_leg(page, &report.before_kafka);
}

fn of_line(page: &mut Page, line: &Line) {
    let generation = line.generation.to_string();
    let each = [line.read_model.as_str(), &generation];
    page.whole(Metric::State, &[each[0], each[1], line.state.name()], 1);
    page.whole(Metric::Phase, &[each[0], each[1], line.generation_state.name()], 1);
    page.whole(Metric::DeadLetters, &each, line.parked);
    page.whole(Metric::PartitionsUnowned, &each, whole(line.partitions_unowned));
    let builds = matches!(line.generation_state, State::Replaying | State::CatchingUp);
    if let Some(behind) = line.behind_events.filter(|_| builds && line.handled_per_s > 0.0) {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        page.real(Metric::RebuildEta, &each, behind as f64 / line.handled_per_s);
    }
}

fn of_leg(page: &mut Page, leg: &Leg) {
    if let Some(outbox) = &leg.outbox {
        page.whole(Metric::OutboxUnpublished, &[], outbox.unpublished);
        page.real(Metric::OutboxOldest, &[], outbox.oldest_seconds);
        page.real(Metric::OldestWriter, &[], leg.writer.as_ref().map_or(0.0, |writer| writer.seconds));
    }
    if let Some(heartbeat) = &leg.heartbeat {
        page.real(Metric::OutboxHeartbeat, &[], heartbeat.seconds);
    }
    if let Some(slot) = &leg.slot {
        page.whole(Metric::SlotActive, &[&slot.name], i64::from(slot.exists && slot.active));
        page.whole(Metric::SlotRetained, &[&slot.name], slot.retained_bytes.unwrap_or_default());
    }
    if let Some(connect) = &leg.connect {
        page.whole(Metric::ConnectRunning, &[], i64::from(connect.trouble().is_none()));
    }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
