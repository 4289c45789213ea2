//! A primary that sentinels name.

use std::time::Duration;

use pushwheel::cluster::{BrokerError, SharedLog};

use crate::server::{
    Server, TIMEOUT, block, eventually, free_port, log_at, newcomer, read_all, reader, writer,
};

/// Starts a sentinel for a primary that is called `main`.
fn sentinel(primary: &Server, more: &str) -> Server {
    let text = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 2000\n{more}",
        primary.port
    );
    Server::sentinel(&text)
}

fn replica(primary: &Server) -> Server {
    let port = primary.port.to_string();
    let replica = Server::with(&[
        "--replicaof",
        "127.0.0.1",
        &port,
        "--repl-diskless-sync-delay",
        "0",
    ]);
    eventually("it is synchronized", || {
        let info: String = replica.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    });
    replica
}

#[test]
fn a_failover_begins_a_term_on_the_new_primary() {
    let mut primary = Server::start();
    let replica = replica(&primary);
    let sentinel = sentinel(&primary, "");
    eventually("the sentinel knows the replica", || {
        let info: String = sentinel.run(&["INFO", "sentinel"]);
        info.contains("slaves=1")
    });
    // The first sentinel of the URL does not exist.
    let sentinels = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), sentinel.port);
    let log = log_at(&format!("redis+sentinel://{sentinels}/main"));
    let (mut writer_before, welcome) = writer(&log);
    writer_before.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    eventually("the replica has it", || {
        replica.run::<u32>(&["XLEN", "{pushwheel}:log"]) == 1
    });
    primary.kill();
    assert!(writer_before.append(block(2, 1, b"y"), TIMEOUT).is_err());
    let mut opened = None;
    eventually("the replica has taken over", || {
        opened = log.open_writer(&newcomer(), Duration::from_secs(2)).ok();
        opened.is_some()
    });
    let (mut writer, after) = opened.unwrap();
    assert_eq!((after.identity, after.terms.len()), (welcome.identity, 2));
    assert_eq!(after.terms[1].after, welcome.next);
    assert!(!writer.append(block(2, 1, b"y"), TIMEOUT).unwrap().was_there);
    assert_eq!(read_all(&mut *reader(&log), 0).unwrap().len(), 2);
    assert_eq!(replica.run::<u32>(&["XLEN", "{pushwheel}:log"]), 2);
}

#[test]
fn a_sentinel_that_knows_no_such_primary_or_needs_a_password() {
    let primary = Server::start();
    let sentinel = sentinel(&primary, "requirepass secret\n");
    let at = |credentials: &str, name: &str| {
        let log = log_at(&format!(
            "redis+sentinel://{credentials}127.0.0.1:{}/{name}",
            sentinel.port
        ));
        log.open_writer(&newcomer(), TIMEOUT).map(drop)
    };
    let error = at("", "main").unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("needs a password"), "{error}");
    let error = at(":secret@", "other").unwrap_err();
    assert!(
        error.to_string().contains("does not monitor other"),
        "{error}"
    );
    // The password is that of both.
    let _: String = primary.run(&["CONFIG", "SET", "requirepass", "secret"]);
    at(":secret@", "main").unwrap();
}
