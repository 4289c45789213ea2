//! Rates and limits of the server, and its responses beyond them.

use pushwheel::{Limits, Rate};
use pushwheel_server::Config;

use super::commands::{Running, pushwheel};
use super::{ask, ask_over, json, refusal, refused, text};
use crate::common::{Connection, Served, Subscriber};

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

#[test]
fn too_much_published_to_a_channel_is_429_with_retry_after() {
    // One per hour, so that no second one is due during the test.
    let rate = Rate::per_second(1.0 / 3600.0).burst(3);
    let options = pushwheel_server::channel_options().publish_rate(rate);
    let served = Served::start(Config::new().channel_options(options).engine());
    for _ in 0..3 {
        assert_eq!(ask(&served, "POST", "/channels/a", &[], "x").status, 200);
    }
    let answer = ask(&served, "POST", "/channels/a", &[], "x");
    assert_eq!(refusal(&answer), refused(429, "rate_limited"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    // Each channel has its own rate.
    assert_eq!(ask(&served, "POST", "/channels/b", &[], "x").status, 200);
}

#[test]
fn too_much_published_from_an_address_is_429_and_nothing_of_it_is_appended() {
    let rate = Rate::per_second(1.0 / 3600.0).burst(3);
    let served = Served::start(Config::new().publish_rate_per_address(rate).engine());
    let batch = "{\"data\":1}\n{\"data\":2}\n";
    let answer = ask(&served, "POST", "/channels/a", &[NDJSON], batch);
    assert_eq!(answer.status, 200);
    let newest = json(&answer)["id"].clone();
    let answer = ask(&served, "POST", "/channels/b", &[NDJSON], batch);
    assert_eq!(refusal(&answer), refused(429, "rate_limited"));
    assert!(answer.header("retry-after").is_some());
    let stats = json(&ask(&served, "GET", "/stats", &[], ""));
    assert_eq!(
        text(&stats["channel_stats"][0]["history"]["newest"]),
        text(&newest)
    );
    assert_eq!(
        stats["channels"], 1,
        "the refused one made no channel: {stats}"
    );
}

#[test]
fn a_full_server_still_publishes_and_answers_health_checks() {
    let mut limits = Limits::default();
    limits.connections_max = 2;
    let config = Config::new().limits(limits);
    let served = Served::start(config.allow_any_origin_to_subscribe(true).engine());
    let mut inside = [
        served.subscribe("/channels/a"),
        served.subscribe("/channels/a"),
    ];
    for path in ["/channels/a", "/events?channel=a&channel=b"] {
        let mut stream = served.subscribe(path);
        stream.expect_end();
        assert!(stream.retry().is_some());
        // A page of another origin may read that too.
        assert_eq!(stream.head.header("access-control-allow-origin"), Some("*"));
        let answer = ask(&served, "GET", path, &[], "");
        assert_eq!(refusal(&answer), refused(503, "server_full"));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(ask(&served, "GET", "/health", &[], "").status, 200);
    assert_eq!(json(&ask(&served, "GET", "/stats", &[], ""))["clients"], 2);
    assert_eq!(ask(&served, "POST", "/channels/a", &[], "x").status, 200);
    for stream in &mut inside {
        assert_eq!(stream.next().data, "x");
    }
}

#[test]
fn the_limits_are_flags_and_variables_of_the_command_line() {
    let flags = ["--max-connections", "1", "--max-body-bytes", "4"];
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(flags).args(["--send-buffer-bytes", "16384"]);
    command.env("PUSHWHEEL_MAX_REQUEST_LINE_BYTES", "40");
    let mut server = Running::spawn(&mut command);
    let address = server.address();
    let mut inside = Subscriber::open(address, "/channels/a", &[]);
    inside.wait_for_id();
    let ask = |method, path, body| {
        let mut other = Connection::open(address);
        refusal(&ask_over(&mut other, method, path, &[], body))
    };
    let full = refused(503, "server_full");
    assert_eq!(ask("GET", "/channels/a", ""), full);
    let too_large = refused(413, "payload_too_large");
    assert_eq!(ask("POST", "/channels/a", "fives"), too_large);
    let long = "/channels/a-name-that-is-rather-long-for-that";
    assert_eq!(ask("GET", long, ""), refused(414, "uri_too_long"));
}

#[test]
fn behind_a_proxy_it_is_the_clients_that_have_a_rate_each() {
    let rate = Rate::per_second(1.0 / 3600.0).burst(1);
    let config = Config::new().publish_rate_per_address(rate);
    let proxy = "127.0.0.1".parse().unwrap();
    let served = Served::start(config.engine().trusted_proxies([proxy]));
    let publish = |client: &str| {
        let headers = [("X-Forwarded-For", client)];
        ask(&served, "POST", "/channels/a", &headers, "x").status
    };
    assert_eq!([publish("192.0.2.1"), publish("192.0.2.2")], [200, 200]);
    assert_eq!([publish("192.0.2.1"), publish("192.0.2.2")], [429, 429]);
    // A client's own text comes before the address that the proxy adds.
    assert_eq!(publish("192.0.2.3, 192.0.2.1"), 429);
}

#[test]
fn behind_a_proxy_a_client_is_known_by_its_own_address() {
    let proxy = "127.0.0.1".parse().unwrap();
    let served = Served::start(Config::new().engine().trusted_proxies([proxy]));
    let headers = [("X-Forwarded-For", "192.0.2.1")];
    let _stream = Subscriber::open(served.address(), "/channels/a?client=ann", &headers);
    let client = json(&ask(&served, "GET", "/channels/a/clients/ann", &[], ""));
    assert_eq!(text(&client["address"]), "192.0.2.1");
}

#[test]
fn a_client_of_a_socket_for_both_protocols_has_its_ipv4_address() {
    let mut server = Running::start(&["serve", "--listen=[::]:0", "--allow-missing-keys"]);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let mut stream = Subscriber::open(address, "/channels/a", &[]);
    stream.wait_for_id();
    let mut connection = Connection::open(address);
    let clients = json(&ask_over(
        &mut connection,
        "GET",
        "/channels/a/clients",
        &[],
        "",
    ));
    let address = text(&clients[0]["address"]);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
}
