//! How far a long run is: a bar on a terminal, a line every few seconds elsewhere (logs, CI).

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR: &str = "{prefix:22} {wide_bar} {pos}/{len} · {per_sec} · {eta} left";

#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    started: Instant,
    bar: ProgressBar,
    /// When the last line was printed; `None` on a terminal.
    lines: Option<Mutex<Instant>>,
}

impl Progress {
    pub(super) fn start(what: &'static str, total: usize) -> Self {
        let started = Instant::now();
        if !stderr().is_terminal() {
            eprintln!("{what}: {total} to send");
            let bar = ProgressBar::hidden();
            bar.set_length(total as u64);
            return Self { what, started, bar, lines: Some(Mutex::new(started)) };
        }
        let bar = ProgressBar::new(total as u64).with_prefix(what);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.with_key(
                "per_sec",
                |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:.0}/s", state.per_sec());
                },
            ));
        }
        Self { what, started, bar, lines: None }
    }

    pub(super) fn advance(&self) {
        self.bar.inc(1);
        let Some(lines) = &self.lines else { return };
        let Ok(mut last) = lines.lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("{}", self.line());
        }
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
        eprintln!("{}", self.line());
    }

    fn line(&self) -> String {
        let done = self.bar.position();
        let total = self.bar.length().unwrap_or_default();
        let elapsed = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = done as f64 / elapsed;
        let left = if done < total && rate > 0.0 {
            format!(" · about {:.0} s left", (total - done) as f64 / rate)
        } else {
            String::new()
        };
        format!("{}: {done}/{total} · {rate:.0}/s · {elapsed:.0} s{left}", self.what)
    }
}
