//! Many clients, and a projector that is killed, held still and lagging.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tests::{
    ALONE, eventually,
    processes::{Process, log, projector_ready},
    tools, var,
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{client::Client, tally::Tally, wallet::Wallet};

/// How many clients, until how many reads were answered, and what happens meanwhile.
struct Story {
    clients: usize,
    reads: u64,
    disturbed: bool,
    limit: Duration,
}

impl Story {
    async fn tell(&self) -> Result<Tally> {
        let tally = Arc::<Mutex<Tally>>::default();
        let enough = Arc::new(AtomicBool::new(false));
        let deadline = Instant::now() + self.limit;
        let run = Uuid::new_v4().simple().to_string()[..6].to_owned();
        let clients = try_join_all((0..self.clients).map(|number| {
            let (tally, enough, run) = (Arc::clone(&tally), Arc::clone(&enough), run.clone());
            let reads = self.reads;
            async move {
                let told = one(number, &run, &tally, &enough, reads, deadline).await;
                enough.fetch_or(told.is_err(), Ordering::SeqCst);
                told
            }
        }));
        let disturbing = async {
            if !self.disturbed {
                return Ok(());
            }
            disturb(&enough).await
        };
        let (told, disturbed) = tokio::join!(clients, disturbing);
        told?;
        disturbed?;
        let tally = std::mem::take(&mut *tally.lock().unwrap());
        tally.print();
        Ok(tally)
    }
}

/// One client's life: shopping and banking in turn.
async fn one(
    number: usize,
    run: &str,
    tally: &Arc<Mutex<Tally>>,
    enough: &AtomicBool,
    reads: u64,
    deadline: Instant,
) -> Result<()> {
    let mut client = Client::open(number, run, Arc::clone(tally), deadline).await?;
    let mut wallet = Wallet::open(&client).await?;
    let mut turn = number as u64;
    while !enough.load(Ordering::SeqCst) {
        turn += 1;
        if turn.is_multiple_of(3) {
            wallet.round(&client, turn / 3).await?;
        } else {
            client.round().await?;
        }
        let answered = tally.lock().unwrap().answered();
        enough.fetch_or(answered >= reads, Ordering::SeqCst);
        ensure!(Instant::now() < deadline, "only {answered} of {reads} reads in time");
    }
    Ok(())
}

/// Lagging all the time; held still and killed in turn.
async fn disturb(enough: &AtomicBool) -> Result<()> {
    let mut turn = 0_u32;
    while !enough.load(Ordering::SeqCst) {
        turn += 1;
        let projector = Process::running("projector-run")?;
        if turn.is_multiple_of(4) {
            projector.kill().await?;
            sleep(Duration::from_millis(300)).await;
            projector.start(&[LAG])?;
            projector_ready().await?;
        } else {
            let held = projector.hold()?;
            sleep(Duration::from_millis(700)).await;
            drop(held);
        }
        sleep(Duration::from_secs(3)).await;
    }
    Ok(())
}

/// Every batch takes this much longer.
const LAG: (&str, &str) = ("PROJECTOR_FAULT_DELAY_MS", "40");

async fn with_lag<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tools::services_up().await?;
    let projector = Process::running("projector-run")?;
    projector.terminate().await?;
    projector.start(&[LAG])?;
    projector_ready().await?;
    let outcome = work.await;
    let lagging = Process::running("projector-run")?;
    lagging.terminate().await?;
    projector.start(&[])?;
    projector_ready().await?;
    outcome
}

async fn nothing_is_missed(story: Story) -> Result<()> {
    let _alone = ALONE.lock().await;
    let tally = with_lag(story.tell()).await?;
    ensure!(
        tally.misses.is_empty(),
        "answers that missed their callers' own writes, see {}: {:#?}",
        log("projector-serve"),
        tally.misses
    );
    ensure!(tally.answered() >= story.reads, "only {} reads", tally.answered());
    ensure!(tally.of_several > 0, "no token named several aggregates");
    let (waited, answered) = (tally.waited(), tally.answered());
    ensure!(waited * 100 >= answered * 30, "only {waited} of {answered} reads waited: that proves little");
    ensure!(
        tally.too_slow() * 20 <= answered,
        "{} of {answered} reads were answered too slowly: that proves little",
        tally.too_slow()
    );
    ensure!(tally.reads.len() == 14, "not every endpoint was read: {:?}", tally.reads.keys());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the stack: ./dev test"]
async fn no_answer_misses_its_callers_own_write() -> Result<()> {
    nothing_is_missed(Story { clients: 16, reads: 3_000, disturbed: true, limit: Duration::from_secs(240) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the stack: ./dev test faults"]
async fn long_form_of_a_hundred_thousand_reads() -> Result<()> {
    nothing_is_missed(Story { clients: 48, reads: 100_000, disturbed: true, limit: Duration::from_secs(1_800) }).await
}

/// The test of the test: a service that doesn't wait must be found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the stack: ./dev test"]
async fn a_service_that_does_not_wait_is_found_out() -> Result<()> {
    let _alone = ALONE.lock().await;
    let story = Story { clients: 4, reads: 200, disturbed: false, limit: Duration::from_secs(120) };
    let told = with_lag(async {
        let serve = Process::running("projector-serve")?;
        serve.terminate().await?;
        serve.start(&[("PROJECTOR_FAULT_NO_WAIT", "true")])?;
        serve_ready().await?;
        let told = story.tell().await;
        Process::running("projector-serve")?.terminate().await?;
        serve.start(&[])?;
        serve_ready().await?;
        told
    })
    .await?;
    ensure!(told.misses.len() >= 10, "the checker notices nothing: {:?}", told.misses);
    Ok(())
}

async fn serve_ready() -> Result<()> {
    let url = format!("{}/health/ready", var("QUERY_URL")?);
    let what = format!("projector serve ready, see {}", log("projector-serve"));
    eventually(&what, Duration::from_secs(60), || async {
        let answer = reqwest::get(&url).await;
        Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
    })
    .await
}
