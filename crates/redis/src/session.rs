//! [`Session`]: a connection that was introduced to the server.

use std::time::Instant;

use pushwheel::cluster::{BrokerError, Hello, TERMS_MAX, Term, WRITERS_MAX, Welcome};
use redis::{Cmd, Value};

use crate::broker::Broker;
use crate::connection::{Connection, Fault, REPLY_BYTES_MAX, bytes, items, next, number, text};
use crate::keys::Keys;
use crate::scripts::Script;

/// The oldest version that has all commands.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Numbers above this are not exact in scripts. At the clock's rate they come in 2304.
const NUMBER_MAX: u64 = 1 << 53;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// What the server calls each script.
    hashes: Vec<String>,
    /// The random number of the server's process; `-`: it hides it.
    pub(crate) run: String,
    /// The name and the version of the server.
    pub(crate) server: String,
}

impl Session {
    /// Connects, authenticates, and checks that the server is a primary.
    ///
    /// # Errors
    /// When there is no such server, or it does not accept the node.
    pub(crate) fn open(
        broker: &Broker,
        purpose: &str,
        deadline: Instant,
    ) -> Result<Session, BrokerError> {
        let mut connection = broker.connect(deadline)?;
        let introduced = introduce(&mut connection, broker, purpose, deadline);
        let introduced = introduced.map_err(|fault| broker.judge(&fault))?;
        let (run, product, version) = facts(&introduced.info);
        if let Some(version) = version
            && version < VERSION_MIN
        {
            let (major, minor) = VERSION_MIN;
            let why =
                format!("{product} is too old. Use Redis {major}.{minor} or newer, or Valkey");
            return Err(BrokerError::Refused { why });
        }
        if introduced.role != "master" {
            let why = "it is a replica. Use the address of the primary, or that of Sentinel".into();
            return Err(BrokerError::Unreachable { why });
        }
        Ok(Session {
            connection,
            hashes: introduced.hashes,
            run,
            server: product,
        })
    }

    /// Says hello for a node.
    ///
    /// # Errors
    /// [`Empty`](BrokerError::Empty), and when the server does not answer.
    pub(crate) fn hello(
        &mut self,
        broker: &Broker,
        hello: &Hello<'_>,
        deadline: Instant,
    ) -> Result<Welcome, BrokerError> {
        let keys = &broker.keys;
        let arguments = hello_arguments(&self.run, hello);
        let keys = [&*keys.meta, &*keys.log, &*keys.snapshot];
        let reply = self.script(Script::Hello, &keys, &arguments, deadline);
        let welcome = reply.and_then(read_welcome);
        welcome.map_err(|fault| broker.judge(&fault))?
    }

    /// Runs a script.
    ///
    /// # Errors
    /// When it has no result.
    pub(crate) fn script(
        &mut self,
        script: Script,
        keys: &[&str],
        arguments: &[impl AsRef<[u8]>],
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let command = self.script_command(script, keys, arguments);
        let reply = self.call(&command, deadline);
        self.again_if_unknown(script, reply, keys, arguments, deadline)
    }

    /// Runs a script, and then another command. Returns both replies.
    ///
    /// # Errors
    /// When one of them has no result.
    pub(crate) fn script_and(
        &mut self,
        script: Script,
        keys: &[&str],
        arguments: &[impl AsRef<[u8]>],
        then: &Cmd,
        deadline: Instant,
    ) -> Result<(Value, Value), Fault> {
        let command = self.script_command(script, keys, arguments);
        let mut replies = self.connection.call_all(&[&command, then], deadline)?;
        let second = replies.pop().expect("each command has a reply");
        let first = replies.pop().expect("each command has a reply");
        match first {
            Err(Fault::Server(error)) if error.code() == "NOSCRIPT" => {
                let first = Err(Fault::Server(error));
                let first = self.again_if_unknown(script, first, keys, arguments, deadline)?;
                Ok((first, self.call(then, deadline)?))
            }
            first => Ok((first?, second?)),
        }
    }

    fn script_command(&self, script: Script, keys: &[&str], arguments: &[impl AsRef<[u8]>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hashes[script as usize]).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        command
    }

