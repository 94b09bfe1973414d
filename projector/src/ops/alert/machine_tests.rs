use super::*;
use crate::control::Severity;
use chrono::TimeDelta;

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000 + ms).unwrap_or_default()
}

fn late(severity: Severity) -> Condition {
    Condition {
        rule: Rule::Late,
        read_model: Some("loans".into()),
        severity,
        since: None,
        text: "3 s behind".into(),
        mark: None,
    }
}

/// What is told, as `+ !` and `-` for raised, again and resolved, by steps of half a second.
fn told(machine: &mut Machine, steps: &[Option<Condition>]) -> String {
    let step = |(n, condition): (usize, &Option<Condition>)| {
        let notices = machine.step(Vec::from_iter(condition.clone()), at(500 * i64::try_from(n).unwrap_or(0)));
        let signs: String = notices
            .iter()
            .map(|notice| match notice {
                Notice::Raised(_) => '+',
                Notice::Again(_) => '!',
                Notice::Resolved(_) => '-',
            })
            .collect();
        if signs.is_empty() { ".".to_owned() } else { signs }
    };
    steps.iter().enumerate().map(step).collect()
}

#[test]
fn it_is_told_once_it_lasted_and_once_it_is_over() {
    let (on, off) = (Some(late(Severity::Warning)), None);
    let mut steps = vec![on.clone(); 6];
    steps.extend(vec![off; 12]);
    assert_eq!(told(&mut Machine::default(), &steps), "..+............-..");
}

#[test]
fn what_flickers_is_told_once() {
    let (on, off) = (Some(late(Severity::Warning)), None);
    let flicker: Vec<_> = (0..30).map(|n| if n % 3 == 0 { on.clone() } else { off.clone() }).collect();
    assert_eq!(told(&mut Machine::default(), &flicker), ".".repeat(30), "it never lasted");
    let mut machine = Machine::default();
    machine.step(vec![late(Severity::Warning)], at(-2_000));
    machine.step(vec![late(Severity::Warning)], at(-1_000));
    assert!(machine.stands(Rule::Late));
    assert_eq!(told(&mut machine, &flicker), ".".repeat(30), "it was never over");
}

#[test]
fn what_becomes_worse_is_told_again_and_what_becomes_better_is_not() {
    let (warning, critical) = (Some(late(Severity::Warning)), Some(late(Severity::Critical)));
    let steps = [warning.clone(), warning.clone(), warning.clone(), critical.clone(), critical, warning];
    assert_eq!(told(&mut Machine::default(), &steps), "..+!..");
}

#[test]
fn each_new_dead_letter_is_told() {
    let letter = |ms| {
        let (rule, mark) = (Rule::DeadLetter, Some(at(ms)));
        Some(Condition { rule, mark, since: Some(at(-9_000)), ..late(Severity::Warning) })
    };
    let steps = [letter(0), letter(0), letter(700), letter(700)];
    let mut machine = Machine::default();
    assert_eq!(told(&mut machine, &steps), "+.!.");
    assert_eq!(machine.standing().map(|alert| alert.since).collect::<Vec<_>>(), [at(-9_000)]);
}

#[test]
fn the_next_host_goes_on_without_telling_again() {
    let mut first = Machine::default();
    first.step(vec![late(Severity::Warning)], at(0));
    let raised = first.step(vec![late(Severity::Warning)], at(1_000));
    let alerts: Vec<_> = raised.iter().map(|notice| notice.alert().clone()).collect();
    assert_eq!((alerts.len(), alerts[0].since), (1, at(0)));
    let mut second = Machine::resume(alerts.clone(), at(5_000));
    assert_eq!(second.step(vec![late(Severity::Warning)], at(5_500)), []);
    assert_eq!(second.step(Vec::new(), at(6_000)), []);
    let resolved = second.step(Vec::new(), at(5_500) + Rule::Late.resolved_after());
    let expected = Alert { resolved_at: Some(at(5_500) + TimeDelta::seconds(5)), ..alerts[0].clone() };
    assert_eq!(resolved, [Notice::Resolved(expected)]);
}

#[test]
fn alerts_are_by_read_model() {
    let of =
        |name: &str| Condition { rule: Rule::StoreDown, read_model: Some(name.into()), ..late(Severity::Critical) };
    let mut machine = Machine::default();
    assert_eq!(machine.step(vec![of("loans"), of("readers")], at(0)).len(), 2, "a store that is down is told at once");
    let over = machine.step(vec![of("loans")], at(3_000));
    assert_eq!(over.iter().map(|n| n.alert().read_model.as_deref()).collect::<Vec<_>>(), [Some("readers")]);
}
