//! Several hosts in one group: some are added, one is killed, and every partition has an owner again within a bound.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::hosts::{Host, Watch};

use crate::pause;

/// Kafka gives a member up after its session, 10 s, and lets the others join again.
const OWNED_AGAIN: Duration = Duration::from_secs(25);

/// The instance's own host and two more; one of them killed, another added; in the end its own alone. Under somebody's load.
pub(crate) async fn three_processes() -> Result<String> {
    eprintln!("  partitions by read model and host:");
    let watch = Watch::start().await?;
    let (b, c) = (Host::start("b")?, Host::start("c")?);
    watch.add(&b);
    watch.add(&c);
    let three = watch.shared_by(&["a", "b", "c"], OWNED_AGAIN).await?;
    pause(3_000).await;

    watch.say("kill -9 b");
    b.kill().await?;
    let killed = watch.shared_by(&["a", "c"], OWNED_AGAIN).await?;
    pause(1_000).await;

    let d = Host::start("d")?;
    watch.add(&d);
    let added = watch.shared_by(&["a", "c", "d"], OWNED_AGAIN).await?;
    pause(3_000).await;

    watch.say("c and d are stopped");
    tokio::try_join!(c.terminate(), d.terminate())?;
    let alone = watch.shared_by(&["a"], OWNED_AGAIN).await?;
    let longest = watch.longest_without_owner()?;
    ensure!(longest < OWNED_AGAIN, "a partition was nobody's for {longest:?}");
    let s = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    Ok(format!(
        "shared by three after {}, by two after the kill {}, by three again {}, alone {}; longest without an owner {}",
        s(three),
        s(killed),
        s(added),
        s(alone),
        s(longest)
    ))
}
