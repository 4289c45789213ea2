//! `pushwheel check`: diagnoses any event stream, and the proxies in front of it.
//!
//! It examines a stream from outside, as a browser sees it. For each problem that occurs
//! in practice it reports an observation and a fix. With a URL to publish to, it knows
//! which events should arrive, and when.
//!
//! | file | examines |
//! | --- | --- |
//! | `request`, `publisher` | sends requests, reads streams and publishes |
//! | `redirect` | redirects, other methods and versions |
//! | `answer` | a response that is not a stream |
//! | `head` | headers |
//! | `flow`, `timing` | the first byte, buffering, compression |
//! | `resume` | ids, `Last-Event-ID` |
//! | `inject` | line ends in published values |
//! | `idle` | heartbeats, and timeouts of silent streams |
//! | `broker` | the server that the nodes of a cluster share |

mod answer;
#[cfg(feature = "redis")]
pub mod broker;
pub mod command;
pub mod files;
mod finding;
mod flow;
mod head;
pub mod http;
mod idle;
mod inject;
pub mod message;
pub mod numbers;
mod publisher;
mod redirect;
mod request;
mod resume;
pub mod stream;
mod timing;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ureq::Agent;

use command::{Failure, Secret};
use finding::{Finding, Outcome, Report};
use flow::Pace;
use idle::Received;
use publisher::Publisher;
use redirect::Arrival;
use request::{Clock, Requester, StreamReader};

/// The exit status without a stream to examine.
const NO_STREAM: u8 = 2;

/// The arguments of `pushwheel check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// URL of the stream (http or https), or of a broker (redis or rediss)
    ///
    /// For a broker the options are --timeout, --cacert, --json, --strict and those of
    /// brokers.
    url: String,

    /// URL to publish test events to, with POST
    ///
    /// Checks of buffering, resumption and injection need it. About 50 small events
    /// are published, so choose a channel that no other client uses.
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,

    /// Publish key, sent as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    publish_key: Option<Secret>,

    /// Header of each request for the stream
    ///
    /// May be repeated. Not sent to another origin after a redirect.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// Header of each request that publishes
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    publish_header: Vec<(String, String)>,

    /// Publish plain text instead of JSON
    ///
    /// The JSON is `{"event": ..., "data": ..., "id": ...}`.
    #[arg(long)]
    publish_text: bool,

    /// Time to watch a silent stream, in seconds; 0 skips these checks
    ///
    /// Shows heartbeats, and idle timeouts on the way. The 60 s of nginx show from 61
    /// on.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    idle: u64,

    /// Number of timed test events
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(3..=1000))]
    pings: u16,

    /// Time between two timed test events, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u64).range(20..=60_000))]
    interval_ms: u64,

    /// Timeout for the head of a response, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,

    /// Origin of a page that has to be able to read the stream
    ///
    /// For example `https://app.example.com`.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,

    #[command(flatten)]
    tls: http::TlsArguments,

    #[cfg(feature = "redis")]
    #[command(flatten)]
    broker: broker::BrokerArguments,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Count warnings as failures
    #[arg(long)]
    strict: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').unwrap_or_default();
    match name.trim() {
        "" => Err("use NAME: VALUE".into()),
        name => Ok((name.to_owned(), value.trim().to_owned())),
    }
}

/// Examines the stream of the arguments, prints a report, and returns the exit status.
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut report = Report::new(arguments.json);
    #[cfg(feature = "redis")]
    if broker::is_broker(&arguments.url) {
        return arguments.run_for_broker(&mut report);
    }
    let examined = arguments
        .requester()
        .and_then(|requester| arguments.examine(requester, &mut report));
    let has_stream = match examined {
        Ok(has_stream) => has_stream,
        Err(failure) => {
            // Standard error may be closed. The exit status is enough then.
            let _ = writeln!(io::stderr(), "pushwheel: {failure}");
            return NO_STREAM.into();
        }
    };
    arguments.close(&report, &arguments.url, has_stream)
}

impl Arguments {
    /// Examines the broker of the URL.
    #[cfg(feature = "redis")]
    fn run_for_broker(&self, report: &mut Report) -> ExitCode {
        let authorities = self.tls.authorities();
        let log = authorities.and_then(|file| self.broker.log(&self.url, file));
        let log = match log {
            Ok(log) => log,
            Err(failure) => {
                let _ = writeln!(io::stderr(), "pushwheel: {failure}");
                return NO_STREAM.into();
            }
        };
        let time = Duration::from_secs(self.timeout);
        let is_usable = broker::examine(&log, time, report);
        // Without the password.
        let address = pushwheel::cluster::SharedLog::address(&log);
        self.close(report, &address, is_usable)
    }

    /// Prints the rest of the report, and returns the exit status.
    fn close(&self, report: &Report, url: &str, has_stream: bool) -> ExitCode {
        let has_failed =
            report.count(Outcome::Failure) > 0 || self.strict && report.count(Outcome::Warning) > 0;
        // A report that could not be printed is a failure.
        match report.close(url) {
            Ok(()) if !has_stream => NO_STREAM.into(),
            Ok(()) if !has_failed => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            pings: usize::from(self.pings),
            interval: Duration::from_millis(self.interval_ms),
        }
    }

