//! The servers that are measured. Each streams `/events`, and publishes so many events of
//! 128 bytes at `/publish/{count}`. `axum` also publishes what is posted to `/events`, for
//! `benches/peers`.

mod floor;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use pushwheel::{Channel, ChannelManager, ChannelOptions, Engine, Event, HandedOver, Subscription};
use pushwheel_mount::{Mount, StreamRequest};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// The last byte of each event's data, which occurs nowhere else.
pub(crate) const END: u8 = b'Z';

/// Events that axum's channel holds: enough for each subscriber to miss none.
const BROADCAST_EVENTS: usize = 1024;

pub(crate) fn data() -> String {
    format!("{}{}", "x".repeat(127), char::from(END))
}

/// Serves until it is killed, with so many seconds between heartbeats.
pub(crate) fn run(kind: &str, heartbeat: Duration) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match kind {
            "mount" => serve(mounted(heartbeat)).await,
            "axum" => serve(broadcasting(heartbeat)).await,
            "floor" => serve(floor::router()).await,
            "engine" => engine(false),
            "one-port" => engine(true),
            other => panic!("there is no server `{other}`"),
        }
    });
}

async fn serve(app: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

/// What the handlers of a mount need. They share it, as those of axum's server share the
/// sender: a handler's own values are copied for each connection.
struct App {
    mount: Mount,
    news: Channel,
}

fn mounted(heartbeat: Duration) -> Router {
    let options = ChannelOptions::default().heartbeat(heartbeat);
    let channels = ChannelManager::builder().defaults(options).build();
    let news = channels.get_or_create("news").unwrap();
    let mount = Mount::new(&channels).unwrap();
    let events = async |State(app): State<Arc<App>>, request: StreamRequest| {
        let stream = Subscription::new(&app.news);
        app.mount.respond(request, stream).await
    };
    let publish = async |State(app): State<Arc<App>>, Path(count): Path<usize>| {
        publish(&app.news, count);
    };
    Router::new()
        .route("/events", get(events))
        .route("/publish/{count}", post(publish))
        .with_state(Arc::new(App { mount, news }))
}

fn publish(news: &Channel, count: usize) {
    let events = (0..count).map(|_| Event::new("tick", data()));
    news.broadcast_batch(events.collect::<Vec<_>>()).unwrap();
}

fn broadcasting(heartbeat: Duration) -> Router {
    let (sender, _) = broadcast::channel::<(u64, String)>(BROADCAST_EVENTS);
    let subscribe = sender.clone();
    let events = async move || {
        let receiver = subscribe.subscribe();
        let events = futures_util::stream::unfold(receiver, async |mut receiver| {
            let (id, data) = receiver.recv().await.ok()?;
            let event = SseEvent::default()
                .event("tick")
                .id(id.to_string())
                .data(data);
            Some((Ok::<_, Infallible>(event), receiver))
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat))
    };
    let newest = Arc::new(AtomicU64::new(0));
    let posted = sender.clone();
    let publish_one = async move |data: String| {
        // An event before the first subscriber has no receiver.
        let _ = posted.send((newest.fetch_add(1, Ordering::Relaxed), data));
    };
    let publish = async move |Path(count): Path<u64>| {
        for id in 0..count {
            sender.send((id, data())).unwrap();
        }
    };
    let router = Router::new().route("/events", get(events).post(publish_one));
    router.route("/publish/{count}", post(publish))
}

/// An engine, alone or with axum on its port.
fn engine(has_axum: bool) {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let stream = news.clone();
    let publisher = news.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/events", move |_| Subscription::new(&stream));
    let builder = match has_axum {
        true => {
            let publish = async move |Path(count): Path<usize>| publish(&publisher, count);
            let app: Router = Router::new().route("/publish/{count}", post(publish));
            let runtime = tokio::runtime::Handle::current();
            builder.hand_over(move |connection| {
                let app = app.clone();
                runtime.spawn(async move { serve_one(connection, app).await });
            })
        }
        false => builder.post("/publish/{count}", move |request| {
            let count = request.param("count").and_then(|count| count.parse().ok());
            publish(&publisher, count.unwrap_or_default());
            "published"
        }),
    };
    let engine = builder.bind("127.0.0.1:0").unwrap();
    println!("{}", engine.local_addr());
    engine.run().unwrap();
}

/// Serves a connection that the engine has handed over.
async fn serve_one(connection: HandedOver, app: Router) {
    let socket = tokio::net::TcpStream::from_std(connection.socket).unwrap();
    let (reading, writing) = tokio::io::split(socket);
    let reading = tokio::io::AsyncReadExt::chain(std::io::Cursor::new(connection.read), reading);
    let io = TokioIo::new(tokio::io::join(reading, writing));
    let service = TowerToHyperService::new(app);
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(io, service)
        .await;
    drop(served);
}
