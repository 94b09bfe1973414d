//! `compose/.env`, compiled in: the one place for topic settings gives the options their defaults.

const ENV_FILE: &str = include_str!("../../compose/.env");

/// The value of a key of `compose/.env`; empty if it has no such key (a test names those).
#[must_use]
pub fn value(key: &str) -> &'static str {
    ENV_FILE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::trim)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn every_default_that_the_options_use_exists() {
        for key in ["TOPIC_AGGREGATES", "TOPIC_PARTITIONS", "TOPIC_RETENTION_DAYS", "TOPIC_REPLICATION_FACTOR"] {
            assert!(!value(key).is_empty(), "{key}");
        }
    }
}