    fn requester(&self) -> Result<Requester, Failure> {
        http::check_url(&self.url)?;
        Ok(Requester {
            agent: self.agent()?,
            clock: Clock::start(),
            url: self.url.clone(),
            headers: self.header.clone(),
        })
    }

    /// Returns a client that does not follow redirects and does not decode responses.
    fn agent(&self) -> Result<Agent, Failure> {
        // A stream may be silent for the time of --idle.
        let silence = Duration::from_secs(self.idle) + Duration::from_secs(600);
        let config = http::config(silence, &self.tls)?
            .timeout_recv_response(Some(Duration::from_secs(self.timeout)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Ok(Agent::new_with_config(config))
    }

    fn publisher(&self, agent: &Agent) -> Result<Option<Publisher>, Failure> {
        let Some(url) = &self.publish_url else {
            return Ok(None);
        };
        http::check_url(url)?;
        let mut headers = self.publish_header.clone();
        if let Some(Secret(key)) = &self.publish_key {
            headers.push(("Authorization".into(), format!("Bearer {key}")));
        }
        let publisher = Publisher::new(agent.clone(), url.clone(), headers, self.publish_text);
        Ok(Some(publisher))
    }

    /// Runs all checks. Returns false if the response is not a stream.
    ///
    /// # Errors
    /// When the server is unreachable.
    fn examine(&self, mut requester: Requester, report: &mut Report) -> Result<bool, Failure> {
        let publisher = self.publisher(&requester.agent)?;
        let seen = match redirect::arrive(&mut requester, report)? {
            Arrival::Stream(seen) => seen,
            Arrival::NoHead => {
                report.extend(publisher.map(|publisher| flow::held_head(&requester, &publisher)));
                return Ok(true);
            }
            Arrival::NoStream => return Ok(false),
        };
        report.extend(head::judge(seen.headers(), seen.took));
        report.extend(redirect::others(&requester, self.origin.as_deref()));
        let opened = requester.clock.now();
        let mut reader = StreamReader::new(seen, requester.clock)?;
        reader.await_first_byte();
        report.add(flow::first_byte(&reader, opened));
        match &publisher {
            Some(publisher) => self.with_publisher(&requester, publisher, &mut reader, report),
            None => {
                const WHY: &str = "needs --publish-url";
                report.add(Finding::not_checked("publish", "no --publish-url"));
                report.add(Finding::not_checked("buffering", WHY));
                report.add(flow::compression(&requester, None, self.pace()));
                report.add(Finding::not_checked("injection", WHY));
            }
        }
        drop(reader);
        let received = self.watch_idle(&requester, report);
        if publisher.is_none() {
            report.extend(resume::check_seen(&requester, &received));
        }
        Ok(true)
    }

    fn with_publisher(
        &self,
        requester: &Requester,
        publisher: &Publisher,
        reader: &mut StreamReader,
        report: &mut Report,
    ) {
        let pace = self.pace();
        let why_not = match flow::ping(reader, publisher, requester.clock, pace) {
            Ok(pings) => {
                report.add(Finding::ok(
                    "publish",
                    format!("{} accepts events", publisher.url),
                ));
                let finding = flow::buffering(&pings, pace, reader, publisher, requester.clock);
                let is_flowing = finding.outcome != Outcome::Failure;
                report.add(finding);
                (!is_flowing).then_some("published events do not arrive as they should")
            }
            Err(rejected) => {
                report.add(Finding::failure(
                    "publish",
                    rejected.why,
                    "set the URL that accepts events with --publish-url, and the key, headers and \
                     format that it needs with --publish-key, --publish-header and --publish-text",
                ));
                report.add(Finding::not_checked(
                    "buffering",
                    "no event could be published",
                ));
                Some("no event could be published")
            }
        };
        match why_not {
            None => {
                report.add(flow::compression(requester, Some(publisher), pace));
                report.extend(resume::check(requester, publisher));
                report.add(inject::check(requester, publisher));
            }
            Some(why) => {
                report.add(Finding::not_checked("compression", why));
                report.extend(resume::not_checked(why));
                report.add(Finding::not_checked("injection", why));
            }
        }
    }

    /// Watches a stream without publishing to it, and returns the events that arrived.
    fn watch_idle(&self, requester: &Requester, report: &mut Report) -> Received {
        let time = Duration::from_secs(self.idle);
        let opened = requester.clock.now();
        let why = match time.is_zero() {
            true => "--idle is 0".to_owned(),
            false => match requester.open(&[]) {
                Ok(mut reader) => {
                    let watch = idle::Watch::keep(&mut reader, opened, time);
                    report.extend(watch.judge());
                    return watch.received;
                }
                Err(why) => why,
            },
        };
        for code in ["heartbeat", "idle_cut_off"] {
            report.add(Finding::not_checked(code, &*why));
        }
        Received::default()
    }
}
