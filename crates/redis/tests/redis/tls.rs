//! TLS to a server. The certificates are those of the tests of `pub` and `sub`.

use std::path::PathBuf;
use std::process::Command;

use pushwheel::cluster::{BrokerError, SharedLog};
use pushwheel_redis::{OptionsError, RedisLog, RedisOptions, TlsFiles};

use crate::server::{
    Server, TIMEOUT, TemporaryDirectory, block, eventually, free_port, newcomer, read_all, reader,
    writer,
};

pub(crate) fn file(name: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/server/tls");
    PathBuf::from(format!("{directory}/{name}.pem"))
}

/// Starts a server with this certificate, and returns its port for TLS.
fn serve(certificate: &str) -> (Server, u16) {
    serve_with(certificate, &["--tls-auth-clients", "no"])
}

fn serve_with(certificate: &str, more: &[&str]) -> (Server, u16) {
    let port = free_port().to_string();
    let path = |name| file(name).to_str().unwrap().to_owned();
    let (certificate, key, ca) = (path(certificate), path("key"), path("ca"));
    let files = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    let server = Server::with(&[&files, more].concat());
    let port = port.parse().unwrap();
    eventually("it listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (server, port)
}

fn log(host: &str, port: u16, files: TlsFiles) -> RedisLog {
    let url = format!("rediss://{host}:{port}").parse().unwrap();
    RedisLog::new(url, &RedisOptions::new().tls(files)).unwrap()
}

fn own_authority() -> TlsFiles {
    TlsFiles {
        authorities: Some(file("ca")),
        identity: None,
    }
}

#[test]
fn a_certificate_of_an_own_authority_is_accepted() {
    let (_server, port) = serve("localhost");
    let log = log("localhost", port, own_authority());
    assert_eq!(log.address(), format!("rediss://localhost:{port}"));
    let (mut writer, _) = writer(&log);
    let large = vec![b'x'; 300 << 10];
    writer.append(block(1, 1, &large), TIMEOUT).unwrap();
    assert_eq!(read_all(&mut *reader(&log), 0).unwrap()[0].bytes, large);
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_refused() {
    for (certificate, host, files) in [
        ("localhost", "localhost", TlsFiles::default()),
        ("localhost", "127.0.0.1", own_authority()),
        ("expired", "localhost", own_authority()),
    ] {
        let (_server, port) = serve(certificate);
        let log = log(host, port, files);
        let refused = log.open_writer(&newcomer(), TIMEOUT).map(drop).unwrap_err();
        assert!(
            matches!(refused, BrokerError::Refused { .. }),
            "{certificate} {refused:?}"
        );
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
}

#[test]
fn a_server_may_want_a_certificate_of_the_node() {
    let directory = TemporaryDirectory::new("tls");
    let [certificate, key] = ["node.pem", "node.key"].map(|name| directory.path(name));
    let make = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-subj", "/CN=node", "-days", "2"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is installed");
    assert!(make.status.success(), "{make:?}");
    // The server accepts this certificate only.
    let accepted = certificate.to_str().unwrap();
    let (_server, port) = serve_with("localhost", &["--tls-ca-cert-file", accepted]);
    let refused = log("localhost", port, own_authority());
    let refused = refused
        .open_writer(&newcomer(), TIMEOUT)
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(refused, BrokerError::Refused { .. }),
        "{refused:?}"
    );
    let files = TlsFiles {
        identity: Some((certificate, key)),
        ..own_authority()
    };
    drop(writer(&log("localhost", port, files)));
}

#[test]
fn a_server_without_tls_is_not_used() {
    let server = Server::start();
    let log = log("localhost", server.port, own_authority());
    assert!(log.open_writer(&newcomer(), TIMEOUT).is_err());
}

#[test]
fn files_that_are_missing_or_something_else_are_errors() {
    let url = || "rediss://localhost".parse().unwrap();
    let error = |files: TlsFiles| match RedisLog::new(url(), &RedisOptions::new().tls(files)) {
        Err(OptionsError::Tls(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let authorities = |path: PathBuf| TlsFiles {
        authorities: Some(path),
        identity: None,
    };
    assert!(error(authorities("/does/not/exist".into())).contains("/does/not/exist has no"));
    assert!(error(authorities(file("key"))).contains("has no certificate"));
    let identity = |certificate, key| TlsFiles {
        authorities: None,
        identity: Some((file(certificate), file(key))),
    };
    assert!(error(identity("key", "key")).contains("has no certificate"));
    assert!(error(identity("localhost", "ca")).contains("has no private key"));
    // Without TLS no file is read.
    let url = "redis://localhost".parse().unwrap();
    let files = authorities("/does/not/exist".into());
    assert!(RedisLog::new(url, &RedisOptions::new().tls(files)).is_ok());
}
