//! The limits of all channels together: subscribers leave room for publishers, and memory is
//! bounded.

use pushwheel::History;
use pushwheel_server::{self, Config, Key, TokenKeys};
use serde_json::json;

use super::access::{SECRET, bearer, token};
use super::{TEXT, ask, get, json as json_of, publish, refusal, refused};
use crate::common::{Connection, Served, Subscriber, eventually, summaries};

const KEY: (&str, &str) = ("Authorization", "Bearer publish-s3cret-key");

/// A server with a publish key and a maximum number of channels.
fn keyed(channels: usize) -> Config {
    Config::new()
        .publish_key(Key::new("publish-s3cret-key").unwrap())
        .channels_max(channels)
}

/// `/events` with channels of these numbers.
fn events(numbers: std::ops::Range<usize>) -> String {
    let channels: Vec<_> = numbers.map(|n| format!("channel=c{n}")).collect();
    format!("/events?{}", channels.join("&"))
}

/// The requests of a security review: streams of 64 new names each, from one address.
#[test]
fn one_address_cannot_take_the_channels_of_publishers() {
    let served = Served::start(keyed(1_000).engine());
    // A sixteenth of all channels is 63.
    let answer = get(&served, &events(0..64));
    assert_eq!(
        refusal(&answer),
        refused(429, "too_many_channels_of_source")
    );
    assert!(answer.header("retry-after").is_some());
    let mut inside = served.subscribe(&events(0..63));
    inside.wait_for_id();
    // The response to a browser has a time to reconnect.
    let close = [("Connection", "close")];
    let mut browser = Subscriber::open(served.address(), "/channels/one-more", &close);
    browser.expect_end();
    assert!(browser.retry().is_some());
    // A publisher may create all of them.
    for n in 0..900 {
        let path = format!("/channels/orders.{n}");
        assert_eq!(ask(&served, "POST", &path, &[KEY], "x").status, 200, "{n}");
    }
    // After a publish to them they count for no source.
    assert_eq!(
        ask(&served, "POST", "/channels/c0", &[KEY], "hello").status,
        200
    );
    assert_eq!(summaries(&inside.take(1)), ["hello"]);
    served.subscribe("/channels/one-more").wait_for_id();
}

#[test]
fn a_token_has_a_number_of_channels_of_its_own() {
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let served = Served::start(keyed(32).token_keys(keys).engine());
    let path = |user: usize, numbers: std::ops::Range<usize>| {
        let channels: Vec<_> = numbers
            .map(|n| format!("channel=user.{user}.{n}"))
            .collect();
        format!("/events?{}", channels.join("&"))
    };
    let mut streams = Vec::new();
    for user in 0..5 {
        // One token: another one, a second later, has another `exp` and its own number.
        let own = bearer(&token(json!({"subscribe": [format!("user.{user}.*")]})));
        let headers = [("Authorization", &*own)];
        let mut stream = Subscriber::open(served.address(), &path(user, 0..2), &headers);
        stream.wait_for_id();
        streams.push(stream);
        let answer = ask(&served, "GET", &path(user, 2..3), &headers, "");
        assert_eq!(
            refusal(&answer),
            refused(429, "too_many_channels_of_source")
        );
    }
    assert_eq!(
        ask(&served, "POST", "/channels/orders", &[KEY], "x").status,
        200
    );
}

#[test]
fn where_all_channels_are_taken_a_subscribers_makes_room_for_a_publishers() {
    let config = keyed(4)
        .unpublished_channels_max(4)
        .unpublished_channels_per_source_max(4);
    let served = Served::start(config.engine());
    let mut old = served.subscribe(&events(0..3));
    old.wait_for_id();
    let mut new = served.subscribe(&events(3..4));
    new.wait_for_id();
    assert_eq!(
        ask(&served, "POST", "/channels/orders", &[KEY], "x").status,
        200
    );
    new.expect_end();
    // The client reconnects, at the time in its last event.
    let answer = get(&served, &events(3..4));
    assert_eq!(refusal(&answer), refused(503, "too_many_channels"));
    assert_eq!(
        ask(&served, "POST", "/channels/c0", &[KEY], "still there").status,
        200
    );
    assert_eq!(summaries(&old.take(1)), ["still there"]);
    let metrics = served.handle().metrics();
    let counts = (metrics.channels_unpublished, metrics.channels_displaced);
    assert_eq!(counts, (2, 1));
}

#[test]
fn subscriptions_leave_an_eighth_of_all_channels_to_publishers() {
    let config = keyed(8).unpublished_channels_per_source_max(8);
    let served = Served::start(config.engine());
    let mut stream = served.subscribe(&events(0..7));
    stream.wait_for_id();
    let answer = get(&served, &events(7..8));
    assert_eq!(
        refusal(&answer),
        refused(503, "too_many_unpublished_channels")
    );
    // An event for all channels does not make them published channels.
    assert_eq!(ask(&served, "POST", "/channels", &[KEY], "all").status, 200);
    assert_eq!(summaries(&stream.take(1)), ["all"]);
    assert_eq!(
        get(&served, &events(7..8)).error_code(),
        "too_many_unpublished_channels"
    );
    // After their clients have left, they block no publisher.
    drop(stream);
    eventually("it has gone", || served.channels().total_clients() == 0);
    served.subscribe(&events(10..17)).wait_for_id();
}

#[test]
fn all_channels_together_keep_to_the_total_and_a_resuming_client_gets_a_gap() {
    let options = pushwheel_server::channel_options().history(History::events(1_000));
    let config = Config::new()
        .channel_options(options)
        .history_total(100_000);
    let served = Served::start(config.engine());
    let body = "x".repeat(5_000);
    let first = publish(&served, "/channels/c0", TEXT, &body);
    for n in 0..40 {
        publish(&served, &format!("/channels/c{}", n / 4), TEXT, &body);
    }
    let totals = json_of(&get(&served, "/stats?totals"));
    let bytes = totals["history_bytes"].as_u64().unwrap();
    assert!((90_000..=100_000).contains(&bytes), "{totals}");
    assert_eq!(totals["history_bytes_max"], 100_000);
    assert!(totals["evicted"].as_u64() > Some(20), "{totals}");
    let mut stream = served.resubscribe("/channels/c0", first["id"].as_str().unwrap());
    let gap = stream.next();
    assert_eq!(gap.name, "pushwheel.gap");
    assert!(gap.data.contains("\"reason\":\"evicted\""), "{}", gap.data);
    // The newest channels keep all their events.
    let newest = json_of(&get(&served, "/stats?channel=c9&top=0"));
    assert_eq!(newest["channel_stats"][0]["history"]["events"], 4);
    let metrics = get(&served, "/metrics").text().to_owned();
    assert!(
        metrics.contains("pushwheel_log_bytes_max 100000"),
        "{metrics}"
    );
}

/// `last` is resolved under the lock, so a large history must not delay publishers.
#[test]
fn a_stream_begins_with_at_most_1000_events() {
    let served = Served::start(Config::new().engine());
    let mut connection: Connection = served.connect();
    let answer = super::ask_over(&mut connection, "GET", "/channels/a?last=1001", &[], "");
    assert_eq!(refusal(&answer), refused(400, "parameter_invalid"));
    assert!(answer.text().contains("at most 1000"), "{}", answer.text());
    served.subscribe("/channels/a?last=1000").wait_for_id();
}
