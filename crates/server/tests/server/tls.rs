//! `pub` and `sub` over TLS, and their errors.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::commands::run;

/// Returns a file of `tests/server/tls`.
pub(super) fn file(name: &str) -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/tls");
    format!("{directory}/{name}.pem")
}

/// Serves TLS with a certificate, and answers each request as a publish. Returns the
/// URL of a channel.
fn serve(certificate: &str) -> String {
    const BODY: &str = r#"{"id":"k-1","events":1,"clients":0}"#;
    serve_with(certificate, b"}", BODY)
}

/// Serves TLS with a certificate, and answers each GET with a text.
pub(super) fn serve_text(certificate: &str, text: &'static str) -> String {
    serve_with(certificate, b"\r\n\r\n", text)
}

fn serve_with(certificate: &str, end: &'static [u8], body: &'static str) -> String {
    let certificate = CertificateDer::from_pem_file(file(certificate)).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            // A client that does not trust the certificate ends the connection.
            let _ = answer(&mut Stream::new(&mut connection, &mut socket), end, body);
        }
    });
    format!("https://localhost:{port}/channels/news")
}

/// Answers a request whose last bytes are `end`.
fn answer(stream: &mut (impl Read + Write), end: &[u8], body: &str) -> std::io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(end) {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.flush()
}

#[test]
fn what_is_wrong_with_tls_is_said_in_words() {
    let authority = file("ca");
    let trusting = ["--cacert", &authority];
    let plain = crate::start();
    let plain = format!("https://localhost:{}/channels/a", plain.address().port());
    for (url, options, cause) in [
        (
            serve("localhost"),
            &[][..],
            "the server's certificate is not trusted",
        ),
        (
            serve("other"),
            &trusting,
            "the server's certificate is for another host name",
        ),
        (
            serve("expired"),
            &trusting,
            "the server's certificate has expired",
        ),
        (plain, &trusting, "the server does not speak TLS"),
    ] {
        for command in [&["pub", &url, "", "x"][..], &["sub", &url]] {
            let output = run(&[command, options].concat());
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains(&format!(" ({cause}). ")),
                "{command:?}: {said}"
            );
            let has_debug_output = ["Error(", "Invalid", "Other("]
                .iter()
                .any(|text| said.contains(text));
            assert!(!has_debug_output, "{said}");
        }
    }
}

#[test]
fn a_certificate_is_trusted_by_a_setting() {
    let (url, authority) = (serve("localhost"), file("ca"));
    for options in [&["--cacert", &authority][..], &["--insecure"]] {
        let output = run(&[&["pub", &url, "", "x"], options].concat());
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("k-1"));
    }
}
