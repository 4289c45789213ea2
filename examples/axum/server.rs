//! Streams in an axum program, with a login, TLS and HTTP/2: a page of twenty rooms, with an
//! `EventSource` for each, all on one connection.
//!
//! `cargo run -p pushwheel-mount --all-features --example axum` prints the address to open.
//! The certificate is made at the start, so the browser warns.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use pushwheel::{ChannelManager, ChannelOptions, Event, History, Shutdown, Subscription};
use pushwheel_mount::{Mount, StreamRequest};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use uuid::Uuid;

const STYLE: &str = include_str!("../shared/style.css");

/// What the handlers share.
#[derive(Clone)]
struct App {
    mount: Mount,
    channels: ChannelManager,
    sessions: Arc<Mutex<HashMap<String, String>>>,
    /// The TCP connections that were accepted.
    connections: Arc<AtomicUsize>,
}

/// The user of a session: a handler that has it is only for users who have logged in.
struct User(String);

impl FromRequestParts<App> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<User, Self::Rejection> {
        let cookies = parts.headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split("; "));
        let session = pairs.find_map(|pair| pair.strip_prefix("session="));
        let sessions = app.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let user = session.and_then(|session| sessions.get(session));
        let user = user.ok_or((StatusCode::UNAUTHORIZED, "log in first\n"))?;
        Ok(User(user.clone()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = ChannelOptions::new().history(History::events(50));
    let channels = ChannelManager::builder().defaults(options).build();
    let app = App {
        mount: Mount::new(&channels)?,
        channels,
        sessions: Arc::default(),
        connections: Arc::default(),
    };
    let router = Router::new()
        .route("/", get(page))
        .route(
            "/style.css",
            get(([(header::CONTENT_TYPE, "text/css")], STYLE)),
        )
        .route("/login", post(log_in))
        .route("/rooms/{room}", get(listen).post(say))
        .route("/connections", get(connections))
        .with_state(app.clone());
    serve(router, &app, async {
        // Without a signal handler, the program runs until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
    .await
}

async fn page(user: Result<User, (StatusCode, &'static str)>) -> Html<&'static str> {
    match user {
        Ok(_) => Html(include_str!("page.html")),
        Err(_) => Html(include_str!("login.html")),
    }
}

/// `POST /login` with the name as `name=NAME`: a real program asks for a password.
async fn log_in(State(app): State<App>, form: String) -> impl IntoResponse {
    let name = form.strip_prefix("name=").unwrap_or("nobody").to_owned();
    let session = Uuid::new_v4().to_string();
    let cookie = format!("session={session}; Path=/; Secure; HttpOnly; SameSite=Lax");
    let mut sessions = app.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    sessions.insert(session, name);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/"))
}

/// `GET /rooms/{room}`: the stream of a room.
async fn listen(
    State(app): State<App>,
    Path(room): Path<usize>,
    User(name): User,
    Extension(peer): Extension<SocketAddr>,
    request: StreamRequest,
) -> impl IntoResponse {
    let room = app.channels.get_or_create(&format!("room.{room}"));
    let room = room.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let subscription = Subscription::new(&room)
        .metadata(json!({ "user": name }))
        .expires_in(Duration::from_secs(60 * 60));
    let response = app.mount.respond(request.peer(peer), subscription).await;
    Ok::<_, (StatusCode, String)>(response)
}

/// `POST /rooms/{room}`: publishes the body.
async fn say(
    State(app): State<App>,
    Path(room): Path<usize>,
    User(name): User,
    text: String,
) -> Result<String, (StatusCode, String)> {
    let refused = |error: &dyn Error| (StatusCode::BAD_REQUEST, error.to_string());
    let room = app.channels.get(&format!("room.{room}"));
    let room = room.ok_or((StatusCode::NOT_FOUND, "nobody listens\n".to_owned()))?;
    let published = room.broadcast(Event::message(format!("{name}: {text}")));
    let published = published.map_err(|error| refused(&error))?;
    Ok(format!("sent to {}\n", published.clients))
}

/// `GET /connections`: the TCP connections that were accepted.
async fn connections(State(app): State<App>) -> String {
    app.connections.load(Relaxed).to_string()
}

/// Serves HTTP/1.1 and HTTP/2 over TLS until `stopped`, then ends all streams within ten
/// seconds, each at a moment of its own.
async fn serve(
    router: Router,
    app: &App,
    stopped: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error>> {
    let (listener, tls) = (TcpListener::bind(address()).await?, tls()?);
    announce(listener.local_addr()?);
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopped);
    loop {
        let (socket, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut stopped => break,
        };
        app.connections.fetch_add(1, Relaxed);
        let (tls, watcher) = (tls.clone(), graceful.watcher());
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
        tokio::spawn(async move {
            // A browser that does not accept the certificate closes the connection.
            let Ok(socket) = tls.accept(socket).await else {
                return;
            };
            let builder = Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            // A connection that breaks concerns only its client.
            let _ = watcher.watch(connection.into_owned()).await;
        });
    }
    let within = Duration::from_secs(10);
    app.mount
        .shutdown(Shutdown::within(within).window(within / 2));
    graceful.shutdown().await;
    Ok(())
}

/// A certificate for this run.
fn tls() -> Result<TlsAcceptor, Box<dyn Error>> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The address: `--listen ADDRESS`, otherwise port 3443 on loopback.
fn address() -> String {
    let mut words = std::env::args().skip_while(|word| word != "--listen");
    words.nth(1).unwrap_or_else(|| "127.0.0.1:3443".to_owned())
}

#[allow(clippy::print_stdout, reason = "it says where to look")]
fn announce(address: SocketAddr) {
    println!("open https://{address}/");
}
