//! How a session finds its server, and what it survives.

use std::time::Duration;

use pushwheel::cluster::{BrokerError, Hello, SharedLog};

use crate::server::{
    Server, TIMEOUT, block, eventually, log_at, newcomer, read_all, reader, writer,
};

#[test]
fn scripts_that_an_operator_flushes_are_loaded_again() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let _: String = server.run(&["SCRIPT", "FLUSH"]);
    writer.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    let _: String = server.run(&["SCRIPT", "FLUSH"]);
    assert_eq!(writer.lease("keeper", TIMEOUT, TIMEOUT), Ok(true));
    assert_eq!(read_all(&mut *reader(&log), 0).unwrap().len(), 1);
}

#[test]
fn a_log_of_another_format_is_refused() {
    let server = Server::start();
    let log = server.log();
    drop(writer(&log));
    let _: u32 = server.run(&["HSET", "{pushwheel}:meta", "format", "2"]);
    let refused = log.open_writer(&newcomer(), TIMEOUT).map(drop).unwrap_err();
    assert!(refused.to_string().contains("format 2"), "{refused}");
    assert!(matches!(refused, BrokerError::Refused { .. }));
}

#[test]
fn what_is_no_log_is_damaged() {
    let server = Server::start();
    let log = server.log();
    let (_, welcome) = writer(&log);
    let mut reader = reader(&log);
    let id = format!("{}-1", welcome.next);
    let _: String = server.run(&["XADD", "{pushwheel}:log", &id, "t", "1", "b", "x"]);
    let read = read_all(&mut *reader, 0);
    assert!(matches!(read, Err(BrokerError::Damaged { .. })), "{read:?}");
    let _: u32 = server.run(&["DEL", "{pushwheel}:log"]);
    let _: String = server.run(&["XADD", "{pushwheel}:log", "7-0", "t", "1"]);
    let read = read_all(&mut *reader, 0);
    assert!(matches!(read, Err(BrokerError::Damaged { .. })), "{read:?}");
    let _: String = server.run(&["SET", "{pushwheel}:log", "text"]);
    let read = read_all(&mut *reader, 0);
    assert!(matches!(read, Err(BrokerError::Damaged { .. })), "{read:?}");
}

#[test]
fn a_node_that_catches_up_reads_many_small_blocks_at_a_time() {
    let server = Server::with(&[]);
    let log = server.log();
    let (mut writer, _) = writer(&log);
    for n in 1..=3_000 {
        writer.append(block(n, 1, &[b'x'; 100]), TIMEOUT).unwrap();
    }
    let _: String = server.run(&["CONFIG", "RESETSTAT"]);
    assert_eq!(read_all(&mut *reader(&log), 0).unwrap().len(), 3_000);
    let stats: String = server.run(&["INFO", "commandstats"]);
    let reads = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_xread:calls="));
    let reads: u32 = reads.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(reads < 20, "{reads}");
}

#[test]
fn a_reply_that_is_too_large_is_read_block_by_block() {
    let server = Server::with(&[]);
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let large = vec![b'x'; 8 << 20];
    for n in 1..=9 {
        writer.append(block(n, 1, &large), TIMEOUT).unwrap();
    }
    let too_large = read_all(&mut *reader(&log), 0).unwrap_err();
    assert!(too_large.to_string().contains("too large"), "{too_large}");
    let blocks = read_all(&mut *reader(&log), 0).unwrap();
    assert_eq!(blocks.len(), 9);
    assert!(blocks.iter().all(|block| block.bytes == large));
    // One that no reader could read is not appended.
    let refused = writer.append(block(10, 1, &vec![0; (32 << 20) + 1]), TIMEOUT);
    assert!(matches!(refused, Err(BrokerError::Refused { .. })));
}

/// Two servers of a Redis Cluster. The second one has all keys.
fn cluster() -> [Server; 2] {
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let servers = [Server::with(&arguments), Server::with(&arguments)];
    let [one, other] = &servers;
    let _: String = other.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let _: String = one.run(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    for server in &servers {
        eventually("the servers know each other", || {
            let info: String = server.run(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    servers
}

#[test]
fn a_server_of_a_redis_cluster_that_does_not_have_the_keys_directs_to_the_one_that_does() {
    let [one, other] = cluster();
    let log = one.log();
    let moved = log.open_writer(&newcomer(), TIMEOUT).map(drop);
    assert_eq!(moved, Err(BrokerError::Moved));
    let (mut writer, _) = writer(&log);
    writer.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    let blocks = read_all(&mut *reader(&log), 0).unwrap();
    assert_eq!(blocks, read_all(&mut *reader(&other.log()), 0).unwrap());
    // All that a node asks for is in one slot.
    assert_eq!(writer.lease("keeper", TIMEOUT, TIMEOUT), Ok(true));
    writer.put_value(b"k", b"v", TIMEOUT, TIMEOUT).unwrap();
    // A server that is gone is not asked for ever.
    drop(other);
    let gone = log.open_writer(&newcomer(), TIMEOUT).map(drop);
    assert!(
        matches!(gone, Err(BrokerError::Unreachable { .. })),
        "{gone:?}"
    );
    let answer = log.open_writer(&newcomer(), TIMEOUT).map(drop);
    assert!(!answer.unwrap_err().to_string().contains("refused ("));
}

#[test]
fn databases_are_apart() {
    let server = Server::start();
    drop(writer(&log_at(&format!("{}/3", server.url()))));
    let other = log_at(&format!("{}/4", server.url()));
    let empty = other
        .open_reader(&Hello::new(1, 0, None), TIMEOUT)
        .map(drop);
    assert_eq!(empty, Err(BrokerError::Empty));
    let none = log_at(&format!("{}/99", server.url()));
    let refused = none.open_reader(&newcomer(), TIMEOUT).map(drop);
    assert!(
        matches!(refused, Err(BrokerError::Refused { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_name_that_does_not_exist_is_an_error() {
    let log = log_at("redis://does-not-exist.invalid");
    let error = log
        .open_writer(&newcomer(), Duration::from_secs(20))
        .map(drop);
    assert!(
        matches!(error, Err(BrokerError::Unreachable { .. })),
        "{error:?}"
    );
    assert_eq!(log.address(), "redis://does-not-exist.invalid:6379");
}
