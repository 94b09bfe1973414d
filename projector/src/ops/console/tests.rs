#![allow(clippy::unwrap_used)]

use super::super::admin::{Caller, Seen};
use super::super::lag::{Leg, LegState, Line, Placed, Report, Standing};
use super::page::{Here, Page};
use super::{connectors, letter, letters, overview, picture, trouble};
use crate::apply::Partition;
use crate::control::{Alert, DeadLetter, DeadLetterLine, DeadLetterState, Position, Severity, State};
use crate::event::Catalog;
use crate::source::Connector;
use crate::verbs::explain::{Lineage, LooksUp};
use crate::verbs::letters::Whole;
use chrono::{DateTime, TimeDelta, Utc};
use maud::html;
use serde_json::json;
use std::path::Path;
use uuid::Uuid;

/// What somebody might put into a key, an error or a name.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";

fn assert_harmless(html: &str) {
    assert!(html.contains("&lt;script&gt;alert(1)"), "not shown at all: {html}");
    for wrong in ["<script>alert", "<img", "\"'>"] {
        assert!(!html.contains(wrong), "`{wrong}` in {html}");
    }
}

fn line(name: &str, state: Standing, text: &str, since: Option<DateTime<Utc>>) -> Line {
    let position = Position { topic: "events.loan".into(), partition: 3, next_offset: 12_345, behind: 7 };
    Line {
        read_model: name.to_owned(),
        generation: 2,
        generation_id: 7,
        generation_state: State::Live,
        store: Some("redis".to_owned()),
        state,
        since,
        text: text.to_owned(),
        behind_events: Some(1_234),
        behind_seconds: Some(12.5),
        lag_ms: 40,
        lag_ms_max: 1_000,
        lag_ms_critical: 60_000,
        handled_per_s: 3.0,
        published_per_s: 5.0,
        error_rate: 0.0,
        parked: 0,
        parked_behind: 0,
        parked_newest: None,
        waiting: None,
        hosts: 1,
        partitions_unowned: 0,
        last_applied: None,
        last_error: Some(text.to_owned()),
        positions: vec![Placed { host: Uuid::nil(), position }],
    }
}

fn report(read_models: Vec<Line>, alerts: Vec<Alert>) -> Report {
    let before_kafka = Leg {
        state: LegState::Ok,
        since: None,
        text: String::new(),
        outbox: None,
        slot: None,
        writer: None,
        connect: None,
        heartbeat: None,
    };
    Report { at: Utc::now(), read_models, before_kafka, alerts }
}

#[test]
fn what_is_wrong_stands_first_with_since_when_why_and_what_to_do() {
    let since = Utc::now() - TimeDelta::seconds(21);
    let lines = vec![
        line("calm", Standing::Ok, "", None),
        line("loans", Standing::Waiting, "redis is down: refused", Some(since)),
    ];
    let html = overview::board(&Seen::next(report(lines, Vec::new()), None)).into_string();
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("no `{text}` in {html}"));
    assert!(at("redis is down: refused") < at("<table"), "not above the table");
    assert!(at("bring back what is away") < at("<table"), "no advice");
    assert!(html.contains(">21 s<"), "not since when: {html}");
    assert!(at("row-loans") < at("row-calm"), "what is wrong comes first");
    assert!(html.contains("12.5 s") && html.contains("1,234"), "{html}");
    let calm = report(vec![line("calm", Standing::Ok, "", None)], Vec::new());
    assert!(overview::board(&Seen::next(calm, None)).into_string().contains("All read models are in time."));
}

#[test]
fn an_outbox_that_is_not_published_is_no_slow_read_model() {
    let mut late = report(vec![line("loans", Standing::Ok, "", None)], Vec::new());
    late.before_kafka.state = LegState::Late;
    late.before_kafka.text = "12 events of the outbox not published".to_owned();
    let found = trouble::all(&late);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].what.as_str(), found[0].read_models.len()), ("outbox not published", 0));
    assert!(found[0].remedy.contains("Read models are not slow"), "{}", found[0].remedy);
}

#[test]
fn what_is_the_same_is_said_once_and_what_only_an_alert_knows_is_shown() {
    let alert = |name: &str, read_model: &str, resolved_at| Alert {
        name: name.to_owned(),
        read_model: Some(read_model.to_owned()),
        severity: Severity::Critical,
        since: Utc::now(),
        text: "why".to_owned(),
        remedy: format!("remedy of {name}"),
        resolved_at,
    };
    let alerts = vec![
        alert("store-down", "loans", None),
        alert("error-rate", "members", None),
        alert("store-down", "returns", Some(Utc::now())),
    ];
    let lines = vec![
        line("loans", Standing::Waiting, "redis is down", None),
        line("members", Standing::Ok, "", None),
        line("shelves", Standing::Parked, "1 dead letters", None),
        line("volumes", Standing::Waiting, "redis is down", None),
    ];
    let found = trouble::all(&report(lines, alerts));
    let said: Vec<_> = found.iter().map(|t| (t.read_models.join(" "), t.what.as_str())).collect();
    let expected = [("members", "error-rate"), ("loans volumes", "waiting"), ("shelves", "parked")];
    assert_eq!(said, expected.map(|(names, what)| (names.to_owned(), what)));
    assert_eq!(found[0].remedy, "remedy of error-rate");
}

