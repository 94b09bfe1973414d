//! The monitor: on the one host that holds its lease, looks twice a second at how late everything is, and tells what is wrong.
//! The others ask for the lease as often, and so each knows whether the control store answers it ([`Reach`]).

use super::machine::{Machine, Notice};
use super::reach::Reach;
use super::rules::conditions;
use super::webhook::Webhook;
use crate::control::{Alert, Control, ControlError, Severity};
use crate::ops::lag::{self, BeforeKafka, BeforeKafkaArgs, Report};
use crate::source::{Beat, Heartbeats, KafkaConfig};
use chrono::Utc;
use prometheus_client::metrics::counter::Counter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Hosts report each second; what they said must be told within another one.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the texts of alerts that stand are brought up to date in the control store.
const FRESHEN_EVERY: Duration = Duration::from_secs(5);
/// The control store that doesn't answer a small statement for so long is out of reach: less than the lease.
const LEASE_WITHIN: Duration = Duration::from_secs(3);
/// A look asks several services, each of which has a limit of its own; together they stay below this.
const LOOK_WITHIN: Duration = Duration::from_secs(12);

/// How to watch.
#[derive(Clone, Debug, clap::Args)]
pub struct MonitorArgs {
    /// The leg before Kafka.
    #[command(flatten)]
    pub before_kafka: BeforeKafkaArgs,
    /// Where alerts are told: each is POSTed as JSON (alert, status: firing or resolved, severity, read_model, since, text, remedy)
    #[arg(long = "alert-webhook", env = "ALERT_WEBHOOK_URL", hide_env_values = true)]
    pub alert_webhook_url: Option<String>,
    /// The topic of the outbox's heartbeats, of one partition
    #[arg(long, env = "HEARTBEAT_TOPIC", default_value = "events.heartbeat")]
    pub heartbeat_topic: String,
}

/// What the monitor saw last, for whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    report: Arc<RwLock<Option<Report>>>,
    lost_control_store: Arc<AtomicBool>,
    failures: Counter,
}

impl Seen {
    /// The last report; none where another host is the monitor.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.report.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the control store answered the last call.
    #[must_use]
    pub fn reaches_control_store(&self) -> bool {
        !self.lost_control_store.load(Ordering::Relaxed)
    }

    /// Messages to the webhook that were given up.
    #[must_use]
    pub fn webhook_failures(&self) -> u64 {
        self.failures.get()
    }

    fn set(&self, report: Option<Report>) {
        *self.report.write().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// See the module.
pub struct Monitor {
    id: Uuid,
    name: String,
    control: Control,
    before: BeforeKafka,
    kafka: KafkaConfig,
    heartbeat_topic: String,
    webhook: Option<Webhook>,
    seen: Seen,
    reach: Reach,
    watch: Option<Watch>,
}

/// What there is while the lease is held.
struct Watch {
    machine: Machine,
    heartbeats: Option<Heartbeats>,
    noted: Option<Beat>,
    freshened: Instant,
}

impl Monitor {
    /// One that calls itself `name` to the other hosts.
    ///
    /// # Errors
    /// There is no HTTP client for the webhook to be had.
    pub fn new(
        name: String,
        control: Control,
        before: BeforeKafka,
        kafka: KafkaConfig,
        args: &MonitorArgs,
    ) -> Result<Self, reqwest::Error> {
        let seen = Seen::default();
        let webhook = args.alert_webhook_url.as_deref().filter(|url| !url.is_empty());
        let webhook = webhook.map(|url| Webhook::start(url, seen.failures.clone())).transpose()?;
        let heartbeat_topic = args.heartbeat_topic.clone();
        let (id, reach) = (Uuid::now_v7(), Reach::new(&name));
        Ok(Self { id, name, control, before, kafka, heartbeat_topic, webhook, seen, reach, watch: None })
    }

    /// What it sees, kept current.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Watches until `stop`, then leaves it to others.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut said = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let began = Utc::now();
            let looked = self.look().await;
            let error = looked.err();
            if let Some(error) = &error {
                self.seen.set(None);
                if !said {
                    tracing::warn!(error, "nobody watches how late read models are, for now");
                }
            }
            said = error.is_some();
            self.seen.lost_control_store.store(said, Ordering::Relaxed);
            for notice in self.reach.step(error.as_deref(), began, Utc::now()) {
                tell(self.webhook.as_ref(), &notice);
            }
        }
        if self.watch.is_some() {
            // Else its time runs out.
            _ = tokio::time::timeout(Duration::from_millis(500), self.control.leave_monitor(self.id)).await;
        }
    }

    /// Fails only where the control store does.
    async fn look(&mut self) -> Result<(), String> {
        if !within(LEASE_WITHIN, self.control.hold_monitor(self.id, &self.name)).await? {
            self.watch = None;
            self.seen.set(None);
            return Ok(());
        }
        if self.watch.is_none() {
            self.watch = Some(within(LOOK_WITHIN, self.begin()).await?);
        }
        within(LOOK_WITHIN, self.look_on()).await
    }

    async fn begin(&self) -> Result<Watch, ControlError> {
        let machine = Machine::resume(self.control.alerts().await?, self.control.now().await?);
        let heartbeats = Heartbeats::start(&self.kafka, &self.heartbeat_topic);
        let heartbeats = heartbeats.inspect_err(|error| tracing::warn!(%error, "no heartbeats are read")).ok();
        tracing::info!("this host watches how late read models are, and raises alerts");
        Ok(Watch { machine, heartbeats, noted: None, freshened: Instant::now() })
    }

    async fn look_on(&mut self) -> Result<(), ControlError> {
        let Some(watch) = self.watch.as_mut() else { return Ok(()) };
        let newest = watch.heartbeats.as_ref().and_then(Heartbeats::newest);
        if let Some(beat) = newest.filter(|beat| watch.noted.as_ref() != Some(beat)) {
            self.control.beat(&beat.epoch, beat.txid, beat.occurred_at).await?;
            watch.noted = Some(beat);
        }
        let mut report = lag::report(&self.control, &self.before).await?;
        let notices = watch.machine.step(conditions(&report, &watch.machine), report.at);
        for notice in &notices {
            tell(self.webhook.as_ref(), notice);
        }
        let mut noted: Vec<&Alert> = notices.iter().map(Notice::alert).collect();
        if watch.freshened.elapsed() > FRESHEN_EVERY {
            watch.freshened = Instant::now();
            noted.extend(watch.machine.standing());
        }
        for alert in &noted {
            self.control.note_alert(alert).await?;
        }
        if !noted.is_empty() {
            report.alerts = self.control.alerts().await?;
        }
        self.seen.set(Some(report));
        Ok(())
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, ControlError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

fn tell(webhook: Option<&Webhook>, notice: &Notice) {
    log(notice);
    if let Some(webhook) = webhook {
        webhook.tell(notice);
    }
}

fn log(notice: &Notice) {
    let Alert { name, read_model, severity, since, text, remedy, .. } = notice.alert();
    match (notice, severity) {
        (Notice::Resolved(_), _) => tracing::info!(alert = name, read_model, %since, "resolved"),
        (_, Severity::Critical) => tracing::error!(alert = name, read_model, %since, remedy, "{text}"),
        (_, Severity::Warning) => tracing::warn!(alert = name, read_model, %since, remedy, "{text}"),
    }
}
