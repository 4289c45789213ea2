//! A program that embeds the engine, in a crate of its own and without the server:
//! channel, manager, guard, sink, hooks, reader, and a second engine. `run.sh` builds and
//! runs it; it checks itself and exits with 0.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use pushwheel::{
    ChannelManager, ChannelOptions, Engine, Event, History, Method, ReadError, Request, Response,
    Start, Subscription,
};
use serde_json::json;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The reader that a guard has found.
struct Reader(String);

fn main() -> Result<(), Error> {
    let options = ChannelOptions::new()
        .history(History::events(10))
        .heartbeat(Duration::from_secs(15));
    let channels = ChannelManager::builder().defaults(options).build();
    let news = channels.get_or_create("news")?;
    let (left, leavers) = mpsc::channel();

    let engine = Engine::builder()
        .channels(&channels)
        .guard(Method::Get, "/news/{reader}", |request: &mut Request| {
            let reader = request.param("reader").map(str::to_owned);
            request.extensions_mut().insert(Reader(reader?));
            None
        })
        .get("/news/{reader}", {
            let news = news.clone();
            move |request: &Request| {
                let reader = request.extensions().get::<Reader>();
                let reader = reader.map_or("", |reader| &reader.0);
                let left = left.clone();
                Subscription::new(&news)
                    .metadata(json!({ "reader": reader }))
                    .on_connect(|client, welcome| {
                        let greeting = format!("hello {}", client.metadata["reader"]);
                        let sent = welcome.send(Event::new("welcome", greeting));
                        assert_eq!(sent, Ok(()));
                    })
                    .on_disconnect(move |client, reason| {
                        let _ = left.send((client.metadata["reader"].clone(), reason));
                    })
            }
        })
        .get("/count", |_: &Request| {
            Response::stream(|sink| {
                std::thread::spawn(move || {
                    for n in 1..=3 {
                        sink.send(Event::new("count", n.to_string()))?;
                    }
                    sink.send(Event::new("done", ""))
                });
            })
        })
        .get("/failed", |_: &Request| {
            Ok::<_, Error>("seven".parse::<u8>()?.to_string())
        })
        .bind("127.0.0.1:0")?;
    let running = engine.spawn()?;
    let address = running.local_addr();

    let mut ann = subscribe(address, "/news/ann")?;
    assert_eq!(
        next_event(&mut ann)?,
        ["event: welcome", "data: hello \"ann\""]
    );
    let published = news.broadcast(Event::new("headline", "It works"))?;
    assert_eq!((published.clients, channels.total_clients()), (1, 1));
    let id = format!("id: {}", published.id.unwrap());
    assert_eq!(
        next_event(&mut ann)?,
        [&id, "event: headline", "data: It works"]
    );
    drop(ann);
    let (reader, reason) = leavers.recv_timeout(Duration::from_secs(10))?;
    println!("{reader} is {reason}");

    let mut counted = Vec::new();
    let mut count = subscribe(address, "/count")?;
    while let Ok(lines) = next_event(&mut count) {
        counted.extend(lines);
    }
    assert_eq!(counted.len(), 8, "three counts and the end: {counted:?}");

    let failed = subscribe(address, "/failed");
    assert!(failed.is_err(), "an error of the handler is no stream");

    running.shutdown(Duration::from_secs(5))?;

    // Without an engine, and with the next one.
    news.broadcast(Event::new("headline", "Still here"))?;
    let stored = news.read(Start::Earliest);
    let stored = stored.collect::<Result<Vec<_>, ReadError>>()?;
    let headlines: Vec<&str> = stored.iter().map(|stored| stored.event.data()).collect();
    assert_eq!(headlines, ["It works", "Still here"]);
    let stream = news.clone();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/news", move |_| Response::subscribe(&stream))
        .bind("127.0.0.1:0")?;
    let running = engine.spawn()?;
    let path = format!("/news?lastEventId={}", stored[0].id);
    let mut resumed = subscribe(running.local_addr(), &path)?;
    assert_eq!(
        next_event(&mut resumed)?[1..],
        ["event: headline", "data: Still here"]
    );
    running.shutdown(Duration::from_secs(5))?;
    println!("embedder: 1 passed, 0 failed");
    Ok(())
}

type Stream = BufReader<TcpStream>;

fn subscribe(address: SocketAddr, path: &str) -> std::io::Result<Stream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut stream = BufReader::new(socket);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(std::io::Error::other(line));
    }
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
    }
    Ok(stream)
}

/// The lines of the next event, which has data.
fn next_event(stream: &mut Stream) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end_matches('\n') {
            "" if lines.iter().any(|line: &String| line.starts_with("data:")) => return Ok(lines),
            "" => lines.clear(),
            // The line that keeps a stream alive; a parser ignores its field.
            "ping:" => {}
            text => lines.push(text.to_owned()),
        }
    }
}
