//! Which transactions had ended when an event was written: Postgres' `pg_snapshot`, which an outbox row may carry beside its
//! `tx_min`. `tx_min` alone says nothing of what is younger than the oldest running transaction, so one that stays open for an hour
//! makes readers remember an hour's events; a snapshot names those that still run, and they are few.

/// A snapshot, without its `xmin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxSnapshot {
    end: u64,
    running: Box<[u64]>,
}

impl TxSnapshot {
    /// Every transaction below `end` had ended, but for those `running` (the one that took the snapshot may be left out).
    #[must_use]
    pub fn new(end: u64, mut running: Vec<u64>) -> Self {
        running.sort_unstable();
        Self { end, running: running.into() }
    }

    /// Reads what `pg_current_snapshot()::text` gives, `xmin:xmax:running,running`, of the statement that saw `tx_min` as the oldest
    /// running transaction; none if it isn't that.
    #[must_use]
    pub fn read(text: &str, tx_min: u64) -> Option<Self> {
        let (xmin, rest) = text.split_once(':')?;
        let (xmax, running) = rest.split_once(':')?;
        let (xmin, end): (u64, u64) = (xmin.parse().ok()?, xmax.parse().ok()?);
        let running = running.split(',').filter(|one| !one.is_empty()).map(|one| one.parse().ok());
        let snapshot = Self::new(end, running.collect::<Option<_>>()?);
        let within = snapshot.running.iter().all(|one| (xmin..end).contains(one));
        (xmin == tx_min && xmin <= end && within).then_some(snapshot)
    }

    /// The first transaction of which it knows nothing: it may run, or begin later.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The transactions below [`TxSnapshot::end`] that still ran, rising.
    #[must_use]
    pub fn running(&self) -> &[u64] {
        &self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_writes_and_nothing_else() {
        assert_eq!(TxSnapshot::read("10:20:10,14,15", 10), Some(TxSnapshot::new(20, vec![10, 14, 15])));
        assert_eq!(TxSnapshot::read("10:10:", 10), Some(TxSnapshot::new(10, vec![])));
        for wrong in ["", "10", "10:20", "10:20:9", "10:20:20", "10:20:x", "20:10:", "-1:20:", "10:20:10 "] {
            assert_eq!(TxSnapshot::read(wrong, 10), None, "{wrong}");
        }
        assert_eq!(TxSnapshot::read("10:20:10", 11), None, "another statement's");
    }
}
