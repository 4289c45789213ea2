//! The headers of responses: a channel's, a subscription's, a stream's.

use pushwheel::{
    ChannelManager, ChannelOptions, Engine, EngineBuilder, HeaderError, Headers, Request, Response,
    Subscription,
};

use crate::common::{Connection, Served, eventually, receive};

#[test]
fn headers_of_the_channel_the_subscription_and_the_engine_are_on_the_response() {
    let channels = ChannelManager::new();
    let options = ChannelOptions::new().header("X-Channel", "news").unwrap();
    let news = channels.get_or_create_with("news", || options).unwrap();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.header("X-Engine", "pushwheel");
    let builder = builder.get("/stream", move |_| -> Result<Response, HeaderError> {
        let subscription = Subscription::new(&news).header("X-Subscription", "ann's")?;
        Response::from(subscription).with_header("X-Response", "grüße, \"quoted\"")
    });
    let served = Served::start(builder);
    let client = served.subscribe("/stream");
    for (name, value) in [
        ("X-Channel", "news"),
        ("X-Engine", "pushwheel"),
        ("X-Subscription", "ann's"),
        ("X-Response", "grüße, \"quoted\""),
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
        ("Connection", "close"),
    ] {
        assert_eq!(client.head.header(name), Some(value));
    }
}

#[test]
fn headers_of_a_stream_for_one_client_are_on_its_response() {
    let (sender, sinks) = std::sync::mpsc::channel();
    let builder = Engine::builder().get("/stream", move |_| {
        let sender = sender.clone();
        Response::stream(move |sink| sender.send(sink).unwrap()).with_header("X-Task", "7")
    });
    let served = Served::start(builder);
    let client = served.subscribe("/stream");
    assert_eq!(client.head.header("x-task"), Some("7"));
    drop(receive(&sinks));
}

#[test]
fn headers_of_every_channel_are_on_the_response_whatever_it_comes_to() {
    let channels = ChannelManager::new();
    let make = |name: &'static str| {
        let options = ChannelOptions::new().header("X-Shared", "all").unwrap();
        let options = options.header("X-Channel", name).unwrap().max_clients(1);
        channels.get_or_create_with(name, || options).unwrap()
    };
    let [second, first] = ["second", "first"].map(make);
    let both = [first.clone(), second];
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| {
            let both = Subscription::new(&both[0]).and(&both[1]);
            both.header("Access-Control-Allow-Origin", "*")
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    let mut heads = Vec::new();
    let mut ask = |connection: &mut Connection, method: &str, accept: &str| {
        connection.send(format!(
            "{method} /stream HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n"
        ));
        heads.push(connection.head());
    };
    ask(&mut served.connect(), "HEAD", "*/*");
    ask(&mut connection, "GET", "text/event-stream");
    // There is no room, neither for a browser nor for another client.
    ask(&mut served.connect(), "GET", "text/event-stream");
    ask(&mut served.connect(), "GET", "*/*");
    channels.get("second").unwrap().finish(None).unwrap();
    first.finish(None).unwrap();
    eventually("its clients have left", || first.client_count() == 0);
    ask(&mut served.connect(), "GET", "text/event-stream");
    let statuses: Vec<u16> = heads.iter().map(|head| head.status).collect();
    assert_eq!(statuses, [200, 200, 200, 503, 204]);
    for head in heads {
        assert_eq!(head.all("x-shared"), ["all"]);
        assert_eq!(head.all("x-channel"), ["first", "second"]);
        assert_eq!(head.all("access-control-allow-origin"), ["*"]);
        assert!(head.all("content-type").len() < 2);
    }
}

fn header_error(builder: EngineBuilder) -> Option<HeaderError> {
    let error = builder.bind("127.0.0.1:0").err()?.into_inner()?;
    error.downcast().ok().map(|error| *error)
}

/// Every place that accepts a header.
fn add(name: &'static str, value: &'static str) -> [Option<HeaderError>; 6] {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    [
        ChannelOptions::new().header(name, value).err(),
        Subscription::new(&news).header(name, value).err(),
        Response::text("").with_header(name, value).err(),
        header_error(Engine::builder().header(name, value)),
        Headers::new().insert(name, value).err(),
        Headers::new().append(name, value).err(),
    ]
}

#[test]
fn headers_cannot_break_the_framing() {
    for value in ["a\r\nX-Evil: b", "a\nb", "a\rb", "a\0b", "\r\n\r\ndata: x"] {
        let error = HeaderError::InvalidValue("X-Name".into());
        assert_eq!(add("X-Name", value), [(); 6].map(|()| Some(error.clone())));
    }
    for name in ["", "X Name", "X-Name:", "X-Name\r\nX-Evil", "naïve"] {
        let error = HeaderError::InvalidName(name.into());
        assert_eq!(add(name, "x"), [(); 6].map(|()| Some(error.clone())));
    }
    for name in [
        "Connection",
        "content-length",
        "Date",
        "Keep-Alive",
        "Trailer",
        "TRANSFER-ENCODING",
        "Upgrade",
    ] {
        let error = HeaderError::Reserved(name.into());
        assert_eq!(add(name, "x"), [(); 6].map(|()| Some(error.clone())));
    }
    assert_eq!(add("X-Name", "fine"), [const { None }; 6]);
}

#[test]
fn headers_that_cannot_be_are_answered_500_when_a_handler_leaves_with_them() {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let handler = move |request: &Request| -> Result<Subscription, Response> {
        let value = request.query("value").unwrap().into_owned();
        Ok(Subscription::new(&news).header("X-Name", value)?)
    };
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", handler);
    let served = Served::start(builder);
    let mut connection = served.connect();
    let answer = connection.get("/stream?value=a%0D%0AX-Evil:%20b");
    assert_eq!((answer.status, answer.header("x-evil")), (500, None));
    assert_eq!(answer.error_code(), "internal_error");
    let client = served.subscribe("/stream?value=fine");
    assert_eq!(client.head.header("x-name"), Some("fine"));
}

#[test]
fn headers_do_not_make_a_stream_anything_but_a_stream() {
    let channels = ChannelManager::new();
    let rejected = Some(HeaderError::StreamContentType);
    let options = ChannelOptions::new().header("Content-Type", "text/html");
    assert_eq!(options.err(), rejected);
    let news = channels.get_or_create("news").unwrap();
    let subscription = Subscription::new(&news).header("CONTENT-TYPE", "image/png");
    assert_eq!(subscription.err(), rejected);
    let response = Response::subscribe(&news).with_header("Content-type", "font/woff");
    assert_eq!(response.err(), rejected);
    // The engine's own header is for all responses that have no other.
    let builder = Engine::builder()
        .channels(&channels)
        .header("content-type", "text/plain")
        .get("/stream", move |_| Response::subscribe(&news));
    let served = Served::start(builder);
    let mut connection = served.connect();
    connection.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.head().all("content-type"), ["text/event-stream"]);
    let client = served.subscribe("/stream");
    assert_eq!(client.head.all("content-type"), ["text/event-stream"]);
}
