//! How late everything is, looked at each second for all who watch, with the last minutes of each read model's lag.
//! The host that is the monitor has just read it; the others ask for themselves.

use super::super::alert;
use super::super::lag::{BeforeKafka, Report, report};
use crate::control::Control;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks that are remembered.
const REMEMBERED: usize = 180;

/// What was seen at the last look.
pub(in crate::ops) struct Seen {
    pub(in crate::ops) report: Report,
    /// By generation, the oldest first: seconds behind.
    lags: HashMap<i64, VecDeque<f32>>,
}

impl Seen {
    /// Seconds behind at the last looks, the oldest first.
    pub(in crate::ops) fn lags(&self, generation_id: i64) -> Vec<f32> {
        self.lags.get(&generation_id).map(|lags| lags.iter().copied().collect()).unwrap_or_default()
    }

    /// Takes another look, with what was remembered before.
    pub(in crate::ops) fn next(report: Report, before: Option<&Self>) -> Self {
        let mut lags = HashMap::new();
        for line in &report.read_models {
            let known = before.and_then(|before| before.lags.get(&line.generation_id));
            let mut known: VecDeque<f32> = known.cloned().unwrap_or_default();
            if known.len() >= REMEMBERED {
                known.pop_front();
            }
            #[allow(clippy::cast_possible_truncation, reason = "drawn some pixels high")]
            known.push_back(line.lag_seconds() as f32);
            lags.insert(line.generation_id, known);
        }
        Self { report, lags }
    }
}

/// What can be shown now: the last look, or why there is none.
pub(in crate::ops) type Shown = Result<Arc<Seen>, String>;

/// See the module.
pub(in crate::ops) struct Board {
    before: BeforeKafka,
    shown: watch::Receiver<Shown>,
    looking: JoinHandle<()>,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Board {
    pub(super) fn start(control: Control, before: BeforeKafka, monitored: alert::Seen) -> Self {
        let (say, shown) = watch::channel(Err("nothing was looked at yet; try again in a second".to_owned()));
        let asked = before.clone();
        let looking = tokio::spawn(async move {
            let mut last: Option<Arc<Seen>> = None;
            let mut every = tokio::time::interval(LOOK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                let look = match monitored.report() {
                    Some(report) => Ok(report),
                    None => report(&control, &asked).await,
                };
                let look = match look {
                    Ok(report) => {
                        let seen = Arc::new(Seen::next(report, last.as_deref()));
                        last = Some(Arc::clone(&seen));
                        Ok(seen)
                    }
                    Err(error) => Err(format!("how late everything is can't be learned: {error}")),
                };
                if say.send(look).is_err() {
                    return;
                }
            }
        });
        Self { before, shown, looking }
    }

    pub(in crate::ops) fn now(&self) -> Shown {
        self.shown.borrow().clone()
    }

    /// How the leg before Kafka is asked about.
    pub(super) fn before(&self) -> &BeforeKafka {
        &self.before
    }

    /// Told at each look.
    pub(in crate::ops) fn follow(&self) -> watch::Receiver<Shown> {
        self.shown.clone()
    }
}
