//! Lines that repeat: of one place in the code, at most so many within a while. What is left out is counted, and said with the next
//! line of that place.
//!
//! Whoever waits for something says so ever more rarely by itself; this is for what thousands of requests may say at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

const LINES_MAX: u32 = 30;
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Place {
    since: Instant,
    said: u32,
    left_out: u64,
}

/// Formats as `F` does, as long as there aren't too many.
pub(crate) struct Limited<F> {
    format: F,
    json: bool,
    places: Mutex<HashMap<Identifier, Place>>,
}

impl<F> Limited<F> {
    pub(crate) fn json(format: F) -> Self {
        Self { format, json: true, places: Mutex::default() }
    }

    pub(crate) fn text(format: F) -> Self {
        Self { format, json: false, places: Mutex::default() }
    }

    /// How many lines of a place were left out before this one; `None` if this one is, too.
    fn admit(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { since: now, said: 0, left_out: 0 });
        if now.saturating_duration_since(place.since) >= WITHIN {
            (place.since, place.said) = (now, 0);
        }
        if place.said == LINES_MAX {
            place.left_out += 1;
            return None;
        }
        place.said += 1;
        Some(std::mem::take(&mut place.left_out))
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        match self.admit(meta.callsite(), Instant::now()) {
            None => return Ok(()),
            Some(0) => {}
            Some(left_out) if self.json => writeln!(
                to,
                r#"{{"level":"{}","target":"{}","left_out":{left_out},"message":"lines of this place were left out: there were too many"}}"#,
                meta.level(),
                meta.target()
            )?,
            Some(left_out) => writeln!(to, "({left_out} lines like the next were left out: there were too many)")?,
        }
        self.format.format_event(context, to, event)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// What lines come to.
    fn printed(json: bool, work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let (to, format) = (kept.clone(), tracing_subscriber::fmt::format().with_ansi(false));
        let layer = tracing_subscriber::fmt::layer().with_writer(move || to.clone());
        if json {
            let layer = layer.event_format(Limited::json(format));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        } else {
            let layer = layer.event_format(Limited::text(format));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        }
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_place_that_says_too_much_is_cut_short_and_others_are_not() {
        for json in [false, true] {
            let text = printed(json, || {
                for n in 0..1_000 {
                    tracing::warn!(n, "down");
                }
                tracing::warn!("something else");
            });
            assert_eq!(text.matches("down").count(), LINES_MAX as usize);
            assert_eq!(text.matches("something else").count(), 1);
        }
    }

    #[test]
    fn what_was_left_out_is_said_with_the_next_line() {
        let limited = Limited::text(());
        let meta = Identifier(&CALLSITE);
        let now = Instant::now();
        let admitted = (0..100).filter(|_| limited.admit(meta.clone(), now).is_some()).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert_eq!(limited.admit(meta.clone(), now + WITHIN), Some(100 - u64::from(LINES_MAX)));
        assert_eq!(limited.admit(meta, now + WITHIN), Some(0));
    }

    struct Nowhere;
    static CALLSITE: Nowhere = Nowhere;

    impl tracing::Callsite for Nowhere {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nobody asks")
        }
    }
}
