//! Each finding names what, why and what to do; all at once.

use super::super::connect::tests::connector;
use super::*;

fn topic(partitions: i32, changed: &[(&str, &str)]) -> Topic {
    let right = [
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "false"),
    ];
    let settings = right.iter().chain(changed).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Topic { partitions, settings: Some(settings) }
}

fn counts(all: &[(i32, &str)]) -> BTreeMap<i32, Vec<String>> {
    all.iter().map(|(count, generation)| (*count, vec![(*generation).to_owned()])).collect()
}

#[test]
fn a_topic_as_it_should_be_passes() {
    assert_eq!(judge_topic("events.loan", Some(&topic(12, &[])), Some(&counts(&[(12, "loans-g1")]))), []);
    // a broker that doesn't know a setting has nothing to say about it
    let bare = Topic { partitions: 12, settings: Some(HashMap::new()) };
    assert_eq!(judge_topic("events.loan", Some(&bare), None), []);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = topic(
        6,
        &[
            ("cleanup.policy", "delete, compact"),
            ("message.timestamp.type", "LogAppendTime"),
            ("unclean.leader.election.enable", "true"),
        ],
    );
    let found = judge_topic("events.loan", Some(&wrong), Some(&counts(&[(12, "loans-g1"), (6, "books-g2")])));
    let refused = Refused(found).to_string();
    assert_eq!(refused.matches("\n  - ").count(), 4, "{refused}");
    assert!(
        refused.contains("topic `events.loan` has 6 partitions, and loans-g1 was built with 12: a key's"),
        "{refused}"
    );
    assert!(refused.contains("--add-config cleanup.policy=delete"), "{refused}");
    assert!(!refused.contains("books-g2"), "its count is the topic's: {refused}");
}

#[test]
fn a_topic_that_is_not_there_is_named_with_what_makes_it() {
    let found = judge_topic("events.loan", None, None);
    assert!(found[0].to_string().starts_with("topic `events.loan` doesn't exist"), "{}", found[0]);
    assert!(found[0].remedy.contains("connectors apply"));
}

#[test]
fn a_second_connector_on_a_topic_is_refused_once_for_all_topics() {
    let topics = ["events.book".to_owned(), "events.loan".to_owned()];
    let one = connector("outbox", "RUNNING", &[]);
    assert_eq!(judge_connectors(std::slice::from_ref(&one), &topics), []);
    let found = judge_connectors(&[one.clone(), connector("again", "RUNNING", &[])], &topics);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].what, "connectors outbox, again all write to events.book, events.loan");
    // stopped, or with topics of its own
    let elsewhere =
        [("transforms.outbox.route.topic.replacement", "copy.${routedByValue}"), ("snapshot.mode", "initial")];
    let harmless = [one, connector("former", "STOPPED", &[]), connector("copy", "RUNNING", &elsewhere)];
    assert_eq!(judge_connectors(&harmless, &topics), []);
}

#[test]
fn snapshots_and_reordering_producers_are_refused() {
    let topics = ["events.loan".to_owned()];
    let more = [("snapshot.mode", "initial"), ("producer.override.max.in.flight.requests.per.connection", "5")];
    let found = judge_connectors(&[connector("outbox", "RUNNING", &more)], &topics);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].to_string().contains("snapshot.mode=initial") && found[0].remedy.contains("no_data"));
}

#[test]
fn generations_freeze_counts_by_topic() {
    let generation = |read_model: &str, partitions: i32| Generation {
        generation_id: 1,
        read_model: read_model.to_owned(),
        generation: 1,
        state: "live".to_owned(),
        fingerprint: String::new(),
        config: String::new(),
        topics: [("events.loan".to_owned(), partitions)].into(),
    };
    let all = frozen(&[generation("a", 12), generation("b", 12), generation("c", 6)]);
    let loans = &all["events.loan"];
    assert_eq!(loans[&12], ["a-g1", "b-g1"]);
    assert_eq!(loans[&6], ["c-g1"]);
}

#[test]
fn tombstones_outlive_the_events_in_kafka() {
    let topic = |retention: &str| Topic {
        partitions: 12,
        settings: Some([("retention.ms".to_owned(), retention.to_owned())].into()),
    };
    let keep = TimeDelta::days(31);
    assert_eq!(judge_retention("events.loan", &topic("604800000"), keep), None);
    let refused = judge_retention("events.loan", &topic("2678400000"), keep).map(|r| r.to_string()).unwrap_or_default();
    assert!(refused.contains("for 31 days") && refused.contains("TOMBSTONES_KEEP_DAYS"), "{refused}");
    assert!(judge_retention("events.loan", &topic("-1"), keep).is_some());
    assert_eq!(judge_retention("events.loan", &Topic::default(), keep), None);
}
