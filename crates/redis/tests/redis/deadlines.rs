//! Each call ends by its time, whatever the server does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pushwheel::cluster::{BrokerError, SharedLog};
use pushwheel_redis::{RedisLog, RedisOptions, TlsFiles};

use crate::server::{Server, TIMEOUT, block, free_port, log_at, newcomer, reader, writer};
use crate::tls::file;

/// The time for a call here.
const SHORT: Duration = Duration::from_millis(300);

/// The time that a call may take in a test. Without a deadline it never ends.
const BUSY_MACHINE: Duration = Duration::from_secs(10);

/// A server that treats each connection in its own way.
fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (answer, socket) = (answer.clone(), socket.unwrap());
            thread::spawn(move || answer(socket));
        }
    });
    port
}

#[track_caller]
fn ends_in_time(log: &RedisLog, part: &str) {
    let began = Instant::now();
    let error = log.open_writer(&newcomer(), SHORT).map(drop).unwrap_err();
    let took = began.elapsed();
    assert!(took < BUSY_MACHINE, "{took:?}");
    assert!(
        matches!(error, BrokerError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(part), "{error}");
}

/// Accepts, and waits until the peer closes.
fn say_nothing(mut socket: TcpStream) {
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

#[test]
fn a_server_that_accepts_and_never_answers() {
    let port = serve(say_nothing);
    ends_in_time(
        &log_at(&format!("redis://127.0.0.1:{port}")),
        "no reply in time",
    );
    let options = RedisOptions::new().tls(TlsFiles {
        authorities: Some(file("ca")),
        identity: None,
    });
    let url = format!("rediss://localhost:{port}").parse().unwrap();
    let log = RedisLog::new(url, &options).unwrap();
    ends_in_time(&log, "in time");
}

#[test]
fn a_server_that_sends_a_byte_now_and_then() {
    let port = serve(|mut socket| {
        while socket.write_all(b"+").is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    ends_in_time(
        &log_at(&format!("redis://127.0.0.1:{port}")),
        "no reply in time",
    );
}

#[test]
fn a_server_that_stops_in_the_middle_of_a_reply() {
    let port = serve(|mut socket| {
        let _ = socket.write_all(b"+OK\r\n$100\r\nredis_version:7");
        say_nothing(socket);
    });
    ends_in_time(
        &log_at(&format!("redis://127.0.0.1:{port}")),
        "no reply in time",
    );
}

#[test]
fn a_server_that_closes_in_the_middle_of_a_reply() {
    let port = serve(|mut socket| {
        let _ = socket.read(&mut [0; 8]);
        let _ = socket.write_all(b"+OK\r\n$100\r\nredis_version:7");
    });
    ends_in_time(&log_at(&format!("redis://127.0.0.1:{port}")), "");
}

#[test]
fn a_server_of_another_protocol() {
    let port = serve(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        say_nothing(socket);
    });
    let log = log_at(&format!("redis://127.0.0.1:{port}"));
    ends_in_time(&log, "not that of a Redis server");
}

#[test]
fn a_server_that_does_not_listen() {
    let log = log_at(&format!("redis://127.0.0.1:{}", free_port()));
    ends_in_time(&log, "refused");
}

#[test]
fn a_server_that_stands_still() {
    let server = Server::start();
    let log = server.log();
    let (mut writer, _) = writer(&log);
    let mut reader = reader(&log);
    server.signal("-STOP");
    let began = Instant::now();
    let append = writer.append(block(1, 1, b"x"), SHORT);
    assert!(
        matches!(append, Err(BrokerError::Unreachable { .. })),
        "{append:?}"
    );
    let read = reader.read(0, 1 << 20, SHORT, SHORT, &mut Vec::new());
    assert!(
        matches!(read, Err(BrokerError::Unreachable { .. })),
        "{read:?}"
    );
    assert!(began.elapsed() < BUSY_MACHINE);
    server.signal("-CONT");
    // A late reply is not taken for that of the next call.
    let append = writer.append(block(2, 1, b"y"), TIMEOUT);
    assert!(append.unwrap_err().to_string().contains("failed before"));
    let (mut writer, _) = crate::server::writer(&log);
    assert!(writer.append(block(1, 1, b"x"), TIMEOUT).is_ok());
}

/// Passes bytes on to a server until it is told to stop.
fn forward(port: u16, stop: &Receiver<()>, passed: &Sender<TcpStream>, near: TcpStream) {
    let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut near_in, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    passed.send(far.try_clone().unwrap()).unwrap();
    thread::spawn(move || {
        let _ = std::io::copy(&mut near_in, &mut far_out);
    });
    let (mut far, mut near) = (far, near);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = far.read(&mut buffer) {
        if stop.try_recv().is_ok() || near.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = near.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_block_whose_answer_is_lost_is_there_when_it_is_sent_again() {
    let server = Server::start();
    let (stop, stopped) = channel();
    let (passed, _connections) = channel();
    let (stopped, passed) = (
        std::sync::Mutex::new(stopped),
        std::sync::Mutex::new(passed),
    );
    let to = server.port;
    let port = serve(move |near| {
        let (stop, passed) = (stopped.lock().unwrap(), passed.lock().unwrap().clone());
        forward(to, &stop, &passed, near);
    });
    let log = log_at(&format!("redis://127.0.0.1:{port}"));
    let (mut cut, welcome) = writer(&log);
    stop.send(()).unwrap();
    let lost = cut.append(block(1, 1, b"x"), TIMEOUT);
    assert!(
        matches!(lost, Err(BrokerError::Unreachable { .. })),
        "{lost:?}"
    );
    let (mut again, _) = writer(&log);
    let appended = again.append(block(1, 1, b"x"), TIMEOUT).unwrap();
    assert_eq!((appended.first, appended.was_there), (welcome.next, true));
}