    /// Loads a script that an operator has flushed, and runs it again.
    fn again_if_unknown(
        &mut self,
        script: Script,
        reply: Result<Value, Fault>,
        keys: &[&str],
        arguments: &[impl AsRef<[u8]>],
        deadline: Instant,
    ) -> Result<Value, Fault> {
        match reply {
            Err(Fault::Server(error)) if error.code() == "NOSCRIPT" => {
                self.call(&load(script), deadline)?;
                let command = self.script_command(script, keys, arguments);
                self.call(&command, deadline)
            }
            reply => reply,
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// When it has no result.
    pub(crate) fn call(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        self.connection.call(command, REPLY_BYTES_MAX, deadline)
    }

    /// Runs a command whose reply may be large.
    ///
    /// # Errors
    /// When it has no result.
    pub(crate) fn call_large(
        &mut self,
        command: &Cmd,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        self.connection.call(command, bytes_max, deadline)
    }

    /// Runs several commands.
    ///
    /// # Errors
    /// When one of them has no result.
    pub(crate) fn call_all(&mut self, commands: &[&Cmd], deadline: Instant) -> Result<(), Fault> {
        let replies = self.connection.call_all(commands, deadline)?;
        replies.into_iter().try_for_each(|reply| reply.map(drop))
    }
}

/// What a server says of itself.
struct Introduced {
    info: String,
    role: String,
    hashes: Vec<String>,
}

fn introduce(
    connection: &mut Connection,
    broker: &Broker,
    purpose: &str,
    deadline: Instant,
) -> Result<Introduced, Fault> {
    let mut select = redis::cmd("SELECT");
    select.arg(broker.url.database);
    let mut name = redis::cmd("CLIENT");
    name.arg("SETNAME").arg(format!("pushwheel-{purpose}"));
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let role = redis::cmd("ROLE");
    let auth = broker.auth();
    // A Redis Cluster has no databases, and some servers do not know the command then.
    let select = (broker.url.database != 0).then_some(select);
    let loads = Script::ALL.map(load);
    let mut commands: Vec<&Cmd> = auth.iter().chain(&select).collect();
    let leading = commands.len();
    commands.extend([&name, &info, &role]);
    commands.extend(&loads);
    let mut replies = connection.call_all(&commands, deadline)?.into_iter();
    for reply in replies.by_ref().take(leading) {
        reply?;
    }
    let mut reply = || replies.next().expect("each command has a reply");
    // The name is for operators only.
    let is_named = reply();
    let info = match (reply(), is_named) {
        (Ok(info), _) => text(info)?,
        // It is hidden from this user.
        (Err(Fault::Server(error)), _) if error.code() == "NOPERM" => String::new(),
        (Err(fault), _) => return Err(fault),
    };
    let role = text(next(&mut items(reply()?)?)?)?;
    let hashes = Script::ALL.map(|_| reply().and_then(text));
    Ok(Introduced {
        info,
        role,
        hashes: hashes.into_iter().collect::<Result<_, _>>()?,
    })
}

fn load(script: Script) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(script.source());
    command
}

/// Returns the random number of the process, its name with the version, and the version of
/// Redis that it is compatible with.
fn facts(info: &str) -> (String, String, Option<(u32, u32)>) {
    let run = field(info, "run_id").filter(|run| !run.is_empty());
    let redis = field(info, "redis_version");
    let product = match (field(info, "valkey_version"), redis) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "a server of an unknown version".to_owned(),
    };
    let version = redis.and_then(|version| {
        let mut parts = version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    (run.unwrap_or("-").to_owned(), product, version)
}

/// Returns a field of `INFO`.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
}

fn hello_arguments(run: &str, hello: &Hello<'_>) -> Vec<Vec<u8>> {
    let Some(memory) = &hello.memory else {
        return vec![run.into(), hello.known.to_string().into(), b"0".into()];
    };
    // The log adds one.
    let older = memory.terms.len().saturating_sub(TERMS_MAX - 1);
    let terms = memory.terms[older..].iter();
    let terms = terms.map(|term| format!("{}:{}", term.after, term.first));
    let terms: Vec<String> = terms.collect();
    // The first number of a term was given, or is given next.
    let begun = memory.terms.last().map_or(0, |term| term.first - 1);
    let known = hello.known.max(memory.applied).max(begun);
    let mut arguments = vec![
        run.into(),
        known.to_string().into(),
        b"1".into(),
        memory.identity.into(),
        terms.join(";").into(),
        memory.applied.to_string().into(),
    ];
    for end in memory.writers.iter().take(WRITERS_MAX) {
        arguments.push(Keys::writer(end.writer).into());
        arguments.push(format!("{}:{}", end.n, end.first).into());
    }
    arguments
}

/// The outer result is whether there is an answer.
fn read_welcome(reply: Value) -> Result<Result<Welcome, BrokerError>, Fault> {
    let mut parts = items(reply)?;
    let mut part = || next(&mut parts);
    match &*text(part()?)? {
        "ok" => {}
        "empty" => return Ok(Err(BrokerError::Empty)),
        "format" => {
            let why = format!(
                "its log has format {}. Use the release that has written it, or a newer one",
                text(part()?)?
            );
            return Ok(Err(BrokerError::Refused { why }));
        }
        _ => return Err(Fault::Unexpected("not a welcome")),
    }
    let identity = bytes(part()?)?;
    let terms = read_terms(&text(part()?)?).ok_or(Fault::Unexpected("not terms"))?;
    let next = number(part()?)?;
    let oldest = match text(part()?)? {
        none if none.is_empty() => None,
        id => Some(first_of(&id)?),
    };
    let wall_ms = number(part()?)?;
    if next >= NUMBER_MAX {
        return Err(Fault::Unexpected("its numbers are used up"));
    }
    Ok(Ok(Welcome::new(identity, terms, next, oldest, wall_ms)))
}

fn read_terms(text: &str) -> Option<Vec<Term>> {
    let term = |text: &str| {
        let (after, first) = text.split_once(':')?;
        let (after, first) = (after.parse().ok()?, first.parse().ok()?);
        Some(Term { after, first })
    };
    let terms: Vec<Term> = text.split(';').map(term).collect::<Option<_>>()?;
    let ascend = |pair: &[Term]| pair[0].first <= pair[1].first;
    let is_whole = terms.len() <= TERMS_MAX
        && terms.iter().all(|term| term.after < term.first)
        && terms.windows(2).all(ascend);
    is_whole.then_some(terms)
}

/// Returns the first number of a block from the id of its entry.
pub(crate) fn first_of(id: &str) -> Result<u64, Fault> {
    let first = id.strip_suffix("-0").and_then(|first| first.parse().ok());
    first.ok_or(Fault::Unexpected("an id is not that of a block"))
}

#[cfg(test)]
mod tests {
    use pushwheel::cluster::{Memory, WriterEnd};

