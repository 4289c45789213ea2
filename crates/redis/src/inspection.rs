//! [`inspect`]: what a server is, and whether a cluster could use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pushwheel::cluster::{BrokerError, Hello, LogReader, LogWriter, Memory, NewBlock};
use redis::Value;

use crate::broker::Broker;
use crate::clock::now;
use crate::connection::{Fault, REPLY_BYTES_MAX, items, text};
use crate::log::RedisLog;
use crate::reader::Reader;
use crate::session::{Session, field};
use crate::writer::Writer;

/// The number of round trips that are measured.
const ROUND_TRIPS: usize = 20;

/// The block of the trial.
const TRIAL: &[u8] = b"a trial of pushwheel";

/// Seconds after which the keys of a trial that was not cleaned up expire.
const TRIAL_S: u32 = 60;

/// What a server is. `None`: it hides this from the user.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Its name and version.
    pub server: String,
    /// Whether it shows that it was started again. Otherwise lost blocks may not be noticed.
    pub shows_restarts: bool,
    /// The time to connect, with TLS and credentials.
    pub connected_in: Duration,
    /// The median time of an empty command.
    pub round_trip: Duration,
    /// The time from an append to its arrival at a reader, or why that failed.
    pub trial: Result<Duration, BrokerError>,
    /// Whether it writes each change to an append-only file.
    pub has_append_only_file: Option<bool>,
    /// When it syncs that file: `always`, `everysec` or `no`.
    pub append_only_sync: Option<String>,
    /// The times at which it saves everything, empty for none.
    pub saves: Option<String>,
    /// Whether the newest write of either has failed.
    pub persistence_fails: bool,
    /// Its maximum memory, in bytes; 0 for no maximum.
    pub memory_max: Option<u64>,
    /// Its memory, in bytes.
    pub memory: Option<u64>,
    /// What it does at the maximum.
    pub memory_policy: Option<String>,
    /// The number of its replicas.
    pub replicas: Option<u32>,
    /// The number of replicas without which it accepts nothing.
    pub replicas_min: Option<u32>,
    /// The number of blocks in the log of the cluster; `None` if there is no log.
    pub blocks: Option<u64>,
}

/// Connects to the server of a log, and writes and reads a block under keys of its own, which
/// it removes. `token` is a random number.
///
/// # Errors
/// When the server cannot be used at all.
pub fn inspect(log: &RedisLog, token: u128, timeout: Duration) -> Result<Inspection, BrokerError> {
    let broker = log.broker();
    let began = now();
    let mut session = Session::open(broker, "check", began + timeout)?;
    let connected_in = now() - began;
    let facts = examine(&mut session, broker, now() + timeout);
    let facts = facts.map_err(|fault| broker.judge(&fault))?;
    let trial = try_log(broker, token, timeout);
    let number = |name| field(&facts.info, name).and_then(|text| text.parse().ok());
    let is = |name, word| field(&facts.info, name).map(|text| text == word);
    let fails = |name| is(name, "ok") == Some(false);
    Ok(Inspection {
        shows_restarts: session.run != "-",
        server: session.server,
        connected_in,
        round_trip: facts.round_trip,
        trial,
        has_append_only_file: is("aof_enabled", "1"),
        append_only_sync: facts.append_only_sync,
        saves: facts.saves,
        persistence_fails: fails("aof_last_write_status") || fails("rdb_last_bgsave_status"),
        memory_max: number("maxmemory"),
        memory: number("used_memory"),
        memory_policy: field(&facts.info, "maxmemory_policy").map(str::to_owned),
        replicas: number("connected_slaves").and_then(|count| u32::try_from(count).ok()),
        replicas_min: facts.replicas_min.and_then(|text| text.parse().ok()),
        blocks: facts.blocks,
    })
}

struct Facts {
    info: String,
    round_trip: Duration,
    append_only_sync: Option<String>,
    saves: Option<String>,
    replicas_min: Option<String>,
    blocks: Option<u64>,
}

fn examine(session: &mut Session, broker: &Broker, deadline: Instant) -> Result<Facts, Fault> {
    let mut length = redis::cmd("XLEN");
    length.arg(&broker.keys.log);
    let blocks = optional(session.call(&length, deadline))?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let began = now();
        // An error of the server is an answer, too.
        optional(session.call(&redis::cmd("PING"), deadline))?;
        times.push(now() - began);
    }
    times.sort_unstable();
    let info = optional(session.call(&redis::cmd("INFO"), deadline))?;
    Ok(Facts {
        info: info.map(text).transpose()?.unwrap_or_default(),
        round_trip: times[ROUND_TRIPS / 2],
        append_only_sync: setting(session, "appendfsync", deadline)?,
        saves: setting(session, "save", deadline)?,
        replicas_min: setting(session, "min-replicas-to-write", deadline)?,
        blocks: match blocks {
            Some(Value::Int(count @ 1..)) => u64::try_from(count).ok(),
            _ => None,
        },
    })
}

/// Returns a setting of the server, if the user may see it.
fn setting(session: &mut Session, name: &str, deadline: Instant) -> Result<Option<String>, Fault> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(name);
    let Some(reply) = optional(session.call(&command, deadline))? else {
        return Ok(None);
    };
    items(reply)?.nth(1).map(text).transpose()
}

/// Returns a reply, or `None` if the server does not do this for the user.
fn optional(reply: Result<Value, Fault>) -> Result<Option<Value>, Fault> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(Fault::Server(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Appends a block and reads it by another connection. Returns the time in between.
fn try_log(broker: &Broker, token: u128, timeout: Duration) -> Result<Duration, BrokerError> {
    let trial = Arc::new(broker.for_trial(token));
    let hello = Hello::new(token, 0, Some(Memory::new(b"trial", &[], 0, &[])));
    let deadline = now() + timeout;
    let open = |purpose| Session::open(&trial, purpose, deadline);
    let mut session = open("check-writer")?;
    let welcome = session.hello(&trial, &hello, deadline)?;
    let mut writer = Writer::new(trial.clone(), session, &welcome, token);
    let tried = open("check-reader").and_then(|session| {
        let mut reader = Reader::new(trial.clone(), session);
        let began = now();
        append_and_read(&mut writer, &mut reader, token, timeout).map(|()| now() - began)
    });
    let cleaned = open("check-end").and_then(|mut session| {
        let mut command = redis::cmd("UNLINK");
        command.arg(&trial.keys.log).arg(&trial.keys.meta);
        let removed = session.call(&command, deadline);
        removed.map(drop).map_err(|fault| trial.judge(&fault))
    });
    tried.and_then(|time| cleaned.map(|()| time))
}

fn append_and_read(
    writer: &mut Writer,
    reader: &mut Reader,
    token: u128,
    timeout: Duration,
) -> Result<(), BrokerError> {
    let block = NewBlock {
        writer: token,
        n: 1,
        width: 1,
        bytes: TRIAL,
    };
    writer.append(block, timeout)?;
    writer.expire_log(TRIAL_S, timeout)?;
    let mut blocks = Vec::new();
    reader.read(0, REPLY_BYTES_MAX, timeout, timeout, &mut blocks)?;
    match blocks.iter().any(|block| block.bytes == TRIAL) {
        true => Ok(()),
        false => Err(BrokerError::Damaged {
            what: "a block that was appended is not there".to_owned(),
        }),
    }
}
