//! The monitor: on the one host that holds its lease, looks twice a second at how late everything is, and tells what is wrong.

use super::machine::{Machine, Notice};
use super::rules::conditions;
use super::webhook::Webhook;
use crate::control::{Alert, Control, ControlError, Severity};
use crate::ops::lag::{self, BeforeKafka, BeforeKafkaArgs, Report};
use crate::source::{Beat, Heartbeats, KafkaConfig};
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Hosts report each second; what they said must be told within another one.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the texts of alerts that stand are brought up to date in the control store.
const FRESHEN_EVERY: Duration = Duration::from_secs(5);

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
    failures: Counter,
}

impl Seen {
    /// The last report; none where another host is the monitor.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.report.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        let id = Uuid::now_v7();
        Ok(Self { id, name, control, before, kafka, heartbeat_topic, webhook, seen, watch: None })
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
            match self.look().await {
                Ok(()) => said = false,
                Err(error) if !std::mem::replace(&mut said, true) => {
                    tracing::warn!(%error, "nobody watches how late read models are, for now");
                }
                Err(_) => {}
            }
        }
        if self.watch.is_some() {
            // Else its time runs out.
            _ = tokio::time::timeout(Duration::from_millis(500), self.control.leave_monitor(self.id)).await;
        }
    }

    async fn look(&mut self) -> Result<(), ControlError> {
        if !self.control.hold_monitor(self.id, &self.name).await? {
            self.watch = None;
            self.seen.set(None);
            return Ok(());
        }
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.begin().await?,
        };
        let looked = self.look_as(&mut watch).await;
        self.watch = Some(watch);
        looked
    }

    async fn begin(&self) -> Result<Watch, ControlError> {
        let machine = Machine::resume(self.control.alerts().await?, self.control.now().await?);
        let heartbeats = Heartbeats::start(&self.kafka, &self.heartbeat_topic);
        let heartbeats = heartbeats.inspect_err(|error| tracing::warn!(%error, "no heartbeats are read")).ok();
        tracing::info!("this host watches how late read models are, and raises alerts");
        Ok(Watch { machine, heartbeats, noted: None, freshened: Instant::now() })
    }

    async fn look_as(&self, watch: &mut Watch) -> Result<(), ControlError> {
        let newest = watch.heartbeats.as_ref().and_then(Heartbeats::newest);
        if let Some(beat) = newest.filter(|beat| watch.noted.as_ref() != Some(beat)) {
            self.control.beat(&beat.epoch, beat.txid, beat.occurred_at).await?;
            watch.noted = Some(beat);
        }
        let mut report = lag::report(&self.control, &self.before).await?;
        let notices = watch.machine.step(conditions(&report, &watch.machine), report.at);
        for notice in &notices {
            log(notice);
            if let Some(webhook) = &self.webhook {
                webhook.tell(notice);
            }
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

fn log(notice: &Notice) {
    let Alert { name, read_model, severity, since, text, remedy, .. } = notice.alert();
    match (notice, severity) {
        (Notice::Resolved(_), _) => tracing::info!(alert = name, read_model, %since, "resolved"),
        (_, Severity::Critical) => tracing::error!(alert = name, read_model, %since, remedy, "{text}"),
        (_, Severity::Warning) => tracing::warn!(alert = name, read_model, %since, remedy, "{text}"),
    }
}
