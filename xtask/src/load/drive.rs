//! The open loop: every request leaves at its slot; see the module's head for what is measured.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    Ready,
    command::{Command, Handover},
    progress::Progress,
    report::Report,
    rng::Rng,
    seen::Seen,
    tally::{Observation, Side, Tally},
};

/// Requests that may be under way at once. What would be more isn't sent, and is an error: to wait would close the loop.
const IN_FLIGHT_MAX: usize = 4_096;

/// When what is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// Requests a second.
    pub(super) rate: f64,
    /// Queries behind each command.
    pub(super) reads_per_write: u32,
}

impl Schedule {
    /// Slots until each of so many commands had its own.
    pub(super) fn slots(&self, commands: usize) -> usize {
        commands * (self.reads_per_write as usize + 1)
    }

    fn is_command(&self, slot: usize) -> bool {
        slot.is_multiple_of(self.reads_per_write as usize + 1)
    }
}

pub(super) async fn open_loop(ready: &Ready, progress: &Progress) -> Report {
    let Ready { commands, input, catalogue, steps, readers, schedule } = ready;
    let (observed, mut observations) = mpsc::unbounded_channel();
    let (permits, seen) = (Arc::new(Semaphore::new(IN_FLIGHT_MAX)), Arc::new(Seen::default()));
    // the receiver of each order's latest step
    let mut chains: Vec<Option<oneshot::Receiver<Handover>>> = input.orders.iter().map(|_| None).collect();
    let mut steps_of = vec![0_u32; input.orders.len()];
    steps.iter().filter_map(|step| step.order).for_each(|order| steps_of[order] += 1);
    let mut chance = Rng::new(readers.as_ref().map_or(0, |readers| readers.seed), 3);

    let start = Instant::now();
    let dispatch = async {
        let mut steps = steps.iter();
        for slot in 0..schedule.slots(steps.len()) {
            let due = start + Duration::from_secs_f64(slot as f64 / schedule.rate);
            sleep_until(due).await;
            let permit = Arc::clone(&permits).try_acquire_owned().ok();
            let (seen, observed) = (Arc::clone(&seen), observed.clone());
            if schedule.is_command(slot) {
                let Some(step) = steps.next() else { break };
                let Some(permit) = permit else {
                    // What follows on its order finds nothing to follow.
                    step.order.into_iter().for_each(|order| chains[order] = Some(oneshot::channel().1));
                    let _ = observed.send(Observation::overrun(Side::Command, step.action.verb()));
                    continue;
                };
                let (done, next) = oneshot::channel();
                let before = step.order.and_then(|order| chains[order].replace(next));
                let alone = step.order.is_some_and(|order| steps_of[order] == 1);
                let command = Command::new(step, alone, input, catalogue);
                let api = commands.clone();
                tokio::spawn(async move {
                    let (handover, observation) = command.run(&api, &seen, before, due).await;
                    // the next step may not exist
                    let _ = done.send(handover);
                    let _ = observed.send(observation);
                    drop(permit);
                });
            } else if let Some(readers) = readers {
                let read = readers.next(&seen, &mut chance);
                let Some(permit) = permit else {
                    let _ = observed.send(Observation::overrun(Side::Query, read.query));
                    continue;
                };
                let service = readers.service.clone();
                tokio::spawn(async move {
                    let _ = observed.send(read.run(&service, &seen, due).await);
                    drop(permit);
                });
            }
        }
        drop(observed);
    };
    let collect = async {
        let mut tally = Tally::default();
        while let Some(observation) = observations.recv().await {
            tally.add(observation);
            progress.advance();
        }
        tally
    };
    let ((), tally) = tokio::join!(dispatch, collect);
    tally.into_report(start.elapsed(), schedule)
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
