//! Rebuilds, barriers and the catalog in the control store, on a real Postgres, each test in a database of its own.

#![allow(clippy::unwrap_used, missing_docs)]

use projector::apply::Partition;
use projector::control::{
    Actor, Arrival, Control, ControlError, Ends, Health, Hold, New, Options, Origin, Phase, Rebuild, Served, State,
    Verify,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const ANN: Actor<'_> = Actor { who: "ann", why: Some("a misprint") };
const LIMIT_S: f64 = 20.0;

struct Store {
    control: Control,
    server: String,
    database: String,
    live: i64,
    partitions: [Partition; 2],
}

impl Store {
    async fn start() -> Self {
        let server = std::env::var("CONTROL_DATABASE_URL").unwrap();
        let database = format!("control_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&mut admin).await.unwrap();
        let control = Control::connect(&format!("{}/{database}", server.rsplit_once('/').unwrap().0)).await.unwrap();
        let live = control.create_live("loans", "f", "", &topics(), ANN).await.unwrap().generation_id;
        let partitions = [0, 1].map(|number| Partition { topic: "loan".into(), number });
        Self { control, server, database, live, partitions }
    }

    async fn stop(self) {
        self.control.pool().close().await;
        let mut admin = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("drop database {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }

    async fn begun(&self, read_model: &str) -> Result<Rebuild, ControlError> {
        let (topics, options) = (topics(), options());
        let new = New { read_model, fingerprint: "g", config: "", topics: &topics, options: &options };
        Ok(self.control.start_rebuilds(&[new], ANN).await?.remove(0))
    }

    async fn begin(&self) -> (Rebuild, Hold) {
        let rebuild = self.begun("loans").await.unwrap();
        let hold = self.control.hold(rebuild.rebuild_id, Uuid::new_v4(), "a job").await.unwrap().unwrap();
        (rebuild, hold)
    }

    async fn verified(&self) -> (Rebuild, Hold) {
        let (rebuild, hold) = self.begin().await;
        for (from, to) in [(State::Planned, State::Replaying), (State::Replaying, State::Verified)] {
            assert!(self.control.rebuild_step(hold, &[from], to, ANN).await.unwrap());
        }
        (rebuild, hold)
    }

    /// An owner of both partitions that stands at the place.
    async fn arrive(&self, barrier_id: i64, generation_id: i64) {
        let fences = self.control.claim(generation_id, &self.partitions).await.unwrap();
        self.say(barrier_id, generation_id, &fences).await;
    }

    async fn say(&self, barrier_id: i64, generation_id: i64, fences: &[i64]) {
        let arrival = |(partition, fence): (&Partition, &i64)| Arrival {
            partition: partition.clone(),
            fence: *fence,
            position: 7,
            arrived: true,
        };
        let all: Vec<_> = self.partitions.iter().zip(fences).map(arrival).collect();
        self.control.arrive(barrier_id, generation_id, &all).await.unwrap();
    }

    /// Opens a barrier and sets its place.
    async fn set(&self, rebuild: &Rebuild, hold: Hold, limit_s: f64) -> i64 {
        self.control.open_barrier(hold, limit_s).await.unwrap();
        let barrier = self.control.barrier_of(rebuild.rebuild_id).await.unwrap().unwrap();
        assert_eq!(
            (&barrier.phase, &barrier.generations),
            (&Phase::Gathering, &vec![self.live, rebuild.generation_id])
        );
        let ends: Ends = self.partitions.iter().map(|p| (p.clone(), 7)).collect();
        self.control.set_barrier(hold, barrier.barrier_id, &ends, limit_s).await.unwrap();
        let set = self.control.barrier_of(rebuild.rebuild_id).await.unwrap().unwrap();
        assert_eq!(set.phase, Phase::Set(ends));
        barrier.barrier_id
    }

    async fn states(&self) -> Vec<State> {
        self.control.members().await.unwrap().into_iter().map(|member| member.state).collect()
    }
}

fn topics() -> BTreeMap<String, i32> {
    BTreeMap::from([("loan".to_owned(), 2)])
}

fn options() -> Options {
    Options {
        verify: Verify::Sample(10),
        promote: true,
        throttle: None,
        rollback_s: 0,
        announced: None,
        despite: false,
        back: false,
        repair: false,
        from: Origin::Kafka,
        health: None,
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_decision_asks_for_every_partition_under_its_present_owner() {
    let store = Store::start().await;
    let (rebuild, hold) = store.verified().await;
    let id = store.set(&rebuild, hold, LIMIT_S).await;
    let (version, before) = store.control.catalog().await.unwrap();
    assert_eq!(before[0].generation_id, store.live);

    assert!(!store.control.decide(hold, id, ANN).await.unwrap(), "nobody stands there");
    store.arrive(id, store.live).await;
    assert!(!store.control.decide(hold, id, ANN).await.unwrap(), "one of the two stands there");
    let fences = store.control.claim(rebuild.generation_id, &store.partitions).await.unwrap();
    store.say(id, rebuild.generation_id, &fences[..1]).await;
    assert!(!store.control.decide(hold, id, ANN).await.unwrap(), "one partition of it doesn't");
    store.say(id, rebuild.generation_id, &fences).await;
    store.control.claim(store.live, &store.partitions[1..]).await.unwrap();
    assert!(!store.control.decide(hold, id, ANN).await.unwrap(), "its owner is another one by now");
    assert_eq!(store.states().await, [State::Live, State::Verified], "nothing has changed");

    store.arrive(id, store.live).await;
    assert!(store.control.decide(hold, id, ANN).await.unwrap());
    let (after, live) = store.control.catalog().await.unwrap();
    assert_eq!((after, live.len(), live[0].generation_id), (version + 1, 1, rebuild.generation_id));
    assert_eq!(store.states().await, [State::Retired, State::Live]);
    assert!(!store.control.decide(hold, id, ANN).await.unwrap(), "it falls once");

    let late = store.control.abort_rebuild(&rebuild, ANN).await.unwrap_err().to_string();
    assert!(late.contains("the decision has fallen"), "{late}");
    let barrier = store.control.barrier_of(rebuild.rebuild_id).await.unwrap().unwrap();
    assert!(
        matches!(barrier.phase, Phase::Decided(_)) && barrier.version == Some(after),
        "it holds until it is released"
    );
    store.control.release_barrier(hold, id).await.unwrap();
    assert_eq!(store.control.barrier_of(rebuild.rebuild_id).await.unwrap(), None);
    store.control.rebuild_done(hold).await.unwrap();

    // Its time is over at once here.
    store.control.drop_overdue().await.unwrap();
    assert_eq!(store.states().await, [State::Dropped, State::Live]);
    store.control.removed(store.live, "a host").await.unwrap();
    assert_eq!(store.states().await, [State::Live]);
    let log = store.control.generation_log("loans", 100).await.unwrap();
    let lines: Vec<_> = log.iter().rev().map(|line| (line.generation, line.what.as_str(), line.who.as_str())).collect();
    let by_ann = [
        (2, "planned", "ann"),
        (2, "rebuild begins", "ann"),
        (2, "replaying", "ann"),
        (2, "verified", "ann"),
        (1, "retired", "ann"),
        (2, "live", "ann"),
    ];
    assert_eq!((lines[0], &lines[1..7]), ((1, "created, live", "ann"), &by_ann[..]));
    assert_eq!(&lines[7..], [(1, "dropped", "host"), (1, "place removed", "a host")]);
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_barrier_whose_time_is_over_lets_go_and_decides_nothing() {
    let store = Store::start().await;
    let (rebuild, hold) = store.verified().await;
    let id = store.set(&rebuild, hold, 0.3).await;
    store.arrive(id, store.live).await;
    store.arrive(id, rebuild.generation_id).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!store.control.decide(hold, id, ANN).await.unwrap());
    let (seen, holding) = store.control.barriers().await.unwrap();
    assert_eq!((seen, holding), (id, Vec::new()));
    assert!(!store.control.extend_barrier(hold, id, LIMIT_S).await.unwrap());

    // The next one begins from nothing.
    let next = store.set(&rebuild, hold, LIMIT_S).await;
    assert!(next > id && store.control.arrivals(next).await.unwrap().is_empty());
    assert!(store.control.extend_barrier(hold, next, LIMIT_S).await.unwrap());
    store.control.abort_rebuild(&rebuild, ANN).await.unwrap();
    assert_eq!(store.control.barriers().await.unwrap().1, Vec::new(), "an abort lets go too");
    assert_eq!(store.states().await, [State::Live, State::Abandoned]);
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn one_at_a_time_and_a_driver_that_was_replaced_changes_nothing() {
    let store = Store::start().await;
    let (rebuild, hold) = store.begin().await;
    let second = store.begun("loans").await.unwrap_err();
    let said = second.to_string();
    assert!(said.contains("is being rebuilt already") && said.contains("ann") && said.contains("a job"), "{said}");
    let none = store.begun("books").await.unwrap_err();
    assert!(none.to_string().contains("no read model `books` is live"), "{none}");

    let host = Uuid::new_v4();
    let take = || store.control.hold(rebuild.rebuild_id, host, "a host");
    assert_eq!(take().await.unwrap(), None, "somebody drives it");
    assert!(store.control.keep(hold).await.unwrap());
    sqlx::query("update rebuild set held_until = now() - interval '1 second'")
        .execute(store.control.pool())
        .await
        .unwrap();
    let taken = take().await.unwrap().unwrap();
    assert!(taken.fence > hold.fence && !store.control.keep(hold).await.unwrap());
    let stale = store.control.rebuild_step(hold, &[State::Planned], State::Replaying, ANN).await.unwrap_err();
    assert!(stale.to_string().contains("driven by a host"), "{stale}");
    assert!(store.control.open_barrier(hold, LIMIT_S).await.is_err());
    assert!(store.control.rebuild_step(taken, &[State::Planned], State::Replaying, ANN).await.unwrap());
    let again = store.control.rebuild_step(taken, &[State::Planned], State::Replaying, ANN).await.unwrap();
    assert!(!again, "a step is done once");

    // Where the topics ended stays what it was at first.
    let ends = |n| Ends::from([(store.partitions[0].clone(), n)]);
    store.control.rebuild_ends(taken, &ends(5)).await.unwrap();
    store.control.rebuild_ends(taken, &ends(9)).await.unwrap();
    assert_eq!(store.control.rebuild(rebuild.rebuild_id).await.unwrap().ends, Some(ends(5)));
    let back = store.control.start_ways_back(&["loans".to_owned()], &options(), ANN).await.unwrap_err();
    assert!(back.to_string().contains("is being rebuilt already"), "{back}");
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_swap_waits_for_query_services_that_say_an_older_version() {
    let store = Store::start().await;
    let (version, _) = store.control.catalog().await.unwrap();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(store.control.serves(one, 0).await.unwrap(), version);
    store.control.serves(two, version).await.unwrap();
    assert_eq!(store.control.serving_older_than(version).await.unwrap(), 1);
    assert_eq!(store.control.serving_older_than(version + 1).await.unwrap(), 2);
    store.control.serves(one, version).await.unwrap();
    assert_eq!(store.control.serving_older_than(version).await.unwrap(), 0);
    store.control.serves_no_more(two).await.unwrap();
    assert_eq!(store.control.serving_older_than(version + 1).await.unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(store.control.serving_older_than(version + 1).await.unwrap(), 0, "a silent one must ask first");
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn several_go_live_together_or_none_does() {
    let store = Store::start().await;
    let other = store.control.create_live("books", "f", "", &topics(), ANN).await.unwrap().generation_id;
    let (topics, options) = (topics(), options());
    let new = |read_model| New { read_model, fingerprint: "g", config: "", topics: &topics, options: &options };
    let all = store.control.start_rebuilds(&[new("loans"), new("books")], ANN).await.unwrap();
    let (lead, led) = (&all[0], &all[1]);
    assert_eq!((lead.read_model.as_str(), led.leader, led.lead()), ("books", Some(lead.rebuild_id), lead.rebuild_id));
    let refused = store.control.start_rebuilds(&[new("loans")], ANN).await.unwrap_err().to_string();
    assert!(refused.contains("loans is being rebuilt already"), "{refused}");

    let hold = store.control.hold(lead.rebuild_id, Uuid::new_v4(), "a job").await.unwrap().unwrap();
    let theirs = store.control.hold(led.rebuild_id, Uuid::new_v4(), "another").await.unwrap().unwrap();
    for hold in [hold, theirs] {
        assert!(store.control.rebuild_step(hold, &[State::Planned], State::CatchingUp, ANN).await.unwrap());
    }
    store.control.set_step(hold, &[State::CatchingUp], State::Verified, ANN).await.unwrap();
    assert!(store.control.set_step(theirs, &[State::Verified], State::CatchingUp, ANN).await.is_ok());
    store.control.set_step(hold, &[State::CatchingUp], State::Verified, ANN).await.unwrap();
    store.control.open_barrier(hold, LIMIT_S).await.unwrap();
    let barrier = store.control.barrier_of(lead.rebuild_id).await.unwrap().unwrap();
    let mut stand = barrier.generations.clone();
    stand.sort_unstable();
    let mut expected = vec![store.live, other, lead.generation_id, led.generation_id];
    expected.sort_unstable();
    assert_eq!(stand, expected);
    let ends: Ends = store.partitions.iter().map(|p| (p.clone(), 7)).collect();
    store.control.set_barrier(hold, barrier.barrier_id, &ends, LIMIT_S).await.unwrap();
    for generation in &expected[1..] {
        store.arrive(barrier.barrier_id, *generation).await;
    }
    assert!(!store.control.decide(hold, barrier.barrier_id, ANN).await.unwrap(), "one isn't there");
    store.arrive(barrier.barrier_id, expected[0]).await;
    // One who was replaced doesn't count.
    store.control.claim(expected[1], &store.partitions).await.unwrap();
    let said = store.control.arrivals(barrier.barrier_id).await.unwrap();
    assert_eq!((said.len(), said.contains_key(&expected[1])), (3, false));
    assert!(!store.control.decide(hold, barrier.barrier_id, ANN).await.unwrap(), "nor there");
    store.arrive(barrier.barrier_id, expected[1]).await;
    assert!(store.control.decide(hold, barrier.barrier_id, ANN).await.unwrap());
    let (_, live) = store.control.catalog().await.unwrap();
    let live: Vec<i64> = live.into_iter().map(|generation| generation.generation_id).collect();
    assert_eq!(live, [lead.generation_id, led.generation_id]);
    store.control.release_barrier(hold, barrier.barrier_id).await.unwrap();
    store.control.rebuild_done(hold).await.unwrap();
    assert!(store.control.rebuilds().await.unwrap().is_empty(), "both are done");

    // Back, both; and given up, both.
    let names = ["loans".to_owned(), "books".to_owned()];
    let back = store.control.start_ways_back(&names, &Options::back(Verify::All), ANN).await.unwrap();
    store.control.abort_rebuild(&back[1], ANN).await.unwrap();
    assert!(store.control.rebuilds().await.unwrap().is_empty());
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn nobody_waits_for_what_is_lost() {
    let store = Store::start().await;
    let (topics, options) = (topics(), Options { back: false, repair: true, ..Options::back(Verify::Sample(0)) });
    let new = New { read_model: "loans", fingerprint: "f", config: "", topics: &topics, options: &options };
    let rebuild = store.control.start_rebuilds(&[new], ANN).await.unwrap().remove(0);
    let hold = store.control.hold(rebuild.rebuild_id, Uuid::new_v4(), "a job").await.unwrap().unwrap();
    store.control.rebuild_step(hold, &[State::Planned], State::Verified, ANN).await.unwrap();
    store.control.open_barrier(hold, LIMIT_S).await.unwrap();
    let barrier = store.control.barrier_of(rebuild.rebuild_id).await.unwrap().unwrap();
    assert_eq!(barrier.generations, [rebuild.generation_id]);
    let ends: Ends = store.partitions.iter().map(|p| (p.clone(), 7)).collect();
    store.control.set_barrier(hold, barrier.barrier_id, &ends, LIMIT_S).await.unwrap();
    store.arrive(barrier.barrier_id, rebuild.generation_id).await;
    assert!(store.control.decide(hold, barrier.barrier_id, ANN).await.unwrap());
    assert_eq!(store.states().await, [State::Dropped, State::Live], "there is no way back to it");
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_went_live_is_watched_as_long_as_there_is_a_way_back() {
    let store = Store::start().await;
    let health = Health { watch_s: 60, failed_percent: 5, p99_ms: 500, lag_ms: 2_000 };
    let (topics, options) = (topics(), Options { rollback_s: 60, health: Some(health.clone()), ..options() });
    let new = New { read_model: "loans", fingerprint: "g", config: "", topics: &topics, options: &options };
    let rebuild = store.control.start_rebuilds(&[new], ANN).await.unwrap().remove(0);
    let hold = store.control.hold(rebuild.rebuild_id, Uuid::new_v4(), "a job").await.unwrap().unwrap();
    store.control.rebuild_step(hold, &[State::Planned], State::Verified, ANN).await.unwrap();
    let id = store.set(&rebuild, hold, LIMIT_S).await;
    store.arrive(id, store.live).await;
    store.arrive(id, rebuild.generation_id).await;
    assert!(store.control.decide(hold, id, ANN).await.unwrap());
    assert!(store.control.watched().await.unwrap().is_empty(), "not before the rebuild is done");
    store.control.release_barrier(hold, id).await.unwrap();
    store.control.rebuild_done(hold).await.unwrap();
    for (serve, failed) in [(Uuid::new_v4(), 2), (Uuid::new_v4(), 3)] {
        let served = Served { generation_id: rebuild.generation_id, answered: 100, failed, p99_ms: failed * 10 };
        store.control.report_served(serve, &[served]).await.unwrap();
    }
    let watched = store.control.watched().await.unwrap();
    assert_eq!(watched.len(), 1);
    assert_eq!((watched[0].answered, watched[0].failed, watched[0].p99_ms), (200, 5, 30));
    assert_eq!((watched[0].generation_id, &watched[0].health), (rebuild.generation_id, &health));
    store.control.retire(store.live, ANN).await.unwrap();
    assert!(store.control.watched().await.unwrap().is_empty(), "there is no way back");
    store.stop().await;
}
