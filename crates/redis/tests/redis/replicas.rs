//! Blocks that replicas have to have.

use std::time::Duration;

use pushwheel::cluster::BrokerError;
use pushwheel_redis::{RedisLog, RedisOptions};

use crate::server::{Server, TIMEOUT, block, eventually, writer};

#[test]
fn an_append_waits_for_replicas() {
    let primary = Server::start();
    let options = RedisOptions::new().replicas(1);
    let log = RedisLog::new(primary.url().parse().unwrap(), &options).unwrap();
    let (mut alone, welcome) = writer(&log);
    let short = Duration::from_millis(300);
    let error = alone.append(block(1, 1, b"x"), short).unwrap_err();
    assert!(
        matches!(error, BrokerError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");

    let port = primary.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("it is synchronized", || {
        let info: String = replica.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    });
    let (mut again, _) = writer(&log);
    let appended = again.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    assert_eq!((appended.first, appended.was_there), (welcome.next, true));
    let _: String = primary.run(&["SCRIPT", "FLUSH"]);
    assert!(!again.append(block(2, 1, b"y"), TIMEOUT).unwrap().was_there);

    // A replica that stands still has nothing, also when the block is sent a second time by a
    // session that has written nothing.
    replica.signal("-STOP");
    let error = again.append(block(3, 1, b"z"), short).unwrap_err();
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    let (mut later, _) = writer(&log);
    let error = later.append(block(3, 1, b"z"), short).unwrap_err();
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    replica.signal("-CONT");
    assert!(later.append(block(3, 1, b"z"), TIMEOUT).unwrap().was_there);
}
