//! `pushwheel check`: a doctor for any event stream and the proxies before it.
//!
//! It looks at a stream from outside, as a browser sees it, and says of each
//! thing that goes wrong in practice what it saw and what to do. With a place
//! to publish to, it knows what should come and when.
//!
//! | file | looks at |
//! | --- | --- |
//! | `visit`, `publisher` | how it asks, reads and publishes |
//! | `way` | redirects, other methods and versions |
//! | `answer` | what is no stream |
//! | `head` | headers |
//! | `flow`, `timing` | the first byte, pings that come in clumps, compression |
//! | `resume` | ids, `Last-Event-ID` |
//! | `inject` | line ends in what is published |
//! | `idle` | heartbeats, and who ends a silent stream |

mod answer;
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
mod resume;
pub mod stream;
mod timing;
mod visit;
mod way;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ureq::Agent;

use command::{Failure, Secret};
use finding::{Finding, Outcome, Report};
use flow::Pace;
use idle::Came;
use publisher::Publisher;
use visit::{Clock, Tap, Visitor};
use way::Arrival;

/// The exit status where there is no stream to look at.
const NO_STREAM: u8 = 2;

/// The arguments of `pushwheel check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 when nothing fails, 1 when something does (with --strict: or is \
                  warned of), 2 when there is no stream to look at: nobody answers, or with \
                  something else."
)]
pub struct Arguments {
    /// The stream's URL, http or https.
    url: String,

    /// Where to publish to this stream by POST, so that it is known what
    /// should come and when. Publishes some 50 small events: give a channel
    /// that nobody minds.
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,

    /// The key that publishing needs, sent as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    publish_key: Option<Secret>,

    /// A header of each request for the stream; may be given several times.
    /// Another origin, where a redirect leads, is not sent it.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// A header of each request that publishes; may be given several times.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    publish_header: Vec<(String, String)>,

    /// Publish plain text, not `{"event": ..., "data": ..., "id": ...}`.
    #[arg(long)]
    publish_text: bool,

    /// How long to leave a stream alone, to see its heartbeats and who ends
    /// it; 0: not at all. What nginx ends shows from 61 on.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    idle: u64,

    /// How many timed events to publish.
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(3..=1000))]
    pings: u16,

    /// How far apart they are.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u64).range(20..=60_000))]
    interval_ms: u64,

    /// How long to wait for the head of an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,

    /// The origin of a page that is to read the stream, such as
    /// <https://app.example.com>.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,

    #[command(flatten)]
    tls: http::TlsArguments,

    /// Tell it as JSON.
    #[arg(long)]
    json: bool,

    /// Let warnings count as failures.
    #[arg(long)]
    strict: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').unwrap_or_default();
    match name.trim() {
        "" => Err("write a header as `NAME: VALUE`".into()),
        name => Ok((name.to_owned(), value.trim().to_owned())),
    }
}

