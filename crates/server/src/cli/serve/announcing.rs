//! The start-up message.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::Settings;
use super::listening::Endpoint;
use crate::cli::log::Format;

/// Prints the listen addresses, two commands to try and the dashboard, or logs the
/// addresses as JSON.
pub(super) fn announce(settings: &Settings, endpoints: &[Endpoint], has_tokens: bool) {
    match settings.arguments.logs.format() {
        Format::Json => {
            for endpoint in endpoints {
                log::info!(address:% = endpoint; "listening");
            }
        }
        // The server also runs if standard output is closed.
        Format::Text => drop(show(settings, endpoints, has_tokens)),
    }
}

fn show(settings: &Settings, endpoints: &[Endpoint], has_tokens: bool) -> io::Result<()> {
    let bearer = |credential: &str| format!(" -H \"Authorization: Bearer {credential}\"");
    let token = match has_tokens {
        true => bearer("$TOKEN"),
        false => String::new(),
    };
    let key = credential_to_publish(settings);
    let key = key.map_or(token.clone(), |key| bearer(&key));
    let mut out = io::stdout().lock();
    let mut tcp = None;
    for endpoint in endpoints {
        match endpoint {
            Endpoint::Tcp { text, addresses } => {
                writeln!(out, "pushwheel listens on http://{text}")?;
                tcp = tcp.or(addresses.first().copied());
            }
            Endpoint::Unix(_) => writeln!(out, "pushwheel listens on {endpoint}")?,
        }
    }
    let url = match (tcp, endpoints) {
        (Some(address), _) => format!("http://{}", reachable(address)),
        (None, [Endpoint::Unix(path), ..]) if !path.as_os_str().is_empty() => {
            format!("--unix-socket {} http://localhost", quoted(path))
        }
        _ => return out.flush(),
    };
    writeln!(out, "  subscribe:  curl -N{token} {url}/channels/news")?;
    writeln!(out, "  publish:    curl{key} -d hello {url}/channels/news")?;
    if tcp.is_some() {
        writeln!(out, "  dashboard:  {url}/")?;
    }
    out.flush()
}

/// Returns the publish key as a word of a shell: the variable or the file that the server
/// read it from, or a placeholder for a key of the command line or the configuration file.
fn credential_to_publish(settings: &Settings) -> Option<String> {
    let keys = &settings.arguments.keys;
    let publish = (
        keys.publish_key.is_some(),
        keys.publish_key_file.first(),
        "publish_key",
    );
    let admin = (
        keys.admin_key.is_some(),
        keys.admin_key_file.first(),
        "admin_key",
    );
    [publish, admin]
        .into_iter()
        .find_map(|(is_given, file, name)| match (is_given, file) {
            (true, _) if settings.is_from_environment(name) => {
                Some(format!("$PUSHWHEEL_{}", name.to_uppercase()))
            }
            (true, _) => Some(name.to_uppercase()),
            (false, Some(file)) => Some(format!("$(cat {})", quoted(file))),
            (false, None) => None,
        })
}

/// Returns the absolute path as a word of a shell.
fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match path.bytes().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// Returns the loopback address for a server that listens on all addresses.
pub(in crate::cli) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("/etc/pushwheel/key-1", "/etc/pushwheel/key-1"),
            ("/a b", "'/a b'"),
            ("/it's", r"'/it'\''s'"),
            ("/$x", "'/$x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        for (address, url) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), url);
        }
    }
}
