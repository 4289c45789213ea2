//! Where the program's log goes: lines on the standard error, of text or JSON.
//!
//! A command that soon ends writes them itself. The server hands them to a
//! thread (`queue`), because whoever reads a log may be slow, and the engine's
//! thread must not wait for it.

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

/// How long the end of the program waits for its last lines to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

static LOGGER: LazyLock<Logger> = LazyLock::new(|| Logger {
    way: ArcSwap::from_pointee(Way {
        filter: filter_of("info").unwrap_or_else(|_| env_filter::Builder::new().build()),
        format: Format::Text,
        queue: None,
    }),
});

struct Logger {
    way: ArcSwap<Way>,
}

/// What is logged, how and where to.
struct Way {
    filter: Filter,
    format: Format,
    /// Without one, lines are written at once.
    queue: Option<Arc<Queue>>,
}

/// Logs from here on, as the variable `PUSHWHEEL_LOG` says.
pub(crate) fn install() {
    let said = std::env::var("PUSHWHEEL_LOG").ok();
    // What cannot be read is for the command to complain of that reads it too.
    let filter = said.and_then(|said| filter_of(&said).ok());
    let filter = filter.or_else(|| filter_of("info").ok());
    if let (Some(filter), Ok(())) = (filter, log::set_logger(&*LOGGER)) {
        change(filter, Format::Text);
    }
}

/// Logs in another way from here on.
pub(crate) fn change(filter: Filter, format: Format) {
    // Whether the logs of requests and events are on is for the server to say.
    log::set_max_level(filter.filter().max(LevelFilter::Info));
    let queue = LOGGER.way.load().queue.clone();
    LOGGER.way.store(Arc::new(Way {
        filter,
        format,
        queue,
    }));
}

/// Leaves the writing to a thread from here on.
pub(crate) fn write_behind() -> io::Result<()> {
    let lost = |count: u64| LOGGER.way.load().format.lost(count);
    let queue = Queue::start(io::stderr(), lost)?;
    LOGGER.way.rcu(|way| Way {
        filter: way.filter.clone(),
        format: way.format,
        queue: Some(queue.clone()),
    });
    Ok(())
}

/// Reads what is to be logged: `warn`, or `info,pushwheel=debug`.
pub(crate) fn filter_of(text: &str) -> Result<Filter, String> {
    let advice = "give a level (error, warn, info, debug, trace, off), or TARGET=LEVEL, \
                  or several with commas between them";
    // The filter's own reading takes a misspelled level for a target.
    let is_level = |part: &str| part.trim().parse::<LevelFilter>().is_ok();
    let mut parts = text.split(',');
    if let Some(part) = parts.find(|part| !part.contains('=') && !is_level(part)) {
        return Err(format!("`{}` is no level: {advice}", part.escape_debug()));
    }
    let mut builder = env_filter::Builder::new();
    let parsed = builder.try_parse(text).map(env_filter::Builder::build);
    parsed.map_err(|error| format!("{error}: {advice}"))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.way.load().lets_pass(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let way = self.way.load();
        if !way.lets_pass(record.metadata()) {
            return;
        }
        let line = way.format.line(record);
        match &way.queue {
            Some(queue) => queue.push(line),
            // Nobody may be there to read it.
            None => drop(io::stderr().write_all(&line)),
        }
    }

    fn flush(&self) {
        if let Some(queue) = &self.way.load().queue {
            queue.flush(LAST_LINES);
        }
    }
}

impl Way {
    /// The logs of requests and events have switches of their own.
    fn lets_pass(&self, metadata: &Metadata<'_>) -> bool {
        [ACCESS_LOG, EVENT_LOG].contains(&metadata.target()) || self.filter.enabled(metadata)
    }
}
