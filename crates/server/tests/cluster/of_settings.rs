//! What the manual says about Redis.

use crate::common::Connection;
use crate::directory::Directory;
use crate::nodes::Node;
use crate::redis::Redis;

const MANUAL: &str = include_str!("../../../../docs/cluster.md");

/// A user of Redis with the manual's rights can do all that a node does.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn the_rights_of_the_manual_suffice() {
    let directory = Directory::new("cluster-rights");
    let rule = MANUAL
        .lines()
        .find_map(|line| line.strip_prefix("user pushwheel "))
        .unwrap();
    let redis = Redis::start(directory.path(), "redis", &[]);
    let words = rule.replace("PASSWORD", "password-of-a-test");
    let words: Vec<&str> = ["acl", "setuser", "pushwheel"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    assert_eq!(redis.ask(&words), "OK");
    assert_eq!(redis.ask(&["acl", "setuser", "default", "off"]), "OK");
    let file = directory.path().join("password");
    std::fs::write(&file, "password-of-a-test\n").unwrap();
    let broker = format!("redis://pushwheel:@{}", redis.address());
    let options = [
        "--broker-password-file",
        file.to_str().unwrap(),
        "--broker-snapshot",
        "1",
    ];
    let node = Node::start("n1", &broker, &options);
    node.wait_until_ready();
    let mut connection = Connection::open(node.address);
    assert_eq!(connection.post("/channels/news", "hello").status, 200);
    let log = node.log();
    assert!(
        !log.contains("NOPERM") && !log.contains("password-of-a-test"),
        "{log}"
    );
}
