//! What is found out about a server.

use pushwheel::cluster::BrokerError;
use pushwheel_redis::inspect;

use crate::server::{Server, TIMEOUT, block, free_port, log_at, writer};

#[test]
fn a_server_is_inspected_and_left_as_it_was() {
    let server = Server::start();
    let log = server.log();
    let inspection = inspect(&log, 7, TIMEOUT).unwrap();
    assert!(inspection.server.starts_with("Redis ") || inspection.server.starts_with("Valkey "));
    assert!(inspection.shows_restarts);
    assert!(inspection.trial.unwrap() < TIMEOUT);
    assert!(inspection.round_trip <= inspection.connected_in);
    assert_eq!(inspection.has_append_only_file, Some(true));
    assert_eq!(inspection.append_only_sync.as_deref(), Some("always"));
    assert_eq!(inspection.saves.as_deref(), Some(""));
    assert!(!inspection.persistence_fails);
    assert_eq!(inspection.memory_max, Some(0));
    assert!(inspection.memory.unwrap() > 0);
    assert_eq!(inspection.memory_policy.as_deref(), Some("noeviction"));
    assert_eq!(
        (inspection.replicas, inspection.replicas_min),
        (Some(0), Some(0))
    );
    assert_eq!(inspection.blocks, None);
    assert_eq!(server.run::<u32>(&["DBSIZE"]), 0);
    writer(&log).0.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    assert_eq!(inspect(&log, 7, TIMEOUT).unwrap().blocks, Some(1));
    assert_eq!(server.run::<u32>(&["DBSIZE"]), 2);
}

#[test]
fn a_user_with_few_rights_sees_less() {
    let server = Server::start();
    let rights = [
        "ACL",
        "SETUSER",
        "ann",
        "on",
        ">secret",
        "~*",
        "-@all",
        "+role",
        "+script|load",
        "+auth",
    ];
    let _: String = server.run(&rights);
    let log = log_at(&format!("redis://ann:secret@127.0.0.1:{}", server.port));
    let inspection = inspect(&log, 7, TIMEOUT).unwrap();
    assert!(!inspection.shows_restarts);
    assert_eq!(inspection.memory_policy, None);
    assert_eq!(inspection.replicas_min, None);
    let trial = inspection.trial.unwrap_err();
    assert!(matches!(trial, BrokerError::Refused { .. }), "{trial:?}");
    assert!(trial.to_string().contains("evalsha"), "{trial}");
}

#[test]
fn a_server_that_is_not_there() {
    let log = log_at(&format!("redis://127.0.0.1:{}", free_port()));
    assert!(inspect(&log, 7, TIMEOUT).is_err());
}