#[test]
fn nothing_hostile_gets_out_of_a_board() {
    let mut hostile = report(vec![line(HOSTILE, Standing::Stopped, HOSTILE, None)], Vec::new());
    hostile.before_kafka.text = HOSTILE.to_owned();
    hostile.alerts.push(Alert {
        name: HOSTILE.to_owned(),
        read_model: Some("other".to_owned()),
        severity: Severity::Warning,
        since: Utc::now(),
        text: HOSTILE.to_owned(),
        remedy: HOSTILE.to_owned(),
        resolved_at: None,
    });
    assert_harmless(&overview::board(&Seen::next(hostile, None)).into_string());
}

fn letter_line() -> DeadLetterLine {
    let now = Utc::now();
    DeadLetterLine {
        dead_letter_id: Uuid::from_u128(1),
        generation_id: 7,
        read_model: HOSTILE.to_owned(),
        generation: 2,
        partition: Partition { topic: HOSTILE.into(), number: 3 },
        offset: 9,
        aggregate_id: HOSTILE.to_owned(),
        sequence: Some(4),
        event_type: Some("MemberJoined".to_owned()),
        reason: Some(HOSTILE.to_owned()),
        tries: 3,
        state: DeadLetterState::Parked,
        asked_by: Some(HOSTILE.to_owned()),
        asked_why: Some(HOSTILE.to_owned()),
        asked_at: Some(now),
        parked_at: now,
        updated_at: now,
        first: Uuid::from_u128(1),
        waiting: 2,
    }
}

#[test]
fn a_dead_letter_is_shown_without_its_scripts_and_its_personal_data() {
    let catalog = Catalog::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/library/schemas"))).unwrap();
    let personal = catalog.event("MemberJoined").unwrap().personal.clone();
    assert!(!personal.is_empty(), "the fixture has no personal field");
    let line = letter_line();
    let letter = DeadLetter {
        dead_letter_id: line.dead_letter_id,
        generation_id: 7,
        partition: line.partition.clone(),
        offset: 9,
        aggregate_id: HOSTILE.to_owned(),
        sequence: Some(4),
        event_type: line.event_type.clone(),
        headers: Vec::new(),
        key: None,
        payload: Some(b"Ada Lovelace".to_vec()),
        reason: line.reason.clone(),
        tries: 3,
        done: vec![HOSTILE.to_owned()],
        state: DeadLetterState::Parked,
        parked_at: line.parked_at,
        updated_at: line.updated_at,
    };
    let data: serde_json::Map<_, _> = personal.iter().map(|name| (name.clone(), json!("Ada Lovelace"))).collect();
    let whole = Whole { line: line.clone(), letter, behind: Vec::new(), data: Ok(data.into()) };
    let html = letter::one(&whole, &catalog, &Caller::Anybody).into_string();
    assert_harmless(&html);
    assert!(html.contains("(hidden)") && !html.contains("Ada"), "{html}");
    assert!(!html.contains("<form"), "who can't act is offered to");
    let unread = Whole { data: Err(HOSTILE.to_owned()), ..whole };
    assert_harmless(&letter::one(&unread, &catalog, &Caller::Anybody).into_string());
    assert_harmless(&letters::list(&[line], Utc::now()).into_string());
}

#[test]
fn pictures_and_connectors_are_harmless_too() {
    let lineage = Lineage {
        name: HOSTILE.to_owned(),
        store: "redis",
        kind: "entity",
        topics: [(HOSTILE.to_owned(), vec![HOSTILE.to_owned(), "Renewed".to_owned()])].into(),
        lookups: vec![LooksUp { name: HOSTILE.to_owned(), from: HOSTILE.to_owned(), table: true }],
        queries: vec![HOSTILE.to_owned()],
    };
    let html = picture::lineage(&lineage).into_string();
    assert_harmless(&html);
    assert_eq!((html.matches("<rect").count(), html.matches("<path").count()), (4, 3), "{html}");
    let connector = Connector {
        name: HOSTILE.to_owned(),
        state: "FAILED".to_owned(),
        tasks: vec![HOSTILE.to_owned()],
        failures: vec![HOSTILE.to_owned()],
        config: std::collections::BTreeMap::new(),
    };
    assert_harmless(&connectors::list(&[connector], &Caller::Anybody).into_string());
    let page = Page {
        title: HOSTILE,
        here: Here::Overview,
        caller: &Caller::Anybody,
        above: html! {},
        live: None,
        below: html! {},
    };
    assert_harmless(&page.render().into_string());
}

#[test]
fn a_sparkline_stays_in_its_box_and_says_what_it_shows() {
    let html = picture::sparkline(&[0.0, 2.5, 0.5], 1.0).into_string();
    assert!(html.contains("at most 2.5 s, now 0.5 s"), "{html}");
    let points = html.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    for point in points.split(' ') {
        let (x, y) = point.split_once(',').unwrap();
        assert!((0.0..=120.0).contains(&x.parse::<f32>().unwrap()), "{points}");
        assert!((0.0..=24.0).contains(&y.parse::<f32>().unwrap()), "{points}");
    }
    assert!(!picture::sparkline(&[], 0.0).into_string().contains("NaN"));
}
