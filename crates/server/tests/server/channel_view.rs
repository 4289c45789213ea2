//! The settings of a channel, and the figures of the server.

use pushwheel::{ChannelOptions, History, LagPolicy};
use pushwheel_server::{Config, Key, TokenKeys};
use serde_json::{Value, json};

use crate::common::{Served, eventually};
use crate::{TEXT, ask, get, json as body, publish, refusal, refused, start};

#[test]
fn the_settings_of_a_channel_have_the_names_of_the_configuration_file() {
    let prices = pushwheel_server::channel_options()
        .lag_policy(LagPolicy::Conflate)
        .history(History::NONE)
        .compress_from(1000)
        .index("role")
        .header("X-Room", "small")
        .unwrap();
    let config = Config::new().channel_options_for("price.*".parse().unwrap(), prices);
    let served = Served::start(config.engine());
    publish(&served, "/channels/news", TEXT, "x");
    publish(&served, "/channels/price.a?key=a", TEXT, "x");
    let settings = |channel: &str| body(&get(&served, &format!("/channels/{channel}/settings")));
    let news = json!({
        "pattern": null, "public": true, "raw": false, "finished_for": 60.0,
        "history_events": 1000, "history_bytes": 1 << 20, "history_age": 600.0,
        "heartbeat": 15.0, "max_clients_per_channel": null, "lag_policy": "disconnect",
        "keyed_events": 10_000, "keyed_bytes": 8 << 20, "keyed_age": null, "pace_ms": null,
        "backlog_bytes": 8 << 20, "max_event_bytes": 1 << 20, "stream_header": {},
        "compress_from_bytes": null, "metadata_index": [], "publish_rate": null,
    });
    assert_eq!(settings("news"), news);
    let price = settings("price.a");
    for (name, value) in [
        ("pattern", json!("price.*")),
        ("lag_policy", json!("conflate")),
        ("history_events", json!(0)),
        ("compress_from_bytes", json!(1000)),
        ("metadata_index", json!(["role"])),
        ("stream_header", json!({"X-Room": "small"})),
        ("max_event_bytes", json!(1 << 20)),
    ] {
        assert_eq!(price[name], value, "{name}");
    }
    assert_eq!(
        refusal(&get(&served, "/channels/absent/settings")),
        refused(404, "channel_not_found")
    );
    assert_eq!(body(&get(&served, "/channels")), json!(["news", "price.a"]));
}

/// A channel keeps some settings that a reload changes for new channels only.
#[test]
fn the_settings_are_those_that_apply_and_not_those_of_the_file() {
    let server = Config::new().server();
    let reloader = server.reloader.clone();
    let served = Served::start(server.engine);
    publish(&served, "/channels/old", TEXT, "x");
    let changed = ChannelOptions::new()
        .lag_policy(LagPolicy::Conflate)
        .compress_from(1)
        .max_clients(7);
    reloader.reload(&Config::new().channel_options_for("*".parse().unwrap(), changed));
    publish(&served, "/channels/new?key=a", TEXT, "x");
    let settings = |channel: &str| {
        let all = body(&get(&served, &format!("/channels/{channel}/settings")));
        let some = [
            "pattern",
            "lag_policy",
            "compress_from_bytes",
            "max_clients_per_channel",
        ];
        Value::from(some.map(|name| all[name].clone()).to_vec())
    };
    assert_eq!(settings("old"), json!(["*", "skip", null, 7]));
    assert_eq!(settings("new"), json!(["*", "conflate", 1, 7]));
}

#[test]
fn settings_tell_which_channels_need_a_token() {
    let secret = TokenKeys::secret(b"0123456789abcdef0123456789abcdef").unwrap();
    let config = Config::new()
        .admin_key(Key::new("admin-s3cret-of-tests").unwrap())
        .token_keys(secret)
        .public_for("open".parse().unwrap(), true);
    let served = Served::start(config.engine());
    let admin = [("Authorization", "Bearer admin-s3cret-of-tests")];
    for (channel, is_public) in [("open", true), ("closed", false)] {
        let path = format!("/channels/{channel}");
        assert_eq!(ask(&served, "POST", &path, &admin, "x").status, 200);
        let path = format!("{path}/settings");
        assert_eq!(
            body(&ask(&served, "GET", &path, &admin, ""))["public"],
            is_public
        );
        assert_eq!(refusal(&get(&served, &path)), refused(401, "key_missing"));
    }
}

#[test]
fn stats_have_the_figures_of_the_server_on_request() {
    let served = start();
    assert_eq!(body(&get(&served, "/stats")).get("server"), None);
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "x");
    stream.next();
    drop(stream);
    get(&served, "/channels/absent/clients");
    let server = || body(&get(&served, "/stats?totals&server"))["server"].clone();
    eventually("the stream has ended", || {
        server()["streams_ended"]["gone"] == 1
    });
    let server = server();
    for (name, value) in [
        ("ready", json!(true)),
        ("streams_opened", json!(1)),
        ("connections_refused", json!(0)),
        ("sends_by", json!("send")),
        ("rejections", json!({"channel_not_found": 1})),
    ] {
        assert_eq!(server[name], value, "{name}");
    }
    assert_eq!(server["streams_ended"]["lagged"], 0);
    assert!(server["loop_seconds"].as_f64() > Some(0.0));
    let latency = &server["delivery_latency"];
    assert_eq!(latency["count"], 1);
    let buckets = latency["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 1);
    assert_eq!(buckets[0]["count"], 1);
    assert!(buckets[0]["seconds_max"].as_f64() >= Some(64e-6));
    let whole = body(&get(&served, "/stats?server&top=0"));
    assert_eq!(whole["server"]["streams_opened"], 1);
    #[cfg(target_os = "linux")]
    for figure in [
        "memory_bytes",
        "cpu_seconds",
        "threads",
        "descriptors",
        "descriptors_max",
    ] {
        assert!(
            server["process"][figure].as_f64().is_some(),
            "{figure}: {server}"
        );
    }
}
