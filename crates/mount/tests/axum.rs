//! Mounted streams in axum: the extractor, the end of a program, and one port with an engine.

#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use futures_util::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, DisconnectReason, Engine, Event, HandedOver, History,
    Shutdown, Start, Subscription,
};
use pushwheel_mount::{EventStream, Mount, StreamRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Deadline of each wait. Only a test that fails waits for all of it.
const PATIENCE: Duration = Duration::from_secs(20);

fn news() -> (ChannelManager, Channel) {
    let options = ChannelOptions::new().history(History::events(100));
    let channels = ChannelManager::builder().defaults(options).build();
    let news = channels.get_or_create("news").unwrap();
    (channels, news)
}

/// The program: `/events` is a stream, and `/hello` is not.
fn app(mount: &Mount, news: &Channel, ends: mpsc::Sender<DisconnectReason>) -> Router {
    let news = news.clone();
    let events = async move |State(mount): State<Mount>, request: StreamRequest| {
        let subscription = Subscription::new(&news);
        let subscription = subscription.on_disconnect(move |_, reason| _ = ends.send(reason));
        mount.respond(request, subscription).await
    };
    let router = Router::new().route("/events", get(events));
    router
        .route("/hello", get(async || "hello"))
        .with_state(mount.clone())
}

/// Serves until `stopped`, as the program does.
async fn serve(app: Router, stopped: oneshot::Receiver<()>) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ended) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap() };
        let served = axum::serve(listener, app).with_graceful_shutdown(stopped);
        served.await.unwrap();
        sender.send(()).unwrap();
    });
    (address, ended)
}

/// Sends a request for a path.
async fn ask(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

const BROWSER: &str = "Accept: text/event-stream\r\n";

/// Reads until the text is there, or to the end. Returns all that was read.
async fn read_to(socket: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            if socket.read_buf(&mut all).await.unwrap() == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("it comes");
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_resumes_and_one_that_leaves_is_reported_once() {
    let (channels, news) = news();
    let mount = Mount::new(&channels).unwrap();
    let (sender, ends) = mpsc::channel();
    let (_stop, stopped) = oneshot::channel();
    let (address, _ended) = serve(app(&mount, &news, sender), stopped).await;
    let first = news.broadcast(Event::message("first")).unwrap().id.unwrap();
    news.broadcast(Event::message("second")).unwrap();

    let headers = format!("{BROWSER}Last-Event-ID: {first}\r\n");
    let mut client = ask(address, "/events", &headers).await;
    let text = read_to(&mut client, "data: second").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !text.contains("data: first"));
    assert!(
        text.contains("content-type: text/event-stream\r\n"),
        "{text}"
    );
    assert!(!text.to_ascii_lowercase().contains("connection:"), "{text}");
    let mut other = ask(address, &format!("/events?last_event_id={first}"), BROWSER).await;
    read_to(&mut other, "data: second").await;

    drop(client);
    let reason = tokio::task::spawn_blocking(move || {
        let reason = ends.recv_timeout(PATIENCE).unwrap();
        (reason, ends)
    });
    let (reason, ends) = reason.await.unwrap();
    assert_eq!(reason, DisconnectReason::Gone);
    news.broadcast(Event::message("third")).unwrap();
    read_to(&mut other, "data: third").await;
    assert!(ends.try_recv().is_err(), "it is reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_with_a_thousand_streams_ends_in_time() {
    const CLIENTS: usize = 1_000;
    let (channels, news) = news();
    let mount = Mount::new(&channels).unwrap();
    let (sender, ends) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let (address, mut ended) = serve(app(&mount, &news, sender), stopped).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = ask(address, "/events", BROWSER).await;
        read_to(&mut client, "\r\n\r\n").await;
        clients.push(client);
    }
    news.broadcast(Event::message("last")).unwrap();
    stop.send(()).unwrap();
    // Alone, axum waits for its streams.
    assert!(ended.try_recv().is_err());
    mount.shutdown(Shutdown::within(PATIENCE).window(Duration::from_millis(500)));
    timeout(PATIENCE, ended).await.expect("in time").unwrap();
    let mut delays = Vec::new();
    for mut client in clients {
        let text = read_to(&mut client, "\r\n0\r\n").await;
        assert!(text.contains("data: last"), "{text}");
        let (_, retry) = text.split_once("retry: ").expect("when to come back");
        delays.push(retry.lines().next().unwrap().to_owned());
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > CLIENTS / 2, "each has a delay of its own");
    assert_eq!(ends.iter().take(CLIENTS).count(), CLIENTS);

    // Later requests are answered, for a browser so that it comes back.
    let (parts, ()) = http::Request::new(()).into_parts();
    let response = mount
        .respond(StreamRequest::new(&parts), Subscription::new(&news))
        .await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let request = http::Request::builder().header("accept", "text/event-stream");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let response = mount
        .respond(StreamRequest::new(&parts), Subscription::new(&news))
        .await;
    assert_eq!(response.status(), 200);
    let bytes = pin!(response.into_body()).next().await.unwrap();
    assert!(bytes.starts_with(b"retry: "), "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_and_axum_share_a_port_and_kept_connections_stream_too() {
    let (channels, news) = news();
    let mount = Mount::new(&channels).unwrap();
    let (sender, _ends) = mpsc::channel();
    let app = app(&mount, &news, sender);
    let (stream, runtime) = (news.clone(), tokio::runtime::Handle::current());
    let engine = Engine::builder()
        .channels(&channels)
        .get("/events", move |_| Subscription::new(&stream))
        .hand_over(move |connection| {
            let app = app.clone();
            runtime.spawn(async move { serve_one(connection, app).await });
        });
    let engine = engine.bind("127.0.0.1:0").unwrap().spawn().unwrap();
    let address = engine.local_addr();

    let mut streaming = ask(address, "/events", BROWSER).await;
    read_to(&mut streaming, "\r\n\r\n").await;
    let mut kept = ask(address, "/hello", "").await;
    assert!(
        read_to(&mut kept, "hello")
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    // The next request of the same connection is for a stream.
    let request = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    kept.write_all(request.as_bytes()).await.unwrap();
    let text = read_to(&mut kept, "\r\n\r\n").await;
    assert!(text.contains("text/event-stream"), "{text}");
    assert_eq!(news.client_count(), 2);
    news.broadcast(Event::message("to both")).unwrap();
    for client in [&mut streaming, &mut kept] {
        read_to(client, "data: to both").await;
    }
    assert_eq!(engine.handle().connections(), 1, "the other one is axum's");
    engine.handle().shutdown(Duration::ZERO);
}

/// Serves a connection that the engine has handed over.
async fn serve_one(connection: HandedOver, app: Router) {
    let socket = TcpStream::from_std(connection.socket).unwrap();
    let (reading, writing) = tokio::io::split(socket);
    let reading = std::io::Cursor::new(connection.read).chain(reading);
    let io = TokioIo::new(tokio::io::join(reading, writing));
    let service = TowerToHyperService::new(app);
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(io, service)
        .await;
    drop(served);
}

#[tokio::test]
async fn a_stream_of_events_in_the_program_is_woken() {
    let (_channels, news) = news();
    let mut events = EventStream::open(&news, Start::Live).await.unwrap();
    for n in 0..100 {
        news.broadcast(Event::message(n.to_string())).unwrap();
        let event = timeout(PATIENCE, events.next()).await.expect("it comes");
        assert_eq!(event.unwrap().unwrap().event.data(), n.to_string());
    }
    news.finish(None).unwrap();
    assert_eq!(
        timeout(PATIENCE, events.next()).await.expect("it ends"),
        None
    );
}
