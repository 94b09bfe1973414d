//! Numbers and times, for people.

use super::super::lag::age;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A whole number with its thousands apart.
pub(super) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// Bytes in the unit that fits.
pub(super) fn bytes(number: i64) -> String {
    let mut rest = number;
    for unit in ["B", "KiB", "MiB"] {
        if rest < 10_240 {
            return format!("{} {unit}", count(rest));
        }
        rest /= 1_024;
    }
    format!("{} GiB", count(rest))
}

/// A time, with how long ago that was; exact for who points at it.
pub(super) fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    html! { time datetime=(then.to_rfc3339()) title=(clock(then)) { (since(then, now)) " ago" } }
}

/// How long it has been so.
pub(super) fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    age((now - then).to_std().unwrap_or_default().as_secs_f64())
}

/// A moment to the second.
pub(super) fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What paths have as it is.
const NOT_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Text that goes into a path of ours.
pub(super) fn in_path(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_PATHS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!([0, 999, 1_000, 1_234_567, -4_321].map(count), ["0", "999", "1,000", "1,234,567", "-4,321"]);
        assert_eq!([12, 10_240, 5 << 30].map(bytes), ["12 B", "10 KiB", "5,120 MiB"]);
        assert_eq!(in_path("a_1/b?c d<é"), "a_1%2Fb%3Fc%20d%3C%C3%A9");
    }
}
