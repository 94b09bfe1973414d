use super::*;
use crate::ops::lag::{Connect, Outbox, Slot};

fn line() -> Line {
    Line {
        read_model: "loans".into(),
        generation: 1,
        generation_id: 1,
        generation_state: State::Live,
        store: Some("redis".into()),
        state: Standing::Ok,
        since: None,
        text: String::new(),
        behind_events: Some(0),
        behind_seconds: Some(0.0),
        lag_ms: 0,
        lag_ms_max: 1_000,
        lag_ms_critical: 60_000,
        handled_per_s: 0.0,
        published_per_s: 0.0,
        error_rate: 0.0,
        parked: 0,
        parked_behind: 0,
        parked_newest: None,
        waiting: None,
        hosts: 1,
        partitions_unowned: 0,
        last_applied: None,
        last_error: None,
        positions: Vec::new(),
    }
}

fn quiet() -> Leg {
    Leg {
        state: LegState::Ok,
        since: None,
        text: String::new(),
        outbox: None,
        slot: Some(Slot {
            name: "outbox_slot".into(),
            exists: true,
            active: true,
            wal_status: Some("reserved".into()),
            retained_bytes: Some(3 << 20),
            safe_bytes: None,
        }),
        writer: None,
        connect: None,
        heartbeat: None,
    }
}

fn names(line: Line, leg: Leg) -> Vec<&'static str> {
    let report = Report { at: Utc::now(), read_models: vec![line], before_kafka: leg, alerts: Vec::new() };
    conditions(&report, &Machine::default()).into_iter().map(|c| c.rule.name()).collect()
}

#[test]
fn nothing_is_wrong_with_what_is_well() {
    assert!(names(line(), quiet()).is_empty());
}

#[test]
fn a_store_that_is_down_is_told_and_not_its_effect() {
    let since = Utc::now();
    let waiting = Some(Waiting { on: "redis".into(), since, error: Some("refused".into()) });
    let waits = Line { state: Standing::Waiting, waiting, behind_seconds: Some(70.0), ..line() };
    assert_eq!(names(waits, quiet()), ["store-down"]);
}

#[test]
fn what_comes_late_to_kafka_is_not_the_projectors_fault() {
    let late = || Line { state: Standing::Late, text: "9 s behind".into(), ..line() };
    assert_eq!(names(late(), quiet()), ["read-model-late"]);
    let since = Some(Utc::now());
    let outbox = Some(Outbox { unpublished: 9, at_least: false, oldest_at: since, oldest_seconds: 9.0 });
    let stopped = || {
        let slot = quiet().slot.map(|slot| Slot { active: false, ..slot });
        let connect = Connect { state: "UNREACHABLE".into(), connectors: Vec::new(), error: Some("refused".into()) };
        Leg { state: LegState::Late, since, slot, outbox: outbox.clone(), connect: Some(connect), ..quiet() }
    };
    let expected = ["outbox-not-published", "slot-inactive", "connector-down"];
    assert_eq!(names(late(), stopped()), expected);
    // Also for a while after the connector is back, when old events arrive.
    let mut machine = Machine::default();
    let report = Report { at: Utc::now(), read_models: Vec::new(), before_kafka: stopped(), alerts: Vec::new() };
    machine.step(conditions(&report, &machine), report.at);
    let after = Report { read_models: vec![late()], before_kafka: quiet(), ..report };
    assert!(conditions(&after, &machine).is_empty());
}

#[test]
fn a_generation_that_is_built_or_retired_is_nobodys_alarm() {
    for generation_state in [State::Replaying, State::Retired] {
        let behind = Line { generation_state, state: Standing::NoHost, error_rate: 0.5, ..line() };
        assert!(names(behind, quiet()).is_empty());
    }
    let parked = Line { generation_state: State::Replaying, parked: 1, ..line() };
    assert_eq!(names(parked, quiet()), ["dead-letter"], "its rebuild stops for it");
}

#[test]
fn rates_are_judged_where_they_say_something() {
    let slow =
        |published_per_s, behind| Line { handled_per_s: 100.0, published_per_s, behind_events: Some(behind), ..line() };
    assert_eq!(names(slow(200.0, 5_000), quiet()), ["falls-behind"]);
    assert!(names(slow(200.0, 50), quiet()).is_empty(), "a batch's worth");
    assert!(names(slow(105.0, 5_000), quiet()).is_empty(), "it keeps up");
    assert_eq!(names(Line { error_rate: 0.001, ..line() }, quiet()), ["error-rate"]);
}

#[test]
fn a_leg_without_answers_is_told() {
    let gone = quiet().slot.map(|slot| Slot { exists: false, ..slot });
    assert_eq!(names(line(), Leg { slot: gone, ..quiet() }), ["slot-lost"]);
    assert_eq!(names(line(), Leg { state: LegState::Unreachable, slot: None, ..quiet() }), ["write-database-down"]);
    assert_eq!(names(line(), Leg { state: LegState::Unknown, ..quiet() }), ["outbox-unknown"]);
    assert!(names(line(), Leg { state: LegState::NotConfigured, slot: None, ..quiet() }).is_empty());
}

#[test]
fn every_rule_has_a_name_of_its_own_and_says_what_to_do() {
    for rule in Rule::ALL {
        assert_eq!(Rule::of(rule.name()), Some(rule));
        assert!(rule.remedy(Some("loans")).len() > 20);
        assert!(rule.resolved_after() >= TimeDelta::seconds(2));
    }
}
