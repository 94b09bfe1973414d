//! Every metric of the projector: its name, kind, labels and what it means, in one place. `/metrics` is rendered from it,
//! docs/metrics.md is generated from it, and alert rules and dashboards may name nothing else (`tests/metrics`).
//!
//! Labels are bounded: read models, generations, stores, endpoints as they are declared, and words of ours; never a key,
//! a user or a text that came from outside.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the process's start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution: `_bucket`, `_sum`, `_count`.
    Histogram,
}

/// Which process shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Each `projector run`, of what runs there.
    Host,
    /// The one `projector run` that holds the monitor's lease, of everything.
    Monitor,
    /// Each `projector serve`.
    Serve,
}

/// A metric's description.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name; the unit comes last.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Who shows it.
    pub role: Role,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const EACH: &[&str] = &["read_model", "generation"];

macro_rules! metrics {
    ($($variant:ident = $name:literal, $kind:ident, $role:ident, $labels:expr, $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its description.
            #[must_use]
            pub const fn definition(self) -> Definition {
                match self {
                    $(Self::$variant => Definition {
                        name: $name, kind: Kind::$kind, role: Role::$role, labels: $labels, help: $help,
                    },)*
                }
            }
        }
    };
}

metrics! {
    EventsProcessed = "projection_events_processed_total", Counter, Host, EACH,
        "Events that changed a document or added a row";
    DuplicatesSkipped = "projection_duplicates_skipped_total", Counter, Host, EACH,
        "Events that were skipped because they had been handled before";
    Errors = "projection_errors_total", Counter, Host, EACH,
        "Failed attempts: events that failed and calls that are made again";
    Retries = "projection_retries_total", Counter, Host, EACH,
        "Calls that failed because something was away, and were made again";
    EventsFailed = "projection_events_failed_total", Counter, Host, EACH,
        "Events that failed, each attempt once";
    DeadLettersParked = "projection_dead_letters_parked_total", Counter, Host, EACH,
        "Events that failed for good and were parked";
    ErrorRate = "projection_error_rate", Gauge, Host, EACH,
        "Of the messages of the last minute, the part that failed";
    LagSeconds = "projection_lag_seconds", Gauge, Host, EACH,
        "Age of the oldest event that readers don't see yet, or the slowest of the last second if that is more";
    LagThreshold = "projection_lag_threshold_seconds", Gauge, Host, EACH,
        "The lag above which the read model is late";
    LagCritical = "projection_lag_critical_seconds", Gauge, Host, EACH,
        "The lag above which that is critical";
    BehindEvents = "projection_behind_events", Gauge, Host, EACH,
        "Messages in Kafka that aren't handled, of this host's partitions";
    HandledPerSecond = "projection_handled_events_per_second", Gauge, Host, EACH,
        "Messages handled a second, over the last 10 s";
    PublishedPerSecond = "projection_published_events_per_second", Gauge, Host, EACH,
        "Messages that came to this host's partitions a second, over the last 10 s";
    VisibleSeconds = "projection_event_visible_seconds", Histogram, Host, EACH,
        "From the event until readers saw it";
    BatchEvents = "projection_batch_events", Histogram, Host, EACH,
        "Events of a batch";
    FoldSeconds = "projection_fold_seconds", Histogram, Host, EACH,
        "Folding a batch, without its store";
    LoadSeconds = "projection_store_load_seconds", Histogram, Host, &["read_model", "generation", "store"],
        "Loading a batch's documents";
    WriteSeconds = "projection_store_write_seconds", Histogram, Host, &["read_model", "generation", "store"],
        "Writing a batch's documents, waiting for a store that is away included";
    DocumentsWritten = "projection_documents_written_total", Counter, Host, EACH,
        "Documents or rows that the store took: fewer than events where several are folded into one";
    Conflicts = "projection_write_conflicts_total", Counter, Host, EACH,
        "Writes that were refused because somebody else was faster; folded again";
    CacheLookups = "projection_cache_lookups_total", Counter, Host, &["read_model", "generation", "result"],
        "Documents looked for in the host's cache: hit or miss";
    QueueEvents = "projection_queue_events", Gauge, Host, EACH,
        "Messages that were read from Kafka and wait for their owner";
    QueueBytes = "projection_queue_bytes", Gauge, Host, EACH,
        "What these take in memory, at most";
    PartitionsHeld = "projection_partitions_held", Gauge, Host, EACH,
        "Partitions that are this host's";
    PartitionNextOffset = "projection_partition_next_offset", Gauge, Host, &["read_model", "generation", "topic", "partition"],
        "The first message of a partition of this host's that isn't handled";
    WaitingSince = "projection_waiting_since_timestamp_seconds", Gauge, Host, &["read_model", "generation", "on"],
        "Since when it waits for something that is away; only while it does";
    State = "projection_state", Gauge, Monitor, &["read_model", "generation", "state"],
        "1 for what `projector lag` says of it: ok, late, critical, waiting, stopped, parked, paused, no host, unknown";
    Phase = "projection_generation_phase", Gauge, Monitor, &["read_model", "generation", "phase"],
        "1 for where the generation is in its life: live, or a step of a rebuild";
    RebuildEta = "projection_rebuild_eta_seconds", Gauge, Monitor, EACH,
        "What is left to replay, at the present rate; only while it is replayed or catches up";
    DeadLetters = "projection_dead_letters", Gauge, Monitor, EACH,
        "Dead letters that failed and are still parked";
    PartitionsUnowned = "projection_partitions_unowned", Gauge, Monitor, EACH,
        "Partitions that no host has";
    AlertActive = "projection_alert_active", Gauge, Monitor, &["alert", "severity", "read_model"],
        "1 while an alert stands";
    MonitorLeader = "projection_monitor_leader", Gauge, Host, &[],
        "Whether this host raises alerts: 1 on one of them";
    ControlStoreUp = "projection_control_store_up", Gauge, Host, &[],
        "Whether the control store answered this host's last call, twice a second";
    WebhookFailed = "projection_alert_webhook_failures_total", Counter, Host, &[],
        "Messages to the alert webhook that were given up";
    OutboxUnpublished = "outbox_unpublished_events", Gauge, Monitor, &[],
        "Events of the outbox that aren't known to be in Kafka; those of the last second always count";
    OutboxOldest = "outbox_oldest_unpublished_seconds", Gauge, Monitor, &[],
        "The age of the oldest of these, heartbeats included";
    OutboxHeartbeat = "outbox_heartbeat_age_seconds", Gauge, Monitor, &[],
        "How long ago the newest heartbeat was written that came back from Kafka";
    SlotActive = "outbox_slot_active", Gauge, Monitor, &["slot"],
        "Whether the connector reads the replication slot; 0 also if there is none";
    SlotRetained = "outbox_slot_retained_bytes", Gauge, Monitor, &["slot"],
        "WAL that is kept for the replication slot";
    OldestWriter = "outbox_oldest_writer_seconds", Gauge, Monitor, &[],
        "The age of the oldest transaction that writes, 0 without one; it holds back the pruning of the outbox, and vacuum";
    ConnectRunning = "outbox_connector_running", Gauge, Monitor, &[],
        "Whether Kafka Connect says that the connector and all its tasks run";
    QuerySeconds = "query_request_seconds", Histogram, Serve, &["endpoint", "status"],
        "Answering a query, waiting included, by its declared path";
    QueryWaits = "query_waits_total", Counter, Serve, &["read_model", "outcome"],
        "Queries that asked for freshness: met, behind, parked, unknown_epoch, superseded";
    QueryWaitSeconds = "query_wait_seconds", Histogram, Serve, &["read_model"],
        "How long these waited";
    QueryCache = "query_cache_lookups_total", Counter, Serve, &["result"],
        "Kept answers looked for: hit or miss";
    QueryShed = "query_shed_total", Counter, Serve, &["reason"],
        "Requests that were turned away: overloaded, timed_out";
}

