//! `Prefer` (RFC 7240): `wait=order_summary,order_details; wait_ms=500`, or `respond-async`.
//!
//! The names may be quoted, as the standard would have it, or not. The standard's own `wait=10` counts seconds; no read model
//! is called so, and like every preference that a service doesn't know it changes nothing.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::http::problem::Problem;

/// Read models that a command waits for.
pub(super) const READ_MODELS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 64;
/// A client must not hang.
const WAIT_MS_MAX: u64 = 5_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preference {
    /// Nothing that concerns us.
    Unsaid,
    /// At once.
    Async,
    /// Once these show it, or the time is over.
    Wait { read_models: Vec<String>, wait: Option<Duration> },
}

/// Whether this may be a read model's name.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.len() <= NAME_CHARS_MAX && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain)
}

pub(super) fn read(headers: &HeaderMap) -> Result<Preference, Problem> {
    let (mut read_models, mut wait, mut at_once) = (Vec::new(), None, false);
    for header in headers.get_all("prefer") {
        let text = header.to_str().map_err(|_| malformed("must be visible ASCII"))?.replace('"', "");
        // A name without a value belongs to the list that `wait=` began.
        let mut listing = false;
        for element in text.split(',') {
            let mut parts = element.split(';').map(str::trim);
            let preference = parts.next().unwrap_or_default();
            let name = match preference.split_once('=') {
                Some((key, value)) => {
                    listing = key.trim().eq_ignore_ascii_case("wait");
                    Some(value.trim()).filter(|value| listing && value.parse::<u64>().is_err())
                }
                None if preference.eq_ignore_ascii_case("respond-async") => {
                    (at_once, listing) = (true, false);
                    None
                }
                None => Some(preference).filter(|_| listing),
            };
            if let Some(name) = name {
                if !is_name(name) {
                    return Err(malformed("after `wait=` come the names of read models, with commas between"));
                }
                if !read_models.iter().any(|known| known == name) {
                    read_models.push(name.to_owned());
                }
            }
            for (key, value) in parts.filter(|_| listing).filter_map(|part| part.split_once('=')) {
                if key.trim().eq_ignore_ascii_case("wait_ms") {
                    wait = Some(milliseconds(value.trim())?);
                }
            }
        }
    }
    if read_models.len() > READ_MODELS_MAX {
        return Err(malformed(format!("at most {READ_MODELS_MAX} read models can be waited for")));
    }
    Ok(match (read_models.is_empty(), at_once) {
        (false, _) => Preference::Wait { read_models, wait },
        (true, true) => Preference::Async,
        (true, false) => Preference::Unsaid,
    })
}

fn milliseconds(text: &str) -> Result<Duration, Problem> {
    let number = text.parse().ok().filter(|ms: &u64| *ms <= WAIT_MS_MAX);
    number.map(Duration::from_millis).ok_or_else(|| malformed(format!("wait_ms must be from 0 to {WAIT_MS_MAX}")))
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::malformed("prefer", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Result<Preference, Problem> {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append("prefer", HeaderValue::from_static(value)));
        read(&headers)
    }

    fn wait(read_models: &[&str], ms: Option<u64>) -> Preference {
        let read_models = read_models.iter().map(|name| (*name).to_owned()).collect();
        Preference::Wait { read_models, wait: ms.map(Duration::from_millis) }
    }

    #[test]
    fn names_stand_as_the_specification_or_as_the_standard_writes_them() {
        for (values, expected) in [
            (&["wait=order_summary"][..], wait(&["order_summary"], None)),
            (&["wait=order_summary,order_details"], wait(&["order_summary", "order_details"], None)),
            (&["Wait=\"a, b\"; wait_ms=250"], wait(&["a", "b"], Some(250))),
            (&["wait=a; wait_ms=0, b"], wait(&["a", "b"], Some(0))),
            (&["return=minimal, wait=a,a"], wait(&["a"], None)),
            (&["wait=a, return=minimal, handling=strict"], wait(&["a"], None)),
            (&["respond-async", "wait=a"], wait(&["a"], None)),
            (&["wait=a,respond-async, b"], wait(&["a"], None)),
            (&["respond-async, wait=10"], Preference::Async),
            (&["wait=10"], Preference::Unsaid),
            (&["stale-ok"], Preference::Unsaid),
            (&[], Preference::Unsaid),
        ] {
            assert_eq!(of(values).unwrap(), expected, "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_happens() {
        for wrong in ["wait=", "wait=a,,b", "wait=a b", "wait=../x", "wait=a; wait_ms=5001", "wait=a; wait_ms=x"] {
            assert_eq!(of(&[wrong]).unwrap_err().field.as_deref(), Some("prefer"), "{wrong}");
        }
        let many: Vec<String> = (0..17).map(|n| format!("m{n}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_str(&format!("wait={}", many.join(","))).unwrap());
        assert!(read(&headers).is_err());
    }
}
