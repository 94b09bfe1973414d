//! Log lines, to stderr: as text or JSON, which of them ([`set_filter`], at run time), and how often at most (see `limit`).

use crate::limit::Limited;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Which lines are printed unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Log lines.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// How log lines are printed, to stderr
    #[arg(long, env = "LOG_FORMAT", default_value = "text", global = true)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl LogArgs {
    /// Whether what is printed to stderr is to be read by programs.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.log_format == Format::Json
    }

    /// Begins to print what `RUST_LOG` asks for. Once a process, before anything else.
    pub fn init(&self) {
        let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
        let (filter, handle) = reload::Layer::new(wanted);
        let lines = match self.log_format {
            Format::Json => {
                let format = Limited::json(fmt::format().json().flatten_event(true));
                let fields = fmt::format::JsonFields::new();
                fmt::layer().fmt_fields(fields).event_format(format).with_writer(std::io::stderr).boxed()
            }
            Format::Text => {
                let colours = std::io::stderr().is_terminal();
                let format = Limited::text(fmt::format().with_ansi(colours));
                fmt::layer().event_format(format).with_ansi(colours).with_writer(std::io::stderr).boxed()
            }
        };
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
            _ = FILTER.set(handle);
        }
    }
}

/// Which lines are printed, as `RUST_LOG` would say it.
#[must_use]
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// Prints other lines from now on.
///
/// # Errors
/// Why not.
pub fn set_filter(directives: &str) -> Result<(), String> {
    // `EnvFilter` takes any other word for a module of which all is printed, and of all others nothing.
    let is_meant = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if let Some(wrong) = directives.split(',').find(|part| !is_meant(part)) {
        return Err(format!(
            "`{wrong}` is neither a level (error, warn, info, debug, trace, off) nor a `module=level`"
        ));
    }
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    let handle = FILTER.get().ok_or("this process doesn't print log lines of its own")?;
    handle.reload(filter).map_err(|error| error.to_string())
}