    use super::*;

    #[test]
    fn facts_of_servers() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        let redis = ("abc".to_owned(), "Redis 7.0.15".to_owned(), Some((7, 0)));
        assert_eq!(facts(info), redis);
        let info =
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nrun_id:b\r\n";
        let valkey = ("b".to_owned(), "Valkey 8.1.1".to_owned(), Some((7, 2)));
        assert_eq!(facts(info), valkey);
        assert_eq!(facts("").0, "-");
    }

    #[test]
    fn the_oldest_terms_are_left_out_of_a_hello() {
        let terms: Vec<Term> = (0..100)
            .map(|n| Term {
                after: 10 * n,
                first: 10 * n + 5,
            })
            .collect();
        let writers = [WriterEnd {
            writer: 1,
            n: 2,
            first: 3,
        }];
        let memory = Memory::new(b"\x00id", &terms, 1_000, &writers);
        let arguments = hello_arguments("run", &Hello::new(9, 7, Some(memory)));
        let texts = arguments.iter().map(|bytes| String::from_utf8_lossy(bytes));
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts[..4], ["run", "1000", "1", "\0id"]);
        assert_eq!(texts[4].split(';').count(), TERMS_MAX - 1);
        assert!(texts[4].ends_with(";990:995"));
        assert_eq!(
            texts[5..],
            ["1000", "w:00000000000000000000000000000001", "2:3"]
        );
    }

    #[test]
    fn terms_that_cannot_be_are_refused() {
        let term = |after, first| Term { after, first };
        let terms = Some(vec![term(0, 10), term(12, 20)]);
        assert_eq!(read_terms("0:10;12:20"), terms);
        for wrong in ["", "1", "a:b", "10:10", "0:20;12:19", "0:1;"] {
            assert_eq!(read_terms(wrong), None, "{wrong}");
        }
        let many = vec!["0:1"; TERMS_MAX + 1].join(";");
        assert_eq!(read_terms(&many), None);
    }
}
