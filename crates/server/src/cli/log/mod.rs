//! The log of the program: lines of text or JSON on standard error.
//!
//! Short commands write lines directly. The server queues them for a thread (`queue`),
//! because the engine's thread must not wait for a slow reader.

mod line;
mod queue;

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use env_filter::Filter;
use log::{LevelFilter, Log, Metadata, Record};
use pushwheel_server::{ACCESS_LOG, EVENT_LOG};

pub(crate) use line::Format;
use queue::Queue;

/// The maximum wait for the last lines at the end of the program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOGGER: LazyLock<Logger> = LazyLock::new(|| Logger {
    output: ArcSwap::from_pointee(Output {
        filter: filter_of("info").unwrap_or_else(|_| env_filter::Builder::new().build()),
        format: Format::Text,
        queue: None,
    }),
});

struct Logger {
    output: ArcSwap<Output>,
}

/// The current filter, format and destination.
struct Output {
    filter: Filter,
    format: Format,
    /// Without a queue, lines are written directly.
    queue: Option<Arc<Queue>>,
}

/// Installs the logger, with the filter of `PUSHWHEEL_LOG`.
pub(crate) fn install() {
    let text = std::env::var("PUSHWHEEL_LOG").ok();
    // An invalid filter is reported by the command that parses it too.
    let filter = text.and_then(|text| filter_of(&text).ok());
    let filter = filter.or_else(|| filter_of("info").ok());
    if let (Some(filter), Ok(())) = (filter, log::set_logger(&*LOGGER)) {
        change(filter, Format::Text);
    }
}

/// Changes the filter and the format.
pub(crate) fn change(filter: Filter, format: Format) {
    // The server switches the logs of requests and events, whatever the filter is.
    log::set_max_level(filter.filter().max(LevelFilter::Info));
    let queue = LOGGER.output.load().queue.clone();
    LOGGER.output.store(Arc::new(Output {
        filter,
        format,
        queue,
    }));
}

/// Starts the thread that writes the lines from here on.
pub(crate) fn write_behind() -> io::Result<()> {
    let lost = |count: u64| LOGGER.output.load().format.lost(count);
    let queue = Queue::start(io::stderr(), lost)?;
    LOGGER.output.rcu(|output| Output {
        filter: output.filter.clone(),
        format: output.format,
        queue: Some(queue.clone()),
    });
    Ok(())
}

/// Parses a filter, such as `warn` or `info,pushwheel=debug`.
pub(crate) fn filter_of(text: &str) -> Result<Filter, String> {
    let fix = "Use a level (error, warn, info, debug, trace, off) or TARGET=LEVEL, or several, \
               separated by commas";
    // The filter's own parser takes a misspelled level for a target.
    let is_level = |part: &str| part.trim().parse::<LevelFilter>().is_ok();
    let mut parts = text.split(',');
    if let Some(part) = parts.find(|part| !part.contains('=') && !is_level(part)) {
        return Err(format!("invalid level `{}`. {fix}", part.escape_debug()));
    }
    let mut builder = env_filter::Builder::new();
    let parsed = builder.try_parse(text).map(env_filter::Builder::build);
    parsed.map_err(|error| format!("invalid filter ({error}). {fix}"))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.output.load().accepts(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let output = self.output.load();
        if !output.accepts(record.metadata()) {
            return;
        }
        let line = output.format.line(record);
        match &output.queue {
            Some(queue) => queue.push(line),
            // Standard error may be closed.
            None => drop(io::stderr().write_all(&line)),
        }
    }

    fn flush(&self) {
        if let Some(queue) = &self.output.load().queue {
            queue.flush(FLUSH_TIMEOUT);
        }
    }
}

impl Output {
    /// Returns whether to log a record. The logs of requests and events have their own
    /// switches.
    fn accepts(&self, metadata: &Metadata<'_>) -> bool {
        [ACCESS_LOG, EVENT_LOG].contains(&metadata.target()) || self.filter.enabled(metadata)
    }
}
