//! Servers that answer with an error.

use std::time::Duration;

use pushwheel::cluster::{BrokerError, SharedLog};
use pushwheel_redis::{RedisLog, RedisOptions};

use crate::server::{
    Server, TIMEOUT, block, eventually, log_at, newcomer, read_all, reader, writer,
};

#[track_caller]
fn refused(log: &RedisLog, part: &str) {
    let error = log.open_writer(&newcomer(), TIMEOUT).map(drop).unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn a_password_that_is_wrong_or_missing() {
    let server = Server::with(&["--requirepass", "right"]);
    let host = format!("127.0.0.1:{}", server.port);
    refused(&log_at(&format!("redis://{host}")), "needs a password");
    refused(
        &log_at(&format!("redis://:wrong@{host}")),
        "wrong user or password",
    );
    refused(
        &log_at(&format!("redis://ann:right@{host}")),
        "wrong user or password",
    );
    drop(writer(&log_at(&format!("redis://:right@{host}"))));
    drop(writer(&log_at(&format!("redis://default:right@{host}"))));
    let url = format!("redis://{host}")
        .parse::<pushwheel_redis::RedisUrl>()
        .unwrap();
    let log = RedisLog::new(url.with_password("right"), &RedisOptions::new()).unwrap();
    drop(writer(&log));
}

/// Returns the rights that the documentation of the package names.
fn documented_rights() -> Vec<&'static str> {
    let lines = include_str!("../../src/lib.rs").lines();
    let lines = lines.skip_while(|line| !line.contains("//! resetkeys"));
    let lines = lines.map_while(|line| line.strip_prefix("//! "));
    let rights = lines.take_while(|line| !line.starts_with("```"));
    rights.flat_map(str::split_whitespace).collect()
}

#[test]
fn a_user_with_the_documented_rights_can_do_everything() {
    let server = Server::start();
    let words = ["ACL", "SETUSER", "node", "on", ">secret"];
    let rights = documented_rights();
    assert!(rights.len() > 25, "{rights:?}");
    let words: Vec<&str> = words.into_iter().chain(rights).collect();
    let _: String = server.run(&words);
    let log = log_at(&format!("redis://node:secret@127.0.0.1:{}", server.port));
    let (mut writer, welcome) = writer(&log);
    writer.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    writer.trim(welcome.next, TIMEOUT).unwrap();
    writer.forget_writers(&[1], TIMEOUT).unwrap();
    assert_eq!(writer.lease("keeper", TIMEOUT, TIMEOUT), Ok(true));
    for at in [1, 2] {
        let name = pushwheel::cluster::SnapshotName { at, writer: 1 };
        writer
            .put_snapshot_chunk(name, 0, b"chunk", TIMEOUT)
            .unwrap();
        let snapshot = pushwheel::cluster::StoredSnapshot { name, chunks: 1 };
        writer.complete_snapshot(snapshot, TIMEOUT).unwrap();
    }
    writer.put_value(b"k", b"v", TIMEOUT, TIMEOUT).unwrap();
    assert!(writer.take_value(b"k", TIMEOUT).unwrap().is_some());
    let mut reader = reader(&log);
    assert_eq!(read_all(&mut *reader, 0).unwrap().len(), 1);
    let name = reader.snapshot(TIMEOUT).unwrap().unwrap().name;
    assert!(reader.snapshot_chunk(name, 0, TIMEOUT).unwrap().is_some());
    // Another cluster's keys are not the user's.
    let url = format!("redis://node:secret@127.0.0.1:{}", server.port);
    let options = RedisOptions::new().name("other");
    let other = RedisLog::new(url.parse().unwrap(), &options).unwrap();
    refused(&other, "NOPERM");
}

#[test]
fn a_server_whose_memory_is_full() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, welcome) = writer(&log);
    let _: String = server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = writer.append(block(1, 1, b"x"), TIMEOUT);
    assert!(matches!(full, Err(BrokerError::Full { .. })), "{full:?}");
    let full = writer.put_value(b"k", b"v", TIMEOUT, TIMEOUT);
    assert!(matches!(full, Err(BrokerError::Full { .. })), "{full:?}");
    // What it has can be read, and trimming makes room.
    assert_eq!(read_all(&mut *reader(&log), 0), Ok(vec![]));
    writer.trim(welcome.next, TIMEOUT).unwrap();
    let _: String = server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let appended = writer.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    assert_eq!((appended.first, appended.was_there), (welcome.next, false));
}

#[test]
fn a_server_that_loads_its_data() {
    let mut server = Server::start();
    let log = server.log();
    drop(writer(&log));
    let _: String = server.run(&[
        "EVAL",
        "for n = 1, 2000 do redis.call('SET', n, n) end return 'x'",
        "0",
    ]);
    let slowly = [
        "--key-load-delay",
        "5000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    server.restart(&slowly);
    eventually("it loads", || {
        let error = log.open_writer(&newcomer(), TIMEOUT).map(drop).unwrap_err();
        assert!(
            matches!(error, BrokerError::Unreachable { .. }),
            "{error:?}"
        );
        error.to_string().contains("LOADING")
    });
    eventually("it is ready", || {
        log.open_writer(&newcomer(), TIMEOUT).is_ok()
    });
    assert_eq!(writer(&log).1.terms.len(), 2);
}

#[test]
fn a_primary_that_becomes_a_replica() {
    let server = Server::start();
    let other = Server::start();
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let _: String = server.run(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    // Redis keeps connections.
    eventually("it is synchronized", || {
        let info: String = server.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    });
    let moved = writer.append(block(1, 1, b"x"), TIMEOUT);
    assert_eq!(moved, Err(BrokerError::Moved));
    let replica = log.open_writer(&newcomer(), TIMEOUT).map(drop).unwrap_err();
    assert!(
        matches!(replica, BrokerError::Unreachable { .. }),
        "{replica:?}"
    );
    assert!(replica.to_string().contains("is a replica"), "{replica}");
}

#[test]
fn a_primary_without_the_replicas_that_it_needs() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let _: String = server.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let error = writer.append(block(1, 1, b"x"), TIMEOUT).unwrap_err();
    assert!(
        matches!(error, BrokerError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
    let _: String = server.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert!(
        !writer
            .append(block(1, 1, b"x"), Duration::from_secs(5))
            .unwrap()
            .was_there
    );
}
