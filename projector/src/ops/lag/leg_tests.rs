use super::*;
use chrono::TimeDelta;

fn leg(oldest_s: i64, unpublished: i64, active: bool) -> Leg {
    let now = Utc::now();
    let oldest_at = Some(now - TimeDelta::seconds(oldest_s));
    #[allow(clippy::cast_precision_loss)]
    let oldest_seconds = oldest_s as f64;
    Leg {
        outbox: Some(Outbox { unpublished, at_least: false, oldest_at, oldest_seconds }),
        slot: Some(Slot {
            name: "outbox_slot".into(),
            exists: true,
            active,
            wal_status: Some("reserved".into()),
            retained_bytes: Some(1),
            safe_bytes: None,
        }),
        heartbeat: Some(Heard { written_at: now, read_at: now, seconds: 0.0 }),
        ..Leg::bare(Standing::Ok, String::new())
    }
}

#[test]
fn rows_that_wait_are_said_with_what_may_keep_them() {
    let late = leg(7, 12, false);
    let connect = Connect { state: "UNREACHABLE".into(), connectors: Vec::new(), error: Some("refused".into()) };
    let late = Leg { connect: Some(connect), ..late }.judge(5.0, true);
    assert_eq!((late.state, late.is_late(), late.is_read()), (Standing::Late, true, Some(false)));
    assert_eq!(
        late.text,
        "12 events of the outbox not published, the oldest 7.0 s old; nobody reads slot outbox_slot; Kafka Connect doesn't \
         answer: refused"
    );
    assert!(late.since.is_some());
    assert_eq!(leg(61, 1, true).judge(5.0, true).state, Standing::Critical);
    assert_eq!(leg(7, 0, true).judge(5.0, true).text, "a heartbeat written 7.0 s ago is not in Kafka");
}

#[test]
fn rows_of_the_last_seconds_are_no_news() {
    let leg = leg(1, 300, true).judge(5.0, true);
    assert_eq!((leg.state, leg.text.as_str(), leg.since), (Standing::Ok, "", None));
}

#[test]
fn without_heartbeats_nobody_knows_for_a_while() {
    assert_eq!(leg(7, 12, true).judge(5.0, false).state, Standing::Unknown);
    assert_eq!(leg(120, 12, true).judge(5.0, false).state, Standing::Critical, "stamps come within seconds");
    let never = Leg { heartbeat: None, ..leg(1, 0, true) }.judge(5.0, true);
    assert_eq!(never.text, "no heartbeat of the outbox ever came back from Kafka");
}

#[test]
fn a_slot_that_is_gone_is_critical_though_nothing_waits() {
    let mut gone = leg(0, 0, true);
    gone.slot = gone.slot.map(|slot| Slot { exists: false, ..slot });
    let gone = gone.judge(5.0, true);
    assert_eq!((gone.state, gone.text.as_str()), (Standing::Critical, "there is no replication slot outbox_slot"));
}