impl Metric {
    /// Its name as samples carry it, `suffix` included.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        Self::ALL.iter().copied().find(|metric| {
            let definition = metric.definition();
            definition.name == name || (definition.kind == Kind::Histogram && bare == Some(definition.name))
        })
    }
}

/// docs/metrics.md.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics of the projector\n\nGenerated from `projector/src/ops/metrics/names.rs` \
         (`UPDATE=1 cargo test --workspace --test metrics`). Times are in seconds, times of day in seconds since 1970. Histograms have \
         `_bucket`, `_sum` and `_count`. Counters begin at 0 when the process starts. `command-api` shows its own: docs/write-side.md.\n",
    );
    let roles = [
        (Role::Host, "`projector run`", "Each host shows what runs there, at `/metrics` of `--admin-listen`."),
        (
            Role::Monitor,
            "The host that holds the monitor's lease",
            "One of all hosts watches everything, and shows this beside its own. A scrape of all hosts has each sample once.",
        ),
        (Role::Serve, "`projector serve`", "At `/metrics` beside the queries."),
    ];
    for (role, title, prose) in roles {
        _ = write!(text, "\n## {title}\n\n{prose}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n");
        for definition in Metric::ALL.iter().map(|m| m.definition()).filter(|d| d.role == role) {
            let labels: Vec<_> = definition.labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = format!("{:?}", definition.kind).to_lowercase();
            _ = writeln!(text, "| `{}` | {kind} | {} | {} |", definition.name, labels.join(", "), definition.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_of_their_form() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|m| m.definition().name).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            let Definition { name, kind, .. } = metric.definition();
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(Metric::of(name), Some(*metric));
        }
        assert_eq!(Metric::of("projection_batch_events_bucket"), Some(Metric::BatchEvents));
        assert_eq!(Metric::of("projection_lag_seconds_bucket"), None, "a gauge has no buckets");
    }
}
