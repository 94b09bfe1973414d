//! Following the control store: which generations are to be fed, which no longer, and what is asked of each.

use super::orders::Orders;
use super::{Host, HostError, Running, Watched, close};
use crate::control::{Actor, Barrier, Control, GENERATIONS_CHANNEL, Member, State};
use sqlx::postgres::PgListener;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a generation that is let go may take to come to rest before it is cut off.
const LET_GO_WITHIN: Duration = Duration::from_secs(8);
/// Before generations that ended by themselves are dealt with, so that what begins anew and ends at once doesn't do so in a loop.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Messages not handled yet, of all live generations of a host, above which replays leave them the machine.
const LIVE_BEHIND_MAX: i64 = 500;

/// Commit to visible of what live generations applied lately, above which they do, too: well below what is promised.
const LIVE_LAG_MAX: Duration = Duration::from_millis(300);

/// Wakes whoever follows the control store, whenever something changed there and after each reconnect.
pub(crate) fn listen(control: Control) -> Arc<Notify> {
    let wake = Arc::new(Notify::new());
    let task = Arc::downgrade(&wake);
    tokio::spawn(async move {
        loop {
            let listening = async {
                let mut listener = PgListener::connect_with(control.pool()).await?;
                listener.eager_reconnect(false);
                listener.listen(GENERATIONS_CHANNEL).await?;
                loop {
                    let Some(wake) = task.upgrade() else { return Ok::<_, sqlx::Error>(()) };
                    wake.notify_one();
                    drop(wake);
                    if listener.try_recv().await?.is_none() {
                        return Err(sqlx::Error::WorkerCrashed);
                    }
                }
            };
            match listening.await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "not listening to the control store"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    wake
}

/// Whether hosts feed it.
fn is_fed(member: &Member) -> bool {
    let state = !matches!(member.state, State::Planned | State::Dropped | State::Abandoned);
    state && !member.paused
}

impl Host {
    /// Takes up and lets go what the control store says, and passes on its orders.
    pub(super) async fn follow(&mut self) -> Result<(), HostError> {
        let (seen, barriers) = self.control.barriers().await?;
        let members = self.control.members().await?;
        let throttles: HashMap<i64, Option<u32>> =
            self.control.rebuilds().await?.into_iter().map(|r| (r.generation_id, r.options.throttle)).collect();
        let mut documents: HashMap<i64, Vec<(i64, String)>> = HashMap::new();
        for order in self.control.remakes().await? {
            documents.entry(order.generation_id).or_default().push((order.remake_id, order.key));
        }
        let fed: HashMap<i64, Member> =
            members.into_iter().filter(is_fed).map(|m| (m.generation.generation_id, m)).collect();
        self.let_go(&fed);
        self.leaving.retain(|_, task| !task.is_finished());
        self.refused.retain(|id, _| fed.contains_key(id));
        let yielding = self.live_behind() > LIVE_BEHIND_MAX || self.live_lag() > LIVE_LAG_MAX;
        for (id, member) in fed {
            let orders = Orders {
                live: member.state == State::Live,
                replaying: member.state == State::Replaying,
                throttle: throttles.get(&id).copied().flatten(),
                yielding,
                documents: documents.remove(&id).unwrap_or_default(),
                barrier: barrier_of(&barriers, id),
                seen,
            };
            match self.running.iter_mut().find(|r| r.generation.generation_id == id) {
                Some(running) => {
                    running.generation.state.clone_from(&member.generation.state);
                    // Only what is asked wakes the owner: the number alone matters when it changes something.
                    running.orders.send_if_modified(|now| {
                        let asked = now.barrier != orders.barrier
                            || now.live != orders.live
                            || now.replaying != orders.replaying
                            || now.throttle != orders.throttle
                            || now.yielding != orders.yielding
                            || now.documents != orders.documents
                            || now.seen < orders.seen;
                        if asked {
                            *now = orders;
                        }
                        asked
                    });
                }
                None if self.leaving.contains_key(&id) => {}
                None => self.take_up(member, orders).await,
            }
        }
        let watched = self.running.iter().map(|r| Watched {
            read_model: r.generation.read_model.clone(),
            generation: r.generation.generation,
            live: r.generation.is_live(),
            stats: Arc::clone(&r.stats),
            promise: r.promise,
            state: r.generation.state.clone(),
            queued: r.source.queued(),
        });
        *self.watched.write().unwrap_or_else(PoisonError::into_inner) = watched.collect();
        Ok(())
    }

    async fn take_up(&mut self, member: Member, orders: Orders) {
        let (id, name) = (member.generation.generation_id, member.generation.id());
        let Err(error) = self.run(member.generation, Arc::default(), orders, self.running.len() + 1) else {
            self.refused.remove(&id);
            return;
        };
        let reason = error.to_string();
        if self.refused.insert(id, reason.clone()).as_ref() != Some(&reason) {
            tracing::error!(generation = name, reason, "can't run here");
        }
        if member.state != State::Live {
            self.stop_feeding(id, &reason).await;
        }
    }

    /// A generation that isn't live can't go on: it is paused, with the reason, until somebody has mended it.
    async fn stop_feeding(&self, generation_id: i64, reason: &str) {
        let actor = Actor { who: "host", why: Some(reason) };
        if let Err(error) = self.control.pause(generation_id, true, actor).await {
            tracing::warn!(%error, "not noted that a generation can't be fed");
        }
    }

    fn let_go(&mut self, fed: &HashMap<i64, Member>) {
        let (stays, goes): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|r| fed.contains_key(&r.generation.generation_id));
        self.running = stays;
        for running in goes {
            tracing::info!(generation = running.generation.id(), "let go");
            self.leaving.insert(running.generation.generation_id, tokio::spawn(rest(running)));
        }
    }

    fn live_behind(&self) -> i64 {
        self.running.iter().filter(|r| r.generation.is_live()).map(|r| r.stats.behind(&r.source)).sum()
    }

    fn live_lag(&self) -> Duration {
        let live = self.running.iter().filter(|r| r.generation.is_live());
        live.map(|r| r.stats.lately()).max().unwrap_or_default()
    }

    /// Deals with generations that ended by themselves. Gives one whose end is the host's end.
    pub(super) async fn look_at_ended(&mut self) -> Result<Option<Running>, HostError> {
        if !self.running.iter().any(|r| r.task.is_finished()) {
            return Ok(None);
        }
        // What ended them is mostly the same for all, and may be there for another moment: one pause for all.
        tokio::time::sleep(AGAIN_AFTER).await;
        while let Some(at) = self.running.iter().position(|r| r.task.is_finished()) {
            let running = self.running.swap_remove(at);
            let (id, live) = (running.generation.generation_id, running.generation.is_live());
            let reason = match self.run_again(running).await {
                Ok(None) => continue,
                Ok(Some(ended)) if live => return Ok(Some(ended)),
                Err(error) if live => return Err(error),
                Ok(Some(ended)) => match ended.task.await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => HostError::Died(ended.generation.id()).to_string(),
                },
                Err(error) => error.to_string(),
            };
            tracing::error!(generation_id = id, reason, "ended by itself; it is paused");
            self.stop_feeding(id, &reason).await;
        }
        Ok(None)
    }
}

fn barrier_of(barriers: &[Barrier], generation_id: i64) -> Option<Barrier> {
    barriers.iter().find(|barrier| barrier.generations.contains(&generation_id)).cloned()
}

/// Lets a generation come to rest after the batch in hand; what its store doesn't answer is cut off after a while.
async fn rest(running: Running) {
    let Running { generation, source, stop, mut task, .. } = running;
    source.stop();
    stop.cancel();
    if tokio::time::timeout(LET_GO_WITHIN, &mut task).await.is_err() {
        // What it was writing lands or not: the next owner folds it again.
        task.abort();
        tracing::warn!(generation = generation.id(), "didn't come to rest; cut off");
    }
    close(source);
}
