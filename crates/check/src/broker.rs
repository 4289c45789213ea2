//! A broker: whether a cluster of pushwheel can use it, and what it may lose.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pushwheel::cluster::{BrokerError, SharedLog};
use pushwheel_redis::{Inspection, RedisLog, RedisOptions, RedisUrl, TlsFiles, inspect};
use uuid::Uuid;

use crate::command::{Failure, Secret};
use crate::finding::{Finding, Report};

/// A round trip that users notice: an event waits for two.
const SLOW: Duration = Duration::from_millis(10);

/// The share of its maximum memory that a server may have before it is nearly full, in
/// percent.
const FULL_PERCENT: u64 = 80;

/// The arguments for the URL of a broker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArguments {
    /// File with the password, instead of one in the URL
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_BROKER_PASSWORD_FILE")]
    broker_password_file: Option<PathBuf>,

    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "pushwheel")]
    #[arg(env = "PUSHWHEEL_BROKER_NAME")]
    broker_name: String,

    /// File with the certificate of this node, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "PUSHWHEEL_BROKER_CERT",
        requires = "broker_key"
    )]
    broker_cert: Option<PathBuf>,

    /// File with the key of --broker-cert, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "PUSHWHEEL_BROKER_KEY",
        requires = "broker_cert"
    )]
    broker_key: Option<PathBuf>,
}

/// How a program uses a broker.
#[derive(Debug)]
pub struct BrokerSettings<'a> {
    /// The file with the password, instead of one in the URL.
    pub password_file: Option<&'a Path>,
    /// The name of the cluster.
    pub name: &'a str,
    /// See [`RedisOptions::replicas`].
    pub replicas: u32,
    /// The file with the authorities that verify the broker, instead of the public ones.
    pub authorities: Option<&'a Path>,
    /// The certificate of this node, and its key.
    pub certificate: (Option<&'a Path>, Option<&'a Path>),
}

impl BrokerSettings<'_> {
    /// Returns the log at a URL, without a connection.
    ///
    /// # Errors
    /// When a setting cannot be used: the names of the settings, and why.
    pub fn log(&self, url: &str) -> Result<RedisLog, (&'static [&'static str], Failure)> {
        let url = url.parse::<RedisUrl>();
        let mut url = url.map_err(|error| (&["broker"][..], error.to_string()))?;
        if let Some(file) = self.password_file {
            let read = Secret::read("--broker-password-file", file);
            let Secret(password) = read.map_err(|error| (&["broker_password_file"][..], error))?;
            url = url.with_password(&password);
        }
        let identity = match self.certificate {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => {
                let failure = "--broker-cert and --broker-key belong together. Set both, or none";
                return Err((&["broker_cert", "broker_key"], failure.to_owned()));
            }
        };
        let files = TlsFiles {
            authorities: self.authorities.map(Path::to_owned),
            identity,
        };
        if !url.is_tls() && (files.authorities.is_some() || files.identity.is_some()) {
            let failure = "certificates for the broker need TLS. Use a URL that begins with \
                           rediss:";
            return Err((&["broker"], failure.to_owned()));
        }
        let options = RedisOptions::new().name(self.name).replicas(self.replicas);
        let log = RedisLog::new(url, &options.tls(files));
        let keys = &["broker_name", "broker_ca", "broker_cert", "broker_key"];
        log.map_err(|error| (&keys[..], error.to_string()))
    }
}

/// Returns whether a URL is that of a broker.
pub(crate) fn is_broker(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    matches!(
        scheme,
        Some("redis" | "rediss" | "redis+sentinel" | "rediss+sentinel")
    )
}

impl BrokerArguments {
    /// Returns the log at a URL.
    ///
    /// # Errors
    /// When the URL or a file cannot be used.
    pub(crate) fn log(&self, url: &str, authorities: Option<PathBuf>) -> Result<RedisLog, Failure> {
        let settings = BrokerSettings {
            password_file: self.broker_password_file.as_deref(),
            name: &self.broker_name,
            replicas: 0,
            authorities: authorities.as_deref(),
            certificate: (self.broker_cert.as_deref(), self.broker_key.as_deref()),
        };
        settings.log(url).map_err(|(_, failure)| failure)
    }
}

/// Examines a broker. Returns whether it can be used at all.
pub(crate) fn examine(log: &RedisLog, timeout: Duration, report: &mut Report) -> bool {
    let inspection = match inspect(log, Uuid::new_v4().as_u128(), timeout) {
        Ok(inspection) => inspection,
        Err(error) => {
            report.add(unusable("connect", &log.address(), &error));
            return false;
        }
    };
    let connected = inspection.connected_in;
    let seen = format!("{} in {}", inspection.server, ms(connected));
    report.add(Finding::ok("connect", seen));
    report.extend(judge(&inspection));
    true
}

fn unusable(code: &'static str, address: &str, error: &BrokerError) -> Finding {
    let advice = match error {
        BrokerError::Refused { .. } => "correct the URL, the password or the rights of the user",
        BrokerError::Full { .. } => "give it more memory, or remove what other programs keep there",
        _ => "check its address, and whether it runs",
    };
    Finding::failure(code, format!("{address}: {error}"), advice)
}

