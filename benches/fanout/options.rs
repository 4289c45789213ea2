//! What the command line asks for.

use std::path::PathBuf;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) clients: Vec<usize>,
    /// Bytes of an event's data.
    pub(crate) sizes: Vec<usize>,
    pub(crate) rounds: usize,
    /// Events of each size and round; by the number of clients if not given.
    events: Option<usize>,
    pub(crate) json: bool,
    /// The server beside the bare loop.
    pub(crate) server: Kind,
}

/// Which server.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The bare loop.
    Bare,
    /// `pushwheel serve`, from this program.
    Pushwheel(PathBuf),
    /// One that runs already.
    Running {
        subscribe: String,
        publish: String,
        pid: u32,
    },
}

impl Options {
    /// As many events as make some 150,000 deliveries.
    pub(crate) fn events_for(&self, clients: usize) -> usize {
        let events = (DELIVERIES_A_RUN / clients).clamp(3, 200);
        self.events.unwrap_or(events)
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Kind::Bare => "bare",
            Kind::Pushwheel(_) => "pushwheel",
            Kind::Running { subscribe, .. } => subscribe,
        }
    }
}

/// The options, or what is wrong with them. Cargo says `--bench` when it
/// benches; when it tests (`--all-targets`), a tiny run shows that all of this
/// still works.
pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
    let smoke = !arguments.iter().any(|argument| argument == "--bench");
    let mut options = Options {
        clients: if smoke { vec![50] } else { vec![1_000, 10_000] },
        sizes: vec![128, 1_024],
        rounds: if smoke { 1 } else { 5 },
        events: smoke.then_some(3),
        json: false,
        server: Kind::Bare,
    };
    let mut exe = option_env!("CARGO_BIN_EXE_pushwheel").map(PathBuf::from);
    let (mut url, mut publish_url, mut pid) = (None, None, None);
    let mut against_bare = false;

    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--bench" => {}
            "--json" => options.json = true,
            "--bare" => against_bare = true,
            "--clients" => options.clients = numbers(value()?)?,
            "--sizes" => options.sizes = numbers(value()?)?,
            "--rounds" => options.rounds = number(value()?)?,
            "--events" => options.events = Some(number(value()?)?),
            "--exe" => exe = Some(PathBuf::from(value()?)),
            "--url" => url = Some(value()?.clone()),
            "--publish-url" => publish_url = Some(value()?.clone()),
            "--pid" => pid = Some(value()?.parse().map_err(|_| "--pid needs a process id")?),
            // A test harness's options and filters: they say nothing to a smoke run.
            _ if smoke => {}
            other => return Err(format!("{other}: no such option")),
        }
    }
    if options.sizes.iter().any(|&size| size < SIZE_MIN) {
        return Err(format!("an event needs {SIZE_MIN} bytes for its number"));
    }
    options.server = match (url, publish_url, pid, exe) {
        (None, None, None, _) if against_bare => Kind::Bare,
        (Some(subscribe), Some(publish), Some(pid), _) => Kind::Running {
            subscribe,
            publish,
            pid,
        },
        (None, None, None, Some(exe)) => Kind::Pushwheel(exe),
        (None, None, None, None) if smoke => Kind::Bare,
        (None, None, None, None) => return Err("built without the feature `server`: --exe".into()),
        _ => return Err("--url, --publish-url and --pid belong together".into()),
    };
    Ok(options)
}

fn numbers(text: &str) -> Result<Vec<usize>, String> {
    text.split(',').map(number).collect()
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{text} is not a number above 0"))
}

/// Enough that a run takes about a second.
const DELIVERIES_A_RUN: usize = 150_000;
/// The digits of an event's number, and a space.
pub(crate) const SIZE_MIN: usize = 11;

pub(crate) const USAGE: &str = "\
cargo bench --bench fanout -- [OPTIONS]
  --clients N,...    how many clients (1000,10000); each takes a descriptor here and in the server
  --sizes BYTES,...  an event's data (128,1024)
  --rounds N         pairs of runs (5)
  --events N         events of each size in a run (by the number of clients)
  --json             JSON, one object a line, instead of a table
  --bare             the bare loop against itself: how much the machine wavers
  --exe PATH         another build of pushwheel
  --url URL --publish-url URL --pid PID
                     a running server: GET the first, POST events to the second, read /proc/PID";
