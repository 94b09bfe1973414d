//! What every host watches for itself: whether the control store answers. While it doesn't, no host can hold the monitor's lease,
//! so nobody else would tell.

use super::machine::{Machine, Notice};
use super::rules::{Condition, Rule};
use crate::control::Severity;
use chrono::{DateTime, Utc};

/// One host's reach of the control store. No clock and no I/O.
#[derive(Debug)]
pub(super) struct Reach {
    host: String,
    machine: Machine,
    lost_at: Option<DateTime<Utc>>,
}

impl Reach {
    pub(super) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), machine: Machine::default(), lost_at: None }
    }

    /// Takes how a call that began at `began` has ended at `now`; gives what is to be told.
    pub(super) fn step(&mut self, failed: Option<&str>, began: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Notice> {
        let Some(error) = failed else {
            self.lost_at = None;
            return self.machine.step(Vec::new(), now);
        };
        let since = *self.lost_at.get_or_insert(began);
        let text =
            format!("control store unreachable from {} since {} UTC: {error}", self.host, since.format("%H:%M:%S"));
        let (rule, severity) = (Rule::ControlStoreDown, Severity::Critical);
        let condition = Condition { rule, read_model: None, severity, since: Some(since), text, mark: None };
        self.machine.step(vec![condition], now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap_or_default()
    }

    /// A call a second, from `from` on; what is told, with its second.
    fn told(reach: &mut Reach, from: i64, calls: &[Option<&str>]) -> Vec<(i64, Notice)> {
        let told = (from..).zip(calls).flat_map(|(second, failed)| {
            let notices = reach.step(*failed, at(second) - TimeDelta::milliseconds(500), at(second));
            notices.into_iter().map(move |notice| (second, notice)).collect::<Vec<_>>()
        });
        told.collect()
    }

    #[test]
    fn it_is_told_after_ten_seconds_and_again_when_it_is_back() {
        let mut reach = Reach::new("host a");
        assert_eq!(told(&mut reach, 0, &[Some("refused"); 10]), [], "a restart of the control store is no news");
        let raised = told(&mut reach, 10, &[Some("refused"); 20]);
        let [(10, Notice::Raised(alert))] = raised.as_slice() else { panic!("{raised:?}") };
        assert_eq!((alert.name.as_str(), alert.severity), ("control-store-down", Severity::Critical));
        assert_eq!(alert.since, at(0) - TimeDelta::milliseconds(500));
        assert!(alert.text.starts_with("control store unreachable from host a since "), "{}", alert.text);
        assert!(alert.text.ends_with("UTC: refused"), "{}", alert.text);
        let resolved = told(&mut reach, 30, &[None; 20]);
        assert!(matches!(resolved.as_slice(), [(31, Notice::Resolved(_))]), "{resolved:?}");
    }

    #[test]
    fn what_comes_and_goes_is_not_told() {
        let mut reach = Reach::new("host a");
        let calls: Vec<_> = (0..60).map(|n| (n % 9 != 0).then_some("refused")).collect();
        assert_eq!(told(&mut reach, 0, &calls), []);
    }
}