/// Judges what a server is.
fn judge(inspection: &Inspection) -> Vec<Finding> {
    vec![
        trial(inspection),
        round_trip(inspection),
        restarts(inspection),
        persistence(inspection),
        memory_policy(inspection),
        memory(inspection),
        replicas(inspection),
        log(inspection),
    ]
}

fn trial(inspection: &Inspection) -> Finding {
    const CODE: &str = "append";
    match &inspection.trial {
        Ok(time) => Finding::ok(
            CODE,
            format!("a block was appended and read in {}", ms(*time)),
        ),
        Err(error) => unusable(CODE, "a trial failed", error),
    }
}

fn round_trip(inspection: &Inspection) -> Finding {
    const CODE: &str = "round_trip";
    let time = ms(inspection.round_trip);
    match inspection.round_trip <= SLOW {
        true => Finding::ok(CODE, time),
        false => Finding::warning(
            CODE,
            format!("{time}, and an event waits for two or three"),
            "run the broker near the nodes",
        ),
    }
}

fn restarts(inspection: &Inspection) -> Finding {
    const CODE: &str = "restarts";
    match inspection.shows_restarts {
        true => Finding::ok(CODE, "a restart or a failover is noticed"),
        false => Finding::warning(
            CODE,
            "it hides its run id, so a restart that loses events may not be noticed",
            "allow the user the command INFO",
        ),
    }
}

fn persistence(inspection: &Inspection) -> Finding {
    const CODE: &str = "persistence";
    if inspection.persistence_fails {
        let advice = "look at its log and its disk";
        return Finding::failure(CODE, "it cannot write its data to the disk", advice);
    }
    match inspection.has_append_only_file {
        Some(true) => {
            let sync = inspection.append_only_sync.as_deref();
            let sync = sync.map_or(String::new(), |sync| format!(", appendfsync {sync}"));
            Finding::ok(CODE, format!("appendonly yes{sync}"))
        }
        Some(false) => {
            let saves = inspection.saves.as_deref().unwrap_or_default();
            let seen = match saves.is_empty() {
                true => "it keeps nothing over a restart".to_owned(),
                false => format!("it saves its data at times ({saves}), and loses what is newer"),
            };
            Finding::warning(
                CODE,
                seen,
                "set `appendonly yes`, unless the nodes never all stop together with it",
            )
        }
        None => Finding::not_checked(CODE, "the user may not see INFO"),
    }
}

fn memory_policy(inspection: &Inspection) -> Finding {
    const CODE: &str = "memory_policy";
    match inspection.memory_policy.as_deref() {
        Some("noeviction") => Finding::ok(CODE, "noeviction"),
        Some(policy) => Finding::failure(
            CODE,
            format!("{policy}: at its maximum memory it may remove the log"),
            "set `maxmemory-policy noeviction`",
        ),
        None => Finding::not_checked(CODE, "the user may not see INFO"),
    }
}

fn memory(inspection: &Inspection) -> Finding {
    const CODE: &str = "memory";
    let (Some(max), Some(used)) = (inspection.memory_max, inspection.memory) else {
        return Finding::not_checked(CODE, "the user may not see INFO");
    };
    let used_text = mib(used);
    if max == 0 {
        let seen = format!("{used_text}, without a maximum");
        let advice = "set `maxmemory`: two times --broker-retain-bytes and the histories, at least";
        return Finding::warning(CODE, seen, advice);
    }
    let seen = format!("{used_text} of {}", mib(max));
    match used.saturating_mul(100) / max < FULL_PERCENT {
        true => Finding::ok(CODE, seen),
        false => Finding::warning(
            CODE,
            seen,
            "raise `maxmemory`: at its maximum nothing can be published",
        ),
    }
}

fn replicas(inspection: &Inspection) -> Finding {
    const CODE: &str = "replicas";
    let Some(replicas) = inspection.replicas else {
        return Finding::not_checked(CODE, "the user may not see INFO");
    };
    let least = inspection.replicas_min.unwrap_or_default();
    match (replicas, least) {
        (0, _) => Finding::warning(
            CODE,
            "none: while it is away nothing can be published",
            "add a replica and Sentinel, or use a managed service",
        ),
        (_, 0) => Finding::warning(
            CODE,
            format!("{replicas}, and `min-replicas-to-write` is 0 or not shown"),
            "set `min-replicas-to-write 1` and `min-replicas-max-lag 10`, so that a primary that \
             is cut off accepts nothing",
        ),
        (_, least) => Finding::ok(CODE, format!("{replicas}, of which {least} must follow")),
    }
}

fn log(inspection: &Inspection) -> Finding {
    let seen = match inspection.blocks {
        Some(blocks) => format!("the log of the cluster has {blocks} blocks"),
        None => "no cluster has used this name, or its log is empty".to_owned(),
    };
    Finding::ok("log", seen)
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers() {
        for url in ["redis://h", "rediss://h", "redis+sentinel://h/m"] {
            assert!(is_broker(url));
        }
        for url in ["https://h", "redis", "", "http://redis://h"] {
            assert!(!is_broker(url));
        }
    }

    #[test]
    fn a_wrong_password_is_in_no_message() {
        let refused = BrokerError::Refused {
            why: "wrong user or password".to_owned(),
        };
        let finding = unusable("connect", "redis://h:6379", &refused);
        assert!(finding.seen.contains("wrong user or password"));
        assert!(finding.advice.is_some());
    }
}
