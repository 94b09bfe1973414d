//! One line a component: spinners on a terminal, a plain line when each is done elsewhere (CI, logs).

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The lines of one step.
pub(crate) struct Board {
    bars: MultiProgress,
    plain: bool,
}

/// A component's line.
pub(crate) struct Row {
    bar: ProgressBar,
    name: String,
    plain: bool,
    started: Instant,
}

impl Board {
    /// A board on standard error.
    pub(crate) fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        let plain = bars.is_hidden();
        Self { bars, plain }
    }

    /// Adds a line that says `waiting` until it is told otherwise.
    pub(crate) fn row(&self, name: &str) -> Row {
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {prefix:<16} {wide_msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.set_prefix(name.to_owned());
        bar.set_message("waiting");
        bar.enable_steady_tick(Duration::from_millis(100));
        Row { bar, name: name.to_owned(), plain: self.plain, started: Instant::now() }
    }
}

impl Row {
    /// What goes on now; the row's clock starts again.
    pub(crate) fn begin(&mut self, message: &str) {
        self.started = Instant::now();
        self.bar.set_message(message.to_owned());
    }

    /// What goes on now.
    pub(crate) fn note(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Ends the line well, with the seconds it took.
    pub(crate) fn done(&self, message: &str) {
        let text = format!("{message} ({:.1} s)", self.started.elapsed().as_secs_f32());
        self.end("✓", &text);
    }

    /// Ends the line badly.
    pub(crate) fn failed(&self, message: &str) {
        self.end("✗", message);
    }

    fn end(&self, mark: &str, text: &str) {
        if self.plain {
            eprintln!("  {mark} {:<16} {text}", self.name);
        }
        if let Ok(style) = ProgressStyle::with_template(&format!("  {mark} {{prefix:<16}} {{wide_msg}}")) {
            self.bar.set_style(style);
        }
        self.bar.finish_with_message(text.to_owned());
    }
}
