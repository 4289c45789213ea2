//! What the errors of a server mean for a node.

use pushwheel::cluster::BrokerError;
use redis::ServerError;

use crate::connection::Fault;
use crate::replies::ReplyError;
use crate::url::ServerAddress;

/// Returns what a fault means.
pub(crate) fn broker_error(fault: &Fault) -> BrokerError {
    let why = fault.to_string();
    match fault {
        Fault::Gone(ReplyError::Io(error)) if is_refused(error) => BrokerError::Refused { why },
        Fault::Gone(_) => BrokerError::Unreachable { why },
        Fault::Unexpected(_) => BrokerError::Damaged { what: why },
        Fault::Server(error) => match code(error) {
            "OOM" => BrokerError::Full {
                why: "its memory is full, see maxmemory".to_owned(),
            },
            "MISCONF" => BrokerError::Full { why },
            // Another server has the log now, or this one has become a replica.
            "MOVED" | "ASK" | "READONLY" => BrokerError::Moved,
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS"
            | "UNBLOCKED" => BrokerError::Unreachable { why },
            "WRONGPASS" => BrokerError::Refused {
                why: "wrong user or password".to_owned(),
            },
            "NOAUTH" => BrokerError::Refused {
                why: "it needs a password".to_owned(),
            },
            "WRONGTYPE" => BrokerError::Damaged { what: why },
            _ => BrokerError::Refused { why },
        },
    }
}

/// Returns the server that has the keys, if this one says so.
pub(crate) fn redirect(fault: &Fault) -> Option<ServerAddress> {
    let Fault::Server(error) = fault else {
        return None;
    };
    let details = error.details().filter(|_| error.code() == "MOVED")?;
    let (host, port) = details.split_once(' ')?.1.rsplit_once(':')?;
    Some(ServerAddress::new(host, port.parse().ok()?))
}

/// Returns whether the node rejects the server's certificate, or the server rejects that of the
/// node.
fn is_refused(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
    )
}

/// The codes that a script of Redis 6 passes on only in its message.
const CODES_OF_COMMANDS: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"];

fn code(error: &ServerError) -> &str {
    let inner = error.details().filter(|_| error.code() == "ERR");
    let inner = inner.and_then(|details| {
        let mut codes = CODES_OF_COMMANDS.into_iter();
        codes.find(|code| details.contains(&format!(" -{code} ")))
    });
    inner.unwrap_or(error.code())
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;
    use crate::replies::Replies;

    fn fault(line: &str) -> Fault {
        let line = format!("-{line}\r\n");
        match Replies::new(line.as_bytes()).next(1_024).unwrap() {
            Value::ServerError(error) => Fault::Server(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_of_a_server() {
        let unreachable = |line: &str| BrokerError::Unreachable {
            why: line.to_owned(),
        };
        let refused = |why: &str| BrokerError::Refused {
            why: why.to_owned(),
        };
        let full = || BrokerError::Full {
            why: "its memory is full, see maxmemory".to_owned(),
        };
        for (line, meaning) in [
            ("MOVED 7 10.0.0.2:6379", BrokerError::Moved),
            (
                "READONLY You can't write against a read only replica.",
                BrokerError::Moved,
            ),
            ("OOM command not allowed", full()),
            (
                "ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed",
                full(),
            ),
            (
                "LOADING Redis is loading",
                unreachable("LOADING Redis is loading"),
            ),
            (
                "NOREPLICAS Not enough",
                unreachable("NOREPLICAS Not enough"),
            ),
            ("WRONGPASS invalid", refused("wrong user or password")),
            (
                "NOAUTH Authentication required.",
                refused("it needs a password"),
            ),
            ("NOPERM no", refused("NOPERM no")),
            ("ERR unknown command", refused("ERR unknown command")),
        ] {
            assert_eq!(broker_error(&fault(line)), meaning, "{line}");
        }
    }

    #[test]
    fn a_cluster_says_which_server_has_the_keys() {
        let to = |line| redirect(&fault(line)).map(|server| server.to_string());
        assert_eq!(
            to("MOVED 7 10.0.0.2:7000"),
            Some("10.0.0.2:7000".to_owned())
        );
        assert_eq!(to("MOVED 7 ::1:7000"), Some("[::1]:7000".to_owned()));
        assert_eq!(to("MOVED 7"), None);
        assert_eq!(to("ERR no"), None);
    }
}
