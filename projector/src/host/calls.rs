//! Calls to the store, the registry and the control store, each tried again for as long as the other side is away.

use super::read::Reader;
use super::retry::Backoff;
use super::stats::Stats;
use super::{HostError, Lookups};
use crate::apply::{Delivery, Event, Question};
use crate::control::ControlError;
use crate::event::{Envelope, Raw};
use crate::expr::Object;
use crate::sink::{Sink, SinkError};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// What an owner calls, and where it says what it waits for.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) generation: String,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) reader: Reader,
    pub(super) lookups: Arc<Lookups>,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
    /// What stands still whatever the stores do: shown again once they are back.
    pub(super) standing: Arc<Mutex<Option<String>>>,
}

impl Calls {
    /// Calls the store until it answers; what isn't the store being away ends the owner.
    pub(super) async fn store<'a, T>(
        &self,
        call: impl Fn(Arc<dyn Sink>) -> BoxFuture<'a, Result<T, SinkError>>,
    ) -> Result<T, HostError> {
        let away = |error: &SinkError| matches!(error, SinkError::Unavailable { .. });
        Ok(self.until_answered(self.store_name(), away, || call(Arc::clone(&self.sink))).await?)
    }

    /// Calls the control store until it answers.
    pub(super) async fn control<'a, T>(
        &self,
        call: impl Fn() -> BoxFuture<'a, Result<T, ControlError>>,
    ) -> Result<T, HostError> {
        Ok(self.until_answered("control store", ControlError::is_transient, call).await?)
    }

    /// Looks up until it is answered.
    pub(super) async fn look_up(
        &self,
        questions: Vec<Question>,
    ) -> Result<Vec<(Question, Vec<Option<Object>>)>, HostError> {
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            let away = |error: &SinkError| matches!(error, SinkError::Unavailable { .. });
            let found =
                self.until_answered("a looked-up store", away, || Box::pin(self.lookups.ask(&question))).await?;
            answers.push((question, found));
        }
        Ok(answers)
    }

    /// Reads a message, and asks the registry if it must.
    pub(super) async fn read(&self, offset: i64, raw: Raw) -> Result<Delivery, HostError> {
        if let Some(event) = self.reader.read(&raw) {
            return Ok(Delivery { offset, raw, event });
        }
        let event = match Envelope::read(&raw) {
            Ok(envelope) => {
                let payload = raw.payload().unwrap_or_default();
                let away = |error: &crate::event::DecodeError| error.is_transient();
                let call = || -> BoxFuture<'_, _> { Box::pin(self.reader.decoder.decode(&envelope, payload)) };
                let data = self.until_answered("schema registry", away, call).await;
                Ok(Box::new(Event { envelope, data: Some(data.map_err(|error| error.to_string())) }))
            }
            Err(error) => Err(error.to_string()),
        };
        Ok(Delivery { offset, raw, event })
    }

    pub(super) fn store_name(&self) -> &'static str {
        self.reader.compiled.projection.store.name()
    }

    async fn until_answered<'a, T, E: std::fmt::Display>(
        &self,
        on: &'static str,
        is_away: impl Fn(&E) -> bool,
        call: impl Fn() -> BoxFuture<'a, Result<T, E>>,
    ) -> Result<T, E> {
        let (mut backoff, waiting) = (Backoff::default(), self.stats.call(on));
        loop {
            match call().await {
                Ok(answer) => {
                    if backoff.tries() > 0 {
                        tracing::info!(generation = self.generation, tries = backoff.tries(), "back");
                        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        self.stats.with(|s| s.last_error = standing);
                    }
                    return Ok(answer);
                }
                Err(error) if is_away(&error) && !self.stop.is_cancelled() => {
                    let said = error.to_string();
                    waiting.failed(&said);
                    self.stats.measures.retries.inc();
                    self.failed(&said, backoff.tries());
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says an error: the first, and then ever more rarely.
    pub(super) fn failed(&self, error: &str, tries: u32) {
        if tries.is_power_of_two() || tries == 0 {
            tracing::warn!(generation = self.generation, error, tries, "waiting, then trying again");
        }
        self.stats.with(|s| {
            s.errors += 1;
            s.last_error = Some(error.to_owned());
        });
    }
}
