//! A typical server of event streams: a thread for each connection, in the test's process.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;

/// The recipients, and the number of events.
#[derive(Default)]
struct Subscribers {
    streams: Vec<TcpStream>,
    published: u64,
}

pub(crate) struct PlainServer {
    address: SocketAddr,
}

pub(crate) const EVENT_STREAM: &str = "text/event-stream";

impl PlainServer {
    /// Streams have this type, and events the id that `id` makes of their number.
    pub(crate) fn start(content_type: &'static str, id: fn(u64) -> String) -> PlainServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let subscribers = Arc::new(Mutex::new(Subscribers::default()));
            for stream in listener.incoming().map_while(Result::ok) {
                let subscribers = subscribers.clone();
                thread::spawn(move || serve(stream, &subscribers, content_type, id));
            }
        });
        PlainServer { address }
    }

    /// Returns the arguments with which `pushwheel bench` uses it.
    pub(crate) fn arguments(&self) -> String {
        let (address, id) = (self.address, process::id());
        format!("--url http://{address}/ --publish-url http://{address}/ --pid {id}")
    }
}

/// Answers requests until the peer closes.
fn serve(
    stream: TcpStream,
    subscribers: &Mutex<Subscribers>,
    content_type: &str,
    id: fn(u64) -> String,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((method, body)) = request(&mut reader) {
        let mut subscribers = subscribers.lock().unwrap();
        if method == "GET" {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n");
            writer.write_all(head.as_bytes()).unwrap();
            subscribers.streams.push(writer.try_clone().unwrap());
            continue;
        }
        subscribers.published += 1;
        let id = id(subscribers.published);
        let event = format!("{id}data: {}\n\n", String::from_utf8_lossy(&body));
        // Removes clients that have disconnected.
        let sent = |stream: &mut TcpStream| stream.write_all(event.as_bytes()).is_ok();
        subscribers.streams.retain_mut(sent);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let _ = writer.write_all(answer);
    }
}

/// Returns the method and the body of the next request, if there is one.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let method = lines.next()?.split(' ').next()?.to_owned();
    let head = lines.take_while(|line| !line.is_empty());
    let lengths = head.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse::<usize>().unwrap())
    });
    let mut body = vec![0; lengths.sum()];
    reader.read_exact(&mut body).ok()?;
    Some((method, body))
}
