use super::*;
use crate::control::{Generation, Present};

fn member(state: State) -> Member {
    Member {
        generation: Generation {
            generation_id: 7,
            read_model: "loans".into(),
            generation: 2,
            state: state.name().into(),
            fingerprint: String::new(),
            config: String::new(),
            topics: [("events.loan".to_owned(), 1)].into(),
        },
        state,
        paused: false,
        paused_why: None,
        fed_until: None,
        removed: false,
    }
}

fn reported(behind: i64, present: Present, now: DateTime<Utc>) -> HostStatus {
    let positions = vec![Position { topic: "events.loan".into(), partition: 0, next_offset: 9, behind }];
    HostStatus {
        host: Uuid::nil(),
        generation_id: 7,
        events_applied: 9,
        duplicates: 0,
        errors: 0,
        behind,
        last_error: None,
        lag_histogram: Vec::new(),
        present: Present { positions, lag_ms_max: Some(500), ..present },
        updated_at: now,
    }
}

fn line(state: State, behind: i64, present: Present, hears: Option<bool>) -> Line {
    let now = Utc::now();
    Line::of(&member(state), &[&reported(behind, present, now)], ParkedCount::default(), hears, now)
}

#[test]
fn quiet_is_healthy_only_while_heartbeats_come_back() {
    assert_eq!(line(State::Live, 0, Present::default(), Some(true)).state, Standing::Ok);
    assert_eq!(line(State::Live, 0, Present::default(), Some(false)).state, Standing::Unknown);
    assert_eq!(line(State::Live, 0, Present::default(), None).state, Standing::Unknown);
    let busy = Present { published_per_s: 3.0, ..Present::default() };
    assert_eq!(line(State::Live, 0, busy, Some(false)).state, Standing::Ok, "it gets something");
}

#[test]
fn the_oldest_unseen_event_makes_it_late_by_its_own_threshold() {
    let old = |ms| Present { oldest_unseen: Some(Utc::now() - TimeDelta::milliseconds(ms)), ..Present::default() };
    assert_eq!(line(State::Live, 3, old(300), Some(true)).state, Standing::Ok);
    let late = line(State::Live, 3, old(700), Some(true));
    assert_eq!((late.state, late.is_late()), (Standing::Late, true));
    assert!(late.text.starts_with("0.7 s behind, 3 events"), "{}", late.text);
    assert_eq!(line(State::Live, 3, old(61_000), Some(true)).state, Standing::Critical);
    assert!(!line(State::Replaying, 3, old(61_000), Some(true)).is_late(), "a replay has old events in hand");
    let slow = Present { lag_ms: 700, ..Present::default() };
    assert_eq!(line(State::Live, 0, slow, Some(true)).state, Standing::Late, "it is done, and came late");
    let idle = Present { idle_since: Some(Utc::now() - TimeDelta::seconds(2)), ..Present::default() };
    assert_eq!(line(State::Live, 3, idle, Some(true)).state, Standing::Late, "nobody reads what is in Kafka");
}

#[test]
fn a_store_that_is_down_is_said_before_that_it_is_late() {
    let since = Utc::now() - TimeDelta::seconds(9);
    let waiting = Waiting { on: "redis".into(), since, error: Some("connection refused".into()) };
    let present = Present { waiting: Some(waiting), oldest_unseen: Some(since), ..Present::default() };
    let line = line(State::Live, 3, present, Some(true));
    assert_eq!((line.state, line.since), (Standing::Waiting, Some(since)));
    assert_eq!(line.text, "redis is down: connection refused");
}

#[test]
fn a_silent_host_is_no_host() {
    let now = Utc::now();
    let report = reported(0, Present::default(), now - TimeDelta::seconds(8));
    let line = Line::of(&member(State::Live), &[&report], ParkedCount::default(), Some(true), now);
    assert_eq!((line.state, line.since, line.behind_events), (Standing::NoHost, Some(report.updated_at), None));
    assert_eq!(line.text, "no host has reported for 8.0 s");
    let never = Line::of(&member(State::Live), &[], ParkedCount::default(), Some(true), now);
    assert_eq!((never.state, never.text.as_str()), (Standing::NoHost, "no host has ever fed it"));
}

#[test]
fn dead_letters_and_pauses_are_said() {
    let now = Utc::now();
    let parked = ParkedCount { letters: 5, failed: 2, since: Some(now), newest: Some(now) };
    let report = reported(0, Present::default(), now);
    let line = Line::of(&member(State::Live), &[&report], parked, Some(true), now);
    assert_eq!((line.state, line.text.as_str()), (Standing::Parked, "2 dead letters, 3 events wait behind them"));
    let paused = Member { paused: true, paused_why: Some("by hand".into()), ..member(State::Live) };
    let line = Line::of(&paused, &[&report], parked, Some(true), now);
    assert_eq!((line.state, line.text.as_str()), (Standing::Paused, "by hand"));
}