/// Examines the stream that the arguments name and prints a report; returns the
/// exit status.
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut report = Report::new(arguments.json);
    let looked = arguments
        .visitor()
        .and_then(|visitor| arguments.look(visitor, &mut report));
    let has_stream = match looked {
        Ok(has_stream) => has_stream,
        Err(failure) => {
            // Nobody may be there to read it; the exit status says enough then.
            let _ = writeln!(io::stderr(), "pushwheel: {failure}");
            return NO_STREAM.into();
        }
    };
    let has_failed = report.count(Outcome::Failure) > 0
        || arguments.strict && report.count(Outcome::Warning) > 0;
    // A report that nobody could read is no success.
    match report.close(&arguments.url) {
        Ok(()) if !has_stream => NO_STREAM.into(),
        Ok(()) if !has_failed => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

impl Arguments {
    fn pace(&self) -> Pace {
        Pace {
            pings: usize::from(self.pings),
            interval: Duration::from_millis(self.interval_ms),
        }
    }

    fn visitor(&self) -> Result<Visitor, Failure> {
        http::check_url(&self.url)?;
        Ok(Visitor {
            agent: self.agent()?,
            clock: Clock::start(),
            url: self.url.clone(),
            headers: self.header.clone(),
        })
    }

    /// A client that follows no redirect by itself, and shows what it is sent
    /// as it is.
    fn agent(&self) -> Result<Agent, Failure> {
        // A stream is left alone on purpose for as long as --idle says.
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

    /// Looks at everything; false if what answers is no stream.
    ///
    /// # Errors
    /// When nobody answers.
    fn look(&self, mut visitor: Visitor, report: &mut Report) -> Result<bool, Failure> {
        let publisher = self.publisher(&visitor.agent)?;
        let seen = match way::arrive(&mut visitor, report)? {
            Arrival::Stream(seen) => seen,
            Arrival::NoHead => {
                report.extend(publisher.map(|publisher| flow::held_head(&visitor, &publisher)));
                return Ok(true);
            }
            Arrival::NoStream => return Ok(false),
        };
        report.extend(head::judge(seen.headers(), seen.took));
        report.extend(way::others(&visitor, self.origin.as_deref()));
        let opened = visitor.clock.now();
        let mut tap = Tap::new(seen, visitor.clock)?;
        tap.await_first_byte();
        report.add(flow::first_byte(&tap, opened));
        match &publisher {
            Some(publisher) => self.with_publisher(&visitor, publisher, &mut tap, report),
            None => {
                const WHY: &str = "it needs --publish-url";
                report.add(Finding::not_checked(
                    "publish",
                    "no --publish-url was given",
                ));
                report.add(Finding::not_checked("buffering", WHY));
                report.add(flow::compression(&visitor, None, self.pace()));
                report.add(Finding::not_checked("injection", WHY));
            }
        }
        drop(tap);
        let came = self.leave_alone(&visitor, report);
        if publisher.is_none() {
            report.extend(resume::check_seen(&visitor, &came));
        }
        Ok(true)
    }

    fn with_publisher(
        &self,
        visitor: &Visitor,
        publisher: &Publisher,
        tap: &mut Tap,
        report: &mut Report,
    ) {
        let pace = self.pace();
        let why_not = match flow::ping(tap, publisher, visitor.clock, pace) {
            Ok(pings) => {
                report.add(Finding::ok(
                    "publish",
                    format!("{} was answered well", publisher.url),
                ));
                let finding = flow::buffering(&pings, pace, tap, publisher, visitor.clock);
                let is_flowing = finding.outcome != Outcome::Failure;
                report.add(finding);
                (!is_flowing).then_some("what is published does not come as it should")
            }
            Err(refused) => {
                report.add(Finding::failure(
                    "publish",
                    refused.why,
                    "give the address at which this server takes events, and what it wants, with \
                     --publish-url, --publish-key, --publish-header and --publish-text",
                ));
                report.add(Finding::not_checked(
                    "buffering",
                    "nothing could be published",
                ));
                Some("nothing could be published")
            }
        };
        match why_not {
            None => {
                report.add(flow::compression(visitor, Some(publisher), pace));
                report.extend(resume::check(visitor, publisher));
                report.add(inject::check(visitor, publisher));
            }
            Some(why) => {
                report.add(Finding::not_checked("compression", why));
                report.extend(resume::not_checked(why));
                report.add(Finding::not_checked("injection", why));
            }
        }
    }

    /// Watches a stream to which nobody of us publishes; gives what came.
    fn leave_alone(&self, visitor: &Visitor, report: &mut Report) -> Came {
        let time = Duration::from_secs(self.idle);
        let opened = visitor.clock.now();
        let why = match time.is_zero() {
            true => "--idle is 0".to_owned(),
            false => match visitor.open(&[]) {
                Ok(mut tap) => {
                    let watch = idle::Watch::keep(&mut tap, opened, time);
                    report.extend(watch.judge());
                    return watch.came;
                }
                Err(why) => why,
            },
        };
        for code in ["heartbeat", "idle_cut_off"] {
            report.add(Finding::not_checked(code, &*why));
        }
        Came::default()
    }
}
