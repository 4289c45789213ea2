//! An engine's routes, mounted in a server of hyper, behind a gateway for the clients of
//! the tests.
//!
//! ```text
//! client ── HTTP/1.1, one request for each connection ──► gateway
//! gateway ── HTTP/1.1, or HTTP/2 with TLS ──► hyper ──► mount
//! ```
//!
//! The gateway and the system's buffers hold as little as they can, so that a client that
//! reads nothing is one for the mount too.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pushwheel::{Channel, ChannelManager, ChannelOptions, EngineBuilder, EngineHandle, Shutdown};
use pushwheel_mount::{Body, Mount, StreamRequest};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::engine_common::{Connection, Subscriber, eventually};

/// The size of the system's buffers: two of the large segments that a loopback device has, so
/// that none waits for room.
const BUFFER_BYTES: u32 = 128 << 10;
/// The window of a stream of HTTP/2.
const WINDOW_BYTES: u32 = 64 << 10;

pub type Http1 = Front<false>;
pub type Http2 = Front<true>;

/// Stands for an engine on a free port of this machine.
#[derive(Debug)]
pub struct Front<const HTTP2: bool> {
    mount: Mount,
    address: SocketAddr,
    /// It ends its tasks when it is dropped.
    _runtime: Runtime,
}

impl<const HTTP2: bool> Front<HTTP2> {
    pub fn start(builder: EngineBuilder) -> Self {
        let mount = Mount::from(builder.mount().expect("there is a thread to be had"));
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let tls = Tls::new();
        let (server, gateway) = runtime.block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            (listener(any), listener(any))
        });
        let address = gateway.local_addr().unwrap();
        let upstream = server.local_addr().unwrap();
        runtime.spawn(serve(
            server,
            mount.clone(),
            HTTP2.then(|| tls.acceptor.clone()),
        ));
        runtime.spawn(forward(gateway, upstream, HTTP2.then_some(tls.connector)));
        Front {
            mount,
            address,
            _runtime: runtime,
        }
    }

    pub fn channel(options: ChannelOptions) -> (Self, Channel) {
        let channels = ChannelManager::builder().defaults(options);
        let channels = channels.republish_window(Duration::ZERO).build();
        let channel = channels.get_or_create("news").unwrap();
        let stream = channel.clone();
        let builder = pushwheel::Engine::builder()
            .channels(&channels)
            .get("/stream", move |_| pushwheel::Subscription::new(&stream));
        (Self::start(builder), channel)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn channels(&self) -> &ChannelManager {
        self.mount.channels()
    }

    pub fn handle(&self) -> EngineHandle {
        self.mount.handle()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub fn subscribe(&self, path: &str) -> Subscriber {
        Subscriber::open(self.address, path, &[])
    }

    pub fn resubscribe(&self, path: &str, last_event_id: &str) -> Subscriber {
        Subscriber::open(self.address, path, &[("Last-Event-ID", last_event_id)])
    }

    pub fn shutdown(&self, how: impl Into<Shutdown>) {
        self.mount.shutdown(how);
    }

    /// Waits until the mount's thread has come to its end.
    pub fn join(self) {
        let handle = self.mount.handle();
        eventually("the mount ends", || !handle.responds_within(Duration::ZERO));
    }
}

fn listener(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(BUFFER_BYTES).unwrap();
    socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(4096).unwrap()
}

/// The program's server.
async fn serve(listener: TcpListener, mount: Mount, tls: Option<TlsAcceptor>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (mount, tls) = (mount.clone(), tls.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(mount.clone(), request));
            match tls {
                None => {
                    let server = hyper::server::conn::http1::Builder::new();
                    let served = server.serve_connection(TokioIo::new(socket), answer).await;
                    drop(served);
                }
                Some(tls) => {
                    let Ok(socket) = tls.accept(socket).await else {
                        return;
                    };
                    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    server
                        .max_send_buf_size(BUFFER_BYTES as usize)
                        .timer(TokioTimer::new());
                    let served = server.serve_connection(TokioIo::new(socket), answer).await;
                    drop(served);
                }
            }
        });
    }
}

async fn answer(
    mount: Mount,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let local = ([127, 0, 0, 1], 9).into();
    let request = StreamRequest::new(&parts).peer(local).body(body);
    Ok(mount.call(request).await)
}

/// The gateway.
async fn forward(listener: TcpListener, upstream: SocketAddr, tls: Option<TlsConnector>) {
    while let Ok((socket, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move { exchange(socket, upstream, tls).await });
    }
}

/// Forwards one request. Returns `None` if the client or the server has gone.
async fn exchange(
    mut client: TcpStream,
    upstream: SocketAddr,
    tls: Option<TlsConnector>,
) -> Option<()> {
    let request = read_request(&mut client).await?;
    let server = TcpStream::connect(upstream).await.ok()?;
    server.set_nodelay(true).ok()?;
    let buffers = SockRef::from(&server);
    buffers.set_recv_buffer_size(BUFFER_BYTES as usize).ok()?;
    buffers.set_send_buffer_size(BUFFER_BYTES as usize).ok()?;
    let response = match tls {
        None => {
            let client = hyper::client::conn::http1::Builder::new();
            let handshake = client.handshake(TokioIo::new(server)).await;
            let (mut sender, connection) = handshake.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await.ok()?
        }
        Some(tls) => {
            let name = ServerName::try_from("localhost").ok()?;
            let server = tls.connect(name, server).await.ok()?;
            let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            client.initial_stream_window_size(WINDOW_BYTES);
            let (mut sender, connection) = client.handshake(TokioIo::new(server)).await.ok()?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await.ok()?;
            assert_eq!(response.version(), hyper::Version::HTTP_2);
            response
        }
    };
    let (head, mut body) = response.into_parts();
    let mut bytes = format!("HTTP/1.1 {}\r\nConnection: close\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        assert!(name != "connection", "it is the server's");
        if name != "transfer-encoding" {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
    }
    bytes.extend_from_slice(b"\r\n");
    let (mut reading, mut writing) = client.split();
    let copy = async {
        writing.write_all(&bytes).await.ok()?;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                writing.write_all(&data).await.ok()?;
            }
        }
        writing.shutdown().await.ok()
    };
    // The client sends nothing more: what is read is its end.
    let leave = async {
        let mut byte = [0; 64];
        while reading.read(&mut byte).await.ok()? > 0 {}
        None
    };
    tokio::select! {
        done = copy => done,
        gone = leave => gone,
    }
}

async fn read_request(client: &mut TcpStream) -> Option<hyper::Request<Full<Bytes>>> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = head.parse(&bytes).ok()? {
            let mut request = hyper::Request::builder()
                .method(head.method?)
                .uri(head.path?);
            let mut body_bytes = 0;
            for header in &*head.headers {
                let is_it = |name: &str| header.name.eq_ignore_ascii_case(name);
                if is_it("content-length") {
                    body_bytes = str::from_utf8(header.value).ok()?.parse().ok()?;
                } else if !is_it("connection") {
                    request = request.header(header.name, header.value);
                }
            }
            let mut body = bytes.split_off(length);
            while body.len() < body_bytes {
                client
                    .read_buf(&mut body)
                    .await
                    .ok()
                    .filter(|count| *count > 0)?;
            }
            return request.body(Full::from(body)).ok();
        }
        client
            .read_buf(&mut bytes)
            .await
            .ok()
            .filter(|count| *count > 0)?;
    }
}

/// A certificate of this run's own, and both ends that use it.
struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    fn new() -> Tls {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth();
        let mut server = server
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        Tls {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        }
    }
}
