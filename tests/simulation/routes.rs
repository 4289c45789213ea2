//! The engine's routes in a simulation, whose callbacks tell the oracle.

use std::time::Duration;

use pushwheel::{ClientId, Request, Response, SinkOptions, Subscription};
use serde_json::json;

use super::client::{HELLO, LARGE_BYTES};
use super::oracle::To;
use super::{Shared, lock};

pub fn routes(engine: pushwheel::EngineBuilder, oracle: &Shared) -> pushwheel::EngineBuilder {
    let (events, later, sinks) = (oracle.clone(), oracle.clone(), oracle.clone());
    let subscribe = move |request: &Request| subscription(&events, request);
    let defer = move |request: &Request| {
        let subscription = subscription(&later, request);
        let oracle = later.clone();
        Response::deferred(move |responder| {
            lock(&oracle).responders.push((responder, subscription));
        })
    };
    let sink = move |request: &Request| {
        let number = number_of(request).expect("a sink's request has its number");
        let oracle = sinks.clone();
        let (buffer_max, beat_ms) = {
            let rng = &mut lock(&oracle).rng;
            (rng.usize(1..5_000), rng.u64(300..3_000))
        };
        let options = SinkOptions::new()
            .buffer_bytes_max(buffer_max)
            .heartbeat(Duration::from_millis(beat_ms));
        Response::stream_with(options, move |sink| {
            let mut oracle = lock(&oracle);
            let record = oracle.streams[number].sink.as_mut().expect("it is one");
            record.handle = Some(sink);
            record.is_opened = true;
            record.heartbeat_ms = beat_ms;
            oracle.count("sinks");
            oracle.feed(number);
        })
    };
    let large = "x".repeat(LARGE_BYTES);
    let engine = engine.get("/events", subscribe);
    let engine = engine.get("/later", defer).get("/sink", sink);
    let engine = engine.get("/hello", |_| HELLO);
    engine.get("/large", move |_| large.clone())
}

fn number_of(request: &Request) -> Option<usize> {
    request.query("stream")?.parse().ok()
}

/// What a subscriber asks for.
fn subscription(shared: &Shared, request: &Request) -> Response {
    let mut oracle = lock(shared);
    let mut topics = Vec::new();
    for (name, value) in request.query_pairs() {
        if name == "channel" {
            let topic = oracle.open(&value);
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
    }
    let mut channels = topics
        .iter()
        .map(|topic| oracle.topics[*topic].channel.clone());
    let first = channels.next().expect("a request names its channels");
    let mut subscription = channels.fold(Subscription::new(&first), |all, one| all.and(&one));
    let wait = request.query("wait");
    let wait_ms: Option<u64> = wait.map(|ms| ms.parse().expect("a number"));
    let Some(number) = number_of(request) else {
        return subscription.into();
    };
    if let Some(ms) = wait_ms {
        subscription = subscription.answer_once(Duration::from_millis(ms));
        // It may be answered before it joins.
        oracle.streams[number].topics.clone_from(&topics);
    }
    if let Some(id) = request.query("id") {
        subscription = subscription.client_id(ClientId::new(&id).unwrap());
    }
    if let Some(role) = oracle.role_of(number) {
        subscription = subscription.metadata(json!({"role": role, "n": number}));
    }
    // What callbacks do is drawn now.
    let welcomes = [0, 0, 0, 1, 3][oracle.rng.usize(0..5)];
    let welcomes = if wait_ms.is_some() { 0 } else { welcomes };
    let announces = oracle.rng.u32(0..20) == 0;
    let leaves_a_word = oracle.rng.u32(0..20) == 0;
    let kicks_itself = oracle.rng.u32(0..150) == 0;
    let expires_ms = oracle.endings.draw_expiry();
    oracle.streams[number].expires_ms = expires_ms;
    drop(oracle);
    if let Some(ms) = expires_ms {
        subscription = subscription.expires_in(Duration::from_millis(ms));
    }
    let (connect, disconnect) = (shared.clone(), shared.clone());
    let joins = topics.clone();
    let subscription = subscription
        .on_connect(move |info, welcome| {
            let mut oracle = lock(&connect);
            oracle.on_connect(number, joins.clone(), info);
            for _ in 0..welcomes {
                oracle.welcome(number, welcome);
            }
            if announces {
                oracle.publish(joins[0], To::All, 2);
            }
            if kicks_itself {
                oracle.kick(joins[0], &info.id.to_string());
            }
        })
        .on_disconnect(move |info, reason| {
            let mut oracle = lock(&disconnect);
            oracle.on_disconnect(number, info, reason);
            if leaves_a_word {
                oracle.publish(topics[0], To::All, 1);
            }
        });
    subscription.into()
}
